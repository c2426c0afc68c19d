"""fastnn through its Python interface; the products and kernels through the C table."""

import fastnn as fn

from .. import native
from ..workloads import LARGEST_NORM, LEARNING_RATE, PENALTY, Many, Product, Workload
from . import Data, Run, Training, repeat


def build(work: Workload, dtype: str, seed: int = 0) -> fn.Sequential:
    """The net of a workload with its weights."""
    layers: list = []
    for width in work.widths[1:-1]:
        layers.append(fn.Dense(width))
        if work.regularised:
            layers.append(fn.BatchNorm())
        layers.append(fn.ReLU() if work.activation == "relu" else fn.Tanh())
        if work.regularised:
            layers.append(fn.Dropout(0.5))
    layers.append(fn.Dense(work.widths[-1]))
    net = fn.Sequential(layers, input_size=work.widths[0], dtype=dtype, seed=seed)
    views = net.parameters()
    dense = [place for place, layer in enumerate(layers) if isinstance(layer, fn.Dense)]
    for place, (weight, bias) in zip(dense, work.weights(dtype, seed), strict=True):
        views[f"{place}.weight"][...] = weight
        views[f"{place}.bias"][...] = bias
    return net


def trainer_of(work: Workload, dtype: str, rate: float, threads: int, seed: int) -> fn.Trainer:
    return fn.Trainer(
        build(work, dtype, seed),
        loss=work.loss,
        optimizer=fn.SGD(rate) if work.optimizer == "sgd" else fn.Adam(rate),
        regularizer=fn.L2(PENALTY) if work.regularised else None,
        clip=fn.ClipNorm(LARGEST_NORM) if work.regularised else None,
        batch_size=work.batch,
        n_threads=threads,
    )


def training(work: Workload, data: Data, rate: float, threads: int, seed: int) -> Training:
    x, y = data
    trainer = trainer_of(work, x.dtype, rate, threads, seed)
    net = trainer.net

    def run(steps: int) -> None:
        for rows, epochs in work.stretches(steps):
            trainer.fit(x[rows], y[rows], epochs=epochs, shuffle=not work.full_batch, verbose=0)

    return run, lambda rows: net.predict(rows, n_threads=threads)


def many(many: Many, threads: int, dtype: str) -> Run:
    x, y = many.work.data(dtype)
    trainers = [trainer_of(many.work, dtype, LEARNING_RATE, threads, seed) for seed in range(many.members)]
    return lambda epochs: fn.fit_many(trainers, x, y, epochs=epochs, verbose=0, n_threads=threads)


def predict(work: Workload, threads: int, dtype: str, fold: bool = False) -> Run:
    fn.set_num_threads(threads)
    net, x = build(work, dtype), work.features(dtype)
    if fold:
        net = net.fold()
    return repeat(lambda: net.predict(x))


def product(product: Product, threads: int, dtype: str) -> Run:
    """The kernel alone: dX gets the transposed weights that the step makes once."""
    m, n, k = product.m, product.n, product.k
    a = native.matrix(*((k, m) if product.kind == "dW" else (m, k)), dtype)
    b, out = native.matrix(k, n, dtype), native.matrix(m, n, dtype)
    function = {"forward": "forward", "dW": "backward_weights", "dX": "backward_input"}[product.kind]
    name, number = f"fnn_bench_{function}", {"float32": 0, "float64": 1}[dtype]
    isa = native.live_isa().encode()
    strides = out.shape[1], a.shape[1], b.shape[1]

    def run(calls: int) -> None:
        # Sizes in the kernel's own order: rows and columns of the result, then the length of its sums.
        if not native.call(name, isa, number, calls, out, a, b, m, n, k, *strides):
            raise RuntimeError(f"this machine cannot run {isa.decode()}.")

    return run


def kernel(name: str, threads: int, dtype: str) -> Run:
    from ..kernels import sides

    return repeat(sides(name)[0])


def state() -> dict[str, object]:
    return {
        "version": fn.__version__,
        "isa": fn._core.isa_name(),
        "compiler": fn._core.compiler(),
        "allocations": fn._core.allocation_count(),
    }
