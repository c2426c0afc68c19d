"""Where a fit stands, as a checkpoint keeps it: packed, read back, and compared with the fit that goes on from it.

A checkpoint is a model file (docs/model-file.md) with the optimizer's moments and counters and, as tensors beside them,
``trainer.state`` (a JSON text), ``trainer.outputs``, ``history.*`` and ``callback.*``.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from . import _core, _strings, data, layers
from ._declare import Declaration, integer, number
from .callbacks import Callback
from .errors import ModelFileError, ModelVersionError

Array = np.ndarray[Any, Any]

STATE_VERSION = 1  # of the JSON text in trainer.state
_MOST = 2**53  # of every counter in it: exact in float64, in which schedules compute
_TENSOR_NAME = re.compile(r"[A-Za-z0-9_.]{1,128}")


# ---- what is kept ----


def new_run() -> str:
    return os.urandom(8).hex()


class Place:
    """Where a fit stands: between two batches, or between two epochs.

    Attributes
    ----------
    epoch : int
        Finished epochs of this fit.
    batch : int
        Finished batches of the epoch after them; loss_sum, weight_sum, seconds and outputs (None without metrics) are
        what it came to so far.
    stop : str or None
        Why a callback ended the fit with the last epoch.
    """

    def __init__(self, epoch: int = 0, stop: str | None = None) -> None:
        self.epoch, self.stop = epoch, stop
        self.batch = 0
        self.loss_sum = self.weight_sum = self.seconds = 0.0
        self.outputs: Array | None = None


class Counters(Declaration):
    """Of a trainer, since its reset.

    Attributes
    ----------
    run : str
        Random; tells this trainer's checkpoints from those of others.
    epoch : int
        The number of the next shuffle.
    step : int
        Where the schedule stands.
    steps_per_epoch, shift
        How schedules that count epochs read `step`.
    lr_factor : float
        What ReduceLROnPlateau made of the learning rate.
    """

    run: str
    epoch: int
    step: int
    steps_per_epoch: int
    shift: float
    lr_factor: float


class State(Declaration):
    """All that a checkpoint holds beside the net.

    Attributes
    ----------
    settings, identity : dict of str to str
        Of the trainer, and of the arguments of `fit`: what must be equal for the same result.
    callbacks : list of (name, state)
        Those with a state, in their order.
    history : mapping of lists
    """

    settings: dict[str, str]
    identity: dict[str, str]
    counters: Counters
    place: Place
    callbacks: list[tuple[str, dict[str, Any]]]
    history: Mapping[str, Sequence[float]]


# ---- comparing ----


def describe(value: Any) -> str:
    """The text by which two settings are compared; a function is its qualified name, a callable object its class with
    its plain attributes.
    """
    if isinstance(value, Declaration):
        fields = ", ".join(f"{name}={describe(field)}" for name, field in value._values().items())
        return f"{type(value).__name__}({fields})"
    if isinstance(value, float):
        return repr(float(value))
    if value is None or isinstance(value, (str, int)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(describe, value))})"
    if isinstance(value, partial):
        keywords = [f"{name}={describe(argument)}" for name, argument in sorted(value.keywords.items())]
        return f"partial({', '.join([describe(value.func), *map(describe, value.args), *keywords])})"
    if hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    plain = {name: part for name, part in getattr(value, "__dict__", {}).items() if isinstance(part, (str, int, float))}
    fields = ", ".join(f"{name}={describe(part)}" for name, part in sorted(plain.items()))
    return f"{type(value).__qualname__}({fields})" if fields else type(value).__qualname__


def describe_callback(callback: Callback) -> str:
    settings = ", ".join(f"{name}={describe(value)}" for name, value in callback._settings().items())
    return f"{type(callback).__qualname__}({settings})"


def has_state(callback: Callback) -> bool:
    return type(callback).state_dict is not Callback.state_dict


def differences(saved: Mapping[str, str], present: Mapping[str, str], here: str) -> list[str]:
    """A line for each entry that is not the same in a checkpoint and here."""
    return [
        f"{name}: checkpoint {saved.get(name, 'none')}, {here} {present.get(name, 'none')}"
        for name in {**saved, **present}
        if saved.get(name) != present.get(name)
    ]


def net_differences(saved: _core.Engine, present: _core.Engine) -> list[str]:
    lines = differences(_describe_net(saved), _describe_net(present), "this trainer")
    if not lines and saved.layers()[0]["given"] and not _same_statistics(saved, present):
        lines = ["layer 0: Standardize was given other statistics"]
    return lines


def _describe_net(engine: _core.Engine) -> dict[str, str]:
    records = {f"layer {i}": _describe_layer(record) for i, record in enumerate(engine.layers())}
    return {"input_size": str(engine.input_size), "dtype": engine.dtype.name, "seed": str(engine.seed), **records}


def _describe_layer(record: Mapping[str, Any]) -> str:
    return f"{layers.from_record(record)!r}{' with statistics that were given' if record['given'] else ''}"


def _same_statistics(engine: _core.Engine, other: _core.Engine) -> bool:
    places = [i for i, (name, *_) in enumerate(engine.tensors()) if name in ("0.mean", "0.scale")]
    return all(np.array_equal(engine.parameter(i), other.parameter(i)) for i in places)


def identify(prefix: str, x: Array, y: Array, weights: Array | None) -> dict[str, str]:
    """The texts by which the rows of two fits are compared."""
    found = {
        f"{prefix}x": f"{_shape(x)} with CRC {data.crc_of_some_rows(x):08x} of some rows",
        f"{prefix}y": _shape(y) if y.dtype.hasobject else f"{_shape(y)} with CRC {data.crc(y):08x}",
    }
    if weights is not None:
        found[f"{prefix}weights of samples and classes"] = f"{_shape(weights)} with CRC {data.crc(weights):08x}"
    return found


def _shape(array: Array) -> str:
    return f"{array.dtype} {array.shape}"


# ---- packing ----


def pack(state: State) -> dict[str, Array]:
    """The tensors of a checkpoint beside those of the net."""
    import json  # here: it would be a fifth of the import time

    place, states = state.place, []
    attachments: dict[str, Array] = {}
    for i, (name, values) in enumerate(state.callbacks):
        plain, arrays, tensors = _pack_state(f"callback.{i}.", name, values)
        states.append({"name": name, "values": plain, "arrays": arrays})
        attachments |= tensors
    text = {
        "version": STATE_VERSION,
        "settings": state.settings,
        "fit": state.identity,
        "counters": state.counters._values(),
        "place": {name: getattr(place, name) for name in _PLACE_FIELDS},
        "callbacks": states,
    }
    attachments["trainer.state"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    if place.batch > 0 and place.outputs is not None:
        attachments["trainer.outputs"] = place.outputs
    if state.history:
        attachments |= _strings.pack("history.names", state.history)
        attachments["history.values"] = np.array(list(state.history.values()), dtype=np.float64)
    return attachments


_PLACE_FIELDS = ("epoch", "batch", "loss_sum", "weight_sum", "seconds", "stop")


def _pack_state(
    prefix: str, name: str, state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Array]]:
    """(plain values, dtype and shape of the arrays, the arrays as tensors by name) of a callback's state."""
    values: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    tensors: dict[str, Array] = {}
    for key, value in state.items():
        if not isinstance(value, np.ndarray):
            values[key] = _plain(value, f"{name}.state_dict()[{key!r}]")
            continue
        tensor = prefix + key
        if not _TENSOR_NAME.fullmatch(tensor) or value.dtype.name not in _core.feature_dtypes:
            raise ValueError(
                f"{name}.state_dict()[{key!r}] cannot be kept: an array needs a dtype among "
                f"{', '.join(sorted(_core.feature_dtypes))} and a short name of letters, digits, '_' and '.'."
            )
        arrays[key] = {"dtype": value.dtype.name, "shape": list(value.shape)}
        if value.size:
            native = np.ascontiguousarray(value, value.dtype.newbyteorder("="))
            tensors[tensor] = native if value.ndim == 2 else native.reshape(-1)
    return values, arrays, tensors


def _plain(value: Any, name: str) -> Any:
    """`value` if JSON gives it back as it is."""
    if isinstance(value, (np.bool_, np.integer, np.float32, np.float64)):
        value = value.item()
    if isinstance(value, list):
        return [_plain(part, name) for part in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(part, name) for key, part in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name} must be a number, str, None, array, or list or dict of them, got {value!r}.")


# ---- unpacking ----


class _Fields:
    """A JSON object from a file: every access says what is missing or of the wrong kind."""

    def __init__(self, value: Any, name: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{name} must be a JSON object, got {_short(value)}")
        self.values, self._name = value, name

    def get(self, key: str) -> Any:
        if key not in self.values:
            raise ValueError(f"{self._name}: '{key}' is missing")
        return self.values[key]

    def fields(self, key: str) -> "_Fields":
        return _Fields(self.get(key), f"{self._name}: '{key}'")

    def integer(self, key: str, low: int = 0, high: int = _MOST) -> int:
        return integer(f"{self._name}: '{key}'", self.get(key), low, high)

    def number(self, key: str, low: float = -math.inf) -> float:
        """Finite."""
        return number(f"{self._name}: '{key}'", self.get(key), low)

    def float(self, key: str) -> float:
        value = self.get(key)
        if not isinstance(value, float):
            raise ValueError(f"{self._name}: '{key}' must be a float, got {_short(value)}")
        return value

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise ValueError(f"{self._name}: '{key}' must be a text, got {_short(value)}")
        return value

    def texts(self) -> dict[str, str]:
        return {key: self.text(key) for key in self.values}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class Saved(Declaration):
    """What a checkpoint holds beside the net, checked as far as it can be without the data."""

    path: str
    state: State


def read(path: str) -> tuple[_core.Engine, Saved]:
    """The checkpoint of a file; ModelFileError names what is wrong in it."""
    engine, contents, attachments = _core.open_model(path)
    if contents != "checkpoint":
        raise ModelFileError(f"{path}: a model and not a checkpoint; fastnn.load reads it, no fit can go on from it.")
    try:
        return engine, Saved(path, _unpack(attachments, engine))
    except ModelFileError as error:
        raise type(error)(f"{path}: {error}") from None
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: {error}") from error


def _unpack(attachments: Mapping[str, Array], engine: _core.Engine) -> State:
    import json  # here: it would be a fifth of the import time

    if "trainer.state" not in attachments:
        raise ModelFileError("tensor 'trainer.state' is missing: not written by fastnn.Checkpoint")
    try:
        values = json.loads(attachments["trainer.state"].tobytes().decode())
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"trainer.state is not JSON: {error}") from None
    state = _Fields(values, "trainer.state")
    version = state.integer("version", 1)
    if version > STATE_VERSION:
        raise ModelVersionError(
            f"the state of training has version {version}, this fastnn reads up to {STATE_VERSION}: upgrade fastnn"
        )
    history = _unpack_history(attachments)
    counters = _unpack_counters(state.fields("counters"))
    place = _unpack_place(state.fields("place"), counters)
    epochs = len(next(iter(history.values()), ()))
    if epochs != place.epoch:
        raise ValueError(f"history has {epochs} epochs, but trainer.state counts {place.epoch}")
    place.outputs = attachments.get("trainer.outputs")
    if place.outputs is not None and (
        place.outputs.dtype != engine.dtype or place.outputs.shape[1] != engine.output_size
    ):
        raise ValueError(f"trainer.outputs has {_shape(place.outputs)}")
    states = state.get("callbacks")
    if not isinstance(states, list):
        raise ValueError(f"trainer.state: 'callbacks' must be a list, got {_short(states)}")
    return State(
        state.fields("settings").texts(),
        state.fields("fit").texts(),
        counters,
        place,
        [_unpack_state(_Fields(part, f"callback {i}"), f"callback.{i}.", attachments) for i, part in enumerate(states)],
        history,
    )


def _unpack_counters(fields: _Fields) -> Counters:
    return Counters(
        fields.text("run"),
        fields.integer("epoch"),
        fields.integer("step"),
        fields.integer("steps_per_epoch", 1),
        fields.number("shift"),
        fields.number("lr_factor"),
    )


def _unpack_place(fields: _Fields, counters: Counters) -> Place:
    place = Place(fields.integer("epoch"), None if fields.get("stop") is None else fields.text("stop"))
    place.batch = fields.integer("batch", 0, min(counters.steps_per_epoch - 1, counters.step))
    place.loss_sum = fields.float("loss_sum")
    place.weight_sum = fields.number("weight_sum", 0)
    place.seconds = fields.number("seconds", 0)
    return place


def _unpack_history(attachments: Mapping[str, Array]) -> dict[str, list[float]]:
    names, values = _strings.unpack("history.names", attachments), attachments.get("history.values")
    if names is None and values is None:
        return {}
    if names is None or values is None or len(names) != len(values):
        raise ValueError("the tensors 'history.*' do not suit each other")
    if len(set(names)) < len(names):
        raise ValueError("two columns of the history have one name")
    return dict(zip(names, values.tolist(), strict=True))


def _unpack_state(fields: _Fields, prefix: str, attachments: Mapping[str, Array]) -> tuple[str, dict[str, Any]]:
    state = dict(fields.fields("values").values)
    arrays = fields.fields("arrays")
    for key in arrays.values:
        state[key] = _unpack_array(arrays.fields(key), attachments.get(prefix + key))
    return fields.text("name"), state


def _unpack_array(fields: _Fields, tensor: Array | None) -> Array:
    name, shape = fields.text("dtype"), fields.get("shape")
    if name not in _core.feature_dtypes:
        raise ValueError(f"an array of dtype {_short(name)}")
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n <= _MOST for n in shape):
        raise ValueError(f"an array of shape {_short(shape)}")
    array = np.empty(0, name) if tensor is None else tensor
    if array.dtype != name or array.size != math.prod(shape):
        raise ValueError(f"an array of {name} {tuple(shape)} in a tensor of {_shape(array)}")
    return array.reshape(shape).copy()
