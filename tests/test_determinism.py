"""The same bits for any number of threads, any prediction batch size, and every instruction set with FMA."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import fastnn as fn
from fastnn import _core

THREADS = (1, 2, 3, 4, 8)


def weights_hash(net):
    digest = hashlib.sha256()
    for name, value in sorted(net.parameters().items()):
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def data(rows, inputs, seed=0):
    """Features and labels without NumPy's random streams, which change between versions."""
    order = _core.permutation(rows * inputs, seed, 0).reshape(rows, inputs)
    x = (order % 997 / 498.5 - 1).astype(np.float64)
    return x, (order[:, 0] % 5).astype(np.int64)


def train_200_steps(dtype="float32", widths=(96, 80), n_threads=1, micro_batch=None):
    """BatchNorm, dropout, L2, clip by norm, Adam: everything whose order could matter."""
    layers = [fn.Standardize()]
    for width in widths:
        layers += [fn.Dense(width), fn.BatchNorm(), fn.GELU(), fn.Dropout(0.3)]
    net = fn.Sequential([*layers, fn.Dense(5)], input_size=50, dtype=dtype, seed=3)
    trainer = fn.Trainer(
        net,
        optimizer=fn.Adam(3e-3),
        clip=fn.ClipNorm(0.5),
        regularizer=fn.ElasticNet(1e-4, 0.5),
        batch_size=100,
        micro_batch=micro_batch,
        n_threads=n_threads,
        metrics=(),
    )
    x, y = data(2000, 50)
    trainer.fit(x.astype(dtype), y, epochs=10, verbose=0)
    assert all(np.isfinite(p).all() for p in net.parameters().values())
    return net


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_does_not_depend_on_threads(dtype):
    hashes = {n: weights_hash(train_200_steps(dtype, n_threads=n, widths=(128, 96))) for n in THREADS}
    assert len(set(hashes.values())) == 1, hashes


def test_micro_batches_do_not_depend_on_threads():
    hashes = {n: weights_hash(train_200_steps(n_threads=n, micro_batch=40)) for n in THREADS}
    assert len(set(hashes.values())) == 1, hashes


def test_long_batch_of_a_small_net_does_not_depend_on_threads():
    """The gradient's sum over the batch is then cut into chunks that threads share."""

    def train(n_threads):
        layers = [fn.Dense(32), fn.Tanh(), fn.Dense(16), fn.Tanh(), fn.Dense(4)]
        net = fn.Sequential(layers, input_size=50, seed=1)
        x, y = data(9000, 50)
        trainer = fn.Trainer(net, optimizer=fn.Adam(), batch_size="full", n_threads=n_threads, metrics=())
        trainer.fit(x.astype(np.float32), y % 4, epochs=5, verbose=0)
        return net

    assert len({weights_hash(train(n)) for n in THREADS}) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_prediction_does_not_depend_on_neighbours(dtype):
    net = train_200_steps(dtype)
    x, _ = data(1000, 50, seed=1)
    x = x.astype(dtype)
    whole = net.predict(x)
    assert np.std(whole) > 0.01
    for rows in (*range(1, 66), 999):
        assert np.array_equal(net.predict(x[:rows]), whole[:rows]), rows
    assert all(np.array_equal(net.predict(x, n_threads=n), whole) for n in THREADS)


@pytest.mark.parametrize("stochastic", ["predict_mc", "predict_expected"])
def test_stochastic_prediction_does_not_depend_on_threads(stochastic):
    net = fn.Sequential([fn.Dense(8), fn.ReLU(), fn.Dropout(0.5), fn.Dense(3)], input_size=50, seed=2)
    x, _ = data(300, 50)
    arguments = {"samples": 50, "seed": 1} if stochastic == "predict_mc" else {}
    results = [np.asarray(getattr(net, stochastic)(x, n_threads=n, **arguments)) for n in THREADS]
    assert all(np.array_equal(results[0], other) for other in results[1:])


PROGRAM = """
import json, sys
sys.path.insert(0, {tests!r})
import test_determinism as t
x, _ = t.data(64, 50)
net32, net64 = t.train_200_steps("float32"), t.train_200_steps("float64")
print(json.dumps([t.weights_hash(net32), t.weights_hash(net64), net64.predict(x).tolist()]))
"""


def run_on(isa):
    program = PROGRAM.format(tests=os.path.dirname(__file__))
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "FASTNN_ISA": isa},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return json.loads(result.stdout)


def test_instruction_sets_with_fma_give_the_same_bits():
    isas = [isa for isa in _core.available_isas() if isa != "baseline"]
    if len(isas) < 2:
        pytest.skip(f"nothing to compare: this machine runs {isas or 'none'} of the instruction sets with FMA")
    hashes = {isa: run_on(isa)[:2] for isa in isas}
    assert len({tuple(pair) for pair in hashes.values()}) == 1, hashes


def test_baseline_agrees_within_rounding():
    """Without fused multiply-add every product is rounded once more: 200 steps in float64 stay within 1e-8."""
    best = _core.available_isas()[0]
    if best == "baseline":
        pytest.skip("this machine runs the baseline alone")
    baseline, fused = (np.array(run_on(isa)[2]) for isa in ("baseline", best))
    assert (baseline != fused).any(), "FASTNN_ISA chose nothing"
    np.testing.assert_allclose(baseline, fused, rtol=1e-8, atol=1e-8)


def test_shuffles_and_initial_weights_are_the_same_everywhere():
    """Golden values: they may never change, or every seed in the world means something else."""
    net = fn.Sequential([fn.Dense(4, init="he_normal"), fn.Dense(2, init="xavier_uniform")], input_size=3, seed=1)
    parameters = net.parameters()
    digest = hashlib.sha256(
        _core.permutation(1000, 5, 2).tobytes()
        + b"".join(np.ascontiguousarray(p).tobytes() for p in parameters.values())
    )
    assert digest.hexdigest() == GOLDEN


GOLDEN = "ef6f1fc650ff92c1a687ade6c838dc197abd626aea34e3dead7881f5070e331f"
