"""Initial weights: the distributions of the formulas, and what they do to a deep net.

Seeds are fixed, so a check passes always or never; its bound is four standard deviations of the sampling error for
moments, the 1 % quantile for distributions.
"""

import math

import numpy as np
import pytest
import reference

import fastnn as fn
from fastnn import initializers

FAN_IN, FAN_OUT = 300, 200

# distribution, variance for fan_in and fan_out: the formulas of the papers
FORMULAS = {
    "uniform": (initializers.uniform(0.3), "uniform", lambda i, o: 0.3**2 / 3),
    "normal": (initializers.normal(0.3), "normal", lambda i, o: 0.3**2),
    "fan_in_uniform": ("fan_in_uniform", "uniform", lambda i, o: (1 / math.sqrt(i)) ** 2 / 3),
    "lecun_uniform": ("lecun_uniform", "uniform", lambda i, o: 1 / i),
    "lecun_normal": ("lecun_normal", "normal", lambda i, o: 1 / i),
    "xavier_uniform": ("xavier_uniform", "uniform", lambda i, o: 2 / (i + o)),
    "xavier_normal": ("xavier_normal", "normal", lambda i, o: 2 / (i + o)),
    "he_uniform": ("he_uniform", "uniform", lambda i, o: 2 / i),
    "he_normal": ("he_normal", "normal", lambda i, o: 2 / i),
}
ALL = {name: init for name, (init, _, _) in FORMULAS.items()} | {
    "orthogonal": "orthogonal",
    "zeros": "zeros",
    "constant": initializers.constant(0.1),
}


def weight_of(init, fan_in=FAN_IN, fan_out=FAN_OUT, dtype="float64", seed=1):
    return fn.Sequential([fn.Dense(fan_out, init=init)], fan_in, dtype=dtype, seed=seed).parameters()["0.weight"]


# ---- distributions ----


@pytest.mark.parametrize("name", FORMULAS)
def test_mean_variance_and_distribution(name):
    init, distribution, variance_of = FORMULAS[name]
    weight, variance = weight_of(init), variance_of(FAN_IN, FAN_OUT)
    n, deviation = weight.size, math.sqrt(variance)
    kurtosis = {"uniform": 9 / 5, "normal": 3}[distribution]
    assert abs(weight.mean()) <= 4 * deviation / math.sqrt(n)
    assert abs(weight.var() / variance - 1) <= 4 * math.sqrt((kurtosis - 1) / n)
    # Kolmogorov-Smirnov: a truncated or a wrongly shaped distribution may have the right moments
    ordered = np.sort(weight.ravel()) / deviation
    cdf = {
        "uniform": lambda v: np.clip((v / math.sqrt(3) + 1) / 2, 0, 1),
        "normal": lambda v: reference.erfc(-v / math.sqrt(2)) / 2,
    }[distribution](ordered)
    assert np.abs(cdf - (np.arange(n) + 0.5) / n).max() <= 1.63 / math.sqrt(n)
    if distribution == "uniform":
        assert np.abs(ordered).max() <= math.sqrt(3)
    else:
        assert np.abs(ordered).max() > 3.5, "of 60,000 normal values 28 lie beyond: this one is truncated"


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("place", [0, 2])
def test_draws_are_those_of_the_seed_and_the_place(name, place):
    """Against the oracle's generator: seeds keep their meaning in every release."""
    init, distribution, variance_of = FORMULAS[name]
    layers = [fn.Dense(30)] * place + [fn.Dense(21, init=init)]
    net = fn.Sequential(layers, 30, dtype="float64", seed=2**40 + 7)
    random = reference.Random(seed=2**40 + 7, stream=reference.STREAM_INIT, layer=place)
    deviation = math.sqrt(variance_of(30, 21))
    if distribution == "uniform":
        bound = math.sqrt(3) * deviation
        expected = reference.draw_uniform(-bound, bound, random, 0, 30 * 21)
    else:
        expected = reference.draw_normal(deviation, random, 0, 30 * 21)
    np.testing.assert_allclose(net.parameters()[f"{place}.weight"], expected.reshape(30, 21), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("shape", [(40, 40), (40, 25), (25, 40), (1, 9), (9, 1)])
def test_orthogonal(shape):
    weight = weight_of("orthogonal", *shape)
    wide = weight if shape[0] <= shape[1] else weight.T
    np.testing.assert_allclose(wide @ wide.T, np.eye(min(shape)), atol=1e-13)
    normal = reference.draw_normal(1.0, reference.Random(seed=1), 0, weight.size)
    np.testing.assert_allclose(wide, reference.orthonormalize(normal.reshape(wide.shape)), atol=1e-11)


def test_zeros_and_constant():
    assert not weight_of("zeros").any()
    assert not weight_of(initializers.constant(0)).any()
    assert (weight_of(initializers.constant(-0.25)) == -0.25).all()


@pytest.mark.parametrize("name", ALL)
def test_biases_start_at_zero(name):
    net = fn.Sequential([fn.Dense(9, "relu", init=ALL[name]), fn.BatchNorm(), fn.Dense(4, init=ALL[name])], 5)
    parameters = net.parameters()
    assert not parameters["0.bias"].any()
    assert not parameters["2.bias"].any()
    assert (parameters["1.gamma"] == 1).all()
    assert not parameters["1.beta"].any()


@pytest.mark.parametrize("name", ALL)
def test_float32_weights_are_the_float64_ones_rounded(name):
    np.testing.assert_array_equal(weight_of(ALL[name], dtype="float32"), weight_of(ALL[name]).astype(np.float32))


@pytest.mark.parametrize("name", [*FORMULAS, "orthogonal"])
def test_seeds(name):
    first = weight_of(ALL[name], 40, 30)
    np.testing.assert_array_equal(first, weight_of(ALL[name], 40, 30))
    other = weight_of(ALL[name], 40, 30, seed=2)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) <= 4 / math.sqrt(first.size)


# ---- symmetry ----


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize(
    ("init", "breaks_symmetry"),
    [("zeros", False), (initializers.constant(0.3), False), ("xavier_normal", True)],
    ids=["zeros", "constant", "xavier_normal"],
)
def test_equal_neurons_stay_equal(init, breaks_symmetry, activation):
    """Zero and constant weights: all neurons of the hidden layer stay copies of one, whatever is learned."""
    random = np.random.default_rng(0)
    x = random.normal(size=(100, 6))
    y = (x[:, 0] * x[:, 1] > 0) + 1 * (x[:, 2] > 0)
    net = fn.Sequential([fn.Dense(16, activation, init=init), fn.Dense(3, init=init)], 6, seed=1)
    before = {name: view.copy() for name, view in net.parameters().items()}
    fn.Trainer(net, optimizer=fn.Adam(1e-2), batch_size=10).fit(x, y, epochs=10, verbose=0)
    after = net.parameters()
    assert any(np.abs(after[name] - before[name]).max() > 0.01 for name in after), "nothing was learned"
    incoming = (after["0.weight"] == after["0.weight"][:, :1]).all()
    outgoing = (after["1.weight"] == after["1.weight"][:1]).all()
    assert incoming == outgoing == (after["0.bias"] == after["0.bias"][0]).all() == (not breaks_symmetry)


# ---- signals through ten layers ----


def mean_squares(init, activation, deviation, seeds=20, width=512, depth=10, rows=32):
    """Mean square of the activations of every layer over that of the input: the median over the seeds."""
    ratios = []
    for seed in range(seeds):
        net = fn.Sequential([fn.Dense(width, activation, init=init)] * depth, width, seed=seed)
        x = np.random.default_rng(seed).normal(0, deviation, (rows, width)).astype(np.float32)
        ratios.append([np.square(layer, dtype=np.float64).mean() for layer in net.activations(x)])
        ratios[-1] /= np.square(x, dtype=np.float64).mean()
    return np.median(ratios, axis=0)


def test_he_keeps_the_signal_through_relu():
    ratios = mean_squares("he_normal", "relu", 1.0)
    assert ratios.min() >= 0.75, ratios
    assert ratios.max() <= 1.3, ratios


def test_xavier_keeps_the_signal_through_tanh():
    assert mean_squares("xavier_uniform", "tanh", 0.05)[-1] >= 0.9


def test_naive_weights_lose_the_signal():
    """A third of the variance per layer: (1/3)^10 = 1.7e-5."""
    assert mean_squares("fan_in_uniform", "tanh", 0.05)[-1] <= 1e-4
