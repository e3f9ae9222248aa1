"""What a trained denoiser makes of images, for probes: after arXiv 2407.00783, choose blocks and a noise level, show it
the images in that noise once or more, and average."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.generate import batch_size
from fw.core.diffusion.latents import Codec
from fw.core.diffusion.pixels import to_unit
from fw.core.diffusion.taps import as_tokens, pooled, usual_block
from fw.core.errors import FwError
from fw.core.job import Job
from fw.core.kinds import Probe
from fw.core.kinds.boundaries import refuse
from fw.core.types import Told

SIDE = 8
"""Rows and columns that larger maps are averaged to where positions are kept."""


@torch.no_grad()
def read(probe: Probe, model: NetworkDenoiser, images: Tensor, split: str, codec: Codec | None, job: Job) -> Tensor:
    """What the probe reads of images (N, C, H, W), uint8: features (N, D), tokens (N, n, D) or logits (N, K).

    Each image has noise of its own, a function of the job's seed, the split and its place: all models see the same.
    Noise that images shared would hide nothing: a reader takes into account what is the same in all of them.
    """
    blocks = probe.blocks or (() if probe.reads == "logits" else (usual_block(model.network),))
    size = batch_size((*images.shape[1:],), job.device)
    found = []
    for start in job.track(range(0, len(images), size), f"read {split}"):
        batch = images[start : start + size]
        x0 = diffused(batch, codec).to(job.device)  # (B, C, H, W)
        streams = [job.generator("probe", split, start + place) for place in range(len(batch))]
        noise = torch.stack([torch.randn(probe.draws, *x0.shape[1:], generator=each) for each in streams], dim=1)
        looks = [look(probe, model, x0 + probe.sigma * draw.to(job.device), blocks) for draw in noise]
        found.append(torch.stack(looks).mean(dim=0).cpu())
    features = torch.cat(found)
    if not features.isfinite().all():
        raise refuse(probe, "what the model makes of some images is not finite")
    return features


def diffused(images: Tensor, codec: Codec | None) -> Tensor:
    """What the model is shown, without noise, of uint8 images (B, C, H, W): float32, in -1..1 or their latents."""
    return to_unit(images) if codec is None else codec.encode(images).mean


@torch.no_grad()
def held_out(images: Tensor, codec: Codec | None, job: Job) -> Tensor:
    """The same of all images (N, C, H, W), on the CPU."""
    batches = images.split(batch_size((*images.shape[1:],), job.device))
    return torch.cat([diffused(batch, codec).cpu() for batch in job.track(batches, "read test")])


def asked(model: NetworkDenoiser, classes: int) -> Told:
    """A model that is told classes, for a probe that asks it."""

    @torch.no_grad()
    def denoise(x: Tensor, sigma: float, told: Tensor) -> Tensor:
        return model(x, sigma, told)

    return Told(denoise, model.process.sigmas, classes)


def look(probe: Probe, model: NetworkDenoiser, x: Tensor, blocks: Sequence[str]) -> Tensor:
    """One look at noisy images x (B, C, H, W), without a condition."""
    if probe.reads == "logits":
        return model.logits(x, probe.sigma)  # (B, K)
    activations = model.features(x, x.new_full((len(x),), probe.sigma), blocks)
    if probe.reads == "features":
        return torch.cat([pooled(each) for each in activations.values()], dim=1)  # (B, D)
    parts = dict(zip(activations, positions(list(activations.values())), strict=True))
    if len({part.shape[1] for part in parts.values()}) > 1:
        told = ", ".join(f"{block} has {part.shape[1]}" for block, part in parts.items())
        raise FwError(f"probe {probe.name}: tokens of different numbers cannot be put together ({told})")
    return torch.cat(list(parts.values()), dim=2)  # (B, n, D)


def positions(activations: Sequence[Tensor]) -> list[Tensor]:
    """The positions (B, n, D) of maps (B, C, h, w), row by row, or of tokens (B, n, D), which have them already.

    Maps of more than 8x8 are averaged to that, and smaller ones are upsampled to the largest, bilinearly.
    """
    sides = [each.shape[2:] for each in activations if each.dim() == 4]
    height, width = (min(max(side[axis] for side in sides), SIDE) for axis in (0, 1)) if sides else (0, 0)
    return [as_tokens(resized(each, height, width) if each.dim() == 4 else each) for each in activations]


def resized(activation: Tensor, height: int, width: int) -> Tensor:
    """A map (B, C, h, w) averaged down, or interpolated up, to (B, C, height, width)."""
    if activation.shape[2] >= height and activation.shape[3] >= width:
        return adaptive_avg_pool2d(activation, (height, width))
    return interpolate(activation, (height, width), mode="bilinear", align_corners=False)
