"""DDPM++ has as many weights as published, computes what diffusers' layers compute, and starts at
zero."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from diffusers.models.attention_processor import Attention as TheirAttention
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.resnet import ResnetBlock2D
from pydantic import ValidationError
from test_executor import Heard
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.pixels import to_unit
from fw.core.execution.executor import Outcome
from fw.core.execution.local import run_here
from fw.core.execution.place import Place
from fw.core.job import Job
from fw.core.kinds import scaled_dot_product
from fw.core.learning.train import train
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.core.settings import Train
from fw.core.store.store import Store
from fw.core.testing import check
from fw.core.types import ConditionSpec
from fw.plugins.backbones.ddpmpp import DDPMPP
from fw.plugins.backbones.ddpmpp_blocks import Attention, Block, double, half, waves
from fw.plugins.datasets.digits import Digits
from fw.plugins.guidance.pag import PAG
from fw.plugins.processes.ddpm import DDPM
from fw.registry import Provider

SHAPE = (3, 8, 8)
SPEC = ConditionSpec("class", 5)
SMALL: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "layers": 2, "attention": (1,)}
EDM_CIFAR10: dict[str, Any] = {
    "width": 128,
    "multipliers": (2, 2, 2),
    "layers": 4,
    "attention": (1,),
    "dropout": 0.13,
}


def fresh(condition: ConditionSpec | None = None, **fields: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DDPMPP(**{**SMALL, **fields}).build(SHAPE, condition).eval()


def opened(network: Any) -> Any:
    """With weights that are nowhere zero."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=draw))
    return network


def batch(count: int = 4) -> tuple[Tensor, Tensor]:
    """Images, and noise levels as EDM gives them, ln(sigma) / 4."""
    draw = torch.Generator().manual_seed(2)
    return torch.randn(count, *SHAPE, generator=draw), torch.randn(count, generator=draw)


@pytest.mark.parametrize(
    "fields",
    [
        {"attention": ()},
        {"width": 20, "multipliers": (1, 3), "layers": 2, "attention": (0, 1), "dropout": 0.1},
        {"multipliers": (2,), "attention": (0,)},
    ],
)
def test_the_contract(fields):
    check(DDPMPP(**fields))


# The paper's network


def test_the_network_of_edm_for_cifar10_has_as_many_weights_as_published():
    """55.7M (arXiv 2206.00364), added up by hand: 3x3 convolutions, with what goes with them."""
    with torch.device("meta"):
        network = DDPMPP(**EDM_CIFAR10).build((3, 32, 32), None)
    wide, embedded = 256, 512

    def convolution(inputs: int, outputs: int, side: int = 3) -> int:
        return side**2 * inputs * outputs + outputs

    def block(inputs: int, skip: bool) -> int:
        convolutions = convolution(inputs, wide) + convolution(wide, wide)
        norms, shift = 2 * inputs + 2 * wide, convolution(embedded, wide, side=1)
        return convolutions + norms + shift + skip * convolution(inputs, wide, side=1)

    attention = 2 * wide + 4 * convolution(wide, wide, side=1)
    parts = {
        "embedding": 9 * 128 + convolution(128, embedded, 1) + convolution(embedded, embedded, 1),
        "first": convolution(3, 128),
        "down": block(128, True) + 11 * block(wide, False) + 2 * block(wide, True) + 4 * attention,
        "middle": 2 * block(wide, False) + attention,
        "up": 14 * block(2 * wide, True)
        + block(wide + 128, True)
        + 2 * block(wide, True)
        + attention,
        "last": 2 * wide + convolution(wide, 3),
    }
    weights = {
        name: sum(weight.numel() for weight in part.parameters())
        for name, part in network.named_children()
    }
    assert weights == parts
    assert sum(weights.values()) == 55_733_891


def test_attention_is_at_16x16_after_four_blocks_of_the_encoder_and_two_of_the_decoder():
    tokens = {}

    def note(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
        tokens[layer] = tuple(query.shape[1:])
        return value

    with torch.device("meta"):
        network = DDPMPP(**EDM_CIFAR10).build((3, 32, 32), None)
        network(torch.zeros(1, 3, 32, 32), torch.zeros(1), attend=note)
    encoder = {f"down.1.{index}": (1, 256, 256) for index in range(4)}
    assert tokens == {**encoder, "mid": (1, 64, 256), "up.1.4": (1, 256, 256)}


# Against diffusers' layers


@pytest.mark.parametrize(
    ("resample", "theirs"),
    [(None, {}), (half, {"down": True}), (double, {"up": True})],
    ids=["same size", "half", "double"],
)
@torch.no_grad()
def test_a_residual_block_computes_what_that_of_diffusers_computes(resample, theirs):
    block = opened(Block(8, 16, 12, dropout=0.0, resample=resample))
    settings: dict[str, Any] = {"kernel": "sde_vp", **theirs}
    expected = ResnetBlock2D(
        in_channels=8,
        out_channels=16,
        temb_channels=12,
        groups=2,
        groups_out=4,
        eps=1e-6,
        skip_time_act=True,
        output_scale_factor=math.sqrt(2),
        **settings,
    )
    names = {
        "norm": "norm1",
        "first": "conv1",
        "shift": "time_emb_proj",
        "inner_norm": "norm2",
        "second": "conv2",
        "skip": "conv_shortcut",
    }
    for ours, other in names.items():
        expected.get_submodule(other).load_state_dict(block.get_submodule(ours).state_dict())
    x, embedding = torch.randn(2, 8, 4, 6), torch.randn(2, 12)
    torch.testing.assert_close(
        block(x, embedding, scaled_dot_product), expected(x, embedding), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_attention_computes_what_that_of_diffusers_computes():
    layer = opened(Attention(16, "mid"))
    expected = TheirAttention(
        16,
        heads=1,
        dim_head=16,
        norm_num_groups=4,
        eps=1e-6,
        bias=True,
        residual_connection=True,
        rescale_output_factor=math.sqrt(2),
        _from_deprecated_attn_block=True,
    )
    names = {
        "norm": "group_norm",
        "query": "to_q",
        "key": "to_k",
        "value": "to_v",
        "out": "to_out.0",
    }
    for ours, other in names.items():
        expected.get_submodule(other).load_state_dict(layer.get_submodule(ours).state_dict())
    x = torch.randn(2, 16, 4, 6)
    torch.testing.assert_close(layer(x, scaled_dot_product), expected(x), rtol=1e-4, atol=1e-5)


def test_noise_levels_have_the_sines_and_cosines_of_ddpm():
    noise = torch.tensor([-1.5, 0.0, 0.3, 999.0])
    expected = get_timestep_embedding(noise, 16, flip_sin_to_cos=False, downscale_freq_shift=1)
    torch.testing.assert_close(waves(noise, 16), expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_decoder_reads_what_the_encoder_returned_from_the_last_to_the_first():
    network = opened(fresh(multipliers=(1, 2, 2), attention=(0, 2)))
    x, noise = batch()
    embedding = network.embedding(noise, None, None, None)

    def through(block: Any, hidden: Tensor) -> Tensor:
        return block(hidden, embedding, scaled_dot_product)

    hidden = network.first(x)
    returned = [hidden]
    for level in network.down:
        for block in level:
            hidden = through(block, hidden)
            returned.append(hidden)
    for block in network.middle:
        hidden = through(block, hidden)
    for level in network.up:
        hidden = hidden if level.larger is None else through(level.larger, hidden)
        for block in level.blocks:
            hidden = through(block, torch.cat([hidden, returned.pop()], dim=1))
    assert returned == []
    assert torch.equal(network.last(hidden), network(x, noise))


def test_a_constant_image_is_constant_at_any_size_and_half_of_the_double_is_the_image():
    x = torch.randn(2, 3, 4, 6)
    assert torch.equal(half(double(x)), x)
    constant = torch.full((1, 2, 4, 4), 0.3)
    assert torch.equal(half(constant), constant[..., :2, :2])
    assert torch.equal(double(constant), torch.full((1, 2, 8, 8), 0.3))
    checks = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(1, 1, 2, 2)
    assert torch.equal(half(checks), torch.full((1, 1, 2, 2), 0.5))


# How it starts


@torch.no_grad()
def test_at_first_blocks_add_nothing_and_the_prediction_is_zero():
    network = fresh(SPEC)
    x, noise = batch()
    assert not network(x, noise, torch.tensor([0, 1, 2, 3])).any()
    hidden, embedding = torch.randn(2, 16, 4, 4), torch.randn(2, 32)
    attends, plain = network.middle
    assert torch.equal(plain(hidden, embedding, scaled_dot_product), math.sqrt(0.5) * hidden)
    torch.testing.assert_close(attends(hidden, embedding, scaled_dot_product), hidden / 2)


def test_weights_start_by_glorots_rule_and_those_of_attention_with_a_tenth_of_its_variance():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: Any = DDPMPP(width=64, attention=(1,)).build(SHAPE, None)
    shares = {"query": 0.1, "key": 0.1, "value": 0.1, "out": 0.0, "second": 0.0, "2": 0.0}
    for path, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            inputs_and_outputs = sum(layer.weight.shape[:2]) * layer.weight[0, 0].numel()
            share = shares.get(path.rpartition(".")[2], 1.0)
            variance = layer.weight.square().mean().item()
            assert variance == pytest.approx(share * 2 / inputs_and_outputs, rel=0.15), path
            assert layer.bias is None or not layer.bias.any()


# Augmentation and conditions


@torch.no_grad()
def test_a_network_is_given_how_each_image_was_augmented_and_zeros_mean_not_at_all():
    network = opened(fresh(SPEC))
    x, noise = batch()
    classes, label = torch.tensor([0, 4, 1, 2]), torch.zeros(4, 9)
    plain = network(x, noise, classes)
    assert torch.equal(network(x, noise, classes, augmentation=label), plain)
    for number in range(9):
        label = torch.zeros(4, 9)
        label[1, number] = 0.5
        augmented = network(x, noise, classes, augmentation=label)
        torch.testing.assert_close(augmented[[0, 2, 3]], plain[[0, 2, 3]])
        assert not torch.allclose(augmented[1], plain[1], atol=1e-4)


def test_a_network_without_conditions_takes_none():
    with pytest.raises(ValueError, match="built without conditions"):
        fresh()(*batch(), torch.tensor([0, 1, 2, 3]))


@torch.no_grad()
def test_attend_decides_how_tokens_mix():
    """With the identity as attention map, a layer returns its projected values
    (perturbed-attention guidance)."""
    layer = opened(Attention(16, "mid"))
    x = torch.randn(2, 16, 4, 4)
    values = layer.value(layer.norm(x).permute(0, 2, 3, 1))
    expected = math.sqrt(0.5) * (x + layer.out(values).permute(0, 3, 1, 2))
    perturbed = layer(x, lambda query, key, value, name: value)
    torch.testing.assert_close(perturbed, expected, rtol=1e-4, atol=1e-5)
    uniform = layer(
        x, lambda query, key, value, name: scaled_dot_product_attention(0 * query, key, value)
    )
    assert not torch.allclose(perturbed, uniform, atol=1e-3)


# Precision


@torch.no_grad()
def test_double_precision_gives_the_same_images_and_bf16_nearly():
    network = opened(fresh(SPEC))
    x, noise = batch()
    classes = torch.tensor([0, 4, 1, 2])
    plain = network(x, noise, classes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(x, noise, classes).float()
    assert (rough - plain).square().mean() < 1e-3 * plain.square().mean()
    twice = network.double()(x.double(), noise.double(), classes)
    torch.testing.assert_close(twice.float(), plain, rtol=1e-3, atol=1e-3)


# Training


def test_it_learns_digits_better_than_a_constant_could(tmp_path: Path):
    """The best constant is the mean image, whose error is the variance of the images."""
    data, held_out = Digits().load("train"), Digits().load("test")
    settings = Train.model_validate({"steps": 100, "batch": 64, "warmup": 10, "lr": 2e-3})
    process = DDPM(prediction="x0")
    network = train(DDPMPP(width=8), process, data, None, settings, Job(tmp_path))
    x0 = to_unit(held_out.images)
    constant = (x0 - x0.mean(dim=0)).square().mean()
    draw = torch.Generator().manual_seed(0)
    sigma = process.sigmas(torch.rand(len(x0), generator=draw))
    noise = torch.randn(x0.shape, generator=draw)
    with torch.no_grad():
        error = NetworkDenoiser(network, process).loss(x0, sigma, noise, None, None).mean()
    assert error < 0.9 * constant


# In a recipe


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_recipe_runs_with_it_and_its_attention_can_be_guided(tmp_path: Path, precision: str):
    registry = toys.registry()
    registry.add(Provider("networks"), [DDPMPP, PAG])
    source = parse(toys.RECIPE, "r.yaml")
    train = f"{{steps: 60, batch: 16, warmup: 5, lr: 0.01, precision: {precision}}}"
    pag = "{guidance: {name: pag, scale: 2}}"
    source.set(["model={name: ddpmpp, width: 8}", f"train={train}", f"arms.pag={pag}"])
    planned = plan(validate(source, registry))
    Store(tmp_path).create()
    place = Place(tmp_path, "cpu", threads=1, checkpoint_seconds=20)
    assert run_here(planned, (), place, Heard(), lambda: False) == Outcome()
    folders = [tmp_path / arm.sample for arm in planned.arms.values()]
    samples = {next(folder.glob("samples-000-*")).read_bytes() for folder in folders}
    assert len(samples) == len(folders) == 4


def test_a_level_needs_sides_that_can_be_halved():
    with pytest.raises(
        ValueError,
        match="ddpmpp with 3 levels needs images whose sides are multiples of 4, and these are "
        "8x6: take fewer entries in `multipliers`",
    ):
        DDPMPP(multipliers=(1, 1, 1)).build((1, 8, 6), None)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attention": [2]}, "attention at level 2, but multipliers has levels 0 to 1"),
        ({"width": 18}, "multiple of 4"),
        ({"multipliers": []}, "at least 1 item"),
        ({"layers": 0}, "greater than or equal to 1"),
    ],
)
def test_impossible_architectures_are_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        DDPMPP(**fields)
