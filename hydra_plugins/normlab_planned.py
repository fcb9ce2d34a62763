"""`hydra/sweeper=planned`: the jobs of normlab.settings.plan, as they were planned, handed to Hydra's launchers.

Hydra takes sweepers from this namespace package only.
"""

from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override

__all__ = ["PlannedSweeper"]


class PlannedSweeper(BasicSweeper):
    """`hydra/sweeper=planned`. `jobs`: the words of each run."""

    jobs: list[list[str]] = []  # noqa: RUF012  (set once per command, by normlab.train)

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:  # noqa: ARG004
        """Return the jobs in batches, as the basic sweeper has them."""
        return list(BasicSweeper.split_overrides_to_chunks(PlannedSweeper.jobs, max_batch_size))


@dataclass
class PlannedSweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.normlab_planned.PlannedSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="planned", node=PlannedSweeperConf, provider="normlab_planned")
