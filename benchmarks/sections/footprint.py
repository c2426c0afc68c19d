"""What it costs to have: import time, sizes on disk, memory, and what a step allocates."""

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ..markdown import table
from ..native import ROOT
from ..results import Results, Subject
from ..runner import Suite

TITLE = "Footprint"
TRAINERS = ("fastnn", "numpy_mlp", "torch_eager", "jax_scan", "sklearn_mlp")
# engine: (module, distributions that it needs beyond NumPy's)
PACKAGES = {
    "fastnn": ("fastnn", ()),
    "torch_eager": ("torch", ("torch",)),
    "jax_jit": ("jax", ("jax", "jaxlib")),
    "sklearn_mlp": ("sklearn.neural_network", ("scikit-learn", "scipy")),
    "onnx_runtime": ("onnxruntime", ("onnxruntime",)),
    "openvino_cpu": ("openvino", ("openvino",)),
}
IMPORT = "import time, numpy; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
STEPS = 64  # of one call; allocations and faults are counted between one call and another of twice as many


def run(suite: Suite) -> None:
    facts = suite.results.facts.setdefault("footprint", {})
    chosen = [engine for engine in PACKAGES if not suite.engines or engine in suite.engines]
    facts["import_seconds"] = {}
    with tempfile.TemporaryDirectory() as bytecode:
        for repetition in range(3 if suite.quick else 12):
            for engine in chosen:
                taken = import_seconds(PACKAGES[engine][0], bytecode)
                if taken is not None and repetition > 0:  # the first one compiles, which an installation has done
                    facts["import_seconds"].setdefault(engine, []).append(taken)
    facts["installed_bytes"] = {e: size for e in chosen if (size := installed_bytes(PACKAGES[e][1]))}
    if not suite.quick:
        facts["wheel_bytes"] = wheel_bytes()
    facts["usage"] = {}
    for work in ("lecture", "tabular"):
        facts["usage"][work] = found = {}
        with suite.workers([Subject(engine) for engine in TRAINERS]) as workers:
            for worker in workers:
                if worker.ask("prepare", kind="training", name=work, dtype="float32", block=0):
                    found[worker.subject.engine] = worker.ask("usage", steps=2 if suite.quick else STEPS)


def import_seconds(module: str, bytecode: str) -> float | None:
    """On top of NumPy, in a fresh interpreter that keeps its bytecode there; None where it is not installed."""
    command = [sys.executable, "-c", IMPORT.format(module)]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    return float(done.stdout) if done.returncode == 0 else None


def installed_bytes(distributions: tuple[str, ...]) -> int:
    total = 0
    for name in distributions:
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            return 0
        total += sum(path.stat().st_size for file in files if (path := Path(file.locate())).is_file())
    return total


def wheel_bytes() -> int | None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "setup.py", "-q", "bdist_wheel", "-d", folder]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sizes = [path.stat().st_size for path in Path(folder).glob("*.whl")]
    return sizes[0] if done.returncode == 0 and sizes else None


def report(results: Results) -> list[str]:
    facts = results.facts.get("footprint", {})
    rows = []
    for engine in PACKAGES:
        times, size = facts.get("import_seconds", {}).get(engine), facts.get("installed_bytes", {}).get(engine)
        if times:
            disk = f"{size / 1e6:.0f} MB" if size else "-"
            if engine == "fastnn" and facts.get("wheel_bytes"):
                disk = f"wheel {facts['wheel_bytes'] / 1e6:.2f} MB"
            rows.append([Subject(engine).label, f"{np.median(times) * 1e3:.1f} ms", disk])
    lines = table(["package", "import on top of NumPy", "size"], rows)
    for work, usage in facts.get("usage", {}).items():
        rows = []
        for engine, found in usage.items():
            if found:
                allocations = f"{found['allocations']:.3g}" if engine == "fastnn" else "-"
                rows.append(
                    [
                        Subject(engine).label,
                        allocations,
                        f"{found['page_faults']:.3g}",
                        f"{found['peak_megabytes']:.0f} MB",
                    ]
                )
        lines += table([f"`{work}`, per step", "allocations", "page faults", "largest memory of the process"], rows)
    return lines
