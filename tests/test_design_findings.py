"""Axes of the runs that do not vary: found, reported by every output, and only then."""

from __future__ import annotations

import html
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

import bayesdistill as bd
from bayesdistill import cli
from bayesdistill.criticism.design_findings import design_findings
from bayesdistill.datasets import fixed_axes
from bayesdistill.errors import ConvergenceWarning, DesignWarning
from bayesdistill.interactive.contents import notes
from bayesdistill.plots.style import fit_notes
from bayesdistill.reporting.sentences import warnings_and_notes
from bayesdistill.sampling.nuts import PATH_SETTINGS, SETTINGS

SIZES = np.geomspace(1e8, 1e10, 12)
TOKENS = np.random.default_rng(0).permutation(np.geomspace(1e9, 1e12, 12))
JITTER = np.random.default_rng(1).uniform(0.9, 1.1, 12)


@pytest.mark.parametrize(
    ("params", "tokens", "axes"),
    [
        (SIZES, TOKENS, []),
        (1e8 + 0 * SIZES, TOKENS, ["params"]),
        (1e8 * np.linspace(1, 1.45, 12), TOKENS, ["params"]),
        (1e8 * np.linspace(1, 1.55, 12), TOKENS, []),
        (SIZES, 2e10 + 0 * TOKENS, ["tokens"]),
        (1e8 + 0 * SIZES, 2e10 + 0 * TOKENS, ["params", "tokens"]),
        (SIZES, 20 * SIZES * JITTER, ["tokens/params"]),
        (SIZES, 1e19 / SIZES * JITTER, ["tokens*params"]),
        (SIZES, SIZES**0.5 * 1e6, ["tokens/params^0.5"]),
        (SIZES, 20 * SIZES * JITTER**8, []),
        # The range of one axis is small, but not along a line.
        (np.repeat([1e8, 2e8], 6), np.tile(np.geomspace(1e9, 1e10, 6), 2), []),
    ],
)
def test_axes_that_do_not_vary(params, tokens, axes):
    found = fixed_axes(pd.DataFrame({"params": params, "tokens": tokens}))
    assert list(found) == axes
    # Units and order of the runs do not matter.
    again = fixed_axes({"params": params[::-1] / 1e6, "tokens": tokens[::-1] * 3})
    assert [name.split("^")[0] for name in again] == [name.split("^")[0] for name in axes]
    assert all(sentence.startswith("The supervised runs have ") for sentence in found.values())


def test_a_fixed_teacher_and_runs_of_both_kinds():
    distilled = {"student_params": SIZES, "student_tokens": TOKENS}
    assert not fixed_axes(distilled | {"teacher_loss": np.linspace(2, 2.07, 12)})
    assert list(fixed_axes(distilled | {"teacher_loss": np.linspace(2, 2.05, 12)})) == ["teacher_loss"]
    both = distilled | {"teacher_loss": 2 + 0 * SIZES, "params": SIZES[:3], "tokens": 20 * SIZES[:3]}
    assert list(fixed_axes(both)) == ["teacher_loss", "tokens/params"]
    assert fixed_axes({}) == {}


def fit_of(draws, runs):
    """A fit with these draws and the design of these runs."""
    columns = ["student_params", "student_tokens", "teacher_loss"]
    constant = xr.Dataset({name: ("run", runs[name].to_numpy()) for name in columns})
    return xr.DataTree.from_dict({"posterior": draws, "constant_data": constant})


def test_good_designs_have_no_fixed_axis(runs354, supervised_runs, jittered_draws):
    assert fixed_axes(runs354) == fixed_axes(supervised_runs) == {}
    assert [found.state for found in design_findings(fit_of(jittered_draws, runs354))] == ["ok"]
    assert design_findings(jittered_draws) == ()
    assert json.loads(bd.describe_runs(runs354).attrs["fixed_axes"]) == {}


def test_every_output_names_a_fixed_teacher(runs354, jittered_draws, tmp_path):
    one = runs354[np.abs(runs354["teacher_loss"] / 2.28 - 1) < 0.012]
    summary = bd.describe_runs(one)
    assert list(json.loads(summary.attrs["fixed_axes"])) == ["teacher_loss"]
    fit = fit_of(jittered_draws, one)
    found = bd.check(fit, thresholds=bd.ConvergenceThresholds(max_rhat=1.02))
    assert found.ok is True
    (caution,) = found.cautions
    assert "one teacher loss" in caution
    assert "which teacher is best" in caution
    assert "tokens" not in caution  # the same teacher and more tokens is a question that these runs answer
    assert caution in str(summary)
    assert html.escape(caution) in summary._repr_html_()
    plan = bd.plan(fit, "1B", [1e20, 1e21], "best case", allow_unconverged=True)
    assert json.loads(plan.attrs["fixed_axes"]) == {"teacher_loss": caution}
    assert caution in str(plan)
    assert html.escape(caution) in plan._repr_html_()
    said = bd.recommendations(fit, ["1B"], budgets=[1e21], allow_unconverged=True)["sentence"].values
    assert all(sentence.count(caution) == 1 for sentence in said)
    bd.save(plan, tmp_path / "plan.nc")
    assert caution in str(bd.load(tmp_path / "plan.nc"))
    said = warnings_and_notes(fit, plan, found)
    assert (said["warnings"] + said["notes"]).count(caution) == 1
    assert caution in [note["text"] for note in notes(bd.Planner(fit, allow_unconverged=True).fitted)]
    assert caution in fit_notes(plan)[1]


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_line_names_a_fixed_teacher(runs354, jittered_draws, monkeypatch, tmp_path, as_json):
    one = runs354[np.abs(runs354["teacher_loss"] / 2.28 - 1) < 0.012]
    fit = fit_of(jittered_draws, one)
    (sentence,) = fixed_axes(one).values()
    monkeypatch.setattr(cli, "_load_fit", lambda path: fit)
    one[["student_params", "student_tokens", "teacher_loss"]].head(2).to_csv(tmp_path / "runs.csv", index=False)
    commands = (
        ["plan", "fit.nc", "--student", "1B", "--budgets", "1e20:1e21:2", "--scenario", "best case"],
        ["predict", "fit.nc", str(tmp_path / "runs.csv")],
    )
    for command in commands:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            done = CliRunner().invoke(cli.app, [*command, "--allow-unconverged", *(["--json"] if as_json else [])])
        assert done.exit_code == 0, done.output
        said = {row["fixed_axes"] for row in json.loads(done.stdout)} if as_json else done.output.splitlines()
        assert sentence in said or f"Note: {sentence}" in said


@pytest.mark.slow
def test_a_fit_warns_of_a_fixed_axis(supervised_runs):
    one = supervised_runs.assign(tokens=20 * supervised_runs["params"])
    one = bd.simulate_runs(bd.PUBLISHED, kind="supervised", seed=1, design=one[["params", "tokens"]], sigma=0.005)
    warnings.simplefilter("ignore", ConvergenceWarning)  # few draws
    with pytest.warns(DesignWarning, match="one number of tokens per parameter"):
        bd.fit(supervised=one, draws=100, tune=200, chains=2, progress=False)


@pytest.mark.parametrize(
    ("table", "given", "passes", "asked"),
    [
        ({"params": SIZES}, {}, 1, PATH_SETTINGS[:1]),
        ({"params": SIZES}, {"law": "busbridge2025"}, 1, SETTINGS[:1]),
        ({"params": SIZES}, {}, 2, PATH_SETTINGS[:2]),
        ({"params": SIZES}, {}, 9, PATH_SETTINGS),
        ({"params": 1e8}, {}, 9, PATH_SETTINGS[1:]),
        ({"params": SIZES}, {"tune": 6}, 9, [PATH_SETTINGS[0] | {"tune": 6}]),
        ({"params": 1e8}, {"draws": 5, "tune": 6, "target_accept": 0.8}, 9, [{"draws": 5, "tune": 6, "maxdepth": 10}]),
    ],
)
def test_a_fit_samples_again_until_its_draws_pass(monkeypatch, table, given, passes, asked):
    """From settings that depend on the axes, and once with settings that were given."""
    used = []

    def sample(compiled, **settings):
        used.append(settings)
        draws = xr.Dataset({"E": (("chain", "draw"), np.random.default_rng(0).standard_normal((4, 1000)))})
        stats = xr.Dataset({"diverging": (("chain", "draw"), np.full((4, 1000), len(used) < passes))})
        return {"posterior": draws, "sample_stats": stats}

    def sampled(*_):
        raise bd.ModelError("sampled")

    monkeypatch.setattr("bayesdistill.sampling._fit.compiler.compile", lambda *_: None)
    monkeypatch.setattr("bayesdistill.sampling._fit.sample", sample)
    monkeypatch.setattr("bayesdistill.sampling._fit.labeled", sampled)
    runs = pd.DataFrame({"params": 1e8, "tokens": TOKENS, "loss": np.linspace(3, 2.5, 12)}).assign(**table)
    runs.attrs["allow_suspicious"] = True
    with pytest.raises(bd.ModelError, match="sampled"):
        bd.fit(supervised=runs, **given)
    assert len(used) == len(asked)
    assert all(wanted.items() <= settings.items() for wanted, settings in zip(asked, used, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.003, 0.03])
@pytest.mark.parametrize("axis", ["params", "tokens"])
def test_supervised_fits_with_one_axis_held_fixed_converge(axis, sigma):
    design = pd.DataFrame({"params": np.geomspace(1e8, 5e9, 24), "tokens": np.linspace(4e9, 1e11, 24)})
    design[axis] = design[axis].iloc[6]
    design.attrs["allow_suspicious"] = True
    runs = bd.simulate_runs(bd.PUBLISHED, kind="supervised", design=design, sigma=sigma, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DesignWarning)  # a ConvergenceWarning is an error
        fit = bd.fit(supervised=runs, seed=3, progress=False)
    assert bd.check(fit).ok
    assert list(fixed_axes(runs)) == [axis]
