"""Draws the pictures of the README, as PNG and SVG beside this file.

python docs/draw.py axes
python docs/draw.py poster lightning_logs/replication
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from normlab.analysis.drawing import plain
from normlab.analysis.pictures import Picture, save
from normlab.errors import DataError, NormlabError

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", choices=["axes", "poster"])
    parser.add_argument("folder", nargs="?", type=Path, help="for poster: a folder with the runs of a study")
    parser.add_argument("--out", type=Path, default=HERE, help="where to; beside this file by default")
    given = parser.parse_args(arguments)
    if given.picture == "poster" and given.folder is None:
        parser.error("poster: name a folder with the runs of a study")
    with plain():
        try:
            figure = axes_figure() if given.picture == "axes" else poster_figure(given.folder)
        except NormlabError as error:
            parser.error(str(error))
        save(Picture(given.picture, "", "", figure, given.picture), given.out)


def axes_figure() -> Figure:
    """A cube for each way in which norms share one statistic: of norms with the same axes the first. A cube of a norm
    with several would show one of them alone."""
    from normlab.analysis.axes_picture import axes
    from normlab.norms import CATALOGUE

    first = {entry.axes: name for name, entry in reversed(CATALOGUE.items()) if len(entry.axes) <= 1}
    return axes([name for name in CATALOGUE if name in first.values()])


def poster_figure(folder: Path) -> Figure:
    """The overview of a study; with the images where they are on this machine ($NORMLAB_DATA)."""
    from normlab.analysis.cells import sort
    from normlab.analysis.poster import poster
    from normlab.analysis.table import runs
    from normlab.analysis.tables import compared
    from normlab.data.sources import load
    from normlab.settings import Study

    study = Study.find(folder)
    margin = study.margin if study else 0.05
    found = sort(runs(folder), study.factors if study else ())
    completed = [run for cell in found.cells for run in cell.completed]
    if not completed:
        raise NormlabError(f"{folder} holds no completed run")
    try:
        data = load(found.data, download=False)
        images, classes = data.test_images, data.classes
    except DataError:
        images, classes = None, tuple(map(str, range(completed[0].classes)))
    run, count = completed[0], len(completed)
    title = f"{len(found.cells)} settings, {count} runs on {found.data}"
    note = f"{run.record.data['train']:,} training images, {run.config['epochs']} epochs, the last one counts."
    question = f"{study.question} " if study else ""
    return poster(
        found, compared(found, margin), margin, title=title, note=question + note, images=images, classes=classes
    )


if __name__ == "__main__":
    main()
