"""Does a test notice when the code that decides is changed? `python -m benchmarks.mutants --out docs`

Needs `pip install -e '.[mutants]'`. mutmut changes one thing at a time (a number, a comparison, an argument, a text, …)
in a copy of this repository and runs the tests that reach the changed function. mutmut leaves out what is decorated, so
in the copy `@rule(…)` above a function is `name = rule(…)(name)` below it. It also forks from a process that has
imported everything: what is computed during an import is tried again in a process of its own. And a test that finds in
a cache what another one computed would not be known to reach it: caches are emptied before each test.

Writes mutants.md, the counts of each module, and mutants.csv, a line for each mutant that no test noticed, with a
reason that is written there by hand and kept; exit code 1 where one has none, or fewer than 95 % were noticed.
"""

import argparse
import csv
import difflib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import libcst
from libcst import matchers

from benchmarks.tables import markdown, processor

REPOSITORY = Path(__file__).parents[1]
ENOUGH = 0.95  # of the mutants
LIVED = (0, 5, 33, None)  # pytest's exit codes: all passed, no test; mutmut's: no test known, not tried
# What is changed, and the tests that may notice.
TESTS = {
    "normlab/analysis/declared.py": "questions cells",
    "normlab/analysis/inference.py": "inference",
    "normlab/analysis/parts/claims.py": "questions rates",
    "normlab/analysis/questions.py": "questions",
    "normlab/analysis/rounds.py": "rounds",
    "normlab/analysis/sequential.py": "rounds inference",
    "normlab/analysis/verdicts.py": "inference parts questions",
    "normlab/byhand/exact.py": "byhand",
    "normlab/byhand/formula.py": "byhand byhand_workbook",
    "normlab/claim.py": "claim",
    "normlab/lint/*.py": "lint lint_results",
    "normlab/nets/penalty.py": "penalty networks",
    "normlab/norms/*.py": "norms norm_tools layers own_layer",
    "normlab/norms/processes.py": "devices",
    "normlab/record.py": "api folders parts",
}
OWN_PROCESSES = ("devices",)  # tests that take a minute whatever they test: not for mutmut's first look
# Scripting reads the source of a layer, in which mutmut has put its own.
ARGUMENTS = ["-m", "not slow", "--deselect", "tests/test_norm_tools.py::test_a_layer_by_fx_script_and_jit_trace"]
KEPT = ("staticmethod", "classmethod")  # decorators of functions that mutmut changes; those of torch stay too
CONFIGURATION = """
[tool.mutmut]
source_paths = ["normlab"]
only_mutate = {}
also_copy = {}
pytest_add_cli_args = {}
pytest_add_cli_args_test_selection = {}
"""
EMPTIED = """

def pytest_runtest_setup() -> None:
    for module in [module for name, module in sys.modules.items() if name.startswith("normlab")]:
        for value in vars(module).values():
            getattr(value, "cache_clear", lambda: None)()
"""
# Prints the functions that an import of each module calls.
IMPORTED = """
import importlib, json, sys

def look(frame, event, _):
    if event == "call":
        seen.add((str(frame.f_globals.get("__name__")), frame.f_code.co_name.removesuffix("__mutmut_orig")))

seen = set()
sys.setprofile(look)
for name in sys.argv[1:]:
    importlib.import_module(name)
sys.setprofile(None)
print(json.dumps([".".join(each) for each in seen]))
"""


class Undecorated(libcst.CSTTransformer):
    """Writes a decorated function without its decorators, and applies them below it."""

    def leave_FunctionDef(
        self, original_node: libcst.FunctionDef, updated_node: libcst.FunctionDef
    ) -> libcst.FunctionDef | libcst.FlattenSentinel[libcst.BaseStatement]:
        applied = [libcst.Module([]).code_for_node(each.decorator) for each in updated_node.decorators]
        if not applied or any(name.startswith(KEPT) or "." in name.partition("(")[0] for name in applied):
            return updated_node
        name = value = updated_node.name.value
        for decorator in reversed(applied):
            value = f"{decorator}({value})"
        bare = updated_node.with_changes(decorators=())
        return libcst.FlattenSentinel([bare, libcst.parse_statement(f"{name} = {value}")])


class Survivor(NamedTuple):
    """A change that no test noticed, as the lines before and after it."""

    module: str
    function: str
    before: str
    after: str


def prepare(copy: Path) -> None:
    """Copy this repository, as it was committed, for mutmut."""
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, copy], check=True)
    others = sorted(each.name for each in copy.iterdir() if each.name != "normlab")
    tests = sorted({file for names in TESTS.values() for file in _files(names) if names not in OWN_PROCESSES})
    for file in (file for pattern in TESTS for file in copy.glob(pattern)):
        file.write_text(libcst.parse_module(file.read_text()).visit(Undecorated()).code)
    for name, text in (
        ("pyproject.toml", CONFIGURATION.format(*map(json.dumps, ([*TESTS], others, ARGUMENTS, tests)))),
        ("tests/conftest.py", EMPTIED),
    ):
        with (copy / name).open("a") as appended:
            appended.write(text)


def exit_codes(mutated: Path) -> dict[str, int | None]:
    """Return the exit code by mutant; in `LIVED` where no test noticed."""
    return {
        name: code
        for file in sorted(mutated.glob("normlab/**/*.meta"))
        for name, code in json.loads(file.read_text())["exit_code_by_key"].items()
    }


def again(mutated: Path, codes: dict[str, int | None]) -> None:
    """Try anew, each in a process of its own, those that no test of mutmut's reached, and those that survived and were
    called by an import. What came out is kept in again.json.

    Raise `subprocess.CalledProcessError` where the tests fail without a mutant: they would notice everything.
    """
    modules = sorted({_module(name).removesuffix(".py").replace("/", ".") for name in codes})
    command = [sys.executable, "-c", IMPORTED, *modules]
    called = json.loads(subprocess.run(command, cwd=mutated, capture_output=True, check=True).stdout)
    kept = mutated / "again.json"
    found: dict[str, int] = json.loads(kept.read_text()) if kept.exists() else {}
    passed = set[str]()
    for name in [name for name, code in codes.items() if code == 33 or (code == 0 and _function(name) in called)]:
        if name not in found:
            tests = " ".join(names for pattern, names in TESTS.items() if Path(_module(name)).match(pattern))
            if tests not in passed:
                _tested(mutated, tests).check_returncode()
                passed.add(tests)
            found[name] = _tested(mutated, tests, MUTANT_UNDER_TEST=name).returncode
            kept.write_text(json.dumps(found))
            print(f"{name}: {'not noticed' if found[name] in LIVED else 'noticed'}", flush=True)
    codes |= found


def _tested(mutated: Path, names: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", *ARGUMENTS, *_files(names)]
    return subprocess.run(command, cwd=mutated, env=os.environ | environment, capture_output=True, check=False)


def _files(names: str) -> list[str]:
    return [f"tests/test_{name}.py" for name in names.split()]


def _module(name: str) -> str:
    return name.rpartition(".")[0].replace(".", "/") + ".py"


def _function(name: str) -> str:
    return name.partition("__mutmut_")[0]


def survivors(mutated: Path, codes: dict[str, int | None]) -> Iterator[Survivor]:
    """Yield the mutants that no test noticed, as mutmut wrote them."""
    functions: dict[str, dict[str, libcst.FunctionDef]] = {}
    for name in (name for name, code in codes.items() if code in LIVED):
        module, of = _module(name), name.rpartition(".")[2]
        if module not in functions:
            found = matchers.findall(libcst.parse_module((mutated / module).read_text()), matchers.FunctionDef())
            functions[module] = {each.name.value: each for each in found if isinstance(each, libcst.FunctionDef)}
        whole = _function(of)
        one, other = (
            libcst.Module([functions[module][each]]).code.replace(each, whole).splitlines()
            for each in (f"{whole}__mutmut_orig", of)
        )
        lines = [line for line in difflib.unified_diff(one, other, n=0, lineterm="") if line[1:].strip()][2:]
        before, after = (" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
        yield Survivor(module, whole.removeprefix("x_").removeprefix("xǁ").replace("ǁ", "."), before, after)


def write(out: Path, codes: dict[str, int | None], left: Sequence[Survivor], seconds: float) -> int:
    """Write both files. Return the exit code."""
    file = out / "mutants.csv"
    known = {}
    if file.exists():
        with file.open(newline="", encoding="utf-8") as lines:
            known = {Survivor(*row[:4]): row[4] for row in csv.reader(lines)}
    rows = [(*each, known.get(each, "")) for each in sorted(left)]
    with file.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines, lineterminator="\n").writerows([(*Survivor._fields, "reason"), *rows])
    every, survived = Counter(map(_module, codes)), Counter(each.module for each in left)
    table = [
        [module, f"{n:,}", f"{n - survived[module]:,}", str(survived[module])] for module, n in sorted(every.items())
    ]
    noticed = 1 - len(left) / len(codes)
    columns = ["module", "mutants", "noticed", "not noticed"]
    text = f"""\
# Mutants

`python -m benchmarks.mutants --out docs` made this page and [the list of those that no test noticed](mutants.csv),
each with its reason, in {seconds / 60:.0f} minutes on {processor()}. In a copy of the repository, mutmut changes one
thing at a time in the code that decides, and runs the tests that reach it: {100 * noticed:.1f} % of the changes were
noticed.

{markdown(columns, table, columns[1:])}
"""
    (out / "mutants.md").write_text(text, encoding="utf-8")
    print(text)
    return 1 if noticed < ENOUGH or not all(row[-1] for row in rows) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for mutants.md and mutants.csv")
    parser.add_argument("--copy", type=Path, help="folder for the copy, to go on there after an interruption")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at the same time (1)")
    flags = parser.parse_args(arguments)
    flags.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        copy = (flags.copy or Path(place) / "normlab").absolute()
        if not copy.exists():
            prepare(copy)
        command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(flags.jobs)]
        subprocess.run(command, cwd=copy, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
        mutated = copy / "mutants"
        codes = exit_codes(mutated)
        again(mutated, codes)
        left = [*survivors(mutated, codes)]
    return write(flags.out, codes, left, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
