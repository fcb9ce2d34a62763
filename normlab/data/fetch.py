"""Fetching published files from mirrors: checked before they are kept, and never waited for without end."""

import contextlib
import os
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from queue import Empty, SimpleQueue
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from normlab.data.idx import IdxFile, check, md5

CONNECT_S = 4.0  # seconds for one network operation: connecting to one address, or waiting for the next bytes
SILENCE_S = 8.0  # seconds without a byte after which a mirror is given up: also bounds what has no time limit, as DNS
FETCH_S = 300.0  # seconds for one data set: the largest, 31 MB, needs them at 100 kB/s

Advance = Callable[[int, int | None], None]  # bytes so far, bytes in all where the mirror says it


class FetchError(Exception):
    """No mirror gave a file, or the folder cannot be written to; the text is the reason, on one line."""


def fetch(files: Sequence[IdxFile], folder: Path, mirrors: Sequence[str]) -> None:
    """Bring those of `files` that are not there into `folder`, as `.gz`.

    Safe beside other processes that do the same: one fetches, the others wait and find the files there. A file appears
    under its name only whole and with the right checksum.

    Args:
        files: What is wanted.
        folder: Where it belongs; made if absent.
        mirrors: Addresses that a file name is appended to, best first.

    Raises:
        FetchError: If a file cannot be had or written within `FETCH_S` seconds.
        DataError: If a file is there already and damaged.
    """
    import filelock

    lock = filelock.FileLock(folder / ".lock", timeout=FETCH_S + SILENCE_S)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock:
            try:
                _fetch_absent(files, folder, list(mirrors))
            finally:
                # Removed while held: who waits for it looks at the files again, and two fetches at once do no harm.
                with contextlib.suppress(OSError):
                    Path(lock.lock_file).unlink()
    except filelock.Timeout as error:
        raise FetchError(f"another process has held {lock.lock_file} for {lock.timeout:g} s") from error
    except (OSError, NotImplementedError) as error:  # NotImplementedError: filelock, on a file system without locks
        raise FetchError(f"cannot write to {folder}: {_reason(error)}") from error


def _fetch_absent(files: Sequence[IdxFile], folder: Path, mirrors: list[str]) -> None:
    deadline = time.monotonic() + FETCH_S
    with _progress() as progress:
        for file in files:
            if (present := file.path(folder)) is not None:
                check(file, present)
                continue
            content, mirror = _from_mirrors(file, mirrors, deadline, progress)
            mirrors = [mirror, *(other for other in mirrors if other != mirror)]  # one that works first
            part = folder / f".{file.name}.{os.getpid()}.part"
            try:
                part.write_bytes(content)
                part.replace(folder / f"{file.name}.gz")
            finally:
                part.unlink(missing_ok=True)


def _from_mirrors(
    file: IdxFile, mirrors: Sequence[str], deadline: float, progress: Callable[[str], Advance]
) -> tuple[bytes, str]:
    failures = []
    for mirror in mirrors:
        url = f"{mirror}{file.name}.gz"
        host = urlsplit(mirror).hostname or mirror
        try:
            content = _get(url, file.size + 4096, deadline, progress(f"{file.name}.gz from {host}"))
        except (OSError, HTTPException, ValueError) as error:
            failures.append(f"{host}: {_reason(error)}")
        else:
            if md5(content) == file.md5:
                return content, mirror
            failures.append(f"{host}: wrong content for {file.name}.gz ({len(content):,} bytes)")
    raise FetchError("; ".join(failures) or "no mirror is known")


def _reason(error: BaseException) -> str:
    """What went wrong, in a few words on one line."""
    if isinstance(error, URLError) and isinstance(error.reason, BaseException):
        return _reason(error.reason)  # a URLError wraps what happened
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


def _get(url: str, limit: int, deadline: float, advance: Advance) -> bytes:
    """The content of `url`, of at most `limit` bytes.

    The network work is done in a thread that is abandoned when it takes too long: neither looking up a name nor a host
    with many dead addresses can be bounded by a socket's time limit.
    """
    arrivals: SimpleQueue[tuple[bytes, int | None] | Exception] = SimpleQueue()
    abandoned = threading.Event()

    def work() -> None:
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "normlab"})
            with urllib.request.urlopen(request, timeout=CONNECT_S) as response:
                total = int(response.headers.get("Content-Length") or 0) or None
                chunk = b"-"
                while chunk and not abandoned.is_set():
                    chunk = response.read1(1 << 16)
                    arrivals.put((chunk, total))
        except Exception as error:  # handed over, raised again in the waiting thread
            if isinstance(error, HTTPError):
                error.close()  # it holds the connection
            arrivals.put(error)

    threading.Thread(target=work, daemon=True, name=f"fetch {url}").start()
    content = bytearray()
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"not done after {FETCH_S:g} s")
            wait = min(SILENCE_S, left)
            try:
                arrival = arrivals.get(timeout=wait)
            except Empty:
                if wait < SILENCE_S:
                    continue  # the time for all has run out
                raise TimeoutError(f"silent for {wait:g} s") from None
            if isinstance(arrival, Exception):
                raise arrival
            chunk, total = arrival
            if not chunk:
                return bytes(content)
            content += chunk
            if len(content) > limit:
                raise OSError("more bytes than the file can have")
            advance(len(content), total)
    finally:
        abandoned.set()


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], Advance]]:
    """Yields what starts the display of one file: a bar on a terminal's stderr, a line on any other."""
    if not sys.stderr.isatty():
        yield _line
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def start(text: str) -> Advance:
            task = bars.add_task(text, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield start


def _line(text: str) -> Advance:
    print(f"Fetching {text}", file=sys.stderr, flush=True)
    return lambda *_: None
