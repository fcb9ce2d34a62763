"""Whole commands killed on their way, with all their processes or without: asked again, they end as if nothing had
happened."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from same_bits import same
from warm import python_m

from normlab.record import Record
from normlab.report import main as report

EPOCHS = 8
NAME = "ein Versuch, früh"
WORDS = ["-m", "norm=bn,gn", "seed=0,1", "data=digits", "train_size=448", "val_size=200", f"epochs={EPOCHS}", "l1=1e-3"]
WORDS += ["batch_size=64", "penalty.method=proximal", "dropout=0.1", "threads=1", "accelerator=cpu", f"name='{NAME}'"]
TABLES = ("summary.csv", "effects.csv", "pairs.csv", "errors.csv", "overlap.csv")


def start(place: Path, *launcher: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "normlab.train", *WORDS, f"log_dir='{place}'", *launcher]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)


def finished(place: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in place.rglob("result.json") if "completed" in file.read_text()}


def on_their_way(place: Path) -> list[Path]:
    """Runs that have a checkpoint, and epochs left."""
    rows = {file.parent: file.read_text().count("\n") - 1 for file in place.rglob("metrics.csv")}
    return [folder for folder, done in rows.items() if done < EPOCHS and (folder / "last.ckpt").exists()]


def freeze_halfway(process: subprocess.Popen[bytes], place: Path) -> None:
    """Stops the command and its workers where some runs are finished and others on their way: what is seen then stays
    so until they are killed, on a machine of any speed."""
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        if finished(place) and on_their_way(place):
            os.killpg(process.pid, signal.SIGSTOP)
            if on_their_way(place):
                return
            os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.01)
    pytest.fail("the command was never halfway")


def wait_for(text: str, file: Path) -> None:
    deadline = time.monotonic() + 100
    while text not in file.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, text
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "all_of_it"), [("array", True), ("processes", False)])
def test_killed_and_asked_again_it_ends_with_the_same_bits(tmp_path: Path, launcher: str, all_of_it: bool) -> None:
    """All its processes, or its own alone. In a folder with spaces and letters of several alphabets."""
    whole, killed = tmp_path / "Größe 5 – 模型", tmp_path / "killed"
    words = [f"hydra/launcher={launcher}", f"hydra.launcher.n_jobs={1 if launcher == 'array' else 2}"]
    alone = python_m("normlab.train", *WORDS, f"log_dir='{whole}'", *(words if launcher == "array" else []))
    assert alone.returncode == 0, alone.stderr
    process = start(killed, *words)
    try:
        freeze_halfway(process, killed)
        stood, halfway = finished(killed), on_their_way(killed)
        if all_of_it:
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()

        def go_on(again: int) -> None:  # workers outlive it: the next start meets them, then they end by themselves
            if not all_of_it:
                wait_for(f"process {again}", killed / NAME / "progress.log")
                os.killpg(process.pid, signal.SIGCONT)

        again = python_m("normlab.train", *WORDS, f"log_dir='{killed}'", *words, meanwhile=go_on)
        assert again.returncode == 0, again.stderr
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    runs = sorted(file.parent for file in whole.rglob("result.json"))
    assert len(runs) == 4
    for run in runs:
        same(killed / run.relative_to(whole), run)
    for file, content in stood.items():
        assert file.read_bytes() == content, "what stood finished was left alone"
    for folder in halfway:
        assert Record.load(folder).time.get("resumed", 0) == 1, "what was on its way went on"
    for place in (whole, killed):
        assert report([str(place / NAME), "--no-figures"]) == 0
    for table in TABLES:
        assert (killed / NAME / table).read_bytes() == (whole / NAME / table).read_bytes(), table
    assert not list(killed.rglob("array.*"))
    assert not [file for file in killed.rglob(".*") if file.name not in (".lock", ".hydra")], "no half file is left"
