"""How features of samples compare with those of real images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from fw.core.kinds.encoder import Encoder
from fw.core.kinds.floor import mean_of_sets
from fw.core.kinds.version_1 import OldMetrics
from fw.core.types import Reference
from fw.registry import Component


class Metric(Component, metaclass=OldMetrics):
    """Compares features of samples with features of real images, in the space of an encoder.

    A subclass has a field `space: Encoder`, and fits what it needs of real images in `prepare`.
    """

    kind: ClassVar[str] = "metric"
    reads_conditions: ClassVar[bool] = False
    """Whether it scores how samples fit the classes that they were asked for. Arms without
    classes are not scored."""
    on_device: ClassVar[bool] = False
    """Whether it computes with features on the job's device; others are given them on the CPU."""
    convention: ClassVar[int | None] = None
    """How many samples a score has in papers under its name, if it says little of fewer."""
    extrapolates: ClassVar[bool] = False
    """Whether `floor` is of as many images as there are samples even where fewer are held out."""
    space: Encoder

    @property
    def measures(self) -> bool:
        """Whether `measure` finds out anything."""
        return type(self).measure is not Metric.measure

    @property
    def in_figures(self) -> tuple[str, ...]:
        """The keys that figures show where there is no room for all; the others say the same in
        another form, or less."""
        return tuple(self.keys)

    @property
    def requires(self) -> frozenset[str]:
        return self.space.requires

    def preflight(self) -> None:
        self.space.preflight()

    @property
    def least_images(self) -> int:
        """How many samples, held-out and training images it needs each; fewer are refused when a
        recipe is validated."""
        return 1

    def measure(self, reference: Reference) -> Mapping[str, Tensor]:
        """What takes long to find out of real images, by names of its choice. It is kept in the
        store, once for all arms and runs with this space and these images, and given back as
        `reference.measured`; so it must be a function of the two sets of features alone, of which
        `reference` holds nothing else here. As it stands, nothing is measured and nothing kept."""
        return {}

    def measured(self, reference: Reference) -> Mapping[str, Tensor]:
        """What was kept of the reference; where nothing was, it is measured now."""
        return self.measure(reference) if reference.measured is None else reference.measured

    def prepare(self, reference: Reference) -> Any:
        """What `compare` needs of the reference: what is fitted to it, once for all that is
        compared with it. As it stands, the reference itself."""
        return reference

    def by_chance(self, prepared: Any, count: int) -> Mapping[str, tuple[float, float]]:
        """Between what values a score of `count` new real images would lie, 95 times in 100, by its
        key; for those scores of which it is known. `prepared` is what `prepare` made."""
        return {}

    def floor(
        self, prepared: Any, held_out: Tensor, count: int, wanted: Tensor | None = None
    ) -> Mapping[str, float]:
        """What `count` new real images would score in the place of samples, by held-out ones (M,
        D): the mean over sets of `count` of them. Where there are fewer, all of them are compared,
        and keys whose scores change with the number of images should be left out. `wanted` are
        their classes (M,), as for `compare`."""
        return mean_of_sets(self.compare, prepared, held_out, count, wanted)

    def real_images(self, train: int, samples: int) -> int:
        """How many of `train` training images so many samples are compared with; of none is 0."""
        return train

    @property
    def by_position(self) -> frozenset[str]:
        """The keys whose scores are of subsets of the samples, chosen by position: only these may
        change with the samples' order."""
        return frozenset()

    @property
    @abstractmethod
    def keys(self) -> Mapping[str, str]:
        """The keys that `compare` returns, each with `lower` or `higher`: which is better."""

    @abstractmethod
    def compare(
        self, prepared: Any, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        """Score features (n, D) of samples against what `prepare` made, which stays as it is: it is
        compared with the samples of each seed, and with held-out images, for the floor.

        `wanted` are the classes (n,) that the samples were to show, for a metric that reads
        conditions, and else None. Such a metric has a floor only where they are labels: then
        held-out images have them, too.
        """
