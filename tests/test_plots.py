"""Figures: what they draw is what the Dataset says, nothing is cut or overprinted, and they look like the stored images.

The stored images are made anew by `python tests/test_plots.py`; look at every one of them before committing it.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import json
import os
import re
import warnings
from functools import cache
from pathlib import Path

import figure_inputs as inputs
import matplotlib
import numpy as np
import pandas as pd
import pytest
import test_criticism_plots
import xarray as xr
from decision_cases import posterior_of, scattered
from figure_checks import assert_readable, words_of
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text

import bayesdistill as bd
from bayesdistill import criticism, decisions, plots, posterior
from bayesdistill.errors import ConvergenceWarning, FileError, ParameterError
from bayesdistill.law.effects import EFFECTS
from bayesdistill.law.forms import coordinate_description
from bayesdistill.plots import grids, layout, picture, style, visuals

SUPERVISED_COORDINATES = tuple(c.name for c in bd.LAWS["busbridge2025"].terms[0].coordinates)
DISTILLATION_COORDINATES = tuple(c.name for t in bd.LAWS["busbridge2025"].terms[1:] for c in t.coordinates)

BASELINE = Path(__file__).parent / "baseline"
DPI = 64
# Root mean square of the difference in grey levels (0 to 255). Another version of the font renderer moves the edges of
# letters; a curve that has moved gives more (there is a test).
TOLERANCE = 3.0

MAKERS = {
    "best_loss": (plots.plot_best_loss, inputs.plan),
    "break_even": (plots.plot_break_even, inputs.break_even),
    "capacity_gap": (plots.plot_capacity_gap, inputs.gap),
    "compute_optimal": (plots.plot_compute_optimal, inputs.compute_optimal),
    "compute_strategy": (plots.plot_compute_strategy, inputs.plan),
    "crossover": (plots.plot_crossover, inputs.crossovers),
    "experiment_fixed_student": (plots.plot_experiment_fixed_student, inputs.gap_of_budgets),
    "experiment_fixed_teacher": (
        plots.plot_experiment_fixed_teacher,
        lambda: inputs.gap("FLOPs", True, np.geomspace(2e8, 1e10, 15), [5e8, 2e9, 8e9]),
    ),
    "family": (plots.plot_family, inputs.family),
    "explain": (plots.plot_explain, inputs.explanation),
    "information": (plots.plot_information, inputs.evppi),
    "next_runs": (plots.plot_next_runs, inputs.next_runs),
    "add_student": (plots.plot_add_student, inputs.add_student),
    "add_student_to_a_pretrained_family": (plots.plot_add_student, lambda: inputs.add_student(distilled=False)),
    "next_supervised_runs": (plots.plot_next_supervised_runs, inputs.next_supervised_runs),
    "probability": (plots.plot_probability, inputs.plan),
    "probability_of_tokens": (plots.plot_probability, inputs.plan_tokens),
    "runs": (plots.plot_runs, inputs.curves),
    "sharing_map": (plots.plot_sharing_map, inputs.sharing_map),
    "student_choice": (plots.plot_student_choice, inputs.student_choice),
    "teacher_choice": (plots.plot_teacher_choice, inputs.teacher_choice),
    "update": (plots.plot_update, inputs.update),
    "value": (plots.plot_value, inputs.plan_value),
    "target_loss": (plots.plot_target_loss, inputs.target_loss),
    "lifetime": (plots.plot_lifetime, inputs.lifetime),
}
# One stored image per figure; sizes and backgrounds are spread over them.
IMAGES = {name: {} for name in MAKERS} | {"break_even": {"dark": True}, "capacity_gap": {"size": "column"}}


def save(name: str, path: Path) -> Path:
    drawn(name, **IMAGES[name]).savefig(path, dpi=DPI)
    return path


@cache
def _drawn(name: str, size: str, dark: bool) -> Figure:
    plot, make = MAKERS[name]
    return plot(make(), size=size, dark=dark)


def drawn(name: str, size: str = "page", dark: bool = False) -> Figure:
    """A figure that several tests look at; `cache` would tell apart arguments by the way they are given."""
    return _drawn(name, size, dark)


# Images ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_looks_like_the_stored_image(name, tmp_path):
    difference = compare_images(BASELINE / f"{name}.png", save(name, tmp_path / f"{name}.png"), tol=TOLERANCE)
    assert difference is None, difference


def test_the_comparison_notices_one_moved_curve(tmp_path):
    plan = inputs.plan()
    plan["probability"][0] = 1 - plan["probability"][0]
    path = tmp_path / "probability.png"
    plots.plot_probability(plan, **IMAGES["probability"]).savefig(path, dpi=DPI)
    assert compare_images(BASELINE / "probability.png", path, tol=TOLERANCE) is not None


@pytest.mark.parametrize("name", ["compute_strategy", "best_loss", "probability"])
def test_the_last_bit_of_a_number_changes_no_byte(name):
    plot, _ = MAKERS[name]

    def drawn_bytes(factor):
        plan = inputs.plan()
        for key in plan.data_vars:
            if plan[key].dtype.kind == "f":
                plan[key] = (plan[key].dims, plan[key].values * factor, plan[key].attrs)
        file = io.BytesIO()
        plot(plan).savefig(file, format="png", dpi=150)
        return file.getvalue()

    assert drawn_bytes(1.0) == drawn_bytes(1 + 4e-16)


@pytest.mark.parametrize("name", ["runs", "probability", "family"])
def test_the_last_bits_of_the_layout_change_no_byte(name, monkeypatch):
    """The solver of the layout sums in the order of addresses in memory: the same figure twice differed in its PDF."""
    plot, make = MAKERS[name]

    class Trembling(layout.ConstrainedLayoutEngine):
        def execute(self, figure):
            super().execute(figure)
            for ax in figure.axes:
                ax._set_position([value * (1 + 4e-15) for value in ax.get_position(original=True).bounds])

    def drawn_bytes():
        file = io.BytesIO()
        plot(make()).savefig(file, format="pdf", metadata={"CreationDate": None})
        return file.getvalue()

    still = drawn_bytes()
    monkeypatch.setattr(layout, "ConstrainedLayoutEngine", Trembling)
    assert drawn_bytes() == still


# Layout ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", ["page", *(pytest.param(size, marks=pytest.mark.slow) for size in ("column", "slide"))]
)
@pytest.mark.parametrize("name", MAKERS)
def test_no_text_is_cut_or_overprinted(name, size):
    assert_readable(drawn(name, size))


@pytest.mark.parametrize(
    "size", ["page", *(pytest.param(size, marks=pytest.mark.slow) for size in ("column", "slide"))]
)
@pytest.mark.parametrize("name", MAKERS)
def test_labels_are_no_longer_than_their_panels(name, size):
    figure = drawn(name, size)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    for ax in figure.axes:
        if ax.axison and ax.get_ylabel():
            label, panel = ax.yaxis.label.get_window_extent(renderer), ax.get_window_extent(renderer)
            assert label.height <= panel.height + 3, ax.get_ylabel()
    (legend,) = figure.legends
    frame = legend.get_window_extent(renderer)
    for ax in figure.axes:
        assert not ax.axison or not ax.yaxis.label.get_window_extent(renderer).overlaps(frame), ax.get_ylabel()


@pytest.mark.parametrize("dark", [False, True])
def test_colours_stand_out_from_the_paper_and_from_each_other_in_grey(dark):
    def luminance(color):
        values = np.array(to_rgb(color))
        return np.where(values <= 0.03928, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    look = style.make_look("page", dark)
    for colors in (style.size_colors([1, 2, 3, 4], look), style.budget_colors([1, 2, 3, 4], look)):
        grey = [float(luminance(color[:3])) for color in colors.values()]
        for value in grey:
            light, shade = sorted((value, float(luminance(look.paper))), reverse=True)
            assert (light + 0.05) / (shade + 0.05) > 2.2
        steps = [(b + 0.05) / (a + 0.05) for a, b in itertools.pairwise(grey)]
        assert min(steps) > 1.2, "lightness must rise with the size"


@pytest.mark.parametrize("name", MAKERS)
def test_every_axis_has_a_label_and_losses_have_units(name):
    figure = drawn(name)
    labels = {label for ax in figure.axes for label in (ax.get_xlabel(), ax.get_ylabel()) if label}
    assert any(ax.get_xlabel() for ax in figure.axes)
    assert any(ax.get_ylabel() for ax in figure.axes)
    for label in labels:
        if "loss" in label or "gain" in label or "residual" in label:
            assert "[nats per token]" in label
        if "budget" in label and "over the budget" not in label:
            assert "[FLOPs]" in label


def test_a_slide_is_a_slide_and_a_column_is_narrow():
    assert drawn("probability", "slide").get_size_inches() == pytest.approx([13.33, 7.5])
    assert drawn("probability", "column").get_size_inches()[0] == pytest.approx(3.4)
    assert drawn("probability", "page").get_size_inches()[0] == pytest.approx(7.0)


# What is drawn --------------------------------------------------------------------------------------------------------


def lines_of(ax, color):
    """Lines of a colour with more than one point: (dashed, full)."""
    mine = [line for line in ax.lines if to_rgb(line.get_color()) == to_rgb(color) and len(line.get_xdata()) > 2]
    dashed = [line for line in mine if line.get_linestyle() == "--"]
    full = [line for line in mine if line.get_linestyle() == "-"]
    return dashed, full


def bands_of(ax, color):
    return [
        band
        for band in ax.collections
        if isinstance(band, FillBetweenPolyCollection) and tuple(band.get_facecolor()[0][:3]) == to_rgb(color)
    ]


def edges_of(band, n):
    """Lower and upper edge of a band over n points."""
    path = band.get_paths()[0].vertices
    return path[1 : n + 1, 1], path[n + 2 : 2 * n + 2, 1][::-1]


def test_probability_draws_the_plan():
    plan = inputs.plan()
    figure = plots.plot_probability(plan)
    colors = style.size_colors(plan["student"].values, style.make_look("page", False))
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(plan["scenario"].values)
    for ax, scenario in zip(figure.axes, plan["scenario"].values, strict=True):
        for student in plan["student"].values:
            one = plan.sel(student=student, scenario=scenario)
            (dashed,), (full, *_) = lines_of(ax, colors[student])
            np.testing.assert_array_equal(dashed.get_xdata(), plan["budget"])
            np.testing.assert_array_equal(dashed.get_ydata(), one["probability"])
            np.testing.assert_array_equal(full.get_ydata(), one["probability"].where(~one["extrapolates"]))
            if np.isfinite(one["probability"]).all():
                low, high = edges_of(bands_of(ax, colors[student])[0], plan.sizes["budget"])
                np.testing.assert_allclose(low, (one["probability"] - 2 * one["probability_mcse"]).clip(0, 1))
                np.testing.assert_allclose(high, (one["probability"] + 2 * one["probability_mcse"]).clip(0, 1))


def test_hatching_covers_what_every_student_extrapolates():
    plan = inputs.plan(students=[1e9], scenarios=["best case"])
    inside = plan["budget"].values[~plan["extrapolates"].values.ravel()]
    ax = plots.plot_probability(plan).axes[0]
    spans = sorted((p.get_x(), p.get_x() + p.get_width()) for p in ax.patches if p.get_hatch())
    expected = [(plan["budget"].values[0], inside.min()), (inside.max(), plan["budget"].values[-1])]
    np.testing.assert_allclose(spans, expected)
    everywhere = plots.plot_probability(plan.assign(extrapolates=plan["extrapolates"] | True)).axes[0]
    (hatched,) = [p for p in everywhere.patches if p.get_hatch()]
    assert hatched.get_window_extent().bounds == pytest.approx(everywhere.get_window_extent().bounds)
    assert everywhere.get_xlim()[0] > 0.1 * plan["budget"].values[0]
    assert everywhere.get_xlim()[1] < 10 * plan["budget"].values[-1]
    nowhere = plots.plot_probability(plan.assign(extrapolates=plan["extrapolates"] & False)).axes[0]
    assert not [p for p in nowhere.patches if p.get_hatch()]


def test_a_single_point_inside_the_data_is_seen():
    plan = inputs.plan(students=[1e9], scenarios=["best case"])
    plan["extrapolates"][:] = True
    plan["extrapolates"][0, 0, 4] = False
    ax = plots.plot_best_loss(plan).axes[0]
    # Not a dot, which stands for a crossover.
    dashes = [line for line in ax.lines if line.get_marker() == "_" and np.isfinite(line.get_ydata()).sum() == 1]
    assert dashes[0].get_xdata() == [plan["budget"][4]]
    assert dashes[0].get_ydata() == [posterior.median(plan["distilled_loss"])[0, 0, 4]]


def test_best_loss_draws_medians_and_intervals():
    plan = inputs.plan(students=[1e9])
    figure = plots.plot_best_loss(plan, prob=0.5)
    color = style.size_colors([1e9], style.make_look("page", False))[1e9]
    loss, gain = figure.axes[0], figure.axes[len(plan["scenario"])]
    one = plan.isel(student=0, scenario=0)
    for ax, name in ((loss, "distilled_loss"), (gain, "advantage")):
        (dashed,) = (line for line in ax.lines if line.get_linestyle() == "--")
        np.testing.assert_array_equal(dashed.get_ydata(), one[name].median(("chain", "draw")))
        low, high = edges_of(bands_of(ax, color)[-1], plan.sizes["budget"])
        np.testing.assert_allclose(low, one[name].quantile(0.25, ("chain", "draw")))
        np.testing.assert_allclose(high, one[name].quantile(0.75, ("chain", "draw")))
    (dotted,) = (line for line in loss.lines if line.get_linestyle() == ":")
    assert dotted.get_color() == dashed.get_color()
    np.testing.assert_array_equal(dotted.get_ydata(), one["supervised_loss"].median(("chain", "draw")))


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_budgets_are_dots(count):
    """Hollow where they are extrapolated; no student vanishes from a panel."""
    plan = inputs.plan().isel(budget=slice(0, count))
    figure, look = plots.plot_probability(plan), style.make_look("page", False)
    for scenario, ax in enumerate(figure.axes[: plan.sizes["scenario"]]):
        cell = plan.isel(scenario=scenario)
        dots = [line for line in ax.lines if line.get_marker() == "o" and line.get_markersize() == 2 * look.marker]
        hollow = [line.get_markerfacecolor() == look.paper for line in dots]
        drawn = sum(np.isfinite(np.asarray(line.get_ydata(), float)).sum() for line in dots)
        assert drawn == int(np.isfinite(cell["probability"]).sum())
        outside = sum(
            np.isfinite(np.asarray(line.get_ydata(), float)).sum()
            for line, empty in zip(dots, hollow, strict=True)
            if empty
        )
        assert outside == int((cell["extrapolates"] & np.isfinite(cell["probability"])).sum())


def test_one_budget_has_intervals_and_no_crossover():
    plan = inputs.plan().isel(budget=slice(4, 5), scenario=[0])
    figure = plots.plot_best_loss(plan)
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss\n[nats per token]", "gain\n[nats per token]"]
    assert "crossover" not in words_of(figure).lower()
    bars = [line for line in figure.axes[1].lines if line.get_alpha() and len(line.get_xdata()) == 2]
    for bar, student in zip(bars, plan["student"].values, strict=True):
        gain = plan["advantage"].sel(student=student).squeeze()
        np.testing.assert_allclose(bar.get_ydata(), gain.quantile([0.05, 0.95]))


def test_tokens_of_existing_teachers_have_no_panel():
    plan = inputs.plan()
    plan["teacher_tokens"] = np.nan * plan["teacher_tokens"]
    labels = [ax.get_ylabel() for ax in plots.plot_compute_strategy(plan).axes if ax.get_ylabel()]
    assert labels == ["teacher size\n[parameters]", "student tokens\n[tokens]"]


@pytest.mark.parametrize("limits", [(1.1e9, 1.9e9), (8e8, 4e9), (3e8, 7e9), (2e8, 9e10), (1e8, 1e15)])
@pytest.mark.parametrize("name", ["xaxis", "yaxis"])
def test_every_span_of_sizes_has_ticks_that_can_be_read(limits, name):
    axis = getattr(Figure().subplots(), name)
    (axis.axes.set_xlim if name == "xaxis" else axis.axes.set_ylim)(limits)
    style.size_axis(axis)
    ticks = [tick for tick in axis.get_majorticklocs() if limits[0] <= tick <= limits[1]]
    assert 2 <= len(ticks) <= 8
    assert len({style.short(tick) for tick in ticks}) == len(ticks)


def test_experiments_of_the_packaged_runs_are_named_in_words():
    curves = inputs.curves()
    names = np.unique(bd.load_runs()["experiment"])
    curves["run_experiment"] = ("run", np.resize(names, curves.sizes["run"]))
    words = [text.get_text() for text in plots.plot_runs(curves).legends[0].get_texts()]
    assert "teachers of equal compute" in words
    assert not set(words) & set(names)


def crossover_of(values, statuses):
    names = inputs.CROSSOVER.split()
    status = xr.DataArray(
        np.array([[names.index(s) for s in statuses]], dtype="int8"),
        dims=("chain", "draw"),
        attrs={"flag_values": np.arange(5, dtype="int8"), "flag_meanings": inputs.CROSSOVER},
    )
    crossover = xr.DataArray(np.array([values], dtype=float), dims=("chain", "draw"))
    found = grids.crossover_summary(crossover, status, 1e19, 1e25, 0.9)
    return [float(found[name]) for name in ("lower", "median", "upper")]


def test_crossover_summary_counts_draws_without_a_crossover():
    nan = np.nan
    statuses = ["crossed", "crossed", "crossed", "always", "reversed"]
    low, middle, high = crossover_of([1e21, 1e22, 1e23, nan, nan], statuses)
    assert middle == 1e23
    assert low == pytest.approx(1e21 + 0.2 * (1e22 - 1e21))
    assert high > 1e25
    low, middle, high = crossover_of([nan, nan, 1e20], ["never", "never", "crossed"])
    assert low < 1e19
    assert middle < 1e19
    assert 1e19 < high < 1e20
    assert np.isnan(crossover_of([nan, nan], ["impossible", "impossible"])).all()


def test_crossovers_beyond_the_budgets_are_arrows():
    plan = inputs.plan(students=[1e9], scenarios=["best case"])
    plan["crossover"][:] = np.nan
    plan["crossover_status"][:] = 1
    cross = plots.plot_best_loss(plan).axes[2]
    assert [(line.get_marker(), line.get_xdata()[0]) for line in cross.lines if line.get_marker() in "<>o"] == [
        (">", 1e25)
    ]
    plan["crossover_status"][:] = 2
    cross = plots.plot_best_loss(plan).axes[2]
    assert [(line.get_marker(), line.get_xdata()[0]) for line in cross.lines if line.get_marker() in "<>o"] == [
        ("<", 1e19)
    ]
    plan["crossover_status"][:] = 4
    assert not plots.plot_best_loss(plan).axes[2].lines


def test_runs_are_all_drawn_once_and_bands_are_the_dataset():
    curves = inputs.curves()
    figure = plots.plot_runs(curves)
    used = [ax for ax in figure.axes if ax.axison]
    points = {"student_loss": [], "residual": []}
    for ax in used:
        name = "residual" if "residual" in ax.get_ylabel() or ax.get_ylim()[0] < 0 else "student_loss"
        for line in ax.lines:
            if line.get_linestyle() == "None":
                points[name] += list(zip(line.get_xdata(), line.get_ydata(), strict=True))
    for name, found in points.items():
        wanted = zip(curves["run_teacher_loss"].values, curves[name].values, strict=True)
        assert sorted(found) == sorted(wanted)
    colors = style.size_colors(curves["configuration_params"].values, style.make_look("page", False))
    first = bands_of(used[0], colors[2e8])
    low, high = edges_of(first[0], curves.sizes["teacher_loss"])
    np.testing.assert_allclose(low, curves["run_lower"][0])
    np.testing.assert_allclose(high, curves["run_upper"][0])


def test_runs_share_panels_where_curves_are_few():
    curves = inputs.curves()
    curves["configuration_tokens"] = ("configuration", curves["configuration_params"].values * [2, 20, 20, 40, 80, 160])
    titles = [ax.get_title(loc="left") for ax in plots.plot_runs(curves).axes if ax.get_title(loc="left")]
    # 40 and 80 have a curve each, as 160 has; 20 has two.
    assert titles == [f"{span} tokens per parameter" for span in ("2", "20", "40 to 80", "160")]


def test_runs_need_no_experiment():
    figure = plots.plot_runs(inputs.curves().drop_vars("run_experiment"))
    assert "runs" in [t.get_text() for t in figure.legends[0].get_texts()]


def test_capacity_gap_marks_the_best_teacher():
    gap = inputs.gap()
    figure = plots.plot_capacity_gap(gap)
    color = style.size_colors(gap["student"].values, style.make_look("page", False))[1e9]
    top = figure.axes[0]
    dots = [
        line
        for line in top.lines
        if line.get_marker() == "o" and line.get_color() == color and len(line.get_xdata()) == 1
    ]
    bars = [line for line in top.lines if line.get_marker() == "|" and line.get_color() == color]
    best = gap["best_teacher"].sel(student=1e9, training=20)
    assert dots[0].get_xdata()[0] == float(best.median())
    np.testing.assert_allclose(bars[0].get_xdata(), best.quantile([0.05, 0.95]))


def test_every_figure_is_tested():
    # Figures of criticism have a file of their own, those of the backtest another.
    elsewhere = {plot.__name__ for plot, _ in test_criticism_plots.MAKERS.values()}
    elsewhere |= {"plot_backtest", "plot_backtest_runs"}
    assert {plot.__name__ for plot, _ in MAKERS.values()} | elsewhere == {
        name for name in vars(plots) if name.startswith("plot_")
    }


def test_teachers_stand_from_weak_to_strong():
    found = inputs.teacher_choice()
    top, _, bottom, _ = plots.plot_teacher_choice(found).axes
    names = ["weak (2.50)", "small (2.30)", "fits (2.15)", "large (2.00)", "huge (1.90)"]
    assert [t.get_text() for t in bottom.get_xticklabels()] == names
    color = style.budget_colors(found["budget"].values, style.make_look("page", False))[1e21]
    full, hollow = ([], [])
    for line in top.lines:
        if line.get_marker() == "o" and line.get_color() == color:
            (hollow if to_rgb(line.get_markerfacecolor()) == (1, 1, 1) else full).extend(line.get_ydata())
    wanted = found["distilled_loss"].median(("chain", "draw")).sel(student=3e8, budget=1e21)[0]
    assert full == [float(wanted.sel(teacher=name)) for name in ("weak", "small", "fits", "large")]
    assert hollow == [float(wanted.sel(teacher="huge"))]


def test_next_runs_marks_the_batch_and_what_is_not_trusted():
    found = inputs.next_runs()
    figure = drawn("next_runs")
    top, bottom = figure.axes
    assert [t.get_text() for t in top.texts] == ["1", "2"]
    points = [line for line in top.lines if line.get_marker() in ("o", "^")]
    assert [float(line.get_ydata()[0]) for line in points] == found["evsi"].values.tolist()
    assert [line.get_marker() for line in points] == ["o", "o", "^", "^", "o"]
    assert [to_rgb(line.get_markerfacecolor()) == (1, 1, 1) for line in points] == [False] * 4 + [True]
    assert [bar.get_width() for bar in bottom.patches] == found["batch_evsi"].values.tolist()
    assert [t.get_text() for t in bottom.get_yticklabels()] == [
        "1: a run with quite a long name (1e19)",
        r"2: \$b\$ (2.1e19)",
    ]
    assert "Outside the runs that the posterior has seen: e (1 in all)" in words_of(figure)


def test_runs_of_no_value_stand_on_the_scale_of_what_could_be_gained():
    found = inputs.next_runs()
    for name in ("evsi", "evsi_mcse", "batch_evsi", "batch_evsi_mcse"):
        found[name] = 0 * found[name]
    figure = plots.plot_next_runs(found)
    top, bottom = figure.axes
    assert top.get_ylim()[1] == bottom.get_xlim()[1] == found.attrs["mean_evpi"]
    assert "Not one of these runs would change a choice" in words_of(figure)
    assert "Not one" not in words_of(drawn("next_runs"))


def test_a_cost_between_zeros_is_seen():
    figure = drawn("value")
    bottom = figure.axes[2]
    cost = inputs.plan_value()["regret"].isel(scenario=0)
    drawn_costs = [y for line in bottom.lines if line.get_marker() == "_" for y in line.get_ydata()]
    assert sorted(drawn_costs) == sorted(cost.values[cost.values > 0])


def test_a_slide_of_many_quantities_leaves_out_those_that_matter_least():
    found = inputs.evppi()
    many = xr.concat([found.assign_coords(quantity=[f"{k}{n}" for n in "abc"]) for k in range(12)], "quantity")
    page, slide = (plots.plot_information(many, size=size) for size in ("page", "slide"))
    assert len(page.axes[0].get_yticks()) == 36
    shown = [label.get_text() for label in slide.axes[0].get_yticklabels()]
    assert shown == [f"{k}{n}" for k in range(12) for n in "bc"]
    assert "Not shown, because below 5% everywhere: 0a, 1a" in words_of(slide)


def test_a_best_teacher_at_the_end_of_the_axis_is_no_best_teacher():
    assert "may lie beyond it" not in words_of(drawn("capacity_gap"))
    cut = inputs.gap().isel(teacher=slice(0, 5))
    cut["best_teacher"][:] = cut["teacher"].values[-1]
    assert "A best teacher at an end of the axis may lie beyond it." in words_of(plots.plot_capacity_gap(cut))


def test_value_in_money_says_its_price():
    figure = plots.plot_value(inputs.plan_value(), measure="money")
    assert "At 4e14 FLOPs per second and accelerator, 2 USD an hour." in words_of(figure)
    assert figure.axes[2].get_ylabel() == "expected cost\n[USD]"
    assert "USD" not in words_of(drawn("value"))
    with pytest.raises(ParameterError, match=r"`measure` must be .*, got 'gold'"):
        plots.plot_value(inputs.plan_value(), measure="gold")
    with pytest.raises(ParameterError, match="regret_money"):
        plots.plot_value(inputs.plan_value().drop_vars("regret_money"), measure="money")


def test_a_family_that_is_pretrained_is_not_given_a_probability():
    assert "with probability about 0.9" in words_of(drawn("family"))
    found = inputs.family()
    found["decision"][:] = 0
    assert "The plan is to pretrain all." in words_of(plots.plot_family(found))


def test_outcomes_fill_the_bar():
    found = inputs.crossovers()
    figure = plots.plot_crossover(found)
    for ax in figure.axes[2:4]:
        for i in range(found.sizes["student"]):
            bars = [p for p in ax.patches if p.get_x() < i < p.get_x() + p.get_width()]
            assert sum(p.get_height() for p in bars) == pytest.approx(1)


# What the reader is told ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_an_unconverged_or_prior_dominated_posterior_is_said_in_the_figure(name, monkeypatch):
    # What `finish` is given; that it writes all of it, and that nothing of it is cut, is tested above and below.
    said = []
    monkeypatch.setattr(layout, "finish", lambda figure, *, warnings, notes, **_: said.extend([*warnings, *notes]))
    plot, make = MAKERS[name]
    data = make()
    data.attrs |= {"converged": "no", "convergence": json.dumps({"failed": ["rhat"]})}
    data.attrs.pop("supervised_law", None)
    data.attrs["posterior_provenance"] = json.dumps({"supervised_law": "published law"})
    data.attrs["prior_dominated"] = json.dumps(["log_gamma", "gap_curvature"])
    plot(data)
    assert "did not converge (failed: rhat)" in " ".join(said)
    assert "published-law prior" in " ".join(said)
    assert "Also prior-dominated: the curvature of the capacity gap." in " ".join(said)


def test_what_the_prior_dominates_is_named():
    def said(names, **attrs):
        return style.fit_notes(xr.Dataset(attrs={"converged": "yes", "prior_dominated": json.dumps(names), **attrs}))

    assert said([]) == ([], [])
    # Without supervised runs one sentence speaks for the whole supervised law.
    supervised = list(SUPERVISED_COORDINATES)
    assert len(said(supervised, supervised_law="published law")[1]) == 1
    warnings, (note,) = said(["log_gamma", "a_new_one"])
    assert warnings == []
    assert note == "Prior-dominated: the supervised law's outer exponent; a new one."
    (warning,), (note,) = said(list(DISTILLATION_COORDINATES[:5]))
    assert "mostly its prior" in warning
    assert note.count(";") == 4
    for law in bd.LAWS.values():
        whole = law.with_effects(*EFFECTS).with_residual_noise("ratio").for_runs(distilled=True, supervised=True)
        for coordinate in whole.every_coordinate:
            assert coordinate_description(coordinate.name) == coordinate.description
            assert coordinate.description != coordinate.name.replace("_", " ")


def test_a_real_posterior_takes_its_prior_along_into_the_figure(fit354):
    named = posterior.prior_dominated(fit354)
    # The prior determines most of the supervised law and the curvature of the gap.
    assert {"log_loss", "log_beta", "gap_curvature"} <= set(named)
    assert not {"log_excess_S", "teacher_power", "log_gap_strength", "log_kappa"} & set(named)
    plan = decisions.plan(fit354, "1B", [1e20, 1e21], "best case")
    gap = decisions.capacity_gap(fit354, "1B", student_tokens_per_param=20, teacher_losses=[2.2, 2.3])
    curves = criticism.law_curves(fit354)
    for data, plot in ((plan, plots.plot_probability), (gap, plots.plot_capacity_gap), (curves, plots.plot_runs)):
        assert json.loads(data.attrs["prior_dominated"]) == named
        words = words_of(plot(data))
        assert "published-law prior" in words
        for name in set(named) - set(SUPERVISED_COORDINATES):
            assert coordinate_description(name) in words
    narrow = json.loads(plan.attrs["prior_dominated"])
    few = fit354.copy(deep=True)
    few["posterior"]["z"] = few["posterior"]["z"] * 0 + np.random.default_rng(0).standard_normal(
        few["posterior"]["z"].shape
    )
    with pytest.warns(ConvergenceWarning) if posterior.convergence(few)["failed"] else contextlib.nullcontext():
        loose = decisions.plan(few, "1B", [1e20, 1e21], "best case", allow_unconverged=True)
    assert len(json.loads(loose.attrs["prior_dominated"])) > len(narrow)
    assert "mostly its prior" in words_of(plots.plot_probability(loose))


def test_what_is_said_about_the_posterior():
    def said(**attrs):
        return style.fit_notes(xr.Dataset(attrs=attrs))

    fine = json.dumps({"supervised_law": "12 supervised runs"})
    assert said(converged="yes", posterior_provenance=fine) == ([], [])
    (warning,), notes = said(converged="no", supervised_law="12 supervised runs")
    assert "did not converge;" in warning
    assert notes == []
    warnings, (one, two) = said(supervised_law="published law")
    assert warnings == []
    assert "not known" in one
    assert "published-law prior" in two
    bad = inputs.gap().assign_attrs(converged="no", supervised_law="published law")
    words = words_of(plots.plot_capacity_gap(bad))
    assert "did not converge" in words
    assert "published-law prior" in words
    words = words_of(drawn("probability"))
    assert "converge" not in words
    assert "prior" not in words


def test_what_has_no_strategy_is_said():
    expected = "No strategy fits the budget: teacher pretraining: 10B at 2 points up to 3.2e19; teacher pretraining +"
    assert expected in words_of(drawn("probability"))
    assert grids.left_out(inputs.plan(students=[1e9])) == []
    nothing = inputs.plan(students=[1e10], budgets=[1e19, 2e19], scenarios=["free", "inference", "all"])
    assert "all: 10B at every point." in grids.left_out(nothing)[0]


@pytest.mark.parametrize(("level", "words"), [
    ("law", "Level law compares mean curves of the law"),
    ("expected", "Level expected compares expected losses of new student configurations"),
    ("run", "Level run compares single runs"),
])  # fmt: skip
def test_captions_name_the_level_of_uncertainty(level, words):
    plan = inputs.plan().assign_attrs(noise=level)
    for plot in (plots.plot_probability, plots.plot_best_loss):
        assert words in words_of(plot(plan))
    # Strategies are chosen by the law's mean curves, whatever the level of the probabilities.
    assert "Level law compares mean curves" in words_of(plots.plot_compute_strategy(plan))


def test_names_from_outside_are_not_read_as_mathematics():
    plan = inputs.plan(scenarios=["costs $5 and $6 a_b^c", "100% \\alpha"])
    figure = plots.plot_best_loss(plan)
    figure.draw_without_rendering()
    assert figure.axes[0].get_title(loc="left").replace("\n", " ") == r"costs \$5 and \$6 a_b^c"


# Manners --------------------------------------------------------------------------------------------------------------


def other_settings() -> dict[str, object]:
    """Return another valid value for every rcParam that the package sets."""
    found: dict[str, object] = {}
    candidates = [True, False, 9.0, 30, "red", "bold", "tight", "lower left", "cm", [3.0], (1.0, 9.0, 2.0), "9"]
    with matplotlib.rc_context(), warnings.catch_warnings(action="ignore"):  # deprecated settings
        for name, default in picture._DEFAULTS.items():
            before = matplotlib.rcParams[name]
            for value in candidates:
                try:
                    matplotlib.rcParams[name] = value
                except (AttributeError, TypeError, ValueError):  # the types that validators raise
                    continue
                if matplotlib.rcParams[name] not in (default, before):
                    found[name] = value
                    break
    return found


OTHER = other_settings() | {
    "text.usetex": True,
    "path.sketch": (1, 100, 2),
    "axes.prop_cycle": matplotlib.cycler(color=["red"]),
}


def test_other_settings_are_found():
    assert {
        "text.parse_math",
        "text.usetex",
        "savefig.transparent",
        "font.weight",
        "lines.linewidth",
        "axes.facecolor",
    } <= set(OTHER)
    assert len(OTHER) > 0.8 * len(picture._DEFAULTS)


@pytest.mark.parametrize(
    "name",
    ["probability", *(pytest.param(name, marks=pytest.mark.slow) for name in ("capacity_gap", "crossover", "family"))],
)
def test_rcparams_neither_change_figures_nor_are_changed(name, tmp_path):
    def made(path: Path) -> tuple[np.ndarray, bytes]:
        plot, make = MAKERS[name]
        figure = plot(make())
        figure.savefig(path, format="png")
        return pixels(figure), path.read_bytes()

    quiet, file = made(tmp_path / "quiet.png")
    with warnings.catch_warnings(action="ignore"), matplotlib.rc_context(OTHER):
        before = dict(matplotlib.rcParams)
        loud, other = made(tmp_path / "loud.png")
        assert dict(matplotlib.rcParams) == before
    np.testing.assert_array_equal(quiet, loud)
    assert file == other


def test_settings_that_change_after_a_figure_was_made():
    """Matplotlib creates ticks when it draws, with the settings of that moment."""
    quiet, figure = (plots.plot_probability(inputs.plan()) for _ in range(2))
    expected = pixels(quiet)
    with warnings.catch_warnings(action="ignore"), matplotlib.rc_context(OTHER):
        np.testing.assert_array_equal(pixels(figure), expected)


def test_the_font_is_the_callers():
    with matplotlib.rc_context({"font.family": "monospace"}):
        texts = plots.plot_probability(inputs.plan()).findobj(Text)
        assert {text.get_fontname() for text in texts} == {"DejaVu Sans Mono"}


def pixels(figure: Figure) -> np.ndarray:
    figure.set_dpi(50)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba()).copy()


def test_no_pyplot_and_no_statistics():
    """Summaries over draws come from `posterior`; nothing else is reduced but by min, max, all and any."""
    folder = Path(plots.__file__).parent
    for path in [*folder.glob("*.py"), *(folder.parent / "tables").glob("*.py")]:
        code = re.sub(r'"""[\s\S]*?"""', "", path.read_text(encoding="utf-8"))
        assert "pyplot" not in code, path.name
        found = re.findall(r"(\w+)\.(mean|median|std|var|quantile|percentile|average|sum|cov|argsort)\(", code)
        assert {owner for owner, what in found if what != "argsort"} <= {"posterior"}, (path.name, found)


def test_notebooks_can_show_it():
    data, shape = drawn("break_even")._repr_png_()
    assert data.startswith(b"\x89PNG")
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    assert (width // 2, height // 2) == pytest.approx((shape["width"], shape["height"]), abs=1)


def test_files_of_figures_are_those_of_matplotlib_and_replaced_whole(tmp_path, monkeypatch):
    figure = plots.plot_probability(inputs.plan())
    monkeypatch.chdir(tmp_path)
    names = {
        "a.png": None,
        "b.PNG": None,
        "c": None,
        "d.x": "png",
        "e": "svg",
        "f.jpg": None,
        "g.eps": None,
        "h.svgz": None,
    }
    for name, form in names.items():
        figure.savefig(name, format=form, dpi=30)
    assert {path.name for path in tmp_path.iterdir()} == {*names, "c.png"} - {"c"}
    whole = Path("a.png").read_bytes()
    for name in ("b.PNG", "c.png", "d.x"):
        assert Path(name).read_bytes() == whole
    Figure.savefig(figure, "matplotlib.png", dpi=30)
    assert Path("matplotlib.png").read_bytes() == whole

    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            figure.savefig("a.png", dpi=60)
    assert Path("a.png").read_bytes() == whole
    monkeypatch.setattr(picture.Picture, "draw", lambda *_: pytest.fail("it is drawn"))
    for path in ("nowhere/a.png", "/dev/null", tmp_path):
        with pytest.raises(FileError, match="Cannot write"):
            figure.savefig(path, format="png")


def test_vector_formats(tmp_path):
    figure = drawn("family")
    for ending in ("pdf", "svg"):
        figure.savefig(tmp_path / f"figure.{ending}")
        assert (tmp_path / f"figure.{ending}").stat().st_size > 5000


@pytest.mark.parametrize("name", sorted(name for name in vars(plots) if name.startswith("plot_")))
def test_signatures(name):
    parameters = inspect.signature(getattr(plots, name)).parameters
    kinds = {p.kind for p in parameters.values()}
    assert not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    assert parameters["size"].default == "page"
    assert parameters["dark"].default is False
    assert list(kinds)[:1] == [inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert [p.kind for p in parameters.values()][1:] == [inspect.Parameter.KEYWORD_ONLY] * (len(parameters) - 1)


@pytest.mark.parametrize("name", MAKERS)
def test_wrong_input_is_refused(name):
    plot, make = MAKERS[name]
    with pytest.raises(ParameterError, match="is missing"):
        plot(xr.Dataset())
    with pytest.raises(ParameterError, match="as a Dataset returned by"):
        plot(make()[next(iter(make().data_vars))])
    with pytest.raises(ParameterError, match="'column', 'page' or 'slide'"):
        plot(make(), size="poster")


def test_experiments_refuse_other_designs():
    with pytest.raises(ParameterError, match="FLOPs are required"):
        plots.plot_experiment_fixed_teacher(inputs.gap())
    with pytest.raises(ParameterError, match="teacher_budget"):
        plots.plot_experiment_fixed_student(inputs.gap(by_size=True))
    with pytest.raises(ParameterError, match="one length"):
        plots.plot_experiment_fixed_student(inputs.gap(by_size=True).assign_attrs(teacher_budget=1e21))
    with pytest.raises(ParameterError, match="along `budget` and requires at least two values"):
        plots.plot_break_even(inputs.break_even().isel(budget=[0]))


# Style ----------------------------------------------------------------------------------------------------------------


def luminance(color) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("make", [style.size_colors, style.budget_colors])
def test_colours_can_be_told_apart_without_colour(make, dark):
    look = style.make_look("page", dark)
    colors = make(np.geomspace(1e8, 1e11, 7), look)
    levels = [luminance(color) for color in colors.values()]
    assert np.all(np.diff(levels) > 0.01)
    paper = luminance(look.paper)
    for level in levels:
        assert (max(level, paper) + 0.05) / (min(level, paper) + 0.05) > 1.5
    assert make([1e9, 3e9], look) == make([3e9, 1e9, 1e9], look)
    assert len(make([1e9], look)) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3e8, "300M"),
        (1e9, "1B"),
        (1.82e9, "1.82B"),
        (2e13, "20T"),
        (9.999e8, "1B"),
        (143e6, "143M"),
        (12, "12"),
        (1e4, "10k"),
        (1e16, "1e16"),
        (9.99e14, "999T"),
    ],
)
def test_sizes_are_written_as_people_do(value, text):
    assert style.short(value) == text


def test_powers_of_ten():
    assert [style.power_of_ten(v) for v in (1e21, 3.16e22, 1e-3)] == ["1e21", "3.2e22", "1e-3"]


def test_labels_are_spread_without_changing_their_order():
    placed = visuals.spread([0.5, 0.52, 0.1, 0.51], 0.1, 0.0, 1.0)
    assert list(np.argsort(placed, kind="stable")) == [2, 0, 3, 1]
    assert np.diff(np.sort(placed)).min() >= 0.1 - 1e-12
    assert placed[2] == 0.1
    crowded = visuals.spread([0.95, 0.96, 0.97], 0.1, 0.0, 1.0)
    np.testing.assert_allclose(crowded, [0.8, 0.9, 1.0])


# The real thing -------------------------------------------------------------------------------------------------------


def test_what_the_decisions_return_can_be_drawn():
    fit = posterior_of(scattered(8), chains=2)
    plan = decisions.plan(fit, ["300M", "1B"], [1e20, 1e22, 1e24], ["best case", "teacher pretraining"])
    for plot in (plots.plot_probability, plots.plot_best_loss, plots.plot_compute_strategy):
        assert isinstance(plot(plan), Figure)
    by_loss = decisions.capacity_gap(fit, ["300M", "1B"], student_tokens_per_param=20, teacher_losses=[2.0, 2.2, 2.4])
    by_size = decisions.capacity_gap(
        fit, ["300M", "1B"], student_tokens_per_param=20, teacher_params=[1e9, 3e9], teacher_budget=1e21
    )
    by_budget = decisions.capacity_gap(
        fit, ["300M", "1B"], student_budget=1e20, teacher_params=["1B", "3B"], teacher_tokens_per_param=20
    )
    assert isinstance(plots.plot_capacity_gap(by_loss), Figure)
    assert isinstance(plots.plot_capacity_gap(by_size), Figure)
    assert isinstance(plots.plot_experiment_fixed_student(by_size), Figure)
    assert isinstance(plots.plot_experiment_fixed_teacher(by_budget), Figure)
    found = decisions.crossovers(fit, ["300M", "1B"], "best case", budgets=[1e19, 1e21, 1e23, 1e25])
    assert isinstance(plots.plot_crossover(found), Figure)
    assert isinstance(plots.plot_break_even(decisions.break_even(fit, "1B", [1e20, 1e22])), Figure)
    assert isinstance(plots.plot_sharing_map(decisions.sharing_map(fit, "1B", [1e20, 1e22], [1, 10])), Figure)
    assert isinstance(plots.plot_probability(decisions.plan_tokens(fit, "1B", [1e10, 1e12])), Figure)
    assert isinstance(plots.plot_value(decisions.plan_value(fit, plan)), Figure)
    assert isinstance(plots.plot_information(decisions.evppi(fit, plan)), Figure)
    teachers = pd.DataFrame({"params": [1e9, 7e9], "loss": [2.25, 2.05]})
    assert isinstance(plots.plot_teacher_choice(decisions.teacher_choice(fit, teachers, "1B", 1e21)), Figure)
    assert isinstance(plots.plot_family(decisions.family_plan(fit, ["300M", "1B"], 1e21)), Figure)


if __name__ == "__main__":
    BASELINE.mkdir(exist_ok=True)
    for case in MAKERS:
        print(save(case, BASELINE / f"{case}.png"))


def test_a_notebook_that_has_loaded_pyplot_shows_the_whole_figure(monkeypatch):
    """There figures are saved with `bbox_inches="tight"`, which must not cut the texts that stand beside the panels."""
    figure = picture.new_figure(style.make_look("page", dark=False), 3.0)
    figure.add_axes((0.4, 0.4, 0.2, 0.2))
    figure.text(0.0, 0.0, "a note").set_in_layout(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100, bbox_inches="tight", pad_inches=0)
    width, height = figure.get_size_inches()
    file.seek(0)
    assert matplotlib.image.imread(file).shape[:2] == (round(100 * height), round(100 * width))


def test_the_note_on_extrapolation_names_axes_and_largest_factors():
    factor = xr.DataArray(
        [[1.0, 83_300.0, 5.0], [1.0, 1.004, 1.0], [1.0, 1.0, 1.0]],
        dims=("axis", "budget"),
        coords={"axis": ["teacher_tokens_per_param", "student_params", "teacher_loss"]},
    )
    data = xr.Dataset({"extrapolation_factor": factor, "extrapolates": ("budget", [False, True, True])})
    # 1.004 is rounded up, because ×1 would mean that nothing is extrapolated.
    assert grids.extrapolation_note(data) == [
        "Outside the range of the data, at most by these factors: teacher tokens per parameter (×83.3k), student size (×1.01)."
    ]
    assert grids.extrapolation_note(data.isel(budget=[0])) == []
    assert grids.extrapolation_note(data.drop_vars("extrapolation_factor")) == []
