"""Scores every candidate model on runs of unseen teachers, unseen students, and the paper's extrapolation.

    python docs/explanation/choice_of_model.py FOLDER [DRAWS]

Finished folds are kept in FOLDER, so that an interrupted run goes on where it stopped. Prints the tables of
choice_of_model.md.
"""

import sys
import time
from pathlib import Path

import bayesdistill as bd
from bayesdistill.criticism.unseen_groups import SPLITS, candidate_models, leave_out, score_table

folder = Path(sys.argv[1])
draws = int(sys.argv[2]) if len(sys.argv) > 2 else 500
folder.mkdir(parents=True, exist_ok=True)
runs = bd.load_runs("busbridge2025")
results = {split: {} for split in SPLITS}
for name, model in candidate_models().items():
    for split in ("paper", "student", "teacher"):
        started = time.monotonic()
        file = folder / f"{split}-{name.replace(' ', '_').replace(',', '').replace('.', '')}.json"
        results[split][name] = leave_out(runs, split, model, draws=draws, checkpoint=file)
        print(f"{name}, {split}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
for split in SPLITS:
    print(f"\n{split}\n")
    print(score_table(results[split]).round(4).to_string())
