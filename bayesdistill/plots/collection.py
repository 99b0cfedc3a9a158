"""The skeleton of a figure: panels for the parts of a result, their labels, the legend, and the notes on the fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bayesdistill.plots import layout, picture, style
from bayesdistill.plots.style import Look


class Legend:
    """The legend of a figure: every method adds an entry, or a group of them.

    Parameters
    ----------
    look : Look
        Widths of lines and sizes of markers are multiples of those of the look.
    """

    def __init__(self, look: Look) -> None:
        self.look = look
        self.handles: list[Artist] = []

    def line(
        self,
        label: str,
        color: Any = None,
        *,
        width: float = 1.0,
        linestyle: Any = "-",
        marker: str = "",
        hollow: bool = False,
    ) -> None:
        """Add a line, with a marker if there is one."""
        color = self.look.ink if color is None else color
        self.handles.append(
            Line2D(
                [], [], color=color, linestyle=linestyle, marker=marker, linewidth=width * self.look.line, label=label,
                markerfacecolor=self.look.paper if hollow else color,
            )
        )  # fmt: skip

    def points(self, label: str, color: Any = None, marker: str = "o", *, hollow: bool = False) -> None:
        """Add a marker without a line."""
        self.line(label, color, linestyle="none", marker=marker, hollow=hollow)

    def patch(self, label: str, color: Any, **kwargs: Any) -> None:
        """Add a filled patch."""
        self.handles.append(Patch(**{"facecolor": color, "edgecolor": "none", "label": label} | kwargs))

    def band(self, label: str, color: Any = None, alpha: float = 0.25) -> None:
        """Add a band."""
        self.patch(label, self.look.ink if color is None else color, alpha=alpha)

    def hatch(self, label: str) -> None:
        """Add a hatched region."""
        self.patch(label, "none", edgecolor=self.look.neutral, hatch=style.HATCH, linewidth=0, alpha=0.6)

    def sizes(self, colors: Mapping[float, Any], width: float = 1.6, marker: str = "") -> None:
        """Add the colors of student sizes; the first entry says what they are."""
        for i, (size, color) in enumerate(colors.items()):
            self.line(f"{'' if i else 'student '}{style.short(size)}", color, width=width, marker=marker)

    def budgets(self, colors: Mapping[float, Any]) -> None:
        """Add the colors of budgets."""
        for budget, color in colors.items():
            self.line(f"{style.power_of_ten(budget)} FLOPs", color, width=1.6)

    def levels(self, what: str, levels: Sequence[float], colors: Sequence[Any]) -> None:
        """Add the colors of the levels of a map; the first entry says what is mapped."""
        for i, color in enumerate(colors):
            self.patch(f"{'' if i else what}{levels[i]:g} to {levels[i + 1]:g}", color)

    def reach(self, *, dots: bool = True, whose: str = "for every student") -> None:
        """Add what `visuals.reach_line` and `visuals.hatch_outside` draw."""
        self.line("inside the data", width=1.6, marker="o" if dots else "")
        self.line("extrapolated", linestyle="--", width=0.9)
        self.hatch(f"outside the data {whose}")


class PlotCollection:
    """A figure while it is drawn: its panels, its legend, and the texts around them.

    Parameters
    ----------
    look : Look
        Measures and colors.
    """

    def __init__(self, look: Look) -> None:
        self.look = look
        self.legend = Legend(look)
        self.figure: picture.Picture
        self.groups: np.ndarray
        self.columns = 1

    def panels(self, rows: int, columns: int, height: float, **subplots: Any) -> np.ndarray:
        """Return Axes (rows, columns) that are `height` inches high in all, with the look's ticks and grid.

        Other keywords are those of `Figure.subplots`.
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

    def facets[Cell](
        self, cells: Sequence[tuple[str, Cell]], heights: Sequence[float], columns: int | None = None
    ) -> Iterator[tuple[np.ndarray, Cell]]:
        """Yield stacked panels and cell for each (title, cell); `heights` are those of the panels of one cell.

        Without a number of columns, the panels fill a page evenly.
        """
        count = len(cells)
        if columns is None:
            columns = 1 if count == 3 and self.look.size == "column" else 2
            columns = 4 if self.look.size == "slide" and count not in (2, 4) else columns
        self.columns = columns = min(columns, count)
        bands = -(-count // columns)
        axes = self.panels(
            len(heights) * bands, columns, bands * sum(heights), sharex=True, height_ratios=[*heights] * bands
        )
        groups = axes.reshape(bands, len(heights), columns).swapaxes(1, 2).reshape(-1, len(heights))
        for ax in groups[count:].flat:
            ax.set_axis_off()
        self.groups = groups[:count]
        for i, (group, (title, cell)) in enumerate(zip(self.groups, cells, strict=True)):
            for k, ax in enumerate(group):
                ax.tick_params(labelbottom=k == len(group) - 1 and i + columns >= count)
            layout.panel_title(group[0], title)
            yield group, cell

    def label(self, x: str, y: Sequence[str], *, same: bool = True, repeat: bool | None = None) -> None:
        """Label the outer axes of the facets.

        With `same`, panels that are compared get the same limits; with `repeat` (by default where limits differ) every panel
        shows the numbers of its y axis.
        """
        look, columns, count = self.look, self.columns, len(self.groups)
        repeat = not same if repeat is None else repeat
        if (look.size == "column" and columns > 1) or (look.size == "slide" and columns > 2 and len(x) > 26):
            x = x.replace(" [", "\n[")
        if look.size == "column" and columns > 1:
            x = x.replace("[non-embedding ", "[non-embedding\n")
        for kind, text in enumerate(y):
            stacked = self.groups[:, kind]
            limits = np.array([ax.get_ylim() for ax in stacked])
            for i, ax in enumerate(stacked):
                if same:
                    ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
                ax.tick_params(labelleft=i % columns == 0 or repeat)
                if i % columns == 0:
                    text = text.replace(" [", "\n[") if look.size == "slide" else text
                    ax.set_ylabel(text, fontsize=look.small if len(y) > 1 else look.font)
        for i in range(max(0, count - columns), count):
            self.groups[i, -1].set_xlabel(x)

    def finish(
        self, title: str, notes: Sequence[str], *, warnings: Sequence[str] = (), fit: xr.Dataset | None = None
    ) -> Figure:
        """Return the figure with its title, legend and notes, and with what is to be said about the posterior of `fit`."""
        about = style.fit_notes(fit) if fit is not None else ([], [])
        layout.finish(
            self.figure,
            title=title,
            handles=self.legend.handles,
            warnings=[*about[0], *warnings],
            notes=[*notes, *about[1]],
        )
        return self.figure


@contextmanager
def drawing(size: str, dark: bool) -> Iterator[PlotCollection]:
    """Yield a new figure, with the settings of its size and background.

    Raises
    ------
    ParameterError
        If there is no such size.
    """
    look = style.make_look(size, dark)
    with picture.settings(look):
        yield PlotCollection(look)
