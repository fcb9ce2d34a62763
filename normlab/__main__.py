"""The command `normlab`, also `python -m normlab`: its doors are modules with a `main` of their own."""

import importlib
import os
import sys
from collections.abc import Sequence

import normlab
from normlab.output import command

DOORS = {
    "train": "one run, a sweep or a study",
    "report": "tables, verdicts, figures and a page of a folder of runs",
    "calculate": "normalization by hand",
    "probe": "look inside a network that was trained",
    "export": "write a trained network as an ONNX file",
}
HELP = """usage: normlab COMMAND ...

{doors}

normlab COMMAND --help says more; normlab --version says which release this is.
Each is a module too: normlab train norm=ln is python -m normlab.train norm=ln.
Completion of settings in bash: eval "$(normlab -sc install=bash)"
""".format(doors="\n".join(f"  {door:<10} {words}" for door, words in DOORS.items()))


def main() -> int:
    """Run the command line of this process; return the exit code, 2 where the command is none."""
    return command(_do)


def _do(arguments: Sequence[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if not sys.flags.safe_path and os.getcwd() not in sys.path:  # a custom layer, as by python -m
        sys.path.insert(0, os.getcwd())
    if name in DOORS:
        sys.argv[:2] = [f"{sys.argv[0]} {name}"]
        return importlib.import_module(f"normlab.{name}").main(arguments[1:])  # type: ignore[no-any-return]
    if name in ("-sc", "--shell-completion"):  # Hydra's, which knows a command and settings, but no word between them
        os.environ["COMP_LINE"] = os.environ.get("COMP_LINE", "").replace(" train ", " ", 1)
        return importlib.import_module("normlab.train").main(arguments)  # type: ignore[no-any-return]
    if name in ("--help", "-h"):
        print(HELP, end="")
        return 0 if arguments else 2
    if name in ("--version", "-V"):
        print(f"normlab {normlab.__version__}")
        return 0
    hint = f": write normlab train {' '.join(arguments)}" if "=" in name or name == "-m" else ""
    print(f"normlab: {name} is no command{hint}; choose one of {', '.join(DOORS)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
