"""What flows between components at run time.

Units: images at every public boundary and on disk are uint8 (N, C, H, W) in 0..255; inside
diffusion they are float in -1..1; sigma is the noise's standard deviation in that unit; features
are float32 (N, D).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fw.core.randomness import Draws

Split = Literal["train", "test"]

SPLITS: tuple[Split, ...] = ("train", "test")

LARGEST = 1e36
"""The largest value of a field that torch computes with: float32 ends at 3.4e38."""


@dataclass(frozen=True)
class ImageSet:
    """A split of a dataset: uint8 images (N, C, H, W), with int64 labels (N,) in 0..classes-1
    where there are any."""

    images: Tensor
    labels: Tensor | None = None
    classes: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def without_labels(self) -> ImageSet:
        return ImageSet(self.images)


@dataclass(frozen=True)
class ConditionSpec:
    """The form of a condition: `class` (one of `size`), `vector` (`size` numbers), `tokens`
    (`count` such vectors)."""

    form: Literal["class", "vector", "tokens"]
    size: int
    count: int = 1


@dataclass(frozen=True)
class Observations:
    """What an annotator may see: `features` (N, D) and `labels` (N,) only if it declares that it
    uses them."""

    count: int
    features: Tensor | None = None
    labels: Tensor | None = None
    classes: int = 0


@dataclass(frozen=True)
class Annotation:
    """One condition per training image, and a bank of conditions to draw from when sampling.

    `conditions` is int64 (N,) for classes, float32 (N, D) for vectors, (N, n, D) for tokens; class
    -1 means none. `bank` is the prior p(c) as a set of draws. By default it is the training
    conditions themselves, so that conditions are drawn as often as they occur (a uniform draw over
    clusters doubles the Frechet distance, see docs/guidance.md).
    """

    spec: ConditionSpec
    conditions: Tensor
    bank: Tensor | None = None

    @property
    def known(self) -> Tensor:
        """Which images have a condition, bool (N,): all except those of class -1."""
        if self.spec.form == "class":
            return self.conditions >= 0
        return torch.ones(len(self.conditions), dtype=torch.bool)

    def draw(self, draws: Draws) -> Tensor:
        """A condition from the prior for each of the images that `draws` belong to (CPU)."""
        bank = self.conditions if self.bank is None else self.bank
        return bank[draws.below(len(bank))]

    def save(self, path: Path) -> None:
        """Write it as safetensors, with a single entry of metadata: several are written in any
        order."""
        tensors = {"conditions": self.conditions.contiguous()}
        if self.bank is not None:
            tensors["bank"] = self.bank.contiguous()
        words = [
            self.spec.form,
            self.spec.size,
            *([self.spec.count] if self.spec.form == "tokens" else []),
        ]
        save_file(tensors, path, metadata={"spec": " ".join(map(str, words))})

    @staticmethod
    def load(path: Path) -> Annotation:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            form, *sizes = file.metadata()["spec"].split()
        tensors = load_file(path)
        return Annotation(
            ConditionSpec(form, *map(int, sizes)), tensors["conditions"], tensors.get("bank")
        )


@dataclass(frozen=True)
class Told:
    """A trained model that is told one of `classes` conditions, as a probe asks it.

    `denoise` takes noisy images x (B, C, H, W) on the job's device, their noise level and the class
    that is told of each, int64 (B,), and returns D(x; sigma, c). `sigmas` turns uniform numbers
    (n,) in [0, 1) into the noise levels of its training.
    """

    denoise: Callable[[Tensor, float, Tensor], Tensor]
    sigmas: Callable[[Tensor], Tensor]
    classes: int


@dataclass(frozen=True)
class Examples:
    """What a probe is shown of a split: `features` (N, ...) and int64 `labels` (N,) in
    0..classes-1.

    `labels` is None if the probe does not require any. `named` says whether the model's own classes
    are the labels themselves, as where it was trained with labels; clusters have no such names.
    `told` is the model itself, for a probe that reads `errors`.
    """

    features: Tensor
    labels: Tensor | None = None
    classes: int = 0
    named: bool = False
    told: Told | None = None

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Reference:
    """What a metric compares with: features of the training images (N, D) and of held-out real ones
    (M, D).

    A metric that reads conditions is also given the classes of the training images, int64 (N,),
    where -1 is none; of classes that are labels all, also those that the model was not given.
    `measured` is what the metric's `measure` made of the features, if that was kept.
    """

    train: Tensor
    held_out: Tensor
    conditions: Tensor | None = None
    measured: Mapping[str, Tensor] | None = None
