"""The C export: what the compilers accept, what the compiled nets predict, what the files hold."""

import ctypes
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
from export_nets import ACTIVATIONS, export_all, features, random_net, shaken
from kernel_cases import exact_activation
from kernel_harness import ulp_error

import fastnn as fn
from fastnn.export import to_c

STRICT = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Werror", "-ffreestanding"]
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}  # of the outputs, relative to the largest
COUNT = 50


@pytest.fixture(scope="module", params=["gcc", "clang"])
def compiler(request):
    if shutil.which(request.param) is None:
        assert os.environ.get("CI") != "true", f"{request.param} is not installed"
        pytest.skip(f"{request.param} is not installed")
    return request.param


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def compile_strictly(compiler, source, *flags):
    target = source.with_suffix(f".{compiler}.o")
    run(compiler, *STRICT, "-O2", *flags, "-fPIC", "-c", source, "-o", target)
    return target


def library(objects):
    """An object file, linked and loaded."""
    run("gcc" if shutil.which("gcc") else "clang", "-shared", objects, "-o", objects.with_suffix(".so"))
    return ctypes.CDLL(str(objects.with_suffix(".so")))


def predict(library, name, x, outputs):
    """Row by row; a canary shows that not an element more is written."""
    function = library[f"{name}_predict"]
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p], None
    y = np.full((len(x), outputs + 1), 12345, x.dtype)
    for row, out in zip(x, y, strict=True):
        function(row.ctypes.data, out.ctypes.data)
    assert (y[:, outputs] == 12345).all()
    return y[:, :outputs]


# ---- many nets ----


@pytest.fixture(scope="module")
def nets():
    found = {f"net_{seed}": random_net(seed) for seed in range(COUNT)}
    one_layer = [*ACTIVATIONS, fn.Scale(0.1), fn.Standardize(1.0, 3.0), fn.BatchNorm(), fn.Dense(1), fn.Dropout(0.5)]
    for dtype in TOLERANCE:
        found |= {f"one_{i}_{dtype}": shaken([layer], 7, dtype, i) for i, layer in enumerate(one_layer)}
    return found


@pytest.fixture(scope="module")
def folder(nets, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported")
    export_all(nets, path)
    return path


@pytest.fixture(scope="module")
def objects(folder, compiler):
    return compile_strictly(compiler, folder / "all.c")


def test_the_nets_are_of_all_sorts(nets, folder):
    random_nets = [nets[f"net_{seed}"] for seed in range(COUNT)]
    layers = [layer for net in random_nets for layer in net.layers]
    kinds = {type(layer) for layer in layers}
    kinds |= {type(layer.own_activation) for layer in layers if isinstance(layer, fn.Dense)}
    assert kinds >= {fn.Dense, fn.BatchNorm, fn.Dropout, fn.Scale, fn.Standardize, *map(type, ACTIVATIONS)}
    assert {layer.scaling for layer in layers if isinstance(layer, fn.Dropout)} == {"inverted", "test"}
    assert {layer.use_bias for layer in layers if isinstance(layer, fn.Dense)} == {True, False}
    assert {1} < {layer.units for layer in layers if isinstance(layer, fn.Dense)}
    assert {1} < {net.input_size for net in random_nets}
    texts = [(folder / f"net_{seed}.c").read_text() for seed in range(COUNT)]
    assert sum("BatchNorm" in text for text in texts) >= 5  # what folding leaves


def test_exported_nets_give_the_predictions_of_the_engine(nets, objects):
    loaded = library(objects)
    varied = 0
    for name, net in nets.items():
        x = features(net, 40)
        expected = net.predict(x)
        largest = np.abs(expected).max()
        y = predict(loaded, name, x, net.output_size)
        assert np.abs(y - expected).max() <= TOLERANCE[net.dtype.name] * largest, f"{name}: {net}"
        varied += np.ptp(expected, axis=0).max() > 1e-3 * largest
    assert varied > 0.8 * len(nets)  # the predictions depend on the features


def test_the_object_needs_nothing_but_memory_functions(objects):
    needed = set(re.findall(r" U (\S+)", run("nm", "-u", objects)))
    assert needed <= {"memcpy", "memset", "memmove"}
    defined = set(re.findall(r" [TDBRVWC] (\S+)", run("nm", "-g", objects)))
    assert len(defined) > COUNT
    assert {name for name in defined if not name.endswith("_predict")} == set()


def test_the_mains_pass(nets, tmp_path, compiler):
    chosen = {name: nets[name] for name in list(nets)[:20]}
    export_all(chosen, tmp_path)
    program = tmp_path / "mains"
    run(compiler, *STRICT, "-O1", tmp_path / "all_mains.c", "-o", program)
    lines = run(program).splitlines()
    assert [line.partition(": ")[0] for line in lines] == list(chosen)
    assert [line for line in lines if "passed, largest difference" not in line] == []


@pytest.mark.parametrize("value", ["7.0f", "(float)(1e300 * 1e300)", "0.0f / 0.0f"])
def test_a_main_finds_a_wrong_weight(value, tmp_path):
    source, _ = to_c(fn.Sequential([fn.Dense(3), fn.Tanh(), fn.Dense(2)], 4), tmp_path / "wrong.c")
    text, count = re.subn(r"(wrong_weight_0\[12\] = \{\n *)[^,]+", rf"\g<1>{value}", source.read_text())
    assert count == 1
    source.write_text(text)
    run(os.environ.get("CC", "gcc"), "-DWRONG_MAIN", source, "-o", tmp_path / "wrong")
    done = subprocess.run([tmp_path / "wrong"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.startswith("wrong: FAILED")


def test_the_header_is_also_for_cpp(folder):
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed")
    (folder / "user.cpp").write_text('#include "net_0.h"\n#include "net_1.h"\n')
    run("clang", "-x", "c++", "-std=c++98", *STRICT[1:], "-fsyntax-only", folder / "user.cpp")


def test_the_stack_is_what_the_header_says(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    layers = [fn.Standardize(0.0, 1.0), fn.Dense(300, "gelu"), fn.BatchNorm(), fn.Tanh(), fn.Dense(200, "silu")]
    layers.append(fn.Dense(3, "softmax"))
    with pytest.warns(UserWarning, match="Not folded"):
        source, header = to_c(fn.Sequential(layers, 40), tmp_path / "deep.c")
    promised = int(re.search(r"DEEP_STACK_BYTES (\d+)", header.read_text())[1])
    assert promised == 4 * (300 + 200)
    run("gcc", *STRICT, "-O2", "-fstack-usage", "-c", source, "-o", tmp_path / "deep.o")
    frames = [line.split() for line in (tmp_path / "deep.su").read_text().splitlines()]
    used = {place.rpartition(":")[2]: int(size) for place, size, _ in frames}
    assert promised <= used["deep_predict"] <= promised + 300
    assert sum(used.values()) <= promised + 600


# ---- the files ----


def example(**more):
    layers = [fn.Standardize([0.5, 1.0, -2.0], [1.0, 2.0, 3.0]), fn.Dense(6, "tanh"), fn.BatchNorm(), fn.Dense(2)]
    return shaken(layers, 3, **{"dtype": "float32", "seed": 5, **more})


def test_equal_nets_give_equal_bytes(tmp_path, monkeypatch):
    script = (
        "import sys; sys.path.insert(0, 'tests'); from test_export_c import example, to_c; to_c(example(), sys.argv[1])"
    )
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script, str(tmp_path / seed / "net.c")]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1], env=environment)
    (tmp_path / "3").mkdir()
    monkeypatch.chdir(tmp_path / "3")
    with np.printoptions(precision=2, suppress=True, legacy="1.13"):
        assert to_c(example(), "net.c") == (Path("net.c"), Path("net.h"))
    for name in ("net.c", "net.h"):
        first = (tmp_path / "1" / name).read_bytes()
        assert first == (tmp_path / "2" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()
        assert b"\r" not in first
    other, _ = to_c(example(seed=6), "other.c", name="net")
    assert other.read_bytes() != first


def test_weights_are_written_exactly(tmp_path):
    values = np.array([[0.1, -0.0, 1e-45, 1.6999999e38, 123456.78, -1e-10, 1 / 3]], np.float32)
    net = fn.Sequential([fn.Dense(7, use_bias=False)], 1)
    net.parameters()["0.weight"][...] = values
    text = to_c(net, tmp_path / "exact.c")[0].read_text()
    numbers = re.search(r"exact_weight_0\[7\] = \{\n(.*?),?\n\};", text, re.DOTALL)[1]
    read = np.array([np.float32(number.strip().rstrip("f")) for number in numbers.split(",")])
    assert read.tobytes() == values.tobytes()


def test_a_folded_net_gives_the_same_files(tmp_path):
    net = example()
    live, _ = to_c(net, tmp_path / "net.c")
    before = live.read_text()
    to_c(net.fold(), tmp_path / "net.c")
    golden = before.index("net_golden_y")  # of the net that was given: its rounding is its own
    assert live.read_text()[:golden] == before[:golden]


def test_lines_are_short_and_names_are_the_users(tmp_path):
    name = "N" + "a_1" * 7 + "z"
    assert len(name) == 23
    layers = [fn.Scale(0.5), *(fn.Dense(50, layer) for layer in ACTIVATIONS), fn.BatchNorm(), fn.Dense(2)]
    for dtype in TOLERANCE:
        for path in to_c(shaken(layers, 9, dtype), tmp_path / "with-dash.c", name=name):
            text = path.read_text()
            assert max(map(len, text.splitlines())) <= 120
            assert text.isascii()
            functions = re.findall(r"^(?:static|void) .*?(\w+)\(", text, flags=re.MULTILINE)
            arrays = re.findall(r"^static .*?(\w+)\[", text, flags=re.MULTILINE)
            macros = re.findall(r"^#define (\w+)", text, flags=re.MULTILINE)
            assert functions
            assert {word for word in functions + arrays if not word.startswith(name)} == set()
            assert {word for word in macros if not word.startswith(name.upper())} == set()


def test_existing_files_are_replaced_and_nothing_is_left_behind(tmp_path, monkeypatch):
    to_c(example(), tmp_path / "net.c")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() == {"net.c", "net.h"}

    def refuse(*paths):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        to_c(example(seed=1), tmp_path / "net.c")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("net", "net.c"), TypeError, "net must be a fastnn.Sequential, got 'net' of type str"),
        ((None, 3), TypeError, "path must be a str or path-like that ends in .c, got 3 of type int"),
        ((None, b"net.c"), TypeError, "path must be a str"),
        ((None, "net.h"), ValueError, 'path must end in .c, .* got "net.h"'),
        ((None, 'a"b.c', "net"), ValueError, "without quotes"),
        ((None, "my-net.c"), ValueError, "name must be given where the file's own, 'my-net', is not a C identifier"),
        ((None, "net.c", "1st"), ValueError, "name must be a C identifier of at most 23 .*, got '1st'"),
        ((None, "net.c", "_net"), ValueError, "a letter first"),
        ((None, "net.c", "größe"), ValueError, "ASCII"),
        ((None, "net.c", "n" * 24), ValueError, "at most 23"),
        ((None, "net.c", 3), TypeError, "name must be a str or None, got 3 of type int"),
        ((None, "missing/net.c"), FileNotFoundError, "missing"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net, *others = arguments
    with pytest.raises(error, match=message):
        to_c(example() if net is None else net, *others)
    assert list(tmp_path.iterdir()) == []


def test_nets_that_cannot_be_exported_say_why(tmp_path):
    path = tmp_path / "net.c"
    with pytest.raises(ValueError, match=r"Standardize\(\) has no statistics yet"):
        to_c(fn.Sequential([fn.Standardize(), fn.Dense(2)], 3), path)
    net = example()
    net.parameters()["1.weight"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity among its parameters: 1\.weight"):
        to_c(net, path)
    net = fn.Sequential([fn.Dense(2), fn.Dense(2)], 3)
    for place in (0, 1):
        net.parameters()[f"{place}.weight"][...] = 1e30
    with pytest.raises(ValueError, match="outputs that are not finite"):
        to_c(net, path)
    with pytest.raises(ValueError, match="numbers that float32 cannot hold"):
        to_c(fn.Sequential([fn.Scale(1.0), fn.LeakyReLU(1e300)], 1), path)
    assert not path.exists()


def test_the_package_does_not_import_it():
    script = "import sys, fastnn; sys.exit('fastnn.export' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])


# ---- elementary functions ----


def sample(dtype, count):
    """Numbers of every exponent and sign by their bit patterns, more of the range where functions bend, extremes."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    step = np.iinfo(unsigned).max // (count // 2) | 1  # odd, so that the last bits vary
    bits = np.arange(count // 2, dtype=unsigned) * unsigned.type(step)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, -1000.0, 1000.0], dtype)
    ordinary = np.linspace(-20, 20, count - count // 2 - special.size, dtype=dtype)
    return np.concatenate([special, bits.view(dtype), ordinary])


def exact(x, layer):
    with np.errstate(all="ignore"):
        values = exact_activation(x, layer.name, layer.alpha)
    if layer.name in ("gelu", "silu"):
        large = np.abs(x) > 1e4  # where the formulas multiply infinity by 0
        values[large] = np.maximum(x[large], 0)
    return values


ELEMENTWISE = [layer for layer in ACTIVATIONS if not isinstance(layer, (fn.Identity, fn.Softmax))]
DTYPES = [np.dtype("float32"), np.dtype("float64")]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_activations_within_a_few_ulp(dtype, tmp_path, compiler):
    check_activations(dtype, tmp_path, compiler, [])


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_activations_with_fused_multiply_adds(dtype, tmp_path, compiler):
    if platform.machine() != "x86_64" or " fma " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("no x86-64 with fused multiply-adds")
    objects = check_activations(dtype, tmp_path, compiler, ["-O3", "-march=native", "-ffp-contract=fast"])
    assert "vfmadd" in run("objdump", "-d", objects)


def check_activations(dtype, folder, compiler, flags):
    export_all({layer.name: fn.Sequential([layer], 256, dtype=dtype) for layer in ELEMENTWISE}, folder)
    objects = compile_strictly(compiler, folder / "all.c", *flags)
    loaded = library(objects)
    x = sample(dtype, 256 * 400)
    for layer in ELEMENTWISE:
        y = predict(loaded, layer.name, x.reshape(-1, 256), 256).ravel()
        expected = exact(x, layer)
        error = ulp_error(y, expected)
        at = int(np.argmax(error))
        assert error[at] <= (6 if layer.name == "gelu" else 3), (
            f"{layer.name}({x[at]!r}) = {y[at]!r}, expected {expected[at]!r}: {error[at]:.1f} ulp"
        )
        zeros = y[3:5]
        if not zeros.any():
            assert np.signbit(zeros).tolist() == [False, True], f"{layer.name} loses the sign of zero"

    return objects


UNDEFINED_BEHAVIOUR = """
#include "all.c"
#include <stdio.h>
#define RUN(name) name##_predict(x, y), sum += y[0]
int main(void)
{{
    {real} x[256], y[256], sum = 0;
    for ({uint} bits = 0, round = 0; round < 2000; round++) {{
        for (int j = 0; j < 256; j++, bits += {step})
            x[j] = ((union {{ {uint} bits; {real} number; }}){{bits}}).number;
        {calls}
    }}
    return sum == 1;
}}
"""


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_bit_pattern_leads_to_undefined_behaviour(dtype, tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    layers = [*ELEMENTWISE, fn.Softmax()]
    export_all({layer.name: fn.Sequential([layer], 256, dtype=dtype) for layer in layers}, tmp_path)
    real, uint = ("float", "uint32_t") if dtype == np.float32 else ("double", "uint64_t")
    step = np.iinfo(f"u{dtype.itemsize}").max // (2000 * 256) | 1
    calls = " ".join(f"RUN({layer.name});" for layer in layers)
    text = UNDEFINED_BEHAVIOUR.format(real=real, uint=uint, step=f"{step}u", calls=calls)
    (tmp_path / "undefined.c").write_text(text)
    sanitizers = ["-fsanitize=undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
    run("gcc", "-std=c99", "-O1", *sanitizers, tmp_path / "undefined.c", "-o", tmp_path / "undefined")
    run(tmp_path / "undefined")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_softmax_of_any_size_of_logits(dtype, tmp_path, compiler):
    export_all({"soft": fn.Sequential([fn.Softmax()], 7, dtype=dtype)}, tmp_path)
    loaded = library(compile_strictly(compiler, tmp_path / "all.c"))
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(size=(100, 7)) * spread for spread in (0, 1, 30, 1e4, 1e30)]).astype(dtype)
    expected = reference.softmax_forward(x)
    y = predict(loaded, "soft", x, 7)
    # The rounding of a difference of 100 from the largest logit alone is 64 eps of e^-100.
    np.testing.assert_allclose(y, expected, rtol=80 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)
    x[:, 3] = np.nan
    assert np.isnan(predict(loaded, "soft", x[:3], 7)).all()
