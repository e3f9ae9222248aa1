"""A recipe as a graph of content-addressed stages; arms that agree on a stage share it.

    encode -> annotate -> train -> sample -> evaluate
                    `---> prior -----^

Where the recipe has `latents`, train reads those of a stage of this name in place of the images. Where it has `probes`,
a stage `probe` reads encode or train. Where an objective learns an encoder's features, train reads encode.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from fw.core.errors import FwError
from fw.core.kinds import Encoder, Probe
from fw.core.recipe.arm import Arm
from fw.core.recipe.model import Recipe
from fw.core.settings import Train
from fw.core.stages.annotate import Annotate
from fw.core.stages.base import Stage
from fw.core.stages.encode import Encode
from fw.core.stages.evaluate import Evaluate
from fw.core.stages.latents import EncodeLatents
from fw.core.stages.prior import FitPrior
from fw.core.stages.probe import ApplyProbe
from fw.core.stages.sample import Sample
from fw.core.stages.train import TrainDenoiser

EVALUATOR_SEED = 0
"""Evaluators have their own seed, so that runs with other seeds are scored by the same ruler."""

AnyStage = TypeVar("AnyStage", bound=Stage)


@dataclass
class ArmPlan:
    """One arm's stages: those that lead to its images, and those that judge it. Properties give ids."""

    arm: Arm
    drawn: Sample
    judged: list[Stage]
    """What is found of the arm beside its images, in the order of the report."""
    conditioned: Encode | None = None
    """The encoder whose features its conditions are made of."""

    @property
    def nfe(self) -> int:
        """Network evaluations per image, as far as the fields say."""
        return self.arm.nfe

    def stages(self) -> list[str]:
        before = [self.encode, self.annotate, self.prior, self.latents]
        chain = [*before, self.train, *self.siblings, self.sample, *ids(self.judged)]
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
        """An arm's stages and, through their inputs, the feature spaces it is scored in."""
        inputs = {source for stage in arm.stages() for source in self.stages[stage].inputs.values()}
        return inputs.union(arm.stages())

    def priority(self, stage: str) -> int:
        """The cost of the longest chain of work that waits for this stage, itself included."""
        after = [other.id for other in self.stages.values() if stage in other.inputs.values()]
        return self.stages[stage].cost + max(map(self.priority, after), default=0)


def plan(recipe: Recipe, arms: Sequence[str] = ()) -> Plan:
    """The plan of the named arms, of all if none is named."""
    for name in arms:
        if name not in recipe.arms:
            raise FwError(f"--arm {name}: no such arm in recipe '{recipe.name}' (known: {', '.join(recipe.arms)})")
    result = Plan()
    for name in arms or recipe.arms:
        result.arms[name] = Assembly(result, recipe, name).whole()
    return result


class Assembly:
    """Adds the stages of one arm to a plan, sharing those that are there."""

    def __init__(self, plan: Plan, recipe: Recipe, name: str):
        self.plan = plan
        self.recipe = recipe
        self.name = name
        self.arm = recipe.arm(name)

    def whole(self) -> ArmPlan:
        arm, recipe = self.arm, self.recipe
        conditioned = self.encode(arm.conditioner, recipe.seed)
        annotate: Stage | None = None
        if arm.annotator is not None and arm.online is None:
            annotate = self.plan.add(Annotate(recipe.dataset, arm.annotator, conditioned, seed=recipe.seed))
        train = self.train(annotate)
        conditions = train.conditions
        prior = None
        if arm.drawn_from is not None and conditions is not None:
            prior = self.plan.add(FitPrior(arm.drawn_from, conditions, seed=recipe.seed))
        sample = self.sample(train, conditions, prior)
        judged = [*self.scores(sample), *self.probes(conditioned, train, conditions)]
        return ArmPlan(arm, sample, judged, conditioned)

    def encode(self, encoder: Encoder | None, seed: int) -> Encode | None:
        return None if encoder is None else self.plan.add(Encode(self.recipe.dataset, encoder, seed=seed))

    def latents(self, train: Train) -> EncodeLatents | None:
        """What a training reads in place of the images: their latents, for `flip` also of their mirror images."""
        if self.recipe.latents is None:
            return None
        return self.plan.add(EncodeLatents(self.recipe.dataset, self.recipe.latents, train.flip))

    def train(self, annotate: Stage | None) -> TrainDenoiser:
        arm, recipe = self.arm, self.recipe
        latents = self.latents(arm.train)
        return self.plan.add(
            TrainDenoiser(
                recipe.dataset,
                arm.model,
                arm.process,
                arm.train,
                annotator=arm.online,
                objectives=arm.objectives,
                annotate=annotate,
                latents=latents,
                targets=tuple(self.encode(objective.target, recipe.seed) for objective in arm.objectives),
                seed=recipe.seed,
            )
        )

    def sibling(self, model: TrainDenoiser, place: int, conditions: Stage | None) -> TrainDenoiser | None:
        """The worse network that an entry of the guidance asks for, on the data and conditions of the arm's own."""
        wanted = self.arm.siblings[place]
        if wanted is None:
            return None
        worse = TrainDenoiser(
            self.recipe.dataset,
            wanted.model,
            self.arm.process,
            wanted.train,
            annotate=conditions,
            latents=self.latents(wanted.train),
            worse_than=model.model,
            seed=self.recipe.seed,
        )
        return self.plan.add(worse)

    def sample(self, train: TrainDenoiser, conditions: Stage | None, prior: FitPrior | None) -> Sample:
        arm, recipe = self.arm, self.recipe
        siblings = tuple(self.sibling(train, place, conditions) for place in range(len(arm.guidance)))
        models = tuple(None if sibling is None else sibling.model for sibling in siblings)
        return self.plan.add(
            Sample(
                recipe.dataset,
                arm.model,
                arm.process,
                arm.sampler,
                arm.guidance,
                recipe.samples,
                arm.train.precision,
                train,
                latents=recipe.latents,
                annotate=conditions,
                prior=prior,
                siblings=siblings,
                sibling_models=models if any(models) else (),
                arm=self.name,
                seed=recipe.seed,
            )
        )

    def scores(self, sample: Sample) -> list[Stage]:
        """Every metric for which the arm has what it compares."""
        found: list[Stage] = []
        for metric in filter(self.arm.scored_by, self.recipe.metrics):
            space = self.encode(metric.space, EVALUATOR_SEED)
            assert space is not None
            evaluate = Evaluate(self.recipe.dataset, metric, self.recipe.samples, sample, space)
            if metric.reads_conditions:
                evaluate = replace(evaluate, annotate=sample.annotate, prior=sample.prior, seed=self.recipe.seed)
            found.append(self.plan.add(evaluate))
        return found

    def probes(self, encode: Encode | None, train: TrainDenoiser, conditions: Stage | None) -> list[Stage]:
        """Every probe for which the arm has what it reads. Like evaluators, probes have their own seed: they are the
        ruler."""
        found: list[Stage] = []
        for probe in filter(self.arm.probed_by, self.recipe.probes):
            if probe.of == "encoder":
                stage = ApplyProbe(self.recipe.dataset, probe, encode, seed=EVALUATOR_SEED)
            else:
                stage = ApplyProbe(
                    self.recipe.dataset,
                    probe,
                    train=train,
                    annotate=conditions,
                    latents=self.recipe.latents,
                    model=self.arm.model,
                    process=self.arm.process,
                    precision=self.arm.train.precision,
                    taught=self.taught(probe),
                    seed=EVALUATOR_SEED,
                )
            found.append(self.plan.add(stage))
        return found

    def taught(self, probe: Probe) -> bool | None:
        """Whether the classes that such a probe reads were made with labels; None of one that reads none."""
        if not probe.reads_classes or self.arm.annotator is None:
            return None
        return self.arm.annotator.uses_labels
