"""What may mislead in a study, told before its first run and beside its results. No torch: it is told at once."""

from normlab.lint.finding import Finding
from normlab.lint.planned import lint
from normlab.lint.results import lint_results

__all__ = ["Finding", "lint", "lint_results"]
