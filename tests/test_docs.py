"""The documentation: its Python blocks run, its site builds without a warning and holds up in a browser.

A block that samples (`bd.fit(`) is left out of the fast test, which has a fit at hand under the name `fit`; the slow test runs every
page from top to bottom as a reader would.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import bayesdistill as bd

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md"]
    + [path for path in (ROOT / "docs").rglob("*.md") if not {"_build", "generated"} & set(path.parts)]
)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAMPLES = re.compile(r"\bbd\.(fit|leave_out)\(")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def blocks(page: Path) -> list[tuple[int, str]]:
    """Line and source of each Python block."""
    text = page.read_text(encoding="utf-8")
    return [(text[: found.start(1)].count("\n"), found[1]) for found in BLOCK.finditer(text)]


def run(page: Path, names: dict[str, object], *, sampling: bool) -> int:
    """Run the blocks of a page one after the other in one namespace; tracebacks name the page and its line."""
    done = 0
    for line, source in blocks(page):
        if SAMPLES.search(source) and not sampling:
            continue
        exec(compile("\n" * line + source, str(page), "exec"), names)
        done += 1
    return done


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


WITH_BLOCKS = [page for page in PAGES if blocks(page)]
FAST = [page for page in WITH_BLOCKS if any(not SAMPLES.search(source) for _, source in blocks(page))]
SLOW = [page for page in WITH_BLOCKS if any(SAMPLES.search(source) for _, source in blocks(page))]


def test_pages_have_blocks_and_none_is_overlooked():
    assert len(FAST) >= 9
    for page in PAGES:
        fences = re.findall(
            r"^\s*[`~:]{3,}\s*\{?(?:code-cell|code-block|code|python|py|ipython3?)\b.*$", page.read_text(), re.M
        )
        assert len(fences) == len(blocks(page)), f"{name(page)}: write ```python, at the start of a line"


# The blocks of one page take as long as those of all others.
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow)
        if page.stem in ("what-it-is-worth", "target-loss", "lifetime-cost")
        else page
        for page in FAST
    ],
    ids=name,
)
def test_blocks_run(page, fit354, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    posterior = fit354["posterior"].to_dataset()
    # Half of the draws: as many pages run in half of the time.
    few = fit354.copy()
    few["posterior"] = type(fit354)(posterior.isel(draw=slice(None, None, 2)))
    names: dict[str, object] = {"__name__": "page", "bd": bd, "fit": few, "runs": bd.load_runs("busbridge2025")}
    assert run(page, names, sampling=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW, ids=name)
def test_pages_run_as_a_reader_would(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(page, {"__name__": "page"}, sampling=True) == len(blocks(page))


def test_what_the_pages_say_of_the_runs_is_so(capsys):
    page = ROOT / "docs" / "explanation" / "misfit.md"
    exec(blocks(page)[0][1], {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    for line in printed:
        assert f"`{line}`" in " ".join(page.read_text().split())


def test_what_the_pages_say_of_the_fit_is_so(fit354, capsys):
    page = ROOT / "docs" / "explanation" / "misfit.md"
    names: dict[str, object] = {"bd": bd, "fit": fit354}
    run(page, names, sampling=False)
    elsewhere = capsys.readouterr().out.splitlines()[2:]
    numbers = [float(re.findall(r"-?\d\.\d+", line)[0]) for line in elsewhere]
    stated = " ".join(page.read_text().split())
    found = re.search(r"prints (\S+), (\S+) and (\S+) nats", stated)
    assert found is not None
    # The fit of another machine may round otherwise from the first step on; what is stated holds to its last digit but one.
    assert numbers[:3] == pytest.approx([float(value) for value in found.groups()], abs=5e-4)
    left = re.search(
        r"It prints (0\.\d+) and (0\.\d+) nats, slopes of (.*?) for .*? and of (.*?) for", stated, re.DOTALL
    )
    assert left is not None
    assert numbers[3:5] == pytest.approx([float(value) for value in left.groups()[:2]], abs=2e-4)
    for line, words in zip(elsewhere[5:7], left.groups()[2:], strict=True):
        printed = [float(value) for value in re.findall(r"-?\d+\.\d+", line)]
        assert printed == pytest.approx([float(value) for value in re.findall(r"-?\d+\.\d+", words)], abs=0.4)
    shares = [float(line.split(": ")[1]) for line in elsewhere[7:]]
    bent = re.search(r"It prints (\S+) and (\S+) for 143M, (\S+) and (\S+) for 198M, (\S+) and (\S+) for 546M", stated)
    assert bent is not None
    assert shares == pytest.approx([float(value) for value in bent.groups()], abs=0.03)


def test_what_the_page_on_students_says_of_the_fit_is_so(fit354, capsys):
    page = ROOT / "docs" / "how-to" / "choose-a-student.md"
    names: dict[str, object] = {"bd": bd, "fit": fit354}
    exec(blocks(page)[1][1], names)
    stated, found = " ".join(page.read_text().split()), names["found"]
    numbers = r"(\d\.\d+) \((\d\.\d+) to (\d\.\d+)\) \| (\S+)B"
    rows = re.findall(rf"\| (\w+) \| {numbers} \| {numbers} \| ([a-z ]*\d\.\d+) \|", stated)
    assert [row[0] for row in rows] == ["500M", "1B", "3B"]
    table = bd.decision_table(found).set_index(["scenario", "student"])
    for (_, *printed, chance), student in zip(rows, found["student"].values, strict=True):
        row = table.loc["teacher inference", student]
        values = [row[f"distilled_loss_{end}"] for end in ("median", "lower", "upper")] + [row["student_tokens"] / 1e9]
        values += [row[f"supervised_loss_{end}"] for end in ("median", "lower", "upper")] + [
            row["pretraining_tokens"] / 1e9
        ]
        for stands, value in zip(map(float, printed), values, strict=True):
            # Tokens follow from the budget; losses of the fit of another machine may differ by their Monte Carlo errors.
            assert value == pytest.approx(stands, rel=4e-3 if stands > 10 else 1e-9, abs=3e-3 if stands < 10 else 0)
        assert float(chance.split()[-1]) == pytest.approx(row["probability"], abs=0.06)
    for scenario in ("best case", "teacher inference"):
        assert found["best"].sel(scenario=scenario).item() == 3e9
        assert table.loc[(scenario, 3e9), "is_best_size_probability"] > 0.95
    free = table.loc["best case", 3e9]
    assert free["option"] == "distill"
    assert table.loc[("teacher inference", 3e9), "option"] == "pretrain"
    said = re.search(r"distill it: (\S+) nats \((\S+) to (\S+)\) on (\S+)B tokens", stated)
    assert said is not None
    *losses, tokens = map(float, said.groups())
    assert losses == pytest.approx([free[f"distilled_loss_{end}"] for end in ("median", "lower", "upper")], abs=3e-3)
    assert tokens == pytest.approx(free["student_tokens"] / 1e9, rel=4e-3)
    assert f"they take {table.loc[('teacher inference', 3e9), 'teacher_inference_share']:.0%} of the budget" in stated
    far = table.loc[("best case", 5e8)]
    assert (
        f"{far['pretraining_tokens'] / 1e9:.0f}B tokens for 500M parameters are {far['extrapolation']:.1f} times"
        in stated
    )
    assert far["extrapolation_axis"] == "pretraining_tokens_per_param"
    assert "so ask about larger ones" in stated
    assert "largest, so that other sizes may be better" in capsys.readouterr().out


@pytest.mark.slow
def test_what_the_page_on_lifetime_cost_says_of_the_fit_is_so(fit354, capsys):
    page = ROOT / "docs" / "how-to" / "lifetime-cost.md"
    names: dict[str, object] = {"bd": bd, "fit": fit354}
    exec(blocks(page)[1][1], names)
    stated, table = page.read_text(), bd.decision_table(names["found"])
    size, loss, share = r"(\S+)B \((\S+)B to (\S+)B\)", r"(\S+) \((\S+) to (\S+)\)", r"(\d+)%"
    rows = re.findall(rf"^\| \w+ \| {size} \| {loss} \| {share} \| {size} \| {loss} \| {share} \|$", stated, re.M)
    assert len(rows) == len(table) == 3
    for row, (_, found) in zip(rows, table.iterrows(), strict=True):
        for numbers, name, short, of in (
            (row[:7], "distilled", "distilled_loss", "serving_share"),
            (row[7:], "pretraining", "supervised_loss", "pretraining_serving_share"),
        ):
            values = [float(value) for value in numbers]
            ends = [found[f"{name}_best_params_{end}"] / 1e9 for end in ("lower", "upper")]
            assert values[:3] == pytest.approx([found[f"{name}_params"] / 1e9, *ends], rel=0.04)
            assert values[3:6] == pytest.approx(
                [found[f"{short}_{end}"] for end in ("median", "lower", "upper")], abs=3e-3
            )
            assert values[6] == pytest.approx(100 * found[of], abs=1.5)
    assert (table["option"] == "distill").all()
    assert table["probability"].is_monotonic_decreasing
    exec(blocks(page)[3][1], names)
    assert names["cost"]["option"].values.ravel().tolist() == [1, 0]
    capsys.readouterr()


@pytest.mark.slow
def test_what_the_page_on_families_says_of_the_fit_is_so(fit354, capsys):
    page = ROOT / "docs" / "how-to" / "share-a-teacher.md"
    names: dict[str, object] = {"bd": bd, "fit": fit354}
    for _, source in blocks(page)[-2:]:
        exec(source, names)
    added, stated = names["added"], " ".join(page.read_text().split())
    said = re.search(
        r"Another 500M student costs (\S+) FLOPs, .* and a 2B student (\S+)\. .* they have (\S+) and (\S+) nats more",
        stated,
    )
    assert said is not None
    *costs, first, second = (float(value.rstrip(".")) for value in said.groups())
    assert added["marginal_budget"].values == pytest.approx(costs, rel=0.03)
    assert added["expected_gain"].values == pytest.approx([first, second], abs=2e-3)
    own = names["family"]["student_budget"].sel(option="plan", student=5e8).item()
    assert added["marginal_budget"].values[0] == pytest.approx(own, rel=2e-3)
    assert capsys.readouterr().out.count("One more student") == 2


@pytest.mark.slow
def test_what_the_page_on_explanations_says_of_the_fit_is_so(fit354, capsys):
    page = ROOT / "docs" / "how-to" / "explain-an-answer.md"
    names: dict[str, object] = {"bd": bd, "fit": fit354}
    exec(blocks(page)[1][1], names)
    stated, found = " ".join(page.read_text().split()), names["found"]
    rows = re.findall(r"\| ([a-z ]+) \| (0\.\d+) \| (\d+)% \| (\d+)% \|", stated)
    assert [row[0] for row in rows] == found["part"].values[:5].tolist()
    for part, sd, *shares in rows:
        one = found.sel(part=part)
        assert one["gain_sd"].item() == pytest.approx(float(sd), abs=1.1e-3)
        values = [100 * one[f"{name}_share"].item() for name in ("gain", "probability")]
        assert values == pytest.approx([float(share) for share in shares], abs=3)
    assert abs(found[["gain_share", "probability_share"]].isel(part=slice(5, None))).to_dataarray().max() < 0.02
    said = re.search(r"the gain is (\S+) nats with a standard deviation of (\S+), and (\d+)% of its", stated)
    assert said is not None
    assert found["gain"].item() == pytest.approx(float(said[1]), abs=1e-3)
    assert found["gain_total"].item() ** 0.5 == pytest.approx(float(said[2]), abs=1e-3)
    best = found["reduction"].idxmax().item()
    assert best.startswith("143M on 22.9B tokens, pretrained")
    assert 0.03 < found["reduction"].max() < 0.08
    assert "candidate runs" in capsys.readouterr().out


def test_every_public_name_stands_in_the_reference():
    listed: list[str] = []
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        listed += re.findall(r"^   (\w+)$", page.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(set(bd.__all__) - {"__version__"})


def test_no_line_of_a_page_is_taken_for_a_comment():
    """MyST leaves out a line that begins with a percent sign, as a wrapped "85%" may."""
    for page in PAGES:
        assert not re.findall(r"^\s*%.*", page.read_text(), re.MULTILINE), page


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{name(page)} links to {target}"


@pytest.mark.parametrize(
    "formula",
    [r"L_S = L_T + L_T^{-c_0}", r"\frac{a}{b}", r"P\left(L_S(s^*) < L_\mathrm{sup} \mid \mathrm{runs}\right)"],
)
def test_formulas_become_outlines_with_a_text(formula):
    mathtext = load("mathtext")
    drawn = mathtext.draw(formula, display=True)
    assert drawn.count("<svg") == 1
    assert 'role="img"' in drawn
    assert re.search(r' d="M[-0-9.]', drawn)
    assert "&lt;" in drawn or "<" not in formula


def test_a_formula_that_cannot_be_set_stops_the_build():
    from sphinx.errors import ExtensionError

    with pytest.raises(ExtensionError, match="nosuchsymbol"):
        load("mathtext").draw(r"\nosuchsymbol", display=False)


def test_every_dependency_has_its_reason_and_a_hashed_pin():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = stated["dependency-groups"]
    page = (ROOT / "docs" / "dependencies.md").read_text().lower()
    pinned = (ROOT / "requirements.txt").read_text()
    pins = dict(re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==(\S+)(?=.*\\\n +--hash)", pinned, re.MULTILINE))
    for text in [*stated["project"]["dependencies"], *(text for group in groups.values() for text in group)]:
        assert re.split(r"[\[<>=]", text)[0] in page, text
    for text in [*stated["project"]["dependencies"], *groups["test"], *groups["docs"], *groups["build"]]:
        name, bounds = re.fullmatch(r"([\w.-]+)(?:\[[^\]]*\])?(.*)", text).groups()
        assert name in pins, f"{name} is not pinned; make lock"
        assert SpecifierSet(bounds).contains(pins[name]), f"the pin of {name} is out of date; make lock"


def test_the_page_of_terms_has_every_symbol_once():
    rows = load("parameters").table().splitlines()[2:]
    names = [re.match(r"\| `(\w+)` \| \S.* \|", row)[1] for row in rows]
    declared = tomllib.loads((ROOT / "bayesdistill" / "law" / "symbols.toml").read_text(encoding="utf-8"))
    symbols = [symbol for part in declared.values() for symbol in part.get("parameters", {})]
    assert sorted(names) == sorted(symbols + [f"sigma_{name}" for name in declared["effects"]])
    page = (ROOT / "docs" / "reference" / "terms.md").read_text(encoding="utf-8")
    assert "{include} generated/parameters.txt" in page
    terms = re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)
    assert len(terms) > 50
    assert len({*terms} - {"term", "---"}) == len([term for term in terms if term not in ("term", "---")])


def load(name: str):
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built anew with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-E",
        "-b",
        "html",
        "-d",
        str(folder / "doctrees"),
    ]
    done = subprocess.run([*command, str(ROOT / "docs"), str(folder / "html")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_nobody_for_anything(site):
    for page in (
        "index",
        "tutorial",
        "how-to/own-runs",
        "explanation/model",
        "performance",
        "dependencies",
        "changelog",
    ):
        assert (site / f"{page}.html").is_file()
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert (site / "tutorial" / f"{notebook.stem}.html").is_file()
    for public in set(bd.__all__) - {"__version__"}:
        assert (site / "reference" / "generated" / f"bayesdistill.{public}.html").is_file()
    loads = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^\"]*\"")
    for page in site.rglob("*.html"):
        assert not [tag for tag in loads.findall(page.read_text()) if 'rel="canonical"' not in tag], page.name


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine; the site was not looked at in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]  # chromium refuses to run as root with it
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield started
        started.close()


@pytest.fixture
def open_page(browser, address):
    """Opens a page of the site; fails if it asks another server for something, misses a file or has a script that fails."""
    contexts, trouble = [], []

    def open_one(path: str, width: int = 1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: request.url.startswith((address, "data:")) or trouble.append(request.url))
        page.on(
            "response", lambda response: response.status < 400 or trouble.append(f"{response.status} {response.url}")
        )
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto(f"{address}/{path}", wait_until="load")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not [entry for entry in trouble if not entry.endswith("favicon.ico")]


@pytest.mark.slow
def test_one_can_walk_through_the_site(open_page):
    page = open_page("index.html")
    for title, heading in (
        ("Tutorial", "Tutorial"),
        ("How to", "How to"),
        ("Explanation", "Explanation"),
        ("Reference", "Reference"),
    ):
        page.locator("header").get_by_role("link", name=title, exact=True).first.click()
        assert page.locator("article h1").first.inner_text().startswith(heading)
    page.locator("article").get_by_role("link", name="Decisions").first.click()
    page.locator("article").get_by_role("link", name="plan_value").first.click()
    assert "plan_value" in page.locator("article h1").first.inner_text()
    assert page.locator("article").get_by_text("gpu_flops_per_second").first.is_visible()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "heading"),
    [
        ("inference cost", "Count the cost of serving"),
        ("target loss", "Reach a target loss"),
        ("epochs", "Plan with limited data"),
    ],
)
def test_search_finds_what_planners_ask_for(open_page, words, heading):
    page = open_page(f"search.html?q={words.replace(' ', '+')}")
    page.locator("#search-results a", has_text=heading).first.wait_for(timeout=20_000)
    page.wait_for_timeout(500)
    assert heading in page.locator("#search-results li > a").all_inner_texts()[:6]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["index.html", "how-to/interactive.html"])
def test_axe_finds_nothing_on_pages(open_page, path, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="group docs is not installed")
    # Preloading resolves imports of style sheets against the page, where there are none.
    found = axe.Axe().run(open_page(path, color_scheme=scheme), options={"preload": False})
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.slow
def test_no_two_pages_share_a_title(site):
    texts = [path.read_text(encoding="utf-8") for path in site.rglob("*.html") if "_static" not in path.parts]
    titles = [found.group(1) for text in texts if (found := re.search(r"<title>(.*?)</title>", text, re.S))]
    assert len(titles) > 100
    assert not [title for title, count in Counter(titles).items() if count > 1]


@pytest.mark.slow
def test_nothing_is_cut_off_on_a_narrow_screen(open_page, site):
    """Whatever is wider than the screen is in a box that scrolls."""
    page = open_page("index.html", width=400)
    base, found = page.url.removesuffix("index.html"), {}
    for path in site.rglob("*.html"):
        if {"generated", "_static"} & set(path.parts):
            continue
        name = str(path.relative_to(site))
        page.goto(base + name)
        cut = page.evaluate(
            """() => [...document.querySelectorAll("article *")].filter(one => {
                const box = one.getBoundingClientRect()
                if (box.width === 0 || box.right <= 400.5) return false
                for (let up = one.parentElement; up && up.tagName !== "ARTICLE"; up = up.parentElement)
                    if (["auto", "scroll"].includes(getComputedStyle(up).overflowX)) return false
                return true
            }).map(one => one.textContent.trim().slice(0, 60))"""
        )
        if cut:
            found[name] = cut
    assert not found


@pytest.mark.slow
def test_search_finds_a_function(open_page):
    page = open_page("search.html?q=plan_value")
    found = page.locator("#search-results a", has_text="plan_value").first
    found.wait_for(timeout=20_000)
    found.click()
    assert "plan_value" in page.locator("article h1").first.inner_text()


@pytest.mark.slow
def test_figures_load(open_page, site):
    pages = ["index.html"] + [f"tutorial/{path.name}" for path in (site / "tutorial").glob("*.html")]
    for path in pages:
        page = open_page(path)
        widths = page.locator("article img").evaluate_all("images => images.map(i => i.complete ? i.naturalWidth : 0)")
        assert widths, f"{path} has no figure"
        assert min(widths) > 100


@pytest.mark.slow
def test_mathematics_is_drawn(open_page):
    page = open_page("explanation/law.html")
    shown = page.locator("article svg.formula")
    boxes = shown.evaluate_all(
        "all => all.map(f => { const b = f.getBoundingClientRect(); return [b.width, b.height] })"
    )
    assert len(boxes) > 10
    assert all(width > 3 and height > 5 for width, height in boxes)
    assert max(width for width, _ in boxes) > 300  # equation 8
    text = page.locator("article").inner_text()
    assert "$" not in text
    assert r"\mathrm" not in text


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_scrolls_sideways_on_a_narrow_screen(open_page, site, scheme):
    paths = [
        str(path.relative_to(site)) for path in site.rglob("*.html") if not {"generated", "_static"} & set(path.parts)
    ]
    paths.append("reference/generated/bayesdistill.compare_crossovers.html")  # the longest signature
    page = open_page("index.html", width=390, color_scheme=scheme)
    base = page.url.removesuffix("index.html")
    wide = {}
    for path in paths:
        page.goto(base + path)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > 390:
            wide[path] = width
    assert not wide
