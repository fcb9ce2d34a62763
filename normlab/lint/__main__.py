"""`python -m normlab.lint > docs/lint.md`: the page of all rules."""

from normlab.lint.rules import page

print(page(), end="")
