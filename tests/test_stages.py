"""What a stage says of itself: how its fields enter its key, what it reads, what it is called."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from made import Made, products
from safetensors.torch import save_file

from fw.core.errors import FwError
from fw.core.job import Job
from fw.core.kinds import Encoder
from fw.core.settings import Samples, Train
from fw.core.stages.base import Products, Stage
from fw.core.stages.data import load_split
from fw.core.stages.encode import Encode, load_features
from fw.core.stages.keys import digest, identity, part, read, unkeyed
from fw.core.stages.sample import Sample, shard_name
from fw.core.stages.train import TrainDenoiser
from fw.plugins.backbones.unet import UNet
from fw.plugins.datasets.digits import Digits
from fw.plugins.encoders.pca import PCA
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.samplers.ddim import DDIM


@dataclass(frozen=True, eq=False)
class Everything(Stage):
    """A field of every sort."""

    kind: ClassVar[str] = "everything"
    files: ClassVar[tuple[str, ...]] = ()

    encoder: Encoder
    first: Stage = read()
    other: Stage | None = read(None, "second")
    several: tuple[Stage | None, ...] = read((), "one")
    renamed: int = part(3, name="before")
    later: int | None = part(None, absent=None)
    sections: tuple[Train, ...] = ()
    whose: str = unkeyed("")

    @property
    def label(self) -> str:
        return self.whose

    def run(self, job: Job, products: Products) -> None:
        raise NotImplementedError


FIRST, SECOND = Made(name="first"), Made(name="second")


def test_components_enter_by_identity_stages_by_id_and_the_rest_as_json() -> None:
    stage = Everything(
        PCA(dims=4), FIRST, SECOND, (None, FIRST), sections=(Train(steps=3),), seed=5
    )
    assert stage.payload == {
        "stage": "everything",
        "version": 1,
        "encoder": PCA(dims=4).identity(),
        "before": 3,
        "sections": [identity(Train(steps=3))],
        "seed": 5,
        "inputs": {"first": FIRST.id, "second": SECOND.id, "one 1": FIRST.id},
    }
    assert stage.key == digest(stage.payload)
    assert stage.id == f"everything-{stage.key}"


def test_what_is_absent_and_what_is_not_keyed_leave_the_key_as_it_is() -> None:
    bare = Everything(PCA(), FIRST)
    assert (
        bare.key == Everything(PCA(), FIRST, None, (), later=None, whose="mine", note="again").key
    )
    assert "later" not in bare.payload
    assert "seed" not in bare.payload
    assert bare.key != Everything(PCA(), FIRST, later=0).key
    assert bare.key != Everything(PCA(), SECOND).key


def test_a_note_ends_the_title_and_changes_nothing_else() -> None:
    stage = Everything(PCA(), FIRST, whose="of x")
    again = dataclasses.replace(stage, note="worse")
    assert (stage.title, again.title) == ("everything of x", "everything of x, worse")
    assert stage.id == again.id


def test_a_stage_reads_its_stages_and_runs_with_the_components_in_its_fields() -> None:
    stage = Everything(PCA(), FIRST, several=(SECOND, None))
    assert list(stage.reads) == [("first", FIRST), ("one 0", SECOND)]
    assert list(stage.components) == [PCA()]


def test_a_stage_goes_to_another_process_and_keeps_its_key() -> None:
    stage = Everything(PCA(), FIRST, several=(SECOND,))
    assert pickle.loads(pickle.dumps(stage)).key == stage.key  # noqa: S301


# The product of a stage as the data of another


def drawn() -> Sample:
    train = TrainDenoiser(Digits(), UNet(), DDPM(), Train(), seed=0)
    samples = Samples(count=3, seeds=2)
    return Sample(Digits(), UNet(), DDPM(), DDIM(), (), samples, "fp32", train, seed=0)


def test_a_stage_can_work_on_what_another_has_made_and_is_keyed_by_it() -> None:
    on_samples, on_digits = Encode(drawn(), PCA(), seed=0), Encode(Digits(), PCA(), seed=0)
    assert on_samples.inputs == {"dataset": drawn().id}
    assert "dataset" not in on_samples.payload
    assert on_digits.inputs == {}
    assert on_samples.key != on_digits.key


def test_samples_are_training_images_seed_after_seed_and_there_are_no_others(
    tmp_path: Path,
) -> None:
    images = torch.arange(2 * 3 * 64, dtype=torch.uint8).view(2, 3, 1, 8, 8)
    for seed in range(2):
        save_file({"images": images[seed].contiguous()}, tmp_path / shard_name(seed, range(3)))
    found = load_split(drawn(), "train", lambda stage: tmp_path)
    assert torch.equal(found.images, images.flatten(0, 1))
    assert found.labels is None
    with pytest.raises(FwError, match="have no test split"):
        load_split(drawn(), "test", lambda stage: tmp_path)


def test_features_are_stored_by_split(tmp_path: Path) -> None:
    Encode(Digits(), PCA(dims=3), seed=0).run(Job(tmp_path), products)
    features = load_features(tmp_path)
    assert {split: tuple(found.shape) for split, found in features.items()} == {
        "train": (len(Digits().load("train")), 3),
        "test": (len(Digits().load("test")), 3),
    }
