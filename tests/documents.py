"""Finds the commands and Python snippets that documents tell people to type: in pages, in the texts of notebooks, in
docstrings of modules and in what --help prints. A command is a line of a ```bash block, or a line of another block or
a `span` that begins with a program and a word for it.
"""

import ast
import io
import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from typing import NamedTuple
from unittest.mock import patch

from conftest import REPOSITORY

from normlab import calculate, probe, report, train

PROGRAMS = (
    "bash|cat|cd|conda|cp|curl|docker|export|git|jupyter|kill|make|mkdir|mpirun|mv|mypy|pip|pytest|python3?|rm|ruff|"
    "sacct|sbatch|scancel|scp|sh|sinfo|source|squeue|srun|ssh|sudo|tar|tensorboard|torchrun|unzip|uv|wget"
)
COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:(?:{PROGRAMS}) \S|\.venv/bin/\w|\.ci/\w)")
BLOCK = re.compile(r"(?ms)^ *```(\w*) *\n(.*?)^ *``` *$")
LANGUAGES = {"", "bash", "python", "mermaid", "yaml", "json", "text"}  # "sh" would be overlooked


class Typed(NamedTuple):
    """words of one program, without variables that are set for it, .venv/bin/ and where its output goes; or code."""

    where: str
    words: tuple[str, ...] = ()
    code: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join(self.words) or 'a snippet'}"


def split(where: str, line: str) -> Iterator[Typed]:
    """The programs of a line. A `|` stays a word, which no program takes."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    programs: list[list[str]] = [[]]
    for word in lexer:
        if word in ("&&", ";"):
            programs.append([])
        elif programs[-1] or not re.match(r"[A-Z_]+=", word):
            programs[-1].append(word)
    for words in filter(None, programs):
        program = words[0].removeprefix(".venv/bin/").replace("python3", "python")
        yield Typed(where, (program, *words[1 : words.index(">") if ">" in words else None]))


def found_in(page: str, text: str) -> list[Typed]:
    """What a text tells people to type, in its order."""
    lines: list[tuple[int, str]] = []  # where it starts, commands
    snippets: list[tuple[int, str]] = []
    for block in BLOCK.finditer(text):
        assert block[1] in LANGUAGES, f"{page}: a block of {block[1]!r}: write ```bash for commands"
        if block[1] == "python":
            snippets.append((block.start(2), block[2]))
        for line in re.finditer(r"(?:\\\n|[^\n])+", block[2] if block[1] != "python" else ""):
            if block[1] == "bash" or COMMAND.match(line[0]):
                lines.append((block.start(2) + line.start(), line[0].replace("\\\n", " ")))
    prose = BLOCK.sub(lambda block: "\n" * len(block[0]), text)  # as long as it was
    for span in re.finditer(r"(?<!`)`((?:[^`\n]|\n(?!\n))+)`(?!`)", prose):
        if COMMAND.match(words := " ".join(span[1].split())):
            lines.append((span.start(), words))

    def where(start: int) -> str:
        return f"{page}:{text.count(chr(10), 0, start) + 1}"

    found = [(start, Typed(where(start), code=code)) for start, code in snippets]
    found += [(start, each) for start, line in lines for each in split(where(start), line)]
    return [each for _, each in sorted(found, key=lambda each: each[0])]


def as_page(text: str) -> str:
    """A docstring or help with its lines that begin with a program, up to a remark behind two spaces, in a block."""
    text = re.sub(r"(?s)usage:.*?\n\s*\n", "", text)  # argparse's is no command
    lines = [re.split(r"\s{2,}", re.sub(r"^[^`:]*: (?=python)", "", line.strip()))[0] for line in text.splitlines()]
    return "\n".join([text, "```bash", *[line for line in lines if COMMAND.match(line)], "```"])


def pages() -> dict[str, list[Typed]]:
    """Commands and snippets of each document."""
    texts: dict[str, str] = {}
    for file in [*REPOSITORY.glob("R*.md"), *REPOSITORY.glob("C*.md"), *REPOSITORY.glob("[dnl]*/*.md")]:
        texts[file.relative_to(REPOSITORY).as_posix()] = file.read_text(encoding="utf-8")
    for file in (REPOSITORY / "notebooks").glob("*.ipynb"):  # tests/test_notebooks.py runs the code
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        told = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        texts[f"notebooks/{file.name}"] = "\n\n".join(told)
    for door in (train, report, calculate, probe):
        shown = io.StringIO()
        with redirect_stdout(shown), patch.dict(os.environ, COLUMNS="1000"), suppress(SystemExit):
            door.main(["--help"])
        texts[f"{door.__name__} --help"] = as_page(shown.getvalue())
    found = {page: found_in(page, text) for page, text in texts.items()}
    for folder in ("normlab", "benchmarks", "docs", "notebooks"):
        for file in sorted((REPOSITORY / folder).rglob("*.py")):
            text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            found.setdefault(f"docstrings of {folder}", []).extend(found_in(f"{folder}/{file.name}", as_page(text)))
    return {page: each for page, each in found.items() if each}
