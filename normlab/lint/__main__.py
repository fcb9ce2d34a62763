"""`python -m normlab.lint > docs/lint.md`: the page of all rules."""

from normlab.lint.rules import page

if __name__ == "__main__":
    print(page(), end="")
