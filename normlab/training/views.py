"""What TensorBoard shows beside the curves."""

import json
from collections.abc import Iterator, Mapping

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from normlab.analysis import figures
from normlab.nets import Net
from normlab.settings import Settings

__all__ = ["GALLERY", "NormViews", "show_filters", "show_hyperparameters", "show_result", "show_settings"]

GALLERY = 30  # misclassified images shown: three rows of ten

TERMS = {"weight": "scale_gamma", "bias": "shift_beta"}  # what torch calls them -> what papers call them

LAYOUT = {
    "Training": {
        "accuracy": ["Multiline", ["acc/train_running", "acc/val", "acc/test"]],
        "cross-entropy": ["Multiline", ["ce/train", "ce/val", "ce/test"]],
        "loss = ce + penalty": ["Multiline", ["loss/train", "ce/train", "penalty/train"]],
    }
}


def norm_state(net: Net) -> Iterator[tuple[str, torch.Tensor]]:
    """(tag, values) for γ, β and the running statistics of every norm layer, and whatever a user's own layer holds."""
    for layer, module in net.norm_layers().items():
        for name, values in module.state_dict().items():
            if values.is_floating_point() and values.numel():
                yield f"{layer}/{TERMS.get(name, name)}", values.detach().float().cpu()


class NormViews(Callback):
    """Histograms of every norm layer's γ, β and running statistics, before training and after every epoch."""

    def __init__(self, writer: SummaryWriter) -> None:
        self.writer = writer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(pl_module, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(pl_module, trainer.current_epoch + 1)

    def _write(self, module: LightningModule, epoch: int) -> None:
        for tag, values in norm_state(module.net):  # type: ignore[arg-type]  # Classifier's
            if torch.isfinite(values).all():  # a histogram of nan is refused by TensorBoard, with a traceback
                self.writer.add_histogram(tag, values, epoch)


def show_settings(writer: SummaryWriter, settings: Settings) -> None:
    """The resolved configuration as text, and a page of curves that belong together."""
    config = json.dumps(settings.model_dump(), indent=2, ensure_ascii=False)
    writer.add_text("config", "    " + config.replace("\n", "\n    "), 0)  # indented: Markdown's code block
    writer.add_custom_scalars(LAYOUT)


def show_filters(writer: SummaryWriter, net: Net, epoch: int) -> None:
    """The first layer's filters."""
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    title = f"First-layer filters after {epoch} epochs" if epoch else "First-layer filters at the start"
    writer.add_figure(
        "filters/first_layer", figures.filters(first.weight.detach().float().cpu().numpy(), title=title), epoch
    )


def show_result(
    writer: SummaryWriter,
    *,
    title: str,
    images: torch.Tensor,
    labels: torch.Tensor,
    log_prob: torch.Tensor,
    classes: tuple[str, ...],
    epoch: int,
) -> None:
    """The test set's confusion matrix and the misclassified images that the network was surest of.

    Shapes: images uint8 (N, 28, 28), labels int64 (N,), log_prob float (N, 10).
    """
    confidence, pred = log_prob.exp().max(1)
    wrong = torch.nonzero(pred != labels).flatten()
    surest = wrong[confidence[wrong].argsort(descending=True, stable=True)][:GALLERY]
    shown = f"the {len(surest)} surest of {len(wrong)}" if len(surest) < len(wrong) else f"all {len(wrong)}"
    gallery = figures.gallery(
        images[surest].numpy(),
        labels[surest].numpy(),
        pred[surest].numpy(),
        confidence[surest].numpy(),
        classes=classes,
        title=f"{title}: misclassified test images, {shown} (true → predicted)",
    )
    counts = torch.bincount(labels * len(classes) + pred, minlength=len(classes) ** 2).view(len(classes), -1)
    matrix = figures.confusion(counts.numpy(), classes=classes, title=f"{title}: test set of {len(labels):,} images")
    writer.add_figure("test/misclassified", gallery, epoch)
    writer.add_figure("test/confusion", matrix, epoch)


def show_hyperparameters(logger: TensorBoardLogger, settings: Settings, metrics: Mapping[str, float | None]) -> None:
    """The run's row in the HPARAMS tab, with what was measured at the end."""
    plain = {
        key: value if isinstance(value, (bool, int, float, str)) else str(value)
        for key, value in settings.flat().items()
    }
    found = {f"hp/{key}": value for key, value in metrics.items() if value is not None}
    logger.log_hyperparams(plain, found)
