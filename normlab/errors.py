"""The errors that a user can fix: each is one line that names the way out."""

import sys
from collections.abc import Callable, Sequence
from functools import wraps

Main = Callable[[Sequence[str]], int]


class NormlabError(Exception):
    """Something the user can fix. Commands print its text on stderr and exit with 2, without a traceback."""


class ConfigError(NormlabError, ValueError):
    """A setting that is unknown, out of range or does not fit another one.

    Its text often repeats what was typed: what would break the line or steer a terminal is shown by its escape.
    """

    def __init__(self, message: object) -> None:
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(message)))


class BusyError(NormlabError):
    """A folder in which another process trains."""


class DataError(NormlabError):
    """A data set that is missing, damaged or out of reach."""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message."""
    return next(iter(str(error).strip().splitlines()), "no message")


def in_one_line(stopped: str = "stopped") -> Callable[[Main], Main]:
    """Let the main function of a command print one line on stderr and return 2 for a `NormlabError`, 130 for Ctrl-C.

    stopped: what is printed after Ctrl-C.
    """

    def decorated(main: Main) -> Main:
        @wraps(main)
        def answered(arguments: Sequence[str]) -> int:
            try:
                return main(arguments)
            except NormlabError as error:
                print(f"normlab: {error}", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                print(f"normlab: {stopped}", file=sys.stderr)
                return 130

        return answered

    return decorated
