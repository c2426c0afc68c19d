"""What a long-running program relies on: fork, Ctrl-C, threads, failing allocations, any memory layout, no leaks.

Scenarios that could hang, crash or change the process run in an interpreter of their own, with a time limit.
"""

import ctypes
import gc
import hashlib
import itertools
import mmap
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastnn as fn
from fastnn import _core

TESTS = Path(__file__).parent
LINUX = sys.platform == "linux"
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(600, 32)).astype(np.float32)
LABELS = RANDOM.integers(0, 5, 600)
BATCH = 200  # 200 x (32 x 160 + 160 x 64): enough work for several threads

long = pytest.mark.long
linux_only = pytest.mark.skipif(not LINUX, reason="reads /proc")
can_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


# ---- help ----


def in_own_process(scenario, *arguments, timeout=60, warn="error::DeprecationWarning", **environment):
    """Run a function of this file in a fresh interpreter; what hangs is killed, with all its children."""
    # A shell starts background jobs, and so all their children, with Ctrl-C ignored.
    handler = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{handler}; import test_reliability as t; t.{scenario.__name__}(*{arguments!r})"
    return run_python(code, timeout, warn, environment)


def run_python(code, timeout=60, warn="default", environment=()):
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-W", warn, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **dict(environment)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"hangs after {timeout} s\n{''.join(process.communicate())}")
    assert process.returncode == 0, f"status {process.returncode}\n{output}{errors}"
    return output


def make_net(seed=0, dtype="float32"):
    layers = [fn.Dense(160), fn.BatchNorm(), fn.ReLU(), fn.Dropout(0.3), fn.Dense(64, "tanh"), fn.Dense(5)]
    return fn.Sequential(layers, input_size=32, dtype=dtype, seed=seed)


def make_trainer(net, **settings):
    return fn.Trainer(net, **{"optimizer": fn.Adam(1e-3), "batch_size": BATCH, "n_threads": 2, **settings})


def own_loss(y_pred, y):
    """Cross-entropy in Python, which therefore holds the interpreter lock for a while."""
    e = np.exp(y_pred - y_pred.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    gradient = p.copy()
    gradient[np.arange(len(y)), y] -= 1
    return -np.log(p[np.arange(len(y)), y]).mean(), gradient / len(y)


def digest(*arrays):
    result = hashlib.sha256()
    for array in arrays:
        result.update(np.ascontiguousarray(array).tobytes())
    return result.hexdigest()


def weights(net):
    """A digest of all parameters and statistics, which are checked to be finite."""
    values = net.parameters().values()
    assert all(np.isfinite(value).all() for value in values)
    return digest(*values)


def outcome(seed=0, **settings):
    """Digest of a training from the start and the prediction after it."""
    net = make_net(seed)
    make_trainer(net, **settings).fit(X, LABELS, epochs=2, verbose=0)
    return digest(*net.parameters().values(), net.predict(X, n_threads=settings.get("n_threads", 2)))


def thread_count():
    return len(os.listdir("/proc/self/task"))


# ---- fork ----


def in_fork(function):
    """What the function returns in a forked child, a string."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, function().encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return text


def fork_between_fits(repeats):
    expected = outcome(n_threads=1)
    net = make_net()
    trainer = make_trainer(net)

    def go_on():
        trainer.fit(X, LABELS, epochs=1, verbose=0)
        return weights(net)

    for _ in range(repeats):
        assert in_fork(outcome) == expected
        assert outcome() == expected
        assert in_fork(go_on) == go_on()  # also with a net that the parent has trained


def multiprocessing_outcome(connection):
    connection.send(outcome())


def start_processes(method, repeats):
    expected = outcome()
    context = multiprocessing.get_context(method)
    for _ in range(repeats):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=multiprocessing_outcome, args=(sender,))
        process.start()
        assert receiver.recv() == expected
        process.join()
        assert process.exitcode == 0
        assert outcome() == expected


def fork_in_callback(repeats, loss):
    loss = own_loss if loss == "own" else loss
    expected = outcome()

    def train(callbacks):
        net = make_net(seed=1)
        make_trainer(net, loss=loss).fit(X, LABELS, epochs=repeats, verbose=0, callbacks=callbacks)
        return net

    def in_child(net):
        prediction = digest(net.predict(X))
        make_trainer(net).train_step(X[:BATCH], LABELS[:BATCH])
        return prediction + outcome()

    net = None

    def callback(epoch, logs):
        nonlocal net
        net = fork.trainer.net
        assert in_fork(lambda: in_child(net)) == digest(net.predict(X)) + expected

    fork = fn.callbacks.as_callback(callback)
    assert weights(train([fork])) == weights(train([]))
    assert net is not None


def fork_between_steps(repeats):
    """A child sees the parameters and the counters of the same step, whichever it is."""
    net = make_net(seed=1)
    trainer = make_trainer(net, batch_size=100)
    after = {0: weights(net)}
    for _ in range(180):
        trainer.fit(X[:100], LABELS[:100], epochs=1, shuffle=False, verbose=0)
        after[net._engine.updates] = weights(net)
    assert len(set(after.values())) == 181
    seen = set()
    while len(seen) < repeats:
        net = make_net(seed=1)
        trainer = make_trainer(net, batch_size=100)
        fit = {"epochs": 180, "shuffle": False, "verbose": 0}
        thread = threading.Thread(target=trainer.fit, args=(X[:100], LABELS[:100]), kwargs=fit)
        thread.start()
        while thread.is_alive():
            updates, digest_of_child = in_fork(lambda net=net: f"{net._engine.updates} {weights(net)}").split()
            assert after[int(updates)] == digest_of_child
            seen.add(int(updates))
        thread.join()


def set_threads_beside_training(seconds):
    """The number that is configured may change at any moment; a fit keeps the one it began with."""
    expected = outcome(n_threads=None)
    end = time.monotonic() + seconds
    done = threading.Event()

    def change():
        n = 1
        while not done.is_set():
            n = n % 4 + 1
            fn.set_num_threads(n)

    thread = threading.Thread(target=change)
    thread.start()
    _core._set_work_per_thread(1)
    try:
        while time.monotonic() < end:
            assert outcome(n_threads=None) == expected
    finally:
        done.set()
        thread.join()


def fork_beside_training(repeats, loss, n_threads):
    """The thread that trains does not exist in the child; what it uses must not be locked there."""
    loss = own_loss if loss == "own" else loss
    expected, reference = outcome(), None
    done = 0
    while done < repeats:
        net = make_net(seed=1)
        trainer = make_trainer(net, loss=loss, n_threads=n_threads, batch_size=100)

        def train(trainer=trainer):
            trainer.fit(X, LABELS, epochs=30, verbose=0)

        def in_child(net=net):
            assert net.predict(X).shape == (600, 5)  # its weights may be those of an unfinished step
            return outcome()

        thread = threading.Thread(target=train)
        thread.start()
        while thread.is_alive():
            assert in_fork(in_child) == expected
            done += 1
        thread.join()
        reference = reference or weights(net)
        assert weights(net) == reference
    plain = make_net(seed=1)
    make_trainer(plain, loss=loss, batch_size=100).fit(X, LABELS, epochs=30, verbose=0)
    assert weights(plain) == reference


@can_fork
@pytest.mark.parametrize("repeats", [20, pytest.param(500, marks=long)])
def test_fork_between_fits(repeats):
    in_own_process(fork_between_fits, repeats, timeout=30 + repeats)


@pytest.mark.parametrize(
    ("method", "repeats"),
    [
        ("fork", 10),
        ("spawn", 1),
        pytest.param("fork", 300, marks=long),
        pytest.param("forkserver", 50, marks=long),
        pytest.param("spawn", 20, marks=long),
    ],
)
def test_multiprocessing(method, repeats):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("not on this system")
    in_own_process(start_processes, method, repeats, timeout=30 + 2 * repeats)


@can_fork
@pytest.mark.parametrize("repeats", [10, pytest.param(500, marks=long)])
@pytest.mark.parametrize("loss", ["cross_entropy", "own"])
def test_fork_from_a_callback(loss, repeats):
    in_own_process(fork_in_callback, repeats, loss, timeout=30 + repeats)


@can_fork
def test_fork_between_the_steps_of_another_thread():
    in_own_process(fork_between_steps, 5, timeout=60, warn="ignore")


def test_number_of_threads_changes_beside_training():
    in_own_process(set_threads_beside_training, 1)


@can_fork
@pytest.mark.parametrize("repeats", [20, pytest.param(500, marks=long)])
@pytest.mark.parametrize(("loss", "n_threads"), [("own", 2), ("cross_entropy", 2), ("cross_entropy", 1)])
def test_fork_while_another_thread_trains(loss, n_threads, repeats):
    """Python itself warns about such a fork."""
    in_own_process(fork_beside_training, repeats, loss, n_threads, timeout=30 + 2 * repeats, warn="ignore")


LEAVE = """
import threading, time
import test_reliability as t
trainer = t.make_trainer(t.make_net())
threading.Thread(target=lambda: trainer.fit(t.X, t.LABELS, epochs=10**9, verbose=0), daemon=True).start()
time.sleep(0.2)
print("the end")
"""


def test_leaving_while_a_daemon_thread_trains():
    assert run_python(LEAVE, timeout=30) == "the end\n"


# ---- Ctrl-C and request_stop ----


class Steps:
    """The weights after every step of an undisturbed training, computed as far as asked for."""

    def __init__(self, make):
        self.trainer, self.batches = make()
        self.digests = [weights(self.trainer.net)]

    def __getitem__(self, count):
        while len(self.digests) <= count:
            self.trainer.train_step(*self.batches[(len(self.digests) - 1) % len(self.batches)])
            self.digests.append(weights(self.trainer.net))
        return self.digests[count]


def many_steps(**settings):
    """An epoch of 600 steps, each of which takes about a millisecond."""
    batches = [(X[at : at + BATCH], LABELS[at : at + BATCH]) for at in range(0, len(X), BATCH)]
    return make_trainer(make_net(), **settings), 200 * batches


def long_step():
    """A step of many micro-batches that takes some 0.2 seconds."""
    x, y = np.tile(X, (50, 1)), np.tile(LABELS, 50)
    return make_trainer(make_net(), batch_size="full", micro_batch=100), [(x, y)]


MAKERS = {
    "one thread": lambda: many_steps(n_threads=1),
    "two threads": many_steps,
    "own loss": lambda: many_steps(loss=own_loss),
    "micro_batch": long_step,
}


def disturb(name, disturbance, repeats):
    """Fits that are ended at random moments: when and where they end."""
    trainer, batches = MAKERS[name]()
    expected = Steps(MAKERS[name])
    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    random = np.random.default_rng(0)
    delays = []
    for _ in range(repeats):
        trainer.reset()
        began = 0.0

        def end():
            nonlocal began
            began = time.perf_counter()
            if disturbance == "stop":
                trainer.request_stop()
            else:
                os.kill(os.getpid(), signal.SIGINT)

        timer = threading.Timer(random.uniform(0.02, 0.3), end)
        timer.start()
        try:
            trainer.fit(x, y, epochs=10**9, shuffle=False, verbose=0)
            assert disturbance == "stop"
        except KeyboardInterrupt:
            assert disturbance == "interrupt"
        delays.append(time.perf_counter() - began)
        timer.join()
        steps = trainer._step
        reached = expected[steps + 1], expected[steps]
        finished, rest = divmod(steps, len(batches))
        assert trainer.history.epochs in (finished, finished - (rest == 0))  # that epoch's last line may be missing
        if name == "own loss" and disturbance == "interrupt":
            assert weights(trainer.net) in reached  # Python may stop between any two lines of the loop
            trainer.reset()
        else:
            assert weights(trainer.net) == reached[1]
        for step in range(trainer._step, trainer._step + 2):  # and goes on as if nothing had happened
            trainer.train_step(*batches[step % len(batches)])
            assert weights(trainer.net) == expected[step + 1]
        assert trainer.fit(X, LABELS, epochs=1, verbose=0).epochs == 1
    assert statistics.median(delays) <= 0.5, delays
    assert max(delays) <= 5, delays


def interrupt_twice():
    """The second Ctrl-C comes while a callback cleans up after the first."""
    trainer, _ = many_steps()

    class Slow(fn.Callback):
        def on_fit_end(self):
            threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
            time.sleep(10)

    for callbacks in ([Slow()], [], [Slow()]):
        threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
        began = time.perf_counter()
        try:
            trainer.fit(X, LABELS, epochs=10**9, verbose=0, callbacks=callbacks)
            raise AssertionError("not interrupted")
        except KeyboardInterrupt:
            assert time.perf_counter() - began < 5
    with ThreadPoolExecutor(1) as other:  # no trace of the interrupted fits is left
        other.submit(trainer.fit, X, LABELS, epochs=1, verbose=0).result()
    weights(trainer.net)


def interrupt_validation():
    """A long prediction inside of fit is no reason to wait either."""
    net = fn.Sequential([fn.Dense(2048), fn.ReLU(), fn.Dense(512), fn.Dense(5)], input_size=32)
    trainer = make_trainer(net)
    x, y = np.broadcast_to(X[:1], (600_000, 32)), np.zeros(600_000, int)
    delays = []
    for _ in range(3):
        began = 0.0

        def end():
            nonlocal began
            began = time.perf_counter()
            os.kill(os.getpid(), signal.SIGINT)

        threading.Timer(0.3, end).start()
        try:
            trainer.fit(X, LABELS, epochs=1, validation_data=(x, y), verbose=0)
            raise AssertionError("not interrupted")
        except KeyboardInterrupt:
            delays.append(time.perf_counter() - began)
    assert min(delays) <= 0.5, delays
    trainer.train_step(X, LABELS)


@pytest.mark.parametrize("repeats", [5, pytest.param(100, marks=long)])
@pytest.mark.parametrize("name", MAKERS)
def test_ctrl_c_leaves_the_last_finished_step(name, repeats):
    in_own_process(disturb, name, "interrupt", repeats, timeout=60 + 5 * repeats)


@pytest.mark.parametrize("repeats", [3, pytest.param(50, marks=long)])
@pytest.mark.parametrize("name", MAKERS)
def test_request_stop_ends_with_a_step(name, repeats):
    in_own_process(disturb, name, "stop", repeats, timeout=60 + 5 * repeats)


def test_ctrl_c_in_a_long_validation():
    in_own_process(interrupt_validation)


def test_second_ctrl_c():
    in_own_process(interrupt_twice)


# ---- threads of the program ----


@pytest.mark.parametrize(("threads", "predictions"), [(8, 100), pytest.param(16, 10_000, marks=long)])
def test_many_threads_predict_on_one_net(threads, predictions):
    net = make_net()
    make_trainer(net).fit(X, LABELS, epochs=1, verbose=0)
    whole, sampled = net.predict(X), net.predict_mc(X[:20], samples=5)

    def predict(seed):
        random = np.random.default_rng(seed)
        for i in range(predictions):
            first, last = sorted(random.choice(np.arange(len(X) + 1), 2, replace=False))
            found = net.predict(X[first:last], n_threads=int(random.integers(1, 4)))
            if not np.array_equal(found, whole[first:last]):
                return i
            if i % 10 == 0 and not np.array_equal(net.predict_mc(X[:20], samples=5), sampled):
                return i
        return None

    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(predict, range(threads))) == [None] * threads


def test_a_net_in_training_is_left_alone():
    net = make_net()
    other = fn.Trainer(net, optimizer=fn.SGD(1.0), clip=fn.ClipNorm(1e-3), regularizer=fn.L1(1.0))
    trainer = make_trainer(net)
    inside, go_on = threading.Event(), threading.Event()

    def callback(epoch, logs):
        inside.set()
        go_on.wait(30)

    intrusions = [
        lambda: trainer.fit(X, LABELS, epochs=1, verbose=0),
        lambda: trainer.train_step(X, LABELS),
        lambda: trainer.apply_gradients(),
        lambda: other.apply_gradients(),
        lambda: trainer.reset(),
        lambda: fn.Trainer(net),
        lambda: net.forward(X),
        lambda: net.backward(np.ones((600, 5))),
        lambda: net.predict(X),
        lambda: net.predict_mc(X, samples=2),
        lambda: net.activations(X),
        lambda: net.evaluate(X, LABELS),
    ]
    with ThreadPoolExecutor(1) as pool:
        fit = pool.submit(trainer.fit, X, LABELS, epochs=2, verbose=0, callbacks=[callback])
        assert inside.wait(30)
        try:
            for intrusion in intrusions:
                with pytest.raises(RuntimeError, match="is being trained by another thread"):
                    intrusion()
        finally:
            go_on.set()
        fit.result()
    assert digest(*net.parameters().values(), net.predict(X)) == outcome()


def test_a_net_in_training_inside_c_is_left_alone():
    net = make_net()
    trainer = make_trainer(net, n_threads=1)
    with ThreadPoolExecutor(1) as pool:
        fit = pool.submit(trainer.fit, X, LABELS, epochs=10**9, verbose=0)
        while net._engine.updates == 0:
            time.sleep(0.001)
        try:
            for _ in range(50):
                for intrusion in (net.predict, lambda x: trainer.train_step(x, LABELS)):
                    with pytest.raises(RuntimeError, match="is being trained by another thread"):
                        intrusion(X)
        finally:
            trainer.request_stop()
        fit.result()
    assert np.isfinite(net.predict(X)).all()


def test_fit_while_another_thread_predicts():
    net = make_net()
    trainer = make_trainer(net)
    begins = threading.Event()

    def predict(samples):
        begins.set()
        net.predict_mc(X, samples=samples, n_threads=1)

    message = None
    with ThreadPoolExecutor(1) as pool:
        for samples in (200, 1000, 5000, 25_000):  # until the prediction takes long enough to be met
            begins.clear()
            prediction = pool.submit(predict, samples)
            begins.wait()
            time.sleep(0.05)
            try:
                trainer.train_step(X, LABELS)
            except RuntimeError as error:
                message = str(error)
            prediction.result()
            if message is not None:
                break
    assert message is not None
    assert "is predicting in another thread" in message
    trainer.train_step(X, LABELS)


def test_callbacks_may_predict():
    def train(callbacks):
        net = make_net()
        make_trainer(net).fit(X, LABELS, epochs=2, verbose=0, callbacks=callbacks)
        return net

    seen = []

    def callback(epoch, logs):
        net = recorder.trainer.net
        net.predict_mc(X, samples=3)
        net.evaluate(X, LABELS)
        seen.append(net.predict(X))

    recorder = fn.callbacks.as_callback(callback)
    net = train([recorder])
    assert np.array_equal(seen[-1], net.predict(X))
    assert weights(net) == weights(train([]))


def test_training_lets_other_threads_run():
    """A counting thread keeps at least half of its speed beside a fit on one thread."""
    if len(os.sched_getaffinity(0)) < 2 if LINUX else os.cpu_count() < 2:
        pytest.skip("one processor")
    trainer = make_trainer(make_net(), n_threads=1)
    counts = itertools.count()
    counted, end = 0, False

    def count():
        nonlocal counted
        while not end:
            counted = next(counts)

    def speed(function):
        before, began = counted, time.perf_counter()
        function()
        return (counted - before) / (time.perf_counter() - began)

    def fit():
        threading.Timer(0.2, trainer.request_stop).start()
        trainer.fit(X, LABELS, epochs=10**9, verbose=0)

    thread = threading.Thread(target=count)
    thread.start()
    try:  # other programs take processors away, too: one good attempt proves it
        ratios = []
        while len(ratios) < 20 and max(ratios, default=0) < 0.5:
            ratios.append(speed(fit) / speed(lambda: time.sleep(0.2)))
    finally:
        end = True
        thread.join()
    assert max(ratios) >= 0.5, ratios


# ---- failures of the system ----


def refuse_threads():
    expected = outcome(n_threads=1)

    def in_child(n, from_then_on):
        before = thread_count() if LINUX else 0
        _core._fail_thread_start(n, from_then_on)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert outcome(n_threads=5) == expected
            assert outcome(n_threads=5) == expected
        assert len(caught) <= 1, caught
        assert _core.thread_failures() >= 1
        if LINUX:
            assert thread_count() - before == n - 1
        return "done"

    for n in range(1, 5):
        for from_then_on in (False, True):
            assert in_fork(lambda n=n, all_=from_then_on: in_child(n, all_)) == "done"


@can_fork
def test_fewer_threads_give_the_same_bits():
    in_own_process(refuse_threads)


def every_use(attempt):
    """A net from making it to the exact expectation; `attempt` makes each call. All results."""
    last = [fn.Dense(4, "tanh"), fn.Dropout(0.3), fn.Dense(5)]
    layers = [fn.Dense(20, init="orthogonal"), fn.BatchNorm(), fn.ReLU(), fn.Dropout(0.5), *last]
    net = attempt(lambda: fn.Sequential(layers, input_size=32, seed=2))
    trainer = attempt(lambda: fn.Trainer(net, clip=fn.ClipNorm(1.0), batch_size=50, metrics=("accuracy",)))
    x, y = X[::-2, :], LABELS[::-2]  # not contiguous: looking for NaN needs a buffer
    history = attempt(lambda: trainer.fit(x, y, epochs=2, verbose=0))
    outputs = attempt(lambda: net.forward(x))
    inputs = attempt(lambda: net.backward(np.ones_like(outputs)))
    attempt(lambda: trainer.apply_gradients())
    scores = attempt(lambda: net.evaluate(x, y))
    twin = attempt(lambda: net.copy())
    folded = attempt(lambda: net.fold())
    small = attempt(lambda: fn.Sequential(last, input_size=32, seed=1))
    results = [
        history["loss"], outputs, inputs, *net.gradients().values(), scores["loss"],
        attempt(lambda: twin.predict(x)),
        attempt(lambda: folded.predict(x)),
        attempt(lambda: net.predict(x)),
        *attempt(lambda: net.predict_mc(x, samples=3)),
        attempt(lambda: small.predict_expected(x)),
        *attempt(lambda: net.activations(x)),
    ]  # fmt: skip
    attempt(lambda: net.recalibrate(x))
    return digest(*results, *net.parameters().values())


@pytest.mark.parametrize("from_then_on", [False, True])
def test_every_allocation_may_fail(from_then_on):
    """The call that meets the failure raises MemoryError and changes nothing: repeated, it gives the same bits."""
    expected = every_use(lambda call: call())
    failures = 0

    def attempt(call):
        nonlocal failures
        try:
            return call()
        except MemoryError:
            failures += 1
            _core._fail_allocation(0)
            return call()

    for n in itertools.count(1):
        failures = 0
        _core._fail_allocation(n, from_then_on)
        try:
            assert every_use(attempt) == expected, n
        finally:
            _core._fail_allocation(0)
        if failures == 0:
            break
        assert failures == 1
    assert n > 40, "the failures were not injected"


def test_size_that_overflows_names_the_layer():
    with pytest.raises(ValueError, match=r"too big.* layer 1 .*\(1099511627776, 1099511627776\)"):
        fn.Sequential([fn.Dense(2**40), fn.Dense(2**40)], input_size=3)


def test_size_beyond_the_address_space_names_gib_and_shape():
    sentence = r"Unable to allocate 5\.24e\+05 GiB for layer 1 .*\(8388608, 8388608\).*float64"
    with pytest.raises(MemoryError, match=sentence):
        fn.Sequential([fn.Dense(2**23), fn.Dense(2**23)], input_size=1, dtype="float64")


# ---- a training step takes nothing from the system ----


def test_no_allocation_per_step():
    resource = pytest.importorskip("resource")
    trainer = make_trainer(make_net(), optimizer=fn.Adam(), clip=fn.ClipNorm(1.0), batch_size=4, metrics=("accuracy",))
    trainer.fit(X, LABELS, epochs=3, verbose=0)
    allocations = _core.allocation_count()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    trainer.fit(X, LABELS, epochs=10, verbose=0)
    assert _core.allocation_count() == allocations
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults < 0.1 * 10 * 150


def resident_bytes():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def live():
    """A life of a net of about 100 KiB, errors included."""
    net = make_net()
    trainer = make_trainer(net, clip=fn.ClipNorm(1.0), metrics=("accuracy",))
    trainer.fit(X, LABELS, epochs=1, verbose=0, validation_split=0.1)
    net.predict(X[::-1])
    net.predict_mc(X[:50], samples=2)
    net.fold().predict(X)
    net.copy()

    def stop(epoch, logs):
        raise KeyboardInterrupt

    wild = X.copy()
    wild[3, 4] = np.nan
    huge = fn.Trainer(make_net(), loss="mse", optimizer=fn.SGD(1e30), batch_size=50)
    failing = [
        (KeyboardInterrupt, lambda: trainer.fit(X, LABELS, epochs=1, verbose=0, callbacks=[stop])),
        (ValueError, lambda: trainer.fit(wild, LABELS, verbose=0)),
        (ValueError, lambda: trainer.fit(X, LABELS + 1, verbose=0)),
        (fn.DivergenceError, lambda: huge.fit(X, X[:, :5], verbose=0)),
        (ZeroDivisionError, lambda: make_trainer(net, loss=lambda y_pred, y: 1 / 0).fit(X, LABELS, verbose=0)),
        (MemoryError, lambda: fail_allocation(lambda: make_net(), 8)),
        (MemoryError, lambda: fail_allocation(lambda: make_trainer(make_net()).train_step(X, LABELS), 14)),
    ]
    for error, call in failing:
        try:
            call()
        except error:
            continue
        raise AssertionError(f"no {error.__name__}")


def fail_allocation(call, n):
    _core._fail_allocation(n)
    try:
        call()
    finally:
        _core._fail_allocation(0)


def live_often(lives):
    """Growth over `lives` lives; once more where it was an accident of the allocator, not a leak."""
    for _ in range(30):
        live()
    threads, growth = thread_count(), []
    for _ in range(3):
        before = resident_bytes()
        for _ in range(lives):
            live()
        growth.append(resident_bytes() - before)
        if growth[-1] < 2**20:
            break
    assert growth[-1] < 2**20, growth
    assert thread_count() == threads
    assert len(os.listdir("/proc/self/fd")) < 20


@linux_only
@pytest.mark.parametrize("lives", [100, pytest.param(3000, marks=long)])
def test_no_leaks(lives):
    in_own_process(live_often, lives, timeout=60 + lives // 2)


# ---- the process ----

IMPORT = r"""
import ctypes, os, random, signal, sys, threading, warnings
import locale
import numpy as np

def floating_point_mode():
    environment = (ctypes.c_uint32 * 64)()
    ctypes.CDLL(None).fegetenv(environment)
    if os.uname().machine == "x86_64":
        return environment[7] & ~0x3F  # MXCSR without the flags that operations leave
    return ctypes.CDLL(None).fegetround()

def status(name):
    lines = open("/proc/self/status").read().splitlines() if sys.platform == "linux" else []
    return [line for line in lines if line.startswith(name)]

def state():
    return {
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "masks": status(("SigBlk", "SigIgn", "SigCgt")),
        "environment": dict(os.environ),
        "floating point": floating_point_mode(),
        "denormals": 0.25 * 2.0**-1022 != 0 and bool(np.float32(1e-40) * np.float32(0.5) > 0),
        "numpy errors": np.geterr(),
        "random": (random.getstate(), str(np.random.get_state())),
        "warnings": list(warnings.filters),
        "locale": locale.setlocale(locale.LC_ALL),
        "directory": os.getcwd(),
        "hooks": (sys.excepthook, threading.excepthook, sys.getswitchinterval(), sys.getrecursionlimit()),
    }

def differences(before):
    return [name for name, value in state().items() if value != before[name]]

threads = status("Threads")
before = state()
assert before["denormals"]
import fastnn as fn
assert status("Threads") == threads
assert differences(before) == []
x, y = np.ones((600, 32), dtype=np.float32), np.arange(600) % 5
for n_threads in (1, 2, 4):
    net = fn.Sequential([fn.Dense(160), fn.BatchNorm(), fn.ReLU(), fn.Dropout(0.5), fn.Dense(5)], input_size=32)
    fn.Trainer(net, n_threads=n_threads).fit(x, y, epochs=3, verbose=0)
    net.predict_mc(x, samples=3)
    assert differences(before) == [], differences(before)
"""


def test_import_and_use_change_no_process_state():
    run_python(IMPORT)


def test_unknown_instruction_set_is_one_clear_error():
    code = (
        "import fastnn as fn\n"
        "for make in (lambda: fn.Sequential([fn.Dense(3)], input_size=2), fn.show_config, fn._core.isa_name):\n"
        "    try:\n"
        "        make()\n"
        "    except RuntimeError as error:\n"
        "        print(error)\n"
    )
    errors = run_python(code, environment={"FASTNN_ISA": "avx1024"}).splitlines()
    assert len(errors) == 3
    for error in errors:
        assert "FASTNN_ISA=avx1024" in error
        assert ", ".join(_core.available_isas()) in error


def count_threads():
    """The order of section "Threads": argument, set_num_threads, FASTNN_NUM_THREADS, OMP_NUM_THREADS, processors."""
    processors = fn.get_num_threads()

    def default(**environment):
        for name in ("FASTNN_NUM_THREADS", "OMP_NUM_THREADS"):
            os.environ.pop(name, None)
        os.environ.update(environment)
        fn.set_num_threads(None)
        return fn.get_num_threads()

    assert default(FASTNN_NUM_THREADS="3", OMP_NUM_THREADS="5") == 3
    assert default(OMP_NUM_THREADS="5") == 5
    assert default(OMP_NUM_THREADS="4,2") == 4
    for nonsense in ("0", "-1", "two", "2.5", ""):
        assert default(FASTNN_NUM_THREADS=nonsense, OMP_NUM_THREADS="5") == 5
    assert default() == processors
    if LINUX:
        assert processors <= len(os.sched_getaffinity(0))
        before = thread_count()
        fn.set_num_threads(3)
        outcome(n_threads=None)
        assert thread_count() - before == 2
        outcome(n_threads=4)
        assert thread_count() - before == 3
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        assert default() == 1


def test_number_of_threads():
    in_own_process(count_threads, FASTNN_NUM_THREADS="", OMP_NUM_THREADS="")
    code = "import fastnn; print(fastnn.get_num_threads())"
    assert run_python(code, environment={"FASTNN_NUM_THREADS": "7"}) == "7\n"


# ---- layouts of the features ----


def misaligned(x):
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    view = buffer[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def strided(x):
    wide = np.zeros((2 * x.shape[0], 3 * x.shape[1]), x.dtype)
    wide[::2, 1::3] = x
    return wide[::2, 1::3]


def field(x):
    """A column group inside packed records."""
    records = np.zeros(len(x), [("tag", "S3"), ("row", x.dtype, x.shape[1:])])
    records["row"] = x
    return records["row"]


def memory_map(x):
    with tempfile.TemporaryFile() as file:
        file.write(x.tobytes())
        file.flush()
        return np.memmap(file, x.dtype, "r", 0, x.shape)


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "C order": np.array,
    "Fortran order": np.asfortranarray,
    "rows backwards": lambda x: x[::-1].copy()[::-1],
    "columns backwards": lambda x: x[:, ::-1].copy()[:, ::-1],
    "strided": strided,
    "one row repeated": lambda x: np.broadcast_to(x[:1], x.shape),
    "one column repeated": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "misaligned": misaligned,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "read-only memory map": memory_map,
    "read-only": read_only,
    "field of records": field,
}
DTYPES = ["float16", "float32", "float64", "uint8", "int8", "uint16", "int32", "int64", "bool"]
SMALL_LABELS = np.arange(20) % 3


def use(x, first):
    """Digests of training on these features and of prediction."""
    net = fn.Sequential([*first, fn.Dense(6, "tanh"), fn.BatchNorm(), fn.Dense(3)], input_size=7, seed=1)
    fn.Trainer(net, batch_size=6).fit(x, SMALL_LABELS, epochs=2, verbose=0)
    return weights(net), digest(net.predict(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_and_dtype(layout, dtype):
    values = np.random.default_rng(3).normal(0, 40, (20, 7))
    x = LAYOUTS[layout]((values > 0 if dtype == "bool" else np.clip(values, 0, 120)).astype(dtype))
    before = x.tobytes()
    assert use(x, [fn.Scale(0.01)]) == use(np.ascontiguousarray(x, dtype=np.float32), [fn.Scale(0.01)])
    native = np.ascontiguousarray(x, dtype=x.dtype.newbyteorder("="))
    assert use(x, [fn.Standardize()]) == use(native, [fn.Standardize()])
    assert x.tobytes() == before


PROT_NONE = 0


def walled(walls, x, at_end):
    """A copy of x whose end (or start) is the end (start) of readable memory."""
    start, length = mmap.PAGESIZE, len(walls) - 2 * mmap.PAGESIZE
    at = start + (length - x.nbytes) * at_end
    view = np.ndarray(x.shape, x.dtype, walls, at)
    view[...] = x
    return view


def read_up_to_the_wall():
    pages = 4
    walls = mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(walls))
    for page in (0, pages + 1):
        place = ctypes.c_void_p(address + page * mmap.PAGESIZE)
        assert ctypes.CDLL(None, use_errno=True).mprotect(place, mmap.PAGESIZE, PROT_NONE) == 0
    random = np.random.default_rng(0)
    for columns in [*range(1, 36), 63, 64, 65, 127, 129]:
        for net_dtype in ("float32", "float64"):
            net = fn.Sequential([fn.Dense(3)], input_size=columns, dtype=net_dtype)
            trainer = fn.Trainer(net, loss="mse", optimizer=fn.SGD(1e-5), batch_size=3)
            for dtype in sorted(_core.feature_dtypes):
                x = random.integers(0, 100, (7, columns)).astype(dtype)
                expected = net.predict(x)
                for at_end in (True, False):
                    view = walled(walls, x, at_end)
                    assert np.array_equal(net.predict(view), expected)
                    assert np.array_equal(net.predict(view[::-1]), expected[::-1])
                    assert np.array_equal(net.predict(view[3:4]), expected[3:4])
                trainer.fit(walled(walls, x, True), np.ones((7, 3)), epochs=1, verbose=0)
            x = random.normal(size=(7, columns)).astype(net_dtype)
            for at_end in (True, False):
                out = walled(walls, np.empty((7, 3), net_dtype), at_end)
                assert np.array_equal(net.predict(x, out=out), net.predict(x))


@linux_only
@pytest.mark.parametrize("isa", _core.available_isas())
def test_nothing_outside_the_features_is_read(isa):
    in_own_process(read_up_to_the_wall, FASTNN_ISA=isa)
