"""The end of a run, however it was trained: what is measured, drawn and recorded."""

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from normlab.data.datamodule import ImageData
from normlab.nets import l1_norm, penalised, sparsity
from normlab.record import Record, write_predictions, write_support
from normlab.scores import scores
from normlab.settings import Settings
from normlab.training.classifier import Classifier
from normlab.training.device import versions
from normlab.training.files import RunFiles
from normlab.training.statistics_probe import statistics_values
from normlab.training.views import show_filters, show_hyperparameters, show_result

__all__ = ["asked", "conclude"]


def asked(settings: Settings) -> dict[str, Any]:
    """The part of a record that is known before training."""
    return {
        "config": settings.model_dump(),
        "config_hash": settings.config_hash(),
        "setting": settings.setting(),
        "seed": settings.seed,
        "versions": versions(),
    }


def conclude(
    files: RunFiles,
    model: Classifier,
    data: ImageData,
    log_prob: Mapping[str, torch.Tensor],
    *,
    device: Mapping[str, Any],
    since: float,
) -> Record:
    """Score the last epoch's weights; write predictions.npz and TensorBoard's last views. Return the record, which is
    still to be saved.

    Args:
        log_prob: by part ("train", "test"): log-probabilities (N, num_classes) in eval mode, in file order.
        device: for result.json. since: when the measurements of this run began (`time.perf_counter`).
    """
    settings, folder, writer = files.settings, files.folder, files.writer
    metrics: dict[str, float | None] = {"train_acc": None, "train_ce": None}
    metrics |= {"train_acc_running": files.last("train_acc_running"), "train_ce_running": files.last("train_ce")}
    metrics |= {"val_acc": files.last("val_acc"), "val_ce": files.last("val_ce"), "test_acc": None, "test_ce": None}
    status, error = "completed", None
    if files.diverged is not None:
        status, error = "diverged", f"the training loss was not finite in epoch {files.diverged}"
    elif not all(values.isfinite().all() for values in log_prob.values()):
        status, error = "diverged", "the trained network's outputs are not finite"
    if status == "completed":
        for part, values in log_prob.items():
            metrics |= _score(part, values, getattr(data, part).labels)
        metrics["weight_norm"] = (
            sum(float(w.detach().double().square().sum()) for w in penalised(model.net, "conv").values()) ** 0.5
        )
        metrics |= {"penalty": settings.l1 * float(l1_norm(model.penalised).detach()), **sparsity(model.net)}
        test, labels = log_prob["test"], data.test.labels
        metrics |= {f"test_{name}": value for name, value in scores(test.numpy(), labels.numpy()).items()}
        if "statistics" in settings.probes:
            steps = settings.epochs * -(-len(data.train) // settings.batch_size)
            found = statistics_values(model.net, data)
            files.probes.add("statistics", found, epoch=settings.epochs, step=steps, at=settings.epochs)
            files.probes.save()
        support = [(parameter != 0).flatten().cpu().numpy() for parameter in model.penalised]
        if not all(part.all() for part in support):
            write_support(folder, np.concatenate(support))
        write_predictions(folder, test.numpy(), labels.numpy())
        show_filters(writer, model.net, settings.epochs)
        show_result(
            writer,
            title=f"{settings.slug()} on {data.dataset}",
            images=data.test.images,
            labels=labels,
            log_prob=test,
            classes=data.classes,
            epoch=settings.epochs,
        )
    show_hyperparameters(writer, settings, metrics)
    writer.close()
    return Record(
        status=status,
        error=error,
        data={"name": data.dataset, "train": len(data.train), "val": len(data.val), "test": len(data.test)},
        parameters=sum(p.numel() for p in model.net.parameters()),
        device=device,
        metrics={key: _finite(value) for key, value in metrics.items()},
        time={
            "fit_s": files.fit_s,
            "measure_s": time.perf_counter() - since,
            "images_per_s": files.images_per_s(len(data.train)),
            "epochs": len(files.rows),
            **({"resumed": files.resumed} if files.resumed else {}),
        },
        **asked(settings),
    )


def _score(part: str, log_prob: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Accuracy and cross-entropy of log-probabilities (N, 10), in eval mode and without augmentation."""
    return {
        f"{part}_acc": (log_prob.argmax(1) == labels).double().mean().item(),
        f"{part}_ce": torch.nn.functional.nll_loss(log_prob.double(), labels).item(),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
