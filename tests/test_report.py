"""The report: complete, the same to the byte, escaped, refused where it would mislead; what to cite."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
import shutil
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image
from test_cli import run

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.plots import style
from bayesdistill.reporting import first_page, report_files

ROOT = Path(__file__).resolve().parents[1]
BASELINE = Path(__file__).parent / "baseline"
HOSTILE = "<script>alert(1)</script> a_b & 50%"


@pytest.fixture(scope="module")
def planned(fit354):
    return bd.plan(fit354, students=["300M", "1B"], budgets=np.geomspace(1e19, 1e23, 5))


@pytest.fixture(scope="module")
def files(fit354, planned) -> dict[str, bytes]:
    return report_files(fit354, planned, date="2026-01-02")


def test_the_page_needs_no_network_and_holds_every_part(files, fit354):
    page = files["report.html"].decode()
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page)
    assert "<script" not in page
    assert page.count("data:image/png;base64,") == sum(name.endswith(".png") for name in files) == 4
    for part in ("2026-01-02", "354", "published-law prior", "@misc{busbridge2025distillation", "numpy", "c0"):
        assert part in page, part
    assert json.loads(fit354.attrs["bayesdistill_provenance"])["data"]["distilled"]["sha256"][:12] in page


def test_tables_and_figures_stand_beside_the_page_in_every_form(files):
    stems = {Path(name).with_suffix("").as_posix() for name in files}
    for stem in stems - {"report"}:
        assert {f"{stem}.tex", f"{stem}.md"} <= set(files) or {f"{stem}.png", f"{stem}.pdf"} <= set(files), stem
    assert files["figures/probability.pdf"].startswith(b"%PDF")
    assert b"tabular" in files["tables/summary.tex"]


def test_the_same_inputs_give_the_same_bytes_but_for_the_date(files, fit354, planned):
    again = report_files(fit354, planned, date="2026-01-03")
    assert set(again) == set(files)
    assert [name for name in files if again[name] != files[name]] == ["report.html"]
    assert again["report.html"].replace(b"2026-01-03", b"2026-01-02") == files["report.html"]


def test_text_of_data_files_is_escaped(fit354, planned):
    provenance = json.loads(fit354.attrs["bayesdistill_provenance"])
    provenance["data"]["distilled"]["source"] = HOSTILE
    fit = fit354.copy()
    fit.attrs["bayesdistill_provenance"] = json.dumps(provenance, sort_keys=True)
    made = report_files(fit, date="2026-01-02")
    page = made["report.html"].decode()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert any(rb"a\_b \& 50\%" in data for name, data in made.items() if name.endswith(".tex"))


def test_an_unconverged_posterior_has_a_banner(jittered_draws, files):
    apart = jittered_draws.assign(c0=jittered_draws["c0"] + 0.3 * jittered_draws["chain"])
    diverging = np.zeros((4, 250), dtype=bool)
    diverging[1, :3] = True
    stats = xr.Dataset({"diverging": (("chain", "draw"), diverging)})
    fit = xr.DataTree.from_dict({"posterior": apart, "sample_stats": stats})
    banner = "did not converge"
    assert banner in report_files(fit)["report.html"].decode()
    assert banner not in files["report.html"].decode()


def test_a_planner_reports_its_fit(jittered_draws, tmp_path):
    one = bd.report(jittered_draws, folder=tmp_path / "fit", date="today")
    other = bd.report(bd.Planner(jittered_draws), folder=tmp_path / "planner", date="today")
    assert one.read_bytes() == other.read_bytes()


def test_a_plan_of_another_fit_is_refused(jittered_draws, planned):
    with pytest.raises(bd.ParameterError, match="another posterior"):
        bd.report(jittered_draws, planned)
    with pytest.raises(bd.ParameterError, match=r"`plan` must be a Dataset returned by `bd\.plan`, got str"):
        bd.report(jittered_draws, "plan.nc")  # type: ignore[arg-type]


def test_files_are_written_whole_and_a_file_in_the_way_is_named(jittered_draws, tmp_path):
    page = bd.report(jittered_draws, folder=tmp_path / "out", date="2026-01-02")
    assert page.read_bytes() == report_files(jittered_draws, date="2026-01-02")["report.html"]
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "figures").write_text("mine")
    for name in ("taken", "other"):
        with pytest.raises(bd.FileError, match=name):
            bd.report("not a fit", folder=tmp_path / name)  # the folder is checked before the work
    assert (tmp_path / "taken").read_text() == (tmp_path / "other" / "figures").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "taken", "other"}


def test_the_home_folder_of_a_report(jittered_draws, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert bd.report(jittered_draws, folder="~/out") == tmp_path / "out" / "report.html"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_methods_paragraph_follows_the_provenance(fit354, jittered_draws):
    text = bd.methods_text(fit354)
    settings = json.loads(fit354.attrs["bayesdistill_provenance"])
    for value in ("354", str(settings["settings"]["chains"]), settings["versions"]["pymc"], "0.005"):
        assert value in text, value
    assert "recovers a fraction w1" in text
    assert "354 distilled students from busbridge2025/distilled, digitized from a figure of that paper" in text
    assert "Runs with the same student configuration share a random effect" in text
    assert "Runs with the same teacher" not in text
    assert text != bd.methods_text(jittered_draws)


def test_what_to_cite(fit354, jittered_draws):
    keys = re.findall(r"@\w+\{(\w+),", bd.cite())
    assert keys == ["bayesdistill", "busbridge2025distillation"]
    used = {"hoffman2014nuts", "nutpie", "seyboldt2026preconditioning", "abrilpla2023pymc", "martin2026arviz"}
    assert set(re.findall(r"@\w+\{(\w+),", bd.cite(fit354))) == {*keys, *used, "vehtari2021rhat"}
    assert "hoffmann2022training" not in bd.cite(fit354)
    # R-hat is computed from any draws; how others were sampled is not known.
    assert re.findall(r"@\w+\{(\w+),", bd.cite(jittered_draws)) == [*keys, "vehtari2021rhat"]
    stated = (ROOT / "CITATION.cff").read_text()
    version = re.search(r"^version: *['\"]?([\d.]+)", stated, re.MULTILINE)
    assert version is not None
    assert f"{{{version[1]}}}" in bd.cite()
    for name in ("Busbridge", "Shidani", "Weers", "Ramapuram", "Littwin", "Webb"):
        assert name in stated
        assert name in bd.cite()


def test_every_entry_is_whole_bibtex(fit354):
    chinchilla = bd.cite(
        xr.Dataset(
            {k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items() if k != "gamma"},
            attrs={"law": bd.LAWS["busbridge2025"].with_fixed(gamma=1).to_json()},
        )
    )
    for entry in (bd.cite(fit354) + "\n" + chinchilla).strip().split("\n\n"):
        assert entry.count("{") == entry.count("}"), entry
        fields = dict(re.findall(r"^  (\w+) *= *\{(.*?)\},?$", entry, re.MULTILINE | re.DOTALL))
        assert {"title", "author"} <= set(fields), entry
        assert not re.search(r"\bothers\b", fields["author"])
        assert {"doi", "eprint", "url", "volume", "version"} & set(fields), entry


def test_coordinates_that_the_runs_leave_as_wide_as_the_prior_are_named(fit354):
    from bayesdistill.posterior import prior_dominated

    rng = np.random.default_rng(5)
    scales = np.array([1.0, 0.85, 0.6, 0.1])
    z = scales * rng.standard_normal((4, 2000, 4))
    draws = xr.Dataset({"z": (("chain", "draw", "coordinate"), z)}, coords={"coordinate": list("abcd")})
    fit = xr.DataTree.from_dict({"posterior": draws})
    assert prior_dominated(fit) == ["a", "b"]
    assert prior_dominated(fit, share=0.5) == ["a", "b", "c"]
    # No run is supervised: the supervised law is the prior's. The runs determine the residual scale.
    named = prior_dominated(fit354)
    assert "log_loss" in named
    assert "log_sigma" not in named


@pytest.mark.slow
def test_the_demo_leaves_what_it_says(fit354, monkeypatch, tmp_path, capsys):
    from bayesdistill import demo
    from bayesdistill.reporting import answer_sentences

    monkeypatch.setattr("bayesdistill.fit", lambda runs, seed: fit354)
    monkeypatch.setattr(demo, "STUDENTS", (3e8, 1e9))
    monkeypatch.setattr(demo, "BUDGETS", np.geomspace(1e20, 1e22, 3))
    demo.run_demo(tmp_path / "out")
    named = re.findall(rf"^  {re.escape(str(tmp_path))}/out/(\S+)$", capsys.readouterr().out, re.MULTILINE)
    assert {"report.html", "fit.nc", "plan.nc", "plan.csv", "probability.png"} <= set(named)
    assert all((tmp_path / "out" / name).stat().st_size for name in named)
    planned = bd.load(tmp_path / "out" / "plan.nc")
    readme = (tmp_path / "out" / "README.md").read_text()
    page = html.unescape((tmp_path / "out" / "report.html").read_text())
    for sentence in answer_sentences(fit354, planned):
        assert sentence in " ".join(readme.split())
        assert sentence in page
    for name in re.findall(r"^\| `([^`]+)`", readme, re.MULTILINE):
        assert (tmp_path / "out" / name).exists()


def test_bare_draws_make_a_report(published_draw: xr.Dataset):
    assert b"<html" in report_files(published_draw)["report.html"]


def test_a_report_of_pretraining_alone(supervised_runs):
    data = xr.Dataset({name: ("supervised_run", supervised_runs[name].values) for name in ("params", "tokens")})
    observed = xr.Dataset({"loss": ("supervised_run", supervised_runs["loss"].values)})
    rng = np.random.default_rng(0)
    law = bd.LAWS["tied_reducible"].with_discrepancy().for_tables(None, supervised_runs)
    values = {**bd.PUBLISHED, "sigma": 0.004, "nu": 8.0, "noise_excess": 0.2}
    drawn = {p.name: (("chain", "draw"), values[p.name] * rng.lognormal(0, 0.01, (4, 250))) for p in law.parameters}
    kept = posterior.with_law(xr.Dataset(drawn), law, None)
    fit = xr.DataTree.from_dict({"posterior": kept, "constant_data": data, "observed_data": observed})
    found = bd.compute_optimal(fit, [1e20, 1e22, 1e25], noise="law")
    files = report_files(fit, found, date="2026-01-02")
    page = files["report.html"].decode()
    assert "<h1>Compute-optimal pretraining</h1>" in page
    size, tokens = (style.short(found[name][1].item()) for name in ("params", "tokens"))
    assert f"For 1e22 FLOPs, the compute-optimal size is {size} parameters" in page
    assert f"on {tokens} tokens, with a loss of {found['loss'][1].median().item():.3f} nats" in page
    assert {"figures/compute_optimal.png", "tables/optimal.md"} <= set(files)
    assert "outside the range of the data" in page
    assert "bd.compute_optimal" in report_files(fit, date="2026-01-02")["report.html"].decode()
    other = fit.copy()
    other["posterior"] = xr.DataTree(kept.assign(E=1.01 * kept["E"]))
    with pytest.raises(bd.ParameterError, match="another"):
        report_files(other, found)


# The first page -----------------------------------------------------------------------------------------------------------


def test_the_first_page_has_the_answer_of_the_plan(files, fit354, planned):
    page = files["report.html"].decode()
    first, appendix = page.split('<h1 id="appendix">')
    table = first_page.rows(planned)
    assert len(table) <= 8
    for row in table.itertuples(index=False):
        cell = planned.sel(scenario=row[1], budget=float(row[2]), student={"300M": 3e8, "1B": 1e9}[row[0]])
        chance, error = float(cell["probability"]), float(cell["probability_mcse"])
        assert posterior.tenths(chance) == row[3].split(" (")[0]
        if row[5] == "distill":
            assert chance - 2 * error >= 0.9
        if row[5] == "pretrain":
            assert chance + 2 * error <= 0.1
        if row[5] in ("distill", "pretrain"):
            assert float(cell["extrapolation"]) <= 10
            assert bool(cell["laws_agree"])
        assert (row[6] == "inside") == (not bool(cell["extrapolates"]))
    assert "were digitized from a figure of Busbridge et al. (2025)" in first
    assert first_page.headline(planned) in first.replace("&#39;", "'")
    for name in ("log_loss", "log_gamma", "gap_curvature"):
        assert name not in first
        assert name in appendix
    for scenario, words in first_page.MEANINGS.items():
        assert f"<em>{scenario}</em>: {words}" in appendix.replace("&#39;", "'")
    anchors = re.findall(r'href="#(\w+)"', appendix)
    assert anchors
    assert all(f'<h2 id="{anchor}">' in appendix for anchor in anchors)
    assert "tables/plan.md" in first
    assert files["tables/plan.md"].decode().count("\n") >= planned["probability"].size


@pytest.mark.parametrize(("chance", "far", "agree", "expected"), [
    (0.99, 1.0, True, "distill"), (0.01, 1.0, True, "pretrain"), (0.5, 1.0, True, "undetermined"), (0.905, 1.0, True, "undetermined"),
    (0.99, 11.0, True, "undetermined"), (0.99, 1.0, False, "undetermined"), (np.nan, 1.0, True, "impossible"),
])  # fmt: skip
def test_nothing_is_recommended_far_from_the_data_or_against_other_laws(chance, far, agree, expected):
    cell = xr.Dataset({"probability": chance, "probability_mcse": 0.01, "extrapolation": far, "laws_agree": agree})
    assert first_page.advice(cell) == expected


def test_one_page_needs_a_plan_and_has_no_appendix(jittered_draws, fit354, planned, tmp_path, monkeypatch, capsys):
    with pytest.raises(bd.ParameterError, match="one page requires a plan"):
        bd.report(jittered_draws, folder=tmp_path, one_page=True)
    bd.save(fit354, tmp_path / "fit.nc")
    bd.save(planned, tmp_path / "plan.nc")
    names = [str(tmp_path / name) for name in ("fit.nc", "plan.nc", "out")]
    code, _, err = run(monkeypatch, capsys, "report", names[0], "--plan", names[1], "-o", names[2], "--one-page")
    assert code == 0, err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Appendix" not in page
    assert page.count("data:image/png;base64,") == 1


PAGES = {
    "grid": lambda fit: bd.plan(fit, ["300M", "1B", "3B", "10B"], np.geomspace(1e19, 1e25, 13), draws=100),
    "one budget": lambda fit: bd.plan(fit, "1B", 3e21, draws=100),
    "one student": lambda fit: bd.plan(fit, "1B", np.geomspace(1e20, 1e24, 9), draws=100),
    "family": lambda fit: bd.family_plan(fit, ["300M", "1B", "3B"], 3e20, delta_pre=0.0),
    "own teachers": lambda fit: bd.plan(fit, ["500M", "1B"], [1e21, 1e22], teachers=TEACHERS, draws=100),
    "pretraining alone": lambda fit: bd.compute_optimal(fit, [1e21, 1e22]),
}
TEACHERS = pd.DataFrame({"name": ["open 8B", "own 3B"], "params": [8e9, 3e9], "loss": [1.98, 2.1]})
STORED = ("one budget", "one student", "family", "own teachers")
"""Pages with a stored image. `python tests/test_report.py` makes them; look at every one of them before committing it."""
TOLERANCE = 3.0
"""Root mean square of the difference in gray levels of quarter-size images: letters are blurred, lines that move are not."""


@contextlib.contextmanager
def browser_tab():
    """A tab of chromium that prints."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine; the report was not printed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def image_of_page(tab, path: Path) -> Path:
    """Save page one as it is printed on A4, with the fonts of matplotlib, which are the same on every machine."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name, weight in (("DejaVuSans.ttf", "normal"), ("DejaVuSans-Bold.ttf", "bold")):
        data = base64.b64encode((fonts / name).read_bytes()).decode()
        face = f"font-family: stored; font-weight: {weight}; src: url(data:font/ttf;base64,{data})"
        tab.add_style_tag(content=f"@font-face {{ {face} }} body {{ font-family: stored !important; }}")
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 680, "height": 1009})  # 180 x 267 mm
    tab.evaluate("document.fonts.ready")
    tab.screenshot(path=path)
    return path


def difference_of(one: Path, other: Path) -> float:
    gray = [np.asarray(Image.open(path).convert("L").reduce(4), dtype=float) for path in (one, other)]
    return float(np.sqrt(np.mean((gray[0] - gray[1]) ** 2)))


@pytest.mark.slow
@pytest.mark.parametrize("case", PAGES)
def test_page_one_is_one_page(case, fit354, tmp_path):
    """Printed by a browser on A4 and on letter paper; the full report begins with the same page."""
    with browser_tab() as tab:
        bd.report(fit354, PAGES[case](fit354), folder=tmp_path, one_page=True, date="2026-01-02")
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.goto(f"file://{tmp_path}/report.html")
        for options in ({"format": "A4"}, {"format": "Letter"}, {"prefer_css_page_size": True}):
            assert len(re.findall(rb"/Type\s*/Page\b", tab.pdf(**options))) == 1, options
        for width in (360, 768, 1280):
            tab.set_viewport_size({"width": width, "height": 800})
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert not said
        # What page one looks like: an answer in bold, one figure, a table within the page and three caveats.
        pictures = tab.locator("img").evaluate_all(
            "all => all.map(one => [one.naturalWidth, one.getBoundingClientRect().width])"
        )
        assert len(pictures) == 1
        assert pictures[0][0] > 500
        assert pictures[0][1] > 400
        if case != "pretraining alone":
            assert tab.locator("p > strong").first.inner_text().startswith("With ")
            assert 1 <= tab.locator("tbody tr").count() <= 8
            wide = "all => all.map(one => one.scrollWidth - one.clientWidth)"
            assert max(tab.locator(".wide").evaluate_all(wide)) <= 0
            assert tab.locator("section.first li").count() == 3
        if case in STORED:
            stored = BASELINE / f"report_{case.replace(' ', '_')}.png"
            assert difference_of(stored, image_of_page(tab, tmp_path / "page.png")) < TOLERANCE
            tab.add_style_tag(content="tbody tr:first-child { display: none; }")
            assert difference_of(stored, image_of_page(tab, tmp_path / "without.png")) > TOLERANCE


@pytest.mark.slow
def test_the_whole_report_of_a_family_fits_every_screen(fit354, tmp_path):
    bd.report(fit354, PAGES["family"](fit354), folder=tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Cost scenarios" not in page  # a family has none
    assert page.count("Probability above 0.95 that this is better than pretraining all") == 1
    with browser_tab() as tab:
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.goto(f"file://{tmp_path}/report.html")
        for width in (360, 768, 1280):
            tab.set_viewport_size({"width": width, "height": 800})
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert not said


def test_a_gain_of_zero_has_no_sign_and_no_cell_is_one_time_outside():
    assert [style.signed(value, 3) for value in (-0.0004, 0.0004, -0.0006, 0.0)] == [
        "0.000",
        "0.000",
        "-0.001",
        "0.000",
    ]
    distances = [first_page._distance(xr.Dataset({"extrapolation": far})) for far in (1.0, 1.001, 1.04, 2.5, 833.0)]
    assert distances == ["inside", "1.01 times outside", "1.04 times outside", "2.5 times outside", "833 times outside"]


if __name__ == "__main__":
    fitted = bd.fit(bd.load_runs("busbridge2025"), seed=0, progress=False)
    for case in STORED:
        with tempfile.TemporaryDirectory() as folder, browser_tab() as shown:
            shown.goto(
                f"file://{bd.report(fitted, PAGES[case](fitted), folder=folder, one_page=True, date='2026-01-02')}"
            )
            print(image_of_page(shown, BASELINE / f"report_{case.replace(' ', '_')}.png"))
