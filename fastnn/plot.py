"""Pictures of a net; they need matplotlib: ``pip install 'fastnn-cpu[plot]'``.

Each function returns a matplotlib Figure, and saves it too where `path` is given. Curves over epochs are at
`History.plot` and `Diagnostics.plot`.
"""

import os
from typing import Any

from . import _draw, data
from ._declare import instance, integer
from .diagnose import RATIO, diagnose, title
from .layers import Dense, Dropout, Identity
from .network import Sequential

__all__ = ["activations", "gradients", "weights"]


def activations(net: Sequential, x: Any, max_rows: int = 1024, path: "str | os.PathLike[str] | None" = None) -> Any:
    """The density of every layer's output in evaluation mode, one small panel per layer with mean, standard deviation
    and share of zeros. Layers that do nothing at prediction (Identity, inverted Dropout) are left out; a leading
    `Standardize` without statistics takes those of `x`.

    Parameters
    ----------
    net : Sequential
    x : array_like, shape (n, input_size)
    max_rows : int
        Of more rows than this, so many are used, evenly spread.
    path : str or path-like, optional

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError, TypeError
        Naming the argument.
    """
    instance("net", net, Sequential, "a fastnn.Sequential")
    features = data.features(x, net._engine)
    rows = features[data.spread(len(features), integer("max_rows", max_rows, 1))]
    net = net.copy()
    net._fit_standardize(features, None)
    shown = [place for place, layer in enumerate(net.layers) if not _passes_through(layer)] or [len(net.layers) - 1]
    outputs = (net._engine.predict(rows, n_layers=place + 1) for place in shown)
    titles = (f"{place}  {title(net.layers[place])}" for place in shown)
    return _draw.finish(_draw.densities(zip(titles, outputs, strict=True), "output"), path)


def _passes_through(layer: Any) -> bool:
    return isinstance(layer, Identity) or (isinstance(layer, Dropout) and layer.scaling == "inverted")


def weights(net: Sequential, path: "str | os.PathLike[str] | None" = None) -> Any:
    """The density of the weights of every Dense layer, biases apart.

    Parameters
    ----------
    net : Sequential
    path : str or path-like, optional

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError
        The net has no Dense layer.
    """
    instance("net", net, Sequential, "a fastnn.Sequential")
    _require_dense(net)
    views = net.parameters()
    shown = [place for place, layer in enumerate(net.layers) if isinstance(layer, Dense)]
    groups = [(f"{place}  {title(net.layers[place])}", views[f"{place}.weight"]) for place in shown]
    return _draw.finish(_draw.densities(groups, "weight"), path)


def gradients(
    net: Sequential,
    x: Any,
    y: Any,
    loss: Any = "cross_entropy",
    max_rows: int = 1024,
    path: "str | os.PathLike[str] | None" = None,
) -> Any:
    """The gradient norm of every Dense layer's weights, as `diagnose` measures it, on a logarithmic axis.

    Parameters
    ----------
    net : Sequential
    x, y, loss, max_rows
        As for `diagnose`.
    path : str or path-like, optional

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError, TypeError
        As `diagnose`; or the net has no Dense layer that is trained.
    """
    instance("net", net, Sequential, "a fastnn.Sequential")
    _require_dense(net)
    records = diagnose(net, x, y, loss, max_rows).layers
    layers = [(f"{r.place}  {title(r.layer)}", r.gradient_norm) for r in records if r.gradient_norm is not None]
    if not layers:
        raise ValueError("gradients needs a Dense layer that is trained: all of this net are frozen.")
    return _draw.finish(_draw.norms(layers, RATIO), path)


def _require_dense(net: Sequential) -> None:
    if not any(isinstance(layer, Dense) for layer in net.layers):
        raise ValueError(f"net has no Dense layer whose weights could be shown: {list(net.layers)!r}.")
