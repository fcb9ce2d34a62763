"""A command run in a fork is what it is in a new process, its failures first of all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from warm import FORKS, python_m

SCRIPTS = {
    "prints": "print('to the end', end='')",
    "fails": "print('begun'); raise ValueError('the sky fell')",
    "exits": "import sys; print('lost?'); sys.exit(3)",
    "exits with a line": "raise SystemExit('normlab: no')",
    "exits well": "raise SystemExit",
    "stopped": "raise KeyboardInterrupt",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "at exit": "import atexit; atexit.register(print, 'after')",
    "a thread": "import threading, time; threading.Thread(target=lambda: (time.sleep(0.2), print('after'))).start()",
    "a thread fails": "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
    "no such name": "import normlab; normlab.nothing",
    "no such module": "import nowhere_at_all",
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
    (tmp_path / "leaves.py").write_text(
        "import os, sys, normlab; normlab.left = 1; sys.path = []; os.environ['LEFT'] = ''"
    )
    (tmp_path / "finds.py").write_text("import os, normlab; print(hasattr(normlab, 'left'), 'LEFT' in os.environ)")
    assert python_m("leaves", cwd=tmp_path).returncode == 0
    assert python_m("finds", cwd=tmp_path).stdout == "False False\n"


def test_two_commands_draw_different_numbers(tmp_path: Path) -> None:
    """As two processes would: two runs that agree agree by their seed."""
    (tmp_path / "draws.py").write_text("import random, numpy; print(random.random(), numpy.random.rand())")
    first, second = (python_m("draws", cwd=tmp_path).stdout.split() for _ in range(2))
    assert not set(first) & set(second)


def test_one_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text("import time; print('begun', flush=True); time.sleep(600)")
    with pytest.raises(subprocess.TimeoutExpired) as told:
        python_m("waits", cwd=tmp_path, timeout=1)
    assert told.value.output == "begun\n" or not FORKS
    assert python_m("json.tool", "--help").returncode == 0, "and the next is answered"


@pytest.mark.skipif(not FORKS, reason="every command is a new process here")
def test_what_takes_long_is_there_before_a_command_begins(tmp_path: Path) -> None:
    names = "{'torch', 'lightning', 'pandas', 'normlab.training.run', 'normlab.analysis'}"
    (tmp_path / "looks.py").write_text(
        f"import sys, threading; print({names} - set(sys.modules), threading.active_count())"
    )
    assert python_m("looks", cwd=tmp_path).stdout == "set() 1\n"
    assert python_m("normlab.train", "--help").stderr == "", "no warning of a module that is there already"
