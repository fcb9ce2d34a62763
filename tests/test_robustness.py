"""The report's parts on corrupted images and on classes, from files that were written."""

from pathlib import Path

import numpy as np
import pytest
from made_up_runs import answers, made_up

from normlab.analysis.part import ImageSet
from normlab.analysis.parts.classes import apart_frame, classes_frame
from normlab.analysis.parts.robustness import ALL, robustness, robustness_frame
from normlab.record import Robustness, write_robustness
from normlab.settings import Claim, Settings, Study
from normlab.settings.corruptions import CORRUPTIONS, STRENGTHS

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
def folder(tmp_path: Path) -> Path:
    for norm in LOST:
        for seed in range(3):
            corrupted_run(tmp_path, norm, seed, list(CORRUPTIONS))
    return tmp_path


def test_the_table(folder: Path) -> None:
    frame = robustness_frame(answers(folder)).set_index(["kind", "setting", "mode"])
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


def test_the_part_shows_it(folder: Path) -> None:
    part = robustness(answers(folder))
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


def test_corrupted_accuracies_are_outcomes_like_any_other(folder: Path) -> None:
    pair = {"of": {"norm": "bn"}, "against": {"norm": "ln"}}
    claim = Claim(claim="c", source="s", measure="robust_acc", expect="lower", **pair)
    study = Study(question="?", primary="noised_acc", margin=1, claims=[claim])
    found = answers(folder, study)
    by = {each.kind: each for each in found.answers}
    assert by["effect"].estimate is not None
    assert 100 * by["effect"].estimate.value == pytest.approx(18)  # ln − bn
    assert by["effect"].decision.verdict == "better"
    assert by["claim"].about.words == "accuracy on corrupted images"
    assert by["claim"].decision.verdict == "worse"


def test_robust_needs_every_kind_and_old_runs_have_no_part(tmp_path: Path) -> None:
    corrupted_run(tmp_path, "ln", 0, ["shifted"])
    [cell] = answers(tmp_path).found.cells
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
    apart = apart_frame(answers(tmp_path))
    first = apart.iloc[0]
    assert (first["class"], first["best"], first["worst"]) == (3, "bn", "ln")
    assert first["difference_pp"] == pytest.approx(80)
    assert first["p_adjusted"] == pytest.approx(np.minimum(1, 10 * first["p"]), rel=1e-9)
    assert first["p"] < 0.05 < apart["p"].iloc[1:].min()
