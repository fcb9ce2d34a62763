"""When a run is measured."""

import numpy as np

__all__ = ["POINTS", "points"]

POINTS = 40  # a run: the curves of a paper, at a cost that does not grow with the length of training


def points(steps: int, count: int = POINTS) -> list[int]:
    """At most `count` of the steps 0 … steps - 1, evenly spaced, the first and the last among them."""
    return sorted({round(step) for step in np.linspace(0, max(steps - 1, 0), min(count, steps)).tolist()})
