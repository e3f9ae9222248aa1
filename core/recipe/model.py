"""A recipe: defaults and arms. An arm replaces whole sections; nothing is deep-merged, inherited
or interpolated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from fw.core.kinds import (
    Annotator,
    Autoencoder,
    Backbone,
    Brought,
    Dataset,
    Encoder,
    Metric,
    Objective,
    Prior,
    Probe,
    Process,
    Sampler,
    Steering,
    Tracker,
    brought_by,
)
from fw.core.messages.secrets import without_secrets
from fw.core.recipe.arm import Arm, LabelFree
from fw.core.recipe.question import Question
from fw.core.recipe.source import dump
from fw.core.recipe.sweep import Sweep
from fw.core.settings import Ema, Samples, Section, Train
from fw.core.types import ConditionSpec
from fw.registry import Component, Neutral
from fw.registry.neutral import ANY, lean

ARM_CHARACTERS = 242
"""A file's name may have 255 bytes; `heatmap-` and `.json` leave so many for the arm's."""

ARMS = 1000

MOST_SEEDS = 2**64

ArmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$", max_length=ARM_CHARACTERS)]


def as_list(value: Any) -> Any:
    """A single entry stands for a list of one; null for none."""
    if value is None:
        return []
    return [value] if isinstance(value, str | Mapping | Component) else value


ObjectiveList = Annotated[
    tuple[Objective, ...],
    BeforeValidator(as_list, json_schema_input_type=tuple[Objective, ...] | Objective | None),
]
GuidanceList = Annotated[
    tuple[Steering, ...],
    BeforeValidator(as_list, json_schema_input_type=tuple[Steering, ...] | Steering | None),
]
MetricList = Annotated[
    tuple[Metric, ...],
    BeforeValidator(as_list, json_schema_input_type=tuple[Metric, ...] | Metric),
    Field(min_length=1),
]
ProbeList = Annotated[
    tuple[Probe, ...],
    BeforeValidator(as_list, json_schema_input_type=tuple[Probe, ...] | Probe | None),
]


class Override(Section):
    """What one arm does differently. Without a section it has the recipe's; `null` leaves the
    section out."""

    encoder: Encoder | None = None
    annotator: Annotator | None = None
    prior: Prior | None = None
    model: Backbone | None = None
    process: Process | None = None
    train: Train | None = None
    ema: Ema | None = None
    objectives: ObjectiveList = ()
    guidance: GuidanceList = ()
    sampler: Sampler | None = None

    @field_validator("model", "process", "train", "sampler")
    @classmethod
    def _indispensable(cls, section: Any) -> Any:
        if section is None:
            raise PydanticCustomError(
                "no_section", "no arm can do without; leave the key out to keep the recipe's"
            )
        return section


class Recipe(Section):
    """See the module's docstring; docs/recipes.md goes through it key by key."""

    fw: Literal[1] = Field(description="version of the recipe format")
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_\-]*$",
        max_length=255,
        description="names the run folder and the MLflow experiment",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=MOST_SEEDS,
        description="decides everything that is random, except the evaluators",
    )
    repeats: Annotated[int, Neutral(1)] = Field(
        1,
        ge=1,
        le=1000,
        description="trainings of every arm, encoder and clusters included, from the seeds seed to "
        "seed + repeats - 1; decisions need more than one",
    )
    dataset: Dataset
    latents: Autoencoder | None = None
    encoder: Encoder | None = None
    annotator: Annotator | None = None
    prior: Prior | None = None
    model: Backbone
    process: Process
    train: Train = Train()
    ema: Annotated[Ema | None, Neutral(None)] = None
    objectives: Annotated[ObjectiveList, Neutral(())] = ()
    guidance: GuidanceList = ()
    sampler: Sampler
    samples: Samples = Samples()
    metrics: MetricList
    probes: Annotated[ProbeList, Neutral(())] = ()
    tracker: Tracker | None = None
    baseline: ArmName = Field(description="the arm that the others are compared with")
    question: Annotated[Question | None, Neutral(ANY)] = Field(
        None,
        description="what the verdict answers; null compares each arm with the baseline. No key "
        "says so",
    )
    sweep: Annotated[Sweep | None, Neutral(ANY)] = Field(
        None,
        description="which arms are the points of a sweep, as `fw sweep` writes it. No key says so",
    )
    arms: dict[ArmName, Override] = Field(min_length=1, max_length=ARMS)

    @field_validator("repeats")
    @classmethod
    def _seeds_there(cls, repeats: int, info: ValidationInfo) -> int:
        if info.data.get("seed", 0) + repeats > MOST_SEEDS:
            raise PydanticCustomError(
                "no_seeds", "so many trainings from this seed on go beyond 2^64 - 1, the last seed"
            )
        return repeats

    @property
    def seeds(self) -> range:
        """The seeds that every arm is trained from."""
        return range(self.seed, self.seed + self.repeats)

    def arm(self, name: str) -> Arm:
        """The named arm with the recipe's sections filled in."""
        override = self.arms[name]
        chosen = {
            section: getattr(override if section in override.model_fields_set else self, section)
            for section in Arm.model_fields
        }
        return Arm.model_construct(**chosen)

    @property
    def diffused_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of what is diffused, images or their latents; None if the images cannot be
        encoded."""
        if self.latents is None:
            return self.dataset.shape
        try:
            return self.latents.latent_shape(self.dataset.shape)
        except ValueError:
            return None

    def available(self, arm: Arm) -> frozenset[str]:
        """The capabilities that an arm's components can count on."""
        return arm.provides | self.dataset.provides | (frozenset() if self.latents else {"pixels"})

    @property
    def shared_weights(self) -> Iterator[tuple[str, Brought]]:
        """What supervised the weights of the sections that all arms share and that reach their
        denoisers, by section."""
        yield "dataset", brought_by(self.dataset)
        if self.latents is not None:
            yield "latents", brought_by(self.latents)

    def label_free(self, arm: Arm) -> LabelFree:
        """Whether nothing in an arm has seen labels."""
        return arm.label_free(brought for _, brought in self.shared_weights)

    def condition_spec(self, arm: Arm) -> ConditionSpec | None:
        """The form and number of an arm's conditions, if they are known before any are made."""
        classes = self.dataset.classes
        if arm.annotator is None or (arm.annotator.uses_labels and not classes):
            return None
        return arm.annotator.makes(classes)

    def to_yaml(self) -> str:
        """The resolved recipe: every default written out, every arm in the form that `load` reads.

        The tracker's secrets are hidden, so what reads it gets them from the environment.
        """
        return dump(self.resolved())

    def resolved(self) -> dict[str, Any]:
        """The same as plain data."""
        data = self.model_dump(mode="json", exclude={"arms"})
        data["tracker"] = without_secrets(data["tracker"])
        data["arms"] = {
            name: override.model_dump(mode="json", include=override.model_fields_set)
            for name, override in self.arms.items()
        }
        return data

    def folder_text(self) -> str:
        """The text that the run folder's name is hashed from: the resolved recipe, without
        neutral fields."""
        return dump(lean(self, self.resolved()))
