"""From converted layers to a net: widths, numbers and places are checked here for all sources."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..layers import Dense, Identity, Layer, Standardize
from ..network import Sequential

Array = np.ndarray[Any, Any]
T = TypeVar("T")


class Part(NamedTuple):
    """One converted layer.

    Attributes
    ----------
    place : str
        Where it comes from, as errors name it.
    layer : Layer or None
        None: nothing happens to the numbers here.
    inputs : int or None
        The width it needs; None: any.
    parameters : dict of str to ndarray
        By role, as in `Sequential.parameters`; in any float dtype.
    """

    place: str
    layer: Layer | None
    inputs: int | None = None
    parameters: Mapping[str, Array] = MappingProxyType({})


def assemble(parts: Iterable[Part], input_size: int | None, dtype: Any, seed: int = 0) -> Sequential:
    """The net of these parts; `input_size` None: as the first layer with a width of its own needs it."""
    parts = list(parts)
    if input_size is None:
        input_size = next((part.inputs for part in parts if part.inputs is not None), None)
    if input_size is None:
        raise ValueError("the number of inputs is unknown: no layer has weights or statistics.")
    _check_chain(parts, input_size)
    parts = [part for part in parts if part.layer is not None] or [Part("the net", Identity())]
    net = Sequential([part.layer for part in parts if part.layer is not None], input_size, dtype, seed)
    views = net.parameters()
    for index, part in enumerate(parts):
        for role, values in part.parameters.items():
            view = views[f"{index}.{role}"]
            view[...] = _fitting(f"{part.place}: {role}", values, view)
    return net


def declared(place: str, make: Callable[[], T]) -> T:
    """A declaration of a layer; what it refuses is told with its place."""
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise type(error)(f"{place}: {error}") from None


def _check_chain(parts: list[Part], width: int) -> None:
    """Each layer gets the width it needs, and Standardize comes first."""
    seen: Part | None = None
    for part in parts:
        if part.inputs not in (None, width):
            raise ValueError(f"{part.place} takes {part.inputs} inputs, but gets {width}.")
        if isinstance(part.layer, Standardize) and seen is not None:
            raise ValueError(f"{part.place} standardises, which is possible in front alone, but follows {seen.place}.")
        if isinstance(part.layer, Dense):
            width = part.layer.units
        if part.layer is not None:
            seen = part


def _fitting(name: str, values: Array, view: Array) -> Array:
    """`values` in the dtype of the net, of the right shape, finite, and as variances not negative."""
    if values.shape != view.shape:
        raise ValueError(f"{name} has the shape {values.shape}, expected {view.shape}.")
    with np.errstate(over="ignore"):
        fitting = values.astype(view.dtype)
    if not np.isfinite(fitting).all():
        raise ValueError(f"{name} holds NaN, infinity or numbers too large for {view.dtype}.")
    if name.endswith("running_var") and (fitting < 0).any():
        raise ValueError(f"{name} holds negative numbers.")
    return fitting
