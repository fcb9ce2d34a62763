"""The poster says what the tables say, and the axes picture counts the sets that share a statistic; nothing in them
overlaps or is cut off."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from drawn import check_text, words
from made_up_runs import crossed, made_up
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from warm import new_python

from normlab.analysis.axes_picture import axes
from normlab.analysis.cells import RunsBySetting, group_runs
from normlab.analysis.colours import MUTED, norm_colour
from normlab.analysis.part import ImageSet
from normlab.analysis.poster import poster, strongest
from normlab.analysis.questions import Answers
from normlab.analysis.table import runs
from normlab.errors import NormlabError
from normlab.norms import CATALOGUE
from normlab.settings import Study

SIX = {(norm, l1): 0.9 + 0.01 * i - 20 * l1 for i, norm in enumerate(("bn", "ln", "gn")) for l1 in (0.0, 1e-3)}
IMAGES = np.random.default_rng(0).integers(0, 256, (100, 28, 28), dtype=np.uint8)
STUDY = Study(question="What do they do? " * 14, margin=0.05)


def drawn(found: RunsBySetting, images: np.ndarray | None = IMAGES) -> Figure:
    return poster(Answers(found, STUDY, 0.05), ImageSet(images, tuple("0123456789")))


def six(folder: Path) -> RunsBySetting:
    crossed(folder, SIX)
    return group_runs(runs(folder))


def many(folder: Path) -> RunsBySetting:
    for i in range(12):
        for seed in range(2):
            own = {"batch_size": 16 * (i + 1), "lr": round(0.05 + 0.01 * i, 2), "dropout": 0.05}
            made_up(folder, "gn", seed, test_acc=0.95 - 0.01 * i + 0.005 * seed, **own)
    return group_runs(runs(folder))


def lone(folder: Path) -> RunsBySetting:
    made_up(folder, "ln", files=False)
    return group_runs(runs(folder))


@pytest.mark.parametrize("make", [six, many, lone])
@pytest.mark.parametrize("images", [IMAGES, None], ids=["images", "no images"])
def test_no_text_is_cut_off_and_no_two_overlap(make, images, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    check_text(drawn(make(tmp_path), images))


def test_the_numbers_are_those_of_the_runs_and_the_surest_verdicts_come_first(tmp_path: Path) -> None:
    found = six(tmp_path)
    said = words(drawn(found))
    for cell in found.cells:
        values = 100 * np.array(list(cell.values("test_acc").values()))
        assert f"{values.mean():.2f} ± {values.std(ddof=1):.2f} (n = 5)" in said
    answers = Answers(found, None, 0.05).answers
    nine = strongest(answers, 9)
    assert len(nine) == 9
    decided = [answer.decision.verdict != "undecided" for answer in nine]
    assert decided == sorted(decided, reverse=True)
    sure = [min(answer.decision.adjusted) for answer in nine]
    assert sure == sorted(sure)
    assert len(strongest(answers)) == 6
    assert strongest([]) == []


def test_the_images_are_those_that_most_runs_get_wrong(tmp_path: Path) -> None:
    for norm, wrong in [("bn", [3, 7]), ("ln", [7, 9]), ("gn", [7])]:
        for seed in range(2):
            made_up(tmp_path, norm, seed, wrong=[*wrong, 11] if seed else wrong)
    found = group_runs(runs(tmp_path))
    fig = drawn(found)
    (image,) = fig.findobj(AxesImage)
    sheet = image.get_array()
    left = (sheet.shape[1] // 4 - 28) // 2  # four images side by side
    np.testing.assert_array_equal(sheet[:28, left : left + 28], IMAGES[7])
    said = words(fig)
    assert [line for line in said.splitlines() if line.endswith(" of 6")] == ["6 of 6", "3 of 6", "2 of 6", "2 of 6"]
    fig = drawn(found, IMAGES[:50])  # of another set
    (image,) = fig.findobj(AxesImage)
    assert len(np.unique(image.get_array().compressed())) == 1  # empty tiles


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    found = six(tmp_path / "a")
    with pytest.raises(ValueError, match="images must be uint8"):
        drawn(found, np.zeros((100, 3)))
    made_up(tmp_path / "b", status="diverged")
    with pytest.raises(NormlabError, match="no run here has a test accuracy"):
        drawn(group_runs(runs(tmp_path / "b")))


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    script = REPOSITORY / "docs" / "draw.py"
    for arguments, said in [(["poster"], "name a folder"), (["poster", str(tmp_path)], "holds no run")]:
        done = new_python(script, *arguments, exit_code=2)
        assert said in done.stderr
        assert "Traceback" not in done.stderr


# Axes

N, C, SIDE, G = 4, 6, 2, 2


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_caption_counts_the_statistics(name: str) -> None:
    """The formula of their number is that of the sets."""
    entry = CATALOGUE[name]
    caption = words(axes([name], images=N, channels=C, groups=G, positions=9)).replace("\n", " ")
    lengths = {"N": N, "C": C, "G": G, "V": 2, "H": 3, "W": 3}
    many = eval(entry.counts.replace("·", "*"), {}, lengths)
    sets = [set(entry.sets(N, C, 9, G, 2, index).ravel().tolist()) for index in range(len(entry.axes))]
    assert many == sum(map(len, sets))
    assert (f"{entry.counts} = {many:.0f} {entry.statistic[1]}" if many else "no statistics") in caption


def fills(fig: Figure) -> list[str]:
    (tiles,) = [found for found in fig.axes[0].collections if isinstance(found, PolyCollection)]
    return [to_hex(colour).upper() for colour in tiles.get_facecolors()]


OLD = ("none", "bn", "gbn", "brn", "ln", "ln_elem", "ln2d", "gn", "in", "rms", "frn", "dyt")


def test_one_set_has_the_norms_colour() -> None:
    """Seen of a cube of 4 images, 6 channels, 3 rows: 18 tiles in front, 12 at the right, 24 on top."""
    filled = {name: fills(axes([name], images=4, channels=6, positions=3)) for name in OLD}
    assert {len(found) for found in filled.values()} == {54}
    counts = {name: found.count(norm_colour(name).upper()) for name, found in filled.items()}
    batch, layer, one_map = 3 + 12 + 4, 18 + 3 + 6, 3 + 3 + 1
    assert counts == {
        "none": 0, "bn": batch, "gbn": 3 + 6 + 2, "brn": batch, "ln": layer, "ln_elem": layer, "ln2d": 6 + 1 + 6,
        "gn": 9 + 3 + 3, "in": one_map, "rms": layer, "frn": one_map, "dyt": 0,
    }  # fmt: skip
    assert set(filled["none"]) == set(filled["dyt"]) == {MUTED.upper()}


@pytest.mark.parametrize(
    "fig",
    [
        lambda: axes(),
        lambda: axes(["bn"]),
        lambda: axes(list(CATALOGUE), images=2, channels=12, positions=9, groups=4),
        lambda: axes([f"norm{i}" for i in range(12)], catalogue={f"norm{i}": CATALOGUE["gn"] for i in range(12)}),
        lambda: axes([]),
    ],
    ids=["4 norms", "1 norm", "other sizes", "12 norms", "none"],
)
def test_no_text_of_an_axes_picture_is_cut_off_and_no_two_overlap(fig) -> None:  # type: ignore[no-untyped-def]
    check_text(fig())


def test_a_norm_of_ones_own_can_be_drawn() -> None:
    half = replace(CATALOGUE["bn"], axes=("CHW", "HW"))
    caption = words(axes(["mine"], catalogue=CATALOGUE | {"mine": half}))
    assert "over C, H, W; H, W\nN + N · C = 28 means and variances" in caption


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"names": ["gm"]}, "no entry in the catalogue for gm"),
        ({"names": ["gn"], "groups": 4}, "groups=4 does not divide 6 channels"),
        ({"names": ["bn"], "images": 0}, "at least 1"),
    ],
)
def test_axes_that_do_not_fit_are_refused(wrong, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        axes(**wrong)


def test_the_pictures_are_there() -> None:
    for ending in ("png", "svg"):
        assert 0 < (REPOSITORY / "docs" / f"axes.{ending}").stat().st_size < 300_000
