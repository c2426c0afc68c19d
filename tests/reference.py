"""fastnn in slow, obvious NumPy: the specification as code, in float64.

Everything here is written from the formulas (the course, `csrc/kernels/kernels.def`, `csrc/kernels/table.h`), never
from the kernels, and is the oracle of every numerical test. Three parts:

1. one function per kernel, with the kernel's name: `y = dense_forward(x, w, bias)`. Matrices are given without padding
   and of any dtype, outputs are returned and float64;
2. the random numbers: Philox 4x32-10 and what is drawn from it;
3. whole networks:

       layers = [Dense(8, "tanh"), BatchNorm(), Dropout(0.5), Dense(3)]
       parameters = {"0.weight": ..., "0.bias": ..., "1.gamma": ..., "1.beta": ..., "1.running_mean": ..., ...}
       masks = dropout_masks(layers, n_inputs=4, rows=10, seed=0, step=0)
       loss, gradients = loss_and_gradients(layers, parameters, x, y, "cross_entropy", masks=masks)

   `gradients` has the keys of the trainable parameters, without penalties. `forward`, `backward` and `train_step` are
   the pieces; `Optimizer` holds moments.

Shapes: m rows (samples) of n columns; a gradient's name starts with d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import numpy as np

# In the order of enum fnn_activation in fastnn.h: the place in this tuple is the number.
ACTIVATIONS = (
    "identity",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "softplus",
    "tanh",
    "sigmoid",
    "softmax",
)

# The functions of the kernel `elementary`, in its numbering.
ELEMENTARY = ("exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erf")


def _f64(array):
    return np.asarray(array, np.float64)


# ---------------------------------------------------------------------------------------------------------------------
# 1. The kernels
# ---------------------------------------------------------------------------------------------------------------------

# ---- the three products of a dense layer ----


def dense_forward(x, w, bias=None, activation="identity", alpha=0.0):
    """y (m,n) = activation(x (m,k) w (k,n) + bias (n))."""
    z = _f64(x) @ _f64(w)
    if bias is not None:
        z = z + _f64(bias)
    return activation_forward(z, activation, alpha)


def dense_backward_weights(x, dy, dw=None):
    """dw (k,n) = x^T (k,m) dy (m,n), added to dw if given."""
    product = _f64(x).T @ _f64(dy)
    return product if dw is None else _f64(dw) + product


def dense_backward_input(dy, wt):
    """dx (m,k) = dy (m,n) wt (n,k), wt being w transposed."""
    return _f64(dy) @ _f64(wt)


def dense_pack(w, pad):
    """(panels, k, pad): columns pad j .. of w in panel j, zeros beyond the last."""
    k, n = w.shape
    panels = np.zeros((-(-n // pad), k, pad))
    for j in range(n):
        panels[j // pad, :, j % pad] = w[:, j]
    return panels


def transpose(w):
    """wt (columns, rows) = w (rows, columns) transposed."""
    return _f64(w).T


def column_sums(x, sums=None):
    """sums (n) = sum over the m rows of x, added to sums if given."""
    total = _f64(x).sum(axis=0)
    return total if sums is None else _f64(sums) + total


def add(total, terms):
    """total (count) + terms (count)."""
    return _f64(total) + _f64(terms)


# ---- elementary functions and activations ----


def sigmoid(x):
    """1 / (1 + e^-x), without overflow at either end."""
    x = np.asarray(x)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def erf(x):
    """2 / sqrt(pi) times the integral of e^-t^2 from 0 to x."""
    x = _f64(x)
    return np.array([math.erf(v) for v in x.ravel()], np.float64).reshape(x.shape)


def erfc(x):
    """1 - erf(x), without cancellation."""
    x = _f64(x)
    return np.array([math.erfc(v) for v in x.ravel()], np.float64).reshape(x.shape)


def elementary(x, function):
    """One of ELEMENTARY by name, in the precision of x (float64 or longdouble; erf in float64)."""
    with np.errstate(all="ignore"):
        if function == "sigmoid":
            return sigmoid(x)
        if function == "erf":
            return erf(x)
        return getattr(np, function)(x)


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def activation_forward(x, activation, alpha=0.0):
    """y = f(x) element by element; softmax over the last axis."""
    x = np.asarray(x)
    if x.dtype != np.longdouble:
        x = _f64(x)
    with np.errstate(all="ignore"):
        if activation == "identity":
            return x.copy()
        if activation == "relu":
            return np.maximum(x, 0)
        if activation == "leaky_relu":
            return np.where(x > 0, x, alpha * x)
        if activation == "elu":
            return np.where(x > 0, x, alpha * np.expm1(x))
        if activation == "selu":
            return SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(x))
        if activation == "gelu":  # 1 + erf(t) = erfc(-t)
            return x * erfc(-x / math.sqrt(2)) / 2
        if activation == "silu":
            return x * sigmoid(x)
        if activation == "softplus":
            return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
        if activation == "tanh":
            return np.tanh(x)
        if activation == "sigmoid":
            return sigmoid(x)
        if activation == "softmax":
            return softmax_forward(x)
    raise ValueError(f"unknown activation {activation!r}")


def activation_derivative(x, activation, alpha=0.0):
    """f'(x); at 0 the derivative from the left, as the formulas in fastnn.h choose it."""
    x = _f64(x)
    with np.errstate(all="ignore"):
        if activation == "identity":
            return np.ones_like(x)
        if activation == "relu":
            return np.where(x > 0, 1.0, 0.0)
        if activation == "leaky_relu":
            return np.where(x > 0, 1.0, alpha)
        if activation == "elu":
            return np.where(x > 0, 1.0, alpha * np.exp(x))
        if activation == "selu":
            return SELU_SCALE * np.where(x > 0, 1.0, SELU_ALPHA * np.exp(x))
        if activation == "gelu":  # Phi(x) + x phi(x)
            return erfc(-x / math.sqrt(2)) / 2 + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        if activation == "silu":
            s = sigmoid(x)
            return s * (1 + x * (1 - s))
        if activation == "softplus":
            return sigmoid(x)
        if activation == "tanh":
            return 1 - np.tanh(x) ** 2
        if activation == "sigmoid":
            return sigmoid(x) * sigmoid(-x)
    raise ValueError(f"unknown activation {activation!r}")


def activation_backward(dy, x, activation, alpha=0.0):
    """dx = dy f'(x); for softmax the product with the Jacobian of each row."""
    if activation == "softmax":
        return softmax_backward(dy, softmax_forward(x))
    return _f64(dy) * activation_derivative(x, activation, alpha)


def softmax_forward(x):
    """y_j = e^x_j / sum_i e^x_i per row."""
    x = _f64(x)
    if x.size == 0:
        return x.copy()
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_backward(dy, y):
    """dx = y (dy - sum_j dy_j y_j) per row."""
    dy, y = _f64(dy), _f64(y)
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def scale(x, factor):
    """y = factor x."""
    return factor * _f64(x)


# ---- dropout ----


def dropout_threshold(p):
    """The probability as a 16-bit threshold: an element is dropped where its 16 random bits lie below it."""
    return round(65536 * p)


def dropout_scale(p):
    """1 / (1 - p) for the p that is really used."""
    return 1 / (1 - dropout_threshold(p) / 65536)


def dropout_mask(threshold, random, first_row, m, n):
    """mask (m,n): 1 = kept. Element number of row r, column j: r * roundup(n, 8) + j."""
    row = np.arange(first_row, first_row + m, dtype=np.uint64)[:, None]
    column = np.arange(n, dtype=np.uint64)[None, :]
    element = row * np.uint64(-(-n // 8) * 8) + column
    return (random_bits_16(random, element) >= threshold).astype(np.uint8)


def dropout_forward(x, threshold, scale, random, first_row=0):
    """y, mask (m,n): y = kept ? x * scale : 0."""
    x = _f64(x)
    mask = dropout_mask(threshold, random, first_row, *x.shape)
    return np.where(mask != 0, x * scale, 0.0), mask


def dropout_backward(dy, mask, scale):
    """dx = kept ? dy * scale : 0."""
    return np.where(np.asarray(mask) != 0, _f64(dy) * scale, 0.0)


def dropout_enumerated(x, scale, first_mask, first_bit, m, n):
    """y (m,n): y[i][j] = x[i][j] * scale where bit first_bit + j of the integer first_mask + i is 0, else 0. x: (1,n)
    or (m,n)."""
    dropped = np.array([[(first_mask + i) >> (first_bit + j) & 1 for j in range(n)] for i in range(m)], bool)
    return np.where(dropped.reshape(m, n), 0.0, _f64(x) * scale)


# ---- batch normalisation ----


def batchnorm_statistics(x):
    """mean, var (n): over the rows; the variance is the biased one, (1/m) sum (x - mean)^2."""
    x = _f64(x)
    mean = x.mean(axis=0)
    return mean, ((x - mean) ** 2).mean(axis=0)


def batchnorm_forward(x, mean, var, gamma, beta, eps):
    """y = gamma (x - mean) / sqrt(var + eps) + beta."""
    return _f64(gamma) * (_f64(x) - _f64(mean)) / np.sqrt(_f64(var) + eps) + _f64(beta)


def batchnorm_backward_sums(dy, x, mean, var, eps):
    """dgamma, dbeta (n) = sum_i dy xhat, sum_i dy."""
    xhat = (_f64(x) - _f64(mean)) / np.sqrt(_f64(var) + eps)
    return (_f64(dy) * xhat).sum(axis=0), _f64(dy).sum(axis=0)


def batchnorm_backward(dy, x, mean, var, gamma, dgamma, dbeta, eps, total):
    """dx = gamma / sqrt(var + eps) (dy - dbeta / total - xhat dgamma / total), total = rows of the whole batch."""
    deviation = np.sqrt(_f64(var) + eps)
    xhat = (_f64(x) - _f64(mean)) / deviation
    return _f64(gamma) / deviation * (_f64(dy) - _f64(dbeta) / total - xhat * _f64(dgamma) / total)


def batchnorm_running(running, batch, decay, factor=1.0):
    """running (n) <- decay running + (1 - decay) factor batch."""
    return decay * _f64(running) + (1 - decay) * factor * _f64(batch)


# ---- losses: unweighted loss (m) of each row, and the gradient (m,n) of sum_i row_weight_i loss_i ----


def _weighted(gradient, row_weight):
    return _f64(row_weight)[:, None] * gradient


def log_softmax(z):
    """z_j - log sum_i e^z_i, the largest logit taken out."""
    z = _f64(z)
    shifted = z - z.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def loss_cross_entropy(z, t, row_weight, smoothing=0.0):
    """-sum_j t_j log softmax(z)_j of logits z and targets t, smoothed to (1-s) t + s/n. Rows of t need not sum to 1."""
    t = (1 - smoothing) * _f64(t) + smoothing / np.shape(z)[1]
    loss = -(t * log_softmax(z)).sum(axis=1)
    gradient = softmax_forward(z) * t.sum(axis=1, keepdims=True) - t
    return loss, _weighted(gradient, row_weight)


def loss_cross_entropy_labels(z, labels, row_weight, smoothing=0.0):
    """Cross-entropy with the one-hot rows of integer labels."""
    return loss_cross_entropy(z, np.eye(np.shape(z)[1])[labels], row_weight, smoothing)


def loss_binary_cross_entropy(z, t, row_weight, unused=0.0):
    """Mean over outputs of max(z,0) - z t + log1p(e^-|z|) = -t log p - (1-t) log(1-p) for p = sigmoid(z)."""
    z, t = _f64(z), _f64(t)
    loss = np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z)))
    return loss.mean(axis=1), _weighted((sigmoid(z) - t) / z.shape[1], row_weight)


def loss_mse(y, t, row_weight, unused=0.0):
    """Mean over outputs of (y - t)^2."""
    r = _f64(y) - _f64(t)
    return (r**2).mean(axis=1), _weighted(2 * r / r.shape[1], row_weight)


def loss_mae(y, t, row_weight, unused=0.0):
    """Mean over outputs of |y - t|; sign(0) = 0."""
    r = _f64(y) - _f64(t)
    return np.abs(r).mean(axis=1), _weighted(np.sign(r) / r.shape[1], row_weight)


def loss_huber(y, t, row_weight, delta=1.0):
    """Mean over outputs of |r| <= delta ? r^2 / 2 : delta (|r| - delta / 2), r = y - t."""
    r = _f64(y) - _f64(t)
    loss = np.where(np.abs(r) <= delta, r**2 / 2, delta * (np.abs(r) - delta / 2))
    return loss.mean(axis=1), _weighted(np.clip(r, -delta, delta) / r.shape[1], row_weight)


def loss_poisson(y, t, row_weight, unused=0.0):
    """Mean over outputs of e^y - t y: y is the log of the rate."""
    y, t = _f64(y), _f64(t)
    return (np.exp(y) - t * y).mean(axis=1), _weighted((np.exp(y) - t) / y.shape[1], row_weight)


# ---- reductions ----


def weighted_sum(values, weights=None):
    """sum_i values_i weights_i."""
    return math.fsum(_f64(values) if weights is None else _f64(values) * _f64(weights))


def square_norm(g, p=None, l1=0.0, l2=0.0):
    """sum (g + l1 sign(p) + 2 l2 p)^2."""
    g = _f64(g)
    return math.fsum((g if p is None else g + penalty_gradient(p, l1, l2)).ravel() ** 2)


def penalty(p, l1, l2):
    """sum l1 |p| + l2 p^2. L1: l1 = lambda; L2: l2 = lambda; elastic net: l1 = lambda, l2 = lambda beta."""
    p = _f64(p)
    return math.fsum((l1 * np.abs(p) + l2 * p**2).ravel())


def penalty_gradient(p, l1, l2):
    """l1 sign(p) + 2 l2 p, sign(0) = 0."""
    p = _f64(p)
    return l1 * np.sign(p) + 2 * l2 * p


def any_outside(g, p, l1, l2, low, high):
    """Whether clipping by value would change g + l1 sign(p) + 2 l2 p."""
    gradient = _f64(g) + penalty_gradient(p, l1, l2)
    return bool(np.any((gradient < low) | (gradient > high)))


def first_nonfinite(x):
    """Index of the first NaN or infinity, or -1."""
    bad = np.flatnonzero(~np.isfinite(x))
    return int(bad[0]) if bad.size else -1


# ---- optimizers ----


@dataclass(frozen=True)
class Update:
    """One update of parameters: the fields of fnn_update (table.h) by name; every default means "none"."""

    learning_rate: float = 0.01
    l1: float = 0.0
    l2: float = 0.0
    proximal: float = 0.0
    clip_scale: float = 1.0
    clip_min: float = -math.inf
    clip_max: float = math.inf
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    correction1: float = 1.0
    correction2: float = 1.0
    weight_decay: float = 0.0
    decoupled_decay: float = 0.0
    nesterov: int = 0
    first: int = 0


def soft_threshold(p, threshold):
    """sign(p) max(|p| - threshold, 0): the proximal step of threshold * |p|."""
    return np.sign(p) * np.maximum(np.abs(p) - threshold, 0)


def _effective_gradient(p, g, u):
    """g' = clip(g + penalty gradient) + weight_decay p, all at the parameters before the step."""
    g = _f64(g) + penalty_gradient(p, u.l1, u.l2)
    return np.clip(g * u.clip_scale, u.clip_min, u.clip_max) + u.weight_decay * _f64(p)


def _decayed(p, u):
    """AdamW's decay, before the update: p (1 - lr decoupled_decay)."""
    return _f64(p) * (1 - u.learning_rate * u.decoupled_decay)


def sgd_update(p, b, g, u):
    """p, b. With momentum: b = first ? g' : momentum b + g', p -= lr (nesterov ? g' + momentum b : b); else p -= lr g'
    and b, which may be None, is left alone."""
    g = _effective_gradient(p, g, u)
    p = _decayed(p, u)
    if u.momentum == 0:
        p = p - u.learning_rate * g
    else:
        b = g if u.first else u.momentum * _f64(b) + g
        p = p - u.learning_rate * (g + u.momentum * b if u.nesterov else b)
    if u.proximal:
        p = soft_threshold(p, u.proximal * u.learning_rate / (1 - u.momentum))
    return p, b


def rmsprop_update(p, v, g, u):
    """p, v. v = beta2 v + (1-beta2) g'^2; p -= lr g' / (sqrt v + eps)."""
    g = _effective_gradient(p, g, u)
    p = _decayed(p, u)
    v = u.beta2 * _f64(v) + (1 - u.beta2) * g**2
    denominator = np.sqrt(v) + u.eps
    p = p - u.learning_rate * g / denominator
    if u.proximal:
        p = soft_threshold(p, u.proximal * u.learning_rate / denominator)
    return p, v


def adam_update(p, m, v, g, u):
    """p, m, v. m = beta1 m + (1-beta1) g'; v = beta2 v + (1-beta2) g'^2;
    p -= (lr / correction1) m / (sqrt v / sqrt correction2 + eps)."""
    g = _effective_gradient(p, g, u)
    p = _decayed(p, u)
    m = u.beta1 * _f64(m) + (1 - u.beta1) * g
    v = u.beta2 * _f64(v) + (1 - u.beta2) * g**2
    denominator = np.sqrt(v) / math.sqrt(u.correction2) + u.eps
    p = p - u.learning_rate / u.correction1 * m / denominator
    if u.proximal:
        p = soft_threshold(p, u.proximal * u.learning_rate / denominator)
    return p, m, v


# ---- gather ----


def gather(features, rows, factor=1.0, mean=None, scale=None):
    """out (m,n) = ((features[rows] * factor) - mean) / scale."""
    out = _f64(features)[rows] * factor
    if mean is not None:
        out = out - _f64(mean)
    if scale is not None:
        out = out / _f64(scale)
    return out


# ---------------------------------------------------------------------------------------------------------------------
# 2. Random numbers
# ---------------------------------------------------------------------------------------------------------------------

STREAM_INIT, STREAM_SHUFFLE, STREAM_DROPOUT, STREAM_MONTE_CARLO = 1, 2, 3, 4


@dataclass(frozen=True)
class Random:
    """What decides a stream of random bits: the fields of fnn_random (table.h)."""

    seed: int = 0
    step: int = 0  # < 2^56
    stream: int = STREAM_INIT  # < 2^8
    layer: int = 0  # < 2^16


def philox(counter, key):
    """words (..., 4) uint32 = Philox 4x32-10 (Salmon et al. 2011) of counter (..., 4) and key (2), both uint32."""
    low = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = (np.asarray(counter)[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = (int(k) for k in key)
    for _ in range(10):
        product0 = np.uint64(0xD2511F53) * c0
        product1 = np.uint64(0xCD9E8D57) * c2
        high0, low0 = product0 >> np.uint64(32), product0 & low
        high1, low1 = product1 >> np.uint64(32), product1 & low
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint64(k0), low1, high0 ^ c3 ^ np.uint64(k1), low0
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def random_words(random, block):
    """words (..., 4) uint32 of the blocks (...) of a stream.

    Counter words: block bits 0..31; block bits 32..47 and the layer above; step bits 0..31; step bits 32..55 and the
    stream above.
    """
    block = np.asarray(block, np.uint64)
    counter = np.empty((*block.shape, 4), np.uint64)
    counter[..., 0] = block & np.uint64(0xFFFFFFFF)
    counter[..., 1] = (block >> np.uint64(32)) & np.uint64(0xFFFF) | np.uint64(random.layer << 16)
    counter[..., 2] = random.step & 0xFFFFFFFF
    counter[..., 3] = (random.step >> 32) & 0xFFFFFF | random.stream << 24
    return philox(counter, (random.seed & 0xFFFFFFFF, random.seed >> 32))


def random_bits_16(random, element):
    """16 bits per element: block element // 8, value element % 8; value 2i + h is half h (0 = low) of word i."""
    element = np.asarray(element, np.uint64)
    value = (element % np.uint64(8)).astype(np.int64)
    words = random_words(random, element // np.uint64(8))
    word = np.take_along_axis(words, (value // 2)[..., None], axis=-1)[..., 0]
    return word >> (16 * (value % 2)).astype(np.uint32) & np.uint32(0xFFFF)


def random_bits_64(random, element):
    """64 bits per element: block element // 2; words 2 (element % 2), 2 (element % 2) + 1 are the low and high half."""
    element = np.asarray(element, np.uint64)
    odd = element % np.uint64(2) == 1
    words = random_words(random, element // np.uint64(2)).astype(np.uint64)
    low = np.where(odd, words[..., 2], words[..., 0])
    high = np.where(odd, words[..., 3], words[..., 1])
    return high << np.uint64(32) | low


def draw_uniform(low, high, random, first, count):
    """out (count) = low + (high - low) u, u = (bits >> 11) 2^-53 in [0, 1)."""
    bits = random_bits_64(random, np.arange(first, first + count, dtype=np.uint64))
    return low + (high - low) * ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def draw_normal(sigma, random, first, count):
    """out (count) = sigma times the inverse normal CDF of u = ((bits >> 11) + 0.5) 2^-53 in (0, 1)."""
    bits = random_bits_64(random, np.arange(first, first + count, dtype=np.uint64))
    u = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return sigma * np.array([NormalDist().inv_cdf(v) for v in u], np.float64)


def draw_permutation(random, count):
    """order (count) int64: Fisher-Yates from the top; swap s puts order[j], j uniform in 0..count-1-s, in its place."""
    order = np.arange(count, dtype=np.int64)
    for s, i in enumerate(range(count - 1, 0, -1)):
        j = int(random_bits_64(random, s)) * (i + 1) >> 64
        order[i], order[j] = order[j], order[i]
    return order


def orthonormalize(a):
    """The rows of a (rows <= columns) made orthonormal by Gram-Schmidt in order: q_i = normalised a_i minus its parts
    along q_0..q_(i-1). That is the QR decomposition of a^T with a positive diagonal of R."""
    q, r = np.linalg.qr(_f64(a).T)
    return (q * np.where(np.diag(r) < 0, -1.0, 1.0)).T


# ---------------------------------------------------------------------------------------------------------------------
# 3. Networks
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dense:
    """y = activation(x W + b): "i.weight" (fan_in, units), "i.bias" (units)."""

    units: int
    activation: str = "identity"
    alpha: float = 0.0
    use_bias: bool = True
    trainable: bool = True


@dataclass(frozen=True)
class BatchNorm:
    """ "i.gamma", "i.beta", "i.running_mean", "i.running_var" (n). Frozen: running statistics, also in training."""

    eps: float = 1e-5
    decay: float = 0.9
    unbiased: bool = False
    trainable: bool = True


@dataclass(frozen=True)
class Dropout:
    """Training: y = mask x, divided by 1-p if inverted. Evaluation: y = x, times 1-p if scaling is "test"."""

    p: float
    scaling: str = "inverted"


@dataclass(frozen=True)
class Activation:
    """y = f(x), a name of ACTIVATIONS."""

    name: str
    alpha: float = 0.0


@dataclass(frozen=True)
class Scale:
    """y = factor x."""

    factor: float


@dataclass(frozen=True)
class Standardize:
    """y = (x - "i.mean") / "i.scale"; never trained."""


@dataclass
class Forward:
    """What a forward pass leaves for the backward pass and for the tests."""

    output: np.ndarray
    inputs: list = field(default_factory=list)  # of every layer
    before_activation: dict = field(default_factory=dict)  # of every Dense layer, by index
    batch: dict = field(default_factory=dict)  # (mean, var) used by every BatchNorm, by index
    statistics: dict = field(default_factory=dict)  # running statistics after this pass, by parameter name


def _uses_batch_statistics(layer, training):
    return training and layer.trainable


def _dropout_factor(layer, training):
    if layer.scaling == "inverted":
        return dropout_scale(layer.p) if training else 1.0
    return 1.0 if training else 1 / dropout_scale(layer.p)


def forward(layers, parameters, x, masks=None, training=False):
    """The forward pass over x (m, inputs). masks: layer index -> 0/1 (m, n), needed by Dropout in training."""
    result = Forward(_f64(x))
    for i, layer in enumerate(layers):
        x = result.output
        result.inputs.append(x)
        if isinstance(layer, Dense):
            z = dense_forward(x, parameters[f"{i}.weight"], parameters[f"{i}.bias"] if layer.use_bias else None)
            result.before_activation[i] = z
            y = activation_forward(z, layer.activation, layer.alpha)
        elif isinstance(layer, BatchNorm):
            mean, var = _f64(parameters[f"{i}.running_mean"]), _f64(parameters[f"{i}.running_var"])
            if _uses_batch_statistics(layer, training):
                running = mean, var
                mean, var = batchnorm_statistics(x)
                correction = len(x) / (len(x) - 1) if layer.unbiased else 1.0
                result.statistics[f"{i}.running_mean"] = batchnorm_running(running[0], mean, layer.decay)
                result.statistics[f"{i}.running_var"] = batchnorm_running(running[1], var, layer.decay, correction)
            result.batch[i] = mean, var
            y = batchnorm_forward(x, mean, var, parameters[f"{i}.gamma"], parameters[f"{i}.beta"], layer.eps)
        elif isinstance(layer, Dropout):
            y = x * _dropout_factor(layer, training)
            if training:
                y = np.where(masks[i] != 0, y, 0.0)
        elif isinstance(layer, Activation):
            y = activation_forward(x, layer.name, layer.alpha)
        elif isinstance(layer, Scale):
            y = scale(x, layer.factor)
        else:
            y = (x - _f64(parameters[f"{i}.mean"])) / _f64(parameters[f"{i}.scale"])
        result.output = y
    return result


def backward(layers, parameters, result, dy, masks=None, training=False):
    """gradients, dx for dy, the gradient of the output of `result = forward(...)` of the same arguments."""
    gradients = {}
    for i, layer in reversed(list(enumerate(layers))):
        x = result.inputs[i]
        if isinstance(layer, Dense):
            dz = activation_backward(dy, result.before_activation[i], layer.activation, layer.alpha)
            if layer.trainable:
                gradients[f"{i}.weight"] = dense_backward_weights(x, dz)
                if layer.use_bias:
                    gradients[f"{i}.bias"] = column_sums(dz)
            dy = dense_backward_input(dz, transpose(parameters[f"{i}.weight"]))
        elif isinstance(layer, BatchNorm):
            mean, var = result.batch[i]
            gamma = parameters[f"{i}.gamma"]
            if _uses_batch_statistics(layer, training):
                dgamma, dbeta = batchnorm_backward_sums(dy, x, mean, var, layer.eps)
                dy = batchnorm_backward(dy, x, mean, var, gamma, dgamma, dbeta, layer.eps, len(x))
                gradients[f"{i}.gamma"], gradients[f"{i}.beta"] = dgamma, dbeta
            else:  # mean and var are constants
                if layer.trainable:
                    dgamma, dbeta = batchnorm_backward_sums(dy, x, mean, var, layer.eps)
                    gradients[f"{i}.gamma"], gradients[f"{i}.beta"] = dgamma, dbeta
                dy = dy * _f64(gamma) / np.sqrt(var + layer.eps)
        elif isinstance(layer, Dropout):
            dy = dy * _dropout_factor(layer, training)
            if training:
                dy = np.where(masks[i] != 0, dy, 0.0)
        elif isinstance(layer, Activation):
            dy = activation_backward(dy, x, layer.name, layer.alpha)
        elif isinstance(layer, Scale):
            dy = scale(dy, layer.factor)
        else:
            dy = dy / _f64(parameters[f"{i}.scale"])
    return gradients, dy


LOSSES = {
    "cross_entropy": loss_cross_entropy,  # integer labels are taken as well
    "binary_cross_entropy": loss_binary_cross_entropy,
    "mse": loss_mse,
    "mae": loss_mae,
    "huber": loss_huber,
    "poisson": loss_poisson,
}

_LINKS = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}


def logit_layers(layers, loss):
    """The layers up to the logits: a final Softmax (Sigmoid) belongs to the (binary) cross-entropy."""
    link = _LINKS.get(loss)
    if layers and link:
        last = layers[-1]
        if isinstance(last, Activation) and last.name == link:
            return layers[:-1]
        if isinstance(last, Dense) and last.activation == link:
            return [*layers[:-1], replace(last, activation="identity")]
    return layers


def loss_value_and_gradient(output, y, loss, sample_weight=None, parameter=None):
    """loss, dloss/doutput: sum_i w_i loss_i / sum_i w_i over the rows. parameter: smoothing, or huber's delta."""
    output = _f64(output)
    weight = np.ones(len(output)) if sample_weight is None else _f64(sample_weight)
    function = LOSSES[loss]
    if loss == "cross_entropy" and np.ndim(y) == 1:
        function = loss_cross_entropy_labels
    else:
        y = np.reshape(y, output.shape)
    if parameter is None:
        parameter = 1.0 if loss == "huber" else 0.0
    rows, gradient = function(output, y, weight / weight.sum(), parameter)
    return float((weight * rows).sum() / weight.sum()), gradient


def loss_and_gradients(
    layers, parameters, x, y, loss, sample_weight=None, masks=None, training=True, loss_parameter=None
):
    """Mean loss of a batch and its gradients by parameter name, without penalties. y: labels (m) or targets
    (m, outputs)."""
    layers = logit_layers(layers, loss)
    result = forward(layers, parameters, x, masks, training)
    value, dy = loss_value_and_gradient(result.output, y, loss, sample_weight, loss_parameter)
    return value, backward(layers, parameters, result, dy, masks, training)[0]


def dropout_masks(layers, n_inputs, rows, seed, step, first_row=0, stream=STREAM_DROPOUT):
    """The masks of one training-mode forward pass: layer index -> (rows, n)."""
    masks, n = {}, n_inputs
    for i, layer in enumerate(layers):
        if isinstance(layer, Dense):
            n = layer.units
        elif isinstance(layer, Dropout):
            masks[i] = dropout_mask(dropout_threshold(layer.p), Random(seed, step, stream, i), first_row, rows, n)
    return masks


# ---- penalties, clipping and optimizers of a whole net; a regularizer is (l1, l2), for Dense weights only ----


def l1(lam):
    """lambda sum |w|."""
    return lam, 0.0


def l2(lam):
    """lambda sum w^2."""
    return 0.0, lam


def elastic_net(lam, beta):
    """lambda sum (beta w^2 + |w|)."""
    return lam, lam * beta


def _weights(names):
    return [name for name in names if name.endswith(".weight")]


def net_penalty(parameters, regularizer):
    """The penalty's value over all Dense weights."""
    return sum(penalty(parameters[name], *regularizer) for name in _weights(parameters))


def add_penalty_gradient(gradients, parameters, regularizer):
    """gradients + the penalty's gradient, on Dense weights."""
    return gradients | {n: gradients[n] + penalty_gradient(parameters[n], *regularizer) for n in _weights(gradients)}


def global_norm(gradients):
    """sqrt of the sum of all squares."""
    return math.sqrt(sum(square_norm(g) for g in gradients.values()))


def clip_value(gradients, low, high):
    """Every element brought into [low, high]."""
    return {name: np.clip(_f64(g), low, high) for name, g in gradients.items()}


def clip_norm(gradients, v, scope="global"):
    """||g|| > v => g <- g v / ||g||, over all tensors together or for each tensor on its own."""

    def scaled(tensors):
        norm = global_norm(tensors)
        return {name: _f64(g) * (v / norm if norm > v else 1.0) for name, g in tensors.items()}

    if scope == "global":
        return scaled(gradients)
    return {name: scaled({name: g})[name] for name, g in gradients.items()}


class Optimizer:
    """SGD (momentum, nesterov), RMSprop, Adam and AdamW as PyTorch documents them.

    Optimizer("adamw", learning_rate=1e-3, decoupled_decay=0.01): keywords are fields of Update. RMSprop's alpha is
    beta2. `step` returns the new parameters and keeps the moments.
    """

    KINDS = {"sgd": 1, "rmsprop": 1, "adam": 2, "adamw": 2}  # number of moments

    def __init__(self, kind, **fields):
        if kind == "rmsprop":
            fields = {"beta2": 0.99, **fields}
        self.kind = kind
        self.update = Update(**fields)
        self.moments = {}
        self.steps = 0

    def step(self, parameters, gradients, proximal=0.0):
        """One update of the parameters that have gradients. proximal: lambda of L1's proximal step on Dense weights."""
        self.steps += 1
        update = replace(
            self.update,
            first=int(self.steps == 1),
            correction1=1 - self.update.beta1**self.steps,
            correction2=1 - self.update.beta2**self.steps,
        )
        function = {"sgd": sgd_update, "rmsprop": rmsprop_update}.get(self.kind, adam_update)
        new = dict(parameters)
        for name, g in gradients.items():
            moments = self.moments.get(name, [np.zeros(np.shape(g))] * self.KINDS[self.kind])
            u = replace(update, proximal=proximal if name.endswith(".weight") else 0.0)
            new[name], *self.moments[name] = function(parameters[name], *moments, g, u)
        return new


def train_step(
    layers,
    parameters,
    optimizer,
    x,
    y,
    loss,
    sample_weight=None,
    masks=None,
    loss_parameter=None,
    regularizer=None,
    proximal=0.0,
    clip=None,
):
    """One training step: loss of the batch before it, and the new parameters with the new running statistics.

    Order: gradient, + penalty's gradient, clip(gradients) -> gradients, update, proximal step.
    """
    trained = logit_layers(layers, loss)
    result = forward(trained, parameters, x, masks, training=True)
    value, dy = loss_value_and_gradient(result.output, y, loss, sample_weight, loss_parameter)
    gradients, _ = backward(trained, parameters, result, dy, masks, training=True)
    if regularizer is not None:
        gradients = add_penalty_gradient(gradients, parameters, regularizer)
    if clip is not None:
        gradients = clip(gradients)
    return value, optimizer.step(parameters, gradients, proximal) | result.statistics
