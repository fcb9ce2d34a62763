"""normlab: what does a normalization layer do to a network, and how sure are we?"""

import importlib
import importlib.util
import os
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("normlab")
except PackageNotFoundError:  # a clone on the path, not installed
    __version__ = "0+clone"

# A notebook's kernel names its own backend to every program that is started from a cell. Where that is not installed,
# nothing that imports matplotlib could be imported, torchmetrics among it.
_backend = os.environ.get("MPLBACKEND", "").partition("module://")[2].partition(".")[0]
if _backend and importlib.util.find_spec(_backend) is None:
    del os.environ["MPLBACKEND"]

_PUBLIC = {"compare": "normlab.compared", "read": "normlab.analysis"}  # loaded when first used
__all__ = ["compare", "read"]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
