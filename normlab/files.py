"""Files that are written whole or not at all, and only by the process that may."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_guards: dict[Path, Callable[[], None]] = {}


@contextmanager
def guarded(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before a file appears in `folder`, while the context is open. What `check` raises keeps it out."""
    folder = folder.absolute()
    _guards[folder] = check
    try:
        yield
    finally:
        del _guards[folder]


def write_atomically(file: Path, content: bytes) -> None:
    """Writes a file whole or not at all: readers see the old content or the new, also after a crash."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        if check := _guards.get(file.parent.absolute()):
            check()
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
