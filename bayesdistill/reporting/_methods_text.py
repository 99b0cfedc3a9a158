"""The methods paragraph, written from the fit's own provenance."""

from __future__ import annotations

from bayesdistill import posterior
from bayesdistill.law import Law
from bayesdistill.posterior import Fit
from bayesdistill.reporting._cite import gamma_is_one

_KINDS = {"distilled": "distilled students", "supervised": "supervised models"}


def methods_text(fit: Fit) -> str:
    """The methods paragraph of a paper, from what the fit says of itself.

    Parameters
    ----------
    fit : DataTree or Dataset
        What `fit` returned or `load` read.

    Returns
    -------
    str
        A paragraph of plain text: data with hashes, law, priors, sampler with settings and seed, convergence, versions.

    Raises
    ------
    ModelError
        If `fit` is no fit of a scaling law.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> draws = xr.Dataset({k: (("chain", "draw"), [[v] * 8]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> print(bd.methods_text(draws)[:58])
    The distillation scaling law of Busbridge et al. (2025) wa
    """
    found = posterior.provenance(fit)
    numbers = posterior.convergence(fit)
    law = "distillation scaling law" if posterior.is_distilled(fit) else "supervised scaling law"
    said = [f"The {law} of Busbridge et al. (2025) was used as a Bayesian model" + _data(found) + "."]
    if gamma_is_one(fit):
        said.append("The supervised law has gamma = 1, the form of Hoffmann et al. (2022).")
    if found:
        said += _model(found, posterior.law_of(fit)) + _sampling(found)
    else:
        said.append("The draws carry no provenance: their data, priors and sampler are unknown.")
    said.append(_convergence(numbers))
    versions = found.get("versions", {})
    if versions:
        said.append(f"Software: {', '.join(f'{name} {versions[name]}' for name in sorted(versions))}.")
    return " ".join(said)


def _data(found: dict) -> str:
    parts = []
    for kind, table in sorted(found.get("data", {}).items()):
        source = f" from {table['source']}" if table.get("source") else ""
        parts.append(
            f"{table['runs']} {_KINDS.get(kind, kind)}{source} (SHA-256 of the data {str(table['sha256'])[:16]})"
        )
    return f", fitted to {' and '.join(parts)}" if parts else ""


def _model(found: dict, law: Law) -> list[str]:
    said = ["We model the residuals with a Student-t distribution."]
    said += law.sentences
    if found.get("supervised_law"):
        said.append(f"The supervised law comes from: {found['supervised_law']}.")
    if found.get("priors"):
        priors = "; ".join(f"{name}: {text}" for name, text in sorted(found["priors"].items()))
        said.append(f"Priors of the sampled coordinates: {priors}.")
    width = found.get("asymptotic_width")
    if width is None:
        said.append("No prior was set on the lead of distillation with unlimited data.")
    else:
        said.append(
            "A one-sided normal prior of width "
            f"{width} nats acts on the lead of distillation over pretraining with unlimited data."
        )
    return said


def _sampling(found: dict) -> list[str]:
    settings, seed = found.get("settings", {}), found.get("seed")
    told = (
        [f"{settings['chains']} chains of {settings['draws']} draws after {settings['tune']} tuning draws"]
        if {
            "chains",
            "draws",
            "tune",
        }
        <= set(settings)
        else []
    )
    told += [f"target acceptance {settings['target_accept']}"] if "target_accept" in settings else []
    told += [f"seed {seed}"] if seed is not None else []
    return [f"The posterior was sampled with {found.get('sampler', 'an unknown sampler')} ({', '.join(told)})."]


def _convergence(numbers: dict) -> str:
    def shown(key: str, form: str) -> str:
        return "unknown" if numbers[key] is None else format(numbers[key], form)

    verdict = {True: "The draws passed every convergence check", False: "THE DRAWS DID NOT CONVERGE"}.get(
        numbers["converged"], "Whether the draws converged is not known"
    )
    failed = f" (failed: {', '.join(numbers['failed'])})" if numbers["failed"] else ""
    return (
        f"{verdict}{failed}: largest rank-normalised R-hat {shown('rhat', '.4f')}, smallest bulk ESS {shown('ess_bulk', '.0f')}, "
        f"smallest tail ESS {shown('ess_tail', '.0f')}, divergent transitions {shown('divergences', 'd')}."
    )
