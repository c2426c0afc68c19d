"""scikit-learn's own tests of its MLP, run with fastnn's estimators in its place: docs/sklearn-tests.md."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from optional import needed

TESTS = Path(__file__).parent
needed("fastnn.sklearn")
needed("sklearn.neural_network.tests.test_mlp")


def different() -> set[str]:
    """The tests that the page says are not passed."""
    page = (TESTS.parent / "docs" / "sklearn-tests.md").read_text()
    return set(re.findall(r"^\| `(test_\w+)` \| \S", page, flags=re.MULTILINE))


@pytest.mark.long
def test_scikit_learns_tests_of_its_mlp_give_what_the_page_says():
    module = "sklearn.neural_network.tests.test_mlp"
    command = [sys.executable, "-m", "pytest", "-p", "mlp_substitute", "-p", "no:cacheprovider", "-rf", "--tb=no"]
    run = subprocess.run(
        [*command, "--pyargs", module],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    failed = re.findall(r"^FAILED \S*::(test_\w+)", run.stdout, flags=re.MULTILINE)
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None, run.stdout
    assert int(passed[1]) > 50
    assert set(failed) == different(), run.stdout
    assert len(failed) == len(different())
