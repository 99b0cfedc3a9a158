"""The texts around the panels: title and legend above, notes below, and labels that fit their panels."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.legend_handler import HandlerBase
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from bayesdistill.plots.picture import Picture
from bayesdistill.plots.style import SLIDE_HEIGHT, WARNING_COLOR, Look, plain

_GRAIN = 6  # decimals of the figure's width and height: a thousandth of a point at most
_LABELS = 8
"""Room that the labels left of the panels take, in letters; the rest is for the panels. A title may fill most of them."""


def finish(
    figure: Picture, *, title: str, handles: Sequence[Artist], warnings: Sequence[str] = (), notes: Sequence[str] = ()
) -> None:
    """Set title and legend above the panels and notes below them, and give each the room that it needs.

    Outside a slide the figure grows by the height of header and footer, so that panels keep theirs.
    """
    look, (width, body) = figure.look, figure.get_size_inches()
    pad = 0.6 * look.font / 72
    usable = width - 2 * pad

    def place_text(text: str, size: float, **style: Any) -> Text:
        artist = figure.text(0, 0, text, fontsize=size, va="top", ha="left", in_layout=False, **style)
        _wrap(artist, usable)
        return artist

    above = [place_text(title, 1.15 * look.font, weight="bold")]
    above += [place_text(text, look.font, color=WARNING_COLOR, weight="bold") for text in warnings]
    legends = [_place_legend(figure, handles, usable)] if handles else []
    below = [place_text(" ".join(notes), look.small, linespacing=1.25)] if notes else []

    header = pad + sum(_size(artist).height + pad for artist in [*above, *legends])
    footer = pad / 2 + sum(_size(artist).height + pad for artist in below)
    height = SLIDE_HEIGHT if look.size == "slide" else body + header + footer
    figure.set_size_inches(width, height)
    top = height - pad
    for artist in above:
        artist.set_position((pad / width, top / height))
        top -= _size(artist).height + pad
    for legend in legends:
        legend.set_bbox_to_anchor((pad / width, top / height), transform=figure.transFigure)
    for artist in below:
        artist.set_position((pad / width, (footer - pad / 2) / height))
    _lay_out(figure, (pad / width, footer / height, 1 - 2 * pad / width, 1 - (header + footer) / height))


def _size(artist: Artist) -> Bbox:
    """Return the box of an artist in inches."""
    figure: Any = artist.get_figure()
    return artist.get_window_extent(figure.canvas.get_renderer()).transformed(figure.dpi_scale_trans.inverted())


def _wrap(text: Text, room: float, side: str = "width") -> None:
    """Break a text into lines of at most `room` inches; `side` is the side of their box along which the lines run."""
    words = text.get_text()
    letters = max(20, int(len(words) * room / max(getattr(_size(text), side), 1e-6)))
    while getattr(_size(text), side) > room and letters > 10:
        text.set_text(textwrap.fill(words, letters, break_long_words=side == "width"))
        letters -= 1


def panel_title(ax: Axes, text: str, **style: Any) -> None:
    """Set the title of a panel, in several lines where a narrow panel would cut it."""
    figure, spec = ax.get_figure(), ax.get_subplotspec()
    assert isinstance(figure, Picture)
    assert spec is not None
    room = figure.look.width - _LABELS * figure.look.font / 72
    _wrap(ax.set_title(plain(text), **style), 0.95 * room / spec.get_gridspec().ncols)


class Steps(Patch):
    """A legend entry of several colors, side by side."""

    def __init__(self, colors: Sequence[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.colors = list(colors)


class _StepsHandler(HandlerBase):
    def create_artists(
        self,
        legend: Any,
        orig_handle: Any,
        xdescent: float,
        ydescent: float,
        width: float,
        height: float,
        fontsize: float,
        trans: Any,
    ) -> list[Artist]:
        part = width / len(orig_handle.colors)
        corners = [(i * part - xdescent, -ydescent) for i in range(len(orig_handle.colors))]
        looks = {"edgecolor": "none", "transform": trans}
        return [
            Rectangle(corner, part, height, facecolor=color, **looks)
            for corner, color in zip(corners, orig_handle.colors, strict=True)
        ]


def _place_legend(figure: Picture, handles: Sequence[Artist], usable: float) -> Legend:
    """Return the legend with as many columns as fit."""
    columns = len(handles)
    while True:
        # The same number of rows with fewer columns is more even.
        columns = -(-len(handles) // -(-len(handles) // columns))
        legend = figure.legend(
            handles=list(handles), loc="upper left", ncols=columns, handler_map={Steps: _StepsHandler()}
        )
        legend.set_in_layout(False)
        if columns == 1 or _size(legend).width <= usable:
            return legend
        legend.remove()
        columns -= 1


def _lay_out(figure: Picture, rect: tuple[float, float, float, float]) -> None:
    """Lay the panels out once and for all: the same at every resolution, and saving is quick."""
    engine = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02, rect=rect)
    engine.execute(figure)
    broken = [_break_long_label(ax, figure.look) for ax in figure.axes]
    if any(broken):
        engine.execute(figure)
    for ax in figure.axes:
        # The solver orders its constraints by their addresses in memory, so that the last bits of a place change from one
        # drawing to the next; a PDF file shows them.
        ax.set_position(Bbox(ax.get_position(original=True).get_points().round(_GRAIN)))
        ax.set_in_layout(True)  # set_position takes it out; bbox_inches="tight" counts only what is in


def _break_long_label(ax: Axes, look: Look) -> bool:
    """Break the label of a y axis that exceeds its panel into two lines, at the unit if there is one."""
    label, room = ax.yaxis.label, _size(ax).height
    text = label.get_text()
    if not ax.axison or not text or "\n" in text or _size(label).height <= room:
        return False
    spaces = [i for i, letter in enumerate(text) if letter == " "]
    if spaces:
        unit = text.find(" [")
        place = unit if unit > 0 else min(spaces, key=lambda i: abs(i - len(text) / 2))
        label.set_text(f"{text[:place]}\n{text[place + 1 :]}")
    if _size(label).height > room:
        label.set_fontsize(look.small)
    _wrap(label, room, "height")
    return bool(spaces)
