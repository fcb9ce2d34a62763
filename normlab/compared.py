"""A folder of runs, compared: the finding, and every part of a report as tables and figures. Nothing is written."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from normlab.analysis.cells import Sorted, chosen, sort
from normlab.analysis.declared import MARGIN
from normlab.analysis.findings import findings
from normlab.analysis.part import ImageSet, Part, Picture, Table, text
from normlab.analysis.parts.beside import beside, beside_findings, beside_frame, both
from normlab.analysis.parts.claims import claims, published
from normlab.analysis.parts.classes import classes
from normlab.analysis.parts.curves import curves, factors
from normlab.analysis.parts.effects import effects
from normlab.analysis.parts.errors import errors, persistent_errors
from normlab.analysis.parts.path import path
from normlab.analysis.parts.probes import probes
from normlab.analysis.parts.rates import rates
from normlab.analysis.parts.robustness import robustness
from normlab.analysis.parts.settings import settings
from normlab.analysis.parts.statistics import statistics
from normlab.analysis.questions import Answers
from normlab.analysis.table import Run, find
from normlab.errors import DataError, NormlabError
from normlab.lint import check_codes, lint_results
from normlab.settings import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Beside", "Compared", "compare", "compare_folders"]


def compare(
    folder: str | Path, choose: Sequence[str] = (), *, margin: float | None = None, ignore: Sequence[str] = ()
) -> "Compared":
    """Compare the runs in a folder. Nothing is written.

    Args:
        folder: of runs, such as "lightning_logs/replication".
        choose: "setting=value" or "setting=a,b": only runs that have one of these values.
        margin: of equivalence, in the unit of the primary outcome (percentage points); that of the study unless given,
            else 0.1.
        ignore: codes of docs/lint.md whose warnings are left out.

    Raises:
        NormlabError: in one line, where there is nothing to report or runs cannot be compared.
    """
    check_codes(ignore)
    read = _read(Path(folder), choose, margin)
    found = sort(read.runs, read.study.factors if read.study else ())
    found = replace(found, notes=(*read.left_out, *found.notes))
    margin = MARGIN if read.margin is None else read.margin
    return Compared(Answers(found, read.study, margin), read.margin, ignore)


class _Read(NamedTuple):
    """The chosen runs of a folder, what cannot be read there, its study, and the margin that somebody named."""

    runs: list[Run]
    left_out: list[str]
    study: Study | None
    margin: float | None


def _read(folder: Path, choose: Sequence[str], margin: float | None) -> _Read:
    study = Study.find(folder)
    asked = margin if margin is not None else study.margin if study else None
    if asked is not None and not (math.isfinite(asked) and asked > 0):
        raise NormlabError(f"--margin {asked:g}: must be above 0 percentage points")
    every, left_out = find(folder)
    return _Read(chosen(every, _wanted(choose)), left_out, study, asked)


@dataclass(frozen=True)
class Beside:
    """Folders of runs, setting by setting beside the first of them.

    Attributes:
        names: of the folders. found: their runs. frame: one row per common setting. findings: sentences.
        part: the same as a part of a report.
    """

    names: list[str]
    found: list[Sorted]
    frame: pd.DataFrame
    findings: list[str]
    part: Part


def compare_folders(
    folders: Sequence[str | Path], choose: Sequence[str] = (), *, margin: float | None = None
) -> Beside:
    """Compare two folders of runs or more, setting by setting, with the first; choose and margin as of `compare`.

    Raise `NormlabError`, in one line, where data sets differ or no setting is in two of them.
    """
    read = [_read(Path(folder), choose, margin) for folder in folders]
    study = next((each.study for each in read if each.study), None)
    outcome = study.primary if study else "test_acc"
    half = next((each.margin for each in read if each.margin is not None), MARGIN)
    names = _names([Path(folder) for folder in folders])
    sorted_ = both([each.runs for each in read], names, study.factors if study else ())
    found = [replace(each, notes=(*one.left_out, *each.notes)) for each, one in zip(sorted_, read, strict=True)]
    frame = beside_frame(found, names, outcome, half)
    told = beside_findings(found, names, frame, outcome)
    if frame.empty:
        raise NormlabError(f"nothing to compare: no setting is in two of the folders. {' '.join(told)}")
    part = beside(frame, outcome, half, len(folders) > 2)
    return Beside(names, found, frame, told, part)


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, with as much of what is above them as tells them apart."""
    parts = [folder.resolve().parts for folder in folders]
    length = next((n for n in range(1, max(map(len, parts))) if len({each[-n:] for each in parts}) == len(parts)), 1)
    return ["/".join(each[-length:]) for each in parts]


class Compared:
    """A folder of runs, compared: findings, tables and figures, in memory.

    Attributes:
        answers: the declared questions and the models behind them.
        parts: the parts of the report, in its order.
        findings: what came out, in sentences.
        warnings: what may mislead in it.
    """

    def __init__(self, answers: Answers, asked: float | None = None, ignore: Sequence[str] = ()) -> None:
        self.answers = answers
        self.parts = [part for make in PARTS if (part := make(answers)) is not None]
        claims_ = self.frame("claims")
        rulings = list(claims_["ruling"]) if len(claims_) else []
        self.findings = findings(answers, rulings)
        self.warnings = [str(each) for each in lint_results(answers, margin=asked, ignore=ignore)]

    def _table(self, name: str) -> Table:
        tables = {table.name: table for part in self.parts for table in part.tables if table.name}
        if name not in tables:
            raise KeyError(f"{name} is no table of this report; there are {', '.join(tables)}")
        return tables[name]

    def frame(self, name: str) -> pd.DataFrame:
        """Return a table as numbers, as in the CSV file of that name: "summary", "effects", "pairs", "claims", …

        It is empty where these runs have none. Raise `KeyError`, with the names, where no report has such a table.
        """
        return self._table(name).frame

    def shown(self, name: str) -> pd.DataFrame:
        """Return the same as people read it."""
        table = self._table(name)
        return pd.DataFrame(table.rows, columns=table.headings)

    def figure(self, name: str) -> "Figure":
        """Draw the figure of that name: "accuracy", "effects", "curves", …

        Raise `KeyError`, with the names, where there is none.
        """
        names = []
        for _, picture in self.pictures():
            names.append(picture.name)
            if picture.name == name and picture.figure is not None:
                return picture.figure
        raise KeyError(f"{name} is no figure of this report; there are {', '.join(names)}")

    def pictures(self, telling: Callable[[str], None] = lambda _: None) -> Iterator[tuple[Part, Picture]]:
        """Draw the figures, each with its part.

        Args:
            telling: called with the reason where galleries cannot be drawn on this machine.
        """
        from normlab.analysis.drawing import plain  # matplotlib: half a second that a report without figures saves

        images = self.images(telling)
        with plain():
            for part in self.parts:
                for picture in part.draw(images):
                    yield part, picture

    def images(self, telling: Callable[[str], None] = lambda _: None) -> ImageSet:
        """Return the test images of the data set, where they are on this machine; telling: as of `pictures`."""
        from normlab.data.sources import load

        found = self.answers.found
        completed = [run for cell in found.cells for run in cell.completed]
        classes = tuple(map(str, range(max((run.classes for run in completed), default=0))))  # until names are known
        configs: Iterator[Mapping[str, object]] = (run.record.config.get("data", {}) for run in completed)
        places = [(config.get("root"), config.get("size")) for config in configs]
        root, size = next((place for place in places if isinstance(place[0], str)), (None, None))
        if found.data != "folder" and root and not Path(str(root)).expanduser().is_dir():  # trained elsewhere
            root = None
        try:
            if found.data == "folder" and len({each for each, _ in places}) > 1:
                raise DataError("the runs are of several folders (data.root)")
            loaded = load(found.data, root, download=False, size=size)  # type: ignore[arg-type]  # as it was recorded
            return ImageSet(loaded.test_images, loaded.classes)
        except DataError as error:
            telling(str(error).splitlines()[0])
            return ImageSet(None, classes)


def _lost(answers: Answers) -> Part | None:
    lost = answers.found.lost
    if not lost:
        return None
    frame = pd.DataFrame(
        [{"run": run.folder.name, "status": run.record.status, "why": run.record.error or ""} for run in lost]
    )
    table = Table("lost", frame, [text("run"), text("status"), text("why")])
    return Part("lost", "Runs that did not complete", tables=[table])


PARTS: Sequence[Callable[[Answers], Part | None]] = (  # in the order of the page
    effects, claims, settings, published, curves, factors, rates, path, robustness, statistics, probes, errors, classes,
    persistent_errors, _lost,
)  # fmt: skip


def _wanted(choose: Sequence[str]) -> dict[str, list[str]]:
    wanted = {}
    for given in choose:
        key, equals, values = given.partition("=")
        if not (key and equals and values):
            raise NormlabError(f"{given}: write setting=value, as in norm=bn,ln")
        wanted[key] = values.split(",")
    return wanted
