"""The command line: bad input ends with exit code 2, a message that names the problem, and earlier output untouched."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
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


SUPERVISED = Path(__file__).parents[1] / "data" / "tiny" / "supervised.csv"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command as a function of its arguments."""
    return lambda *arguments: run(monkeypatch, capsys, *map(str, arguments))


@pytest.fixture
def unconverged(jittered_draws: xr.Dataset, tmp_path: Path) -> Path:
    """A file with a fit whose chains disagree and which met three divergences."""
    draws = jittered_draws.assign(c0=jittered_draws["c0"] + 0.3 * jittered_draws["chain"])
    diverging = np.zeros((4, 250), dtype=bool)
    diverging[1, :3] = True
    stats = xr.Dataset({"diverging": (("chain", "draw"), diverging)})
    return bd.save(xr.DataTree.from_dict({"posterior": draws, "sample_stats": stats}), tmp_path / "unconverged.nc")


def spoiled(runs: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    """The runs with one cell of row 3 replaced."""
    table = runs.astype({column: object})
    table.loc[2, column] = value
    return table


def bad_tables(runs: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Name -> (text of the file, what the message must name)."""
    return {
        "empty": ("", "empty"),
        "header alone": (runs.head(0).to_csv(index=False), "no runs"),
        "wrong column": (runs.rename(columns={"student_loss": "loss_of_student"}).to_csv(index=False), "student_loss"),
        "NaN": (spoiled(runs, "teacher_loss", "").to_csv(index=False), "teacher_loss"),
        "infinite": (spoiled(runs, "student_loss", "inf").to_csv(index=False), "student_loss"),
        "negative": (spoiled(runs, "student_tokens", -1.0).to_csv(index=False), "student_tokens"),
        "string": (spoiled(runs, "student_params", "many").to_csv(index=False), "many"),
        "one row": (runs.head(1).to_csv(index=False), "one"),
        "constant column": (runs.assign(student_loss=2.5).to_csv(index=False), "student_loss"),
        "millions": (runs.assign(student_params=runs["student_params"] / 1e6).to_csv(index=False), "student_params"),
        "binary": ("\0\0\0", "binary"),
    }


CASES = ["empty", "header alone", "wrong column", "NaN", "infinite", "negative", "string", "one row", "constant column"]


@pytest.mark.parametrize("case", [*CASES, "millions", "binary"])
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit"], "Pass distilled runs, supervised runs, or both"),
        (["fit", "busbridge"], "There is no packaged data set 'busbridge'"),
        (["fit", "nowhere.csv"], "nowhere.csv does not exist"),
        (["fit", "./runs"], "./runs does not exist"),
        (["fit", __file__], "test_cli.py must have one of the endings .csv"),
        (["fit", "/"], "/ is a folder"),
        (["fit", "busbridge2025", "-o", "fit.csv"], "--output: fit.csv has the ending of a table"),
        (["check", "fit.csv"], "bayesdistill fit RUNS -o fit.nc"),
        (["fit", str(SUPERVISED)], "not of the requested distilled runs. Pass it with --supervised."),
        (["fit", "busbridge2025", "--law", "eq9"], "There is no law 'eq9'. Choose from"),
        (["fit", "runs.xlsx"], "runs.xlsx does not exist"),
        (["fit", "busbridge2025", "--draws", "2"], "--draws must be an integer from 4 to 1e+06, got 2"),
        (["fit", "busbridge2025", "--chains", "0"], "--chains must be an integer from 1 to 1000, got 0"),
        (
            ["fit", "busbridge2025", "--target-accept", "1"],
            "--target-accept must be a number from 0.1 to 0.9999, got 1.0",
        ),
        (["fit", "busbridge2025", "--gamma", "1"], "fixes gamma, which requires supervised runs"),
        (["fit", "busbridge2025", "--prior", "nowhere.nc"], "The file nowhere.nc does not exist"),
        (["fit", "busbridge2025", "-o", "nowhere/fit.nc"], "the folder nowhere does not exist"),
        (["fit", "busbridge2025", "-o", "."], "it is a folder"),
        (["check", "nowhere.nc"], "The file nowhere.nc does not exist"),
    ],
)
def test_bad_arguments(
    arguments: list[str], said: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*arguments)
    assert code == 2
    assert said in err
    assert err.startswith("bayesdistill: ")
    assert f"bayesdistill {arguments[0]} --help" in err
    assert "Traceback" not in err + out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--student", "huge", "--budgets", "1e20"], "'huge' in --student"),
        (["--student", "7", "--budgets", "1e20"], "got 7. If this is in millions"),
        (["--student", "1B", "--budgets", "1e20:nan:3"], "'nan' in --budgets"),
        (["--student", "1B", "--budgets", "1e20:1e21:10000000"], "a count from 2 to 9999"),
        (["--student", "1B", "--budgets", "1e20:1e21:²"], "a count from 2 to 9999"),
        (["--student", "1B", "--budgets", "1e20", "--scenario", "free"], "Unknown scenario 'free'"),
        (
            ["--student", "1B", "--budgets", "1e20", "--delta", "1"],
            "--delta must be two fractions such as 1:0.1 or 1:1/8, got '1'",
        ),
        (
            ["--student", "1B", "--budgets", "1e20", "--delta", "1:2"],
            "The fractions of --delta must be from 0 to 1, such as 1:1/8, got '1:2'",
        ),
        (
            ["--student", "1B", "--budgets", "1e20", "--noise", "white"],
            "--noise must be 'law', 'expected' or 'run', got 'white'",
        ),
        (["--student", "1B", "--budgets", "1e20", "--max-teacher-params", "-1"], "'-1' in --max-teacher-params"),
        (["--student", "1B,huge", "--budgets", "1e20"], "'huge' in --student"),
        (["--student", "1B,1B", "--budgets", "1e20"], "--student contains 1e+09 more than once"),
        (["--student", "1B", "--budgets", "1e20", "--teachers", "nowhere.csv"], "nowhere.csv does not exist"),
    ],
)
def test_bad_questions(
    options: list[str], said: str, command: Command, published_draw: xr.Dataset, tmp_path: Path
) -> None:
    tree = xr.DataTree.from_dict({"posterior": published_draw})
    path = bd.save(tree, tmp_path / "fit.nc")
    code, out, err = command("plan", path, *options, "-o", tmp_path / "plan.nc", "--allow-unconverged")
    assert code == 2
    assert said in err
    assert "Traceback" not in err + out
    assert not (tmp_path / "plan.nc").exists()


def test_teachers_of_a_file_and_several_students(command: Command, published_draw: xr.Dataset, tmp_path: Path) -> None:
    path = bd.save(xr.DataTree.from_dict({"posterior": published_draw}), tmp_path / "fit.nc")
    teachers = pd.DataFrame({"name": ["mine", "large"], "params": [8e9, 7e10], "loss": [2.05, 1.95]})
    teachers.to_csv(tmp_path / "mine.csv", index=False)
    question = [
        "plan",
        path,
        "--student",
        "500M,1B",
        "--student",
        "3B",
        "--budgets",
        "1e20,3e21",
        "--allow-unconverged",
    ]
    question += ["--teachers", tmp_path / "mine.csv"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, out, err = command(*question, "--losses", "-o", tmp_path / "plan.nc")
        _, printed, _ = command(*question, "--scenario", "best case", "--json")
    assert code == 0, err
    assert max(map(len, out.split("Level")[0].splitlines())) <= 80
    assert {"distilled", "pretrained", "pretraining", "inference's"} <= set(out.split())
    assert "Note: Left out: 'teacher pretraining' and 'teacher pretraining + inference'" in out
    plan = bd.load(tmp_path / "plan.nc")
    assert plan["student"].values.tolist() == [5e8, 1e9, 3e9]
    assert plan["teacher"].values.tolist() == ["mine", "large"]
    row = json.loads(printed)[0]
    assert row["distilled_loss_median"] == pytest.approx(plan["distilled_loss_quantile"].values[0, 0, 0, 2], rel=1e-5)
    assert row["pretraining_tokens"] == pytest.approx(plan["pretraining_tokens"].values[0, 0], rel=1e-5)
    code, _, err = command(*question, "--scenario", "teacher pretraining")
    assert code == 2
    assert "--teachers has no column 'tokens'" in err


@pytest.mark.slow
def test_students_and_families(command: Command, published_draw: xr.Dataset, tmp_path: Path) -> None:
    path = bd.save(xr.DataTree.from_dict({"posterior": published_draw}), tmp_path / "fit.nc")
    teachers = pd.DataFrame({"name": ["mine", "large"], "params": [8e9, 7e10], "loss": [2.05, 1.95]})
    teachers.to_csv(tmp_path / "mine.csv", index=False)
    question = [
        "plan",
        path,
        "--student",
        "500M,1B",
        "--student",
        "3B",
        "--budgets",
        "1e20,3e21",
        "--allow-unconverged",
    ]
    question += ["--teachers", tmp_path / "mine.csv"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, out, err = command("students", *question[1:], "--scenario", "best case", "-o", tmp_path / "students.nc")
    assert code == 0, err
    assert max(map(len, out.split("With")[0].splitlines())) <= 80
    ranked = bd.load(tmp_path / "students.nc")
    assert all(sentence in out for sentence in ranked["sentence"].values.ravel())
    assert ranked["student"].values.tolist() == [5e8, 1e9, 3e9]
    code, _, err = command("family", path, "--student", "500M,1B", "--budget", "1e6", "--allow-unconverged")
    assert code == 2
    assert "--budget is too small for the family" in err
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, out, err = command(
            "family", path, "--student", "500M,1B", "--budget", "1e21", "--counts", "2,1", "--delta", "0:0",
            "--teachers", tmp_path / "mine.csv", "--add", "300M,3B", "--allow-unconverged", "-o", tmp_path / "family.nc",
        )  # fmt: skip
    assert code == 0, err
    assert max(map(len, out.split("With")[0].splitlines())) <= 80
    family = bd.load(tmp_path / "family.nc")
    assert family["count"].values.tolist() == [2, 1]
    assert family.attrs["sentence"] in out
    for size in ("300M", "3B"):
        assert f"One more student of {size} on " in out
    code, _, err = command(
        "family", path, "--student", "1B", "--budget", "1e21", "--add", "3B,3B", "--allow-unconverged"
    )
    assert code == 2
    assert "--add contains 3e+09 more than once" in err


@pytest.fixture(scope="module")
def noisy(jittered_draws: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A fit and a plan of it, as files."""
    folder = tmp_path_factory.mktemp("noisy")
    fit = jittered_draws.isel(draw=slice(0, 50))
    tree = xr.DataTree.from_dict({"posterior": fit})
    path = bd.save(tree, folder / "fit.nc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bd.ConvergenceWarning)
        plan = bd.plan(tree, "1B", [1e21, 1e23], "best case", draws=20, allow_unconverged=True, progress=False)
    return path, bd.save(plan, folder / "plan.nc")


MONEY = ["--gpu-flops", "4e14", "--gpu-price", "2", "--allow-unconverged"]


@pytest.mark.filterwarnings("ignore::bayesdistill.ConvergenceWarning")
def test_value_of_a_plan(noisy: tuple[Path, Path], command: Command) -> None:
    fit, plan = noisy
    code, out, err = command("value", fit, "--plan", plan, *MONEY)
    assert code == 0, err
    assert "[USD]" in out
    code, out, _ = command("value", fit, "--plan", plan, *MONEY, "--inference-price", "4", "--json")
    first, *_ = json.loads(out)
    assert first["pretraining_money"] == pytest.approx(1e21 / 4e14 / 3600 * 2)
    code, _, err = command("value", fit, "--plan", fit, "--allow-unconverged")
    assert code == 2
    assert "contains a fit, not a plan" in err
    code, _, err = command("value", fit, "--plan", plan, "--gpu-price", "2", "--allow-unconverged")
    assert "--gpu-price requires --gpu-flops" in err


@pytest.mark.filterwarnings("ignore::bayesdistill.ConvergenceWarning")
def test_plan_over_tokens(noisy: tuple[Path, Path], command: Command, tmp_path: Path) -> None:
    question = ["tokens", noisy[0], "--student", "1B", "--allow-unconverged", "--draws", "8"]
    code, out, err = command(
        *question, "--tokens", "1e10,1e12", "--max-teacher-tokens", "same", "-o", tmp_path / "t.nc"
    )
    assert code == 0, err
    assert "10B" in out
    found = bd.load(tmp_path / "t.nc")
    assert found["tokens"].values.tolist() == [1e10, 1e12]
    assert found.attrs["max_teacher_tokens"] == "same"
    for wrong in ("x", "2:1:3", "1e10:1e12"):
        code, _, err = command(*question, "--tokens", wrong)
        assert code == 2
        assert "--tokens" in err


@pytest.mark.filterwarnings("ignore::bayesdistill.ConvergenceWarning")
def test_next_runs(noisy: tuple[Path, Path], command: Command, tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    pd.DataFrame({"name": ["a", "b"], "params": [1e8, 1e9], "tokens": [2e9, 2e10]}).to_csv(table, index=False)
    question = ["next-runs", noisy[0], "--student", "1B", "--budgets", "1e21", "--scenario", "best case"]
    code, out, err = command(*question, "--candidates", table, "--money", "1000", *MONEY, "-o", tmp_path / "next.nc")
    assert code == 0, err
    assert "Runs to make first:" in out
    assert "worth" in out
    found = bd.load(tmp_path / "next.nc")
    assert found["candidate"].values.tolist() == ["a", "b"]
    assert found.attrs["price_per_gpu_hour"] == 2
    code, _, err = command(*question, "--candidates", table, "--money", "1000", "--allow-unconverged")
    assert code == 2
    assert "--money requires --gpu-flops and --gpu-price" in err
    code, _, err = command(*question, "--allow-unconverged")
    assert code == 2
    assert "does not have the ranges of its runs. Give --candidates" in err
    many = pd.DataFrame({"name": [f"r{i}" for i in range(15)], "params": 1e9, "tokens": np.geomspace(2e9, 2e10, 15)})
    many.to_csv(table, index=False)
    _, out, _ = command(*question, "--candidates", table, "--allow-unconverged", "-o", tmp_path / "next.nc")
    found = bd.load(tmp_path / "next.nc")
    batch = found["batch_candidate"].values.tolist()
    ranked = found["candidate"].values[found["rank"].values.argsort()].tolist()
    printed = re.findall(r"^(r\d+) ", out, re.MULTILINE)
    assert printed == [*batch, *[name for name in ranked if name not in batch][:10]]
    assert f"{15 - len(printed)} more candidates: use --json or --output." in out


@pytest.mark.slow
def test_a_report_shows_its_progress(fit354: xr.DataTree, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    curves_of = bd.law_curves(fit354)
    from bayesdistill.reporting import report_files

    report_files(fit354, curves=curves_of, progress=lambda *step: steps.append(step))
    assert steps[-1][0] == steps[-1][1] == len({done for done, _ in steps}) - 1


def test_a_target_loss(command: Command, published_draw: xr.Dataset, tmp_path: Path) -> None:
    path = bd.save(xr.DataTree.from_dict({"posterior": published_draw}), tmp_path / "fit.nc")
    question = ["target", path, "--student", "1B,3B", "--allow-unconverged", "--scenario", "teacher inference"]
    prices = ["--gpu-flops", "4e14", "--gpu-price", "2", "--inference-price", "1", "--currency", "EUR"]
    code, out, err = command(*question, "--loss", "2.2,2.3", *prices, "-o", tmp_path / "target.nc")
    assert code == 0, err
    assert max(map(len, out.split("1B, teacher inference,")[0].splitlines())) <= 80
    assert "1B, teacher inference, 2.2 nats: distillation is cheaper with probability > 0.95; it costs 0." in out
    assert "Cheapest student (teacher inference, 2.3 nats): 3B" in out
    assert "[EUR]" in out
    found = bd.load(tmp_path / "target.nc")
    assert found.attrs["inference_price_per_gpu_hour"] == 1
    code, out, _ = command(*question, "--loss", "2.2,2.3", "--json")
    (row, *_) = json.loads(out)
    assert (row["student"], row["target"], row["cheaper"]) == (1e9, 2.2, "distill")
    for wrong, said in {
        ("--loss", "20"): "--loss must be",
        ("--loss", "2.2", "--gpu-price", "2"): "--gpu-price requires --gpu-flops",
        ("--loss", "2.2", "--max-compute", "10"): "--max-compute must be",
    }.items():
        code, _, err = command(*question, *wrong)
        assert code == 2
        assert said in err


def test_a_lifetime(command: Command, published_draw: xr.Dataset, tmp_path: Path) -> None:
    path = bd.save(xr.DataTree.from_dict({"posterior": published_draw}), tmp_path / "fit.nc")
    question = [
        "lifetime",
        path,
        "--served",
        "0,1T",
        "--allow-unconverged",
        "--scenario",
        "best case",
        "--student",
        "1B",
    ]
    prices = ["--gpu-flops", "4e14", "--gpu-price", "2", "--inference-flops", "2e14", "--currency", "EUR"]
    code, out, err = command(*question, "--budgets", "1e22", *prices, "-o", tmp_path / "lifetime.nc")
    assert code == 0, err
    assert "With 1e22 FLOPs of training and 1T tokens served, best case: " in out
    assert "[EUR]" in out
    assert bd.load(tmp_path / "lifetime.nc").attrs["inference_flops_per_second"] == 2e14
    code, out, _ = command(*question, "--loss", "2.2", "--json")
    first, last = json.loads(out)
    assert (first["served_tokens"], last["served_tokens"], last["target"]) == (0, 1e12, 2.2)
    assert last["pretraining_cost_median"] > first["pretraining_cost_median"]
    for wrong, said in {
        (): "Give either --budgets or --loss",
        ("--loss", "20"): "--loss must be",
        ("--budgets", "1e22", "--served", "-1"): "`--served`",
    }.items():
        code, _, err = command(*question, *wrong)
        assert code == 2
        assert said.replace("`", "") in err.replace("`", "")


@pytest.mark.parametrize(
    ("arguments", "work"),
    [
        (["fit", "busbridge2025", "-o"], "fit"),
        (["plan", "fit.nc", "--student", "1B", "--budgets", "1e20", "-o"], "load"),
        (["predict", "fit.nc", "runs.csv", "-o"], "load"),
        (["report", "fit.nc", "-o"], "load"),
        (["demo", "--out"], "load_runs"),
    ],
)
def test_outputs_that_cannot_be_written_are_noticed_before_the_work(
    arguments: list[str], work: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_work(*_: object, **__: object) -> None:
        raise AssertionError("work has begun")

    monkeypatch.setattr(f"bayesdistill.{work}", no_work)
    monkeypatch.chdir(tmp_path)
    for name in ("file", "fit.nc"):
        Path(name).write_text("earlier")
    for name in ("report.html", "plan.nc"):
        Path("read-only", name).parent.mkdir(exist_ok=True)
        Path("read-only", name).touch(0o400)
    os.mkfifo("fifo.csv")
    of_folders = arguments[-1] == "--out" or arguments[0] == "report"
    for output, said in {
        True: (("file", "file is not a folder"), ("file/inside", "file is not a folder"), ("read-only", "read-only")),
        False: (
            ("nowhere/x.nc", "the folder nowhere does not exist"),
            (".", "it is a folder"),
            ("file/x.nc", "file is not a folder"),
            ("fifo.csv", "not a regular file"),
            ("read-only/plan.nc", "read-only"),
        ),
    }[of_folders]:
        code, out, err = command(*arguments, output)
        assert code == 2, output
        assert said in err
        assert "Traceback" not in err + out
    assert Path("file").read_text() == "earlier"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "fit.nc", "read-only", "fifo.csv"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "runs.nc.csv", "-o", "runs"],
        ["fit", "--supervised", "runs.nc.csv", "-o", "./runs"],
        ["fit", "runs.csv", "--prior", "fit.nc"],  # the default output
        ["plan", "fit.nc", "--student", "1B", "--budgets", "1e20", "-o", "fit.nc"],
        ["predict", "fit.nc", "runs.csv", "-o", "link.csv"],
        ["predict", "fit.nc", "runs.csv", "-o", "fit.nc"],
    ],
)
def test_an_output_does_not_replace_an_input(
    arguments: list[str], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("runs", "runs.csv", "fit.nc"):
        Path(name).write_text("earlier")
    Path("link.csv").symlink_to("runs.csv")
    Path("runs.nc.csv").symlink_to("runs")
    code, _, err = command(*arguments)
    assert code == 2
    assert "which is also an input. Use another name." in err
    assert {Path(name).read_text() for name in ("runs", "runs.csv", "fit.nc")} == {"earlier"}


def test_a_fit_that_cannot_be_written_is_kept(
    fit354: xr.DataTree, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = tmp_path / "results", tmp_path / "other"
    folder.mkdir()
    other.mkdir()

    def fit(*_: object, **__: object) -> xr.DataTree:
        folder.rmdir()  # while it samples
        return fit354

    monkeypatch.setattr("bayesdistill.fit", fit)
    monkeypatch.setattr("tempfile.tempdir", str(other))
    code, out, err = command("fit", "busbridge2025", "-o", folder / "fit.nc")
    assert code == 2
    assert out == ""
    (kept,) = other.iterdir()
    assert f"The content is in {kept} instead." in err
    xr.testing.assert_identical(bd.load(kept), fit354)


def test_numbers_that_the_parser_refuses_are_explained_too(command: Command) -> None:
    for arguments in (["fit", "x.csv", "--seed", "-1"], ["plan"], ["fit", "x.csv", "--draws", "many"], ["unknown"]):
        code, out, err = command(*arguments)
        assert code == 2, arguments
        assert "Traceback" not in err + out
        assert "--help" in err


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e3", 1000), ("1k", 1000), ("1000", 1000), ("1B", 10**9), ("300M", 3 * 10**8), ("1e21", 10**21)],
)
def test_numbers_as_people_write_them(text: str, value: int) -> None:
    assert cli._whole(text, "--draws") == value
    assert cli._real(text, "--widen") == value
    assert cli._budgets(text) == [value]
    assert cli._budgets(f"{text}:1e22:2")[0] == pytest.approx(value)


def test_every_numeric_option_takes_them(
    fit354: xr.DataTree, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr("bayesdistill.fit", lambda *_, **options: asked.update(options) or fit354)
    numbers = {"draws": "1.2k", "tune": "2e3", "chains": "4e0", "seed": "1M", "widen": "1e1"}
    options = ["--gamma", "1e0", *(part for name, text in numbers.items() for part in (f"--{name}", text))]
    output = tmp_path / "fit.nc"
    code, out, err = command("fit", "busbridge2025", *options, "--target-accept", "9e-1", "-o", output, "--json")
    assert code == 0, err
    assert {name: asked[name] for name in numbers} == {
        "draws": 1200, "tune": 2000, "chains": 4, "seed": 10**6, "widen": 10.0,
    }  # fmt: skip
    assert asked["law"] == bd.LAWS["tied_reducible"].with_fixed(gamma=1.0)
    assert asked["target_accept"] == 0.9
    found = json.loads(out)
    assert found["fit"] == str(output)
    assert found["converged"] is True
    question = ["--student", "300M", "--budgets", "1e20", "--max-teacher-params", "1B", "--max-teacher-tokens", "1T"]
    code, out, err = command(
        "plan",
        output,
        *question,
        "--max-student-tokens",
        "1e12",
        "--delta",
        "1:1/8",
        "--seed",
        "1k",
        "-o",
        output.with_name("plan.nc"),
        "--draws",
        "40",
        "--noise",
        "run",
        "--json",
    )
    assert code == 0, err
    assert bd.load(output.with_name("plan.nc")).sizes["thinned_draw"] == 10
    (row,) = json.loads(out)
    assert row["student"] == 3e8
    assert row["teacher_params"] <= 1e9
    for name, text in (("draws", "1.5"), ("seed", "-1"), ("chains", "many"), ("widen", "nan")):
        code, _, err = command("fit", "busbridge2025", f"--{name}", text, "-o", output)
        if name != "seed":
            assert code == 2
            assert f"--{name}" in err
            assert repr(text) in err


@pytest.mark.parametrize("name", list(cli._commands()))
def test_help_names_every_option_in_80_columns(name: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = command(name, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert not re.search(r"--[\w-]+ <(str|list)", out)  # a value is shown by an example or its kind
    for parameter in cli._commands()[name].params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", out) or not option.startswith("-"), option


TABLES = {
    "plan": ["--student", "123.4M,1B", "--budgets", "1e19,1e25", "--draws", "8", "--losses"],
    "students": ["--student", "123.4M,1B", "--budgets", "1e21"],
    "predict": ["runs.csv", "--noise", "run", "--allow-suspicious"],
    "optimal": ["--budgets", "1e19:1e27:5"],
    "recommend": ["--student", "123.4M", "--budgets", "1e21", "--tokens", "1e10", "--draws", "8"],
    "check": [],
}
"""Commands that print a table, with what they ask."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in ("plan", "students", "recommend") else ()) for n in TABLES],
)
def test_tables_fit_80_columns(
    name: str, command: Command, jittered_draws: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_load_fit", bd.load)  # draws without a fit
    bd.save(jittered_draws.isel(draw=slice(0, 10)), "fit.nc")
    pd.DataFrame({"params": [1e9], "tokens": [4e13], "loss": [1.9]}).to_csv("runs.csv", index=False)
    code, out, err = command(name, "fit.nc", *TABLES[name])
    assert code == (1 if name == "check" else 0), err
    rules = [line for line in out.splitlines() if re.fullmatch(r"-+(  -+)+", line)]
    assert bool(rules) == (name != "check")
    assert max(map(len, rules), default=0) <= 80
    if name == "check":
        rows = [line for line in out.splitlines() if re.match(r"(ok|FAILED|caution|unknown) {2}| {9}", line)]
        assert len(rows) >= 6
        assert max(map(len, rows)) <= 80


def test_pages_and_recommendations(
    command: Command, jittered_draws: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_load_fit", bd.load)
    draws = jittered_draws.isel(draw=slice(0, 20))
    fit = bd.save(draws, tmp_path / "fit.nc")
    code, _, err = command("page", fit, "-o", tmp_path / "page.html", "--students", "1B:10B", "--budgets", "1e20:1e24")
    assert code == 0, err
    expected = tmp_path / "expected.html"
    bd.interactive_page(draws, expected, students=("1B", "10B"), budgets=(1e20, 1e24))
    assert (tmp_path / "page.html").read_bytes() == expected.read_bytes()
    assert command("page", fit, "--students", "1B")[0] == 2
    asked = ["recommend", fit, "--student", "1B", "--budgets", "1e21", "--tokens", "1e10", "--draws", "8", "--json"]
    code, out, err = command(*asked)
    assert code == 0, err
    result = bd.recommendations(draws, "1B", budgets=1e21, tokens=1e10, draws=8)
    rows = json.loads(out)
    assert [row["sentence"] for row in rows] == result["sentence"].values.tolist()
    assert [row["probability"] for row in rows] == pytest.approx(result["probability"].values.tolist(), rel=1e-5)


def test_predict_can_be_quiet(
    command: Command, published_draw: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_load_fit", bd.load)
    fit, runs = bd.save(published_draw, tmp_path / "fit.nc"), tmp_path / "runs.csv"
    pd.DataFrame({"params": [1e9], "tokens": [2e10]}).to_csv(runs, index=False)
    code, out, err = command("predict", "-q", fit, runs, "-o", tmp_path / "out.csv")
    assert (code, out, err) == (0, "", "")
    assert len(pd.read_csv(tmp_path / "out.csv")) == 1
    code, _, err = command("predict", "-q", fit, runs)
    assert code == 2
    assert "--quiet requires --output" in err


def test_every_command_speaks_json() -> None:
    import typer.main

    group = typer.main.get_command(cli.app)
    assert set(group.commands) == {
        "value",
        "explain",
        "tokens",
        "next-runs",
        "fit",
        "check",
        "plan",
        "predict",
        "optimal",
        "update",
        "next-supervised",
        "recommend",
        "page",
        "students",
        "target",
        "lifetime",
        "report",
        "demo",
        "family",
    }
    for name, one in group.commands.items():
        assert "--json" in {flag for parameter in one.params for flag in parameter.opts}, name


def test_the_demo_keeps_its_words_from_programs(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_demo(out: Path, *, seed: int) -> list[Path]:
        print(f"working, seed {seed}")
        return [out / "report.html"]

    monkeypatch.setattr("bayesdistill.demo.run_demo", run_demo)
    code, out, err = command("demo", "--out", tmp_path, "--seed", "2k", "--json")
    assert code == 0
    assert json.loads(out) == {"folder": str(tmp_path), "files": [str(tmp_path / "report.html")]}
    assert "working, seed 2000" in err


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("bayesdistill pl", "plan"),
        ("bayesdistill predict fit.nc runs.csv --groups n", "new"),
        ("bayesdistill plan --max-teacher-p", "--max-teacher-params"),
        ("bayesdistill plan fit.nc --scenario ", "teacher pretraining + inference"),
        ("bayesdistill plan fit.nc --noise r", "run"),
    ],
)
@pytest.mark.parametrize("shell", ["bash", *(pytest.param(shell, marks=pytest.mark.slow) for shell in ("zsh", "fish"))])
def test_the_shell_completes(shell: str, words: str, completed: str) -> None:
    environment = {
        **os.environ,
        "_BAYESDISTILL_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    program = Path(sys.executable).parent / "bayesdistill"
    done = subprocess.run([program], env=environment, capture_output=True, text=True)
    assert completed in done.stdout.replace("\\", ""), done.stderr


def test_an_unconverged_fit_is_used_only_when_told_to(unconverged: Path, command: Command, tmp_path: Path) -> None:
    code, out, _ = command("check", unconverged)
    assert code == 1
    assert "Do not use these draws." in out
    assert re.search(r"FAILED +number of divergent transitions: 3; expected 0", out)
    question = ["plan", unconverged, "--student", "1B", "--budgets", "1e20", "--scenario", "best case"]
    code, out, err = command(*question, "-o", tmp_path / "plan.nc")
    assert code == 2
    assert "allow" in err
    assert not (tmp_path / "plan.nc").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as in a process of its own
        code, out, err = command(*question, "-o", tmp_path / "plan.nc", "--allow-unconverged")
    assert code == 0
    assert err.startswith("bayesdistill: warning: The posterior did not converge")
    assert "The posterior did not converge, so these numbers may be wrong" in out
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        _, out, _ = command(*question, "--allow-unconverged", "--json")
    assert [row["converged"] for row in json.loads(out)] == ["no"]
    assert bd.load(tmp_path / "plan.nc").attrs["converged"] == "no"


def test_a_fit_of_the_supervised_law_alone_cannot_plan(
    jittered_draws: xr.Dataset, command: Command, tmp_path: Path
) -> None:
    alone = jittered_draws[["E", "A", "B", "alpha", "beta", "gamma", "sigma", "nu"]]
    law = bd.LAWS["busbridge2025"].for_runs(distilled=False, supervised=True)
    alone = alone.assign_attrs(law=law.to_json())
    path = bd.save(xr.DataTree.from_dict({"posterior": alone}), tmp_path / "fit.nc")
    code, _, err = command("plan", path, "--student", "1B", "--budgets", "1e20", "--allow-unconverged")
    assert code == 2
    assert "supervised law alone" in err
    assert "Fit distilled runs with `bayesdistill fit`." in err


def test_an_impossible_budget_is_an_error_and_leaves_no_plan(
    published_draw: xr.Dataset, command: Command, tmp_path: Path
) -> None:
    path = bd.save(xr.DataTree.from_dict({"posterior": published_draw}), tmp_path / "fit.nc")
    question = ["plan", path, "--student", "10B", "--scenario", "teacher pretraining", "--allow-unconverged"]
    code, out, err = command(*question, "--budgets", "3e13", "-o", tmp_path / "plan.nc")
    assert code == 2
    assert "No strategy fits any of the --budgets (budget too small)." in err
    assert not out
    assert not (tmp_path / "plan.nc").exists()
    code, out, _ = command(*question, "--budgets", "3e13,1e22")
    assert code == 0
    assert "No strategy fits the budget: teacher pretraining: 10B at 1 point up to 3e13." in out


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Omit `max_student_tokens`.", "Omit --max-student-tokens."),
        ("Omit `student_tokens`.", "Omit `student_tokens`."),  # no option of plan
        ("pass allow_unconverged=True to use it", "pass --allow-unconverged to use it"),
        ("Use noise='law'.", "Use --noise 'law'."),
        ("Inspect it with bd.check(fit).", "Inspect it with `bayesdistill check`."),
        ("Increase target_accept to 0.95.", "Increase --target-accept to 0.95."),
    ],
)
def test_errors_name_options(message: str, expected: str) -> None:
    assert cli._on_command_line(message, "plan") == expected


@pytest.mark.parametrize(("distilled", "following"), [(True, "plan"), (False, "optimal")])
def test_the_command_that_is_suggested_after_a_fit_exists(
    distilled: bool,
    following: str,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fit354: xr.DataTree,
) -> None:
    monkeypatch.setattr("bayesdistill.fit", lambda *_, **__: fit354)
    source = ["busbridge2025"] if distilled else ["--supervised", "runs.csv"]
    _, out, _ = command("fit", *source, "-o", tmp_path / "fit.nc")
    assert f"Next: bayesdistill {following} {tmp_path / 'fit.nc'}" in out


# What reaches `fit`, and what an interrupt leaves: the sampler is replaced here, and only here --------------------------


def test_options_reach_the_fit(
    fit354: xr.DataTree,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    supervised_runs: pd.DataFrame,
) -> None:
    asked: dict[str, object] = {}

    def fit(*arguments: object, **options: object) -> xr.DataTree:
        asked.update(options, arguments=arguments)
        return fit354

    monkeypatch.setattr("bayesdistill.fit", fit)
    output = tmp_path / "fit.nc"
    code, out, _ = command("fit", "busbridge2025", "-o", output, "-q")
    assert code == 0
    assert "No convergence problems found" in out
    assert f"Wrote {output}." in out
    pd.testing.assert_frame_equal(asked["arguments"][0], bd.load_runs("busbridge2025"))
    assert asked["arguments"][1] is None
    defaults = {"draws": None, "tune": None, "chains": 4, "seed": 0, "target_accept": None, "widen": None}
    defaults |= {"transfer": "all", "between_studies": 0.5}
    assert {name: asked[name] for name in defaults} == defaults
    assert asked["law"] == bd.LAWS["tied_reducible"]
    assert asked["progress"] is False
    xr.testing.assert_identical(bd.load(output), fit354)
    table = tmp_path / "supervised.csv"
    supervised_runs.to_csv(table, index=False)
    given = ["--law", "busbridge2025", "--gamma", "1", "--draws", "50", "--tune", "60", "--chains", "2", "--seed", "7"]
    given += ["--target-accept", "0.95"]
    code, _, _ = command(
        "fit",
        "--supervised",
        table,
        "--prior",
        output,
        "--study",
        "mine",
        "--transfer",
        "shape",
        "--widen",
        "3",
        "--between-studies",
        "1",
        "-o",
        tmp_path / "two.nc",
        *given,
    )
    assert code == 0
    assert asked["arguments"] == (None, table)
    xr.testing.assert_identical(asked["priors"], fit354)
    given_values = {"draws": 50, "tune": 60, "chains": 2, "seed": 7, "target_accept": 0.95, "widen": 3.0}
    given_values |= {"transfer": "shape", "between_studies": 1.0, "study": "mine"}
    assert {name: asked[name] for name in given_values} == given_values
    assert asked["law"] == bd.LAWS["busbridge2025"].with_fixed(gamma=1.0)
    few = supervised_runs.assign(tokens=2e10).head(5)
    few.to_csv(table, index=False)
    code, _, _ = command("fit", "--supervised", table, "--allow-suspicious", "-o", tmp_path / "three.nc")
    assert code == 0
    assert len(asked["arguments"][1]) == 5


def test_an_interrupt_loses_no_earlier_file(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bayesdistill.fit", interrupted)
    earlier = tmp_path / "fit.nc"
    earlier.write_bytes(b"an earlier result")
    code, out, err = command("fit", "busbridge2025", "-o", earlier)
    assert code == 130
    assert "interrupted; every output file has its earlier content" in err
    assert "Traceback" not in err + out
    assert earlier.read_bytes() == b"an earlier result"
    assert [path.name for path in tmp_path.iterdir()] == ["fit.nc"]


# Processes of their own -----------------------------------------------------------------------------------------------


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bayesdistill.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_package_runs_as_a_program_and_prints_its_version() -> None:
    done = subprocess.run([sys.executable, "-m", "bayesdistill", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{bd.__version__}\n", "")


def test_a_process_of_its_own_shows_no_traceback(runs354: pd.DataFrame, tmp_path: Path) -> None:
    table, earlier = tmp_path / "mine.csv", tmp_path / "fit.nc"
    spoiled(runs354, "teacher_loss", "").to_csv(table, index=False)
    earlier.write_bytes(b"an earlier result")
    done = process("fit", table, "-o", earlier)
    assert done.returncode == 2, done.stderr
    assert "teacher_loss" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert earlier.read_bytes() == b"an earlier result"


def limited(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in which $BD is the package's command."""
    names = {"BD": f"{sys.executable} -m bayesdistill.cli", **environment}
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, env={**os.environ, **names})


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("$BD --help > /dev/full", "Cannot read or write the output: No space left on device."),
        ("cd $(mktemp -d) && rmdir $PWD && $BD fit busbridge2025", "Cannot use the working directory"),
        ("LC_ALL=C $BD fit é.csv", "csv does not exist"),
        ("$BD check none.nc 2> /dev/full", ""),
        ("$BD plan --wrong 2> /dev/full", ""),
        ('test -z "$($BD check none.nc 2>&-)"; exit $((2 + $?))', ""),
    ],
)
def test_a_full_disk_a_deleted_folder_and_an_ascii_terminal(command: str, said: str) -> None:
    done = limited(command, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_help_on_an_ascii_terminal() -> None:
    done = limited("LC_ALL=C $BD plan --help", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0
    assert "--student" in done.stdout


def test_help_is_there_for_every_command() -> None:
    done = process("--help")
    assert done.returncode == 0
    for name in ("fit", "check", "plan", "demo"):
        assert f" {name} " in done.stdout


@pytest.mark.slow
def test_a_process_of_its_own_shows_no_traceback_for_a_damaged_file(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.nc"
    damaged.write_bytes(b"\x89HDF\r\n\x1a\nnothing that follows is a file")
    done = process("plan", damaged, "--student", "1B", "--budgets", "1e20")
    assert done.returncode == 2, done.stderr
    assert "damaged.nc" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.slow
def test_a_fit_from_the_shell_to_a_plan(tmp_path: Path) -> None:
    fit, plan = tmp_path / "fit.nc", tmp_path / "plan.nc"
    done = process("fit", "busbridge2025", "-o", fit, "-q")
    assert done.returncode == 0, done.stderr
    assert "No convergence problems found" in done.stdout
    assert bd.check(bd.load(fit)).ok is True
    done = process("plan", fit, "--student", "1B", "--budgets", "3e20", "--scenario", "best case", "-o", plan)
    assert done.returncode == 0, done.stderr
    assert float(bd.load(plan)["probability"].item()) > 0.5


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
    assert {row["converged"] for row in rows} == {"yes"}
    plan = bd.load(planned)
    assert [row["probability"] for row in rows] == pytest.approx(plan["probability"].values.ravel().tolist())


@pytest.mark.parametrize("text", ["1e19", "1e25:1e19:5", "1e19:1e25:1", "a:b:c", "1e19:1e25"])
def test_budgets_as_text(text: str) -> None:
    if text == "1e19":
        assert cli._budgets(text) == [1e19]
        return
    with pytest.raises(bd.ParameterError, match="budgets"):
        cli._budgets(text)
