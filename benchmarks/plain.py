"""R0: the script that people write for this task, on its own: `python -m benchmarks.plain --norm gn --workers 2`.

The network, batch size, optimizer and schedule are normlab's; all else is what the documentation of Lightning,
torchvision and torchmetrics shows: transforms for each image, a DataLoader, a metric and two logged values per step, a
Trainer with its default logger, checkpoint and progress bar. Where there was a choice it is the cheaper one: images are
rotated by the nearest pixel and not shifted (normlab: bilinear, and shifted too), and accuracy is logged per epoch,
not per step. Nothing of normlab is imported; the clock is the only addition.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchmetrics import Accuracy
from torchvision import transforms  # type: ignore[import-untyped, unused-ignore]
from torchvision.datasets import MNIST  # type: ignore[import-untyped, unused-ignore]

from benchmarks.clock import BATCH, Clock


class RMSNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean((1, 2, 3), keepdim=True) + 1e-5)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "bn": nn.BatchNorm2d,
    "ln": lambda channels: nn.GroupNorm(1, channels),
    "gn": lambda channels: nn.GroupNorm(2, channels),
    "in": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "none": nn.Identity,
    "rms": RMSNorm,
}


def block(in_channels: int, out_channels: int, norm: str, dropout: float = 0.0) -> nn.Sequential:
    layers = [nn.Conv2d(in_channels, out_channels, 3, bias=False), nn.ReLU(), NORMS[norm](out_channels)]
    return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []))


class PlainNet(nn.Module):
    """The network of `normlab.nets.Net`, in the usual style."""

    def __init__(self, norm: str, dropout: float = 0.0) -> None:
        super().__init__()
        self.block1 = block(1, 10, norm, dropout)
        self.block2 = block(10, 20, norm)
        self.squeeze = nn.Conv2d(20, 10, 1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.block3 = block(10, 20, norm, dropout)
        self.block4 = block(20, 12, norm)
        self.block5 = block(12, 12, norm, dropout)
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Conv2d(12, 10, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.squeeze(self.block2(self.block1(x))))
        x = self.block5(self.block4(self.block3(x)))
        return F.log_softmax(self.classify(self.gap(x)).flatten(1), dim=1)


class PlainModule(LightningModule):
    def __init__(self, norm: str, dropout: float) -> None:
        super().__init__()
        self.model = PlainNet(norm, dropout)
        self.train_acc = Accuracy(task="multiclass", num_classes=10)
        self.val_acc = Accuracy(task="multiclass", num_classes=10)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        x, y = batch
        output = self.model(x)
        loss = F.nll_loss(output, y)
        self.train_acc(output, y)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("train_acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        x, y = batch
        output = self.model(x)
        self.val_acc(output, y)
        self.log("val_loss", F.nll_loss(output, y), prog_bar=True)
        self.log("val_acc", self.val_acc, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps, cycle_momentum=False)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="One epoch of the plain script; prints when its steps ended.")
    parser.add_argument("--norm", choices=NORMS, default="bn")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--root", default="data", help="torchvision's folder")
    args = parser.parse_args(arguments)

    clock = Clock(args.batch)
    normalize = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    augment = transforms.Compose([transforms.RandomRotation(7, fill=0), *normalize])
    train = MNIST(args.root, train=True, download=True, transform=augment)
    test = MNIST(args.root, train=False, download=True, transform=transforms.Compose(normalize))
    with tempfile.TemporaryDirectory() as folder:
        Trainer(max_epochs=1, accelerator=args.accelerator, default_root_dir=folder).fit(
            PlainModule(args.norm, args.dropout),
            DataLoader(train, batch_size=args.batch, shuffle=True, num_workers=args.workers),
            DataLoader(test, batch_size=args.batch, num_workers=args.workers),
        )
    clock.print()


if __name__ == "__main__":
    main()
