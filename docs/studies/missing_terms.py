"""Point fits with one more parameter of the capacity gap: the table on tokens per parameter of explanation/misfit.md.

    python docs/studies/missing_terms.py [--quick]

The fits minimize a Huber loss, with the supervised law at its published values. The laws are equation 8, equation 8 for weak teachers,
and the law for weak teachers with one of these additions: a gap whose strength is multiplied by a power of the student's tokens per
parameter; an excess loss with the factor r^(-c2 t), where t is the share of the student's power sum that is due to tokens; kappa; kappa
and omega. The table shows the errors of the fitted and of left-out runs.
"""

from __future__ import annotations

import numpy as np
from baselines import DISTILLATION_COORDINATES, HUBER_DELTA
from common import parser, row
from scipy.optimize import least_squares

import bayesdistill as bd
from bayesdistill.criticism._leave_out import SPLITS, folds
from bayesdistill.law import LAWS, SUPERVISED_SYMBOLS, Law, distilled_loss, supervised_loss
from bayesdistill.law.terms.student import SUM_COORDINATES
from bayesdistill.model import reference_run

Names = tuple[str, ...]
runs = bd.load_runs("busbridge2025")
reference = reference_run(runs, None)
PAPER = LAWS["busbridge2025"]
supervised = {name: bd.PUBLISHED[name] for name in SUPERVISED_SYMBOLS}
published = PAPER.coordinates_of(bd.PUBLISHED, reference)
params, tokens, teacher, observed = (
    runs[name].to_numpy(dtype=float) for name in ("student_params", "student_tokens", "teacher_loss", "student_loss")
)
overtraining = tokens / params / 25
alone = np.asarray(supervised_loss(params, tokens, **supervised))
of_size, of_tokens = supervised["A"] * params ** -supervised["alpha"], supervised["B"] * tokens ** -supervised["beta"]
short_of_tokens = of_tokens / (of_size + of_tokens)
first = {**published, "gap_curvature": -2.0}
TIED = (*tuple(name for name in DISTILLATION_COORDINATES if name not in SUM_COORDINATES), "log_power_S")
first["log_power_S"] = 0.0


def law_of(own: Names, extra: Names, omega: float) -> Law:
    """The law with these coordinates, without w1, c2 and exponent."""
    law = PAPER.with_terms("tied_exponents") if "log_power_S" in own else PAPER
    law = law.with_terms("soft_targets") if "log_kappa" in extra else law
    return law.with_terms("reducible_ratio").with_fixed(omega=omega) if omega else law


def predicted(values: np.ndarray, own: Names, extra: Names, omega: float) -> np.ndarray:
    """Student losses, (run,), with the parameters `extra` (w1, log_kappa, c2, exponent) in the last places."""
    named = dict(zip(own + extra, values, strict=True))
    law = law_of(own, extra, omega).symbols(published | named, reference) | {"w1": named.get("w1", 0.0)}
    law["c1"] = law["c1"] * overtraining ** named.get("exponent", 0.0)
    loss = np.asarray(distilled_loss(params, tokens, teacher, **law | supervised))
    return teacher + (loss - teacher) * (teacher / alone) ** (-named.get("c2", 0.0) * short_of_tokens)


def fitted(kept: np.ndarray, own: Names, extra: Names, omega: float) -> np.ndarray:
    """Values that fit the kept runs."""

    def residual(values: np.ndarray) -> np.ndarray:
        return np.nan_to_num(predicted(values, own, extra, omega) - observed, nan=10.0)[kept]

    start = np.array([float(first[name]) for name in own] + [0.05 * (name == "w1") for name in extra])
    start = np.clip(start, -12, 12)
    bounds = (np.full(start.size, -12.0), np.full(start.size, 12.0))
    # The law may overflow at a trial step; the optimizer rejects this step.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(least_squares(residual, start, bounds=bounds, loss="huber", f_scale=HUBER_DELTA).x)


def rms(error: np.ndarray) -> str:
    """Root mean square in nats, without NaN."""
    return f"{np.sqrt(np.nanmean(error**2)):.4f}"


def left_out(split: str, own: Names, extra: Names, omega: float) -> str:
    """Error of the runs of each fold, predicted by a fit to the others."""
    error = np.full(len(runs), np.nan)
    for out in folds(runs, split):
        error[out] = (predicted(fitted(~out, own, extra, omega), own, extra, omega) - observed)[out]
    return rms(error)


FORMS = (
    ("equation 8", DISTILLATION_COORDINATES, (), 0.0),
    ("weak teachers", DISTILLATION_COORDINATES, ("w1",), 0.0),
    ("weak teachers, gap by tokens per parameter", DISTILLATION_COORDINATES, ("w1", "exponent"), 0.0),
    ("weak teachers, token shortage (c2)", DISTILLATION_COORDINATES, ("w1", "c2"), 0.0),
    ("weak teachers, omega = 1", DISTILLATION_COORDINATES, ("w1",), 1.0),
    ("weak teachers, kappa", DISTILLATION_COORDINATES, ("w1", "log_kappa"), 0.0),
    ("weak teachers, kappa, omega = 1", DISTILLATION_COORDINATES, ("w1", "log_kappa"), 1.0),
    ("weak teachers, kappa, omega = 1, tied exponents", TIED, ("w1", "log_kappa"), 1.0),
)
"""Name, own coordinates, additional parameters, omega."""


def main(arguments: list[str] | None = None) -> None:
    quick = parser(__doc__).parse_args(arguments).quick
    splits = ("paper",) if quick else SPLITS
    print(row("law", "fitted", *(f"unseen {split}" for split in splits), "new parameter"))
    print(row(*["---"] * (len(splits) + 3)))
    for label, own, extra, omega in FORMS[-1:] if quick else FORMS:
        values = fitted(np.ones(len(runs), dtype=bool), own, extra, omega)
        scores = [rms(predicted(values, own, extra, omega) - observed)]
        scores += [left_out(split, own, extra, omega) for split in splits]
        more = (
            "" if len(extra) < 2 else f"{np.exp(values[-1]):.2f}" if extra[-1] == "log_kappa" else f"{values[-1]:.3f}"
        )
        print(row(label, *scores, more), flush=True)


if __name__ == "__main__":
    main()
