"""What fw does on a GPU, on devices that are simulated: tests/simcuda says how, and what it cannot
see."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from simcuda import built

from fw.registry import installed

pytestmark = [
    pytest.mark.skipif(built.lacking() is not None, reason=str(built.lacking())),
    pytest.mark.timeout(1800),
]


def ran(module: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"simcuda.{module}", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_devices_refuse_and_count_what_gpus_do_and_fw_keeps_its_promises_on_them() -> None:
    done = ran("itself")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("check_") >= 11


def test_components_that_no_shipped_recipe_names_keep_to_what_contracts_say_of_gpus() -> None:
    """The others run in test_simulated_recipes.py; `python -m simcuda.contracts` does all."""
    recipes = (entry for entry in files("fw.recipes").iterdir() if entry.name.endswith(".yaml"))
    named = set(re.findall(r"\w+", " ".join(recipe.read_text() for recipe in recipes)))
    unnamed = sorted({name for _, name in installed().providers} - named)
    assert {"simclr", "swav", "repfusion_policy", "ddim"} <= set(unnamed)
    done = ran("contracts", *unnamed)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert {"encoder simclr: ok", "sampler ddim: ok"} <= set(done.stdout.splitlines())
