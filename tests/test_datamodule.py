"""The data module: which images, in which order, in what form they reach the network."""

import itertools

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from normlab.data.augment import rotate_and_shift
from normlab.data.datamodule import ImageData, epoch_draws, epoch_order
from normlab.data.several import ArrayImages
from normlab.data.sources import Images, MissingError
from normlab.errors import ConfigError
from normlab.settings import defaults


def images(train: int = 100, test: int = 30) -> Images:
    """Every training image carries its own number in its first two pixels, so that it can be followed."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (train, 28, 28), dtype=np.uint8)
    pixels[:, 0, 0], pixels[:, 0, 1] = np.divmod(np.arange(train), 256)
    labels = rng.integers(0, 10, train, dtype=np.uint8)
    test_images, test_labels = rng.integers(0, 256, (test, 28, 28), np.uint8), rng.integers(0, 10, test, np.uint8)
    return Images("made", pixels, labels, test_images, test_labels, tuple("0123456789"))


def made(source: Images | None = None, **options: object) -> ImageData:
    """Without augmentation, unless it is given."""
    data = ImageData("digits", **{"batch_size": 16, "val_size": 20, "rotation": 0, "shift": 0, **options})
    data.hold(source or images())
    return data


def numbers(batch: torch.Tensor) -> list[int]:
    pixels = batch if batch.dtype == torch.uint8 else (batch * 255).round()
    return (pixels[:, 0, 0, 0].int() * 256 + pixels[:, 0, 0, 1].int()).tolist()


def order(data: ImageData, epoch: int) -> list[int]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return [number for batch, _ in loader for number in numbers(batch)]


def test_an_epoch_shows_every_training_image_once_with_its_label_and_none_that_is_held_out() -> None:
    source = images()
    data = made(source)
    seen, held_out = order(data, 0), numbers(data.val.images)
    assert sorted(seen + held_out) == list(range(100))
    assert (len(seen), len(held_out)) == (80, 20)
    for batch, labels in data.train_dataloader():
        assert len(labels) == 16
        assert labels.tolist() == source.train_labels[numbers(batch)].tolist()
    assert [len(labels) for _, labels in made(batch_size=30).train_dataloader()] == [30, 30, 20]
    assert len(made(batch_size=30).train_dataloader()) == 3


def test_order_and_split_follow_from_seed_and_epoch() -> None:
    assert order(made(seed=3), 2) == order(made(seed=3), 2) != order(made(seed=3), 3)
    assert order(made(seed=3, val_size=0), 2) != order(made(seed=4, val_size=0), 2)
    assert numbers(made(seed=3).val.images) != numbers(made(seed=4).val.images)
    data = made(seed=3)
    assert order(data, 2) == numbers(data.train.images[epoch_order(80, 3, 2)])


def test_every_iteration_is_the_next_epoch_and_none_disturbs_another() -> None:
    data = made()
    epochs = [order(data, epoch) for epoch in range(2)]
    loader = data.train_dataloader()
    assert [[number for batch, _ in loader for number in numbers(batch)] for _ in range(2)] == epochs
    loader = data.train_dataloader()
    pairs = [(numbers(one), numbers(other)) for (one, _), (other, _) in zip(loader, loader, strict=True)]
    assert [[*itertools.chain(*epoch)] for epoch in zip(*pairs, strict=True)] == epochs


def test_order_leaves_the_global_generator_alone_and_is_left_alone_by_it() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = order(made(rotation=7), 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert order(made(rotation=7), 0) == first


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_loaders_by_themselves_give_floats(part: str) -> None:
    """Our own loaders, before `setup`, and a plain one over a part: float images in [0, 1], int64 labels."""
    data = ImageData("digits", batch_size=16)
    loader = data.val_dataloader()[0] if part == "val" else getattr(data, f"{part}_dataloader")()
    for images, labels in (next(iter(loader)), next(iter(DataLoader(getattr(data, part), 16)))):
        assert images.shape[1:] == (1, 28, 28)
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert 0 <= images.min() < 0.1 < 0.9 < images.max() <= 1
    assert (data.size, data.channels, data.num_classes) == ((28, 28), 1, 10)


def test_evaluation_is_in_file_order_without_augmentation() -> None:
    data = made(rotation=7, shift=2)
    for part in ("train", "val", "test"):
        held = getattr(data, part)
        batches = [*data.in_order(part)]
        assert torch.equal(torch.cat([batch for batch, _ in batches]), held.images.float() / 255)
        assert torch.equal(torch.cat([labels for _, labels in batches]), held.labels)
    assert [len(loader) for loader in data.predict_dataloader()] == [1, 1]
    assert made(test_curve=True).curves == ("val", "test")
    assert made(test_curve=True, val_size=0).curves == ("test",)
    assert len(made().val_dataloader()) == 1


@pytest.mark.parametrize("double", [False, True])
def test_training_images_are_moved_by_the_draws_of_their_position(double: bool) -> None:
    """Whatever the batch size; in float64 from the bytes on where the trainer asks for it."""
    for batch_size in (16, 80):
        data = made(seed=1, rotation=7, shift=2, batch_size=batch_size)
        if double:
            data.trainer = Trainer(precision="64-true", logger=False, accelerator="cpu")
        loader = data.train_dataloader()
        for epoch in range(2):
            still = data.train.images[epoch_order(80, 1, epoch)].to(torch.float64 if double else torch.float32) / 255
            draws = epoch_draws(80, 1, epoch).to(still)
            expected = rotate_and_shift(still, draws, rotation=7, shift=2)
            assert not torch.allclose(expected, still)
            got = torch.cat([batch for batch, _ in loader])
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-12 if double else 1e-6)
    one, label = data.train[3]
    data.train.set_epoch(1)
    assert torch.equal(one, data.train[3:4][0][0])
    assert label == data.train[3:4][1][0]
    data.train.set_epoch(0)
    assert not torch.equal(one, data.train[3][0])


@pytest.mark.parametrize("train_size", [70, None])
def test_several_runs_have_the_batches_that_each_has_alone(train_size: int | None) -> None:
    """Of images that are in memory once, each run draws its own."""
    words = {"rotation": 7, "shift": 2, "batch_size": 30, "train_size": train_size}
    runs, alone = ([made(seed=seed, **words) for seed in (0, 5)] for _ in range(2))
    runs[1].hold_as(runs[0])
    assert runs[1].train.pool[0] is runs[0].train.pool[0]
    several = ArrayImages(runs)
    batches = [several.on_after_batch_transfer(positions, 0) for positions in several.train_dataloader()]
    for (images, labels), *each in zip(batches, *(data.train_dataloader() for data in alone), strict=True):
        for index, (own, own_labels) in enumerate(each):
            torch.testing.assert_close(images[index], own, rtol=0, atol=1e-6)
            assert labels[index].tolist() == own_labels.tolist()
    assert images.shape[:2] == (2, 10 if train_size else 20), "the last batch takes what is left"
    for shared, own in zip(runs, alone, strict=True):
        assert (shared.mean, shared.std, shared.classes) == (own.mean, own.std, own.classes)
        assert torch.equal(shared.test.images, own.test.images)


def test_sizes() -> None:
    for asked, held_out in ((None, 10), (0, 0), (7, 7)):
        data = made(val_size=asked)
        assert (len(data.val), len(data.train)) == (held_out, 100 - held_out)
        assert data.curves == (("val",) if held_out else ())
    with pytest.raises(ConfigError, match=r"^val_size=100 leaves none of 100 training images of digits$"):
        made(val_size=100)
    assert len(made(train_size=80).train) == 80
    with pytest.raises(ConfigError, match=r"^train_size=81: only 80 training images of digits are not held out$"):
        made(train_size=81)


def test_train_size_draws_some_of_what_is_not_held_out() -> None:
    """By the seed; a larger train_size has the images of a smaller one, and the held-out part stays what it was."""
    few, more, rest = (made(train_size=size, seed=3) for size in (10, 40, None))
    drawn = [set(numbers(data.train.images)) for data in (few, more, rest)]
    assert [len(each) for each in drawn] == [10, 40, 80]
    assert drawn[0] < drawn[1] < drawn[2]
    assert len({tuple(numbers(data.val.images)) for data in (few, more, rest)}) == 1
    assert not drawn[2] & set(numbers(few.val.images))
    assert drawn[0] == set(numbers(made(train_size=10, seed=3).train.images))
    assert drawn[0] != set(numbers(made(train_size=10, seed=4).train.images))
    assert sorted(order(few, 0)) == sorted(drawn[0]), "an epoch shows these and no others"


@pytest.mark.parametrize("train_size", [1, 10, 80])
def test_mean_and_deviation_are_of_the_images_used(train_size: int) -> None:
    data = made(train_size=train_size)
    part = data.train.images.double() / 255
    assert len(part) == train_size
    assert data.mean == pytest.approx(part.mean().item(), abs=1e-12)
    assert data.std == pytest.approx(part.std(correction=0).item(), abs=1e-12)


def test_what_is_not_given_is_that_of_the_configuration() -> None:
    usual, data = defaults(), ImageData()
    assert data.dataset == usual["data"]["name"]
    assert (data.rotation, data.shift) == (usual["augment"]["rotation"], usual["augment"]["shift"])
    for name in ("batch_size", "train_size", "val_size", "test_curve", "seed"):
        assert getattr(data, name) == usual[name]


def test_values_out_of_range_are_told_on_one_line() -> None:
    for values, message in (
        ({"name": "cifar"}, r"^data=cifar: choose one of auto, digits, .*mnist$"),
        ({"batch_size": 0}, "^batch_size=0: .*greater than or equal to 1$"),
        ({"rotation": 181}, r"^augment\.rotation=181: .*less than or equal to 180$"),
        ({"val_size": -1}, "^val_size=-1: .*greater than or equal to 0$"),
    ):
        with pytest.raises(ConfigError, match=message):
            ImageData(**values)


def test_auto_is_settled_when_images_are_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NORMLAB_DATA", raising=False)
    data = ImageData("auto", download=False)
    with pytest.warns(UserWarning, match="MNIST is not on this machine .* training on scikit-learn's digits"):
        assert len(data.test) == 500
    assert data.dataset == "digits"
    with pytest.raises(MissingError, match="MNIST is not in "):
        ImageData("auto", root=str(tmp_path), download=False).setup()
    with pytest.raises(AttributeError, match="'ImageData' object has no attribute 'images'"):
        data.images  # noqa: B018
