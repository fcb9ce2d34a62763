"""`import normlab`, and the command `normlab`: what they offer, and what that does."""

import inspect
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from warm import new_python

import normlab
from normlab import record
from normlab.__main__ import DOORS, _do
from normlab.data.sources import load as load_data
from normlab.errors import ConfigError, NormlabError
from normlab.record import Record, versions
from normlab.settings.plan import plan
from normlab.training.trained import export

PUBLIC = {
    "Net", "make_norm", "Classifier", "ImageData", "load", "run", "sweep", "study", "read", "compare", "report",
    "predict",
}  # fmt: skip


def test_importing_is_light() -> None:
    """What is not Python's own takes long."""
    code = "import sys, normlab; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = new_python("-c", code, exit_code=0).stdout.split()
    ours = {"normlab", "__main__", "_virtualenv", "_distutils_hack", "sitecustomize"}
    assert {name for name in loaded if name not in sys.stdlib_module_names and "editable" not in name} <= ours
    assert "email" not in loaded, "a tenth of a second, for a version that nobody asks for"


def test_every_public_name_is_there_and_explains_itself() -> None:
    assert set(normlab.__all__) == PUBLIC
    assert {*dir(normlab)} == {*PUBLIC, "__version__"}
    for name in PUBLIC:
        value = getattr(normlab, name)
        assert callable(value), name
        assert len((inspect.getdoc(value) or "").split()) > 8, name
    with pytest.raises(AttributeError, match="nothing"):
        _ = normlab.nothing


def test_run_takes_words_as_the_command_line_does(here: Path, undrawn: None) -> None:
    words = ["norm=ln", "data=digits", "epochs=1", "train_size=100", "batch_size=50"]
    record = normlab.run(" ".join(words))
    [job] = plan(words, multirun=False)
    assert Record.load(job.folder) == record, "where the command line puts it"
    assert normlab.run(words, str(job.folder)) == record, "finished: not trained again"
    with pytest.raises(ConfigError, match="nrom"):
        normlab.run("nrom=ln")


def test_a_record_is_a_table_in_a_notebook() -> None:
    """What was measured, in a few digits; a message is text."""
    failed = Record(
        status="failed", error="1 < 2", config={}, config_hash="0123456789ab", setting={"norm": "ln", "l1": 0.001},
        seed=3, data={"name": "digits"}, metrics={"test_acc": 0.98765, "val_acc": None},
        time={"fit_s": 12.345, "images_per_s": 25032.1, "epochs": 3},
    )  # fmt: skip
    rows = {
        "run": "norm=ln l1=0.001 seed=3", "data": "digits", "status": "failed: 1 &lt; 2", "test_acc": "0.9877",
        "fit_s": "12.3", "images_per_s": "25,032", "config_hash": "0123456789ab",
    }  # fmt: skip
    cells = "".join(f"<tr><th>{key}</th><td>{value}</td></tr>" for key, value in rows.items())
    assert failed._repr_html_() == f"<table>{cells}</table>"
    bare = Record(status="interrupted", config={}, config_hash="", setting={}, seed=0)
    assert "<tr><th>data</th><td></td></tr><tr><th>status</th><td>interrupted</td></tr>" in bare._repr_html_()


def test_predict_is_what_the_run_predicted(finished: tuple[Path, Record]) -> None:
    folder, _ = finished
    images = load_data("digits", None, download=False).test_images
    probabilities = normlab.predict(folder, images)
    with np.load(folder / "predictions.npz") as kept:
        assert (probabilities.argmax(1).numpy() == kept["pred"]).all()
        assert np.abs(probabilities.log().numpy() - kept["log_probs"]).max() < 0.02, "float16 was kept"
    assert torch.equal(normlab.predict(str(folder / "last.ckpt"), images[:3]), normlab.predict(folder, images[:3]))


@pytest.mark.parametrize("use", [lambda place: normlab.predict(place, np.zeros((1, 28, 28), np.uint8)), export])
def test_no_network_is_one_line(use: object, tmp_path: Path) -> None:
    with pytest.raises(NormlabError, match="is not there"):
        use(tmp_path)  # type: ignore[operator]
    (tmp_path / "last.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(NormlabError, match=r"cannot be loaded .*force=true"):
        use(tmp_path)  # type: ignore[operator]


def test_an_exported_network_computes_the_same(finished: tuple[Path, Record], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, _ = finished
    images = load_data("digits", None, download=False).test_images[:7]
    file = export(folder, str(tmp_path / "network.onnx"))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"images": (images[:, None] / 255).astype(np.float32)})
    assert np.abs(np.exp(found) - normlab.predict(folder, images).numpy()).max() < 1e-5


def test_sweep_returns_a_row_per_run(here: Path, undrawn: None) -> None:
    words = ["data=digits", "epochs=1", "train_size=60", "batch_size=30", "name=mine", "hydra/launcher=basic"]
    normlab.sweep("norm=bn", "seed=0", *words)
    table = normlab.sweep("norm=bn,ln", "seed=0,1", *words)
    assert sorted(zip(table["norm"], table["seed"], strict=True)) == [("bn", 0), ("bn", 1), ("ln", 0), ("ln", 1)]
    assert len(normlab.sweep("norm=ln", "seed=0,1", *words)) == 2, "those that were asked for"
    with pytest.raises(ConfigError, match="nothing"):
        normlab.study("nothing")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "usage: normlab COMMAND"),
        (["--help"], 0, "usage: normlab COMMAND"),
        (["--version"], 0, f"normlab {normlab.__version__}"),
        (["norm=ln"], 2, "write normlab train norm=ln"),
        (["tarin"], 2, "tarin is no command; choose one of train"),
        (["train", "nrom=ln"], 2, "nrom is no setting"),
        (["train", "--help", "l1"], 0, "  l1: 0.0 #"),
        (["train", "--help", "all"], 0, "  norm.num_groups: 2 #"),
        (["train", "--help", "xyzzy"], 2, "no setting has xyzzy"),
    ],
)
def test_the_command(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _do(arguments) == code
    out, err = capsys.readouterr()
    assert words in out + err
    assert (len(err.splitlines()) == 1) == (code == 2 and bool(arguments))


@pytest.mark.parametrize("door", DOORS)
def test_help_is_one_screen(door: str, capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):  # argparse's
        _do([door, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert 5 < len(lines) <= 45
    assert max(map(len, lines)) <= 125


def test_settings_are_completed() -> None:
    line = {"COMP_LINE": "normlab train norm=l", "COMP_POINT": "20"}
    assert "norm=ln" in new_python("-m", "normlab", "-sc", "query=bash", exit_code=0, **line).stdout.split()


@pytest.fixture
def fresh_versions() -> Iterator[None]:
    versions.cache_clear()
    yield
    versions.cache_clear()


def test_a_record_names_the_releases(monkeypatch: pytest.MonkeyPatch, fresh_versions: None) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "torchmetrics":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    known = {name: real(name) for name in ("torch", "lightning", "numpy")} | {"normlab": normlab.__version__}
    found = {name: number for name, number in versions().items() if name != "commit"}
    assert found == known | {"python": platform.python_version(), "torchmetrics": "unknown"}


def test_a_record_names_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_versions: None) -> None:
    """And whether code or settings were changed since; what else lies in the clone changes no number."""

    def commit() -> str | None:
        versions.cache_clear()
        return versions().get("commit")

    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    monkeypatch.setattr(record, "__file__", str(tmp_path / "normlab/record.py"))
    monkeypatch.chdir(tmp_path.parent)
    files = [tmp_path / name for name in ("normlab/record.py", "conf/config.yaml", "README.md")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("as it was")
    assert commit() is None, "no clone"
    git("init", "--quiet")
    assert commit() is None, "nothing committed"
    git("add", ".")
    git("commit", "--quiet", "-m", "m")
    head = git("rev-parse", "--short=12", "HEAD")
    assert len(head) == 12
    (tmp_path / "normlab/new.py").touch()
    files[2].write_text("changed")
    assert commit() == head
    for file in files[:2]:
        file.write_text("changed")
        assert commit() == f"{head}+"
        file.write_text("as it was")
    monkeypatch.setenv("PATH", "")
    assert commit() is None, "no git"
