"""Train one model of the tiny experiment and say its validation loss.

    python data/tiny/train.py --cell sup-d24-0.5M-s0
    python data/tiny/train.py --cell sup-d24-0.5M-s0 --compare   # does it agree with the stored loss?

Text is read in windows of 64 bytes. A run takes windows in an order of its own, which its name decides, and no window twice.
Supervised models, the teachers among them, read the first half of the training text, distilled ones the second.
A teacher that is not in data/tiny/work/ is trained first. A run that is stopped continues where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import zlib
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import jax.numpy as jnp
import numpy as np
from design import (
    BATCH_TOKENS,
    LOG,
    WORK,
    Run,
    checkpoint,
    held_out,
    params,
    prospective,
    rate_check,
    supervised,
    tuning,
)
from design import grid as all_runs
from model import CONTEXT, fresh_state, mean_losses, train_chunk

CHUNK = 100  # steps between looks at the PAUSE file
VALIDATION_BLOCKS, VALIDATION_WINDOWS = 976, 8  # 7,808 windows, 499,712 bytes, evenly spread over the held-out text
SAVE_EVERY = 120  # seconds

known_losses: dict[str, float] = {}  # of the teachers that this process has validated

jax.config.update("jax_compilation_cache_dir", str(WORK / "compiled"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


class Stopped(Exception):  # noqa: N818  # nothing went wrong
    """The run was asked to stop; its state is saved."""


def text_windows(distilled: bool) -> np.ndarray:
    """The half of the training text that this kind of run reads, as (windows, 64). Nothing is loaded yet."""
    text = np.memmap(WORK / "train.bin", np.uint8, mode="r")
    half = len(text) // 2 // CONTEXT * CONTEXT
    return (text[half : 2 * half] if distilled else text[:half]).reshape(-1, CONTEXT)


def seed_of(run: Run) -> int:
    """The same for a run at any learning rate, so that those differ in nothing else."""
    return zlib.crc32(Run(run.width, run.tokens, run.seed, run.teacher).name.encode())


def batches(run: Run) -> np.ndarray:
    """Indices of windows, (steps, windows a batch), none twice; the last window has no byte after it and is left out."""
    available = len(text_windows(run.teacher is not None)) - 1
    needed = run.steps * (BATCH_TOKENS // CONTEXT)
    order = np.random.default_rng(seed_of(run)).permutation(available)[:needed]
    return order.reshape(run.steps, -1)


def with_next_byte(windows: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Windows with the byte that follows each, (..., CONTEXT + 1)."""
    return np.concatenate([windows[index], windows[index + 1][..., :1]], axis=-1)


def validation_loss(model: dict) -> float:
    """Mean cross-entropy on the held-out text, nats per byte; the same windows for every model."""
    text = np.fromfile(WORK / "valid.bin", np.uint8)
    windows = text[: len(text) // CONTEXT * CONTEXT].reshape(-1, CONTEXT)
    index = np.linspace(0, len(windows) - 2, VALIDATION_BLOCKS * VALIDATION_WINDOWS).astype(int)
    blocks = with_next_byte(windows, index.reshape(VALIDATION_BLOCKS, VALIDATION_WINDOWS))
    return float(np.mean(np.asarray(mean_losses(model, blocks), np.float64)))


def read_log() -> dict[str, dict]:
    """Finished runs by name."""
    if not LOG.exists():
        return {}
    return {row["name"]: row for row in map(json.loads, LOG.read_text().splitlines())}


def write_arrays(path: Path, leaves: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(file, *[np.asarray(leaf) for leaf in leaves])
    unfinished.replace(path)


def read_arrays(path: Path, like) -> tuple:
    with np.load(path, allow_pickle=False) as file:
        leaves = [jnp.asarray(file[name]) for name in file.files]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def pause(stop) -> float:
    """Wait while the PAUSE file is there; return the seconds waited."""
    started = time.time()
    if (WORK / "PAUSE").exists():
        print(f"paused until {WORK / 'PAUSE'} is removed", flush=True)
    while (WORK / "PAUSE").exists() and not stop():
        time.sleep(1)
    return time.time() - started


def teacher_of(run: Run, stop) -> tuple[dict | None, float | None]:
    """The teacher's parameters and its loss; it is trained here if its checkpoint is not there."""
    teacher = run.teacher_run
    if teacher is None:
        return None, None
    if not checkpoint(teacher).exists():
        print(f"training the teacher first: {teacher.name}", flush=True)
        train(teacher, stop)
    model = read_arrays(checkpoint(teacher), fresh_state(jax.random.key(0), teacher.width)[0])
    if teacher.name not in known_losses:
        known_losses[teacher.name] = validation_loss(model)
    return model, known_losses[teacher.name]


def train(run: Run, stop=lambda: False) -> dict:
    """Train one run and return what the log says of it. `stop` is asked between chunks; `Stopped` follows if it is true."""
    teacher, teacher_loss = teacher_of(run, stop)
    windows, order = text_windows(run.teacher is not None), batches(run)
    state = fresh_state(jax.random.key(seed_of(run)), run.width)
    partial = WORK / "partial" / f"{run.name}.npz"
    wall = cpu = 0.0
    losses: list[np.ndarray] = []
    if partial.exists():
        state, wall, cpu = read_arrays(partial, (state, 0.0, 0.0))
        wall, cpu = float(wall), float(cpu)
    started, cpu_started, saved = time.time() - wall, time.process_time() - cpu, time.time()
    for first in range(int(state[3]), run.steps, CHUNK):
        started += pause(stop)
        if stop() or time.time() - saved > SAVE_EVERY:
            leaves = jax.tree.leaves((state, time.time() - started, time.process_time() - cpu_started))
            write_arrays(partial, leaves)
            saved = time.time()
            if stop():
                raise Stopped(run.name)
        chunk = with_next_byte(windows, order[first : first + CHUNK])
        state, loss = train_chunk(state, chunk, float(run.steps), run.lr0, run.weight_decay, teacher)
        losses.append(np.asarray(loss))
    trained, cpu_trained = time.time(), time.process_time()
    loss = validation_loss(state[0])
    if run.teacher is None and run.experiment != "tuning":
        write_arrays(checkpoint(run), jax.tree.leaves(state[0]))
    partial.unlink(missing_ok=True)
    last = np.concatenate(losses)[-1000:]  # of this sitting
    return {
        "name": run.name,
        "experiment": run.experiment,
        "width": run.width,
        "params": params(run.width),
        "tokens": run.steps * BATCH_TOKENS,
        "seed": run.seed,
        "loss": round(loss, 6),
        "teacher": None if run.teacher is None else run.teacher_run.name,
        "teacher_params": None if run.teacher is None else params(run.teacher[0]),
        "teacher_tokens": None if run.teacher is None else run.teacher_run.steps * BATCH_TOKENS,
        "teacher_loss": None if teacher_loss is None else round(teacher_loss, 6),
        "train_loss": round(float(last.mean()), 6),
        "rate_factor": run.rate_factor,
        "lr0": round(run.lr0, 6),
        "weight_decay": run.weight_decay,
        "wall_s": round(trained - started, 1),
        "cpu_s": round(cpu_trained - cpu_started, 1),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "train_sha256": json.loads((WORK / "corpus.json").read_text())["train_sha256"][:16],
        "jax": jax.__version__,
        "numpy": np.__version__,
    }


def main() -> None:
    runs = {
        run.name: run for run in [*tuning(), *supervised(), *all_runs(), *held_out(), *rate_check(), *prospective()]
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", required=True, help="name of the run, as in design.py")
    parser.add_argument("--compare", action="store_true", help="compare with the stored loss; exit 1 if it disagrees")
    args = parser.parse_args()
    if args.cell not in runs:
        parser.error(f"no run is called {args.cell}; python data/tiny/design.py lists them")
    row = train(runs[args.cell])
    print(json.dumps(row, indent=1))
    if args.compare:
        compare(row)


def compare(row: dict) -> None:
    """Exit with 1 unless the loss is within three standard deviations of a seed from the stored one."""
    stored = read_log()
    if row["name"] not in stored:
        raise SystemExit(f"{row['name']} is not in {LOG.name}")
    groups: dict[tuple, list[float]] = {}
    for r in stored.values():
        if r["experiment"] == "main":
            groups.setdefault((r["width"], r["tokens"], r["teacher"]), []).append(r["loss"])
    repeated = [g for g in groups.values() if len(g) > 1]
    spread = (sum((len(g) - 1) * np.var(g, ddof=1) for g in repeated) / sum(len(g) - 1 for g in repeated)) ** 0.5
    difference = row["loss"] - stored[row["name"]]["loss"]
    agrees = abs(difference) <= 3 * spread
    print(
        f"loss {row['loss']:.4f}, stored {stored[row['name']]['loss']:.4f}: {difference:+.4f}; one seed differs by {spread:.4f}"
    )
    print("agrees" if agrees else "does not agree within three standard deviations of a seed")
    raise SystemExit(0 if agrees else 1)


if __name__ == "__main__":
    main()
