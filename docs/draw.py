"""Draws the pictures of the README, as PNG and SVG beside this file.

python docs/draw.py axes
python docs/draw.py poster lightning_logs/replication
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from normlab.analysis.pictures import Picture, save

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", choices=["axes"])
    parser.add_argument("--out", type=Path, default=HERE, help="where to; beside this file by default")
    given = parser.parse_args()
    save(Picture(given.picture, "", "", axes_figure(), given.picture), given.out)


def axes_figure() -> Figure:
    from normlab.analysis.axes_picture import SHARING, axes
    from normlab.nets import NORMS

    return axes([name for name in NORMS if name in SHARING])


if __name__ == "__main__":
    main()
