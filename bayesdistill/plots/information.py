"""The value of knowing single quantities before choosing."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bayesdistill.plots import grids, style

_LEVELS = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)
_SLIDE_ROWS = 27


def plot_information(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Value of knowing one quantity, as a fraction of the value of perfect information, against the budget.

    Parameters
    ----------
    found : Dataset
        What `evppi` returns: evppi_share over quantity, student, scenario, budget.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

    Returns
    -------
    Figure
        A map for each student and scenario. Empty where knowing everything is worth nothing, because the choice is clear.

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, has a single budget, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.load("fit.nc")  # doctest: +SKIP
    >>> plan = bd.plan(fit, "1B", [1e22, 1e23, 1e24])  # doctest: +SKIP
    >>> bd.plot_information(bd.evppi(fit, plan)).savefig("information.png")  # doctest: +SKIP
    """
    grids.need(found, ["evppi_share", "quantity", "student", "scenario"], "the argument of plot_information", "evppi()")
    grids.need_several(found, "budget")
    look = style.make_look(size, dark)
    cases = [(s, str(c)) for s in grids.sorted_students(found) for c in found["scenario"].values]
    budgets = found["budget"].values
    middles = np.sqrt(budgets[1:] * budgets[:-1])
    edges = np.concatenate([[budgets[0] ** 2 / middles[0]], middles, [budgets[-1] ** 2 / middles[-1]]])
    most = found["evppi_share"].max(["student", "scenario", "budget"]).fillna(0).values
    columns = min(2 if look.tall else 4, len(cases))
    bands = -(-len(cases) // columns)
    # The height of a slide is fixed: where there are many rows, it shows what matters most.
    enough = [x for x in _LEVELS[1:-1] if look.size != "slide" or bands * (most >= x).sum() <= _SLIDE_ROWS]
    floor = enough[0] if enough else _LEVELS[-2]
    chosen = found["quantity"].values[most >= floor] if (most >= floor).any() else found["quantity"].values
    idle = [style.plain(str(name)) for name in found["quantity"].values if name not in chosen]
    quantities = [style.plain(str(name)) for name in chosen]
    # From the paper towards full ink: next to nothing looks like next to nothing.
    colormap = matplotlib.colormaps["cividis_r" if look.span[0] == 0 else "cividis"]
    shades: list[Any] = [look.grid, *(colormap(float(x)) for x in np.linspace(0.1, 1.0, len(_LEVELS) - 2))]
    with style.drawing(look):
        height = max(0.16 * len(quantities) + 0.45, 1.0)
        figure = style.new_figure(look, bands * (height if look.tall else 1.2 * height))
        groups, columns = grids.shape_panels(figure, look, len(cases), [1], columns)
        # What is left of a panel of a slide without its title, in points, is shared by the names.
        room = 400 / bands - 56
        small = min(look.small, room / len(quantities)) if look.size == "slide" else look.small
        for (ax,), (student, scenario) in zip(groups, cases, strict=True):
            cell = found["evppi_share"].sel(quantity=chosen, student=student, scenario=scenario)
            share = cell.transpose("quantity", "budget").values
            ax.pcolormesh(
                edges,
                np.arange(len(quantities) + 1) - 0.5,
                np.ma.masked_invalid(np.clip(share, 0, 1)),
                cmap=ListedColormap(shades),
                norm=BoundaryNorm(_LEVELS, len(shades)),
                zorder=1,
            )
            ax.set_yticks(range(len(quantities)), quantities, fontsize=small)
            ax.set_ylim(len(quantities) - 0.5, -0.5)
            ax.grid(visible=False)
            style.panel_title(ax, f"{style.short(student)}, {scenario}", 25 if look.size == "slide" else 22)
            style.flops_axis(ax.xaxis)
        grids.label_groups(groups, columns, "compute budget [FLOPs]", ["quantity"], look, same=False, repeat=False)
        entries: list[Artist] = [
            Patch(facecolor=shade, edgecolor="none", label=f"{100 * low:g} to {100 * high:g} %")
            for low, high, shade in zip(_LEVELS[:-1], _LEVELS[1:], shades, strict=True)
        ]
        warnings, notes = style.fit_notes(found)
        style.finish(
            figure,
            look,
            title="What it would be worth to know one quantity",
            handles=entries,
            warnings=warnings,
            notes=[
                "Fraction of the value of perfect information about the law, for the choice between pretraining and the chosen "
                "strategy. Empty where that is 0. Quantities are not independent: fractions do not add up to 100 %."
                + (f" Not shown, because below {100 * floor:g} % everywhere: {', '.join(idle)}." if idle else ""),
                *notes,
            ],
        )
    return figure
