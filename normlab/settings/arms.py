"""What belongs to one arm of a sweep: `norm.target` and `norm.options` go to norm=custom, whatever it is crossed with.

Words are overrides of a command line, `name=value`; a job is the words of one run.
"""

from collections.abc import Sequence

from normlab.errors import ConfigError

__all__ = ["arms", "mixed_sweep"]

OF_CUSTOM = ("norm.target", "norm.options")
ALONE = (*OF_CUSTOM, "+norm.target")  # what no other norm takes


def arms(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """The jobs of a sweep, with the words for a user's own layer in those alone that have norm=custom.

    Jobs that differed in such words only become one: `norm=bn,custom norm.target=a:A,b:B` are three runs. Without any
    norm=custom, `+norm.options` is for the package's own norms. Raises `ConfigError` where there are other such words
    and no job has norm=custom.
    """
    if not any("norm=custom" in job for job in jobs) and not any(
        word.startswith(ALONE) for job in jobs for word in job
    ):
        return [list(job) for job in jobs]
    lost: dict[tuple[str, ...], list[str]] = {}
    found: list[list[str]] = []
    for job in jobs:
        kept = list(job) if "norm=custom" in job else [word for word in job if not _of_custom(word)]
        gone = [word for word in job if word not in kept]
        if not gone or lost.setdefault(tuple(kept), gone) == gone:  # the same words twice are for the plan to refuse
            found.append(kept)
    if lost and not any("norm=custom" in job for job in found):
        raise ConfigError(
            f"{next(iter(lost.values()))[0]} goes with norm=custom: add custom to the norms, or leave it out"
        )
    return found


def mixed_sweep(words: Sequence[str]) -> list[str]:
    """The words with which Hydra sweeps over custom and other norms: values for custom as a sweep of one, which it does
    not try on the default norm first, and the sweeper that keeps them to their arm."""
    own = [_as_sweep(word) if _of_custom(word) else word for word in words]
    return [*own, "hydra/sweeper=arms"]


def _of_custom(word: str) -> bool:
    name = word.lstrip("+~").partition("=")[0]
    return any(name == own or name.startswith(f"{own}.") for own in OF_CUSTOM)


def _as_sweep(word: str) -> str:
    name, _, value = word.partition("=")
    return word if value.startswith("choice(") else f"{name}=choice({value})"
