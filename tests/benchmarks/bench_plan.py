"""The solver against SLSQP, problem by problem, and a large plan: time, memory, and which optimum is lower.

    python tests/benchmarks/bench_plan.py [--rounds 24] [--per-round 16] [--plans 3] [--before FOLDER] [--only solver|plan]

Problems are a posterior draw of the 354 runs, a student, a budget and a scenario. *Solver*: both sides take turns. In each round
the package solves all draws for random students, budgets and bounds in each scenario, and `scipy.optimize.minimize` solves some of
them by SLSQP, over the logarithms of the teacher's size and tokens, with the same bounds, from a teacher of the student's size. Its
objective is written once with the public functions, and once by hand in scalar arithmetic, about the fastest that Python can do. Time
is that of the clock, in which the package uses `--threads` threads and SciPy its one, and processor time of all threads, which other
work on the machine changes less. SLSQP also runs with a tolerance of 1e-12, and from the package's optimum, to see whether a lower
loss is near. Optima are compared on one evaluation of the laws.

*Plan*: 4 students, 4 scenarios, 31 budgets and 4000 draws, and the crossovers of 3 students, in processes of their own
(`time_plan.py`). Each makes a small plan first. Memory is that of the whole process at its peak. With `--before FOLDER`, a clone of an
earlier version takes turns with this one, and the results are compared.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

import bayesdistill as bd
from bayesdistill.compute import PUBLISHED_SHAPE, SCENARIOS
from bayesdistill.decisions.fitted_draws import gather
from bayesdistill.law import SUPERVISED_SYMBOLS
from bayesdistill.strategies import Bounds, Problem, perfect_information_strategies

CHILD = str(Path(__file__).with_name("time_plan.py"))
DRAWS = 1000  # of each of 4 chains
WORSE = 1e-9  # nats
BUDGETS_A_ROUND = 31  # as many as the plan has


# The solver against SLSQP ---------------------------------------------------------------------------------------------


def scalar_problem(law, student, budget, scene, bounds):
    """Student loss of a teacher (log size, log tokens), and the student's tokens; scalars throughout."""
    k1, k2 = PUBLISHED_SHAPE.k1, PUBLISHED_SHAPE.k2
    lgt, pre, cap = scene.delta_lgt, scene.delta_pre, bounds.max_student_tokens
    E, A, B, alpha, beta, gamma = (law[name] for name in SUPERVISED_SYMBOLS)
    c0, c1f1, d1, f1 = law["c0"], law["c1"] * law["f1"], law["d1"], law["f1"]
    gamma_S, beta_S, B_S, w1 = law["gamma_S"], law["beta_S"], law["B_S"], law["w1"]
    tokens_worth = law.get("kappa", 1.0) ** -beta
    irreducible = law.get("omega", 0.0) * E
    own_size, own_size_S = A * student**-alpha, law["A_S"] * student ** -law["alpha_S"]
    log_d1 = math.log(d1)
    own_flops = float(bd.flops_per_token(student))

    def own_tokens(x, y):
        N = math.exp(x)
        flops = 2 * N * (1 + k1 * N ** (-1 / 3) + k2 * N ** (-2 / 3))
        left = budget - 3 * pre * flops * math.exp(y)
        return min(left / (3 * own_flops + lgt * flops), cap)

    def loss(point):
        x, y = point.tolist()
        own = max(own_tokens(x, y), 1.0)
        teacher = E + (A * math.exp(-alpha * x) + B * math.exp(-beta * y)) ** gamma
        lack = B * own**-beta
        alone = E + (own_size + lack) ** gamma
        able = E + (own_size + tokens_worth * lack) ** gamma
        above = able - irreducible
        log_ratio = math.log(teacher / able) * able / above
        z = (log_ratio - log_d1) / f1
        gap = c1f1 * (max(z, 0.0) + math.log1p(math.exp(-abs(z)))) + c0 * (math.log(above) + log_ratio)
        recovered = w1 * max(teacher - alone, 0.0)
        return teacher - recovered + math.exp(-gap) * (own_size_S + B_S * own**-beta_S) ** gamma_S

    return loss, own_tokens


def by_hand(*problem):
    return scalar_problem(*problem)[0]


def public_problem(law, student, budget, scene, bounds):
    """The same loss with the package's public functions."""
    six = {name: law[name] for name in SUPERVISED_SYMBOLS}
    cost = 3 * bd.flops_per_token(student)

    def loss(point):
        params, tokens = np.exp(point)
        flops = bd.flops_per_token(params)
        left = budget - 3 * scene.delta_pre * flops * tokens
        own = max(min(left / (cost + scene.delta_lgt * flops), bounds.max_student_tokens), 1.0)
        return bd.distilled_loss(student, own, bd.supervised_loss(params, tokens, **six), **law)

    return loss


def judged(law, student, budget, scene, bounds, x, y):
    """Loss of a teacher by the public laws; infinite if it leaves no token."""
    own = scalar_problem(law, student, budget, scene, bounds)[1](x, y)
    if not own >= 1:
        return math.inf
    teacher = bd.supervised_loss(math.exp(x), math.exp(y), **{name: law[name] for name in SUPERVISED_SYMBOLS})
    return float(bd.distilled_loss(student, own, teacher, **law))


def random_bounds(rng):
    """The usual bounds, or (half of the rounds) narrow ones that often hold the optimum."""
    if rng.uniform() < 0.5:
        return Bounds()
    cap = 10 ** rng.uniform(10, 13) if rng.uniform() < 0.5 else math.inf
    return Bounds(
        max_teacher_params=10 ** rng.uniform(9, 12),
        max_teacher_tokens=10 ** rng.uniform(11, 13.3),
        max_student_tokens=cap,
    )


def compare_solvers(draws, rounds, per_round, threads):
    """Rounds of both sides, interleaved."""
    rng = np.random.default_rng(0)
    n_draws = draws["E"].size
    names = ("package", "SLSQP", "SLSQP by hand", "SLSQP by hand 1e-12")
    seconds, clock = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    solved, scenario_seconds = dict.fromkeys(names, 0), {}
    differences = {name: [] for name in (*names[1:], "SLSQP from the package's optimum")}
    perfect_information_strategies(draws, Problem([1e9], [1e21, 1e22], list(SCENARIOS)), threads)  # loads modules
    for _ in range(rounds):
        for scene in SCENARIOS.values():
            bounds = random_bounds(rng)
            student = 10 ** rng.uniform(8, 10.5)
            budgets = 10 ** rng.uniform(19, 25, BUDGETS_A_ROUND)
            began, started = time.perf_counter(), time.process_time()
            found = perfect_information_strategies(draws, Problem([student], budgets, scene, bounds), threads)
            spent = time.process_time() - started
            seconds["package"] += spent
            clock["package"] += time.perf_counter() - began
            solved["package"] += budgets.size * n_draws
            scenario_seconds.setdefault(scene.name, []).append(spent / (budgets.size * n_draws))
            for _ in range(per_round):
                c, i = int(rng.integers(budgets.size)), int(rng.integers(n_draws))
                at = {name: float(values[0, 0, c, i]) for name, values in found.items()}
                if not math.isfinite(at["loss"]):
                    continue
                law = {name: float(draws[name][i]) for name in draws.law.symbols_of_law}
                problem = (law, student, float(budgets[c]), scene, bounds)
                limits = (bounds.teacher_params, (bounds.min_teacher_tokens, bounds.max_teacher_tokens))
                box = np.log(limits).tolist()
                flops = float(bd.flops_per_token(student))
                tokens = min(20 * student, 0.3 * budgets[c] / (3 * flops))
                start = np.clip(np.log([student, tokens]), *np.transpose(box))
                optimum = np.array([math.log(at["teacher_params"]), math.log(at["teacher_tokens"])])
                ours = judged(*problem, *optimum)
                assert abs(ours - at["loss"]) < 1e-10, "the benchmark's law is not that of the package"
                for name, make, point, options, timed in (
                    ("SLSQP", public_problem, start, {}, True),
                    ("SLSQP by hand", by_hand, start, {}, True),
                    ("SLSQP by hand 1e-12", by_hand, start, {"ftol": 1e-12}, True),
                    ("SLSQP from the package's optimum", by_hand, optimum, {"ftol": 1e-14}, False),
                ):
                    began, started = time.perf_counter(), time.process_time()
                    loss = make(*problem)
                    result = minimize(loss, point, method="SLSQP", bounds=box, options=options)
                    spent, passed = time.process_time() - started, time.perf_counter() - began
                    if timed:
                        seconds[name] += spent
                        clock[name] += passed
                        solved[name] += 1
                    x, y = np.clip(result.x, *np.transpose(box))
                    differences[name].append(ours - judged(*problem, x, y))
    micro = {name: 1e6 * seconds[name] / solved[name] for name in names}
    ticks = {name: 1e6 * clock[name] / solved[name] for name in names}
    print(
        f"{solved['package']} problems by the package in {threads} threads, {solved['SLSQP']} of them by SLSQP, {n_draws} draws"
    )
    for name in names:
        print(
            f"  {name:<24}{ticks[name]:10.2f} µs on the clock a problem, {ticks[name] / ticks['package']:6.0f} times; "
            f"{micro[name]:10.2f} µs of processor time, {micro[name] / micro['package']:6.0f} times"
        )
    for scene, values in scenario_seconds.items():
        print(f"    package, {scene:<31}{1e6 * np.mean(values):8.2f} µs")
    for name, values in differences.items():
        apart = np.array(values)
        print(
            f"  against {name}: package worse by more than {WORSE:g} in {(apart > WORSE).sum()} of {apart.size} "
            f"(most {apart.max():.1e}), better by more than {WORSE:g} in {(apart < -WORSE).sum()} (most {-apart.min():.1e})"
        )


# A large plan ---------------------------------------------------------------------------------------------------------


def run_plans(versions, plans, threads):
    """Time each version in turns; print the medians, their ratios, and how far the results are apart."""
    records = {name: [] for name in versions}
    for turn in range(plans + 1):  # the first makes the fits
        for name, (folder, work) in versions.items():
            command = [
                sys.executable,
                CHILD,
                str(work / "fit.nc"),
                str(work / "results.npz"),
                "--threads",
                str(threads),
            ]
            path = {"PYTHONPATH": str(folder)}
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=work, env=os.environ | path)
            if not turn:
                continue
            records[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"  {name}: {done.stdout.splitlines()[-1]}; load {os.getloadavg()[0]:.1f}", flush=True)
    median = {name: {k: float(np.median([r[k] for r in found])) for k in found[0]} for name, found in records.items()}
    print(f"{'median of ' + str(plans):<24}" + "".join(f"{name:>12}" for name in median))
    for key in median["after"]:
        row = [values[key] for values in median.values()]
        ratio = f"   ratio {row[-1] / row[0]:.2f}" if len(row) > 1 else ""
        print(f"{key:<24}" + "".join(f"{value:12.2f}" for value in row) + ratio)
    if len(versions) > 1:
        old, new = (np.load(work / "results.npz") for _, work in versions.values())
        for key in new:
            with np.errstate(invalid="ignore"):
                apart = np.nanmax(np.abs(new[key] / old[key] - 1 if key == "crossover" else new[key] - old[key]))
            print(f"{key}: changed by at most {apart:.2g}{' (relative)' if key == 'crossover' else ''}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--per-round", type=int, default=16)
    parser.add_argument("--plans", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--before", type=Path, help="folder of a clone of an earlier version")
    parser.add_argument("--only", choices=("solver", "plan"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.only != "plan":
            fit = bd.fit(bd.load_runs("busbridge2025"), seed=0, draws=DRAWS, chains=4, progress=False)
            compare_solvers(gather(fit, False).draws, chosen.rounds, chosen.per_round, chosen.threads)
        if chosen.only != "solver":
            clones = {"before": chosen.before} if chosen.before else {}
            clones["after"] = Path(__file__).parents[2]
            versions = {}
            for name, clone in clones.items():
                work = Path(folder) / name
                work.mkdir()
                versions[name] = (clone.resolve(), work)
            run_plans(versions, chosen.plans, chosen.threads)


if __name__ == "__main__":
    main()
