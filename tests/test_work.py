"""`fw work` does a recipe's stages beside others on the same store, and leaves the record to
`fw run`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import toys
from sites import Answer, fw, products, site, toy_recipe, write

from fw.core.store.store import LEASES, Store


@pytest.fixture
def recipe(tmp_path: Path) -> Iterator[Path]:
    with site(tmp_path / "site"):
        yield toy_recipe(tmp_path)


def there(out: Path) -> tuple[str | Path, ...]:
    return ("--out", out, "--jobs", "1", "--device", "cpu")


def started(answer: Answer) -> list[str]:
    return [line for line in answer.err.splitlines() if line.startswith("start ")]


def test_work_makes_what_run_makes_and_no_run_and_run_has_only_to_report(
    recipe: Path, tmp_path: Path
) -> None:
    worked = fw("work", recipe, *there(tmp_path / "out"))
    assert worked.code == 0, worked.err
    count = len(started(worked))
    assert worked.out == f"all {count} stages are finished in {tmp_path / 'out/store'}\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["store"]
    assert fw("run", recipe, *there(tmp_path / "alone")).code == 0
    alone = products(tmp_path / "alone")
    for name in [name for name in alone if name.startswith("splits/")]:
        del alone[name]  # what is only reported
    assert products(tmp_path / "out") == alone != {}
    again = fw("work", recipe, *there(tmp_path / "out"))
    assert (again.code, started(again)) == (0, [])
    reported = fw("run", recipe, *there(tmp_path / "out"))
    assert (reported.code, started(reported)) == (0, [])
    arms = json.loads((tmp_path / "out/toy/latest/run.json").read_text())["arms"]
    assert {arm["status"] for arm in arms.values()} == {"finished"}


def test_work_takes_the_keys_and_plugins_of_run(recipe: Path, tmp_path: Path) -> None:
    plugin = write(
        tmp_path / "half.py",
        """
        from typing import ClassVar
        import toys
        from fw.registry import hookimpl

        FW_API = 2

        class Half(toys.Selfish):
            name: ClassVar[str] = "half"

        @hookimpl
        def fw_components():
            return [Half]
        """,
    )
    words = (recipe, "--plugin", plugin, "--set", "arms.half={guidance: {name: half, scale: 2}}")
    worked = fw("work", *words, *there(tmp_path / "out"))
    assert worked.code == 0, worked.err
    assert any("sample half" in line for line in started(worked))
    reported = fw("run", *words, *there(tmp_path / "out"))
    assert (reported.code, started(reported)) == (0, [])


def test_work_says_which_stage_failed_and_does_all_others(recipe: Path, tmp_path: Path) -> None:
    answer = fw(
        "work", recipe, "--set", "arms.broken={annotator: broken}", *there(tmp_path / "out")
    )
    assert answer.code == 1
    assert "annotate broken: ValueError: the wheel came off" in answer.err
    assert "stages that needed it were not tried" in answer.err
    assert "continues from there" in answer.err
    assert answer.out == ""
    assert any("evaluate self_1.5" in line for line in answer.err.splitlines() if "done" in line)


def test_work_refuses_what_run_refuses(recipe: Path, tmp_path: Path) -> None:
    answer = fw("work", recipe, "--set", "train.steps=none", *there(tmp_path / "out"))
    assert answer.code == 2
    assert "train.steps" in answer.err
    assert not (tmp_path / "out").exists()


ALONE = """
import sys
sys.path[:0] = sys.argv[1:3]
from fw.core.cli import main
sys.argv[1:] = sys.argv[3:]
main()
"""


def launch(site_folder: Path, *words: str | Path) -> subprocess.Popen[str]:
    """`fw WORDS` as a process of its own, with the toys installed."""
    paths = (str(site_folder), str(Path(toys.__file__).parent))
    command = [sys.executable, "-c", ALONE, *paths, *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=site_folder
    )


def test_several_works_side_by_side_do_every_stage_once(recipe: Path, tmp_path: Path) -> None:
    words = ("work", recipe, *there(tmp_path / "out"), "--set", "samples.seeds=6")
    both = [launch(tmp_path / "site", *words) for _ in range(2)]
    answers = [(*process.communicate(), process.returncode) for process in both]
    assert [code for _, _, code in answers] == [0, 0], answers
    ends = [line for _, err, _ in answers for line in err.splitlines() if line.startswith("done ")]
    made = [line for line in ends if not line.endswith("(there already)")]
    total = int(answers[0][0].split()[1])
    assert len(set(made)) == len(made) <= total
    assert len(ends) <= 2 * total
    assert not [*(tmp_path / "out/store" / LEASES).iterdir()]
    reported = fw("run", recipe, *there(tmp_path / "out"), "--set", "samples.seeds=6")
    assert (reported.code, started(reported)) == (0, [])


def test_an_interrupt_stops_work_politely(recipe: Path, tmp_path: Path) -> None:
    process = launch(
        tmp_path / "site",
        *("work", recipe, *there(tmp_path / "out")),
        *("--set", "arms={endless: {annotator: endless}}", "--set", "baseline=endless"),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("start  annotate endless"):
            break
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "the same command continues" in err
    [stage] = (tmp_path / "out/store").glob("annotate-*.partial")
    assert Store(tmp_path / "out/store").holder(stage.name.removesuffix(".partial")) is None
