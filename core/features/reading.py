"""What a trained arm makes of images, for probes: after arXiv 2407.00783, choose blocks and a
noise level, show the model the images in that noise once or more, and average."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.generate import batch_size
from fw.core.diffusion.latents import Codec
from fw.core.diffusion.pixels import to_unit
from fw.core.diffusion.taps import as_tokens, pooled, usual_block
from fw.core.errors import FwError, StageFailed
from fw.core.files.stacked import stacked
from fw.core.job import Job
from fw.core.kinds import Glance, Probe
from fw.core.kinds.boundaries import refuse
from fw.core.machine.tables import all_finite
from fw.core.machine.transfer import collected, sent
from fw.core.types import Annotation, Split, Told

SIDE = 8
"""Rows and columns that larger maps are averaged to where positions are kept."""


@dataclass(frozen=True)
class ArmReader:
    """What a probe can ask for of one arm (kinds/probe.py); what it does not need may be None."""

    probe: Probe
    images: Mapping[Split, Tensor]
    """uint8 (N, C, H, W) by split."""
    job: Job
    features: Mapping[str, Tensor] | None = None
    """Those that the conditions are made of, by split."""
    model: NetworkDenoiser | None = None
    codec: Codec | None = None
    annotation: Annotation | None = None
    """The conditions that the model was trained with."""

    def encoded(self, split: Split) -> Tensor:
        return self.lacks("features") if self.features is None else self.features[split]

    @torch.no_grad()
    def in_noise(
        self, split: Split, look: Callable[[Glance], Tensor], sigma: float, draws: int
    ) -> Tensor:
        """Each image has noise of its own, a function of the job's seed, the split and its place.
        Noise that images shared would hide nothing: a reader takes into account what is the same
        in all of them."""
        model, images, job = self.trained, self.images[split], self.job
        stream = f"read {split}"
        size = batch_size((*images.shape[1:],), job.device)

        def looked_at(start: int) -> Tensor:
            batch = images[start : start + size]
            x0 = sent(diffused(batch, self.codec), job.device)  # (B, C, H, W)
            streams = job.draws("probe", stream, rows=range(start, start + len(batch)))
            drawn = (sent(streams.normal(*x0.shape[1:]), job.device) for _ in range(draws))
            looks = [
                look(Noisy(self.probe.name, model, x0 + sigma * noise, sigma)) for noise in drawn
            ]
            return torch.stack(looks).mean(dim=0)

        starts = job.track(range(0, len(images), size), stream)
        features = stacked(collected(looked_at(start) for start in starts), job.folder)
        if not all_finite(features):
            raise refuse(self.probe, "what the model makes of some images is not finite")
        return features

    @torch.no_grad()
    def diffused(self, split: Split) -> Tensor:
        images, job = self.images[split], self.job
        batches = images.split(batch_size((*images.shape[1:],), job.device))
        read = (diffused(batch, self.codec) for batch in job.track(batches, f"read {split}"))
        return stacked(collected(read), job.folder)

    def classes(self) -> Tensor:
        return self.given.conditions

    def conditional(self) -> Told:
        model = self.trained

        @torch.no_grad()
        def denoise(x: Tensor, sigma: float, classes: Tensor) -> Tensor:
            return model(x, sigma, classes)

        return Told(denoise, model.process.sigmas, self.given.spec.size)

    @property
    def trained(self) -> NetworkDenoiser:
        return self.lacks("trained model") if self.model is None else self.model

    @property
    def given(self) -> Annotation:
        return self.lacks("conditions") if self.annotation is None else self.annotation

    def lacks(self, what: str) -> NoReturn:
        name = self.probe.name
        raise StageFailed(
            f"probe {name}: this arm has no {what} to read; say so in its `needs` and `of`"
        )


@dataclass(frozen=True)
class Noisy:
    """What the model makes of one batch in noise of level `sigma`, x (B, C, H, W)."""

    probe: str
    model: NetworkDenoiser
    x: Tensor
    sigma: float

    def activations(self, blocks: Sequence[str] | None) -> dict[str, Tensor]:
        names = blocks or (usual_block(self.model.network),)
        return self.model.features(self.x, self.x.new_full((len(self.x),), self.sigma), names)

    def means(self, blocks: Sequence[str] | None) -> Tensor:
        return torch.cat([pooled(each) for each in self.activations(blocks).values()], dim=1)

    def positions(self, blocks: Sequence[str] | None) -> Tensor:
        activations = self.activations(blocks)
        parts = dict(zip(activations, positions(list(activations.values())), strict=True))
        if len({part.shape[1] for part in parts.values()}) > 1:
            counts = ", ".join(f"{block} has {part.shape[1]}" for block, part in parts.items())
            raise FwError(
                f"probe {self.probe}: tokens of different numbers cannot be put together ({counts})"
            )
        return torch.cat(list(parts.values()), dim=2)

    def logits(self) -> Tensor:
        return self.model.logits(self.x, self.sigma)


def diffused(images: Tensor, codec: Codec | None) -> Tensor:
    """What the model is shown, without noise, of uint8 images (B, C, H, W): float32, in -1..1 or
    their latents."""
    return to_unit(images) if codec is None else codec.encode(images).mean


def positions(activations: Sequence[Tensor]) -> list[Tensor]:
    """The positions (B, n, D) of maps (B, C, h, w), row by row, or of tokens (B, n, D), which have
    them already.

    Maps of more than 8x8 are averaged to that, and smaller ones are upsampled to the largest,
    bilinearly.
    """
    sides = [each.shape[2:] for each in activations if each.dim() == 4]
    height, width = (
        (min(max(side[axis] for side in sides), SIDE) for axis in (0, 1)) if sides else (0, 0)
    )
    return [
        as_tokens(resized(each, height, width) if each.dim() == 4 else each) for each in activations
    ]


def resized(activation: Tensor, height: int, width: int) -> Tensor:
    """A map (B, C, h, w) averaged down, or interpolated up, to (B, C, height, width)."""
    if activation.shape[2] >= height and activation.shape[3] >= width:
        return adaptive_avg_pool2d(activation, (height, width))
    return interpolate(activation, (height, width), mode="bilinear", align_corners=False)
