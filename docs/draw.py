"""Draw the pictures of README and docs, as PNG and SVG beside this file.

python docs/draw.py axes
python docs/draw.py lanes
python docs/draw.py poster lightning_logs/replication
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from normlab.analysis.colours import FAINT, INK, QUIET
from normlab.analysis.drawing import SMALL, TEXT, plain, png, sheet, svg
from normlab.errors import NormlabError
from normlab.norms import CATALOGUE

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", choices=["axes", "lanes", "poster"])
    parser.add_argument("folder", nargs="?", type=Path, help="for poster: a folder with the runs of a study")
    parser.add_argument("--out", type=Path, default=HERE, help="where to; beside this file by default")
    given = parser.parse_args(arguments)
    if given.picture == "poster" and given.folder is None:
        parser.error("poster: name a folder with the runs of a study")
    drawn = {"axes": axes_figure, "lanes": lanes_figure, "poster": lambda: poster_figure(given.folder)}
    with plain():
        try:
            figure = drawn[given.picture]()
        except NormlabError as error:
            parser.error(str(error))
        given.out.mkdir(parents=True, exist_ok=True)
        for ending, content in {"svg": svg(figure), "png": png(figure)}.items():
            (given.out / f"{given.picture}.{ending}").write_bytes(content)


def axes_figure() -> Figure:
    """A cube for each way in which norms share one statistic: of norms with the same axes the first. A cube of a norm
    with several would show one of them alone."""
    from normlab.analysis.axes_picture import axes

    first = {entry.axes: name for name, entry in reversed(CATALOGUE.items()) if len(entry.axes) <= 1}
    return axes([name for name in CATALOGUE if name in first.values()])


def lanes_figure() -> Figure:
    """How 16 images lie in memory, and what one instruction does to them."""
    margin, left, accent = 24, 290, CATALOGUE["gn"].colour
    fig, ax, top = sheet(
        820, 270, "Sixteen images side by side", "A map is [channel][row][column][image]: one vector per pixel."
    )

    def strip(x: float, y: float, label: str, shade: float) -> None:
        for image in range(16):
            ax.add_patch(Rectangle((x + 14 * image, y), 14, 22, facecolor=accent, alpha=shade, edgecolor="white"))
        ax.text(x + 112, y - 6, label, size=SMALL, color=QUIET, ha="center")

    images = [(margin + 6 * index, top + 16 + 6 * index) for index in range(16)]
    for x, y in images:
        ax.add_patch(Rectangle((x, y), 84, 84, facecolor="white", edgecolor=FAINT))
    x, y = images[-1]
    ax.add_patch(Rectangle((x, y), 14, 14, facecolor=accent, alpha=0.8))
    ax.add_patch(Rectangle((x + 14, y), 14, 14, facecolor=accent, alpha=0.4))
    ax.text(x + 42, y + 56, "image 15", size=SMALL, color=QUIET, ha="center")
    strip(left, top + 30, "pixel 0 of images 0 to 15", 0.8)
    strip(left + 236, top + 30, "pixel 1 of images 0 to 15", 0.4)
    strip(left, top + 140, "pixel 0 of 16 images", 0.8)
    strip(left, top + 190, "", 0.25)
    for x, y, text in [
        (margin, top + 212, "images 0 to 15"),
        (left + 472, top + 46, "…"),
        (left, top + 78, "in memory"),
        (left + 236, top + 156, "×  one weight of a filter"),
        (left + 236, top + 206, "+  16 sums, one per image"),
        (left, top + 246, "One instruction, and no lane idle at any number of channels."),
        (left, top + 266, "Images meet in sums alone: gradients of weights, statistics of a batch."),
    ]:
        ax.text(x, y, text, size=TEXT, color=INK)
    return fig


def poster_figure(folder: Path) -> Figure:
    """The overview of a study; with the images where they are on this machine ($NORMLAB_DATA)."""
    from normlab.analysis.poster import poster
    from normlab.compared import compare

    compared = compare(folder)
    return poster(compared.answers, compared.images)


if __name__ == "__main__":
    main()
