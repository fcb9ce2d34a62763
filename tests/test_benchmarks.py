"""The benchmark measures what it says: the same network in every arm, the right rate, the right ratios."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import libcst
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY
from made_up_runs import made_up
from torch import nn

from benchmarks import kills, mutants, scale, soak, step, study_results
from benchmarks.arms import ArmError, together
from benchmarks.clock import BATCH, MEETING, WARM_UP, Steps, rate, read
from benchmarks.hfta import fused
from benchmarks.machine import bytes_per_image, flops_per_image
from benchmarks.plain import PlainNet
from benchmarks.samples import cut, write_as_mnist
from benchmarks.study import main
from benchmarks.study_results import Machine, in_short, page, rows
from normlab.data.sources import load
from normlab.nets import Net
from normlab.settings.plan import load as load_settings

DOCS = REPOSITORY / "docs"
STUDY = pd.read_csv(DOCS / "study.csv")


@pytest.mark.parametrize("norm", ["bn", "ln", "gn"])
def test_every_arm_has_our_network(norm: str) -> None:
    """The plain one, in train and in eval mode, with dropout in the same places, and three fused the usual way."""
    nets, plain, whole = [Net(norm) for _ in range(3)], PlainNet(norm), fused(3, norm)
    assert sum(p.numel() for p in plain.parameters()) == 7614
    plain.load_state_dict(dict(zip(plain.state_dict(), nets[0].state_dict().values(), strict=True)))
    names = [name for name, _ in nets[0].named_parameters()]
    for parameter, name in zip(whole.parameters(), names, strict=True):
        parameter.data = torch.cat([net.state_dict()[name] for net in nets])
    images = torch.rand(4, 3, 28, 28)
    for training in (False, True):
        torch.testing.assert_close(plain.train(training)(images[:, :1]), nets[0].train(training)(images[:, :1]))
    for index, scores in enumerate(whole(images).view(4, 3, 10).unbind(1)):
        torch.testing.assert_close(scores.log_softmax(1), nets[index](images[:, index : index + 1]))
    both = [[*net.modules()] for net in (Net(norm, 0.1), PlainNet(norm, 0.1))]
    kinds = [[isinstance(m, nn.Dropout) for m in some if isinstance(m, (nn.Conv2d, nn.Dropout))] for some in both]
    assert kinds[0] == kinds[1]


def test_what_is_decorated_can_be_changed(tmp_path: Path) -> None:
    """With its decorators below it, all but those that mutmut knows, it does the same."""
    text = """
from functools import cache, cached_property
class Kept:
    @cached_property
    def value(self):
        return [1]
    @staticmethod
    def same(x):
        return x
def doubled(by):
    return lambda f: lambda x: by * f(x)
@cache
@doubled(3)
def plus(x):
    return [x + 1]
"""
    changed = libcst.parse_module(text).visit(mutants.Undecorated()).code
    assert changed.count("@") == 1
    assert "plus = cache(doubled(3)(plus))" in changed
    names: dict[str, Any] = {}
    exec(changed, names)
    kept = names["Kept"]()
    assert kept.value is kept.value
    assert names["plus"](1) == [2, 2, 2]
    assert names["plus"](1) is names["plus"](1)


@pytest.mark.parametrize("code", [0, 5, 33, None])
def test_mutants_that_no_test_noticed_need_a_reason(tmp_path: Path, code: int | None) -> None:
    folder = tmp_path / "mutants/normlab"
    folder.mkdir(parents=True)
    versions = {"orig": "a + b", "1": "a - b", "2": "a * b"}
    written = [f"def x_total__mutmut_{key}(a, b):\n    return {line}" for key, line in versions.items()]
    (folder / "sums.py").write_text("\n".join(written))
    names = {"normlab.sums.x_total__mutmut_1": 1, "normlab.sums.x_total__mutmut_2": code}
    (folder / "sums.py.meta").write_text(json.dumps({"exit_code_by_key": names}))
    codes = mutants.exit_codes(folder.parent)
    left = [*mutants.survivors(folder.parent, codes)]
    assert left == [("normlab/sums.py", "total", "return a + b", "return a * b")]
    many = codes | {f"normlab.sums.x_other__mutmut_{at}": 1 for at in range(98)}
    assert mutants.write(tmp_path, many, left, 60) == 1, "no reason"
    file = tmp_path / "mutants.csv"
    file.write_text(file.read_text().replace("return a * b,", 'return a * b,"b is 1, a 0"'))
    assert mutants.write(tmp_path, many, left, 60) == 0
    assert file.read_text().splitlines()[1] == 'normlab/sums.py,total,return a + b,return a * b,"b is 1, a 0"'
    assert "| normlab/sums.py | 100 | 99 | 1 |" in (tmp_path / "mutants.md").read_text()
    assert mutants.write(tmp_path, codes, left, 60) == 1, "half of them"


@pytest.mark.parametrize("norm", ["bn", "ln", "gn"])
def test_flops_by_hand(norm: str) -> None:
    first = 90 * 26**2
    others = 1800 * 24**2 + 200 * 24**2 + 1800 * 10**2 + 2160 * 8**2 + 1296 * 6**2 + 120
    assert flops_per_image(norm) == 2 * (2 * first + 3 * others)  # the first layer has no gradient of its input


def test_bytes_by_hand() -> None:
    """Without a norm: every map is written once and read by what follows, there and back."""
    maps = [784, 6760, 6760, 11520, 11520, 5760, 1440]  # input, conv and ReLU of blocks 1 and 2, 1x1, pool
    assert 4 * 3 * sum(maps) < bytes_per_image("none") < 4 * 8 * sum(maps)
    assert bytes_per_image("gn") > bytes_per_image("none")


def test_rate_of_one_process_and_of_two() -> None:
    slow_start = [float(step**2) for step in range(WARM_UP)]
    steps = slow_start + [slow_start[-1] + 0.5 * step for step in range(1, 31)]
    assert rate([Steps(steps)]) == pytest.approx(BATCH / 0.5)
    assert rate([Steps(steps, 24)]) == pytest.approx(24 / 0.5)
    first = [0.1 * step for step in range(100)]
    second = [2.03 + 0.2 * step for step in range(50)]
    assert rate([Steps(first), Steps(second)]) == pytest.approx(BATCH / 0.1 + BATCH / 0.2)
    with pytest.raises(ValueError, match="same time"):
        rate([Steps(first), Steps([step + 8 for step in first])])


def test_torchvision_reads_what_we_write(tmp_path: Path) -> None:
    from torchvision.datasets import MNIST

    images = cut(load("digits"), 1400, 1000)  # more than the set has: it starts again
    write_as_mnist(images, tmp_path)
    for part in ("train", "test"):
        found = MNIST(str(tmp_path), train=part == "train")
        assert torch.equal(found.data, torch.from_numpy(getattr(images, f"{part}_images")))
        assert torch.equal(found.targets, torch.from_numpy(getattr(images, f"{part}_labels")).long())
    assert (images.train_images[1297] == images.train_images[0]).all()


def test_a_failing_arm_stops_the_others_and_shows_what_it_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArmError, match=r"^`python -m benchmarks\.nowhere` failed with exit code 1, see above$"):
        together([["http.server", "0", "--bind", "127.0.0.1"], ["benchmarks.nowhere"]])
    assert "No module named benchmarks.nowhere" in capsys.readouterr().err


def test_arms_of_two_processes_are_measured_together() -> None:
    words = "--norm gn --batch 32 --accelerator cpu --data digits --images 6400 --training-only --threads 1"
    images_per_s, startup = together([["benchmarks.ours", *words.split()]] * 2)
    assert images_per_s > 0
    assert startup > 0


def test_processes_meet_after_their_warm_up(tmp_path: Path) -> None:
    """One that starts two seconds late is waited for."""
    code = (
        "import sys, time; from benchmarks.clock import Clock; clock = Clock(); time.sleep(float(sys.argv[1])); "
        "[(time.sleep(0.001), clock._note()) for _ in range(15)]; clock.print()"
    )
    how = {"cwd": REPOSITORY, "env": os.environ | {MEETING: f"2 {tmp_path / 'meeting'}"}, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen([sys.executable, "-c", code, late], text=True, **how) for late in ("0", "2")]
    first, second = (read(process.communicate(timeout=60)[0]).ends for process in processes)
    assert second[0] - first[0] > 0.5, "they started together: the test says nothing"
    assert abs(first[WARM_UP - 1] - second[WARM_UP - 1]) < 0.4
    assert first[WARM_UP - 1] > second[WARM_UP - 2]


def test_missing_mnist_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused) -> None:
    import torchvision

    monkeypatch.delenv("NORMLAB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    assert "MNIST is not on this machine" in refused(main, ["--quick", "--device", "cpu"])


def machine(**changes: object) -> Machine:
    values = {
        "name": "a processor", "cores": 2, "peak": 1e11, "bandwidth": 1e10, "flops": {"gn": 1e7}, "bytes": {"gn": 1e6},
        "load": 0.0, "versions": "torch 2", "command": "python -m benchmarks.study", "device": "cpu",
    }  # fmt: skip
    return Machine(**values | changes)  # type: ignore[arg-type]


def measured(arm: str, batch: int, networks: int, processes: int, *rates: float) -> list[tuple[object, ...]]:
    """Rows of study.csv, one per repetition."""
    return [(i, "gn", batch, arm, networks, processes, r, 6.0) for i, r in enumerate(rates, start=1)]


def frame(*of: list[tuple[object, ...]]) -> pd.DataFrame:
    return pd.DataFrame([row for each in of for row in each], columns=STUDY.columns)


def test_rows_of_a_study() -> None:
    found = frame(
        measured("R4", 8, 24, 2, 6000, 5000, 7000),
        measured("R0", 8, 1, 1, 1000, 1100, 1200),
        measured("R1", 8, 1, 1, 2000, 2200, 2100),
        measured("R4", 2, 24, 2, 3000),
    )
    table = rows(found, machine())
    assert [*zip(table["batch"], table["arm"], strict=True)] == [(2, "R4"), (8, "R0"), (8, "R1"), (8, "R4")]
    alone, array = table.iloc[0], table.iloc[-1]
    assert (array["rate"], array["low"], array["high"]) == (6000, 5000, 7000)
    assert (array["by_R0"], array["by_R1"]) == (pytest.approx(6000 / 1100), pytest.approx(6000 / 2100))
    assert alone[["by_R0", "by_R1"]].isna().all(), "nothing to compare with at that batch size"
    assert array["warm"] == pytest.approx(360)  # 6,000 images/s are 0.1 epochs/s of 60,000 images
    images = 2 * 24 * 12 * 60_000
    assert array["cold"] == pytest.approx(3600 * 2 * 24 * 12 / (6 + images / 6000))
    assert array["fma"] == pytest.approx(6000 * 1e7 / 1e11)
    assert array["memory"] == pytest.approx(6000 * 1e6 / 1e10)
    lines = page(table, machine(load=2.0)).splitlines()
    assert len([line for line in lines if line.startswith("| gn")]) == 4
    assert any("not idle" in line for line in lines)


def test_figures_of_a_study_hold_its_points() -> None:
    alone = [measured(arm, b, 1, 1, 100.0 * b) for arm in ("R0", "R1", "R2") for b in (2, 8, 128)]
    arrays = [measured(arm, b, n, 2, 50.0 * b * n) for arm in ("H", "R4") for n in (1, 4, 16) for b in (2, 8)]
    table = rows(frame(*alone, *arrays), machine())
    by_batch, by_size = study_results.by_batch(table, machine()), study_results.by_size(table, machine())
    lines = {line.get_label(): line.get_xydata().tolist() for line in by_batch.axes[0].lines}
    assert lines["plain Lightning script"] == [[2, 12], [8, 48], [128, 768]]
    assert lines["normlab array"] == [[2, 96], [8, 384]], "the fastest size of each"
    sizes = {line.get_label(): line.get_xydata().tolist() for line in by_size.axes[0].lines}
    assert sizes["normlab array, batch 8"] == [[1, 24], [4, 96], [16, 384]]
    assert len(sizes) == 4
    names = [name for name, content in study_results.figures(table, machine()) if content]
    assert names == ["study-batch.png", "study-batch.svg", "study-array.png", "study-array.svg"]


def test_the_cost_model_finds_what_points_were_made_of() -> None:
    a, b, c = 0.004, 0.0003, 0.0002
    sizes = [(2, 1), (2, 24), (2, 256), (8, 24), (128, 4), (512, 1)]
    arrays = [measured("R4", batch, n, 2, 2 * batch * n / (a + c * n + b * n * batch)) for batch, n in sizes]
    found = frame(*arrays, *(measured("R1", batch, 1, 1, batch / (a + b * batch)) for batch in (2, 32, 512)))
    assert scale.fit(scale.points(found, "R4")) == pytest.approx((a, b, c))
    assert scale.fit(scale.points(found, "R1")) == pytest.approx((a, b, 0))
    ends = [line.split(" | ")[-1] for line in scale.table(found).splitlines() if "| R" in line]
    assert len(ends) == 9
    assert {*ends} <= {"+0 % |", "−0 % |"}


def test_the_document_has_the_tables_of_the_benchmark() -> None:
    """docs/scale.md, docs/study.md and docs/speed.md say what docs/study.csv and docs/step.csv hold."""
    docs = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("scale", "study", "speed")}
    for part in scale.table(STUDY).split("\n\n"):
        assert part in docs["scale"]
    assert step.table(pd.read_csv(DOCS / "step.csv")) in docs["scale"]
    needs = dict.fromkeys(STUDY["norm"], 1.0)
    table = rows(STUDY, machine(flops=needs, bytes=needs))
    said = [line.split(" | ") for line in docs["study"].splitlines() if line.startswith("| ")][2:]
    assert len(said) == len(table)
    for cells_of, (_, row) in zip(said, table.iterrows(), strict=True):
        assert cells_of[1:6] == [*study_results.text(row)[1:6]], row
    assert in_short(table) in docs["speed"]


def test_what_kills_leave_is_compared(tmp_path: Path) -> None:
    """With a study that nobody disturbed: a run that is missing, tables that differ, a result written again."""
    studies = kills.Studies(tmp_path)
    for number in (-1, 0):
        for norm, accs in {"bn": [0.9, 0.91, 0.92], "gn": [0.8, 0.82, 0.81]}.items():
            for seed, acc in enumerate(accs):
                made_up(studies.folder(number), norm, seed, test_acc=acc)
    assert studies.look(0) == 6
    quiet = studies.folder(-1)
    assert kills.faults(studies, quiet) == []
    changed = studies.folder(0) / "bn-digits-seed_1/result.json"
    changed.write_text(changed.read_text().replace("0.91", "0.93"))
    *tables, again = kills.faults(studies, quiet)
    assert tables[:2] == ["study 0: summary.csv differs", "study 0: effects.csv differs"]
    assert again == f"{changed}: written again"
    changed.write_bytes(studies.stood[changed])
    lost = studies.folder(0) / "bn-digits-seed_2"
    del studies.stood[lost / "result.json"]
    shutil.rmtree(lost)
    assert kills.faults(studies, quiet)[0] == "study 0: 5 runs (completed), not 6"


def test_a_soak_of_made_up_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(runs: int, place: Path, launcher: str) -> list[soak.Look]:
        for seed in range(runs):
            record = made_up(place / "soak", seed=seed)
            record.time["measure_s"] = 2.0
            ended = place / "soak" / f"bn-digits-seed_{seed}"
            record.save(ended)
            os.utime(ended / "result.json", (seed, seed))
        return [soak.Look(done, 1000.0, 50 + done) for done in range(1, runs + 1)]

    monkeypatch.setattr(soak, "watch", watch)
    monkeypatch.setattr(soak, "report_s", lambda folder, *_: float(len(list(folder.iterdir()))))
    soak.main(["--runs", "8", "--out", str(tmp_path)])
    text = (tmp_path / "soak.md").read_text(encoding="utf-8")
    assert "| open files of all processes | 51.5 | 57.5 | +11.7 % |" in text
    assert "| seconds per run | 14.5 | 14.5 | +0.0 % |" in text
    assert "| seconds from one result to the next | 1 | 1 | +0.0 % |" in text
    assert "8 runs ended, all\ncompleted" in text
    assert "The report of them took 8.0 s" in text


def test_what_a_gpu_is_asked_can_be_asked(tmp_path: Path) -> None:
    """The tests are there, the commands take their words, all within ten minutes; without a GPU it is one line."""
    script = REPOSITORY / "benchmarks" / "gpu.sh"
    parts = [line.partition("part ")[2].split() for line in script.read_text().splitlines() if "part " in line]
    seconds, [tests, study, two] = zip(*((int(part[0]), part[1:]) for part in parts if part[0].isdigit()), strict=True)
    assert sum(seconds) + 10 * len(seconds) <= 600
    assert all((REPOSITORY / word).is_file() for word in tests[2:])
    with pytest.raises(SystemExit) as ended:
        main([word.strip('"').replace("${DATA:-digits}", "digits") for word in study[1:]] + ["--help"])
    assert ended.value.code == 0
    settings = load_settings(*(word.strip('"') for word in two[1:]))
    assert (settings.devices, settings.accelerator) == (2, "gpu")
    if not torch.cuda.is_available():
        done = subprocess.run([script, tmp_path], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (2, "torch finds no GPU here\n")


@pytest.mark.slow
def test_whole_study_benchmark(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.study", "--data", "digits", "--quick", "--device", "cpu", "--out"]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # one process per arm: several may hardly overlap on a busy machine
    done = subprocess.run([*command, str(tmp_path)], cwd=REPOSITORY, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "R4 normlab array" in done.stdout
    assert len((tmp_path / "study.csv").read_text().splitlines()) == 1 + 6
    assert (tmp_path / "study-batch.png").stat().st_size > 5000
