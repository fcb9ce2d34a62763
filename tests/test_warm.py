"""A command run in a fork is what it is in a new process, its failures first of all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from warm import FORKS, python_m

SCRIPTS = {
    "fails": "print('begun'); raise ValueError('the sky fell')",
    "exits": "import sys; print('lost?'); sys.exit(3)",
    "exits with a line": "raise SystemExit('normlab: no')",
    "exits well": "raise SystemExit",
    "stopped": "raise KeyboardInterrupt",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "at exit": "import atexit; atexit.register(print, 'after')",
    "a thread": "import threading, time; threading.Thread(target=lambda: (time.sleep(0.2), print('after'))).start()",
    "a thread fails": "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
    "what it is": "import sys; print(__name__, sys.argv, sys.modules['__main__'].__spec__.name, __file__)",
    "where it is": "import os, sys; print(os.getcwd(), sys.path[0], os.environ['SAID'], len(os.environ))",
    "what it may import": "import beside, further; print(beside.__file__, further.__file__)",
    "reads": "import sys; print(repr(sys.stdin.read()))",
    "a child": "import subprocess; subprocess.run(['sh', '-c', 'echo $SAID; pwd; exit 2'], check=True)",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_is_what_a_new_process_gives(tmp_path: Path, name: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, file in ((here, "beside"), (there, "further")):
        folder.mkdir()
        (folder / f"{file}.py").touch()
    (here / "script.py").write_text(SCRIPTS[name])
    env = os.environ | {"PYTHONPATH": str(there), "SAID": "ü"}
    words = ("script", "norm=ln", "a b")
    command = [sys.executable, "-m", *words]
    new = subprocess.run(command, cwd=here, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    got = python_m(*words, cwd=here, env=env)
    assert (got.args, got.returncode, got.stdout) == (command, new.returncode, new.stdout)
    assert got.stderr.splitlines()[-1:] == new.stderr.splitlines()[-1:]
    assert ("Traceback" in got.stderr) == ("Traceback" in new.stderr)


def test_one_command_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    """Nor do both draw the same numbers: two runs that agree agree by their seed."""
    (tmp_path / "leaves.py").write_text(
        "import os, sys, normlab; from random import random; from numpy.random import rand\n"
        "print(hasattr(normlab, 'left'), 'LEFT' in os.environ, len(sys.path) > 1, random(), rand())\n"
        "normlab.left = 1; sys.path = []; os.environ['LEFT'] = ''"
    )
    first, second = (python_m("leaves", cwd=tmp_path).stdout.split() for _ in range(2))
    assert first[:3] == second[:3] == ["False", "False", "True"]
    assert not set(first[3:]) & set(second[3:])


def test_one_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text("import time; print('begun', flush=True); time.sleep(600)")
    with pytest.raises(subprocess.TimeoutExpired) as told:
        python_m("waits", cwd=tmp_path, timeout=1)
    assert told.value.output == "begun\n" or not FORKS
    assert python_m("json.tool", "--help").returncode == 0, "and the next is answered"
