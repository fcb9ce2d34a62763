"""Arms: modules that train, in processes of their own, alone or several at the same time."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.clock import MEETING, rate, read
from normlab.errors import NormlabError

LOOK_EVERY = 0.05  # seconds between looks at whether a process has ended


class ArmError(NormlabError):
    """An arm that failed."""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def together(commands: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Run modules at the same time. Return their images per second, summed, and seconds until all have made a step.

    They wait for each other after their warm-up, so that the clock starts for all at once. Raise `ArmError` when one
    fails; the others are then stopped.
    """
    began, processes = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder, f"{index}.log") for index in range(len(commands))]
        environment = os.environ | {MEETING: f"{len(commands)} {Path(folder, 'meeting')}"}
        try:
            for command, log in zip(commands, logs, strict=True):
                with log.open("wb") as stream:
                    whole = [sys.executable, "-m", *command]
                    processes.append(subprocess.Popen(whole, stdout=stream, stderr=subprocess.STDOUT, env=environment))
            while any(process.poll() is None for process in processes) and not any(p.poll() for p in processes):
                time.sleep(LOOK_EVERY)
        finally:
            for process in processes:
                process.kill()  # does nothing where it has ended
        codes = [process.wait() for process in processes]
        outputs = [log.read_text(encoding="utf-8", errors="replace") for log in logs]
    failed = [index for index, code in enumerate(codes) if code > 0] or [i for i, code in enumerate(codes) if code]
    for index in failed:
        say("\n".join(outputs[index].splitlines()[-30:]))
        raise ArmError(f"`python -m {' '.join(commands[index])}` failed with exit code {codes[index]}, see above")
    try:
        steps = [read(output) for output in outputs]
        return rate(steps), max(process.ends[0] for process in steps) - began
    except ValueError as error:
        raise ArmError(f"`python -m {' '.join(commands[0])}`: {error}") from error
