"""Tables of runs: read, check, load, simulate and describe them.

A table of runs is a pandas DataFrame with one row per run. There are two kinds:

* *distilled*: ``student_params student_tokens teacher_loss student_loss``,
* *supervised*: ``params tokens loss``.

Sizes are non-embedding parameters, tokens are training tokens, and losses are validation cross-entropies in nats per token. Other
columns are kept. The optional columns ``teacher`` and ``student`` identify distilled runs with the same teacher or student, and
``model`` supervised runs that are checkpoints of one model. `read_runs` raises an error for invalid or implausible values, with the
cell and a suggested correction.
"""

from bayesdistill.datasets._describe_runs import data_hash, describe_runs, hash_of
from bayesdistill.datasets._load_runs import load_runs
from bayesdistill.datasets._read_runs import (
    read_candidates,
    read_costed,
    read_design,
    read_measured,
    read_runs,
    read_teachers,
)
from bayesdistill.datasets._simulate_runs import published_design, simulate_runs
from bayesdistill.datasets.axes import FIXED_AXES, TEACHER_VARIES, fixed_axes
from bayesdistill.datasets.schemas import COLUMNS, KINDS, runs_schema
from bayesdistill.datasets.training_curves import training_curves
