"""One process at a time trains in a folder, also where locks are not seen by other machines."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from normlab import claim as module
from normlab.claim import busy, claim
from normlab.errors import BusyError
from normlab.files import write_atomically
from normlab.train import main

OTHER = """
import os, sys, time
from contextlib import contextmanager
from pathlib import Path
from normlab import claim as module
from normlab.files import write_atomically

@contextmanager
def of_another_machine(folder, patience):  # its locks are not seen here
    yield True

if sys.argv[2] != "here":
    module._machine, module._locked = lambda: sys.argv[2], of_another_machine
module.BEAT = 0.2
with module.claim(Path(sys.argv[1])):
    print("holds it", flush=True)
    while len(sys.argv) > 3:
        write_atomically(Path(sys.argv[1], "metrics.csv"), b"of who was held up")
        time.sleep(0.05)
    time.sleep(60)
"""


@contextmanager
def held_by(machine: str, folder: Path, *writes: str) -> Iterator[subprocess.Popen[str]]:
    """While a process holds the folder: of this machine ("here") or of another."""
    command = [sys.executable, "-c", OTHER, str(folder), machine, *writes]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "holds it\n", process.communicate()[1]
            yield process
        finally:
            process.kill()


def refused(folder: Path, *words: str) -> bool:
    with pytest.raises(BusyError, match="another process") as caught, claim(folder):
        pass
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)
    return True


def test_on_one_machine_a_folder_is_free_as_soon_as_its_process_is_killed(tmp_path: Path) -> None:
    with held_by("here", tmp_path) as process:
        assert busy(tmp_path)
        assert refused(tmp_path, str(process.pid))
        process.kill()
        process.wait()
        assert (tmp_path / ".owner").exists()
        assert not busy(tmp_path)
        with claim(tmp_path):
            pass
    assert not (tmp_path / ".owner").exists()


def test_where_locks_are_of_a_machine_a_process_of_another_is_seen_and_outwaited(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "STALE", 1.0)
    with held_by("node7 ab-cd", tmp_path) as process:
        time.sleep(1.3)  # it is touched
        assert busy(tmp_path)
        assert refused(tmp_path, f"({process.pid} on node7)")
        process.kill()
        process.wait()
        assert busy(tmp_path), "nothing tells at once that it has gone"
        time.sleep(1.2)
        assert not busy(tmp_path)
        with claim(tmp_path):
            assert "node7" not in (tmp_path / ".owner").read_text()
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("ended", [False, True])
def test_who_was_held_up_and_lost_its_folder_writes_no_more(tmp_path: Path, monkeypatch, ended: bool) -> None:
    """Also where the process that took the folder over has ended by then."""
    monkeypatch.setattr(module, "STALE", 0.5)
    with held_by("node7 ab-cd", tmp_path, "writes") as process:
        time.sleep(0.3)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.8)
        with claim(tmp_path):
            write_atomically(tmp_path / "metrics.csv", b"mine")
            if not ended:
                process.send_signal(signal.SIGCONT)
                assert process.wait(20) == 1
        process.send_signal(signal.SIGCONT)
        assert process.wait(20) == 1, "no signal ended it"
        assert process.stderr is not None
        assert "BusyError" in (told := process.stderr.read().splitlines()[-1])
        assert "was taken over by another process" in told
        assert (tmp_path / "metrics.csv").read_bytes() == b"mine"
        assert not [*tmp_path.glob(".metrics*")]


def test_a_command_whose_run_lost_its_folder_leaves_it_alone(here: Path, monkeypatch, capfd) -> None:
    """And fails with one line. Another machine takes it over in the middle of the first epoch."""
    folder, other = here / "logs" / "mine" / "bn-digits-epochs_1-seed_0", "1 node7 ab-cd 0123"
    taken = "normlab.training.callbacks.Speed.on_train_epoch_start"
    monkeypatch.setattr(taken, lambda *_: (folder / ".owner").write_text(other))
    assert main(["data=digits", "epochs=1", "threads=1", "accelerator=cpu", "log_dir=logs", "name=mine"]) == 1
    shown = "".join(capfd.readouterr())
    assert len([line for line in shown.splitlines() if "was taken over by another process" in line]) == 1
    assert "Traceback" not in shown
    assert not {"metrics.csv", "last.ckpt", "result.json"} & {file.name for file in folder.iterdir()}
    assert (folder / ".owner").read_text() == other


def failing(number: int) -> Callable[..., None]:
    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return flock


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As on a Lustre that is mounted without them: the owner alone decides, the process of this machine looked for."""
    monkeypatch.setattr(fcntl, "flock", failing(number))
    with claim(tmp_path):
        assert busy(tmp_path)
        assert refused(tmp_path)
    assert not busy(tmp_path)
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / ".owner").write_text(f"{gone.pid} {module._machine()} 0123")
    with claim(tmp_path):
        pass
    (tmp_path / ".owner").write_text(f"1 {module._machine()} 0123")

    def of_another_user(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", of_another_user)
    assert busy(tmp_path)


def test_who_holds_a_folder_is_named(tmp_path: Path) -> None:
    for owner, who in (("7 node3 ab-cd 0123", " (7 on node3)"), ("", "")):
        (tmp_path / ".owner").write_text(owner)
        with module._locked(tmp_path, 0), pytest.raises(BusyError) as caught, claim(tmp_path):
            pass
        told = f"another process{who} trains in {tmp_path}: wait for it, or choose another name=…"
        assert str(caught.value) == told


def test_an_error_of_another_kind_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"), claim(tmp_path):
        pass


def test_many_who_find_one_gone_are_not_let_in_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking at a stale owner and moving it aside, another process has taken the folder over."""
    owner, read, looked = tmp_path / ".owner", module._read, []
    owner.write_text("1 node7 ab-cd 0123")
    os.utime(owner, (1, 1))
    (tmp_path / ".lock").touch()

    def looks(folder: Path) -> tuple[str, int]:
        found = read(folder)
        looked.append(found)
        if len(looked) == 1:
            owner.write_text("2 node8 ef-gh 4567")
        return found

    monkeypatch.setattr(module, "_read", looks)
    assert refused(tmp_path, "2 on node8")
    assert owner.read_text() == "2 node8 ef-gh 4567"
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", ".owner"]
