"""What is not `fw fetch` opens no connection: run, validate, compare and sample with sockets
forbidden, and no switch of a library set by the user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fw.core.machine import offline

TESTS = Path(__file__).parent
SMOKE = TESTS.parent / "recipes" / "smoke.yaml"

COMMANDS = """
import socket, sys
from fw.core import cli

def fw(*words):
    sys.argv = ["fw", *words]
    try:
        cli.main()
    except SystemExit as ended:
        assert not ended.code, (words, ended.code)

recipe, out, *sets = sys.argv[1:]
fw("run", recipe, *sets, "--out", out, "--jobs", "1")
fw("run", recipe, *sets, "--out", out, "--jobs", "1")
fw("validate", recipe, *sets)
fw("compare", f"{out}/smoke/latest")
fw("sample", f"{out}/smoke/latest", "--arm", "self_1.5", "-n", "4", "-o", f"{out}/grid.png")
fw("register", f"{out}/smoke/latest", "--arm", "self_1.5", "--name", "smoke")
for address in ("127.0.0.1", "localhost"):
    try:
        socket.create_connection((address, 9))
    except OSError as error:
        print(error)
"""


def test_nothing_but_fetch_opens_a_connection(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    switches = {*offline.SWITCHES, "MLFLOW_TRACKING_URI"}
    kept = {name: value for name, value in os.environ.items() if name not in switches}
    sets = ["encoder.steps=5", "train.steps=10", "samples={count: 60, seeds: 2, snapshots: 0}"]
    sets += ["metrics.0.space.steps=10"]
    words = [str(SMOKE), str(tmp_path / "runs"), *(f"--set={each}" for each in sets)]
    ended = subprocess.run(
        [sys.executable, "-c", COMMANDS, *words],
        env={
            **kept,
            "FW_TEST_CONNECTIONS": str(notes),
            "PYTHONPATH": str(TESTS / "silent"),
            "HOME": str(tmp_path),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (tmp_path / "runs" / "grid.png").is_file()
    assert ended.stdout.count("no connection is allowed here") == 2
    watched = [path for path in notes.iterdir() if path.name.startswith("watched-")]
    assert len(watched) >= 2, "the worker processes were not watched"
    tried = (notes / "tried").read_text(encoding="utf-8")
    last = "socket.getaddrinfo 127.0.0.1\n"
    assert tried.startswith(last), tried
    assert sum(line.startswith("socket.") for line in tried.splitlines()) == 2, tried


def test_the_users_own_switches_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "ours", set())
    for name in offline.SWITCHES:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_VERBOSITY"):
        monkeypatch.setenv(name, "0")
    offline.stay_offline()
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    offline.go_online()
    assert "HF_HUB_OFFLINE" not in os.environ
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline.stay_offline()
    offline.go_online()
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_from_python_libraries_are_quiet_too_and_the_users_own_use_of_the_hub_is_not_hindered() -> (
    None
):
    """They read the switches when they are imported, which `fw.core.api` leaves for later."""
    program = f"""
import os, sys
import fw.core.api
print(*(name for name in {offline.SWITCHES!r} if name in os.environ))
print(*(name for name in ("huggingface_hub", "lightly", "mlflow", "ray") if name in sys.modules))
"""
    env = {name: value for name, value in os.environ.items() if name not in offline.SWITCHES}
    said = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert said.stdout.split("\n")[:2] == [" ".join(offline.QUIET), ""]
