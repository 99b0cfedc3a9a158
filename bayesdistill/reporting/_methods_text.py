"""Methods paragraph from the provenance of a fit."""

from __future__ import annotations

import json

from bayesdistill import posterior
from bayesdistill.law import Law, law_of_json
from bayesdistill.posterior import Fit
from bayesdistill.reporting._cite import gamma_is_one
from bayesdistill.reporting.first_page import DIGITIZED

_KINDS = {"distilled": "distilled students", "supervised": "supervised models"}


def methods_text(fit: Fit) -> str:
    """Return a methods paragraph for a paper from the provenance of a fit.

    Parameters
    ----------
    fit : DataTree or Dataset
        Result of `fit` or `load`.

    Returns
    -------
    str
        Plain text in paragraphs: data and law, priors, sampler and convergence, software.

    Raises
    ------
    ModelError
        If `fit` is not a fit of a scaling law.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> draws = xr.Dataset({k: (("chain", "draw"), [[v] * 8]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> print(bd.methods_text(draws)[:58])
    The distillation scaling law of Busbridge et al. (2025) wa
    """
    found = posterior.provenance(fit)
    law = "distillation scaling law" if posterior.is_distilled(fit) else "supervised scaling law"
    model = [f"The {law} of Busbridge et al. (2025) was used as a Bayesian model{_data(found)}."]
    if gamma_is_one(fit):
        model.append("The supervised law has gamma = 1, the form of Hoffmann et al. (2022).")
    priors, sampling = [], []
    if not found:
        model.append("The draws have no provenance: their data, priors and sampler are unknown.")
    elif mixed := _mixture(posterior.members(fit)):
        model += mixed
    else:
        model += _model(posterior.law_of(fit))
        priors = _priors(found)
        sampling = [_sampling(found)]
    sampling += [_update(entry) for entry in found.get("updates", [])]
    sampling.append(_convergence(posterior.convergence(fit)))
    if conflict := posterior.corpus_conflict(fit):
        sampling.append(conflict)
    software = []
    if versions := found.get("versions"):
        software = [f"Software: {', '.join(f'{name} {number}' for name, number in sorted(versions.items()))}."]
    return "\n\n".join(" ".join(paragraph) for paragraph in (model, priors, sampling, software) if paragraph)


def _data(found: dict) -> str:
    parts = []
    for kind, table in sorted(found.get("data", {}).items()):
        source = f" from {table['source']}" if table.get("source") else ""
        source += ", digitized from a figure of that paper" if DIGITIZED in source else ""
        sha256 = str(table["sha256"])[:16]
        parts.append(f"{table['runs']} {_KINDS.get(kind, kind)}{source} (SHA-256 of the data {sha256})")
    return f", fitted to {' and '.join(parts)}" if parts else ""


_THEORY = {
    "asymptotic_width": "A one-sided normal prior with a width of {} nats was used for the advantage of distillation over pretraining "
    "with unlimited data.",
    "perfect_teacher_width": "A normal prior with a mean of 0 and a width of {} nats was used for the advantage of the student of a "
    "perfect teacher (L_T = E) with unlimited data.",
    "limited_data_width": "A one-sided normal prior with a width of {} nats, which favors distillation, was used for the advantage of "
    "the student of a perfect teacher (L_T = E) with limited data.",
}
"""Sentences about priors from statements of theory, by their settings."""


def _model(law: Law) -> list[str]:
    return ["We model the residuals with a Student-t distribution.", *law.sentences]


def _priors(found: dict) -> list[str]:
    sentences = []
    if found.get("supervised_law"):
        sentences.append(f"Source of the supervised law: {found['supervised_law']}.")
    if found.get("priors"):
        priors = "; ".join(f"{name}: {text}" for name, text in sorted(found["priors"].items()))
        sentences.append(f"Priors of the sampled coordinates: {priors}.")
    if found.get("asymptotic_width") is None:
        sentences.append("No prior was used for the advantage of distillation with unlimited data.")
    return sentences + [text.format(width) for name, text in _THEORY.items() if (width := found.get(name)) is not None]


def _mixture(laws: dict[str, dict]) -> list[str]:
    """Return sentences about each law of a mixture; empty for a fit."""
    sentences = []
    if laws:
        weights = ", ".join(f"{name} {law['weight']:.3g}" for name, law in laws.items())
        sentences.append(f"Draws of {len(laws)} laws were mixed with these weights: {weights}.")
    for name, law in laws.items():
        if origin := law["provenance"]:
            parts = [*_model(law_of_json(json.dumps(origin["law"]))), *_priors(origin)] if "law" in origin else []
            sentences += [f"Law {name}:", *parts, _sampling(origin)]
    return sentences


def _sampling(found: dict) -> str:
    settings, parts = found.get("settings", {}), []
    if {"chains", "draws", "tune"} <= set(settings):
        parts.append("{chains} chains of {draws} draws after {tune} tuning draws".format(**settings))
    if "target_accept" in settings:
        parts.append(f"target acceptance {settings['target_accept']}")
    if found.get("seed") is not None:
        parts.append(f"seed {found['seed']}")
    return f"The posterior was sampled with {found.get('sampler', 'an unknown sampler')} ({', '.join(parts)})."


def _update(entry: dict) -> str:
    k = "infinite" if entry["pareto_k"] is None else f"{entry['pareto_k']:.2f}"
    return (
        f"The draws were reweighted by the likelihood of {entry['runs']} further {_KINDS[entry['kind']]} (Pareto-smoothed importance "
        f"sampling, Pareto k {k}, {entry['effective_draws']:.0f} effective draws)."
    )


def _convergence(numbers: dict) -> str:
    def shown(key: str, form: str) -> str:
        return "unknown" if numbers[key] is None else format(numbers[key], form)

    verdict = {True: "The draws passed all convergence checks", False: "THE DRAWS DID NOT CONVERGE"}.get(
        numbers["converged"], "The convergence of the draws is unknown"
    )
    failed = f" (failed: {', '.join(numbers['failed'])})" if numbers["failed"] else ""
    return (
        f"{verdict}{failed}: largest rank-normalized R-hat {shown('rhat', '.4f')}, smallest bulk ESS {shown('ess_bulk', '.0f')}, "
        f"smallest tail ESS {shown('ess_tail', '.0f')}, divergent transitions {shown('divergences', 'd')}."
    )
