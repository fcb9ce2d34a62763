"""From the C++ files of this folder to a library for this machine: compiled once, kept in the user's cache."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import platformdirs
from filelock import FileLock

from normlab.errors import first_line
from normlab.files import write_atomically
from normlab.settings.shape import small_network

HERE = Path(__file__).parent
# IEEE arithmetic: nan and inf stay what they are. -ffp-contract: a · b + c is rounded once, as the machine does it.
# Without exceptions, types at run time and guards, nothing of a C++ library is needed.
FLAGS = (
    *("-std=c++17", "-O2", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
    *("-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"),
    *("-shared", "-fPIC", "-pthread", "-w"),
)
LONGEST = 300  # seconds that a compiler may take


@dataclass(frozen=True)
class Vectors:
    """What this machine computes with at once. bits: of a vector. registers: how many vectors it holds."""

    bits: int
    registers: int


@cache
def processor() -> tuple[str, frozenset[str]]:
    """Return the name of the processor, empty where none is known, and what it can do, as Linux has them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = values.get("flags") or values.get("Features") or ""  # the second: ARM, which has numbers for a name
    numbers = [values[key] for key in ("CPU implementer", "CPU part", "CPU variant") if key in values]
    return values.get("model name") or platform.processor(), frozenset([*flags.split(), *numbers])


def vectors() -> Vectors:
    """Return the vectors of this machine: AVX-512, AVX2, or 128 bits as every machine has them."""
    flags = processor()[1]
    if "avx512f" in flags:
        return Vectors(512, 32)
    if {"avx2", "fma"} <= flags:
        return Vectors(256, 16)
    return Vectors(128, 32 if platform.machine() in ("aarch64", "arm64") else 16)


def compilers() -> list[list[str]]:
    """Return the commands of C++ compilers that may be here: CXX alone if it is set, else those on the path and that of
    the ziglang package."""
    if command := shlex.split(os.environ.get("CXX", "")):
        return [command]
    found = [[path] for path in map(shutil.which, ("g++", "clang++", "c++")) if path]
    # as a C compiler it need not build a C++ library first, which takes minutes
    return found + [[sys.executable, "-m", "ziglang", "cc", "-x", "c++"]] * bool(find_spec("ziglang"))


@cache
def library(
    channels: int, classes: int, size: tuple[int, int], number: str = "float", shared: bool = False
) -> ctypes.CDLL | str:
    """Return the functions of step.cpp for a network of this shape; in one line, why there are none.

    Args:
        channels, classes, size: see `normlab.settings.shape.small_network`.
        number: "float" or "double".
        shared: for lanes that belong to several networks.
    """
    macros = _macros(channels, classes, size, number, shared)
    try:
        file = compiled(HERE / "step.cpp", macros)
        if isinstance(file, str):
            return file
        try:
            loaded = ctypes.CDLL(str(file))
        except OSError:
            file.unlink(missing_ok=True)  # damaged: the next process compiles it again
            raise
    except (OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:  # of no home, of CXX, …
        return f"the kernels cannot be compiled or loaded: {first_line(error)}"
    loaded.step_new.restype = ctypes.c_void_p
    loaded.step_free.argtypes = [ctypes.c_void_p]
    loaded.step_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    loaded.step_exchange.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 2 + [ctypes.c_void_p]
    loaded.step_masks.argtypes = [ctypes.c_int64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_double, ctypes.c_int64]
    loaded.step_masks.argtypes += [ctypes.c_void_p]
    loaded.step_run.restype = loaded.step_masks.restype = ctypes.c_int64
    loaded.step_exchange.restype = None
    return loaded


def _macros(channels: int, classes: int, size: tuple[int, int], number: str, shared: bool) -> dict[str, str]:
    machine = vectors()
    stages = {stage.name.upper(): stage.outputs for stage in small_network(channels, classes, size)}
    del stages["HEAD"]
    own = {"CHANNELS": channels, "CLASSES": classes, "HEIGHT": size[0], "WIDTH": size[1], **stages}
    lanes = machine.bits // (64 if number == "double" else 32)
    own |= {"LANES": lanes, "REGISTERS": machine.registers, "SHARED": int(shared)}
    return {"NUMBER": number} | {name: str(value) for name, value in own.items()}


def compiled(source: Path, macros: Mapping[str, str]) -> Path | str:
    """Return the library of a C++ file and of the headers beside it, compiled by the first compiler that can, if it is
    not there; in one line, why it cannot be.

    Raise `OSError` where the cache cannot be written, `subprocess.SubprocessError` where a compiler hangs, `ValueError`
    where CXX is no command, `RuntimeError` where the user has no home.
    """
    if os.name == "nt":
        return "the kernels are for Linux and macOS"
    folder = platformdirs.user_cache_path("normlab", appauthor=False).absolute() / "kernels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022:  # who can write here decides what is run
        return f"others can write in {folder}"
    failed: list[str] = []
    for compiler in compilers():
        found = _by(compiler, source, macros, folder)
        if isinstance(found, Path):
            return found
        failed.append(found)
    return next(iter(failed), 'there is no C++ compiler: install g++ or clang++, or pip install "normlab[compiler]"')


def _by(compiler: Sequence[str], source: Path, macros: Mapping[str, str], folder: Path) -> Path | str:
    """The library by one compiler, in the cache's folder; why there is none."""
    arm = platform.machine() in ("aarch64", "arm64")
    command = [*compiler, *FLAGS, "-mcpu=native" if arm else "-march=native"]
    command += [*(f"-D{name}={value}" for name, value in macros.items()), str(source)]
    name, flags = processor()
    known = [*command, _version(compiler), name, *sorted(flags)]
    for file in [source, *sorted(source.parent.glob("*.h"))]:
        known.append(file.read_text(encoding="utf-8"))
    name = hashlib.sha256("\0".join(known).encode()).hexdigest()[:32]
    file = folder / f"{name}.so"
    if file.exists():
        return file
    with ExitStack() as compiling:
        with suppress(OSError):  # a file system that knows no locks: two processes may compile the same
            compiling.enter_context(FileLock(folder / f"{name}.lock", fallback_to_soft=False))
        if file.exists():  # another process was first
            return file
        made = Path(compiling.enter_context(tempfile.TemporaryDirectory()), file.name)
        done = subprocess.run(
            [*command, "-o", str(made)], capture_output=True, text=True, errors="replace", timeout=LONGEST
        )
        if done.returncode:
            return f"{compiler[0]} could not compile the kernels: {_error(done.stderr)}"
        if not made.is_file() or not made.stat().st_size:
            return f"{compiler[0]} could not compile the kernels: it wrote nothing"
        write_atomically(file, made.read_bytes())
    return file


def _version(compiler: Sequence[str]) -> str:
    """The first line that a compiler says of itself."""
    said = subprocess.run([*compiler, "--version"], capture_output=True, text=True, errors="replace", timeout=60)
    return next(iter(said.stdout.splitlines()), "")


def _error(messages: str) -> str:
    """The first line that says error, else the first line."""
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no message")
