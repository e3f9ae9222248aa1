"""What nobody reads, and what a terminal cannot show, ends nothing. Real processes, real pipes, a
real locale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sites
from mlflow import MlflowClient

TINY = Path(__file__).parent / "tiny.yaml"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
FW = f"{sys.executable} -m fw.core"

TALKER = """
    from fw.core.machine.streams import sturdy

    sturdy()

    import logging
    import subprocess
    import sys
    from pathlib import Path

    from rich.console import Console

    for number in range(3000):
        print(number, "\\u2193 \\u00b1")
        print(number, "\\u2193", file=sys.stderr)
    Console().print("table \\u2193")
    Console(stderr=True).print("bar \\u2193")
    logging.warning("\\u2193")
    prints = "import sys; print(1); sys.stdout.flush(); print(2, file=sys.stderr)"
    child = [sys.executable, "-c", prints]
    ended = 0 if sys.argv[1] == "alone" else subprocess.run(child).returncode
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(f"all said, {ended}")
"""

BROKEN = {
    "standard error and output to a reader who leaves": ("2>&1 | head -1", "alone"),
    "standard output to a reader who leaves": ("| head -1", "alone"),
    "both closed": (">&- 2>&-", "with a child"),
    "all closed": (">&- 2>&- <&-", "with a child"),
    "standard error closed": ("2>&-", "with a child"),
    "both to a full disk": (">/dev/full 2>/dev/full", "alone"),
}


def bash(line: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """The line in a shell; its code is that of the first command that fails in a pipe."""
    command = ["bash", "-c", f"set -o pipefail; {line}"]
    return subprocess.run(
        command, capture_output=True, env={**os.environ, **variables}, timeout=240, check=False
    )


@pytest.mark.parametrize("how", BROKEN)
def test_a_program_finishes_and_succeeds_whatever_becomes_of_its_output(
    how: str, tmp_path: Path
) -> None:
    redirected, company = BROKEN[how]
    talker = sites.write(tmp_path / "talker.py", TALKER)
    said = bash(f"{sys.executable} {talker} {company.split()[0]} {tmp_path}/end {redirected}")
    assert said.returncode == 0
    assert b"Error" not in said.stderr
    assert b"Exception" not in said.stderr
    assert (tmp_path / "end").read_text(encoding="utf-8") == "all said, 0"


@pytest.mark.parametrize(
    "line", ["--help | head -0", "plugins >/dev/full", "schema | head -0", "recipes >&-"]
)
def test_a_command_whose_answer_nobody_reads_succeeds(line: str) -> None:
    said = bash(f"{FW} {line}")
    assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"")


def test_a_refusal_that_nobody_reads_keeps_its_exit_code() -> None:
    assert bash(f"{FW} validate nowhere.yaml 2>&-").returncode == 2


def test_what_an_ascii_terminal_cannot_show_is_replaced_and_keeps_its_width(tmp_path: Path) -> None:
    talker = sites.write(tmp_path / "talker.py", TALKER)
    said = bash(f"{sys.executable} {talker} alone {tmp_path}/end", **ASCII)
    assert said.returncode == 0
    assert said.stdout.splitlines()[0] == b"0 ? ?"
    assert said.stderr.splitlines()[0] == b"0 ?"
    assert (tmp_path / "end").exists()


def test_the_bytes_of_a_file_name_are_printed_as_they_are() -> None:
    print_name = (
        "from fw.core.machine.streams import sturdy; sturdy(); import sys; print(sys.argv[1])"
    )
    said = bash(f"{sys.executable} -c '{print_name}' na\u00efve", **ASCII)
    assert (said.returncode, said.stdout) == (0, "na\u00efve\n".encode())


CHATTY = '''
    import sys
    from typing import ClassVar

    from fw.core.kinds import Guidance
    from fw.registry import hookimpl


    class Chatty(Guidance):
        """Talks in every worker, and more than a pipe holds."""

        name: ClassVar[str] = "chatty"
        evaluations: ClassVar[int] = 0

        def worse(self, model, x, sigma, condition, good):
            for stream in (sys.stdout, sys.stderr):
                print("\\u2193" * 50_000, file=stream, flush=True)
            return good / 2


    @hookimpl
    def fw_components():
        return [Chatty]
'''


def test_a_run_in_an_ascii_locale_that_nobody_listens_to_is_finished_reported_and_logged(
    tmp_path: Path,
) -> None:
    plugin = sites.write(tmp_path / "chatty.py", CHATTY)
    out = tmp_path / "runs"
    sets = [
        *["train.steps=4", "train.warmup=1", "samples.count=4", "samples.seeds=2"],
        "arms.self_1.5.guidance={name: chatty, scale: 1.5}",
    ]
    words = " ".join(f"--set '{each}'" for each in sets)
    run = f"{FW} run {TINY} {words} --plugin {plugin} --out {out} --jobs 2 --device cpu"
    ended = bash(
        f"{run} 2>&1 >/dev/full | head -1; echo ${{PIPESTATUS[0]}} >{tmp_path}/code", **ASCII
    )
    assert (tmp_path / "code").read_text(encoding="utf-8") == "0\n", ended.stdout
    [folder] = (out / "tiny").glob("seed0-*")
    result = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    means = {name: arm["metrics"]["fd_pca"]["mean"] for name, arm in result["arms"].items()}
    assert len(means) == 3
    assert "fd_pca \u2193" in (folder / "report.md").read_text(encoding="utf-8")
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    logged = sorted(
        run.data.metrics["eval/fd_pca"] for run in runs if "eval/fd_pca" in run.data.metrics
    )
    assert logged == pytest.approx(sorted(means.values()))
    shown = bash(f"{FW} compare {folder}", **ASCII)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert b"fd_pca ?" in shown.stdout
