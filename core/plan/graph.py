"""A recipe as a graph of content-addressed stages; arms that agree on a stage share it.

    encode -> annotate -> train -> sample -> evaluate
                    `---> prior -----^

All metrics of a space read the samples' `features` in it, and each what it measured of real images,
its `reference`. Where the recipe has `latents`, train reads those of a stage of this name in place
of the images. Where it has `probes`, a stage `probe` reads encode or train. Where an objective
learns an encoder's features, train reads encode.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from fw.core.recipe.arm import Arm
from fw.core.stages.base import Stage
from fw.core.stages.encode import Encode
from fw.core.stages.evaluate import Evaluate
from fw.core.stages.probe import ApplyProbe
from fw.core.stages.sample import Sample

AnyStage = TypeVar("AnyStage", bound=Stage)


@dataclass
class ArmPlan:
    """One arm's stages: those that lead to its images, and those that judge it. Properties give
    ids, of the recipe's own seed where it is trained from several."""

    arm: Arm
    drawn: Sample
    judged: list[Stage]
    """What is found of the arm beside its images, in the order of the report."""
    conditioned: Encode | None = None
    """The encoder whose features its conditions are made of."""
    again: dict[int, ArmPlan] = field(default_factory=dict)
    """The same from other seeds."""

    @property
    def trainings(self) -> dict[int, ArmPlan]:
        """All of them, by seed."""
        return {self.drawn.seed or 0: self, **self.again}

    @property
    def nfe(self) -> int:
        """Network evaluations per image, as far as the fields say."""
        return self.arm.nfe

    def stages(self) -> list[str]:
        """Its own, without those of other seeds."""
        before = [self.encode, self.annotate, self.prior, self.latents]
        drawn = [*self.siblings, self.sample, *self.features]
        chain = [*before, self.train, *drawn, *ids(self.judged)]
        return list(dict.fromkeys(stage for stage in chain if stage is not None))

    @property
    def encode(self) -> str | None:
        return id_of(self.conditioned)

    @property
    def annotate(self) -> str | None:
        """With an online annotator this is the training, which makes the annotation."""
        return id_of(self.drawn.annotate)

    @property
    def prior(self) -> str | None:
        return id_of(self.drawn.prior)

    @property
    def latents(self) -> str | None:
        return id_of(self.drawn.train.latents)

    @property
    def train(self) -> str:
        return self.drawn.train.id

    @property
    def siblings(self) -> list[str]:
        return ids(sibling for sibling in self.drawn.siblings if sibling is not None)

    @property
    def sample(self) -> str:
        return self.drawn.id

    @property
    def evaluate(self) -> list[str]:
        return ids(stage for stage in self.judged if isinstance(stage, Evaluate))

    @property
    def features(self) -> list[str]:
        return ids(stage.features for stage in self.judged if isinstance(stage, Evaluate))

    @property
    def probes(self) -> list[str]:
        return ids(stage for stage in self.judged if isinstance(stage, ApplyProbe))


def id_of(stage: Stage | None) -> str | None:
    return None if stage is None else stage.id


def ids(stages: Iterable[Stage]) -> list[str]:
    return [stage.id for stage in stages]


@dataclass
class Plan:
    """All stages in an order in which they can run, and which of them each arm uses."""

    stages: dict[str, Stage] = field(default_factory=dict)
    arms: dict[str, ArmPlan] = field(default_factory=dict)

    def add(self, stage: AnyStage) -> AnyStage:
        """The stage, or the one of the same key that is there already."""
        return self.stages.setdefault(stage.id, stage)  # type: ignore[return-value]  # an id names the type

    def users(self, stage: str) -> list[str]:
        """The arms that a stage works for."""
        return [name for name, arm in self.arms.items() if stage in self.needed(arm)]

    def needed(self, arm: ArmPlan) -> set[str]:
        """An arm's stages, from every seed, and, through their inputs, the feature spaces it is
        scored in."""
        own = {stage for training in arm.trainings.values() for stage in training.stages()}
        return own.union(*(self.stages[stage].inputs.values() for stage in own))

    def priority(self, stage: str) -> int:
        """The cost of the longest chain of work that waits for this stage, itself included."""
        after = [other.id for other in self.stages.values() if stage in other.inputs.values()]
        return self.stages[stage].cost + max(map(self.priority, after), default=0)
