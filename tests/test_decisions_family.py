from __future__ import annotations

import itertools

import law_names as laws
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import posterior_of, published, scattered, simple, simple_teacher
from scipy.optimize import minimize

from bayesdistill.compute import Scenario, flops_per_token
from bayesdistill.decisions import family_plan, flag_names, plan
from bayesdistill.errors import ParameterError

SIX = laws.SUPERVISED_PARAMETERS


def closed_split(sizes, factors, weights, counts, budget):
    """Tokens that minimise sum w b D^-0.35 for costs n 3F D."""
    cost = counts * 3 * flops_per_token(sizes)
    raw = (weights * factors / cost) ** (1 / 1.35)
    return raw * budget / (cost * raw).sum()


def test_split_with_a_free_teacher_is_the_closed_form():
    # Without capacity gap and with a free teacher: which students gain depends on their size alone, and the split is a power law.
    sizes, counts, weights = np.array([1e8, 1e9, 3e10]), np.array([3.0, 1.0, 2.0]), np.array([1.0, 2.0, 5.0])
    draws = simple(4, B_S=[400.0, 500.0, 600.0, 700.0], A_S=[459.0, 461.0, 460.0, 460.0])
    draws["alpha_S"] = np.full(4, 0.32)  # students gain the more the larger they are
    found = family_plan(posterior_of(draws), sizes, 1e21, counts=[3, 1, 2], weights=[1, 2, 5], delta_lgt=0, delta_pre=0)
    weights = weights / weights.sum()
    teacher = simple_teacher()
    best = np.inf
    for z in itertools.product([False, True], repeat=3):
        b = np.where(z, 550.0, 1000.0)
        floor = np.where(z, teacher + 460 * sizes**-0.32, 1.5 + 300 * sizes**-0.3)
        tokens = closed_split(sizes, b, weights, counts, 1e21)
        value = (weights * (floor + b * tokens**-0.35)).sum()
        if value < best:
            best, best_z, best_tokens = value, z, tokens
    assert found["decision"].values.astype(bool).tolist() == list(best_z)
    assert 0 < sum(best_z) < 3
    np.testing.assert_allclose(found["student_tokens"].sel(option="plan"), best_tokens, rtol=2e-3)
    assert found["expected_loss"].sel(option="plan").item() == pytest.approx(best, abs=1e-6)
    all_alone = closed_split(sizes, np.full(3, 1000.0), weights, counts, 1e21)
    np.testing.assert_allclose(found["student_tokens"].sel(option="pretrain all"), all_alone, rtol=2e-3)


@pytest.fixture(scope="module")
def draws() -> dict[str, np.ndarray]:
    return scattered(5, seed=3)


@pytest.fixture(scope="module")
def found(draws) -> xr.Dataset:
    return family_plan(posterior_of(draws), [3e8, 3e9], 3e20, weights=[1, 1])


def family_loss(draws, z, logs, budget, sizes=(3e8, 3e9)):
    """Mean family loss from log teacher size, log teacher tokens, and the logit of the first student's share."""
    params, tokens = np.exp(logs[0]), np.exp(logs[1])
    flops = flops_per_token(params)
    left = budget - (3 * flops * tokens if any(z) else 0)
    if left <= 0:
        return 10.0
    share = 1 / (1 + np.exp(-logs[2]))
    teacher = laws.supervised_loss(params, tokens, **{k: draws[k] for k in SIX})
    total = 0.0
    for student, own, part in zip(sizes, z, (share, 1 - share), strict=True):
        seen = part * left / (3 * flops_per_token(student) + (flops if own else 0))
        if own:
            total += laws.distilled_loss(student, seen, teacher, **draws).mean() / 2
        else:
            total += laws.supervised_loss(student, seen, **{k: draws[k] for k in SIX}).mean() / 2
    return total


def test_a_family_agrees_with_a_search_by_simplices(draws, found):
    values = {}
    for z in itertools.product([False, True], repeat=2):
        starts = itertools.product([np.log(1e8), np.log(1e9)], [np.log(3e9), np.log(5e10)], [-1.0])
        runs = [
            minimize(lambda x, z=z: family_loss(draws, z, x, 3e20), s, method="Nelder-Mead",
                     options={"xatol": 1e-7, "fatol": 1e-11, "maxiter": 4000, "maxfev": 4000})
            for s in starts
        ]  # fmt: skip
        values[z] = min(run.fun for run in runs)
    best = min(values, key=values.get)
    assert found["decision"].values.astype(bool).tolist() == list(best)
    expected = found["expected_loss"]
    assert expected.sel(option="plan").item() == pytest.approx(values[best], abs=2e-5)
    assert expected.sel(option="pretrain all").item() == pytest.approx(values[False, False], abs=1e-6)
    assert expected.sel(option="distill all").item() == pytest.approx(values[True, True], abs=2e-5)
    for i in range(2):
        turned = tuple(not b if k == i else b for k, b in enumerate(best))
        assert found["decision_value"].values[i] == pytest.approx(values[turned] - values[best], abs=4e-5)


def test_every_option_spends_the_budget_and_its_losses_are_the_law(draws, found):
    for option in found["option"].values:
        one = found.sel(option=option)
        assert one["feasible"].item()
        spent = one["student_budget"].sum().item() + one["teacher_budget"].item()
        assert spent == pytest.approx(3e20, rel=1e-9)
        shares = [one["student_share"].sum(), one["teacher_inference_share"].sum(), one["teacher_training_share"]]
        assert sum(share.item() for share in shares) == pytest.approx(1, rel=1e-9)
        assert shares[2].item() == pytest.approx(one["teacher_budget"].item() / 3e20)
        assert (shares[1].item() > 0) == (one["teacher_budget"].item() > 0)
        distilled = {"pretrain all": [0, 0], "distill all": [1, 1]}.get(str(option), found["decision"].values)
        teacher = laws.supervised_loss(
            one["teacher_params"].item(), one["teacher_tokens"].item(), **{k: draws[k] for k in SIX}
        )
        for i, student in enumerate((3e8, 3e9)):
            tokens = one["student_tokens"].values[i]
            if distilled[i]:
                expected = laws.distilled_loss(student, tokens, teacher, **draws)
            else:
                expected = laws.supervised_loss(student, tokens, **{k: draws[k] for k in SIX})
            np.testing.assert_allclose(one["loss"].values[i, 0], expected, atol=1e-12)
        np.testing.assert_allclose(one["family_loss"].values[0], one["loss"].values[:, 0].mean(axis=0), atol=1e-12)
    assert found["expected_loss"].sel(option="plan") <= found["expected_loss"].min() + 1e-12
    assert (found["decision_value"] >= -1e-6).all()


def test_probabilities_count_the_draws_of_the_options():
    free = {"teachers": pd.DataFrame({"params": [1e9], "loss": [1.6]}), "delta_lgt": 0, "delta_pre": 0}
    # Three of five draws lose by a free teacher, and then three gain by it.
    for B_S in ([10.0, 20.0, 4000.0, 4500.0, 5000.0], [100.0, 200.0, 300.0, 1100.0, 1200.0]):
        draws = simple(5, B_S=B_S, A_S=300.0)
        found = family_plan(posterior_of(draws), [3e8, 3e9], 1e20, **free)
        total, each = found["family_loss"].isel(chain=0), found["loss"].isel(chain=0)
        alone = {"option": "pretrain all"}
        assert found["probability"].item() == (total.sel(option="plan") < total.sel(alone)).mean().item()
        better = (each.sel(option="plan") < each.sel(alone)).mean("draw")
        np.testing.assert_array_equal(found["probability_better"], better)
        # With one student the decision turned round is the other of the two options.
        one = family_plan(posterior_of(draws), 1e9, 1e20, **free)
        distill = bool(one["decision"].item())
        other = one["family_loss"].sel(option="pretrain all" if distill else "distill all")
        ahead = (one["family_loss"].sel(option="plan") < other).mean().item()
        assert one["decision_probability"].item() == ahead == 0.6


@pytest.mark.parametrize("level", ["law", "run"])
def test_a_family_of_one_equals_the_plan(jittered_draws, level):
    teacher = pd.DataFrame({"params": [3e9], "loss": [2.05]})
    ask = {"teachers": teacher, "noise": level, "seed": 3, "progress": False}
    for lgt, student, distill in ((0.0, 1e9, True), (1.0, 3e8, False)):
        family = family_plan(jittered_draws, student, 1e21, delta_lgt=lgt, **ask)
        planned = plan(jittered_draws, student, 1e21, Scenario(lgt, 0), draws=4, **ask).squeeze()
        taught, alone = family.sel(option="distill all").squeeze(), family.sel(option="pretrain all").squeeze()
        assert bool(family["decision"].item()) == (planned["expected_gain"].item() > 0) == distill
        for one, mine, name in ((taught, "loss", "distilled_loss"), (alone, "loss", "supervised_loss")):
            np.testing.assert_allclose(one[mine], planned[name], atol=1e-9)
            np.testing.assert_allclose(one[f"{mine}_quantile"], planned[f"{name}_quantile"], atol=1e-9)
        np.testing.assert_allclose(taught["student_tokens"], planned["student_tokens"])
        np.testing.assert_allclose(family["pretraining_tokens"].item(), planned["pretraining_tokens"])
        np.testing.assert_allclose(taught["student_share"], planned["student_share"])
        np.testing.assert_allclose(taught["teacher_inference_share"], planned["teacher_inference_share"], atol=1e-12)
        # The probability that the decision is right is that of the plan, on its side.
        chance = planned["probability"].item()
        assert family["decision_probability"].item() == pytest.approx(chance if distill else 1 - chance)
        assert family.attrs["noise"] == level


def test_without_weights_every_student_counts_the_same():
    found = family_plan(posterior_of(published()), [3e8, 3e9], 3e20, counts=[3, 1], delta_lgt=0, delta_pre=0)
    assert found["weight"].values.tolist() == [0.75, 0.25]
    # All students together spend the budget, not one of each size.
    flops = 3 * flops_per_token(found["student"].values) * found["student_tokens"].sel(option="plan").values
    assert flops @ [3, 1] == pytest.approx(3e20, rel=1e-9)


def test_existing_teachers_are_chosen_from(draws):
    table = pd.DataFrame({"name": ["a", "b", "c"], "params": [1e9, 3e9, 7e10], "loss": [2.4, 2.15, 1.95]})
    found = family_plan(posterior_of(draws), [3e8, 1e9], 1e20, teachers=table)
    assert found.attrs["delta_pre"] == 0  # by default, their training is not charged
    values = {}
    for _, row in table.iterrows():

        def loss(x, row=row):
            share = 1 / (1 + np.exp(-x[0]))
            total = 0.0
            for student, part in ((3e8, share), (1e9, 1 - share)):
                seen = part * 1e20 / (3 * flops_per_token(student) + flops_per_token(row["params"]))
                total += laws.distilled_loss(student, seen, row["loss"], **draws).mean() / 2
            return total

        values[row["name"]] = minimize(loss, [-1.0], method="Nelder-Mead", options={"fatol": 1e-12}).fun
    assert found["expected_loss"].sel(option="distill all").item() == pytest.approx(min(values.values()), abs=1e-7)
    names = found["teacher"].values[found["teacher_index"].values]
    assert names[2] == min(values, key=values.get)
    assert found["teacher_index"].values[1] == -1


def test_a_cap_on_tokens_is_kept(draws):
    found = family_plan(posterior_of(draws), [3e8, 3e9], 1e24, max_student_tokens=1e10, delta_lgt=0, delta_pre=0)
    np.testing.assert_allclose(found["student_tokens"], 1e10)
    assert (found["student_budget"].sum("student") < 1e24).all()


def test_a_budget_too_small_is_said():
    found = family_plan(posterior_of(published()), [3e8, 3e9], 1e12)
    assert not found["feasible"].any()
    assert np.isnan(found["expected_loss"]).all()
    assert np.isnan(found["probability"])


def test_labels_and_files(found, tmp_path):
    for name, variable in found.variables.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name
    assert set(flag_names(found["decision"]).values) <= {"distill", "pretrain"}
    found.to_netcdf(tmp_path / "family.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "family.nc", engine="h5netcdf") as loaded:
        assert loaded.load().identical(found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"students": np.geomspace(1e8, 1e10, 11)}, "at most 10"),
        ({"counts": [1]}, "counts.*one value for each"),
        ({"counts": [1.5, 2]}, "`counts` must be an integer from 1 to .* students, got 1.5"),
        ({"counts": 3}, "counts.*one value for each"),
        ({"weights": [1, -1]}, "-1 in `weights`"),
        ({"weights": [1, -1]}, "weights"),
        ({"budget": 0}, "budget"),
        ({"delta_lgt": 2}, "delta_lgt"),
        ({"teachers": pd.DataFrame({"params": [1e9], "loss": [2.0]}), "delta_pre": 1}, "tokens"),
    ],
)
def test_unusable_arguments_are_named(changes, message):
    with pytest.raises(ParameterError, match=message):
        family_plan(posterior_of(published()), **({"students": [3e8, 3e9], "budget": 1e20} | changes))


def test_what_lies_outside_the_runs_is_flagged():
    seen = xr.Dataset(
        {
            "student_params": ("run", [1e8, 1e10]),
            "student_tokens": ("run", [2e9, 1e12]),
            "teacher_loss": ("run", [1.9, 2.8]),
        }
    )
    fit = xr.DataTree.from_dict({"posterior": posterior_of(published(4), 2), "constant_data": seen})
    found = family_plan(fit, [3e8, 3e9], 3e20, delta_pre=0, delta_lgt=0)
    plan = found.sel(option="plan")
    loss = laws.supervised_loss(
        plan["teacher_params"].item(),
        plan["teacher_tokens"].item(),
        **{k: laws.PUBLISHED[k] for k in laws.SUPERVISED_PARAMETERS},
    )
    for size in (3e8, 3e9):
        ratio = plan["student_tokens"].sel(student=size).item() / size
        wanted = max(1.0, ratio / 100, 20 / ratio, loss / 2.8, 1.9 / loss, plan["teacher_extrapolation"].item())
        assert plan["extrapolation"].sel(student=size).item() == pytest.approx(wanted, rel=1e-6)
        assert plan["extrapolates"].sel(student=size).item() == (wanted > 1)
        alone = found.sel(option="pretrain all", student=size)
        ratio = alone["student_tokens"].item() / size
        assert alone["extrapolation"].item() == pytest.approx(max(1.0, ratio / 160, 10 / ratio), rel=1e-6)
    ratio = (plan["teacher_tokens"] / plan["teacher_params"]).item()
    size = plan["teacher_params"].item()
    wanted = max(1.0, size / 12.6e9, 143e6 / size, ratio / 160, 10 / ratio)
    assert plan["teacher_extrapolation"].item() == pytest.approx(wanted, rel=1e-6)
    assert found["teacher_extrapolation"].sel(option="pretrain all").item() == 1
