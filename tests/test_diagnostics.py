"""The Diagnostics callback: its records against single steps, and that the training does not notice it."""

import numpy as np
import pytest

import fastnn as fn

ROWS, INPUTS = 90, 6


def samples(dtype="float64"):
    random = np.random.default_rng(8)
    x = random.standard_normal((ROWS, INPUTS)).astype(dtype)
    return x, x[:, :3].argmax(axis=1)


def make_net(dtype="float64", dropout=0.0):
    middle = [fn.Dense(12), fn.BatchNorm(), fn.ReLU(), fn.Dropout(dropout), fn.Dense(8, "tanh", trainable=False)]
    return fn.Sequential([*middle, fn.Dense(5, "sigmoid"), fn.Dense(3)], INPUTS, dtype=dtype, seed=6)


def own_cross_entropy(outputs, y):
    p = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    hits = np.eye(3)[y]
    return -np.log((p * hits).sum(axis=1)).mean(), ((p - hits) / len(y)).astype(outputs.dtype)


def bits(net):
    return net.__reduce__()[1][0]


# ---- the records ----


@pytest.mark.parametrize("loss", ["cross_entropy", own_cross_entropy], ids=["built in", "own"])
@pytest.mark.parametrize("clip", [None, "norm", "tensor", "value"])
def test_norms_and_clip_rate_are_those_of_the_single_steps(loss, clip):
    """The same steps by hand; gradients() is without the penalty, which the norms have."""
    x, y = samples()
    lam, limits = 0.05, {"norm": 0.55, "tensor": 0.35, "value": 0.18}
    clips = {
        None: None,
        "norm": fn.ClipNorm(limits["norm"]),
        "tensor": fn.ClipNorm(limits["tensor"], scope="tensor"),
        "value": fn.ClipValue(-limits["value"], limits["value"]),
    }
    settings = {"optimizer": fn.SGD(0.3), "clip": clips[clip], "regularizer": fn.L2(lam), "batch_size": 10}
    diagnostics = fn.Diagnostics()
    fn.Trainer(make_net(), loss, **settings).fit(x, y, epochs=2, shuffle=False, verbose=0, callbacks=[diagnostics])

    net = make_net()
    trainer = fn.Trainer(net, loss, **settings)
    views, weights = net.gradients(), net.parameters(trainable=True)
    names = list(views)
    assert "1.gamma" in names
    assert "4.weight" not in names
    norms, clipped = np.zeros((2, 9, len(names))), np.zeros((2, 9))
    for epoch in range(2):
        for step in range(9):
            rows = slice(10 * step, 10 * step + 10)
            before = {name: value.copy() for name, value in weights.items()}
            trainer.train_step(x[rows], y[rows])
            total = [views[n] + (2 * lam * before[n] if n.endswith("weight") else 0) for n in names]
            norms[epoch, step] = [np.linalg.norm(g) for g in total]
            clipped[epoch, step] = {
                None: False,
                "norm": np.linalg.norm(norms[epoch, step]) > limits["norm"],
                "tensor": norms[epoch, step].max() > limits["tensor"],
                "value": max(np.abs(g).max() for g in total) > limits["value"],
            }[clip]
    expected = norms.mean(axis=1)
    assert expected.min() > 1e-9 or expected[:, names.index("0.bias")].max() < 1e-9  # before BatchNorm it is 0
    for i, name in enumerate(names):
        np.testing.assert_allclose(diagnostics.history[f"gradient_norm.{name}"], expected[:, i], rtol=1e-9, atol=1e-14)
    if clip is not None:
        assert 0 < clipped.mean() < 1
    np.testing.assert_allclose(diagnostics.history["clip_rate"], clipped.mean(axis=1), rtol=1e-12)
    assert diagnostics.history["epoch"] == [0.0, 1.0]
    assert {type(value) for column in diagnostics.history.values() for value in column} == {float}


def test_dead_and_saturated_units_are_those_of_diagnose():
    x, y = samples("float32")
    x *= 6
    net = fn.Sequential([fn.Dense(12, "tanh"), fn.Dense(9), fn.ReLU(), fn.Dense(3)], input_size=INPUTS, seed=0)
    net.parameters()["1.bias"][:4] = -30
    diagnostics = fn.Diagnostics()
    fn.Trainer(net, optimizer=fn.SGD(1e-3), batch_size=30).fit(x, y, epochs=3, verbose=0, callbacks=[diagnostics])
    records = fn.diagnose(net, x, y).layers
    assert 0 < records[0].saturated < 1
    assert 0 < records[2].dead < 1
    for place in (0, 2):
        assert diagnostics.history[f"dead.{place}"][-1] == records[place].dead
        assert diagnostics.history[f"saturated.{place}"][-1] == records[place].saturated
        assert len(diagnostics.history[f"dead.{place}"]) == 3
    assert "dead.1" not in diagnostics.history


def test_other_rows_than_those_trained_on():
    x, y = samples("float32")
    net = fn.Sequential([fn.Dense(12, "relu"), fn.Dense(3)], input_size=INPUTS, seed=0)
    diagnostics = fn.Diagnostics(x=np.zeros((5, INPUTS)))
    fn.Trainer(net, optimizer=fn.SGD(0.1), batch_size=30).fit(x, y, epochs=1, verbose=0, callbacks=[diagnostics])
    dead = np.mean(net.parameters()["0.bias"] <= 0)
    assert 0 < dead < 1
    assert diagnostics.history["dead.0"] == [dead]
    with pytest.raises(ValueError, match="x of Diagnostics has 2 features"):
        fn.Trainer(net, batch_size=30).fit(x, y, epochs=1, verbose=0, callbacks=[fn.Diagnostics(x[:, :2])])


# ---- the training does not notice ----

SETTINGS = {
    "SGD": {"optimizer": fn.SGD(0.1)},
    "momentum, L1, clip by value": {
        "optimizer": fn.SGD(0.1, momentum=0.9),
        "regularizer": fn.L1(1e-3),
        "clip": fn.ClipValue(-0.01, 0.01),
    },
    "Adam, clip by norm": {"optimizer": fn.Adam(0.01), "clip": fn.ClipNorm(0.1)},
    "proximal": {"optimizer": fn.RMSprop(0.01), "regularizer": fn.L1(1e-3, proximal=True)},
    "micro-batches": {"optimizer": fn.AdamW(0.01), "micro_batch": 7},
    "own loss": {"loss": own_cross_entropy, "optimizer": fn.SGD(0.1)},
    "two threads": {"optimizer": fn.Adam(0.01), "n_threads": 2},
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_same_bits_with_it_and_without(settings):
    x, y = samples("float32")

    def trained(callbacks):
        net = make_net("float32", dropout=0.3)
        trainer = fn.Trainer(net, batch_size=20, **SETTINGS[settings])
        history = trainer.fit(x, y, epochs=3, verbose=0, validation_split=0.2, callbacks=callbacks)
        return bits(net), [history["loss"], history["val_loss"]]

    diagnostics = fn.Diagnostics()
    assert trained([diagnostics]) == trained([])
    assert min(diagnostics.history["gradient_norm.5.weight"]) > 0


def test_resumed_fits_may_have_it_or_not(tmp_path):
    x, y = samples("float32")

    def fit(folder, epochs, callbacks, resume=False):
        net = make_net("float32", dropout=0.3)
        trainer = fn.Trainer(net, batch_size=20)
        if resume:
            trainer.resume(folder)
        trainer.fit(x, y, epochs=epochs, verbose=0, callbacks=[*callbacks, fn.Checkpoint(folder)])
        return bits(net)

    whole = fit(tmp_path / "whole", 4, [])
    first, second = fn.Diagnostics(), fn.Diagnostics()
    fit(tmp_path / "cut", 2, [first])
    assert fit(tmp_path / "cut", 4, [second], resume=True) == whole
    assert (first.history["epoch"], second.history["epoch"]) == ([0.0, 1.0], [2.0, 3.0])


def test_epochs_without_a_step_have_no_norm(tmp_path):
    x, y = samples("float32")
    weights = np.ones(ROWS)
    weights[60:] = 0  # the last of three batches is skipped
    settings = {"epochs": 1, "verbose": 0, "shuffle": False, "sample_weight": weights}
    fn.Trainer(make_net("float32"), batch_size=30).fit(
        x, y, callbacks=[fn.Checkpoint(tmp_path, every_steps=2, keep_last=9)], **settings
    )
    diagnostics = fn.Diagnostics()
    resumed = fn.Trainer(make_net("float32"), batch_size=30)
    resumed.resume(tmp_path / "step-000000000002.safetensors")
    resumed.fit(x, y, callbacks=[diagnostics], **settings)
    assert diagnostics.history["epoch"] == [0.0]
    assert np.isnan(diagnostics.history["clip_rate"]).all()
    assert np.isnan(diagnostics.history["gradient_norm.0.weight"]).all()
    assert np.isfinite(diagnostics.history["dead.2"]).all()


@pytest.mark.filterwarnings("ignore:Training interrupted")
@pytest.mark.parametrize("error", [None, fn.DivergenceError, KeyboardInterrupt, ZeroDivisionError])
def test_measuring_ends_with_the_fit(error):
    x, y = samples("float32")
    net = make_net("float32")
    seen = []

    def strike(epoch, logs):
        seen.append(net._engine.measure)
        if error is fn.DivergenceError:
            net.parameters()["6.weight"][...] = np.inf
        elif error is not None:
            raise error

    trainer = fn.Trainer(net, batch_size=20)
    callbacks = [fn.Diagnostics(), strike]
    if error is None:
        trainer.fit(x, y, epochs=2, verbose=0, callbacks=callbacks)
    else:
        with pytest.raises(error):
            trainer.fit(x, y, epochs=2, verbose=0, callbacks=callbacks)
    assert seen
    assert all(seen)
    assert net._engine.measure is False


def test_one_is_enough():
    x, y = samples("float32")
    net = make_net("float32")
    with pytest.raises(ValueError, match="one Diagnostics callback"):
        fn.Trainer(net, batch_size=30).fit(x, y, epochs=1, verbose=0, callbacks=[fn.Diagnostics(), fn.Diagnostics()])
    assert net._engine.measure is False
