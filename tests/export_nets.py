"""Nets for the tests of the C export, and one C file that holds many of them.

python tests/export_nets.py FOLDER      # writes them and all_mains.c, whose program runs the mains of all
"""

import sys
import warnings
from pathlib import Path

import numpy as np

import fastnn as fn
from fastnn.export import to_c

ACTIVATIONS = (
    *(fn.Identity(), fn.ReLU(), fn.LeakyReLU(0.1), fn.ELU(0.7), fn.SELU(), fn.GELU(), fn.SiLU(), fn.Softplus()),
    *(fn.Tanh(), fn.Sigmoid(), fn.Softmax()),
)
WIDTHS = (1, 2, 3, 4, 5, 8, 13, 32, 50)


def random_net(seed: int) -> fn.Sequential:
    """Layers of every kind in every order, parameters and statistics away from their defaults."""
    random = np.random.default_rng(seed)

    def one_of(*choices):
        return choices[random.integers(len(choices))]

    layers = [*one_of([], [], [fn.Standardize(0.5, 2.0)], [fn.Scale(1 / 255)], [fn.BatchNorm()], [fn.Dropout(0.3)])]
    for _ in range(random.integers(1, 5)):
        dense = fn.Dense(
            units=int(one_of(*WIDTHS)), activation=one_of(None, *ACTIVATIONS), use_bias=bool(random.random() < 0.7)
        )
        layers.append(dense)
        for _ in range(random.integers(0, 4)):
            between = (fn.BatchNorm(eps=1e-3), fn.Dropout(0.4), fn.Dropout(0.25, "test"), fn.Scale(1.5))
            layers.append(one_of(*between, one_of(*ACTIVATIONS)))
    dtype = ("float32", "float64")[seed % 2]
    return shaken(layers, int(one_of(*WIDTHS)), dtype, seed)


def shaken(layers, inputs: int, dtype: str, seed: int = 0) -> fn.Sequential:
    net = fn.Sequential(layers, inputs, dtype=dtype, seed=seed)
    random = np.random.default_rng(seed)
    for name, view in net.parameters().items():
        role = name.partition(".")[2]
        if role in ("bias", "beta", "running_mean", "mean"):
            view[...] = random.normal(size=view.shape)
        elif role in ("gamma", "running_var", "scale"):
            view[...] = random.uniform(0.5, 2, view.shape)
    return net


def features(net: fn.Sequential, rows: int, seed: int = 0):
    """Rows of the net's dtype; large ones where the net scales them down."""
    x = np.random.default_rng(seed).normal(size=(rows, net.input_size)) * 2
    return (x * 127 if net.layers[0] == fn.Scale(1 / 255) else x).astype(net.dtype)


def export_all(nets: dict[str, fn.Sequential], folder: Path) -> None:
    """Write every net, a file that includes all, and one that also runs their mains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a BatchNorm that stays
        for name, net in nets.items():
            to_c(net, folder / f"{name}.c")
    (folder / "all.c").write_text("".join(f'#include "{name}.c"\n' for name in nets))
    mains = "".join(
        f'#define {name.upper()}_MAIN\n#define main {name}_main\n#include "{name}.c"\n#undef main\n' for name in nets
    )
    calls = "".join(f"    failures += {name}_main();\n" for name in nets)
    (folder / "all_mains.c").write_text(
        f"{mains}\nint main(void)\n{{\n    int failures = 0;\n{calls}    return failures;\n}}\n"
    )


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    export_all({f"net_{seed}": random_net(seed) for seed in range(20)}, target)
