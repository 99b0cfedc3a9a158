"""Every optimum against a dense search that knows nothing of the structure, and what must hold for any problem."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from reference_search import dense_search, effective_tokens, random_draws, strategy_loss

import bayesdistill as bd
from bayesdistill import strategies
from bayesdistill.compute import (
    PUBLISHED_SHAPE,
    SCENARIOS,
    distillation_flops,
    flops_per_token,
    pretraining_tokens,
)
from bayesdistill.decisions.fitted_draws import gather
from bayesdistill.law import LAWS, SUPERVISED_SYMBOLS, Draws, Parameter, Repetition, Term
from bayesdistill.strategies import (
    Bounds,
    Problem,
    chosen_strategies,
    perfect_information,
    perfect_information_strategies,
    supervised_losses,
)
from bayesdistill.strategies.charges import Charges
from bayesdistill.strategies.frontier import Frontier
from bayesdistill.strategies.losses import Losses
from bayesdistill.strategies.problems import bound_status

CLOSE = 1e-6  # nats
PUBLISHED = Draws(LAWS["busbridge2025"], bd.PUBLISHED)
EXTENDED = LAWS["busbridge2025"].with_terms("weak_teachers", "soft_targets", "reducible_ratio")


def random_problem(rng):
    """Student, budget, scenario and bounds; half of the bounds are tight enough to be active."""
    student, budget = 10 ** rng.uniform(7.5, 10.5), 10 ** rng.uniform(18, 25)
    kind = rng.integers(5)
    deltas = [(0, 0), (1, 0), (0, 1), (1, 1), (rng.uniform(), rng.uniform())][kind]
    scene = bd.Scenario(*(float(d) for d in deltas))
    if rng.uniform() < 0.5:
        return student, budget, scene, Bounds()
    bounds = Bounds(
        max_teacher_params=10 ** rng.uniform(8, 12),
        max_teacher_tokens=10 ** rng.uniform(10, 13.3),
        max_student_tokens=10 ** rng.uniform(9.5, 13) if rng.uniform() < 0.5 else np.inf,
    )
    return student, budget, scene, bounds


def is_no_worse(found, least, problem):
    """Not worse than the dense search by 1e-6. It may be better by what the zooms of that search miss in long valleys: a
    loss that no strategy has is excluded by the test of what a strategy is worth."""
    assert least - 1e-4 < found < least + CLOSE, problem


def raise_lower_bounds(rng, bounds):
    """Exclude small teachers, or those of few tokens, which are the best where the budget is small."""
    params = min(10 ** rng.uniform(7, 10), bounds.max_teacher_params)
    tokens = min(10 ** rng.uniform(8, 12), bounds.max_teacher_tokens)
    return replace(bounds, min_teacher_params=params, min_teacher_tokens=tokens)


def extended(rng, draws):
    """The same laws with w1, kappa and omega, a third of them with kappa 1, some with omega 0 or 1."""
    size = draws["E"].size
    kappa = np.where(rng.uniform(size=size) < 0.33, 1.0, np.exp(rng.normal(size=size)))
    omega = np.clip(rng.uniform(-0.2, 1.2, size), 0, 1)
    return Draws(EXTENDED, {**draws, "w1": 0.3 * rng.uniform(size=size), "kappa": kappa, "omega": omega})


def compare_best(seed, count, extend=lambda rng, draws: draws):
    """How many optima had each status; all of them are those of the dense search."""
    rng = np.random.default_rng(seed)
    seen = Counter()
    for _ in range(count):
        student, budget, scene, bounds = random_problem(rng)
        if rng.uniform() < 0.25:
            bounds = raise_lower_bounds(rng, bounds)
        draws = extend(rng, random_draws(rng, 1))
        found = perfect_information_strategies(draws, Problem([student], [budget], [scene], bounds=bounds))
        least, _, _ = dense_search(draws, student, budget, scene, bounds, PUBLISHED_SHAPE)
        if not np.isfinite(least):
            assert np.isnan(found["loss"]).all()
            continue
        is_no_worse(found["loss"].item(), least, (student, budget, scene, bounds))
        seen[strategies.STATUS[found["status"].item()]] += 1
    return seen


def compare_committed(seed, count, extend=lambda rng, draws: draws):
    rng = np.random.default_rng(seed)
    compared = 0
    for _ in range(count):
        student, budget, scene, bounds = random_problem(rng)
        draws = extend(rng, random_draws(rng, 12, spread=0.3))
        found = chosen_strategies(draws, Problem([student], [budget], [scene], bounds=bounds))
        least, _, _ = dense_search(draws, student, budget, scene, bounds, PUBLISHED_SHAPE)
        if not np.isfinite(least):
            continue
        is_no_worse(found["loss"].mean(), least, (student, budget, scene, bounds))
        compared += 1
    return compared


def test_the_best_strategy_is_that_of_a_dense_search():
    assert compare_best(seed=1, count=40).total() > 30


def test_the_committed_strategy_is_that_of_a_dense_search():
    assert compare_committed(seed=2, count=8) >= 6


def tied(rng, draws):
    """The same laws with the student's power sum tied to its ability, and growing faster with it than the excess falls with L_T."""
    draws = extended(rng, {**draws, "c0": abs(draws["c0"])})
    multiple, power = np.exp(rng.normal(size=draws["E"].size)), draws["c0"] + rng.exponential(size=draws["E"].size)
    tokens = draws["B"] * draws["kappa"] ** -draws["beta"]
    same = {"alpha_S": draws["alpha"], "beta_S": draws["beta"], "gamma_S": power * draws["gamma"]}
    return Draws(EXTENDED, {**draws, **same, "A_S": multiple * draws["A"], "B_S": multiple * tokens})


def test_more_tokens_do_not_make_a_student_worse():
    """With omega 0 for any law; else for tied exponents with gamma_S / gamma >= c0 >= 0, and teachers that a law can have."""
    rng = np.random.default_rng(0)
    tokens = np.geomspace(1e8, 1e16, 161)[:, None]
    published = Draws(EXTENDED, {**bd.PUBLISHED, "w1": 0.0, "kappa": np.linspace(0.3, 4, 30), "omega": 0.0})
    for draws in (
        published,
        Draws(EXTENDED, {**extended(rng, random_draws(rng, 300)), "omega": np.zeros(300)}),
        tied(rng, random_draws(rng, 300)),
    ):
        for student in (1e8, 1e9, 1e10):
            for above in (0.01, 0.4, 0.8, 1.2, 1.8):
                loss = draws.distilled_loss(student, tokens, draws["E"] + above)
                assert (np.diff(loss, axis=0) <= 1e-12).all()


def test_optima_of_extended_laws_are_those_of_a_dense_search():
    assert compare_best(seed=6, count=30, extend=extended).total() > 22
    assert compare_committed(seed=7, count=4, extend=extended) >= 3


@pytest.mark.slow
def test_a_thousand_optima_where_tokens_are_short():
    assert compare_best(seed=8, count=1000, extend=extended).total() > 900
    assert compare_committed(seed=9, count=60, extend=extended) > 45


def bump(log_excess, student, teacher_loss, log_ratio, p):
    """A factor of the excess that depends on the teacher's loss alone, and neither rises nor falls throughout."""
    return log_excess + p["bump"] * np.exp(-(((teacher_loss - 2.1) / 0.2) ** 2))


BUMP = Term(name="bump", parameters=(Parameter("bump", "1", "bump", "Of a user.", domain="real"),), excess=bump)


def with_a_term_of_a_user(rng, draws):
    law = LAWS["busbridge2025"].with_terms(BUMP)
    return Draws(law, {**draws, "bump": rng.uniform(-1, 1, draws.n_draws)})


def test_optima_of_a_law_with_a_term_of_a_user_are_those_of_a_dense_search():
    assert compare_best(seed=21, count=60, extend=with_a_term_of_a_user).total() > 45
    assert compare_committed(seed=22, count=8, extend=with_a_term_of_a_user) >= 6


def test_the_chosen_strategy_is_not_a_local_minimum_of_the_valley_of_equal_teachers(fit354):
    """In the best case small overtrained teachers and large undertrained ones differ by some 1e-5 nats."""
    draws = gather(fit354, allow_unconverged=True).draws
    students, budgets = [3e8, 1e9], np.array([5.6e22, 1e24])
    found = chosen_strategies(draws, Problem(students, budgets, "best case"))
    sizes = np.geomspace(1e9, 3e10, 101)
    for a, student in enumerate(students):
        for c, budget in enumerate(budgets):
            tokens = pretraining_tokens(student, budget)
            teachers = draws.supervised_loss(sizes[:, None], Bounds().max_teacher_tokens)
            overtrained = draws.distilled_loss(student, tokens, teachers)
            assert found["loss"][a, 0, c].mean() <= overtrained.mean(axis=-1).min() + 1e-9


def test_no_minimum_on_the_curve_is_missed():
    """Many laws at once against 1700 points of the curve of each: which cells are left out changes nothing."""
    rng = np.random.default_rng(11)
    ts = np.concatenate([np.linspace(-0.25, 0, 60), np.linspace(0, 1, 1600), np.linspace(1, 1.25, 60)])
    compared = 0
    for _ in range(40):
        student, budget, scene, bounds = random_problem(rng)
        draws = random_draws(rng, 64)
        found = perfect_information_strategies(draws, Problem([student], [budget], [scene], bounds=bounds))[
            "loss"
        ].ravel()
        charges = Charges(float(flops_per_token(student)), scene.delta_lgt, scene.delta_pre, bounds.max_student_tokens)
        with np.errstate(all="ignore"):
            frontier = Frontier(bounds, PUBLISHED_SHAPE, charges, Losses(draws))
            teacher = frontier.teacher(ts[:, None], budget)
            own = charges.student_tokens(budget, teacher.flops, teacher.tokens)
            loss = draws.distilled_loss(student, own, draws.supervised_loss(teacher.params, teacher.tokens))
        least = np.where(own >= 1, loss, np.inf).min(axis=0)
        possible = np.isfinite(least)
        assert np.isfinite(found[possible]).all()
        assert (found[possible] <= least[possible] + 1e-10).all(), (student, budget, scene, bounds)
        compared += possible.sum()
    assert compared > 2000


def test_a_far_end_of_a_valley_and_a_minimum_beside_a_crease_are_found():
    rng = np.random.default_rng(4)
    for k in range(169):
        problem, draws = random_problem(rng), random_draws(rng, 12, spread=0.3)
        if k not in (68, 168):  # a crease at the cap on student tokens; a valley of small, overtrained teachers
            continue
        student, budget, scene, bounds = problem
        found = chosen_strategies(draws, Problem([student], [budget], [scene], bounds=bounds))
        is_no_worse(found["loss"].mean(), dense_search(draws, *problem, PUBLISHED_SHAPE)[0], problem)


@pytest.mark.slow
def test_two_thousand_optima():
    seen = compare_best(seed=3, count=2200)
    assert seen.total() >= 2000
    # Bounds that hold the optimum, each of them and two at once, and bounds that do not.
    for status in strategies.STATUS[: strategies.FIRST_FAILURE]:
        assert seen[status] >= 20 or "per_param" in status or "loss" in status, seen
    assert compare_committed(seed=4, count=200) > 150


def test_the_strategy_is_worth_what_it_says_and_costs_the_budget():
    rng = np.random.default_rng(5)
    for _ in range(30):
        student, budget, scene, bounds = random_problem(rng)
        draws = random_draws(rng, 3)
        found = perfect_information_strategies(draws, Problem([student], [budget], [scene], bounds=bounds))
        at = {name: value.ravel() for name, value in found.items()}
        for i in np.flatnonzero(np.isfinite(at["loss"])):
            law = {name: float(value[i]) for name, value in draws.items()}
            teacher = bd.supervised_loss(
                at["teacher_params"][i], at["teacher_tokens"][i], **{name: law[name] for name in SUPERVISED_SYMBOLS}
            )
            assert at["teacher_loss"][i] == pytest.approx(teacher, abs=1e-9)
            assert at["loss"][i] == pytest.approx(
                bd.distilled_loss(student, at["student_tokens"][i], at["teacher_loss"][i], **law), abs=1e-9
            )
            spent = distillation_flops(
                student, at["student_tokens"][i], at["teacher_params"][i], at["teacher_tokens"][i], scene
            )
            assert spent <= budget * (1 + 1e-9)
            assert at["teacher_params"][i] <= bounds.max_teacher_params * (1 + 1e-9)
            assert at["student_tokens"][i] <= bounds.max_student_tokens * (1 + 1e-9)


def test_threads_change_no_bit_and_order_and_other_draws_no_digit_that_counts():
    draws = random_draws(np.random.default_rng(6), 37)
    students, budgets = [2e8, 3e9, 1e9], [1e19, 1e21, 1e24]
    scenes = list(SCENARIOS.values())
    whole = perfect_information_strategies(draws, Problem(students, budgets, scenes), threads=1)
    for name, value in perfect_information_strategies(draws, Problem(students, budgets, scenes), threads=2).items():
        np.testing.assert_array_equal(value, whole[name])
    turned = perfect_information_strategies(draws, Problem(students[::-1], budgets, scenes))
    np.testing.assert_allclose(turned["loss"][::-1], whole["loss"], rtol=1e-9)
    part = perfect_information_strategies(draws.take(slice(5, 9)), Problem(students, budgets, scenes))
    np.testing.assert_allclose(part["loss"], whole["loss"][..., 5:9], rtol=1e-9)


def test_more_budget_never_raises_the_loss_and_a_larger_share_never_lowers_it():
    draws = random_draws(np.random.default_rng(7), 10)
    budgets = np.geomspace(1e18, 1e25, 15)
    scenes = [bd.Scenario(lgt, pre) for lgt in (0.0, 0.3, 1.0) for pre in (0.0, 0.3, 1.0)]
    loss = perfect_information_strategies(draws, Problem([3e8, 3e9], budgets, scenes))["loss"]
    assert (np.diff(loss, axis=2) <= 1e-9).all()
    shares = loss.reshape(2, 3, 3, budgets.size, -1)
    assert (np.diff(shares, axis=1) >= -1e-9).all()
    assert (np.diff(shares, axis=2) >= -1e-9).all()


def test_pretraining_is_the_supervised_law():
    draws = random_draws(np.random.default_rng(8), 5)
    found = supervised_losses(draws, Problem([1e9], [1e20, 1e22], ()))
    tokens = pretraining_tokens(1e9, np.array([1e20, 1e22]))[:, None]
    six = {name: draws[name] for name in SUPERVISED_SYMBOLS}
    np.testing.assert_allclose(found[0], bd.supervised_loss(1e9, tokens, **six), rtol=1e-12)


def test_pretraining_below_a_token_has_no_loss_and_at_the_cap_no_lower_one():
    draws = random_draws(np.random.default_rng(8), 5)
    token = 3 * flops_per_token(1e9)
    budgets = [0.99 * token, 1.01 * token, 1e10 * token, 1e12 * token]
    found = supervised_losses(draws, Problem([1e9], budgets, (), Bounds(max_student_tokens=1e10)))
    assert np.isnan(found[0, 0]).all()
    assert np.isfinite(found[0, 1:]).all()
    np.testing.assert_array_equal(found[0, 3], found[0, 2])


def test_the_committed_teacher_of_a_table_is_the_best_on_average():
    draws = Draws(LAWS["busbridge2025"], {**bd.PUBLISHED, "E": np.full(2, bd.PUBLISHED["E"])})
    # The first is far the better in one draw and far the worse in the other.
    measured = np.array([[2.1, 2.9], [2.3, 2.3]])
    found = chosen_strategies(draws, Problem([1e9], [1e21], "best case", teachers=([2e9, 2e9], measured)))
    tokens = pretraining_tokens(1e9, 1e21)
    losses = [bd.distilled_loss(1e9, tokens, teacher, **draws) for teacher in measured]
    assert losses[0].min() < losses[1].min()
    assert losses[0].mean() > losses[1].mean()
    assert found["teacher_index"].item() == 1
    np.testing.assert_allclose(found["loss"].ravel(), losses[1], atol=1e-12)
    best = perfect_information_strategies(draws, Problem([1e9], [1e21], "best case", teachers=([2e9, 2e9], measured)))
    assert best["teacher_index"].ravel().tolist() == [0, 1]


def strategies_at(params, tokens, own, loss=2.0):
    named = {"teacher_params": params, "teacher_tokens": tokens, "student_tokens": own}
    return {name: np.asarray(v, float) for name, v in named.items()} | {"teacher_loss": np.full(np.shape(own), loss)}


def test_every_bound_has_its_status():
    bounds = Bounds(1e7, 1e11, 1e8, 1e13, max_student_tokens=1e12)
    cases = {
        "ok": (1e9, 1e10, 1e11),
        "teacher_params_at_min": (1e7, 1e10, 1e11),
        "teacher_params_at_max": (1e11, 1e10, 1e12),
        "teacher_tokens_at_min": (1e9, 1e8, 1e11),
        "teacher_tokens_at_max": (1e9, 1e13, 1e12),
        "teacher_at_corner": (1e11, 1e13, 1e12),
        "student_tokens_at_max": (1e9, 1e10, 1e12),
    }
    codes = bound_status(strategies_at(*np.array(list(cases.values())).T), bounds)
    assert [strategies.STATUS[code] for code in codes] == list(cases)
    corners = bound_status(strategies_at([1e7, 1e7, 1e11], [1e8, 1e13, 1e8], np.full(3, 1e11)), bounds)
    assert {strategies.STATUS[code] for code in corners} == {"teacher_at_corner"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("w1", 1.01), ("w1", -0.01), ("omega", 1.01), ("kappa", 0.0), ("B_S", -1.0), ("f1", 0.0), ("E", np.inf)],
)
def test_a_draw_that_is_no_law_has_a_status(name, value):
    sound = {**random_draws(np.random.default_rng(9), 3)}
    sound |= {"w1": np.full(3, 0.5), "kappa": np.full(3, 2.0), "omega": np.ones(3)}
    draws = Draws(EXTENDED, sound | {name: np.array([sound[name][0], value, sound[name][2]])})
    best = perfect_information_strategies(draws, Problem([1e9], [1e21], "teacher inference"))
    assert [strategies.STATUS[code] == "invalid_draw" for code in best["status"].ravel()] == [False, True, False]
    assert np.isnan(best["loss"].ravel()).tolist() == [False, True, False]
    # One such draw makes the mean over draws meaningless.
    together = chosen_strategies(draws, Problem([1e9], [1e21], "teacher inference"))
    assert strategies.STATUS[together["status"].item()] == "invalid_draw"
    assert np.isnan(together["loss"]).all()


@pytest.mark.parametrize("bad", [np.nan, -1.0, np.inf])
@pytest.mark.parametrize("place", range(3))
def test_existing_teachers_without_valid_numbers_have_a_status(bad, place):
    teachers = [np.array([1e9]), np.array([2.1]), np.array([2e10])]
    teachers[place] = np.array([bad])
    for search in (perfect_information_strategies, chosen_strategies):
        found = search(PUBLISHED, Problem([1e9], [1e21], "teacher pretraining", teachers=tuple(teachers)))
        assert {strategies.STATUS[code] for code in found["status"].ravel()} == {"invalid_teacher"}
        assert np.isnan(found["student_tokens"]).all()


@pytest.mark.parametrize("budget", [1.0, 1e8])
def test_a_budget_below_one_token_has_a_status(budget):
    found = perfect_information_strategies(PUBLISHED, Problem([1e9], [budget], ["best case"]))
    assert np.isnan(found["loss"]).all()
    assert "budget" in strategies.STATUS[found["status"].item()]


def test_nan_in_one_draw_leaves_the_others_alone():
    draws = random_draws(np.random.default_rng(9), 4)
    clean = perfect_information_strategies(draws, Problem([1e9], [1e21], ["teacher inference"]))["loss"].ravel()
    draws = Draws(draws.law, {**draws, "c0": np.where(np.arange(4) == 2, np.nan, draws["c0"])})
    found = perfect_information_strategies(draws, Problem([1e9], [1e21], ["teacher inference"]))
    assert np.isnan(found["loss"].ravel()[2])
    np.testing.assert_allclose(found["loss"].ravel()[[0, 1, 3]], clean[[0, 1, 3]], rtol=1e-9)


# Problems with more than a budget ---------------------------------------------------------------------------------------


def restrict(rng, bounds):
    """Bounds on tokens per parameter and on the loss of the teacher, each on one or both sides or not at all."""
    more = {}
    few, loss = 10 ** rng.uniform(-1, 2.5), rng.uniform(1.7, 2.6)
    if rng.uniform() < 0.5:
        more["min_teacher_tokens_per_param"] = few
    if rng.uniform() < 0.5:
        more["max_teacher_tokens_per_param"] = few * 10 ** rng.uniform(0.3, 3)
    if rng.uniform() < 0.4:
        more["min_teacher_loss"] = loss
    if rng.uniform() < 0.4:
        more["max_teacher_loss"] = loss + rng.uniform(0.02, 1)
    return replace(bounds, **more)


def compare_restricted(seed, count, search, n_draws, spread=1.0):
    """Statuses of strategies with restricted teachers, inference and repeated tokens; none is worse than the dense search."""
    rng = np.random.default_rng(seed)
    seen = Counter()
    for _ in range(count):
        student, budget, scene, bounds = random_problem(rng)
        bounds, draws = restrict(rng, bounds), random_draws(rng, n_draws, spread)
        served = 10 ** rng.uniform(9, 14) if rng.uniform() < 0.3 else 0.0
        unique = 10 ** rng.uniform(9, 13) if rng.uniform() < 0.3 else np.inf
        enough = 10 ** rng.uniform(8, 11) if np.isfinite(unique) and rng.uniform() < 0.5 else np.inf
        limited = draws
        if np.isfinite(unique):
            limited = replace(draws, repetition=Repetition(unique, enough_params=enough))
        problem = Problem([student], [budget], scene, bounds, served_tokens=served)
        found = search(limited, problem)
        least, _, _ = dense_search(
            draws, student, budget, scene, bounds, PUBLISHED_SHAPE, served=served, unique=unique, enough=enough
        )
        loss, status = found["loss"].mean(), strategies.STATUS[found["status"].item()]
        seen[status] += 1
        assert np.isfinite(loss) == (strategies.STATUS.index(status) < strategies.FIRST_FAILURE)
        if np.isfinite(least):  # the grid can miss a narrow region, and is coarse in it
            assert loss < least + CLOSE, (problem, loss, least)
        if not np.isfinite(loss):
            continue
        params, tokens, own = (found[name].item() for name in ("teacher_params", "teacher_tokens", "student_tokens"))
        cost = distillation_flops(student, own, params, tokens, scene) + served * flops_per_token(student)
        assert cost <= budget * (1 + 1e-9)
        at_once = strategy_loss(
            draws, student, budget, scene, Bounds(), PUBLISHED_SHAPE, np.log([params]), np.log([tokens]),
            served=served, unique=unique, enough=enough,
        )  # fmt: skip
        if own < bounds.max_student_tokens * (1 - 1e-9):
            assert loss == pytest.approx(at_once.mean(), abs=1e-9)
        ratio, of_teacher = tokens / params, found["teacher_loss"].mean()
        for value, low, high in (
            (params, bounds.min_teacher_params, bounds.max_teacher_params),
            (tokens, bounds.min_teacher_tokens, bounds.max_teacher_tokens),
            (ratio, bounds.min_teacher_tokens_per_param, bounds.max_teacher_tokens_per_param),
            (of_teacher, bounds.min_teacher_loss, bounds.max_teacher_loss),
        ):
            assert low * (1 - 1e-7) <= value <= high * (1 + 1e-7), problem
    return seen


def test_restricted_teachers_inference_and_repeated_tokens_with_perfect_information():
    seen = compare_restricted(31, 120, perfect_information_strategies, 1)
    for status in ("tokens_per_param_at_min", "tokens_per_param_at_max", "loss_at_min", "loss_at_max"):
        assert seen[f"teacher_{status}"] >= 1, seen
    assert seen["no_teacher_in_bounds"] >= 1


def test_restricted_teachers_inference_and_repeated_tokens_of_the_chosen_strategy():
    seen = compare_restricted(32, 25, chosen_strategies, 12, spread=0.3)
    assert seen.total() - seen["budget_too_small"] - seen["no_teacher_in_bounds"] >= 15


@pytest.mark.slow
def test_hundreds_of_restricted_problems():
    seen = compare_restricted(33, 1450, perfect_information_strategies, 1)
    seen += compare_restricted(34, 250, chosen_strategies, 12, spread=0.3)
    for status in strategies.STATUS[strategies.STATUS.index("teacher_tokens_per_param_at_min") :][:4]:
        assert seen[status] >= 30, seen


@pytest.mark.parametrize("search", [perfect_information_strategies, chosen_strategies])
@pytest.mark.parametrize(
    "teachers", [pytest.param(None, marks=pytest.mark.slow), ([2e9, 8e9], [2.2, 2.0], [4e10, 3e11])]
)
def test_the_loss_of_a_budget_as_a_target_gives_the_budget(search, teachers):
    """With a serving cost, repeated tokens and bounds; every scenario."""
    draws = random_draws(np.random.default_rng(35), 6, spread=0.3)
    bounds = Bounds(max_teacher_tokens_per_param=2000.0, min_teacher_loss=1.9)
    draws = replace(draws, repetition=Repetition(1e12))
    options = {"served_tokens": 3e10, "serving_price": 0.5, "teachers": teachers}
    budgets = np.array([3e20, 3e21, 4e22])
    problem = Problem([3e8, 2e9], budgets, tuple(SCENARIOS), bounds, **options)
    losses = search(draws, problem)["loss"]
    for a, b in np.ndindex(losses.shape[:2]):
        if search is chosen_strategies:
            targets, expected = losses[a, b].mean(axis=-1), budgets
        else:
            targets, expected = losses[a, b, :, 2], budgets
        asked = replace(
            problem, students=problem.students[[a]], scenarios=problem.scenarios[b : b + 1], budgets=(), targets=targets
        )
        found = search(draws, asked)
        got = found["budget"][0, 0] if search is chosen_strategies else found["budget"][0, 0, :, 2]
        possible = np.isfinite(targets)
        assert possible.sum() >= 2
        np.testing.assert_allclose(got[possible], expected[possible], rtol=1e-6)
        reached = found["loss"].mean(axis=-1)[0, 0] if search is chosen_strategies else found["loss"][0, 0]
        goal = targets if search is chosen_strategies else targets[:, None]
        assert np.nanmax(np.abs(reached - goal)) < 1e-8


def test_a_lower_target_costs_more_and_one_below_the_irreducible_loss_is_unreachable():
    draws = random_draws(np.random.default_rng(36), 20)
    targets = [3.0, 2.6, 2.3, 1.0, np.nan]
    problem = Problem([1e9], (), ["best case", "teacher pretraining"], targets=targets)
    found = perfect_information_strategies(draws, problem)
    assert (np.diff(found["budget"][0, :, :3], axis=1) > 0).all()
    names = np.array(strategies.STATUS)[found["status"]]
    assert (names[0, :, 3] == "target_unreachable").all()
    assert (names[0, :, 4] == "invalid_problem").all()
    for name in ("budget", "loss", "teacher_params", "student_tokens"):
        assert np.isnan(found[name][0, :, 3:]).all()
    with pytest.raises(bd.ParameterError, match="either budgets or target losses"):
        Problem([1e9], [1e21], "best case", targets=[2.0])


def test_inference_is_paid_first_and_repetition_of_unlimited_text_changes_nothing():
    draws = random_draws(np.random.default_rng(37), 8, spread=0.5)
    scenes, budgets = tuple(SCENARIOS), np.array([1e21, 1e22])
    serving = 2e11 * flops_per_token(1e9)
    for search in (perfect_information_strategies, chosen_strategies):
        plain = search(draws, Problem([1e9], budgets, scenes))
        served = search(draws, Problem([1e9], budgets + serving, scenes, served_tokens=4e11, serving_price=0.5))
        rule = Repetition(1e30, enough_params=np.full(8, 1e30))
        unlimited = search(replace(draws, repetition=rule), Problem([1e9], budgets, scenes))
        for other in (served, unlimited):
            np.testing.assert_allclose(other["loss"], plain["loss"], rtol=1e-9)
    alone = supervised_losses(draws, Problem([1e9], budgets, ()))
    np.testing.assert_allclose(
        supervised_losses(draws, Problem([1e9], budgets + serving, (), served_tokens=2e11)), alone, rtol=1e-12
    )
    rule = Repetition(2e10, enough_params=np.full(8, 4e8))
    limited = supervised_losses(replace(draws, repetition=rule), Problem([1e9], budgets, ()))
    tokens = effective_tokens(pretraining_tokens(1e9, budgets), 2e10)[:, None]
    np.testing.assert_allclose(
        limited[0], draws.supervised_loss(effective_tokens(1e9, 4e8, 5.309743), tokens), rtol=1e-12
    )


def test_repeated_tokens_are_worth_what_the_study_says():
    """Muennighoff et al. (2023): four epochs are nearly as good as unique tokens, forty are worth little more than twenty."""
    rule = Repetition(1e11)
    epochs = np.array([0.5, 1.0, 4.0, 40.0, 1e6]) * 1e11
    value = rule.effective(epochs)
    np.testing.assert_allclose(value, effective_tokens(epochs, 1e11), rtol=1e-12)
    np.testing.assert_array_equal(value[:2], epochs[:2])
    assert 0.9 < value[2] / epochs[2] < 1
    assert value[-1] == pytest.approx(16.387756e11, rel=1e-6)
    step = 1e-6
    slope = np.log(rule.effective(epochs * np.exp(step)) / rule.effective(epochs * np.exp(-step))) / (2 * step)
    np.testing.assert_allclose(np.exp(rule.log_elasticity(epochs))[[0, 2, 3]], slope[[0, 2, 3]], rtol=1e-5)
    with pytest.raises(bd.ParameterError, match="unique_tokens"):
        Repetition(0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Problem([1e9], (), "best case"), "either budgets or target losses"),
        (lambda: Problem([1e9], None, "best case", targets=[[2.0, 2.1]]), "`targets` must have one dimension"),
        (
            lambda: Problem([1e9], [1e21], "best case", served_tokens=-1e12),
            "`served_tokens` must be finite and not negative",
        ),
        (
            lambda: Problem([1e9], [1e21], "best case", serving_price=np.nan),
            "`serving_price` must be a number, got nan",
        ),
        (lambda: Bounds(max_teacher_params="1B"), "`max_teacher_params` must be a number, got '1B'"),
        (lambda: Bounds(min_teacher_loss=np.nan), "`min_teacher_loss` must be a number, got nan"),
        (lambda: Repetition("10B"), "`unique_tokens` must be positive and finite, got '10B'"),
        (lambda: Repetition(1e9, np.inf), "`decay` must be positive and finite"),
    ],
)
def test_what_cannot_be_a_problem_is_rejected_by_name(make, message):
    with pytest.raises(bd.ParameterError, match=message):
        make()


@pytest.mark.parametrize("search", [perfect_information_strategies, chosen_strategies])
@pytest.mark.parametrize("asked", [{"budgets": [1e22]}, {"budgets": (), "targets": [2.3]}])
def test_nothing_within_bounds_and_no_teachers_have_a_status(search, asked):
    draws = random_draws(np.random.default_rng(38), 3, spread=0.3)
    for limits in (
        Bounds(min_teacher_tokens_per_param=30.0, max_teacher_tokens_per_param=20.0),
        Bounds(max_teacher_tokens_per_param=0.0),
        Bounds(min_teacher_loss=2.4, max_teacher_loss=2.3),
        Bounds(max_teacher_loss=1.0),
    ):
        found = search(draws, Problem([1e9], scenarios="teacher pretraining", bounds=limits, **asked))
        assert {strategies.STATUS[code] for code in found["status"].ravel()} == {"no_teacher_in_bounds"}
        assert np.isnan(found["loss"]).all()
    empty = search(draws, Problem([1e9], scenarios="teacher inference", teachers=([], []), **asked))
    assert {strategies.STATUS[code] for code in empty["status"].ravel()} == {"no_teacher_in_bounds"}
    nobody = search(draws, Problem([], scenarios="best case", **asked))
    assert nobody["status"].shape[:3] == (0, 1, 1)


def test_most_optima_between_two_budgets_are_found_from_their_neighbors(fit354, monkeypatch):
    accepted, asked = [], []
    search_between = perfect_information._search_between

    def counted(curves, problems, neighbors, found):
        near = search_between(curves, problems, neighbors, found)
        accepted.append(near.size)
        asked.append(problems[0].size)
        return near

    monkeypatch.setattr(perfect_information, "_search_between", counted)
    draws = gather(fit354, allow_unconverged=True).draws.take(slice(0, 100))
    perfect_information_strategies(draws, Problem([1e9], np.geomspace(1e19, 1e25, 31), tuple(SCENARIOS)), threads=1)
    assert sum(asked) == 4 * 20 * 100
    assert sum(accepted) > 0.8 * sum(asked)
