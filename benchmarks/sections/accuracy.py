"""Seconds to a test accuracy on real data."""

from pathlib import Path

import numpy as np

from ..learning import TASKS
from ..markdown import table
from ..results import Results, Subject
from ..runner import Suite

TITLE = "Time to accuracy"
TRAINERS = ("fastnn", "numpy_mlp", "torch_eager", "torch_compiled", "jax_scan", "sklearn_mlp")
SEEDS = 3  # the epochs that it takes vary by half


def run(suite: Suite) -> None:
    facts = suite.results.facts.setdefault("accuracy", {})
    for task in TASKS.values():
        if not suite.data or not (Path(suite.data) / task.file).exists():
            sentence = f"{task.title} was left out: `--data` must name a folder with {task.file}."
            facts[task.title] = {"missing": sentence}
            suite.say(sentence)
            continue
        facts[task.title] = found = {"runs": {}}
        with suite.workers([Subject(engine) for engine in TRAINERS]) as workers:
            for seed in range(1 if suite.quick else SEEDS):
                for worker in workers:
                    folder = str(Path(suite.data).absolute())
                    answer = worker.ask("learn", task=task.title, folder=folder, seed=seed)
                    suite.say(f"accuracy  {task.title:10} {worker.subject.label:20} {answer or worker.missing}")
                    if answer:
                        found["runs"].setdefault(worker.subject.engine, []).append(answer)


def seconds(results: Results, task: str, engine: str) -> float | None:
    """Median over the seeds; None where it was not run or the accuracy was not reached every time."""
    runs = results.facts.get("accuracy", {}).get(task, {}).get("runs", {}).get(engine, [])
    return float(np.median([run["seconds"] for run in runs])) if runs and all(r["reached"] for r in runs) else None


def report(results: Results) -> list[str]:
    lines = []
    for title, found in results.facts.get("accuracy", {}).items():
        if "missing" in found:
            lines += [found["missing"], ""]
            continue
        task = TASKS[title]
        widths = "-".join(map(str, task.work.widths))
        lines += [
            f"{title} to {task.accuracy:.0%}: {widths}, ReLU, Adam {task.rate:g}, batch {task.work.batch}, one thread, "
            f"medians over the seeds; shuffling and a test after every epoch are included.",
            "",
        ]
        rows = []
        for engine, runs in found["runs"].items():
            median = seconds(results, title, engine)
            epochs = ", ".join(str(run["epochs"]) for run in runs)
            each = np.median([run["seconds"] / run["epochs"] for run in runs])
            reached = f"{median:.2f}" if median else f"not within {task.most_epochs} epochs"
            rows.append([Subject(engine).label, reached, epochs, f"{each:.2f}"])
        lines += table(["engine", "seconds", "epochs", "seconds per epoch"], rows)
    return lines
