"""Figures and tables of criticism: they show what the Dataset says, refuse what they cannot draw, and keep inside the page."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

import bayesdistill as bd
from bayesdistill.errors import ParameterError
from bayesdistill.plots import style

ATTRS = {"converged": "yes", "supervised_law": "published law"}


def dataset(variables, coords, **attrs) -> xr.Dataset:
    return xr.Dataset(
        {k: (d, v, {"units": "1", "long_name": k}) for k, (d, v) in variables.items()}, coords, ATTRS | attrs
    )


def prior_predictive() -> xr.Dataset:
    observed = np.linspace(2.9, 2.1, 40)
    expected = observed + np.array([-0.5, -0.2, 0.1, 0.4, 1.0])[:, None]
    variables = {
        "student_loss": ("run", observed),
        "expected": (("quantile", "run"), expected),
        "position": ("run", np.full(40, 0.43)),
        "inside_50": ((), 1.0),
        "inside_90": ((), 1.0),
    }
    return dataset(variables, {"quantile": [0.05, 0.25, 0.5, 0.75, 0.95]}, draws=60)


def groups() -> dict[str, tuple[str, list]]:
    return {
        "factor": ("group", ["student", "student", "teacher", "ratio", "ratio", "tokens"]),
        "label": ("group", ["143M, 3B tokens", "1.8B, 38B tokens", "T$1$", "0.7 to 0.9", "0.9 to 1.1", "3B"]),
        "middle": ("group", [1.43e8, 1.8e9, 2.1, 0.8, 1.0, 3e9]),
    }


def posterior_predictive() -> xr.Dataset:
    variables = {
        "runs": ("group", [10, 5, 1, 8, 7, 15]),
        "inside_50": ("group", [0.5] * 6),
        "inside_90": ("group", [0.9, 0.4, 1.0, 0.9, 0.9, 0.9]),
        "inside_90_lower": ("group", [0.7] * 6),
        "inside_90_upper": ("group", [1.0] * 6),
        "mean": ("group", [0.001, -0.009, 0.0, 0.0, 0.002, 0.0]),
        "mean_lower": ("group", [-0.003] * 6),
        "mean_upper": ("group", [0.003] * 6),
        "mean_p": ("group", [0.3, 1.0, 0.5, 0.5, 0.2, 0.5]),
    }
    return dataset(variables, groups())


def residuals() -> xr.Dataset:
    variables = {
        "residual": ("run", 0.01 * np.random.default_rng(3).standard_normal(12)),
        "ratio": ("run", np.linspace(0.7, 1.1, 12)),
        "teacher_loss": ("run", np.linspace(2.0, 2.6, 12)),
        "student_params": ("run", np.repeat([1.43e8, 1.8e9], 6)),
        "student_tokens": ("run", np.repeat([3e9, 3.8e10], 6)),
        "configuration_of_run": ("run", np.repeat([0, 1], 6)),
        "mean_residual": ("group", [0.001, -0.002, 0.0, 0.003, -0.004, 0.0]),
        "standard_error": ("group", [0.001, 0.001, np.nan, 0.001, 0.001, 0.001]),
        "runs": ("group", [6, 6, 1, 6, 5, 12]),
        "share": ("by", [0.3, 0.2, 0.1, 0.0]),
        "p_value": ("by", [0.0, 0.01, 0.2, 0.6]),
        "neighbours": ((), 0.53),
        "neighbours_p": ((), 0.0),
        "neighbours_expected": ((), -0.05),
    }
    return dataset(variables, {"by": ["student", "teacher", "ratio", "tokens"], **groups()}, shuffles=2000)


def loo(worst: float = 0.3) -> xr.Dataset:
    k = np.append(np.linspace(-0.1, 0.3, 20), worst)
    variables = {"pareto_k": ("run", k), "elpd_i": ("run", np.linspace(1, 4, 21)), "elpd": ((), 60.0), "se": ((), 3.0)}
    return dataset(variables, {}, verdict="Do not use it." if worst > 0.7 else "It can be used.")


def compared() -> xr.Dataset:
    names = ("elpd", "elpd_difference", "difference_se", "weight", "bad")
    values = ([60, 57, 20], [0, -3, -40], [0, 2, 9], [0.9, 0.1, 0], [0, 0, 3])
    variables = {name: ("model", value) for name, value in zip(names, values, strict=True)}
    return dataset(variables, {"model": ["w1", "eq. 8", "no gap"]}, verdict="Do not use it.")


def sensitivity() -> xr.Dataset:
    values = np.array([[0.2, 0.3], [0.1, 0.2], [0.01, 0.02], [0.0, 0.25]])
    variables = {"sensitivity": (("component", "quantity"), values), "diagnosis": ("quantity", ["fine", "not fine"])}
    coords = {
        "component": ["runs", "all priors", "c0", "asymptotic"],
        "quantity": ["E", "advantage, 1B, best case, 1e+21 FLOPs"],
    }
    return dataset(variables, coords)


def calibration() -> xr.Dataset:
    rng = np.random.default_rng(3)
    rank = np.column_stack([rng.integers(0, 100, (200, 3)), rng.binomial(99, rng.beta(1.8, 1, 200))])
    stated = rng.beta(0.5, 0.5, (200, 2))
    found = xr.Dataset(
        {
            "rank": (("simulation", "quantity"), rank),
            "probability": (("simulation", "decision"), stated),
            "won": (("simulation", "decision"), rng.random((200, 2)) < stated),
            "status": ("simulation", ["passed"] * 190 + ["passed when refitted"] * 7 + ["failed"] * 3),
        },
        {"quantity": ["c0", "c1", "nu", "z[log_sigma]"], "decision": ["one", "two"]},
        {"ranks": 99, "passed": 190, "passed_when_refitted": 7, "failed": 3},
    )
    return bd.rank_ecdf(found)


def distance() -> xr.Dataset:
    """Errors that grow with distance, of groups whose distance outside the range is the same."""
    rng, per = np.random.default_rng(4), 12
    group = np.repeat([f"g{i}" for i in range(9)], per)
    near, z = np.repeat(np.linspace(0.1, 2, 9), per), rng.standard_normal(9 * per)
    columns = {"group": group, "error": 0.002 * np.exp(near) * z, "pit": stats.norm.cdf(-z), "converged": near > 0}
    columns |= {"nearest_distance": near, "distance": 0 * near, "leverage": near / 3}
    return bd.error_by_distance(xr.Dataset({name: ("run", value) for name, value in columns.items()}))


def unseen() -> xr.Dataset:
    cell = ("split", "model")
    variables = {
        "elpd": (cell, [[60.0, 50.0], [10.0, 12.0]]),
        "elpd_difference": (cell, [[0.0, -10.0], [-2.0, 0.0]]),
        "elpd_difference_se": (cell, [[0.0, 3.0], [np.nan, np.nan]]),
        "coverage_50": (cell, [[0.5, 0.4], [0.6, 0.5]]),
        "coverage_90": (cell, [[0.9, 0.8], [0.92, 0.7]]),
        "rmse": (cell, [[0.007, 0.008], [0.006, 0.01]]),
    }
    return dataset(variables, {"split": ["teachers", "large students"], "model": ["w1", "eq. 8"]})


MAKERS = {
    "prior_predictive": (bd.plot_prior_predictive, prior_predictive),
    "posterior_predictive": (bd.plot_posterior_predictive, posterior_predictive),
    "residuals": (bd.plot_residuals, residuals),
    "loo": (bd.plot_loo, loo),
    "compared": (bd.plot_loo, compared),
    "sensitivity": (bd.plot_prior_sensitivity, sensitivity),
    "calibration": (bd.plot_calibration, calibration),
    "unseen": (bd.plot_unseen_groups, unseen),
    "distance": (bd.plot_error_by_distance, distance),
}


def texts(figure: Figure) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


@pytest.mark.parametrize("size", ["column", "page", "slide"])
@pytest.mark.parametrize("name", MAKERS)
def test_every_text_stays_on_the_page(name, size):
    plot, make = MAKERS[name]
    figure = plot(make(), size=size, dark=size == "slide")
    renderer = figure.canvas.get_renderer()
    width, height = figure.get_size_inches() * figure.dpi
    labels = list(figure.texts)
    for ax in figure.axes:
        labels += [ax.xaxis.label, ax.yaxis.label, ax.title, *ax.texts]
        assert (
            ax.get_xlabel()
            or size != "column"
            or name in ("loo", "compared", "posterior_predictive", "sensitivity", "unseen")
        )
    for label in labels:
        if not label.get_text():
            continue
        box = label.get_window_extent(renderer)
        assert box.x0 > -1, label.get_text()
        assert box.x1 < width + 1, label.get_text()
        assert box.y0 > -1, label.get_text()
        assert box.y1 < height + 1, label.get_text()


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_not_the_right_dataset_is_refused(name):
    plot, _ = MAKERS[name]
    for wrong in (xr.Dataset(), None):
        with pytest.raises(ParameterError):
            plot(wrong)
    with pytest.raises(ParameterError, match=r"`size` must be .*, got 'poster'"):
        plot(MAKERS[name][1](), size="poster")


def test_the_prior_predictive_is_drawn_in_the_order_of_losses():
    figure = bd.plot_prior_predictive(prior_predictive())
    dots = next(line for line in figure.axes[0].lines if line.get_marker() == "o")
    assert (np.diff(dots.get_ydata()) > 0).all()
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == 40
    assert "100% in the 90% interval" in texts(figure)


@pytest.mark.parametrize("size", ["column", "page", "slide"])
def test_labels_of_few_groups_break_between_words(size):
    figure = bd.plot_posterior_predictive(MAKERS["posterior_predictive"][1](), size=size)
    words = {word for ax in figure.axes for word in ax.get_ylabel().split()}
    assert {"student", "configuration", "tokens", "of", "the"} <= words


def test_groups_outside_of_repetition_are_marked():
    figure = bd.plot_posterior_predictive(posterior_predictive(), factors=("student",))
    left, right = figure.axes
    for ax, value in ((left, -0.009), (right, 0.4)):
        marked = next(line for line in ax.lines if line.get_marker() == "D")
        assert list(marked.get_xdata()) == [value]
        assert marked.get_color() == style.WARNING_COLOR
    with pytest.raises(ParameterError, match="must be a tuple of 'student', 'teacher'"):
        bd.plot_posterior_predictive(posterior_predictive(), factors=("size",))
    # A name from outside is no formula.
    labels = bd.plot_posterior_predictive(posterior_predictive(), factors=("teacher",)).axes[0].get_yticklabels()
    assert labels[0].get_text() == r"T\$1\$ (1)"


def test_residuals_say_how_neighbours_correlate():
    figure = bd.plot_residuals(residuals())
    assert "correlate by 0.53 (p < 0.0005; noise alone: -0.05)" in texts(figure)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[0] == "by student configuration: 30% of the variance, p < 0.0005"
    drawn = np.concatenate([line.get_ydata() for line in figure.axes[1].lines if line.get_marker() == "o"])
    np.testing.assert_allclose(np.sort(drawn), np.sort(figure_residuals(figure)))


def figure_residuals(figure: Figure) -> np.ndarray:
    """The residuals of another panel: every panel shows all runs."""
    return np.concatenate([line.get_ydata() for line in figure.axes[2].lines if line.get_marker() == "o"])


def test_a_large_pareto_k_is_a_warning():
    good, bad = bd.plot_loo(loo()), bd.plot_loo(loo(0.9))
    for figure, color in ((good, None), (bad, style.WARNING_COLOR)):
        (verdict,) = [text for text in figure.texts if "use" in text.get_text()]
        assert (verdict.get_color() == style.WARNING_COLOR) is (color is not None)
    assert next(line for line in bad.axes[0].lines if line.get_marker() == "D").get_ydata().tolist() == [0.9]


def test_sensitivities_are_a_map_without_what_nothing_hangs_on():
    figure = bd.plot_prior_sensitivity(sensitivity())
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["runs", "all priors", "asymptotic"]
    np.testing.assert_allclose(ax.collections[0].get_array(), [[0.2, 0.1, 0.0], [0.3, 0.2, 0.25]])
    assert "Nothing is sensitive to: c0." in texts(figure)


def test_the_band_holds_whole_curves_with_its_probability():
    positions = (np.arange(99) + 1) / 100
    from bayesdistill.criticism.calibration_summaries import simultaneous_band

    lower, upper = simultaneous_band(200, positions, 0.9, simulations=3000, seed=1)
    ranks = np.random.default_rng(2).integers(0, 100, (2000, 200))
    curves = (ranks[:, :, None] <= np.arange(99)).mean(axis=1)
    held = ((curves >= lower - 1e-12) & (curves <= upper + 1e-12)).all(axis=1).mean()
    # Three standard errors of 2000 curves, and the level is a quantile of 3000 more.
    assert held == pytest.approx(0.9, abs=0.03)
    found = calibration()
    assert found["outside"].values.tolist() == [False, False, False, True]
    assert found.attrs["counted"] == 197
    figure = bd.plot_calibration(found)
    assert "197 simulations counted; 7 of them after a longer refit; 3 failed" in texts(figure)
    assert "1 of 4 quantities leave the band" in texts(figure)
    assert any("z[log_sigma]" in text.get_text() for text in figure.legends[0].get_texts())


def test_refits_that_did_not_converge_are_said():
    assert "converge" not in texts(bd.plot_unseen_groups(unseen()))
    found = unseen().assign(unconverged=(("split", "model"), [[0.0, 2.0], [1.0, np.nan]]))
    assert "3 of the refits behind this figure did not converge" in texts(bd.plot_unseen_groups(found))
    assert "converge" not in texts(bd.plot_loo(compared()))
    found = compared().assign(converged=("model", ["yes", "no", "unknown"]))
    assert "Did not converge: eq. 8;" in texts(bd.plot_loo(found))


def test_every_split_has_its_row():
    figure = bd.plot_unseen_groups(unseen())
    assert [ax.get_title(loc="left") for ax in figure.axes[::3]] == ["teachers unseen", "large students unseen"]
    coverage = next(line for line in figure.axes[4].lines if line.get_marker() == "o")
    assert coverage.get_xdata().tolist() == [0.92, 0.7]


@pytest.mark.parametrize("name", MAKERS)
def test_tables_have_a_row_for_each(name):
    found = MAKERS[name][1]()
    if name == "prior_predictive":
        with pytest.raises(ParameterError, match="criticism_table takes what"):
            bd.criticism_table(found)
        return
    table = bd.criticism_table(found)
    rows = {
        "posterior_predictive": 6,
        "residuals": 4,
        "loo": 21,
        "compared": 3,
        "sensitivity": 2,
        "calibration": 4,
        "unseen": 4,
        "distance": 9,
    }
    assert len(table) == rows[name]
    if name == "posterior_predictive":
        assert table.loc[("student", "1.8B, 38B tokens"), "mean"] == -0.009
    if name == "loo":
        assert table["pareto_k"].is_monotonic_decreasing
    if name == "unseen":
        assert table.loc[("teachers", "eq. 8"), "elpd_difference"] == -10
    if name == "sensitivity":
        assert table.loc["E", "diagnosis"] == "fine"
