"""Any options and any tables give a result or an error of the package with exit code 2."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bayesdistill as bd
from bayesdistill import cli
from bayesdistill.datasets.schemas import COLUMNS
from bayesdistill.errors import ModelError

COMMANDS = cli._commands()
PYTHON = re.compile(r"Traceback|\bbd\.|=True|=False|DataFrame|Dataset\b|pandas\.|numpy|NoneType|Errno")
"""What a message on the command line must not contain."""

numbers = st.one_of(
    st.floats().map(str),
    st.integers().map(str),
    st.sampled_from(["1B", "300M", "1e-300", "1e300", "-0", "2^3", "1,5", "1e9:2"]),
)
words = st.one_of(numbers, st.text(max_size=8).filter(lambda text: not re.search(rf"\0|^-|{PYTHON.pattern}", text)))


def run(arguments: list[str]) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["bayesdistill", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stopped,
    ):
        cli.main()
    return int(stopped.value.code or 0), out.getvalue(), err.getvalue()


def assert_explained(code: int, err: str) -> None:
    assert code in (0, 1, 2)
    assert not PYTHON.search(err), err
    assert len(err) < 2500
    if code == 2:
        assert err.strip()


@pytest.fixture(scope="module")
def question(published_draw: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return a valid call of each command that is fast."""
    folder = tmp_path_factory.mktemp("commands")
    fit = str(bd.save(xr.DataTree.from_dict({"posterior": published_draw}), folder / "fit.nc"))
    runs = folder / "runs.csv"
    pd.DataFrame({"params": [1e9], "tokens": [2e10]}).to_csv(runs, index=False)
    return {
        "fit": ["busbridge2025", "-o", str(folder / "new.nc")],
        "plan": [fit, "--student", "1B", "--budgets", "1e21", "--scenario", "best case", "--allow-unconverged"],
        "students": [fit, "--student", "1B,3B", "--budgets", "1e21", "--scenario", "best case", "--allow-unconverged"],
        "family": [fit, "--student", "1B", "--budget", "1e21", "--delta", "0:0", "--allow-unconverged"],
        "predict": [fit, str(runs), "--allow-unconverged"],
        "optimal": [fit, "--budgets", "1e21", "--allow-unconverged"],
        "check": [fit],
    }


@pytest.mark.parametrize(
    ("name", "option"),
    [
        pytest.param(name, max(p.opts, key=len), marks=[pytest.mark.slow] if name in ("students", "family") else [])
        for name in ("fit", "plan", "predict", "optimal", "students", "family", "check")
        for p in COMMANDS[name].params
        if p.opts[0].startswith("-") and not getattr(p, "is_flag", False) and "--output" not in p.opts
    ],
)
@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_of_any_option(name: str, option: str, question: dict[str, list[str]], data: st.DataObject) -> None:
    value = data.draw(words)
    # Compilation and sampling take seconds, and are not tested here.
    with mock.patch("bayesdistill.sampling._fit.compiler.compile", side_effect=ModelError("There was no sampling.")):
        code, _, err = run([name, *question[name], option, value])
    assert_explained(code, err)
    assert code != 1 or name == "check"  # a check that failed


columns = st.sampled_from([*COLUMNS, "teacher", "N", "D"])
cells = st.one_of(numbers, st.sampled_from(["", "nan", "1,5", "x", "=1+1", "'"]), st.floats(0.5, 1e12).map(str))


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """Draw a CSV file, or bytes that are none."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    names = draw(st.lists(columns, min_size=1, max_size=8))
    separator = draw(st.sampled_from(",,,,;\t"))
    rows = draw(st.lists(st.lists(cells, min_size=len(names), max_size=len(names)), max_size=6))
    return "\n".join(separator.join(row) for row in [names, *rows]).encode()


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=tables(), supervised=st.booleans())
def test_any_table(content: bytes, supervised: bool, tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    source: list[Any] = ["--supervised", str(path)] if supervised else [str(path)]
    with mock.patch("bayesdistill.sampling._fit.compiler.compile", side_effect=ModelError("There was no sampling.")):
        code, _, err = run(["fit", *source, "-o", str(tmp_path / "fit.nc")])
    assert code == 2
    assert_explained(code, err)
