"""What probes cost: `NORMLAB_DATA=/path/to/data python -m benchmarks.probes`.

Runs of one configuration without probes and with each of them, in turns, one thread each; CPU seconds, which other work
on the machine does not lengthen much, and medians. `landscape` and `shift` cost the same in a run of any length with
that batch size, since they measure up to 40 steps; `layers` costs the same an epoch, and once before the first. What
an epoch costs is what a run with one epoch more takes. The last column is computed from that: the share of 12 epochs
over 55,000 images, which is what `python -m normlab.train` does on MNIST.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch

from normlab.record import versions
from normlab.settings.plan import load
from normlab.training import run
from normlab.training.device import describe_device

PROBES = ("", "layers", "landscape", "shift")
EPOCHS, IMAGES = 12, 55_000


def seconds(words: Sequence[str], folder: Path) -> float:
    """CPU seconds of a run, from the images to its record."""
    began = time.process_time()
    record = run(load(*words), folder)
    assert record.status == "completed", record.error
    return time.process_time() - began


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("benchmarks.probes", description=__doc__)
    parser.add_argument("settings", nargs="*", default=["data=mnist", "norm=bn"])
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--train-size", type=int, default=6000)
    args = parser.parse_args(given)
    words = [*args.settings, f"epochs={args.epochs}", f"train_size={args.train_size}", "threads=1"]
    words += ["val_size=0", "accelerator=cpu"]  # nothing but training is timed
    arms = {probe: [*words, f"probes=[{probe}]"] for probe in PROBES}
    arms["longer"] = [*words, f"epochs={args.epochs + 1}"]
    found: dict[str, list[float]] = {name: [] for name in arms}
    with tempfile.TemporaryDirectory() as scratch:
        for rep in range(args.reps + 1):
            for name, arm in arms.items():
                found[name].append(seconds(arm, Path(scratch, f"{rep}-{name or 'none'}")))
    found = {name: times[1:] for name, times in found.items()}  # the first round warms up
    epoch = median(found["longer"]) - median(found[""])
    whole = EPOCHS * epoch * IMAGES / args.train_size
    print("| probe | CPU seconds of a run | more than without | of 12 epochs on MNIST |\n|---|---|---|---|")
    for probe in PROBES:
        more = median(found[probe]) - median(found[""])
        share = more * ((EPOCHS + 1) / (args.epochs + 1) if probe == "layers" else 1) / whole
        told = f"{more:.2f} s | {100 * share:.1f} %" if probe else " | "
        print(f"| {f'`{probe}`' if probe else 'none'} | {median(found[probe]):.2f} | {told} |")
    machine = f"{describe_device(torch.device('cpu'))['name']}, {', '.join(map(' '.join, versions().items()))}"
    print(f"\nAn epoch: {epoch:.2f} s. {' '.join(words)}; {args.reps} interleaved repetitions; {machine}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
