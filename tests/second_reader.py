"""A second reader of model files, in NumPy, written from docs/model-file.md alone: it shares nothing with the engine's.

`read` refuses what that page says must be refused, with `RefusedError`; `predict` computes in float64.
"""

import json
import math
import re
import zlib
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

DTYPES = {
    name: np.dtype(code)
    for name, code in {
        "F32": "<f4",
        "F64": "<f8",
        "U8": "u1",
        "I8": "i1",
        "U16": "<u2",
        "I16": "<i2",
        "U32": "<u4",
        "I32": "<i4",
        "U64": "<u8",
        "I64": "<i8",
    }.items()
}
ACTIVATIONS = [
    "identity",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "softplus",
    "tanh",
    "sigmoid",
    "softmax",
]
INITS = [
    "default",
    "zeros",
    "constant",
    "uniform",
    "normal",
    "fan_in_uniform",
    "lecun_uniform",
    "lecun_normal",
    "xavier_uniform",
    "xavier_normal",
    "he_uniform",
    "he_normal",
    "orthogonal",
]
PENALTIES = ["default", "l1", "proximal_l1", "l2", "elastic_net"]
FLAG, SIZE, REAL = ["0", "1"], "size", "real"
KINDS = {
    "dense": {
        "units": SIZE,
        "use_bias": FLAG,
        "activation": ACTIVATIONS,
        "alpha": REAL,
        "init": INITS,
        "init_value": REAL,
        "penalty": PENALTIES,
        "lam": REAL,
        "beta": REAL,
        "trainable": FLAG,
    },
    "batchnorm": {"eps": REAL, "decay": REAL, "unbiased": FLAG, "trainable": FLAG},
    "dropout": {"p": REAL, "test_scaling": FLAG},
    "activation": {"function": ACTIVATIONS, "alpha": REAL},
    "scale": {"factor": REAL},
    "standardize": {"given": FLAG},
}
OF_MODELS = ["format", "kind", "created_by", "dtype", "input_size", "seed", "frozen", "link", "arch", "header_crc"]
OF_CHECKPOINTS = ["optimizer", "passes", "updates"]
LINKS = ["none", "identity", "sigmoid", "softmax", "exp"]
OPTIMIZERS = ["sgd", "rmsprop", "adam"]
OF_TABLES = r"class_names|feature_names|target_name|preprocess\.kinds|preprocess\.categories\..+"
STRINGS = rf"{OF_TABLES}|history\.names"
# name, dtypes, ranks, only in checkpoints
ATTACHMENTS: list[tuple[str, set[str], set[int], bool]] = [
    (rf"({OF_TABLES})\.utf8", {"U8"}, {1}, False),
    (rf"({OF_TABLES})\.offsets", {"I64"}, {1}, False),
    (r"preprocess\.(mean|scale|fill)", {"F64"}, {1}, False),
    (r"history\.names\.utf8", {"U8"}, {1}, True),
    (r"history\.names\.offsets", {"I64"}, {1}, True),
    (r"history\.values", {"F64"}, {2}, True),
    (r"trainer\.state", {"U8"}, {1}, True),
    (r"trainer\.outputs", set(DTYPES), {2}, True),
    (r"callback\..+", set(DTYPES), {1, 2}, True),
]


class RefusedError(Exception):
    """The file does not keep to the profile."""


class File(NamedTuple):
    metadata: dict[str, str]
    layers: list[dict[str, Any]]
    tensors: dict[str, np.ndarray]  # of the net
    moments: dict[str, np.ndarray]
    attachments: dict[str, np.ndarray]

    @property
    def frozen(self) -> bool:
        return self.metadata["fastnn.frozen"] == "1"

    def strings(self, name: str) -> list[str]:
        offsets = self.attachments[f"{name}.offsets"]
        data = self.attachments.get(f"{name}.utf8", np.empty(0, np.uint8)).tobytes()
        return [data[a:b].decode() for a, b in pairwise(offsets)]


def demand(condition: Any, sentence: str) -> None:
    if not condition:
        raise RefusedError(sentence)


def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    demand(len({key for key, _ in pairs}) == len(pairs), "a key twice")
    return dict(pairs)


def no_fraction(text: str) -> None:
    raise RefusedError(f"the number {text}")


def integer(text: str, most: int) -> int:
    demand(re.fullmatch("0|[1-9][0-9]*", text) and int(text) <= most, f"the integer {text[:40]!r}")
    return int(text)


def parse_header(text: bytes) -> dict[str, Any]:
    demand(text[:1] == b"{", "no object")
    demand(b"\\" not in text, "an escape")
    demand(b"-" not in re.sub(b'"[^"]*"', b"", text), "a negative number")
    try:
        header = json.loads(
            text.decode(), object_pairs_hook=without_repetition, parse_float=no_fraction, parse_constant=no_fraction
        )
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"no JSON: {error}") from None
    demand(header, "nothing in the header")
    return header


def parse_tensors(header: dict[str, Any], data: bytes) -> dict[str, np.ndarray]:
    tensors, place = {}, 0
    demand(len(header) <= 4096, "too many tensors")
    for name, entry in header.items():
        demand(re.fullmatch("[A-Za-z0-9_.]{1,128}", name, re.ASCII), f"the name {name!r}")
        demand(isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}, "an entry's keys")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        demand(isinstance(dtype, str) and dtype in DTYPES, f"the dtype {dtype}")
        for numbers in (shape, offsets):
            demand(isinstance(numbers, list) and all(type(n) is int for n in numbers), "no list of integers")
        demand(len(shape) in (1, 2) and all(1 <= n < 2**31 for n in shape), f"the shape {shape}")
        demand(len(offsets) == 2 and offsets[0] == place, f"{name} does not begin where the one before ends")
        place = offsets[1]
        demand(place - offsets[0] == math.prod(shape) * DTYPES[dtype].itemsize, f"the offsets of {name}")
        demand(place <= len(data), "the data ends before")
        tensors[name] = np.frombuffer(data[offsets[0] : place], DTYPES[dtype]).reshape(shape)
    demand(place == len(data), "bytes behind the last tensor")
    return tensors


def check_crcs(metadata: dict[str, str], header: bytes, tensors: dict[str, np.ndarray]) -> None:
    expected = metadata.get("fastnn.header_crc", "")
    key = b'"fastnn.header_crc"'
    before, _, rest = header.partition(key)
    found = re.match(rb'[ \t\r\n]*:[ \t\r\n]*"([^"]{8})"', rest)
    demand(found is not None and found[1].decode() == expected, "no CRC of the header")
    assert found
    start = len(before) + len(key) + found.start(1)
    zeroed = header[:start] + b"00000000" + header[start + 8 :]
    demand(expected == f"{zlib.crc32(zeroed):08x}", "the header is damaged")
    crcs = {name.removeprefix("fastnn.crc."): v for name, v in metadata.items() if name.startswith("fastnn.crc.")}
    demand(crcs == {name: f"{zlib.crc32(t.tobytes()):08x}" for name, t in tensors.items()}, "the CRCs of the tensors")


def parse_value(text: str, kind: Any) -> Any:
    if kind == SIZE:
        size = integer(text, 2**31 - 1)
        demand(size >= 1, "no units")
        return size
    if kind == REAL:
        grammar = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?(e[-+]?[0-9]+)?"
        demand(len(text) <= 24 and re.fullmatch(grammar, text, re.ASCII), f"the number {text[:40]!r}")
        demand(math.isfinite(float(text)), f"the number {text}")
        return float(text)
    demand(text in kind, f"the value {text[:40]!r}")
    return int(text) if kind is FLAG else text


def parse_layers(text: str) -> list[dict[str, Any]]:
    layers = []
    for index, record in enumerate(text.split(";")):
        found = re.fullmatch(r"(\d+):([a-z]+)\((.*)\)", record, re.ASCII | re.DOTALL)
        demand(found, f"record {index}")
        assert found
        demand(found[1] == str(index) and found[2] in KINDS, f"record {index}: {found[1]}:{found[2]}")
        attributes = KINDS[found[2]]
        parts = [part.partition("=") for part in found[3].split(",")]
        demand([name for name, _, _ in parts] == list(attributes), f"record {index}: attributes")
        layer = {name: parse_value(value, attributes[name]) for name, _, value in parts}
        layers.append({"kind": found[2], **layer})
    demand(len(layers) <= 4096, "too many layers")
    return layers


def check_ranges(layer: dict[str, Any], index: int) -> None:
    kind = layer["kind"]
    function = layer.get("activation", layer.get("function"))
    if function in ("leaky_relu", "elu"):
        demand(layer["alpha"] >= 0, "alpha")
    if kind == "dense":
        demand(layer["lam"] >= 0 and layer["beta"] >= 0, "a penalty")
        demand(layer["init"] not in ("uniform", "normal") or layer["init_value"] > 0, "init_value")
    if kind == "batchnorm":
        demand(layer["eps"] >= 1e-37 and 0 <= layer["decay"] < 1, "eps or decay")
    if kind == "dropout":
        demand(0 <= layer["p"] < 65535.5 / 65536, "p")
    demand(kind != "standardize" or index == 0, "standardize within the net")


def expected_shapes(layers: list[dict[str, Any]], width: int) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """Shapes of the net's tensors, and which of them are trained."""
    shapes: dict[str, tuple[int, ...]] = {}
    trained = set()
    for i, layer in enumerate(layers):
        own: dict[str, tuple[int, ...]] = {}
        learns = {"weight", "bias", "gamma", "beta"} if layer.get("trainable") else set()
        if layer["kind"] == "dense":
            own["weight"] = (width, layer["units"])
            width = layer["units"]
            if layer["use_bias"]:
                own["bias"] = (width,)
        elif layer["kind"] == "batchnorm":
            own = dict.fromkeys(("gamma", "beta", "running_mean", "running_var"), (width,))
        elif layer["kind"] == "standardize":
            own = dict.fromkeys(("mean", "scale"), (width,))
        shapes |= {f"{i}.{role}": shape for role, shape in own.items()}
        trained |= {f"{i}.{role}" for role in own if role in learns}
    return shapes, trained


def take(tensors: dict[str, np.ndarray], name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    demand(name in tensors, f"{name} is missing")
    tensor = tensors.pop(name)
    demand(tensor.shape == shape and tensor.dtype == dtype, f"{name} is {tensor.dtype} of {tensor.shape}")
    demand(np.isfinite(tensor).all(), f"{name} is not finite")
    return tensor


def check_divisors(name: str, values: np.ndarray) -> None:
    demand((np.abs(values) >= np.finfo(values.dtype).tiny).all(), f"{name} is no divisor")


def check_attachments(tensors: dict[str, np.ndarray], checkpoint: bool) -> None:
    names = {dtype: name for name, dtype in DTYPES.items()}
    for name, tensor in tensors.items():
        known = [
            row
            for row in ATTACHMENTS
            if re.fullmatch(row[0], name) and names[tensor.dtype] in row[1] and tensor.ndim in row[2]
        ]
        demand(known, f"{name} is not one of the net")
        demand(checkpoint or not known[0][3], f"{name} in a model")
        if name.startswith("preprocess.") and tensor.dtype == np.float64:
            demand(np.isfinite(tensor).all(), f"{name} is not finite")
        if name == "preprocess.scale":
            check_divisors(name, tensor)
        if not re.fullmatch(rf"({STRINGS})\.(utf8|offsets)", name):
            continue
        stem = name.rpartition(".")[0]
        demand(f"{stem}.offsets" in tensors, f"{name} without offsets")
        offsets = tensors[f"{stem}.offsets"].tolist()
        data = tensors.get(f"{stem}.utf8", np.empty(0, np.uint8)).tobytes()
        demand(offsets[0] == 0 and offsets[-1] == len(data) and offsets == sorted(offsets), f"{name}: offsets")
        for a, b in pairwise(offsets):
            try:
                data[a:b].decode()
            except UnicodeDecodeError:
                raise RefusedError(f"{name}: no UTF-8") from None


def read(file: bytes) -> File:
    demand(len(file) >= 8, "too short")
    length = int.from_bytes(file[:8], "little")
    demand(length <= 2**20 and length <= len(file) - 8, "the length of the header")
    text = file[8 : 8 + length]
    header = parse_header(text)
    metadata = header.pop("__metadata__", {})
    demand(isinstance(metadata, dict) and len(metadata) <= 8192, "metadata")
    demand(all(isinstance(value, str) for value in metadata.values()), "metadata of no strings")
    tensors = parse_tensors(header, file[8 + length :])

    def value(key: str, *, among: list[str] | None = None, most: int | None = None) -> str:
        demand(f"fastnn.{key}" in metadata, f"{key} is missing")
        found = metadata[f"fastnn.{key}"]
        demand(among is None or found in among, f"{key} = {found[:40]!r}")
        if most is not None:
            integer(found, most)
        return found

    demand(int(value("format", most=2**32 - 1)) == 1, "another format")
    check_crcs(metadata, text, tensors)
    kind = value("kind", among=["model", "checkpoint"])
    known = {f"fastnn.{key}" for key in OF_MODELS + (OF_CHECKPOINTS if kind == "checkpoint" else [])}
    for key in metadata:
        demand(not key.startswith(("fastnn.",)) or key in known or key.startswith("fastnn.crc."), f"{key} is not known")
    dtype = DTYPES[value("dtype", among=["F32", "F64"])]
    inputs = int(value("input_size", most=2**31 - 1))
    demand(inputs >= 1, "no inputs")
    value("seed", most=2**64 - 1)
    value("frozen", among=["0", "1"] if kind == "model" else ["0"])
    value("link", among=LINKS)
    if kind == "checkpoint":
        value("optimizer", among=OPTIMIZERS)
        value("passes", most=2**63 - 1)
        value("updates", most=2**63 - 1)
    layers = parse_layers(value("arch"))
    for i, layer in enumerate(layers):
        check_ranges(layer, i)
    shapes, trained = expected_shapes(layers, inputs)
    rest = dict(tensors)
    own = {name: take(rest, name, shape, dtype) for name, shape in shapes.items()}
    for name, tensor in own.items():
        demand(not name.endswith(".running_var") or (tensor >= 0).all(), f"{name} below 0")
        if name == "0.scale" and (tensor.any() or layers[0]["given"]):
            check_divisors(name, tensor)
    moments = {}
    for buffer in ("momentum", "second_moment"):
        prefix = f"optimizer.{buffer}."
        if kind == "checkpoint" and any(name.startswith(prefix) for name in rest):
            part = {prefix + name: take(rest, prefix + name, shapes[name], dtype) for name in sorted(trained)}
            demand(buffer == "momentum" or all((t >= 0).all() for t in part.values()), "a second moment below 0")
            moments |= part
    check_attachments(rest, kind == "checkpoint")
    return File(metadata, layers, own, moments, rest)


# ---- prediction, in float64 ----

_erf = np.vectorize(math.erf, otypes=[float])


def activate(x: np.ndarray, function: str, alpha: float) -> np.ndarray:
    with np.errstate(over="ignore"):
        negative = np.expm1(np.minimum(x, 0))
        match function:
            case "relu":
                return np.maximum(x, 0)
            case "leaky_relu":
                return np.where(x > 0, x, alpha * x)
            case "elu":
                return np.where(x > 0, x, alpha * negative)
            case "selu":
                return 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * negative)
            case "gelu":
                return x * (1 + _erf(x / math.sqrt(2))) / 2
            case "silu":
                return x / (1 + np.exp(-x))
            case "softplus":
                return np.logaddexp(0, x)
            case "tanh":
                return np.tanh(x)
            case "sigmoid":
                return 1 / (1 + np.exp(-x))
            case "softmax":
                e = np.exp(x - x.max(axis=1, keepdims=True))
                return e / e.sum(axis=1, keepdims=True)
    return x


def predict(file: File, x: np.ndarray) -> np.ndarray:
    y = np.asarray(x, np.float64)
    for i, layer in enumerate(file.layers):
        own = {
            name.partition(".")[2]: tensor.astype(np.float64)
            for name, tensor in file.tensors.items()
            if name.startswith(f"{i}.")
        }
        match layer["kind"]:
            case "dense":
                y = activate(y @ own["weight"] + own.get("bias", 0), layer["activation"], layer["alpha"])
            case "batchnorm":
                spread = np.sqrt(own["running_var"] + layer["eps"])
                y = own["gamma"] * (y - own["running_mean"]) / spread + own["beta"]
            case "dropout":
                if layer["test_scaling"]:
                    y = y * (1 - math.floor(65536 * layer["p"] + 0.5) / 65536)
            case "activation":
                y = activate(y, layer["function"], layer["alpha"])
            case "scale":
                y = y * layer["factor"]
            case "standardize":
                y = (y - own["mean"]) / own["scale"]
    return y
