"""What a run of the suite found: kept as JSON, asked by goals, report and compare."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .engines import ENGINES, PEERS
from .summary import Ratio, Rounds, Summary, ratio, summarise


@dataclass(frozen=True)
class Subject:
    """Who is measured and how; `busy`: while another process holds one of its cores; `isa` "": the best one."""

    engine: str
    threads: int = 1
    dtype: str = "float32"
    isa: str = ""
    busy: bool = False
    build: str = ""  # folder that has the fastnn to time, "" for this one

    @property
    def label(self) -> str:
        parts = [self.build, ENGINES[self.engine], self.isa, self.dtype.replace("float32", "")]
        parts += [f"{self.threads} threads" if self.threads > 1 else "", "beside a busy process" if self.busy else ""]
        return ", ".join(part for part in parts if part)


@dataclass
class Measurement:
    """Seconds per step or call, by rounds; or the sentence that says why there are none."""

    section: str
    case: str
    subject: Subject
    rounds: list[list[float]] = field(default_factory=list)
    missing: str = ""


@dataclass
class Results:
    """`stamp`: machine and versions; `facts`: by section, what is not a time per step."""

    stamp: dict[str, Any] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=None, separators=(",", ":")), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Results":
        kept = json.loads(path.read_text(encoding="utf-8"))
        found = [Measurement(**{**entry, "subject": Subject(**entry["subject"])}) for entry in kept["measurements"]]
        return cls(kept["stamp"], found, kept["facts"])

    def forget(self, section: str, works: list[str]) -> None:
        """Of these workloads; of all where none is named."""
        self.measurements = [
            m for m in self.measurements if m.section != section or (works and not m.case.startswith(tuple(works)))
        ]

    def of(self, section: str, case: str | None = None) -> list[Measurement]:
        return [m for m in self.measurements if m.section == section and case in (None, m.case)]

    def cases(self, section: str) -> list[str]:
        return list(dict.fromkeys(m.case for m in self.of(section)))

    def subjects(self, section: str) -> list[Subject]:
        return list(dict.fromkeys(m.subject for m in self.of(section)))

    def rounds(self, section: str, case: str, subject: Subject) -> Rounds:
        """Those of all its measurements; empty where there are none."""
        return [samples for m in self.of(section, case) if m.subject == subject for samples in m.rounds]

    def summary(self, section: str, case: str, subject: Subject) -> Summary | None:
        rounds = self.rounds(section, case, subject)
        return summarise(rounds) if rounds else None

    def ratio(self, section: str, case: str, numerator: Subject, denominator: Subject) -> Ratio | None:
        """None where one was not measured as often as the other."""
        pair = self.rounds(section, case, numerator), self.rounds(section, case, denominator)
        return ratio(*pair) if pair[0] and len(pair[0]) == len(pair[1]) else None

    def fastest(self, section: str, case: str, subjects: list[Subject]) -> Subject | None:
        """By the median."""
        measured = {subject: s.median for subject in subjects if (s := self.summary(section, case, subject))}
        return min(measured, key=measured.__getitem__, default=None)

    def best_peer(self, section: str, case: str, like: Subject) -> Subject | None:
        """The fastest peer among those measured with the settings of `like`."""
        return self.fastest(section, case, [replace(like, engine=engine) for engine in PEERS])

    def any_threads(self, section: str, case: str, like: Subject) -> Subject | None:
        """The engine of `like` at the number of threads where it is fastest."""
        same = [m.subject for m in self.of(section, case) if replace(m.subject, threads=like.threads) == like]
        return self.fastest(section, case, same)
