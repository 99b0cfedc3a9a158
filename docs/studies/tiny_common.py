"""Shared code of the studies of the tiny experiment: tables, FLOPs per token of models with two layers, and decisions."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import numpy as np

import bayesdistill as bd

distilled = bd.load_runs("tiny")
supervised = bd.load_runs("tiny", kind="supervised")


def flops(params):
    """Forward FLOPs per token: two layers of width d = sqrt(N / 24), 64 tokens of context, 128 in the vocabulary."""
    sizes = np.atleast_1d(np.asarray(params, dtype=float))
    found = [
        bd.flops_per_token(n, bd.Shape(64, 128, math.sqrt(n / 24) / 2)) if np.isfinite(n) else np.nan for n in sizes
    ]
    return np.reshape(found, np.shape(params))


# A plan has a single aspect ratio. With the aspect ratio of width 72, F(N) has an error of at most 2%.
SHAPE = bd.Shape(64, 128, 36)
STUDENTS = [24 * d**2 for d in (32, 48, 64, 96)]
BUDGETS = np.geomspace(3e11, 3e13, 7)
SCENARIOS = ("best case", "teacher inference")


def report_to_stderr() -> Callable[[int, int], None]:
    """Return a function that prints the progress and the seconds since now."""
    began = time.monotonic()
    return lambda done, of: print(f"{done}/{of} {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
