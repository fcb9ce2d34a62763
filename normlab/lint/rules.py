"""What a rule is, the list of all of them, and the two times at which they are checked."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from normlab.errors import ConfigError
from normlab.lint.design import Design, Spread, planned
from normlab.settings import Settings, Study
from normlab.settings.conf import instead

if TYPE_CHECKING:
    from normlab.analysis.questions import Answers  # scipy, a second that a single run need not wait for

Check = Callable[[Design], Iterator[str]]
When = Literal["run", "plan", "report"]  # before a single run, before the first of several, beside results
SHOWN = 6  # names in a list; the others are counted


@dataclass(frozen=True)
class Rule:
    """code, name: as in docs/lint.md, its section. detected, why, fix: the paragraphs of that section. check: yields a
    message per case, one line each."""

    code: str
    name: str
    when: tuple[When, ...]
    detected: str
    why: str
    fix: str
    check: Check


RULES: dict[str, Rule] = {}


def rule(code: str, name: str, *when: When) -> Callable[[Check], Check]:
    """Register a check. The three paragraphs of its docstring say how a case is detected, why it matters, and what to
    do."""

    def add(check: Check) -> Check:
        detected, why, fix = (re.sub(r"\s+", " ", part) for part in inspect.getdoc(check).split("\n\n"))  # type: ignore[union-attr]
        RULES[code] = Rule(code, name, when, detected, why, fix, check)
        return check

    return add


@dataclass(frozen=True)
class Finding:
    """What a rule found: its code, and what a reader has to know and can do, in one line."""

    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def lint(
    runs: Sequence[Settings], study: Study | None = None, spread: Spread | None = None, ignore: Iterable[str] = ()
) -> list[Finding]:
    """Return what may mislead in planned runs, by code. Runs of several data sets are several studies.

    Args:
        runs: every run that is planned, finished ones included. Of a single one, only what it cannot be is reported.
        study: whose margin is the difference asked about, and whose claims and control say what is compared.
        spread: standard deviation over seeds, where some runs have shown it; assumed otherwise.
        ignore: codes of rules to leave out.
    """
    sets = dict.fromkeys(each.data.name for each in runs)
    designs = [planned([each for each in runs if each.data.name == data], study, spread) for data in sets]
    return list(dict.fromkeys(each for design in designs for each in _found(design, ignore)))


def lint_results(answers: "Answers", *, margin: float | None = None, ignore: Iterable[str] = ()) -> list[Finding]:
    """Return what may mislead in the results of a report, by code. margin: the difference asked about; None where
    nobody named one."""
    return _found(Design(answers.grouped, answers.study, answers=answers, margin=margin), ignore)


def _found(design: Design, ignore: Iterable[str]) -> list[Finding]:
    when: When = "report" if design.answers is not None else "plan" if design.several else "run"
    wanted = [each for code, each in sorted(RULES.items()) if when in each.when and code not in {*ignore}]
    return [Finding(each.code, message) for each in wanted for message in each.check(design)]


def check_codes(codes: Iterable[str]) -> None:
    """Raise `ConfigError`, in one line with the nearest, where a code is no rule's."""
    for code in codes:
        if code not in RULES:
            raise ConfigError(f"ignore {code}: no such rule; {instead(code, sorted(RULES))}")


def names(labels: Iterable[str]) -> str:
    """ "bn, ln, gn": each once, and of a long list the first ones."""
    each = list(dict.fromkeys(labels))
    more = f" and {len(each) - SHOWN + 1} more" if len(each) > SHOWN else ""
    return ", ".join(each[: SHOWN - 1] if more else each) + more


HEAD = """# What may mislead

Made by `python -m normlab.lint > docs/lint.md` from the rules in [normlab/lint](../normlab/lint).

normlab checks the settings of a sweep or study before its first run, and a report checks them again with the results.
A warning stops nothing. Its code leaves the rule out: `ignore=[NL009]` for `normlab.train` (`[NL003,NL009]` for two),
`--ignore NL009` for `normlab.report`. `ignore` changes no result and no hash, and a report does not inherit it. A
study's file may have the setting too, with the reason beside it. In Python: `normlab.lint.lint(settings, study)`.

| code | rule | checked |
|---|---|---|
"""


def page() -> str:
    """Return docs/lint.md: a table of the rules, then a section for each."""
    words = {"run": "before a run", "plan": "before a sweep", "report": "in a report"}
    rows, sections = [], []
    for _, each in sorted(RULES.items()):
        when = ", ".join(words[time] for time in each.when)
        rows.append(f"| [{each.code}](#{each.code.lower()}-{each.name}) | {each.name} | {when} |")
        sections.append(
            f"\n## {each.code} {each.name}\n\n**Detected:** {each.detected}\n\n**Why it matters:** {each.why}\n\n"
            f"**What to do:** {each.fix}"
        )
    return HEAD + "\n".join([*rows, *sections]) + "\n"
