"""Distilled runs of another corpus than the supervised law: found, and every decision refused or marked."""

from __future__ import annotations

import html
import inspect
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from figure_checks import words_of
from test_arguments import OF_FITS, PLOTS, RUN, few, options_of, required
from test_cli import Command, command

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.criticism.corpus_findings import corpus_findings
from bayesdistill.interactive.contents import notes
from bayesdistill.reporting.sentences import answer_sentences
from bayesdistill.tables import latex, markdown

__all__ = ["command", "few"]  # fixtures

SHIFT = posterior.LevelShift(-1.23, 0.08, "published law")
DECISIONS = [name for name in OF_FITS if "allow_conflict" in inspect.signature(getattr(bd, name)).parameters]
QUICK = {"methods_text", "plan", "predict"}
WITHOUT_TABLE = {"law_curves", "information_order"}
WITHOUT_MARK = {"cite", "prior_table", "law_of", "law_draws", "provenance"}
"""Functions of a fit that return the law, the priors or the data, and no result."""


def with_shift(fit: Any, shift: posterior.LevelShift = SHIFT) -> Any:
    """The fit with a stored level shift."""
    text = {posterior.LEVEL_SHIFT_ATTRIBUTE: json.dumps(vars(shift))}
    if isinstance(fit, xr.Dataset):
        return fit.assign_attrs(text)
    groups = {name: node.to_dataset() for name, node in fit.children.items()}
    tree = xr.DataTree.from_dict(groups | {"posterior": groups["posterior"].assign_attrs(text)})
    tree.attrs = fit.attrs
    return tree


@pytest.fixture(scope="module")
def other(few: xr.DataTree) -> xr.DataTree:
    """A fit of few draws whose runs contradict the supervised law."""
    return with_shift(few)


def called(name: str, fit: xr.DataTree, **options: Any) -> Any:
    with warnings.catch_warnings():
        for category in (bd.ConvergenceWarning, bd.ExtrapolationWarning):
            warnings.simplefilter("ignore", category)
        return getattr(bd, name)(*required(name, fit), **options_of(name) | options)


# Conflicts --------------------------------------------------------------------------------------------------------


def test_thresholds_and_sentences():
    assert SHIFT.is_conflict
    assert not SHIFT.is_undetermined
    assert "1.23 nats below the published law (standard error 0.08)" in SHIFT.sentence
    assert "supervised=" in SHIFT.fix
    small = posterior.LevelShift(0.059, 0.001, "published law")
    assert not small.is_conflict
    assert small.sentence == ""
    assert posterior.LevelShift(0.061, 0.001, "published law").is_conflict
    assert not posterior.LevelShift(0.089, 0.001, "runs").is_conflict
    assert posterior.LevelShift(0.091, 0.001, "runs").is_conflict
    # The same shift is a conflict if the standard error is small enough.
    assert posterior.LevelShift(0.15, 0.06, "runs").is_conflict
    assert not posterior.LevelShift(0.15, 0.07, "runs").is_conflict
    # Without a conflict, the runs exclude a shift of 0.1 nats, or do not determine the shift.
    assert not posterior.LevelShift(0.05, 0.033, "published law").is_undetermined
    assert posterior.LevelShift(0.05, 0.034, "published law").is_undetermined
    assert posterior.LevelShift(-0.08, 0.03, "runs").is_undetermined
    assert posterior.LevelShift(0.15, 0.07, "runs").is_undetermined
    # Known teachers determine the shift without the distillation law.
    with_teachers = posterior.LevelShift(0.061, 0.001, "runs", teachers=3)
    assert with_teachers.is_conflict
    assert with_teachers.fix.startswith("Leave teacher_params and teacher_tokens empty")
    joint = posterior.LevelShift(1.0, 0.01, "earlier posterior and runs")
    assert "above the law of the supervised runs" in joint.sentence


@pytest.mark.parametrize("teachers", [0, 3])
def test_an_undetermined_shift_asks_for_sizes_and_tokens_of_teachers_that_are_unknown(few, teachers):
    (finding,) = corpus_findings(with_shift(few, posterior.LevelShift(0.05, 0.05, "published law", teachers)))
    assert "do not determine whether" in finding.sentence
    assert ("add their sizes and tokens (columns teacher_params and teacher_tokens)" in finding.sentence) == (
        teachers == 0
    )


def test_results_without_a_conflict_have_no_warning(few):
    found = called("predict", few)
    assert posterior.CONFLICT_ATTRIBUTE not in found.attrs
    assert "warning" not in bd.decision_table(found)


@pytest.mark.slow
def test_draws_without_data_have_no_conflict(published_draw):
    assert posterior.level_shift_of(published_draw) is None
    assert posterior.corpus_conflict(published_draw) == ""
    assert "warning" not in bd.plan_table(bd.plan(published_draw, "1B", 1e21, "best case"))


def test_every_function_with_an_override_for_convergence_has_one_for_the_corpus():
    for name in bd.__all__:
        function = getattr(bd, name)
        if inspect.isfunction(function) and "allow_unconverged" in inspect.signature(function).parameters:
            assert "allow_conflict" in inspect.signature(function).parameters, name


@pytest.mark.parametrize("name", DECISIONS)
def test_decisions_are_refused(name, other, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(bd.ConflictError, match=r"1\.23 nats below.*supervised=.*allow_conflict=True"):
        called(name, other)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(OF_FITS.keys() - WITHOUT_MARK)
    ],
)
def test_all_outputs_carry_the_warning(name, other, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {}
    if name in DECISIONS:
        options = {"allow_conflict": True}
        with pytest.warns(bd.ConflictWarning, match=r"1\.23 nats below") as caught:
            found = called(name, other, **options)
        assert len([one for one in caught if one.category is bd.ConflictWarning]) == 1
    else:
        found = called(name, other)
    if isinstance(found, xr.Dataset):
        assert found.attrs[posterior.CONFLICT_ATTRIBUTE] == SHIFT.sentence
        assert_marked(name, found)
    else:
        text = Path("page.html").read_text() if name == "interactive_page" else str(found)
        text = found._repr_html_() if name == "show_interactive" else text
        assert "1.23 nats below the published law" in text


def assert_marked(name: str, found: xr.Dataset) -> None:
    """The display and all tables of a result show the conflict."""
    for shown in (repr(found), found._repr_html_()):
        assert posterior.CONFLICT_ATTRIBUTE in shown or SHIFT.sentence in html.unescape(shown)
    tables = 0
    for make in (bd.plan_table, bd.summary_table, bd.decision_table, bd.criticism_table):
        try:
            frame = make(found)
        except (bd.BayesdistillError, ValueError):
            continue
        tables += 1
        assert (frame["warning"] == "other corpus").all()
        for ending, text in (
            (".csv", None),
            (".md", markdown(frame)),
            (".tex", latex(frame)),
            ("", bd.table_text(frame)),
        ):
            if ending:
                bd.write_table(frame, f"table{ending}")
                text = Path(f"table{ending}").read_text()
            assert "other corpus" in text.replace("\n", " ")
    assert tables or name in WITHOUT_TABLE
    bd.save(found, "found.nc")
    assert bd.load("found.nc").attrs[posterior.CONFLICT_ATTRIBUTE] == SHIFT.sentence
    for text in {"sentence", "statement"} & set(found.data_vars):
        assert all(SHIFT.sentence in value for value in found[text].values.ravel().tolist())


@pytest.mark.parametrize(
    "name",
    [name if name == "plot_probability" else pytest.param(name, marks=pytest.mark.slow) for name in sorted(PLOTS)],
)
def test_all_figures_carry_the_warning(name):
    data = PLOTS[name]().assign_attrs({posterior.CONFLICT_ATTRIBUTE: SHIFT.sentence})
    assert SHIFT.sentence in " ".join(words_of(getattr(bd, name)(data)).split())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_results_of_a_plan_and_comparisons_carry_it(few, other, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    allowed = {"allow_unconverged": True, "allow_conflict": True}
    plan, fit = called("plan", other, allow_conflict=True), required("plan", other)[0]
    for function in (bd.plan_value, bd.evppi):
        assert function(fit, plan, **allowed).attrs[posterior.CONFLICT_ATTRIBUTE] == SHIFT.sentence
    assert SHIFT.sentence in answer_sentences(fit, plan)[0]
    page = bd.report(fit, plan, folder=tmp_path).read_text()
    assert page.count("1.23 nats below") > 3
    strategies = page[page.index("Strategies at selected budgets") :]
    assert "other corpus" in strategies[: strategies.index("</table>")]
    fits = {"other": other, "same": few, "worse": with_shift(few, posterior.LevelShift(-2.0, 0.1, "runs"))}
    compared = bd.compare_crossovers(fits, "1B", "best case", budgets=[1e20, 1e22], **allowed)
    for found in (compared, bd.compare_loo(fits)):
        assert found.attrs[posterior.CONFLICT_ATTRIBUTE].startswith(f"other: {SHIFT.sentence} worse: ")


@pytest.mark.filterwarnings("ignore:The posterior did not converge")
def test_a_planner_warns_once_and_its_notes_show_it(other):
    planner = bd.Planner(other, allow_unconverged=True, allow_conflict=True)
    with pytest.warns(bd.ConflictWarning) as caught:
        bd.predict(planner, RUN)
    assert len([one for one in caught if one.category is bd.ConflictWarning]) == 1
    bd.predict(planner, RUN)
    assert {"bad": True, "text": SHIFT.sentence} in notes(planner.fitted)
    with pytest.raises(bd.ConflictError):
        bd.predict(planner, RUN, allow_conflict=False)


@pytest.mark.slow
def test_reports_and_methods_texts_show_it(other, tmp_path, command: Command):
    page = bd.report(other, folder=tmp_path).read_text()
    first = page[page.index("<strong>Warning.</strong>") :]
    assert re.match(r"<strong>Warning\.</strong> The losses of the distilled runs are 1\.23 nats below", first)
    code, out, _ = command("check", bd.save(other, tmp_path / "fit.nc"))
    assert code == 1
    assert SHIFT.sentence in out
    assert SHIFT.sentence in bd.methods_text(other)
    found = bd.check(other)
    assert found.ok is False
    assert any(SHIFT.sentence in text for text in found.problems)


PLAN = ["plan", "--student", "1B", "--budgets", "1e21", "--scenario", "best case"]


@pytest.mark.parametrize(
    "question", [["predict"], pytest.param(PLAN, marks=pytest.mark.slow)], ids=lambda words: words[0]
)
@pytest.mark.filterwarnings("ignore:The ")
def test_the_command_line_shows_it(question, other, command: Command, tmp_path):
    path, runs = bd.save(other, tmp_path / "fit.nc"), tmp_path / "runs.csv"
    RUN.to_csv(runs, index=False)
    name, *options = question
    arguments = [name, path, *(options or [runs]), "--allow-unconverged"]
    code, _, err = command(*arguments)
    assert code == 2
    assert "1.23 nats below" in err
    assert "--allow-conflict" in err
    assert "(bayesdistill fit --supervised)" in err
    code, out, _ = command(*arguments, "--allow-conflict")
    assert code == 0
    assert f"Warning: {SHIFT.sentence}" in out
    _, out, _ = command(*arguments, "--allow-conflict", "--json")
    assert json.loads(out)[0]["corpus_conflict"] == SHIFT.sentence


def test_damaged_shifts_in_files_are_rejected(few, tmp_path):
    for text in ('{"shift": NaN}', '{"shift": 1.0}', "[]", "no JSON"):
        tree = with_shift(few)
        tree["posterior"].attrs[posterior.LEVEL_SHIFT_ATTRIBUTE] = text
        with pytest.raises(bd.BayesdistillError, match="level_shift"):
            bd.save(tree, tmp_path / "fit.nc")
