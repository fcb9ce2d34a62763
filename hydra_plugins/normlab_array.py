"""Hydra takes launchers from this namespace package only; what this one does stands in normlab/launcher.py."""

from hydra.core.config_store import ConfigStore

from normlab import launcher

__all__ = ["ArrayLauncher"]


class ArrayLauncher(launcher.ArrayLauncher):
    """`hydra/launcher=array`."""


ConfigStore.instance().store(
    group="hydra/launcher", name="array", node=launcher.ArrayLauncherConf, provider="normlab_array"
)
