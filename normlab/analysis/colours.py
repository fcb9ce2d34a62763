"""One colour and one marker for each norm, in every figure, table and page of the project: from the norm's own file.

The colours were chosen so that none, bn, ln, gn and in stay at least 27 CIELAB units apart in normal vision and under
simulated protanopia, deuteranopia and tritanopia (Machado et al. 2009, full severity), and any two norms at least 13
where they have one marker, 6 where the markers tell them apart; each has a contrast of at least 3.4 against white.
"""

import zlib

from normlab.norms import CATALOGUE

INK, QUIET, MUTED = "#222222", "#6B6B6B", "#EDEDED"  # text, lesser text, a ground that says nothing
FAINT, PAPER = "#DADADA", "#FFFFFF"  # hairlines, the page
ERRORS = ["#FFFFFF", "#FBE3CF", "#F2A766", "#CF5F1E", "#7F2A04"]  # sequential: no error to the largest share of errors
SIGNED = ["#0B3C7D", "#5E93C5", "#F7F7F7", "#D98A4E", "#8A3A00"]  # diverging: negative blue, positive orange

_SPARE = ["#5B6C8F", "#7A6A00", "#A3477A", "#2F7F86"]


def norm_colour(name: str) -> str:
    """Colour (``#RRGGBB``) of a norm; an unknown name gets one of four others, always the same."""
    if name == "custom":
        return "#9F8287"
    return CATALOGUE[name].colour if name in CATALOGUE else _SPARE[zlib.crc32(name.encode()) % len(_SPARE)]


def norm_marker(name: str) -> str:
    """Matplotlib marker of a norm; an unknown name gets a pentagon."""
    return "*" if name == "custom" else CATALOGUE[name].marker if name in CATALOGUE else "p"
