"""Every public function answers odd arguments with a result or with an error of the package that names them."""

from __future__ import annotations

import inspect
import math
import typing
import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import changed_files
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, Phase, assume, given, settings
from test_plots_options import CASES

import bayesdistill as bd
from bayesdistill import arguments, cli
from bayesdistill.arguments import RANGES, RULES, Range

SEEDS_WRONG = [-1, 2**64, 1.5, "1", True, None, [], [1], math.nan, np.float64(1), np.array([1, 2]), {}]


# Rules ----------------------------------------------------------------------------------------------------------------


def test_numpy_numbers_and_arrays_without_dimensions_are_numbers():
    rule = Range(1, 10)
    for value in (
        3,
        3.0,
        np.float32(3),
        np.int8(3),
        np.array(3),
        np.array(3.0),
        xr.DataArray(3),
        Decimal(3),
        Fraction(3),
    ):
        assert rule(value, "x") == 3
        assert type(rule(value, "x")) in (int, float)
    assert type(Range(1, 10, whole=True)(np.uint8(3), "x")) is int


@pytest.mark.parametrize(
    "value",
    [
        *(True, np.True_, "3", None, [3], np.array([3]), math.nan, math.inf, 10**400, 3 + 0j, {}, pd.NA),
        *(Decimal("sNaN"), Decimal("-inf"), Fraction(10**400)),
    ],
)
@pytest.mark.parametrize("rule", [Range(), Range(1, 10), Range(1, 10, whole=True), Range(0, 10, above=True)])
def test_other_values_are_rejected(rule, value):
    with pytest.raises(bd.ParameterError, match=r"^`x` must be a.* (number|integer)|^`x` must be an integer") as error:
        rule(value, "x")
    assert len(str(error.value)) < 300


def test_the_error_describes_the_range():
    words = {
        Range(1, 10, "FLOPs"): "`x` must be a number from 1 to 10 FLOPs, got 11.",
        Range(0, 1, above=True): "`x` must be a number above 0 and at most 1, got 11.",
        Range(1, 5, whole=True): "`x` must be an integer from 1 to 5, got 11.",
    }
    for rule, message in words.items():
        with pytest.raises(bd.ParameterError) as error:
            rule(11, "x")
        assert str(error.value) == message
    with pytest.raises(bd.ParameterError, match=r"^`x` must be a finite number of at least 12, got 11\.$"):
        Range(12)(11, "x")


def test_long_values_are_cut():
    for value in (list(range(10**5)), "x" * 10**6, dict.fromkeys(range(1000), "y" * 100), np.arange(10**6)):
        assert len(arguments.shown(value)) < 300


ABSURD: dict[str, Callable[[xr.Dataset], Any]] = {
    "budgets": lambda fit: bd.plan(fit, "1B", [1e300]),
    "vocabulary_size": lambda fit: bd.Shape(vocabulary_size=1e-300),
    "params": lambda fit: bd.flops_per_token(-5),
    "students": lambda fit: bd.plan(fit, 1e300, 1e21),
    "target_accept": lambda fit: bd.fit(bd.load_runs(), target_accept=1e-300),
    "prob": lambda fit: bd.law_curves(fit, prob=1e-300),
    "widen": lambda fit: bd.fit(bd.load_runs(), priors=fit, widen=1e300),
    "max_student_tokens": lambda fit: bd.plan(fit, "1B", 1e21, max_student_tokens=1e-300),
    "draws": lambda fit: bd.prior_predictive(bd.load_runs(), draws=10),
    "simulations": lambda fit: bd.simulate_calibration(bd.load_runs(), simulations=0),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_values_are_rejected_for_the_true_reason(name, published_draw):
    with pytest.raises(bd.ParameterError, match=f"^`{name}` must be .*, got "):
        ABSURD[name](published_draw)


@pytest.mark.parametrize("students", [1e18, "1e18", [1e9, 1e18], 10])
def test_students_have_the_sizes_of_models(students, published_draw):
    with pytest.raises(bd.ParameterError, match="`students` must be a number from 1000 to 1e"):
        bd.plan(published_draw, students, 1e21)


def test_few_draws_are_too_few_for_importance_sampling(few):
    fit = first(few, 10)
    for function, caller in ((bd.loo, "loo"), (bd.prior_sensitivity, "prior_sensitivity")):
        with pytest.raises(bd.ModelError, match=f"{caller} requires at least 50 draws, but the fit has 20"):
            function(fit)


# Every function -------------------------------------------------------------------------------------------------------

numbers = st.one_of(
    st.integers(-3, 30),
    st.integers(),
    st.floats(),
    st.floats(-2, 2),
    st.floats(3, 40).map(lambda x: 10**x),
    st.just(10**400),
)
odd = st.one_of(
    numbers,
    st.none(),
    st.booleans(),
    st.text(max_size=5),
    st.sampled_from(["1B", "1e9", "best case", "$\\frac$", "run", "teacher", "-1", "nan"]),
    st.lists(numbers | st.text(max_size=2), max_size=3),
    st.lists(st.lists(numbers, max_size=2), max_size=2),
    numbers.filter(lambda x: isinstance(x, float)).map(np.float64),
    st.integers(-3, 30).map(np.int16),
    st.floats().map(np.array),
    st.lists(st.floats(), max_size=3).map(np.array),
    st.sampled_from(
        [
            {},
            {"a": 1},
            set(),
            1j,
            object(),
            b"x",
            np.timedelta64(1, "s"),
            np.array(["x"]),
            np.array([True]),
            lambda x: x,
        ]
    ),
    st.sampled_from(
        [pd.NA, pd.NaT, pd.DataFrame(), pd.Series([1.0]), xr.Dataset(), xr.DataArray([1.0]), xr.DataTree(), bd.Scenario]
    ),
)

ELSEWHERE = {"path", "folder", "checkpoint", "log", "runs", "design"}
"""Arguments for files and tables of runs, which have tests of their own."""
TEACHERS = pd.DataFrame({"params": [3e9], "loss": [2.1], "tokens": [6e10]})
CANDIDATES = pd.DataFrame({"params": [1e9, 3e8], "tokens": [2e10, 2e10]})
RUN = pd.DataFrame({"student_params": [5.46e8], "student_tokens": [1.207e10], "teacher_loss": [2.18485]})
OF_FITS: dict[str, tuple[Any, ...]] = {
    "break_even": ("1B", 1e20),
    "capacity_gap": ("1B",),
    "compute_optimal": ([1e20, 1e21],),
    "crossovers": ("1B", "best case"),
    "family_plan": ("1B", 1e21),
    "information_order": (CANDIDATES,),
    "interactive_page": ("page.html",),
    "lifetime": (1e12, "best case"),
    "next_runs": (CANDIDATES, "1B", 3e22, "best case"),
    "next_supervised_runs": (CANDIDATES, 1e23),
    "paper_claims": (["300M", "1B"],),
    "plan": ("1B", 1e21, "best case"),
    "plan_tokens": ("1B", 1e10),
    "predict": (RUN,),
    "recommendations": ("1B",),
    "sharing_map": ("1B", 1e21, 10),
    "show_interactive": (),
    "student_choice": ("1B", 1e21, "best case"),
    "target_loss": ("1B", 2.3, "best case"),
    "teacher_choice": (TEACHERS, "1B", 1e21),
    "law_curves": (),
    "posterior_predictive": (),
    "residual_structure": (),
    "prior_sensitivity": (),
    "check": (),
    "loo": (),
    "cite": (),
    "methods_text": (),
    "prior_table": (),
    "law_of": (),
    "law_draws": (),
    "provenance": (),
}
"""Functions of a fit, with their other required arguments."""
CHEAP: dict[str, dict[str, Any]] = {
    "capacity_gap": {"student_tokens": 1e10, "teacher_losses": [2.0, 2.5]},
    "crossovers": {"budgets": [1e20, 1e22, 1e24]},
    "lifetime": {"budgets": 1e22, "students": "1B"},
    "next_runs": {"outcomes": 10},
    "next_supervised_runs": {"outcomes": 10},
    "recommendations": {"budgets": [1e21], "tokens": [1e10]},
    "residual_structure": {"shuffles": 20},
    "law_curves": {"points": 5},
}
OTHERS: dict[str, tuple[Any, ...]] = {
    "Scenario": (1, 0.5),
    "Shape": (),
    "Prior": (0, 1),
    "Parameter": ("x", "1", "x"),
    "Coordinate": ("log_x", "x", bd.Prior(0, 1)),
    "ConvergenceThresholds": (),
    "distillation_flops": (3e8, 2e10, 7e9, 1.4e11, "best case"),
    "flops_per_token": (1e9,),
    "cheapest_first": (CANDIDATES,),
    "random_order": (CANDIDATES,),
    "run_costs": (CANDIDATES,),
    "simulate_runs": (bd.PUBLISHED,),
    "backtest": (bd.load_runs("tiny"), bd.load_runs("tiny", kind="supervised")),
    "leave_out": (bd.load_runs("tiny"), "student"),
    "simulate_calibration": (bd.load_runs().iloc[::20],),
    "prior_predictive": (bd.load_runs().iloc[::20],),
    "fit": (bd.load_runs("tiny"),),
}
"""Functions of other things, with their required arguments."""
REQUIRED = {"random_order": {"seed": 0}, "simulate_runs": {"seed": 0}, "prior_predictive": {"draws": 20}} | {
    "simulate_calibration": {"simulations": 1}
}
PLOTS = {case.plot.__name__: case.make for case in CASES.values()}


def options_of(name: str) -> dict[str, Any]:
    """Options that make a function cheap, and let it use a fit with few draws."""
    unconverged = "allow_unconverged" in inspect.signature(getattr(bd, name)).parameters
    return CHEAP.get(name, {}) | ({"allow_unconverged": True} if unconverged else {})


class Stop(bd.ModelError):
    """Raised in place of sampling."""


@pytest.fixture(scope="module")
def few() -> xr.DataTree:
    """A fit with 60 draws in two chains."""
    return changed_files.small_fit()


def first(fit: xr.DataTree, draws: int) -> xr.DataTree:
    """The fit with the first draws of each chain."""
    groups = {name: node.to_dataset() for name, node in fit.children.items()}
    groups = {name: data.isel(draw=slice(0, draws)) if "draw" in data.dims else data for name, data in groups.items()}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = fit.attrs
    return tree


def required(name: str, few: xr.DataTree) -> tuple[Any, ...]:
    """The required arguments of a function; what searches for teachers takes as long as there are draws."""
    if name not in OF_FITS:
        return OTHERS[name]
    searches = "max_teacher_params" in inspect.signature(getattr(bd, name)).parameters
    return (first(few, 2) if searches else few, *OF_FITS[name])


@pytest.fixture
def _no_sampling(monkeypatch, tmp_path):
    def stop(*_: Any, **__: Any) -> typing.NoReturn:
        raise Stop("stopped before sampling")

    for target in (
        "sampling._fit.compiler.compile",
        "criticism._leave_out.run_missing",
        "criticism._backtest.run_missing",
    ):
        monkeypatch.setattr(f"bayesdistill.{target}", stop)
    monkeypatch.setattr("bayesdistill.criticism._simulate_calibration.run_missing", stop)
    monkeypatch.chdir(tmp_path)


def answer(name: str, value: st.DataObject, fixed: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Call a function with an odd value for one of its arguments."""
    function = getattr(bd, name)
    known = [p for p in inspect.signature(function).parameters if p not in ELSEWHERE]
    argument = value.draw(st.sampled_from(known), label="argument")
    given_value = value.draw(odd, label="value")
    rule = RULES.get(argument) or RANGES.get(argument)
    if type(given_value) in (int, np.int16) and isinstance(rule, Range):
        assume(
            not rule.whole or argument == "seed" or given_value <= 30 or not rule.holds(given_value)
        )  # slow, but valid
    bound = inspect.signature(function).bind_partial(*fixed, **named)
    bound.arguments[argument] = given_value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for category in (bd.ConvergenceWarning, bd.ExtrapolationWarning, bd.CompilerWarning):
            warnings.simplefilter("ignore", category)
        message = ""
        try:
            function(**bound.arguments)
        except bd.BayesdistillError as error:
            message = str(error)
        assert len(message) < 1000


def limited(examples: int) -> Any:
    return settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def cases(of: list[str]) -> Any:
    """Each function with a few values, and a slow version with many."""
    return pytest.mark.parametrize(
        ("name", "examples"),
        [(name, 12) for name in of] + [pytest.param(name, 50, marks=pytest.mark.slow) for name in of],
    )


@pytest.mark.usefixtures("_no_sampling")
@cases(sorted(OF_FITS))
def test_functions_of_a_fit(name, examples, few):
    fixed = required(name, few)

    @limited(examples)
    @given(st.data())
    def run(data):
        answer(name, data, fixed, options_of(name))

    run()


@pytest.mark.usefixtures("_no_sampling")
@cases(sorted(OTHERS))
def test_other_functions(name, examples):
    @limited(examples)
    @given(st.data())
    def run(data):
        answer(name, data, OTHERS[name], REQUIRED.get(name, {}))

    run()


@cases(sorted(PLOTS))
def test_plots(name, examples):
    made = PLOTS[name]()

    @limited(min(examples, 60))
    @given(st.data())
    def run(data):
        answer(name, data, (made,), {"size": "column"})

    run()


@pytest.mark.usefixtures("_no_sampling")
@pytest.mark.parametrize(
    "name", sorted(n for n in [*OF_FITS, *OTHERS] if "seed" in inspect.signature(getattr(bd, n)).parameters)
)
def test_every_function_has_the_same_rule_for_seeds(name, few):
    fixed = required(name, few)
    for seed in SEEDS_WRONG:
        with pytest.raises(bd.ParameterError, match=r"^`seed` must be an integer from 0 to 2\^64 - 1, got "):
            getattr(bd, name)(*fixed, **{"seed": seed})
    options = options_of(name)
    for seed in (0, np.uint64(2**64 - 1)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", bd.ConvergenceWarning)
                getattr(bd, name)(*fixed, **REQUIRED.get(name, {}) | options | {"seed": seed})
        except Stop:
            pass


def test_every_function_with_numbers_is_here():
    tested = {*OF_FITS, *OTHERS, *PLOTS}
    untested = {
        "Law",
        "Term",
        "GroupEffect",
        "ResidualNoise",
        "RepetitionPrior",
        "Planner",
        "mix",
        "Update",
        "update",
        "distilled_loss",
        "supervised_loss",
    }  # tests of their own
    of_results = {
        "evppi",
        "explain",
        "plan_value",
        "rank_ecdf",
        "error_by_distance",
        "rank_uniformity",
        "decision_calibration",
        "summary_table",
        "decision_table",
        "table_text",
        "add_student",
    }
    names = [n for n in bd.__all__ if callable(getattr(bd, n))]
    plain = {n for n in names if _has_numbers(getattr(bd, n))}
    assert plain - tested - untested - of_results == {"compare_crossovers", "read_runs"}


def _has_numbers(function: Any) -> bool:
    if isinstance(function, type) and issubclass(function, Exception | Warning):
        return False
    return any(
        word in str(p.annotation)
        for p in inspect.signature(function).parameters.values()
        for word in ("int", "float", "Number")
    )


@pytest.mark.parametrize("value", [0, -1.0, "1B", None, [1e9, -1], np.array([math.nan, -1.0]), {}])
def test_losses_have_positive_arguments(value):
    for place in range(3):
        run = [5.46e8, 1.207e10, 2.18485]
        run[place] = value
        with pytest.raises(
            bd.ParameterError, match=r"`(student_params|student_tokens|teacher_loss)` must be a number above 0"
        ):
            bd.distilled_loss(*run, **bd.PUBLISHED)
    six = {name: bd.PUBLISHED[name] for name in ("E", "A", "B", "alpha", "beta", "gamma")}
    assert bd.supervised_loss(1e9, math.inf, **six) > six["E"]
    with pytest.raises(bd.ParameterError, match="`tokens` must be a number above 0"):
        bd.supervised_loss(1e9, value, **six)


def test_losses_of_cells_without_a_strategy_are_missing():
    tokens = xr.DataArray([1e10, math.nan], dims="budget")
    found = bd.distilled_loss(1e9, tokens, 2.2, **bd.PUBLISHED)
    assert np.isfinite(found).values.tolist() == [True, False]
    assert math.isnan(bd.distilled_loss(1e9, math.nan, 2.2, **bd.PUBLISHED))


def test_whole_numbers_of_the_command_line_are_exact():
    for text, number in (("9007199254740993", 2**53 + 1), (str(2**64 - 1), 2**64 - 1), ("1e3", 1000), ("1k", 1000)):
        assert cli._whole(text, "--seed") == number
    with pytest.raises(bd.ParameterError, match="--seed must be an integer"):
        cli._whole("1.5", "--seed")
