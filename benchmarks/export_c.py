"""Sizes and latency of a 16-64-64-4 net exported to C, beside the engine: ``make bench-export``.

A latency is the least of several runs of the exported program, which times its own calls.
"""

import re
import shutil
import subprocess
import tempfile
import timeit
from pathlib import Path

import numpy as np

import fastnn as fn
from fastnn.export import to_c

RUNS = 9
FLAGS = ("-Os", "-O2", "-O3", "-O3 -march=native")


def output_of(*command: object) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def object_bytes(compiler: str, flags: list[str], source: Path) -> tuple[int, int]:
    """(code, constants) of the object file."""
    target = source.with_suffix(".o")
    output_of(compiler, "-std=c99", *flags, "-c", source, "-o", target)
    sections = re.findall(r"^(\.text|\.rodata)\S* +(\d+)", output_of("size", "-A", target), flags=re.MULTILINE)
    code, constants = (sum(int(size) for name, size in sections if name == wanted) for wanted in (".text", ".rodata"))
    return code, constants


def microseconds(compiler: str, flags: list[str], source: Path) -> float:
    """Per call."""
    program = source.with_suffix("")
    output_of(compiler, "-std=c99", *flags, f"-D{source.stem.upper()}_MAIN", source, "-o", program)
    return min(float(re.search(r"([\d.]+) us per call", output_of(program))[1]) for _ in range(RUNS))


def main() -> None:
    net = fn.Sequential([fn.Dense(64, "relu"), fn.Dense(64, "relu"), fn.Dense(4)], input_size=16).fold()
    with tempfile.TemporaryDirectory() as folder:
        source, _ = to_c(net, Path(folder) / "net.c")
        print(f"16-64-64-4, ReLU, float32: {source.stat().st_size:,} bytes of C")
        print(f"{'compiler':<28}{'code':>10}{'constants':>12}{'us per row':>12}")
        for compiler in filter(shutil.which, ("gcc", "clang")):
            for flags in FLAGS:
                code, constants = object_bytes(compiler, flags.split(), source)
                latency = microseconds(compiler, flags.split(), source)
                print(f"{compiler + ' ' + flags:<28}{code:>10,}{constants:>12,}{latency:>12.3f}")
    x = np.ones((1, 16), dtype=np.float32)
    engine = min(timeit.repeat(lambda: net.predict(x), number=2000, repeat=RUNS)) / 2000
    print(f"{'net.fold().predict(x)':<50}{1e6 * engine:>12.3f}")


if __name__ == "__main__":
    main()
