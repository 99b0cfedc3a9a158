"""Findings of `check` about fit quality: size, tails and structure of the residuals, and the form of the supervised law."""

from __future__ import annotations

import numpy as np

from bayesdistill.criticism.findings import Finding
from bayesdistill.criticism.residuals import Residuals, residuals_of
from bayesdistill.posterior import Fit

MAX_SCALE = 0.07
"""Largest residual scale in nats: the upper end of the range of its prior, seeds and misfit together."""
MAX_SPREAD = 0.2
"""Largest residual scale relative to the spread of the losses; it is 0.01 to 0.03 for tables that the law describes."""
MIN_NU = 2.0
"""Degrees of freedom below which the residuals have no variance."""
MAX_TREND = 3.0
"""Largest trend of the residuals in standard errors."""
_NAMED = 5
"""Maximum number of runs of a kind that a sentence names."""


def quality_findings(fit: Fit) -> tuple[Finding, ...]:
    """Return findings about the residuals of the runs; none without runs."""
    kinds = list(residuals_of(fit))
    found = [of(one) for one in kinds for of in (_spread, _trend)]
    if kinds:
        found.append(_tails(kinds))
    found += [_gamma(one) for one in kinds if one.kind == "supervised"]
    return tuple(found)


def robust_sd(values: np.ndarray) -> float:
    """Return the standard deviation of the normal distribution with the same median absolute value."""
    return float(np.median(np.abs(values)) / 0.6744897501960817)


def _spread(one: Residuals) -> Finding:
    scale = robust_sd(one.residual)
    ratio = scale / max(one.loss.std(), 1e-12)
    fine = scale <= MAX_SCALE and ratio <= MAX_SPREAD
    return Finding(
        f"residual scale in nats, and relative to spread of losses ({one.kind})",
        f"{scale:.4f}, {ratio:.3f}",
        f"<= {MAX_SCALE:g}, {MAX_SPREAD:g}",
        "ok" if fine else "caution",
        f"The law misses the {one.kind} runs by more than seeds explain, or by a large part of the spread of their losses, so "
        "it does not describe them. Check that tokens are unique tokens (no repeated epochs), and that all losses are measured on the "
        "same data.",
    )


def trends(one: Residuals) -> dict[str, tuple[float, float]]:
    """Return trends of the residuals: covariate -> (largest minus smallest effect on the runs in nats, in standard errors)."""
    logs = {name: np.log(values) for name, values in one.columns.items()}
    axes = {name: values - values.mean() for name, values in logs.items() if np.ptp(values) > 1e-9}
    directions: dict[str, np.ndarray] = {}
    names = list(axes)
    for i, name in enumerate(names):
        directions |= {name: axes[name], f"{name} squared": axes[name] ** 2, f"{name} cubed": axes[name] ** 3}
        directions |= {f"{other} times {name}": axes[other] * axes[name] for other in names[:i]}
    found = {}
    for name, direction in directions.items():
        estimate, error, span = one.trend(direction)
        if np.isfinite(error):
            found[name] = (estimate * span, estimate / error)
    return found


def _trend(one: Residuals) -> Finding:
    found = trends(one)
    label = f"largest trend of residuals in standard errors ({one.kind})"
    if not found:
        return Finding(label, "unknown", f"<= {MAX_TREND:g}", "unknown")
    name = max(found, key=lambda name: abs(found[name][1]))
    nats, z = found[name]
    return Finding(
        label,
        f"{abs(z):.1f} ({name})",
        f"<= {MAX_TREND:g}",
        "ok" if abs(z) <= MAX_TREND else "caution",
        f"The residuals of the {one.kind} runs depend on {name}, by {abs(nats):.2g} nats within the data: the form of the law misses "
        f"this, and its intervals do not include it.{_epochs('tokens' in name and nats > 0)}",
    )


def runs_miss_the_law(kinds: list[Residuals]) -> bool:
    """Whether some runs miss the law by so much more than others that the residuals probably have no variance."""
    return bool(kinds) and float((kinds[0].draws["nu"] < MIN_NU).mean()) > 0.5


def _tails(kinds: list[Residuals]) -> Finding:
    worst, repeats = [], False
    for one in kinds:
        far = np.flatnonzero(np.abs(one.standardized) > 6)
        if far.size:
            # Rows count from 1, as in errors about tables.
            named = np.sort(far[np.argsort(-np.abs(one.standardized[far]))[:_NAMED]]) + 1
            # Runs with repeated epochs have high losses for their tokens per parameter.
            ratio = one.design.tokens / one.design.params
            repeats |= bool((one.residual[far] > 0).all() and np.median(ratio[far]) >= np.quantile(ratio, 0.75))
            of = f", the worst {_NAMED} of {far.size}" if far.size > _NAMED else ""
            worst.append(f"{one.kind} runs in row{'s' * (far.size > 1)} {', '.join(map(str, named))}{of}")
    return Finding(
        "degrees of freedom of the residuals",
        f"{np.median(kinds[0].draws['nu']):.1f}",
        f">= {MIN_NU:g}",
        "caution" if runs_miss_the_law(kinds) else "ok",
        f"Some runs miss the law by much more than others ({'; '.join(worst) or 'no single run stands out'}). Check them, and fit "
        f"without the runs that went wrong.{_epochs(repeats)}",
    )


def _epochs(likely: bool) -> str:
    """Return a hint, if runs with many tokens have losses above the law."""
    return (
        " Losses of runs with many tokens are above the law: check that tokens are unique tokens (no repeated epochs)."
        * likely
    )


def _gamma(one: Residuals) -> Finding:
    law, gamma = one.draws.law, one.draws["gamma"]
    label = "gamma of the supervised law"
    if "gamma" not in law.fixed:
        low, middle, high = np.quantile(gamma, [0.025, 0.5, 0.975])
        return Finding(label, f"{middle:.2f} ({low:.2f} to {high:.2f})", "free", "ok")
    estimate, error, _ = one.trend(gamma_direction(one))
    fixed, z = law.fixed["gamma"], abs(estimate / error)
    return Finding(
        label,
        f"{fixed:g} (fixed); residuals suggest {fixed * np.exp(estimate):.2g}, {z:.1f} standard errors away",
        f"<= {MAX_TREND:g} standard errors",
        "ok" if z <= MAX_TREND else "caution",
        f"The supervised runs contradict gamma = {fixed:g}. Fit with gamma free.",
    )


def gamma_direction(one: Residuals) -> np.ndarray:
    """Return the derivative of the supervised runs' mean losses with respect to ln(gamma), (run,)."""
    draws = one.draws
    free, reference = draws.law.with_fixed(gamma=None), draws.reference
    c = {name: float(np.mean(v)) for name, v in free.coordinates_of(draws.symbols, reference).items()}

    def loss(step: float) -> np.ndarray:
        p = free.reduced_symbols(c | {"log_gamma": c["log_gamma"] + step}, reference)
        return np.asarray(
            free.supervised_loss(one.design.params / reference.params, one.design.tokens / reference.tokens, p)
        )

    return (loss(0.05) - loss(-0.05)) / 0.1
