"""A data set as a LightningDataModule: images stay in memory as bytes, and a batch is one indexing call."""

from collections.abc import Iterator, Sequence
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from normlab.data.augment import rotate_and_shift
from normlab.data.sources import Images, load, resolve, split
from normlab.randomness import Stream, generator
from normlab.settings import Settings, checked

Batch = tuple[torch.Tensor, torch.Tensor]
T = TypeVar("T")

EVAL_BATCH = 1000  # images per evaluation step: 500 to 1,000 measured fastest on CPU, and divides every test set


class ImageSubset(Dataset[Batch]):
    """Some images of a data set with their labels, in file order.

    `part[i]` is an image as the network takes it, float (C, H, W) in [0, 1], and its label; `part[a:b]` is a batch of
    them, (b - a, C, H, W) and int64 (b - a,), by one indexing call.

    Attributes:
        pool: All images, uint8 (N, C, H, W), and labels, int64 (N,), which several parts share.
        where: int64 (n,), which of them belong to this part.
        dtype: Of the images that it gives.
    """

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, where: torch.Tensor | None = None) -> None:
        self.pool = (images, labels)
        self.where = torch.arange(len(labels)) if where is None else where
        self.dtype = torch.float32

    @property
    def images(self) -> torch.Tensor:
        """uint8 (n, C, H, W)."""
        return self.pool[0][self.where]

    @property
    def labels(self) -> torch.Tensor:
        return self.pool[1][self.where]

    def __len__(self) -> int:
        return len(self.where)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, that indexing gives. Nothing here depends on it."""

    def positions(self, index: int | slice) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return where in the pool the images of these positions are, and what their augmentation draws: (n, 3)."""
        return self.where[index], None

    def __getitem__(self, index: int | slice) -> Batch:
        where, draws = self.positions(index)
        return self.augmented(self.pool[0][where].to(self.dtype) / 255, draws), self.pool[1][where]

    def augmented(self, pixels: torch.Tensor, draws: torch.Tensor | None) -> torch.Tensor:
        """Return images (…, C, H, W) in [0, 1] rotated and shifted by draws (…, 3) in [-1, 1]; None: as they are."""
        return pixels


class TrainingSubset(ImageSubset):
    """Training images by their position in an epoch: shuffled and augmented, all of which follows from (seed, epoch).

    Args:
        rotation, shift: Largest augmentation either way, in degrees and pixels.
    """

    def __init__(self, pool: Batch, where: torch.Tensor, *, seed: int, rotation: float, shift: float) -> None:
        super().__init__(*pool, where)
        self.seed, self.rotation, self.shift = seed, rotation, shift
        self.mean, self.std = 0.0, 1.0
        self.epoch = 0
        self._random: Batch | None = None  # order and draws of this epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, that indexing gives. The loaders do so themselves."""
        if epoch != self.epoch:
            self.epoch, self._random = epoch, None

    def positions(self, index: int | slice) -> Batch:
        if self._random is None:
            of_epoch = len(self), self.seed, self.epoch
            self._random = epoch_order(*of_epoch), epoch_draws(*of_epoch)
        order, draws = self._random
        return self.where[order[index]], draws[index]

    def augmented(self, pixels: torch.Tensor, draws: torch.Tensor | None) -> torch.Tensor:
        if draws is None or not (self.rotation or self.shift):
            return pixels
        images, rows = pixels.view(-1, *pixels.shape[-3:]), draws.reshape(-1, 3).to(pixels)
        return rotate_and_shift(images, rows, rotation=self.rotation, shift=self.shift).view_as(pixels)


class Batches(Sampler[slice]):
    """The batches of parts of one length as slices, or one process's share of each; the last batch takes what is left.

    Lightning sets the epoch of training images. Elsewhere every iteration is the next epoch.
    """

    def __init__(self, parts: Sequence[ImageSubset], batch_size: int, rank: int = 0, processes: int = 1) -> None:
        self.parts, self.batch_size, self.rank, self.processes = parts, batch_size, rank, processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.parts[0]) // self.batch_size)

    def __iter__(self) -> Iterator[slice]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        for start in range(0, len(self.parts[0]), self.batch_size):
            for part in self.parts:
                part.set_epoch(epoch)  # with every batch: another iteration may be under way
            own = share(min(self.batch_size, len(self.parts[0]) - start), self.rank, self.processes)
            yield slice(start + own.start, start + own.stop)


def in_batches(
    images: Dataset[T], parts: Sequence[ImageSubset], batch_size: int, rank: int = 0, processes: int = 1
) -> DataLoader[T]:
    """Return a loader of `images` by the `Batches` of parts."""
    # A generator of its own: without one, every pass draws a number from the global stream, which is dropout's.
    # batch_size=None: the sampler gives whole batches.
    sampler = Batches(parts, batch_size, rank, processes)
    return DataLoader(images, batch_size=None, sampler=sampler, generator=torch.Generator())


def share(size: int, rank: int, processes: int) -> slice:
    """Return which images of a batch belong to a process: consecutive ones, as many as the others have or one fewer.

    Every image is in exactly one share, which may be empty. torch's `DistributedSampler` would repeat some to make
    shares equal, and count them twice.
    """
    return slice(size * rank // processes, size * (rank + 1) // processes)


def epoch_order(size: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the order in which an epoch goes through so many training images: int64 (size,)."""
    return torch.randperm(size, generator=generator(Stream.ORDER, seed, epoch))


def epoch_draws(size: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the random numbers of an epoch's augmentation: (size, 3) in [-1, 1], one row per position in the epoch."""
    return torch.rand(size, 3, generator=generator(Stream.AUGMENT, seed, epoch)) * 2 - 1


def grey_counts(images: torch.Tensor) -> torch.Tensor:
    """Return how many numbers of uint8 images have each of the 256 values: float64 (256,), whole numbers."""
    return torch.bincount(images.flatten(), minlength=256).double()


class ImageData(LightningDataModule):
    """Train, validation and test images of one data set.

    Batches are float images (B, C, H, W) in [0, 1], C = 1 for grey and 3 for colour, in float32 (float64 if the trainer
    has precision="64-true"), and int64 labels (B,); training images are augmented. `mean` and `std` are those of the
    training pixels: `Classifier` normalises. Images are loaded when something of them is first used.

    Args:
        name: auto, mnist, fashion_mnist, kmnist, digits or folder.
        root, download, size: Settings `data.root`, `data.download` and `data.size`.
        batch_size: Training images per step; the last step of an epoch takes what is left.
        train_size: Training images used, drawn from those that are not held out; None: all of them.
        val_size: Training images held out; None: 5,000, or a tenth of a smaller set.
        rotation, shift: Largest augmentation either way, in degrees and pixels.
        test_curve: Whether `fit` scores the test set after every epoch, for drawing only.
        seed: Of the held-out split, the order of images and the augmentation.

    What is not given has the value of conf/config.yaml.

    Attributes:
        train, val, test: images that are trained on, held out, and of the test.
        classes: the names of the labels. num_classes: how many. channels: 1 or 3. size: height and width, in pixels.
        mean, std: of the training pixels, in [0, 1].

    Raises:
        ConfigError: where a value is out of range; later, when the images are loaded, where val_size leaves no image to
            train on, or fewer than train_size.
        DataError: when the images are loaded and cannot be had.
    """

    predicted = ("train", "test")  # the parts that `predict_dataloader` goes through, once after training
    train: TrainingSubset
    val: ImageSubset
    test: ImageSubset
    classes: tuple[str, ...]
    mean: float
    std: float

    def __init__(
        self,
        name: str | None = None,
        *,
        root: str | None = None,
        download: bool | None = None,
        size: int | None = None,
        batch_size: int | None = None,
        train_size: int | None = None,
        val_size: int | None = None,
        rotation: float | None = None,
        shift: float | None = None,
        test_curve: bool | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        values = {
            "data": _given(name=name, root=root, download=download, size=size),
            "augment": _given(rotation=rotation, shift=shift),
            **_given(batch_size=batch_size, train_size=train_size, val_size=val_size, test_curve=test_curve, seed=seed),
        }
        self._take(checked(values))

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the images of a run, whose settings are not checked again."""
        data = cls.__new__(cls)
        LightningDataModule.__init__(data)
        data._take(settings)
        return data

    def _take(self, settings: Settings) -> None:
        self.source, self.dataset = settings.data, str(settings.data.name)
        self.train_size, self.val_size = settings.train_size, settings.val_size
        self.batch_size, self.test_curve, self.seed = settings.batch_size, settings.test_curve, settings.seed
        self.rotation, self.shift = settings.augment.rotation, settings.augment.shift
        self.rank, self.processes = 0, 1  # whose share of every batch `ArrayImages` gives, of how many

    def __getattr__(self, name: str) -> Any:
        """Load the images when one of the attributes that follow from them is first used."""
        if name not in ImageData.__annotations__ or "classes" in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.setup()
        return self.__dict__[name]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def channels(self) -> int:
        return self.test.pool[0].shape[1]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.test.pool[0].shape[2:]
        return height, width

    @property
    def curves(self) -> tuple[str, ...]:
        """Which held-out sets `fit` scores after every epoch, in the order of `val_dataloader`."""
        return (("val",) if len(self.val) else ()) + (("test",) if self.test_curve else ())

    def setup(self, stage: str | None = None) -> None:
        if "classes" in self.__dict__:
            return
        root, download = self.source.root, self.source.download
        if self.dataset == "auto":
            resolved = resolve("auto", root, download=download)
            if resolved.reason:
                rank_zero_warn(resolved.reason)
            self.dataset = resolved.name
        self.hold(load(self.dataset, root, download=download, size=self.source.size))

    def hold(self, images: Images) -> None:
        """Take the images in, hold the validation part out and measure mean and deviation of the training pixels."""
        train = _part(images.train_images, images.train_labels)
        self.test = _part(images.test_images, images.test_labels)
        self._split(train, grey_counts(train.pool[0]))
        self.classes = images.classes  # last: it stands for all of them

    def hold_as(self, other: "ImageData") -> None:
        """Take the images of another data module without a copy; the split is that of this one's own seed."""
        self.dataset, self.test = other.dataset, other.test
        self._split(ImageSubset(*other.train.pool), other._grey)
        self.classes = other.classes

    def _split(self, everything: ImageSubset, grey: torch.Tensor) -> None:
        train_size, val_size = split(self.dataset, len(everything), self.train_size, self.val_size)
        order = torch.randperm(len(everything), generator=generator(Stream.SPLIT, self.seed))
        self.val = ImageSubset(*everything.pool, order[:val_size].sort().values)
        where = order[val_size : val_size + train_size].sort().values
        self.train = TrainingSubset(everything.pool, where, seed=self.seed, rotation=self.rotation, shift=self.shift)
        # By the histogram of the 256 grey values: exact, and without a float copy of every pixel.
        self._grey = grey
        every = train_size + val_size == len(everything)
        counts = grey - grey_counts(self.val.images) if every else grey_counts(self.train.images)
        values = torch.arange(256, dtype=torch.float64) / 255
        mean = (counts * values).sum() / counts.sum()
        self.mean = mean.item()
        self.std = ((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt().item() or 1.0
        self.train.mean, self.train.std = self.mean, self.std  # for whoever has a loader of it alone

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.train, self.batch_size)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        return [self._loader(getattr(self, part), EVAL_BATCH) for part in self.curves]

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.in_order("test")

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        return [self.in_order(part) for part in self.predicted]

    def in_order(self, part: str) -> DataLoader[Batch]:
        """Return a loader of "train", "val" or "test" for evaluation: in file order, without augmentation."""
        images: ImageSubset = getattr(self, part)
        return self._loader(ImageSubset(*images.pool, images.where), EVAL_BATCH)

    def _loader(self, part: ImageSubset, batch_size: int) -> DataLoader[Batch]:
        double = self.trainer is not None and self.trainer.precision == "64-true"
        part.dtype = torch.float64 if double else torch.float32
        return in_batches(part, [part], batch_size)

    def images_of_step(self, index: int) -> int:
        """Return how many images step `index` of an epoch has, from 0, all processes together."""
        return min(self.batch_size, len(self.train) - index * self.batch_size)

    def inputs(
        self, part: ImageSubset, index: torch.Tensor | slice, net: nn.Module, draws: torch.Tensor | None = None
    ) -> Batch:
        """Return images and labels of a part, by their places in file order, as `net` takes them: normalised, of its
        type, on its device, moved by the draws (n, 3) of their augmentation. Labels are (n,)."""
        like, where = next(net.parameters()), part.where[index]
        pixels = self.train.augmented(part.pool[0][where].to(like.device, like.dtype) / 255, draws)
        return (pixels - self.mean) / self.std, part.pool[1][where].to(like.device)


def _part(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> ImageSubset:
    channels_last = torch.from_numpy(images).view(*images.shape[:3], -1)
    return ImageSubset(channels_last.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels).long())


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
