"""What happens to a run or a study when the world around it fails: nothing lost, one line that says why, the rest goes
on. docs/faults.md is the table of them."""

import errno
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from same_bits import curves, same
from warm import python_m

from normlab.files import write_atomically
from normlab.record import Record
from normlab.report import main as report
from normlab.settings import Settings
from normlab.settings.plan import load
from normlab.training import files, run
from normlab.training.networks import Networks

HERE = Path(__file__).parent
BASE = ["data=digits", "epochs=3", "batch_size=64", "train_size=200", "val_size=100", "threads=1", "norm=gn"]


def settings_of(*words: str) -> Settings:
    return load(*BASE, *words)


def stop_in_epoch(number: int, monkeypatch: pytest.MonkeyPatch, settings: Settings, folder: Path) -> None:
    """Leaves a run that was stopped in an epoch, from 1: four steps each."""
    real = Networks.training_step
    left = [4 * (number - 1) + 2]

    def training_step(networks: Networks, batch: Any, batch_idx: int) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        real(networks, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Networks, "training_step", training_step)
        with pytest.raises(KeyboardInterrupt):
            run(settings, folder)


def train(*words: str, place: Path, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """The command line, in a process that can write files of so many bytes at most."""
    command = ["normlab.train", *BASE, *words, f"log_dir={place}"]
    if limit is None:
        return python_m(*command)

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    command = [sys.executable, "-m", *command]
    return subprocess.run(command, text=True, capture_output=True, timeout=300, preexec_fn=small_files)


def one_line(told: str, *words: str) -> None:
    """A line with all of these words is there, and no traceback."""
    assert any(all(word in line for word in words) for line in told.splitlines()), told
    assert "Traceback" not in told, told


def full(file_name: str, calls: int = 1) -> Callable[[Path, bytes], None]:
    """A disk that is full from the n-th time on that a file of this name is written."""
    left = [calls]

    def write(file: Path, content: bytes) -> None:
        if file.name == file_name:
            left[0] -= 1
            if left[0] <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_atomically(file, content)

    return write


@pytest.mark.usefixtures("undrawn")
def test_disk_full_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The epoch before stands; with room again the run goes on from it."""
    settings = settings_of()
    run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", full("last.ckpt", 3))
        record = run(settings, tmp_path / "full")
    assert record.status == "failed"
    assert "No space left on device" in (record.error or "")
    assert not list((tmp_path / "full").glob(".*.ckpt.*"))
    assert run(settings, tmp_path / "full").time["resumed"] == 1
    same(tmp_path / "full", tmp_path / "whole")


def test_disk_full_from_the_start(tmp_path: Path) -> None:
    """A whole command in a process whose files may not grow: a line, not zero, nothing half written."""
    told = train("seed=0", place=tmp_path, limit=20_000)
    assert told.returncode != 0
    one_line(told.stdout + told.stderr, "File too large")
    [folder] = [file.parent for file in tmp_path.rglob(".lock")]
    assert not (folder / "last.ckpt").exists()
    assert not [file for file in folder.iterdir() if re.match(r"\..*\.(ckpt|json|csv)\.", file.name)], "no half file"
    assert Record.load(folder).status == "failed"


@pytest.mark.usefixtures("undrawn")
def test_disk_full_while_a_result_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep says so, does the others and ends; the same command then takes the result from the last checkpoint."""
    import normlab.record as module
    from normlab.train import main

    words = ["-m", *BASE, "seed=0,1", f"log_dir={tmp_path}", "name=full"]
    real = write_atomically

    def write(file: Path, content: bytes) -> None:
        if file.name == "result.json" and file.parent.name.endswith("seed_0"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", write)
        assert main(words) == 1
    told = capsys.readouterr()
    one_line(told.err, "result.json cannot be written", "No space left on device")
    statuses = {file.parent.name[-6:]: Record.load(file.parent).status for file in tmp_path.rglob("result.json")}
    assert statuses == {"seed_1": "completed"}
    assert main(words) == 0
    [first] = [file.parent for file in tmp_path.rglob("result.json") if file.parent.name.endswith("seed_0")]
    assert Record.load(first).time["resumed"] >= 1


@pytest.mark.parametrize("what", ["a folder that is a file", "a folder in which nothing may be written"])
def test_a_place_where_nothing_can_be_written(tmp_path: Path, what: str) -> None:
    if what == "a folder that is a file":
        (tmp_path / "logs").write_text("not a folder")
        place = tmp_path / "logs"
    else:
        place = tmp_path / "locked"
        place.mkdir()
        place.chmod(0o555)
        if os.access(place, os.W_OK):  # the administrator may write everywhere but here
            place = Path("/proc/normlab")
    told = train("seed=0", place=place)
    assert told.returncode == 2
    one_line(told.stderr, "nothing can be written there", "choose another log_dir")


def test_an_altered_mnist_file(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte.gz").write_bytes(b"\x1f\x8b" + os.urandom(100))
    told = train("data=mnist", f"data.root={tmp_path}", "train_size=null", place=tmp_path / "logs")
    assert told.returncode == 2
    one_line(told.stderr, "train-images-idx3-ubyte.gz")
    assert not list((tmp_path / "logs").rglob("result.json"))


def misnamed(whole: bytes) -> bytes:
    """A blank has come into the name of a setting."""
    assert b'"lr":' in whole
    return whole.replace(b'"lr":', b'" lr":')


def mistyped(whole: bytes) -> bytes:
    assert b'"epochs": 1,' in whole
    return whole.replace(b'"epochs": 1,', b'"epochs": null,', 1)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("damage", ["cut short", "noise", "empty", "another configuration", "code"])
def test_a_checkpoint_that_cannot_be_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training begins anew, says why, and comes to the same bits."""
    settings = settings_of()
    run(settings, tmp_path / "whole")
    stop_in_epoch(3, monkeypatch, settings, tmp_path / "stopped")
    file = tmp_path / "stopped" / "last.ckpt"
    content = file.read_bytes()
    ran = tmp_path / "ran"
    if damage == "cut short":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "noise":
        file.write_bytes(os.urandom(len(content)))
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "code":
        torch.save({"normlab": Runs(ran)}, file)
    else:
        run(settings_of("seed=9"), tmp_path / "other")
        shutil.copy(tmp_path / "other" / "last.ckpt", file)
    capsys.readouterr()
    record = run(settings, tmp_path / "stopped")
    told = capsys.readouterr().err
    one_line(told, "another configuration" if damage == "another configuration" else "cannot be read", "begins anew")
    assert "resumed" not in record.time
    assert not ran.exists()
    same(tmp_path / "stopped", tmp_path / "whole")


class Runs:
    """Runs code where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("damage", [b"", b'{"schema": 1, "status": "comp', b"\x00\xff", misnamed, mistyped])
def test_a_damaged_result(
    tmp_path: Path, damage: bytes | Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """Training says so and does the run again, the others stand; the report leaves it out and names the file."""
    from normlab.train import main

    words = ["-m", *BASE, "seed=0,1", "epochs=1", f"log_dir={tmp_path}", "name=damaged"]
    assert main(words) == 0
    first, second = sorted(file.parent for file in tmp_path.rglob("result.json"))
    whole = (first / "result.json").read_bytes()
    (first / "result.json").write_bytes(damage if isinstance(damage, bytes) else damage(whole))
    standing = (second / "result.json").stat().st_mtime_ns
    capsys.readouterr()
    assert report([str(tmp_path / "damaged"), "--no-figures"]) == 0
    assert f"Left out: {first}" in capsys.readouterr().out
    assert main(words) == 0
    one_line(capsys.readouterr().err, str(first), "is damaged", "done again")
    assert Record.load(first).status == "completed"
    assert (second / "result.json").stat().st_mtime_ns == standing


@pytest.mark.usefixtures("undrawn")
def test_a_metrics_file_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on takes its rows from the checkpoint."""
    settings = settings_of()
    run(settings, tmp_path / "whole")
    stop_in_epoch(3, monkeypatch, settings, tmp_path / "stopped")
    file = tmp_path / "stopped" / "metrics.csv"
    file.write_bytes(file.read_bytes()[:-30])
    run(settings, tmp_path / "stopped")
    assert curves(tmp_path / "stopped") == curves(tmp_path / "whole")


@pytest.mark.usefixtures("undrawn")
def test_two_studies_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What would write over another configuration's result is refused; what fits beside it is done."""
    from normlab.train import main

    words = ["-m", *BASE, "seed=0,1", "epochs=1", f"log_dir={tmp_path}", "name=both"]
    assert main(words) == 0
    results = {file: file.read_bytes() for file in tmp_path.rglob("result.json")}
    for file in results:
        text = file.read_text().replace(Record.load(file.parent).config_hash, "0123456789ab")
        file.write_text(text)
        results[file] = file.read_bytes()
    assert main(words) == 2
    one_line(capsys.readouterr().err, "another configuration", "choose another name")
    assert {file: file.read_bytes() for file in results} == results


def test_a_folder_moved_to_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped run goes on in its new place, best.ckpt included, and is reported there."""
    settings = settings_of()
    run(settings, tmp_path / "whole")
    stop_in_epoch(3, monkeypatch, settings, tmp_path / "here" / "run")
    shutil.move(tmp_path / "here", tmp_path / "elsewhere, with spaces and ü")
    moved = tmp_path / "elsewhere, with spaces and ü" / "run"
    assert run(settings, moved).time["resumed"] == 1
    same(moved, tmp_path / "whole")
    assert not (tmp_path / "here").exists()
    assert report([str(moved.parent), "--no-figures"]) == 0


def test_the_table_names_tests_that_exist() -> None:
    """docs/faults.md, and its count."""
    text = (HERE.parent / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "](../tests/" in line]
    for name, file in re.findall(r"\[`(\w+)`\]\(\.\./tests/(\w+\.py)\)", text):
        assert f"def test_{name}(" in (HERE / file).read_text(encoding="utf-8"), name
    assert f"{len(rows)} kinds of fault" in text
