"""A single run's images per second beside another program, by how long a thread that waits keeps its core.

`python -m benchmarks.beside --rounds 5`: each round measures every arm once, on an idle machine and beside as many busy
processes as `--busy` says, in an order that turns from round to round.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.arms import say
from benchmarks.tables import markdown
from normlab.errors import in_one_line
from normlab.record import Record

ARMS = {  # name -> threads, GOMP_SPINCOUNT
    "one thread": (1, None),
    "libgomp's default": (None, "300000"),
    "10000 rounds": (None, "10000"),
    "1000 rounds": (None, "1000"),
    "none": (None, "0"),
}


def images_per_s(threads: int | None, spin: str | None) -> float:
    """Train one run in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    environment |= {"GOMP_SPINCOUNT": spin} if spin else {}
    with tempfile.TemporaryDirectory() as folder:
        words = ["data=digits", "epochs=4", f"log_dir={folder}", *([f"threads={threads}"] if threads else [])]
        command = [sys.executable, "-m", "normlab.train", *words]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        [file] = Path(folder).glob("runs/*/result.json")
        return float(Record.load(file.parent).time["images_per_s"])


@in_one_line()
def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", type=int, default=1, help="processes that use a core each")
    options = parser.parse_args(arguments)
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(options.rounds):
        for where in ("idle", "beside"):
            count = options.busy if where == "beside" else 0
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
            try:
                arms = list(ARMS.items())
                for name, arm in arms[number % len(arms) :] + arms[: number % len(arms)]:
                    found.setdefault((name, where), []).append(images_per_s(*arm))
                    say(f"{where}, {name}: {found[name, where][-1]:,.0f} images/s")
            finally:
                for other in others:
                    other.kill()
                    other.wait()
    rows = [
        [name, *(f"{median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})" for rates in of)]
        for name in ARMS
        for of in [(found[name, "idle"], found[name, "beside"])]
    ]
    print(markdown(["a waiting thread keeps its core for", "idle machine", "beside a busy process"], rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
