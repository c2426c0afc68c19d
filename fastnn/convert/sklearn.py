"""Nets from scikit-learn's multi-layer perceptrons."""

import sys
from typing import Any

import numpy as np

from ..layers import Dense
from ..network import Sequential
from .assemble import Part, assemble

ACTIVATIONS = {
    "identity": None,
    "logistic": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "softmax": "softmax",
    "exp": None,  # the net puts out the logarithm of the rate
}


def convert(mlp: Any) -> Sequential:
    """`fastnn.from_sklearn`."""
    module = sys.modules.get("sklearn.neural_network")  # who has an estimator has imported it
    if module is None or not isinstance(mlp, (module.MLPClassifier, module.MLPRegressor)):
        raise TypeError(
            f"mlp must be a fitted MLPClassifier or MLPRegressor, got {mlp!r} of type {type(mlp).__name__}."
        )
    if not hasattr(mlp, "coefs_"):
        raise ValueError(f"mlp must be fitted, got {mlp!r}: call its fit first.")
    last = len(mlp.coefs_) - 1
    parts = []
    for index, (weight, bias) in enumerate(zip(mlp.coefs_, mlp.intercepts_, strict=True)):
        activation = ACTIVATIONS[mlp.out_activation_ if index == last else mlp.activation]
        layer = Dense(weight.shape[1], activation)
        parameters = {"weight": np.asarray(weight), "bias": np.asarray(bias)}
        parts.append(Part(f"mlp.coefs_[{index}]", layer, weight.shape[0], parameters))
    return assemble(parts, None, mlp.coefs_[0].dtype)
