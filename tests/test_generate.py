"""Image i is a function of (run seed, sampling seed, i): not of the arm, the count or the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from fw.core.diffusion import generate as module
from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.generate import Drawing, batch_size, conditions, generate
from fw.core.kinds import Denoise, Sampler, Steering
from fw.core.types import Annotation, ConditionSpec
from fw.plugins.backbones.unet import UNet
from fw.plugins.datasets.digits import Digits
from fw.plugins.guidance.cfg import CFG
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.samplers.ddpm import Ancestral
from fw.plugins.samplers.dpmpp import DPMSolverPP

SPEC = ConditionSpec("class", 4)
ANNOTATION = Annotation(SPEC, torch.tensor([0, 0, 0, 1, 2, 3]))


class Echo(Sampler):
    """Shows the noise that it is given."""

    name: ClassVar[str] = "echo"

    @property
    def nfe(self) -> int:
        return 0

    def sample(
        self, denoise: Denoise, noise: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        return noise / 4


def model(spec: ConditionSpec | None) -> NetworkDenoiser:
    torch.manual_seed(0)
    return NetworkDenoiser(UNet(channels=(8, 16), groups=4).build((1, 8, 8), spec).eval(), DDPM())


def drawing(sampler: Sampler, guidance: Sequence[Steering] = (), seed: int = 7) -> Drawing:
    return Drawing(Digits().shape, sampler, guidance, seed)


def images(
    denoiser: NetworkDenoiser, how: Drawing, annotation: Annotation | None, wanted: range
) -> Tensor:
    return torch.cat(list(generate(denoiser, (), how, annotation, 1, wanted)))


def test_every_arm_starts_from_the_same_noise() -> None:
    plain = images(model(None), drawing(Echo()), None, range(20))
    guided = images(model(SPEC), drawing(Echo(), guidance=(CFG(scale=2),)), ANNOTATION, range(20))
    assert torch.equal(plain, guided)
    assert not torch.equal(plain[0], plain[1])


def test_runs_and_sampling_seeds_have_noise_of_their_own() -> None:
    first = images(model(None), drawing(Echo()), None, range(4))
    other_run = images(model(None), drawing(Echo(), seed=8), None, range(4))
    other_seed = torch.cat(list(generate(model(None), (), drawing(Echo()), None, 2, range(4))))
    assert not torch.equal(first, other_run)
    assert not torch.equal(first, other_seed)


@pytest.mark.parametrize("count", [1, 3, 16, 250, 251, 300])
def test_an_image_does_not_depend_on_how_many_are_wanted(count: int) -> None:
    how = drawing(DPMSolverPP(steps=2), guidance=(CFG(scale=1.5),))
    many = images(model(SPEC), how, ANNOTATION, range(300))
    assert torch.equal(images(model(SPEC), how, ANNOTATION, range(count)), many[:count])


@pytest.mark.parametrize("batch", [1, 7, 64, 100, 1000])
@pytest.mark.parametrize(
    "sampler", [DPMSolverPP(steps=3), Ancestral(steps=4)], ids=["dpmpp", "ddpm"]
)
def test_the_batch_size_changes_an_image_by_rounding_alone(batch: int, sampler: Sampler) -> None:
    def floats(size: int | None) -> Tensor:
        how, network = drawing(sampler, guidance=(CFG(scale=1.5),)), model(SPEC)
        return torch.cat(
            list(generate(network, (), how, ANNOTATION, 1, range(120), lambda x: x, size))
        )

    torch.testing.assert_close(floats(batch), floats(None), atol=1e-5, rtol=0)


def test_larger_images_come_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert [batch_size((3, side, side), cpu) for side in (8, 32, 64, 256, 4096)] == [
        250,
        250,
        62,
        3,
        1,
    ]
    monkeypatch.setitem(module.MOST_AT_ONCE, "cpu", 10)
    assert batch_size((3, 8, 8), cpu) == 10


def test_conditions_follow_the_empirical_frequencies() -> None:
    drawn = conditions(ANNOTATION, 0, 0, range(6000))
    assert drawn is not None
    share = torch.bincount(drawn, minlength=4) / len(drawn)
    torch.testing.assert_close(share, torch.tensor([3, 1, 1, 1]) / 6, atol=0.02, rtol=0)
    part = conditions(ANNOTATION, 0, 0, range(100, 110))
    assert part is not None
    assert torch.equal(part, drawn[100:110])
