"""The compiled core: one engine per net. Arguments are checked here once; arrays are NumPy's."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

class Engine:
    """Owns the C net: parameters, gradients, moments, workspaces.

    Parameters
    ----------
    layers : sequence of dict
        One record per list entry: ``kind`` ("dense", "batchnorm", "dropout", "activation", "scale", "standardize") and
        the fields of ``fnn_layer`` that the kind uses: units, use_bias, activation (name), alpha, init (name),
        init_value, penalty (kind, lam, beta), trainable, eps, decay, unbiased, p, test_scaling, given.
    """

    input_size: int
    output_size: int
    dtype: np.dtype[Any]
    seed: int
    n_layers: int
    passes: int  # settable: training-mode forward passes since reset (the step of the random numbers)
    updates: int  # settable: optimizer steps
    dropout_units: int
    failed_layer: int | None  # of the last `forward`, after its loss or gradients were not finite

    def __init__(self, layers: Sequence[dict[str, Any]], input_size: int, dtype: str, seed: int) -> None: ...
    def tensors(self) -> list[tuple[str, int, bool, tuple[int, ...]]]:
        """(name, layer index, trainable, shape) in order; vectors have one-dimensional shapes."""
    def layers(self) -> list[dict[str, Any]]:
        """The records that the net was made from, with every field."""
    link: str | None  # settable: "identity", "sigmoid", "softmax" or "exp" of the loss trained with
    ready: bool  # settable: a leading Standardize has its statistics, or there is none; False at first
    frozen: bool

    def parameter(self, index: int) -> Array:
        """Writable zero-copy view of tensor ``index``; of a frozen net's weights a copy."""
    def freeze(self) -> None:
        """Move the weights into the layout that predicts fastest. For ever: training and drawing are a ValueError."""
    def gradient(self, index: int) -> Array:
        """The same for its gradient; the tensor must be trainable. Allocates the gradients at the first call."""
    def moments(self, index: int) -> list[Array]:
        """Views of the optimizer's buffers of a trainable tensor (empty before the first update)."""
    def initialize(self) -> None:
        """Draw all weights as the layers say; statistics anew, but for those of Standardize."""
    def layer_width(self, layer: int) -> int: ...
    def configure(
        self,
        optimizer: dict[str, Any],
        clip: tuple[str, float, float],
        penalty: tuple[str, float, float],
        loss_scale: float = 1.0,
        penalty_per_weight: bool = False,
    ) -> None:
        """What the next steps use.

        optimizer: kind ("sgd", "rmsprop", "adam") and fields of fnn_optimizer; clip: (kind, low, high) with kind
        "none", "value", "norm" or "tensor_norm"; penalty: (kind, lam, beta) of the layers without their own, with kind
        "default" (none), "l1", "proximal_l1", "l2" or "elastic_net". The loss and its gradient are multiplied by
        loss_scale, every penalty divided by the sum of weights of each batch with penalty_per_weight.
        """
    measure: bool  # settable: sum what `take_measures` returns over every step; the bits of the steps stay
    def take_measures(self) -> tuple[int, int, list[float]]:
        """(steps, those among them whose gradient clipping changed, mean norm of (gradient + penalty) before clipping
        per trainable tensor), since the last call. ValueError: not measuring.
        """
    def begin_fit(self) -> None:
        """Mark this thread as the net's trainer. RuntimeError while another thread trains or predicts. Nestable."""
    def end_fit(self) -> None: ...
    def train(
        self,
        x: Array,
        labels: Array | None,
        values: Array | None,
        weights: Array | None,
        loss: tuple[str, float],
        order: Array | None,
        batch_starts: Array,
        learning_rates: Array,
        micro_batch: int = 0,
        outputs: Array | None = None,
        stop: Callable[[], bool] | None = None,
        n_threads: int = 0,
        loss_sum: float = 0.0,
        weight_sum: float = 0.0,
    ) -> dict[str, Any]:
        """Run the batches.

        x (n, input_size): any layout, dtype from `feature_dtypes`; labels int32, or values (n, outputs) of the net's
        dtype, C-contiguous; weights float64; order int64; batch_starts uint64 (n_batches + 1); learning_rates float64.
        The caller has checked labels, order and finiteness, and owns private copies of labels, values and weights.

        Every 50 ms the GIL is taken: signals are handled (an exception such as KeyboardInterrupt abandons the step in
        flight and propagates once ``self.last_run`` is set) and ``stop()`` true ends the run after the step.
        loss_sum and weight_sum are those of the earlier part of an epoch, where the new ones begin.

        Returns (also kept as ``last_run``): status ("ok", "diverged", "interrupted"), loss_sum, weight_sum,
        batches_done, failed_loss, failed_layer (None if unknown). Divergence is returned, not raised.
        """
    last_run: dict[str, Any] | None  # None before the first run
    def forward(self, x: Array, rows: Array | None = None, n_threads: int = 0) -> Array:
        """Training-mode pass; new array (m, output_size)."""
    def backward(self, dy: Array, n_threads: int = 0, input_gradient: bool = True) -> Array | None:
        """Gradient with respect to the first node's input, which is after a leading Scale or Standardize."""
    def apply_gradients(
        self, learning_rate: float, batch_weight: float = 1.0, n_threads: int = 0
    ) -> tuple[bool, float]:
        """(finite, squared norm); not finite: nothing was changed. batch_weight: of the rows behind the gradients."""
    def reset(self) -> None: ...
    def copy_state(self, other: Engine) -> None:
        """Parameters, moments, counters and link of an engine of the same layers, into the memory of this one."""
    def fused_output(self, loss: str) -> str:
        """ "softmax", "sigmoid" or "identity": the final activation that the loss works before."""
    def penalty(self) -> float: ...
    def predict_plain(self, x: Any, out: Any = None) -> Array | None:
        """`predict` and its checks in one call, for the plain case: x is an ndarray, C-contiguous, of the net's dtype.

        None where x, out or a feature is anything else, or the system just refused a thread: the caller then looks
        closer. ``out`` may have been written to.
        """
    def predict(self, x: Array, out: Array | None = None, n_layers: int = -1, n_threads: int = 0) -> Array:
        """Evaluation-mode output of the first ``n_layers`` entries (-1: all).

        RuntimeError while another thread trains.
        """
    def predict_for_loss(self, x: Array, loss: str, n_threads: int = 0) -> Array: ...
    def loss_value(
        self, outputs: Array, labels: Array | None, values: Array | None, weights: Array | None, loss: tuple[str, float]
    ) -> float: ...
    def predict_mc(self, x: Array, samples: int, seed: int, n_threads: int = 0) -> tuple[Array, Array]: ...
    def predict_expected(self, x: Array, n_threads: int = 0) -> Array: ...
    def activate(self, array: Array, activation: str, alpha: float = 0.0) -> Array:
        """In place on a C-contiguous 2-D array of the net's dtype; returned."""
    def find_nonfinite(self, x: Array) -> tuple[int, int] | None:
        """(row, column) of the first value that is not finite in the net's dtype."""

feature_dtypes: frozenset[str]  # names of NumPy dtypes that `x` may have without conversion, native byte order

def save_model(engine: Engine, path: str | bytes | None, contents: str, attachments: Mapping[str, Array]) -> Any:
    """Write a model file ("model" or "checkpoint"), or return its bytes where path is None.

    attachments: C-contiguous arrays of one or two dimensions by the names of docs/model-file.md. OSError with path;
    ValueError: a parameter is not finite, or a name or size that the format does not hold.
    """

def saves_under_way() -> int:
    """Calls of `save_model` that are writing a file, in all threads."""

def open_model(source: str | bytes | bytearray | memoryview) -> tuple[Engine, str, dict[str, Array]]:
    """(engine, "model" or "checkpoint", attachments) of a path, or of a file's bytes. A checkpoint's engine has its
    optimizer's buffers and counters. ModelFileError, ModelVersionError, OSError.
    """

def crc32(array: Any, crc: int = 0) -> int: ...
def permutation(n: int, seed: int, epoch: int) -> Array: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def isa_name() -> str: ...
def available_isas() -> list[str]: ...
def compiler() -> str: ...
def version() -> str: ...
def allocation_count() -> int: ...
def thread_failures() -> int: ...
def _fail_allocation(n: int, from_then_on: bool = False) -> None: ...
def _fail_thread_start(n: int, from_then_on: bool = False) -> None: ...
def _fail_io(n: int, from_then_on: bool = False, error: int = 0) -> None: ...
def _set_work_per_thread(work: float) -> None: ...
