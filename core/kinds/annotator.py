"""One condition per image, of features or labels: the model's own labels."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from fw.core.job import Job
from fw.core.types import Annotation, ConditionSpec, Observations
from fw.registry import Component


class Annotator(Component):
    """Turns features (or labels) into one condition per image: the model's own labels."""

    kind: ClassVar[str] = "annotator"
    uses_features: ClassVar[bool] = True
    """Whether it looks at an encoder's features."""
    uses_labels: ClassVar[bool] = False
    """Whether it looks at labels; without this it is never given any."""
    form: ClassVar[str] = "class"
    """The form of the conditions that it makes: `class`, `vector` or `tokens`."""

    @property
    def partial(self) -> bool:
        """Whether it may leave images without a condition, by the class -1; its annotation then has a bank.

        A conditional model learns such images without a condition, a joint one only to denoise them.
        """
        return False

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"labels"}) if self.uses_labels else frozenset()

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"conditions"}) if self.uses_labels else frozenset({"conditions", "label_free"})

    @property
    def least_images(self) -> int:
        """How many training images it needs; fewer are refused when a recipe is validated."""
        return 1

    def makes(self, classes: int) -> ConditionSpec | None:
        """The form and number of its conditions, of images with labels of so many classes; None if only annotating
        tells. Asked when a recipe is validated."""
        return None

    def caution(self, images: int, classes: int) -> str | None:
        """What is to be known before it annotates so many images with labels of so many classes; None if nothing is."""
        return None

    @abstractmethod
    def annotate(self, data: Observations, job: Job) -> Annotation:
        """Annotate the training images. Undeclared features or labels are None in `data`."""
