"""R1 and R2: a normlab run by `normlab.training.run` itself, with its default settings.

All that a run does is in it: augmentation, metrics, TensorBoard, metrics.csv, checkpoints, the measurements at the end.
Only the data set is cut to a number of images, for one epoch, and the result goes to a temporary folder.
"""

import argparse
import tempfile
from pathlib import Path
from unittest.mock import patch

from benchmarks.clock import BATCH, HELD_OUT, Clock
from benchmarks.samples import cut
from normlab.config import load
from normlab.data import datamodule, sources
from normlab.training import run


def main() -> None:
    parser = argparse.ArgumentParser(description="One epoch of one normlab run; prints when its steps ended.")
    parser.add_argument("--norm", default="bn")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--images", type=int, default=100 * BATCH)
    parser.add_argument("--threads", default="null", help="CPU threads; null, the default: all cores")
    args = parser.parse_args()

    def few(name: str, root: str | None, *, download: bool) -> sources.Images:
        return cut(sources.load(name, root, download=download), args.images + HELD_OUT, HELD_OUT)

    chosen = (f"norm={args.norm}", f"data={args.data}", f"threads={args.threads}", "accelerator=cpu")
    settings = load(*chosen, "epochs=1", f"batch_size={BATCH}", f"val_size={HELD_OUT}")
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, patch.object(datamodule, "load", few):
        record = run(settings, folder)
        if record.status != "completed":
            raise SystemExit(Path(folder, "train.log").read_text(encoding="utf-8") + f"{record.status}: {record.error}")
    clock.print()


if __name__ == "__main__":
    main()
