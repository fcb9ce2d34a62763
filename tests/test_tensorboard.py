"""TensorBoard, started on a finished run and read over HTTP: each view holds what the run's own files hold."""

import html
import json
import re
import shutil
import struct
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from conftest import csv_rows
from matplotlib.figure import Figure
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter

from normlab.analysis.table import runs
from normlab.board import COLUMNS, FINAL, Means
from normlab.nets import norm_layers
from normlab.record import Record, write_metrics
from normlab.settings.plan import Job, load, plan
from normlab.training.classifier import Classifier
from normlab.training.views import GALLERY, show_hyperparameters, show_norms, show_result, show_settings

DEADLINE = 60  # seconds; about 6 are usual
CHANNELS = {"norm.block1": 10, "norm.block2": 20, "norm.block3": 20, "norm.block4": 12, "norm.block5": 12}
STATE = {"scale_gamma": "weight", "shift_beta": "bias", "running_mean": "running_mean", "running_var": "running_var"}
PORT = re.compile(r"TensorBoard \S+ at http://127\.0\.0\.1:(\d+)/")
Read = Callable[..., Any]
Sweep = Callable[..., list[Job]]


@pytest.fixture(scope="module")
def board(finished: tuple[Path, Record], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Read]:
    """Reads a route of a TensorBoard that has loaded two runs: runs/bn, the finished one, and runs/gn, a mere row."""
    logs = tmp_path_factory.mktemp("tensorboard")
    shutil.copytree(finished[0], logs / "runs" / "bn")
    other = load("data=digits", "norm=gn", "epochs=3", "batch_size=64")
    with SummaryWriter(str(logs / "runs" / "gn")) as writer:
        show_hyperparameters(writer, other)
        for tag, value in {"acc/test": 0.5, "final/train_acc": 0.25, "final/zeros": 0.0}.items():
            writer.add_scalar(tag, value, 3)

    log = logs / "tensorboard.log"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--host", "127.0.0.1", "--port", "0"]
    with log.open("wb") as out, subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out) as process:
        try:
            until = time.monotonic() + DEADLINE
            while not (found := PORT.search(log.read_text(errors="replace"))):
                assert process.poll() is None, f"TensorBoard ended:\n{log.read_text()}"
                assert time.monotonic() < until, f"TensorBoard did not start:\n{log.read_text()}"
                time.sleep(0.1)
            read = reader(int(found[1]))
            while len(rows(read)) < 2:  # a run's row is the last thing that it writes
                assert time.monotonic() < until, f"TensorBoard did not load both runs:\n{log.read_text()}"
                time.sleep(0.3)
            yield read
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def reader(port: int) -> Read:
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the environment names

    def read(route: str, **query: Any) -> Any:
        url = f"http://127.0.0.1:{port}/data/plugin/{route}?{urlencode(query)}"
        with straight.open(url, timeout=DEADLINE) as answer:
            body = answer.read()
            return json.loads(body) if "json" in answer.headers["Content-Type"] else body

    return read


def rows(read: Read) -> dict[str, Any]:
    """The HPARAMS tab's rows of runs that have ended, by name."""
    request = json.dumps({"allowedStatuses": ["STATUS_SUCCESS"], "sliceSize": 100})
    answer = read("hparams/session_groups", request=request)
    assert answer["totalSize"] == len(answer["sessionGroups"])
    return {group["name"]: group for group in answer["sessionGroups"]}


@pytest.mark.parametrize("column", COLUMNS)
def test_every_curve_is_the_one_in_metrics_csv(board: Read, finished: tuple[Path, Record], column: str) -> None:
    points = board("scalars/scalars", run="runs/bn", tag=COLUMNS[column])
    assert [step for _, step, _ in points] == [1, 2, 3]
    expected = [float(row[column]) for row in csv_rows(finished[0] / "metrics.csv")]
    assert [value for *_, value in points] == pytest.approx(expected, 1e-6)
    assert column == "seconds" or min(value for *_, value in points) > 0  # no curve is empty, the penalty least of all


def test_what_is_measured_once_stands_at_the_last_epoch(board: Read, finished: tuple[Path, Record]) -> None:
    tags = board("scalars/tags")
    assert set(tags["runs/bn"]) == {*COLUMNS.values(), *FINAL.values()}
    assert set(tags["runs/gn"]) == {"acc/test", "final/train_acc", "final/zeros"}
    for key, tag in FINAL.items():
        _, step, value = board("scalars/scalars", run="runs/bn", tag=tag)[-1]
        assert (step, value) == (3, pytest.approx(finished[1].metrics[key], 1e-5)), tag
    # in the files: TensorBoard's fast loader drops a second point at an epoch, its slow one shows it
    events = EventAccumulator(str(finished[0])).Reload()
    assert [event.step for event in events.Scalars("acc/test")] == [1, 2, 3]


def test_the_page_of_curves_names_curves_that_are_there(board: Read) -> None:
    pages = board("custom_scalars/layout")["category"]
    charts = {chart["title"]: chart["multiline"]["tag"] for page in pages for chart in page["chart"]}
    assert charts["accuracy"] == ["acc/train_running", "acc/val", "acc/test"]
    assert charts["cross-entropy"] == ["ce/train", "ce/val", "ce/test"]
    assert charts["loss = ce + penalty"] == ["loss/train", "ce/train", "penalty/train"]
    for tag in {tag for tags in charts.values() for tag in tags}:
        assert list(board("custom_scalars/scalars", run="runs/bn", tag=tag)["tag_to_events"]) == [tag]


@pytest.mark.parametrize("layer", CHANNELS)
def test_histograms_of_every_norm_layer(board: Read, finished: tuple[Path, Record], layer: str) -> None:
    weights = torch.load(finished[0] / "last.ckpt", weights_only=True)["state_dict"]
    for (name, key), start in zip(STATE.items(), (1, 0, 0, 1), strict=True):
        tag = f"{layer}/{name}"
        assert tag in board("histograms/tags")["runs/bn"]
        assert tag in board("distributions/tags")["runs/bn"]
        series = {step: buckets for _, step, buckets in board("histograms/histograms", run="runs/bn", tag=tag)}
        assert list(series) == [0, 1, 2, 3]
        for buckets in series.values():
            assert sum(count for *_, count in buckets) == CHANNELS[layer]
        filled = np.array([bucket for bucket in series[0] if bucket[2]])
        np.testing.assert_allclose(filled[:, :2], start, atol=1e-5)  # not a bin that is a tenth of γ wide
        values = weights[f"net.{layer.removeprefix('norm.')}.norm.{key}"]
        edges = [edge for *bucket, count in series[3] if count for edge in bucket]
        assert [min(edges), max(edges)] == pytest.approx([values.min().item(), values.max().item()], rel=1e-4, abs=1e-6)
        counts = np.array([count for *_, count in series[3]])
        assert (counts > 0).sum() > 3, f"{tag}: the bins are too wide to tell channels apart"


@pytest.mark.parametrize(
    ("tag", "steps"), [("test/misclassified", [3]), ("test/confusion", [3]), ("filters/first_layer", [0, 3])]
)
def test_images_are_drawings_of_a_size_that_is_read_without_a_click(board: Read, tag: str, steps: list[int]) -> None:
    assert board("images/tags")["runs/bn"][tag]["samples"] == 1
    shown = board("images/images", run="runs/bn", tag=tag, sample=0)
    assert [image["step"] for image in shown] == steps
    drawings = []
    for image in shown:
        png = board(f"images/individualImage?{image['query']}&")
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", png[16:24])
        assert 440 <= width <= 640  # of which TensorBoard makes 350
        assert 200 <= height <= 800
        drawings.append(imread(BytesIO(png))[..., :3])
        assert drawings[-1][0, 0].tolist() == [1, 1, 1]
        assert 0.03 < (drawings[-1] < 0.9).any(2).mean() < 0.6  # a drawing: neither blank nor black
    assert len(drawings) == len({drawing.tobytes() for drawing in drawings})  # filters change in training


def test_the_resolved_configuration_as_text(board: Read, finished: tuple[Path, Record]) -> None:
    assert board("text/tags")["runs/bn"] == ["config/text_summary"]
    (text,) = board("text/text", run="runs/bn", tag="config/text_summary")
    block = re.search(r"<pre><code>(.*?)</code></pre>", text["text"], re.DOTALL)
    assert block, "a code block keeps its lines"
    lines = [line.partition(":") for line in html.unescape(block[1]).splitlines()]
    config = {key: json.loads(value) for key, _, value in lines}
    assert config == finished[1].config
    assert config["l1"] == 1e-3


def test_no_file_of_a_run_says_where_on_the_machine_it_lies(finished: tuple[Path, Record]) -> None:
    """They may be given to others; a run is where its files are. train.log is for whoever trained."""
    folder, record = finished
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".log"]
    assert {"result.json", "last.ckpt"} < {file.name for file in files}
    assert not [file.name for file in files if str(folder.parents[1]).encode() in file.read_bytes()]
    assert "log_dir" not in record.config


def test_a_configuration_is_text_and_nothing_else() -> None:
    """A name with Markdown's and HTML's own signs stays in its code block, on its line."""
    writer = Mock()
    show_settings(writer, load("name='*a* <b>\n# c'"))
    lines = writer.add_text.call_args.args[1].splitlines()
    assert all(line.startswith("    ") for line in lines)
    assert [line.split(maxsplit=1) for line in lines if "<b>" in line] == [["name:", r'"*a* <b>\n# c"']]
    assert len({len(line) - len(line.split(maxsplit=1)[1]) for line in lines}) == 1  # the values stand in a column


def test_the_hparams_tab_has_a_row_a_run_with_what_was_measured(board: Read, finished: tuple[Path, Record]) -> None:
    record, found = finished[1], rows(board)
    assert set(found) == {"runs/bn", "runs/gn"}
    metrics = {}
    for name, row in found.items():
        assert [session["name"] for session in row["sessions"]] == [name]
        metrics[name] = {metric["name"]["tag"]: metric["value"] for metric in row["metricValues"]}
        assert min(metrics[name].values()) >= 0, "-1 is what Lightning writes where nothing was measured"
    for key, tag in FINAL.items():
        assert metrics["runs/bn"][tag] == pytest.approx(record.metrics[key], 1e-5), tag
    assert metrics["runs/bn"]["acc/val"] == pytest.approx(record.metrics["val_acc"], 1e-6)
    assert metrics["runs/gn"] == {"acc/test": 0.5, "final/train_acc": 0.25, "final/zeros": 0.0}  # blank: not measured
    bn, gn = (found[name]["hparams"] for name in ("runs/bn", "runs/gn"))
    same = {key: record.config[key] for key in ("dropout", "lr", "batch_size", "epochs")}  # numbers, which sort
    same |= {"seed": "0", "data": "digits", "norm.eps": 1e-5, "norm.affine": "true"}
    assert bn == same | {"norm": "bn", "l1": 0.001, "norm.momentum": 0.1}
    assert gn == same | {"norm": "gn", "l1": 0.0, "norm.num_groups": 2}


def test_the_hparams_tab_shows_first_what_differs(board: Read) -> None:
    experiment = board("hparams/experiment", request="{}")
    columns = [info["name"] for info in experiment["hparamInfos"]]
    assert [info["name"] for info in experiment["hparamInfos"] if info["differs"]] == columns[:2] == ["l1", "norm"]
    assert {"norm.momentum", "norm.num_groups"} < set(columns)  # of all runs, not of the first alone
    assert len(columns) < 15
    metrics = [info["name"]["tag"] for info in experiment["metricInfos"]]
    assert metrics[:5] == ["acc/test", "acc/train_running", "acc/val", "ce/test", "ce/train"]  # five are shown
    assert "hp_metric" not in metrics


# The means over seeds of a sweep ------------------------------------------------------------------------------------


def written(folder: Path) -> tuple[dict[str, dict[int, float]], EventAccumulator]:
    """The curves of a run by tag, and all its events; it lies in one file."""
    assert len(list(folder.glob("events*"))) == 1
    events = EventAccumulator(str(folder), {"scalars": 0, "tensors": 0}).Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}, events


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Makes the runs of a sweep up, with these accuracies on held-out images by seed, or finds them."""

    def make(accuracies: dict[int, list[float]], *more: str, status: str = "completed") -> list[Job]:
        seeds = ",".join(map(str, accuracies))
        words = ["norm=bn,ln", "batch_size=128,1000", f"seed={seeds}", "data=digits", "epochs=3", "name=s", *more]
        jobs = plan([*words, f"log_dir={tmp_path}"], multirun=True)
        for job in jobs:
            curve = accuracies[job.settings.seed]
            if not job.folder.exists():
                job.folder.mkdir(parents=True)
                rows = [{"epoch": epoch, "val_acc": value} for epoch, value in enumerate(curve, 1)]
                write_metrics(job.folder, rows, ("epoch", *COLUMNS))
                Record.of(job.settings, status, metrics={"test_acc": curve[-1]}).save(job.folder)
        return jobs

    return make


THREE = {0: [0.2, 0.5, 0.9], 1: [0.3, 0.5, 1.0], 2: [0.4, 0.8, 1.0]}


def test_a_sweep_has_the_mean_of_each_setting_and_its_band(sweep: Sweep, tmp_path: Path) -> None:
    means = Means(jobs := sweep(THREE))
    place = tmp_path / "s" / "mean"
    means.update({job.folder for job in jobs[:5]})  # five of the first setting's three seeds and the second's
    assert [each.name for each in place.iterdir()] == ["bn-digits-epochs_3"], "a setting is there when its seeds are"
    means.finish()
    names = ["bn-digits-epochs_3", "ln-digits-epochs_3"]
    names += [name + "-batch_size_1000" for name in names]
    assert {each.name for each in place.iterdir() if each.is_dir()} == set(names)
    curves, events = written(place / names[0])
    values = np.array(list(THREE.values()))
    mean, sd = values.mean(0), values.std(0, ddof=1)
    assert [*curves["acc/val"]] == [1, 2, 3]
    assert [*curves["acc/val"].values()] == pytest.approx(mean, 1e-6)
    assert curves["acc/test"] == {3: pytest.approx(mean[-1], 1e-6)}
    assert [*curves["mean-sd/acc/val"].values()] == pytest.approx((mean - sd).clip(values.min(0)), 1e-6)
    assert [*curves["mean+sd/acc/val"].values()] == pytest.approx((mean + sd).clip(max=values.max(0)), 1e-6)
    assert mean[-1] + sd[-1] > 1 == curves["mean+sd/acc/val"][3], "no accuracy above 1"
    assert events.Tensors("about/text_summary" if "about/text_summary" in events.Tags()["tensors"] else "about")
    layout = Layout.FromString(written(place)[1].Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = {chart.title: chart.margin.series[0] for chart in layout.category[0].chart}
    assert (charts["acc/val"].lower, charts["acc/val"].upper) == ("mean-sd/acc/val", "mean+sd/acc/val")
    assert {run.folder.parent.name for run in runs(tmp_path)} == {"s"}, "no mean is taken for a run"


def test_two_seeds_have_no_band_and_one_no_mean(sweep: Sweep, tmp_path: Path) -> None:
    Means(sweep({0: THREE[0]})).finish()
    place = tmp_path / "s" / "mean"
    assert [each.name for each in place.iterdir() if each.is_dir()] == []
    Means(sweep({0: THREE[0], 1: THREE[1]})).finish()
    curves, _ = written(place / "bn-digits-epochs_3")
    assert [*curves["acc/val"].values()] == pytest.approx([0.25, 0.5, 0.95], 1e-6)
    assert not [tag for tag in curves if "sd" in tag]
    stamp = [file.stat().st_mtime_ns for file in sorted(place.rglob("events*"))]
    Means(sweep({0: THREE[0], 1: THREE[1]})).finish()
    assert stamp == [file.stat().st_mtime_ns for file in sorted(place.rglob("events*"))], "what stands is left alone"
    Means(sweep({2: THREE[2]})).finish()  # more seeds, by another command: of all that are there
    curves, _ = written(place / "bn-digits-epochs_3")
    assert curves["acc/val"][2] == pytest.approx(0.6)
    assert "mean+sd/acc/val" in curves


def test_runs_that_did_not_complete_are_in_no_mean(sweep: Sweep, tmp_path: Path) -> None:
    sweep({9: THREE[2]}, status="diverged")
    Means(sweep({**THREE, 9: THREE[2]})).finish()
    assert written(tmp_path / "s" / "mean" / "bn-digits-epochs_3")[0]["acc/val"][2] == pytest.approx(0.6)
    Means(sweep(THREE, "logger=csv", "name=t")).finish()
    assert not (tmp_path / "t" / "mean").exists(), "logger has no tensorboard"


def test_hparams_has_the_columns_that_vary(sweep: Sweep, tmp_path: Path) -> None:
    Means(sweep(THREE)).finish()
    metadata = written(tmp_path / "s" / "mean")[1].SummaryMetadata("_hparams_/experiment")
    experiment = HParamsPluginData.FromString(metadata.plugin_data.content).experiment
    columns = {info.name: [*info.domain_discrete] for info in experiment.hparam_infos}
    assert columns == {"norm": ["bn", "ln"], "batch_size": [128, 1000], "seed": ["0", "1", "2"]}
    assert experiment.metric_infos[0].name.tag == "acc/test"


# What is drawn ------------------------------------------------------------------------------------------------------


def drawn(pred: torch.Tensor, labels: torch.Tensor, confidence: torch.Tensor, channels: int = 1) -> dict[str, Figure]:
    """The pictures of a result, by tag. Image n is of the grey level n."""
    prob = ((1 - confidence) / 9)[:, None].repeat(1, 10)
    prob[torch.arange(len(pred)), pred] = confidence
    images = torch.arange(len(pred), dtype=torch.uint8)[:, None, None, None].repeat(1, channels, 28, 28)
    writer, classes = Mock(), tuple("0123456789")
    show_result(writer, images=images, labels=labels, log_prob=prob.log(), classes=classes, epoch=3)
    return {call.args[0]: call.args[1] for call in writer.add_figure.call_args_list}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_gallery_shows_the_surest_mistakes_and_the_matrix_counts_all() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (60,), generator=generator)
    pred = labels.clone()
    wrong = torch.randperm(60, generator=generator)[:25]
    pred[wrong] = (labels[wrong] + torch.randint(1, 10, (25,), generator=generator)) % 10
    confidence = (torch.randperm(60, generator=generator) + 30) / 100.0  # from 30 to 89 %, each once
    figures = drawn(pred, labels, confidence)

    order = sorted(wrong.tolist(), key=lambda i: -confidence[i].item())[:GALLERY]
    figure = figures["test/misclassified"]
    assert figure.get_suptitle() == "Misclassified: the 20 surest of 25"  # in one line
    assert texts(figure) == [f"{labels[i]} → {pred[i]}\n{100 * confidence[i]:.0f} %" for i in order]
    [sheet] = figure.axes[0].images
    assert list(dict.fromkeys(sheet.get_array().compressed().tolist())) == order, "each image is of its own number"

    numbers = [text for text in figures["test/confusion"].axes[0].texts if text.get_text().isdecimal()]
    cells = {tuple(round(at) for at in reversed(text.get_position())): int(text.get_text()) for text in numbers}
    assert cells == Counter(zip(labels.tolist(), pred.tolist(), strict=True))


def test_colour_images_are_shown_in_colour() -> None:
    figures = drawn(torch.tensor([1, 2]), torch.tensor([1, 3]), torch.tensor([0.9, 0.8]), channels=3)
    (image,) = figures["test/misclassified"].axes[0].images
    assert image.get_array().shape[2:] == (3,)


def test_few_mistakes_and_none() -> None:
    labels = torch.arange(10)
    for pred, said in [(labels.clone(), "none"), (labels.roll(1) * (labels == 4) + labels * (labels != 4), "all 1")]:
        figure = drawn(pred, labels, torch.full((10,), 0.9))["test/misclassified"]
        assert said in figure.get_suptitle()
        assert texts(figure) == (["4 → 3\n90 %"] if said == "all 1" else ["No misclassified images"])


def test_what_is_not_finite_gets_no_histogram() -> None:
    model = Classifier(norm="bn")
    writer = Mock()
    with torch.no_grad():
        norm_layers(model.net)["block2.norm"].weight[3] = torch.nan
    show_norms(writer, model.net, 1)
    shown = {call.args[0] for call in writer.add_histogram.call_args_list}
    assert shown == {f"{layer}/{name}" for layer in CHANNELS for name in STATE} - {"norm.block2/scale_gamma"}
