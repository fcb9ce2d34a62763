"""What --out writes: a picture a norm as PNG and SVG, sheet.md, sheet.html and sheet.xlsx."""

from collections.abc import Sequence
from pathlib import Path

from normlab.analysis import drawing
from normlab.byhand.exact import Result
from normlab.byhand.pages import html, markdown
from normlab.byhand.picture import overview, picture
from normlab.byhand.workbook import workbook
from normlab.errors import ConfigError
from normlab.files import write_atomically

__all__ = ["write"]


def write(results: Sequence[Result], out: Path) -> tuple[list[str], str]:
    """Writes everything; returns the names of the files, and why there is no workbook, or nothing.

    The same results give the same bytes. Raises `ConfigError` where nothing can be written there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be a folder ({error.strerror}): choose another one") from None
    with drawing.plain():
        figures = {"norms": overview(results)} if len(results) > 1 else {}
        figures |= {result.norm: picture(result) for result in results}
        drawn = {name: drawing.svg(figure, f"normlab {name}") for name, figure in figures.items()}
        files = {f"{name}.svg": content for name, content in drawn.items()}
        files |= {f"{name}.png": drawing.png(figure) for name, figure in figures.items()}
    files["sheet.md"] = markdown(results).encode()
    files["sheet.html"] = html(results, drawn).encode()
    missing = ""
    try:
        files["sheet.xlsx"] = workbook(results)
    except ConfigError as error:
        missing = str(error)
    try:
        for name, content in files.items():
            write_atomically(out / name, content)
    except OSError as error:
        raise ConfigError(f"--out {out}: nothing can be written there ({error.strerror}): choose another one") from None
    return list(files), missing
