"""The net: a list of layers, and the engine that holds its parameters."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from . import _core, data, losses, metrics
from ._declare import LARGEST_SIZE, choice, instance, integer, threads, warn
from .config import tell_refused_threads
from .data import Targets
from .errors import ModelFileError
from .fold import fold
from .layers import Activation, BatchNorm, Dense, Dropout, Identity, Layer, Scale, Standardize, from_record
from .losses import Loss, OwnLoss

__all__ = ["Sequential", "load"]

Array = np.ndarray[Any, Any]

# Tensors of a model file that belong to the net rather than to its training.
_ATTACHED_TO_MODELS = ("class_names.", "feature_names.", "target_name.", "preprocess.")


class Sequential:
    """A fully connected net.

    Parameters
    ----------
    layers : sequence of Layer
        Applied in order. One layer object may stand in several places; each place has its own parameters.
    input_size : int
        Number of features, >= 1.
    dtype : {"float32", "float64"}
        Of parameters and arithmetic.
    seed : int
        0 <= seed < 2**64; fixes initial weights, dropout masks and shuffles.

    Attributes
    ----------
    layers : tuple of Layer
    input_size, output_size : int
    dtype : numpy.dtype
    seed : int

    Raises
    ------
    ValueError, TypeError
        Naming the layer or argument.
    MemoryError
        The parameters do not fit.
    """

    def __init__(self, layers: Sequence[Layer], input_size: int, dtype: Any = "float32", seed: int = 0) -> None:
        self.input_size = integer("input_size", input_size, 1, LARGEST_SIZE)
        self.dtype = _check_dtype(dtype)
        self.layers = _check_layers(layers, self.input_size, self.dtype)
        self.seed = integer("seed", seed, 0, 2**64 - 1)
        records = [layer.record() for layer in self.layers]
        self._own(_core.Engine(records, self.input_size, self.dtype.name, self.seed))
        self._initialize()

    def _own(self, engine: _core.Engine) -> None:
        self._engine = engine
        self.output_size = engine.output_size
        self._configured_for: object | None = None  # the Trainer whose settings the engine has
        self._gradients_of: int | None = None  # the number of updates when `backward` last ran
        self._attachments: dict[str, Array] = {}  # what a model file holds beside the net, by name of tensor

    @classmethod
    def _of_engine(cls, engine: _core.Engine, attachments: Mapping[str, Array]) -> "Sequential":
        """The net that a model file or a checkpoint held."""
        net = cls.__new__(cls)
        net.input_size, net.dtype, net.seed = engine.input_size, engine.dtype, engine.seed
        net._own(engine)
        layers = [from_record(record) for record in engine.layers()]
        if engine.layers()[0]["given"]:
            views = net.parameters()
            layers[0] = Standardize(views["0.mean"].tolist(), views["0.scale"].tolist())
        net.layers = tuple(layers)
        engine.ready = not isinstance(layers[0], Standardize)  # else the first use looks whether it has statistics
        net._attachments = {name: a for name, a in attachments.items() if name.startswith(_ATTACHED_TO_MODELS)}
        return net

    def __repr__(self) -> str:
        sizes = f"input_size={self.input_size}, dtype={self.dtype.name!r}, seed={self.seed}"
        return f"Sequential({list(self.layers)!r}, {sizes})"

    def __copy__(self) -> "Sequential":
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Sequential":
        return self.copy()

    def __reduce__(self) -> tuple[Callable[[bytes], "Sequential"], tuple[bytes]]:
        """A pickle holds the bytes of a model file, which are checked like those of any other."""
        return load_bytes, (self._engine_file(None),)

    @property
    def frozen(self) -> bool:
        """True for what `fold` returns: it predicts, and cannot be trained."""
        return self._engine.frozen

    # ---- parameters ----

    def parameters(self, trainable: bool | None = None) -> dict[str, Array]:
        """Views of the parameters: writing into them takes effect, and they may be strided.

        Parameters
        ----------
        trainable : bool, optional
            Only those that training changes (True), or only frozen ones and statistics (False).

        Returns
        -------
        dict of str to ndarray
            By place in the layer list and role: "0.weight" (fan_in, fan_out), "0.bias", "1.gamma", "1.beta",
            "1.running_mean", "1.running_var", and "0.mean", "0.scale" of Standardize. Read-only for a folded net, whose
            weights are copies: it keeps them in the layout that predicts fastest.
        """
        views = {}
        for index, (name, _, is_trainable, _) in enumerate(self._engine.tensors()):
            if trainable is None or trainable == is_trainable:
                view = self._engine.parameter(index)
                if self.frozen:
                    view.flags.writeable = False
                views[name] = view
        return views

    def gradients(self) -> dict[str, Array]:
        """Views of the gradients of the last `backward` or step, without penalties; exactly the trainable names.

        Steps that need no stored gradients (no clipping by norm, no penalty) store none before the first call; from
        then on all steps do, which costs plain SGD up to a fifth of its speed.

        Raises
        ------
        ValueError
            The net is folded.
        """
        self._require_trainable("gradients")
        tensors = enumerate(self._engine.tensors())
        return {name: self._engine.gradient(index) for index, (name, _, trainable, _) in tensors if trainable}

    def _initialize(self) -> None:
        """Draw the weights anew from the seed, as when the net was built; statistics and Standardize start anew too."""
        self._require_trainable("initialize")
        self._engine.ready = not isinstance(self.layers[0], Standardize)
        self._gradients_of = None
        self._engine.initialize()
        first = self.layers[0]
        if isinstance(first, Standardize):
            given = first.scale is not None
            self._set_standardize(*(np.array(first.given(name) if given else 0.0) for name in ("mean", "scale")))

    def _set_standardize(self, mean: Array, scale: Array) -> None:
        views = self.parameters()
        views["0.mean"][...] = mean
        views["0.scale"][...] = scale

    def _fit_standardize(self, x: Array, weights: Array | None) -> None:
        """Statistics of a leading ``Standardize()`` from these rows, unless it has them already."""
        if self._engine.ready or self.parameters()["0.scale"].all():
            return
        moments = data.ColumnMoments(x.shape[1])
        for rows in data.chunks(x):
            moments.add(x[rows], weights if weights is None else weights[rows])
        scale = np.sqrt(moments.variance).astype(self.dtype)
        self._set_standardize(moments.mean, np.where(scale < np.finfo(self.dtype).tiny, 1, scale))

    # ---- prediction ----

    def predict(self, x: Any, out: Array | None = None, n_threads: int | None = None) -> Array:
        """Output of the last layer in evaluation mode.

        Parameters
        ----------
        x : array_like, shape (n, input_size)
            Any layout and real dtype; never modified, copied only if its dtype or byte order needs it.
        out : ndarray, shape (n, output_size), optional
            C-contiguous, of the net's dtype, not overlapping `x`: filled and returned. After an error its contents are
            undefined.
        n_threads : int, optional

        Returns
        -------
        ndarray, shape (n, output_size)
            A row's result does not depend on the other rows.

        Raises
        ------
        ValueError, TypeError
            Naming the argument; or a Standardize layer has no statistics yet.
        RuntimeError
            Another thread is training the net.
        """
        outputs = self._engine.predict_plain(x, out) if n_threads is None else None
        return self._predict_any(x, out, n_threads) if outputs is None else outputs

    def _predict_any(self, x: Any, out: Array | None, n_threads: int | None) -> Array:
        """`predict` of what is not the plain case, or not fit to be used: checked and converted, or refused."""
        array = self._features(x)
        if out is not None:
            self._check_out(out, array)
        outputs = self._engine.predict(array, out=out, n_threads=threads(n_threads))
        tell_refused_threads()
        return outputs

    def predict_proba(self, x: Any, n_threads: int | None = None) -> Array:
        """Probabilities, of the shape of `predict`: with one output, (n, 1) of the positive class.

        A net that ends with Softmax or Sigmoid gives its output; else the link of the loss it was trained with is
        applied.

        Raises
        ------
        ValueError
            Neither gives probabilities.
        """
        last = self._final_activation()
        outputs = self.predict(x, n_threads=n_threads)
        if last in ("softmax", "sigmoid"):
            return outputs
        link = self._engine.link
        if link not in ("softmax", "sigmoid"):
            raise ValueError(
                "predict_proba needs a net that ends with Softmax or Sigmoid, or that was trained with cross_entropy "
                f"or binary_cross_entropy; this one ends with {self.layers[-1]!r}."
            )
        return self._engine.activate(outputs, link)

    def predict_mc(
        self, x: Any, samples: int = 100, seed: int | None = None, n_threads: int | None = None
    ) -> tuple[Array, Array]:
        """Monte-Carlo dropout: mean and standard deviation of the output over random masks (arXiv:1506.02142).

        Parameters
        ----------
        x : array_like, shape (n, input_size)
        samples : int
            Masks per row, 1 .. 2**31 - 1. The error of the mean falls as 1/sqrt(samples).
        seed : int, optional
            Of the masks; the net's own if None. Equal seeds give equal results.

        Returns
        -------
        mean, deviation : ndarray, shape (n, output_size)
            BatchNorm uses its running statistics; the deviation has the divisor `samples`.
        """
        self._require_trainable("predict_mc")
        samples = integer("samples", samples, 1, 2**31 - 1)
        seed = self.seed if seed is None else integer("seed", seed, 0, 2**64 - 1)
        array = self._features(x)
        return self._engine.predict_mc(array, samples, seed, n_threads=threads(n_threads))

    def predict_expected(self, x: Any, max_masks: int = 2**20, n_threads: int | None = None) -> Array:
        """The exact expectation of the output over dropout, ``E_z[f(x, z)]``: all masks, weighted by their probability.

        Parameters
        ----------
        x : array_like, shape (n, input_size)
        max_masks : int
            Refuse more masks than this; u units under dropout have 2**u masks, and 2**40 is the most that is supported.

        Returns
        -------
        ndarray, shape (n, output_size)

        Raises
        ------
        ValueError
            More masks than `max_masks`, or the net is folded.
        """
        self._require_trainable("predict_expected")
        units, most = self._engine.dropout_units, min(integer("max_masks", max_masks, 1), 2**40)
        if 2**units > most:
            raise ValueError(
                f"predict_expected would need all 2**{units} masks of {units} units under dropout, but at most "
                f"max_masks = {most} are allowed. Use predict_mc."
            )
        array = self._features(x)
        return self._engine.predict_expected(array, n_threads=threads(n_threads))

    def activations(self, x: Any, n_threads: int | None = None) -> list[Array]:
        """Output of every layer in evaluation mode, one array (n, width) per entry of the layer list."""
        array = self._features(x)
        count = threads(n_threads)
        return [self._engine.predict(array, n_layers=i + 1, n_threads=count) for i in range(len(self.layers))]

    def evaluate(
        self,
        x: Any,
        y: Any,
        loss: Any = "cross_entropy",
        metrics: Iterable[Any] | None = None,
        sample_weight: Any = None,
        n_threads: int | None = None,
    ) -> dict[str, float]:
        """Mean loss (without penalties) and metrics in evaluation mode.

        Parameters
        ----------
        x : array_like, shape (n, input_size)
        y : array_like
            Labels or values, as the loss takes them.
        loss : str, Loss or function
        metrics : iterable of str or functions f(y_true, y_pred), optional
            None: ("accuracy",) with the cross-entropies, () with other losses.
        sample_weight : array_like, shape (n,), optional
            For the loss; metrics are unweighted.

        Returns
        -------
        dict of str to float
            "loss" and the metrics by name.

        Raises
        ------
        ValueError, TypeError
            Naming the argument; or a metric does not suit the loss or the number of outputs.
        """
        chosen = losses.resolve(loss, self.output_size)
        functions = _resolve_metrics(metrics, chosen, self.output_size)
        array = self._features(x)
        targets = data.targets(y, chosen, len(array), self._engine)
        weights = data.sample_weights(sample_weight, len(array))
        return self._scores(array, targets, weights, chosen, functions, threads(n_threads))

    def _scores(
        self,
        x: Array,
        targets: Targets,
        weights: Array | None,
        loss: Loss | OwnLoss,
        functions: dict[str, metrics.Metric],
        n_threads: int,
    ) -> dict[str, float]:
        """`evaluate` on checked arrays."""
        if isinstance(loss, OwnLoss):
            outputs = self._engine.predict(x, n_threads=n_threads)
            value, _ = loss(outputs, targets.y, weights)
        else:
            outputs = self._engine.predict_for_loss(x, loss.name, n_threads=n_threads)
            value = self._engine.loss_value(outputs, targets.labels, targets.values, weights, loss.record())
        return {"loss": value, **self._measure(outputs, targets.y, loss, functions)}

    def _measure(
        self, outputs: Array, y: Array, loss: Loss | OwnLoss, functions: dict[str, metrics.Metric]
    ) -> dict[str, float]:
        """Metrics of outputs as the loss sees them; the link is applied in place."""
        if not functions:
            return {}
        if loss.link == "exp":
            np.exp(outputs, out=outputs)
        elif loss.link != "identity":
            self._engine.activate(outputs, loss.link)
        return {name: float(function(y, outputs)) for name, function in functions.items()}

    # ---- own training loops ----

    def forward(self, x: Any, training: bool = True, n_threads: int | None = None) -> Array:
        """Output of the last layer; in training mode with dropout masks and batch statistics, ready for `backward`."""
        if not training:
            return self.predict(x, n_threads=n_threads)
        self._require_trainable("forward in training mode")
        array = self._features(x)
        self._check_batch_rows(array.shape)
        return self._engine.forward(array, n_threads=threads(n_threads))

    def backward(self, dloss_dy: Any, n_threads: int | None = None) -> Array:
        """Gradients of the last training-mode `forward`, into `gradients`.

        Parameters
        ----------
        dloss_dy : array_like, shape (n, output_size)
            Gradient of the loss with respect to the output.

        Returns
        -------
        ndarray, shape (n, input_size)
            Gradient with respect to the features, through a leading Scale or Standardize.

        Raises
        ------
        ValueError, TypeError
            `dloss_dy` has another shape or is not of real numbers; or no training-mode `forward` of as many rows came
            just before.
        """
        self._require_trainable("backward")
        gradient = data.numeric(data.dense(dloss_dy, "dloss_dy"), self.dtype, "dloss_dy")
        if gradient.ndim != 2 or gradient.shape[1] != self.output_size:
            raise ValueError(f"dloss_dy has shape {gradient.shape}, expected (n, {self.output_size}).")
        dx = self._engine.backward(gradient, n_threads=threads(n_threads))
        assert dx is not None
        self._gradients_of = self._engine.updates
        first = self.layers[0]
        if isinstance(first, Scale):
            dx *= first.factor
        elif isinstance(first, Standardize):
            dx /= self.parameters()["0.scale"]
        return dx

    def _check_batch_rows(self, shape: tuple[int, ...]) -> None:
        """ValueError where BatchNorm would see a single row."""
        if shape[0] == 1 and self._normalizes:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {shape}: BatchNorm needs at "
                "least 2 rows, n_samples = 1."
            )

    @property
    def _normalizes(self) -> bool:
        """Whether a BatchNorm layer uses batch statistics in training."""
        return any(isinstance(layer, BatchNorm) and layer.trainable for layer in self.layers)

    # ---- other nets from this one ----

    def copy(self) -> "Sequential":
        """An independent net with the same layers, parameters and statistics; its training starts anew."""
        twin = Sequential(self.layers, self.input_size, self.dtype, self.seed)
        twin._engine.link = self._engine.link
        twin._attachments = dict(self._attachments)
        twin._load(self.parameters())
        if self.frozen:
            twin._engine.freeze()
        return twin

    def fold(self) -> "Sequential":
        """A frozen net with the same predictions, in which BatchNorm and Dropout cost nothing.

        BatchNorm goes into the Dense layer before it, or past Dropout into the one after it; Dropout disappears, with
        scaling="test" its factor goes into the next Dense layer or stays as Scale. Computed in float64 and rounded
        once.

        Warns
        -----
        UserWarning
            Naming each BatchNorm that stays, because there is no Dense layer to take it.
        """
        nodes, kept = fold(self.layers, self.parameters())
        if kept:
            places = ", ".join(f"layer {node.place} (BatchNorm)" for node in kept)
            warn(f"Not folded: {places} has no Dense layer next to it and stays.")
        folded = Sequential([node.layer for node in nodes], self.input_size, self.dtype, self.seed)
        folded._load({f"{i}.{role}": value for i, node in enumerate(nodes) for role, value in node.parameters.items()})
        folded._engine.link = self._engine.link
        folded._attachments = dict(self._attachments)
        folded._engine.freeze()
        return folded

    def recalibrate(self, x: Any, n_threads: int | None = None) -> None:
        """Set the running statistics of every BatchNorm to the exact mean and biased variance over `x`.

        Layer by layer in evaluation mode, so that each sees what the recalibrated ones before it put out; sums in
        float64.

        Raises
        ------
        ValueError, TypeError
            `x` cannot be used, or the net is folded.
        """
        self._require_trainable("recalibrate")
        array = self._features(x)
        count = threads(n_threads)
        for place, layer in enumerate(self.layers):
            if not isinstance(layer, BatchNorm):
                continue
            widths = [self._engine.layer_width(before) for before in range(place + 1)]
            moments = data.ColumnMoments(widths[-1])
            for rows in data.chunks(array, max(widths)):
                part = array[rows]
                moments.add(part if place == 0 else self._engine.predict(part, n_layers=place, n_threads=count))
            views = self.parameters()
            views[f"{place}.running_mean"][...] = moments.mean
            views[f"{place}.running_var"][...] = moments.variance

    def _load(self, values: dict[str, Array]) -> None:
        for name, view in self.parameters().items():
            view[...] = values[name]

    # ---- model files ----

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write the net into a model file, which `fastnn.load` and the C library read.

        A safetensors file: layers, parameters, statistics, seed and the link of the loss it was trained with. It is
        written beside `path`, synced to the disk and renamed, so that `path` is a whole file at every moment; a
        symbolic link is replaced, its target stays. What an optimizer keeps is not in it: see `Checkpoint`.

        Parameters
        ----------
        path : str or path-like
            Of the file; an existing regular file is replaced.

        Raises
        ------
        OSError
            A file that was there before is as it was.
        ValueError
            A parameter is not finite, a running variance negative, a scale zero, or the net has more layers than the
            format holds.
        RuntimeError
            Another thread is training the net.
        """
        self._engine_file(os.fspath(path))

    def _engine_file(self, path: str | bytes | None) -> Any:
        return _core.save_model(self._engine, path, "model", self._attachments)

    # ---- description ----

    def summary(self) -> None:
        """Print the layers with output width and number of parameters, and the totals."""
        sizes = [0] * len(self.layers)
        trained = 0
        for _, place, trainable, shape in self._engine.tensors():
            size = int(np.prod(shape))
            sizes[place] += size
            trained += size if trainable else 0
        places = range(len(self.layers))
        rows = [(str(i), repr(self.layers[i]), str(self._engine.layer_width(i)), f"{sizes[i]:,}") for i in places]
        header = ("", "layer", "output", "parameters")
        widths = [max(len(row[column]) for row in [header, *rows]) for column in range(4)]
        rule = "-" * (sum(widths) + 6)
        lines = [
            f"{a:>{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in [header, *rows]
        ]
        total = sum(sizes)
        print("\n".join([lines[0], rule, *lines[1:], rule]))
        bytes_text = _readable_bytes(total * self.dtype.itemsize)
        print(f"input {self.input_size}, {total:,} parameters ({trained:,} trainable), {self.dtype.name}, {bytes_text}")

    # ---- checks ----

    def _final_activation(self) -> str:
        last = next((layer for layer in reversed(self.layers) if not isinstance(layer, (Identity, Dropout))), None)
        if isinstance(last, Dense):
            last = last.own_activation
        return last.name if isinstance(last, Activation) else "identity"

    def _require_trainable(self, what: str) -> None:
        """ValueError for a folded net."""
        if self.frozen:
            raise ValueError(
                f"{what} is not possible on a folded net: it is frozen and has no Dropout. Use the net it came from."
            )

    def _features(self, x: Any) -> Array:
        """`x` as the engine reads it, once a Standardize layer knows what to do with it."""
        self._require_statistics()
        return data.features(x, self._engine)

    def _require_statistics(self) -> None:
        """ValueError for a Standardize layer without."""
        if not self._engine.ready:
            if not self.parameters()["0.scale"].all():
                raise ValueError(
                    "Standardize() has no statistics yet: train the net first (the first fit computes them), or give "
                    "mean and scale."
                )
            self._engine.ready = True

    def _check_out(self, out: Any, x: Array) -> None:
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out must be a numpy array, got {type(out).__name__}.")
        expected = (len(x), self.output_size)
        if out.shape != expected:
            raise ValueError(f"out has shape {out.shape}, expected {expected}.")
        if out.dtype != self.dtype or not out.flags.c_contiguous:
            layout = "C-contiguous" if out.flags.c_contiguous else "not C-contiguous"
            raise ValueError(f"out is {out.dtype} and {layout}; it must be {self.dtype} and C-contiguous.")
        if not out.flags.writeable:
            raise ValueError("output array is read-only: out.")
        if np.may_share_memory(out, x):
            raise ValueError("out overlaps x in memory; the input is never modified.")


def load(path: "str | os.PathLike[str]") -> Sequential:
    """The net of a model file, as `Sequential.save`, `Checkpoint` or the C library wrote it.

    Parameters
    ----------
    path : str or path-like
        The file is read whole and checked from end to end; nothing in it is executed.

    Returns
    -------
    Sequential
        With the bits of the net that was saved: parameters, statistics, seed; folded if that was.

    Raises
    ------
    ModelFileError
        Not a fastnn model, or a damaged one; the message says what was found where.
    ModelVersionError
        The file is of a newer format.
    OSError
        The file cannot be read.
    """
    name = os.fspath(path)
    return _net_of(name if isinstance(name, str) else os.fsdecode(name))


def load_bytes(file: bytes) -> Sequential:
    """`load` of the bytes of a model file; what a pickle of a net calls."""
    if not isinstance(file, (bytes, bytearray, memoryview)):
        raise ModelFileError(f"expected the bytes of a model file, got {type(file).__name__}")  # never a path
    return _net_of(file)


def _net_of(source: str | bytes | bytearray | memoryview) -> Sequential:
    engine, _, attachments = _core.open_model(source)
    try:
        return Sequential._of_engine(engine, attachments)
    except (TypeError, ValueError) as error:  # what the layers of Python refuse and those of C do not
        where = f"{source}: " if isinstance(source, str) else ""
        raise ModelFileError(f"{where}the layer list holds a value out of its range: {error}") from error


def _check_layers(layers: Any, input_size: int, dtype: np.dtype[Any]) -> tuple[Layer, ...]:
    if not isinstance(layers, (list, tuple)):
        raise TypeError(f"layers must be a list of layers, got {layers!r}.")
    if not layers:
        raise ValueError("layers must hold at least one layer, got [].")
    for place, layer in enumerate(layers):
        instance(f"layers[{place}]", layer, Layer, "a layer such as fastnn.Dense(10)")
        if place and isinstance(layer, Standardize):
            raise ValueError(f"layers[{place}] is Standardize, which must be the first layer.")
        if isinstance(layer, Scale):
            _check_fits(f"layers[{place}] (Scale): factor", layer.factor, dtype)
    if isinstance(layers[0], Standardize):
        for name in ("mean", "scale"):
            count = len(layers[0].given(name))
            if count not in (0, 1, input_size):
                raise ValueError(f"layers[0] (Standardize): {name} has {count} values, expected {input_size}.")
            for value in layers[0].given(name):
                _check_fits(f"layers[0] (Standardize): {name}", value, dtype, may_vanish=name == "mean")
    return tuple(layers)


def _check_fits(name: str, value: float, dtype: np.dtype[Any], may_vanish: bool = False) -> None:
    """ValueError for a number that is infinite in `dtype`, or so small that its inverse may be."""
    limits = np.finfo(dtype)
    low, high = 0.0 if may_vanish else float(limits.tiny), float(limits.max)
    if not low <= abs(value) <= high:
        raise ValueError(
            f"{name} = {value:g} does not fit {dtype}, whose sizes are {limits.tiny:.2g} .. {limits.max:.2g}."
        )


def _check_dtype(dtype: Any) -> np.dtype[Any]:
    try:
        name = None if dtype is None else np.dtype(dtype).name  # NumPy takes None for float64
    except TypeError:
        name = dtype
    return np.dtype(choice("dtype", name, ("float32", "float64")))


def _resolve_metrics(chosen: Any, loss: Loss | OwnLoss, outputs: int) -> dict[str, metrics.Metric]:
    return metrics.resolve(metrics.default(loss) if chosen is None else chosen, loss, outputs)


def _readable_bytes(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
