"""The floors of the package, and the picture of them: `python docs/house.py` draws docs/house.svg.

A room is a module or a folder of normlab. tests/test_layout.py holds every import to `FLOORS`; the picture shows the
imports that are there, but none of what a room also reaches by way of another room, and none to the ground floor,
which is open to all: with those, nobody could follow one. Broken lines are imports inside functions only, which keep
torch, Lightning or pandas out until they are needed.
"""

import argparse
import ast
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "normlab"

# From the ground up: a room may import from lower floors only, and from its own room.
FLOORS = [
    {"errors", "files", "output", "scores"},
    {"norms", "claim"},
    {"settings"},
    {"record"},
    {"randomness", "nets", "analysis"},
    {"kernels", "board"},
    {"data", "byhand", "probes"},
    {"training", "lint"},
    {"summary", "scheduler", "compared"},
    {"train", "report", "calculate", "probe", "export"},
    {"__main__"},
]
LEVEL_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}
ALLOWED_LATE = {("norms", "settings")}  # inside a function: a norm's defaults stand in conf/

Arrow = tuple[str, str]
Point = str | tuple[str, str, int]  # a room, or where an arrow passes a floor

WIDTH, BOX, LEVEL = 960, 28, 76  # of the picture, a box, and from floor to floor


def files() -> list[Path]:
    """Every file of the package that lies in a room, below it."""
    found = [file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py" or file.parent != PACKAGE]
    return sorted(file.relative_to(PACKAGE) for file in found)


def room_of(file: Path) -> str:
    return file.parts[0].removesuffix(".py")


def imports(file: Path) -> dict[str, bool]:
    """The rooms that a file imports from; whether it does so inside functions only."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    late = {id(node) for outer in ast.walk(tree) if isinstance(outer, ast.FunctionDef) for node in ast.walk(outer)}
    found: dict[str, bool] = {}
    for node in ast.walk(tree):
        for name in _modules(node):
            found[name] = found.get(name, True) and id(node) in late
    return found


def _modules(node: ast.AST) -> Iterator[str]:
    """The rooms that an import statement names."""
    if isinstance(node, ast.ImportFrom) and node.module:
        whole = [node.module] if node.module != "normlab" else [f"normlab.{alias.name}" for alias in node.names]
    elif isinstance(node, ast.Import):
        whole = [alias.name for alias in node.names]
    else:
        whole = []
    yield from (name.split(".")[1] for name in whole if name.startswith("normlab."))


def arrows() -> dict[Arrow, bool]:
    """(room, imported room) of all imports between rooms, less `ALLOWED_LATE`; whether inside functions only."""
    found: dict[Arrow, bool] = {}
    for file in files():
        for other, late in imports(PACKAGE / file).items():
            if other != room_of(file) and (room_of(file), other) not in ALLOWED_LATE:
                found[room_of(file), other] = found.get((room_of(file), other), True) and late
    return found


def fewest(all_arrows: Mapping[Arrow, bool]) -> dict[Arrow, bool]:
    """Those that the picture shows: from which all others follow, and none to the ground floor."""

    def below(room: str) -> set[str]:
        direct = {end for start, end in all_arrows if start == room}
        return direct.union(*(below(end) for end in direct))

    return {
        (start, end): late
        for (start, end), late in sorted(all_arrows.items())
        if end not in FLOORS[0] and not any(end in below(by) for first, by in all_arrows if first == start)
    }


def placed(shown: Sequence[Arrow]) -> tuple[dict[Point, float], dict[Arrow, list[Point]]]:
    """Where everything stands from left to right, and the points that each arrow goes through, from top to bottom.

    A long arrow passes each floor between its ends at a point of its own, so that it crosses no box. Order and places
    follow from the neighbours above and below, by turns (Sugiyama et al. 1981).
    """
    rows: list[list[Point]] = [sorted(floor) for floor in FLOORS]  # type: ignore[misc]
    ways: dict[Arrow, list[Point]] = {}
    for start, end in shown:
        between: list[Point] = [(start, end, number) for number in range(LEVEL_OF[start] - 1, LEVEL_OF[end], -1)]
        for point in between:
            rows[point[2]].append(point)  # type: ignore[index, misc]
        ways[start, end] = [start, *between, end]
    up: dict[Point, list[Point]] = {point: [] for row in rows for point in row}
    down: dict[Point, list[Point]] = {point: [] for row in rows for point in row}
    for way in ways.values():
        for upper, lower in pairwise(way):
            up[lower].append(upper)
            down[upper].append(lower)
    at: dict[Point, float] = {point: float(i) for row in rows for i, point in enumerate(row)}
    for turn in range(40):
        neighbours = (down, up)[turn % 2]
        for row in rows if turn % 2 == 0 else rows[::-1]:
            wanted = {point: _mean([at[other] for other in neighbours[point]], at[point]) for point in row}
            row.sort(key=lambda point: (wanted[point], str(point)))
            at |= {point: float(i) - len(row) / 2 for i, point in enumerate(row)}
    for row in rows:
        at |= _apart(row, [at[point] * 90 for point in row])
    for _ in range(60):  # the order stands: now straight lines
        for row in rows:
            at |= _apart(row, [_mean([at[other] for other in up[point] + down[point]], at[point]) for point in row])
    left, right = min(at.values()), max(at.values())
    return {point: 90 + (x - left) * (WIDTH - 180) / (right - left) for point, x in at.items()}, ways


def _mean(values: Sequence[float], otherwise: float) -> float:
    return math.fsum(values) / len(values) if values else otherwise  # `sum` rounds otherwise from Python 3.12 on


def _apart(row: Sequence[Point], wanted: Sequence[float]) -> dict[Point, float]:
    """As near to the wanted places as the boxes let, in this order."""
    half = [64.0 if isinstance(point, str) else 26.0 for point in row]
    place = list(wanted)
    for _ in range(50):
        for i in range(len(row) - 1):
            push = (half[i] + half[i + 1] - (place[i + 1] - place[i])) / 2
            if push > 0:
                place[i] -= push
                place[i + 1] += push
    return dict(zip(row, place, strict=True))


def picture() -> str:
    """The house as SVG."""
    shown = fewest(arrows())
    at, ways = placed(list(shown))
    height = LEVEL * len(FLOORS) + 12

    def y(number: int) -> float:
        return height - LEVEL * (number + 0.5) - 6

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="14">',
        "<!-- made by python docs/house.py -->",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8Z" fill="#55606e"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number in range(len(FLOORS)):
        if number % 2:
            lines.append(f'<rect x="0" y="{y(number) - LEVEL / 2:g}" width="{WIDTH}" height="{LEVEL}" fill="#f3f5f8"/>')
        lines.append(f'<text x="8" y="{y(number) + 5:g}" fill="#7a8594" font-size="12">{number}</text>')
    for (start, end), way in ways.items():
        points = [(at[point], y(LEVEL_OF[point] if isinstance(point, str) else point[2])) for point in way]
        points[0] = (points[0][0], points[0][1] + BOX / 2)
        same = LEVEL_OF[start] == LEVEL_OF[end]
        points[-1] = (points[-1][0], points[-1][1] + (BOX if same else -BOX) / 2)
        slopes = [0.0, *((c[0] - a[0]) / 6 for a, c in zip(points, points[2:], strict=False)), 0.0]  # Catmull-Rom
        path = f"M{points[0][0]:.0f} {points[0][1]:.0f}"
        for i, ((ax, ay), (bx, by)) in enumerate(pairwise(points)):
            high, low = (ay + 24, by + 24) if same else ((ay + by) / 2, (ay + by) / 2)
            path += f" C{ax + slopes[i]:.0f} {high:.0f} {bx - slopes[i + 1]:.0f} {low:.0f} {bx:.0f} {by:.0f}"
        dashes = ' stroke-dasharray="5 4"' if shown[start, end] else ""
        lines.append(
            f'<path d="{path}" fill="none" stroke="#55606e" stroke-width="1.3"{dashes} marker-end="url(#tip)">'
            f"<title>{start} imports {end}</title></path>"
        )
    for room, number in sorted(LEVEL_OF.items(), key=lambda item: (-item[1], item[0])):
        name = f"{room}/" if (PACKAGE / room).is_dir() else f"{room}.py"
        x = at[room]
        lines.append(
            f'<rect x="{x - 57:.0f}" y="{y(number) - BOX / 2:g}" width="114" height="{BOX}" rx="5" '
            f'fill="{"#dbe7f6" if name.endswith("/") else "#ffffff"}" stroke="#2f4a6d"/>'
        )
        lines.append(f'<text x="{x:.0f}" y="{y(number) + 5:g}" text-anchor="middle" fill="#14233a">{name}</text>')
    return "\n".join([*lines, "</svg>", ""])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="where to; beside this file by default")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "house.svg").write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
