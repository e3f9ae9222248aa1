"""Processes, backbones, joint models and samplers with one planted fault each, beside an honest
twin of each kind."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention
from variants import variant, variants

from fw.core.diffusion.conditioning import ConditionEmbedding
from fw.core.kinds import Attend, Backbone, Coefficients, Denoise, Joint, Move, Process, Sampler
from fw.core.testing import Clause, backbone, joint, process, sampler
from fw.core.types import ConditionSpec
from fw.registry import Component


class HonestProcess(Process):
    """EDM's preconditioning, with noise levels evenly in log sigma."""

    name: ClassVar[str] = "honest"

    @property
    def sigma_range(self) -> tuple[float, float]:
        return 0.01, 20.0

    def coefficients(self, sigma: Tensor) -> Coefficients:
        root = (sigma.square() + 0.25).sqrt()
        return Coefficients(0.25 / root**2, 0.5 * sigma / root, 1 / root, sigma.log() / 4)

    def sigmas(self, uniform: Tensor) -> Tensor:
        low, high = self.sigma_range
        return (low * (high / low) ** uniform).clamp(low, high)


@functools.cache
def ones(count: int) -> Tensor:
    return torch.ones(count)


def usual(sigma: Tensor) -> Coefficients:
    return HonestProcess().coefficients(sigma)


def drawn(uniform: Tensor) -> Tensor:
    return HonestProcess().sigmas(uniform)


variants(
    HonestProcess,
    "sigma_range",
    UpsideDown=lambda self: (20.0, 0.01),
    FromZero=lambda self: (0.0, 20.0),
)
variants(
    HonestProcess,
    "sigmas",
    BeyondItsRange=lambda self, uniform: torch.special.ndtri(uniform.clamp(1e-7, 1 - 1e-7)).exp(),
    StopsShort=lambda self, uniform: drawn(uniform).clamp(max=4),
    StartsLate=lambda self, uniform: drawn(uniform).clamp(min=0.1),
    FallingLevels=lambda self, uniform: drawn(1 - uniform),
    OneLevel=lambda self, uniform: torch.ones_like(uniform),
    DoubleLevels=lambda self, uniform: drawn(uniform.double()),
    Jittered=lambda self, uniform: drawn((uniform + 1e-9 * torch.rand_like(uniform)).clamp(0, 1)),
)
variants(
    HonestProcess,
    "coefficients",
    NanAtTheEnd=lambda self, sigma: usual(sigma)._replace(skip=(20.0 - sigma) / (20.0 - sigma)),
    SilentAtTheStart=lambda self, sigma: usual(sigma)._replace(out=sigma - torch.tensor(0.01)),
    SharedScale=lambda self, sigma: usual(sigma)._replace(
        scale=usual(sigma).scale.min().expand_as(sigma)
    ),
    OneNumber=lambda self, sigma: usual(sigma)._replace(skip=torch.tensor(0.5)),
    AlwaysSingle=lambda self, sigma: usual(sigma.float()),
    WritesIntoSigma=lambda self, sigma: usual(sigma.add_(1e-3)),
)
variants(
    HonestProcess,
    "weight",
    NegativeWeight=lambda self, sigma: sigma.log(),
    NoWeight=lambda self, sigma: torch.zeros_like(sigma),
    Cached=lambda self, sigma: ones(len(sigma)),  # perhaps first made in inference mode
)


class Net(nn.Module):
    """A `fw.core.kinds.Network` whose output starts at zero; faults override its parts."""

    def __init__(
        self, shape: tuple[int, int, int], condition: ConditionSpec | None, width: int = 8
    ):
        super().__init__()
        self.read = nn.Conv2d(shape[0], width, 3, padding=1)
        self.level = nn.Linear(3, width)
        self.embed = None if condition is None else ConditionEmbedding(condition, width)
        self.write = nn.Conv2d(width, shape[0], 3, padding=1)
        nn.init.zeros_(self.write.weight)

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        return self.write(self.mixed(self.hidden(x, noise, condition, dropped), attend))

    def hidden(
        self, x: Tensor, noise: Tensor, condition: Tensor | None, dropped: Tensor | None
    ) -> Tensor:
        told = self.told(noise)  # (B, width)
        if self.embed is not None:
            told = told + self.embedded(condition, dropped, len(x))
        return torch.tanh(self.read(x) + told[:, :, None, None])

    def told(self, noise: Tensor) -> Tensor:
        return self.level(torch.stack([noise.sin(), noise.cos(), noise / 1000], dim=1))

    def embedded(self, condition: Tensor | None, dropped: Tensor | None, count: int) -> Tensor:
        assert self.embed is not None
        return self.embed(condition, dropped, count)

    def mixed(self, hidden: Tensor, attend: Attend | None) -> Tensor:
        return hidden


class Attentive(Net):
    """The same with two attention layers."""

    def __init__(self, shape: tuple[int, int, int], condition: ConditionSpec | None):
        super().__init__(shape, condition)
        self.mixers = nn.ModuleDict({name: nn.Linear(8, 24) for name in ("first", "second")})

    def mixed(self, hidden: Tensor, attend: Attend | None) -> Tensor:
        for name in self.mixers:
            hidden = hidden + self.layer(name, hidden, attend)
        return hidden

    def layer(self, name: str, hidden: Tensor, attend: Attend | None) -> Tensor:
        query, key, value = (  # (B, 2, H * W, width / 2)
            part.unflatten(2, (2, -1)).transpose(1, 2)
            for part in self.mixers[name](hidden.flatten(2).transpose(1, 2)).chunk(3, 2)
        )
        mixed = self.attention(query, key, value, name, attend)
        return (
            mixed.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, hidden.shape[2:])
        )  # (B, width, H, W)

    def attention(
        self, query: Tensor, key: Tensor, value: Tensor, name: str, attend: Attend | None
    ) -> Tensor:
        return (
            attend(query, key, value, name)
            if attend
            else scaled_dot_product_attention(query, key, value)
        )


class HonestBackbone(Backbone):
    """Two convolutions, the second of which starts at zero, and what the network has between
    them."""

    name: ClassVar[str] = "honest"
    network: ClassVar[type[nn.Module]] = Net

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"attention"}) if issubclass(self.network, Attentive) else frozenset()

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        return self.network(shape, condition)


class HonestWithAttention(HonestBackbone):
    """Mixes tokens in two layers."""

    network: ClassVar[type[nn.Module]] = Attentive


class HonestWithoutConditions(HonestBackbone):
    """Takes no conditions."""

    conditions: ClassVar[frozenset[str]] = frozenset()


class HonestAndPicky(HonestBackbone):
    """Takes only images of 28x28."""

    def check(self, shape: tuple[int, int, int]) -> None:
        if shape[1:] != (28, 28):
            raise ValueError("only 28x28")


def networks(base: type[Component], network: type[nn.Module], member: str, **faults: Any) -> None:
    """Variants of a backbone whose networks are variants of `network`."""
    for name, value in faults.items():
        variants(base, "network", **{name: variant(network, f"{name}Network", member, value)})


def honest(member: str, *given: Any) -> Tensor:
    """What `Net` does; the first of `given` is the network."""
    return getattr(Net, member)(*given)


def refusing(error: Exception, when: Callable[[int], object] = lambda height: True) -> Any:
    def check(self: Backbone, shape: tuple[int, int, int]) -> None:
        if when(shape[1]):
            raise error

    return check


variants(
    HonestBackbone,
    "check",
    RaisesTypeError=refusing(TypeError("odd"), lambda height: height % 2),
    TakesNothing=refusing(ValueError("no")),
)
variants(HonestBackbone, "conditions", UnknownForm=frozenset({"class", "text"}))
variants(HonestBackbone, "provides", SaysItAttends=lambda self: frozenset({"attention"}))


def built_with(change: Callable[[Any], object], network: type[nn.Module] = Net) -> Any:
    def build(
        self: Backbone, shape: tuple[int, int, int], condition: ConditionSpec | None
    ) -> nn.Module:
        made = network(shape, condition)
        change(made)
        return made

    return build


def set_bias(draw: Callable[[], Tensor]) -> Any:
    return built_with(lambda made: setattr(made.level.bias, "data", draw()))


def unseeded() -> torch.Generator:
    draw = torch.Generator()
    draw.seed()
    return draw


variants(
    HonestBackbone,
    "build",
    NumpyInitialisation=set_bias(lambda: torch.from_numpy(np.random.randn(8)).float()),  # noqa: NPY002
    UnseededInitialisation=set_bias(lambda: torch.randn(8, generator=unseeded())),
    UnusedLayer=built_with(lambda made: setattr(made, "spare", nn.Linear(3, 3))),
    TiedWeights=built_with(
        lambda made: setattr(made.mixers["second"], "weight", made.mixers["first"].weight),
        Attentive,
    ),
)


def even(x: Tensor) -> Tensor:
    return x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]


def rooted(found: Tensor) -> Tensor:
    """Nothing is added, but its slope is infinite."""
    return found + 0 * (found - found.detach()).abs().sqrt()


def added(found: Tensor, x: Tensor) -> Tensor:
    return torch.zeros_like(x).index_add_(0, torch.arange(len(x), device=x.device), found)


networks(
    HonestBackbone,
    Net,
    "forward",
    LosesAnOddRow=lambda self, x, *rest: even(honest("forward", self, x, *rest)),
    DoublePrecision=lambda self, x, *rest: honest("forward", self, x, *rest).double(),
    WritesIntoX=lambda self, x, *rest: honest("forward", self, x.clamp_(-3, 0.5), *rest),
    InfiniteGradient=lambda self, x, *rest: rooted(honest("forward", self, x, *rest)),
    Float32Only=lambda self, x, *rest: added(honest("forward", self, x, *rest), x),
)


class Unstored(Net):
    """Keeps what is not in its state dict."""

    def __init__(self, shape: tuple[int, int, int], condition: ConditionSpec | None):
        super().__init__(shape, condition)
        self.calls = itertools.count(1)
        self.grids: dict[int, Tensor] = {}
        self.frequencies = torch.randn(8)


networks(
    HonestBackbone,
    Unstored,
    "told",
    NanBelowZero=lambda self, noise: honest("told", self, noise.log()),
    IgnoresTheNoiseLevel=lambda self, noise: honest("told", self, torch.zeros_like(noise)),
    OneLevelPerBatch=lambda self, noise: honest("told", self, noise[:1].expand_as(noise)),
    UnstoredFrequencies=lambda self, noise: honest("told", self, noise) + self.frequencies,
)
networks(
    HonestBackbone,
    Net,
    "embedded",
    IgnoresTheCondition=lambda self, condition, dropped, count: (
        honest("embedded", self, None, None, count)
        + 0 * honest("embedded", self, condition, dropped, count)
    ),
    IgnoresDropped=lambda self, condition, dropped, count: honest(
        "embedded", self, condition, None, count
    ),
    TwoNulls=lambda self, condition, dropped, count: (
        honest("embedded", self, condition, dropped, count) * (0 if condition is None else 1)
    ),
    DropsTheBatch=lambda self, condition, dropped, count: honest(
        "embedded", self, condition if dropped is None or not dropped.any() else None, None, count
    ),
)


def late_mean(network: Any) -> Tensor:
    if not hasattr(network, "mean"):
        network.register_buffer("mean", torch.zeros(1))
    return network.mean


networks(
    HonestBackbone,
    Unstored,
    "hidden",
    BatchStatistics=lambda self, *given: functional.batch_norm(
        honest("hidden", self, *given), None, None, training=True
    ),
    DropoutInEvaluation=lambda self, *given: functional.dropout(
        honest("hidden", self, *given), 0.1
    ),
    KeepsState=lambda self, *given: honest("hidden", self, *given) * (1 + 1e-3 / next(self.calls)),
    CachesInInferenceMode=lambda self, x, *rest: (
        honest("hidden", self, x, *rest)
        * self.grids.setdefault(x.shape[3], torch.linspace(0.9, 1, x.shape[3]))
    ),
    NanInTraining=lambda self, *given: (
        honest("hidden", self, *given) / (0.0 if self.training else 1.0)
    ),
    LateBuffer=lambda self, *given: honest("hidden", self, *given) + late_mean(self),
    OneLayout=lambda self, x, *rest: (
        honest("hidden", self, x, *rest).view(len(x), -1).view(len(x), 8, *x.shape[2:])
    ),
)


def flat(self: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Tensor:
    query, key, value = (each.flatten(0, 1) for each in (query, key, value))
    return Attentive.attention(self, query, key, value, *rest).unflatten(0, (-1, 2))


def in_vain(self: Any, query: Tensor, key: Tensor, value: Tensor, name: str, attend: Any) -> Tensor:
    if attend is not None and name == "second":
        attend(query, key, value, name)
        attend = None
    return Attentive.attention(self, query, key, value, name, attend)


def swallowing(
    self: Any, query: Tensor, key: Tensor, value: Tensor, name: str, attend: Any
) -> Tensor:
    with contextlib.suppress(Exception):
        return Attentive.attention(self, query, key, value, name, attend)
    return Attentive.attention(self, query, key, value, name, None)


def clinging(self: Any, hidden: Tensor, attend: Attend | None) -> Tensor:
    """Holds `attend` in an attribute, and clears it only if nothing is raised."""
    self.attend = attend or getattr(self, "attend", None)
    found = Attentive.mixed(self, hidden, self.attend)
    self.attend = None
    return found


def hooked(self: Any, hidden: Tensor, attend: Attend | None) -> Tensor:
    if attend is not None:
        self.write.register_forward_hook(lambda module, given, made: None)
    return Attentive.mixed(self, hidden, attend)


networks(
    HonestBackbone,
    Attentive,
    "attention",
    HeadsInTheBatch=flat,
    LayersWithOneName=lambda self, q, k, v, name, attend: Attentive.attention(
        self, q, k, v, "same", attend
    ),
    UnstableNames=lambda self, q, k, v, name, attend: Attentive.attention(
        self, q, k, v, f"{name}-{id(self)}-{len(q)}", attend
    ),
    OtherAttention=lambda self, q, k, v, name, attend: Attentive.attention(
        self, 8 * q if attend else q, k, v, name, attend
    ),
    IgnoresAttend=in_vain,
    SwallowsExceptions=swallowing,
)
networks(
    HonestBackbone, Attentive, "mixed", KeepsAttendAfterAnException=clinging, LeavesAHook=hooked
)


class Noted(nn.Sequential):
    """Keeps what it returned."""

    def forward(self, x: Tensor) -> Tensor:
        self.last = super().forward(x)
        return self.last


class Aside(Attentive):
    """Adds what its first layer left behind."""

    def __init__(self, shape: tuple[int, int, int], condition: ConditionSpec | None):
        super().__init__(shape, condition)
        self.note = Noted(self.read)

    def hidden(
        self, x: Tensor, noise: Tensor, condition: Tensor | None, dropped: Tensor | None
    ) -> Tensor:
        self.note(x)
        return super().hidden(x, noise, condition, dropped)

    def mixed(self, hidden: Tensor, attend: Attend | None) -> Tensor:
        return super().mixed(hidden, attend) + self.note.last


class LeavesSomethingAside(HonestBackbone):
    network: ClassVar[type[nn.Module]] = Aside


class Augmented(Net):
    """A `fw.core.kinds.Augmentable`."""

    def __init__(self, shape: tuple[int, int, int], condition: ConditionSpec | None):
        super().__init__(shape, condition)
        self.augment = nn.Linear(9, shape[0], bias=False)

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
        augmentation: Tensor | None = None,
    ) -> Tensor:
        label = torch.zeros(len(x), 9) if augmentation is None else augmentation
        added = self.added(label.to(x.device))[:, :, None, None]
        return super().forward(x + added, noise, condition, dropped, attend)

    def added(self, label: Tensor) -> Tensor:
        return self.augment(label)


class HonestWithAugmentation(HonestBackbone):
    """Is given how images were transformed."""

    network: ClassVar[type[nn.Module]] = Augmented
    augmentation_size: ClassVar[int] = 9


networks(
    HonestWithAugmentation,
    Augmented,
    "added",
    ReadsOneNumber=lambda self, label: self.augment(label * (torch.arange(9) == 0)),
    AugmentsTheBatch=lambda self, label: self.augment(label.mean(dim=0).expand_as(label)),
)


class TwoHeads(Net):
    """A `fw.core.kinds.JointNetwork`."""

    def __init__(self, shape: tuple[int, int, int], condition: ConditionSpec | None):
        super().__init__(shape, None)
        self.head = None if condition is None else nn.Linear(8, condition.size)

    def both(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(x, noise, None, None)
        return self.write(self.mixed(hidden, None)), self.recognised(hidden)

    def logits(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.recognised(self.hidden(x, noise, None, None))

    def recognised(self, hidden: Tensor) -> Tensor:
        if self.head is None:
            raise ValueError("it was built without classes")
        return self.head(hidden.mean(dim=(2, 3)))


class HonestJoint(Joint):
    """The honest network, with a head on its first features."""

    name: ClassVar[str] = "honest"
    network: ClassVar[type[nn.Module]] = TwoHeads

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        return self.network(shape, condition)


class Steered(TwoHeads):
    def steered(self, x: Tensor, noise: Tensor, move: Move) -> Tensor:
        return self.decoded(
            *move([self.hidden(x, noise, None, None)], lambda hidden: self.recognised(hidden[0]))
        )

    def decoded(self, hidden: Tensor) -> Tensor:
        return self.write(self.mixed(hidden, None))


class HonestAndSteerable(HonestJoint):
    """Decodes features that were moved."""

    network: ClassVar[type[nn.Module]] = Steered

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"steerable"}


def probabilities(self: Any, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    prediction, logits = TwoHeads.both(self, x, noise)
    return prediction, logits.softmax(dim=1)


def stubborn(self: Any, x: Tensor, noise: Tensor, move: Move) -> Tensor:
    """Decodes the features that it had before they were moved."""
    hidden = self.hidden(x, noise, None, None)
    move([hidden], lambda given: self.recognised(given[0]))
    return self.decoded(hidden)


variants(HonestJoint, "provides", Modest=lambda self: frozenset())
networks(
    HonestJoint,
    TwoHeads,
    "logits",
    NanLogits=lambda self, x, noise: (
        TwoHeads.logits(self, x, noise) + (noise - noise.clamp(0)).sign()[:, None].sqrt()
    ),
    LogitsWithoutGradient=torch.no_grad()(lambda self, x, noise: TwoHeads.logits(self, x, noise)),
)
networks(HonestJoint, TwoHeads, "both", InconsistentBoth=probabilities)
networks(HonestAndSteerable, Steered, "steered", IgnoresMoves=stubborn)
networks(
    HonestJoint,
    TwoHeads,
    "recognised",
    WrongClasses=lambda self, hidden: TwoHeads.recognised(self, hidden).repeat(1, 2),
    BatchLogits=lambda self, hidden: TwoHeads.recognised(
        self, hidden - hidden.mean(dim=0, keepdim=True)
    ),
    ConstantLogits=lambda self, hidden: TwoHeads.recognised(self, 0 * hidden),
    ProbesItsTrunk=lambda self, hidden: TwoHeads.recognised(self, hidden.detach()),
    LogitsWithoutClasses=lambda self, hidden: (
        TwoHeads.recognised(self, hidden) if self.head else hidden.mean(dim=(2, 3))
    ),
)


def tell_the_class(made: Any) -> None:
    if made.head is not None:
        made.embed = ConditionEmbedding(ConditionSpec("class", made.head.out_features), 8)


variants(HonestJoint, "build", TellsTheClass=built_with(tell_the_class, TwoHeads))


class HonestSampler(Sampler):
    """DDIM (arXiv 2010.02502) at geometrically spaced noise levels, as random as `eta` says;
    faults override parts."""

    name: ClassVar[str] = "honest"

    steps: int = Field(8, ge=1, le=1000)
    eta: float = Field(1.0, ge=0, le=1)

    @property
    def nfe(self) -> int:
        return self.steps

    def sample(
        self, denoise: Denoise, noise: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        levels = self.levels(denoise)
        x = levels[0] * noise
        for sigma, target in itertools.pairwise(levels):
            fresh = self.eta * target * math.sqrt(sigma**2 - target**2) / sigma
            x0 = self.denoised(denoise, x, sigma)
            x = x0 + (x - x0) * math.sqrt(target**2 - fresh**2) / sigma
            if fresh > 0:
                x = x + fresh * self.drawn(x, generators)
        return x

    def levels(self, denoise: Denoise) -> list[float]:
        ratio = denoise.sigma_min / denoise.sigma_max
        return [
            *(denoise.sigma_max * ratio ** (step / self.steps) for step in range(self.steps)),
            0.0,
        ]

    def denoised(self, denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
        return denoise(x, sigma)

    def drawn(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return torch.stack([torch.randn(x.shape[1:], generator=each) for each in generators]).to(x)


def refusing_range(error: Exception, above: float = 0) -> Any:
    def check(self: Sampler, sigma_range: tuple[float, float]) -> None:
        if sigma_range[1] > above:
            raise error

    return check


def sampled(
    self: Any, denoise: Denoise, noise: Tensor, generators: Sequence[torch.Generator]
) -> Tensor:
    return HonestSampler.sample(self, denoise, noise, generators)


def one_by_one(self: Any, denoise: Denoise, noise: Tensor, generators: Any) -> Tensor:
    """So that a batch costs more than it says."""
    pairs = zip(noise, generators, strict=True)
    return torch.cat([sampled(self, denoise, one[None], [draw]) for one, draw in pairs])


def carried_over(self: Any, denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
    """From the last prediction of the call before, as a multistep solver that is not reset."""
    x0 = denoise(x, sigma)
    before = LAST[0] if LAST and LAST[0].shape == x0.shape else x0
    LAST.append(x0)
    return x0 + 0.01 * (before - x0)


def thresholded(x0: Tensor) -> Tensor:
    return x0 / x0.abs().max().clamp(min=1)


variants(
    HonestSampler,
    "check",
    CheckRaisesTypeError=refusing_range(TypeError("too much noise"), 30_000),
    RefusesEverything=refusing_range(ValueError("no")),
)
variants(
    HonestSampler,
    "sample",
    FlatSamples=lambda self, denoise, noise, draws: sampled(self, denoise, noise, draws).flatten(1),
    DoubleSamples=lambda self, denoise, noise, draws: sampled(self, denoise, noise, draws).double(),
    OneByOne=one_by_one,
    TooBright=lambda self, denoise, noise, draws: sampled(self, denoise, noise, draws) + 0.1,
    OwnNoise=lambda self, denoise, noise, draws: sampled(
        self, denoise, self.drawn(noise, draws), draws
    ),
    WritesIntoTheNoise=lambda self, denoise, noise, draws: sampled(
        self, denoise, noise.mul_(80) / 80, draws
    ),
)
variants(
    HonestSampler,
    "levels",
    StartsTooHigh=lambda self, denoise: [
        1.4 * denoise.sigma_max,
        *HonestSampler.levels(self, denoise)[1:],
    ],
    EndsTooLow=lambda self, denoise: [*HonestSampler.levels(self, denoise)[:-2], 1e-4, 0.0],
    StopsEarly=lambda self, denoise: [
        denoise.sigma_max * (0.3 / denoise.sigma_max) ** (step / self.steps)
        for step in range(self.steps + 1)
    ],
)
variants(
    HonestSampler,
    "denoised",
    Underpriced=lambda self, denoise, x, sigma: (denoise(x, sigma) + denoise(x, sigma)) / 2,
    TensorSigma=lambda self, denoise, x, sigma: denoise(x, torch.tensor(sigma)),
    ScaledInput=lambda self, denoise, x, sigma: denoise(x / math.hypot(1, sigma), sigma),
    BatchThreshold=lambda self, denoise, x, sigma: thresholded(denoise(x, sigma)),
    CarriesOver=carried_over,
)
variants(
    HonestSampler,
    "drawn",
    OneGenerator=lambda self, x, draws: torch.randn(x.shape, generator=draws[0]),
    GlobalDraws=lambda self, x, draws: torch.randn_like(x),
)
variants(
    HonestSampler,
    "asks",
    SaysOneLess=lambda self, sigma_range: Sampler.asks(self, sigma_range)[:-1],
    SaysThemRising=lambda self, sigma_range: Sampler.asks(self, sigma_range)[::-1],
    DrawsToSay=lambda self, sigma_range: (
        Sampler.asks(self, sigma_range) if torch.rand(()) < 2 else []
    ),
)


LAST: deque[Tensor] = deque(maxlen=1)
"""The contract kit watches lists of a module, but not this."""


HONEST: list[Component] = [
    *(
        HonestProcess(),
        HonestBackbone(),
        HonestWithAttention(),
        HonestWithoutConditions(),
        HonestWithAugmentation(),
        HonestAndPicky(),
    ),
    *(HonestJoint(), HonestAndSteerable(), HonestSampler(), HonestSampler(eta=0, steps=1)),
]

FAULTS: dict[str, tuple[Clause, str]] = {
    "UpsideDown": (process.range_is_positive, "sigma_range is 20.0 to 0.01"),
    "FromZero": (process.range_is_positive, "sigma_range is 0.0 to 20.0"),
    "BeyondItsRange": (process.sigmas_in_range, "0 becomes 0.00"),
    "StopsShort": (
        process.training_reaches_both_ends,
        "it ends at 20, and training draws 4 at most",
    ),
    "StartsLate": (process.training_reaches_both_ends, "it begins at 0.01, and training draws 0.1"),
    "FallingLevels": (process.sigmas_rise, "0 and "),
    "OneLevel": (process.sigmas_rise, "every uniform number becomes 1"),
    "DoubleLevels": (process.sigmas_in_range, "sigmas is torch.float64"),
    "NanAtTheEnd": (process.coefficients_are_usable, "skip is nan at sigma 20"),
    "SilentAtTheStart": (process.coefficients_are_usable, "out is 0 at sigma 0.01"),
    "OneNumber": (process.coefficients_are_usable, "skip is torch.float32 ()"),
    "SharedScale": (process.each_level_is_its_own, "scale at sigma 0.01"),
    "AlwaysSingle": (process.precision_is_kept, "skip is torch.float32"),
    "NegativeWeight": (process.weight_is_usable, "at sigma 0.01"),
    "NoWeight": (process.weight_is_usable, "it is 0 everywhere"),
    "WritesIntoSigma": (process.pure, "it writes into the noise levels"),
    "Jittered": (process.pure, "it draws from torch's global random generator"),
    "Cached": (process.serves_training_after_sampling, "RuntimeError: Inference tensors"),
    "RaisesTypeError": (backbone.check_speaks, "it raised TypeError: odd"),
    "TakesNothing": (backbone.check_speaks, "(1, 8, 8), (3, 16, 16), "),
    "UnknownForm": (backbone.forms_are_known, "`conditions` has text"),
    "LosesAnOddRow": (backbone.right_shape, "(1, 1, 6, 8)"),
    "DoublePrecision": (backbone.right_shape, "torch.float64"),
    "NanBelowZero": (backbone.right_shape, "64 of 64 values"),
    "NumpyInitialisation": (
        backbone.same_seed_same_weights,
        "it draws from numpy's global random generator",
    ),
    "UnseededInitialisation": (
        backbone.same_seed_same_weights,
        "networks that are built after the same seed",
    ),
    "IgnoresTheCondition": (backbone.condition_matters, "class condition 0 and class condition 1"),
    "IgnoresTheNoiseLevel": (backbone.noise_level_matters, "-1.0, 0.5, 10.0, 300.0, 2.0"),
    "ReadsOneNumber": (backbone.augmentation_matters, "number 1 changes nothing"),
    "AugmentsTheBatch": (backbone.augmentation_matters, "number 0 of one image changes others"),
    "IgnoresDropped": (backbone.dropped_is_no_condition, "image 0"),
    "TwoNulls": (backbone.dropped_is_no_condition, "image 0"),
    "DropsTheBatch": (backbone.dropped_is_no_condition, "its class condition"),
    "BatchStatistics": (backbone.batch_does_not_matter, "images ["),
    "OneLevelPerBatch": (backbone.batch_does_not_matter, "images ["),
    "DropoutInEvaluation": (backbone.pure, "it draws from torch's global random generator"),
    "KeepsState": (backbone.pure, "a second call gives another result"),
    "WritesIntoX": (backbone.pure, "it writes into x"),
    "UnusedLayer": (backbone.gradients_reach_the_weights, "spare.weight, spare.bias"),
    "InfiniteGradient": (
        backbone.gradients_reach_the_weights,
        "the gradient of read.weight is not finite",
    ),
    "CachesInInferenceMode": (
        backbone.gradients_reach_the_weights,
        "RuntimeError: Inference tensors",
    ),
    "NanInTraining": (backbone.training_mode_works, "256 of 256 values"),
    "UnstoredFrequencies": (backbone.weights_can_be_stored, "the state dict leaves something out"),
    "LateBuffer": (backbone.weights_can_be_stored, "RuntimeError"),
    "TiedWeights": (backbone.weights_can_be_stored, "it raised RuntimeError"),
    "OneLayout": (backbone.any_memory_layout, "RuntimeError: view"),
    "Float32Only": (backbone.bf16_works, "RuntimeError: index_add_"),
    "HeadsInTheBatch": (
        backbone.attend_sees_every_layer,
        "layer first",
    ),
    "LayersWithOneName": (backbone.attend_sees_every_layer, "same is the name of several layers"),
    "UnstableNames": (backbone.attend_sees_every_layer, "the layers are not always the same"),
    "SaysItAttends": (backbone.attend_sees_every_layer, "it is never called"),
    "OtherAttention": (backbone.attend_may_be_the_usual, "they differ by"),
    "IgnoresAttend": (backbone.attend_acts, "layer second"),
    "KeepsAttendAfterAnException": (
        backbone.attend_is_forgotten,
        "called again after it raised in layer first",
    ),
    "SwallowsExceptions": (backbone.attend_is_forgotten, "in layer first is swallowed"),
    "LeavesSomethingAside": (
        backbone.beginnings_can_be_shared,
        "with layer first changed, and what comes before it not computed again",
    ),
    "LeavesAHook": (backbone.attend_is_forgotten, "there is a hook on write"),
    "Modest": (joint.says_so, "it provides nothing"),
    "NanLogits": (joint.logits_are_usable, "noise levels [-1.5]"),
    "WrongClasses": (joint.logits_are_usable, "torch.float32 (1, 10)"),
    "InconsistentBoth": (joint.both_is_both, "it differs from logits() by"),
    "TellsTheClass": (joint.condition_changes_nothing, "condition changes the prediction"),
    "BatchLogits": (joint.logits_are_each_images_own, "images ["),
    "ConstantLogits": (joint.logits_are_each_images_own, "all images get the same logits"),
    "ProbesItsTrunk": (joint.one_trunk, "no weight gets a gradient from both"),
    "LogitsWithoutGradient": (joint.logits_can_guide, "it raised RuntimeError"),
    "IgnoresMoves": (joint.features_can_be_moved, "moved, they give the same prediction"),
    "LogitsWithoutClasses": (joint.denoises_alone, "logits() gives torch.float32 (3, 8)"),
    "CheckRaisesTypeError": (sampler.check_speaks, "it raised TypeError: too much noise"),
    "RefusesEverything": (sampler.check_speaks, "check() refuses every range tried"),
    "SaysOneLess": (sampler.says_when_it_asks, "it says 7 and calls 8 times"),
    "SaysThemRising": (sampler.says_when_it_asks, "it says 0.0"),
    "DrawsToSay": (sampler.says_when_it_asks, "torch's global random generator"),
    "FlatSamples": (sampler.right_shape, "sampler honest: "),
    "DoubleSamples": (sampler.right_shape, "torch.float64"),
    "Underpriced": (sampler.price_is_stated, "16 times for 1 images"),
    "OneByOne": (sampler.price_is_stated, "24 times for 3 images"),
    "StartsTooHigh": (sampler.asks_inside_the_range, "sigma is "),
    "EndsTooLow": (sampler.asks_inside_the_range, "sigma is 0.0001"),
    "TensorSigma": (sampler.asks_inside_the_range, "sigma is a Tensor"),
    "ScaledInput": (sampler.asks_about_noisy_images, "at sigma 80"),
    "StopsEarly": (sampler.finds_the_image, "noise levels 0.002 to 80"),
    "TooBright": (sampler.finds_the_mean, "it is 0.4"),
    "OwnNoise": (sampler.noise_matters, "the samples are the same"),
    "OneGenerator": (sampler.batch_does_not_matter, "images ["),
    "BatchThreshold": (sampler.batch_does_not_matter, "images ["),
    "GlobalDraws": (sampler.pure, "it draws from torch's global random generator"),
    "WritesIntoTheNoise": (sampler.pure, "it writes into the noise"),
    "CarriesOver": (sampler.pure, "an earlier call changes the result"),
}
"""The clause that a fault breaks, and what is said of it."""


def forget() -> None:
    """What faulty components keep in this module is gone."""
    ones.cache_clear()
    LAST.clear()
