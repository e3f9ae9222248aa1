"""The stages of each arm of a recipe, put together: what reads what. A new stage is a line here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fw.core.errors import FwError
from fw.core.kinds import Encoder, Metric, Probe, Sibling
from fw.core.plan.graph import AnyStage, ArmPlan, Plan
from fw.core.recipe.model import Recipe
from fw.core.settings import Train
from fw.core.stages.annotate import Annotate
from fw.core.stages.base import Stage
from fw.core.stages.encode import Encode
from fw.core.stages.evaluate import Evaluate
from fw.core.stages.features import SampleFeatures
from fw.core.stages.latents import EncodeLatents
from fw.core.stages.prior import FitPrior
from fw.core.stages.probe import ApplyProbe
from fw.core.stages.reference import MeasureReference
from fw.core.stages.sample import Sample
from fw.core.stages.train import TrainDenoiser

EVALUATOR_SEED = 0
"""Evaluators have their own seed, so that runs with other seeds are scored by the same ruler."""


def plan(recipe: Recipe, arms: Sequence[str] = ()) -> Plan:
    """The plan of the named arms, of all if none is named."""
    for name in arms:
        if name not in recipe.arms:
            raise FwError(
                f"--arm {name}: no such arm in recipe '{recipe.name}' (known: "
                f"{', '.join(recipe.arms)})"
            )
    result = Plan()
    for name in arms or recipe.arms:
        result.arms[name] = Assembly(result, recipe, name).whole()
    for seed in recipe.seeds[1:]:
        again = recipe.model_copy(update={"seed": seed})
        for name, arm in result.arms.items():
            arm.again[seed] = Assembly(result, again, name, f"seed {seed}").whole()
    return result


class Assembly:
    """Adds the stages of one arm to a plan, sharing those that are there."""

    def __init__(self, plan: Plan, recipe: Recipe, name: str, note: str = ""):
        self.plan = plan
        self.recipe = recipe
        self.name = name
        self.note = note
        self.arm = recipe.arm(name)

    def whole(self) -> ArmPlan:
        arm, recipe = self.arm, self.recipe
        conditioned = self.encode(arm.conditioner, recipe.seed)
        annotate: Stage | None = None
        if arm.annotator is not None and arm.online is None:
            annotate = self.add(
                Annotate(recipe.dataset, arm.annotator, conditioned, seed=recipe.seed)
            )
        train = self.train(annotate)
        conditions = train.conditions
        prior = None
        if arm.drawn_from is not None and conditions is not None:
            prior = self.add(FitPrior(arm.drawn_from, conditions, seed=recipe.seed))
        sample = self.sample(train, conditions, prior)
        judged = [*self.scores(sample), *self.probes(conditioned, train, conditions)]
        return ArmPlan(arm, sample, judged, conditioned)

    def add(self, stage: AnyStage) -> AnyStage:
        return self.plan.add(replace(stage, note=self.note) if self.note else stage)

    def encode(self, encoder: Encoder | None, seed: int) -> Encode | None:
        if encoder is None:
            return None
        return self.add(Encode(self.recipe.dataset, encoder, seed=seed))

    def latents(self, train: Train) -> EncodeLatents | None:
        """What a training reads in place of the images: their latents, for `flip` also of their
        mirror images."""
        if self.recipe.latents is None:
            return None
        return self.add(EncodeLatents(self.recipe.dataset, self.recipe.latents, train.flip))

    def train(self, annotate: Stage | None) -> TrainDenoiser:
        arm, recipe = self.arm, self.recipe
        latents = self.latents(arm.train)
        return self.add(
            TrainDenoiser(
                recipe.dataset,
                arm.model,
                arm.process,
                arm.train,
                annotator=arm.online,
                objectives=arm.objectives,
                annotate=annotate,
                latents=latents,
                targets=tuple(
                    self.encode(objective.target, recipe.seed) for objective in arm.objectives
                ),
                seed=recipe.seed,
            )
        )

    def sibling(
        self, model: TrainDenoiser, wanted: Sibling | None, conditions: Stage | None
    ) -> TrainDenoiser | None:
        """The worse network that an entry of the guidance asks for, on the data and conditions
        of the arm's own."""
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
        return self.add(worse)

    def sample(
        self, train: TrainDenoiser, conditions: Stage | None, prior: FitPrior | None
    ) -> Sample:
        arm, recipe = self.arm, self.recipe
        siblings = tuple(self.sibling(train, wanted, conditions) for wanted in arm.siblings)
        models = tuple(None if sibling is None else sibling.model for sibling in siblings)
        return self.add(
            Sample(
                recipe.dataset,
                arm.model,
                arm.process,
                arm.sampler,
                arm.guidance,
                recipe.samples.counted,
                recipe.samples.precision or arm.train.precision,
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
            evaluate = Evaluate(
                self.recipe.dataset,
                metric,
                self.recipe.samples.counted,
                sample,
                space,
                self.add(SampleFeatures(self.recipe.dataset, metric.space, sample, space)),
                self.reference(metric, space),
            )
            if metric.reads_conditions:
                evaluate = replace(
                    evaluate, annotate=sample.annotate, prior=sample.prior, seed=self.recipe.seed
                )
            found.append(self.add(evaluate))
        return found

    def reference(self, metric: Metric, space: Encode) -> MeasureReference | None:
        """What the metric measures of real images alone, if it does."""
        return (
            self.add(MeasureReference(self.recipe.dataset, metric, space))
            if metric.measures
            else None
        )

    def probes(
        self, encode: Encode | None, train: TrainDenoiser, conditions: Stage | None
    ) -> list[Stage]:
        """Every probe for which the arm has what it reads. Like evaluators, probes have their
        own seed: they are the ruler."""
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
            found.append(self.add(stage))
        return found

    def taught(self, probe: Probe) -> bool | None:
        """Whether the classes that such a probe reads were made with labels; None of one that
        reads none."""
        if not probe.reads_classes or self.arm.annotator is None:
            return None
        return self.arm.annotator.uses_labels
