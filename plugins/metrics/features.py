"""What features have to be before they are compared: finite, enough and, in custom spaces, of
unit scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fw.core.errors import StageFailed
from fw.core.machine.tables import in_parts

INDISTINCT = "the features of all real images are equal: this space cannot tell images apart"


def checked(features: Tensor, at_least: int, of: str) -> Tensor:
    """The features (n, D); StageFailed if any is not finite or if there are fewer than
    `at_least`."""
    if len(features) < at_least:
        raise StageFailed(
            f"{len(features)} {of} are too few for this metric, it needs at least {at_least}"
        )
    parts = in_parts(features)
    wrong = int(sum((~torch.isfinite(few)).any(dim=1).sum() for few in parts))
    if wrong:
        raise StageFailed(
            f"the features of {wrong} of {len(features)} {of} are not finite, so they cannot be "
            "compared"
        )
    return features


@dataclass(frozen=True)
class Scale:
    """The mean (D,) of real images' features, and their one global scale sqrt(tr(cov) / D).

    One scale for all dimensions keeps the geometry of the space, and makes values of different
    spaces comparable in size; KID's kernel (x.y / D + 1)^3 needs it.
    """

    mean: Tensor
    size: Tensor

    @staticmethod
    def of(real: Tensor) -> Scale:
        """Double; StageFailed if all features (N, D) are equal."""
        real = real.double()
        size = real.var(dim=0).mean().sqrt()
        if not size > 0:
            raise StageFailed(INDISTINCT)
        return Scale(real.mean(dim=0), size)

    def standardised(self, features: Tensor) -> Tensor:
        return (features.double() - self.mean) / self.size
