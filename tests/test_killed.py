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
from normlab.report import main as report

WORDS = ["-m", "norm=bn,gn", "seed=0,1", "data=digits", "val_size=200", "epochs=4", "batch_size=64", "l1=1e-3"]
WORDS += ["penalty.method=proximal", "dropout=0.1", "threads=1", "accelerator=cpu", "name='ein Versuch, früh'"]
NAME = "ein Versuch, früh"


TABLES = ("summary.csv", "comparisons.csv", "errors.csv", "overlap.csv")


def start(place: Path, launcher: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "normlab.train", *WORDS, f"log_dir='{place}'", f"hydra/launcher={launcher}"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*command, "hydra.launcher.n_jobs=2"], stdout=quiet, stderr=quiet, start_new_session=True)


def epochs(place: Path) -> int:
    """How many rows all metrics.csv hold."""
    return sum(max(0, file.read_text().count("\n") - 1) for file in place.rglob("metrics.csv"))


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "all_of_it"), [("array", True), ("joblib", False)])
def test_killed_and_asked_again_it_ends_with_the_same_bits(tmp_path: Path, launcher: str, all_of_it: bool) -> None:
    """All its processes, or its own alone. In a folder with spaces and letters of several alphabets."""
    whole, killed = tmp_path / "Größe 5 – 模型", tmp_path / "killed"
    assert start(whole, launcher).wait(300) == 0
    process = start(killed, launcher)
    deadline = time.monotonic() + 200
    while epochs(killed) < 7 and process.poll() is None and time.monotonic() < deadline:  # of 16
        time.sleep(0.01)
    if all_of_it:
        os.killpg(process.pid, signal.SIGKILL)
    else:  # its workers outlive it by a second or two: the next start meets them, as a user's would
        process.kill()
    process.wait()
    finished = {file: file.read_bytes() for file in killed.rglob("result.json") if "completed" in file.read_text()}
    assert 0 < epochs(killed) < 16, "it was killed on its way"
    assert start(killed, launcher).wait(300) == 0
    runs = sorted(file.parent for file in whole.rglob("result.json"))
    assert len(runs) == 4
    for run in runs:
        same(killed / run.relative_to(whole), run)
    for file, content in finished.items():
        assert file.read_bytes() == content, "what stood finished was left alone"
    for place in (whole, killed):
        assert report([str(place / NAME), "--no-figures"]) == 0
    for table in TABLES:
        assert (killed / NAME / table).read_bytes() == (whole / NAME / table).read_bytes(), table
    resumed = [Record.load(killed / run.relative_to(whole)).time.get("resumed", 0) for run in runs]
    assert max(resumed) >= 1
    assert not list(killed.rglob("array.*"))
    assert not [file for file in killed.rglob(".*") if file.name not in (".lock", ".hydra")], "no half file is left"
