"""Every command and Python snippet in a block of README, CONTRIBUTING and docs/ is run, in a short form.

Those of a page run in its order, in this process (importing torch takes seconds) and in one folder. A training is
planned as it stands; its first and last run are then trained with `SHORT`. What is not run here stands in `NOT_RUN`.
"""

import importlib
import inspect
import logging
import re
import runpy
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from conftest import REPOSITORY, draw_nothing

from normlab import report
from normlab.scheduler.options import launcher_options
from normlab.scheduler.schedule import InProcess
from normlab.settings import plan as planning

FILES = [*REPOSITORY.glob("[RC]*.md"), *REPOSITORY.glob("[dnl]*/*.md")]
SHORT = ["data=digits", "epochs=1", "train_size=64", "val_size=32", "threads=1", "seed=0", "accelerator=cpu"]
SMALL = {  # words behind a command's own
    "normlab.report": "--no-figures",  # tests/test_report.py draws them
    "docs/draw.py": "--out drawn",
    "docs/keep.py": "--out kept",
}
NOT_RUN = {  # words in a command
    "hydra/launcher=submitit_slurm": "needs a SLURM cluster; tests/test_cluster.py has the launcher",
    "hydra/launcher=array_slurm": "needs a SLURM cluster; tests/test_cluster.py has the launcher",
    "hydra/launcher=ray": "no dependency: docs/cluster.md says with what it was tried",
    "devices=2": "starts processes that import torch; tests/test_devices.py trains on two devices",
    "tensorboard": "does not end; tests/test_tensorboard.py starts it and reads its views",
    "benchmarks/gpu.sh": "needs a GPU; tests/test_benchmarks.py has its words",
    "old/replication": "there is one study only; tests/test_report.py compares two folders",
    "logger=[tensorboard,wandb]": "needs wandb; tests/test_loggers.py trains with it where it is",
    "pip": "needs a network; .ci/run installs in a clean clone",
    "uv": "makes an environment of its own, from a registry",
    "source": "activates what .ci/run makes",
    "venv": ".ci/run makes one in a clean clone",
    "pytest": "these are the tests",
    "build": "tests/test_package.py builds and compares what comes out",
    "tar": "tests/test_package.py opens the sdist",
    "notebooks/execute.py": "tests/test_notebooks.py runs the notebooks",
    "sphinx-build": ".ci/run calls it",
    "ruff": ".ci/check calls it",
}


def commands(block: str) -> Iterator[list[str]]:
    """The programs of a ```bash block, without variables that are set for them and .venv/bin/."""
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        programs: list[list[str]] = [[]]
        for word in lexer:
            if word in ("&&", ";"):
                programs.append([])
            elif programs[-1] or not re.match(r"[A-Z_]+=", word):
                programs[-1].append(word)
        for words in filter(None, programs):
            yield [words[0].removeprefix(".venv/bin/").replace("python3", "python"), *words[1:]]


def typed(text: str) -> list[str | list[str]]:
    """What a page tells people to type: the words of a program, or a snippet."""
    found: list[str | list[str]] = []
    for kind, block in re.findall(r"(?ms)^ *```(bash|python) *\n(.*?)^ *``` *$", text):
        found += [block] if kind == "python" else commands(block)
    return found


PAGES = {file.relative_to(REPOSITORY).as_posix(): typed(file.read_text(encoding="utf-8")) for file in FILES}


def reason(words: Sequence[str]) -> str | None:
    return next((NOT_RUN[word] for word in words if word in NOT_RUN), None)


def call(name: str, words: list[str]) -> None:
    """As `python -m name words` or `python name words`; it has to end with exit code 0."""
    scope = runpy.run_path(str(REPOSITORY / name)) if name.endswith(".py") else vars(importlib.import_module(name))
    try:
        with mock.patch("sys.argv", [name, *words]):  # Hydra's own flags are read from there
            code = scope["main"](*([words] if inspect.signature(scope["main"]).parameters else words))
    except SystemExit as error:
        code = error.code
    assert not code, f"ended with {code}"


def reads(words: list[str]) -> None:
    """What is not run: its words are right, as far as that can be known."""
    if words[:3] == ["python", "-m", "normlab.train"]:
        planning.plan([word for word in words[3:] if word[:5] not in ("-m", "hydra")], multirun="-m" in words[3:])
        with mock.patch("shutil.which", lambda word: word):
            assert "slurm" not in " ".join(words) or launcher_options(planning.launcher_of(words), words)


def run(words: list[str], made: dict[str, Path]) -> None:
    """made: a folder of runs, as the page has it, and as it is here."""
    assert words[0] == "python", "no test runs this: see NOT_RUN"
    name, given = (words[2], words[3:]) if words[1] == "-m" else (words[1], words[2:])
    for index, word in enumerate(given):
        if word.startswith("lightning_logs/"):
            assert word in made, f"no command of this page makes {word} before it is read"
            given[index] = str(made[word])
    study, launched = (any(word.startswith(key) for word in given) for key in ("study=", "hydra/launcher="))
    more = ["hydra.launcher.n_jobs=1"] if launched else ["hydra/launcher=basic"] * study  # in this process
    with mock.patch("normlab.train.plan", partial(first_and_last, made)):
        call(name, [*given, *more, *SMALL.get(name, "").split()])


def first_and_last(made: dict[str, Path], words: list[str], *, multirun: bool, **_: Any) -> list[planning.Job]:
    """Plans what is asked for as it stands; gives the short form of its first and its last run."""
    mnist = [] if "data=" in " ".join(words) or planning.study_of(words) else ["data=mnist"]
    asked = planning.plan([*words, *mnist], multirun=multirun)
    ends = [[*job.overrides, *SHORT] for job in (asked[0], asked[-1])[: len(asked)]]
    jobs = [planning.plan(each, multirun=multirun)[0] for each in ends]
    made |= {str(asked[0].folder): jobs[0].folder, str(asked[0].folder.parent): jobs[0].folder.parent}
    return jobs


def covering(words: Sequence[str], crossed: Callable[..., Any] = planning._crossed) -> list[list[str]]:
    """Of all combinations so many that every value is there, and the last. tests/test_study.py plans whole studies."""
    jobs = list(crossed(words))
    study = planning.study_of(jobs[0])
    few = [i for i, job in enumerate(jobs) if not study and set(job) - {word for before in jobs[:i] for word in before}]
    return [jobs[i] for i in sorted({0, *few, len(jobs) - 1})]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """With the files that the pages tell people to write; as in a process of its own there: offline, its modules found,
    logging and signals put back."""
    for snippet in [each for found in PAGES.values() for each in found if isinstance(each, str)]:
        if named := re.match(r"# (\w+\.py)\n", snippet):
            (tmp_path / named[1]).write_text(snippet)
    shutil.copytree(REPOSITORY / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.png", "*.svg", "studies"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NORMLAB_DATA", raising=False)
    monkeypatch.setattr(planning, "_crossed", covering)
    monkeypatch.setattr("normlab.scheduler.workers.Workers", lambda *_: InProcess())
    draw_nothing(monkeypatch)
    root, on_term = logging.getLogger(), signal.getsignal(signal.SIGTERM)
    handlers, level = root.handlers[:], root.level
    yield tmp_path
    signal.signal(signal.SIGTERM, on_term)
    root.handlers[:], root.level = handlers, level
    torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", [page for page, found in PAGES.items() if found])
def test_what_a_page_says_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snippets with the names that stand before."""
    made, failed, scope = dict[str, Path](), [], {"__name__": "snippet"}
    quick = report.main
    monkeypatch.setattr(report, "main", lambda words: quick([*words, "--no-figures"]))  # of docs/keep.py
    for each in PAGES[page]:
        try:
            if isinstance(each, str):
                shortened = re.sub(r"\bload\([^)]*", rf"\g<0>, *{SHORT}", each)
                exec(compile(shortened, page, "exec"), scope)
                assert "record" not in scope or scope["record"].status == "completed"  # type: ignore[attr-defined]
            elif reason(each):
                reads(each)
            else:
                run(each, made)
        except (Exception, SystemExit) as error:
            failed.append(f"{each}\n    {type(error).__name__}: {error}")
    assert not failed, "\n".join(failed)


def test_what_is_not_run_is_in_a_page() -> None:
    words = {word for found in PAGES.values() for each in found if not isinstance(each, str) for word in each}
    assert not set(NOT_RUN) - words, "no page has these any more"


def test_what_texts_name_is_there() -> None:
    """Messages, comments and strings that say "python -m …"."""
    files = [*REPOSITORY.glob("*.md")]
    for place in ("normlab", "benchmarks", "docs", "notebooks", "conf"):
        files += [file for kind in ("py", "md", "ipynb", "yaml") for file in (REPOSITORY / place).rglob(f"*.{kind}")]
    named = re.compile(r"python3? (?:-m ((?:normlab|benchmarks)\.[\w.]*\w)|((?:docs|notebooks)/\w+\.py))")
    found = {match.groups() for file in files for match in named.finditer(file.read_text(encoding="utf-8"))}
    assert len(found) > 15
    for module, script in found:
        place = REPOSITORY / (script or module.replace(".", "/"))
        file = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
        assert "__main__" in file.read_text(encoding="utf-8"), f"{module or script} is no command"
