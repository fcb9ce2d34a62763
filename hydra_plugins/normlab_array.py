"""Where Hydra looks for launchers: a class has to live in this namespace package to be one. What it does: normlab.launcher."""

from hydra.core.config_store import ConfigStore

from normlab import launcher

__all__ = ["ArrayLauncher"]


class ArrayLauncher(launcher.ArrayLauncher):
    """`hydra/launcher=array`."""


ConfigStore.instance().store(
    group="hydra/launcher", name="array", node=launcher.ArrayLauncherConf, provider="normlab_array"
)
