"""One case per kernel of kernels.def: what it must do, at awkward sizes, against `reference`.

A case calls its kernel through `Harness.run` (placement, guards, read-only inputs) and compares with the oracle within
a tolerance derived from the rounding errors of the formula: `h.eps` times the sum of the magnitudes that are added.
Where a contract names padding, it is part of the case: input padding that must not matter holds NaN.
"""

from __future__ import annotations

import ctypes
import dataclasses
import itertools

import kernel_table
import numpy as np
import reference
from kernel_harness import (
    Conversion,
    FeatureMatrix,
    assert_close,
    assert_untouched,
    split_column_block,
    ulp_error,
)

CASES = {}


def case(function):
    """Register a case under the name of its kernel."""
    CASES[function.__name__] = function
    return function


def c_random(random):
    return kernel_table.Random(random.seed, random.step, random.stream, random.layer)


def magnitude_product(a, b):
    return np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)


# ---- the three products of a dense layer ----


def product_shapes(h):
    """(rows, columns, depth) of a product and the extra padding of its matrices."""
    w = h.table.width
    rows, columns, depth = (0, 1, 2, 3, 5, 8, 13, 33), (1, w - 1 or 2, w, w + 1, 33, 100), (0, 1, 2, 7, 17, 100)
    for i, (m, n, k) in enumerate(itertools.product(rows, columns, depth)):
        yield m, n, k, i % 2 * h.table.pad
    yield 70, 3 * h.table.pad + 1, 1100, 0  # longer than a block of depth
    yield 200, 5 * h.table.pad + 3, 300, 0  # and than a block of rows, with copies of both factors
    yield 26, 33 * h.table.pad + 1, 410, 0  # copies of a deep B with distant rows


def check_padded_output(h, out, values, tolerance, context):
    """values in the first columns, 0 up to the next multiple of the pad, nothing written beyond."""
    n = values.shape[1]
    edge = h.table.padded(n)
    assert_close(out[:, :n], values, tolerance, context)
    assert not out[:, n:edge].any(), f"{context}: padding is not 0"
    assert_untouched(out[:, edge:], context)


@case
def dense_forward(h):
    # A derivative of f is at most this (SELU's is the largest), so errors of the product grow by no more.
    steepest = 1.8
    activations = [name for name in reference.ACTIVATIONS if name != "softmax"]
    for i, (m, n, k, extra) in enumerate(product_shapes(h)):
        activation, alpha, with_bias = activations[i % len(activations)], 0.25, i % 3 != 0
        ldy = h.table.padded(n) + extra
        x, w = h.random(m, k), h.random(k, n)
        bias = h.random(n) if with_bias else None
        padded_bias = h.with_pads(bias[None], h.table.padded(n), pad=0)[0] if with_bias else None
        x_padded, w_padded = h.with_pads(x, h.table.padded(k)), h.with_pads(w, ldy, pad=0)
        number = reference.ACTIVATIONS.index(activation)

        def run(y, x, m, w=w_padded, b=padded_bias, act=number, a=alpha, n=n, k=k, ldy=ldy):
            return h.run("dense_forward", y, x, w, b, act, a, m, n, k, ldy, h.table.padded(k), ldy)

        y = run(h.poison(m, ldy), x_padded, m)
        expected = reference.dense_forward(x, w, bias, activation, alpha)
        error = (k + 1) * h.eps * (magnitude_product(x, w) + (np.abs(bias) if with_bias else 0))
        context = f"{activation} m={m} n={n} k={k} ldy={ldy}"
        check_padded_output(h, y, expected, steepest * error + 8 * h.eps * (1 + np.abs(expected)), context)
        if m > 1 and i % 4 == 0:
            alone = run(h.poison(1, ldy), x_padded[-1:].copy(), 1)
            assert alone[0, :n].tobytes() == y[-1, :n].tobytes(), f"{context}: a row's bits depend on m"


@case
def dense_pack(h):
    for k, n, extra in itertools.product((1, 2, 7, 33), h.sizes, (0, h.table.pad)):
        w, pad = h.random(k, n), h.table.pad
        panels = h.run(
            "dense_pack",
            h.poison(h.table.padded(n) * k),
            h.with_pads(w, h.table.padded(n) + extra),
            k,
            n,
            h.table.padded(n) + extra,
        )
        assert_close(panels, reference.dense_pack(w, pad).ravel(), 0, f"k={k} n={n} extra={extra}")


@case
def dense_forward_packed(h):
    activations = [name for name in reference.ACTIVATIONS if name != "softmax"]
    for i, (m, n, k, extra) in enumerate(product_shapes(h)):
        activation, alpha, with_bias = activations[i % len(activations)], 0.25, i % 3 != 0
        edge, ldy, ldx = h.table.padded(n), h.table.padded(n) + extra, k + i % 2  # x need not be padded
        x, w = h.random(m, k), h.random(k, n)
        bias = h.with_pads(h.random(n)[None], edge, pad=0)[0] if with_bias else None
        panels = reference.dense_pack(w, h.table.pad).astype(h.dtype).ravel()
        number = reference.ACTIVATIONS.index(activation)
        y = h.run(
            *("dense_forward_packed", h.poison(m, ldy), h.with_pads(x, ldx), panels, bias, number, alpha),
            *(m, n, k, ldy, ldx),
        )
        assert_untouched(y[:, edge:], f"m={m} n={n} k={k}")
        h.table.dense_forward(
            *(expected := h.poison(m, ldy), h.with_pads(x, h.table.padded(k)), h.with_pads(w, ldy, pad=0), bias),
            *(number, alpha, m, n, k, ldy, h.table.padded(k), ldy),
        )
        assert y[:, :edge].tobytes() == expected[:, :edge].tobytes(), f"{activation} m={m} n={n} k={k}: other bits"


@case
def dense_backward_weights(h):
    for k, n, m, extra in product_shapes(h):
        ldx, ldw = h.table.padded(k), h.table.padded(n) + extra
        x, dy, start = h.random(m, k), h.random(m, n), h.random(k, n)
        x_padded, dy_padded = h.with_pads(x, ldx), h.with_pads(dy, ldw, pad=0)

        def run(dw, rows, accumulate, x=x_padded, dy=dy_padded, k=k, n=n, ldx=ldx, ldw=ldw):
            x, dy = x[rows].copy(), dy[rows].copy()
            return h.run("dense_backward_weights", dw, x, dy, accumulate, k, n, len(x), ldw, ldx, ldw)

        context = f"k={k} n={n} m={m} lddw={ldw}"
        error = (m + 1) * h.eps * (magnitude_product(x.T, dy) + np.abs(start))
        dw = run(h.poison(k, ldw), slice(None), 0)
        check_padded_output(h, dw, reference.dense_backward_weights(x, dy), error, context)
        begun = h.with_pads(start, ldw)
        begun[:, n : h.table.padded(n)] = 0
        added = run(begun, slice(None), 1)
        check_padded_output(h, added, reference.dense_backward_weights(x, dy, start), error, f"{context} accumulate")
        if m > 2:
            halves = run(run(h.poison(k, ldw), slice(0, m // 2), 0), slice(m // 2, None), 1)
            assert halves[:, :n].tobytes() == dw[:, :n].tobytes(), f"{context}: accumulating does not continue the sum"


@case
def dense_update_weights(h):
    """The same bits as dW and then a plain step, for sums of up to FNN_UPDATE_ROWS terms."""
    update_rows, rate = 128, 0.125 + 1 / 3
    for k, n, m, extra in product_shapes(h):
        m = min(m, update_rows)
        ldx, ldw = h.table.padded(k), h.table.padded(n) + extra
        x, dy, w = h.random(m, k), h.random(m, n), h.random(k, n)
        sizes = (k, n, m, ldw, ldx, ldw)
        x_padded, dy_padded, begun = h.with_pads(x, ldx), h.with_pads(dy, ldw, pad=0), h.with_pads(w, ldw)
        begun[:, n : h.table.padded(n)] = 0
        context = f"k={k} n={n} m={m} ldw={ldw}"
        updated = h.run("dense_update_weights", begun.copy(), x_padded, dy_padded, rate, *sizes)
        product = reference.dense_backward_weights(x, dy)
        error = h.eps * ((m + 2) * rate * magnitude_product(x.T, dy) + np.abs(w))
        check_padded_output(h, updated, w - float(h.dtype.type(rate)) * product, error, context)
        dw = h.run("dense_backward_weights", h.poison(k, ldw), x_padded, dy_padded, 0, *sizes)
        step = kernel_table.Update(learning_rate=rate, clip_scale=1.0, clip_min=-np.inf, clip_max=np.inf)
        flat = begun[:, :n].ravel(), dw[:, :n].ravel()
        stepped = h.run("sgd_update", flat[0], None, flat[1], step, k * n)
        assert stepped.tobytes() == updated[:, :n].tobytes(), f"{context}: other bits than dW and a step"


@case
def dense_backward_input(h):
    for m, k, n, extra in product_shapes(h):
        lddx, lddy = h.table.padded(k) + extra, h.table.padded(n)
        dy, w = h.random(m, n), h.random(k, n)
        wt = h.with_pads(np.ascontiguousarray(w.T), lddx, pad=0)
        dx = h.run("dense_backward_input", h.poison(m, lddx), h.with_pads(dy, lddy), wt, m, k, n, lddx, lddy, lddx)
        error = (n + 1) * h.eps * magnitude_product(dy, w.T)
        context = f"m={m} k={k} n={n} lddx={lddx}"
        check_padded_output(h, dx, reference.dense_backward_input(dy, w.T), error, context)


@case
def transpose(h):
    for (rows, columns), extra in itertools.product(itertools.product(h.sizes, h.sizes), (0, h.table.pad)):
        ldwt, ldw = h.table.padded(rows) + extra, h.table.padded(columns) + extra
        w = h.random(rows, columns)
        wt = h.run("transpose", h.poison(columns, ldwt), h.with_pads(w, ldw), rows, columns, ldwt, ldw)
        expected = np.zeros((columns, ldwt))
        expected[:, :rows] = reference.transpose(w)
        assert_close(wt, expected, 0, f"rows={rows} columns={columns} ldwt={ldwt} ldw={ldw}")


@case
def column_sums(h):
    for m, n, extra in itertools.product((0, 1, 2, 7, 300, 1031), h.sizes, (0, 3)):
        x, start = h.random(m, n), h.random(n)
        block, error = h.column_block(x, n + extra), (m + 1) * h.eps * (np.abs(x).sum(axis=0) + 3)
        sums = h.run("column_sums", h.poison(n), block, 0, m, n, n + extra)
        assert_close(sums, reference.column_sums(x), error, f"m={m} n={n}")
        added = h.run("column_sums", start, block, 1, m, n, n + extra)
        assert_close(added, reference.column_sums(x, start), error, f"m={m} n={n} accumulate")


@case
def add(h):
    for n in h.every_size:
        a, b = h.random(n), h.random(n)
        assert_close(h.run("add", a, b, n), reference.add(a, b), h.eps * (np.abs(a) + np.abs(b)), f"count={n}")


# ---- activations ----


LONG_PI = np.longdouble("3.14159265358979323846264338327950288")


def normal_distribution(x):
    """Phi(x) in longdouble for x that are float64: Phi(-a) by the series of Phi - 1/2, whose terms are all of one sign,
    up to a = 2, then by Laplace's continued fraction of Phi(-a) / phi(a)."""
    a = np.abs(x)
    upper = a.astype(np.float32).astype(np.longdouble)  # its square is exact: e^(-a^2 / 2) multiplies errors by a^2
    density = np.exp(-upper * upper / 2) * np.exp((upper - a) * (upper + a) / 2) / np.sqrt(2 * LONG_PI)
    small, large = np.minimum(a, 2), np.maximum(a, 2)
    term = series = small
    for n in range(3, 81, 2):
        term = term * small * small / n
        series = series + term
    fraction = large
    for n in range(200, 0, -1):
        fraction = large + n / fraction
    tail = np.where(a < 2, 0.5 - density * series, density / fraction)
    return np.where(x < 0, tail, 1 - tail)


def exact_activation(x, name, alpha):
    """f(x) in a wider type than x: float64 for float32, longdouble for float64."""
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    if name == "gelu" and wide.dtype == np.longdouble:
        return wide * normal_distribution(wide)
    return reference.activation_forward(wide, name, alpha)


def activation_points(h, count):
    """Inputs of every scale, both signs."""
    points = h.random(count, low=-4, high=4)
    points[::5] *= 1e-3
    points[1::7] *= 20
    return points


@case
def activation_forward(h):
    for number, name in enumerate(reference.ACTIVATIONS[:-1]):
        for n, alpha in [(n, 0.25) for n in h.every_size] + [(1031, 0.0), (1031, 1.5), (30000, 0.25)]:
            x = activation_points(h, n)
            y = h.run("activation_forward", h.poison(n), x, number, alpha, n)
            exact = exact_activation(x, name, alpha)
            error = ulp_error(y, exact)
            worst = int(np.argmax(error)) if n else 0
            context = f"{name} count={n}"
            assert n == 0 or error[worst] <= 4, (
                f"{context}: f({x[worst]!r}) = {y[worst]!r}, expected {exact[worst]!r}: {error[worst]:.1f} ulp"
            )
        assert h.run("activation_forward", x, x, number, alpha, n).tobytes() == y.tobytes(), f"{name}: y is x"
        special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, -1000.0, 1000.0] * 7, h.dtype)
        y = h.run("activation_forward", h.poison(special.size), special, number, 0.25, special.size)
        expected = reference.activation_forward(special, name, 0.25).astype(h.dtype)
        if name in ("gelu", "silu"):
            expected[special == -np.inf] = 0  # the limit; the formula says inf * 0
        assert_close(y, expected, 4 * h.eps * np.nan_to_num(np.abs(expected)), f"{name}({special[:7]})")


@case
def activation_backward(h):
    for number, name in enumerate(reference.ACTIVATIONS[:-1]):
        for n, alpha in [(n, 0.25) for n in h.every_size] + [(1031, 0.0), (1031, 1.5)]:
            x, dy = activation_points(h, n), h.random(n)
            y = reference.activation_forward(x, name, alpha).astype(h.dtype)
            given = x if name in ("gelu", "silu") else None
            dx = h.run("activation_backward", h.poison(n), dy, given, y, number, alpha, n)
            # f' from y cancels (1 - y^2, y + alpha): an absolute error of some eps, not a relative one.
            error = 16 * h.eps * np.abs(dy) * (1 + min(alpha, 1.5))
            assert_close(dx, reference.activation_backward(dy, x, name, alpha), error, f"{name} {alpha} count={n}")
        aliased = h.run("activation_backward", dy, dy, given, y, number, alpha, n)
        assert aliased.tobytes() == dx.tobytes(), f"{name}: dx is dy"


def row_shapes(h):
    """(rows, columns, padded leading dimension)"""
    for m, n, extra in itertools.product((0, 1, 2, 5), [s for s in h.sizes if s], (0, h.table.pad)):
        yield m, n, h.table.padded(n) + extra
    yield 3, 1031, h.table.padded(1031)


def check_zero_padded(out, values, tolerance, context):
    assert_close(out[:, : values.shape[1]], values, tolerance, context)
    assert not out[:, values.shape[1] :].any(), f"{context}: padding is not 0"


@case
def softmax_forward(h):
    for m, n, ld in row_shapes(h):
        for spread in (3, 1e4):
            x = h.random(m, n, low=-spread, high=spread)
            y = h.run("softmax_forward", h.poison(m, ld), h.with_pads(x, ld), m, n, ld)
            expected = reference.softmax_forward(x)
            # An argument of exp below -100 counts for nothing; rounding one of size a costs a eps.
            error = (min(2 * spread, 100) + 16 + n / 8) * h.eps * expected + np.finfo(h.dtype).tiny
            check_zero_padded(y, expected, error, f"m={m} n={n} ld={ld} spread={spread}")
        x[:1] = np.nan
        y = h.run("softmax_forward", h.poison(m, ld), h.with_pads(x, ld), m, n, ld)
        check_zero_padded(y, reference.softmax_forward(x), error, f"m={m} n={n} ld={ld} NaN")


@case
def softmax_backward(h):
    for m, n, ld in row_shapes(h):
        y, dy = reference.softmax_forward(h.random(m, n)).astype(h.dtype), h.random(m, n)
        dx = h.run("softmax_backward", h.poison(m, ld), h.with_pads(dy, ld), h.with_pads(y, ld), m, n, ld)
        error = (4 + n / 8) * h.eps * y * (np.abs(dy) + (np.abs(dy) * y).sum(axis=1, keepdims=True))
        check_zero_padded(dx, reference.softmax_backward(dy, y), error, f"m={m} n={n} ld={ld}")


@case
def scale(h):
    for n in h.every_size:
        x = h.random(n)
        y = h.run("scale", h.poison(n), x, 0.3, n)
        assert_close(y, reference.scale(x, 0.3), 2 * h.eps * np.abs(x), f"count={n}")
    assert h.run("scale", x, x, 0.3, n).tobytes() == y.tobytes(), "y is x"


def elementary_points(h):
    """A dense sample of every magnitude and sign, and the places where implementations break."""
    info = np.finfo(h.dtype)
    exponents = np.arange(info.minexp - info.nmant, info.maxexp)
    magnitudes = np.ldexp(h.rng.uniform(1, 2, (16, exponents.size)), exponents).ravel()
    near = h.rng.uniform(-1, 1, 20000)
    edges = [0, 0.5, 1, 2, np.log(2) / 2, np.log(2), 0.625, np.log(3) / 2, float(info.eps), float(info.tiny)]
    edges += [
        float(info.max),
        np.log(float(info.max)),
        -np.log(float(info.tiny)),
        103.972,
        104.0,
        745.13,
        745.14,
        17,
        19.1,
    ]
    edges = np.array(edges, h.dtype)
    with np.errstate(over="ignore"):
        neighbours = [np.nextafter(edges, h.dtype.type(direction)) for direction in (-np.inf, np.inf)]
    edges = np.concatenate([edges, *neighbours])
    positive = np.concatenate([magnitudes, edges, near, near * 20, near * 100, near * 745, near * 1e-3 + 1]).astype(
        h.dtype
    )
    special = np.array([np.inf, np.nan], h.dtype)
    return np.concatenate([positive, special, -positive, -special])


@case
def elementary(h):
    wide = np.float64 if h.table.bits == 32 else np.longdouble
    points = elementary_points(h)
    assert np.isfinite(points).mean() > 0.99
    for number, name in enumerate(reference.ELEMENTARY):
        for n in h.every_size:
            h.run("elementary", h.poison(n), points[:n].copy(), number, n)
        y = h.run("elementary", h.poison(points.size), points, number, points.size)
        error = ulp_error(y, reference.elementary(points.astype(wide), name).astype(wide))
        worst = int(np.argmax(error))
        assert error[worst] <= 4, f"{name}({points[worst]!r}) = {y[worst]!r}: {error[worst]:.1f} ulp"
        if name in ("expm1", "log1p", "tanh", "erf"):
            zero = h.run("elementary", h.poison(2), np.array([0.0, -0.0], h.dtype), number, 2)
            assert list(np.signbit(zero)) == [False, True], f"{name} loses the sign of zero"


# ---- dropout ----

RANDOMS = (
    reference.Random(seed=0x0123456789ABCDEF, step=7, stream=reference.STREAM_DROPOUT, layer=3),
    reference.Random(seed=2**64 - 1, step=2**56 - 1, stream=255, layer=2**16 - 1),
)


@case
def dropout_forward(h):
    starts = itertools.cycle((0, 5, 2**33 + 1))
    thresholds = itertools.cycle((32768, 13107, 1, 0, 65535))
    for (m, n, ld), random in itertools.product(row_shapes(h), RANDOMS):
        first_row, threshold = next(starts), next(thresholds)
        x, factor = h.random(m, n, low=1), 1 / (1 - threshold / 65536)
        arguments = h.with_pads(x, ld), threshold, factor, c_random(random), first_row, m, n, ld
        y, mask = h.run("dropout_forward", h.poison(m, ld), h.poison(m, ld, dtype=np.uint8), *arguments)
        expected, expected_mask = reference.dropout_forward(x, threshold, factor, random, first_row)
        context = f"m={m} n={n} ld={ld} threshold={threshold} first_row={first_row}"
        check_zero_padded(mask, expected_mask, 0, f"{context}: mask")
        check_zero_padded(y, expected, 2 * h.eps * np.abs(expected), context)
        assert ((y[:, :n] == 0) == (expected_mask == 0)).all()
        alone = h.run("dropout_forward", h.poison(m, ld), None, *arguments)
        assert alone.tobytes() == y.tobytes(), f"{context}: mask NULL"


@case
def dropout_backward(h):
    for n in h.every_size:
        dy, mask = h.random(n), h.rng.integers(0, 2, n).astype(np.uint8)
        dx = h.run("dropout_backward", h.poison(n), dy, mask, 1.25, n)
        assert_close(dx, reference.dropout_backward(dy, mask, 1.25), 2 * h.eps * np.abs(dy), f"count={n}")


@case
def dropout_enumerated(h):
    for m, n, ld in row_shapes(h):
        if n > 64:
            continue
        for first_mask, rows in itertools.product((0, 5, 2**63 + 2**40 + 12345), (1, m)):
            x, first_bit = h.random(rows, n, low=1), min(3, 64 - n)
            ldx = 0 if rows == 1 else ld
            arguments = h.with_pads(x, ld), 1.25, first_mask, first_bit, m, n, ld, ldx
            y = h.run("dropout_enumerated", h.poison(m, ld), *arguments)
            expected = reference.dropout_enumerated(x, 1.25, first_mask, first_bit, m, n)
            context = f"m={m} n={n} ld={ld} ldx={ldx} first_mask={first_mask}"
            assert_close(y[:, :n], expected, 2 * h.eps * np.abs(expected), context)
            pads = y[:, n:]
            assert (np.isnan(pads) | (pads == 0)).all(), f"{context}: padding is neither 0 nor as before"


# ---- batch normalisation: blocks of columns ----


def batch_shapes(h):
    """(rows, columns, leading dimension): any columns, and rows beyond the chunk length of the sums."""
    yield from itertools.product((1, 2, 7, 33), [s for s in h.sizes if s], (100, 103))
    for m in (64, 65, 127, 257, 600, 1031):
        yield m, 17, 17


class Batch:
    """Random data of a batch normalisation, mean and variance of x included."""

    def __init__(self, h, m, n, offset=0.5):
        self.x = (h.random(m, n) + h.dtype.type(offset)).astype(h.dtype)
        self.dy, self.gamma, self.beta = h.random(m, n), h.random(n, low=0.5), h.random(n)
        self.mean, self.var = (s.astype(h.dtype) for s in reference.batchnorm_statistics(self.x))
        self.eps = 1e-3
        # Bounds of the terms: |x| + |mean| and the gradient's, over the deviation.
        self.deviation = np.sqrt(self.var.astype(np.float64) + self.eps)
        self.size = (np.abs(self.x) + np.abs(self.mean)) / self.deviation


@case
def batchnorm_statistics(h):
    for (m, n, ld), ratio in itertools.product(batch_shapes(h), (0, 100)):
        x = (h.random(m, n) + h.dtype.type(ratio * 3 / np.sqrt(3))).astype(h.dtype)
        mean, var = h.run("batchnorm_statistics", h.poison(n), h.poison(n), h.column_block(x, ld), m, n, ld)
        expected_mean, expected_var = reference.batchnorm_statistics(x)
        context = f"m={m} n={n} ld={ld} mean/std={ratio}"
        assert_close(mean, expected_mean, 32 * h.eps * np.abs(x).max(axis=0), context)
        # 1e-5 relative at mean/std = 100 is the promise in float32; eps of the mean's square is what no one can keep.
        error = 80 * h.eps * expected_var + (32 * h.eps * np.abs(x).max(axis=0)) ** 2
        assert_close(var, expected_var, error, context)
        assert (var >= 0).all(), f"{context}: negative variance"


@case
def batchnorm_forward(h):
    for m, n, ld in batch_shapes(h):
        b = Batch(h, m, n)
        y = h.run(
            "batchnorm_forward", h.column_block(h.poison(m, n), ld), h.column_block(b.x, ld), b.mean, b.var, b.gamma,
            b.beta, b.eps, m, n, ld,
        )  # fmt: skip
        values, between = split_column_block(y, m, n, ld)
        error = 8 * h.eps * (np.abs(b.gamma) * b.size + np.abs(b.beta))
        context = f"m={m} n={n} ld={ld}"
        assert_close(values, reference.batchnorm_forward(b.x, b.mean, b.var, b.gamma, b.beta, b.eps), error, context)
        assert_untouched(between, context)


@case
def batchnorm_backward_sums(h):
    for m, n, ld in batch_shapes(h):
        b = Batch(h, m, n)
        blocks = h.column_block(b.dy, ld), h.column_block(b.x, ld)
        dgamma, dbeta = h.run(
            "batchnorm_backward_sums", h.poison(n), h.poison(n), *blocks, b.mean, b.var, b.eps, m, n, ld
        )
        expected = reference.batchnorm_backward_sums(b.dy, b.x, b.mean, b.var, b.eps)
        assert_close(dgamma, expected[0], (m + 8) * h.eps * (np.abs(b.dy) * b.size).sum(axis=0), f"m={m} n={n}: dgamma")
        assert_close(dbeta, expected[1], m * h.eps * np.abs(b.dy).sum(axis=0), f"m={m} n={n}: dbeta")


@case
def batchnorm_backward(h):
    for m, n, ld in batch_shapes(h):
        b, total = Batch(h, m, n), 2 * m + 1
        sums = reference.batchnorm_backward_sums(b.dy, b.x, b.mean, b.var, b.eps)
        dgamma, dbeta = (s.astype(h.dtype) for s in sums)
        dx = h.run(
            "batchnorm_backward", h.column_block(h.poison(m, n), ld), h.column_block(b.dy, ld), h.column_block(b.x, ld),
            b.mean, b.var, b.gamma, dgamma, dbeta, b.eps, total, m, n, ld,
        )  # fmt: skip
        values, between = split_column_block(dx, m, n, ld)
        expected = reference.batchnorm_backward(b.dy, b.x, b.mean, b.var, b.gamma, dgamma, dbeta, b.eps, total)
        terms = np.abs(b.dy) + np.abs(dbeta) / total + b.size * np.abs(dgamma) / total
        context = f"m={m} n={n} ld={ld}"
        assert_close(values, expected, 12 * h.eps * np.abs(b.gamma) / b.deviation * terms, context)
        assert_untouched(between, context)


@case
def batchnorm_running(h):
    for n in h.every_size:
        running, batch = h.random(n), h.random(n)
        new = h.run("batchnorm_running", running, batch, 0.9, 1.25, n)
        error = 4 * h.eps * (np.abs(running) + np.abs(batch))
        assert_close(new, reference.batchnorm_running(running, batch, 0.9, 1.25), error, f"n={n}")


# ---- losses ----


def check_loss(h, name, targets, parameters, spreads=(3,)):
    """A loss kernel on targets(m, n): loss, gradient, dy NULL, dy = y, padding, zero row weights."""
    for (m, n, ld), parameter, spread in itertools.product(row_shapes(h), parameters, spreads):
        y, t = h.random(m, n, low=-spread, high=spread), targets(m, n)
        if t.ndim == 2:
            y[:, ::3] = t[:, ::3] if name in ("loss_mae", "loss_mse", "loss_huber") else y[:, ::3]
        weight = h.random(m, low=0, high=1, dtype=np.float64)
        weight[1::3] = 0
        padded_y, padded_t = h.with_pads(y, ld), h.with_pads(t, ld) if t.ndim == 2 else t
        arguments = padded_y, padded_t, weight, parameter, m, n, ld
        loss, dy = h.run(name, h.poison(m, dtype=np.float64), h.poison(m, ld), *arguments)
        expected_loss, expected_dy = getattr(reference, name)(y, t, weight, parameter)
        entropy = name.startswith("loss_cross")
        # Sizes of what is summed, per row: |z| and the targets' sum, or residuals (squared) and rates.
        peak = np.abs(y).max(axis=1, initial=1).astype(np.float64)
        total = np.abs(t).sum(axis=1) + 1 if entropy and t.ndim == 2 else np.ones(m)
        if name == "loss_poisson":
            peak = peak * 4 + np.exp(peak)
        if name == "loss_mse":
            peak = (peak + 4) ** 2
        context = f"{name} m={m} n={n} ld={ld} parameter={parameter} spread={spread}"
        slack = 8 + n / 8 if entropy else 8
        assert_close(loss, expected_loss, slack * h.eps * total * (4 * peak + 4), f"{context}: loss")
        error = slack * h.eps * weight * total * (np.minimum(peak, 100) if entropy else peak) / (1 if entropy else n)
        check_zero_padded(dy, expected_dy, 2 * error[:, None], context)
        value_only = h.run(name, h.poison(m, dtype=np.float64), None, *arguments)
        assert value_only.tobytes() == loss.tobytes(), f"{context}: dy NULL"
        aliased_loss, aliased = h.run(name, h.poison(m, dtype=np.float64), padded_y, *arguments)
        assert (aliased_loss.tobytes(), aliased.tobytes()) == (loss.tobytes(), dy.tobytes()), f"{context}: dy is y"
        y[:1] = np.nan
        arguments = h.with_pads(y, ld), *arguments[1:]
        loss, dy = h.run(name, h.poison(m, dtype=np.float64), h.poison(m, ld), *arguments)
        assert np.isnan(loss[:1]).all(), f"{context}: NaN of the loss is lost"
        assert np.isnan(dy[:1, :n]).all(), f"{context}: NaN of the gradient is lost"
        assert not dy[:, n:].any(), f"{context}: NaN in the padding"


@case
def loss_cross_entropy_labels(h):
    def labels(m, n):
        return h.rng.integers(0, n, m).astype(np.int32)

    check_loss(h, "loss_cross_entropy_labels", labels, (0.0, 0.1), spreads=(3, 1e4))


@case
def loss_cross_entropy(h):
    def soft(m, n):
        return h.random(m, n, low=0, high=1)  # rows do not sum to 1

    check_loss(h, "loss_cross_entropy", soft, (0.0, 0.1), spreads=(3, 1e4))


@case
def loss_binary_cross_entropy(h):
    def binary(m, n):
        return h.random(m, n, low=0, high=1)

    check_loss(h, "loss_binary_cross_entropy", binary, (0.0,), spreads=(3, 1e4))


@case
def loss_mse(h):
    check_loss(h, "loss_mse", h.random, (0.0,))


@case
def loss_mae(h):
    check_loss(h, "loss_mae", h.random, (0.0,))


@case
def loss_huber(h):
    check_loss(h, "loss_huber", h.random, (1.0, 0.3))


@case
def loss_poisson(h):
    def counts(m, n):
        return h.rng.poisson(3, (m, n)).astype(h.dtype)

    check_loss(h, "loss_poisson", counts, (0.0,))


# ---- reductions ----

DOUBLE_EPS = float(np.finfo(np.float64).eps)


@case
def weighted_sum(h):
    for n in [*h.every_size, 5000]:
        values, weights = h.random(n, dtype=np.float64), h.random(n, dtype=np.float64)
        error = (n / 16 + 8) * DOUBLE_EPS * np.abs(values).sum() * 3
        got = h.run("weighted_sum", values, weights, n)
        assert_close(got, reference.weighted_sum(values, weights), error, f"count={n}")
        assert_close(h.run("weighted_sum", values, None, n), reference.weighted_sum(values), error, f"count={n} NULL")


@case
def square_norm(h):
    for n in [*h.every_size, 5000]:
        g, p = h.random(n), h.random(n)
        p[::4] = 0
        plain = h.run("square_norm", g, None, 0.0, 0.0, n)
        assert_close(plain, reference.square_norm(g), (n + 8) * DOUBLE_EPS * 9 * n, f"count={n}")
        for l1, l2 in ((0.1, 0.0), (0.0, 0.2), (0.1, 0.2)):
            got = h.run("square_norm", g, p, l1, l2, n)
            assert_close(got, reference.square_norm(g, p, l1, l2), 8 * h.eps * n * 5**2, f"count={n} l1={l1} l2={l2}")
    huge = h.random(100, low=1, high=2) * h.dtype.type(1e30)
    assert_close(h.run("square_norm", huge, None, 0.0, 0.0, 100) / 1e60, reference.square_norm(huge) / 1e60, 1e-10)


@case
def penalty(h):
    for n in [*h.every_size, 5000]:
        p = h.random(n)
        for l1, l2 in ((0.1, 0.0), (0.0, 0.2), (0.1, 0.2)):
            expected = reference.penalty(p, l1, l2)
            assert_close(h.run("penalty", p, l1, l2, n), expected, 8 * h.eps * expected, f"count={n} l1={l1} l2={l2}")


@case
def any_outside(h):
    answers = set()
    for n in [*h.every_size, 5000]:
        inside, p = h.random(n, low=-0.2, high=0.2), h.random(n, low=-1, high=1)
        for l1, l2 in ((0.0, 0.0), (0.1, 0.0), (0.1, 0.2)):
            for at, value in ((None, 0), *((at, value) for at in {0, n // 2, n - 1} if n for value in (-0.95, 0.85))):
                g, w = inside.copy(), p.copy()
                if at is not None:
                    g[at], w[at] = value, np.sign(value)
                expected = reference.any_outside(g, w, l1, l2, -0.9, 0.8)
                assert bool(h.run("any_outside", g, w, l1, l2, -0.9, 0.8, n)) == expected, f"count={n} at={at}"
                answers.add(expected)
    assert answers == {True, False}


@case
def first_nonfinite(h):
    for n in h.every_size:
        x = h.random(n) * (np.finfo(h.dtype).max / 4)
        assert h.run("first_nonfinite", x, n) == -1, f"count={n}"
        for at in {0, n // 2, n - 1} if n else ():
            bad = x.copy()
            bad[at] = (np.nan, np.inf, -np.inf)[n % 3]
            bad[at + 1 :: 5] = np.nan
            assert h.run("first_nonfinite", bad, n) == at, f"count={n} at={at}"


# ---- optimizers ----


def check_optimizer(h, name, moments, variants):
    """An update kernel for each variant of the fields of fnn_update, the first one at every size."""
    for i, (fields, n) in enumerate([(variants[0], n) for n in h.every_size] + [(v, 100) for v in variants[1:]]):
        update = dataclasses.replace(reference.Update(learning_rate=0.05), **fields)
        p, g = h.random(n), h.random(n)
        p[::6] = 0
        if update.first:
            state = [h.poison(n)] * moments
        else:
            state = [h.random(n, low=0.1, high=2) for _ in range(moments)]
        uses_moments = name != "sgd_update" or update.momentum != 0
        given = [s.copy() for s in state] if uses_moments else [None] * moments
        got = h.run(name, p, *given, g, kernel_table.Update(*dataclasses.astuple(update)), n)
        expected = getattr(reference, name)(p, *state, g, update)
        context = f"{fields} count={n}"
        size = np.abs(p) + np.abs(g) + sum(np.abs(np.nan_to_num(s)) for s in state) + 1
        new, *new_state = got if uses_moments else (got,)
        assert_close(new, expected[0], 16 * h.eps * size, f"{context}: p")
        for k, moment in enumerate(new_state):
            assert_close(moment, expected[k + 1], 16 * h.eps * size**2, f"{context}: moment {k}")
        if update.proximal:
            assert ((new == 0) == (expected[0] == 0)).all(), f"{context}: zeros"
        assert i == 0 or n == 0 or not np.array_equal(new, p)


COMMON_VARIANTS = (
    {"l1": 0.1},
    {"l2": 0.2},
    {"l1": 0.1, "l2": 0.2},
    {"clip_scale": 0.25},
    {"clip_min": -0.5, "clip_max": 0.25},
    {"l1": 0.1, "l2": 0.2, "clip_min": -0.5, "clip_max": 0.25, "weight_decay": 0.3},
    {"weight_decay": 0.3},
    {"proximal": 2.0},
)


@case
def sgd_update(h):
    momentum = ({"momentum": 0.9}, {"momentum": 0.9, "nesterov": 1}, {"momentum": 0.9, "first": 1})
    momentum += ({"momentum": 0.9, "nesterov": 1, "first": 1, "weight_decay": 0.1},)
    momentum += ({"momentum": 0.5, "proximal": 2.0}, {"momentum": 0.5, "nesterov": 1, "proximal": 2.0, "l2": 0.2})
    check_optimizer(h, "sgd_update", 1, [{}, *COMMON_VARIANTS])
    check_optimizer(h, "sgd_update", 1, momentum)


@case
def rmsprop_update(h):
    check_optimizer(h, "rmsprop_update", 1, [{"beta2": 0.99}, *COMMON_VARIANTS])


@case
def adam_update(h):
    corrections = {"correction1": 1 - 0.9**3, "correction2": 1 - 0.999**3}
    variants = [corrections | v for v in COMMON_VARIANTS]
    adamw = [corrections | {"decoupled_decay": 0.1}, corrections | {"decoupled_decay": 0.1, "l1": 0.1, "proximal": 0.1}]
    check_optimizer(h, "adam_update", 2, [corrections, *variants, *adamw])


# ---- gather ----


def feature_matrices(h, dtype, rows, n):
    """The same kinds of values in every layout a caller's array may have."""
    info = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else None
    if info:
        values = h.rng.integers(info.min, info.max, (2 * rows, 2 * n), dtype=dtype, endpoint=True)
    else:
        values = h.random(2 * rows, 2 * n, dtype=dtype)
    yield FeatureMatrix(np.ascontiguousarray(values[:rows, :n]))
    yield FeatureMatrix(np.asfortranarray(values[:rows, :n]))
    yield FeatureMatrix(values[:rows, :n])
    yield FeatureMatrix(values[::-2, ::-2])
    yield FeatureMatrix(np.ascontiguousarray(values[:rows, :n]), byte_offset=1)
    yield FeatureMatrix(np.broadcast_to(values[:1, :n], (rows, n)))


@case
def gather(h):
    def check(features, rows, first_row, m, extra, factor, mean, scale):
        n = features.matrix.shape[1]
        ld = h.table.padded(n) + extra
        conversion = Conversion(factor, mean, scale)
        out = h.run("gather", h.poison(m, ld), features, rows, first_row, conversion, m, n, ld)
        chosen = np.arange(first_row, first_row + m) if rows is None else rows
        converted = features.matrix.astype(h.dtype)
        expected = reference.gather(converted, chosen, factor, mean, scale)
        untouched = factor == 1 and mean is None and scale is None
        size = np.abs(converted[chosen].astype(np.float64)) * factor + (0 if mean is None else np.abs(mean))
        error = 0 if untouched else 4 * h.eps * (size if scale is None else size / np.abs(scale))
        layout = features.matrix.strides, features.byte_offset
        check_zero_padded(out, expected, error, f"{features.matrix.dtype} m={m} n={n} ld={ld} strides, offset={layout}")

    for name in kernel_table.DTYPES:
        for n in h.sizes[1:]:
            mean, scale = h.random(n), h.random(n, low=0.5, high=2)
            conversions = itertools.cycle([(1.0, None, None), (1 / 255, None, None), (1.0, mean, scale)])
            conversions_more = itertools.cycle([(0.5, mean, scale), (1.0, mean, None), (1.0, None, scale)])
            for features in feature_matrices(h, np.dtype(name), 7, n):
                shuffled = h.rng.integers(0, 7, 9).astype(np.int64)
                check(features, shuffled, 0, 9, h.table.pad, *next(conversions))
                check(features, None, 2, 5, 0, *next(conversions_more))
        check(features, np.zeros(0, np.int64), 0, 0, 0, 1.0, None, None)
    for name, n in itertools.product(("float32", "float64", "uint8"), range(1, 131)):
        features = next(feature_matrices(h, np.dtype(name), 3, n))
        check(features, np.array([2, 0, 2]), 0, 3, 0, 1.0, None, None)


# ---- random draws ----


@case
def draw_uniform(h):
    for random, first in itertools.product(RANDOMS, (0, 1, 2**40 + 3)):
        for n in h.sizes + [1031]:
            out = h.run("draw_uniform", h.poison(n), -0.3, 0.7, c_random(random), first, n)
            expected = reference.draw_uniform(-0.3, 0.7, random, first, n).astype(h.dtype)
            assert out.tobytes() == expected.tobytes(), f"first={first} count={n}"
    assert abs(out.mean() - 0.2) < 0.05


@case
def draw_normal(h):
    for random, first in itertools.product(RANDOMS, (0, 1, 2**40 + 3)):
        for n in h.sizes + [1031]:
            out = h.run("draw_normal", h.poison(n), 0.1, c_random(random), first, n)
            expected = reference.draw_normal(0.1, random, first, n)
            # Half of all u lie above 1/2, where the oracle rounds them to 2^-53.
            error = (1e-12 if h.table.bits == 64 else h.eps) * np.abs(expected) + 1e-16
            assert_close(out, expected, error, f"first={first} count={n}")
    assert abs(out.std() - 0.1) < 0.01


@case
def draw_permutation(h):
    for random in RANDOMS:
        for n in [*h.sizes, 2, 3]:
            order = h.run("draw_permutation", h.poison(n, dtype=np.int64), c_random(random), n)
            assert order.tolist() == reference.draw_permutation(random, n).tolist(), f"count={n}"
    assert order.dtype.itemsize == ctypes.sizeof(ctypes.c_int64)


@case
def orthonormalize(h):
    for rows, columns in ((0, 0), (1, 1), (1, 7), (2, 2), (3, 17), (17, 17), (33, 100)):
        a = h.random(rows, columns, dtype=np.float64)
        q = h.run("orthonormalize", a, rows, columns)
        assert_close(q @ q.T, np.eye(rows), 1e-13 * (columns + 1), f"{rows} x {columns}: not orthonormal")
        if rows:
            condition = np.linalg.cond(a)
            assert_close(q, reference.orthonormalize(a), 1e-13 * condition * columns, f"{rows} x {columns}")
