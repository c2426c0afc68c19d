"""What may be passed as features and targets, how epochs are cut, and statistics of columns."""

import tracemalloc

import numpy as np
import pytest

import fastnn as fn
from fastnn import data, losses

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 100, (30, 6))  # exact in every dtype below
Y = np.arange(30) % 3


def build(dtype="float32", seed=0):
    return fn.Sequential([fn.Dense(8, "tanh"), fn.BatchNorm(), fn.Dense(3)], 6, dtype=dtype, seed=seed)


def fitted(x, y=Y):
    net = build()
    fn.Trainer(net, batch_size=8).fit(x, y, epochs=2, verbose=0)
    return net


def with_offset(x, offset):
    """The same values at an address that is no multiple of their size."""
    raw = np.empty(x.nbytes + offset, np.uint8)
    raw[offset:] = np.ascontiguousarray(x).view(np.uint8).ravel()
    return raw[offset:].view(x.dtype).reshape(x.shape)


def read_only(x):
    copy = x.copy()
    copy.flags.writeable = False
    return copy


def memory_map(x, path):
    np.ascontiguousarray(x).tofile(path)
    return np.memmap(path, x.dtype, "r", shape=x.shape)


LAYOUTS = {
    "C": lambda x, path: np.ascontiguousarray(x),
    "Fortran": lambda x, path: np.asfortranarray(x),
    "negative strides": lambda x, path: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "every other row and column": lambda x, path: np.repeat(np.repeat(x, 2, axis=0), 2, axis=1)[::2, ::2],
    "misaligned": lambda x, path: with_offset(x, 1),
    "read-only": lambda x, path: read_only(x),
    "memory map": lambda x, path: memory_map(x, path / "x.bin"),
    "big-endian": lambda x, path: x.astype(x.dtype.newbyteorder(">")),
    "list": lambda x, path: x.tolist(),
    "unmasked masked array": lambda x, path: np.ma.array(x),
}
DTYPES = ["f2", "f4", "f8", "g", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_and_dtype_gives_the_bits_of_a_plain_array(layout, dtype, tmp_path):
    plain = X.astype(np.float32)
    x = LAYOUTS[layout](X.astype(dtype), tmp_path)
    before = np.array(x)
    np.testing.assert_array_equal(build().predict(x), build().predict(plain))
    trained, expected = fitted(x), fitted(plain)
    for name, view in trained.parameters().items():
        np.testing.assert_array_equal(view, expected.parameters()[name])
    np.testing.assert_array_equal(np.array(x), before)


def test_booleans_are_0_and_1():
    x = X > 50
    np.testing.assert_array_equal(build().predict(x), build().predict(x.astype(np.float32)))


def test_rows_with_stride_zero():
    x = np.broadcast_to(X[0].astype(np.float32), (5, 6))
    np.testing.assert_array_equal(build().predict(x), np.repeat(build().predict(x[:1]), 5, axis=0))


def test_a_data_frame_is_an_array():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({f"c{i}": column for i, column in enumerate(X.T)})
    np.testing.assert_array_equal(build().predict(frame), build().predict(X))
    trained = fitted(frame, pandas.Series(Y, index=np.arange(30)[::-1]))
    np.testing.assert_array_equal(trained.predict(X), fitted(X).predict(X))


@pytest.mark.parametrize("dtype", ["u1", "i4", "f4", "f8"])
def test_readable_features_are_not_copied(dtype, tmp_path):
    engine = build()._engine
    for layout in ("C", "Fortran", "negative strides", "read-only", "memory map"):
        x = LAYOUTS[layout](X.astype(dtype), tmp_path)
        assert np.shares_memory(data.features(x, engine), x), layout
    mask = X > 50
    assert np.shares_memory(data.features(mask, engine), mask)


def test_out_is_filled_and_returned():
    out = np.empty((30, 3), np.float32)
    assert build().predict(X, out=out) is out
    np.testing.assert_array_equal(out, build().predict(X))


# ---- targets ----


@pytest.mark.parametrize("dtype", ["i1", "u1", "i8", "u8", ">i4", "?"])
def test_integer_labels_become_private_int32(dtype):
    y = (Y % 2).astype(dtype)
    targets = data.targets(y, losses.CrossEntropy(), 30, build()._engine)
    assert targets.labels.dtype == np.int32
    np.testing.assert_array_equal(targets.labels, y)
    assert not np.shares_memory(targets.labels, y)


@pytest.mark.parametrize(
    "y", [np.eye(3, dtype=np.int64)[Y], np.eye(3)[Y] * 0.7 + 0.1, np.eye(3, dtype=bool)[Y].tolist()]
)
def test_rows_of_probabilities_become_private_values(y):
    targets = data.targets(y, losses.CrossEntropy(), 30, build("float64")._engine)
    assert targets.labels is None
    assert targets.values.dtype == np.float64
    assert targets.values.flags.c_contiguous
    np.testing.assert_array_equal(targets.values, y)


@pytest.mark.parametrize("loss", [losses.MSE(), losses.MAE(), losses.Huber(), losses.BinaryCrossEntropy()])
def test_one_output_takes_one_dimension(loss):
    engine = fn.Sequential([fn.Dense(1)], 6)._engine
    flat = data.targets(Y % 2, loss, 30, engine).values
    column = data.targets((Y % 2)[:, np.newaxis], loss, 30, engine).values
    assert flat.shape == (30, 1)
    np.testing.assert_array_equal(flat, column)


def test_values_are_copied_even_where_they_would_fit():
    y = np.zeros((30, 3), np.float32)
    assert not np.shares_memory(data.targets(y, losses.MSE(), 30, build()._engine).values, y)


def test_balanced_class_weights_make_every_class_count_alike():
    y = np.array([0, 0, 0, 0, 0, 1, 1, 2])
    targets = data.Targets(y, labels=y.astype(np.int32))
    weights = data.class_weights("balanced", targets, 4)  # class 3 does not occur
    sums = [weights[y == label].sum() for label in range(3)]
    np.testing.assert_allclose(sums, 8 / 3)
    np.testing.assert_array_equal(data.class_weights({1: 2.5}, targets, 4), np.where(y == 1, 2.5, 1))


def test_class_weights_of_a_binary_target():
    y = np.array([[0.0], [1], [1], [1]])
    weights = data.class_weights("balanced", data.Targets(y, values=y), 1)
    np.testing.assert_allclose(weights, [2, 2 / 3, 2 / 3, 2 / 3])


# ---- batches ----


@pytest.mark.parametrize("join", [False, True])
@pytest.mark.parametrize(("n", "size"), [(1, 1), (2, 1), (5, 5), (6, 5), (7, 5), (11, 5), (100, 7), (3, 2)])
def test_batches_cover_the_rows_once(n, size, join):
    starts = data.batch_starts(n, size, join)
    sizes = np.diff(starts.astype(int))
    assert starts.dtype == np.uint64
    assert starts[0] == 0
    assert starts[-1] == n
    assert (sizes[:-1] == size).all() or join
    assert sizes.max() <= size + join
    if join and n > 1 and size > 1:
        assert sizes.min() > 1


@pytest.mark.parametrize(
    ("n", "fraction", "rows"), [(10, 0, 10), (10, 0.2, 8), (7, 0.5, 3), (100, 0.29, 71), (1000, 0.999, 1)]
)
def test_the_last_rows_validate(n, fraction, rows):
    assert data.split_validation(n, fraction) == rows


# ---- statistics ----


@pytest.mark.parametrize("sizes", [[1] * 7, [3, 4], [7], [0, 6, 1]])
@pytest.mark.parametrize("weighted", [False, True])
def test_merged_moments_are_those_of_the_whole(sizes, weighted):
    x = RANDOM.normal(1e6, 1, size=(7, 3))
    x[:, 1] = 0.1
    weights = np.array([1, 2, 0, 3, 0.5, 0, 1]) if weighted else np.ones(7)
    moments = data.ColumnMoments(3)
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        moments.add(x[rows], weights[rows] if weighted else None)
        start += size
    mean = np.average(x, axis=0, weights=weights)
    variance = np.average((x - mean) ** 2, axis=0, weights=weights)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-14)
    np.testing.assert_allclose(moments.variance[[0, 2]], variance[[0, 2]], rtol=1e-9)
    assert moments.variance[1] == 0


def test_chunks_cover_the_rows(monkeypatch):
    monkeypatch.setattr(data, "_CHUNK_ELEMENTS", 20)
    rows = list(data.chunks(np.zeros((10, 6))))
    assert [row for part in rows for row in range(10)[part]] == list(range(10))
    assert all(part.stop - part.start <= 3 for part in rows)
    assert all(part.stop - part.start == 1 for part in data.chunks(np.zeros((10, 6)), width=20))


def test_recalibration_makes_room_for_its_widest_layer():
    net = fn.Sequential([fn.Dense(2048), fn.BatchNorm()], 2)
    tracemalloc.start()
    try:
        net.recalibrate(RANDOM.normal(size=(20_000, 2)))
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["f8", "f4", "i2"])
def test_standardize_sees_the_same_numbers_in_either_byte_order(dtype):
    x = (RANDOM.normal(size=(30, 6)) * 1e3).astype(dtype)
    nets = []
    for values in (x, x.astype(x.dtype.newbyteorder(">")), np.asfortranarray(x)):
        net = fn.Sequential([fn.Standardize(), fn.Dense(3)], 6, dtype="float64")
        fn.Trainer(net, batch_size=10).fit(values, Y, epochs=1, verbose=0)
        nets.append(net)
    for name in ("0.mean", "0.scale", "1.weight"):
        for net in nets[1:]:
            np.testing.assert_array_equal(net.parameters()[name], nets[0].parameters()[name])
