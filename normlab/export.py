"""Export: `normlab export lightning_logs/runs/ln-seed_0` writes a trained network as an ONNX file."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from normlab.errors import in_one_line
from normlab.output import command


@in_one_line()
def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code: 0, or 2 where the run cannot be exported."""
    parser = argparse.ArgumentParser(
        prog="normlab export",
        description="Writes the network of a run, or of a checkpoint, as an ONNX file: images in [0, 1] go in, "
        "log-probabilities come out. The file is checked against the checkpoint by onnxruntime.",
        epilog="Example: normlab export lightning_logs/runs/ln-seed_0 --out ln.onnx",
    )
    parser.add_argument("run", type=Path, help="a run's folder, or a checkpoint")
    parser.add_argument("--out", type=Path, help="the file; last.onnx beside the checkpoint unless given")
    parser.add_argument(
        "--target", action="append", default=[], metavar="PACKAGE.MODULE:CLASS",
        help="custom code that the network uses; it will be executed",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    with Console(stderr=True).status("exporting"):
        from normlab.training.trained import export  # torch and Lightning: a second or two

        out = export(given.run, given.out, targets=given.target)
    print(f"Written: {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(command(main))
