"""Several learning rates: the best by validation accuracy, the largest stable one, settings each at their own."""

from pathlib import Path

import pandas as pd
import pytest
from made_up_runs import answers, made_up, several

from normlab.analysis.cells import best
from normlab.analysis.parts import curves
from normlab.analysis.parts.claims import claims_frame
from normlab.analysis.parts.effects import questions_frame
from normlab.analysis.parts.rates import at_own_best, rates_frame
from normlab.report import main as report
from normlab.settings import Claim, Study

# norm: lr -> validation and test accuracy. The test accuracy of gn is highest where its validation accuracy is not.
TRUTH = {
    "bn": {0.01: (0.90, 0.91), 0.1: (0.97, 0.975), 1.0: (0.95, 0.96)},
    "gn": {0.01: (0.96, 0.955), 0.1: (0.95, 0.98), 1.0: (0.10, 0.10)},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, wobble in enumerate([0.001, -0.001, 0.0]):
        for norm, rates in TRUTH.items():
            for lr, (val, test) in rates.items():
                lost = norm == "bn" and lr == 1.0 and seed == 2
                made_up(
                    tmp_path, norm, seed, test_acc=test + wobble, val_acc=val, images=1000, lr=lr,
                    status="diverged" if lost else "completed",
                )  # fmt: skip
    return tmp_path


def test_the_table(folder: Path) -> None:
    table = rates_frame(answers(folder).grouped).set_index(["setting", "lr"])
    assert len(table) == 6
    assert table.loc[("bn", 1.0), "diverged"] == 1
    assert not table.loc[("bn", 1.0), "stable"]
    assert table.loc[("gn", 1.0), "chance"] == 3
    assert [index for index, best in table["best"].items() if best] == [("bn", 0.1), ("gn", 0.01)]
    assert table.loc[("gn", 0.1), "test_acc_mean"] == pytest.approx(0.98), "better on the test set, and not chosen"


def test_each_at_its_own(folder: Path) -> None:
    best = at_own_best(answers(folder))
    assert best is not None
    assert [cell.ended[0].config["lr"] for cell in best.cells] == [0.1, 0.01]
    [row] = questions_frame(best).to_dict("records")
    assert row["question"] == "gn − bn"
    assert row["difference_value"] == pytest.approx(-2)


def test_a_report_has_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report([str(folder), "--no-figures", "--all"]) == 0
    shown = capsys.readouterr().out
    assert "Learning rates" in shown
    assert "3 of 9" in shown, "runs of gn that never left chance"
    assert (folder / "rates.csv").read_text().count("\n") == 7
    assert (folder / "best.csv").read_text().count("\n") == 2


def test_a_study_that_tunes_compares_each_at_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Claims and effects are of the best rates, and the page says which; nothing is asked about a rate."""
    claim = Claim(claim="?", source="?", of={"norm": "gn"}, against={"norm": "bn"}, expect="lower")
    study = Study(question="?", margin=0.5, factors=["norm", "lr"], tune="lr", claims=[claim])
    found = answers(folder, study)
    assert [cell.label for cell in found.grouped.cells] == ["bn", "gn"]
    assert found.own == {"bn": "bn lr=0.1", "gn": "gn lr=0.01"}
    assert list(found.factors) == ["norm"]
    [row] = claims_frame(found).to_dict("records")
    assert (row["ruling"], row["difference_value"]) == ("supported", pytest.approx(-2))
    study.save(folder)
    assert report([str(folder), "--no-figures", "--all"]) == 0
    assert "its lr" in capsys.readouterr().out
    assert list(pd.read_csv(folder / "summary.csv")["lr"]) == [0.1, 0.01]
    assert len(pd.read_csv(folder / "rates.csv")) == 6
    assert not (folder / "best.csv").exists(), "it would say the same again"
    untuned = answers(folder, study.model_copy(update={"tune": ""}))
    assert untuned.grouped.cells[0].label == "bn lr=0.01"


@pytest.mark.parametrize(
    "by_rate",
    [
        # a study that ends by itself gives later seeds to the chosen rate: they change no choice
        {0.1: [0.9, 0.9, 0.1], 1.0: [0.8, 0.8]},
        # equal, however float32 rounds 0.993 + 0.992 and 0.992 + 0.993 (runs keep val_acc in it): the smaller
        {0.1: [0.99299997, 0.992], 1.0: [0.99199998, 0.9930001]},
    ],
    ids=["the seeds that all rates have", "of equal rates the smaller"],
)
def test_what_chooses_a_rate(tmp_path: Path, by_rate: dict[float, list[float]]) -> None:
    for lr, accs in by_rate.items():
        for seed, acc in enumerate(accs):
            made_up(tmp_path, "bn", seed, val_acc=acc, lr=lr)
    chosen = best(answers(tmp_path).grouped.cells)
    assert chosen is not None
    assert chosen.label == "bn lr=0.1"


def test_lost_runs_leave_a_median(tmp_path: Path) -> None:
    for lr in (0.01, 0.1, 1.0):
        for seed, acc in enumerate([0.97, 0.1, 0.99]):
            made_up(tmp_path, "bn", seed, test_acc=acc, val_acc=acc, lr=lr, images=1000)
    table = rates_frame(answers(tmp_path).grouped)
    assert table["test_acc_median"].tolist() == [0.97] * 3
    assert table["chance"].tolist() == [1] * 3
    [picture] = curves.factors(answers(tmp_path)).pictures()
    assert "the median where a run was lost" in picture.caption


def test_without_held_out_images_nothing_is_best(tmp_path: Path) -> None:
    several(tmp_path, seeds=1, images=1000, lr=[0.01, 0.1, 1.0])
    table = rates_frame(answers(tmp_path).grouped)
    assert not table["best"].any()
    assert table["stable"].all()
    assert at_own_best(answers(tmp_path)) is None


def test_two_rates_are_no_search(tmp_path: Path) -> None:
    several(tmp_path, seeds=1, val_acc=0.9, images=1000, lr=[0.01, 0.1])
    assert rates_frame(answers(tmp_path).grouped).empty
