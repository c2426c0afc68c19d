"""JAX: gather, forward, backward and update are one compiled function whose state is donated; one call per step."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..workloads import LARGEST_NORM, PENALTY, Workload
from . import Data, Run, Training, UnsupportedError

jax.config.update("jax_default_prng_impl", "rbg")  # cheaper masks than threefry's


def initial(work: Workload, seed: int) -> dict:
    """Everything that a step changes."""
    normalized = work.widths[1:-1] if work.regularised else ()
    parameters = {
        "weight": [jnp.asarray(weight) for weight, _ in work.weights(seed=seed)],
        "bias": [jnp.asarray(bias) for _, bias in work.weights(seed=seed)],
        "gamma": [jnp.ones(n) for n in normalized],
        "beta": [jnp.zeros(n) for n in normalized],
    }
    state = {"parameters": parameters, "count": jnp.float32(0)}
    if work.optimizer == "adam":
        state |= {name: jax.tree.map(jnp.zeros_like, parameters) for name in ("first", "second")}
    if work.regularised:
        state["running"] = [(jnp.zeros(n), jnp.ones(n)) for n in normalized]
        state["key"] = jax.random.key(seed)
    return state


def forward(work: Workload, p: dict, h: jax.Array, keys: list):
    """Outputs, in training mode where there are keys, and (mean, variance) of every normalised layer."""
    moments = []
    for i, (weight, bias) in enumerate(zip(p["weight"], p["bias"], strict=True)):
        h = h @ weight + bias
        if i == len(p["weight"]) - 1:
            return h, moments
        if work.regularised:
            mean, variance = h.mean(0), h.var(0)
            h = (h - mean) * lax.rsqrt(variance + 1e-5) * p["gamma"][i] + p["beta"][i]
            moments.append((mean, variance))
        h = jax.nn.relu(h) if work.activation == "relu" else jnp.tanh(h)
        if work.regularised:
            h = jnp.where(jax.random.bits(keys[i], h.shape, jnp.uint8) < 128, 2 * h, 0)
    raise ValueError("a net needs a Dense layer.")


def loss_of(work: Workload, p: dict, x: jax.Array, y: jax.Array, keys: list):
    outputs, moments = forward(work, p, x, keys)
    if work.loss == "mse":
        return jnp.mean((outputs - y) ** 2), moments
    right = jnp.take_along_axis(outputs, y[:, None], 1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(outputs, axis=1) - right), moments


def step(work: Workload, rate: float, state: dict, x: jax.Array, y: jax.Array) -> dict:
    """One training step on a batch."""
    p, keys = state["parameters"], []
    state = dict(state)
    if work.regularised:
        state["key"], *keys = jax.random.split(state["key"], len(work.shapes))
    gradient, moments = jax.grad(loss_of, argnums=1, has_aux=True)(work, p, x, y, keys)
    if work.regularised:
        state["running"] = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, state["running"], moments)
        gradient["weight"] = [g + 2 * PENALTY * w for g, w in zip(gradient["weight"], p["weight"], strict=True)]
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient)))
        gradient = jax.tree.map(lambda g: g * jnp.minimum(1, LARGEST_NORM / norm), gradient)
    if work.optimizer == "sgd":
        state["parameters"] = jax.tree.map(lambda p, g: p - rate * g, p, gradient)
        return state
    state["count"] = count = state["count"] + 1
    state["first"] = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state["first"], gradient)
    state["second"] = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, state["second"], gradient)
    size, root = rate / (1 - 0.9**count), lax.rsqrt(1 - 0.999**count)
    state["parameters"] = jax.tree.map(
        lambda p, m, v: p - size * m / (jnp.sqrt(v) * root + 1e-8), p, state["first"], state["second"]
    )
    return state


def gather_and_step(work: Workload, rate: float, state: dict, rows: jax.Array, x: jax.Array, y: jax.Array) -> dict:
    return step(work, rate, state, x, y) if work.full_batch else step(work, rate, state, x[rows], y[rows])


def gather_and_steps(work: Workload, rate: float, state: dict, order: jax.Array, x: jax.Array, y: jax.Array) -> dict:
    """One step per row of `order`, in one call; gathering all batches first is a little faster than one by one."""
    if work.full_batch:
        return lax.scan(lambda state, _: (step(work, rate, state, x, y), None), state, order)[0]
    return lax.scan(lambda state, batch: (step(work, rate, state, *batch), None), state, (x[order], y[order]))[0]


def training(work: Workload, data: Data, rate: float, threads: int, seed: int, scan: bool = False) -> Training:
    if data[0].dtype != np.float32:
        raise UnsupportedError("JAX is timed in float32.")
    x = jnp.asarray(data[0])
    y = jnp.asarray(data[1], jnp.int32 if work.loss == "cross_entropy" else jnp.float32)
    state = initial(work, seed)
    advance = jax.jit(partial(gather_and_steps if scan else gather_and_step, work, rate), donate_argnums=0)
    generator, no_rows = np.random.default_rng(seed), np.zeros(0, np.int32)
    batches = work.batches(lambda n: generator.permutation(n).astype(np.int32))

    def run(steps: int) -> None:
        nonlocal state
        orders = [no_rows if work.full_batch else rows for rows in itertools.islice(batches, steps)]
        for rows in [np.stack(orders)] if scan else orders:
            state = advance(state, rows, x, y)
        jax.block_until_ready(state)

    if work.regularised:
        return run, None
    evaluate = jax.jit(lambda p, rows: forward(work, p, rows, [])[0])
    return run, lambda rows: np.asarray(evaluate(state["parameters"], rows))


def predict(work: Workload, threads: int, dtype: str) -> Run:
    if dtype != "float32":
        raise UnsupportedError("JAX is timed in float32.")
    p, x = initial(work, 0)["parameters"], jnp.asarray(work.features())
    evaluate = jax.jit(lambda p, x: forward(work, p, x, [])[0])

    def run(calls: int) -> None:
        for _ in range(calls):
            evaluate(p, x).block_until_ready()

    return run


def state() -> dict[str, object]:
    return {"version": jax.__version__}
