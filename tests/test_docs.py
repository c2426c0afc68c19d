"""README and docs/: their code runs, their links lead somewhere, the reference is complete. The examples run."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pages
import pytest
from optional import needed_command
from pages import ROOT

import fastnn as fn
from fastnn import _core


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")  # scikit-learn: there could be more epochs
@pytest.mark.parametrize("page", [page for page in pages.PAGES if pages.blocks(page)])
def test_code_of_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done, missing = pages.run(page)
    for block in done:
        if block.output is not None:
            assert comparable(block.printed) == comparable(block.output), f"{page}, line {block.line}"
    build_programs(page)
    if missing & pages.IN_CI and os.environ.get("CI") == "true":
        pytest.fail(f"not installed: {missing & pages.IN_CI}")
    if missing:
        pytest.skip(f"{len(done)} of {len(pages.blocks(page))} blocks of {page} ran; not installed: {missing}")


def comparable(printed):
    """Lines; words where fused multiply-adds are missing, so that numbers and their widths differ."""
    if _core.isa_name() == "baseline":
        return re.sub(r"-+|[-+]?\d[\d.,]*(e[-+]\d+)?", "#", printed).split()
    return [line.rstrip() for line in printed.strip().splitlines()]


def build_programs(page):
    """Compile and run the whole programs in C of a page, beside the sources that its Python blocks have written."""
    for program in re.findall(r"^```c\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE):
        if "int main(" in program:
            Path("program.c").write_text(program)
            sources = re.findall(r'#include "(\w+)\.h"', program)
            compiler = needed_command(os.environ.get("CC", "cc"))
            strict = ["-std=c99", "-Wall", "-Wextra", "-Werror"]
            subprocess.run(
                [compiler, *strict, "program.c", *[f"{name}.c" for name in sources], "-o", "program"], check=True
            )
            subprocess.run(["./program"], check=True, stdout=subprocess.DEVNULL)


def test_blocks_are_found_and_compared():
    assert len(pages.blocks("README.md")) >= 3
    assert sum(block.output is not None for block in pages.blocks("docs/tutorial.md")) >= 5
    assert comparable("a 1\n") != comparable("b 1\n")


@pytest.mark.parametrize("page", [*pages.PAGES, "ARCHITECTURE.md", "CONTRIBUTING.md", "examples/c/README.md"])
def test_links_lead_somewhere(page):
    text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)#: ]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"


@pytest.mark.parametrize(
    "page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/index.md", "docs/interchange.md"]
)
def test_the_readme_leads_to(page):
    assert f"({page})" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_page_is_in_the_tree():
    """Sphinx warns too, but `make docs` is not part of `make test`."""
    listed = {"docs/index.md"}
    for page in pages.PAGES:
        for tree in re.findall(r"^```{toctree}\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE):
            entries = [line for line in tree.split() if not line.startswith(":")]
            folder = (ROOT / page).parent.relative_to(ROOT)
            listed |= {(folder / f"{entry}.md").as_posix() for entry in entries}
    assert {page for page in pages.PAGES if page.startswith("docs/")} <= listed


def documented():
    """Objects that the pages of the reference show."""
    found = []
    for page in sorted((ROOT / "docs/reference").glob("*.md")):
        module = None
        for kind, name, members in re.findall(
            r"^\.\. (currentmodule|auto\w+):: (\S+)\n(?:   :members:([^\n]*)\n)?", page.read_text(), re.MULTILINE
        ):
            if kind == "currentmodule":
                module = importlib.import_module(name)
            elif kind == "automodule":
                shown = importlib.import_module(name)
                found.append(shown)
                found += [getattr(shown, member) for member in (members.replace(",", " ").split() or shown.__all__)]
            else:
                found.append(getattr(module, name))
    return found


def test_the_reference_has_every_public_name():
    shown = documented()
    assert [name for name in fn.__all__ if not any(getattr(fn, name) is one for one in shown)] == []


EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def test_there_are_five_examples():
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(name, tmp_path):
    source = (ROOT / "examples" / name).read_text(encoding="utf-8")
    assert source.startswith('"""')
    assert source.count("\n") < 80
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
