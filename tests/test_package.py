"""The sdist and the wheels: built, compared, put into a folder of their own, used from another one."""

import ast
import re
import runpy
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from email import message_from_bytes
from email.message import Message
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
needs_git = pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="no clone: git cannot say what belongs to it")

# of torch and others, which no signature shows: mypy takes half of its time for them
INSIDES = (
    "torch._dynamo", "torch._inductor", "torch._functorch", "torch._export", "torch.ao", "torch.distributed",
    "torch.export", "torch.fx", "torch.onnx", "torchvision", "lightning.fabric.strategies", "sympy",
)  # fmt: skip


def built(folder: Path, *what: str, of: Path = REPOSITORY) -> Path:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), *what, str(of)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this folder."""
    return next(built(tmp_path_factory.mktemp("direct"), "--wheel").glob("*.whl"))


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist, and the wheel built from that."""
    return built(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def sdist(dist: Path) -> set[str]:
    """The files in the sdist, as they are named in this folder."""
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def metadata(wheel: Path) -> Message:
    return message_from_bytes(next(text for name, text in contents(wheel).items() if name.endswith("/METADATA")))


def test_the_wheel_holds_the_package_and_its_configuration(wheel: Path) -> None:
    about = f"normlab-{PROJECT['project']['version']}.dist-info/"
    names = {name for name in contents(wheel) if not name.startswith(about)}
    ours = set()
    for place, inside in (("normlab", "normlab"), ("conf", "normlab/conf")):
        files = (file for file in (REPOSITORY / place).rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        ours |= {f"{inside}/{file.relative_to(REPOSITORY / place).as_posix()}" for file in files}
    assert names == ours
    assert {Path(name).suffix for name in names} == {".py", ".yaml", ".j2", ".js", ".typed", ".h", ".cpp"}


def test_every_build_has_the_same_bytes(wheel: Path, dist: Path, tmp_path: Path) -> None:
    """Of this folder, and of what the sdist unpacks to: anybody can make the files again and compare."""
    assert (dist / wheel.name).read_bytes() == wheel.read_bytes()
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    again = built(tmp_path / "dist", of=next(tmp_path.iterdir()))
    for file in dist.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name


@needs_git
def test_the_sdist_holds_what_git_does(sdist: set[str]) -> None:
    """Everything that the tests read, and no run, cache or build. What git would add counts as its own."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.split("\0")
    ours = {name for name in found if (REPOSITORY / name).is_file()}
    assert sdist == {name for name in ours if not name.startswith((".ci/", ".github/", ".pre-commit"))} | {"PKG-INFO"}


def test_the_classifiers_are_the_pythons_that_may_install_it(wheel: Path) -> None:
    told = metadata(wheel)
    allowed = SpecifierSet(str(told["Requires-Python"]))
    classified = {line.rpartition(" ")[2] for line in told.get_all("Classifier", []) if ":: Python :: 3." in line}
    assert classified == {f"3.{minor}" for minor in range(40) if f"3.{minor}.5" in allowed}
    lowest, highest = (sorted(classified, key=lambda text: int(text[2:]))[i] for i in (0, -1))
    assert f"Python {lowest} to {highest}" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert PROJECT["tool"]["mypy"]["python_version"] == lowest
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"


def lower_bounds(texts: Iterable[str]) -> dict[str, set[str]]:
    """By package; each requirement has one."""
    found: dict[str, set[str]] = {}
    for requirement in map(Requirement, texts):
        bounds = {bound.version for bound in requirement.specifier if bound.operator == ">="}
        assert len(bounds) == 1, f"{requirement} has no lower bound"
        found.setdefault(requirement.name, set()).update(bounds)
    return found


def test_the_lowest_releases_are_those_of_pyproject() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    asked = lower_bounds([*PROJECT["project"]["dependencies"], *extras["dev"], *extras["notebooks"]])
    lines = (REPOSITORY / "tests/lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: {pin.removesuffix(".*")} for name, pin in pinned.items()} == asked


def test_bounds_are_at_or_above_each_known_fix() -> None:
    """Against a dated list."""
    listed = tomllib.loads((REPOSITORY / "tests/advisories.toml").read_text(encoding="utf-8"))
    assert listed["date"].year >= 2026
    extras = PROJECT["project"]["optional-dependencies"].values()
    bounds = lower_bounds([*PROJECT["project"]["dependencies"], *(text for texts in extras for text in texts)])
    for advisory in listed["advisory"]:
        assert all(Version(bound) >= Version(advisory["fixed"]) for bound in bounds[advisory["package"]]), advisory


def test_licences_are_listed_and_none_is_a_gpl() -> None:
    listed = runpy.run_path(str(REPOSITORY / "docs" / "licences.py"))
    page = (REPOSITORY / "docs" / "licences.md").read_text(encoding="utf-8")
    assert {f"**{name}**" for name in listed["needed"]("normlab")} <= set(re.findall(r"\| (\*\*\S+\*\*) \|", page))
    found = listed["tree"]()
    assert len(found) > 40
    assert [name for name, text in found.items() if "GPL" in text] == []


def test_what_is_imported_is_asked_for() -> None:
    """As a dependency or in an extra: what else this environment holds may be missing in others."""
    project = PROJECT["project"]
    named = [*project["dependencies"], *(requires("hydra-core") or ())]  # which brings OmegaConf, part of its interface
    for extra in ("export", "slurm", "compiler", "wandb", "mlflow"):
        named += project["optional-dependencies"][extra]
    asked_for = {canonicalize_name(Requirement(each).name) for each in named}
    made_of = packages_distributions()
    for file in (REPOSITORY / "normlab").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else names
            for name in {str(name).partition(".")[0] for name in names} - {*sys.stdlib_module_names, "normlab"}:
                assert {canonicalize_name(each) for each in made_of.get(name, [name])} & asked_for, f"{file}: {name}"


def test_a_run_from_the_wheel_in_another_folder(wheel: Path, tmp_path: Path) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import sys; from normlab.settings import conf_dir; from normlab.train import main; print(conf_dir()); "
        "sys.exit(main(['norm=gn', 'data=digits', 'epochs=1', 'threads=1']))"
    )
    environment = {"PYTHONPATH": str(site), "PATH": "", "HOME": str(here)}
    result = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == str(site / "normlab" / "conf")
    assert (here / "lightning_logs/runs/gn-digits-epochs_1-seed_0/result.json").exists()


@pytest.mark.slow
def test_a_user_s_strictly_typed_script(wheel: Path, tmp_path: Path) -> None:
    """mypy reads `typed_use.py` in an environment that has the wheel, of which only what py.typed opens is seen."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env/bin/python"
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    zipfile.ZipFile(wheel).extractall(site)
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # torch and all the rest, after the wheel
    here = tmp_path / "here"
    here.mkdir()
    script = here / "typed_use.py"
    script.write_bytes((REPOSITORY / "tests/typed_use.py").read_bytes())
    insides = ",".join(f"{name}.*" for name in INSIDES)
    (here / "mypy.ini").write_text(f"[mypy]\n[mypy-{insides}]\nfollow_imports = skip\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "--cache-dir", "cache"]
    done = subprocess.run([*command, script.name], cwd=here, env={"PATH": ""}, capture_output=True, text=True)
    assert done.stdout == "Success: no issues found in 1 source file\n", done.stdout + done.stderr
