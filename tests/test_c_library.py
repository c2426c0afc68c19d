"""The C library as its users meet it: installed, found by pkg-config, without Python; the programs of examples/c."""

import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from export_nets import features, random_net
from optional import needed_command

import fastnn as fn

ROOT = Path(__file__).parent.parent
HEADER = ROOT / "csrc/include/fastnn.h"
LINUX = sys.platform == "linux"
NAME = f"libfastnn.so.{fn.__version__}"


def run(*command, cwd=ROOT, stdin="", status=0, **environment):
    done = subprocess.run(
        [str(part) for part in command],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        timeout=600,
    )
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done.stdout if status == 0 else done.stderr


# ---- the header ----

STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]


@pytest.mark.parametrize("standard", ["c99", "c11"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_header_alone_in_c(compiler, standard):
    run(needed_command(compiler), f"-std={standard}", "-Wstrict-prototypes", *STRICT, HEADER)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_header_alone_in_cpp(compiler):
    run(needed_command(compiler), "-std=c++17", "-x", "c++", *STRICT, HEADER)


def without_comments():
    return re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)


def test_every_enumerator_has_its_number():
    enumerations = re.findall(r"enum fnn_\w+ \{(.*?)\}", without_comments(), flags=re.DOTALL)
    assert len(enumerations) == 12
    for body in enumerations:
        numbers = [re.fullmatch(r"FNN_\w+ = (\d+)", one.strip()) for one in body.split(",")]
        assert all(numbers), body
        assert len({number[1] for number in numbers}) == len(numbers), body


def public_functions():
    return set(re.findall(r"^FNN_API [^;]*?\b(fnn_\w+)\(", without_comments(), flags=re.MULTILINE))


def test_every_function_is_part_of_the_interface():
    declared = set(re.findall(r"\b(fnn_\w+)\((?!\*)", without_comments()))
    assert declared == public_functions()
    assert {"fnn_predict", "fnn_train", "fnn_net_load", "fnn_status_text"} <= declared


# ---- what is installed ----


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """The library, made and installed where every command called python fails and leaves a trace."""
    folder, shims = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("shims")
    for name in ("python", "python3", Path(sys.executable).name):
        (shims / name).write_text(f"#!/bin/sh\ntouch {shims}/was_called\nexit 1\n")
        (shims / name).chmod(0o755)
    path = f"{shims}{os.pathsep}{os.environ['PATH']}"
    run("make", "-s", f"-j{os.cpu_count()}", "install", f"PREFIX={folder}", PATH=path)
    assert not (shims / "was_called").exists()
    return folder


def found_in(prefix):
    return {"PKG_CONFIG_PATH": prefix / "lib/pkgconfig"}


def files_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


INSTALLED = {
    "include/fastnn.h",
    "lib/libfastnn.a",
    "lib/libfastnn.so",
    "lib/libfastnn.so.0",
    f"lib/{NAME}",
    "lib/pkgconfig/fastnn.pc",
}


@pytest.mark.long
@pytest.mark.skipif(not LINUX, reason="names of Linux")
def test_installed_files(prefix):
    assert files_in(prefix) == INSTALLED
    assert os.readlink(prefix / "lib/libfastnn.so") == "libfastnn.so.0"
    assert os.readlink(prefix / "lib/libfastnn.so.0") == NAME


@pytest.mark.long
@pytest.mark.skipif(not LINUX, reason="names of Linux")
def test_packages_and_uninstall(prefix, tmp_path):
    """Under DESTDIR, with libraries in a folder of their own; the .pc names the final places."""
    where = (f"DESTDIR={tmp_path}", "PREFIX=/opt/fastnn", "LIBDIR=/opt/fastnn/lib64")
    run("make", "-s", "install", *where)
    assert files_in(tmp_path / "opt/fastnn") == {name.replace("lib/", "lib64/") for name in INSTALLED}
    text = (tmp_path / "opt/fastnn/lib64/pkgconfig/fastnn.pc").read_text()
    assert "prefix=/opt/fastnn\nlibdir=/opt/fastnn/lib64\n" in text
    assert str(tmp_path) not in text
    (tmp_path / "opt/fastnn/include/other.h").touch()
    run("make", "-s", "uninstall", *where)
    assert files_in(tmp_path) == {"opt/fastnn/include/other.h"}


@pytest.mark.long
def test_pkg_config(prefix):
    def asked(*what):
        return run(needed_command("pkg-config"), *what, "fastnn", **found_in(prefix)).split()

    assert asked("--modversion") == [fn.__version__]
    assert asked("--cflags") == [f"-I{prefix}/include"]
    assert asked("--libs") == [f"-L{prefix}/lib", "-lfastnn"]
    assert set(asked("--libs", "--static")) >= {"-lfastnn", "-lm", "-pthread"}


@pytest.mark.long
@pytest.mark.skipif(not LINUX, reason="ELF")
def test_shared_library_exports_the_header_alone(prefix):
    symbols = run(needed_command("nm"), "-D", "--defined-only", prefix / "lib" / NAME)
    assert {line.split()[-1] for line in symbols.splitlines()} == public_functions()
    dynamic = run(needed_command("readelf"), "-d", prefix / "lib" / NAME)
    assert re.findall(r"SONAME.*\[(.+)\]", dynamic) == ["libfastnn.so.0"]
    assert {name.split(".")[0] for name in re.findall(r"NEEDED.*\[(.+)\]", dynamic)} <= SYSTEM


@pytest.mark.long
@pytest.mark.skipif(not LINUX, reason="ELF")
def test_archive_shows_nothing_of_what_is_made_from_it(prefix, tmp_path):
    """Two plug-ins of one program may hold two versions of the library."""
    plugin = "#include <fastnn.h>\nconst char *plugin(void);\nconst char *plugin(void) { return fnn_version(); }\n"
    archive = prefix / "lib/libfastnn.a"
    (tmp_path / "plugin.c").write_text(plugin)
    run("cc", "-shared", "-fPIC", f"-I{prefix}/include", "plugin.c", archive, "-o", "plugin.so", cwd=tmp_path)
    symbols = run(needed_command("nm"), "-D", "--defined-only", tmp_path / "plugin.so")
    assert [line.split()[-1] for line in symbols.splitlines()] == ["plugin"]


# ---- the examples ----

SYSTEM = {"libc", "libm", "libpthread", "ld-linux-x86-64", "ld-linux-aarch64", "linux-vdso"}


@pytest.fixture(scope="module", params=["shared", "static"])
def examples(request, prefix, tmp_path_factory):
    """Folder with the two programs, built against the installed library."""
    needed_command("pkg-config")
    folder = tmp_path_factory.mktemp(request.param) / "c"
    shutil.copytree(ROOT / "examples/c", folder)
    static = ["STATIC=1"] if request.param == "static" else [f"LDFLAGS=-Wl,-rpath,{prefix}/lib"]
    warn = "CFLAGS=-O2 -Wall -Wextra -Wpedantic -pedantic -Werror"
    run("make", "-s", warn, *static, cwd=folder, **found_in(prefix))
    return folder


def libraries_of(names):
    return {Path(name).name.split(".so")[0].split(".")[0] for name in names if ".so" in name}


def allowed_libraries(examples):
    return SYSTEM | ({"libfastnn"} if examples.parent.name.startswith("shared") else set())


NETS = range(20)


def some_net(seed):
    """Every third one folded; test_export_c.py sees to it that they have every kind of layer."""
    net = random_net(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a BatchNorm that stays
        return net.fold() if seed % 3 == 0 else net


def as_text(x):
    return "".join(", ".join(f"{float(value):.17g}" for value in row) + "\n" for row in x)


def as_array(text, dtype):
    """Numbers printed with nine (17) digits are those bits again."""
    return np.array([[dtype.type(value) for value in line.split(",")] for line in text.splitlines()])


@pytest.mark.long
@pytest.mark.parametrize("seed", NETS)
def test_c_predictions_are_those_of_python(examples, tmp_path, seed):
    net = some_net(seed)
    x = features(net, 30, seed)
    expected = net.predict(x)
    net.save(tmp_path / "net.safetensors")
    outputs = as_array(run(examples / "predict", tmp_path / "net.safetensors", stdin=as_text(x)), net.dtype)
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(outputs, expected)


@pytest.mark.long
@pytest.mark.parametrize(
    ("loss", "labels"),
    [("cross_entropy", np.arange(40) % 3), ("binary_cross_entropy", np.arange(120).reshape(40, 3) % 2)],
)
def test_c_probabilities_are_those_of_python(examples, tmp_path, loss, labels):
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    net = fn.Sequential([fn.Dense(8, "relu"), fn.Dense(3)], input_size=4)
    model = tmp_path / "net.safetensors"
    net.save(model)
    refused = run(examples / "predict", "-p", model, stdin=as_text(x), status=1)
    assert refused == "predict: probabilities: an argument is outside its documented range\n"
    fn.Trainer(net, loss=loss, metrics=(), batch_size=10).fit(x, labels, epochs=2, verbose=0)
    net.save(model)
    probabilities = as_array(run(examples / "predict", "-p", model, stdin=as_text(x)), net.dtype)
    np.testing.assert_array_equal(probabilities, net.predict_proba(x))


@pytest.mark.long
@pytest.mark.skipif(not LINUX, reason="/proc")
def test_predictor_loads_no_other_library(examples, tmp_path):
    net = random_net(3)
    net.save(tmp_path / "net.safetensors")
    listed = run(needed_command("ldd"), examples / "predict")
    assert libraries_of(re.findall(r"\S+", listed)) <= allowed_libraries(examples)
    row = as_text(np.zeros((1, net.input_size)))
    with subprocess.Popen(
        [examples / "predict", tmp_path / "net.safetensors"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdin.write(row)
        process.stdin.flush()
        assert process.stdout.readline()  # it has predicted: all that it loads is there
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
        process.stdin.close()
    files = set(re.findall(r" (/\S+)$", mapped, flags=re.MULTILINE))
    assert libraries_of(files) <= allowed_libraries(examples)
    assert "libc" in libraries_of(files)
    assert not [name for name in files if "python" in Path(name).name or "numpy" in name]


@pytest.mark.long
def test_predictor_says_what_is_wrong(examples, tmp_path):
    model = tmp_path / "net.safetensors"
    fn.Sequential([fn.Dense(2)], input_size=3).save(model)

    def error_of(*arguments, stdin="", status=1):
        return run(examples / "predict", *arguments, stdin=stdin, status=status)

    assert error_of(status=2) == "usage: predict [-p] MODEL < ROWS\n"
    assert error_of(model, "more", status=2) == "usage: predict [-p] MODEL < ROWS\n"
    assert error_of(tmp_path / "none") == f"predict: {tmp_path}/none: No such file or directory\n"
    assert error_of(tmp_path) == f"predict: {tmp_path}: Is a directory\n"
    assert error_of(model, stdin="1 2 3\n\n1 2\n") == "predict: line 3: 2 numbers, the net takes 3\n"
    assert error_of(model, stdin="1 2 3 4\n") == "predict: line 1: 4 numbers, the net takes 3\n"
    assert error_of(model, stdin="1;2;x\n") == "predict: line 1: not a number\n"
    damaged = bytearray(model.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    assert "0.bias" in error_of(tmp_path / "damaged")
    assert run(examples / "predict", model, stdin="\n") == ""


# ---- the trainer ----


def train(examples, folder, steps):
    """Test losses that it printed, the last one last."""
    printed = run(examples / "train", folder / "checkpoint", folder / "model", steps)
    return [float(loss) for loss in re.findall(r"test loss ([\d.]+)", printed)]


def state_of(x):
    """The function that examples/c/train.c learns."""
    return np.where((x**2).sum(1) < 0.25, 0, np.where(x[:, 0] * x[:, 1] > 0, 1, 2))


@pytest.mark.long
def test_trainer_learns_and_python_reads_its_model(examples, tmp_path):
    losses = train(examples, tmp_path, 20000)
    assert len(losses) == 20
    assert losses[0] < np.log(3) / 2
    assert losses[-1] < 0.04
    net = fn.load(tmp_path / "model")
    x = np.random.default_rng(0).uniform(-1, 1, (2000, 2)).astype(np.float32)
    probabilities = net.predict_proba(x)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    assert (probabilities.argmax(1) == state_of(x)).mean() > 0.98
    printed = run(examples / "predict", "-p", tmp_path / "model", stdin=as_text(x))
    np.testing.assert_array_equal(as_array(printed, net.dtype), probabilities)


@pytest.mark.long
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_stopped_trainer_goes_on(examples, tmp_path, how):
    """In pieces it comes to the bits of one run; SIGKILL costs what followed the last checkpoint."""
    pieces, whole = tmp_path / "pieces", tmp_path / "whole"
    pieces.mkdir()
    whole.mkdir()
    command = [examples / "train", pieces / "checkpoint", pieces / "model", str(10**9)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        reached = 0
        while reached < 12000:
            reached = int(re.match(r"step (\d+)", process.stdout.readline())[1])
        process.send_signal(signal.Signals[how])
        rest = process.stdout.read()
    died = how == "SIGKILL"
    assert process.returncode == (-signal.SIGKILL if died else 0)
    assert (pieces / "model").exists() != died
    assert {path.name for path in pieces.iterdir()} - {"model"} == {"checkpoint"}
    reached = max(reached, *map(int, re.findall(r"step (\d+)", rest)), 0)
    steps = reached + 2500
    assert len(train(examples, pieces, steps)) <= (13 if died else 3)
    train(examples, whole, steps)
    for name in ("checkpoint", "model"):
        assert (pieces / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.long
def test_trainer_says_what_is_wrong(examples, tmp_path):
    def error_of(*arguments, status=1):
        return run(examples / "train", *arguments, status=status)

    fn.Sequential([fn.Dense(3)], input_size=5).save(tmp_path / "other")
    assert error_of(status=2) == "usage: train CHECKPOINT MODEL [STEPS]\n"
    refused = "an argument is outside its documented range"
    assert error_of(tmp_path / "other", tmp_path / "model") == f"train: {tmp_path}/other: {refused}\n"
    missing = tmp_path / "none/model"
    assert error_of(tmp_path / "c", missing, 10) == f"train: {missing}: No such file or directory\n"
    assert error_of(missing, tmp_path / "model", 10) == f"train: {missing}: No such file or directory\n"
