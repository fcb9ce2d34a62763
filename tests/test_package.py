"""The wheel: built, put into a folder of its own, used from another one."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_package_and_its_configuration(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "normlab/conf/config.yaml",
        "normlab/conf/norm/gn.yaml",
        "normlab/conf/hydra/job_logging/normlab.yaml",
        "normlab/conf/study/custom_layer.yaml",
        "hydra_plugins/normlab_array.py",
        "hydra_plugins/normlab_arms.py",
    } <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "lightning_logs/"))]


def test_a_run_from_the_wheel_in_another_folder(wheel: Path, tmp_path: Path) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import sys; from normlab.places import conf_dir; from normlab.train import main; print(conf_dir()); "
        "sys.exit(main(['norm=gn', 'data=digits', 'epochs=1', 'threads=1']))"
    )
    environment = {"PYTHONPATH": str(site), "PATH": "", "HOME": str(here)}
    result = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == str(site / "normlab" / "conf")
    assert (here / "lightning_logs/runs/gn-digits-epochs_1-seed_0/result.json").exists()
