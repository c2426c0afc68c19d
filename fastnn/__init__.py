"""fastnn: fully connected neural networks on CPUs."""

from . import initializers, losses, metrics, plot, schedules
from ._core import version as _version
from .callbacks import Callback, CSVLogger, EarlyStopping, ReduceLROnPlateau
from .checkpoint import Checkpoint
from .clipping import ClipNorm, ClipValue
from .config import get_include, get_num_threads, set_num_threads, show_config
from .convert import from_onnx, from_sklearn, from_torch
from .diagnose import Diagnostics, diagnose
from .errors import DivergenceError, ModelFileError, ModelVersionError
from .history import History
from .layers import (
    ELU,
    GELU,
    SELU,
    BatchNorm,
    Dense,
    Dropout,
    Identity,
    LeakyReLU,
    ReLU,
    Scale,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Standardize,
    Tanh,
)
from .many import fit_many
from .network import Sequential, load
from .optimizers import SGD, Adam, AdamW, RMSprop
from .regularizers import L1, L2, ElasticNet
from .trainer import Trainer

__version__ = _version()

__all__ = [
    "ELU",
    "GELU",
    "L1",
    "L2",
    "SELU",
    "SGD",
    "Adam",
    "AdamW",
    "BatchNorm",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "ClipNorm",
    "ClipValue",
    "Dense",
    "Diagnostics",
    "DivergenceError",
    "Dropout",
    "EarlyStopping",
    "ElasticNet",
    "History",
    "Identity",
    "LeakyReLU",
    "ModelFileError",
    "ModelVersionError",
    "RMSprop",
    "ReLU",
    "ReduceLROnPlateau",
    "Scale",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Standardize",
    "Tanh",
    "Trainer",
    "diagnose",
    "fit_many",
    "from_onnx",
    "from_sklearn",
    "from_torch",
    "get_include",
    "get_num_threads",
    "initializers",
    "load",
    "losses",
    "metrics",
    "plot",
    "schedules",
    "set_num_threads",
    "show_config",
]
