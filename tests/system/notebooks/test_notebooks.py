"""Notebooks: run on little data here, kept with the outputs of a full run."""

import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from notebooks import refresh
from tests.support.paths import ROOT

FOLDER = ROOT / "notebooks"
TRAINING = (ROOT / "docs" / "training.md").read_text()
MAX_BYTES = 2**20


def kept(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def small_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST if it is there; else scikit-learn's digits, without a download."""
    root = Path(os.environ.get("MNN_DATA_DIR") or ROOT / "data")
    if not list((root / "MNIST" / "raw").glob("t10k-images-idx3-ubyte*")):
        root = tmp_path / "no folder"
        root.touch()
    monkeypatch.setenv("MNN_DATA_DIR", str(root.absolute()))


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("name", refresh.NAMES)
def test_a_notebook_runs_from_top_to_bottom_and_reaches_its_floors(name: str) -> None:
    before = (FOLDER / f"{name}.ipynb").read_bytes()
    notebook = refresh.run(name, quick=True)  # an assertion that fails in it fails here
    assert all(cell.execution_count for cell in code_cells(notebook))
    assert (FOLDER / f"{name}.ipynb").read_bytes() == before


def test_all_notebooks_are_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(refresh.NAMES)


@pytest.mark.parametrize("name", refresh.NAMES)
def test_a_notebook_is_kept_with_the_outputs_of_a_full_run(name: str) -> None:
    notebook = kept(name)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    size = (FOLDER / f"{name}.ipynb").stat().st_size
    assert size <= MAX_BYTES, f"{size:,} bytes"
    text = "".join(cell.source for cell in notebook.cells) + json.dumps(
        [output.get("text", "") for output in outputs]
    )
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)


@pytest.mark.parametrize(
    ("name", "floors"),
    [
        ("mnist_nn", {"FLOOR": 0.975}),
        ("numpy_mnist_bnn", {"FLOOR": 0.978}),
        ("torch_mnist_bnn", {"FLOOR": 0.983, "CONV_FLOOR": 0.99}),
    ],
)
def test_the_floors_are_those_that_are_claimed(name: str, floors: dict[str, float]) -> None:
    source = "\n".join(cell.source for cell in code_cells(kept(name)))
    for floor, least in floors.items():
        (found,) = re.findall(rf"^{floor} = .* else ([\d.]+)$", source, re.MULTILINE)
        assert float(found) >= least
        assert re.search(rf"^assert \w*accuracy >= {floor},", source, re.MULTILINE)


@pytest.mark.parametrize("name", refresh.NAMES)
def test_the_table_of_notebooks_has_their_results(name: str) -> None:
    (row,) = re.findall(rf"^\|.*\(\.\./notebooks/{name}\.ipynb\).*$", TRAINING, re.MULTILINE)
    printed = "".join(
        output.text
        for cell in code_cells(kept(name))
        for output in cell.outputs
        if output.output_type == "stream"
    )
    assert "10,000" in printed  # a full run on MNIST
    figures = re.findall(r"(\d+\.\d\d) %", row)
    assert figures
    assert ("none of them wrong" in row) == (", 0 of them wrong" in printed)
    for figure in figures:
        assert f"{figure}%" in printed


@pytest.mark.parametrize("name", refresh.NAMES)
def test_links_of_a_notebook_lead_somewhere(name: str) -> None:
    prose = "\n".join(cell.source for cell in kept(name).cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)#\s]+)\)", prose)
    assert targets
    for target in targets:
        assert (FOLDER / target).exists(), target


@pytest.mark.parametrize("name", ["mnist_nn", "numpy_mnist_bnn"])
def test_the_numpy_notebooks_compute_without_torch(name: str) -> None:
    for cell in code_cells(kept(name)):
        assert not re.search(r"^\s*(import|from) torch", cell.source, re.MULTILINE)


def test_a_floor_that_is_missed_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = new_notebook(cells=[new_code_cell("accuracy = 0.9"), new_code_cell(ASSERTION)])
    nbformat.write(notebook, tmp_path / "low.ipynb")
    monkeypatch.setattr(refresh, "HERE", tmp_path)
    with pytest.raises(CellExecutionError, match="is below"):
        refresh.run("low")


ASSERTION = 'assert accuracy >= 0.975, f"{accuracy:.2%} is below 97.5 %"'


def test_progress_bars_are_not_kept() -> None:
    cell = new_code_cell("work()")
    cell.outputs = [
        new_output("stream", name="stderr", text="\rfit:  50%|█████     | 1/2"),
        new_output("stream", name="stderr", text="\rfit: 100%|██| 2/2\nUserWarning: and this\n"),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}}),
        new_output("stream", name="stderr", text="UserWarning: mind this"),
        new_output("stream", name="stdout", text="accuracy 98.1 %"),
    ]
    again = nbformat.reads(refresh.as_text(new_notebook(cells=[cell])), as_version=4)
    assert [output.text for output in again.cells[0].outputs] == [
        "UserWarning: and this\n",
        "UserWarning: mind this\n",
        "accuracy 98.1 %",
    ]
