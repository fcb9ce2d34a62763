"""`until=decided`: a study that asks for seeds by itself, and decides the same when it is killed on the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY

WORDS = ["study=replication_quick", "until=decided", "max_seeds=5", "epochs=1", "norm=bn,none", "l1=0,1e-3"]
COMMAND = [sys.executable, "-m", "normlab.train", *WORDS]


def start(folder: Path) -> "subprocess.Popen[str]":
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*COMMAND, f"log_dir={folder}"], cwd=REPOSITORY, env=os.environ, **pipes)  # type: ignore[call-overload]


def states(folder: Path) -> list[str]:
    """What progress.log says after each look, without the time."""
    log = (folder / "replication_quick" / "progress.log").read_text(encoding="utf-8")
    return list(dict.fromkeys(line.partition(" after ")[2] for line in log.splitlines() if " questions " in line))


def trained(folder: Path) -> set[str]:
    return {file.parent.name for file in folder.rglob("result.json")}


@pytest.mark.slow
def test_killed_after_its_first_look_it_decides_the_same(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = start(whole)
    _, told = done.communicate()
    assert done.returncode == 0, told
    looks = states(whole)
    assert looks[0].startswith("3 seeds per setting")
    assert looks[-1] in told, "the last line says how it ended"
    assert 4 * 3 <= len(trained(whole)) <= 4 * 5

    first = start(killed)
    log = killed / "replication_quick" / "progress.log"
    while not (log.is_file() and "questions" in log.read_text(encoding="utf-8")) and first.poll() is None:
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    first.communicate()
    again = start(killed)
    _, told = again.communicate()
    assert again.returncode == 0, told
    assert states(killed) == looks
    assert trained(killed) == trained(whole)
    assert looks[-1] in told
