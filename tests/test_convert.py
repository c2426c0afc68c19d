"""`from_onnx` on files of other exporters and on graphs made here; `from_sklearn`.

The files in tests/onnx come with what the original library predicts, so that neither PyTorch nor skl2onnx is needed:
this is where the mapping of PyTorch's modules is tested without PyTorch. `from_torch` itself needs modules and is in
test_convert_torch.py.
"""

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from optional import needed

import fastnn as fn

onnx = needed("onnx")
onnxruntime = needed("onnxruntime")
sklearn_neural = needed("sklearn.neural_network")

GOLDEN = Path(__file__).parent / "onnx"
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}  # relative to the largest output


def difference(got, expected):
    assert got.shape == expected.shape
    assert np.ptp(expected) > 1e-3 * np.abs(expected).max()
    return np.abs(got - expected).max() / np.abs(expected).max()


# ---- files of other exporters ----


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.onnx")), ids=lambda path: path.stem)
def test_golden_files_predict_what_the_original_does(path):
    net = fn.from_onnx(path)
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as golden:
        x, expected = golden["x"], golden["y"]
    if "_2_classes" in path.stem:
        assert expected.shape[1] == 2
        expected = expected[:, 1:]
    expected = expected.reshape(len(x), -1)
    assert net.dtype == ("float64" if "float64" in path.stem else "float32")
    assert difference(net.predict(x.reshape(len(x), -1)), expected) <= TOLERANCE[net.dtype.name]
    if "classes" in path.stem or "labels" in path.stem:
        assert difference(net.predict_proba(x), expected) <= TOLERANCE[net.dtype.name]


TORCH_LAYERS = [
    *(fn.Dense(9), fn.BatchNorm(eps=1e-3, decay=0.8), fn.ReLU(), fn.Dense(8, use_bias=False), fn.SiLU()),
    *(fn.Dense(7), fn.GELU(), fn.Dense(8), fn.Softplus(), fn.Dense(7), fn.LeakyReLU(0.2), fn.Dense(6), fn.ELU(0.7)),
    *(fn.Dense(7), fn.SELU(), fn.BatchNorm(), fn.Dense(6), fn.Tanh(), fn.Dense(7), fn.Sigmoid(), fn.Dense(6)),
    *(fn.Softmax(), fn.Dense(3)),
]


@pytest.mark.parametrize("name", ["torch_script_9", "torch_script_13", "torch_script_20", "torch_script_17_float64"])
def test_layers_of_pytorch_are_recognised(name):
    assert fn.from_onnx(GOLDEN / f"{name}.onnx").layers == tuple(TORCH_LAYERS)


@pytest.mark.parametrize("name", ["torch_dynamo_18", "torch_dynamo_20"])
def test_pytorch_exports_batchnorm_after_linear_as_one_gemm(name):
    assert fn.from_onnx(GOLDEN / f"{name}.onnx").layers == (TORCH_LAYERS[0], *TORCH_LAYERS[2:])


def test_the_files_of_a_scaled_classifier():
    standardize, *others = fn.from_onnx(GOLDEN / "sklearn_pipeline.onnx").layers
    assert len(standardize.mean) == len(standardize.scale) == 4
    assert others == [fn.Dense(7), fn.ReLU(), fn.Dense(3), fn.Softmax()]


def test_golden_files_are_small_and_their_makers_known():
    assert len(list(GOLDEN.glob("*.onnx"))) == 18
    assert all(path.stat().st_size < 20_000 for path in GOLDEN.iterdir())
    versions = json.loads((GOLDEN / "versions.json").read_text(encoding="utf-8"))
    assert {"torch", "scikit-learn", "skl2onnx", "onnx"} <= versions.keys()


# ---- graphs made here ----

RANDOM = np.random.default_rng(5)
X = RANDOM.normal(1, 2, (20, 4)).astype(np.float32)
W, W2 = (RANDOM.normal(size=shape).astype(np.float32) for shape in ((4, 3), (3, 3)))
B, POSITIVE = RANDOM.normal(size=3).astype(np.float32), RANDOM.uniform(0.5, 2, 3).astype(np.float32)
CONSTANTS = {
    "w": W,
    "wt": W.T.copy(),
    "w2": W2,
    "w16": W.astype(np.float16),
    "nan": np.where(W > 1, np.nan, W),
    "vector": W[:, 0],
    "b": B,
    "row": B.reshape(1, 3),
    "column": np.ones((2, 1), np.float32),
    "short": B[:2],
    "gamma": B + 2,
    "var": POSITIVE,
    "negative": -POSITIVE,
    "mean4": W[:, 0],
    "scale4": W[:, 1] + 5,
    "half": np.float32(0.5),
    "zero": np.float32(0),
    "cube": np.ones((1, 1, 1), np.float32),
    "flag": np.array(True),
    "no": np.array(False),
    "to_4": np.array([-1, 4]),
    "to_2": np.array([-1, 2]),
    "keep_rows": np.array([0, -1]),
    "fixed": np.array([20, 4]),
}


def node(operator, inputs, output, **attributes):
    return onnx.helper.make_node(operator, inputs.split(), output.split(), **attributes)


def model(*nodes, opset=17, shape=("n", 4), outputs=("y",), constants=CONSTANTS, element=1, functions=(), ir=8):
    """A graph from x to y; what is no value of a node and no constant of `constants` is an error of the checker."""
    used = {name for each in nodes for name in each.input} & constants.keys()
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info("x", element, shape)],
        [onnx.helper.make_tensor_value_info(name, 1, ["rows", "columns"]) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(constants[name]), name) for name in sorted(used)],
    )
    domains = {"": opset, **{each.domain: 1 for each in nodes if each.domain}}
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=ir, functions=functions)


def saved(tmp_path, content):
    path = tmp_path / "graph.onnx"
    path.write_bytes(content.SerializeToString())
    return path


def batchnorm(**attributes):
    return node("BatchNormalization", "h gamma b b var", "y", **attributes)


def gemm(output="y", **attributes):
    return node("Gemm", "x w b", output, **attributes)


RELU = node("Relu", "h", "y")
ACCEPTED = {
    "gemm": ([gemm()], [fn.Dense(3)]),
    "gemm transposed and scaled": ([node("Gemm", "x wt b", "y", transB=1, alpha=0.5, beta=2.0)], [fn.Dense(3)]),
    "gemm without bias": ([node("Gemm", "x w", "y")], [fn.Dense(3, use_bias=False)]),
    "gemm with a bias for all": ([node("Gemm", "x w half", "y")], [fn.Dense(3)]),
    "gemm with a bias as a row": ([node("Gemm", "x w row", "y")], [fn.Dense(3)]),
    "matmul": ([node("MatMul", "x w", "y")], [fn.Dense(3, use_bias=False)]),
    "matmul and add": ([node("MatMul", "x w", "h"), node("Add", "h b", "y")], [fn.Dense(3)]),
    "add from the left": ([node("MatMul", "x w", "h"), node("Add", "row h", "y")], [fn.Dense(3)]),
    "identities": (
        [node("Identity", "x", "i"), node("Gemm", "i w b", "g"), node("Identity", "g", "h"), RELU],
        [fn.Dense(3), fn.ReLU()],
    ),
    "weights behind nodes": (
        [
            node("Transpose", "wt", "turned"),
            node("Identity", "turned", "same"),
            node("Constant", "", "c", value_floats=[1.0, 2.0, 3.0]),
            node("Gemm", "x same c", "y"),
        ],
        [fn.Dense(3)],
    ),
    "batchnorm": ([gemm("h"), batchnorm(epsilon=1e-3, momentum=0.7)], [fn.Dense(3), fn.BatchNorm(1e-3, 0.7)]),
    "batchnorm by default": ([gemm("h"), batchnorm()], [fn.Dense(3), fn.BatchNorm()]),
    "leaky": ([gemm("h"), node("LeakyRelu", "h", "y")], [fn.Dense(3), fn.LeakyReLU(0.01)]),
    "elu": ([gemm("h"), node("Elu", "h", "y", alpha=0.3)], [fn.Dense(3), fn.ELU(0.3)]),
    "selu": ([gemm("h"), node("Selu", "h", "y")], [fn.Dense(3), fn.SELU()]),
    "silu from the right": (
        [gemm("h"), node("Sigmoid", "h", "s"), node("Mul", "s h", "y")],
        [fn.Dense(3), fn.SiLU()],
    ),
    "softmax": ([gemm("h"), node("Softmax", "h", "y", axis=1)], [fn.Dense(3), fn.Softmax()]),
    "dropout": (
        [gemm("h"), node("Dropout", "h half no", "d"), node("Gemm", "d w2 b", "y")],
        [fn.Dense(3), fn.Dropout(0.5), fn.Dense(3)],
    ),
    "a factor": ([gemm("h"), node("Mul", "half h", "y")], [fn.Dense(3), fn.Scale(0.5)]),
    "a divisor in front": ([node("Div", "x half", "h"), node("Gemm", "h w b", "y")], [fn.Scale(2.0), fn.Dense(3)]),
    "standardised by a factor": (
        [node("Sub", "x mean4", "m"), node("Mul", "m half", "h"), node("Gemm", "h w b", "y")],
        [fn.Standardize([float(str(v)) for v in W[:, 0]], 2.0), fn.Dense(3)],
    ),
    "centred": (
        [node("Sub", "x mean4", "h"), node("Gemm", "h w b", "y")],
        [fn.Standardize([float(str(v)) for v in W[:, 0]], 1.0), fn.Dense(3)],
    ),
    "scaled per feature": (
        [node("Div", "x scale4", "h"), node("Gemm", "h w b", "y")],
        [fn.Standardize(0.0, [float(str(v)) for v in W[:, 1] + 5]), fn.Dense(3)],
    ),
    "reshape in front": ([node("Reshape", "x to_4", "h"), node("Gemm", "h w b", "y")], [fn.Dense(3)]),
    "rows kept": ([node("Reshape", "x keep_rows", "h"), node("Gemm", "h w b", "y")], [fn.Dense(3)]),
    "cast": ([node("Cast", "x", "h", to=1), node("Gemm", "h w b", "y")], [fn.Dense(3)]),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_graphs_are_read_as_onnx_runtime_runs_them(case, tmp_path):
    nodes, layers = ACCEPTED[case]
    path = saved(tmp_path, model(*nodes))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    net = fn.from_onnx(path)
    assert net.layers == tuple(layers)
    assert difference(net.predict(X), session.run(None, {"x": X})[0]) <= 1e-5


@pytest.mark.parametrize("opset", [7, 8, 9, 11])
def test_old_forms(opset, tmp_path):
    """Dropout's ratio as an attribute, Gemm's bias required, Softmax along axis 1 by default."""
    nodes = [
        gemm("h"),
        node("BatchNormalization", "h gamma b b var", "i"),
        node("Dropout", "i", "d", ratio=0.3),
        node("Softmax", "d", "y"),
    ]
    path = saved(tmp_path, model(*nodes, opset=opset, ir=3 if opset < 9 else 4))
    if opset < 9:  # constants were inputs as well
        old = onnx.load(path)
        old.graph.input.extend(
            onnx.helper.make_tensor_value_info(tensor.name, 1, list(tensor.dims)) for tensor in old.graph.initializer
        )
        path.write_bytes(old.SerializeToString())
    net = fn.from_onnx(path)
    assert net.layers == (fn.Dense(3), fn.BatchNorm(), fn.Dropout(0.3), fn.Softmax())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert difference(net.predict(X), session.run(["y"], {"x": X})[0]) <= 1e-5


def test_an_image_is_flattened_in_c_order(tmp_path):
    path = saved(tmp_path, model(node("Flatten", "x", "h"), node("Gemm", "h w b", "y"), shape=("n", 2, 2)))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert difference(fn.from_onnx(path).predict(X), session.run(None, {"x": X.reshape(20, 2, 2)})[0]) <= 1e-5


def test_the_width_may_be_told_by_the_weights_alone(tmp_path):
    nodes = (node("Relu", "x", "h"), node("Gemm", "h w b", "y"))
    assert fn.from_onnx(saved(tmp_path, model(*nodes, shape=("n", "features")))).input_size == 4


# ---- what is refused ----

FUNCTION = onnx.helper.make_function(
    "mine", "Twice", ["a"], ["c"], [node("Add", "a a", "c")], [onnx.helper.make_opsetid("", 17)]
)
BRANCH = onnx.helper.make_graph(
    [node("Identity", "x", "z")], "branch", [], [onnx.helper.make_tensor_value_info("z", 1, ["rows", "columns"])]
)
REFUSED = {
    "another operator": (
        [node("ThresholdedRelu", "x", "y", name="cut")],
        r"node 'cut' \(ThresholdedRelu\): this operator",
    ),
    "a node without a name": (
        [node("Sin", "x", "y")],
        r"the Sin of 'y': this operator is not supported\. Supported is",
    ),
    "another domain": ([node("Gelu", "x", "y", domain="com.microsoft")], r"\(?com.microsoft.Gelu of 'y'"),
    "a residual": (
        [node("Gemm", "x w b", "h"), node("Relu", "h", "r"), node("Add", "h r", "y")],
        r"the Add of 'y': it joins several computed values \('h', 'r'\)",
    ),
    "computed weights": (
        [node("Gemm", "x w b", "h"), node("Relu", "w2", "v"), node("MatMul", "h v", "y")],
        r"the MatMul of 'y': it joins several computed values \('h', 'v'\)",
    ),
    "weights from the left": ([node("MatMul", "wt x", "y")], "with these constants it is no layer"),
    "control flow": (
        [node("If", "flag", "y", then_branch=BRANCH, else_branch=BRANCH)],
        "the If of 'y': this operator is not supported",
    ),
    "a transposed batch": ([node("Gemm", "x w b", "y", transA=1)], "transA must be 0, got 1"),
    "a bias per row": ([node("Gemm", "x w column", "y")], "one number or one per unit, got the shape"),
    "a short bias": ([node("Gemm", "x w short", "y")], "the bias must have 3 numbers, got 2"),
    "a vector of weights": ([node("MatMul", "x vector", "y")], "the weights must be a matrix"),
    "widths that differ": ([gemm("h"), node("Gemm", "h w b", "y")], "takes 4 inputs, but gets 3"),
    "another width of the input": ([node("Gemm", "x w2 b", "y")], "the Gemm of 'y' takes 3 inputs, but gets 4"),
    "NaN": ([node("MatMul", "x nan", "y")], "the MatMul of 'y': weight holds NaN"),
    "negative variances": (
        [gemm("h"), node("BatchNormalization", "h gamma b b negative", "y")],
        "running_var holds negative",
    ),
    "statistics of another width": (
        [gemm("h"), node("BatchNormalization", "h gamma b b short", "y")],
        r"running_var has the shape \(2,\), expected \(3,\)",
    ),
    "half precision": ([node("MatMul", "x w16", "y")], "weight has numbers of float16; supported are float32 and"),
    "two dtypes": (
        [gemm("h"), node("Cast", "h", "i", to=11), node("Relu", "i", "y")],
        "the Cast of 'i' has numbers of float64, but the Gemm of 'h': weight of float32",
    ),
    "training": (
        [gemm("h"), node("BatchNormalization", "h gamma b b var", "y m v", training_mode=1)],
        "training_mode must be 0, got 1",
    ),
    "dropout in training": ([node("Dropout", "x half flag", "y")], "training_mode must be False"),
    "a momentum of 1": ([gemm("h"), batchnorm(momentum=1.0)], r"decay must be a number in \[0, 1\), got 1.0"),
    "softmax over rows": ([node("Softmax", "x", "y", axis=0)], "axis must be 1 or -1, got 0"),
    "another selu": ([node("Selu", "x", "y", alpha=1.0)], "alpha and gamma must be 1.67"),
    "a slope below 0": ([node("LeakyRelu", "x", "y", alpha=-1.0)], "slope must be a number in"),
    "flattened rows": ([node("Flatten", "x", "y", axis=0)], "axis must be 1, got 0"),
    "rows mixed": ([node("Reshape", "x to_2", "y")], "takes 2 inputs, but gets 4"),
    "a fixed batch": ([node("Reshape", "x fixed", "y")], r"n as -1 or 0, got \[20, 4\]"),
    "shifted inside": ([gemm("h"), node("Sub", "h b", "y")], "possible in front alone, but follows the Gemm of 'h'"),
    "a factor per unit": ([gemm("h"), node("Mul", "h b", "y")], r"must be one number, got the shape \(3,\)"),
    "a factor of three axes": ([node("Mul", "x cube", "y")], r"must have one number.*, got the shape \(1, 1, 1\)"),
    "a factor of 0": ([node("Mul", "x zero", "y")], "factor must not be 0"),
    "a mask": (
        [node("Dropout", "x", "d m"), node("Cast", "m", "y", to=1)],
        "of 'd': its first output alone can be used",
    ),
    "a constant": ([node("Identity", "half", "y")], "does not depend on the input"),
    "probabilities inside": (
        [
            *(node("MatMul", "x w2", "h"), node("Sigmoid", "h", "p"), node("Sub", "half p", "q")),
            *(node("Concat", "q p", "c", axis=1), node("Relu", "c", "y")),
        ],
        "the Concat of 'c': it joins several",
    ),
    "nothing with a width": ([node("Relu", "x", "y")], "the number of inputs is unknown"),
}
UNKNOWN_WIDTH = ("nothing with a width",)


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_node_and_the_reason(case, tmp_path):
    nodes, message = REFUSED[case]
    path = saved(tmp_path, model(*nodes, shape=("n", None if case in UNKNOWN_WIDTH else 4)))
    with pytest.raises(ValueError, match=message) as caught:
        fn.from_onnx(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_gelu_by_tanh_is_refused(tmp_path):
    path = saved(tmp_path, model(node("Gelu", "x", "y", approximate="tanh"), opset=20, ir=9))
    with pytest.raises(ValueError, match="approximate must be 'none', got 'tanh'"):
        fn.from_onnx(path)


def test_functions_are_refused(tmp_path):
    path = saved(tmp_path, model(node("Twice", "x", "y", domain="mine"), functions=[FUNCTION]))
    with pytest.raises(
        ValueError, match=r"the mine\.Twice of 'y': this is a function of the model; write it out first"
    ):
        fn.from_onnx(path)


def test_several_inputs_or_outputs_are_refused(tmp_path):
    two = model(gemm())
    two.graph.input.append(onnx.helper.make_tensor_value_info("z", 1, ["n", 4]))
    with pytest.raises(ValueError, match="the graph must have one input, got 2: 'x', 'z'"):
        fn.from_onnx(saved(tmp_path, two))
    with pytest.raises(ValueError, match="the graph must have one float output, got 2 among 'h', 'y'"):
        fn.from_onnx(saved(tmp_path, model(gemm("h"), RELU, outputs=("h", "y"))))
    labels = model(gemm("h"), node("ArgMax", "h", "y", axis=1))
    labels.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    with pytest.raises(ValueError, match="one float output, got 0 among 'y'"):
        fn.from_onnx(saved(tmp_path, labels))


def test_an_image_that_is_not_flattened_is_refused(tmp_path):
    with pytest.raises(ValueError, match="input 'x' has 3 dimensions, so that Flatten must come first"):
        fn.from_onnx(saved(tmp_path, model(gemm(), shape=("n", 3, 4))))
    with pytest.raises(ValueError, match=r"must have the shape \(n, features\), got one dimension"):
        fn.from_onnx(saved(tmp_path, model(gemm(), shape=(4,))))


def test_old_and_unknown_opsets_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the opset must be 7 \.\. \d+ \(of the installed onnx\), got 6"):
        fn.from_onnx(saved(tmp_path, model(node("Relu", "x", "y"), opset=6, ir=3)))
    with pytest.raises(ValueError, match="got 900"):
        fn.from_onnx(saved(tmp_path, model(node("Relu", "x", "y"), opset=900)))


def test_external_data_is_refused(tmp_path):
    onnx.save(model(gemm()), tmp_path / "graph.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(ValueError, match=r"tensor '\w+' lies in another file. Put all into one: onnx.save"):
        fn.from_onnx(tmp_path / "graph.onnx")


@pytest.mark.parametrize("content", [b"", b"weights", b"\x00" * 100, bytes(range(256))])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "file.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: this is no ")):
        fn.from_onnx(path)


def test_cut_files_are_refused(tmp_path):
    content = (GOLDEN / "torch_script_9.onnx").read_bytes()
    path = tmp_path / "file.onnx"
    for length in range(0, len(content) - 1, 37):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            fn.from_onnx(path)


def test_damaged_files_give_a_net_or_a_value_error(tmp_path):
    random = np.random.default_rng(8)
    files = [path.read_bytes() for path in sorted(GOLDEN.glob("*.onnx"))]
    path = tmp_path / "file.onnx"
    refused = 0
    for _ in range(300):
        content = bytearray(random.choice(np.array(files, object)))
        for place in random.integers(0, len(content), random.integers(1, 4)):
            content[place] = random.integers(256)
        path.write_bytes(content)
        try:
            fn.from_onnx(path)
        except ValueError:  # and nothing else
            refused += 1
    assert 100 < refused < 300


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        fn.from_onnx(tmp_path / "missing.onnx")


# ---- scikit-learn ----

FEATURES = np.random.default_rng(6).normal(size=(120, 5))
THREE = np.array(["c", "a", "b"])[np.digitize(FEATURES[:, 0], [-0.5, 0.5])]
TWO = np.where(FEATURES[:, 1] > FEATURES[:, 2], "yes", "no")
LABELS = (FEATURES[:, :3] > 0).astype(int)
ACTIVATIONS = ("identity", "logistic", "tanh", "relu")


def fitted(kind, targets, dtype="float64", **settings):
    estimator = getattr(sklearn_neural, kind)(max_iter=15, random_state=0, learning_rate_init=0.02, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        return estimator.fit(FEATURES.astype(dtype), targets)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("targets", "last"), [(THREE, "softmax"), (TWO, "sigmoid"), (LABELS, "sigmoid")])
def test_classifiers(targets, last, activation, dtype):
    mlp = fitted("MLPClassifier", targets, dtype, hidden_layer_sizes=(8, 6), activation=activation)
    net = fn.from_sklearn(mlp)
    x = FEATURES.astype(dtype)
    expected = mlp.predict_proba(x)[:, -1:] if targets is TWO else mlp.predict_proba(x)
    assert net.dtype == dtype
    assert net.layers[-1] == fn.Dense(expected.shape[1], last)
    assert difference(net.predict(x), expected) <= TOLERANCE[dtype]
    assert difference(net.predict_proba(x), expected) <= TOLERANCE[dtype]
    if targets is THREE:
        assert (mlp.classes_[net.predict(x).argmax(1)] == mlp.predict(x)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [1, 2])
def test_regressors(outputs, dtype):
    targets = FEATURES[:, 0] ** 2 if outputs == 1 else FEATURES[:, :2] ** 2
    mlp = fitted("MLPRegressor", targets, dtype, hidden_layer_sizes=(8,))
    net = fn.from_sklearn(mlp)
    x = FEATURES.astype(dtype)
    assert difference(net.predict(x), mlp.predict(x).reshape(-1, outputs)) <= TOLERANCE[dtype]


def test_poisson_regression_puts_out_the_logarithm_of_the_rate():
    mlp = fitted("MLPRegressor", np.floor(np.exp(FEATURES[:, 0])), hidden_layer_sizes=(8,), loss="poisson")
    net = fn.from_sklearn(mlp)
    assert difference(np.exp(net.predict(FEATURES)), mlp.predict(FEATURES).reshape(-1, 1)) <= 1e-12
    fn.Trainer(net, loss="poisson", metrics=(), batch_size=40).fit(FEATURES, np.ones((120, 1)), epochs=1, verbose=0)


def test_the_net_is_independent_of_the_estimator():
    mlp = fitted("MLPClassifier", THREE)
    net = fn.from_sklearn(mlp)
    before = [weight.copy() for weight in mlp.coefs_]
    fn.Trainer(net, loss="cross_entropy", batch_size=40).fit(FEATURES, np.zeros(120, int), epochs=1, verbose=0)
    assert all((new == old).all() for new, old in zip(mlp.coefs_, before, strict=True))


def test_other_estimators_are_refused():
    with pytest.raises(TypeError, match="mlp must be a fitted MLPClassifier or MLPRegressor, got 3 of type int"):
        fn.from_sklearn(3)
    with pytest.raises(ValueError, match=r"mlp must be fitted, got MLPClassifier\(\): call its fit first"):
        fn.from_sklearn(sklearn_neural.MLPClassifier())
    mlp = fitted("MLPRegressor", FEATURES[:, 0])
    mlp.coefs_[1][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"mlp.coefs_\[1\]: weight holds NaN"):
        fn.from_sklearn(mlp)
