"""What is written in a figure, and where: for tests of figures."""

from itertools import combinations
from unittest.mock import patch

from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

SLACK = 2.0  # pixels: boxes are taller than letters


def lines_of_text(fig: Figure) -> list[tuple[str, Bbox, float]]:
    """Every line of text that is drawn, with its box in pixels from the upper left corner and its angle."""
    found = []
    draw = RendererAgg.draw_text

    def recorded(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):  # type: ignore[no-untyped-def]
        width, height, descent = self.get_text_width_height_descent(s, prop, ismath)
        box = (x, y - height + descent, x + width, y + descent)
        if angle == 90:
            box = (x - height + descent, y - width, x + descent, y)
        found.append((s, Bbox.from_extents(*box), angle))
        draw(self, gc, x, y, s, prop, angle, ismath, mtext)

    with patch.object(RendererAgg, "draw_text", recorded):
        FigureCanvasAgg(fig).draw()
    return found


def words(fig: Figure) -> str:
    """All that is written in a figure, line by line."""
    return "\n".join(text for text, _, _ in lines_of_text(fig))


def check_text(fig: Figure) -> None:
    """Nothing that is written is cut off, and no two lines overlap."""
    lines = [line for line in lines_of_text(fig) if line[0].strip()]
    for text, box, angle in lines:
        if angle in (0, 90):
            assert min(box.x0, box.y0) >= -SLACK, text
            assert box.x1 <= fig.bbox.width + SLACK, text
            assert box.y1 <= fig.bbox.height + SLACK, text
    for (one, a, turn), (other, b, angle) in combinations(lines, 2):
        if {turn, angle} <= {0, 90}:  # the boxes of slanted names say little
            wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert min(wide, high) <= SLACK, (one, other)
