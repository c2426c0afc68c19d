"""Many nets on the same data: their fits run side by side, one thread each."""

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from . import callbacks as callbacks_
from . import data
from ._declare import boolean, instance, integer, threads, warn
from .callbacks import Callback
from .config import get_num_threads, tell_refused_threads
from .errors import DivergenceError
from .history import History
from .trainer import Trainer, _Data, _Fit, _is_verbose

__all__ = ["fit_many"]

Array = np.ndarray[Any, Any]


def fit_many(
    trainers: "list[Trainer] | tuple[Trainer, ...]",
    x: Any,
    y: Any,
    epochs: int = 10,
    validation_data: tuple[Any, ...] | None = None,
    validation_split: float = 0.0,
    sample_weight: Any = None,
    class_weight: Any = None,
    shuffle: bool = True,
    verbose: int = 1,
    callbacks: "list[Any] | tuple[Any, ...] | None" = None,
    n_threads: int | None = None,
) -> list[History]:
    """Fit many nets to the same data, as many at a time as there are threads.

    Every net ends with the bits, the history and the state of its trainer's own ``fit``. The nets may differ in all but
    the input size: layers, seed, rate, penalties, dropout, loss, batch size. Where there are more threads than nets,
    each net gets an equal share of them. Own losses, metrics and callbacks of different nets are called from different
    threads, those of one net from one.

    Parameters
    ----------
    trainers : list of Trainer
        Each with a net of its own. Their `n_threads` do not count here.
    x, y, epochs, validation_data, validation_split, class_weight, shuffle
        As for `Trainer.fit`, for every net.
    sample_weight : array_like, shape (n,) or (len(trainers), n), optional
        For all nets, or a row for each.
    verbose : {0, 1}
        1: a line per finished net, or one bar if tqdm is installed and standard error is a terminal.
    callbacks : list of (list of Callback or functions f(epoch, logs), or None), or None
        A list for each trainer. A function may stand in many of them, a Callback in one, and so
        the folder of a Checkpoint and the file of a CSVLogger.
    n_threads : int, optional
        Over all nets.

    Returns
    -------
    list of History
        In the order of `trainers`.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, before any net is trained.
    DivergenceError
        Of the first net in the list that diverged, when all others have finished: ``trainer.failed`` tells which did.
    KeyboardInterrupt
        Ctrl-C, after a UserWarning that says how many nets had finished; the others were stopped after their last
        finished step, or never began.
    Exception
        What a callback, an own loss or a metric raised. It stops the other nets after the step under way.

    Notes
    -----
    An error that belongs to one net has a note with its place in the list.
    """
    trainers = _distinct(trainers)
    epochs, shuffle = integer("epochs", epochs, 1), boolean("shuffle", shuffle)
    lists = _callbacks_of_each(callbacks, len(trainers))
    total = threads(n_threads) or get_num_threads()
    x = x if x is None else data.dense(x, "x")  # once: each row of sample_weight is checked with x anew

    def check(trainer: Trainer, weights: Any) -> _Data:
        return trainer._prepare(x, y, validation_data, validation_split, weights, class_weight)

    with closing(_progress(len(trainers), epochs) if _is_verbose(verbose) else _Progress()) as progress:
        run = _Run(trainers, progress, share=max(1, total // len(trainers)))
        for place, one in enumerate(_data_of_each(trainers, sample_weight, check)):
            with _naming(place), trainers[place]._in_use():
                fit = trainers[place]._plan(one, epochs, shuffle, [progress.of(place), *lists[place]])
                run.fits.append(fit._replace(interrupt=run.raise_if_ended))
        run.train(min(total, len(trainers)))
    tell_refused_threads()
    return [trainer.history for trainer in trainers]


# ---- arguments ----


@contextmanager
def _naming(place: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        _name(error, place)
        raise


def _name(error: BaseException, place: int) -> None:
    error.add_note(f"This is of trainers[{place}] in fit_many.")


def _distinct(trainers: Any) -> list[Trainer]:
    if not isinstance(trainers, (list, tuple)) or not trainers:
        raise TypeError(f"trainers must be a list of at least one fastnn.Trainer, got {trainers!r}.")
    place_of_net: dict[int, int] = {}
    for place, trainer in enumerate(trainers):
        instance(f"trainers[{place}]", trainer, Trainer, "a fastnn.Trainer")
        first = place_of_net.setdefault(id(trainer.net), place)
        if first != place:
            same = "is the same trainer as" if trainer is trainers[first] else "has the same net as"
            raise ValueError(f"trainers[{place}] {same} trainers[{first}]: every one needs a net of its own.")
    return list(trainers)


def _callbacks_of_each(chosen: Any, members: int) -> list[list[Callback]]:
    if chosen is None:
        return [[] for _ in range(members)]
    if not isinstance(chosen, (list, tuple)) or len(chosen) != members:
        got = f"{len(chosen)} entries" if isinstance(chosen, (list, tuple)) else repr(chosen)
        raise ValueError(f"callbacks must be None or a list with one list per trainer, {members} in all, got {got}.")
    owners: dict[int | str, int] = {}
    lists = []
    for place, entry in enumerate(chosen):
        with _naming(place):
            lists.append(callbacks_.resolve(entry))
        for callback in lists[place]:
            name, path = type(callback).__name__, callback._written_path()
            first = owners.setdefault(id(callback), place)
            if first != place:
                raise ValueError(
                    f"callbacks[{place}] has the same {name} as callbacks[{first}]: every trainer needs one of its own."
                )
            if path is not None and owners.setdefault(path, place) != place:
                raise ValueError(
                    f"{name} of callbacks[{place}] writes to {path!r}, as one of callbacks[{owners[path]}] does: every "
                    "trainer needs a place of its own."
                )
    return lists


def _data_of_each(
    trainers: list[Trainer], sample_weight: Any, check: Callable[[Trainer, Any], _Data]
) -> Iterator[_Data]:
    """Checked once, and copied once where a copy is needed, for all nets to which the data are the same."""
    weights = _weights_of_each(sample_weight, len(trainers))
    checked: dict[Any, _Data] = {}
    for place, trainer in enumerate(trainers):
        net = trainer.net
        row = None if weights is None else place
        key = net.dtype, net.input_size, net.output_size, trainer.loss, row
        if key not in checked:
            own = sample_weight if weights is None else weights[place]
            with _naming(place):
                checked[key] = check(trainer, own)
        yield checked[key]


def _weights_of_each(sample_weight: Any, members: int) -> Array | None:
    """The rows of `sample_weight`; None where it is the same for all."""
    if sample_weight is None or isinstance(sample_weight, str):
        return None
    weights = data.dense(sample_weight, "sample_weight")
    if weights.ndim != 2:
        return None
    if len(weights) != members:
        raise ValueError(f"sample_weight.shape == {weights.shape}, expected (n,) or ({members}, n)!")
    return weights


# ---- the run ----


class _StopError(Exception):
    """Ends the fits of the other nets."""


class _Run:
    """Nets that wait, and threads that take one after the other.

    Attributes
    ----------
    fits : list of _Fit
        One for each trainer.
    """

    def __init__(self, trainers: list[Trainer], progress: "_Progress", share: int) -> None:
        self.fits: list[_Fit] = []
        self._trainers, self._progress, self._share = trainers, progress, share
        self._waiting = deque(range(len(trainers)))
        self._diverged: dict[int, DivergenceError] = {}
        self._error: BaseException | None = None  # what ended the run
        self._finished: list[int] = []

    def train(self, workers: int) -> None:
        """Until all nets are trained or an error ends the run; no thread of its own outlives the call."""
        ends = [threading.Event() for _ in range(workers - 1)]
        helpers = [
            threading.Thread(target=contextvars.copy_context().run, args=(self._help, end), name="fastnn.fit_many")
            for end in ends
        ]
        try:
            for helper in helpers:
                if not _start(helper):
                    break
            self._work()
        except BaseException as error:  # Ctrl-C between two nets
            self._end(error)
        joined = False
        while not joined:
            try:
                for helper, end in zip(helpers, ends, strict=True):
                    if helper.is_alive():
                        end.wait()  # join would take a thread for ended once Ctrl-C has interrupted it (Python 3.11)
                    elif helper in threading.enumerate():
                        end.wait(1)  # Ctrl-C struck while it was started: it ends at once, if it ever begins
                    if end.is_set():
                        helper.join()
                joined = True
            except BaseException as error:  # Ctrl-C while others finish: they stop soon
                self._end(error)
        self._raise()

    def raise_if_ended(self) -> None:
        """Called by each fit about every 50 ms, and between its epochs."""
        if self._error is not None:
            raise KeyboardInterrupt if isinstance(self._error, KeyboardInterrupt) else _StopError

    def _help(self, end: threading.Event) -> None:
        try:
            self._work()
        finally:
            end.set()

    def _work(self) -> None:
        while self._waiting and self._error is None:
            try:
                place = self._waiting.popleft()
            except IndexError:  # another thread was quicker
                return
            trainer = self._trainers[place]
            try:
                self._train_one(place)
                self._progress.finish(place, trainer.history)
            except _StopError:
                trainer.history.stopped_because = f"stopped by the {type(self._error).__name__} of another net"
            except BaseException as error:
                if not isinstance(error, KeyboardInterrupt):
                    _name(error, place)
                self._end(error)

    def _train_one(self, place: int) -> None:
        trainer = self._trainers[place]
        with trainer._in_use():
            own, trainer._threads = trainer._threads, self._share
            try:
                trainer._train(self.fits[place])
                self._finished.append(place)
            except DivergenceError as error:
                self._diverged[place] = error
            finally:
                trainer._threads = own

    def _end(self, error: BaseException) -> None:
        """The first error counts, but Ctrl-C before all."""
        if self._error is None or isinstance(error, KeyboardInterrupt):
            self._error = error

    def _raise(self) -> None:
        if isinstance(self._error, KeyboardInterrupt):
            done = f"{len(self._finished)} of {len(self._trainers)} nets had finished"
            warn(f"Training interrupted by user: {done}; all are usable.")
        if self._error is not None:
            raise self._error
        if self._diverged:
            first, *others = sorted(self._diverged)
            error = self._diverged[first]
            _name(error, first)
            if others:
                error.add_note(f"So did trainers {', '.join(map(str, others))}.")
            raise error


def _start(helper: threading.Thread) -> bool:
    """Whether the system had a thread; those that there are do the work."""
    try:
        helper.start()
    except RuntimeError:
        return False
    return True


# ---- progress ----


class _Progress:
    """What is told of all nets: nothing."""

    def of(self, place: int) -> Callback:
        """Goes into the fit of one net."""
        return Callback()

    def finish(self, place: int, history: History) -> None:
        """The net's fit has ended."""

    def close(self) -> None:
        """All fits have."""


class _Lines(_Progress):
    """A line per finished net on standard output."""

    def __init__(self, members: int) -> None:
        self._members, self._finished, self._lock = members, 0, threading.Lock()

    def finish(self, place: int, history: History) -> None:
        logs = {name: values[-1] for name, values in history.items()}
        values = "  ".join(f"{name} {value}" for name, value in callbacks_.shown(logs).items())
        width = len(str(self._members))
        with self._lock:
            self._finished += 1
            count = f"{self._finished:>{width}}/{self._members}"
            print(f"net {count}  trainers[{place}]: {history.stopped_because}  {values}", flush=True)


class _Bar(_Progress):
    """tqdm's bar of the epochs of all nets."""

    def __init__(self, members: int, epochs: int, bar: Any) -> None:
        self._epochs, self._done, self._bar, self._lock = epochs, [0] * members, bar, threading.Lock()

    def of(self, place: int) -> Callback:
        return callbacks_.Function(lambda epoch, logs: self._advance(place, epoch + 1))

    def finish(self, place: int, history: History) -> None:
        self._advance(place, self._epochs)

    def close(self) -> None:
        self._bar.close()

    def _advance(self, place: int, done: int) -> None:
        with self._lock:
            self._bar.update(done - self._done[place])
            self._done[place] = done


def _progress(members: int, epochs: int) -> _Progress:
    tqdm = callbacks_.tqdm_of_terminal()
    return _Lines(members) if tqdm is None else _Bar(members, epochs, tqdm(total=members * epochs, unit="epoch"))
