"""Run the notebooks from top to bottom and store their outputs.

`make notebooks` runs all of them in full; `make notebooks ARGS=serving` one.
"""

import argparse
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from tqdm import tqdm

from model.system import write_atomically

HERE = Path(__file__).parent
NAMES = ("mnist_nn", "numpy_mnist_bnn", "torch_mnist_bnn", "serving")
"""In reading order."""

_TIMEOUT_S = 900


def run(name: str, *, quick: bool = False) -> NotebookNode:
    """Run a notebook from top to bottom; nothing is written.

    Args:
        name: One of `NAMES`.
        quick: Whether on a small part of the data.

    Returns:
        The notebook with its outputs.

    Raises:
        CellExecutionError: If a cell raises an exception, an assertion on an accuracy included.
    """
    notebook = nbformat.read(HERE / f"{name}.ipynb", as_version=4)
    environment = {key: value for key, value in os.environ.items() if key != "QUICK"}
    with tqdm(total=len(notebook.cells), desc=name, unit="cell", disable=None) as bar:
        client = NotebookClient(
            notebook,
            timeout=_TIMEOUT_S,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(HERE)}},
            on_cell_complete=lambda **_: bar.update(),
        )
        client.execute(env=environment | ({"QUICK": "1"} if quick else {}))
    return notebook


def as_text(notebook: NotebookNode) -> str:
    """A notebook as text, without progress bars and version numbers of the machine."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [kept for output in cell.outputs if (kept := _without_bars(output))]
    notebook.metadata["language_info"] = {"name": "python"}
    text: str = nbformat.writes(notebook)
    return text + "\n"


def _without_bars(output: NotebookNode) -> NotebookNode | None:
    """An output without progress bars, be they lines or widgets."""
    if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
        return None
    if output.output_type == "stream" and output.name == "stderr":
        lines = re.split(r"[\r\n]+", output.text)
        kept = [line for line in lines if line.strip() and not re.search(r"\d+%\||it/s", line)]
        output.text = "".join(f"{line}\n" for line in kept)
        return output if kept else None
    return output


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m notebooks.refresh", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="use little data, and store nothing")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"no such notebook: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    for name in options.names or NAMES:
        start = time.monotonic()
        try:
            notebook = run(name, quick=options.quick)
        except CellExecutionError as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            return 1
        if not options.quick:
            write_atomically(HERE / f"{name}.ipynb", as_text(notebook).encode())
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
