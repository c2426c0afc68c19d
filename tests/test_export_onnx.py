"""`fastnn.export.to_onnx`: ONNX Runtime computes what the engine predicts."""

import os
import sys

import numpy as np
import pytest
from optional import needed
from test_fold import shaken

import fastnn as fn
from fastnn.export import onnx as exporter
from fastnn.export import to_onnx

onnx = needed("onnx")
onnxruntime = needed("onnxruntime")

DTYPES = ("float32", "float64")
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}  # relative to the largest output
ACTIVATIONS = [
    *(fn.Identity(), fn.ReLU(), fn.LeakyReLU(0.2), fn.ELU(0.7), fn.SELU(), fn.GELU(), fn.SiLU(), fn.Softplus()),
    *(fn.Tanh(), fn.Sigmoid(), fn.Softmax()),
]


def run(path, x):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def difference(got, expected):
    """Largest difference relative to the largest output; the outputs vary, so that it says something."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    assert np.isfinite(expected).all()
    assert np.ptp(expected) > 1e-3 * np.abs(expected).max()
    return np.abs(got - expected).max() / np.abs(expected).max()


# ---- random nets ----


def random_net(seed, dtype):
    """One to four blocks of Dense and what may stand around it, in any order, behind any treatment of the features."""
    random = np.random.default_rng(seed)
    inputs = int(random.integers(1, 12))
    fronts = [fn.Scale(1 / 16), fn.Standardize(random.normal(8, 1, inputs), random.uniform(3, 6, inputs)), None]
    layers = [front for front in [random.choice(fronts)] if front is not None]
    for _ in range(random.integers(1, 5)):
        own = random.choice([None, random.choice(ACTIVATIONS)])
        block = [
            fn.Dense(int(random.integers(2, 24)), own, use_bias=bool(random.integers(2))),
            random.choice(ACTIVATIONS),
            fn.BatchNorm(eps=float(random.choice([1e-5, 2**-10]))),
            fn.Dropout(float(random.uniform(0, 0.6)), str(random.choice(["inverted", "test"]))),
            fn.Scale(float(random.uniform(0.5, 2))),
        ]
        kept = [block[0]] + [layer for layer in block[1:] if random.integers(3)]
        layers += [kept[place] for place in random.permutation(len(kept))]
    net = shaken(layers, inputs, dtype, seed)
    if isinstance(layers[0], fn.Standardize):
        net.parameters()["0.mean"][...] = layers[0].mean  # shaken away
        net.parameters()["0.scale"][...] = layers[0].scale
    return net, random.integers(0, 17, (40, inputs), np.uint8)


SEEDS = range(50)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_onnx_runtime_gives_the_predictions_of_random_nets(seed, dtype, tmp_path):
    net, x = random_net(seed, dtype)
    path = tmp_path / "net.onnx"
    to_onnx(net, path)
    expected = net.predict(x)
    assert difference(run(path, x.astype(dtype)), expected) <= TOLERANCE[dtype]
    assert difference(fn.from_onnx(path).predict(x), expected) <= TOLERANCE[dtype]


def test_the_random_nets_have_everything():
    nets = [random_net(seed, "float32")[0] for seed in SEEDS]
    layers = [layer for net in nets for layer in net.layers]
    kinds = {type(layer) for layer in layers} | {
        type(layer.own_activation) for layer in layers if hasattr(layer, "units")
    }
    assert kinds == {getattr(fn, name) for name in fn.layers.__all__ if name not in ("Layer", "Activation")}
    assert {layer.scaling for layer in layers if isinstance(layer, fn.Dropout)} == {"inverted", "test"}
    assert {layer.use_bias for layer in layers if isinstance(layer, fn.Dense)} == {True, False}
    first = {type(net.layers[0]) for net in nets}
    assert {fn.Scale, fn.Standardize, fn.BatchNorm, fn.Dropout, fn.Dense} <= first


# ---- single layers ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", ACTIVATIONS, ids=lambda layer: type(layer).__name__)
def test_activations_over_their_whole_range(layer, dtype, tmp_path):
    x = np.concatenate([np.linspace(-12, 12, 4001), np.geomspace(1e-6, 900, 500), -np.geomspace(1e-6, 900, 500)])
    x = np.stack([x, x[::-1] / 3], axis=1).astype(dtype)
    net = fn.Sequential([layer], 2, dtype)
    to_onnx(net, tmp_path / "net.onnx")
    got, expected = run(tmp_path / "net.onnx", x), net.predict(x)
    assert (np.abs(got - expected) <= {"float32": 2e-6, "float64": 1e-14}[dtype] * np.maximum(1, np.abs(x))).all()


def test_eps_of_a_float64_net_is_rounded_to_float32(tmp_path):
    net = shaken([fn.Dense(5), fn.BatchNorm(eps=0.1), fn.Dense(3)], 4, "float64")
    to_onnx(net, tmp_path / "net.onnx")
    x = np.random.default_rng(0).normal(size=(30, 4))
    assert 1e-11 < difference(run(tmp_path / "net.onnx", x), net.predict(x)) < 3e-8


def test_nets_of_nothing(tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    to_onnx(fn.Sequential([fn.Dropout(0.5), fn.Identity()], 3), tmp_path / "net.onnx")
    assert (run(tmp_path / "net.onnx", x) == x).all()
    assert fn.from_onnx(tmp_path / "net.onnx").layers == (fn.Identity(),)


# ---- the file ----


def small_net():
    layers = [fn.Standardize(1.0, 2.0), fn.Dense(5, "relu"), fn.BatchNorm(decay=0.75), fn.Dropout(0.5), fn.Dense(3)]
    return shaken(layers, 4, "float32")


def test_the_model_says_what_it_is(tmp_path):
    net = small_net()
    to_onnx(net, str(tmp_path / "net.onnx"))
    model = onnx.load(tmp_path / "net.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert (model.producer_name, model.producer_version, model.ir_version) == ("fastnn", fn.__version__, 9)
    for value, name, size in ((model.graph.input[0], "x", 4), (model.graph.output[0], "y", 3)):
        batch, width = value.type.tensor_type.shape.dim
        assert (value.name, batch.dim_param, width.dim_value) == (name, "batch", size)
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    parameters = net.parameters()
    assert tensors.keys() == parameters.keys()
    assert all((tensors[name] == parameters[name]).all() for name in parameters)
    operators = [node.op_type for node in model.graph.node]
    assert operators == ["Sub", "Div", "Gemm", "Relu", "BatchNormalization", "Gemm"]
    (momentum,) = [entry.f for entry in model.graph.node[4].attribute if entry.name == "momentum"]
    assert momentum == 0.75


def test_a_folded_net_has_no_batchnorm(tmp_path):
    net = small_net()
    to_onnx(net.fold(), tmp_path / "net.onnx")
    assert "BatchNormalization" not in [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node]
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    assert difference(run(tmp_path / "net.onnx", x), net.predict(x)) <= 1e-5


def test_a_changed_parameter_is_seen(tmp_path):
    net = small_net()
    to_onnx(net, tmp_path / "net.onnx")
    net.parameters()["2.running_var"][...] *= 1.001
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    assert difference(run(tmp_path / "net.onnx", x), net.predict(x)) > 1e-5


# ---- what goes wrong ----


def test_what_is_no_net_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"net must be a fastnn\.Sequential, got 3"):
        to_onnx(3, tmp_path / "net.onnx")


def test_standardize_needs_statistics(tmp_path):
    with pytest.raises(ValueError, match="no statistics yet"):
        to_onnx(fn.Sequential([fn.Standardize(), fn.Dense(2)], 3), tmp_path / "net.onnx")
    assert not os.listdir(tmp_path)


def test_what_exceeds_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "LARGEST_FILE", 255)
    to_onnx(fn.Sequential([fn.Dense(7, use_bias=False)], 8), tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="256 bytes; an ONNX file holds at most 255"):
        to_onnx(fn.Sequential([fn.Dense(8, use_bias=False)], 8), tmp_path / "net.onnx")


def test_without_onnx_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"to_onnx needs onnx.*pip install 'fastnn-cpu\[onnx\]'"):
        to_onnx(small_net(), tmp_path / "net.onnx")
    with pytest.raises(ImportError, match=r"from_onnx needs onnx.*pip install 'fastnn-cpu\[onnx\]'"):
        fn.from_onnx(tmp_path / "net.onnx")


def test_a_failed_export_leaves_the_old_file(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space")

    path = tmp_path / "net.onnx"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        to_onnx(small_net(), path)
    assert os.listdir(tmp_path) == ["net.onnx"]
    assert path.read_text() == "old"


def test_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        to_onnx(small_net(), tmp_path / "missing" / "net.onnx")
