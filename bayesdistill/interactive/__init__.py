"""An interactive page that computes decisions from posterior draws in a browser, without Python or a network."""

from bayesdistill.interactive._interactive_page import interactive_page, show_interactive
