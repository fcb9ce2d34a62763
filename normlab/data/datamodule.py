"""A data set as a LightningDataModule: tensors that stay in memory, one indexing call a batch."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, SequentialSampler

from normlab.data.augment import rotate_and_shift
from normlab.data.sources import Images, load
from normlab.errors import ConfigError
from normlab.randomness import Stream, generator

__all__ = ["EVAL_BATCH", "Batch", "ImageData", "Resident", "epoch_draws", "epoch_order"]

Batch = tuple[torch.Tensor, torch.Tensor]

EVAL_BATCH = 1000  # images an evaluation step: 500 to 1,000 measured fastest on CPU, and divides every test set


class Resident(Dataset[Batch]):
    """Images uint8 (N, 1, 28, 28) and labels int64 (N,) in memory, or some of them; a batch is one indexing call.

    Attributes:
        pool: all images and labels, which several parts share. where: int64 (n,), which of them belong to this part.
    """

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, where: torch.Tensor | None = None) -> None:
        self.pool = (images, labels)
        self.where = torch.arange(len(labels)) if where is None else where

    @property
    def images(self) -> torch.Tensor:
        return self.pool[0][self.where]

    @property
    def labels(self) -> torch.Tensor:
        return self.pool[1][self.where]

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, index: int) -> Batch:
        return self.pool[0][self.where[index]], self.pool[1][self.where[index]]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        where = self.where[torch.as_tensor(indices, dtype=torch.int64)]  # there may be none
        return self.pool[0][where], self.pool[1][where]


def whole(batch: Any) -> Any:
    """The collate function: `__getitems__` has made the batch already."""
    return batch


def grey_counts(images: torch.Tensor) -> torch.Tensor:
    """How many pixels of uint8 images have each of the 256 values: float64 (256,), whole numbers."""
    return torch.bincount(images.flatten(), minlength=256).double()


class EpochOrder(Sampler[int]):
    """A permutation that follows from (seed, epoch). Lightning tells it the epoch."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        yield from epoch_order(self.size, self.seed, self.epoch).tolist()


class Share(BatchSampler):
    """One process's share of every batch: consecutive images, as many as the others have, or one more or fewer.

    Every image is in exactly one share, which may be empty; torch's `DistributedSampler` would repeat some to make
    shares equal, and count them twice.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, rank: int, processes: int) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        self.rank, self.processes = rank, processes

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            yield batch[share(len(batch), self.rank, self.processes)]


def share(size: int, rank: int, processes: int) -> slice:
    """Which of so many images belong to a process."""
    return slice(size * rank // processes, size * (rank + 1) // processes)


def epoch_order(size: int, seed: int, epoch: int) -> torch.Tensor:
    """The order in which an epoch goes through so many training images: int64 (size,)."""
    return torch.randperm(size, generator=generator(Stream.ORDER, seed, epoch))


def epoch_draws(size: int, seed: int, epoch: int) -> torch.Tensor:
    """What an epoch's augmentation is made of, in [-1, 1]: (size, 3), a row an image, as they come."""
    return torch.rand(size, 3, generator=generator(Stream.AUGMENT, seed, epoch)) * 2 - 1


class ImageData(LightningDataModule):
    """Train, validation and test images of one data set.

    Batches are uint8 images (B, 1, 28, 28) and int64 labels (B,); after the transfer to the device the images become
    float with mean 0 and deviation 1 over the training pixels, and training images are rotated and shifted.

    Args:
        name: mnist, fashion_mnist, kmnist or digits.
        root, download: where to look first, and whether to fetch what is nowhere.
        batch_size: training images a step; the last step of an epoch takes what is left.
        train_size: training images used, drawn from those that are not held out; None: all of them.
        val_size: training images held out; None: 5,000, or a tenth of a smaller set.
        rotation, shift: largest augmentation either way, in degrees and pixels.
        test_curve: whether `fit` scores the test set after every epoch, for drawing only.
        seed: of the held-out split, the order of images and the augmentation.

    Raises `DataError` from `setup` where the data cannot be had, and `ConfigError` where val_size leaves no image to
    train on, or fewer than train_size.
    """

    def __init__(
        self,
        name: str = "mnist",
        *,
        root: str | None = None,
        download: bool = True,
        batch_size: int = 128,
        train_size: int | None = None,
        val_size: int | None = None,
        rotation: float = 7.0,
        shift: float = 2.0,
        test_curve: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.dataset, self.root, self.download = name, root, download
        self.train_size, self.val_size, self.test_curve, self.seed = train_size, val_size, test_curve, seed
        self.batch_size = batch_size
        self.rotation, self.shift = rotation, shift
        self.classes: tuple[str, ...] = ()
        self.rank, self.processes = 0, 1  # whose share of every batch the loaders of `fit` give, of how many
        self._epoch = -1
        self._draws = torch.empty(0, 3)

    @property
    def curves(self) -> tuple[str, ...]:
        """Which held-out sets `fit` scores after every epoch, in the order of `val_dataloader`."""
        return (("val",) if len(self.val) else ()) + (("test",) if self.test_curve else ())

    def setup(self, stage: str | None = None) -> None:
        if not self.classes:
            self.hold(load(self.dataset, self.root, download=self.download))

    def hold(self, images: Images) -> None:
        """Takes the images in, holds the validation part out and measures mean and deviation of the training pixels."""
        self.classes = images.classes
        self.test = Resident(torch.from_numpy(images.test_images)[:, None], torch.from_numpy(images.test_labels).long())
        everything = Resident(
            torch.from_numpy(images.train_images)[:, None], torch.from_numpy(images.train_labels).long()
        )
        self._split(everything, grey_counts(everything.pool[0]))

    def hold_as(self, other: "ImageData") -> None:
        """Takes the images of another data module without a copy; the split is that of this one's own seed."""
        self.classes, self.test = other.classes, other.test
        self._split(Resident(*other.train.pool), other._grey)

    def _split(self, everything: Resident, grey: torch.Tensor) -> None:
        val_size = min(5000, len(everything) // 10) if self.val_size is None else self.val_size
        if val_size >= len(everything):
            held = f"val_size={val_size} leaves none of the {len(everything)} training images of {self.dataset}"
            raise ConfigError(held)
        left = len(everything) - val_size
        train_size = left if self.train_size is None else self.train_size
        if train_size > left:
            raise ConfigError(
                f"train_size={train_size}: only {left} training images of {self.dataset} are not held out"
            )
        order = torch.randperm(len(everything), generator=generator(Stream.SPLIT, self.seed))
        self.val = Resident(*everything.pool, order[:val_size].sort().values)
        self.train = Resident(*everything.pool, order[val_size : val_size + train_size].sort().values)
        # By the histogram of the 256 grey values: exact, and without a float copy of every pixel.
        self._grey = grey
        counts = grey - grey_counts(self.val.images) if train_size == left else grey_counts(self.train.images)
        values = torch.arange(256, dtype=torch.float64) / 255
        mean = (counts * values).sum() / counts.sum()
        self.mean = mean.item()
        self.std = ((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt().item() or 1.0

    def train_dataloader(self) -> DataLoader[Batch]:
        order = EpochOrder(len(self.train), self.seed)
        self._epoch = -1  # a training begins (a refit, where another was before): at its epoch's first draw
        return self._loader(self.train, self.batch_size, order, shared=True)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        return [self._loader(getattr(self, part), EVAL_BATCH, shared=True) for part in self.curves]

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.in_order("test")

    @property
    def predicted(self) -> tuple[str, ...]:
        """The parts that `predict_dataloader` goes through: what is measured once, after training."""
        return ("train", "test")

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        return [self.in_order(part) for part in self.predicted]

    def in_order(self, part: str) -> DataLoader[Batch]:
        """The images of "train", "val" or "test" in file order, for evaluation."""
        return self._loader(getattr(self, part), EVAL_BATCH)

    def _loader(
        self, images: Resident, batch_size: int, order: Sampler[int] | None = None, *, shared: bool = False
    ) -> DataLoader[Batch]:
        # A generator of its own: without one, every pass draws a number from the global stream, which is dropout's.
        spare = torch.Generator()
        if not shared or self.processes == 1:
            return DataLoader(images, batch_size=batch_size, sampler=order, collate_fn=whole, generator=spare)
        own = Share(order or SequentialSampler(images), batch_size, self.rank, self.processes)
        return DataLoader(images, batch_sampler=own, collate_fn=whole, generator=spare)

    def images_of_step(self, index: int) -> int:
        """Images of an epoch's step, from 0, all processes together: the last one takes what is left."""
        return min(self.batch_size, len(self.train) - index * self.batch_size)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, labels = batch
        double = self.trainer is not None and self.trainer.precision == "64-true"
        pixels = images.to(torch.float64 if double else torch.float32) / 255
        if self.trainer is not None and self.trainer.training and (self.rotation or self.shift):
            draws = self._next_draws(len(images), self.trainer.current_epoch).to(pixels, non_blocking=True)
            pixels = rotate_and_shift(pixels, draws, rotation=self.rotation, shift=self.shift)
        return (pixels - self.mean) / self.std, labels

    def _next_draws(self, size: int, epoch: int) -> torch.Tensor:
        """The next rows of this epoch's draws: one row an image, in the order in which the images come."""
        if epoch != self._epoch:
            self._draws = epoch_draws(len(self.train), self.seed, epoch)
            self._epoch, self._used = epoch, 0
        step = size if self.processes == 1 else self.batch_size  # the others' images have rows too
        rows = self._draws[self._used : self._used + step]
        self._used += len(rows)
        return rows[share(len(rows), self.rank, self.processes)]
