"""The table at the end of a command: one row per setting where seeds repeat it, else one per run."""

from dataclasses import replace

import pytest

from normlab.record import Record
from normlab.settings.plan import Job, plan
from normlab.summary import show


def ended(job: Job, test_acc: float) -> Record:
    metrics, took = {"test_acc": test_acc, "test_ce": 0.5}, {"fit_s": 10.0, "images_per_s": 1000.0}
    return Record.of(job.settings, "completed", data={"name": "digits"}, metrics=metrics, time=took)


def shown(jobs: list[Job], records: list[Record | None], capsys: pytest.CaptureFixture[str]) -> list[str]:
    show(jobs, records, 0, sweep=len(jobs) > 1)
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_settings_are_summed_up_over_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = plan(["norm=bn,ln", "l1=0,0.1", "seed=0,1", "data=digits", "name=a"], multirun=True)
    records: list[Record | None] = [ended(job, acc) for job, acc in zip(jobs, [0.97, 0.99] * 4, strict=True)]
    records[-1] = replace(records[-2], status="failed", error="no memory")  # type: ignore[type-var]
    records[2] = None
    lines = shown(jobs, records, capsys)
    assert lines[:2] == ["Accuracy on digits", "setting n train % val % test % test ce seconds"]
    assert lines[2] == "bn l1=0.0 2 – – 98.00 ± 1.41 0.5000 ± 0.0000 10.0"
    assert lines[3] == "bn l1=0.1 1 – – 99.00 0.5000 10.0"
    assert lines[5] == "ln l1=0.1 1 – – 97.00 0.5000 10.0"
    assert lines[6:8] == [
        "ln l1=0.1 seed=1 failed: no memory",
        "8 runs: 6 completed, 1 failed, 1 no result",
    ]
    assert lines[-3:] == [
        "Files: lightning_logs/a",
        "TensorBoard: tensorboard --logdir lightning_logs/a",
        "Report: python -m normlab.report lightning_logs/a",
    ]


def test_runs_of_one_seed_have_a_row_each(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = plan(["norm=bn,ln", "data=digits", "name=a"], multirun=True)
    lines = shown(jobs, [ended(job, 0.5) for job in jobs], capsys)
    assert lines[2:4] == [f"{norm} completed – – 50.00 0.5000 10.0 1,000" for norm in ("bn", "ln")]


def test_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    (job,) = plan(["norm=gn", "data=digits"], multirun=False)
    lines = shown([job], [ended(job, 0.5)], capsys)
    assert lines[2].startswith("gn completed")
    assert lines[-2:] == [
        "Files: lightning_logs/runs/gn-digits-seed_0",
        "TensorBoard: tensorboard --logdir lightning_logs",
    ]
