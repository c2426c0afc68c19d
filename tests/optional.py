"""Packages that some tests compare with."""

import importlib
import os

import pytest


def needed(name):
    """The module; where it is not installed the test file is skipped, but not in CI (CI=true)."""
    return importlib.import_module(name) if os.environ.get("CI") == "true" else pytest.importorskip(name)
