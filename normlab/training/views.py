"""What TensorBoard shows beside the curves."""

import copy
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from normlab.analysis import image_figures
from normlab.analysis.drawing import plain
from normlab.analysis.layers import LAYERS
from normlab.analysis.numbers import percent
from normlab.board import hyperparameters
from normlab.nets import Network, in_order, norm_layers
from normlab.settings import Settings

log = logging.getLogger("normlab")

GALLERY, COLUMNS = 20, 5  # misclassified images shown, and how many a row: TensorBoard draws a figure 350 pixels wide
BINS = 60  # of a histogram; TensorBoard draws 30

TERMS = {"weight": "scale_gamma", "bias": "shift_beta"}  # what torch calls them -> what papers call them

LAYOUT = {
    "Training": {
        "accuracy": ["Multiline", ["acc/train_running", "acc/val", "acc/test"]],
        "cross-entropy": ["Multiline", ["ce/train", "ce/val", "ce/test"]],
        "loss = ce + penalty": ["Multiline", ["loss/train", "ce/train", "penalty/train"]],
        "learning rate at the end of the epoch": ["Multiline", ["optim/lr"]],
        "images per second": ["Multiline", ["speed/images_per_s"]],
    }
}

PROBES = {  # chart -> the tags of its lines, a regular expression: one line per layer or per quantity
    "layers": {
        f"{title}: {words}": rf"{quantity}\."
        for title, quantities, _ in LAYERS.values()
        for quantity, words in quantities.items()
    },
    "landscape": {
        "loss, and its band along the gradient": r"loss",
        "change of the gradient along itself": r"change",
        "effective β-smoothness": r"smoothness",
    },
    "shift": {"change of the gradient": r"l2\.", "cosine of its angle": r"cosine\."},
}


def show_norms(writer: SummaryWriter, net: Network, epoch: int) -> None:
    """Show histograms of γ, β and the running statistics of every norm layer, and of what a custom layer has."""
    for layer, module in norm_layers(net).items():
        section = f"norm.{net.label(layer)}"  # sorts behind acc and ce: TensorBoard opens two sections
        for name, state in module.state_dict().items():
            values = state.detach().float().cpu()
            # a histogram of nan is refused by TensorBoard, with a traceback
            if state.is_floating_point() and values.numel() and torch.isfinite(values).all():
                low, high = values.min().item(), values.max().item()
                edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)  # the usual bins are 10 % wide: all γ in one
                writer.add_histogram(f"{section}/{TERMS.get(name, name)}", values, epoch, bins=edges)


def show_settings(writer: SummaryWriter, settings: Settings) -> None:
    """The resolved configuration as text, and pages of curves that belong together."""
    values = settings.recorded()
    width = max(map(len, values)) + 2
    lines = [f"    {key + ':':{width}}{json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    writer.add_text("config", "\n".join(lines), 0)  # indented by four: Markdown's code block
    pages = {
        f"Probe: {probe}": {chart: ["Multiline", [rf"^probe\.{probe}/{tags}"]] for chart, tags in PROBES[probe].items()}
        for probe in PROBES
        if probe in settings.probes
    }
    writer.add_custom_scalars(LAYOUT | pages)


def show(writer: SummaryWriter, tag: str, draw: Callable[[], Figure], epoch: int) -> None:
    """Show a figure. One that cannot be drawn is left out with a warning: no run is lost for a picture."""
    try:
        with plain():
            writer.add_figure(tag, draw(), epoch)
    except Exception:
        log.warning("%s could not be drawn", tag, exc_info=True)


def show_filters(writer: SummaryWriter, net: Network, epoch: int) -> None:
    """Draw the filters of the first convolution; of several input channels, their sum: that of a grey image."""
    first = next((layer for _, layer in in_order(net) if isinstance(layer, nn.Conv2d)), None)
    if first is None:
        return
    when = f"after {epoch} epoch{'s' if epoch > 1 else ''}" if epoch else "at the start"
    channels = f", summed over {first.in_channels} channels" if first.in_channels > 1 else ""
    weight = first.weight.detach().float().cpu().sum(1).numpy()
    title = f"First-layer filters {when}{channels}"
    show(writer, "filters/first_layer", lambda: image_figures.filters(weight, title=title, columns=COLUMNS), epoch)


def show_result(
    writer: SummaryWriter,
    *,
    images: torch.Tensor,
    labels: torch.Tensor,
    log_prob: torch.Tensor,
    classes: tuple[str, ...],
    epoch: int,
) -> None:
    """The test set's confusion matrix and the misclassified images that the network was surest of.

    Shapes: images uint8 (N, C, H, W), grey or in colour, labels int64 (N,), log_prob float (N, classes).
    """
    confidence, pred = log_prob.exp().max(1)
    wrong = torch.nonzero(pred != labels).flatten()
    surest = wrong[confidence[wrong].argsort(descending=True, stable=True)][:GALLERY]
    # in one line, of what stands in the picture: TensorBoard names the run above it
    shown = f"the {GALLERY} surest of {len(wrong):,}" if len(wrong) > GALLERY else f"all {len(wrong)}"
    gallery = partial(
        image_figures.gallery,
        (images[surest, 0] if images.shape[1] == 1 else images[surest].movedim(1, -1)).numpy(),
        [(classes[true], classes[taken]) for true, taken in zip(labels[surest], pred[surest], strict=True)],
        [percent(p) for p in confidence[surest].tolist()],
        title=f"Misclassified: {shown if len(wrong) else 'none'}",
        note="true → predicted, and the probability of the prediction",
        columns=COLUMNS,
    )
    counts = torch.bincount(labels * len(classes) + pred, minlength=len(classes) ** 2).view(len(classes), -1).numpy()
    matrix = partial(
        image_figures.confusions,
        {"": counts},
        classes,
        title=f"Confusion of {len(labels):,} test images",
        note="Images, and their share of the true class.",
        shares=True,
    )
    show(writer, "test/misclassified", gallery, epoch)
    show(writer, "test/confusion", matrix, epoch)


def show_hyperparameters(writer: SummaryWriter, settings: Settings) -> None:
    """The run's row in the HPARAMS tab, whose metrics are the last values of its curves. Told of no "experiment",
    TensorBoard gathers the columns from all runs; of a sweep `normlab.board` tells which vary."""
    _, start, end = hparams(hyperparameters(settings.flat(), settings.setting()), {})  # type: ignore[no-untyped-call]
    for summary in (start, end):
        writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]  # open until the writer is closed


def show_graph(writer: SummaryWriter, net: Network, image: Sequence[int]) -> None:
    """The network as TensorBoard's graph, of one image of shape (C, H, W). One that cannot be traced has none."""
    try:
        with warnings.catch_warnings(action="ignore"):  # torch calls its tracer deprecated, and add_graph has no other
            still = copy.deepcopy(net).cpu().float().eval()  # nothing is drawn, nothing learned
            images = torch.zeros(1, *image)
            traced = torch.jit.trace(still, images, check_trace=False)  # type: ignore[no-untyped-call]  # once, not thrice
            writer.add_graph(traced, images)
    except Exception:
        log.warning("the graph could not be drawn", exc_info=True)
