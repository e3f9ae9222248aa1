"""Diffusion in latents (Rombach et al., arXiv 2112.10752): images are encoded once, training reads
the stored latents, and samples are decoded.

The autoencoder always gets full batches, as networks do in sampling, so an image's latents do not
depend on how many others there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fw.core.diffusion.generate import reading_size
from fw.core.diffusion.pixels import per_image, to_uint8
from fw.core.job import Job
from fw.core.kinds import Autoencoder, Code
from fw.core.kinds.boundaries import (
    check_decoded,
    finite_code,
    formed_code,
    formed_images,
)
from fw.core.machine.tables import Table
from fw.core.machine.transfer import sent
from fw.core.randomness import forked, some

SHARD = 1000
"""Images in one file of latents: an interrupted encoding loses no more than these."""

HELD_OUT = 256
"""Held-out images by which a reconstruction is judged."""

MIRRORED = "mirrored."
"""How the names of tensors begin that were made of the mirror images."""

STORED = {"fp32": torch.float32, "fp16": torch.float16}
"""What `stored` of an autoencoder names."""

Unit = Callable[[Sequence[int]], Tensor]
"""Gives unit noise (B, *shape) for the images of a batch."""


class Codec:
    """An autoencoder with its network on a device, for images of one shape."""

    def __init__(self, autoencoder: Autoencoder, shape: tuple[int, int, int], device: torch.device):
        self.autoencoder = autoencoder
        self.shape = shape
        self.device = device
        self.network = new_network(autoencoder, shape).to(device)
        self.size = reading_size(shape, device)

    def encode(self, images: Tensor) -> Code:
        """Any number of uint8 images (N, C, H, W) to latents, on the CPU."""
        return self._on_cpu([self._encode(few) for few in images.split(self.size)])

    def decode(self, latents: Tensor) -> Tensor:
        """Any number of latents (N, C, h, w) to uint8 images (N, C, H, W), on the CPU."""
        decoded = [self._decode(few) for few in latents.split(self.size)]
        check_decoded(self.autoencoder, [finite for _, finite in decoded], len(latents))
        return torch.cat([images for images, _ in decoded]).cpu().contiguous()

    def encode_split(self, images: Tensor, flip: bool, job: Job) -> None:
        """Store the latents of all images in the job's folder, for `flip` those of their mirror
        images too. A team shares the files."""
        codes: dict[str, list[Code]] = defaultdict(list)
        own = list(batches(job.team.share(files(len(images))), self.size))
        for shard, batch in job.track(own, "encode"):
            name = f"latents-{shard.start:07d}.safetensors"
            if batch.start == shard.start:
                done = job.kept(name) is not None
            if done:
                continue
            few = images[batch.start : batch.stop]
            codes[""].append(self._encode(few))
            if flip:
                codes[MIRRORED].append(self._encode(few.flip(-1)))
            if batch.stop == shard.stop:
                job.keep(name, partial(save_file, self._named(codes)))
                codes.clear()

    def _named(self, codes: Mapping[str, list[Code]]) -> dict[str, Tensor]:
        tensors = {
            prefix + part: tensor
            for prefix, parts in codes.items()
            for part, tensor in self._stored(self._on_cpu(parts))._asdict().items()
        }
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def _stored(self, code: Code) -> Code:
        """A finite code in the numbers that are stored, which it has to fit."""
        kind = STORED[self.autoencoder.stored]
        if code.mean.dtype == kind:
            return code
        std = None if code.std is None else code.std.to(kind)
        return finite_code(self.autoencoder, Code(code.mean.to(kind), std))

    @torch.inference_mode()
    def _encode(self, images: Tensor) -> Code:
        """At most `size` images to latents on the device, which may not be finite."""
        batch = filled(sent(images, self.device), self.size)
        code = self.autoencoder.encode(self.network, batch)
        code = formed_code(self.autoencoder, code, self.shape, len(batch))
        std = None if code.std is None else code.std[: len(images)]
        return Code(code.mean[: len(images)], std)

    @torch.inference_mode()
    def _decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """At most `size` latents to images on the device, and bool (): whether they are finite."""
        batch = filled(sent(latents, self.device), self.size)
        images = self.autoencoder.decode(self.network, batch)
        images = formed_images(self.autoencoder, images, self.shape, len(batch))
        return to_uint8(images)[: len(latents)], images.isfinite().all()

    def _on_cpu(self, codes: Sequence[Code]) -> Code:
        """Codes one behind the other on the CPU, finite; a GPU is waited for once."""
        stds = [code.std for code in codes if code.std is not None]
        mean, *std = (
            torch.cat(parts).cpu().contiguous()
            for parts in ([code.mean for code in codes], stds)
            if parts
        )
        return finite_code(self.autoencoder, Code(mean, *std))

    def quality(self, held_out: Tensor) -> dict[str, float]:
        """Mean and standard deviation of the latents of some held-out images, and by how many of
        the 256 levels the images that are decoded from them are off (root mean square)."""
        images = held_out[some(len(held_out), HELD_OUT, "latents")]
        latents = self.encode(images).mean
        error = (self.decode(latents).float() - images.float()).square().mean().sqrt()
        return {"mean": latents.mean().item(), "std": latents.std().item(), "rmse": error.item()}


@dataclass(frozen=True)
class Latents:
    """What `Codec.encode_split` stored: `mean` (N, C, h, w), `std` of the same shape if codes
    have one, and the same of the mirror images. The files are mapped, not read."""

    parts: Mapping[str, Table]

    @staticmethod
    def load(folder: Path) -> Latents:
        shards = [load_file(path) for path in sorted(folder.glob("latents-*.safetensors"))]
        return Latents({name: Table([shard[name] for shard in shards]) for name in shards[0]})

    def __len__(self) -> int:
        return len(self.parts["mean"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w)"""
        channels, height, width = self.parts["mean"].shape
        return channels, height, width

    def to(self, device: torch.device) -> Latents:
        return Latents({name: rows.to(device) for name, rows in self.parts.items()})

    @property
    def afar(self) -> bool:
        """Whether some are fetched from where they are, step by step."""
        return not all(rows.there for rows in self.parts.values())

    def ahead(self, numbers: Tensor) -> None:
        """Begin to fetch the latents that the next step takes."""
        for rows in self.parts.values():
            rows.ahead(numbers)

    def take(self, numbers: Tensor, mirrored: Tensor | None, unit: Unit) -> Tensor:
        """The latents (B, C, h, w) of the images with these numbers (B,); of their mirror images
        where `mirrored`, bool (B,)."""
        mean = self._rows("mean", numbers, mirrored)
        if "std" not in self.parts:
            return mean
        return mean + self._rows("std", numbers, mirrored) * unit(mean.shape[1:])

    def _rows(self, part: str, numbers: Tensor, mirrored: Tensor | None) -> Tensor:
        rows = self.parts[part].take(numbers)
        if mirrored is not None:
            others = self.parts[MIRRORED + part].take(numbers)
            rows = torch.where(per_image(mirrored), others, rows)
        return rows.to(torch.get_default_dtype())


def new_network(autoencoder: Autoencoder, shape: tuple[int, int, int]) -> nn.Module:
    """The frozen network. Building it may draw random numbers; it moves no generator and is
    always the same."""
    with forked():
        torch.default_generator.manual_seed(0)
        return autoencoder.build(shape).eval().requires_grad_(False)


def filled(batch: Tensor, size: int) -> Tensor:
    """The batch, its last row repeated up to `size`."""
    return torch.cat([batch, batch[-1:].expand(size - len(batch), *batch.shape[1:])])


def files(count: int) -> list[range]:
    """The images of each file of latents."""
    return [range(start, min(start + SHARD, count)) for start in range(0, count, SHARD)]


def batches(shards: Iterable[range], size: int) -> Iterator[tuple[range, range]]:
    """The images of a file, and those of a batch within them."""
    for shard in shards:
        for first in range(shard.start, shard.stop, size):
            yield shard, range(first, min(first + size, shard.stop))
