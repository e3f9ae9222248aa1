"""Feature likelihood divergence: how likely held-out images are under a density that is centred at
the samples (Jiralerspong et al., arXiv 2302.04440, eq. 2 to 4).

A mixture of isotropic Gaussians, one at each sample, has its variances fitted to the training
images. Samples that are copies shrink their Gaussian onto one training image, where no held-out
image is: so memorisation costs likelihood, as lack of fidelity and of diversity do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from fw.core.errors import StageFailed
from fw.core.kinds import Encoder, Metric
from fw.core.learning.optimizers import adam
from fw.core.randomness import some
from fw.core.types import Reference
from fw.plugins.metrics.features import INDISTINCT, checked
from fw.plugins.metrics.naming import key_in

STEPS, RATE = 50, 0.5
"""Of Adam, on all training images at once; the paper's code takes batches of 10,000."""

NEAR = 1e-3
"""Added to the squared distance to the nearest training image. That per dimension is what a
variance begins with."""

BOUNDS = (-40.0, 20.0)
"""Of the logarithm of a variance, so that that of a copy stays a number."""

FALLBACK = 0.9
"""While variances are fitted there is a Gaussian that is this share of its distance to the mean
from each image, so that none is infinitely unlikely."""

EXACT = 2**20
"""Numbers in the features whose differences are taken at once."""


class Prepared(NamedTuple):
    """Training and held-out images, standardised; the moments by which they were, and which
    dimensions have any variance; and the held-out images' nats per dimension under real images."""

    train: Tensor
    held_out: Tensor
    mean: Tensor
    deviation: Tensor
    kept: Tensor
    baseline: float

    def standardised(self, features: Tensor) -> Tensor:
        return (features[:, self.kept].double() - self.mean) / self.deviation


class FLD(Metric):
    """Feature likelihood divergence (arXiv 2302.04440): 100 times the nats per dimension by which
    held-out images are less likely under a density of the samples than under one of real images.

    `fld_gap` is how much less likely they are under that of the samples than training images are:
    far below 0 for copies, and a little below it for new images. The density of real images stands
    on half of the training images and is fitted to the other half, so 0 is what so many new images
    have, and more of them come out below it. There is no other floor: held-out images cannot stand
    in the place of samples and judge them. Samples of too little variance can come out below new
    ones, because the density is as wide as it has to be around them. Features are standardised by
    the held-out images. A few thousand samples take seconds, and time grows with their number times
    that of training images.
    """

    name: ClassVar[str] = "fld"
    on_device: ClassVar[bool] = True

    space: Encoder = Field(
        "classifier", validate_default=True, description="encoder whose features are compared"
    )
    samples: int = Field(10_000, ge=2, description="at most so many samples, at random")
    real: int = Field(10_000, ge=4, description="at most so many training images, at random")

    @property
    def least_images(self) -> int:
        return 4

    @property
    def keys(self) -> Mapping[str, str]:
        return {self._key("fld"): "lower", self._key("fld_gap"): "higher"}

    def _key(self, score: str) -> str:
        return key_in(self.space, score, home="dinov2")

    @property
    def by_position(self) -> frozenset[str]:
        return frozenset(self.keys)

    def real_images(self, train: int, samples: int) -> int:
        return min(train, self.real)

    def measure(self, reference: Reference) -> dict[str, Tensor]:
        ready = self.standardised(reference)
        train = ready.train
        order = some(len(train), len(train) // 2, "fld", "half").to(train.device)
        half = torch.zeros(len(train), dtype=torch.bool, device=train.device)
        half[order] = True
        density = Density.fitted(train[half], train[~half])
        return {"baseline": torch.tensor(density.nats(ready.held_out), dtype=torch.float64)}

    def prepare(self, reference: Reference) -> Prepared:
        baseline = float(self.measured(reference)["baseline"])
        return self.standardised(reference)._replace(baseline=baseline)

    def standardised(self, reference: Reference) -> Prepared:
        """All but the baseline."""
        train = checked(reference.train, 4, "real images")
        held_out = checked(reference.held_out, 4, "held-out images").double()
        deviation = held_out.std(dim=0)
        kept = deviation > 0
        if not kept.any():
            raise StageFailed(INDISTINCT)
        ready = Prepared(
            train, held_out, held_out.mean(dim=0)[kept], deviation[kept], kept, math.nan
        )
        chosen = train[some(len(train), self.real, "fld").to(train.device)]
        return ready._replace(
            train=ready.standardised(chosen), held_out=ready.standardised(held_out)
        )

    def compare(
        self, prepared: Prepared, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        chosen = some(len(checked(fake, 2, "samples")), self.samples, "fld", "samples")
        density = Density.fitted(
            prepared.standardised(fake[chosen.to(fake.device)]), prepared.train
        )
        held_out, train = density.nats(prepared.held_out), density.nats(prepared.train)
        return {
            self._key("fld"): 100 * (held_out - prepared.baseline),
            self._key("fld_gap"): 100 * (train - held_out),
        }

    def floor(
        self, prepared: Prepared, held_out: Tensor, count: int, wanted: Tensor | None = None
    ) -> dict[str, float]:
        return {}


class Density(NamedTuple):
    """A mixture of Gaussians of equal weight, at centres (n, D), with log variances (n,)."""

    centres: Tensor
    spread: Tensor

    @staticmethod
    def fitted(centres: Tensor, images: Tensor) -> Density:
        """With the variances under which images (N, D) are likely, by Adam."""
        dims = images.shape[1]
        apart = squared_distances(images, centres)  # (N, n)
        to_mean = FALLBACK**2 * squared_distances(images, images.mean(dim=0, keepdim=True))
        squared = torch.cat([apart, to_mean], dim=1)
        weight = squared.new_full((squared.shape[1],), -math.log(len(centres)))
        weight[-1] = 0
        spread = ((apart.amin(dim=0) + NEAR) / dims).log()
        spread = nn.Parameter(torch.cat([spread, spread.new_zeros(1)]), requires_grad=False)
        optimizer = adam([spread], RATE, weight_decay=0.0, kind="adam")
        for _ in range(STEPS):
            shares = log_densities(squared, spread, dims, weight).softmax(dim=1)
            mass, moment = shares.sum(dim=0), (shares * squared).sum(dim=0)
            # Of the mean of minus the log density, per dimension.
            spread.grad = (dims * mass - moment * (-spread).exp()) / (2 * dims * len(images))
            optimizer.step()
            spread[:-1].clamp_(*BOUNDS)
        return Density(centres, spread[:-1])

    def nats(self, images: Tensor) -> float:
        """Minus the mean log density of images (N, D), per dimension."""
        dims = images.shape[1]
        apart = squared_distances(images, self.centres)
        mixed = log_densities(apart, self.spread, dims).logsumexp(dim=1)
        return math.log(len(self.centres)) / dims - float(mixed.double().mean()) / dims


def squared_distances(points: Tensor, others: Tensor) -> Tensor:
    """(n, N) of points (n, D) and others (N, D), from differences, so that copies have 0."""
    mode = "donot_use_mm_for_euclid_dist"
    rows = points.split(max(1, EXACT // others.shape[1]))
    parts = [torch.cdist(some_of_them, others, compute_mode=mode) for some_of_them in rows]
    return torch.cat(parts).square().float()


def log_densities(
    squared: Tensor, spread: Tensor, dims: int, weight: Tensor | float = 0.0
) -> Tensor:
    """Of isotropic Gaussians with log variances (n,), at squared distances (N, n), and their log
    weights (n,)."""
    height = weight - 0.5 * dims * (spread + math.log(2 * math.pi))
    return torch.addcmul(height, squared, -0.5 * (-spread).exp())
