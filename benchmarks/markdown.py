"""Tables and numbers as the report writes them."""

from collections.abc import Callable, Iterable, Sequence

from .results import Results, Subject
from .summary import Ratio, Summary

MISSING = "-"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    line = "|" + "|".join([" --- ", *([" ---: "] * (len(headings) - 1))]) + "|"
    return [f"| {' | '.join(headings)} |", line, *(f"| {' | '.join(row)} |" for row in rows), ""]


def microseconds(seconds: float) -> str:
    value = seconds * 1e6
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times(summary: Summary | None) -> str:
    """Best / median in microseconds."""
    return MISSING if summary is None else f"{microseconds(summary.best)} / {microseconds(summary.median)}"


def factor(ratio: Ratio | None) -> str:
    """Median over the rounds and its quartiles."""
    return MISSING if ratio is None else f"{ratio.median:.2f}x ({ratio.low:.2f}-{ratio.high:.2f})"


def share(ratio: Ratio | None) -> str:
    return MISSING if ratio is None else f"{ratio.median:.0%}"


def times_table(
    results: Results,
    section: str,
    subjects: Sequence[Subject],
    extra: dict[str, Callable[[str], str]] | None = None,
) -> list[str]:
    """Best / median per case and subject; who was never measured has no column. `extra`: further columns."""
    cases = results.cases(section)
    shown = [s for s in subjects if any(results.rounds(section, case, s) for case in cases)]
    extra = extra or {}
    rows = [
        [case, *(times(results.summary(section, case, s)) for s in shown), *(column(case) for column in extra.values())]
        for case in cases
    ]
    return table([section, *(s.label for s in shown), *extra], rows)


def missing_notes(results: Results, section: str) -> list[str]:
    """One line per sentence that says why something was not measured."""
    by_sentence: dict[str, list[str]] = {}
    for measurement in results.of(section):
        if measurement.missing:
            sentence = f"{measurement.subject.label}: {measurement.missing}"
            by_sentence.setdefault(sentence, []).append(measurement.case)
    total = len(results.cases(section))
    notes = []
    for sentence, cases in by_sentence.items():
        where = "" if len(set(cases)) == total else f" ({', '.join(dict.fromkeys(cases))})"
        notes.append(f"- {sentence}{where}")
    return [*notes, ""] if notes else []
