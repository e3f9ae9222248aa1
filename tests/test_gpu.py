"""What only a GPU shows; run with `make test ARGS="-m gpu"` on a machine that has one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_every_stage_runs_on_cuda_in_bf16(tmp_path: Path, jobs: str) -> None:
    words = ["run", TINY, "--out", tmp_path, "--device", "cuda", "--jobs", jobs]
    words += [
        "--set",
        "train.precision=bf16",
        "--set",
        "encoder={name: dino, steps: 4}",
        "--set",
        "tracker=null",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "fw.core", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "tiny/latest/run.json").read_text())
    assert {arm["status"] for arm in result["arms"].values()} == {"finished"}
    assert all(device.startswith("cuda") for device in result["environment"]["devices"])
