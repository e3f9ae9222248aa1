"""A recipe as a graph of content-addressed stages; arms that agree on a stage share it.

    encode -> annotate -> train -> sample -> evaluate
                    `---> prior -----^

Where the recipe has `latents`, train reads those of a stage of this name in place of the images. Where it has `probes`,
a stage `probe` reads encode or train. Where an objective learns an encoder's features, train reads encode.

A stage's key is the sha256 of the canonical JSON of everything that decides its product: the components' identities,
its inputs' keys, the seed and the stage's version. How it is run (device, jobs, folders) is not in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fw.core.errors import FwError
from fw.core.kinds import Encoder, Objective, Probe
from fw.core.recipe.arm import Arm
from fw.core.recipe.model import Recipe
from fw.core.settings import Train
from fw.core.stages.roles import sibling_role, target_role
from fw.registry import Component
from fw.registry.neutral import lean

VERSIONS = {"encode": 1, "annotate": 1, "prior": 1, "latents": 1, "train": 1, "sample": 1, "evaluate": 1, "probe": 1}
"""Raise a stage's number when its code gives other results for the same components."""

EVALUATOR_SEED = 0
"""Evaluators have their own seed, so that runs with other seeds are scored by the same ruler."""

COSTS = {"encode": 4, "annotate": 1, "prior": 4, "latents": 4, "train": 10, "sample": 4, "evaluate": 1, "probe": 2}
"""Rough relative costs, for choosing what to start first."""


@dataclass(frozen=True)
class Stage:
    """One unit of stored work. `needs` are the components and settings it runs with, `inputs` the stages it reads."""

    kind: str
    key: str
    title: str
    payload: Mapping[str, Any]
    needs: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.key}"


@dataclass
class ArmPlan:
    """The ids of one arm's stages; `encode`, `annotate` and `prior` are None where the arm has none.

    With an online annotator `annotate` is the train stage, which makes the annotation.
    """

    arm: Arm
    encode: str | None
    annotate: str | None
    prior: str | None
    train: str
    sample: str
    evaluate: list[str]
    nfe: int
    siblings: list[str] = field(default_factory=list)
    latents: str | None = None
    probes: list[str] = field(default_factory=list)

    def stages(self) -> list[str]:
        before = [self.encode, self.annotate, self.prior, self.latents]
        chain = [*before, self.train, *self.siblings, self.sample, *self.evaluate, *self.probes]
        return list(dict.fromkeys(stage for stage in chain if stage is not None))


@dataclass
class Plan:
    """All stages in an order in which they can run, and which of them each arm uses."""

    stages: dict[str, Stage] = field(default_factory=dict)
    arms: dict[str, ArmPlan] = field(default_factory=dict)

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
        return COSTS[self.stages[stage].kind] + max(map(self.priority, after), default=0)


def plan(recipe: Recipe, arms: Sequence[str] = ()) -> Plan:
    """The plan of the named arms, of all if none is named."""
    for name in arms:
        if name not in recipe.arms:
            raise FwError(f"--arm {name}: no such arm in recipe '{recipe.name}' (known: {', '.join(recipe.arms)})")
    result = Plan()
    for name in arms or recipe.arms:
        result.arms[name] = plan_arm(result, recipe, name)
    return result


def plan_arm(result: Plan, recipe: Recipe, name: str) -> ArmPlan:
    """Add the stages of one arm, sharing those that are there."""
    arm = recipe.arm(name)
    data = {"dataset": recipe.dataset}
    seed = {"seed": recipe.seed}
    encode = annotate = prior = None
    if arm.conditioner is not None:
        encode = add_encode(result, recipe, arm.conditioner, recipe.seed)
    online = arm.online is not None
    if arm.annotator is not None and not online:
        annotate = add(
            result,
            "annotate",
            arm.annotator.name,
            needs={**data, "annotator": arm.annotator, **seed},
            inputs={"encode": encode} if encode else {},
        )
    conditions = {"annotate": annotate} if annotate else {}
    latents = add_latents(result, recipe, arm.train)
    targets = {
        target_role(number): add_encode(result, recipe, objective.target, recipe.seed)
        for number, objective in enumerate(arm.objectives)
        if objective.target is not None
    }
    train = add(
        result,
        "train",
        ", ".join([conditions_title(arm), *map(objective_title, arm.objectives)]),
        needs={
            **data,
            **({"annotator": arm.annotator} if online else {}),
            "model": arm.model,
            "process": arm.process,
            "train": arm.train,
            **({"objectives": arm.objectives} if arm.objectives else {}),
            **seed,
        },
        inputs={**conditions, **latents, **targets},
    )
    if online:
        annotate, conditions = train, {"annotate": train}
    if arm.drawn_from is not None:
        prior = add(result, "prior", arm.drawn_from.name, {"prior": arm.drawn_from, **seed}, conditions)
    drawn = {**conditions, **({"prior": prior} if prior else {})}
    asked = arm.siblings
    worse = {
        sibling_role(number): add(
            result,
            "train",
            f"{conditions_title(arm)}, worse",
            needs={**data, "model": sibling.model, "process": arm.process, "train": sibling.train, **seed},
            inputs={**conditions, **add_latents(result, recipe, sibling.train)},
        )
        for number, sibling in enumerate(asked)
        if sibling is not None
    }
    sample = add(
        result,
        "sample",
        name,
        needs={
            **data,
            **({"latents": recipe.latents} if recipe.latents else {}),
            "model": arm.model,
            "process": arm.process,
            "guidance": arm.guidance,
            "sampler": arm.sampler,
            "samples": recipe.samples,
            "precision": arm.train.precision,
            **({"siblings": tuple(sibling and sibling.model for sibling in asked)} if worse else {}),
            **seed,
        },
        inputs={"train": train, **drawn, **worse},
    )
    evaluate = [
        add(
            result,
            "evaluate",
            f"{name}, {metric.name} in {metric.space.name} space",
            needs={**data, "metric": metric, "samples": recipe.samples, **(seed if metric.reads_conditions else {})},
            inputs={
                "sample": sample,
                "space": add_encode(result, recipe, metric.space, EVALUATOR_SEED),
                **(drawn if metric.reads_conditions else {}),
            },
        )
        for metric in recipe.metrics
        if arm.scored_by(metric)
    ]
    probes = [
        add_probe(result, recipe, arm, probe, {"encode": encode} if encode else {}, {"train": train, **conditions})
        for probe in recipe.probes
        if arm.probed_by(probe)
    ]
    return ArmPlan(
        arm,
        encode,
        annotate,
        prior,
        train,
        sample,
        evaluate,
        arm.nfe,
        siblings=list(worse.values()),
        latents=latents.get("latents"),
        probes=probes,
    )


def add_probe(
    result: Plan, recipe: Recipe, arm: Arm, probe: Probe, encoded: Mapping[str, str], trained: Mapping[str, str]
) -> str:
    """The stage of one probe. Like evaluators, probes have their own seed: they are the ruler."""
    needs = {"dataset": recipe.dataset, "probe": probe, "seed": EVALUATOR_SEED}
    if probe.of == "encoder":
        assert arm.conditioner is not None
        return add(result, "probe", f"{probe.name} of {arm.conditioner.name}", needs, encoded)
    network = {
        **({"latents": recipe.latents} if recipe.latents else {}),
        "model": arm.model,
        "process": arm.process,
        "precision": arm.train.precision,
        **({"taught": arm.annotator.uses_labels} if probe.reads in ("logits", "errors") and arm.annotator else {}),
    }
    return add(result, "probe", f"{probe.name} of {conditions_title(arm)}", {**needs, **network}, trained)


def conditions_title(arm: Arm) -> str:
    if arm.annotator is None:
        return f"{arm.model.name}, no conditions"
    source = f" of {arm.conditioner.name}" if arm.conditioner else ""
    return f"{arm.model.name}, {arm.annotator.name}{source}"


def objective_title(objective: Objective) -> str:
    return objective.name if objective.target is None else f"{objective.name} to {objective.target.name}"


def add_latents(result: Plan, recipe: Recipe, settings: Train) -> dict[str, str]:
    """The input `latents` of a training, if it reads any: of the images, and of their mirror images for `flip`."""
    if recipe.latents is None:
        return {}
    needs = {"dataset": recipe.dataset, "latents": recipe.latents, "flip": settings.flip}
    return {"latents": add(result, "latents", recipe.latents.name, needs, {})}


def add_encode(result: Plan, recipe: Recipe, encoder: Encoder, seed: int) -> str:
    return add(result, "encode", encoder.name, {"dataset": recipe.dataset, "encoder": encoder, "seed": seed}, {})


def add(result: Plan, kind: str, title: str, needs: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Add a stage unless it is there already; returns its id."""
    payload = {
        "stage": kind,
        "version": VERSIONS[kind],
        **{role: identity(value) for role, value in needs.items()},
        "inputs": dict(inputs),
    }
    stage = Stage(kind, digest(payload), f"{kind} {title}", payload, needs, inputs)
    return result.stages.setdefault(stage.id, stage).id


def identity(value: Any) -> Any:
    """What of a need enters the key, as JSON."""
    if hasattr(value, "identity"):
        return value.identity()
    if hasattr(value, "model_dump"):
        return lean(value, value.model_dump(mode="json"))
    if isinstance(value, tuple):
        return [identity(entry) for entry in value]
    return value


def digest(payload: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the sha256 of canonical JSON: sorted keys, no spaces; .inf is `Infinity`."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def components(stage: Stage) -> Iterator[Component]:
    """The components that a stage runs with and those in their fields, without the plain settings."""
    for value in stage.needs.values():
        for entry in value if isinstance(value, tuple) else (value,):
            if isinstance(entry, Component):
                yield from entry.within()
