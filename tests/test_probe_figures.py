"""Figures of probes: they hold what was measured, an axis is shared by what is compared, nothing overlaps."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn import check_text
from made_up_runs import made_up
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from normlab.analysis.cells import sort
from normlab.analysis.colours import norm_colour
from normlab.analysis.part import ImageSet
from normlab.analysis.parts.probes import probed, probes
from normlab.analysis.probe_figures import bands_apart, lines_together
from normlab.analysis.questions import Answers
from normlab.analysis.table import runs
from normlab.record import write_probes
from normlab.report import main

BLOCKS = ["block1", "block2", "block3", "block4", "block5"]
TABLE = BLOCKS, {"sd": "standard deviation", "skew": "skewness"}
NINE = ["none", "bn", "bn l1=0.001", "ln", "gn", "gn norm.num_groups=1", "custom_mine.RMS placement=pre", "rms", "frn"]


def some(labels: list[str], seeds: int = 3, epochs: int = 13, factor: float = 1.0) -> dict:
    rng = np.random.default_rng(0)
    x = np.arange(epochs) / 4
    keys = [(block, what) for block in BLOCKS for what in ("sd", "skew")]
    keys += [("", what) for what in ("loss", "loss_min", "loss_max")]
    curves = {
        label: {key: (x, factor**i * (1 + i + rng.uniform(0, 0.2, (seeds, epochs)))) for key in keys}
        for i, label in enumerate(labels)
    }
    for of in curves.values():
        of["", "loss_max"] = (x, of["", "loss"][1] + 1)
        of["", "loss_min"] = (x, of["", "loss"][1] - 0.5)
    return curves


def norms_of(labels: list[str]) -> dict[str, str]:
    return {label: label.split()[0].split("_")[0] for label in labels}


def lines(labels: list[str], **more: float) -> Figure:
    return lines_together(some(labels, **more), norms_of(labels), *TABLE, title="Layers")


def apart(labels: list[str], **more: float) -> Figure:
    quantities = [("loss", "loss_min", "loss_max", "loss")]
    return bands_apart(some(labels, **more), norms_of(labels), quantities, title="Bands")


FIGURES: dict[str, Callable[[], Figure]] = {
    "lines of 4": lambda: lines(["none", "bn", "ln", "gn"]),
    "lines of 9": lambda: lines(NINE),
    "lines over decades": lambda: lines(["none", "bn", "ln"], factor=1e-3),
    "lines, 1 seed, 1 epoch": lambda: lines(["bn"], seeds=1, epochs=1),
    "lines of none": lambda: lines_together({}, {}, *TABLE, title="Nothing yet"),
    "bands of 4": lambda: apart(["none", "bn", "ln", "gn"]),
    "bands of 9": lambda: apart(NINE),
    "bands of none": lambda: apart([]),
}


@pytest.mark.parametrize("case", FIGURES)
def test_no_text_is_cut_off_and_no_two_overlap(case: str) -> None:
    check_text(FIGURES[case]())


def test_a_row_has_one_axis_that_holds_all_of_it() -> None:
    """Logarithmic over decades."""
    fig = lines(["bn", "ln", "gn"])
    for row in (fig.axes[:5], fig.axes[5:]):
        assert len({ax.get_ylim() for ax in row}) == 1
        low, high = row[0].get_ylim()
        assert all(low < np.nanmin(line.get_ydata()) for ax in row for line in ax.lines)
        assert all(np.nanmax(line.get_ydata()) < high for ax in row for line in ax.lines)
    assert all(ax.get_xlim() == fig.axes[0].get_xlim() for ax in fig.axes)
    assert {ax.get_yscale() for ax in lines(["bn", "ln"], factor=1e-3).axes} == {"log"}


def test_bands_reach_from_the_lower_to_the_upper_mean() -> None:
    curves = some(["bn", "ln"])
    fig = bands_apart(curves, norms_of(["bn", "ln"]), [("loss", "loss_min", "loss_max", "loss")], title="t")
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["bn", "ln"]
    x, values = curves["ln"]["", "loss"]
    (band,), (line,) = fig.axes[1].collections, fig.axes[1].lines
    edges = band.get_paths()[0].vertices
    ends = edges[np.isclose(edges[:, 0], x[4]), 1]
    np.testing.assert_allclose([ends.min(), ends.max()], values.mean(0)[4] + [-0.5, 1])
    np.testing.assert_allclose(line.get_ydata(), values.mean(0))


# Of runs


def probed_run(folder: Path, norm: str, seed: int) -> None:
    made_up(folder, norm, seed)
    place = next(folder.glob(f"{norm}-*seed_{seed}"))
    layers = [(e, 4 * e, "layers", b, "relu_sd", 1 + seed + e) for e in range(3) for b in BLOCKS]
    quantities = {"loss": 2, "loss_min": 1, "loss_max": 4, "change_min": 1, "change_max": 3, "smoothness": 9}
    landscape = [(e / 2, 2 * e, "landscape", "", key, x + seed) for e in range(4) for key, x in quantities.items()]
    shift = [(e / 2, 2 * e, "shift", b, "cosine", 0.5) for e in range(4) for b in BLOCKS[1:]]
    write_probes(place, [*layers, *landscape, *shift])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two settings with probes and one without."""
    folder = tmp_path_factory.mktemp("logs") / "probed"
    for seed in (0, 1):
        for norm in ("bn", "ln"):
            probed_run(folder, norm, seed)
        made_up(folder, "gn", seed)
    return folder


def test_runs_are_gathered_by_setting(folder: Path, tmp_path: Path) -> None:
    """A seed that was measured at other steps leaves gaps."""
    bn, ln, gn = sort(runs(folder)).cells
    epochs, values = probed(ln, "layers")["block2", "relu_sd"]
    assert epochs.tolist() == [0, 1, 2]
    assert values.tolist() == [[1, 2, 3], [2, 3, 4]]
    assert probed(bn, "landscape")["", "smoothness"][1].tolist() == [[9] * 4, [10] * 4]
    assert probed(gn, "layers") == {}
    for seed in (0, 1):
        made_up(tmp_path, "bn", seed)
        rows = [(epoch, epoch, "layers", "block1", "dead", 0.5) for epoch in (seed, seed + 1)]
        write_probes(next(tmp_path.glob(f"*seed_{seed}")), rows)
    epochs, values = probed(sort(runs(tmp_path)).cells[0], "layers")["block1", "dead"]
    assert epochs.tolist() == [0, 1, 2]
    np.testing.assert_equal(values, [[0.5, 0.5, np.nan], [np.nan, 0.5, 0.5]])


def test_a_report_has_a_figure_of_each_probe_that_was_used(folder: Path, tmp_path: Path) -> None:
    part = probes(Answers(sort(runs(folder)), None, 0.5))
    pictures = {picture.name: picture.draw(ImageSet(None, ())) for picture in part.pictures()}
    assert list(pictures) == ["probe-relu", "probe-shift", "probe-landscape", "probe-bands"]
    for figure in pictures.values():
        for legend in figure.legends:
            assert [text.get_text() for text in legend.get_texts()] == ["bn", "ln"]
    axes = pictures["probe-relu"].axes
    assert axes[1].get_title(loc="left") == "block2"
    block2 = axes[5 + 1]  # the second row: sd
    for (seeds, mean), norm in zip((block2.lines[:2], block2.lines[2:]), ["bn", "ln"], strict=True):
        assert same_color(mean.get_color(), norm_colour(norm))
        assert mean.get_xydata().tolist() == [[0, 1.5], [1, 2.5], [2, 3.5]]
        np.testing.assert_equal(seeds.get_ydata(), [1, 2, 3, np.nan, 2, 3, 4, np.nan])
    means = [ax.lines[1].get_ydata().tolist() for ax in pictures["probe-landscape"].axes]
    assert means == [[3] * 4, [3.5] * 4, [9.5] * 4]  # spread: 4 - 1, whatever the seed

    assert main([str(folder), "--out", str(tmp_path / "with")]) == 0
    page = (tmp_path / "with/report.html").read_text(encoding="utf-8")
    assert "Internal covariate shift as Santurkar et al. (2018) define it" in page
    assert (tmp_path / "with/figures/probe-bands.png").exists()
    for out in ("with", "without"):
        assert main([str(folder), *["norm=gn"] * (out == "without"), "--out", str(tmp_path / out), "--no-figures"]) == 0
        text = (tmp_path / out / "report.html").read_text(encoding="utf-8")
        assert ("Inside the network" in text) == (out == "with")
