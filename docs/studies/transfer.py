"""Does the shape of an earlier fit help a study of another corpus? Tables of explanation/transfer.md.

    python docs/studies/transfer.py FOLDER [--parts subsets sampling joint calibration] [--first 0] [--seeds 20] [--quick]

`subsets` fits random subsets of the runs of one study, with the fit of the other study as prior in several ways, and predicts the other
runs of the same study. "shifted" are runs simulated from the fit of the paper's runs, with E and all losses 0.1 nats higher or lower.
These fits sample once, with the first settings of `bd.fit`. `sampling` fits shifted runs with default settings and prints convergence.
`joint` compares the shape of an earlier fit with a joint model of both studies, in which the difference between the studies has a
half-normal prior. `calibration` is simulation-based calibration with 15 runs. Both are without group effects and discrepancy.
Results are rows in FOLDER, and an interrupted study resumes from them.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import arviz_stats
import numpy as np
import pandas as pd
import xarray as xr
from common import parser
from prospective import fitted_to

import bayesdistill as bd
from bayesdistill import compiler, posterior
from bayesdistill.criticism.left_out_scores import Fitted, run_predictions
from bayesdistill.datasets.schemas import KINDS
from bayesdistill.law import Draws, Law, Prior, Reference
from bayesdistill.model import reference_run
from bayesdistill.priors import default_priors, with_priors, without_published_law
from bayesdistill.sampling._prior_table import choose_priors
from bayesdistill.sampling.nuts import MAX_TREEDEPTH, PATH_SETTINGS, sample

if TYPE_CHECKING:
    import pymc as pm

SHIFT = 0.1
ONCE = {name: PATH_SETTINGS[0][name] for name in ("draws", "tune", "target_accept")}
INDEPENDENT = float(np.sqrt(2))
"""`between_studies` without any effect of the earlier fit: default priors without the published law."""
PRIORS: dict[str, dict[str, Any] | None] = {
    "default": None,
    "without published law": {"transfer": "shape", "between_studies": INDEPENDENT},
    "all": {"transfer": "all"},
    "shape": {"transfer": "shape"},
}
"""Arguments of `fit` in addition to the earlier fit; None fits without it."""
STUDIES = {
    "tiny, 15 distilled": ("tiny", 15, 0),
    "tiny, 15 distilled and 8 supervised": ("tiny", 15, 8),
    "paper, 15 distilled": ("paper", 15, 0),
    "shifted, 15 distilled": ("shifted", 15, 0),
}
"""Name -> study, and numbers of distilled and of supervised runs."""
BAD = (("all", "tiny"), ("all", "paper"), ("default", "tiny, 15 distilled"))
FEW = 2
"""Number of subsets with priors of another corpus, with which losses are off by 0.1 nats or more and fits are slow."""
SIMPLE = bd.LAWS["tied_reducible"].with_discrepancy().with_effects().with_residual_noise(supervised="constant")
"""The default law with independent residuals, for the joint model."""
BETWEEN = 0.5
"""Scale of the half-normal prior of the difference between studies in the joint model, in prior standard deviations."""


def earlier_fit(study: str, folder: Path, law: Law | str = "tied_reducible", suffix: str = "") -> xr.DataTree:
    """Return the fit of the whole study that is the prior of the other study."""
    name = "busbridge2025" if study == "paper" else "tiny"
    file = folder / f"{name}{suffix}.nc"
    if not file.exists():
        supervised = bd.load_runs(name, kind="supervised") if name == "tiny" else None
        bd.save(bd.fit(bd.load_runs(name), supervised, law=law, seed=0, progress=False), file)
    return bd.load(file)


def shifted_runs(fit: xr.DataTree, seed: int) -> pd.DataFrame:
    """Return runs of the law of a fit, with E and the losses of teachers and students higher (even seeds) or lower by SHIFT."""
    draws = posterior.draws_of(fit)
    law, reference = draws.law.with_discrepancy(), draws.reference
    means = {name: float(np.mean(value)) for name, value in draws.law.coordinates_of(draws, reference).items()}
    symbols = {name: float(value) for name, value in law.symbols(means, reference).items()}
    noise = {"sigma": float(np.exp(means["log_sigma"])), "student_sd": float(np.exp(means["log_sigma_student"]))}
    runs = bd.simulate_runs(symbols, design=bd.load_runs(), law=law, seed=seed, **noise)
    shift = SHIFT if seed % 2 == 0 else -SHIFT
    return runs.assign(teacher_loss=runs["teacher_loss"] + shift, student_loss=runs["student_loss"] + shift)


def tables_of(study: str, earlier: xr.DataTree, seed: int) -> dict[str, pd.DataFrame]:
    """Return all runs of a study by kind."""
    if study == "shifted":
        return {"distilled": shifted_runs(earlier, seed)}
    if study == "paper":
        return {"distilled": bd.load_runs()}
    return {kind: bd.load_runs("tiny", kind=kind) for kind in ("distilled", "supervised")}


def subset(runs: pd.DataFrame, size: int, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Return random runs, and their mask."""
    kept = np.zeros(len(runs), dtype=bool)
    kept[rng.choice(len(runs), size, replace=False)] = True
    some = runs[kept].reset_index(drop=True)
    some.attrs["allow_suspicious"] = True  # a dozen runs of a few configurations look implausible
    return some, kept


def subset_of(
    runs: dict[str, pd.DataFrame], sizes: tuple[int, int], seed: int
) -> tuple[dict[str, pd.DataFrame], dict[str, np.ndarray], dict[str, pd.DataFrame]]:
    """Return random runs of each kind, their masks, and all runs of the kinds that have some."""
    rng = np.random.default_rng(seed)
    some, kept, used = {}, {}, {}
    for (kind, whole), size in zip(runs.items(), sizes, strict=False):
        if size:
            some[kind], kept[kind] = subset(whole, size, rng)
            used[kind] = whole
    return some, kept, used


def fitted(*runs: pd.DataFrame | None, **options: Any) -> xr.DataTree:
    """Return a fit without warnings about corpus and convergence, which this study records."""
    with warnings.catch_warnings():
        for category in (bd.ConvergenceWarning, bd.DesignWarning, bd.ConflictWarning):
            warnings.simplefilter("ignore", category)
        return bd.fit(*runs, progress=False, cores=1, **options)


def scores(found: Fitted, seed: int) -> dict[str, float]:
    """Return mean scores of the distilled runs that were not fitted."""
    number = int((~found.kept["distilled"]).sum())
    scored = run_predictions(found, np.random.default_rng(seed))
    observed = found.runs["distilled"]["student_loss"].to_numpy()[~found.kept["distilled"]]
    error = np.asarray(scored["mean"])[:number] - observed
    means = {name: float(np.mean(scored[name][:number])) for name in ("crps", "elpd", "inside_50", "inside_90")}
    return means | {"bias": float(error.mean()), "rmse": float(np.sqrt((error**2).mean()))}


def convergence(fit: xr.DataTree) -> dict[str, Any]:
    found = posterior.convergence(fit)
    return {name: found[name] for name in ("rhat", "divergences", "failed", "treedepth_share")}


class Rows:
    """Rows of results in a file; rows that exist are not computed again."""

    def __init__(self, file: Path) -> None:
        self.file = file
        text = file.read_text() if file.exists() else ""
        self.rows = [json.loads(line) for line in text.splitlines()]

    def add(self, key: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> None:
        """Compute and store a row, unless there is one with this key."""
        if any(all(row[name] == value for name, value in key.items()) for row in self.rows):
            return
        began = time.process_time()
        self.rows.append(key | compute() | {"seconds": round(time.process_time() - began, 1)})
        with self.file.open("a") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")
        print(self.rows[-1], flush=True)


def summarize(rows: list[dict[str, Any]], baseline: str) -> None:
    """Print mean scores of the priors, and the ratio of their CRPS to the baseline in the same subsets, with its standard error."""
    frame = pd.DataFrame(rows)
    reference = frame[frame["priors"] == baseline].set_index(["runs", "seed"])["crps"].rename("crps_baseline")
    ratio = np.log(frame["crps"] / frame.join(reference, on=["runs", "seed"])["crps_baseline"])
    frame = frame.assign(ratio=ratio, better=(ratio < 0).where(ratio.notna()).astype(float))
    grouped = frame.groupby(["runs", "priors"], sort=False)
    summary = grouped[["crps", "elpd", "inside_90", "inside_50", "rmse", "better"]].mean()
    summary["median crps"], summary["median elpd"] = grouped["crps"].median(), grouped["elpd"].median()
    summary["crps / baseline"] = np.exp(grouped["ratio"].mean())
    summary["se of its log"] = grouped["ratio"].std() / np.sqrt(grouped.size())
    summary["subsets"], summary["not scored"] = grouped.size(), grouped["crps"].apply(lambda one: one.isna().sum())
    print(summary.round(4).to_string())


def subsets(folder: Path, seeds: range, quick: bool) -> None:
    """Score predictions of subsets of the runs of a study, for every use of the fit of the other study."""
    found = Rows(folder / "subsets.jsonl")
    fits = {study: earlier_fit(study, folder) for study in ("paper", "tiny")}

    def score(study: str, sizes: tuple[int, int], priors: str, seed: int) -> dict[str, Any]:
        earlier = fits["tiny" if study == "paper" else "paper"]
        some, kept, used = subset_of(tables_of(study, earlier, seed), sizes, seed)
        options = PRIORS[priors]
        given = {} if options is None else {"priors": earlier, **options}
        try:
            fit = fitted(some["distilled"], some.get("supervised"), seed=seed, **given, **ONCE)
        except bd.ModelError as error:  # the sampler finds no point with a finite density
            return {"error": str(error)}
        return scores(fitted_to(fit, used, kept), seed) | convergence(fit)

    for seed in seeds:
        for name, (study, *sizes) in STUDIES.items():
            for priors in PRIORS:
                if priors == "without published law" and sizes[1]:
                    continue  # the same as the default
                if seed >= FEW and ((priors, study) in BAD or (priors, name) in BAD):
                    continue
                key = {"runs": name, "priors": priors, "seed": seed}
                found.add(key, lambda: score(study, tuple(sizes), priors, seed))  # noqa: B023
            if quick:
                break
    summarize(found.rows, "default")


def sampling(folder: Path, seeds: range, quick: bool) -> None:
    """Fit 5, 15 and 40 shifted runs with default settings, with the shape and with all of the earlier fit as prior."""
    found = Rows(folder / "sampling.jsonl")
    earlier = earlier_fit("paper", folder)
    for seed in seeds[:5]:
        for size in (5, 15, 40):
            for transfer in ("shape", "all"):
                if transfer == "all" and size != 15:
                    continue

                def run(size: int = size, transfer: str = transfer, seed: int = seed) -> dict[str, Any]:
                    some, _ = subset(shifted_runs(earlier, seed), size, np.random.default_rng(seed))
                    fit = fitted(some, priors=earlier, transfer=transfer, seed=seed)
                    return convergence(fit) | {"attempts": len(posterior.provenance(fit)["attempts"])}

                found.add({"size": size, "transfer": transfer, "seed": seed}, run)
                if quick:
                    return
    print(pd.DataFrame(found.rows).to_string())


# The joint model ------------------------------------------------------------------------------------------------------


def joint_model(earlier: dict[str, pd.DataFrame], runs: dict[str, pd.DataFrame]) -> tuple[pm.Model, Law, Reference]:
    """Return the joint model of two studies, with the law and the reference run of the second one.

    Levels and noise of the studies are independent. A coordinate of the shape has the default prior Normal(m, s) in each study, and
    the correlation exp(-b^2 / 2), about 1 - b^2 / 2, between the studies, where b has a half-normal prior.
    """
    import pymc as pm
    import pytensor.tensor as pt

    with pm.Model() as model:
        # The package's compiler supports normal variables; the absolute value of one is half-normal.
        between = pm.Deterministic("between", BETWEEN * pt.sqrt(pt.sqr(pm.Normal("z_between")) + 1e-8))
        correlation = pt.exp(-pt.sqr(between) / 2)  # nearly 1 - between^2 / 2, but never negative
        known: dict[str, Any] = {}
        for name, tables in (("earlier", earlier), ("new", runs)):
            law = SIMPLE.for_tables(tables["distilled"], tables.get("supervised"))
            reference = reference_run(tables["distilled"], tables.get("supervised"))
            priors = default_priors(law, reference)
            if name == "new" and priors.supervised_law == "published law":
                priors = without_published_law(priors)
            z = pm.Normal(f"z_{name}", shape=int(priors.free.sum()))
            values = priors.location + priors.factor @ z
            c = {coordinate: values[i] for i, coordinate in enumerate(priors.names)}
            for one in law.coordinates:
                if one.shape and one.name in known:
                    # `c` alone has the default prior; with the earlier coordinate, its correlation with it.
                    own = c[one.name] - one.prior.location
                    pooled = correlation * (known[one.name] - one.prior.location)
                    c[one.name] = one.prior.location + pooled + pt.sqrt(1 - correlation**2) * own
            known = c
            p = law.reduced_symbols(c, reference)
            for statement, width in priors.theory.items():
                pm.Potential(f"{statement.name}_{name}", statement.log_density(law, p, reference, width))
            table = tables["distilled"]
            size, tokens, teacher, loss = (table[column].to_numpy(dtype=float) for column in KINDS["distilled"])
            mean = law.distilled_loss(law.student(size, tokens, p, reference), teacher, p)
            pm.StudentT(f"distilled_{name}", nu=p["nu"], mu=mean, sigma=p["sigma"], observed=loss)
            if "supervised" in tables:
                size, tokens, loss = (
                    tables["supervised"][column].to_numpy(dtype=float) for column in KINDS["supervised"]
                )
                mean = law.supervised_loss(size / reference.params, tokens / reference.tokens, p)
                pm.StudentT(f"supervised_{name}", p["nu"], mean, sigma=p["sigma_supervised"], observed=loss)
        for one in law.coordinates:
            pm.Deterministic(one.name, c[one.name])
    return model, law, reference


def joint_draws(
    earlier: dict[str, pd.DataFrame], runs: dict[str, pd.DataFrame], seed: int
) -> tuple[Draws, dict[str, Any]]:
    """Return draws of the law of the second study from the joint model, and diagnostics."""
    model, law, reference = joint_model(earlier, runs)
    compiled = compiler.compile(lambda: model, None)
    groups = sample(compiled, cores=1, progress=False, chains=4, seed=seed, maxdepth=MAX_TREEDEPTH, **ONCE)
    c = {one.name: groups["posterior"][one.name].values.ravel() for one in law.coordinates}
    between = groups["posterior"]["between"]
    kept = groups["posterior"][[name for name in groups["posterior"] if name in ("between", "z_earlier", "z_new")]]
    rhat = max(float(one.max()) for one in arviz_stats.rhat(kept).data_vars.values())
    return Draws(law, law.symbols(c, reference), reference), {
        "rhat": rhat,
        "divergences": int(groups["sample_stats"]["diverging"].sum()),
        "between": [round(float(between.quantile(q)), 2) for q in (0.05, 0.5, 0.95)],
    }


def joint(folder: Path, seeds: range, quick: bool) -> None:
    """Compare the joint model with the shape of an earlier fit, for the law without group effects and discrepancy."""
    found = Rows(folder / "joint.jsonl")
    fits = {study: earlier_fit(study, folder, SIMPLE, " simple") for study in ("paper", "tiny")}

    def score(study: str, sizes: tuple[int, int], priors: str, seed: int) -> dict[str, Any]:
        other = "tiny" if study == "paper" else "paper"
        some, kept, used = subset_of(tables_of(study, fits[other], seed), sizes, seed)
        if priors == "joint":
            draws, checks = joint_draws(tables_of(other, fits[other], seed), some, seed)
            return scores(Fitted(draws, {}, used, kept), seed) | checks
        options = PRIORS[priors]
        assert options is not None
        given = {"priors": fits[other], "law": SIMPLE, "seed": seed, **options, **ONCE}
        fit = fitted(some["distilled"], some.get("supervised"), **given)
        return scores(fitted_to(fit, used, kept), seed) | convergence(fit)

    for seed in seeds:
        for name, (study, *sizes) in STUDIES.items():
            if study == "shifted" or sizes[1]:
                continue
            for priors in ("without published law", "shape", "joint"):
                key = {"runs": name, "priors": priors, "seed": seed}
                found.add(key, lambda: score(study, tuple(sizes), priors, seed))  # noqa: B023
            if quick:
                break
    summarize(found.rows, "without published law")


def calibration(folder: Path, seeds: range, quick: bool) -> None:
    """Simulation-based calibration of fits of 15 runs, with truths drawn from the shape of the paper's fit and narrow levels."""
    runs, _ = subset(bd.load_runs(), 15, np.random.default_rng(0))
    reference = reference_run(runs, None)
    default = default_priors(SIMPLE.for_tables(runs, None), reference)
    earlier = earlier_fit("paper", folder, SIMPLE, " simple")
    priors = choose_priors(earlier, None, default, reference, transfer="shape")
    # Most laws of the wide priors of levels have implausible losses. The sampler then finds no starting point.
    draws = posterior.draws_of(earlier)
    values = draws.law.coordinates_of(draws, draws.reference)
    shape = {one.name for one in priors.law.coordinates if one.shape}
    levels = {name: prior for name, prior in priors.table.items() if name in values and name not in shape}
    narrow = {name: Prior(float(np.mean(values[name])), 0.2 * prior.scale) for name, prior in levels.items()}
    priors = with_priors(priors, {name: prior for name, prior in narrow.items() if prior.scale > 0})
    found = bd.simulate_calibration(
        runs,
        simulations=2 if quick else 100,
        priors=priors,
        draws=2000,
        tune=1500,
        log=folder / "calibration.jsonl",
        progress=lambda done, of: print(done, of, flush=True),
    )
    print(found["status"].to_series().value_counts())
    print(bd.rank_uniformity(found).round(3).to_string())


PARTS = {"subsets": subsets, "sampling": sampling, "joint": joint, "calibration": calibration}


def main(arguments: list[str] | None = None) -> None:
    """Run parts of the study."""
    options = parser(__doc__, folder=True)
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--seeds", type=int, default=20)
    given = options.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    for part in ["sampling"] if given.quick else given.parts:
        PARTS[part](given.folder, range(given.first, given.first + (1 if given.quick else given.seeds)), given.quick)


if __name__ == "__main__":
    main()
