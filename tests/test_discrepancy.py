"""The discrepancy of a law: paths, their place in the model and in predictions, and the levels of uncertainty."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from test_interactive import embedded, engine_answers, in_engine

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.interactive.contents import thinned
from bayesdistill.law import LAWS, Draws, Paths, Reference
from bayesdistill.law.discrepancy import RATIO, STEPS, log_compute, path_weights, steps_between
from bayesdistill.law.predictive import (
    SHARED,
    Design,
    Deviations,
    curve_loss,
    expected_loss,
    pretrained_effect_scale,
    pretrained_noise_factor,
)
from bayesdistill.sampling.groups import log_likelihood

WANDERING = LAWS["tied_reducible"].with_discrepancy("shared", "distilled")
POSITIONS = np.array([-7.25, -1.0, -0.5, 0.0, 0.3, 1.0, 2.0, 11.75])


@pytest.fixture(scope="module")
def some_runs(runs354) -> pd.DataFrame:
    """Every fifth of the published runs."""
    return runs354.iloc[::5].reset_index(drop=True)


@pytest.fixture(scope="module")
def wandering(some_runs) -> xr.DataTree:
    """A real fit with a discrepancy; short, because no test judges its convergence."""
    with pytest.warns(bd.ConvergenceWarning):
        return bd.fit(some_runs, law=WANDERING, seed=0, draws=60, tune=200, progress=False)


def brownian(increments: np.ndarray, position: float) -> float:
    """The path at one position, step by step."""
    if position > 0:
        return sum(increments[k - STEPS[0]] * min(position - k, 1.0) for k in range(int(np.ceil(position))))
    return -sum(increments[-k - STEPS[0]] * min(-position - k + 1, 1.0) for k in range(1, int(np.ceil(-position)) + 1))


def paths_of(n_draws: int = 5, ratios: tuple[float, float] | None = None) -> Paths:
    return Paths.extended(["shared", "distilled"], n_draws, {}, np.arange(0), ratios)


def test_a_path_is_the_sum_of_its_increments():
    paths = paths_of()
    expected = [[brownian(draw, place) for draw in paths.increments["shared"]] for place in POSITIONS]
    np.testing.assert_allclose(paths.at("shared", POSITIONS[:, None]), expected, atol=1e-12)
    steps = steps_between(POSITIONS)
    weights = path_weights(POSITIONS, steps)
    np.testing.assert_allclose(weights @ paths.increments["shared"][:, steps - STEPS[0]].T, expected, atol=1e-12)


@pytest.mark.parametrize("positions", [[0.0], [0.2, 0.7], [-0.2], [3.0], [-2.0, 2.0]])
def test_steps_cover_all_positions(positions):
    steps = steps_between(np.array(positions))
    assert steps.size
    assert steps.min() <= min(0, *positions)
    assert steps.max() + 1 >= max(0, *positions)


def test_far_away_paths_are_constant_and_unknown_places_stay_unknown():
    paths = paths_of()
    far = paths.at("shared", np.array([[1e3], [float(STEPS[-1] + 1)], [-1e3], [float(STEPS[0])], [np.nan]]))
    np.testing.assert_array_equal(far[0], far[1])
    np.testing.assert_array_equal(far[2], far[3])
    assert np.isnan(far[4]).all()


def test_an_increment_depends_on_seed_path_step_and_draw_only():
    several, one = paths_of(5), Paths.extended(["distilled"], 3, {}, np.arange(0), None)
    np.testing.assert_array_equal(several.increments["distilled"][:3], one.increments["distilled"])
    fitted = {"shared": np.full((5, 2), 9.0)}
    replaced = Paths.extended(["shared"], 5, fitted, np.array([-1, 0]), None).increments["shared"]
    inside = (STEPS == -1) | (STEPS == 0)
    assert (replaced[:, inside] == 9.0).all()
    np.testing.assert_array_equal(replaced[:, ~inside], several.increments["shared"][:, ~inside])
    other = Paths.extended(["shared"], 5, {}, np.arange(0), None, seed=1)
    assert not np.isclose(other.increments["shared"], several.increments["shared"]).any()
    assert abs(np.corrcoef(several.increments["shared"].ravel(), several.increments["distilled"].ravel())[0, 1]) < 0.1


def test_increments_are_standard_normal():
    values = np.concatenate([value.ravel() for value in paths_of(500).increments.values()])
    assert values.size > 1e5
    assert values.mean() == pytest.approx(0, abs=4 / values.size**0.5)
    assert values.var() == pytest.approx(1, abs=6 / values.size**0.5)


def test_the_model_draws_two_independent_paths(some_runs):
    """The sampled variables are a rotation and a rescaling of the paths, which leave their prior as it is."""
    model = bd.build_model(some_runs, law=WANDERING)
    drawn = pm.draw([model["path_shared"], model["path_distilled"]], draws=4000, random_seed=1)
    both = np.concatenate(drawn, axis=1)
    np.testing.assert_allclose(np.cov(both.T), np.eye(both.shape[1]), atol=0.12)
    np.testing.assert_allclose((both**4).mean(axis=0), 3, atol=0.8)


@pytest.mark.slow
def test_numpy_and_pymc_have_the_same_likelihood(wandering, some_runs):
    """The pointwise log-likelihood is that of the PyMC model at the same draws."""
    draws = wandering["posterior"].to_dataset().isel(chain=[0], draw=slice(0, 5))
    ours = log_likelihood(draws, some_runs, None)["student_loss"]
    model = bd.build_model(some_runs, law=WANDERING)
    with model:
        theirs = pm.compute_log_likelihood(
            xr.DataTree.from_dict({"posterior": draws}), progressbar=False, extend_inferencedata=False
        )
    np.testing.assert_allclose(ours.values, theirs["student_loss"].values, rtol=1e-8, atol=1e-8)


def single(law=WANDERING, n_draws: int = 4000, ratios: tuple[float, float] | None = (10.0, 100.0)) -> Draws:
    """Many draws of one law whose paths differ."""
    values = dict.fromkeys(("sigma",), 0.003) | {"nu": 1e6, "sigma_student": 0.004, "sigma_student_slope": 0.0}
    values |= {"discrepancy_shared": 1.0, "discrepancy_distilled": 0.5}
    symbols = {**bd.PUBLISHED, "omega": 1.0, "kappa": 2.0, "w1": 0.05, **values}
    law = law.for_runs(distilled=True, supervised=False)
    symbols = {name: np.full(n_draws, value) for name, value in symbols.items()}
    return Draws(law, symbols, Reference(1e9, 2e10, 2.2), {}, paths_of(n_draws, ratios) if law.discrepancy else None)


def test_errors_grow_with_the_square_root_of_the_distance_and_are_shared():
    draws, misfit = single(ratios=None), 0.005  # 3, 4, 5
    assert draws.law.misfit_scale(draws.symbols) == pytest.approx(np.full(draws.n_draws, misfit))
    for distance in (1, 4, 16):
        tokens = 2e10 * np.exp(distance)
        supervised = draws.discrepancy("supervised", 1e9, tokens)
        distilled = draws.discrepancy("distilled", 1e9, tokens)
        assert supervised.std() == pytest.approx(misfit * distance**0.5, rel=0.04)
        assert (distilled - supervised).std() == pytest.approx(0.5 * misfit * distance**0.5, rel=0.04)
    assert (draws.discrepancy("supervised", 1e9, 2e10) == 0).all()
    # The same compute has the same error, whatever the size.
    np.testing.assert_allclose(
        draws.discrepancy("supervised", 1e8, 2e12), draws.discrepancy("supervised", 1e10, 2e10), atol=1e-15
    )


def test_tokens_per_parameter_outside_the_data_have_an_error_of_their_own():
    draws = single()
    inside, outside = (draws.discrepancy("supervised", size, 2e19 / size) for size in (1e9, 1e8))
    # 2e10 and 2e11 tokens per 1e9 and 1e8 parameters: 20 and 2,000 tokens per parameter.
    assert (inside == 0).all()
    assert outside.std() == pytest.approx(0.005 * np.log(20) ** 0.5, rel=0.04)
    expected = 0.005 * draws.paths.at(RATIO, np.log(20))  # type: ignore[union-attr]
    np.testing.assert_allclose(outside, expected, atol=1e-12)


def test_expected_losses_have_the_discrepancy_and_curves_do_not(wandering, some_runs):
    draws = posterior.draws_of(wandering)
    design = Design.of(draws.law, some_runs)
    difference = expected_loss(draws, design) - curve_loss(draws, design)
    path = wandering["posterior"]["path_shared"] * wandering["posterior"]["discrepancy_shared"]
    path = path + wandering["posterior"]["path_distilled"] * wandering["posterior"]["discrepancy_distilled"]
    weights = path_weights(
        log_compute(design.params, design.tokens, draws.reference),
        wandering["posterior"]["step"].values,
    )
    flat = path.transpose("chain", "draw", "step").values.reshape(-1, weights.shape[1])
    misfit = np.sqrt(draws["sigma"] ** 2 + draws["sigma_student"] ** 2)
    np.testing.assert_allclose(difference, misfit[:, None] * (flat @ weights.T), atol=1e-10)


def test_effects_of_a_configuration_are_shared_by_its_two_runs():
    draws = single(LAWS["tied_reducible"])
    pair = Deviations.draw(draws, seed=3, noise="expected")
    distilled, alone = pair.effects["student"], pair.pretrained_effects["student"]
    assert np.corrcoef(distilled, alone)[0, 1] == pytest.approx(SHARED, abs=0.03)
    assert alone.std() == pytest.approx(0.004, rel=0.05)
    assert (pair.residual == 0).all()
    assert (pair.pretrained_residual == 0).all()


def test_residuals_of_supervised_runs_contain_the_effects_of_their_configurations():
    draws = single(LAWS["tied_reducible"])
    law = LAWS["tied_reducible"].for_runs(distilled=True, supervised=True)
    more = {"sigma_supervised": 0.006, "noise_excess": 0.0, "sigma_model": 0.0, "sigma_model_slope": 0.0}
    joint = Draws(law, {**draws.symbols, **{k: np.full(draws.n_draws, v) for k, v in more.items()}}, draws.reference)
    effect = next(e for e in law.effects if e.name == "student")
    shared, left = pretrained_effect_scale(joint, effect), pretrained_noise_factor(joint)
    np.testing.assert_allclose(shared, 0.006 * 4 / 5)
    np.testing.assert_allclose(shared**2 + (0.006 * left) ** 2, 0.006**2)
    alone = Deviations.draw(joint, seed=1, noise="run").pretrained(1e9, 2e10)
    assert alone.std() == pytest.approx(0.006, rel=0.05)


def accepted(fit: xr.DataTree, **options) -> bd.Planner:
    """A planner that uses a short fit; its warning is raised here."""
    planner = bd.Planner(fit, allow_unconverged=True, progress=False, **options)
    with pytest.warns(bd.ConvergenceWarning):
        assert planner.fitted
    return planner


def test_a_plan_of_expected_losses_is_the_law_plus_its_deviations(wandering):
    planner = accepted(wandering, seed=5)
    found = bd.plan(planner, "1B", [1e21, 1e24], "best case", noise="expected")
    curves = bd.plan(planner, "1B", [1e21, 1e24], "best case", noise="law")
    draws = planner.fitted.draws
    pair = Deviations.draw(draws, 5, "expected")
    for budget in (1e21, 1e24):
        one, law = (x.sel(budget=budget).squeeze(("student", "scenario"), drop=True) for x in (found, curves))
        spent = float(bd.flops_per_token(1e9)) * 3
        deviation = pair.difference(
            1e9, float(one["student_tokens"]), one["teacher_loss"].values.ravel(), budget / spent
        )
        np.testing.assert_allclose(
            one["advantage"].values.ravel(), law["advantage"].values.ravel() + deviation, atol=1e-12
        )
        assert float(one["probability"]) == pytest.approx((one["advantage"].values > 0).mean())
    # The law's own quantities stay.
    for name in ("expected_gain", "regret", "student_tokens"):
        np.testing.assert_array_equal(found[name], curves[name])
    # An answer does not depend on the grid.
    alone = bd.plan(planner, "1B", 1e24, "best case", noise="expected")
    np.testing.assert_allclose(alone["advantage"].values[0, 0, 0], found["advantage"].values[0, 0, 1], atol=1e-9)


def test_the_seed_of_a_planner_draws_the_discrepancy_outside_the_data_only(wandering):
    planner = accepted(wandering)
    other = bd.decisions.planning.changed(planner, seed=1)
    fitted = wandering["posterior"]["step"].values - STEPS[0]
    new = np.setdiff1d(np.arange(STEPS.size), fitted)
    for name in ("shared", "distilled"):
        first, second = (p.fitted.draws.paths.increments[name] for p in (planner, other))
        np.testing.assert_array_equal(first[:, fitted], second[:, fitted])
        assert abs(np.corrcoef(first[:, new].ravel(), second[:, new].ravel())[0, 1]) < 4 / np.sqrt(first[:, new].size)


def test_a_path_can_change_the_side_of_a_draw_several_times():
    law = LAWS["busbridge2025"].with_discrepancy("distilled")
    symbols = {**bd.PUBLISHED, "sigma": 0.01, "nu": 5.0, "discrepancy_distilled": 1.0}
    increments = np.zeros((1, 2, 3))
    increments[0, 1] = [8, -16, 8]  # 0.08 nats up, down and back, of the second draw, along the student's own compute
    draws = {name: (("chain", "draw"), np.full((1, 2), value)) for name, value in symbols.items()}
    start = int(np.log(1e9 * 1e11))
    fit = xr.Dataset(
        draws | {"path_distilled": (("chain", "draw", "step"), increments)},
        {"step": np.arange(start, start + 3)},
        {"law": law.to_json()},
    )
    # Without a path outside of these steps.
    planner = bd.Planner(fit, progress=False)
    paths = planner.fitted.draws.paths
    for name, values in paths.increments.items():
        values[:, np.isin(STEPS, fit["step"], invert=True) | (name == RATIO)] = 0
    budgets = np.geomspace(1e17, 1e27, 201)
    found = bd.crossovers(planner, "1B", "teacher inference", budgets=budgets)
    curves = bd.crossovers(planner, "1B", "teacher inference", budgets=budgets, noise="law")
    np.testing.assert_array_equal(found["crossover"], curves["crossover"])
    assert curves["side_changes"].values.ravel().tolist() == [1, 1]
    np.testing.assert_allclose(curves["first_change"], curves["crossover"], rtol=1e-2)
    once, several = found["side_changes"].values.ravel().tolist()
    assert (once, several) == (1, 3)
    assert found["several_changes"].item() == 1
    assert found["several_changes_probability"].item() == 0.5
    for name in ("first_change", "last_change"):
        for draw, budget in enumerate(found[name].values.ravel().tolist()):
            at = bd.plan(planner, "1B", budget, "teacher inference")["best_advantage"]
            # A knot within a step of the grid (0.115 in the log, slope up to 0.16 nats) moves the root by a quarter of a step at most.
            np.testing.assert_allclose(at.values.ravel()[draw], 0, atol=0.115 * 0.16 / 4)
    assert found["first_change"][..., 1] < found["crossover"][..., 1] <= found["last_change"][..., 1] * 1.01
    words = "of the draws (level expected), the better option changes more than once"
    assert words in str(found)
    assert words not in str(curves)


@pytest.mark.parametrize("level", ["expected", "run"])
def test_the_page_adds_the_deviations_of_its_level(wandering, tmp_path, level):
    planner = accepted(wandering, seed=5, noise=level)
    page = bd.interactive_page(planner, tmp_path / "page.html", draws=40).read_text(encoding="utf-8")
    assert embedded(page)["level"] == level
    problems = [[1e8, 1e19, 1, 1], [1e9, 1e22, 1, 0.1], [2e10, 1e25, 0, 0], [1e8, 1e25, 0, 0], [3e9, 3e21, 0, 1]]
    draws = planner.fitted.draws
    chosen = thinned(draws.n_draws, 40)
    pair, law = Deviations.draw(draws, 5, level).take(chosen), []
    for answer, (student, *_) in zip(engine_answers(page, problems, tmp_path), problems, strict=True):
        for found, probability in ((answer["chosen"], "probability"), (answer["perfect"], "probability_perfect")):
            tokens, teacher = np.array(found["student_tokens"]), np.array(found["teacher_loss"])
            gain = np.array(answer["pretrained"]) - np.array(found["loss"])
            seen = gain + pair.difference(student, tokens, teacher, answer["pretraining_tokens"])
            assert abs(answer[probability] - (seen > 0).mean()) <= (abs(seen) < 1e-6).mean() + 1e-12
            law.append(answer[probability] - (gain > 0).mean())
    assert np.abs(law).max() > 0.02
    # Runs inside and far outside the data; the knots in the page are rounded to 1e-7 nats.
    for run in ([1e9, 2e10, 2.2, 4e10], [1e8, 1e14, 1.9, 1e15], [3e10, 1e9, 2.5, 3e8]):
        found = in_engine(page, f"engine.draws.map(p => deviation(p, ...{run}))", tmp_path)
        np.testing.assert_allclose(found, pair.difference(*run), atol=3e-7)


def test_predictions_have_three_levels(wandering):
    table = pd.DataFrame({"student_params": [1e9, 1e11], "student_tokens": [2e10, 2e13], "teacher_loss": [2.2, 1.8]})
    planner = accepted(wandering)
    found = {noise: bd.predict(planner, table, noise=noise) for noise in ("law", "expected", "run")}
    widths = {noise: (one["upper"] - one["lower"]).values for noise, one in found.items()}
    assert (widths["law"] < widths["expected"]).all()
    assert (widths["expected"] < widths["run"]).all()
    # Far from the data, the discrepancy is most of the uncertainty.
    assert widths["expected"][1] > 1.5 * widths["law"][1]
    assert widths["run"][1] < 1.2 * widths["expected"][1]


def test_a_law_with_a_discrepancy_is_saved_and_loaded(wandering, tmp_path):
    bd.save(wandering, tmp_path / "fit.nc")
    loaded = bd.load(tmp_path / "fit.nc")
    assert posterior.law_of(loaded).discrepancy == WANDERING.discrepancy
    assert posterior.identity(loaded) == posterior.identity(wandering)
    design = Design("distilled", np.array([1e10]), np.array([1e13]), np.array([2.0]))
    np.testing.assert_array_equal(
        expected_loss(posterior.draws_of(loaded), design), expected_loss(posterior.draws_of(wandering), design)
    )


def test_supervised_runs_alone_have_the_shared_path_only():
    law = WANDERING.for_runs(distilled=False, supervised=True)
    assert [one.name for one in law.discrepancy] == ["shared"]
    assert "discrepancy_shared" in {p.name for p in law.parameters}
    assert "discrepancy_distilled" not in {p.name for p in law.parameters}


def test_tails_of_residuals_do_not_matter_without_residuals():
    """With nu below 2, the standard deviation of a run is infinite, and that of its expected loss is not."""
    symbols = {**bd.PUBLISHED, "sigma": 0.01, "nu": 1.5}
    fit = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in symbols.items()}, attrs={"law": "busbridge2025"})
    run = pd.DataFrame({"student_params": [1e9], "student_tokens": [2e10], "teacher_loss": [2.2]})
    found = {noise: bd.predict(fit, run, noise=noise)["sd"].item() for noise in ("law", "expected", "run")}
    assert found == {"law": 0.0, "expected": 0.0, "run": np.inf}
