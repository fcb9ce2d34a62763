"""Which runs of a sweep are trained together, and which individually; progress.log says both."""

from collections.abc import Sequence

from normlab.scheduler.progress import note
from normlab.settings.arrays import arrays
from normlab.settings.plan import Job

__all__ = ["LARGEST", "planned"]

LARGEST = {"cpu": 24, "gpu": 64}  # runs of an array unless n_per_array says otherwise: benchmarks/study.py


def planned(jobs: Sequence[Job], largest: int, workers: int = 1) -> list[list[Job]]:
    """Return the arrays in which runs are trained; progress.log says why the others run individually.

    Args:
        largest: Runs of an array at most.
        workers: Processes that share the arrays.
    """
    diary = jobs[0].folder.parent / "progress.log"
    groups, single = arrays([job.settings for job in jobs], largest, workers)
    found: list[list[Job]] = []
    for group in groups:
        if reason := _odd(jobs[group[0]]):
            single |= dict.fromkeys(group, reason)
        else:
            found.append([jobs[index] for index in group])
            note(diary, f"an array of {len(group)} runs: {', '.join(job.folder.name for job in found[-1])}")
    for index, reason in sorted(single.items()):
        note(diary, f"{jobs[index].folder.name} runs individually: {reason}")
    return found


def _odd(job: Job) -> str | None:
    """Return why a layer or a network of one's own cannot be trained in an array; None where it can."""
    if job.settings.norm.name != "custom" and job.settings.net.name == "small":
        return None
    from normlab.training.build import unfoldable  # torch

    return unfoldable(job.settings)
