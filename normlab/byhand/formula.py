"""A norm's formula, as its file writes it, read into a tree that arithmetic, words, workbook and page compute with.

Nodes are tuples, lists in JSON: ("x",), ("number", "2"), ("given", "γ"); ("mean", i, a) and ("sum", i, a) over the
axes number i of the norm, ("map", a), the sum over a map; ("called", name, a), ("kept", start, a), whose running
average takes its place in eval mode; ("+", a, b), as - · / and max; ("√", a), as ² | sigmoid tanh.

μ is the mean over the norm's first axes, σ² the mean of (x − μ)² over its last ones. With an index, as in μ_B or
σ_I², both are over the axes that come first, second, … in the formula. Σ is over the index k where its term has one,
else over the first axes. After a comma follow definitions ("s = …") and, for norms in a chain, what each computes.
"""

import ast
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache, reduce
from typing import Any

from normlab.norms import CATALOGUE, About

Node = tuple[Any, ...]

X: Node = ("x",)
STRENGTH = {"+": 1, "-": 1, "·": 2, "/": 2}
BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "·", ast.Div: "/"}
CALLS = {"sqrt": "√", "abs": "|", "max": "max", "sigmoid": "sigmoid", "tanh": "tanh"}
# The sign of an option in formulas: "ρ" for rho; an option whose name is no Greek letter is its own sign.
GREEK = {unicodedata.name(sign).split()[-1].lower(): sign for sign in "αβγδεζηθικλμνξοπρστυφχψω"}
PRIME = "\u02b9"  # one that Python allows in a name
PYTHON = {  # a formula's signs as Python writes them, whose parser then reads it; replaced in this order
    r"\|([^|]+)\|": r"(abs(\1))",
    "‖x_c‖": "(x_c)",
    r"Σ ((?:[^()+−,]|\([^()]*\))+)": r"Σ(\1)",
    "√": "sqrt",
    "²": "**2",
    "·": "*",
    "−": "-",
    "′": PRIME,
}


class Reader:
    """Read a formula. Raise `ValueError` or `SyntaxError` where it has what nothing here can compute."""

    def __init__(self, about: About) -> None:
        main, *others = re.split(r", (?=(?:at first )?\S+ = |each )", about.formula)
        self.definitions = dict(re.split(" = | ", other.removeprefix("at first "), maxsplit=1) for other in others)
        self.about = about
        self.signs = {
            "ε",
            *(learned.sign for learned in about.learned.values()),
            *(GREEK.get(key, key) for key in about.options),
        }
        self.indices: dict[str, int] = {}
        self.argument, self.index, self.k = X, "", 0
        self.tree = self.read(main)

    def read(self, source: str) -> Node:
        for sign, python in PYTHON.items():
            source = re.sub(sign, python, source)
        return self.node(ast.parse(source, mode="eval").body)

    def node(self, part: ast.expr) -> Node:
        match part:
            case ast.Constant(value=int(value)):
                return "number", str(value)
            case ast.Name(name):
                return self.named(name.replace(PRIME, "′"))
            case ast.BinOp(ast.Name(name), ast.Pow()) if name.split("_")[0] == "σ":
                return self.statistic("σ", name[2:])
            case ast.BinOp(base, ast.Pow()):
                square = "²", self.node(base)
                return self.kept(1, square) if square[1][0] == "called" else square
            case ast.BinOp(left, operator, right) if type(operator) in BINARY:
                return BINARY[type(operator)], self.node(left), self.node(right)
            case ast.Call(ast.Name("Σ"), [term]):
                return self.total(term)
            case ast.Call(ast.Name("mean"), [term]):
                return called(("mean", 0, self.node(term)))
            case ast.Call(ast.Name(name), terms) if name in CALLS:
                return CALLS[name], *map(self.node, terms)
            case ast.Call(ast.Name(name), [term]) if "each" in self.definitions:
                self.argument, self.index = self.node(term), name[0]
                node = self.read(self.definitions["each"])
                self.argument, self.index = X, ""
                return node
        raise ValueError(ast.unparse(part))

    def named(self, name: str) -> Node:
        sign, _, index = name.partition("_")
        if name == "x":
            return self.argument
        if name == "x_c":
            return "called", "‖x_c‖", ("√", ("map", ("²", self.argument)))
        if sign == "μ":
            return self.statistic(sign, index)
        if name in self.definitions:
            node = self.read(self.definitions[name])
            return node if node[0] == "number" else ("called", name, node)
        if name == "π":
            return "number", name
        if name in self.signs:
            return "given", name
        raise ValueError(name)

    def total(self, term: ast.expr) -> Node:
        if not any(isinstance(part, ast.Name) and part.id.endswith("_k") for part in ast.walk(term)):
            return called(("sum", 0, self.node(term)))
        terms = []
        for k in range(len(self.about.axes)):
            self.k = k
            terms.append(self.node(term))
        return reduce(lambda one, other: ("+", one, other), terms)

    def statistic(self, sign: str, index: str) -> Node:
        """μ or σ²; an index says of which axes."""
        first, last = 0, len(self.about.axes) - 1
        if index == "k":
            first = last = self.k
            index = self.definitions["k"].split(", ")[self.k]
        elif index := index or self.index:
            first = last = self.indices.setdefault(index, len(self.indices))
        if last >= len(self.about.axes):
            raise ValueError(f"{sign}_{index}")
        below = f"_{index}" if index else ""
        mean = "called", f"μ{below}", ("mean", first, self.argument)
        if sign == "μ":
            return self.kept(0, mean)
        return self.kept(1, ("called", f"σ{below}²", ("mean", last, ("²", ("-", self.argument, mean)))))

    def kept(self, start: int, node: Node) -> Node:
        """With a running average, where it is of several images and the norm has a state."""
        batch = any(set(self.about.axes[i]) & {"N", "V"} for i in axes_of(node) if isinstance(i, int))
        return ("kept", start, node) if self.about.state and batch else node


def called(node: Node) -> Node:
    """A node that is called as it is written."""
    return "called", text(node, symbols), node


class Formula:
    """What follows from a norm's formula. Raise `ValueError` or `SyntaxError` where it cannot be computed here.

    Attributes:
        tree, inner: of y, and of y with γ = 1 and β = 0: what is normalised.
        written, written_inner, written_in_eval: both, and y in eval mode, as text.
        signs: of the numbers that it takes beside x: γ, β, ε, τ, …
        steps: for each of the norm's axes, what is computed once per set, in order, by name: "μ", "√(σ² + ε)".
        kept: the statistics that have a running average, by name.
        averages: by name, those running averages, and the roots that eval mode takes of nothing else that depends on x.
    """

    def __init__(self, about: About) -> None:
        sign = {of: learned.sign for of, learned in about.learned.items()}
        self.tree = Reader(about).tree
        self.inner = unscaled(self.tree, sign.get("weight", ""), sign.get("bias", ""))
        self.written, self.written_inner = text(self.tree, symbols), text(self.inner, symbols)
        self.written_in_eval = text(self.tree, symbols_in_eval)
        nodes = list(dict.fromkeys(walk(self.tree)))
        self.signs = [node[1] for node in nodes if node[0] == "given"]
        once = [node for node in nodes if node[0] in ("called", "√")]
        self.steps = [{label(node): node for node in once if axes_of(node) == {i}} for i in range(len(about.axes))]
        self.kept = {label(node): node for node in nodes if node[0] == "kept"}
        self.averages = {f"running {name}": node for name, node in self.kept.items()}
        roots = [node for node in nodes if node[0] == "√" and any(part[0] == "kept" for part in walk(node))]
        self.averages |= {text(node, symbols_in_eval): node for node in roots if of_averages(node)}


@cache
def formula(name: str) -> Formula:
    """The formula of a norm of the catalogue."""
    return Formula(CATALOGUE[name])


def is_known(about: About) -> bool:
    """Whether a norm has a statistic and a formula that can be computed here."""
    try:
        return bool(about.axes) and bool(Reader(about).tree)
    except (ValueError, SyntaxError):
        return False


def parts(node: Node) -> Sequence[Node]:
    """The nodes that a node is made of."""
    return [part for part in node[1:] if isinstance(part, tuple)]


def walk(node: Node) -> Iterator[Node]:
    """The nodes of a tree, each after those that it is made of."""
    for part in parts(node):
        yield from walk(part)
    yield node


def axes_of(node: Node) -> set[Any]:
    """Over what a value varies: the numbers of its axes, "map", "channel", "x"; nothing where it is one number."""
    match node:
        case ("x",):
            return {"x"}
        case ("mean" | "sum", i, _):
            return {i}
        case ("map", _):
            return {"map"}
        case ("given", sign):
            return set() if sign == "ε" else {"channel"}
    return set[Any]().union(*map(axes_of, parts(node)))


def of_averages(node: Node) -> bool:
    """Whether a value depends on x through running averages only."""
    if node[0] in ("kept", "mean", "sum", "map", "x"):
        return bool(node[0] == "kept")
    return all(map(of_averages, parts(node)))


def unscaled(node: Node, scale: str, shift: str) -> Node:
    """The tree with 1 for the given `scale` and 0 for the given `shift`, simplified: what is normalised."""
    if node[0] == "given" and node[1] in (scale, shift):
        return "number", "1" if node[1] == scale else "0"
    node = tuple(unscaled(part, scale, shift) if isinstance(part, tuple) else part for part in node)
    match node:
        case ("·", ("number", "1"), other) | ("·", other, ("number", "1")) | ("+", other, ("number", "0")):
            simpler: Node = other
            return simpler
    return node


def symbols(node: Node) -> str:
    """How a formula names a node; nothing where it is written out."""
    match node:
        case ("x",):
            return "x"
        case ("number" | "given" | "called", name, *_):
            return str(name)
    return ""


def label(node: Node) -> str:
    """The name of a part of a formula: "μ", "√(σ² + ε)"."""
    return label(node[2]) if node[0] == "kept" else symbols(node) or text(node, symbols)


def symbols_in_eval(node: Node) -> str:
    """How the formula of eval mode names a node."""
    return f"running {label(node)}" if node[0] == "kept" else symbols(node)


def text(node: Node, shown: Callable[[Node], str], strength: int = 0) -> str:
    """A tree as it is written, with brackets where it stands beside what binds more strongly.

    shown: the text of a node, or nothing where its parts are to be written.
    """
    if known := shown(node):
        return f"({known})" if known.startswith("-") and strength else known
    match node:
        case ("+" | "-" | "·" | "/" as sign, a, b):
            own = STRENGTH[sign]
            line = f"{text(a, shown, own - (own == 1))} {sign} {text(b, shown, own + (sign in '-/'))}"
            return f"({line})" if own < strength else line
        case ("kept" | "called", _, a):
            return text(a, shown, strength)
        case ("²", a):
            return f"{text(a, shown, 3)}²"
        case ("|", a):
            return f"|{text(a, shown)}|"
        case ("mean", _, a):
            inner = text(a, shown)
            return f"mean{inner if inner[0] in '|‖' else f'({inner})'}"
        case ("sum", _, a) | ("map", a):
            return f"Σ {text(a, shown, 2)}"
    return f"{node[0]}({', '.join(text(part, shown) for part in parts(node))})"
