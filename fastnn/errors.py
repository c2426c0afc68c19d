"""Exceptions of their own: what a caller may want to catch and look into."""

from functools import partial
from typing import Any

__all__ = ["DivergenceError", "ModelFileError", "ModelVersionError"]


class DivergenceError(ValueError):
    """The loss or a gradient became infinite or NaN; the weights are those before the failing step.

    Attributes
    ----------
    epoch : int or None
        Epoch of this `fit`, counted from 0 as in callbacks and `History`; None outside `fit`.
    step : int
        Step of that epoch, counted from 0; outside `fit`, the step since `Trainer.reset`.
    loss : float
        The loss of the failing step (finite where a gradient was not).
    layer : int or None
        Place in the layer list of the first output or gradient that was not finite, None if none was found.
    layer_name : str
        Its kind, empty if there is none.
    learning_rate : float
        Of the failing step.
    """

    def __init__(
        self,
        *,
        epoch: int | None,
        step: int,
        loss: float,
        layer: int | None,
        layer_name: str,
        learning_rate: float,
    ) -> None:
        self.epoch, self.step, self.loss = epoch, step, loss
        self.layer, self.layer_name, self.learning_rate = layer, layer_name, learning_rate
        # The text counts from 1, like the progress lines that stand above it.
        place = f"step {step + 1}" if epoch is None else f"epoch {epoch + 1}, step {step + 1}"
        first = "" if layer is None else f", first in layer {layer} ({layer_name})"
        super().__init__(
            f"Training diverged at {place}: loss = {loss:g}{first}, learning rate {learning_rate:g}. "
            "Weights of the step before are kept. Scale x, clip the gradient or lower the rate."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Exceptions are made from their message alone when unpickled, say by a pool of processes; this one is not."""
        names = ("epoch", "step", "loss", "layer", "layer_name", "learning_rate")
        return partial(type(self), **{name: getattr(self, name) for name in names}), (), self.__dict__


class ModelFileError(ValueError):
    """A file is not a fastnn model, or is damaged; the message says what was found where."""


class ModelVersionError(ModelFileError):
    """A model file is of a newer format than this fastnn reads."""
