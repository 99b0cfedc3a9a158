"""Command-line interface.

Errors of the package are printed without a traceback and give exit code 2. `bd` imports a function when it is first used, so that
help and completion are fast.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.arguments import NOISE
from bayesdistill.errors import BayesdistillError, FileError, ParameterError
from bayesdistill.files import check_writable

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from bayesdistill.criticism import Check

app = typer.Typer(
    name="bayesdistill",
    help="Decide whether to distill a language model from a teacher or pretrain it, with a Bayesian scaling law.\n\n"
    "Start with `bayesdistill demo`. For your own runs, use `bayesdistill fit RUNS -o fit.nc`, then `check fit.nc`, "
    "`plan fit.nc --student 1B --budgets 1e19:1e25:25 -o plan.nc` and `report fit.nc --plan plan.nc`.\n\n"
    "Numbers can be written as 1e9, 1B, 300M or 1e21. `bayesdistill --install-completion` installs shell completion of "
    "commands, options and scenarios.",
    no_args_is_help=True,
    rich_markup_mode=None,  # tables of rich cut the names of options
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130
_FOLDER = "Output folder; created if it does not exist."


def _number(text: str) -> Any:
    """Declare an option whose text a command parses with `_real` or `_whole`."""
    return typer.Option(metavar="<number>", help=text)


def _one_of(choices: Sequence[str], text: str) -> Any:
    return typer.Option(metavar=f"<{'|'.join(choices)}>", autocompletion=lambda: list(choices), help=text)


def _several(metavar: str, text: str) -> Any:
    """Declare an option whose text a command splits, with an example of it."""
    return typer.Option(metavar=metavar, help=text)


def _netcdf_file(path: Path | None) -> Path | None:
    """Raise an error before the computation if the file cannot be written or has the ending of a table."""
    _writable(path)
    if path is not None and path.name.lower().endswith((".csv", ".csv.gz", ".parquet", ".pq")):
        raise ParameterError(f"--output: {path.name} has the ending of a table. Use another one, such as .nc.")
    return path


def _writable(path: Path | None) -> Path | None:
    """Raise an error before the computation if the file cannot be written."""
    if path is not None:
        check_writable(path)
    return path


def _keep_inputs(output: Path | None, *inputs: str | Path | None) -> None:
    """Raise an error if the output would replace an input."""
    for path in inputs:
        if (
            output is not None
            and path is not None
            and output.exists()
            and Path(path).exists()
            and output.samefile(path)
        ):
            raise ParameterError(f"--output is {output}, which is also an input. Use another name.")


def _output(text: str, check: Callable[[Path | None], Path | None] = _netcdf_file) -> Any:
    return typer.Option("-o", "--output", callback=check, help=text)


GROUPS = ("seen", "new")
FitFile = Annotated[Path, typer.Argument(metavar="FIT", help="A fit written by `bayesdistill fit`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Unconverged = Annotated[bool, typer.Option(help="Use a posterior that failed `check`; every output is marked.")]

Conflict = Annotated[
    bool, typer.Option(help="Decide although the runs contradict the supervised law; every output is marked.")
]

Students = Annotated[
    list[str],
    typer.Option("--student", metavar="<1B,3B>", help="Non-embedding parameters: 1B, 300M or 1B,3B. Repeat for more."),
]
Budgets = Annotated[str, _several("<1e20,1e21>", "FLOPs: lowest:highest:count on a log scale, or a list 1e20,1e21.")]
ScenarioNames = Annotated[
    list[str] | None,
    typer.Option(
        "--scenario",
        metavar="<name>",
        help="What the budget pays for besides the student: best case (nothing; logits exist), teacher inference, teacher "
        "pretraining, or teacher pretraining + inference (default: all four). Repeat for more.",
        autocompletion=lambda: list(bd.SCENARIOS),
    ),
]
Deltas = Annotated[
    list[str] | None,
    typer.Option(
        "--delta",
        metavar="<1:1/8>",
        help="Custom scenario LGT:PRE, such as 1:1/8: fractions of the teacher's inference and pretraining.",
    ),
]
TeacherFile = Annotated[
    Path | None,
    typer.Option(
        "--teachers", help="Existing teachers: a CSV or Parquet file with params, loss, and optionally name and tokens."
    ),
]
GpuFlops = Annotated[
    str | None, typer.Option("--gpu-flops", metavar="<number>", help="FLOPs per second of an accelerator in training.")
]
GpuPrice = Annotated[
    str | None,
    typer.Option("--gpu-price", metavar="<number>", help="Price of a GPU-hour of training (requires --gpu-flops)."),
]
InferenceFlops = Annotated[
    str | None,
    typer.Option(
        "--inference-flops", metavar="<number>", help="FLOPs per second in inference (default: as in training)."
    ),
]
InferencePrice = Annotated[
    str | None,
    typer.Option(
        "--inference-price",
        metavar="<number>",
        help="Price of a GPU-hour of inference (default: the price for training).",
    ),
]
Currency = Annotated[str, typer.Option(metavar="<text>", help="Unit of the prices.")]

MaxTeacherParams = Annotated[str, _number("Maximum non-embedding parameters of the teacher.")]
MaxTeacherTokens = Annotated[str, _number("Maximum training tokens of the teacher.")]
MaxStudentTokens = Annotated[str | None, _number("Maximum tokens of the student.")]
MaxExtrapolation = Annotated[
    str, _number("Largest factor by which a new teacher is outside the range of the data; none: any teacher.")
]
UniqueTokens = Annotated[
    str | None, _number("Unique tokens of the corpus (epochs are repeated above it): 300B. Default: unlimited.")
]
Level = Annotated[
    str, _one_of(NOISE, "expected: with group effects and discrepancy; law: mean curves; run: two single runs.")
]
LevelSeed = Annotated[str, _number("Random seed for --noise expected and run.")]


def _version(asked: bool) -> None:
    if asked:
        print(bd.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program."""


@app.command(name="fit")
def fit_command(
    runs: Annotated[
        str | None,
        typer.Argument(
            metavar="RUNS", help="Distilled runs: a CSV or Parquet file, or the name of a packaged data set."
        ),
    ] = None,
    output: Annotated[Path, _output("Output file of the fit (netCDF).")] = Path("fit.nc"),
    supervised: Annotated[
        Path | None,
        typer.Option(help="Supervised runs (params, tokens, loss). Without RUNS, fit only the supervised law."),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            metavar="<name>", help="Study to fit, if the column study has several labels. The others inform its shape."
        ),
    ] = None,
    prior: Annotated[Path | None, typer.Option(help="Earlier fit to use as prior.")] = None,
    transfer: Annotated[
        str,
        typer.Option(
            metavar="<all|shape>",
            help="What the earlier fit informs: all (same corpus), or shape (another corpus): exponents, gap and kappa.",
            autocompletion=lambda: ["all", "shape"],
        ),
    ] = "all",
    widen: Annotated[
        str | None,
        _number("Factor on the standard deviations of the earlier fit (by default 2, with --transfer shape 1)."),
    ] = None,
    between_studies: Annotated[
        str, _number("With --transfer shape or --study: prior standard deviations by which shapes of studies differ.")
    ] = "0.5",
    law: Annotated[
        str,
        typer.Option(
            metavar="<name>",
            help="Law to fit: busbridge2025 is equation 8 of the paper.",
            autocompletion=lambda: list(bd.LAWS),
        ),
    ] = "tied_reducible",
    gamma: Annotated[str | None, _number("Fix the supervised law's gamma (1: Chinchilla's form).")] = None,
    draws: Annotated[
        str | None, _number("Draws per chain (by default 1000 to 4000, until the draws converge).")
    ] = None,
    tune: Annotated[
        str | None, _number("Tuning draws per chain (by default 1000 to 2000, until the draws converge).")
    ] = None,
    chains: Annotated[str, _number("Number of chains.")] = "4",
    seed: Annotated[str, _number("Random seed.")] = "0",
    target_accept: Annotated[
        str | None,
        _number("Target acceptance rate (by default 0.9 to 0.998, until the draws converge)."),
    ] = None,
    allow_suspicious: Annotated[bool, typer.Option(help="Accept tables with implausible values.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show a progress bar.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fit the law to runs with NUTS."""
    from bayesdistill.law import as_law

    _keep_inputs(output, runs, supervised, prior)
    table: Any = runs
    other: Any = supervised
    if runs is not None and _is_name(runs):
        table = bd.load_runs(runs)
    elif runs is not None and allow_suspicious:
        table = bd.read_runs(runs, "distilled", allow_suspicious=True)
    if supervised is not None and allow_suspicious:
        other = bd.read_runs(supervised, "supervised", allow_suspicious=True)
    result = bd.fit(
        table,
        other,
        study=study,
        priors=None if prior is None else _load_fit(prior),
        transfer=transfer,
        widen=None if widen is None else _real(widen, "--widen"),
        between_studies=_real(between_studies, "--between-studies"),
        law=as_law(law) if gamma is None else as_law(law).with_fixed(gamma=_real(gamma, "--gamma")),
        draws=None if draws is None else _whole(draws, "--draws"),
        tune=None if tune is None else _whole(tune, "--tune"),
        chains=_whole(chains, "--chains"),
        seed=_whole(seed, "--seed"),
        target_accept=None if target_accept is None else _real(target_accept, "--target-accept"),
        progress=False if quiet or as_json else None,
    )
    bd.save(result, output)
    found = bd.check(result)
    if as_json:
        print(json.dumps({"fit": str(output), **_summary(found)}))
        return
    _print_check(found)
    # Plans require the distillation law.
    following = f"plan {output} --student 1B" if runs else f"optimal {output}"
    following = f"{following} --budgets 1e19:1e25:25"
    print(f"Wrote {output}." + (f" Next: bayesdistill {following}" if found.ok else ""))


def _summary(found: Check) -> dict[str, Any]:
    return {"verdict": found.verdict, "problems": found.problems, "cautions": found.cautions, **found.numbers}


@app.command(name="check")
def check_command(fit: FitFile, as_json: AsJson = False) -> None:
    """Check whether a fit can be used and what it cannot determine. The exit code is 1 if its draws cannot be used."""
    found = bd.check(_load_fit(fit))
    if as_json:
        print(json.dumps(_summary(found)))
    else:
        _print_check(found)
    if found.ok is False:
        raise typer.Exit(1)


@app.command(name="plan")
def plan_command(
    fit: FitFile,
    student: Students,
    budgets: Budgets,
    scenario: ScenarioNames = None,
    delta: Deltas = None,
    teachers: TeacherFile = None,
    output: Annotated[Path | None, _output("Output file of the plan (netCDF).")] = None,
    max_teacher_params: MaxTeacherParams = "1e12",
    max_teacher_tokens: MaxTeacherTokens = "2e13",
    max_student_tokens: MaxStudentTokens = None,
    max_extrapolation: MaxExtrapolation = "10",
    unique_tokens: UniqueTokens = None,
    noise: Level = "expected",
    losses: Annotated[
        bool, typer.Option(help="Also print losses, tokens and spending of every cell (default: of at most 8 cells).")
    ] = False,
    draws: Annotated[str, _number("Number of draws for the strategy with perfect information.")] = "1000",
    seed: LevelSeed = "0",
    allow_unconverged: Unconverged = False,
    allow_conflict: Conflict = False,
    as_json: AsJson = False,
) -> None:
    """Compute the probability that distillation beats pretraining, and the strategies."""
    from bayesdistill.plots.grids import changes_note, left_out, level_note, undetermined_note
    from bayesdistill.tables.display import MOST_CELLS, loss_columns

    _keep_inputs(output, fit, teachers)
    result = bd.plan(
        _load_fit(fit),
        _students(student),
        _budgets(budgets),
        _scenarios(scenario, delta),
        teachers=teachers,
        **_bounds(max_teacher_params, max_teacher_tokens, max_student_tokens, max_extrapolation, unique_tokens),
        noise=noise,
        draws=_whole(draws, "--draws"),
        seed=_whole(seed, "--seed"),
        allow_unconverged=allow_unconverged,
        allow_conflict=allow_conflict,
        progress=False if as_json else None,
    )
    _reject_impossible(result)
    if output is not None:
        bd.save(result, output)
    if as_json:
        _print_json(bd.plan_table(result), result)
        return
    _print_table(bd.summary_table(result).drop(columns="noise"))
    table = bd.plan_table(result)
    if losses or len(table) <= MOST_CELLS:
        print()
        _print_table(table[loss_columns(table)])
    for sentence in [*left_out(result), *level_note(result), *undetermined_note(result), *changes_note(result)]:
        print(sentence)
    _print_warnings(result, fit)
    if output is not None:
        print(f"Wrote {output}. Next: bayesdistill report {fit} --plan {output}")


@app.command(name="target")
def target_command(
    fit: FitFile,
    student: Students,
    loss: Annotated[str, _several("<2.1,2.2>", "Target loss in nats per token, or a list 2.1,2.2.")],
    scenario: ScenarioNames = None,
    delta: Deltas = None,
    teachers: TeacherFile = None,
    output: Annotated[Path | None, _output("Output file of the result (netCDF).")] = None,
    max_teacher_params: MaxTeacherParams = "1e12",
    max_teacher_tokens: MaxTeacherTokens = "2e13",
    max_student_tokens: MaxStudentTokens = None,
    max_extrapolation: MaxExtrapolation = "10",
    unique_tokens: UniqueTokens = None,
    max_compute: Annotated[str, _number("FLOPs above which a target counts as impossible.")] = "1e28",
    gpu_flops_per_second: GpuFlops = None,
    price_per_gpu_hour: GpuPrice = None,
    inference_flops_per_second: InferenceFlops = None,
    inference_price_per_gpu_hour: InferencePrice = None,
    currency: Currency = "USD",
    noise: Level = "expected",
    seed: LevelSeed = "0",
    allow_unconverged: Unconverged = False,
    allow_conflict: Conflict = False,
    as_json: AsJson = False,
) -> None:
    """Compare what distillation and pretraining cost until a student reaches a target loss."""
    from bayesdistill.plots.grids import level_note, target_sentences

    _keep_inputs(output, fit, teachers)
    result = bd.target_loss(
        _load_fit(fit),
        _students(student),
        [_positive(part, "--loss") for part in loss.split(",")],
        _scenarios(scenario, delta),
        teachers=teachers,
        **_bounds(max_teacher_params, max_teacher_tokens, max_student_tokens, max_extrapolation, unique_tokens),
        max_compute=_positive(max_compute, "--max-compute"),
        **_prices(
            gpu_flops_per_second,
            price_per_gpu_hour,
            inference_flops_per_second,
            inference_price_per_gpu_hour,
            currency,
        ),
        noise=noise,
        seed=_whole(seed, "--seed"),
        allow_unconverged=allow_unconverged,
        allow_conflict=allow_conflict,
        progress=False if as_json else None,
    )
    _print_result(result, output, as_json, [*target_sentences(result, most=12), *level_note(result)], fit)


@app.command(name="lifetime")
def lifetime_command(
    fit: FitFile,
    served_tokens: Annotated[
        str,
        typer.Option(
            "--served",
            metavar="<0,1T,10T>",
            help="Tokens served: lowest:highest:count on a log scale, or a list 0,1T,10T.",
        ),
    ],
    budgets: Annotated[
        str | None,
        _several(
            "<1e22,1e23>",
            "Total FLOPs of training and serving: lowest:highest:count on a log scale, or a list 1e22,1e23.",
        ),
    ] = None,
    loss: Annotated[
        str | None, _several("<2.1,2.2>", "Target loss in nats per token, or a list 2.1,2.2, in place of budgets.")
    ] = None,
    student: Annotated[
        list[str] | None,
        typer.Option(
            "--student",
            metavar="<1B,3B>",
            help="Sizes to choose from: 1B, 300M or 1B,3B (default: every size). Repeat for more.",
        ),
    ] = None,
    scenario: ScenarioNames = None,
    delta: Deltas = None,
    teachers: TeacherFile = None,
    output: Annotated[Path | None, _output("Output file of the result (netCDF).")] = None,
    max_teacher_params: MaxTeacherParams = "1e12",
    max_teacher_tokens: MaxTeacherTokens = "2e13",
    max_student_tokens: MaxStudentTokens = None,
    max_extrapolation: MaxExtrapolation = "10",
    unique_tokens: UniqueTokens = None,
    max_compute: Annotated[str, _number("FLOPs of training above which a target counts as impossible.")] = "1e28",
    gpu_flops_per_second: GpuFlops = None,
    price_per_gpu_hour: GpuPrice = None,
    inference_flops_per_second: InferenceFlops = None,
    inference_price_per_gpu_hour: InferencePrice = None,
    currency: Currency = "USD",
    noise: Level = "expected",
    seed: LevelSeed = "0",
    draws: Annotated[str, _number("Number of posterior draws for which sizes are searched.")] = "1000",
    allow_unconverged: Unconverged = False,
    allow_conflict: Conflict = False,
    as_json: AsJson = False,
) -> None:
    """Find the best student size if the cost includes serving, distilled and pretrained."""
    from bayesdistill.plots.grids import level_note

    _keep_inputs(output, fit, teachers)
    if (budgets is None) == (loss is None):
        raise ParameterError("Give either --budgets or --loss.")
    result = bd.lifetime(
        _load_fit(fit),
        _budgets(served_tokens, "--served") if ":" in served_tokens else served_tokens.split(","),
        _scenarios(scenario, delta),
        budgets=None if budgets is None else _budgets(budgets),
        losses=None if loss is None else [_positive(part, "--loss") for part in loss.split(",")],
        students=None if student is None else _students(student),
        teachers=teachers,
        **_bounds(max_teacher_params, max_teacher_tokens, max_student_tokens, max_extrapolation, unique_tokens),
        max_compute=_positive(max_compute, "--max-compute"),
        **_prices(
            gpu_flops_per_second,
            price_per_gpu_hour,
            inference_flops_per_second,
            inference_price_per_gpu_hour,
            currency,
        ),
        noise=noise,
        seed=_whole(seed, "--seed"),
        draws=_whole(draws, "--draws"),
        allow_unconverged=allow_unconverged,
        allow_conflict=allow_conflict,
        progress=False if as_json else None,
    )
    sentences = result["sentence"].values.ravel().tolist()
    _print_result(result, output, as_json, [*sentences, *level_note(result)], fit, _LIFETIME_COLUMNS)


@app.command(name="value")
def value_command(
    fit: FitFile,
    plan: Annotated[Path, typer.Option(help="Plan of this fit, written by `bayesdistill plan`.")],
    output: Annotated[Path | None, _output("Output file of the result (netCDF).")] = None,
    gpu_flops_per_second: GpuFlops = None,
    price_per_gpu_hour: GpuPrice = None,
    inference_flops_per_second: InferenceFlops = None,
    inference_price_per_gpu_hour: InferencePrice = None,
    currency: Currency = "USD",
    allow_unconverged: Unconverged = False,
    allow_conflict: Conflict = False,
    as_json: AsJson = False,
) -> None:
    """Print what a plan is worth in nats, compute, GPU-hours and money."""
    _keep_inputs(output, fit, plan)
    result = bd.plan_value(
        _load_fit(fit),
        _load_plan(plan),
        **_prices(
            gpu_flops_per_second,
            price_per_gpu_hour,
            inference_flops_per_second,
            inference_price_per_gpu_hour,
            currency,
        ),
        allow_unconverged=allow_unconverged,
        allow_conflict=allow_conflict,
    )
    _print_result(result, output, as_json, [], fit)


@app.command(name="explain")
def explain_command(
    fit: FitFile,
    student: Annotated[str, _number("Non-embedding parameters: 1B or 300M.")],
    budget: Annotated[str, _number("FLOPs, such as 1e22.")],
    scenario: Annotated[
        str,
        typer.Option(metavar="<name>", help="Cost scenario.", autocompletion=lambda: list(bd.SCENARIOS)),
    ] = "teacher inference",
    fits: Annotated[
        list[str] | None,
        typer.Option(
            "--fit", metavar="<name=file>", help="Fit of another law to the same runs, as NAME=FILE. Repeat for more."
        ),
    ] = None,
    candidates: Annotated[Path | None, typer.Option(help="Table of runs that could be done next.")] = None,
    teachers: TeacherFile = None,
    output: Annotated[Path | None, _output("Output file of the result (netCDF).")] = None,
    max_teacher_params: MaxTeacherParams = "1e12",
    max_teacher_tokens: MaxTeacherTokens = "2e13",
    max_student_tokens: MaxStudentTokens = None,
    max_extrapolation: MaxExtrapolation = "10",
    noise: Level = "expected",
    seed: LevelSeed = "0",
    allow_unconverged: Unconverged = False,
    allow_conflict: Conflict = False,
    as_json: AsJson = False,
) -> None:
    """Print where the uncertainty of the gain of distillation comes from, for one student and budget."""
    from bayesdistill.plots.grids import extrapolation_note, level_note

    accepted: dict[str, Any] = {"allow_unconverged": allow_unconverged, "allow_conflict": allow_conflict}
    others = dict(_named_file(text) for text in fits or [])
    _keep_inputs(output, fit, teachers, candidates, *others.values())
    if fit.stem in others:
        raise ParameterError(f"--fit: the name {fit.stem!r} belongs to FIT. Use another one.")
    planner = bd.Planner(_load_fit(fit), progress=False if as_json else None, **accepted)
    plan = bd.plan(
        planner,
        student,
        _positive(budget, "--budget"),
        scenario,
        teachers=teachers,
        **_bounds(max_teacher_params, max_teacher_tokens, max_student_tokens, max_extrapolation),
        noise=noise,
        seed=_whole(seed, "--seed"),
    )
    _reject_impossible(plan)
    every = {fit.stem: planner, **{name: _load_fit(path) for name, path in others.items()}}
    result = bd.explain(plan, every if others else planner, candidates=candidates, **accepted)
    answer = {name: float(result[name]) for name in ("gain", "gain_total", "probability", "probability_total")}
    if output is not None:
        bd.save(result, output)
    if as_json:
        _print_json(bd.decision_table(result).assign(**answer, suggestion=result.attrs["suggestion"]), result)
        return
    _print_table(bd.decision_table(result).drop(columns="noise"))
    print()
    for sentence in [
        f"{result.attrs['title']}.",
        result.attrs["suggestion"],
        *level_note(result),
        *extrapolation_note(result),
    ]:
        print(textwrap.fill(sentence, shutil.get_terminal_size().columns))
    _print_warnings(result, fit)
    if output is not None:
        print(f"Wrote {output}.")


@app.command(name="tokens")
def tokens_command(
    fit: FitFile,
    student: Students,
    tokens: Annotated[
        str, _several("<1e10,1e11>", "Unique tokens: lowest:highest:count on a log scale, or a list 1e10,1e11.")
    ],
    budget: Annotated[str | None, _number("FLOPs for one student (default: unlimited).")] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<name>",
            help="Cost scenario (default: best case). Repeat for more.",
            autocompletion=lambda: list(bd.SCENARIOS),
        ),
    ] = None,
    delta: Deltas = None,
    output: Annotated[Path | None, _output("Output file of the plan (netCDF).")] = None,
    max_teacher_params: MaxTeacherParams = "1e12",
    max_teacher_tokens: Annotated[
        str, _number("Maximum training tokens of the teacher; same: the student's tokens.")
    ] = "2e13",
    max_extrapolation: MaxExtrapolation = "10",
    noise: Level = "expected",
    draws: Annotated[str, _number("Number of draws for the strategy with perfect information.")] = "1000",
    seed: LevelSeed = "0",
    allow_unconverged: Unconverged = False,
    allow_conflict: Conflict = False,
    as_json: AsJson = False,
) -> None:
    """Compare distillation and pretraining by unique tokens, where data limit training."""
    from bayesdistill.plots.grids import changes_note, left_out, level_note, undetermined_note

    _keep_inputs(output, fit)
    result = bd.plan_tokens(
        _load_fit(fit),
        _students(student),
        _budgets(tokens, "--tokens"),
        budget=None if budget is None else _positive(budget, "--budget"),
        scenarios=_scenarios(scenario, delta) if scenario or delta else "best case",
        max_teacher_params=_positive(max_teacher_params, "--max-teacher-params"),
        max_teacher_tokens=max_teacher_tokens
        if max_teacher_tokens == "same"
        else _positive(max_teacher_tokens, "--max-teacher-tokens"),
        max_extrapolation=_factor(max_extrapolation),
        noise=noise,
        draws=_whole(draws, "--draws"),
        seed=_whole(seed, "--seed"),
        allow_unconverged=allow_unconverged,
        allow_conflict=allow_conflict,
        progress=False if as_json else None,
    )
    notes = [*left_out(result), *level_note(result), *undetermined_note(result), *changes_note(result)]
    _print_result(result, output, as_json, notes, fit, _TOKEN_COLUMNS)


@app.command(name="next-runs")
def next_runs_command(
    fit: FitFile,
    student: Students,
    budgets: Budgets,
    candidates: Annotated[
        Path | None,
        typer.Option(help="Candidate runs: a CSV or Parquet file (default: proposals in the observed ranges)."),
    ] = None,
    scenario: ScenarioNames = None,
    delta: Deltas = None,
    teachers: TeacherFile = None,
    batch: Annotated[str | None, _number("Largest number of runs in the batch.")] = None,
    batch_compute: Annotated[
        str | None, typer.Option("--compute", metavar="<number>", help="FLOPs of the batch.")
    ] = None,
    batch_money: Annotated[
        str | None, typer.Option("--money", metavar="<number>", help="Cost of the batch (requires --gpu-price).")
    ] = None,
    output: Annotated[Path | None, _output("Output file of the result (netCDF).")] = None,
    gpu_flops_per_second: GpuFlops = None,
    price_per_gpu_hour: GpuPrice = None,
    inference_flops_per_second: InferenceFlops = None,
    inference_price_per_gpu_hour: InferencePrice = None,
    currency: Currency = "USD",
    max_teacher_params: MaxTeacherParams = "1e12",
    max_teacher_tokens: MaxTeacherTokens = "2e13",
    max_student_tokens: MaxStudentTokens = None,
    max_extrapolation: MaxExtrapolation = "10",
    seed: Annotated[str, _number("Random seed of the outcomes.")] = "0",
    allow_unconverged: Unconverged = False,
    allow_conflict: Conflict = False,
    as_json: AsJson = False,
) -> None:
    """Print what candidate runs are worth for the decision, and which to make first."""
    _keep_inputs(output, fit, candidates, teachers)
    result = bd.next_runs(
        _load_fit(fit),
        candidates,
        _students(student),
        _budgets(budgets),
        _scenarios(scenario, delta),
        teachers=teachers,
        batch=None if batch is None else _whole(batch, "--batch"),
        batch_compute=batch_compute,
        batch_money=batch_money,
        **_prices(
            gpu_flops_per_second,
            price_per_gpu_hour,
            inference_flops_per_second,
            inference_price_per_gpu_hour,
            currency,
        ),
        **_bounds(max_teacher_params, max_teacher_tokens, max_student_tokens, max_extrapolation),
        seed=_whole(seed, "--seed"),
        allow_unconverged=allow_unconverged,
        allow_conflict=allow_conflict,
        progress=False if as_json else None,
    )
    chosen = ", ".join(result["batch_candidate"].values.tolist()) or "none"
    hidden = max(result.sizes["candidate"] - result.sizes["step"] - _FURTHER_RUNS, 0)
    more = [f"{hidden} more candidate{'s' if hidden > 1 else ''}: use --json or --output."] if hidden else []
    sentences = [*more, f"Runs to make first: {chosen}.", result.attrs["suggestion"]]
    _print_result(result, output, as_json, sentences, fit, _RUN_COLUMNS)


_TOKEN_COLUMNS = [
    *("student", "scenario", "tokens", "probability", "probability_lowest", "probability_highest", "expected_gain"),
    *("teacher_params", "teacher_tokens", "extrapolation_axis"),
]
_FURTHER_RUNS = 10
"""Candidates that `next-runs` prints in addition to the batch."""
_RUN_COLUMNS = ["candidate", "cost", "cost_money", "evsi", "evsi_mcse", "value_flops", "value_money", "batch_position"]


@app.command(name="students")
def students_command(
    fit: FitFile,
    student: Students,
    budgets: Budgets,
    scenario: ScenarioNames = None,
    delta: Deltas = None,
    teachers: TeacherFile = None,
    output: Annotated[Path | None, _output("Output file of the result (netCDF).")] = None,
    max_teacher_params: MaxTeacherParams = "1e12",
    max_teacher_tokens: MaxTeacherTokens = "2e13",
    max_student_tokens: MaxStudentTokens = None,
    max_extrapolation: MaxExtrapolation = "10",
    unique_tokens: UniqueTokens = None,
    noise: Level = "expected",
    seed: LevelSeed = "0",
    allow_unconverged: Unconverged = False,
    allow_conflict: Conflict = False,
    as_json: AsJson = False,
) -> None:
    """Rank student sizes at equal budget, distilled and pretrained, with the probability that each is the best."""
    from bayesdistill.plots.grids import level_note

    _keep_inputs(output, fit, teachers)
    result = bd.student_choice(
        _load_fit(fit),
        _students(student),
        _budgets(budgets),
        _scenarios(scenario, delta),
        teachers=teachers,
        **_bounds(max_teacher_params, max_teacher_tokens, max_student_tokens, max_extrapolation, unique_tokens),
        noise=noise,
        seed=_whole(seed, "--seed"),
        allow_unconverged=allow_unconverged,
        allow_conflict=allow_conflict,
        progress=False if as_json else None,
    )
    if output is not None:
        bd.save(result, output)
    table = bd.decision_table(result)
    if as_json:
        _print_json(table, result)
        return
    _print_table(table[[name for name in _STUDENT_COLUMNS if name in table]])
    print()
    for sentence in [*result["sentence"].values.ravel().tolist(), *level_note(result)]:
        print(sentence)
    _print_warnings(result, fit)
    if output is not None:
        print(f"Wrote {output}.")


@app.command(name="family")
def family_command(
    fit: FitFile,
    student: Students,
    budget: Annotated[str, _number("FLOPs for the whole family, including the teacher.")],
    counts: Annotated[
        str | None, _several("<10,4,1>", "Number of students of each size: 10,4,1 (default: one).")
    ] = None,
    weights: Annotated[
        str | None, _several("<1,1,2>", "Weight of each size in the family's loss: 1,1,2 (default: its count).")
    ] = None,
    delta: Annotated[
        str | None,
        _several("<1:1/8>", "Charged fractions LGT:PRE (default 1:1, or 1:0 with --teachers)."),
    ] = None,
    teachers: TeacherFile = None,
    add: Annotated[
        list[str] | None,
        _several("<500M,2B>", "Sizes of one more student: its marginal cost and gain. Repeat for more."),
    ] = None,
    output: Annotated[Path | None, _output("Output file of the result (netCDF).")] = None,
    max_teacher_params: MaxTeacherParams = "1e12",
    max_teacher_tokens: MaxTeacherTokens = "2e13",
    max_student_tokens: MaxStudentTokens = None,
    max_extrapolation: MaxExtrapolation = "10",
    unique_tokens: UniqueTokens = None,
    noise: Level = "expected",
    seed: LevelSeed = "0",
    allow_unconverged: Unconverged = False,
    allow_conflict: Conflict = False,
    as_json: AsJson = False,
) -> None:
    """Plan a family of students on one teacher: which to distill, and how to split the budget."""
    import pandas as pd

    from bayesdistill.plots.grids import level_note

    _keep_inputs(output, fit, teachers)
    charged = None if delta is None else _shares(delta)
    loaded = _load_fit(fit)
    level = {"noise": noise, "seed": _whole(seed, "--seed")}
    accepted = {"allow_unconverged": allow_unconverged, "allow_conflict": allow_conflict}
    result = bd.family_plan(
        loaded,
        _students(student),
        _positive(budget, "--budget"),
        counts=None if counts is None else [_whole(part, "--counts") for part in counts.split(",")],
        weights=None if weights is None else [_real(part, "--weights") for part in weights.split(",")],
        **({} if charged is None else {"delta_lgt": charged.delta_lgt, "delta_pre": charged.delta_pre}),
        teachers=teachers,
        **_bounds(max_teacher_params, max_teacher_tokens, max_student_tokens, max_extrapolation, unique_tokens),
        **level,
        **accepted,
        progress=False if as_json else None,
    )
    if not result["feasible"].any():
        raise ParameterError("The `budget` is too small for the family. Raise it, or leave out students.")
    added = None
    if add:
        sizes = [_positive(part, "--add") for part in _students(add)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bd.ConvergenceWarning)  # shown once
            warnings.simplefilter("ignore", bd.ConflictWarning)
            try:
                added = bd.add_student(loaded, result, sizes, **level, **accepted)
            except ParameterError as error:
                raise ParameterError(error.message.replace("`students`", "`add`")) from None
    if output is not None:
        bd.save(result, output)
    table = bd.decision_table(result)
    if as_json:
        more = [] if added is None else [bd.decision_table(added).assign(added=True)]
        _print_json(pd.concat([table.assign(added=False), *more], ignore_index=True), result)
        return
    _print_table(table[[name for name in _FAMILY_COLUMNS if name in table]])
    print()
    if added is not None:
        _print_table(bd.decision_table(added).drop(columns=["noise", "extrapolates", "average_budget"]))
        print()
    sentences = [] if added is None else added["sentence"].values.tolist()
    for sentence in [result.attrs["sentence"], *sentences, *level_note(result)]:
        print(sentence)
    _print_warnings(result, fit)
    if output is not None:
        print(f"Wrote {output}.")


_FAMILY_COLUMNS = [
    *("student", "count", "decision", "decision_probability", "decision_value", "probability_better"),
    *(f"{name}_{end}" for name in ("loss", "supervised_loss") for end in ("lower", "median", "upper")),
    *("student_tokens", "pretraining_tokens", "student_budget", "student_share", "teacher_inference_share"),
    *("teacher_training_share", "teacher_params", "teacher_tokens", "extrapolation_axis"),
]
_LIFETIME_COLUMNS = [
    *("scenario", "budget", "target", "served_tokens", "option", "distilled_params", "pretraining_params"),
    *("probability", "cost_probability"),
    *(
        f"{name}_{end}"
        for name in ("distilled_loss", "supervised_loss", "distilled_cost", "pretraining_cost")
        for end in ("lower", "median", "upper")
    ),
    *(
        "student_tokens",
        "pretraining_tokens",
        "teacher_params",
        "teacher_tokens",
        "serving_share",
        "pretraining_serving_share",
    ),
    *("distilled_money", "pretraining_money", "extrapolation", "extrapolation_axis"),
]
_STUDENT_COLUMNS = [
    *("scenario", "budget", "student", "rank", "option", "is_best_size_probability", "probability"),
    *(f"{name}_loss_{end}" for name in ("distilled", "supervised") for end in ("lower", "median", "upper")),
    *("teacher_params", "teacher_tokens", "student_tokens", "pretraining_tokens"),
    *("student_epochs", "pretraining_epochs", "teacher_epochs"),
    *("student_share", "teacher_inference_share", "teacher_training_share", "extrapolation_axis"),
]


@app.command(name="predict")
def predict_command(
    fit: FitFile,
    runs: Annotated[
        Path,
        typer.Argument(
            metavar="RUNS",
            help="Runs to predict: a CSV or Parquet file with student_params, student_tokens and teacher_loss, or with params "
            "and tokens. The outcome may be missing.",
        ),
    ],
    noise: Annotated[
        str, _one_of(NOISE, "expected: with group effects and discrepancy; law: mean curve; run: a single new run.")
    ] = "expected",
    groups: Annotated[
        str, _one_of(GROUPS, "seen: groups in the data keep their effects; new: every run belongs to new groups.")
    ] = "seen",
    prob: Annotated[str, _number("Probability inside the interval.")] = "0.9",
    seed: Annotated[str, _number("Random seed of the draws in a .nc file.")] = "0",
    output: Annotated[
        Path | None, _output("Output file of the predictions: .csv (table) or .nc (with draws).", _writable)
    ] = None,
    allow_suspicious: Annotated[bool, typer.Option(help="Accept a table with implausible values.")] = False,
    allow_unconverged: Unconverged = False,
    allow_conflict: Conflict = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but warnings; requires --output.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Predict the loss of runs, with intervals and their distance from the data."""
    from bayesdistill.arguments import RULES, one_of

    if quiet and output is None:
        raise ParameterError("--quiet requires --output, because nothing else is printed.")

    one_of(*NOISE)(noise, "--noise")
    one_of(*GROUPS)(groups, "--groups")
    inside = RULES["prob"](_real(prob, "--prob"), "--prob")
    number = RULES["seed"](_whole(seed, "--seed"), "--seed")
    if output is not None and output.suffix not in (".csv", ".nc"):
        raise ParameterError(f"--output: {output.name} must end in .csv or .nc.")
    _keep_inputs(output, fit, runs)
    with_draws = output is not None and output.suffix == ".nc"
    result = bd.predict(
        _load_fit(fit),
        runs,
        noise=noise,
        groups=groups,
        prob=inside,
        draws=with_draws,
        seed=number,
        allow_suspicious=allow_suspicious,
        allow_unconverged=allow_unconverged,
        allow_conflict=allow_conflict,
    )
    table = bd.decision_table(result)
    if output is not None:
        bd.save(result, output) if with_draws else bd.write_table(table, output)
    if as_json:
        _print_json(table, result)
    if quiet or as_json:
        return
    print(f"{result.attrs['title']} (level: {_level(result)})\n")
    _print_table(table.drop(columns=["loss_mean", "loss_sd", "noise", "extrapolates"]))
    if "coverage" in result.attrs:
        print(
            f"\n{100 * result.attrs['coverage']:.0f}% of the observed losses are inside their {100 * inside:g}% interval."
        )
    _print_warnings(result, fit)
    if output is not None:
        print(f"Wrote {output}.")


@app.command(name="optimal")
def optimal_command(
    fit: FitFile,
    budgets: Annotated[
        str, _several("<1e20,1e21>", "Training FLOPs: lowest:highest:count on a log scale, or a list 1e20,1e21.")
    ],
    six_nd: Annotated[
        bool, typer.Option("--six-nd", help="Count 6 N D FLOPs, without attention and output layer.")
    ] = False,
    noise: Annotated[
        str, _one_of(NOISE, "expected: with group effects and discrepancy; law: mean curve; run: a single new run.")
    ] = "expected",
    seed: Annotated[str, _number("Random seed for --noise expected and run.")] = "0",
    unique_tokens: UniqueTokens = None,
    output: Annotated[Path | None, _output("Output file of the result (netCDF).")] = None,
    allow_unconverged: Unconverged = False,
    allow_conflict: Conflict = False,
    as_json: AsJson = False,
) -> None:
    """Compute the compute-optimal size, tokens and loss of pretraining. A fit of supervised runs alone is enough."""
    from bayesdistill.compute import PUBLISHED_SHAPE

    _keep_inputs(output, fit)
    result = bd.compute_optimal(
        _load_fit(fit),
        _budgets(budgets),
        shape=bd.SIX_ND if six_nd else PUBLISHED_SHAPE,
        noise=noise,
        seed=_whole(seed, "--seed"),
        unique_tokens=None if unique_tokens is None else _positive(unique_tokens, "--unique-tokens"),
        allow_unconverged=allow_unconverged,
        allow_conflict=allow_conflict,
    )
    if output is not None:
        bd.save(result, output)
    if as_json:
        _print_json(bd.decision_table(result), result)
        return
    print(f"Compute-optimal pretraining (level: {_level(result)})\n")
    _print_table(bd.decision_table(result).drop(columns=["noise", "extrapolates"]))
    _print_warnings(result, fit)
    if output is not None:
        print(f"Wrote {output}.")


@app.command(name="update")
def update_command(
    fit: FitFile,
    new: Annotated[
        Path,
        typer.Argument(metavar="NEW", help="New runs of a kind that the fit has: a CSV or Parquet file with outcomes."),
    ],
    student: Annotated[
        list[str] | None, _several("<1B,3B>", "Students of a plan to compare before and after: 1B,3B.")
    ] = None,
    budgets: Annotated[
        str | None, _several("<1e20,1e21>", "Its budgets: lowest:highest:count on a log scale, or a list 1e20,1e21.")
    ] = None,
    scenario: ScenarioNames = None,
    delta: Deltas = None,
    refit: Annotated[bool, typer.Option(help="Refit all runs if importance weights are unreliable.")] = False,
    seed: Annotated[str, _number("Random seed of the effects of new groups, and of a refit.")] = "0",
    output: Annotated[Path | None, _output("Output file of the updated fit (netCDF).")] = None,
    allow_suspicious: Annotated[
        bool, typer.Option(help="Accept implausible values, and runs that the fit already has.")
    ] = False,
    allow_unconverged: Unconverged = False,
    allow_conflict: Conflict = False,
    as_json: AsJson = False,
) -> None:
    """Update a fit by new runs: what they change in the law and in a plan."""
    _keep_inputs(output, fit, new)
    if (scenario or delta) and not student:
        raise ParameterError("--scenario and --delta require --student and --budgets.")
    plan: dict[str, Any] = {} if budgets is None else {"budgets": _budgets(budgets)}
    if student:
        plan |= {"students": _students(student)}
    if scenario or delta:
        plan |= {"scenarios": _scenarios(scenario, delta)}
    if student and budgets is None:
        raise ParameterError("--student requires --budgets, such as --budgets 1e20,1e21.")
    found = bd.update(
        bd.Planner(
            _load_fit(fit),
            allow_unconverged=allow_unconverged,
            allow_conflict=allow_conflict,
            progress=False if as_json else None,
        ),
        new,
        plan=plan or None,
        refit=refit,
        seed=_whole(seed, "--seed"),
        allow_suspicious=allow_suspicious,
    )
    if output is not None:
        bd.save(found.fit, output)
    parts = {"runs": found.runs, "parameters": found.parameters, "plan": found.plan}
    tables = {name: bd.decision_table(part) for name, part in parts.items() if part is not None}
    if as_json:
        numbers = {"pareto_k": found.pareto_k, "effective_draws": found.effective_draws}
        rows = {
            name: json.loads(table.to_json(orient="records", double_precision=15)) for name, table in tables.items()
        }
        print(json.dumps(_rounded(numbers | {"reliable": found.reliable, "refitted": found.refitted} | rows)))
        return
    for sentence in found.sentences:
        print(_on_command_line(sentence, "update"))
    for name, table in tables.items():
        print()
        _print_table(table.drop(columns=["loss_mean", "loss_sd", "noise", "extrapolates"], errors="ignore"))
        if name == "runs":
            _print_warnings(found.runs, fit)
    if output is not None:
        print(f"Wrote {output}.")


@app.command(name="next-supervised")
def next_supervised_command(
    fit: FitFile,
    budgets: Annotated[
        str, _several("<1e23,1e24>", "Target budgets: lowest:highest:count on a log scale, or a list 1e23,1e24.")
    ],
    candidates: Annotated[
        Path | None,
        typer.Option(
            help="Candidate runs: a CSV or Parquet file with params and tokens. By default, runs are proposed."
        ),
    ] = None,
    objective: Annotated[
        str, _one_of(("loss", "size"), "Rank by what a run tells about the loss or about the size.")
    ] = "loss",
    seed: Annotated[str, _number("Random seed of the outcomes.")] = "0",
    output: Annotated[Path | None, _output("Output file of the result (netCDF).")] = None,
    allow_unconverged: Unconverged = False,
    allow_conflict: Conflict = False,
    as_json: AsJson = False,
) -> None:
    """Rank supervised runs by what they tell about compute-optimal pretraining at target budgets."""
    from bayesdistill.tables.formatting import readable

    _keep_inputs(output, fit, candidates)
    result = bd.next_supervised_runs(
        _load_fit(fit),
        candidates,
        _budgets(budgets),
        objective=objective,
        seed=_whole(seed, "--seed"),
        allow_unconverged=allow_unconverged,
        allow_conflict=allow_conflict,
    )
    if output is not None:
        bd.save(result, output)
    table = bd.decision_table(result)
    if as_json:
        _print_json(table, result)
        return
    print("What supervised runs tell about compute-optimal pretraining\n")
    columns = ["candidate", "params", "tokens", "cost", "sd_reduction", "size_value", "status", "extrapolation"]
    _print_table(table[columns])
    _, size, tokens, cost, decrease, *_ = readable(table[columns]).iloc[0]
    first = f"Rank 1: {size} on {tokens} tokens for {cost} FLOPs. It decreases the standard deviation of the loss by {decrease}."
    print("\n" + textwrap.fill(first, shutil.get_terminal_size().columns))
    _print_warnings(result, fit)
    if output is not None:
        print(f"Wrote {output}.")


@app.command(name="recommend")
def recommend_command(
    fit: FitFile,
    student: Students,
    budgets: Annotated[
        str, _several("<1e20,1e21>", "FLOPs of the rows with given compute: lowest:highest:count, or a list 1e20,1e21.")
    ] = "1e20,1e21,1e22",
    tokens: Annotated[
        str, _several("<10B,100B>", "Unique tokens of the rows with given data: a list 10B,100B.")
    ] = "10B,100B,1T",
    teachers: TeacherFile = None,
    threshold: Annotated[str, _number("Probability above which an option is recommended.")] = "0.9",
    max_extrapolation: Annotated[
        str, _number("Extrapolation factor above which the data do not determine the choice.")
    ] = "10",
    noise: Annotated[
        str, _one_of(NOISE, "expected: with group effects and discrepancy; law: mean curves; run: two single runs.")
    ] = "expected",
    draws: Annotated[str, _number("Number of draws for the strategy with perfect information.")] = "1000",
    seed: Annotated[str, _number("Random seed for --noise expected and run.")] = "0",
    allow_unconverged: Unconverged = False,
    allow_conflict: Conflict = False,
    as_json: AsJson = False,
) -> None:
    """Recommend for given compute, teachers or data whether to distill or to pretrain, with probabilities."""
    result = bd.recommendations(
        _load_fit(fit),
        _students(student),
        budgets=_budgets(budgets),
        tokens=[_positive(part, "--tokens") for part in tokens.split(",")],
        teachers=teachers,
        threshold=_real(threshold, "--threshold"),
        max_extrapolation=_real(max_extrapolation, "--max-extrapolation"),
        noise=noise,
        draws=_whole(draws, "--draws"),
        seed=_whole(seed, "--seed"),
        allow_unconverged=allow_unconverged,
        allow_conflict=allow_conflict,
        progress=False if as_json else None,
    )
    table = bd.decision_table(result)
    if as_json:
        _print_json(table.assign(sentence=result["sentence"].values), result)
        return
    columns = "case student amount advice probability probability_lowest probability_highest expected_gain"
    print(f"What to choose (level: {_level(result)})\n")
    _print_table(table[[name for name in columns.split() if name in table]])
    print()
    for sentence in result["sentence"].values.tolist():
        print(textwrap.fill(sentence, shutil.get_terminal_size().columns, subsequent_indent="  "))
    _print_warnings(result, fit)


@app.command(name="page")
def page_command(
    fit: FitFile,
    output: Annotated[Path, _output("Output file of the page (HTML).", _writable)] = Path("page.html"),
    students: Annotated[str, _several("<100M:30B>", "Range of the slider of students: smallest:largest.")] = "100M:30B",
    budgets: Annotated[str, _several("<1e19:1e25>", "Range of the slider of FLOPs: lowest:highest.")] = "1e19:1e25",
    scenario: Annotated[
        str | None,
        typer.Option(
            metavar="<name>",
            help="First cost scenario (default: one with a crossover).",
            autocompletion=lambda: list(bd.SCENARIOS),
        ),
    ] = None,
    draws: Annotated[str, _number("Number of posterior draws in the page.")] = "200",
    noise: Annotated[
        str, _one_of(NOISE, "expected: with group effects and discrepancy; law: mean curves; run: two single runs.")
    ] = "expected",
    seed: Annotated[str, _number("Random seed for --noise expected and run.")] = "0",
    allow_unconverged: Unconverged = False,
    allow_conflict: Conflict = False,
    as_json: AsJson = False,
) -> None:
    """Write an HTML page with sliders that compares strategies, offline and without Python."""
    _keep_inputs(output, fit)
    written = bd.interactive_page(
        _load_fit(fit),
        output,
        students=_ends(students, "--students"),
        budgets=_ends(budgets, "--budgets"),
        scenario=scenario,
        draws=_whole(draws, "--draws"),
        noise=noise,
        seed=_whole(seed, "--seed"),
        allow_unconverged=allow_unconverged,
        allow_conflict=allow_conflict,
    )
    print(json.dumps({"page": str(written)}) if as_json else f"Wrote {written}.")


@app.command(name="report")
def report_command(
    fit: FitFile,
    plan: Annotated[
        Path | None, typer.Option(help="Plan of this fit, written by `bayesdistill plan`, `family` or `optimal`.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help=_FOLDER)] = Path("report"),
    one_page: Annotated[bool, typer.Option("--one-page", help="Only the answer, for one sheet of paper.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a self-contained HTML report of a fit and a plan, with tables and figures as files."""
    from bayesdistill.reporting import check_report, report_files, write_report

    check_report(output)
    planned = None if plan is None else _load_plan(plan)
    files = report_files(_load_fit(fit), planned, one_page=one_page, progress=False if as_json else None)
    page = write_report(files, output)
    names = [str(output / name) for name in files]
    print(json.dumps({"page": str(page), "files": names}) if as_json else f"Wrote {page}.")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help=_FOLDER)] = Path("out"),
    seed: Annotated[str, _number("Random seed of the sampler.")] = "0",
    as_json: AsJson = False,
) -> None:
    """Fit the law to the 354 published runs; write the fit, a plan, figures and a summary."""
    from bayesdistill.demo import run_demo

    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        files = run_demo(out, seed=_whole(seed, "--seed"))
    if as_json:
        print(json.dumps({"folder": str(out), "files": [str(path) for path in files]}))


def _is_name(runs: str) -> bool:
    """Whether RUNS is the name of a data set and not a path."""
    return not (Path(runs).suffix or Path(runs).exists() or Path(runs).name != runs)


def _reject_impossible(plan: xr.Dataset) -> None:
    """Raise an error if no strategy fits any of the budgets."""
    from bayesdistill.strategies import FIRST_FAILURE, STATUS

    codes = set(plan["status"].values.ravel().tolist())
    if min(codes) >= FIRST_FAILURE:
        reasons = " or ".join(STATUS[code].replace("_", " ") for code in sorted(codes))
        raise ParameterError(f"No strategy fits any of the `budgets` ({reasons}). Raise them, or relax the bounds.")


def _positive(text: str, option: str) -> float:
    """Parse a positive number such as 1e9 or 1B."""
    from bayesdistill.decisions.arguments import parse_number

    return parse_number(text, option)


def _real(text: str, option: str) -> float:
    """Parse a number such as -1, 1e9 or 1B. The called function checks its range."""
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    return _positive(text, option)


def _whole(text: str, option: str) -> int:
    with contextlib.suppress(ValueError):
        return int(text)  # exact above 2^53
    value = _real(text, option)
    if value != int(value):
        raise ParameterError(f"{option} must be an integer such as 1000, 1e3 or 1k, got {text!r}.")
    return int(value)


def _print_check(found: Check) -> None:
    """Print the result of `check` in the width of the terminal; 80 characters without one."""
    for text in [found.headline, *(f"- {text}" for text in (*found.problems, *found.cautions))]:
        print(_on_command_line(text, "fit"))
    for checked, value, expected, state in found.rows:
        row = _on_command_line(f"{state:8} {checked}: {value}; expected {expected}", "fit")
        print(textwrap.fill(row, shutil.get_terminal_size().columns, subsequent_indent=9 * " ", break_on_hyphens=False))


def _level(result: xr.Dataset) -> str:
    """Return the level of uncertainty of a result."""
    return str(result.attrs["noise"])


def _print_table(table: pd.DataFrame) -> None:
    """Print a table in the width of the terminal; 80 characters without one. What all rows share stands above it."""
    from bayesdistill.tables.formatting import without_constant

    shared, table = without_constant(table)
    if shared:
        print(f"{shared[0].upper()}{shared[1:]}\n")
    print(bd.table_text(table, width=shutil.get_terminal_size().columns))


def _prices(*values: str | None) -> dict[str, Any]:
    """Return the prices of training and inference, and their currency, as arguments."""
    names = [
        *("gpu_flops_per_second", "price_per_gpu_hour", "inference_flops_per_second"),
        *("inference_price_per_gpu_hour", "currency"),
    ]
    return dict(zip(names, values, strict=True))


def _print_result(
    result: xr.Dataset,
    output: Path | None,
    as_json: bool,
    sentences: Sequence[str],
    fit: Path,
    columns: Sequence[str] = (),
) -> None:
    """Write a result to a file if one is given, and print its table, or some of its columns, with sentences, or as JSON."""
    if output is not None:
        bd.save(result, output)
    if as_json:
        _print_json(bd.decision_table(result), result)
        return
    table = bd.decision_table(result).drop(columns=["noise", "extrapolates"], errors="ignore")
    if "batch_position" in table:
        batch = table["batch_position"]
        table = table.iloc[batch.where(batch > 0, math.inf).argsort(kind="stable")]
        table = table.head(int((batch > 0).sum()) + _FURTHER_RUNS)
    _print_table(table[[name for name in columns if name in table]] if columns else table)
    for sentence in sentences:
        print(sentence)
    _print_warnings(result, fit)
    if output is not None:
        print(f"Wrote {output}.")


def _print_json(table: pd.DataFrame, result: xr.Dataset) -> None:
    limits = {name: result.attrs[name] for name in posterior.LIMITS if name in result.attrs}
    if axes := _fixed_axes(result):
        limits["fixed_axes"] = " ".join(axes)
    table = table.assign(converged=result.attrs["converged"], **limits)
    print(json.dumps(_rounded(json.loads(table.to_json(orient="records", double_precision=15)))))


def _rounded(value: Any) -> Any:
    """Return numbers with six significant digits, which is more than posterior draws determine."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _print_warnings(result: xr.Dataset, fit: Path) -> None:
    if result.attrs["converged"] == "no":
        print(f"The posterior did not converge, so these numbers may be wrong: bayesdistill check {fit}")
    for limit in posterior.limits_of(result.attrs):
        print(f"Warning: {limit}")
    for sentence in [*_fixed_axes(result), *filter(None, [result.attrs.get("scenarios_left_out")])]:
        print(f"Note: {sentence}")


def _fixed_axes(result: xr.Dataset) -> list[str]:
    """Return which axes of the fitted runs do not vary, and which questions the result therefore cannot answer."""
    return list(json.loads(result.attrs.get("fixed_axes", "{}")).values())


def _named_file(text: str) -> tuple[str, Path]:
    """Parse NAME=FILE."""
    name, _, path = text.partition("=")
    if not name or not path:
        raise ParameterError(f"--fit must be a name and a file such as other=other.nc, got {text!r}.")
    return name, Path(path)


def _load_plan(path: Path) -> xr.Dataset:
    import xarray as xr

    result = bd.load(path)
    if not isinstance(result, xr.Dataset):
        raise FileError(f"{path} contains a fit, not a plan. Create a plan with: bayesdistill plan FIT -o plan.nc")
    return result


def _load_fit(path: Path) -> xr.DataTree:
    import xarray as xr

    if not path.exists():
        name = path if path.suffix == ".nc" else "fit.nc"
        raise FileError(f"The file {path} does not exist. Create a fit with: bayesdistill fit RUNS -o {name}")
    result = bd.load(path)
    if not isinstance(result, xr.DataTree):
        raise FileError(f"{path} contains a plan, not a fit. Create a fit with: bayesdistill fit RUNS -o fit.nc")
    return result


def _bounds(
    teacher_params: str, teacher_tokens: str, student_tokens: str | None, factor: str, unique_tokens: str | None = None
) -> dict[str, Any]:
    """Return the bounds of strategies."""
    given = {
        "max_teacher_params": teacher_params,
        "max_teacher_tokens": teacher_tokens,
        "max_student_tokens": student_tokens,
        "unique_tokens": unique_tokens,
    }
    found = {name: _positive(text, f"--{name.replace('_', '-')}") for name, text in given.items() if text is not None}
    return found | {"max_extrapolation": _factor(factor)}


def _factor(text: str) -> float | None:
    """Parse a value of --max-extrapolation."""
    return None if text.lower() == "none" else _real(text, "--max-extrapolation")


def _students(texts: list[str]) -> list[str]:
    """Return the sizes of students, which one option may separate by commas."""
    return [part.strip() for text in texts for part in text.split(",")]


def _scenarios(names: list[str] | None, deltas: list[str] | None) -> Any:
    """Return the scenarios of --scenario and --delta, by default all four."""
    return [*(names or []), *(_shares(text) for text in deltas or [])] or tuple(bd.SCENARIOS)


def _ends(text: str, option: str) -> tuple[float, float]:
    """Parse a range low:high."""
    parts = text.split(":")
    if len(parts) != 2:
        raise ParameterError(f"{option} must be two numbers such as 100M:30B, got {text!r}.")
    low, high = (_positive(part, option) for part in parts)
    return low, high


def _shares(text: str) -> Any:
    try:
        lgt, pre = (float(Fraction(part.strip())) for part in text.split(":"))
    except (ValueError, ZeroDivisionError):
        raise ParameterError(f"--delta must be two fractions such as 1:0.1 or 1:1/8, got {text!r}.") from None
    if not (0 <= lgt <= 1 and 0 <= pre <= 1):
        raise ParameterError(f"The fractions of --delta must be from 0 to 1, such as 1:1/8, got {text!r}.")
    return bd.Scenario(delta_lgt=lgt, delta_pre=pre)


def _budgets(text: str, option: str = "--budgets") -> list[float]:
    import numpy as np

    if ":" not in text:
        return [_positive(part, option) for part in text.split(",")]
    parts = text.split(":")
    if len(parts) != 3 or not re.fullmatch("[0-9]{1,4}", parts[2]) or int(parts[2]) < 2:
        raise ParameterError(
            f"{option} must be lowest:highest:count with a count from 2 to 9999, such as 1e19:1e25:25, got {text:.100}."
        )
    low, high = (_positive(part, option) for part in parts[:2])
    if low >= high:
        raise ParameterError(f"The lowest value of {option} must be less than the highest, got {text!r}.")
    return [float(value) for value in np.geomspace(low, high, int(parts[2]))]


# Parts of messages that describe Python, and what replaces them on the command line, in this order.
_IN_PYTHON = (
    (r"`?\bbd\.(fit|check|plan|predict|report)\b(?:\([^()]*\))?`?", r"`bayesdistill \1`"),
    (r"`?\bbd\.compute_optimal\b`?", "`bayesdistill optimal`"),
    (r"`?\bbd\.update\b(?:\([^()]*\))?`?", "`bayesdistill update --refit`"),
    (r"(`bayesdistill \w+`) or \1", r"\1"),
    (r"\btarget_accept to\b", "--target-accept to"),
    (r"Pass it as supervised runs", "Pass it with --supervised"),
    (r"a scenario with delta_pre=0", "--delta 1:0"),
    (r"\((supervised|prior)s?=\.\.\.\)", r"(bayesdistill fit --\1)"),
    (r"Pass a bayesdistill\.Law, or choose", "Choose"),
    (r"`(--[\w-]+)`", r"\1"),
)


def _on_command_line(message: str, command: str) -> str:
    """Replace Python's functions and arguments in an error message by options and commands."""
    for pattern, replacement in _IN_PYTHON:
        message = re.sub(pattern, replacement, message)
    options = {p.name: max(p.opts, key=len) for p in _commands()[command].params} if command else {}
    options |= {f"{name}s": option for name, option in options.items() if name in ("student", "scenario")}
    options |= {"losses": options["loss"]} if "loss" in options else {}

    def option(match: re.Match[str]) -> str:
        name, value = match["name"] or match["key"], match["value"]
        if not (found := options.get(name, "")).startswith("-"):
            return match[0]
        return f"{found} {value}" if value and value != "True" else found

    return re.sub(r"`(?P<name>\w+)`|\b(?P<key>\w+)=(?P<value>True\b|'[^']*'|\.\.\.|[\w.+-]*\w)", option, message)


def _commands() -> dict[str, Any]:
    return typer.main.get_command(app).commands  # type: ignore[attr-defined]


def _fail(message: str) -> NoReturn:
    """Print an error of the called command and exit with code 2."""
    command = next((word for word in sys.argv[1:] if word in _commands()), "")
    _tell(_on_command_line(message, command))
    _tell(f"options and examples: {' '.join(['bayesdistill', command]).strip()} --help")
    sys.exit(2)


def _tell(message: str) -> None:
    """Print to stderr. If it cannot be written to, the exit code of the command stays the same."""
    try:
        print(f"bayesdistill: {message}", file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _check_working_directory() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise FileError(f"Cannot use the working directory: {error.strerror}. Change to another one.") from None


def main() -> None:
    """Run the command `bayesdistill`."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        _tell(f"warning: {message}")

    # A closed stream is None, and the next opened file would take its place.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may only print ASCII
    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            _check_working_directory()
            try:
                app()
            finally:
                print(end="", flush=True)
        except BayesdistillError as error:
            _fail(error.message)
        except OSError as error:
            # Python would try again to write at exit.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            where = "" if error.filename is None else f" '{error.filename}'"
            _fail(f"Cannot read or write{where or ' the output'}: {error.strerror or error}.")
        except SystemExit as end:
            # Typer exits with this code after Ctrl-C without a message.
            if end.code == _INTERRUPTED:
                _tell("interrupted; every output file has its earlier content or, if it was finished, the new one")
            raise


if __name__ == "__main__":
    main()
