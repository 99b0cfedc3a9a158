"""Results as tables: DataFrames of numbers, and the same for people as text, Markdown and LaTeX.

`plan_table`, `summary_table` and `decision_table` return numbers in the units of what they are made from; `readable` turns them
into short strings with headings; `table_text` and `write_table` write them down. Nothing is computed here but selections: medians,
intervals and probabilities come from `posterior`.
"""

from bayesdistill.answers import register_display
from bayesdistill.tables._backtest_table import backtest_table
from bayesdistill.tables._criticism_table import criticism_table
from bayesdistill.tables._decision_table import decision_table
from bayesdistill.tables._plan_table import plan_table, summary_table
from bayesdistill.tables._write_table import latex, markdown, table_text, write_table
from bayesdistill.tables.display import display_html, display_text
from bayesdistill.tables.formatting import readable

register_display(display_text, display_html)
