"""Views of a batch for self-supervised learning, beside lightly's transforms image by image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from bench.speed.interleaved import paired, timed
from bench.speed.row import Row, speed
from fw.plugins.encoders.views import photo_view


@dataclass(frozen=True)
class Size:
    batch: int = 256
    side: int = 32
    pairs: int = 8


SMALL = Size(batch=4, side=8, pairs=1)


def rows(size: Size = Size()) -> Iterator[Row]:
    from lightly.transforms.dino_transform import DINOViewTransform
    from torchvision.transforms.functional import to_pil_image

    draw = torch.Generator().manual_seed(0)
    images = torch.rand(size.batch, 3, size.side, size.side, generator=draw)
    pictures = [to_pil_image(image) for image in images]
    # A crop, a flip, colours and grey, as fw has them; neither blur nor solarisation.
    transform = DINOViewTransform(size.side, gaussian_blur=0, solarization_prob=0, normalize=None)

    def ours() -> object:
        return photo_view(images, False, draw)

    def theirs() -> object:
        return torch.stack([transform(picture) for picture in pictures])

    what = f"global views of {size.batch} photographs of {size.side}x{size.side}"
    yield speed(what, "lightly's DINOViewTransform", paired(timed(ours), timed(theirs), size.pairs))
