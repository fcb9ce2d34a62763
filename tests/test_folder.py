"""A person's own images: the layouts that are read, what follows from them, and one line for each mistake."""

import gzip
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one_line
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


@pytest.mark.parametrize("test", ["test", "val"])
def test_train_and_test_folders_in_colour_and_grey(tmp_path: Path, test: str) -> None:
    """Three channels if one image has them; grey levels stay, transparency goes."""
    put(tmp_path / "train", {"ant": 2}, 9, 12, 3)
    put(tmp_path / "train", {"bee": 3}, 9, 12, start=2)
    put(tmp_path / test, {"ant": 1, "bee": 1}, 9, 12, 4, start=5)
    images = load("folder", tmp_path)
    assert images.classes == ("ant", "bee")
    assert images.train_labels.tolist() == [0] * 2 + [1] * 3
    assert images.test_labels.tolist() == [0, 1]
    assert np.array_equal(images.train_images[:2], [pixels(n, 9, 12, 3) for n in (0, 1)])
    assert np.array_equal(images.train_images[2:], [np.repeat(pixels(n, 9, 12)[..., None], 3, 2) for n in (2, 3, 4)])
    assert np.array_equal(images.test_images, [pixels(n, 9, 12, 4)[..., :3] for n in (5, 6)])


def test_without_a_test_folder_a_fifth_of_every_class_is_held_out(tmp_path: Path) -> None:
    images = load("folder", put(tmp_path, {"a": 10, "b": 20, "c": 5}, 8, 8))
    assert np.bincount(images.test_labels).tolist() == [2, 4, 1]
    assert np.bincount(images.train_labels).tolist() == [8, 16, 4]
    every = [*images.train_images, *images.test_images]
    assert sorted(image.tobytes() for image in every) == sorted(pixels(n, 8, 8).tobytes() for n in range(35))
    assert np.array_equal(load("folder", tmp_path).test_images, images.test_images), "always the same ones"


def test_size_scales_the_shorter_side_and_crops_the_longer(tmp_path: Path) -> None:
    put(tmp_path, {"a": 5}, 10, 10)
    wide = np.zeros((20, 40), np.uint8)
    wide[:, 10:30] = 200  # its central square, which stays
    (tmp_path / "b").mkdir()
    for number in range(5):
        Image.fromarray(wide).save(tmp_path / "b" / f"{number}.png")
    with one_line(DataError, r"different sizes \(10x10 and 40x20 pixels\): set data\.size"):
        load("folder", tmp_path)
    images = load("folder", tmp_path, size=10)
    assert images.train_images.shape == (8, 10, 10)
    assert images.test_images[1].min() > 150  # the filter sees a little of what is cropped


LABELS = np.arange(30, dtype=np.uint8) % 13, np.arange(6, dtype=np.uint8)
IDX = dict(zip(NAMES, (pixels(0, 30, 12, 16), LABELS[0], pixels(1, 6, 12, 16), LABELS[1]), strict=True))
Change = Callable[[Path], object]


def idx(name: str | None = None, content: bytes = b"") -> Change:
    """Writes four idx files, one of them with this content."""

    def write(root: Path) -> None:
        for each, array in IDX.items():
            (root / each).write_bytes(content if each == name else as_idx(array))

    return write


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_of_any_number_size_and_classes(tmp_path: Path, packed: bool) -> None:
    idx()(tmp_path)
    for file in [*tmp_path.iterdir()] if packed else []:
        file.write_bytes(gzip.compress(file.read_bytes()))
        file.rename(f"{file}.gz")
    images = load("folder", tmp_path)
    found = (images.train_images, images.train_labels, images.test_images, images.test_labels)
    assert all(np.array_equal(x, y) for x, y in zip(found, IDX.values(), strict=True))
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


def classes(part: str = "", height: int = 8, **counts: int) -> Change:
    return lambda root: put(root / part, counts, height, 8)


def both(*changes: Change) -> Change:
    return lambda root: [change(root) for change in changes]


TWO, T10K, TEST, DEEP = classes(a=5, b=5), NAMES[2], as_idx(IDX[NAMES[2]]), np.zeros((8, 8), np.uint16)
MISTAKES: dict[str, Change] = {
    "data.root={root} is not a folder: make it": Path.rmdir,
    "data=folder reads {root}/train/<class> with {root}/test/<class>, or {root}/<class>": both(),
    "{root}: too few images to hold a fifth of every class for the test": classes(a=5, b=1),
    "{root} has training images of one class alone": classes(a=5),
    "Found no valid file for the classes b": classes(a=5, b=0),
    "have different sizes (8x8 and 8x9 pixels): set data.size": both(classes(a=5), classes(b=5, height=9)),
    "{root}/train and {root}/test have different classes: b, c in one only": both(
        classes("train", a=5, b=5), classes("test", a=5, c=5)
    ),
    "{root}/b/x.png cannot be read as an image": both(TWO, lambda root: (root / "b/x.png").write_bytes(b"no image")),
    "{root}/a/x.png has more than 8 bits per pixel: save it with 8": both(
        TWO, lambda root: Image.fromarray(DEEP).save(root / "a/x.png")
    ),
    "{root} has idx files but no t10k-labels-idx1-ubyte": both(idx(), lambda root: (root / NAMES[3]).unlink()),
    "{root} has training images of one class alone: a network": idx(NAMES[1], as_idx(np.ones(30, np.uint8))),
    "{root}/t10k-images-idx3-ubyte cannot be read: 1,167 bytes, where its header states 1,168": idx(T10K, TEST[:-1]),
    "{root}/t10k-images-idx3-ubyte cannot be read: not an idx file of unsigned bytes": idx(
        T10K, b"\0\0\x0d" + TEST[3:]
    ),
    "{root}/train-labels-idx1-ubyte has 29 labels for 30 images": idx(NAMES[1], as_idx(np.zeros(29, np.uint8))),
    "{root}: images have different sizes (16x12 and 12x12 pixels): set data.size": idx(
        T10K, as_idx(pixels(1, 6, 12, 12))
    ),
}


@pytest.mark.parametrize("told", MISTAKES)
def test_a_mistake_is_told_on_one_line(tmp_path: Path, told: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    MISTAKES[told](root)
    with one_line(DataError, re.escape(told.format(root=root))) as caught:
        load("folder", root)
    with pytest.raises(DataError) as early:  # before a run begins
        resolve("folder", root)
    assert str(early.value) == str(caught.value)


def test_settings_of_a_folder(tmp_path: Path) -> None:
    """It needs a root, which is part of what a run is; size is a folder's alone."""
    with pytest.raises(ConfigError, match=r"data=folder needs data\.root"):
        ImageData("folder")
    with pytest.raises(ConfigError, match=r"data\.size goes with data=folder, not with data=digits"):
        ImageData("digits", size=14)
    words = (["data.root=a"], ["data.root=b"], ["data.root=a", "data.size=9"])
    assert len({load_settings("data=folder", *each).config_hash() for each in words}) == 3
    moved = load_settings("data=mnist", "data.root=a").config_hash()
    assert load_settings("data=mnist").config_hash() == moved, "what is published is the same everywhere"


def test_a_folder_is_one_however_it_is_spelt(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(here / "img", {"a": 1, "b": 1}, 8, 8)
    monkeypatch.setenv("HOME", str(here))
    spelt = ["img", "'~/img'", f"{here}/img/", "../" + here.name + "/img"]
    found = [load_settings("data=folder", f"data.root={each}") for each in spelt]
    assert {each.data.root for each in found} == {str(here / "img")}
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
        Record.finished_for(tmp_path, changed.config_hash())


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
