"""The sections of a recipe that are not components: how a denoiser is trained, what is sampled
from it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fw.core.types import LARGEST

MOST_SAMPLES = 10**9
"""Images of one arm; 3 TB at 32x32 pixels."""


class Section(BaseModel):
    """A part of a recipe that is not a component."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants"
    )


class Train(Section):
    """How a denoiser is trained: AdamW, linear warm-up, cosine decay to 5 %, EMA weights for
    sampling."""

    steps: int = Field(1000, ge=1, le=10**12, description="optimizer steps")
    batch: int = Field(64, ge=1, le=1_000_000, description="images per step")
    lr: float = Field(2e-3, gt=0, le=LARGEST, description="peak learning rate of AdamW")
    warmup: int = Field(100, ge=0, le=10**12, description="steps of linear warm-up")
    weight_decay: float = Field(0.0, ge=0, le=LARGEST)
    clip: float = Field(1.0, gt=0, description="gradient norm is clipped to this")
    ema: float = Field(
        0.99, ge=0, lt=1, description="decay of the averaged weights; ramps up as (1+n)/(10+n)"
    )
    cond_drop: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of conditions replaced by the null condition; guidance by it needs more "
        "than 0, or images without a condition",
    )
    flip: bool = Field(False, description="mirror images left to right at random; wrong for digits")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16 runs the network under autocast"
    )


class Samples(Section):
    """What is sampled from each arm; equal in all arms, noise included."""

    count: int = Field(1000, ge=2, le=10_000_000, description="images per sampling seed")
    seeds: int = Field(
        3,
        ge=1,
        le=10_000,
        description="sampling seeds; scores are mean and standard deviation over them",
    )

    @model_validator(mode="after")
    def _storable(self) -> Self:
        if self.count * self.seeds > MOST_SAMPLES:
            raise ValueError(
                f"{self.count:,} images of {self.seeds:,} seeds are more than {MOST_SAMPLES:,}"
            )
        return self
