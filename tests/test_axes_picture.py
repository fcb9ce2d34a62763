"""The axes picture: it counts the sets that share a statistic, and says so legibly."""

from dataclasses import replace

import pytest
from conftest import REPOSITORY
from drawn import check_text, words
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from normlab.analysis.axes_picture import axes
from normlab.analysis.colours import MUTED, norm_colour
from normlab.norms import CATALOGUE

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
    drawn = {name: fills(axes([name], images=4, channels=6, positions=3)) for name in OLD}
    assert {len(found) for found in drawn.values()} == {54}
    counts = {name: found.count(norm_colour(name).upper()) for name, found in drawn.items()}
    batch, layer, one_map = 3 + 12 + 4, 18 + 3 + 6, 3 + 3 + 1
    assert counts == {
        "none": 0, "bn": batch, "gbn": 3 + 6 + 2, "brn": batch, "ln": layer, "ln_elem": layer, "ln2d": 6 + 1 + 6,
        "gn": 9 + 3 + 3, "in": one_map, "rms": layer, "frn": one_map, "dyt": 0,
    }  # fmt: skip
    assert set(drawn["none"]) == set(drawn["dyt"]) == {MUTED.upper()}


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
def test_no_text_is_cut_off_and_no_two_overlap(fig) -> None:  # type: ignore[no-untyped-def]
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
def test_what_does_not_fit_is_refused(wrong, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        axes(**wrong)


def test_the_pictures_are_there() -> None:
    for ending in ("png", "svg"):
        assert 0 < (REPOSITORY / "docs" / f"axes.{ending}").stat().st_size < 300_000
