"""The contract of a backbone: what its networks compute is each image's own, from weights that can
be stored.

Networks are called as training and sampling call them. Small random numbers are added to their
weights first: a layer that starts at zero would hide the layers before it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn

from fw.core.diffusion.sharing import Shared, order
from fw.core.kinds import Attend, Backbone, Changed, Joint, scaled_dot_product
from fw.core.learning.state import state_of
from fw.core.randomness import forked, generator
from fw.core.testing import tiny, usual
from fw.core.testing.compare import assert_like, gap, same
from fw.core.testing.forall import forall
from fw.core.testing.global_state import ambient, random_state
from fw.core.testing.usual import Batch, OnDevice, Use
from fw.core.types import ConditionSpec

Shape = tuple[int, int, int]

SHAPES: tuple[Shape, ...] = ((1, 8, 8), (3, 16, 16), (1, 16, 16), (3, 32, 32))
RARE: tuple[Shape, ...] = ((1, 28, 28), (4, 32, 32), (3, 64, 64), (3, 224, 224))
"""Shapes for backbones that take none of the common ones."""
ODD: tuple[Shape, ...] = ((1, 7, 9), (1, 8, 16), (3, 20, 12), (2, 9, 9))
SPECS: dict[str | None, ConditionSpec | None] = {
    None: None,
    "class": ConditionSpec("class", 5),
    "vector": ConditionSpec("vector", 6),
    "tokens": ConditionSpec("tokens", 6, 3),
}
LEVELS = (-1.0, 0.5, 10.0, 300.0, 2.0)
"""Noise levels as processes give them to networks: ln(sigma) / 4 in EDM, up to 1000 in DDPM and
rectified flow."""
DIFFERENT = 1e-5
"""Larger differences, as a share of the largest value, are more than rounding."""


def check_speaks(backbone: Backbone) -> None:
    """check() refuses shapes by ValueError and by nothing else, and takes images of a common
    shape"""

    def body(channels: int, height: int, width: int) -> None:
        with contextlib.suppress(ValueError):
            backbone.check((channels, height, width))

    for shape in (*SHAPES, *ODD):
        body(*shape)
    forall(
        body,
        channels=st.integers(1, 4),
        height=st.integers(1, 64),
        width=st.integers(1, 64),
        examples=25,
    )
    smallest(backbone)


def forms_are_known(backbone: Backbone) -> None:
    """The forms of condition that it says it takes are among `class`, `vector` and `tokens`"""
    unknown = set(backbone.conditions) - set(SPECS)
    assert not unknown, f"`conditions` has {', '.join(sorted(unknown))}"


def right_shape(backbone: Backbone) -> None:
    """For every shape that check() takes and every form of condition, predictions are finite
    float32 like the images"""
    cases = [(shape, forms(backbone)[-1]) for shape in accepted(backbone, (*SHAPES, *ODD))]
    cases += [(smallest(backbone), form) for form in forms(backbone)]
    networks = {(shape, form): built(backbone, shape, form) for shape, form in cases}

    def body(noise: list[float]) -> None:
        for (shape, form), network in networks.items():
            inputs = inputs_for(range(len(noise)), shape, form)._replace(noise=torch.tensor(noise))
            for each in (inputs, inputs._replace(condition=None)):
                conditions_text = "no condition" if each.condition is None else f"{form} conditions"
                when = f" with {conditions_text} and noise levels {noise}"
                assert_like(predict(network, each), inputs.x, "it", when)

    body([-1.5])
    body([0.0, 999.0])
    forall(body, noise=st.lists(st.floats(-2, 1000), min_size=1, max_size=4), examples=2)


def same_seed_same_weights(backbone: Backbone) -> None:
    """build() draws only from torch's global generator: one seed, one set of weights"""
    weights = []
    for seed in (1, 2):
        with ambient(seed):
            before = random_state()
            weights.append(state_of(fresh(backbone, smallest(backbone), forms(backbone)[-1])))
            drawn = [what for what, value in random_state().items() if before[what] != value]
        assert not drawn, f"it draws from {', '.join(drawn)}"
    assert same(*weights), "networks that are built after the same seed have different weights"


def condition_matters(backbone: Backbone) -> None:
    """Every condition, and no condition, gives a prediction of its own (a joint model takes no
    condition)"""
    if isinstance(backbone, Joint):
        return
    for form in forms(backbone)[1:]:
        network = built(backbone, smallest(backbone), form)
        inputs = inputs_for(range(5), smallest(backbone), form)
        inputs = inputs._replace(x=inputs.x[:1].repeat(5, 1, 1, 1), noise=torch.full((5,), 0.5))
        predictions = {
            f"{form} condition {row}": image for row, image in enumerate(predict(network, inputs))
        }
        predictions["no condition"] = predict(network, inputs._replace(condition=None))[0]
        for (one, first), (other, second) in itertools.combinations(predictions.items(), 2):
            assert gap(first, second) > DIFFERENT, f"{one} and {other} give the same prediction"


def noise_level_matters(backbone: Backbone) -> None:
    """The prediction depends on the noise level"""
    network, inputs = in_use(backbone, count=5)
    inputs = inputs._replace(x=inputs.x[:1].repeat(5, 1, 1, 1), condition=None)
    gaps = [gap(one, other) for one, other in itertools.combinations(predict(network, inputs), 2)]
    assert max(gaps) > DIFFERENT, (
        f"noise levels {', '.join(map(str, LEVELS))} give the same prediction"
    )


def augmentation_matters(backbone: Backbone) -> None:
    """With an `augmentation_size`, zeros are no augmentation, and each number changes the
    prediction of its own image alone"""
    if backbone.augmentation_size == 0:
        return
    network, inputs = in_use(backbone)

    @torch.inference_mode()
    def augmented(label: Tensor) -> Tensor:
        return network(*inputs, None, augmentation=label)

    plain = predict(network, inputs)
    zeros = torch.zeros(len(inputs.x), backbone.augmentation_size)
    share = gap(augmented(zeros), plain)
    assert share <= DIFFERENT, f"zeros and None differ by {share:.2g} of the largest value"
    for number in range(backbone.augmentation_size):
        label = zeros.clone()
        label[0, number] = 1
        prediction = augmented(label)
        assert gap(prediction[0], plain[0]) > DIFFERENT, f"number {number} changes nothing"
        share = gap(prediction[1:], plain[1:])
        assert share <= DIFFERENT, f"number {number} of one image changes others by {share:.2g}"


def dropped_is_no_condition(backbone: Backbone) -> None:
    """Images whose condition is dropped get the prediction for no condition, and the others keep
    their own"""
    shape = smallest(backbone)
    networks = {form: built(backbone, shape, form) for form in forms(backbone)[1:]}

    def body(dropped: list[bool]) -> None:
        mask = torch.tensor(dropped)
        for form, network in networks.items():
            inputs = inputs_for(range(4), shape, form)
            null, kept = predict(network, inputs._replace(condition=None)), predict(network, inputs)
            expected = torch.where(mask[:, None, None, None], null, kept)
            for row, pair in enumerate(
                zip(predict(network, inputs._replace(dropped=mask)), expected, strict=True)
            ):
                what = "no condition" if dropped[row] else f"its {form} condition"
                assert gap(*pair) <= DIFFERENT, (
                    f"with dropped={dropped}, image {row} is not that of {what}: they differ by "
                    f"{gap(*pair):.2g} of the largest value"
                )

    body([True] * 4)
    body([False] * 4)
    forall(body, dropped=st.lists(st.booleans(), min_size=4, max_size=4), examples=4)


@usual.same_in_any_batch
def batch_does_not_matter(backbone: Backbone) -> Iterator[Batch]:
    """Each image's prediction is its own, whatever else is in the batch"""
    network, inputs = in_use(backbone, count=5)
    yield Batch(5, lambda rows: predict(network, chosen(inputs, rows)))


@usual.pure
def pure(backbone: Backbone) -> Iterator[Use]:
    """A prediction is the same whatever was predicted before, draws nothing at random, and
    leaves its inputs alone"""
    network, inputs = in_use(backbone)
    inputs = inputs._replace(dropped=torch.tensor([False, True, False]))
    other = inputs_for(range(1, 4), smallest(backbone), forms(backbone)[-1])
    yield Use(lambda: predict(network, inputs), inputs._asdict(), lambda: predict(network, other))


def gradients_reach_the_weights(backbone: Backbone) -> None:
    """Gradients are finite and reach every weight that is trained, also after a prediction in
    inference mode"""
    network, inputs = in_use(backbone)
    predict(network, inputs)
    learn(network, inputs)
    trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    assert trained, "it has no weights to train"
    unreached = [name for name, weight in trained.items() if weight.grad is None]
    assert not unreached or isinstance(backbone, Joint), f"none reaches {', '.join(unreached)}"


def training_mode_works(backbone: Backbone) -> None:
    """In training mode, predictions and gradients are finite for every form of condition"""
    for form in forms(backbone):
        network = built(backbone, smallest(backbone), form)
        with forked():
            learn(network.train(), inputs_for(range(4), smallest(backbone), form))


def weights_can_be_stored(backbone: Backbone) -> None:
    """A fresh network takes the stored weights of one that was in use, and then gives the same
    bits"""
    network, inputs = in_use(backbone)
    with forked():
        learn(network.train(), inputs)
    stored = save(state_of(network.eval()))
    other = fresh(backbone, smallest(backbone), forms(backbone)[-1], seed=1)
    other.load_state_dict(load(stored))
    share = gap(predict(other, inputs), predict(network, inputs))
    assert share == 0, (
        f"predictions differ by {share:.2g} of the largest value: the state dict leaves something "
        "out"
    )


def any_memory_layout(backbone: Backbone) -> None:
    """With weights laid out as fw does it on a GPU, channels last, predictions are the same"""
    network, inputs = in_use(backbone)
    expected = predict(network, inputs)
    network = network.to(memory_format=torch.channels_last)
    for layout in (torch.contiguous_format, torch.channels_last):
        share = gap(
            predict(network, inputs._replace(x=inputs.x.contiguous(memory_format=layout))), expected
        )
        assert share <= 1e-3, f"they differ by {share:.2g} of the largest value"


def bf16_works(backbone: Backbone) -> None:
    """Under bf16 autocast, as in a recipe with `precision: bf16`, predictions are finite"""
    network, inputs = in_use(backbone)
    for device in tiny.devices():
        with torch.autocast(device, dtype=torch.bfloat16):
            prediction = predict(network.to(device), moved(inputs, device))
        assert_like(prediction.float().cpu(), inputs.x, "it", f" in bf16 on {device}")


@usual.same_on_a_gpu
def same_on_a_gpu(backbone: Backbone) -> Iterator[OnDevice]:
    """On a GPU, where there is one, it predicts what it predicts on the CPU"""
    network, inputs = in_use(backbone)
    yield OnDevice(lambda device: predict(as_on(device, network), moved(inputs, device)))


@usual.if_provided("attention")
def attend_sees_every_layer(backbone: Backbone) -> None:
    """If it provides `attention`, `attend` gets (B, heads, N, d) three times per layer, under a
    name of its own"""
    distinct = {layers_of(backbone, count, seed) for count, seed in ((1, 0), (3, 0), (3, 1))}
    assert len(distinct) == 1, (
        f"the layers are not always the same: {', '.join(map(str, sorted(distinct)))}"
    )
    [layers] = distinct
    twice = [layer for layer, times in Counter(layers).items() if times > 1]
    assert layers, "it is never called"
    assert not twice, f"{', '.join(twice)} is the name of several layers"


@usual.if_provided("attention")
def attend_may_be_the_usual(backbone: Backbone) -> None:
    """If it provides `attention`, scaled dot products as `attend` give the prediction without
    `attend`"""
    network, inputs = in_use(backbone)
    share = gap(predict(network, inputs, scaled_dot_product), predict(network, inputs))
    assert share <= 1e-4, f"they differ by {share:.2g} of the largest value"


@usual.if_provided("attention")
def attend_acts(backbone: Backbone) -> None:
    """If it provides `attention`, what `attend` returns is used in every layer"""
    network, inputs = in_use(backbone)
    plain = predict(network, inputs)
    for layer in layers_of(backbone):
        share = gap(predict(network, inputs, only_in(layer, torch.zeros_like)), plain)
        assert share > DIFFERENT, f"zeros from `attend` in layer {layer} change nothing"


@usual.if_provided("attention")
def attend_is_forgotten(backbone: Backbone) -> None:
    """If it provides `attention`, nothing of `attend` stays behind, also when it raises"""
    network, inputs = in_use(backbone)
    plain = predict(network, inputs)
    predict(network, inputs, nothing)
    assert torch.equal(predict(network, inputs), plain), "the next prediction is another one"
    for layer in layers_of(backbone):
        assert interrupted(network, inputs, only_in(layer, interrupt)), (
            f"what it raises in layer {layer} is swallowed"
        )
        assert not interrupted(network, inputs), (
            f"it is called again after it raised in layer {layer}"
        )
        assert torch.equal(predict(network, inputs), plain), (
            f"predictions change after it raised in layer {layer}"
        )
    left = [name or "the network" for name, module in network.named_modules() if hooks(module)]
    assert not left, f"there is a hook on {', '.join(left)}"


@usual.if_provided("attention")
def beginnings_can_be_shared(backbone: Backbone) -> None:
    """If it provides `attention`, modules hand on what they return and nothing else: what they
    returned can stand for them"""
    network, inputs = in_use(backbone)
    other = inputs_for(range(3, 6), smallest(backbone), forms(backbone)[-1])
    shared = Shared(network, order(network, lambda attend: network(*inputs, attend)))
    for layer in shared.order.before:
        attend = Changed((layer,), nothing)
        alone = predict(network, inputs, attend)
        shared.expect((layer,))
        for each, mix in ((inputs, None), (other, None), (inputs, attend)):
            with shared.during(each.x, 1.0, each.condition, mix):
                together = predict(network, each, mix)
        share = gap(together, alone)
        assert share == 0, (
            f"with layer {layer} changed, and what comes before it not computed again, the "
            f"prediction differs by {share:.2g} of the largest value"
        )


CLAUSES = (
    check_speaks,
    forms_are_known,
    right_shape,
    same_seed_same_weights,
    condition_matters,
    noise_level_matters,
    augmentation_matters,
    dropped_is_no_condition,
    batch_does_not_matter,
    pure,
    gradients_reach_the_weights,
    training_mode_works,
    weights_can_be_stored,
    any_memory_layout,
    bf16_works,
    same_on_a_gpu,
    attend_sees_every_layer,
    attend_may_be_the_usual,
    attend_acts,
    attend_is_forgotten,
    beginnings_can_be_shared,
)


class Inputs(NamedTuple):
    """What a network is called with, in the order of `fw.core.kinds.Network`; B images."""

    x: Tensor
    noise: Tensor
    condition: Tensor | None
    dropped: Tensor | None = None


class Interruption(Exception):
    """Raised inside `attend`."""


def in_use(backbone: Backbone, count: int = 3, seed: int = 0) -> tuple[nn.Module, Inputs]:
    """A network for small images, with conditions if it takes any, and inputs for it."""
    shape, form = smallest(backbone), forms(backbone)[-1]
    return built(backbone, shape, form, seed), inputs_for(range(count), shape, form)


def built(backbone: Backbone, shape: Shape, form: str | None, seed: int = 0) -> nn.Module:
    """A network whose weights are not what they start from: small random numbers are added to
    them."""
    network = fresh(backbone, shape, form, seed)
    draw = generator(seed, "weights")
    with torch.no_grad():
        for weight in network.parameters():
            assert weight.dtype == torch.float32, f"build() makes weights in {weight.dtype}"
            weight.add_(0.05 * torch.randn(weight.shape, generator=draw))
    return network


def fresh(backbone: Backbone, shape: Shape, form: str | None, seed: int = 0) -> nn.Module:
    """A network as training starts from it, in evaluation mode."""
    with forked():
        torch.manual_seed(seed)
        return backbone.build(shape, SPECS[form]).eval()


def inputs_for(rows: Sequence[int], shape: Shape, form: str | None) -> Inputs:
    """Noisy images, their noise levels and their conditions; each row has the same in any batch."""
    x = torch.stack([torch.randn(shape, generator=generator("image", row)) for row in rows])
    noise = torch.tensor([LEVELS[row % len(LEVELS)] for row in rows])
    match SPECS[form]:
        case None:
            return Inputs(x, noise, None)
        case ConditionSpec("class", size):
            return Inputs(x, noise, torch.tensor([row % size for row in rows]))
        case ConditionSpec("tokens", size, count):
            sets = [torch.randn(count, size, generator=generator("tokens", row)) for row in rows]
            return Inputs(x, noise, torch.stack(sets))
        case ConditionSpec(_, size):
            vectors = [torch.randn(size, generator=generator("vector", row)) for row in rows]
            return Inputs(x, noise, torch.stack(vectors))


def chosen(inputs: Inputs, rows: list[int]) -> Inputs:
    return Inputs(*(None if each is None else each[rows] for each in inputs))  # type: ignore[arg-type]


def moved(inputs: Inputs, device: str) -> Inputs:
    return Inputs(*(None if each is None else each.to(device) for each in inputs))  # type: ignore[arg-type]


def as_on(device: str, network: nn.Module) -> nn.Module:
    """The network on a device, with its weights laid out as fw does it on a GPU, channels last."""
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.inference_mode()
def predict(network: nn.Module, inputs: Inputs, attend: Attend | None = None) -> Tensor:
    return network(*inputs, attend)


def learn(network: nn.Module, inputs: Inputs) -> None:
    """Gradients of a loss in which the first condition is dropped; AssertionError unless all is
    finite."""
    dropped = None if inputs.condition is None else torch.arange(len(inputs.x)) == 0
    with torch.inference_mode(False), torch.enable_grad():
        prediction = network(*inputs._replace(dropped=dropped), None)
        assert_like(prediction.detach(), inputs.x, "it", " while training")
        prediction.square().mean().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is None or weight.grad.isfinite().all(), (
            f"the gradient of {name} is not finite"
        )


def accepted(backbone: Backbone, shapes: Sequence[Shape]) -> Iterator[Shape]:
    """The shapes that check() takes. Whether it refuses the others by ValueError is a clause of
    its own."""
    for shape in shapes:
        try:
            backbone.check(shape)
        except Exception:
            continue
        yield shape


def smallest(backbone: Backbone) -> Shape:
    """The first common shape that it takes."""
    shape = next(accepted(backbone, (*SHAPES, *RARE)), None)
    assert shape, f"check() refuses every shape tried: {', '.join(map(str, (*SHAPES, *RARE)))}"
    return shape


def forms(backbone: Backbone) -> list[str | None]:
    """No condition, and the forms that it takes."""
    return [None, *sorted(backbone.conditions & {form for form in SPECS if form})]


def layers_of(backbone: Backbone, count: int = 3, seed: int = 0) -> tuple[str, ...]:
    """The names under which layers call `attend`, in order; AssertionError where a call is not
    as it should be."""
    called: list[str] = []

    def attend(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
        assert isinstance(layer, str), f"a layer's name is {layer!r}"
        shapes = [tuple(each.shape) for each in (query, key, value)]
        alike = len(shapes[0]) == 4 and shapes[0][0] == count and shapes == [shapes[0]] * 3
        assert alike, f"layer {layer} gives {shapes} in a batch of {count}"
        called.append(layer)
        return scaled_dot_product(query, key, value, layer)

    predict(*in_use(backbone, count, seed), attend)
    return tuple(called)


def nothing(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
    return torch.zeros_like(value)


def interrupt(value: Tensor) -> Tensor:
    raise Interruption


def only_in(chosen: str, instead: Callable[[Tensor], Tensor]) -> Attend:
    """Attention as scaled_dot_product, but in one layer what `instead` makes of the values."""

    def attend(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
        return instead(value) if layer == chosen else scaled_dot_product(query, key, value, layer)

    return attend


def interrupted(network: nn.Module, inputs: Inputs, attend: Attend | None = None) -> bool:
    try:
        predict(network, inputs, attend)
    except Interruption:
        return True
    return False


def hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
