"""Token conditions: a set is a set, the null is learned, and other forms of condition see
nothing of it."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fw.core.diffusion.conditioning import TokenEmbedding
from fw.core.diffusion.taps import tapped
from fw.core.kinds import Backbone
from fw.core.types import ConditionSpec
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.dit_blocks import CrossAttention
from fw.plugins.backbones.unet import UNet

SHAPE = (2, 8, 8)
TOKENS = ConditionSpec("tokens", 6, 3)
BACKBONES: dict[str, Backbone] = {
    "dit": DiT(depth=2, width=16, heads=2),
    "unet": UNet(channels=(8, 16), groups=4, attention=(1,)),
    "unet without attention": UNet(channels=(8, 16), groups=4),
    "unet whose middle has no whole heads": UNet(channels=(8, 20), groups=4),
}
LAYERS = {
    "dit": ["blocks.0", "blocks.1"],
    "unet": [
        "down_blocks.1.attentions.0",
        "mid_block.attentions.0",
        "up_blocks.0.attentions.0",
        "up_blocks.0.attentions.1",
    ],
    "unet without attention": ["mid_block.attentions.0"],
    "unet whose middle has no whole heads": ["mid_block.attentions.0"],
}


@pytest.fixture(params=BACKBONES)
def which(request: pytest.FixtureRequest) -> str:
    return request.param


def fresh(backbone: Backbone, condition: ConditionSpec | None) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return backbone.build(SHAPE, condition).eval()


def in_use(backbone: Backbone, condition: ConditionSpec | None = TOKENS) -> Any:
    """A network whose gates are open."""
    network = fresh(backbone, condition)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=draw))
    return network


def batch(count: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy images, noise levels, conditions."""
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(count, *SHAPE, generator=draw)
    return x, 999 * torch.rand(count, generator=draw), torch.randn(count, 3, 6, generator=draw)


def differ(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) > 1e-3 * float(other.abs().max())


# The set


@torch.no_grad()
def test_the_order_of_the_tokens_means_nothing_and_each_of_them_something(which):
    network = in_use(BACKBONES[which])
    x, noise, condition = batch()
    plain = network(x, noise, condition)
    for order in ([1, 0, 2], [2, 0, 1]):
        torch.testing.assert_close(
            network(x, noise, condition[:, order]), plain, rtol=1e-4, atol=1e-5
        )
    for place in range(3):
        other = condition.clone()
        other[:, place] = -other[:, place]
        assert differ(network(x, noise, other), plain)


@torch.no_grad()
def test_a_set_may_have_a_single_token(which):
    network = in_use(BACKBONES[which], ConditionSpec("tokens", 6, 1))
    x, noise, condition = batch()
    assert differ(network(x, noise, condition[:, :1]), network(x, noise, condition[:, 1:2]))


# The null


@torch.no_grad()
def test_a_dropped_set_is_no_condition_as_a_whole_and_leaves_the_others_alone(which):
    network = in_use(BACKBONES[which])
    x, noise, condition = batch()
    mixed = network(x, noise, condition, torch.tensor([True, False, True]))
    null, kept = network(x, noise), network(x, noise, condition)
    torch.testing.assert_close(mixed[[0, 2]], null[[0, 2]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[1], kept[1], rtol=1e-4, atol=1e-5)
    assert differ(null, kept)


def test_the_null_is_trained_where_a_set_is_dropped_and_only_there(which):
    x, noise, condition = batch()
    for dropped, trained in (
        (torch.tensor([True, False, False]), True),
        (torch.zeros(3, dtype=torch.bool), False),
    ):
        network = in_use(BACKBONES[which])
        network(x, noise, condition, dropped).square().mean().backward()
        assert bool(network.embed.null.grad.any()) is trained
        assert network.embed.embed.weight.grad.any()


@settings(deadline=None, max_examples=30)
@given(dropped=st.lists(st.booleans(), min_size=1, max_size=6), count=st.integers(1, 4))
def test_the_embedding_maps_each_token_alone_and_repeats_the_null(dropped, count):
    torch.manual_seed(0)
    embed = TokenEmbedding(ConditionSpec("tokens", 5, count), 8)
    tokens = torch.randn(len(dropped), count, 5)
    found = embed(tokens, torch.tensor(dropped), len(dropped))
    assert found.shape == (len(dropped), count, 8)
    null = embed(None, None, 1)[0]
    assert torch.equal(null, null[:1].expand(count, -1))
    for row, gone in enumerate(dropped):
        alone = torch.stack([embed.norm(embed.embed(token)) for token in tokens[row]])
        torch.testing.assert_close(found[row], null if gone else alone)


def test_the_length_of_tokens_and_null_does_not_decide_how_loud_they_are():
    """Unit features of 384 numbers are as loud as features of any other encoder, and as the
    null."""
    torch.manual_seed(0)
    embed = TokenEmbedding(ConditionSpec("tokens", 384, 2), 64)
    tokens = nn.functional.normalize(torch.randn(50, 2, 384), dim=2)
    for loud in (embed(tokens, None, 50), embed(1000 * tokens, None, 50), embed(None, None, 50)):
        assert float(loud.detach().square().mean()) == pytest.approx(1, rel=0.05)


# Cross-attention


@settings(deadline=None, max_examples=10)
@given(heads=st.sampled_from([1, 2, 4]), count=st.integers(1, 5))
def test_cross_attention_is_that_of_torch(heads, count):
    torch.manual_seed(0)
    ours, theirs = CrossAttention(16, heads), nn.MultiheadAttention(16, heads, batch_first=True)
    with torch.no_grad():
        for weight in ours.parameters():
            weight.normal_(std=0.3)
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    tokens, context = torch.randn(2, 7, 16), torch.randn(2, count, 16)
    expected, _ = theirs(tokens, context, context)
    torch.testing.assert_close(ours(tokens, context), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_untrained_dit_is_the_identity_whatever_the_tokens():
    network = fresh(BACKBONES["dit"], TOKENS)
    x, noise, condition = batch()
    tokens, told = torch.randn(3, 16, 16), torch.randn(3, 16)
    for index, block in enumerate(network.blocks):
        assert torch.equal(
            block(tokens, told, mixed_as_usual, f"blocks.{index}", 10 * torch.randn(3, 3, 16)),
            tokens,
        )
    assert not network(x, noise, condition).any()


def test_what_is_zero_at_first_is_trained_nevertheless():
    """With the last layer open, the first step moves the output of cross-attention, and the next
    what it reads."""
    network = fresh(BACKBONES["dit"], TOKENS)
    nn.init.normal_(network.last.out.weight)
    x, noise, condition = batch()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for reached in (False, True):
        optimizer.zero_grad()
        (network(x, noise, condition) - x).square().mean().backward()
        assert network.blocks[0].cross.out.weight.grad.any()
        assert bool(network.embed.embed.weight.grad.any()) is reached
        optimizer.step()


def test_the_unet_with_tokens_is_that_of_diffusers(which):
    if which == "dit":
        pytest.skip("dit is not of diffusers")
    network = in_use(BACKBONES[which])
    x, noise, condition = batch()
    told = network.embed(condition, None, 3)
    expected = network.unet(x, noise, encoder_hidden_states=told).sample
    torch.testing.assert_close(network(x, noise, condition), expected, rtol=0, atol=1e-5)


# `attend`


def mixed_as_usual(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
    return scaled_dot_product_attention(query, key, value)


@torch.no_grad()
def test_attend_sees_self_attention_alone_under_the_names_that_it_has_without_tokens(which):
    seen: dict[str, list[torch.Size]] = {}

    def attend(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
        assert layer not in seen
        seen[layer] = [query.shape, key.shape, value.shape]
        return mixed_as_usual(query, key, value, layer)

    backbone = BACKBONES[which]
    network = in_use(backbone)
    x, noise, condition = batch()
    attended = network(x, noise, condition, attend=attend)
    assert sorted(seen) == LAYERS[which]
    assert all(shapes == [(3, *shapes[0][1:3], shapes[0][3])] * 3 for shapes in seen.values())
    assert all(
        shapes[0][2] == 16 for shapes in seen.values()
    )  # 4x4 pixels or patches, and not 3 tokens
    torch.testing.assert_close(attended, network(x, noise, condition), rtol=1e-4, atol=1e-5)
    if "attention" in backbone.provides:
        seen.clear()
        in_use(backbone, None)(x, noise, attend=attend)
        assert sorted(seen) == LAYERS[which]


@torch.no_grad()
def test_what_attend_returns_is_used_in_every_layer_and_nothing_of_it_stays(which):
    network = in_use(BACKBONES[which])
    x, noise, condition = batch()
    plain = network(x, noise, condition)
    for chosen in LAYERS[which]:

        def attend(
            query: Tensor, key: Tensor, value: Tensor, layer: str, chosen: str = chosen
        ) -> Tensor:
            return 3 * value if layer == chosen else mixed_as_usual(query, key, value, layer)

        assert differ(network(x, noise, condition, attend=attend), plain)
        assert torch.equal(network(x, noise, condition), plain)


@torch.no_grad()
def test_blocks_can_be_read_with_tokens_as_without(which):
    x, noise, condition = batch()
    with_tokens, without = in_use(BACKBONES[which]), in_use(BACKBONES[which], None)
    assert list(with_tokens.taps()) == list(without.taps())
    names = list(without.taps())
    with tapped(with_tokens, names) as found:
        with_tokens(x, noise, condition)
    with tapped(without, names) as expected:
        without(x, noise)
    assert {name: found[name].shape for name in names} == {
        name: expected[name].shape for name in names
    }


# Other forms of condition

BEFORE = {
    ("dit", None): ("9b2795d1546e", 1133.7455),
    ("dit", "class"): ("e57b51b5ee36", 1145.2897),
    ("dit", "vector"): ("c1d069834091", 1160.4871),
    ("unet", None): ("13786f66f603", 2849.6946),
    ("unet", "class"): ("b1cba10c32f1", 2852.5347),
    ("unet", "vector"): ("a82e91ce7d68", 2890.1001),
}
"""Of the networks before they could take tokens: a digest of their weights' names and shapes,
and the sum of all weights' absolute values, which another order of random draws would change."""


def fingerprint(network: nn.Module) -> tuple[str, float]:
    state = network.state_dict()
    names = repr([(name, tuple(tensor.shape)) for name, tensor in state.items()])
    return hashlib.sha256(names.encode()).hexdigest()[:12], float(
        sum(tensor.abs().sum() for tensor in state.values())
    )


@pytest.mark.parametrize(("which", "form"), BEFORE)
def test_networks_for_other_forms_have_the_weights_that_they_had_before_there_were_tokens(
    which, form
):
    names, size = fingerprint(fresh(BACKBONES[which], form and ConditionSpec(form, 5)))
    assert names == BEFORE[which, form][0]
    assert size == pytest.approx(BEFORE[which, form][1], rel=1e-5)


@pytest.mark.parametrize("form", [None, "class", "vector"])
def test_networks_for_other_forms_have_no_cross_attention(which, form):
    names = [
        name for name, _ in fresh(BACKBONES[which], form and ConditionSpec(form, 5)).named_modules()
    ]
    assert not [name for name in names if "cross" in name or "attn2" in name]
    crossed = [name for name, _ in fresh(BACKBONES[which], TOKENS).named_modules()]
    assert [name for name in crossed if "cross" in name or "attn2" in name]


def test_a_backbone_takes_classes_and_vectors_unless_it_says_more():
    assert Backbone.conditions == {"class", "vector"}
    assert all(
        backbone.conditions == {"class", "vector", "tokens"} for backbone in BACKBONES.values()
    )
