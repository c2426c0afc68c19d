"""The elementary functions of an exported predictor: scalar C99 without libm or tables.

Coefficients are those of ``csrc/kernels/elementary.h``, which says what they fit. Unlike there, nothing relies on fused
multiply-adds, and integers come from conversions of numbers in range, so that excess precision does no harm.
"""

from string import Template
from typing import Any

import numpy as np

from .literals import literal

_REALS = {
    "float32": {
        "real": "float",
        "uint": "uint32_t",
        "mantissa_bits": "23",
        "bias": "127",
        "log2_e": "0x1.715476p0f",
        "ln2_high": "0x1.63p-1f",
        "ln2_low": "-0x1.bd0106p-13f",
        "exp_min": "-104",
        "expm1_min": "-20",
        "silu_min": "-109",
        "gelu_max": "14.5f",
        "half": "0.5f",
        "sqrt_2_minus_1": "0.41421356f",
        "split": "256",
        "inverse_sqrt_2pi": "0.39894228f",
    },
    "float64": {
        "real": "double",
        "uint": "uint64_t",
        "mantissa_bits": "52",
        "bias": "1023",
        "log2_e": "0x1.71547652b82fep0",
        "ln2_high": "0x1.62e42feep-1",
        "ln2_low": "0x1.a39ef35793c76p-33",
        "exp_min": "-746",
        "expm1_min": "-40",
        "silu_min": "-752",
        "gelu_max": "39",
        "half": "0.5",
        "sqrt_2_minus_1": "0.41421356237309503",
        "split": "1048576",
        "inverse_sqrt_2pi": "0.3989422804014327",
    },
}

# (e^r - 1 - r) / r^2, |r| <= ln(2) / 2
_EXP = {
    "float32": (0.4999999814, 0.1666654319, 0.0416672015, 0.008366578816, 0.001388252699),
    "float64": (
        *(0.50000000000000052271, 0.16666666666666588626, 0.041666666666576100693, 0.0083333333333899293565),
        *(0.0013888888931796761412, 0.00019841269718405947852, 0.000024801504977284966091),
        *(2.7557407808784983918e-6, 2.7626161915351580544e-7, 2.5053793720195195023e-8),
    ),
}

# (log((1 + s) / (1 - s)) - 2 s) / s^3 in s^2, |s| <= (sqrt 2 - 1) / (sqrt 2 + 1)
_LOG = {
    "float32": (0.6666666565, 0.4000033518, 0.2853730876, 0.2358215042),
    "float64": (
        *(0.66666666666667344082, 0.39999999999414709824, 0.28571428742379895049, 0.22222198574033159486),
        *(0.18183564279449035602, 0.15314051808710609485, 0.14795936525305172793),
    ),
}

# e^(a^2 / 2) Phi(-a) / (1 - q) in q = (a - 4) / (a + 4), 0 <= a <= GELU_MAX
_NORMAL_TAIL = {
    "float32": (
        *(0.09441064192, -0.07598707332, 0.04839211299, -0.02331543574, 0.007550470616, -9.406255283e-4),
        *(-4.390098653e-4, 1.961988216e-4, 2.229664193e-5, -1.655411115e-5),
    ),
    "float64": (
        *(0.094410641301968936547, -0.075987080246486511879, 0.048392175092776855655, -0.023315232244957329101),
        *(0.0075495718613649262606, -0.00094252362083536864419, -0.00043496154587683289421),
        *(0.00020385230712169340217, 0.000016668038511123647862, -0.000028886866329642212589),
        *(-2.385286924882236623e-7, 4.393083430988919961e-6, 8.9568077693301149417e-8, -7.4001659261277941569e-7),
        *(-7.8670702597937364015e-8, 1.2769062245651819822e-7, 3.3902849112970785494e-8, -1.9378728863997980902e-8),
        *(-1.0596235273682555254e-8, 1.682077981832300728e-9, 2.4027014138303401926e-9),
        *(2.1935008958056039973e-10, -3.0181696247321544177e-10, -8.3746974282132991284e-11),
    ),
}

# Function by function: what it calls, and its text. A function stands below those that it calls.
_FUNCTIONS = {
    "nearest": (
        (),
        """\
/* The integer nearest to x, |x| < 2^31; 0 for NaN, which no integer type can hold. */
static int32_t ${name}_nearest($real x)
{
    const $real number = x == x ? x : 0;
    return (int32_t)(number < 0 ? number - $half : number + $half);
}
""",
    ),
    "power": (
        (),
        """\
/* 2^n where that is a normal number. */
static $real ${name}_power(int32_t n)
{
    union {
        $uint bits;
        $real number;
    } power;
    power.bits = ($uint)(n + $bias) << $mantissa_bits;
    return power.number;
}
""",
    ),
    "exp_fraction": (
        (),
        """\
/* e^r - 1 with r = high + low - n ln 2, |r| <= ln(2) / 2. The first product is exact. */
static $real ${name}_exp_fraction($real high, $real low, int32_t n)
{
    const $real r = (high - ($real)n * $ln2_high) - (($real)n * $ln2_low - low);
$exp_polynomial
    return r + r * r * p;
}
""",
    ),
    "exp_scaled": (
        ("nearest", "power", "exp_fraction"),
        """\
/* a e^(high + low), where low is what high has lost by rounding. The power of two comes last, so that only the result
 * itself can be denormal, and in two steps: 2^n alone may be out of range. */
static $real ${name}_exp_scaled($real a, $real high, $real low)
{
    const int32_t n = ${name}_nearest((high + low) * $log2_e), half = n / 2;
    const $real e = ${name}_exp_fraction(high, low, n);
    return (a + a * e) * ${name}_power(half) * ${name}_power(n - half);
}
""",
    ),
    "exp_negative": (
        ("exp_scaled",),
        """\
/* e^x, x <= 0; 0 below $exp_min. */
static $real ${name}_exp_negative($real x)
{
    return ${name}_exp_scaled(1, x < $exp_min ? $exp_min : x, 0);
}
""",
    ),
    "expm1_negative": (
        ("nearest", "power", "exp_fraction"),
        """\
/* e^x - 1, x <= 0; -1 below $expm1_min. */
static $real ${name}_expm1_negative($real x)
{
    const $real clamped = x < $expm1_min ? $expm1_min : x;
    const int32_t n = ${name}_nearest(clamped * $log2_e);
    const $real power = ${name}_power(n);
    return ${name}_exp_fraction(clamped, 0, n) * power + (power - 1);
}
""",
    ),
    "log1p_unit": (
        (),
        """\
/* log(1 + u), 0 <= u <= 1: k ln 2 + log(1 + f) with |f| < sqrt(2) - 1, summed from the small terms to the large. */
static $real ${name}_log1p_unit($real u)
{
    const int upper = u > $sqrt_2_minus_1;
    const $real k = upper ? 1 : 0, f = upper ? (u - 1) * $half : u;
    const $real s = f / (2 + f), z = s * s, half_square = $half * f * f;
$log_polynomial
    return k * $ln2_high + (f - (half_square - (s * (half_square + z * p) + k * $ln2_low)));
}
""",
    ),
    "gelu": (
        ("nearest", "exp_scaled"),
        """\
/* x Phi(x) = max(x, 0) - |x| Phi(-|x|), where Phi(-a) = m e^-(a^2 / 2) and m' = a m - 1 / sqrt(2 pi). That slope mends
 * what a + 4 has lost. The square of a is split, the first part exact: the exponential would multiply its rounding. */
static $real ${name}_gelu($real x)
{
    const $real magnitude = x > 0 ? x : -x, a = magnitude > $gelu_max ? $gelu_max : magnitude;
    const $real upper = ($real)${name}_nearest(a * $split) / $split;
    const $real sum = a + 4, lost = a < 4 ? a - (sum - 4) : 4 - (sum - a), d = 8 / sum, q = 1 - d;
$tail_polynomial
    const $real rough = d * p, m = rough + lost * (a * rough - $inverse_sqrt_2pi);
    const $real high = -$half * upper * upper, low = -$half * (a - upper) * (a + upper);
    const $real tail = ${name}_exp_scaled(a * m, high, low);
    return (x < 0 ? 0 : x) - tail;
}
""",
    ),
    "silu": (
        ("exp_scaled",),
        """\
/* x / (1 + e^-x), left of 0 as x e^x / (1 + e^x). */
static $real ${name}_silu($real x)
{
    const $real clamped = x < $silu_min ? $silu_min : x, negative = clamped < 0 ? clamped : -clamped;
    const $real exponent = negative < $silu_min ? $silu_min : negative;
    const $real numerator = clamped < 0 ? ${name}_exp_scaled(clamped, exponent, 0) : clamped;
    return numerator / (1 + ${name}_exp_scaled(1, exponent, 0));
}
""",
    ),
    "softplus": (
        ("exp_negative", "log1p_unit"),
        """\
/* log(1 + e^x) */
static $real ${name}_softplus($real x)
{
    return (x > 0 ? x : 0) + ${name}_log1p_unit(${name}_exp_negative(x < 0 ? x : -x));
}
""",
    ),
    "tanh": (
        ("expm1_negative",),
        """\
/* tanh(|x|) = -t / (2 + t) with t = e^(-2 |x|) - 1; zeros keep their sign. */
static $real ${name}_tanh($real x)
{
    const $real t = ${name}_expm1_negative(x < 0 ? 2 * x : -2 * x), magnitude = -t / (2 + t);
    return x < 0 ? -magnitude : x > 0 ? magnitude : x;
}
""",
    ),
    "sigmoid": (
        ("exp_negative",),
        """\
/* 1 / (1 + e^-x), left of 0 as e^x / (1 + e^x). */
static $real ${name}_sigmoid($real x)
{
    const $real e = ${name}_exp_negative(x < 0 ? x : -x);
    return (x < 0 ? e : 1) / (1 + e);
}
""",
    ),
    "softmax": (
        ("exp_negative",),
        """\
/* e^y / sum(e^y) in place; the largest y is subtracted from all. */
static void ${name}_softmax($real *y, size_t n)
{
    $real largest = y[0], sum = 0;
    for (size_t j = 1; j < n; j++)
        largest = y[j] > largest ? y[j] : largest;
    for (size_t j = 0; j < n; j++) {
        y[j] = ${name}_exp_negative(y[j] - largest);
        sum += y[j];
    }
    for (size_t j = 0; j < n; j++)
        y[j] /= sum;
}
""",
    ),
}


def functions(name: str, dtype: np.dtype[Any], wanted: set[str]) -> str:
    """The text of the wanted functions and of those that they call, each named ``<name>_<function>``."""
    needed = set(wanted)
    for function in reversed(_FUNCTIONS):
        if function in needed:
            needed |= set(_FUNCTIONS[function][0])
    values = _REALS[dtype.name] | {
        "name": name,
        "exp_polynomial": _horner("r", _EXP[dtype.name], dtype),
        "log_polynomial": _horner("z", _LOG[dtype.name], dtype),
        "tail_polynomial": _horner("q", _NORMAL_TAIL[dtype.name], dtype),
    }
    return "\n".join(Template(text).substitute(values) for key, (_, text) in _FUNCTIONS.items() if key in needed)


def _horner(variable: str, coefficients: tuple[float, ...], dtype: np.dtype[Any]) -> str:
    """Statements that leave the polynomial of the variable in ``p``."""
    first, *rest = reversed(coefficients)
    lines = [f"{_REALS[dtype.name]['real']} p = {literal(first, dtype)};"]
    lines += [f"p = p * {variable} {'-' if value < 0 else '+'} {literal(abs(value), dtype)};" for value in rest]
    return "\n".join("    " + line for line in lines)
