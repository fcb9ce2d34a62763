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
from typing import NamedTuple
from unittest.mock import patch

import pandas as pd
import torch

from benchmarks.machine import peak
from benchmarks.samples import cut
from normlab.data import datamodule, sources
from normlab.kernels import Kernel, refusal
from normlab.settings.plan import load
from normlab.settings.shape import small_network
from normlab.training.build import load_array
from normlab.training.device import keep_freed_memory
from normlab.training.networks import Networks, Place
from normlab.training.optim import Rows

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


def ready(norm: str, batch: int, dropout: float, threads: int) -> tuple[Networks, Rows]:
    """One network and its optimizer, ready to train."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    words = ["data=digits", f"norm={norm}", f"batch_size={batch}", f"dropout={dropout}", "epochs=9", "val_size=200"]
    settings = load(*words)
    whole = sources.load("digits", None, download=False)
    with patch.object(datamodule, "load", lambda *_, **__: cut(replace(whole), STEPS * batch + 200, 100)):
        [data], [model] = load_array([settings])
    if reason := refusal(settings, model.net):
        raise SystemExit(f"benchmarks: {reason}")
    networks = Networks([Place(settings, data, model)])
    rows = networks.configure_optimizers()
    networks.on_fit_start()
    return networks.train(), rows


def measure(networks: Networks, rows: Rows) -> dict[str, float]:
    """Return the milliseconds of each phase, and of what is around them."""
    kernel, phases = networks.kernel, len(PHASES)
    assert isinstance(kernel, Kernel)
    run = kernel._phases
    upto: list[list[float]] = [[] for _ in range(phases)]
    whole: list[float] = []
    for _ in range(PASSES):  # the first one warms up
        began = time.perf_counter()
        for positions in networks.data.train_dataloader():
            batch = networks.data.on_after_batch_transfer(positions, 0)
            networks.gradients(*batch)
            rows.step()
            whole.append(time.perf_counter() - began)
            for end in range(phases):

                def capped(job: object, first: int, last: int, end: int = end) -> None:
                    start = time.perf_counter()
                    run(job, first, min(last, end))  # type: ignore[arg-type]
                    upto[end].append(time.perf_counter() - start)

                with patch.object(kernel, "_phases", capped):
                    networks.gradients(*batch)
            began = time.perf_counter()
    ends = [1e3 * lower(seconds) for seconds in upto]
    found = {name: end - before for name, end, before in zip(PHASES, ends, [0.0, *ends], strict=False)}
    return found | {REST: 1e3 * lower(whole) - ends[-1]}


def lower(seconds: Sequence[float]) -> float:
    """The lower quartile of all but the first pass."""
    return quantiles(seconds[STEPS:], n=4)[0]


class Phase(NamedTuple):
    """What a part of a step took: a row of docs/step.csv.

    Attributes:
        mflop: of its convolutions per image. ms: per step. gflops: what so many threads of the machine reach in a
            loop of multiply-adds.
    """

    norm: str
    batch: int
    threads: int
    part: str
    mflop: float
    ms: float
    gflops: float

    @property
    def share(self) -> float:
        """Of the peak, that the part's convolutions reach."""
        return self.mflop * 1e6 * self.batch / (self.ms / 1e3 * self.gflops * 1e9)


def table(found: Sequence[Phase]) -> list[str]:
    """Return the lines of a Markdown table: one row per part, two columns per norm."""
    norms, parts = dict.fromkeys(each.norm for each in found), dict.fromkeys(each.part for each in found)
    lines = ["| | MFLOP per image |" + "".join(f" `{norm}`, ms | % of peak |" for norm in norms)]
    lines.append("|---|" + "---:|" * (1 + 2 * len(norms)))
    for part in [*parts, "together"]:
        cells = []
        for norm in norms:
            own = [each for each in found if each.norm == norm and part in (each.part, "together")]
            of = own[0]._replace(mflop=sum(each.mflop for each in own), ms=sum(each.ms for each in own))
            clear = of.ms >= NOISE
            share = f"{100 * of.share:.0f}" if clear and of.share > 0.005 else ""
            cells += [f"{of.ms:.1f}" if clear else f"< {NOISE}", share]
        lines.append(f"| {part} | {of.mflop:.2f} | {' | '.join(cells)} |")
    return lines


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("benchmarks.step", description=__doc__)
    parser.add_argument("--norms", nargs="+", default=["gn", "bn", "ln"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="write what was measured to this file too")
    args = parser.parse_args(given)
    flops = {stage.name: 2e-6 * stage.weights * stage.size[0] * stage.size[1] for stage in small_network()}
    took = {norm: measure(*ready(norm, args.batch, args.dropout, args.threads)) for norm in args.norms}
    most = peak(args.threads) / 1e9
    found = [
        Phase(norm, args.batch, args.threads, part, sum(flops[name] for name in PHASES.get(part, ())), ms, most)
        for norm, parts in took.items()
        for part, ms in parts.items()
    ]
    print("\n".join(table(found)))
    print(f"\nPeak: {most:.0f} GFLOP/s by a loop of multiply-adds.")
    if args.csv:
        pd.DataFrame(found).to_csv(args.csv, index=False, float_format="%.5g")
    return 0


def read(path: Path) -> list[Phase]:
    """Return what `--csv` wrote."""
    return [Phase(*row) for row in pd.read_csv(path).itertuples(index=False)]


if __name__ == "__main__":
    sys.exit(main())
