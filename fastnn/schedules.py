"""Learning rates as functions of the global step, counted from 0 since `Trainer.reset`.

Any function step -> learning rate is a schedule. Those here take arrays of steps too, and their lengths count steps or,
with ``per="epoch"``, epochs of `Trainer.fit`. They are classes with the names of functions, because they are used as
functions.
"""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from ._declare import Declaration, choice, instance, number

__all__ = ["Schedule", "constant", "cosine", "exponential", "one_cycle", "step", "warmup"]

Array = np.ndarray[Any, Any]


class Schedule(Declaration):
    """Base of the schedules.

    Attributes
    ----------
    per : {"step", "epoch"}
        The unit of the lengths.
    """

    per = "step"

    def rate(self, step: Array, unit: float) -> Array:
        """Learning rates at `step`, where lengths count `unit` steps."""
        raise NotImplementedError

    def __call__(self, step: Any, steps_per_epoch: int | None = None) -> Any:
        """Learning rate at a step, or rates at an array of steps."""
        if self.per == "epoch" and steps_per_epoch is None:
            raise ValueError(f"{self!r} counts epochs: it needs steps_per_epoch, which only Trainer.fit knows.")
        unit = float(steps_per_epoch) if self.per == "epoch" and steps_per_epoch is not None else 1.0
        rates = self.rate(np.asarray(step, dtype=np.float64), unit)
        return rates if np.ndim(step) else float(rates)


def _rate(name: str, value: Any) -> float:
    return number(name, value, 0, open_low=True)


def _length(name: str, value: Any) -> float:
    return number(name, value, 0, open_low=True)


def _per(value: Any) -> str:
    return choice("per", value, ("step", "epoch"))


class constant(Schedule):  # noqa: N801
    """Always `lr`."""

    lr: float
    per: str = "step"

    def __post_init__(self) -> None:
        self._set(lr=_rate("lr", self.lr), per=_per(self.per))

    def rate(self, step: Array, unit: float) -> Array:
        return np.full_like(step, self.lr)


class step(Schedule):  # noqa: N801
    """``lr * factor ** floor(step / every)``.

    Parameters
    ----------
    lr : float
        At the start, > 0.
    every : float
        Length of a stair, > 0.
    factor : float
        > 0.
    per : {"step", "epoch"}
        The unit of `every`.
    """

    lr: float
    every: float
    factor: float = 0.1
    per: str = "step"

    def __post_init__(self) -> None:
        factor = number("factor", self.factor, 0, open_low=True)
        self._set(lr=_rate("lr", self.lr), every=_length("every", self.every), factor=factor, per=_per(self.per))

    def rate(self, step: Array, unit: float) -> Array:
        return np.asarray(self.lr * self.factor ** np.floor(step / (self.every * unit)))


class exponential(Schedule):  # noqa: N801
    """``lr * factor ** (step / every)``, smoothly.

    Parameters
    ----------
    lr : float
        At the start, > 0.
    factor : float
        Per `every`, > 0.
    every : float
        > 0.
    per : {"step", "epoch"}
        The unit of `every`.
    """

    lr: float
    factor: float
    every: float = 1.0
    per: str = "step"

    def __post_init__(self) -> None:
        factor = number("factor", self.factor, 0, open_low=True)
        self._set(lr=_rate("lr", self.lr), every=_length("every", self.every), factor=factor, per=_per(self.per))

    def rate(self, step: Array, unit: float) -> Array:
        return np.asarray(self.lr * self.factor ** (step / (self.every * unit)))


class cosine(Schedule):  # noqa: N801
    """``final + (lr - final) (1 + cos(pi step / length)) / 2``, and `final` from `length` on (arXiv:1608.03983).

    Parameters
    ----------
    lr : float
        At the start, > 0.
    length : float
        > 0.
    final : float
        At the end, >= 0.
    per : {"step", "epoch"}
        The unit of `length`.
    """

    lr: float
    length: float
    final: float = 0.0
    per: str = "step"

    def __post_init__(self) -> None:
        final = number("final", self.final, 0)
        self._set(lr=_rate("lr", self.lr), length=_length("length", self.length), final=final, per=_per(self.per))

    def rate(self, step: Array, unit: float) -> Array:
        done = np.minimum(step / (self.length * unit), 1.0)
        return np.asarray(self.final + (self.lr - self.final) * (1 + np.cos(np.pi * done)) / 2)


class warmup(Schedule):  # noqa: N801
    """Linear rise to the first rate of `then` in `length`, ``then(0) (step + 1) / length``; after it ``then(step -
    length)``.

    Parameters
    ----------
    length : float
        > 0.
    then : float or Schedule
        What follows.
    per : {"step", "epoch"}
        The unit of `length`, and of `then`.
    """

    length: float
    then: float | Schedule
    per: str = "step"

    def __post_init__(self) -> None:
        self._set(length=_length("length", self.length), per=_per(self.per))
        if isinstance(self.then, (int, float)):
            self._set(then=constant(self.then, self.per))
        then = instance("then", self.then, Schedule, "a number or a schedule")
        if then.per != self.per:
            raise ValueError(f"then counts per {then.per!r} but warmup per {self.per!r}: use one unit.")

    def rate(self, step: Array, unit: float) -> Array:
        assert isinstance(self.then, Schedule)
        length = math.ceil(self.length * unit)
        first = self.then.rate(np.zeros(()), unit)
        after = self.then.rate(np.maximum(step - length, 0), unit)
        return np.where(step < length, first * (step + 1) / length, after)


class one_cycle(Schedule):  # noqa: N801
    """Cosine rise from ``lr / start`` to `lr`, then cosine fall to ``lr / (start * end)`` (arXiv:1708.07120).

    Step for step what PyTorch's OneCycleLR gives.

    Parameters
    ----------
    lr : float
        The peak, > 0.
    length : float
        The whole cycle; the last rate holds after it.
    rise : float
        Share of the cycle in which the rate rises, in (0, 1).
    start, end : float
        Divisors, >= 1.
    per : {"step", "epoch"}
        The unit of `length`.
    """

    lr: float
    length: float
    rise: float = 0.3
    start: float = 25.0
    end: float = 1e4
    per: str = "step"

    def __post_init__(self) -> None:
        self._set(
            lr=_rate("lr", self.lr),
            length=_length("length", self.length),
            rise=number("rise", self.rise, 0, 1, open_low=True, open_high=True),
            start=number("start", self.start, 1),
            end=number("end", self.end, 1),
            per=_per(self.per),
        )

    def rate(self, step: Array, unit: float) -> Array:
        low, final = self.lr / self.start, self.lr / self.start / self.end
        peak, last = self.rise * self.length * unit - 1, self.length * unit - 1
        up = np.clip(step / peak, 0, 1) if peak > 0 else np.ones_like(step)
        down = np.clip((step - max(peak, 0)) / max(last - max(peak, 0), 1e-300), 0, 1)
        rising = self.lr + (low - self.lr) * (1 + np.cos(np.pi * up)) / 2
        falling = final + (self.lr - final) * (1 + np.cos(np.pi * down)) / 2
        return np.where(step <= peak, rising, falling)


def _number_of_schedule(value: Any, step: int) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"the schedule gave {value!r} of type {type(value).__name__} at step {step}, not a number.")
    return float(value)


def rates(
    lr: float | Callable[[Any], Any], first: int, count: int, steps_per_epoch: int | None, shift: float = 0.0
) -> Array:
    """Learning rates of the steps first .. first + count, from a number, a schedule or any function of the step.

    Schedules that count epochs see the step `shift` later.
    """
    if isinstance(lr, Schedule):
        values = lr(np.arange(first, first + count) + (shift if lr.per == "epoch" else 0), steps_per_epoch)
    elif callable(lr):
        steps = range(first, first + count)
        values = np.array([_number_of_schedule(lr(step), step) for step in steps], dtype=np.float64)
    else:
        return np.full(count, lr)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if bad.size:
        raise ValueError(
            f"the schedule gave the learning rate {values[bad[0]]} at step {first + bad[0]}, not one >= 0."
        )
    return np.ascontiguousarray(values, dtype=np.float64)
