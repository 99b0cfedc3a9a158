"""Content of files: what netCDF can store, and what fits and answers must contain.

`save` and `load` check the same, so every file that `save` writes can be loaded. The rules are tables: JSON and numbers in attributes
(`_Attributes`), variables of a fit (`_FIT`), and variables of answers (`decisions/variables.csv`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import ConfigDict, Field, Json, TypeAdapter, ValidationError, with_config

from bayesdistill import posterior
from bayesdistill.answers import declared_in
from bayesdistill.errors import ModelError
from bayesdistill.law.effects import EFFECTS
from bayesdistill.law.predictive import COLUMNS, LABELS, OUTCOME
from bayesdistill.model import RUN
from bayesdistill.sampling.structure import ContentError

ANSWER_ATTRIBUTE = "bayesdistill_answer"
"""Attribute that marks an Answer, which is displayed as a table."""
_CONVERSIONS = frozenset({"scale_factor", "add_offset", "missing_value", "_FillValue", "_Unsigned"})
"""Attributes that ask readers to convert values."""
_RESERVED = frozenset(
    {"coordinates", "dtype", "CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_NCProperties", "_nc3_strict"}
)
"""Attributes that writers of netCDF use themselves."""


# Attributes -----------------------------------------------------------------------------------------------------------


_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@with_config(ConfigDict(extra="forbid"))
class _Reference(TypedDict):
    params: _Positive
    tokens: _Positive
    teacher_loss: float


class _Table(TypedDict):
    runs: int
    sha256: str
    source: NotRequired[str]


class _OfLaw(TypedDict):
    weight: Annotated[float, Field(ge=0, le=1)]
    draws_per_chain: Annotated[int, Field(ge=0)]
    convergence: dict[str, Any]
    prior_dominated: list[str]
    provenance: dict[str, Any]


class _Provenance(TypedDict, total=False):
    versions: dict[str, str]
    sampler: str
    backend: str
    seed: int | None
    settings: dict[str, int | float]
    data: dict[str, _Table]
    reference: _Reference
    supervised_law: str
    asymptotic_width: float | None
    perfect_teacher_width: float | None
    limited_data_width: float | None
    priors: dict[str, str]
    started: str
    seconds: float
    laws: dict[str, _OfLaw]


class _Convergence(TypedDict, total=False):
    converged: bool | None
    failed: list[str] | None


@with_config(ConfigDict(extra="forbid"))
class _LevelShift(TypedDict):
    shift: Annotated[float, Field(allow_inf_nan=False)]
    standard_error: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    supervised_law: str
    teachers: NotRequired[Annotated[int, Field(ge=0)]]


class _Attributes(TypedDict, total=False):
    bayesdistill_provenance: Json[_Provenance]
    posterior_provenance: Json[_Provenance]
    posterior_identity: str
    convergence: Json[_Convergence]
    converged: Literal["yes", "no", "unknown"]
    converged_each: Json[dict[str, str]]
    prior_dominated: Json[list[str]]
    law_weights: Json[dict[str, float]]
    corpus_conflict: str
    fixed_axes: Json[dict[str, str]]
    seen_ranges: Json[dict[str, tuple[float, float]]]
    supervised_law: str
    supervised_range: str
    noise: str
    title: str
    currency: str
    aspect_ratio: _Positive
    context_length: _Positive
    vocabulary_size: _Positive
    budget: float
    delta_lgt: float
    highest_budget: float
    interval_prob: float
    lowest_budget: float
    max_student_tokens: float
    max_teacher_params: float
    max_compute: float
    max_teacher_tokens: float | Literal["same"]
    mean_evpi: float
    mean_evpi_flops: float
    min_teacher_params: float
    min_teacher_tokens: float
    teacher_budget: float
    teacher_tokens_per_param: float
    gpu_flops_per_second: float
    price_per_gpu_hour: float
    inference_flops_per_second: float
    inference_price_per_gpu_hour: float
    suggestion: str


class _OfDraws(TypedDict, total=False):
    law: str
    reference: Json[_Reference]
    level_shift: Json[_LevelShift]


class _OfVariable(TypedDict, total=False):
    units: str
    long_name: str
    flag_meanings: str
    flag_values: int | list[int]


@functools.cache
def _schema(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _check_attributes(attributes: Mapping[Any, Any], kind: Any, of: str) -> None:
    plain = {name: np.asarray(value).tolist() for name, value in attributes.items()}
    try:
        _schema(kind).validate_python(plain, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name, *inside = map(str, first["loc"])
        where = f" at {'.'.join(inside):.80}" if inside else ""
        raise ContentError(f"attribute {name!r} of {of} is invalid{where}: {first['msg']:.200}") from None


# Variables of fits and answers ----------------------------------------------------------------------------------------


_LABELS = frozenset(
    {
        *(
            "advice",
            "axis",
            "batch_candidate",
            "bound",
            "case",
            "claim",
            "effect",
            "experiment",
            "extrapolation_axis",
            "fit",
            "given",
            "kind",
            "model",
            "noise",
        ),
        *("option", "order", "outcome", "quantity", "scenario", "sentence", "statement", "teacher", "verdict"),
    }
)
"""Declared variables of answers that may be text; all others are numbers."""
_INSTEAD = {"budget": "tokens", "scenario": "students_per_teacher", "thinned_draw": "draw"}
"""Axes of a plan that `plan_tokens`, `sharing_map` and users replace."""


class _Rule(NamedTuple):
    """Dimensions of a variable, kinds of its type, and what its values are."""

    dims: str
    kinds: str = "f"
    values: str = "finite"


_FIT: dict[tuple[str, str], _Rule] = {
    (posterior.POSTERIOR, ""): _Rule("chain draw ...", "biuf"),
    (posterior.POSTERIOR, "z"): _Rule("chain draw coordinate"),
    (posterior.POSTERIOR, posterior.LAW_INDEX): _Rule("chain draw", "iu"),
    (posterior.SAMPLE_STATS, ""): _Rule("chain draw ...", "biuf", "any"),
    (posterior.LOG_LIKELIHOOD, ""): _Rule("chain draw ...", "f", "any"),
    **{(posterior.LOG_LIKELIHOOD, OUTCOME[kind]): _Rule(f"chain draw {RUN[kind]}", "f", "any") for kind in RUN},
    **{(posterior.OBSERVED, OUTCOME[kind]): _Rule(RUN[kind], "f", "positive") for kind in RUN},
    **{(posterior.CONSTANT, column): _Rule(RUN[kind], "f", "positive") for kind in RUN for column in COLUMNS[kind]},
    **{(posterior.CONSTANT, effect.index): _Rule(RUN[effect.kind], "iu", "positions") for effect in EFFECTS.values()},
    **{
        (posterior.CONSTANT, label): _Rule(RUN[kind], "UO", "any")
        for kind, labels in LABELS.items()
        for label in labels
    },
    **{(posterior.PRIOR_TABLE, text): _Rule("parameter", "UO", "any") for text in ("distribution", "reason")},
    **{(posterior.PRIOR_TABLE, number): _Rule("parameter") for number in ("location", "scale")},
}
"""Group and variable of a fit, "" for other variables of the group."""


def _check_fit(tree: xr.DataTree) -> None:
    for (group, name), rule in _FIT.items():
        dataset = tree[group].dataset if group in tree.children else xr.Dataset()
        others = [other for other in dataset.data_vars if (group, other) not in _FIT]
        for found in others if name == "" else {name} & set(dataset.data_vars):
            _check_variable(f"{group}/{found}", dataset[found].variable, rule)
    for run in RUN.values():
        groups = {posterior.OBSERVED, posterior.CONSTANT, posterior.LOG_LIKELIHOOD} & set(tree.children)
        if len({tree[group].sizes[run] for group in groups if run in tree[group].sizes}) > 1:
            raise ContentError(f"its groups have different numbers of {run}s")


def _check_variable(name: str, variable: xr.Variable, rule: _Rule) -> None:
    dims = rule.dims.removesuffix(" ...").split()
    open_ended = rule.dims.endswith("...")
    if list(variable.dims[: len(dims)] if open_ended else variable.dims) != dims:
        raise ContentError(f"variable {name!r} has the dimensions {_listed(variable.dims)} instead of {rule.dims}")
    if variable.dtype.kind not in rule.kinds:
        raise ContentError(f"variable {name!r} has the type {variable.dtype}")
    values = variable.values
    if rule.values != "any" and not np.isfinite(values).all():
        raise ContentError(f"variable {name!r} is not finite")
    if rule.values == "positive" and (values <= 0).any():
        raise ContentError(f"variable {name!r} is not positive")
    if rule.values == "positions" and ((values < 0) | (values >= values.size)).any():
        raise ContentError(f"variable {name!r} has an index outside its groups")


def check_draws(tree: xr.DataTree) -> None:
    """Check the draws of a fit against its law, if it is defined in this session.

    Raises
    ------
    ContentError
        If a symbol of the law is missing, not finite, or has other dimensions than chain and draw.
    """
    try:
        law = posterior.law_of(tree)
    except ModelError:
        return
    try:
        posterior.law_draws(tree)
    except ModelError as error:
        raise ContentError(str(error).rstrip(".")) from None
    draws = tree[posterior.POSTERIOR].dataset
    runs = posterior.seen_runs(tree)
    for effect in law.effects:
        name = effect.variable.name
        if name in draws.data_vars:
            _check_variable(name, draws[name].variable, _Rule(f"chain draw {effect.dim}"))
            if effect.index in runs and int(runs[effect.index].max()) >= draws.sizes[effect.dim]:
                raise ContentError(f"variable {effect.index!r} has an index outside the groups of {name}")


def _check_answer(dataset: xr.Dataset) -> None:
    """Compare an answer with the declaration of its variables. Parts of an answer may lack whole dimensions."""
    names = {str(name).removesuffix("_mcse") for name in dataset.data_vars}
    known = {*map(str, dataset.dims), *map(str, dataset.coords)}
    tables = declared_in("bayesdistill.decisions").values()
    for name, variable in dataset.variables.items():
        _check_attributes(variable.attrs, _OfVariable, f"variable {name!r}")
        if variable.dims in (
            ("run",),
            ("candidate",),
            ("statistic",),
            (name,),
        ):  # axes, and columns of the user's table or their statistics, which have any name
            continue
        own = str(name).removesuffix("_mcse")
        # Several results have variables of this name. The right one declares most variables of the dataset.
        shared = [(len(names & table.keys()), table[own][0].split()) for table in tables if own in table]
        declared = [dims for count, dims in shared if count == max(shared)[0]]
        wanted = [[dim if dim in known else _INSTEAD.get(dim, dim) for dim in dims] for dims in declared]
        if declared and not any(_has(variable, dims, dataset) for dims in wanted):
            raise ContentError(
                f"variable {name!r} has the dimensions {_listed(variable.dims)} instead of {_listed(wanted[0])}"
            )
        if declared and variable.dtype.kind not in ("biufUO" if own in _LABELS else "biuf"):
            raise ContentError(f"variable {name!r} has the type {variable.dtype}")
        if "flag_meanings" in variable.attrs:
            codes = len(variable.attrs["flag_meanings"].split())
            if variable.dtype.kind not in "iu" or ((variable.values < 0) | (variable.values >= codes)).any():
                raise ContentError(f"variable {name!r} has values without a meaning")


def _has(variable: xr.Variable, dims: list[str], dataset: xr.Dataset) -> bool:
    """Return whether a variable has all of the dimensions that the dataset has, and no others in place of those that it lacks."""
    renamed = not {*dataset.dims, *dataset.coords}.issuperset(dims) and not set(variable.dims) <= set(dims)
    return not renamed and (set(dims) & set(dataset.dims)) <= set(variable.dims)


def check_contents(tree: xr.DataTree) -> None:
    """Reject content that is not what `save` stores, and remove what earlier versions of it added.

    Raises
    ------
    ContentError
    """
    for node in tree.subtree:
        for name, variable in node.dataset.variables.items():
            if np.all(pd.isna(variable.attrs.get("_FillValue", 0))):  # earlier versions; NaN stays NaN
                del variable.attrs["_FillValue"]
            _check_conversions(str(name), variable)
    root = tree.dataset
    names = root.attrs.keys()
    is_answer = bool(names & {ANSWER_ATTRIBUTE, "posterior_provenance"})
    if is_answer or posterior.PROVENANCE_ATTRIBUTE in names or {"converged", "supervised_law"} <= names:
        _check_attributes(root.attrs, _Attributes, "the result")
    draws = tree[posterior.POSTERIOR].dataset if posterior.POSTERIOR in tree.children else root
    if posterior.LAW_ATTRIBUTE in draws.attrs and {"chain", "draw"} <= set(draws.dims):
        _check_attributes(draws.attrs, _OfDraws, "the posterior")
    if is_answer:
        _check_answer(root)
    _check_fit(tree)
    for dataset in (node.dataset for node in tree.subtree if is_answer or tree.children):
        for name, index in dataset.indexes.items():
            if not index.is_unique or index.hasnans:
                raise ContentError(f"coordinate {name!r} has missing or repeated values")
            if name in ("student", "budget", "tokens") and index.dtype.kind == "f" and not np.isfinite(index).all():
                raise ContentError(f"coordinate {name!r} is not finite")


def _listed(dims: Iterable[Any]) -> str:
    return " ".join(map(str, dims)) or "(none)"


# What netCDF can store ------------------------------------------------------------------------------------------------


def storable(dataset: xr.Dataset) -> xr.Dataset:
    """Return a dataset as netCDF can store it: without settings of an earlier file, and with booleans in attributes as 0 and 1.

    Raises
    ------
    ContentError
        If a name, a variable or an attribute cannot be stored.
    """
    dataset = dataset.drop_encoding()
    for name, index in dataset.indexes.items():
        if isinstance(index, pd.MultiIndex):
            raise ContentError(f"coordinate {name!r} is part of a MultiIndex. Remove it with reset_index")
    for name in (*dataset.variables, *dataset.dims):
        if not isinstance(name, str) or not name or "/" in name:
            raise ContentError(f"netCDF does not allow a variable or dimension {name!r}. Rename it to text without '/'")
    dataset.attrs = _storable_attributes(dataset.attrs, "the result")
    for name, variable in dataset.variables.items():
        variable.attrs = _storable_attributes(variable.attrs, f"variable {name!r}")
        _check_conversions(str(name), variable)
        if variable.dtype.kind not in "biufUSMm" and not (variable.dtype.kind == "O" and _is_text(variable.values)):
            raise ContentError(
                f"variable {name!r} has type {variable.dtype}. Store numbers, booleans or text, and complex numbers as two variables"
            )
    return dataset


def _storable_attributes(attributes: Mapping[Any, Any], of: str) -> dict[str, Any]:
    found = {}
    for name, value in attributes.items():
        if not isinstance(name, str) or not name or "/" in name or name in _RESERVED or name.startswith("_Netcdf4"):
            raise ContentError(f"netCDF does not allow an attribute {name!r} of {of}. Rename it to text without '/'")
        try:
            array = np.asarray(value)
            fits = array.dtype.kind in "biuf" or (
                array.dtype.kind in "US" and _is_text(np.asarray(value, dtype=object))
            )
        except ValueError:  # lists of different lengths
            fits = False
        if not fits:
            raise ContentError(
                f"attribute {name!r} of {of} is {value!r:.80}. Use a number, text, or a list of one of them, "
                "or store it as JSON text"
            )
        found[name] = array.astype("int8") if array.dtype.kind == "b" else value
    return found


def _is_text(values: Any) -> bool:
    return all(isinstance(value, str | bytes) for value in np.ravel(values))


def _check_conversions(name: str, variable: xr.Variable) -> None:
    for attribute in _CONVERSIONS & variable.attrs.keys():
        raise ContentError(f"attribute {attribute!r} of variable {name!r} would change its values when read. Remove it")
    if variable.dtype.kind in "iuf" and " since " in str(variable.attrs.get("units")):
        raise ContentError(f"variable {name!r} has the units of dates, but is a number. Store dates as datetime64")
