"""`fw --version`, without importing torch: which fw this is, and what it runs on."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from fw.core.cli.answers import answer


def installed_version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "is not installed"


def show_version(wanted: bool) -> None:
    """Say it and end, if `--version` is there."""
    if wanted:
        answer(f"fw {installed_version('fw')}, in {Path(__file__).parents[2]}")
        answer(f"torch {installed_version('torch')}")
        answer(f"python {platform.python_version()}, {sys.executable}")
        raise typer.Exit
