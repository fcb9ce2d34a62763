"""How the process holds its memory while it trains."""

import ctypes

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)


def keep_freed_memory() -> bool:
    """Tells glibc to keep what is freed instead of giving it back; False where the C library is another one.

    Every step frees and asks for the same few megabytes a tensor. By default glibc maps them anew from the system each
    time, and a step then waits for thousands of page faults: up to a third of its time on a virtual machine. It cannot
    be taken back: for processes that do nothing but train.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no such function; on Windows no such library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 2**30)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
