"""Formulas as inline SVG, typeset by matplotlib while the site is built.

Sphinx's own methods require a TeX installation (imgmath) or a script from another server (mathjax); a page that is read without a
network has neither. Matplotlib is a dependency of the package. Its mathtext supports the symbols that these pages use; other symbols
are an error of the build. The source of a formula is its text for screen readers.
"""

from __future__ import annotations

import html
import io
import re

import matplotlib
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from sphinx.errors import ExtensionError

SIZE = 10.0  # points; the drawing is scaled in em, so this is only a unit


def draw(formula: str, *, display: bool) -> str:
    """The formula as an SVG element with the baseline of the text around it."""
    source = "$" + " ".join(formula.split()) + "$"
    with matplotlib.rc_context({"mathtext.fontset": "stix"}):
        try:
            properties = FontProperties(size=SIZE)
            width, height, depth, _, _ = MathTextParser("path").parse(source, 72, properties)
            outline = TextPath((0, 0), source, prop=properties, usetex=False)
        except ValueError as error:
            raise ExtensionError(f"matplotlib cannot set the formula {formula!r}: {error}") from error
    scale = 1.2 / SIZE  # the faces of mathtext are smaller than the faces of the text
    pad = 0.1 * SIZE
    left, low, wide, high = -pad, -(depth + pad), width + 2 * pad, height + 2 * pad
    return (
        f'<svg class="formula" role="img" aria-label="{html.escape(source, quote=True)}" '
        f'viewBox="{left:.2f} {-(low + high):.2f} {wide:.2f} {high:.2f}" '
        f'style="width:{wide * scale:.3f}em;height:{high * scale:.3f}em;vertical-align:{"0" if display else f"{low * scale:.3f}em"}">'
        f'<path transform="scale(1,-1)" fill="currentColor" d="{_path(outline)}"/></svg>'
    )


def _path(outline: Outline) -> str:
    """SVG path data, two decimals."""
    letters = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C"}
    text = io.StringIO()
    for points, code in outline.iter_segments(simplify=False):
        if code == Outline.CLOSEPOLY:
            text.write("Z")
        else:
            text.write(letters[code] + " ".join(f"{value:.2f}" for value in points))
    return text.getvalue()


def visit_inline(self, node) -> None:
    self.body.append(f'<span class="math">{draw(node.astext(), display=False)}</span>')
    from docutils.nodes import SkipNode

    raise SkipNode


def visit_display(self, node) -> None:
    from docutils.nodes import SkipNode

    # Formulas that stand below each other are apart by an empty line or a \\ in the source.
    parts = [part for part in re.split(r"\n\s*\n|\\\\", node.astext()) if part.strip()]
    for part in parts:
        self.body.append(f'<div class="math" tabindex="0">{draw(part, display=True)}</div>\n')
    raise SkipNode


def setup(app) -> dict[str, object]:
    app.add_html_math_renderer("mathtext", (visit_inline, None), (visit_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
