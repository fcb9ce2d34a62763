"""A call of the library leaves its process as it was, works in any thread, and needs no script of a certain form."""

import ctypes
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REPOSITORY

from normlab.settings.plan import load
from normlab.training import run, run_array
from normlab.training.checkpoint import probe_checkpoint

TINY = ["data=digits", "epochs=1", "train_size=100", "batch_size=50", "threads=1", "accelerator=cpu", "dropout=0.1"]
LOGGERS = ("", "normlab", "lightning.pytorch", "lightning.fabric", "py.warnings")

STATES: dict[str, Callable[[], Any]] = {
    "threads": torch.get_num_threads,
    "default type": torch.get_default_dtype,
    "products of float32": torch.get_float32_matmul_precision,
    "cudnn": lambda: (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark),
    "deterministic": torch.get_deterministic_debug_mode,
    "filled memory": lambda: torch.utils.deterministic.fill_uninitialized_memory,
    "torch's stream": lambda: torch.get_rng_state().tolist(),
    "numpy's stream": lambda: [str(part) for part in np.random.get_state()],  # noqa: NPY002
    "Python's stream": random.getstate,
    "environment": lambda: dict(os.environ),
    "signals": lambda: {number: signal.getsignal(number) for number in signal.valid_signals()},
    "hooks": lambda: (sys.excepthook, threading.excepthook, sys.unraisablehook),
    "loggers": lambda: [
        (log.handlers[:], log.level, log.propagate, log.filters[:]) for log in map(logging.getLogger, LOGGERS)
    ],
    "warnings": lambda: (warnings.filters[:], warnings.showwarning),
    "output": lambda: (sys.stdout, sys.stderr, sys.argv[:], Path.cwd()),
    "threads that run": lambda: {thread.name for thread in threading.enumerate()},
    "memory": lambda: asked_of_glibc,
}
asked_of_glibc: list[str] = []


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process with settings of its own, none of them those of a run."""

    class Library(ctypes.CDLL):
        def __getattr__(self, name: str) -> Any:
            asked_of_glibc.append(name)
            return super().__getattr__(name)

    monkeypatch.setattr(ctypes, "CDLL", Library)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True, warn_only=True)
    logging.captureWarnings(True)
    handler = signal.signal(signal.SIGTERM, lambda *_: None)
    random.seed(1)
    yield
    signal.signal(signal.SIGTERM, handler)
    logging.captureWarnings(False)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)


def stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("undrawn", "host")
@pytest.mark.parametrize("call", ["run", "stopped", "run_array", "probe_checkpoint"])
def test_a_call_leaves_its_process_as_it_was(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: tuple[Path, Any]
) -> None:
    asked_of_glibc.clear()
    before = {name: state() for name, state in STATES.items()}
    if call == "run":
        run(load(*TINY), tmp_path)
    elif call == "stopped":
        monkeypatch.setattr("normlab.training.callbacks.Speed.on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            run(load(*TINY), tmp_path)
    elif call == "run_array":
        run_array([load(*TINY, f"seed={seed}") for seed in (0, 1)], [tmp_path / "0", tmp_path / "1"])
    else:
        for name in ("result.json", "last.ckpt"):
            (tmp_path / name).write_bytes((finished[0] / name).read_bytes())
        probe_checkpoint(tmp_path, ["landscape"])
    for name, state in STATES.items():
        assert state() == before[name], name


@pytest.mark.usefixtures("undrawn")
def test_run_works_in_any_thread(tmp_path: Path) -> None:
    statuses: list[str] = []
    thread = threading.Thread(target=lambda: statuses.append(run(load(*TINY), tmp_path).status))
    thread.start()
    thread.join(120)
    assert statuses == ["completed"]


SCRIPT = """
import sys, threading
from normlab.errors import NormlabError
from normlab.settings.plan import load
from normlab.training import run

print("script")
def main():
    try:
        print(run(load(*sys.argv[2:]), sys.argv[1]).status)
    except NormlabError as error:
        print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("main()", 'ConfigError: devices=2: every process imports {script}, which must not train then: put what it '
         'does below if __name__ == "__main__":'),
        ('if __name__ == "__main__":\n    thread = threading.Thread(target=main); thread.start(); thread.join()',
         "completed"),
    ],
    ids=["unguarded", "in a thread"],
)  # fmt: skip
def test_two_devices_from_a_script(tmp_path: Path, form: str, told: str) -> None:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT + form)
    command = [sys.executable, str(script), str(tmp_path / "run"), *TINY, "devices=2"]
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": path}
    )
    assert result.stdout.splitlines()[-1] == told.format(script=script), result.stderr
    assert "Traceback" not in result.stderr
    if form == "main()":
        assert result.stderr == ""
        assert not (tmp_path / "run" / "result.json").exists()


def test_the_console_script_finds_a_layer_in_the_folder_as_python_m_does(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    script = Path(sys.executable).with_name("normlab")
    for command in ([str(script), "train"], [sys.executable, "-m", "normlab.train"]):
        words = [*command, "norm=custom", "norm.target=mine:Layer", "data=digits"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr == "normlab: norm.target=mine:Layer: mine has no Layer; its classes: none\n"
