"""One page that holds a whole report: nothing beside it, nothing fetched."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from normlab.analysis.cells import RunsBySetting
from normlab.norms import CATALOGUE
from normlab.settings.conf import spell

HERE = Path(__file__).parent
WIDEST = 1140  # of a figure, CSS pixels


@dataclass(frozen=True)
class Shown:
    """A figure on the page: its SVG as part of a data address, its width in CSS pixels, the line below it."""

    svg: str
    width: int
    caption: str

    @classmethod
    def of(cls, svg: bytes, caption: str) -> "Shown":
        """Take the width, up to the widest that it may have, from the SVG: matplotlib writes points, 72 an inch."""
        found = re.search(rb'<svg[^>]* width="([\d.]+)pt"', svg)
        width = round(float(found[1]) * 100 / 72) if found else WIDEST
        return cls(_small(svg.decode()), min(width, WIDEST), caption)


def _small(svg: str) -> str:
    """An SVG without what a browser does not need, as it may stand after "data:image/svg+xml,": half the size of
    base64."""
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r">\s+<", "><", svg)
    svg = re.sub(r"\s+", " ", svg)
    svg = re.sub(r"(?<=[\d\"]) ?([MLQCz]) ?(?=[\d\"z-])", r"\1", svg)  # of a path
    # attributes in single quotes need no escape; names of fonts then have none
    small = re.sub(r"<[^>]+>", lambda tag: tag[0].replace("'", "").replace('"', "'"), svg.strip())
    return quote(small, safe=" '()*!,;:@&=+$/?<>-_.~[]|^`{}\\")


def render(values: Mapping[str, object], place: Path = HERE) -> str:
    """The page in a folder as HTML: page.html.j2. Everything in `values` is escaped: a name with markup in it is shown,
    not obeyed. The one script that the page admits is page.js, by its hash."""
    environment = Environment(
        loader=FileSystemLoader(place), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = (place / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = {"script": script, "script_hash": f"sha256-{digest}"}
    return environment.get_template("page.html.j2").render(own | dict(values))


def as_json(values: object) -> str:
    """JSON that may stand in a page: nothing in it can end the element that holds it."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")


# How it was made


def glossary(found: Iterable[RunsBySetting]) -> dict[str, str]:
    """What the names of norms stand for, by the catalogue; nothing for a layer of somebody's own."""
    present = {cell.norm for some in found for cell in some.cells}
    return {name: about.title for name, about in CATALOGUE.items() if name in present}


RECIPE = {
    "network": ("net.target", "net", "placement", "dropout", "weight_standardization"),
    "optimizer": ("optimizer", "optimizer.momentum", "optimizer.weight_decay", "gradient_clip"),
    "learning rate": ("lr", "lr_per", "schedule"),
    "training": ("epochs", "batch_size", "refit_epochs", "precision"),
    "augmentation": ("augment.rotation", "augment.shift"),
    "L1": ("l1", "penalty.scope", "penalty.method"),
}


def recipe(found: RunsBySetting) -> dict[str, str]:
    """How the runs were trained, a line each: what differs between settings is a list."""
    configs = [run.config for run in found.ended]
    lines = {}
    for heading, keys in RECIPE.items():
        levels = {key: list(dict.fromkeys(config.get(key) for config in configs)) for key in keys}
        parts = [
            f"{key.rpartition('.')[2]} {', '.join(map(spell, have))}"
            for key, have in levels.items()
            if have not in ([None], [False], [0.0])
        ]
        if parts and (heading != "L1" or any(levels["l1"])):
            lines[heading] = "; ".join(parts)
    record = [*found.completed, *found.ended][0].record
    if record.data:
        held = f", {record.data['val']:,} held out" if record.data.get("val") else ""
        train, test = record.data.get("train", 0), record.data.get("test", 0)
        lines["data"] = f"{found.data_title}: {train:,} training images{held}, {test:,} test images"
    return lines


def made(found: RunsBySetting) -> dict[str, str]:
    """When, on what and with which versions the runs were trained, and how many there are."""
    ended, records = found.ended, [run.record for run in found.completed]
    runs = f"{len(ended):,} of {len(found.cells):,} settings, {len(records):,} completed; the last epoch counts"
    days = sorted({day for run in ended if (day := _day(run.folder))})
    devices = {str(r.device.get("name", r.device.get("accelerator"))) for r in records}
    versions = {", ".join(f"{k} {v}" for k, v in r.versions.items()) for r in records}
    lines = {"runs": runs, "trained": " to ".join(dict.fromkeys([*days[:1], *days[-1:]]))}
    lines |= {"device": ", ".join(sorted(devices)), "versions": "; ".join(sorted(versions))}
    return {heading: line for heading, line in lines.items() if line}


def _day(folder: Path) -> str:
    """The day on which a run began, by the name of its TensorBoard file; "" without one."""
    for file in sorted(folder.glob("events.out.tfevents.*")):
        stamp = file.name.split(".")[3]
        if stamp.isdecimal():
            return f"{datetime.fromtimestamp(int(stamp), UTC):%Y-%m-%d}"
    return ""


def run_links(found: RunsBySetting, out: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """By setting, its runs: a seed's number and the address of its folder; "" where it does not lie below the page."""

    def address(folder: Path) -> str:
        inside = folder.resolve().is_relative_to(out.resolve())
        return quote(folder.resolve().relative_to(out.resolve()).as_posix()) + "/" if inside else ""

    return [(cell.label, [(str(run.record.seed), address(run.folder)) for run in cell.ended]) for cell in found.cells]
