"""`python -m MODULE …` in a process forked from one that has imported torch and Lightning: the suite runs dozens of
command lines, and importing takes each of them longer than what it then does.

A helper process, one for each of pytest's, imports and does nothing else: it has no threads and has computed nothing,
so that it can be forked. A fork gets a command's folder, environment, path and output, runs the module as `python -m`
does, and is ended by the interpreter itself, as any process: exit codes, tracebacks and buffers are not this file's
doing. What is read while Python starts or a library is imported (OMP_NUM_THREADS, PYTHONIOENCODING, …) needs a new
process, and so does what is said about importing.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
FORKS = sys.platform == "linux"  # elsewhere there are no forks, or system libraries that do not bear them
IMPORTED = ("normlab.training", "normlab.lint", "normlab.summary", "normlab.scheduler.workers")
COMMANDS = ("normlab.train", "normlab.report", "normlab.probe")


def new_python(
    *words: object, cwd: Path | None = None, exit_code: int | None = None, stdout: Any = subprocess.PIPE,
    stderr: Any = subprocess.PIPE, **environment: str,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """`python …` in a process that is no fork. This repository comes before whatever else may be imported."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    every, command = {**os.environ, "PYTHONPATH": path, **environment}, [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=every, stdout=stdout, stderr=stderr, text=True, timeout=300)
    assert exit_code in (None, done.returncode), done.stderr
    return done


def python_m(
    module: str, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 300,
    meanwhile: Callable[[int], None] | None = None,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """`subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, …)`. `meanwhile` is
    called with the process's number while it runs."""
    command = [sys.executable, "-m", module, *arguments]
    if not FORKS:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, cwd=cwd, env=env, text=True, **pipes) as process:  # type: ignore[call-overload]
            if meanwhile is not None:
                meanwhile(process.pid)
            texts = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(command, process.returncode, *texts)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        asked = {"argv": command[2:], "cwd": str(cwd or Path.cwd()), "env": dict(os.environ if env is None else env)}
        code = _run(asked | {"out": str(out), "err": str(err)}, timeout, meanwhile)
        texts = [file.read_bytes().decode() for file in (out, err)]
    if code is None:
        raise subprocess.TimeoutExpired(command, timeout, *texts)
    return subprocess.CompletedProcess(command, code, *texts)


def end() -> None:
    """Ends the helper, if there is one. It would end with this process anyway, when its standard input is closed."""
    if _helper.cache_info().currsize:
        _helper().communicate()


@cache
def _helper() -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    return subprocess.Popen([sys.executable, __file__], cwd=REPOSITORY, env=environment, **pipes)  # type: ignore[call-overload,no-any-return]


def _run(asked: Mapping[str, object], timeout: float, meanwhile: Callable[[int], None] | None) -> int | None:
    """The exit code; None where it had to be killed."""
    helper = _helper()
    assert helper.stdin is not None
    assert helper.stdout is not None
    helper.stdin.write(json.dumps(asked).encode() + b"\n")
    process = int(helper.stdout.readline())
    if meanwhile is not None:
        meanwhile(process)
    in_time = bool(select.select([helper.stdout], [], [], timeout)[0])
    if not in_time:
        os.kill(process, signal.SIGKILL)
    code = int(helper.stdout.readline())
    return code if in_time else None


def _serve() -> dict[str, object] | None:
    """Forks for every command that is asked for. Gives it in the fork, and None when nothing more is asked for."""
    while line := sys.stdin.readline():
        process = os.fork()
        if not process:
            return dict(json.loads(line))
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
    return None


def _main() -> None:
    path = sys.path[1:]  # without this file's folder
    sys.path[:] = [str(REPOSITORY), *path]
    for name in (*IMPORTED, *COMMANDS):
        importlib.import_module(name)
    for name in COMMANDS:
        del sys.modules[name]  # runpy warns of a module that is there already
    gc.freeze()  # or every fork's first collection would copy all pages
    if importlib.import_module("torch").__version__ >= (2, 15):  # its triton reports as leaked what is frozen
        atexit.register(gc.unfreeze)  # at the end: thawing takes a second, and the shortest command 0.4 without it
    asked = _serve()
    if asked is None:
        return
    module, *sys.argv[1:] = asked["argv"]
    for number, (file, flags) in enumerate([(os.devnull, os.O_RDONLY), (asked["out"], NEW), (asked["err"], NEW)]):
        opened = os.open(file, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    more = os.environ.get("PYTHONPATH", "")
    sys.path[:] = [os.getcwd(), *(more.split(os.pathsep) if more else []), *path]
    # a shell lets what it runs in the background ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    importlib.import_module("numpy").random.seed()  # as different from process to process as it would be
    runpy.run_module(module, run_name="__main__", alter_sys=True)


NEW = os.O_WRONLY | os.O_CREAT | os.O_APPEND

if __name__ == "__main__":
    _main()
