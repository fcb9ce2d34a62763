"""One run on several devices: one process per device on this machine, by Lightning's DDP. This process has rank 0."""

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import distributed

from normlab.data.datamodule import ImageData
from normlab.errors import ConfigError, NormlabError
from normlab.settings import Settings

PATIENCE = timedelta(minutes=30)  # a process that waits longer for another one gives up
END = 10.0  # seconds that a process has to end by itself
STARTED_BY = "NORMLAB_STARTED_BY"  # in the environment of a process beside rank 0, until it begins: whose child it is
UNGUARDED = 87  # exit code of a process that would have called `run` while it imported the script of rank 0


class RankError(NormlabError):
    """A process that trained along with this one has ended too early."""


class Here(LightningEnvironment):
    """Processes that are there already, on one machine; inside of a SLURM job too, whose processes and signals
    Lightning would take for its own."""

    def __init__(self, rank: int = 0) -> None:
        super().__init__()
        self._rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def local_rank(self) -> int:
        return self._rank


@dataclass(frozen=True)
class Rank:
    """One of the processes of a run.

    Attributes:
        rank: 0 in the process that was asked, which alone writes. processes: of the run.
        meeting: a file by which they find each other. backend: of torch.distributed.
    """

    rank: int
    processes: int
    meeting: str
    backend: str


@contextmanager
def as_rank(rank: Rank) -> Iterator[None]:
    """While it is open, this process belongs to the group of the run."""
    # By a file and the loopback device: nothing listens on a network.
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    if rank.backend == "nccl":
        torch.cuda.set_device(rank.rank)
    distributed.init_process_group(
        rank.backend,
        init_method=Path(rank.meeting).as_uri(),
        rank=rank.rank,
        world_size=rank.processes,
        timeout=PATIENCE,
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def ranks(settings: Settings, train: Callable[..., None], *args: Any) -> Iterator[Rank]:
    """Starts the other processes of a run, each of which calls `train(rank, settings, *args)` and has to do the same
    steps as this one, which has rank 0. They are gone when the context ends.

    Raises `RankError`, in one line, where one of them has failed; `ConfigError` where a script cannot be imported by
    them, since it trains whenever it is imported.
    """
    script = str(getattr(sys.modules["__main__"], "__file__", None) or "")
    if script and not os.path.exists(script):  # "<stdin>"
        raise ConfigError(
            f"devices={settings.devices}: every process imports {script}, which is no file: put it in one"
        )
    spawn = multiprocessing.get_context("spawn")
    backend = "nccl" if settings.accelerator == "gpu" else "gloo"
    with tempfile.TemporaryDirectory(prefix="normlab-") as folder:
        own, *others = [
            Rank(rank, settings.devices, str(Path(folder, "meeting")), backend) for rank in range(settings.devices)
        ]
        processes, ready = list[BaseProcess](), []
        try:
            for other in others:
                receives, sends = spawn.Pipe(duplex=False)
                processes.append(spawn.Process(target=_serve, args=(sends, train, other, settings, *args), daemon=True))
                os.environ[STARTED_BY] = str(os.getpid())
                try:
                    processes[-1].start()
                finally:
                    del os.environ[STARTED_BY]
                sends.close()  # theirs is open: once it is closed too, they have ended
                ready.append(receives)
            for rank, connection in enumerate(ready, 1):
                try:
                    connection.recv()
                except EOFError:
                    processes[rank - 1].join(END)
                    if processes[rank - 1].exitcode == UNGUARDED:
                        raise ConfigError(
                            f"devices={settings.devices}: every process imports {script}, which must not train then: "
                            'put what it does below if __name__ == "__main__":'
                        ) from None
                    raise RankError(_failed(processes) or f"the process of device {rank} did not begin") from None
            with as_rank(own):
                try:
                    yield own
                except RuntimeError as error:  # what torch.distributed raises where another process is gone
                    if found := _failed(processes):
                        raise RankError(found) from error
                    raise
            for process in processes:
                process.join(END)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _serve(ready: Connection, train: Callable[..., None], rank: Rank, settings: Settings, *args: Any) -> None:
    """What a process beside rank 0 does."""
    os.environ.pop(STARTED_BY, None)
    for stop in (signal.SIGINT, signal.SIGTERM):  # they may reach all processes: rank 0 decides
        signal.signal(stop, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    train(lambda: ready.send(None), rank, settings, *args)


def end_if_imported() -> None:
    """End a process that was started to train along, but still imports the script of rank 0, and trains in doing so."""
    if os.environ.get(STARTED_BY) == str(os.getppid()):
        os._exit(UNGUARDED)  # at once, and without a traceback: rank 0 tells


def _end_with_parent() -> None:
    """Where rank 0 was killed, others might wait for it for as long as `PATIENCE`."""
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def _failed(processes: list[BaseProcess]) -> str | None:
    """Which process has failed, in one line: rank 0 may know of it a moment before it has ended."""
    ended = wait([process.sentinel for process in processes], END)
    for rank, process in enumerate(processes, 1):
        if process.sentinel in ended:
            process.join(END)  # its files are closed a moment before its exit code is there
        if process.exitcode:
            how = f"signal {-process.exitcode}" if process.exitcode < 0 else f"exit code {process.exitcode}"
            why = "is there enough memory?" if process.exitcode < 0 else "train.log says why"
            return f"the process of device {rank} ended with {how}: {why}"
    return None


class AroundTraining(Callback):
    """What a process of several does around training.

    SIGTERM does what it did before Lightning took it over: its handler waits for the other processes, which may be in
    the middle of something that all do together. Every image counts the same: DDP takes the mean over processes, whose
    shares of a batch may differ by one.
    """

    def __init__(self, data: ImageData) -> None:
        self.data, self.handler = data, signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.handler)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        share = batch[1].shape[1] * self.data.processes / self.data.images_of_step(batch_idx)
        pl_module.share = share


def check_shares(settings: Settings, data: ImageData) -> None:
    """Raises `ConfigError` where the last step of an epoch has fewer images than there are devices."""
    left = data.images_of_step((len(data.train) - 1) // settings.batch_size)
    if left < settings.devices:
        raise ConfigError(
            f"devices={settings.devices}: the last step of an epoch has {left} of {len(data.train)} training images, "
            "fewer than there are devices: choose another batch_size or train_size"
        )
