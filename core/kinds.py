"""The kinds: one small abstract class for everything that a recipe names.

A component subclasses its kind, sets `name`, declares its fields and writes the abstract methods; the rest has a
default. Capabilities (`requires`, `provides`) are plain strings:

    labels        the dataset has labels
    conditions    the model is trained with conditions
    null          ... and with condition dropout, so that it also knows "no condition"
    label_free    the conditions were made without any label
    attention     the network has layers that mix tokens through `attend`
    logits        the network also recognises the conditions: a joint model
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fw.core.errors import FwError
from fw.core.job import Job
from fw.core.types import Annotation, ConditionSpec, ImageSet, Observations, Reference, Split
from fw.registry import Component

if TYPE_CHECKING:
    from fw.core.recipe import Train


class Dataset(Component):
    """Images, with labels where there are any."""

    kind: ClassVar[str] = "dataset"

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image; asked when a recipe is validated, so it is known without the files."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """How many classes the labels have; 0 where there are none."""

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"labels"}) if self.classes else frozenset()

    @abstractmethod
    def load(self, split: Split) -> ImageSet:
        """The split's images; `test` is never trained on. The same fields give the same images in the same order."""


class Encoder(Component):
    """Images in, features out: what annotators cluster and what metrics measure in."""

    kind: ClassVar[str] = "encoder"
    uses_labels: ClassVar[bool] = False
    """Whether it is trained with labels; without this it is never given any."""

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"labels"}) if self.uses_labels else frozenset()

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise ValueError if it cannot take images (C, H, W); asked when a recipe is validated."""

    @abstractmethod
    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """An unfitted module whose forward maps uint8 images (B, C, H, W) to float32 features (B, D).

        `shape` is (C, H, W). `classes` is 0 unless the encoder declares `uses_labels`. Everything that fitting finds
        out is in the module's state dict, because that is what is stored. torch's global generator is seeded before
        this is called. Features are asked of the module in eval mode, without gradients, on the job's device and in
        batches.
        """

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        """Train `network` on the training split, in place. Labels are absent unless `uses_labels`.

        An encoder with pretrained or without weights has nothing to do here.
        """

    def quality(self, network: nn.Module, held_out: ImageSet) -> dict[str, float]:
        """Scores of the fitted network on held-out images, for the report."""
        return {}


class Annotator(Component):
    """Turns features (or labels) into one condition per image: the model's own labels."""

    kind: ClassVar[str] = "annotator"
    uses_features: ClassVar[bool] = True
    """Whether it looks at an encoder's features."""
    uses_labels: ClassVar[bool] = False
    """Whether it looks at labels; without this it is never given any."""
    form: ClassVar[str] = "class"
    """The form of the conditions that it makes: `class` or `vector`."""

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"labels"}) if self.uses_labels else frozenset()

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"conditions"}) if self.uses_labels else frozenset({"conditions", "label_free"})

    @abstractmethod
    def annotate(self, data: Observations, job: Job) -> Annotation:
        """Annotate the training images. Undeclared features or labels are None in `data`."""


class Coefficients(NamedTuple):
    """How a process wraps a raw network F into a denoiser, per sample (B,):

    D(x; sigma) = skip * x + out * F(scale * x, noise)      (EDM, arXiv 2206.00364, eq. 7)
    """

    skip: Tensor
    out: Tensor
    scale: Tensor
    noise: Tensor


class Process(Component):
    """A forward process with its prediction target: DDPM, EDM, flow matching, ... are choices of four coefficients."""

    kind: ClassVar[str] = "process"

    @property
    @abstractmethod
    def sigma_range(self) -> tuple[float, float]:
        """The smallest and the largest noise level that training covers."""

    @abstractmethod
    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The preconditioning at noise levels sigma (B,)."""

    @abstractmethod
    def sigmas(self, uniform: Tensor) -> Tensor:
        """Training noise levels (B,) from uniform random numbers (B,) in [0, 1): an inverse CDF."""

    def weight(self, sigma: Tensor) -> Tensor:
        """The loss weight (B,) on the squared error of F. One is each process's simple loss."""
        return torch.ones_like(sigma)


class Attend(Protocol):
    """How a layer mixes tokens: the one extension point inside networks."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
        """query, key, value: (B, heads, N, d); returns (B, heads, N, d). `layer` is the layer's name."""


def scaled_dot_product(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
    """The usual `Attend`: softmax(query key^T / sqrt(d)) value."""
    return scaled_dot_product_attention(query, key, value)


class Network(Protocol):
    """What a backbone builds: F(x, noise, condition)."""

    def __call__(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """x (B, C, H, W), noise (B,) -> (B, C, H, W).

        `condition` None means the null condition; `dropped`, bool (B,), replaces single conditions by it.
        """


class Backbone(Component):
    """A network architecture."""

    kind: ClassVar[str] = "backbone"
    conditions: ClassVar[frozenset[str]] = frozenset({"class", "vector"})
    """The forms of condition that the network can take."""

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise ValueError if the network cannot take images (C, H, W); asked when a recipe is validated."""

    @abstractmethod
    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        """A fresh `Network` for images (C, H, W); `condition` None builds an unconditional one."""


class JointNetwork(Network, Protocol):
    """What a joint backbone builds: its classes are read off the image, so `condition` and `dropped` do nothing."""

    def both(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction (B, C, H, W) and the class logits (B, K), from one pass through the shared trunk."""

    def logits(self, x: Tensor, noise: Tensor) -> Tensor:
        """The class logits (B, K) alone."""


class Joint(Backbone):
    """A backbone that also recognises: one network that denoises and classifies (HybViT, arXiv 2208.07791; JDM,
    arXiv 2301.13622).

    A recipe names it as its `model`. The arm's annotation is what it learns to recognise, on noisy images at every
    level, with the loss L_denoise + weight * cross entropy; true labels and self-made ones both do. An arm without an
    annotator trains the generator alone: `condition` is None, and there is no head.
    """

    conditions: ClassVar[frozenset[str]] = frozenset({"class"})

    weight: float = Field(1e-3, gt=0, description="weight of the classification loss beside the denoising loss")

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"logits"})

    @abstractmethod
    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        """A fresh `JointNetwork` for images (C, H, W) with a head for `condition.size` classes."""


class Denoiser(Protocol):
    """D(x; sigma, c), the one convention that guidance and samplers know."""

    def __call__(
        self, x: Tensor, sigma: float, condition: Tensor | None = None, attend: Attend | None = None
    ) -> Tensor: ...

    def layers(self, x: Tensor) -> tuple[str, ...]:
        """The names of the network's layers that mix tokens through `attend`, in the order in which they are called."""

    def logits(self, x: Tensor, sigma: float) -> Tensor:
        """The class logits (B, K) of noisy images, for guidance that requires `logits`.

        For a gradient with respect to x, leave inference mode: `torch.inference_mode(False)`, `torch.enable_grad()`.
        """


class Sibling(NamedTuple):
    """Another network that a guidance mode asks for: what it is, and how it is trained."""

    model: Backbone
    train: Train


class Guidance(Component):
    """Names what is worse; the rule is the same for all:

    D_w = good + sum_i (scale_i - 1) * (good - worse_i)

    scale = 1 is off, costs no forward pass and is bit-exact. `interval` limits it to noise levels lo < sigma <= hi
    (arXiv 2404.07724).
    """

    kind: ClassVar[str] = "guidance"
    evaluations: ClassVar[int] = 1
    """Network evaluations that one call of `worse` costs."""

    scale: float = Field(1.0, ge=0, description="guidance scale; 1 is off")
    interval: tuple[float, float] | None = Field(None, description="noise levels (lo, hi] where it acts; null is all")

    @field_validator("interval")
    @classmethod
    def _lowest_first(cls, interval: tuple[float, float] | None) -> tuple[float, float] | None:
        if interval is not None and not 0 <= interval[0] < interval[1]:
            raise ValueError(f"an interval is [lo, hi] with 0 <= lo < hi, not {list(interval)}")
        return interval

    @abstractmethod
    def worse(self, model: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        """A worse prediction than `good` = D(x; sigma, condition), of the same shape.

        `model` is the arm's denoiser, or its sibling if the mode asks for one.
        """

    def sibling(self, model: Backbone, train: Train) -> Sibling | None:
        """A network that `worse` gets in place of the arm's own: trained as a stage of its own, on the same data and
        conditions. `model` and `train` are the arm's."""
        return None

    def active(self, sigma: float) -> bool:
        """Whether it changes predictions at this noise level; fw asks, and calls `worse` only then."""
        inside = self.interval is None or self.interval[0] < sigma <= self.interval[1]
        return self.scale != 1 and inside


class Denoise(Protocol):
    """The guided denoiser with its conditions bound, as a sampler sees it."""

    sigma_min: float
    sigma_max: float

    def __call__(self, x: Tensor, sigma: float) -> Tensor: ...


class Sampler(Component):
    """Integrates from noise to images with any denoiser. Its schedule is its fields."""

    kind: ClassVar[str] = "sampler"

    @property
    @abstractmethod
    def nfe(self) -> int:
        """Denoiser evaluations per sample, without guidance."""

    def check(self, sigma_range: tuple[float, float]) -> None:
        """Raise ValueError if the schedule leaves the trained noise levels; asked when a recipe is validated."""

    @abstractmethod
    def sample(self, denoise: Denoise, noise: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Unit-variance noise (B, C, H, W) to samples in -1..1.

        A stochastic sampler draws image i's noise from `generators[i]` (CPU), so samples do not depend on the batch.
        """


class Metric(Component):
    """Compares features of samples with features of real images, in the space of an encoder.

    A subclass has a field `space: Encoder`.
    """

    kind: ClassVar[str] = "metric"
    space: Encoder

    @property
    def requires(self) -> frozenset[str]:
        return self.space.requires

    def preflight(self) -> None:
        self.space.preflight()

    @property
    @abstractmethod
    def keys(self) -> Mapping[str, str]:
        """The keys that `compare` returns, each with `lower` or `higher`: which is better."""

    @abstractmethod
    def compare(self, reference: Reference, fake: Tensor) -> dict[str, float]:
        """Score features (n, D). Comparing `reference.held_out` itself gives the floor."""


class ArmDescription(NamedTuple):
    """An arm as a tracker shows it: its name and its flattened sections."""

    name: str
    params: Mapping[str, str]


class RunDescription(NamedTuple):
    """A run as a tracker opens it. `previous` is the handle that the tracker returned when the run last stopped."""

    recipe: str
    key: str
    folder: Path
    root: Path
    baseline: str
    headline: str
    arms: Sequence[ArmDescription]
    tags: Mapping[str, str]
    previous: Mapping[str, Any] | None


class TrackedRun(Protocol):
    """An open run. `arm` None addresses the run as a whole. Every call may be repeated: nothing is logged twice."""

    def series(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
        """Values over steps; each record has `step`."""

    def scores(self, arm: str | None, values: Mapping[str, float]) -> None:
        """Final values."""

    def files(self, arm: str | None, paths: Sequence[Path]) -> None:
        """Files to look at."""

    def model(self, arm: str, weights: Path, scores: Mapping[str, float]) -> None:
        """The trained weights (safetensors) of an arm."""

    def note(self, markdown: str) -> None:
        """The result in words, shown on the run's page."""

    def end_arm(self, arm: str, status: str) -> None:
        """`finished`, `failed` or `killed`."""

    def end(self, status: str) -> None:
        """Likewise for the whole run."""

    @property
    def handle(self) -> Mapping[str, Any]:
        """What finds this run again; JSON."""

    @property
    def hint(self) -> str:
        """One line for the user: where to look."""


class Tracker(Component):
    """Where experiments are logged."""

    kind: ClassVar[str] = "tracker"

    @abstractmethod
    def open(self, run: RunDescription) -> TrackedRun:
        """Open the run, or open it again."""

    def serve(self, root: Path, port: int) -> int:
        """Show what was logged to the runs folder `root` in a browser, until Ctrl-C; returns the exit code."""
        raise FwError(f"the tracker '{self.name}' has no page of its own")
