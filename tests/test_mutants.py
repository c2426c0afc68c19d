"""The gradient tests, the fuzzer of model files and the tests of their durability are themselves tested: with a seeded
error in the C source they must fail.

Each mutant changes one expression of a copy of the source, which is then built and tested.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("csrc", "fastnn", "tests", "setup.py", "pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.long


class Mutant(NamedTuple):
    file: str
    before: str
    after: str
    tests: str  # those that are meant to find it, as an expression for pytest -k


MUTANTS = {
    "L2 without its factor 2": Mutant(
        "kernels/optimizer.h",
        ".twice_l2 = (real)(2 * u->l2)",
        ".twice_l2 = (real)u->l2",
        "penalty",
    ),
    "L2 without its factor 2 in the norm": Mutant(
        "kernels/reduce.h",
        "g + twice_l2 * p",
        "g + twice_l2 / 2 * p",
        "clipping",
    ),
    "L1 with the wrong sign": Mutant(
        "kernels/optimizer.h",
        "vwith_sign(vsplat(t->l1), p)",
        "-vwith_sign(vsplat(t->l1), p)",
        "penalty",
    ),
    "BatchNorm without the term of dgamma": Mutant(
        "kernels/batchnorm.h",
        "vfma(deviation, vload(slope), gradient)",
        "vfma(0 * deviation, vload(slope), gradient)",
        "batchnorm and mse",
    ),
    "BatchNorm without the term of dbeta": Mutant(
        "kernels/batchnorm.h",
        "vload_first(dy, n) - vload(shift)",
        "vload_first(dy, n)",
        "batchnorm and mse",
    ),
    "elementwise losses without 1/k": Mutant(
        "kernels/loss.h",
        "(real)(row_weight[i] / (double)n)",
        "(real)row_weight[i]",
        "Tanh and mse",
    ),
    "cross-entropy without label smoothing": Mutant(
        "kernels/loss.h",
        "ratio - (keep + floor)",
        "ratio - 1",
        "Tanh and smoothed",
    ),
    "dropout without its scale on the way back": Mutant(
        "kernels/dropout.h",
        "apply_mask(dx, dy, mask, (real)scale, count, count)",
        "apply_mask(dx, dy, mask, 1, count, count)",
        "dropout and mse",
    ),
    "tanh' = 1 + y^2": Mutant(
        "kernels/activation.h",
        "return dy * vfma(-v, v, vsplat(1))",
        "return dy * vfma(v, v, vsplat(1))",
        "Tanh and mse",
    ),
    "sigmoid' = y": Mutant(
        "kernels/activation.h",
        "return dy * v * (1 - v)",
        "return dy * v",
        "Sigmoid and mse",
    ),
    "softmax without its mean": Mutant(
        "kernels/activation.h",
        "* (row_load(dy, j, n, ld, 0) - mean)",
        "* (row_load(dy, j, n, ld, 0) - 0 * mean)",
        "Softmax and mse",
    ),
    "bias gradient without the last row": Mutant(
        "kernels/matrix.h",
        "sum[j] += vload(x + i * ldx + j * VW);",
        "sum[j] += i + 1 < m ? vload(x + i * ldx + j * VW) : vsplat(0);",
        "Tanh and mse",
    ),
    "sample weights left out": Mutant(
        "net/step.c",
        "y->weights ? y->weights[row] / batch->weight_sum : equal",
        "equal",
        "Tanh and mse",
    ),
}


def run(directory, *command):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "FASTNN_ISA")}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=directory, env=environment)


def substitute(path, before, after):
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{path.name} has moved on: {before!r} stands there {text.count(before)} times"
    path.write_text(text.replace(before, after), encoding="utf-8")
    return text


def build(copy):
    done = run(copy, "setup.py", "-q", "build_ext", "--inplace")
    assert done.returncode == 0, done.stdout + done.stderr


def run_tests(copy, which):
    files = ("tests/test_gradients.py", "tests/test_trainer.py")
    return run(copy, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-k", which, *files)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The source built for the baseline alone and quickly; its tests pass."""
    directory = tmp_path_factory.mktemp("mutants")
    for name in PARTS:
        part = ROOT / name
        if part.is_dir():
            shutil.copytree(part, directory / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        elif part.exists():
            shutil.copy(part, directory)
    (directory / "csrc/isa.flags").write_text("any baseline\n", encoding="utf-8")
    substitute(directory / "setup.py", '"-O3"', '"-O1"')
    build(directory)
    where = run(directory, "-c", "import fastnn._core; print(fastnn._core.__file__)").stdout
    assert where.startswith(str(directory)), "another fastnn would be tested"
    done = run_tests(directory, " or ".join(sorted({f"({mutant.tests})" for mutant in MUTANTS.values()})))
    assert done.returncode == 0, done.stdout
    return directory


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_mutant_is_found(copy, mutant):
    path = copy / "csrc" / mutant.file
    original = substitute(path, mutant.before, mutant.after)
    try:
        build(copy)
        done = run_tests(copy, mutant.tests)
    finally:
        path.write_text(original, encoding="utf-8")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, f"{mutant.tests!r} did not notice it\n{done.stdout}"
    assert "AssertionError" in done.stdout


# ---- model files: what the reader does not check, and the writer does not do ----


class Omission(NamedTuple):
    file: str
    before: str
    after: str


MISSING_CHECKS = {
    "length of the header against the file": Omission(
        "read.c", "if (length > s->size - LENGTH_BYTES)", "if (length > s->size + 64)"
    ),
    "offsets against shape": Omission("header.c", " || entry->end - entry->begin != bytes)", ")"),
    "no gap before a tensor": Omission("header.c", "if (entry->begin != expected_begin)", "if (false)"),
    "end of the data": Omission(
        "header.c", "if (header->entries && data_end != data_size)", "if (header->entries && data_end + 8 < data_size)"
    ),
    "numbers in a shape": Omission("header.c", "if (*n == most || ", "if ("),
    "names that stand twice": Omission("header.c", "return refuse_repetitions(header, detail);", "return FNN_OK;"),
    "rows of a tensor": Omission("read.c", " || entry->rows != rows ||", " ||"),
    "columns of a tensor": Omission("read.c", "entry->columns != columns)", "false)"),
    "dtype of a tensor": Omission("read.c", "entry->dtype != model->net->dtype || ", ""),
    "dtype of an attachment": Omission(
        "attachments.c", "(f->dtype != ANY_DTYPE && (fnn_dtype)f->dtype != a->dtype) || ", ""
    ),
    "strings within their bytes": Omission("attachments.c", "(uint64_t)offset > size || ", ""),
    "strings one after the other": Omission("attachments.c", "(size_t)offset < before || ", ""),
    "room for every layer": Omission("arch.c", "n += *text.at == ';';", "n += *text.at == '#';"),
    "last panel of a frozen matrix": Omission(
        "read.c", "row_bytes - begin < FNN_PAD_BYTES ? row_bytes - begin : FNN_PAD_BYTES", "FNN_PAD_BYTES"
    ),
    "values of statistics, in the reader": Omission("read.c", "fnn_demand_of(net, &net->tensors[i])", "FNN_ANY_VALUE"),
}


OMISSIONS = {
    "sync before the rename": Omission("file.c", "(sink->system_error = sync_file(sink->file)) != 0", "false"),
    "sync of the folder": Omission("file.c", "(error = sync_folder(name, path)) != 0", "false"),
    "error of closing": Omission(
        "file.c", "if (fnn_files.close(sink->file) < 0 && ", "if (fnn_files.close(sink->file) < 2 && false && "
    ),
    "error of the rename": Omission(
        "file.c", "return failed ? errno : 0;\n}\n\nfnn_status", "return 0;\n}\n\nfnn_status"
    ),
    "temporary file is removed": Omission("file.c", "fnn_files.unlink(name);", ";"),
    "rest of a short write": Omission("file.c", "        bytes += n;\n        size -= (size_t)n;", "        size = 0;"),
    "interrupted calls": Omission("file.c", "while ((result) < 0 && errno == EINTR)", "while (false)"),
    "what is not finite": Omission("write.c", "net->kernels->first_nonfinite(begin, n) >= 0", "false"),
    "what is no variance": Omission("write.c", "if (demand == FNN_FINITE)", "if (true)"),
    "names of attachments": Omission(
        "write.c", "!fnn_valid_name((fnn_span){a->name, a->name + strlen(a->name)})", "strlen(a->name) > MOST_NAME"
    ),
    "names that stand twice": Omission(
        "write.c", "i > 0 && compare_names(&w->items[i - 1], &w->items[i]) == 0", "false"
    ),
    "memory after a failure": Omission("read.c", "    else\n        fnn_model_close(model);\n", ""),
}


def run_fuzzer(directory, mutants=30000):
    return subprocess.run(
        ["build/fuzz/fuzz_model", "run", str(mutants), "1"], capture_output=True, text=True, cwd=directory
    )


def run_c_tests(directory, suites=("model", "durability")):
    return subprocess.run(["build/fuzz/test_c", *suites], capture_output=True, text=True, cwd=directory)


def build_c(directory, program):
    command = ["make", "-s", "BUILD=build/fuzz", "SANITIZE=address,undefined", f"build/fuzz/{program}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=directory)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def c_copy(tmp_path_factory):
    """The C source, its tests and its fuzzer, for the baseline alone; they find nothing."""
    directory = tmp_path_factory.mktemp("c")
    for name in ("csrc", "tests/c"):
        shutil.copytree(ROOT / name, directory / name)
    shutil.copy(ROOT / "Makefile", directory)
    (directory / "csrc/isa.flags").write_text("any baseline\n", encoding="utf-8")
    for program, run_program in (("fuzz_model", run_fuzzer), ("test_c", run_c_tests)):
        build_c(directory, program)
        done = run_program(directory)
        assert done.returncode == 0, done.stdout + done.stderr
    return directory


def run_without(omission, directory, program, run_program):
    path = directory / "csrc/model" / omission.file
    original = substitute(path, omission.before, omission.after)
    try:
        build_c(directory, program)
        return run_program(directory)
    finally:
        path.write_text(original, encoding="utf-8")


@pytest.mark.parametrize("missing", MISSING_CHECKS.values(), ids=MISSING_CHECKS)
def test_the_fuzzer_finds_what_a_missing_check_lets_in(c_copy, missing):
    done = run_without(missing, c_copy, "fuzz_model", run_fuzzer)
    assert done.returncode != 0, done.stdout
    assert "mutant" in done.stderr, done.stderr


@pytest.mark.parametrize("omission", OMISSIONS.values(), ids=OMISSIONS)
def test_the_c_tests_find_what_is_left_out(c_copy, omission):
    suite = "model" if omission.file == "write.c" else "durability"
    done = run_without(omission, c_copy, "test_c", lambda directory: run_c_tests(directory, [suite]))
    assert done.returncode != 0, done.stdout
