"""Run the suite, or compare two of its results or two builds."""

import argparse
import datetime
from pathlib import Path
from typing import Any

from . import compare, machine, native, report, sections
from .engines import ENGINES
from .results import Results
from .runner import Suite
from .workloads import GRID, MANY, PREDICTIONS, SIZES, WORKLOADS

RESULTS = native.ROOT / "benchmarks" / "results"
ROUNDS_OF_COMPARE = 3  # of each launch


def names(known: list[str]):
    """A type for argparse: names from `known`, separated by commas."""

    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}.")
        return chosen

    return parse


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure, write JSON, Markdown and charts")
    run.add_argument("--only", type=names(list(sections.SECTIONS)), default=list(sections.SECTIONS), help="sections")
    run.add_argument("--engines", type=names(list(ENGINES)), default=[], help="who is measured (default: all)")
    run.add_argument("--data", default="", help="folder with mnist.npz and covtype.npz")
    run.add_argument("--name", help="of the folder in --out (default: the time); an existing one is added to")
    run.add_argument("--out", type=Path, default=RESULTS, help="folder for results (default: %(default)s)")
    again = commands.add_parser("report", help="write Markdown and charts of a results folder again")
    again.add_argument("folder", type=Path)
    two = commands.add_parser("compare", help="what a change did, with its noise")
    two.add_argument("a", help="a git revision, or a results folder")
    two.add_argument("b", help="another one")
    works = [work.name for work in (*WORKLOADS, *SIZES, *GRID, *PREDICTIONS, *MANY)]
    for command in (run, two):
        command.add_argument("--works", type=names(works), default=[], help="what is timed (default: all)")
        command.add_argument("--core", type=int, help="for one thread (default: the last one that may be used)")
        command.add_argument("--quick", action="store_true", help="two short rounds: to see that all works")
    return top


def chosen_cores(core: int | None) -> list[int]:
    cores = Suite().cores
    if core is None:
        return cores
    if core not in cores:
        raise SystemExit(f"core {core} is not among those that this process may use: {cores}.")
    return [core, *(other for other in cores if other != core)]


def suite_of(options: argparse.Namespace, **more: Any) -> Suite:
    speed = {"rounds": 2, "seconds": 0.02, "block": 0.002} if options.quick else {}
    return Suite(cores=chosen_cores(options.core), works=options.works, quick=options.quick, **{**more, **speed})


def run_suite(options: argparse.Namespace) -> None:
    suite = suite_of(options, engines=options.engines, data=options.data)
    name = options.name or datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "results.json").exists():  # the run goes on: what is measured again is replaced
        suite.results = Results.load(folder / "results.json")
    suite.results.stamp |= machine.stamp(suite.cores)
    try:
        for section in options.only:
            suite.results.forget(section, options.works)
            sections.load(section).run(suite)
    finally:  # hours of measuring are kept when the last section fails
        suite.results.save(folder / "results.json")
    print(report.write(suite.results, folder))


def main() -> None:
    options = parser().parse_args()
    if options.command == "run":
        run_suite(options)
    elif options.command == "report":
        print(report.write(Results.load(options.folder / "results.json"), options.folder))
    else:
        print("\n".join(compare.compare(options.a, options.b, suite_of(options, rounds=ROUNDS_OF_COMPARE))))


if __name__ == "__main__":
    main()
