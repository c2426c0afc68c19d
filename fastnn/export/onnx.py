"""Nets as ONNX models."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import fastnn as fn

from .common import checked_parameters, replace_file

__all__ = ["to_onnx"]

OPSET = 20  # the first with Gelu
IR_VERSION = 9  # came with opset 20: what can run the one can read the other
LARGEST_FILE = 2**31 - 2**20  # protobuf's limit, less what is not parameters

SELU_ALPHA, SELU_GAMMA = fn.SELU.ALPHA, fn.SELU.SCALE

Array = np.ndarray[Any, Any]


def to_onnx(net: fn.Sequential, path: str | os.PathLike[str]) -> Path:
    """Write a net as an ONNX model that computes `net.predict`; needs onnx.

    The graph is the net as it is: BatchNorm as BatchNormalization with its running statistics, Dropout left out
    (scaling="test" as its factor). Pass ``net.fold()`` for a graph without both. Nothing is added: a net that puts out
    logits does so in ONNX too.

    Parameters
    ----------
    net : Sequential
    path : str or path-like
        Written beside and renamed, so that an error leaves no half file and no other one damaged.

    Returns
    -------
    pathlib.Path
        The file written.

    Notes
    -----
    Opset 20. The input "x" is (batch, input_size), the output "y" (batch, output_size), both of the net's dtype:
    convert integer features before. Initializers are named as in `net.parameters()`. ONNX Runtime has no float64
    kernels of LeakyRelu, Elu, Selu, Softplus and Gelu; float64 nets get these from operators that it has. The
    attributes of ONNX are float32 numbers: in a float64 net, eps of BatchNorm is rounded to one.

    Raises
    ------
    ImportError
        onnx is not installed.
    TypeError
        `net` is no Sequential.
    ValueError
        A Standardize layer has no statistics yet, a parameter is not finite, or all exceed the 2 GB of an ONNX file.
    OSError
        The file cannot be written.
    """
    try:
        import onnx  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ImportError("to_onnx needs onnx, which is not installed: pip install 'fastnn-cpu[onnx]'.") from None
    parameters = checked_parameters(net)
    _check_size(parameters)
    graph = _Graph(parameters, net.dtype)
    graph.chain(net.layers)
    model = graph.model(onnx, net)
    onnx.checker.check_model(model, full_check=True)
    file = Path(path)
    replace_file(file, model.SerializeToString())
    return file


def _check_size(parameters: dict[str, Array]) -> None:
    size = sum(value.nbytes for value in parameters.values())
    if size > LARGEST_FILE:
        raise ValueError(f"the parameters have {size:,} bytes; an ONNX file holds at most {LARGEST_FILE:,}.")


class _Graph:
    """The nodes and constants of a growing model; values are named after the layer's place and the operator."""

    def __init__(self, parameters: dict[str, Array], dtype: "np.dtype[Any]") -> None:
        self.parameters, self.dtype = parameters, dtype
        self.nodes: list[dict[str, Any]] = []
        self.constants: dict[str, Array] = {}
        self.uses: Counter[str] = Counter()  # of names of nodes
        self.place = 0

    def chain(self, layers: Iterable[fn.layers.Layer]) -> None:
        """All layers, from "x" to "y"."""
        value = "x"
        for self.place, layer in enumerate(layers):
            value = LAYERS[type(layer)](self, value, layer) if type(layer) in LAYERS else self.activate(value, layer)
        if not self.nodes:
            self.node("Identity", value)
        self.nodes[-1]["outputs"] = ["y"]

    def activate(self, x: str, layer: Any) -> str:
        missing_kernels = DOUBLE if self.dtype == np.float64 else {}
        return (missing_kernels.get(type(layer)) or ACTIVATIONS[type(layer)])(self, x, layer)

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; its one output is its name."""
        name = f"{self.place}.{operator}"
        self.uses[name] += 1
        if self.uses[name] > 1:
            name = f"{name}_{self.uses[name]}"
        self.nodes.append({"op_type": operator, "inputs": inputs, "outputs": [name], "name": name, **attributes})
        return name

    def constant(self, role: str, value: Any, dtype: Any = None) -> str:
        name = f"{self.place}.{role}"
        self.constants[name] = np.asarray(value, dtype or self.dtype)
        return name

    def parameter(self, role: str) -> str:
        return self.constant(role, np.ascontiguousarray(self.parameters[f"{self.place}.{role}"]))

    def model(self, onnx: Any, net: fn.Sequential) -> Any:
        helper = onnx.helper
        element = helper.np_dtype_to_tensor_dtype(self.dtype)
        graph = helper.make_graph(
            [helper.make_node(**node) for node in self.nodes],
            "net",
            [helper.make_tensor_value_info("x", element, ["batch", net.input_size])],
            [helper.make_tensor_value_info("y", element, ["batch", net.output_size])],
            [onnx.numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="fastnn",
            producer_version=fn.__version__,
        )


# ---- layers ----


def _dense(graph: _Graph, x: str, layer: fn.Dense) -> str:
    weight = graph.parameter("weight")
    if layer.use_bias:
        y = graph.node("Gemm", x, weight, graph.parameter("bias"))
    else:
        y = graph.node("MatMul", x, weight)
    return graph.activate(y, layer.own_activation)


def _batchnorm(graph: _Graph, x: str, layer: fn.BatchNorm) -> str:
    tensors = [graph.parameter(role) for role in ("gamma", "beta", "running_mean", "running_var")]
    return graph.node("BatchNormalization", x, *tensors, epsilon=layer.eps, momentum=layer.decay)


def _dropout(graph: _Graph, x: str, layer: fn.Dropout) -> str:
    return graph.node("Mul", x, graph.constant("keep", layer.keep)) if layer.scaling == "test" else x


def _scale(graph: _Graph, x: str, layer: fn.Scale) -> str:
    return graph.node("Mul", x, graph.constant("factor", layer.factor))


def _standardize(graph: _Graph, x: str, layer: fn.Standardize) -> str:
    return graph.node("Div", graph.node("Sub", x, graph.parameter("mean")), graph.parameter("scale"))


LAYERS: dict[type, Callable[[_Graph, str, Any], str]] = {
    fn.Dense: _dense,
    fn.BatchNorm: _batchnorm,
    fn.Dropout: _dropout,
    fn.Scale: _scale,
    fn.Standardize: _standardize,
}


# ---- activations ----


def _silu(graph: _Graph, x: str, layer: Any) -> str:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


ACTIVATIONS: dict[type, Callable[[_Graph, str, Any], str]] = {
    fn.Identity: lambda graph, x, layer: x,
    fn.ReLU: lambda graph, x, layer: graph.node("Relu", x),
    fn.LeakyReLU: lambda graph, x, layer: graph.node("LeakyRelu", x, alpha=layer.slope),
    fn.ELU: lambda graph, x, layer: graph.node("Elu", x, alpha=layer.alpha),
    fn.SELU: lambda graph, x, layer: graph.node("Selu", x, alpha=SELU_ALPHA, gamma=SELU_GAMMA),
    fn.GELU: lambda graph, x, layer: graph.node("Gelu", x),
    fn.SiLU: _silu,
    fn.Softplus: lambda graph, x, layer: graph.node("Softplus", x),
    fn.Tanh: lambda graph, x, layer: graph.node("Tanh", x),
    fn.Sigmoid: lambda graph, x, layer: graph.node("Sigmoid", x),
    fn.Softmax: lambda graph, x, layer: graph.node("Softmax", x, axis=-1),
}


# ---- in float64, what ONNX Runtime has no kernel for ----


def _leaky_relu_double(graph: _Graph, x: str, layer: fn.LeakyReLU) -> str:
    """``relu(x) - slope relu(-x)``."""
    below = graph.node("Relu", graph.node("Neg", x))
    return graph.node("Sub", graph.node("Relu", x), graph.node("Mul", below, graph.constant("slope", layer.slope)))


def _elu_of(graph: _Graph, x: str, alpha: float) -> str:
    """``relu(x) + alpha (exp(min(x, 0)) - 1)``."""
    power = graph.node("Exp", graph.node("Min", x, graph.constant("zero", 0)))
    below = graph.node("Sub", power, graph.constant("one", 1))
    return graph.node("Add", graph.node("Relu", x), graph.node("Mul", below, graph.constant("alpha", alpha)))


def _selu_double(graph: _Graph, x: str, layer: fn.SELU) -> str:
    return graph.node("Mul", _elu_of(graph, x, SELU_ALPHA), graph.constant("gamma", SELU_GAMMA))


def _softplus_double(graph: _Graph, x: str, layer: fn.Softplus) -> str:
    """``relu(x) + log(exp(-|x|) + 1)``, which never overflows."""
    power = graph.node("Exp", graph.node("Neg", graph.node("Abs", x)))
    return graph.node(
        "Add", graph.node("Relu", x), graph.node("Log", graph.node("Add", power, graph.constant("one", 1)))
    )


def _gelu_double(graph: _Graph, x: str, layer: fn.GELU) -> str:
    """Gelu with ``erf(u) = u sum_i w_i exp(-(u t_i)**2)``.

    That is ``erf(u) = 2/sqrt(pi) u integral_0^1 exp(-(u t)**2) dt`` by Gauss-Legendre quadrature with 32 points, whose
    error is below 3e-15 for ``|u| <= 6``; beyond, erf is 1 in float64.
    """
    points, weights = np.polynomial.legendre.leggauss(32)
    exponents = -((points + 1) ** 2) / 4
    low, high = graph.constant("low", -6), graph.constant("high", 6)
    u = graph.node("Mul", x, graph.constant("sqrt_half", math.sqrt(0.5)))
    u = graph.node("Max", graph.node("Min", u, high), low)
    square = graph.node("Unsqueeze", graph.node("Mul", u, u), graph.constant("axis", [-1], np.int64))
    powers = graph.node("Exp", graph.node("Mul", square, graph.constant("exponents", exponents)))
    total = graph.node("MatMul", powers, graph.constant("weights", weights / math.sqrt(math.pi)))
    erf = graph.node("Mul", u, total)
    half = graph.node("Mul", x, graph.constant("half", 0.5))
    return graph.node("Mul", half, graph.node("Add", erf, graph.constant("one", 1)))


DOUBLE: dict[type, Callable[[_Graph, str, Any], str]] = {
    fn.LeakyReLU: _leaky_relu_double,
    fn.ELU: lambda graph, x, layer: _elu_of(graph, x, layer.alpha),
    fn.SELU: _selu_double,
    fn.Softplus: _softplus_double,
    fn.GELU: _gelu_double,
}
