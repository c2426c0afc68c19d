"""Nets from elsewhere: ONNX files, PyTorch modules, scikit-learn estimators.

Each function loads its own module when it is called, so that ``import fastnn`` stays fast.
"""

import os
from typing import Any

from ..network import Sequential

__all__ = ["from_onnx", "from_sklearn", "from_torch"]


def from_onnx(path: "str | os.PathLike[str]") -> Sequential:
    """A net from an ONNX file; needs onnx.

    Its `predict` gives the float output of the graph. A classifier from scikit-learn has labels beside it, which are
    ignored; where its probabilities are the two columns 1 - p and p, the net gives p alone.

    Parameters
    ----------
    path : str or path-like
        Opset 7 or newer; all parameters inside, of float32 or of float64. One input (n, features), or of more
        dimensions if Flatten or Reshape comes first: then the features are in C order.

    Returns
    -------
    Sequential
        Gemm, or MatMul and Add, become Dense; BatchNormalization has ``decay = momentum``; Dropout stays, for further
        training; Sub and Div in front become Standardize, a constant factor Scale; Identity vanishes. The float32
        attributes of ONNX are read as the shortest decimal number: eps 1e-5, not 9.99999974e-6.

    Raises
    ------
    ImportError
        onnx is not installed.
    OSError
        The file cannot be read.
    ValueError
        It is no ONNX file, or the graph is no such chain: names the node, and what is wrong with it.
    """
    from .onnx import read

    return read(path)


def from_torch(module: Any, dtype: Any = None, seed: int = 0) -> Sequential:
    """A net from a ``torch.nn.Sequential``; its `predict` gives what ``module.eval()`` does.

    Parameters
    ----------
    module : torch.nn.Sequential
        Of Linear, BatchNorm1d, Dropout, ReLU, LeakyReLU, ELU, SELU, GELU (approximate="none"), SiLU, Softplus (beta=1,
        threshold >= 20), Tanh, Sigmoid, Softmax (dim 1 or -1), Identity and further Sequentials; in front also Flatten.
        A class derived from these is accepted if it has their forward. It may be on any device and is not changed.
    dtype : {"float32", "float64"}, optional
        Of the net. None: that of all parameters and statistics, which must be the same and one of these two; else any
        of PyTorch's float dtypes is converted.
    seed : int
        Of the net: dropout masks, shuffles.

    Returns
    -------
    Sequential
        One layer per leaf module, independent of `module`. BatchNorm has ``decay = 1 - momentum`` and
        ``unbiased=True``; without affine parameters it gets gamma 1 and beta 0, which further training changes.
        Where ``requires_grad`` is False, the layer has ``trainable=False``; in training, a frozen BatchNorm then uses
        its running statistics here, in PyTorch those of the batch. Softplus is exact above the threshold too, where
        PyTorch's returns its input: 2e-9 apart at most.

    Raises
    ------
    TypeError
        `module` is no Sequential or holds a module of another class: named by its place, "1.3".
    ValueError
        A setting has no equivalent, a module has hooks, or parameters are not finite, of different dtypes or without
        values.
    """
    from .torch import convert

    return convert(module, dtype, seed)


def from_sklearn(mlp: Any) -> Sequential:
    """A net from a fitted ``MLPClassifier`` or ``MLPRegressor``.

    Parameters
    ----------
    mlp : sklearn.neural_network.MLPClassifier or MLPRegressor

    Returns
    -------
    Sequential
        Of Dense layers with the activations inside, in the dtype that `mlp` was trained in. Its `predict` and
        `predict_proba` give, as (n, outputs):

        - classes: ``mlp.predict_proba(x)``, columns in the order of ``mlp.classes_``; of two classes the one column
          of ``mlp.classes_[1]``
        - several labels at once: ``mlp.predict_proba(x)``
        - regression (`predict` alone): ``mlp.predict(x)``; with ``loss="poisson"`` its logarithm, as fastnn's Poisson
          loss takes it

        The penalty ``alpha``, the optimizer and its moments are left behind.

    Raises
    ------
    TypeError
        `mlp` is something else.
    ValueError
        It is not fitted, or its weights are not finite.
    """
    from .sklearn import convert

    return convert(mlp)
