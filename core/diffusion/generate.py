"""Sample from a trained model: image i has the same noise in every arm, at any count, and after
a resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.guided import Guided
from fw.core.diffusion.pixels import to_uint8
from fw.core.kinds import Sampler, Steering
from fw.core.kinds.boundaries import check_guidance, checked_samples
from fw.core.randomness import Draws
from fw.core.types import Annotation

MOST_AT_ONCE = {"cpu": 250, "cuda": 1000}
"""Images in one batch; fewer where they are larger than 32x32."""


@dataclass(frozen=True)
class Drawing:
    """How images are drawn."""

    shape: tuple[int, int, int]
    """(C, H, W) of what is diffused."""
    sampler: Sampler
    guidance: Sequence[Steering]
    seed: int
    """That of the run, not of the sampling."""


@torch.inference_mode()
def generate(
    model: NetworkDenoiser,
    siblings: Sequence[NetworkDenoiser | None],
    drawing: Drawing,
    annotation: Annotation | None,
    seed: int,
    images: range,
    to_images: Callable[[Tensor], Tensor] = to_uint8,
    batch: int | None = None,
) -> Iterator[Tensor]:
    """These `images` of a sampling seed, by number: uint8 (B, C, H, W), batch by batch.

    `siblings` are the networks that guidance modes asked for, `to_images` makes uint8 images of
    what was diffused, and `batch` is how many are computed at once, if not as many as suit the
    device. All randomness of image i, its condition included, is a function of (run
    seed, sampling seed, i). Convolutions may round differently in batches of another size, so every
    batch is computed in full, and images beyond the range are dropped.
    """
    check_guidance(drawing.guidance, annotation.spec if annotation else None)
    device = next(model.network.parameters()).device
    size = batch or batch_size(drawing.shape, device)
    model.share(drawing.guidance, drawing.shape)
    for start in range(images.start, images.stop, size):
        indices = range(start, start + size)
        draws = Draws(drawing.seed, "sample", seed, rows=indices, device=device)
        noise = draws.normal(*drawing.shape)
        condition = conditions(annotation, drawing.seed, seed, indices)
        guided = Guided(
            model,
            drawing.guidance,
            condition if condition is None else condition.to(device),
            model.sigma_min,
            model.sigma_max,
            siblings,
        )
        samples = drawing.sampler.sample(guided, noise, draws)
        samples = checked_samples(drawing.sampler, samples, noise, guided.diverged)
        yield to_images(samples[: images.stop - start]).cpu()


def batch_size(shape: tuple[int, int, int], device: torch.device) -> int:
    _, height, width = shape
    most = MOST_AT_ONCE[device.type]
    return max(1, min(most, most * 32 * 32 // (height * width)))


def reading_size(shape: tuple[int, int, int], device: torch.device) -> int:
    """Images in one batch of a frozen network that encodes or decodes them. On a GPU as many as fit
    in a quarter of its memory: an image of 256x256 needs about 256 MiB of an autoencoder."""
    usual = batch_size(shape, device)
    if device.type != "cuda":
        return usual
    _, height, width = shape
    fitting = torch.cuda.get_device_properties(device).total_memory // 4 // (4096 * height * width)
    return max(usual, min(fitting, MOST_AT_ONCE["cuda"]))


def conditions(
    annotation: Annotation | None, run_seed: int, sampling_seed: int, indices: range
) -> Tensor | None:
    """One condition per image from the prior. Their random streams are their own, so the noise
    is the same without."""
    if annotation is None:
        return None
    return annotation.draw(Draws(run_seed, "condition", sampling_seed, rows=indices))
