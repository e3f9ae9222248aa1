"""How well a representation recognises: what every probe is, and a class for each thing that is
read of an arm.

The fields `of`, `blocks`, `sigma` and `draws` are in the keys of all probes that come with fw.
Where one means nothing, it is a constant: a recipe may write it, with the one value that it has.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol, Self

from pydantic import Field, model_validator
from torch import Tensor

from fw.core.job import Job
from fw.core.kinds.version_1 import OldProbes
from fw.core.types import SPLITS, Examples, Split, Told
from fw.registry import Component


class Glance(Protocol):
    """What a model makes of a batch of images in noise, without a condition.

    `blocks` are names of blocks of its network; None is `up.1` of a U-Net with three levels or
    more, `up.0` of a smaller one, and else the middle block.
    """

    def activations(self, blocks: Sequence[str] | None) -> Mapping[str, Tensor]:
        """What each block returns: maps (B, C, h, w) or tokens (B, n, D)."""

    def means(self, blocks: Sequence[str] | None) -> Tensor:
        """Their means over positions, put side by side, (B, D)."""

    def positions(self, blocks: Sequence[str] | None) -> Tensor:
        """Their positions, put side by side, (B, n, D); at most 8x8 of a map."""

    def logits(self) -> Tensor:
        """The classes that a joint model reads off the images, (B, K)."""


class Reader(Protocol):
    """What a probe can ask for of an arm that has all that the probe needs; in the order of the
    images."""

    def encoded(self, split: Split) -> Tensor:
        """The features that the arm's conditions are made of, (N, D)."""

    def in_noise(
        self, split: Split, look: Callable[[Glance], Tensor], sigma: float, draws: int
    ) -> Tensor:
        """What `look` makes of each batch, (N, ...): the mean over draws of noise of level `sigma`.
        All models see the same noise."""

    def diffused(self, split: Split) -> Tensor:
        """What the model is trained to make, x0 (N, C, H, W), in -1..1 or latents."""

    def classes(self) -> Tensor:
        """The class that the model was given of each training image, int64 (N,); -1 is none."""

    def conditional(self) -> Told:
        """The model, to be given classes by the probe."""


@dataclass(frozen=True)
class Reading:
    """What a probe reads of the images of both splits, (N, ...) each, and a model that it gives
    classes itself."""

    train: Tensor
    test: Tensor
    told: Told | None = None


class Probe(Component, metaclass=OldProbes):
    """How well a representation recognises: a reader is fitted on what it makes of the training
    images and on their labels, and scored on held-out images.

    A recipe lists probes for all arms, and an arm is probed where it has what is read. No probe has
    a part in training. A probe subclasses what it reads:

    * `FeatureProbe`: of each image features (D). `of: encoder`, those that the arm's conditions are
      made of. `of: model`, means over the positions of blocks of the trained network.
    * `TokenProbe`: the positions of a block themselves, (n, D), at most 8x8 of a map.
    * `LogitProbe`: the logits (K) of a joint model.
    * `ConditionalProbe`: a model that is given classes, `Examples.told`. Of a training image it
      gets the class that the model was given in training, int64 (), where -1 is none, and of a
      held-out one x0 (C, H, W), in -1..1 or its latents.

    These write `keys` and `score` alone. A model is read with its averaged weights; the first three
    show it images in a little noise and no condition. What reads something else subclasses `Probe`
    itself, or `ProbeInNoise`, and says how in `read`.
    """

    kind: ClassVar[str] = "probe"
    least_classes: ClassVar[int] = 1
    """How many classes of labels it needs."""
    reads_classes: ClassVar[bool] = False
    """Whether it reads what a model makes of its classes, which have names where they are labels
    (`Examples.named`)."""

    of: Literal["encoder", "model"] = Field(description="what of the arm is probed")

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"labels"})

    @property
    def least_images(self) -> int:
        """How many training images it needs; fewer are refused when a recipe is validated."""
        return 1

    def caution(self, images: int, classes: int) -> str | None:
        """What is to be known before it reads so many training images of so many classes; None
        if nothing is."""
        return None

    @property
    def withholds_labels(self) -> bool:
        """Whether it asks what can be recognised with a part of the labels."""
        return False

    @property
    @abstractmethod
    def needs(self) -> frozenset[str]:
        """The capabilities of an arm that can be read. Other arms are not probed."""

    @property
    @abstractmethod
    def subject(self) -> str:
        """What is read, in words: a recipe in which "no arm has" it is refused."""

    @abstractmethod
    def read(self, reader: Reader) -> Reading:
        """What `score` is to be given of the images of such an arm."""

    @property
    def named_blocks(self) -> tuple[str, ...]:
        """The blocks of the model that a recipe names for it."""
        return ()

    @property
    def level(self) -> float | None:
        """The one noise level at which it reads models, if it does; a recipe whose models are not
        trained at it is refused."""
        return None

    @property
    def protocol(self) -> str:
        """What is read, to end keys with: `encoder`, `model`, or with what is not the default
        `model_mid_s0.1_d8`."""
        return self.of

    @property
    @abstractmethod
    def keys(self) -> Mapping[str, str]:
        """The keys that `score` may return, each with `lower` or `higher`: which is better.

        A key names the protocol, so that numbers that were found in other ways have other names:
        what is done, its constants, and `protocol`, such as `knn20_t07_encoder`.
        """

    @abstractmethod
    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        """Fit on `train`, and score on `test`: at least one of the keys. The labels of `test`
        only score."""


class ProbeInNoise(Probe):
    """A probe that shows the model images in a little noise and reads what it makes of them."""

    blocks: tuple[Annotated[str, Field(pattern=r"^[\w.]+$")], ...] | None = Field(
        None,
        min_length=1,
        description="blocks of the model, put side by side; null is `up.1` of a U-Net with three "
        "levels or more, `up.0` of a smaller one, and else the middle block",
    )
    sigma: float = Field(0.05, gt=0, description="noise level at which the model is read")
    draws: int = Field(
        4,
        ge=1,
        le=10_000,
        description="draws of that noise over which is averaged what the model makes of it",
    )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"taps", "unconditional"})

    @property
    def subject(self) -> str:
        return (
            "a model whose blocks can be read without a condition (a conditional one needs "
            "train.cond_drop > 0)"
        )

    @property
    def named_blocks(self) -> tuple[str, ...]:
        return self.blocks or ()

    @property
    def level(self) -> float | None:
        return self.sigma if self.of == "model" else None

    @property
    def protocol(self) -> str:
        if self.of == "encoder":
            return "encoder"
        parts = ["-".join(self.blocks)] if self.blocks else []
        for letter, field in (("s", "sigma"), ("d", "draws")):
            if getattr(self, field) != type(self).model_fields[field].default:
                parts.append(f"{letter}{getattr(self, field)!r}")
        return "_".join(["model", *parts])

    def read(self, reader: Reader) -> Reading:
        train, test = (
            reader.in_noise(split, self.look, self.sigma, self.draws) for split in SPLITS
        )
        return Reading(train, test)

    @abstractmethod
    def look(self, glance: Glance) -> Tensor:
        """What is read of a batch of images in noise, (B, ...)."""


class FeatureProbe(ProbeInNoise):
    """A probe that reads features (D) of images."""

    of: Literal["encoder", "model"] = Field("encoder", description="what of the arm is probed")

    @model_validator(mode="after")
    def _an_encoder_has_no_blocks(self) -> Self:
        if self.of == "encoder" and self.blocks is not None:
            raise ValueError("blocks are those of a model: set `of: model`")
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"features"}) if self.of == "encoder" else super().needs

    @property
    def subject(self) -> str:
        return (
            "an encoder whose features its conditions are made of"
            if self.of == "encoder"
            else super().subject
        )

    def read(self, reader: Reader) -> Reading:
        if self.of == "encoder":
            return Reading(reader.encoded("train"), reader.encoded("test"))
        return super().read(reader)

    def look(self, glance: Glance) -> Tensor:
        return glance.means(self.blocks)


class TokenProbe(ProbeInNoise):
    """A probe that reads the positions (n, D) of a model's blocks."""

    of: Literal["model"] = Field(
        "model", description="a model whose blocks can be read; an encoder has no positions"
    )

    def look(self, glance: Glance) -> Tensor:
        return glance.positions(self.blocks)


class LogitProbe(ProbeInNoise):
    """A probe that reads the logits (K) of a joint model."""

    reads_classes: ClassVar[bool] = True

    of: Literal["model"] = Field("model", description="a joint model; other arms are not probed")
    blocks: None = Field(None, description="always null: it reads the model's own head")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"logits"})

    @property
    def subject(self) -> str:
        return "a joint model and an annotator, whose conditions it recognises"

    def look(self, glance: Glance) -> Tensor:
        return glance.logits()


class ConditionalProbe(Probe):
    """A probe that gives the model classes, and asks what it makes of noisy images then."""

    reads_classes: ClassVar[bool] = True

    of: Literal["model"] = Field(
        "model", description="a model that is told classes; other arms are not probed"
    )
    blocks: None = Field(None, description="always null: it asks the model for its predictions")
    sigma: float = Field(
        0.05, ge=0.05, le=0.05, description="not used: the model is asked at many noise levels"
    )
    draws: int = Field(
        4, ge=4, le=4, description="not used: there is one draw of noise at each level"
    )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"told", "class_conditions"})

    @property
    def subject(self) -> str:
        return "a model that is told classes (a joint one reads them off the image)"

    def read(self, reader: Reader) -> Reading:
        return Reading(reader.classes(), reader.diffused("test"), reader.conditional())
