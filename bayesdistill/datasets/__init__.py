"""Tables of runs: read, checked, packaged, simulated, described.

A table of runs is a pandas DataFrame with one row a run, in one of two kinds:

* *distilled*: ``student_params student_tokens teacher_loss student_loss``,
* *supervised*: ``params tokens loss``.

Sizes are non-embedding parameters, tokens are training tokens, losses are validation cross-entropies in nats per token. Other
columns are kept; ``teacher`` and ``student``, where they are there, say which runs share a teacher or a student. `read_runs`
refuses a table that cannot mean what it says, and says which cell is at fault and what to do.
"""

from bayesdistill.datasets._describe_runs import data_hash, describe_runs
from bayesdistill.datasets._load_runs import load_runs
from bayesdistill.datasets._read_runs import read_design, read_runs
from bayesdistill.datasets._simulate_runs import published_design, simulate_runs
from bayesdistill.datasets.schemas import COLUMNS, KINDS, runs_schema

__all__ = [
    "COLUMNS",
    "KINDS",
    "data_hash",
    "describe_runs",
    "load_runs",
    "published_design",
    "read_design",
    "read_runs",
    "runs_schema",
    "simulate_runs",
]
