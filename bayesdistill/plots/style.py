"""What all figures share: sizes, colors, formats of numbers and axes, and what is said about the fit.

Colors. Model sizes are ordered, so they take a sequential colormap with monotone lightness (viridis, cut where it would fade
into the background), which is readable in gray and with color blindness. Budgets take another one (plasma). Unordered
categories take the colors of Okabe and Ito (2008). Pretraining is always gray.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.ticker import Formatter, Locator, LogFormatterMathtext, LogLocator, MaxNLocator, NullLocator

from bayesdistill import posterior
from bayesdistill.arguments import one_of

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
WARNING_COLOR = "#D55E00"
HATCH = "////"
MARKERS = ("o", "^", "s", "D", "v", "P", "X")


@dataclass(frozen=True)
class Look:
    """Measures and colors of one figure.

    Parameters
    ----------
    size : str
        column, page or slide.
    width : float
        Inches.
    font, small : float
        Points.
    line, marker : float
        Points.
    ink, paper, grid, neutral, accent : str
        Colors of text, background, grid, pretraining, and of what has no color of its own.
    span : tuple of float
        Part of the sequential colormap in use.
    """

    size: str
    width: float
    font: float
    small: float
    line: float
    marker: float
    ink: str
    paper: str
    grid: str
    neutral: str
    accent: str
    span: tuple[float, float]

    def pick[T](self, column: T, page: T, slide: T | None = None) -> T:
        """Return the value for this size; a slide takes the value of the page by default."""
        return {"column": column, "page": page, "slide": page if slide is None else slide}[self.size]


SLIDE_HEIGHT = 7.5
_MEASURES = {  # width, font, small font, line, marker
    "column": (3.4, 7.0, 6.0, 1.0, 2.0),
    "page": (7.0, 8.0, 7.0, 1.3, 2.6),
    "slide": (13.33, 15.0, 12.0, 2.4, 4.6),
}
_COLORS: dict[bool, tuple[Any, ...]] = {  # dark -> ink, paper, grid, neutral, accent, span
    False: ("#1a1a1a", "#ffffff", "#dddddd", "#707070", "#0072B2", (0.0, 0.72)),
    True: ("#ececec", "#15181c", "#3a4047", "#a8a8a8", "#56B4E9", (0.4, 1.0)),
}


def make_look(size: str, dark: bool) -> Look:
    """Return the measures and colors for a size and a background.

    Raises
    ------
    ParameterError
        If there is no such size.
    """
    size = one_of(*_MEASURES)(size, "size")
    return Look(size, *_MEASURES[size], *_COLORS[bool(dark)])


# Colors and labels --------------------------------------------------------------------------------------------------


def size_colors(sizes: Sequence[float] | np.ndarray, look: Look) -> dict[float, Any]:
    """Return one color per model size, in the order of size, dark to light."""
    return _ordered_colors(sizes, "viridis", look.span, sum(look.span) / 2)


def budget_colors(budgets: Sequence[float] | np.ndarray, look: Look) -> dict[float, Any]:
    """Return one color per budget, dark to light, from another colormap than the sizes."""
    span = (0.0, 0.75) if look.span[0] == 0 else (0.42, 1.0)
    return _ordered_colors(budgets, "plasma", span, span[0])


def _ordered_colors(values: Any, name: str, span: tuple[float, float], alone: float) -> dict[float, Any]:
    ordered, colormap = sorted({float(value) for value in values}), matplotlib.colormaps[name]
    positions = [alone] if len(ordered) == 1 else np.linspace(*span, len(ordered))
    return {value: colormap(float(position)) for value, position in zip(ordered, positions, strict=True)}


def level_colors(look: Look, count: int) -> list[Any]:
    """Return colors for levels of a map, from the background towards full ink."""
    colormap = matplotlib.colormaps["cividis_r" if look.span[0] == 0 else "cividis"]
    return [colormap(float(position)) for position in np.linspace(0.1, 1.0, count)]


_SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def short(value: float) -> str:
    """Write a size or a number of tokens as people do: 300M, 1.82B, 20T, 1e16."""
    if value >= 999.5e12:
        return power_of_ten(value)
    for unit, suffix in _SUFFIXES:
        if value >= 0.9995 * unit:
            return f"{value / unit:.3g}{suffix}"
    return f"{value:.3g}"


def axis_words(axis: str) -> str:
    """Write the name of an axis, such as teacher_tokens_per_param, in words: teacher tokens per parameter."""
    return axis.replace("_per_param", "_per_parameter").replace("_params", "_size").replace("_", " ")


def power_of_ten(value: float) -> str:
    """Write FLOPs for running text: 1e21, 3.2e22."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def signed(value: float, digits: int) -> str:
    """Write a difference with its sign; one that is rounded to zero has none."""
    words = f"{value:+.{digits}f}"
    return words if float(words) else words[1:]


def percent(prob: float) -> str:
    """Write a probability for a legend."""
    return f"{100 * prob:g}%"


def plain(text: object) -> str:
    """Return a text from outside, safe from being read as mathematics."""
    return str(text).replace("$", r"\$")


def set_ticks(axis: Any, locator: Any, write: Any) -> None:
    """Put ticks only where the locator says, labeled by a function of the value (or a Formatter)."""
    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(write if isinstance(write, Formatter) else lambda value, _: write(value))


def log_axis(axis: Any) -> None:
    """Make an axis logarithmic."""
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")


def flops_axis(axis: Any) -> None:
    """Label powers of ten, few enough to be read; also 3e21 on less than a decade. Call it after drawing."""
    log_axis(axis)
    low, high = sorted(axis.get_view_interval())
    if 0 < high < 20 * low:
        subs = (1.0, 2.0, 3.0, 5.0) if high < 8 * low else (1.0, 3.0)
        set_ticks(axis, LogLocator(base=10, subs=subs), power_of_ten)
    else:
        set_ticks(axis, LogLocator(base=10, numticks=5), LogFormatterMathtext())


class Decades(Locator):
    """Ticks at powers of ten, at 1 and 3 where these are fewer than `least`, and at 1, 2 and 5 on about a decade."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most

    def __call__(self) -> Sequence[float]:
        """Return the ticks of the axis as it is now."""
        return self.tick_values(*sorted(self.axis.get_view_interval()))  # type: ignore[union-attr]

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Return the ticks between two values."""
        decades = 10.0 ** np.arange(np.floor(np.log10(vmin)), np.floor(np.log10(vmax)) + 1)
        for subs in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
            ticks = [sub * decade for decade in decades for sub in subs if vmin <= sub * decade <= vmax]
            if len(ticks) >= (self.least if len(subs) < 3 else 2):
                return ticks[:: -(-len(ticks) // self.most)]
        return MaxNLocator(3).tick_values(vmin, vmax)


def size_axis(axis: Any) -> None:
    """Label 1M, 100M, 10B; also 300M and 3B where there would be few labels. Call it after drawing."""
    log_axis(axis)
    set_ticks(axis, Decades(4, 7) if axis.axis_name == "x" else Decades(3, 5), short)


def axis_of_units(axis: Any, units: str) -> None:
    """Label an axis as its units ask for. Call it after drawing."""
    if units in _AXES:
        _AXES[units](axis)


def small_numbers(axis: Any, most: int = 5) -> None:
    """Label 0, 5e-6, 1e-5, without a common factor at the end of the axis."""

    def write(value: float) -> str:
        return f"{chr(0x2212) if value < 0 else ''}{power_of_ten(abs(value))}" if value else "0"

    axis.set_major_locator(MaxNLocator(most))
    axis.set_major_formatter(lambda value, _: write(value))


_AXES = {"FLOPs": flops_axis, "tokens": size_axis, "parameters": size_axis}


# Notes on the fit ---------------------------------------------------------------------------------------------------


_MANY = 5  # more than half of the nine coordinates of the distillation law


def conflicts(data: xr.Dataset) -> list[str]:
    """Return what every figure says if the runs contradict the supervised law, or if data are limited; empty otherwise."""
    return posterior.limits_of(data.attrs)


def fit_notes(data: xr.Dataset) -> tuple[list[str], list[str]]:
    """What the reader must know about the posterior behind a Dataset: (warnings, notes).

    Read from the attributes `converged` (yes, no, unknown), `convergence` (JSON), `prior_dominated` (JSON, names of
    coordinates), `supervised_law` or `posterior_provenance` (JSON), and `fixed_axes` (JSON, axes of the runs that do not vary) that
    plans and curves carry.
    """
    warnings, notes = [], []
    converged = data.attrs.get("converged", "unknown")
    if converged == "no":
        failed = json.loads(data.attrs.get("convergence", "{}")).get("failed") or []
        detail = f" (failed: {', '.join(failed)})" if failed else ""
        warnings.append(f"The posterior behind this figure did not converge{detail}; its numbers may be wrong.")
    elif converged != "yes":
        notes.append("Whether the draws behind this figure converged is not known.")
    warnings += conflicts(data)
    known = json.loads(data.attrs.get("posterior_provenance", "{}"))
    published = (data.attrs.get("supervised_law") or known.get("supervised_law")) == "published law"
    names = json.loads(data.attrs.get("prior_dominated", "[]"))
    if len(set(names) - posterior.SUPERVISED_COORDINATES) >= _MANY:
        warnings.append("The posterior behind this figure is mostly its prior: the runs are weak evidence.")
    notes += posterior.prior_sentences(names, published)
    notes += json.loads(data.attrs.get("fixed_axes", "{}")).values()
    return warnings, notes
