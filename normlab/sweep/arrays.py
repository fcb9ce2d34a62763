"""Which runs of a sweep are trained together, and which individually; progress.log says both."""

from collections.abc import Sequence

from normlab.record import read_plan, write_plan
from normlab.settings.arrays import arrays
from normlab.settings.plan import Job
from normlab.sweep.progress import note

__all__ = ["LARGEST", "planned"]

LARGEST = {"cpu": 24, "gpu": 64}  # runs of an array unless n_per_array says otherwise: benchmarks/study.py


def planned(jobs: Sequence[Job], waiting: Sequence[Job], largest: int, workers: int = 1) -> list[list[Job]]:
    """Return the arrays in which runs are trained; each is left as its plan with its first run.

    Args:
        jobs: All runs of the sweep.
        waiting: Those that are to be trained.
        largest: Runs of an array at most.
        workers: Processes that share the arrays.
    """
    diary = waiting[0].folder.parent / "progress.log"
    runs = _stopped(jobs, waiting)
    for run in runs:
        note(diary, f"an array of {len(run)} runs resumes: {', '.join(job.folder.name for job in run)}")
    resumed = {job.folder for run in runs for job in run}
    left = [job for job in waiting if job.folder not in resumed]
    begun = [job for job in left if (job.folder / "last.ckpt").is_file() and not job.settings.force]
    for job in begun:
        reason = "it was started on its own or in another array, and resumes from there"
        note(diary, f"{job.folder.name} runs individually: {reason}")
    new = [job for job in left if job not in begun]
    groups, single = arrays([job.settings for job in new], largest, workers)
    groups, odd = _without_odd_layers(new, groups)
    for index, reason in sorted((single | odd).items()):
        note(diary, f"{new[index].folder.name} runs individually: {reason}")
    for group in groups:
        run = [new[index] for index in group]
        note(diary, f"an array of {len(run)} runs: {', '.join(job.folder.name for job in run)}")
        if not any(job.settings.force for job in run):
            write_plan(run[0].folder, [(job.folder.name, job.settings.config_hash()) for job in run])
        runs.append(run)
    return runs


def _stopped(jobs: Sequence[Job], waiting: Sequence[Job]) -> list[list[Job]]:
    """Return the arrays that were planned before and have not ended, with those of their runs that have: a network's
    last bits depend on what it shares its products with, so they are left as they were planned."""
    known = {(job.folder.name, job.settings.config_hash()): job for job in jobs if not job.settings.force}
    left = {job.folder for job in waiting}
    plans = [plan for job in known.values() if (plan := read_plan(job.folder)) and set(plan) <= known.keys()]
    stopped: list[list[Job]] = []
    for array in [[known[run] for run in plan] for plan in plans]:
        folders = {job.folder for job in array}
        if left & folders:
            stopped.append(array)
            left -= folders
    return stopped


def _without_odd_layers(jobs: Sequence[Job], groups: list[list[int]]) -> tuple[list[list[int]], dict[int, str]]:
    """Return the arrays that a user's own layer allows; why the runs of the others are done individually, by their
    index."""
    fit: list[list[int]] = []
    odd: dict[int, str] = {}
    for group in groups:
        settings = jobs[group[0]].settings
        reason = None
        if settings.norm.name == "custom" or settings.net.name != "small":
            from normlab.training.build import unfoldable  # torch

            reason = unfoldable(settings)
        if reason is None:
            fit.append(group)
        else:
            odd |= dict.fromkeys(group, reason)
    return fit, odd
