"""Fit a law to runs: read the data, choose the priors, sample, and build the DataTree."""

from __future__ import annotations

import functools
import json
import platform
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from bayesdistill import compiler, posterior
from bayesdistill.arguments import RULES, SAMPLED, checked, one_of, or_none
from bayesdistill.datasets import fixed_axes, hash_of, read_costed, read_runs, training_curves
from bayesdistill.errors import (
    ConflictWarning,
    ConvergenceWarning,
    DataError,
    DesignWarning,
    ModelError,
    ParameterError,
)
from bayesdistill.law import DEFAULT_LAW, Law, Prior, Reference, as_law
from bayesdistill.model import build_model, reference_run
from bayesdistill.priors import (
    ASYMPTOTIC_WIDTH,
    BETWEEN_STUDIES,
    PUBLISHED_TOLERANCE,
    Priors,
    default_priors,
    prior_frame,
)
from bayesdistill.sampling._prior_table import TRANSFERS, choose_priors
from bayesdistill.sampling.groups import data_groups, labeled, log_likelihood
from bayesdistill.sampling.level_shift import estimate_level_shift
from bayesdistill.sampling.model_key import model_key
from bayesdistill.sampling.nuts import FIXED_AXIS_SETTINGS, PATH_SETTINGS, SETTINGS, sample

if TYPE_CHECKING:
    import pandas as pd

_PACKAGES = ("bayesdistill", "pymc", "nutpie", "pytensor", "llvmlite", "numba", "arviz", "xarray", "numpy", "pandas")


@checked(draws=SAMPLED, transfer=one_of(*TRANSFERS), widen=or_none(RULES["widen"]))
def fit(
    runs: pd.DataFrame | str | Path | None = None,
    supervised: pd.DataFrame | str | Path | None = None,
    *,
    law: Law | str = DEFAULT_LAW,
    study: str | None = None,
    priors: Priors | Mapping[str, Prior] | xr.DataTree | Sequence[xr.DataTree] | None = None,
    transfer: str = "all",
    widen: float | None = None,
    between_studies: float = BETWEEN_STUDIES,
    tolerance: float = PUBLISHED_TOLERANCE,
    asymptotic_width: float | None = ASYMPTOTIC_WIDTH,
    perfect_teacher_width: float | None = None,
    limited_data_width: float | None = None,
    draws: int | None = None,
    tune: int | None = None,
    chains: int = 4,
    seed: int = 0,
    cores: int | None = None,
    target_accept: float | None = None,
    progress: bool | None = None,
) -> xr.DataTree:
    """Fit a law to runs with NUTS.

    Parameters
    ----------
    runs : DataFrame or path, optional
        Distilled runs (student_params, student_tokens, teacher_loss, student_loss). `read_runs` reads and checks them. The optional
        columns teacher_params and teacher_tokens, of teachers that were trained on the corpus of the students, help to find runs of
        another corpus than the corpus of the supervised law. The optional column study has a label for each corpus and tokenizer.
    supervised : DataFrame or path, optional
        Supervised runs (params, tokens, loss). Without distilled runs, the supervised law alone is fitted; with them, both laws
        are fitted jointly and the supervised runs replace the published-law prior. Checkpoints of one model have the same label
        in the optional column model; by default, they share an effect and a slope over the logarithm of the tokens.
    law : Law or str
        A name in `LAWS`, or a `Law` with terms, group effects, residual noise and fixed symbols, for example
        ``bd.LAWS["busbridge2025"].with_terms("soft_targets")`` or, with supervised runs, ``.with_fixed(gamma=1)`` for the
        form of Hoffmann et al. (2022).
    study : str, optional
        The study whose law is fitted, if the column study has several labels. The other studies are fitted first, each on its own.
        Their levels (E, A, B, A_S, B_S) and noise are independent, and their shapes are the prior, as with transfer="shape".
    priors : mapping of Prior, Priors, DataTree, or list of DataTree, optional
        A mapping changes the priors of single coordinates (see `prior_table`). The posterior of an earlier fit is used as prior,
        with its standard deviations multiplied by `widen`. `Priors` are used unchanged, with their law.
    transfer : {"all", "shape"}
        What an earlier fit informs. "all" is for a study of the same corpus and tokenizer. "shape" is for another corpus: exponents,
        capacity gap and kappa have the earlier posterior as prior, widened by `between_studies`. Levels (E, A, B, A_S, B_S) and
        noise have default priors, and the published supervised law is not used. `priors` may then be a list of fits of several corpora.
    widen : float, optional
        Factor on the standard deviations of an earlier posterior that is used as prior. By default 2, or 1 with transfer="shape".
    between_studies : float
        With transfer="shape" or several studies, standard deviation of the difference between the shapes of two studies, in standard
        deviations of the default priors: from 0 (the same shape) to sqrt(2) (the earlier fit has no effect).
    tolerance : float
        Prior standard deviation in nats of the loss of the published law, in root mean square over its fitted range. This prior is
        used without supervised runs.
    asymptotic_width : float or None
        Width in nats of the one-sided prior on the advantage of distillation with unlimited data. None omits this prior.
    perfect_teacher_width : float or None
        Width in nats of the prior that the student of a perfect teacher (L_T = E) equals the pretrained one with unlimited data, from
        both sides, for example 0.005. By default, this prior is omitted.
    limited_data_width : float or None
        Width in nats of the one-sided prior that the student of a perfect teacher is at least as good as the pretrained one with the
        same tokens, for example 0.01. By default, this prior is omitted.
    draws, tune : int, optional
        Number of draws and of tuning draws per chain. By default, 1000. If the draws fail the convergence checks, as for few runs
        usually do, `fit` samples again: with 2000 draws, and then with 4000, with smaller steps and longer trajectories. If an axis
        of the runs does not vary (`bayesdistill.describe_runs`), it starts with 2000. With any of the arguments `draws`, `tune` and
        `target_accept`, it samples once. `bayesdistill.provenance` has the settings of every attempt.
    chains : int
        Number of chains.
    seed : int
        Random seed. The draws do not depend on `cores`.
    cores : int, optional
        Number of chains sampled in parallel. By default, the number of CPU cores.
    target_accept : float, optional
        Target acceptance rate of the step size adaptation. By default 0.9, or 0.95 if the law has a discrepancy, and
        0.97 and 0.998 if `fit` samples again.
    progress : bool, optional
        Whether to show a progress bar. By default, it is shown in a terminal or notebook.

    Returns
    -------
    DataTree
        Groups posterior (chain, draw), sample_stats, log_likelihood, observed_data, constant_data and prior_table;
        the law and the reference run in the attributes of `posterior`, and the provenance in the attributes of the tree
        (`bayesdistill.provenance`). It is compatible with ArviZ.

    Raises
    ------
    DataError
        If a table of runs is invalid.
    ModelError
        If there are no runs, or the sampler fails.
    ParameterError
        If an argument is out of range.

    Warns
    -----
    CompilerWarning
        If the model is compiled with numba, which takes about a minute (see `bayesdistill.compiler`).
    ConflictWarning
        If the distilled runs contradict the supervised law, as runs of another corpus do. Decisions then raise a ConflictError.
    ConvergenceWarning
        If a convergence check fails (see `check`).
    DesignWarning
        If an axis of the runs does not vary, such as the teacher: the fit cannot answer the questions that depend on it. If
        supervised runs look like checkpoints and no labels in the column model group them.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.fit(bd.load_runs("busbridge2025"), seed=1, progress=False)  # doctest: +SKIP
    """
    if runs is None and supervised is None:
        raise ModelError("There are no runs. Pass distilled runs, supervised runs, or both.")
    table = None if runs is None else read_costed(runs, kind="distilled")
    other = None if supervised is None else read_runs(supervised, kind="supervised")
    tables = _studies(table, other)
    if len(tables) > 1 or study is not None:
        _check_study(study, tables, priors)
    if len(tables) > 1:
        one = functools.partial(
            fit,
            law=law,
            transfer="shape",
            widen=widen,
            between_studies=between_studies,
            asymptotic_width=asymptotic_width,
            perfect_teacher_width=perfect_teacher_width,
            limited_data_width=limited_data_width,
            draws=draws,
            tune=tune,
            chains=chains,
            seed=seed,
            cores=cores,
            target_accept=target_accept,
            progress=progress,
        )
        others = [one(*tables[label], priors=[]) for label in tables if label != study]
        return one(*tables[str(study)], priors=others)
    reference = reference_run(table, other)
    law = as_law(law).for_tables(table, other)
    default = default_priors(
        law,
        reference,
        tolerance=tolerance,
        asymptotic_width=asymptotic_width,
        perfect_teacher_width=perfect_teacher_width,
        limited_data_width=limited_data_width,
    )
    chosen = choose_priors(priors, widen, default, reference, transfer=transfer, between_studies=between_studies)
    law = chosen.law
    started = time.time()
    shift = None if table is None else estimate_level_shift(table, other, chosen, reference)
    compiled = compiler.compile(
        lambda: build_model(table, other, priors=chosen, reference=reference),
        model_key(table, other, chosen, reference),
    )
    observed, constant = data_groups(law, table, other)
    axes = fixed_axes(constant)
    asked = {"draws": draws, "tune": tune, "target_accept": target_accept}
    given = {name: value for name, value in asked.items() if value is not None}
    attempts: list[dict[str, Any]] = []
    usual = PATH_SETTINGS if law.discrepancy else SETTINGS
    for defaults in FIXED_AXIS_SETTINGS if axes else usual:
        settings = defaults | {"chains": chains} | given
        sampled = sample(compiled, cores=cores, progress=progress, seed=seed, **settings)
        failed = posterior.convergence(xr.DataTree.from_dict(sampled))["failed"]
        attempts.append({"settings": settings, "failed": failed})
        # No settings help draws from two corpora, which cannot be used anyway.
        if not failed or given or (shift is not None and shift.is_conflict):
            break
    kept = posterior.with_law(labeled(sampled[posterior.POSTERIOR], law), law, reference)
    if shift is not None:
        kept = kept.assign_attrs({posterior.LEVEL_SHIFT_ATTRIBUTE: json.dumps(asdict(shift))})
    groups = sampled | {
        posterior.POSTERIOR: kept,
        posterior.LOG_LIKELIHOOD: log_likelihood(kept, table, other),
        posterior.OBSERVED: observed,
        posterior.CONSTANT: constant,
        posterior.PRIOR_TABLE: prior_frame(chosen).to_xarray().rename(coordinate="parameter"),
    }
    earlier = [priors] if isinstance(priors, xr.DataTree) else list(priors) if isinstance(priors, list | tuple) else []
    origin = _model_origin(table, other, chosen, reference) | {
        "earlier": [posterior.provenance(one).get("data", {}) for one in earlier],
        "backend": compiled.backend,
        "seed": int(seed),
        "settings": settings,
        "attempts": attempts,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 2),
    }
    result = xr.DataTree.from_dict(groups)
    result.attrs = {
        posterior.FORMAT_ATTRIBUTE: posterior.FORMAT,
        posterior.PROVENANCE_ATTRIBUTE: json.dumps(origin, sort_keys=True),
    }
    for sentence in filter(None, [*axes.values(), training_curves(constant)]):
        warnings.warn(sentence, DesignWarning, stacklevel=3)
    if shift is not None and shift.is_conflict:
        warnings.warn(f"{shift.sentence} {shift.fix}.", ConflictWarning, stacklevel=3)
    if failed:
        warnings.warn(
            f"The draws failed the convergence checks {', '.join(failed)}. bd.check(fit) suggests fixes.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return result


def _studies(
    table: pd.DataFrame | None, other: pd.DataFrame | None
) -> dict[str, tuple[pd.DataFrame | None, pd.DataFrame | None]]:
    """Return the distilled and the supervised runs of each study, or {} if no run has a label."""
    given = [None if one is None or "study" not in one else one["study"].astype("string") for one in (table, other)]
    labels = sorted({label for one in given if one is not None for label in one.dropna()})

    def part(runs: pd.DataFrame | None, studies: pd.Series | None, label: str) -> pd.DataFrame | None:
        if runs is None or studies is None or not (studies == label).any():
            return None
        return runs[studies == label].reset_index(drop=True)

    if len(labels) < 2:
        return dict.fromkeys(labels, (table, other))
    for kind, runs, one in zip(("distilled", "supervised"), (table, other), given, strict=True):
        if runs is not None and (one is None or one.isna().any()):
            number = len(runs) if one is None else int(one.isna().sum())
            raise DataError(
                f"{number} {kind} runs have no label in the column 'study', and others are of {' and '.join(map(repr, labels))}. "
                "Label all runs of both tables: losses of several corpora or tokenizers differ in level."
            )
    return {label: (part(table, given[0], label), part(other, given[1], label)) for label in labels}


def _check_study(study: str | None, tables: Mapping[str, tuple[pd.DataFrame | None, ...]], priors: Any) -> None:
    """Check the name of a study, given the runs of all studies."""
    counts = {label: sum(len(one) for one in pair if one is not None) for label, pair in tables.items()}
    listed = ", ".join(f"{label!r} ({count} runs)" for label, count in counts.items())
    if study is None:
        raise DataError(
            f"The column 'study' has {len(counts)} labels: {listed}. Losses of several corpora or tokenizers differ in level, and a "
            f"fit describes one of them. Name it in `study`, for example {min(counts, key=counts.__getitem__)!r}, and the "
            "others inform its exponents, capacity gap and kappa. If all runs have one corpus and one tokenizer, drop the column."
        )
    if study not in tables:
        found = f"has {listed}" if counts else "is missing"
        raise ParameterError(f"There is no study {study!r}: the column 'study' {found}.")
    if priors is not None and len(tables) > 1:
        raise ParameterError(
            f"`priors` are given, but the other studies are the prior of {study!r}. Omit `priors`, or pass the runs of {study!r} alone."
        )


def _model_origin(
    table: pd.DataFrame | None, other: pd.DataFrame | None, priors: Priors, reference: Reference
) -> dict[str, Any]:
    """Return the provenance of a model: versions, runs, law and priors."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "sampler": "nutpie NUTS, low-rank mass matrix",
        "data": {
            kind: {"runs": len(runs), "sha256": hash_of(runs), "source": runs.attrs["source"]}
            for kind, runs in (("distilled", table), ("supervised", other))
            if runs is not None
        },
        "reference": asdict(reference),
        "law": json.loads(priors.law.to_json()),
        "supervised_law": priors.supervised_law,
        **priors.widths,
        "priors": {name: prior.distribution for name, prior in priors.table.items()},
    }
