"""No file runs code, and no page does: docs/security.md, tried."""

import ast
import json
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up_runs import made_up, several

from normlab import probe
from normlab.analysis.table import runs
from normlab.errors import NormlabError
from normlab.kernels import compile as compilation
from normlab.record import read_support
from normlab.report import main as report
from normlab.settings import Study
from normlab.settings.plan import load
from normlab.training import Classifier, run

HERE = Path(__file__).parent
PACKAGES = [HERE.parent / name for name in ("normlab", "benchmarks")]


def test_each_promise_names_the_tests_that_hold_it() -> None:
    page = (HERE.parent / "docs" / "security.md").read_text(encoding="utf-8")
    promises = re.split(r"(?m)^- ", page)[1:]
    assert len(promises) >= 10
    written = {name for file in HERE.glob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
    for promise in promises:
        named = set(re.findall(r"`(test_\w+)`", promise))
        assert named <= written, named - written
        assert named or "no test of normlab" in promise, promise


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "code ran"


def test_files_that_carry_code(tmp_path: Path, mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Arrays and YAML are damaged then, and nothing runs; the bomb goes off where it is let."""
    several(tmp_path / "runs", "bn gn", 1)
    [file, _] = sorted((tmp_path / "runs").rglob("predictions.npz"))
    bomb = np.array([Bomb(mark)] * 3)
    np.savez(file, pred=bomb, log_probs=np.zeros((3, 10), np.float16), true=bomb)
    assert report([str(tmp_path / "runs"), "--no-figures"]) == 0
    assert f"{file} is damaged" in "".join(capsys.readouterr().out.split("\n"))
    np.savez(tmp_path / "support.npz", packed=bomb, size=bomb)
    with pytest.raises(NormlabError, match="is damaged"):
        read_support(tmp_path)
    (tmp_path / "study.yaml").write_text(f"!!python/object/apply:pathlib.Path.touch ['{mark}']\n")
    with pytest.raises(NormlabError):
        Study.find(tmp_path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


LAYER = """
from pathlib import Path
from torch import nn
Path({mark!r}).touch()
class Layer(nn.BatchNorm2d):
    pass
"""


def test_no_file_names_the_code_that_a_probe_runs(tmp_path: Path, mark: Path, monkeypatch, refused, undrawn) -> None:
    """Neither result.json nor the checkpoint: the command line does."""
    settings = load("data=digits", "norm=bn", "epochs=1", "train_size=100", "threads=1")
    folder = tmp_path / "run"
    run(settings, folder)
    (tmp_path / "their_layer.py").write_text(LAYER.format(mark=str(mark)))
    monkeypatch.syspath_prepend(tmp_path)
    content = torch.load(folder / "last.ckpt", weights_only=True)
    own = {"name": "custom", "target": "their_layer:Layer", "options": {}}
    content["hyper_parameters"]["norm"] = own
    torch.save(content, folder / "last.ckpt")
    assert "names their_layer:Layer, whose code would run" in refused(probe.main, [str(folder), "layers"])
    assert not mark.exists(), "the checkpoint named it"

    values = json.loads((folder / "result.json").read_text())
    values["config"]["norm"] = own
    (folder / "result.json").write_text(json.dumps(values))
    assert "--target their_layer:Layer" in refused(probe.main, [str(folder), "layers"])
    assert list(runs(tmp_path)), "a report reads it"
    assert not mark.exists(), "result.json named it"
    assert probe.main([str(folder), "layers", "--target", "their_layer:Layer"]) == 0
    assert mark.exists(), "asked for, it runs"


BLOCKED, NAMES = "blocked to prevent arbitrary code execution", r"names their_package.sub:\w+, whose code would run"


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"_instantiator": "their_package.Layer"}, BLOCKED),
        ({"_instantiator": "os.system"}, BLOCKED),
        ({"_instantiator": "lightning.pytorch.cli.instantiate_module"}, BLOCKED),
        ({"norm": {"name": "custom", "target": "their_package.sub:Layer"}}, NAMES),
        ({"net": {"name": "custom", "target": "their_package.sub:network"}}, NAMES),
        ({"net": {"name": "resnet10", "options": {"block": "their_package.sub:Block", "layers": [1, 1, 1, 1]}}}, NAMES),
    ],
    ids=["class", "function", "Lightning's own", "norm", "net", "option"],
)
def test_a_checkpoint_that_names_code_imports_nothing(tmp_path, mark: Path, monkeypatch, named, told: str) -> None:
    """Neither what it names nor the packages around it: plain strings, which torch's weights-only reader lets through
    (CVE-2026-58659). A network of conf/ may name what conf/ names."""
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text(LAYER.format(mark=str(mark)))
    monkeypatch.syspath_prepend(tmp_path)
    model = Classifier(net="resnet10")
    content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    content["pytorch-lightning_version"] = "2.6.6"
    torch.save(content, tmp_path / "their.ckpt")
    assert Classifier.load_from_checkpoint(tmp_path / "their.ckpt").hparams == model.hparams
    content["hyper_parameters"] |= {"_class_path": "their_package.Layer", **named}
    torch.save(content, tmp_path / "their.ckpt")
    for asked in ({}, {"weights_only": True}):
        with pytest.raises(ValueError, match=told):
            Classifier.load_from_checkpoint(tmp_path / "their.ckpt", **asked)
    assert not mark.exists()


COMPILER = """#!/bin/sh
touch {mark!r}
exit 1
"""


def test_kernels_torch_starts_no_compiler(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, undrawn) -> None:
    """And keeps nothing; the kernels do start the one in CXX."""
    (tmp_path / "compiler").write_text(COMPILER.format(mark=str(mark)))
    (tmp_path / "compiler").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "compiler"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compilation.library.cache_clear()
    words = "data=digits", "norm=bn", "epochs=1", "train_size=100", "threads=1", "accelerator=cpu"
    assert run(load(*words, "kernels=torch"), tmp_path / "torch").status == "completed"
    assert not mark.exists()
    assert not (tmp_path / "cache").exists()
    assert run(load(*words), tmp_path / "kernels").status == "completed", "by torch, since nothing was compiled"
    compilation.library.cache_clear()
    assert mark.exists()


def test_kernels_lie_where_nobody_else_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or they are not loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = os.umask(0)
    try:
        file = compilation.compiled(compilation.HERE / "step.cpp", compilation._macros(1, 10, (28, 28), "float", False))
    finally:
        os.umask(before)
    assert isinstance(file, Path)
    assert file.parent.stat().st_mode & 0o022 == file.stat().st_mode & 0o022 == 0
    file.parent.chmod(0o777)
    found = compilation.library.__wrapped__(1, 10, (28, 28))
    assert isinstance(found, str)
    assert found == f"others can write in {file.parent}"


def test_a_zip_that_leaves_its_folder(tmp_path: Path) -> None:
    """An .npz is a zip: names in it are never written anywhere."""
    made_up(tmp_path / "runs", "bn")
    [file] = (tmp_path / "runs").rglob("predictions.npz")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("../../escaped.npy", b"x")
    assert report([str(tmp_path / "runs"), "--no-figures"]) in (0, 2)
    assert not list(tmp_path.rglob("escaped*"))


def test_the_code_has_no_way_to_run_what_it_reads() -> None:
    """No eval, exec, pickle, and no loading of tensors or arrays that may carry objects."""
    for file in (file for package in PACKAGES for file in package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "dill", "cloudpickle", "marshal", "shelve"} & set(names), file
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert called not in ("eval", "exec", "compile", "hydra.utils.instantiate", "yaml.load"), file
            if called == "torch.load" or called.endswith("load_from_checkpoint"):
                assert given.get("weights_only") == "True", file
            if called in ("np.load", "numpy.load"):
                assert given.get("allow_pickle") == "False", file
