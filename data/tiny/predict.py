"""Predict the held-out runs before they are trained; score the predictions afterwards.

    python data/tiny/predict.py            # fits the law to the tables and appends to predictions.json
    python data/tiny/predict.py --score    # once the held-out runs are trained

Run it in the environment of bayesdistill (.venv), not of JAX. An entry names the commit of the data, so commit those first.
No entry is written once a held-out run is in the log. The last entry is scored.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from design import BATCH_TOKENS, Run, held_out, params

if TYPE_CHECKING:
    from bayesdistill.law import Draws

HERE = Path(__file__).resolve().parent
FILE = HERE / "predictions.json"
DRAWS = {"draws": 2000, "tune": 1500, "seed": 0, "target_accept": 0.99}

STRONG, WEAK = (192, 32), (96, 8)
# Question: the first run's loss is below the second's.
QUESTIONS = {
    "d64-64M: distilled from d192-32M beats pretrained": ("dis-d64-64M-s0-from-d192-32M", "sup-d64-64M-s0"),
    "d64-64M: distilled from d96-8M beats pretrained": ("dis-d64-64M-s0-from-d96-8M", "sup-d64-64M-s0"),
    "d64-64M: d192-32M is the better teacher": ("dis-d64-64M-s0-from-d192-32M", "dis-d64-64M-s0-from-d96-8M"),
    "d128-8M: distilled from d192-32M beats pretrained": ("dis-d128-8M-s0-from-d192-32M", "sup-d128-8M-s0"),
    "d128-8M: distilled from d96-8M beats pretrained": ("dis-d128-8M-s0-from-d96-8M", "sup-d128-8M-s0"),
    "d128-8M: d192-32M is the better teacher": ("dis-d128-8M-s0-from-d192-32M", "dis-d128-8M-s0-from-d96-8M"),
}


def read_log() -> dict[str, dict]:
    return {row["name"]: row for row in map(json.loads, (HERE / "log.jsonl").read_text().splitlines())}


def tokens(run: Run) -> float:
    return float(run.steps * BATCH_TOKENS)


def forecast(draws: Draws, log: dict[str, dict], seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Draws of the loss of every held-out run, (draw,), as the law's mean and as a single run; what is measured stays so."""
    import bayesdistill as bd
    from bayesdistill.law.predictive import residual_scale_of, supervised_residual_scale
    from bayesdistill.model import reference_run

    rng = np.random.default_rng(seed)
    reference = reference_run(bd.load_runs("tiny"), bd.load_runs("tiny", kind="supervised"))
    count = draws.n_draws
    found: dict[str, dict[str, np.ndarray]] = {
        name: dict.fromkeys(("law", "run"), np.full(count, row["loss"]))
        for name, row in log.items()
        if row["experiment"] == "main" and row["teacher"] is None
    }
    effects: dict[int, dict[str, np.ndarray]] = {}
    runs = sorted(held_out(), key=lambda run: run.teacher is not None)  # teachers first
    for run in runs:
        size, seen = float(params(run.width)), tokens(run)
        noise = rng.standard_t(draws["nu"])
        if run.teacher is None:
            law = draws.supervised_loss(size, seen)
            found[run.name] = {
                "law": law,
                "run": law + supervised_residual_scale(draws.law, law, draws.symbols, draws.reference) * noise,
            }
            continue
        teacher = found[run.teacher_run.name]
        # The teacher that a student will have is a single run, whichever way the student's own noise is counted. The heavy
        # tails of its noise must not take it to where no loss can be.
        lower = np.maximum(teacher["run"], 0.7 * teacher["law"])
        law = draws.distilled_loss(size, seen, lower)
        scale = residual_scale_of(draws.law, draws.student(size, seen), lower, draws.symbols, reference)
        # These students are in no run: their group effects are drawn anew, the same for both teachers.
        if run.width not in effects:
            standard = {kind: rng.standard_normal(count) for kind in ("student", "student_slope")}
            effects[run.width] = {
                effect.name: draws[effect.scale.name] * standard[effect.name]
                for effect in draws.law.effects
                if effect.name in standard
            }
        single = law + scale * noise
        for effect in draws.law.effects:
            if effect.name in effects[run.width]:
                single = single + effects[run.width][effect.name] * effect.covariate(lower, reference)
        found[run.name] = {"law": law, "run": single}
    return found


def entry(fit) -> dict:
    """What is written down."""
    import bayesdistill as bd
    from bayesdistill.posterior import draws_of

    draws = draws_of(fit)
    log = read_log()
    drawn = forecast(draws, log, DRAWS["seed"])
    losses = {}
    for run in held_out():
        law, single = drawn[run.name]["law"], drawn[run.name]["run"]
        quantiles = {f"{100 * q:g} %": round(float(np.quantile(single, q)), 5) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
        losses[run.name] = {"expected": round(float(law.mean()), 5), "law_sd": round(float(law.std()), 5), **quantiles}
    questions = {}
    for text, (first, second) in QUESTIONS.items():
        questions[text] = {
            kind: round((float(np.sum(drawn[first][kind] < drawn[second][kind])) + 0.5) / (draws.n_draws + 1), 5)
            for kind in ("law", "run")
        }
        lead = drawn[second]["law"] - drawn[first]["law"]
        questions[text] |= {"expected_lead": round(float(lead.mean()), 5)}
    commit = subprocess.run(
        ["git", "log", "-1", "--format=%H", "--", "log.jsonl"], cwd=HERE, capture_output=True, text=True, check=True
    ).stdout.strip()
    told = bd.provenance(fit)
    return {
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit_of_data": commit,
        "data": told["data"],
        "versions": told["versions"],
        "settings": told["settings"] | {"seed": told["seed"]},
        "priors": told["priors"],
        "asymptotic_width": told["asymptotic_width"],
        "converged": bd.check(fit).verdict,
        "losses": losses,
        "probabilities": questions,
    }


def predict() -> None:
    import bayesdistill as bd

    made = [run.name for run in held_out() if run.name in read_log()]
    if made:
        raise SystemExit(f"{', '.join(made)}: already made; predictions after the fact are none")
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "supervised.csv", "distilled.csv"], cwd=HERE)
    if changed.returncode:
        raise SystemExit("the tables are not committed; commit them first, so that the entry can name their commit")
    fit = bd.fit(bd.load_runs("tiny"), supervised=bd.load_runs("tiny", kind="supervised"), **DRAWS)
    entries = json.loads(FILE.read_text()) if FILE.exists() else []
    entries.append(entry(fit))
    unfinished = FILE.with_suffix(".part")
    unfinished.write_text(json.dumps(entries, indent=1) + "\n")
    unfinished.replace(FILE)
    print(json.dumps({key: entries[-1][key] for key in ("converged", "losses", "probabilities")}, indent=1))


def score(predicted: dict, log: dict[str, dict]) -> dict:
    """Brier and log score of the questions, and which losses lay in their 50 and 90 % intervals."""
    p, y = [], []
    for text, (first, second) in QUESTIONS.items():
        if first in log and second in log:
            p.append(predicted["probabilities"][text]["run"])
            y.append(float(log[first]["loss"] < log[second]["loss"]))
    chance, outcome = np.array(p), np.array(y)
    inside = {
        (low, high): [
            said[low] <= log[name]["loss"] <= said[high] for name, said in predicted["losses"].items() if name in log
        ]
        for low, high in (("25 %", "75 %"), ("5 %", "95 %"))
    }
    return {
        "questions": len(p),
        "came true": int(outcome.sum()),
        # No question has an answer before both of its runs are made.
        "brier": float(np.mean((chance - outcome) ** 2)) if p else None,
        "log_score": float(np.mean(np.log(np.where(outcome > 0.5, chance, 1 - chance)))) if p else None,
        "losses": len(inside["5 %", "95 %"]),
        "inside_50": int(sum(inside["25 %", "75 %"])),
        "inside_90": int(sum(inside["5 %", "95 %"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--score", action="store_true", help="score the last entry against the held-out runs")
    args = parser.parse_args()
    if not args.score:
        predict()
        return
    log = read_log()
    if not any(run.name in log for run in held_out()):
        raise SystemExit("no held-out run is made yet")
    print(json.dumps(score(json.loads(FILE.read_text())[-1], log), indent=1))


if __name__ == "__main__":
    main()
