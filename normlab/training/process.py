"""What training sets in its process, put back at the end: who calls it finds the process as it was."""

import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["restore_process"]


@contextmanager
def restore_process() -> Iterator[None]:
    """Restore at the end: torch's threads, products of float32, determinism and default type, the random streams of
    torch, numpy and Python, the environment, handlers of signals, and hooks for exceptions.

    `log_to` restores logging and warnings. How glibc holds memory cannot be put back: only processes of our own set it
    (`keep_freed_memory`).
    """
    threads, dtype, debug = torch.get_num_threads(), torch.get_default_dtype(), torch.get_deterministic_debug_mode()
    gpu = _Gpu() if torch.cuda.is_available() else None
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]  # its module is a class
    streams: tuple[Any, ...] = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    hooks = sys.excepthook, threading.excepthook
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_deterministic_debug_mode(debug)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        random.setstate(streams[0])
        np.random.set_state(streams[1])  # noqa: NPY002
        torch.set_rng_state(streams[2])
        if gpu is not None:
            gpu.restore()
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ |= {name: value for name, value in environment.items() if os.environ.get(name) != value}
        if threading.current_thread() is threading.main_thread():  # no other thread can set a handler
            for number, handler in handlers.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
        sys.excepthook, threading.excepthook = hooks


class _Gpu:
    """The same of a GPU, which is not started for it: that takes memory and seconds."""

    def __init__(self) -> None:
        self.flags = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
        self.products = torch.get_float32_matmul_precision()
        self.started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        if self.started:
            self.device, self.streams = torch.cuda.current_device(), torch.cuda.get_rng_state_all()

    def restore(self) -> None:
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = self.flags
        torch.set_float32_matmul_precision(self.products)
        if self.started:
            torch.cuda.set_device(self.device)
            torch.cuda.set_rng_state_all(self.streams)
        elif torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed_all(torch.initial_seed())  # as torch seeds a GPU that is started later
