"""Processes, backbones, joint models and samplers with one planted fault each, beside an honest twin of each kind."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

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


class UpsideDown(HonestProcess):
    """Names its largest noise level first."""

    @property
    def sigma_range(self) -> tuple[float, float]:
        return 20.0, 0.01


class FromZero(HonestProcess):
    """Starts without any noise."""

    @property
    def sigma_range(self) -> tuple[float, float]:
        return 0.0, 20.0


class BeyondItsRange(HonestProcess):
    """Draws a log-normal noise level and does not clamp it."""

    def sigmas(self, uniform: Tensor) -> Tensor:
        return torch.special.ndtri(uniform.clamp(1e-7, 1 - 1e-7)).exp()


class FallingLevels(HonestProcess):
    """Turns the uniform numbers around."""

    def sigmas(self, uniform: Tensor) -> Tensor:
        return super().sigmas(1 - uniform)


class OneLevel(HonestProcess):
    """Trains at a single noise level."""

    def sigmas(self, uniform: Tensor) -> Tensor:
        return torch.ones_like(uniform)


class DoubleLevels(HonestProcess):
    """Draws noise levels in float64."""

    def sigmas(self, uniform: Tensor) -> Tensor:
        return super().sigmas(uniform.double())


class NanAtTheEnd(HonestProcess):
    """Divides zero by zero at the largest noise level."""

    def coefficients(self, sigma: Tensor) -> Coefficients:
        rest = 20.0 - sigma
        return super().coefficients(sigma)._replace(skip=rest / rest)


class SilentAtTheStart(HonestProcess):
    """Multiplies the network's output with zero at the smallest noise level."""

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return super().coefficients(sigma)._replace(out=sigma - torch.tensor(0.01))


class SharedScale(HonestProcess):
    """Scales by the largest noise level of the batch."""

    def coefficients(self, sigma: Tensor) -> Coefficients:
        found = super().coefficients(sigma)
        return found._replace(scale=found.scale.min().expand_as(sigma))


class OneNumber(HonestProcess):
    """Gives a coefficient for the whole batch."""

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return super().coefficients(sigma)._replace(skip=torch.tensor(0.5))


class AlwaysSingle(HonestProcess):
    """Rounds its coefficients to float32."""

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return super().coefficients(sigma.float())


class NegativeWeight(HonestProcess):
    """Weighs by log sigma, which is negative below 1."""

    def weight(self, sigma: Tensor) -> Tensor:
        return sigma.log()


class NoWeight(HonestProcess):
    """Weighs nothing."""

    def weight(self, sigma: Tensor) -> Tensor:
        return torch.zeros_like(sigma)


class WritesIntoSigma(HonestProcess):
    """Works in place, and puts the wrong thing back."""

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return super().coefficients(sigma.add_(1e-3))


class Jittered(HonestProcess):
    """Shakes its noise levels a little, at random."""

    def sigmas(self, uniform: Tensor) -> Tensor:
        return super().sigmas((uniform + 1e-9 * torch.rand_like(uniform)).clamp(0, 1))


class Cached(HonestProcess):
    """Keeps a tensor that it first needs in inference mode, perhaps."""

    def weight(self, sigma: Tensor) -> Tensor:
        return ones(len(sigma))


@functools.cache
def ones(count: int) -> Tensor:
    return torch.ones(count)


class Net(nn.Module):
    """A `fw.core.kinds.Network` whose output starts at zero; faults override its parts."""

    def __init__(self, shape: tuple[int, int, int], condition: ConditionSpec | None, width: int = 8):
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

    def hidden(self, x: Tensor, noise: Tensor, condition: Tensor | None, dropped: Tensor | None) -> Tensor:
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
        return mixed.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, hidden.shape[2:])  # (B, width, H, W)

    def attention(self, query: Tensor, key: Tensor, value: Tensor, name: str, attend: Attend | None) -> Tensor:
        return attend(query, key, value, name) if attend else scaled_dot_product_attention(query, key, value)


class HonestBackbone(Backbone):
    """Two convolutions, the second of which starts at zero, and what the network has between them."""

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


class RaisesTypeError(HonestBackbone):
    """Refuses odd sides with the wrong exception."""

    def check(self, shape: tuple[int, int, int]) -> None:
        if shape[1] % 2:
            raise TypeError("odd")


class TakesNothing(HonestBackbone):
    """Refuses every shape."""

    def check(self, shape: tuple[int, int, int]) -> None:
        raise ValueError("no")


class UnknownForm(HonestBackbone):
    """Takes conditions of a form that does not exist."""

    conditions: ClassVar[frozenset[str]] = frozenset({"class", "text"})


class Halving(Net):
    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        _, _, height, width = x.shape
        return super().forward(x, *rest)[:, :, : height // 2 * 2, : width // 2 * 2]


class LosesAnOddRow(HonestBackbone):
    """Takes every shape, but can only halve and double even ones."""

    network: ClassVar[type[nn.Module]] = Halving


class Doubling(Net):
    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        return super().forward(x, *rest).double()


class DoublePrecision(HonestBackbone):
    """Predicts in float64."""

    network: ClassVar[type[nn.Module]] = Doubling


class Logarithmic(Net):
    def told(self, noise: Tensor) -> Tensor:
        return super().told(noise.log())


class NanBelowZero(HonestBackbone):
    """Takes the logarithm of a noise level, which processes tell as a logarithm already."""

    network: ClassVar[type[nn.Module]] = Logarithmic


class NumpyWeights(Net):
    def __init__(self, shape: tuple[int, int, int], condition: ConditionSpec | None):
        super().__init__(shape, condition)
        self.level.bias.data = torch.from_numpy(np.random.randn(8)).float()  # noqa: NPY002


class NumpyInitialisation(HonestBackbone):
    """Draws weights from numpy's global generator."""

    network: ClassVar[type[nn.Module]] = NumpyWeights


class SystemSeeded(Net):
    def __init__(self, shape: tuple[int, int, int], condition: ConditionSpec | None):
        super().__init__(shape, condition)
        draw = torch.Generator()
        draw.seed()
        self.level.bias.data = torch.randn(8, generator=draw)


class UnseededInitialisation(HonestBackbone):
    """Draws weights from a generator that the operating system seeds."""

    network: ClassVar[type[nn.Module]] = SystemSeeded


class Deaf(Net):
    def embedded(self, condition: Tensor | None, dropped: Tensor | None, count: int) -> Tensor:
        return super().embedded(None, None, count) + 0 * super().embedded(condition, dropped, count)


class IgnoresTheCondition(HonestBackbone):
    """Is not told its condition."""

    network: ClassVar[type[nn.Module]] = Deaf


class Blind(Net):
    def told(self, noise: Tensor) -> Tensor:
        return super().told(torch.zeros_like(noise))


class IgnoresTheNoiseLevel(HonestBackbone):
    """Is not told its noise level."""

    network: ClassVar[type[nn.Module]] = Blind


class Keeping(Net):
    def embedded(self, condition: Tensor | None, dropped: Tensor | None, count: int) -> Tensor:
        return super().embedded(condition, None, count)


class IgnoresDropped(HonestBackbone):
    """Keeps conditions that are dropped."""

    network: ClassVar[type[nn.Module]] = Keeping


class Zeroing(Net):
    def embedded(self, condition: Tensor | None, dropped: Tensor | None, count: int) -> Tensor:
        told = super().embedded(condition, dropped, count)
        return 0 * told if condition is None else told


class TwoNulls(HonestBackbone):
    """Has one null condition for the whole batch and another one for dropped images."""

    network: ClassVar[type[nn.Module]] = Zeroing


class AllOrNone(Net):
    def embedded(self, condition: Tensor | None, dropped: Tensor | None, count: int) -> Tensor:
        return super().embedded(condition if dropped is None or not dropped.any() else None, None, count)


class DropsTheBatch(HonestBackbone):
    """Drops all conditions where one is dropped."""

    network: ClassVar[type[nn.Module]] = AllOrNone


class BatchNormed(Net):
    def __init__(self, shape: tuple[int, int, int], condition: ConditionSpec | None):
        super().__init__(shape, condition)
        self.norm = nn.BatchNorm2d(8, track_running_stats=False)

    def hidden(self, *given: Any) -> Tensor:
        return self.norm(super().hidden(*given))


class BatchStatistics(HonestBackbone):
    """Normalises by the statistics of the batch."""

    network: ClassVar[type[nn.Module]] = BatchNormed


class FirstLevel(Net):
    def told(self, noise: Tensor) -> Tensor:
        return super().told(noise[:1].expand_as(noise))


class OneLevelPerBatch(HonestBackbone):
    """Takes the first noise level for all images, as it is in sampling."""

    network: ClassVar[type[nn.Module]] = FirstLevel


class AlwaysDropping(Net):
    def hidden(self, *given: Any) -> Tensor:
        return nn.functional.dropout(super().hidden(*given), 0.1, training=True)


class DropoutInEvaluation(HonestBackbone):
    """Draws dropout masks when it predicts, too."""

    network: ClassVar[type[nn.Module]] = AlwaysDropping


class Remembering(Net):
    def __init__(self, shape: tuple[int, int, int], condition: ConditionSpec | None):
        super().__init__(shape, condition)
        self.calls = 0

    def hidden(self, *given: Any) -> Tensor:
        self.calls += 1
        return super().hidden(*given) * (1 + 1e-3 / self.calls)


class KeepsState(HonestBackbone):
    """Depends on the number of calls."""

    network: ClassVar[type[nn.Module]] = Remembering


class InPlace(Net):
    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        return super().forward(x.clamp_(-3, 0.5), *rest)


class WritesIntoX(HonestBackbone):
    """Clamps its input in place."""

    network: ClassVar[type[nn.Module]] = InPlace


class Unused(Net):
    def __init__(self, shape: tuple[int, int, int], condition: ConditionSpec | None):
        super().__init__(shape, condition)
        self.spare = nn.Linear(3, 3)


class UnusedLayer(HonestBackbone):
    """Has a layer that it does not use."""

    network: ClassVar[type[nn.Module]] = Unused


class Infinite(Net):
    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        found = super().forward(x, *rest)
        return found + 0 * (found - found.detach()).abs().sqrt()


class InfiniteGradient(HonestBackbone):
    """Takes the root of zero, whose slope is infinite."""

    network: ClassVar[type[nn.Module]] = Infinite


class Grid(Net):
    kept: dict[tuple[int, ...], Tensor]

    def __init__(self, shape: tuple[int, int, int], condition: ConditionSpec | None):
        super().__init__(shape, condition)
        self.kept = {}

    def hidden(self, x: Tensor, *rest: Any) -> Tensor:
        grid = self.kept.setdefault(tuple(x.shape[2:]), torch.linspace(0.9, 1, x.shape[3]))
        return super().hidden(x, *rest) * grid


class CachesInInferenceMode(HonestBackbone):
    """Keeps positions that it first needs while sampling, which training cannot use."""

    network: ClassVar[type[nn.Module]] = Grid


class TrainsBadly(Net):
    def hidden(self, *given: Any) -> Tensor:
        return super().hidden(*given) / (0.0 if self.training else 1.0)


class NanInTraining(HonestBackbone):
    """Divides by zero in training mode."""

    network: ClassVar[type[nn.Module]] = TrainsBadly


class Forgetful(Net):
    def __init__(self, shape: tuple[int, int, int], condition: ConditionSpec | None):
        super().__init__(shape, condition)
        self.frequencies = torch.randn(8)

    def told(self, noise: Tensor) -> Tensor:
        return super().told(noise) + self.frequencies


class UnstoredFrequencies(HonestBackbone):
    """Draws random frequencies that are not in its state dict."""

    network: ClassVar[type[nn.Module]] = Forgetful


class Late(Net):
    mean: Tensor

    def hidden(self, x: Tensor, *rest: Any) -> Tensor:
        if not hasattr(self, "mean"):
            self.register_buffer("mean", torch.zeros(1))
        return super().hidden(x, *rest) + self.mean


class LateBuffer(HonestBackbone):
    """Makes a buffer when it is first used, which a fresh network does not have."""

    network: ClassVar[type[nn.Module]] = Late


class Tied(Attentive):
    def __init__(self, shape: tuple[int, int, int], condition: ConditionSpec | None):
        super().__init__(shape, condition)
        self.mixers["second"].weight = self.mixers["first"].weight


class TiedWeights(HonestBackbone):
    """Has a weight under two names, which the format of stored weights does not take."""

    network: ClassVar[type[nn.Module]] = Tied


class Viewing(Net):
    def hidden(self, x: Tensor, *rest: Any) -> Tensor:
        hidden = super().hidden(x, *rest)
        return hidden.view(len(x), -1).view(hidden.shape)


class OneLayout(HonestBackbone):
    """Takes its numbers to lie in memory as they do on a CPU."""

    network: ClassVar[type[nn.Module]] = Viewing


class Adding(Net):
    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        return torch.zeros_like(x).index_add_(0, torch.arange(len(x), device=x.device), super().forward(x, *rest))


class Float32Only(HonestBackbone):
    """Adds its output, which is bf16 under autocast, to a tensor in float32."""

    network: ClassVar[type[nn.Module]] = Adding


class FlatAttention(Attentive):
    def attention(self, query: Tensor, key: Tensor, value: Tensor, name: str, attend: Attend | None) -> Tensor:
        query, key, value = (each.flatten(0, 1) for each in (query, key, value))
        return super().attention(query, key, value, name, attend).unflatten(0, (-1, 2))


class HeadsInTheBatch(HonestBackbone):
    """Gives `attend` the heads as part of the batch."""

    network: ClassVar[type[nn.Module]] = FlatAttention


class Namesakes(Attentive):
    def attention(self, query: Tensor, key: Tensor, value: Tensor, name: str, attend: Attend | None) -> Tensor:
        return super().attention(query, key, value, "attention", attend)


class LayersWithOneName(HonestBackbone):
    """Calls both of its layers the same."""

    network: ClassVar[type[nn.Module]] = Namesakes


class Numbered(Attentive):
    def attention(self, query: Tensor, key: Tensor, value: Tensor, name: str, attend: Attend | None) -> Tensor:
        return super().attention(query, key, value, f"{name}-{id(self)}-{len(query)}", attend)


class UnstableNames(HonestBackbone):
    """Names its layers anew in every network."""

    network: ClassVar[type[nn.Module]] = Numbered


class SaysItAttends(HonestBackbone):
    """Provides attention, and has none."""

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"attention"})


class Unscaled(Attentive):
    def attention(self, query: Tensor, key: Tensor, value: Tensor, name: str, attend: Attend | None) -> Tensor:
        return super().attention(query if attend is None else 8 * query, key, value, name, attend)


class OtherAttention(HonestBackbone):
    """Gives `attend` queries in another scale than it uses itself."""

    network: ClassVar[type[nn.Module]] = Unscaled


class AsksInVain(Attentive):
    def attention(self, query: Tensor, key: Tensor, value: Tensor, name: str, attend: Attend | None) -> Tensor:
        if attend is not None and name == "second":
            attend(query, key, value, name)
            return super().attention(query, key, value, name, None)
        return super().attention(query, key, value, name, attend)


class IgnoresAttend(HonestBackbone):
    """Calls `attend` in its second layer, and does not use what it returns."""

    network: ClassVar[type[nn.Module]] = AsksInVain


class Clinging(Attentive):
    attend: Attend | None = None

    def mixed(self, hidden: Tensor, attend: Attend | None) -> Tensor:
        self.attend = attend or self.attend
        found = super().mixed(hidden, self.attend)
        self.attend = None
        return found


class KeepsAttendAfterAnException(HonestBackbone):
    """Holds `attend` in an attribute, and clears it only if nothing is raised."""

    network: ClassVar[type[nn.Module]] = Clinging


class Swallowing(Attentive):
    def attention(self, query: Tensor, key: Tensor, value: Tensor, name: str, attend: Attend | None) -> Tensor:
        with contextlib.suppress(Exception):
            return super().attention(query, key, value, name, attend)
        return super().attention(query, key, value, name, None)


class SwallowsExceptions(HonestBackbone):
    """Goes on as if nothing had happened when `attend` raises."""

    network: ClassVar[type[nn.Module]] = Swallowing


class Hooked(Attentive):
    def mixed(self, hidden: Tensor, attend: Attend | None) -> Tensor:
        if attend is not None:
            self.write.register_forward_hook(lambda module, given, made: None)
        return super().mixed(hidden, attend)


class LeavesAHook(HonestBackbone):
    """Registers a hook for `attend` and forgets it."""

    network: ClassVar[type[nn.Module]] = Hooked


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


class Modest(HonestJoint):
    """Does not say that it recognises."""

    @property
    def provides(self) -> frozenset[str]:
        return frozenset()


class NanHead(TwoHeads):
    def logits(self, x: Tensor, noise: Tensor) -> Tensor:
        return super().logits(x, noise) + (noise - noise.clamp(0)).sign()[:, None].sqrt()


class NanLogits(HonestJoint):
    """Recognises nothing below a noise level of zero."""

    network: ClassVar[type[nn.Module]] = NanHead


class TenClasses(TwoHeads):
    def recognised(self, hidden: Tensor) -> Tensor:
        return super().recognised(hidden).repeat(1, 2)


class WrongClasses(HonestJoint):
    """Has another number of classes than its condition."""

    network: ClassVar[type[nn.Module]] = TenClasses


class Probabilities(TwoHeads):
    def both(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        prediction, logits = super().both(x, noise)
        return prediction, logits.softmax(dim=1)


class InconsistentBoth(HonestJoint):
    """Gives logits in one method and probabilities in the other."""

    network: ClassVar[type[nn.Module]] = Probabilities


class ToldItsClass(TwoHeads):
    def __init__(self, shape: tuple[int, int, int], condition: ConditionSpec | None):
        super().__init__(shape, condition)
        self.embed = None if condition is None else ConditionEmbedding(condition, 8)


class TellsTheClass(HonestJoint):
    """Is told the class that it should recognise."""

    network: ClassVar[type[nn.Module]] = ToldItsClass


class ComparesImages(TwoHeads):
    def recognised(self, hidden: Tensor) -> Tensor:
        return super().recognised(hidden - hidden.mean(dim=0, keepdim=True))


class BatchLogits(HonestJoint):
    """Recognises what is special about an image in its batch."""

    network: ClassVar[type[nn.Module]] = ComparesImages


class Prior(TwoHeads):
    def recognised(self, hidden: Tensor) -> Tensor:
        return super().recognised(0 * hidden)


class ConstantLogits(HonestJoint):
    """Recognises the same in every image."""

    network: ClassVar[type[nn.Module]] = Prior


class Detached(TwoHeads):
    def recognised(self, hidden: Tensor) -> Tensor:
        return super().recognised(hidden.detach())


class ProbesItsTrunk(HonestJoint):
    """Keeps the gradient of its head from the trunk."""

    network: ClassVar[type[nn.Module]] = Detached


class Guarded(TwoHeads):
    def logits(self, x: Tensor, noise: Tensor) -> Tensor:
        with torch.no_grad():
            return super().logits(x, noise)


class LogitsWithoutGradient(HonestJoint):
    """Takes logits() to be for sampling only."""

    network: ClassVar[type[nn.Module]] = Guarded


class Headstrong(TwoHeads):
    def recognised(self, hidden: Tensor) -> Tensor:
        return hidden.mean(dim=(2, 3)) if self.head is None else super().recognised(hidden)


class LogitsWithoutClasses(HonestJoint):
    """Gives logits when it has no classes."""

    network: ClassVar[type[nn.Module]] = Headstrong


class Steered(TwoHeads):
    def steered(self, x: Tensor, noise: Tensor, move: Move) -> Tensor:
        return self.decoded(*move([self.hidden(x, noise, None, None)], lambda hidden: self.recognised(hidden[0])))

    def decoded(self, hidden: Tensor) -> Tensor:
        return self.write(self.mixed(hidden, None))


class HonestAndSteerable(HonestJoint):
    """Decodes features that were moved."""

    network: ClassVar[type[nn.Module]] = Steered

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"steerable"}


class Stubborn(Steered):
    def steered(self, x: Tensor, noise: Tensor, move: Move) -> Tensor:
        hidden = self.hidden(x, noise, None, None)
        move([hidden], lambda given: self.recognised(given[0]))
        return self.decoded(hidden)


class IgnoresMoves(HonestAndSteerable):
    """Decodes the features that it had before they were moved."""

    network: ClassVar[type[nn.Module]] = Stubborn


class HonestSampler(Sampler):
    """DDIM (arXiv 2010.02502) at geometrically spaced noise levels, as random as `eta` says; faults override parts."""

    name: ClassVar[str] = "honest"

    steps: int = Field(8, ge=1, le=1000)
    eta: float = Field(1.0, ge=0, le=1)

    @property
    def nfe(self) -> int:
        return self.steps

    def sample(self, denoise: Denoise, noise: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
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
        return [*(denoise.sigma_max * ratio ** (step / self.steps) for step in range(self.steps)), 0.0]

    def denoised(self, denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
        return denoise(x, sigma)

    def drawn(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return torch.stack([torch.randn(x.shape[1:], generator=each) for each in generators]).to(x)


class CheckRaisesTypeError(HonestSampler):
    """Refuses wide ranges with the wrong exception."""

    def check(self, sigma_range: tuple[float, float]) -> None:
        if sigma_range[1] > 30_000:
            raise TypeError("too much noise")


class RefusesEverything(HonestSampler):
    """Refuses every range."""

    def check(self, sigma_range: tuple[float, float]) -> None:
        raise ValueError("no")


class FlatSamples(HonestSampler):
    """Returns rows instead of images."""

    def sample(self, denoise: Denoise, noise: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return super().sample(denoise, noise, generators).flatten(1)


class DoubleSamples(HonestSampler):
    """Returns float64."""

    def sample(self, denoise: Denoise, noise: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return super().sample(denoise, noise, generators).double()


class Underpriced(HonestSampler):
    """Asks twice per step and counts once."""

    def denoised(self, denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
        return (denoise(x, sigma) + denoise(x, sigma)) / 2


class OneByOne(HonestSampler):
    """Makes images one after the other, so that a batch costs more than it says."""

    def sample(self, denoise: Denoise, noise: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        rows = [
            super(OneByOne, self).sample(denoise, one[None], [draw])
            for one, draw in zip(noise, generators, strict=True)
        ]
        return torch.cat(rows)


class StartsTooHigh(HonestSampler):
    """Starts at noise that the model was not trained for."""

    def levels(self, denoise: Denoise) -> list[float]:
        return [1.4 * denoise.sigma_max, *super().levels(denoise)[1:]]


class EndsTooLow(HonestSampler):
    """Asks for hardly any noise, whatever the model knows."""

    def levels(self, denoise: Denoise) -> list[float]:
        return [*super().levels(denoise)[:-2], 1e-4, 0.0]


class TensorSigma(HonestSampler):
    """Gives noise levels as tensors."""

    def denoised(self, denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
        return denoise(x, torch.tensor(sigma))  # type: ignore[arg-type]


class ScaledInput(HonestSampler):
    """Gives the denoiser what the network would see, x / sqrt(1 + sigma^2)."""

    def denoised(self, denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
        return denoise(x / math.hypot(1, sigma), sigma)


class StopsEarly(HonestSampler):
    """Leaves some noise in the images."""

    def levels(self, denoise: Denoise) -> list[float]:
        return [denoise.sigma_max * (0.3 / denoise.sigma_max) ** (step / self.steps) for step in range(self.steps + 1)]


class TooBright(HonestSampler):
    """Brightens what it samples."""

    def sample(self, denoise: Denoise, noise: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return super().sample(denoise, noise, generators) + 0.1


class OwnNoise(HonestSampler):
    """Starts from noise of its own."""

    def sample(self, denoise: Denoise, noise: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return super().sample(denoise, self.drawn(noise, generators), generators)


class OneGenerator(HonestSampler):
    """Draws the batch's noise from the first image's generator."""

    def drawn(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return torch.randn(x.shape, generator=generators[0])


class BatchThreshold(HonestSampler):
    """Scales predictions by the brightest pixel of the batch."""

    def denoised(self, denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
        x0 = denoise(x, sigma)
        return x0 / x0.abs().max().clamp(min=1)


class GlobalDraws(HonestSampler):
    """Draws from torch's global generator."""

    def drawn(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return torch.randn_like(x)


class WritesIntoTheNoise(HonestSampler):
    """Scales the noise in place."""

    def sample(self, denoise: Denoise, noise: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        first = self.levels(denoise)[0]
        return super().sample(denoise, noise.mul_(first) / first, generators)


class CarriesOver(HonestSampler):
    """Starts from the last prediction of the call before, as a multistep solver that is not reset."""

    def denoised(self, denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
        x0 = denoise(x, sigma)
        before = LAST[0] if LAST and LAST[0].shape == x0.shape else x0
        LAST.append(x0)
        return x0 + 0.01 * (before - x0)


LAST: deque[Tensor] = deque(maxlen=1)
"""The contract kit watches lists of a module, but not this."""


HONEST: list[Component] = [
    *(HonestProcess(), HonestBackbone(), HonestWithAttention(), HonestWithoutConditions(), HonestAndPicky()),
    *(HonestJoint(), HonestAndSteerable(), HonestSampler(), HonestSampler(eta=0, steps=1)),
]

FAULTS: dict[type[Component], tuple[Clause, str]] = {
    UpsideDown: (process.range_is_positive, "sigma_range is 20.0 to 0.01"),
    FromZero: (process.range_is_positive, "sigma_range is 0.0 to 20.0"),
    BeyondItsRange: (process.sigmas_in_range, "0 becomes 0.00"),
    FallingLevels: (process.sigmas_rise, "0 and "),
    OneLevel: (process.sigmas_rise, "every uniform number becomes 1"),
    DoubleLevels: (process.sigmas_in_range, "sigmas is torch.float64 (2,) for torch.float32 (2,)"),
    NanAtTheEnd: (process.coefficients_are_usable, "skip is nan at sigma 20"),
    SilentAtTheStart: (process.coefficients_are_usable, "out is 0 at sigma 0.01"),
    OneNumber: (process.coefficients_are_usable, "skip is torch.float32 () for torch.float32 (2,)"),
    SharedScale: (process.each_level_is_its_own, "scale at sigma 0.01 is 1.9996 alone and 0.0499844 in a batch of 2"),
    AlwaysSingle: (process.precision_is_kept, "skip is torch.float32 (2,) for torch.float64 (2,)"),
    NegativeWeight: (process.weight_is_usable, "it is -4.60517 at sigma 0.01"),
    NoWeight: (process.weight_is_usable, "it is 0 everywhere"),
    WritesIntoSigma: (process.pure, "it writes into the noise levels"),
    Jittered: (process.pure, "it draws from torch's global random generator"),
    Cached: (process.serves_training_after_sampling, "it raised RuntimeError: Inference tensors cannot be saved"),
    RaisesTypeError: (backbone.check_speaks, "it raised TypeError: odd"),
    TakesNothing: (backbone.check_speaks, "check() refuses every shape tried: (1, 8, 8), (3, 16, 16), "),
    UnknownForm: (backbone.forms_are_known, "`conditions` has text"),
    LosesAnOddRow: (backbone.right_shape, "torch.float32 (1, 1, 6, 8) for images torch.float32 (1, 1, 7, 9)"),
    DoublePrecision: (backbone.right_shape, "torch.float64 (1, 1, 8, 8) for images torch.float32 (1, 1, 8, 8)"),
    NanBelowZero: (backbone.right_shape, "64 of 64 values are not finite"),
    NumpyInitialisation: (backbone.same_seed_same_weights, "it draws from numpy's global random generator"),
    UnseededInitialisation: (backbone.same_seed_same_weights, "networks that are built after the same seed"),
    IgnoresTheCondition: (backbone.condition_matters, "class condition 0 and class condition 1 give the same"),
    IgnoresTheNoiseLevel: (backbone.noise_level_matters, "noise levels -1.0, 0.5, 10.0, 300.0, 2.0 give the same"),
    IgnoresDropped: (backbone.dropped_is_no_condition, "image 0 is not that of no condition"),
    TwoNulls: (backbone.dropped_is_no_condition, "image 0 is not that of no condition"),
    DropsTheBatch: (backbone.dropped_is_no_condition, " is not that of its class condition"),
    BatchStatistics: (backbone.batch_does_not_matter, "images ["),
    OneLevelPerBatch: (backbone.batch_does_not_matter, "images ["),
    DropoutInEvaluation: (backbone.pure, "it draws from torch's global random generator"),
    KeepsState: (backbone.pure, "a second call gives another result"),
    WritesIntoX: (backbone.pure, "it writes into x"),
    UnusedLayer: (backbone.gradients_reach_the_weights, "none reaches spare.weight, spare.bias"),
    InfiniteGradient: (backbone.gradients_reach_the_weights, "the gradient of read.weight is not finite"),
    CachesInInferenceMode: (
        backbone.gradients_reach_the_weights,
        "it raised RuntimeError: Inference tensors cannot be",
    ),
    NanInTraining: (backbone.training_mode_works, "256 of 256 values are not finite"),
    UnstoredFrequencies: (backbone.weights_can_be_stored, "the state dict leaves something out"),
    LateBuffer: (backbone.weights_can_be_stored, "it raised RuntimeError: Error(s) in loading state_dict"),
    TiedWeights: (backbone.weights_can_be_stored, "it raised RuntimeError"),
    OneLayout: (backbone.any_memory_layout, "it raised RuntimeError: view size is not compatible"),
    Float32Only: (backbone.bf16_works, "it raised RuntimeError: index_add_"),
    HeadsInTheBatch: (backbone.attend_sees_every_layer, "layer first gives [(2, 64, 4), (2, 64, 4), (2, 64, 4)] in a"),
    LayersWithOneName: (backbone.attend_sees_every_layer, "attention is the name of several layers"),
    UnstableNames: (backbone.attend_sees_every_layer, "the layers are not always the same"),
    SaysItAttends: (backbone.attend_sees_every_layer, "it is never called"),
    OtherAttention: (backbone.attend_may_be_the_usual, "they differ by"),
    IgnoresAttend: (backbone.attend_acts, "zeros from `attend` in layer second change nothing"),
    KeepsAttendAfterAnException: (backbone.attend_is_forgotten, "it is called again after it raised in layer first"),
    SwallowsExceptions: (backbone.attend_is_forgotten, "what it raises in layer first is swallowed"),
    LeavesAHook: (backbone.attend_is_forgotten, "there is a hook on write"),
    Modest: (joint.says_so, "it provides nothing"),
    NanLogits: (joint.logits_are_usable, "they are not finite at noise levels [-1.5]"),
    WrongClasses: (joint.logits_are_usable, "they are torch.float32 (1, 10) for 1 images, not (1, 5)"),
    InconsistentBoth: (joint.both_is_both, "it differs from logits() by"),
    TellsTheClass: (joint.condition_is_not_told, "condition changes the prediction"),
    BatchLogits: (joint.logits_are_each_images_own, "those of images ["),
    ConstantLogits: (joint.logits_are_each_images_own, "all images get the same logits"),
    ProbesItsTrunk: (joint.one_trunk, "no weight gets a gradient from both"),
    LogitsWithoutGradient: (joint.logits_can_guide, "it raised RuntimeError"),
    IgnoresMoves: (joint.features_can_be_moved, "moved, they give the same prediction"),
    LogitsWithoutClasses: (joint.denoises_alone, "logits() gives torch.float32 (3, 8)"),
    CheckRaisesTypeError: (sampler.check_speaks, "it raised TypeError: too much noise"),
    RefusesEverything: (sampler.check_speaks, "check() refuses every range tried"),
    FlatSamples: (sampler.right_shape, "sampler honest: it made"),
    DoubleSamples: (sampler.right_shape, "torch.float64 on cpu from noise torch.float32 on cpu"),
    Underpriced: (sampler.price_is_stated, "16 times for 1 images at noise levels 0.002 to 80, not 8"),
    OneByOne: (sampler.price_is_stated, "24 times for 3 images at noise levels 0.002 to 80, not 8"),
    StartsTooHigh: (sampler.asks_inside_the_range, "sigma is "),
    EndsTooLow: (sampler.asks_inside_the_range, "sigma is 0.0001 for a model with noise levels 0.0"),
    TensorSigma: (sampler.asks_inside_the_range, "sigma is a Tensor"),
    ScaledInput: (sampler.asks_about_noisy_images, "at sigma 80 the noise has standard deviation 0.01"),
    StopsEarly: (sampler.finds_the_image, "away, for a model with noise levels 0.002 to 80"),
    TooBright: (sampler.finds_the_mean, "it is 0.4"),
    OwnNoise: (sampler.noise_matters, "the samples are the same"),
    OneGenerator: (sampler.batch_does_not_matter, "images ["),
    BatchThreshold: (sampler.batch_does_not_matter, "images ["),
    GlobalDraws: (sampler.pure, "it draws from torch's global random generator"),
    WritesIntoTheNoise: (sampler.pure, "it writes into the noise"),
    CarriesOver: (sampler.pure, "an earlier call changes the result"),
}
"""The clause that a fault breaks, and what is said of it."""


def forget() -> None:
    """What faulty components keep in this module is gone."""
    ones.cache_clear()
    LAST.clear()
