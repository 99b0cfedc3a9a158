r"""Cost of training and inference: forward FLOPs per token, and the compute of a distillation in a scenario.

The model follows Busbridge et al. (2025, arXiv:2502.08606). A decoder-only transformer of width d_model with n_layers layers,
aspect ratio :math:`\rho = d_\mathrm{model}/n_\mathrm{layers}` and :math:`N = 12\, n_\mathrm{layers}\, d_\mathrm{model}^2`
non-embedding parameters uses

.. math::

    F(N) = 2N \left(1 + k_1 N^{-1/3} + k_2 N^{-2/3}\right), \quad
    k_1 = \frac{n_\mathrm{ctx}\,\rho}{(12\rho^2)^{2/3}}, \quad k_2 = \frac{V \rho}{(12 \rho^2)^{1/3}}

forward FLOPs per token: the weights, the attention over the context, and the output layer over the vocabulary. A training
step costs three forward passes and inference costs one, so a distillation costs

.. math::

    C = 3 F(N_S) D_S + F(N_T) \left(\delta_\mathrm{lgt} D_S + 3\, \delta_\mathrm{pre} D_T\right)

The two deltas are the fractions of the teacher's inference and pretraining that this student is charged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from bayesdistill.arguments import PARAMS, TOKENS, Range, check_fields, checked, instance, shown
from bayesdistill.errors import ParameterError

CONTEXT_LENGTH = 4096
"""Context length of the published runs, in tokens."""
VOCABULARY_SIZE = 32168
"""Vocabulary size of the published runs, in tokens."""
ASPECT_RATIO = 128.0
"""Width over depth, d_model / n_layers, of the published runs."""


@dataclass(frozen=True)
class Shape:
    """Architecture parameters that determine the cost of a model of a given size.

    Parameters
    ----------
    context_length : int
        Context length n_ctx in tokens.
    vocabulary_size : int
        Vocabulary size V in tokens.
    aspect_ratio : float
        d_model / n_layers.
    """

    context_length: int = CONTEXT_LENGTH
    vocabulary_size: int = VOCABULARY_SIZE
    aspect_ratio: float = ASPECT_RATIO

    def __post_init__(self) -> None:
        check_fields(
            self,
            context_length=Range(1, 1e9, "tokens"),
            vocabulary_size=Range(1, 1e9, "tokens"),
            aspect_ratio=Range(0.1, 1e5),
        )

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
SIX_ND = Shape(context_length=1, vocabulary_size=1)
"""A shape without attention and output layer: training costs 6 N D FLOPs, to within 0.02% above 10M parameters."""


@checked(params=PARAMS.each, shape=instance(Shape))
def flops_per_token(params: Any, shape: Shape = PUBLISHED_SHAPE) -> Any:
    """Return the forward FLOPs per token, F(N).

    Parameters
    ----------
    params : float or array
        Non-embedding parameters N.
    shape : Shape
        Context length, vocabulary and aspect ratio; by default the values of the published runs.

    Returns
    -------
    float or array
        FLOPs per token of one forward pass. Training costs three times as much.

    Notes
    -----
    Busbridge et al. (2025), appendix on compute; see the module docstring.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> f"{bd.flops_per_token(1e9):.3e}"
    '2.452e+09'
    """
    return forward_flops(params, shape)


def forward_flops(params: Any, shape: Shape) -> Any:
    """Return the forward FLOPs per token, F(N), of sizes that are known to be valid."""
    return sum(flops_by_part(params, shape))


def flops_by_part(params: Any, shape: Shape = PUBLISHED_SHAPE) -> tuple[Any, Any, Any]:
    """Return the forward FLOPs per token of the weights, the attention and the output layer.

    They scale as N, N^(2/3) and N^(1/3); their sum is F(N).

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
    # NumPy computes roots of arrays several times faster through the logarithm than as a power.
    inverse_root = np.exp(np.log(params) / -3)
    weights = 2 * params
    attention = shape.k1 * inverse_root * weights
    return weights, attention, shape.k2 * inverse_root * inverse_root * weights


def flops_elasticity(weights: Any, attention: Any, output: Any) -> Any:
    """Return d log F(N) / d log N, given the parts of F(N)."""
    return (weights + attention * (2 / 3) + output * (1 / 3)) / (weights + attention + output)


def student_cost_per_token(student_flops: Any, teacher_flops: Any, delta_lgt: Any) -> Any:
    """Return the FLOPs of one distillation token: student training and the charged teacher inference."""
    return 3 * student_flops + delta_lgt * teacher_flops


def teacher_cost(teacher_flops: Any, teacher_tokens: Any, delta_pre: Any) -> Any:
    """Return the FLOPs of the charged fraction of the teacher's pretraining."""
    return 3 * delta_pre * teacher_flops * teacher_tokens


def pretraining_tokens(params: Any, budget: Any, shape: Shape = PUBLISHED_SHAPE) -> Any:
    """Return the tokens that a budget buys in pretraining, C / (3 F(N)).

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
    return budget / (3 * forward_flops(params, shape))


@dataclass(frozen=True)
class Scenario:
    """Cost scenario: the fractions of the teacher's costs that one student is charged.

    Parameters
    ----------
    delta_lgt : float
        Fraction in [0, 1] of the teacher's inference (its logits on the student's tokens) charged to this student.
    delta_pre : float
        Fraction in [0, 1] of the teacher's pretraining charged to this student; 1/K for a teacher shared by K students.
    name : str
        Name in tables and figures. By default, it is derived from the two fractions.

    Raises
    ------
    ParameterError
        If a fraction is not a number in [0, 1].

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
        check_fields(self, name=instance(str))
        if not self.name:
            derived = f"delta_lgt={self.delta_lgt:g}, delta_pre={self.delta_pre:g}"
            object.__setattr__(self, "name", _NAMES.get((self.delta_lgt, self.delta_pre), derived))


_NAMES = {
    (0.0, 0.0): "best case",
    (1.0, 0.0): "teacher inference",
    (0.0, 1.0): "teacher pretraining",
    (1.0, 1.0): "teacher pretraining + inference",
}

SCENARIOS: Mapping[str, Scenario] = MappingProxyType({name: Scenario(*deltas) for deltas, name in _NAMES.items()})
"""The four scenarios of Busbridge et al. (2025): teacher and logits already paid for; logits to be computed; teacher to be
trained, with logits stored and shared; one student charged for everything."""


def scenario(value: str | Scenario) -> Scenario:
    """Return the scenario with a given name, or the scenario itself.

    Raises
    ------
    ParameterError
        If no scenario has this name; the message lists the available names.
    """
    if isinstance(value, Scenario):
        return value
    try:
        return SCENARIOS[value]
    except (KeyError, TypeError):
        names = ", ".join(repr(name) for name in SCENARIOS)
        raise ParameterError(
            f"Unknown scenario {shown(value)}. Use {names}.",
            in_python="Or pass Scenario(delta_lgt=..., delta_pre=...).",
        ) from None


@checked(
    student_params=PARAMS.each,
    student_tokens=TOKENS.each,
    teacher_params=PARAMS.each,
    teacher_tokens=TOKENS.each,
    scenario=lambda value, _: scenario(value),
    shape=instance(Shape),
)
def distillation_flops(
    student_params: Any,
    student_tokens: Any,
    teacher_params: Any,
    teacher_tokens: Any,
    scenario: Scenario,
    shape: Shape = PUBLISHED_SHAPE,
) -> Any:
    """Return the compute charged to one distillation, C.

    Parameters
    ----------
    student_params, student_tokens : float or array
        The student's non-embedding parameters and tokens.
    teacher_params, teacher_tokens : float or array
        The teacher's non-embedding parameters and tokens.
    scenario : Scenario or str
        Charged fractions of the teacher's inference and pretraining.
    shape : Shape
        Context length, vocabulary and aspect ratio.

    Returns
    -------
    float or array
        FLOPs.

    Notes
    -----
    Busbridge et al. (2025), compute model of section 5; see the module docstring.

    Examples
    --------
    A 300M student on 20B tokens, with a 7B teacher shared by ten students:

    >>> import bayesdistill as bd
    >>> f"{bd.distillation_flops(3e8, 2e10, 7e9, 1.4e11, bd.Scenario(delta_lgt=1, delta_pre=0.1)):.2e}"
    '1.01e+21'
    """
    teacher_flops = forward_flops(teacher_params, shape)
    per_token = student_cost_per_token(forward_flops(student_params, shape), teacher_flops, scenario.delta_lgt)
    return per_token * student_tokens + teacher_cost(teacher_flops, teacher_tokens, scenario.delta_pre)
