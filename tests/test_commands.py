"""Every command of the documents, run to its end in a short form, and every Python snippet.

tests/documents.py finds them. A command is read as it stands and then shortened as the runners below say: fewer images,
fewer values of a sweep, a place for what it writes. Commands of a page run in the order of the page, in one folder and
in this process (importing torch takes seconds), each once. What cannot be run here stands in `ELSEWHERE`. A command
that nothing here knows fails: give it a runner or a line in that table.
"""

import argparse
import importlib
import importlib.util
import logging
import math
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
import torch
from conftest import REPOSITORY
from documents import DOORS, Command, Snippet, UnreadableError, documents, in_markdown, in_notebook, mentions, split
from hydra.core.override_parser.overrides_parser import OverridesParser

from benchmarks.samples import cut, write_as_mnist
from normlab import launcher
from normlab.data.sources import load as load_images
from normlab.record import Record, read_probes
from normlab.settings import STUDY_FILE, Settings, sweep_of
from normlab.settings import plan as planning
from normlab.settings.plan import plan, study_of

PAGES = documents()  # pages of instructions first
COMMANDS = [each for found in PAGES.values() for each in found if isinstance(each, Command)]

# How a training is made short: these words take the place of what a command says, everything else stays.
SHORT = {"data": "digits", "epochs": "1", "train_size": "64", "val_size": "32", "threads": "1"}
RUNS = 2  # of a sweep: the first and the last value of its first setting, the first of the others
LAUNCHERS = {"joblib", "array"}  # both with one process: this one
CLUSTER = {"submitit_slurm", "submitit_local", "array_slurm", "array_local"}
DRAWN = "lightning_logs/replication"  # the one report that is made with figures
LEFT = {".hydra", "hparams.yaml", "last.ckpt", "metrics.csv", "predictions.npz", "result.json", "train.log"}
REPORTED = {"summary.csv", "comparisons.csv", "claims.csv", "errors.csv", "overlap.csv", "times.csv", "report.html"}


class Elsewhere(NamedTuple):
    """Where a command is executed instead, or why nowhere. text: what stands in that file, or the row is too old."""

    file: str
    text: str
    why: str


CI = REPOSITORY / ".ci" / "run"

# By how a command begins.
ELSEWHERE = {
    "tensorboard --logdir": Elsewhere(
        "tests/test_tensorboard.py", '"tensorboard.main", "--logdir"', "started there, and all its views are read"
    ),
    "pip install": Elsewhere(
        ".ci/run", 'test_command=$(readme_command "command: test")', "the README's own line, in a clean clone"
    ),
    "python -m pytest": Elsewhere(".ci/run", 'eval "$test_command"', "the README's own line, in a clean clone"),
    "pytest": Elsewhere("pyproject.toml", 'testpaths = ["tests"]', "part of the tests that run now"),
    "ruff check": Elsewhere(".ci/run", ".venv/bin/ruff check .", "before anything lands"),
    "ruff format": Elsewhere(
        ".ci/run", ".venv/bin/ruff format --check .", "before anything lands; here it would write"
    ),
    "mypy": Elsewhere(".ci/run", ".venv/bin/mypy", "before anything lands: half a minute"),
    "jupyter lab": Elsewhere(
        "tests/test_notebooks.py", "def test_03_runs", "nowhere: opens a browser; the notebooks themselves run there"
    ),
    "ssh": Elsewhere("docs/security.md", "`ssh -L 6006:localhost:6006 machine`", "nowhere: needs a second machine"),
    "python -m build": Elsewhere(
        "tests/test_package.py", '"-m", "build", "--no-isolation"', "sdist and wheel, compared"
    ),
    "tar xzf": Elsewhere("tests/test_package.py", "tarfile.open", "the sdist is opened and its files are counted"),
    "kill": Elsewhere("tests/test_killed.py", "SIGKILL", "whole commands are killed there"),
    "python -m normlab.settings.page": Elsewhere(
        "tests/test_readme.py", "page == as_markdown()", "the committed page is what it makes"
    ),
    "python -m benchmarks.norms_page": Elsewhere(
        "tests/test_norms_page.py", "renew(tmp_path", "the committed page is what it makes"
    ),
    "python -m benchmarks.study": Elsewhere(
        "tests/test_benchmarks.py", "def test_whole_study_benchmark", "all its ways to train, each in its own process"
    ),
}


@dataclass
class Shop:
    """The folder in which commands run, what has run there, and what the folders of the documents are called here."""

    folder: Path
    patch: pytest.MonkeyPatch
    done: dict[tuple[str, ...], Exception | None] = field(default_factory=dict)
    runs: dict[str, Path] = field(default_factory=dict)  # a run's folder, as a document has it -> as it is here
    made: set[str] = field(default_factory=set)  # folders that commands of this page make, as the page has them
    strict: bool = False  # a page of instructions: it has to make what it reads

    def once(self, key: Sequence[str], do: Callable[[], object]) -> None:
        """Does it, or gives what came of it before."""
        if tuple(key) not in self.done:
            try:
                do()
                self.done[tuple(key)] = None
            except Exception as error:
                self.done[tuple(key)] = error
        if (error := self.done[tuple(key)]) is not None:
            raise error


# --- runners: what a command begins with, and how it is run with the words that follow


def train(shop: Shop, words: list[str]) -> None:
    """As it stands it is planned; then it is trained in its short form, and every run has to leave its files."""
    if {"--help", "--hydra-help"} & set(words):
        shop.once(["train", *words], lambda: exits(DOORS["train"].main, words))
        return
    absent = "hydra/launcher=ray"  # no dependency: docs/cluster.md says with what it was tried
    overrides, multirun = [word for word in words if word not in ("-m", absent)], "-m" in words
    if (study := study_of(overrides)) is None:  # tests/test_study.py plans every study
        asked = plan([*overrides, *["data=mnist"] * all(key_of(word) != "data" for word in words)], multirun=multirun)
    short = shortened(overrides)
    if not multirun and any(key_of(word) == "probes" for word in short):
        short.append("force=true")  # a run that stands from another page is not trained again for a probe
    jobs = plan(short, multirun=multirun)
    shop.once(["train", *sorted(short)], lambda: exits(DOORS["train"].main, ["-m"] * multirun + short))
    records = [Record.load(job.folder) for job in jobs]
    assert any(record.status == "completed" for record in records)
    for job, record in zip(jobs, records, strict=True):
        assert record.done, f"{job.folder}: {record.status}: {record.error}"
        if record.status == "completed":
            names = {file.name for file in job.folder.iterdir()}
            assert names >= LEFT, f"{job.folder} lacks {LEFT - names}"
            assert any(name.startswith("events.out.tfevents.") for name in names)
            assert {row[2] for row in read_probes(job.folder)} >= set(job.settings.probes)
    if study is None:
        if not multirun:
            shop.runs[str(asked[0].folder)] = jobs[0].folder
        shop.made |= {str(job.folder) for job in asked} | {str(asked[0].folder.parent)}
    else:
        folder = jobs[0].folder.parent
        assert (folder / STUDY_FILE).is_file()
        named = folder if folder.name != f"{study}_quick" else folder.with_name(study)
        shop.runs[str(named)] = folder
        shop.made.add(str(named))


def shortened(words: Sequence[str]) -> list[str]:
    """The words of a training with `SHORT`, a CPU where there is no GPU, one process, and at most `RUNS` runs.

    A study is taken in its quick form, in the folder of that.
    """
    chosen = {key_of(word): word for word in words}
    if study := study_of(words):
        quick = study if study.endswith("_quick") else f"{study}_quick"
        chosen["study"] = f"study={quick}"
        factors = dict(reversed(sweep_of(quick).items()))  # the seed comes last
        chosen |= {key: f"{key}={values}" for key, values in factors.items() if key not in chosen}
    chosen |= {key: f"{key}={value}" for key, value in SHORT.items()}
    if "accelerator" in chosen and not torch.cuda.is_available():
        chosen["accelerator"] = "accelerator=cpu"
    if asked := chosen.get("hydra/launcher"):
        name = asked.partition("=")[2]
        assert name in LAUNCHERS | CLUSTER, f"{asked}: say in shortened() how that is run here"
        if name in CLUSTER:  # tests/test_cluster.py runs the launchers themselves
            launcher.launcher_options(words)
            chosen = {key: word for key, word in chosen.items() if not key.startswith("hydra.launcher.")}
            chosen["hydra/launcher"] = "hydra/launcher=joblib"
    if study or asked:
        chosen["hydra.launcher.n_jobs"] = "hydra.launcher.n_jobs=1"
    runs = 1
    for key, word in chosen.items():
        if len(values := swept(word)) > 1:
            one = "custom" if "custom" in values else values[0]  # else norm.target would be for nobody
            kept = [values[0], values[-1]] if 2 * runs <= RUNS else [one]
            runs *= len(kept)
            chosen[key] = f"{key}={','.join(kept)}"
    return list(chosen.values())


def key_of(word: str) -> str:
    return word.partition("=")[0]


def swept(word: str) -> list[str]:
    """The values of a word that asks for several; [] otherwise."""
    (override,) = OverridesParser.create().parse_overrides([word])
    return list(override.sweep_string_iterator()) if override.is_sweep_override() else []


def report(shop: Shop, words: list[str]) -> None:
    """With figures for `DRAWN` alone. The bare name in a sentence is the program's: it shows its help."""
    if not words:
        exits(DOORS["report"].main, ["--help"])
        return
    folder = available(shop, words[0])
    short = [str(folder), *words[1:], *["--no-figures"] * (words[0] != DRAWN)]
    shop.once(["report", *short], lambda: exits(DOORS["report"].main, short))
    out = Path(words[words.index("--out") + 1]) if "--out" in words else folder
    names = {file.name for file in out.iterdir()}
    assert names >= REPORTED, f"{out} lacks {REPORTED - names}"
    assert words[0] != DRAWN or any((out / "figures").glob("*.png"))


def probe(shop: Shop, words: list[str]) -> None:
    """On the run of the same name that was trained here. The bare name in a sentence shows its help."""
    if not words:
        exits(DOORS["probe"].main, ["--help"])
        return
    folder = available(shop, words[0], any_folder="lightning_logs/runs/bn-seed_0")
    shop.once(["probe", str(folder), *words[1:]], lambda: exits(DOORS["probe"].main, [str(folder), *words[1:]]))
    wanted = set(words[1:]) or {"layers", "landscape", "shift", "statistics"}
    assert {row[2] for row in read_probes(folder)} >= wanted


def available(shop: Shop, folder: str, any_folder: str = DRAWN) -> Path:
    """A folder of runs that a command reads. A page of instructions has to make it; where a command stands alone, in a
    help or a notebook, what makes it is clear from its name. FOLDER and NAME are any."""
    anything = folder in ("FOLDER", "lightning_logs/NAME")
    strict, folder = shop.strict and not anything, any_folder if anything else folder
    if folder not in shop.made:
        name = folder.removeprefix("lightning_logs/")
        assert not strict, f"no command of this page makes {folder} before it is read"
        if run := re.fullmatch(r"runs/(\w+)-seed_(\d+)", name):
            train(shop, [f"norm={run[1]}", *[f"seed={run[2]}"] * (run[2] != "0")])
        elif name == "sweep":
            train(shop, ["-m", "norm=bn,ln,gn", "l1=0,1e-3", "seed=0,1,2"])
        else:
            train(shop, [f"study={name}"])
    assert folder in shop.made, f"{folder}: no command makes it"
    return shop.runs.get(folder, Path(folder))


def calculate(shop: Shop, words: list[str]) -> None:
    """`--input` gets as many numbers as `--shape` asks for; what is written is written of one norm."""
    if "--input" in words:
        shape = words[words.index("--shape") + 1]
        Path(words[words.index("--input") + 1]).write_text("1 2 4\n" * -(-math.prod(map(int, shape.split(","))) // 3))
    short = [*words, *["--norm", "bn"] * ("--out" in words)]
    shop.once(["calculate", *short], lambda: exits(DOORS["calculate"].main, short))
    if "--out" in words:
        out = Path(words[words.index("--out") + 1])
        assert {"sheet.md", "sheet.html", "sheet.xlsx"} <= {file.name for file in out.iterdir()}


def draw(shop: Shop, words: list[str]) -> None:
    """Into a folder of this test's, which is what `--out` is for."""
    folders = [str(available(shop, word)) for word in words[1:]]
    shop.once(["draw", *words], lambda: script("docs/draw.py", [words[0], *folders, "--out", "drawn"]))
    assert {f"{words[0]}.png", f"{words[0]}.svg"} <= {file.name for file in Path("drawn").iterdir()}


def house(shop: Shop, words: list[str]) -> None:
    """Into a folder of this test's; tests/test_layout.py compares what it draws."""
    shop.once(["house", *words], lambda: script("docs/house.py", [*words, "--out", "drawn"]))
    assert Path("drawn/house.svg").stat().st_size > 3000


def keep(shop: Shop, words: list[str]) -> None:
    """Into a folder of this test's, without the report's figures, which take longest: one is put in their place."""
    from normlab import report as door

    def quick(arguments: Sequence[str]) -> int:
        figures = Path(arguments[-1], "figures")
        figures.mkdir(parents=True)
        (figures / "effects.png").touch()
        return door.main([*arguments, "--no-figures"])

    def do() -> None:
        scope = runpy.run_path(str(REPOSITORY / "docs" / "keep.py"))
        shop.patch.setitem(scope["keep"].__globals__, "report", quick)
        exits(scope["main"], [str(available(shop, words[0])), "--out", "kept"])

    shop.once(["keep", *words], do)
    assert {"runs.csv", "summary.csv", "effects.png", STUDY_FILE} <= {file.name for file in Path("kept").iterdir()}


def choose_batch(shop: Shop, words: list[str]) -> None:
    """Looks at a tenth of the batches: the best of those is another one."""

    def do() -> None:
        scope = runpy.run_path(str(REPOSITORY / "docs" / "choose_batch.py"))
        shop.patch.setitem(scope["batches"].__globals__, "LOOKED_AT", scope["LOOKED_AT"] // 10)
        assert not words, "it takes none"
        scope["main"]()

    shop.once(["choose_batch", *words], do)


def execute(shop: Shop, words: list[str]) -> None:
    """On a notebook of one cell: tests/test_notebooks.py runs the real ones. --page needs nbconvert, of [notebooks]."""
    if "--page" in words and importlib.util.find_spec("nbconvert") is None:
        words = [word for word in words if word != "--page"]

    def do() -> None:
        place = Path("notebooks")
        place.mkdir(exist_ok=True)
        for name in ("01_one.ipynb", "02_two.ipynb"):
            nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("6 * 7")]), place / name)
        scope = runpy.run_path(str(REPOSITORY / "notebooks" / "execute.py"))
        shop.patch.setitem(scope["main"].__globals__, "HERE", place.resolve())
        if not [word for word in words if not word.startswith("--")]:  # all of them: one is enough
            (place / "02_two.ipynb").unlink()
        exits(scope["main"], words)
        (ran,) = [f for f in place.glob("*.ipynb") if f.name.startswith(words[0] if words else "01")]
        assert nbformat.read(ran, as_version=4).cells[0].outputs[0].data["text/plain"] == "42"

    shop.once(["execute", *words], do)


def benchmark(shop: Shop, words: list[str], *, name: str, short: Sequence[str], leaves: str = "") -> None:
    """Its words are read each time; it runs once, with words behind its own that make it small."""
    module = importlib.import_module(f"benchmarks.{name}")
    many = [*words, *short]
    reads(module.main, words)

    def do() -> None:
        handles = []
        from benchmarks import clock

        hook = clock.register_optimizer_step_post_hook
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clock, "register_optimizer_step_post_hook", lambda note: handles.append(hook(note)))
            patch.setattr(os, "cpu_count", lambda: 1)  # what would be a process a core is done in this one
            patch.setattr("benchmarks.probes.PROBES", ("", "layers"))
            if not Path("mnist").exists():
                write_as_mnist(cut(load_images("digits"), 32 * 12, 64), Path("mnist"))
            if leaves:
                Path(leaves).parent.mkdir(exist_ok=True)
            exits(module.main, many)
        for handle in handles:
            handle.remove()
        torch.set_num_threads(1)

    shop.once([name], do)
    assert not leaves or Path(leaves).stat().st_size > 300


def soak(shop: Shop, words: list[str]) -> None:
    """Its words are read, and what it does with runs is done. The runs are eight copies of two that were trained here:
    its own take a process a core and half a minute at least (500 of them took four minutes: docs/soak.md)."""
    from benchmarks import soak as module

    reads(module.main, words)

    def watch(runs: int, place: Path, chosen: str) -> list[module.Look]:
        assert (runs, chosen) == (500, "joblib")
        train(shop, ["-m", "norm=bn,ln,gn"])
        ended = sorted(Path("lightning_logs/sweep").glob("*/result.json"))[:2]
        for number in range(1, 9):  # as many as its quarters need
            folder = place / "soak" / f"{ended[number % 2].parent.name}-{number}"
            shutil.copytree(ended[number % 2].parent, folder)
            os.utime(folder / "result.json", (number, number))
        return [module.Look(done, 1000.0, 50) for done in range(1, 9)]

    def report_s(folder: Path, *_: str) -> float:
        exits(DOORS["report"].main, [str(folder), "--no-figures"])
        return 0.0

    def do() -> None:
        shop.patch.setattr(module, "watch", watch)
        shop.patch.setattr(module, "report_s", report_s)
        Path("soaked").mkdir(exist_ok=True)
        exits(module.main, [*words, "--out", "soaked"])

    shop.once(["soak"], do)
    assert "| open files of all processes | 50 | 50 | +0.0 % |" in Path("soaked/soak.md").read_text(encoding="utf-8")


def expression(shop: Shop, words: list[str]) -> None:
    """`python -c`: as it stands."""
    (code,) = words
    exec(code, {})


def venv(shop: Shop, words: list[str]) -> None:
    """As it stands, without pip, which .ci/run puts there."""
    shop.once(
        ["venv", *words], lambda: subprocess.run([sys.executable, "-m", "venv", "--without-pip", *words], check=True)
    )


def source(shop: Shop, words: list[str]) -> None:
    """As it stands; afterwards `python` is that of the environment."""
    venv(shop, [".venv"])
    done = subprocess.run(
        ["bash", "-c", f"source {words[0]} && python -c 'import sys; print(sys.prefix)'"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(done.stdout.strip()).samefile(".venv")


def ci(shop: Shop, words: list[str]) -> None:
    """It runs this: here a shell reads it."""
    assert not words
    if CI.exists() or (REPOSITORY / ".git").exists():  # the sdist has none
        assert os.access(CI, os.X_OK)
        subprocess.run(["bash", "-n", str(CI)], check=True)


RUNNERS: dict[str, Callable[[Shop, list[str]], object]] = {
    "python -m normlab.train": train,
    "python -m normlab.report": report,
    "python -m normlab.probe": probe,
    "python -m normlab.calculate": calculate,
    "python docs/draw.py": draw,
    "python docs/house.py": house,
    "python docs/keep.py": keep,
    "python docs/choose_batch.py": choose_batch,
    "python notebooks/execute.py": execute,
    "python -m benchmarks.equivalence": partial(
        benchmark, name="equivalence", leaves="benched/equivalence.md",
        short=["--norms", "gn", "--seeds", "2", "--epochs", "1", "--batch", "256", "--out", "benched/equivalence.md"],
    ),
    "python -m benchmarks.hfta": partial(
        benchmark, name="hfta",
        short=["--data", "digits", "--batch", "4", "--images", "48", "--array", "2", "--threads", "1"],
    ),
    "python -m benchmarks.norms": partial(
        benchmark, name="norms", leaves="benched/norms.md",
        short=["--rounds", "1", "--batch", "2", "--norms", "frn", "gbn", "--out", "benched"],
    ),
    "python -m benchmarks.plain": partial(
        benchmark, name="plain", short=["--root", "mnist", "--batch", "32", "--workers", "0"]
    ),
    "python -m benchmarks.probes": partial(
        benchmark, name="probes", short=["--reps", "1", "--train-size", "64", "--", "data=digits", "norm=bn"]
    ),
    "python -m benchmarks.scale": partial(benchmark, name="scale", short=[]),
    "python -m benchmarks.soak": soak,
    "python -m benchmarks.step": partial(benchmark, name="step", short=["--batch", "4"]),
    "python -c": expression,
    "python -m venv": venv,
    "source": source,
    ".ci/run": ci,
}  # fmt: skip


def exits(main: Callable[..., Any], words: Sequence[str]) -> None:
    """Calls a command's `main`; it has to end with exit code 0."""
    try:
        code = main(list(words))
    except SystemExit as error:
        code = error.code
    assert not code, f"ended with {code}"


class ReadError(Exception):
    """The words of a command were read; it goes no further."""


def reads(main: Callable[..., Any], words: Sequence[str]) -> None:
    """A command's parser takes the words as they stand."""
    parse = argparse.ArgumentParser.parse_args

    def only(parser: argparse.ArgumentParser, *given: Any) -> None:
        parse(parser, *given)
        raise ReadError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", only)
        with pytest.raises(ReadError):
            exits(main, words)


def script(file: str, words: Sequence[str]) -> None:
    exits(runpy.run_path(str(REPOSITORY / file))["main"], words)


def begins(command: Command) -> tuple[str, list[str]]:
    """How a command begins, as the tables above have it, and the words that follow; ("", …) where they have not."""
    for count in (3, 2, 1):
        start = " ".join(command.words[:count])
        if start in RUNNERS or start in ELSEWHERE:
            return start, list(command.words[count:])
    return "", list(command.words)


UNKNOWN = (
    "no test runs this: give it a runner in RUNNERS of tests/test_commands.py, or say in ELSEWHERE there which test or "
    "script executes it (`sbatch` and the like: what of it can be executed here?)"
)


# --- the tests


@pytest.fixture(scope="session")
def shop_of_session(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """One folder for all pages, with the files that the documents tell people to write."""
    folder = tmp_path_factory.mktemp("shop")
    for page, found in PAGES.items():
        for each in found:
            if isinstance(each, Snippet) and each.file:
                file = folder / each.file
                assert not file.exists() or file.read_text() == each.code, f"{page}: two contents of {each.file}"
                file.write_text(each.code)
    (folder / "package").mkdir()
    (folder / "package" / "module.py").write_text((folder / "mine.py").read_text().replace("class RMS", "class Class"))
    (folder / "docs").symlink_to(REPOSITORY / "docs")
    return Shop(folder, pytest.MonkeyPatch())


@pytest.fixture
def shop(shop_of_session: Shop, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """In its folder, as in a process of its own: offline, its modules found, logging put back afterwards."""
    shop = shop_of_session
    monkeypatch.chdir(shop.folder)
    monkeypatch.syspath_prepend(str(shop.folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(shop.folder / "cache"))
    monkeypatch.delenv("NORMLAB_DATA", raising=False)
    monkeypatch.setattr(launcher, "_in_workers", arrays_here)
    shop.patch, shop.made = monkeypatch, set()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    on_term = signal.getsignal(signal.SIGTERM)
    yield shop
    signal.signal(signal.SIGTERM, on_term)
    root.handlers[:], root.level = handlers, level


def arrays_here(groups: Sequence[Sequence[planning.Job]], memory_limit: float | None, *_: int) -> list[str]:
    """Trains arrays in this process. Their own processes are tested in tests/test_launcher.py."""
    return [reason for group in groups if (reason := launcher.train(group, memory_limit)) is not None]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_run(page: str, shop: Shop) -> None:
    shop.strict = page.endswith(".md") and page != "CHANGELOG.md"
    failed = []
    for command in [each for each in PAGES[page] if isinstance(each, Command)]:
        start, words = begins(command)
        try:
            if start in RUNNERS:
                RUNNERS[start](shop, words)
        except (Exception, SystemExit) as error:
            failed.append(f"{command}\n    {type(error).__name__}: {error}")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_run_here_or_elsewhere(command: Command) -> None:
    assert begins(command)[0], f"{command}: {UNKNOWN}"


@pytest.mark.parametrize("start", ELSEWHERE)
def test_what_is_executed_elsewhere_is_there(start: str) -> None:
    where = ELSEWHERE[start]
    if where.file == ".ci/run" and not CI.exists():
        pytest.skip("no clone: the sdist has no .ci")
    text = (REPOSITORY / where.file).read_text(encoding="utf-8")
    assert where.text in text, f"{where.file} has no {where.text!r}: where is {start!r} executed now?"


@pytest.mark.parametrize("start", [*RUNNERS, *ELSEWHERE])
def test_no_row_is_left_over(start: str) -> None:
    assert any(begins(command)[0] == start for command in COMMANDS), f"no document has {start!r} any more"


def test_words_of_what_is_executed_elsewhere() -> None:
    """Options and names in them are right, as far as that can be known without executing them."""
    from benchmarks import study

    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for command in COMMANDS:
        start, words = begins(command)
        if start == "pip install":
            (ours, *others) = [word for word in words if not word.startswith("-")]
            assert (found := re.fullmatch(r"(?:\.|normlab)(?:\[(\w+)\])?", ours)), command
            assert found[1] in {None, *extras}, command
            assert others in ([], ["hydra-ray-launcher"]), command
        elif start == "pytest":
            assert all((REPOSITORY / word).is_file() for word in words), command
        elif start == "tensorboard --logdir":
            assert words == ["lightning_logs"], command
        elif start == "python -m benchmarks.study":
            assert isinstance(study.arguments(words), argparse.Namespace), command


def test_no_page_of_the_repository_is_left_out() -> None:
    git = subprocess.run(["git", "ls-files", "*.md", "*.ipynb"], cwd=REPOSITORY, capture_output=True, text=True)
    if git.returncode:
        pytest.skip("no clone: what belongs to the repository is not known")
    places = {"", "docs/", "notebooks/", "lightning_logs/"}
    for file in git.stdout.splitlines():
        assert file[: file.rfind("/") + 1] in places, f"{file}: tests/documents.py does not look there"


def test_a_mention_names_a_command_that_is_there() -> None:
    """Error messages, comments and strings that say "python -m …"."""
    found = list(mentions())
    assert len(found) > 40
    for where, name in found:
        if name.endswith(".py"):
            assert (REPOSITORY / name).is_file(), f"{where}: {name}"
        else:
            spec = importlib.util.find_spec(name)
            assert spec, f"{where}: there is no module {name}"
            assert spec.origin, where
            assert "__main__" in Path(spec.origin).read_text(encoding="utf-8"), f"{where}: {name} is no command"


def test_a_shell_reads_every_block() -> None:
    for file in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")]:
        for block in re.findall(r"(?ms)^```bash\n(.*?)^```", file.read_text(encoding="utf-8")):
            subprocess.run(["bash", "-n", "-c", block], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, found in PAGES.items() if any(isinstance(s, Snippet) for s in found)])
def test_snippets_of_a_page_run(page: str, shop: Shop) -> None:
    """One after the other, with the names that stand before; `load` takes the words of `SHORT` too."""

    def load(*words: str) -> Settings:
        chosen = {key_of(word): word for word in words} | {key: f"{key}={value}" for key, value in SHORT.items()}
        return real(*chosen.values())

    real = planning.load
    shop.patch.setattr(planning, "load", load)
    scope: dict[str, Any] = {"__name__": "snippet"}
    for snippet in [each for each in PAGES[page] if isinstance(each, Snippet)]:
        exec(compile(snippet.code, f"{page}:{snippet.line}", "exec"), scope)
    if "record" in scope:
        assert scope["record"].status == "completed"
        assert len(scope["table"]) == 1
        assert scope["net"](torch.zeros(2, 1, 28, 28)).shape == (2, 10)
        assert scope["layer"].num_groups == 4


# --- that the tests above can fail

PAGE = """Text with `python -m normlab.train
norm=ln` over two lines, a `setting=1`, the name `python`, and `conda
create -n x`.

```bash
NAME=value python3 -m venv here && .venv/bin/pip install -e . # a remark
python -m normlab.train norm=bn,ln \\
  'seed=range(3)'
```

```
output: nothing
sbatch train.sh
```

```python
x = 1
```
"""


def test_commands_are_found() -> None:
    found = list(in_markdown("page.md", PAGE))
    assert [str(each) for each in found if isinstance(each, Command)] == [
        "page.md:1: python -m normlab.train norm=ln",
        "page.md:2: conda create -n x",
        "page.md:6: python -m venv here",
        "page.md:6: pip install -e .",
        "page.md:7: python -m normlab.train norm=bn,ln 'seed=range(3)'",
        "page.md:13: sbatch train.sh",
    ]
    assert found[-1] == Snippet("page.md", 17, "x = 1\n")


def test_an_unknown_command_is_known_by_nobody() -> None:
    for line in ("sbatch train.sh", "python -m normlab.nowhere", "python -m normlab.train | less", "rm -r x"):
        for command in split("page.md", 1, line):
            assert begins(command)[0] in ("", "python -m normlab.train"), line
    assert "|" in split("page.md", 1, "python -m normlab.train | less")[0].words, "a word that no runner takes"


def test_a_block_of_another_language_is_not_overlooked() -> None:
    with pytest.raises(UnreadableError, match=r"page\.md:3: a block of 'sh': write ```bash"):
        list(in_markdown("page.md", "a\n\n```sh\nls\n```\n"))
    with pytest.raises(UnreadableError, match="no shell reads this"):
        split("page.md", 1, "echo 'a")


def test_commands_of_a_notebook_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("documents.REPOSITORY", tmp_path)
    cells = ["x = 1\n!ls -l", "%%bash\nls\npwd", "%%writefile a.py\nx = 2"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(book, tmp_path / "a.ipynb")
    found = list(in_notebook(tmp_path / "a.ipynb"))
    assert [each.words for each in found if isinstance(each, Command)] == [("ls", "-l"), ("ls",), ("pwd",)]
    assert found[-1] == Snippet("a.ipynb", 3, "# a.py\nx = 2\n")
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%%perl\n1")]), tmp_path / "b.ipynb")
    with pytest.raises(UnreadableError, match="cell 1: %%perl"):
        list(in_notebook(tmp_path / "b.ipynb"))


@pytest.mark.parametrize(
    ("words", "short"),
    [
        ("norm=ln epochs=20", "norm=ln epochs=1 data=digits train_size=64 val_size=32 threads=1"),
        ("norm=bn,ln,gn l1=0,1e-3 seed=0,1", "norm=bn,gn l1=0 seed=0 data=digits epochs=1 train_size=64 "
         "val_size=32 threads=1"),
        ("study=groups", "study=groups_quick +norm.options={num_groups:1},{channels_per_group:1} "
         "placement=pre norm=gn seed=0 data=digits epochs=1 train_size=64 val_size=32 threads=1 "
         "hydra.launcher.n_jobs=1"),
    ],
)  # fmt: skip
def test_how_a_training_is_shortened(words: str, short: str) -> None:
    assert shortened(words.split()) == short.split()


def test_a_wrong_command_fails(shop: Shop) -> None:
    for words in (["norm=xx"], ["norm=ln", "epoch=3"], ["norm=bn,ln"]):
        with pytest.raises(Exception, match=r"choose one of|did you mean|several values need -m"):
            train(shop, words)
    shop.strict = True
    with pytest.raises(AssertionError, match="no command of this page makes lightning_logs/nowhere"):
        report(shop, ["lightning_logs/nowhere"])
    with pytest.raises(AssertionError, match="ended with 2"):
        calculate(shop, ["--norm", "xx"])
