"""Workers that take turns: one process per engine, rounds interleaved, so that all see the same machine."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

from .native import ROOT
from .results import Measurement, Results, Subject

LONGEST_ANSWER = 1200  # seconds; compiling a training step takes a minute
PAUSE = 0.1  # seconds before a turn: OpenBLAS lets its threads spin for some 40 ms after the last product
# Some machines set these for an old OpenBLAS; a current one knows better.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "FASTNN_NUM_THREADS")
# Ends with whoever started it, however that one ends.
HOG = """
import os, sys
parent = os.getppid()
os.sched_setaffinity(0, [int(sys.argv[1])])
print(flush=True)
while os.getppid() == parent:
    for _ in range(100_000):
        pass
"""


class Worker:
    """The parent's end of one `worker` process."""

    def __init__(self, subject: Subject, cores: Sequence[int]) -> None:
        self.subject = subject
        environment = {name: value for name, value in os.environ.items() if name not in UNSET}
        environment |= dict.fromkeys(THREADS, str(subject.threads))
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [subject.build, str(ROOT)]))
        if subject.isa:
            environment["FASTNN_ISA"] = subject.isa
        options = {"engine": subject.engine, "threads": subject.threads, "cores": list(cores)}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "benchmarks.worker", json.dumps(options)],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BENCH_DEBUG") else subprocess.DEVNULL,
            text=True,
        )
        self.missing = ""
        self._read()
        self.refused = self.missing  # for good: its package is not installed

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer; empty, with `missing` saying why, if there is none."""
        if not self.missing:
            try:
                print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)
            except BrokenPipeError:
                self.missing = "the process ended."
        return {} if self.missing else self._read()

    def _read(self) -> dict[str, Any]:
        if not select.select([self.process.stdout], [], [], LONGEST_ANSWER)[0]:
            self.missing = f"no answer within {LONGEST_ANSWER} s."
        elif not (line := self.process.stdout.readline()):
            self.missing = f"the process ended with status {self.process.wait()}."
        else:
            answer = json.loads(line)
            self.missing = answer.get("unsupported") or answer.get("error") or ""
            return {} if self.missing else answer
        return {}

    def close(self) -> None:
        with suppress(BrokenPipeError):  # it is gone already
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@contextmanager
def busy_process(core: int) -> Iterator[None]:
    """Another process holds this core."""
    with subprocess.Popen([sys.executable, "-c", HOG, str(core)], stdout=subprocess.PIPE) as hog:
        try:
            hog.stdout.readline()
            yield
        finally:
            hog.kill()


@dataclass
class Suite:
    """The options of a run and what it has found so far."""

    rounds: int = 7
    seconds: float = 0.25  # of each turn
    block: float = 0.02  # seconds per sample: a call of scikit-learn costs 1 ms before its first step
    cores: list[int] = field(default_factory=lambda: sorted(os.sched_getaffinity(0), reverse=True))
    engines: Sequence[str] = ()  # those to measure; empty: all
    works: Sequence[str] = ()  # names of workloads; empty: all
    data: str = ""  # folder with mnist.npz and covtype.npz
    quick: bool = False
    results: Results = field(default_factory=Results)

    @property
    def thread_counts(self) -> list[int]:
        """1, 2, 4, ... and the number of cores."""
        n = len(self.cores)
        return sorted({min(2**i, n) for i in range(n.bit_length() + 1)})

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def chosen_works(self, works: Sequence[Any]) -> list[Any]:
        return [work for work in works if not self.works or work.name in self.works]

    @contextmanager
    def workers(self, subjects: Sequence[Subject]) -> Iterator[list[Worker]]:
        """A process for each subject that was asked for; the first cores are theirs."""
        with ExitStack() as open_workers:
            found = []
            for subject in subjects:
                if self.engines and subject.engine not in (*self.engines, "floor"):
                    continue
                worker = Worker(subject, self.cores[: subject.threads])
                open_workers.callback(worker.close)
                found.append(worker)
            yield found

    def measure(
        self,
        section: str,
        case: str,
        workers: Sequence[Worker],
        kind: str,
        name: str,
        block: float | None = None,
        seconds: float = 1,
    ) -> None:
        """Times per step or call of `name`, one turn per worker and round; `seconds` multiplies the Suite's."""
        block = self.block if block is None else block
        measurements = []
        for worker in workers:
            worker.missing = worker.refused  # another case may suit it
            worker.ask("prepare", kind=kind, name=name, dtype=worker.subject.dtype, block=block)
            measurements.append(Measurement(section, case, worker.subject, missing=worker.missing))
        self.results.measurements += measurements
        for _ in range(self.rounds):
            for worker, measurement in zip(workers, measurements, strict=True):
                if measurement.missing:
                    continue
                time.sleep(PAUSE)
                hog = busy_process(self.cores[worker.subject.threads - 1]) if worker.subject.busy else nullcontext()
                with hog:
                    samples = worker.ask("round", seconds=seconds * self.seconds).get("samples")
                if samples is None:
                    measurement.missing, measurement.rounds = worker.missing, []
                else:
                    measurement.rounds.append(samples)
        for worker in workers:
            key = worker.subject.engine
            if key not in self.results.stamp.setdefault("engines", {}) and not worker.missing:
                self.results.stamp["engines"][key] = worker.ask("state")
        self._tell(section, case, measurements)

    def _tell(self, section: str, case: str, measurements: Sequence[Measurement]) -> None:
        for measurement in measurements:
            summary = self.results.summary(section, case, measurement.subject)
            text = f"{summary.median * 1e6:12.2f} us" if summary else f"  -  {measurement.missing}"
            self.say(f"{section:9} {case:34} {measurement.subject.label:42} {text}")
