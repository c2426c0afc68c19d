"""Scores and times of the estimators and `fastnn train` beside scikit-learn's MLP: ``make bench-estimators DATA=DIR``.

Both MLPs get the same rows, layers and settings, scikit-learn's defaults but for those named in `TASKS`; they take
turns, seed by seed. `fastnn train` gets the same training rows as a file, unscaled, and nothing else.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from fastnn.sklearn import FastNNClassifier, FastNNRegressor

from . import markdown

LARGEST_LOSS = 0.003  # of score that the engine's MLP may lie behind, or two standard errors
LEAST_SPEED_UP = 3


@dataclass(frozen=True)
class Task:
    """Settings of both MLPs; `test` rows are drawn anew for every seed, `rows` limits all of them."""

    file: str
    hidden: tuple[int, ...]
    epochs: int
    test: int
    rows: int | None = None
    classifies: bool = True


TASKS = {
    "Letter": Task("letter.npz", (128, 64), 40, 4000),
    "Optdigits": Task("optdigits.npz", (128, 64), 40, 1124),
    "Covertype": Task("covtype.npz", (128, 64), 20, 20_000, rows=100_000),
    "Diamonds": Task("diamonds.npz", (128, 64), 30, 10_788, classifies=False),
    "MNIST": Task("mnist.npz", (128, 64), 15, 10_000),
}


def load(folder: Path, task: Task) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / task.file) as data:
        if "x_train" in data:
            x = np.concatenate([data["x_train"], data["x_test"]]).reshape(-1, data["x_train"][0].size)
            y = np.concatenate([data["y_train"], data["y_test"]])
        else:
            x, y = data["X"], data["y"]
    if task.rows is not None:
        chosen = np.random.default_rng(0).permutation(len(x))[: task.rows]
        x, y = x[chosen], y[chosen]
    return x.astype(np.float32), y


@dataclass(frozen=True)
class Result:
    score: float
    seconds: float


def measure(task: Task, model: MLPClassifier | MLPRegressor, parts: Sequence[np.ndarray]) -> Result:
    x, x_test, y, y_test = parts
    scaler = StandardScaler().fit(x)
    x, x_test = scaler.transform(x), scaler.transform(x_test)
    if not task.classifies:
        mean, deviation = y.mean(), y.std()
        y, y_test = (y - mean) / deviation, (y_test - mean) / deviation
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    seconds = time.perf_counter() - began
    return Result(model.score(x_test, y_test), seconds)


def measure_recipe(task: Task, seed: int, parts: Sequence[np.ndarray]) -> Result:
    """`fastnn train` on the rows as a file, then `fastnn predict`."""
    x, x_test, y, y_test = parts
    labels = [f"class {label}" for label in y] if task.classifies else y
    with tempfile.TemporaryDirectory() as folder:
        train, test, out = (os.path.join(folder, name) for name in ("train.csv", "test.csv", "out.csv"))
        columns = [f"x{i}" for i in range(x.shape[1])]
        pandas.DataFrame(x, columns=columns).assign(target=labels).to_csv(train, index=False)
        pandas.DataFrame(x_test, columns=columns).to_csv(test, index=False)
        began = time.perf_counter()
        run("train", train, "--target", "target", "--out", folder, "--seed", str(seed), "--quiet")
        seconds = time.perf_counter() - began
        model = next(Path(folder).glob("*.safetensors"))
        run("predict", str(model), test, "-o", out)
        predicted = pandas.read_csv(out)["prediction"]
    if task.classifies:
        return Result(accuracy_score([f"class {label}" for label in y_test], predicted), seconds)
    return Result(r2_score(y_test, predicted), seconds)


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "fastnn", *arguments], check=True, stdout=subprocess.DEVNULL)


def models(task: Task, seed: int) -> dict[str, Callable[[], object]]:
    settings = {"hidden_layer_sizes": task.hidden, "max_iter": task.epochs, "random_state": seed}
    kinds = (MLPClassifier, FastNNClassifier) if task.classifies else (MLPRegressor, FastNNRegressor)
    return {"scikit-learn": lambda: kinds[0](**settings), "fastnn": lambda: kinds[1](**settings)}


def compare(folder: Path, task: Task, seeds: int) -> dict[str, list[Result]]:
    x, y = load(folder, task)
    results: dict[str, list[Result]] = {"scikit-learn": [], "fastnn": [], "fastnn train": []}
    for seed in range(seeds):
        stratify = y if task.classifies else None
        parts = train_test_split(x, y, test_size=task.test, random_state=seed, stratify=stratify)
        for name, make in models(task, seed).items():
            results[name].append(measure(task, make(), parts))
        results["fastnn train"].append(measure_recipe(task, seed, parts))
    return results


def report(name: str, task: Task, results: dict[str, list[Result]]) -> list[str]:
    scores = {engine: np.array([result.score for result in rows]) for engine, rows in results.items()}
    seconds = {engine: np.array([result.seconds for result in rows]) for engine, rows in results.items()}
    difference = scores["fastnn"] - scores["scikit-learn"]
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    ratio = float(np.median(seconds["scikit-learn"] / seconds["fastnn"]))
    good = difference.mean() >= -max(LARGEST_LOSS, 2 * error) and ratio >= LEAST_SPEED_UP
    shape = "-".join(map(str, task.hidden))
    return [
        f"{name}, {shape}, {task.epochs} epochs",
        *(f"{scores[engine].mean():.4f}" for engine in ("scikit-learn", "fastnn")),
        f"{difference.mean():+.4f} ± {error:.4f}",
        *(f"{np.median(seconds[engine]):.2f}" for engine in ("scikit-learn", "fastnn")),
        f"{ratio:.1f}x" + ("" if good else " (goal missed)"),
        f"{scores['fastnn train'].mean():.4f}",
        f"{np.median(seconds['fastnn train']):.1f}",
    ]


HEADINGS = (
    "data, hidden layers",
    "score scikit-learn",
    "score fastnn",
    "difference",
    "fit, s, scikit-learn",
    "fit, s, fastnn",
    "faster",
    "score `fastnn train`",
    "all of it, s",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimators", description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of " + ", ".join(task.file for task in TASKS.values()))
    parser.add_argument("--seeds", type=int, default=5, help="pairs of a split and a seed")
    parser.add_argument("--only", default=",".join(TASKS), help="names among " + ", ".join(TASKS))
    options = parser.parse_args()
    rows = []
    for name in options.only.split(","):
        rows.append(report(name, TASKS[name], compare(options.data, TASKS[name], options.seeds)))
        print(f"# {' | '.join(rows[-1])}", file=sys.stderr, flush=True)
    print("\n".join(markdown.table(HEADINGS, rows)))


if __name__ == "__main__":
    main()
