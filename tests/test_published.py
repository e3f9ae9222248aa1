"""The recipes that claim a paper's settings have them, field by field, and they run.

The numbers are the papers' own: of DDPM (arXiv 2006.11239) those of sections 3 and 4 and of
appendix B, of EDM (arXiv 2206.00364) those of tables 1 and 2 and of appendix F. What DDPM's paper
leaves open (one head, the larger variance, no ramp of the average) is that of the authors' code.
"""

from __future__ import annotations

import hashlib
import json
import operator
import pickle
from functools import reduce
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_spaces import made_inception
from torchvision.datasets import CIFAR10
from toys import Untracked

from fw.core.execution.local import run_here
from fw.core.execution.place import Place
from fw.core.plan.assembly import plan
from fw.core.recipe.arm import Arm
from fw.core.recipe.loading import load
from fw.core.recipe.model import Recipe
from fw.core.store.store import Store

DDPM = {
    "model.name": "unet",
    "model.channels": (128, 256, 256, 256),
    "model.layers": 2,
    "model.attention": (1,),  # at 16x16
    "model.heads": 1,
    "model.groups": 32,
    "model.dropout": 0.1,
    "model.init": "ddpm",
    "process.name": "ddpm",
    "process.prediction": "eps",
    "process.schedule": "linear",
    "process.timesteps": 1000,
    "train.steps": 800_000,
    "train.batch": 128,
    "train.optimizer": "adam",
    "train.betas": (0.9, 0.999),
    "train.lr": 2e-4,
    "train.schedule": "constant",
    "train.warmup": 5000,
    "train.weight_decay": 0,
    "train.clip": 1,
    "train.ema": 0.9999,
    "train.ema_halflife": None,
    "train.ema_ramp": False,
    "train.flip": True,
    "train.augment": None,
    "sampler.name": "ddpm",
    "sampler.nfe": 1000,
    "sampler.schedule": "vp",
    "sampler.variance": "large",
    "sampler.clip": 1,
}
EDM = {
    "model.name": "ddpmpp",
    "model.width": 128,
    "model.multipliers": (2, 2, 2),
    "model.layers": 4,
    "model.attention": (1,),  # at 16x16
    "model.dropout": 0.13,
    "model.augmentation_size": 9,
    "process.name": "edm",
    "process.sigma_data": 0.5,
    "process.p_mean": -1.2,
    "process.p_std": 1.2,
    "train.batch": 512,
    "train.optimizer": "adam",
    "train.betas": (0.9, 0.999),
    "train.lr": 10e-4,
    "train.schedule": "constant",
    "train.weight_decay": 0,
    "train.clip": None,
    "train.ema": None,
    "train.ema_halflife": 0.5e6,
    "train.ema_ramp": True,
    "train.flip": False,
    "train.augment": 0.12,
    "sampler.name": "heun",
    "sampler.steps": 18,
    "sampler.nfe": 35,
    "sampler.schedule": "karras",  # rho 7
    "sampler.sigma_min": 0.002,
    "sampler.sigma_max": 80,
    "sampler.order": 2,
    "sampler.churn": 0,
    "sampler.clip": None,
}
PUBLISHED = {"ddpm_cifar10": DDPM, "edm_cifar10": EDM}


def path_of(name: str) -> Path:
    return Path(str(files("fw.recipes") / f"{name}.yaml"))


def baseline(name: str) -> Arm:
    recipe = load(path_of(name))
    assert recipe.baseline == "unconditional"
    return recipe.arm(recipe.baseline)


def value(arm: Arm, field: str) -> Any:
    return reduce(getattr, field.split("."), arm)


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name, table in PUBLISHED.items() for field in table]
)
def test_a_published_setting_is_the_papers(name: str, field: str) -> None:
    assert value(baseline(name), field) == PUBLISHED[name][field]


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_setting_of_the_training_is_left_to_a_default_that_may_change(name: str) -> None:
    """Beside those of the paper, three have to do with conditions or with the length, and the
    others with what a GPU does faster or can hold, with what is kept, or with another training."""
    recipe = load(path_of(name))
    apart = {"steps", "warmup", "cond_drop"}
    apart |= {"precision", "accumulate", "compile", "checkpointing", "snapshots", "averages"}
    apart |= {"start", "keep"}
    listed = {field.removeprefix("train.") for field in PUBLISHED[name] if "train" in field}
    assert listed | apart == set(type(recipe.train).model_fields)


@pytest.mark.parametrize(
    ("name", "images", "rise"), [("ddpm_cifar10", 102.4e6, 0.64e6), ("edm_cifar10", 200e6, 10e6)]
)
def test_the_learning_rate_rises_and_the_training_ends_after_the_papers_number_of_images(
    name: str, images: float, rise: float
) -> None:
    train = baseline(name).train
    assert train.steps * train.batch == images
    assert abs(train.warmup * train.batch - rise) < train.batch


@pytest.mark.parametrize(
    ("name", "millions", "weights"),
    [("ddpm_cifar10", 35.7, 35_746_307), ("edm_cifar10", 55.7, 55_733_891)],
)
def test_the_network_has_as_many_weights_as_the_paper_says(
    name: str, millions: float, weights: int
) -> None:
    """And exactly as many as the authors' networks."""
    recipe = load(path_of(name))
    with torch.device("meta"):
        network = baseline(name).model.build(recipe.dataset.shape, None)
    count = sum(weight.numel() for weight in network.parameters())
    assert count == weights
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize(("name", "fid"), [("ddpm_cifar10", "3.17"), ("edm_cifar10", "1.97")])
def test_the_header_says_the_papers_fid_and_that_it_is_not_ours(name: str, fid: str) -> None:
    text = path_of(name).read_text(encoding="utf-8")
    header = " ".join(text.partition("\nfw: 1\n")[0].replace("\n# ", " ").split())
    assert f"FID there is {fid}" in header
    assert "against the training images" in header
    assert "fw has not run it" in header


def test_every_arm_of_a_published_recipe_has_the_papers_training() -> None:
    for name in PUBLISHED:
        recipe = load(path_of(name))
        arms = [recipe.arm(arm) for arm in recipe.arms]
        parts = operator.attrgetter("model", "process", "train", "sampler")
        assert all(parts(arm) == parts(recipe.arm("unconditional")) for arm in arms)
        assert {"self_1.0", "self_1.5"} <= recipe.arms.keys()


# Running

SMALL = {
    "encoder": ("steps=2", "batch=8", "warmup=1", "local_views=1", "hidden=16", "bottleneck=8"),
    "annotator": ("clusters=3",),
    "train": ("steps=3", "batch=8", "warmup=1"),
    "sampler": ("steps=2",),
    "samples": ("count=4", "seeds=1"),
}
SMALL_MODELS = {
    "ddpm_cifar10": ("channels=[8, 16]", "layers=1", "groups=4"),
    "edm_cifar10": ("width=8", "layers=1", "multipliers=[1, 1]"),
}


def made_cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random images in the format of the real files, which are then taken for those."""
    draw = np.random.default_rng(0)
    base = folder / CIFAR10.base_folder
    base.mkdir()

    def made(name: str, content: dict[str, Any]) -> list[str]:
        data = pickle.dumps(content)
        (base / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(name: str) -> list[str]:
        images = draw.integers(0, 256, (5, 3 * 32 * 32), dtype=np.uint8)
        return made(name, {"data": images, "labels": list(range(5))})

    for split in ("train_list", "test_list"):
        entries = [batch(name) for name, _ in getattr(CIFAR10, split)]
        monkeypatch.setattr(CIFAR10, split, entries)
    name, digest = made("batches.meta", {"label_names": [str(label) for label in range(10)]})
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "filename": name, "md5": digest})
    return folder


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The space of Inception with random weights, as a recipe names it."""
    path = made_inception(tmp_path_factory.mktemp("weights"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{{name: inception, weights: {path}, sha256: {digest}}}"


def shrunk(name: str, data: Path, inception: str) -> Recipe:
    """The recipe at a small scale, with an arm without conditions and one with guidance."""
    sizes = {**SMALL, "model": SMALL_MODELS[name]}
    recipe = load(
        path_of(name),
        [
            *(f"{section}.{each}" for section, entries in sizes.items() for each in entries),
            f"dataset.root={data}",
            f"metrics={{name: fid, space: {inception}}}",
            "tracker=null",
            "arms.permuted_1.25.annotator.of.clusters=3",
        ],
    )
    arms = {arm: recipe.arms[arm] for arm in ("unconditional", "self_1.5")}
    return recipe.model_copy(update={"arms": arms})


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_runs_on_a_small_scale(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inception: str
) -> None:
    recipe = shrunk(name, made_cifar10(tmp_path, monkeypatch), inception)
    store = Store(tmp_path / "store")
    store.create()

    class Listener(Untracked):
        """Hears nothing."""

        def __getattr__(self, name: str) -> object:
            return lambda *words: None

    planned = plan(recipe)
    place = Place(store.root, "cpu", 1, 20)
    outcome = run_here(planned, (), place, Listener(), lambda: False)
    assert outcome.failed == {}
    for arm in planned.arms.values():
        for stage in arm.evaluate:
            scores = json.loads((store.path(stage) / "scores.json").read_text())["scores"]
            assert all(np.isfinite(each).all() for each in scores.values())
