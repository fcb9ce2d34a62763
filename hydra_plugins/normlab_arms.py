"""`hydra/sweeper=arms`: Hydra's basic sweeper, with the words for a user's own layer kept to norm=custom.

Hydra takes sweepers from this namespace package only; what a word belongs to stands in normlab/settings/arms.py.
"""

from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override

from normlab.settings.arms import arms

__all__ = ["ArmsSweeper"]


class ArmsSweeper(BasicSweeper):
    """`hydra/sweeper=arms`."""

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """The jobs in batches, as the basic sweeper has them."""
        (jobs,) = BasicSweeper.split_arguments(overrides, None)
        return list(BasicSweeper.split_overrides_to_chunks(arms(jobs), max_batch_size))


@dataclass
class ArmsSweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.normlab_arms.ArmsSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="arms", node=ArmsSweeperConf, provider="normlab_arms")
