"""The level shift of distilled runs: found where there is one, and where there is none, reported as none."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.optimize import brentq

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.law import DEFAULT_LAW, SUPERVISED_SYMBOLS, as_law
from bayesdistill.model import reference_run
from bayesdistill.priors import default_priors
from bayesdistill.sampling._prior_table import choose_priors
from bayesdistill.sampling.level_shift import CENTERS, NARROW, estimate_level_shift

TINY = bd.load_runs("tiny"), bd.load_runs("tiny", kind="supervised")


def moved(runs: pd.DataFrame, shift: float) -> pd.DataFrame:
    """Runs of a corpus whose losses are larger."""
    return runs.assign(teacher_loss=runs["teacher_loss"] + shift, student_loss=runs["student_loss"] + shift)


def estimate(
    runs: pd.DataFrame, supervised: pd.DataFrame | None = None, law: str = DEFAULT_LAW
) -> posterior.LevelShift:
    reference = reference_run(runs, supervised)
    law = as_law(law).for_runs(distilled=True, supervised=supervised is not None)
    found = estimate_level_shift(runs, supervised, default_priors(law, reference), reference)
    assert found is not None
    return found


@pytest.mark.parametrize("shift", [-0.3, -0.1, 0.1, 0.3])
def test_a_shift_of_the_published_runs_is_found(runs354, shift):
    found, plain = estimate(moved(runs354, shift)), estimate(runs354)
    assert not plain.is_conflict
    assert found.is_conflict
    assert found.shift - plain.shift == pytest.approx(shift, abs=0.01)


def test_the_law_of_the_fit_does_not_matter(runs354):
    assert estimate(runs354, law="busbridge2025") == estimate(runs354)


def test_corpora_of_the_packaged_runs():
    runs, supervised = TINY
    assert estimate(runs).is_conflict
    assert not estimate(runs, supervised).is_conflict
    assert estimate(bd.load_runs("busbridge2025"), supervised).is_conflict
    shifted = estimate(moved(runs, 0.3), supervised)
    assert shifted.is_conflict
    assert shifted.shift == pytest.approx(0.3 + estimate(runs, supervised).shift, abs=0.05)


def test_small_tables_of_the_published_runs_have_no_conflict(runs354):
    rng, conflicts = np.random.default_rng(3), 0
    for _ in range(10):
        some = runs354.iloc[rng.choice(len(runs354), 20, replace=False)].reset_index(drop=True)
        found, shifted = estimate(some), estimate(moved(some, 0.3))
        assert shifted.is_conflict
        assert shifted.shift - found.shift == pytest.approx(0.3, abs=0.05)
        conflicts += found.is_conflict
    assert conflicts == 0


def with_known_teachers(runs: pd.DataFrame, shift: float) -> pd.DataFrame:
    """Runs whose teachers follow the published law, up to a shift of all losses."""
    losses = runs["teacher_loss"].unique()
    law = {name: bd.PUBLISHED[name] for name in SUPERVISED_SYMBOLS}
    sizes = {
        loss: brentq(lambda size, loss=loss: float(bd.supervised_loss(size, 20 * size, **law)) - loss, 1e5, 1e14)
        for loss in losses
    }
    size = runs["teacher_loss"].map(sizes)
    return moved(runs.assign(teacher_params=size, teacher_tokens=20 * size), shift)


@pytest.mark.parametrize("shift", [-0.1, 0.0, 0.1])
def test_known_teachers_determine_the_shift_of_few_runs(runs354, shift):
    rng = np.random.default_rng(3)
    few = runs354.iloc[rng.choice(len(runs354), 8, replace=False)].reset_index(drop=True)
    runs = with_known_teachers(few, shift)
    columns = ["teacher_params", "teacher_tokens"]
    alone, known = estimate(runs.drop(columns=columns)), estimate(runs)
    assert alone.teachers == 0
    assert alone.standard_error > 2 * known.standard_error
    assert known.teachers == few["teacher_loss"].nunique()
    assert known.shift == pytest.approx(shift, abs=0.01)
    assert known.is_conflict == (shift != 0)
    assert not known.is_undetermined


def test_only_teachers_with_size_and_tokens_count(runs354):
    runs = with_known_teachers(runs354.head(12), 0.1)
    columns = ["teacher_params", "teacher_tokens"]
    assert estimate(runs.assign(teacher_tokens=np.nan)) == estimate(runs.drop(columns=columns))
    first = runs["teacher"] == runs["teacher"].iloc[0]
    assert estimate(runs.assign(teacher_tokens=runs["teacher_tokens"].where(first))).teachers == 1
    repeated = runs.assign(teacher_loss=runs["teacher_loss"] + np.linspace(0, 1e-6, len(runs)))
    assert estimate(repeated).teachers == runs["teacher"].nunique()


def test_a_fit_checks_sizes_and_tokens_of_teachers(runs354):
    with pytest.raises(bd.DataError, match="row 1, column teacher_tokens"):
        bd.fit(runs354.assign(teacher_params=1e9, teacher_tokens=-1.0))


def test_too_few_runs_are_not_taken_for_the_same_corpus(runs354):
    teacher = runs354[runs354["teacher"] == runs354["teacher"].iloc[0]]
    some = teacher[teacher["student_params"] == teacher["student_params"].iloc[0]].head(2).reset_index(drop=True)
    found = estimate(some)
    assert found.is_undetermined
    assert found.largest > 0.1


def test_the_prior_centers_are_those_of_the_published_runs(fit354):
    law, reference = posterior.law_of(fit354), posterior.reference_of(fit354)
    found = law.coordinates_of(posterior.draws_of(fit354), reference)
    for coordinate in law.coordinates:
        if coordinate.name in CENTERS and coordinate.name != "log_kappa":
            away = abs(float(np.mean(found[coordinate.name])) - CENTERS[coordinate.name])
            assert away < 2 * NARROW * coordinate.prior.scale, coordinate.name
    assert 0 < CENTERS["log_kappa"] < float(np.mean(found["log_kappa"]))


def test_a_fit_stores_its_shift(fit354, runs354, tmp_path):
    found = posterior.level_shift_of(fit354)
    assert found == estimate(runs354)
    assert posterior.corpus_conflict(fit354) == ""
    assert posterior.level_shift_of(bd.load(bd.save(fit354, tmp_path / "fit.nc"))) == found
    assert json.loads(fit354["posterior"].attrs["level_shift"]) == asdict(found)
    row = bd.check(fit354).rows[0]
    assert row[0] == "level shift of the runs against the published law"
    assert row[3] == "ok"


def test_the_shape_of_another_corpus_is_no_level(jittered_draws):
    """With the shape of an earlier fit, supervised runs still show a shift; without them, no law has a level."""
    runs, supervised = TINY
    earlier = xr.DataTree.from_dict({"posterior": jittered_draws})

    def shifted(table: pd.DataFrame, other: pd.DataFrame | None) -> posterior.LevelShift | None:
        reference = reference_run(table, other)
        default = default_priors(as_law(DEFAULT_LAW).for_runs(distilled=True, supervised=other is not None), reference)
        chosen = choose_priors(earlier, None, default, reference, transfer="shape")
        return estimate_level_shift(table, other, chosen, reference)

    assert shifted(runs, None) is None
    assert not shifted(runs, supervised).is_conflict
    found = shifted(moved(runs, 0.3), supervised)
    assert found.is_conflict
    assert "law of the supervised runs" in found.sentence


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayesdistill.errors.ConvergenceWarning")
def test_the_fixes_that_are_suggested_remove_the_conflict():
    runs, supervised = TINY
    settings = {"progress": False, "seed": 0}
    with pytest.warns(bd.ConflictWarning, match=r"below the published law.*Pass supervised runs"):
        alone = bd.fit(runs, **settings)
    assert bd.check(alone).problems[0].startswith("The losses of the distilled runs are")
    together = bd.fit(runs, supervised, **settings)  # the first fix
    assert posterior.corpus_conflict(together) == ""
    assert posterior.level_shift_of(together).teachers == runs["teacher"].nunique()
    half = np.arange(len(runs)) % 2 == 0
    earlier = bd.fit(runs[half].reset_index(drop=True), supervised, **settings)
    rest = runs[~half].reset_index(drop=True)
    assert posterior.corpus_conflict(bd.fit(rest, priors=earlier, **settings)) == ""  # the second
    with pytest.warns(bd.ConflictWarning, match="law of the earlier fit"):
        bd.fit(moved(rest, 0.5), priors=earlier, **settings)


def test_the_conflict_of_two_tables_names_the_supervised_runs(runs354):
    found = estimate(runs354, TINY[1])
    assert "law of the supervised runs" in found.sentence
    assert "supervised runs of the corpus" in found.fix
