"""A new plot takes about forty lines: the one of docs/how-to/new-plot.md is run, drawn in every size, and looked at."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import figure_inputs as inputs
import numpy as np
import pytest
import xarray as xr
from figure_checks import assert_readable, legend_of, words_of
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpydoc.docscrape import FunctionDoc

from bayesdistill.errors import ParameterError
from bayesdistill.plots import style

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "new-plot.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def plot_gain() -> Callable[..., Figure]:
    names: dict = {}
    exec(compile(BLOCKS[0], str(PAGE), "exec"), names)
    return names["plot_gain"]


def test_it_takes_about_forty_lines():
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 42


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", ["column", "page", "slide"])
def test_it_can_be_read_and_shows_the_plan(plot_gain, size, dark):
    plan = inputs.plan()
    figure = plot_gain(plan, prob=0.5, size=size, dark=dark)
    assert_readable(figure)
    panels = [ax for ax in figure.axes if ax.axison]
    titles = [ax.get_title(loc="left").replace("\n", " ") for ax in panels]
    assert titles == plan["scenario"].values.tolist()
    expected = ["student 300M", "1B", "10B", "50% interval", "inside the data", "extrapolated"]
    assert legend_of(figure) == [*expected, "outside the data for every student"]
    assert "teacher pretraining: 10B at 2 points up to 3.2e19" in words_of(figure)
    colors = style.size_colors(plan["student"].values, style.make_look(size, dark))
    for ax, scenario in zip(panels, plan["scenario"].values, strict=True):
        for student, color in colors.items():
            one = plan.sel(scenario=scenario, student=student)
            gain = one["advantage"].median(("chain", "draw"))
            mine = [line for line in ax.lines if to_rgb(line.get_color()) == to_rgb(color)]
            (dashed,) = [line for line in mine if line.get_linestyle() == "--"]
            solid = next(line for line in mine if line.get_linestyle() == "-")
            np.testing.assert_allclose(dashed.get_ydata(), gain)
            np.testing.assert_allclose(solid.get_ydata(), gain.where(~one["extrapolates"]))
        outside = plan["extrapolates"].sel(scenario=scenario).all("student").values
        hatched = [patch for patch in ax.patches if patch.get_hatch()]
        assert len(hatched) == int(outside[0]) + int(outside[-1])


def test_it_tells_about_the_posterior(plot_gain):
    figure = plot_gain(inputs.plan().assign_attrs(converged="no"))
    assert "The posterior behind this figure did not converge" in words_of(figure)


def test_its_errors_say_what_is_wrong(plot_gain):
    with pytest.raises(ParameterError, match=r"Expected plan as a Dataset returned by plan\(\); advantage is missing"):
        plot_gain(inputs.plan().drop_vars("advantage"))
    with pytest.raises(ParameterError, match="got NoneType"):
        plot_gain(None)
    with pytest.raises(ParameterError, match=r"`size` must be .*, got 'poster'"):
        plot_gain(inputs.plan(), size="poster")
    with pytest.raises(ParameterError, match="is missing"):
        plot_gain(xr.Dataset())


def test_its_documentation_is_complete(plot_gain):
    doc = FunctionDoc(plot_gain)
    assert [parameter.name for parameter in doc["Parameters"]] == list(inspect.signature(plot_gain).parameters)
    assert all(parameter.desc for parameter in doc["Parameters"])
    assert doc["Returns"]
    assert doc["Raises"]
    assert "{" not in plot_gain.__doc__.replace('{"column", "page", "slide"}', "")
