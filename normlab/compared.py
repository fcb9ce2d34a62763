"""A folder of runs, compared: the finding, and every part of a report as tables and figures. Nothing is written."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from normlab.analysis.cells import RunsBySetting, chosen, group_runs
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
from normlab.analysis.rounds import answers_of
from normlab.analysis.table import Run, find
from normlab.errors import DataError, NormlabError, first_line
from normlab.lint import check_codes, lint_results
from normlab.settings import MARGIN, NO_STUDY, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    found = group_runs(read.runs, (read.study or NO_STUDY).factors, read.left_out)
    answers = answers_of(found, read.study, MARGIN if read.margin is None else read.margin)
    return Compared(answers, read.margin, ignore)


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
    return _Read(chosen(every, choose), left_out, study, asked)


@dataclass(frozen=True)
class ComparedFolders:
    """Folders of runs, setting by setting beside the first of them.

    Attributes:
        names: of the folders. grouped: their runs. frame: one row per common setting.
        parts, findings, warnings: as of `Compared`.
    """

    names: list[str]
    grouped: list[RunsBySetting]
    frame: pd.DataFrame
    parts: list[Part]
    findings: list[str]

    @property
    def warnings(self) -> list[str]:
        return [note for found in self.grouped for note in found.notes]


def compare_folders(
    folders: Sequence[str | Path], choose: Sequence[str] = (), *, margin: float | None = None
) -> ComparedFolders:
    """Compare two folders of runs or more, setting by setting, with the first; choose and margin as of `compare`.

    Raise `NormlabError`, in one line, where data sets differ or no setting is in two of them.
    """
    read = [_read(Path(folder), choose, margin) for folder in folders]
    study = next((each.study for each in read if each.study), NO_STUDY)
    half = next((each.margin for each in read if each.margin is not None), MARGIN)
    names = _names([Path(folder) for folder in folders])
    found = both([each.runs for each in read], names, study.factors, [each.left_out for each in read])
    frame = beside_frame(found, names, study.primary, half)
    told = beside_findings(found, names, frame, study.primary)
    if frame.empty:
        raise NormlabError(f"nothing to compare: no setting is in two of the folders. {' '.join(told)}")
    return ComparedFolders(names, found, frame, [beside(frame, study.primary, half, len(folders) > 2)], told)


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
        self.parts = [make(answers) for make in PARTS]
        self.findings = findings(answers)
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
        pictures = {picture.name: picture for _, picture in self.pictures()}
        figure = pictures[name].draw(self.images) if name in pictures else None
        if figure is not None:
            return figure
        raise KeyError(f"{name} is no figure of this report; there are {', '.join(pictures)}")

    def pictures(self) -> Iterator[tuple[Part, Picture]]:
        """The figures, to be drawn, each with its part."""
        return ((part, picture) for part in self.parts for picture in part.pictures())

    @cached_property
    def images(self) -> ImageSet:
        """The test images, where they are on this machine, for figures that show some."""
        from normlab.data.sources import load

        found = self.answers.grouped
        configs: Iterator[Mapping[str, object]] = (run.record.config.get("data", {}) for run in found.completed)
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
            known = range(max((run.classes for run in found.completed), default=0))
            return ImageSet(None, tuple(map(str, known)), first_line(error))


def _lost(answers: Answers) -> Part:
    rows = [
        {"run": run.folder.name, "status": run.record.status, "why": run.record.error or ""}
        for run in answers.grouped_all.lost
    ]
    table = Table("lost", pd.DataFrame(rows), [text("run"), text("status"), text("why")], first=True)
    return Part("lost", "Runs that did not complete", tables=[table])


PARTS: Sequence[Callable[[Answers], Part]] = (  # in the order of the page
    effects, claims, settings, published, curves, factors, rates, path, robustness, statistics, probes, errors, classes,
    persistent_errors, _lost,
)  # fmt: skip
