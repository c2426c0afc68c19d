"""One process that times one engine: reads commands as JSON lines, answers each with one JSON line.

Started by `runner` as `python -P -m benchmarks.worker '{"engine": ..., "threads": ..., "cores": [...]}'`.
"""

import contextlib
import json
import os
import resource
import sys
import time
from typing import Any

LONGEST_CALIBRATION = 6  # attempts at the number of steps of a block
LEAST_STEPS = 8  # of a block, however long they take: an engine may have work to do before its first step


class Worker:
    """Answers `prepare`, `round`, `learn`, `usage` and `state`."""

    def __init__(self, engine: str, threads: int) -> None:
        from benchmarks import engines

        self.threads = threads
        self.module = engines.load(engine)
        self.run: Any = None
        self.steps = 1

    def prepare(self, kind: str, name: str, dtype: str, block: float) -> dict[str, Any]:
        """Build and warm up; a block then takes about `block` seconds (0: one step)."""
        from benchmarks import engines, workloads

        if not hasattr(self.module, kind):
            raise engines.UnsupportedError(f"has no {kind}.")
        self.run = None  # the old work's memory goes first
        work = workloads.BY_NAME.get(name, name)
        if kind == "training":
            data = work.data(dtype)
            self.run, _ = self.module.training(work, data, workloads.LEARNING_RATE, self.threads, 0)
        else:
            self.run = getattr(self.module, kind)(work, self.threads, dtype)
        self.run(1)
        self.steps = 1
        for _ in range(LONGEST_CALIBRATION):
            taken = min(self._time() for _ in range(3))  # a call that was interrupted says nothing
            if taken >= block / 2:
                break
            # Of short blocks most is the call around them: approached in several strides.
            self.steps *= max(2, min(16, int(block / taken)))
        if kind == "training" and block > 0:
            self.steps = max(self.steps, LEAST_STEPS)
        return {"steps": self.steps}

    def _time(self) -> float:
        start = time.perf_counter()
        self.run(self.steps)
        return time.perf_counter() - start

    def round(self, seconds: float) -> dict[str, Any]:
        """Seconds per step, one sample per block."""
        self._time()  # what ran in between has emptied the caches
        samples, end = [], time.perf_counter() + seconds
        while not samples or time.perf_counter() < end:
            samples.append(self._time() / self.steps)
        return {"samples": samples}

    def learn(self, task: str, folder: str, seed: int) -> dict[str, Any]:
        """Train until the test accuracy is reached: epochs and evaluations count, reading the data does not."""
        from benchmarks import learning

        return learning.learn(self.module.training, learning.TASKS[task], folder, self.threads, seed)

    def usage(self, steps: int) -> dict[str, Any]:
        """Page faults and allocations of `steps` steps beyond those of one call; the process's largest memory.

        A call as long as the longest comes first: what it takes from the system stays with the process.
        """

        def counts() -> tuple[int, int]:
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            return faults, self.state().get("allocations", 0)

        readings = []
        for call_steps in (2 * steps, steps, 2 * steps):
            before = counts()
            self.run(call_steps)
            readings.append([after - start for start, after in zip(before, counts(), strict=True)])
        faults, allocations = (longer - shorter for shorter, longer in zip(readings[1], readings[2], strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"page_faults": faults / steps, "allocations": allocations / steps, "peak_megabytes": peak / 1024}

    def state(self) -> dict[str, Any]:
        found = dict(getattr(self.module, "state", dict)())
        with contextlib.suppress(ImportError):
            import threadpoolctl

            found["thread_pools"] = [
                {key: pool.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
                for pool in threadpoolctl.threadpool_info()
            ]
        return found


def answer(worker: Worker, command: dict[str, Any]) -> dict[str, Any]:
    from benchmarks import engines

    try:
        return getattr(worker, command.pop("do"))(**command)
    except engines.UnsupportedError as error:
        return {"unsupported": str(error)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    options = json.loads(sys.argv[1])
    os.sched_setaffinity(0, options.pop("cores"))  # before anything counts the processors
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    try:
        worker, first = Worker(**options), {"ready": True}
    except ModuleNotFoundError as error:
        worker, first = None, {"unsupported": f"{error.name} is not installed."}
    print(json.dumps(first), file=answers, flush=True)
    if worker is not None:
        for line in sys.stdin:
            print(json.dumps(answer(worker, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
