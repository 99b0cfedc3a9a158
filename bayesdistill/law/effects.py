"""Group effects: random effects that all runs of a teacher, a student configuration or a model share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.law.formulas import log, teacher_axis
from bayesdistill.law.parameters import Coordinate, Parameter, Reference, log_normal, symbol_table
from bayesdistill.law.term import Part

if TYPE_CHECKING:
    import pandas as pd

Groups = tuple[list[str], np.ndarray]
"""Labels of the groups, and the index of each run's group, (run,)."""


def student_configurations(runs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Distinct (student_params, student_tokens), (configuration, 2), and the index of each run's, (run,)."""
    pairs = runs[["student_params", "student_tokens"]].to_numpy(dtype=float)
    distinct, index = np.unique(pairs, axis=0, return_inverse=True)
    return distinct, index.ravel()


def configuration_groups(runs: pd.DataFrame) -> Groups:
    """Student configurations of distilled runs, named by parameters and tokens."""
    distinct, index = student_configurations(runs)
    return configuration_labels(distinct), index


def configuration_labels(distinct: np.ndarray) -> list[str]:
    """Names of student configurations, given as (configuration, 2): parameters and tokens."""
    return [f"{size:.4g} parameters, {tokens:.4g} tokens" for size, tokens in distinct]


def teacher_groups(runs: pd.DataFrame) -> Groups:
    """Teachers of distilled runs; without a column `teacher`, one per teacher loss."""
    labels = runs["teacher"].astype(str) if "teacher" in runs else runs["teacher_loss"].map("{:.6g}".format)
    return _distinct(labels)


def model_groups(runs: pd.DataFrame) -> Groups:
    """Models of supervised runs; without a column `model`, one per size.

    Runs of one size can be independent, so laws have effects of models only with the column (`determined_by`).
    """
    labels = runs["model"].astype(str) if "model" in runs else runs["params"].map("{:.6g}".format)
    return _distinct(labels)


def _distinct(labels: Any) -> Groups:
    names, index = np.unique(np.array(labels, dtype=object).astype(str), return_inverse=True)
    return [str(name) for name in names], index.ravel()


@dataclass(frozen=True)
class GroupEffect(Part):
    """A normal random effect that the runs of a group share.

    Parameters
    ----------
    name : str
        By which a law names it.
    sentence : str
        Sentence for methods sections.
    variable : Parameter
        The effects in the posterior, one per group.
    scale : Parameter
        Their standard deviation.
    coordinate : Coordinate
        Its logarithm, which is sampled.
    groups : callable
        Table of runs -> labels of its groups and the index of each run's.
    dim, index : str
        Names of the groups' dimension and of the index.
    kind : {"distilled", "supervised"}
        Runs that have the effect.
    slope : bool
        Whether the effect is a slope instead of a constant: of distilled runs over `formulas.teacher_axis`, of supervised runs over
        the logarithm of the tokens.
    column : str
        Column of labels that the groups require. "" if other columns define the groups.
    sum_to_zero : bool
        Whether the effects of the groups in the data sum to zero, so the law passes through their mean. Otherwise, the law is the
        mean of all groups, and the groups in the data are a sample.
    of_pretrained : bool
        Whether a pretrained run is assumed to have such an effect too, correlated with the effect of the distilled run
        (`predictive.shared_effect`).
    """

    sentence: str
    variable: Parameter
    scale: Parameter
    coordinate: Coordinate
    groups: Callable[[Any], Groups]
    dim: str
    index: str
    kind: str = "distilled"
    slope: bool = False
    of_pretrained: bool = False
    column: str = ""
    sum_to_zero: bool = True

    def determined_by(self, runs: pd.DataFrame) -> bool:
        """Whether a table has two groups, at least one of them with two runs or, for slopes, runs at two places of the axis."""
        if self.column and self.column not in runs:
            return False
        labels, index = self.groups(runs)
        along = runs[_ALONG[self.kind]] if self.slope else np.arange(index.size)
        return 1 < len(labels) < len({*zip(index.tolist(), along, strict=True)})

    def applies_to(self, kind: str, supervised_runs: bool) -> bool:
        """Whether runs of a kind have the effect.

        Parameters
        ----------
        kind : {"distilled", "supervised"}
        supervised_runs : bool
            Whether the fit had supervised runs: their residual scale includes the effect that pretrained runs of a configuration share.
        """
        return kind == self.kind or (kind == "supervised" and self.of_pretrained and not supervised_runs)

    @property
    def raw(self) -> str:
        """Name of the variable that NUTS samples."""
        return self.variable.name.replace("effect", "z")

    def covariate(self, along: Any, reference: Reference) -> Any:
        """Factor of the effect for a run: 1, or for slopes the teacher axis or ln(tokens / tokens of the reference run).

        `along` is the teacher loss of a distilled run, or the tokens of a supervised run (`_ALONG`).
        """
        if not self.slope:
            return 1.0
        if self.kind == "supervised":
            return log(along) - float(np.log(reference.tokens))
        return teacher_axis(along, reference.teacher_loss)


_ALONG = {"distilled": "teacher_loss", "supervised": "tokens"}
"""Column that the slopes of a kind depend on."""


def _effect(
    name: str,
    *,
    what: str,
    sentence: str,
    scale: float,
    reason: str,
    dim: str,
    slope: bool = False,
    **more: Any,
) -> GroupEffect:
    """A group effect as `symbols.toml` declares it; `scale` and `reason` describe its prior."""
    step = "tokens grow by a factor of e" if more.get("kind") == "supervised" else "the teacher's loss grows by 10%"
    long = f"change of the {what} effect when {step}" if slope else f"{what} effect"
    sigma = f"sigma_{name}"
    return GroupEffect(
        name=name,
        sentence=sentence,
        variable=Parameter(f"effect_{name if slope else dim}", "nats per token", long),
        scale=Parameter(sigma, "nats per token", f"standard deviation of the {long}", neutral=0.0, domain="positive"),
        coordinate=Coordinate(
            f"log_{sigma}",
            f"the size of the {what} {'slopes' if slope else 'effects'}",
            log_normal(scale, 0.7, sigma, reason),
            symbol=sigma,
            link="log",
        ),
        dim=dim,
        slope=slope,
        **more,
    )


_GROUPS = {"teacher": teacher_groups, "student_configuration": configuration_groups, "model": model_groups}

EFFECTS: Mapping[str, GroupEffect] = MappingProxyType(
    {name: _effect(name, **entry, groups=_GROUPS[entry["dim"]]) for name, entry in symbol_table()["effects"].items()}
)
"""Group effects of the package by name."""
