"""What is wrong with a net, in numbers per layer and in words; and the same numbers epoch by epoch.

Everything is measured on a twin in which an activation inside a Dense layer stands behind it as a layer of its own, so
that its derivative is taken where it belongs, at the activation's input.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import _draw, data
from ._declare import Declaration, instance, integer, threads
from .callbacks import Callback, Logs
from .layers import SELU, Activation, BatchNorm, Dense, Dropout, Identity, Layer, Scale, Softmax
from .losses import OwnLoss
from .network import Sequential
from .optimizers import SGD
from .trainer import Trainer, _Failure

__all__ = ["Diagnosis", "Diagnostics", "Finding", "LayerRecord", "diagnose"]

Array = np.ndarray[Any, Any]

# Where a measure becomes a finding.
FLAT = 1e-3  # |f'(z)| of an activation that passes hardly any gradient on
RATIO = 1e3  # of the first and the last Dense layer's gradient norm; of the deviations of their outputs
DEAD_SHARE = 0.5
SATURATED_SHARE = 0.5
IDENTICAL_SHARE = 0.5
LARGE_FEATURE = 10.0  # root mean square
SMALL_FEATURE = 0.01

_ROWS_PER_EPOCH = 1024  # of a Diagnostics callback

_FLAT_ON_PURPOSE = ("relu", "leaky_relu")  # for z < 0: that they are off on many rows is no fault


# ---- results ----


class LayerRecord(Declaration):
    """One entry of the layer list; a Dense layer's own activation belongs to it.

    Attributes
    ----------
    place : int
        In the layer list.
    layer : Layer
    mean, std : float
        Of the layer's output, over rows and units.
    dead : float or None
        Share of the units whose activation is 0 on all rows. None: the layer has no activation, or a Softmax, or its
        activation is the last one and fused with the loss, whose gradient does not pass through it.
    saturated : float or None
        Share of the units with ``|f'(z)| < 1e-3`` on more than half of the rows; f is the activation and z its input.
    gradient_norm : float or None
        Of the weight matrix of a Dense layer: Euclidean norm of the gradient of the mean loss, without penalties. None:
        the layer has no weights, or frozen ones.
    identical : float or None
        Share of the units of a hidden Dense layer that have a double: equal weights, bias and gradients.
    """

    place: int
    layer: Layer
    mean: float
    std: float
    dead: float | None = None
    saturated: float | None = None
    gradient_norm: float | None = None
    identical: float | None = None


class Finding(Declaration):
    """Something that is wrong.

    Attributes
    ----------
    name : str
        "nonfinite", "unscaled", "vanishing", "exploding", "shrinking", "growing", "dead", "saturated" or "symmetric".
    layer : int or None
        The first layer it was seen in; None: the net as a whole.
    text : str
        What is wrong, where, by which numbers, and what helps.
    """

    name: str
    layer: int | None
    text: str


class Diagnosis(Declaration):
    """What `diagnose` found; `str` of it is a report.

    Attributes
    ----------
    layers : list of LayerRecord
        One per entry of the net's layer list.
    findings : list of Finding
        Empty for a healthy net.
    loss : float
        Mean data loss of the rows; NaN if it could not be computed.
    rows : int
        How many rows were used.
    """

    layers: list[LayerRecord]
    findings: list[Finding]
    loss: float
    rows: int

    def __repr__(self) -> str:
        found = ", ".join(finding.name for finding in self.findings) or "healthy"
        return f"Diagnosis({len(self.layers)} layers, {self.rows} rows, loss {self.loss:.4g}: {found})"

    def __str__(self) -> str:
        import textwrap

        header = ("", "layer", "mean", "std", "dead", "saturated", "gradient")
        rows = [
            (
                str(record.place),
                title(record.layer),
                f"{record.mean:.3g}",
                f"{record.std:.3g}",
                _percent(record.dead),
                _percent(record.saturated),
                "-" if record.gradient_norm is None else f"{record.gradient_norm:.2e}",
            )
            for record in self.layers
        ]
        widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
        lines = [
            "  ".join(f"{cell:<{width}}" if column == 1 else f"{cell:>{width}}" for column, (cell, width) in cells)
            for cells in (enumerate(zip(row, widths, strict=True)) for row in [header, *rows])
        ]
        rule = "-" * len(lines[0])
        said = [f"{finding.name}: {finding.text}" for finding in self.findings]
        if not said:
            said = ["Healthy: signals and gradients keep their size, the units differ and are alive."]
        said = [textwrap.fill(text, 100, subsequent_indent="  ") for text in said]
        return "\n".join([lines[0], rule, *lines[1:], rule, f"loss {self.loss:.4g} on {self.rows:,} rows", "", *said])


def title(layer: Layer) -> str:
    """A layer in a table: of Dense the size and the activation."""
    if not isinstance(layer, Dense):
        return _shortened(repr(layer), 30)
    own = [] if isinstance(layer.own_activation, Identity) else [repr(layer.own_activation)]
    return f"Dense({', '.join([str(layer.units), *own])})"


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


# ---- the twin ----


class _Measures(Declaration):
    """Of the output of one entry of the twin's layer list."""

    mean: float
    std: float
    finite: bool
    dead: float | None
    saturated: float | None


class _Twin:
    """A copy of a net with an entry of its own for each activation, and without randomness: what is measured on it
    leaves the net alone.

    Dropout is replaced by its mean, BatchNorm takes the statistics of its last training-mode pass, if it is trainable.

    Attributes
    ----------
    net : Sequential
    places : list of int
        Of the twin's entries: where they stand in the net's layer list.
    """

    def __init__(self, net: Sequential) -> None:
        entries = [(place, layer) for place, whole in enumerate(net.layers) for layer in _taken_apart(whole)]
        self.places = [place for place, _ in entries]
        self.net = Sequential([layer for _, layer in entries], net.input_size, net.dtype, net.seed)
        self.load(net)

    def load(self, net: Sequential) -> None:
        """Take over the present parameters and statistics."""
        originals = net.parameters()
        for name, view in self.net.parameters().items():
            entry, role = name.split(".")
            view[...] = originals[f"{self.places[int(entry)]}.{role}"]

    def last_activation(self) -> int | None:
        """The entry of the activation that a loss may be fused with."""
        for entry in reversed(range(len(self.net.layers))):
            if isinstance(self.net.layers[entry], Activation) and not isinstance(self.net.layers[entry], Identity):
                return entry
            if not isinstance(self.net.layers[entry], Identity):
                return None
        return None

    def outputs(self, x: Array, n_threads: int = 0) -> Iterator[Array]:
        """Of each entry in turn, in evaluation mode."""
        engine = self.net._engine
        return (engine.predict(x, n_layers=end, n_threads=n_threads) for end in range(1, len(self.net.layers) + 1))

    def measure(self, x: Array, fused: int | None = None, n_threads: int = 0) -> list[_Measures]:
        """One record per entry; the `fused` activation is not judged."""
        records = []
        before: Array = x
        for entry, y in enumerate(self.outputs(x, n_threads)):
            layer = self.net.layers[entry]
            shares: tuple[float | None, float | None] = (None, None)
            if entry != fused and isinstance(layer, Activation) and not isinstance(layer, (Identity, Softmax)):
                shares = _shares(layer, before, y)
            with np.errstate(all="ignore"):
                mean, std = float(y.mean(dtype=np.float64)), float(y.std(dtype=np.float64))
            records.append(_Measures(mean, std, bool(np.isfinite(y).all()), *shares))
            before = y
        return records


def _taken_apart(layer: Layer) -> list[Layer]:
    if isinstance(layer, Dense):
        product = layer._replace(activation=None, init="zeros", regularizer=None)
        return [product] if isinstance(layer.own_activation, Identity) else [product, layer.own_activation]
    if isinstance(layer, Dropout):
        return [Scale(layer.keep) if layer.scaling == "test" else Identity()]
    if isinstance(layer, BatchNorm):
        return [layer._replace(decay=0.0, unbiased=False)]
    return [layer]


def _shares(activation: Activation, z: Array, y: Array) -> tuple[float, float]:
    """Of dead units and of saturated ones."""
    dead = (y == 0).all(axis=0)
    flat = np.abs(derivative(activation, z.astype(np.float64), y.astype(np.float64))) < FLAT
    return float(dead.mean()), float((flat.mean(axis=0) > 0.5).mean())


def derivative(activation: Activation, z: Array, y: Array) -> Array:
    """f'(z) in float64, where y = f(z); 0 at the kink of a ReLU."""
    with np.errstate(all="ignore"):
        return _DERIVATIVES[activation.name](z, y, activation.alpha)


def _sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z)))


def _elu_slope(z: Array, alpha: float, scale: float = 1.0) -> Array:
    return np.where(z > 0, scale, scale * alpha * np.exp(np.minimum(z, 0)))


def _gelu_slope(z: Array, y: Array) -> Array:
    cumulative = np.where(z == 0, 0.5, y / z)  # the normal distribution function, without an erf
    return np.asarray(cumulative + z * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))


def _silu_slope(z: Array) -> Array:
    s = _sigmoid(z)
    return np.asarray(s * (1 + z * (1 - s)))


_DERIVATIVES: dict[str, Callable[[Array, Array, float], Array]] = {
    "relu": lambda z, y, alpha: np.where(z > 0, 1.0, 0.0),
    "leaky_relu": lambda z, y, alpha: np.where(z > 0, 1.0, alpha),
    "elu": lambda z, y, alpha: _elu_slope(z, alpha),
    "selu": lambda z, y, alpha: _elu_slope(z, SELU.ALPHA, SELU.SCALE),
    "gelu": lambda z, y, alpha: _gelu_slope(z, y),
    "silu": lambda z, y, alpha: _silu_slope(z),
    "softplus": lambda z, y, alpha: _sigmoid(z),
    "tanh": lambda z, y, alpha: np.asarray(1 - np.tanh(z) ** 2),
    "sigmoid": lambda z, y, alpha: _sigmoid(z) * _sigmoid(-z),
}


# ---- diagnosis ----


def diagnose(
    net: Sequential,
    x: Any,
    y: Any,
    loss: Any = "cross_entropy",
    max_rows: int = 1024,
    n_threads: int | None = None,
) -> Diagnosis:
    """Measure every layer on some rows and say what is wrong, and what helps. The net stays as it is.

    Activations and gradients are those of one batch of all rows used, as in training: BatchNorm normalises by this
    batch (a frozen one by its running statistics). Dropout is replaced by its mean, so that equal calls give equal
    results. A leading `Standardize` without statistics takes those of `x`, as the first fit would.

    Parameters
    ----------
    net : Sequential
        Trained or not.
    x : array_like, shape (n, input_size)
    y : array_like
        Labels or values, as the loss takes them.
    loss : str, Loss or function
        As for `Trainer`.
    max_rows : int
        Of more rows than this, so many are used, evenly spread over `x`; memory is that of a copy of the net, its
        gradients, and a few arrays of this many rows and the width of the widest layer.
    n_threads : int, optional

    Returns
    -------
    Diagnosis
        ``print(diagnosis)`` shows a table and the findings:

        ============  ==============================================================================================
        nonfinite     a parameter, an output, the loss or a gradient is not finite
        unscaled      what enters the first Dense layer has a feature of root mean square above 10, or all below 0.01
        vanishing     gradient norm of the first Dense layer / that of the last one < 1e-3
        exploding     the same > 1e3
        shrinking     standard deviation of the output of the last hidden Dense layer / of the first one < 1e-3
        growing       the same > 1e3
        dead          at least half of the units of an activation are 0 on all rows and flat there
        saturated     at least half of the units of an activation have ``|f'(z)| < 1e-3`` on more than half of the rows;
                      not said of ReLU and LeakyReLU, which are flat on one side on purpose
        symmetric     at least half of the units of a hidden Dense layer have a double that training cannot tell apart
        ============  ==============================================================================================

    Raises
    ------
    ValueError, TypeError
        Naming the argument; or the net is folded.
    """
    instance("net", net, Sequential, "a fastnn.Sequential")
    net._require_trainable("diagnose")
    most, count = integer("max_rows", max_rows, 1), threads(n_threads)
    twin = _Twin(net)
    trainer = Trainer(twin.net, loss, SGD(1.0), batch_size="full", n_threads=n_threads)
    samples = trainer._check(x, y, None)
    twin.net._fit_standardize(samples.x, None)
    samples = samples.rows(data.spread(len(samples.x), most))
    twin.net._check_batch_rows(samples.x.shape)

    gradients = twin.net.gradients()  # asked for before the step, which stores them then
    trainer._configure()
    step = trainer._run(samples, np.array([0, len(samples.x)], dtype=np.uint64), np.zeros(1))
    failure = step.failure
    value = failure.loss if failure else step.loss_sum / step.weight_sum
    if failure:
        gradients = {name: np.full_like(gradient, np.nan) for name, gradient in gradients.items()}
    fused = twin.last_activation() if _is_fused(trainer) else None
    measures = twin.measure(samples.x, fused, count)
    records = _records(net, twin, measures, gradients)
    findings = [*_nonfinite(twin, measures, failure), *_unscaled(twin, samples.x, count)]
    if not any(finding.name == "nonfinite" for finding in findings):  # else their numbers say nothing
        findings += [*_ratios(records), *_dead(records), *_saturated(records), *_symmetric(records)]
    return Diagnosis(records, findings, value, len(samples.x))


def _is_fused(trainer: Trainer) -> bool:
    loss = trainer.loss
    return not isinstance(loss, OwnLoss) and trainer.net._engine.fused_output(loss.name) != "identity"


def _records(
    net: Sequential, twin: _Twin, measures: Sequence[_Measures], gradients: dict[str, Array]
) -> list[LayerRecord]:
    last_dense = max((place for place, layer in enumerate(net.layers) if isinstance(layer, Dense)), default=None)
    records = []
    for place, layer in enumerate(net.layers):
        entries = [entry for entry, of in enumerate(twin.places) if of == place]
        last = measures[entries[-1]]
        norm, identical = None, None
        weight_gradient = gradients.get(f"{entries[0]}.weight")
        if weight_gradient is not None:
            norm = float(np.linalg.norm(weight_gradient.astype(np.float64)))
            if place != last_dense:
                identical = _identical(twin.net.parameters(), gradients, entries[0])
        records.append(LayerRecord(place, layer, last.mean, last.std, last.dead, last.saturated, norm, identical))
    return records


def _identical(parameters: dict[str, Array], gradients: dict[str, Array], entry: int) -> float:
    """Share of the units of a Dense layer that have a double."""
    names = [name for name in (f"{entry}.weight", f"{entry}.bias") if name in gradients]
    units = np.column_stack([np.transpose(of[name]) for name in names for of in (parameters, gradients)])
    if not np.isfinite(units).all():
        return 0.0
    units = np.add(units, 0.0, order="C")  # -0.0 becomes 0.0, so that equal numbers have equal bytes
    counts = Counter(map(bytes, units))  # np.unique of rows takes minutes where they have thousands of numbers
    return sum(count for count in counts.values() if count > 1) / len(units)


# ---- findings ----


def _nonfinite(twin: _Twin, measures: Sequence[_Measures], failure: _Failure | None) -> list[Finding]:
    """The first place where something is not finite: parameters, outputs, then loss and gradients."""
    advice = "Scaled features, a smaller learning rate and clipping by norm keep a training from getting there."
    for name, values in twin.net.parameters().items():
        bad = int(values.size - np.isfinite(values).sum())
        if bad:
            number, role = name.split(".")
            place = twin.places[int(number)]
            text = f"{bad:,} of {values.size:,} values of {place}.{role} are not finite: this net is lost. {advice}"
            return [Finding("nonfinite", place, text)]
    for entry, measure in enumerate(measures):
        if not measure.finite:
            place = twin.places[entry]
            text = (
                f"the output of layer {place} is not finite, though all parameters are: numbers grew beyond the "
                f"largest {twin.net.dtype}. Xavier or He initialisation and BatchNorm keep signals at their size. "
                f"{advice}"
            )
            return [Finding("nonfinite", place, text)]
    if failure is None:
        return []
    at = None if failure.layer is None else twin.places[failure.layer]
    what = "the loss" if at is None else f"the gradient of layer {at}"
    return [Finding("nonfinite", at, f"{what} is not finite, though all outputs are. {advice}")]


def _unscaled(twin: _Twin, x: Array, n_threads: int) -> list[Finding]:
    """Of what enters the first Dense layer."""
    entry = next((entry for entry, layer in enumerate(twin.net.layers) if isinstance(layer, Dense)), None)
    if entry is None:
        return []
    features = x if entry == 0 else twin.net._engine.predict(x, n_layers=entry, n_threads=n_threads)
    with np.errstate(all="ignore"):
        sizes = np.sqrt(np.mean(np.square(features, dtype=np.float64), axis=0))
    largest = float(sizes.max())
    if not (largest > LARGE_FEATURE or 0 < largest < SMALL_FEATURE):
        return []
    place, column = twin.places[entry], int(sizes.argmax())
    if largest > LARGE_FEATURE:
        count = int((sizes > LARGE_FEATURE).sum())
        numbers = f"{count} of {len(sizes)} features have a root mean square above {LARGE_FEATURE:g}"
    else:
        numbers = f"all {len(sizes)} features have a root mean square below {SMALL_FEATURE:g}"
    text = (
        f"the features that enter layer {place} are not scaled: {numbers}, the largest is {largest:.3g} (column "
        f"{column}; the median is {np.median(sizes):.3g}). Initialisation and learning rates expect features near mean "
        "0 and deviation 1: put Standardize() first, or Scale(1/255) for images. What is found further on may come "
        "from this."
    )
    return [Finding("unscaled", place, text)]


def _ratios(records: Sequence[LayerRecord]) -> list[Finding]:
    """Gradients and signals that change their size from layer to layer."""
    dense = [record for record in records if isinstance(record.layer, Dense)]
    trained = [(record.place, record.gradient_norm) for record in dense if record.gradient_norm is not None]
    hidden = [(record.place, record.std) for record in dense[:-1]]
    findings = []
    if len(trained) > 1 and trained[-1][1] > 0:
        (first, norm), (last, last_norm) = trained[0], trained[-1]
        ratio = norm / last_norm
        numbers = (
            f"its norm is {norm:.2e} in the first Dense layer (layer {first}) and {last_norm:.2e} in the last one "
            f"(layer {last}), a ratio of {ratio:.1e}"
        )
        if ratio < 1 / RATIO:
            text = (
                f"the gradient vanishes on its way back: {numbers}, so that the first layers hardly learn. Xavier "
                "initialisation before tanh and sigmoid or He before ReLU, ReLU in place of sigmoid, and BatchNorm "
                "keep its size."
            )
            findings.append(Finding("vanishing", first, text))
        elif ratio > RATIO:
            text = (
                f"the gradient explodes on its way back: {numbers}. Xavier or He initialisation and BatchNorm keep its "
                "size; clipping by norm, Trainer(clip=ClipNorm(1.0)), bounds the steps."
            )
            findings.append(Finding("exploding", first, text))
    if len(hidden) > 1 and hidden[0][1] > 0 and hidden[-1][1] > 0:
        (first, std), (last, last_std) = hidden[0], hidden[-1]
        ratio = last_std / std
        numbers = (
            f"their standard deviation is {std:.2e} in the first hidden layer (layer {first}) and {last_std:.2e} in "
            f"the last one (layer {last}), a ratio of {ratio:.1e}"
        )
        advice = "Xavier initialisation before tanh and sigmoid, He before ReLU, and BatchNorm keep their size."
        if ratio < 1 / RATIO:
            findings.append(Finding("shrinking", last, f"the signals shrink on their way forward: {numbers}. {advice}"))
        elif ratio > RATIO:
            findings.append(Finding("growing", last, f"the signals grow on their way forward: {numbers}. {advice}"))
    return findings


def _dead(records: Sequence[LayerRecord]) -> list[Finding]:
    shares = [
        (record, record.dead)
        for record in records
        if record.dead is not None and DEAD_SHARE <= record.dead <= (record.saturated or 0)  # tanh(0) = 0 is alive
    ]
    text = (
        "{where} are dead, 0 on all rows: they pass no gradient on and cannot recover by training. He initialisation "
        "with biases of 0, BatchNorm before the activation, a smaller learning rate, or LeakyReLU or ELU, whose "
        "gradient does not end at 0, avoid this."
    )
    return _shared("dead", shares, text)


def _saturated(records: Sequence[LayerRecord]) -> list[Finding]:
    shares = [
        (record, record.saturated)
        for record in records
        if record.saturated is not None
        and record.saturated >= SATURATED_SHARE
        and _activation(record.layer).name not in _FLAT_ON_PURPOSE
    ]
    text = (
        "{where} are saturated, |f'(z)| < 0.001 on more than half of the rows: they pass hardly "
        "any gradient on. Smaller initial weights (Xavier), scaled features, BatchNorm before the activation, or ReLU, "
        "which does not saturate for z > 0, avoid this."
    )
    return _shared("saturated", shares, text)


def _activation(layer: Layer) -> Activation:
    """Its own or the layer itself, of a layer that has shares."""
    if isinstance(layer, Dense):
        return layer.own_activation
    assert isinstance(layer, Activation)
    return layer


def _symmetric(records: Sequence[LayerRecord]) -> list[Finding]:
    shares = [(r, r.identical) for r in records if r.identical is not None and r.identical >= IDENTICAL_SHARE]
    text = (
        "{where} are symmetric: each has a double with the same weights and the same gradients, so that they "
        "stay the same for ever and count as one. Zero and constant initialisation do this; draw the weights at random "
        "(Xavier, He) and leave the zero to the biases."
    )
    return _shared("symmetric", shares, text)


def _shared(name: str, shares: Sequence[tuple[LayerRecord, float]], text: str) -> list[Finding]:
    """One finding for all layers that have the fault; `text` has a place for their shares."""
    if not shares:
        return []
    places = [record.place for record, _ in shares]
    percents = [_percent(share) for _, share in sorted(shares, key=lambda pair: pair[1])]
    shown = percents[0] if percents[0] == percents[-1] else f"{percents[0]} to {percents[-1]}"
    if len(places) == 1:
        where = f"layer {places[0]}"
    elif len(places) <= 4:
        where = f"layers {', '.join(map(str, places))}"
    else:
        where = f"{len(places)} layers ({places[0]} to {places[-1]})"
    where = f"{shown} of the units of {where}"
    return [Finding(name, places[0], text.format(where=where))]


# ---- epoch by epoch ----


class Diagnostics(Callback):
    """Records, epoch by epoch, what `diagnose` looks at. The training comes to the same bits with it and without.

    A fit without it pays nothing. With it every step forms all gradients and their norms, as clipping by norm does, and
    every epoch ends with a prediction of at most 1,024 rows by a copy of the net.

    It has no state for checkpoints: in a resumed fit it records the epochs since then.

    Parameters
    ----------
    x : array_like, shape (n, input_size), optional
        Where dead and saturated units are looked for; by default the training data. Of more than 1,024 rows so many,
        evenly spread.

    Attributes
    ----------
    history : dict of str to list of float
        One entry per epoch: "epoch" (counted from 0), "clip_rate" (share of the steps whose gradient the Trainer's clip
        changed), "gradient_norm.0.weight" and so on (mean over the steps of the norm of each trainable tensor's
        gradient, with penalties and before clipping), "dead.0" and "saturated.0" and so on for the activation of each
        layer that has one: shares as in `LayerRecord`, in evaluation mode. NaN where no step was taken.

    Examples
    --------
    >>> diagnostics = fn.Diagnostics()
    >>> trainer.fit(x, y, epochs=20, callbacks=[diagnostics])
    >>> diagnostics.history["gradient_norm.0.weight"][-1]
    >>> diagnostics.plot("diagnostics.png")
    """

    trainer: Trainer

    def __init__(self, x: Any = None) -> None:
        self._x = x
        self.history: dict[str, list[float]] = {}
        self._net: Sequential | None = None  # of the last fit, for the names in the plot

    def on_fit_begin(self) -> None:
        trainer, engine = self.trainer, self.trainer.net._engine
        if engine.measure:
            raise ValueError("a fit takes one Diagnostics callback: another one is measuring this net.")
        assert trainer._fit is not None
        x = trainer._fit.training.x if self._x is None else data.features(self._x, engine, "x of Diagnostics")
        self._rows = x[data.spread(len(x), _ROWS_PER_EPOCH)]
        self._twin = _Twin(trainer.net)
        self._fused = self._twin.last_activation() if _is_fused(trainer) else None
        self._names = [name for name, _, trainable, _ in engine.tensors() if trainable]
        self.history, self._net = {}, trainer.net
        engine.measure = True

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        steps, clipped, norms = self.trainer.net._engine.take_measures()
        record = {"epoch": float(epoch), "clip_rate": clipped / steps if steps else float("nan")}
        for name, norm in zip(self._names, norms, strict=True):
            record[f"gradient_norm.{name}"] = norm if steps else float("nan")
        self._twin.load(self.trainer.net)
        measures = self._twin.measure(self._rows, self._fused, self.trainer._threads)
        for place, measure in zip(self._twin.places, measures, strict=True):
            if measure.dead is not None and measure.saturated is not None:
                record |= {f"dead.{place}": measure.dead, f"saturated.{place}": measure.saturated}
        for name, value in record.items():
            self.history.setdefault(name, []).append(value)

    def on_fit_end(self) -> None:
        self.trainer.net._engine.measure = False
        del self._twin, self._rows

    def plot(self, path: "str | os.PathLike[str] | None" = None) -> Any:
        """Curves over the epochs: gradient norms of the weights, dead and saturated units of each layer, and the share
        of clipped steps if there are any; needs matplotlib. ReLUs have no curve of saturated units: they are flat on
        purpose.

        Parameters
        ----------
        path : str or path-like, optional
            Also save the picture there.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            matplotlib is not installed.
        ValueError
            No epoch has been recorded.
        """
        if not self.history or self._net is None:
            raise ValueError("Diagnostics has nothing to plot: give it to a fit, callbacks=[diagnostics].")
        layers = {str(place): layer for place, layer in enumerate(self._net.layers)}
        names = {place: f"{place}  {title(layer)}" for place, layer in layers.items()}
        norms, dead, saturated = {}, {}, {}
        for column, values in self.history.items():
            kind, _, of = column.partition(".")
            place = of.partition(".")[0]
            if kind == "gradient_norm" and of.endswith(".weight"):
                norms[names[place]] = values
            elif kind == "dead":
                dead[names[place]] = values
            elif kind == "saturated" and _activation(layers[place]).name not in _FLAT_ON_PURPOSE:
                saturated[names[place]] = values
        panels = [("gradient norm of the weights", False, norms), ("dead units", True, dead)]
        panels.append(("saturated units", True, saturated))
        if any(self.history["clip_rate"]):
            panels.append(("clipped steps", True, {"all": self.history["clip_rate"]}))
        epochs = [epoch + 1 for epoch in self.history["epoch"]]
        shown = [panel for panel in panels if panel[2]]
        return _draw.finish(_draw.layers_over_epochs(epochs, shown, list(names.values())), path)
