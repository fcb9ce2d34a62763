"""Is anything lost when processes are killed? `python -m benchmarks.kills --minutes 10 --out docs`

Three commands share the folder of one study with until=decided, on scikit-learn's digits: one with worker processes,
one with arrays, one with the jobs of a cluster (tests/fake_slurm stands in for SLURM). After a random time, 4 seconds
on average, a process of theirs is killed (SIGKILL), or all are at once, as by a power cut; what has ended is started
again. When all runs are done, the next study begins. When the time is up, one command ends the last.

Each study is then compared with one that nobody disturbed: it has the same runs, all completed; a result that was once
completed was never written again; tables are equal to the byte.
"""

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.tables import markdown
from normlab.record import Record
from normlab.report import report

WORDS = ["study=placement_quick", "until=decided", "max_seeds=8", "epochs=3", "threads=1", "accelerator=cpu"]
LAUNCHERS = ("processes", "array", "submitit_slurm")
QUEUE = ["hydra.launcher.partition=cpu", "hydra.launcher.cpus_per_task=1", "hydra.launcher.array_parallelism=2"]
TABLES = ("summary.csv", "effects.csv", "pairs.csv", "errors.csv")
BETWEEN = 4.0  # seconds from one kill to the next, on average
ALL = 0.15  # of the kills hit every process
MARK = "NORMLAB_KILLS"  # in the environment of all processes, those of jobs too


class Kill(NamedTuple):
    """After so many seconds: what was killed, how many processes, and the study's runs that were completed then."""

    second: float
    study: int
    killed: str
    processes: int
    completed: int


class Studies:
    """A folder of studies, whose commands are killed and started again. Use as a context: at its end all are killed."""

    def __init__(self, place: Path) -> None:
        self.place, self.number, self.started = place, 0, 0
        self.commands: dict[str, subprocess.Popen[bytes]] = {}
        self.stood: dict[Path, bytes] = {}
        (place / "queue").mkdir()
        slurm = Path(__file__).parents[1] / "tests/fake_slurm"
        path = f"{slurm}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {MARK: str(place), "FAKE_SLURM": str(place / "queue"), "PATH": path}

    def __enter__(self) -> "Studies":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes(everything=True):
            with suppress(psutil.Error):
                process.kill()

    def folder(self, number: int) -> Path:
        return self.place / f"study_{number}"

    def start(self, launcher: str, number: int) -> subprocess.Popen[bytes]:
        words = [f"name=study_{number}", f"log_dir={self.place}", f"hydra/launcher={launcher}"]
        words += QUEUE if launcher == "submitit_slurm" else []
        self.started += 1
        command = [sys.executable, "-m", "normlab.train", *WORDS, *words]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=quiet, stderr=quiet, env=self.environment)

    def processes(self, *, everything: bool = False) -> list[psutil.Process]:
        """Commands, workers and jobs; with everything the scripts of the queue too, which are no part of normlab."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                ours = process.pid != os.getpid() and process.environ().get(MARK) == str(self.place)
                if ours and (everything or "python" in process.name()):
                    found.append(process)
        return found

    def look(self, number: int) -> int:
        """Keep the results that are completed, and return how many."""
        done = 0
        for file in self.folder(number).rglob("result.json"):
            content = file.read_bytes()
            if b'"completed"' in content:
                self.stood.setdefault(file, content)
                done += 1
        return done

    def kill(self, dice: random.Random) -> tuple[str, int]:
        """Kill one process, or all; return what, and how many."""
        processes = sorted(self.processes(), key=lambda process: process.pid)
        power_cut = dice.random() < ALL
        chosen = processes if power_cut else dice.choices(processes)
        killed = "all at once" if power_cut else self.name(chosen[0])
        for process in chosen:
            with suppress(psutil.Error):
                process.kill()
        return killed, len(chosen)

    def name(self, process: psutil.Process) -> str:
        for launcher, command in self.commands.items():
            if process.pid == command.pid:
                return f"the command with {launcher}"
        with suppress(psutil.Error):
            if any("submitit" in word for word in process.cmdline()):
                return "a job"
        return "a worker of a command"

    def disturb(self, seconds: float, dice: random.Random) -> Iterator[Kill]:
        """Run studies, kill, start again; then let the last study end."""
        began = time.monotonic()
        strike = began + dice.expovariate(1 / BETWEEN)
        while (now := time.monotonic()) - began < seconds:
            codes = {command.poll() for command in self.commands.values()}
            if 0 in codes:  # a command has seen the end of the study: the others need nothing more of it
                for command in self.commands.values():
                    command.wait(300)
                self.look(self.number)
                self.number, self.commands = self.number + 1, {}
            for launcher in LAUNCHERS:
                if launcher not in self.commands or self.commands[launcher].poll() is not None:
                    self.commands[launcher] = self.start(launcher, self.number)
            done = self.look(self.number)
            if now >= strike:
                yield Kill(round(now - began, 1), self.number, *self.kill(dice), done)
                strike = time.monotonic() + dice.expovariate(1 / BETWEEN)
            time.sleep(0.2)
        for command in self.commands.values():
            command.wait(600)
        if self.start("processes", self.number).wait(600):
            raise SystemExit(f"{self.folder(self.number)}: the last command failed")


def tables(folder: Path) -> dict[str, bytes]:
    with redirect_stdout(StringIO()):
        report(folder, figures=False)
    return {name: (folder / name).read_bytes() for name in TABLES}


def statuses(folder: Path) -> dict[str, str]:
    return {file.parent.name: Record.load(file.parent).status for file in folder.glob("*/result.json")}


def faults(studies: Studies, quiet: Path) -> list[str]:
    """Return what differs from the study that nobody disturbed."""
    wanted, expected, found = statuses(quiet), tables(quiet), []
    for number in range(studies.number + 1):
        folder = studies.folder(number)
        if (have := statuses(folder)) != wanted:
            found.append(f"study {number}: {len(have)} runs ({', '.join(sorted({*have.values()}))}), not {len(wanted)}")
        found += [
            f"study {number}: {name} differs" for name, content in tables(folder).items() if content != expected[name]
        ]
    return found + [f"{file}: written again" for file, content in studies.stood.items() if file.read_bytes() != content]


def page(minutes: float, seed: int, studies: Studies, log: Sequence[Kill], runs: int, found: Sequence[str]) -> str:
    rows = [[killed, str(times)] for killed, times in sorted(Counter(kill.killed for kill in log).items())]
    compared = "; ".join(found) or (
        "they have no run missing and none extra; no finished result was written again, and\n"
        "their tables are identical byte for byte"
    )
    return f"""\
# Killed at random

`python -m benchmarks.kills --minutes {minutes:g} --seed {seed} --out docs` made this page and [the log](kills.csv), on
{psutil.cpu_count()} cores. Three commands share a study's folder, with `until=decided`: worker processes, arrays, and
jobs of a cluster, for which `tests/fake_slurm` stands in. Commands were started {studies.started} times; there were
{len(log)} kills in {minutes:g} minutes:

{markdown(["killed", "times"], rows)}

Studies that were completed: {studies.number + 1}, of {runs} runs each. Compared with an undisturbed study,
{compared}.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the dice")
    parser.add_argument("--out", type=Path, help="a folder for kills.md and kills.csv; only printed unless given")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place, Studies(Path(place).resolve()) as studies:
        if studies.start("processes", -1).wait():
            raise SystemExit("the study that nobody disturbs failed")
        quiet, log = studies.folder(-1), []
        for kill in studies.disturb(60 * args.minutes, random.Random(args.seed)):
            print(*kill, sep="\t", flush=True)
            log.append(kill)
        found = faults(studies, quiet)
        text = page(args.minutes, args.seed, studies, log, len(statuses(quiet)), found)
    print(text)
    if args.out:
        (args.out / "kills.md").write_text(text, encoding="utf-8")
        with (args.out / "kills.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([Kill._fields, *log])
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
