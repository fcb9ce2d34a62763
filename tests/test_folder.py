"""A person's own images: the layouts that are read, what follows from them, and one line for each mistake."""

import gzip
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_sources import as_idx

from normlab.data.datamodule import ImageData
from normlab.data.published import NAMES
from normlab.data.sources import load, resolve
from normlab.errors import ConfigError, DataError
from normlab.record import Record
from normlab.report import main as report
from normlab.settings.plan import load as load_settings
from normlab.settings.plan import plan
from normlab.training import run


def pixels(number: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


def put(folder: Path, classes: dict[str, int], *shape: int, start: int = 0) -> Path:
    """So many PNG files per class; image number n is `pixels(n, *shape)`."""
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(start, start := start + count):
            Image.fromarray(pixels(number, *shape)).save(folder / name / f"{number:03}.png")
    return folder


def test_train_and_test_folders(tmp_path: Path) -> None:
    put(tmp_path / "train", {"ant": 3, "bee": 4}, 20, 30)
    put(tmp_path / "test", {"ant": 1, "bee": 1}, 20, 30, start=7)
    images = load("folder", tmp_path)
    assert images.classes == ("ant", "bee")
    assert images.train_labels.tolist() == [0] * 3 + [1] * 4
    assert images.test_labels.tolist() == [0, 1]
    assert np.array_equal(images.train_images, [pixels(number, 20, 30) for number in range(7)])
    assert np.array_equal(images.test_images, [pixels(number, 20, 30) for number in (7, 8)])


def test_without_a_test_folder_a_fifth_of_every_class_is_held_out(tmp_path: Path) -> None:
    images = load("folder", put(tmp_path, {"a": 10, "b": 20, "c": 5}, 8, 8))
    assert np.bincount(images.test_labels).tolist() == [2, 4, 1]
    assert np.bincount(images.train_labels).tolist() == [8, 16, 4]
    every = [*images.train_images, *images.test_images]
    assert sorted(image.tobytes() for image in every) == sorted(pixels(n, 8, 8).tobytes() for n in range(35))
    assert np.array_equal(load("folder", tmp_path).test_images, images.test_images), "always the same ones"


def test_colour_and_grey(tmp_path: Path) -> None:
    """Three channels if one image has them; grey levels stay, transparency goes."""
    put(tmp_path / "train", {"a": 2}, 9, 9, 3)
    put(tmp_path / "train", {"b": 2}, 9, 9, start=2)
    put(tmp_path / "val", {"a": 1, "b": 1}, 9, 9, 4, start=4)
    images = load("folder", tmp_path)
    assert np.array_equal(images.train_images[:2], [pixels(n, 9, 9, 3) for n in (0, 1)])
    assert np.array_equal(images.train_images[2], np.repeat(pixels(2, 9, 9)[..., None], 3, 2))
    assert np.array_equal(images.test_images[0], pixels(4, 9, 9, 4)[..., :3])


def test_size_scales_the_shorter_side_and_crops_the_longer(tmp_path: Path) -> None:
    put(tmp_path, {"a": 5}, 10, 10)
    wide = np.zeros((20, 40), np.uint8)
    wide[:, 10:30] = 200  # its central square, which stays
    (tmp_path / "b").mkdir()
    for number in range(5):
        Image.fromarray(wide).save(tmp_path / "b" / f"{number}.png")
    with pytest.raises(DataError, match=r"different sizes \(10x10 and 40x20 pixels\): set data\.size") as caught:
        load("folder", tmp_path)
    assert "\n" not in str(caught.value)
    images = load("folder", tmp_path, size=10)
    assert images.train_images.shape == (8, 10, 10)
    assert images.test_images[1].min() > 150  # the filter sees a little of what is cropped


def put_idx(
    root: Path, form: Callable[[str, bytes], tuple[str, bytes]] = lambda name, content: (name, content)
) -> None:
    for name, array in zip(NAMES, idx_arrays(), strict=True):
        path, content = form(name, as_idx(array))
        (root / path).write_bytes(content)


def idx_arrays() -> list[np.ndarray]:
    return [
        pixels(0, 30, 12, 16),
        np.arange(30, dtype=np.uint8) % 13,
        pixels(1, 6, 12, 16),
        np.arange(6, dtype=np.uint8),
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_of_any_number_size_and_classes(tmp_path: Path, packed: bool) -> None:
    put_idx(tmp_path, lambda name, content: (f"{name}.gz", gzip.compress(content)) if packed else (name, content))
    images = load("folder", tmp_path)
    found = (images.train_images, images.train_labels, images.test_images, images.test_labels)
    assert all(np.array_equal(x, y) for x, y in zip(found, idx_arrays(), strict=True))
    assert images.classes == tuple(map(str, range(13)))
    assert load("folder", tmp_path, size=8).test_images.shape == (6, 8, 8)


@pytest.mark.parametrize(("shape", "channels"), [((20, 30), 1), ((24, 24, 3), 3)])
def test_classes_size_and_channels_follow_from_the_data(tmp_path: Path, shape: tuple[int, ...], channels: int) -> None:
    put(tmp_path, {"a": 10, "b": 10, "c": 10}, *shape)
    data = ImageData("folder", root=str(tmp_path), batch_size=8, val_size=4)
    assert (data.classes, data.num_classes) == (("a", "b", "c"), 3)
    assert (data.size, data.channels) == (shape[:2], channels)
    for loader in (data.train_dataloader(), *data.val_dataloader(), data.test_dataloader()):
        for images, labels in loader:
            assert images.shape[1:] == (channels, *shape[:2])
            assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
            assert 0 <= images.min() < images.max() <= 1
    assert data.mean == pytest.approx(data.train.images.double().mean().item() / 255)


def spoilt(name: str, spoil: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Four idx files, of which one is not what it should be."""
    return lambda root: put_idx(root, lambda each, content: (each, spoil(content) if each == name else content))


def with_file(name: str, write: Callable[[Path], object]) -> Callable[[Path], object]:
    """Two classes, and a file beside their images."""
    return lambda root: (put(root, {"a": 5, "b": 5}, 8, 8), write(root / name))


MISTAKES: dict[Callable[[Path], object], str] = {
    lambda root: root.rmdir(): "data.root={root} is not a folder: make it",
    lambda root: None: "data=folder reads {root}/train/<class> with {root}/test/<class>, or {root}/<class>",
    lambda root: put(
        root, {"a": 5, "b": 1}, 8, 8
    ): "{root}: too few images to hold a fifth of every class for the test",
    with_file("b/x.png", lambda file: file.write_bytes(b"no image")): "{root}/b/x.png cannot be read as an image",
    with_file(
        "a/x.png", lambda file: Image.fromarray(np.zeros((8, 8), np.uint16)).save(file)
    ): "{root}/a/x.png has more than 8 bits per pixel: save it with 8",
    lambda root: (
        put(root / "train", {"a": 5, "b": 5}, 8, 8),
        put(root / "test", {"a": 5, "c": 5}, 8, 8),
    ): "{root}/train and {root}/test have different classes: b, c in one only",
    lambda root: put(root, {"a": 5}, 8, 8): "{root} has training images of one class alone",
    spoilt(NAMES[1], lambda _: as_idx(np.ones(30, np.uint8))): "{root} has training images of one class alone",
    lambda root: (
        put(root, {"a": 5}, 8, 8),
        put(root, {"b": 5}, 8, 9),
    ): "images have different sizes (8x8 and 9x8 pixels): set data.size",
    lambda root: put(root, {"a": 5, "b": 0}, 8, 8): "Found no valid file for the classes b",
    lambda root: (put_idx(root), (root / NAMES[3]).unlink()): "{root} has idx files but no t10k-labels-idx1-ubyte",
    spoilt(
        NAMES[2], lambda content: content[:-1]
    ): "{root}/t10k-images-idx3-ubyte cannot be read: 1,167 bytes, where its header states 1,168",
    spoilt(
        NAMES[2], lambda content: b"\0\0\x0d" + content[3:]
    ): "{root}/t10k-images-idx3-ubyte cannot be read: not an idx file of unsigned bytes",
    spoilt(
        NAMES[1], lambda _: as_idx(np.zeros(29, np.uint8))
    ): "{root}/train-labels-idx1-ubyte has 29 labels for 30 images",
    spoilt(
        NAMES[2], lambda _: as_idx(pixels(1, 6, 12, 12))
    ): "{root}: images have different sizes (16x12 and 12x12 pixels): set data.size",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_on_one_line(tmp_path: Path, mistake: Callable[[Path], object]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    mistake(root)
    with pytest.raises(DataError) as caught:
        load("folder", root)
    with pytest.raises(DataError) as early:  # before a run begins
        resolve("folder", root)
    assert str(early.value) == str(caught.value)
    assert MISTAKES[mistake].format(root=root) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_of_a_folder(tmp_path: Path) -> None:
    """It needs a root, which is part of what a run is; size is a folder's alone."""
    with pytest.raises(ConfigError, match=r"data=folder needs data\.root=…, the folder of your images"):
        load_settings("data=folder")
    with pytest.raises(ConfigError, match=r"data=folder needs data\.root"):
        ImageData("folder")
    with pytest.raises(ConfigError, match=r"data\.size goes with data=folder, not with data=digits"):
        ImageData("digits", size=14)
    with pytest.raises(ConfigError, match=r"data\.root goes with data=.*folder.*, not with data=digits"):
        load_settings("data=digits", "data.root=/nowhere")
    words = [
        ["data=folder", "data.root=a"],
        ["data=folder", "data.root=b"],
        ["data=folder", "data.root=a", "data.size=9"],
    ]
    assert len({load_settings(*each).config_hash() for each in words}) == 3
    moved = load_settings("data=mnist", "data.root=a").config_hash()
    assert load_settings("data=mnist").config_hash() == moved, "what is published is the same everywhere"


def test_a_folder_is_one_however_it_is_spelt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "img", {"a": 1, "b": 1}, 8, 8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    spelt = ["img", "'~/img'", f"{tmp_path}/img/", "../" + tmp_path.name + "/img"]
    found = [load_settings("data=folder", f"data.root={each}") for each in spelt]
    assert {each.data.root for each in found} == {str(tmp_path / "img")}
    assert len({each.config_hash() for each in found}) == 1


def test_a_folder_that_was_changed_is_refused(tmp_path: Path) -> None:
    """By names and sizes; neither hidden files nor what lies beside train and test count."""
    words = ["data=folder", f"data.root={put(tmp_path / 'img', {'train': 1, 'test': 1}, 8, 8)}"]
    before = load_settings(*words)
    Record.of(before, "failed", "made up").save(tmp_path)
    (tmp_path / "img" / "lightning_logs.png").touch()
    (tmp_path / "img" / "train" / ".DS_Store").touch()
    assert load_settings(*words).config_hash() == before.config_hash()
    (tmp_path / "img" / "train" / "000.png").write_bytes(b"another size")
    changed = load_settings(*words)
    assert changed.setting() == before.setting()
    with pytest.raises(ConfigError, match=r"or files in .*/img were changed since: choose another name"):
        Record.standing(tmp_path, changed.config_hash())


def test_folders_can_be_swept() -> None:
    jobs = plan(["data=folder", "data.root=img/A,img/D,other/A"], multirun=True)
    assert len({job.folder for job in jobs}) == 3
    assert all(re.fullmatch(r"bn-folder-root_[AD]_\w{6}-seed_0", job.folder.name) for job in jobs)
    assert jobs[0].settings.setting()["data.root"] == str(Path("img/A").absolute())


def test_more_than_ten_classes_are_trained_and_reported(tmp_path: Path) -> None:
    """With their names where the images are there, else by their numbers."""
    root = put(tmp_path / "img", {f"kind {letter}": 10 for letter in "abcdefghijkl"}, 28, 28)
    words = ["data=folder", f"data.root={root}", "epochs=1", "batch_size=32", "val_size=12", "accelerator=cpu"]
    for seed in (0, 1):
        run(load_settings(*words, f"seed={seed}"), tmp_path / "runs" / str(seed))
    for names in (["kind a", "kind l"], ["11"]):
        assert report([str(tmp_path / "runs")]) == 0
        confusion = (tmp_path / "runs/figures/confusion.svg").read_text(encoding="utf-8")
        assert all(f">{name}</text>" in confusion for name in names)
        shutil.rmtree(root, ignore_errors=True)
