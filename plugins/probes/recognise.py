"""What a joint model itself recognises in held-out images (HybViT, arXiv 2208.07791; JDM, arXiv
2301.13622)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fw.core.job import Job
from fw.core.kinds import LogitProbe
from fw.core.types import Examples
from fw.plugins.probes.labels import accuracy
from fw.plugins.probes.matching import named_by

NAMED, MATCHED, MAJORITY = "joint_accuracy", "joint_accuracy_matched", "joint_accuracy_majority"


class Recognise(LogitProbe):
    """Accuracy of a joint model's own classes on held-out images.

    `joint_accuracy` if it was trained with labels. Clusters have no names: each is given the label
    that it is matched with on the training images, `joint_accuracy_matched`, no label twice, by the
    Hungarian method; and if there are more clusters than labels, the label of most of its images,
    `joint_accuracy_majority`, which rises with their number. Both are above chance for random
    clusters, which are named in the same way: compare with such an arm, and with the accuracy that
    probe `clusters` finds of the encoder.
    """

    name: ClassVar[str] = "recognise"

    @property
    def keys(self) -> Mapping[str, str]:
        return {self._key(score): "higher" for score in (NAMED, MATCHED, MAJORITY)}

    def _key(self, score: str) -> str:
        return score + self.protocol.removeprefix("model")

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        found = test.features.argmax(dim=1)  # (M,)
        if train.named:
            return {self._key(NAMED): accuracy(found, test)}
        names, one_to_one = named_by(train.features.argmax(dim=1), train.features.shape[1], train)
        return {self._key(MATCHED if one_to_one else MAJORITY): accuracy(names[found], test)}
