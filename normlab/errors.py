"""The errors that a user can mend: each is one line that names the fix."""


class NormlabError(Exception):
    """Something the user can mend. Doors print its text on stderr and exit with 2, without a traceback."""


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
