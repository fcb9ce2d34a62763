"""The errors that a user can mend: each is one line that names the fix."""


class NormlabError(Exception):
    """Something the user can mend. Doors print its text on stderr and exit with 2, without a traceback."""


class ConfigError(NormlabError, ValueError):
    """A setting that is unknown, out of range or does not fit another one."""


class BusyError(NormlabError):
    """A folder in which another process trains."""


class DataError(NormlabError):
    """A data set that is missing, damaged or out of reach."""
