"""Data sets: where they are looked for, which damage is noticed, how they are downloaded, without a network."""

import gzip
import hashlib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import filelock
import numpy as np
import platformdirs
import pytest
import torchvision
from conftest import MNIST, one_line
from hypothesis import given, settings
from hypothesis import strategies as st

from normlab.data import published
from normlab.data.published import NAMES
from normlab.data.sources import PUBLISHED, Images, MissingError, Resolved, load, resolve
from normlab.errors import DataError

PACKED = [f"{name}.gz" for name in NAMES]


@dataclass
class Tiny:
    """A data set like MNIST, of 12 + 5 images: what its files hold, and what the module is told about them."""

    arrays: list[np.ndarray]
    raw: dict[str, bytes]
    packed: dict[str, bytes]
    table: published.Published

    def put(self, folder: Path, *names: str) -> Path:
        """Write files into `folder`, packed and unpacked ones by their names; all four packed if none is named."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in names or PACKED:
            (folder / name).write_bytes((self.raw | self.packed)[name])
        return folder

    def is_in(self, images: Images) -> bool:
        found = (images.train_images, images.train_labels, images.test_images, images.test_labels)
        return all(x.dtype == np.uint8 and np.array_equal(x, y) for x, y in zip(found, self.arrays, strict=True))


def make_tiny(seed: int = 0) -> Tiny:
    rng = np.random.default_rng(seed)
    shapes = [(12, 28, 28), (12,), (5, 28, 28), (5,)]
    arrays = [rng.integers(0, 256 if len(shape) == 3 else 10, shape, np.uint8) for shape in shapes]
    raw = dict(zip(NAMES, map(as_idx, arrays), strict=True))
    packed = {f"{name}.gz": gzip.compress(content, mtime=1) for name, content in raw.items()}
    md5s = (tuple(hashlib.md5(content).hexdigest() for content in each.values()) for each in (packed, raw))
    return Tiny(arrays, raw, packed, published.Published("MNIST", "MNIST", *md5s, published.DIGITS))


def as_idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty user cache, no $NORMLAB_DATA, no mirrors, no proxy."""
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *args, **options: tmp_path / "cache")
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    monkeypatch.delenv("NORMLAB_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "data"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    made = make_tiny()
    monkeypatch.setitem(PUBLISHED, "mnist", made.table)
    return made


def names_in(folder: Path) -> list[str]:
    """Every file below `folder`, hidden ones too, without the lock of downloads."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return sorted(str(path.relative_to(folder)) for path in files)


# --- finding ---------------------------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[str, bytes], tuple[str, bytes]]] = {  # what people have: name and content
    "published": lambda name, raw: (f"{name}.gz", gzip.compress(raw, mtime=1)),
    "unpacked": lambda name, raw: (name, raw),
    "repacked": lambda name, raw: (f"{name}.gz", gzip.compress(raw, 1, mtime=2)),
    "unpacked by the browser": lambda name, raw: (f"{name}.gz", raw),
    "Kaggle": lambda name, raw: (name.replace("-idx", ".idx"), raw),
    "Kaggle, nested": lambda name, raw: (f"{name}/{name}", raw),
    "mixed": lambda name, raw: (name, raw) if "train" in name else (f"{name}.gz", gzip.compress(raw, mtime=1)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", ["MNIST/raw", "raw", "."])
def test_files_are_told_by_their_content(tiny: Tiny, tmp_path: Path, form: str, layout: str) -> None:
    """And nothing is written beside them: a place may be read-only."""
    folder = tmp_path / "root" / layout
    for name, raw in tiny.raw.items():
        path, content = FORMS[form](name, raw)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    before = names_in(tmp_path)
    folder.chmod(0o555)  # does not bind the administrator, so the listing is compared too
    try:
        images = load("mnist", tmp_path / "root")
    finally:
        folder.chmod(0o755)
    assert names_in(tmp_path) == before
    assert tiny.is_in(images)
    assert (images.name, images.classes) == ("mnist", tuple("0123456789"))
    assert all(array.flags.writeable for array in (images.train_images, images.test_labels))  # torch warns otherwise


def test_the_variable_comes_before_the_cache_and_root_is_alone(tiny: Tiny, tmp_path, cache: Path, monkeypatch) -> None:
    other = make_tiny(1)
    monkeypatch.setenv("NORMLAB_DATA", str(tmp_path / "variable"))
    tiny.put(cache / "MNIST/raw")
    assert tiny.is_in(load("mnist"))
    folder = tiny.put(tmp_path / "variable/MNIST/raw")
    assert tiny.is_in(load("mnist"))
    other.put(folder, PACKED[0])
    with pytest.raises(DataError, match=rf"variable/MNIST/raw/{PACKED[0]} is damaged or not MNIST's"):
        load("mnist")  # whatever the cache has
    for name in ("mnist", "auto"):
        with pytest.raises(DataError, match=rf"data\.root={tmp_path}/root is not a folder: make it, or "):
            resolve(name, tmp_path / "root")
    (tmp_path / "root").mkdir()
    for name in ("mnist", "auto"):
        with pytest.raises(MissingError, match=rf"MNIST is not in {tmp_path}/root and downloads are off"):
            resolve(name, tmp_path / "root", download=False)
    assert not [*(tmp_path / "root").iterdir()]


def test_home_is_expanded_and_an_empty_variable_is_none(tiny: Tiny, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("NORMLAB_DATA", "")
    monkeypatch.chdir(tiny.put(tmp_path / "here"))
    with pytest.raises(MissingError):  # "" is not the current folder
        resolve("mnist", download=False)
    tiny.put(tmp_path / "data")
    assert resolve("mnist", "~/data") == Resolved("mnist")


def test_what_is_passed_over_is_named(tiny: Tiny, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody asked for these files: an incomplete folder, and those of another set under the same names."""
    monkeypatch.setenv("NORMLAB_DATA", str(tmp_path / "variable"))
    tiny.put(tmp_path / "variable/raw", *PACKED[:3])
    make_tiny(seed=1).put(tmp_path / "variable", NAMES[0], *PACKED[1:])
    with pytest.raises(MissingError) as caught:
        load("mnist", download=False)
    assert f"{tmp_path}/variable/raw has 3 of its 4 files" in caught.value.args[0]
    assert f"{tmp_path}/variable has files of another data set" in caught.value.args[0]
    tiny.put(cache / "MNIST/raw")
    assert tiny.is_in(load("mnist"))
    with pytest.raises(DataError, match="is damaged or not MNIST's"):
        load("mnist", make_tiny(seed=1).put(tmp_path / "asked for"))


# --- damage ----------------------------------------------------------------------------------------------------------


def altered(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {  # any other: below
    "packed, truncated": (PACKED[0], lambda content: content[:-100]),
    "packed, empty": (PACKED[1], lambda _: b""),
    "too long": (NAMES[3], lambda content: content + b"\0"),
    "magic": (NAMES[1], lambda content: b"\0\0\x0d" + content[3:]),
}


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("place", ["root", "variable"])
def test_damage_is_named_and_never_passed_over(tiny: Tiny, tmp_path, cache, monkeypatch, case: str, place: str) -> None:
    file, damage = DAMAGE[case]
    tiny.put(cache / "MNIST/raw")  # an intact copy further on is no reason to be silent
    names = [file if name == f"{file}.gz" else name for name in PACKED]
    path = tiny.put(tmp_path / place, *names) / file
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setenv("NORMLAB_DATA", str(tmp_path / "variable"))
    for name in ("mnist", "auto"):
        with one_line(DataError) as caught:
            resolve(name, tmp_path / "root" if place == "root" else None)
        assert not isinstance(caught.value, MissingError)
        assert str(caught.value).startswith(f"{path} is damaged")
        assert "elete" not in str(caught.value), "it is the user's file"


def test_an_intact_copy_beside_a_damaged_one_serves(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny.put(tmp_path / "MNIST/raw", *PACKED, NAMES[0])
    (folder / PACKED[0]).write_bytes(b"half a download")
    assert tiny.is_in(load("mnist", tmp_path))


def test_a_file_that_cannot_be_read(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.put(tmp_path / "MNIST/raw")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=rf"{PACKED[0]} is damaged or not MNIST's \(Permission denied\)"):
        resolve("auto", tmp_path)


@settings(deadline=None)
@given(st.data())
def test_any_altered_byte_or_truncation_is_noticed(tmp_path_factory, data: st.DataObject) -> None:
    """What is loaded is the data set, whole, or it is an error; of a packed file, some bytes mean nothing."""
    tiny = make_tiny()
    names = data.draw(st.sampled_from([PACKED, list(NAMES)]))
    folder = tiny.put(tmp_path_factory.mktemp("altered"), *names)
    path = folder / data.draw(st.sampled_from(names))
    content = path.read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    bits = data.draw(st.integers(0, 255))  # 0: cut there
    rest = bytes([content[position] ^ bits]) + content[position + 1 :] if bits else b""
    path.write_bytes(content[:position] + rest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PUBLISHED, "mnist", tiny.table)
        try:
            images, message = load("mnist", folder, download=False), ""
        except DataError as error:
            images, message = None, str(error)
    if images is None:
        assert message.startswith(f"{path} is damaged")
    else:
        assert tiny.is_in(images)
        assert names is PACKED


# --- missing ---------------------------------------------------------------------------------------------------------


def test_missing_says_on_one_line_what_belongs_where_and_what_works_now(tiny: Tiny) -> None:
    with one_line(MissingError) as caught:
        load("mnist", download=False)
    text = str(caught.value)
    assert text.startswith("MNIST is not on this machine and downloads are off (data.download=false): put its files (")
    assert all(name in text for name in (*PACKED, "data.root", "data=digits"))
    again = pickle.loads(pickle.dumps(caught.value))  # the way back from another process
    assert (str(again), again.args[0]) == (text, caught.value.args[0])


def test_auto_is_mnist_or_digits_with_a_reason_on_one_line(tiny: Tiny, cache: Path, serve) -> None:
    assert resolve("auto", download=False).name == "digits"
    serve(tiny.packed).close()
    resolved = resolve("auto")
    assert resolved.name == "digits"
    assert resolved.reason is not None
    assert resolved.reason.startswith("MNIST is not on this machine and cannot be downloaded to ")
    assert "(127.0.0.1: Connection refused)" in resolved.reason
    assert "\n" not in resolved.reason
    tiny.put(cache / "MNIST/raw")
    assert resolve("auto") == Resolved("mnist", None)


# --- downloading -----------------------------------------------------------------------------------------------------


class Mirror(ThreadingHTTPServer):
    """A server on this machine: what it gives for a file name, how, and which files were requested."""

    daemon_threads = True

    def __init__(self, content: dict[str, bytes], manner: str) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.content, self.manner, self.requested, self.over = content, manner, list[str](), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/here/"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        mirror, manner = self.server, self.server.manner
        mirror.requested.append(name := self.path.rsplit("/", 1)[-1])
        body = altered(mirror.content[name]) if manner == "wrong" else mirror.content[name]
        if manner == "stalled":
            mirror.over.wait(20)
            return
        if manner == "absent":
            self.send_error(404)
            return
        if manner == "slow":
            time.sleep(0.5)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if manner in ("cut", "stalls halfway") else body)
        if manner == "stalls halfway":
            mirror.over.wait(20)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Mirror]]:
    """Starts a mirror of MNIST; it is asked after those that are named, and no other one is."""
    mirrors: list[Mirror] = []

    def start(content: dict[str, bytes], manner: str = "good", after: Sequence[Mirror] = ()) -> Mirror:
        mirrors.append(Mirror(content, manner))
        asked = [mirror.url for mirror in (*after, mirrors[-1])]
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", asked)
        return mirrors[-1]

    yield start
    for mirror in mirrors:
        mirror.close()


FAILURES = {  # what a mirror does, and what the reason says
    "wrong": "127.0.0.1: wrong content",
    "absent": "127.0.0.1: HTTP Error 404",
    "cut": "127.0.0.1: wrong content",
    "stalled": "127.0.0.1: timed out",
    "stalls halfway": "127.0.0.1: timed out",
}


@pytest.mark.parametrize("manner", FAILURES)
def test_a_bad_mirror_is_passed_over_once_and_leaves_nothing(
    tiny: Tiny, tmp_path: Path, serve, capsys, monkeypatch, manner: str
) -> None:
    """What a good one has is downloaded to the cache, once."""
    monkeypatch.setattr(published, "TIMEOUT_S", 0.3)
    monkeypatch.setenv("NORMLAB_DATA", str(tmp_path / "variable"))
    first = serve(tiny.packed, manner)
    second = serve(tiny.packed, manner, after=[first])
    start = time.monotonic()
    with pytest.raises(MissingError) as caught:
        load("mnist")
    assert time.monotonic() - start < 5
    assert caught.value.args[0].count(FAILURES[manner]) == 2  # one for each mirror
    assert first.requested == second.requested == PACKED[:1]  # no further files
    assert names_in(tmp_path) == []
    capsys.readouterr()
    good = serve(tiny.packed, after=[first])
    assert tiny.is_in(load("mnist"))
    asked = [f"{first.url}{PACKED[0]}", *(f"{good.url}{name}" for name in PACKED)]
    assert capsys.readouterr().err.splitlines() == [f"Downloading {url}" for url in asked]
    assert resolve("auto") == Resolved("mnist")
    assert first.requested == [PACKED[0]] * 2
    assert good.requested == PACKED
    assert names_in(tmp_path) == sorted(f"cache/data/MNIST/raw/{name}" for name in PACKED)


def test_no_more_than_a_file_can_have_is_read(tiny: Tiny, serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "MOST", 1000)
    serve(tiny.packed)
    assert "wrong content (1,000 bytes)" in (resolve("auto").reason or "")


@pytest.mark.parametrize("root", [None, "root"])
def test_what_came_whole_is_kept_and_only_the_rest_is_asked_for(tiny: Tiny, tmp_path, cache, serve, root) -> None:
    """In data.root where it is given; a file that was there unpacked counts."""
    place = tmp_path / root if root else cache
    folder = tiny.put(place / "MNIST/raw", NAMES[2])
    serve(tiny.packed | {PACKED[1]: b"not here"})
    with pytest.raises(MissingError):
        load("mnist", root and place)
    assert names_in(folder) == sorted([PACKED[0], NAMES[2]])
    whole = serve(tiny.packed)
    assert tiny.is_in(load("mnist", root and place))
    assert whole.requested == [PACKED[1], PACKED[3]]
    files = [PACKED[0], PACKED[1], NAMES[2], PACKED[3]]
    assert names_in(tmp_path) == sorted(str((folder / name).relative_to(tmp_path)) for name in files)


def test_a_full_disk_leaves_nothing_half_written(tiny: Tiny, cache: Path, serve, monkeypatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    serve(tiny.packed)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MissingError, match=r"cannot be downloaded to .*MNIST/raw \(No space left on device\)"):
        load("mnist")
    assert names_in(cache) == []


def test_a_root_that_cannot_be_written_to(tiny: Tiny, tmp_path: Path, serve) -> None:
    (tmp_path / "MNIST").touch()
    mirror = serve(tiny.packed)
    with pytest.raises(MissingError, match=r"cannot be downloaded to .*/MNIST/raw \((Not a directory|File exists)\)"):
        load("mnist", tmp_path)
    assert mirror.requested == []


LOADS = """
import pickle, sys
from pathlib import Path
from types import SimpleNamespace as Space
from normlab.data.sources import PUBLISHED, load
url, root, table = sys.argv[1:]
PUBLISHED["mnist"] = pickle.loads(Path(table).read_bytes())
sys.modules["torchvision"] = Space(datasets=Space(MNIST=Space(mirrors=[url])))  # its import takes seconds
print(load("mnist", root).train_labels.tolist())
"""


def test_two_processes_download_at_once(tiny: Tiny, tmp_path: Path, serve) -> None:
    mirror = serve(tiny.packed, "slow")
    (tmp_path / "root").mkdir()
    (tmp_path / "table").write_bytes(pickle.dumps(tiny.table))
    command = [sys.executable, "-c", LOADS, mirror.url, str(tmp_path / "root"), str(tmp_path / "table")]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [worker.communicate(timeout=60)[0] for worker in workers] == [f"{tiny.arrays[1].tolist()}\n"] * 2
    assert mirror.requested == PACKED  # the second one waited and found them
    assert names_in(tmp_path / "root/MNIST/raw") == sorted(PACKED)


def test_a_lock_that_is_never_released(tiny: Tiny, cache: Path, serve, monkeypatch) -> None:
    serve(tiny.packed)
    monkeypatch.setattr(published, "LOCK_S", 0.2)
    folder = cache / "MNIST/raw"
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / ".lock"):
        reason = resolve("auto").reason or ""
    assert ".lock" in reason
    assert resolve("auto").name == "mnist"  # released: now it can


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_the_table_is_torchvisions(name: str) -> None:
    data = PUBLISHED[name]
    theirs = getattr(torchvision.datasets, data.folder)
    assert [*zip(PACKED, data.packed, strict=True)] == theirs.resources
    assert list(data.classes) == [label.split(" - ")[0] for label in theirs.classes]
    assert len({md5 for each in PUBLISHED.values() for md5 in each.unpacked}) == 12


def test_digits_are_stratified_and_always_the_same_bits() -> None:
    """Published results rest on them: a new Pillow or scikit-learn that changes them must be noticed."""
    found = load("digits")
    share = np.bincount(found.test_labels) / np.bincount(np.concatenate([found.train_labels, found.test_labels]))
    assert np.abs(share - 500 / 1797).max() < 1 / 174  # within one image of the smallest class
    arrays = (found.train_images, found.train_labels, found.test_images, found.test_labels)
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    assert digest == "018c3f6a982f26b258e881027b0c56442fe17bd6a78069fb28b4d622a74483bc"


@pytest.mark.mnist
def test_real_mnist(tmp_path: Path) -> None:
    images = load("mnist", MNIST, download=False)
    assert images.train_images.shape == (60_000, 28, 28)
    assert images.test_images.shape == (10_000, 28, 28)
    assert images.train_images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert images.train_images.std() / 255 == pytest.approx(0.3081, abs=5e-5)
    assert images.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert images.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    # Unpacked, the same files pass by their own checksums, and are the same images.
    arrays = (images.train_images, images.train_labels, images.test_images, images.test_labels)
    for name, array in zip(NAMES, arrays, strict=True):
        (tmp_path / name).write_bytes(as_idx(array))
    again = load("mnist", tmp_path, download=False)
    assert np.array_equal(again.train_images, images.train_images)
    assert np.array_equal(again.test_labels, images.test_labels)
