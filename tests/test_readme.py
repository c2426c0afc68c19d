"""The README's Python blocks run as they stand, one after the other."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_readme_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
    scores = re.search(r"'accuracy': ([0-9.]+)", capsys.readouterr().out)
    assert scores, "the example prints its accuracy"
    assert float(scores[1]) > 0.95


@pytest.mark.parametrize(
    "name", ["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/decisions", "docs/interchange.md"]
)
def test_readme_links_lead_somewhere(name):
    assert f"({name})" in README.read_text(encoding="utf-8")
    assert (README.parent / name).exists()
