"""The command line: bad input ends with exit code 2, a message that names the problem, and earlier output untouched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

import bayesdistill as bd
from bayesdistill import cli


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command in this process."""
    monkeypatch.setattr(sys, "argv", ["bayesdistill", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    printed = capsys.readouterr()
    return int(stopped.value.code or 0), printed.out, printed.err


def spoiled(runs: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    """The runs with one cell of row 3 replaced."""
    table = runs.astype({column: object})
    table.loc[2, column] = value
    return table


def bad_tables(runs: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Name -> (text of the file, what the message must name)."""
    return {
        "empty": ("", "empty"),
        "wrong column": (runs.rename(columns={"student_loss": "loss_of_student"}).to_csv(index=False), "student_loss"),
        "NaN": (spoiled(runs, "teacher_loss", "").to_csv(index=False), "teacher_loss"),
        "negative": (spoiled(runs, "student_tokens", -1.0).to_csv(index=False), "student_tokens"),
        "string": (spoiled(runs, "student_params", "many").to_csv(index=False), "many"),
        "one row": (runs.head(1).to_csv(index=False), "one"),
        "constant column": (runs.assign(student_loss=2.5).to_csv(index=False), "student_loss"),
    }


@pytest.mark.parametrize("case", ["empty", "wrong column", "NaN", "negative", "string", "one row", "constant column"])
def test_bad_tables(
    case: str,
    runs354: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text, named = bad_tables(runs354)[case]
    table, earlier = tmp_path / "mine.csv", tmp_path / "fit.nc"
    table.write_text(text)
    earlier.write_bytes(b"an earlier result")
    code, out, err = run(monkeypatch, capsys, "fit", str(table), "-o", str(earlier))
    assert code == 2
    assert "mine.csv" in err
    assert named in err
    assert "Traceback" not in err + out
    assert earlier.read_bytes() == b"an earlier result"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fit.nc", "mine.csv"]


@pytest.mark.parametrize("case", ["corrupt", "foreign", "missing", "plan"])
def test_bad_files(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, earlier = tmp_path / "other.nc", tmp_path / "plan.nc"
    if case == "corrupt":
        path.write_bytes(b"\x89HDF\r\n\x1a\nnothing that follows is a file")
    elif case == "foreign":
        xr.Dataset({"a": ("x", [1.0])}).to_netcdf(path, engine="h5netcdf")
    elif case == "plan":
        bd.save(xr.Dataset({"a": ("x", [1.0])}), path)
    earlier.write_bytes(b"an earlier plan")
    code, out, err = run(
        monkeypatch, capsys, "plan", str(path), "--student", "1B", "--budgets", "1e20,1e21", "-o", str(earlier)
    )
    assert code == 2
    assert "other.nc" in err
    assert "Traceback" not in err + out
    assert earlier.read_bytes() == b"an earlier plan"


def test_a_process_of_its_own_shows_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bayesdistill.cli", "check", str(tmp_path / "nowhere.nc")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "nowhere.nc" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_and_plan_of_the_real_fit(
    fit354: xr.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, planned = tmp_path / "fit.nc", tmp_path / "plan.nc"
    bd.save(fit354, path)
    code, out, _ = run(monkeypatch, capsys, "check", str(path), "--json")
    assert code == 0
    assert json.loads(out)["divergences"] == 0
    arguments = ["--student", "1B", "--budgets", "1e20:1e21:2", "--scenario", "best case"]
    code, out, _ = run(monkeypatch, capsys, "plan", str(path), *arguments, "-o", str(planned), "--json")
    assert code == 0
    rows = json.loads(out)
    plan = bd.load(planned)
    assert [row["probability"] for row in rows] == pytest.approx(plan["probability"].values.ravel().tolist())


@pytest.mark.parametrize("text", ["1e19", "1e25:1e19:5", "1e19:1e25:1", "a:b:c", "1e19:1e25"])
def test_budgets_as_text(text: str) -> None:
    if text == "1e19":
        assert cli._budgets(text) == [1e19]
        return
    with pytest.raises(bd.ParameterError, match="budgets"):
        cli._budgets(text)
