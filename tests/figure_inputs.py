"""Datasets for the tests of figures and tables: made from a few formulas and a few fixed draws, nothing is sampled or solved.

Names, dimensions and attributes are those that the decisions return; `test_plots.py` checks that against the real ones.
"""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from bayesdistill.explaining import PARTS

STATUS = "ok teacher_params_at_min teacher_params_at_max budget_too_small"
CROSSOVER = "crossed always never reversed impossible"
SCENARIOS = ["best case", "teacher inference", "teacher pretraining", "teacher pretraining + inference"]
CONVERGED = {"converged": "yes", "convergence": json.dumps({"failed": []}), "posterior_provenance": "{}"}


def variable(dims, values, units="1", **attrs):
    return xr.Variable(dims, values, {"units": units, "long_name": "for tests", **attrs})


def draws() -> np.ndarray:
    """(chain, draw) of standard normal quantiles, in an order without a trend."""
    return np.array([[-1.2, 0.5, 0.0, 1.2], [0.8, -0.5, -0.8, 0.2]])


def plan(students=(3e8, 1e9, 1e10), budgets=None, scenarios=SCENARIOS) -> xr.Dataset:
    """A plan in which losses, probabilities and crossovers are simple functions of size, budget, scenario and draw."""
    students = np.asarray(students, dtype=float)
    budgets = np.geomspace(1e19, 1e25, 13) if budgets is None else np.asarray(budgets, dtype=float)
    charge = np.arange(len(scenarios), dtype=float)
    z = draws()[None, None, None]
    n, s, c = (a.reshape((*shape, 1, 1)) for a, shape in (
        (students, (-1, 1, 1)), (charge, (1, -1, 1)), (np.log10(budgets), (1, 1, -1)),
    ))  # fmt: skip
    reach = c - 21 - np.log10(n / 1e9)
    supervised = 1.7 + 0.2 * (n / 1e9) ** -0.2 + 0.25 * 10 ** (-0.18 * (c - 21)) + 0.004 * z
    advantage = 0.03 * np.tanh(0.5 * (1.5 - s) - 0.3 * reach) + 0.006 * z
    distilled = supervised - advantage
    impossible = (students[:, None, None] >= 1e10) & (budgets < 5e19) & (charge[None, :, None] >= 2)
    advantage, distilled = (np.where(impossible[..., None, None], np.nan, a) for a in (advantage, distilled))
    cell = ("student", "scenario", "budget")
    chance = 1 / (1 + np.exp(-40 * (advantage[..., 0, 2])))
    crossover = 10 ** (21 + np.log10(students)[:, None, None, None] - 9 + (1.5 - charge[None, :, None, None]) + z[0, 0])
    status = np.where(crossover > budgets.max(), 1, np.where(crossover < budgets.min(), 2, 0)).astype("int8")
    size = 10 ** (9 + 0.4 * (c - 21) + 0.1 * z) * np.ones_like(distilled)
    tokens = 10 ** (10.5 + 0.5 * (c - 21) - 0.1 * z) * np.ones_like(distilled)
    own = budgets / (6 * students[:, None, None]) / (1 + charge[None, :, None])
    drawn = (*cell, "chain", "draw")
    variables = {
        "supervised_loss": variable(("student", "budget", "chain", "draw"), supervised[:, 0], "nats per token"),
        "distilled_loss": variable(drawn, distilled, "nats per token"),
        "best_distilled_loss": variable(drawn, distilled, "nats per token"),
        "advantage": variable(drawn, advantage, "nats per token"),
        "teacher_loss": variable(drawn, 1.7 + 0.2 * 10 ** (-0.1 * (c - 21)) + 0 * distilled, "nats per token"),
        "probability": variable(cell, chance),
        "probability_mcse": variable(cell, 0.02 * np.sqrt(chance * (1 - chance))),
        "probability_best": variable(cell, chance),
        "expected_gain": variable(cell, advantage.mean(axis=(-2, -1)), "nats per token"),
        "expected_gain_mcse": variable(cell, 0 * chance + 1e-4, "nats per token"),
        "regret": variable(cell, 0 * chance + 2e-4, "nats per token"),
        "evpi": variable(cell, 0 * chance + 3e-4, "nats per token"),
        "teacher_params": variable(cell, size[..., 0, 2], "parameters"),
        "teacher_tokens": variable(cell, tokens[..., 0, 2], "tokens"),
        "student_tokens": variable(cell, np.where(impossible, np.nan, own), "tokens"),
        "best_teacher_params": variable(drawn, size, "parameters"),
        "best_teacher_tokens": variable(drawn, tokens, "tokens"),
        "best_student_tokens": variable(drawn, own[..., None, None] * 10 ** (0.05 * z), "tokens"),
        "status": variable(
            cell, np.where(impossible, 3, 0).astype("int8"), flag_values=np.arange(4, dtype="int8"), flag_meanings=STATUS
        ),
        "extrapolates": variable(
            cell, np.broadcast_to((np.abs(reach - 0.3) > 0.8)[..., 0, 0], chance.shape) & ~impossible
        ),
        "extrapolation": variable(cell, np.broadcast_to(10 ** np.abs(reach)[..., 0, 0], chance.shape)),
        "extrapolation_axis": variable(
            cell, np.broadcast_to((np.abs(reach - 0.3) > 0.8)[..., 0, 0], chance.shape).astype("int8"),
            flag_values=np.arange(2, dtype="int8"), flag_meanings="none student_params",
        ),
        "crossover": variable(
            ("student", "scenario", "chain", "draw"), np.where(status == 0, crossover, np.nan), "FLOPs"
        ),
        "crossover_status": variable(
            ("student", "scenario", "chain", "draw"), status, flag_values=np.arange(5, dtype="int8"), flag_meanings=CROSSOVER
        ),
    }  # fmt: skip
    return xr.Dataset(
        variables,
        {
            "student": variable("student", students, "parameters"),
            "scenario": variable("scenario", list(scenarios)),
            "budget": variable("budget", budgets, "FLOPs"),
        },
        {
            **CONVERGED,
            "noise": "expected",
            "max_teacher_params": 1e12,
            "max_teacher_tokens": 2e13,
            "max_student_tokens": np.inf,
        },
    )


def curves() -> xr.Dataset:
    """Curves with a U shape, bands of known width, and runs around them."""
    sizes = np.array([2e8, 2e8, 2e8, 1e9, 1e9, 6e9])
    ratio = np.array([20, 80, 160, 21, 45, 20.0])
    teacher = np.linspace(1.9, 2.7, 41)
    best = 2.3 - 0.25 * np.log10(sizes / 2e8) - 0.05 * np.log2(ratio / 20)

    def law(config, loss):
        return loss + 0.35 * np.exp(-((loss - best[config] + 0.4) * 4)) + 0.5 * np.maximum(best[config] - loss, 0)

    mean = np.stack([law(i, teacher) for i in range(sizes.size)])
    config = np.repeat(np.arange(sizes.size), 9)
    at = np.tile(np.linspace(1.92, 2.68, 9), sizes.size)
    scatter = 0.02 * np.sin(7.0 * np.arange(at.size))
    predicted = np.array([law(i, loss) for i, loss in zip(config, at, strict=True)])
    nats = "nats per token"
    grid = ("configuration", "teacher_loss")
    return xr.Dataset(
        {
            "mean": variable(grid, mean, nats),
            "lower": variable(grid, mean - 0.01, nats),
            "upper": variable(grid, mean + 0.01, nats),
            "run_lower": variable(grid, mean - 0.03, nats),
            "run_upper": variable(grid, mean + 0.03, nats),
            "student_loss": variable("run", predicted + scatter, nats),
            "predicted": variable("run", predicted, nats),
            "residual": variable("run", scatter, nats),
            "configuration_of_run": variable("run", config),
            "run_teacher_loss": variable("run", at, nats),
            "run_experiment": variable("run", np.where(config % 2, "fixed", "isoflop")),
        },
        {
            "teacher_loss": variable("teacher_loss", teacher, nats),
            "configuration_params": variable("configuration", sizes, "parameters"),
            "configuration_tokens": variable("configuration", sizes * ratio, "tokens"),
        },
        {"interval_kind": "equal-tailed", "interval_prob": 0.9, "converged": "yes", "supervised_law": "published law"},
    )


def gap(training_units: str = "1", by_size: bool = False, students=(3e8, 1e9, 3e9), teachers=None) -> xr.Dataset:
    """Student loss with one minimum on the teachers' axis that moves with the student and the draw."""
    students = np.asarray(students, dtype=float)
    training = np.array([20.0, 80.0]) if training_units == "1" else np.array([1e20, 1e21])
    if teachers is None:
        teachers = np.geomspace(1e8, 1e11, 31) if by_size else np.linspace(1.9, 2.7, 31)
    teachers = np.asarray(teachers, dtype=float)
    z = draws()[None, None, None]
    place = (np.log10(teachers) - 9) / 2 if by_size else (2.4 - teachers) / 0.4
    t = place.reshape(1, 1, -1, 1, 1)
    size = np.log10(students / 1e9).reshape(-1, 1, 1, 1, 1)
    long = np.log10(training / training[0]).reshape(1, -1, 1, 1, 1)
    best = 0.4 * size + 0.2 * long + 0.08 * z
    distilled = 2.3 - 0.3 * size - 0.1 * long + 0.1 * (t - best) ** 2 + 0.01 * z
    at = teachers[np.abs(t - best).argmin(axis=2)]
    cell = ("student", "training", "teacher")
    nats = "nats per token"
    variables = {
        "distilled_loss": variable((*cell, "chain", "draw"), distilled, nats),
        "supervised_loss": variable(
            ("student", "training", "chain", "draw"), (2.36 - 0.3 * size - 0.1 * long + 0.01 * z)[:, :, 0], nats
        ),
        "best_teacher": variable(("student", "training", "chain", "draw"), at, "parameters" if by_size else nats),
        "teacher_loss": variable(("teacher", "chain", "draw"), (2.4 - 0.2 * t + 0.01 * z)[0, 0], nats),
        "probability_stronger_worse": variable(cell, (t - best > 0).mean(axis=(-2, -1))),
        "extrapolates": variable(cell, np.broadcast_to(np.abs(place - 0.1) > 0.8, distilled.shape[:3])),
    }
    attrs = {**CONVERGED, "teacher_axis": "params" if by_size else "loss"}
    return xr.Dataset(
        variables,
        {
            "student": variable("student", students, "parameters"),
            "training": variable("training", training, training_units),
            "teacher": variable("teacher", teachers, "parameters" if by_size else nats),
        },
        attrs | ({"teacher_tokens_per_param": 20.0} if by_size else {}),
    )


def gap_of_budgets() -> xr.Dataset:
    """Teachers of three isoFLOPs."""
    parts = []
    for k, budget in enumerate((1e20, 1e21, 1e22)):
        part = gap(by_size=True).isel(training=[0])
        part["distilled_loss"] = part["distilled_loss"] - 0.05 * k
        parts.append(part.assign_coords(teacher_budget=budget))
    result = xr.concat(parts, "teacher_budget", data_vars="all", coords="minimal", compat="override")
    del result.attrs["teacher_tokens_per_param"]
    return result


def crossovers() -> xr.Dataset:
    """Crossover quantiles of all kinds: inside, beyond both ends, none."""
    students, scenarios = np.array([3e8, 1e9, 3e9]), SCENARIOS[:2]
    quantile = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    values = np.array(
        [
            [[1e21, 1e22, 1e23, 1e24, 1e25], [0, 0, 1e20, 1e21, np.inf]],
            [[1e22, 1e23, 1e24, np.inf, np.inf], [0, 0, 0, 0, 1e19]],
            [[np.inf] * 5, [np.nan] * 5],
        ]
    )
    outcome = CROSSOVER.split()
    share = np.array(
        [
            [[1.0, 0, 0, 0, 0], [0.6, 0, 0.3, 0.1, 0]],
            [[0.7, 0.3, 0, 0, 0], [0.1, 0, 0.9, 0, 0]],
            [[0, 1.0, 0, 0, 0], [0, 0, 0, 0, 1.0]],
        ]
    )
    pair = ("student", "scenario")
    return xr.Dataset(
        {
            "crossover_quantile": variable((*pair, "quantile"), values, "FLOPs"),
            "status_probability": variable((*pair, "outcome"), share),
            "seen_budget": variable(("student", "bound"), students[:, None] ** 2 * np.array([120, 1000.0]), "FLOPs"),
            "slope_quantile": variable(("scenario", "quantile"), [[0.8, 1.0, 1.1, 1.2, 1.5], [np.nan] * 5]),
            "slope_probability": variable("scenario", [0.7, 0.0]),
            "slope_positive_probability": variable("scenario", [1.0, np.nan]),
        },
        {
            "student": variable("student", students, "parameters"),
            "scenario": variable("scenario", scenarios),
            "outcome": variable("outcome", outcome),
            "quantile": variable("quantile", quantile),
        },
        {**CONVERGED, "lowest_budget": 1e18, "highest_budget": 1e28},
    )


def break_even() -> xr.Dataset:
    """A break-even number that rises, falls, and becomes infinite."""
    students, budgets = np.array([3e8, 3e9]), np.geomspace(1e19, 1e24, 11)
    numbers, quantile = np.geomspace(1, 1e4, 17), np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    middle = 10 ** (1.5 - 0.3 * (np.log10(budgets / 1e21) - np.log10(students / 1e9)[:, None]) ** 2)
    levels = np.maximum(middle[..., None] * 10 ** (0.5 * (quantile - 0.5)), 1)
    levels[:, -3:, -1] = np.inf
    pays = 1 / (1 + np.exp(-3 * np.log(numbers / middle[..., None])))
    alone, never = np.where(middle <= 1, 0.9, 0.0), np.where(np.isinf(levels[..., -1]), 0.1, 0.0)
    share = np.stack([1 - alone - never, alone, never, 0 * never, 0 * never], axis=-1)
    cell = ("student", "budget")
    outside = np.broadcast_to(((budgets > 1e22) | (budgets < 1e20))[None, :, None], pays.shape)
    return xr.Dataset(
        {
            "pays_probability": variable((*cell, "shared_by"), pays),
            "pays_extrapolates": variable((*cell, "shared_by"), outside),
            "extrapolates": variable(cell, outside[..., 0]),
            "students_per_teacher_quantile": variable((*cell, "quantile"), levels),
            "served_tokens_quantile": variable((*cell, "quantile"), 1e10 * (levels - 1), "tokens"),
            "status_probability": variable((*cell, "outcome"), share),
        },
        {
            "student": variable("student", students, "parameters"),
            "budget": variable("budget", budgets, "FLOPs"),
            "shared_by": variable("shared_by", numbers),
            "quantile": variable("quantile", quantile),
            "outcome": variable("outcome", ["shared", "alone", "never", "beyond", "impossible"]),
        },
        {**CONVERGED, "delta_lgt": 1.0},
    )


def plan_tokens() -> xr.Dataset:
    """A plan over unique tokens."""
    result = plan(budgets=np.geomspace(1e9, 1e13, 9), scenarios=["best case"]).rename(budget="tokens")
    result["tokens"].attrs = {"units": "tokens", "long_name": "unique tokens"}
    return result


def student_choice() -> xr.Dataset:
    """Three students in two scenarios; the largest cannot be paid with the smaller budget."""
    students, budgets = np.array([3e8, 1e9, 3e9]), np.array([1e20, 1e21])
    z = draws()[None, None, None]
    s, c, b = (a.reshape((*shape, 1, 1)) for a, shape in (
        (np.log10(students / 1e9), (-1, 1, 1)), (np.array([0.0, 1.0]), (1, -1, 1)), (np.log10(budgets / 1e20), (1, 1, -1)),
    ))  # fmt: skip
    pretrained = 2.4 - 0.1 * b + 0.2 * (s - 0.3 * b) ** 2 + 0.004 * z
    distilled = pretrained + 0.03 * c - 0.02 + 0.003 * z
    distilled[2, :, 0] = np.nan
    best = np.where(np.isnan(distilled), np.inf, distilled).argmin(axis=0) == np.arange(3)[:, None, None, None, None]
    cell, nats = ("student", "scenario", "budget"), "nats per token"
    chance = best.mean(axis=(-2, -1))
    return xr.Dataset(
        {
            "distilled_loss": variable((*cell, "chain", "draw"), distilled, nats),
            "supervised_loss": variable(("student", "budget", "chain", "draw"), (pretrained + 0 * c)[:, 0], nats),
            "probability_best": variable(cell, chance),
            "distilled_probability_best": variable(cell, chance),
            "extrapolates": variable(cell, np.broadcast_to(students[:, None, None] < 5e8, chance.shape)),
        },
        {
            "student": variable("student", students, "parameters"),
            "scenario": variable("scenario", ["best case", "teacher inference"]),
            "budget": variable("budget", budgets, "FLOPs"),
        },
        {**CONVERGED, "noise": "expected"},
    )


def teacher_choice() -> xr.Dataset:
    """Five teachers, the best in the middle; the strongest cannot be paid with the smaller budget."""
    students, budgets, loss = np.array([3e8, 1e9]), np.array([1e20, 1e21]), np.array([2.5, 1.9, 2.3, 2.0, 2.15])
    z = draws()[None, None, None, None]
    s, b, t = (a.reshape((*shape, 1, 1)) for a, shape in (
        (np.log10(students / 1e9), (-1, 1, 1, 1)), (np.log10(budgets / 1e20), (1, 1, -1, 1)), (loss, (1, 1, 1, -1)),
    ))  # fmt: skip
    distilled = 2.4 - 0.2 * s - 0.1 * b + 0.5 * (t - 2.2 + 0.05 * b) ** 2 + 0.01 * z
    distilled[:, :, 0, 1] = np.nan
    best = np.where(np.isnan(distilled), np.inf, distilled).argmin(axis=3)[:, :, :, None] == np.arange(5)[:, None, None]
    each, nats = ("student", "scenario", "budget", "teacher"), "nats per token"
    return xr.Dataset(
        {
            "distilled_loss": variable((*each, "chain", "draw"), distilled, nats),
            "expected_loss": variable(each, distilled.mean(axis=(-2, -1)), nats),
            "regret": variable(each, 0.001 * np.abs(distilled.mean(axis=(-2, -1)) - 2.3), nats),
            "probability_best": variable(each, best.mean(axis=(-2, -1))),
            "probability_stronger_worse": variable(each, np.where(best.mean(axis=(-2, -1)) > 0.5, 0.9, 0.2)),
            "probability_new_better": variable(each, 0.3 + 0 * distilled.mean(axis=(-2, -1))),
            "probability_pretraining_better": variable(each, 0.1 + 0 * distilled.mean(axis=(-2, -1))),
            "student_tokens": variable(each, np.full(distilled.shape[:4], 2e10), "tokens"),
            "extrapolates": variable(each, np.broadcast_to(loss < 1.95, distilled.shape[:4])),
            "new_distilled_loss": variable(
                ("student", "scenario", "budget", "chain", "draw"),
                (2.42 - 0.2 * s - 0.1 * b + 0.01 * z)[:, :, :, 0],
                nats,
            ),
            "supervised_loss": variable(
                ("student", "budget", "chain", "draw"), (2.46 - 0.2 * s - 0.1 * b + 0.01 * z)[:, 0, :, 0], nats
            ),
            "measured_loss": variable("teacher", loss, nats),
            "teacher_params": variable("teacher", 10 ** (12 - 1.4 * loss), "parameters"),
        },
        {
            "student": variable("student", students, "parameters"),
            "scenario": variable("scenario", ["teacher inference"]),
            "budget": variable("budget", budgets, "FLOPs"),
            "teacher": variable("teacher", ["weak", "huge", "small", "large", "fits"]),
        },
        {**CONVERGED, "new_delta_pre": 0.5},
    )


def plan_value() -> xr.Dataset:
    """Equivalent compute that rises to infinity, and costs that are 0 at first."""
    base = plan(scenarios=SCENARIOS[:2])
    cell = ("student", "scenario", "budget")
    gain = base["expected_gain"].values
    quantile = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    factor = np.exp(30 * gain[..., None]) * 3 ** (2 * quantile - 1)
    factor = np.where((base["budget"].values > 3e23)[:, None] & (quantile > 0.9), np.inf, factor)
    regret = np.clip(0.002 - np.abs(gain), 0, None)
    money = {"nats per token": "", "FLOPs": "_flops", "GPU-hours": "_gpu_hours", "USD": "_money"}
    costs = {
        f"{name}{suffix}": variable(cell, scale * regret * 10.0**i, unit)
        for i, (unit, suffix) in enumerate(money.items())
        for name, scale in (("regret", 1.0), ("evpi", 1.5), ("gain", 2.0))
        if (name, suffix) != ("gain", "")
    }
    return xr.Dataset(
        {
            "compute_factor_quantile": variable((*cell, "quantile"), factor),
            "unreachable_probability": variable(cell, np.isinf(factor).any(axis=-1) * 0.1),
            "expected_gain": base["expected_gain"].variable,
            **costs,
        },
        {**{name: base[name].variable for name in cell}, "quantile": variable("quantile", quantile)},
        {**CONVERGED, "gpu_flops_per_second": 4e14, "price_per_gpu_hour": 2.0, "currency": "USD"},
    )


def target_loss(students=(3e8, 1e9, 3e9), targets=(2.1, 2.2, 2.3, 2.4, 2.5), scenarios=SCENARIOS[:2]) -> xr.Dataset:
    """Compute that falls with the target, infinite for the lowest target of the smallest student."""
    students, targets = np.asarray(students, dtype=float), np.asarray(targets, dtype=float)
    quantile = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    n, s, t = students[:, None, None], np.arange(len(scenarios), dtype=float)[:, None], targets
    alone = 10 ** (25 - 12 * (t - 2.0) - 0.3 * np.log10(n / 1e9)) + 0 * s
    ratio = 0.4 * 4**s * (1 + (t - 2.0)) + 0 * n
    factor = 1.5 ** (2 * quantile - 1)
    distilled = (alone * ratio)[..., None] * factor
    never = (n < 5e8) & (t < 2.15) & (s >= 0)
    distilled = np.where(never[..., None], np.inf, distilled)
    cell = ("student", "scenario", "target")
    return xr.Dataset(
        {
            "distilled_compute_quantile": variable((*cell, "quantile"), distilled, "FLOPs"),
            "pretraining_compute_quantile": variable(
                ("student", "target", "quantile"), (alone[..., None] * factor)[:, 0], "FLOPs"
            ),
            "ratio_quantile": variable(
                (*cell, "quantile"), np.where(never[..., None], np.inf, ratio[..., None] * factor)
            ),
            "probability": variable(cell, np.where(never, 0.0, 1 / (1 + ratio**4))),
            "distilled_impossible": variable(cell, np.where(never, 0.9, 0.0)),
            "pretraining_impossible": variable(("student", "target"), 0.0 * alone[:, 0]),
            "probability_cheapest": variable(cell, np.broadcast_to(n == students.max(), never.shape) * 0.9),
            "cheapest_student": variable(cell[1:], np.full(never.shape[1:], students.max()), "parameters"),
            "planned_compute": variable(cell, distilled[..., 2], "FLOPs"),
            "extrapolates": variable(cell, (t < 2.25) & (n > 0) & (s >= 0)),
        },
        {
            "student": variable("student", students, "parameters"),
            "scenario": variable("scenario", scenarios),
            "target": variable("target", targets, "nats per token"),
            "quantile": variable("quantile", quantile),
        },
        CONVERGED,
    )


def lifetime(served=(0, 1e11, 1e12, 1e13, 1e14), budgets=(1e22, 1e23), scenarios=SCENARIOS[:2]) -> xr.Dataset:
    """Sizes that fall with the tokens served; the smaller budget cannot serve the most tokens."""
    served, budgets = np.asarray(served, dtype=float), np.asarray(budgets, dtype=float)
    quantile = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    k, b, t = np.arange(len(scenarios), dtype=float)[:, None, None], np.log10(budgets / 1e22)[:, None], served / 1e12
    never = (t > 50) & (b < 0.5) & (k >= 0)
    size = np.where(never, np.nan, 5e9 * 10 ** (0.5 * b) / (1 + t * 10**-b) ** 0.7 * (1 + 0.2 * k))
    loss = np.where(never, np.nan, 2 - 0.1 * b + 0.1 * np.log10(1 + t))
    spread, nats = 2 * quantile - 1, "nats per token"
    cell, alone = ("scenario", "budget", "served_tokens"), ("budget", "served_tokens")
    best, around = size[..., None] * np.exp(0.3 * spread), loss[..., None] + 0.02 * spread
    factor = np.broadcast_to(np.maximum(t / 5, 1) + 0 * b + 0 * k, size.shape)
    return xr.Dataset(
        {
            "distilled_params": variable(cell, size, "parameters"),
            "pretraining_params": variable(alone, 0.8 * size[0], "parameters"),
            "distilled_best_params_quantile": variable((*cell, "quantile"), best, "parameters"),
            "pretraining_best_params_quantile": variable((*alone, "quantile"), 0.8 * best[0], "parameters"),
            "distilled_loss_quantile": variable((*cell, "quantile"), around - 0.02 + 0.03 * k[..., None], nats),
            "supervised_loss_quantile": variable((*alone, "quantile"), around[0], nats),
            "advantage_quantile": variable(
                (*cell, "quantile"), 0 * around + 0.02 - 0.03 * k[..., None] + 0.01 * spread, nats
            ),
            "probability": variable(cell, np.where(never, np.nan, 0.9 - 0.7 * k)),
            "extrapolates": variable(cell, factor > 1),
            "extrapolation_factor": variable(("axis", *cell), factor[None]),
            "sentence": variable(cell, np.full(size.shape, "Choose a size.", dtype=object)),
        },
        {
            "scenario": variable("scenario", scenarios),
            "budget": variable("budget", budgets, "FLOPs"),
            "served_tokens": variable("served_tokens", served, "tokens"),
            "quantile": variable("quantile", quantile),
            "axis": ["pretraining_tokens_per_param"],
        },
        {**CONVERGED, "noise": "expected"},
    )


def lifetime_cost() -> xr.Dataset:
    """The same for two target losses."""
    found = lifetime().rename(
        budget="target", distilled_loss_quantile="distilled_cost_quantile", supervised_loss_quantile="pretraining_cost_quantile",
        advantage_quantile="cost_ratio_quantile",
    )  # fmt: skip
    for name in ("distilled_cost_quantile", "pretraining_cost_quantile"):
        found[name] = (1e22 * found[name]).fillna(np.inf).assign_attrs(units="FLOPs")
    return found.assign_coords(target=variable("target", [2.1, 2.2], "nats per token"))


def evppi() -> xr.Dataset:
    """Shares of all levels, and a budget at which nothing is worth anything."""
    budgets, names = np.geomspace(1e22, 1e25, 7), ["E", "alpha", "c0"]
    share = np.stack([np.linspace(0, top, 7) for top in (0.02, 0.3, 0.9)])[:, None, None]
    share = np.where(budgets > 2e22, share, np.nan)
    dims = ("quantity", "student", "scenario", "budget")
    return xr.Dataset(
        {
            "evppi_share": variable(dims, share),
            "evppi": variable(dims, 1e-3 * share, "nats per token"),
            "evppi_mcse": variable(dims, 1e-5 + 0 * share, "nats per token"),
        },
        {
            "quantity": variable("quantity", names),
            "student": variable("student", [1e9], "parameters"),
            "scenario": variable("scenario", ["teacher inference"]),
            "budget": variable("budget", budgets, "FLOPs"),
        },
        CONVERGED,
    )


def update() -> xr.Dataset:
    """What new runs change in five parameters."""
    return xr.Dataset(
        {
            "shift": ("quantity", [0.4, -1.2, 0.05, 0.0, 0.3]),
            "sd_ratio": ("quantity", [0.9, 0.5, 1.0, 1.0, 0.7]),
        },
        {"quantity": ["E", "beta", "gamma", "sigma", "discrepancy_shared"]},
        {"converged": "yes"},
    )


def explanation() -> xr.Dataset:
    """Parts with negative interactions and without the priors, of an answer outside the data."""
    share = np.array([0.55, 0.2, 0.15, 0.08, 0.04, -0.021, np.nan, 0.001])
    error = np.array([0.03, 0.01, 0.01, 0.004, 0.004, 0.02, np.nan, np.nan])
    names = ("gain_share", "probability_share")
    values = {name: variable("part", share) for name in names}
    values |= {f"{name}_mcse": variable("part", error) for name in names}
    values["gain_sd"] = variable("part", 0.01 * np.sqrt(np.maximum(share, 0)), "nats per token")
    values |= {
        name: variable((), value) for name, value in {"gain": 0.004, "gain_total": 1e-4, "probability": 0.66}.items()
    }
    values["extrapolation_factor"] = variable("axis", [1.0, 3.2])
    values["extrapolates"] = variable((), True)
    attrs = CONVERGED | {
        "title": "Where the uncertainty comes from: gain +0.0040 nats",
        "noise": "run",
        "unknown": "The part is unknown.",
    }
    return xr.Dataset(values, {"part": list(PARTS), "axis": ["student_params", "teacher_loss"]}, attrs)


def sharing_map() -> xr.Dataset:
    """Probability that rises with the number of students."""
    found = break_even().rename(pays_probability="probability", shared_by="students_per_teacher")[["probability"]]
    found["probability"] = found["probability"].transpose("student", "students_per_teacher", "budget")
    outside = (found["budget"] > 1e22) | (found["budget"] < 1e20)
    found["extrapolates"] = outside.broadcast_like(found["probability"])
    return found.assign_attrs(delta_lgt=1.0, noise="expected")


def family() -> xr.Dataset:
    """Two students that are distilled and one that is not."""
    students, options = np.array([3e8, 1e9, 3e9]), ["plan", "pretrain all", "distill all"]
    return xr.Dataset(
        {
            "student_budget": variable(
                ("option", "student"), np.array([[2, 3, 4], [3, 3, 4], [2, 2, np.nan]]) * 1e21, "FLOPs"
            ),
            "student_tokens": variable(("option", "student"), np.array([[9, 8, 7], [9, 8, 7], [9, 8, np.nan]]) * 1e10, "tokens"),
            "teacher_budget": variable("option", np.array([1e21, 0.0, np.nan]), "FLOPs"),
            "expected_loss": variable("option", np.array([2.21, 2.24, np.nan]), "nats per token"),
            "feasible": variable("option", [True, True, False]),
            "extrapolates": variable(("option", "student"), [[False, False, True], [False, False, True], [False] * 3]),
            "teacher_extrapolation": variable("option", [2.5, 1.0, np.nan]),
            "decision": variable(
                "student", np.array([1, 1, 0], dtype="int8"), flag_values=np.arange(2, dtype="int8"),
                flag_meanings="pretrain distill",
            ),
            "decision_value": variable("student", [0.01, 0.002, 0.0005], "nats per token"),
            "decision_probability": variable("student", [0.99, 0.8, 0.6]),
            "probability_better": variable("student", [0.98, 0.7, 0.4]),
            "probability": variable((), 0.95),
            "probability_mcse": variable((), 0.01),
        },
        {
            "option": variable("option", options),
            "student": variable("student", students, "parameters"),
            "count": variable("student", [3.0, 2.0, 1.0]),
        },
        {**CONVERGED, "budget": 1e22},
    )  # fmt: skip


def compute_optimal() -> xr.Dataset:
    """Compute-optimal sizes that grow with the square root of the budget, around 20 tokens per parameter."""
    budgets, multiples, levels = (
        np.geomspace(1e19, 1e25, 7),
        2.0 ** np.linspace(-2, 2, 17),
        [0.05, 0.25, 0.5, 0.75, 0.95],
    )
    size, z = np.sqrt(budgets / 120), draws()
    spread = 0.05 * np.abs(np.log10(budgets) - 21) + 0.02
    best = size[:, None, None] * np.exp(spread[:, None, None] * z)
    loss = 1.7 + 0.5 * (budgets[:, None, None] / 1e19) ** -0.15 + 0.02 * spread[:, None, None] * z
    factor = np.stack([np.ones(7), np.ones(7), np.maximum(budgets / 1e22, 1)])
    excess = 0.1 * (budgets[:, None] / 1e19) ** -0.2 * np.log(multiples) ** 2
    drawn = ("budget", "chain", "draw")
    return xr.Dataset(
        {
            "params": variable("budget", size, "parameters"),
            "tokens": variable("budget", 20 * size, "tokens"),
            "tokens_per_parameter": variable("budget", 0 * size + 20),
            "best_params": variable(drawn, best, "parameters"),
            "best_tokens": variable(drawn, budgets[:, None, None] / 6 / best, "tokens"),
            "loss": variable(drawn, loss, "nats per token"),
            "regret": variable("budget", 1e-3 * spread, "nats per token"),
            "regret_mcse": variable("budget", 1e-5 * spread, "nats per token"),
            "excess_quantile": variable(
                ("budget", "multiple", "quantile"), excess[..., None] * np.linspace(0.8, 1.2, 5), "nats per token"
            ),
            "size_exponent": variable(("chain", "draw"), 0.5 + 0.01 * z),
            "extrapolates": variable("budget", factor.max(axis=0) > 1),
            "extrapolation": variable("budget", factor.max(axis=0)),
            "extrapolation_factor": variable(("axis", "budget"), factor),
        },
        {
            "budget": variable("budget", budgets, "FLOPs"),
            "multiple": variable("multiple", multiples),
            "quantile": levels,
            "axis": ["pretraining_params", "pretraining_tokens_per_param", "pretraining_compute"],
        },
        {**CONVERGED, "noise": "expected"},
    )  # fmt: skip


def add_student(*, distilled: bool = True) -> xr.Dataset:
    """Three sizes of one more student, the smallest outside the data."""
    students, levels = np.array([3e8, 1e9, 3e9]), np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    loss = np.array([2.5, 2.3, 2.2])[:, None] + 0.02 * (levels - 0.5)
    nats = "nats per token"
    return xr.Dataset(
        {
            "loss_quantile": variable(("student", "quantile"), loss if distilled else loss * np.nan, nats),
            "supervised_loss_quantile": variable(("student", "quantile"), loss + 0.01, nats),
            "marginal_budget": variable("student", np.array([1.0, 2.0, 4.0]) * 1e21, "FLOPs"),
            "average_budget": variable((), 2.5e21, "FLOPs"),
            "extrapolates": variable("student", [True, False, False]),
        },
        {"student": variable("student", students, "parameters"), "quantile": levels},
        {**CONVERGED, "noise": "expected"},
    )


def next_supervised_runs() -> xr.Dataset:
    """Four candidates, one outside the data and one that cannot be trusted."""
    return xr.Dataset(
        {
            "cost": variable("candidate", np.array([1e19, 1e20, 1e20, 1e22]), "FLOPs"),
            "params": variable("candidate", np.array([1.5e8, 1.5e8, 1e9, 7e9]), "parameters"),
            "sd_reduction": variable("candidate", [0.02, 0.1, 0.0, 0.3]),
            "size_value": variable("candidate", [1e-5, 3e-4, 0.0, 5e-4], "nats per token"),
            "size_value_mcse": variable("candidate", [1e-5, 2e-5, 1e-6, 4e-5], "nats per token"),
            "extrapolation": variable("candidate", [1.0, 1.0, 1.0, 2.5]),
            "status": variable(
                "candidate", np.array([0, 1, 0, 0], dtype="int8"), flag_values=np.arange(2, dtype="int8"),
                flag_meanings="ok few_effective_draws",
            ),
        },
        {"candidate": ["a", "b", "c", "d"], "budget": variable("budget", np.array([1e23, 1e24]), "FLOPs")},
        {**CONVERGED, "noise": "expected"},
    )  # fmt: skip


def next_runs() -> xr.Dataset:
    """Candidate runs of both kinds, one that cannot be trusted, one outside the data, and a batch of two."""
    names = ["a run with quite a long name", "$b$", "c", "d", "e"]
    value = np.array([2.0, 1.5, 1.4, 0.0, 0.3]) * 1e-5
    nats = "nats per token"
    return xr.Dataset(
        {
            "evsi": variable("candidate", value, nats),
            "evsi_mcse": variable("candidate", np.full(5, 2e-6), nats),
            "evsi_per_flop": variable("candidate", value / 1e20, "nats per token per FLOP"),
            "expected_reduction": variable("candidate", value / 5e-4),
            "change_probability": variable("candidate", [0.1, 0.08, 0.08, 0.0, 0.01]),
            "effective_draws": variable("candidate", [500.0, 400, 300, 900, 20]),
            "cost": variable("candidate", np.array([1e19, 1.1e19, 1e21, 3e21, 1e22]), "FLOPs"),
            "kind": variable("candidate", ["distilled", "distilled", "supervised", "supervised", "distilled"]),
            "params": variable("candidate", np.array([1.5e8, 1.5e8, 1e9, 1e9, 7e9]), "parameters"),
            "tokens": variable("candidate", np.array([3e9, 3e9, 2e10, 8e10, 1e11]), "tokens"),
            "teacher_loss": variable("candidate", [2.0, 2.2, np.nan, np.nan, 1.8], nats),
            "status": variable(
                "candidate", np.array([0, 0, 0, 0, 1], dtype="int8"), flag_values=np.arange(2, dtype="int8"),
                flag_meanings="ok few_effective_draws",
            ),
            "rank": variable("candidate", [1, 2, 3, 5, 4]),
            "batch_position": variable("candidate", [1, 2, 0, 0, 0]),
            "extrapolation_factor": variable("candidate", [1.0, 1.0, np.nan, np.nan, 1.4]),
            "batch_candidate": variable("step", names[:2]),
            "batch_evsi": variable("step", [2e-5, 2.8e-5], nats),
            "batch_evsi_mcse": variable("step", [2e-6, 3e-6], nats),
            "batch_cost": variable("step", [1e19, 2.1e19], "FLOPs"),
        },
        {"candidate": variable("candidate", names), "step": variable("step", [1, 2])},
        {**CONVERGED, "mean_evpi": 5e-4},
    )  # fmt: skip


def recommendations() -> xr.Dataset:
    """Two rows of advice."""
    return xr.Dataset(
        {
            "given": variable("row", ["compute", "data"]),
            "case": variable("row", ["teacher already paid for", "teacher | same data"]),
            "student": variable("row", [3e8, 1e9], "parameters"),
            "amount": variable("row", [1e20, 1e10]),
            "advice": variable("row", ["distill", "undetermined"]),
            "probability": variable("row", [0.999, 0.6]),
            "probability_mcse": variable("row", [0.001, 0.02]),
            "expected_gain": variable("row", [0.05, 0.001], "nats per token"),
            "extrapolation": variable("row", [1.0, np.nan]),
        },
        {"row": variable("row", [0, 1])},
        CONVERGED,
    )


def paper_claims() -> xr.Dataset:
    """A claim about all students and one about one."""
    return xr.Dataset(
        {
            "claim": variable("row", ["gap", "crossover"]),
            "statement": variable("row", ["a stronger teacher can be worse", "pretraining overtakes"]),
            "student": variable("row", [np.nan, 1e9], "parameters"),
            "probability": variable("row", [1.0, 0.3]),
            "probability_mcse": variable("row", [0.001, 0.02]),
            "extrapolation": variable("row", [1.0, 50.0]),
            "verdict": variable("row", ["supported", "undetermined"]),
        },
        {"row": variable("row", [0, 1])},
        CONVERGED,
    )


def backtest_runs(forecasters=("posterior", "point")) -> xr.Dataset:
    """Left-out runs at two cutoffs by two forecasters, and an empty group."""
    place = np.linspace(0.02, 0.98, 24)[:, None] ** np.arange(1, 1 + len(forecasters))
    share = np.array([0.7, 0.85, np.nan])[:, None] * np.ones(len(forecasters))
    run, group = ("prediction", "forecaster"), ("group", "forecaster")
    return xr.Dataset(
        {
            "prediction_factor": variable("prediction", np.geomspace(1.1, 40, 24)),
            "prediction_scored": variable("prediction", np.ones(24, dtype=bool)),
            "pit": variable(run, place),
            "coverage_50": variable(group, share - 0.3),
            "coverage_90": variable(group, share),
            "coverage_90_lower": variable(group, share - 0.1),
            "coverage_90_upper": variable(group, share + 0.05),
            "predictions": variable("group", [24, 10, 0]),
            "cutoff_fit": variable("fit", [1e18, 1e19], "FLOPs"),
            "failed": variable("fit", ["", ""]),
        },
        {
            "forecaster": variable("forecaster", list(forecasters)),
            "group": variable("group", ["all", "1 to 3 times the cut-off", "over 30 times the cut-off"]),
        },
    )


def backtest(forecasters=("posterior", "point")) -> xr.Dataset:
    """Forecasts of pairs in two scenarios by two forecasters, and a curve of probabilities with an empty bin."""
    observed = np.linspace(-0.02, 0.03, 24)
    expected = observed[:, None] + 0.004 * np.sin(np.arange(24))[:, None] * np.arange(1, 1 + len(forecasters))
    chance = 1 / (1 + np.exp(-200 * expected))
    stated = np.array([0.05, 0.3, np.nan, 0.7, 0.96])[:, None, None] * np.ones((1, len(forecasters), 3))
    share = np.clip(stated + 0.05 * np.arange(-1, 2)[None, None], 0, 1)
    pair, curve, nats = ("forecast", "forecaster"), ("bin", "forecaster", "noise"), "nats per token"
    return xr.Dataset(
        {
            "difference": variable("forecast", observed, nats),
            "scenario": variable("forecast", np.where(np.arange(24) % 3, SCENARIOS[1], SCENARIOS[0])),
            "probability": variable(
                (*pair, "noise"), np.stack([0.5 + s * (chance - 0.5) for s in (1, 0.95, 0.9)], axis=-1)
            ),
            "mean_difference": variable(pair, expected, nats),
            "lower_difference": variable(pair, expected - 0.01, nats),
            "upper_difference": variable(pair, expected + 0.01, nats),
            "curve_mean_probability": variable(curve, stated),
            "curve_share": variable(curve, share),
            "curve_lower": variable(curve, np.clip(share - 0.1, 0, 1)),
            "curve_upper": variable(curve, np.clip(share + 0.1, 0, 1)),
            "cutoff_fit": variable("fit", [1e18, 1e19], "FLOPs"),
            "failed": variable("fit", ["", ""]),
        },
        {
            "forecaster": variable("forecaster", list(forecasters)),
            "noise": variable("noise", ["law", "expected", "run"]),
        },
        {"interval_prob": 0.9},
    )
