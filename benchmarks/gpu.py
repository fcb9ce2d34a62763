"""What only a GPU can show, in ten minutes at most: `python -m benchmarks.gpu --out docs`

1. The tests that train on whatever device torch finds: arrays against single runs in float64, runs that were stopped
   and end with the bits of one that was not, every norm.
2. `benchmarks.study`: single runs, single runs replayed as CUDA graphs, and arrays, by batch size.
3. Where there are two GPUs, one run on both.

A part that its time does not suffice for is ended; what it has written stays.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from normlab.errors import in_one_line

TESTS = [f"tests/test_{subject}.py" for subject in ("array", "resume", "several", "training")]


class Part(NamedTuple):
    """A command, as arguments of `python -m`, and the seconds that it may take."""

    name: str
    command: list[str]
    seconds: float


def parts(out: Path, data: str, gpus: int) -> list[Part]:
    """Return what to run where there are so many GPUs."""
    found = [
        Part("tests", ["pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS], 200),
        Part("study", ["benchmarks.study", "--device", "gpu", "--data", data, "--reps", "2", "--out", str(out)], 340),
    ]
    words = ["normlab.train", "accelerator=gpu", "devices=2", "data=digits", "epochs=2", f"log_dir={out / 'two-gpus'}"]
    return [*found, Part("two GPUs", words, 60)] if gpus > 1 else found


def ended(part: Part) -> str:
    """Run a part; return how it ended."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", *part.command])
    try:
        code = process.wait(part.seconds)
        how = "passed" if code == 0 else f"failed with exit code {code}"
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # it ends its own processes
        process.wait()
        how = "stopped before it was done"
    return f"{how}, {time.monotonic() - began:.0f} s"


@in_one_line()
def main(given: Sequence[str]) -> int:
    """Run all parts; return the exit code: 0, 1 when one failed, 2 without a GPU."""
    parser = argparse.ArgumentParser("benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="where study.csv and so on go")
    parser.add_argument("--data", choices=("mnist", "digits"), default="digits", help="of the study's runs")
    args = parser.parse_args(given)
    if not torch.cuda.is_available():
        parser.error("torch finds no GPU here")
    told = []
    for part in parts(args.out, args.data, torch.cuda.device_count()):
        print(f"{part.name}: python -m {' '.join(part.command)}", flush=True)
        told.append(f"{part.name}: {ended(part)}")
    print(f"On {torch.cuda.get_device_name()}, torch {torch.__version__}", *told, sep="\n")
    return 1 if any(" failed " in line for line in told) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
