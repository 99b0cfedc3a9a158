"""Each room imports only what the plan of the house allows, function-local imports included."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import bayesdistill

PACKAGE = Path(bayesdistill.__file__).parent

# Room -> rooms that it may import. Three rooms may be imported by all: `errors`, `files` and `progress`.
ANYWHERE = {"errors", "files", "progress"}
SAMPLING = {"model", "datasets", "priors", "posterior", "law"}
DECISIONS = {"strategies", "law", "compute", "posterior", "answers"}
MAY_IMPORT: dict[str, set[str]] = {
    "compiler": set(),  # errors and files only, see below
    "errors": set(),
    "files": set(),
    "progress": set(),
    "law": set(),
    "compute": set(),
    "posterior": {"law"},
    "datasets": {"law"},
    "priors": {"law"},
    "model": {"law", "datasets", "priors"},
    "sampling": SAMPLING | {"answers", "compiler"},
    "criticism": SAMPLING | {"sampling", "compiler", "compute"},
    "strategies": {"law", "compute"},
    "answers": set(),  # `tables` registers with it
    "decisions": DECISIONS | {"datasets"},
    "design": DECISIONS | {"decisions"},
    "plots": {"posterior"},
    "tables": {"answers", "posterior", "plots"},
    "interactive": {"law", "compute", "decisions", "posterior"},
    "reporting": {"law", "posterior", "plots", "tables", "criticism"},
}
EVERYTHING = {"cli", "demo"}
SAMPLERS = {"pymc", "nutpie", "pytensor", "numpyro", "jax"}


def files() -> list[tuple[str, Path]]:
    """(room, file) for every file of the package; a room is a file or a folder."""
    return [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in sorted(PACKAGE.rglob("*.py"))]


def imports(source: str, inside: str = "") -> set[str]:
    """Dotted names that a source text imports, anywhere in it; relative ones resolved within the package `inside`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = inside.split(".")[: len(inside.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            found.add(str(node.args[0].value))
    return found


def imports_of(path: Path) -> set[str]:
    inside = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
    return imports(path.read_text(encoding="utf-8"), inside)


def rooms_of(path: Path) -> set[str]:
    """Rooms that a file imports."""
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("bayesdistill.")}


def test_imports_are_found_wherever_they_stand():
    source = """
import numpy as np
from bayesdistill import posterior
def f():
    from bayesdistill.law import exp as e
    import bayesdistill.compute
    class A:
        from ..decisions import plan
    from . import sibling
    importlib.import_module("pymc")
"""
    assert imports(source, "bayesdistill.plots") == {
        "numpy",
        "bayesdistill.posterior",
        "bayesdistill.law.exp",
        "bayesdistill.compute",
        "bayesdistill.decisions.plan",
        "bayesdistill.plots.sibling",
        "pymc",
    }


@pytest.mark.parametrize(
    ("room", "path"), [(r, p) for r, p in files() if r != "__init__"], ids=lambda value: getattr(value, "name", value)
)
def test_a_room_imports_only_what_it_may(room, path):
    # The package itself, `import bayesdistill`, would reach every room through its lazy names.
    assert "bayesdistill" not in imports_of(path) or room in EVERYTHING
    if room in EVERYTHING:
        return
    assert room in MAY_IMPORT, f"{room} is no room of the plan"
    excess = rooms_of(path) - {room} - MAY_IMPORT[room] - ANYWHERE
    assert not excess, f"{path.relative_to(PACKAGE)} imports {', '.join(sorted(excess))}"


def test_the_plan_has_no_cycles():
    assert set(TopologicalSorter(MAY_IMPORT).static_order()) == set(MAY_IMPORT)
    rooms: dict[str, set[str]] = {}
    for room, path in files():
        rooms.setdefault(room, set()).update(rooms_of(path) - {room})
    TopologicalSorter(rooms).prepare()


def test_files_within_a_room_do_not_import_one_another_in_a_circle():
    for room in {room for room, path in files() if path.parent != PACKAGE}:
        graph = {}
        for path in (PACKAGE / room).glob("*.py"):
            if path.stem == "__init__":
                continue
            prefix = f"bayesdistill.{room}."
            graph[path.stem] = {
                name.removeprefix(prefix).split(".")[0] for name in imports_of(path) if name.startswith(prefix)
            } - {path.stem}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            pytest.fail(f"{room}: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    "room", ["law", "compute", "posterior", "strategies", "decisions", "design", "plots", "tables"]
)
def test_nothing_but_model_and_sampling_knows_the_sampler(room):
    found = [path for name, path in files() if name == room]
    assert found
    for path in found:
        assert not {name.split(".")[0] for name in imports_of(path)} & SAMPLERS, path.name
        assert not rooms_of(path) & {"model", "sampling"}, path.name


def test_the_compiler_does_not_depend_on_the_models_it_compiles():
    for path in (PACKAGE / "compiler").rglob("*.py"):
        assert rooms_of(path) <= {"compiler", "errors", "files"}, path.name


def test_posterior_alone_knows_the_groups_of_a_fit():
    # `sampling` makes the groups, by the names that `posterior` gives; nobody else reads them but through it.
    for room, path in files():
        if room in ("posterior", "sampling", "criticism"):
            continue
        text = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not text & {"sample_stats", "observed_data", "constant_data", "log_likelihood"}, path.name


def test_no_module_hides_an_exported_function():
    # A module `loo` next to a function `loo` would replace it as soon as it is imported; a leading underscore prevents this.
    top = {path.stem for path in PACKAGE.glob("*.py")} | {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert not top & set(bayesdistill.__all__)
    for name, subpackage in bayesdistill._ROOM_OF.items():
        assert not (PACKAGE / subpackage / f"{name}.py").exists(), f"{subpackage}/{name}.py"
