"""How much the default model and the Huber point fit differ in the paper's extrapolation, and how sure that is.

    python docs/explanation/extrapolation_accuracy.py

Both are fitted to the runs with a student loss above 2.3 and judged on the 26 below. The intervals resample the 8 student
configurations of these, since runs of one share their error.
"""

import numpy as np

import bayesdistill as bd
from bayesdistill.criticism._leave_out import candidate_models, leave_out
from bayesdistill.law.effects import student_configurations

MODELS = ("tied exponents, student effects and slopes", "Huber point fit")

runs = bd.load_runs("busbridge2025")
candidates = candidate_models()
found = [leave_out(runs, "paper", candidates[name].law, draws=400, progress=False) for name in MODELS]
errors = np.stack([np.asarray(one["error"]) for one in found])
_, group = student_configurations(runs.loc[found[0]["run"].values])
members = [np.flatnonzero(group == i) for i in range(group.max() + 1)]
rng = np.random.default_rng(0)


def rmse(e):
    return np.sqrt((e**2).mean(axis=1))


def mean_absolute(e):
    return np.abs(e).mean(axis=1)


for label, score in (("rmse", rmse), ("mean absolute error", mean_absolute)):
    ours, theirs = score(errors)
    again = []
    for _ in range(4000):
        chosen = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        one, other = score(errors[:, chosen])
        again.append(one - other)
    low, high = np.quantile(again, (0.05, 0.95))
    print(f"{label}: {ours:.4f} and {theirs:.4f}; difference {ours - theirs:+.4f} (90 %: {low:+.4f} to {high:+.4f})")
