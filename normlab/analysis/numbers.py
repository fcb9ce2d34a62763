"""Numbers as people read them, in tables, figures and sentences: a true minus sign, a dash where there is none."""

import math
import re
from collections.abc import Iterable

NONE = "–"
KEPT = ".10g"  # digits in a CSV file


def number(value: object, digits: int) -> str:
    """A number with so many decimals, 0.0 without a sign; a dash for what is none, or is not finite."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return NONE
    return f"{_as_kept(value):z,.{digits}f}".replace("-", "−")


def signed(value: float, form: str = ".2f") -> str:
    """+0.12, −1.50, and 0.00 without a sign. form: as in a format string."""
    if not math.isfinite(value):
        return NONE
    text = f"{_as_kept(value):+{form}}".replace("-", "−")
    return text if re.search("[1-9]", text) else text[1:]


def _as_kept(value: float) -> float:
    """A number as a CSV file has it, in ten digits: what lies between two decimals is then rounded alike everywhere."""
    return float(f"{value:{KEPT}}")


def with_interval(numbers: Iterable[float], digits: int = 2, unit: str = "") -> str:
    """A number and the ends of its interval: +0.12 pp (+0.05 to +0.19); without the interval where there is none."""
    middle, *ends = (signed(each, f".{digits}f") for each in numbers)
    if middle == NONE:
        return NONE
    return f"{middle} {unit}".rstrip() + ("" if NONE in ends else f" ({ends[0]} to {ends[1]})")


def p_word(p: float) -> str:
    """A p-value, with three decimals."""
    if not math.isfinite(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def percent(share: float) -> str:
    """A share of 1 in whole per cent: 0 % is nothing and 100 % all."""
    if not math.isfinite(share):
        return NONE
    return "< 1 %" if 0 < share < 0.005 else "> 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"
