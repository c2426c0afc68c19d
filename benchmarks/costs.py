"""What a training step of fastnn should cost: arithmetic, bytes, passes over values, barriers. docs/performance.md
explains it; the section "grid" holds it against measurement. Nothing here is fitted to a cell of the grid.

    python -m benchmarks.costs 784-300-100-10 32 --optimizer sgd --results benchmarks/results/NAME/results.json
"""

import argparse
import math
import re
from dataclasses import dataclass
from pathlib import Path

from .native import padded
from .results import Results, Subject
from .workloads import Workload

FLOAT = 4  # bytes; the model is that of float32

# ---- measured once on Zen 3 with AVX2, in its cycles: of the core that does 32 float32 FLOPs in each, by the peak ----

SUSTAINED = 0.95  # of the peak inside a tile: `product` 128 x 128 x 128, 0.94 with its tiles and its call
LATENCY_CYCLES = 4  # of a multiply-add, which the next one of its sum waits for (Zen 2 to 5, Intel from Skylake on)
TILE_CYCLES = 16  # start and finish of a tile: `product` 48 x 16 x (2...64), 8 tiles, beside 6 x 16 x 16, one tile
CALL_CYCLES = 115  # of a kernel that multiplies: what is left of 6 x 16 x 16
PASS_CYCLES = {  # per number, of kernels that pass over numbers, less the 7 us of calling one from Python
    "adam": 1.3,  # `kernels` adam_update: a division and a square root
    "sgd": 0.3,  # as a norm: bound by its loads
    "norm": 0.3,  # `kernels` square_norm
    "transpose": 0.4,  # transpose of 128 x 128 0.3, of 300 x 100 0.5; the bytes come on top
    "values": 1.2,  # ReLU' 0.7 and bias gradient 0.2, or gather 0.7; two norms that bound the gradient 0.5
    "tanh": 1.25,  # `kernels` activation_forward
    "regularised": 5.0,  # dropout 1.65 and back 0.4; BatchNorm 0.4 + 0.65 and back 0.75 + 1.0
}
LOSS_CYCLES = {"cross_entropy": (150, 2.6), "mse": (50, 1.2)}  # per row, its gather included; per output: 2048 x 10
STEP_CYCLES = 1800  # clock, order, walking the plan: a step of 8-8-8-10 and one row without all the above
BARRIER_SECONDS = 0.5e-6  # every thread awake

# ---- counted in the code ----

VALUE_PASSES = 8  # over a hidden value: stored and read by the next layer, its gradient the same, dW, ReLU', db, norm
BARRIERS = 4  # per step: transposed weights, end of backward, norm, new parameters
BLOCK_ROWS = 192  # of a product between two readings of B (gemm.h)
DEEP, DEEP_ROWS = 129, 48  # the same where a transposed A is packed
HOT_NUMBERS, UPDATE_CHUNK, CHUNK_ROWS = 32768, 4096, 12  # the part of dW that is applied while hot (update.c)
LONG_BATCH, SMALL_MATRIX, STEP_ROWS = 1024, 16384, 256  # such nets go through a step in blocks (dense.c, net.h)
WORK_PER_THREAD, LEAST_WORTH, UPDATE_WORK = 1e6, 2.5, 20  # multiply-adds (plan.c, update.c)


@dataclass(frozen=True)
class Tiles:
    """Lanes of a vector; vectors of a full panel; rows of a tile of one and of a narrower one; depth of a block, and of
    one of dW."""

    lanes: int
    panel: int
    rows: int
    narrow_rows: int
    depth: int
    transposed_depth: int


TILES = {
    "avx512": Tiles(16, 4, 6, 8, 128, 128),
    "avx2": Tiles(8, 2, 6, 8, 1040, 256),
    "neon": Tiles(4, 4, 4, 4, 128, 128),
    "baseline": Tiles(4, 2, 6, 8, 1040, 256),
}


@dataclass(frozen=True)
class Machine:
    """One core, as the section "machine" measures it."""

    peak: float  # FLOP/s in float32
    isa: str
    l2: int  # bytes
    l3: int
    l2_bandwidth: float  # bytes/s
    l3_bandwidth: float
    memory_bandwidth: float

    @classmethod
    def of(cls, results: Results) -> "Machine | None":
        """None where it was not measured. By the best samples: what disturbs is no part of a model."""
        cases = ["multiply-add", *(f"read {level}" for level in ("L2, 256 KB", "L3, 4 MB", "memory, 256 MB"))]
        found = [results.summary("machine", case, Subject("floor")) for case in cases]
        if not all(found):
            return None
        # Either is timed per GFLOP or GB.
        peak, *bandwidths = (1e9 / summary.best for summary in found)
        l2, l3 = (cache_size(results.stamp.get("caches", ""), level) for level in (2, 3))
        return cls(peak, results.stamp["instruction set"], l2, l3 or l2, *bandwidths)

    def cycles(self, count: float) -> float:
        """Seconds; of a core with 32 FLOPs per cycle."""
        return count * 32 / self.peak

    def reading(self, size: float, footprint: float) -> float:
        """Seconds for `size` bytes from the level that holds `footprint` bytes, of which they are a part."""
        if footprint <= self.l2:
            return size / self.l2_bandwidth
        return size / (self.l3_bandwidth if footprint <= self.l3 else self.memory_bandwidth)


def cache_size(text: str, level: int) -> int:
    """Bytes of a cache as `machine.caches` names them: "L2 512K"; 0 where it is not there."""
    match = re.search(rf"L{level} (\d+)([KM])", text)
    return int(match[1]) * {"K": 1 << 10, "M": 1 << 20}[match[2]] if match else 0


# ---- products ----


def product_cycles(rows: int, columns: int, length: int, tiles: Tiles, transposed: bool = False) -> float:
    """Of out (rows, columns) with sums of `length`, all operands in L1."""
    vectors = -(-columns // tiles.lanes)
    if length == 1:  # a product without a sum: a load, a multiply-add and a store per vector
        return CALL_CYCLES + rows * (vectors + 1)
    n_panels = 1 if rows == 1 else -(-vectors // tiles.panel)
    narrower, wider = n_panels - vectors % n_panels, vectors % n_panels
    cycles = CALL_CYCLES
    for width, count in ((vectors // n_panels, narrower), (vectors // n_panels + 1, wider)):
        cycles += count * panel_cycles(rows, width, length, tiles, transposed)
    return cycles


def panel_cycles(rows: int, width: int, length: int, tiles: Tiles, transposed: bool) -> float:
    """One panel of `width` vectors: its rows are split evenly over tiles; a tile starts and ends in each block."""
    count = -(-rows // (tiles.rows if width >= tiles.panel else tiles.narrow_rows))
    taller = rows % count
    # Multiply-adds of 32 FLOPs per cycle, or two loads in each, or waiting for the sums.
    cycles = sum(
        n * max(height * width * tiles.lanes / 16, (height + width) / 2, LATENCY_CYCLES)
        for height, n in ((rows // count + 1, taller), (rows // count, count - taller))
    )
    depth = tiles.transposed_depth if transposed else tiles.depth
    return cycles * length / SUSTAINED + count * TILE_CYCLES * -(-length // depth)


def product(rows: int, columns: int, length: int, machine: Machine, touched: float, transposed: bool = False) -> float:
    """Seconds: B (length, columns) is read once for every block of rows.

    A single row streams by while it is multiplied. Tiles wait for it: their rows of B lie on different pages.
    """
    size = length * padded(columns, "float32") * FLOAT
    passes = -(-rows // (DEEP_ROWS if transposed and length >= DEEP else BLOCK_ROWS))
    reading = machine.reading(size, touched) + (passes - 1) * machine.reading(size, size)
    multiplying = machine.cycles(product_cycles(rows, columns, length, TILES[machine.isa], transposed))
    return max(multiplying, reading) if 1 in (rows, length) else multiplying + reading


def weight_gradient(inputs: int, outputs: int, work: Workload, machine: Machine, touched: float) -> float:
    """Seconds of dW (inputs, outputs): in parts that are applied while they are hot, unless the product does it."""
    rows = inputs if inside_product(work) else min(inputs, hot_rows(outputs))
    parts, rest = divmod(inputs, rows)
    sizes = [(rows, parts), (rest, 1)] if rest else [(rows, parts)]
    return sum(n * product(r, outputs, work.batch, machine, touched, transposed=True) for r, n in sizes)


def hot_rows(outputs: int) -> int:
    row = padded(outputs, "float32")
    chunk = max(1, UPDATE_CHUNK // (CHUNK_ROWS * row)) * CHUNK_ROWS * row
    return -(-HOT_NUMBERS // chunk) * chunk // row


def inside_product(work: Workload) -> bool:
    """Plain SGD rides in the product that forms dW."""
    return work.optimizer == "sgd" and update_is_fused(work) and work.batch <= 128


# ---- what a step does, from its shape ----


def update_is_fused(work: Workload) -> bool:
    """No stored gradient: no norm is wanted, and to bound the gradient by reading x and dy is cheap."""
    per_row = sum(inputs + outputs for inputs, outputs in work.shapes)
    return not work.regularised and not in_blocks(work) and work.batch < 2 * work.parameters / per_row


def in_blocks(work: Workload) -> bool:
    """A long batch of a net of small layers."""
    small = all(inputs * padded(outputs, "float32") <= SMALL_MATRIX for inputs, outputs in work.shapes)
    return small and work.batch >= LONG_BATCH and not work.regularised


def footprint(work: Workload) -> float:
    """Bytes that a step touches: weights, transposed ones, moments, gradient; values and their gradients."""
    weights = work.parameters
    transposed = sum(inputs * outputs for inputs, outputs in work.shapes[1:])
    moments = 2 * weights if work.optimizer == "adam" else 0
    gradient = 0 if update_is_fused(work) else weights
    rows = STEP_ROWS if in_blocks(work) else work.batch
    return FLOAT * (weights + transposed + moments + gradient + 2 * rows * sum(work.widths))


def used_threads(work: Workload, threads: int) -> int:
    """Small work stays on the calling thread."""
    worth = (1.5 * work.prediction_flops + UPDATE_WORK * work.parameters) / WORK_PER_THREAD
    return 1 if worth < LEAST_WORTH else max(1, min(threads, int(worth), work.batch // 4 + 1))


def parts(work: Workload, machine: Machine, threads: int = 1) -> dict[str, float]:
    """Seconds of one training step, by what they are spent on."""
    touched = footprint(work)
    n = used_threads(work, threads)
    seconds = dict.fromkeys(("forward", "dX", "dW", "transposing", "update", "values", "loss", "step", "barriers"), 0.0)
    for layer, (inputs, outputs) in enumerate(work.shapes):
        seconds["forward"] += product(work.batch, outputs, inputs, machine, touched)
        seconds["dW"] += weight_gradient(inputs, outputs, work, machine, touched)
        if layer > 0:
            seconds["dX"] += product(work.batch, inputs, outputs, machine, touched)
            seconds["transposing"] += transposing(inputs * outputs, machine, touched)
    seconds["update"] = update(work, machine, touched)
    seconds["values"] = values(work, machine, touched)
    per_row, per_output = LOSS_CYCLES[work.loss]
    seconds["loss"] = machine.cycles(work.batch * (per_row + per_output * work.widths[-1]))
    shared = {name: value / n for name, value in seconds.items()}
    return {**shared, "step": machine.cycles(STEP_CYCLES), "barriers": BARRIERS * BARRIER_SECONDS if n > 1 else 0.0}


def passing(numbers: float, cycles: float, passes: float, machine: Machine, touched: float) -> float:
    """Seconds of a pass over numbers: its arithmetic or its bytes, whichever takes longer."""
    return max(machine.cycles(cycles * numbers), machine.reading(passes * FLOAT * numbers, touched))


def transposing(numbers: int, machine: Machine, touched: float) -> float:
    """Seconds: read, and written to lines that are read first; as the rows of B, they lie on different pages."""
    return machine.cycles(PASS_CYCLES["transpose"] * numbers) + machine.reading(3 * FLOAT * numbers, touched)


def update(work: Workload, machine: Machine, touched: float) -> float:
    """Parameters and moments are read and written; a stored gradient is written, read for its norm, and read again."""
    if inside_product(work):  # which has read them
        return passing(work.parameters, 0, 1, machine, touched)
    arrays = 2 * (3 if work.optimizer == "adam" else 1)
    stored = not update_is_fused(work)
    cycles = PASS_CYCLES[work.optimizer] + stored * PASS_CYCLES["norm"]
    return passing(work.parameters, cycles, arrays + 3 * stored, machine, touched)


def values(work: Workload, machine: Machine, touched: float) -> float:
    """What is done to inputs and hidden values outside of the products, their padding included."""
    inputs, *hidden, _ = (work.batch * padded(width, "float32") for width in work.widths)
    cycles = PASS_CYCLES["values"]
    cycles += PASS_CYCLES["tanh"] * (work.activation == "tanh") + PASS_CYCLES["regularised"] * work.regularised
    return passing(sum(hidden), cycles, VALUE_PASSES, machine, touched) + passing(
        inputs, PASS_CYCLES["values"], 3, machine, touched
    )


def predict(work: Workload, machine: Machine, threads: int = 1) -> float:
    """Seconds of one training step."""
    return math.fsum(parts(work, machine, threads).values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description="What a training step should cost.")
    parser.add_argument("widths", help="of the layers: 784-300-100-10")
    parser.add_argument("batch", type=int)
    parser.add_argument("--optimizer", choices=["adam", "sgd"], default="adam")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, required=True, help="results.json of a run with the section machine")
    options = parser.parse_args()
    machine = Machine.of(Results.load(options.results))
    if machine is None:
        parser.error(f"{options.results} has no section machine.")
    widths = tuple(map(int, options.widths.split("-")))
    work = Workload("", widths, options.batch, optimizer=options.optimizer)
    found = parts(work, machine, options.threads)
    for name, seconds in {**found, "all": math.fsum(found.values())}.items():
        print(f"{name:12} {seconds * 1e6:12.2f} us")


if __name__ == "__main__":
    main()
