from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from law_names import (
    ASYMPTOTIC_TEACHERS,
    EXTENSION_PARAMETERS,
    LAW_PARAMETERS,
    SUPERVISED_PARAMETERS,
    distilled_loss,
    supervised_loss,
)

import bayesdistill as bd
from bayesdistill.criticism import _simulate_calibration as calibration
from bayesdistill.criticism import calibration_summaries, refits, truths
from bayesdistill.criticism import tasks as running
from bayesdistill.errors import DataError, ModelError, ParameterError
from bayesdistill.law import LAWS, Draws, Prior
from bayesdistill.law.effects import student_configurations, teacher_groups
from bayesdistill.model import reference_run
from bayesdistill.posterior import with_law
from bayesdistill.priors import ASYMPTOTIC_SIZES, default_priors, with_priors
from bayesdistill.sampling._prior_table import choose_priors

DEFAULT = LAWS["tied_reducible"]


def calibrated(
    rank: np.ndarray, probability: np.ndarray, won: np.ndarray, status: list[str] | None = None
) -> xr.Dataset:
    return xr.Dataset(
        {
            "rank": (("simulation", "quantity"), rank),
            "probability": (("simulation", "decision"), probability),
            "won": (("simulation", "decision"), won),
            "status": ("simulation", status or ["passed"] * len(rank)),
        },
        coords={"quantity": [f"q{i}" for i in range(rank.shape[1])], "decision": ["one"]},
        attrs={"ranks": 99},
    )


# Summaries ------------------------------------------------------------------------------------------------------------


def test_ranks_that_are_uniform_pass_and_others_do_not():
    rng = np.random.default_rng(3)
    uniform = rng.integers(0, 100, size=(400, 5))
    biased = rng.binomial(99, rng.beta(1.5, 1, 400))
    narrow = rng.binomial(99, rng.beta(0.5, 0.5, 400))
    none = np.zeros((400, 1))
    table = bd.rank_uniformity(calibrated(np.column_stack([uniform, biased, narrow]), none, none))
    assert (table["p_holm"][:5] > 0.05).all()
    assert (table["p_holm"][5:] < 1e-4).all()
    assert (table["p_holm"] >= table["p_value"]).all()
    assert table.loc["q5", "mean_rank"] > 0.55
    assert calibration_summaries._holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])


def test_decisions_that_come_true_as_often_as_said():
    rng = np.random.default_rng(4)
    stated = rng.random((4000, 1))
    honest = calibrated(np.zeros((4000, 1)), stated, rng.random((4000, 1)) < stated)
    table = bd.decision_calibration(honest)
    assert table["simulations"].sum() == 4000
    assert (np.abs(table["won"] - table["stated"]) < 0.04).all()
    assert ((table["lower"] < table["stated"]) & (table["stated"] < table["upper"])).sum() >= 4
    bold = calibrated(np.zeros((4000, 1)), stated, rng.random((4000, 1)) < 0.5)
    table = bd.decision_calibration(bold)
    assert table["upper"].iloc[-1] < 0.95
    for edges in ((0.0,), (0.0, 0.5), (0.0, 0.7, 0.5, 1.0)):
        with pytest.raises(ParameterError, match="`edges` must be increasing numbers from 0 to 1"):
            bd.decision_calibration(honest, edges)


def test_simulations_that_failed_count_only_when_asked():
    rank = np.array([[10], [50], [99], [0]])
    status = ["passed", "passed when refitted", "failed", "failed"]
    probability, won = np.array([[0.9], [0.8], [1.0], [1.0]]), np.array([[True], [True], [False], [False]])
    found = calibrated(rank, probability, won, status)
    assert bd.rank_uniformity(found).loc["q0", ["simulations", "mean_rank"]].tolist() == [2, pytest.approx(30 / 99)]
    assert bd.rank_uniformity(found, include_failed=True).loc["q0", "simulations"] == 4
    assert bd.decision_calibration(found)["simulations"].tolist() == [0, 0, 0, 2, 0]
    assert bd.decision_calibration(found, include_failed=True)["simulations"].tolist() == [0, 0, 0, 2, 2]
    with pytest.raises(ModelError, match="None of the 2 refits passed the convergence checks"):
        bd.rank_uniformity(found.isel(simulation=[2, 3]))


# Truths ---------------------------------------------------------------------------------------------------------------


def largest_lead(truth, reference) -> float:
    """Of the best of the teachers that the asymptotic prior looks at, over its students, by the laws themselves."""
    law = {name: truth[name] for name in LAW_PARAMETERS + EXTENSION_PARAMETERS}
    leads = []
    for size in np.array(ASYMPTOTIC_SIZES) * reference.params / 5e8:
        alone = supervised_loss(size, np.inf, **{name: law[name] for name in SUPERVISED_PARAMETERS})
        teacher = law["E"] + ASYMPTOTIC_TEACHERS * (alone - law["E"])
        leads.append(float(alone - distilled_loss(size, np.inf, teacher, **law).min()))
    return max(leads)


def test_truths_come_from_the_prior_and_obey_the_asymptotic_one(runs354):
    reference = reference_run(runs354, None)
    free = default_priors(DEFAULT, reference, asymptotic_width=None)
    drawn = truths.draw_truths(free, reference, 400, seed=1)
    z = np.array([truth["z"] for truth in drawn])
    assert np.abs(z.mean(axis=0)).max() < 4 / np.sqrt(400)
    assert np.abs(z.std(axis=0) - 1).max() < 4 / np.sqrt(800)
    bound = default_priors(DEFAULT, reference, asymptotic_width=0.005)
    for truth in truths.draw_truths(bound, reference, 20, seed=2):
        law = {name: truth[name] for name in LAW_PARAMETERS + EXTENSION_PARAMETERS}
        leads = []
        for size in np.array(ASYMPTOTIC_SIZES) * reference.params / 5e8:
            alone = supervised_loss(size, np.inf, **{name: law[name] for name in SUPERVISED_PARAMETERS})
            teacher = np.linspace(law["E"], 1.2 * alone, 200)
            leads.append(max(0.0, float(alone - distilled_loss(size, np.inf, teacher, **law).min())))
        # Six widths in mean square have a probability of 1e-8.
        assert np.sqrt(np.mean(np.square(leads))) < 6 * 0.005
    # With next to no width those laws are left that have no lead at all, of the same series.
    kept = [truth["z"] for truth in drawn if largest_lead(truth, reference) <= 0]
    assert 20 < len(kept) < 380
    strict = default_priors(DEFAULT, reference, asymptotic_width=1e-12)
    found = [truth["z"] for truth in truths.draw_truths(strict, reference, 20, seed=1)]
    np.testing.assert_array_equal(found, kept[:20])
    # A law of supervised runs too has their residual scale among its symbols.
    both = default_priors(DEFAULT.for_runs(distilled=True, supervised=True), reference)
    (truth,) = truths.draw_truths(both, reference, 1, seed=0)
    z = truth["z"][
        [name for name, free in zip(both.names, both.free, strict=True) if free].index("log_sigma_supervised")
    ]
    assert truth["sigma_supervised"] == pytest.approx(0.01 * np.exp(z))


def test_outcomes_have_the_scatter_and_the_shifts_of_their_truth(runs354):
    reference = reference_run(runs354, None)
    law = DEFAULT.with_discrepancy().with_fixed(omega=None).with_residual_noise("tokens")
    law = law.with_effects("teacher", "student", "student_slope")
    priors = default_priors(law, reference)
    # Large shifts of groups beside a small scatter that grows with the tokens.
    fixed = {"log_sigma_teacher": 0.05, "log_sigma_student": 0.1, "log_sigma_student_slope": 0.02, "log_sigma": 1e-4}
    changes = {name: Prior(float(np.log(value)), 0.0) for name, value in fixed.items()}
    changes |= {"noise_tokens": Prior(0.3, 0.0), "log_nu": Prior(7.0, 0.0)}
    (truth,) = truths.draw_truths(with_priors(priors, changes), reference, 1, seed=5)
    assert {"w1", "kappa", "omega", "sigma_teacher", "sigma_student", "noise_tokens"} <= set(truth)
    assert truth["sigma_student"] == pytest.approx(0.1)
    columns = [runs354[name].to_numpy() for name in ("student_params", "student_tokens", "teacher_loss")]
    law = distilled_loss(*columns, **{name: truth[name] for name in LAW_PARAMETERS + EXTENSION_PARAMETERS})
    teacher, student = teacher_groups(runs354)[1], student_configurations(runs354)[1]
    single = truths.draws_of_truth(truth, priors.law, reference)
    pulls, rng = [], np.random.default_rng(6)
    for _ in range(30):
        loss, effects = truths.simulate_outcomes(single, runs354, rng)
        assert {values.shape for values in effects.values()} == {(1, teacher.max() + 1), (1, student.max() + 1)}
        rest = loss - law - effects["teacher"][0][teacher] - effects["student"][0][student]
        rest = rest - effects["student_slope"][0][student] * 10 * np.log(columns[2] / reference.teacher_loss)
        pulls.append(rest / (1e-4 * (columns[1] / reference.tokens) ** 0.3))
    assert np.std(pulls) == pytest.approx(1, rel=0.03)  # 10,620 values: 0.7% of Monte Carlo error
    many = [truths.simulate_outcomes(single, runs354, rng)[1] for _ in range(100)]
    assert np.std([one["teacher"] for one in many]) == pytest.approx(0.05, rel=0.05)
    assert np.std([one["student"] for one in many]) == pytest.approx(0.1, rel=0.08)
    assert np.std([one["student_slope"] for one in many]) == pytest.approx(0.02, rel=0.08)
    for one in many:
        for values in one.values():
            assert values.sum() == pytest.approx(0, abs=1e-12)


def test_a_law_breaks_even_at_its_break_even_tokens(runs354):
    reference = reference_run(runs354, None)
    priors = default_priors(DEFAULT, reference, asymptotic_width=None)
    reached = 0
    drawn = truths.draw_truths(priors, reference, 40, seed=3)
    singles = [truths.draws_of_truth(truth, DEFAULT, reference) for truth in drawn]
    for law in [Draws(LAWS["busbridge2025"], bd.PUBLISHED), *singles]:
        for name in truths.BREAK_EVEN:
            tokens = truths.break_even_tokens(law, name)
            gain = float(truths.break_even_gain(law, name, tokens)[0])
            if tokens < truths.MOST_TOKENS:
                reached += 1
                assert gain == pytest.approx(0, abs=1e-9)
                more, fewer = (float(truths.break_even_gain(law, name, f * tokens)[0]) for f in (2, 0.5))
                assert more < 0 < fewer
            else:
                assert gain > 0  # unlimited data do not help
    assert reached > 60


# The loop -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few(runs354):
    return runs354.iloc[::9].reset_index(drop=True)


class Sampler:
    """In place of NUTS: draws of the prior, spoiled where asked for, and the settings of every call."""

    def __init__(self, pool, spoil):
        self.pool, self.spoil, self.calls = pool, spoil, []

    def __call__(self, refitter, **settings):
        self.calls.append(settings)
        shape = (settings["chains"], settings["draws"])
        rng = np.random.default_rng(settings["seed"] + 1000)
        drawn = [self.pool[i] for i in rng.choice(len(self.pool), np.prod(shape), replace=False)]
        values = {
            name: (("chain", "draw"), np.reshape([one[name] for one in drawn], shape))
            for name in drawn[0]
            if name != "z"
        }
        z = np.reshape([one["z"] for one in drawn], (*shape, -1))
        diverging = np.zeros(shape, dtype=bool)
        diverging[0, 0] = self.spoil(settings)
        stats = {"diverging": (("chain", "draw"), diverging)}
        posterior = xr.Dataset({**values, "z": (("chain", "draw", "coordinate"), z)})
        posterior = with_law(posterior, refitter.priors.law, refitter.reference)
        return xr.DataTree.from_dict({"posterior": posterior, "sample_stats": xr.Dataset(stats)})


@pytest.fixture(scope="module")
def small(few):
    """Settings of a short calibration of equation 8 by itself."""
    priors = default_priors("busbridge2025", reference_run(few, None), asymptotic_width=None)
    return {"priors": priors, "draws": 60, "tune": 10, "seed": 7}


@pytest.fixture(scope="module")
def pool(few, small):
    return truths.draw_truths(small["priors"], reference_run(few, None), 1500, seed=99)


@pytest.fixture
def sampler(few, pool, monkeypatch):
    reference = reference_run(few, None)

    def install(spoil=lambda settings: False):
        fake = Sampler(pool, spoil)
        monkeypatch.setattr(refits, "refit", fake)
        monkeypatch.setattr(
            calibration, "refitter_for", lambda runs, priors: refits.Refitter(runs, priors, reference, None)
        )
        return fake

    return install


def test_ranks_among_draws_of_the_prior_are_uniform(few, small, sampler):
    sampler()
    settings = small | {"seed": 8}
    found = calibration.simulate_calibration(
        few, simulations=60, thresholds=bd.ConvergenceThresholds(9, 1, 1), progress=False, **settings
    )
    table = bd.rank_uniformity(found)
    assert found.attrs["passed"] + found.attrs["passed_when_refitted"] + found.attrs["failed"] == 60
    assert {"sigma", "nu", "c1", "z[log_sigma]", "gain: 1B, equal tokens", "log-likelihood"} <= set(table.index)
    # Choices near break-even are open, and their probabilities are spread over everything.
    open_ones = found.sel(decision=list(truths.BREAK_EVEN))
    assert 0.35 < float(open_ones["probability"].mean()) < 0.65
    assert ((open_ones["probability"] > 0.1) & (open_ones["probability"] < 0.9)).mean() > 0.5
    assert 0.3 < float(open_ones["won"].mean()) < 0.7
    # The log-likelihood depends on the simulated runs, so that draws of the prior fit worse than the truth, always.
    assert (found["rank"].sel(quantity="log-likelihood") > 90).mean() > 0.8
    assert (table.drop("log-likelihood")["p_holm"] > 0.01).all()
    for variable in found.data_vars.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["units"] == "1"


def test_ranked_quantities_need_as_many_effective_draws_as_ranks(few, small, sampler, monkeypatch):
    rng, chain = np.random.default_rng(5), np.zeros((2, 5000))
    for i in range(1, 5000):
        chain[:, i] = 0.9 * chain[:, i - 1] + rng.standard_normal(2)
    walks = {"slow": chain.ravel(), "fast": rng.standard_normal(10_000), "fixed": np.ones(10_000)}
    # AR(1): the autocorrelation time is (1 + 0.9) / (1 - 0.9) = 19.
    assert calibration._smallest_ess(walks, 2) == pytest.approx(10_000 / 19, rel=0.25)
    assert calibration._smallest_ess({"fast": walks["fast"]}, 2) > 8000
    assert calibration.CALIBRATION_THRESHOLDS.min_ess_bulk >= calibration.RANKS
    fake = sampler()
    monkeypatch.setattr(calibration, "_smallest_ess", lambda values, chains: 9.0)
    found = calibration.simulate_calibration(
        few, simulations=1, thresholds=bd.ConvergenceThresholds(9, 10, 1), progress=False, **small
    )
    assert found["status"].item() == "failed"
    assert found["ess_ranked"].item() == 9
    assert [call["draws"] for call in fake.calls] == [60, 240]


def test_a_refit_that_fails_is_made_longer_once_and_then_said_to_have_failed(few, small, sampler):
    # Simulation k has the seed 8 + k: the second has divergences at first, the third always.
    fake = sampler(lambda call: (call["seed"] == 9 and call["draws"] == 60) or call["seed"] == 10)
    found = calibration.simulate_calibration(
        few, simulations=4, thresholds=bd.ConvergenceThresholds(1.5, 1, 1), progress=False, **small
    )
    assert found["status"].values.tolist() == ["passed", "passed when refitted", "failed", "passed"]
    assert [(call["seed"], call["draws"], call["tune"], call.get("target_accept")) for call in fake.calls] == [
        (8, 60, 10, None),
        (9, 60, 10, None),
        (9, 240, 20, calibration.LONGER_ACCEPT),
        (10, 60, 10, None),
        (10, 240, 20, calibration.LONGER_ACCEPT),
        (11, 60, 10, None),
    ]
    assert found["first_divergences"].values.tolist() == [0, 1, 1, 0]
    assert found["divergences"].values.tolist() == [0, 0, 1, 0]
    assert (found.attrs["passed"], found.attrs["passed_when_refitted"], found.attrs["failed"]) == (2, 1, 1)
    assert (bd.rank_uniformity(found)["simulations"] == 3).all()
    # The ranks of the second are those among the longer refit's draws.
    again = calibration.simulate_calibration(
        few, simulations=2, thresholds=bd.ConvergenceThresholds(1.5, 1, 1), progress=False, **(small | {"draws": 240})
    )
    np.testing.assert_array_equal(again["rank"][1], found["rank"][1])


def test_an_interrupted_calibration_goes_on_from_its_log(few, small, sampler, tmp_path):
    log = tmp_path / "log.jsonl"
    fake = sampler()
    whole = calibration.simulate_calibration(few, simulations=5, progress=False, **small)

    def stops(call):
        if call["seed"] == 10:
            raise KeyboardInterrupt
        return False

    sampler(stops)
    with pytest.raises(KeyboardInterrupt):
        calibration.simulate_calibration(few, simulations=5, log=log, progress=False, **small)
    assert log.read_text().count("\n") == 2
    with log.open("a") as file:
        file.write(log.read_text()[:50])  # as a machine leaves it that lost its power
    fake = sampler()
    told: list[tuple[int, int]] = []
    found = calibration.simulate_calibration(
        few, simulations=5, log=log, progress=lambda done, of: told.append((done, of)), **small
    )
    assert {call["seed"] for call in fake.calls} == {10, 11, 12}
    assert told == [(2, 5), (3, 5), (4, 5), (5, 5)]
    xr.testing.assert_identical(found, whole)
    # More simulations go on from it too; another seed or another design does not.
    fake.calls.clear()
    assert log.read_text().count("\n") == 5
    calibration.simulate_calibration(few, simulations=6, log=log, progress=False, **small)
    assert {call["seed"] for call in fake.calls} == {13}
    fake.calls.clear()
    other = few.assign(teacher_loss=few["teacher_loss"] + 0.01)
    with pytest.raises(DataError, match="has other settings: runs is '"):
        calibration.simulate_calibration(other, simulations=1, log=log, progress=False, **small)
    with pytest.raises(DataError, match="has other settings: seed is 7 in the file and 8 in this call"):
        calibration.simulate_calibration(few, simulations=1, log=log, progress=False, **(small | {"seed": 8}))
    outcomes = few.assign(student_loss=few["student_loss"] + 0.01)
    numbers = {name: np.int64(small[name]) for name in ("draws", "tune", "seed")}
    calibration.simulate_calibration(
        outcomes, simulations=np.int32(6), log=log, progress=False, **(small | numbers), chains=np.int64(2)
    )
    assert not fake.calls


def test_arguments_that_cannot_work_are_refused(few):
    for count in (0, 1.5, True):
        with pytest.raises(ParameterError, match="`simulations` must be an integer from 1"):
            calibration.simulate_calibration(few, simulations=count)
    with pytest.raises(ParameterError, match="must be more than 99 to compute ranks"):
        calibration.simulate_calibration(few, draws=40, chains=2)
    with pytest.raises(ParameterError, match=r"no law 'eq. 8'.*choose from 'busbridge2025', 'tied_reducible'"):
        calibration.simulate_calibration(few, law="eq. 8")
    with pytest.raises(ParameterError, match="get_executor"):
        calibration.simulate_calibration(few, simulations=1, executor="dask")


# Logs -----------------------------------------------------------------------------------------------------------------

SETTING = {"function": "squares", "seed": 3}


def keep(log: Path, count: int, setting=SETTING) -> None:
    done = {str(k): {"square": [k * k, 0.1 * k, math.nan, None, "Größe\u2028"]} for k in range(count)}
    running.keep_finished(log, setting, done)


def test_results_come_back_from_a_log_as_they_were(tmp_path):
    log = tmp_path / "log.jsonl"
    assert running.read_finished(log, SETTING) == {}
    assert running.read_finished(None, SETTING) == {}
    keep(log, 3)
    found = running.read_finished(str(log), SETTING)
    assert list(found) == ["0", "1", "2"]
    assert found["2"]["square"][1:2] == [0.2]
    assert repr(found["2"]) == repr({"square": [4, 0.2, math.nan, None, "Größe\u2028"]})
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32])
def test_numpy_numbers_are_the_same_settings_and_results(tmp_path, kind):
    log = tmp_path / "log.jsonl"
    setting = {**SETTING, "seed": kind(3), "cutoffs": np.array([1e19, 2e19]), "strict": np.bool_(True)}
    running.keep_finished(log, setting, {"0": {"count": kind(7), "losses": np.array([0.1, 2.5])}})
    plain = {**SETTING, "cutoffs": [1e19, 2e19], "strict": True}
    assert running.read_finished(log, plain) == {"0": {"count": 7, "losses": [0.1, 2.5]}}
    assert running.read_finished(log, setting) == running.read_finished(log, plain)


def test_every_damage_of_a_log_is_noticed_or_only_the_last_task_is_lost(tmp_path):
    log = tmp_path / "log.jsonl"
    keep(log, 3)
    whole, results = log.read_bytes(), running.read_finished(log, SETTING)
    rng = np.random.default_rng(5)
    for place in rng.integers(len(whole), size=300):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        log.write_bytes(damaged)
        if place == len(whole) - 1:  # the end of the last line
            continue
        with pytest.raises(DataError, match=r"Line \d of .*log\.jsonl is damaged or is not a finished task"):
            running.read_finished(log, SETTING)
        assert log.read_bytes() == damaged
    for length in range(len(whole)):
        log.write_bytes(whole[:length])
        complete = whole[:length].count(b"\n")
        assert repr(running.read_finished(log, SETTING)) == repr(dict(list(results.items())[:complete]))


def test_what_was_finished_is_kept_if_the_log_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    log = tmp_path / "folder" / "log.jsonl"
    log.parent.mkdir()

    def task(number: int) -> int:
        if number == 2:
            log.unlink()
            log.parent.rmdir()
        return number

    tasks = {str(k): k for k in range(5)}
    with pytest.raises(bd.FileError, match=r"Cannot write .*log\.jsonl: .* The content is in .*\.jsonl instead"):
        running.run_missing(task, tasks, SETTING, "", log=log, executor=None, progress=False)
    (kept,) = tmp_path.iterdir()
    assert running.read_finished(kept, SETTING) == {"0": 0, "1": 1, "2": 2}


FOREIGN = {
    "text": b"my notes, on one line",
    "lines": b"my notes\non two lines\n",
    "JSON": b"[]\n",
    "deep": b"[" * 100_000,
    "long number": b"1" * 10_000 + b"\n",
    "binary": bytes(range(256)) * 10,
    "empty line": b"\n",
    "keys": b'{"setting": 1, "task": "0", "result": 1}\n',
    "half a line of other settings": b'{"setting": {"function": "cubes", "se',
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_files_are_no_logs(tmp_path, case):
    log = tmp_path / "mine.txt"
    log.write_bytes(FOREIGN[case])
    with pytest.raises(DataError, match=r"Line 1 of .*mine\.txt is damaged or is not a finished task of this package"):
        running.read_finished(log, SETTING)
    assert log.read_bytes() == FOREIGN[case]


@given(st.binary(max_size=80), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_content_of_a_log_is_read_or_rejected(content, ours):
    start = json.dumps({"setting": SETTING})[:-1].encode()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        log.write_bytes(start[: len(content)] + content if ours else content)
        with contextlib.suppress(DataError):
            assert running.read_finished(log, SETTING) == {}


def test_logs_that_cannot_be_written_are_noticed_before_the_first_task(tmp_path):
    paths = {name: tmp_path / name for name in ("folder", "fifo", "read-only", "linked", "loop")}
    paths["folder"].mkdir()
    os.mkfifo(paths["fifo"])
    paths["read-only"].touch(0o400)
    paths["linked"].touch()
    (tmp_path / "other").hardlink_to(paths["linked"])
    paths["loop"].symlink_to(paths["loop"])
    paths |= {"nowhere": tmp_path / "nowhere" / "log", "device": Path(os.devnull)}
    for path in paths.values():
        with pytest.raises(bd.FileError, match="Cannot write"):
            running.run_missing(
                lambda task: pytest.fail("a task runs"), {"0": 0}, SETTING, "", log=path, executor=None, progress=False
            )


def test_a_log_behind_a_link_and_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path / "log.jsonl")
    for path in (tmp_path / "link", "~/log.jsonl"):
        running.keep_finished(path, SETTING, running.read_finished(path, SETTING) | {str(path): 1})
        assert str(path) in running.read_finished(path, SETTING)
    assert (tmp_path / "link").is_symlink()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


def test_differences_of_settings_are_named_in_a_short_message(tmp_path):
    log = tmp_path / "log.jsonl"
    keep(log, 1, {**SETTING, "groups": [["x" * 500] * 50] * 50, "old": 1})
    with pytest.raises(DataError, match="seed is 3 in the file and 4 in this call; groups is") as caught:
        running.read_finished(log, {**SETTING, "seed": 4, "groups": []})
    assert "old is 1 in the file and None in this call" in str(caught.value)
    assert len(str(caught.value)) < 1000


# Running --------------------------------------------------------------------------------------------------------------


def double(task: int) -> int:
    return 2 * task


def test_tasks_run_here_and_elsewhere_alike():
    here = dict(running.run_tasks(double, range(5), progress=False))
    told: list[tuple[int, int]] = []
    with ThreadPoolExecutor(2) as pool:
        there = dict(
            running.run_tasks(
                double, range(5), executor=pool, progress=lambda done, of: told.append((done, of)), done=3
            )
        )
    assert here == there == {i: 2 * i for i in range(5)}
    assert told == [(k, 8) for k in range(3, 9)]


def test_an_interrupt_cancels_what_has_not_begun():
    begun = []

    def slow(task):
        begun.append(task)
        if task == 0:
            raise KeyboardInterrupt
        time.sleep(0.01)
        return task

    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: None).result()
        with pytest.raises(KeyboardInterrupt):
            list(running.run_tasks(slow, range(500), executor=pool, progress=False))
    assert len(begun) < 500


# The real thing -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ranks_of_a_few_simulations_are_not_far_from_uniform(runs354, fit354, tmp_path):
    """As on the page of the documentation: laws near those of the runs, whose refits nearly all converge."""
    reference = reference_run(runs354, None)
    default = default_priors(DEFAULT, reference)
    near = choose_priors(fit354, 3.0, default, reference)
    log = tmp_path / "log.jsonl"
    # Thresholds that hardly ever ask for a longer refit: twenty ranks see no finer error than these let through.
    settings = {
        "draws": 300,
        "tune": 500,
        "seed": 5,
        "log": log,
        "progress": False,
        "thresholds": bd.ConvergenceThresholds(1.2, 20, 20, 3),
    }
    calibration.simulate_calibration(runs354, simulations=5, priors=near, **settings)
    lines = log.read_text().count("\n")
    found = calibration.simulate_calibration(runs354, simulations=20, priors=near, **settings)
    assert (lines, log.read_text().count("\n")) == (5, 20)
    assert {int(json.loads(line)["task"]) for line in log.read_text().splitlines()} == set(range(20))
    assert int((found["status"] != "failed").sum()) >= 18
    mean = bd.rank_uniformity(found)["mean_rank"]
    # The mean of 20 uniform ranks has a standard deviation of 0.065.
    assert float(np.abs(mean - 0.5).max()) < 0.065 * 4
    assert float(np.abs(mean - 0.5).mean()) < 0.065 * 1.5


@pytest.mark.slow
def test_a_dask_cluster_calibrates_as_this_process_does(few):
    distributed = pytest.importorskip("distributed")
    settings = {
        "simulations": 2,
        "draws": 60,
        "tune": 100,
        "seed": 2,
        "progress": False,
        "thresholds": bd.ConvergenceThresholds(9, 1, 1, 10**6),
    }
    settings |= {"law": DEFAULT.with_effects("teacher").with_residual_noise("tokens")}
    here = calibration.simulate_calibration(few, **settings)
    assert {"sigma_teacher", "noise_tokens", "z[noise_tokens]", "kappa", "alpha"} <= set(here["quantity"].values)
    # Fixed, or the same as another.
    assert not {"omega", "alpha_S", "beta_S"} & set(here["quantity"].values)
    assert any(str(name).startswith("effect_teacher[") for name in here["quantity"].values)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        there = calibration.simulate_calibration(few, executor=client.get_executor(), **settings)
    xr.testing.assert_identical(here, there)


@pytest.mark.slow
def test_a_dask_cluster_leaves_out_as_this_process_does(few):
    distributed = pytest.importorskip("distributed")
    settings = {"parts": 2, "draws": 60, "tune": 100, "seed": 3}
    here = bd.leave_out(few, "teacher", **settings)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        there = bd.leave_out(few, "teacher", executor=client.get_executor(), **settings)
    xr.testing.assert_identical(here, there)
