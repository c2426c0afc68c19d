"""Tables of numbers, categories and dates as features: what each column is, and what of it a model file keeps.

Needs pandas (extra ``cli``). Nothing here is executed from a file: what was learned from a table is stored beside the
net as plain arrays (docs/model-file.md), and `Encoder.of` checks that they fit the net.
"""

import csv
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from . import Sequential
from ._declare import _closest, choice
from ._strings import pack, unpack

__all__ = [
    "Column",
    "Encoder",
    "Target",
    "class_names",
    "find_columns",
    "read",
    "require_columns",
    "set_class_names",
    "short",
]

Array = np.ndarray[Any, Any]
Frame = Any  # pandas.DataFrame: pandas is imported where it is used
Series = Any

MOST_CATEGORIES = 50  # of a column, the most frequent ones
MOST_CLASSES = 1000
MOST_WHOLE_CLASSES = 30  # more different whole numbers than this are a quantity
LARGEST_NUMBER = 1e100  # its square is a float too
# An empty cell, "?", and what pandas takes for missing.
MISSING = frozenset(
    {
        "",
        "?",
        "#N/A N/A",
        "NA",
        "N/A",
        "n/a",
        "<NA>",
        "NaN",
        "nan",
        "-NaN",
        "-nan",
        "NULL",
        "null",
        "None",
        "#N/A",
        "#NA",
        "1.#IND",
        "-1.#IND",
        "1.#QNAN",
        "-1.#QNAN",
    }
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?")
_DECIMAL_COMMA = r"^\s*([-+]?\d+),(\d+(?:[eE][-+]?\d+)?)\s*$"
_CALENDAR = ("days", *(f"{wave} of the {period}" for period in ("year", "week", "day") for wave in ("sine", "cosine")))


# ---- reading ----


def read(path: "str | os.PathLike[str]") -> Frame:
    """The table of a CSV file or (by its name, .parquet or .pq) of a Parquet file.

    Parameters
    ----------
    path : str or path-like
        CSV: UTF-8, with a header; separated by whichever of comma, semicolon, tab and ``|`` the header has most of. In
        a file with semicolons ``1,5`` is one and a half, and numbers with commas before every three digits are refused.

    Returns
    -------
    pandas.DataFrame
        Of texts, if it was a CSV file: a column means the same whatever else stands in it.

    Raises
    ------
    ValueError
        Not such a table; the message says why.
    OSError
        The file cannot be read.
    ImportError
        pandas is missing, or for Parquet pyarrow.
    """
    name = os.fspath(path)
    parquet = name.lower().endswith((".parquet", ".pq"))
    frame = _read_parquet(name) if parquet else _read_csv(name)
    if not len(frame):
        raise ValueError(f"{name} has no rows.")
    return frame


def _pandas() -> Any:
    try:
        import pandas  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise ImportError("tables need pandas, which is not installed: pip install 'fastnn-cpu[cli]'.") from None
    return pandas


def _read_parquet(name: str) -> Frame:
    pandas = _pandas()
    try:
        import pyarrow  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise ImportError("Parquet files need pyarrow, which is not installed: pip install pyarrow.") from None
    with open(name, "rb") as file:
        try:
            frame = pandas.read_parquet(file, engine="pyarrow")
        except (pyarrow.ArrowException, ValueError) as error:
            raise ValueError(f"{name} is not a Parquet file: {_one_line(error)}") from None
    if None not in frame.index.names:  # columns that pandas was told to take for the index
        frame = frame.reset_index(allow_duplicates=True)
    frame.columns = [str(column) for column in frame.columns]
    _require_unique(name, list(frame.columns))
    return frame


def _read_csv(name: str) -> Frame:
    pandas = _pandas()
    try:
        with open(name, encoding="utf-8-sig", newline="") as file:
            separator = _separator(next((line for line in file if line.strip()), ""))
            file.seek(0)
            header = next(filter(None, csv.reader(file, delimiter=separator, skipinitialspace=True)), [])
            names = [text.strip() for text in header]
            _require_unique(name, names)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("error", pandas.errors.ParserWarning)  # a first row longer than the header
                frame = pandas.read_csv(
                    file,
                    sep=separator,
                    dtype=object,
                    index_col=False,
                    skipinitialspace=True,
                    na_values=list(MISSING),
                    keep_default_na=False,
                )
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text (it has the byte 0x{error.object[error.start]:02x}).") from None
    except pandas.errors.EmptyDataError:
        raise ValueError(f"{name} is empty: a header is needed, and a row.") from None
    except pandas.errors.ParserWarning:
        raise ValueError(f"{name}: the first row has more than the {len(names)} values of the header.") from None
    except (pandas.errors.ParserError, csv.Error) as error:
        raise ValueError(f"{name} is not a CSV table: {_one_line(error)}") from None
    frame.columns = [str(column).strip() for column in frame.columns]
    return _with_decimal_commas(frame, name) if separator == ";" else frame


def _with_decimal_commas(frame: Frame, name: str) -> Frame:
    frame = frame.replace(_DECIMAL_COMMA, r"\1.\2", regex=True)
    for column in frame.columns:
        both = next((text for text in _Values.of(frame[column]).texts if _THOUSANDS.fullmatch(text)), None)
        if both is not None and _kind(frame[column]) == "number":  # beside 1,234, which has been made 1.234
            raise ValueError(
                f"{name}: column {column!r} has the number {both!r}, but in a file with semicolons a comma stands "
                "before decimals, not before every three digits."
            )
    return frame


def _separator(header: str) -> str:
    bare = re.sub(r'"[^"]*"', "", header)
    return max(",;\t|", key=bare.count)  # the first of equals


def _require_unique(name: str, names: Sequence[str]) -> None:
    twice = sorted({column for column in names if column and names.count(column) > 1})
    if twice:
        raise ValueError(f"{name} has more than one column {', '.join(map(repr, twice))}.")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")


# ---- values of a column ----


@dataclass(frozen=True)
class _Values:
    """A column as its different texts; `codes` (n,) are places in `texts`, -1 for a missing value."""

    codes: Array
    texts: list[str]

    @classmethod
    def of(cls, series: Series) -> "_Values":
        pandas = _pandas()
        column = series.astype(object)
        try:
            codes, different = pandas.factorize(column)
        except TypeError:  # lists and other values of a Parquet file that have no hash
            codes, different = pandas.factorize(column.map(str))
        # The last place, -1, is that of a missing value, before and after.
        merged, texts = pandas.factorize(np.array([*map(_known_text, different), None], object))
        return cls(merged[codes], list(texts))

    def counts(self) -> Array:
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.texts))

    def spread(self, per_text: Iterable[float]) -> Array:
        """Per row the number that stands for its text, NaN for a missing value."""
        return np.array([*per_text, np.nan], dtype=np.float64)[self.codes]


def _known_text(value: Any) -> str | None:
    text = _text(value)
    return None if text in MISSING else text


def _text(value: Any) -> str:
    if isinstance(value, (float, np.floating)) and (number := float(value)).is_integer() and abs(number) < 1e15:
        return str(int(number))  # a Parquet column of whole numbers with missing ones
    return str(value).strip()


def _number(text: str) -> float:
    """NaN for what is no number; a comma may stand before every three digits."""
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    try:
        return float(text) if "_" not in text else np.nan
    except ValueError:
        return np.nan


def _days(text: str) -> float:
    """Days since the start of 1970 in UTC of an ISO date or timestamp; NaN for what is none."""
    if not _DATE.fullmatch(text):
        return np.nan
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return np.nan
    try:
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:  # a zone beyond the first or the last year
        return np.nan
    return (moment - _EPOCH).total_seconds() / 86400


_PARSE = {"number": _number, "date": _days}


def _is_numeric(series: Series) -> bool:
    types = _pandas().api.types
    dtype = series.dtype
    return bool(types.is_numeric_dtype(dtype) and not types.is_bool_dtype(dtype) and not types.is_complex_dtype(dtype))


def _parsed(series: Series, kind: str) -> tuple[Array, Array]:
    """Numbers or days per row, NaN where missing or wrong; and the rows where a value is not of this kind."""
    if kind == "number" and _is_numeric(series):
        values = series.to_numpy(np.float64, na_value=np.nan)
        return values, np.abs(values) > LARGEST_NUMBER
    column = _Values.of(series)
    values = column.spread(map(_PARSE[kind], column.texts))
    return values, (column.codes >= 0) & ~(np.abs(values) <= LARGEST_NUMBER)


def _kind(series: Series) -> str:
    """The first kind that all values of a column are of."""
    if _is_numeric(series):
        return "number"
    texts = _Values.of(series).texts
    for kind, parse in _PARSE.items():
        if all(not np.isnan(parse(text)) for text in texts):
            return kind
    return "category"


# ---- columns ----


@dataclass(frozen=True)
class Column:
    """A column of a table as features of a net.

    Attributes
    ----------
    name : str
    kind : {"number", "category", "date"}
        A number is a feature as it is; a category one feature per value, 1 where it is this value; a date the days
        since 1970-01-01, and where in the year, the week and the day it lies, as sine and cosine.
    fill : float
        Stands in for a missing value: the median of the number or of the days, the place of the most frequent category.
    categories : tuple of str
        In the order of their features. A row of another one has 0 in all of them.
    """

    name: str
    kind: str
    fill: float
    categories: tuple[str, ...] = ()

    @property
    def features(self) -> list[str]:
        """Names of its features."""
        if self.kind == "category":
            return [f"{self.name}={category}" for category in self.categories]
        return [self.name] if self.kind == "number" else [f"{self.name} ({part})" for part in _CALENDAR]

    def encode(self, series: Series) -> Array:
        """The features (n, places) in float64 of this column of a table.

        Raises
        ------
        ValueError
            A value is not of the column's kind.
        """
        if self.kind == "category":
            column = _Values.of(series)
            place = {category: i for i, category in enumerate(self.categories)}
            places = column.spread(place.get(text, -1) for text in column.texts)
            places[np.isnan(places)] = self.fill
            return np.equal(places[:, np.newaxis], np.arange(len(self.categories))).astype(np.float64)
        values, wrong = _parsed(series, self.kind)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            wanted = "a finite number" if self.kind == "number" else "a date such as 2024-12-31 or 2024-12-31 23:59"
            raise ValueError(f"column {self.name!r}, row {row + 1}: {str(series.iloc[row])!r} is not {wanted}.")
        values = np.where(np.isnan(values), self.fill, values)
        return values[:, np.newaxis] if self.kind == "number" else _calendar(values)

    def describe(self) -> str:
        """What stands for what, in a few words."""
        if self.kind == "category":
            shown = ", ".join(map(short, self.categories[:5])) + (", ..." if len(self.categories) > 5 else "")
            return f"{len(self.categories)} values ({shown}); missing: {short(self.categories[int(self.fill)])}"
        if self.kind == "number":
            return f"missing: {self.fill:g}"
        return f"missing: {np.datetime64(round(self.fill * 86400), 's')}"


def short(text: str) -> str:
    """On one line, and not longer than 40 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 40 else f"{line[:37]}..."


def _calendar(days: Array) -> Array:
    """(n, 7): the days themselves, and their place in year, week (from Monday) and day as points of a circle."""
    year = np.floor(days).astype("datetime64[D]").astype("datetime64[Y]")
    first, next_first = (part.astype("datetime64[D]").astype(np.float64) for part in (year, year + 1))
    shares = ((days - first) / (next_first - first), (days + 3) % 7 / 7, days % 1)
    waves = [wave(2 * np.pi * share) for share in shares for wave in (np.sin, np.cos)]
    return np.column_stack([days, *waves])


def find_columns(frame: Frame, rows: Array | None = None) -> tuple[tuple[Column, ...], dict[str, str]]:
    """What each column of a table is, and what stands in for its missing values.

    Parameters
    ----------
    frame : pandas.DataFrame
        The features alone.
    rows : ndarray, optional
        The rows to learn medians and categories from; the kinds come from all.

    Returns
    -------
    columns : tuple of Column
    unused : dict of str to str
        The other columns, and why they are no features: no values, one value, or texts that are nearly all different.

    Raises
    ------
    ValueError
        No column can be used, or a number is infinite.
    """
    columns, unused = [], {}
    for name in frame.columns:
        kind = _kind(frame[name])
        if kind != "category":
            Column(name, kind, 0.0).encode(frame[name])  # refuses infinities before anything is trained
        part = frame[name] if rows is None else frame[name].iloc[rows]
        found = _category(name, part) if kind == "category" else _quantity(name, kind, part)
        if isinstance(found, Column):
            columns.append(found)
        else:
            unused[name] = found
    if not columns:
        reasons = "; ".join(f"{name!r} {reason}" for name, reason in unused.items()) or "there is none"
        raise ValueError(f"no column can be used as a feature: {reasons}.")
    return tuple(columns), unused


def _quantity(name: str, kind: str, series: Series) -> Column | str:
    values, _ = _parsed(series, kind)
    known = values[~np.isnan(values)]
    if not known.size:
        return "has no values"
    if known.min() == known.max():
        return f"has one value, {series[~np.isnan(values)].iloc[0]}"
    if name.startswith("Unnamed: ") and np.all(np.diff(values) > 0):
        return "has no name and only counts the rows"
    return Column(name, kind, float(np.median(known)))


def _category(name: str, series: Series) -> Column | str:
    """A category must occur in 1 % of the rows, but 10 are enough and 2 the least."""
    column = _Values.of(series)
    counts = column.counts()
    different, known = np.count_nonzero(counts), counts.sum()
    if not different:
        return "has no values"
    if different == 1:
        return f"has one value, {short(column.texts[int(np.argmax(counts))])}"
    if different > known / 2:
        return f"is text with {different} different values in {known} rows"
    least = max(2, min(10, known // 100))
    frequent = [int(place) for place in np.argsort(-counts, kind="stable")[:MOST_CATEGORIES] if counts[place] >= least]
    if not frequent:
        return f"is text with {different} different values, each in less than {least} rows"
    categories = tuple(sorted(column.texts[place] for place in frequent))
    return Column(name, "category", float(categories.index(column.texts[frequent[0]])), categories)


# ---- the target ----


@dataclass(frozen=True)
class Target:
    """The column to predict, in the rows of a table that have it.

    Attributes
    ----------
    name : str
    classes : tuple of str, or None
        In the order of their numbers; None for a regression.
    values : ndarray
        Class numbers, or float64 values, of the rows `known`.
    known : ndarray of bool
        The rows of the table that have a target.
    """

    name: str
    classes: tuple[str, ...] | None
    values: Array
    known: Array

    @classmethod
    def find(cls, frame: Frame, name: str, task: str = "auto") -> "Target":
        """The target of a table.

        Parameters
        ----------
        frame : pandas.DataFrame
        name : str
        task : {"auto", "classification", "regression"}
            "auto": texts, booleans and few different whole numbers (at most 30, each in five rows on average) are
            classes.

        Raises
        ------
        ValueError
            No such column, no values, one class, or not what the task needs.
        """
        choice("task", task, ("auto", "classification", "regression"))
        require_columns(frame, [name])
        column = _Values.of(frame[name])
        known = column.codes >= 0
        if not known.any():
            raise ValueError(f"the target {name!r} has no values.")
        numbers = [_number(text) for text in column.texts]
        numeric = not np.isnan(numbers).any()
        if task == "auto":
            task = "classification" if not numeric or _are_classes(numbers, int(known.sum())) else "regression"
        if task == "regression":
            return cls(name, None, _target_values(frame[name][known], name), known)
        classes = _class_names(column.texts, numbers if numeric else None, name, int(known.sum()))
        return cls(name, classes, _class_numbers(column, classes, name)[known], known)


def _are_classes(numbers: Sequence[float], rows: int) -> bool:
    whole = all(number == np.floor(number) for number in numbers)
    return whole and (len(numbers) <= 2 or len(numbers) <= min(MOST_WHOLE_CLASSES, rows // 5))


def _class_names(texts: Sequence[str], numbers: Sequence[float] | None, name: str, rows: int) -> tuple[str, ...]:
    """Numbers in the order of their size, and once however they are written; other texts in that of the alphabet."""
    if numbers is not None:
        of_text = dict(zip(map(_class_name, texts), numbers, strict=True))
        classes = tuple(sorted(of_text, key=lambda text: (of_text[text], text)))
    else:
        classes = tuple(sorted(texts))
    if len(classes) == 1:
        raise ValueError(f"the target {name!r} has 1 class, {classes[0]!r}; at least 2 are needed.")
    if len(classes) > min(MOST_CLASSES, max(2, rows // 2)):
        hint = " Use --task regression." if numbers is not None else ""
        raise ValueError(
            f"the target {name!r} has {len(classes)} different values in {rows} rows, too many for classes.{hint}"
        )
    return classes


def _class_name(text: str) -> str:
    """Of a number the shortest text, unless float64 would take two whole numbers for one."""
    number = _number(text)
    return _text(number) if abs(number) < 1e15 else text


def _class_numbers(column: _Values, classes: Sequence[str], name: str) -> Array:
    """Per row the number of its class, -1 for a missing value."""
    number_of = {text: i for i, text in enumerate(classes)}
    numbers = []
    for text in column.texts:
        found = number_of.get(text, number_of.get(_class_name(text)))
        if found is None:
            shown = ", ".join(map(repr, classes[:10])) + (", ..." if len(classes) > 10 else "")
            raise ValueError(f"the target {name!r} has the class {text!r}, but the model knows {shown}.")
        numbers.append(found)
    return np.array([*numbers, -1])[column.codes]


def _target_values(series: Series, name: str) -> Array:
    values, wrong = _parsed(series, "number")
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"the target {name!r} is to be a number, but has the value {str(series.iloc[row])!r}.")
    return values


def require_columns(frame: Frame, names: Sequence[str]) -> None:
    """ValueError that lists the columns a table lacks, each with the nearest one that it has."""
    lacking = [name for name in names if name not in frame.columns]
    if not lacking:
        return
    if len(lacking) == 1:
        shown = ", ".join(map(repr, frame.columns[:20])) + (", ..." if len(frame.columns) > 20 else "")
        hint = _closest(lacking[0], frame.columns) or f" It has {shown}."
        raise ValueError(f"the table has no column {lacking[0]!r}.{hint}")
    shown = ", ".join(map(repr, lacking[:10])) + (", ..." if len(lacking) > 10 else "")
    raise ValueError(f"the table lacks {len(lacking)} of the {len(names)} columns that are needed: {shown}.")


# ---- what a model file keeps ----


@dataclass(frozen=True)
class Encoder:
    """Makes features of a table, and knows the target; kept in a model file beside its net.

    Attributes
    ----------
    columns : tuple of Column
    target : str
    classes : tuple of str, or None
        None for a regression.
    """

    columns: tuple[Column, ...]
    target: str
    classes: tuple[str, ...] | None

    @property
    def features(self) -> list[str]:
        """Names of the net's inputs."""
        return [feature for column in self.columns for feature in column.features]

    def encode(self, frame: Frame) -> Array:
        """The features (n, inputs) in float64 of a table; its other columns do not matter.

        Raises
        ------
        ValueError
            A column is missing, or a value not of its kind.
        """
        require_columns(frame, [column.name for column in self.columns])
        return np.concatenate([column.encode(frame[column.name]) for column in self.columns], axis=1)

    def strange(self, frame: Frame) -> list[str]:
        """Names of the categorical columns of this table without any value that has a place: another spelling?"""
        return [
            column.name
            for column in self.columns
            if column.kind == "category"
            and (texts := _Values.of(frame[column.name]).texts)
            and not set(texts) & set(column.categories)
        ]

    def target_of(self, frame: Frame) -> Target:
        """The target of another table, in the same classes.

        Raises
        ------
        ValueError
            It has no such column, no values, or a class that the model does not know.
        """
        require_columns(frame, [self.target])
        column = _Values.of(frame[self.target])
        known = column.codes >= 0
        if not known.any():
            raise ValueError(f"the target {self.target!r} has no values.")
        if self.classes is None:
            return Target(self.target, None, _target_values(frame[self.target][known], self.target), known)
        return Target(self.target, self.classes, _class_numbers(column, self.classes, self.target)[known], known)

    def attach(self, net: Sequential) -> None:
        """Store it beside the net: `Sequential.save` writes it, copies and folded nets have it."""
        attachments = {
            **pack("feature_names", [column.name for column in self.columns]),
            **pack("preprocess.kinds", [column.kind for column in self.columns]),
            "preprocess.fill": np.array([column.fill for column in self.columns]),
            **pack("target_name", [self.target]),
        }
        for place, column in enumerate(self.columns):
            if column.kind == "category":
                attachments |= pack(f"preprocess.categories.{place}", column.categories)
        if self.classes is not None:
            attachments |= pack("class_names", self.classes)
        net._attachments = attachments

    @classmethod
    def of(cls, net: Sequential) -> "Encoder | None":
        """What was stored beside the net; None if it was not trained on a table.

        Raises
        ------
        ValueError
            What is stored contradicts itself or the net.
        """
        stored = net._attachments
        if not any(name.startswith(("preprocess.", "target_name.")) for name in stored):
            return None
        if "preprocess.kinds.offsets" not in stored:
            raise ValueError("the model's preprocessing is not that of a table: it names no kinds of columns.")
        names, kinds = _names(stored, "feature_names"), _names(stored, "preprocess.kinds")
        fill, target = stored.get("preprocess.fill", np.empty(0)), _names(stored, "target_name")
        _demand(len(names) == len(kinds) == len(fill) > 0, f"{len(names)} names, {len(kinds)} kinds, {len(fill)} fills")
        _demand(len(set(names)) == len(names), "a name stands twice")
        _demand(len(target) == 1, f"{len(target)} names of the target")
        columns = tuple(
            _checked(Column(name, kind, float(value), tuple(_names(stored, f"preprocess.categories.{place}"))))
            for place, (name, kind, value) in enumerate(zip(names, kinds, fill, strict=True))
        )
        encoder = cls(columns, target[0], class_names(net))
        others = stored.keys() - encoder._keys()
        _demand(not others, f"{min(others, default='')} has no meaning")
        inputs = len(encoder.features)
        _demand(inputs == net.input_size, f"{inputs} features, but the net has {net.input_size} inputs")
        _demand(encoder.classes is not None or net.output_size == 1, f"no classes, but {net.output_size} outputs")
        return encoder

    def _keys(self) -> set[str]:
        """Names of all tensors that may hold what `attach` stores."""
        categories = [
            f"preprocess.categories.{i}" for i, column in enumerate(self.columns) if column.kind == "category"
        ]
        strings = ["feature_names", "preprocess.kinds", "target_name", "class_names", *categories]
        return {"preprocess.fill", *(f"{name}.{part}" for name in strings for part in ("utf8", "offsets"))}


def _checked(column: Column) -> Column:
    where = f"column {column.name!r}"
    _demand(column.kind in ("number", "category", "date"), f"{where} is of the kind {column.kind!r}")
    categories = column.categories
    _demand(
        bool(categories) == (column.kind == "category"), f"{where} ({column.kind}) has {len(categories)} categories"
    )
    _demand(len(set(categories)) == len(categories), f"{where} has a category twice")
    if column.kind == "category":
        _demand(column.fill in range(len(categories)), f"{where} fills with category {column.fill:g}")
    else:
        _demand(
            abs(column.fill) <= (LARGEST_NUMBER if column.kind == "number" else 3e6),
            f"{where} fills with {column.fill:g}",
        )
    return column


def _demand(met: bool, found: str) -> None:
    if not met:
        raise ValueError(f"the model's preprocessing does not fit: {found}.")


def class_names(net: Sequential) -> tuple[str, ...] | None:
    """Names of the classes stored beside a net, in the order of their numbers; None if there are none.

    Raises
    ------
    ValueError
        There are not as many as the net has classes, or one stands twice.
    """
    if "class_names.offsets" not in net._attachments:
        return None
    names = tuple(_names(net._attachments, "class_names"))
    classes = max(net.output_size, 2)
    if len(names) != classes or len(set(names)) != classes:
        raise ValueError(f"the model names {len(set(names))} different classes, but its net has {classes}.")
    return names


def set_class_names(net: Sequential, names: Iterable[str]) -> None:
    """Store the names of the classes beside a net."""
    net._attachments = {**net._attachments, **pack("class_names", list(names))}


def _names(stored: Mapping[str, Array], name: str) -> list[str]:
    """Strings that the reader of the file has checked; none if they are not there."""
    return unpack(name, stored) or []
