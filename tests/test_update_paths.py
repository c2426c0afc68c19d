"""One step has several ways through the engine: updates that follow their gradient at once or wait for the norm, long
batches in blocks or layer by layer. All of them give the same bits, the same gradients and the same refusals."""

import numpy as np
import pytest

import fastnn as fn
from fastnn import _core

NETS = {
    "plain": lambda: [fn.Dense(40), fn.ReLU(), fn.Dense(3)],
    "batch normalisation": lambda: [fn.Dense(40), fn.BatchNorm(), fn.ReLU(), fn.Dropout(0.25), fn.Dense(3)],
    "frozen layer": lambda: [fn.Dense(40), fn.Tanh(), fn.Dense(24, trainable=False), fn.Dense(3, use_bias=False)],
}
OPTIMIZERS = {
    "plain descent": lambda: fn.SGD(0.05),
    "momentum": lambda: fn.SGD(0.05, momentum=0.9),
    "RMSprop": lambda: fn.RMSprop(1e-3),
    "AdamW": lambda: fn.AdamW(1e-3),
}
INPUTS = 300  # so many that bounding the gradient is cheap beside what it saves


def data(rows, inputs=INPUTS):
    random = np.random.default_rng(rows)
    return random.standard_normal((rows, inputs), dtype=np.float32), random.integers(0, 3, rows)


def make(layers, optimizer, batch_size, stores_gradients, dtype="float32", inputs=INPUTS, **more):
    net = fn.Sequential(layers, input_size=inputs, seed=1, dtype=dtype)
    if stores_gradients:
        net.gradients()
    return net, fn.Trainer(net, optimizer=optimizer, batch_size=batch_size, **more)


def weights(net):
    return {name: np.array(view) for name, view in net.parameters().items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert values.any() or not name.endswith(".weight"), f"{name} is all zero"
        assert found[name].tobytes() == values.tobytes(), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("layers", "batch_size"),
    [(layers, rows) for layers in NETS for rows in (1, 7, 128, 150) if rows > 1 or layers != "batch normalisation"],
)
def test_update_at_once_and_update_after_the_norm(layers, optimizer, batch_size, dtype):
    x, y = data(3 * batch_size)
    ways = []
    for stores in (False, True):
        net, trainer = make(NETS[layers](), OPTIMIZERS[optimizer](), batch_size, stores, dtype)
        trainer.fit(x, y, epochs=2, verbose=0)
        ways.append((weights(net), {name: np.array(g) for name, g in net.gradients().items()}))
    assert_equal(ways[0][0], ways[1][0])
    assert_equal(ways[0][1], ways[1][1])


def test_gradients_of_a_step_survive_the_next_forward_pass():
    x, y = data(16)
    net, trainer = make(NETS["plain"](), fn.SGD(0.05), 16, stores_gradients=False)
    other, expected = make(NETS["plain"](), fn.SGD(0.05), 16, stores_gradients=True)
    trainer.train_step(x, y)
    expected.train_step(x, y)
    net.forward(x[:5])
    assert_equal({n: np.array(g) for n, g in net.gradients().items()}, dict(other.gradients()))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("large", [1e30, 3e38])
def test_a_gradient_that_overflows_changes_nothing(optimizer, large):
    """Its bound fails; the stored gradient decides: at 1e30 it is finite for some, at 3e38 for none."""
    x, y = data(32)
    x[5] = large
    outcomes = []
    for stores in (False, True):
        net, trainer = make(NETS["plain"](), OPTIMIZERS[optimizer](), 32, stores)
        before = weights(net)
        try:
            trainer.train_step(x, y)
            outcomes.append(weights(net))
        except fn.DivergenceError as error:
            assert_equal(weights(net), before)
            outcomes.append(str(error))
    if isinstance(outcomes[0], str):
        assert outcomes[0] == outcomes[1]
    else:
        assert all(outcomes[0][name].tobytes() == outcomes[1][name].tobytes() for name in outcomes[0])
    assert large < 3e38 or isinstance(outcomes[0], str)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("rows", [1023, 1024, 1500, 20_000])
def test_long_batches_in_blocks_and_layer_by_layer(rows, n_threads):
    """A loop of one's own keeps all rows of a layer; `fit` goes block by block from 1024 rows on."""
    x, y = data(rows, inputs=6)
    layers = [fn.Dense(20), fn.Tanh(), fn.Dropout(0.1), fn.Dense(3)]
    net, trainer = make(layers, fn.Adam(1e-2), rows, False, inputs=6, n_threads=n_threads)
    trainer.fit(x, y, epochs=1, shuffle=False, verbose=0)
    own, loop = make(layers, fn.Adam(1e-2), rows, False, inputs=6, n_threads=n_threads)
    z = own.forward(x)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(rows), y] -= 1
    own.backward(p / np.float32(rows))
    loop.apply_gradients()
    for name, values in weights(net).items():
        np.testing.assert_allclose(weights(own)[name], values, rtol=1e-4, atol=2e-6, err_msg=name)


def test_blocks_give_the_same_bits_for_every_number_of_threads():
    x, y = data(5000, inputs=6)
    results = []
    for n_threads in (1, 2, 5):
        layers = [fn.Dense(20), fn.Tanh(), fn.Dropout(0.1), fn.Dense(3)]
        net, trainer = make(layers, fn.Adam(1e-2), 2500, False, inputs=6, n_threads=n_threads)
        _core._set_work_per_thread(1)
        try:
            trainer.fit(x, y, epochs=2, verbose=0)
        finally:
            _core._set_work_per_thread(1e6)
        results.append(weights(net))
    for other in results[1:]:
        assert_equal(other, results[0])


def test_a_divergence_in_a_block_names_its_layer():
    x, y = data(3000, inputs=6)
    net = fn.Sequential([fn.Dense(8), fn.Dense(8), fn.ReLU(), fn.Dense(3)], input_size=6, seed=0)
    net.parameters()["1.weight"][...] = 1e38
    trainer = fn.Trainer(net, optimizer=fn.Adam(1e-2), batch_size="full")
    before = weights(net)
    with pytest.raises(fn.DivergenceError, match="layer 1"):
        trainer.fit(x, y, epochs=1, verbose=0)
    assert all(before[name].tobytes() == values.tobytes() for name, values in weights(net).items())
