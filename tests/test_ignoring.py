"""A network that ignores its condition is told from one that has not yet learned to use it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.job import Job
from fw.core.kinds import Backbone, Process
from fw.core.learning.ignoring import ignores_condition
from fw.core.learning.train import train
from fw.core.randomness import generator
from fw.core.settings import Train
from fw.core.types import Annotation, ConditionSpec, ImageSet
from fw.plugins.backbones.ddpmpp import DDPMPP
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.joint.jdm import JDM
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.processes.edm import EDM
from fw.plugins.processes.flow import Flow

SHAPE = (1, 8, 8)
FORMS = {
    "class": ConditionSpec("class", 3),
    "vector": ConditionSpec("vector", 5),
    "tokens": ConditionSpec("tokens", 5, 2),
}
SMALL = (
    DiT(patch=2, width=32, depth=2, heads=2),
    UNet(channels=(8, 16), groups=4),
    DDPMPP(width=8, multipliers=(1, 2), layers=1, attention=()),
)


class Network(nn.Module):
    """One layer; what a condition adds to the image begins at zero, or is left out."""

    def __init__(self, deaf: bool):
        super().__init__()
        self.deaf = deaf
        self.mix = nn.Conv2d(1, 1, 3, padding=1)
        self.told = nn.Embedding(3, 1)
        nn.init.zeros_(self.told.weight)

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: object = None,
    ) -> Tensor:
        mixed = self.mix(x)
        if self.deaf or condition is None:
            return mixed
        return mixed + self.told(condition)[:, :, None, None]


class Plain(Backbone):
    """See `Network`."""

    name: ClassVar[str] = "plain"
    deaf: bool = False

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        return Network(self.deaf)


def ignores(backbone: Backbone, process: Process, form: str = "class", seed: int = 0) -> bool:
    network = backbone.build(SHAPE, FORMS[form])
    draw = generator(seed, "trial")
    return ignores_condition(NetworkDenoiser(network, process), FORMS[form], SHAPE, draw)


@pytest.mark.parametrize("process", [DDPM(), EDM(), Flow()], ids=lambda each: each.name)
def test_what_is_ignored_and_what_begins_at_zero_are_told_apart(process: Process) -> None:
    x, level = torch.randn(3, *SHAPE), torch.ones(3)
    network = Network(deaf=False)
    equal = [network(x, level, torch.full((3,), each)) for each in (0, 1)]
    assert torch.equal(*equal), "this is what makes it hard"
    for seed in range(5):
        assert ignores(Plain(deaf=True), process, seed=seed)
        assert not ignores(Plain(deaf=False), process, seed=seed)


@pytest.mark.parametrize("backbone", SMALL, ids=lambda each: each.name)
def test_no_network_of_fw_ignores_a_form_of_condition_that_it_takes(backbone: Backbone) -> None:
    for form in sorted(backbone.conditions):
        assert not ignores(backbone, EDM(), form), form


def test_a_single_class_leaves_nothing_to_compare(tmp_path: Path) -> None:
    model = NetworkDenoiser(Network(deaf=True), EDM())
    assert not ignores_condition(model, ConditionSpec("class", 1), SHAPE, generator(0, "trial"))


@pytest.mark.parametrize(
    ("deaf", "conditional", "warned"),
    [(True, True, True), (False, True, False), (True, False, False)],
    ids=["ignored", "begins at zero", "unconditional"],
)
def test_a_training_warns_before_its_first_step_and_learns_the_same(
    deaf: bool, conditional: bool, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.randint(0, 256, (6, *SHAPE), dtype=torch.uint8)
    annotation = Annotation(FORMS["class"], torch.arange(6) % 3) if conditional else None
    learned = []
    for number in range(2):
        if number == 1:  # the trial moves no random number of the training
            monkeypatch.setattr("fw.core.learning.train.warn_if_ignored", lambda *rest: None)
        job = Job(tmp_path / str(number))
        job.folder.mkdir()
        settings = Train(steps=2, batch=2, warmup=0)
        network = train(Plain(deaf=deaf), EDM(), ImageSet(images), annotation, settings, job)
        learned.append(network.state_dict())
        if number == 0:
            assert [text.split(": ")[0] for text in job.warnings] == (
                ["backbone 'plain' ignores its condition"] if warned else []
            )
    assert all(torch.equal(learned[0][name], learned[1][name]) for name in learned[0])


def test_a_joint_model_which_reads_classes_off_the_image_is_not_warned_about(
    tmp_path: Path,
) -> None:
    images = torch.randint(0, 256, (6, *SHAPE), dtype=torch.uint8)
    annotation = Annotation(FORMS["class"], torch.arange(6) % 3)
    job = Job(tmp_path)
    settings = Train(steps=1, batch=2, warmup=0)
    train(JDM(channels=(8, 16), groups=4), EDM(), ImageSet(images), annotation, settings, job)
    assert job.warnings == []
