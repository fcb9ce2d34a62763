"""One colour per set: sixteen calm grounds for dark text.

They were found by a search for little chroma: any two stay at least 14 CIELAB units apart in normal vision and under
simulated protanopia, deuteranopia and tritanopia (Machado et al. 2009, full severity), the first four at least 32, and
dark text (#222222) on each has a contrast of at least 4.7. In a grey print the letter of a set says what its colour
does. More than sixteen sets take the colours again; no letter comes twice.
"""

__all__ = ["SET_COLOURS", "set_colour"]

SET_COLOURS = [
    "#6891D9", "#FAFAC3", "#A28B4A", "#AEFCFF", "#ACB1C9", "#D6CBD0", "#E999A3", "#DAFFE4",
    "#81AF75", "#839279", "#7CE0FA", "#6EB7E5", "#BD7E9C", "#A083B7", "#F1BDA1", "#CDBB6F",
]  # fmt: skip


def set_colour(k: int) -> str:
    """The ground of set k, as #RRGGBB."""
    return SET_COLOURS[k % len(SET_COLOURS)]
