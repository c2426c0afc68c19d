"""The benchmark suite (benchmarks/) runs, computes what it says, and reports it; no time is judged here."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))
from benchmarks import engines, goals, sections, summary, workloads
from benchmarks.compare import side_by_side, verdict
from benchmarks.report import write
from benchmarks.results import Measurement, Results, Subject

ROOT = Path(__file__).parent.parent
OWN, PEER, FLOOR = Subject("fastnn"), Subject("numpy_mlp"), Subject("floor")


def measured(section, case, **rounds_of_engines):
    return [Measurement(section, case, Subject(engine), rounds) for engine, rounds in rounds_of_engines.items()]


# ---- formulas ----


def test_flops_of_a_hand_computed_step():
    work = workloads.Workload("", (3, 5, 2), batch=7)
    forward = 2 * 7 * 3 * 5 + 2 * 7 * 5 * 2
    assert work.prediction_flops == forward == 350
    assert work.step_flops == 2 * forward + 2 * 7 * 5 * 2 == 840  # dW of both layers, dX of the second
    assert work.parameters == 3 * 5 + 5 + 5 * 2 + 2
    assert work.hidden_values == 7 * 5


def test_products_of_a_step_have_its_flops():
    for work in workloads.WORKLOADS:
        assert sum(product.flops for product in workloads.products_of(work)) == work.step_flops, work.name


def test_batches_are_a_permutation():
    work = workloads.Workload("", (3, 2), batch=4, rows=10)
    batches = work.batches(lambda n: list(range(n))[::-1])
    assert [next(batches) for _ in range(3)] == [[9, 8, 7, 6], [5, 4, 3, 2], [9, 8, 7, 6]]


def test_stretches_add_up_to_the_steps():
    work = workloads.Workload("", (3, 2), batch=4, rows=10)
    for steps in (1, 2, 5):
        taken = sum((rows.stop - rows.start) // work.batch * epochs for rows, epochs in work.stretches(steps))
        assert taken == steps
        assert all(0 <= rows.start < rows.stop <= work.rows for rows, _ in work.stretches(steps))


# ---- statistics ----


def test_summary_of_all_rounds():
    found = summary.summarise([[4, 1], [2, 3, 5]])
    assert (found.best, found.lower_quartile, found.median, found.upper_quartile) == (1, 2, 3, 4)
    assert found.samples == 5


def test_ratio_is_of_rounds_measured_together():
    """The second round is twice as slow for both: their ratio does not see it."""
    found = summary.ratio([[30, 10, 20], [60, 20, 40], [90, 100, 80]], [[10], [20], [30]])
    assert (found.low, found.median, found.high) == (2, 2, 2.5)
    assert found.best == 1


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [((1.2, 1.3, 1.4), "B is faster"), ((0.7, 0.8, 0.8), "B is slower"), ((0.9, 1.2, 1.3), "within noise")],
)
def test_verdict(rounds, expected):
    assert verdict(summary.ratio([[r] for r in rounds], [[1]] * 3), noise=0.05) == expected
    assert verdict(summary.ratio([[r] for r in rounds], [[1]] * 3), noise=0.5) == "within noise"


def test_compare_shows_the_noise_of_the_control():
    first, control, second = (Subject("fastnn", build=name) for name in ("a", "control", "b"))
    results = Results()
    for subject, seconds in ((first, 2e-6), (control, 2e-6), (second, 1e-6)):
        for _ in range(2):  # launches
            results.measurements.append(Measurement("compare", "tiny", subject, [[seconds]] * 3))
    (row,) = [line for line in side_by_side(results, first, control, second) if "tiny" in line]
    assert "2.00x" in row
    assert "1.00x" in row
    assert "B is faster" in row


# ---- goals ----


def test_every_workload_has_goals():
    text = [goal.subject for goal in goals.GOALS]
    for work in workloads.WORKLOADS:
        assert f"`{work.name}` step" in text
        assert f"`{work.name}` beside a busy process, p99" in text
    assert all(any(work.name in subject for subject in text) for work in workloads.PREDICTIONS)


def test_a_goal_is_judged_by_its_bound():
    results = Results()
    results.measurements = measured("steps", "sgd1", fastnn=[[1.0]] * 3, numpy_mlp=[[2.5]] * 3, torch_eager=[[4.0]] * 3)
    rows = {row[1]: row for row in goals.rows(results) if row[0] == "`sgd1` step"}
    assert [row[-1] for row in rows.values()] == ["met", "**not met**"]
    assert rows["≥ 2.2x the best peer"][2] == "2.5x"
    assert {row[-1] for row in goals.rows(Results())} == {"not measured"}


# ---- the whole ----


def test_every_section_and_engine_of_the_lists_exists():
    folder = ROOT / "benchmarks"
    assert {path.stem for path in (folder / "engines").glob("*.py")} == {*engines.ENGINES, "__init__"}
    assert {path.stem for path in (folder / "sections").glob("*.py")} == {*sections.SECTIONS, "__init__"}
    for name in sections.SECTIONS:
        section = sections.load(name)
        assert section.TITLE
        assert callable(section.run)
        assert callable(section.report)


def test_the_suite_runs_from_end_to_end(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "benchmarks", "run", "--quick", "--only", "machine,steps,accuracy"]
        + ["--engines", "fastnn,numpy_mlp,sklearn_mlp", "--works", "tiny", "--out", str(tmp_path), "--name", "trial"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    results = Results.load(tmp_path / "trial/results.json")
    assert results.stamp["processor"]
    for subject in (OWN, PEER, FLOOR):
        assert all(0 < sample < 10 for samples in results.rounds("steps", "tiny", subject) for sample in samples)
    text = (tmp_path / "trial/results.md").read_text(encoding="utf-8")
    for heading in ("## Goals", "## Machine", "## Training steps", "## Time to accuracy"):
        assert heading in text
    assert "`tiny` step | ≥ 15x the best peer" in text
    assert "MNIST was left out" in text
    row = next(line for line in text.splitlines() if line.startswith("| tiny |"))
    assert row.count(" / ") >= 4
    assert write(results, tmp_path).read_text(encoding="utf-8").startswith("# Benchmark results")
