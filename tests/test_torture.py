"""The drivers of tests/torture in small: `make torture` runs the same for long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torture import page
from torture.tally import Tally
from torture.undisturbed import Undisturbed, differences

TESTS = Path(__file__).parent

BOUNDED = {
    "recipes": 150,
    "hand": 100,
    "flips": 16,
    "kills": 4,
    "disks": 2,
    "rounds": 3,
    "minutes": 0,
}
"""About a minute of CPU for all of them."""

pytestmark = pytest.mark.timeout(1800)  # of a machine that is busy with other things

DRIVERS = ("recipes", "flips", "kills", "disks", "soak")


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What all drivers counted, in a process of their own because they fork."""
    found = tmp_path_factory.mktemp("torture") / "counts.json"
    words = [f"--{name}={count}" for name, count in BOUNDED.items()]
    done = subprocess.run(
        [sys.executable, "-m", "torture", *words, "--json", found],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert found.exists(), done.stdout + done.stderr
    return json.loads(found.read_text(encoding="utf-8"))


@pytest.mark.skipif(sys.platform != "linux", reason="the drivers read /proc")
@pytest.mark.parametrize("driver", DRIVERS)
def test_nothing_is_lost_or_silently_wrong_when_fw_is_mistreated(counts, driver):
    told = counts[driver]
    assert told["tried"] > 0
    assert {kind: count for kind, count in told["faults"].items() if count} == {}, told["examples"]


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, Undisturbed]:
    """The smallest folder that looks like that of a finished run, and what is expected of it."""
    from torture import undisturbed

    product = tmp_path / "store" / "train-1" / "model.safetensors"
    product.parent.mkdir(parents=True)
    product.write_bytes(b"weights")
    run = tmp_path / "small" / "latest" / "run.json"
    run.parent.mkdir(parents=True)
    run.write_text(json.dumps({"arms": {"a": {"status": "finished", "metrics": {"fd": 1.0}}}}))
    expected = Undisturbed(
        undisturbed.products(tmp_path),
        undisturbed.scores(tmp_path),
        undisturbed.files(tmp_path),
        undisturbed.points(tmp_path),
        undisturbed.artifacts(tmp_path),
        operations=1,
        seconds=1.0,
        bytes=1,
    )
    assert list(differences(expected, tmp_path)) == []
    return tmp_path, expected


@pytest.mark.parametrize(
    ("file", "text", "kind"),
    [
        ("store/train-1/model.safetensors", "weighty", "wrong result"),
        ("store/train-1/train.checkpoint", "left", "litter"),
        ("small/.latest-123", "left", "litter"),
        ("small/latest/run.json", '{"arms": {}}', "wrong result"),
        ("mlartifacts/1/a.png", "twice", "litter"),
    ],
)
def test_the_drivers_notice_what_differs_from_an_undisturbed_run(finished, file, text, kind):
    out, expected = finished
    (out / file).parent.mkdir(parents=True, exist_ok=True)
    (out / file).write_text(text)
    assert kind in {found for found, _ in differences(expected, out)}


def test_the_page_is_written_between_its_marks_and_keeps_its_words(tmp_path):
    place = tmp_path / "reliability.md"
    place.write_text(f"# Words\n\n{page.BEGIN}\nold\n{page.END}\n\nMore words.\n")
    tally = Tally("kills", 7, ("wrong result", "litter"), tried=50)
    summary = {"machine": page.machine(), "kills": tally.summary()}
    page.write(place, summary)
    text = place.read_text()
    assert "| kills | 50 | 0 of wrong result, litter |" in text
    assert "old" not in text
    assert text.startswith("# Words\n\n")
    assert text.endswith("\n\nMore words.\n")
    tally.fault("litter", "a file")
    page.write(place, {**summary, "kills": tally.summary()})
    assert "| kills | 50 | 1: 1 litter |" in place.read_text()
