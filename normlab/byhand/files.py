"""What --out writes: a picture of each norm as PNG and SVG, a page and a workbook."""

from collections.abc import Sequence
from pathlib import Path

from normlab.analysis import drawing
from normlab.byhand.exact import Result
from normlab.byhand.page import page, put
from normlab.byhand.pictures import overview, picture
from normlab.byhand.workbook import workbook

__all__ = ["write"]


def write(results: Sequence[Result], out: Path, name: str = "sheet") -> tuple[list[str], str]:
    """Writes everything, page and workbook under `name`; returns the files' names, and what the workbook leaves out.

    The same results give the same bytes. Raises `ConfigError` where nothing can be written there.
    """
    with drawing.plain():
        figures = {"norms": overview(results)} if len(results) > 1 else {}
        figures |= {result.norm: picture(result) for result in results}
        files = {f"{title}.svg": drawing.svg(figure, f"normlab {title}") for title, figure in figures.items()}
        files |= {f"{title}.png": drawing.png(figure) for title, figure in figures.items()}
    files[f"{name}.html"] = page(results).encode()
    content, missing = workbook(results)
    if content:
        files[f"{name}.xlsx"] = content
    for title, data in files.items():
        put(out / title, data, f"--out {out}")
    return list(files), missing.replace("sheet.xlsx", f"{name}.xlsx")
