"""Sample from a trained model: the same noise in every arm, image by image, whatever the batch size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fw.core.diffusion import Denoiser, Guided, to_uint8
from fw.core.kinds import Guidance, Sampler
from fw.core.randomness import generator
from fw.core.types import Annotation


@torch.inference_mode()
def generate(
    model: Denoiser,
    guidance: Sequence[Guidance],
    sampler: Sampler,
    condition: Tensor | None,
    shape: tuple[int, int, int],
    generators: Sequence[torch.Generator],
    device: torch.device,
) -> Tensor:
    """uint8 images (B, C, H, W), one per generator, all randomness of image i from `generators[i]`."""
    noise = torch.stack([torch.randn(shape, generator=draw) for draw in generators]).to(device)
    if condition is not None:
        condition = condition.to(device)
    guided = Guided(model, guidance, condition, model.sigma_min, model.sigma_max)
    return to_uint8(sampler.sample(guided, noise, generators)).cpu()


def image_generators(run_seed: int, sampling_seed: int, indices: Sequence[int]) -> list[torch.Generator]:
    """One generator per image, a function of (run seed, sampling seed, index): equal in all arms."""
    return [generator(run_seed, "sample", sampling_seed, index) for index in indices]


def draw_conditions(annotation: Annotation | None, run_seed: int, sampling_seed: int, count: int) -> Tensor | None:
    """The conditions of one sampling seed's images, from the prior."""
    if annotation is None:
        return None
    return annotation.draw(count, generator(run_seed, "conditions", sampling_seed))
