"""List the licences of what normlab installs: `python docs/licences.py > docs/licences.md`, from packages' metadata."""

from importlib.metadata import PackageNotFoundError, metadata, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def licence(name: str) -> str:
    """Return what an installed package says of its licence: an SPDX expression, its classifiers or its own words."""
    told = metadata(name)
    classifiers = [line.rpartition(" :: ")[2] for line in told.get_all("Classifier", []) if line.startswith("License")]
    return told.get("License-Expression") or ", ".join(classifiers) or (told.get("License") or "").partition("\n")[0]


def needed(name: str) -> set[str]:
    """Return the packages that an installed one asks for here, without its extras."""
    asked = [Requirement(each) for each in requires(name) or []]
    return {
        canonicalize_name(each.name) for each in asked if each.marker is None or each.marker.evaluate({"extra": ""})
    }


def tree(name: str = "normlab") -> dict[str, str]:
    """Return the licence of every package that comes with one, by the package's name."""
    found, left = dict[str, str](), needed(name)
    while left:
        package = left.pop()
        try:
            found[package] = licence(package)
        except PackageNotFoundError:  # of another system
            continue
        left |= needed(package) - found.keys()
    return dict(sorted(found.items()))


def page() -> str:
    """Return licences.md."""
    direct = needed("normlab")
    lines = [
        "# Licences",
        "",
        "normlab is under the MIT licence. What an installation brings on Linux with CUDA, in the packages' words, by",
        "`python docs/licences.py > docs/licences.md`; **bold**: what normlab itself asks for.",
        "",
        "| package | licence |",
        "|---|---|",
    ]
    for name, text in tree().items():
        lines.append(f"| {f'**{name}**' if name in direct else name} | {text or 'not stated'} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(page(), end="")
