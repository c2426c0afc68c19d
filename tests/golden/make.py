"""Made the files of this folder, once, with the version that their names begin with.

They are never made anew: they are what that version wrote, and every later one must read them. A new version adds files
under its own name (and, where the format has grown, other nets): ``python tests/golden/make.py`` from the root of the
project. What exists is left alone.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

import fastnn as fn
from fastnn import _core

FOLDER = Path(__file__).parent
INPUTS = 4


def strings(name, texts):
    encoded = [text.encode() for text in texts]
    return {
        f"{name}.utf8": np.frombuffer(b"".join(encoded), np.uint8),
        f"{name}.offsets": np.cumsum([0, *map(len, encoded)]),
    }


def all_layers(dtype):
    return fn.Sequential(
        [
            fn.Standardize([0.5, -1, 2, 0.25], [1, 2, 0.5, 4]),
            fn.Dense(6, "relu", init="he_normal", regularizer=fn.L2(1e-4)),
            fn.BatchNorm(decay=0.75, unbiased=True),
            fn.LeakyReLU(0.125),
            fn.Dropout(0.3, "test"),
            fn.Dense(5, use_bias=False, init=fn.initializers.uniform(0.5), regularizer=fn.ElasticNet(1e-3, 0.5)),
            fn.ELU(0.7),
            fn.Scale(-1.5),
            fn.Dense(4, "selu", regularizer=fn.L1(1e-3, proximal=True)),
            fn.BatchNorm(1e-3, trainable=False),
            fn.GELU(),
            fn.SiLU(),
            fn.Softplus(),
            fn.Dense(3, "tanh", init=fn.initializers.constant(0.25), trainable=False),
            fn.Dropout(0.5),
            fn.Dense(3, init="orthogonal", regularizer=fn.L1(1e-3)),
            fn.Sigmoid(),
            fn.Identity(),
            fn.Softmax(),
        ],
        INPUTS,
        dtype=dtype,
        seed=2**64 - 1,
    )


def data():
    random = np.random.default_rng(1)
    x = random.normal(size=(40, INPUTS)).round(3)
    return x, np.arange(40) % 3


def trained(net, optimizer):
    x, y = data()
    fn.Trainer(net, optimizer=optimizer, batch_size=20).fit(x, y, epochs=2, verbose=0)
    return net


def small(**options):
    layers = [fn.Dense(5), fn.BatchNorm(), fn.ReLU(), fn.Dropout(0.25), fn.Dense(3)]
    return fn.Sequential(layers, INPUTS, seed=7, **options)


def table_net():
    """A number, a date as seven features, and two categories; one output."""
    return fn.Sequential([fn.Dense(4, "relu"), fn.Dense(1)], 10, seed=5)


def files():
    """name -> (net, contents, attachments)"""
    checkpoint = {
        **strings("history.names", ["loss", "lr"]),
        "history.values": np.array([[1.5, 1.25], [0.1, np.nan]]),
        "trainer.state": np.frombuffer(b'{"epoch": 2}', np.uint8),
        "callback.0.best.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    }
    attached = {
        **strings("class_names", ["no", "na\u00efve", "\u20ac"]),
        **strings("feature_names", ["a", "b", "", "d"]),
        "preprocess.mean": np.array([0.5, 0, 0, 1]),
        "preprocess.scale": np.array([1, 2, 3, 0.125]),
        "preprocess.fill": np.array([0.0, 0, 0, -1]),
        **strings("preprocess.categories.1", ["red", "gr\u00fcn"]),
    }
    table = {
        **strings("feature_names", ["size", "day", "colour"]),
        **strings("preprocess.kinds", ["number", "date", "category"]),
        "preprocess.fill": np.array([1.5, 19000.25, 1]),
        **strings("preprocess.categories.2", ["gr\u00fcn", "red"]),
        **strings("target_name", ["price, \u20ac"]),
    }
    return {
        "all-layers": (trained(all_layers("float32"), fn.Adam(1e-2)), "model", {}),
        "all-layers-float64": (trained(all_layers("float64"), fn.SGD(0.1)), "model", {}),
        "folded": (trained(small(), fn.SGD(0.1)).fold(), "model", {}),
        "folded-float64": (trained(small(dtype="float64"), fn.SGD(0.1)).fold(), "model", {}),
        "attachments": (trained(small(), fn.SGD(0.1)), "model", attached),
        "table": (table_net(), "model", table),
        "untrained": (fn.Sequential([fn.Standardize(), fn.Dense(2)], INPUTS), "model", {}),
        "checkpoint-momentum": (trained(small(), fn.SGD(0.1, momentum=0.9)), "checkpoint", checkpoint),
        "checkpoint-rmsprop-float64": (trained(small(dtype="float64"), fn.RMSprop(1e-2)), "checkpoint", {}),
        "checkpoint-adam": (trained(small(), fn.Adam(1e-2)), "checkpoint", checkpoint | attached),
    }


def main():
    for name, (net, contents, attachments) in files().items():
        x = np.resize(data()[0], (5, net.input_size))
        path = FOLDER / f"{fn.__version__}-{name}.safetensors"
        if path.exists():
            continue
        _core.save_model(net._engine, str(path), contents, attachments)
        outputs = None if name == "untrained" else net.predict(x)
        record = {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "x": [[value.hex() for value in row] for row in x.tolist()],
            "outputs": outputs if outputs is None else [[value.hex() for value in row] for row in outputs.tolist()],
        }
        path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
