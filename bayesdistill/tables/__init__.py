"""Results as tables: DataFrames of numbers, and the same for people as text, Markdown and LaTeX.

`plan_table`, `summary_table` and `decision_table` return numbers in the units of what they are made from; `readable` turns them
into short strings with headings; `table_text` and `write_table` write them down. Nothing is computed here but selections: medians,
intervals and probabilities come from `posterior`.
"""

from bayesdistill.answers import register_display
from bayesdistill.tables.backtesting import backtest_table
from bayesdistill.tables.criticism import criticism_table
from bayesdistill.tables.decided import decision_table
from bayesdistill.tables.displayed import display_html, display_text
from bayesdistill.tables.plans import plan_table, summary_table
from bayesdistill.tables.words import readable
from bayesdistill.tables.writing import latex, markdown, table_text, write_table

__all__ = [
    "backtest_table",
    "criticism_table",
    "decision_table",
    "display_html",
    "display_text",
    "latex",
    "markdown",
    "plan_table",
    "readable",
    "summary_table",
    "table_text",
    "write_table",
]

register_display(display_text, display_html)
