"""Are samples copies of training images? No Frechet distance sees it: exact copies score best of
all.

Two questions are asked of the distance from each sample to its nearest training image: is it
smaller than that of held-out images, and is there a held-out image that is as near? Samples that
depend on the distribution alone have training and held-out images as neighbours as often as there
are such images (Platzer and Reutterer, arXiv 2104.00635), whatever else is wrong with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from fw.core.errors import StageFailed
from fw.core.kinds import Encoder, Metric
from fw.core.randomness import generator
from fw.core.types import Reference
from fw.plugins.metrics.features import checked
from fw.plugins.metrics.naming import key_in
from fw.plugins.metrics.neighbours import Nearest, nearest

CLOSEST = 0.01
"""The share of held-out images whose distance is called close."""

SETS = 500
"""Sets of new images that are drawn to say how much their scores differ by chance."""

NORMAL = 1.96
"""95 of 100 draws of a standard normal lie within this of 0."""


class Prepared(NamedTuple):
    """The training and held-out images, and how far the latter lie from the former (M,)."""

    train: Tensor
    held_out: Tensor
    apart: Tensor


class Memorisation(Metric):
    """Are samples copies? Their nearest training images, against those of held-out images and
    against held-out images.

    `memorisation_ratio` is the ratio of the median distances: copies have 0, new images 1. It falls
    with any loss of variance, too: normal samples shrunk to 0.3 in 16 dimensions have 0.7.
    `memorisation_close` is the share of samples that lie closer than the closest 1 % of held-out
    images: new images have 0.01, with a standard deviation of sqrt(0.0099 (1 / n + 1 / M)) for n
    samples and M held-out images, which is 0.0055 at 3,000 and 360.

    `memorisation_copies` estimates the share of samples that are copies: how much more often a
    training image is nearer than any held-out one than there are more of them (arXiv 2104.00635).
    Copies have 1, images that depend on no training image 0, whatever their variance.
    `memorisation_z` is the same in standard deviations under exchange of training and held-out
    images: 95 of 100 sets of new images lie between -1.96 and 1.96. So the standard error of
    `memorisation_copies` is about that score over its z. Both suppose that images were held out at
    random: where the floor's z is far from 0, the splits differ.
    """

    version: ClassVar[int] = 2
    on_device: ClassVar[bool] = True
    name: ClassVar[str] = "memorisation"

    space: Encoder = Field(
        "pca", validate_default=True, description="encoder in whose features distances are taken"
    )

    @property
    def least_images(self) -> int:
        return 2

    @property
    def keys(self) -> Mapping[str, str]:
        return {
            self._key("ratio"): "higher",
            self._key("close"): "lower",
            self._key("copies"): "lower",
            self._key("z"): "lower",
        }

    def _key(self, score: str) -> str:
        return key_in(self.space, f"memorisation_{score}", home="pca")

    def measure(self, reference: Reference) -> dict[str, Tensor]:
        train = checked(reference.train, 2, "real images")
        held_out = checked(reference.held_out, 2, "held-out images")
        apart, _ = nearest(held_out, train)
        if not apart.quantile(0.5) > 0:
            raise StageFailed(
                "most held-out images are in the training set, so copies cannot be told from new "
                "images"
            )
        return {"apart": apart}

    def prepare(self, reference: Reference) -> Prepared:
        return Prepared(reference.train, reference.held_out, **self.measured(reference))

    def compare(
        self, prepared: Prepared, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        samples = checked(fake, 2, "samples")
        to_train = nearest(samples, prepared.train)
        to_held_out = nearest(samples, prepared.held_out, of_others=True)
        ratio, close = distances_compared(to_train.distance, prepared.apart)
        copies, z = sides_compared(
            to_train, to_held_out, len(prepared.train), len(prepared.held_out)
        )
        return {
            self._key("ratio"): ratio,
            self._key("close"): close,
            self._key("copies"): copies,
            self._key("z"): z,
        }

    def by_chance(self, prepared: Prepared, count: int) -> dict[str, tuple[float, float]]:
        """The first two by drawing images again from those that are held out, in the place of
        samples and of held-out images; the last by its definition."""
        draw, apart = generator("memorisation", "chance"), prepared.apart.cpu()
        held_out = len(apart)

        def drawn(size: int) -> Tensor:
            return apart[torch.randint(held_out, (size,), generator=draw)]

        sets = [distances_compared(drawn(count), drawn(held_out)) for _ in range(SETS)]
        scores = torch.tensor(sets, dtype=torch.float64)  # (SETS, 2)
        finite = scores[scores.isfinite().all(dim=1)]
        low, high = finite.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
        return {
            self._key("ratio"): (low[0].item(), high[0].item()),
            self._key("close"): (low[1].item(), high[1].item()),
            self._key("z"): (-NORMAL, NORMAL),
        }


def distances_compared(samples: Tensor, held_out: Tensor) -> tuple[float, float]:
    """Of distances to the nearest training image (n,) and (M,): the ratio of the medians, and the
    share of samples below the closest held-out ones. A median of 0 makes the ratio infinite."""
    ratio = samples.quantile(0.5) / held_out.quantile(0.5)
    close = (samples < held_out.quantile(CLOSEST)).double().mean()
    return float(ratio), float(close)


def sides_compared(
    to_train: Nearest, to_held_out: Nearest, train: int, held_out: int
) -> tuple[float, float]:
    """The share of copies and its z, of samples among `train` and `held_out` real images.

    If training and held-out images could be exchanged, the number of samples whose nearest image is
    a training image would be a sum of `train` numbers drawn without replacement from all
    `train + held_out`: how many samples each real image is the nearest to. That sum has a known
    mean and variance.
    """
    nearer = (to_train.distance < to_held_out.distance).double()
    nearer[to_train.distance == to_held_out.distance] = 0.5
    nearest_to = torch.cat(
        [
            to_train.number.bincount(weights=nearer, minlength=train),
            to_held_out.number.bincount(weights=1 - nearer, minlength=held_out),
        ]
    )
    count, real = len(nearer), train + held_out
    excess = nearer.sum() - count * train / real
    deviation = (train * held_out / real * nearest_to.var()).sqrt()
    copies = excess / (count * held_out / real)
    return float(copies), float(excess / deviation) if deviation > 0 else 0.0
