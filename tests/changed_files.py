"""Load thousands of changed files of a fit and a plan, each in a process with limits.

    python tests/changed_files.py [COUNT] [SEED]

Bytes are changed, cut, swapped and merged, within one file and between both. Every file must be rejected with a FileError in 2 s and
500 MB. The script prints how many were and exits with 1 if one was not. `test_saved_files.py` runs short versions.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import decision_cases
import numpy as np
import xarray as xr

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.priors import default_priors, prior_frame
from bayesdistill.sampling.groups import data_groups, log_likelihood

MOST_SECONDS, MOST_MEGABYTES = 2.0, 500


def small_fit() -> xr.DataTree:
    """A tree with all groups of a fit, from draws that are not sampled."""
    table = bd.load_runs("busbridge2025").iloc[::9].reset_index(drop=True)
    law = bd.LAWS["busbridge2025"].with_effects("student").for_runs(distilled=True, supervised=False)
    effect = law.effects[0]
    labels = effect.groups(table)[0]
    rng = np.random.default_rng(0)
    draws = decision_cases.posterior_of(
        decision_cases.scattered(60)
        | {"sigma": np.full(60, 0.01), "nu": np.full(60, 5.0), effect.scale.name: np.full(60, 0.01)},
        chains=2,
    )
    for name in (effect.variable.name, effect.raw):
        draws[name] = (("chain", "draw", effect.dim), 0.01 * rng.standard_normal((2, 30, len(labels))))
    draws["z"] = (("chain", "draw", "coordinate"), rng.standard_normal((2, 30, len(law.coordinates))))
    axes = {"chain": [0, 1], "draw": np.arange(30)}
    draws = draws.assign_coords(axes | {effect.dim: labels, "coordinate": [c.name for c in law.coordinates]})
    reference = bd.law.Reference(4.8e8, 1.6e10, 2.3)
    draws = posterior.with_law(draws, law, reference)
    observed, constant = data_groups(law, table, None)
    steps = {
        "diverging": np.zeros((2, 30), dtype=bool),
        "energy": rng.standard_normal((2, 30)),
        "depth": np.full((2, 30), 3),
    }
    found = xr.DataTree.from_dict(
        {
            posterior.POSTERIOR: draws,
            posterior.SAMPLE_STATS: xr.Dataset({name: (("chain", "draw"), x) for name, x in steps.items()}, axes),
            posterior.LOG_LIKELIHOOD: log_likelihood(draws, table, None),
            posterior.OBSERVED: observed,
            posterior.CONSTANT: constant,
            posterior.PRIOR_TABLE: prior_frame(default_priors(law, reference))
            .to_xarray()
            .rename(coordinate="parameter"),
        }
    )
    origin = {
        "versions": {"bayesdistill": "0.1.0"}, "sampler": "none", "seed": 0, "settings": {"draws": 30, "chains": 2, "tune": 60},
        "data": {"distilled": {"runs": len(table), "sha256": 64 * "0", "source": "busbridge2025/distilled"}},
        "supervised_law": "published law", "asymptotic_width": 0.005, "priors": {"log_nu": "Normal(2.2, 1)"},
        "started": "2025-01-01T00:00:00Z", "seconds": 1.0,
    }  # fmt: skip
    found.attrs = {posterior.FORMAT_ATTRIBUTE: posterior.FORMAT, posterior.PROVENANCE_ATTRIBUTE: json.dumps(origin)}
    return found


def small_plan(fit: xr.DataTree) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bd.ConvergenceWarning)
        return bd.plan(fit, ["1B", "3B"], [1e20, 1e21], allow_unconverged=True)


# Changes --------------------------------------------------------------------------------------------------------------


def _change(rng: np.random.Generator, one: bytearray, _: bytearray) -> bytearray:
    for place in rng.integers(len(one), size=int(rng.choice([1, 1, 4, 40]))):
        one[place] ^= int(rng.integers(1, 256))
    return one


def _cut(rng: np.random.Generator, one: bytearray, _: bytearray) -> bytearray:
    start, stop = _span(rng, len(one))
    return one[:start] + one[stop:] if rng.random() < 0.5 else one[: max(stop - 1, 0)]


def _fill(rng: np.random.Generator, one: bytearray, _: bytearray) -> bytearray:
    start, stop = _span(rng, len(one))
    one[start:stop] = bytes([int(rng.choice([0, 0, 255, 65]))]) * (stop - start)
    return one


def _swap(rng: np.random.Generator, one: bytearray, _: bytearray) -> bytearray:
    size = int(rng.choice([1, 8, 512, 4096]))
    a, b = (int(place) for place in rng.integers(len(one) - size, size=2))
    one[a : a + size], one[b : b + size] = one[b : b + size], one[a : a + size]
    return one


def _merge(rng: np.random.Generator, one: bytearray, other: bytearray) -> bytearray:
    start, stop = _span(rng, min(len(one), len(other)))
    kind = rng.integers(4)
    if kind == 0:
        one[start:stop] = other[start:stop]
        return one
    if kind == 1:
        return one[:start] + other[start:]
    return one[:start] + other[start:stop] + one[start if kind == 2 else stop :]


def _splice(rng: np.random.Generator, one: bytearray, other: bytearray) -> bytearray:
    return one + other[int(rng.integers(len(other))) :] if rng.random() < 0.5 else one + bytes(int(rng.integers(1, 99)))


def _several(rng: np.random.Generator, one: bytearray, other: bytearray) -> bytearray:
    for change in rng.choice(CHANGES[:-1], size=3):
        one = change(rng, one, other) if len(one) > 10_000 else one
    return one


CHANGES: list[Callable[..., bytearray]] = [_change, _cut, _fill, _swap, _merge, _splice, _several]


def _span(rng: np.random.Generator, size: int) -> tuple[int, int]:
    length = min(size, int(10 ** rng.uniform(0, np.log10(size))))
    start = int(rng.integers(size - length + 1))
    return start, start + length


def changed(wholes: list[bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` changed files, none of which is one of the whole ones, with the name of the change."""
    rng = np.random.default_rng(seed)
    while count:
        order = rng.permutation(len(wholes))
        change = CHANGES[int(rng.integers(len(CHANGES)))]
        content = bytes(change(rng, *(bytearray(wholes[i]) for i in order)))
        if content not in wholes:
            count -= 1
            yield change.__name__.strip("_"), content


# Processes ------------------------------------------------------------------------------------------------------------


def _load_each(connection, path: str) -> None:
    """Load the file as often as asked; answer what happened and how long it took."""
    bd.load(path)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    most = used + MOST_MEGABYTES * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    warnings.simplefilter("ignore")
    connection.send(None)
    while connection.recv():
        started = time.perf_counter()
        try:
            bd.load(path)
            said = "accepted"
        except bd.FileError as error:
            said = "rejected" if len(str(error)) < 1000 else f"message of {len(str(error))} characters"
        except BaseException as error:
            said = f"{type(error).__name__}: {str(error)[:100]}"
        connection.send((said, time.perf_counter() - started))


def outcomes(contents: Iterator[tuple[str, bytes]], whole: bytes) -> Iterator[tuple[str, str, float, bytes]]:
    """(change, what happened, seconds, content) of each file; a process that ends or takes too long is replaced."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "changed.nc"
        worker = None
        for change, content in contents:
            if worker is None:
                path.write_bytes(whole)
                connection, other = context.Pipe()
                worker = context.Process(target=_load_each, args=(other, str(path)), daemon=True)
                worker.start()
                other.close()
                connection.recv()
            path.write_bytes(content)
            connection.send(True)
            said, seconds = "too slow", 5 * MOST_SECONDS
            try:
                if connection.poll(seconds):
                    said, seconds = connection.recv()
            except EOFError:
                worker.join()
                said = f"process ended with {worker.exitcode}"
            if seconds > MOST_SECONDS:
                said = said if said != "rejected" else "rejected too late"
                worker.kill()
                worker = None
            yield change, said, seconds, content
        if worker is not None:
            connection.send(False)
            worker.join()


def main(count: int = 10_000, seed: int = 0) -> int:
    fit = small_fit()
    with tempfile.TemporaryDirectory() as folder:
        results = {"fit.nc": fit, "plan.nc": small_plan(fit)}
        wholes = [bd.save(result, Path(folder) / name).read_bytes() for name, result in results.items()]
    print(f"{count} changed files of {' and '.join(f'{len(whole) / 1e3:.0f} kB' for whole in wholes)}")
    found, slowest = Counter(), 0.0
    for change, said, seconds, content in outcomes(changed(wholes, count, seed), wholes[0]):
        found[change, said] += 1
        slowest = max(slowest, seconds)
        if said != "rejected":
            path = Path(tempfile.gettempdir()) / f"changed-{sum(found.values())}.nc"
            path.write_bytes(content)
            print(f"{change}: {said} ({seconds:.2f} s), kept as {path}")
    for (change, said), number in sorted(found.items()):
        print(f"{number:6} {change:8} {said}")
    wrong = sum(number for (_, said), number in found.items() if said != "rejected")
    print(
        f"{wrong} not rejected; slowest {slowest:.3f} s, at most {MOST_MEGABYTES} MB above the process that loaded the whole file"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(*(int(argument) for argument in sys.argv[1:])))
