"""Callbacks: what they see, how they stop, restore, reduce and log."""

import csv
import sys
import types

import numpy as np
import pytest

import fastnn as fn
from fastnn.callbacks import ProgressBar, progress

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(24, 4))
Y = np.arange(24) % 3


def make(**options):
    net = fn.Sequential([fn.Dense(8), fn.BatchNorm(), fn.ReLU(), fn.Dense(3)], 4, dtype="float64")
    return fn.Trainer(net, **{"optimizer": fn.SGD(0.1), "batch_size": 8, **options})


def fit(trainer, callbacks, epochs=6, **arguments):
    return trainer.fit(X, Y, epochs=epochs, verbose=0, callbacks=callbacks, **arguments)


def scripted(values, name="score"):
    """A metric that gives these values epoch after epoch."""
    remaining = iter(values)

    def metric(y_true, y_pred):
        return next(remaining)

    metric.__name__ = name
    return metric


class Recorder(fn.Callback):
    def __init__(self):
        self.events = []

    def on_fit_begin(self):
        self.events.append("begin")

    def on_epoch_end(self, epoch, logs):
        self.events.append((epoch, dict(logs)))

    def on_fit_end(self):
        self.events.append("end")


# ---- what they see ----


def test_callbacks_see_what_the_history_records():
    recorder, seen = Recorder(), []
    history = fit(
        make(metrics=("accuracy",)), [recorder, lambda epoch, logs: seen.append(epoch)], 3, validation_split=0.25
    )
    assert recorder.events[0] == "begin"
    assert recorder.events[-1] == "end"
    for epoch, (number, logs) in enumerate(recorder.events[1:-1]):
        assert number == epoch
        assert logs == {name: column[epoch] for name, column in history.items()}
    assert seen == [0, 1, 2]
    expected = ["loss", "penalty", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"]
    assert list(history) == expected == recorder.trainer.log_names
    assert history.stopped_because == "all 3 epochs finished"


def test_predict_and_evaluate_work_inside_a_callback():
    trainer, outputs = make(), []
    fit(trainer, [lambda epoch, logs: outputs.append(trainer.net.predict(X))], 2)
    assert not np.array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[1], trainer.net.predict(X))


def test_on_fit_end_is_called_after_an_error():
    class Breaks(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            raise KeyError("mine")

    first, last = Recorder(), Recorder()
    trainer = make()
    with pytest.raises(KeyError, match="mine"):
        fit(trainer, [first, Breaks(), last])
    assert first.events[-1] == last.events[-1] == "end"
    assert trainer.failed
    assert trainer.history.epochs == 1
    assert trainer.history.stopped_because == "KeyError"
    assert fit(trainer, [], 1).epochs == 1
    assert not trainer.failed


def test_callbacks_end_in_their_order_and_all_of_them():
    ended = []

    class Ends(fn.Callback):
        def __init__(self, name):
            self.name = name

        def on_fit_end(self):
            ended.append(self.name)
            if self.name == 1:
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fit(make(), [Ends(0), Ends(1), Ends(2)], 1)
    assert ended == [0, 1, 2]


def test_a_callback_may_change_its_logs():
    recorder = Recorder()
    history = fit(make(), [lambda epoch, logs: logs.clear(), recorder], 2)
    assert [logs["loss"] for _, logs in recorder.events[1:-1]] == history["loss"]


def test_no_callbacks():
    assert fit(make(), None, 1).epochs == 1


def test_a_stop_before_the_first_epoch_trains_nothing():
    class Stops(fn.Callback):
        def on_fit_begin(self):
            self.request_stop("not today")

    trainer = make()
    before = trainer.net.predict(X)
    history = fit(trainer, [Stops()])
    assert (history.epochs, history.stopped_because) == (0, "not today")
    np.testing.assert_array_equal(trainer.net.predict(X), before)


def test_a_step_inside_a_callback_does_not_lose_the_stop():
    trainer = make()

    def stop(epoch, logs):
        trainer.request_stop("enough")
        trainer.train_step(X, Y)

    assert fit(trainer, [stop]).epochs == 1
    assert trainer.history.stopped_because == "enough"


def test_a_second_trainer_inside_a_callback_does_not_change_the_fit():
    trainer = make(optimizer=fn.SGD(1e-3))
    other = fn.Trainer(trainer.net, optimizer=fn.SGD(1e-3), regularizer=fn.L2(1.0))
    assert fit(trainer, [lambda epoch, logs: other.train_step(X, Y)], 3)["penalty"] == [0, 0, 0]


def test_fit_inside_its_own_callback_is_refused():
    trainer, errors = make(), []

    def again(epoch, logs):
        with pytest.raises(RuntimeError, match="this trainer is already fitting") as caught:
            fit(trainer, [], 1)
        errors.append(caught.value)

    assert fit(trainer, [again], 2).epochs == len(errors) == 2
    assert fit(trainer, [], 1).epochs == 1


def test_a_callback_that_did_not_begin_does_not_end():
    class Breaks(fn.Callback):
        def on_fit_begin(self):
            raise OSError("no")

    before, after = Recorder(), Recorder()
    with pytest.raises(OSError, match="no"):
        fit(make(), [before, Breaks(), after])
    assert before.events == ["begin", "end"]
    assert after.events == []


def test_request_stop_ends_the_fit_after_the_epoch():
    class Stops(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            if epoch == 1:
                self.request_stop("enough")

    history = fit(make(), [Stops()])
    assert history.epochs == 2
    assert history.stopped_because == "enough"


# ---- EarlyStopping ----


def stopping(values, patience, mode="min", min_delta=0.0, restore_best=True):
    """A fit whose monitored values are given; returns the history and the outputs after each epoch and at the end."""
    trainer = make(metrics=(scripted(values),))
    outputs = []
    stop = fn.EarlyStopping("score", mode, min_delta, patience, restore_best)
    history = fit(trainer, [lambda epoch, logs: outputs.append(trainer.net.predict(X)), stop], len(values))
    return history, outputs, trainer.net.predict(X)


@pytest.mark.parametrize(
    ("values", "patience", "mode", "min_delta", "epochs", "best"),
    [
        ([5, 4, 3, 2, 1], 2, "min", 0, 5, 4),
        ([5, 4, 6, 6, 1], 2, "min", 0, 4, 1),
        ([5, 4, 4, 4, 4], 2, "min", 0, 4, 1),
        ([1, 2, 0, 3, 0, 0, 9], 2, "max", 0, 6, 3),
        ([5, 4.9, 4.8, 4.7], 2, "min", 0.5, 3, 0),
        ([5, 4, 6, 6], 10, "min", 0, 4, 1),  # patience never runs out
        ([float("nan"), 3, float("nan"), 4, 5], 3, "min", 0, 5, 1),
    ],
)
def test_early_stopping_ends_at_the_best_epoch(values, patience, mode, min_delta, epochs, best):
    history, outputs, final = stopping(values, patience, mode, min_delta)
    assert history.epochs == epochs
    assert history.best_epoch == best
    np.testing.assert_array_equal(final, outputs[best])  # weights and running statistics
    if epochs < len(values):
        assert history.stopped_because == f"score has not improved for {patience} epoch(s)"


def test_restore_best_may_be_switched_off():
    _, outputs, final = stopping([1, 2, 3], 10, restore_best=False)
    np.testing.assert_array_equal(final, outputs[-1])


def test_without_what_it_monitors_the_fit_is_an_error():
    with pytest.raises(
        ValueError, match=r"EarlyStopping monitors 'val_loss', but this fit records loss.*validation_data"
    ):
        fit(make(), [fn.EarlyStopping()])
    with pytest.raises(ValueError, match="ReduceLROnPlateau monitors 'auc'"):
        fit(make(), [fn.ReduceLROnPlateau("auc")])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"patience": -1}, ValueError, "patience"),
        ({"min_delta": -1}, ValueError, "min_delta"),
        ({"mode": "mni"}, ValueError, "Did you mean 'min'"),
        ({"monitor": "mine"}, ValueError, "mode='auto' cannot tell"),
        ({"monitor": 3}, TypeError, "monitor"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    for kind in (fn.EarlyStopping, fn.ReduceLROnPlateau):
        with pytest.raises(error, match=message):
            kind(**arguments)


def test_restore_best_is_true_or_false():
    with pytest.raises(TypeError, match="restore_best must be True or False, got 'yes'"):
        fn.EarlyStopping(restore_best="yes")


@pytest.mark.filterwarnings("ignore:Training interrupted")
def test_an_error_does_not_restore():
    def breaks(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    trainer = make(metrics=(scripted([1, 2, 3]),))
    outputs = []
    stop = fn.EarlyStopping("score", "min")
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, [stop, lambda epoch, logs: outputs.append(trainer.net.predict(X)), breaks])
    np.testing.assert_array_equal(trainer.net.predict(X), outputs[-1])


# ---- ReduceLROnPlateau ----


def rates(values, **arguments):
    trainer = make(metrics=(scripted(values),), optimizer=fn.SGD(1.0))
    plateau = fn.ReduceLROnPlateau("score", mode="min", min_delta=0, **arguments)
    return fit(trainer, [plateau], len(values))["lr"], trainer


def test_a_plateau_multiplies_the_rate():
    lr, trainer = rates([3, 3, 3, 2, 2, 2, 2], factor=0.5, patience=2)
    np.testing.assert_allclose(lr, [1, 1, 1, 0.5, 0.5, 0.5, 0.25])
    trainer.reset()
    assert trainer.lr_factor == 1


def test_cooldown_and_smallest_rate():
    np.testing.assert_allclose(rates([3] * 6, factor=0.5, patience=1, cooldown=2)[0], [1, 1, 0.5, 0.5, 0.5, 0.25])
    np.testing.assert_allclose(rates([3] * 5, factor=0.1, patience=1, min_lr=0.05)[0], [1, 1, 0.1, 0.05, 0.05])


def test_a_plateau_multiplies_a_schedule():
    trainer = make(metrics=(scripted([1, 1, 1, 1]),), optimizer=fn.SGD(fn.schedules.step(1.0, 2, 0.1, per="epoch")))
    plateau = fn.ReduceLROnPlateau("score", mode="min", factor=0.5, patience=1)
    np.testing.assert_allclose(fit(trainer, [plateau], 4)["lr"], [1, 1, 0.05, 0.025])


# ---- logs ----


def test_csv_logger_writes_every_epoch(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("old")
    history = fit(make(metrics=("accuracy",)), [fn.CSVLogger(path)], 3)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row.pop("epoch")) for row in rows] == [0, 1, 2]
    assert rows == [{name: str(column[i]) for name, column in history.items()} for i in range(3)]


def test_csv_logger_fails_before_training(tmp_path):
    trainer = make()
    before = trainer.net.predict(X)
    with pytest.raises(FileNotFoundError):
        fit(trainer, [fn.CSVLogger(tmp_path / "missing" / "log.csv")])
    np.testing.assert_array_equal(trainer.net.predict(X), before)


def test_a_line_per_epoch(capsys):
    make(metrics=("accuracy",)).fit(X, Y, epochs=10, validation_split=0.25, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("epoch  1/10  loss ")
    assert lines[9].startswith("epoch 10/10  loss ")
    assert all(word in lines[0] for word in ("accuracy", "val_loss", "val_accuracy", " s"))
    make().fit(X, Y, epochs=1, verbose=0)
    assert capsys.readouterr().out == ""


def test_a_bar_where_tqdm_is_installed_and_a_terminal_listens(monkeypatch):
    class Bar:
        def __init__(self, total, initial, unit):
            self.total, self.count, self.closed = total, initial, False

        def set_postfix(self, values, refresh):
            self.values = values

        def update(self):
            self.count += 1

        def close(self):
            self.closed = True

    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=Bar))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = progress(3)
    assert isinstance(bar, ProgressBar)
    fit(make(), [bar], 3)
    assert (bar._bar.total, bar._bar.count, bar._bar.closed) == (3, 3, True)
    assert "loss" in bar._bar.values
