"""The images of K runs as one LightningDataModule: K batches at a time, each as its run has it alone."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from normlab.data.augment import corrupted
from normlab.data.datamodule import EVAL_BATCH, Batch, ImageData, ImageSubset, in_batches
from normlab.kernels import Gathered
from normlab.settings.corruptions import STRENGTHS, Corrupted


class Positions(NamedTuple):
    """A batch before its images are gathered, on the device that trains.

    Attributes:
        part: "train", "val", "test" or one of `CorruptedImages.predicted`.
        where: int64 (K, B), the places of the images in the pool.
        draws: of their augmentation, (K, B, 3); None where there is none.
    """

    part: str
    where: torch.Tensor
    draws: torch.Tensor | None


class PositionsOf(Dataset[Positions]):
    """The positions of one part of K runs."""

    def __init__(self, parts: Sequence[ImageSubset], part: str) -> None:
        self.parts, self.part = parts, part

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, index: slice) -> Positions:
        where, draws = zip(*(part.positions(index) for part in self.parts), strict=True)
        return Positions(self.part, torch.stack(where), None if draws[0] is None else torch.stack(draws))


class ArrayImages(LightningDataModule):
    """Train, validation and test images of K runs that share a pool of images.

    Batches are float images (K, B, C, H, W) in [0, 1], in float32 (float64 if the trainer has precision="64-true"), and
    int64 labels (K, B). Only positions travel to a device: the pool is there.

    Args:
        runs: the images of each, see `ImageData.hold_as`. What is not the same in all (the split, the order of images,
            the augmentation's draws) follows from each one's seed; the first one's `rank` and `processes` say whose
            share of every batch the loaders give.

    Attributes:
        gives_pixels: whether batches hold pixels. If not, they hold `Gathered` images, for the kernels.
        words: what `predict` goes through.
    """

    gives_pixels = True
    words = "the training and the test images"

    def __init__(self, runs: Sequence[ImageData]) -> None:
        super().__init__()
        self.runs = runs
        self._pools: dict[tuple[str, torch.device], Batch] = {}

    @property
    def curves(self) -> tuple[str, ...]:
        """Which held-out sets are scored after every epoch, in the order of `val_dataloader`."""
        return self.runs[0].curves

    @property
    def predicted(self) -> tuple[str, ...]:
        """The parts that `predict_dataloader` goes through."""
        return self.runs[0].predicted

    def train_dataloader(self) -> DataLoader[Positions]:
        first = self.runs[0]
        parts = [run.train for run in self.runs]
        return in_batches(PositionsOf(parts, "train"), parts, first.batch_size, first.rank, first.processes)

    def val_dataloader(self) -> list[DataLoader[Positions]]:
        return [self._in_order(part, self.runs[0].rank, self.runs[0].processes) for part in self.curves]

    def predict_dataloader(self) -> list[DataLoader[Positions]]:
        return [self._in_order(part) for part in self.predicted]

    def _in_order(self, part: str, rank: int = 0, processes: int = 1) -> DataLoader[Positions]:
        """Return a loader of one part of each run, in file order."""
        parts = [ImageSubset(*each.pool, each.where) for each in self._parts(part)]
        return in_batches(PositionsOf(parts, part), parts, EVAL_BATCH, rank, processes)

    def _parts(self, part: str) -> list[ImageSubset]:
        """Return one part of each run."""
        return [getattr(run, part) for run in self.runs]

    def on_after_batch_transfer(
        self, batch: Positions, dataloader_idx: int
    ) -> tuple[torch.Tensor | Gathered, torch.Tensor]:
        """Return the images and labels of positions that have reached the device."""
        images, labels = self._pool(batch.part, batch.where.device)
        augment = self.runs[0].train
        found = Gathered(images, batch.where, batch.draws, augment.rotation, augment.shift)
        return self.pixels(found) if self.gives_pixels else found, labels[batch.where]

    def pixels(self, images: Gathered) -> torch.Tensor:
        """Return images as pixels (K, B, C, H, W) in [0, 1], augmented if they have draws."""
        double = self.trainer is not None and self.trainer.precision == "64-true"
        pixels = images.pool[images.where].to(torch.float64 if double else torch.float32) / 255
        return self.runs[0].train.augmented(pixels, images.draws)

    def _pool(self, part: str, device: torch.device) -> Batch:
        key = "test" if part == "test" else "train", device
        if key not in self._pools:
            images, labels = getattr(self.runs[0], part).pool
            self._pools[key] = images.to(device), labels.to(device)
        return self._pools[key]


class CorruptedImages(ArrayImages):
    """The test images of K runs as they are, and then corrupted in every way of some kinds: `predict` goes through them
    one way after the other, for all runs at once. They are in memory one way at a time.

    Args:
        modes: in each of which a network sees every way, one after the other.

    Attributes:
        ways: kind, strength and mode of each; of clean images, strength 0.
    """

    words = "corrupted test images"

    def __init__(self, runs: Sequence[ImageData], kinds: Sequence[Corrupted], modes: Sequence[str]) -> None:
        super().__init__(runs)
        corruptions = [("clean", 0), *((kind, strength) for kind in kinds for strength in STRENGTHS)]
        self.ways = [(kind, strength, mode) for kind, strength in corruptions for mode in modes]
        self._corrupted: tuple[tuple[str, int], torch.Tensor] | None = None

    @property
    def predicted(self) -> tuple[str, ...]:
        return tuple(f"{kind} {strength} {mode}" for kind, strength, mode in self.ways)

    def some(self, way: int, where: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Return some images of a way, by their places, as pixels (n, C, H, W) in [0, 1]."""
        return self.pixels(Gathered(self._pool(self.predicted[way], device)[0], where.to(device)))

    def _parts(self, part: str) -> list[ImageSubset]:
        return [run.test for run in self.runs]

    def _pool(self, part: str, device: torch.device) -> Batch:
        if (part, device) not in self._pools:
            kind, strength, _ = self.ways[self.predicted.index(part)]
            images, labels = self.runs[0].test.pool
            if self._corrupted is None or self._corrupted[0] != (kind, strength):
                made = corrupted(images, kind, strength) if strength else images  # type: ignore[arg-type]  # not clean
                self._corrupted = (kind, strength), made
            self._pools = {(part, device): (self._corrupted[1].to(device), labels.to(device))}
        return self._pools[part, device]
