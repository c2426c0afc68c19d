"""Training: against the oracle step by step, and the rules of fit."""

import signal
import threading
import weakref

import numpy as np
import pytest
import reference
from test_layers import oracle_layers

import fastnn as fn
from fastnn import _core, schedules

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(37, 5))
LABELS = RANDOM.integers(0, 3, 37)
VALUES = RANDOM.normal(size=(37, 3))


def build(*layers, seed=0, dtype="float64"):
    layers = layers or (fn.Dense(8), fn.BatchNorm(), fn.Tanh(), fn.Dense(3))
    return fn.Sequential(list(layers), 5, dtype=dtype, seed=seed)


def snapshot(net):
    return {name: np.array(view, dtype=np.float64) for name, view in net.parameters().items()}


def assert_parameters(net, expected, tolerance=1e-10):
    for name, view in net.parameters().items():
        np.testing.assert_allclose(view, expected[name], rtol=0, atol=tolerance * (1 + np.abs(expected[name]).max()))


def assert_same_bits(net, other):
    for name, view in net.parameters().items():
        np.testing.assert_array_equal(view, other.parameters()[name], err_msg=name)


def oracle_fit(net, optimizer, y, loss, epochs, batch_size, shuffle=True, weights=None, **arguments):
    """Parameters and losses of the epochs by the oracle, in the order that the net's seed gives."""
    layers, parameters, losses, passes = oracle_layers(net), snapshot(net), [], 0
    for epoch in range(epochs):
        order = _core.permutation(len(X), net.seed, epoch) if shuffle else np.arange(len(X))
        total = total_weight = 0.0
        for start in range(0, len(X), batch_size):
            rows = order[start : start + batch_size]
            masks = reference.dropout_masks(layers, 5, len(rows), net.seed, passes)
            w = None if weights is None else weights[rows]
            value, parameters = reference.train_step(
                layers, parameters, optimizer, X[rows], y[rows], loss, sample_weight=w, masks=masks, **arguments
            )
            passes += 1
            weight = len(rows) if w is None else w.sum()
            total, total_weight = total + value * weight, total_weight + weight
        losses.append(total / total_weight)
    return parameters, losses


# ---- against the oracle ----

OPTIMIZERS = {
    "sgd": (fn.SGD(0.1), ("sgd", {"learning_rate": 0.1})),
    "momentum": (fn.SGD(0.1, 0.9), ("sgd", {"learning_rate": 0.1, "momentum": 0.9})),
    "nesterov": (fn.SGD(0.1, 0.9, True), ("sgd", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True})),
    "rmsprop": (fn.RMSprop(1e-3), ("rmsprop", {"learning_rate": 1e-3, "eps": 1e-8})),
    "adam": (fn.Adam(1e-2), ("adam", {"learning_rate": 1e-2, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8})),
    "adam decay": (
        fn.Adam(1e-2, weight_decay=0.1),
        ("adam", {"learning_rate": 1e-2, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1}),
    ),
    "adamw": (
        fn.AdamW(1e-2, weight_decay=0.1),
        ("adamw", {"learning_rate": 1e-2, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decoupled_decay": 0.1}),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fit_is_the_oracle_for_every_optimizer(name):
    optimizer, (kind, fields) = OPTIMIZERS[name]
    # The gradient of a bias before BatchNorm is rounding noise around 0, which Adam would blow up to steps of lr.
    net = build(fn.Dense(8, use_bias=False), fn.BatchNorm(), fn.Tanh(), fn.Dropout(0.25), fn.Dense(3), seed=3)
    expected, losses = oracle_fit(net, reference.Optimizer(kind, **fields), LABELS, "cross_entropy", 4, 8)
    history = fn.Trainer(net, optimizer=optimizer, batch_size=8).fit(X, LABELS, epochs=4, verbose=0)
    assert_parameters(net, expected)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-11)


LOSSES = {
    "cross_entropy": (fn.losses.CrossEntropy(0.1), LABELS, 0.1),
    "binary_cross_entropy": ("binary_cross_entropy", (VALUES > 0).astype(float), None),
    "mse": ("mse", VALUES, None),
    "mae": ("mae", VALUES, None),
    "huber": (fn.losses.Huber(0.7), VALUES, 0.7),
    "poisson": ("poisson", np.floor(np.exp(VALUES)), None),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_fit_is_the_oracle_for_every_loss(name, weighted):
    loss, y, parameter = LOSSES[name]
    weights = RANDOM.uniform(0, 3, 37) if weighted else None
    net = build(fn.Dense(8), fn.Tanh(), fn.Dense(3))
    optimizer = reference.Optimizer("sgd", learning_rate=0.05)
    expected, losses = oracle_fit(net, optimizer, y, name, 3, 10, weights=weights, loss_parameter=parameter)
    trainer = fn.Trainer(net, loss=loss, optimizer=fn.SGD(0.05), batch_size=10)
    history = trainer.fit(X, y, epochs=3, sample_weight=weights, verbose=0)
    assert_parameters(net, expected)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-11)


@pytest.mark.parametrize(
    ("regularizer", "pair"),
    [(fn.L1(0.03), (0.03, 0)), (fn.L2(0.03), (0, 0.03)), (fn.ElasticNet(0.03, 2), (0.03, 0.06))],
    ids=repr,
)
def test_penalties_join_gradient_and_history(regularizer, pair):
    net = build()
    optimizer = reference.Optimizer("sgd", learning_rate=0.05)
    expected, _ = oracle_fit(net, optimizer, LABELS, "cross_entropy", 3, 10, regularizer=pair)
    trainer = fn.Trainer(net, optimizer=fn.SGD(0.05), regularizer=regularizer, batch_size=10)
    history = trainer.fit(X, LABELS, epochs=3, verbose=0)
    assert_parameters(net, expected)
    assert history["penalty"][-1] == pytest.approx(reference.net_penalty(snapshot(net), pair), rel=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_proximal_l1_thresholds_after_the_update(name):
    optimizer, (kind, fields) = OPTIMIZERS[name]
    net = build(fn.Dense(8), fn.Tanh(), fn.Dense(3))
    oracle = reference.Optimizer(kind, **fields)
    expected, _ = oracle_fit(net, oracle, LABELS, "cross_entropy", 10, 10, proximal=0.05)
    trainer = fn.Trainer(net, optimizer=optimizer, regularizer=fn.L1(0.05, proximal=True), batch_size=10)
    history = trainer.fit(X, LABELS, epochs=10, verbose=0)
    assert_parameters(net, expected)
    weights = [view for place, view in net.parameters().items() if place.endswith("weight")]
    assert history["penalty"][-1] == pytest.approx(0.05 * sum(np.abs(w).sum() for w in weights), rel=1e-12)
    if name not in ("rmsprop", "adam", "adam decay", "adamw"):  # too few steps for exact zeros
        assert any((w == 0).any() for w in weights)


@pytest.mark.parametrize(
    "optimizer", [fn.SGD(0.1), fn.SGD(0.02, 0.9), fn.SGD(0.02, 0.9, True), fn.Adam(0.01)], ids=repr
)
def test_proximal_l1_finds_the_optimum_of_ista(optimizer):
    random = np.random.default_rng(5)
    x, true = random.normal(size=(200, 12)), np.array([2.0, -1, 0.5] + [0] * 9)
    y, lam = x @ true + 0.1 * random.normal(size=200), 0.2
    w = np.zeros(12)
    for _ in range(5000):
        gradient = 2 * x.T @ (x @ w - y) / 200
        w = reference.soft_threshold(w - 0.1 * gradient, 0.1 * lam)
    net = fn.Sequential([fn.Dense(1, use_bias=False)], 12, dtype="float64")
    trainer = fn.Trainer(net, loss="mse", optimizer=optimizer, regularizer=fn.L1(lam, proximal=True), batch_size="full")
    trainer.fit(x, y, epochs=4000, verbose=0)
    found = net.parameters()["0.weight"][:, 0]
    np.testing.assert_allclose(found, w, atol=1e-6)
    np.testing.assert_array_equal(found == 0, w == 0)
    assert (w == 0).sum() >= 5


def test_a_layer_keeps_its_own_penalty():
    net = build(fn.Dense(4, regularizer=fn.L2(0.0)), fn.Dense(3))
    history = fn.Trainer(net, regularizer=fn.L2(0.5), batch_size=37).fit(X, LABELS, epochs=1, verbose=0)
    assert history["penalty"][0] == pytest.approx(0.5 * (net.parameters()["1.weight"] ** 2).sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("clip", "rule"),
    [
        (fn.ClipValue(-0.01, 0.03), lambda g: reference.clip_value(g, -0.01, 0.03)),
        (fn.ClipNorm(0.05), lambda g: reference.clip_norm(g, 0.05)),
        (fn.ClipNorm(0.05, scope="tensor"), lambda g: reference.clip_norm(g, 0.05, "tensor")),
    ],
    ids=repr,
)
def test_clipping_comes_after_the_penalty(clip, rule):
    net = build()
    optimizer = reference.Optimizer("sgd", learning_rate=0.5, momentum=0.5)
    expected, _ = oracle_fit(net, optimizer, LABELS, "cross_entropy", 2, 10, regularizer=(0, 0.1), clip=rule)
    trainer = fn.Trainer(net, optimizer=fn.SGD(0.5, 0.5), regularizer=fn.L2(0.1), clip=clip, batch_size=10)
    trainer.fit(X, LABELS, epochs=2, verbose=0)
    assert_parameters(net, expected)


def test_frozen_layers_do_not_change():
    net = build(fn.Dense(8, trainable=False), fn.BatchNorm(trainable=False), fn.Tanh(), fn.Dense(3))
    net.parameters()["1.running_mean"][...] = 0.3
    before = snapshot(net)
    expected, _ = oracle_fit(net, reference.Optimizer("sgd", learning_rate=0.1), LABELS, "cross_entropy", 2, 1)
    fn.Trainer(net, optimizer=fn.SGD(0.1), batch_size=1).fit(X, LABELS, epochs=2, verbose=0)
    assert_parameters(net, expected)
    for name in ("0.weight", "0.bias", "1.gamma", "1.beta", "1.running_mean", "1.running_var"):
        np.testing.assert_array_equal(net.parameters()[name], before[name])


# ---- equivalences ----


def test_a_weight_is_a_repetition():
    counts = RANDOM.integers(0, 4, 37)
    weighted, repeated = build(fn.Dense(3)), build(fn.Dense(3))
    options = {"optimizer": fn.SGD(0.5), "batch_size": "full"}
    fn.Trainer(weighted, **options).fit(X, LABELS, epochs=5, sample_weight=counts, verbose=0)
    fn.Trainer(repeated, **options).fit(np.repeat(X, counts, 0), np.repeat(LABELS, counts), epochs=5, verbose=0)
    assert_parameters(weighted, snapshot(repeated), 1e-13)


def test_class_weight_multiplies_sample_weight():
    first, second = build(), build()
    sample_weight = RANDOM.uniform(0.5, 2, 37)
    fn.Trainer(first, batch_size=10).fit(
        X, LABELS, epochs=2, verbose=0, sample_weight=sample_weight, class_weight={0: 3.0, 2: 0.5}
    )
    factors = np.array([3.0, 1.0, 0.5])[LABELS]
    fn.Trainer(second, batch_size=10).fit(X, LABELS, epochs=2, verbose=0, sample_weight=sample_weight * factors)
    assert_same_bits(first, second)


def test_a_batch_of_weight_zero_is_skipped():
    weights = np.ones(37)
    weights[10:20] = 0
    net, other = build(fn.Dense(3)), build(fn.Dense(3))
    optimizer = fn.SGD(schedules.exponential(0.5, 0.5))
    fn.Trainer(net, optimizer=optimizer, batch_size=10).fit(
        X, LABELS, epochs=1, sample_weight=weights, shuffle=False, verbose=0
    )
    expected = snapshot(other)
    layers = oracle_layers(other)
    for batch in (0, 2, 3):  # the schedule goes on all the same
        rows = slice(10 * batch, 10 * batch + 10)
        oracle = reference.Optimizer("sgd", learning_rate=0.5 * 0.5**batch)
        _, expected = reference.train_step(layers, expected, oracle, X[rows], LABELS[rows], "cross_entropy", masks={})
    assert_parameters(net, expected)


def test_metrics_leave_out_skipped_batches():
    weights = np.ones(37)
    weights[10:20] = 0
    seen = []

    def spy(y_true, y_pred):
        seen.append((len(y_true), y_pred))
        return 0.0

    trainer = fn.Trainer(build(fn.Dense(3)), metrics=(spy,), batch_size=10)
    trainer.fit(X, LABELS, epochs=1, sample_weight=weights, shuffle=False, verbose=0)
    ((rows, probabilities),) = seen
    assert rows == len(probabilities) == 27
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def own_cross_entropy(y_pred, y, sample_weight=None):
    value, gradient = reference.loss_value_and_gradient(y_pred, y, "cross_entropy", sample_weight)
    return value, gradient


@pytest.mark.parametrize("weighted", [False, True])
def test_an_own_loss_is_the_built_in_one(weighted):
    weights = RANDOM.uniform(0, 2, 37) if weighted else None
    nets = [build(fn.Dense(8, use_bias=False), fn.BatchNorm(), fn.Dropout(0.3), fn.Dense(3)) for _ in range(2)]
    histories = []
    for net, loss in zip(nets, ("cross_entropy", own_cross_entropy), strict=True):
        trainer = fn.Trainer(net, loss=loss, clip=fn.ClipNorm(0.1), metrics=("accuracy",), batch_size=8)
        histories.append(
            trainer.fit(X, LABELS, epochs=3, verbose=0, sample_weight=weights, validation_data=(X, LABELS))
        )
    assert_parameters(nets[1], snapshot(nets[0]), 1e-11)
    for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
        np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=1e-10)


def test_an_own_loss_must_give_a_gradient_of_the_right_shape():
    def loss(y_pred, y):
        return 0.0, np.zeros(3)

    with pytest.raises(ValueError, match=r"loss loss gave a gradient of shape \(3,\), expected \(37, 3\)"):
        fn.Trainer(build(), loss=loss, batch_size="full").fit(X, LABELS, epochs=1, verbose=0)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, r"must return \(mean loss, gradient\), got None"),
        (0.5, r"must return \(mean loss, gradient\), got 0\.5"),
        ((np.ones(37), np.ones((37, 3))), "one number as its mean loss, got array"),
        (("0.5", np.ones((37, 3))), "one number as its mean loss, got '0.5'"),
        ((0.5, None), "gradient of dtype object"),
        ((0.5, np.ones((37, 3), complex)), "gradient of dtype complex128"),
    ],
)
def test_an_own_loss_must_give_a_number_and_an_array(result, message):
    trainer = fn.Trainer(build(), loss=lambda y_pred, y: result)
    with pytest.raises(TypeError, match=message):
        trainer.train_step(X, LABELS)


def test_an_own_loss_is_known_by_its_positional_parameters():
    def takes_weights(function):
        return fn.Trainer(build(), loss=function).loss.takes_weights

    assert takes_weights(lambda y_pred, y, w: None)
    assert takes_weights(lambda y_pred, y, *, sample_weight=None: None)
    assert not takes_weights(lambda y_pred, y, *, scale: None)
    assert not takes_weights(lambda y_pred, y, delta=1.0: None)
    assert not takes_weights(lambda *arguments: None)
    with pytest.raises(TypeError, match="loss max has no signature to read"):
        fn.Trainer(build(), loss=max)
    for function in (lambda y_pred: None, lambda y_pred, y, w, more: None):
        with pytest.raises(TypeError, match=r"an own loss is f\(y_pred, y\) or f\(y_pred, y, sample_weight\), got"):
            fn.Trainer(build(), loss=function)


def test_sample_weight_is_found_by_name():
    def loss(y_pred, y, scale=2.0, sample_weight=None):
        value, gradient = own_cross_entropy(y_pred, y, sample_weight)
        return scale * value, scale * gradient

    trainers = [fn.Trainer(build(), loss=chosen) for chosen in (loss, own_cross_entropy)]
    doubled, plain = (trainer.train_step(X, LABELS, np.arange(37)) for trainer in trainers)
    assert doubled == 2 * plain


def test_a_skipped_batch_of_an_own_loss_keeps_its_place_in_the_stream_of_masks():
    weights = np.ones(37)
    weights[10:20] = 0
    nets = [build(fn.Dense(8, "tanh"), fn.Dropout(0.5), fn.Dense(3)) for _ in range(2)]
    for net, loss in zip(nets, ("cross_entropy", own_cross_entropy), strict=True):
        fn.Trainer(net, loss=loss, batch_size=10).fit(
            X, LABELS, epochs=2, sample_weight=weights, shuffle=False, verbose=0
        )
    assert nets[0]._engine.passes == nets[1]._engine.passes == 8
    assert_parameters(nets[1], snapshot(nets[0]), 1e-11)


def test_own_loops_are_fit():
    options = {"optimizer": fn.Adam(schedules.cosine(1e-2, 8)), "clip": fn.ClipNorm(0.5), "regularizer": fn.L2(1e-3)}
    layers = (fn.Dense(8, use_bias=False), fn.BatchNorm(), fn.Tanh(), fn.Dropout(0.5), fn.Dense(3))
    nets = [build(*layers) for _ in range(3)]
    trainers = [fn.Trainer(net, batch_size=10, **options) for net in nets]
    history = trainers[0].fit(X, LABELS, epochs=2, shuffle=False, verbose=0)
    losses = []
    for _ in range(2):
        for start in range(0, 37, 10):
            rows = slice(start, start + 10)
            losses.append(trainers[1].train_step(X[rows], LABELS[rows]))
            outputs = nets[2].forward(X[rows])
            _, gradient = own_cross_entropy(outputs, LABELS[rows])
            nets[2].backward(gradient)
            assert trainers[2].apply_gradients() > 0
    assert_same_bits(nets[1], nets[0])
    assert_parameters(nets[2], snapshot(nets[0]), 1e-10)
    assert np.average(losses[:4], weights=[10, 10, 10, 7]) == pytest.approx(history["loss"][0], rel=1e-12)


def test_backward_gives_the_gradient_of_the_input():
    net = build(fn.Dense(8, "tanh"), fn.Dense(3))
    layers, parameters = oracle_layers(net), snapshot(net)
    gradient = RANDOM.normal(size=(37, 3))
    result = reference.forward(layers, parameters, X, training=True)
    expected, dx = reference.backward(layers, parameters, result, gradient, training=True)
    np.testing.assert_allclose(net.forward(X), result.output, rtol=1e-12)
    np.testing.assert_allclose(net.backward(gradient), dx, rtol=1e-9, atol=1e-12)
    assert net.gradients().keys() == expected.keys()
    for name, view in net.gradients().items():
        np.testing.assert_allclose(view, expected[name], rtol=1e-9, atol=1e-12)


# ---- the state of a trainer ----


def test_reset_starts_anew():
    net = build(fn.Standardize(), fn.Dense(8), fn.BatchNorm(), fn.Dropout(0.5), fn.Dense(3))
    trainer = fn.Trainer(net, optimizer=fn.Adam(schedules.cosine(1e-2, 30)), batch_size=8)
    first = trainer.fit(X, LABELS, epochs=3, verbose=0)
    after = snapshot(net)
    trainer.lr_factor = 0.1
    trainer.reset()
    assert (net.parameters()["2.running_var"] == 1).all()
    second = trainer.fit(X, LABELS, epochs=3, verbose=0)
    assert second["loss"] == first["loss"]
    for name, view in net.parameters().items():
        np.testing.assert_array_equal(view, after[name])


def test_a_new_trainer_starts_with_fresh_moments():
    net = build()
    fn.Trainer(net, optimizer=fn.SGD(0.1, 0.9), batch_size=8).fit(X, LABELS, epochs=2, verbose=0)
    expected, _ = oracle_fit(
        net, reference.Optimizer("sgd", learning_rate=0.1, momentum=0.9), LABELS, "cross_entropy", 2, 8
    )
    fn.Trainer(net, optimizer=fn.SGD(0.1, 0.9), batch_size=8).fit(X, LABELS, epochs=2, verbose=0)
    assert_parameters(net, expected)


def test_two_trainers_of_one_net_keep_their_own_settings():
    net = build(fn.Dense(3, init="zeros"))
    slow, fast = fn.Trainer(net, optimizer=fn.SGD(0.001)), fn.Trainer(net, optimizer=fn.SGD(1.0))
    steps = []
    for trainer in (slow, fast, slow):
        before = snapshot(net)["0.weight"]
        trainer.train_step(X, LABELS)
        steps.append(np.abs(snapshot(net)["0.weight"] - before).max())
    assert steps[1] > 100 * steps[0] > 0
    assert steps[1] > 100 * steps[2] > 0


def test_shuffling_follows_the_seed():
    def losses(seed, shuffle=True):
        net = build(seed=seed)
        for name, view in net.parameters().items():
            view[...] = START[name]
        return fn.Trainer(net, batch_size=8).fit(X, LABELS, epochs=2, shuffle=shuffle, verbose=0)["loss"]

    START = snapshot(build())
    assert losses(1) == losses(1)
    assert losses(1) != losses(2)
    assert losses(1, shuffle=False) == losses(2, shuffle=False)


def test_full_batch_is_one_step_per_epoch():
    trainer = fn.Trainer(build(), optimizer=fn.SGD(lambda step: 1.0 / (1 + step)), batch_size="full")
    history = trainer.fit(X, LABELS, epochs=4, verbose=0)
    np.testing.assert_allclose(history["lr"], [1, 1 / 2, 1 / 3, 1 / 4])


def test_a_gradient_is_applied_once():
    net = build(fn.Dense(3))
    trainer = fn.Trainer(net)
    with pytest.raises(ValueError, match=r"apply_gradients needs a net\.backward"):
        trainer.apply_gradients()
    net.forward(X)
    net.backward(np.ones((37, 3)))
    trainer.apply_gradients()
    with pytest.raises(ValueError, match=r"apply_gradients needs a net\.backward"):
        trainer.apply_gradients()
    net.forward(X)
    net.backward(np.ones((37, 3)))
    trainer.reset()
    with pytest.raises(ValueError, match=r"apply_gradients needs a net\.backward"):
        trainer.apply_gradients()


def test_a_trainer_gives_its_net_no_probabilities_before_it_trains():
    net = build(fn.Dense(3))
    trainer = fn.Trainer(net)
    with pytest.raises(ValueError, match="predict_proba needs"):
        net.predict_proba(X)
    trainer.train_step(X, LABELS)
    np.testing.assert_allclose(net.predict_proba(X).sum(axis=1), 1)


def test_a_trainer_shows_its_settings():
    shown = repr(fn.Trainer(build(fn.Dense(3)), clip=fn.ClipNorm(1.0), metrics=("accuracy",)))
    assert shown == (
        "Trainer(Sequential([Dense(3)], input_size=5, dtype='float64', seed=0), loss=CrossEntropy(), "
        "optimizer=Adam(), clip=ClipNorm(1.0), batch_size=128, metrics=('accuracy',))"
    )


# ---- validation ----


def test_validation_is_in_evaluation_mode_without_penalty():
    net = build(fn.Dense(8), fn.BatchNorm(), fn.Dropout(0.5), fn.Dense(3))
    trainer = fn.Trainer(net, regularizer=fn.L2(1.0), metrics=("accuracy",), batch_size=8)
    weights = RANDOM.uniform(0, 1, 37)
    history = trainer.fit(X, LABELS, epochs=2, validation_data=(X, LABELS, weights), verbose=0)
    scores = net.evaluate(X, LABELS, sample_weight=weights)
    assert history["val_loss"][-1] == scores["loss"]
    assert history["val_accuracy"][-1] == scores["accuracy"]
    rows = reference.loss_value_and_gradient(net.predict(X), LABELS, "cross_entropy", weights)[0]
    assert scores["loss"] == pytest.approx(rows, rel=1e-12)


def test_validation_split_takes_the_last_rows():
    split, given = build(), build()
    weights = RANDOM.uniform(0.5, 2, 37)
    first = fn.Trainer(split, batch_size=8).fit(
        X, LABELS, epochs=2, validation_split=0.2, sample_weight=weights, verbose=0
    )
    held_out = (X[30:], LABELS[30:], weights[30:])
    second = fn.Trainer(given, batch_size=8).fit(
        X[:30], LABELS[:30], epochs=2, sample_weight=weights[:30], validation_data=held_out, verbose=0
    )
    assert_same_bits(split, given)
    assert first["val_loss"] == second["val_loss"]


# ---- Standardize ----


def test_standardize_learns_from_the_training_rows_of_the_first_fit():
    x = X * [1, 10, 100, 1e-3, 0] + [0, 5, -1e3, 0, 0.1]
    weights = RANDOM.uniform(0, 2, 37)
    net = build(fn.Standardize(), fn.Dense(3))
    trainer = fn.Trainer(net, batch_size=8)
    trainer.fit(x, LABELS, epochs=1, sample_weight=weights, class_weight="balanced", validation_split=0.2, verbose=0)
    mean = np.average(x[:30], axis=0, weights=weights[:30])
    scale = np.sqrt(np.average((x[:30] - mean) ** 2, axis=0, weights=weights[:30]))
    scale[4] = 1
    np.testing.assert_allclose(net.parameters()["0.mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(net.parameters()["0.scale"], scale, rtol=1e-12)
    before = snapshot(net)["0.mean"]
    trainer.fit(2 * x, LABELS, epochs=1, verbose=0)
    np.testing.assert_array_equal(net.parameters()["0.mean"], before)


def test_a_fit_that_is_refused_sets_no_statistics():
    net = build(fn.Standardize(), fn.Dense(3))
    with pytest.raises(ValueError, match="monitors"):
        fn.Trainer(net, batch_size=8).fit(X, LABELS, verbose=0, callbacks=[fn.EarlyStopping()])
    assert not net.parameters()["0.scale"].any()


def test_one_batch_sets_no_statistics():
    net = build(fn.Standardize(), fn.Dense(3))
    trainer = fn.Trainer(net, batch_size=8)
    with pytest.raises(ValueError, match=r"Standardize\(\) has no statistics yet"):
        trainer.train_step(X, LABELS)
    trainer.fit(X, LABELS, epochs=1, verbose=0)
    trainer.train_step(X, LABELS)


def test_given_statistics_are_kept():
    net = build(fn.Standardize([1, 2, 3, 4, 5], 2.0), fn.Dense(3))
    trainer = fn.Trainer(net, batch_size=8)
    trainer.fit(X, LABELS, epochs=1, verbose=0)
    trainer.reset()
    np.testing.assert_array_equal(net.parameters()["0.mean"], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(net.parameters()["0.scale"], 2)


# ---- schedules ----


def test_schedules_follow_their_formulas():
    steps = np.arange(12)
    np.testing.assert_allclose(schedules.constant(0.1)(steps), 0.1)
    np.testing.assert_allclose(schedules.step(1.0, 5, 0.5)(steps), 0.5 ** (steps // 5))
    np.testing.assert_allclose(schedules.exponential(1.0, 0.9, 2)(steps), 0.9 ** (steps / 2))
    expected = 0.1 + 0.9 * (1 + np.cos(np.pi * np.minimum(steps / 8, 1))) / 2
    np.testing.assert_allclose(schedules.cosine(1.0, 8, 0.1)(steps), expected)
    expected = np.where(steps < 4, (steps + 1) / 4, 0.5 ** ((steps - 4) // 2))
    np.testing.assert_allclose(schedules.warmup(4, schedules.step(1.0, 2, 0.5))(steps), expected)
    np.testing.assert_allclose(schedules.warmup(4, 2.0)(steps), np.minimum((steps + 1) / 2, 2))
    assert schedules.cosine(1.0, 8)(4) == pytest.approx(0.5)


def test_schedules_per_epoch_convert():
    trainer = fn.Trainer(build(), optimizer=fn.SGD(schedules.step(1.0, 2, 0.1, per="epoch")), batch_size=8)
    np.testing.assert_allclose(trainer.fit(X, LABELS, epochs=5, verbose=0)["lr"], [1, 1, 0.1, 0.1, 0.01])
    for made in (
        schedules.exponential(1.0, 0.5, per="epoch"),
        schedules.cosine(1.0, 3, per="epoch"),
        schedules.one_cycle(1.0, 3, per="epoch"),
        schedules.warmup(1, schedules.cosine(1.0, 3, per="epoch"), per="epoch"),
    ):
        in_steps = {k: v * 7 if k in ("every", "length") else v for k, v in made._values().items() if k != "per"}
        if "then" in in_steps:
            in_steps["then"] = schedules.cosine(1.0, 21)
        np.testing.assert_allclose(made(np.arange(30), 7), type(made)(**in_steps)(np.arange(30)))


def test_epochs_go_on_counting_when_their_length_changes():
    trainer = fn.Trainer(build(), optimizer=fn.SGD(schedules.step(1.0, 2, 0.1, per="epoch")), batch_size=8)
    rates = []
    for rows in (37, 10, 24):  # 5, 2 and 3 batches
        rates += trainer.fit(X[:rows], LABELS[:rows], epochs=3, verbose=0)["lr"]
    np.testing.assert_allclose(rates, 0.1 ** (np.arange(9) // 2))
    trainer.reset()
    assert trainer.fit(X, LABELS, epochs=1, verbose=0)["lr"] == [1.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.cosine(0, 3), "lr"),
        (lambda: schedules.cosine(1, 0), "length"),
        (lambda: schedules.step(1, 2, per="epochs"), "Did you mean 'epoch'"),
        (lambda: schedules.one_cycle(1, 3, rise=1), "rise"),
        (lambda: schedules.warmup(1, schedules.constant(1.0), per="epoch"), "one unit"),
    ],
)
def test_wrong_schedules(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- stopping and threads ----


def test_request_stop_from_another_thread_ends_within_a_step():
    x, y = RANDOM.normal(size=(2000, 5)), RANDOM.integers(0, 3, 2000)
    trainer = fn.Trainer(build(fn.Dense(256, "tanh"), fn.Dense(3)), batch_size=10)

    def start(epoch, logs):
        if epoch == 0:
            threading.Timer(0.2, trainer.request_stop, ["timer"]).start()

    history = trainer.fit(x, y, epochs=10**6, verbose=0, callbacks=[start])
    assert history.stopped_because == "timer"
    assert not trainer.failed


@pytest.fixture
def answers_ctrl_c():
    """A shell may have started us with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("answers_ctrl_c")
@pytest.mark.parametrize("loss", ["cross_entropy", own_cross_entropy], ids=["built-in", "own"])
def test_ctrl_c_keeps_finished_epochs_and_steps(loss):
    x, y = RANDOM.normal(size=(2000, 5)), RANDOM.integers(0, 3, 2000)
    net = build(fn.Dense(64, "tanh"), fn.Dense(3))
    trainer = fn.Trainer(net, loss=loss, batch_size=10)

    def start(epoch, logs):
        if epoch == 0:
            threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()

    with pytest.warns(UserWarning, match="Training interrupted") as caught, pytest.raises(KeyboardInterrupt):
        trainer.fit(x, y, epochs=10**6, verbose=0, callbacks=[start])
    place = "stopped after epoch {}, batch {}".format(*divmod(trainer._step, 200))
    assert str(caught[0].message) == f"Training interrupted by user: {place}; the net is usable."
    assert caught[0].filename == __file__
    assert trainer.history.stopped_because == f"KeyboardInterrupt: {place}"
    assert trainer.history.epochs == trainer._epoch
    assert trainer._step == net._engine.updates
    assert all(np.isfinite(view).all() for view in net.parameters().values())
    assert trainer.fit(x, y, epochs=1, verbose=0).epochs == 1


def test_ctrl_c_after_the_last_epoch_says_so():
    class Interrupted(fn.Callback):
        def on_fit_end(self):
            raise KeyboardInterrupt

    trainer = fn.Trainer(build(), batch_size=8)
    message = "Training interrupted by user: all 2 epochs finished; the net is usable."
    with pytest.warns(UserWarning, match=message), pytest.raises(KeyboardInterrupt):
        trainer.fit(X, LABELS, epochs=2, verbose=0, callbacks=[Interrupted()])


def test_the_data_are_let_go_of_after_a_fit():
    trainer, x = fn.Trainer(build(), batch_size=8), X.copy()
    trainer.fit(x, LABELS, epochs=1, verbose=0)
    kept = weakref.ref(x)
    del x
    assert kept() is None


def test_one_net_is_trained_by_one_thread():
    trainer = fn.Trainer(build(), batch_size=8)
    errors = []

    def intrude(epoch, logs):
        def attempt(call):
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))

        for call in (lambda: trainer.fit(X, LABELS, epochs=1, verbose=0), lambda: trainer.net.predict(X)):
            thread = threading.Thread(target=attempt, args=(call,))
            thread.start()
            thread.join()

    trainer.fit(X, LABELS, epochs=1, verbose=0, callbacks=[intrude])
    assert len(errors) == 2
    assert all("being trained by another thread" in error for error in errors)


def test_many_threads_predict_on_one_net():
    net, results = build(fn.Dense(64, "relu"), fn.BatchNorm(), fn.Dense(3)), []
    x = RANDOM.normal(size=(500, 5))
    expected = net.predict(x)

    def predict():
        for _ in range(20):
            results.append(np.array_equal(net.predict(x), expected))

    threads = [threading.Thread(target=predict) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 160


def test_the_configured_number_of_threads():
    before = fn.get_num_threads()
    try:
        fn.set_num_threads(3)
        assert fn.get_num_threads() == 3
    finally:
        fn.set_num_threads(None)
    assert fn.get_num_threads() == before


def test_show_config(capsys):
    fn.show_config()
    text = capsys.readouterr().out
    for word in (fn.__version__, _core.isa_name(), _core.compiler(), np.__version__, "threads"):
        assert word in text


def test_a_divergence_under_an_own_loss_names_its_layer():
    net = build(fn.Dense(4, "tanh"), fn.Dense(3))
    trainer = fn.Trainer(net, loss=own_cross_entropy, batch_size=8)
    x, y = RANDOM.normal(size=(16, 5)), RANDOM.integers(0, 3, 16)
    net.parameters()["1.weight"][...] = 1e308
    with np.errstate(all="ignore"), pytest.raises(fn.DivergenceError, match="first in layer 1") as caught:
        trainer.fit(x, y, epochs=1, verbose=0)
    assert caught.value.layer == 1
