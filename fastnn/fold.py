"""Folding: BatchNorm, Dropout's test factor and inner Scale layers become part of the Dense layers, in float64.

Each of them is an affine map per unit, ``y = s x + t``. Behind a Dense layer without activation it is taken into that
one, ``W' = W s, b' = s b + t``; else it waits for the next Dense layer, ``W' = diag(s) W, b' = b + t W``. For BatchNorm
``s = gamma / sqrt(var + eps)``, ``t = beta - s mean``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .layers import Activation, BatchNorm, Dense, Dropout, Identity, Layer, Scale, Standardize

Array = np.ndarray[Any, Any]


class Node:
    """A layer, its place in the list before folding, and its parameters by role."""

    def __init__(self, layer: Layer, place: int, parameters: dict[str, Array] | None = None) -> None:
        self.layer, self.place, self.parameters = layer, place, parameters or {}


def fold(layers: Sequence[Layer], parameters: Mapping[str, Array]) -> tuple[list[Node], list[Node]]:
    """The folded net, and the BatchNorm layers that had to stay because no Dense layer stands on either side."""
    folded: list[Node] = []
    waiting: list[Node] = []  # affine maps on their way to the next Dense layer
    for node in _split(layers, parameters):
        if isinstance(node.layer, Dense):
            for affine in reversed(waiting):
                _into_next(node, *_affine(affine))
            waiting = []
            folded.append(node)
        elif isinstance(node.layer, Activation):
            folded += _kept(waiting)
            waiting = []
            folded.append(node)
        elif isinstance(node.layer, (Scale, Standardize)) and not waiting and _only_features(folded):
            folded.append(node)
        elif folded and isinstance(folded[-1].layer, Dense):
            folded[-1] = _into_previous(folded[-1], *_affine(node))
        else:
            waiting.append(node)
    folded += _kept(waiting)
    if not folded:
        folded.append(Node(Identity(), 0))
    return _join(folded), [node for node in folded if isinstance(node.layer, BatchNorm)]


def _split(layers: Sequence[Layer], parameters: Mapping[str, Array]) -> list[Node]:
    """The layers without Identity and inverted Dropout, and each Dense layer's own activation as a layer after it."""
    nodes = []
    for place, layer in enumerate(layers):
        if isinstance(layer, Identity) or (isinstance(layer, Dropout) and layer.scaling == "inverted"):
            continue
        prefix = f"{place}."
        own = {
            name.removeprefix(prefix): np.array(value, dtype=np.float64)
            for name, value in parameters.items()
            if name.startswith(prefix)
        }
        if isinstance(layer, Dense):
            nodes.append(Node(layer._replace(activation=None), place, own))
            if not isinstance(layer.own_activation, Identity):
                nodes.append(Node(layer.own_activation, place))
        else:
            nodes.append(Node(layer, place, own))
    return nodes


def _join(nodes: Sequence[Node]) -> list[Node]:
    """An activation right after a Dense layer becomes that layer's own."""
    joined: list[Node] = []
    for node in nodes:
        last = joined[-1].layer if joined else None
        if isinstance(node.layer, Activation) and isinstance(last, Dense) and last.activation is None:
            joined[-1].layer = last._replace(activation=node.layer)
        else:
            joined.append(node)
    return joined


def _only_features(nodes: Sequence[Node]) -> bool:
    """Whether nothing but the conversion of features has come so far."""
    return all(isinstance(node.layer, (Scale, Standardize)) for node in nodes)


def _affine(node: Node) -> tuple[Array | float, Array | float]:
    """(s, t) of ``y = s x + t``."""
    layer, own = node.layer, node.parameters
    if isinstance(layer, BatchNorm):
        s = own["gamma"] / np.sqrt(own["running_var"] + layer.eps)
        return s, own["beta"] - s * own["running_mean"]
    if isinstance(layer, Dropout):
        return layer.keep, 0.0
    assert isinstance(layer, Scale)
    return layer.factor, 0.0


def _into_previous(node: Node, s: Array | float, t: Array | float) -> Node:
    weight, bias = node.parameters["weight"], node.parameters.get("bias", 0.0)
    assert isinstance(node.layer, Dense)
    folded_bias = np.broadcast_to(s * bias + t, weight.shape[1])
    return Node(node.layer._replace(use_bias=True), node.place, {"weight": weight * s, "bias": folded_bias})


def _into_next(node: Node, s: Array | float, t: Array | float) -> None:
    weight = node.parameters["weight"]
    if np.any(t):
        assert isinstance(node.layer, Dense)
        node.layer = node.layer._replace(use_bias=True)
        node.parameters["bias"] = node.parameters.get("bias", 0.0) + np.broadcast_to(t, len(weight)) @ weight
    node.parameters["weight"] = np.broadcast_to(s, len(weight))[:, np.newaxis] * weight


def _kept(waiting: Sequence[Node]) -> list[Node]:
    """What finds no Dense layer stays; Dropout stays as the factor that it is at prediction."""
    return [Node(Scale(node.layer.keep), node.place) if isinstance(node.layer, Dropout) else node for node in waiting]
