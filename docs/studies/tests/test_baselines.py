"""The Huber point fits find the law of the runs, and the candidate without capacity gap has none."""

from __future__ import annotations

import itertools

import baselines
import joint_baselines
import numpy as np
import pandas as pd
from candidates import candidate_models

import bayesdistill as bd
from bayesdistill.criticism._leave_out import priors_of
from bayesdistill.law import LAWS, SUPERVISED_SYMBOLS, distilled_loss
from bayesdistill.model import reference_run

SUPERVISED = {name: bd.PUBLISHED[name] for name in SUPERVISED_SYMBOLS}


def test_the_law_without_capacity_gap_has_none():
    runs = bd.load_runs("busbridge2025")
    law = candidate_models()["no capacity gap"].law
    assert [term.name for term in law.terms] == ["supervised", "student"]
    priors = priors_of(law, runs)
    assert not {"log_gap_strength", "log_gap_power", "gap_curvature", "omega"} & {*priors.names}
    assert priors.free.all()
    assert not {"c1", "d1", "f1"} & {*law.symbols_of_law}
    # The loss equals equation 8 with a gap of strength 0.
    reference = reference_run(runs, None)
    p = law.symbols(dict(zip(priors.names, priors.location, strict=True)), reference)
    teacher = np.linspace(0.5, 1.5, 21) * reference.teacher_loss
    loss = law.distilled_loss(law.student(reference.params, reference.tokens, p), teacher, p)
    six = {name: p[name] for name in LAWS["busbridge2025"].symbols_of_law if name in p}
    without = distilled_loss(reference.params, reference.tokens, teacher, **six, c1=0.0, d1=1.0, f1=1.0)
    np.testing.assert_allclose(loss, without, rtol=1e-12)


def test_the_point_fit_finds_the_law_that_made_the_runs():
    truth = dict(bd.PUBLISHED) | {"c1": 1200.0, "d1": 0.02 ** -bd.PUBLISHED["f1"]}
    runs = bd.simulate_runs(truth, seed=4, sigma=1e-6, nu=np.inf)
    law = baselines.point_fit(runs)
    assert set(law) == set(bd.PUBLISHED)
    columns = [runs[name].to_numpy() for name in ("student_params", "student_tokens", "teacher_loss")]
    np.testing.assert_allclose(distilled_loss(*columns, **law), runs["student_loss"], atol=2e-5)
    # It fits the published runs no worse than the published law itself, and within what the paper reports.
    published = bd.load_runs("busbridge2025")
    columns = [published[name].to_numpy() for name in ("student_params", "student_tokens", "teacher_loss")]
    ours, theirs = (
        np.abs(distilled_loss(*columns, **one) - published["student_loss"]).mean()
        for one in (baselines.point_fit(published), bd.PUBLISHED)
    )
    assert ours <= theirs


def test_the_joint_point_fit_finds_a_law_without_noise():
    sizes, tokens = np.geomspace(1.5e8, 2.4e9, 5), np.geomspace(3e9, 9.6e10, 6)
    supervised = pd.DataFrame(itertools.product(sizes, tokens), columns=["params", "tokens"])
    supervised["loss"] = bd.supervised_loss(supervised["params"], supervised["tokens"], **SUPERVISED)
    teachers = bd.supervised_loss(np.array([3e8, 1e9, 3e9, 7e9]), np.array([1e10, 2e10, 6e10, 2e11]), **SUPERVISED)
    design = itertools.product(sizes, tokens[::2], teachers)
    distilled = pd.DataFrame(design, columns=["student_params", "student_tokens", "teacher_loss"])
    columns = (distilled[name] for name in distilled)
    distilled["student_loss"] = distilled_loss(*columns, **bd.PUBLISHED)
    found = joint_baselines.point(distilled, supervised, reference_run(distilled, supervised), 0)
    assert found.law == LAWS["busbridge2025"].for_runs(distilled=True, supervised=True)
    assert found["sigma_supervised"][0] < 1e-3
    assert found["sigma"][0] < 3e-3
