"""How much each quantity hangs on each prior."""

from __future__ import annotations

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.colors import BoundaryNorm, ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bayesdistill.plots import grids, style

_LEVELS = (0.0, 0.05, 0.1, 0.2, 0.4, np.inf)


def plot_prior_sensitivity(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Power-scaling sensitivity of every quantity to every prior and to the runs, as a map.

    Parameters
    ----------
    found : Dataset
        What `prior_sensitivity` returns: sensitivity over component and quantity.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

    Returns
    -------
    Figure
        Empty below 0.05; components that nothing is sensitive to are named in the footer only.

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> bd.plot_prior_sensitivity(bd.prior_sensitivity(bd.load("fit.nc"))).savefig("prior.png")  # doctest: +SKIP
    """
    grids.need(
        found, ["sensitivity", "component", "quantity"], "the argument of plot_prior_sensitivity", "prior_sensitivity()"
    )
    look = style.make_look(size, dark)
    table = found["sensitivity"].transpose("quantity", "component")
    shown = [
        str(c)
        for c in table["component"].values
        if c in ("runs", "all priors") or (table.sel(component=c) >= 0.05).any()
    ]
    silent = [str(c) for c in table["component"].values if str(c) not in shown]
    values = table.sel(component=shown).values
    colormap = matplotlib.colormaps["cividis_r" if look.span[0] == 0 else "cividis"]
    shades = [look.paper, *(to_hex(colormap(float(x))) for x in np.linspace(0.1, 1.0, len(_LEVELS) - 2))]
    finite = [*_LEVELS[:-1], max(1e3, float(np.nanmax(values)) + 1)]
    quantities = [style.plain(str(name).replace("e+", "e")) for name in found["quantity"].values]
    with style.drawing(look):
        figure = style.new_figure(look, 0.14 * len(quantities) + 1.1)
        ax = style.panels(figure, look, 1, 1)[0, 0]
        ax.pcolormesh(
            np.arange(len(shown) + 1) - 0.5,
            np.arange(len(quantities) + 1) - 0.5,
            np.ma.masked_invalid(values),
            cmap=ListedColormap(shades),
            norm=BoundaryNorm(finite, len(shades)),
            edgecolors=look.grid,
            linewidth=0.3 * look.line,
        )
        ax.set_xticks(range(len(shown)), [name.replace("_", " ") for name in shown], rotation=40, ha="right")
        small = look.small if look.size != "slide" else min(look.small, 330 / len(quantities))
        ax.set_yticks(range(len(quantities)), quantities, fontsize=small)
        ax.set_ylim(len(quantities) - 0.5, -0.5)
        ax.grid(visible=False)
        names = ["sensitivity below 0.05", "0.05 to 0.1", "0.1 to 0.2", "0.2 to 0.4", "0.4 and more"]
        entries: list[Artist] = [
            Patch(facecolor=shade, edgecolor=look.grid, linewidth=0.5, label=name)
            for shade, name in zip(shades, names, strict=True)
        ]
        warnings, notes = style.fit_notes(found)
        rest = f" Nothing is sensitive to: {', '.join(name.replace('_', ' ') for name in silent)}." if silent else ""
        style.finish(
            figure,
            look,
            title="What hangs on which prior",
            handles=entries,
            warnings=warnings,
            notes=[
                "Power-scaling sensitivity: change of the posterior, as a distance, when a component doubles in weight "
                f"(extrapolated from a small change). Blank: below 0.05.{rest}",
                *notes,
            ],
        )
    return figure
