r"""Value of runs for a decision, estimated by reweighting posterior draws.

Let g be the advantage of distillation in a cell (positive if it is better) and :math:`\theta_j` the posterior draws. An outcome y of
a run gives draw j the weight :math:`w_j(y) = p(y|\theta_j) / \sum_i p(y|\theta_i)`, and the updated expected advantage is
:math:`\hat g(y) = \sum_j w_j(y) g_j`. Let s = 1 if the current choice is pretraining (mean of g at most 0) and -1 if it is
distillation. A run has value only if it changes the choice:

.. math::

    \mathrm{EVSI} = \mathrm{E}_y \max(0, s\,\hat g(y)), \qquad \mathrm{EVPI} = \mathrm{E}\max(0, s\,g)

which equals the usual difference of the best expected losses before and after the run. The outcomes y of one run are the quantiles
(m - 1/2)/M of its posterior predictive distribution; outcomes of several runs are simulated jointly from M draws.

For a precise run, few draws have relevant weight, and the larger of two noisy estimates is biased upward. Therefore two estimates
are computed: *apparent* (above), and *cross-fitted*, in which the choice after y uses all draws except one block and is evaluated on
this block. Their biases have opposite signs and similar size (see Efron 1983, Journal of the American Statistical Association 78,
316-331, on apparent errors). The reported value is their mean, clipped to the range from 0 to EVPI. Its standard error combines a
jackknife over blocks of consecutive draws (Künsch 1989, Annals of Statistics 17, 1217-1241) and half the difference of the two
estimates.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayesdistill.design.candidates import Predictions
from bayesdistill.law.predictive import standard_residuals
from bayesdistill.progress import Report

_BLOCKS = 20
_MATRIX = 2**21  # maximum number of elements of a matrix: 16 MB
# If one block has all but this fraction of the weight, the other blocks cannot determine the choice.
_ALONE = 1e-6
_SAMPLES_PER_DRAW = 8


@dataclass(frozen=True)
class Blocks:
    """Blocks of consecutive draws that do not cross chains.

    Parameters
    ----------
    edges : tuple of (int, int)
        First draw and the draw after the last.
    """

    edges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, chains: int, draws: int) -> Blocks:
        """Return about 20 non-empty blocks, at least one per chain."""
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
        """Return sums of weight (m, n) times value (n, k) in each block, (block, m, k)."""
        return np.stack([weights[:, a:b] @ values[a:b] for a, b in self.edges])


@dataclass(frozen=True)
class Decision:
    """What the runs inform, and what they may show.

    Parameters
    ----------
    gain : ndarray
        (cell, n_draws): advantage of distilling, nats.
    weights : ndarray
        (cell,): weights of the cells, with sum 1.
    predictions : Predictions
        Outcomes of the candidates.
    blocks : Blocks
        Blocks of the draws.
    """

    gain: np.ndarray
    weights: np.ndarray
    predictions: Predictions
    blocks: Blocks

    @property
    def perfect_information(self) -> np.ndarray:
        """EVPI of every cell, (cell,), which is an upper bound on EVSI."""
        sign = np.where(self.gain.mean(axis=1) > 0, -1.0, 1.0)
        return np.asarray(np.maximum(sign[:, None] * self.gain, 0).mean(axis=1))


@dataclass(frozen=True)
class Worth:
    """Values of candidates.

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
    per_outcome : ndarray
        (candidate, outcome): apparent value after the outcome, weighted over cells.
    """

    cell: np.ndarray
    cell_mcse: np.ndarray
    total: np.ndarray
    total_mcse: np.ndarray
    change: np.ndarray
    effective: np.ndarray
    per_outcome: np.ndarray


def predictive_quantiles(predictions: Predictions, count: int, seed: int) -> np.ndarray:
    """Return the outcomes of every candidate alone, (candidate, outcome).

    Outcomes are quantiles of the posterior predictive distribution. All candidates use the same noise, so they
    are comparable and their order does not matter.
    """
    rng = np.random.default_rng(seed)
    draws = predictions.freedom.size
    repeats = max(_SAMPLES_PER_DRAW, -(-8 * count // draws))
    residuals = standard_residuals(predictions.freedom, (repeats, draws), rng)
    at = (np.arange(count) + 0.5) / count
    return np.stack(
        [
            np.quantile(mean + scale * residuals, at, method="hazen")
            for mean, scale in zip(predictions.mean, predictions.scale, strict=True)
        ]
    )


def predictive_paths(predictions: Predictions, count: int, seed: int, run: int) -> np.ndarray:
    """Return the outcomes of every candidate as run `run` of several, (candidate, outcome).

    Outcome m of every run uses the same draw of the law, and every run has its own residual noise.
    """
    draws = predictions.freedom.size
    order = np.random.default_rng(seed).permutation(draws)
    source = np.resize(order, count)
    residuals = standard_residuals(predictions.freedom[source], (count,), np.random.default_rng([seed, run + 1]))
    return predictions.mean[:, source] + predictions.scale[:, source] * residuals


def worth_of(
    decision: Decision,
    which: np.ndarray,
    outcomes: np.ndarray,
    made: Sequence[tuple[int, np.ndarray]] = (),
    *,
    random_outcomes: bool = False,
    report: Report = lambda done, total: None,
) -> Worth:
    """Return the values of candidates, each evaluated together with the runs in `made`.

    Parameters
    ----------
    decision : Decision
    which : ndarray
        Positions of the candidates to value.
    outcomes : ndarray
        (candidate, outcome): outcomes of the candidates.
    made : list of (int, ndarray), optional
        Selected candidates and their outcomes on the same paths.
    random_outcomes : bool
        Whether the outcomes are simulated. If so, their number enters the standard error.
    report : callable
        Receives (done, total) after every candidate of every part of the outcomes.
    """
    gain, weights, predictions, blocks = decision.gain, decision.weights, decision.predictions, decision.blocks
    candidates, count = outcomes.shape
    cells, draws = gain.shape
    number = len(blocks.edges)
    sizes = np.array([b - a for a, b in blocks.edges])
    parts = np.stack([gain[:, a:b].sum(axis=1) for a, b in blocks.edges])
    sign = np.where(gain.mean(axis=1) > 0, -1.0, 1.0)
    without = np.where(parts.sum(axis=0) - parts > 0, -1.0, 1.0)
    values = np.concatenate([gain, np.ones((1, draws))]).T
    apparent, crossed, change, square = np.zeros((4, candidates, cells))
    partial = np.zeros((candidates, number, cells))
    per_outcome, effective = np.zeros((2, candidates, count))
    rows = max(1, min(count, _MATRIX // max(draws, number * (cells + 1))))
    for start in range(0, count, rows):
        span = slice(start, min(start + rows, count))
        before = np.zeros((span.stop - span.start, draws))
        for candidate, seen in made:
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
            report(start // rows * candidates + c + 1, -(-count // rows) * candidates)
    apparent /= count
    crossed /= count
    cell = np.clip((apparent + crossed) / 2, 0, decision.perfect_information)
    optimism = np.abs(apparent - crossed) / 2
    # Without a block, the outcomes follow the predictive distribution of the other draws, which receive its weight.
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
        per_outcome,
    )
