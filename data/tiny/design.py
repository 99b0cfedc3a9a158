"""Which runs the tiny experiment consists of, in which order, and which are kept apart. Needs no JAX.

A run is one model trained once. Its name says all that decides its loss: `sup-d32-4M-s0` is the supervised model of
width 32 on 4M tokens with seed 0, and `dis-d32-2M-s0-from-d64-8M` the same width distilled on 2M tokens from the
supervised model of width 64 on 8M tokens (seed 0). 1M tokens are 4,000 steps of 256 tokens, 1,024,000 in all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = HERE / "work"
LOG = HERE / "log.jsonl"

BATCH_TOKENS = 256
STEPS_PER_M = 4000

# The best learning rate falls with the number of steps: .012 at .5M tokens, .006 to .012 at 2M (see README.md).
LR0_AT_HALF_M = 0.012
LR0_EXPONENT = -0.3

WIDTHS = (24, 32, 48, 64, 96, 128, 192)
TEACHERS = ((32, 1), (64, 2), (48, 4), (64, 8), (96, 8), (128, 8), (128, 32), (192, 16))
BEST_TEACHERS = ((96, 8), (128, 8), (128, 32), (192, 16))

# Tokens per second of one core of the machine that made the first runs; they only order the grid and guess the time left.
SPEED = {24: 150e3, 32: 120e3, 48: 75e3, 64: 50e3, 96: 28e3, 128: 17e3, 192: 9e3}


@dataclass(frozen=True)
class Run:
    """One training run. `tokens` is in millions; `teacher` is (width, tokens) of a supervised run with seed 0."""

    width: int
    tokens: float
    seed: int = 0
    teacher: tuple[int, float] | None = None
    rate_factor: float = 1.0
    weight_decay: float = 1e-4
    experiment: str = "main"

    @property
    def name(self) -> str:
        kind = "sup" if self.teacher is None else "dis"
        name = f"{kind}-{label(self.width, self.tokens)}-s{self.seed}"
        if self.teacher is not None:
            name += f"-from-{label(*self.teacher)}"
        if self.rate_factor != 1:
            name += f"-lr{self.rate_factor:g}x"
        if self.weight_decay != Run.weight_decay:
            name += f"-wd{self.weight_decay:g}"
        return name

    @property
    def lr0(self) -> float:
        return self.rate_factor * LR0_AT_HALF_M * (self.tokens / 0.5) ** LR0_EXPONENT

    @property
    def steps(self) -> int:
        return round(self.tokens * STEPS_PER_M)

    @property
    def teacher_run(self) -> Run | None:
        return None if self.teacher is None else Run(*self.teacher)

    @property
    def seconds(self) -> float:
        """A guess of the time on one core, compilation and validation included."""
        tokens = self.steps * BATCH_TOKENS + 0.15e6  # validation counts as 0.15M tokens of training
        per_token = 1 / SPEED[self.width]
        if self.teacher is not None:  # the teacher's forward pass is about 0.4 of a training step
            per_token += 0.4 / SPEED[self.teacher[0]]
        return 5 + tokens * per_token


def label(width: int, tokens: float) -> str:
    return f"d{width}-{tokens:g}M"


def checkpoint(run: Run) -> Path:
    """Where the parameters of a finished supervised run are; they are not committed."""
    return WORK / "models" / f"{run.name}.npz"


def params(width: int) -> int:
    """Non-embedding parameters: two layers of 12 d^2."""
    return 24 * width**2


def tuning() -> list[Run]:
    """The runs that chose the learning rate and the weight decay; made before the grid."""
    cells = ((24, 0.5), (32, 0.5), (64, 2))
    runs = [Run(d, t, rate_factor=factor) for d, t in cells for factor in (1, 0.5, 2)]
    runs += [Run(32, 2, weight_decay=decay) for decay in (Run.weight_decay, 0.0, 1e-3)]
    standard = (1, Run.weight_decay)  # such a run is a cell of the grid too
    return [r if (r.rate_factor, r.weight_decay) == standard else replace(r, experiment="tuning") for r in runs]


def checks() -> list[Run]:
    """Cells of the grid trained with half and twice the learning rate: is any of them undertrained?"""
    cells = [(128, 1, None), (32, 8, None), (96, 2, None), (32, 2, (64, 8)), (128, 8, None), (32, 32, None)]
    return [
        Run(d, tokens, teacher=teacher, rate_factor=factor, experiment="check")
        for d, tokens, teacher in cells
        for factor in (0.5, 2)
    ]


def supervised() -> list[Run]:
    runs = [Run(d, t) for d in WIDTHS for t in (0.5, 1, 2, 4, 8, 16)]
    runs += [Run(d, 32) for d in (32, 48, 64, 96, 128)]
    repeated = [(d, t) for d in (32, 64) for t in (1, 4, 16)] + [(128, 1), (128, 4)]
    return runs + [Run(d, t, seed) for d, t in repeated for seed in (1, 2)]


def distilled() -> list[Run]:
    runs = [Run(d, t, teacher=teacher) for d in (24, 32, 48, 64, 96) for teacher in TEACHERS for t in (0.5, 2, 8)]
    runs += [Run(d, 16, teacher=teacher) for d in (24, 32, 48, 64, 96) for teacher in BEST_TEACHERS]
    runs += [Run(d, 32, teacher=teacher) for d in (24, 32) for teacher in ((128, 8), (192, 16))]
    return runs + [Run(d, 2, seed, teacher) for d in (32, 64) for teacher in TEACHERS for seed in (1, 2)]


def held_out() -> list[Run]:
    """The decision cells. They are made last, once, after the predictions for them have been written down."""
    runs = [Run(192, 32), Run(64, 64)]
    students = [(64, 64), (128, 8)]
    runs += [Run(d, t, teacher=teacher) for d, t in students for teacher in ((192, 32), (96, 8))]
    return [replace(run, experiment="held-out") for run in runs]


def prospective() -> list[Run]:
    """Return the cells of docs/studies/prospective.py: pairs of a pretrained and a distilled run, the pretrained run first.

    Every cell has more tokens and more compute N D than every run of the tables. The pairs whose teachers are cheap come first.
    Their predictions are committed before the first of them is trained.
    """
    pairs = [
        (128, 40, 0, (192, 16)),
        (96, 72, 0, (192, 16)),
        (128, 48, 0, (128, 16)),
        (64, 160, 0, (128, 16)),
        (96, 80, 0, (96, 32)),
        (192, 36, 0, (192, 16)),
        (128, 56, 0, (192, 16)),
        (128, 40, 1, (192, 32)),
        (96, 72, 1, (192, 32)),
        (64, 160, 1, (192, 32)),
        (96, 96, 0, (192, 32)),
        (128, 64, 0, (192, 32)),
    ]
    return [
        Run(width, tokens, seed, teacher, experiment="prospective")
        for width, tokens, seed, teacher_of_pair in pairs
        for teacher in (None, teacher_of_pair)
    ]


def rate_check() -> list[Run]:
    """Return d128-8M with a second seed at the rate in use and at half of it, made before the prospective cells."""
    return [Run(128, 8, 1, rate_factor=factor, experiment="check") for factor in (1.0, 0.5)]


def priority(run: Run) -> float:
    """Small first: cheap runs, teachers before their turn but no student before its teacher, repeats right after their cell."""
    weight = 1.0
    if run.teacher is None and run.seed == 0 and (run.width, run.tokens) in TEACHERS and run.rate_factor == 1:
        weight = 0.12
    elif run.seed > 0:
        weight = 1.02
    own = weight * run.seconds
    return own if run.teacher_run is None else max(own, 1.001 * priority(run.teacher_run))


def grid() -> list[Run]:
    """All runs but the held-out ones, in the order in which they are made: useful wherever it stops."""
    return sorted(supervised() + distilled() + checks(), key=priority)


if __name__ == "__main__":
    total = 0.0
    for run in grid():
        total += run.seconds
        print(f"{run.name:44s} {run.seconds:7.0f} s {total:8.0f} s")
    print(f"{len(supervised())} supervised, {len(distilled())} distilled, {len(checks())} checks")
    print("kept apart:", ", ".join(run.name for run in held_out()))
