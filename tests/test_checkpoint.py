"""Checkpoints: a resumed run has the bits of one that never stopped; whole files at every moment; what is refused."""

import csv
import errno
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import fastnn as fn
from fastnn import _core, checkpoint, schedules

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(37, 5))
LABELS = RANDOM.integers(0, 3, 37)
VALUES = RANDOM.normal(size=(37, 3))
IN_ALL = 3  # epochs of the runs below, of 5 batches each


def own_loss(y_pred, y, sample_weight=None):
    w = np.ones(len(y)) if sample_weight is None else sample_weight
    difference = y_pred - np.eye(3)[y]
    per_row = (w / w.sum())[:, np.newaxis]
    return float((per_row * difference**2).sum()), 2 * per_row * difference


def own_metric(y_true, y_pred):
    return float(np.mean(np.argmax(y_pred, axis=1) == y_true))


def own_schedule(step):
    return 0.1 / (1 + step)


def layers(dropout=True):
    return [fn.Dense(8), fn.BatchNorm(), fn.ReLU(), *([fn.Dropout(0.5)] if dropout else []), fn.Dense(3)]


def make(net=None, dtype="float32", seed=1, input_size=5, **options):
    net = fn.Sequential(net or layers(), input_size, dtype=dtype, seed=seed)
    return fn.Trainer(net, **{"optimizer": fn.Adam(1e-2), "batch_size": 8, **options})


def digest(net):
    """Of the parameters and moments, and the counters of the engine."""
    arrays = list(net.parameters().values())
    for i, (_, _, trainable, _) in enumerate(net._engine.tensors()):
        arrays += net._engine.moments(i) if trainable else []
    text = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    return hashlib.sha256(text).hexdigest(), net._engine.passes, net._engine.updates


def columns(history):
    """All but the time it took."""
    return {name: values for name, values in history.items() if name != "seconds"}


def run(trainer, *added, epochs=IN_ALL, callbacks=lambda: (), x=X, y=LABELS, **arguments):
    return trainer.fit(x, y, epochs=epochs, verbose=0, callbacks=[*callbacks(), *added], **arguments)


def step_files(folder):
    return sorted(Path(folder).glob("step-*.safetensors"))


def names_of(paths):
    return [path.name for path in paths]


def assert_resumes_everywhere(folder, make, **arguments):
    """From every step of a run, in new trainers: the same parameters, moments and history as the uninterrupted run."""
    trainer = make()
    history = run(trainer, **arguments)
    expected = digest(trainer.net), columns(history), history.stopped_because, history.best_epoch
    trainer = make()
    watched = run(trainer, fn.Checkpoint(folder, every_steps=1, keep_last=100), **arguments)
    assert (digest(trainer.net), columns(watched), watched.stopped_because, watched.best_epoch) == expected
    files = step_files(folder)
    assert len(files) >= 3
    for file in files:
        trainer = make()
        trainer.resume(file)
        resumed = run(trainer, **arguments)
        assert (digest(trainer.net), columns(resumed), resumed.stopped_because, resumed.best_epoch) == expected, file
    return files


# ---- the same bits ----

OPTIMIZERS = {
    "momentum": fn.SGD(0.1, 0.9),
    "nesterov": fn.SGD(0.1, 0.9, nesterov=True),
    "rmsprop": fn.RMSprop(1e-2),
    "adam": fn.Adam(1e-2),
    "adamw": fn.AdamW(1e-2),
}


@pytest.mark.parametrize("dropout", [False, True], ids=["plain", "dropout"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_resumed_at_any_batch_is_the_uninterrupted_run(name, dropout, tmp_path):
    files = assert_resumes_everywhere(tmp_path, lambda: make(layers(dropout), optimizer=OPTIMIZERS[name]))
    assert [int(file.stem[5:]) for file in files] == list(range(1, 16))


WEIGHTS = RANDOM.uniform(0.5, 2, 37)
WITHOUT_A_BATCH = np.where(np.arange(37) // 8 == 1, 0.0, WEIGHTS)  # the second batch is skipped
MANY_X, MANY_LABELS = RANDOM.normal(size=(2000, 5)), RANDOM.integers(0, 3, 2000)  # the last batch is short
FREEZING = [fn.Dense(8, trainable=False), fn.BatchNorm(trainable=False), fn.ReLU(), fn.Dense(3)]


def stopping():
    return [fn.EarlyStopping("val_loss", min_delta=10.0, patience=2, restore_best=True)]


def reducing():
    return [fn.ReduceLROnPlateau("val_loss", patience=1, min_delta=10.0, cooldown=1)]


RUNS = {
    "metrics": (lambda: make(metrics=("accuracy", own_metric)), {"validation_split": 0.2}),
    "validation": (make, {"validation_data": (X[:9], LABELS[:9], WEIGHTS[:9])}),
    "standardize": (lambda: make([fn.Standardize(), *layers()]), {}),
    "given statistics": (lambda: make([fn.Standardize(0.5, 2.0), *layers()]), {}),
    "frozen layers": (lambda: make(FREEZING), {}),
    "float64": (lambda: make(dtype="float64"), {}),
    "bytes": (
        lambda: make([fn.Scale(1 / 255), *layers()]),
        {"x": RANDOM.integers(0, 256, (37, 5)).astype(np.uint8)},
    ),
    "full batches": (lambda: make(batch_size="full"), {}),
    "one batch too large": (lambda: make(batch_size=36), {}),
    "micro-batches": (lambda: make(micro_batch=3, clip=fn.ClipNorm(0.1)), {}),
    "penalties": (lambda: make(regularizer=fn.L1(1e-3, proximal=True), clip=fn.ClipValue(-0.1, 0.1)), {}),
    "file order": (make, {"shuffle": False}),
    "sample weights": (lambda: make(metrics=("accuracy",)), {"sample_weight": WEIGHTS}),
    "a skipped batch": (
        lambda: make(metrics=("accuracy",)),
        {"sample_weight": WITHOUT_A_BATCH, "shuffle": False},
    ),
    "class weights": (make, {"class_weight": "balanced", "sample_weight": WEIGHTS}),
    "long batches, in blocks of rows": (
        lambda: make([fn.Dense(64, "relu"), fn.Dropout(0.5), fn.Dense(3)], batch_size=600, optimizer=fn.SGD(0.1)),
        {"x": MANY_X, "y": MANY_LABELS},
    ),
    "values": (lambda: make(loss="mse", metrics=("r2",)), {"y": VALUES}),
    "own loss": (lambda: make(loss=own_loss, metrics=(own_metric,)), {}),
    "own loss, weights": (
        lambda: make(loss=own_loss, metrics=(own_metric,)),
        {"sample_weight": WITHOUT_A_BATCH, "shuffle": False},
    ),
    "schedule per step": (lambda: make(optimizer=fn.SGD(schedules.one_cycle(0.5, 15), 0.9)), {}),
    "schedule per epoch": (lambda: make(optimizer=fn.SGD(schedules.exponential(0.5, 0.3, per="epoch"))), {}),
    "own schedule": (lambda: make(optimizer=fn.SGD(own_schedule)), {}),
    "early stopping": (make, {"validation_split": 0.2, "callbacks": stopping, "epochs": 6}),
    "no patience": (
        make,
        {"validation_split": 0.2, "callbacks": lambda: [fn.EarlyStopping(min_delta=10.0, patience=0)], "epochs": 3},
    ),
    "plateau": (make, {"validation_split": 0.2, "callbacks": reducing, "epochs": 6}),
    "both": (make, {"validation_split": 0.2, "callbacks": lambda: [*reducing(), *stopping()], "epochs": 6}),
}


@pytest.mark.filterwarnings("ignore:Got `batch_size`")
@pytest.mark.parametrize("name", RUNS)
def test_what_a_run_may_use_is_resumed(name, tmp_path):
    made, arguments = RUNS[name]
    assert_resumes_everywhere(tmp_path, made, **arguments)


def test_these_runs_stop_early_and_reduce_the_rate():
    history = run(make(), validation_split=0.2, callbacks=lambda: [*reducing(), *stopping()], epochs=6)
    assert history.epochs == 3
    assert "has not improved" in history.stopped_because
    assert history.best_epoch == 0
    assert history["lr"][-1] < history["lr"][0]


def test_threads_may_differ(tmp_path):
    _core._set_work_per_thread(1)
    try:
        trainer = make(n_threads=1)
        run(trainer)
        run(make(n_threads=3), fn.Checkpoint(tmp_path, every_steps=1, keep_last=100))
        assert len(step_files(tmp_path)) == 15
        for file in step_files(tmp_path):
            resumed = make(n_threads=2)
            resumed.resume(file)
            run(resumed)
            assert digest(resumed.net) == digest(trainer.net)
    finally:
        _core._set_work_per_thread(0)


def test_a_second_fit_is_resumed_as_that_fit(tmp_path):
    trainer = make(metrics=("accuracy",))
    run(trainer, epochs=2, x=X[:20], y=LABELS[:20])
    history = run(trainer)
    expected = digest(trainer.net), columns(history)
    trainer = make(metrics=("accuracy",))
    run(trainer, fn.Checkpoint(tmp_path), epochs=2, x=X[:20], y=LABELS[:20])
    run(trainer, fn.Checkpoint(tmp_path, every_steps=1, keep_last=100))
    files = step_files(tmp_path)
    assert len(files) == 2 + 15
    for file in files[2:]:
        trainer = make(metrics=("accuracy",))
        trainer.resume(file)
        assert (columns(run(trainer)), digest(trainer.net)) == (expected[1], expected[0])


def test_epochs_per_schedule_go_on_counting_over_a_resumed_second_fit(tmp_path):
    def made():
        return make(optimizer=fn.SGD(schedules.exponential(0.5, 0.3, per="epoch")))

    trainer = made()
    run(trainer, epochs=1, x=X[:20], y=LABELS[:20])
    run(trainer, fn.Checkpoint(tmp_path, every=None, every_steps=1, keep_last=100))
    assert len(step_files(tmp_path)) == 15
    for file in step_files(tmp_path):
        resumed = made()
        resumed.resume(file)
        assert columns(run(resumed)) == columns(trainer.history)
        assert digest(resumed.net) == digest(trainer.net)


def test_more_epochs_may_be_asked_for(tmp_path):
    trainer, longer = make(), make()
    run(trainer, fn.Checkpoint(tmp_path))
    history = run(longer, epochs=5)
    resumed = make()
    resumed.resume(tmp_path)
    assert columns(run(resumed, epochs=5)) == columns(history)
    assert digest(resumed.net) == digest(longer.net)


def test_a_finished_run_returns_its_history(tmp_path):
    trainer = make(metrics=("accuracy",))
    history = run(trainer, fn.Checkpoint(tmp_path))
    resumed = make(metrics=("accuracy",))
    assert resumed.resume(tmp_path) is None
    assert dict(resumed.history) == dict(history)
    assert digest(resumed.net) == digest(trainer.net)
    again = run(resumed, fn.Checkpoint(tmp_path))
    assert dict(again) == dict(history)
    assert again.stopped_because == history.stopped_because == "all 3 epochs finished"
    assert again is resumed.history
    assert run(resumed, epochs=1).epochs == 1  # only the first fit finishes the call


def test_seconds_go_on(tmp_path):
    trainer = make()
    run(trainer, fn.Checkpoint(tmp_path, every_steps=1, keep_last=100))
    resumed = make()
    resumed.resume(step_files(tmp_path)[7])
    state = checkpoint.read(str(step_files(tmp_path)[7]))[1].state
    history = run(resumed)
    assert history["seconds"][0] == trainer.history["seconds"][0]
    assert history["seconds"][1] >= state.place.seconds > 0


def test_views_of_the_parameters_stay_valid(tmp_path):
    run(make(), fn.Checkpoint(tmp_path))
    trainer = make()
    view = trainer.net.parameters()["0.weight"]
    before = view.copy()
    trainer.resume(tmp_path)
    assert not np.array_equal(view, before)
    np.testing.assert_array_equal(view, fn.load(step_files(tmp_path)[-1]).parameters()["0.weight"])


def test_moments_that_a_file_lacks_become_zero(tmp_path):
    run(make(optimizer=fn.SGD(0.1)), fn.Checkpoint(tmp_path))
    trainer = make(optimizer=fn.SGD(0.1))
    net = trainer.net
    fn.Trainer(net, optimizer=fn.Adam()).train_step(X, LABELS)
    trainer.resume(tmp_path)
    assert not any(moment.any() for moment in net._engine.moments(0))


def test_a_resume_without_memory_changes_nothing(tmp_path):
    run(make(), fn.Checkpoint(tmp_path))
    trainer, failures = make(), 0
    before = [view.copy() for view in trainer.net.parameters().values()]
    while True:
        _core._fail_allocation(failures + 1)
        try:
            trainer.resume(tmp_path)
            break
        except MemoryError:
            failures += 1
        finally:
            _core._fail_allocation(0)
        for view, array in zip(trainer.net.parameters().values(), before, strict=True):
            np.testing.assert_array_equal(view, array)
        assert (trainer._step, trainer.net._engine.updates) == (0, 0)
    assert failures > 5
    assert trainer._step == 15


def test_a_divergence_counts_from_the_start_of_the_call(tmp_path):
    def rate(step):
        return 1e30 if step == 12 else 1e-3

    with pytest.raises(fn.DivergenceError) as expected:
        run(make(optimizer=fn.SGD(rate)), fn.Checkpoint(tmp_path, every_steps=1, keep_last=100))
    assert len(step_files(tmp_path)) == 13
    for file in step_files(tmp_path):
        trainer = make(optimizer=fn.SGD(rate))
        trainer.resume(file)
        with pytest.raises(fn.DivergenceError) as caught:
            run(trainer)
        assert str(caught.value) == str(expected.value)
        assert (caught.value.epoch, caught.value.step) == (expected.value.epoch, expected.value.step) == (2, 3)


# ---- callbacks ----


class Remembers(fn.Callback):
    """Raises the rate by what it has seen, and keeps arrays of many kinds."""

    def on_fit_begin(self):
        self.total = 0.0
        self.arrays = {
            "scalar": np.array(2.5),
            "cube": np.arange(24, dtype=np.int16).reshape(2, 3, 4)[:, ::2],
            "empty": np.empty((0, 3), np.float32),
            "swapped": np.arange(3, dtype=">f8"),
        }
        self.loaded = False

    def on_epoch_end(self, epoch, logs):
        self.total += logs["loss"]
        self.trainer.lr_factor = 1 + self.total
        self.arrays["scalar"] = np.array(self.total)

    def state_dict(self):
        plain = {"total": self.total, "nan": float("nan"), "low": -float("inf"), "name": "\u00fc", "none": None}
        return {**plain, "list": [1, {"a": True}], "number": np.int64(7), **self.arrays}

    def load_state_dict(self, state):
        self.total, self.loaded = state["total"], state
        self.arrays = {key: state[key] for key in self.arrays}


def test_own_callbacks_with_a_state(tmp_path):
    assert_resumes_everywhere(tmp_path, make, callbacks=lambda: [Remembers()])
    callback = Remembers()
    trainer = make()
    trainer.resume(step_files(tmp_path)[6])
    run(trainer, callbacks=lambda: [callback])
    state = callback.loaded
    assert np.isnan(state["nan"])
    assert (state["low"], state["name"], state["none"]) == (-np.inf, "\u00fc", None)
    assert (state["list"], state["number"]) == ([1, {"a": True}], 7)
    fresh = Remembers()
    fresh.on_fit_begin()
    for key, array in fresh.arrays.items():
        assert state[key].shape == array.shape
        assert state[key].dtype == array.dtype.newbyteorder("=")
        if key != "scalar":
            np.testing.assert_array_equal(state[key], array)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": object()}, r"Remembers.state_dict\(\)\['a'\] must be a number"),
        ({"a": (1, 2)}, "must be a number"),
        ({"a": np.longdouble(1)}, "must be a number"),
        ({"a": {1: 2}}, "must be a number"),
        ({"a": np.array(["x"])}, "a dtype among"),
        ({"a": np.array([None])}, "a dtype among"),
        ({"a b": np.zeros(2)}, "a short name"),
        ({"a" * 130: np.zeros(2)}, "a short name"),
    ],
)
def test_a_state_that_cannot_be_kept(state, message, tmp_path, monkeypatch):
    monkeypatch.setattr(Remembers, "state_dict", lambda self: state)
    with pytest.raises((TypeError, ValueError), match=message):
        run(make(), fn.Checkpoint(tmp_path), callbacks=lambda: [Remembers()])


def test_a_stop_that_a_callback_requested_is_kept(tmp_path):
    def made():
        return [lambda epoch, logs: trainer.request_stop("enough") if epoch == 1 else None]

    trainer = make()
    run(trainer, fn.Checkpoint(tmp_path), callbacks=made)
    expected = digest(trainer.net)
    trainer = make()
    trainer.resume(tmp_path)
    history = run(trainer, epochs=10)
    assert (history.epochs, history.stopped_because, digest(trainer.net)) == (2, "enough", expected)


def test_a_stop_that_a_callback_object_requested_is_kept(tmp_path):
    class Enough(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            if epoch == 1:
                self.request_stop("enough")

    run(make(), fn.Checkpoint(tmp_path), callbacks=lambda: [Enough()])
    trainer = make()
    trainer.resume(tmp_path)
    history = run(trainer, epochs=10)
    assert (history.epochs, history.stopped_because) == (2, "enough")


def test_a_signal_in_the_midst_of_a_callback_is_a_stop_from_outside(tmp_path):
    class Slow(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            if epoch == 1:
                signal.raise_signal(signal.SIGTERM)

    whole = make()
    run(whole)
    trainer = make()
    before = signal.signal(signal.SIGTERM, lambda *_: trainer.request_stop("SIGTERM"))
    try:
        history = run(trainer, fn.Checkpoint(tmp_path), callbacks=lambda: [Slow()])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (history.epochs, history.stopped_because) == (2, "SIGTERM")
    trainer = make()
    trainer.resume(tmp_path)
    assert run(trainer).epochs == IN_ALL
    assert digest(trainer.net) == digest(whole.net)


@pytest.mark.parametrize("batches", [1, 3, 5, 8, 10, 13])
def test_a_stop_from_outside_leaves_a_checkpoint_to_go_on_from(batches, tmp_path):
    """`every` alone would lose the epoch; and the resumed fit does not stop again."""
    left = batches

    @functools.wraps(own_loss)
    def stops(y_pred, y, sample_weight=None):
        nonlocal left
        left -= 1
        if left == 0:
            trainer.request_stop("asked from outside")
        return own_loss(y_pred, y)

    whole = make(loss=own_loss, metrics=("accuracy",))
    run(whole)
    trainer = make(loss=stops, metrics=("accuracy",))
    run(trainer, fn.Checkpoint(tmp_path, every=2))
    assert trainer.history.stopped_because == "asked from outside"
    assert trainer._step == batches
    resumed = make(loss=own_loss, metrics=("accuracy",))
    resumed.resume(tmp_path)
    assert resumed._step == batches
    assert columns(run(resumed)) == columns(whole.history)
    assert digest(resumed.net) == digest(whole.net)


def test_a_stop_from_outside_does_not_hide_that_of_early_stopping(tmp_path):
    def score(y_true, y_pred):
        if trainer.history.epochs == 2:
            trainer.request_stop("from outside")
        return 1.0

    trainer = make(metrics=(score,))
    stop = fn.EarlyStopping("score", mode="max", patience=2)
    run(trainer, stop, fn.Checkpoint(tmp_path), epochs=9)
    assert checkpoint.read(str(step_files(tmp_path)[-1]))[1].state.place.stop is None
    trainer = make(metrics=(score,))
    trainer.resume(tmp_path)
    history = run(trainer, stop, epochs=9)
    assert (history.epochs, history.stopped_because) == (3, "score has not improved for 2 epoch(s)")


def test_an_interruption_is_placed_in_the_whole_call(tmp_path):
    def interrupt(epoch, logs):
        raise KeyboardInterrupt

    run(make(), fn.Checkpoint(tmp_path, every_steps=7, keep_last=9))
    trainer = make()
    trainer.resume(step_files(tmp_path)[1])
    with pytest.warns(UserWarning, match="interrupted") as caught, pytest.raises(KeyboardInterrupt):
        run(trainer, interrupt)
    assert "stopped after epoch 2, batch 0" in str(caught[0].message)


def test_csv_logger_writes_the_same_lines(tmp_path):
    path, log = tmp_path / "log.csv", lambda: [fn.CSVLogger(tmp_path / "log.csv")]
    run(make(metrics=("accuracy",)), fn.Checkpoint(tmp_path / "run", every_steps=1, keep_last=99), callbacks=log)
    files, expected = step_files(tmp_path / "run"), [row[:-1] for row in csv.reader(path.open())]
    assert len(files) == 15
    for file in files:
        trainer = make(metrics=("accuracy",))
        trainer.resume(file)
        run(trainer, callbacks=log)
        rows = list(csv.reader(path.open()))
        assert [row[:-1] for row in rows] == expected
        assert [row[-1] for row in rows[1:]] == list(map(repr, trainer.history["seconds"]))


def test_progress_goes_on_counting(tmp_path, capsys):
    make().fit(X, LABELS, epochs=2, verbose=0, callbacks=[fn.Checkpoint(tmp_path)])
    trainer = make()
    trainer.resume(tmp_path)
    trainer.fit(X, LABELS, epochs=3)
    assert capsys.readouterr().out.startswith("epoch 3/3  loss ")


def test_checkpoints_see_what_later_callbacks_did(tmp_path):
    def halve(epoch, logs):
        trainer.net.parameters()["0.weight"][...] *= 0.5

    trainer = make()
    trainer.fit(X, LABELS, epochs=1, verbose=0, callbacks=[fn.Checkpoint(tmp_path), halve])
    for name in ("step-000000000005", "best"):
        kept = fn.load(tmp_path / f"{name}.safetensors").parameters()
        np.testing.assert_array_equal(kept["0.weight"], trainer.net.parameters()["0.weight"])


def test_a_failing_load_of_a_state_changes_nothing(tmp_path):
    run(make(), fn.Checkpoint(tmp_path), callbacks=lambda: [Remembers()])
    edit(step_files(tmp_path)[-1], lambda state: state["callbacks"][0]["values"].pop("total"))
    trainer = make()
    trainer.resume(tmp_path)
    before = digest(trainer.net)
    for _ in range(2):
        with pytest.raises(fn.ModelFileError, match="state of Remembers: 'total'"):
            run(trainer, epochs=5, callbacks=lambda: [Remembers()])
        assert digest(trainer.net) == before


# ---- the folder ----


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_names_and_number_of_files(tmp_path):
    run(make(), fn.Checkpoint(tmp_path / "a", keep_best=False))
    assert names(tmp_path / "a") == ["step-000000000010.safetensors", "step-000000000015.safetensors"]
    run(make(), fn.Checkpoint(str(tmp_path / "b" / "c"), every=2, keep_last=9, keep_best=False))
    assert names(tmp_path / "b" / "c") == ["step-000000000010.safetensors", "step-000000000015.safetensors"]
    run(make(), fn.Checkpoint(os.fsencode(tmp_path / "d"), every=None, every_steps=6, keep_last=9, keep_best=False))
    assert [int(name[5:17]) for name in names(tmp_path / "d")] == [6, 12, 15]
    run(make(), fn.Checkpoint(tmp_path / "f", every=None, every_steps=5, keep_last=9, keep_best=False))
    assert [int(name[5:17]) for name in names(tmp_path / "f")] == [5, 10, 15]
    run(make(), fn.Checkpoint(tmp_path / "e", every=None, keep_last=1))
    assert names(tmp_path / "e") == ["best.safetensors", "step-000000000015.safetensors"]


def test_the_best_net_is_that_of_the_best_epoch(tmp_path):
    stop, nets = fn.EarlyStopping("score", mode="max", restore_best=False, patience=9), []

    def score(y_true, y_pred):
        return float([1, 3, 2, 3, 5][len(nets)])

    def collect(epoch, logs):
        nets.append({name: view.copy() for name, view in trainer.net.parameters().items()})
        if epoch > 0:
            kept = fn.load(tmp_path / "best.safetensors").parameters()
            assert_same_arrays(kept, nets[[0, 0, 1, 1, 1][epoch]])

    trainer = make(metrics=(score,))
    history = run(trainer, fn.Checkpoint(tmp_path), callbacks=lambda: [stop, collect], epochs=5)
    assert history.best_epoch == 4
    assert_same_arrays(fn.load(tmp_path / "best.safetensors").parameters(), nets[4])
    _, contents, attachments = _core.open_model(str(tmp_path / "best.safetensors"))
    assert (contents, attachments) == ("model", {})


def assert_same_arrays(found, expected):
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])


def test_a_best_net_that_was_not_written_any_more(tmp_path):
    """The process ended between the two files."""
    run(make(), fn.Checkpoint(tmp_path), epochs=1)
    expected = (tmp_path / "best.safetensors").read_bytes()
    (tmp_path / "best.safetensors").unlink()
    trainer = make()
    trainer.resume(tmp_path)
    run(trainer, fn.Checkpoint(tmp_path), epochs=1)
    assert (tmp_path / "best.safetensors").read_bytes() == expected


def fails(epoch, logs):
    raise ZeroDivisionError


def test_the_best_net_is_not_one_of_the_middle_of_an_epoch(tmp_path):
    run(make(), fn.Checkpoint(tmp_path, every_steps=7, keep_last=9))
    for path in step_files(tmp_path)[2:]:
        path.unlink()
    expected = (tmp_path / "best.safetensors").read_bytes()
    trainer = make()
    trainer.resume(tmp_path)
    assert trainer._step == 7
    with pytest.raises(ZeroDivisionError):
        run(trainer, fn.Checkpoint(tmp_path), fails)
    assert (tmp_path / "best.safetensors").read_bytes() == expected


def test_resuming_does_not_put_an_older_net_in_place_of_the_best(tmp_path):
    """The checkpoint is of the second epoch, the best net of the third: the process lived to write that."""

    def made():
        return make(layers(dropout=False))

    with pytest.raises(ZeroDivisionError):
        run(
            made(), fn.Checkpoint(tmp_path, every=2), callbacks=lambda: [lambda epoch, logs: 1 // (3 - epoch)], epochs=5
        )
    expected = (tmp_path / "best.safetensors").read_bytes()
    trainer = made()
    trainer.resume(tmp_path)
    assert trainer._step == 10
    assert trainer.history.best_epoch == 1
    assert trainer.net._engine_file(None) != expected
    with pytest.raises(ZeroDivisionError):
        run(trainer, fn.Checkpoint(tmp_path, every=2), fails, epochs=5)
    assert (tmp_path / "best.safetensors").read_bytes() == expected


def test_a_new_folder_gets_no_best_net_without_a_checkpoint(tmp_path):
    run(make(), fn.Checkpoint(tmp_path / "a"), epochs=1)
    trainer = make()
    trainer.resume(tmp_path / "a")
    with pytest.raises(ZeroDivisionError):
        run(trainer, fn.Checkpoint(tmp_path / "b"), fails)
    assert names(tmp_path / "b") == []


def test_a_damaged_newer_file_does_not_count(tmp_path):
    run(make(), fn.Checkpoint(tmp_path, every_steps=12))
    step_files(tmp_path)[-1].write_bytes(b"")
    trainer = make()
    with pytest.warns(UserWarning, match="damaged"):
        trainer.resume(tmp_path)
    with pytest.raises(ZeroDivisionError):
        run(trainer, fn.Checkpoint(tmp_path, every_steps=13), fails)
    assert [int(path.stem[5:]) for path in step_files(tmp_path)] == [12, 13, 15]
    make().resume(step_files(tmp_path)[1])


def test_the_first_best_net_has_a_checkpoint_beside_it(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(make(), fn.Checkpoint(tmp_path, every=3), callbacks=lambda: [lambda epoch, logs: 1 // (1 - epoch)])
    assert names(tmp_path) == ["best.safetensors", "step-000000000005.safetensors"]


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    run(make(), fn.Checkpoint(tmp_path, every_steps=1, keep_last=4))
    expected = run(make())
    *_, good, cut, flipped = step_files(tmp_path)
    cut.write_bytes(cut.read_bytes()[:-1])
    content = bytearray(flipped.read_bytes())
    content[-1] ^= 1
    flipped.write_bytes(content)
    trainer = make()
    with pytest.warns(UserWarning, match="damaged") as caught:
        trainer.resume(tmp_path)
    assert [damaged.name in str(w.message) for w, damaged in zip(caught, (flipped, cut), strict=True)] == [True, True]
    assert good.name in str(caught[0].message)
    assert caught[0].filename == __file__
    assert columns(run(trainer, fn.Checkpoint(tmp_path))) == columns(expected)
    make().resume(tmp_path)


def test_a_checkpoint_that_the_disk_cannot_read_is_passed_over(tmp_path):
    run(make(), fn.Checkpoint(tmp_path))
    trainer = make()
    _core._fail_io(1, False, errno.EIO)
    try:
        with pytest.warns(UserWarning, match=r"step-000000000010\.safetensors is taken instead"):
            trainer.resume(tmp_path)
    finally:
        _core._fail_io(0)
    assert trainer._step == 10
    _core._fail_io(1, False, errno.EACCES)
    try:
        with pytest.raises(PermissionError):
            make().resume(tmp_path)
    finally:
        _core._fail_io(0)


@pytest.mark.parametrize("change", ["lr_factor", "weights"])
def test_a_trainer_that_was_changed_since_resume_is_refused(change, tmp_path):
    run(make(), fn.Checkpoint(tmp_path), epochs=1)
    trainer = make()
    trainer.resume(tmp_path)
    if change == "lr_factor":
        trainer.lr_factor = 0.5
    else:
        trainer.net.parameters()["0.weight"][0, 0] = 1
    with pytest.raises(ValueError, match="changed, trained or reset since `resume`"):
        run(trainer)
    trainer.resume(tmp_path)
    run(trainer)


class Power:
    """A loss with a setting."""

    def __init__(self, exponent):
        self.exponent = exponent

    def __call__(self, y_pred, y):
        return power(y_pred, y, self.exponent)


def power(y_pred, y, exponent):
    error = y_pred - np.eye(3)[y]
    return np.mean(error**exponent), exponent * error ** (exponent - 1) / error.size


@pytest.mark.parametrize("made", [lambda n: functools.partial(power, exponent=n), Power])
def test_arguments_of_an_own_loss_are_compared(made, tmp_path):
    run(make(loss=made(2)), fn.Checkpoint(tmp_path), epochs=1)
    with pytest.raises(ValueError, match=r"loss: checkpoint .*exponent=2\)?, this trainer .*exponent=4"):
        make(loss=made(4)).resume(tmp_path)
    trainer = make(loss=made(2))
    trainer.resume(tmp_path)
    run(trainer)


def test_no_checkpoint(tmp_path):
    trainer = make()
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match=str(path)):
            trainer.resume(path)
    (tmp_path / "step-000000000001.safetensors").write_bytes(b"damaged")
    with pytest.raises(fn.ModelFileError, match="step-000000000001"):
        trainer.resume(tmp_path)
    trainer.net.save(tmp_path / "model.safetensors")
    with pytest.raises(fn.ModelFileError, match="a model and not a checkpoint"):
        trainer.resume(tmp_path / "model.safetensors")
    _core.save_model(trainer.net._engine, str(tmp_path / "c"), "checkpoint", {})
    with pytest.raises(fn.ModelFileError, match=r"not written by fastnn\.Checkpoint"):
        trainer.resume(tmp_path / "c")


def test_a_folder_of_another_run_is_left_alone(tmp_path):
    log, trainer = tmp_path / "log.csv", make()
    run(trainer, fn.Checkpoint(tmp_path / "run"), callbacks=lambda: [fn.CSVLogger(log)])
    before = {path: path.read_bytes() for path in (*(tmp_path / "run").iterdir(), log)}
    other = make()
    initial = digest(other.net)
    trainer.reset()
    for stranger in (other, trainer):
        with pytest.raises(FileExistsError, match=r"another run.*trainer\.resume"):
            run(stranger, fn.Checkpoint(tmp_path / "run"), callbacks=lambda: [fn.CSVLogger(log)])
    assert {path: path.read_bytes() for path in before} == before
    assert digest(other.net) == initial
    for path in step_files(tmp_path / "run"):
        path.unlink()
    with pytest.raises(FileExistsError, match="best net of another run"):
        run(other, fn.Checkpoint(tmp_path / "run"))
    (tmp_path / "run" / "step-000000000001.safetensors").write_bytes(b"damaged")
    with pytest.raises(FileExistsError, match="other checkpoints"):
        run(other, fn.Checkpoint(tmp_path / "run"))
    run(other, fn.Checkpoint(tmp_path / "new"))


def test_a_run_goes_on_in_its_folder(tmp_path):
    trainer = make()
    for _ in range(2):
        run(trainer, fn.Checkpoint(tmp_path))
    assert [int(path.stem[5:]) for path in step_files(tmp_path)] == [25, 30]
    trainer = make()
    trainer.resume(step_files(tmp_path)[0])
    with pytest.raises(FileExistsError, match="newer than step 25"):
        run(trainer, fn.Checkpoint(tmp_path))
    run(trainer, fn.Checkpoint(tmp_path / "other"))
    assert [int(path.stem[5:]) for path in step_files(tmp_path / "other")] == [30]


def test_stale_temporary_files_are_removed(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    stale = [f".fastnn-{int(dead.stdout)}-0.tmp", f".fastnn-{os.getpid()}-3.tmp", f".fastnn-{10**30}-0.tmp"]
    kept = [".fastnn-1-0.tmp", "other.tmp", ".fastnn-x-0.tmp"]
    for name in (*stale, *kept):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (1, 1))
    run(make(), fn.Checkpoint(tmp_path, keep_best=False, keep_last=1))
    assert names(tmp_path) == sorted([*kept, "step-000000000015.safetensors"])


def test_a_beginning_fit_leaves_what_another_thread_is_saving(tmp_path):
    net, ended, failures = make(input_size=500).net, threading.Event(), []

    def save():
        while not ended.is_set():
            try:
                net.save(tmp_path / "model.safetensors")
            except OSError as error:
                failures.append(error)

    thread = threading.Thread(target=save)
    thread.start()
    try:
        for place in range(20):
            trainer = make()
            if place:
                trainer.resume(tmp_path)
            run(trainer, fn.Checkpoint(tmp_path), epochs=place + 1)
    finally:
        ended.set()
        thread.join()
    assert failures == []


def test_the_folder_is_tested_before_training(tmp_path, monkeypatch):
    trainer = make()
    before = digest(trainer.net)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        run(trainer, fn.Checkpoint(tmp_path / "file"))
    with pytest.raises(NotADirectoryError):
        run(trainer, fn.Checkpoint(tmp_path / "file" / "below"))

    def refuse(path, *arguments):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(checkpoint.os, "open", refuse)
    with pytest.raises(PermissionError):
        run(trainer, fn.Checkpoint(tmp_path))
    monkeypatch.undo()
    monkeypatch.setattr(checkpoint.os, "unlink", refuse)
    with pytest.raises(PermissionError):
        run(trainer, fn.Checkpoint(tmp_path))
    assert digest(trainer.net) == before


def test_a_failing_deletion_is_raised(tmp_path, monkeypatch):
    def refuse(path, *arguments):
        if "step-" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        os.remove(path)

    monkeypatch.setattr(checkpoint.os, "unlink", refuse)
    with pytest.raises(PermissionError, match="step-000000000005"):
        run(make(), fn.Checkpoint(tmp_path))


@pytest.mark.parametrize("from_then_on", [False, True])
def test_every_failing_io_call_leaves_the_checkpoints_before(from_then_on, tmp_path):
    whole = make()
    run(whole)
    failures = successes = n = 0
    while successes < 5:  # a few may fail, such as closing what was read; so many in a row: there were no more calls
        n += 1
        folder, trainer = tmp_path / str(n), make()
        _core._fail_io(n, from_then_on, errno.ENOSPC)
        try:
            run(trainer, fn.Checkpoint(folder))
        except OSError as raised:
            error, failures, successes = raised, failures + 1, 0
        else:
            error, successes = None, successes + 1
        finally:
            _core._fail_io(0)
        kept = step_files(folder)
        for path in kept:
            checkpoint.read(str(path))
        if error:
            assert error.errno == errno.ENOSPC
            assert str(folder) in str(error)
            assert f"those before are intact ({kept[-1].name if kept else 'none yet'}" in str(error)
            trainer = make()
            if kept:
                trainer.resume(folder)
            run(trainer, fn.Checkpoint(folder))
        assert digest(trainer.net) == digest(whole.net)
        assert names(folder)[0] == "best.safetensors"  # and no temporary files
    assert failures > 20


# ---- what is refused ----

DIFFERENT_TRAINERS = {
    "layer 0: checkpoint Dense(8), this trainer Dense(9)": {"net": [fn.Dense(9), *layers()[1:]]},
    "layer 3: checkpoint Dropout(0.5), this trainer Dropout(0.25)": {
        "net": [*layers()[:3], fn.Dropout(0.25), fn.Dense(3)]
    },
    "layer 4: checkpoint Dense(3), this trainer none": {"net": layers()[:3] + [fn.Dense(3)]},
    "input_size: checkpoint 5, this trainer 6": {"input_size": 6},
    "dtype: checkpoint float32, this trainer float64": {"dtype": "float64"},
    "seed: checkpoint 1, this trainer 2": {"seed": 2},
    "loss: checkpoint CrossEntropy(label_smoothing=0.0), this trainer CrossEntropy(label_smoothing=0.1)": {
        "loss": fn.losses.CrossEntropy(0.1)
    },
    "this trainer own_loss": {"loss": own_loss},
    "optimizer: checkpoint Adam(lr=0.01, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0), this trainer Adam(lr=0.02": {
        "optimizer": fn.Adam(0.02)
    },
    "this trainer AdamW": {"optimizer": fn.AdamW(0.01, weight_decay=0.0)},
    "this trainer Adam(lr=cosine(lr=0.01, length=9.0, final=0.0, per='step')": {
        "optimizer": fn.Adam(schedules.cosine(0.01, 9))
    },
    "this trainer Adam(lr=own_schedule": {"optimizer": fn.Adam(own_schedule)},
    "clip: checkpoint None, this trainer ClipNorm(v=1.0, scope='global')": {"clip": fn.ClipNorm(1.0)},
    "regularizer: checkpoint None, this trainer L2(lam=0.1)": {"regularizer": fn.L2(0.1)},
    "metrics: checkpoint none, this trainer accuracy: accuracy": {"metrics": ("accuracy",)},
    "batch_size: checkpoint 8, this trainer 9": {"batch_size": 9},
    "this trainer 'full'": {"batch_size": "full"},
    "micro_batch: checkpoint None, this trainer 4": {"micro_batch": 4},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of 3 epochs of 4 batches, up to the first batch of the last one."""
    path = tmp_path_factory.mktemp("run")
    run(make(), fn.Checkpoint(path, every_steps=1, keep_last=8), validation_split=0.2, callbacks=stopping)
    for file in step_files(path)[-3:]:
        file.unlink()
    return path


@pytest.mark.parametrize("message", DIFFERENT_TRAINERS)
def test_a_trainer_that_was_built_differently_is_refused(message, folder):
    trainer = make(**DIFFERENT_TRAINERS[message])
    trainer.fit(RANDOM.normal(size=(16, trainer.net.input_size)), LABELS[:16], epochs=1, verbose=0, shuffle=False)
    before = digest(trainer.net), trainer._step, trainer._epoch, trainer.history
    with pytest.raises(ValueError, match="built differently") as caught:
        trainer.resume(folder)
    assert message in str(caught.value)
    assert (digest(trainer.net), trainer._step, trainer._epoch, trainer.history) == before


def test_all_differences_are_listed(folder):
    with pytest.raises(ValueError, match="built differently") as caught:
        make(seed=2, batch_size=9, clip=fn.ClipNorm(1.0)).resume(folder)
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == ["seed", "clip", "batch_size"]


def test_other_given_statistics_are_refused(tmp_path):
    run(make([fn.Standardize(1.0, 2.0), *layers()]), fn.Checkpoint(tmp_path))
    with pytest.raises(ValueError, match="given other statistics"):
        make([fn.Standardize(1.0, 3.0), *layers()]).resume(tmp_path)
    with pytest.raises(ValueError, match=r"with statistics that were given, this trainer Standardize\(\)"):
        make([fn.Standardize(), *layers()]).resume(tmp_path)


CHANGED_X, CHANGED_LABELS = X.copy(), LABELS.copy()
CHANGED_X[3, 2] += 1e-9
CHANGED_LABELS[3] = (LABELS[3] + 1) % 3

DIFFERENT_FITS = {
    "  x: checkpoint float64 (30, 5) with CRC": {"x": CHANGED_X},
    "  x: checkpoint float64 (30, 5)": {"x": X.astype(np.float32)},
    "  y: checkpoint int32 (30,) with CRC": {"y": CHANGED_LABELS},
    "this fit int32 (33,)": {"validation_split": 0.1},
    "validation x: checkpoint float64 (7, 5)": {"validation_data": (CHANGED_X[:7], LABELS[:7])},
    "validation y: checkpoint": {"validation_data": (X[30:], CHANGED_LABELS[:7])},
    "validation weights of samples and classes: checkpoint none, this fit float64 (7,)": {
        "validation_data": (X[30:], LABELS[30:], WEIGHTS[30:])
    },
    "weights of samples and classes: checkpoint none, this fit float64 (30,)": {"sample_weight": WEIGHTS},
    "weights of samples and classes: checkpoint none, this fit float64": {"class_weight": {0: 2.0}},
    "shuffle: checkpoint True, this fit False": {"shuffle": False},
    "patience=2, restore_best=True), this fit none": {"callbacks": lambda: ()},
    "=2, restore_best=True), this fit EarlyStopping(monitor='val_loss', mode='min', min_delta=10.0, patience=3": {
        "callbacks": lambda: [fn.EarlyStopping(min_delta=10.0, patience=3)]
    },
    "callback 1 with a state: checkpoint none, this fit ReduceLROnPlateau(": {
        "callbacks": lambda: [*stopping(), *reducing()]
    },
    "this fit ReduceLROnPlateau(": {"callbacks": lambda: [*reducing(), *stopping()]},
    "epochs: checkpoint has finished 2 and a part of the next, this fit 2 in all": {"epochs": 2},
}


@pytest.mark.parametrize("message", DIFFERENT_FITS)
def test_a_fit_of_other_data_or_arguments_is_refused(message, folder, tmp_path):
    trainer = make()
    trainer.resume(folder)
    before = digest(trainer.net)
    changes = DIFFERENT_FITS[message]
    if "validation_data" in changes:
        changes = {"x": X[:30], "y": LABELS[:30], **changes}
    log = tmp_path / "log.csv"
    arguments = {
        "callbacks": stopping,
        **({} if "validation_data" in changes else {"validation_split": 0.2}),
        **changes,
    }
    with pytest.raises(ValueError, match="other data or arguments") as caught:
        run(trainer, fn.CSVLogger(log), fn.Checkpoint(tmp_path / "new"), **arguments)
    assert message in str(caught.value)
    assert digest(trainer.net) == before
    assert not list(tmp_path.iterdir())
    history = run(trainer, lambda epoch, logs: None, callbacks=stopping, validation_split=0.2)
    assert history.epochs == 3


def test_the_same_rows_as_validation_data_are_the_same_fit(folder):
    trainer = make()
    trainer.resume(folder)
    run(trainer, x=X[:30], y=LABELS[:30], validation_data=(X[30:], LABELS[30:]), callbacks=stopping)


def test_fewer_epochs_than_finished_are_refused(tmp_path):
    run(make(), fn.Checkpoint(tmp_path))
    trainer = make()
    trainer.resume(tmp_path)
    with pytest.raises(ValueError, match="epochs: checkpoint has finished 3, this fit 2 in all"):
        run(trainer, epochs=2)


def test_a_changed_row_among_many_is_found_by_y_alone():
    x = RANDOM.normal(size=(5000, 3))
    rows = np.arange(1024) * 4999 // 1023
    assert (rows[0], rows[-1], len(set(rows))) == (0, 4999, 1024)
    crc = fn.data.crc_of_some_rows(x)
    assert crc == fn.data.crc_of_some_rows(np.asfortranarray(x)) == fn.data.crc(x[rows])
    for row, seen in ((0, True), (1, False), (4999, True)):
        changed = x.copy()
        changed[row, 1] += 1
        assert (fn.data.crc_of_some_rows(changed) != crc) == seen


@pytest.mark.parametrize(
    ("y", "kept"),
    [
        (np.array([{"a": 1}, "b"] * 2, dtype=object), "object (4,)"),
        (np.array(["a", "bc"]), "<U2 (2,) with CRC"),
        (np.array(["2020-01-01"], "M8[D]"), "datetime64[D] (1,) with CRC"),
        (np.ones((2, 2, 2), bool)[:, ::-1], "bool (2, 2, 2) with CRC"),
    ],
)
def test_targets_of_own_losses_may_be_of_any_kind(y, kept):
    assert fn.snapshot.identify("", X, y, None)["y"].startswith(kept)


def test_the_net_must_be_as_resume_left_it(folder):
    trainer = make()
    trainer.resume(folder)
    trainer.train_step(X[:8], LABELS[:8])
    with pytest.raises(ValueError, match="trained or reset since"):
        run(trainer, callbacks=stopping, validation_split=0.2)
    trainer.resume(folder)
    other = fn.Trainer(trainer.net)
    with pytest.raises(ValueError, match="trained or reset since"):
        run(trainer, callbacks=stopping, validation_split=0.2)
    trainer.reset()
    assert run(trainer, epochs=1).epochs == 1
    assert other is not trainer


def test_reset_forgets_a_resume(folder):
    trainer, fresh = make(), make()
    trainer.resume(folder)
    trainer.reset()
    assert columns(run(trainer, epochs=1)) == columns(run(fresh, epochs=1))
    assert digest(trainer.net) == digest(fresh.net)


def test_no_resume_from_a_callback(folder):
    trainer = make()
    with pytest.raises(RuntimeError, match="from its own callbacks"):
        run(trainer, lambda epoch, logs: trainer.resume(folder))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "every"),
        ({"every": 1.5}, "every"),
        ({"every_steps": 0}, "every_steps"),
        ({"keep_last": 0}, "keep_last"),
        ({"keep_best": 1}, "keep_best"),
        ({"dir": 3}, "PathLike"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fn.Checkpoint(**{"dir": "run", **arguments})


# ---- files that were edited ----


def edit(path, change, target=None):
    """Write a checkpoint again, with another text of the state."""
    engine, contents, attachments = _core.open_model(str(path))
    state = json.loads(attachments["trainer.state"].tobytes())
    changed = change(state)
    text = changed if isinstance(changed, bytes) else json.dumps(state).encode()
    attachments["trainer.state"] = np.frombuffer(text, np.uint8)
    _core.save_model(engine, str(target or path), contents, attachments)


WRONG = [None, True, -1, 2**63, 10**400, 1.5, float("nan"), "x", [], {}]
PLACES = [
    (key, name)
    for key, names in {
        "counters": ("run", "epoch", "step", "steps_per_epoch", "shift", "lr_factor"),
        "place": ("epoch", "batch", "loss_sum", "weight_sum", "seconds", "stop"),
    }.items()
    for name in names
]


@pytest.mark.parametrize(("key", "name"), PLACES)
def test_wrong_values_in_the_state_are_refused_or_harmless(key, name, folder, tmp_path):
    target, refused = tmp_path / "edited", 0
    for wrong in WRONG:
        edit(step_files(folder)[-1], lambda state, wrong=wrong: state[key].update({name: wrong}), target)
        trainer = make()
        try:
            trainer.resume(target)
            run(trainer, callbacks=stopping, validation_split=0.2)
        except fn.ModelFileError as error:
            refused += 1
            assert str(target) in str(error)  # noqa: PT017
        except (ValueError, fn.DivergenceError):
            pass  # a number that may stand there, but that nothing can go on from
    assert refused >= 5
    edit(step_files(folder)[-1], lambda state: state[key].pop(name) and None, target)
    with pytest.raises(fn.ModelFileError, match=f"'{name}' is missing"):
        make().resume(target)


EDITS = {
    "is not JSON": lambda state: b"{",
    "is not JSON: .*recursion": lambda state: b"[" * 10**6,
    "is not JSON: .*utf-8": lambda state: b"\xff",
    "must be a JSON object, got 3": lambda state: b"3",
    "'settings': 'loss' must be a text": lambda state: state["settings"].update(loss=3),
    "'fit' must be a JSON object": lambda state: state.update(fit=[]),
    "'callbacks' must be a list": lambda state: state.update(callbacks={}),
    "callback 0 must be a JSON object": lambda state: state.update(callbacks=[3]),
    "history has 2 epochs, but trainer.state counts 1": lambda state: state["place"].update(epoch=1),
    r"'batch' must be an int in 0\.\.3, got 4": lambda state: state["place"].update(batch=4),
    "'version' must be an int": lambda state: state.update(version="1"),
    "an array of dtype": lambda state: state["callbacks"][0]["arrays"]["best.0.weight"].update(dtype="object"),
    "an array of shape": lambda state: state["callbacks"][0]["arrays"]["best.0.weight"].update(shape=[-40]),
    "in a tensor of": lambda state: state["callbacks"][0]["arrays"]["best.0.weight"].update(shape=[2**40]),
}


@pytest.mark.parametrize("message", EDITS)
def test_edited_states_are_refused(message, folder, tmp_path):
    edit(step_files(folder)[-1], EDITS[message], tmp_path / "edited")
    trainer = make()
    before = digest(trainer.net)
    with pytest.raises(fn.ModelFileError, match=message):
        trainer.resume(tmp_path / "edited")
    assert digest(trainer.net) == before


LATE_EDITS = {
    "callbacks: .*Other.*needs": lambda state: state["callbacks"][0].update(name="Other"),
    "callbacks: .*needs": lambda state: state.update(callbacks=[]),
    "steps_per_epoch: 9": lambda state: state["counters"].update(steps_per_epoch=9),
    "best value and its epoch": lambda state: state["callbacks"][0]["values"].update(best_value="1"),
    "wait must be an int": lambda state: state["callbacks"][0]["values"].update(wait=-1),
    "best.0.weight": lambda state: state["callbacks"][0]["arrays"].pop("best.0.weight") and None,
    "best.0.weight must be an array": lambda state: state["callbacks"][0]["arrays"]["best.0.weight"].update(
        shape=[8, 5]
    ),
}


@pytest.mark.parametrize("message", LATE_EDITS)
def test_edited_states_that_only_the_fit_can_judge(message, folder, tmp_path):
    edit(step_files(folder)[-1], LATE_EDITS[message], tmp_path / "edited")
    trainer = make()
    trainer.resume(tmp_path / "edited")
    before = digest(trainer.net)
    with pytest.raises(fn.ModelFileError, match=message):
        run(trainer, callbacks=stopping, validation_split=0.2)
    assert digest(trainer.net) == before


def test_a_newer_state_is_not_taken_for_a_damaged_one(folder, tmp_path):
    for path in step_files(folder):
        shutil.copy(path, tmp_path)
    edit(step_files(tmp_path)[-1], lambda state: state.update(version=2))
    with pytest.raises(fn.ModelVersionError, match="version 2"):
        make().resume(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"history.values": None}, "history"),
        ({"history.values": np.zeros((6, 1))}, "history"),
        ({"history.values": np.zeros((5, 3))}, "history has 3 epochs"),
        (
            {
                "history.names.utf8": np.frombuffer(b"aaaaa", np.uint8),
                "history.names.offsets": np.arange(6),
                "history.values": np.zeros((5, 2)),
            },
            "two columns",
        ),
        ({"trainer.outputs": np.zeros((8, 4), np.float32)}, "trainer.outputs"),
        ({"trainer.outputs": np.zeros((8, 3))}, "trainer.outputs"),
    ],
)
def test_edited_tensors_are_refused(change, message, folder, tmp_path):
    engine, contents, attachments = _core.open_model(str(step_files(folder)[-1]))
    attachments = {name: array for name, array in {**attachments, **change}.items() if array is not None}
    _core.save_model(engine, str(tmp_path / "edited"), contents, attachments)
    with pytest.raises(fn.ModelFileError, match=message):
        make().resume(tmp_path / "edited")


# ---- killed ----

VICTIM = """
import contextlib, sys, numpy as np
import fastnn as fn
from test_checkpoint import X, LABELS, digest, layers, make
trainer = make([fn.Standardize(), *layers()], metrics=("accuracy",))
with contextlib.suppress(FileNotFoundError):
    trainer.resume(sys.argv[1])
stop = fn.EarlyStopping(patience=100)
trainer.fit(X, LABELS, epochs=40, verbose=0, validation_split=0.2,
            callbacks=[stop, fn.Checkpoint(sys.argv[1], every_steps=1)])
print(*digest(trainer.net), trainer.history["loss"])
"""


def start_victim(folder):
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{Path(__file__).parent.parent}"}
    command = [sys.executable, "-c", VICTIM, str(folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def killed_while_it_writes(victim, folder, seconds):
    """Whether it was killed, so many seconds after its first new checkpoint; False if it finished before."""
    before = names_of(step_files(folder))
    while victim.poll() is None and names_of(step_files(folder)) == before:
        time.sleep(0.001)
    time.sleep(seconds)
    victim.kill()
    victim.communicate(timeout=60)
    return victim.returncode == -signal.SIGKILL


@pytest.mark.parametrize("kills", [3, pytest.param(300, marks=pytest.mark.long)])
def test_a_killed_run_ends_with_the_same_bits(kills, tmp_path):
    expected, _ = start_victim(tmp_path / "whole").communicate(timeout=60)
    assert len(expected.split()) > 40
    moments, killed = random.Random(0), 0
    for folder in map(tmp_path.joinpath, map(str, range(kills))):
        while killed < kills and killed_while_it_writes(start_victim(folder), folder, moments.uniform(0, 0.02)):
            killed += 1
        found, _ = start_victim(folder).communicate(timeout=60)
        assert found == expected
        assert not list(folder.glob(".fastnn-*"))
        shutil.rmtree(folder)
        if killed == kills:
            break
    assert killed == kills
