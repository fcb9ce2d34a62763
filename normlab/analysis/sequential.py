"""Looking at a study after every round of seeds, with the error rates of looking once.

A test that is repeated after every round rejects too often. Here each hypothesis spends its level over the looks, as a
function of the share t of the most seeds that a setting may get: after a look at t it has spent γ·t^ρ (Lan & DeMets
1983, "Discrete sequential boundaries for clinical trials"; Kim & DeMets 1987 for this family). `sequential_p` turns the
p of all looks so far into one p that holds whenever the study is looked at; over a family of hypotheses it is adjusted
as any other p (Maurer & Bretz 2013, "Multiple testing in group sequential trials using graphical approaches").

The boundaries are those of a Brownian motion, on the scale of p: a t of any degrees of freedom is compared by its p.
What the test images share between looks makes them more alike than that, and the procedure safer.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import special  # type: ignore[import-untyped, unused-ignore]

Floats = npt.NDArray[np.float64]

FIRST = 3  # seeds of a setting at the first look: fewer hardly show a standard deviation
GROWTH = 1.15  # from one look to the next
POWER = 1.5  # ρ: between Pocock's boundaries (1) and those of O'Brien and Fleming (3)
LEVELS = np.geomspace(1e-9, 0.5, 70)  # γ, one-sided, at which boundaries are computed
CELLS = 240  # of the grid over which the process is integrated


def looks(most: int) -> list[int]:
    """The numbers of seeds per setting after which a study of at most so many is looked at: 3, 4, 5, …, most."""
    found = [min(FIRST, most)]
    while found[-1] < most:
        found.append(min(most, max(found[-1] + 1, round(found[-1] * GROWTH))))
    return found


def sequential_p(p: npt.ArrayLike, seeds: Sequence[int], most: int, power: float = POWER) -> Floats:
    """Return the smallest one-sided level at which a hypothesis would have been rejected at one of the looks so far.

    Args:
        p: its one-sided p at each look, float (looks, …), of as many hypotheses as there are; NaN where
            there is none.
        seeds: per setting at each, of `looks(most)`. most: at the last. power: ρ.
    """
    every = looks(most)
    table = np.log(_boundaries(tuple(n / most for n in every), power))  # increases with γ
    levels = [
        np.interp(np.log(np.clip(values, 1e-300, None)), table[every.index(n)], np.log(LEVELS), left=-math.inf, right=0)
        for values, n in zip(np.asarray(p, dtype=float), seeds, strict=True)
    ]
    return np.asarray(np.exp(np.fmin.reduce(np.asarray(levels), axis=0)))


@cache
def _boundaries(shares: tuple[float, ...], power: float) -> Floats:
    """The one-sided p at each look that uses up what may be spent until then: (looks, LEVELS)."""
    return np.stack([_boundary(level, np.array(shares), power) for level in LEVELS], axis=1)


def _boundary(level: float, shares: Floats, power: float) -> Floats:
    """The same for one level: the density of the process below the boundary, carried from look to look (Armitage,
    McPherson & Rowe 1969)."""
    spent = np.diff(level * shares**power, prepend=0.0)
    nominal = np.empty(len(shares))
    nominal[0] = spent[0]
    top = -special.ndtri(spent[0]) * math.sqrt(shares[0])
    points, weights = _grid(top, shares[0])
    density = weights * np.exp(-(points**2) / (2 * shares[0])) / math.sqrt(2 * math.pi * shares[0])
    for at in range(1, len(shares)):
        step = math.sqrt(shares[at] - shares[at - 1])

        def crossed(limit: float, points: Floats = points, density: Floats = density, step: float = step) -> float:
            return float(density @ special.ndtr((points - limit) / step))

        low, high = -8 * math.sqrt(shares[at]), 9 * math.sqrt(shares[at])
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if crossed(middle) > spent[at] else (low, middle)
        top = (low + high) / 2
        nominal[at] = special.ndtr(-top / math.sqrt(shares[at]))
        moved, weights = _grid(top, shares[at])
        kernel = np.exp(-(((moved[:, None] - points[None, :]) / step) ** 2) / 2) / (step * math.sqrt(2 * math.pi))
        points, density = moved, weights * (kernel @ density)
    return nominal


def _grid(top: float, share: float) -> tuple[Floats, Floats]:
    """Gauss-Legendre points and weights from far below to the boundary."""
    points, weights = _legendre(CELLS)
    low = -8.5 * math.sqrt(share)
    half = (top - low) / 2
    return low + half * (points + 1), half * weights


_legendre = cache(np.polynomial.legendre.leggauss)
