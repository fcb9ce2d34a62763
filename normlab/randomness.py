"""Random numbers by purpose: each stream follows from (seed, epoch) alone.

An epoch can therefore be repeated or resumed, and what one purpose draws never moves what another one draws.
"""

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What the numbers are for. A value is part of every result: never renumber."""

    WEIGHTS = 0
    SPLIT = 1
    ORDER = 2
    AUGMENT = 3
    DROPOUT = 4
    CORRUPT = 5


def stream_seed(stream: Stream, seed: int, epoch: int = 0, rank: int = 0) -> int:
    """A 63-bit seed for one stream of one run in one epoch, mixed so that neighbours have nothing in common.

    rank: of a process, where several train one run and draw for their own images.
    """
    word = np.random.SeedSequence([seed, epoch, int(stream), *([rank] if rank else [])]).generate_state(1, np.uint64)[0]
    return int(word >> np.uint64(1))


def generator(stream: Stream, seed: int, epoch: int = 0) -> torch.Generator:
    """A CPU generator for one stream of one run in one epoch."""
    return torch.Generator().manual_seed(stream_seed(stream, seed, epoch))
