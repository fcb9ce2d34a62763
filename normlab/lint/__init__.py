"""What may mislead in a study: rules about its settings, before its first run, and about its results.

A rule is a function with `@rule`; its docstring is its section in docs/lint.md. No torch here.
"""

from normlab.lint import comparison, network, results, seeds  # noqa: F401  (each registers its rules)
from normlab.lint.design import Spread, spread_of
from normlab.lint.rules import RULES, Finding, check_codes, lint, lint_results

__all__ = ["RULES", "Finding", "Spread", "check_codes", "lint", "lint_results", "spread_of"]
