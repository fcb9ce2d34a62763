"""What happens to a run or a study when the world around it fails: nothing lost, one line that says why, the rest goes
on. docs/faults.md is the table of them."""

import errno
import io
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import draw_nothing
from same_bits import curves, same, stopped
from test_security import Bomb
from warm import python_m

from normlab import record
from normlab.files import write_atomically
from normlab.record import Record
from normlab.report import main as report
from normlab.settings.plan import load
from normlab.train import main
from normlab.training import files, run
from normlab.training.networks import NetworkArray

HERE = Path(__file__).parent
BASE = ["data=digits", "epochs=3", "batch_size=64", "train_size=200", "val_size=100", "threads=1", "norm=gn"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run, which tests read; beside it the same one, stopped in its third epoch. Without pictures."""
    place = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        run(load(*BASE), place / "whole")
        with stopped(4 * 2 + 2, NetworkArray, "training_step"):
            run(load(*BASE), place / "stopped")
    return place / "whole"


@pytest.fixture
def halfway(whole: Path, tmp_path: Path, undrawn: None) -> Path:
    """A run that was stopped in its third epoch."""
    return shutil.copytree(whole.with_name("stopped"), tmp_path / "runs" / "stopped")


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


def full(ending: str, calls: int = 1) -> Callable[[Path, bytes], None]:
    """A disk that is full from the n-th time on that a file with this end of its path is written."""
    left = [calls]

    def write(file: Path, content: bytes) -> None:
        if str(file).endswith(ending):
            left[0] -= 1
            if left[0] <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_atomically(file, content)

    return write


def test_disk_full_while_a_checkpoint_is_written(whole: Path, tmp_path: Path, monkeypatch, undrawn: None) -> None:
    """The epoch before stands; with room again the run goes on from it."""
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", full("last.ckpt", 3))
        found = run(load(*BASE), tmp_path)
    assert found.status == "failed"
    assert "No space left on device" in (found.error or "")
    assert not list(tmp_path.glob(".*.ckpt.*"))
    assert run(load(*BASE), tmp_path).time["resumed"] == 1
    same(tmp_path, whole)


def test_disk_full_from_the_start(tmp_path: Path) -> None:
    """A whole command in a process whose files may not grow: a line, not zero, nothing half written."""
    told = train("seed=0", place=tmp_path, limit=20_000)
    assert told.returncode != 0
    one_line(told.stdout + told.stderr, "File too large")
    [folder] = [file.parent for file in tmp_path.rglob(".lock")]
    assert not (folder / "last.ckpt").exists()
    assert not [file for file in folder.iterdir() if re.match(r"\..*\.(ckpt|json|csv)\.", file.name)], "no half file"
    assert Record.load(folder).status == "failed"


def test_disk_full_while_a_result_is_written(tmp_path: Path, monkeypatch, capsys, undrawn: None) -> None:
    """A sweep says so, does the others and ends; the same command then takes the result from the last checkpoint."""
    words = ["-m", *BASE, "seed=0,1", f"log_dir={tmp_path}", "name=full"]
    with monkeypatch.context() as patch:
        patch.setattr(record, "write_atomically", full("seed_0/result.json"))
        assert main(words) == 1
    one_line(capsys.readouterr().err, "result.json cannot be written", "No space left on device")
    statuses = {file.parent.name[-6:]: Record.load(file.parent).status for file in tmp_path.rglob("result.json")}
    assert statuses == {"seed_1": "completed"}
    assert main(words) == 0
    [first] = tmp_path.glob("full/*seed_0")
    assert Record.load(first).time["resumed"] >= 1


@pytest.mark.parametrize("what", ["a folder that is a file", "a folder in which nothing may be written"])
def test_a_place_where_nothing_can_be_written(tmp_path: Path, what: str) -> None:
    place = tmp_path / "logs"
    if what == "a folder that is a file":
        place.write_text("not a folder")
    else:
        place.mkdir(mode=0o555)
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


def with_hash(whole: bytes, config_hash: Any) -> bytes:
    """A checkpoint that says that it is of another configuration."""
    content, stream = torch.load(io.BytesIO(whole), weights_only=True), io.BytesIO()
    content["normlab"]["config_hash"] = config_hash
    torch.save(content, stream)
    return stream.getvalue()


CHECKPOINTS: dict[str, tuple[Callable[[bytes, Path], bytes], str]] = {
    "cut short": (lambda whole, _: whole[: len(whole) // 2], "cannot be read"),
    "noise": (lambda whole, _: os.urandom(len(whole)), "cannot be read"),
    "empty": (lambda *_: b"", "cannot be read"),
    "code": (lambda whole, mark: with_hash(whole, Bomb(mark)), "cannot be read"),
    "of another": (lambda whole, _: with_hash(whole, "0" * 12), "is of another configuration"),
}


@pytest.mark.parametrize("damage", CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_gone_on_from(whole: Path, halfway: Path, capsys, damage: str) -> None:
    """Training begins anew, says why, and comes to the same bits; no code is run."""
    file, mark = halfway / "last.ckpt", halfway.parent / "code ran"
    spoil, told = CHECKPOINTS[damage]
    file.write_bytes(spoil(file.read_bytes(), mark))
    found = run(load(*BASE), halfway)
    one_line(capsys.readouterr().err, told, "begins anew")
    assert "resumed" not in found.time
    assert not mark.exists()
    same(halfway, whole)


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def replace(whole: bytes) -> bytes:
        assert old in whole
        return whole.replace(old, new, 1)

    return replace


RESULTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut short": lambda _: b'{"schema": 1, "status": "comp',
    "noise": lambda _: b"\x00\xff",
    "a blank in the name of a setting": replaced(b'"lr":', b'" lr":'),
    "a setting of another type": replaced(b'"epochs": 1,', b'"epochs": null,'),
}


@pytest.mark.parametrize("damage", RESULTS)
def test_a_damaged_result(tmp_path: Path, capsys, damage: str, undrawn: None) -> None:
    """Training says so and does the run again, the others stand; the report leaves it out and names the file."""
    words = ["-m", *BASE, "seed=0,1", "epochs=1", f"log_dir={tmp_path}", "name=damaged"]
    assert main(words) == 0
    first, second = sorted(file.parent for file in tmp_path.rglob("result.json"))
    (first / "result.json").write_bytes(RESULTS[damage]((first / "result.json").read_bytes()))
    standing = (second / "result.json").stat().st_mtime_ns
    capsys.readouterr()
    assert report([str(tmp_path / "damaged"), "--no-figures"]) == 0
    assert f"Left out: {first}" in capsys.readouterr().out
    assert main(words) == 0
    one_line(capsys.readouterr().err, str(first), "is damaged", "done again")
    assert Record.load(first).status == "completed"
    assert (second / "result.json").stat().st_mtime_ns == standing


def test_a_metrics_file_cut_short(whole: Path, halfway: Path) -> None:
    """A run that goes on takes its rows from the checkpoint."""
    file = halfway / "metrics.csv"
    file.write_bytes(file.read_bytes()[:-30])
    run(load(*BASE), halfway)
    assert curves(halfway) == curves(whole)


def test_two_studies_in_one_folder(tmp_path: Path, capsys, undrawn: None) -> None:
    """What would write over another configuration's result is refused; what fits beside it is done."""
    words = ["-m", *BASE, "seed=0,1", "epochs=1", f"log_dir={tmp_path}", "name=both"]
    assert main(words) == 0
    results = {}
    for file in tmp_path.rglob("result.json"):
        file.write_text(file.read_text().replace(Record.load(file.parent).config_hash, "0123456789ab"))
        results[file] = file.read_bytes()
    assert main(words) == 2
    one_line(capsys.readouterr().err, "another configuration", "choose another name")
    assert {file: file.read_bytes() for file in results} == results


def test_a_folder_moved_to_another_place(whole: Path, halfway: Path, tmp_path: Path) -> None:
    """A stopped run goes on in its new place, best.ckpt included, and is reported there."""
    moved = shutil.move(halfway.parent, tmp_path / "elsewhere, with spaces and ü") / halfway.name
    assert run(load(*BASE), moved).time["resumed"] == 1
    same(moved, whole)
    assert not halfway.parent.exists()
    assert report([str(moved.parent), "--no-figures"]) == 0


# Whole commands killed on their way, with all their processes or without

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
    for folder in runs:
        same(killed / folder.relative_to(whole), folder)
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


def test_the_table_names_tests_that_exist() -> None:
    """docs/faults.md, and its count."""
    text = (HERE.parent / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "](../tests/" in line]
    for name, file in re.findall(r"\[`(\w+)`\]\(\.\./tests/(\w+\.py)\)", text):
        assert f"def test_{name}(" in (HERE / file).read_text(encoding="utf-8"), name
    assert f"{len(rows)} kinds of fault" in text
