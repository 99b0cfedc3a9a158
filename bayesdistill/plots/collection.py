"""The skeleton of a figure: panels for the parts of a result, their labels, the legend, and the notes on the fit."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bayesdistill.arguments import checked
from bayesdistill.plots import grids, layout, picture, style, visuals
from bayesdistill.plots.style import Look


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((resources.files(__package__) / name).read_text("utf-8"))


FIGURES = _read("figures.toml")
_SECTIONS = _read("docstrings.toml")


def documented[F: Callable[..., object]](plot: F) -> F:
    """Replace the placeholders in a docstring by the sections they name, and check the arguments by their rules."""
    text = inspect.cleandoc(plot.__doc__ or "")
    for name, section in _SECTIONS.items():
        text = text.replace(f"{{{name}}}", section)
    plot.__doc__ = text
    return checked(grids.selected_with_lists(plot))


class Legend:
    """The legend of a figure: every method adds an entry, or a group of them.

    Parameters
    ----------
    look : Look
        Widths of lines and sizes of markers are multiples of the widths and sizes of the look.
    """

    def __init__(self, look: Look) -> None:
        self.look = look
        self.handles: list[Artist] = []
        self.few = False  # whether curves have so few points that they are drawn as dots

    def line(self, label: str, color: Any = None, *, width: float = 1.0, linestyle: Any = "-", **kwargs: Any) -> None:
        """Add a line, with a marker if there is one."""
        kwargs = {"color": self.look.ink if color is None else color, "linewidth": width * self.look.line} | kwargs
        self.handles.append(Line2D([], [], linestyle=linestyle, label=label, **kwargs))

    def points(self, label: str, color: Any = None, marker: str = "o", *, hollow: bool = False) -> None:
        """Add a marker without a line."""
        face = self.look.paper if hollow else "auto"
        self.line(label, color, linestyle="none", marker=marker, markerfacecolor=face)

    def patch(self, label: str, color: Any, **kwargs: Any) -> None:
        """Add a filled patch."""
        self.handles.append(Patch(label=label, **{"facecolor": color, "edgecolor": "none"} | kwargs))

    def band(self, label: str, color: Any = None, alpha: float = 0.25) -> None:
        """Add a band."""
        self.patch(label, self.look.ink if color is None else color, alpha=alpha)

    def hatch(self, label: str) -> None:
        """Add a hatched region."""
        self.patch(label, "none", edgecolor=self.look.neutral, hatch=style.HATCH, linewidth=0, alpha=0.6)

    def flagged(self, good: str, bad: str) -> None:
        """Add what `visuals.flagged` draws."""
        self.points(good, self.look.accent)
        self.points(bad, style.WARNING_COLOR, "D")

    def steps(self, what: str) -> None:
        """Add the colors of `visuals.step_map` as one entry, with the values at which they change."""
        label = f"{what}: {', '.join(f'{step:g}' for step in visuals.STEPS)}"
        self.handles.append(layout.Steps(visuals.step_colors(), label=label))

    def outcomes(
        self, outcomes: Mapping[str, tuple[str, str]], chance: xr.DataArray, hatches: Mapping[str, str] | None = None
    ) -> None:
        """Add the outcomes (words, color) that have a chance."""
        for name, (words, color) in outcomes.items():
            if name in chance["outcome"] and float(chance.sel(outcome=name).max()) > 0:
                looks = {"edgecolor": self.look.paper, "linewidth": 0, "hatch": (hatches or {}).get(name)}
                self.patch(words, color or self.look.neutral, **looks)

    def reach(self, *, dots: bool = False, whose: str = "for every student") -> None:
        """Add what `visuals.reach_line` and `visuals.hatch_outside` draw."""
        if self.few:
            self.points("inside the data")
            self.points("extrapolated", hollow=True)
        else:
            self.line("inside the data", width=1.6, marker="o" if dots else "")
            self.line("extrapolated", linestyle="--", width=0.9)
        self.hatch(f"outside the data {whose}")


class PlotCollection:
    """A figure while it is drawn: its panels, its legend, and the texts around them.

    Parameters
    ----------
    declared : mapping
        What the figure says and how its panels are arranged, as in `figures.toml`.
    data : Dataset
        What is drawn.
    look : Look
        Measures and colors.
    """

    def __init__(self, declared: Mapping[str, Any], data: xr.Dataset, look: Look) -> None:
        self.declared, self.data, self.look = declared, data, look
        self.legend = Legend(look)
        self.figure: picture.Picture
        self.groups: np.ndarray
        self.rows: Sequence[int] = ()
        self.columns = 1

    def panels(self, rows: int, columns: int, height: float, **subplots: Any) -> np.ndarray:
        """Return Axes (rows, columns) that are `height` inches high in all, with the look's ticks and grid.

        Other keywords are passed to `Figure.subplots`.
        """
        self.figure = picture.new_figure(self.look, height)
        axes = self.figure.subplots(rows, columns, squeeze=False, **subplots)
        for ax in axes.flat:
            # Given explicitly, because matplotlib makes ticks late, with the rcParams of that moment.
            ax.tick_params(
                which="both", color=self.look.ink, labelcolor=self.look.ink, labelsize=self.look.small,
                width=0.5 * self.look.line, length=2.2 * self.look.line, grid_color=self.look.grid,
                grid_linewidth=0.4 * self.look.line, grid_alpha=1.0, grid_linestyle="-",
            )  # fmt: skip
            ax.grid(visible=True, which="major")
            ax.set_axisbelow(True)
        return np.asarray(axes)

    def pair(self, height: float, column_height: float) -> tuple[Axes, Axes]:
        """Return two panels side by side, one above the other in a column."""
        rows, columns = self.look.pick((2, 1), (1, 2))
        first, second = self.panels(rows, columns, self.look.pick(column_height, height)).flat
        return first, second

    def facets(
        self,
        cells: Sequence[tuple[str, xr.Dataset]],
        *,
        x: str = "",
        over: str = "",
        heights: Sequence[float] | None = None,
        columns: int | None = None,
        rows: Sequence[int] | None = None,
    ) -> Iterator[tuple[np.ndarray, xr.Dataset]]:
        """Yield stacked panels and cell for each (title, cell).

        Parameters
        ----------
        cells : sequence
            Titles and parts of the data.
        x : str
            Dimension along the x axis; its units decide how the axis is labeled.
        over : str
            Dimension of the curves in a panel. Where all of them extrapolate, the panels are hatched.
        heights : sequence of float, optional
            Heights of the panels of one cell, in inches. By default, those that are declared.
        columns : int, optional
            Most panels side by side. By default, as declared, or so that they fill a page evenly.
        rows : sequence of int, optional
            Places of the declared panels of a cell that are drawn. By default, all.
        """
        count = len(cells)
        self.legend.few = bool(x) and all(cell.sizes.get(x, 0) <= visuals.FEW for _, cell in cells)
        heights = self.look.pick(**self.declared["heights"]) if heights is None else heights
        self.rows = range(len(heights)) if rows is None else rows
        heights = [heights[row] for row in self.rows]
        if columns is None and "columns" in self.declared:
            columns = self.look.pick(**self.declared["columns"])
        if columns is None:
            columns = 1 if count == 3 and self.look.size == "column" else 2
            columns = 4 if self.look.size == "slide" and count not in (2, 4) else columns
        self.columns = columns = min(columns, count)
        bands = -(-count // columns)
        ratios = [*heights] * bands
        axes = self.panels(len(ratios), columns, sum(ratios), sharex=True, height_ratios=ratios)
        groups = axes.reshape(bands, len(heights), columns).swapaxes(1, 2).reshape(-1, len(heights))
        for ax in groups[count:].flat:
            ax.set_axis_off()
        self.groups = groups[:count]
        for i, (group, (title, cell)) in enumerate(zip(self.groups, cells, strict=True)):
            for ax in group:
                ax.tick_params(labelbottom=ax is group[-1] and i + columns >= count)
            layout.panel_title(group[0], title)
            yield group, cell
            for ax in group if over else []:
                visuals.hatch_outside(ax, cell[x].values, cell["extrapolates"].all(over).values)
            if x:
                style.axis_of_units(group[-1].xaxis, cell[x].attrs.get("units", ""))

    def _label(self, x: str, y: Sequence[str]) -> None:
        """Label the outer axes of the facets, and give panels that are compared the same limits."""
        look, columns, count = self.look, self.columns, len(self.groups)
        same = self.declared.get("same", True)
        repeat = self.declared.get("repeat", not same)
        if (look.size == "column" and columns > 1) or (look.size == "slide" and columns > 2 and len(x) > 26):
            x = x.replace(" [", "\n[")
        if look.size == "column" and columns > 1:
            x = x.replace("[non-embedding ", "[non-embedding\n")
        for ax in self.groups[max(0, count - columns) :, -1]:
            ax.set_xlabel(x)
        for stacked, text in zip(self.groups.T, y, strict=True):
            limits = np.array([ax.get_ylim() for ax in stacked])
            for i, ax in enumerate(stacked):
                if same:
                    ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
                ax.tick_params(labelleft=i % columns == 0 or repeat)
            for ax in stacked[::columns]:
                words = text.replace(" [", "\n[") if look.size == "slide" else text
                ax.set_ylabel(words, fontsize=look.small if len(y) > 1 else look.font)

    def sizes(self, values: xr.DataArray, **line: Any) -> dict[float, Any]:
        """Return a color for each student size, smallest first, and add them to the legend; the first entry says what they are."""
        colors = style.size_colors(values.values, self.look)
        for i, (size, color) in enumerate(colors.items()):
            self.legend.line(f"{'' if i else 'student '}{style.short(size)}", color, **{"width": 1.6} | line)
        return colors

    def budgets(self, values: xr.DataArray) -> dict[float, Any]:
        """Return a color for each budget, smallest first, and add them to the legend."""
        colors = style.budget_colors(values.values, self.look)
        for budget, color in colors.items():
            self.legend.line(f"{style.power_of_ten(budget)} FLOPs", color, width=1.6)
        return colors

    def finish(self, notes: Sequence[str] = (), *, warnings: Sequence[str] = (), **fields: object) -> Figure:
        """Return the figure with its title, labels, legend and notes.

        Declared texts come first, with their fields filled. What is to be said about the posterior behind the data is added.
        """
        declared = self.declared
        if "y" in declared:
            self._label(declared["x"].format(**fields), [declared["y"][row].format(**fields) for row in self.rows])
        first, last = style.fit_notes(self.data) if declared.get("fit", True) else (style.conflicts(self.data), [])
        own = [declared["notes"].strip().format(**fields)] if "notes" in declared else []
        level = grids.level_note(self.data, declared.get("level", ""))
        warnings, notes = [*first, *warnings], [*own, *notes, *level, *grids.extrapolation_note(self.data), *last]
        layout.finish(self.figure, title=declared["title"], handles=self.legend.handles, warnings=warnings, notes=notes)
        return self.figure


@contextmanager
def drawing(
    figure: str | Mapping[str, Any], data: xr.Dataset, size: str, dark: bool, *, needs: Sequence[str] = ()
) -> Iterator[tuple[PlotCollection, Look, Legend]]:
    """Yield a new figure, its look and its legend, with the settings of its size and background.

    `figure` is a name in `figures.toml` or a mapping with the same keys; `needs` are further variables of the data.

    Raises
    ------
    ParameterError
        If the data lack a variable, or there is no such size.
    """
    declared = FIGURES[figure] if isinstance(figure, str) else figure
    argument = declared.get("argument", f"the argument of plot_{figure}")
    grids.need(data, [*declared["needs"].split(), *needs], argument, declared["maker"])
    look = style.make_look(size, dark)
    with picture.settings(look):
        plot = PlotCollection(declared, data, look)
        yield plot, look, plot.legend
