"""The kinds: one small abstract class for everything that a recipe names.

A component subclasses its kind, sets `name`, declares its fields and writes the abstract methods; the rest has a
default. Capabilities (`requires`, `provides`) are plain strings:

    labels        the dataset has labels
    conditions    the model is trained with conditions
    class_conditions, vector_conditions, tokens_conditions    ... of this form
    told          ... which the network is told, and does not read off the image as a joint model does
    null          ... and with condition dropout, so that it also knows "no condition"
    label_free    the conditions were made without any label
    attention     the network has layers that mix tokens through `attend`
    logits        the network also recognises the conditions: a joint model
    steerable     ... and decodes what it recognises them from, also after that was moved
    taps          the network names its blocks, whose activations can be read
    timesteps     the process tells the network timesteps 0..T-1, as DDPM
    pixels        what is diffused are the images themselves, in -1..1, and not latents
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fw.core.errors import FwError
from fw.core.job import Job
from fw.core.settings import Train
from fw.core.types import LARGEST, Annotation, ConditionSpec, Examples, ImageSet, Observations, Reference, Split
from fw.registry import Component, Neutral


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

    @property
    def class_names(self) -> Sequence[str]:
        """The classes by name, in the order of their numbers; empty where they have no names, or
        where the files that say so are not there. Also asked when a recipe is validated."""
        return ()

    @property
    def missing(self) -> str | None:
        """What could not be checked because files are not there, or None; a recipe is valid
        without, with a warning."""
        return None

    def check(self) -> None:
        """Raise ValueError if files are there and are not what the fields say; asked when a recipe
        is validated."""

    @abstractmethod
    def load(self, split: Split) -> ImageSet:
        """The split's images; `test` is never trained on. The same fields give the same images in the same order."""

    def how_many(self, split: Split) -> int | None:
        """How many images the split has, if that is known without reading any; asked when a recipe is validated."""
        return None

    def remarks(self) -> Sequence[str]:
        """What a user should know of the images, such as files that were left out; asked after both
        splits were loaded. Every run warns of it."""
        return ()


class Code(NamedTuple):
    """Latents of images, float32 (B, C, h, w). Training takes `mean`, or if there is a `std` of the same shape, a fresh
    draw of N(mean, std) at each step."""

    mean: Tensor
    std: Tensor | None = None


class Autoencoder(Component):
    """Images to latents and back (arXiv 2112.10752): the model is trained and sampled in the latents.

    Everything else still sees pixels: encoders, annotators and metrics. The training split is encoded once, and
    samples are decoded. An autoencoder is not trained by fw.
    """

    kind: ClassVar[str] = "autoencoder"

    @abstractmethod
    def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, h, w) of the latents of images (C, H, W), or ValueError if it cannot take them; asked when a recipe is
        validated, so it is known without the files."""

    @abstractmethod
    def build(self, shape: tuple[int, int, int]) -> nn.Module:
        """The trained network for images (C, H, W). fw puts it into eval mode and asks for no gradients."""

    @abstractmethod
    def encode(self, network: nn.Module, images: Tensor) -> Code:
        """uint8 images (B, C, H, W) to latents of about unit variance."""

    @abstractmethod
    def decode(self, network: nn.Module, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) to float32 images (B, C, H, W) in -1..1; what lies outside is clamped."""


class Encoder(Component):
    """Images in, features out: what annotators cluster and what metrics measure in."""

    kind: ClassVar[str] = "encoder"
    uses_labels: ClassVar[bool] = False
    """Whether it is trained with labels; without this it is never given any."""

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"labels"}) if self.uses_labels else frozenset()

    @property
    def least_images(self) -> int:
        """How many training images it needs; fewer are refused when a recipe is validated."""
        return 1

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
    """The form of the conditions that it makes: `class`, `vector` or `tokens`."""

    @property
    def partial(self) -> bool:
        """Whether it may leave images without a condition, by the class -1; its annotation then has a bank.

        A conditional model learns such images without a condition, a joint one only to denoise them.
        """
        return False

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"labels"}) if self.uses_labels else frozenset()

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"conditions"}) if self.uses_labels else frozenset({"conditions", "label_free"})

    @property
    def least_images(self) -> int:
        """How many training images it needs; fewer are refused when a recipe is validated."""
        return 1

    def makes(self, classes: int) -> ConditionSpec | None:
        """The form and number of its conditions, of images with labels of so many classes; None if only annotating
        tells. Asked when a recipe is validated."""
        return None

    def caution(self, images: int, classes: int) -> str | None:
        """What is to be known before it annotates so many images with labels of so many classes; None if nothing is."""
        return None

    @abstractmethod
    def annotate(self, data: Observations, job: Job) -> Annotation:
        """Annotate the training images. Undeclared features or labels are None in `data`."""


class Grouping(Protocol):
    """What an online annotator builds: a module that groups images by their features (B, F), around prototypes."""

    @property
    def prototypes(self) -> Tensor:
        """The conditions (K, D), float32, of length 1."""

    def assign(self, features: Tensor) -> Tensor:
        """The prototype of each image, int64 (B,) in 0..K-1; asked in eval mode."""

    def loss(self, features: Tensor, step: int) -> Tensor:
        """What the module's own optimizer minimises, (); asked once a step, in training mode."""


class Online(Annotator):
    """An annotator that finds its conditions while the denoiser learns, in the denoiser's own features (SGFM, arXiv
    2312.08825).

    The train stage makes the annotation, so there is no annotate stage. At every step the averaged denoiser, told no
    condition, shows what its block makes of the batch at one noise level. That trains the grouping; no gradient
    reaches the denoiser. From `start` on, an image's condition is the prototype it is assigned to. Before, there is
    none.
    """

    uses_features: ClassVar[bool] = False
    form: ClassVar[str] = "vector"

    start: float = Field(0.5, ge=0, lt=1, description="share of the training without conditions")
    block: str | None = Field(None, description="block whose features are grouped; null is the middle one")
    pool: bool = Field(True, description="average features over positions; false keeps their layout")
    sigma: float = Field(
        0.176, gt=0, description="noise level at which features are read; 0.176 is the paper's t = 0.85"
    )
    draws: int = Field(
        4, ge=1, le=10_000, description="draws of that noise over which an image's last assignment is averaged"
    )
    lr: float = Field(1e-3, gt=0, le=LARGEST, description="learning rate of the grouping (AdamW)")

    @property
    def requires(self) -> frozenset[str]:
        return super().requires | {"taps", "null"}

    @property
    @abstractmethod
    def condition(self) -> ConditionSpec:
        """The form and size of the conditions; asked before any is found."""

    def makes(self, classes: int) -> ConditionSpec:
        return self.condition

    def check_batch(self, batch: int) -> None:
        """Raise ValueError if it cannot learn from so many images a step; asked when a recipe is validated."""

    @abstractmethod
    def build(self, width: int) -> nn.Module:
        """A fresh `Grouping` of features (B, width). torch's global generator is seeded before this is called."""

    def annotate(self, data: Observations, job: Job) -> Annotation:
        raise FwError(f"annotator {self.name} finds its conditions while a denoiser learns, and has none before")


class Prior(Component):
    """p(c), from which conditions are drawn to sample. Without one they are those of random training images."""

    kind: ClassVar[str] = "prior"
    forms: ClassVar[frozenset[str]] = frozenset({"class", "vector", "tokens"})
    """The forms of condition that it can draw."""

    @abstractmethod
    def bank(self, annotation: Annotation, job: Job) -> Tensor:
        """A set of conditions like `annotation.conditions`, of any number; each sample draws one of them at random."""

    def quality(self, bank: Tensor, annotation: Annotation) -> dict[str, float]:
        """Scores of the bank, for the report."""
        return {}


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


@dataclass(frozen=True)
class Changed:
    """An `Attend` that changes only the named layers: blocks before the first of them need not be computed again."""

    layers: Collection[str]
    mix: Attend

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
        return (self.mix if layer in self.layers else scaled_dot_product)(query, key, value, layer)


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


class Tapped(Network, Protocol):
    """What a backbone that provides `taps` builds."""

    def taps(self) -> Mapping[str, nn.Module]:
        """Its blocks by name, in the order in which they are called; each returns (B, C, h, w) or (B, N, D), or a tuple
        that begins with it, which later blocks do not write into."""


class Backbone(Component):
    """A network architecture."""

    kind: ClassVar[str] = "backbone"
    conditions: ClassVar[frozenset[str]] = frozenset({"class", "vector"})
    """The forms of condition that the network can take."""
    pretrained: ClassVar[bool] = False
    """Whether `build` returns a network that was trained before, elsewhere."""

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


Read = Callable[[Sequence[Tensor]], Tensor]
"""Hidden tensors (B, ...) to class logits (B, K)."""

Move = Callable[[Sequence[Tensor], Read], Sequence[Tensor]]
"""Hidden tensors (B, ...), and what reads them, to others of the same shapes."""


class Steerable(JointNetwork, Protocol):
    """What a joint backbone that provides `steerable` builds."""

    def steered(self, x: Tensor, noise: Tensor, move: Move) -> Tensor:
        """The prediction (B, C, H, W) that is decoded from what `move` makes of the hidden tensors: those that both
        tasks share, of which the logits are a function. `move` may ask for gradients with respect to copies of them."""


class Joint(Backbone):
    """A backbone that also recognises: one network that denoises and classifies (HybViT, arXiv 2208.07791; JDM,
    arXiv 2301.13622).

    A recipe names it as its `model`. The arm's annotation is what it learns to recognise, on noisy images at every
    level, with the loss L_denoise + weight * cross entropy; true labels and self-made ones both do. An arm without an
    annotator trains the generator alone: `condition` is None, and there is no head. At `weight: .inf` the cross entropy
    is the whole loss, on the images that have a class: the classifier alone.

    Where few images have a class, a batch has hardly any to recognise. `labelled` images are then recognised at every
    step beside the batch, drawn from those with a class, which takes as long again if there are as many: HybViT has a
    second loader for the purpose, JDM collects labelled images until they fill a batch.
    """

    conditions: ClassVar[frozenset[str]] = frozenset({"class"})

    weight: float = Field(
        1e-3,
        gt=0,
        allow_inf_nan=True,
        description="weight of the cross entropy beside the denoising loss; .inf leaves out the latter",
    )
    labelled: Annotated[int, Neutral(0, names_folders=True)] = Field(
        0,
        ge=0,
        le=1_000_000,
        description="images with a class that are recognised beside each batch; 0 recognises those in the batch",
    )

    @field_validator("weight")
    @classmethod
    def _held(cls, weight: float) -> float:
        if LARGEST < weight < math.inf:
            raise ValueError(f"{weight:g} overflows; .inf leaves out the denoising loss")
        return weight

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

    def steered(self, x: Tensor, sigma: float, move: Move) -> Tensor:
        """D(x; sigma) decoded from moved features (`Steerable`), for guidance that requires `steerable`."""
        ...


Interval = tuple[float, float] | None
"""Noise levels lo < sigma <= hi, or all."""


def lowest_first(interval: Interval) -> Interval:
    if interval is not None and not 0 <= interval[0] < interval[1]:
        raise ValueError(f"an interval is [lo, hi] with 0 <= lo < hi, not {list(interval)}")
    return interval


Look = Callable[[Tensor, Tensor], Tensor]
"""Noisy images x (B, C, H, W) and their levels sigma (B,) to a block's tokens (B, N, D)."""


@dataclass(frozen=True)
class Seen:
    """What the term of an objective may see of one training step: never labels nor conditions.

    `tokens` (B, N, D), with gradient, is what the block made of the noisy images x0 + sigma * noise (the positions of a
    map follow each other row by row); `taken`, bool (B,), says which of them `interval` takes in. `x0` and `noise` are
    (B, C, H, W), `sigma` (B,). `features` (B, F) are those of the encoder that the objective names, of the same images;
    `teacher` looks with the averaged network, told no condition and without gradient, if the objective asks for it.
    """

    tokens: Tensor
    taken: Tensor
    x0: Tensor
    sigma: Tensor
    noise: Tensor
    generator: torch.Generator
    features: Tensor | None = None
    teacher: Look | None = None

    def mean(self, values: Tensor) -> Tensor:
        """The mean () of values (B,) over the images that are taken; 0 if none is."""
        return (values * self.taken).sum() / self.taken.sum().clamp(min=1)


class Objective(Component):
    """An extra term of the training loss, on what one block makes of the noisy images of the step:

    loss = denoising + sum_i weight_i * term_i

    The block is read in the pass that the denoising loss is made of. What the term needs beside the network, its head,
    is trained with the network, and no longer there when images are sampled. The log shows each term and the ratio of
    its gradient to that of the rest of the loss.
    """

    kind: ClassVar[str] = "objective"
    depth: ClassVar[float] = 0.5
    """Which block is read if `block` is null, as a share of all; 0.25 is the first of four."""
    uses_teacher: ClassVar[bool] = False
    """Whether its term looks at images with the averaged network, too."""

    weight: float = Field(0.5, ge=1e-30, le=1e30, description="weight of the term beside the denoising loss; lambda")
    block: str | None = Field(None, description="block whose activations it sees; null is one at its usual depth")
    interval: Interval = Field(None, description="noise levels (lo, hi] whose images it takes; null is all")
    _lowest_first = field_validator("interval")(lowest_first)

    @property
    def target(self) -> Encoder | None:
        """The encoder whose features of the training images its term sees; None if it sees none."""
        return None

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"taps"}) | (self.target.requires if self.target is not None else frozenset())

    def build(self, width: int, features: int) -> nn.Module:
        """A fresh head for tokens (B, N, width) and the target's features (B, features), 0 if there are none.

        torch's global generator is seeded before this is called. All that the head learns is in its state dict.
        """
        return nn.Identity()

    @abstractmethod
    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        """The term (), of the images alone that are taken, and 0 if none is; a function of its arguments, of which
        only the head may be changed. `seen.generator` is for randomness of its own, on the device of the images."""


class Sibling(NamedTuple):
    """Another network that a guidance mode asks for: what it is, and how it is trained."""

    model: Backbone
    train: Train


class Steering(Component):
    """What the list `guidance` of an arm holds: modes (`Guidance`), which name what is worse, and rules (`Rule`), which
    change how their differences are put together."""

    kind: ClassVar[str] = "guidance"

    def idle(self) -> str | None:
        """Why it changes no prediction with these fields, whatever the model says; None if it may change some."""
        return None


class Guidance(Steering):
    """Names what is worse; the rule is the same for all:

    D_w = good + sum_i (scale_i - 1) * (good - worse_i)

    scale = 1 is off, costs no forward pass and is bit-exact. `interval` limits it to noise levels lo < sigma <= hi
    (arXiv 2404.07724).
    """

    evaluations: ClassVar[int] = 1
    """Network evaluations that one call of `worse` costs."""

    scale: float = Field(1.0, ge=0, le=LARGEST, description="guidance scale; 1 is off")
    interval: Interval = Field(None, description="noise levels (lo, hi] where it acts; null is all")
    _lowest_first = field_validator("interval")(lowest_first)

    @abstractmethod
    def worse(self, model: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        """A worse prediction than `good` = D(x; sigma, condition), of the same shape.

        `model` is the arm's denoiser, or its sibling if the mode asks for one.
        """

    def sibling(self, model: Backbone, train: Train) -> Sibling | None:
        """A network that `worse` gets in place of the arm's own: trained as a stage of its own, on the same data and
        conditions. `model` and `train` are the arm's."""
        return None

    def check(self, condition: ConditionSpec | None) -> None:
        """Raise ValueError if it cannot guide with conditions of this form and number; asked before sampling, and when
        a recipe is validated if they are known by then."""

    def check_layers(self, called: Callable[[], Mapping[str, int]], shape: tuple[int, int, int]) -> None:
        """Raise ValueError if the network has no layers to act in; asked when a recipe is validated.

        `called()` finds out which layers mix tokens through `attend` for images (C, H, W), in the order of their calls,
        and how many tokens each has; it is empty where only the real network can tell.
        """

    def idle(self) -> str | None:
        return "scale 1 is off" if self.scale == 1 else None

    @property
    def names_classes(self) -> bool:
        """Whether it asks for a class of the data set by name."""
        return False

    def numbered(self, names: Sequence[str]) -> Self:
        """The same mode with numbers in the place of names, or ValueError if there is no such
        class. `names` are those of the data set in the order of their numbers; none are known where
        its files are not."""
        return self

    def active(self, sigma: float) -> bool:
        """Whether it changes predictions at this noise level; fw asks, and calls `worse` only then."""
        inside = self.interval is None or self.interval[0] < sigma <= self.interval[1]
        return self.scale != 1 and inside


class Rule(Steering):
    """Changes how the modes of the list are put together, wherever one of them is active:

    D_w = result(good, good + sum_i (scale_i - 1) * direction(good, good - worse_i))

    Several rules follow each other in the order of the list.
    """

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Takes and returns a difference (B, C, H, W) between predictions of x0. `memory` is this rule's own for this
        mode and this batch, and empty at the first noise level."""
        return difference

    def result(self, good: Tensor, guided: Tensor) -> Tensor:
        """Takes the unguided and the guided prediction of x0 (B, C, H, W), and returns the guided one."""
        return guided


class Denoise(Protocol):
    """The guided denoiser with its conditions bound, as a sampler sees it."""

    sigma_min: float
    sigma_max: float

    def __call__(self, x: Tensor, sigma: float) -> Tensor: ...


class Recorder:
    """A `Denoise` that takes everything for the noise of a grey image, and remembers the levels it was asked at."""

    def __init__(self, sigma_min: float, sigma_max: float):
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.levels: list[float] = []

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.levels.append(float(sigma))
        return torch.zeros_like(x)


class Sampler(Component):
    """Integrates from noise to images with any denoiser. Its schedule is its fields."""

    kind: ClassVar[str] = "sampler"

    @property
    @abstractmethod
    def nfe(self) -> int:
        """Denoiser evaluations per sample, without guidance."""

    def check(self, sigma_range: tuple[float, float]) -> None:
        """Raise ValueError if the schedule leaves the trained noise levels; asked when a recipe is validated."""

    def asks(self, sigma_range: tuple[float, float]) -> list[float]:
        """The noise levels at which it asks a denoiser that is trained at these, call by call: found out with a small
        grey image."""
        recorder = Recorder(*sigma_range)
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            self.sample(recorder, torch.zeros(1, 1, 8, 8), [torch.Generator()])
        return recorder.levels

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
    reads_conditions: ClassVar[bool] = False
    """Whether it scores how samples fit the classes that they were asked for. Arms without classes are not scored."""
    space: Encoder

    @property
    def requires(self) -> frozenset[str]:
        return self.space.requires

    def preflight(self) -> None:
        self.space.preflight()

    @property
    def least_images(self) -> int:
        """How many samples, held-out and training images it needs each; fewer are refused when a recipe is
        validated."""
        return 1

    @property
    @abstractmethod
    def keys(self) -> Mapping[str, str]:
        """The keys that `compare` returns, each with `lower` or `higher`: which is better."""

    @abstractmethod
    def compare(self, reference: Reference, fake: Tensor) -> dict[str, float]:
        """Score features (n, D). Comparing `reference.held_out` itself gives the floor.

        A metric that reads conditions has a floor only where they are labels: then held-out images have them, too.
        """


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

    def check_keys(self, keys: Collection[str]) -> None:
        """ValueError where scores have names that it cannot take; asked when a recipe is validated."""

    def close(self, handle: Mapping[str, Any], root: Path, status: str) -> None:
        """End a run whose process died, as `failed` or `killed`; what has ended stays as it is, so it may be repeated.

        `handle` is what the run was found by, with its `recipe` and `key`, which are all that there is of a run that
        died while it was opened. `root` is the runs folder that it is in now.
        """

    def serve(self, root: Path, port: int) -> int:
        """Show what was logged to the runs folder `root` in a browser, until Ctrl-C; returns the exit code."""
        raise FwError(f"the tracker '{self.name}' has no page of its own")
