"""One or many normlab runs by `normlab.training` itself, with its default settings.

All that a run does is in it: augmentation, metrics, TensorBoard, metrics.csv, checkpoints, the measurements at the end.
Only the data set is cut to a number of images, for one epoch, and the results go to a temporary folder.
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.clock import BATCH, HELD_OUT, Clock
from benchmarks.samples import cut
from normlab.data import datamodule, sources
from normlab.record import Record
from normlab.settings.plan import load
from normlab.training import run, run_array
from normlab.training.networks import NetworkArray


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="One epoch of normlab runs; prints when their steps ended.")
    parser.add_argument("--norm", default="bn")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--images", type=int, default=100 * BATCH, help="training images of each run")
    parser.add_argument("--threads", default="null", help="CPU threads; null, the default: all cores")
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--array", type=int, default=0, help="networks trained as one array; 0: one run on its own")
    parser.add_argument("--kernels", choices=("auto", "torch"), default="auto", help="what computes the steps on a CPU")
    parser.add_argument("--training-only", action="store_true", help="leave when the epoch is over")
    parser.add_argument("--eager", action="store_true", help="on a GPU: without a CUDA graph")
    args = parser.parse_args(arguments)

    def few(name: str, root: str | None, *, download: bool, size: int | None) -> sources.Images:
        return cut(sources.load(name, root, download=download, size=size), args.images + HELD_OUT, HELD_OUT)

    chosen = [f"norm={args.norm}", f"data={args.data}", f"threads={args.threads}", f"accelerator={args.accelerator}"]
    chosen += ["epochs=1", f"batch_size={args.batch}", f"val_size={HELD_OUT}", f"kernels={args.kernels}"]
    clock = Clock(args.batch * max(1, args.array))
    eager = patch.object(NetworkArray, "replay", launched) if args.eager else nullcontext()
    ends = over_after_training() if args.training_only else nullcontext()
    with tempfile.TemporaryDirectory() as folder, patch.object(datamodule, "load", few), eager, suppress(Over), ends:
        if args.array:
            settings = [load(*chosen, f"seed={seed}") for seed in range(args.array)]
            folders = [Path(folder, str(each.seed)) for each in settings]
            check(run_array(settings, folders), folders[0])
        else:
            check([run(load(*chosen), Path(folder, "0"))], Path(folder, "0"))
    clock.print()


def launched(networks: NetworkArray, images: torch.Tensor, labels: torch.Tensor) -> None:
    """In the place of `NetworkArray.replay`: every kernel is launched from Python."""
    networks.gradients(images, labels, networks.manual_backward)


class Over(BaseException):
    """The epoch is over: not an error, which a run would record."""


def over_after_training() -> Any:
    """Return a context in which runs end with their last epoch: figures take seconds, and the clock has stopped."""

    def over(*_: object, **__: object) -> None:
        raise Over

    return patch("normlab.training.fit.conclude", over)


def check(records: list[Record], folder: Path) -> None:
    """Ends the process with what went wrong where a run did not complete."""
    for record in records:
        if record.status != "completed":
            log = (folder / "train.log").read_text(encoding="utf-8")
            raise SystemExit(f"{log}{record.status}: {record.error}")


if __name__ == "__main__":
    main()
