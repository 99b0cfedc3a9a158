"""Errors of the default model and of the Huber point fit in the paper's extrapolation: a paragraph of explanation/choice_of_model.md.

    python docs/studies/extrapolation_accuracy.py [--quick]

Both are fitted to the runs with a student loss above 2.3 and predict the 26 others. The intervals resample the 8 student
configurations of these, because runs of one configuration share their error.
"""

from __future__ import annotations

import numpy as np
from candidates import candidate_models
from common import parser

import bayesdistill as bd
from bayesdistill.law.effects import student_configurations

MODELS = ("tied exponents, student effects and slopes", "Huber point fit")
SCORES = {
    "rmse": lambda e: np.sqrt((e**2).mean(axis=1)),
    "mean absolute error": lambda e: np.abs(e).mean(axis=1),
}


def main(arguments: list[str] | None = None) -> None:
    quick = parser(__doc__).parse_args(arguments).quick
    runs = bd.load_runs("busbridge2025")
    sampler = {"draws": 60, "tune": 100} if quick else {"draws": 400}
    candidates = candidate_models()
    found = [bd.leave_out(runs, "paper", candidates[name].law, progress=False, **sampler) for name in MODELS]
    errors = np.stack([np.asarray(one["error"]) for one in found])
    _, group = student_configurations(runs.loc[found[0]["run"].values])
    members = [np.flatnonzero(group == i) for i in range(group.max() + 1)]
    rng = np.random.default_rng(0)
    for label, score in SCORES.items():
        ours, theirs = score(errors)
        again = []
        for _ in range(100 if quick else 4000):
            chosen = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
            one, other = score(errors[:, chosen])
            again.append(one - other)
        low, high = np.quantile(again, (0.05, 0.95))
        print(f"{label}: {ours:.4f} and {theirs:.4f}; difference {ours - theirs:+.4f} (90%: {low:+.4f} to {high:+.4f})")


if __name__ == "__main__":
    main()
