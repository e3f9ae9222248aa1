"""Do samples show what they were asked for? An independent classifier of clean images judges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from fw.core.errors import StageFailed
from fw.core.features.logistic import accuracy_of, linear_probe
from fw.core.kinds import Encoder, Metric
from fw.core.types import Reference
from fw.plugins.metrics.features import checked
from fw.plugins.metrics.naming import key_in


class Agreement(Metric):
    """The share of samples in which an independent classifier sees the class that they were asked
    for.

    The judge is logistic regression on the features of real training images, fitted to the classes
    of the arm's annotation, so clusters can be judged as labels can; of labels it is shown all, so
    that arms that know a few of them have the same judge as the others. A model that is told
    nothing and not guided agrees by chance. The floor is the judge's accuracy on held-out images;
    clusters have none, because held-out images are in no cluster.
    """

    name: ClassVar[str] = "agreement"
    reads_conditions: ClassVar[bool] = True

    space: Encoder = Field(
        "classifier", validate_default=True, description="encoder whose features the judge reads"
    )

    @property
    def keys(self) -> Mapping[str, str]:
        return {key_in(self.space, "agreement", home="classifier"): "higher"}

    def prepare(self, reference: Reference) -> Any:
        """The judge."""
        assert reference.conditions is not None
        known = (reference.conditions >= 0).nonzero().flatten()
        if len(reference.conditions[known].unique()) < 2:
            raise StageFailed(
                "agreement needs images of two classes or more, or there is nothing to judge"
            )
        features = checked(reference.train, 2, "real images")
        return linear_probe(features, reference.conditions, places=known)

    def compare(
        self, prepared: Any, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        assert wanted is not None
        [key] = self.keys
        return {key: accuracy_of(prepared, checked(fake, 1, "samples"), wanted)}
