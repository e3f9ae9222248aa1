"""What fw does on a GPU, on devices that are simulated: tests/simcuda says how, and what it cannot
see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from simcuda import built

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


def test_built_in_components_keep_to_what_their_contracts_say_of_gpus() -> None:
    done = ran("contracts")
    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count(": ok\n") >= 60
