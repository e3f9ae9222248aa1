"""The U-Net keeps diffusers' numbers, takes conditions, and lets `attend` in without keeping
anything of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fw.core.types import ConditionSpec
from fw.plugins.backbones.unet import UNet

SHAPE = (3, 8, 8)
LAYERS = [
    "down_blocks.1.attentions.0",
    "mid_block.attentions.0",
    "up_blocks.0.attentions.0",
    "up_blocks.0.attentions.1",
]


def network(
    condition: ConditionSpec | None = None, attention: tuple[int, ...] = (1,), **fields: Any
) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return (
            UNet(channels=(8, 16), groups=4, attention=attention, **fields)
            .build(SHAPE, condition)
            .eval()
        )


def batch(count: int = 4) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(count, *SHAPE, generator=draw), 999 * torch.rand(count, generator=draw)


class Recorder:
    """Attends as usual and notes what it was given."""

    def __init__(self) -> None:
        self.shapes: dict[str, list[torch.Size]] = {}

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
        self.shapes[layer] = [query.shape, key.shape, value.shape]
        return scaled_dot_product_attention(query, key, value)


def only_values(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
    return value


@pytest.mark.parametrize("head_dim", [2, 8])
@pytest.mark.parametrize("attention", [(0, 1), (1,), ()])
def test_without_attend_it_computes_what_diffusers_computes(attention, head_dim):
    net = network(attention=attention, head_dim=head_dim)
    x, noise = batch()
    torch.testing.assert_close(net(x, noise), net.unet(x, noise).sample, rtol=0, atol=1e-6)


def test_the_gradients_are_those_of_diffusers():
    x, noise = batch()
    gradients = []
    for forward in (lambda net: net(x, noise), lambda net: net.unet(x, noise).sample):
        net = network()
        forward(net).square().mean().backward()
        gradients.append([p.grad for p in net.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_attend_sees_every_attention_layer_by_name_with_heads_and_tokens():
    recorder = Recorder()
    x, noise = batch()
    net = network(head_dim=4)
    attended = net(x, noise, attend=recorder)
    assert sorted(recorder.shapes) == LAYERS
    assert all(shapes == [torch.Size([4, 4, 16, 4])] * 3 for shapes in recorder.shapes.values())
    assert torch.equal(attended, net(x, noise))


def test_attend_decides_how_tokens_mix():
    """With the identity as attention map, a layer's output is its projected values
    (perturbed-attention guidance)."""
    net = network()
    x, noise = batch()
    inputs, outputs = {}, {}

    def note(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        inputs["mid"], outputs["mid"] = given[0], output

    middle = net.unet.mid_block.attentions[0]
    handle = middle.register_forward_hook(note)
    perturbed = net(x, noise, attend=only_values)
    handle.remove()
    tokens = middle.group_norm(inputs["mid"]).flatten(2).transpose(1, 2)
    expected = (
        middle.to_out[0](middle.to_v(tokens)).transpose(1, 2).reshape(inputs["mid"].shape)
        + inputs["mid"]
    )
    torch.testing.assert_close(outputs["mid"], expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(perturbed, net(x, noise), atol=1e-4)


def test_attend_can_tell_the_layers_apart():
    net = network()
    x, noise = batch()

    def perturb(chosen: str) -> Any:
        def attend(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
            return value if layer == chosen else scaled_dot_product_attention(query, key, value)

        return net(x, noise, attend=attend)

    outputs = [perturb(layer) for layer in ("none", *LAYERS)]
    assert torch.equal(outputs[0], net(x, noise))
    for index, one in enumerate(outputs):
        assert not any(torch.allclose(one, other, atol=1e-6) for other in outputs[index + 1 :])


def test_nothing_of_attend_stays_behind():
    net = network()
    x, noise = batch()
    before, state = net(x, noise), net.state_dict()
    processors = [net.unet.get_submodule(name).processor for name in LAYERS]
    net(x, noise, attend=only_values)
    assert all(
        net.unet.get_submodule(n).processor is p for n, p in zip(LAYERS, processors, strict=True)
    )
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert net.state_dict().keys() == state.keys()
    assert torch.equal(net(x, noise), before)


def test_nothing_of_attend_stays_behind_when_it_raises():
    net = network()
    x, noise = batch()
    before = net(x, noise)
    processors = [net.unet.get_submodule(name).processor for name in LAYERS]

    def fail(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
        if layer == LAYERS[-1]:
            raise RuntimeError("as planned")
        return value

    with pytest.raises(RuntimeError, match="as planned"):
        net(x, noise, attend=fail)
    assert all(
        net.unet.get_submodule(n).processor is p for n, p in zip(LAYERS, processors, strict=True)
    )
    assert torch.equal(net(x, noise), before)


def test_heads_are_as_many_in_every_layer_however_wide_it_is():
    recorder = Recorder()
    x, noise = batch()
    network(attention=(0, 1), heads=2)(x, noise, attend=recorder)
    widths = {(shape[0][1], shape[0][3]) for shape in recorder.shapes.values()}
    assert widths == {(2, 4), (2, 8)}
    divided, counted = network(head_dim=8), network(heads=2)
    assert torch.equal(divided(x, noise), counted(x, noise))
    torch.testing.assert_close(counted(x, noise), counted.unet(x, noise).sample, rtol=0, atol=1e-6)


DDPM_CIFAR10: dict[str, Any] = {
    "channels": (128, 256, 256, 256),
    "layers": 2,
    "attention": (1,),
    "heads": 1,
    "groups": 32,
    "dropout": 0.1,
    "init": "ddpm",
}


def test_the_network_of_ddpm_for_cifar10_has_as_many_weights_as_published():
    """35.7M (arXiv 2006.11239, appendix B)."""
    with torch.device("meta"):
        net: Any = UNet(**DDPM_CIFAR10).build((3, 32, 32), None)
    assert sum(weight.numel() for weight in net.parameters()) == 35_746_307
    attention = [net.unet.get_submodule(path) for path in net.attention_layers.values()]
    assert [layer.heads for layer in attention] == [1] * 6


@pytest.mark.parametrize("init", ["zero", "ddpm"])
@pytest.mark.parametrize(
    "spec", [None, ConditionSpec("class", 5), ConditionSpec("tokens", 5, 3)], ids=str
)
def test_zero_at_its_ends_the_middle_returns_what_it_is_given_and_the_prediction_is_zero(
    spec, init
):
    net = network(spec, init=init)
    middle: list[Tensor] = []

    def note(block: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        middle.extend((given[0], output))

    net.taps()["mid"].register_forward_hook(note)
    assert not net(*batch()).any()
    given, output = middle
    assert given.any()
    assert torch.equal(given, output)


def test_zero_leaves_all_other_weights_as_torch_draws_them():
    drawn, zeroed = (network(init=init).state_dict() for init in ("torch", "zero"))
    changed = {name for name in drawn if not torch.equal(drawn[name], zeroed[name])}
    assert {name.removesuffix(".bias").removesuffix(".weight") for name in changed} == {
        *(f"unet.{layer}.to_out.0" for layer in LAYERS),
        *(f"unet.down_blocks.{level}.resnets.0.conv2" for level in (0, 1)),
        *(f"unet.mid_block.resnets.{index}.conv2" for index in (0, 1)),
        *(f"unet.up_blocks.{i}.resnets.{j}.conv2" for i in (0, 1) for j in (0, 1)),
        "unet.conv_out",
    }
    assert not any(zeroed[name].any() for name in changed)


def test_as_ddpm_starts_all_other_weights_are_glorots():
    """Uniform with variance 2 / (inputs + outputs), where each pixel of a kernel counts."""
    net = network(init="ddpm")
    for path, layer in net.unet.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.any():
            assert layer.bias is not None
            assert not layer.bias.any()
            pixels = layer.weight[0, 0].numel()
            sides = (layer.weight.shape[0] + layer.weight.shape[1]) * pixels
            bound = (6 / sides) ** 0.5
            assert layer.weight.abs().max() <= bound, path
            if layer.weight.numel() > 1000:
                assert layer.weight.var().item() == pytest.approx(bound**2 / 3, rel=0.2), path


CONDITIONS = {
    "class": (ConditionSpec("class", 5), torch.tensor([0, 4, 1, 1])),
    "vector": (
        ConditionSpec("vector", 6),
        torch.randn(4, 6, generator=torch.Generator().manual_seed(2)),
    ),
}
both_forms = pytest.mark.parametrize("form", CONDITIONS)


@both_forms
def test_an_image_answers_to_its_own_condition(form):
    spec, condition = CONDITIONS[form]
    net = network(spec)
    x, noise = batch(1)
    x, noise = x.expand(4, -1, -1, -1), noise.expand(4)
    output = net(x, noise, condition)
    assert not torch.allclose(output[0], output[1], atol=1e-4)
    assert torch.allclose(output[2], output[3], atol=1e-6) == (form == "class")
    swapped = net(x, noise, condition.flip(0))
    torch.testing.assert_close(swapped, output.flip(0), rtol=0, atol=1e-6)


@both_forms
def test_a_dropped_condition_is_the_null_condition(form):
    spec, condition = CONDITIONS[form]
    net = network(spec)
    x, noise = batch()
    dropped = torch.tensor([True, False, True, False])
    mixed, null, kept = net(x, noise, condition, dropped), net(x, noise), net(x, noise, condition)
    torch.testing.assert_close(mixed[dropped], null[dropped], rtol=0, atol=1e-6)
    torch.testing.assert_close(mixed[~dropped], kept[~dropped], rtol=0, atol=1e-6)
    assert not torch.allclose(null, kept, atol=1e-4)


@both_forms
def test_the_null_and_the_conditions_learn_from_the_images_that_have_them(form):
    spec, condition = CONDITIONS[form]
    x, noise = batch()
    for share, learns in ((0.0, {"weight"}), (1.0, {"null"})):
        net = network(spec)
        dropped = torch.full((4,), bool(share))
        net(x, noise, condition, dropped).square().sum().backward()
        moved = {
            name
            for name, p in net.embed.named_parameters()
            if p.grad is not None and p.grad.abs().sum() > 0
        }
        assert {name.removeprefix("embed.") for name in moved} - {"bias"} == learns


def test_a_network_without_conditions_takes_none():
    with pytest.raises(ValueError, match="built without conditions"):
        network()(*batch(), torch.tensor([0, 1, 2, 3]))


def test_only_a_network_with_attention_provides_it():
    assert UNet(attention=(1,)).provides == {"attention", "taps"}
    assert UNet().provides == {"taps"}
    recorder = Recorder()
    network(attention=())(*batch(), attend=recorder)
    assert recorder.shapes == {}


def test_the_noise_level_matters_between_whole_timesteps_too():
    net = network()
    x, _ = batch(1)
    outputs = [net(x, torch.tensor([t])) for t in (10.0, 10.5, 11.0)]
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-5)
    assert not torch.allclose(outputs[1], outputs[2], atol=1e-5)


def test_channels_last_and_double_precision_give_the_same_images():
    net = network(CONDITIONS["class"][0])
    x, noise = batch()
    condition = CONDITIONS["class"][1]
    plain = net(x, noise, condition)
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        last(x.to(memory_format=torch.channels_last), noise, condition), plain, rtol=1e-4, atol=1e-5
    )
    double = copy.deepcopy(net).double()
    torch.testing.assert_close(
        double(x.double(), noise.double(), condition).float(), plain, rtol=1e-4, atol=1e-5
    )


def test_bf16_autocast_stays_near_the_float32_result():
    net = network()
    x, noise = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = net(x, noise).float()
    exact = net(x, noise)
    assert (rough - exact).square().mean() < 1e-3 * exact.square().mean()


@pytest.mark.gpu
def test_on_a_gpu_it_gives_the_images_of_the_cpu():
    net = network(CONDITIONS["class"][0])
    x, noise = batch()
    condition = CONDITIONS["class"][1]
    expected = net(x, noise, condition)
    found = net.cuda()(x.cuda(), noise.cuda(), condition.cuda()).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)


def test_images_that_cannot_be_halved_are_refused_with_what_would_fit():
    with pytest.raises(
        ValueError,
        match="unet with 3 levels needs images whose sides are multiples of 4, and these are 8x6",
    ):
        UNet(channels=(16, 16, 16)).build((1, 8, 6), None)
    assert UNet(channels=(16, 16)).build((1, 8, 6), None)(
        torch.zeros(1, 1, 8, 6), torch.zeros(1)
    ).shape == (1, 1, 8, 6)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attention": [2]}, "attention at level 2, but channels has levels 0 to 1"),
        ({"channels": [16, 30]}, "channels 30 is not a multiple of groups 8"),
        ({"attention": [0], "head_dim": 12}, "not a multiple of head_dim 12"),
        ({"attention": [0], "heads": 3}, "channels 16 with attention is not a multiple of heads 3"),
        ({"channels": []}, "at least 1 item"),
    ],
)
def test_impossible_architectures_are_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        UNet(**fields)


def test_one_channel_per_group_is_refused_because_the_norm_would_erase_the_embeddings():
    with pytest.raises(ValueError, match="erase the time and condition embeddings"):
        UNet(channels=(8, 16), groups=8)
    spec = ConditionSpec("class", 2)
    network = UNet(channels=(8, 16), groups=4).build((1, 8, 8), spec)
    x, noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(1)
    assert not torch.equal(
        network(x, noise, torch.tensor([0])), network(x, noise, torch.tensor([1]))
    )
