"""How the weights of a Dense layer start. The core draws them, from the net's seed; biases start at zero.

`fan_in` is the number of inputs of a layer, `fan_out` of its outputs, `fan_avg` their mean. Normal distributions are
not truncated. Sources: AISTATS 2010, pages 249-256 (Xavier), arXiv:1502.01852
(He), Efficient BackProp, 1998 (LeCun), arXiv:1312.6120 (orthogonal).
"""

from collections.abc import Callable
from typing import Any

from ._declare import Declaration, choice, instance, number

__all__ = [
    "Initializer",
    "constant",
    "fan_in_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "orthogonal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]


class Initializer(Declaration):
    """A distribution for a weight matrix; made by the functions of this module.

    Parameters
    ----------
    name : str
        The function that made it.
    value : float
        Its argument; 0 where it has none.
    """

    name: str
    value: float = 0.0

    def __repr__(self) -> str:
        return f"{self.name}()" if self.name in BY_NAME else f"{self.name}({self.value!r})"


def zeros() -> Initializer:
    """All weights 0. The neurons of a layer stay equal for ever: symmetry is not broken."""
    return Initializer("zeros")


def constant(c: float) -> Initializer:
    """All weights `c`; breaks no symmetry either."""
    return Initializer("constant", number("c", c))


def uniform(r: float) -> Initializer:
    """U(-r, r), r > 0."""
    return Initializer("uniform", number("r", r, 0, open_low=True))


def normal(sigma: float) -> Initializer:
    """N(0, sigma**2), sigma > 0 the standard deviation."""
    return Initializer("normal", number("sigma", sigma, 0, open_low=True))


def fan_in_uniform() -> Initializer:
    """The naive U(-1/sqrt(fan_in), 1/sqrt(fan_in)): variance 1 / (3 fan_in), so deep nets fade out."""
    return Initializer("fan_in_uniform")


def lecun_uniform() -> Initializer:
    """Uniform of variance 1 / fan_in."""
    return Initializer("lecun_uniform")


def lecun_normal() -> Initializer:
    """Normal of variance 1 / fan_in, as SELU wants it."""
    return Initializer("lecun_normal")


def xavier_uniform() -> Initializer:
    """Uniform of variance 1 / fan_avg, r = sqrt(3 / fan_avg); for tanh, sigmoid and linear layers."""
    return Initializer("xavier_uniform")


def xavier_normal() -> Initializer:
    """Normal of variance 1 / fan_avg."""
    return Initializer("xavier_normal")


def he_uniform() -> Initializer:
    """Uniform of variance 2 / fan_in, r = sqrt(6 / fan_in); for ReLU and its relatives."""
    return Initializer("he_uniform")


def he_normal() -> Initializer:
    """Normal of variance 2 / fan_in."""
    return Initializer("he_normal")


def orthogonal() -> Initializer:
    """A random matrix with orthonormal rows or columns, whichever are fewer."""
    return Initializer("orthogonal")


BY_NAME: dict[str, Callable[[], Initializer]] = {
    make.__name__: make
    for make in (
        zeros,
        fan_in_uniform,
        lecun_uniform,
        lecun_normal,
        xavier_uniform,
        xavier_normal,
        he_uniform,
        he_normal,
        orthogonal,
    )
}
_NEED_ARGUMENT = {"constant": "constant(c)", "uniform": "uniform(r)", "normal": "normal(sigma)"}


def resolve(value: Any) -> Initializer:
    """An initializer given as an object or by name."""
    if isinstance(value, str):
        if value in _NEED_ARGUMENT:
            raise ValueError(f"init {value!r} needs its argument: use fastnn.initializers.{_NEED_ARGUMENT[value]}.")
        return BY_NAME[choice("init", value, BY_NAME)]()
    return instance("init", value, Initializer, f"an initializer or a name among {', '.join(map(repr, BY_NAME))}")
