"""AuthPct: the percentage of samples that a training image is not nearer to than to its own nearest
neighbour (Alaa et al., arXiv 2102.08921, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from pydantic import Field
from torch import Tensor

from fw.core.kinds import Encoder, Metric
from fw.core.types import Reference
from fw.plugins.metrics.features import checked
from fw.plugins.metrics.naming import key_in
from fw.plugins.metrics.neighbours import nearest, radii


class Prepared(NamedTuple):
    """Training images (N, D), and how far each is from its nearest neighbour among them (N,)."""

    train: Tensor
    apart: Tensor


class AuthPct(Metric):
    """The percentage of samples that are authentic: further from their nearest training image than
    that is from any other (arXiv 2102.08921).

    It is here for comparison with papers. It falls with any loss of variance, too, and nothing in
    it says what new images have: 70 % in 16 dimensions, 16 % if they are shrunk to 0.3
    (docs/comparing.md). `memorisation_copies` of the metric `memorisation` is calibrated.
    """

    name: ClassVar[str] = "authpct"
    on_device: ClassVar[bool] = True

    space: Encoder = Field(
        "pca", validate_default=True, description="encoder in whose features distances are taken"
    )

    @property
    def least_images(self) -> int:
        return 2

    @property
    def keys(self) -> Mapping[str, str]:
        return {self._key: "higher"}

    @property
    def _key(self) -> str:
        return key_in(self.space, "authpct", home="pca")

    def measure(self, reference: Reference) -> dict[str, Tensor]:
        [apart] = radii(checked(reference.train, 2, "real images"), 1)
        return {"apart": apart}

    def prepare(self, reference: Reference) -> Prepared:
        return Prepared(reference.train, **self.measured(reference))

    def compare(
        self, prepared: Prepared, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        to_train = nearest(checked(fake, 2, "samples"), prepared.train)
        authentic = prepared.apart[to_train.number] < to_train.distance
        return {self._key: 100 * float(authentic.double().mean())}
