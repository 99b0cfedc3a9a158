"""Checks of a drawn figure: its visible texts, whether all can be read, and what its legend says."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure


def texts_of(figure: Figure) -> list[tuple[str, object]]:
    """Visible texts with their boxes."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    found = [(t.get_text(), t.get_window_extent(renderer)) for t in figure.texts if t.get_text()]
    for legend in figure.legends:
        found += [(t.get_text(), t.get_window_extent(renderer)) for t in legend.get_texts()]
    for ax in figure.axes:
        if not ax.axison:
            continue
        parts = [ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            axis.get_ticklabels()  # brings their texts up to date
            parts += [t.label1 for t in ticks]
        found += [(t.get_text(), t.get_window_extent(renderer)) for t in parts if t.get_text() and t.get_visible()]
    return found


def assert_readable(figure: Figure) -> None:
    """No text is cut by the edge of the figure, and no two texts overlap."""
    texts, boxes = zip(*texts_of(figure), strict=True)
    x0, y0, x1, y1 = np.array([box.extents for box in boxes]).T
    width, height = figure.bbox.size
    cut = (x0 < -1) | (y0 < -1) | (x1 > width + 1) | (y1 > height + 1)
    assert not cut.any(), f"cut: {[text for text, out in zip(texts, cut, strict=True) if out]}"
    across = np.minimum(x1[:, None], x1) - np.maximum(x0[:, None], x0)
    down = np.minimum(y1[:, None], y1) - np.maximum(y0[:, None], y0)
    over = np.argwhere(np.triu((across > 1.5) & (down > 1.5), k=1))
    assert not over.size, f"overprinted: {[(texts[a], texts[b]) for a, b in over]}"


def legend_of(figure: Figure) -> list[str]:
    """Labels of the legend."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def words_of(figure: Figure) -> str:
    """Title, warnings and notes, without line breaks."""
    return " ".join(" ".join(t.get_text().split()) for t in figure.texts)
