"""Parts of a report, from files with known numbers in them: paths of λ, corrupted images, classes, probes, and where
batch norm's loss comes from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import check_text, words
from made_up_runs import answers, made_up, several
from matplotlib.colors import same_color

from normlab.analysis.colours import norm_colour
from normlab.analysis.part import ImageSet, Picture
from normlab.analysis.parts.classes import apart_frame, classes_frame
from normlab.analysis.parts.curves import curves
from normlab.analysis.parts.effects import effects
from normlab.analysis.parts.errors import errors
from normlab.analysis.parts.path import chance, jaccard_of_supports, path, path_frame
from normlab.analysis.parts.probes import probed, probes
from normlab.analysis.parts.robustness import ALL, robustness, robustness_frame
from normlab.analysis.parts.statistics import SCORES, statistics, statistics_frame
from normlab.record import Robustness, write_probes, write_robustness, write_support
from normlab.report import main
from normlab.settings import Claim, Penalty, Settings, Study
from normlab.settings.corruptions import CORRUPTIONS, STRENGTHS

# Many settings


def test_of_many_settings_each_factor_has_its_figure_and_curves_can_be_told_apart(tmp_path: Path) -> None:
    for seed in range(2):
        for lr in range(1, 7):
            for size in range(1, 7):
                acc = 0.9 + 0.003 * lr - 0.002 * size + 0.001 * seed
                made_up(tmp_path, seed=seed, test_acc=acc, lr=float(lr), batch_size=size)
    said = answers(tmp_path)
    drawn = {each.name: each for part in (effects, curves, errors) for each in part(said).pictures()}
    names = "effects effects-batch_size effects-lr curves-1 curves-2 curves-3 variance overlap"
    assert list(drawn) == names.split()
    told = []
    for name in ("effects-lr", "curves-3", "overlap"):
        fig = drawn[name].draw(ImageSet(None, ()))
        assert fig is not None
        check_text(fig)
        told.append(words(fig).split("\n"))
    assert {"lr=6 − lr=1", "bn batch_size=1"} <= {*told[0]}
    assert any(line.endswith("settings 33 to 36 of 36") for line in told[1])
    assert "Of 36 settings the first 24; overlap.csv has all." in drawn["overlap"].caption


# Paths of λ

TRUTH = {0.0: (0.99, 0.0, 4.0), 1e-3: (0.98, 0.25, 2.0), 1e-2: (0.90, 0.75, 1.0)}  # λ: accuracy, zeros, norm of weights


def supports(zeros: float, seed: int) -> np.ndarray:
    """The last quarter is always left, the rest from the front, moved on by a tenth of all a seed."""
    there = np.ones(1000, dtype=bool)
    there[: round(1000 * zeros)] = False
    return np.roll(there, 100 * seed)


@pytest.fixture
def lambdas(tmp_path: Path) -> Path:
    for method in ("proximal", "subgradient"):
        for seed, wobble in enumerate([0.001, -0.001]):
            for l1, (acc, zeros, norm) in TRUTH.items():
                zeros = zeros if method == "proximal" else 0.0
                if not l1 and method == "subgradient":
                    continue  # without a penalty its method does not matter: one run
                own = {"l1": l1, "penalty": Penalty(method=method)}
                record = made_up(tmp_path, "gn", seed, test_acc=acc + wobble, images=1000, files=False, **own)
                place = tmp_path / Settings.model_validate(record.config).slug()
                values = json.loads((place / "result.json").read_text())
                values["metrics"] |= {"zeros": zeros, "zero_filters": zeros / 2, "zero_scales": None, "small": 0.3}
                values["metrics"] |= {"weight_norm": norm, "refit_test_acc": acc + wobble + 0.005}
                (place / "result.json").write_text(json.dumps(values))
                if zeros:
                    write_support(place, supports(zeros, seed))
    return tmp_path


def test_a_path_of_lambda(lambdas: Path) -> None:
    table = path_frame(answers(lambdas).grouped)
    assert len(table) == 5
    row = table[table["setting"].str.contains("proximal") & (table["l1"] == 1e-3)].iloc[0]
    assert row["test_acc_mean"] == pytest.approx(0.98)
    for name in ("test_acc", "refit_test_acc"):  # 0.995 ± 12.7 x 0.001
        assert (table[f"{name}_low"] < table[f"{name}_mean"]).all()
        assert (table[f"{name}_mean"] < table[f"{name}_high"]).all()
        assert (table[f"{name}_high"] < 1).all(), "an interval of an accuracy stays within 0 and 100 %"
    assert (row["zeros"], row["zero_filters"], row["small"], row["weight_norm"]) == (0.25, 0.125, 0.3, 2.0)
    assert row["step_ratio"] == pytest.approx(4), "half the norm: a step turns the weights four times as far"
    assert row["refit_gain_pp"] == pytest.approx(0.5)
    assert (row["refit_gain_low"], row["refit_gain_high"]) == pytest.approx((0.5, 0.5)), "paired: no seed departs"
    assert row["agreement"] == pytest.approx(650 / 850)
    assert row["chance"] == pytest.approx(0.5625 / 0.9375)
    plain = table[table["setting"].str.contains("subgradient") & (table["l1"] == 1e-2)].iloc[0]
    assert plain["zeros"] == 0
    assert np.isnan(plain["agreement"])


def test_agreement_by_hand() -> None:
    a, b = np.array([1, 1, 0, 0], dtype=bool), np.array([1, 0, 1, 0], dtype=bool)
    assert jaccard_of_supports([a, b]) == pytest.approx((1 / 3, 1 / 3))
    assert jaccard_of_supports([a, a, None]) == pytest.approx((1, 1 / 3))
    assert np.isnan(jaccard_of_supports([a, None])).all()
    assert np.isnan(jaccard_of_supports([a & b & ~a, a & ~a])).all()
    rng = np.random.default_rng(0)
    large = [rng.random(200_000) < share for share in (0.3, 0.6)]
    assert jaccard_of_supports(large)[0] == pytest.approx(chance(0.3, 0.6), abs=0.005)


def test_its_figures_hold_the_points_and_the_report_all(lambdas: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(lambdas), "--all", "--no-figures"]) == 0
    assert "What L1 removes" in capsys.readouterr().out
    assert (lambdas / "path.csv").read_text().count("\n") == 6
    figures = {picture.name: picture.draw(ImageSet(None, ())) for picture in path(answers(lambdas)).pictures()}
    assert list(figures) == ["path", "path-refit"]
    lines = [line.get_xydata().tolist() for line in figures["path"].axes[0].lines]
    expected = [[0, pytest.approx(1)], [25, pytest.approx(2)], [75, pytest.approx(10)]]  # errors, per cent
    assert any(line == expected for line in lines)
    assert not any(line and line[0] == [0, 1] and len(line) == 1 for line in lines), "no zeros, no line"
    ticks = [tick for tick in figures["path"].axes[0].get_xticks() if 0 <= tick <= 75]
    assert ticks == [0, 20, 40, 60], "zeros are measured: round numbers stand at the axis"


def test_two_values_are_no_path(tmp_path: Path) -> None:
    several(tmp_path, "gn", 1, l1=[0.0, 1e-3])
    assert path_frame(answers(tmp_path).grouped).empty
    assert not [*path(answers(tmp_path)).pictures()]


def test_a_damaged_support_is_one_line(lambdas: Path) -> None:
    file = next(lambdas.glob("*/support.npz"))
    file.write_bytes(file.read_bytes()[:40])
    runs_ = answers(lambdas).grouped
    path_frame(runs_)
    [line] = [line for cell in runs_.cells for run in cell.ended for line in run.damage]
    assert f"{file} is damaged" in line


# Corrupted images and classes

LOST = {"bn": 0.10, "ln": 0.04}  # of accuracy, per strength


def corrupted_run(folder: Path, norm: str, seed: int, kinds: list[str]) -> None:
    """A run with an accuracy of 0.95 on clean images, of which each strength costs as much again."""
    acc = 0.95 + 0.002 * (seed - 1)
    record = made_up(folder, norm, seed, test_acc=acc)
    ways = [(kind, strength) for kind in kinds for strength in STRENGTHS]
    rows = [Robustness("clean", 0, "eval", acc, 0.1, 0.9, 0.1, 0.01)]
    rows += [Robustness(kind, s, "eval", acc - LOST[norm] * s, 0.1 * s, 0.8, 0.2, 0.05) for kind, s in ways]
    if norm == "bn":
        rows.append(Robustness("clean", 0, "adapted", acc - 0.01, 0.1, 0.9, 0.1, 0.01))
        rows += [Robustness(kind, s, "adapted", acc - 0.03, 0.1, 0.8, 0.2, 0.05) for kind, s in ways]
    write_robustness(folder / Settings.model_validate(record.config).slug(), rows)


@pytest.fixture
def corrupted(tmp_path: Path) -> Path:
    for norm in LOST:
        for seed in range(3):
            corrupted_run(tmp_path, norm, seed, list(CORRUPTIONS))
    return tmp_path


def test_accuracy_on_corrupted_images(corrupted: Path) -> None:
    frame = robustness_frame(answers(corrupted)).set_index(["kind", "setting", "mode"])
    assert list(dict.fromkeys(frame.index.get_level_values("kind"))) == [*CORRUPTIONS, ALL]
    bn = frame.loc["noised", "bn", "eval"]
    assert (bn["n"], bn["acc_mean"], bn["change_pp"]) == (3, pytest.approx(0.65), pytest.approx(-30))
    assert bn["acc_sd"] == pytest.approx(0.002)
    assert bn["acc_low"] < 0.65 < bn["acc_high"]
    assert bn["ce_mean"] == pytest.approx(0.3)
    assert (bn["change_low"], bn["change_high"]) == pytest.approx((-30, -30), abs=0.05), "seeds move both alike"
    assert frame.loc[ALL, "ln", "eval"]["change_pp"] == pytest.approx(-12)
    assert frame.loc["shifted", "bn", "adapted"]["change_pp"] == pytest.approx(-2), "against clean in its own mode"
    assert ("shifted", "ln", "adapted") not in frame.index


def test_the_part_shows_it(corrupted: Path) -> None:
    part = robustness(answers(corrupted))
    table = part.tables[0]
    shown = dict(zip(table.headings, table.rows[1], strict=True))
    assert (shown["test images"], shown["setting"], shown["statistics"]) == ("shifted", "bn", "of these images")
    assert shown["against clean, pp"].startswith("−2.00")
    assert dict(zip(table.headings, table.rows[2], strict=True))["statistics"] == "–"
    assert "0.1, 0.2, 0.3, 0.4, 0.5" in table.note
    [picture] = part.pictures()
    figure = picture.draw(ImageSet(None, ()))
    assert figure is not None
    panels = [ax for ax in figure.axes if ax.get_visible()]
    assert len(panels) == 4
    heights = [line.get_ydata().tolist() for line in panels[2].lines]
    assert pytest.approx([95, 91, 87, 83, 79, 75]) in heights
    left, right = panels[3].get_xlim()
    assert left > right, "less contrast to the right"


def test_corrupted_accuracies_are_outcomes_like_any_other(corrupted: Path) -> None:
    pair = {"of": {"norm": "bn"}, "against": {"norm": "ln"}}
    claim = Claim(claim="c", source="s", measure="robust_acc", expect="lower", **pair)
    study = Study(question="?", primary="noised_acc", margin=1, claims=[claim])
    found = answers(corrupted, study)
    by = {each.kind: each for each in found.answers}
    assert by["effect"].estimate is not None
    assert 100 * by["effect"].estimate.value == pytest.approx(18)  # ln − bn
    assert by["effect"].decision.verdict == "better"
    assert by["claim"].about.words == "accuracy on corrupted images"
    assert by["claim"].decision.verdict == "worse"


def test_robust_needs_every_kind_and_old_runs_have_no_part(tmp_path: Path) -> None:
    corrupted_run(tmp_path, "ln", 0, ["shifted"])
    [cell] = answers(tmp_path).grouped.cells
    assert cell.mean("shifted_acc") == pytest.approx(0.948 - 0.12)
    assert cell.values("robust_acc") == {}
    assert list(dict.fromkeys(robustness_frame(answers(tmp_path))["kind"])) == ["shifted"]
    made_up(tmp_path / "other", "ln")
    part = robustness(answers(tmp_path / "other"))
    assert not any(table.cells for table in part.tables)
    assert not [*part.pictures()]


def test_classes_that_differ_stand_first(tmp_path: Path) -> None:
    """Ten images of each of ten classes: ln gets eight of class 3 wrong, everything else is right but for one image of
    class 0, by seed."""
    classes = (np.arange(100) * 7 + np.arange(100) // 10) % 10  # as they are made up
    zeros, threes = (np.flatnonzero(classes == known).tolist() for known in (0, 3))
    for seed in range(4):
        made_up(tmp_path, "bn", seed, test_acc=0.99, wrong=[zeros[seed]])
        made_up(tmp_path, "ln", seed, test_acc=0.91, wrong=[zeros[seed], *threes[:8]])
    frame = classes_frame(answers(tmp_path)).set_index(["class", "setting"])
    assert len(frame) == 20
    assert frame.loc[3, "ln"]["acc_mean"] == pytest.approx(0.2)
    assert frame.loc[0, "bn"]["acc_mean"] == pytest.approx(0.9)
    assert 0 < frame.loc[3, "ln"]["acc_low"] < 0.2 < frame.loc[3, "ln"]["acc_high"] < 1
    assert (frame["images"] == 10).all()
    assert frame.xs("ln", level="setting")["acc_mean"].mean() == pytest.approx(0.91)
    apart = apart_frame(answers(tmp_path))
    first = apart.iloc[0]
    assert (first["class"], first["best"], first["worst"]) == (3, "bn", "ln")
    assert first["difference_pp"] == pytest.approx(80)
    assert first["p_adjusted"] == pytest.approx(np.minimum(1, 10 * first["p"]), rel=1e-9)
    assert first["p"] < 0.05 < apart["p"].iloc[1:].min()


# Probes

BLOCKS = ["block1", "block2", "block3", "block4", "block5"]


def probed_run(folder: Path, norm: str, seed: int) -> None:
    made_up(folder, norm, seed)
    place = next(folder.glob(f"{norm}-*seed_{seed}"))
    layers = [(e, 4 * e, "layers", b, "relu_sd", 1 + seed + e) for e in range(3) for b in BLOCKS]
    quantities = {"loss": 2, "loss_min": 1, "loss_max": 4, "change_min": 1, "change_max": 3, "smoothness": 9}
    landscape = [(e / 2, 2 * e, "landscape", "", key, x + seed) for e in range(4) for key, x in quantities.items()]
    shift = [(e / 2, 2 * e, "shift", b, "cosine", 0.5) for e in range(4) for b in BLOCKS[1:]]
    write_probes(place, [*layers, *landscape, *shift])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two settings with probes and one without."""
    folder = tmp_path_factory.mktemp("logs") / "probed"
    for seed in (0, 1):
        for norm in ("bn", "ln"):
            probed_run(folder, norm, seed)
        made_up(folder, "gn", seed)
    return folder


def test_runs_are_gathered_by_setting(measured: Path, tmp_path: Path) -> None:
    """A seed that was measured at other steps leaves gaps."""
    bn, ln, gn = answers(measured).grouped.cells
    epochs, values = probed(ln, "layers")["block2", "relu_sd"]
    assert epochs.tolist() == [0, 1, 2]
    assert values.tolist() == [[1, 2, 3], [2, 3, 4]]
    assert probed(bn, "landscape")["", "smoothness"][1].tolist() == [[9] * 4, [10] * 4]
    assert probed(gn, "layers") == {}
    for seed in (0, 1):
        made_up(tmp_path, "bn", seed)
        rows = [(epoch, epoch, "layers", "block1", "dead", 0.5) for epoch in (seed, seed + 1)]
        write_probes(next(tmp_path.glob(f"*seed_{seed}")), rows)
    epochs, values = probed(answers(tmp_path).grouped.cells[0], "layers")["block1", "dead"]
    assert epochs.tolist() == [0, 1, 2]
    np.testing.assert_equal(values, [[0.5, 0.5, np.nan], [np.nan, 0.5, 0.5]])


def test_a_report_has_a_figure_of_each_probe_that_was_used(measured: Path, tmp_path: Path) -> None:
    part = probes(answers(measured))
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

    assert main([str(measured), "--out", str(tmp_path / "with")]) == 0
    page = (tmp_path / "with/report.html").read_text(encoding="utf-8")
    assert "Internal covariate shift as Santurkar et al. (2018) define it" in page
    assert (tmp_path / "with/figures/probe-bands.png").exists()
    for out, choice in {"with": [], "without": ["norm=gn"]}.items():
        assert main([str(measured), *choice, "--out", str(tmp_path / out), "--no-figures"]) == 0
        text = (tmp_path / out / "report.html").read_text(encoding="utf-8")
        assert ("Inside the network" in text) == (out == "with")


# Where batch norm's loss comes from: runs with the probe `statistics`

# batch size: accuracies with running averages, precise statistics, a test batch's own, a training batch's own
SIZES = {2: (0.90, 0.94, 0.80, 0.82), 8: (0.96, 0.97, 0.93, 0.94), 32: (0.985, 0.985, 0.98, 0.99)}


def decomposed(
    folder: Path, norm: str, seed: int, size: int, values: tuple[float, ...], *rows: tuple[Any, ...]
) -> None:
    """A run that is made up, with the accuracies of the probe and more of its rows."""
    record = made_up(folder, norm, seed, test_acc=values[0], images=1000, batch_size=size)
    scores = [(2, 9, "statistics", "", name, value) for name, value in zip(SCORES, values, strict=True)]
    write_probes(folder / Settings.model_validate(record.config).slug(), [*scores, *rows])


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    for seed, wobble in enumerate([0.0, 0.002, -0.002]):
        for size, values in SIZES.items():
            errors = [("error_mean", 1 / size), ("error_log_var", 2 / size)]
            rows = [(2, 9, "statistics", f"block{i}.norm", key, e + 0.01 * i) for key, e in errors for i in (1, 2)]
            own = tuple(value + wobble for value in values)
            decomposed(tmp_path, "bn", seed, size, own, *rows, (2, 9, "layers", "block1", "dead", 0.5))
        made_up(tmp_path, "gn", seed, test_acc=0.98, images=1000, batch_size=2)  # has nothing to average
    return tmp_path


def pictures(folder: Path) -> list[Picture]:
    return [*statistics(answers(folder)).pictures()]


def test_the_table_of_statistics(scored: Path) -> None:
    table = statistics_frame(answers(scored).grouped).set_index("batch_size")
    assert list(table.index) == [2, 8, 32]
    two = table.loc[2]
    assert two["n"] == 3
    assert two["test_running_acc_mean"] == pytest.approx(0.90)
    assert two["train_batch_acc_mean"] == pytest.approx(0.82)
    assert (two["recovered_pp"], two["lost_pp"], two["trained_pp"]) == pytest.approx((4, 8.5, 4.5))
    assert two["recovered_low"] == pytest.approx(4, abs=1e-4), "every seed wobbles alike: a paired difference does not"
    assert two["test_running_acc_low"] < 0.897
    assert two["block2_error_log_var"] == pytest.approx(1.02)
    assert table.loc[32, "lost_pp"] == table.loc[32, "recovered_pp"] == pytest.approx(0)


def test_figures_of_statistics_hold_the_points(scored: Path) -> None:
    figures = {picture.name: picture.draw(ImageSet(None, ())) for picture in pictures(scored)}
    assert list(figures) == ["statistics", "statistics-means", "statistics-variances"]
    lines = [line.get_xydata().tolist() for line in figures["statistics"].axes[0].lines]
    assert [[2, 10], [8, 4], [32, 1.5]] in [[[x, pytest.approx(y)] for x, y in line] for line in lines], "errors, %"
    lines = [line.get_xydata().tolist() for line in figures["statistics-variances"].axes[0].lines]
    expected = [[size, pytest.approx(2 / size + 0.01)] for size in SIZES]
    assert any(line == expected for line in lines)


def test_a_report_has_table_and_figures_of_statistics(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(scored), "--all"]) == 0
    assert "Which statistics" in capsys.readouterr().out
    assert (scored / "statistics.csv").read_text().count("\n") == 4
    assert (scored / "figures" / "statistics.svg").exists()
    assert "Which statistics" in (scored / "report.html").read_text()


def test_one_batch_size_is_no_curve_and_a_norm_that_averages_nothing_has_no_errors_to_draw(tmp_path: Path) -> None:
    for size in SIZES:
        decomposed(tmp_path / "gn", "gn", 0, size, (0.9,) * 4)
    assert [picture.name for picture in pictures(tmp_path / "gn")] == ["statistics"]
    assert (statistics_frame(answers(tmp_path / "gn").grouped)["recovered_pp"] == 0).all()
    decomposed(tmp_path / "bn", "bn", 0, 2, (0.9,) * 4)
    assert len(statistics_frame(answers(tmp_path / "bn").grouped)) == 1
    assert pictures(tmp_path / "bn") == []
