"""Notebooks: stored with outputs that read on a web page, in the package's public names, and quick to run."""

from __future__ import annotations

import ast
import re
import time
from pathlib import Path
from typing import Any

import pytest

import bayesdistill

nbformat = pytest.importorskip("nbformat")

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:work|tmp|root|home)\b")
TIMEOUT = 240
MOST_SECONDS = 120

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in code(notebook) for output in cell.outputs]


def texts(notebook: Any) -> list[str]:
    """All texts of the outputs; pictures are left out."""
    found = []
    for output in outputs(notebook):
        if output.output_type == "stream":
            found.append(output.text)
        else:
            found += [str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
    return found


def public_names(source: str) -> set[str]:
    """Attributes of `bd` that a cell uses."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "bd"}


def imports(source: str) -> set[str]:
    """Modules of this package that a cell imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(f"{node.module}.*")
    return {name for name in found if name.split(".")[0] == "bayesdistill"}


def test_there_are_notebooks():
    assert NOTEBOOKS


@each
def test_valid(path):
    nbformat.validate(read(path))


@each
def test_stored_with_outputs_in_order(path):
    notebook = read(path)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert len(outputs(notebook)) >= len(cells) / 2
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))


@each
def test_no_errors_and_no_warnings(path):
    for output in outputs(read(path)):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text


@each
def test_no_absolute_paths(path):
    for text in texts(read(path)):
        assert not ABSOLUTE.search(text), text


@pytest.mark.parametrize(("text", "found"), [("see /work/x.py", True), ("'/tmp/a'", True), ("nats/work", False)])
def test_absolute_paths_are_found(text, found):
    assert bool(ABSOLUTE.search(text)) == found


@each
def test_only_public_names(path):
    notebook = read(path)
    used = set().union(*(public_names(cell.source) for cell in code(notebook)))
    assert used
    assert used <= set(bayesdistill.__all__)
    assert set().union(*(imports(cell.source) for cell in code(notebook))) == {"bayesdistill"}


@pytest.mark.slow
@each
def test_runs_top_to_bottom(path, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    notebook = read(path)
    began = time.perf_counter()
    nbclient.NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    seconds = time.perf_counter() - began
    assert seconds < MOST_SECONDS, f"{path.name} took {seconds:.0f} s of wall time, more than {MOST_SECONDS} s"
