"""The model of the tiny experiment and its training step, in JAX.

A decoder of two layers: RMSNorm before each block, on queries and keys, and at the end; learned positions, causal attention,
squared ReLU, no biases and no gains, output tied to the input embedding. Widths share one set of learning rates: hidden
matrices start with variance 1/fan_in and move at lr0 * 64/d, embeddings start with variance 1 and move at 3 lr0, logits are
scaled by 8/d, and the matrices that write to the residual stream start at zero. AdamW, whose weight decay does not scale with
the learning rate.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

CONTEXT = 64
VOCABULARY = 128
LAYERS = 2
BETA1, BETA2, EPSILON = 0.9, 0.98, 1e-9
CLIP = 1.0
LAST_RATE = 0.02  # of the peak, where the cosine ends
WARMUP = 200  # steps

Params = dict[str, jax.Array]


def head_width(width: int) -> int:
    if width < 32:
        return 12
    return 16 if width < 64 else 32


def init(key: jax.Array, width: int) -> Params:
    """Parameters of a fresh model. Both layers are stacked along the first axis."""
    d = width
    embed, place, qkv, up = jax.random.split(key, 4)
    return {
        "embed": jax.random.normal(embed, (VOCABULARY, d)),
        "place": jax.random.normal(place, (CONTEXT, d)),
        "qkv": jax.random.normal(qkv, (LAYERS, d, 3 * d)) / jnp.sqrt(d),
        "out": jnp.zeros((LAYERS, d, d)),
        "up": jax.random.normal(up, (LAYERS, d, 4 * d)) / jnp.sqrt(d),
        "down": jnp.zeros((LAYERS, 4 * d, d)),
    }


def norm(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def logits(params: Params, text: jax.Array) -> jax.Array:
    """Logits of the next byte; `text` is (windows, CONTEXT), the answer (windows, CONTEXT, VOCABULARY)."""
    d = params["embed"].shape[1]
    heads, width = d // head_width(d), head_width(d)
    windows = text.shape[0]
    causal = jnp.tril(jnp.ones((CONTEXT, CONTEXT), bool))
    x = params["embed"][text] + params["place"]
    for layer in range(LAYERS):
        qkv = (norm(x) @ params["qkv"][layer]).reshape(windows, CONTEXT, 3, heads, width)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        q, k = norm(q), norm(k)
        scores = jnp.where(causal, q @ k.transpose(0, 1, 3, 2) / jnp.sqrt(width), -1e30)
        mixed = jax.nn.softmax(scores, axis=-1) @ v
        x += mixed.transpose(0, 2, 1, 3).reshape(windows, CONTEXT, d) @ params["out"][layer]
        x += jnp.square(jax.nn.relu(norm(x) @ params["up"][layer])) @ params["down"][layer]
    return norm(x) @ params["embed"].T * (8 / d)


def byte_loss(params: Params, windows: jax.Array) -> jax.Array:
    """Mean cross-entropy of the next byte in nats; `windows` is (n, CONTEXT + 1)."""
    answer = jax.nn.log_softmax(logits(params, windows[:, :-1]))
    return -jnp.mean(jnp.take_along_axis(answer, windows[:, 1:, None], axis=-1))


def teacher_loss(params: Params, windows: jax.Array, teacher: Params) -> jax.Array:
    """Mean cross-entropy against the teacher's whole distribution, at temperature 1; the true next byte is not used."""
    wanted = jax.nn.softmax(logits(teacher, windows[:, :-1]))
    return -jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(logits(params, windows[:, :-1])), axis=-1))


def schedule(step: jax.Array, steps: jax.Array) -> jax.Array:
    """Learning rate as a share of its peak: a short linear warm-up, then half a cosine."""
    warmup = jnp.minimum(WARMUP, 0.1 * steps)
    cosine = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + jnp.cos(jnp.pi * step / steps))
    return jnp.minimum((step + 1) / warmup, 1.0) * cosine


@partial(jax.jit, donate_argnums=0)
def train_chunk(
    state: tuple, windows: jax.Array, steps: jax.Array, lr0: jax.Array, decay: jax.Array, teacher: Params | None
):
    """Train on `windows`, (steps in the chunk, windows in a batch, CONTEXT + 1); return the state and the losses."""

    def one_step(state, batch):
        params, mean, square, step = state
        args = (params, batch.astype(jnp.int32))
        loss, grads = (
            jax.value_and_grad(byte_loss)(*args)
            if teacher is None
            else jax.value_and_grad(teacher_loss)(*args, teacher)
        )
        size = jnp.sqrt(sum(jnp.sum(g * g) for g in grads.values()))
        shrink = jnp.minimum(1.0, CLIP / (size + 1e-12))
        share = schedule(step, steps)
        fix1, fix2 = 1 - BETA1 ** (step + 1), 1 - BETA2 ** (step + 1)
        d = params["embed"].shape[1]
        new = ({}, {}, {})
        for name, p in params.items():
            g = grads[name] * shrink
            m = BETA1 * mean[name] + (1 - BETA1) * g
            v = BETA2 * square[name] + (1 - BETA2) * g * g
            rate = lr0 * share * (3.0 if name in ("embed", "place") else 64.0 / d)
            move = rate * (m / fix1) / (jnp.sqrt(v / fix2) + EPSILON)
            keep = 1.0 if name in ("embed", "place") else 1 - share * decay
            for part, value in zip(new, (keep * p - move, m, v), strict=True):
                part[name] = value
        return (*new, step + 1), loss

    return jax.lax.scan(one_step, state, windows)


def fresh_state(key: jax.Array, width: int) -> tuple:
    params = init(key, width)
    return params, jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params), jnp.float32(0)


@jax.jit
def mean_losses(params: Params, windows: jax.Array) -> jax.Array:
    """Mean loss of each block of `windows`, (blocks, n, CONTEXT + 1), one block at a time."""
    return jax.lax.map(lambda block: byte_loss(params, block.astype(jnp.int32)), windows)
