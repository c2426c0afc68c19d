"""The estimators beside scikit-learn's MLP, and what they have beyond it."""

import copy
import importlib
import pickle
import re
import sys
import warnings

import numpy as np
import pytest
from optional import needed

import fastnn as fn

joblib = needed("joblib")
clone = needed("sklearn.base").clone
CalibratedClassifierCV = needed("sklearn.calibration").CalibratedClassifierCV
ConvergenceWarning = needed("sklearn.exceptions").ConvergenceWarning
NotFittedError = needed("sklearn.exceptions").NotFittedError
GridSearchCV = needed("sklearn.model_selection").GridSearchCV
MLPClassifier = needed("sklearn.neural_network").MLPClassifier
MLPRegressor = needed("sklearn.neural_network").MLPRegressor
make_pipeline = needed("sklearn.pipeline").make_pipeline
StandardScaler = needed("sklearn.preprocessing").StandardScaler
FastNNClassifier = needed("fastnn.sklearn").FastNNClassifier
FastNNRegressor = needed("fastnn.sklearn").FastNNRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(53, 5))
WEIGHTS = RNG.uniform(0.2, 3, size=53)
SCORES = np.stack([X[:, 0] + X[:, 1] ** 2, X[:, 2] - X[:, 0], 2 * np.sin(X[:, 3])], axis=1)
LABELS = SCORES.argmax(axis=1)
TARGETS = {
    "binary": (SCORES[:, 0] > 0.8).astype(int),
    "multiclass": LABELS,
    "multi-label": (SCORES > 0.3).astype(int),
    "one output": SCORES[:, 0],
    "three outputs": SCORES,
    "poisson": RNG.poisson(np.exp(0.5 * SCORES[:, 0])).astype(float),
    "three poisson": RNG.poisson(np.exp(0.3 * SCORES)).astype(float),
}


def test_the_targets_vary():
    assert all(np.ptp(y, axis=0).min() > 0 for y in TARGETS.values())
    assert 0.2 < TARGETS["binary"].mean() < 0.8
    assert np.bincount(LABELS).min() > 5


def pair(kind, **parameters):
    """Ours and scikit-learn's, with the same parameters."""
    if kind in ("binary", "multiclass", "multi-label"):
        return FastNNClassifier(**parameters), MLPClassifier(**parameters)
    loss = "poisson" if "poisson" in kind else "squared_error"
    return FastNNRegressor(loss, **parameters), MLPRegressor(loss, **parameters)


def assert_same_weights(ours, theirs, tolerance):
    for name in ("coefs_", "intercepts_"):
        for mine, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance)


STEPS = {
    "hidden_layer_sizes": (7, 4),
    "activation": "tanh",
    "solver": "sgd",
    "momentum": 0,
    "learning_rate_init": 0.1,
    "alpha": 0.3,
    "max_iter": 1,
    "shuffle": False,
    "random_state": 3,
}


# ---- the objective, step by step ----


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("batch_size", [53, 20], ids=["full batch", "short last batch"])
@pytest.mark.parametrize("kind", TARGETS)
def test_one_epoch_of_plain_sgd_gives_scikit_learns_weights(kind, batch_size, weights):
    ours, theirs = pair(kind, **STEPS, batch_size=batch_size)
    start = [
        layer.copy() for layer in pair(kind, **{**STEPS, "learning_rate_init": 1e-30})[1].fit(X, TARGETS[kind]).coefs_
    ]
    ours.fit(X, TARGETS[kind], weights)
    theirs.fit(X, TARGETS[kind], weights)
    assert_same_weights(ours, theirs, 1e-10)
    assert all(np.abs(now - before).max() > 1e-3 for now, before in zip(ours.coefs_, start, strict=True))


@pytest.mark.parametrize("activation", ["identity", "logistic", "relu"])
def test_every_activation_starts_and_steps_alike(activation):
    ours, theirs = (model.fit(X, LABELS) for model in pair("multiclass", **{**STEPS, "activation": activation}))
    assert_same_weights(ours, theirs, 1e-10)


@pytest.mark.parametrize(
    "parameters",
    [
        {"momentum": 0.9, "nesterovs_momentum": True},
        {"momentum": 0.9, "nesterovs_momentum": False},
        {"momentum": 0.9, "learning_rate": "invscaling", "power_t": 0.3},
        {"momentum": 0.9, "learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1},
    ],
    ids=["nesterov", "momentum", "invscaling", "adaptive"],
)
def test_twelve_epochs_of_momentum_and_schedules_give_scikit_learns_weights(parameters):
    settings = {**STEPS, "max_iter": 12, "learning_rate_init": 0.02, "batch_size": 20, "alpha": 0, **parameters}
    ours, theirs = (model.fit(X, LABELS) for model in pair("multiclass", **settings))
    assert ours.n_iter_ == theirs.n_iter_
    assert_same_weights(ours, theirs, 1e-10)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-10)
    assert ours._members[0].progress.learning_rate == pytest.approx(theirs._optimizer.learning_rate, rel=1e-12)
    if parameters.get("learning_rate") == "adaptive":
        assert theirs._optimizer.learning_rate < 0.02  # it was lowered


def test_adam_differs_by_its_epsilon_alone():
    settings = {**STEPS, "solver": "adam", "max_iter": 5, "batch_size": 20, "learning_rate_init": 0.01}
    ours, theirs = (model.fit(X, LABELS) for model in pair("multiclass", **settings, epsilon=1e-14))
    assert_same_weights(ours, theirs, 1e-8)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multi-label", "one output", "poisson"])
def test_lbfgs_goes_scikit_learns_way(kind):
    settings = {**STEPS, "solver": "lbfgs", "max_iter": 8, "alpha": 0.01, "tol": 0}
    ours, theirs = (model.fit(X, TARGETS[kind], WEIGHTS) for model in pair(kind, **settings))
    assert_same_weights(ours, theirs, 1e-6)
    y = TARGETS[kind]
    constant = (
        np.average(np.where(y > 0, y * np.log(np.maximum(y, 1)), 0) - y, weights=WEIGHTS) if kind == "poisson" else 0
    )
    assert ours.loss_ + constant == pytest.approx(theirs.loss_, rel=1e-8)
    assert ours.n_iter_ == theirs.n_iter_ == 8


@pytest.mark.parametrize("kind", TARGETS)
def test_the_objective_of_lbfgs_has_the_gradient_it_says(kind):
    from fastnn.sklearn import lbfgs

    model, _ = pair(kind, **{**STEPS, "solver": "lbfgs", "max_iter": 1})
    model.fit(X, TARGETS[kind])
    y = model._check_y(TARGETS[kind], incremental=True, first=False)
    _, objective = model._objective(y)
    trainer = model._new_trainer(model.net_, objective, "full")
    function = lbfgs.Objective(trainer, X, model._targets(y, objective.loss), WEIGHTS, alpha=0.7)
    theta = function.start()
    _, gradient = function(theta)
    steps = 1e-5 * np.eye(len(theta))
    central = [(function(theta + step)[0] - function(theta - step)[0]) / 2e-5 for step in steps]
    np.testing.assert_allclose(gradient, central, rtol=0, atol=1e-7)
    assert np.abs(gradient).max() > 1e-3


def test_a_step_from_assigned_weights_is_the_one_worked_out_by_hand():
    """The net and the step of `test_fit` of scikit-learn's own tests."""
    x = np.array([[0.6, 0.8, 0.7]])
    model = FastNNClassifier(2, "logistic", solver="sgd", learning_rate_init=0.1, alpha=0.1, momentum=0)
    model.partial_fit(x, [0], classes=[0, 1])
    model.coefs_ = [[[0.1, 0.2], [0.3, 0.1], [0.5, 0]], [[0.1], [0.2]]]
    model.intercepts_ = [[0.1, 0.1], [1.0]]
    model.partial_fit(x, [0])
    # h = sigmoid(x W1 + b1) = (0.679179, 0.574443) and o = sigmoid(h W2 + b2) = 0.765452, so that the deltas are o and
    # h (1 - h) W2 o = (0.016679, 0.037424); each weight w loses 0.1 (input * delta + 0.1 w).
    expected = [[0.097999, 0.195755], [0.295666, 0.096006], [0.493832, -0.00262]], [[0.047012], [0.154029]]
    for found, wanted in zip(model.coefs_, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    for found, wanted in zip(model.intercepts_, ([0.098332, 0.096258], [0.923455]), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert model.predict_proba(x)[0, 1] == pytest.approx(0.739, abs=5e-4)


def test_loss_curve_is_the_objective_before_each_step():
    ours, theirs = (model.fit(X, LABELS) for model in pair("multiclass", **{**STEPS, "alpha": 0, "max_iter": 3}))
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-10)
    three = FastNNRegressor(**{**STEPS, "alpha": 0}).fit(X, SCORES)
    start = FastNNRegressor(**{**STEPS, "learning_rate_init": 1e-30}).fit(X, SCORES)
    assert three.loss_ == pytest.approx(0.5 * np.sum((SCORES - start.predict(X)) ** 2) / len(X))


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_penalty_is_that_of_elastic_net(ratio):
    """The minimum of a linear model, by its optimality conditions."""
    y, alpha = X @ np.array([1.0, -0.5, 0.2, 0, 0]), 5.0
    model = FastNNRegressor(
        hidden_layer_sizes=(),
        solver=fn.SGD(0.005),
        alpha=alpha,
        l1_ratio=ratio,
        batch_size=53,
        max_iter=8000,
        n_iter_no_change=np.inf,
    ).fit(X, y)
    w = model.coefs_[0].ravel()
    slope = X.T @ (model.predict(X) - y) + alpha * (1 - ratio) * w
    kept = np.abs(w) > 2e-3
    np.testing.assert_allclose(slope[kept], -alpha * ratio * np.sign(w[kept]), atol=5e-3)
    assert np.all(np.abs(slope[~kept]) <= alpha * ratio + 0.5)
    if ratio == 1:
        assert (w == 0).sum() == 2


# ---- weights are repetitions ----

REPETITIONS = np.arange(53) % 4
FULL = {
    "hidden_layer_sizes": (6,),
    "solver": "sgd",
    "learning_rate_init": 0.1,
    "max_iter": 30,
    "random_state": 0,
    "tol": 0,
}


@pytest.mark.parametrize("scale", [None, "standard"])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("kind", TARGETS)
def test_sample_weight_equals_repetition(kind, solver, scale):
    settings = {**FULL, "solver": solver, "scale": scale, "learning_rate_init": 0.01, "max_iter": 15}
    maker = FastNNClassifier if kind in ("binary", "multiclass", "multi-label") else FastNNRegressor
    settings |= {"loss": "poisson"} if "poisson" in kind else {}
    y, rows = TARGETS[kind], np.repeat(np.arange(53), REPETITIONS)
    weighted = maker(**settings, batch_size=53).fit(X, y, sample_weight=REPETITIONS)
    repeated = maker(**settings, batch_size=len(rows)).fit(X[rows], y[rows])
    assert_same_weights(weighted, repeated, 1e-6)
    assert np.abs(weighted.coefs_[0] - maker(**settings, batch_size=53).fit(X, y).coefs_[0]).max() > 1e-3


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_class_weight_equals_repetition(kind):
    y = TARGETS[kind]
    rows = np.repeat(np.arange(53), y + 1)
    weighted = FastNNClassifier(**FULL, batch_size=53, class_weight={0: 1, 1: 2, 2: 3} if y.max() == 2 else {1: 2}).fit(
        X, y
    )
    repeated = FastNNClassifier(**FULL, batch_size=len(rows)).fit(X[rows], y[rows])
    assert_same_weights(weighted, repeated, 1e-6)


def test_balanced_counts_the_weights_of_the_rows():
    rows = np.repeat(np.arange(53), REPETITIONS)
    settings = {**FULL, "class_weight": "balanced"}
    weighted = FastNNClassifier(**settings, batch_size=53).fit(X, LABELS, sample_weight=REPETITIONS)
    repeated = FastNNClassifier(**settings, batch_size=len(rows)).fit(X[rows], LABELS[rows])
    assert_same_weights(weighted, repeated, 1e-6)
    counts = np.bincount(LABELS[rows])
    by_hand = FastNNClassifier(**FULL, batch_size=len(rows), class_weight=dict(enumerate(len(rows) / (3 * counts))))
    assert_same_weights(repeated, by_hand.fit(X[rows], LABELS[rows]), 1e-12)
    assert not np.allclose(weighted.coefs_[0], FastNNClassifier(**FULL, batch_size=53).fit(X, LABELS).coefs_[0])


# ---- stopping, warm starts, partial_fit ----


@pytest.mark.parametrize("kind", ["multiclass", "one output"])
def test_early_stopping_takes_scikit_learns_rows_and_scores(kind):
    settings = {**STEPS, "max_iter": 40, "early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 4}
    ours, theirs = (model.fit(X, TARGETS[kind], WEIGHTS) for model in pair(kind, **settings))
    np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=1e-9)
    assert ours.n_iter_ == theirs.n_iter_ < 40
    assert ours.best_validation_score_ == pytest.approx(theirs.best_validation_score_)
    assert ours.best_loss_ is None
    assert len(ours.history_["val_loss"]) == ours.n_iter_
    assert_same_weights(ours, theirs, 1e-9)


def test_eval_set_replaces_the_split():
    train, test = slice(0, 40), slice(40, None)
    settings = {**FULL, "max_iter": 20}
    watched = FastNNRegressor(**settings).fit(X[train], SCORES[train], eval_set=(X[test], SCORES[test]))
    alone = FastNNRegressor(**settings).fit(X[train], SCORES[train])
    assert_same_weights(watched, alone, 0)
    assert watched.validation_scores_[-1] == pytest.approx(watched.score(X[test], SCORES[test]), rel=1e-12)
    assert watched.history_["val_loss"][-1] == pytest.approx(
        0.5 * np.mean(np.sum((SCORES[test] - watched.predict(X[test])) ** 2, axis=1))
    )
    stopped = FastNNRegressor(**settings, early_stopping=True).fit(
        X[train], SCORES[train], eval_set=(X[test], SCORES[test])
    )
    assert stopped.score(X[test], SCORES[test]) == pytest.approx(max(stopped.validation_scores_), rel=1e-12)
    weights = np.r_[np.ones(5), np.zeros(8)]
    five = FastNNRegressor(**settings).fit(X[train], SCORES[train], eval_set=(X[test], SCORES[test], weights))
    assert five.validation_scores_[-1] == pytest.approx(five.score(X[test][:5], SCORES[test][:5]), rel=1e-12)


def test_partial_fit_is_fit_epoch_by_epoch():
    settings = {**FULL, "solver": "adam", "batch_size": 20, "dropout": 0.3, "n_iter_no_change": np.inf}
    whole = FastNNClassifier(**settings).fit(X, LABELS)
    parts = FastNNClassifier(**settings)
    for _ in range(30):
        parts.partial_fit(X, LABELS, classes=[0, 1, 2])
    assert_same_weights(whole, parts, 0)
    assert parts.loss_curve_ == whole.loss_curve_
    assert (parts.n_iter_, parts.t_, whole.t_) == (1, 30 * 53, 30 * 53)


@pytest.mark.parametrize("keep", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy], ids=["pickle", "deepcopy"])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_partial_fit_goes_on_exactly_after_a_copy(keep, solver):
    settings = {**FULL, "solver": solver, "batch_size": 20, "dropout": 0.3, "batch_norm": True, "scale": "standard"}
    settings |= {"learning_rate": "invscaling"}
    one = FastNNRegressor(**settings)
    for _ in range(3):
        one.partial_fit(X, SCORES)
    other = keep(keep(one))  # a copy of what has not gone on yet, too
    for _ in range(3):
        one.partial_fit(X, SCORES)
        other.partial_fit(X, SCORES)
    np.testing.assert_array_equal(one.predict(X), other.predict(X))
    assert one.loss_curve_ == other.loss_curve_
    assert other.t_ == 6 * 53


def test_weights_assigned_after_unpickling_stay():
    model = FastNNRegressor(**{**FULL, "learning_rate_init": 1e-30}).partial_fit(X, SCORES)
    model = pickle.loads(pickle.dumps(model))
    model.coefs_ = [np.zeros_like(w) for w in model.coefs_]
    model.partial_fit(X, SCORES)
    assert np.abs(model.coefs_[1]).max() < 1e-20  # and not those of the checkpoint


def test_warm_start_goes_on_from_the_weights():
    settings = {**STEPS, "max_iter": 4, "warm_start": True}
    ours, theirs = pair("multiclass", **settings)
    for _ in range(3):
        ours.fit(X, LABELS)
        theirs.fit(X, LABELS)
    assert_same_weights(ours, theirs, 1e-9)
    assert len(ours.loss_curve_) == len(theirs.loss_curve_) == 12
    assert (ours.t_, ours.n_iter_) == (theirs.t_, theirs.n_iter_)
    assert_same_weights(pickle.loads(pickle.dumps(ours)).fit(X, LABELS), ours.fit(X, LABELS), 0)


def test_tolerance_stops_where_scikit_learn_stops():
    settings = {**STEPS, "max_iter": 500, "tol": 1e-3, "n_iter_no_change": 3, "alpha": 0}
    ours, theirs = (model.fit(X, LABELS) for model in pair("multiclass", **settings))
    assert ours.n_iter_ == theirs.n_iter_ < 500
    assert ours.best_loss_ == pytest.approx(theirs.best_loss_)
    assert "did not improve more than tol=0.001000 for 3 consecutive epochs" in ours.history_.stopped_because


def test_convergence_warning_at_max_iter_alone():
    with pytest.warns(ConvergenceWarning, match=re.escape("Maximum iterations (2) reached")):
        FastNNRegressor(max_iter=2).fit(X, SCORES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FastNNRegressor(tol=1e9, n_iter_no_change=1).fit(X, SCORES)
        FastNNRegressor(max_iter=1).partial_fit(X, SCORES)


def test_verbose_prints_scikit_learns_lines(capsys):
    settings = {**STEPS, "max_iter": 3, "verbose": True, "early_stopping": True}
    ours, theirs = pair("multiclass", **settings)
    texts = []
    for model in (ours, theirs):
        model.fit(X, LABELS)
        texts.append(re.sub(r"loss = .*", "", capsys.readouterr().out))
    assert texts[0] == texts[1] != ""


def test_divergence_with_early_stopping_keeps_the_best_weights():
    model = FastNNRegressor(activation="identity", solver="sgd", learning_rate_init=1e3, early_stopping=True)
    with pytest.warns(ConvergenceWarning, match="diverged"):
        model.fit(X, SCORES)
    assert np.isnan(model.validation_scores_[-1])
    assert np.isfinite(model.predict(X)).all()
    with pytest.raises(ValueError, match=r"non-finite parameter weights.*learning rate 1000"):
        model.set_params(early_stopping=False).fit(X, SCORES)


@pytest.mark.parametrize("members", [1, 2])
def test_an_interrupted_fit_warns_and_leaves_a_usable_net(members):
    calls = []

    def loss(outputs, y):
        calls.append(len(y))
        if len(calls) == 8:
            raise KeyboardInterrupt
        return half_squared_error(outputs, y)

    model = FastNNRegressor(loss, **FULL, n_ensemble=members)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, SCORES)
    assert model.n_iter_ in range(1, 8)
    assert np.isfinite(model.predict(X)).all()


# ---- what goes in and comes out ----


def test_string_labels_and_class_names(tmp_path):
    names = np.array(["setosa", "virginica", "été"], dtype=object)
    model = FastNNClassifier(**FULL).fit(X, names[LABELS])
    assert set(model.predict(X)) <= set(names)
    assert model.classes_.tolist() == ["setosa", "virginica", "été"]
    model.net_.save(tmp_path / "m.safetensors")
    attached = fn.load(tmp_path / "m.safetensors")._attachments
    assert attached["class_names.utf8"].tobytes().decode() == "setosavirginicaété"
    assert attached["class_names.offsets"].tolist() == [0, 6, 15, 20]


def test_frames_keep_their_feature_names():
    pd = needed("pandas")
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = FastNNRegressor(**FULL, scale="standard", early_stopping=True).fit(frame, SCORES, eval_set=(frame, SCORES))
    assert model.feature_names_in_.tolist() == list("abcde")
    assert model.net_._attachments["feature_names.utf8"].tobytes() == b"abcde"
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("edcba")])


@pytest.mark.parametrize(
    ("x", "dtype", "computed"),
    [
        (np.float64, None, "float64"),
        (np.float32, None, "float32"),
        (np.uint8, None, "float32"),
        (np.float64, "float32", "float32"),
        (np.float32, "float64", "float64"),
    ],
)
def test_dtype_of_the_computation(x, dtype, computed):
    model = FastNNRegressor(**FULL, dtype=dtype).fit(np.abs(X).astype(x), SCORES)
    assert model.net_.dtype == model.coefs_[0].dtype == model.predict(X).dtype == computed


@pytest.mark.parametrize("form", ["csr_matrix", "csc_array", "coo_matrix"])
def test_sparse_features(form):
    sparse = needed("scipy.sparse")
    thin = np.where(np.abs(X) > 1, X, 0)
    model, other = FastNNClassifier(**FULL).fit(thin, LABELS), FastNNClassifier(**FULL)
    other.fit(getattr(sparse, form)(thin), LABELS)
    assert_same_weights(model, other, 0)
    np.testing.assert_array_equal(model.predict_proba(thin), model.predict_proba(getattr(sparse, form)(thin)))


def test_sparse_features_are_predicted_in_pieces(monkeypatch):
    sparse = needed("scipy.sparse")
    model = FastNNRegressor(**FULL).fit(X, SCORES)
    monkeypatch.setattr("fastnn.sklearn.base.DENSE_ELEMENTS", 35)
    np.testing.assert_array_equal(model.predict(sparse.csr_matrix(X)), model.predict(X))


def test_scaling_is_in_the_net_and_weighted():
    shifted = X * [1, 10, 100, 1e-3, 0] + [0, 5, -3, 2, 7]
    model = FastNNRegressor(**FULL, scale="standard").fit(shifted, SCORES, sample_weight=WEIGHTS)
    mean = np.average(shifted, axis=0, weights=WEIGHTS)
    deviation = np.sqrt(np.average((shifted - mean) ** 2, axis=0, weights=WEIGHTS))
    deviation[4] = 1
    np.testing.assert_allclose(model.net_.parameters()["0.mean"], mean)
    np.testing.assert_allclose(model.net_.parameters()["0.scale"], deviation)
    hidden = np.maximum((shifted - mean) / deviation @ model.coefs_[0] + model.intercepts_[0], 0)
    np.testing.assert_allclose(model.predict(shifted), hidden @ model.coefs_[1] + model.intercepts_[1])


def test_coefs_are_views_and_can_be_assigned():
    model = FastNNRegressor(**FULL).fit(X, SCORES)
    model.coefs_[1][...] = 0
    model.intercepts_ = [np.zeros(6), [1, 2, 3]]
    np.testing.assert_array_equal(model.predict(X), np.tile([1.0, 2, 3], (53, 1)))
    with pytest.raises(TypeError):
        model.coefs_[0] = np.zeros((5, 6))
    with pytest.raises(ValueError, match=re.escape("coefs_ must be arrays of the shapes [(5, 6), (6, 3)]")):
        model.coefs_ = [np.zeros((5, 6))]


def test_layers_of_the_net():
    model = FastNNClassifier(
        (4, 3), ["logistic", fn.ELU(0.5)], dropout=(0.1, 0, 0.25), batch_norm=True, scale="standard", max_iter=1
    ).fit(X, LABELS)
    assert list(model.net_.layers) == [
        fn.Standardize(),
        fn.Dropout(0.1),
        fn.Dense(4),
        fn.BatchNorm(),
        fn.Sigmoid(),
        fn.Dense(3),
        fn.BatchNorm(),
        fn.ELU(0.5),
        fn.Dropout(0.25),
        fn.Dense(3),
    ]
    assert [w.shape for w in model.coefs_] == [(5, 4), (4, 3), (3, 3)]
    assert (model.n_layers_, model.n_outputs_, model.out_activation_) == (4, 3, "softmax")
    plain = FastNNClassifier((4, 3), "gelu", dropout=0.5, max_iter=1).fit(X, LABELS)
    expected = [fn.Dense(4, "gelu"), fn.Dropout(0.5), fn.Dense(3, "gelu"), fn.Dropout(0.5), fn.Dense(3)]
    assert list(plain.net_.layers) == expected


@pytest.mark.parametrize(
    ("init", "spread"), [("zeros", 0), (fn.initializers.constant(0.5), 0), ("he_normal", np.sqrt(2 / 5))]
)
def test_init(init, spread):
    model = FastNNRegressor(hidden_layer_sizes=(2000,), init=init, learning_rate_init=1e-30, max_iter=1).fit(X, SCORES)
    assert model.coefs_[0].std() == pytest.approx(spread, rel=0.05)
    assert np.abs(model.intercepts_[0]).max() < 1e-20


def test_clipping_by_norm_and_value():
    def steps(**clipping):
        start = FastNNRegressor(**{**STEPS, "learning_rate_init": 1e-30, "alpha": 0}).fit(X, SCORES)
        model = FastNNRegressor(**{**STEPS, "learning_rate_init": 1.0, "alpha": 0}, **clipping).fit(X, SCORES)
        pairs = zip(model.coefs_ + model.intercepts_, start.coefs_ + start.intercepts_, strict=True)
        return np.concatenate([(before - now).ravel() for now, before in pairs])

    free = steps()
    norm = np.linalg.norm(free)
    assert norm > 0.2
    np.testing.assert_allclose(steps(clip_norm=0.1), free * 0.1 / norm, atol=1e-12)
    np.testing.assert_allclose(steps(clip_value=0.01), np.clip(free, -0.01, 0.01), atol=1e-12)
    np.testing.assert_allclose(steps(clip_value=(-0.02, 0.01)), np.clip(free, -0.02, 0.01), atol=1e-12)


def half_squared_error(outputs, y):
    assert outputs.shape == y.shape
    return 0.5 * np.mean(np.sum((outputs - y) ** 2, axis=1)), (outputs - y) / len(y)


@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
def test_own_loss_of_the_regressor(solver):
    settings = {**STEPS, "solver": solver, "max_iter": 3}
    own = FastNNRegressor(half_squared_error, **settings).fit(X, SCORES)
    named = FastNNRegressor(**settings).fit(X, SCORES)
    assert_same_weights(own, named, 1e-9)
    np.testing.assert_allclose(own.loss_, named.loss_, rtol=1e-9)


def squared_probabilities(outputs, y):
    assert outputs.shape == y.shape
    assert set(np.unique(y)) == {0, 1}
    return np.mean(np.sum((outputs - y) ** 2, axis=1)), 2 * (outputs - y) / len(y)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multi-label"])
def test_brier_is_the_squared_error_of_probabilities(kind):
    settings = {**STEPS, "max_iter": 40, "alpha": 0}
    brier = FastNNClassifier(**settings, loss="brier").fit(X, TARGETS[kind])
    own = FastNNClassifier(**settings, loss=squared_probabilities).fit(X, TARGETS[kind])
    assert_same_weights(brier, own, 1e-9)
    assert brier.loss_curve_[-1] < brier.loss_curve_[0]
    if kind != "multi-label":
        np.testing.assert_allclose(brier.predict_proba(X).sum(axis=1), 1)


def test_label_smoothing_gives_two_classes_two_outputs():
    model = FastNNClassifier(loss=fn.losses.CrossEntropy(0.2), **{**FULL, "max_iter": 3000, "alpha": 0})
    model.fit(X, TARGETS["binary"])
    assert (model.n_outputs_, model.out_activation_) == (2, "softmax")
    assert model.predict_proba(X).max() == pytest.approx(0.9, abs=0.08)


@pytest.mark.parametrize(("loss", "name"), [("mae", fn.losses.MAE()), ("huber", fn.losses.Huber())])
def test_losses_of_the_regressor_by_name_and_object(loss, name):
    one, other = (FastNNRegressor(x, **FULL).fit(X, SCORES) for x in (loss, name))
    assert_same_weights(one, other, 0)
    assert one.loss_curve_[-1] < one.loss_curve_[0]
    start = FastNNRegressor(loss, **{**FULL, "max_iter": 1, "learning_rate_init": 1e-30, "alpha": 0}).fit(X, SCORES)
    error = np.abs(SCORES - start.predict(X))
    each = error if loss == "mae" else np.where(error <= 1, error**2 / 2, error - 0.5)
    assert start.loss_ == pytest.approx(each.sum(axis=1).mean())


def test_own_optimizer():
    own = FastNNRegressor(**{**STEPS, "solver": fn.SGD(0.1, momentum=0.9, nesterov=True), "max_iter": 5}).fit(X, SCORES)
    named = FastNNRegressor(**{**STEPS, "momentum": 0.9, "max_iter": 5}).fit(X, SCORES)
    assert_same_weights(own, named, 0)
    assert FastNNRegressor(solver=fn.AdamW(0.01), max_iter=100).fit(X, SCORES).score(X, SCORES) > 0.8
    assert clone(own).solver == own.solver


def test_one_class():
    model = FastNNClassifier(**FULL).fit(X, np.full(53, "a"))
    assert model.predict(X).tolist() == ["a"] * 53
    np.testing.assert_array_equal(model.predict_proba(X), np.ones((53, 1)))


def test_no_hidden_layer_is_a_linear_model():
    model = FastNNRegressor(hidden_layer_sizes=(), solver="lbfgs", alpha=0, tol=1e-10).fit(X, X @ np.arange(5) + 3)
    np.testing.assert_allclose(model.coefs_[0].ravel(), np.arange(5), atol=1e-5)


# ---- ensembles ----


def test_an_ensemble_is_the_mean_of_its_nets():
    settings = {**FULL, "batch_size": 20, "dropout": 0.1}
    model = FastNNRegressor(**settings, n_ensemble=3).fit(X, SCORES)
    values = np.stack([net.predict(X) for net in model.nets_])
    assert np.ptp(values, axis=0).min() > 0
    mean, deviation = model.predict(X, return_std=True)
    np.testing.assert_allclose(mean, values.mean(axis=0))
    np.testing.assert_allclose(deviation, values.std(axis=0))
    np.testing.assert_array_equal(mean, model.predict(X))
    assert len(model.loss_curve_) == len(model.history_) == 3
    np.testing.assert_array_equal(FastNNRegressor(**settings).fit(X, SCORES).predict(X), values[0])
    for name in ("net_", "coefs_"):
        with pytest.raises(AttributeError, match="nets_"):
            getattr(model, name)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multi-label"])
def test_an_ensembles_probabilities(kind):
    model = FastNNClassifier(**FULL, n_ensemble=2, early_stopping=True).fit(X, TARGETS[kind])
    members = np.stack([net.predict_proba(X) for net in model.nets_])
    if kind == "binary":
        members = np.concatenate([1 - members, members], axis=2)
    mean, deviation = model.predict_proba(X, return_std=True)
    np.testing.assert_allclose(mean, members.mean(axis=0))
    np.testing.assert_allclose(deviation, members.std(axis=0))
    if kind != "multi-label":
        np.testing.assert_array_equal(model.predict(X), mean.argmax(axis=1))
    assert len(model.validation_scores_) == 2


def test_an_ensembles_partial_fit_survives_a_pickle():
    one = FastNNRegressor(**FULL, n_ensemble=2).partial_fit(X, SCORES)
    other = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(one.partial_fit(X, SCORES).predict(X), other.partial_fit(X, SCORES).predict(X))


# ---- scikit-learn's tools ----


@pytest.mark.long
def test_grid_search_in_processes():
    search = GridSearchCV(
        FastNNClassifier(max_iter=20, random_state=0), {"alpha": [1e-4, 10], "dropout": [0, 0.9]}, n_jobs=2, cv=3
    )
    search.fit(X, LABELS)
    assert len(set(search.cv_results_["mean_test_score"])) > 1
    assert search.best_estimator_.score(X, LABELS) == search.score(X, LABELS)


def test_pipeline_calibration_and_joblib(tmp_path):
    pipeline = make_pipeline(StandardScaler(), FastNNClassifier(**FULL)).fit(X, LABELS)
    joblib.dump(pipeline, tmp_path / "p.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "p.joblib").predict_proba(X), pipeline.predict_proba(X))
    calibrated = CalibratedClassifierCV(FastNNClassifier(**FULL), cv=3).fit(X, LABELS)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)
    assert not np.allclose(calibrated.predict_proba(X), pipeline.predict_proba(X))


# ---- bad arguments ----


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hidden_layer_sizes": (5, 0)}, "hidden_layer_sizes must be > 0"),
        ({"hidden_layer_sizes": (5.5,)}, "hidden_layer_sizes must be > 0"),
        ({"activation": "rely"}, "The 'activation' parameter of FastNNClassifier must be"),
        ({"activation": ["relu", "tanh"]}, "activation must have one entry per hidden layer (1)"),
        ({"activation": ["rely"]}, "Did you mean 'relu'?"),
        ({"solver": "sdg"}, "The 'solver' parameter"),
        ({"alpha": -1}, "The 'alpha' parameter"),
        ({"momentum": 1}, "The 'momentum' parameter"),
        ({"dropout": 1.0}, "The 'dropout' parameter"),
        ({"dropout": [0.5]}, "dropout must be a number or 2 of them"),
        ({"dropout": [0.5, 1.5]}, "dropout[1] must be a number in [0, 1)"),
        ({"clip_norm": 0}, "The 'clip_norm' parameter"),
        ({"clip_value": (1, 2, 3)}, "clip_value must be a number or (smallest, largest)"),
        ({"clip_value": (1, 2)}, "min must be a number in"),
        ({"clip_norm": 1, "clip_value": 1}, "give clip_norm or clip_value, not both"),
        ({"l1_ratio": 1.1}, "The 'l1_ratio' parameter"),
        ({"init": "he"}, "init must be a str among"),
        ({"scale": "minmax"}, "The 'scale' parameter"),
        ({"dtype": "float16"}, "The 'dtype' parameter"),
        ({"n_threads": 0}, "The 'n_threads' parameter"),
        ({"n_ensemble": 0}, "The 'n_ensemble' parameter"),
        ({"loss": "mse"}, "The 'loss' parameter"),
        ({"class_weight": "auto"}, "The 'class_weight' parameter"),
        ({"class_weight": {3: 1}}, "class_weight has the class 3"),
        ({"class_weight": {1: -1}}, "class_weight[1] must be a number in"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, "class_weight leaves every row the weight 0"),
        ({"batch_norm": True, "batch_size": 1}, "batch_size=1 is not possible with BatchNorm"),
        ({"solver": "lbfgs", "dropout": 0.5}, "solver='lbfgs' is not possible with dropout:"),
        ({"solver": "lbfgs", "batch_norm": True, "clip_norm": 1.0}, "not possible with batch_norm, clip_norm:"),
        ({"solver": "lbfgs", "l1_ratio": 0.5}, "not possible with l1_ratio:"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        FastNNClassifier(**parameters).fit(X, LABELS)


def test_bad_data():
    model = FastNNClassifier(**FULL)
    with pytest.raises(NotFittedError):
        model.predict(X)
    for name in ("coefs_", "net_", "loss_curve_", "best_loss_", "history_"):
        assert not hasattr(FastNNClassifier(early_stopping=True), name)
    with pytest.raises(ValueError, match="eval_set must be a tuple"):
        model.fit(X, LABELS, eval_set=X)
    with pytest.raises(ValueError, match="`y` has classes not in"):
        FastNNClassifier(**FULL).fit(X, LABELS, eval_set=(X[:1], [9]))
    with pytest.raises(ValueError, match="several columns of classes"):
        model.fit(X, np.stack([LABELS, LABELS], axis=1))
    with pytest.raises(ValueError, match="at least one non-zero number"):
        model.fit(X, LABELS, sample_weight=np.zeros(53))
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        model.fit(X, LABELS, sample_weight=-np.ones(53))
    with pytest.raises(ValueError, match="needs one class per row"):
        FastNNClassifier(class_weight={0: 2}).fit(X, TARGETS["multi-label"])
    with pytest.raises(ValueError, match="needs all rows"):
        FastNNClassifier(class_weight="balanced").partial_fit(X, LABELS, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="needs one class per row"):
        FastNNClassifier(loss=fn.losses.CrossEntropy()).fit(X, TARGETS["multi-label"])
    with pytest.raises(ValueError, match="batch_norm needs at least 2 rows, got n_samples = 1"):
        FastNNRegressor(batch_norm=True).fit(X[:1], SCORES[:1])
    with pytest.raises(ValueError, match=re.escape("y[")):
        FastNNRegressor("poisson").fit(X, SCORES)


def test_without_scikit_learn_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "fastnn.sklearn")
    with pytest.raises(
        ImportError, match=re.escape("fastnn.sklearn needs sklearn, which is not installed: pip install")
    ):
        importlib.import_module("fastnn.sklearn")


def test_what_does_not_fit_the_fitted_net():
    model = FastNNRegressor(**FULL).fit(X, SCORES)
    with pytest.raises(ValueError, match="return_std=True needs several nets"):
        model.predict(X, return_std=True)
    with pytest.raises(ValueError, match=re.escape("y has 1 output(s), but the net was built for 3")):
        model.partial_fit(X, SCORES[:, 0])
    for changed in ({"hidden_layer_sizes": (7,)}, {"batch_norm": True}, {"n_ensemble": 2}, {"dtype": "float32"}):
        with pytest.raises(ValueError, match="Clone the estimator"):
            clone(model).fit(X, SCORES).set_params(**changed, warm_start=True).fit(X, SCORES)
    labels = FastNNClassifier(**FULL).fit(X, LABELS)
    with pytest.raises(ValueError, match="unlike that of the first fit"):
        labels.partial_fit(X, TARGETS["multi-label"])
    assert not hasattr(FastNNClassifier(solver="lbfgs"), "partial_fit")


@pytest.mark.parametrize(
    ("changed", "y", "message"),
    [
        ({"class_weight": {7: 1}}, np.array(["u", "v"])[TARGETS["binary"]], "class_weight has the class 7"),
        ({"loss": fn.losses.CrossEntropy()}, TARGETS["multi-label"], "needs one class per row"),
        ({"learning_rate_init": 1e200, "solver": "sgd"}, TARGETS["binary"], "non-finite parameter weights"),
    ],
    ids=["class_weight", "loss", "divergence"],
)
def test_a_fit_that_fails_leaves_the_one_before(changed, y, message):
    model = FastNNClassifier(**FULL).fit(X, LABELS)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match=message):
        model.set_params(**changed).fit(X[:, :3], y)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert model.classes_.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=message):
        (new := clone(model)).fit(X, y)
    with pytest.raises(NotFittedError):
        new.predict(X)


def test_a_first_partial_fit_that_fails_does_not_fix_the_classes():
    model = FastNNClassifier(**FULL)
    with pytest.raises(ValueError, match="`y` has classes not in"):
        model.partial_fit(X, LABELS, classes=[0, 1])
    assert model.partial_fit(X, LABELS, classes=[0, 1, 2]).classes_.tolist() == [0, 1, 2]


def test_partial_fit_with_another_loss():
    one = FastNNRegressor(**FULL).partial_fit(X, SCORES).set_params(loss="huber", n_threads=1)
    one.partial_fit(X, SCORES)
    other = FastNNRegressor(**FULL).partial_fit(X, SCORES).partial_fit(X, SCORES)
    assert not np.array_equal(one.predict(X), other.predict(X))
    error = np.abs(SCORES - FastNNRegressor(**FULL).partial_fit(X, SCORES).predict(X))
    huber = np.where(error <= 1, error**2 / 2, error - 0.5).sum(axis=1).mean()
    assert one.history_["loss"] == [pytest.approx(huber)]
    with pytest.raises(ValueError, match="Clone the estimator"):  # the outputs would be logarithms from now on
        one.set_params(loss="poisson").partial_fit(X, np.abs(SCORES))
    assert one.out_activation_ == "identity"


@pytest.mark.parametrize("changed", [{"learning_rate_init": 1e-30}, {"solver": "adam"}])
def test_the_optimizer_of_partial_fit_stays_also_in_a_pickle(changed):
    one = FastNNRegressor(**FULL).partial_fit(X, SCORES)
    other = pickle.loads(pickle.dumps(one))
    moved = one.predict(X)
    for model in (one, other):
        model.set_params(**changed).partial_fit(X, SCORES)
    np.testing.assert_array_equal(one.predict(X), other.predict(X))
    assert not np.allclose(one.predict(X), moved)


@pytest.mark.parametrize("draws", [{"dropout": 0.5}, {"batch_size": 10}], ids=["masks", "shuffles"])
def test_warm_starts_draw_new_shuffles_and_masks(draws):
    """Plain SGD has no state but the net's, so that a fit of two epochs is two fits of one."""
    settings = {**FULL, "momentum": 0, "batch_size": 53, **draws}
    two = FastNNRegressor(**{**settings, "max_iter": 2}).fit(X, SCORES)
    one = FastNNRegressor(**{**settings, "max_iter": 1}, warm_start=True).fit(X, SCORES)
    kept = pickle.loads(pickle.dumps(one))
    for model in (one, kept):
        np.testing.assert_array_equal(model.fit(X, SCORES).predict(X), two.predict(X))
