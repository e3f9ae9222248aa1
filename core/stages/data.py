"""The images that a stage works on: those of a data set, or those that another stage made."""

from __future__ import annotations

from abc import abstractmethod

from fw.core.kinds import Dataset
from fw.core.kinds.boundaries import checked_images
from fw.core.stages.base import Products, Stage
from fw.core.types import ImageSet, Split


class ImageStage(Stage):
    """A stage that makes images, on which other stages can work."""

    @property
    def name(self) -> str:
        """What its images are called where a data set has its name."""
        return self.title

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """How many classes their labels have; 0 where there are none."""

    @abstractmethod
    def images(self, split: Split, products: Products) -> ImageSet:
        """The product as a split of images; FwError if it has no such split."""


Data = Dataset | ImageStage
"""What has splits of images. A key holds the identity of a data set, and the id of a stage."""


def load_split(data: Data, split: Split, products: Products) -> ImageSet:
    """The images of a split, with their labels where there are any."""
    if isinstance(data, ImageStage):
        return data.images(split, products)
    return checked_images(data, data.load(split), split)
