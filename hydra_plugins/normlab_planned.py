"""`hydra/sweeper=planned`: the jobs of normlab.settings.plan, as they were planned, handed to Hydra's launchers.

Hydra takes sweepers from this namespace package only.
"""

from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override

__all__ = ["PlannedSweeper"]


class PlannedSweeper(BasicSweeper):
    """`hydra/sweeper=planned`."""

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:  # noqa: ARG004
        """Return the jobs in batches, as the basic sweeper has them."""
        from normlab.settings.plan import launched  # late: every Hydra program imports this file

        return list(BasicSweeper.split_overrides_to_chunks(launched, max_batch_size))


@dataclass
class PlannedSweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.normlab_planned.PlannedSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="planned", node=PlannedSweeperConf, provider="normlab_planned")
