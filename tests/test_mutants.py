"""The gradient tests are themselves tested: with a seeded error in the C source they must fail.

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
        "g + twice_l2 * w",
        "g + twice_l2 / 2 * w",
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
