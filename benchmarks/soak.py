"""Does a long study stay flat? `python -m benchmarks.soak --runs 500 --out docs`

Trains so many short runs on scikit-learn's digits in one command, a process a core, and watches all its processes:
memory (resident, MiB, the largest of them), open files, and the seconds a run. The first tenth of the runs is left out,
in which processes warm up; then the first and the last quarter of what is left are compared. Then the report of all
runs is made, without figures and with them.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from normlab.record import Record

WORDS = [
    "data=digits",
    "epochs=1",
    "train_size=256",
    "val_size=0",
    "threads=1",
    "norm=gn",
    "accelerator=cpu",
    "name=soak",
]


FEWEST = 8  # runs: two in a quarter, and a gap between them


@dataclass(frozen=True)
class Look:
    """At one moment: runs that have ended, the largest process (MiB), open files of all processes."""

    done: int
    memory: float
    files: int


def look(parent: psutil.Process, folder: Path) -> Look:
    """At all processes of a command."""
    memory, files = [0.0], 0
    for process in [parent, *parent.children(recursive=True)]:
        try:
            memory.append(process.memory_info().rss / 2**20)
            files += process.num_fds()
        except psutil.Error:
            continue  # it has just ended
    return Look(sum(1 for _ in folder.glob("*/result.json")), max(memory), files)


def watch(runs: int, place: Path, launcher: str) -> list[Look]:
    """Runs the study and looks at it twice a second."""
    command = [sys.executable, "-m", "normlab.train", "-m", *WORDS, f"seed=range({runs})", f"log_dir={place}"]
    command.append(f"hydra/launcher={launcher}")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parent, looks = psutil.Process(process.pid), []
    while process.poll() is None:
        looks.append(look(parent, place / "soak"))
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"the study ended with {process.returncode}")
    return looks


def quarters(values: list[float]) -> tuple[float, float]:
    """Medians of the first and the last quarter, the first tenth left out."""
    warm = values[len(values) // 10 :]
    return median(warm[: len(warm) // 4]), median(warm[-(len(warm) // 4) :])


def report_s(folder: Path, *flags: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "normlab.report", str(folder), *flags], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--launcher", default="processes", choices=["processes", "array"])
    parser.add_argument("--out", type=Path, help="a folder for soak.md; only printed unless given")
    given = parser.parse_args(arguments)
    if given.runs < FEWEST:
        parser.error(f"--runs: at least {FEWEST}, so that quarters of them can be compared")
    with tempfile.TemporaryDirectory() as place:
        looks = watch(given.runs, Path(place), given.launcher)
        folder = Path(place, "soak")
        ended = sorted(folder.glob("*/result.json"), key=lambda file: file.stat().st_mtime_ns)
        records = [Record.load(file.parent) for file in ended]
        took = [float(record.time["fit_s"] + record.time["measure_s"]) for record in records]
        gaps = np.diff([file.stat().st_mtime for file in ended])
        rows = {
            "memory of the largest process, MiB": quarters([each.memory for each in looks if each.done]),
            "open files of all processes": quarters([float(each.files) for each in looks if each.done]),
            "seconds a run": quarters(took),
            "seconds from one result to the next": quarters(gaps.tolist()),
        }
        lines = ["| | first quarter | last quarter | change |", "|---|---|---|---|"]
        lines += [f"| {name} | {a:,.4g} | {b:,.4g} | {100 * (b / a - 1):+.1f} % |" for name, (a, b) in rows.items()]
        minutes = (ended[-1].stat().st_mtime - ended[0].stat().st_mtime) / 60
        statuses = " and ".join(sorted({record.status for record in records}))
        command = f"python -m benchmarks.soak --runs {given.runs} --launcher {given.launcher} --out docs"
        text = "\n".join(
            [
                f"# A soak: {given.runs} runs in one command",
                "",
                f"`{command}`: {records[0].device['name']}, {psutil.cpu_count()} cores. {len(records)} runs ended, all",
                f"{statuses}, in {minutes:.1f} minutes. Medians, the first tenth left out:",
                "",
                *lines,
                "",
                f"The report of them took {report_s(folder, '--no-figures'):.1f} s without figures and "
                f"{report_s(folder):.1f} s with them.",
                "",
            ]
        )
    print(text)
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "soak.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
