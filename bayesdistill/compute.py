r"""What training and inference cost: forward FLOPs per token, and the compute of a distillation under a scenario.

The model of Busbridge et al. (2025, arXiv:2502.08606): a decoder-only transformer of width d_model and n_layers layers with
aspect ratio :math:`\rho = d_\mathrm{model}/n_\mathrm{layers}` and :math:`N = 12\, n_\mathrm{layers}\, d_\mathrm{model}^2`
non-embedding parameters spends

.. math::

    F(N) = 2N \left(1 + k_1 N^{-1/3} + k_2 N^{-2/3}\right), \quad
    k_1 = \frac{n_\mathrm{ctx}\,\rho}{(12\rho^2)^{2/3}}, \quad k_2 = \frac{V \rho}{(12 \rho^2)^{1/3}}

forward FLOPs on a token: the weights, the attention over the context, and the output layer over the vocabulary. A training
step costs three forward passes, inference one, so that a distillation costs

.. math::

    C = 3 F(N_S) D_S + F(N_T) \left(\delta_\mathrm{lgt} D_S + 3\, \delta_\mathrm{pre} D_T\right)

The two deltas are the shares of the teacher's inference and pretraining that this student is charged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import Any

import numpy as np

from bayesdistill.errors import ParameterError

CONTEXT_LENGTH = 4096
"""Tokens of context of the published runs."""
VOCABULARY_SIZE = 32168
"""Tokens in the vocabulary of the published runs."""
ASPECT_RATIO = 128.0
"""Width over depth, d_model / n_layers, of the published runs."""


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Shape:
    """What of an architecture its cost depends on besides its size.

    Parameters
    ----------
    context_length : int
        Tokens of context n_ctx.
    vocabulary_size : int
        Tokens in the vocabulary V.
    aspect_ratio : float
        d_model / n_layers.
    """

    context_length: int = CONTEXT_LENGTH
    vocabulary_size: int = VOCABULARY_SIZE
    aspect_ratio: float = ASPECT_RATIO

    def __post_init__(self) -> None:
        for name in ("context_length", "vocabulary_size", "aspect_ratio"):
            value = getattr(self, name)
            if not (_is_number(value) and value > 0):
                raise ParameterError(f"{name} is {value!r}; a positive number is needed")

    @property
    def k1(self) -> float:
        """Coefficient of the attention term, in units of N^(1/3)."""
        return self.context_length * self.aspect_ratio / (12 * self.aspect_ratio**2) ** (2 / 3)

    @property
    def k2(self) -> float:
        """Coefficient of the output layer, in units of N^(2/3)."""
        return self.vocabulary_size * self.aspect_ratio / (12 * self.aspect_ratio**2) ** (1 / 3)


PUBLISHED_SHAPE = Shape()
"""The shape of the published runs: k1 = 155.06, k2 = 70811."""


def flops_per_token(params: Any, shape: Shape = PUBLISHED_SHAPE) -> Any:
    """Forward FLOPs per token, F(N).

    Parameters
    ----------
    params : float or array
        Non-embedding parameters N.
    shape : Shape
        Context length, vocabulary and aspect ratio; by default those of the published runs.

    Returns
    -------
    float or array
        FLOPs per token of one forward pass. Training costs three times as much.

    Notes
    -----
    Busbridge et al. (2025), the appendix on compute; see the module's docstring.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> f"{bd.flops_per_token(1e9):.3e}"
    '2.452e+09'
    """
    return sum(flops_by_part(params, shape))


def flops_by_part(params: Any, shape: Shape = PUBLISHED_SHAPE) -> tuple[Any, Any, Any]:
    """Forward FLOPs per token of the weights, of the attention and of the output layer.

    They grow as N, N^(2/3) and N^(1/3); their sum is F(N).

    Parameters
    ----------
    params : float or array
        Non-embedding parameters N.
    shape : Shape
        Context length, vocabulary and aspect ratio.

    Returns
    -------
    weights, attention, output : float or array
        FLOPs per token.
    """
    # Arrays of numpy take a root several times faster through the logarithm than as a power.
    inverse_root = np.exp(np.log(params) / -3)
    weights = 2 * params
    attention = shape.k1 * inverse_root * weights
    return weights, attention, shape.k2 * inverse_root * inverse_root * weights


def student_cost_per_token(student_flops: Any, teacher_flops: Any, delta_lgt: Any) -> Any:
    """FLOPs that one distillation token costs: training the student on it, and the charged share of the teacher's pass."""
    return 3 * student_flops + delta_lgt * teacher_flops


def teacher_cost(teacher_flops: Any, teacher_tokens: Any, delta_pre: Any) -> Any:
    """FLOPs of the charged share of the teacher's pretraining."""
    return 3 * delta_pre * teacher_flops * teacher_tokens


def pretraining_tokens(params: Any, budget: Any, shape: Shape = PUBLISHED_SHAPE) -> Any:
    """Tokens that a budget buys when the model is trained from scratch, C / (3 F(N)).

    Parameters
    ----------
    params : float or array
        Non-embedding parameters.
    budget : float or array
        FLOPs.
    shape : Shape
        Context length, vocabulary and aspect ratio.

    Returns
    -------
    float or array
        Tokens.
    """
    return budget / (3 * flops_per_token(params, shape))


@dataclass(frozen=True)
class Scenario:
    """Who pays for the teacher.

    Parameters
    ----------
    delta_lgt : float
        Share in [0, 1] of the teacher's inference (its logits on the student's tokens) charged to this student.
    delta_pre : float
        Share in [0, 1] of the teacher's pretraining charged to this student; 1/K for a teacher shared by K students.
    name : str
        How tables and figures call it. Left empty, a name is made from the two shares.

    Raises
    ------
    ParameterError
        If a share is not a number in [0, 1].

    Examples
    --------
    >>> import bayesdistill as bd
    >>> bd.Scenario(delta_lgt=1, delta_pre=0.1).name
    'delta_lgt=1, delta_pre=0.1'
    """

    delta_lgt: float
    delta_pre: float
    name: str = ""

    def __post_init__(self) -> None:
        for key in ("delta_lgt", "delta_pre"):
            value = getattr(self, key)
            if not (_is_number(value) and 0 <= value <= 1):
                raise ParameterError(f"{key} is {value!r}; a share in [0, 1] is needed (1/K if K students share it)")
        if not self.name:
            object.__setattr__(self, "name", _name_of(self.delta_lgt, self.delta_pre))


def _name_of(delta_lgt: float, delta_pre: float) -> str:
    for name, (lgt, pre) in _NAMED.items():
        if (delta_lgt, delta_pre) == (lgt, pre):
            return name
    return f"delta_lgt={delta_lgt:g}, delta_pre={delta_pre:g}"


_NAMED = {
    "best case": (0.0, 0.0),
    "teacher inference": (1.0, 0.0),
    "teacher pretraining": (0.0, 1.0),
    "teacher pretraining + inference": (1.0, 1.0),
}

SCENARIOS: Mapping[str, Scenario] = MappingProxyType({name: Scenario(*deltas) for name, deltas in _NAMED.items()})
"""The four scenarios of Busbridge et al. (2025): teacher and logits already paid for; logits to be computed; teacher to be
trained, logits stored and shared; one student charged with everything."""


def scenario(value: str | Scenario) -> Scenario:
    """The scenario of that name, or the scenario itself.

    Raises
    ------
    ParameterError
        If no scenario has that name; the message lists those that exist.
    """
    if isinstance(value, Scenario):
        return value
    try:
        return SCENARIOS[value]
    except (KeyError, TypeError):
        names = ", ".join(repr(name) for name in SCENARIOS)
        raise ParameterError(
            f"no scenario is called {value!r}; use {names}, or Scenario(delta_lgt=..., delta_pre=...)"
        ) from None


def distillation_flops(
    student_params: Any,
    student_tokens: Any,
    teacher_params: Any,
    teacher_tokens: Any,
    scenario: Scenario,
    shape: Shape = PUBLISHED_SHAPE,
) -> Any:
    """Compute charged to one distillation, C.

    Parameters
    ----------
    student_params, student_tokens : float or array
        The student's non-embedding parameters and tokens.
    teacher_params, teacher_tokens : float or array
        The teacher's.
    scenario : Scenario
        Shares of the teacher's inference and pretraining that are charged.
    shape : Shape
        Context length, vocabulary and aspect ratio.

    Returns
    -------
    float or array
        FLOPs.

    Notes
    -----
    Busbridge et al. (2025), the compute model of section 5; see the module's docstring.

    Examples
    --------
    A 300M student on 20B tokens, from a 7B teacher that it shares with nine others:

    >>> import bayesdistill as bd
    >>> f"{bd.distillation_flops(3e8, 2e10, 7e9, 1.4e11, bd.Scenario(delta_lgt=1, delta_pre=0.1)):.2e}"
    '1.01e+21'
    """
    teacher_flops = flops_per_token(teacher_params, shape)
    per_token = student_cost_per_token(flops_per_token(student_params, shape), teacher_flops, scenario.delta_lgt)
    return per_token * student_tokens + teacher_cost(teacher_flops, teacher_tokens, scenario.delta_pre)
