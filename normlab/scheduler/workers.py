"""Worker processes: each holds one task at a time, and the parent knows which, so that a death names its runs."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from normlab.scheduler.schedule import Backend, Ended
from normlab.scheduler.task import Task, one_line

# Imported once, by the process that workers are forked from: what a run imports.
PRELOADED = ["normlab.training", "normlab.scheduler.workers", "torch.utils.tensorboard", "sklearn.datasets"]
GRACE = 20.0  # seconds in which a worker that is stopped can record its runs as interrupted


@dataclass(eq=False)
class Worker:
    """A process, the pipe to it, and what it holds. ready: whether it has started."""

    process: BaseProcess
    pipe: Connection
    task: Task | None = None
    ready: bool = False


class Workers(Backend):
    """Tasks in processes of this machine, `number` at a time, each with so many CPU threads."""

    def __init__(self, number: int, threads: int) -> None:
        super().__init__()
        self.number, self.threads = number, threads
        self.workers: list[Worker] = []
        # Other systems have no fork, or libraries that do not survive it.
        linux = sys.platform == "linux"
        self.context = multiprocessing.get_context("forkserver") if linux else multiprocessing.get_context("spawn")
        if linux:
            from multiprocessing.forkserver import ensure_running, set_forkserver_preload

            set_forkserver_preload(PRELOADED)
            # A terminal's Ctrl-C does not reach it: it imports while this process goes on, and would print a traceback.
            main = threading.current_thread() is threading.main_thread()  # no other thread can set a handler
            before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
            try:
                ensure_running()
            finally:
                if main:
                    signal.signal(signal.SIGINT, before)

    def room(self) -> int:
        return self.number - sum(worker.task is not None for worker in self.workers)

    def start(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            try:
                self._give(task)
            except Exception as error:  # no process, or callbacks of a command line that cannot be pickled
                self.ends.append(Ended(task, message=f"it could not be given to a process ({one_line(error)})"))

    def _give(self, task: Task) -> None:
        for worker in [worker for worker in self.workers if worker.task is None]:
            try:
                worker.pipe.send(task)
            except OSError:  # it has died since its last task
                self._drop(worker)
            else:
                worker.task = task
                return
        worker = self._new()
        worker.pipe.send(task)
        worker.task = task

    def wait(self, seconds: float) -> list[Ended]:
        ends, self.ends = self.ends, []
        handles = {handle: worker for worker in self.workers for handle in (worker.pipe, worker.process.sentinel)}
        ready = wait(list(handles), 0 if ends else seconds)
        for worker in {handles[handle]: None for handle in ready}:  # type: ignore[index]
            with suppress(EOFError, OSError):
                self._receive(worker, ends)
                if worker.process.is_alive():
                    continue
            code = self._drop(worker)
            if worker.task is not None:
                ends.append(Ended(worker.task, {}, f"the process that trained it {_death(code)}", worker.ready))
        return ends

    def _receive(self, worker: Worker, ends: list[Ended]) -> None:
        """Take what a worker has sent: that it is ready, or the result of its task."""
        while worker.pipe.poll():
            result = worker.pipe.recv()
            if result is None:
                worker.ready = True
            elif worker.task is not None:
                ends.append(Ended(worker.task, result))
                worker.task = None

    def stop(self) -> None:
        try:
            for worker in self.workers:
                worker.pipe.close()  # an idle worker ends when its pipe closes
                if worker.task is not None:
                    worker.process.terminate()
            deadline = time.monotonic() + GRACE
            for worker in self.workers:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for worker in self.workers:
                worker.process.kill()
                worker.process.join()
            self.workers.clear()

    def _new(self) -> Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(theirs, self.threads, dict(os.environ)), daemon=True)
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")  # which it would import again, whatever guards the script has
        try:
            process.start()
        finally:
            sys.modules["__main__"] = main
        theirs.close()
        worker = Worker(process, ours)
        self.workers.append(worker)
        return worker

    def _drop(self, worker: Worker) -> int | None:
        """Forget a worker that has died. Return its exit code."""
        self.workers.remove(worker)
        worker.pipe.close()
        worker.process.join(1.0)
        worker.process.kill()  # does nothing to one that has ended
        worker.process.join()
        return worker.process.exitcode


def _death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"was killed by signal {-code}"


def _serve(pipe: Any, threads: int, environment: Mapping[str, str]) -> None:
    """Do one task after the other, in the worker."""
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches all processes: the parent decides
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        import torch

        torch.set_num_threads(threads)
        with suppress(EOFError, ConnectionError):  # the parent has no more tasks, or is gone
            pipe.send(None)
            while True:
                task = pipe.recv()
                pipe.send(task())
    except KeyboardInterrupt:
        sys.exit(130)


def _interrupt(*_: object) -> None:
    """Stop the current task, once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """End this process when its parent is gone: one that is killed cannot end its workers, and they would keep
    training unnoticed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
