"""The Figure that plots return, and the settings of matplotlib while it is drawn.

Figures are `Figure` objects and do not use pyplot, so they require no display and open no window. The caller's rcParams determine the
font family and the format of files; all other settings apply while a figure is built, drawn or saved, and never change the global
rcParams.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import path as mpath
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, IdentityTransform, Transform

from bayesdistill.files import check_writable, write_file
from bayesdistill.plots.style import SLIDE_HEIGHT, Look

# The caller's settings: fonts, formats of files, windows. Everything else would change or break the figures.
_CALLERS = re.compile(
    r"backend|docstring|interactive$|toolbar|timezone|(_internal|animation|keymap|macosx|pdf|pgf|ps|svg|tk|webagg)\.|mathtext\.fontset"
    r"|font\.(family|serif|sans-serif|cursive|fantasy|monospace)|savefig\.(dpi|directory|format|pad_inches)"
)
_DEFAULTS = {name: value for name, value in matplotlib.rcParamsDefault.items() if not _CALLERS.match(name)}
_SHARED = matplotlib.rc_params_from_file(Path(__file__).with_name("figure.mplstyle"), use_default_template=False)


@contextmanager
def settings(look: Look) -> Iterator[None]:
    """Use matplotlib's defaults with the sizes and colors of the look, independent of the caller's settings."""
    own = {**_DEFAULTS, **_SHARED} | {
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
    with ExitStack() as stack:
        with warnings.catch_warnings():  # some of the defaults are of deprecated settings
            warnings.simplefilter("ignore", matplotlib.MatplotlibDeprecationWarning)
            stack.enter_context(matplotlib.rc_context(own))
        yield


@contextmanager
def _steady(renderer: Any) -> Iterator[None]:
    """Round the coordinates of paths to a thousandth of a pixel.

    The last bit of a logarithm depends on the alignment of numpy's arrays in memory, and one bit can change the shade of a pixel.
    Without rounding, two drawings of the same figure sometimes differ.
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
    """A Figure that notebooks display without pyplot, drawn with the settings of its look."""

    look: Look

    def draw(self, renderer: Any) -> None:
        """Draw the same pixels each time; matplotlib creates ticks only now, with the current settings."""
        with settings(self.look), _steady(renderer):
            super().draw(renderer)

    def savefig(self, fname: Any, *, format: str | None = None, **kwargs: Any) -> None:  # noqa: A002
        """Save the figure on its own background, see `matplotlib.figure.Figure.savefig`; a file is replaced as a whole."""
        with settings(self.look):
            if not isinstance(fname, str | os.PathLike):
                super().savefig(fname, format=format, **kwargs)
                return
            path, default = Path(fname), str(matplotlib.rcParams["savefig.format"])
            if format is None and not path.suffix:
                path = path.with_name(f"{path.name}.{default}")
            check_writable(path)
            buffer = io.BytesIO()
            super().savefig(buffer, format=format or path.suffix[1:], **kwargs)
            write_file(path, buffer.getvalue())

    def get_tightbbox(self, *_: Any, **__: Any) -> Bbox:
        """Return the whole figure, because notebooks crop figures to this box if pyplot is imported."""
        return Bbox.from_bounds(0, 0, *self.get_size_inches())

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = io.BytesIO()
        # Twice the pixels at the same size on the page, for high-resolution screens.
        self.savefig(buffer, format="png", dpi=2 * 96)
        width, height = self.get_size_inches()
        return buffer.getvalue(), {"width": round(96 * width), "height": round(96 * height)}


def new_figure(look: Look, body: float) -> Picture:
    """Return an empty figure; `body` is the height of its panels in inches (a slide has a fixed height)."""
    figure = Picture(figsize=(look.width, SLIDE_HEIGHT if look.size == "slide" else body))
    figure.look = look
    FigureCanvasAgg(figure)
    return figure
