"""How Sphinx makes a site of these pages: `sphinx-build -W --keep-going -b html docs build/site`. It needs no network.

The pages are plain Markdown, so that they read the same in the repository. What a site needs beyond that is added here,
while Sphinx reads them.
"""

import inspect
import re
import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
REPOSITORY = DOCS.parent
sys.path.insert(0, str(REPOSITORY))  # the package of this clone, installed or not

import normlab  # noqa: E402

metadata = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
project, release = metadata["name"], metadata["version"]
author = project_copyright = "the normlab authors"

default_role = "code"  # docstrings write names in single backticks
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4  # links to headings, as in the repository
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # Lightning's hooks are described by Lightning
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]
pygments_style, pygments_dark_style = "friendly", "github-dark"


def contents(text: str) -> str:
    """A hidden toctree for each heading of a page that lists others: the pages that it names."""
    trees = []
    for part in re.split(r"(?m)^## ", text)[1:]:
        pages = re.findall(r"\]\(([\w/]+)\.md\)", part)
        if pages:
            trees.append(
                "\n".join(["```{toctree}", ":hidden:", f":caption: {part.splitlines()[0]}", "", *pages, "```"])
            )
    return "\n\n".join([text, *trees])


def public(text: str) -> str:
    """The public names under the text of the page on Python, and the classes that functions return."""
    found = {name: getattr(normlab, name) for name in normlab.__all__}
    for name, value in [*found.items()]:
        if inspect.ismodule(value):  # `report` is a module that can be called
            del found[name]
            found[f"{name}.{name}"] = value = getattr(value, name)
        returned = getattr(value, "__annotations__", {}).get("return")
        if isinstance(returned, str):
            returned = vars(inspect.getmodule(value)).get(returned)
        if inspect.isfunction(value) and inspect.isclass(returned) and returned.__module__.startswith("normlab"):
            found.setdefault(f"{returned.__module__}.{returned.__qualname__}".removeprefix("normlab."), returned)
    parts = []
    for name, value in found.items():
        kind, more = ("class", "\n   :members:") if inspect.isclass(value) else ("function", "")
        title = name.rpartition(".")[2]
        parts.append(f"## {title}\n\n```{{eval-rst}}\n.. auto{kind}:: normlab.{name}{more}\n```")
    return "\n\n".join([text, *parts])


def outside(text: str, folder: Path) -> str:
    """Links to what is no page: to the repository where it is public, else to a copy of the file. folder: the page's
    own."""
    base = metadata.get("urls", {}).get("Repository")

    def link(match: re.Match[str]) -> str:
        shown, path, anchor = match.groups()
        target = (folder / path).resolve()
        if target.suffix == ".md" and DOCS in target.parents:
            return match[0]
        if base:
            place = "tree" if target.is_dir() else "blob"
            return f"[{shown}]({base}/{place}/main/{target.relative_to(REPOSITORY).as_posix()}{anchor})"
        return shown if target.is_dir() else f"[{shown}](<path:{path}>)"

    return re.sub(r"(?<!!)\[([^\[\]]*)\]\((\.\./[^)#]+)(#[^)]*)?\)", link, text)


def read(_: Sphinx, page: str, source: list[str]) -> None:
    text = outside(source[0], (DOCS / page).parent)
    source[0] = {"index": contents, "studies": contents, "api": public}.get(page, str)(text)


def setup(app: Sphinx) -> None:
    app.connect("source-read", read)
