from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.errors import ModelError, ParameterError
from bayesdistill.laws import LAW_PARAMETERS, distilled_loss
from bayesdistill.posterior import Gates


def fit_of(draws: xr.Dataset, **stats: np.ndarray) -> xr.DataTree:
    """A fit with sampler statistics that say nothing bad, but for those given."""
    shape = (draws.sizes["chain"], draws.sizes["draw"])
    plain = {
        "diverging": np.zeros(shape, dtype=bool),
        "maxdepth_reached": np.zeros(shape, dtype=bool),
        "energy": np.random.default_rng(0).standard_normal(shape),
    }
    sample_stats = xr.Dataset({k: (("chain", "draw"), v) for k, v in (plain | stats).items()})
    return xr.DataTree.from_dict({"posterior": draws, "sample_stats": sample_stats})


# check ----------------------------------------------------------------------------------------------------------------


def test_nothing_is_wrong(jittered_draws):
    found = bd.check(fit_of(jittered_draws), gates=Gates(max_rhat=1.02))
    assert found.ok is True
    assert found.problems == ()
    assert found.verdict == "Nothing is wrong: the draws passed every gate."
    assert [row[0] for row in found.rows] == [
        "largest R-hat",
        "smallest bulk ESS",
        "smallest tail ESS",
        "divergent transitions",
        "share of cut trajectories",
        "smallest E-BFMI",
    ]
    assert {row[3] for row in found.rows} == {"ok"}
    json.dumps(found.numbers)


def test_bare_draws_are_said_to_be_bare(jittered_draws):
    found = bd.check(jittered_draws, gates=Gates(max_rhat=1.02))
    assert found.ok is None
    assert "bare draws" in found.verdict
    assert [row[3] for row in found.rows[3:]] == ["unknown", "unknown", "unknown"]


@pytest.mark.parametrize(
    ("key", "words", "remedy"),
    [
        ("rhat", "largest R-hat is ", "the chains disagree"),
        ("ess_bulk", "smallest bulk ESS is ", "raise draws"),
        ("ess_tail", "smallest tail ESS is ", "raise draws"),
        ("divergences", "divergent transitions is 7, <= 0 is needed", "raise target_accept"),
        ("treedepth_share", "share of cut trajectories is 0.0500, <= 0.01 is needed", "tune longer"),
        ("bfmi", "smallest E-BFMI is ", "tune longer"),
    ],
)
def test_every_gate_has_words_and_a_remedy(jittered_draws, key, words, remedy):
    diverging = np.zeros((4, 250), dtype=bool)
    diverging.ravel()[:7] = True
    cut = np.zeros((4, 250), dtype=bool)
    cut.ravel()[:50] = True
    draws = jittered_draws.assign(c0=jittered_draws["c0"] + 0.3 * jittered_draws["chain"])
    walk = np.cumsum(np.random.default_rng(1).standard_normal((4, 250)), axis=1)
    gates = Gates(min_ess_tail=1e5)
    found = bd.check(fit_of(draws, diverging=diverging, maxdepth_reached=cut, energy=walk), gates=gates)
    assert found.ok is False
    assert len(found.problems) == 6
    assert found.numbers["failed"] == ["rhat", "ess_bulk", "ess_tail", "divergences", "treedepth_share", "bfmi"]
    (problem,) = [text for text in found.problems if text.startswith(words)]
    assert remedy in problem
    assert problem in str(found)
    assert str(found).startswith("Do not use these draws as they are: ")
    if key in ("rhat", "ess_bulk"):
        assert "(c0)" in problem
    assert repr(found) == str(found)


def test_a_notebook_shows_a_table_and_escapes_names(jittered_draws):
    odd = "<script>alert(1)</script>"
    draws = jittered_draws.assign({odd: jittered_draws["c0"] + jittered_draws["chain"]})
    html = bd.check(draws)._repr_html_()
    assert html.startswith("<p>")
    assert html.count("<tr>") == 6
    assert odd not in html
    assert "&lt;script&gt;" in html


# law_curves -----------------------------------------------------------------------------------------------------------


def test_the_curves_are_those_of_the_law(fit354, runs354):
    curves = bd.law_curves(fit354, points=9, max_draws=200, prob=0.8)
    assert dict(curves.sizes) == {"configuration": 20, "teacher_loss": 9, "run": 354}
    assert curves.attrs["interval_kind"] == "equal-tailed"
    assert curves.attrs["interval_prob"] == 0.8
    assert curves.attrs["converged"] == "yes"
    assert curves.attrs["supervised_law"] == "published law"
    draws = posterior.law_draws(fit354)
    thin = draws.isel(draw=slice(None, None, 20))
    for i, j in ((0, 0), (7, 4), (19, 8)):
        one = curves.isel(configuration=i, teacher_loss=j)
        loss = distilled_loss(
            float(one["configuration_params"]),
            float(one["configuration_tokens"]),
            float(one["teacher_loss"]),
            **{name: thin[name].values.ravel() for name in LAW_PARAMETERS},
        )
        assert float(one["mean"]) == pytest.approx(loss.mean(), rel=1e-12)
        assert float(one["lower"]) == pytest.approx(np.quantile(loss, 0.1), rel=1e-12)
        assert float(one["upper"]) == pytest.approx(np.quantile(loss, 0.9), rel=1e-12)
    # A new run scatters around the law: its band holds that of the law, and is about as wide as the scatter.
    assert (curves["run_lower"] < curves["lower"]).all()
    assert (curves["run_upper"] > curves["upper"]).all()
    scatter = float(posterior.mean(posterior.noise_draws(fit354)["sigma"]))
    width = (curves["run_upper"] - curves["run_lower"]).min()
    assert 2 * 1.28 * scatter * 0.8 < float(width) < 2 * 1.6 * scatter
    # Runs, their predictions and residuals.
    np.testing.assert_array_equal(curves["student_loss"], runs354["student_loss"])
    np.testing.assert_allclose(curves["residual"], curves["student_loss"] - curves["predicted"], atol=1e-15)
    predicted = distilled_loss(
        *(runs354[name].to_numpy()[5] for name in ("student_params", "student_tokens", "teacher_loss")),
        **{name: draws[name].values for name in LAW_PARAMETERS},
    ).mean()
    assert float(curves["predicted"][5]) == pytest.approx(predicted, rel=1e-12)
    index = curves["configuration_of_run"].values
    np.testing.assert_array_equal(curves["configuration_params"].values[index], runs354["student_params"])
    np.testing.assert_array_equal(curves["configuration_tokens"].values[index], runs354["student_tokens"])
    np.testing.assert_array_equal(curves["run_teacher_loss"], runs354["teacher_loss"])
    for name, variable in curves.variables.items():
        if name != "run":
            assert variable.attrs.get("units") or name == "configuration", name
            assert variable.attrs.get("long_name") or name == "configuration", name


def test_the_same_seed_draws_the_same_band(fit354):
    ours, theirs, other = (bd.law_curves(fit354, points=3, max_draws=40, seed=seed) for seed in (1, 1, 2))
    xr.testing.assert_identical(ours, theirs)
    assert not np.array_equal(ours["run_upper"], other["run_upper"])
    np.testing.assert_array_equal(ours["upper"], other["upper"])


def test_curves_need_distilled_runs(jittered_draws, fit354):
    with pytest.raises(ModelError, match="needs a fit of distilled runs"):
        bd.law_curves(jittered_draws)
    with pytest.raises(ParameterError, match="at least 2"):
        bd.law_curves(fit354, points=1)
    with pytest.raises(ParameterError, match=r"prob is 1\.5"):
        bd.law_curves(fit354, points=2, max_draws=8, prob=1.5)
