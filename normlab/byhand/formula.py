"""A norm's formula, as its file writes it, read into a tree that arithmetic, workbook and page compute with.

Nodes are tuples, lists in JSON: ("x",), ("number", "2"), ("given", "γ"); ("mean", i, a) and ("sum", i, a) over the
axes number i of the norm, ("map", a), the sum over a map; ("called", name, a), ("kept", start, a), whose running
average takes its place in eval mode; ("+", a, b), as - · / and max; ("√", a), as ² | sigmoid tanh.

μ is the mean over the norm's first axes, σ² the mean of (x − μ)² over its last ones. With an index, as in μ_B or
σ_I², both are over the axes that come first, second, … in the formula. Σ is over the index k where its term has one,
else over the first axes. After a comma follow definitions ("s = …") and, for norms in a chain, what each computes.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from normlab.norms import CATALOGUE, About

__all__ = [
    "Node",
    "axes_of",
    "formula",
    "given_signs",
    "greek",
    "inner",
    "is_known",
    "kept",
    "kept_roots",
    "label",
    "steps",
    "symbols",
    "symbols_in_eval",
    "text",
    "walk",
]

Node = tuple[Any, ...]

TOKEN = re.compile(r"‖x_c‖|σ(?:_[A-Za-z]+)?²|[^\W\d_²]+′?(?:_[A-Za-z]+)?|\d+|\S")
STRENGTH = {"+": 1, "-": 1, "·": 2, "/": 2}
X: Node = ("x",)


class Reader:
    """Recursive descent. Raise `ValueError` where a formula has what nothing here can compute."""

    def __init__(self, about: About) -> None:
        main, *others = parts(about.formula)
        found = [re.match(r"(?:at first )?(\S+) (?:= )?(.+)", other) for other in others]
        self.definitions = {match[1]: match[2] for match in found if match}
        listed = re.search(r"k = ([\w, ]+)", about.formula)
        self.names = listed[1].split(", ") if listed else []  # of the axes over which Σ goes
        self.about = about
        self.signs = {"ε", *(learned.sign for learned in about.learned.values()), *map(greek, about.options)}
        self.indices: dict[str, int] = {}
        self.argument, self.index, self.stage, self.k = X, "", 0, 0
        self.tokens: list[str] = []
        self.tree = self.parsed(main)

    def parsed(self, source: str) -> Node:
        outer, self.tokens = self.tokens, TOKEN.findall(source)[::-1]
        node = self.sum()
        if self.tokens:
            raise ValueError(self.tokens[-1])
        self.tokens = outer
        return node

    def taken(self, *signs: str) -> str:
        return self.tokens.pop() if self.tokens and self.tokens[-1] in signs else ""

    def expect(self, sign: str) -> None:
        if not self.taken(sign):
            raise ValueError(f"no {sign}")

    def sum(self) -> Node:
        node = self.product()
        while sign := self.taken("+", "−"):
            node = ("+" if sign == "+" else "-", node, self.product())
        return node

    def product(self) -> Node:
        node = self.power()
        while sign := self.taken("·", "/"):
            node = (sign, node, self.power())
        return node

    def power(self) -> Node:
        node = self.atom()
        while self.taken("²"):
            node = self.kept(1, ("²", node)) if node[0] == "called" else ("²", node)
        return node

    def atom(self) -> Node:
        token = self.tokens.pop() if self.tokens else "an end"
        if token in ("(", "|"):
            node = self.sum()
            self.expect(")" if token == "(" else "|")
            return node if token == "(" else ("|", node)
        if token.isdecimal() or token == "π":
            return "number", token
        if token == "x":
            return self.argument
        if token == "√":
            return "√", self.atom()
        if token == "mean":
            mean = "mean", 0, self.atom()
            return "called", text(mean, symbols), mean
        if token == "‖x_c‖":
            return "called", token, ("√", ("map", ("²", self.argument)))
        if token == "Σ":
            return self.every()
        if token in ("max", "sigmoid", "tanh"):
            self.expect("(")
            nodes = [self.sum()]
            while self.taken(","):
                nodes.append(self.sum())
            self.expect(")")
            return token, *nodes
        if match := re.fullmatch(r"([μσ])(?:_([A-Za-z]+))?²?", token):
            return self.statistic(match[1], match[2] or "")
        if token in self.definitions:
            inner = self.parsed(self.definitions[token])
            return inner if inner[0] == "number" else ("called", token, inner)
        if self.tokens[-1:] == ["("] and "each" in self.definitions:
            self.argument = self.atom()
            self.index = token[0]
            node = self.parsed(self.definitions["each"])
            self.argument, self.index = X, ""
            return node
        if token in self.signs:
            return "given", token
        raise ValueError(token)

    def every(self) -> Node:
        rest, terms = list(self.tokens), []
        for k in range(len(self.about.axes)):
            self.tokens, self.k = list(rest), k
            terms.append(self.product())
        if not any("_k" in token for token in rest[len(self.tokens) :]):
            total = "sum", 0, terms[0]
            return "called", text(total, symbols), total
        node = terms[0]
        for term in terms[1:]:
            node = ("+", node, term)
        return node

    def statistic(self, sign: str, index: str) -> Node:
        """μ or σ²; an index says of which axes."""
        first, last = 0, len(self.about.axes) - 1
        if index == "k":
            first = last = self.k
            index = self.names[self.k]
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


def parts(source: str) -> list[str]:
    """A formula and what follows after commas, those in brackets left alone."""
    found, depth = [""], 0
    for sign in source:
        depth += (sign == "(") - (sign == ")")
        if sign == "," and not depth:
            found.append("")
        else:
            found[-1] += sign
    return [part.strip() for part in found]


def greek(option: str) -> str:
    """The sign of an option in formulas: "ρ" for rho; the option itself where its name is not a Greek letter."""
    try:
        return unicodedata.lookup(f"GREEK SMALL LETTER {option}")
    except KeyError:
        return option


@cache
def formula(name: str) -> Node:
    """The tree of y. Raise `ValueError` where a norm's formula has what cannot be computed here."""
    return Reader(CATALOGUE[name]).tree


def inner(name: str) -> Node:
    """The tree of a norm's y with γ = 1 and β = 0: what is normalised."""
    signs = {of: learned.sign for of, learned in CATALOGUE[name].learned.items()}
    return unscaled(formula(name), signs.get("weight", ""), signs.get("bias", ""))


def given_signs(name: str) -> set[str]:
    """The numbers that a norm's formula takes beside x: γ, β, ε, τ, …"""
    return {node[1] for node in walk(formula(name)) if node[0] == "given"}


def is_known(about: About) -> bool:
    """Whether a norm has a statistic and a formula that can be computed here."""
    try:
        return bool(about.axes) and bool(Reader(about).tree)
    except ValueError:
        return False


def walk(node: Node) -> Iterator[Node]:
    """The nodes of a tree, each after those that it is made of."""
    for part in node[1:]:
        if isinstance(part, tuple):
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
    return set[Any]().union(*(axes_of(part) for part in node[1:] if isinstance(part, tuple)))


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


def steps(tree: Node, axes: int) -> list[Node]:
    """What is computed once per set of these axes, in order."""
    return _of(tree, lambda node: node[0] in ("called", "√") and axes_of(node) == {axes})


def kept(tree: Node) -> list[Node]:
    """The statistics that have a running average."""
    return _of(tree, lambda node: node[0] == "kept")


def kept_roots(tree: Node) -> list[Node]:
    """The roots that eval mode takes of running averages and of nothing else that depends on x."""

    def of_kept(node: Node) -> bool:
        if node[0] in ("kept", "mean", "sum", "map", "x"):
            return bool(node[0] == "kept")
        return all(of_kept(part) for part in node[1:] if isinstance(part, tuple))

    return _of(tree, lambda node: node[0] == "√" and bool(kept(node)) and of_kept(node))


def _of(tree: Node, fits: Callable[[Node], bool]) -> list[Node]:
    return list(dict.fromkeys(node for node in walk(tree) if fits(node)))


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
    return f"{node[0]}({', '.join(text(part, shown) for part in node[1:])})"
