"""Metrics against their definitions, and what the history says."""

import sys

import numpy as np
import pytest

import fastnn as fn
from fastnn import losses, metrics
from fastnn.history import Best, direction

RANDOM = np.random.default_rng(0)
P = RANDOM.dirichlet(np.ones(4), size=50)
LABELS = RANDOM.integers(0, 4, 50)


# ---- metrics ----


@pytest.mark.parametrize("y", [LABELS, LABELS[:, np.newaxis], np.eye(4)[LABELS]], ids=["labels", "column", "one-hot"])
def test_accuracy_counts_the_most_probable_class(y):
    hits = [row.argmax() == label for row, label in zip(P, LABELS, strict=True)]
    assert metrics.accuracy(y, P) == np.mean(hits)
    for k in (1, 2, 3, 4):
        hits = [label in np.argsort(-row)[:k] for row, label in zip(P, LABELS, strict=True)]
        assert metrics.TopKAccuracy(k)(y, P) == np.mean(hits)
    assert metrics.TopKAccuracy(99)(y, P) == 1


def test_accuracy_of_one_output_uses_one_half():
    p = np.array([[0.2], [0.5], [0.51], [0.9]])
    assert metrics.accuracy(np.array([0, 0, 1, 0]), p) == 0.75
    assert metrics.accuracy(np.array([[0.0], [1], [1], [1]]), p) == 0.75


def test_binary_accuracy_counts_outputs():
    y, p = np.array([[1, 0], [1, 1]]), np.array([[0.9, 0.6], [0.2, 0.7]])
    assert metrics.binary_accuracy(y, p) == 0.5
    assert metrics.resolve(["accuracy"], losses.BinaryCrossEntropy(), 2)["accuracy"] is metrics.binary_accuracy


def f1_by_definition(true, predicted):
    scores = []
    for label in set(true) | set(predicted):
        hits = sum(t == p == label for t, p in zip(true, predicted, strict=True))
        scores.append(2 * hits / (sum(t == label for t in true) + sum(p == label for p in predicted)))
    return np.mean(scores)


def test_f1_is_the_mean_over_the_classes_that_occur():
    p = P.copy()
    p[:, 3] = 0  # class 3 is never predicted
    labels = np.where(LABELS == 2, 1, LABELS)  # class 2 is never true
    assert metrics.f1(labels, p) == pytest.approx(f1_by_definition(labels.tolist(), p.argmax(axis=1).tolist()))
    one = P[:, :1]
    assert metrics.f1(labels > 1, one) == pytest.approx(
        f1_by_definition((labels > 1).tolist(), (one[:, 0] > 0.5).tolist())
    )


def test_f1_of_several_labels_per_row():
    y, p = np.array([[1, 1, 0], [0, 1, 0]]), np.array([[0.9, 0.2, 0.1], [0.8, 0.9, 0.1]])
    assert metrics.f1(y, p) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_auc_is_the_share_of_ordered_pairs():
    y, score = RANDOM.integers(0, 2, 60), RANDOM.integers(0, 9, 60) / 10  # with ties
    pairs = [(a > b) + 0.5 * (a == b) for a in score[y == 1] for b in score[y == 0]]
    assert metrics.auc(y, score[:, np.newaxis]) == pytest.approx(np.mean(pairs))
    assert metrics.auc(y, np.stack([1 - score, score], axis=1)) == pytest.approx(np.mean(pairs))
    assert np.isnan(metrics.auc(np.ones(5), np.ones((5, 1))))
    with pytest.raises(ValueError, match="two classes"):
        metrics.auc(LABELS, P)


def test_errors_of_regression():
    y, p = RANDOM.normal(size=(40, 2)), RANDOM.normal(size=(40, 2)).astype(np.float32)
    error = y - p.astype(np.float64)
    assert metrics.mse(y, p) == pytest.approx((error**2).mean())
    assert metrics.rmse(y, p) == pytest.approx(np.sqrt((error**2).mean()))
    assert metrics.mae(y, p) == pytest.approx(np.abs(error).mean())
    expected = np.mean([1 - (error[:, j] ** 2).sum() / ((y[:, j] - y[:, j].mean()) ** 2).sum() for j in range(2)])
    assert metrics.r2(y, p) == pytest.approx(expected)
    assert metrics.mse(y[:, 0], p[:, :1]) == pytest.approx((error[:, 0] ** 2).mean())
    assert metrics.r2(np.ones(3), np.ones((3, 1))) == 1
    assert metrics.r2(np.ones(3), np.zeros((3, 1))) == 0


def test_metrics_by_name_object_and_function():
    def mine(y_true, y_pred):
        return 0.5

    chosen = ["accuracy", "top_7_accuracy", metrics.TopKAccuracy(2), mine, metrics.f1]
    found = metrics.resolve(chosen, losses.CrossEntropy(), 9)
    assert list(found) == ["accuracy", "top_7_accuracy", "top_2_accuracy", "mine", "f1"]
    assert found["top_7_accuracy"] == metrics.TopKAccuracy(7)


@pytest.mark.parametrize("name", ["loss", "penalty", "lr", "seconds", "epoch", "val_mine"])
def test_a_metric_has_a_name_of_its_own(name):
    def mine(y_true, y_pred):
        return 0.5

    with pytest.raises(ValueError, match="two metrics are named 'mine'"):
        metrics.resolve([mine, mine], losses.MSE(), 1)
    mine.__name__ = name
    with pytest.raises(ValueError, match=f"cannot be named '{name}'.*column of the history"):
        metrics.resolve([mine], losses.MSE(), 1)


@pytest.mark.parametrize(
    ("metric", "loss", "outputs", "message"),
    [
        ("r2", "cross_entropy", 3, "'r2' compares values"),
        (metrics.mae, "cross_entropy", 3, "'mae' compares values"),
        ("binary_accuracy", "cross_entropy", 3, "'binary_accuracy' compares values"),
        ("accuracy", "mse", 3, "'accuracy' is for classification, but the loss is mse"),
        ("f1", "poisson", 1, "'f1' is for classification"),
        ("top_2_accuracy", "huber", 3, "'top_2_accuracy' is for classification"),
        ("auc", "cross_entropy", 3, "'auc' is for two classes, but the net has 3 outputs"),
        ("top_2_accuracy", "binary_cross_entropy", 1, "needs at least 2 outputs"),
    ],
)
def test_a_metric_that_does_not_suit_the_task_is_refused_before_training(metric, loss, outputs, message):
    net = fn.Sequential([fn.Dense(outputs)], 4)
    with pytest.raises(ValueError, match=message):
        fn.Trainer(net, loss=loss, metrics=(metric,))
    with pytest.raises(ValueError, match=message):
        net.evaluate(np.zeros((5, 4)), np.zeros((5, outputs)), loss=loss, metrics=(metric,))


def test_evaluate_measures_accuracy_where_there_are_classes():
    net = fn.Sequential([fn.Dense(2)], 4)
    x, y = RANDOM.normal(size=(20, 4)), np.eye(2)[np.arange(20) % 2]
    assert list(net.evaluate(x, y)) == ["loss", "accuracy"]
    assert list(net.evaluate(x, y, loss="binary_cross_entropy")) == ["loss", "accuracy"]
    assert list(net.evaluate(x, y, loss="mse")) == ["loss"]


@pytest.mark.parametrize(
    ("loss", "outputs", "y", "link"),
    [
        ("cross_entropy", 3, np.arange(20) % 3, lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)),
        ("binary_cross_entropy", 1, np.arange(20) % 2, lambda z: 1 / (1 + np.exp(-z))),
        ("poisson", 1, np.arange(20) % 4, np.exp),
        ("mse", 2, RANDOM.normal(size=(20, 2)), lambda z: z),
    ],
)
def test_metrics_get_probabilities_rates_or_values(loss, outputs, y, link):
    seen = []

    def spy(y_true, y_pred):
        seen.append((y_true.copy(), y_pred.copy()))
        return 0.0

    x = RANDOM.normal(size=(20, 4))
    net = fn.Sequential([fn.Dense(5, "tanh"), fn.Dense(outputs)], 4, dtype="float64")
    before = net.predict(x)
    trainer = fn.Trainer(net, loss=loss, optimizer=fn.SGD(1e-3), metrics=(spy,), batch_size="full")
    trainer.fit(x, y, epochs=1, shuffle=False, verbose=0, validation_data=(x, y))
    for (y_true, y_pred), raw in zip(seen, (before, net.predict(x)), strict=True):
        np.testing.assert_array_equal(y_true, y)
        np.testing.assert_allclose(y_pred, link(raw), rtol=1e-12)
    net.evaluate(x, y, loss=loss, metrics=(spy,))
    np.testing.assert_array_equal(seen[-1][1], seen[-2][1])


def test_a_final_softmax_is_not_applied_twice():
    x, y = RANDOM.normal(size=(20, 4)), np.arange(20) % 3
    plain = fn.Sequential([fn.Dense(3)], 4, dtype="float64")
    softmax = fn.Sequential([fn.Dense(3), fn.Softmax()], 4, dtype="float64")
    assert plain.evaluate(x, y)["loss"] == pytest.approx(softmax.evaluate(x, y)["loss"], rel=1e-14)
    fn.Trainer(plain, batch_size=20).fit(x, y, epochs=3, verbose=0)
    fn.Trainer(softmax, batch_size=20).fit(x, y, epochs=3, verbose=0)
    np.testing.assert_allclose(plain.predict_proba(x), softmax.predict(x), rtol=1e-13)
    np.testing.assert_allclose(plain.predict_proba(x), softmax.predict_proba(x), rtol=1e-13)


# ---- history ----


def test_directions():
    assert [direction(name, "auto") for name in ("loss", "val_loss", "val_mae")] == ["min"] * 3
    assert [direction(name, "auto") for name in ("accuracy", "val_top_5_accuracy", "val_r2", "auc")] == ["max"] * 4
    assert direction("anything", "max") == "max"
    with pytest.raises(ValueError, match="mode='auto' cannot tell whether 'val_mine'"):
        direction("val_mine", "auto")


@pytest.mark.parametrize(
    ("mode", "min_delta", "values", "epoch"),
    [
        ("min", 0.0, [3, 1, 1, 2], 1),
        ("max", 0.0, [3, 1, 4, 4], 2),
        ("min", 0.5, [3, 2.6, 2.4, 2.0], 2),
        ("min", 0.0, [float("nan"), 2, float("nan"), 1], 3),
        ("min", 0.0, [float("nan")], None),
        ("min", 0.0, [], None),
    ],
)
def test_the_best_epoch_is_the_first_real_improvement(mode, min_delta, values, epoch):
    best = Best(mode, min_delta)
    for number, value in enumerate(values):
        best.update(number, value)
    assert best.epoch == epoch
    history = fn.History("loss", mode, min_delta)
    for value in values:
        history.append({"loss": value})
    assert history.best_epoch == epoch
    assert history.epochs == len(values)


def test_without_early_stopping_the_best_epoch_is_that_of_val_loss_else_of_loss():
    history = fn.History()
    for loss, val_loss in ((3, 1), (2, 5), (1, 6)):
        history.append({"loss": loss, "val_loss": val_loss})
    assert history.best_epoch == 0
    history = fn.History()
    for loss in (3, 2, 1):
        history.append({"loss": loss})
    assert history.best_epoch == 2


def test_the_history_is_a_mapping_of_lists():
    history = fn.History()
    history.append({"loss": 1.0, "lr": 0.1})
    history.append({"loss": 0.5, "lr": 0.1})
    assert dict(history) == {"loss": [1.0, 0.5], "lr": [0.1, 0.1]}
    assert "val_loss" not in history
    assert "2 epochs of loss, lr" in repr(history)


def test_plot_draws_each_metric(tmp_path):
    pytest.importorskip("matplotlib")
    history = fn.History()
    history.append({"loss": 1.0, "penalty": 0.0, "accuracy": 0.5, "val_loss": 1.1, "val_accuracy": 0.4, "seconds": 0.1})
    figure = history.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]


def test_plot_names_the_extra_that_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'fastnn-cpu\[plot\]'"):
        fn.History().plot()
