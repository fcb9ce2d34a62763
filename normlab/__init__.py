"""normlab: what does a normalization layer do to a network, and how sure are we?

Train: `run` (one network), `sweep` (every combination of values), `study` (a named one).
Look: `read` (a folder of runs as a table), `compare` (verdicts and figures), `report` (a page), `predict`.
Build with: `Net`, `make_norm`, `Classifier`, `ImageData`; `load` makes settings of "name=value" words.
"""

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normlab.analysis import read
    from normlab.compared import compare
    from normlab.data.datamodule import ImageData
    from normlab.nets import Net
    from normlab.norms import make_norm
    from normlab.report import report
    from normlab.settings.plan import load
    from normlab.train import study, sweep
    from normlab.training import Classifier, predict, run

__all__ = [
    "Classifier", "ImageData", "Net", "compare", "load", "make_norm", "predict", "read", "report", "run", "study",
    "sweep",
]  # fmt: skip

# A notebook's kernel names its own backend to every program that is started from a cell. Where that is not installed,
# nothing that imports matplotlib could be imported, torchmetrics among it.
_backend = os.environ.get("MPLBACKEND", "").partition("module://")[2].partition(".")[0]
if _backend and importlib.util.find_spec(_backend) is None:
    del os.environ["MPLBACKEND"]

_MODULES = {  # where each name is, which is loaded when first used: torch takes seconds
    "Classifier": "training", "ImageData": "data.datamodule", "Net": "nets", "compare": "compared",
    "load": "settings.plan", "make_norm": "norms", "predict": "training", "read": "analysis", "report": "report",
    "run": "training", "study": "train", "sweep": "train",
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("normlab")
        except PackageNotFoundError:  # a clone on the path, not installed
            return "0+clone"
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"normlab.{_MODULES[name]}")
    return module if _MODULES[name] == name else getattr(module, name)  # `report` is a module that can be called


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
