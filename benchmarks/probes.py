"""What probes cost: `NORMLAB_DATA=/path/to/data python -m benchmarks.probes`.

Runs of one configuration without probes and with each of them, in turns, so that whatever else the machine does meets
all of them; medians. `landscape` and `shift` cost the same seconds in a run of any length with that batch size, since
they measure up to 40 steps; `layers` costs the same seconds an epoch, and once before the first. The last column is
computed from that: the share of the time of a run of 12 epochs over 55,000 images, which is what
`python -m normlab.train` does on MNIST.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch

from normlab.config import load
from normlab.training import run
from normlab.training.device import describe_device, versions

PROBES = ("", "layers", "landscape", "shift")
EPOCHS, IMAGES = 12, 55_000


def seconds(probe: str, words: Sequence[str], folder: Path) -> float:
    """Of training, evaluation included, with one probe or none."""
    return float(run(load(*words, f"probes=[{probe}]"), folder).time["fit_s"])


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("benchmarks.probes", description=__doc__)
    parser.add_argument("settings", nargs="*", default=["data=mnist", "norm=bn"])
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--train-size", type=int, default=6000)
    args = parser.parse_args(given)
    words = [*args.settings, f"epochs={args.epochs}", f"train_size={args.train_size}", "threads=1"]
    words += ["val_size=0", "accelerator=cpu"]  # nothing but training is timed
    found: dict[str, list[float]] = {probe: [] for probe in PROBES}
    with tempfile.TemporaryDirectory() as scratch:
        for rep in range(args.reps):
            for probe in PROBES:
                found[probe].append(seconds(probe, words, Path(scratch, f"{rep}-{probe or 'none'}")))
    without = median(found[""])
    whole = without / (args.epochs * args.train_size) * EPOCHS * IMAGES
    print("| probe | seconds | more than without | of 12 epochs on MNIST |\n|---|---|---|---|")
    for probe, times in found.items():
        # a pair of neighbours has met the same machine
        more = median(time - other for time, other in zip(times, found[""], strict=True))
        share = more * ((EPOCHS + 1) / (args.epochs + 1) if probe == "layers" else 1) / whole
        told = f"{more:.2f} s | {100 * share:.1f} %" if probe else " | "
        print(f"| {f'`{probe}`' if probe else 'none'} | {median(times):.2f} | {told} |")
    machine = f"{describe_device(torch.device('cpu'))['name']}, {', '.join(map(' '.join, versions().items()))}"
    print(f"\n{' '.join(words)}; {args.reps} interleaved repetitions; {machine}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
