"""Nets from ONNX files.

The graph is walked from its output back to its input. At each step one of `RULES` explains the nodes that end there as
one layer; what no rule explains is refused by name. Side branches, such as the labels of a classifier, are never
visited.
"""

import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import layers
from ..network import Sequential
from .assemble import Part, assemble, declared

OLDEST_OPSET = 7
SUPPORTED = (
    "Supported is a chain of Gemm, MatMul, MatMul + Add, BatchNormalization, Relu, LeakyRelu, Elu, Selu, Gelu, "
    "Softplus, Tanh, Sigmoid, Softmax, x * Sigmoid(x), Dropout and a constant factor; in front also Sub, Div, Scaler, "
    "Cast, Flatten and Reshape."
)
SELU_ALPHA, SELU_GAMMA = layers.SELU.ALPHA, layers.SELU.SCALE

Array = np.ndarray[Any, Any]


def read(path: "str | os.PathLike[str]") -> Sequential:
    """`fastnn.from_onnx`."""
    try:
        import onnx  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ImportError("from_onnx needs onnx, which is not installed: pip install 'fastnn-cpu[onnx]'.") from None
    path = os.fspath(path)
    with open(path, "rb") as file:
        content = file.read()
    try:
        return _Graph(onnx, _read(onnx, content)).net()
    except ValueError as reason:
        raise ValueError(f"{path}: {reason}") from None


def _read(onnx: Any, content: bytes) -> Any:
    """The model, once it is known to be valid and complete."""
    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # protobuf's own, of another class in each of its implementations
        raise ValueError("this is no ONNX file.") from None
    nodes = [attribute.t for node in model.graph.node for attribute in node.attribute if attribute.HasField("t")]
    for tensor in [*model.graph.initializer, *nodes]:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ValueError(
                f"tensor {tensor.name!r} lies in another file. Put all into one: onnx.save(onnx.load(path), new_path), "
                "or torch.onnx.export(..., external_data=False)."
            )
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise ValueError(f"this is no valid ONNX model: {error}") from None
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ValueError(f"the opset must be {OLDEST_OPSET} .. {newest} (of the installed onnx), got {opset}.")
    return model


# ---- the graph ----


class _Graph:
    """Who produces which value, which values are constant, and the way from the output to the input."""

    def __init__(self, onnx: Any, model: Any) -> None:
        self.onnx, self.graph = onnx, model.graph
        self.functions = {f"{function.domain}.{function.name}" for function in model.functions}
        self.producers: dict[str, Any] = {}
        self.constants = {tensor.name: self.array(tensor) for tensor in self.graph.initializer}
        self.aliases: dict[str, str] = {}  # output of Identity -> its input
        for node in self.graph.node:  # these come in topological order
            self.producers |= dict.fromkeys(node.output, node)
            value = self.constant(node)
            if value is not None:
                self.constants[node.output[0]] = value
            elif _operator(node) == "Identity":
                self.aliases[node.output[0]] = self.aliases.get(node.input[0], node.input[0])

    def constant(self, node: Any) -> Array | None:
        """The output of a Constant, and of what exporters wrap around parameters; else None."""
        attributes, operator = self.attributes(node), _operator(node)
        if operator == "Constant":
            ((name, value),) = attributes.items()
            if name == "value":
                return self.array(value)
            return np.array(value, CONSTANT_TYPES[name]) if name in CONSTANT_TYPES else None
        if operator not in ("Identity", "Transpose", "Cast") or node.input[0] not in self.constants:
            return None
        source: Array = self.constants[node.input[0]]
        if operator == "Transpose":
            return source.transpose(attributes.get("perm"))
        if operator == "Cast":
            return source.astype(self.dtype(attributes["to"]))
        return source

    def attributes(self, node: Any) -> dict[str, Any]:
        values = {entry.name: self.onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        return {
            name: value.decode(errors="replace") if isinstance(value, bytes) else value
            for name, value in values.items()
        }

    def array(self, tensor: Any) -> Array:
        try:
            self.dtype(tensor.data_type)
            return np.asarray(self.onnx.numpy_helper.to_array(tensor))
        except ValueError as reason:
            raise ValueError(f"tensor {tensor.name!r}: {reason}") from None

    def dtype(self, element: int) -> "np.dtype[Any]":
        if element not in self.onnx.TensorProto.DataType.values():
            raise ValueError(f"element type {element} is not one of ONNX.")
        found: np.dtype[Any] = self.onnx.helper.tensor_dtype_to_np_dtype(element)
        return found

    def net(self) -> Sequential:
        name, features, element = self.input()
        steps: list[tuple[Part, Match]] = []  # from the output to the input
        value = self.resolve(self.output())
        while value != name:
            steps.append(self.explain(value, is_end=not any(part.layer for part, _ in steps)))
            value = steps[-1][1].x
        if len(features) > 1 and not (steps and steps[-1][1].operator in ("Flatten", "Reshape")):
            raise ValueError(f"input {name!r} has {len(features) + 1} dimensions, so that Flatten must come first.")
        dtypes = dict(pair for step in steps[::-1] for pair in self.dtypes(*step))
        dtype = _common(dtypes or {f"input {name!r}": self.dtype(element)})
        return assemble([part for part, _ in steps[::-1]], math.prod(features) or None, dtype)

    def dtypes(self, part: Part, match: "Match") -> "Iterator[tuple[str, np.dtype[Any]]]":
        """(name, dtype) of the numbers at one step."""
        for role, values in part.parameters.items():
            yield f"{part.place}: {role}", values.dtype
        if match.operator == "Cast":
            yield part.place, self.dtype(match.attributes["to"])

    def resolve(self, value: str) -> str:
        return self.aliases.get(value, value)

    def input(self) -> tuple[str, list[int], int]:
        """(name, sizes of the dimensions after the first, element type) of the one input; size 0 is unknown."""
        inputs = [entry for entry in self.graph.input if entry.name not in self.constants]
        if len(inputs) != 1:
            names = ", ".join(repr(entry.name) for entry in inputs)
            raise ValueError(f"the graph must have one input, got {len(inputs)}: {names}.")
        tensor = inputs[0].type.tensor_type
        features = [dimension.dim_value for dimension in tensor.shape.dim][1:]
        if not features:
            raise ValueError(f"input {inputs[0].name!r} must have the shape (n, features), got one dimension.")
        return inputs[0].name, features, tensor.elem_type

    def output(self) -> str:
        """The one output that is not of integers or strings."""
        kinds = self.onnx.TensorProto
        floats = (kinds.FLOAT, kinds.DOUBLE, kinds.FLOAT16, kinds.BFLOAT16, kinds.UNDEFINED)
        found = [entry.name for entry in self.graph.output if entry.type.tensor_type.elem_type in floats]
        if len(found) != 1:
            names = ", ".join(repr(entry.name) for entry in self.graph.output)
            raise ValueError(f"the graph must have one float output, got {len(found)} among {names}.")
        return str(found[0])

    def explain(self, value: str, is_end: bool) -> "tuple[Part, Match]":
        """The layer whose output `value` is."""
        node = self.producers.get(value)
        if node is None or value in self.constants:
            raise ValueError("the output does not depend on the input.")
        operator, place = _operator(node), _place(node)
        for pattern, make in RULES:
            found = self.match(pattern, value, {})
            if found is None or (make is _positive_class and not is_end):
                continue
            match = Match(operator, place, self.attributes(node), len(node.output), found, found[X])
            return declared(place, partial(make, match)), match
        raise ValueError(f"{place}: {self.reason(node, operator, value)} {SUPPORTED}")

    def match(self, pattern: Any, value: str, found: dict[str, Any]) -> dict[str, Any] | None:
        """`found` and what `pattern` adds to it if `value` is computed like that, else None."""
        value = self.resolve(value)
        constant = self.constants.get(value)
        if pattern == X:
            fits = found[X] == value if X in found else constant is None
            return {**found, X: value} if fits else None
        if isinstance(pattern, str):
            return {**found, pattern: constant} if constant is not None or value == "" else None
        if isinstance(pattern, float):
            return found if constant is not None and _is_number(constant, pattern) else None
        operator, *operands = pattern
        node = self.producers.get(value)
        if node is None or _operator(node) != operator or node.output[0] != value or len(node.input) != len(operands):
            return None
        orders = [list(node.input)] + ([list(node.input)[::-1]] if operator in COMMUTATIVE else [])
        return next((state for inputs in orders if (state := self.match_all(operands, inputs, found))), None)

    def match_all(self, patterns: list[Any], values: list[str], found: dict[str, Any]) -> dict[str, Any] | None:
        state: dict[str, Any] | None = found
        for pattern, value in zip(patterns, values, strict=True):
            if state is not None:
                state = self.match(pattern, value, state)
        return state

    def reason(self, node: Any, operator: str, value: str) -> str:
        """Why no rule explains `node`."""
        if operator in self.functions:
            return "this is a function of the model; write it out first, with onnx.inliner.inline_local_functions."
        if node.output[0] != value:
            return "its first output alone can be used."
        if operator not in {pattern[0] for pattern, _ in RULES}:
            return "this operator is not supported."
        computed = [name for name in node.input if name and self.resolve(name) not in self.constants]
        if len(computed) > 1:
            return f"it joins several computed values ({', '.join(map(repr, computed))}), which no layer does."
        return "with these constants it is no layer."


CONSTANT_TYPES = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


def _operator(node: Any) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _place(node: Any) -> str:
    return f"node {node.name!r} ({_operator(node)})" if node.name else f"the {_operator(node)} of {node.output[0]!r}"


def _is_number(constant: Array, number: float) -> bool:
    """Whether a constant is one number, this one as nearly as float32 can tell."""
    return constant.size == 1 and constant.dtype.kind in "fiu" and math.isclose(constant.item(), number, rel_tol=1e-6)


def _common(dtypes: "dict[str, np.dtype[Any]]") -> "np.dtype[Any]":
    """The one dtype of all places."""
    first = next(iter(dtypes.values()))
    for place, dtype in dtypes.items():
        if dtype not in (np.float32, np.float64):
            raise ValueError(f"{place} has numbers of {dtype}; supported are float32 and float64.")
        if dtype != first:
            raise ValueError(f"{place} has numbers of {dtype}, but {next(iter(dtypes))} of {first}.")
    return first


# ---- patterns and the layers they stand for ----
#
# A pattern is a tuple (operator, operand, ...). An operand is such a pattern, a number (a constant of this value), a
# name (any constant, kept under it; an optional input that is left out is None) or X, the value that the layer gets.
# The operands of Add and Mul may stand in any order.

X = "the layer's input"
COMMUTATIVE = ("Add", "Mul")


class Match(NamedTuple):
    """Nodes that a pattern explains; operator, place, attributes and number of outputs are those of the last."""

    operator: str
    place: str
    attributes: dict[str, Any]
    outputs: int
    constants: dict[str, Any]
    x: str

    def row(self, name: str) -> Array:
        """A constant that has one number, or one per unit along the last axis."""
        value = self.constants[name]
        if value.ndim > 2 or value.size == 0 or value.size not in (1, *value.shape[-1:]):
            raise ValueError(f"a constant must have one number or one per unit, got the shape {value.shape}.")
        return np.asarray(value.reshape(-1))

    def scalar(self, name: str) -> float:
        row = self.row(name)
        if row.size != 1:
            raise ValueError(f"the constant must be one number, got the shape {row.shape}.")
        return _decimals(row)[0]

    def matrix(self, name: str) -> Array:
        value = np.asarray(self.constants[name])
        if value.ndim != 2:
            raise ValueError(f"the weights must be a matrix, got the shape {value.shape}.")
        return value

    def number(self, name: str, default: float) -> float:
        """A float attribute."""
        return _decimals(np.array([self.attributes.get(name, default)], np.float32))[0]

    def demand(self, name: str, default: Any, *allowed: Any) -> None:
        value = self.attributes.get(name, default)
        if value not in allowed:
            raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}.")


def _decimals(values: Array) -> list[float]:
    """The shortest decimal numbers that are `values` in their dtype."""
    return [float(str(value)) for value in values]


def _nothing(match: Match) -> Part:
    return Part(match.place, None)


def _dense(match: Match, weight: Array, bias: Array | None) -> Part:
    inputs, units = weight.shape
    parameters = {"weight": weight}
    if bias is not None:
        if bias.size not in (1, units):
            raise ValueError(f"the bias must have {units} numbers, got {bias.size}.")
        parameters["bias"] = np.broadcast_to(bias, units)
    return Part(match.place, layers.Dense(units, use_bias=bias is not None), inputs, parameters)


def _matmul(match: Match) -> Part:
    return _dense(match, match.matrix("weight"), match.row("bias") if "bias" in match.constants else None)


def _gemm(match: Match) -> Part:
    match.demand("transA", 0, 0)
    weight = match.matrix("weight") * match.number("alpha", 1.0)
    has_bias = match.constants.get("bias") is not None
    bias = match.row("bias") * match.number("beta", 1.0) if has_bias else None
    return _dense(match, weight.T if match.attributes.get("transB") else weight, bias)


def _batchnorm(match: Match) -> Part:
    match.demand("training_mode", 0, 0)
    match.demand("spatial", 1, 1)
    if match.outputs > 1:
        raise ValueError("it must be in inference form, with one output.")
    layer = layers.BatchNorm(match.number("epsilon", 1e-5), match.number("momentum", 0.9))
    parameters = {role: match.row(role) for role in ("gamma", "beta", "running_mean", "running_var")}
    return Part(match.place, layer, parameters["gamma"].size, parameters)


def _dropout(match: Match) -> Part:
    if match.constants.get("training_mode") is not None and match.constants["training_mode"].any():
        raise ValueError("training_mode must be False, got True.")
    given = match.constants.get("ratio") is not None
    return Part(match.place, layers.Dropout(match.scalar("ratio") if given else match.number("ratio", 0.5)))


def _factor(match: Match) -> Part:
    return Part(match.place, layers.Scale(match.scalar("factor")))


def _quotient(match: Match) -> Part:
    scale = match.row("scale")
    if scale.size == 1 and scale.all():
        return Part(match.place, layers.Scale(1 / float(scale[0])))
    return _standardize(match, np.zeros(1), scale)


def _standardize(match: Match, mean: Array, scale: Array) -> Part:
    layer = layers.Standardize(_decimals(mean), _decimals(scale))
    widths = {mean.size, scale.size} - {1}
    return Part(match.place, layer, max(widths, default=None))


def _standardize_by_factor(match: Match, mean: Array, factor: Array) -> Part:
    if not factor.all():
        raise ValueError("a factor must not be 0: it would erase its input.")
    return _standardize(match, mean, 1 / factor.astype(np.float64))


def _scaler(match: Match) -> Part:
    offset, scale = (np.array(match.attributes.get(name, [default])) for name, default in (("offset", 0), ("scale", 1)))
    return _standardize_by_factor(match, offset, scale)


def _flatten(match: Match) -> Part:
    match.demand("axis", 1, 1)
    return _nothing(match)


def _reshape(match: Match) -> Part:
    shape = match.row("shape").tolist()
    if len(shape) != 2 or shape[0] > 0 or shape[1] == 0 or max(shape) < 0:
        raise ValueError(f"the shape must be (n, features) with n as -1 or 0, got {shape}.")
    return Part(match.place, None, shape[1] if shape[1] > 0 else None)


def _positive_class(match: Match) -> Part:
    match.demand("axis", None, 1, -1)
    return Part(match.place, layers.Sigmoid(), 1)


def _selu(match: Match) -> Part:
    alpha, gamma = match.number("alpha", SELU_ALPHA), match.number("gamma", SELU_GAMMA)
    if not (math.isclose(alpha, SELU_ALPHA, rel_tol=1e-5) and math.isclose(gamma, SELU_GAMMA, rel_tol=1e-5)):
        raise ValueError(f"alpha and gamma must be {SELU_ALPHA:.6f} and {SELU_GAMMA:.6f}, got {alpha} and {gamma}.")
    return Part(match.place, layers.SELU())


def _gelu(match: Match) -> Part:
    match.demand("approximate", "none", "none")
    return Part(match.place, layers.GELU())


def _gelu_by_quadrature(match: Match) -> Part:
    """As fastnn writes it in float64: ``erf(u) = u sum_i weights_i exp(exponents_i u**2)``."""
    weights, exponents = match.row("weights"), match.row("exponents")
    for u in (0.5, 3.0):
        if weights.shape != exponents.shape or abs(u * weights @ np.exp(exponents * u**2) - math.erf(u)) > 1e-9:
            raise ValueError("with these constants it is no Gelu.")
    return Part(match.place, layers.GELU())


def _softmax(match: Match) -> Part:
    match.demand("axis", 1, 1, -1)
    return Part(match.place, layers.Softmax())


def _softplus_with_threshold(match: Match) -> Part:
    if match.scalar("threshold") < 20:
        raise ValueError(f"the threshold of a softplus must be at least 20, got {match.scalar('threshold')}.")
    return Part(match.place, layers.Softplus())


def _activation(layer: Callable[[], layers.Layer]) -> Callable[[Match], Part]:
    return lambda match: Part(match.place, layer())


def _product(*factors: Any) -> Iterator[Any]:
    """All ways to multiply three factors."""
    a, b, c = factors
    yield from (("Mul", ("Mul", a, b), c), ("Mul", ("Mul", a, c), b), ("Mul", ("Mul", b, c), a))


_ROOT, _ROOT_HALF = math.sqrt(2), math.sqrt(0.5)
_CLIPPED = ("Max", ("Min", ("Mul", X, _ROOT_HALF), 6.0), -6.0)
_SQUARE = ("Unsqueeze", ("Mul", _CLIPPED, _CLIPPED), "axis")
_QUADRATURE = ("Mul", _CLIPPED, ("MatMul", ("Exp", ("Mul", _SQUARE, "exponents")), "weights"))


def _elu(alpha: Any) -> Any:
    """ELU as fastnn writes it in float64."""
    return "Add", ("Relu", X), ("Mul", ("Sub", ("Exp", ("Min", X, 0.0)), 1.0), alpha)


# The first that fits counts.
RULES: list[tuple[Any, Callable[[Match], Part]]] = [
    (("Gemm", X, "weight"), _gemm),
    (("Gemm", X, "weight", "bias"), _gemm),
    (("MatMul", X, "weight"), _matmul),
    (("Add", ("MatMul", X, "weight"), "bias"), _matmul),
    (("BatchNormalization", X, "gamma", "beta", "running_mean", "running_var"), _batchnorm),
    (("Dropout", X), _dropout),
    (("Dropout", X, "ratio"), _dropout),
    (("Dropout", X, "ratio", "training_mode"), _dropout),
    (("Relu", X), _activation(layers.ReLU)),
    (("LeakyRelu", X), lambda match: Part(match.place, layers.LeakyReLU(match.number("alpha", 0.01)))),
    (("Elu", X), lambda match: Part(match.place, layers.ELU(match.number("alpha", 1)))),
    (("Selu", X), _selu),
    (("Gelu", X), _gelu),
    (("Softplus", X), _activation(layers.Softplus)),
    (("Tanh", X), _activation(layers.Tanh)),
    (("Sigmoid", X), _activation(layers.Sigmoid)),
    (("Softmax", X), _softmax),
    (("Mul", X, ("Sigmoid", X)), _activation(layers.SiLU)),
    # PyTorch: Gelu before opset 20, and Softplus.
    *((pattern, _gelu) for pattern in _product(X, 0.5, ("Add", ("Erf", ("Div", X, _ROOT)), 1.0))),
    *((pattern, _gelu) for pattern in _product(X, 0.5, ("Add", ("Erf", ("Mul", X, _ROOT_HALF)), 1.0))),
    (("Where", ("Greater", X, "threshold"), X, ("Softplus", X)), _softplus_with_threshold),
    # fastnn in float64.
    (
        ("Sub", ("Relu", X), ("Mul", ("Relu", ("Neg", X)), "slope")),
        lambda match: Part(match.place, layers.LeakyReLU(match.scalar("slope"))),
    ),
    (("Mul", _elu(SELU_ALPHA), SELU_GAMMA), _activation(layers.SELU)),
    (_elu("alpha"), lambda match: Part(match.place, layers.ELU(match.scalar("alpha")))),
    (("Add", ("Relu", X), ("Log", ("Add", ("Exp", ("Neg", ("Abs", X))), 1.0))), _activation(layers.Softplus)),
    (("Mul", ("Mul", X, 0.5), ("Add", _QUADRATURE, 1.0)), _gelu_by_quadrature),
    # In front.
    (("Div", ("Sub", X, "mean"), "scale"), lambda match: _standardize(match, match.row("mean"), match.row("scale"))),
    (
        ("Mul", ("Sub", X, "mean"), "factor"),
        lambda match: _standardize_by_factor(match, match.row("mean"), match.row("factor")),
    ),
    (("Sub", X, "mean"), lambda match: _standardize(match, match.row("mean"), np.ones(1))),
    (("Div", X, "scale"), _quotient),
    (("Mul", X, "factor"), _factor),
    (("ai.onnx.ml.Scaler", X), _scaler),
    (("Cast", X), _nothing),
    (("Flatten", X), _flatten),
    (("Reshape", X, "shape"), _reshape),
    # At the end: scikit-learn's probabilities.
    (("Concat", ("Sub", 1.0, ("Sigmoid", X)), ("Sigmoid", X)), _positive_class),
    (("ai.onnx.ml.ZipMap", X), _nothing),
]
