"""The benchmark measures what it says: the same network in every arm, the right rate, the right ratios."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.clock import BATCH, WARM_UP, rate, read
from benchmarks.machine import flops_per_image
from benchmarks.plain import PlainNet
from benchmarks.results import Measurement, cells, summarise
from benchmarks.samples import cut, write_as_mnist
from benchmarks.throughput import ArmError, main, together
from normlab.data.sources import load
from normlab.nets import Net

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["bn", "ln", "gn"])
def test_plain_network_is_ours(norm: str, training: bool) -> None:
    ours, plain = Net(norm).train(training), PlainNet(norm).train(training)
    assert sum(p.numel() for p in plain.parameters()) == 7614
    plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.rand(8, 1, 28, 28)
    torch.testing.assert_close(plain(images), ours(images))


def test_dropout_sits_where_ours_does() -> None:
    kinds = [
        [type(m) for m in net.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Dropout))]
        for net in (Net("bn", 0.1), PlainNet("bn", 0.1))
    ]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("norm", ["bn", "ln", "gn"])
def test_flops_by_hand(norm: str) -> None:
    first = 90 * 26**2
    others = 1800 * 24**2 + 200 * 24**2 + 1800 * 10**2 + 2160 * 8**2 + 1296 * 6**2 + 120
    assert flops_per_image(norm) == 2 * (2 * first + 3 * others)  # the first layer has no gradient of its input


def test_rate_of_one_process() -> None:
    slow_start = [float(step**2) for step in range(WARM_UP)]
    steps = slow_start + [slow_start[-1] + 0.5 * step for step in range(1, 31)]
    assert rate([steps]) == pytest.approx(BATCH / 0.5)


def test_rate_of_two_is_the_sum_while_both_train() -> None:
    first = [0.1 * step for step in range(100)]
    second = [2.03 + 0.2 * step for step in range(50)]
    assert rate([first, second]) == pytest.approx(BATCH / 0.1 + BATCH / 0.2)


def test_rate_refuses_processes_one_after_the_other() -> None:
    first = [0.1 * step for step in range(100)]
    with pytest.raises(ValueError, match="same time"):
        rate([first, [step + 8 for step in first]])


def test_steps_are_found_in_what_an_arm_prints() -> None:
    assert read('Epoch 0: 100 %\n\n{"steps": [1.0, 2.5]}\nwarning\n') == [1.0, 2.5]
    with pytest.raises(ValueError, match="no steps"):
        read("Epoch 0\n")


def test_medians_and_ratios() -> None:
    rates = {"R0": [1000.0, 2000.0, 1500.0], "R1": [3000.0, 4200.0, 3300.0], "R2": [4800.0, 4000.0, 4500.0]}
    measured = [
        Measurement(repetition, "gn", arm, 0, value, 5.0 + repetition)
        for arm, values in rates.items()
        for repetition, value in enumerate(values, start=1)
    ]
    trial = Measurement(0, "gn", "R0", 1, 1e6, 99.0)
    rows = {row.arm: row for row in summarise([trial, *reversed(measured)], {"gn": 1e7}, peak=1e11)}
    assert list(rows) == ["R0", "R1", "R2"]
    assert rows["R0"][2:6] == (1500, (1000, 2000), 1, (1, 1))
    assert rows["R1"][2:6] == (3300, (3000, 4200), pytest.approx(2.2), pytest.approx((2.1, 3.0)))
    assert rows["R2"].ratio == 3
    assert rows["R2"].ratio_span == (2, pytest.approx(4.8))
    assert rows["R1"].share == pytest.approx(0.33)
    assert rows["R1"].startup_s == 7
    assert [cells(row, judged=True)[6] for row in rows.values()] == ["", "≥ 2: met", "≥ 3.2: missed"]
    assert [cells(row, judged=False)[6] for row in rows.values()] == ["", "≥ 2", "≥ 3.2"]


def test_torchvision_reads_what_we_write(tmp_path: Path) -> None:
    from torchvision.datasets import MNIST

    images = cut(load("digits"), 1400, 1000)  # more than the set has: it starts again
    write_as_mnist(images, tmp_path)
    for train, pixels, labels in (
        (True, images.train_images, images.train_labels),
        (False, images.test_images, images.test_labels),
    ):
        found = MNIST(str(tmp_path), train=train)
        assert torch.equal(found.data, torch.from_numpy(pixels))
        assert torch.equal(found.targets, torch.from_numpy(labels).long())
    assert (images.train_images[1297] == images.train_images[0]).all()


def test_a_failing_arm_shows_what_it_said() -> None:
    with pytest.raises(ArmError, match=r"No module named(?s:.*)exit code 1"):
        together([["benchmarks.nowhere"]])


@pytest.mark.slow
def test_whole_benchmark(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.throughput", "--data", "digits", "--quick", "--norms", "gn", "--out"]
    done = subprocess.run([*command, str(tmp_path)], cwd=REPOSITORY, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "R2 two normlab runs, one thread each" in done.stdout
    lines = (tmp_path / "throughput.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 + 3  # heading, a trial for each number of workers, one repetition of three arms
    table = [line for line in (tmp_path / "throughput.md").read_text().splitlines() if line.startswith("| gn")]
    assert len(table) == 3


def test_missing_mnist_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from normlab.data import sources
    from normlab.data.fetch import FetchError

    def unreachable(*_: object) -> None:
        raise FetchError("no network")

    monkeypatch.delenv("NORMLAB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sources, "fetch", unreachable)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    assert main(["--quick"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "MNIST is not on this machine" in error
