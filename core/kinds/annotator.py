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
    control: ClassVar[bool] = False
    """Whether its conditions are not meant to say anything of their image, so that arms can be
    compared with it."""
    form: ClassVar[str] = "class"
    """The form of the conditions that it makes: `class`, `vector` or `tokens`."""

    @property
    def partial(self) -> bool:
        """Whether it may leave images without a condition: they get class -1, and its annotation
        has a bank.

        A conditional model learns such images without a condition. A joint model only denoises
        them.
        """
        return False

    @property
    def shares(self) -> bool:
        """Whether a team is worth its start: all members of `job.team` then annotate, each its
        rows, and return the whole annotation. Else one process does it."""
        return False

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"labels"}) if self.uses_labels else frozenset()

    @property
    def provides(self) -> frozenset[str]:
        return (
            frozenset({"conditions"})
            if self.uses_labels
            else frozenset({"conditions", "label_free"})
        )

    @property
    def least_images(self) -> int:
        """How many training images it needs; fewer are refused when a recipe is validated."""
        return 1

    def makes(self, classes: int) -> ConditionSpec | None:
        """The form and number of its conditions, where the labels of the images have so many
        classes. None if that is known only after annotating. Called when a recipe is validated."""
        return None

    def caution(self, images: int, classes: int) -> str | None:
        """A warning to give before it annotates so many images, whose labels have so many
        classes; or None."""
        return None

    @abstractmethod
    def annotate(self, data: Observations, job: Job) -> Annotation:
        """Annotate the training images. Undeclared features or labels are None in `data`."""
