"""CMMD: how far apart CLIP's embeddings of samples and of real images are (Jayasumana et al., arXiv
2401.09603, eq. 4).

The squared maximum mean discrepancy with the kernel exp(-|x - y|^2 / (2 * 10^2)), of embeddings of
length 1, times 1000. Pairs of an image with itself are left out, so it has no bias that falls with
n; the released code keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from fw.core.errors import StageFailed
from fw.core.kinds import Encoder, Metric
from fw.core.machine.tables import in_parts
from fw.core.types import Reference
from fw.plugins.metrics.features import checked
from fw.plugins.metrics.naming import key_in

WIDTH = 10.0
"""The kernel's standard deviation. It is wide for points on a unit sphere: the distance is nearly
that of the means."""

UNIT = 1000.0

SIDE = 2048
"""Images of either side whose pairs are held at once."""

PUBLISHED = {"name": "clip", "model": "vit_large_patch14_clip_quickgelu_336.openai"}


class Prepared(NamedTuple):
    """Real images' features (N, D), and the mean of 1 - kernel between different ones, ()."""

    real: Tensor
    within: Tensor


class CMMD(Metric):
    """Maximum mean discrepancy of CLIP's embeddings (arXiv 2401.09603), times 1000; 0 for new
    images, and below 0 as often as above.

    As published it is of CLIP's ViT-L/14 at 336 pixels; `space` takes any other encoder, whose
    features are brought to length 1, too. It is nearly a distance between means, so it sees little
    of what samples lack in variety.
    """

    name: ClassVar[str] = "cmmd"
    version: ClassVar[int] = 2
    on_device: ClassVar[bool] = True

    space: Encoder = Field(
        default_factory=lambda: PUBLISHED,
        validate_default=True,
        description="encoder whose features are compared",
    )

    @property
    def least_images(self) -> int:
        return 2

    @property
    def keys(self) -> Mapping[str, str]:
        return {self._key: "lower"}

    @property
    def _key(self) -> str:
        return key_in(self.space, "cmmd", home="clip")

    def measure(self, reference: Reference) -> dict[str, Tensor]:
        return {"within": within(directed(reference.train, "real images"))}

    def prepare(self, reference: Reference) -> Prepared:
        real = directed(reference.train, "real images")
        return Prepared(real, self.measured(reference)["within"])

    def compare(
        self, prepared: Prepared, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        samples, real = directed(fake, "samples"), prepared.real
        between = dissimilarity(samples, real) / (len(samples) * len(real))
        return {self._key: UNIT * float(2 * between - within(samples) - prepared.within)}


def directed(features: Tensor, of: str) -> Tensor:
    """The features (n, D), if they have a direction."""
    if not all(few.any(dim=1).all() for few in in_parts(checked(features, 2, of))):
        raise StageFailed(f"the features of some {of} are all 0, so they have no direction")
    return features


def of_unit_length(features: Tensor) -> Tensor:
    """Features (n, D), double, of length 1."""
    return normalize(features.double(), dim=1)


def within(points: Tensor) -> Tensor:
    """The mean () of 1 - kernel over pairs of different points."""
    return dissimilarity(points, points) / (len(points) * (len(points) - 1))


def dissimilarity(points: Tensor, others: Tensor) -> Tensor:
    """The sum () of 1 - kernel over all pairs of points (n, D) and others (N, D), brought to length
    1. It is 0 for a point and itself. 1 - kernel keeps the digits that differences of kernels would
    lose."""
    total = points.new_zeros((), dtype=torch.float64)
    for rows in map(of_unit_length, points.split(SIDE)):
        for columns in map(of_unit_length, others.split(SIDE)):
            squared = (2 - 2 * rows @ columns.T).clamp(min=0)
            total -= torch.expm1(squared / (-2 * WIDTH**2)).sum()
    return total
