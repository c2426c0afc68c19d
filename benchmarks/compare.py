"""What a change did, with its noise: two git revisions measured side by side, or two results folders.

Revisions are built apart and timed in interleaved rounds by today's benchmarks, A twice: A beside A shows what the
noise alone can do.
"""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .markdown import MISSING, factor, microseconds, table
from .native import ROOT
from .results import Results, Subject
from .runner import Suite
from .summary import Ratio
from .workloads import PREDICTIONS, WORKLOADS

LAUNCHES = 5  # where a process happens to lie in memory is noise too
HEADINGS = ["", "A, µs", "B, µs", "A / B: above 1, B is faster", "noise", "verdict"]


def compare(a: str, b: str, suite: Suite) -> list[str]:
    """Lines of Markdown; `suite` says how long and on which core revisions are measured."""
    if Path(a, "results.json").exists() and Path(b, "results.json").exists():
        return compare_results(*(Results.load(Path(folder, "results.json")) for folder in (a, b)))
    return compare_revisions(a, b, suite)


def compare_results(a: Results, b: Results) -> list[str]:
    """Runs at different times: the floor, measured in both, tells how much the machine itself has changed."""
    rows, own, floor = [], Subject("fastnn"), Subject("floor")
    for section in ("steps", "predict"):
        for case in a.cases(section):
            ours, theirs = ([r.summary(section, case, subject) for r in (a, b)] for subject in (own, floor))
            if not all(ours):
                continue
            ratio = Ratio(
                ours[0].lower_quartile / ours[1].upper_quartile,
                ours[0].median / ours[1].median,
                ours[0].upper_quartile / ours[1].lower_quartile,
                ours[0].best / ours[1].best,
            )
            machine = theirs[0].median / theirs[1].median if all(theirs) else None
            noise = f"floor {machine:.2f}x" if machine else MISSING
            rows.append(
                [
                    f"{section}: {case}",
                    *(microseconds(s.median) for s in ours),
                    factor(ratio),
                    noise,
                    verdict(ratio, abs((machine or 1) - 1)),
                ]
            )
    if not rows:
        raise SystemExit("the two results have no step and no prediction in common.")
    return ["Two runs, at different times; the floor shows the machine.", "", *table(HEADINGS, rows)]


def compare_revisions(a: str, b: str, suite: Suite) -> list[str]:
    with built(a) as first, built(b) as second:
        control = first.with_name("control")
        control.symlink_to(first)
        subjects = [Subject("fastnn", build=str(folder)) for folder in (first, control, second)]
        for kind, works in (("training", WORKLOADS), ("predict", PREDICTIONS)):
            for work, _ in itertools.product(suite.chosen_works(works), range(LAUNCHES)):
                with suite.workers(subjects) as workers:
                    suite.measure("compare", work.name, workers, kind, work.name)
    return side_by_side(suite.results, *subjects)


def side_by_side(results: Results, first: Subject, control: Subject, second: Subject) -> list[str]:
    rows = []
    for case in results.cases("compare"):
        change = results.ratio("compare", case, first, second)
        noise = results.ratio("compare", case, first, control)
        if not change or not noise:
            reasons = {m.missing for m in results.of("compare", case) if m.missing}
            rows.append([case, MISSING, MISSING, MISSING, MISSING, " ".join(reasons)])
            continue
        medians = (results.summary("compare", case, subject).median for subject in (first, second))
        decided = verdict(change, max(abs(noise.low - 1), abs(noise.high - 1)))
        rows.append([case, *map(microseconds, medians), factor(change), factor(noise), decided])
    return ["Medians; ratios per round with their quartiles; noise: A beside A.", "", *table(HEADINGS, rows)]


def verdict(ratio: Ratio, noise: float) -> str:
    """Decided where all between the quartiles lies on one side of 1, further off than the noise."""
    if ratio.low > 1 + noise:
        return "B is faster"
    return "B is slower" if ratio.high < 1 - noise else "within noise"


@contextmanager
def built(revision: str) -> Iterator[Path]:
    """A folder with this revision and its extension."""
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()), revision.replace("/", "-"))
        git("worktree", "add", "--detach", str(folder), revision)
        ends.callback(git, "worktree", "remove", "--force", str(folder))
        build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        environment = {name: value for name, value in os.environ.items() if name != "FASTNN_SANITIZE"}
        done = subprocess.run(build, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            raise SystemExit(f"{revision} could not be built.")
        yield folder


def git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"git {arguments[0]}: {done.stderr.strip()}")
