"""Normalization by hand: `python -m normlab.calculate` shows every number of a norm with a statistic.

Exact arithmetic on a small batch, without torch: which numbers share a statistic, means and variances as fractions,
every normalised value, running averages and eval mode; in the terminal, as pictures, as a page and as a workbook.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from textwrap import fill
from typing import NoReturn

from rich.console import Console

from normlab.byhand.exact import NORMS, Batch, Result, Rules, Shape, calculate
from normlab.byhand.formula import given_signs
from normlab.byhand.inputs import default_batch, number, random_batch, read_batch
from normlab.byhand.terminal import show, walk
from normlab.errors import ConfigError, in_one_line
from normlab.norms import CATALOGUE
from normlab.output import command

__all__ = ["main"]

EXAMPLES = """examples:
  python -m normlab.calculate                                     batch norm of the fixed batch
  python -m normlab.calculate --norm gn --groups 4 --step         one statistic at a time
  python -m normlab.calculate --norm all                          every norm, one after the other
  python -m normlab.calculate --html page.html                    a page to try all of them in a browser
  python -m normlab.calculate --seed 3 --shape 2,6,2,2 --eps 0    random digits; without ε roots are plain
  python -m normlab.calculate --input mine.csv --shape 4,4,3,3 --gamma 1,2,1,1 --beta 0,0,1,0 --out sheet
"""


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}: --help shows what there is")


@in_one_line()
def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code: 0, 2 where something given is wrong, 130 where it was stopped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without √ or γ gets a question mark, not a traceback
    given = _parser().parse_args(_signed(arguments))
    results = _results(given)
    written = _written(results, given)
    # Away from a terminal there is no width to keep to, and no colour.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 132)
    if given.step:
        walk(console, results, _wait if sys.stdin is not None and sys.stdin.isatty() else lambda: True)
    else:
        show(console, results)
    for line in written:
        console.print(line, markup=False, soft_wrap=True)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m normlab.calculate",
        description="A norm of a small batch, every number shown.\n\n" + fill(f"Norms: {', '.join(NORMS)}.", 78),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--norm", default="bn", metavar="NORM", help="bn unless given; several as in bn,gn; all for every one")
    add("--input", type=Path, metavar="FILE", help="a batch: .npy, or text with numbers in the order N, C, H, W")
    add("--shape", metavar="N,C,H,W", help="of --input, unless it is a .npy of four dimensions; or of random digits")
    add("--seed", metavar="S", help="random digits instead of the fixed batch; --shape is 4,4,3,3 unless given")
    add(
        "--groups",
        metavar="G",
        help="of channels: a divisor of their number; 2 unless given, where that divides them",
    )
    add("--images", default="2", metavar="V", help="images of a ghost batch (2)")
    add("--eps", metavar="E", help="ε, inside the root (the norm's own, 1e-5 or 1e-6); 0 gives plain fractions")
    add("--gamma", metavar="A,B,…", help="scale γ, one number per channel (1, or what the norm starts from)")
    add("--beta", metavar="A,B,…", help="shift β, one number per channel (0)")
    add("--learned", metavar="τ=A,…", help="another number of a formula by its sign, as in ρ=0.5 or τ=-1")
    add("--momentum", default="0.1", metavar="M", help="running = (1 - M) · running + M · batch (0.1)")
    add("--html", type=Path, metavar="FILE", help="also write a page on which everything can be changed")
    add("--out", type=Path, metavar="DIR", help="also write that page, a workbook and pictures there")
    add("--step", action="store_true", help="one statistic at a time: Enter for the next, q to end")
    return parser


def _signed(arguments: Sequence[str]) -> list[str]:
    """Joins a value that begins with a minus to its option: argparse would take "-1,2" in "--beta -1,2" for one."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1].startswith("--") and "=" not in joined[-1] and re.match(r"-[\d.,]", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _results(given: argparse.Namespace) -> list[Result]:
    """Every calculation that was asked for; `NormlabError` where something given is wrong."""
    norms = list(NORMS) if given.norm == "all" else given.norm.split(",")
    for norm in norms:
        if norm not in NORMS:
            why = "has no statistic" if norm in CATALOGUE else "is unknown"
            raise ConfigError(f"--norm {norm!r} {why}: choose one of {', '.join(NORMS)}, all")
    rules = Rules(
        groups=_integer("--groups", given.groups) if given.groups is not None else None,
        eps=_number("--eps", given.eps) if given.eps is not None else None,
        gamma=_numbers("--gamma", given.gamma),
        beta=_numbers("--beta", given.beta),
        momentum=_number("--momentum", given.momentum),
        images=_integer("--images", given.images),
        learned=_learned(given.learned, norms),
    )
    batch = _batch(given)
    return [calculate(norm, batch, rules) for norm in dict.fromkeys(norms)]


def _batch(given: argparse.Namespace) -> Batch:
    shape = _shape(given.shape) if given.shape is not None else None
    if given.input is not None:
        if given.seed is not None:
            raise ConfigError("--input and --seed are two batches: give one of them")
        return read_batch(given.input, shape)
    if shape is None and given.seed is None:
        return default_batch()
    seed = _integer("--seed", given.seed) if given.seed is not None else 0
    return random_batch(shape or (4, 4, 3, 3), seed)


def _shape(text: str) -> Shape:
    words = re.split(r"[,x]", text)
    if len(words) != 4 or not all(re.fullmatch(r" *[0-9]{1,9} *", word) for word in words):
        raise ConfigError(f"--shape {text[:30]}: write N,C,H,W, four whole numbers as in 4,4,3,3")
    n, c, h, w = map(int, words)
    if not min(n, c, h, w):
        raise ConfigError(f"--shape {text}: every one of N, C, H and W must be at least 1")
    return n, c, h, w


def _integer(option: str, text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
        raise ConfigError(f"{option} {text[:30]}: write a whole number, as in {option} 2")
    return int(text)


def _number(option: str, text: str) -> Fraction:
    try:
        return number(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


def _numbers(option: str, text: str | None) -> tuple[Fraction, ...] | None:
    """Numbers between commas, or between semicolons where commas are decimal ones."""
    return None if text is None else tuple(_number(option, word) for word in text.split(";" if ";" in text else ","))


def _learned(text: str | None, norms: Sequence[str]) -> dict[str, Fraction]:
    signs = {sign for norm in norms for sign in given_signs(norm)} - {"γ", "β", "ε"}
    found = {}
    for word in text.split(";" if ";" in text else ",") if text else []:
        sign, _, value = word.partition("=")
        if sign.strip() not in signs:
            there = f"choose one of {', '.join(sorted(signs))}" if signs else "there is none here"
            raise ConfigError(f"--learned {word[:30]}: {sign.strip()[:20]!r} is in no formula: {there}")
        found[sign.strip()] = _number("--learned", value)
    return found


def _written(results: Sequence[Result], given: argparse.Namespace) -> list[str]:
    """Writes the files, before anything is printed: a reader may leave early. Returns the lines that name them."""
    lines = []
    if given.html is not None:
        from normlab.byhand.page import page, put

        put(given.html, page(results).encode(), f"--html {given.html}")
        lines.append(f"\nWritten: {given.html}")
    if given.out is not None:
        from normlab.byhand.files import (
            write,  # matplotlib and openpyxl: a second that the terminal alone need not wait
        )

        # After the file that was given, letter by letter, as long as a terminal can show its name.
        name = given.input.stem if given.input is not None and given.input.stem.isprintable() else "sheet"
        names, missing = write(results, given.out, name)
        if missing:
            print(f"normlab: {missing}", file=sys.stderr)
        lines.append(f"\nWritten to {given.out}: {', '.join(names)}")
    return lines


def _wait() -> bool:
    """Whether the reader wants the next statistic: Enter does, q and the end of the input do not."""
    sys.stdout.write("\nEnter: next, q: end > ")
    sys.stdout.flush()
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        sys.stdout.write("\n")  # what is said about it starts a line
        raise
    return answer.endswith("\n") and answer.strip().lower() not in ("q", "quit")


if __name__ == "__main__":
    raise SystemExit(command(main))
