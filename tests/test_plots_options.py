"""Every plot over combinations of its options and shapes of data: it draws without a warning, can be read, and shows all of it.

The combinations are the same in every run. A case says how a plot's data are made and cut, how many panels it has, what its legend
names and how it marks what is extrapolated.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import figure_inputs as inputs
import numpy as np
import pytest
import test_criticism_plots as criticism
import xarray as xr
from figure_checks import assert_readable, legend_of, words_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

import bayesdistill as bd
from bayesdistill import plots
from bayesdistill.plots import style

LONG = ["a scenario with a name that takes several lines of a narrow panel", "costs $5 and $6", *inputs.SCENARIOS[:2]]
SIZE = re.compile(r"(student )?[\d.]+[kMBT]|[\d.]+e\d+ FLOPs")
SAID = {
    "yes": "",
    "no": "did not converge (failed: rhat)",
    "unknown": "Whether the draws behind this figure converged is not known.",
}

STEPS = "0, 0.05, 0.25, 0.5, 0.75, 0.95, 1"


def sizes(data: xr.Dataset, first: str = "student ", name: str = "student") -> list[str]:
    """Entries of student sizes."""
    words = [style.short(size) for size in np.unique(data[name].values)]
    return [f"{first}{words[0]}", *words[1:]]


def budgets(name: str) -> Callable[[xr.Dataset], list[str]]:
    """Entries of budgets."""
    return lambda data: [f"{style.power_of_ten(value)} FLOPs" for value in np.unique(np.atleast_1d(data[name].values))]


# How what is extrapolated is marked -----------------------------------------------------------------------------------


def thick(ax: Axes, width: float) -> np.ndarray:
    """Points of the solid lines that are drawn inside the data."""
    lines = [line for line in ax.lines if line.get_linestyle() == "-" and line.get_linewidth() == pytest.approx(width)]
    return np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in lines] or [np.array([])])


def curves(variable: str, facet: str, x: str) -> Callable[[Figure, xr.Dataset], None]:
    """Curves are solid inside the data and nowhere else; what all curves of a panel extrapolate at an end is hatched."""

    def check(figure: Figure, data: xr.Dataset) -> None:
        cells = data[facet].values if facet in data.dims else [None]
        rows = np.array([ax for ax in figure.axes if ax.axison])
        panels = [ax for ax in rows if ax.get_title(loc="left")]
        assert len(panels) == len(cells)
        for ax, value in zip(panels, np.sort(cells) if facet == "student" else cells, strict=True):
            cell = data if value is None else data.sel({facet: value})
            inside = ~cell["extrapolates"]
            values = cell[variable].isel(chain=0, draw=0) if "draw" in cell[variable].dims else cell[variable]
            drawn = thick(ax, 1.6 * figure.look.line)
            assert np.isfinite(drawn).sum() == int((inside & values.notnull()).sum())
            seen = inside.any([dim for dim in inside.dims if dim != x]).values
            hatched = [patch for patch in ax.patches if patch.get_hatch()]
            assert len(hatched) == (1 if not seen.any() else int(not seen[0]) + int(not seen[-1]))

    return check


def maps(variable: str) -> Callable[[Figure, xr.Dataset], None]:
    """A map is hatched where something in it is extrapolated."""

    def check(figure: Figure, data: xr.Dataset) -> None:
        panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
        for ax, student in zip(panels, np.sort(data["student"].values), strict=True):
            hatched = [c for c in ax.collections if isinstance(c, ContourSet) and any(c.hatches)]
            assert bool(hatched) == bool(data[variable].sel(student=student).any())

    return check


def hollow(figure: Figure, data: xr.Dataset) -> None:
    """Extrapolated teachers are hollow points."""
    paper = to_rgb(figure.look.paper)
    lines = [line for ax in figure.axes if ax.axison for line in ax.lines if line.get_marker() == "o"]
    empty = [y for line in lines if to_rgb(line.get_markerfacecolor()) == paper for y in line.get_ydata()]
    paid = data["distilled_loss"].isel(chain=0, draw=0).notnull()
    assert np.isfinite(empty).sum() == int((paid & data["extrapolates"]).sum())


def named_runs(figure: Figure, data: xr.Dataset) -> None:
    """Candidates outside the data are named."""
    count = int((data["extrapolation_factor"] > 1).sum())
    assert (f"({count} in all)" in words_of(figure)) == bool(count)


def hollow_points(ax: Axes, look: style.Look) -> int:
    """Return how many points of a panel are hollow."""
    return sum(
        len(line.get_xdata())
        for line in ax.lines
        if line.get_marker() not in ("", "None") and line.get_markerfacecolor() == look.paper
    )


def added(figure: Figure, data: xr.Dataset) -> None:
    """Both losses of students outside the data are hollow; bars are as high as the costs."""
    assert hollow_points(figure.axes[0], figure.look) == 2 * int(data["extrapolates"].sum())
    heights = [patch.get_height() for patch in figure.axes[1].patches]
    assert heights == data.sortby("student")["marginal_budget"].values.tolist()


def candidates_outside(figure: Figure, data: xr.Dataset) -> None:
    """Candidates outside the data are hollow in both panels, and targets are named."""
    for ax in figure.axes[:2]:
        assert hollow_points(ax, figure.look) == int((data["extrapolation"] > 1).sum())
    assert all(style.power_of_ten(budget) in words_of(figure) for budget in data["budget"].values)


def named_students(figure: Figure, data: xr.Dataset) -> None:
    """Extrapolated students of a family are named."""
    plan = data.sel(option="plan")
    outside = [style.short(s) for s in np.sort(plan["student"].values[plan["extrapolates"].values])]
    assert f"has seen: {', '.join([*outside, 'the teacher'])}." in words_of(figure)


def few_budgets(data: xr.Dataset) -> list[str]:
    """Entries of the isoFLOP curves, at most five."""
    count = data.sizes["budget"]
    return budgets("budget")(data.isel(budget=np.unique(np.linspace(0, count - 1, 5).round().astype(int))))


def optimal_curves(figure: Figure, data: xr.Dataset) -> None:
    """The loss is solid inside the data; budgets outside are hatched in three panels."""
    inside = ~data["extrapolates"].values
    assert np.isfinite(thick(figure.axes[0], 1.6 * figure.look.line)).sum() == inside.sum()
    for ax in figure.axes[:3]:
        hatched = [patch for patch in ax.patches if patch.get_hatch()]
        assert len(hatched) == (1 if not inside.any() else int(not inside[0]) + int(not inside[-1]))


def lifetime_curves(figure: Figure, data: xr.Dataset) -> None:
    """Sizes of both options are solid inside the data, and hatched where they are extrapolated at an end; zero is left out."""
    data = data.isel(served_tokens=data["served_tokens"].values > 0)
    panels = [ax for ax in figure.axes if ax.axison and ax.get_title(loc="left")]
    cells = [data.sel(scenario=s, budget=b) for s in data["scenario"].values for b in data["budget"].values]
    for ax, cell in zip(panels, cells, strict=True):
        inside = ~cell["extrapolates"]
        sizes = [cell[name].notnull() & inside for name in ("distilled_params", "pretraining_params")]
        assert np.isfinite(thick(ax, 1.6 * figure.look.line)).sum() == sum(int(one.sum()) for one in sizes)
        hatched = [patch for patch in ax.patches if patch.get_hatch()]
        ends = int(not inside[0]) + int(not inside[-1])
        assert len(hatched) == (ends if inside.any() else 1)


# Cases ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """How one plot is tested."""

    plot: Callable[..., Figure]
    make: Callable[[], xr.Dataset]
    panels: Callable[[xr.Dataset, dict], int]
    legend: Callable[[xr.Dataset], list[str]] = lambda data: []
    cut: dict[str, int] = field(default_factory=dict)
    """Dimension -> least size to which it is cut."""
    options: dict[str, list] = field(default_factory=dict)
    marked: Callable[[Figure, xr.Dataset], None] | None = None
    said: bool = True
    """Whether it tells about the convergence of the posterior."""


def count(*dims: str, rows: int = 1) -> Callable[[xr.Dataset, dict], int]:
    """Return the number of panels: `rows` for each combination of the dimensions."""
    return lambda data, options: rows * int(np.prod([data.sizes[dim] for dim in dims], initial=1))


PLAN = {"student": 1, "scenario": 1, "budget": 2}
GAP = {"student": 1, "training": 1, "teacher": 2}
PROB = {"prob": [0.5, 0.9]}
CASES = {
    "probability": Case(
        bd.plot_probability, inputs.plan, count("scenario"), sizes, PLAN,
        marked=curves("probability", "scenario", "budget"),
    ),
    "probability_of_tokens": Case(
        bd.plot_probability, inputs.plan_tokens, count("scenario"), sizes, {"student": 1, "tokens": 2},
        marked=curves("probability", "scenario", "tokens"),
    ),
    "best_loss": Case(
        bd.plot_best_loss, inputs.plan, count("scenario", rows=3), sizes, PLAN, PROB,
        curves("distilled_loss", "scenario", "budget"),
    ),
    "compute_strategy": Case(
        bd.plot_compute_strategy, inputs.plan, count("scenario", rows=3), sizes, PLAN, PROB,
        curves("teacher_params", "scenario", "budget"),
    ),
    "compute_optimal": Case(
        bd.plot_compute_optimal, inputs.compute_optimal, lambda data, options: 4, few_budgets, {"budget": 2}, PROB,
        optimal_curves,
    ),
    "value": Case(
        bd.plot_value, inputs.plan_value, count("scenario", rows=2), sizes, PLAN,
        {"measure": ["nats", "flops", "gpu_hours", "money"]},
    ),
    "crossover": Case(
        bd.plot_crossover, inputs.crossovers, count("scenario", rows=2),
        lambda data: ["pretraining budgets of the data"], {"student": 1, "scenario": 1},
    ),
    "break_even": Case(
        bd.plot_break_even, inputs.break_even, count("student", rows=2), lambda data: [f"P(distilling pays): {STEPS}"],
        {"student": 1, "budget": 3}, marked=maps("pays_extrapolates"),
    ),
    "sharing_map": Case(
        bd.plot_sharing_map, inputs.sharing_map, count("student"), lambda data: [f"P(distillation ahead): {STEPS}"],
        {"student": 1, "budget": 3, "students_per_teacher": 3}, marked=maps("extrapolates"),
    ),
    "capacity_gap": Case(
        bd.plot_capacity_gap, inputs.gap, count("training", rows=2), sizes, GAP, PROB,
        curves("distilled_loss", "training", "teacher"),
    ),
    "capacity_gap_by_size": Case(
        bd.plot_capacity_gap, lambda: inputs.gap("FLOPs", by_size=True), count("training", rows=2), sizes, GAP, PROB,
        curves("distilled_loss", "training", "teacher"),
    ),
    "experiment_fixed_student": Case(
        bd.plot_experiment_fixed_student, inputs.gap_of_budgets, count("student"), budgets("teacher_budget"),
        {"student": 1, "teacher": 2, "teacher_budget": 1}, PROB,
        curves("distilled_loss", "student", "teacher"),
    ),
    "experiment_fixed_teacher": Case(
        bd.plot_experiment_fixed_teacher, lambda: inputs.gap("FLOPs", True, np.geomspace(2e8, 1e10, 9), [5e8, 2e9, 8e9]),
        count("teacher"), budgets("training"), {"student": 2, "training": 1, "teacher": 1}, PROB,
        curves("distilled_loss", "teacher", "student"),
    ),
    "information": Case(
        bd.plot_information, inputs.evppi, count("student", "scenario"), lambda data: ["0 to 1%", "50 to 100%"],
        {"budget": 2, "quantity": 1},
    ),
    "update": Case(
        bd.plot_update, inputs.update, lambda data, options: 1,
        lambda data: ["before, 90% interval", "after, mean and 90% interval"], {"quantity": 1},
    ),
    "explain": Case(
        bd.plot_explain, inputs.explanation, lambda data, options: 1, lambda data: ["gain", "probability"], {"part": 1}
    ),
    "student_choice": Case(
        bd.plot_student_choice, inputs.student_choice, count("scenario", rows=2), budgets("budget"),
        {"student": 1, "scenario": 1, "budget": 1}, PROB, hollow,
    ),
    "teacher_choice": Case(
        bd.plot_teacher_choice, inputs.teacher_choice, count("student", "scenario", rows=2), budgets("budget"),
        {"student": 1, "budget": 1, "teacher": 1}, PROB, hollow,
    ),
    "target_loss": Case(
        bd.plot_target_loss, inputs.target_loss, count("scenario", rows=3), sizes, {"student": 1, "scenario": 1, "target": 1},
        marked=curves("probability", "scenario", "target"),
    ),
    "lifetime": Case(
        bd.plot_lifetime, inputs.lifetime, count("scenario", "budget", rows=3), lambda data: ["distilled", "pretrained"],
        {"scenario": 1, "budget": 1, "served_tokens": 3}, marked=lifetime_curves,
    ),
    "family": Case(
        bd.plot_family, inputs.family, lambda data, options: 2, sizes, {"student": 1}, marked=named_students
    ),
    "add_student": Case(
        bd.plot_add_student, inputs.add_student, lambda data, options: 2,
        lambda data: ["distilled: median, 90% interval", "mean cost of a student of the family"], {"student": 1}, marked=added,
    ),
    "next_supervised_runs": Case(
        bd.plot_next_supervised_runs, inputs.next_supervised_runs, lambda data, options: 2,
        lambda data: sizes(data, "", "params"), {"candidate": 1, "budget": 1}, marked=candidates_outside,
    ),
    "next_runs": Case(
        bd.plot_next_runs, inputs.next_runs, lambda data, options: 2, lambda data: sizes(data, "", "params"),
        {"candidate": 1, "step": 1}, marked=named_runs,
    ),
    "runs": Case(
        bd.plot_runs, inputs.curves, lambda data, options: 8, lambda data: ["isoflop", "fixed"], {"teacher_loss": 2}
    ),
    "prior_predictive": Case(
        bd.plot_prior_predictive, criticism.prior_predictive, lambda data, options: 2, lambda data: ["observed"],
        {"run": 2},
    ),
    "posterior_predictive": Case(
        bd.plot_posterior_predictive, criticism.posterior_predictive,
        lambda data, options: 2 * len(options["factors"]), lambda data: ["90% of repetitions"],
        options={"factors": [("student", "ratio", "tokens"), ("teacher",), ("tokens", "student")]},
    ),
    "residuals": Case(
        bd.plot_residuals, criticism.residuals, lambda data, options: 4, lambda data: sizes(data, name="student_params")
    ),
    "loo": Case(bd.plot_loo, criticism.loo, lambda data, options: 2, lambda data: ["k = 0.7"], {"run": 2}),
    "compared": Case(
        bd.plot_loo, criticism.compared, lambda data, options: 1, lambda data: ["difference, 2 standard errors"],
        {"model": 1}, said=False,
    ),
    "prior_sensitivity": Case(
        bd.plot_prior_sensitivity, criticism.sensitivity, lambda data, options: 1, lambda data: ["0.4 and more"],
        {"component": 2, "quantity": 1},
    ),
    "calibration": Case(
        bd.plot_calibration, criticism.calibration, lambda data, options: 2,
        lambda data: data["quantity"].values[data["outside"].values].tolist(), {"quantity": 1}, said=False,
    ),
    "unseen_groups": Case(
        bd.plot_unseen_groups, criticism.unseen, count("split", rows=3), lambda data: ["RMSE"],
        {"split": 1, "model": 1}, said=False,
    ),
    "error_by_distance": Case(
        bd.plot_error_by_distance, criticism.distance, lambda data, options: 6, lambda data: ["left-out group"],
        {"group": 2}, said=False,
    ),
    "backtest": Case(
        bd.plot_backtest, inputs.backtest, lambda data, options: 2,
        lambda data: [plots.backtest.NAMES[name] for name in data["forecaster"].values],
        {"forecaster": 1, "forecast": 2}, {"noise": ["run", "law"]}, said=False,
    ),
    "backtest_runs": Case(
        bd.plot_backtest_runs, inputs.backtest_runs, lambda data, options: 2,
        lambda data: [plots.backtest.NAMES[name] for name in data["forecaster"].values],
        {"forecaster": 1, "prediction": 2}, said=False,
    ),
}  # fmt: skip


def test_every_plot_is_here():
    assert {case.plot.__name__ for case in CASES.values()} == {n for n in vars(plots) if n.startswith("plot_")}


@pytest.mark.parametrize("name", CASES)
@settings(
    max_examples=4,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_every_combination_can_be_read_and_is_complete(name, data):
    case = CASES[name]
    made = cut(case, data)
    options = {key: data.draw(st.sampled_from(values), label=key) for key, values in case.options.items()}
    size = data.draw(st.sampled_from(["page", "column", "slide"]), label="size")
    dark = data.draw(st.booleans(), label="dark")

    figure = case.plot(made, size=size, dark=dark, **options)

    assert_readable(figure)
    assert len([ax for ax in figure.axes if ax.axison]) == case.panels(made, options)
    labels = legend_of(figure)
    assert len(set(labels)) == len(labels)
    assert [label for label in labels if label in case.legend(made)] == case.legend(made)
    assert not {label for label in labels if SIZE.fullmatch(label)} - set(case.legend(made))
    if case.said:
        words = SAID[made.attrs["converged"]]
        assert words in words_of(figure)
        assert ("converge" in words_of(figure)) == bool(words)
    if case.marked:
        case.marked(figure, made)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


USERS = (
    "scenario",
    "teacher",
    "candidate",
    "batch_candidate",
    "model",
    "forecaster",
    "quantity",
    "label",
    "bin_label",
    "split",
)
"""Variables with names that users choose."""


NAMELESS = (
    *("break_even", "sharing_map", "capacity_gap", "capacity_gap_by_size", "experiment_fixed_student"),
    *("experiment_fixed_teacher", "family", "runs", "prior_predictive", "loo"),
)
"""Cases whose data contain no names that users choose."""


def chosen(made: xr.Dataset) -> list[str]:
    return [key for key in USERS if key in made.variables and made[key].dtype.kind in "OUT"]


def test_cases_without_names():
    assert not any(chosen(CASES[name].make()) for name in NAMELESS)


@pytest.mark.parametrize("name", [name for name in CASES if name not in NAMELESS])
def test_names_are_not_read_as_mathematics(name):
    case = CASES[name]
    made = case.make()
    for key in chosen(made):
        renamed = made[key].copy(data=[f"{text} $\\frac$" for text in made[key].values.ravel().tolist()])
        made = made.assign_coords({key: renamed}) if key in made.coords else made.assign({key: renamed})
    made.attrs |= {"currency": r"$\frac$"} if "currency" in made.attrs else {}
    figure = case.plot(made, size="column")
    figure.savefig(io.BytesIO(), dpi=30)


def cut(case: Case, data: st.DataObject) -> xr.Dataset:
    """Data of a case, cut to a part, with other names, another extrapolated part, and another posterior behind it."""
    made = case.make()
    for dim, least in case.cut.items():
        stop = data.draw(st.integers(least, made.sizes[dim]), label=dim)
        made = made.isel({dim: slice(0, stop)})
    if "scenario" in made.coords and made["scenario"].dims == ("scenario",) and data.draw(st.booleans(), label="long"):
        made = made.assign_coords(scenario=LONG[: made.sizes["scenario"]])
    outside = data.draw(st.sampled_from(["as made", "none", "all", "some"]), label="extrapolated")
    for variable in ("extrapolates", "pays_extrapolates"):
        if variable in made and outside != "as made":
            shares = {"none": 0.0, "all": 1.0, "some": 0.5}
            mask = np.random.default_rng(0).random(made[variable].shape) < shares[outside]
            made[variable] = (made[variable].dims, mask, made[variable].attrs)
    made.attrs["converged"] = data.draw(st.sampled_from(list(SAID)), label="converged")
    made.attrs["convergence"] = json.dumps({"failed": ["rhat"] if made.attrs["converged"] == "no" else []})
    return made


@pytest.mark.parametrize("function", [bd.plot_probability, bd.plot_best_loss, bd.summary_table])
@pytest.mark.parametrize("dim", ["student", "scenario", "budget"])
def test_labels_selected_as_scalars_are_named(function, dim):
    plan = inputs.plan()
    if function is bd.summary_table and dim == "scenario":
        function = bd.plot_compute_strategy
    with pytest.raises(bd.ParameterError, match=rf"a scalar {dim} where .*result\.isel\({dim}=\[0\]\)"):
        function(plan.isel({dim: 0}))
    with pytest.raises(KeyError):  # other errors are unchanged
        plots.grids.selected_with_lists(lambda data: data["none"])(plan)


def test_targets_that_no_option_reaches_are_drawn_without_a_warning():
    found = inputs.target_loss()
    never = {name: found[name] * np.inf for name in found if "compute" in str(name) or "ratio" in str(name)}
    bd.plot_target_loss(found.assign(never))
