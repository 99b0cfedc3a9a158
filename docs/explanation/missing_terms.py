"""What one more parameter of the gap would buy: the table of misfit.md on tokens per parameter.

    python docs/explanation/missing_terms.py

Point fits (Huber loss, the supervised law at its published values) of equation 8, of equation 8 for weak teachers, and of the
latter with one term more: a gap whose strength goes with a power of the student's tokens per parameter, or an excess with the
factor r^(-c2 t), t the share of the student's power sum that is due to tokens; errors of the runs fitted, and of runs left out.
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import least_squares

import bayesdistill as bd
from bayesdistill.criticism.unseen_groups import SPLITS, folds
from bayesdistill.laws import SUPERVISED_PARAMETERS, distilled_loss
from bayesdistill.model import reference_run
from bayesdistill.priors.coordinates import (
    DISTILLATION_COORDINATES,
    distillation_at_reference,
    distillation_coordinates,
    natural_parameters,
    supervised_at_reference,
    supervised_coordinates,
)

HUBER_DELTA = 0.001
runs = bd.load_runs("busbridge2025")
reference = reference_run(runs, None)
supervised = {name: bd.PUBLISHED[name] for name in SUPERVISED_PARAMETERS}
at_reference = supervised_at_reference(supervised_coordinates(bd.PUBLISHED, reference))
params, tokens, teacher, observed = (
    runs[name].to_numpy(dtype=float) for name in ("student_params", "student_tokens", "teacher_loss", "student_loss")
)
overtraining = tokens / params / 25
first = {**distillation_coordinates(bd.PUBLISHED, reference), "gap_curvature": -2.0}
START = np.array([float(first[name]) for name in DISTILLATION_COORDINATES])


def predicted(values: np.ndarray, extra: tuple[str, ...]) -> np.ndarray:
    """Student losses, (run,), with the parameters `extra` (w1, c2, exponent) in the last places."""
    named = dict(zip(DISTILLATION_COORDINATES, values[: START.size], strict=True))
    law = natural_parameters(distillation_at_reference(named, at_reference, reference), reference)
    law |= dict(zip(extra, values[START.size :], strict=True))
    law["c1"] = law["c1"] * overtraining ** law.pop("exponent", 0.0)
    return np.asarray(distilled_loss(params, tokens, teacher, **supervised, **law))


def fitted(kept: np.ndarray, extra: tuple[str, ...]) -> np.ndarray:
    """Values that fit the runs kept."""

    def residual(values: np.ndarray) -> np.ndarray:
        return np.nan_to_num(predicted(values, extra) - observed, nan=10.0)[kept]

    start = np.concatenate([np.clip(START, -12, 12), [0.05 * (name == "w1") for name in extra]])
    bounds = (np.full(start.size, -12.0), np.full(start.size, 12.0))
    # Steps to where the law overflows are taken back by the optimiser.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(least_squares(residual, start, bounds=bounds, loss="huber", f_scale=HUBER_DELTA).x)


def rms(error: np.ndarray) -> str:
    """Root mean square in nats, NaN aside."""
    return f"{np.sqrt(np.nanmean(error**2)):.4f}"


def left_out(split: str, extra: tuple[str, ...]) -> str:
    """Error of the runs of each fold, predicted by a fit to the others."""
    error = np.full(len(runs), np.nan)
    for out in folds(runs, split):
        error[out] = (predicted(fitted(~out, extra), extra) - observed)[out]
    return rms(error)


everything = np.ones(len(runs), dtype=bool)
report: Callable[..., None] = print
report("| law | fitted | " + " | ".join(f"unseen {split}" for split in SPLITS) + " | new parameter |")
report("| --- " * (len(SPLITS) + 3) + "|")
for label, extra in (
    ("equation 8", ()),
    ("weak teachers", ("w1",)),
    ("weak teachers, gap by tokens per parameter", ("w1", "exponent")),
    ("weak teachers, token shortage (c2)", ("w1", "c2")),
):
    values = fitted(everything, extra)
    scores = [rms(predicted(values, extra) - observed), *(left_out(split, extra) for split in SPLITS)]
    report(f"| {label} | {' | '.join(scores)} | {f'{values[-1]:.3f}' if len(extra) > 1 else ''} |")
