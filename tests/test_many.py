"""fit_many: every net as if trained alone, and how a run of many ends."""

import contextvars
import os
import re
import signal
import sys
import threading
import time
import types

import numpy as np
import pytest
from test_reliability import can_fork, in_fork
from test_trainer import answers_ctrl_c, assert_same_bits  # noqa: F401 (a fixture)

import fastnn as fn
from fastnn import data, schedules

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(203, 6))
Y = np.sin(X).sum(axis=1, keepdims=True) + RANDOM.normal(size=(203, 1))
SETTINGS = {"epochs": 12, "validation_split": 0.2, "verbose": 0}


def own_loss(prediction, target):
    error = prediction - target
    return float(np.mean(error**2)), 2 * error / error.size


def trainer(*layers, seed=0, dtype="float32", **settings):
    net = fn.Sequential([*layers, fn.Dense(1)], input_size=6, dtype=dtype, seed=seed)
    return fn.Trainer(net, **{"loss": "mse", "batch_size": 16, **settings})


def assorted():
    """Trainers that have little in common but the input size."""
    dense = fn.Dense(16, "tanh")
    return [
        trainer(fn.Dense(16), fn.BatchNorm(), fn.ReLU(), fn.Dropout(0.4), seed=1, optimizer=fn.Adam(3e-2)),
        trainer(dense, seed=2, dtype="float64", optimizer=fn.SGD(schedules.cosine(0.1, 100), momentum=0.9)),
        trainer(dense, fn.Dropout(0.2), seed=3, loss="huber", regularizer=fn.L1(1e-3, proximal=True), metrics=("r2",)),
        trainer(dense, seed=4, optimizer=fn.SGD(schedules.step(0.2, 2, per="epoch")), clip=fn.ClipNorm(0.1)),
        trainer(fn.Dense(300, "relu"), fn.Dense(40, "relu"), seed=5, batch_size="full", optimizer=fn.AdamW(1e-2)),
        trainer(dense, seed=6, loss=own_loss, optimizer=fn.RMSprop(1e-2), dtype="float64"),
        trainer(dense, fn.BatchNorm(), seed=7, batch_size=50, micro_batch=7, clip=fn.ClipValue(-0.01, 0.01)),
        trainer(fn.Standardize(), dense, seed=8, regularizer=fn.ElasticNet(1e-3, 0.5), optimizer=fn.Adam(5e-2)),
    ]


def stoppings():
    """One list of callbacks per trainer of `assorted`; some stop early, at different epochs."""
    return [
        [fn.EarlyStopping(patience=1)],
        [fn.EarlyStopping(patience=2, min_delta=0.05)],
        None,
        [fn.ReduceLROnPlateau(patience=0), lambda epoch, logs: None],
        [fn.EarlyStopping(patience=1, min_delta=0.3, restore_best=False)],
        [fn.EarlyStopping(patience=3, min_delta=0.1)],
        [],
        [fn.EarlyStopping("loss", patience=1)],
    ]


def columns(history):
    return {name: values for name, values in history.items() if name != "seconds"}


def assert_as_alone(together, alone):
    for one, other in zip(together, alone, strict=True):
        assert_same_bits(one.net, other.net)
        assert columns(one.history) == columns(other.history)
        assert one.history.stopped_because == other.history.stopped_because
        assert one.history.best_epoch == other.history.best_epoch
        assert (one._step, one._epoch, one.lr_factor) == (other._step, other._epoch, other.lr_factor)


def no_thread_is_left():
    return [thread.name for thread in threading.enumerate() if "fit_many" in thread.name] == []


# ---- each as if alone ----


@pytest.mark.parametrize("n_threads", [1, 2, 3, 20])
def test_every_net_ends_with_the_bits_of_its_own_fit(n_threads):
    alone, together = assorted(), assorted()
    for one, callbacks in zip(alone, stoppings(), strict=True):
        one.fit(X, Y, callbacks=callbacks, **SETTINGS)
    histories = fn.fit_many(together, X, Y, callbacks=stoppings(), n_threads=n_threads, **SETTINGS)
    assert [one.history for one in together] == histories
    assert_as_alone(together, alone)
    assert len({history.epochs for history in histories}) >= 3  # the early stoppings of this test are at work
    assert no_thread_is_left()
    for one in alone:  # moments, schedules and streams of random numbers are those of the fits alone, too
        one.fit(X, Y, **SETTINGS)
    fn.fit_many(together, X, Y, n_threads=n_threads, **SETTINGS)
    assert_as_alone(together, alone)


@pytest.mark.parametrize("weights", [RANDOM.uniform(0.1, 3, 203), RANDOM.poisson(1, (3, 203))], ids=["shared", "own"])
def test_weights_of_samples_and_classes(weights):
    labels = RANDOM.integers(0, 2, 203)

    def three():
        return [trainer(fn.Dense(9, "relu"), seed=seed, loss="binary_cross_entropy") for seed in range(3)]

    alone, together = three(), three()
    settings = {"class_weight": "balanced", "validation_data": (X[:50], labels[:50]), "epochs": 3, "verbose": 0}
    for place, one in enumerate(alone):
        one.fit(X, labels, sample_weight=weights if weights.ndim == 1 else weights[place], **settings)
    fn.fit_many(together, X, labels, sample_weight=weights, n_threads=2, **settings)
    assert_as_alone(together, alone)


def test_targets_that_do_not_suit_one_loss_are_an_error():
    with pytest.raises(ValueError, match="poisson") as caught:
        fn.fit_many([trainer(loss="mse"), trainer(loss="poisson")], X, Y, verbose=0)
    assert caught.value.__notes__ == ["This is of trainers[1] in fit_many."]


def test_data_are_checked_once_for_nets_that_see_them_alike(monkeypatch):
    seen = []
    features = data.features
    monkeypatch.setattr(data, "features", lambda x, *rest: seen.append(x) or features(x, *rest))
    nets = [trainer(fn.Dense(4), seed=seed, loss="mae") for seed in range(5)]
    fn.fit_many(nets, X, Y, epochs=1, verbose=0)
    assert len(seen) == 1
    fn.fit_many([*nets, trainer(dtype="float64", loss="mae")], X, Y, epochs=1, verbose=0)
    assert len(seen) == 3


def test_settings_of_the_trainers_stay():
    nets = [trainer(n_threads=3), trainer(n_threads=1)]
    fn.fit_many(nets, X, Y, epochs=1, verbose=0, n_threads=2)
    assert [one._threads for one in nets] == [3, 1]


def test_threads_get_their_share_of_the_cores():
    def used(nets, n_threads):
        seen = []
        callbacks = [[lambda epoch, logs, one=one: seen.append(one._threads)] for one in nets]
        fn.fit_many(nets, X, Y, epochs=1, verbose=0, callbacks=callbacks, n_threads=n_threads)
        return seen

    nets = [trainer(seed=seed) for seed in range(3)]
    assert used(nets, 2) == [1, 1, 1]
    assert used(nets, 7) == [2, 2, 2]


def test_callbacks_see_the_callers_context():
    variable = contextvars.ContextVar("variable", default="")
    variable.set("of the caller")
    seen, barrier = [], threading.Barrier(3, timeout=30)

    def look(epoch, logs):
        barrier.wait()  # three threads
        seen.append((variable.get(), threading.get_ident()))

    fn.fit_many([trainer(seed=i) for i in range(3)], X, Y, epochs=1, verbose=0, callbacks=[[look]] * 3, n_threads=3)
    assert {text for text, _ in seen} == {"of the caller"}
    assert len({thread for _, thread in seen}) == 3


def test_fewer_threads_where_the_system_has_no_more(monkeypatch):
    def refuse(helper):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    alone, together = assorted(), assorted()
    for one in alone:
        one.fit(X, Y, **SETTINGS)
    fn.fit_many(together, X, Y, n_threads=3, **SETTINGS)
    assert_as_alone(together, alone)


# ---- arguments ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trainers": []}, "trainers must be a list of at least one fastnn.Trainer, got []"),
        ({"trainers": "abc"}, "trainers must be a list of at least one fastnn.Trainer, got 'abc'"),
        ({"trainers": [trainer(), 3]}, "trainers[1] must be a fastnn.Trainer, got 3"),
        ({"epochs": 0}, "epochs must be an int >= 1, got 0"),
        ({"shuffle": 1}, "shuffle must be True or False"),
        ({"verbose": 2}, "verbose must be an int in 0..1"),
        ({"n_threads": 0}, "n_threads must be an int in 1..4096"),
        ({"callbacks": [[]]}, "callbacks must be None or a list with one list per trainer, 2 in all, got 1 entries"),
        ({"callbacks": fn.Callback()}, "callbacks must be None or a list with one list per trainer, 2 in all, got <"),
        ({"callbacks": [[], fn.Callback()]}, "callbacks must be a list of callbacks or None"),
        ({"callbacks": [[3], []]}, "a callback must be a fastnn.Callback"),
        ({"sample_weight": np.ones((3, 203))}, "sample_weight.shape == (3, 203), expected (n,) or (2, n)!"),
        ({"sample_weight": np.ones((2, 5))}, "sample_weight.shape == (5,), expected (203,)!"),
        ({"sample_weight": "balanced"}, "sample_weight must be an array"),
        ({"x": X[:, :5]}, "x has 5 features, but the net is expecting 6"),
        ({"y": Y[:5]}, "inconsistent numbers of samples"),
        ({"callbacks": [[], [fn.EarlyStopping()]]}, "EarlyStopping monitors 'val_loss'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ", ".join(value),
)
def test_arguments_are_checked(arguments, message):
    nets = [trainer(seed=0), trainer(seed=1)]
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        fn.fit_many(**{"trainers": nets, "x": X, "y": Y, "verbose": 0, "epochs": 1, **arguments})
    fn.fit_many(nets, X, Y, epochs=1, verbose=0)


def test_an_argument_that_does_not_suit_one_net_is_named_before_any_is_trained():
    first, second = trainer(), fn.Trainer(fn.Sequential([fn.Dense(1)], input_size=7), loss="mse")
    with pytest.raises(ValueError, match="is expecting 7 features") as caught:
        fn.fit_many([first, second], X, Y, verbose=0)
    assert caught.value.__notes__ == ["This is of trainers[1] in fit_many."]
    assert first._step == 0


def test_two_trainers_of_one_net_are_an_error():
    one = trainer()
    with pytest.raises(ValueError, match=re.escape("trainers[1] is the same trainer as trainers[0]")):
        fn.fit_many([one, one], X, Y)
    with pytest.raises(ValueError, match=re.escape("trainers[2] has the same net as trainers[1]")):
        fn.fit_many([trainer(), one, fn.Trainer(one.net, loss="mse")], X, Y)


def test_one_callback_for_two_trainers_is_an_error():
    stopping = fn.EarlyStopping("loss")
    with pytest.raises(ValueError, match=re.escape("callbacks[1] has the same EarlyStopping as callbacks[0]")):
        fn.fit_many([trainer(), trainer()], X, Y, callbacks=[[stopping], [stopping]])


@pytest.mark.parametrize("callback", [fn.Checkpoint, fn.CSVLogger])
def test_one_file_or_folder_for_two_trainers_is_an_error(callback, tmp_path):
    path = tmp_path / "place"
    (tmp_path / "link").symlink_to(path)
    callbacks = [[callback(path)], [], [lambda epoch, logs: None, callback(tmp_path / "link")]]
    message = f"{callback.__name__} of callbacks[2] writes to {str(path)!r}, as one of callbacks[0] does"
    with pytest.raises(ValueError, match=re.escape(message)):
        fn.fit_many([trainer(seed=seed) for seed in range(3)], X, Y, callbacks=callbacks)
    callbacks[2][1] = callback(tmp_path / "other")
    fn.fit_many([trainer(seed=seed) for seed in range(3)], X, Y, epochs=1, verbose=0, callbacks=callbacks)


def test_a_list_is_converted_once_though_each_net_has_its_own_weights():
    nets, seen = [trainer(seed=seed) for seed in range(3)], []
    callbacks = [[lambda epoch, logs, one=one: seen.append(one._fit.training.x)] for one in nets]
    settings = {"epochs": 1, "verbose": 0, "callbacks": callbacks}
    fn.fit_many(nets, X.tolist(), Y, sample_weight=np.ones((3, 203)), **settings)
    assert len(seen) == 3
    assert np.shares_memory(seen[0], seen[1])
    assert np.shares_memory(seen[0], seen[2])


# ---- how a run ends ----


def forever(count):
    """Trainers whose fits must be stopped, and what asks whether all of them are at work."""
    started = threading.Barrier(count, timeout=30)
    return [trainer(fn.Dense(8), seed=seed) for seed in range(count)], started


def test_an_error_in_a_callback_stops_the_others():
    nets, started = forever(3)
    waiting = trainer(seed=9)

    def fail(epoch, logs):
        if epoch == 0:
            started.wait()
        if epoch == 2:
            raise OSError("disk full")

    def begin(epoch, logs):
        if epoch == 0:
            started.wait()

    with pytest.raises(OSError, match="disk full") as caught:
        fn.fit_many(
            [*nets, waiting],
            *(X, Y),
            epochs=10**6,
            verbose=0,
            callbacks=[[begin], [fail], [begin, fn.EarlyStopping("loss", patience=10**6)], []],
            n_threads=3,
        )
    assert caught.value.__notes__ == ["This is of trainers[1] in fit_many."]
    assert no_thread_is_left()
    assert [one.failed for one in nets] == [True] * 3
    assert nets[0].history.stopped_because == "stopped by the OSError of another net"
    assert nets[1].history.stopped_because == "OSError"
    assert nets[1].history.epochs == 3
    assert waiting._step == 0
    for one in nets:
        assert one.fit(X, Y, epochs=1, verbose=0).epochs == 1


@pytest.mark.filterwarnings("ignore:Training interrupted")
def test_ctrl_c_counts_before_an_earlier_error():
    nets, started = forever(2)

    def fail(epoch, logs):
        started.wait()
        raise OSError("disk full")

    class Interrupted(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            if epoch == 0:
                started.wait()

        def on_fit_end(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fn.fit_many(nets, X, Y, epochs=10**6, verbose=0, callbacks=[[Interrupted()], [fail]], n_threads=2)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_net_that_diverges_leaves_the_others_alone(n_threads):
    wild = {"optimizer": fn.SGD(1e30)}
    nets = [trainer(seed=0), trainer(seed=1, **wild), trainer(seed=2), trainer(seed=3, **wild)]
    with pytest.raises(fn.DivergenceError) as caught:
        fn.fit_many(nets, X, Y, epochs=3, verbose=0, n_threads=n_threads)
    assert caught.value.__notes__ == ["This is of trainers[1] in fit_many.", "So did trainers 3."]
    assert [one.failed for one in nets] == [False, True, False, True]
    alone = [trainer(seed=0), trainer(seed=2)]
    for one in alone:
        one.fit(X, Y, epochs=3, verbose=0)
    assert_as_alone([nets[0], nets[2]], alone)


def test_an_error_in_the_progress_of_a_net_that_diverged_is_told(monkeypatch):
    def fail(*args, **settings):
        raise BrokenPipeError("nobody listens")

    monkeypatch.setattr("builtins.print", fail)
    with pytest.raises(BrokenPipeError) as caught:
        fn.fit_many([trainer(optimizer=fn.SGD(1e30))], X, Y, epochs=3)
    assert caught.value.__notes__ == ["This is of trainers[0] in fit_many."]


def assert_interrupted(nets, call):
    """The call ends with KeyboardInterrupt, and the nets are those of their last finished step."""
    message = r"Training interrupted by user: \d of \d nets had finished; all are usable."
    with pytest.warns(UserWarning, match=message) as caught, pytest.raises(KeyboardInterrupt):
        call()
    assert caught[0].filename == __file__
    assert no_thread_is_left()
    for one in nets:
        assert one.failed
        assert re.fullmatch(r"KeyboardInterrupt: stopped after epoch \d+, batch \d+", one.history.stopped_because)
        assert one._step == one.net._engine.updates > 0
        assert one.fit(X, Y, epochs=1, verbose=0).epochs == 1


class Impatience(fn.Callback):
    """Another Ctrl-C while a thread of fit_many has yet to end."""

    def on_fit_end(self):
        if threading.current_thread() is not threading.main_thread():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)


@pytest.mark.usefixtures("answers_ctrl_c")
@pytest.mark.parametrize("twice", [False, True])
def test_ctrl_c_stops_all_nets(twice):
    nets, started = forever(2)
    waiting = trainer(seed=9)

    def begin(epoch, logs):
        if epoch == 0:
            started.wait()

    def interrupt(epoch, logs):
        begin(epoch, logs)
        if epoch == 3:
            threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()

    more = [[Impatience()] if twice else [] for _ in nets]
    callbacks = [[begin, *more[0]], [interrupt, *more[1]], []]
    settings = {"epochs": 10**6, "verbose": 0, "n_threads": 2, "callbacks": callbacks}
    assert_interrupted(nets, lambda: fn.fit_many([*nets, waiting], X, Y, **settings))
    assert waiting._step == 0


@pytest.mark.usefixtures("answers_ctrl_c")
def test_ctrl_c_while_the_main_thread_waits_for_others():
    nets, started = forever(2)
    still = []

    def leave_if_main(one):
        def callback(epoch, logs):
            if epoch == 0:
                started.wait()
                if threading.current_thread() is threading.main_thread():
                    one.request_stop()
                    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
                else:
                    still.append(one)

        return callback

    callbacks = [[leave_if_main(one)] for one in nets]
    settings = {"epochs": 10**6, "verbose": 0, "n_threads": 2, "callbacks": callbacks}
    assert_interrupted(still, lambda: fn.fit_many(nets, X, Y, **settings))
    assert len(still) == 1


# ---- where it is called ----


def fitted(seeds=(1, 2, 3)):
    """Weights of nets that were trained together, as a string."""
    nets = [trainer(fn.Dense(8, "relu"), fn.Dropout(0.3), seed=seed) for seed in seeds]
    fn.fit_many(nets, X, Y, epochs=2, verbose=0, n_threads=2)
    return "".join(view.tobytes().hex() for one in nets for view in one.net.parameters().values())


def test_in_another_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(fitted()))
    thread.start()
    thread.join()
    assert found == [fitted()]


@can_fork
def test_after_fork():
    expected = fitted()
    assert in_fork(fitted) == expected


@can_fork
def test_fork_in_a_callback():
    expected, children = fitted(), []

    def fork(epoch, logs):
        children.append(in_fork(fitted))

    fn.fit_many([trainer(seed=i) for i in range(2)], X, Y, epochs=2, verbose=0, callbacks=[[fork]] * 2, n_threads=2)
    assert children == [expected] * 4


def test_in_a_callback_of_other_fits():
    expected, found = fitted(), []

    def inner(epoch, logs):
        found.append(fitted())

    trainer().fit(X, Y, epochs=2, verbose=0, callbacks=[inner])
    fn.fit_many([trainer(seed=i) for i in range(2)], X, Y, epochs=1, verbose=0, callbacks=[[inner]] * 2, n_threads=2)
    assert found == [expected] * 4


def test_in_a_callback_of_a_fit_of_the_same_trainer_is_an_error():
    one = trainer()
    with pytest.raises(RuntimeError, match="this trainer is already fitting") as caught:
        one.fit(X, Y, verbose=0, callbacks=[lambda epoch, logs: fn.fit_many([trainer(), one], X, Y, verbose=0)])
    assert caught.value.__notes__ == ["This is of trainers[1] in fit_many."]


def test_a_net_that_another_thread_trains_is_an_error():
    one, errors = trainer(), []

    def intrude(epoch, logs):
        def attempt():
            with pytest.raises(RuntimeError, match="is being trained by another thread") as caught:
                fn.fit_many([trainer(), one], X, Y, verbose=0)
            errors.append(caught.value.__notes__)

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()

    fn.fit_many([one, trainer()], X, Y, epochs=1, verbose=0, callbacks=[[intrude], []])
    assert errors == [["This is of trainers[1] in fit_many."]]


def test_checkpoints_and_resume(tmp_path):
    def pair():
        return [trainer(fn.Dense(8), fn.Dropout(0.3), seed=seed) for seed in (1, 2)]

    def checkpoints():
        return [[fn.Checkpoint(tmp_path / "0")], [fn.Checkpoint(tmp_path / "1")]]

    alone, first, together = pair(), pair(), pair()
    for one in alone:
        one.fit(X, Y, epochs=5, verbose=0)
    fn.fit_many(first, X, Y, epochs=2, verbose=0, callbacks=checkpoints())
    for place, one in enumerate(together):
        one.resume(tmp_path / str(place))
    fn.fit_many(together, X, Y, epochs=5, verbose=0, callbacks=checkpoints())
    assert_as_alone(together, alone)


# ---- progress ----


def test_a_line_for_each_net(capsys):
    nets = [trainer(seed=0), trainer(seed=1, optimizer=fn.SGD(1e30)), trainer(seed=2)]
    with pytest.raises(fn.DivergenceError):
        fn.fit_many(nets, X, Y, epochs=2, validation_split=0.1, n_threads=1)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"net 1/3  trainers\[0\]: all 2 epochs finished  loss \S+  val_loss \S+", lines[0])
    assert lines[1].startswith("net 2/3  trainers[1]: DivergenceError")
    assert lines[2].startswith("net 3/3  trainers[2]: all 2 epochs finished")
    assert len(lines) == 3


def test_one_bar_for_all_nets(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, unit):
            self.total, self.unit, self.counts, self.closed = total, unit, [], False
            bars.append(self)

        def update(self, count):
            self.counts.append(count)

        def close(self):
            self.closed = True

    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=Bar))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    stops = [[lambda epoch, logs: nets[0].request_stop()], []]
    nets = [trainer(seed=0), trainer(seed=1)]
    fn.fit_many(nets, X, Y, epochs=4, callbacks=stops, n_threads=1)
    (bar,) = bars
    assert (bar.total, bar.unit, bar.closed) == (8, "epoch", True)
    assert bar.counts == [1, 3, 1, 1, 1, 1, 0]  # the first net stops early: its other epochs count as done
    with pytest.raises(ValueError, match="inconsistent"):
        fn.fit_many(nets, X, Y[:3])
    assert bars[1].closed
