"""Every command of the documents is run in a short form, and every Python snippet; tests/documents.py finds them.

Those of a page run in its order, in this process (importing torch takes seconds) and in one folder. A command is called
with its own words; `SHORT`, `SMALL` and `first_and_last` make it short. What is not run here stands in `NOT_RUN`.
"""

import argparse
import importlib
import inspect
import logging
import os
import re
import runpy
import shutil
import signal
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
import pytest
import torch
from conftest import REPOSITORY, draw_nothing
from documents import Typed, found_in, pages, split

from normlab import report
from normlab.settings import plan as planning
from normlab.sweep.options import options
from normlab.sweep.schedule import InProcess

PAGES = pages()
COMMANDS = [each for found in PAGES.values() for each in found if each.words]
SETTINGS = re.compile(r"\bload\([^)]*")

# of a training
SHORT = ["data=digits", "epochs=1", "train_size=64", "val_size=32", "threads=1", "seed=0", "accelerator=cpu"]
SMALL = {  # words behind a command's own
    "normlab.report": "--no-figures",  # tests/test_report.py draws them
    "docs/draw.py": "--out drawn",
    "docs/house.py": "--out drawn",
    "docs/keep.py": "--out kept",
    "benchmarks.equivalence": "--norms gn --seeds 2 --epochs 1 --batch 256 --out equivalence.md",
    "benchmarks.probes": "--reps 1 --train-size 64 -- data=digits norm=bn",
    "benchmarks.step": "--batch 4",
}
TRAINED = {  # by what is read in a help, where no command stands before it
    "lightning_logs/runs/ln-seed_0": ["norm=ln"],
}
SMALLER: dict[str, dict[str, Any]] = {  # names in a script
    "docs/choose_batch.py": {"LOOKED_AT": 2_000_000},
    "notebooks/execute.py": {"HERE": Path("books"), "execute": lambda notebook, folder: notebook},
}
NOT_RUN = {  # how a command begins, or a word in it
    "hydra/launcher=submitit_slurm": "needs a SLURM cluster; tests/test_cluster.py has the launcher",
    "hydra/launcher=array_slurm": "needs a SLURM cluster; tests/test_cluster.py has the launcher",
    "hydra/launcher=ray": "no dependency: docs/cluster.md says with what it was tried",
    "devices=2": "starts processes that import torch; tests/test_devices.py trains on two devices",
    "ssh": "needs a second machine",
    "kill": "tests/test_killed.py kills commands",
    "jupyter lab": "opens a browser; tests/test_notebooks.py runs the notebooks",
    "tensorboard": "does not end; tests/test_tensorboard.py starts it and reads its views",
    "pip install": "needs a network; .ci/run installs in a clean clone",
    "python -m venv": ".ci/run makes one in a clean clone",
    "source": "of a shell, in an environment",
    "python -m pytest": "these are the tests",
    "pytest": "these are the tests",
    "ruff": ".ci/run calls it",
    "mypy": ".ci/run calls it: half a minute",
    ".ci/run": "runs these tests in a clean clone",
    "python -m build": "tests/test_package.py builds and compares what comes out",
    "tar": "tests/test_package.py opens the sdist",
    "--page": "needs nbconvert, which JupyterLab brings",
    "python -m benchmarks.study": "tests/test_benchmarks.py runs it with all its ways to train: plain, hfta",
    "python -m benchmarks.plain": "see benchmarks.study",
    "python -m benchmarks.hfta": "see benchmarks.study",
    "python -m benchmarks.norms": "tests/test_norms_page.py measures two norms",
    "python -m benchmarks.soak": "hundreds of runs; tests/test_benchmarks.py makes its page of some",
}


def row_of(command: Typed) -> str | None:
    text = f" {' '.join(command.words)} "
    return next((row for row in NOT_RUN if text.startswith(f" {row} ") or (row in command.words[1:])), None)


def target(command: Typed) -> tuple[str, list[str]]:
    """The module or script of this repository that a command runs, and its words; "" where it runs neither."""
    words = list(command.words)
    if words[:2] == ["python", "-m"]:
        return (words[2], words[3:]) if words[2].startswith(("normlab.", "benchmarks.")) else ("", [])
    return (words[1], words[2:]) if words[0] == "python" else ("", [])


def call(name: str, words: list[str]) -> None:
    """As `python -m name words` or `python name words`; it has to end with exit code 0."""
    if name == "-c":
        exec(words[0], {})
        return
    scope = runpy.run_path(str(REPOSITORY / name)) if name.endswith(".py") else vars(importlib.import_module(name))
    if "main" not in scope:
        runpy.run_path(scope["__file__"], run_name="__main__")
        return
    scope["main"].__globals__.update(SMALLER.get(name, {}))
    try:
        with mock.patch("sys.argv", [name, *words]):  # Hydra's own flags are read from there
            code = scope["main"](*([words] if inspect.signature(scope["main"]).parameters else words))
    except SystemExit as error:
        code = error.code
    assert not code, f"ended with {code}"


def reads(command: Typed) -> None:
    """What is not run: its words are right, as far as that can be known."""
    name, words = target(command)
    text = " ".join(command.words)
    if name == "normlab.train":
        planning.plan([word for word in words if word[:5] not in ("-m", "hydra")], multirun="-m" in words)
        with mock.patch("shutil.which", lambda word: word):
            assert "slurm" not in text or options(planning.launcher_of(words), words)
    elif name.startswith("benchmarks."):
        parse = argparse.ArgumentParser.parse_args
        stop = mock.patch("argparse.ArgumentParser.parse_args", lambda *given: parse(*given) and 1 / 0)
        with stop, pytest.raises(ZeroDivisionError):
            importlib.import_module(name).main(words)
    elif text.startswith("pip"):
        extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        found = re.search(r"(?:\.|normlab)(?:\[(\w+)\])?( hydra-ray-launcher)?$", text)
        assert found, text
        assert found[1] in {None, *extras}, text
    assert not text.startswith("tensorboard") or text == "tensorboard --logdir lightning_logs"
    assert all((REPOSITORY / word).is_file() for word in words if word.startswith("tests/")), text


DONE: dict[tuple[str, ...], dict[str, Path]] = {}  # commands, each run once, and the folders of runs that they made


def run(command: Typed, made: dict[str, Path], strict: bool) -> None:
    """made: a folder of runs, as the page has it, and as it is here. strict: a page of instructions makes it first."""
    name, words = target(command)
    assert name, "no test runs this: see NOT_RUN"
    if name in ("normlab.report", "normlab.probe") and not words:  # a program's name in a sentence
        words = ["--help"]
    anyone = "lightning_logs/runs/ln-seed_0" if name == "normlab.probe" else "lightning_logs/replication"
    for index, word in enumerate(words):
        if re.match("FOLDER|lightning_logs/", word):
            folder = anyone if word in ("FOLDER", "lightning_logs/NAME") else word
            if folder not in made:
                assert word != folder or not strict, f"no command of this page makes {folder} before it is read"
                once("normlab.train", TRAINED.get(folder) or [f"study={Path(folder).name}"], made)
            words[index] = str(made[folder])
    if name.startswith("benchmarks.") and name in SMALL:  # its words are read each time, it runs once
        reads(command)
        words = []
    words += SMALL.get(name, "").split() if "--help" not in words else []
    once(name, words + ["--norm", "bn"] * (name == "normlab.calculate" and "--out" in words), made)


def once(name: str, words: list[str], made: dict[str, Path]) -> None:
    if (name, *words) not in DONE:
        new: dict[str, Path] = {}
        study, launched = (any(word.startswith(key) for word in words) for key in ("study=", "hydra/launcher="))
        more = ["hydra.launcher.n_jobs=1"] if launched else ["hydra/launcher=basic"] * study  # in this process
        more += ["force=true"] * any(word.startswith("probes=") for word in words)  # else what stands is left as it is
        with mock.patch("normlab.train.plan", partial(first_and_last, new)):
            call(name, words + more)
        DONE[name, *words] = new
    made |= DONE[name, *words]


def first_and_last(made: dict[str, Path], words: list[str], *, multirun: bool, **_: Any) -> list[planning.Job]:
    """Plans what is asked for as it stands; gives the short form of its first and its last run."""
    mnist = [] if "data=" in " ".join(words) or planning.study_of(words) else ["data=mnist"]
    asked = planning.plan([*words, *mnist], multirun=multirun)
    ends = [[*job.words, *SHORT] for job in (asked[0], asked[-1])[: len(asked)]]
    jobs = [planning.plan(each, multirun=multirun)[0] for each in ends]
    made |= {str(asked[0].folder): jobs[0].folder, str(asked[0].folder.parent): jobs[0].folder.parent}
    return jobs


def covering(words: Sequence[str], crossed: Callable[..., Any] = planning._crossed) -> list[list[str]]:
    """Of all combinations so many that every value is there, and the last. tests/test_study.py plans whole studies."""
    jobs = list(crossed(words))
    study = planning.study_of(jobs[0])
    few = [i for i, job in enumerate(jobs) if not study and set(job) - {word for before in jobs[:i] for word in before}]
    return [jobs[i] for i in sorted({0, *few, len(jobs) - 1})]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the files that the documents tell people to write, and a notebook."""
    folder = tmp_path_factory.mktemp("commands")
    for code in [each.code for found in PAGES.values() for each in found]:
        if named := re.match(r"# (\w+\.py)\n", code):
            (folder / named[1]).write_text(code)
    (folder / "package").mkdir()
    (folder / "package" / "module.py").write_text((folder / "mine.py").read_text().replace("class RMS", "class Class"))
    (folder / "mine.csv").write_text("1 2 4\n" * 48)  # 4 x 4 x 3 x 3 numbers
    shutil.copytree(REPOSITORY / "docs", folder / "docs", ignore=shutil.ignore_patterns("*.png", "*.svg", "studies"))
    (folder / "books").mkdir()
    nbformat.write(nbformat.v4.new_notebook(), folder / "books" / "02.ipynb")
    return folder


@pytest.fixture(autouse=True)
def as_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process of its own, in that folder: offline, its modules found; logging and signals put back."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.delenv("NORMLAB_DATA", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # benchmarks start one process per core
    monkeypatch.setattr("benchmarks.probes.PROBES", ("", "layers"))
    monkeypatch.setattr("benchmarks.step.STEPS", 4)
    monkeypatch.setattr(planning, "_crossed", covering)
    monkeypatch.setattr("normlab.sweep.workers.Workers", lambda *_: InProcess())
    draw_nothing(monkeypatch)
    root, on_term = logging.getLogger(), signal.getsignal(signal.SIGTERM)
    handlers, level = root.handlers[:], root.level
    yield
    signal.signal(signal.SIGTERM, on_term)
    root.handlers[:], root.level = handlers, level
    torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snippets with the names that stand before."""
    strict, made, failed = page.endswith(".md") and page != "CHANGELOG.md", dict[str, Path](), []
    scope: dict[str, Any] = {"__name__": "snippet"}
    quick = report.main
    monkeypatch.setattr(report, "main", lambda words: quick([*words, "--no-figures"]))  # of docs/keep.py
    for each in PAGES[page]:
        try:
            if each.code:
                exec(compile(SETTINGS.sub(rf"\g<0>, *{SHORT}", each.code), each.where, "exec"), scope)
                assert "record" not in scope or scope["record"].status == "completed"
            elif row_of(each):
                reads(each)
            else:
                run(each, made, strict)
        except (Exception, SystemExit) as error:
            failed.append(f"{each}\n    {type(error).__name__}: {error}")
    assert not failed, "\n".join(failed)


def test_a_command_is_run_or_it_is_said_why_not() -> None:
    assert not [str(each) for each in COMMANDS if not row_of(each) and not target(each)[0]], "see NOT_RUN"
    assert not set(NOT_RUN) - {row_of(each) for each in COMMANDS}, "no document has these any more"


def test_what_texts_name_is_there() -> None:
    """Messages, comments and strings that say "python -m …"."""
    files = [*REPOSITORY.glob("*.md")]
    for place in ("normlab", "benchmarks", "docs", "notebooks", "conf"):
        files += [file for kind in ("py", "md", "ipynb", "yaml") for file in (REPOSITORY / place).rglob(f"*.{kind}")]
    named = re.compile(r"python3? (?:-m ((?:normlab|benchmarks)\.[\w.]*\w)|((?:docs|notebooks)/\w+\.py))")
    found = {match.groups() for file in files for match in named.finditer(file.read_text(encoding="utf-8"))}
    assert len(found) > 15
    for module, script in found:
        file = REPOSITORY / (script or f"{module.replace('.', '/')}.py")
        assert "__main__" in file.read_text(encoding="utf-8"), f"{module or script} is no command"


PAGE = """Text with `python -m normlab.train
norm=ln`, a `setting=1`, the name `python`, and `conda create -n x`.
```bash
NAME=value python3 -m venv here && .venv/bin/pip install -e . # a remark
unknown norm=bn,ln \\
  'seed=range(3)' > file
```
```
output: nothing
sbatch train.sh
```
"""


def test_commands_are_found() -> None:
    assert [str(each) for each in found_in("a.md", PAGE)] == [
        "a.md:1: python -m normlab.train norm=ln",
        "a.md:2: conda create -n x",
        "a.md:4: python -m venv here",
        "a.md:4: pip install -e .",
        "a.md:5: unknown norm=bn,ln 'seed=range(3)'",
        "a.md:10: sbatch train.sh",
    ]
    with pytest.raises(AssertionError, match="a block of 'sh'"):
        found_in("a.md", "a\n\n```sh\nls\n```\n")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("sbatch train.sh", "no test runs this"),
        ("python -m normlab.nowhere", "No module named"),
        ("python -m normlab.train norm=ln epoch=3", "ended with 2"),
        ("python -m normlab.train -m norm=bn,lnn,gn", "ended with 2"),
        ("python -m normlab.calculate --norm bn | less", "ended with 2"),
        ("python -m normlab.report lightning_logs/nowhere", "no command of this page makes"),
    ],
)
def test_a_wrong_command_fails(line: str, told: str) -> None:
    (command,) = split("page", line)
    with pytest.raises((AssertionError, ImportError), match=told):
        run(command, {}, strict=True)
