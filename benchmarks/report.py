"""results.json -> results.md and charts, in the same folder."""

from pathlib import Path

from . import goals, sections
from .markdown import table
from .results import Results

HEADINGS = ["", "goal", "median", "best", "beside", ""]


def write(results: Results, folder: Path) -> Path:
    """Returns the Markdown file."""
    path = folder / "results.md"
    path.write_text("\n".join(lines(results, folder)).rstrip() + "\n", encoding="utf-8")
    return path


def lines(results: Results, folder: Path) -> list[str]:
    found = goals.rows(results)
    met = sum(row[-1] == "met" for row in found)
    judged = sum(row[-1] != "not measured" for row in found)
    text = [
        "# Benchmark results",
        "",
        "Times hold for this machine in this hour; ratios are of medians of interleaved rounds, with their quartiles.",
        "",
        "## Goals",
        "",
        f"{met} of {judged} that were measured are met, by the median.",
        "",
        *table(HEADINGS, found),
        *charts(results, folder),
    ]
    for name in sections.SECTIONS:
        if results.of(name) or name in results.facts:
            section = sections.load(name)
            text += [f"## {section.TITLE}", "", *section.report(results)]
    return text


def charts(results: Results, folder: Path) -> list[str]:
    try:
        from . import charts
    except ModuleNotFoundError as error:
        return [f"No charts: {error.name} is not installed.", ""]
    drawn = [f"![{title}]({name})" for title, name in charts.draw(results, folder).items()]
    return ["## Charts", "", *(line for image in drawn for line in (image, ""))] if drawn else []
