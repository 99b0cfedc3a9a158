"""What all figures share: sizes, colours, number formats, header with legend, footer with notes.

Figures are built from `Figure` objects, never through pyplot: they need no display, leave no open window behind, and the
caller's rcParams decide the font family and nothing else. Sizes and colours are set while a figure is built and never
written to the global rcParams.

Colours. Model sizes are ordered, so they take a sequential map whose lightness is monotone (viridis, cut where it would fade
into the paper); it can be read by the colour-blind and in grey. Budgets take another one (plasma). What is not ordered
takes the colours of Okabe and Ito (2008). Pretraining is always grey.
"""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox, IdentityTransform, Transform

from bayesdistill import posterior
from bayesdistill.errors import ParameterError

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
WARNING_COLOR = "#D55E00"
HATCH = "////"
MARKERS = ("o", "^", "s", "D", "v", "P", "X")

# What of the caller's rcParams must not leak into a figure. The font family is theirs.
_OWN_RC = (
    "axes.",
    "errorbar.",
    "figure.",
    "grid.",
    "hatch.",
    "legend.",
    "lines.",
    "markers.",
    "patch.",
    "xtick.",
    "ytick.",
)


@dataclass(frozen=True)
class Look:
    """Measures and colours of one figure.

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
        Colours of text, background, grid, of pretraining, and of what has no colour of its own.
    span : tuple of float
        Part of the sequential map in use.
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

    @property
    def tall(self) -> bool:
        """Whether panels are stacked rather than set side by side."""
        return self.size == "column"


_MEASURES = {
    "column": {"width": 3.4, "font": 7.0, "small": 6.0, "line": 1.0, "marker": 2.0},
    "page": {"width": 7.0, "font": 8.0, "small": 7.0, "line": 1.3, "marker": 2.6},
    "slide": {"width": 13.33, "font": 15.0, "small": 12.0, "line": 2.4, "marker": 4.6},
}
SLIDE_HEIGHT = 7.5
_LIGHT = {
    "ink": "#1a1a1a",
    "paper": "#ffffff",
    "grid": "#dddddd",
    "neutral": "#707070",
    "accent": "#0072B2",
    "span": (0.0, 0.72),
}
_DARK = {
    "ink": "#ececec",
    "paper": "#15181c",
    "grid": "#3a4047",
    "neutral": "#a8a8a8",
    "accent": "#56B4E9",
    "span": (0.4, 1.0),
}


def make_look(size: str, dark: bool) -> Look:
    """Measures and colours for a size and a background.

    Raises
    ------
    ParameterError
        If there is no such size.
    """
    if size not in _MEASURES:
        raise ParameterError(f"size is {size!r}; use {', '.join(repr(name) for name in _MEASURES)}")
    return Look(size=size, **_MEASURES[size], **(_DARK if dark else _LIGHT))  # type: ignore[arg-type]


@contextmanager
def drawing(look: Look) -> Iterator[None]:
    """While a figure is built: matplotlib's own defaults with the look's sizes and colours, whatever the caller has set."""
    settings = {k: v for k, v in matplotlib.rcParamsDefault.items() if k.startswith(_OWN_RC)}
    settings |= _UNHINTED | {
        "font.size": look.font,
        "font.weight": "normal",
        "font.style": "normal",
        "text.color": look.ink,
        "figure.facecolor": look.paper,
        "figure.edgecolor": look.paper,
        "axes.facecolor": look.paper,
        "axes.edgecolor": look.ink,
        "axes.labelcolor": look.ink,
        "axes.linewidth": 0.5 * look.line,
        "axes.titlesize": look.font,
        "axes.titlelocation": "left",
        "axes.labelsize": look.font,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "lines.linewidth": look.line,
        "lines.markersize": look.marker,
        "lines.solid_capstyle": "butt",
        "lines.dashed_pattern": (3.0, 1.4),
        "hatch.linewidth": 0.35 * look.line,
        "legend.fontsize": look.small,
        "legend.frameon": False,
        "legend.borderpad": 0.0,
        "legend.borderaxespad": 0.0,
        "legend.columnspacing": 1.4,
        "legend.handlelength": 2.2,
        "legend.labelspacing": 0.35,
    }
    with matplotlib.rc_context(settings):
        yield


# Unhinted letters have the same width, relative to the figure, at every resolution: what fits once fits always.
_UNHINTED: dict[Any, Any] = {"text.hinting": "none"}


@contextmanager
def _steady(renderer: Any) -> Iterator[None]:
    """Round what is drawn to a thousandth of a pixel.

    The last bit of a logarithm depends on where in memory numpy finds the numbers, and one bit can change the shade of a pixel:
    without this, the same figure made twice is now and then not the same file.
    """
    if not isinstance(renderer, RendererAgg):
        yield
        return

    def steady(path: Path, transform: Transform) -> Path:
        found = transform.transform_path(path)
        rounded = Path(np.round(np.asarray(found.vertices), 3), found.codes)
        rounded.should_simplify, rounded.simplify_threshold = path.should_simplify, path.simplify_threshold
        return rounded

    agg: Any = renderer  # methods of one object are replaced, and put back
    draw_path, draw_markers, still = agg.draw_path, agg.draw_markers, IdentityTransform()
    agg.draw_path = lambda gc, path, transform, face=None: draw_path(gc, steady(path, transform), still, face)
    agg.draw_markers = lambda gc, marker, turn, path, transform, face=None: draw_markers(
        gc, steady(marker, turn), still, steady(path, transform), still, face
    )
    try:
        yield
    finally:
        agg.draw_path, agg.draw_markers = draw_path, draw_markers


class Picture(Figure):
    """A Figure that notebooks display although it was not made by pyplot, and whose texts scale with it."""

    def draw(self, renderer: Any) -> None:
        """As any Figure, with unhinted letters, and the same to the byte each time."""
        with matplotlib.rc_context(_UNHINTED), _steady(renderer):
            super().draw(renderer)

    def get_tightbbox(self, *_: Any, **__: Any) -> Bbox:
        """The whole figure: once pyplot is imported, notebooks cut figures to this, and texts are left out of it."""
        return Bbox.from_bounds(0, 0, *self.get_size_inches())

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = io.BytesIO()
        # Twice the pixels at the same size on the page: sharp on high-resolution screens.
        self.savefig(buffer, format="png", dpi=2 * 96)
        width, height = self.get_size_inches()
        return buffer.getvalue(), {"width": round(96 * width), "height": round(96 * height)}


def new_figure(look: Look, body: float) -> Picture:
    """An empty figure; `body` is the height of its panels in inches (ignored on a slide, whose height is fixed)."""
    figure = Picture(figsize=(look.width, SLIDE_HEIGHT if look.size == "slide" else body))
    FigureCanvasAgg(figure)
    return figure


def panels(
    figure: Figure,
    look: Look,
    rows: int,
    columns: int,
    *,
    share_y: Any = True,
    height_ratios: Sequence[float] | None = None,
) -> np.ndarray:
    """Axes (rows, columns) with the look's ticks and grid."""
    axes = figure.subplots(
        rows, columns, sharex=True, sharey=share_y, squeeze=False, gridspec_kw={"height_ratios": height_ratios}
    )
    for ax in axes.flat:
        dress(ax, look)
    return np.asarray(axes)


def dress(ax: Axes, look: Look) -> None:
    """Ticks and grid of one panel. Given explicitly, because matplotlib makes ticks late, with the rcParams of that moment."""
    ax.tick_params(
        which="both",
        color=look.ink,
        labelcolor=look.ink,
        labelsize=look.small,
        width=0.5 * look.line,
        length=2.2 * look.line,
        grid_color=look.grid,
        grid_linewidth=0.4 * look.line,
        grid_alpha=1.0,
        grid_linestyle="-",
    )
    ax.grid(visible=True, which="major")
    ax.set_axisbelow(True)


# Colours and labels -------------------------------------------------------------------------------------------------


def size_colors(sizes: Sequence[float] | np.ndarray, look: Look) -> dict[float, Any]:
    """One colour per model size, dark to light with size."""
    ordered = sorted({float(size) for size in sizes})
    low, high = look.span
    positions = [(low + high) / 2] if len(ordered) == 1 else np.linspace(low, high, len(ordered))
    colormap = matplotlib.colormaps["viridis"]
    return {size: colormap(float(position)) for size, position in zip(ordered, positions, strict=True)}


def budget_colors(budgets: Sequence[float] | np.ndarray, look: Look) -> dict[float, Any]:
    """One colour per budget, dark to light; another map than that of sizes, so that the two are not taken for each other."""
    ordered = sorted({float(budget) for budget in budgets})
    low, high = (0.0, 0.75) if look.span[0] == 0 else (0.42, 1.0)
    positions = [low] if len(ordered) == 1 else np.linspace(low, high, len(ordered))
    colormap = matplotlib.colormaps["plasma"]
    return {budget: colormap(float(position)) for budget, position in zip(ordered, positions, strict=True)}


_SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def short(value: float) -> str:
    """A size or a number of tokens as people write it: 300M, 1.82B, 20T, 1e16."""
    if value >= 999.5e12:
        return power_of_ten(value)
    for unit, suffix in _SUFFIXES:
        if value >= 0.9995 * unit:
            return f"{value / unit:.3g}{suffix}"
    return f"{value:.3g}"


def power_of_ten(value: float) -> str:
    """FLOPs for running text: 1e21, 3.2e22."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def _signed_power(value: float) -> str:
    return f"{chr(0x2212) if value < 0 else ''}{power_of_ten(abs(value))}" if value else "0"


def small_numbers(axis: Any, most: int = 5) -> None:
    """Ticks like 0, 5e-6, 1e-5, without a common factor at the end of the axis."""
    axis.set_major_locator(MaxNLocator(most))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _signed_power(value)))


def flops_axis(axis: Any) -> None:
    """Powers of ten, few enough to be read."""
    axis.axes.set_xscale("log") if axis.axis_name == "x" else axis.axes.set_yscale("log")
    axis.set_major_locator(LogLocator(base=10, numticks=5))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(LogFormatterMathtext())


def size_axis(axis: Any) -> None:
    """Logarithmic, labelled 1M, 100M, 10B; between 300M and 3B too where there would be few labels. Call it after drawing."""
    across = axis.axis_name == "x"
    axis.axes.set_xscale("log") if across else axis.axes.set_yscale("log")
    low, high = sorted(axis.axes.get_xlim() if across else axis.axes.get_ylim())
    subs = (1.0, 3.0) if across and high < 150 * low else (1.0,)
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=7 if across else 5))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


# Notes on the fit -----------------------------------------------------------------------------------------------------


_MANY = 5  # more than half of the nine coordinates of the distillation law


def fit_notes(data: xr.Dataset) -> tuple[list[str], list[str]]:
    """What the reader must know about the posterior behind a Dataset: (warnings, notes).

    Read from the attributes `converged` (yes, no, unknown), `convergence` (JSON), `prior_dominated` (JSON, names of
    coordinates), and `supervised_law` or `posterior_provenance` (JSON) that plans and curves carry.
    """
    warnings, notes = [], []
    converged = data.attrs.get("converged", "unknown")
    if converged == "no":
        failed = json.loads(data.attrs.get("convergence", "{}")).get("failed") or []
        detail = f" (failed: {', '.join(failed)})" if failed else ""
        warnings.append(f"The posterior behind this figure did not converge{detail}; its numbers may be wrong.")
    elif converged != "yes":
        notes.append("Whether the draws behind this figure converged is not known.")
    known = json.loads(data.attrs.get("posterior_provenance", "{}"))
    published = (data.attrs.get("supervised_law") or known.get("supervised_law")) == "published law"
    names = json.loads(data.attrs.get("prior_dominated", "[]"))
    if len(set(names) - posterior.SUPERVISED_COORDINATES) >= _MANY:
        warnings.append("The posterior behind this figure is mostly its prior: the runs say little.")
    notes += posterior.prior_sentences(names, published)
    return warnings, notes


# Header and footer --------------------------------------------------------------------------------------------------


def line_entry(label: str, color: Any, *, linestyle: Any = "-", marker: str = "", width: float | None = None) -> Line2D:
    """A legend entry for a line."""
    return Line2D([], [], color=color, linestyle=linestyle, marker=marker, linewidth=width, label=label)


def band_entry(label: str, color: Any, alpha: float) -> Patch:
    """A legend entry for a band."""
    return Patch(facecolor=color, edgecolor="none", alpha=alpha, label=label)


def hatch_entry(label: str, look: Look) -> Patch:
    """A legend entry for a hatched region."""
    return Patch(facecolor="none", edgecolor=look.neutral, hatch=HATCH, linewidth=0, alpha=0.6, label=label)


def finish(
    figure: Figure,
    look: Look,
    *,
    title: str,
    handles: Sequence[Artist],
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    """Set title and legend above the panels and notes below them, and give each the room that it needs.

    Outside a slide the figure grows by the height of header and footer, so that panels keep theirs.
    """
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    dpi = figure.dpi
    pad = 0.6 * look.font / 72
    width, body = figure.get_size_inches()
    usable = width - 2 * pad

    def height_of(artist: Artist) -> float:
        return float(artist.get_window_extent(renderer).height / dpi)

    def place_text(text: str, size: float, **style: Any) -> Artist:
        artist = figure.text(0, 0, text, fontsize=size, va="top", ha="left", **style)
        letters = max(20, int(len(text) * usable / max(artist.get_window_extent(renderer).width / dpi, 1e-6)))
        while artist.get_window_extent(renderer).width / dpi > usable and letters > 10:
            artist.set_text(textwrap.fill(text, letters))
            letters -= 1
        return artist

    above = [place_text(title, 1.15 * look.font, weight="bold")]
    above += [place_text(text, look.font, color=WARNING_COLOR, weight="bold") for text in warnings]
    legend = None
    for columns in range(len(handles), 0, -1):
        if columns > -(-len(handles) // -(-len(handles) // columns)):
            continue  # the same number of rows with fewer columns is more even
        legend = figure.legend(handles=list(handles), loc="upper left", ncols=columns)
        if columns == 1 or legend.get_window_extent(renderer).width / dpi <= usable:
            break
        legend.remove()
    below = [place_text(" ".join(notes), look.small, linespacing=1.25)] if notes else []

    header = pad + sum(height_of(artist) + pad for artist in above) + (height_of(legend) + pad if legend else 0)
    footer = pad / 2 + sum(height_of(artist) + pad for artist in below)
    height = SLIDE_HEIGHT if look.size == "slide" else body + header + footer
    figure.set_size_inches(width, height)
    top = height - pad
    for artist in above:
        artist.set_position((pad / width, top / height))  # type: ignore[attr-defined]
        top -= height_of(artist) + pad
    if legend is not None:
        legend.set_bbox_to_anchor((pad / width, top / height), transform=figure.transFigure)
    bottom = footer - pad / 2
    for artist in below:
        artist.set_position((pad / width, bottom / height))  # type: ignore[attr-defined]
    for artist in (*above, *below):
        artist.set_in_layout(False)
    if legend is not None:
        legend.set_in_layout(False)
    # The panels are laid out once and for all: the same at every resolution, and saving is quick.
    engine = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    side = pad / width
    engine.set(rect=(side, footer / height, 1 - 2 * side, 1 - (header + footer) / height))
    engine.execute(figure)
    if _break_long_labels(figure, look):
        engine.execute(figure)
    _snap_panels(figure)


_GRAIN = 6  # decimals of the figure's width and height: a thousandth of a point at most


def _snap_panels(figure: Figure) -> None:
    """Round the places of the panels.

    The solver of the layout orders its constraints by their addresses in memory, so that the last bits of a place change
    from one drawing to the next; a PDF file shows them.
    """
    for ax in figure.axes:
        left, bottom, width, height = (round(float(value), _GRAIN) for value in ax.get_position(original=True).bounds)
        ax.set_position((left, bottom, width, height))
        ax.set_in_layout(True)  # set_position takes it out; bbox_inches="tight" counts only what is in


def _break_long_labels(figure: Figure, look: Look) -> bool:
    """Labels of y axes that are longer than their panel get a second line, at the unit if there is one."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    changed = False
    for ax in figure.axes:
        label = ax.yaxis.label
        text = label.get_text()
        room = ax.get_window_extent(renderer).height
        if not ax.axison or not text or "\n" in text or label.get_window_extent(renderer).height <= room:
            continue
        spaces = [i for i, letter in enumerate(text) if letter == " "]
        unit = text.find(" [")
        if spaces:
            place = unit if unit > 0 else min(spaces, key=lambda i: abs(i - len(text) / 2))
            label.set_text(f"{text[:place]}\n{text[place + 1 :]}")
            changed = True
        if label.get_window_extent(renderer).height > room:
            label.set_fontsize(look.small)
    return changed


def spread(positions: Sequence[float] | np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Positions moved as little as a simple pass allows so that neighbours are `gap` apart, inside [low, high]."""
    wanted = np.asarray(positions, dtype=float)
    order = np.argsort(wanted, kind="stable")
    placed = wanted[order].copy()
    for i in range(1, placed.size):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    if placed.size and placed[-1] > high:
        placed[-1] = high
        for i in range(placed.size - 2, -1, -1):
            placed[i] = min(placed[i], placed[i + 1] - gap)
    placed = np.maximum(placed, low)
    result = np.empty_like(placed)
    result[order] = placed
    return result


def direct_labels(
    ax: Axes, look: Look, x: float, labels: Sequence[str], values: Sequence[float], colors: Sequence[Any], *, align: str
) -> None:
    """Names of curves beside their ends at `x`, kept from overlapping. Call it after `finish`, when panels have their size."""
    to_axes = ax.transData + ax.transAxes.inverted()
    heights = [float(to_axes.transform((x, value))[1]) for value in values]
    points = ax.get_window_extent().height / ax.figure.dpi * 72
    placed = spread(heights, 1.05 * look.small / points, 0.0, 1.0 - look.small / points)
    at = float(to_axes.transform((x, values[0]))[0]) if values else 0.0
    for label, y, color in zip(labels, placed, colors, strict=True):
        ax.text(
            at,
            float(y),
            label,
            color=color,
            fontsize=look.small,
            ha=align,
            va="center",
            transform=ax.transAxes,
            clip_on=False,
        )


def panel_title(ax: Axes, text: str, letters: int) -> None:
    """Name of a panel, broken after so many letters where a narrow panel would cut it."""
    ax.set_title(plain(textwrap.fill(text, letters)))


def plain(text: str) -> str:
    """A text from outside, safe from being read as mathematics."""
    return str(text).replace("$", r"\$")
