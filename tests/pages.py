"""The Python blocks of Markdown pages, run as they stand, one after the other in one namespace.

A ``text`` block right after a Python block is what that prints. An HTML comment that begins with ``<!-- python`` is a
block that readers do not see. A block that uses an optional package is left out where that is not installed.

As a program, ``python tests/pages.py PAGE`` runs a page in the present folder, where its pictures then are;
``python tests/pages.py --update PAGE`` writes what its blocks print into the page.
"""

import contextlib
import importlib.util
import io
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]

# What [test] and [plot] install is there in CI; the others are for those who have them.
IN_CI = {"matplotlib", "onnx", "pandas", "sklearn"}
ELSEWHERE = {"keras", "torch"}

FENCE = r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$"
HIDDEN = r"^<!-- python\n(?P<hidden>.*?)^-->$"
BLOCK = re.compile(f"{FENCE}|{HIDDEN}", re.DOTALL | re.MULTILINE)


@dataclass
class Block:
    """A Python block.

    Attributes
    ----------
    line : int
        Of its first line of code in the page, counted from 1.
    output : str or None
        What it must print.
    place : slice or None
        Of that in the text of the page.
    printed : str
        What it did print.
    """

    code: str
    line: int
    output: str | None = None
    place: slice | None = None
    printed: str = ""

    def missing(self) -> set[str]:
        """Optional packages that it needs and that are not installed."""
        used = set(re.findall(r"^\s*(?:import|from) (\w+)|(?<!\.)\b(\w+)\.\w", self.code, re.MULTILINE))
        names = {name for pair in used for name in pair}
        if re.search(r"\.plot\b", self.code):
            names.add("matplotlib")
        return {name for name in names & (IN_CI | ELSEWHERE) if importlib.util.find_spec(name) is None}


def blocks(page: str) -> list[Block]:
    """Of a page, named by its path from the top folder."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found: list[Block] = []
    end_of_python = 0
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        if match["hidden"] is not None or match["language"] == "python":
            found.append(Block(match["hidden"] or match["code"], line))
            end_of_python = match.end()
        elif match["language"] == "text" and found and not text[end_of_python : match.start()].strip():
            found[-1].output, found[-1].place = match["code"], slice(*match.span("code"))
    return found


def run(page: str) -> tuple[list[Block], set[str]]:
    """Run a page in the present folder.

    Returns
    -------
    list of Block, set of str
        Those that ran, and the optional packages for want of which others were left out.
    """
    module = ModuleType("page")  # what the page defines finds its module, and no block thinks that it is a program
    sys.modules[module.__name__] = module
    done, missing = [], set()
    for block in blocks(page):
        if absent := block.missing():
            missing |= absent
            continue
        code = "\n" * (block.line - 1) + block.code  # so that tracebacks tell the line of the page
        stream = io.StringIO()
        with contextlib.redirect_stdout(stream):
            exec(compile(code, str(ROOT / page), "exec"), module.__dict__)
        block.printed = stream.getvalue()
        done.append(block)
    return done, missing


def update(page: str) -> None:
    """Write what the blocks print into the page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    done, _ = run(page)
    for block in reversed(done):
        if block.place is not None:
            printed = "".join(line.rstrip() + "\n" for line in block.printed.splitlines())
            text = text[: block.place.start] + printed + text[block.place.stop :]
    (ROOT / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")
    (update if "--update" in sys.argv else run)(sys.argv[-1])
