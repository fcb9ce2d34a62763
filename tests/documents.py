"""Finds what documents tell people to type: commands and Python snippets, in pages, notebooks, docstrings and helps.

A command is a line of a ```bash block (or of a block without a language that begins with a program), a `span` or a
line of a docstring or help that begins with a program, or what stands behind `!` in a notebook. What only names a
command in a sentence, as an error message does, is a mention.
"""

import ast
import io
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPOSITORY

from normlab import calculate, probe, report, train

PROGRAMS = {
    "bash", "cat", "cd", "conda", "cp", "curl", "docker", "export", "git", "hatch", "jupyter", "kill", "make", "mamba",
    "mkdir", "module", "mpirun", "mv", "mypy", "pip", "pre-commit", "pytest", "python", "python3", "rm", "rsync",
    "ruff", "sacct", "salloc", "sbatch", "scancel", "scp", "screen", "sh", "sinfo", "source", "squeue", "srun", "ssh",
    "sudo", "tar", "tensorboard", "tmux", "torchrun", "unzip", "uv", "wget",
}  # fmt: skip
LANGUAGES = ("", "bash", "python", "mermaid", "yaml", "json", "text")  # of a block; no other: "sh" would be overlooked
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*=")
MODULE = re.compile(r"python3? (?:-m ([\w.]*\w)|((?:docs|notebooks)/\w+\.py))")
DOORS = {"train": train, "report": report, "calculate": calculate, "probe": probe}


@dataclass(frozen=True)
class Command:
    """A simple command as it stands on a page. words: without variables that are set for it and without .venv/bin/."""

    page: str
    line: int
    words: tuple[str, ...]
    inline: bool = False  # a span in a sentence

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


@dataclass(frozen=True)
class Snippet:
    """A block of Python. file: the name in its first line, as in `# mine.py`."""

    page: str
    line: int
    code: str

    @property
    def file(self) -> str | None:
        found = re.match(r"# (\w+\.py)\n", self.code)
        return found[1] if found else None


class UnreadableError(ValueError):
    """What looks like a command and cannot be read as one."""


def split(page: str, line: int, text: str, *, inline: bool = False) -> list[Command]:
    """The simple commands of a line; the operators of a shell other than && and ; stay words, for nobody to run."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    try:
        for word in lexer:
            if word in ("&&", ";"):
                found.append([])
            else:
                found[-1].append(word)
    except ValueError as error:
        raise UnreadableError(f"{page}:{line}: {text!r}: no shell reads this ({error})") from None
    commands = []
    for words in found:
        while words and VARIABLE.match(words[0]):
            words.pop(0)
        if words:
            first = words[0].removeprefix(".venv/bin/")
            words[0] = "python" if first == "python3" else first
            commands.append(Command(page, line, tuple(words), inline))
    return commands


def is_command(text: str) -> bool:
    """Whether a span is one: it begins with a program, after variables that are set for it. A program's bare name is
    its name."""
    words = text.split()
    while words and VARIABLE.match(words[0]):
        words.pop(0)
    if not words or words[0].endswith((".md", ".py", "/")):
        return False
    if words[0].startswith((".venv/bin/", ".ci/", "./")):
        return True
    return words[0] in PROGRAMS and len(words) > 1


def in_markdown(page: str, text: str, first: int = 1) -> Iterator[Command | Snippet]:
    """Commands and snippets of a page, in its order."""
    found: list[Command | Snippet] = []
    prose: list[str] = []
    lines = iter(enumerate(text.splitlines(), first))
    for number, line in lines:
        fence = re.match(r"\s*```(\w*)\s*$", line)
        prose.append("" if fence else line)
        if not fence:
            continue
        if fence[1] not in LANGUAGES:
            raise UnreadableError(
                f"{page}:{number}: a block of {fence[1]!r}: write ```bash for commands, or teach tests/documents.py"
            )
        block: list[str] = []
        for _, inner in lines:
            prose.append("")
            if inner.strip() == "```":
                break
            block.append(inner)
        if fence[1] == "python":
            found.append(Snippet(page, number + 1, "\n".join(block) + "\n"))
        elif fence[1] in ("", "bash"):
            found += in_block(page, number + 1, block, every_line=fence[1] == "bash")
    found += in_prose(page, "\n".join(prose), first)
    yield from sorted(found, key=lambda each: each.line)


def in_block(page: str, first: int, block: Sequence[str], *, every_line: bool) -> Iterator[Command]:
    start, text = first, ""
    for number, line in enumerate(block, first):
        start = start if text else number
        text += line
        if line.endswith("\\"):
            text = text[:-1] + " "
            continue
        if every_line or is_command(text):
            yield from split(page, start, text)
        text = ""


def in_prose(page: str, text: str, first: int = 1) -> Iterator[Command]:
    """Commands in `spans`, which may go on in the next line."""
    for found in re.finditer(r"(?<!`)`([^`]+)`(?!`)", text):
        if "\n\n" not in found[1] and is_command(found[1]):
            line = first + text[: found.start()].count("\n")
            yield from split(page, line, " ".join(found[1].split()), inline=True)


def in_plain_text(page: str, text: str, first: int = 1) -> Iterator[Command]:
    """Commands of a docstring or a help: spans, lines that begin with a program, and "Example: python …". A remark may
    follow behind two spaces. How argparse puts the usage is no command."""
    text = re.sub(r"(?ms)^ *usage: .*?(?=\n\s*\n|\Z)", lambda usage: "\n" * usage[0].count("\n"), text)
    for number, line in enumerate(text.splitlines(), first):
        if "`" not in line:
            bare = re.split(r"\s{2,}", re.sub(r"^[^`:]*: (?=python)", "", line.strip()))[0]
            if is_command(bare):
                yield from split(page, number, bare)
    yield from in_prose(page, text, first)


def in_notebook(file: Path) -> Iterator[Command | Snippet]:
    """Commands of a notebook's texts and cells. A cell's number stands in the place of a line's."""
    page = file.relative_to(REPOSITORY).as_posix()
    for number, cell in enumerate(json.loads(file.read_text(encoding="utf-8"))["cells"], 1):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for each in in_markdown(page, source):
                if isinstance(each, Command):
                    yield Command(page, number, each.words, each.inline)
                else:
                    yield Snippet(page, number, each.code)
        elif named := re.match(r"%%writefile (\w+\.py)\n", source):
            yield Snippet(page, number, f"# {named[1]}\n{source[named.end() :]}".rstrip("\n") + "\n")
        elif source.startswith(("%%bash", "%%sh")):
            yield from in_block(page, number, source.splitlines()[1:], every_line=True)
        else:
            for line in source.splitlines():
                if line.startswith("!"):
                    yield from split(page, number, line[1:])
                elif line.startswith("%") and line != "%matplotlib inline":
                    raise UnreadableError(f"{page}: cell {number}: {line}: teach tests/documents.py what this runs")


def in_docstrings(files: Sequence[Path], page: str) -> Iterator[Command]:
    """Commands of the docstrings of modules, classes and functions; the line is that of the docstring's file."""
    for file in files:
        where = file.relative_to(REPOSITORY).as_posix()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(node)):
                for each in in_plain_text(where, text, node.body[0].lineno):
                    yield Command(f"{page} ({where})", each.line, each.words, each.inline)


def in_help(door: str) -> Iterator[Command]:
    """Commands of what `--help` prints, made wide so that no example is folded."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(shown), suppress(SystemExit):
        patch.setenv("COLUMNS", "1000")
        DOORS[door].main(["--help"])
    assert shown.getvalue(), door
    yield from in_plain_text(f"normlab.{door} --help", shown.getvalue())


def mentions() -> Iterator[tuple[str, str]]:
    """(where, module or script) of every "python -m …" in a text of the code or of conf/, whatever it is for."""
    for file in code("normlab", "benchmarks", "docs", "notebooks", "hydra_plugins"):
        where = file.relative_to(REPOSITORY).as_posix()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from ((f"{where}:{node.lineno}", m[1] or m[2]) for m in MODULE.finditer(node.value))
    for file in sorted((REPOSITORY / "conf").rglob("*.yaml")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            where = f"{file.relative_to(REPOSITORY).as_posix()}:{number}"
            yield from ((where, m[1] or m[2]) for m in MODULE.finditer(line))


def code(*folders: str) -> list[Path]:
    return [file for folder in folders for file in sorted((REPOSITORY / folder).rglob("*.py"))]


def documents() -> dict[str, list[Command | Snippet]]:
    """Commands and snippets of each page, in its order; the README comes first."""
    pages: dict[str, list[Command | Snippet]] = {}
    places = [REPOSITORY, *(REPOSITORY / name for name in ("docs", "notebooks", "lightning_logs"))]
    for file in [file for place in places for file in sorted(place.glob("*.md"), reverse=place == REPOSITORY)]:
        page = file.relative_to(REPOSITORY).as_posix()
        pages[page] = list(in_markdown(page, file.read_text(encoding="utf-8")))
    for file in sorted((REPOSITORY / "notebooks").glob("*.ipynb")):
        pages[file.relative_to(REPOSITORY).as_posix()] = list(in_notebook(file))
    for door in DOORS:
        pages[f"normlab.{door} --help"] = list(in_help(door))
    for folder in ("normlab", "benchmarks", "docs", "notebooks"):
        pages[f"docstrings of {folder}"] = list(in_docstrings(code(folder), f"docstrings of {folder}"))
    return {page: found for page, found in pages.items() if found}
