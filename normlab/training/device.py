"""The machine and the process: device, threads, memory, CUDA graphs, what is put back at the end."""

import ctypes
import os
import platform
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from normlab.errors import first_line
from normlab.kernels.compile import processor
from normlab.settings import Settings


def missing_device(accelerator: str, devices: int) -> str | None:
    """Return why this machine lacks the requested accelerator, in one line; None if it has it."""
    if accelerator == "gpu" and not torch.cuda.is_available():
        return "accelerator=gpu, but torch finds no GPU on this machine: use accelerator=cpu or auto"
    if devices > 1 and accelerator == "gpu" and torch.cuda.device_count() < devices:
        return f"devices={devices}, but this machine has {torch.cuda.device_count()}: use devices=1 or accelerator=cpu"
    return None


def set_threads(settings: Settings) -> None:
    """Set the CPU threads of this process: `threads`, or its share of what the process has. `restore_process` puts them
    back after each run."""
    torch.set_num_threads(settings.threads or max(1, torch.get_num_threads() // settings.devices))


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return accelerator, name and CPU threads, for result.json."""
    gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if gpu else processor()[0] or platform.machine()
    return {"accelerator": "gpu" if gpu else "cpu", "name": name, "threads": torch.get_num_threads()}


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory instead of returning it. Return False with another C library.

    Every step frees and requests the same few megabytes per tensor. By default glibc maps them anew each time, and a
    step then waits for thousands of page faults: up to a third of its time on a virtual machine. This cannot be undone:
    call it only in processes that do nothing but train.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no such function; on Windows no such library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 2**30)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


WARM_UP = 3  # calls before recording: libraries choose their algorithms and allocate what they keep


class Replayed:
    """`work`, called as it is on a CPU; on a GPU recorded at the first call and replayed ever after.

    A replay launches hundreds of kernels by one call, so the GPU no longer waits for Python. What the work reads and
    writes must stay where it is in memory; it must not ask the device for a value. Source: NVIDIA, "CUDA Graphs", in
    the CUDA C++ Programming Guide.

    Args:
        work: takes and returns nothing; changes tensors in place.
        state: every tensor that it changes: put back after the warm-up, which must not count as a step.
        inputs: the tensors that it reads, to be filled before each call.
        generators: random streams of its own that it draws from, beside the device's.

    Attributes:
        reason: why the work is not replayed although it runs on a GPU; None otherwise. It then runs as it is.
    """

    def __init__(
        self,
        work: Callable[[], None],
        state: Sequence[torch.Tensor],
        device: torch.device,
        inputs: Sequence[torch.Tensor] = (),
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self.work, self.state, self.device, self.inputs, self.generators = work, state, device, inputs, generators
        self.reason: str | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._graph is None and self.reason is None and self.device.type == "cuda":
            self._record()
        if self._graph is None:
            self.work()
        else:
            self._graph.replay()

    def _record(self) -> None:
        before = [values.clone() for values in self.state]
        random = torch.cuda.get_rng_state(self.device)
        streams = [generator.get_state() for generator in self.generators]
        graph = torch.cuda.CUDAGraph()
        try:
            for generator in self.generators:
                graph.register_generator_state(generator)
            side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self.work()
            torch.cuda.current_stream(self.device).wait_stream(side)
            with torch.cuda.graph(graph):
                self.work()
            self._graph = graph
        except RuntimeError as error:  # an operation that cannot be recorded
            torch.cuda.synchronize(self.device)
            self.reason = first_line(error)
        for values, kept in zip(self.state, before, strict=True):
            values.copy_(kept)
        torch.cuda.set_rng_state(random, self.device)
        for generator, stream in zip(self.generators, streams, strict=True):
            generator.set_state(stream)


@contextmanager
def restore_process() -> Iterator[None]:
    """Restore at the end: torch's threads, products of float32, determinism and default type, the random streams of
    torch, numpy and Python, the environment, handlers of signals, and hooks for exceptions.

    `log_to` restores logging and warnings. How glibc holds memory cannot be put back: only processes of our own set it
    (`keep_freed_memory`). A GPU is not started to be restored: that takes memory and seconds.
    """
    gpu = torch.cuda.is_available()
    started = gpu and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    device = torch.cuda.current_device() if started else None
    kept: list[tuple[Callable[[Any], Any], Any]] = [
        (torch.set_num_threads, torch.get_num_threads()),
        (torch.set_default_dtype, torch.get_default_dtype()),
        (torch.set_deterministic_debug_mode, torch.get_deterministic_debug_mode()),
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state()),  # noqa: NPY002
        (torch.set_rng_state, torch.get_rng_state()),
    ]
    attributes: list[tuple[Any, str]] = [
        (torch.utils.deterministic, "fill_uninitialized_memory"),
        (sys, "excepthook"),
        (threading, "excepthook"),
    ]
    if gpu:
        kept.append((torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()))
        attributes += [(torch.backends.cudnn, "allow_tf32"), (torch.backends.cudnn, "benchmark")]
    kept += [(partial(setattr, where, name), getattr(where, name)) for where, name in attributes]
    if device is not None:
        kept += [(torch.cuda.set_device, device), (torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())]
    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for restore, state in kept:
            restore(state)
        if gpu and device is None and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed_all(torch.initial_seed())  # as torch seeds a GPU that is started later
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ |= {name: value for name, value in environment.items() if os.environ.get(name) != value}
        if threading.current_thread() is threading.main_thread():  # no other thread can set a handler
            for number, handler in handlers.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
