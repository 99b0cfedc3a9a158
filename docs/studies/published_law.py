"""Agreement of the runs and of the study's own teachers with the published supervised law: table of explanation/model.md.

    python docs/studies/published_law.py [--quick]

Of these teachers, only the losses enter a fit. The four groups A to D have one training budget each; 3e19, 1e20, 3e20 and 1e21
FLOPs are the round numbers at which the published law comes closest to the best teacher of each. A correct law predicts for the
best size at that budget the loss of the best teacher of the group, or slightly more, because the minimum of about fifteen noisy losses
is below their mean.
"""

from __future__ import annotations

import numpy as np
from common import WITHOUT_DISCREPANCY, parser, row

import bayesdistill as bd
from bayesdistill.law import SUPERVISED_SYMBOLS
from bayesdistill.model import reference_run
from bayesdistill.posterior import draws_of
from bayesdistill.priors import default_priors, published_law_prior, with_block

GROUPS = {"A": 3e19, "B": 1e20, "C": 3e20, "D": 1e21}
PLACES = ((1.43e8, 20), (1.43e8, 160), (1.82e9, 20), (7.75e9, 160), (1e9, np.inf))
SIZES = np.geomspace(5e7, 3e10, 400)
HALF_DIGITS = {"E": 5e-4, "A": 0.5, "B": 0.5, "alpha": 5e-4, "beta": 5e-4, "gamma": 5e-4}
LEFT, RATIO = "best teacher less law at four budgets [1e-3 nats]", "best tokens per parameter"
PUBLISHED = {name: np.array([bd.PUBLISHED[name]]) for name in SUPERVISED_SYMBOLS}


def losses(law):
    """Losses at PLACES, (place, draw)."""
    return np.stack([bd.supervised_loss(size, ratio * size, **law) for size, ratio in PLACES])


def best_losses(law):
    """Lowest losses at the groups' budgets and their tokens per parameter, (group, draw) each."""
    found = []
    for budget in GROUPS.values():
        tokens = budget / (3 * bd.flops_per_token(SIZES))
        loss = bd.supervised_loss(SIZES[:, None], tokens[:, None], **law)
        found.append((loss.min(axis=0), (tokens / SIZES)[loss.argmin(axis=0)]))
    return np.stack([loss for loss, _ in found]), np.stack([ratio for _, ratio in found])


def numbers(values, spread=None):
    """Means in thousandths of a nat, with standard deviations in parentheses."""
    if spread is None:
        return ", ".join(f"{1e3 * value:+.1f}" for value in values)
    return ", ".join(f"{1e3 * value:+.1f} ({1e3 * s:.1f})" for value, s in zip(values, spread, strict=True))


def main(arguments: list[str] | None = None) -> None:
    quick = parser(__doc__).parse_args(arguments).quick
    runs = bd.load_runs("busbridge2025")
    reference = reference_run(runs, None)
    teachers = runs.groupby("teacher")["teacher_loss"].first()
    reached = np.array([teachers[teachers.index.str.startswith(group)].min() for group in GROUPS])
    rng = np.random.default_rng(0)
    rounded = {name: bd.PUBLISHED[name] + half * rng.uniform(-1, 1, 20_000) for name, half in HALF_DIGITS.items()}
    print("rounding of the printed coefficients, standard deviation at the places [1e-3 nats]:", end=" ")
    print(", ".join(f"{1e3 * value:.1f}" for value in losses(rounded).std(axis=1)), end="\n\n")
    shifts = "posterior less published law at five places [1e-3 nats]"
    print(row("tolerance", "tokens per parameter from", shifts, LEFT, RATIO))
    print(row(*["---"] * 5))
    best, ratio = best_losses(PUBLISHED)
    of_best = ", ".join(f"{one:.0f}" for one in ratio[:, 0])
    print(row("published law", "", "0", numbers(reached - best[:, 0]), of_best), flush=True)
    settings = ((0.0011, 20), (0.0011, 10), (0.0035, 10), (0.011, 10))
    for tolerance, fewest in settings[:1] if quick else settings:
        block, covariance = published_law_prior(reference, tolerance, (fewest, 160.0))
        priors = with_block(default_priors(WITHOUT_DISCREPANCY, reference), block, covariance, "published law")
        sampler = {"draws": 100, "tune": 100} if quick else {"draws": 2000, "target_accept": 0.95}
        fit = bd.fit(runs, priors=priors, seed=0, **sampler, progress=False)
        assert quick or bd.check(fit).ok, bd.check(fit).verdict
        draws = draws_of(fit).take(slice(None, None, 8))
        law = {name: draws[name] for name in SUPERVISED_SYMBOLS}
        shift = losses(law) - losses(PUBLISHED)
        best, ratio = best_losses(law)
        behind = reached[:, None] - best
        print(
            row(
                f"{tolerance:g}",
                fewest,
                numbers(shift.mean(axis=1), shift.std(axis=1)),
                numbers(behind.mean(axis=1), behind.std(axis=1)),
                ", ".join(f"{np.median(one):.0f}" for one in ratio),
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
