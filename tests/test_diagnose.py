"""Diagnosis: its numbers against formulas in float64, the sick nets it must find, the healthy ones it must not."""

import numpy as np
import pytest
import reference
from test_gradients import ACTIVATIONS, central_differences, make_batch, make_net, training_loss

import fastnn as fn
from fastnn import data
from fastnn.datasets import load_digits
from fastnn.diagnose import RATIO, derivative

ROWS = 300
INPUTS = 20


def samples(rows=ROWS):
    random = np.random.default_rng(3)
    x = random.standard_normal((rows, INPUTS))
    return x, x[:, :3].argmax(axis=1)


def deep(activation, init, hidden=10, units=32, dtype="float32"):
    layers = [fn.Dense(units, activation, init=init) for _ in range(hidden)]
    return fn.Sequential([*layers, fn.Dense(3, init=init)], input_size=INPUTS, dtype=dtype, seed=1)


def names(diagnosis):
    return [finding.name for finding in diagnosis.findings]


def shares(activation, z, alpha=0.0):
    """(dead, saturated) by the definition."""
    y = reference.activation_forward(z, activation, alpha)
    flat = np.abs(reference.activation_derivative(z, activation, alpha)) < 1e-3
    return np.mean((y == 0).all(axis=0)), np.mean(flat.mean(axis=0) > 0.5)


# ---- the measures ----


def test_every_measure_of_a_small_net():
    """Own activations, an activation layer, BatchNorm, both Dropouts: what NumPy says in float64."""
    net = fn.Sequential(
        [
            fn.Scale(0.5),
            fn.Dense(6, "relu"),
            fn.Dropout(0.25, scaling="test"),
            fn.Dense(5),
            fn.BatchNorm(),
            fn.Tanh(),
            fn.Dropout(0.5),
            fn.Dense(2),
        ],
        input_size=4,
        dtype="float64",
        seed=5,
    )
    p = net.parameters()
    p["1.bias"][:2] = -100  # dead
    p["4.gamma"][:] = [1, 20, 1, 50, 1]
    p["4.beta"][:] = [0.1, -0.2, 0.3, 0.4, -0.5]
    random = np.random.default_rng(0)
    x, y = random.standard_normal((40, 4)), random.standard_normal((40, 2))
    z1 = 0.5 * x @ p["1.weight"] + p["1.bias"]
    y1 = np.maximum(z1, 0)
    y2 = 0.75 * y1
    z3 = y2 @ p["3.weight"] + p["3.bias"]
    y4 = p["4.gamma"] * (z3 - z3.mean(axis=0)) / np.sqrt(z3.var(axis=0) + 1e-5) + p["4.beta"]
    y5 = np.tanh(y4)
    y7 = y5 @ p["7.weight"] + p["7.bias"]
    d7 = 2 * (y7 - y) / y.size
    outputs = [0.5 * x, y1, y2, z3, y4, y5, y5, y7]

    found = fn.diagnose(net, x, y, loss="mse")
    assert [(r.place, r.layer) for r in found.layers] == list(enumerate(net.layers))
    np.testing.assert_allclose([r.mean for r in found.layers], [o.mean() for o in outputs], rtol=1e-10)
    np.testing.assert_allclose([r.std for r in found.layers], [o.std() for o in outputs], rtol=1e-10)
    dead, saturated = shares("relu", z1)
    assert (dead, saturated) != (0, 0)
    assert (found.layers[1].dead, found.layers[1].saturated) == (dead, saturated)
    dead, saturated = shares("tanh", y4)
    assert 0 < saturated < 1
    assert (found.layers[5].dead, found.layers[5].saturated) == (dead, saturated)
    assert all(found.layers[i].dead is found.layers[i].saturated is None for i in (0, 2, 3, 4, 6, 7))
    np.testing.assert_allclose(found.layers[7].gradient_norm, np.linalg.norm(y5.T @ d7), rtol=1e-10)
    assert [r.gradient_norm is None for r in found.layers] == [True, False, True, False, True, True, True, False]
    np.testing.assert_allclose(found.loss, np.mean((y7 - y) ** 2), rtol=1e-12)
    assert found.rows == 40


@pytest.mark.parametrize("loss", ["cross_entropy", "own"])
def test_gradient_norms_are_those_of_central_differences(loss):
    middle = [fn.Dense(5, "tanh"), fn.BatchNorm(), fn.Dense(4, "gelu", trainable=False), fn.Dense(6, "elu")]
    net = make_net(middle, seed=2)
    kind = "labels" if loss == "cross_entropy" else "values"
    x, y, _ = make_batch(kind, 2)

    def squares(outputs, targets):
        return np.mean((outputs - targets) ** 2), 2 * (outputs - targets) / outputs.size

    found = fn.diagnose(net, x, y, loss="cross_entropy" if loss == "cross_entropy" else squares)
    oracle = "cross_entropy" if loss == "cross_entropy" else "mse"
    expected = central_differences(training_loss(net, x, y, None, oracle, None), net)
    for place in (0, 3, 4):
        norm = np.linalg.norm(expected[f"{place}.weight"])
        assert norm > 1e-3
        np.testing.assert_allclose(found.layers[place].gradient_norm, norm, rtol=1e-6)
    assert found.layers[2].gradient_norm is None, "frozen"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if a.name not in ("softmax", "identity")], ids=repr)
def test_derivatives(activation, dtype):
    z = np.concatenate([np.linspace(-12, 12, 481), [-800.0, -40.0, 0.0, 1e-30, 40.0, 800.0]]).astype(dtype)
    z = z.astype(np.float64)
    y = reference.activation_forward(z, activation.name, activation.alpha)
    expected = reference.activation_derivative(z, activation.name, activation.alpha)
    np.testing.assert_allclose(derivative(activation, z, y), expected, rtol=1e-9, atol=1e-12)


def test_an_activation_that_is_fused_with_the_loss_is_not_judged():
    x, y = samples()
    one = fn.Sequential([fn.Dense(1, "sigmoid")], input_size=INPUTS, seed=0)
    one.parameters()["0.weight"][...] *= 100
    assert fn.diagnose(one, x, y > 0, loss="binary_cross_entropy").layers[0].saturated is None
    assert fn.diagnose(one, x, y > 0, loss="mse").layers[0].saturated == 1


def test_no_more_than_max_rows_are_used_from_all_over():
    x, y = samples(1001)
    net = deep("tanh", None, hidden=2)
    chosen = np.arange(11) * 100
    few = fn.diagnose(net, x, y, max_rows=11)
    assert few.rows == 11
    assert few.layers == fn.diagnose(net, x[chosen], y[chosen]).layers
    assert fn.diagnose(net, x, y, max_rows=2000).rows == 1001


def test_standardize_takes_the_statistics_that_a_fit_would_take():
    x, y = samples()
    x = 1000 + 50 * x
    net = fn.Sequential([fn.Standardize(), fn.Dense(8, "relu"), fn.Dense(3)], input_size=INPUTS, seed=0)
    found = fn.diagnose(net, x, y)
    assert names(found) == []
    assert abs(found.layers[0].mean) < 1e-6
    assert abs(found.layers[0].std - 1) < 1e-6
    assert not net.parameters()["0.scale"].any(), "the net itself still has none"


# ---- sick nets ----


def dead_relus():
    net = deep("relu", None, hidden=2)
    net.parameters()["0.bias"][:20] = -50
    return net


def constant(activation="tanh"):
    return deep(activation, fn.initializers.constant(0.05), hidden=2)


SICK = {
    "deep sigmoid with naive weights": (lambda: deep("sigmoid", "fan_in_uniform"), {"vanishing": 0}),
    "large normal weights, tanh": (
        lambda: deep("tanh", fn.initializers.normal(2.0), hidden=20),
        {"exploding": 0, "saturated": 0},
    ),
    "large normal weights, ReLU": (lambda: deep("relu", fn.initializers.normal(1.0)), {"growing": 9}),
    "small normal weights, ReLU": (lambda: deep("relu", fn.initializers.normal(0.01)), {"shrinking": 9}),
    "very negative biases": (dead_relus, {"dead": 0}),
    "saturated tanh": (lambda: deep("tanh", fn.initializers.normal(8.0), hidden=1), {"saturated": 0}),
    "zero weights": (lambda: deep("tanh", "zeros", hidden=2), {"symmetric": 0}),
    "zero weights, ReLU": (lambda: deep("relu", "zeros", hidden=2), {"dead": 0, "symmetric": 0}),
    "constant weights": (constant, {"symmetric": 0}),
}


@pytest.mark.parametrize("sick", SICK)
def test_a_sick_net_is_found(sick):
    build, expected = SICK[sick]
    x, y = samples()
    found = fn.diagnose(build(), x, y)
    reported = {finding.name: finding.layer for finding in found.findings}
    if sick == "constant weights":  # what comes back through equal units cancels, so the gradient is small as well
        reported.pop("vanishing", None)
    assert reported == expected
    text = str(found)
    for finding in found.findings:
        assert f"\n{finding.name}: " in text
    assert "Healthy" not in text


def test_features_that_are_not_scaled():
    x, y = samples()
    net = fn.Sequential([fn.Dense(16, "relu"), fn.Dense(3)], input_size=INPUTS, seed=0)
    big = x.copy()
    big[:, 7] = 2000 + 5 * big[:, 7]
    found = fn.diagnose(net, big, y)
    assert names(found)[0] == "unscaled"
    size = np.sqrt(np.mean(big[:, 7] ** 2))
    assert f"{size:.3g} (column 7" in found.findings[0].text
    assert "1 of 20 features" in found.findings[0].text
    assert "unscaled" in names(fn.diagnose(net, x * 1e-3, y))
    normalised = fn.Sequential([fn.BatchNorm(), *net.layers], input_size=INPUTS, seed=0)
    assert "unscaled" not in names(fn.diagnose(normalised, big, y))


def test_units_that_differ_behind_them_are_not_symmetric():
    x, y = samples()
    net = constant()
    output = net.parameters()["2.weight"]
    output[...] = np.random.default_rng(0).standard_normal(output.shape)
    found = fn.diagnose(net, x, y)
    assert found.layers[0].identical == 1, "the units of the next layer are all the same to these"
    assert found.layers[1].identical == 0


def test_batchnorm_normalises_by_the_batch_whatever_it_keeps_for_later():
    x, y = samples()
    nets = [
        fn.Sequential([fn.Dense(6), fn.BatchNorm(unbiased=unbiased), fn.Dense(3)], input_size=INPUTS, seed=0)
        for unbiased in (False, True)
    ]
    biased, unbiased = [fn.diagnose(net, x[:5], y[:5]).layers[1].std for net in nets]
    assert biased == unbiased
    assert abs(biased - 1) < 1e-3


def test_statistics_are_those_of_all_rows_though_few_are_measured():
    x, y = samples()
    x = x + np.linspace(-3, 3, len(x))[:, np.newaxis] ** 3
    net = fn.Sequential([fn.Standardize(), fn.Dense(3)], input_size=INPUTS, seed=0)
    few = fn.diagnose(net, x, y, max_rows=2).layers[0]
    rows = data.spread(len(x), 2)
    np.testing.assert_allclose(few.std, ((x - x.mean(axis=0)) / x.std(axis=0))[rows].std(), rtol=1e-4)


def test_doubles_are_found_one_by_one():
    x, y = samples()
    net = fn.Sequential([fn.Dense(6, "tanh"), fn.Dense(3)], input_size=INPUTS, seed=0)
    first, last = net.parameters()["0.weight"], net.parameters()["1.weight"]
    first[:, 4], last[4] = first[:, 1], last[1]
    assert fn.diagnose(net, x, y).layers[0].identical == 2 / 6
    first[:, 1], first[:, 4] = 0.0, -0.0
    assert fn.diagnose(net, x, y).layers[0].identical == 2 / 6
    last[4, 0] += 0.5
    assert fn.diagnose(net, x, y).layers[0].identical == 0


@pytest.mark.parametrize("where", ["parameter", "output", "gradient"])
def test_what_is_not_finite(where):
    x, y = samples()
    net = deep("relu", None, hidden=2)
    loss = "cross_entropy"
    if where == "parameter":
        net.parameters()["1.weight"][3, 4] = np.nan
    elif where == "output":
        net.parameters()["1.weight"][...] = 1e38
    else:
        loss, y = (lambda outputs, targets: (1.0, np.full_like(outputs, 1e38))), y[:, np.newaxis]
        net.parameters()["2.weight"][...] = 100
    found = fn.diagnose(net, x, y, loss=loss)
    assert names(found) == ["nonfinite"]
    text = found.findings[0].text
    if where == "parameter":
        assert found.findings[0].layer == 1
        assert "1 of 1,024 values of 1.weight" in text
    elif where == "output":
        assert found.findings[0].layer == 1
        assert "float32" in text
    else:
        assert "gradient" in text
    assert "nan" in str(found)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0.99 / RATIO, ["vanishing"]), (1.01 / RATIO, []), (0.99 * RATIO, []), (1.01 * RATIO, ["exploding"])],
)
def test_the_limits_of_vanishing_and_exploding(ratio, expected):
    """A factor s behind the hidden layer and 1/s in the weights after it change the last gradient alone, by s."""
    x, y = samples()

    def net_of(s):
        layers = [fn.Dense(32, "tanh"), fn.Scale(s), fn.Dense(3)]
        net = fn.Sequential(layers, input_size=INPUTS, dtype="float64", seed=1)
        net.parameters()["2.weight"][...] /= s
        return net

    first, _, last = (record.gradient_norm for record in fn.diagnose(net_of(1.0), x, y).layers)
    found = fn.diagnose(net_of(first / last / ratio), x, y)
    np.testing.assert_allclose(found.layers[0].gradient_norm / found.layers[2].gradient_norm, ratio, rtol=1e-9)
    assert names(found) == expected


# ---- healthy nets ----

HEALTHY = {
    "ReLU": lambda: deep("relu", None),
    "tanh": lambda: deep("tanh", None),
    "SELU": lambda: deep("selu", "lecun_normal"),
    "one layer of zeros": lambda: fn.Sequential([fn.Dense(3, init="zeros")], input_size=INPUTS),
    "BatchNorm": lambda: fn.Sequential(
        [
            *[layer for _ in range(8) for layer in (fn.Dense(32), fn.BatchNorm(), fn.ReLU(), fn.Dropout(0.5))],
            fn.Dense(3),
        ],
        input_size=INPUTS,
    ),
}


@pytest.mark.parametrize("healthy", HEALTHY)
def test_a_healthy_net_has_no_finding(healthy):
    x, y = samples()
    found = fn.diagnose(HEALTHY[healthy](), x, y)
    assert found.findings == []
    assert "Healthy" in str(found)
    assert repr(found).endswith("healthy)")


def test_nets_that_were_trained_well_are_healthy():
    (x, y), _ = load_digits()
    net = fn.Sequential([fn.Scale(1 / 16), fn.Dense(64, "relu"), fn.Dropout(0.2), fn.Dense(10)], input_size=64, seed=0)
    fn.Trainer(net, batch_size=32).fit(x, y, epochs=5, verbose=0)
    assert fn.diagnose(net, x, y).findings == []
    x, y = samples()
    net = fn.Sequential([fn.Dense(32, "tanh"), fn.Dense(1)], input_size=INPUTS, seed=0)
    fn.Trainer(net, "mse").fit(x, x[:, 0] + x[:, 1] ** 2, epochs=20, verbose=0)
    assert fn.diagnose(net, x, x[:, 0] + x[:, 1] ** 2, "mse").findings == []


def test_batchnorm_mends_the_deep_sigmoid_net():
    x, y = samples()
    layers = [layer for _ in range(10) for layer in (fn.Dense(32, init="fan_in_uniform"), fn.BatchNorm(), fn.Sigmoid())]
    net = fn.Sequential([*layers, fn.Dense(3)], input_size=INPUTS, seed=1)
    assert "vanishing" not in names(fn.diagnose(net, x, y))


# ---- the net itself ----


def test_the_net_and_its_training_stay_as_they_are():
    x, y = samples()

    def trained(diagnosing):
        layers = [fn.Dense(16), fn.BatchNorm(), fn.ReLU(), fn.Dropout(0.5), fn.Dense(3)]
        net = fn.Sequential(layers, input_size=INPUTS, seed=4)
        trainer = fn.Trainer(net, batch_size=64)
        trainer.fit(x, y, epochs=2, verbose=0)
        if diagnosing:
            before = net.__reduce__()[1][0], net._engine.passes, net._engine.updates, net._engine.link
            fn.diagnose(net, x, y)
            assert (net.__reduce__()[1][0], net._engine.passes, net._engine.updates, net._engine.link) == before
        trainer.fit(x, y, epochs=2, verbose=0)
        return net.__reduce__()[1][0]

    assert trained(True) == trained(False)


def test_equal_calls_give_equal_results_with_any_number_of_threads():
    x, y = samples()
    net = HEALTHY["BatchNorm"]()
    assert (
        str(fn.diagnose(net, x, y))
        == str(fn.diagnose(net, x, y, n_threads=1))
        == str(fn.diagnose(net, x, y, n_threads=2))
    )


# ---- bad input ----


def test_bad_input_is_named():
    x, y = samples()
    net = deep("relu", None, hidden=1)
    with pytest.raises(TypeError, match=r"net must be a fastnn.Sequential, got \[1\]"):
        fn.diagnose([1], x, y)
    with pytest.raises(ValueError, match="diagnose is not possible on a folded net"):
        fn.diagnose(net.fold(), x, y)
    with pytest.raises(ValueError, match=r"max_rows must be an int >= 1, got 0"):
        fn.diagnose(net, x, y, max_rows=0)
    with pytest.raises(ValueError, match="mse_"):
        fn.diagnose(net, x, y, loss="mse_")
    with pytest.raises(ValueError, match="x has 3 features"):
        fn.diagnose(net, x[:, :3], y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fn.diagnose(net, x, y[1:])
    with pytest.raises(ValueError, match="BatchNorm needs at least 2 rows"):
        fn.diagnose(HEALTHY["BatchNorm"](), x, y, max_rows=1)
