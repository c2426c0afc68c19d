"""Folding and recalibration of BatchNorm."""

import warnings

import numpy as np
import pytest

import fastnn as fn


def shaken(layers, inputs, dtype, seed=0):
    """A net whose parameters and statistics are all away from their defaults."""
    net = fn.Sequential(layers, inputs, dtype=dtype, seed=seed)
    random = np.random.default_rng(seed)
    for name, view in net.parameters().items():
        role = name.split(".")[1]
        if role in ("bias", "beta", "running_mean", "mean"):
            view[...] = random.normal(size=view.shape)
        elif role in ("gamma", "running_var", "scale"):
            view[...] = random.uniform(0.5, 2, view.shape) * (
                random.choice([-1, 1], view.shape) if role == "gamma" else 1
            )
    return net


FOLDABLE = {
    "after dense": ([fn.Dense(7), fn.BatchNorm(), fn.ReLU(), fn.Dense(3)], 2),
    "after dense without bias": ([fn.Dense(7, use_bias=False), fn.BatchNorm(), fn.Tanh(), fn.Dense(3)], 2),
    "after activation": ([fn.Dense(7, "relu"), fn.BatchNorm(), fn.Dense(3)], 2),
    "through dropout": ([fn.Dense(7), fn.ELU(), fn.BatchNorm(), fn.Dropout(0.3), fn.Dense(3)], 2),
    "through test dropout": ([fn.Dense(7, "tanh"), fn.BatchNorm(), fn.Dropout(0.3, "test"), fn.Dense(3)], 2),
    "dropout before batchnorm": ([fn.Dense(7, "tanh"), fn.Dropout(0.3, "test"), fn.BatchNorm(), fn.Dense(3)], 2),
    "dense dropout batchnorm": ([fn.Dense(7), fn.Dropout(0.3, "test"), fn.BatchNorm(), fn.ReLU(), fn.Dense(3)], 2),
    "into dense without bias": ([fn.Dense(7, "relu"), fn.BatchNorm(), fn.Dense(3, use_bias=False)], 2),
    "in front": ([fn.BatchNorm(), fn.Dense(3)], 1),
    "two in a row": ([fn.Dense(7), fn.BatchNorm(), fn.BatchNorm(eps=0.1), fn.SiLU(), fn.Dense(3)], 2),
    "at the end": ([fn.Dense(7, "relu"), fn.Dense(3), fn.BatchNorm()], 2),
    "features": ([fn.Standardize(), fn.Dense(7), fn.BatchNorm(), fn.ReLU(), fn.Dense(3), fn.Softmax()], 3),
    "scale": ([fn.Scale(0.1), fn.Dense(7), fn.Scale(3.0), fn.ReLU(), fn.Scale(2.0), fn.Dense(3)], 3),
    "test dropout at the end": ([fn.Dense(7, "relu"), fn.Dropout(0.25, "test")], 2),
    "test dropout of the input": ([fn.Dropout(0.25, "test"), fn.Dense(3)], 1),
    "identity": ([fn.Identity(), fn.Dense(3, "identity"), fn.BatchNorm(), fn.Identity()], 1),
    "nothing left": ([fn.Dropout(0.5), fn.Identity()], 1),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("case", FOLDABLE)
def test_folding_keeps_the_predictions(case, dtype, tolerance):
    layers, folded_length = FOLDABLE[case]
    x = np.random.default_rng(1).normal(size=(50, 5))
    net = shaken(layers, 5, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = net.fold()
    expected = net.predict(x)
    assert np.abs(fast.predict(x) - expected).max() <= tolerance * np.abs(expected).max()
    assert len(fast.layers) == folded_length
    assert not any(isinstance(layer, (fn.BatchNorm, fn.Dropout)) for layer in fast.layers)


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        ([fn.Dense(7, "relu"), fn.BatchNorm(), fn.Tanh(), fn.Dense(3)], "layer 1 "),
        ([fn.Dense(7), fn.ReLU(), fn.Dropout(0.2, "test"), fn.BatchNorm()], "layer 3 "),
    ],
)
def test_what_cannot_be_folded_stays_and_is_named(layers, name):
    x = np.random.default_rng(1).normal(size=(50, 5))
    net = shaken(layers, 5, "float64")
    with pytest.warns(UserWarning, match=name + r"\(BatchNorm\)"):
        fast = net.fold()
    assert np.abs(fast.predict(x) - net.predict(x)).max() <= 1e-12 * np.abs(net.predict(x)).max()
    assert any(isinstance(layer, fn.BatchNorm) for layer in fast.layers)


def test_a_folded_net_is_frozen():
    net = shaken([fn.Dense(7), fn.BatchNorm(), fn.ReLU(), fn.Dropout(0.5), fn.Dense(3)], 5, "float64")
    fast, x = net.fold(), np.ones((4, 5))
    assert fast.frozen
    assert not any(view.flags.writeable for view in fast.parameters().values())
    for use in (
        lambda: fn.Trainer(fast),
        lambda: fast.predict_mc(x),
        lambda: fast.predict_expected(x),
        lambda: fast.forward(x),
        lambda: fast.backward(x),
        lambda: fast.gradients(),
        lambda: fast.recalibrate(x),
    ):
        with pytest.raises(ValueError, match=r"folded net.*no Dropout"):
            use()
    np.testing.assert_array_equal(fast.forward(x, training=False), fast.predict(x))
    np.testing.assert_array_equal(fast.copy().predict(x), fast.predict(x))
    assert fast.copy().frozen


ACTIVATIONS = ("relu", "tanh", None, "gelu", "softmax", "elu")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(12))
def test_the_frozen_layout_gives_the_bits_of_the_live_one(seed, dtype):
    random = np.random.default_rng(seed)
    inputs, *units = (int(n) for n in random.integers(1, 200, size=4))
    activations = random.choice(np.array(ACTIVATIONS, dtype=object), size=3)
    layers = [fn.Dense(n, a, use_bias=bool(random.random() < 0.7)) for n, a in zip(units, activations, strict=True)]
    live = shaken(layers, inputs, dtype, seed)
    frozen = live.fold()
    x = random.normal(size=(200, inputs)).astype(dtype)
    expected = live.predict(x)
    assert np.ptp(expected) > 0 or layers[-1].units == 1
    for net in (frozen, frozen.copy()):
        for rows in (1, 2, 5, 7, 96, 97, 200):
            assert net.predict(x[:rows]).tobytes() == expected[:rows].tobytes(), rows
            assert net.predict(x[:rows], n_threads=2).tobytes() == expected[:rows].tobytes(), rows
            assert live.predict(x[:rows]).tobytes() == expected[:rows].tobytes(), rows
        for other in (np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2], np.pad(x, ((0, 0), (3, 2)))[:, 3:-2]):
            assert net.predict(other).tobytes() == expected.tobytes()
        assert net.predict(x[::-1]).tobytes() == expected[::-1].tobytes()
        for name, view in live.parameters().items():
            np.testing.assert_array_equal(net.parameters()[name], view)


def test_folded_batchnorm_gives_the_bits_of_a_live_net_with_its_parameters():
    fast = shaken(
        [fn.Dense(70), fn.BatchNorm(), fn.ReLU(), fn.Dense(33, "tanh"), fn.BatchNorm(), fn.Dense(3)], 21, "float32"
    ).fold()
    live = fn.Sequential(fast.layers, 21)
    for name, view in live.parameters().items():
        view[...] = fast.parameters()[name]
    x = np.random.default_rng(0).normal(size=(50, 21)).astype("f4")
    assert fast.predict(x).tobytes() == live.predict(x).tobytes()
    for one, other in zip(fast.activations(x), live.activations(x), strict=True):
        assert one.tobytes() == other.tobytes()
    labels = np.arange(50) % 3
    assert fast.evaluate(x, labels) == live.evaluate(x, labels)


def test_a_frozen_engine_neither_trains_nor_draws():
    fast = shaken([fn.Dense(7), fn.Tanh(), fn.Dense(3)], 5, "float32").fold()
    before = {name: view.copy() for name, view in fast.parameters().items()}
    engine, x = fast._engine, np.ones((4, 5), "f4")
    for use in (
        lambda: engine.forward(x),
        lambda: engine.backward(np.ones((4, 3), "f4")),
        lambda: engine.apply_gradients(0.1),
        engine.initialize,
    ):
        with pytest.raises(ValueError, match=r"argument|forward"):
            use()
    engine.freeze()  # twice is once
    for name, view in fast.parameters().items():
        np.testing.assert_array_equal(view, before[name])


def test_the_folded_net_is_a_snapshot_with_the_same_link():
    x, y = np.random.default_rng(0).normal(size=(20, 5)), np.arange(20) % 3
    net = fn.Sequential([fn.Dense(7), fn.BatchNorm(), fn.ReLU(), fn.Dense(3)], 5, dtype="float64")
    fn.Trainer(net, batch_size=20).fit(x, y, epochs=1, verbose=0)
    fast = net.fold()
    np.testing.assert_allclose(fast.predict_proba(x), net.predict_proba(x), atol=1e-13)
    before = fast.predict(x)
    net.parameters()["0.weight"][...] = 0
    np.testing.assert_array_equal(fast.predict(x), before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_recalibration_gives_the_statistics_of_the_data(dtype, monkeypatch):
    monkeypatch.setattr(fn.data, "_CHUNK_ELEMENTS", 64)  # many chunks
    net = shaken([fn.BatchNorm(), fn.Dense(6), fn.BatchNorm(), fn.ReLU(), fn.Dropout(0.5), fn.Dense(2)], 4, dtype)
    x = np.random.default_rng(2).normal(100, 1, size=(333, 4))
    net.recalibrate(x)
    tolerance = 1e-10 if dtype == "float64" else 1e-4
    inputs = [x, net.activations(x)[1].astype(np.float64)]
    for place, values in zip((0, 2), inputs, strict=True):
        mean, variance = net.parameters()[f"{place}.running_mean"], net.parameters()[f"{place}.running_var"]
        np.testing.assert_allclose(mean, values.mean(axis=0), rtol=tolerance)
        np.testing.assert_allclose(variance, values.var(axis=0), rtol=tolerance)
    # A recalibrated BatchNorm puts out mean 0 and variance 1 over the data, up to gamma, beta and eps.
    views = net.parameters()
    normal = (net.activations(x)[2] - views["2.beta"]) / views["2.gamma"]
    np.testing.assert_allclose(normal.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(normal.var(axis=0), 1, atol=1e-3)
