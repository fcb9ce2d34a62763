"""A norm is one file and its defaults: a made-up one, laid beside the others, is everywhere where norms are."""

import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY
from warm import new_python

CODE = '''"""Wobble normalization."""

from torch import Tensor

from normlab.norms import ops
from normlab.norms.about import AFFINE, SWITCH, About, Number
from normlab.norms.layer import Norm

ABOUT = About(
    family="layer",
    formula="γ · x / (δ + mean(x²)) + β",
    axes=("CHW",),
    statistic=("mean square", "mean squares"),
    centred=False,
    options={"delta": Number(0.5, 2, "between 0.5 and 2"), "affine": SWITCH},
    learned=AFFINE,
    source="made up, 2026",
    colour="#123456",
    marker="X",
)


class Wobble(Norm, about=ABOUT):
    """y = γ · x / (δ + mean(x²)) + β."""

    delta: float

    def normalize(self, x: Tensor) -> Tensor:
        return ops.affine(x / (self.delta + ops.mean_square(x, [-3, -2, -1])), self.weight, self.bias)
'''


def python(root: Path, *words: str, code: int = 0) -> str:
    """What a command prints; its errors where it has to fail with this exit code."""
    result = new_python(*words, cwd=root, exit_code=code, PYTHONPATH=str(root), COLUMNS="200")
    return result.stderr if code else result.stdout


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with the norm added, and a sweep of it done as arrays."""
    root = tmp_path_factory.mktemp("house")
    for folder in ("normlab", "conf"):
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "normlab" / "norms" / "wobble.py").write_text(CODE, encoding="utf-8")
    defaults = "name: wobble # wobbles\ndelta: 1.0 # added to the mean square\naffine: true # scale γ and shift β\n"
    (root / "conf" / "norm" / "wobble.yaml").write_text(defaults)
    words = "-m name=sweep norm=bn,wobble seed=0,1 data=digits epochs=1 train_size=64 hydra/launcher=array threads=1"
    python(root, "-m", "normlab.train", *words.split())
    return root


def test_the_command_line_knows_it_and_checks_its_options(house: Path) -> None:
    assert "wobble" in python(house, "-m", "normlab.train", "--help")
    error = python(house, "-m", "normlab.train", "norm=wobble", "norm.delta=3", "data=digits", code=2)
    assert error.strip() == "normlab: norm.delta=3: must be between 0.5 and 2"


def test_it_trains_in_an_array_and_the_report_draws_it_in_its_colour(house: Path) -> None:
    folder = house / "lightning_logs" / "sweep"
    (log,) = folder.glob("wobble*-seed_0/train.log")
    assert "trained as an array of 2 networks" in log.read_text(encoding="utf-8")
    assert "wobble" in python(house, "-m", "normlab.report", "lightning_logs/sweep")
    assert "#123456" in (folder / "figures" / "accuracy.svg").read_text(encoding="utf-8")


def test_the_axes_picture_has_it(house: Path) -> None:
    python(house, "-c", "from normlab.analysis.axes_picture import axes; axes(['wobble']).savefig('axes.svg')")
    assert "#123456" in (house / "axes.svg").read_text(encoding="utf-8")


def test_it_is_worked_out_by_hand(house: Path) -> None:
    """From its formula and axes: in the terminal, and on the page among all the others."""
    words = "--norm wobble --shape 1,1,1,2 --input x.csv --html page.html"
    (house / "x.csv").write_text("1 3", encoding="utf-8")
    told = python(house, "-m", "normlab.calculate", *words.split())
    assert "Wobble norm: 1 statistic" in told
    assert "0.1667 0.5000" in told  # 1 / (1 + 5), 3 / (1 + 5)
    assert '"wobble":{"axes":["CHW"]' in (house / "page.html").read_text(encoding="utf-8")
