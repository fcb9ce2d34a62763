"""Probes in a run and on its checkpoint: they change nothing, they measure the step that is taken, they are found."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from normlab import probe, train
from normlab.data.augment import rotate_and_shift
from normlab.data.datamodule import ImageData, epoch_draws, epoch_order
from normlab.kernels import Kernel
from normlab.nets.folded import Stack
from normlab.probes.gradients import StepLoss, along_gradient, covariate_shift, gradient
from normlab.probes.layers import convolutions, parameters
from normlab.randomness import Stream, stream_seed
from normlab.record import ProbeRow, Record, RecordError, read_probes, write_probes
from normlab.settings import Settings
from normlab.settings.arrays import arrays, why_not_array
from normlab.settings.plan import load
from normlab.training import run
from normlab.training.build import initial_model, unfoldable

ALL = "probes=[layers,landscape,shift]"
SHORT = ["data=digits", "train_size=120", "batch_size=30", "epochs=2", "threads=1", "dropout=0.2"]  # 8 steps
PLAIN = ["schedule=constant", "optimizer.momentum=0", "gradient_clip=null", "lr=0.05"]  # W(t+1) = W(t) - lr·g


@pytest.fixture(scope="module", params=["auto", "torch"])
def measured(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Settings, Path]:
    """A run with all probes, which tests read and never change."""
    settings = load(*SHORT, *PLAIN, "norm=bn", ALL, f"kernels={request.param}")
    folder = tmp_path_factory.mktemp("probed") / "bn"
    assert run(settings, folder).status == "completed"
    return settings, folder


def values(rows: list[ProbeRow], name: str, step: int) -> dict[tuple[str, str], float]:
    return {(layer, what): value for _, at, which, layer, what, value in rows if (which, at) == (name, step)}


@pytest.mark.parametrize(
    "overrides",
    [["norm=bn", *PLAIN], ["norm=brn", "norm.begin=0", "norm.r_end=3", "norm.d_end=3", "l1=1e-3"]],
    ids=["bn", "brn, one cycle, momentum, clipped, penalised"],
)
def test_a_run_ends_in_the_same_bits_with_and_without(tmp_path: Path, measured, overrides: list[str], undrawn) -> None:
    overrides = [*overrides, f"kernels={measured[0].kernels}"]
    without = run(load(*SHORT, *overrides), tmp_path / "without")
    folder = measured[1] if overrides[0] == "norm=bn" else tmp_path / "with"
    record = run(load(*SHORT, *overrides, ALL), folder)
    assert record.config_hash == without.config_hash
    assert record.metrics == without.metrics
    assert not (tmp_path / "without/probes.csv").exists()
    assert (folder / "probes.csv").exists()
    one, other = (torch.load(each / "last.ckpt", weights_only=True) for each in (folder, tmp_path / "without"))
    torch.testing.assert_close(one["state_dict"], other["state_dict"], rtol=0, atol=0)
    states = [each["optimizer_states"][0]["state"].values() for each in (one, other)]
    for m, n in zip(*([state["momentum_buffer"] for state in each] for each in states), strict=True):
        assert m is n is None or torch.equal(m, n)
    files = [each / "predictions.npz" for each in (folder, tmp_path / "without")]
    assert files[0].read_bytes() == files[1].read_bytes()


def first_step(settings: Settings) -> StepLoss:
    """The first training step's loss: its images augmented, its dropout, the initial network. Written out by hand."""
    data, model = ImageData.of(settings), initial_model(settings)
    data.setup()
    where = data.train.where[epoch_order(120, settings.seed, 0)[:30]]
    draws = epoch_draws(120, settings.seed, 0)[:30]
    pixels = rotate_and_shift(data.train.pool[0][where].float() / 255, draws, rotation=7, shift=2)
    seed = stream_seed(Stream.DROPOUT, settings.seed, 0)
    torch.manual_seed(seed)
    loss = StepLoss(model.net, (pixels - data.mean) / data.std, data.train.pool[1][where])
    if settings.kernels == "auto":  # they have masks of their own
        kernel = Kernel([model.net], Stack([model.net]), torch.zeros(1), torch.ones(1), [settings.dropout])
        for name, mask in kernel.masks(0, 30, seed=seed, step=0).items():
            loss.net.get_submodule(name).mask = mask
    return loss


def test_what_is_measured_is_the_step_that_is_taken(measured: tuple[Settings, Path]) -> None:
    settings, folder = measured
    loss, rows = first_step(settings), read_probes(folder)
    expected = along_gradient(loss, loss.weights, [0.025, 0.05, 0.1, 0.2])  # ½, 1, 2 and 4 times lr
    found = values(rows, "landscape", 0)
    assert found == {("", what): pytest.approx(value, rel=1e-5) for what, value in expected.items()}
    _, g = gradient(loss, loss.weights)
    after = {name: weight - settings.lr * g[name] for name, weight in loss.weights.items()}
    of = {layer: [name] for layer, name in convolutions(loss.net).items()}
    shift = covariate_shift(loss, loss.weights, after, parameters(loss.net), of)
    found = values(rows, "shift", 0)
    layers = ["block2", "squeeze", "block3", "block4", "block5", "head"]
    assert list(dict.fromkeys(layer for layer, _ in found)) == list(shift) == layers
    for layer, each in shift.items():
        assert found[layer, "l2"] == pytest.approx(each["l2"], rel=1e-3)
        assert found[layer, "cosine"] == pytest.approx(each["cosine"], rel=1e-4)
        assert found[layer, "gradient_norm"] == pytest.approx(each["gradient_norm"], rel=1e-4)
    assert found["block5", "l2"] > 0.01


def test_when_a_run_is_measured(measured: tuple[Settings, Path]) -> None:
    rows = read_probes(measured[1])
    assert {row[:2] for row in rows if row[2] == "layers"} == {(0, 0), (1, 4), (2, 8)}
    for name in ("landscape", "shift"):
        assert {row[:2] for row in rows if row[2] == name} == {(step / 4, step) for step in range(8)}


def test_tensorboard_draws_what_the_table_holds(measured: tuple[Settings, Path]) -> None:
    rows = read_probes(measured[1])
    events = EventAccumulator(str(measured[1]), {"scalars": 0, "tensors": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("probe.")]
    assert {tag.partition("/")[0] for tag in tags} == {"probe.layers", "probe.landscape", "probe.shift"}
    curve = [(event.step, event.value) for event in events.Scalars("probe.layers/gamma_mean.block3")]
    expected = [(row[0], row[5]) for row in rows if row[3:5] == ("block3", "gamma_mean")]
    assert curve == [(epoch, pytest.approx(value)) for epoch, value in expected]
    smooth = [event.step for event in events.Scalars("probe.landscape/smoothness")]
    assert smooth == list(range(8))
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    pages = {page.title: page.chart for page in layout.category}
    assert [title for title in pages if "Probe" in title] == ["Probe: layers", "Probe: landscape", "Probe: shift"]
    for charts in (pages["Probe: layers"], pages["Probe: landscape"], pages["Probe: shift"]):
        for chart in charts:
            (pattern,) = chart.multiline.tag
            many = sum(bool(re.search(pattern, tag)) for tag in tags)
            assert many in ((3, 2, 1) if "loss" in pattern else (1, 2, 5, 6, 7))


class TestSettings:
    def test_what_is_measured_and_shown_is_no_part_of_the_question(self) -> None:
        one, other = load("norm=ln"), load("norm=ln", ALL, "evaluate=[noised]", "logger=[csv,tensorboard]")
        assert one != other
        assert (one.config_hash(), one.slug(), one.setting()) == (other.config_hash(), other.slug(), other.setting())

    def test_a_run_with_probes_trains_by_itself(self) -> None:
        settings = [load("norm=gn", ALL, f"seed={seed}") for seed in (0, 1)]
        reason = why_not_array(settings[0])
        assert reason is not None
        assert "probes=[layers,landscape,shift]" in reason
        assert arrays(settings, 9) == ([], {0: reason, 1: reason})
        assert unfoldable(settings[0]) == reason  # so that on a GPU it takes Lightning's loop

    def test_a_finished_run_is_not_trained_again_and_that_is_told(self, tmp_path: Path, capsys) -> None:
        words = ["data=digits", "norm=ln", f"log_dir={tmp_path}", "probes=[layers]"]
        settings, folder = load(*words), tmp_path / "runs" / load(*words).slug()
        folder.mkdir(parents=True)
        Record.of(settings, "completed").save(folder)
        assert train.main(words) == 0
        told = capsys.readouterr().err
        assert "finished without these probes" in told
        assert f"python -m normlab.probe {folder}" in told
        write_probes(folder, [(0, 0, "layers", "block1", "dead", 0.0)])
        assert train.main(words) == 0
        assert "probes" not in capsys.readouterr().err


class TestCheckpoint:
    @pytest.fixture
    def folder(self, measured: tuple[Settings, Path], tmp_path: Path) -> Path:
        return Path(shutil.copytree(measured[1], tmp_path / "copy"))

    def test_its_rows_join_those_of_training(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A second call adds nothing; a run without probes gets its first."""
        before = read_probes(folder)
        assert probe.main([str(folder), "shift"]) == 0
        once = read_probes(folder)
        assert {row[2] for row in once if row[1] == 8} == {"layers", "shift"}
        assert probe.main([str(folder), "shift"]) == 0
        assert read_probes(folder) == once
        capsys.readouterr()
        assert probe.main([str(folder)]) == 0
        rows = read_probes(folder)
        assert [row for row in rows if row[1] < 8] == [row for row in before if row[1] < 8]
        assert values(rows, "layers", 8) == values(before, "layers", 8)  # the same images, the same weights
        new = [values(rows, name, 8) for name in ("landscape", "shift", "statistics")]
        assert all(new)
        assert len(rows) == len(before) + sum(map(len, new))
        assert {row[0] for row in rows if row[1] == 8} == {2}
        shown = capsys.readouterr().out
        assert "landscape after 2 epochs, 8 steps" in shown
        assert f"{values(rows, 'landscape', 8)['', 'smoothness']:.4g}" in shown
        (folder / "probes.csv").unlink()
        assert probe.main([str(folder), "landscape"]) == 0
        assert {row[1:3] for row in read_probes(folder)} == {(8, "landscape")}

    @pytest.mark.parametrize(
        ("broken", "told"),
        [
            (lambda folder: (folder / "result.json").unlink(), "holds no run"),
            (lambda folder: (folder / "last.ckpt").unlink(), "holds no last.ckpt: train its run again with force=true"),
            (lambda folder: (folder / "last.ckpt").write_bytes(b"no"), "last.ckpt cannot be loaded"),
            (lambda folder: (folder / "probes.csv").write_text("a,b\n"), "probes.csv is damaged"),
            (lambda folder: None, "choose one of layers, landscape, shift"),
        ],
        ids=["no run", "no checkpoint", "a damaged checkpoint", "a damaged table", "no such probe"],
    )
    def test_what_is_missing_is_one_line(self, folder: Path, refused, broken, told: str) -> None:
        broken(folder)
        assert told in refused(probe.main, [str(folder), "gradient" if "choose" in told else "layers"])


def test_the_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [(0.25, 3, "landscape", "", "loss", 2.25), (1.0, 12, "layers", "block1", "relu_skew", float("inf"))]
    assert read_probes(tmp_path) == []
    write_probes(tmp_path, rows)
    assert read_probes(tmp_path) == rows
    (tmp_path / "probes.csv").write_text("epoch,step,probe,layer,quantity,value\n1,x,layers,,loss,2\n")
    with pytest.raises(RecordError, match=r"probes\.csv is damaged"):
        read_probes(tmp_path)
