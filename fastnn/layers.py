"""The layers of a net, as declarations: they hold no parameters, so one object may stand in many nets and places."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import initializers, regularizers
from ._declare import LARGEST_SIZE, SMALLEST_EPS, Declaration, boolean, choice, instance, integer, named, number
from .initializers import Initializer
from .regularizers import Regularizer

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "Activation",
    "BatchNorm",
    "Dense",
    "Dropout",
    "Identity",
    "Layer",
    "LeakyReLU",
    "ReLU",
    "Scale",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Standardize",
    "Tanh",
]


class Layer(Declaration):
    """Base of the layers."""

    kind = ""

    def record(self) -> dict[str, Any]:
        """The fields of the core's layer record."""
        raise NotImplementedError


class Activation(Layer):
    """Base of the activations, which also stand inside a Dense layer as ``Dense(units, activation=...)``.

    Attributes
    ----------
    name : str
        As in ``Dense(units, activation=name)``.
    relu_like : bool
        Whether He's initialisation suits the layer before it.
    """

    kind = "activation"
    name = ""
    relu_like = False

    @property
    def alpha(self) -> float:
        """The one parameter, 0 where there is none."""
        return 0.0

    def record(self) -> dict[str, Any]:
        return {"kind": self.kind, "activation": self.name, "alpha": self.alpha}


class Identity(Activation):
    """``y = x``."""

    name = "identity"


class ReLU(Activation):
    """``y = max(x, 0)``."""

    name = "relu"
    relu_like = True


class LeakyReLU(Activation):
    """``y = x`` for x > 0, else ``slope * x``.

    Parameters
    ----------
    slope : float
        >= 0.
    """

    name = "leaky_relu"
    relu_like = True
    slope: float = 0.01

    def __post_init__(self) -> None:
        self._set(slope=number("slope", self.slope, 0))

    @property
    def alpha(self) -> float:
        return self.slope


class ELU(Activation):
    """``y = x`` for x > 0, else ``alpha * (exp(x) - 1)`` (Clevert et al. 2016).

    Parameters
    ----------
    alpha : float
        > 0.
    """

    name = "elu"
    relu_like = True
    alpha: float = 1.0

    def __post_init__(self) -> None:
        self._set(alpha=number("alpha", self.alpha, 0, open_low=True))


class SELU(Activation):
    """``y = SCALE * ELU(ALPHA)(x)``, whose fixed point is mean 0 and variance 1 (Klambauer et al. 2017).

    Attributes
    ----------
    SCALE, ALPHA : float
        1.0507009873554805 and 1.6732632423543772.
    """

    SCALE = 1.0507009873554805
    ALPHA = 1.6732632423543772
    name = "selu"
    relu_like = True


class GELU(Activation):
    """``y = x (1 + erf(x / sqrt 2)) / 2``, the exact form (arXiv:1606.08415)."""

    name = "gelu"
    relu_like = True


class SiLU(Activation):
    """``y = x / (1 + exp(-x))``, also called swish."""

    name = "silu"
    relu_like = True


class Softplus(Activation):
    """``y = log(1 + exp(x))``."""

    name = "softplus"
    relu_like = True


class Tanh(Activation):
    """``y = tanh(x)``."""

    name = "tanh"


class Sigmoid(Activation):
    """``y = 1 / (1 + exp(-x))``; as the last layer it is fused with binary cross-entropy."""

    name = "sigmoid"


class Softmax(Activation):
    """``y_j = exp(x_j) / sum_k exp(x_k)`` over the units of a row; as the last layer it is fused with cross-entropy."""

    name = "softmax"


ACTIVATIONS: dict[str, Callable[[], Activation]] = {
    layer.name: layer for layer in (Identity, ReLU, LeakyReLU, ELU, SELU, GELU, SiLU, Softplus, Tanh, Sigmoid, Softmax)
}


class Dense(Layer):
    """``y = activation(x W + b)`` with W of shape (fan_in, units) and b of shape (units,).

    Parameters
    ----------
    units : int
        Width of the output, >= 1.
    activation : str, Activation or None
        Applied to the output; the same as the activation layer placed after.
    use_bias : bool
    init : str, Initializer or None
        How W starts. None: "he_normal" if a ReLU-like activation follows (its own, or the next layer's past BatchNorm
        and Dropout), else "xavier_uniform". The bias starts at zero.
    regularizer : Regularizer or None
        Penalty on W. None: the Trainer's.
    trainable : bool
        False freezes W and b.
    """

    kind = "dense"
    units: int
    activation: str | Activation | None = None
    use_bias: bool = True
    init: str | Initializer | None = None
    regularizer: Regularizer | None = None
    trainable: bool = True

    def __post_init__(self) -> None:
        self._set(
            units=integer("units", self.units, 1, LARGEST_SIZE),
            use_bias=boolean("use_bias", self.use_bias),
            trainable=boolean("trainable", self.trainable),
        )
        if self.activation is not None:
            example = "an activation such as fastnn.ReLU()"
            self._set(activation=named("activation", self.activation, Activation, ACTIVATIONS, example))
        if self.init is not None:
            self._set(init=initializers.resolve(self.init))
        if self.regularizer is not None:
            instance("regularizer", self.regularizer, Regularizer, "a penalty such as fastnn.L2(1e-4) or None")

    @property
    def own_activation(self) -> Activation:
        """The activation as a layer, Identity if there is none."""
        return self.activation if isinstance(self.activation, Activation) else Identity()

    @property
    def own_init(self) -> Initializer | None:
        return self.init if isinstance(self.init, Initializer) else None

    def record(self) -> dict[str, Any]:
        activation = self.own_activation
        record: dict[str, Any] = {
            "kind": self.kind,
            "units": self.units,
            "use_bias": self.use_bias,
            "activation": activation.name,
            "alpha": activation.alpha,
            "trainable": self.trainable,
        }
        if self.own_init is not None:
            record |= {"init": self.own_init.name, "init_value": self.own_init.value}
        if self.regularizer is not None:
            record["penalty"] = self.regularizer.record()
        return record


class BatchNorm(Layer):
    """``y = gamma (x - mean) / sqrt(var + eps) + beta`` per unit (arXiv:1502.03167).

    Training uses the mean and the biased variance of the batch, prediction the running ones,
    ``running <- decay * running + (1 - decay) * batch``. `Sequential.recalibrate` replaces these by those of a data
    set.

    Parameters
    ----------
    eps : float
        > 0.
    decay : float
        In [0, 1); what PyTorch calls 1 - momentum and Keras momentum.
    unbiased : bool
        Run the unbiased variance, as PyTorch does; it normalises by the biased one all the same.
    trainable : bool
        False freezes gamma and beta, and the layer then uses and keeps its running statistics in training too.
    """

    kind = "batchnorm"
    eps: float = 1e-5
    decay: float = 0.9
    unbiased: bool = False
    trainable: bool = True

    def __post_init__(self) -> None:
        self._set(
            eps=number("eps", self.eps, SMALLEST_EPS),
            decay=number("decay", self.decay, 0, 1, open_high=True),
            unbiased=boolean("unbiased", self.unbiased),
            trainable=boolean("trainable", self.trainable),
        )

    def record(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "eps": self.eps,
            "decay": self.decay,
            "unbiased": self.unbiased,
            "trainable": self.trainable,
        }


class Dropout(Layer):
    """Sets each unit to zero with probability `p`, anew in every training-mode forward pass (Srivastava et al. 2014).

    Parameters
    ----------
    p : float
        Probability of dropping, in [0, 1); used as the nearest multiple of 1/65536, which must be below 1.
    scaling : {"inverted", "test"}
        "inverted" multiplies the kept units by 1/(1-p) in training; "test" multiplies all by 1-p at prediction.
    """

    kind = "dropout"
    p: float
    scaling: str = "inverted"

    def __post_init__(self) -> None:
        self._set(
            p=number("p", self.p, 0, 1, open_high=True),
            scaling=choice("scaling", self.scaling, ("inverted", "test")),
        )
        if self.keep == 0:
            raise ValueError(f"p must be a number in [0, 1) after rounding to a multiple of 1/65536, got {self.p!r}.")

    @property
    def keep(self) -> float:
        """Probability of keeping a unit, after rounding: 1 - k/65536."""
        return 1 - math.floor(self.p * 65536 + 0.5) / 65536

    def record(self) -> dict[str, Any]:
        return {"kind": self.kind, "p": self.p, "test_scaling": self.scaling == "test"}


class Scale(Layer):
    """``y = factor * x``. As the first layer it is part of reading the features: uint8 images stay uint8 in memory.

    Parameters
    ----------
    factor : float
        Not 0, for example 1/255.
    """

    kind = "scale"
    factor: float

    def __post_init__(self) -> None:
        self._set(factor=number("factor", self.factor))
        if self.factor == 0:
            raise ValueError("factor must not be 0: the layer would erase its input.")

    def record(self) -> dict[str, Any]:
        return {"kind": self.kind, "alpha": self.factor}


class Standardize(Layer):
    """``y = (x - mean) / scale`` per feature; the first layer only, never trained.

    Without arguments both are computed in float64 from the training rows of the first `Trainer.fit` (weighted by
    `sample_weight`) and kept afterwards; a constant feature gets scale 1.

    Parameters
    ----------
    mean, scale : float, sequence of float or None
        One per feature, or one for all; scale not 0. Give both or neither.
    """

    kind = "standardize"
    mean: float | Sequence[float] | None = None
    scale: float | Sequence[float] | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.scale is None):
            raise ValueError("Standardize needs both mean and scale, or neither.")
        if self.mean is not None:
            self._set(mean=_numbers("mean", self.mean), scale=_numbers("scale", self.scale))
            if 0.0 in self.given("scale"):
                raise ValueError("scale must not be 0; give a constant feature scale 1.")

    def given(self, name: str) -> tuple[float, ...]:
        """`mean` or `scale` as given; empty if they come from the data."""
        return getattr(self, name) or ()

    def record(self) -> dict[str, Any]:
        return {"kind": self.kind, "given": self.scale is not None}


def from_record(record: Mapping[str, Any]) -> Layer:
    """The layer that a complete record of the core describes; a Standardize that was given has no numbers yet."""
    kind = record["kind"]
    if kind == "activation":
        return _activation(record)
    if kind == "dense":
        init = record["init"]
        return Dense(
            record["units"],
            activation=None if record["activation"] == "identity" else _activation(record),
            use_bias=record["use_bias"],
            init=None if init == "default" else Initializer(init, record["init_value"]),
            regularizer=regularizers.from_record(*record["penalty"]),
            trainable=record["trainable"],
        )
    if kind == "batchnorm":
        return BatchNorm(record["eps"], record["decay"], record["unbiased"], record["trainable"])
    if kind == "dropout":
        return Dropout(record["p"], "test" if record["test_scaling"] else "inverted")
    return Scale(record["alpha"]) if kind == "scale" else Standardize()


def _activation(record: Mapping[str, Any]) -> Activation:
    name, alpha = record["activation"], record["alpha"]
    if name == LeakyReLU.name:
        return LeakyReLU(alpha)
    return ELU(alpha) if name == ELU.name else ACTIVATIONS[name]()


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    """A float or a sequence of floats as a tuple, so that the declaration stays immutable."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, (list, tuple)):
        values = (values,)
    if not values:
        raise ValueError(f"{name} must hold at least one number.")
    return tuple(number(f"{name}[{i}]", value) for i, value in enumerate(values))
