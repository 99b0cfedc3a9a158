"""Fitting the law with NUTS, and keeping fits in files.

`fit` compiles the model of `model.build_model`, samples it with nutpie (low-rank mass matrix), and returns everything that
ArviZ and the other rooms need in one DataTree, with its provenance. `save` and `load` keep a fit, or a plan, in a netCDF file:
written aside and renamed, so that an interrupted write leaves the earlier file as it was, and read without unpickling.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.datasets import data_hash, read_runs
from bayesdistill.errors import ConvergenceWarning, FileError, ModelError, ParameterError
from bayesdistill.files import replacing
from bayesdistill.laws import DISTILLATION_PARAMETERS, SUPERVISED_PARAMETERS, distilled_loss, supervised_loss
from bayesdistill.model import DISTILLED_LIKELIHOOD, SUPERVISED_LIKELIHOOD, build_model, reference_run
from bayesdistill.priors import (
    ASYMPTOTIC_WIDTH,
    PUBLISHED_TOLERANCE,
    Prior,
    Priors,
    Reference,
    default_priors,
    prior_frame,
    prior_from_draws,
    with_block,
    with_priors,
)

if TYPE_CHECKING:
    import pandas as pd
    import pymc as pm


ADAPTATION: dict[str, Any] = {"adaptation": "low_rank"}
"""How nutpie adapts its mass matrix: the coordinates are correlated in a few directions only."""

_UNITS = {
    "E": ("nats per token", "irreducible loss of the supervised law"),
    "A": ("nats^(1/gamma) parameters^alpha", "size coefficient of the supervised law"),
    "B": ("nats^(1/gamma) tokens^beta", "token coefficient of the supervised law"),
    "alpha": ("1", "size exponent of the supervised law"),
    "beta": ("1", "token exponent of the supervised law"),
    "gamma": ("1", "outer exponent of the supervised law"),
    "A_S": ("parameters^alpha_S", "size coefficient of the distillation law"),
    "B_S": ("tokens^beta_S", "token coefficient of the distillation law"),
    "alpha_S": ("1", "size exponent of the distillation law"),
    "beta_S": ("1", "token exponent of the distillation law"),
    "gamma_S": ("1", "outer exponent of the distillation law"),
    "c0": ("1", "exponent of the teacher's loss"),
    "c1": ("1", "strength of the capacity gap"),
    "d1": ("1", "loss ratio at which the capacity gap bends"),
    "f1": ("1", "width of the capacity gap"),
    "sigma": ("nats per token", "scale of the scatter of runs around the law"),
    "sigma_supervised": ("nats per token", "scale of the scatter of supervised runs around the law"),
    "nu": ("1", "degrees of freedom of the scatter"),
    "z": ("1", "standard normal coordinates"),
    "student_loss": ("nats per token", "validation cross-entropy of the student"),
    "teacher_loss": ("nats per token", "validation cross-entropy of the teacher"),
    "student_params": ("parameters", "non-embedding parameters of the student"),
    "student_tokens": ("tokens", "tokens the student was distilled on"),
    "loss": ("nats per token", "validation cross-entropy"),
    "params": ("parameters", "non-embedding parameters"),
    "tokens": ("tokens", "training tokens"),
}


def fit(
    runs: pd.DataFrame | str | Path | None = None,
    supervised: pd.DataFrame | str | Path | None = None,
    *,
    priors: Priors | Mapping[str, Prior] | xr.DataTree | None = None,
    widen: float = 2.0,
    gamma: float | None = None,
    tolerance: float = PUBLISHED_TOLERANCE,
    asymptotic_width: float | None = ASYMPTOTIC_WIDTH,
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    seed: int = 0,
    cores: int | None = None,
    target_accept: float = 0.9,
    progress: bool | None = None,
) -> xr.DataTree:
    """Fit the scaling law to runs with NUTS.

    Parameters
    ----------
    runs : DataFrame or path, optional
        Distilled runs (student_params, student_tokens, teacher_loss, student_loss); read and checked by `read_runs`.
    supervised : DataFrame or path, optional
        Supervised runs (params, tokens, loss). Alone, they give a fit of the supervised law; beside distilled runs they
        take the place of the published-law prior.
    priors : mapping of Prior, Priors, or DataTree, optional
        A mapping changes single coordinates (see `prior_table`); an earlier fit serves as prior, its standard deviations
        times `widen`; Priors are taken as they are.
    widen : float
        How much wider an earlier posterior is made before it serves as prior.
    gamma : float, optional
        Fixes the supervised law's gamma; 1 is the form of Hoffmann et al. (2022). Needs supervised runs.
    tolerance : float
        Nats; of the published-law prior, used where there are no supervised runs.
    asymptotic_width : float or None
        Nats; width of the one-sided prior on distillation's lead with unlimited data. None leaves it out.
    draws, tune, chains : int
        Kept and tuning draws of each chain, and chains.
    seed : int
        The same seed gives the same draws, whatever `cores` is.
    cores : int, optional
        Chains sampled at once; by default as many as the machine has cores.
    target_accept : float
        Acceptance that the step size is tuned to. Raise it towards 1 against divergences.
    progress : bool, optional
        Whether to show a progress bar; by default in a terminal and in a notebook.

    Returns
    -------
    DataTree
        Groups posterior (chain, draw), sample_stats, log_likelihood, observed_data, constant_data and prior_table;
        provenance in the attributes (`bayesdistill.provenance`). Every ArviZ function works on it.

    Raises
    ------
    DataError
        If a table of runs is not usable.
    ModelError
        If there are no runs, or the sampler fails.
    ParameterError
        If an argument is out of range.

    Warns
    -----
    ConvergenceWarning
        If the draws fail a gate of `check`.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.fit(bd.load_runs("busbridge2025"), seed=1, progress=False)  # doctest: +SKIP
    """
    for name, count, least in (("draws", draws, 4), ("tune", tune, 1), ("chains", chains, 1)):
        if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < least:
            raise ParameterError(f"{name} is {count!r}; a whole number of at least {least} is needed")
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise ParameterError(f"seed is {seed!r}; a whole number from 0 to 2^64 - 1 is needed")
    if cores is not None and (not isinstance(cores, int | np.integer) or isinstance(cores, bool) or cores < 1):
        raise ParameterError(f"cores is {cores!r}; a whole number of at least 1 is needed")
    if not 0 < target_accept < 1:
        raise ParameterError(f"target_accept is {target_accept!r}; a number between 0 and 1 is needed")
    if runs is None and supervised is None:
        raise ModelError("there are no runs: give distilled runs, supervised runs, or both")
    table = None if runs is None else read_runs(runs, kind="distilled")
    other = None if supervised is None else read_runs(supervised, kind="supervised")
    reference = reference_run(table, other)
    chosen = _choose_priors(
        priors,
        widen,
        default_priors(
            distilled=table is not None,
            supervised=other is not None,
            reference=reference,
            tolerance=tolerance,
            gamma=gamma,
            asymptotic_width=asymptotic_width,
        ),
        reference,
        keep_supervised=other is None,
    )
    started = time.time()
    model = build_model(table, other, priors=chosen, reference=reference)
    tree = _sample(model, draws, tune, chains, seed, cores, target_accept, progress)
    observed, constant = _data_groups(table, other)
    drawn = tree["posterior"].to_dataset()
    groups = {
        posterior.POSTERIOR: _labelled(drawn),
        posterior.SAMPLE_STATS: _plain(tree["sample_stats"].to_dataset()),
        posterior.LOG_LIKELIHOOD: log_likelihood(drawn, observed, constant),
        posterior.OBSERVED: observed,
        posterior.CONSTANT: constant,
        posterior.PRIOR_TABLE: prior_frame(chosen).to_xarray().rename(coordinate="parameter"),
    }
    result = xr.DataTree.from_dict(groups)
    settings = {"draws": draws, "tune": tune, "chains": chains, "target_accept": target_accept}
    result.attrs = {
        posterior.FORMAT_ATTRIBUTE: posterior.FORMAT,
        posterior.PROVENANCE_ATTRIBUTE: json.dumps(
            _provenance(table, other, chosen, reference, settings, seed, started), sort_keys=True
        ),
    }
    verdict = posterior.convergence(result)
    if verdict["failed"]:
        warnings.warn(
            f"the draws did not pass {', '.join(verdict['failed'])}; bd.check(fit) says what to do",
            ConvergenceWarning,
            stacklevel=2,
        )
    return result


def _choose_priors(
    asked: Priors | Mapping[str, Prior] | xr.DataTree | None,
    widen: float,
    default: Priors,
    reference: Reference,
    *,
    keep_supervised: bool,
) -> Priors:
    if asked is None:
        return default
    if isinstance(asked, Priors):
        return asked
    if isinstance(asked, xr.DataTree):
        noise = posterior.noise_draws(asked)
        if posterior.is_distilled(asked) is not ("c0" in default.table):
            # `sigma` is the scatter of distilled runs in one of the two models, of supervised runs in the other.
            noise = noise.drop_vars("sigma", errors="ignore")
        block, covariance = prior_from_draws(posterior.law_draws(asked), noise, reference, widen)
        names = [name for name in block if name in default.table]
        for name in names:
            given, earlier = default.table[name], block[name]
            if given.scale == 0 and (earlier.scale > 0 or abs(earlier.location - given.location) > 1e-9):
                raise ParameterError(
                    "gamma is fixed, and the earlier fit that serves as prior has another; leave gamma out, or repeat the "
                    "earlier fit with the same gamma"
                )
        index = [list(block).index(name) for name in names]
        law = "earlier posterior" if keep_supervised else "earlier posterior and runs"
        return with_block(default, {name: block[name] for name in names}, covariance[np.ix_(index, index)], law)
    if isinstance(asked, dict | MappingProxyType):
        return with_priors(default, asked)
    raise ParameterError(f"priors is a {type(asked).__name__}; give a mapping of Prior, Priors, or an earlier fit")


def _sample(
    model: pm.Model,
    draws: int,
    tune: int,
    chains: int,
    seed: int,
    cores: int | None,
    target_accept: float,
    progress: bool | None,
) -> xr.DataTree:
    import nutpie

    try:
        tree = nutpie.sample(
            compile_model(model),
            draws=draws,
            tune=tune,
            chains=chains,
            cores=min(chains, cores or os.cpu_count() or 1),
            seed=seed,
            target_accept=target_accept,
            save_warmup=False,
            **ADAPTATION,
            progress_bar=_watched() if progress is None else progress,
        )
    except RuntimeError as error:
        raise ModelError(
            f"the sampler stopped: {error}; look at the runs and at the priors (bd.prior_table)"
        ) from error
    return tree


def compile_model(model: pm.Model) -> Any:
    """Compile a model for nutpie so that the same seed gives the same draws in every process.

    Under PyTensor's default of fast math the last digit of a sum depends on what the compiler sees at once, and so on how
    much of the model a cache on disk already holds; after a thousand steps the draws are others. Strict arithmetic costs some
    speed, and keeps the test for numbers that are not finite, on which NUTS relies.

    Parameters
    ----------
    model : pymc.Model

    Returns
    -------
    nutpie's compiled model
    """
    import nutpie
    import pytensor

    with pytensor.config.change_flags(numba__fastmath=False):
        return nutpie.compile_pymc_model(model)


def _plain(stats: xr.Dataset) -> xr.Dataset:
    """Sampler statistics without the texts of divergences, which a netCDF file cannot hold where there are none."""
    return stats.drop_vars([name for name, value in stats.data_vars.items() if value.dtype == object])


def _watched() -> bool:
    """Whether somebody looks: a terminal, or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _labelled(dataset: xr.Dataset) -> xr.Dataset:
    for name, variable in dataset.variables.items():
        if name in _UNITS:
            variable.attrs = {"units": _UNITS[name][0], "long_name": _UNITS[name][1]}
    return dataset


def _data_groups(table: pd.DataFrame | None, other: pd.DataFrame | None) -> tuple[xr.Dataset, xr.Dataset]:
    observed, constant = xr.Dataset(), xr.Dataset()
    if table is not None:
        observed[DISTILLED_LIKELIHOOD] = ("run", table["student_loss"].to_numpy(dtype=float))
        for column in ("student_params", "student_tokens", "teacher_loss"):
            constant[column] = ("run", table[column].to_numpy(dtype=float))
        for column in ("teacher", "student", "experiment"):
            if column in table:
                constant[column] = (
                    "run",
                    np.array([str(value) for value in table[column]]),
                )
    if other is not None:
        observed[SUPERVISED_LIKELIHOOD] = ("supervised_run", other["loss"].to_numpy(dtype=float))
        for column in ("params", "tokens"):
            constant[column] = ("supervised_run", other[column].to_numpy(dtype=float))
    for dataset in (observed, constant):
        for dim in dataset.dims:
            dataset.coords[dim] = np.arange(dataset.sizes[dim])
    return _labelled(observed), _labelled(constant)


def log_likelihood(draws: xr.Dataset, observed: xr.Dataset, constant: xr.Dataset) -> xr.Dataset:
    """Pointwise log-likelihood of the runs under every draw.

    Computed from the law itself, so that no second model has to be compiled; a test compares it with PyMC's.

    Parameters
    ----------
    draws : Dataset, (chain, draw)
        The law's parameters, sigma, nu and, where there are two kinds of runs, sigma_supervised.
    observed, constant : Dataset
        As in a fit's groups of these names.

    Returns
    -------
    Dataset
        `student_loss` (chain, draw, run) and `loss` (chain, draw, supervised_run), natural logarithms.
    """
    result = xr.Dataset()
    nu = draws["nu"]
    if DISTILLED_LIKELIHOOD in observed:
        names = SUPERVISED_PARAMETERS + DISTILLATION_PARAMETERS
        mu = distilled_loss(
            constant["student_params"],
            constant["student_tokens"],
            constant["teacher_loss"],
            **{name: draws[name] for name in names},
        )
        result[DISTILLED_LIKELIHOOD] = _student_t(observed[DISTILLED_LIKELIHOOD], mu, draws["sigma"], nu)
    if SUPERVISED_LIKELIHOOD in observed:
        law = {name: draws[name] for name in SUPERVISED_PARAMETERS}
        mu = supervised_loss(constant["params"], constant["tokens"], **law)
        sigma = draws["sigma_supervised"] if "sigma_supervised" in draws else draws["sigma"]
        result[SUPERVISED_LIKELIHOOD] = _student_t(observed[SUPERVISED_LIKELIHOOD], mu, sigma, nu)
    for variable in result.data_vars.values():
        variable.attrs = {"units": "1", "long_name": "log-likelihood of a run"}
    return result


def _student_t(y: xr.DataArray, mu: xr.DataArray, sigma: xr.DataArray, nu: xr.DataArray) -> xr.DataArray:
    from scipy.special import gammaln

    constant: Any = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi) - np.log(sigma)
    value: xr.DataArray = constant - (nu + 1) / 2 * np.log1p(((y - mu) / sigma) ** 2 / nu)
    return value.transpose("chain", "draw", ...)


def _provenance(
    table: pd.DataFrame | None,
    other: pd.DataFrame | None,
    priors: Priors,
    reference: Reference,
    settings: dict[str, Any],
    seed: int,
    started: float,
) -> dict[str, Any]:
    packages = ("bayesdistill", "pymc", "nutpie", "pytensor", "numba", "arviz", "xarray", "numpy", "pandas")
    data = {
        kind: {"runs": len(frame), "sha256": data_hash(frame), "source": str(frame.attrs.get("source", "a DataFrame"))}
        for kind, frame in (("distilled", table), ("supervised", other))
        if frame is not None
    }
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "sampler": "nutpie NUTS, low-rank mass matrix",
        "backend": "numba",
        "seed": int(seed),
        "settings": settings,
        "data": data,
        "reference": asdict(reference),
        "supervised_law": priors.supervised_law,
        "asymptotic_width": priors.asymptotic_width,
        "priors": {name: prior.distribution for name, prior in priors.table.items()},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 2),
    }


def prior_table(
    fit: xr.DataTree | None = None,
    *,
    runs: pd.DataFrame | None = None,
    supervised: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The priors one by one: location, scale, distribution and reason of every coordinate.

    Parameters
    ----------
    fit : DataTree, optional
        Of an existing fit.
    runs, supervised : DataFrame, optional
        Of the fit that `bd.fit(runs, supervised)` would make.

    Returns
    -------
    DataFrame
        Index `coordinate`.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> table = bd.prior_table(runs=bd.load_runs("busbridge2025"))
    >>> table.loc["c0", "distribution"]
    'c0 ~ Normal(2, 1.5)'
    """
    if fit is not None:
        table = posterior.prior_table(fit)
        if "reason" not in table:
            raise ModelError("this fit holds no table of priors; it was not made by bayesdistill.fit")
        return table.to_dataframe().rename_axis("coordinate")
    reference = reference_run(runs, supervised)
    return prior_frame(
        default_priors(distilled=runs is not None, supervised=supervised is not None, reference=reference)
    )


# Files --------------------------------------------------------------------------------------------------------------


def save(result: xr.DataTree | xr.Dataset, path: str | Path) -> Path:
    """Write a fit or a plan to a netCDF file.

    The file is written under a temporary name in the same folder and then renamed: an interrupted or failed write leaves
    an earlier file as it was. Numbers are stored with checksums, so that `load` notices a damaged file.

    Parameters
    ----------
    result : DataTree or Dataset
        What `fit` or `plan` returned.
    path : path
        Where to; by custom ending in .nc.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    FileError
        If the folder does not exist or cannot be written to.
    ParameterError
        If `result` is neither, or holds something that a netCDF file cannot hold.

    Examples
    --------
    >>> import bayesdistill as bd, tempfile, pathlib, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = bd.save(published, pathlib.Path(folder) / "published.nc")
    ...     bd.load(path)["E"].item()
    1.22
    """
    path = Path(path)
    if not isinstance(result, xr.Dataset | xr.DataTree):
        raise ParameterError(f"only a fit or a plan can be saved, not {type(result).__name__}")
    tree = xr.DataTree(result) if isinstance(result, xr.Dataset) else result.copy()
    tree.attrs[posterior.FORMAT_ATTRIBUTE] = posterior.FORMAT
    encoding = {
        node.path: {
            name: {"fletcher32": True}
            for name, variable in node.to_dataset(inherit=False).variables.items()
            if variable.dtype.kind in "biuf" and variable.size and variable.ndim
        }
        for node in tree.subtree
    }
    with replacing(path) as aside:
        try:
            tree.to_netcdf(aside, engine="h5netcdf", encoding=encoding)
        except (TypeError, ValueError) as error:
            raise ParameterError(f"{path} is not written, a netCDF file cannot hold this: {error}") from error
    return path


def load(path: str | Path) -> Any:
    """Read a fit or a plan that `save` wrote.

    Parameters
    ----------
    path : path

    Returns
    -------
    DataTree or Dataset
        The fit (DataTree) or the plan (Dataset), in memory; the file is closed.

    Raises
    ------
    FileError
        If the file is missing, damaged, or not one of this package's, or of a later version of its format.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.load("fit.nc")  # doctest: +SKIP
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"there is no file {path}")
    found = _format_of(path)
    if found is None:
        raise FileError(f"{path} was not written by bayesdistill.save; make it again with bayesdistill.fit or plan")
    if found != posterior.FORMAT:
        raise FileError(
            f"{path} has format {found}, this version reads {posterior.FORMAT}; update bayesdistill or make the file again"
        )
    try:
        tree = xr.load_datatree(path, engine="h5netcdf")
    except Exception as error:  # h5netcdf, h5py and xarray each raise their own
        raise FileError(f"{path} is damaged: {error}") from error
    return tree if tree.children else tree.to_dataset()


def _format_of(path: Path) -> Any:
    """The version of the layout that a file says it has; None for files of others.

    Asked with h5py before anything else is read: a file of another program need not be understood any further.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get(posterior.FORMAT_ATTRIBUTE)
            return None if found is None else np.asarray(found).item()
    except Exception as error:  # OSError, but RuntimeError and others for damage in some places
        raise FileError(f"{path} is not a netCDF file, or is damaged: {error}") from error
