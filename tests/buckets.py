"""Is the chance of an event as small as promised? Draws until it is clear, with a false alarm that is bounded.

After n draws with k events, the chances p with (n + 1)·C(n, k)·pᵏ·(1 − p)ⁿ⁻ᵏ > ε are left. The true one is among them
at every n with a probability of at least 1 − ε, however often one looks (Robbins 1970, "Statistical methods related to
the law of the iterated logarithm"). Two buckets that overlap, p < high and p > low, therefore end every test (Gandy &
Scott 2020, "Unit testing for MCMC and other Monte Carlo methods").
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import stats

ERROR = 5e-7  # ε of one test; tests/test_simulated.py has at most twenty, and 1e-5 in all


def rare(draw: Callable[[int], npt.NDArray[np.bool_]], low: float, high: float, batch: int = 500) -> bool:
    """Whether an event's chance is below ``high``, True, or above ``low``, False; both are right in between.

    A chance of at most ``low`` is called too large with a probability of at most `ERROR`, and one of at least ``high``
    small. draw: so many draws of the event.
    """
    n = events = 0
    while True:
        drawn = draw(batch)
        n, events = n + drawn.size, events + int(drawn.sum())
        for end, answer in ((low, False), (high, True)):
            beyond = events > n * end if answer is False else events < n * end
            if beyond and math.log(n + 1) + stats.binom.logpmf(events, n, end) < math.log(ERROR):
                return answer
