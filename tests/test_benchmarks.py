"""The benchmark suite (benchmarks/) runs, computes what it says, and reports it; no time is judged here."""

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))
from benchmarks import costs, engines, goals, sections, summary, workloads
from benchmarks.compare import side_by_side, verdict
from benchmarks.report import write
from benchmarks.results import Measurement, Results, Subject
from benchmarks.sections import grid

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


# ---- the cost model ----

# A cycle takes a nanosecond, and reading from wherever takes no time.
UNREAD = costs.Machine(32e9, "avx2", 1 << 19, 1 << 25, math.inf, math.inf, math.inf)
MACHINE = replace(UNREAD, peak=1e11, l2_bandwidth=1e11, l3_bandwidth=7e10, memory_bandwidth=2e10)


def test_cost_of_a_hand_computed_product():
    """Six rows of two vectors are one tile: 12 multiply-adds per step of k, two in a cycle."""
    one_tile = 12 * 16 / 2 / costs.SUSTAINED + costs.TILE_CYCLES + costs.CALL_CYCLES
    assert costs.product_cycles(6, 16, 16, costs.TILES["avx2"]) == pytest.approx(one_tile)
    # One row of one vector waits for each of its sums; with A transposed, two blocks of k start the tile twice.
    waiting = costs.LATENCY_CYCLES * 300 / costs.SUSTAINED + costs.TILE_CYCLES + costs.CALL_CYCLES
    assert costs.product_cycles(1, 8, 300, costs.TILES["avx2"]) == pytest.approx(waiting)
    twice = costs.product_cycles(1, 8, 300, costs.TILES["avx2"], transposed=True)
    assert twice == pytest.approx(waiting + costs.TILE_CYCLES)


def test_cost_of_a_hand_computed_step():
    work = workloads.Workload("", (16, 16), batch=6)
    found = {name: seconds * 1e9 for name, seconds in costs.parts(work, UNREAD).items() if seconds}
    assert found == {
        "forward": pytest.approx(12 * 16 / 2 / 0.95 + 16 + 115),
        "dW": pytest.approx((12 + 10 + 10) * 6 / 2 / 0.95 + 3 * 16 + 115),  # 16 rows are tiles of 6, 5 and 5
        "update": pytest.approx(1.3 * (16 * 16 + 16)),
        "values": pytest.approx(1.2 * 6 * 16),
        "loss": pytest.approx(6 * (150 + 2.6 * 16)),
        "step": pytest.approx(1800),
    }
    assert costs.predict(work, UNREAD) * 1e9 == pytest.approx(sum(found.values()))


def test_bytes_are_read_where_the_step_fits():
    assert MACHINE.reading(1e3, 1e3) == 1e3 / 1e11
    assert MACHINE.reading(1e3, 1e6) == 1e3 / 7e10
    assert MACHINE.reading(1e3, 1e9) == 1e3 / 2e10


@pytest.mark.parametrize("isa", costs.TILES)
def test_cost_grows_with_the_work(isa):
    machine = replace(MACHINE, isa=isa)
    cost = {cell: costs.predict(workloads.grid_cell(*cell), machine) for cell in every_cell()}
    for width, batch in cost:
        for more in ((2 * width, batch), (width, 2 * batch)):
            assert more not in cost or cost[more] > cost[width, batch], (width, batch, more)


def test_cost_falls_with_threads_where_there_is_work():
    tiny, large = (workloads.BY_NAME[name] for name in ("tiny", "large"))
    assert costs.predict(tiny, MACHINE, 8) == costs.predict(tiny, MACHINE)
    assert 1.9 < costs.predict(large, MACHINE) / costs.predict(large, MACHINE, 2) < 2


def test_the_suite_knows_every_workload_the_model_predicts():
    for work in (*workloads.WORKLOADS, *workloads.SIZES):
        assert all(seconds >= 0 for seconds in costs.parts(work, MACHINE).values()), work.name


@pytest.mark.parametrize(("text", "level", "size"), [("L1 32K, L2 512K, L3 32768K", 2, 1 << 19), ("L2 1M", 3, 0)])
def test_cache_size(text, level, size):
    assert costs.cache_size(text, level) == size


# ---- the grid ----


def every_cell():
    return itertools.product(workloads.GRID_WIDTHS, workloads.GRID_BATCHES)


def test_a_cliff_is_slower_than_both_its_neighbours():
    speed = dict.fromkeys(every_cell(), 60.0)
    assert grid.cliffs(speed) == []
    speed[64, 32] = 20.0
    assert grid.cliffs(speed) == [((64, 32), "width", 3.0), ((64, 32), "batch", 3.0)]
    speed[64, 64] = 25.0  # no longer is the first one far below both along the batch
    assert [cliff[:2] for cliff in grid.cliffs(speed)] == [((64, 32), "width"), ((64, 64), "width")]


def test_a_slope_and_an_edge_are_no_cliffs():
    assert grid.cliffs({(width, batch): 1.0 * batch for width, batch in every_cell()}) == []
    assert grid.cliffs({(8, 1): 1.0, (8, 2): 9.0, (16, 1): 9.0}) == []


def test_the_grid_is_reported_beside_its_prediction():
    results = Results({"instruction set": "avx2", "caches": "L2 512K, L3 32768K"})
    for case, seconds in {"multiply-add": 0.01, "read L2, 256 KB": 0.01, "read L3, 4 MB": 0.02}.items():
        results.measurements += measured("machine", case, floor=[[seconds]])
    results.measurements += measured("machine", "read memory, 256 MB", floor=[[0.05]])
    work = workloads.grid_cell(64, 32)
    assert not work.full_batch
    twice = 2 * costs.predict(work, costs.Machine.of(results))
    results.measurements += measured("grid", work.name, fastnn=[[2 * twice, twice]])
    results.facts["grid"] = {"left out": ["4096 wide 4096 rows"]}
    text = "\n".join(grid.report(results))
    assert "| 64 | - | - | - | - | - | 0.50 |" in text
    assert "median 0.50" in text
    assert "No cell is 1.5x slower" in text
    assert "4096 wide 4096 rows" in text
    assert grid.predictions(Results({}, measured("grid", work.name, fastnn=[[1.0]]))) == {}


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


def test_what_is_measured_again_is_forgotten():
    results = Results()
    results.measurements = measured("steps", "tiny", fastnn=[[1.0]]) + measured("steps", "large", fastnn=[[2.0]])
    results.measurements += measured("predict", "tiny", fastnn=[[3.0]])
    results.forget("steps", ["large"])
    assert [(m.section, m.case) for m in results.measurements] == [("steps", "tiny"), ("predict", "tiny")]
    results.forget("steps", [])
    assert [m.section for m in results.measurements] == ["predict"]


def test_a_goal_is_judged_by_its_bound():
    results = Results()
    results.measurements = measured("steps", "sgd1", fastnn=[[1.0]] * 3, numpy_mlp=[[2.5]] * 3, torch_eager=[[4.0]] * 3)
    rows = {row[1]: row for row in goals.rows(results) if row[0] == "`sgd1` step"}
    assert [row[-1] for row in rows.values()] == ["met", "met", "**not met**"]
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
        [sys.executable, "-m", "benchmarks", "run", "--quick", "--only", "machine,steps,grid,many,accuracy"]
        + [
            "--engines",
            "fastnn,numpy_mlp,sklearn_mlp",
            "--works",
            "tiny,8 wide 4 rows,64 nets 8-32-32-1",
            "--out",
            str(tmp_path),
            "--name",
            "trial",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=300,
    )
    results = Results.load(tmp_path / "trial/results.json")
    assert results.stamp["processor"]
    for subject in (OWN, PEER, FLOOR):
        assert all(0 < sample < 10 for samples in results.rounds("steps", "tiny", subject) for sample in samples)
    text = (tmp_path / "trial/results.md").read_text(encoding="utf-8")
    for heading in (
        "## Goals",
        "## Machine",
        "## Training steps",
        "## Grid of widths",
        "## Many nets",
        "## Time to accuracy",
    ):
        assert heading in text
    assert "`tiny` step | ≥ 15x the best peer" in text
    assert "MNIST was left out" in text
    row = next(line for line in text.splitlines() if line.startswith("| tiny |"))
    assert row.count(" / ") >= 4
    assert write(results, tmp_path).read_text(encoding="utf-8").startswith("# Benchmark results")
