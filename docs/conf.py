"""How the site is built: `make docs`, warnings as errors, nothing from the network, neither while building nor while reading."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import bayesdistill

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import parameters  # noqa: E402

project = "bayesdistill"
author = "The bayesdistill authors"
copyright = "The bayesdistill authors, Apache-2.0"  # noqa: A001
version = release = bayesdistill.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "mathtext",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
nitpicky = False
suppress_warnings: list[str] = []

# Pages
myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebooks are stored with their outputs; a test runs them
html_math_renderer = "mathtext"

# Reference
autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections name the types
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
copybutton_exclude = ".linenos, .gp, .go"

# Looks
html_theme = "pydata_sphinx_theme"
html_title = f"bayesdistill {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "bayesdistill"},
    "show_prev_next": True,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "search_bar_text": "Search these pages",
}


def copy_notebooks() -> None:
    """Take the notebooks into docs/tutorial, where Sphinx can see them; it reads nothing outside its own folder."""
    folder = HERE / "tutorial"
    folder.mkdir(exist_ok=True)
    sources = {path.name: path for path in sorted((HERE.parent / "notebooks").glob("*.ipynb"))}
    for old in folder.glob("*.ipynb"):
        if old.name not in sources:
            old.unlink()
    for name, source in sources.items():
        target = folder / name
        if not target.exists() or target.read_bytes() != source.read_bytes():
            shutil.copyfile(source, target)


def write_parameters() -> None:
    """Write the table of symbols that the page of terms includes."""
    file = HERE / "reference" / "generated" / "parameters.txt"
    file.parent.mkdir(exist_ok=True)
    if not file.exists() or file.read_text(encoding="utf-8") != parameters.table():
        file.write_text(parameters.table(), encoding="utf-8")


copy_notebooks()
write_parameters()
