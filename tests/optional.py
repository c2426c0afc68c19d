"""Packages that some tests compare with, and commands that they call: what is missing is skipped, but not in CI."""

import importlib
import os
import shutil

import pytest


def needed(name):
    """The module; where it is not installed the test file is skipped, but not in CI (CI=true)."""
    return importlib.import_module(name) if os.environ.get("CI") == "true" else pytest.importorskip(name)


def needed_command(name):
    """The command's name; where it is not installed the test is skipped, but not in CI (CI=true)."""
    if shutil.which(name) is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{name} is not installed")
    return name
