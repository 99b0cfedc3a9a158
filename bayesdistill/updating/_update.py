r"""`update`: what new runs change in a fit, by importance weights, or by a refit where these are unreliable.

Draw j of the fit gets the weight :math:`w_j \propto p(y \mid \theta_j)` of the outcomes y of the new runs
(`updating.likelihood`), smoothed by Pareto smoothing (PSIS; Vehtari et al. 2024, arXiv:1507.02646). The updated fit has as many draws
as the effective sample size :math:`1 / \sum_j w_j^2`, taken in proportion to the weights, so that Monte Carlo standard errors of its
answers are about right.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.arguments import checked, instance, or_none, switch
from bayesdistill.datasets import hash_of, read_design
from bayesdistill.decisions import compute_optimal, labels, planning, predict
from bayesdistill.decisions import plan as plan_of
from bayesdistill.decisions.labels import QUANTILES
from bayesdistill.decisions.membership import Membership, membership_of
from bayesdistill.decisions.reductions import quantiles_of
from bayesdistill.errors import DataError, ParameterError
from bayesdistill.law import Draws, Reference
from bayesdistill.law.discrepancy import STEPS, steps_between
from bayesdistill.law.predictive import COLUMNS, LABELS, OUTCOME, Design
from bayesdistill.model import run_positions
from bayesdistill.priors import default_priors, prior_frame
from bayesdistill.sampling import fit as sample_fit
from bayesdistill.sampling.groups import data_groups, labeled, log_likelihood
from bayesdistill.updating.likelihood import likelihood_of

_FEWEST = 4
"""Draws of each chain of an updated fit, which Monte Carlo errors require."""
_WIDTHS = ("asymptotic_width", "perfect_teacher_width", "limited_data_width")


@dataclass(frozen=True, eq=False)
class Update:
    """What new runs change; `print` shows it.

    Parameters
    ----------
    fit : DataTree
        The updated fit, which every function accepts that accepts a fit.
    runs : Dataset
        The new runs as the earlier fit predicted them (`predict` with noise="run").
    parameters : Dataset
        Over `quantity`, the symbols of the law and of the residual noise: before_quantile and after_quantile; shift (of the mean, in
        standard deviations before); sd_ratio (standard deviation after over before). Both are of the logarithm of positive symbols.
    plan : Dataset or None
        The plan before and after, if settings were given. Over student, scenario and budget: probability_before, probability_after,
        gain_before, gain_after (expected gains, nats), teacher_before, teacher_after (parameters), changes (whether the better option
        changes). Without distillation, over budget: size_before, size_after (parameters), loss_before and loss_after (chain, draw; nats
        per token), changes (whether the size before is outside the 90% interval of the optimum after).
    effective_draws : float
        Effective sample size of the weights; the number of draws after a refit.
    pareto_k : float
        Above 0.7, importance weights are unreliable.
    refitted : bool
        Whether the updated fit is a refit.
    sentences : tuple of str
        The findings in words.
    """

    fit: xr.DataTree
    runs: xr.Dataset
    parameters: xr.Dataset
    plan: xr.Dataset | None
    effective_draws: float
    pareto_k: float
    refitted: bool
    sentences: tuple[str, ...]

    @property
    def reliable(self) -> bool:
        """Whether the updated fit can be used."""
        return self.refitted or self.pareto_k <= posterior.GOOD_K

    def _parts(self) -> list[xr.Dataset]:
        return [part for part in (self.runs, self.parameters, self.plan) if part is not None]

    def __str__(self) -> str:
        return "\n\n".join(["\n".join(self.sentences), *map(str, self._parts())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<p>{'<br>'.join(self.sentences)}</p>{''.join(part._repr_html_() for part in self._parts())}"


@checked(refit=switch, plan=or_none(instance(Mapping)))
@planning.with_options
def update(
    fit: planning.Source,
    new_runs: pd.DataFrame | str | os.PathLike[str],
    *,
    plan: Mapping[str, Any] | None = None,
    refit: bool = False,
    seed: int = 0,
    allow_suspicious: bool = False,
    **options: Unpack[planning.Unconverged],
) -> Update:
    """Update a fit by new runs, and return what they change.

    Parameters
    ----------
    fit : DataTree or Planner
        The result of `bd.fit` or `load`, or a `Planner` with options of the plan.
    new_runs : DataFrame or path
        Runs of one kind that the fit has, with outcomes; one run is enough. Groups are identified as in `predict`.
    plan : mapping, optional
        Arguments of `bd.plan` except the fit, such as ``{"students": "1B", "budgets": [1e21, 1e22]}``; for a fit of supervised runs
        alone, arguments of `compute_optimal`. The result then shows whether the plan changes.
    refit : bool
        Whether to refit all runs with the same law and priors if Pareto k of the weights is above 0.7. By default, the result says that
        a refit is required, and the updated fit counts as unconverged.
    seed : int
        Random seed of the effects of new groups, and of a refit.
    allow_suspicious : bool
        As for `read_runs`; also accept runs that the fit already has.

    Returns
    -------
    Update
        With the updated fit as `fit`.

    Raises
    ------
    DataError, FileError
        If the table is invalid or has no outcomes.
    ParameterError
        If the fit is a mixture, has no runs of this kind, or a refit requires priors that are not the default ones.

    Notes
    -----
    Importance weights keep the law of the fit: its terms, its group effects and its reference run. Runs of groups in the data have
    their fitted effects; the effects of new groups are integrated, with the standard deviation for a group that is not in the data. The
    discrepancy includes its increments outside the earlier range. Only a refit can add a group effect that the earlier runs did not
    determine, or the first runs of a kind.

    The updated fit has fewer draws than the earlier one: their number is the effective sample size. `provenance` has an entry
    `updates`.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.update(bd.load("fit.nc"), "new.csv", plan={"students": "1B", "budgets": [1e21, 1e22]})  # doctest: +SKIP
    >>> print(found)  # doctest: +SKIP
    >>> bd.save(found.fit, "updated.nc")  # doctest: +SKIP
    """
    planner = planning.planner_of(update, fit, options, distilled=False)
    if plan is not None:
        _check_plan(planner, plan)
    earlier, draws = _with_runs(planner.fit), planner.fitted.draws
    new, before = _checked_runs(planner, new_runs, allow_suspicious)
    kind = str(new.attrs["kind"])
    table = _together(before, new)
    tables = {name: posterior.fitted_table(earlier, name) for name in COLUMNS} | {kind: table}
    member = membership_of(earlier, draws, new, kind, "seen")
    params, tokens, *teacher = (new[name].to_numpy(dtype=float) for name in COLUMNS[kind])
    design = Design(kind, params, tokens, teacher[0] if teacher else None)
    observed = new[OUTCOME[kind]].to_numpy(dtype=float)
    found = likelihood_of(draws, design, observed, member, posterior.effects_of(earlier), seed)
    weights, k = _smoothed(found.log_likelihood)
    effective = float(1 / (weights**2).sum())
    refitted = refit and not k <= posterior.GOOD_K
    if refitted:
        after = _refitted(earlier, tables, seed)
        effective = float(after[posterior.POSTERIOR].sizes["chain"] * after[posterior.POSTERIOR].sizes["draw"])
    else:
        index = _resampled(weights, effective, planner.fitted.chain.size)
        after = _reweighted(earlier, draws, tables, member, found.effects, index)
        _record(after, earlier, table, new, k, effective, seed)
    predicted = predict(planner, new, noise="run", allow_suspicious=True)
    parameters = _parameters(planner, after)
    compared = None if plan is None else _compared(planner, after, plan)
    words = _sentences(draws.n_draws, predicted, parameters, compared, k, effective, refitted)
    return Update(
        fit=after,
        runs=predicted,
        parameters=parameters,
        plan=compared,
        effective_draws=effective,
        pareto_k=k,
        refitted=refitted,
        sentences=tuple(words),
    )


# Weights ------------------------------------------------------------------------------------------------------------


def _with_runs(fit: posterior.Fit) -> xr.DataTree:
    """Return the fit, or raise an error if an update has no meaning."""
    if posterior.members(fit):
        raise ParameterError("`fit` is a mixture of several laws. Update its fits, and mix them again.")
    if not isinstance(fit, xr.DataTree):
        raise ParameterError("`fit` must be the result of bd.fit or bd.load, because an update requires its runs.")
    return fit


def _checked_runs(
    planner: planning.Planner, new_runs: Any, allow_suspicious: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the new runs, with outcomes, and the earlier runs of the same kind, with the same columns."""
    new = read_design(new_runs, allow_suspicious=allow_suspicious, teacher_losses=planner.fitted.teacher_losses)
    kind = str(new.attrs["kind"])
    if OUTCOME[kind] not in new or new[OUTCOME[kind]].isna().any():
        raise DataError(
            f"{new.attrs['source']} has no outcomes in the column {OUTCOME[kind]!r}, which an update requires. To predict the runs, "
            "use bd.predict."
        )
    earlier = posterior.fitted_table(planner.fit, kind)
    if earlier is None:
        raise ParameterError(
            f"The fit has no {kind} runs, so that new ones change its law. Refit all runs with bd.fit(runs, supervised=...)."
        )
    if not allow_suspicious:
        _reject_known(new, earlier, [*COLUMNS[kind], OUTCOME[kind]])
    return _with_labels(new, earlier, kind), earlier


def _reject_known(new: pd.DataFrame, earlier: pd.DataFrame, columns: list[str]) -> None:
    """Raise an error if the fit already has a new run, as if the table of all runs were given; an update would count it twice."""
    pairs = new[columns].to_numpy(float)[:, None], earlier[columns].to_numpy(float)
    known = np.flatnonzero(np.isclose(*pairs, rtol=1e-9, atol=0).all(axis=-1).any(axis=1)) + 1
    if known.size:
        rows = ", ".join(map(str, known[:5])) + (", ..." if known.size > 5 else "")
        raise DataError(
            f"{new.attrs['source']}: the fit already has {'this run' if known.size == 1 else f'{known.size} of these runs'} with the "
            f"same outcome (row {rows}), which would count twice. Give only the new runs. If they are other runs with equal values, "
            "use allow_suspicious=True."
        )


def _with_labels(new: pd.DataFrame, earlier: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return the new runs with the columns of the earlier table; without labels, groups are named as in `law.effects`."""
    by_value = {"teacher": "teacher_loss", "model": "params"}
    labels_of = {
        name: new[name] if name in new else new[by_value[name]].map("{:.6g}".format) if name in by_value else "new"
        for name in LABELS[kind]
        if name in earlier
    }
    table = new[[*COLUMNS[kind], OUTCOME[kind]]].assign(**labels_of)
    table.attrs = dict(new.attrs)
    return table


def _together(earlier: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return the earlier and the new runs as one table."""
    table = pd.concat([earlier, new[[*earlier.columns]]], ignore_index=True)
    table.attrs = dict(new.attrs)
    return table


def _smoothed(log_likelihood: np.ndarray) -> tuple[np.ndarray, float]:
    """Return Pareto-smoothed normalized weights and Pareto k."""
    from arviz_stats.base import array_stats

    try:
        log_weights, k = array_stats.psislw(-log_likelihood)
    except ValueError:  # all large weights are equal
        log_weights, k = log_likelihood, 0.0
    weights = np.exp(log_weights - np.max(log_weights))
    return weights / weights.sum(), float(k) if np.isfinite(k) else 0.0 if np.ptp(log_likelihood) < 1 else np.inf


def _resampled(weights: np.ndarray, effective: float, chains: int) -> np.ndarray:
    """Return draws in proportion to their weights, in their order; a multiple of the number of chains."""
    kept = chains * max(_FEWEST, round(min(effective, weights.size)) // chains)
    positions = (np.arange(kept) + 0.5) / kept
    return np.searchsorted(np.cumsum(weights) / weights.sum(), positions).clip(max=weights.size - 1)


# The updated fit ----------------------------------------------------------------------------------------------------


def _reweighted(
    earlier: xr.DataTree,
    draws: Draws,
    tables: Mapping[str, pd.DataFrame | None],
    member: Sequence[Membership],
    added: Mapping[str, Mapping[str, np.ndarray]],
    index: np.ndarray,
) -> xr.DataTree:
    """Return the draws `index` of a fit as a fit of all runs."""
    law, old = draws.law, posterior.posterior_dataset(earlier)
    chains = old.sizes["chain"]
    known, seen = posterior.effects_of(earlier), posterior.seen_runs(earlier)
    coords = {"chain": old["chain"].values, "draw": np.arange(index.size // chains)}

    def chosen(values: np.ndarray) -> np.ndarray:
        return np.asarray(values[index].reshape(chains, -1, *values.shape[1:]))

    found = xr.Dataset(coords=coords)
    whole = {"z"} | {p.name for p in law.parameters if p.name not in law.fixed}
    for name in [name for name in old.data_vars if name in whole]:
        variable = old[name].transpose("chain", "draw", ...)
        flat = variable.values.reshape(-1, *variable.shape[2:])
        found[name] = (variable.dims, chosen(flat), variable.attrs)
        found = found.assign_coords({dim: old[dim] for dim in variable.dims[2:] if dim in old.coords})
    of_new = {group.effect.name: group for group in member}
    for effect in [effect for effect in law.effects if effect.variable.name in old]:
        values, names = known[effect.name], [str(label) for label in old[effect.dim].values]
        if group := of_new.get(effect.name):
            names, of_run = effect.groups(tables[effect.kind])
            count = of_run.size - len(group.labels)
            every = np.zeros((draws.n_draws, len(names)))
            for row, place in enumerate(of_run[count:]):
                label, position = group.labels[row], group.position[row]
                every[:, place] = added[effect.name][label] if group.new[row] else values[:, position]
            every[:, of_run[:count]] = values[:, seen[effect.index].values]
            values = every
        found[effect.variable.name] = (("chain", "draw", effect.dim), chosen(values))
        found = found.assign_coords({effect.dim: names})
    if draws.paths is not None and law.discrepancy:
        steps = steps_between(run_positions(tables["distilled"], tables["supervised"], draws.reference))
        for one in law.discrepancy:
            values = draws.paths.increments[one.name][:, steps - STEPS[0]]
            found[one.variable] = (("chain", "draw", "step"), chosen(values))
        found = found.assign_coords(step=steps)
    kept = posterior.with_law(labeled(found, law), law, draws.reference)
    level = {name: old.attrs[name] for name in [posterior.LEVEL_SHIFT_ATTRIBUTE] if name in old.attrs}
    kept = kept.assign_attrs(level)
    outcomes, constant = data_groups(law, tables["distilled"], tables["supervised"])
    groups = {
        posterior.POSTERIOR: kept,
        posterior.LOG_LIKELIHOOD: log_likelihood(kept, tables["distilled"], tables["supervised"]),
        posterior.OBSERVED: outcomes,
        posterior.CONSTANT: constant,
    }
    if posterior.PRIOR_TABLE in earlier.children:
        groups[posterior.PRIOR_TABLE] = posterior.prior_table(earlier)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = dict(earlier.attrs)
    return tree


def _record(
    after: xr.DataTree,
    earlier: xr.DataTree,
    table: pd.DataFrame,
    new: pd.DataFrame,
    k: float,
    effective: float,
    seed: int,
) -> None:
    """Store where the draws of an updated fit come from."""
    origin, kind = posterior.provenance(earlier), str(new.attrs["kind"])
    numbers = posterior.convergence(earlier)
    share = effective / (numbers["chains"] * numbers["draws"])
    numbers |= {name: numbers[name] and share * numbers[name] for name in ("ess_bulk", "ess_tail")}
    entry = {
        "kind": kind,
        "runs": len(new),
        "sha256": hash_of(new),
        "source": str(new.attrs["source"]),
        "earlier": posterior.identity(earlier),
        "pareto_k": k if np.isfinite(k) else None,
        "effective_draws": effective,
        "seed": int(seed),
        "convergence": numbers,
    }
    of_kind = origin.get("data", {}).get(kind, {})
    source = " and ".join(filter(None, [of_kind.get("source", ""), str(new.attrs["source"])]))
    data = {**origin.get("data", {}), kind: {"runs": len(table), "sha256": hash_of(table), "source": source}}
    origin |= {"data": data, "updates": [*origin.get("updates", []), entry]}
    after.attrs[posterior.PROVENANCE_ATTRIBUTE] = json.dumps(origin, sort_keys=True)


def _refitted(earlier: xr.DataTree, tables: Mapping[str, pd.DataFrame | None], seed: int) -> xr.DataTree:
    """Refit all runs with the law and the priors of a fit."""
    law, origin = posterior.law_of(earlier), posterior.provenance(earlier)
    widths = {name: origin[name] for name in _WIDTHS if name in origin}
    default = prior_frame(default_priors(law, Reference(**origin["reference"]), **widths))
    own = posterior.prior_table(earlier).to_dataframe()
    if not np.allclose(
        own[["location", "scale"]].to_numpy(), default.reindex(own.index)[["location", "scale"]].to_numpy()
    ):
        raise ParameterError(
            "The fit has priors that are not the default ones, so that update cannot refit. Refit all runs with "
            "bd.fit(..., priors=...)."
        )
    return sample_fit(tables["distilled"], tables["supervised"], law=law, seed=seed, progress=False, **widths)


# What changes -------------------------------------------------------------------------------------------------------


def _parameters(planner: planning.Planner, after: xr.DataTree) -> xr.Dataset:
    """Return the symbols before and after."""
    pairs = {}
    now = posterior.draws_of(after)
    for name, drawn in planner.fitted.draws.items():
        if np.ptp(drawn) > 0:
            pairs[name] = drawn, now[name]
    before, later = ([pair[i] for pair in pairs.values()] for i in range(2))
    positive = {p.name for p in planner.fitted.draws.law.parameters if p.domain == "positive"}
    scaled = {name: [np.log(one) if name in positive else one for one in pair] for name, pair in pairs.items()}
    values = {
        "before_quantile": np.stack([quantiles_of(one, QUANTILES) for one in before]),
        "after_quantile": np.stack([quantiles_of(one, QUANTILES) for one in later]),
        "shift": np.array([(b.mean() - a.mean()) / a.std() for a, b in scaled.values()]),
        "sd_ratio": np.array([b.std() / a.std() for a, b in scaled.values()]),
    }
    coordinates = {"quantity": [*pairs], "quantile": list(QUANTILES)}
    return labels.answer("update", planner.fitted, values, coordinates, planner.fitted.attrs)


def _check_plan(planner: planning.Planner, settings: Mapping[str, Any]) -> None:
    """Raise an error if the settings of a plan lack an argument or have one that does not apply."""
    distills = planner.fitted.draws.law.distills
    arguments = inspect.signature(plan_of if distills else compute_optimal).parameters
    for name in settings.keys() - (arguments.keys() - {"fit"}):
        why = "" if distills else ", because the fit has the supervised law alone"
        raise ParameterError(f"`{name}` does not apply to the plan before and after the update{why}. Leave it out.")
    for name, argument in arguments.items():
        if name != "fit" and argument.default is argument.empty and name not in settings:
            raise ParameterError(f"The plan before and after the update requires `{name}`. Add it.")


def _compared(planner: planning.Planner, after: xr.DataTree, settings: Mapping[str, Any]) -> xr.Dataset:
    """Return a plan before and after; without distillation, the compute-optimal sizes."""
    # The earlier decision is compared even if the updated draws are unreliable, which their attributes say.
    later = planning.changed(planner, fit=after, allow_unconverged=True)
    vars(later).pop("gathered", None)
    if not planner.fitted.draws.law.distills:
        before, now = (compute_optimal(one, **settings) for one in (planner, later))
        values: dict[str, Any]
        ends = now["best_params"].quantile([0.05, 0.95], ("chain", "draw")).values
        size = before["params"].values
        values = {
            "size_before": size,
            "size_after": now["params"].values,
            "loss_before_quantile": _over_draws(before["loss"]),
            "loss_after_quantile": _over_draws(now["loss"]),
            "changes": (size < ends[0]) | (size > ends[1]),
        }
        coordinates: dict[str, Any] = {"budget": before["budget"].values, "quantile": list(QUANTILES)}
        result = "update_sizes"
    else:
        before, now = (plan_of(one, **settings) for one in (planner, later))
        values = {}
        for name, variable in (
            ("probability", "probability"),
            ("gain", "expected_gain"),
            ("teacher", "teacher_params"),
        ):
            values |= {f"{name}_{when}": one[variable].values for when, one in (("before", before), ("after", now))}
        values["changes"] = (values["gain_before"] > 0) != (values["gain_after"] > 0)
        coordinates = {name: before[name].variable for name in ("student", "scenario", "budget")}
        result = "update_plan"
    kept = ("noise", "noise_seed", posterior.CONFLICT_ATTRIBUTE)
    attrs = {name: now.attrs[name] for name in kept if name in now.attrs}
    return labels.answer(result, planner.fitted, values, coordinates, later.fitted.attrs | attrs)


def _over_draws(loss: xr.DataArray) -> np.ndarray:
    return quantiles_of(loss.values.reshape(loss.shape[0], -1), QUANTILES)


def _sentences(
    count: int,
    predicted: xr.Dataset,
    parameters: xr.Dataset,
    compared: xr.Dataset | None,
    k: float,
    effective: float,
    refitted: bool,
) -> list[str]:
    runs = predicted.sizes["run"]
    outside = int(((predicted["observed"] < predicted["lower"]) | (predicted["observed"] > predicted["upper"])).sum())
    share = f"{100 * float(predicted.attrs['interval_prob']):g}%"
    found = [f"{outside} of {runs} new run{'s' if runs > 1 else ''} outside the {share} interval of the earlier fit."]
    if refitted:
        found.append(
            f"Pareto k of the importance weights is {k:.2g}, above {posterior.GOOD_K}, so all runs were refitted."
        )
    elif k <= posterior.GOOD_K:
        found.append(f"The weights leave {effective:.0f} effective draws of {count} (Pareto k {k:.2g}).")
    else:
        found.append(
            f"Pareto k of the importance weights is {k:.2g}, above {posterior.GOOD_K}: too few draws agree with the new runs. "
            "Do not use the updated fit; refit with refit=True."
        )
    size = np.abs(parameters["shift"].values)
    most = int(size.argmax())
    name, ratio = str(parameters["quantity"].values[most]), float(parameters["sd_ratio"][most])
    shift = float(parameters["shift"][most])
    found.append(
        f"{name} changes most: by {shift:+.2g} standard deviations; its standard deviation is {ratio:.2g} times that before."
    )
    if compared is not None:
        changes, total = int(compared["changes"].sum()), compared["changes"].size
        cells = f"{total} cell{'s' if total > 1 else ''}"
        if "gain_before" in compared:
            words = (f"in {changes} of {cells} of the plan, the better option changes", "the better option is the same")
        else:
            words = (
                f"in {changes} of {cells}, the compute-optimal size before is outside the interval of the optimum after",
                "the compute-optimal size before is inside the interval of the optimum after",
            )
        found.append(
            f"The plan changes: {words[0]}." if changes else f"The plan does not change: {words[1]} in every cell."
        )
    return found
