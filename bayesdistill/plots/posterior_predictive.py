"""Repeated runs beside observed ones, group by group."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill.errors import ParameterError
from bayesdistill.plots import grids, style
from bayesdistill.plots.style import Look

TITLES = {
    "student": "student configuration",
    "teacher": "teacher",
    "ratio": "r, teacher over student's own loss",
    "tokens": "tokens of the student",
}
_NEED = (
    "runs",
    "inside_90",
    "inside_90_lower",
    "inside_90_upper",
    "mean",
    "mean_lower",
    "mean_upper",
    "factor",
    "label",
)


def plot_posterior_predictive(
    found: xr.Dataset,
    *,
    factors: tuple[str, ...] = ("student", "ratio", "tokens"),
    size: str = "page",
    dark: bool = False,
) -> Figure:
    """Mean misfit and coverage of every group of runs, with what repetition of the runs would give.

    Parameters
    ----------
    found : Dataset
        What `posterior_predictive` returns: mean, mean_lower, mean_upper (nats per token), inside_90 and its bounds over group.
    factors : tuple of {"student", "teacher", "ratio", "tokens"}
        What the runs are grouped by, a row each. Teachers are many; ask for them alone.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

    Returns
    -------
    Figure

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, a factor is unknown, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.posterior_predictive(bd.load("fit.nc"))  # doctest: +SKIP
    >>> bd.plot_posterior_predictive(found, factors=("teacher",)).savefig("teachers.png")  # doctest: +SKIP
    """
    grids.need(found, _NEED, "the argument of plot_posterior_predictive", "posterior_predictive()")
    known = list(dict.fromkeys(found["factor"].values.tolist()))
    unknown = [name for name in factors if name not in known]
    if unknown or not factors:
        raise ParameterError(f"factors is {factors!r}; choose from {', '.join(map(repr, known))}")
    look = style.make_look(size, dark)
    groups = [found.isel(group=np.flatnonzero(found["factor"].values == name)) for name in factors]
    counts = [one.sizes["group"] for one in groups]
    with style.drawing(look):
        # Not so low that a single group leaves no room for the axes beside titles and notes.
        figure = style.new_figure(look, max(1.5, sum(0.14 * count + 0.45 for count in counts)))
        axes = figure.subplots(
            len(groups),
            2,
            squeeze=False,
            sharey="row",
            sharex="col",
            gridspec_kw={"height_ratios": [c + 2 for c in counts]},
        )
        for (left, right), one, name in zip(axes, groups, factors, strict=True):
            _draw(left, right, look, one, sum(counts))
            title = style.plain(TITLES.get(name, name))
            # The height of a slide is fixed, and its rows are low.
            left.set_ylabel(title.split(",")[0] if look.size == "slide" else title)
        style.small_numbers(axes[-1, 0].xaxis, 3 if look.tall else 6)
        axes[-1, 0].set_xlabel("mean misfit\n[nats per token]")
        axes[-1, 1].set_xlabel("share in\n90 % interval [1]")
        entries: list[Artist] = [
            style.line_entry("observed, as the model allows", look.accent, linestyle="none", marker="o"),
            style.line_entry(
                "observed, outside of 90 % of repetitions", style.WARNING_COLOR, linestyle="none", marker="D"
            ),
            style.band_entry("90 % of repetitions", look.neutral, 0.4),
        ]
        warnings, notes = style.fit_notes(found)
        style.finish(
            figure,
            look,
            title="Runs repeated from the posterior, beside those observed",
            handles=entries,
            warnings=warnings,
            notes=[
                "Misfit: observed minus predicted loss, of the runs that were fitted. Bands of coverage: if runs were independent. "
                "In brackets: the number of runs.",
                *(
                    ["r: the teacher's loss over the student's own."]
                    if "ratio" in factors and look.size == "slide"
                    else []
                ),
                *notes,
            ],
        )
    return figure


def _draw(left: Axes, right: Axes, look: Look, one: xr.Dataset, rows: int) -> None:
    y = np.arange(one.sizes["group"])
    width = 0.55
    for ax, name, center in ((left, "mean", 0.0), (right, "inside_90", 0.9)):
        style.dress(ax, look)
        ax.use_sticky_edges = False  # a band that ends at the axis looks cut
        low, high, value = (one[f"{name}{end}"].values for end in ("_lower", "_upper", ""))
        ax.barh(y, high - low, left=low, height=width, color=look.neutral, alpha=0.4, linewidth=0, zorder=1)
        # Bounds of a count are inclusive: allow for rounding of the shares.
        outside = (value < low - 1e-12) | (value > high + 1e-12)
        for which, color, marker in ((~outside, look.accent, "o"), (outside, style.WARNING_COLOR, "D")):
            ax.plot(
                value[which],
                y[which],
                linestyle="none",
                marker=marker,
                color=color,
                markersize=1.2 * look.marker,
                zorder=3,
            )
        ax.axvline(center, color=look.ink, linewidth=0.6 * look.line, zorder=0.5)
        ax.grid(visible=False, axis="y")
    labels = [
        f"{style.plain(label)} ({int(n)})" for label, n in zip(one["label"].values, one["runs"].values, strict=True)
    ]
    # The height of a slide is fixed.
    left.set_yticks(y, labels, fontsize=min(look.small, 330 / (rows + 6)) if look.size == "slide" else look.small)
    left.set_ylim(y.size - 0.5, -0.5)
    right.set_xlim(-0.03, 1.03)
