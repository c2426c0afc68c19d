"""What is asked: one module per section with

TITLE
run(suite)          measure, into suite.results
report(results)     Markdown lines of what was found
"""

import importlib
from types import ModuleType

# In the order of a run: what disturbs and what takes long comes last.
SECTIONS = (
    "machine",
    "products",
    "kernels",
    "steps",
    "predict",
    "scaling",
    "many",
    "busy",
    "footprint",
    "grid",
    "accuracy",
)


def load(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
