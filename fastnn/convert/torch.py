"""Nets from PyTorch modules."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import layers
from .._declare import choice
from ..network import Sequential
from .assemble import Part, assemble, declared

Array = np.ndarray[Any, Any]

SUPPORTED = (
    "Sequential of Linear, BatchNorm1d, Dropout, ReLU, LeakyReLU, ELU, SELU, GELU, SiLU, Softplus, Tanh, Sigmoid, "
    "Softmax, Identity, and Flatten in front"
)


def convert(module: Any, dtype: Any, seed: int) -> Sequential:
    """`fastnn.from_torch`."""
    torch = sys.modules.get("torch")  # who has a module has imported it
    if torch is None or not _computes(module, torch.nn.Sequential):
        kind = type(module).__name__
        derived = " with another forward" if torch is not None and isinstance(module, torch.nn.Sequential) else ""
        raise TypeError(f"module must be a torch.nn.Sequential, got an object of type {kind}{derived}.")
    _refuse_hooks("module", module)
    leaves = list(_leaves(torch, module, ""))
    if not leaves:
        raise ValueError("module must hold at least one layer, got an empty Sequential.")
    parts = [_part(torch, name, leaf, first=index == 0) for index, (name, leaf) in enumerate(leaves)]
    return assemble(parts, None, _dtype(leaves, dtype), seed)


def _leaves(torch: Any, module: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(place, module) in order; a module that stands in two places comes twice."""
    for child_name, child in module._modules.items():
        place = f"{name}.{child_name}".lstrip(".")
        if _computes(child, torch.nn.Sequential):
            _refuse_hooks(_place(place, child), child)
            yield from _leaves(torch, child, place)
        else:
            yield place, child


def _computes(module: Any, base: Any) -> bool:
    """Whether `module` is a `base` whose forward is `base`'s own."""
    return isinstance(module, base) and type(module).forward is base.forward and "forward" not in vars(module)


def _refuse_hooks(place: str, module: Any) -> None:
    if module._forward_hooks or module._forward_pre_hooks:
        raise ValueError(f"{place} has forward hooks: remove them first.")


def _part(torch: Any, name: str, module: Any, first: bool) -> Part:
    place = _place(name, module)
    make = next((make for kind, make in MODULES.items() if _computes(module, getattr(torch.nn, kind))), None)
    if make is None or (make is _flatten and not first):
        raise TypeError(f"{place} is not supported here; supported is a {SUPPORTED}.")
    if any(torch.nn.parameter.is_lazy(tensor) or tensor.is_meta for tensor in _tensors(module)):
        raise ValueError(f"{place} has parameters without values: it has never run, or is on the meta device.")
    _refuse_hooks(place, module)
    layer, inputs, tensors = declared(place, lambda: make(module))
    # float64 holds every number of the other float dtypes.
    values = {role: tensor.detach().to("cpu", torch.float64).numpy() for role, tensor in tensors.items()}
    return Part(place, layer, inputs, values)


def _place(name: str, module: Any) -> str:
    return f"module {name} ({type(module).__name__})"


def _tensors(module: Any) -> list[Any]:
    """Parameters and statistics; the count of batches is an integer and none of them."""
    return [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.dtype.is_floating_point]


def _dtype(leaves: list[tuple[str, Any]], dtype: Any) -> Any:
    if dtype is not None:
        return dtype
    names = sorted({str(tensor.dtype).removeprefix("torch.") for _, leaf in leaves for tensor in _tensors(leaf)})
    if any(name not in ("float32", "float64") for name in names) or len(names) > 1:
        raise ValueError(
            f"module must be of float32 or of float64 throughout, got {', '.join(names)}: say dtype='float32' or "
            "dtype='float64' to convert."
        )
    return names[0] if names else "float32"


# ---- modules: (layer, width it needs, tensors by role) ----

Converted = tuple[layers.Layer, int | None, dict[str, Any]]


def _trainable(*tensors: Any) -> bool:
    """The requires_grad that all of them share."""
    flags = {tensor.requires_grad for tensor in tensors if tensor is not None}
    if len(flags) > 1:
        raise ValueError("requires_grad must be the same for all parameters of a module, got both True and False.")
    return flags != {False}


def _linear(module: Any) -> Converted:
    if module.weight.dtype.is_complex:
        raise ValueError(f"weight must hold real numbers, got {module.weight.dtype}.")
    outputs, inputs = module.weight.shape
    layer = layers.Dense(outputs, use_bias=module.bias is not None, trainable=_trainable(module.weight, module.bias))
    tensors = {"weight": module.weight.T}
    if module.bias is not None:
        tensors["bias"] = module.bias
    return layer, inputs, tensors


def _batchnorm(module: Any) -> Converted:
    if module.running_mean is None:
        raise ValueError("track_running_stats must be True, got False: there are no statistics to predict with.")
    if module.momentum is None:
        raise ValueError("momentum must be a number, got None: a cumulative average has no equivalent.")
    layer = layers.BatchNorm(
        module.eps, 1 - module.momentum, unbiased=True, trainable=_trainable(module.weight, module.bias)
    )
    tensors = {"running_mean": module.running_mean, "running_var": module.running_var}
    if module.affine:
        tensors |= {"gamma": module.weight, "beta": module.bias}
    return layer, module.num_features, tensors


def _gelu(module: Any) -> Converted:
    choice("approximate", module.approximate, ("none",))
    return _activation(layers.GELU())


def _softplus(module: Any) -> Converted:
    if module.beta != 1 or module.threshold < 20:
        raise ValueError(f"needs beta = 1 and threshold >= 20, got {module.beta} and {module.threshold}.")
    return _activation(layers.Softplus())


def _softmax(module: Any) -> Converted:
    if module.dim not in (1, -1):
        raise ValueError(f"dim must be 1 or -1, got {module.dim}.")
    return _activation(layers.Softmax())


def _flatten(module: Any) -> Converted:
    if module.start_dim != 1 or module.end_dim != -1:
        raise ValueError(f"needs start_dim = 1 and end_dim = -1, got {module.start_dim} and {module.end_dim}.")
    return _activation(layers.Identity())


def _activation(layer: layers.Layer) -> Converted:
    return layer, None, {}


MODULES: dict[str, Callable[[Any], Converted]] = {
    "Linear": _linear,
    "BatchNorm1d": _batchnorm,
    "Dropout": lambda module: _activation(layers.Dropout(module.p)),
    "ReLU": lambda module: _activation(layers.ReLU()),
    "LeakyReLU": lambda module: _activation(layers.LeakyReLU(module.negative_slope)),
    "ELU": lambda module: _activation(layers.ELU(module.alpha)),
    "SELU": lambda module: _activation(layers.SELU()),
    "GELU": _gelu,
    "SiLU": lambda module: _activation(layers.SiLU()),
    "Softplus": _softplus,
    "Tanh": lambda module: _activation(layers.Tanh()),
    "Sigmoid": lambda module: _activation(layers.Sigmoid()),
    "Softmax": _softmax,
    "Identity": lambda module: _activation(layers.Identity()),
    "Flatten": _flatten,
}
