"""`until=decided`: which runs a study asks for next, from those that have ended."""

from collections.abc import Sequence
from pathlib import Path

from normlab.analysis.cells import Cell, group_runs
from normlab.analysis.rounds import Progress, Rounds
from normlab.analysis.sequential import looks
from normlab.analysis.table import Run
from normlab.scheduler.progress import final_record
from normlab.settings import NO_STUDY, Study, flatten
from normlab.settings.plan import Job


class Decided:
    """The runs of a study that decides how many seeds it needs.

    Args:
        jobs: every run that it may come to: all settings with all seeds.
        study: None for a sweep: its settings are then compared with each other.
    """

    def __init__(self, jobs: Sequence[Job], study: Study | None) -> None:
        self.jobs, self.study = list(jobs), study
        self.seeds = sorted({job.settings.seed for job in jobs})
        self.rounds = Rounds(study, (study or NO_STUDY).margin, self.seeds)

    def wanted(self) -> list[Job]:
        """Return the runs that are wanted by now, those that have ended included: of all settings alike at first,
        then of those whose questions are open."""
        progress, by_setting = self._progress()
        first = looks(len(self.seeds))[0]
        seeds = {key: progress.seeds[label] for key, label in by_setting.items()} if progress else {}
        return [job for job in self.jobs if self.seeds.index(job.settings.seed) < seeds.get(_key(job), first)]

    def state(self) -> str:
        """Return what is open, in a line; "" before the first look."""
        progress, _ = self._progress()
        if progress is None or not progress.look:
            return ""
        count, open_ = len(progress.answers), progress.open
        names = list(dict.fromkeys(open_))  # two settings differ by a contrast, a claim and a pair of the same name
        fewer = min(progress.seeds.values()) < progress.look
        after = f"after {'up to ' * fewer}{progress.look} seeds per setting"
        if not count:
            return f"{after} nothing can be asked: fewer than two settings have trained"
        if not open_:
            return f"{after} all {count} questions are decided"
        some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        end = "; no seeds are left" if progress.finished else ""
        return f"{after} {len(open_)} of {count} questions {'is' if len(open_) == 1 else 'are'} open ({some}){end}"

    def _progress(self) -> tuple[Progress | None, dict[str, str]]:
        """Where the study is, and the label of each setting; None while a setting has no run that has ended."""
        ended = [(job, record) for job in self.jobs if (record := final_record(job, 0))]
        runs = [(job, Run(job.folder, record, flatten(record.config))) for job, record in ended]
        if {_key(job) for job, _ in runs} < {_key(job) for job in self.jobs}:
            return None, {}
        found = group_runs([run for _, run in runs], (self.study or NO_STUDY).factors)
        of_folder: dict[Path, Cell] = {run.folder: cell for cell in found.cells for run in cell.ended}
        return self.rounds.progress(found), {_key(job): of_folder[run.folder].label for job, run in runs}


def _key(job: Job) -> str:
    """A job's setting."""
    return repr(sorted(job.settings.setting().items(), key=str))
