"""Penalties on the weights of Dense layers: ``loss = mean loss + sum over layers of lam * sum R(w)``."""

from collections.abc import Callable

from ._declare import Declaration, boolean, number

__all__ = ["L1", "L2", "ElasticNet", "Regularizer"]


class Regularizer(Declaration):
    """Base of the penalties; biases, gamma and beta are never penalised."""

    def record(self) -> tuple[str, float, float]:
        """(kind, lam, beta) of the core's penalty."""
        raise NotImplementedError


class L1(Regularizer):
    """``lam * sum |w|``, with the gradient ``lam * sign(w)`` where sign(0) = 0.

    Parameters
    ----------
    lam : float
        Strength, >= 0.
    proximal : bool
        Leave the penalty out of the gradient and soft-threshold the weights after each update instead:
        ``w <- sign(w) max(|w| - s lam, 0)``. This reaches exact zeros, which a subgradient never does. The step s is
        the learning rate for SGD, lr / (1 - momentum) with momentum, and lr / (denominator of the coordinate) for
        RMSprop, Adam and AdamW.
    """

    lam: float
    proximal: bool = False

    def __post_init__(self) -> None:
        self._set(lam=number("lam", self.lam, 0), proximal=boolean("proximal", self.proximal))

    def record(self) -> tuple[str, float, float]:
        return "proximal_l1" if self.proximal else "l1", self.lam, 0.0


class L2(Regularizer):
    """``lam * sum w**2``, with the gradient ``2 * lam * w`` (`lam` is half of what others call weight decay).

    Parameters
    ----------
    lam : float
        Strength, >= 0.
    """

    lam: float

    def __post_init__(self) -> None:
        self._set(lam=number("lam", self.lam, 0))

    def record(self) -> tuple[str, float, float]:
        return "l2", self.lam, 0.0


class ElasticNet(Regularizer):
    """``lam * sum (beta * w**2 + |w|)``.

    Parameters
    ----------
    lam : float
        Strength of the whole, >= 0.
    beta : float
        Weight of the square against the absolute value, >= 0.
    """

    lam: float
    beta: float

    def __post_init__(self) -> None:
        self._set(lam=number("lam", self.lam, 0), beta=number("beta", self.beta, 0))

    def record(self) -> tuple[str, float, float]:
        return "elastic_net", self.lam, self.beta


def from_record(kind: str, lam: float, beta: float) -> Regularizer | None:
    """The inverse of `Regularizer.record`; None for "default"."""
    makers: dict[str, Callable[[], Regularizer]] = {
        "l1": lambda: L1(lam),
        "proximal_l1": lambda: L1(lam, proximal=True),
        "l2": lambda: L2(lam),
        "elastic_net": lambda: ElasticNet(lam, beta),
    }
    return makers[kind]() if kind != "default" else None
