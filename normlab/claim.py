"""Who trains in a folder: one process at a time, on one machine or on several that share the file system.

Two means, since neither does alone. `.lock` is held by flock: it is released whatever ends the process, but on some
file systems only the machine that holds it sees it, or there are no locks at all. `.owner` names who holds the folder,
and is touched meanwhile: every machine sees it, but it outlives a process that was killed.
"""

import errno
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname

from filelock import FileLock, Timeout

from normlab.errors import BusyError
from normlab.files import guarded

BEAT = 20.0  # seconds between two touches of .owner
STALE = 120.0  # seconds without a touch after which another machine takes the folder over
PATIENCE = 0.5  # seconds: who only asks whether a folder is busy holds its lock for less than that
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)  # what file systems without flock say


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Hold a folder. Raise `BusyError` if another process holds it.

    A process that was held up so long that another one took the folder over writes no more files there
    (`write_atomically`): the first that it tries to write raises `BusyError`.
    """
    with _locked(folder, PATIENCE) as locks:
        me = f"{os.getpid()} {_machine()} {uuid.uuid4().hex}"
        _own(folder, me, locks)
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(folder, me, stop), daemon=True)
        beat.start()
        try:
            with guarded(folder, lambda: _check(folder, me)):
                yield
        finally:
            stop.set()
            beat.join(1.0)  # longer where a server does not answer
            with suppress(OSError):
                if _read(folder)[0] == me:
                    (folder / ".owner").unlink()


def busy(folder: Path) -> bool:
    """Whether a process trains in the folder."""
    try:
        with _locked(folder, 0) as locks:
            return _alive(folder, *_read(folder), locks)
    except BusyError:
        return True


@contextmanager
def _locked(folder: Path, patience: float) -> Iterator[bool]:
    """Hold `.lock`. Yield False where the file system knows no locks."""
    # Without fallback_to_soft the file's being there would count as a lock, and it is always there.
    lock = FileLock(folder / ".lock", fallback_to_soft=False)
    try:
        lock.acquire(timeout=patience, poll_interval=0.05)
    except Timeout:
        raise _refusal(folder, _read(folder)[0]) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _own(folder: Path, me: str, locks: bool) -> None:
    """Write `.owner`. One whose process has ended is moved aside first, which only one of several processes can do."""
    file = folder / ".owner"
    for _ in range(10):
        try:
            with open(file, "x", encoding="utf-8") as stream:
                stream.write(me)
            return
        except FileExistsError:
            owner, touched = _read(folder)
        if _alive(folder, owner, touched, locks):
            raise _refusal(folder, owner)
        aside = folder / f".owner.{uuid.uuid4().hex}"
        with suppress(FileNotFoundError):  # another process was first
            file.rename(aside)
            if aside.read_text(encoding="utf-8", errors="replace") != owner:  # and has owned it since
                with suppress(FileExistsError):
                    os.link(aside, file)
            aside.unlink()
    raise _refusal(folder, _read(folder)[0])


def _alive(folder: Path, owner: str, touched: int, locks: bool) -> bool:
    """Whether the owner of a folder, in which nobody else holds the lock, is still there."""
    if not touched:
        return False
    pid, _, machine = owner.rpartition(" ")[0].partition(" ")
    if machine == _machine() and (locks or not _runs(pid)):
        return False  # on this machine, a process that has ended has released the lock
    return _now(folder) - touched < STALE * 1e9


def _beat(folder: Path, me: str, stop: threading.Event) -> None:
    """Touch `.owner` while it is this process's own."""
    while not stop.wait(BEAT):
        with suppress(OSError):  # a server that does not answer for a while
            if _read(folder)[0] == me:
                os.utime(folder / ".owner")


def _check(folder: Path, me: str) -> None:
    """Raise `BusyError` if the folder is no longer held. Without `.owner`, another process took it over and ended."""
    if _read(folder)[0] != me:
        raise BusyError(
            f"{folder} was taken over by another process while this one was held up: nothing more is written there; "
            "the same command does what is left once that process has ended"
        )


def _read(folder: Path) -> tuple[str, int]:
    """What `.owner` says, and when it was touched, ns; 0 where there is none. By way of an open file: NFS asks its
    server anew only then."""
    try:
        with open(folder / ".owner", encoding="utf-8", errors="replace") as file:
            return file.read(), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return "", 0


def _now(folder: Path) -> int:
    """The time by the clock that touches of `.owner` are dated with, ns."""
    os.utime(folder / ".lock")
    return (folder / ".lock").stat().st_mtime_ns


def _runs(pid: str) -> bool:
    try:
        with suppress(PermissionError):  # another user's
            os.kill(int(pid), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    return True


def _machine() -> str:
    """This machine since it was started: machines may share a name, and process numbers begin anew."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return f"{gethostname()} {boot}".strip()


def _refusal(folder: Path, owner: str) -> BusyError:
    pid, _, machine = owner.partition(" ")
    who = f" ({pid} on {machine.split(' ')[0]})" if machine else ""
    return BusyError(f"another process{who} trains in {folder}: wait for it, or choose another name=…")
