"""Where the time of a training step goes on a CPU: `python -m benchmarks.step --norms gn bn ln`.

One network, by the kernels. A step is taken to its first phase, to its second, …, to its last, by turns: a phase takes
the difference of two neighbours, by their lower quartiles, since the peak is that of the fastest try too. Its share of
the peak is that of its convolutions: norm, ReLU, dropout, images and memory show as what is missing.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import quantiles
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch

from benchmarks.machine import peak
from benchmarks.samples import cut
from benchmarks.tables import markdown
from normlab.data import datamodule, sources
from normlab.kernels import Kernel, why_torch
from normlab.settings.plan import load
from normlab.settings.shape import small_network
from normlab.training.build import load_array
from normlab.training.device import keep_freed_memory
from normlab.training.networks import Member, NetworkArray
from normlab.training.optim import StackedOptimizer

STEPS, PASSES = 30, 5
PHASES = {  # of normlab/kernels/step.cpp, and the stages whose convolutions they do; what is computed twice counts once
    "images, block 1": ["block1"],
    "block 2": ["block2"],
    "1x1 convolution, pool, block 3": ["squeeze", "block3"],
    "block 4": ["block4"],
    "block 5": ["block5"],
    "average, 1x1 convolution, loss": ["head", "head", "head"],
    "block 5, backward": ["block5", "block5"],
    "block 4, backward": ["block4", "block4"],
    "block 3, pool, 1x1 convolution, backward": ["block3", "block3", "squeeze", "squeeze"],
    "block 2, backward": ["block2", "block2"],
    "block 1, backward": ["block1"],  # the gradient of the images is not needed
}
NOISE = 0.2  # milliseconds: shorter differences are not told apart
REST = "update, measures, images' positions, Python"


def ready(norm: str, batch: int, dropout: float, threads: int) -> tuple[NetworkArray, StackedOptimizer]:
    """One network and its optimizer, ready to train."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    words = ["data=digits", f"norm={norm}", f"batch_size={batch}", f"dropout={dropout}", "epochs=9", "val_size=200"]
    settings = load(*words)
    whole = sources.load("digits", None, download=False)
    with patch.object(datamodule, "load", lambda *_, **__: cut(replace(whole), STEPS * batch + 200, 100)):
        [data], [model] = load_array([settings])
    if reason := why_torch(settings, model.net):
        raise SystemExit(f"benchmarks: {reason}")
    networks = NetworkArray([Member(settings, data, model)])
    rows = networks.configure_optimizers()
    networks.on_fit_start()
    return networks.train(), rows


def measure(networks: NetworkArray, rows: StackedOptimizer) -> dict[str, float]:
    """Return the milliseconds of each phase, and of what is around them."""
    kernel = networks.kernel
    assert isinstance(kernel, Kernel)
    run = kernel._phases
    upto: list[list[float]] = [[] for _ in PHASES]
    whole: list[float] = []
    for _ in range(PASSES):  # the first one warms up
        began = time.perf_counter()
        for positions in networks.data.train_dataloader():
            batch = networks.data.on_after_batch_transfer(positions, 0)
            networks.gradients(*batch)
            rows.step()
            whole.append(time.perf_counter() - began)
            for end, seconds in enumerate(upto):

                def capped(job: object, first: int, last: int, end: int = end, seconds: list[float] = seconds) -> None:
                    start = time.perf_counter()
                    run(job, first, min(last, end))  # type: ignore[arg-type]
                    seconds.append(time.perf_counter() - start)

                with patch.object(kernel, "_phases", capped):
                    networks.gradients(*batch)
            began = time.perf_counter()
    # the lower quartile of all but the first pass
    ends = [0.0, *(1e3 * quantiles(seconds[STEPS:], n=4)[0] for seconds in (*upto, whole))]
    return dict(zip([*PHASES, REST], np.diff(ends), strict=True))


def table(found: pd.DataFrame) -> str:
    """Return a Markdown table: one row per part, two columns per norm. found: the columns of docs/step.csv.

    The share of the peak is that of a part's convolutions.
    """
    mflop = found.drop_duplicates("part").set_index("part")["mflop"]
    ms = found.pivot(index="part", columns="norm", values="ms").loc[mflop.index, found["norm"].unique()]
    mflop["together"], ms.loc["together"] = mflop.sum(), ms.sum()
    batch, gflops = found["batch"].iloc[0], found["gflops"].iloc[0]
    rows = []
    for part, needed in mflop.items():
        cells = []
        for took in ms.loc[part]:
            share = f"{100 * needed * batch / (took * gflops):.0f}"
            cells += [f"{took:.1f}", share if share != "0" else ""] if took >= NOISE else [f"< {NOISE}", ""]
        rows.append([part, f"{needed:.2f}", *cells])
    numbers = ["MFLOP per image", *(heading for norm in ms for heading in (f"`{norm}`, ms", "% of peak"))]
    return markdown(["", *numbers], rows, numbers)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("benchmarks.step", description=__doc__)
    parser.add_argument("--norms", nargs="+", default=["gn", "bn", "ln"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="write what was measured to this file too")
    args = parser.parse_args(given)
    flops = {stage.name: 2e-6 * stage.weights * stage.size[0] * stage.size[1] for stage in small_network()}
    found = pd.DataFrame(
        {"norm": norm, "batch": args.batch, "threads": args.threads, "part": part, "ms": ms}
        for norm in args.norms
        for part, ms in measure(*ready(norm, args.batch, args.dropout, args.threads)).items()
    )
    found.insert(4, "mflop", [sum(flops[name] for name in PHASES.get(part, ())) for part in found["part"]])
    found["gflops"] = peak(args.threads) / 1e9
    print(table(found))
    print(f"\nPeak: {found['gflops'][0]:.0f} GFLOP/s by a loop of multiply-adds.")
    if args.csv:
        found.to_csv(args.csv, index=False, float_format="%.5g")
    return 0


if __name__ == "__main__":
    sys.exit(main())
