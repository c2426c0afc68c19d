# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, embedsignature=True
"""The compiled core: one engine per net. Arguments are checked here once; arrays are NumPy's."""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release
from cpython.buffer cimport PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport SIZE_MAX, int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memset

from fastnn._fastnn cimport *

import os

import numpy as np

from fastnn.errors import ModelFileError, ModelVersionError

cdef object _ndarray = np.ndarray, _empty = np.empty

_ACTIVATIONS = {
    "identity": FNN_IDENTITY, "relu": FNN_RELU, "leaky_relu": FNN_LEAKY_RELU, "elu": FNN_ELU, "selu": FNN_SELU,
    "gelu": FNN_GELU, "silu": FNN_SILU, "softplus": FNN_SOFTPLUS, "tanh": FNN_TANH, "sigmoid": FNN_SIGMOID,
    "softmax": FNN_SOFTMAX,
}
_KINDS = {
    "dense": FNN_DENSE, "batchnorm": FNN_BATCHNORM, "dropout": FNN_DROPOUT, "activation": FNN_ACTIVATION,
    "scale": FNN_SCALE, "standardize": FNN_STANDARDIZE,
}
_INITS = {
    "default": FNN_INIT_DEFAULT, "zeros": FNN_ZEROS, "constant": FNN_CONSTANT, "uniform": FNN_UNIFORM,
    "normal": FNN_NORMAL, "fan_in_uniform": FNN_FAN_IN_UNIFORM, "lecun_uniform": FNN_LECUN_UNIFORM,
    "lecun_normal": FNN_LECUN_NORMAL, "xavier_uniform": FNN_XAVIER_UNIFORM, "xavier_normal": FNN_XAVIER_NORMAL,
    "he_uniform": FNN_HE_UNIFORM, "he_normal": FNN_HE_NORMAL, "orthogonal": FNN_ORTHOGONAL,
}
_PENALTIES = {
    "default": FNN_PENALTY_DEFAULT, "l1": FNN_L1, "proximal_l1": FNN_PROXIMAL_L1, "l2": FNN_L2,
    "elastic_net": FNN_ELASTIC_NET,
}
_LINKS = {
    None: FNN_LINK_NONE, "identity": FNN_LINK_IDENTITY, "sigmoid": FNN_LINK_SIGMOID, "softmax": FNN_LINK_SOFTMAX,
    "exp": FNN_LINK_EXP,
}
_LOSSES = {
    "cross_entropy": FNN_CROSS_ENTROPY, "binary_cross_entropy": FNN_BINARY_CROSS_ENTROPY, "mse": FNN_MSE,
    "mae": FNN_MAE, "huber": FNN_HUBER, "poisson": FNN_POISSON,
}
_OPTIMIZERS = {"sgd": FNN_SGD, "rmsprop": FNN_RMSPROP, "adam": FNN_ADAM}
_CLIPS = {
    "none": FNN_CLIP_NONE, "value": FNN_CLIP_VALUE, "norm": FNN_CLIP_NORM, "tensor_norm": FNN_CLIP_TENSOR_NORM,
}
_DTYPES = {
    "float32": FNN_FLOAT32, "float64": FNN_FLOAT64, "uint8": FNN_UINT8, "int8": FNN_INT8, "uint16": FNN_UINT16,
    "int16": FNN_INT16, "uint32": FNN_UINT32, "int32": FNN_INT32, "uint64": FNN_UINT64, "int64": FNN_INT64,
}
feature_dtypes = frozenset(_DTYPES)


# Multiply-adds, about 5 us, below which a prediction keeps the GIL: giving it up costs 50 ns, and where other threads
# run Python, getting it back costs up to a switch interval of 5 ms.
cdef enum:
    _BRIEF = 100_000


cdef int _check(fnn_status status) except -1:
    """The exception for a status that is not FNN_OK."""
    if status == FNN_OK:
        return 0
    cdef str text = fnn_status_text(status).decode()
    cdef const char *isa
    if status == FNN_ENOMEM:
        raise MemoryError(text)
    if status == FNN_ENOISA:
        fnn_isa_name(&isa)  # gives what was asked for
        raise RuntimeError(f"FASTNN_ISA={isa.decode()}: {text}; available here: {', '.join(available_isas())}")
    raise ValueError(text)


cdef fnn_dtype _feature_dtype(Py_buffer *view) except *:
    """Element type of a buffer in native byte order."""
    cdef const char *text = view.format
    cdef char code
    if text[0] == b"@" or text[0] == b"=":
        text += 1
    code = text[0]
    if text[1] == 0:
        if code == b"f":
            return FNN_FLOAT32
        if code == b"d":
            return FNN_FLOAT64
        if code in b"BHILQ":
            return {1: FNN_UINT8, 2: FNN_UINT16, 4: FNN_UINT32, 8: FNN_UINT64}[view.itemsize]
        if code in b"bhilq":
            return {1: FNN_INT8, 2: FNN_INT16, 4: FNN_INT32, 8: FNN_INT64}[view.itemsize]
    raise TypeError(f"x has elements of format '{view.format.decode()}', expected one of {sorted(feature_dtypes)}")


cdef class _Features:
    """A held buffer of a two-dimensional array of any layout, as fnn_features."""

    cdef Py_buffer view
    cdef fnn_features features

    def __cinit__(self, x, size_t columns):
        PyObject_GetBuffer(x, &self.view, PyBUF_STRIDES | PyBUF_FORMAT)
        if self.view.ndim != 2 or <size_t>self.view.shape[1] != columns:
            raise ValueError(f"x has shape {x.shape}, expected (rows, {columns})")
        self.features.data = self.view.buf
        self.features.dtype = _feature_dtype(&self.view)
        self.features.rows = <size_t>self.view.shape[0]
        self.features.row_stride = self.view.strides[0]
        self.features.column_stride = self.view.strides[1]

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef class _Buffer:
    """A held C-contiguous buffer (or none, of address NULL)."""

    cdef Py_buffer view

    def __cinit__(self, array, str name, Py_ssize_t count, Py_ssize_t itemsize, bint writable=False):
        if array is None:
            return
        PyObject_GetBuffer(array, &self.view, PyBUF_C_CONTIGUOUS | (PyBUF_WRITABLE if writable else 0))
        if self.view.len != count * itemsize or self.view.itemsize != itemsize:
            raise ValueError(
                f"{name} has {self.view.len // self.view.itemsize} elements of {self.view.itemsize} bytes, "
                f"expected {count} of {itemsize}"
            )

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    cdef void *address(self) noexcept nogil:
        return self.view.buf


cdef class _Arena:
    """Exports a block of the engine's memory and keeps the engine alive while a view exists."""

    cdef object owner
    cdef void *memory
    cdef Py_ssize_t bytes

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        buffer.buf = self.memory
        buffer.obj = self
        buffer.len = self.bytes
        buffer.itemsize = 1
        buffer.format = b"B"
        buffer.ndim = 1
        buffer.shape = &self.bytes
        buffer.strides = &buffer.itemsize
        buffer.suboffsets = NULL
        buffer.readonly = 0
        buffer.internal = NULL


cdef class _Poll:
    """What the engine asks about every 50 ms."""

    cdef object stop
    cdef object error


cdef fnn_poll _poll(void *argument) noexcept with gil:
    cdef _Poll poll = <_Poll>argument
    try:
        PyErr_CheckSignals()
        return FNN_POLL_STOP if poll.stop is not None and poll.stop() else FNN_POLL_CONTINUE
    except BaseException as error:  # raised again by Engine.train, once the C call has returned
        poll.error = error
        return FNN_POLL_ABANDON


cdef fnn_loss _loss(loss) except *:
    cdef fnn_loss result
    result.kind = _LOSSES[loss[0]]
    result.parameter = loss[1]
    return result


cdef _name_of(dict numbers, int number):
    """The name that stands for an enumeration's value."""
    for name, value in numbers.items():
        if value == number:
            return name


cdef fnn_penalty _penalty(penalty) except *:
    cdef fnn_penalty result
    result.kind, result.lam, result.beta = _PENALTIES[penalty[0]], penalty[1], penalty[2]
    return result


cdef fnn_layer _layer(record) except *:
    cdef fnn_layer layer
    memset(&layer, 0, sizeof(layer))
    layer.kind = _KINDS[record["kind"]]
    layer.activation = _ACTIVATIONS[record.get("activation", "identity")]
    layer.alpha = record.get("alpha", 0.0)
    layer.units = record.get("units", 0)
    layer.use_bias = record.get("use_bias", True)
    layer.init = _INITS[record.get("init", "default")]
    layer.init_value = record.get("init_value", 0.0)
    layer.penalty = _penalty(record.get("penalty", ("default", 0.0, 0.0)))
    layer.trainable = record.get("trainable", True)
    layer.eps = record.get("eps", 0.0)
    layer.decay = record.get("decay", 0.0)
    layer.unbiased = record.get("unbiased", False)
    layer.p = record.get("p", 0.0)
    layer.test_scaling = record.get("test_scaling", False)
    layer.given = record.get("given", False)
    return layer


cdef dict _record(fnn_layer layer):
    """The inverse, with every field."""
    return {
        "kind": _name_of(_KINDS, layer.kind),
        "activation": _name_of(_ACTIVATIONS, layer.activation),
        "alpha": layer.alpha,
        "units": layer.units,
        "use_bias": bool(layer.use_bias),
        "init": _name_of(_INITS, layer.init),
        "init_value": layer.init_value,
        "penalty": (_name_of(_PENALTIES, layer.penalty.kind), layer.penalty.lam, layer.penalty.beta),
        "trainable": bool(layer.trainable),
        "eps": layer.eps,
        "decay": layer.decay,
        "unbiased": bool(layer.unbiased),
        "p": layer.p,
        "test_scaling": bool(layer.test_scaling),
        "given": bool(layer.given),
    }


def _too_large(records, input_size, dtype):
    """The sentence about the layer whose weights need most memory."""
    width, largest = input_size, (0, 0, (0, 0))
    for index, record in enumerate(records):
        if record["kind"] == "dense":
            shape = (width, record["units"])
            largest = max(largest, (shape[0] * shape[1] * np.dtype(dtype).itemsize, index, shape))
            width = record["units"]
    gib = largest[0] / 2**30
    _, index, shape = largest
    return f"Unable to allocate {gib:.3g} GiB for layer {index} weights with shape {shape} and data type {dtype}"


cdef class Engine:
    """Owns the C net: parameters, gradients, moments, workspaces. See _core.pyi for the methods' contracts."""

    cdef fnn_net *net
    cdef readonly object dtype
    cdef readonly size_t input_size, output_size, n_layers
    cdef readonly object seed
    cdef readonly dict last_run
    cdef public bint ready
    cdef Py_ssize_t itemsize
    cdef size_t arena_size
    cdef list _tensors
    # Who uses the net; guarded by the GIL. By `generation` a forked child knows that these threads are not its own.
    cdef unsigned generation
    cdef int fits, predictions
    cdef bint has_gradients, measures
    cdef unsigned long trainer

    def __init__(self, layers, size_t input_size, str dtype, seed):
        if self.net != NULL:
            raise RuntimeError("an Engine is made once")
        cdef size_t n = len(layers)
        cdef fnn_layer *records = <fnn_layer *>PyMem_Malloc((n or 1) * sizeof(fnn_layer))
        cdef fnn_status status
        if records == NULL:
            raise MemoryError()
        try:
            for i in range(n):
                records[i] = _layer(layers[i])
            status = fnn_net_create(&self.net, records, n, input_size, _DTYPES[dtype], <uint64_t>seed)
        finally:
            PyMem_Free(records)
        if status == FNN_EOVERFLOW:
            raise ValueError(f"array is too big: {_too_large(layers, input_size, dtype)}")
        if status == FNN_ENOMEM:
            raise MemoryError(_too_large(layers, input_size, dtype))
        _check(status)
        self._describe()

    cdef int _describe(self) except -1:
        """What is kept of the net for quick access."""
        self.dtype = np.dtype(_name_of(_DTYPES, fnn_net_dtype(self.net)))
        self.itemsize = self.dtype.itemsize
        self.input_size = fnn_net_input_size(self.net)
        self.output_size = fnn_net_output_size(self.net)
        self.arena_size = fnn_net_arena_size(self.net)
        self.n_layers = fnn_net_layer_count(self.net)
        self.seed = fnn_net_seed(self.net)
        self.generation = fnn_fork_generation()
        self._tensors = [self._tensor(i) for i in range(fnn_net_tensor_count(self.net))]
        return 0

    def __dealloc__(self):
        fnn_net_free(self.net)

    # ---- layers and tensors ----

    def layers(self):
        cdef fnn_layer layer
        records = []
        for i in range(self.n_layers):
            _check(fnn_net_layer(self.net, i, &layer))
            records.append(_record(layer))
        return records

    @property
    def link(self):
        return _name_of(_LINKS, fnn_net_link(self.net))

    @link.setter
    def link(self, link):
        fnn_net_set_link(self.net, _LINKS[link])

    cdef tuple _tensor(self, size_t index):
        cdef fnn_tensor t
        _check(fnn_net_tensor(self.net, index, &t))
        name = t.name.decode()
        cdef tuple shape = (t.rows, t.columns), strides = (t.stride * self.itemsize, self.itemsize)
        first = 0 if name.endswith(".weight") else 1  # all others are vectors
        return name, t.layer, bool(t.trainable), shape[first:], t.offset * self.itemsize, strides[first:]

    def tensors(self):
        return [tensor[:4] for tensor in self._tensors]

    cdef _Arena _arena(self, void *memory, size_t elements):
        cdef _Arena arena = _Arena.__new__(_Arena)
        arena.owner = self
        arena.memory = memory
        arena.bytes = elements * self.itemsize
        return arena

    cdef object _view(self, void *memory, size_t elements, size_t index):
        _, _, _, shape, offset, strides = self._tensors[index]
        return np.ndarray(shape, self.dtype, self._arena(memory, elements), offset, strides)

    def parameter(self, size_t index):
        cdef fnn_tensor t
        if not fnn_net_frozen(self.net) or not self._tensors[index][0].endswith(".weight"):
            return self._view(fnn_net_parameters(self.net), fnn_net_arena_size(self.net), index)
        _check(fnn_net_tensor(self.net, index, &t))
        cdef size_t panel = 64 // <size_t>self.itemsize  # columns; see fnn_net_freeze
        panels = np.ndarray(((t.columns + panel - 1) // panel, t.rows, panel), self.dtype,
                            self._arena(fnn_net_parameters(self.net), fnn_net_arena_size(self.net)),
                            t.offset * self.itemsize)
        return panels.transpose(1, 0, 2).reshape(t.rows, -1)[:, :t.columns].copy()

    def freeze(self):
        self._require_own_use()
        _check(fnn_net_freeze(self.net))

    @property
    def frozen(self):
        return bool(fnn_net_frozen(self.net))

    def gradient(self, size_t index):
        self._forget_other_processes_threads()
        if not self.has_gradients:
            self._require_own_use()  # a fit in another thread may be allocating them
            self.has_gradients = True
        cdef void *gradients = fnn_net_gradients(self.net)
        if gradients == NULL:
            _check(FNN_ENOMEM)
        return self._view(gradients, fnn_net_trainable_size(self.net), index)

    def moments(self, size_t index):
        views = []
        for i in range(2):
            if fnn_net_moments(self.net, i) != NULL:
                views.append(self._view(fnn_net_moments(self.net, i), fnn_net_trainable_size(self.net), index))
        return views

    def initialize(self):
        _check(fnn_net_initialize(self.net))

    def layer_width(self, size_t layer):
        return fnn_net_layer_width(self.net, layer)

    @property
    def dropout_units(self):
        return fnn_net_dropout_units(self.net)

    @property
    def passes(self):
        return fnn_net_counters(self.net).passes

    @passes.setter
    def passes(self, uint64_t value):
        cdef fnn_counters counters = fnn_net_counters(self.net)
        counters.passes = value
        fnn_net_set_counters(self.net, counters)

    @property
    def updates(self):
        return fnn_net_counters(self.net).updates

    @updates.setter
    def updates(self, uint64_t value):
        cdef fnn_counters counters = fnn_net_counters(self.net)
        counters.updates = value
        fnn_net_set_counters(self.net, counters)

    # ---- one trainer or many predictors ----

    cdef void _forget_other_processes_threads(self) noexcept:
        if self.generation != fnn_fork_generation():
            self.generation = fnn_fork_generation()
            self.predictions = 0
            if self.trainer != PyThread_get_thread_ident():
                self.fits = 0

    cdef bint _trained_elsewhere(self) noexcept:
        self._forget_other_processes_threads()
        return self.fits > 0 and self.trainer != PyThread_get_thread_ident()

    cdef int _require_own_use(self) except -1:
        if self._trained_elsewhere():
            raise RuntimeError("this net is being trained by another thread")
        if self.predictions > 0:
            raise RuntimeError("this net is predicting in another thread; wait for it before training")
        return 0

    def begin_fit(self):
        self._require_own_use()
        self.fits += 1
        self.trainer = PyThread_get_thread_ident()

    def end_fit(self):
        self._forget_other_processes_threads()
        self.fits -= 1

    cdef int _begin_predict(self) except -1:
        if self._trained_elsewhere():
            raise RuntimeError("this net is being trained by another thread; predict when fit has returned")
        self.predictions += 1
        return 0

    # ---- training ----

    def configure(self, optimizer, clip, penalty, double loss_scale=1.0, bint penalty_per_weight=False):
        cdef fnn_optimizer o
        cdef fnn_clip c
        cdef fnn_penalty p = _penalty(penalty)
        self._require_own_use()
        memset(&o, 0, sizeof(o))
        o.kind = _OPTIMIZERS[optimizer["kind"]]
        o.momentum = optimizer.get("momentum", 0.0)
        o.nesterov = optimizer.get("nesterov", False)
        o.beta1 = optimizer.get("beta1", 0.0)
        o.beta2 = optimizer.get("beta2", 0.0)
        o.eps = optimizer.get("eps", 0.0)
        o.weight_decay = optimizer.get("weight_decay", 0.0)
        o.decoupled_decay = optimizer.get("decoupled_decay", 0.0)
        c.kind, c.low, c.high = _CLIPS[clip[0]], clip[1], clip[2]
        _check(fnn_net_configure(self.net, &o, &c, &p))
        _check(fnn_net_scale_objective(self.net, loss_scale, penalty_per_weight))

    def train(self, x, labels, values, weights, loss, order, batch_starts, learning_rates, size_t micro_batch=0,
              outputs=None, stop=None, int n_threads=0, double loss_sum=0.0, double weight_sum=0.0):
        cdef _Features features = _Features(x, self.input_size)
        cdef size_t rows = features.features.rows, n_batches = len(learning_rates)
        cdef _Buffer labels_ = _Buffer(labels, "labels", rows, 4)
        cdef _Buffer values_ = _Buffer(values, "values", rows * self.output_size, self.itemsize)
        cdef _Buffer weights_ = _Buffer(weights, "weights", rows, 8)
        cdef _Buffer starts = _Buffer(batch_starts, "batch_starts", n_batches + 1, 8)
        cdef _Buffer rates = _Buffer(learning_rates, "learning_rates", n_batches, 8)
        cdef size_t first = (<const size_t *>starts.address())[0]
        cdef size_t positions = (<const size_t *>starts.address())[n_batches] - first
        cdef _Buffer order_ = _Buffer(order, "order", 0 if order is None else len(order), 8)
        cdef _Buffer outputs_ = _Buffer(outputs, "outputs", positions * self.output_size, self.itemsize, True)
        cdef fnn_targets targets = fnn_targets(<const int32_t *>labels_.address(), values_.address(),
                                               <const double *>weights_.address())
        cdef fnn_loss loss_ = _loss(loss)
        cdef _Poll poll = _Poll.__new__(_Poll)
        cdef fnn_run run
        cdef fnn_status status
        if first + positions > (rows if order is None else <size_t>len(order)):
            raise ValueError(f"batch_starts ends at {first + positions}, beyond the last row")
        poll.stop = stop
        poll.error = None
        memset(&run, 0, sizeof(run))
        run.x = &features.features
        run.y = &targets
        run.loss = &loss_
        run.order = <const int64_t *>order_.address()
        run.batch_starts = <const size_t *>starts.address()
        run.n_batches = n_batches
        run.micro_batch = micro_batch
        run.learning_rates = <const double *>rates.address()
        run.outputs = outputs_.address()
        run.poll = _poll
        run.poll_argument = <void *>poll
        run.n_threads = n_threads
        run.loss_sum_before, run.weight_sum_before = loss_sum, weight_sum
        self.begin_fit()
        try:
            with nogil:
                status = fnn_train(self.net, &run)
        finally:
            self.end_fit()
        if status == FNN_ENOMEM:
            raise MemoryError(f"Unable to allocate the workspace to train on {positions} rows in {n_batches} batches: "
                              "make batch_size or micro_batch smaller")
        if status not in (FNN_OK, FNN_EDIVERGED, FNN_EINTERRUPTED):
            _check(status)
        self.last_run = {
            "status": {FNN_OK: "ok", FNN_EDIVERGED: "diverged", FNN_EINTERRUPTED: "interrupted"}[status],
            "loss_sum": run.loss_sum,
            "weight_sum": run.weight_sum,
            "batches_done": run.batches_done,
            "failed_loss": run.failed_loss,
            "failed_layer": None if run.failed_layer == SIZE_MAX else run.failed_layer,
        }
        if poll.error is not None:
            raise poll.error
        return self.last_run

    def forward(self, x, rows=None, int n_threads=0):
        cdef _Features features = _Features(x, self.input_size)
        cdef size_t m = features.features.rows if rows is None else len(rows)
        cdef _Buffer rows_ = _Buffer(rows, "rows", m, 8)
        out = np.empty((m, self.output_size), self.dtype)
        cdef _Buffer out_ = _Buffer(out, "out", m * self.output_size, self.itemsize, True)
        cdef fnn_status status
        self.begin_fit()
        try:
            with nogil:
                status = fnn_forward(self.net, out_.address(), &features.features, <const int64_t *>rows_.address(), m,
                                     n_threads)
        finally:
            self.end_fit()
        _check(status)
        return out

    def backward(self, dy, int n_threads=0, bint input_gradient=True):
        cdef size_t m = len(dy)
        cdef _Buffer dy_ = _Buffer(dy, "dy", m * self.output_size, self.itemsize)
        dx = np.empty((m, self.input_size), self.dtype) if input_gradient else None
        cdef _Buffer dx_ = _Buffer(dx, "dx", m * self.input_size, self.itemsize, True)
        cdef fnn_status status
        self.begin_fit()
        try:
            with nogil:
                status = fnn_backward(self.net, dx_.address(), dy_.address(), m, n_threads)
        finally:
            self.end_fit()
        if status == FNN_ENOTREADY:
            raise ValueError(f"backward of {m} rows needs forward(x, training=True) of the same rows just before it")
        _check(status)
        return dx

    def apply_gradients(self, double learning_rate, double batch_weight=1.0, int n_threads=0):
        cdef double squared_norm = 0
        cdef fnn_status status
        self.begin_fit()
        try:
            with nogil:
                status = fnn_apply_gradients(self.net, learning_rate, batch_weight, &squared_norm, n_threads)
        finally:
            self.end_fit()
        if status != FNN_EDIVERGED:
            _check(status)
        return status == FNN_OK, squared_norm

    @property
    def measure(self):
        return self.measures

    @measure.setter
    def measure(self, bint on):
        self._require_own_use()
        _check(fnn_net_measure(self.net, on))
        self.measures = on

    def take_measures(self):
        cdef fnn_measures taken
        cdef Py_ssize_t n = sum(trainable for _, _, trainable, _ in self.tensors())
        sums = np.zeros(n)
        cdef _Buffer sums_ = _Buffer(sums, "sums", n, 8, True)
        self._require_own_use()
        _check(fnn_net_take_measures(self.net, &taken, <double *>sums_.address()))
        return taken.steps, taken.clipped, (sums / max(taken.steps, 1)).tolist()

    @property
    def failed_layer(self):
        cdef size_t layer = fnn_net_failed_layer(self.net)
        return None if layer == SIZE_MAX else layer

    def reset(self):
        self.begin_fit()
        fnn_net_reset(self.net)
        self.end_fit()

    def copy_state(self, Engine other):
        self.begin_fit()
        try:
            _check(fnn_net_copy_state(self.net, other.net))
        finally:
            self.end_fit()

    def fused_output(self, str loss):
        return _name_of(_ACTIVATIONS, fnn_net_fused_output(self.net, _LOSSES[loss]))

    def penalty(self):
        return fnn_net_penalty(self.net)

    # ---- evaluation ----

    cdef size_t _rows_between_signals(self, size_t passes) noexcept:
        """Rows that `passes` passes each take well below 0.5 s for: Ctrl-C is answered after them."""
        return 1 + <size_t>1_000_000_000 // (1 + self.arena_size) // passes

    cdef int _predict(self, _Features x, _Buffer out, size_t width, size_t layers, int loss, int n_threads) except -1:
        """The first `layers` entries, or up to what the loss (>= 0) takes over. Ctrl-C is answered between stretches of
        rows that take well below 0.5 s; the result does not depend on them."""
        cdef size_t left = x.features.rows, most = self._rows_between_signals(1)
        cdef fnn_features part = x.features
        cdef char *to = <char *>out.address()
        cdef fnn_status status = FNN_OK
        self._begin_predict()
        try:
            while left > 0 and status == FNN_OK:
                part.rows = min(left, most)
                with nogil:
                    if loss < 0:
                        status = fnn_predict_layers(self.net, to, &part, layers, n_threads)
                    else:
                        status = fnn_predict_for_loss(self.net, to, &part, <fnn_loss_kind>loss, n_threads)
                left -= part.rows
                part.data = <const char *>part.data + <Py_ssize_t>part.rows * part.row_stride
                to += part.rows * width * <size_t>self.itemsize
                PyErr_CheckSignals()
        finally:
            self.predictions -= 1
        return _check(status)

    cdef fnn_status _predict_finite(self, fnn_features part, char *to) except *:
        """fnn_predict_finite of all rows, in the stretches of `_predict`."""
        cdef size_t left = part.rows, most = self._rows_between_signals(1)
        cdef fnn_status status = FNN_OK
        while left > 0 and status == FNN_OK:
            part.rows = min(left, most)
            with nogil:
                status = fnn_predict_finite(self.net, to, &part, 0)
            left -= part.rows
            part.data = <const char *>part.data + <Py_ssize_t>part.rows * part.row_stride
            to += part.rows * self.output_size * <size_t>self.itemsize
            PyErr_CheckSignals()
        return status

    def predict_plain(self, x, out=None):
        cdef Py_buffer rows
        if not self.ready or type(x) is not _ndarray or x.dtype is not self.dtype:
            return None
        PyObject_GetBuffer(x, &rows, PyBUF_STRIDES)
        try:
            if rows.ndim != 2 or <size_t>rows.shape[1] != self.input_size or rows.shape[0] == 0:
                return None
            if out is None:
                out = _empty((rows.shape[0], self.output_size), self.dtype)
            elif type(out) is not _ndarray or out.dtype is not self.dtype:
                return None
            return out if self._predict_into(out, &rows) else None
        finally:
            PyBuffer_Release(&rows)

    cdef bint _predict_into(self, out, Py_buffer *rows) except -1:
        """Whether `out` could take the outputs, the rows could be used, and the system refused no thread."""
        cdef Py_buffer to
        cdef fnn_features x
        cdef fnn_status status
        cdef int failures = fnn_thread_failures()
        try:
            PyObject_GetBuffer(out, &to, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        except (BufferError, ValueError):
            return False
        try:
            if to.ndim != 2 or to.shape[0] != rows.shape[0] or <size_t>to.shape[1] != self.output_size:
                return False
            if <char *>to.buf < <char *>rows.buf + rows.len and <char *>rows.buf < <char *>to.buf + to.len:
                return False
            x.data = rows.buf
            x.dtype = FNN_FLOAT32 if self.itemsize == 4 else FNN_FLOAT64
            x.rows = <size_t>rows.shape[0]
            x.row_stride = rows.strides[0]
            x.column_stride = rows.strides[1]
            self._begin_predict()
            try:
                if x.rows < _BRIEF // (self.arena_size + self.input_size):
                    status = fnn_predict_finite(self.net, to.buf, &x, 1)
                else:
                    status = self._predict_finite(x, <char *>to.buf)
            finally:
                self.predictions -= 1
        finally:
            PyBuffer_Release(&to)
        if status == FNN_EINVAL or failures != fnn_thread_failures():
            return False
        return _check(status) == 0

    def predict(self, x, out=None, Py_ssize_t n_layers=-1, int n_threads=0):
        cdef _Features features = _Features(x, self.input_size)
        cdef size_t rows = features.features.rows, width = self.output_size
        cdef size_t layers = self.n_layers if n_layers < 0 else <size_t>n_layers
        if n_layers >= 0:
            width = fnn_net_layer_width(self.net, layers - 1) if layers else self.input_size
        if out is None:
            out = np.empty((rows, width), self.dtype)
        cdef _Buffer out_ = _Buffer(out, "out", rows * width, self.itemsize, True)
        self._predict(features, out_, width, layers, -1, n_threads)
        return out

    def predict_for_loss(self, x, str loss, int n_threads=0):
        cdef _Features features = _Features(x, self.input_size)
        cdef size_t rows = features.features.rows
        out = np.empty((rows, self.output_size), self.dtype)
        cdef _Buffer out_ = _Buffer(out, "out", rows * self.output_size, self.itemsize, True)
        self._predict(features, out_, self.output_size, 0, _LOSSES[loss], n_threads)
        return out

    def loss_value(self, outputs, labels, values, weights, loss):
        cdef size_t rows = len(outputs)
        cdef _Buffer outputs_ = _Buffer(outputs, "outputs", rows * self.output_size, self.itemsize)
        cdef _Buffer labels_ = _Buffer(labels, "labels", rows, 4)
        cdef _Buffer values_ = _Buffer(values, "values", rows * self.output_size, self.itemsize)
        cdef _Buffer weights_ = _Buffer(weights, "weights", rows, 8)
        cdef fnn_targets targets = fnn_targets(<const int32_t *>labels_.address(), values_.address(),
                                               <const double *>weights_.address())
        cdef fnn_loss loss_ = _loss(loss)
        cdef double value = 0
        cdef fnn_status status
        with nogil:
            status = fnn_loss_value(self.net, &value, outputs_.address(), &targets, &loss_, rows)
        _check(status)
        return value

    def predict_mc(self, x, size_t samples, seed, int n_threads=0):
        cdef _Features features = _Features(x, self.input_size)
        cdef size_t rows = features.features.rows, at = 0, width = self.output_size * <size_t>self.itemsize
        cdef size_t most = self._rows_between_signals(samples)
        cdef uint64_t seed_ = seed
        cdef fnn_features part = features.features
        cdef fnn_status status = FNN_OK
        mean = np.empty((rows, self.output_size), self.dtype)
        deviation = np.empty_like(mean)
        cdef _Buffer mean_ = _Buffer(mean, "mean", rows * self.output_size, self.itemsize, True)
        cdef _Buffer deviation_ = _Buffer(deviation, "deviation", rows * self.output_size, self.itemsize, True)
        self._begin_predict()
        try:
            while at < rows and status == FNN_OK:
                part.rows = min(rows - at, most)
                with nogil:
                    status = fnn_predict_mc(self.net, <char *>mean_.address() + at * width,
                                            <char *>deviation_.address() + at * width, &part, at, samples, seed_,
                                            n_threads)
                part.data = <const char *>part.data + <Py_ssize_t>part.rows * part.row_stride
                at += part.rows
                PyErr_CheckSignals()
        finally:
            self.predictions -= 1
        _check(status)
        return mean, deviation

    def predict_expected(self, x, int n_threads=0):
        if fnn_net_dropout_units(self.net) == 0:
            return self.predict(x, n_threads=n_threads)
        cdef _Features features = _Features(x, self.input_size)
        cdef size_t rows = features.features.rows, at = 0
        cdef uint64_t n_masks = <uint64_t>1 << fnn_net_dropout_units(self.net), mask, end
        cdef uint64_t most_masks = 64 * (1 + self._rows_between_signals(64))
        cdef size_t most = self._rows_between_signals(<size_t>min(n_masks, most_masks))
        cdef fnn_features part = features.features
        cdef fnn_status status = FNN_OK
        total = np.zeros((rows, self.output_size))
        cdef _Buffer total_ = _Buffer(total, "total", rows * self.output_size, 8, True)
        self._begin_predict()
        try:
            while at < rows and status == FNN_OK:
                part.rows = min(rows - at, most)
                mask = 0
                while mask < n_masks and status == FNN_OK:
                    end = min(n_masks, mask + most_masks)
                    with nogil:
                        status = fnn_predict_expected(self.net, <double *>total_.address() + at * self.output_size,
                                                      &part, mask, end, n_threads)
                    mask = end
                    PyErr_CheckSignals()
                part.data = <const char *>part.data + <Py_ssize_t>part.rows * part.row_stride
                at += part.rows
        finally:
            self.predictions -= 1
        _check(status)
        return total.astype(self.dtype)

    def activate(self, array, str activation, double alpha=0.0):
        cdef size_t rows = array.shape[0], columns = array.shape[1]
        cdef _Buffer array_ = _Buffer(array, "array", rows * columns, self.itemsize, True)
        cdef fnn_activation kind = _ACTIVATIONS[activation]
        cdef fnn_status status
        with nogil:
            status = fnn_activate(self.net, array_.address(), kind, alpha, rows, columns)
        _check(status)
        return array

    def find_nonfinite(self, x):
        cdef _Features features = _Features(x, self.input_size)
        cdef size_t row = SIZE_MAX, column = 0
        cdef fnn_status status
        with nogil:
            status = fnn_find_nonfinite(self.net, &features.features, &row, &column)
        _check(status)
        return None if row == SIZE_MAX else (row, column)


# ---- model files ----


cdef int _check_model(fnn_status status, fnn_detail *detail, source) except -1:
    """The exception for a status of a model file; `source` is its path, or bytes."""
    if status == FNN_OK:
        return 0
    cdef str text = detail.text.decode() or fnn_status_text(status).decode()
    cdef str where = f"{source}: " if isinstance(source, str) else ""
    if status == FNN_EIO:
        raise OSError(detail.system_error, os.strerror(detail.system_error), source)
    if status == FNN_EFORMAT:
        raise ModelFileError(where + text)
    if status == FNN_EVERSION:
        raise ModelVersionError(where + text)
    if status == FNN_ENOMEM:
        raise MemoryError(where + text)
    if status == FNN_ENOISA:
        return _check(status)
    raise ValueError(where + text)


cdef bytes _path(path):
    """A path as C takes it."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("embedded null byte in the path")  # C would see a shorter one
    return encoded


cdef int _saves = 0  # of files under way; guarded by the GIL


def saves_under_way():
    return _saves


def save_model(Engine engine, path, str contents, attachments):
    global _saves
    cdef size_t n = len(attachments), size = 0, i
    cdef fnn_attachment *items = NULL
    cdef fnn_contents kind = FNN_CHECKPOINT if contents == "checkpoint" else FNN_MODEL
    cdef fnn_detail detail
    cdef fnn_status status
    cdef const char *file
    cdef char *to
    held = []
    encoded = b"" if path is None else _path(path)
    engine._begin_predict()
    try:
        items = <fnn_attachment *>PyMem_Malloc((n or 1) * sizeof(fnn_attachment))
        if items == NULL:
            raise MemoryError()
        for i, (name, array) in enumerate(attachments.items()):
            _hold(&items[i], held, name, array)
        if path is None:
            with nogil:
                status = fnn_model_save_memory(engine.net, NULL, &size, kind, items, n, &detail)
            if status != FNN_EINVAL or size == 0:
                _check_model(status, &detail, None)
            result = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
            to = PyBytes_AS_STRING(result)
            with nogil:
                status = fnn_model_save_memory(engine.net, to, &size, kind, items, n, &detail)
            _check_model(status, &detail, None)
            return result
        file = encoded
        _saves += 1
        with nogil:
            status = fnn_model_save(engine.net, file, kind, items, n, &detail)
        _saves -= 1
        _check_model(status, &detail, path)
    finally:
        engine.predictions -= 1
        PyMem_Free(items)


cdef int _hold(fnn_attachment *item, list held, str name, array) except -1:
    """Describe an array to C, and keep it and its name alive in `held`."""
    cdef _Buffer buffer = _Buffer(array, name, array.size, array.itemsize)
    encoded = name.encode()
    held += [buffer, encoded]
    item.name = encoded
    item.dtype = _DTYPES[array.dtype.name]
    item.rows = array.shape[0]
    item.columns = array.shape[1] if array.ndim == 2 else 0
    item.data = buffer.address()
    return 0


def open_model(source):
    """(engine, contents, attachments by name) of a model file: a path, or its bytes."""
    cdef fnn_model *model = NULL
    cdef fnn_detail detail
    cdef fnn_status status
    cdef Engine engine = Engine.__new__(Engine)
    cdef Py_buffer view
    cdef const char *file
    if isinstance(source, str):
        encoded = _path(source)
        file = encoded
        with nogil:
            status = fnn_model_open(&model, file, &detail)
        _check_model(status, &detail, source)
        return _read_model(engine, model, source)
    PyObject_GetBuffer(source, &view, 0)
    try:
        with nogil:
            status = fnn_model_open_memory(&model, view.buf, <size_t>view.len, &detail)
        _check_model(status, &detail, None)
        return _read_model(engine, model, None)
    finally:
        PyBuffer_Release(&view)


cdef tuple _read_model(Engine engine, fnn_model *model, source):
    """What stands in an open model, which is closed."""
    cdef fnn_detail detail
    cdef fnn_status status
    cdef fnn_attachment a
    attachments = {}
    try:
        with nogil:
            status = fnn_model_net(model, &engine.net, &detail)
        _check_model(status, &detail, source)
        engine._describe()
        for i in range(fnn_model_attachment_count(model)):
            a = fnn_model_attachment(model, i)
            dtype = np.dtype(_name_of(_DTYPES, a.dtype))
            size = a.rows * (a.columns or 1) * <size_t>dtype.itemsize
            data = PyBytes_FromStringAndSize(<const char *>a.data, <Py_ssize_t>size)
            array = np.frombuffer(data, dtype)
            attachments[a.name.decode()] = array.reshape(a.rows, a.columns) if a.columns else array
        return engine, "checkpoint" if fnn_model_contents(model) == FNN_CHECKPOINT else "model", attachments
    finally:
        fnn_model_close(model)


def crc32(array, uint32_t crc=0):
    """CRC-32 as of zlib, of a contiguous array's bytes after those that gave `crc`."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS)
    try:
        with nogil:
            crc = fnn_crc32(crc, view.buf, <size_t>view.len)
    finally:
        PyBuffer_Release(&view)
    return crc


def permutation(size_t n, seed, uint64_t epoch):
    order = np.empty(n, np.int64)
    cdef _Buffer order_ = _Buffer(order, "order", n, 8, True)
    cdef uint64_t seed_ = seed
    cdef fnn_status status
    with nogil:
        status = fnn_permutation(<int64_t *>order_.address(), n, seed_, epoch)
    _check(status)
    return order


def set_num_threads(int n):
    _check(fnn_set_num_threads(n))


def get_num_threads():
    return fnn_get_num_threads()


def isa_name():
    cdef const char *name
    _check(fnn_isa_name(&name))
    return name.decode()


def available_isas():
    names = []
    while fnn_runnable_isa(len(names)) != NULL:
        names.append(fnn_runnable_isa(len(names)).decode())
    return names


def compiler():
    return fnn_compiler().decode()


def version():
    return fnn_version().decode()


def allocation_count():
    return fnn_allocation_count()


def thread_failures():
    return fnn_thread_failures()


def _fail_allocation(uint64_t n, bint from_then_on=False):
    fnn_fail_allocation(n, from_then_on)


def _fail_thread_start(uint64_t n, bint from_then_on=False):
    fnn_fail_thread_start(n, from_then_on)


def _fail_io(uint64_t n, bint from_then_on=False, int error=0):
    fnn_fail_io(n, from_then_on, error)


def _set_work_per_thread(double work):
    fnn_set_work_per_thread(work)
