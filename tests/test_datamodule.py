"""The data module: which images, in which order, in what form they reach the network."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from normlab.data.datamodule import ImageData
from normlab.data.sources import Images
from normlab.errors import ConfigError


def images(train: int = 100, test: int = 30) -> Images:
    """Every training image carries its own number in its first two pixels, so that it can be followed."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (train, 28, 28), dtype=np.uint8)
    pixels[:, 0, 0], pixels[:, 0, 1] = np.divmod(np.arange(train), 256)
    return Images(
        name="made",
        train_images=pixels,
        train_labels=rng.integers(0, 10, train, dtype=np.uint8),
        test_images=rng.integers(0, 256, (test, 28, 28), dtype=np.uint8),
        test_labels=rng.integers(0, 10, test, dtype=np.uint8),
        classes=tuple("0123456789"),
    )


def made(source: Images | None = None, **options: object) -> ImageData:
    data = ImageData("made", **{"batch_size": 16, "val_size": 20, **options})
    data.hold(source or images())
    return data


def numbers(batch: torch.Tensor) -> list[int]:
    return (batch[:, 0, 0, 0].int() * 256 + batch[:, 0, 0, 1].int()).tolist()


def order(data: ImageData, epoch: int) -> list[int]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return [number for batch, _ in loader for number in numbers(batch)]


def test_an_epoch_shows_every_training_image_once_and_none_that_is_held_out() -> None:
    data = made()
    seen, held_out = order(data, 0), numbers(data.val.images)
    assert sorted(seen + held_out) == list(range(100))
    assert (len(seen), len(held_out)) == (80, 20)
    assert [len(labels) for _, labels in data.train_dataloader()] == [16] * 5


def test_the_last_batch_takes_what_is_left() -> None:
    assert [len(labels) for _, labels in made(batch_size=30).train_dataloader()] == [30, 30, 20]


def test_labels_stay_with_their_images() -> None:
    source = images()
    for batch, labels in made(source).train_dataloader():
        assert labels.tolist() == source.train_labels[numbers(batch)].tolist()


def test_order_and_split_follow_from_seed_and_epoch() -> None:
    assert order(made(seed=3), 2) == order(made(seed=3), 2)
    assert order(made(seed=3), 2) != order(made(seed=3), 3)
    assert order(made(seed=3, val_size=0), 2) != order(made(seed=4, val_size=0), 2)
    assert numbers(made(seed=3).val.images) != numbers(made(seed=4).val.images)


def test_order_leaves_the_global_generator_alone_and_is_left_alone_by_it() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = order(made(), 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert order(made(), 0) == first


def test_a_batch_is_one_indexing_call(monkeypatch: pytest.MonkeyPatch) -> None:
    data = made()
    calls = []
    whole = type(data.train).__getitems__
    monkeypatch.setattr(
        type(data.train), "__getitems__", lambda self, where: calls.append(len(where)) or whole(self, where)
    )
    monkeypatch.setattr(type(data.train), "__getitem__", lambda self, index: pytest.fail("image by image"))
    list(data.train_dataloader())
    assert calls == [16] * 5


def arriving(data: ImageData, *, training: bool, epoch: int = 0, size: int = 16) -> torch.Tensor:
    """A batch of the first images, as the network gets it."""
    data.trainer = SimpleNamespace(training=training, current_epoch=epoch, precision="32-true")  # type: ignore[assignment]
    return data.on_after_batch_transfer((data.train.images[:size], data.train.labels[:size]), 0)[0]


def test_pixels_have_mean_0_and_deviation_1_over_the_training_part() -> None:
    data = made()
    part = data.train.images.double() / 255
    assert data.mean == pytest.approx(part.mean().item(), abs=1e-12)
    assert data.std == pytest.approx(part.std(correction=0).item(), abs=1e-12)
    got = arriving(data, training=False, size=80)
    torch.testing.assert_close(got.double(), (part - part.mean()) / part.std(correction=0), atol=1e-5, rtol=0)


def test_only_training_images_are_moved() -> None:
    data = made()
    still = arriving(data, training=False)
    assert not torch.allclose(arriving(data, training=True), still)
    torch.testing.assert_close(arriving(made(rotation=0, shift=0), training=True), still)


def test_what_is_drawn_follows_from_seed_and_epoch_not_from_the_batch_size() -> None:
    def draws(data: ImageData, sizes: list[int], epoch: int) -> torch.Tensor:
        return torch.cat([data._next_draws(size, epoch) for size in sizes])

    one = draws(made(seed=1), [80], 0)
    assert torch.equal(draws(made(seed=1), [16] * 5, 0), one)
    again = made(seed=1)
    assert not torch.equal(draws(again, [80], 1), one)
    assert torch.equal(draws(again, [80], 0), one), "an epoch can be done again"
    assert not torch.equal(draws(made(seed=2), [80], 0), one)
    assert one.shape == (80, 3)
    assert one.min() >= -1
    assert one.max() <= 1


@pytest.mark.parametrize(("asked", "held_out"), [(None, 10), (0, 0), (7, 7)])
def test_val_size(asked: int | None, held_out: int) -> None:
    data = made(val_size=asked)
    assert (len(data.val), len(data.train)) == (held_out, 100 - held_out)
    assert data.curves == (("val",) if held_out else ())


def test_val_size_leaves_something_to_train_on() -> None:
    with pytest.raises(ConfigError, match="val_size=100 leaves none of the 100"):
        made(val_size=100)


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


def test_a_data_module_that_shares_images_draws_its_own() -> None:
    first = made(train_size=10, seed=3)
    other = ImageData("made", batch_size=16, val_size=20, train_size=10, seed=4)
    other.hold_as(first)
    alone = made(train_size=10, seed=4)
    assert numbers(other.train.images) == numbers(alone.train.images) != numbers(first.train.images)
    assert (other.mean, other.std) == (alone.mean, alone.std)
    assert len(other.test) == len(alone.test)


def test_train_size_is_no_larger_than_what_is_left() -> None:
    assert len(made(train_size=80).train) == 80
    with pytest.raises(ConfigError) as caught:
        made(train_size=81)
    assert str(caught.value) == "train_size=81: only 80 training images of made are not held out"


def test_the_test_set_is_scored_in_file_order_and_drawn_only_on_request() -> None:
    data = made()
    assert torch.equal(torch.cat([batch for batch, _ in data.in_order("test")]), data.test.images)
    assert made(test_curve=True).curves == ("val", "test")
    assert made(test_curve=True, val_size=0).curves == ("test",)
    assert len(made().val_dataloader()) == 1
