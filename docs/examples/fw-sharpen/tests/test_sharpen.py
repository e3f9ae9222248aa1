"""sharpen keeps fw's contract, and its worse prediction is a blur that costs nothing."""

import pytest
import torch
from fw_sharpen import Sharpen

from fw.core.testing import check


@pytest.fixture
def good() -> torch.Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def worse(mode: Sharpen, good: torch.Tensor) -> torch.Tensor:
    return mode.worse(None, good, 1.0, None, good)  # type: ignore[arg-type]  # the model is never asked


@pytest.mark.parametrize("mode", [Sharpen(scale=1.5), Sharpen(scale=2.0, radius=2)])
def test_it_keeps_the_contract(mode: Sharpen) -> None:
    check(mode)


def test_the_worse_prediction_of_one_bright_pixel_is_that_pixel_spread_over_its_neighbours() -> (
    None
):
    point = torch.zeros(1, 1, 8, 8)
    point[0, 0, 3, 4] = 9.0
    blurred = worse(Sharpen(radius=1), point)
    assert torch.allclose(blurred[0, 0, 2:5, 3:6], torch.ones(3, 3))
    assert blurred.sum() == pytest.approx(9.0)


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_a_flat_image_stays_as_it_is_at_its_borders_too(radius: int) -> None:
    flat = torch.full((1, 1, 8, 8), 0.7)
    assert torch.allclose(worse(Sharpen(radius=radius), flat), flat)


def test_guided_images_have_more_contrast_between_neighbours(good: torch.Tensor) -> None:
    guided = good + (1.5 - 1) * (good - worse(Sharpen(), good))

    def contrast(images: torch.Tensor) -> torch.Tensor:
        return images.diff(dim=-1).square().mean()

    assert contrast(guided) > contrast(good) > contrast(worse(Sharpen(), good))


def test_a_wider_blur_is_worse(good: torch.Tensor) -> None:
    gaps = [float((good - worse(Sharpen(radius=radius), good)).norm()) for radius in (1, 2, 3)]
    assert gaps == sorted(gaps)
