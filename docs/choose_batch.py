"""How the batch of `python -m normlab.calculate` was chosen: `python docs/choose_batch.py` prints it, in half a minute.

4 images of 4 channels of 3x3 digits. Every mean is a whole number or a half. For batch norm, group norm (2 groups) and
two images of layer norm every biased standard deviation is one too (variances such as 4, 6 1/4, 9), so no root of
theirs needs a calculator; the variances of the other two images end after one decimal. For instance norm every mean and
variance is a whole number, and as many of these variances as possible are squares. (Not all can be: the squared
deviations of nine integers from a whole mean have an even sum, so 1 and 9 are out of reach.) No two images, channels,
or groups of an image have the same mean: norms that differ show different numbers.

A map with mean μ and variance v is drawn last. First come the sixteen pairs (μ, v): a set of maps of equal size has the
mean of the μ for its mean, and mean(v) + variance(μ) for its variance. So the search is over pairs alone, in three
steps: images of four pairs that are right for group norm; four images that are right for batch norm; of these the four
whose statistics differ most. Then nine digits for each pair, in an order that a generator shuffles.
"""

import itertools
from collections.abc import Sequence
from fractions import Fraction
from math import isqrt

import numpy as np
import numpy.typing as npt

LOOKED_AT = 200_000_000  # sets of four images

Pair = tuple[int, int]  # mean and variance of a map
Array = npt.NDArray[np.int64]


def multisets() -> dict[Pair, list[tuple[int, ...]]]:
    """Nine digits, ascending, at least five of them different, by their mean and variance where both are whole."""
    found: dict[Pair, list[tuple[int, ...]]] = {}
    for digits in itertools.combinations_with_replacement(range(10), 9):
        mean, rest = divmod(sum(digits), 9)
        if not rest and len(set(digits)) >= 5:
            variance, rest = divmod(sum((d - mean) ** 2 for d in digits), 9)
            if not rest:
                found.setdefault((mean, variance), []).append(digits)
    return found


def root(maps: Sequence[Pair]) -> Fraction | None:
    """The standard deviation of these maps taken together, if it and their mean are wholes or halves; 0 is out."""
    many, total = len(maps), sum(mean for mean, _ in maps)
    spread = many * sum(v + mean * mean for mean, v in maps) - total * total  # many² times the variance
    fits = spread > 0 and isqrt(spread) ** 2 == spread and 2 * total % many == 0 and 2 * isqrt(spread) % many == 0
    return Fraction(isqrt(spread), many) if fits else None


def images(pairs: Sequence[Pair]) -> tuple[list[tuple[Pair, ...]], int]:
    """Four different pairs each, right for group norm, with groups that differ; how many come first that are right for
    layer norm too."""
    halves = [half for half in itertools.product(pairs, repeat=2) if half[0] != half[1] and root(half)]
    means = {half: sum(m for m, _ in half) for half in halves}
    both = [
        (a, b)
        for a, b in itertools.product(halves, repeat=2)
        if means[a] != means[b] and (means[a] + means[b]) % 2 == 0
    ]
    rows = [a + b for a, b in both if len({*a, *b}) == 4]
    rows.sort(key=lambda row: not root(row))
    return rows, sum(root(row) is not None for row in rows)


def batches(rows: Array, right: int, rng: np.random.Generator) -> Array:
    """Indices (K, 4) of four images, two of them of the first `right`, whose channels are right for batch norm.

    rows: (R, 4, 2), the mean and variance of each map.
    """
    means, squares = rows[..., 0], rows[..., 1] + rows[..., 0] ** 2
    kept = []
    for _ in range(LOOKED_AT // 1_000_000):
        four = rng.integers(0, [right, right, len(rows), len(rows)], (1_000_000, 4))
        for channel in range(4):
            total = means[four, channel].sum(1)
            spread = 4 * squares[four, channel].sum(1) - total**2  # 16 times the variance
            twice = np.rint(np.sqrt(spread) / 2)  # the deviation is half of this
            four = four[(total % 2 == 0) & (spread > 0) & (4 * twice**2 == spread)]
        kept.append(four)
    return np.concatenate(kept)


def variety(pairs: list[tuple[Pair, ...]]) -> tuple[int, ...]:
    """How different the statistics of four images are, the most wanted first."""
    maps = [pair for row in pairs for pair in row]
    groups = [row[i : i + 2] for row in pairs for i in (0, 2)]
    channels = list(zip(*pairs, strict=True))
    different = [len({sum(m for m, _ in s) for s in sets}) for sets in (pairs, channels, groups)]
    roots = [len({root(s) for s in sets}) for sets in (channels, groups)]
    by_layer = sum(root(row) is not None for row in pairs)
    squares = sum(v in (4, 16) for _, v in maps)
    return different[0] + different[1], roots[0] + by_layer, squares + len(set(maps)), different[2] + roots[1]


def draw(pairs: list[tuple[Pair, ...]], rng: np.random.Generator) -> Array:
    """Digits (4, 4, 9) with these means and variances, shuffled; the same nine only where there are no others."""
    left = {pair: sorted(found, key=lambda d: len(set(d))) for pair, found in multisets().items()}
    return np.array(
        [[rng.permutation(left[pair].pop() if len(left[pair]) > 1 else left[pair][0]) for pair in row] for row in pairs]
    )


def main() -> None:
    rng = np.random.default_rng(0)
    rows, right = images(list(multisets()))
    found = batches(np.array(rows), right, rng)
    best = max(([rows[i] for i in four] for four in found if len(set(four)) == 4), key=variety)
    print(f"{len(rows)} images, {len(found)} batches; the best has variety {variety(best)}")
    for row, digits in zip(best, draw(best, rng), strict=True):
        print(
            *(
                f"    ({', '.join(map(str, map(int, d)))}),  # μ {m}, σ² {v}"
                for d, (m, v) in zip(digits, row, strict=True)
            ),
            sep="\n",
        )


if __name__ == "__main__":
    main()
