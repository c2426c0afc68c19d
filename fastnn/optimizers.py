"""Update rules, as PyTorch documents them.

`lr` is a number, a schedule of `fastnn.schedules`, or any function step -> learning rate.
"""

from collections.abc import Callable
from typing import Any

from ._declare import SMALLEST_EPS, Declaration, boolean, named, number

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop"]

LearningRate = float | Callable[[Any], Any]


def _learning_rate(lr: Any) -> LearningRate:
    if callable(lr) and not isinstance(lr, type):
        return lr  # type: ignore[no-any-return]
    if isinstance(lr, (str, type)):
        raise ValueError(f"lr must be a number in (0, inf) or a schedule, got {lr!r}.")
    return number("lr", lr, 0, open_low=True)


def _betas(betas: Any) -> tuple[float, float]:
    try:
        first, second = betas
    except (TypeError, ValueError):
        raise TypeError(f"betas must be two numbers in [0, 1), got {betas!r}.") from None
    return (
        number("betas[0]", first, 0, 1, open_high=True),
        number("betas[1]", second, 0, 1, open_high=True),
    )


class Optimizer(Declaration):
    lr: LearningRate

    def record(self) -> dict[str, Any]:
        """The fields of the core's optimizer record."""
        raise NotImplementedError


def _record(kind: str, **fields: float) -> dict[str, Any]:
    empty = {"momentum": 0.0, "nesterov": False, "beta1": 0.0, "beta2": 0.0, "eps": 0.0}
    return {"kind": kind, **empty, "weight_decay": 0.0, "decoupled_decay": 0.0, **fields}


class SGD(Optimizer):
    """``b <- momentum b + g`` (first b = g); ``p <- p - lr b``, with Nesterov ``p <- p - lr (g + momentum b)``.

    Parameters
    ----------
    lr : float or schedule
        Learning rate, > 0.
    momentum : float
        In [0, 1).
    nesterov : bool
        Needs momentum > 0.
    """

    lr: LearningRate = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        self._set(
            lr=_learning_rate(self.lr),
            momentum=number("momentum", self.momentum, 0, 1, open_high=True),
            nesterov=boolean("nesterov", self.nesterov),
        )
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=True needs momentum > 0, got momentum=0.")

    def record(self) -> dict[str, Any]:
        return _record("sgd", momentum=self.momentum, nesterov=self.nesterov)


class RMSprop(Optimizer):
    """``v <- alpha v + (1 - alpha) g**2``; ``p <- p - lr g / (sqrt(v) + eps)``.

    Parameters
    ----------
    lr : float or schedule
        Learning rate, > 0.
    alpha : float
        Decay of the squared gradients, in [0, 1).
    eps : float
        > 0.
    """

    lr: LearningRate = 1e-3
    alpha: float = 0.99
    eps: float = 1e-8

    def __post_init__(self) -> None:
        self._set(
            lr=_learning_rate(self.lr),
            alpha=number("alpha", self.alpha, 0, 1, open_high=True),
            eps=number("eps", self.eps, SMALLEST_EPS),
        )

    def record(self) -> dict[str, Any]:
        return _record("rmsprop", beta2=self.alpha, eps=self.eps)


class _AdamFamily(Optimizer):
    lr: LearningRate = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        self._set(
            lr=_learning_rate(self.lr),
            betas=_betas(self.betas),
            eps=number("eps", self.eps, SMALLEST_EPS),
        )


class Adam(_AdamFamily):
    """``p <- p - lr mhat / (sqrt(vhat) + eps)`` with the bias-corrected moments (arXiv:1412.6980).

    Parameters
    ----------
    lr : float or schedule
        Learning rate, > 0.
    betas : (float, float)
        Decays of the first and second moment, each in [0, 1).
    eps : float
        > 0, outside the root.
    weight_decay : float
        Added to the clipped gradient as ``weight_decay * p``, for every trainable parameter; >= 0.
    """

    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(weight_decay=number("weight_decay", self.weight_decay, 0))

    def record(self) -> dict[str, Any]:
        beta1, beta2 = self.betas
        return _record("adam", beta1=beta1, beta2=beta2, eps=self.eps, weight_decay=self.weight_decay)


class AdamW(_AdamFamily):
    """Adam with decoupled decay: ``p <- p (1 - lr weight_decay)`` first (arXiv:1711.05101).

    Parameters
    ----------
    lr : float or schedule
        Learning rate, > 0.
    betas : (float, float)
        Decays of the first and second moment, each in [0, 1).
    eps : float
        > 0, outside the root.
    weight_decay : float
        >= 0; every trainable parameter decays.
    """

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(weight_decay=number("weight_decay", self.weight_decay, 0))

    def record(self) -> dict[str, Any]:
        beta1, beta2 = self.betas
        return _record("adam", beta1=beta1, beta2=beta2, eps=self.eps, decoupled_decay=self.weight_decay)


BY_NAME: dict[str, Callable[[], Optimizer]] = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}


def resolve(value: Any) -> Optimizer:
    """An optimizer given as an object or by name (with its defaults)."""
    return named("optimizer", value, Optimizer, BY_NAME, "an optimizer such as fastnn.Adam(1e-3)")
