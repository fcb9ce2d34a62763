"""What every test shares: one thread, a data folder of its own, no network."""

import csv
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import warm

from normlab.record import Record
from normlab.settings import Settings
from normlab.settings.plan import load

torch.set_num_threads(1)  # pytest-xdist runs one process per core

REPOSITORY = Path(__file__).resolve().parents[1]
MNIST = os.environ.get("NORMLAB_DATA")
# For tests of whole runs: every way in which a norm holds and applies numbers. test_norms.py and test_norm_tools.py try
# each layer of the catalogue individually.
KINDS = ["none", "bn", "gbn", "brn", "ln", "ln_elem", "ln2d", "gn", "in", "rms", "frn", "dyt", "sn", "wn"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests stay in files where they can: each of pytest's processes makes what a file's tests share for itself."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None  # load: with -n alone


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:  # long tests first, or one process waits for the other's at the end
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    if not MNIST:
        for item in items:
            if item.get_closest_marker("mnist"):
                item.add_marker(pytest.mark.skip(reason="NORMLAB_DATA is not set"))


def pytest_collection_finish() -> None:
    gc.freeze()  # thousands of tests, which every collection would go through


def pytest_unconfigure() -> None:
    warm.end()


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Runs in this process draw no pictures for TensorBoard: they take a small run longer than training."""
    import normlab.training  # noqa: F401  # torch and Lightning, which half of the tests do without

    for name in [name for name in sys.modules if name.startswith("normlab.training.")]:
        there = vars(sys.modules[name]).keys()  # wherever it is used
        for function in {"show_filters", "show_graph", "show_result"} & there:
            patch.setattr(sys.modules[name], function, lambda *_, **__: None)


@contextmanager
def one_line(kind: type[Exception], match: str | None = None) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """An error of this kind, of one line."""
    with pytest.raises(kind, match=match) as caught:
        yield caught
    assert "\n" not in str(caught.value)


def csv_rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Calls a command that cannot do what it is asked for: the one line on stderr with which it ends."""

    def call(main: Callable[[list[str]], int], words: Sequence[str]) -> str:
        capsys.readouterr()
        assert main([*words]) == 2
        out, told = capsys.readouterr()
        assert out == ""
        assert told.count("\n") == 1
        assert "Traceback" not in told
        return told

    return call


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the test stands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at no picture: test_tensorboard.py and some of test_resume.py and test_faults.py do."""
    draw_nothing(monkeypatch)


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers for each test, whichever ran before it."""
    return np.random.default_rng(20261129)


@pytest.fixture
def quick() -> Settings:
    """Settings of a run that takes about three seconds."""
    return load("data=digits", "norm=gn", "epochs=2", "batch_size=64", "threads=1", "dropout=0.1")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """The folder and the record of one finished run with bn and L1, which tests read and never change."""
    from normlab.training import run

    folder = tmp_path_factory.mktemp("logs") / "runs" / "bn"
    words = ["data=digits", "norm=bn", "l1=1e-3", "epochs=3", "batch_size=64", "threads=1", "test_curve=true"]
    return folder, run(load(*words, f"log_dir={folder.parents[1]}"), folder)
