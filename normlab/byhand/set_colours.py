"""One colour a set: sixteen grounds for dark text.

They were found by a search: any two stay at least 14 CIELAB units apart in normal vision and under simulated
protanopia, deuteranopia and tritanopia (Machado et al. 2009, full severity), the first four at least 32, and dark text
(#222222) on each has a contrast of at least 4.7. In a grey print the letter of a set says what its colour does. More
than sixteen sets take the colours again; no letter comes twice.
"""

__all__ = ["SET_COLOURS", "set_colour"]

SET_COLOURS = [
    "#7B85DD", "#C57B3D", "#60FBD2", "#FEEA8B", "#CEA7DC", "#529D9E", "#BCCD88", "#A6F6FC",
    "#B98A62", "#87A088", "#AEACFC", "#5DCDBD", "#97CDA3", "#C7F7B8", "#E9AD5E", "#9783B8",
]  # fmt: skip


def set_colour(k: int) -> str:
    """The ground of set k, as #RRGGBB."""
    return SET_COLOURS[k % len(SET_COLOURS)]
