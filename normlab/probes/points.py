"""When a run is measured."""

__all__ = ["POINTS", "points"]

POINTS = 40  # a run: the curves of a paper, at a cost that does not grow with the length of training


def points(steps: int, count: int = POINTS) -> list[int]:
    """Of the steps 0 … steps - 1 the first in each of `count` equal parts; all of them where there are no more."""
    parts = min(count, steps)
    return [part * steps // parts for part in range(parts)]
