"""Bad input: each row is a mistake users make, with the exception and what its message must say."""

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnn as fn

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(20, 3)).astype(np.float32)
Y = np.arange(20) % 4


def net(*layers, inputs=3, dtype="float32"):
    return fn.Sequential(list(layers) or [fn.Dense(4)], inputs, dtype=dtype)


def normalized():
    return net(fn.Dense(5), fn.BatchNorm(), fn.Dense(4))


def with_value(row, column, value, dtype=np.float64):
    x = X.astype(dtype)
    x[row, column] = value
    return x


class Sparse:
    """What a SciPy matrix looks like."""

    nnz, shape = 3, (20, 3)

    def toarray(self):
        return X


def trainer(*, make=net, **options):
    return fn.Trainer(make(), **{"batch_size": 10, **options})


def fit(x=X, y=Y, *, make=net, options=None, **arguments):
    return trainer(make=make, **(options or {})).fit(x, y, **{"epochs": 1, "verbose": 0, **arguments})


# (x, exception, message): the same for predict, fit and every other way in
FEATURES = {
    "1-D": (X[0], ValueError, r"Expected 2D array, got 1D array instead.*\(3,\).*array\.reshape\(-1, 1\)"),
    "3-D": (X[:, :, None], ValueError, r"Found array with dim 3, while dim <= 2 is required.*reshape"),
    "scalar": (1.0, ValueError, "Expected 2D array, got scalar array instead"),
    "0 rows": (
        X[:0],
        ValueError,
        r"Found array with 0 sample\(s\) \(shape=\(0, 3\)\) while a minimum of 1 is required",
    ),
    "0 columns": (X[:, :0], ValueError, r"0 feature\(s\) \(shape=\(20, 0\)\) while a minimum of 1 is required"),
    "NaN": (with_value(7, 2, np.nan), ValueError, "Input x contains NaN.*row 7, column 2"),
    "NaN in the last value": (
        with_value(19, 2, np.nan, np.float32),
        ValueError,
        "Input x contains NaN.*row 19, column 2",
    ),
    "infinity": (
        with_value(0, 0, -np.inf),
        ValueError,
        r"Input x contains infinity or a value too large.*row 0, column 0",
    ),
    "1e39": (with_value(3, 1, 1e39), ValueError, r"too large for dtype\('float32'\).*row 3, column 1.*1e\+39"),
    "NaN in float16": (with_value(3, 1, np.nan, np.float16), ValueError, "Input x contains NaN.*row 3, column 1"),
    "complex": (X + 1j, ValueError, "Complex data not supported"),
    "strings": ([["1", "2", "abc"]], ValueError, "could not convert string to float: 'abc'"),
    "dicts": (np.array([[{}, {}, {}]]), TypeError, "must be a string or a real number"),
    "dates": (np.zeros((2, 3), "M8[s]"), TypeError, "datetime64"),
    "sparse": (Sparse(), TypeError, r"Sparse data was passed for x.*Use '\.toarray\(\)'"),
    "ragged": ([[1, 2, 3], [1, 2]], ValueError, "x: .*inhomogeneous"),
    "masked": (np.ma.masked_less(X, 0), TypeError, "masked"),
    "None": (None, ValueError, r"x must be an array of shape \(n, 3\), got None"),
    "1 feature": (X[:, :1], ValueError, "x has 1 features, but the net is expecting 3 features as input"),
}


def labels_for(x):
    return np.zeros(len(x) if hasattr(x, "__len__") else 1, int)


WAYS_IN = {
    "predict": lambda x: net().predict(x),
    "predict_mc": lambda x: net().predict_mc(x),
    "predict_expected": lambda x: net().predict_expected(x),
    "activations": lambda x: net().activations(x),
    "recalibrate": lambda x: normalized().recalibrate(x),
    "forward": lambda x: net().forward(x),
    "fit": lambda x: fit(x, labels_for(x)),
    "train_step": lambda x: trainer().train_step(x, labels_for(x)),
    "evaluate": lambda x: net().evaluate(x, labels_for(x)),
}


@pytest.mark.parametrize("mistake", FEATURES)
@pytest.mark.parametrize("way", WAYS_IN)
def test_features(way, mistake):
    x, error, message = FEATURES[mistake]
    with pytest.raises(error, match=message):
        WAYS_IN[way](x)


def test_matrix():
    with pytest.warns(PendingDeprecationWarning):
        x = np.matrix(X)
    with pytest.raises(TypeError, match=r"np\.matrix is not supported.*np\.asarray"):
        net().predict(x)


def own_loss(y_pred, y):
    return 0.0, np.zeros_like(y_pred)


def mse(**arguments):
    return lambda: fit(options={"loss": "mse"}, make=lambda: net(fn.Dense(1)), **arguments)


ONE_NAN = np.where(np.arange(20) == 5, np.nan, 1.0)
CALLS = {
    # targets
    "lengths": (lambda: fit(y=Y[:19]), ValueError, r"inconsistent numbers of samples: \[20, 19\]"),
    "y None": (lambda: fit(y=None), ValueError, "requires y to be passed, but the target y is None"),
    "y scalar": (lambda: fit(y=3), ValueError, "one entry per sample"),
    "continuous y": (lambda: fit(y=Y + 0.5), ValueError, "Unknown label type.*mse"),
    "string labels": (lambda: fit(y=np.array(["a"] * 20)), ValueError, "Unknown label type"),
    "label too large": (
        lambda: fit(y=np.where(np.arange(20) == 17, 10, Y)),
        ValueError,
        r"y\[17\] = 10, but the output layer has 4 units \(valid 0\.\.3\)",
    ),
    "label negative": (lambda: fit(y=np.where(np.arange(20) == 2, -1, Y)), ValueError, r"y\[2\] = -1, but the output"),
    "label 2**40": (lambda: fit(y=np.where(np.arange(20) == 2, 2**40, Y)), ValueError, r"y\[2\] = 1099511627776"),
    "NaN in labels": (lambda: fit(y=ONE_NAN), ValueError, r"Input y contains NaN.*y\[5\]"),
    "NaN in values": (mse(y=ONE_NAN), ValueError, r"Input y contains NaN.*y\[5"),
    "inf in values": (mse(y=ONE_NAN * np.inf), ValueError, "Input y contains"),
    "1e39 in values": (mse(y=np.full(20, 1e39)), ValueError, r"Input y .*too large for dtype\('float32'\)"),
    "complex y": (mse(y=Y + 1j), ValueError, "Complex data not supported: y"),
    "shape of values": (
        mse(y=np.zeros((20, 2))),
        ValueError,
        r"y has shape \(20, 2\), but the net has 1 output.*\(20, 1\)",
    ),
    "shape of one-hot": (
        lambda: fit(y=np.eye(5)[Y]),
        ValueError,
        r"y has shape \(20, 5\).*\(20, 4\), or 20 integer labels",
    ),
    "probabilities of sum 0.5": (
        lambda: fit(y=np.eye(4)[Y] * np.where(np.arange(20) == 6, 0.5, 1)[:, np.newaxis]),
        ValueError,
        r"y\[6\] sums to 0\.5, but rows of probabilities.* must sum to 1",
    ),
    "negative probability": (lambda: fit(y=np.eye(4)[Y] - 0.5), ValueError, r"y\[0, 1\] = -0\.5.*>= 0"),
    "binary target 2": (
        lambda: fit(y=Y, options={"loss": "binary_cross_entropy"}, make=lambda: net(fn.Dense(1))),
        ValueError,
        r"y\[2\] = 2, but binary_cross_entropy needs values in \[0, 1\]",
    ),
    "negative count": (
        lambda: fit(y=Y - 1, options={"loss": "poisson"}, make=lambda: net(fn.Dense(1))),
        ValueError,
        r"y\[0\] = -1, but poisson needs values >= 0",
    ),
    # weights
    "weights short": (
        lambda: fit(sample_weight=np.ones(3)),
        ValueError,
        r"sample_weight\.shape == \(3,\), expected \(20,\)!",
    ),
    "weights 2-D": (lambda: fit(sample_weight=np.ones((20, 1))), ValueError, r"sample_weight\.shape == \(20, 1\)"),
    "weights negative": (
        lambda: fit(sample_weight=Y - 1.0),
        ValueError,
        "Negative values in data passed to `sample_weight`",
    ),
    "weights zero": (lambda: fit(sample_weight=np.zeros(20)), ValueError, "must contain at least one non-zero number"),
    "weights NaN": (lambda: fit(sample_weight=ONE_NAN), ValueError, r"Input sample_weight contains NaN"),
    "weights, own loss": (
        lambda: fit(sample_weight=np.ones(20), options={"loss": own_loss}),
        ValueError,
        r"f\(y_pred, y, sample_weight\)",
    ),
    "class weights, own loss": (
        lambda: fit(class_weight={0: 2}, options={"loss": own_loss}),
        ValueError,
        "class_weight",
    ),
    "class_weight name": (lambda: fit(class_weight="balance"), TypeError, "class_weight must be"),
    "class_weight label": (
        lambda: fit(class_weight={7: 1.0}),
        ValueError,
        r"class_weight must be an int in 0\.\.3, got 7",
    ),
    "class_weight 0": (lambda: fit(class_weight=dict.fromkeys(range(4), 0)), ValueError, "every sample the weight 0"),
    "class_weight value": (lambda: fit(class_weight={1: -1.0}), ValueError, r"class_weight\[1\]"),
    "class_weight values": (mse(class_weight={0: 1.0}, y=Y + 0.5), ValueError, "class_weight needs integer labels"),
    "sample_weight balanced": (
        lambda: fit(sample_weight="balanced"),
        TypeError,
        "sample_weight must be an array of one number >= 0 per sample, or None, got 'balanced'.*class_weight",
    ),
    # batches
    "batch_size 0": (lambda: trainer(batch_size=0), ValueError, "batch_size must be an int >= 1, got 0"),
    "batch_size -1": (lambda: trainer(batch_size=-1), ValueError, "batch_size must be an int >= 1, got -1"),
    "batch_size 2.5": (lambda: trainer(batch_size=2.5), TypeError, "batch_size must be an int >= 1, got 2.5"),
    "batch_size all": (lambda: trainer(batch_size="all"), ValueError, "'full'"),
    "micro_batch 0": (lambda: trainer(micro_batch=0), ValueError, r"micro_batch must be an int in 1\.\.\d+, got 0"),
    "micro_batch 2**70": (lambda: trainer(micro_batch=2**70), ValueError, "micro_batch must be an int in"),
    "micro_batch, own loss": (lambda: trainer(micro_batch=4, loss=own_loss), ValueError, "micro_batch.*own loss"),
    "batchnorm, batch_size 1": (lambda: trainer(make=normalized, batch_size=1), ValueError, "batch_size=1.*BatchNorm"),
    "batchnorm, micro_batch 1": (
        lambda: trainer(make=normalized, micro_batch=1),
        ValueError,
        "micro_batch=1.*BatchNorm",
    ),
    "batchnorm, 1 row": (
        lambda: fit(X[:1], Y[:1], make=normalized),
        ValueError,
        r"Expected more than 1 value per channel when training, got input size \(1, 3\).*n_samples = 1",
    ),
    "batchnorm, step of 1 row": (
        lambda: trainer(make=normalized).train_step(X[:1], Y[:1]),
        ValueError,
        "more than 1 value",
    ),
    "batchnorm, forward of 1 row": (lambda: normalized().forward(X[:1]), ValueError, "more than 1 value"),
    # validation
    "validation_split tiny": (
        lambda: fit(validation_split=0.01),
        ValueError,
        "The validation set is too small. Increase",
    ),
    "validation_split 1": (
        lambda: fit(validation_split=1.0),
        ValueError,
        r"validation_split must be a number in \[0, 1\)",
    ),
    "two validations": (lambda: fit(validation_split=0.5, validation_data=(X, Y)), ValueError, "not both"),
    "validation_data alone": (lambda: fit(validation_data=X), ValueError, r"tuple \(x, y\)"),
    "validation labels": (lambda: fit(validation_data=(X, Y + 7)), ValueError, r"validation y\[0\] = 7"),
    "validation features": (lambda: fit(validation_data=(X[:, :2], Y)), ValueError, "validation x has 2 features"),
    # settings
    "units overflow": (lambda: net(fn.Dense(2**40), fn.Dense(2**40)), ValueError, "array is too big.*layer 1"),
    "memory": (lambda: net(fn.Dense(2**20), fn.Dense(2**26)), MemoryError, "Unable to allocate.*layer 1"),
    "input_size 0": (lambda: fn.Sequential([fn.Dense(1)], 0), ValueError, "input_size must be an int in 1.*got 0"),
    "no layers": (lambda: fn.Sequential([], 3), ValueError, "at least one layer"),
    "a layer alone": (lambda: fn.Sequential(fn.Dense(1), 3), TypeError, "layers must be a list"),
    "a class as layer": (lambda: fn.Sequential([fn.Dense(1), fn.ReLU], 3), TypeError, r"layers\[1\] is the class ReLU"),
    "a string as layer": (lambda: fn.Sequential(["relu"], 3), TypeError, r"layers\[0\] must be a layer"),
    "late Standardize": (lambda: net(fn.Dense(1), fn.Standardize()), ValueError, r"layers\[1\] is Standardize.*first"),
    "Standardize size": (lambda: net(fn.Standardize([1, 2], [1, 2])), ValueError, "mean has 2 values, expected 3"),
    "dtype": (
        lambda: net(dtype="float16"),
        ValueError,
        "dtype must be a str among {'float32', 'float64'}, got 'float16'",
    ),
    "dtype None": (lambda: net(dtype=None), TypeError, "dtype must be a str among .*got None"),
    "Scale underflows": (lambda: net(fn.Scale(1e-50)), ValueError, r"layers\[0\] \(Scale\): factor = 1e-50 .*float32"),
    "late Scale overflows": (lambda: net(fn.Dense(2), fn.Scale(1e39)), ValueError, r"layers\[1\] \(Scale\)"),
    "Standardize scale underflows": (
        lambda: net(fn.Standardize(0.0, [1, 1e-50, 1])),
        ValueError,
        "scale = 1e-50 does not fit float32",
    ),
    "Standardize mean overflows": (lambda: net(fn.Standardize(1e39, 1.0)), ValueError, r"mean = 1e\+39 does not fit"),
    "pickle damaged": (
        lambda: pickle.loads(pickle.dumps(net()).replace(b"dense(units=4", b"dense(units=5")),
        fn.ModelFileError,
        "the header is damaged",
    ),
    "seed -1": (lambda: fn.Sequential([fn.Dense(1)], 3, seed=-1), ValueError, "seed must be an int in 0.*got -1"),
    "seed abc": (lambda: fn.Sequential([fn.Dense(1)], 3, seed="abc"), TypeError, "seed must be an int.*'abc'"),
    "loss misspelt": (lambda: trainer(loss="crossentropy"), ValueError, "loss must be .*Did you mean 'cross_entropy'"),
    "one class": (
        lambda: trainer(make=lambda: net(fn.Dense(1))),
        ValueError,
        "cross_entropy needs at least 2 outputs; use binary_cross_entropy",
    ),
    "one class, evaluate": (lambda: net(fn.Dense(1)).evaluate(X, Y), ValueError, "at least 2 outputs"),
    "loss number": (lambda: trainer(loss=3), TypeError, "loss must be a loss, a function or a name"),
    "optimizer misspelt": (lambda: trainer(optimizer="adma"), ValueError, "optimizer must be.*Did you mean 'adam'"),
    "optimizer class": (lambda: trainer(optimizer=fn.Adam), TypeError, r"Adam\(\.\.\.\)"),
    "metric misspelt": (lambda: trainer(metrics=("acuracy",)), ValueError, "a metric must be.*Did you mean 'accuracy'"),
    "metrics string": (lambda: trainer(metrics="accuracy"), TypeError, r"\('accuracy',\)"),
    "clip number": (lambda: trainer(clip=1.0), TypeError, "clip must be ClipValue"),
    "regularizer number": (lambda: trainer(regularizer=1e-4), TypeError, "regularizer must be a penalty"),
    "net list": (lambda: fn.Trainer([fn.Dense(1)]), TypeError, r"net must be a fastnn\.Sequential"),
    "lr 0": (lambda: fn.SGD(0), ValueError, r"lr must be a number in \(0, inf\), got 0"),
    "lr -1": (lambda: fn.Adam(-1), ValueError, r"lr must be a number in \(0, inf\), got -1"),
    "lr NaN": (lambda: fn.RMSprop(float("nan")), ValueError, "lr must be a number.*got nan"),
    "lr str": (lambda: fn.AdamW("fast"), ValueError, r"lr must be a number in \(0, inf\) or a schedule, got 'fast'"),
    "momentum 1": (lambda: fn.SGD(0.1, momentum=1), ValueError, r"momentum must be a number in \[0, 1\), got 1"),
    "nesterov alone": (lambda: fn.SGD(0.1, nesterov=True), ValueError, "needs momentum > 0"),
    "betas": (lambda: fn.Adam(betas=0.9), TypeError, "betas must be two numbers"),
    "beta 1": (lambda: fn.Adam(betas=(0.9, 1.0)), ValueError, r"betas\[1\]"),
    "n_threads 0": (lambda: trainer(n_threads=0), ValueError, r"n_threads must be an int in 1\.\.4096 .*None.*got 0"),
    "n_threads 2**40": (lambda: net().predict(X, n_threads=2**40), ValueError, "n_threads must be an int in"),
    "set_num_threads 2**70": (lambda: fn.set_num_threads(2**70), ValueError, "n_threads must be an int in"),
    "n_threads -5": (lambda: net().predict(X, n_threads=-5), ValueError, "all available processors.*got -5"),
    "n_threads 1.5": (lambda: net().predict(X, n_threads=1.5), TypeError, "n_threads must be an int"),
    "n_threads all": (lambda: fn.set_num_threads("all"), TypeError, "n_threads must be an int"),
    "epochs 0": (lambda: fit(epochs=0), ValueError, "epochs must be an int >= 1, got 0"),
    "verbose 2": (lambda: fit(verbose=2), ValueError, r"verbose must be an int in 0\.\.1"),
    "verbose abc": (lambda: fit(verbose="abc"), TypeError, r"verbose must be an int in 0\.\.1, got 'abc'"),
    "shuffle abc": (lambda: fit(shuffle="abc"), TypeError, "shuffle must be True or False, got 'abc'"),
    "callback alone": (
        lambda: fit(callbacks=fn.EarlyStopping()),
        TypeError,
        r"callbacks must be a list.*Write callbacks=\[\.\.\.\]",
    ),
    "callback class": (lambda: fit(callbacks=[fn.EarlyStopping]), TypeError, r"EarlyStopping\(\.\.\.\)"),
    "callback number": (lambda: fit(callbacks=[3]), TypeError, "a callback must be"),
    "rate of a schedule": (
        lambda: fit(options={"optimizer": fn.SGD(lambda step: 0.1 - step)}),
        ValueError,
        "the schedule gave the learning rate -0.9 at step 1",
    ),
    "word of a schedule": (
        lambda: fit(options={"optimizer": fn.SGD(lambda step: "0.1")}),
        TypeError,
        "the schedule gave '0.1' of type str at step 0, not a number",
    ),
    "epochs without fit": (
        lambda: trainer(optimizer=fn.SGD(fn.schedules.cosine(0.1, 3, per="epoch"))).train_step(X, Y),
        ValueError,
        "counts epochs",
    ),
    # prediction
    "no statistics": (
        lambda: net(fn.Standardize(), fn.Dense(1)).predict(X),
        ValueError,
        r"Standardize\(\) has no statistics",
    ),
    "no probabilities": (lambda: net().predict_proba(X), ValueError, "predict_proba needs a net that ends with"),
    "samples 0": (lambda: net().predict_mc(X, samples=0), ValueError, r"samples must be an int in 1\.\.\d+, got 0"),
    "samples 2**70": (lambda: net().predict_mc(X, samples=2**70), ValueError, "samples must be an int in"),
    "too many masks": (
        lambda: net(fn.Dense(50), fn.Dropout(0.5), fn.Dense(1)).predict_expected(X),
        ValueError,
        r"2\*\*50 masks of 50 units.*max_masks = 1048576.*predict_mc",
    ),
    "out read-only": (lambda: net().predict(X, out=read_only()), ValueError, "output array is read-only"),
    "out shape": (lambda: net().predict(X, out=np.empty((20, 3), "f4")), ValueError, r"\(20, 3\), expected \(20, 4\)"),
    "out dtype": (lambda: net().predict(X, out=np.empty((20, 4))), ValueError, "out is float64.*must be float32"),
    "out strided": (lambda: net().predict(X, out=np.empty((20, 8), "f4")[:, ::2]), ValueError, "not C-contiguous"),
    "out list": (lambda: net().predict(X, out=[]), TypeError, "out must be a numpy array"),
    "out overlaps": (lambda: overlapping(), ValueError, "out overlaps x"),
    "dloss_dy str": (
        lambda: forward_then_backward("a"),
        ValueError,
        "dloss_dy: could not convert string to float: 'a'",
    ),
    "dloss_dy complex": (lambda: forward_then_backward(np.zeros((20, 4), complex)), ValueError, "Complex.*dloss_dy"),
    "dloss_dy shape": (lambda: forward_then_backward(np.zeros((20, 3))), ValueError, r"\(20, 3\), expected \(n, 4\)"),
}


def read_only():
    out = np.empty((20, 4), np.float32)
    out.flags.writeable = False
    return out


def overlapping():
    x = np.zeros((20, 4), np.float32)
    net(inputs=4).predict(x, out=x)


def forward_then_backward(gradient):
    one = net()
    one.forward(X)
    one.backward(gradient)


@pytest.mark.parametrize("mistake", CALLS)
def test_calls(mistake):
    call, error, message = CALLS[mistake]
    with pytest.raises(error, match=message):
        call()


# ---- warnings, and what must work ----


def test_a_batch_larger_than_the_data_is_clipped():
    with pytest.warns(UserWarning, match=r"larger than sample size\. It is going to be clipped: 50 to 20") as caught:
        fit(options={"batch_size": 50})
    assert Path(caught[0].filename).name == Path(__file__).name


def test_a_column_of_labels_is_flattened():
    with pytest.warns(UserWarning, match=r"A column-vector y was passed when a 1d array was expected.*ravel\(\)"):
        column = fit(y=Y[:, np.newaxis])
    assert column["loss"] == fit()["loss"]


def test_warnings_point_at_the_users_line():
    one, column = trainer(), Y[:, np.newaxis]
    for call in (
        lambda: one.fit(X, column, epochs=1, verbose=0, validation_data=(X, column)),
        lambda: one.train_step(X, column),
        lambda: one.net.evaluate(X, column),
    ):
        with pytest.warns(UserWarning, match="column-vector") as caught:
            call()
        assert {(warning.filename, warning.lineno) for warning in caught} == {(__file__, call.__code__.co_firstlineno)}


REFUSES_THREADS = """
import warnings, numpy as np, fastnn as fn
from fastnn import _core
_core._fail_thread_start(1, True)
net = fn.Sequential([fn.Dense(512), fn.Dense(512)], 512)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        net.predict(np.ones((4096, 512), "f4"), n_threads=2)
assert _core.thread_failures() > 0
assert [str(w.message).split(":")[0] for w in caught] == ["The system refused 1 thread(s)"], caught
assert caught[0].filename == "<string>" and caught[0].category is RuntimeWarning
"""


def test_refused_threads_are_told_once():
    subprocess.run([sys.executable, "-c", REFUSES_THREADS], check=True)


@pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy])
def test_a_copied_net_is_independent(make_copy):
    one = net()
    twin = make_copy(one)
    np.testing.assert_array_equal(twin.predict(X), one.predict(X))
    twin.parameters()["0.weight"][...] = 0
    assert one.parameters()["0.weight"].any()


def test_verbose_may_be_a_boolean(capsys):
    fit(verbose=True)
    assert capsys.readouterr().out.startswith("epoch 1/1")


def test_one_class_alone_is_allowed():
    fit(y=np.zeros(20, int))


@pytest.mark.parametrize("rows", [11, 21])
def test_a_remainder_of_one_row_joins_the_batch_before(rows):
    x = RANDOM.normal(size=(rows, 3))
    history = fit(x, np.zeros(rows, int), make=normalized, epochs=2)
    assert np.isfinite(history["loss"]).all()


def test_more_threads_than_processors_are_allowed():
    np.testing.assert_array_equal(net().predict(X, n_threads=64), net().predict(X, n_threads=1))


# ---- divergence ----


def test_divergence_names_epoch_step_and_layer_and_keeps_the_weights():
    x, y = X * 1e15, np.ones(20)
    one = net(fn.Dense(4), fn.Dense(1))
    one_trainer = fn.Trainer(one, loss="mse", optimizer=fn.SGD(1e8), batch_size=10)
    with pytest.raises(fn.DivergenceError) as caught:
        one_trainer.fit(x, y, epochs=5, verbose=0)
    error = caught.value
    assert isinstance(error, ValueError)
    assert re.match(r"Training diverged at epoch \d+, step \d+: loss = \S+, ", str(error))
    assert "learning rate 1e+08. Weights of the step before are kept." in str(error)
    assert error.learning_rate == 1e8
    assert all(np.isfinite(view).all() for view in one.parameters().values())
    assert one_trainer.failed
    assert one_trainer.history.stopped_because == "DivergenceError"


def test_divergence_survives_a_pickle():
    error = fn.DivergenceError(epoch=2, step=5, loss=np.inf, layer=1, layer_name="Dense", learning_rate=0.1)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is fn.DivergenceError
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_divergence_of_an_own_loss():
    def loss(y_pred, y):
        return float("nan"), np.zeros_like(y_pred)

    one = net()
    before = one.parameters()["0.weight"].copy()
    with pytest.raises(fn.DivergenceError, match="epoch 1, step 1: loss = nan, learning rate"):
        fn.Trainer(one, loss=loss, batch_size=10).fit(X, Y, epochs=1, verbose=0)
    np.testing.assert_array_equal(one.parameters()["0.weight"], before)


# ---- one road for plain arrays, another for all others: the same results and errors ----


def outcome(predict):
    """What predict returns, as bytes, or the exception that it raises."""
    try:
        result = predict()
    except (ValueError, TypeError) as error:
        return type(error), str(error)
    return result.dtype, result.shape, result.tobytes()


def both_roads(monkeypatch, engine_owner, *arguments, **named):
    """The outcomes with and without the plain road."""
    first = outcome(lambda: engine_owner.predict(*arguments, **named))
    with monkeypatch.context() as patch:
        patch.setattr(fn.Sequential, "predict", lambda self, x, out=None: self._predict_any(x, out, None))
        return first, outcome(lambda: engine_owner.predict(*arguments, **named))


def array_like(values, **flags):
    array = np.array(values)
    array.setflags(**flags)
    return array


PLAIN_OR_NOT = {
    "plain": X,
    "one row": X[:1],
    "read-only": array_like(X, write=False),
    "float64": X.astype("f8"),
    "big-endian": X.astype(">f4"),
    "uint8": X.astype("u1"),
    "fortran": np.asfortranarray(X),
    "every other row": X[::2],
    "backwards": X[::-1],
    "unaligned": np.frombuffer(b"x" + X.tobytes(), np.uint8)[1:].view("f4").reshape(X.shape),
    "masked": np.ma.MaskedArray(X, np.zeros(X.shape, bool)),
    "list": X.tolist(),
    "NaN": with_value(19, 2, np.nan, "f4"),
    "infinity": with_value(0, 0, -np.inf, "f4"),
    "no rows": X[:0],
    "columns": np.ones((20, 4), "f4"),
    "one-dimensional": X[0],
    "scalar": np.float32(1),
    "three-dimensional": X[None],
    "complex": X.astype("c8"),
    "None": None,
}


@pytest.mark.parametrize("x", PLAIN_OR_NOT.values(), ids=PLAIN_OR_NOT)
@pytest.mark.parametrize("layers", [(), (fn.Standardize(mean=[1.0], scale=[2.0]), fn.Dense(4)), (fn.Identity(),)])
def test_the_plain_road_of_predict_agrees_with_the_other(x, layers, monkeypatch):
    subject = net(*layers)
    fast, slow = both_roads(monkeypatch, subject, x)
    assert fast == slow
    assert outcome(lambda: subject.predict(x, n_threads=1)) == slow


def test_the_plain_road_is_taken():
    engine = net()._engine
    assert engine.predict_plain(X).tobytes() == net().predict(X.tolist()).tobytes()
    assert engine.predict_plain(with_value(3, 1, np.nan, "f4")) is None
    assert engine.predict_plain(X, np.empty((20, 4), "f4")[::-1]) is None


def test_predicting_allocates_nothing_but_the_result():
    for subject in (net(fn.Dense(70, "relu"), fn.Dense(4)), net(fn.Dense(70, "relu"), fn.Dense(4)).fold()):
        out = np.empty((20, 4), "f4")
        subject.predict(X, out=out)
        before = fn._core.allocation_count()
        for _ in range(1000):
            assert subject.predict(X, out=out) is out
            subject.predict(X[:1])
        assert fn._core.allocation_count() == before
