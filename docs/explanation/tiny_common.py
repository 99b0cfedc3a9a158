"""What the scripts of tiny.md share: the tables, and what a token costs in models of two layers."""

import math

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


# Plans know one aspect ratio; that of width 72 stands for all. F(N) is right to 2 %.
SHAPE = bd.Shape(64, 128, 36)
STUDENTS = [24 * d**2 for d in (32, 48, 64, 96)]
BUDGETS = np.geomspace(3e11, 3e13, 7)
SCENARIOS = ("best case", "teacher inference")
