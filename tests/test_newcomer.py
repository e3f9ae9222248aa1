"""What a newcomer does in the first days, each in one command: an own mode of guidance and an own
metric in one file, two recipes compared, and the runs folder moved elsewhere.

An own folder with classes and an own module are the tutorials', which tests/test_docs.py follows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sites import fw

OWN = '''
from fw.core.kinds import Encoder, Guidance, Metric
from fw.registry import hookimpl

class Dim(Guidance):
    """Worse is half of the prediction."""
    name = "dim"
    evaluations = 0

    def worse(self, model, x, sigma, condition, good):
        return good / 2

class Brightness(Metric):
    """How much darker or brighter samples are than training images, on the scale -1 to 1."""
    name = "brightness"
    space: Encoder = "pixels"
    keys = property(lambda self: {"brightness": "lower"})

    def prepare(self, reference):
        return reference.train.mean()

    def compare(self, prepared, fake, wanted=None):
        return {"brightness": float((fake.mean() - prepared).abs())}

@hookimpl
def fw_components():
    return [Dim, Brightness]
'''
RECIPE = """
fw: 1
name: mine
dataset: digits
model: {name: unet, channels: [8, 16], groups: 4}
process: flow
train: {steps: 4, batch: 16, warmup: 1}
sampler: {name: dpmpp, steps: 3}
samples: {count: 20, seeds: 3}
metrics: brightness
baseline: plain
arms: {plain: {}, dimmed: {guidance: {name: dim, scale: 1.5}}}
"""


def done(*words: str | Path) -> str:
    """What a command says that ends well."""
    answer = fw(*words)
    assert answer.code == 0, answer.err
    return answer.out


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two recipes that were run with the components of one file, `own.py`."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "own.py").write_text("FW_API = 2\n" + OWN)
    for name, recipe in (("mine", RECIPE), ("longer", RECIPE.replace("steps: 4", "steps: 8"))):
        file = folder / f"{name}.yaml"
        file.write_text(recipe.replace("name: mine", f"name: {name}"))
        run(folder, file)
    return folder


def run(folder: Path, recipe: Path, runs: str = "runs") -> str:
    plugin = folder / "own.py"
    return done("run", recipe, "--plugin", plugin, "--out", folder / runs, "--jobs", "1")


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text("utf-8"))


def test_a_mode_of_guidance_and_a_metric_of_ones_own_are_in_the_table(place: Path) -> None:
    arms = result(place / "runs/mine/latest")["arms"]
    plain, dimmed = (arms[name]["metrics"]["brightness"]["values"] for name in ("plain", "dimmed"))
    assert plain != dimmed
    assert arms["plain"]["train_key"] == arms["dimmed"]["train_key"]
    assert len(OWN.strip().splitlines()) <= 30


def test_two_recipes_are_compared_side_by_side(place: Path) -> None:
    shown = done("compare", place / "runs/mine/latest", place / "runs/longer/latest")
    assert all(word in shown for word in ("[1]", "[2]", "mine", "longer", "dimmed", "brightness"))


def test_a_runs_folder_that_was_moved_is_read_drawn_from_checked_and_continued(place: Path) -> None:
    own = ("--plugin", place / "own.py")
    before = done("compare", place / "runs/mine/latest")
    done(
        "sample",
        place / "runs/mine/latest",
        "--arm",
        "dimmed",
        "-n",
        "4",
        "-o",
        place / "a.png",
        *own,
    )

    (place / "runs").rename(place / "elsewhere")
    moved = place / "elsewhere/mine/latest"
    assert done("compare", moved) == before
    done("sample", moved, "--arm", "dimmed", "-n", "4", "-o", place / "b.png", *own)
    assert (place / "b.png").read_bytes() == (place / "a.png").read_bytes()
    done("verify", moved)
    done("reproduce", moved)
    first = result(moved)
    answer = fw("run", place / "mine.yaml", *own, "--out", place / "elsewhere", "--jobs", "1")
    assert answer.code == 0
    assert "start" not in answer.err, "there was nothing left to do"
    assert result(moved)["arms"] == first["arms"]
