"""Gradient clipping: after the penalty's gradient is added, before the update."""

from ._declare import Declaration, choice, number

__all__ = ["ClipNorm", "ClipValue", "Clipping"]


class Clipping(Declaration):
    def record(self) -> tuple[str, float, float]:
        """(kind, low, high) as the core takes them."""
        raise NotImplementedError


class ClipValue(Clipping):
    """Each element of the gradient into [min, max]; changes the direction.

    Parameters
    ----------
    min, max : float
        min <= 0 <= max, min < max; they need not be symmetric. (A gradient of 0 must stay 0.)
    """

    min: float
    max: float

    def __post_init__(self) -> None:
        self._set(min=number("min", self.min, high=0), max=number("max", self.max, 0))
        if not self.min < self.max:
            raise ValueError(f"ClipValue needs min < max, got min={self.min:g}, max={self.max:g}.")

    def record(self) -> tuple[str, float, float]:
        return "value", self.min, self.max


class ClipNorm(Clipping):
    """``g <- g * v / ||g||`` where ``||g|| > v``; keeps the direction.

    Parameters
    ----------
    v : float
        Largest norm, > 0.
    scope : {"global", "tensor"}
        The norm over all trainable parameters together, or of each tensor alone.
    """

    v: float
    scope: str = "global"

    def __post_init__(self) -> None:
        self._set(v=number("v", self.v, 0, open_low=True), scope=choice("scope", self.scope, ("global", "tensor")))

    def record(self) -> tuple[str, float, float]:
        return ("norm" if self.scope == "global" else "tensor_norm"), 0.0, self.v
