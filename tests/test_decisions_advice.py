from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import best_of, posterior_of, scattered, simple

from bayesdistill.compute import Scenario, flops_per_token
from bayesdistill.decisions import break_even, crossovers, flag_names, paper_claims, plan, plan_tokens, recommendations
from bayesdistill.decisions._recommendations import Rule
from bayesdistill.errors import ConvergenceWarning, ParameterError
from bayesdistill.posterior import probability

SEEN = xr.Dataset(
    {
        "student_params": ("run", [1e8, 1e10]),
        "student_tokens": ("run", [2e9, 1.6e12]),
        "teacher_loss": ("run", [1.55, 2.9]),
    }
)


def tree_of(draws: dict, chains: int = 4) -> xr.DataTree:
    return xr.DataTree.from_dict({"posterior": posterior_of(draws, chains), "constant_data": SEEN})


def certain(**changes: float) -> dict[str, np.ndarray]:
    """400 draws that agree."""
    return simple(400, **changes)


def with_free_teacher(table: xr.Dataset) -> pd.DataFrame:
    """Rows in which the teacher costs nothing, where the simple law is known in closed form."""
    frame = table.to_dataframe()
    return frame[frame.case.isin(["teacher and logits already paid for", "teacher with other data"])]


TABLE = pd.DataFrame({"name": ["a", "b"], "params": [2e9, 5e10], "loss": [2.3, 1.95]})


@pytest.fixture(scope="module")
def fit() -> xr.Dataset:
    return posterior_of(scattered(40, seed=9), chains=2)


@pytest.fixture(scope="module")
def table(fit) -> xr.Dataset:
    return recommendations(fit, ["300M", "3B"], budgets=[1e20, 1e22], tokens=[1e10], teachers=TABLE, threshold=0.8)


def test_every_row_repeats_the_plan(fit, table):
    frame = table.to_dataframe()
    assert len(frame) == 2 * (4 * 2 + 2 + 2)
    scenarios = {
        "teacher and logits already paid for": "best case",
        "teacher exists, logits to be computed": "teacher inference",
        "teacher to be trained, logits stored": "teacher pretraining",
        "teacher to be trained and run for this student alone": "teacher pretraining + inference",
    }
    made = plan(fit, [3e8, 3e9], [1e20, 1e22])
    seen = 0
    for _, row in frame[frame.given == "compute"].iterrows():
        cell = made.sel(student=row.student, budget=row.amount, scenario=scenarios[row.case])
        for name in ("probability", "probability_mcse", "expected_gain", "teacher_params", "student_tokens"):
            assert row[name] == cell[name].item()
        for name in ("pretraining_tokens", "student_share", "teacher_inference_share", "teacher_training_share"):
            assert row[name] == cell[name].item()
        for name in ("distilled_loss", "supervised_loss"):
            ends = [row[f"{name}_{end}"] for end in ("lower", "median", "upper")]
            assert ends == cell[f"{name}_quantile"].sel(quantile=[0.05, 0.5, 0.95]).values.tolist()
        seen += 1
    assert seen == 16
    listed = plan(fit, [3e8, 3e9], [1e20, 1e22], "teacher inference", teachers=TABLE)
    for _, row in frame[frame.given == "compute and teacher"].iterrows():
        assert row.probability == listed["probability"].sel(student=row.student, budget=row.amount).item()
    same = plan_tokens(fit, [3e8, 3e9], 1e10, max_teacher_tokens="same")
    for _, row in frame[frame.case == "teacher on the same data"].iterrows():
        assert row.probability == same["probability"].sel(student=row.student).item()


def test_advice_follows_the_rule(table):
    frame = table.to_dataframe()
    for _, row in frame.iterrows():
        if row.probability - 2 * row.probability_mcse >= 0.8:
            assert row.advice in ("distill", "no difference")
        elif 1 - row.probability - 2 * row.probability_mcse >= 0.8:
            assert row.advice in ("pretrain", "no difference")
        else:
            assert row.advice in ("undetermined", "no difference")
        words = {"undetermined": "do not determine"}
        assert words.get(row.advice, row.advice.split()[0]) in row.sentence
    assert {"distill", "pretrain"} <= set(frame.advice)


def test_agreement_of_all_draws_is_said_with_certainty():
    budgets, tokens = 1e21, [1e11]
    for draws, advice in ((certain(A_S=100.0, B_S=100.0), "distill"), (certain(A_S=600.0, B_S=1500.0), "pretrain")):
        found = recommendations(tree_of(draws), "1B", budgets=budgets, tokens=tokens)
        assert with_free_teacher(found).advice.tolist() == [advice] * 2
        assert (
            found["sentence"].values[0].startswith("With 1e+21 FLOPs, teacher and logits already paid for: " + advice)
        )
        assert found.attrs["converged"] == "yes"


def test_what_lies_far_outside_the_runs_cannot_be_told():
    far = recommendations(tree_of(certain(A_S=100.0, B_S=100.0)), "1B", budgets=[1e21, 1e25], tokens=[1e11, 1e14])
    frame = with_free_teacher(far)
    beyond = frame[(frame.amount == 1e25) | (frame.amount == 1e14)]
    assert (beyond.advice == "undetermined").all()
    assert beyond.sentence.str.contains("outside the range of the data by a factor of").all()
    assert (frame.drop(beyond.index).advice == "distill").all()
    bold = recommendations(
        tree_of(certain(A_S=100.0, B_S=100.0)), "1B", budgets=1e25, tokens=1e14, max_extrapolation=np.inf
    )
    assert with_free_teacher(bold).advice.tolist() == ["distill"] * 2


def beyond_supervised(params: float, tokens: float) -> float:
    """Times beyond 143M to 12.6B parameters and 10 to 160 tokens a parameter, by hand."""
    ratio = tokens / params
    return max(1.0, params / 12.6e9, 143e6 / params, ratio / 160, 10 / ratio)


@pytest.fixture(scope="module")
def reached() -> xr.Dataset:
    """Advice of draws around the published law, with known ranges of the runs."""
    fit = xr.DataTree.from_dict({"posterior": posterior_of(scattered(40, seed=9), 4), "constant_data": SEEN})
    # The draws are no chains, so that their convergence means nothing here.
    with pytest.warns(ConvergenceWarning):
        return recommendations(fit, "1B", budgets=[1e21], tokens=[1e10], allow_unconverged=True)


def test_teachers_outside_the_supervised_runs_are_named(reached):
    frame = reached.to_dataframe()
    assert frame.restricted.any()
    assert not frame.restricted.all()
    for _, row in frame.iterrows():
        wanted = beyond_supervised(row.teacher_params, row.teacher_tokens)
        assert row.teacher_extrapolation == pytest.approx(wanted, rel=1e-9)
        assert row.extrapolates == (wanted > 1 or row.extrapolation > 1)
        assert ("outside the range of the data of the supervised law" in row.sentence) == (wanted > 1)
        if row.advice in ("distill", "pretrain"):
            assert wanted <= 10


def test_a_nearer_teacher_is_the_best_one_within_the_limits(reached):
    """10B tokens for all: the best teacher has a trillion parameters; within ten times the data it has as many as tokens."""
    frame = reached.to_dataframe()
    row = frame[frame.case == "teacher on the same data"].iloc[0]
    assert row.restricted
    assert row.teacher_params <= 10 * 1e10 / 10 * (1 + 1e-9)
    near = plan_tokens(
        posterior_of(scattered(40, seed=9), 4), 1e9, 1e10, max_teacher_params=1e10, max_teacher_tokens="same"
    )
    far = plan_tokens(posterior_of(scattered(40, seed=9), 4), 1e9, 1e10, max_teacher_tokens="same")
    assert row.probability == near["probability"].item()
    assert row.expected_gain == near["expected_gain"].item() < far["expected_gain"].item()
    assert beyond_supervised(far["teacher_params"].item(), 1e10) > 10


def test_teachers_far_outside_the_data_are_used_only_on_request():
    """Only the farthest teachers make distilling pay: those within ten times the data lose."""
    # The student follows its teacher closely, and loses to pretraining by what a teacher within ten times the data lacks.
    draws = tree_of(certain(A_S=300.0, B_S=1000.0 * 0.9))
    asked = {"budgets": 1e21, "tokens": 1e11, "max_teacher_params": 1e15, "max_teacher_tokens": 1e18}
    near, far = (
        recommendations(draws, "1B", **asked, max_extrapolation=most).to_dataframe().iloc[0] for most in (10, None)
    )
    assert near.case == far.case == "teacher and logits already paid for"
    assert (near.advice, near.teacher_extrapolation, near.restricted) == ("pretrain", pytest.approx(10), True)
    assert (far.advice, far.probability, far.restricted) == ("distill", 1, False)
    assert far.teacher_extrapolation > 1000
    for row in (near, far):
        assert "outside the range of the data of the supervised law" in row.sentence


def test_unknown_ranges_are_called_unknown(table):
    frame = table.to_dataframe()
    assert frame.sentence[frame.advice != "impossible"].str.contains("extrapolation unknown").all()
    assert frame.extrapolates[frame.advice != "impossible"].all()


def test_half_of_the_draws_against_the_other_cannot_tell():
    draws = simple(400, A_S=np.tile([100.0, 600.0], 200), B_S=np.tile([100.0, 1500.0], 200))
    found = recommendations(posterior_of(draws, 4), "1B", budgets=1e21, tokens=1e11)
    assert with_free_teacher(found).advice.tolist() == ["undetermined"] * 2
    assert found["probability"].values[0] == 0.5


def test_equal_losses_make_no_difference_and_small_budgets_are_impossible():
    found = recommendations(posterior_of(certain(A_S=250.0)), "1B", budgets=[1e7, 1e21], tokens=1e11, indifference=5.0)
    frame = found.to_dataframe()
    assert (frame[frame.amount == 1e7].advice == "impossible").all()
    assert (frame[frame.amount != 1e7].advice == "no difference").all()


def test_an_empty_list_omits_its_rows():
    draws = posterior_of(certain())
    budgets = recommendations(draws, "1B", budgets=1e21, tokens=[])
    assert set(budgets["given"].values) == {"compute"}
    assert set(recommendations(draws, "1B", budgets=(), tokens=1e10)["given"].values) == {"data"}
    with pytest.raises(ParameterError, match="`budgets` and `tokens` are both empty"):
        recommendations(draws, "1B", budgets=[], tokens=[])


def test_indifference_is_between_pretraining_and_the_committed_strategy(fit):
    cell = plan(fit, 3e9, 1e24, "teacher pretraining", draws=10_000).isel(student=0, scenario=0, budget=0)
    gain = np.abs(cell["supervised_loss"] - cell["distilled_loss"])
    best = np.abs(cell["supervised_loss"] - best_of(cell))
    rule = Rule(0.6, 0.0, np.inf)

    def sure(values: xr.DataArray, width: float) -> bool:
        share, error = probability(values < width)
        return rule.sure(share.item(), error.item())

    # A width within which the chosen strategy is as good as pretraining, and that with perfect information is not.
    widths = [w for w in gain.values.ravel() * 1.0001 if sure(gain, w) != sure(best, w)]
    assert widths
    for width in widths[:2]:
        found = recommendations(fit, 3e9, budgets=1e24, tokens=1e10, threshold=0.6, indifference=width)
        row = found.to_dataframe().query("case == 'teacher to be trained, logits stored'").iloc[0]
        assert (row.advice == "no difference") == sure(gain, width)


def test_the_rule_needs_two_standard_errors_to_spare():
    rule = Rule(0.9, 0.0, 10.0)
    assert rule.sure(0.95, 0.02)
    assert not rule.sure(0.95, 0.03)
    assert rule.too_far(11.0)
    assert not rule.too_far(np.nan)
    assert not rule.too_far(10.0)


# Claims ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def claims(fit) -> xr.Dataset:
    return paper_claims(fit, ["300M", "3B"])


def test_claims_repeat_what_the_other_functions_say(fit, claims):
    frame = claims.to_dataframe().set_index(["claim", "student"])
    for size in (3e8, 3e9):
        budget = 60 * flops_per_token(size) * size
        free = plan(fit, size, budget, "best case")
        alone = plan(fit, size, budget, "teacher pretraining + inference")
        assert frame.loc[("distil_if_free", size), "probability"] == free["probability"].item()
        assert frame.loc[("pretrain_if_alone", size), "probability"] == 1 - alone["probability"].item()
        never = (flag_names(break_even(fit, size, budget)["break_even_status"]) == "never").mean().item()
        assert frame.loc[("sharing_pays", size), "probability"] == pytest.approx(1 - never)
    crossing = crossovers(fit, [3e8, 3e9], "best case")
    ahead = crossing["pretraining_ahead_probability"].values.ravel()
    assert frame.loc["pretraining_overtakes", "probability"].tolist() == ahead.tolist()
    grows = claims["probability"].values[claims["claim"].values == "crossover_grows"].item()
    np.testing.assert_equal(grows, crossing["slope_positive_probability"].item())


def test_sharing_pays_even_if_more_must_share_than_are_looked_for():
    # Without capacity gap A_S shifts the advantage of every strategy alike: it is put between a free teacher's and that of a
    # teacher shared by the most students that break_even tries.
    student, other = 1e9, 3e8
    budget = 60 * flops_per_token(student) * student
    draws = simple(4)
    made = plan(posterior_of(draws), student, budget, [Scenario(1, 0, "free"), Scenario(1, 1e-6, "shared")])
    lead = (made["supervised_loss"] - best_of(made)).isel(student=0, budget=0, chain=0, draw=0)
    assert lead.sel(scenario="free") > lead.sel(scenario="shared") + 1e-7
    draws["A_S"] = draws["A_S"] + lead.mean("scenario").item() * student**0.3
    fit = posterior_of(draws)
    status = break_even(fit, student, budget)["break_even_status"]
    assert set(flag_names(status).values.ravel()) == {"beyond"}
    frame = paper_claims(fit, [student, other]).to_dataframe().set_index(["claim", "student"])
    assert frame.loc[("sharing_pays", student), "probability"] == 1


def test_the_capacity_gap_is_claimed_only_where_there_is_one(claims):
    gap = claims["probability"].values[claims["claim"].values == "capacity_gap"]
    assert gap.tolist() == [1.0, 1.0]
    none = paper_claims(tree_of(certain()), ["300M", "3B"])
    flat = none["claim"].values == "capacity_gap"
    assert none["probability"].values[flat].tolist() == [0.0, 0.0]
    assert none["verdict"].values[flat].tolist() == ["contradicted"] * 2


def test_a_claim_far_outside_the_runs_stays_open():
    # The simple law's crossover lies at more than 1e4 tokens a parameter: certain in the law, far beyond any run.
    draws, teachers = tree_of(certain(A_S=225.0, B_S=500.0)), {"max_teacher_params": 126e9}
    found = paper_claims(draws, ["900M", "1B"], **teachers).to_dataframe().set_index("claim")
    overtakes = found.loc["pretraining_overtakes"]
    assert (overtakes.probability == 1).all()
    assert (overtakes.extrapolation > 10).all()
    assert (overtakes.verdict == "undetermined").all()
    near = paper_claims(draws, ["900M", "1B"], max_extrapolation=np.inf, **teachers).to_dataframe().set_index("claim")
    assert (near.loc["pretraining_overtakes"].verdict == "supported").all()


def test_labels_and_files(table, claims, tmp_path):
    for number, dataset in enumerate((table, claims)):
        for name, variable in dataset.variables.items():
            assert variable.attrs["units"], name
            assert variable.attrs["long_name"], name
        dataset.to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")
        with xr.open_dataset(tmp_path / f"{number}.nc", engine="h5netcdf") as loaded:
            assert loaded.load().equals(dataset)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (recommendations, {"threshold": 0.5}, "threshold"),
        (recommendations, {"threshold": np.nan}, "threshold"),
        (recommendations, {"indifference": -1}, "indifference"),
        (recommendations, {"max_extrapolation": 0.5}, "max_extrapolation"),
        (recommendations, {"noise": "loud"}, "noise"),
        (paper_claims, {}, "at least two sizes"),
    ],
)
def test_unusable_arguments_are_named(fit, function, arguments, message):
    with pytest.raises(ParameterError, match=message):
        function(fit, 1e9, **arguments)
