"""A part of the images, where not all are taken: at random, as data sets are sorted by class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fw.core.diffusion.latents import HELD_OUT, Codec
from fw.core.job import Job
from fw.core.randomness import some
from fw.core.templates.autoencoder import Example
from fw.core.types import ImageSet
from fw.plugins.encoders.self_supervised import Learner, SelfSupervised
from fw.plugins.encoders.trunks import ImageEncoder


@given(count=st.integers(0, 300), most=st.integers(1, 300), seed=st.integers(0, 99))
def test_some_are_different_numbers_in_order_and_all_where_there_are_no_more(
    count: int, most: int, seed: int
) -> None:
    chosen = some(count, most, seed, "test")
    assert len(chosen) == min(count, most)
    assert (chosen.diff() > 0).all()
    assert chosen.equal(some(count, most, seed, "test"))
    assert ((chosen >= 0) & (chosen < count)).all()


def test_each_number_is_as_likely_as_any_other() -> None:
    often = torch.cat([some(20, 5, seed, "test") for seed in range(2000)]).bincount(minlength=20)
    deviation = (2000 * 0.25 * 0.75) ** 0.5
    assert ((often - 500).abs() < 5 * deviation).all()


class Width(nn.Module):
    """(B, 1, 8, 8) to (B, 2): nothing of a black image, one of two directions of any other."""

    def forward(self, images: Tensor) -> Tensor:
        grey = images.float().flatten(1).amax(dim=1) / 255
        return torch.stack([grey, 1 - grey], dim=1)


class Fixed(Learner):
    """It learns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Linear(1, 1)

    def forward(
        self, images: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return self.weight.weight.square().sum(), torch.eye(2)


class Sorted(SelfSupervised):
    """Its features are those of `Width`."""

    name = "sorted"

    def build(self, shape: tuple[int, int, int], classes: int) -> ImageEncoder:
        network: Any = ImageEncoder(Width(), 2)
        network.forward = Width().forward
        return network

    def learner(self, network: ImageEncoder) -> Learner:
        return Fixed()


def test_a_first_class_of_equal_images_is_no_collapse(tmp_path: Path) -> None:
    """Of 2,000 images sorted by class the first 1,000 are black, and the others white."""
    images = torch.zeros(2000, 1, 8, 8, dtype=torch.uint8)
    images[1000:] = 255
    encoder = Sorted(steps=1, batch=2)
    encoder.fit(encoder.build((1, 8, 8), 0), ImageSet(images), Job(tmp_path))


def test_latents_are_judged_by_held_out_images_of_all_classes() -> None:
    """Flat images have no error and checked ones have: of twice as many as are looked at, sorted,
    the mean square of the error is half of that of checked ones."""
    flat = torch.full((HELD_OUT, 1, 8, 8), 100, dtype=torch.uint8)
    draw = torch.Generator().manual_seed(0)
    checked = torch.randint(0, 256, flat.shape, generator=draw, dtype=torch.uint8)
    codec = Codec(Example(patch=4, keep=2), (1, 8, 8), torch.device("cpu"))
    rough = codec.quality(checked)["rmse"]
    both = codec.quality(torch.cat([flat, checked]))["rmse"]
    assert both**2 == pytest.approx(rough**2 / 2, rel=0.25)
