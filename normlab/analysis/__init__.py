"""From files that runs left to tables and figures, for people. No torch, no Lightning: opens in a second."""

from normlab.analysis.table import read

__all__ = ["read"]
