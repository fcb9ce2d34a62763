"""Where the time of a training step goes on CPU: `python -m benchmarks.step --norm gn --batch 128`.

One network, on one thread. Shares are by torch's profiler: time inside an operation, without what
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
from normlab.training.build import load_array
from normlab.training.device import keep_freed_memory
from normlab.training.fit import Place, networks_of
from normlab.training.networks import Networks
from normlab.training.optim import Rows

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


def ready(norm: str, batch: int, dropout: float) -> tuple[Networks, Rows]:
    """One network and its optimizer, ready to train, on one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    words = ["data=digits", f"norm={norm}", f"batch_size={batch}", f"dropout={dropout}", "threads=1", "epochs=9"]
    settings = load(*words, "val_size=200")
    whole = sources.load("digits", None, download=False)
    with patch.object(datamodule, "load", lambda *_, **__: cut(replace(whole), STEPS * batch + 200, 100)):
        [data], [model] = load_array([settings])
    networks = networks_of([Place(settings, data, model, None)], 1)
    networks.on_fit_start()
    return networks.train(), networks.configure_optimizers()


def measure(networks: Networks, rows: Rows) -> tuple[float, dict[str, float]]:
    """Return the milliseconds of a step, and the share of each part."""
    loader = networks.data.train_dataloader()

    def epoch() -> list[float]:
        seconds, began = [], time.perf_counter()
        for positions in loader:
            networks.gradients(*networks.data.on_after_batch_transfer(positions, 0))
            rows.step()
            seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
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
    took, shares = measure(*ready(args.norm, args.batch, args.dropout))
    print(f"| {args.norm}, batch {args.batch}, dropout {args.dropout:g} | ms |\n|---|---:|")
    for part, share in shares.items():
        if share > 0.0005:
            print(f"| {part} | {share * took:.1f} |")
    print(f"| together | {took:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
