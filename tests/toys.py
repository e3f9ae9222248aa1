"""Toy components of every kind, a registry of them, and a recipe: all of fw's logic in
milliseconds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fw.core.job import Job
from fw.core.kinds import (
    Annotator,
    Attend,
    Backbone,
    Coefficients,
    Dataset,
    Denoise,
    Denoiser,
    Encoder,
    Guidance,
    Metric,
    Process,
    Sampler,
)
from fw.core.randomness import Draws
from fw.core.types import Annotation, ConditionSpec, ImageSet, Observations, Reference, Split
from fw.registry import Component, Provider, Registry

RECIPE = """\
fw: 1
name: toy
dataset: dots
encoder: {name: mean, cells: 2}
annotator: {name: halves, clusters: 2}
model: linear
process: unit
train: {steps: 4, batch: 8, warmup: 1}
sampler: {name: euler, steps: 2}
samples: {count: 6, seeds: 3}
metrics: [{name: gap, space: flat}]
baseline: plain
arms:
  plain: {annotator: null}
  self_1.0: {}
  self_1.5: {guidance: {name: selfish, scale: 1.5}}
"""


class Dots(Dataset):
    """Random 4x4 images in two classes of brightness."""

    name: ClassVar[str] = "dots"
    count: int = Field(20, ge=2)
    labelled: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 4, 4

    @property
    def classes(self) -> int:
        return 2 if self.labelled else 0

    def load(self, split: Split) -> ImageSet:
        draw = torch.Generator().manual_seed(len(split))
        labels = torch.arange(self.count) % 2
        images = (
            torch.randint(0, 128, (self.count, 1, 4, 4), generator=draw)
            + 128 * labels[:, None, None, None]
        )
        return ImageSet(images.to(torch.uint8), labels if self.labelled else None, self.classes)


class Pool(nn.Module):
    """Means over cells x cells tiles, flattened."""

    def __init__(self, cells: int):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(cells)
        self.register_buffer("scale", torch.tensor(1 / 255))

    def forward(self, images: Tensor) -> Tensor:
        return self.pool(images.float()).flatten(1) * self.scale


class Mean(Encoder):
    """Average brightness per tile."""

    name: ClassVar[str] = "mean"
    cells: int = Field(1, ge=1)

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        return Pool(self.cells)


class Flat(Mean):
    """The same under another name, as the space of metrics."""

    name: ClassVar[str] = "flat"


class Taught(Mean):
    """An encoder that looks at labels."""

    name: ClassVar[str] = "taught"
    uses_labels: ClassVar[bool] = True


class Halves(Annotator):
    """Clusters by rank of the first feature."""

    name: ClassVar[str] = "halves"
    clusters: int = Field(2, ge=2)

    def annotate(self, data: Observations, job: Job) -> Annotation:
        assert data.features is not None
        ranks = data.features[:, 0].argsort().argsort()
        return Annotation(
            ConditionSpec("class", self.clusters), ranks * self.clusters // data.count
        )


class Coin(Annotator):
    """Random conditions: neither features nor labels."""

    name: ClassVar[str] = "coin"
    uses_features: ClassVar[bool] = False
    sides: int = Field(2, ge=2)

    def annotate(self, data: Observations, job: Job) -> Annotation:
        tossed = torch.randint(0, self.sides, (data.count,), generator=job.generator("coin"))
        job.log(0, {"mean": tossed.float().mean()})
        return Annotation(ConditionSpec("class", self.sides), tossed)


class Truth(Annotator):
    """The true labels."""

    name: ClassVar[str] = "truth"
    uses_features: ClassVar[bool] = False
    uses_labels: ClassVar[bool] = True

    def annotate(self, data: Observations, job: Job) -> Annotation:
        assert data.labels is not None
        return Annotation(ConditionSpec("class", data.classes), data.labels)


class Broken(Coin):
    """Raises."""

    name: ClassVar[str] = "broken"

    def annotate(self, data: Observations, job: Job) -> Annotation:
        raise ValueError("the wheel came off")


class Deadly(Coin):
    """Takes its process with it, as the kernel does to a process that wants too much memory."""

    name: ClassVar[str] = "deadly"

    def annotate(self, data: Observations, job: Job) -> Annotation:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Endless(Coin):
    """Is at work until it is asked to stop."""

    name: ClassVar[str] = "endless"

    def annotate(self, data: Observations, job: Job) -> Annotation:
        for _ in job.track(range(100_000), "wait"):
            time.sleep(0.01)
        raise AssertionError


class Held(Coin):
    """Is at work until a file is there."""

    name: ClassVar[str] = "held"
    until: str

    def annotate(self, data: Observations, job: Job) -> Annotation:
        for _ in job.track(range(100_000), "wait"):
            if Path(self.until).exists():
                return super().annotate(data, job)
            time.sleep(0.01)
        raise AssertionError


class LinearNetwork(nn.Module):
    """x and one bias per condition; the last row is the null condition."""

    def __init__(self, spec: ConditionSpec | None):
        super().__init__()
        self.mix = nn.Linear(16, 16)
        self.bias = nn.Embedding((spec.size if spec else 0) + 1, 16)

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        null = torch.full((len(x),), self.bias.num_embeddings - 1)
        condition = null if condition is None else condition
        condition = condition if dropped is None else torch.where(dropped, null, condition)
        return (self.mix(x.flatten(1)) + self.bias(condition)).view_as(x)


class Linear(Backbone):
    """One linear layer."""

    name: ClassVar[str] = "linear"
    width: int = Field(1, ge=1)

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        return LinearNetwork(condition)


class Attentive(Linear):
    """The same, said to have attention layers."""

    name: ClassVar[str] = "attentive"

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"attention"})


class Unit(Process):
    """D = x + F at noise levels up to 1."""

    name: ClassVar[str] = "unit"

    @property
    def sigma_range(self) -> tuple[float, float]:
        return 0.01, 1.0

    def coefficients(self, sigma: Tensor) -> Coefficients:
        one = torch.ones_like(sigma)
        return Coefficients(one, one, one, sigma)

    def sigmas(self, uniform: Tensor) -> Tensor:
        return 0.01 + 0.99 * uniform


class Free(Guidance):
    """Needs nothing."""

    name: ClassVar[str] = "free"

    def worse(
        self, model: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        return model(x, sigma, None)


class Dropped(Free):
    """Needs a model that knows the null condition."""

    name: ClassVar[str] = "dropped"

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"conditions", "null"})


class Selfish(Dropped):
    """Needs conditions that were made without labels."""

    name: ClassVar[str] = "selfish"

    @property
    def requires(self) -> frozenset[str]:
        return super().requires | {"label_free"}


class Blurred(Free):
    """Needs attention layers."""

    name: ClassVar[str] = "blurred"

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"attention"})


class Through(Free):
    """Holds another component."""

    name: ClassVar[str] = "through"
    lens: Encoder = Field("mean", validate_default=True)


class Euler(Sampler):
    """Steps towards the denoised image."""

    name: ClassVar[str] = "euler"
    steps: int = Field(2, ge=1)

    @property
    def nfe(self) -> int:
        return self.steps

    def sample(self, denoise: Denoise, noise: Tensor, draws: Draws) -> Tensor:
        x = noise * denoise.sigma_max
        for step in range(self.steps):
            x = x + (denoise(x, 1 - step / self.steps) - x) / (self.steps - step)
        return x


class Gap(Metric):
    """The distance between means."""

    name: ClassVar[str] = "gap"
    weights: dict[str, float] = Field(default_factory=dict)

    @property
    def keys(self) -> Mapping[str, str]:
        return {f"gap_{self.space.name}": "lower"}

    def compare(
        self, prepared: Reference, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        return {f"gap_{self.space.name}": float((prepared.train.mean(0) - fake.mean(0)).norm())}


COMPONENTS: list[type[Component]] = [
    *(
        Dots,
        Mean,
        Flat,
        Taught,
        Halves,
        Coin,
        Truth,
        Broken,
        Deadly,
        Endless,
        Held,
        Linear,
        Attentive,
        Unit,
    ),
    *(Free, Dropped, Selfish, Blurred, Through, Euler, Gap),
]


def registry() -> Registry:
    toys = Registry()
    toys.add(Provider("toys"), COMPONENTS)
    return toys


class Untracked:
    """A tracked run that takes everything and keeps nothing."""

    handle: Mapping[str, Any] = {}
    hint = ""

    def series(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
        pass

    def scores(self, arm: str | None, values: Mapping[str, float]) -> None:
        pass

    def files(self, arm: str | None, paths: Sequence[Path]) -> None:
        pass

    def wants_model(self, arm: str) -> bool:
        return True

    def model(self, arm: str, weights: Path, scores: Mapping[str, float]) -> None:
        pass

    def note(self, markdown: str) -> None:
        pass

    def end_arm(self, arm: str, status: str) -> None:
        pass

    def end(self, status: str) -> None:
        pass
