"""The Figure that plots return, and the settings of matplotlib while it is drawn.

Figures are built from `Figure` objects, never through pyplot: they need no display, leave no open window behind, and the
caller's rcParams decide the font family and nothing else. Sizes and colors are set while a figure is built and never
written to the global rcParams.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import path as mpath
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, IdentityTransform, Transform

from bayesdistill.plots.style import SLIDE_HEIGHT, Look

# What of the caller's rcParams must not leak into a figure. The font family is theirs.
_OWN_RC = "axes errorbar figure grid hatch legend lines markers patch xtick ytick"

_SHARED = matplotlib.rc_params_from_file(Path(__file__).with_name("figure.mplstyle"), use_default_template=False)


@contextmanager
def settings(look: Look) -> Iterator[None]:
    """Use matplotlib's own defaults with the look's sizes and colors, whatever the caller has set."""
    own = {k: v for k, v in matplotlib.rcParamsDefault.items() if k.split(".")[0] in _OWN_RC.split()}
    own |= _SHARED | {
        "font.size": look.font,
        "text.color": look.ink,
        "figure.facecolor": look.paper,
        "figure.edgecolor": look.paper,
        "axes.facecolor": look.paper,
        "axes.edgecolor": look.ink,
        "axes.labelcolor": look.ink,
        "axes.linewidth": 0.5 * look.line,
        "axes.titlesize": look.font,
        "axes.labelsize": look.font,
        "lines.linewidth": look.line,
        "lines.markersize": look.marker,
        "hatch.linewidth": 0.35 * look.line,
        "legend.fontsize": look.small,
    }
    with matplotlib.rc_context(own):
        yield


@contextmanager
def _steady(renderer: Any) -> Iterator[None]:
    """Round what is drawn to a thousandth of a pixel.

    The last bit of a logarithm depends on where in memory numpy finds the numbers, and one bit can change the shade of a pixel:
    without this, the same figure made twice is now and then not the same file.
    """
    if not isinstance(renderer, RendererAgg):
        yield
        return

    def steady(path: mpath.Path, transform: Transform) -> mpath.Path:
        found = transform.transform_path(path)
        rounded = mpath.Path(np.round(np.asarray(found.vertices), 3), found.codes)
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

    look: Look

    def draw(self, renderer: Any) -> None:
        """Draw with unhinted letters, and the same to the byte each time."""
        with matplotlib.rc_context({"text.hinting": "none"}), _steady(renderer):
            super().draw(renderer)

    def get_tightbbox(self, *_: Any, **__: Any) -> Bbox:
        """Return the whole figure: once pyplot is imported, notebooks crop figures to this box."""
        return Bbox.from_bounds(0, 0, *self.get_size_inches())

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = io.BytesIO()
        # Twice the pixels at the same size on the page: sharp on high-resolution screens.
        self.savefig(buffer, format="png", dpi=2 * 96)
        width, height = self.get_size_inches()
        return buffer.getvalue(), {"width": round(96 * width), "height": round(96 * height)}


def new_figure(look: Look, body: float) -> Picture:
    """Return an empty figure; `body` is the height of its panels in inches (a slide has a fixed height)."""
    figure = Picture(figsize=(look.width, SLIDE_HEIGHT if look.size == "slide" else body))
    figure.look = look
    FigureCanvasAgg(figure)
    return figure
