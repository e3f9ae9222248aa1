"""How well a representation recognises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from fw.core.job import Job
from fw.core.types import Examples
from fw.registry import Component


class Probe(Component):
    """How well a representation recognises: a reader is fitted on what it makes of the training images and on their
    labels, and scored on held-out images.

    A recipe lists probes for all arms, and an arm is probed where it has what is asked for. `of: encoder` reads the
    features that the arm's conditions are made of. `of: model` reads the arm's trained network, its averaged weights,
    which is shown images in a little noise and told no condition, unless the probe itself tells it classes. No probe
    has a part in training.
    """

    kind: ClassVar[str] = "probe"
    reads: ClassVar[Literal["features", "tokens", "logits", "errors"]] = "features"
    """What it is given of each image: `features` (D), of a model the means over the positions of its blocks; `tokens`
    (n, D), a block's positions, at most 8x8 of a map; `logits` (K) of a joint model. One that reads `errors` asks a
    model that is told classes itself (`Examples.told`): of a training image it is given the class that the model was
    told in training, int64 (), -1 is none, and of a held-out one x0 (C, H, W), in -1..1 or its latents."""

    least_classes: ClassVar[int] = 1
    """How many classes of labels it needs."""

    of: Literal["encoder", "model"] = Field("encoder", description="what of the arm is probed")
    blocks: tuple[Annotated[str, Field(pattern=r"^[\w.]+$")], ...] | None = Field(
        None,
        min_length=1,
        description="blocks of the model, put side by side; null is `up.1` of a U-Net with three levels or more, "
        "`up.0` of a smaller one, and else the middle block",
    )
    sigma: float = Field(0.05, gt=0, description="noise level at which the model is read")
    draws: int = Field(
        4, ge=1, le=10_000, description="draws of that noise over which is averaged what the model makes of it"
    )

    @model_validator(mode="after")
    def _of_which_there_are(self) -> Self:
        if self.of == "encoder" and self.reads != "features":
            raise ValueError(f"{self.name} reads {self.reads}, which an encoder does not have: set `of: model`")
        if self.of == "encoder" and self.blocks is not None:
            raise ValueError("blocks are those of a model: set `of: model`")
        return self

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"labels"})

    @property
    def least_images(self) -> int:
        """How many training images it needs; fewer are refused when a recipe is validated."""
        return 1

    def caution(self, images: int, classes: int) -> str | None:
        """What is to be known before it reads so many training images of so many classes; None if nothing is."""
        return None

    @property
    def withholds_labels(self) -> bool:
        """Whether it asks what can be recognised with a part of the labels."""
        return False

    @property
    def protocol(self) -> str:
        """What is read, to end keys with: `encoder`, `model`, or with what is not the default `model_mid_s0.1_d8`."""
        if self.of == "encoder":
            return "encoder"
        parts = ["-".join(self.blocks)] if self.blocks else []
        for letter, field in (("s", "sigma"), ("d", "draws")):
            if getattr(self, field) != type(self).model_fields[field].default:
                parts.append(f"{letter}{getattr(self, field)!r}")
        return "_".join(["model", *parts])

    @property
    @abstractmethod
    def keys(self) -> Mapping[str, str]:
        """The keys that `score` may return, each with `lower` or `higher`: which is better.

        A key names the protocol, so that numbers that were found in other ways have other names: what is done, its
        constants, and `protocol`, such as `knn20_t07_encoder`.
        """

    @abstractmethod
    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        """Fit on `train`, and score on `test`: at least one of the keys. The labels of `test` only score."""
