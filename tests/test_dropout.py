"""Dropout: masks, both scalings, and the three ways to average the masks out (scaling, Monte Carlo, exactly)."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import reference
from test_layers import oracle_layers

import fastnn as fn

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(40, 5))


def build(*layers, inputs=5, dtype="float64", seed=3):
    """A net with biases, statistics, gamma and beta away from their defaults."""
    net = fn.Sequential(list(layers), inputs, dtype=dtype, seed=seed)
    random = np.random.default_rng(seed)
    for name, view in net.parameters().items():
        if not name.endswith("weight"):
            view += random.uniform(0, 0.5, view.shape)
    return net


def rounded(p):
    return round(65536 * p) / 65536


# ---- masks ----


@pytest.mark.parametrize("p", [0.5, 0.1, 0.9, 0.001])
def test_frequency_of_dropped_units(p):
    rows, width, passes = 500, 37, 4
    net = fn.Sequential([fn.Dropout(p)], width, dtype="float64", seed=1)
    dropped = np.array([net.forward(np.ones((rows, width))) == 0 for _ in range(passes)])
    for axes in (None, (0, 1), (1, 2)):  # all, per unit, per pass
        rate = dropped.mean(axis=axes)
        n = dropped.size / rate.size
        assert np.abs(rate - p).max() <= 5 * math.sqrt(p * (1 - p) / n) + 1 / n
    assert dropped.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scaling", ["inverted", "test"])
def test_masks_are_those_of_seed_pass_and_layer(scaling, dtype):
    """Against the oracle's generator: a mask never depends on release, machine, thread or element type."""
    layers = [fn.Dropout(0.3, scaling), fn.Identity(), fn.Dropout(0.45, scaling)]
    net = fn.Sequential(layers, 13, dtype=dtype, seed=2**33 + 5)
    for step in range(3):
        masks = reference.dropout_masks(oracle_layers(net), 13, 50, 2**33 + 5, step)
        expected = np.ones((50, 13))
        for place in (0, 2):
            scale = 1 / (1 - rounded(layers[place].p)) if scaling == "inverted" else 1.0
            expected *= masks[place] * scale
        outputs = net.forward(np.ones((50, 13)))
        np.testing.assert_allclose(outputs, expected, rtol=1e-6 if dtype == "float32" else 1e-15)


def test_a_mask_repeats_when_the_counter_of_passes_is_set():
    net = build(fn.Dense(30, "tanh"), fn.Dropout(0.5), fn.Dense(2))
    first, second = net.forward(X), net.forward(X)
    assert not np.array_equal(first, second)
    assert net._engine.passes == 2
    net._engine.passes = 0
    np.testing.assert_array_equal(net.forward(X), first)
    np.testing.assert_array_equal(net.forward(X), second)
    net._engine.passes = 2**40 + 1  # more than 32 bits of counter count
    far = net.forward(X)
    net._engine.passes = 1
    assert not np.array_equal(far, net.forward(X))


@pytest.mark.parametrize("micro_batch", [1, 7, 16, 39])
def test_a_mask_belongs_to_the_place_in_the_whole_batch(micro_batch):
    """Micro-batches change the memory that a step needs, not its masks."""
    nets = [build(fn.Dense(9, "tanh"), fn.Dropout(0.5), fn.Dense(2)) for _ in range(2)]
    y = RANDOM.normal(size=(40, 2))
    for net, micro in zip(nets, (None, micro_batch), strict=True):
        trainer = fn.Trainer(net, loss="mse", optimizer=fn.SGD(0.5), batch_size="full", micro_batch=micro)
        trainer.fit(X, y, epochs=3, verbose=0)
    for name, view in nets[0].parameters().items():
        np.testing.assert_allclose(nets[1].parameters()[name], view, rtol=0, atol=1e-13)


def test_evaluation_draws_nothing():
    net = build(fn.Dense(30, "tanh"), fn.Dropout(0.5), fn.Dense(2))
    np.testing.assert_array_equal(net.predict(X), net.forward(X, training=False))
    assert net._engine.passes == 0


# ---- the two scalings ----


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_both_scalings_agree_in_expectation(p):
    """The mean over training passes is what prediction gives, with either scaling; before the factor they differ."""
    passes = 4000
    means = {}
    for scaling in ("inverted", "test"):
        net = build(fn.Dropout(p, scaling), fn.Dense(3))
        outputs = np.array([net.forward(X) for _ in range(passes)])
        error = outputs.mean(axis=0) - net.predict(X)
        assert np.abs(error / (outputs.std(axis=0) / math.sqrt(passes))).max() <= 5
        means[scaling] = net.predict(X) - net.parameters()["1.bias"]
    np.testing.assert_allclose(means["test"], (1 - rounded(p)) * means["inverted"], rtol=1e-12)


@pytest.mark.parametrize("scaling", ["inverted", "test"])
@pytest.mark.parametrize("p", [0.5, 0.2, 0.9])
def test_of_one_linear_layer_scaling_is_exact(p, scaling):
    net = build(fn.Dropout(p, scaling), fn.Dense(3), inputs=11)
    x = RANDOM.normal(size=(20, 11))
    expected = net.predict_expected(x)
    np.testing.assert_allclose(net.predict(x), expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert np.std(expected) > 0.1


def test_of_a_nonlinear_layer_scaling_is_an_approximation():
    net = build(fn.Dense(8), fn.Dropout(0.5), fn.Dense(8, "tanh"), fn.Dense(3))
    assert np.abs(net.predict(X) - net.predict_expected(X)).max() > 1e-3


# ---- all masks ----


def enumerate_masks(net, x):
    """Mean and variance over all masks by the oracle: one training-mode pass per mask."""
    layers, parameters = oracle_layers(net), net.parameters()
    sizes, width = {}, net.input_size
    for place, layer in enumerate(net.layers):
        width = layer.units if isinstance(layer, fn.Dense) else width
        if isinstance(layer, fn.Dropout):
            sizes[place] = width
    # BatchNorm uses its running statistics when masks are averaged: frozen, it does so in training as well
    layers = [
        reference.BatchNorm(layer.eps, trainable=False) if isinstance(layer, reference.BatchNorm) else layer
        for layer in layers
    ]
    first = second = 0.0
    for kept in itertools.product((1, 0), repeat=sum(sizes.values())):
        masks, rest, probability = {}, list(kept), 1.0
        for place, size in sizes.items():
            bits, rest = np.array(rest[:size]), rest[size:]
            p = rounded(net.layers[place].p)
            probability *= math.prod(np.where(bits == 1, 1 - p, p))
            masks[place] = np.tile(bits, (len(x), 1))
        y = reference.forward(layers, parameters, x, masks, training=True).output
        first, second = first + probability * y, second + probability * y**2
    return first, second - first**2


TWO_LAYERS = {
    "hidden": (fn.Dense(4, "tanh"), fn.Dropout(0.3), fn.Dense(3, "relu"), fn.Dropout(0.5), fn.Dense(2, "sigmoid")),
    "test scaling": (
        fn.Dense(4, "gelu"),
        fn.Dropout(0.3, "test"),
        fn.Dense(3, "tanh"),
        fn.Dropout(0.6, "test"),
        fn.Dense(2),
    ),
    "input": (fn.Dropout(0.2), fn.Dense(3, "tanh"), fn.Dropout(0.5), fn.Dense(2)),
    "batchnorm": (
        fn.Dense(4),
        fn.BatchNorm(),
        fn.Tanh(),
        fn.Dropout(0.3),
        fn.Dense(3),
        fn.BatchNorm(),
        fn.Dropout(0.5),
    ),
    "in a row": (fn.Dense(4, "tanh"), fn.Dropout(0.25), fn.Dropout(0.5, "test"), fn.Softmax()),
    "probability 0": (fn.Dropout(0.0), fn.Dense(4, "tanh"), fn.Dropout(0.5), fn.Dense(2, "tanh")),
}


@pytest.mark.parametrize("case", TWO_LAYERS)
def test_the_expectation_is_that_over_all_masks(case):
    net, x = build(*TWO_LAYERS[case]), X[:6]
    expected, variance = enumerate_masks(net, x)
    assert variance.max() > 1e-4, "the masks change nothing"
    np.testing.assert_allclose(net.predict_expected(x), expected, rtol=1e-12, atol=1e-13)
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(net.predict_expected(x, n_threads=threads), net.predict_expected(x))


def test_more_masks_than_allowed_are_refused():
    net = build(fn.Dense(8), fn.Dropout(0.5), fn.Dense(4), fn.Dropout(0.5), fn.Dense(2))
    net.predict_expected(X[:2], max_masks=2**12)
    with pytest.raises(ValueError, match=r"all 2\*\*12 masks of 12 units.*max_masks = 4095.*predict_mc"):
        net.predict_expected(X[:2], max_masks=2**12 - 1)
    with pytest.raises(ValueError, match="max_masks must be an int >= 1"):
        net.predict_expected(X[:2], max_masks=0)
    wide = build(fn.Dense(500), fn.Dropout(0.5), fn.Dense(2))
    for most in (2**20, 2**62, 10**300):
        with pytest.raises(ValueError, match=r"2\*\*500 masks"):
            wide.predict_expected(X[:2], max_masks=most)


# ---- Monte Carlo ----


def test_monte_carlo_is_the_oracle():
    """Mean and deviation over the masks of the Monte-Carlo stream; many more rows than are computed at a time."""
    net = build(fn.Dense(7, "tanh"), fn.Dropout(0.4), fn.Dense(6, "relu"), fn.Dropout(0.2, "test"), fn.Dense(2))
    x = RANDOM.normal(size=(700, 5))
    layers, outputs = oracle_layers(net), []
    for sample in range(5):
        masks = reference.dropout_masks(layers, 5, 700, 99, sample, stream=reference.STREAM_MONTE_CARLO)
        outputs.append(reference.forward(layers, net.parameters(), x, masks, training=True).output)
    for threads in (1, 2, 3):
        mean, deviation = net.predict_mc(x, samples=5, seed=99, n_threads=threads)
        np.testing.assert_allclose(mean, np.mean(outputs, axis=0), rtol=0, atol=1e-13)
        np.testing.assert_allclose(deviation, np.std(outputs, axis=0), rtol=0, atol=1e-13)


def test_seeds_of_monte_carlo():
    net = build(fn.Dense(7, "tanh"), fn.Dropout(0.4), fn.Dense(2))
    mean, deviation = net.predict_mc(X, samples=3)
    for again in (net.predict_mc(X, samples=3), net.predict_mc(X, samples=3, seed=net.seed)):
        np.testing.assert_array_equal(again, (mean, deviation))
    assert not np.array_equal(net.predict_mc(X, samples=3, seed=4)[0], mean)
    assert net._engine.passes == 0, "prediction must not move the masks of training"
    assert deviation.min() > 0
    assert not net.predict_mc(X, samples=1)[1].any()


def test_the_error_of_monte_carlo_falls_as_the_root_of_the_samples():
    net, x = build(fn.Dense(6), fn.Dropout(0.5), fn.Dense(4, "tanh"), fn.Dense(2)), RANDOM.normal(size=(300, 5))
    exact = net.predict_expected(x)
    samples = np.array([10, 30, 100, 300, 1000, 3000, 10_000])
    errors = [np.sqrt(np.mean((net.predict_mc(x, int(n), seed=int(n))[0] - exact) ** 2)) for n in samples]
    slope = np.polyfit(np.log(samples), np.log(errors), 1)[0]
    assert -0.52 <= slope <= -0.48, (slope, errors)
    _, variance = enumerate_masks(net, x)
    np.testing.assert_allclose(errors, np.sqrt(variance.mean() / samples), rtol=0.15)
    # the deviation over the samples, too, is the exact one in the limit
    np.testing.assert_allclose(net.predict_mc(x, 10_000)[1], np.sqrt(variance), rtol=0.1, atol=1e-4)


def run_python(program):
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_memory_of_monte_carlo():
    """10,000 rows x 100 samples within 256 MB; one hidden layer of all of them alone would be 512 MB.

    Measured by VmHWM and not by getrusage, whose peak starts at the size of the process that called fork.
    """
    program = """
import numpy as np
import fastnn as fn
layers = [fn.Dense(128, "relu"), fn.Dropout(0.5), fn.Dense(128, "relu"), fn.Dropout(0.5), fn.Dense(10)]
net = fn.Sequential(layers, 64)
x = np.ones((10_000, 64), np.float32)
mean, deviation = net.predict_mc(x, samples=100)
assert mean.shape == deviation.shape == (10_000, 10) and deviation.min() > 0
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    assert 1024 * int(run_python(program)) <= 256 * 2**20
