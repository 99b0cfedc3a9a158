r"""The value of runs for a decision, from reweighted draws.

With g the advantage of distilling in a cell (positive where it is ahead) and the draws :math:`\theta_j` of the posterior, an outcome y
of a run gives draw j the weight :math:`w_j(y) = p(y|\theta_j) / \sum_i p(y|\theta_i)`, and the advantage expected afterwards is
:math:`\hat g(y) = \sum_j w_j(y) g_j`. Let s = 1 if one would pretrain today (mean of g at most 0) and -1 if one would distil. A run is
worth something only where it changes the choice:

.. math::

    \mathrm{EVSI} = \mathrm{E}_y \max(0, s\,\hat g(y)), \qquad \mathrm{EVPI} = \mathrm{E}\max(0, s\,g)

which is the familiar difference of the best expected loss before and after. The outcomes y of one run are the quantiles
(m - 1/2)/M of its posterior predictive; those of several runs together are simulated from M draws.

The weights are made from few draws where a run is precise, and the larger of two noisy numbers is too large on average. So there
are two estimates: *apparent*, above, and *cross-fitted*, in which the choice after y is made from all draws but a block
and judged on that block. The one is too high by about what the other is too low (the argument of Efron 1983, Journal of the
American Statistical Association 78, 316-331, for apparent errors), and the value reported is their mean, within 0 and EVPI. Its
standard error joins a jackknife over blocks of consecutive draws (Künsch 1989, Annals of Statistics 17, 1217-1241) and
half the difference of the two.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from bayesdistill.design.candidates import Predictions

_BLOCKS = 20
_MATRIX = 2**21  # numbers in a matrix: 16 MB
# Where one block has all the weight but this, the others cannot make the choice.
_ALONE = 1e-6
_SAMPLES_PER_DRAW = 8


@dataclass(frozen=True)
class Blocks:
    """Blocks of consecutive draws that do not cross chains.

    Parameters
    ----------
    edges : tuple of (int, int)
        First draw and the one after the last.
    """

    edges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, chains: int, draws: int) -> Blocks:
        """About 20 blocks, at least one a chain, and no block without a draw."""
        per_chain = max(1, min(_BLOCKS // chains, draws))
        cuts = np.linspace(0, draws, per_chain + 1).astype(int)
        return cls(
            tuple(
                (chain * draws + int(a), chain * draws + int(b))
                for chain in range(chains)
                for a, b in itertools.pairwise(cuts)
            )
        )

    def sums(self, weights: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Sums of weight (m, n) times value (n, k) in each block: (block, m, k)."""
        return np.stack([weights[:, a:b] @ values[a:b] for a, b in self.edges])


@dataclass(frozen=True)
class Worth:
    """What candidates are worth.

    Parameters
    ----------
    cell : ndarray
        (candidate, cell): EVSI in nats.
    cell_mcse : ndarray
        Its standard error.
    total, total_mcse : ndarray
        (candidate,): weighted mean over the cells.
    change : ndarray
        (candidate,): probability that the run changes the choice, weighted over cells.
    effective : ndarray
        (candidate, outcome): effective number of draws under the weights.
    """

    cell: np.ndarray
    cell_mcse: np.ndarray
    total: np.ndarray
    total_mcse: np.ndarray
    change: np.ndarray
    effective: np.ndarray


def predictive_quantiles(predictions: Predictions, count: int, seed: int) -> np.ndarray:
    """Outcomes of every candidate by itself, (candidate, outcome): equally likely slices of its posterior predictive.

    All candidates get the same scatter, so that they can be compared and their order does not matter.
    """
    rng = np.random.default_rng(seed)
    draws = predictions.freedom.size
    repeats = max(_SAMPLES_PER_DRAW, -(-8 * count // draws))
    scatter = rng.standard_t(predictions.freedom, (repeats, draws))
    at = (np.arange(count) + 0.5) / count
    return np.stack(
        [
            np.quantile(mean + scale * scatter, at, method="hazen")
            for mean, scale in zip(predictions.mean, predictions.scale, strict=True)
        ]
    )


def predictive_paths(predictions: Predictions, count: int, seed: int, run: int) -> np.ndarray:
    """Outcomes of every candidate as run number `run` of several, (candidate, outcome).

    Outcome m of every run comes from the same draw of the law, and every run has its own scatter.
    """
    draws = predictions.freedom.size
    order = np.random.default_rng(seed).permutation(draws)
    source = np.resize(order, count)
    scatter = np.random.default_rng([seed, run + 1]).standard_t(predictions.freedom[source])
    return predictions.mean[:, source] + predictions.scale[:, source] * scatter


def worth_of(
    gain: np.ndarray,
    weights: np.ndarray,
    predictions: Predictions,
    which: np.ndarray,
    outcomes: np.ndarray,
    blocks: Blocks,
    made: list[tuple[int, np.ndarray]] | None = None,
    *,
    random_outcomes: bool = False,
) -> Worth:
    """What candidates are worth, each valued together with the runs `made`.

    Parameters
    ----------
    gain : ndarray
        (cell, n_draws): advantage of distilling, nats.
    weights : ndarray
        (cell,): weights of the cells, adding up to 1.
    predictions : Predictions
    which : ndarray
        Positions of the candidates to value.
    outcomes : ndarray
        (candidate, outcome): theirs.
    blocks : Blocks
    made : list of (int, ndarray), optional
        Candidates already chosen and their outcomes on the same paths.
    random_outcomes : bool
        Whether the outcomes are simulated, so that their number enters the standard error.
    """
    candidates, count = outcomes.shape
    cells, draws = gain.shape
    number = len(blocks.edges)
    sizes = np.array([b - a for a, b in blocks.edges])
    parts = np.stack([gain[:, a:b].sum(axis=1) for a, b in blocks.edges])
    sign = np.where(gain.mean(axis=1) > 0, -1.0, 1.0)
    without = np.where(parts.sum(axis=0) - parts > 0, -1.0, 1.0)
    values = np.concatenate([gain, np.ones((1, draws))]).T
    apparent = np.zeros((candidates, cells))
    crossed = np.zeros((candidates, cells))
    partial = np.zeros((candidates, number, cells))
    change = np.zeros((candidates, cells))
    square = np.zeros((candidates, cells))
    per_outcome = np.zeros((candidates, count))
    effective = np.zeros((candidates, count))
    rows = max(1, min(count, _MATRIX // max(draws, number * (cells + 1))))
    for start in range(0, count, rows):
        span = slice(start, min(start + rows, count))
        before = np.zeros((span.stop - span.start, draws))
        for candidate, seen in made or []:
            before += predictions.log_density(candidate, seen[span])
        for c in range(candidates):
            likelihood = predictions.log_density(int(which[c]), outcomes[c, span]) + before
            likelihood -= likelihood.max(axis=1, keepdims=True)
            np.exp(likelihood, out=likelihood)
            likelihood /= likelihood.sum(axis=1, keepdims=True)
            effective[c, span] = 1 / np.einsum("mj,mj->m", likelihood, likelihood)
            sums = blocks.sums(likelihood, values)
            inside, mass = sums[..., :-1], sums[..., -1:]
            after = inside.sum(axis=0)
            better = np.maximum(sign * after, 0)
            apparent[c] += better.sum(axis=0)
            square[c] += (better**2).sum(axis=0)
            change[c] += (sign * after > 0).sum(axis=0)
            per_outcome[c, span] = better @ weights
            others = after - inside
            partial[c] += np.maximum(without[:, None] * others, 0).sum(axis=1)
            judge = np.where(mass < 1 - _ALONE, others, after)
            crossed[c] += np.where(sign * judge > 0, sign * inside, 0).sum(axis=(0, 1))
    apparent /= count
    crossed /= count
    limit = np.maximum(sign[:, None] * gain, 0).mean(axis=1)
    cell = np.clip((apparent + crossed) / 2, 0, limit)
    optimism = np.abs(apparent - crossed) / 2
    # Without a block, the outcomes have the predictive distribution of the other draws, and these share its weight.
    partial *= (draws / (draws - sizes) / count)[:, None] if number > 1 else np.nan
    jackknife = (number - 1) * partial.var(axis=1)
    jackknife_total = (number - 1) * (partial @ weights).var(axis=1)
    noise, noise_total = 0.0, 0.0
    if random_outcomes:
        noise = np.maximum(square / count - apparent**2, 0) / count
        noise_total = per_outcome.var(axis=1) / count
    return Worth(
        cell,
        np.sqrt(jackknife + noise + optimism**2),
        cell @ weights,
        np.sqrt(jackknife_total + noise_total + (optimism @ weights) ** 2),
        change @ weights / count,
        effective,
    )


def value_of_knowing(gain: np.ndarray) -> np.ndarray:
    """EVPI of every cell, (cell,), for the choice between the two options: what no run can exceed."""
    sign = np.where(gain.mean(axis=1) > 0, -1.0, 1.0)
    return np.asarray(np.maximum(sign[:, None] * gain, 0).mean(axis=1))
