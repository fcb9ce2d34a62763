"""No file runs code, and no page does: docs/security.md, tried."""

import ast
import json
import pickle
import shutil
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up_runs import made_up
from packaging.requirements import Requirement
from packaging.version import Version

from normlab import probe
from normlab.analysis.table import runs
from normlab.errors import NormlabError
from normlab.record import read_support
from normlab.report import main as report
from normlab.settings import Study
from normlab.settings.plan import load
from normlab.training import Classifier, run

HERE = Path(__file__).parent
PACKAGES = [HERE.parent / name for name in ("normlab", "benchmarks")]


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "code ran"


def test_the_bomb_goes_off_where_it_is_let(mark: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


def with_code(file: Path, mark: Path) -> None:
    np.savez(
        file, pred=np.array([Bomb(mark)] * 3), log_probs=np.zeros((3, 10), np.float16), true=np.array([Bomb(mark)] * 3)
    )


def test_predictions_that_carry_code(tmp_path: Path, mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up(tmp_path / "runs", "bn")
    made_up(tmp_path / "runs", "gn")
    [file, _] = sorted((tmp_path / "runs").rglob("predictions.npz"))
    with_code(file, mark)
    assert report([str(tmp_path / "runs"), "--no-figures"]) == 0
    assert f"{file} is damaged" in "".join(capsys.readouterr().out.split("\n"))
    assert not mark.exists()


def test_a_support_that_carries_code(tmp_path: Path, mark: Path) -> None:
    np.savez(tmp_path / "support.npz", packed=np.array([Bomb(mark)]), size=np.array([Bomb(mark)]))
    with pytest.raises(NormlabError, match="is damaged"):
        read_support(tmp_path)
    assert not mark.exists()


def test_a_study_file_that_carries_code(tmp_path: Path, mark: Path) -> None:
    (tmp_path / "study.yaml").write_text(f"!!python/object/apply:pathlib.Path.touch ['{mark}']\n")
    with pytest.raises(NormlabError):
        Study.find(tmp_path)
    assert not mark.exists()


LAYER = """
from pathlib import Path
from torch import nn
Path({mark!r}).touch()
class Layer(nn.BatchNorm2d):
    pass
"""


@pytest.mark.usefixtures("undrawn")
def test_no_file_names_the_code_that_a_probe_runs(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
    capsys.readouterr()
    assert probe.main([str(folder), "layers"]) == 2
    assert "names their_layer:Layer, whose code would run" in capsys.readouterr().err
    assert not mark.exists(), "the checkpoint named it"

    values = json.loads((folder / "result.json").read_text())
    values["config"]["norm"] = own
    (folder / "result.json").write_text(json.dumps(values))
    capsys.readouterr()
    assert probe.main([str(folder), "layers"]) == 2
    assert "--target their_layer:Layer" in capsys.readouterr().err
    assert list(runs(tmp_path)), "a report reads it"
    assert not mark.exists(), "result.json named it"
    assert probe.main([str(folder), "layers", "--target", "their_layer:Layer"]) == 0
    assert mark.exists(), "asked for, it runs"


@pytest.mark.parametrize("instantiator", ["their_layer.Layer", "os.system", "lightning.pytorch.cli.instantiate_module"])
def test_a_checkpoint_whose_hyper_parameters_name_code(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, instantiator: str
) -> None:
    """CVE-2026-58659: plain strings, so that torch's weights-only reader lets them through."""
    (tmp_path / "their_layer.py").write_text(LAYER.format(mark=str(mark)))
    monkeypatch.syspath_prepend(tmp_path)
    hyper_parameters = {"_instantiator": instantiator, "_class_path": "their_layer.Layer", "norm": "gn"}
    content = {"state_dict": {}, "hyper_parameters": hyper_parameters, "pytorch-lightning_version": "2.6.6"}
    torch.save(content, tmp_path / "their.ckpt")
    with pytest.raises(ValueError, match="blocked to prevent arbitrary code execution"):
        Classifier.load_from_checkpoint(tmp_path / "their.ckpt", weights_only=True)
    assert not mark.exists()


def test_bounds_are_at_or_above_each_known_fix() -> None:
    """pyproject.toml's lower bounds (tests/test_package.py holds lowest.txt to them), against a dated list."""
    with (HERE / "advisories.toml").open("rb") as file:
        listed = tomllib.load(file)
    with (HERE.parent / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    bounds: dict[str, list[Version]] = {}
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    for text in [*project["dependencies"], *extras]:
        requirement = Requirement(text)
        lowest = [Version(bound.version) for bound in requirement.specifier if bound.operator in (">=", "==")]
        bounds.setdefault(requirement.name, []).append(max(lowest))
    assert listed["date"].year >= 2026
    for advisory in listed["advisory"]:
        for bound in bounds[advisory["package"]]:
            assert bound >= Version(advisory["fixed"]), advisory


def test_a_zip_that_leaves_its_folder(tmp_path: Path) -> None:
    """An .npz is a zip: names in it are never written anywhere."""
    made_up(tmp_path / "runs", "bn")
    [file] = (tmp_path / "runs").rglob("predictions.npz")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("../../escaped.npy", b"x")
    shutil.copy(file, tmp_path)
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
