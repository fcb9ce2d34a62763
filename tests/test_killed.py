"""Whole commands killed with all their processes, at any moment: asked again, they end as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from same_bits import same

from normlab.record import Record

WORDS = ["-m", "norm=bn,gn", "seed=0,1,2", "data=digits", "val_size=200", "epochs=4", "batch_size=64", "l1=1e-3"]
WORDS += ["penalty.method=proximal", "dropout=0.1", "threads=1", "accelerator=cpu", "name=killed"]


def start(place: Path, launcher: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "normlab.train", *WORDS, f"log_dir={place}", f"hydra/launcher={launcher}"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*command, "hydra.launcher.n_jobs=2"], stdout=quiet, stderr=quiet, start_new_session=True)


def epochs(place: Path) -> int:
    """How many rows all metrics.csv hold."""
    return sum(max(0, file.read_text().count("\n") - 1) for file in place.rglob("metrics.csv"))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["array", "joblib"])
def test_killed_twice_it_ends_with_the_same_bits(tmp_path: Path, launcher: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, launcher).wait(300) == 0
    for rows in (5, 14):  # of 24
        process = start(killed, launcher)
        deadline = time.monotonic() + 200
        while epochs(killed) < rows and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.2)
    assert 0 < epochs(killed) < 24, "it was killed on its way"
    assert start(killed, launcher).wait(300) == 0
    runs = sorted(file.parent for file in whole.rglob("result.json"))
    assert len(runs) == 6
    for run in runs:
        same(killed / run.relative_to(whole), run)
    resumed = [Record.load(killed / run.relative_to(whole)).time.get("resumed", 0) for run in runs]
    assert max(resumed) >= 1
    assert not list(killed.rglob("array.*"))
    assert not [file for file in killed.rglob(".*") if file.name not in (".lock", ".hydra")], "no half file is left"
