"""A net as one C99 file and its header: weights as constants, no allocation, no library.

Each layer of the folded net becomes a function. A Dense layer writes into another buffer than it reads; all others work
in place, except that a first one reads the caller's features. The last buffer is the caller's output.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from textwrap import wrap
from typing import Any

import numpy as np

import fastnn as fn

from .common import checked_parameters, replace_file
from .elementary import functions
from .literals import LINE_LENGTH, array, literal, real_type

Array = np.ndarray[Any, Any]

_LONGEST_NAME = 23  # with _predict 31, what counts of an external name in C99
_INPUTS_AT_ONCE = 4  # of a Dense layer, for one pass over its outputs
_VECTORS = 8
_TIMED_OPERATIONS, _MOST_CALLS = 20_000_000, 10_000  # multiply-adds and calls that main times: some milliseconds
_TOLERANCE = {"float32": 1e-5, "float64": 1e-12}  # of golden outputs, relative to the largest

# By the activation's name: what it does to one value `v`, and the elementary function `f` in it. Softmax takes a row.
_FORMULAS = {
    "relu": ("{v} < 0 ? 0 : {v}", ""),
    "leaky_relu": ("{v} > 0 ? {v} : {alpha} * {v}", ""),
    "elu": ("{v} >= 0 ? {v} : {alpha} * {f}({v})", "expm1_negative"),
    "selu": ("{v} >= 0 ? {selu_scale} * {v} : {selu_scale_alpha} * {f}({v})", "expm1_negative"),
    "gelu": ("{f}({v})", "gelu"),
    "silu": ("{f}({v})", "silu"),
    "softplus": ("{f}({v})", "softplus"),
    "tanh": ("{f}({v})", "tanh"),
    "sigmoid": ("{f}({v})", "sigmoid"),
}


def to_c(net: fn.Sequential, path: str | os.PathLike[str], name: str | None = None) -> tuple[Path, Path]:
    """Write a net's predictor as one self-contained C99 file and its header.

    The C function ``void NAME_predict(const float *x, float *y)`` (``double`` for a float64 net) gives what
    ``net.predict`` gives for one row, within rounding. It allocates nothing, keeps no state and needs no library;
    BatchNorm and Dropout are folded away. Compiled with ``-DNAME_MAIN`` (name in capitals) the file is a program that
    checks itself against predictions of this net.

    Parameters
    ----------
    net : Sequential
        Trained or folded; it is not changed.
    path : str or path-like
        Of the C file, ending in ``.c``; the header goes beside it. Existing files are replaced, each at once.
    name : str, optional
        Prefix of all names in C, an identifier of at most 23 characters. None: the file's name without ``.c``.

    Returns
    -------
    source, header : pathlib.Path
        The files written. Equal nets give equal bytes.

    Raises
    ------
    TypeError, ValueError
        Naming the argument; or a Standardize layer has no statistics yet, or a parameter is not finite.
    OSError
        The files cannot be written.

    Warns
    -----
    UserWarning
        Naming each BatchNorm that stays a layer of its own, because no Dense layer is next to it.
    """
    checked_parameters(net)
    source = _source_path(path)
    prefix = _prefix(source, name)
    writer = _Writer(net, prefix)
    header = source.with_suffix(".h")
    replace_file(header, writer.header().encode())
    replace_file(source, writer.source(header.name).encode())
    return source, header


# ---- arguments ----


def _source_path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"path must be a str or path-like that ends in .c, got {path!r} of type {type(path).__name__}.")
    source = Path(path)
    if source.suffix != ".c" or re.search(r'["\\\n]', source.name):
        raise ValueError(f'path must end in .c, its last part without quotes, backslashes and newlines, got "{path}".')
    return source


def _prefix(source: Path, name: Any) -> str:
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a str or None, got {name!r} of type {type(name).__name__}.")
    prefix = source.stem if name is None else name
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", prefix) or len(prefix) > _LONGEST_NAME:
        allowed = f"a C identifier of at most {_LONGEST_NAME} ASCII letters, digits and _, a letter first"
        if name is None:
            raise ValueError(f"name must be given where the file's own, {prefix!r}, is not {allowed}.")
        raise ValueError(f"name must be {allowed}, got {name!r}.")
    return prefix


# ---- the steps of a prediction ----


@dataclass(frozen=True)
class _Step:
    """One layer of the folded net, and the buffers that it reads and writes: "x", "a", "b" or "y"."""

    layer: Any
    place: int
    parameters: dict[str, Array]
    inputs: int
    outputs: int
    reads: str
    writes: str


def _steps(net: fn.Sequential) -> list[_Step]:
    steps: list[_Step] = []
    buffer, width = "x", net.input_size
    parameters = net.parameters()
    last_dense = max((place for place, layer in enumerate(net.layers) if isinstance(layer, fn.Dense)), default=-1)
    for place, layer in enumerate(net.layers):
        own = {name.partition(".")[2]: values for name, values in parameters.items() if name.startswith(f"{place}.")}
        reads, inputs = buffer, width
        if isinstance(layer, fn.Dense):
            width = layer.units
        if isinstance(layer, fn.Dense) or reads == "x":
            buffer = "y" if place >= last_dense else "b" if reads == "a" else "a"
        steps.append(_Step(layer, place, own, inputs, width, reads, buffer))
    return steps


def _scratch(steps: list[_Step]) -> dict[str, int]:
    """Elements of the buffers that are nobody's argument."""
    names = ("a", "b")
    sizes = {name: max((step.outputs for step in steps if step.writes == name), default=0) for name in names}
    return {name: size for name, size in sizes.items() if size}


# ---- layers as C functions ----


class _Writer:
    """The texts of one net's file and header."""

    def __init__(self, net: fn.Sequential, name: str) -> None:
        self.name, self.dtype, self.real = name, net.dtype, real_type(net.dtype)
        self.inputs, self.outputs = net.input_size, net.output_size
        folded = net if net.frozen else net.fold()
        self.steps = _steps(folded)
        self.scratch = _scratch(self.steps)
        self.called: set[str] = set()  # elementary functions
        self.golden_x = _golden_inputs(folded)
        self.golden_y = net.predict(self.golden_x)
        if not np.isfinite(self.golden_y).all():
            raise ValueError("net has outputs that are not finite for ordinary features: its parameters are too large.")

    def fill(self, template: str, **more: Any) -> str:
        """The template with the names and sizes of this net."""
        values = {"name": self.name, "NAME": self.name.upper(), "real": self.real, "dtype": self.dtype.name}
        return Template(template).substitute(values, inputs=self.inputs, outputs=self.outputs, **more)

    def layer(self, step: _Step) -> str:
        """The constants and the function of a step."""
        in_place = step.reads == step.writes
        arguments = f"{self.real} *y" if in_place else f"const {self.real} *restrict x, {self.real} *restrict y"
        arrays, lines = self.dense(step) if isinstance(step.layer, fn.Dense) else self.elementwise(step, in_place)
        texts = [array(f"{self.name}_{role}_{step.place}", values, self.dtype) for role, values in arrays.items()]
        function = [
            f"/* {_described(step)} */",
            f"static void {self.name}_layer_{step.place}({arguments})",
            "{",
            *("    " + line for line in lines),
            "}",
        ]
        return "\n".join([*texts, "\n".join(function) + "\n"])

    def dense(self, step: _Step) -> tuple[dict[str, Array], list[str]]:
        """A few rows of W per pass over the outputs: vector code in every compiler, few loads and stores of y."""
        n, k, at_once = step.outputs, step.inputs, _INPUTS_AT_ONCE
        weight = f"{self.name}_weight_{step.place}"
        first, end = min(k, at_once), k - k % at_once
        start = f"{self.name}_bias_{step.place}[j] + " if "bias" in step.parameters else ""
        lines = [f"const {self.real} *w = {weight};", *_loop(n, f"y[j] = {start}{_products('', first, n)};")]
        if end > at_once:
            lines += [
                f"for (size_t i = {at_once}; i < {end}; i += {at_once}) {{",
                f"    w += {at_once * n};",
                *("    " + line for line in _loop(n, f"y[j] += {_products('i', at_once, n)};")),
                "}",
            ]
        if end and end < k:
            lines += [f"w += {at_once * n};", f"x += {end};", *_loop(n, f"y[j] += {_products('', k - end, n)};")]
        lines += self.activation(step.layer.own_activation, n, "y[j]")
        return step.parameters, lines

    def elementwise(self, step: _Step, in_place: bool) -> tuple[dict[str, Array], list[str]]:
        layer, own, v = step.layer, step.parameters, "y[j]" if in_place else "x[j]"
        prefix, suffix = f"{self.name}_", f"_{step.place}[j]"
        if isinstance(layer, fn.Scale):
            return {}, _loop(step.outputs, f"y[j] = {literal(layer.factor, self.dtype)} * {v};")
        if isinstance(layer, fn.Standardize):
            formula = f"y[j] = ({v} - {prefix}mean{suffix}) / {prefix}scale{suffix};"
            return own, _loop(step.outputs, formula)
        if isinstance(layer, fn.BatchNorm):
            factor = 1 / np.sqrt(own["running_var"] + self.dtype.type(layer.eps)) * own["gamma"]
            formula = f"y[j] = ({v} - {prefix}mean{suffix}) * {prefix}factor{suffix} + {prefix}shift{suffix};"
            arrays = {"mean": own["running_mean"], "factor": factor, "shift": own["beta"]}
            return arrays, _loop(step.outputs, formula)
        return {}, self.activation(layer, step.outputs, v)

    def activation(self, layer: Any, n: int, v: str) -> list[str]:
        """Statements for the n values v, "x[j]" or "y[j]"."""
        if isinstance(layer, fn.Identity):
            return [] if v == "y[j]" else _loop(n, f"y[j] = {v};")
        if isinstance(layer, fn.Softmax):
            self.called.add("softmax")
            return [*self.activation(fn.Identity(), n, v), f"{self.name}_softmax(y, {n});"]
        formula, function = _FORMULAS[layer.name]
        self.called |= {function} if function else set()
        numbers = {"alpha": layer.alpha, "selu_scale": fn.SELU.SCALE, "selu_scale_alpha": fn.SELU.SCALE * fn.SELU.ALPHA}
        constants = {key: literal(value, self.dtype) for key, value in numbers.items()}
        return _loop(n, f"y[j] = {formula.format(v=v, f=f'{self.name}_{function}', **constants)};")

    # ---- whole files ----

    def source(self, header: str) -> str:
        layers = [self.layer(step) for step in self.steps]
        single = self.dtype.name == "float32"
        macro, digits, exponent = ("FLT", 24, 128) if single else ("DBL", 53, 1024)
        parts = [
            self.fill(_TOP, header=header, macro=macro, digits=digits, exponent=exponent, **self.described()),
            functions(self.name, self.dtype, self.called),
            *layers,
            self.predict(),
            self.main(),
        ]
        return "\n".join(part for part in parts if part)

    def described(self) -> dict[str, str]:
        parameters = sum(values.size for step in self.steps for values in step.parameters.values())
        layers = "".join(f" *   {_described(step)}\n" for step in self.steps)
        return {"version": fn.__version__, "parameters": f"{parameters:,}", "layers": layers.rstrip("\n")}

    def predict(self) -> str:
        buffers = [f"{self.real} {', '.join(f'{name}[{size}]' for name, size in self.scratch.items())};"]
        calls = []
        for step in self.steps:
            arguments = [step.reads] if step.reads == step.writes else [step.reads, step.writes]
            calls.append(f"{self.name}_layer_{step.place}({', '.join(arguments)});")
        body = "".join(f"    {line}\n" for line in [*(buffers if self.scratch else []), *calls])
        return self.fill(_PREDICT, body=body)

    def main(self) -> str:
        operations = sum(step.outputs * (step.inputs if "weight" in step.parameters else 1) for step in self.steps)
        largest = float(np.abs(self.golden_y).max())
        return self.fill(
            _MAIN,
            vectors=_VECTORS,
            calls=min(_MOST_CALLS, max(_VECTORS, _TIMED_OPERATIONS // operations)),
            relative=f"{_TOLERANCE[self.dtype.name]:g}",
            allowed=repr(_TOLERANCE[self.dtype.name] * largest),
            golden_x=array(f"{self.name}_golden_x", self.golden_x, self.dtype),
            golden_y=array(f"{self.name}_golden_y", self.golden_y, self.dtype),
        )

    def header(self) -> str:
        stack = sum(self.scratch.values()) * self.dtype.itemsize
        return self.fill(_HEADER, stack=stack, last=_described(self.steps[-1]).partition(": ")[2], **self.described())


def _described(step: _Step) -> str:
    layer = step.layer
    if isinstance(layer, fn.Dense):
        activation = "" if isinstance(layer.own_activation, fn.Identity) else f", {layer.own_activation.name}"
        return f"layer {step.place}: Dense {step.inputs} -> {step.outputs}{activation}"
    return f"layer {step.place}: {type(layer).__name__}, {step.outputs}"


def _loop(n: int, statement: str) -> list[str]:
    body = wrap(statement, LINE_LENGTH - 16, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return [f"for (size_t j = 0; j < {n}; j++)", *("    " + line for line in body)]


def _products(index: str, count: int, n: int) -> str:
    """x[i] * w[j] + x[i + 1] * w[j + n] + ..., `count` terms."""
    terms = []
    for t in range(count):
        row = " + ".join(filter(None, [index, str(t) if t or not index else ""]))
        terms.append(f"x[{row}] * w[j{f' + {t * n}' if t else ''}]")
    return " + ".join(terms)


def _golden_inputs(net: fn.Sequential) -> Array:
    """Features in the range that the net expects, spread evenly by multiples of the golden ratio."""
    count = _VECTORS * net.input_size
    spread = (np.arange(1, count + 1) * 0.6180339887498949 % 1).reshape(_VECTORS, net.input_size)
    first = net.layers[0]
    if isinstance(first, fn.Scale):
        features = spread / first.factor
    elif isinstance(first, fn.Standardize):
        own = net.parameters()
        features = own["0.mean"] + own["0.scale"] * (4 * spread - 2)
    else:
        features = 4 * spread - 2
    return features.astype(net.dtype)


# ---- the parts that are the same for all nets ----

_HEADER = """\
/* Predictor of a fully connected net of ${parameters} parameters, ${dtype}, written by fastnn ${version}. */
#ifndef ${NAME}_H
#define ${NAME}_H

#define ${NAME}_INPUTS ${inputs}
#define ${NAME}_OUTPUTS ${outputs}

/* Arrays of ${name}_predict; its frame and calls add a few hundred bytes. */
#define ${NAME}_STACK_BYTES ${stack}

#ifdef __cplusplus
extern "C" {
#endif

/* Of one sample: x holds its features, y receives the values of the last layer, ${last}. The two must
 * not overlap. Nothing is allocated or kept, so that threads may call it at the same time. */
void ${name}_predict(const ${real} *x, ${real} *y);

#ifdef __cplusplus
}
#endif

#endif
"""

_TOP = """\
/* Predictor of a fully connected net of ${parameters} parameters, ${dtype}, written by fastnn ${version}. C99 without a
 * library; with -D${NAME}_MAIN a program that checks itself. Not for -ffast-math.
${layers}
 */
#include "${header}"

#include <float.h>
#include <stddef.h>
#include <stdint.h>

#if FLT_RADIX != 2 || ${macro}_MANT_DIG != ${digits} || ${macro}_MAX_EXP != ${exponent}
#error "${real} is not what ${dtype} is: IEEE 754, ${digits} binary digits"
#endif
"""

_PREDICT = """\
void ${name}_predict(const ${real} *restrict x, ${real} *restrict y)
{
${body}}
"""

_MAIN = """\
#ifdef ${NAME}_MAIN
#include <stdio.h>
#include <time.h>

/* ${vectors} samples, and what fastnn predicts for them. */
${golden_x}
${golden_y}
static volatile ${real} ${name}_sink; /* so that no call is left out */

int main(void)
{
    static ${real} y[${NAME}_OUTPUTS];
    const double allowed = ${allowed}; /* ${relative} of the largest output */
    double largest = 0;
    int failures = 0;
    for (size_t v = 0; v < ${vectors}; v++) {
        ${name}_predict(${name}_golden_x + v * ${NAME}_INPUTS, y);
        for (size_t j = 0; j < ${NAME}_OUTPUTS; j++) {
            const ${real} expected = ${name}_golden_y[v * ${NAME}_OUTPUTS + j];
            const double difference = (double)y[j] - (double)expected;
            const double size = difference < 0 ? -difference : difference;
            largest = size > largest ? size : largest;
            failures += !(size <= allowed);
        }
    }
    const clock_t start = clock();
    for (size_t call = 0; call < ${calls}; call++) {
        const ${real} *x = ${name}_golden_x + call % ${vectors} * ${NAME}_INPUTS;
        ${name}_predict(x, y);
        ${name}_sink = y[0];
    }
    const double microseconds = 1e6 * (double)(clock() - start) / ((double)CLOCKS_PER_SEC * ${calls});
    printf("${name}: %s, largest difference %.2g, allowed %.2g; %.3f us per call\\n",
           failures ? "FAILED" : "passed", largest, allowed, microseconds);
    return failures != 0;
}
#endif
"""
