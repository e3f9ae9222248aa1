"""Encoders that are made of a denoiser: it is trained without labels, or loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator
from torch import nn

from fw.core.diffusion.taps import absent, blocks_of, misnamed
from fw.core.errors import FwError
from fw.core.files.weights import check_finite
from fw.core.job import Job
from fw.core.kinds import Backbone, Encoder, Process
from fw.core.learning.parts.augmentation import check_takes
from fw.core.learning.train import train
from fw.core.machine.precision import ABOUT, Precision
from fw.core.settings import Train
from fw.core.types import ImageSet
from fw.plugins.encoders.weights import existing, sha256, state_dict, unwrapped_tensors
from fw.plugins.shared.stated import Stated, check_stated, of_weights
from fw.registry import Neutral, Supervision

Blocks = tuple[Annotated[str, Field(pattern=r"^[\w.]+$")], ...] | None
Sigmas = tuple[Annotated[float, Field(gt=0)], ...]

SMALL = {"name": "unet", "channels": [4, 8], "groups": 2}
SHORT = {"steps": 6, "batch": 16, "warmup": 1}


class OfDenoiser(Encoder):
    """Trains a denoiser on the training images, without labels and conditions, or loads one.

    `weights` is a file that a run of fw has stored for the same model. A pretrained model, such as
    `diffusers`, brings its own: `train: null` reads it as it is. With any other model that reads an
    untrained network, as a control.
    """

    version: ClassVar[int] = 2

    model: Backbone = Field(
        "unet", validate_default=True, description="the denoiser's network", examples=[SMALL]
    )
    process: Process = Field("ddpm", validate_default=True, description="its process")
    train: Train | None = Field(
        Train(),
        description="how it is trained; null reads a pretrained model as it is",
        examples=[SHORT],
    )
    weights: Annotated[Path | None, Neutral(None, names_folders=True)] = Field(
        None,
        description=(
            "the model.safetensors of a run with the same model, unconditional, instead of training"
        ),
    )
    precision: Annotated[Precision, Neutral("fp32")] = Field("fp32", description=ABOUT)
    supervision: Stated = None
    blocks: Blocks
    sigma: Sigmas

    @model_validator(mode="after")
    def _readable(self) -> Self:
        check_stated(self.supervision, self.weights)
        if "taps" not in self.model.provides:
            raise ValueError(f"backbone '{self.model.name}' names no blocks that could be read")
        if missing := sorted(self.model.requires - self.process.provides):
            raise ValueError(
                f"backbone '{self.model.name}' needs {missing[0]}, and this is "
                f"{self.process.spec()}"
            )
        if self.model.pretrained and self.weights is None and "train" not in self.model_fields_set:
            choices = "`train: null` reads it as it is, `train: {...}` trains it further"
            raise ValueError(
                f"backbone '{self.model.name}' was trained before: say which is meant, {choices}"
            )
        if self.train is not None and self.train.augment is not None and self.weights is None:
            check_takes(self.model)
        if self.train is not None and self.train.snapshots:
            raise ValueError("an encoder is read at its end: train.snapshots is for an arm's model")
        least, most = self.process.sigma_range
        for sigma in self.sigma:
            if not least <= sigma <= most:
                raise ValueError(
                    f"sigma {sigma:g} is not among the noise levels of training, {least:g} to "
                    f"{most:g}"
                )
        return self

    @property
    def computes_in(self) -> Precision:
        return self.precision

    @property
    def own_supervision(self) -> Supervision:
        return of_weights(self.weights, self.supervision)

    def preflight(self) -> None:
        if self.weights is not None:
            existing(self.weights)

    def identity(self) -> dict[str, Any]:
        """With `weights`, their content counts, and `train` does not."""
        identity = super().identity()
        return (
            identity
            if self.weights is None
            else {**identity, "train": None, "weights": sha256(self.weights)}
        )

    def check(self, shape: tuple[int, int, int]) -> None:
        self.model.check(shape)
        if problem := misnamed(self.model, shape, self.blocks or ()):
            raise ValueError(f"encoder {self.name}: {problem}")

    def check_blocks(self, network: nn.Module) -> None:
        """Raise FwError if the denoiser lacks a block that `blocks` names."""
        if problem := absent(blocks_of(network), self.blocks or ()):
            raise FwError(f"encoder {self.name}: the model {problem}")

    def learned(self, network: nn.Module, data: ImageSet, job: Job) -> nn.Module:
        """The denoiser of a fresh network: trained without labels, loaded, or the network as it
        is."""
        if self.weights is not None:
            load(network, self.weights)
        elif self.train is not None:
            return train(self.model, self.process, data.without_labels(), None, self.train, job)
        return network


def load(network: nn.Module, path: Path) -> None:
    """Load weights that a run stored of the same network."""
    weights = unwrapped_tensors(state_dict(path), path, expected=network.state_dict())
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = (
            " ".join(str(error).splitlines()[1].split())
            if len(str(error).splitlines()) > 1
            else str(error)
        )
        raise FwError(
            f"{path} does not hold weights of this model without conditions: {reason[:150]}; are "
            "its settings the same?"
        ) from None
    check_finite(network, weights, path)
