"""The sections of a recipe that are not components: how a denoiser is trained, what is sampled
from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from fw.core.files.finished import FinishedWeights
from fw.core.machine.precision import ABOUT, Precision
from fw.core.types import LARGEST
from fw.registry import ANY, Neutral

MOST_SAMPLES = 10**9
"""Images of one arm; 3 TB at 32x32 pixels."""


class Section(BaseModel):
    """A part of a recipe that is not a component."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        ser_json_inf_nan="constants",
        serialize_by_alias=True,
    )


Decay = Annotated[float, Field(ge=0, lt=1)]

Width = Annotated[float, Field(gt=0, le=0.28)]
"""The length of a power-function average of weights as EDM2 says it (arXiv 2312.02696, section
3.1): the standard deviation of when the weights in it were learned, as a share of the training. The
average of all steps alike has 0.289."""

MOST_AVERAGES = 4


class Train(Section):
    """How a denoiser is trained: by default AdamW, linear warm-up, cosine decay to 5 %, EMA weights
    for sampling."""

    steps: int = Field(1000, ge=1, le=10**12, description="optimizer steps")
    batch: int = Field(64, ge=1, le=1_000_000, description="images per step")
    accumulate: Annotated[int, Neutral(1)] = Field(
        1,
        ge=1,
        le=1_000_000,
        description="equal parts of a batch that pass through the network one after the other, "
        "where it does not fit into memory; the gradient is that of the batch",
    )
    optimizer: Annotated[Literal["adamw", "adam"], Neutral("adamw")] = Field(
        "adamw", description="they differ in how weights decay: adam adds it to the gradient"
    )
    betas: Annotated[tuple[Decay, Decay], Neutral((0.9, 0.99))] = Field(
        (0.9, 0.99),
        description="decay of the optimizer's two averages; 0.999, the usual second one, remembers "
        "a spike of the gradient ten times longer",
    )
    lr: float = Field(2e-3, gt=0, le=LARGEST, description="peak learning rate")
    schedule: Annotated[Literal["cosine", "constant"], Neutral("cosine")] = Field(
        "cosine", description="the learning rate after the warm-up: down to 5 % of lr, or lr"
    )
    warmup: int = Field(100, ge=0, le=10**12, description="steps of linear warm-up")
    weight_decay: float = Field(0.0, ge=0, le=LARGEST, description="of all weights; 0 is off")
    clip: float | None = Field(
        1.0, gt=0, description="gradient norm is clipped to this; null never clips"
    )
    ema: float | None = Field(
        0.99, ge=0, lt=1, description="decay of the averaged weights; null where ema_halflife says"
    )
    ema_halflife: Annotated[float | None, Neutral(None)] = Field(
        None,
        gt=0,
        le=LARGEST,
        description="the same by the number of images after which half an average is left",
    )
    ema_ramp: Annotated[bool, Neutral(True)] = Field(
        True,
        description="whether averages begin short: ema as (1+n)/(10+n) at step n, ema_halflife as "
        "5 % of the images so far",
    )
    snapshots: Annotated[int, Neutral(0)] = Field(
        0,
        ge=0,
        le=256,
        description="at how many steps averaged weights are kept: evenly spaced, the last is the "
        "end; 0 keeps those of the end alone",
    )
    averages: Annotated[tuple[Width, ...], Neutral(())] = Field(
        (),
        max_length=MOST_AVERAGES,
        description="relative widths of averages that are tracked beside ema and kept with each "
        "snapshot, so that `ema` of an arm can choose any width between them afterwards",
    )
    cond_drop: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of conditions replaced by the null condition; guidance by it needs more "
        "than 0, or images without a condition",
    )
    flip: bool = Field(False, description="mirror images left to right at random; wrong for digits")
    augment: Annotated[float | None, Neutral(None)] = Field(
        None,
        ge=0,
        le=1,
        description="probability of each transform of EDM's augmentation, which the network is "
        "given as a condition, so that samples have none (arXiv 2206.00364, F.2); 0 mirrors alone, "
        "null is off",
    )
    precision: Precision = Field("fp32", description=ABOUT)
    compile: Annotated[bool | None, Neutral(ANY)] = Field(
        None,
        description="whether torch.compile compiles the network; null is on a GPU, where that pays "
        "(1000 calls). No key says so",
    )
    checkpointing: Annotated[bool, Neutral(ANY)] = Field(
        False,
        description="keep the inputs of the network's blocks alone and compute them again for "
        "their gradient: a third more work in less memory. No key says so",
    )
    start: Annotated[FinishedWeights | None, Neutral(None)] = Field(
        None,
        alias="from",
        description="RUN#ARM: the averaged weights of a finished run's arm, which this training "
        "starts from; null starts from new ones",
    )
    keep: Annotated[Literal["optimizer"] | None, Neutral(ANY)] = Field(
        None,
        description="`optimizer` keeps its state beside the weights, so that the same training "
        "with more steps goes on from there; it takes a constant schedule. No key says so",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_average(cls, data: Any) -> Any:
        """With `ema_halflife`, the default of `ema` gives way to null."""
        if not isinstance(data, Mapping) or data.get("ema_halflife") is None:
            return data
        if data.get("ema") is not None:
            raise ValueError(
                "ema and ema_halflife both say how weights are averaged: take one, and leave the "
                "other null"
            )
        return {**data, "ema": None}

    @model_validator(mode="after")
    def _splits(self) -> Self:
        if self.batch % self.accumulate:
            raise ValueError(
                f"batch ({self.batch}) does not divide into accumulate ({self.accumulate}) equal "
                "parts"
            )
        return self

    @model_validator(mode="after")
    def _kept(self) -> Self:
        if self.snapshots > self.steps:
            raise ValueError(
                f"snapshots ({self.snapshots}) are more than steps ({self.steps}): take fewer"
            )
        if len(set(self.averages)) < len(self.averages):
            raise ValueError("averages names a width twice: take one away")
        if self.averages and not self.snapshots:
            raise ValueError(
                "averages are kept with snapshots, and there are none: set snapshots, to 16 say"
            )
        return self

    @model_validator(mode="after")
    def _endless(self) -> Self:
        if self.keep is not None and self.schedule == "cosine":
            raise ValueError(
                "keep: optimizer is for a training that goes on with more steps, and the learning "
                f"rate of a cosine is at its end after these {self.steps}: with more it would have "
                "been another from the first on; set schedule: constant"
            )
        return self

    @model_validator(mode="after")
    def _averaged(self) -> Self:
        if self.ema is None and self.ema_halflife is None:
            raise ValueError(
                "without ema, ema_halflife has to say how weights are averaged; ema 0 averages none"
            )
        return self

    @property
    def snapshot_steps(self) -> list[int]:
        """After how many steps each snapshot is taken."""
        return evenly_spaced(self.snapshots, self.steps)

    @property
    def from_new_weights(self) -> Train:
        """The same training of a network that nobody has trained before."""
        return self.model_copy(update={"start": None})

    @property
    def without_snapshots(self) -> Train:
        """The same training, which ends with the same weights, where nothing reads those on the
        way."""
        return self.model_copy(update={"snapshots": 0, "averages": ()})


def evenly_spaced(snapshots: int, steps: int) -> list[int]:
    """After how many of the steps each snapshot is taken; the last is the end."""
    return sorted({max(1, part * steps // snapshots) for part in range(1, snapshots + 1)})


class Ema(Section):
    """Which averages of a training an arm works with, chosen after it: relative widths, to be made
    of those that `train.averages` tracked. A single number is both; null is the average that
    `train.ema` says."""

    samples: Width | None = Field(None, description="that of the network that images are drawn of")
    probes: Width | None = Field(None, description="that of the network that probes read")

    @model_validator(mode="before")
    @classmethod
    def _both(cls, data: Any) -> Any:
        if isinstance(data, int | float) and not isinstance(data, bool):
            return {"samples": data, "probes": data}
        return data

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "number"}, handler(schema)]}


class Samples(Section):
    """What is sampled from each arm; equal in all arms, noise included."""

    count: int = Field(1000, ge=2, le=10_000_000, description="images per sampling seed")
    seeds: int = Field(
        3,
        ge=1,
        le=10_000,
        description="sampling seeds; scores are mean and standard deviation over them",
    )
    precision: Annotated[Precision | None, Neutral(None)] = Field(
        None, description="that of the networks while they sample; null is that of their training"
    )

    snapshots: Annotated[int, Neutral(500)] = Field(
        500,
        ge=0,
        le=10_000_000,
        description="images of each snapshot of a training (`train.snapshots`), of one sampling "
        "seed, at most count; 0 scores no snapshots",
    )

    @property
    def counted(self) -> Samples:
        """How many there are, without how they are drawn."""
        return Samples(count=self.count, seeds=self.seeds)

    @property
    def of_snapshots(self) -> Samples | None:
        """Those of each snapshot; None if snapshots are not scored."""
        if not self.snapshots:
            return None
        return Samples(count=min(self.snapshots, self.count), seeds=1)

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        if self.snapshots == 1:
            raise ValueError("snapshots: 1 image has no spread: take 2 or more, or 0 for no scores")
        return self

    @model_validator(mode="after")
    def _storable(self) -> Self:
        if self.count * self.seeds > MOST_SAMPLES:
            raise ValueError(
                f"{self.count:,} images of {self.seeds:,} seeds are more than {MOST_SAMPLES:,}"
            )
        return self
