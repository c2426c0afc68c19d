"""Makes the ONNX files of ``test_convert.py`` with the exporters of PyTorch and scikit-learn.

    python make_golden.py

writes beside this file, per case, NAME.onnx, and NAME.npz with rows x and what the original library makes of them, y
(classifiers: the probabilities). versions.json says which versions made them.
"""

import json
import platform
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from skl2onnx import to_onnx
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

FOLDER = Path(__file__).parent
ROWS = 20


def write(name, x, y):
    assert (np.ptp(y, axis=0) > 0.1 * np.abs(y).max()).all(), f"{name} hardly depends on x"
    np.savez_compressed(FOLDER / f"{name}.npz", x=x, y=y)


def strip(path):
    """Remove what describes the exporting program: its call stacks and paths."""
    model = onnx.load(path)
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
    onnx.save(model, path)


# ---- PyTorch ----


def all_modules():
    """Every module that fastnn has a layer for; widths that tell fan_in from fan_out."""
    return nn.Sequential(
        *(nn.Linear(6, 9), nn.BatchNorm1d(9, eps=1e-3, momentum=0.2), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Linear(9, 8, bias=False), nn.SiLU(), nn.Linear(8, 7), nn.GELU(), nn.Linear(7, 8), nn.Softplus()),
        *(nn.Linear(8, 7), nn.LeakyReLU(0.2), nn.Linear(7, 6), nn.ELU(0.7), nn.Linear(6, 7), nn.SELU()),
        *(nn.BatchNorm1d(7), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 7), nn.Identity(), nn.Sigmoid()),
        *(nn.Linear(7, 6), nn.Softmax(dim=1), nn.Linear(6, 3)),
    )


def oldest():
    """What opset 7 can say: it has no Erf, and no Gelu."""
    return nn.Sequential(
        *(nn.Linear(6, 9), nn.BatchNorm1d(9, eps=1e-3, momentum=0.2), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Linear(9, 8, bias=False), nn.LeakyReLU(), nn.Linear(8, 7), nn.Softmax(dim=1), nn.Linear(7, 3)),
    )


def flattened():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))


TORCH = {
    "torch_script_7": (oldest, torch.float32, (6,), {"dynamo": False, "opset_version": 7}),
    "torch_script_9": (all_modules, torch.float32, (6,), {"dynamo": False, "opset_version": 9}),
    "torch_script_13": (all_modules, torch.float32, (6,), {"dynamo": False, "opset_version": 13}),
    "torch_script_20": (all_modules, torch.float32, (6,), {"dynamo": False, "opset_version": 20}),
    "torch_script_17_float64": (all_modules, torch.float64, (6,), {"dynamo": False, "opset_version": 17}),
    "torch_dynamo_18": (all_modules, torch.float32, (6,), {"dynamo": True, "opset_version": 18}),
    "torch_dynamo_20": (all_modules, torch.float32, (6,), {"dynamo": True, "opset_version": 20}),
    "torch_script_17_flatten": (flattened, torch.float32, (3, 2), {"dynamo": False, "opset_version": 17}),
    "torch_dynamo_18_flatten": (flattened, torch.float32, (3, 2), {"dynamo": True, "opset_version": 18}),
}


def export_torch(name, make, dtype, shape, how):
    torch.manual_seed(1)
    module = make().to(dtype)
    for layer in module:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight, gain=2)  # else the rows arrive nearly equal
    for _ in range(20):
        module.train()(2 * torch.randn(50, *shape, dtype=dtype) + 1)  # running statistics away from 0 and 1
    for layer in module:
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    module.eval()
    x = 2 * torch.randn(ROWS, *shape, dtype=dtype) + 1
    if how["dynamo"]:
        how = {**how, "dynamic_shapes": ({0: torch.export.Dim("n")},), "external_data": False}
    else:
        how = {**how, "input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
    torch.onnx.export(module, (x,), FOLDER / f"{name}.onnx", verbose=False, **how)
    strip(FOLDER / f"{name}.onnx")
    write(name, x.numpy(), module(x).detach().numpy())


# ---- scikit-learn ----

random = np.random.default_rng(2)
X = random.normal(1, 2, (200, 4))
THREE = np.array(["ash", "birch", "cedar"])[np.digitize(X[:, 0] + X[:, 1], [0, 3])]
TWO = (X[:, 0] > X[:, 1]).astype(int)
SETTINGS = {"max_iter": 50, "learning_rate_init": 0.02, "random_state": 3}
LABELS = np.stack([TWO, X[:, 2] > 1, X[:, 3] > X[:, 2]], axis=1)
WITHOUT_ZIPMAP = {"zipmap": False}
SKLEARN = {
    "sklearn_3_classes": (MLPClassifier((7, 5), **SETTINGS), THREE, np.float32, None),
    "sklearn_3_classes_float64": (MLPClassifier((7,), "tanh", **SETTINGS), THREE, np.float64, WITHOUT_ZIPMAP),
    "sklearn_2_classes": (MLPClassifier((7,), "logistic", **SETTINGS), TWO, np.float32, None),
    "sklearn_2_classes_array": (MLPClassifier((7,), **SETTINGS), TWO, np.float32, WITHOUT_ZIPMAP),
    "sklearn_labels": (MLPClassifier((7,), **SETTINGS), LABELS, np.float32, None),
    "sklearn_regression": (MLPRegressor(hidden_layer_sizes=(7,), **SETTINGS), X[:, 0] ** 2, np.float32, None),
    "sklearn_regression_float64": (
        MLPRegressor(hidden_layer_sizes=(7, 3), activation="identity", **SETTINGS),
        X[:, 0] + X[:, 1],
        np.float64,
        None,
    ),
    "sklearn_pipeline": (make_pipeline(StandardScaler(), MLPClassifier((7,), **SETTINGS)), THREE, np.float32, None),
    "sklearn_pipeline_float64": (
        make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(7,), **SETTINGS)),
        X[:, 0] * X[:, 1],
        np.float64,
        None,
    ),
}


def export_sklearn(name, model, targets, dtype, options):
    x = X.astype(dtype)
    model.fit(x, targets)
    exported = to_onnx(model, x[:1], options=options and {id(model): options})
    (FOLDER / f"{name}.onnx").write_bytes(exported.SerializeToString())
    predict = getattr(model, "predict_proba", model.predict)
    write(name, x[:ROWS], predict(x[:ROWS]))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name, case in TORCH.items():
        export_torch(name, *case)
    for name, case in SKLEARN.items():
        export_sklearn(name, *case)
    packages = ("numpy", "onnx", "onnxscript", "torch", "scikit-learn", "skl2onnx")
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    (FOLDER / "versions.json").write_text(json.dumps(versions, indent=2) + "\n", encoding="utf-8")
