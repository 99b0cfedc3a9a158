"""ARCHITECTURE.md is true: every subpackage is in its table and imports only what the table allows."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import bayesdistill

PACKAGE = Path(bayesdistill.__file__).parent
PAGE = Path(__file__).parents[1] / "ARCHITECTURE.md"
SAMPLERS = {"pymc", "nutpie", "pytensor", "numpyro", "jax"}
ANYWHERE = {"errors", "arguments", "files", "progress"}
MOST_POSITIONAL = 7
"""Arguments of a call without a name; a reader cannot tell more of them apart."""


def table() -> dict[str, set[str]]:
    """Subpackage or module -> what ARCHITECTURE.md allows it to import."""
    found = {}
    for names, _, allowed in re.findall(r"^\| (`.*?) \|(.*?)\| ?(.*?) ?\|$", PAGE.read_text(), re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            found[name] = {part.strip() for part in allowed.split(",") if part.strip()}
    return found


MAY_IMPORT = table()
EVERYTHING = {name for name, allowed in MAY_IMPORT.items() if allowed == {"everything"}}


def files() -> list[tuple[str, Path]]:
    """(layer, file) for every file of the package; a layer is a top-level module or a subpackage."""
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


def layers_of(path: Path) -> set[str]:
    """Layers that a file imports."""
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("bayesdistill.")}


def test_imports_are_found_anywhere_in_a_file():
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


def test_the_table_has_every_layer_and_no_other():
    assert set(MAY_IMPORT) == {layer for layer, _ in files()} - {"__init__"}


@pytest.mark.parametrize(
    ("layer", "path"), [(r, p) for r, p in files() if r != "__init__"], ids=lambda value: getattr(value, "name", value)
)
def test_a_layer_imports_only_what_it_may(layer, path):
    # The package itself, `import bayesdistill`, would reach every layer through its lazy names.
    assert "bayesdistill" not in imports_of(path) or layer in EVERYTHING
    if layer in EVERYTHING:
        return
    excess = layers_of(path) - {layer} - MAY_IMPORT[layer] - ANYWHERE
    assert not excess, f"{path.relative_to(PACKAGE)} imports {', '.join(sorted(excess))}"


def test_nothing_is_allowed_that_nobody_imports():
    used: dict[str, set[str]] = {}
    for layer, path in files():
        used.setdefault(layer, set()).update(layers_of(path))
    for layer in set(MAY_IMPORT) - EVERYTHING:
        assert MAY_IMPORT[layer] <= used[layer], f"{layer} does not import {MAY_IMPORT[layer] - used[layer]}"


def test_the_layers_have_no_cycles():
    assert set(TopologicalSorter({k: v - {"everything"} for k, v in MAY_IMPORT.items()}).static_order()) == set(
        MAY_IMPORT
    )
    layers: dict[str, set[str]] = {}
    for layer, path in files():
        layers.setdefault(layer, set()).update(layers_of(path) - {layer})
    TopologicalSorter(layers).prepare()


def test_files_of_a_subpackage_do_not_import_one_another_in_a_circle():
    for layer in {layer for layer, path in files() if path.parent != PACKAGE}:
        graph = {}
        for path in (PACKAGE / layer).glob("*.py"):
            if path.stem == "__init__":
                continue
            prefix = f"bayesdistill.{layer}."
            graph[path.stem] = {
                name.removeprefix(prefix).split(".")[0] for name in imports_of(path) if name.startswith(prefix)
            } - {path.stem}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            pytest.fail(f"{layer}: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    "layer", ["law", "compute", "posterior", "strategies", "decisions", "design", "plots", "tables"]
)
def test_only_model_compiler_and_sampling_import_the_sampler(layer):
    found = [path for name, path in files() if name == layer]
    assert found
    for path in found:
        assert not {name.split(".")[0] for name in imports_of(path)} & SAMPLERS, path.name
        assert not layers_of(path) & {"model", "sampling"}, path.name


def test_the_compiler_imports_errors_and_files_alone():
    for path in (PACKAGE / "compiler").glob("*.py"):
        assert layers_of(path) <= {"compiler", "errors", "files"}, path.name


def test_posterior_alone_knows_the_groups_of_a_fit():
    # `sampling` makes the groups, by the names that `posterior` gives; nobody else reads them but through it.
    for layer, path in files():
        if layer in ("posterior", "sampling", "criticism"):
            continue
        text = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not text & {"sample_stats", "observed_data", "constant_data", "log_likelihood"}, path.name


def test_no_module_hides_an_exported_function():
    # A module `loo` next to a function `loo` would replace it as soon as it is imported; a leading underscore prevents this.
    top = {path.stem for path in PACKAGE.glob("*.py")} | {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert not top & set(bayesdistill.__all__)
    for name, subpackage in bayesdistill._SUBPACKAGE_OF.items():
        assert not (PACKAGE / subpackage / f"{name}.py").exists(), f"{subpackage}/{name}.py"


def test_no_call_has_more_than_seven_positional_arguments():
    for _, path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                plain = [each for each in node.args if not isinstance(each, ast.Starred)]
                assert len(plain) <= MOST_POSITIONAL, (
                    f"{path.relative_to(PACKAGE)}:{node.lineno} {ast.unparse(node.func)}"
                )


def test_the_paths_of_the_page_exist_and_it_fits_on_a_screen():
    text = PAGE.read_text()
    for path in re.findall(r"`([\w/.-]+\.(?:py|md)|bayesdistill/[\w/]+/)`", text):
        assert (PAGE.parent / path).exists(), path
    assert len(text.splitlines()) < 75
