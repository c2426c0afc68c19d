"""Techniques of training against independent computations: ISTA, formulas of schedules, whole nets by the oracle.

What fit does step by step for every optimizer, loss, penalty and clipping is in test_trainer.py; callbacks and metrics
have files of their own.
"""

import itertools
import math
import sys

import numpy as np
import pytest
import reference
from test_dropout import run_python
from test_layers import oracle_layers
from test_trainer import LABELS, VALUES, X, assert_parameters, assert_same_bits, build, oracle_fit, snapshot

import fastnn as fn
from fastnn import _core, schedules

# ---- proximal L1 ----

LAMBDA = 0.15


def lasso_problem():
    """Least squares with 12 features of which five matter, correlated and of different scales."""
    random = np.random.default_rng(5)
    x = random.normal(size=(60, 12)) @ (np.eye(12) + 0.3 * random.normal(size=(12, 12)))
    true = np.array([2.0, -1.5, 0.8, 0, 0, 0, 0, 1.0, 0, 0, -0.4, 0])
    return x, x @ true + 0.3 * random.normal(size=60)


def ista(x, y, penalty, steps=20_000):
    """Iterative shrinkage-thresholding (Daubechies et al. 2004) for mean (x w - y)^2 + penalty sum |w|."""
    step = 1 / (2 * np.linalg.norm(x, 2) ** 2 / len(x))
    w = np.zeros(x.shape[1])
    for _ in range(steps):
        w = w - step * 2 * x.T @ (x @ w - y) / len(x)
        w = np.sign(w) * np.maximum(np.abs(w) - step * penalty, 0)
    return w


def fitted_weights(optimizer, regularizer, epochs):
    x, y = lasso_problem()
    net = fn.Sequential([fn.Dense(1, use_bias=False)], 12, dtype="float64", seed=1)
    trainer = fn.Trainer(net, loss="mse", optimizer=optimizer, regularizer=regularizer, batch_size="full")
    trainer.fit(x, y, epochs=epochs, verbose=0)
    return net.parameters()["0.weight"][:, 0].copy()


@pytest.mark.parametrize(
    "optimizer",
    [
        fn.SGD(0.03),
        fn.SGD(0.01, momentum=0.9),
        fn.SGD(0.01, momentum=0.9, nesterov=True),
        fn.Adam(schedules.exponential(0.03, 0.1, 1500)),
        fn.AdamW(schedules.exponential(0.03, 0.1, 1500), weight_decay=0.0),
        fn.RMSprop(schedules.exponential(0.03, 0.1, 1500)),
    ],
    ids=["sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop"],
)
def test_proximal_l1_has_the_zeros_and_the_optimum_of_ista(optimizer):
    expected = ista(*lasso_problem(), LAMBDA)
    assert 2 <= (expected == 0).sum() <= 10
    found = fitted_weights(optimizer, fn.L1(LAMBDA, proximal=True), 8000)
    np.testing.assert_array_equal(found == 0, expected == 0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_only_the_proximal_step_reaches_zero():
    assert (fitted_weights(fn.SGD(0.03), fn.L1(LAMBDA), 8000) != 0).all()
    assert (fitted_weights(fn.SGD(0.03), fn.L1(LAMBDA, proximal=True), 8000) == 0).any()


@pytest.mark.parametrize("optimizer", [fn.SGD(0.1, 0.5), fn.Adam(1e-2)], ids=["momentum", "adam"])
def test_the_proximal_step_is_neither_clipped_nor_in_the_norm(optimizer):
    """A clip that bites, far below the penalty's own gradient: the oracle clips without it and shrinks afterwards."""
    net = build(fn.Dense(8, "tanh"), fn.Dense(3))
    sgd = isinstance(optimizer, fn.SGD)
    fields = {"learning_rate": optimizer.lr, **({"momentum": optimizer.momentum} if sgd else {})}
    oracle = reference.Optimizer("sgd" if sgd else "adam", **fields)
    clipped = []

    def clip(gradients):
        clipped.append(reference.global_norm(gradients) > 0.1)
        return reference.clip_norm(gradients, 0.1)

    expected, _ = oracle_fit(net, oracle, LABELS, "cross_entropy", 3, 10, proximal=0.05, clip=clip)
    penalty = fn.L1(0.05, proximal=True)
    trainer = fn.Trainer(net, optimizer=optimizer, clip=fn.ClipNorm(0.1), regularizer=penalty, batch_size=10)
    trainer.fit(X, LABELS, epochs=3, verbose=0)
    assert sum(clipped) >= 6
    assert_parameters(net, expected, 1e-12)


# ---- clipping ----


def test_clip_value_bounds_differ_by_sign():
    """One big SGD step with learning rate 1 shows the clipped gradient; its elements reach both bounds."""
    net = build(fn.Dense(8, "tanh"), fn.Dense(3))
    before = snapshot(net)
    _, gradients = reference.loss_and_gradients(oracle_layers(net), before, X, LABELS, "cross_entropy")
    trainer = fn.Trainer(net, optimizer=fn.SGD(1.0), clip=fn.ClipValue(-0.02, 0.005), batch_size="full")
    trainer.train_step(X, LABELS)
    steps = {name: before[name] - view for name, view in net.parameters().items()}
    values = np.concatenate([step.ravel() for step in steps.values()])
    assert values.min() == pytest.approx(-0.02)
    assert values.max() == pytest.approx(0.005)
    for name, step in steps.items():
        np.testing.assert_allclose(step, np.clip(gradients[name], -0.02, 0.005), rtol=0, atol=1e-14)


@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_clip_norm_keeps_directions(scope):
    """Only what is longer than v becomes v long: all tensors together, or each on its own."""
    net = build(fn.Dense(8, "tanh"), fn.Dense(3))
    before = snapshot(net)
    _, gradients = reference.loss_and_gradients(oracle_layers(net), before, X, LABELS, "cross_entropy")
    norms = {name: np.linalg.norm(g) for name, g in gradients.items()}
    v = float(np.median(list(norms.values())))
    trainer = fn.Trainer(net, optimizer=fn.SGD(1.0), clip=fn.ClipNorm(v, scope), batch_size="full")
    trainer.train_step(X, LABELS)
    total = math.sqrt(sum(norm**2 for norm in norms.values()))
    for name, view in net.parameters().items():
        factor = v / total if scope == "global" else min(1, v / norms[name])
        np.testing.assert_allclose(before[name] - view, factor * gradients[name], rtol=0, atol=1e-14)
    assert min(norms.values()) < v < max(norms.values())


# ---- the objective of scikit-learn, and measures ----


def descend(net, y, weights, loss_scale, penalty_of, rate=0.1, batch_size=10):
    """Steps of plain descent in order of the rows: parameters afterwards, and every step's penalised gradients.

    penalty_of(weight of the batch): (l1, l2).
    """
    parameters, steps = snapshot(net), []
    for start in range(0, len(X), batch_size):
        rows = slice(start, start + batch_size)
        w = np.ones(len(X))[rows] if weights is None else weights[rows]
        _, gradients = reference.loss_and_gradients(
            oracle_layers(net), parameters, X[rows], y[rows], "mse", sample_weight=w
        )
        gradients = {name: loss_scale * g for name, g in gradients.items()}
        for name in gradients:
            if name.endswith("weight"):
                gradients[name] += reference.penalty_gradient(parameters[name], *penalty_of(w.sum()))
        parameters = {name: p - rate * gradients[name] for name, p in parameters.items()}
        steps.append(gradients)
    return parameters, steps


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("own_loss", [False, True])
@pytest.mark.parametrize("micro_batch", [None, 4])
def test_the_loss_is_scaled_and_the_penalty_divided_by_the_weight_of_the_batch(weighted, own_loss, micro_batch):
    if own_loss and micro_batch:
        pytest.skip("an own loss sees the whole batch")

    def mean_square(y_pred, y, sample_weight):
        w = np.ones(len(y)) if sample_weight is None else sample_weight
        shares = w[:, np.newaxis] / w.sum() / y.shape[1]
        return (shares * (y_pred - y) ** 2).sum(), 2 * shares * (y_pred - y)

    weights = np.random.default_rng(3).uniform(0.5, 2, len(X)) if weighted else None
    net = build(fn.Dense(8, "tanh"), fn.Dense(VALUES.shape[1]))
    expected, _ = descend(net, VALUES, weights, 1.5, lambda weight: (0.2 / weight, 0.1 / weight))
    loss = mean_square if own_loss else "mse"
    penalty = fn.ElasticNet(0.2, 0.5)
    trainer = fn.Trainer(net, loss, fn.SGD(0.1), regularizer=penalty, batch_size=10, micro_batch=micro_batch)
    trainer._objective = 1.5, True
    plain = fn.Trainer(net.copy(), loss, fn.SGD(0.1), regularizer=penalty, batch_size="full")
    first = plain.train_step(X, VALUES, weights)
    history = trainer.fit(X, VALUES, epochs=1, sample_weight=weights, shuffle=False, verbose=0)
    assert_parameters(net, expected, 1e-13)
    assert len(X) % 10, "the last batch is a short one"
    assert history["loss"][0] == pytest.approx(1.5 * first, rel=0.5)
    assert history["penalty"][0] == pytest.approx(
        sum(reference.penalty(net.parameters()[f"{layer}.weight"], 0.2, 0.1) for layer in (0, 1))
    )


CLIPS = {
    "none": (None, lambda norms, values: False),
    "value": (fn.ClipValue(-0.7, 0.85), lambda norms, values: values.min() < -0.7 or values.max() > 0.85),
    "norm": (fn.ClipNorm(2.5), lambda norms, values: np.linalg.norm(norms) > 2.5),
    "tensor": (fn.ClipNorm(1.6, "tensor"), lambda norms, values: max(norms) > 1.6),
}


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("kind", CLIPS)
def test_measures_are_the_norms_and_the_clipped_steps(kind, n_threads):
    """At a rate that moves nothing, so that clipping does not change the steps that follow."""
    clip, is_clipped = CLIPS[kind]
    net = build(fn.Dense(8, "tanh"), fn.Dense(VALUES.shape[1]))
    _, steps = descend(net, VALUES, None, 1, lambda weight: (0.01, 0.02), rate=1e-12, batch_size=4)
    norms = [[np.linalg.norm(gradients[name]) for name in net.gradients()] for gradients in steps]
    values = [np.concatenate([g.ravel() for g in gradients.values()]) for gradients in steps]
    net._engine.measure = True
    trainer = fn.Trainer(net, "mse", fn.SGD(1e-12), clip, fn.ElasticNet(0.01, 2.0), batch_size=4, n_threads=n_threads)
    _core._set_work_per_thread(1)
    try:
        trainer.fit(X, VALUES, epochs=1, shuffle=False, verbose=0)
    finally:
        _core._set_work_per_thread(0)
    count, clipped, means = net._engine.take_measures()
    assert count == len(steps)
    assert clipped == sum(is_clipped(*step) for step in zip(norms, values, strict=True))
    assert kind == "none" or 0 < clipped < count
    np.testing.assert_allclose(means, np.mean(norms, axis=0), rtol=1e-10)
    assert net._engine.take_measures() == (0, 0, [0.0] * len(means))
    net._engine.measure = False
    with pytest.raises(ValueError, match="argument"):
        net._engine.take_measures()


@pytest.mark.parametrize("clip", [None, fn.ClipValue(-0.01, 0.01)])
@pytest.mark.parametrize("optimizer", [fn.SGD(0.1), fn.Adam()])
def test_measuring_changes_no_bit(optimizer, clip):
    nets = [build(dtype="float32"), build(dtype="float32")]
    nets[1]._engine.measure = True
    for net in nets:
        fn.Trainer(net, optimizer=optimizer, clip=clip, batch_size=7).fit(X, LABELS, epochs=3, verbose=0)
    assert_same_bits(*nets)


# ---- batches ----


@pytest.mark.parametrize("optimizer", [fn.SGD(0.3, 0.9), fn.Adam(1e-2)], ids=["momentum", "adam"])
@pytest.mark.parametrize("micro_batch", [1, 4, 36])
def test_micro_batches_are_the_full_batch(micro_batch, optimizer):
    """Penalty, clipping, dropout and weights included; no BatchNorm, which normalises per micro-batch."""
    nets = [build(fn.Dense(8, "tanh"), fn.Dropout(0.3), fn.Dense(3)) for _ in range(2)]
    options = {"optimizer": optimizer, "clip": fn.ClipNorm(0.05), "regularizer": fn.L2(0.01), "batch_size": 20}
    histories = [
        fn.Trainer(net, micro_batch=micro, **options).fit(
            X, LABELS, epochs=5, sample_weight=np.linspace(0, 2, 37), verbose=0
        )
        for net, micro in zip(nets, (None, micro_batch), strict=True)
    ]
    assert_parameters(nets[1], snapshot(nets[0]), 1e-12)
    np.testing.assert_allclose(histories[1]["loss"], histories[0]["loss"], rtol=1e-12)


@pytest.mark.parametrize("normalizes", [True, False])
def test_a_remainder_of_one_row(normalizes):
    """37 rows in batches of 9: with BatchNorm the last row joins the batch before, else it is a batch of its own."""
    middle = [fn.BatchNorm()] if normalizes else []
    net = build(fn.Dense(8), *middle, fn.Tanh(), fn.Dense(3))
    starts = [0, 9, 18, 27, 37] if normalizes else [0, 9, 18, 27, 36, 37]
    layers, expected = oracle_layers(net), snapshot(net)
    optimizer = reference.Optimizer("sgd", learning_rate=0.2)
    order = _core.permutation(37, net.seed, 0)
    for begin, end in itertools.pairwise(starts):
        rows = order[begin:end]
        _, expected = reference.train_step(layers, expected, optimizer, X[rows], LABELS[rows], "cross_entropy")
    fn.Trainer(net, optimizer=fn.SGD(0.2), batch_size=9).fit(X, LABELS, epochs=1, verbose=0)
    assert_parameters(net, expected, 1e-12)


def test_batchnorm_normalises_per_micro_batch():
    """The gradient is the mean over all rows, the statistics are those of the pieces, one after the other."""
    net = build()
    layers, before = oracle_layers(net), snapshot(net)
    pieces = [(0, 16), (16, 32), (32, 37)]
    total, running = {}, dict(before)
    for begin, end in pieces:
        rows = slice(begin, end)
        result = reference.forward(layers, running, X[rows], training=True)
        _, dy = reference.loss_value_and_gradient(result.output, LABELS[rows], "cross_entropy")
        gradients, _ = reference.backward(layers, running, result, dy * (end - begin) / 37, training=True)
        total = {name: total.get(name, 0) + g for name, g in gradients.items()}
        running |= result.statistics
    expected = {name: value - 0.2 * total.get(name, 0) for name, value in running.items()}
    trainer = fn.Trainer(net, optimizer=fn.SGD(0.2), batch_size="full", micro_batch=16)
    trainer.fit(X, LABELS, epochs=1, shuffle=False, verbose=0)
    assert_parameters(net, expected, 1e-12)


@pytest.mark.parametrize(("rows", "micro", "pieces"), [(37, 9, [9, 9, 9, 10]), (37, 36, [37]), (5, 2, [2, 3])])
def test_a_micro_batch_of_one_row_joins_the_one_before(rows, micro, pieces):
    """Running means are linear in the batch means, so they show how the batch was cut."""
    net = build(fn.BatchNorm(decay=0.5), fn.Dense(3))
    trainer = fn.Trainer(net, optimizer=fn.SGD(1e-3), batch_size="full", micro_batch=micro)
    trainer.fit(X[:rows], LABELS[:rows], epochs=1, shuffle=False, verbose=0)
    expected, begin = np.zeros(5), 0
    for size in pieces:
        expected = 0.5 * expected + 0.5 * X[begin : begin + size].mean(axis=0)
        begin += size
    np.testing.assert_allclose(net.parameters()["0.running_mean"], expected, rtol=0, atol=1e-14)


# ---- learning rates, as the parameters feel them ----


def rates_felt(lr, epochs, steps_per_epoch=3, callbacks=(), **arguments):
    """Learning rates summed per epoch: on features 0 and a target far away the gradient of MAE for the bias is -1."""
    net = fn.Sequential([fn.Dense(1)], 1, dtype="float64")
    trainer = fn.Trainer(net, loss="mae", optimizer=fn.SGD(lr), batch_size=4, **arguments)
    biases = [0.0]
    record = [lambda epoch, logs: biases.append(float(net.parameters()["0.bias"][0]))]
    x, y = np.zeros((4 * steps_per_epoch, 1)), np.full(4 * steps_per_epoch, 1e6)
    history = trainer.fit(x, y, epochs=epochs, verbose=0, callbacks=[*record, *callbacks])
    return np.diff(biases), history


def one_cycle(step, length, rise=0.3, start=25.0, end=1e4):
    """From 1/25 up to 1 at step 0.3 length - 1, down to 1/25e4 at the last, each on half a cosine."""
    peak = rise * length - 1
    low, high, share = (
        (1 / start, 1.0, step / peak)
        if step <= peak
        else (1 / start / end, 1.0, (length - 1 - step) / (length - 1 - peak))
    )
    return high + (low - high) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES = {  # a schedule for 3 steps per epoch, and its formula
    "number": (0.3, lambda s: 0.3),
    "constant": (schedules.constant(0.3), lambda s: 0.3),
    "step": (schedules.step(0.4, 5, 0.5), lambda s: 0.4 * 0.5 ** (s // 5)),
    "step per epoch": (schedules.step(0.4, 2, 0.5, per="epoch"), lambda s: 0.4 * 0.5 ** (s // 6)),
    "exponential": (schedules.exponential(0.4, 0.8, 2), lambda s: 0.4 * 0.8 ** (s / 2)),
    "exponential per epoch": (schedules.exponential(0.4, 0.8, per="epoch"), lambda s: 0.4 * 0.8 ** (s / 3)),
    "cosine": (
        schedules.cosine(0.4, 20, 0.1),
        lambda s: 0.1 + 0.3 * (1 + math.cos(math.pi * min(s / 20, 1))) / 2,
    ),
    "cosine per epoch": (
        schedules.cosine(0.4, 6, per="epoch"),
        lambda s: 0.4 * (1 + math.cos(math.pi * min(s / 18, 1))) / 2,
    ),
    "warmup": (schedules.warmup(4, 0.2), lambda s: 0.2 * min((s + 1) / 4, 1)),
    "warmup per epoch": (
        schedules.warmup(2, schedules.step(0.4, 1, 0.5, per="epoch"), per="epoch"),
        lambda s: 0.4 * ((s + 1) / 6 if s < 6 else 0.5 ** ((s - 6) // 3)),
    ),
    "one_cycle": (schedules.one_cycle(1.0, 24), lambda s: one_cycle(s, 24)),
    "one_cycle per epoch": (schedules.one_cycle(1.0, 8, per="epoch"), lambda s: one_cycle(s, 24)),
    "function": (lambda step: 1 / (1 + step), lambda s: 1 / (1 + s)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_step_has_the_rate_of_its_schedule(name):
    schedule, formula = SCHEDULES[name]
    rates = np.array([formula(step) for step in range(24)]).reshape(8, 3)
    felt, history = rates_felt(schedule, 8)
    np.testing.assert_allclose(felt, rates.sum(axis=1), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(history["lr"], rates[:, -1], rtol=1e-11)


def test_a_plateau_reduces_the_rate_of_the_steps_that_follow():
    """The loss falls, but by less than min_delta: every second epoch after the first counts as a plateau."""
    plateau = fn.ReduceLROnPlateau("loss", factor=0.5, patience=2, min_delta=1e9)
    felt, _ = rates_felt(schedules.exponential(0.4, 0.9, per="epoch"), 8, callbacks=[plateau])
    reductions = 0.5 ** np.array([0, 0, 0, 1, 1, 2, 2, 3])
    per_epoch = np.array([sum(0.4 * 0.9 ** ((3 * epoch + step) / 3) for step in range(3)) for epoch in range(8)])
    np.testing.assert_allclose(felt, reductions * per_epoch, rtol=1e-12)


# ---- losses and weights ----


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_soft_labels(smoothing):
    """Rows of probabilities, with and without smoothing."""
    y = np.random.default_rng(3).dirichlet(np.ones(3), 37)
    net = build(fn.Dense(8), fn.BatchNorm(), fn.Tanh(), fn.Dense(3))
    optimizer = reference.Optimizer("sgd", learning_rate=0.1)
    expected, losses = oracle_fit(net, optimizer, y, "cross_entropy", 3, 10, loss_parameter=smoothing)
    trainer = fn.Trainer(net, loss=fn.losses.CrossEntropy(smoothing), optimizer=fn.SGD(0.1), batch_size=10)
    history = trainer.fit(X, y, epochs=3, verbose=0)
    assert_parameters(net, expected)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-12)


def test_one_hot_rows_are_labels():
    nets = [build(), build()]
    for net, y in zip(nets, (LABELS, np.eye(3)[LABELS]), strict=True):
        loss = fn.losses.CrossEntropy(label_smoothing=0.1)
        fn.Trainer(net, loss=loss, optimizer=fn.SGD(0.1, 0.9), batch_size=10).fit(X, y, epochs=3, verbose=0)
    assert_parameters(nets[1], snapshot(nets[0]), 1e-12)


def test_smoothing_mixes_in_the_uniform_distribution():
    smoothed, mixed = build(), build()
    options = {"optimizer": fn.SGD(0.1, 0.9), "batch_size": 10}
    loss = fn.losses.CrossEntropy(label_smoothing=0.3)
    fn.Trainer(smoothed, loss=loss, **options).fit(X, LABELS, epochs=3, verbose=0)
    fn.Trainer(mixed, **options).fit(X, 0.7 * np.eye(3)[LABELS] + 0.1, epochs=3, verbose=0)
    assert_parameters(smoothed, snapshot(mixed), 1e-12)


def test_huber_is_half_mse_near_and_delta_mae_far():
    """Residuals all below, then all above delta."""
    for delta, other, factor in ((100.0, "mse", 0.5), (1e-6, "mae", 1e-6)):
        first, second = build(fn.Dense(3)), build(fn.Dense(3))
        huber = fn.losses.Huber(delta)
        fn.Trainer(first, loss=huber, optimizer=fn.SGD(0.1), batch_size=10).fit(X, VALUES, epochs=3, verbose=0)
        fn.Trainer(second, loss=other, optimizer=fn.SGD(0.1 * factor), batch_size=10).fit(
            X, VALUES, epochs=3, verbose=0
        )
        assert_parameters(first, snapshot(second), 1e-12)


@pytest.mark.parametrize("balanced", [True, False])
def test_class_weights_are_sample_weights(balanced):
    counts = np.bincount(LABELS)
    per_class = 37 / (3 * counts) if balanced else np.array([1.0, 4.0, 0.0])
    nets = [build(), build()]
    weights = "balanced" if balanced else {1: 4.0, 2: 0.0}
    fn.Trainer(nets[0], batch_size=10).fit(X, LABELS, epochs=3, class_weight=weights, verbose=0)
    fn.Trainer(nets[1], batch_size=10).fit(X, LABELS, epochs=3, sample_weight=per_class[LABELS], verbose=0)
    assert_same_bits(*nets)


def own_mse(y_pred, y):
    residual = y_pred - y
    return float(np.mean(residual**2)), 2 * residual / residual.size


def test_an_own_mse_is_the_built_in_one():
    nets = [build(fn.Dense(8), fn.BatchNorm(), fn.Dropout(0.3), fn.Dense(3)) for _ in range(2)]
    options = {"optimizer": fn.SGD(0.1, 0.9), "regularizer": fn.L2(1e-3), "batch_size": 8}
    histories = [
        fn.Trainer(net, loss=loss, **options).fit(X, VALUES, epochs=4, verbose=0)
        for net, loss in zip(nets, ("mse", own_mse), strict=True)
    ]
    assert_parameters(nets[1], snapshot(nets[0]), 1e-12)
    for name in ("loss", "penalty"):
        np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=1e-12)


def test_an_own_loop_has_the_bits_of_fit():
    """forward, own loss, backward, apply_gradients on the rows and in the order of fit."""
    nets = [
        build(fn.Standardize(0.5, 2.0), fn.Dense(8), fn.BatchNorm(), fn.Dropout(0.3), fn.Dense(3)) for _ in range(2)
    ]
    options = {"optimizer": fn.Adam(schedules.cosine(1e-2, 15)), "clip": fn.ClipNorm(0.1), "regularizer": fn.L2(1e-3)}
    trainers = [fn.Trainer(net, loss=own_mse, batch_size=8, **options) for net in nets]
    history = trainers[0].fit(X, VALUES, epochs=3, verbose=0)
    losses = []
    for epoch in range(3):
        order = _core.permutation(37, nets[1].seed, epoch)
        total = 0.0
        for begin in range(0, 37, 8):
            rows = order[begin : begin + 8]
            value, gradient = own_mse(nets[1].forward(X[rows]), VALUES[rows])
            nets[1].backward(gradient)
            trainers[1].apply_gradients()
            total += value * len(rows)
        losses.append(total / 37)
    assert_same_bits(*nets)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-14)


# ---- whole nets ----


def test_twenty_steps_of_everything():
    """Two blocks of BatchNorm and dropout, L2, clipping that bites, Adam; small float64 net, step by step."""
    net = build(
        fn.Dense(12), fn.BatchNorm(), fn.ReLU(), fn.Dropout(0.5),
        fn.Dense(9, "gelu"), fn.BatchNorm(decay=0.8, unbiased=True), fn.Dropout(0.2, "test"), fn.Dense(3),
        seed=11,
    )  # fmt: skip
    norms = []

    def clip(gradients):
        norms.append(reference.global_norm(gradients))
        return reference.clip_norm(gradients, 0.5)

    oracle = reference.Optimizer("adam", learning_rate=1e-2)
    expected, losses = oracle_fit(net, oracle, LABELS, "cross_entropy", 4, 8, regularizer=(0, 1e-3), clip=clip)
    trainer = fn.Trainer(
        net, optimizer=fn.Adam(1e-2), clip=fn.ClipNorm(0.5), regularizer=fn.L2(1e-3), batch_size=8, n_threads=2
    )
    before = snapshot(net)
    history = trainer.fit(X, LABELS, epochs=4, verbose=0)
    assert len(norms) == 20
    assert max(norms) > 0.6
    assert_parameters(net, expected, 1e-9)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-9)
    assert all(np.abs(before[name] - value).max() > 1e-3 for name, value in expected.items() if name != "0.bias")


def test_restore_best_gives_the_smallest_validation_loss():
    """A net that over-fits noise: the last epoch is worse than the best one, whose weights and statistics return."""
    random = np.random.default_rng(1)
    x, y = random.normal(size=(60, 5)), random.integers(0, 3, 60)
    validation = random.normal(size=(60, 5)), random.integers(0, 3, 60)
    net = build(fn.Dense(40), fn.BatchNorm(), fn.ReLU(), fn.Dense(3))
    stopping = fn.EarlyStopping(patience=5)
    history = fn.Trainer(net, optimizer=fn.Adam(1e-2), batch_size=20).fit(
        x, y, epochs=50, validation_data=validation, verbose=0, callbacks=[stopping]
    )
    best = min(history["val_loss"])
    assert history["val_loss"][-1] > 1.01 * best
    assert net.evaluate(*validation)["loss"] == best
    assert history.best_epoch == history["val_loss"].index(best)


@pytest.mark.parametrize("optimizer", [fn.SGD(0.1, 0.9), fn.AdamW(1e-2, weight_decay=0.1)], ids=["sgd", "adamw"])
@pytest.mark.parametrize("regularizer", [fn.L2(0.1), fn.L1(0.1, proximal=True)], ids=["l2", "proximal"])
def test_what_is_frozen_is_neither_decayed_nor_penalised_nor_normalised_anew(optimizer, regularizer):
    layers = [
        fn.Dense(6, trainable=False), fn.BatchNorm(trainable=False), fn.Tanh(),
        fn.Dense(7, use_bias=False), fn.BatchNorm(), fn.Tanh(), fn.Dense(6, trainable=False), fn.Dense(3),
    ]  # fmt: skip
    net = build(*layers)
    random = np.random.default_rng(0)
    for view in net.parameters().values():
        view += random.uniform(0.1, 0.5, view.shape)
    before = snapshot(net)
    fn.Trainer(net, optimizer=optimizer, regularizer=regularizer, clip=fn.ClipNorm(0.5), batch_size=10).fit(
        X, LABELS, epochs=3, verbose=0
    )
    changed = {name for name, view in net.parameters().items() if not np.array_equal(view, before[name])}
    assert changed == {name for name in before if int(name[0]) in (3, 4, 7)}


# ---- the state of a trainer ----

STATEFUL = [fn.Standardize(), fn.Dense(12), fn.BatchNorm(), fn.ReLU(), fn.Dropout(0.5), fn.Dense(3)]


def stateful_trainer(seed=0):
    return fn.Trainer(
        build(*STATEFUL, dtype="float32", seed=seed),
        optimizer=fn.AdamW(schedules.warmup(3, schedules.cosine(1e-2, 50))),
        clip=fn.ClipNorm(0.3),
        batch_size=8,
        micro_batch=5,
        metrics=("accuracy",),
    )


def test_two_fits_of_five_epochs_are_one_of_ten():
    whole, parts = stateful_trainer(), stateful_trainer()
    history = whole.fit(X, LABELS, epochs=10, verbose=0)
    halves = [parts.fit(X, LABELS, epochs=5, verbose=0) for _ in range(2)]
    assert_same_bits(parts.net, whole.net)
    for name in ("loss", "accuracy", "lr"):
        assert halves[0][name] + halves[1][name] == history[name]


def test_after_reset_a_run_has_the_bits_of_a_fresh_one():
    used, fresh = stateful_trainer(seed=4), stateful_trainer(seed=4)
    used.fit(2 * X + 1, LABELS, epochs=3, verbose=0)  # other data: Standardize must forget them
    used.train_step(X, LABELS)
    used.reset()
    histories = [trainer.fit(X, LABELS, epochs=4, verbose=0) for trainer in (used, fresh)]
    assert_same_bits(used.net, fresh.net)
    assert histories[0]["loss"] == histories[1]["loss"]
    assert np.abs(fresh.net.parameters()["5.weight"]).max() > 0.1


# ---- features ----


@pytest.mark.parametrize("first", [fn.Scale(1 / 255), fn.Standardize(), fn.Identity()], ids=repr)
def test_bytes_have_the_bits_of_float32(first):
    """The conversion inside the gather is the one to float32 beforehand, in training and prediction."""
    x = np.random.default_rng(0).integers(0, 256, size=(37, 5)).astype(np.uint8)
    trained = []
    for features in (x, x.astype(np.float32)):
        net = build(first, fn.Dense(8), fn.BatchNorm(), fn.Tanh(), fn.Dense(3), dtype="float32")
        fn.Trainer(net, batch_size=8).fit(features, LABELS, epochs=3, verbose=0)
        trained.append((net, net.predict(features), net.forward(features)))
    assert_same_bits(trained[0][0], trained[1][0])
    for bytes_result, float_result in zip(trained[0][1:], trained[1][1:], strict=True):
        np.testing.assert_array_equal(bytes_result, float_result)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_a_memory_map_is_never_copied_whole(tmp_path):
    """Standardize, fit, validate, evaluate and predict on a map of 32 MB (a sparse file) within a quarter of that."""
    path = tmp_path / "features.bin"
    with path.open("wb") as file:
        file.truncate(2**25)
    program = f"""
import numpy as np
import fastnn as fn
def kilobytes(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))
fn.data._CHUNK_ELEMENTS = 2**17
x = np.memmap({str(path)!r}, np.uint8, "r", shape=(2**15, 2**10))
y = np.arange(len(x)) % 3
def use(x, y):
    net = fn.Sequential([fn.Standardize(), fn.Dense(3)], x.shape[1])
    trainer = fn.Trainer(net, batch_size=256, metrics=("accuracy",), n_threads=1)
    trainer.fit(x, y, epochs=1, validation_split=0.2, verbose=0)
    net.evaluate(x, y, n_threads=1)
    net.predict(x, n_threads=1)
use(x[:1000], y[:1000])  # whatever libraries allocate once
before = kilobytes("VmPeak")  # of the address space in use, the map included
use(x, y)
print(kilobytes("VmPeak") - before)
"""
    assert int(run_python(program)) * 1024 < 2**23


# ---- summary ----


def test_summary(capsys):
    layers = [
        fn.Scale(1 / 255), fn.Dense(1000, "relu", use_bias=False), fn.BatchNorm(), fn.Dropout(0.5, scaling="test"),
        fn.Dense(10, trainable=False),
    ]  # fmt: skip
    net = fn.Sequential(layers, 784, dtype="float64")
    net.summary()
    assert capsys.readouterr().out == SUMMARY


SUMMARY = """\
   layer                                           output  parameters
---------------------------------------------------------------------
0  Scale(0.00392156862745098)                         784           0
1  Dense(1000, activation=ReLU(), use_bias=False)    1000     784,000
2  BatchNorm()                                       1000       4,000
3  Dropout(0.5, scaling='test')                      1000           0
4  Dense(10, trainable=False)                          10      10,010
---------------------------------------------------------------------
input 784, 798,010 parameters (786,000 trainable), float64, 6.1 MiB
"""
