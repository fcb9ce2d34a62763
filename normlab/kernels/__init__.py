"""The small network's step on a CPU: C++ that is compiled when it is first used, see `vectors.h` for its layout."""

from normlab.kernels.compile import library
from normlab.kernels.step import Gathered, Kernel
from normlab.kernels.support import unsupported, why_torch

__all__ = ["Gathered", "Kernel", "library", "unsupported", "why_torch"]
