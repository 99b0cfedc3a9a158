"""A page with sliders that answers from posterior draws in a browser, without Python and without a network."""

from bayesdistill.interactive.pages import interactive_page, show_interactive

__all__ = ["interactive_page", "show_interactive"]
