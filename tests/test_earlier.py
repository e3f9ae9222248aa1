"""Runs of an earlier fw, whose stages had other ids before versions were raised, are still read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sites import fw
from torchvision.io import read_image

from fw.core.stages.annotate import Annotate
from fw.core.stages.encode import Encode
from fw.core.stages.sample import Sample
from fw.core.stages.train import TrainDenoiser

TINY = Path(__file__).parent / "tiny.yaml"
SHRUNK = (
    "tracker=null",
    "train.steps=12",
    "samples={count: 20, seeds: 1}",
    "arms.worse={guidance: {name: autoguidance, scale: 2.0, trained: 0.5}}",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    settings = (word for each in SHRUNK for word in ("--set", each))
    done = fw("run", TINY, "--out", out, "--jobs", "1", *settings)
    assert done.code == 0, done
    return out / "tiny" / "latest"


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in (Encode, Annotate, TrainDenoiser, Sample):
        monkeypatch.setattr(stage, "version", stage.version + 1)


def grid(run: Path, arm: str, path: Path) -> torch.Tensor:
    done = fw("sample", run, "--arm", arm, "-n", "6", "-o", path)
    assert done.code == 0, done
    assert ("before fw changed some of its results" in done.err) == path.name.startswith("raised")
    return read_image(str(path))


@pytest.mark.parametrize("arm", ["unconditional", "self_1.5", "worse"])
def test_a_model_is_sampled_that_was_trained_before_versions_were_raised(
    run: Path, arm: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before = grid(run, arm, tmp_path / "before.png")
    request.getfixturevalue("raised")
    assert torch.equal(grid(run, arm, tmp_path / "raised.png"), before)


@pytest.mark.usefixtures("raised")
def test_a_heat_map_is_made_of_it(run: Path, tmp_path: Path) -> None:
    words = ("-n", "60", "--draws", "1", "--sigmas", "0.1", "-o", tmp_path / "map.png")
    done = fw("heatmap", run, "--arm", "self_1.0", *words)
    assert done.code == 0, done
    assert (tmp_path / "map.png").exists()


@pytest.mark.usefixtures("raised")
def test_without_its_store_a_run_is_not_finished(run: Path, tmp_path: Path) -> None:
    (store := run.resolve().parent.parent / "store").rename(tmp_path / "away")
    try:
        done = fw("sample", run, "--arm", "self_1.0", "-o", tmp_path / "no.png")
    finally:
        (tmp_path / "away").rename(store)
    assert done.code == 2
    assert "is not finished; run the recipe first" in done.err
