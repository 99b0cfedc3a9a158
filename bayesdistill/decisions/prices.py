"""Prices of training and inference: GPU-hours and money.

Training (of students and teachers) and inference (the logits of teachers) may run on different hardware. A FLOP of inference then
costs `relative` times as much as a FLOP of training, and decisions that minimize cost count it so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xarray as xr

from bayesdistill.compute import Scenario, Shape, forward_flops
from bayesdistill.decisions.arguments import parse_number
from bayesdistill.errors import ParameterError

if TYPE_CHECKING:
    from bayesdistill.decisions.planning import Planner

_SECONDS = 3600


@dataclass(frozen=True)
class Prices:
    """Throughput (FLOPs per second of one accelerator) and price (of an accelerator-hour) of training and of inference.

    Parameters
    ----------
    speed, inference_speed : float or None
        None if unknown.
    price, inference_price : float or None
        None if unknown.
    currency : str
    """

    speed: float | None
    price: float | None
    inference_speed: float | None
    inference_price: float | None
    currency: str

    @classmethod
    def of(cls, planner: Planner) -> Prices:
        """Return the prices of a Planner; by default, inference has the prices of training.

        Raises
        ------
        ParameterError
            If a number is invalid, or requires another one.
        """
        names = (
            "gpu_flops_per_second",
            "price_per_gpu_hour",
            "inference_flops_per_second",
            "inference_price_per_gpu_hour",
        )
        speed, price, inference_speed, inference_price = (
            None if getattr(planner, name) is None else parse_number(getattr(planner, name), name) for name in names
        )
        if price is not None and speed is None:
            raise ParameterError(
                "`price_per_gpu_hour` requires `gpu_flops_per_second`, the throughput of the accelerator."
            )
        if inference_speed is not None and speed is None:
            raise ParameterError(
                "`inference_flops_per_second` requires `gpu_flops_per_second`, the throughput of training."
            )
        if inference_price is not None and price is None:
            raise ParameterError("`inference_price_per_gpu_hour` requires `price_per_gpu_hour`, the price of training.")
        return cls(speed, price, inference_speed or speed, inference_price or price, str(planner.currency))

    @property
    def relative(self) -> float:
        """Price of a FLOP of inference relative to a FLOP of training; in GPU-hours without prices, 1 without throughput."""
        if self.speed is None or self.inference_speed is None:
            return 1.0
        of_hours = 1.0 if self.price is None or self.inference_price is None else self.inference_price / self.price
        return of_hours * self.speed / self.inference_speed

    @property
    def attributes(self) -> dict[str, Any]:
        """What is known, as attributes of a result."""
        known = {
            "gpu_flops_per_second": self.speed,
            "price_per_gpu_hour": self.price,
            "inference_flops_per_second": self.inference_speed,
            "inference_price_per_gpu_hour": self.inference_price,
        }
        found: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
        return found | ({} if self.price is None else {"currency": self.currency})

    def costs(self, name: str, training: Any, inference: Any = 0.0) -> dict[str, Any]:
        """Return `name`_gpu_hours and `name`_money of FLOPs of training and inference, as far as prices are known."""
        if self.speed is None or self.inference_speed is None:
            return {}
        hours = training / (_SECONDS * self.speed), inference / (_SECONDS * self.inference_speed)
        found = {f"{name}_gpu_hours": hours[0] + hours[1]}
        if self.price is not None and self.inference_price is not None:
            found[f"{name}_money"] = hours[0] * self.price + hours[1] * self.inference_price
        return found

    def labeled(self, result: xr.Dataset) -> xr.Dataset:
        """Set the currency as the unit of all amounts of money of a result."""
        for name in result.data_vars:
            if str(name).endswith(("_money", "_money_quantile")):
                result[name].attrs["units"] = self.currency
        return result


def charged_flops(
    scenario: Scenario, shape: Shape, student: Any, student_tokens: Any, teacher: Any, teacher_tokens: Any
) -> tuple[Any, Any]:
    """Return the FLOPs of training and of inference that a distillation is charged for; 0 for what is not charged."""
    training = 3 * forward_flops(student, shape) * student_tokens
    if scenario.delta_pre:
        training = training + 3 * scenario.delta_pre * forward_flops(teacher, shape) * teacher_tokens
    inference = scenario.delta_lgt * forward_flops(teacher, shape) * student_tokens if scenario.delta_lgt else 0.0
    return training, inference
