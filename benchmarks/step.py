"""Where the time of a training step goes on CPU: `python -m benchmarks.step --norm gn --batch 128`.

One network in the array engine, on one thread. Shares are by torch's profiler: time inside an operation, without what
it calls. The milliseconds are those shares of the median step without the profiler, which slows some operations down.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.samples import cut
from normlab.data import datamodule, sources
from normlab.settings.plan import load
from normlab.training.array import array_rates, load_array
from normlab.training.engine import Engine
from normlab.training.memory import keep_freed_memory

STEPS = 30
PARTS = {  # a part of the step -> words in the names of its operations, the first that fits
    "convolutions, backward": ["convolution_backward"],
    "convolutions, forward": ["convolution"],
    "norm": ["group_norm", "batch_norm", "standardise", "Standardise", "addcmul", "sub", "mul_", "aten::sum", "rsqrt"],
    "ReLU": ["clamp_min", "relu", "threshold_backward"],
    "max-pool": ["max_pool"],
    "dropout": ["random_", "ge_"],
    "images: gather, augment, normalise": ["grid_sampler", "aten::index", "stack", "cos", "sin"],
}
REST = "the rest: update, loss, copies, Python"


def engine(norm: str, batch: int, dropout: float) -> Engine:
    """One network, ready to train, on the thread that asks."""
    torch.set_num_threads(1)
    keep_freed_memory()
    settings = load("data=digits", f"norm={norm}", f"batch_size={batch}", f"dropout={dropout}", "threads=1", "epochs=9")
    whole = sources.load("digits", None, download=False)
    with patch.object(datamodule, "load", lambda *_, **__: cut(replace(whole), STEPS * batch + 200, 100)):
        data, models = load_array([settings.model_copy(update={"val_size": 200})])
    rates = array_rates([settings], models, 9 * STEPS)
    return Engine([models[0].net], [settings], data, rates, device=torch.device("cpu"), at_once=1)


def measure(found: Engine, batch: int) -> tuple[float, dict[str, float]]:
    """Milliseconds of a step, and the share of each part."""

    def epoch() -> list[float]:
        seconds = []
        found.begin_epoch(0)
        found.step.zero_()
        for _ in range(STEPS):
            began = time.perf_counter()
            found.train_step(batch)
            seconds.append(time.perf_counter() - began)
        return seconds

    epoch()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        epoch()
    shares = dict.fromkeys([*PARTS, REST], 0.0)
    for event in profiled.key_averages():
        part = next((part for part, words in PARTS.items() if any(word in event.key for word in words)), REST)
        shares[part] += event.self_cpu_time_total
    whole = sum(shares.values())
    return 1e3 * median(epoch()), {part: share / whole for part, share in shares.items()}


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("benchmarks.step", description=__doc__)
    parser.add_argument("--norm", default="gn")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dropout", type=float, default=0.0)
    args = parser.parse_args(given)
    took, shares = measure(engine(args.norm, args.batch, args.dropout), args.batch)
    print(f"| {args.norm}, batch {args.batch}, dropout {args.dropout:g} | ms |\n|---|---:|")
    for part, share in shares.items():
        if share > 0.0005:
            print(f"| {part} | {share * took:.1f} |")
    print(f"| together | {took:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
