"""Does a long study stay flat? `python -m benchmarks.soak --runs 500 --out docs`

Trains so many short runs on scikit-learn's digits in one command, one process per core, and watches all its processes:
memory (resident, MiB, the largest of them), open files, and the seconds per run. The first tenth of the runs is left
out, in which processes warm up; then the first and the last quarter of what is left are compared. Then the report of
all runs is made, without figures and with them.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import psutil

from benchmarks.tables import markdown
from normlab.record import Record

WORDS = [
    "data=digits", "epochs=1", "train_size=256", "val_size=0", "threads=1", "norm=gn", "accelerator=cpu", "name=soak",
]  # fmt: skip
FEWEST = 8  # runs: two in a quarter, and a gap between them


class Look(NamedTuple):
    """At one moment: runs that have ended, the largest process (MiB), open files of all processes."""

    done: int
    memory: float
    files: int


def look(parent: psutil.Process, folder: Path) -> Look:
    """Look at all processes of a command."""
    memory, files = [0.0], 0
    for process in [parent, *parent.children(recursive=True)]:
        try:
            memory.append(process.memory_info().rss / 2**20)
            files += process.num_fds()
        except psutil.Error:
            continue  # it has just ended
    return Look(sum(1 for _ in folder.glob("*/result.json")), max(memory), files)


def watch(runs: int, place: Path, launcher: str) -> list[Look]:
    """Run the study and look at it twice a second."""
    words = ["-m", *WORDS, f"seed=range({runs})", f"log_dir={place}", f"hydra/launcher={launcher}"]
    command = [sys.executable, "-m", "normlab.train", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parent, looks = psutil.Process(process.pid), []
    while process.poll() is None:
        looks.append(look(parent, place / "soak"))
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"the study ended with {process.returncode}")
    return looks


def row(name: str, values: Sequence[float]) -> list[str]:
    """Return medians of the first and the last quarter, the first tenth left out, and the change."""
    warm = values[len(values) // 10 :]
    first, last = median(warm[: len(warm) // 4]), median(warm[-(len(warm) // 4) :])
    return [name, f"{first:,.4g}", f"{last:,.4g}", f"{100 * (last / first - 1):+.1f} %"]


def report_s(folder: Path, *flags: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "normlab.report", str(folder), *flags], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def page(runs: int, launcher: str) -> str:
    """Train and report; return soak.md."""
    with tempfile.TemporaryDirectory() as place:
        looks = [each for each in watch(runs, Path(place), launcher) if each.done]
        folder = Path(place, "soak")
        ended = sorted(folder.glob("*/result.json"), key=lambda file: file.stat().st_mtime_ns)
        records, times = [Record.load(file.parent) for file in ended], [file.stat().st_mtime for file in ended]
        rows = [
            row("memory of the largest process, MiB", [each.memory for each in looks]),
            row("open files of all processes", [each.files for each in looks]),
            row("seconds per run", [record.time["fit_s"] + record.time["measure_s"] for record in records]),
            row("seconds from one result to the next", np.diff(times).tolist()),
        ]
        seconds = report_s(folder, "--no-figures"), report_s(folder)
    statuses = " and ".join(sorted({record.status for record in records}))
    command = f"python -m benchmarks.soak --runs {runs} --launcher {launcher} --out docs"
    return f"""\
# A soak: {runs} runs in one command

`{command}`: {records[0].device["name"]}, {psutil.cpu_count()} cores. {len(records)} runs ended, all
{statuses}, in {(times[-1] - times[0]) / 60:.1f} minutes. Medians, the first tenth left out:

{markdown(["", "first quarter", "last quarter", "change"], rows)}

The report of them took {seconds[0]:.1f} s without figures and {seconds[1]:.1f} s with them.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--launcher", default="processes", choices=["processes", "array"])
    parser.add_argument("--out", type=Path, help="a folder for soak.md; only printed unless given")
    args = parser.parse_args(arguments)
    if args.runs < FEWEST:
        parser.error(f"--runs: at least {FEWEST}, so that quarters of them can be compared")
    text = page(args.runs, args.launcher)
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "soak.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
