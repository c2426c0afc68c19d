"""Training: epochs of batches through the engine, and what stands around them."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from . import _core, callbacks, checkpoint, data, losses, metrics, optimizers, schedules, snapshot
from ._declare import LARGEST_SIZE, Declaration, boolean, instance, integer, threads, warn
from .callbacks import Callback
from .checkpoint import Checkpoint
from .clipping import Clipping
from .config import tell_refused_threads
from .data import Targets
from .errors import DivergenceError, ModelFileError
from .history import History
from .losses import Loss, OwnLoss
from .network import Sequential
from .optimizers import Adam
from .regularizers import Regularizer
from .snapshot import Counters, Place, Saved, State

__all__ = ["Trainer"]

Array = np.ndarray[Any, Any]


class _Samples(Declaration):
    """Checked features and targets; `weights` is one float64 per row or None."""

    x: Array
    targets: Targets
    weights: Array | None

    def rows(self, rows: slice | Array) -> "_Samples":
        return _Samples(self.x[rows], self.targets.rows(rows), None if self.weights is None else self.weights[rows])


class _Failure(Declaration):
    """A step that was not taken."""

    loss: float
    layer: int | None


class _Epoch(Declaration):
    """What a stretch of batches came to; the sums with those of the batches before it."""

    loss_sum: float
    weight_sum: float
    batches_done: int
    failure: _Failure | None = None


class _Data(Declaration):
    """The checked data of a call of `fit`.

    Attributes
    ----------
    samples, training : _Samples
        The same rows; `training` with class weights.
    """

    samples: _Samples
    training: _Samples
    validation: _Samples | None


class _Fit(Declaration):
    """The checked arguments of a call of `fit`.

    Attributes
    ----------
    starts : ndarray
        Of the batches, and the end of the last one.
    callbacks : list of Callback
        Without the checkpoints.
    saved : Saved or None
        The checkpoint that the call goes on from, with what had to be the same in both in `identity`.
    interrupt : function
        Called where the training may end; what it raises ends the training.
    """

    epochs: int
    samples: _Samples
    training: _Samples
    validation: _Samples | None
    starts: Array
    shuffle: bool
    callbacks: list[Callback]
    checkpoints: list[Checkpoint]
    identity: dict[str, str] = {}  # noqa: RUF012 (never changed)
    saved: Saved | None = None
    interrupt: Callable[[], None] = lambda: None

    @property
    def n_batches(self) -> int:
        return len(self.starts) - 1

    @property
    def stateful(self) -> list[Callback]:
        return [callback for callback in self.callbacks if snapshot.has_state(callback)]

    def identify(self) -> dict[str, str]:
        """What must be the same in the fit that resumes this one."""
        parts = [("", self.training), ("validation ", self.validation)]
        texts = {"shuffle": str(self.shuffle)}
        for prefix, part in parts:
            if part is not None:
                texts |= snapshot.identify(prefix, part.x, part.targets.y, part.weights)
        stateful = enumerate(map(snapshot.describe_callback, self.stateful))
        return texts | {f"callback {place} with a state": text for place, text in stateful}


class Trainer:
    """Trains a net; one at a time per net. Making a Trainer puts the net's moments and counters back to the start.

    Parameters
    ----------
    net : Sequential
    loss : str, Loss or function
        A name ("cross_entropy", "binary_cross_entropy", "mse", "mae", "huber", "poisson"), an object of
        `fastnn.losses`, or ``f(y_pred, y) -> (mean loss, its gradient)``, with a third parameter for `sample_weight` if
        it can be weighted.
    optimizer : Optimizer or str
    clip : ClipValue, ClipNorm or None
    regularizer : L1, L2, ElasticNet or None
        For the Dense layers without their own.
    metrics : sequence of str or functions f(y_true, y_pred)
    batch_size : int or "full"
        Rows per step, >= 1; the last batch may be smaller. With BatchNorm >= 2, and a remainder of one row joins the
        batch before.
    micro_batch : int, optional
        Most rows in memory at once: a batch is passed in pieces, the gradient is that of the whole batch (BatchNorm
        normalises per piece).
    n_threads : int, optional

    Attributes
    ----------
    net : Sequential
    history : History
        Of the fit under way or the last one.
    lr_factor : float
        Multiplies the learning rate; ReduceLROnPlateau lowers it.
    failed : bool
        Whether an error ended the last fit.
    log_names : list of str
        Columns of that history, for callbacks.

    Raises
    ------
    ValueError, TypeError
        Naming the argument; or a metric does not suit the loss or the number of outputs, or the net is folded.
    """

    def __init__(
        self,
        net: Sequential,
        loss: Any = "cross_entropy",
        optimizer: Any = Adam(),  # noqa: B008 (immutable)
        clip: Clipping | None = None,
        regularizer: Regularizer | None = None,
        metrics: Sequence[Any] = (),
        batch_size: int | str = 128,
        micro_batch: int | None = None,
        n_threads: int | None = None,
    ) -> None:
        self.net = instance("net", net, Sequential, "a fastnn.Sequential")
        net._require_trainable("training")
        self.loss = losses.resolve(loss, net.output_size)
        self.optimizer = optimizers.resolve(optimizer)
        self.clip = clip if clip is None else instance("clip", clip, Clipping, "ClipValue, ClipNorm or None")
        if regularizer is not None:
            instance("regularizer", regularizer, Regularizer, "a penalty such as fastnn.L2(1e-4) or None")
        self.regularizer = regularizer
        self.metrics = _resolve_metrics(metrics, self.loss, net.output_size)
        self.batch_size = batch_size if isinstance(batch_size, str) else integer("batch_size", batch_size, 1)
        if isinstance(batch_size, str) and batch_size != "full":
            raise ValueError(f"batch_size must be an int >= 1 or 'full', got {batch_size!r}.")
        self.micro_batch = None if micro_batch is None else integer("micro_batch", micro_batch, 1, LARGEST_SIZE)
        self._threads = threads(n_threads)
        self._check_settings()
        self.history = History()
        self.log_names: list[str] = []
        self.lr_factor = 1.0
        self.failed = False
        self._epoch = 0  # since reset: the number of the next shuffle
        self._step = 0  # since reset: where the schedule stands
        self._steps_per_epoch: int | None = None
        self._shift = 0.0  # of the step where schedules count epochs: the steps taken, as steps of the present length
        self._fitting = False
        self._stop: str | None = None
        self._kept_stop: str | None = None  # where a callback stopped, and not somebody from outside
        self._settings = object()
        self._objective = 1.0, False  # scale of the loss; whether penalties are divided by a batch's sum of weights
        self._run_id = snapshot.new_run()
        self._fit: _Fit | None = None  # under way
        self._place = Place()  # of that fit
        self._resumed: tuple[Saved, tuple[Any, ...]] | None = None  # what the next fit goes on from, and where
        net._engine.reset()

    def __repr__(self) -> str:
        names = ("loss", "optimizer", "clip", "regularizer", "batch_size", "micro_batch")
        shown = [f"{name}={getattr(self, name)!r}" for name in names if getattr(self, name) is not None]
        return f"Trainer({self.net!r}, {', '.join(shown)}, metrics={tuple(self.metrics)!r})"

    def _check_settings(self) -> None:
        if self.net._normalizes and 1 in (self.batch_size, self.micro_batch):
            name = "batch_size" if self.batch_size == 1 else "micro_batch"
            raise ValueError(f"{name}=1 is not possible with BatchNorm: the variance of one row is 0. Use at least 2.")
        if self.micro_batch is not None and isinstance(self.loss, OwnLoss):
            raise ValueError("micro_batch is not possible with an own loss: it must see the whole batch.")

    # ---- fit ----

    def fit(
        self,
        x: Any,
        y: Any,
        epochs: int = 10,
        validation_data: tuple[Any, ...] | None = None,
        validation_split: float = 0.0,
        sample_weight: Any = None,
        class_weight: Any = None,
        shuffle: bool = True,
        verbose: int = 1,
        callbacks: Iterable[Any] | None = (),
    ) -> History:
        """Train for `epochs` further epochs from the present state (weights, moments, schedule, streams of random
        numbers).

        Parameters
        ----------
        x : array_like, shape (n, input_size)
            Any layout and real dtype, also a read-only memory map: rows are gathered per micro-batch.
        y : array_like
            cross_entropy: integer labels (n,), or rows of probabilities (n, outputs). binary_cross_entropy: values in
            [0, 1]. The others: values. (n,) will do for one output, else (n, outputs).
        epochs : int
            >= 1. After `resume`: in all, with those that the interrupted call finished.
        validation_data : (x, y) or (x, y, sample_weight), optional
        validation_split : float
            In [0, 1): the last share of the rows, taken before shuffling, validates instead.
        sample_weight : array_like, shape (n,), optional
            >= 0; the loss of a batch is sum(w * loss) / sum(w).
        class_weight : dict of label to float, or "balanced", optional
            Multiplies sample_weight; not applied to validation.
        shuffle : bool
            A new order every epoch, from the net's seed.
        verbose : {0, 1}
            1: a line per epoch, or a bar if tqdm is installed and standard error is a terminal.
        callbacks : iterable of Callback or functions f(epoch, logs), or None

        Returns
        -------
        History
            Of this call; also at `history`, up to the last finished epoch, when an error ends the fit.

        Raises
        ------
        ValueError, TypeError
            Naming the argument; or after `resume` listing what is not as in the interrupted call.
        ModelFileError
            After `resume`: the checkpoint's state cannot be of this fit, though its description says so.
        OSError
            A `Checkpoint` cannot write; FileExistsError: its folder holds another run.
        DivergenceError
            Loss or gradient became non-finite; the weights are those before that step.
        RuntimeError
            Another thread is using the net, or a callback of this trainer's fit calls its fit.
        KeyboardInterrupt
            Ctrl-C, after a UserWarning that says where; the weights are those of the last finished step.
        """
        with self._in_use():
            epochs, shuffle = integer("epochs", epochs, 1), boolean("shuffle", shuffle)
            given = self._prepare(x, y, validation_data, validation_split, sample_weight, class_weight)
            chosen = _resolve_callbacks(callbacks)
            if _is_verbose(verbose):
                chosen.insert(0, _progress(epochs))
            fit = self._plan(given, epochs, shuffle, chosen)
            try:
                self._train(fit)
            except KeyboardInterrupt:
                place = self.history.stopped_because.removeprefix("KeyboardInterrupt: ")
                warn(f"Training interrupted by user: {place}; the net is usable.")
                raise
        tell_refused_threads()
        return self.history

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """The net is this thread's; RuntimeError if another thread or a callback's caller has it."""
        self.net._engine.begin_fit()
        try:
            if self._fitting:
                raise RuntimeError("this trainer is already fitting: its fit cannot be called from its own callbacks.")
            self._fitting = True
            try:
                yield
            finally:
                self._fitting = False
        finally:
            self.net._engine.end_fit()

    def _plan(self, given: _Data, epochs: int, shuffle: bool, chosen: list[Callback]) -> _Fit:
        """A call of `fit` whose arguments are all checked."""
        self.net._check_batch_rows(given.training.x.shape)
        starts = self._batches(len(given.training.x))
        checkpoints = [callback for callback in chosen if isinstance(callback, Checkpoint)]
        others = [callback for callback in chosen if not isinstance(callback, Checkpoint)]
        fit = _Fit(epochs, given.samples, given.training, given.validation, starts, shuffle, others, checkpoints)
        if checkpoints or self._resumed:
            fit = fit._replace(identity=fit.identify())
        return fit._replace(saved=self._require_resumable(fit))

    def _train(self, fit: _Fit) -> None:
        """Train between the callbacks' begin and end; those that began all end, in their order."""
        self._begin(fit)
        first = self._step - self._place.epoch * fit.n_batches - self._place.batch
        begun: list[Callback] = []
        try:
            # Checkpoints first: they may refuse, and others empty their files.
            for callback in [*fit.checkpoints, *fit.callbacks]:
                callback.trainer = self
                callback.on_fit_begin()
                begun.append(callback)
            if fit.saved is not None:
                self._load_callbacks(fit, fit.saved)
            self._resumed = None
            self._run_epochs(fit)
        except BaseException as error:
            self.failed = True
            self.history.stopped_because = type(error).__name__
            if isinstance(error, KeyboardInterrupt):
                epoch, batch = divmod(self._step - first, self._steps_per_epoch or 1)
                self.history.stopped_because += f": stopped after epoch {epoch}, batch {batch}"
            raise
        finally:
            with ExitStack() as ends:
                ends.callback(self._end)
                for callback in reversed(begun):
                    ends.callback(callback.on_fit_end)

    def request_stop(self, reason: str = "request_stop()") -> None:
        """End the running fit after the step under way; any thread and any signal handler may call it. An unfinished
        epoch is not recorded.

        Parameters
        ----------
        reason : str
            For ``history.stopped_because``.
        """
        self._stop = reason

    def _end_training(self, reason: str) -> None:
        """The same where a callback decides that the training is over: a resumed fit ends there too."""
        self._stop = self._kept_stop = reason

    def _prepare(
        self, x: Any, y: Any, validation_data: Any, validation_split: float, sample_weight: Any, class_weight: Any
    ) -> _Data:
        if validation_data is not None and validation_split:
            raise ValueError("give validation_data or validation_split, not both.")
        samples = self._check(x, y, sample_weight)
        train_rows = data.split_validation(len(samples.x), validation_split)
        training = samples.rows(slice(train_rows))
        validation = samples.rows(slice(train_rows, None)) if validation_split else None
        if validation_data is not None:
            validation = self._check_validation(validation_data)
        for part, name in ((training, "training"), (validation, "validation")):
            if part is not None and part.weights is not None and not part.weights.any():
                raise ValueError(f"`sample_weight` must contain at least one non-zero number among the {name} rows.")
        return _Data(training, self._weigh_classes(training, class_weight), validation)

    def _weigh_classes(self, samples: _Samples, class_weight: Any) -> _Samples:
        weights = data.class_weights(class_weight, samples.targets, self.net.output_size)
        if weights is None:
            return samples
        self._check_weighted_loss("class_weight")
        if samples.weights is not None:
            weights = weights * samples.weights
        if not weights.any():
            raise ValueError("class_weight leaves every sample the weight 0.")
        return _Samples(samples.x, samples.targets, weights)

    def _check(self, x: Any, y: Any, sample_weight: Any, prefix: str = "") -> _Samples:
        features = data.features(x, self.net._engine, f"{prefix}x")
        targets = data.targets(y, self.loss, len(features), self.net._engine, f"{prefix}y", f"{prefix}x")
        if sample_weight is not None:
            self._check_weighted_loss("sample_weight")
        return _Samples(features, targets, data.sample_weights(sample_weight, len(features), f"{prefix}sample_weight"))

    def _check_validation(self, validation_data: Any) -> _Samples:
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
            raise ValueError("validation_data must be a tuple (x, y) or (x, y, sample_weight).")
        x, y, *weights = validation_data
        return self._check(x, y, weights[0] if weights else None, "validation ")

    def _check_weighted_loss(self, name: str) -> None:
        if isinstance(self.loss, OwnLoss) and not self.loss.takes_weights:
            raise ValueError(f"{name} needs an own loss of three parameters, f(y_pred, y, sample_weight).")

    def _batches(self, n: int) -> Array:
        size = n if isinstance(self.batch_size, str) else self.batch_size
        if size > n:
            warn(f"Got `batch_size` less than 1 or larger than sample size. It is going to be clipped: {size} to {n}.")
            size = n
        return data.batch_starts(n, size, self.net._normalizes)

    def _begin(self, fit: _Fit) -> None:
        """A fresh history, or that of the fit that is resumed, and the names of its columns for the callbacks."""
        watches = (callback for callback in fit.callbacks if isinstance(callback, callbacks.EarlyStopping))
        watch = next(watches, None)
        self.history = History(watch.monitor, watch.mode, watch.min_delta) if watch else History()
        self.log_names = self._columns(fit)
        self.failed, self._stop = False, None
        self._fit, self._place = fit, Place()
        if fit.saved is not None:
            self.history.extend(fit.saved.state.history)
            self._place = fit.saved.state.place
            return
        if self._steps_per_epoch is not None:
            self._shift = (self._step + self._shift) * fit.n_batches / self._steps_per_epoch - self._step
        self._steps_per_epoch = fit.n_batches

    def _columns(self, fit: _Fit) -> list[str]:
        """Of the history of this fit."""
        validation = [f"val_{name}" for name in ("loss", *self.metrics)] if fit.validation is not None else []
        return ["loss", "penalty", *self.metrics, *validation, "lr", "seconds"]

    def _end(self) -> None:
        """Let go of the data of the fit."""
        self._fit, self._place = None, Place()

    def _run_epochs(self, fit: _Fit) -> None:
        """The epochs, or what is left of them."""
        self.net._fit_standardize(fit.samples.x, fit.samples.weights)
        outputs = np.zeros((len(fit.training.x), self.net.output_size), self.net.dtype) if self.metrics else None
        if outputs is not None and self._place.outputs is not None:
            outputs[: len(self._place.outputs)] = self._place.outputs
        while self._place.epoch < fit.epochs and not self._is_stopped():
            place = self._place
            began = time.perf_counter() - place.seconds
            self._configure()
            order = _core.permutation(len(fit.training.x), self.net.seed, self._epoch) if fit.shuffle else None
            rates = self._rates(fit.n_batches, self._step - place.batch)
            self._run_epoch(fit, order, rates, outputs, began)
            if place.batch < fit.n_batches:
                break
            self._epoch += 1
            logs = {"loss": place.loss_sum / place.weight_sum, "penalty": self.net._engine.penalty()}
            if outputs is not None:
                trained = _trained_positions(fit.training, fit.starts, order)
                y = fit.training.targets.y if order is None else fit.training.targets.y[order]
                logs |= self.net._measure(outputs[trained], y[trained], self.loss, self.metrics)
            if fit.validation is not None:
                parts = (fit.validation.x, fit.validation.targets, fit.validation.weights)
                scores = self.net._scores(*parts, self.loss, self.metrics, self._threads)
                logs |= {f"val_{name}": value for name, value in scores.items()}
            logs |= {"lr": float(rates[-1]), "seconds": time.perf_counter() - began}
            self._finish_epoch(fit, logs)
        self.history.stopped_because = self._stop or f"all {fit.epochs} epochs finished"

    def _is_stopped(self) -> bool:
        assert self._fit is not None
        self._fit.interrupt()
        return self._stop is not None

    def _run_epoch(self, fit: _Fit, order: Array | None, rates: Array, outputs: Array | None, began: float) -> None:
        """The batches of an epoch from `_place` on, in stretches that end where a checkpoint is due."""
        place, starts = self._place, fit.starts
        while place.batch < fit.n_batches:
            due = [callback.steps_until_due(self._step) for callback in fit.checkpoints]
            end = min([fit.n_batches, *(place.batch + steps for steps in due if steps is not None)])
            part = None if outputs is None else outputs[starts[place.batch] : starts[end]]
            result = self._run(
                fit.training,
                starts[place.batch : end + 1],
                rates[place.batch : end],
                order,
                part,
                self._is_stopped,
                (place.loss_sum, place.weight_sum),
            )
            place.batch += result.batches_done
            place.loss_sum, place.weight_sum = result.loss_sum, result.weight_sum
            if result.failure is not None:
                raise self._divergence(result.failure, place.epoch, place.batch, rates[place.batch])
            if place.batch == fit.n_batches:
                return
            place.seconds = time.perf_counter() - began
            place.outputs = None if outputs is None else outputs[: starts[place.batch]]
            stopped = self._stop is not None
            for callback in fit.checkpoints:
                callback.on_step(stopped)
            if stopped:
                return

    def _finish_epoch(self, fit: _Fit, logs: dict[str, float]) -> None:
        epoch = self._place.epoch
        self.history.append(logs)
        self._kept_stop, stopped_before = None, self._stop is not None
        for callback in fit.callbacks:
            stop = self._stop
            callback.on_epoch_end(epoch, dict(logs))
            if self._stop is not stop and isinstance(callback, callbacks.Function):
                self._kept_stop = self._stop  # a function has no request_stop of its own
        # Who stops a fit from outside, be it in the midst of a callback, wants to go on some time.
        self._place = Place(epoch + 1, stop=None if stopped_before else self._kept_stop)
        for callback in fit.checkpoints:
            callback.on_epoch_end(epoch, dict(logs))

    # ---- checkpoints ----

    def resume(self, path: "str | os.PathLike[str]") -> None:
        """Go back to a checkpoint, so that the next `fit` finishes the call that wrote it.

        The net gets the checkpoint's weights at once. The next `fit` needs the same data and arguments; its `epochs` is
        the total of the interrupted call, finished ones included, and may be larger than it was. It ends with the bits
        of a call that was never interrupted: weights, moments, history. Not compared are what cannot change the result:
        `n_threads`, `verbose`, callbacks without `Callback.state_dict`. Of a function (own loss, metric, schedule) only
        the qualified name can be, of a callable object its class and its plain attributes.

        Parameters
        ----------
        path : str or path-like
            The folder of a `Checkpoint`, for the newest in it; or one file.

        Raises
        ------
        ValueError
            This trainer or its net was not built alike, with a list of the differences; nothing has changed. The next
            `fit` raises it where its data or arguments differ.
        FileNotFoundError
            There is no checkpoint.
        ModelFileError
            It is damaged; ModelVersionError: it is of a newer format.
        OSError
            It cannot be read.
        RuntimeError
            Another thread is using the net, or this trainer is fitting.

        Warns
        -----
        UserWarning
            The newest file in the folder is damaged, and an older one is taken.

        Examples
        --------
        The same script starts a run and goes on with it, as often as it is started:

        >>> net = fn.Sequential([fn.Dense(64, "relu"), fn.Dropout(0.5), fn.Dense(10)], input_size=64)
        >>> trainer = fn.Trainer(net, optimizer=fn.Adam(1e-3), metrics=("accuracy",))
        >>> with contextlib.suppress(FileNotFoundError):  # at the first start there is no checkpoint
        ...     trainer.resume("run")
        >>> trainer.fit(x, y, epochs=20, validation_split=0.1,
        ...             callbacks=[fn.EarlyStopping(patience=5), fn.Checkpoint("run", every_steps=1000)])
        """
        name, engine = os.fsdecode(path), self.net._engine
        with ExitStack() as ends:
            engine.begin_fit()
            ends.callback(engine.end_fit)
            if self._fitting:
                raise RuntimeError("this trainer is fitting: it cannot be resumed from its own callbacks.")
            kept, saved = checkpoint.read_newest(name) if os.path.isdir(name) else snapshot.read(name)
            lines = snapshot.net_differences(kept, engine)
            lines += snapshot.differences(saved.state.settings, self._describe_settings(), "this trainer")
            if lines:
                raise ValueError("\n  ".join([f"{saved.path} is of a trainer that was built differently:", *lines]))
            self._configure()
            engine.copy_state(kept)
            self.net._gradients_of = None
            counters = saved.state.counters
            self._run_id, self._epoch, self._step = counters.run, counters.epoch, counters.step
            self._steps_per_epoch, self._shift = counters.steps_per_epoch, counters.shift
            self.lr_factor = counters.lr_factor
            self.history = History()
            self.history.extend(saved.state.history)
            self._resumed = saved, self._position()

    def _position(self) -> tuple[Any, ...]:
        """Differs where steps were taken, or weights or the rate's factor set, in between."""
        engine, crc = self.net._engine, 0
        for values in self.net.parameters().values():
            crc = data.crc(values, crc)
        return self._step, engine.passes, engine.updates, id(self.net._configured_for), self.lr_factor, crc

    def _require_resumable(self, fit: _Fit) -> Saved | None:
        """What `resume` read, if it did; ValueError unless this fit is the one that was interrupted."""
        if self._resumed is None:
            return None
        saved, position = self._resumed
        if position != self._position():
            raise ValueError(
                "the net or this trainer was changed, trained or reset since `resume`: call it again, or reset both."
            )
        place = saved.state.place
        lines = snapshot.differences(saved.state.identity, fit.identity, "this fit")
        if fit.epochs < place.epoch + (place.batch > 0):
            done = f"{place.epoch} and a part of the next" if place.batch else place.epoch
            lines.append(f"epochs: checkpoint has finished {done}, this fit {fit.epochs} in all")
        if lines:
            raise ValueError("\n  ".join([f"{saved.path} is of a fit with other data or arguments:", *lines]))
        self._check_state(fit, saved)
        return saved

    def _check_state(self, fit: _Fit, saved: Saved) -> None:
        """ModelFileError for a state that cannot be of this fit, though its descriptions say so."""
        state, place = saved.state, saved.state.place
        n_outputs = int(fit.starts[place.batch]) if self.metrics and place.batch else 0
        names = [type(callback).__qualname__ for callback in fit.stateful]
        for name, found, expected in (
            ("steps_per_epoch", state.counters.steps_per_epoch, fit.n_batches),
            ("rows of trainer.outputs", 0 if place.outputs is None else len(place.outputs), n_outputs),
            ("columns of the history", list(state.history) or self._columns(fit), self._columns(fit)),
            ("callbacks", [name for name, _ in state.callbacks], names),
        ):
            if found != expected:
                raise ModelFileError(f"{saved.path}: {name}: {found}, this fit needs {expected}")

    def _load_callbacks(self, fit: _Fit, saved: Saved) -> None:
        for callback, (name, state) in zip(fit.stateful, saved.state.callbacks, strict=True):
            try:
                callback.load_state_dict(state)
            except (KeyError, TypeError, ValueError) as error:
                raise ModelFileError(f"{saved.path}: state of {name}: {error}") from error
        if saved.state.place.stop is not None:
            self._stop = saved.state.place.stop

    def _describe_settings(self) -> dict[str, str]:
        """What must be the same in a trainer that goes on from this one's checkpoints."""
        loss = self.loss.function if isinstance(self.loss, OwnLoss) else self.loss
        measures = ", ".join(f"{name}: {snapshot.describe(metric)}" for name, metric in self.metrics.items())
        names = ("optimizer", "clip", "regularizer", "batch_size", "micro_batch")
        settings = {name: snapshot.describe(getattr(self, name)) for name in names}
        return {"loss": snapshot.describe(loss), **settings, "metrics": measures or "none"}

    def _counters(self) -> Counters:
        steps_per_epoch, floats = self._steps_per_epoch or 1, (float(self._shift), float(self.lr_factor))
        return Counters(self._run_id, self._epoch, self._step, steps_per_epoch, *floats)

    @property
    def _is_ending(self) -> bool:
        """Whether the epoch that just ended is the last one."""
        return self._fit is not None and (self._stop is not None or self._place.epoch == self._fit.epochs)

    def _save_checkpoint(self, path: str) -> None:
        assert self._fit is not None
        states = [(type(callback).__qualname__, callback.state_dict()) for callback in self._fit.stateful]
        state = State(
            self._describe_settings(), self._fit.identity, self._counters(), self._place, states, self.history
        )
        attachments = {**self.net._attachments, **snapshot.pack(state)}
        _core.save_model(self.net._engine, path, "checkpoint", attachments)

    # ---- steps ----

    def train_step(self, xb: Any, yb: Any, sample_weight: Any = None) -> float:
        """One optimizer step on one batch.

        Parameters
        ----------
        xb, yb, sample_weight
            A batch, as for `fit`.

        Returns
        -------
        float
            Mean loss of the batch before the step, in training mode.

        Raises
        ------
        ValueError, TypeError
            Naming the argument; or a Standardize layer has no statistics yet: one batch does not set them.
        DivergenceError
            The step was not taken.
        RuntimeError
            Another thread is using the net.
        """
        engine = self.net._engine
        engine.begin_fit()
        try:
            self.net._require_statistics()
            batch = self._check(xb, yb, sample_weight)
            self.net._check_batch_rows(batch.x.shape)
            self._configure()
            rates = self._rates(1)
            result = self._run(batch, np.array([0, len(batch.x)], dtype=np.uint64), rates)
        finally:
            engine.end_fit()
        if result.failure is not None:
            raise self._divergence(result.failure, None, self._step, rates[0])
        return result.loss_sum / result.weight_sum

    def apply_gradients(self) -> float:
        """One optimizer step with the gradients of the last `Sequential.backward`, at the schedule's present rate.

        Penalties and clipping of this Trainer apply.

        Returns
        -------
        float
            Norm of the gradient with penalties, before clipping.

        Raises
        ------
        ValueError
            No `backward` since the last update.
        DivergenceError
            The gradient was not finite; nothing was changed.
        RuntimeError
            Another thread is using the net.
        """
        engine = self.net._engine
        engine.begin_fit()
        try:
            if self.net._gradients_of != engine.updates:
                raise ValueError("apply_gradients needs a net.backward of its own: none came since the last update.")
            self._configure()
            rate = float(self._rates(1)[0])
            finite, squared_norm = engine.apply_gradients(rate, n_threads=self._threads)
        finally:
            engine.end_fit()
        if not finite:
            raise self._divergence(_Failure(float("nan"), self.net._engine.failed_layer), None, self._step, rate)
        self._step += 1
        return float(np.sqrt(squared_norm))

    def reset(self) -> None:
        """Start anew: initial weights of the net's seed, zero moments, schedule, shuffles and masks from the first. A
        `resume` is forgotten.
        """
        self.net._engine.reset()
        self.net._initialize()
        self.lr_factor, self._epoch, self._step, self._shift = 1.0, 0, 0, 0.0
        self._run_id, self._resumed = snapshot.new_run(), None

    def _configure(self) -> None:
        """Hand the settings to the engine, unless it has them already."""
        self.net._engine.link = None if isinstance(self.loss, OwnLoss) else self.loss.link
        if self.net._configured_for is self._settings:
            return
        clip = ("none", 0.0, 0.0) if self.clip is None else self.clip.record()
        penalty = ("default", 0.0, 0.0) if self.regularizer is None else self.regularizer.record()
        self.net._engine.configure(self.optimizer.record(), clip, penalty, *self._objective)
        self.net._configured_for = self._settings

    def _rates(self, count: int, first: int | None = None) -> Array:
        """Of the steps from `first` (None: the next one) on."""
        first = self._step if first is None else first
        rates = schedules.rates(self.optimizer.lr, first, count, self._steps_per_epoch, self._shift)
        return rates * self.lr_factor

    def _run(
        self,
        samples: _Samples,
        starts: Array,
        rates: Array,
        order: Array | None = None,
        outputs: Array | None = None,
        stop: Callable[[], bool] = lambda: False,
        sums: tuple[float, float] = (0.0, 0.0),
    ) -> _Epoch:
        """Take the steps; `_step` counts those taken, also when an exception such as KeyboardInterrupt ends the run.

        `outputs` are those of the batches, `sums` what the batches before them came to (loss, weight).
        """
        if isinstance(self.loss, OwnLoss):
            return self._run_own_loss(self.loss, samples, starts, rates, order, outputs, stop, sums)
        engine = self.net._engine
        before = engine.last_run
        try:
            run = engine.train(
                samples.x,
                samples.targets.labels,
                samples.targets.values,
                samples.weights,
                self.loss.record(),
                order,
                starts,
                rates,
                micro_batch=self.micro_batch or 0,
                outputs=outputs,
                stop=stop,
                n_threads=self._threads,
                loss_sum=sums[0],
                weight_sum=sums[1],
            )
        finally:
            last = engine.last_run
            if last is not None and last is not before:
                self._step += last["batches_done"]
        failure = _Failure(run["failed_loss"], run["failed_layer"]) if run["status"] == "diverged" else None
        return _Epoch(run["loss_sum"], run["weight_sum"], run["batches_done"], failure)

    def _run_own_loss(
        self,
        loss: OwnLoss,
        samples: _Samples,
        starts: Array,
        rates: Array,
        order: Array | None,
        outputs: Array | None,
        stop: Callable[[], bool],
        sums: tuple[float, float],
    ) -> _Epoch:
        """The same with a loss in Python: two calls of the engine around it per step."""
        engine = self.net._engine
        order = np.arange(len(samples.x), dtype=np.int64) if order is None else order
        loss_sum, weight_sum = sums
        updates, skipped = engine.updates, 0
        try:
            for batch, rate in enumerate(rates):
                place = slice(int(starts[batch]), int(starts[batch + 1]))
                rows = order[place]
                weights = None if samples.weights is None else samples.weights[rows]
                weight = float(len(rows)) if weights is None else float(weights.sum())
                if weight == 0:
                    skipped += 1
                    engine.passes += 1  # it keeps its place in the stream of masks
                    continue
                if stop():
                    return _Epoch(loss_sum, weight_sum, batch)
                predicted = engine.forward(samples.x, rows, n_threads=self._threads)
                if outputs is not None:
                    outputs[place.start - int(starts[0]) : place.stop - int(starts[0])] = predicted
                value, gradient = loss(predicted, samples.targets.y[rows], weights)
                if not np.isfinite(value):
                    return _Epoch(loss_sum, weight_sum, batch, _Failure(value, engine.failed_layer))
                scale = gradient.dtype.type(self._objective[0])
                engine.backward(gradient * scale, n_threads=self._threads, input_gradient=False)
                finite, _ = engine.apply_gradients(rate, weight, n_threads=self._threads)
                if not finite:
                    return _Epoch(loss_sum, weight_sum, batch, _Failure(value, engine.failed_layer))
                loss_sum += self._objective[0] * value * weight
                weight_sum += weight
        finally:
            # The engine's count, because Ctrl-C may strike between an update and a count of our own.
            self._step += engine.updates - updates + skipped
        return _Epoch(loss_sum, weight_sum, len(rates))

    def _divergence(self, failure: _Failure, epoch: int | None, step: int, rate: float) -> DivergenceError:
        layer = failure.layer
        return DivergenceError(
            epoch=epoch,
            step=step,
            loss=failure.loss,
            layer=layer,
            layer_name="" if layer is None else type(self.net.layers[layer]).__name__,
            learning_rate=float(rate),
        )


def _trained_positions(samples: _Samples, starts: Array, order: Array | None) -> slice | Array:
    """Where an epoch's outputs are: everywhere but in the batches skipped because all of their weights are 0."""
    if samples.weights is None or samples.weights.all():
        return slice(None)
    weights = samples.weights if order is None else samples.weights[order]
    bounds = starts.astype(np.intp)
    return np.repeat(np.add.reduceat(weights, bounds[:-1]) > 0, bounds[1:] - bounds[:-1])


def _resolve_metrics(chosen: Any, loss: Loss | OwnLoss, outputs: int) -> dict[str, metrics.Metric]:
    return metrics.resolve(chosen, loss, outputs)


def _resolve_callbacks(chosen: Any) -> list[Callback]:
    return callbacks.resolve(chosen)


def _is_verbose(verbose: Any) -> bool:
    return integer("verbose", int(verbose) if isinstance(verbose, bool) else verbose, 0, 1) == 1


def _progress(epochs: int) -> Callback:
    return callbacks.progress(epochs)
