"""Each room imports only what the plan of the house allows, function-local imports included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import bayesdistill

PACKAGE = Path(bayesdistill.__file__).parent
ANYWHERE = {"errors", "files"}
DECISIONS = {"strategies", "laws", "compute", "posterior"}
SAMPLING = {"model", "datasets", "priors", "posterior", "laws"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "laws": set(),
    "compute": set(),
    "posterior": {"laws"},
    "datasets": {"laws"},
    "priors": {"laws"},
    "model": {"laws", "datasets", "priors"},
    "sampling": SAMPLING,
    "criticism": SAMPLING | {"sampling"},
    "strategies": {"laws", "compute"},
    "decisions": DECISIONS,
    "design": DECISIONS | {"decisions"},
    "plots": {"posterior"},
    "tables": {"posterior", "plots"},
    "report": {"posterior", "plots", "tables"},
}
EVERYTHING = {"cli", "demo", "__init__"}
SAMPLERS = {"pymc", "nutpie", "pytensor"}


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files() -> list[tuple[str, Path]]:
    """(room, file) for every file of the package."""
    return [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in sorted(PACKAGE.rglob("*.py"))]


@pytest.mark.parametrize(("room", "path"), files(), ids=lambda value: getattr(value, "name", value))
def test_a_room_imports_only_what_it_may(room: str, path: Path) -> None:
    if room in EVERYTHING:
        return
    assert room in MAY_IMPORT, f"{room} is no room of the plan"
    used = {
        name.split(".")[1] for name in imports(path) if name.startswith("bayesdistill.") and name.split(".")[1] != room
    }
    assert used <= MAY_IMPORT[room] | ANYWHERE, f"{path.name} imports {used - MAY_IMPORT[room] - ANYWHERE}"


@pytest.mark.parametrize("room", ["strategies", "decisions", "design", "plots", "tables", "posterior"])
def test_nothing_but_model_and_sampling_knows_the_sampler(room: str) -> None:
    for name, path in files():
        if name == room:
            assert not {found.split(".")[0] for found in imports(path)} & SAMPLERS, path.name


def test_no_module_bears_the_name_of_an_exported_function() -> None:
    modules = {path.stem for _, path in files()}
    assert not modules & set(bayesdistill.__all__)
