"""Layers and initializers: declarations, the nets built from them, and where their weights start."""

import inspect
import math

import numpy as np
import pytest
import reference

import fastnn as fn
from fastnn import initializers

ACTIVATIONS = [
    fn.Identity(),
    fn.ReLU(),
    fn.LeakyReLU(0.2),
    fn.ELU(1.5),
    fn.SELU(),
    fn.GELU(),
    fn.SiLU(),
    fn.Softplus(),
    fn.Tanh(),
    fn.Sigmoid(),
    fn.Softmax(),
]


def oracle_layers(net):
    """The net's layers as the oracle names them."""
    made = []
    for layer in net.layers:
        if isinstance(layer, fn.Dense):
            activation = layer.own_activation
            made.append(
                reference.Dense(layer.units, activation.name, activation.alpha, layer.use_bias, layer.trainable)
            )
        elif isinstance(layer, fn.BatchNorm):
            made.append(reference.BatchNorm(layer.eps, layer.decay, layer.unbiased, layer.trainable))
        elif isinstance(layer, fn.Dropout):
            made.append(reference.Dropout(layer.p, layer.scaling))
        elif isinstance(layer, fn.Scale):
            made.append(reference.Scale(layer.factor))
        elif isinstance(layer, fn.Standardize):
            made.append(reference.Standardize())
        else:
            made.append(reference.Activation(layer.name, layer.alpha))
    return made


def assert_close(actual, expected, tolerance=1e-12):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * (1 + np.abs(expected).max()))


# ---- declarations ----


def test_a_layer_shows_what_differs_from_the_defaults():
    assert repr(fn.Dense(8)) == "Dense(8)"
    assert repr(fn.Dense(8, "relu", regularizer=fn.L2(0.5))) == "Dense(8, activation=ReLU(), regularizer=L2(0.5))"
    assert repr(fn.Dropout(0.5, scaling="test")) == "Dropout(0.5, scaling='test')"
    assert repr(initializers.normal(0.1)) == "normal(0.1)"
    assert repr(initializers.he_normal()) == "he_normal()"


def test_layers_are_immutable_values():
    layer = fn.Dense(8, "relu")
    with pytest.raises(AttributeError, match="immutable"):
        layer.units = 9
    assert layer == fn.Dense(8, fn.ReLU())
    assert layer != fn.Dense(8)
    assert hash(layer) == hash(fn.Dense(8, "relu"))
    assert list(inspect.signature(fn.Dropout).parameters) == ["p", "scaling"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fn.Dense(0), ValueError, "units must be an int in 1.*got 0"),
        (lambda: fn.Dense(-3), ValueError, "units must be an int in 1.*got -3"),
        (lambda: fn.Dense(2.5), TypeError, "units must be an int"),
        (lambda: fn.Dense(2**64), ValueError, "units"),
        (lambda: fn.Dense(True), TypeError, "units"),
        (lambda: fn.Dense(4, "rellu"), ValueError, "activation .*'rellu'.*Did you mean 'relu'"),
        (lambda: fn.Dense(4, fn.ReLU), TypeError, r"ReLU\(\.\.\.\)"),
        (lambda: fn.Dense(4, init="he"), ValueError, "init .*'he_normal'"),
        (lambda: fn.Dense(4, init="uniform"), ValueError, r"uniform\(r\)"),
        (lambda: fn.Dense(4, regularizer=0.1), TypeError, "regularizer"),
        (lambda: fn.Dense(4, actvation="relu"), TypeError, "'actvation'.*Did you mean 'activation'"),
        (lambda: fn.Dense(), TypeError, "'units'"),
        (lambda: fn.Dense(4, None, True, None, None, True, 7), TypeError, "at most 6"),
        (lambda: fn.Dense(4, units=4), TypeError, "two values"),
        (lambda: fn.BatchNorm(eps=0), ValueError, r"eps must be a number in \[1e-37, inf\), got 0"),
        (lambda: fn.BatchNorm(decay=1), ValueError, r"decay must be a number in \[0, 1\)"),
        (lambda: fn.BatchNorm(unbiased=1), TypeError, "unbiased"),
        (lambda: fn.Dropout(1), ValueError, r"p must be a number in \[0, 1\)"),
        (lambda: fn.Dropout(-0.1), ValueError, "p must be"),
        (lambda: fn.Dropout(float("nan")), ValueError, "p must be"),
        (lambda: fn.Dropout(1 - 1e-9), ValueError, "65536"),
        (lambda: fn.Dropout(0.5, scaling="tets"), ValueError, "Did you mean 'test'"),
        (lambda: fn.LeakyReLU(-1), ValueError, "slope"),
        (lambda: fn.ELU(0), ValueError, "alpha"),
        (lambda: fn.Scale(0), ValueError, "factor must not be 0"),
        (lambda: fn.Scale("1"), TypeError, "factor"),
        (lambda: fn.Standardize(mean=1.0), ValueError, "both mean and scale"),
        (lambda: fn.Standardize([0, 0], [1, 0]), ValueError, "scale must not be 0"),
        (lambda: initializers.uniform(0), ValueError, r"r must be a number in \(0, inf\)"),
        (lambda: initializers.normal(float("inf")), ValueError, "sigma"),
        (lambda: fn.L2(-1), ValueError, "lam"),
        (lambda: fn.ElasticNet(1, -1), ValueError, "beta"),
        (lambda: fn.L1(1, proximal="yes"), TypeError, "proximal"),
        (lambda: fn.ClipValue(0, 0), ValueError, "min < max"),
        (lambda: fn.ClipValue(0.1, 1), ValueError, r"min must be a number in \(-inf, 0\], got 0.1"),
        (lambda: fn.ClipValue(-1, -0.1), ValueError, r"max must be a number in \[0, inf\), got -0.1"),
        (lambda: fn.ClipNorm(0), ValueError, "v must be"),
        (lambda: fn.ClipNorm(1, scope="globl"), ValueError, "Did you mean 'global'"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_penalties_as_l1_and_l2():
    assert fn.L1(0.5).record() == ("l1", 0.5, 0)
    assert fn.L1(0.5, proximal=True).record() == ("proximal_l1", 0.5, 0)
    assert fn.L2(0.5).record() == ("l2", 0.5, 0)
    assert fn.ElasticNet(0.5, 3).record() == ("elastic_net", 0.5, 3)


# ---- nets ----


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda layer: layer.name)
def test_each_activation_as_a_layer_and_inside_dense(activation):
    x = np.random.default_rng(0).normal(size=(13, 5))
    inside = fn.Sequential([fn.Dense(7, activation)], 5, dtype="float64")
    after = fn.Sequential([fn.Dense(7), activation], 5, dtype="float64")
    for name, view in after.parameters().items():
        view[...] = inside.parameters()[name]
    expected = reference.forward(oracle_layers(after), after.parameters(), x).output
    assert_close(after.predict(x), expected)
    assert_close(inside.predict(x), expected)


def test_names_and_shapes_of_the_parameters():
    net = fn.Sequential([fn.Standardize(), fn.Dense(4), fn.BatchNorm(), fn.Dense(2, use_bias=False)], 3)
    shapes = {name: view.shape for name, view in net.parameters().items()}
    assert shapes == {
        "0.mean": (3,),
        "0.scale": (3,),
        "1.weight": (3, 4),
        "1.bias": (4,),
        "2.gamma": (4,),
        "2.beta": (4,),
        "2.running_mean": (4,),
        "2.running_var": (4,),
        "3.weight": (4, 2),
    }
    assert set(net.parameters(trainable=True)) == {"1.weight", "1.bias", "2.gamma", "2.beta", "3.weight"}
    assert set(net.parameters(trainable=True)) == set(net.gradients())
    assert set(net.parameters(trainable=False)) == set(shapes) - set(net.gradients())


def test_one_layer_object_in_two_places_has_two_sets_of_parameters():
    layer = fn.Dense(3)
    net = fn.Sequential([layer, layer], 3)
    assert not np.array_equal(net.parameters()["0.weight"], net.parameters()["1.weight"])


def test_writing_into_a_parameter_takes_effect():
    net = fn.Sequential([fn.Dense(2)], 3)
    x = np.ones((1, 3), np.float32)
    net.parameters()["0.weight"][...] = 0
    net.parameters()["0.bias"][...] = [1, 2]
    np.testing.assert_array_equal(net.predict(x), [[1, 2]])


def test_scale_and_standardize_convert_features():
    x = np.random.default_rng(0).integers(0, 256, (9, 3)).astype(np.uint8)
    net = fn.Sequential([fn.Standardize([1, 2, 3], [4, 5, 6])], 3, dtype="float64")
    assert_close(net.predict(x), (x - np.array([1, 2, 3.0])) / [4, 5, 6])
    net = fn.Sequential([fn.Scale(1 / 255)], 3, dtype="float64")
    assert_close(net.predict(x), x / 255)


def test_activations_are_the_outputs_of_every_layer():
    net = fn.Sequential([fn.Dense(4, "tanh"), fn.BatchNorm(), fn.Dense(2)], 3, dtype="float64")
    x = np.random.default_rng(0).normal(size=(6, 3))
    outputs = net.activations(x)
    assert [output.shape for output in outputs] == [(6, 4), (6, 4), (6, 2)]
    for place, output in enumerate(outputs):
        expected = reference.forward(oracle_layers(net)[: place + 1], net.parameters(), x).output
        assert_close(output, expected)


def test_repr_is_the_call_that_makes_the_net():
    net = fn.Sequential([fn.Dense(4), fn.BatchNorm(), fn.ReLU(), fn.Dense(2)], 3)
    assert repr(net) == ("Sequential([Dense(4), BatchNorm(), ReLU(), Dense(2)], input_size=3, dtype='float32', seed=0)")


def test_a_copy_is_independent():
    net = fn.Sequential([fn.Dense(4), fn.BatchNorm()], 3, seed=3)
    net.parameters()["1.running_mean"][...] = 7
    twin = net.copy()
    x = np.ones((2, 3))
    np.testing.assert_array_equal(twin.predict(x), net.predict(x))
    twin.parameters()["0.weight"][...] = 0
    assert net.parameters()["0.weight"].any()


# ---- initial weights ----


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([fn.Dense(64, "relu")], "he_normal"),
        ([fn.Dense(64), fn.ReLU()], "he_normal"),
        ([fn.Dense(64), fn.BatchNorm(), fn.Dropout(0.5), fn.GELU()], "he_normal"),
        ([fn.Dense(64), fn.Tanh()], "xavier_uniform"),
        ([fn.Dense(64, "sigmoid"), fn.ReLU()], "xavier_uniform"),
        ([fn.Dense(64)], "xavier_uniform"),
        ([fn.Dense(64), fn.Dense(64, "relu")], "xavier_uniform"),
    ],
)
def test_default_initialisation_follows_the_activation(layers, expected):
    default = fn.Sequential(layers, 32, seed=5).parameters()["0.weight"]
    explicit = [layers[0]._replace(init=expected), *layers[1:]]
    np.testing.assert_array_equal(default, fn.Sequential(explicit, 32, seed=5).parameters()["0.weight"])


def test_seeds_and_layers_have_streams_of_their_own():
    def weights(seed, place="0.weight"):
        return fn.Sequential([fn.Dense(8), fn.Dense(8)], 8, seed=seed).parameters()[place].copy()

    np.testing.assert_array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))
    assert not np.array_equal(weights(1), weights(1, "1.weight"))


# ---- averaging over dropout ----


@pytest.mark.parametrize("scaling", ["inverted", "test"])
def test_the_expectation_of_a_linear_layer_is_the_scaled_output(scaling):
    net = fn.Sequential([fn.Dropout(0.3, scaling), fn.Dense(3)], 6, dtype="float64")
    x = np.random.default_rng(0).normal(size=(5, 6))
    assert_close(net.predict_expected(x), net.predict(x))


def test_the_expectation_is_the_sum_over_all_masks():
    net = fn.Sequential([fn.Dense(4), fn.Dropout(0.25), fn.Tanh(), fn.Dense(2)], 3, dtype="float64")
    x, layers = np.random.default_rng(0).normal(size=(5, 3)), oracle_layers(net)
    expected = 0.0
    for bits in np.ndindex(2, 2, 2, 2):
        mask = np.tile(bits, (5, 1))
        probability = math.prod(0.75 if kept else 0.25 for kept in bits)
        expected += probability * reference.forward(layers, net.parameters(), x, {1: mask}, training=True).output
    assert_close(net.predict_expected(x), expected)
    mean, deviation = net.predict_mc(x, samples=4000, seed=1)
    assert (np.abs(mean - expected) < 5 * deviation / math.sqrt(4000)).all()
    assert (deviation > 0).all()
    for first, second in zip(net.predict_mc(x, 10), net.predict_mc(x, 10, seed=net.seed), strict=True):
        np.testing.assert_array_equal(first, second)
