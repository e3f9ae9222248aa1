"""A finished run whose data set has a relative path is read from any folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from sites import fw

from fw.core.api import load

RECIPE = """
fw: 1
name: photos
dataset: {name: image_folder, root: photos, size: 8, channels: 1, held_out: 0.4, class_folders: 2}
encoder: pixels
annotator: labels
model: {name: unet, channels: [8, 16], groups: 4}
process: {name: ddpm}
train: {steps: 4, batch: 8, warmup: 1}
sampler: {name: dpmpp, steps: 3}
samples: {count: 20, seeds: 1}
metrics: [{name: fd, space: {name: pca, dims: 2}}]
tracker: null
baseline: plain
arms:
  plain: {annotator: null}
  told: {}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a run was begun."""
    home = tmp_path_factory.mktemp("home")
    for name, grey in (("circles", 60), ("squares", 200)):
        (home / "photos" / name).mkdir(parents=True)
        for number in range(30):
            image = Image.new("L", (8, 8), grey)
            image.putpixel((number % 8, number // 8), number)
            image.save(home / "photos" / name / f"{number}.png")
    (home / "photos.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        done = fw("run", "photos.yaml", "--out", "runs", "--device", "cpu", "--jobs", 1)
    assert done.code == 0, done.err
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what the run left, whose images stay where they are; the user is elsewhere, in a
    folder that has other images under the same name."""
    shutil.copytree(made / "runs", tmp_path / "copy" / "runs", symlinks=True)
    (tmp_path / "elsewhere" / "photos" / "triangles").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "copy"


def test_what_the_run_has_made_is_read_without_a_word(home: Path) -> None:
    run = home / "runs/photos/latest"
    for words in (
        ("export", run, "--arm", "told", "--to", "images.npz"),
        ("export", run, "--arm", "told", "--to", "model.safetensors"),
        ("sample", run, "--arm", "told", "-n", "2", "-o", "grid.png"),
    ):
        done = fw(*words)
        assert (done.code, done.err) == (0, ""), done.err
    again = fw("reproduce", run)
    assert again.code == 0, again.err
    assert fw("store", home / "runs", "--json").code == 0
    arm = load(run).arm("told")
    assert arm.sample(2, condition="squares").equal(arm.sample(2, condition=1))
    noise = arm.samples()[:2].float()
    assert arm.denoiser(noise, 1.0, "squares").equal(arm.denoiser(noise, 1.0, 1))


def test_images_that_are_gone_are_what_is_said_and_once(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = home / "runs/photos/latest"
    record = json.loads((run / "run.json").read_text())
    record["begun_in"] = str(home / "nowhere")
    (run / "run.json").write_text(json.dumps(record))
    shutil.rmtree("photos")
    done = fw("export", run, "--arm", "told", "--to", "images.npz", "-n", "5", "--seed", "9")
    assert done.code == 0, done.err
    assert done.err.count("what the recipe names as dataset is not here") == 1
    assert "before fw changed" not in done.err
    arm = load(run).arm("told")
    capsys.readouterr()
    assert arm.annotation is not None
    arm.sample(1)
    arm.samples()
    assert arm.denoiser.conditions is not None
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("what the recipe names as dataset is not here") == 1
