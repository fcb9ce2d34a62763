"""Normalization by hand: `python -m normlab.calculate` shows every number of a norm with a statistic.

Exact arithmetic on a small batch, without torch: which numbers share a statistic, means and variances as fractions,
every normalised value, running averages and eval mode; in the terminal, as pictures, as a page and as a workbook.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from textwrap import fill
from typing import Any, NoReturn

from normlab.byhand.exact import NORMS, Result, Rules, calculate
from normlab.byhand.formula import formula
from normlab.byhand.inputs import Shape, default_batch, number, random_batch, read_batch
from normlab.byhand.terminal import show, walk
from normlab.errors import ConfigError, in_one_line
from normlab.files import write_atomically
from normlab.norms import CATALOGUE
from normlab.output import command, console
from normlab.settings.conf import instead

EXAMPLES = """examples:
  python -m normlab.calculate                                     batch norm of the fixed batch
  python -m normlab.calculate --norm gn --groups 4 --step         one statistic at a time
  python -m normlab.calculate --norm all                          every norm, one after the other
  python -m normlab.calculate --html page.html                    a page to try all of them in a browser
  python -m normlab.calculate --seed 3 --shape 2,6,2,2 --eps 0    random digits; without ε roots are plain
  python -m normlab.calculate --input mine.csv --shape 4,4,3,3 --gamma 1,2,1,1 --beta 0,0,1,0 --out sheet
"""


@in_one_line()
def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code: 0, 2 where something given is wrong, 130 where it was stopped."""
    screen, words = console(132), list(arguments)
    # "--beta=-1,2" for "--beta -1,2", where argparse would see an option -1,2
    for at in reversed(range(1, len(words))):
        if re.match(r"-[\d.,]", words[at]) and re.fullmatch("--[a-z]+", words[at - 1]):
            words[at - 1 : at + 1] = [f"{words[at - 1]}={words[at]}"]
    given = Parser().parse_args(words)
    results = _results(given)
    written = _written(results, given)
    if given.step:
        walk(screen, results, _wait if sys.stdin is not None and sys.stdin.isatty() else lambda: True)
    else:
        show(screen, results)
    for line in written:
        screen.print(line, markup=False, soft_wrap=True)
    return 0


class Parser(argparse.ArgumentParser):
    """The options of the command line. An error is one line, and "-1,2" is a value and no option."""

    def __init__(self) -> None:
        super().__init__(
            prog="python -m normlab.calculate",
            description="A norm of a small batch, every number shown.\n\n" + fill(f"Norms: {', '.join(NORMS)}.", 78),
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        add = self.add
        add("--norm", _norms, "NORM", "bn unless given; several as in bn,gn; all for every one", ["bn"])
        add("--input", Path, "FILE", "a batch: .npy, or text with numbers in the order N, C, H, W")
        add("--shape", _shape, "N,C,H,W", "of --input, unless it is a .npy of four dimensions; or of random digits")
        add("--seed", _integer, "S", "random digits instead of the fixed batch; --shape is 4,4,3,3 unless given")
        add("--groups", _integer, "G", "of channels: a divisor of their number; 2 unless given, if that is one")
        add("--images", _integer, "V", "images of a ghost batch (2)", 2)
        add("--eps", number, "E", "ε, inside the root (the norm's own, 1e-5 or 1e-6); 0 gives plain fractions")
        add("--gamma", _numbers, "A,B,…", "scale γ, one number per channel (1, or what the norm starts from)")
        add("--beta", _numbers, "A,B,…", "shift β, one number per channel (0)")
        add("--learned", _learned, "τ=A,…", "another number of a formula by its sign, as in ρ=0.5 or τ=-1", {})
        add("--momentum", number, "M", "running = (1 - M) · running + M · batch (0.1)", Fraction(1, 10))
        add("--html", Path, "FILE", "also write a page on which everything can be changed")
        add("--out", Path, "DIR", "also write that page, a workbook and pictures there")
        self.add_argument("--step", action="store_true", help="one statistic at a time: Enter for the next, q to end")

    def add(self, option: str, read: Callable[[str], Any], metavar: str, words: str, default: Any = None) -> None:
        def reading(text: str) -> Any:
            try:
                return read(text)
            except ValueError as error:  # argparse repeats the text of its own kind of error only
                raise argparse.ArgumentTypeError(str(error)) from None

        self.add_argument(option, type=reading, metavar=metavar, help=words, default=default)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message.removeprefix('argument ')}: --help shows what there is")


def _norms(text: str) -> list[str]:
    norms = list(NORMS) if text == "all" else list(dict.fromkeys(text.split(",")))
    for norm in norms:
        if norm not in NORMS:
            why = "has no statistic" if norm in CATALOGUE else "is unknown"
            raise ValueError(f"{norm!r} {why}: {instead(norm, [*NORMS, 'all'])}")
    return norms


def _shape(text: str) -> Shape:
    words = re.split(r"[,x]", text)
    if len(words) != 4 or not all(re.fullmatch(r" *0*[1-9][0-9]{0,8} *", word) for word in words):
        raise ValueError(f"{text[:30]!r} is no shape: write N,C,H,W, four whole numbers above 0, as in 4,4,3,3")
    n, c, h, w = map(int, words)
    return n, c, h, w


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
        raise ValueError(f"{text[:30]!r} is not a whole number")
    return int(text)


def _words(text: str) -> list[str]:
    """What stands between commas, or between semicolons where commas are decimal ones."""
    return text.split(";" if ";" in text else ",")


def _numbers(text: str) -> tuple[Fraction, ...]:
    return tuple(map(number, _words(text)))


def _learned(text: str) -> dict[str, Fraction]:
    return {sign.strip(): number(value) for sign, _, value in (word.partition("=") for word in _words(text))}


def _results(given: argparse.Namespace) -> list[Result]:
    """Every calculation that was asked for; `NormlabError` where what was given does not fit together."""
    signs = {sign for norm in given.norm for sign in formula(norm).signs} - {"γ", "β", "ε"}
    for sign in given.learned:
        if sign not in signs:
            there = f"choose one of {', '.join(sorted(signs))}" if signs else "there is none here"
            raise ConfigError(f"--learned: {sign[:20]!r} is in no formula: {there}")
    if given.input is not None and given.seed is not None:
        raise ConfigError("--input and --seed are two batches: give one of them")
    if given.input is not None:
        batch = read_batch(given.input, given.shape)
    elif given.shape is None and given.seed is None:
        batch = default_batch()
    else:
        batch = random_batch(given.shape or (4, 4, 3, 3), given.seed or 0)
    options = ("groups", "eps", "gamma", "beta", "momentum", "images", "learned")
    rules = Rules(**{option: getattr(given, option) for option in options})
    return [calculate(norm, batch, rules) for norm in given.norm]


def _written(results: Sequence[Result], given: argparse.Namespace) -> list[str]:
    """Write the files, before anything is printed: a reader may leave early. Return the lines that name them.

    The same results give the same bytes.
    """
    contents: dict[Path, bytes] = {}
    lines = []
    if given.html or given.out:
        from normlab.byhand.page import page
    if given.html:
        contents[given.html] = page(results).encode()
        lines.append(f"\nWritten: {given.html}")
    if given.out:
        from normlab.byhand.pictures import files  # matplotlib: a second that the terminal alone need not wait
        from normlab.byhand.workbook import workbook

        # After the file that was given, letter by letter, as long as a terminal can show its name.
        name = given.input.stem if given.input is not None and given.input.stem.isprintable() else "sheet"
        sheet, missing = workbook(results)
        made = {**files(results), f"{name}.html": page(results).encode()} | ({f"{name}.xlsx": sheet} if sheet else {})
        contents |= {given.out / title: content for title, content in made.items()}
        lines.append(f"\nWritten to {given.out}: {', '.join(made)}")
        if missing:
            print(f"normlab: {name}.xlsx is left out{missing}", file=sys.stderr)
    for path, content in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({error.strerror}): choose another place") from None
    return lines


def _wait() -> bool:
    """Whether the reader wants the next statistic: Enter does, q and the end of the input do not."""
    try:
        return input("\nEnter: next, q: end > ").strip().lower() not in ("q", "quit")
    except EOFError:
        return False
    except KeyboardInterrupt:
        print()  # what is said about it starts a line
        raise


if __name__ == "__main__":
    raise SystemExit(command(main))
