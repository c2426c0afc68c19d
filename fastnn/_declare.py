"""What the declarative classes share: an immutable record, and argument checks that name the argument."""

import math
import numbers
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

T = TypeVar("T")

_REQUIRED = object()


class _Signature:
    """The constructor's signature, made when somebody asks: importing inspect takes longer than the whole package."""

    def __get__(self, instance: object, owner: "type[Declaration]") -> Any:
        from inspect import Parameter, Signature

        return Signature(
            [
                Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=Parameter.empty if d is _REQUIRED else d)
                for name, d in owner._fields.items()
            ]
        )


@dataclass_transform(frozen_default=True)
class Declaration:
    """An immutable record whose fields are the annotated names of its class, with checks in ``__post_init__``.

    A frozen dataclass in all but the import time: `dataclasses` compiles methods anew for each class, 0.2 ms for each
    of our forty. The repr shows what differs from the defaults.
    """

    _fields: ClassVar[dict[str, Any]] = {}
    __signature__ = _Signature()

    def __init_subclass__(cls) -> None:
        own = {name: cls.__dict__.get(name, _REQUIRED) for name in cls.__annotations__}
        cls._fields = {**cls._fields, **own}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        cls = type(self).__name__
        if len(args) > len(self._fields):
            raise TypeError(f"{cls} takes at most {len(self._fields)} arguments, got {len(args)}.")
        given = dict(zip(self._fields, args, strict=False))
        for name, value in kwargs.items():
            if name not in self._fields:
                raise TypeError(f"{cls} has no argument {name!r}.{_closest(name, self._fields)}")
            if name in given:
                raise TypeError(f"{cls} got two values for the argument {name!r}.")
            given[name] = value
        if len(given) < len(self._fields):
            given = {**self._fields, **given}
            for name, value in given.items():
                if value is _REQUIRED:
                    raise TypeError(f"{cls} needs the argument {name!r}.")
        self.__dict__.update(given)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check the fields."""

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: make a new one instead of setting {name!r}.")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def _set(self, **values: Any) -> None:
        """Store checked values from ``__post_init__``."""
        self.__dict__.update(values)

    def _replace(self, **changes: Any) -> Self:
        """A copy with other values in some fields."""
        return type(self)(**{**self._values(), **changes})

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._fields}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), *self._values().values()))

    def __repr__(self) -> str:
        shown = []
        for name, value in self._values().items():
            if self._fields[name] is _REQUIRED:
                shown.append(repr(value))
            elif value != self._fields[name]:
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


MOST_THREADS = 4096
LARGEST_SIZE = 2**63 - 1
SMALLEST_EPS = 1e-37  # a normal number in float32 too: what guards a division must not round to 0


def number(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """`value` as a float inside the interval, else TypeError or ValueError."""
    left = "(" if open_low or low == -math.inf else "["
    right = ")" if open_high or high == math.inf else "]"
    interval = f"{left}{low:g}, {high:g}{right}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number in {interval}, got {value!r} of type {type(value).__name__}.")
    try:
        result = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number in {interval}, got one beyond all floats.") from None
    inside = (low < result if left == "(" else low <= result) and (result < high if right == ")" else result <= high)
    if not inside:
        raise ValueError(f"{name} must be a number in {interval}, got {value!r}.")
    return result


def integer(name: str, value: Any, low: int, high: int | None = None, *, hint: str = "") -> int:
    """`value` as an int in low..high, else TypeError or ValueError."""
    allowed = f">= {low}" if high is None else f"in {low}..{high}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an int {allowed}{hint}, got {value!r} of type {type(value).__name__}.")
    result = int(value)
    if result < low or (high is not None and result > high):
        raise ValueError(f"{name} must be an int {allowed}{hint}, got {result}.")
    return result


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type(value).__name__}.")
    return value


def choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """`value` if it is one of the names; the error tells the closest one."""
    names = list(choices)
    listed = ", ".join(map(repr, names))
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str among {{{listed}}}, got {value!r} of type {type(value).__name__}.")
    if value not in names:
        raise ValueError(f"{name} must be a str among {{{listed}}}, got {value!r}.{_closest(value, names)}")
    return value


def _closest(word: str, names: Iterable[str]) -> str:
    """A suggestion for a misspelt name, or nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(names), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def instance(name: str, value: Any, base: type[T], example: str) -> T:
    """`value` if it is an instance of `base`; a class in place of an instance gets its own hint."""
    if isinstance(value, base):
        return value
    if isinstance(value, type) and issubclass(value, base):
        raise TypeError(f"{name} is the class {value.__name__}: write {value.__name__}(...) to make one.")
    raise TypeError(f"{name} must be {example}, got {value!r} of type {type(value).__name__}.")


def named(name: str, value: Any, base: type[T], table: Mapping[str, Callable[[], T]], example: str) -> T:
    """An instance of `base`, given as such or by its name in `table`."""
    if isinstance(value, str):
        return table[choice(name, value, table)]()
    return instance(name, value, base, f"{example} or a name among {', '.join(map(repr, table))}")


def threads(value: int | None) -> int:
    """`n_threads` as the core takes it: 0 for the configured number."""
    if value is None:
        return 0
    hint = " (or None: as configured, by default all available processors)"
    return integer("n_threads", value, 1, MOST_THREADS, hint=hint)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """A warning that points at the line outside of this package which led to it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
