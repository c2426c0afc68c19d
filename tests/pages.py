"""The Python blocks of Markdown pages, run as they stand, one after the other in one namespace.

A ``text`` block right after a Python block is what that prints. An HTML comment that begins with ``<!-- python`` is a block that readers
do not see; ``<!-- python long`` in front says that a page belongs to the long tier. A block that imports an optional
package, or draws with matplotlib, is left out where that is not installed.

As a program, ``python tests/pages.py PAGE`` runs a page in the present folder, where its pictures then are.
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

from fastnn import _core

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
    """

    code: str
    line: int
    output: str | None = None

    def missing(self) -> set[str]:
        """Optional packages that it needs and that are not installed."""
        needed = set(re.findall(r"^\s*(?:import|from) (\w+)", self.code, re.MULTILINE))
        if re.search(r"\.plot\(", self.code):
            needed.add("matplotlib")
        return {name for name in needed & (IN_CI | ELSEWHERE) if importlib.util.find_spec(name) is None}


def blocks(page: str) -> list[Block]:
    """Of a page, named by its path from the top folder."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found: list[Block] = []
    end_of_python = None
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        if match["hidden"] is not None or match["language"] == "python":
            found.append(Block(match["hidden"] or match["code"], line))
            end_of_python = match.end()
        elif match["language"] == "text" and end_of_python is not None:
            if not text[end_of_python : match.start()].strip():
                found[-1].output = match["code"]
    return found


def run(page: str) -> tuple[str, set[str]]:
    """Run a page in the present folder.

    Returns
    -------
    str, set of str
        What it printed, and the optional packages for want of which blocks were left out.

    Raises
    ------
    AssertionError
        A block printed something else than the page says.
    """
    module = ModuleType("page")  # classes of the page find their module, and its name is not __main__
    sys.modules[module.__name__] = module
    printed, missing = "", set()
    for block in blocks(page):
        if absent := block.missing():
            missing |= absent
            continue
        stream = io.StringIO()
        code = "\n" * (block.line - 1) + block.code  # so that tracebacks tell the line of the page
        with contextlib.redirect_stdout(stream):
            exec(compile(code, str(ROOT / page), "exec"), module.__dict__)
        printed += stream.getvalue()
        if block.output is not None:
            compare(stream.getvalue(), block.output, f"{page}, line {block.line}")
    return printed, missing


def compare(printed: str, expected: str, place: str) -> None:
    """AssertionError unless a block printed what the page says; where fused multiply-adds are missing, numbers may differ."""
    shape = (lambda text: re.sub(r"[\d.]+", "#", text)) if _core.isa_name() == "baseline" else str
    lines = [[shape(line.rstrip()) for line in text.strip().splitlines()] for text in (printed, expected)]
    assert lines[0] == lines[1], f"{place}: printed\n{printed}\nbut the page says\n{expected}"


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")
    run(sys.argv[1])
