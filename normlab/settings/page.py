"""Every setting with its default, the values it takes and its meaning: `--help`, and docs/settings.md, which
`python -m normlab.settings.page > docs/settings.md` makes anew. From conf/, the types and the catalogue of norms."""

import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from normlab.norms import CATALOGUE
from normlab.settings.conf import GROUPS, choices, conf_dir, dotted
from normlab.settings.model import Settings
from normlab.settings.study import protocol, sweep_of

LINE = re.compile(r"(?P<indent> *)(?P<key>[a-z][\w.]*):\s*(?P<value>[^#]*?)\s*(?:# (?P<meaning>.*))?")
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "mapping"}


class Entry(NamedTuple):
    """A setting, or a heading (title alone)."""

    name: str
    default: str = ""
    values: str = ""
    meaning: str = ""


def entries() -> Iterator[Entry]:
    """Yield all that conf/ offers: the settings under their headings, then each choice of each group, and studies."""
    schema = Settings.model_json_schema()
    text = (conf_dir() / "config.yaml").read_text(encoding="utf-8")
    chosen, _, settings = text.partition("\nhydra:")[0].partition("\n# What is studied")
    yield Entry("Groups")
    for line in re.findall(r"(?m)^  - (\w+: .*)$", chosen):
        (entry,) = _read([line], {})
        yield entry._replace(values=", ".join(choices(entry.name)))
    yield Entry("What is studied")
    yield from _read(settings.splitlines()[1:], schema)
    for group in GROUPS:
        for name in choices(group):
            lines = (conf_dir() / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
            above = "  " if "@package _global_" in lines[0] else ""  # it names its group itself
            inside = [line.removeprefix(above) for line in lines if not line.startswith(("#", f"{group}:"))]
            title = next(line for line in inside if line.startswith("name:"))
            yield Entry(f"{group}={name}: {title.partition('# ')[2]}")
            inside.remove(title)
            yield from _read(inside, schema, group, name)
    for name in choices("study"):
        lines = (conf_dir() / "study" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        yield Entry(f"study={name}: {lines[1].partition('# ')[2]}")
        yield from (Entry(key, value, "swept") for key, value in sweep_of(name).items())
        yield from (Entry(key, _yaml(value)) for key, value in dotted(protocol(name)).items())


def _read(lines: list[str], schema: Mapping[str, Any], group: str = "", name: str = "") -> Iterator[Entry]:
    """The settings in lines of YAML; comments on lines of their own are headings."""
    above, parent = [group] if group else [], ""
    for line in lines:
        if line.startswith("# "):
            yield Entry(line.removeprefix("# "))
        if not (found := LINE.fullmatch(line)):
            continue
        path = [*above, found["key"]] if not found["indent"] else [*above, parent, found["key"]]
        if found["key"] == "lr" and group:
            path = ["lr"]
        if not found["value"]:
            parent = found["key"]
            continue
        option = CATALOGUE[name].options.get(found["key"]) if group == "norm" and name in CATALOGUE else None
        values = option.words if option else _values(schema, path, name)
        values = values or "as the factory takes it" * ("options" in path)
        yield Entry(".".join(path), found["value"], values, found["meaning"] or "")


def _values(schema: Mapping[str, Any], path: list[str], choice: str = "") -> str:
    """What a setting may be, in words; empty where its type says nothing."""
    part: Any = schema
    for key in path:
        part = part.get("properties", {}).get(key, {})
        if mapping := part.get("discriminator", {}).get("mapping"):
            part = {"$ref": mapping[choice]} if choice in mapping else {}
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    return _words(part)


def _words(part: Mapping[str, Any]) -> str:
    if "anyOf" in part:
        return " or ".join(filter(None, map(_words, part["anyOf"])))
    if "enum" in part or "const" in part:
        return ", ".join(map(str, part.get("enum", [part.get("const")])))
    if part.get("type") == "array":
        return f"list of {_words(part['items'])}"
    bounds = [f"{sign} {part[key]:g}" for key, sign in BOUNDS.items() if key in part and abs(part[key]) < 1e9]
    return ", ".join(filter(None, [TYPES.get(part.get("type", ""), part.get("type", "")), *bounds]))


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def as_text(shown: Callable[[str], bool] | None = None) -> str:
    """Return the page for a terminal: a line per setting, `name: default # values; meaning`, under headings; of the
    names that are `shown` alone, without headings, and each once."""
    lines: list[str] = []
    for each in entries():
        about = "; ".join(filter(None, [each.values, each.meaning]))
        setting = f"{each.name}: {each.default}" + (f" # {about}" if about else "")
        if shown is None:
            lines += [setting] if each.default else ["", f"# {each.name}"]
        elif each.default and shown(each.name) and not any(line.startswith(f"{each.name}: ") for line in lines):
            lines.append(setting)
    if shown is not None:
        lines = [part for line in lines for part in textwrap.wrap(line, 96, subsequent_indent="      ")]
    return "\n".join(f"  {line}".rstrip() for line in lines) + "\n" * bool(lines)


def as_markdown() -> str:
    """Return the page as docs/settings.md: a table under each heading."""
    lines = ["# Settings", "", "Made by `python -m normlab.settings.page` from [conf](../conf) and the types."]
    for each in entries():
        if not each.default:
            title, _, text = each.name.partition(": ")
            lines += ["", f"## {title}", *["", text] * bool(text)]
            continue
        if not lines[-1].startswith("|"):
            lines += ["", "| setting | default | values | meaning |", "|---|---|---|---|"]
        cells = [f"`{each.name}`", f"`{each.default}`", each.values, each.meaning]
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
