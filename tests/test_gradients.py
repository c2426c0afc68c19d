"""Gradients of whole nets against central differences of the loss, in float64; float32 against float64.

The gradient is read off a real step: with SGD at learning rate 1, parameters before minus after are the gradient of
loss and penalty together, as the engine formed and used it. The loss that is differenced comes from the oracle's
formula applied to the engine's training-mode outputs, with the same dropout masks.
"""

import numpy as np
import pytest
import reference

import fastnn as fn

SEEDS = 20
ROWS = 7
INPUTS = 4
EPS = 1e-6

LOSSES = {
    "cross_entropy": ("labels", "cross_entropy", None),
    "smoothed": ("labels", fn.losses.CrossEntropy(label_smoothing=0.1), 0.1),
    "soft labels": ("soft", "cross_entropy", None),
    "binary_cross_entropy": ("probabilities", "binary_cross_entropy", None),
    "mse": ("values", "mse", None),
    "mae": ("values", "mae", None),
    "huber": ("values", fn.losses.Huber(0.7), 0.7),
    "poisson": ("counts", "poisson", None),
}
ORACLE_LOSS = {"smoothed": "cross_entropy", "soft labels": "cross_entropy"}

ACTIVATIONS = [
    fn.ReLU(),
    fn.LeakyReLU(0.1),
    fn.ELU(1.3),
    fn.SELU(),
    fn.GELU(),
    fn.SiLU(),
    fn.Softplus(),
    fn.Tanh(),
    fn.Sigmoid(),
    fn.Softmax(),
    fn.Identity(),
]
MIDDLES = {
    **{f"activation {a!r}": [fn.Dense(5), a] for a in ACTIVATIONS},
    "own activation": [fn.Dense(5, activation="gelu")],
    "no bias": [fn.Dense(5, use_bias=False), fn.Tanh()],
    "batchnorm": [fn.Dense(5), fn.BatchNorm(), fn.Tanh()],
    "batchnorm after activation": [fn.Dense(5), fn.Tanh(), fn.BatchNorm()],
    "frozen batchnorm": [fn.Dense(5), fn.BatchNorm(trainable=False), fn.Tanh()],
    "frozen dense": [fn.Dense(5), fn.Tanh(), fn.Dense(4, trainable=False), fn.Tanh()],
    "dropout": [fn.Dense(5), fn.Tanh(), fn.Dropout(0.4)],
    "dropout, test scaling": [fn.Dense(5), fn.Tanh(), fn.Dropout(0.4, scaling="test")],
    "scale": [fn.Scale(0.5), fn.Dense(5), fn.Tanh(), fn.Scale(1.7)],
    "activations in a row": [fn.Dense(5), fn.Sigmoid(), fn.Scale(3.0), fn.Tanh(), fn.GELU()],
    "deep": [fn.Dense(6), fn.BatchNorm(), fn.ELU(), fn.Dropout(0.3), fn.Dense(5), fn.BatchNorm(), fn.SiLU()],
}


def make_net(middle, seed, outputs=3, dtype="float64"):
    net = fn.Sequential([*middle, fn.Dense(outputs)], input_size=INPUTS, dtype=dtype, seed=seed)
    random = np.random.default_rng(seed)
    for name, value in net.parameters(trainable=True).items():
        if not name.endswith("weight"):
            value += random.normal(0, 0.3, value.shape)  # biases 0 and gamma 1 would hide terms
    return net


def make_batch(kind, seed, outputs=3):
    random = np.random.default_rng(1000 + seed)
    x = random.normal(0, 1, (ROWS, INPUTS))
    targets = {
        "labels": lambda: random.integers(0, outputs, ROWS),
        "soft": lambda: random.dirichlet(np.ones(outputs), ROWS),
        "probabilities": lambda: random.random((ROWS, outputs)),
        "values": lambda: random.normal(0, 1, (ROWS, outputs)),
        "counts": lambda: random.poisson(2.0, (ROWS, outputs)).astype(float),
    }
    y = targets[kind]()
    assert np.std(x) > 0.1
    assert np.std(y) > 0.01
    return x, y, random.uniform(0.5, 2.0, ROWS)


def step_gradients(net, loss, x, y, weights, **settings):
    """Gradients of one step by parameter name; the net is left as it was."""
    before = {name: value.copy() for name, value in net.parameters().items()}
    trainer = fn.Trainer(net, loss=loss, optimizer=fn.SGD(1.0), metrics=(), **settings)
    trainer.train_step(x, y, sample_weight=weights)
    gradients = {name: before[name] - value for name, value in net.parameters(trainable=True).items()}
    for name, value in net.parameters().items():
        value[...] = before[name]
    return gradients


def central_differences(function, net):
    """d function / d parameter for every trainable parameter."""
    gradients = {}
    for name, value in net.parameters(trainable=True).items():
        gradient = np.empty(value.shape)
        for index in np.ndindex(value.shape):
            kept = value[index]
            value[index] = kept + EPS
            above = function()
            value[index] = kept - EPS
            below = function()
            value[index] = kept
            gradient[index] = (above - below) / (2 * EPS)
        gradients[name] = gradient
    return gradients


def training_loss(net, x, y, weights, loss_name, parameter, passes=0):
    """The oracle's loss of the engine's training-mode outputs, with the masks of pass number `passes`."""
    name = ORACLE_LOSS.get(loss_name, loss_name)

    def function():
        net._engine.passes = passes
        return reference.loss_value_and_gradient(net.forward(x), y, name, weights, parameter)[0]

    return function


def biases_before_batchnorm(net):
    """Parameters whose true gradient is 0: BatchNorm subtracts the mean that they add to."""
    pairs = zip(net.layers[:-1], net.layers[1:], strict=True)
    return {
        f"{i}.bias"
        for i, (layer, following) in enumerate(pairs)
        if isinstance(layer, fn.Dense) and isinstance(following, fn.BatchNorm) and following.trainable
        if layer.activation is None
    }


def assert_close(found, expected, net):
    """Equal within atol 1e-8 and rtol 1e-5, and not trivially so."""
    assert found.keys() == expected.keys()
    zero = biases_before_batchnorm(net)
    for name in found:
        if name in zero:
            assert np.abs(found[name]).max() <= 1e-12, name
            continue
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-8, err_msg=name)
    total = np.sqrt(sum(np.sum(g**2) for g in expected.values()))
    assert total > 1e-3, "a check against an all-zero gradient proves nothing"


@pytest.mark.parametrize("loss_name", LOSSES)
@pytest.mark.parametrize("middle", MIDDLES.values(), ids=MIDDLES)
def test_every_layer_with_every_loss(middle, loss_name):
    kind, loss, parameter = LOSSES[loss_name]
    for seed in range(SEEDS):
        net = make_net(middle, seed)
        x, y, weights = make_batch(kind, seed)
        expected = central_differences(training_loss(net, x, y, weights, loss_name, parameter), net)
        net._engine.passes = 0
        assert_close(step_gradients(net, loss, x, y, weights), expected, net)


@pytest.mark.parametrize(
    ("last", "loss_name"),
    [
        (fn.Softmax(), "cross_entropy"),
        (fn.Sigmoid(), "binary_cross_entropy"),
        (fn.Softmax(), "mse"),
        (fn.Sigmoid(), "mae"),
    ],
)
def test_final_activation(last, loss_name):
    """Fused with its loss, or as a layer of its own."""
    kind, loss, parameter = LOSSES[loss_name]
    fused = loss_name.endswith("entropy")
    for seed in range(SEEDS):
        layers = [fn.Dense(5), fn.Tanh(), fn.Dense(3), last]
        net = fn.Sequential(layers, input_size=INPUTS, dtype="float64", seed=seed)
        plain = fn.Sequential(layers[:-1] if fused else layers, input_size=INPUTS, dtype="float64", seed=seed)
        x, y, weights = make_batch(kind, seed)
        expected = central_differences(training_loss(plain, x, y, weights, loss_name, parameter), plain)
        assert_close(step_gradients(net, loss, x, y, weights), expected, net)


PENALTIES = {
    "L1": (fn.L1(30.0), lambda w: 30.0 * np.abs(w).sum()),
    "L2": (fn.L2(30.0), lambda w: 30.0 * (w**2).sum()),
    "ElasticNet": (fn.ElasticNet(30.0, 0.5), lambda w: 30.0 * (0.5 * w**2 + np.abs(w)).sum()),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_penalty_that_dominates(name):
    """lambda so large that a wrong factor in the penalty's gradient cannot hide behind the loss."""
    regularizer, value = PENALTIES[name]
    for seed in range(SEEDS):
        net = make_net([fn.Dense(5), fn.BatchNorm(), fn.Tanh()], seed)
        x, y, weights = make_batch("values", seed)
        data_loss = training_loss(net, x, y, weights, "mse", None)

        def function(net=net, data_loss=data_loss):
            return data_loss() + sum(value(p) for key, p in net.parameters().items() if key.endswith("weight"))

        expected = central_differences(function, net)
        found = step_gradients(net, "mse", x, y, weights, regularizer=regularizer)
        for key in expected:  # differences of a loss of several hundred: its rounding is 1e-16 * 300 / 1e-6
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-5, atol=1e-6, err_msg=key)
        without = step_gradients(net, "mse", x, y, weights)
        assert np.linalg.norm(found["0.weight"]) > 10 * np.linalg.norm(without["0.weight"])


def test_gradients_leave_the_penalty_out():
    net = make_net([fn.Dense(5), fn.Tanh()], 0)
    x, y, weights = make_batch("values", 0)
    step_gradients(net, "mse", x, y, weights)
    plain = {name: g.copy() for name, g in net.gradients().items()}
    step_gradients(net, "mse", x, y, weights, regularizer=fn.L2(10.0))
    assert all(np.array_equal(plain[name], g) for name, g in net.gradients().items())
    assert net.gradients().keys() == net.parameters(trainable=True).keys()


@pytest.mark.parametrize("middle", MIDDLES.values(), ids=MIDDLES)
def test_float32_gradients(middle):
    """||g32 - g64|| <= 1e-5 ||g64|| per tensor, from the same (float32) parameters and data."""
    for seed in range(SEEDS):
        single = make_net(middle, seed, dtype="float32")
        double = make_net(middle, seed, dtype="float64")
        for name, value in double.parameters().items():
            value[...] = single.parameters()[name]
        x, y, weights = make_batch("values", seed)
        x, y = x.astype(np.float32), y.astype(np.float32)
        for net in (single, double):
            fn.Trainer(net, loss="mse", optimizer=fn.SGD(1e-3), metrics=()).train_step(x, y, sample_weight=weights)
        for name, g64 in double.gradients().items():
            g32 = single.gradients()[name]
            if name in biases_before_batchnorm(double):
                assert np.abs(g32).max() <= 1e-6
                assert np.abs(g64).max() <= 1e-12
            else:
                assert np.linalg.norm(g32 - g64) <= 1e-5 * np.linalg.norm(g64), (seed, name)


@pytest.mark.parametrize("middle", [MIDDLES["deep"], MIDDLES["scale"], MIDDLES["frozen batchnorm"]])
def test_input_gradient(middle):
    """`backward` returns d loss / d x, through Scale in front as well."""
    for seed in range(SEEDS):
        net = make_net(middle, seed)
        x, y, _ = make_batch("values", seed)

        def loss(at, net=net, y=y):
            net._engine.passes = 0
            return reference.loss_value_and_gradient(net.forward(at), y, "mse")

        _, dy = loss(x)
        dx = net.backward(dy)
        expected = np.empty_like(x)
        for index in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[index] = EPS
            expected[index] = (loss(x + step)[0] - loss(x - step)[0]) / (2 * EPS)
        np.testing.assert_allclose(dx, expected, rtol=1e-5, atol=1e-8)
        assert np.abs(expected).max() > 1e-3


def test_standardize_input_gradient():
    mean, scale = np.arange(4.0), np.array([0.5, 2.0, 1.0, 4.0])
    net = fn.Sequential([fn.Standardize(mean, scale), fn.Dense(1, init="orthogonal")], input_size=4, dtype="float64")
    x, _, _ = make_batch("values", 0)
    net.forward(x)
    dx = net.backward(np.ones((ROWS, 1)))
    np.testing.assert_allclose(dx, np.tile(net.parameters()["1.weight"][:, 0] / scale, (ROWS, 1)), rtol=1e-14)
