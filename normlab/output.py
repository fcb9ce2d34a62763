"""What a command prints, and the process that it runs in: a reader that goes away must not end what is computed."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console


class Steady:
    """A text stream that drops what its device does not take: `| head` has seen enough, or a disk is full.

    Attributes:
        error: why something was dropped; None where nothing was.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            self._stream.write(text)
        except OSError as error:
            self.error = error
        return len(text)

    def flush(self) -> None:
        """Pass on what is buffered, if the device takes it."""
        try:
            self._stream.flush()
        except OSError as error:
            self.error = error


def steady(stream: TextIO | None) -> TextIO | None:
    """Return a stream of the same place that never raises `OSError`; None for None."""
    return None if stream is None else cast(TextIO, Steady(stream))


def command(main: Callable[[Sequence[str]], int]) -> int:
    """Run a command line in this process, which it has for itself; return its exit code.

    An output whose reader has gone (EPIPE) is no error. One that cannot be written for another reason makes an exit
    code of 0 a 1, with one line on stderr.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        # A thread of torch's that waits gives its core to other programs after this many rounds instead of 300,000: as
        # fast on an idle machine, more than twice as fast beside a busy process (benchmarks/beside.py).
        os.environ["GOMP_SPINCOUNT"] = "10000"
    os.environ["MPLBACKEND"] = "agg"  # no window is opened; a notebook's kernel names a backend that may not be here
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:  # closed by the shell: the next file to be opened would be in its place
            opened = os.open(os.devnull, os.O_WRONLY)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115  # for good
    out = Steady(sys.stdout)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, Steady(sys.stderr))
    code = main(sys.argv[1:])
    out.flush()
    if out.error is not None and out.error.errno != errno.EPIPE:
        print(f"normlab: what was printed is lost ({out.error.strerror})", file=sys.stderr)
        return code or 1
    return code


def console(width: int = 200) -> "Console":
    """Return a console on stdout, of this width where stdout is no terminal: rich's 80 columns there would fold tables.

    A sign that the device lacks, such as ±, becomes a question mark.
    """
    from rich.console import Console

    if hasattr(sys.stdout, "reconfigure"):  # not in a notebook
        sys.stdout.reconfigure(errors="replace")
    return Console(highlight=False, width=None if sys.stdout.isatty() else width)  # FORCE_COLOR makes no terminal


def counted(n: int, what: str) -> str:
    """ "1 seed", "1,297 images"."""
    return f"{n:,} {what}{'s' * (n != 1)}"
