"""Hydra takes launchers from this namespace package only; what these do stands in normlab/cluster.py.

`submitit_slurm` and `submitit_local` keep their names and options: normlab.train puts `SlurmLauncher` and
`LocalLauncher` in the place of their plugin's, for its own command alone.
"""

from importlib.util import find_spec

__all__: list[str] = []

if find_spec("hydra_plugins.hydra_submitit_launcher") is not None:  # the extra `slurm`
    from hydra.core.config_store import ConfigStore

    from normlab import cluster

    class SlurmLauncher(cluster.Slurm):
        """`hydra/launcher=array_slurm`."""

    class LocalLauncher(cluster.Local):
        """`hydra/launcher=array_local`."""

    for name, node, launcher in (
        ("array_slurm", cluster.ArraySlurmConf, SlurmLauncher),
        ("array_local", cluster.ArrayLocalConf, LocalLauncher),
    ):
        ConfigStore.instance().store(
            group="hydra/launcher",
            name=name,
            node=node(_target_=f"{__name__}.{launcher.__name__}"),
            provider="normlab_cluster",
        )
