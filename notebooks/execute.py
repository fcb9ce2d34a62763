"""Runs the notebooks and keeps their outputs small and the same from one time to the next.

    python notebooks/execute.py            all of them
    python notebooks/execute.py 02         those whose name starts so
    python notebooks/execute.py --page     each as an HTML page beside it, too (needs nbconvert)

Needs the extra [notebooks]. Each notebook runs in the folder that it lies in. What changes from time to time without
meaning anything is left out of the file: times of execution, versions of the kernel, numbers of objects in memory.
Pictures are stored with a palette of 256 colours: figures lose nothing that one sees, and take a third of the room.
"""

import argparse
import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).resolve().parent
TIMEOUT = 600  # seconds a cell
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def execute(notebook: Any, folder: Path, timeout: int = TIMEOUT) -> Any:
    """Runs a notebook in `folder`; raises `nbclient.exceptions.CellExecutionError` where a cell does."""
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources=place).execute()
    return notebook


def tidy(notebook: Any) -> Any:
    """Leaves out what differs from one time to the next, and makes pictures small."""
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
        if "outputs" in cell:
            cell.outputs = joined(cell.outputs)
        for output in cell.get("outputs", []):
            output.pop("transient", None)
            if "metadata" in output:
                output.metadata = {}
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = smaller(data["image/png"])
                data["text/plain"] = "a figure"  # else the object's size in points, of no use to a reader
            if "text/html" in data and "Styler" in data.get("text/plain", ""):
                data["text/plain"] = "a table"  # else an address in memory
                data["text/html"] = re.sub(r"\bT_[0-9a-f]{5}", f"T_{cell.id}", data["text/html"])  # drawn at random
    return notebook


def joined(outputs: list[Any]) -> list[Any]:
    """Outputs with the pieces of one stream put together, however the kernel happened to cut them."""
    found: list[Any] = []
    for output in outputs:
        last = found[-1] if found else None
        if last and output.output_type == "stream" and (last.output_type, last.get("name")) == ("stream", output.name):
            last.text += output.text
        else:
            found.append(output)
    return found


def smaller(png: str) -> str:
    """A picture in base64 with at most 256 colours."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    stream = io.BytesIO()
    picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    found = base64.b64encode(stream.getvalue()).decode()
    return min(png, found, key=len)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", nargs="*", default=[""], help="the first letters of the notebooks to run")
    parser.add_argument("--page", action="store_true", help="an HTML page of each, too")
    given = parser.parse_args(arguments)
    for file in sorted(HERE.glob("*.ipynb")):
        if not file.name.startswith(tuple(given.start)):
            continue
        for left in ("my_norm.py",):  # written by notebook 03: "Writing", not "Overwriting"
            (HERE / left).unlink(missing_ok=True)
        notebook = tidy(execute(nbformat.read(file, as_version=4), HERE))
        nbformat.write(notebook, file)
        print(f"{file.name}: {file.stat().st_size / 1000:.0f} kB")
        if given.page:
            from nbconvert import HTMLExporter

            file.with_suffix(".html").write_text(HTMLExporter().from_notebook_node(notebook)[0], encoding="utf-8")


if __name__ == "__main__":
    main()
