"""DiT keeps the paper's sizes and diffusers' numbers, starts as the identity, and learns where
its patches are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from test_executor import Heard
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.pixels import to_unit
from fw.core.errors import RecipeError
from fw.core.execution.executor import Outcome
from fw.core.execution.local import run_here
from fw.core.execution.place import Place
from fw.core.job import Job
from fw.core.learning.train import train
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.core.settings import Train
from fw.core.store.store import Store
from fw.core.testing import check
from fw.core.types import ConditionSpec
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.dit_blocks import patchify, positions, unpatchify
from fw.plugins.datasets.digits import Digits
from fw.plugins.processes.ddpm import DDPM
from fw.registry import Provider

SPEC = ConditionSpec("class", 5)
SMALL: dict[str, Any] = {"depth": 3, "width": 32, "heads": 4}


def fresh(
    shape: tuple[int, int, int] = (3, 8, 8), condition: ConditionSpec | None = None, **fields: Any
) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DiT(**{**SMALL, **fields}).build(shape, condition).eval()


def in_use(*args: Any, **fields: Any) -> Any:
    """A network whose gates are open."""
    network = fresh(*args, **fields)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=draw))
    return network


def batch(*shape: int, count: int = 4) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    return torch.randn(count, *(shape or (3, 8, 8)), generator=draw), 999 * torch.rand(
        count, generator=draw
    )


@pytest.mark.parametrize(
    "fields", [{}, {"depth": 2, "width": 24, "heads": 2, "patch": 1}, {"depth": 1, "patch": 4}]
)
def test_the_contract(fields):
    check(DiT(**fields))


# The paper's network


@pytest.mark.parametrize(("size", "millions"), [("S", 33), ("B", 130), ("L", 458), ("XL", 675)])
def test_its_sizes_have_as_many_weights_as_published(size, millions):
    with torch.device("meta"):
        network = DiT(size=size, patch=2).build((4, 32, 32), ConditionSpec("class", 1000))
    assert sum(weight.numel() for weight in network.parameters()) == pytest.approx(
        millions * 1e6, rel=0.01
    )


def copied_to_diffusers(ours: Any, side: int, colours: int, classes: int, patch: int) -> nn.Module:
    """diffusers' DiT with the weights of ours. It has an embedder in every block, and takes
    classes only."""
    from diffusers.models.embeddings import Timesteps
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    width, heads = ours.first.out_features, ours.blocks[0].attention.heads
    theirs: Any = DiTTransformer2DModel(
        heads,
        width // heads,
        colours,
        num_layers=len(ours.blocks),
        sample_size=side,
        patch_size=patch,
        num_embeds_ada_norm=classes,
        norm_eps=1e-6,
    ).eval()

    def copy(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
        layer.load_state_dict({"weight": weight, "bias": bias})

    def copy_all(pairs: list[tuple[Any, Any]]) -> None:
        for layer, source in pairs:
            copy(layer, source.weight, source.bias)

    kernel = ours.first.weight.unflatten(1, (patch, patch, colours)).permute(0, 3, 1, 2)
    copy(theirs.pos_embed.proj, kernel, ours.first.bias)
    copy_all([(theirs.proj_out_1, ours.last.modulation), (theirs.proj_out_2, ours.last.out)])
    for block, other in zip(ours.blocks, theirs.transformer_blocks, strict=True):
        parts = (other.attn1.to_q, other.attn1.to_k, other.attn1.to_v)
        qkv = block.attention.qkv
        for layer, weight, bias in zip(parts, qkv.weight.chunk(3), qkv.bias.chunk(3), strict=True):
            copy(layer, weight, bias)
        embedder = other.norm1.emb
        embedder.time_proj = Timesteps(
            256, flip_sin_to_cos=False, downscale_freq_shift=0
        )  # as in the paper's code
        table = torch.cat([ours.embed.embed.weight, ours.embed.null[None]])
        embedder.class_embedder.embedding_table.load_state_dict({"weight": table})
        copy_all(
            [
                (other.attn1.to_out[0], block.attention.out),
                (other.ff.net[0].proj, block.mlp[0]),
                (other.ff.net[2], block.mlp[2]),
                (other.norm1.linear, block.modulation),
                (embedder.timestep_embedder.linear_1, ours.level.first),
                (embedder.timestep_embedder.linear_2, ours.level.last),
            ]
        )
    return theirs


@pytest.mark.parametrize("patch", [1, 2, 4])
@torch.no_grad()
def test_it_computes_what_diffusers_computes(patch):
    ours = in_use((3, 8, 8), SPEC, patch=patch)
    theirs = copied_to_diffusers(ours, 8, 3, SPEC.size, patch)
    x, noise = batch()
    classes = torch.tensor([0, 4, 1, 2])
    null = torch.full((4,), SPEC.size)
    scale = float(ours(x, noise, classes).abs().max())
    for condition, labels in ((classes, classes), (None, null)):
        expected = theirs(x, noise, labels).sample
        torch.testing.assert_close(ours(x, noise, condition), expected, rtol=0, atol=1e-5 * scale)


@torch.no_grad()
def test_at_first_each_block_is_the_identity_and_the_prediction_is_zero():
    network = fresh(condition=SPEC)
    x, noise = batch()
    tokens, told = torch.randn(4, 16, 32), torch.randn(4, 32)
    for index, block in enumerate(network.blocks):
        assert torch.equal(block(tokens, told, usual, f"blocks.{index}"), tokens)
    assert not network(x, noise, torch.tensor([0, 1, 2, 3])).any()
    opened = in_use(condition=SPEC)
    assert not torch.allclose(opened.blocks[0](tokens, told, usual, "blocks.0"), tokens, atol=0.1)


# Patches and their positions


@given(
    patch=st.integers(1, 4),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    colours=st.integers(1, 4),
    count=st.integers(1, 3),
)
def test_tokens_are_patches_row_by_row_and_go_back_to_the_image(
    patch, rows, columns, colours, count
):
    shape = (count, colours, rows * patch, columns * patch)
    x = torch.arange(torch.Size(shape).numel()).reshape(shape)
    tokens = patchify(x, patch)
    assert tokens.shape == (count, rows * columns, patch * patch * colours)
    for row in range(rows):
        for column in range(columns):
            pixels = x[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            assert torch.equal(
                tokens[:, row * columns + column], pixels.permute(0, 2, 3, 1).flatten(1)
            )
    assert torch.equal(unpatchify(tokens, patch, rows), x)
    layout = x.to(memory_format=torch.channels_last)
    assert torch.equal(patchify(layout, patch), tokens)


@pytest.mark.parametrize("side", [1, 3, 8])
def test_positions_of_a_square_are_those_of_diffusers(side):
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    expected = get_2d_sincos_pos_embed(24, side, base_size=side).float()
    torch.testing.assert_close(positions(side, side, 24), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(4, 10), (12, 6)])
def test_a_patch_has_the_position_that_it_has_in_a_larger_square(height, width):
    square = fresh((3, 12, 12)).positions.unflatten(0, (6, 6))
    expected = square[: height // 2, : width // 2].flatten(0, 1)
    assert torch.equal(fresh((3, height, width)).positions, expected)


@torch.no_grad()
def test_only_the_positions_tell_the_patches_apart():
    """Without them, the network of a shuffled image is the shuffled network of the image."""
    x, noise = batch()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))

    def shuffled(image: Tensor) -> Tensor:
        return unpatchify(patchify(image, 2)[:, order], 2, rows=4)

    network = in_use()
    assert not torch.allclose(network(shuffled(x), noise), shuffled(network(x, noise)), atol=1e-2)
    network.positions.zero_()
    torch.testing.assert_close(
        network(shuffled(x), noise), shuffled(network(x, noise)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("shape", [(2, 4, 12), (1, 12, 4)])
def test_without_attention_a_pixel_depends_on_its_own_patch_alone(shape):
    """On images that are not square, where rows and columns cannot be mixed up unseen."""
    network = in_use(shape)
    x, noise = batch(*shape, count=1)
    _, height, width = shape
    for row, column in ((0, 0), (height - 1, 0), (1, width - 2), (2, 3)):
        for attend, reach in ((only_zeros, 4 * shape[0]), (usual, x.numel())):
            given_x = x.clone().requires_grad_()
            network(given_x, noise, attend=attend)[0, 0, row, column].backward()
            assert given_x.grad is not None
            felt = given_x.grad[0] != 0
            assert int(felt.sum()) == reach
            assert felt[
                :, row // 2 * 2 : row // 2 * 2 + 2, column // 2 * 2 : column // 2 * 2 + 2
            ].all()


# Attention


def usual(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
    return scaled_dot_product_attention(query, key, value)


def only_values(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
    return value


def only_zeros(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
    return torch.zeros_like(value)


@torch.no_grad()
def test_attend_sees_every_block_by_name_with_heads_and_tokens():
    seen = {}

    def attend(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
        seen[layer] = [query.shape, key.shape, value.shape]
        return usual(query, key, value, layer)

    network = in_use((3, 8, 12))
    x, noise = batch(3, 8, 12)
    attended = network(x, noise, attend=attend)
    assert list(seen) == ["blocks.0", "blocks.1", "blocks.2"]
    assert all(shapes == [torch.Size([4, 4, 24, 8])] * 3 for shapes in seen.values())
    assert torch.equal(attended, network(x, noise))
    assert DiT().provides == {"attention", "taps"}


# Precision and tracing


@torch.no_grad()
def test_double_precision_gives_the_same_images_and_bf16_nearly():
    network = in_use(condition=SPEC)
    x, noise = batch()
    classes = torch.tensor([0, 4, 1, 2])
    plain = network(x, noise, classes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(x, noise, classes).float()
    assert (rough - plain).square().mean() < 1e-3 * plain.square().mean()
    double = network.double()(x.double(), noise.double(), classes)
    torch.testing.assert_close(double.float(), plain, rtol=1e-3, atol=1e-3)


def test_it_is_one_graph_without_python_that_depends_on_data():
    """torch.export refuses anything else."""
    network = in_use(condition=SPEC, depth=2)
    x, noise = batch()
    given_all = (x, noise, torch.tensor([0, 4, 1, 2]), torch.tensor([True, False, False, True]))
    graph = torch.export.export(network, given_all).module()
    other = (-x, noise.flip(0), given_all[2].flip(0), ~given_all[3])
    torch.testing.assert_close(graph(*other), network(*other), rtol=1e-4, atol=1e-4)


# Training


def test_it_learns_digits_better_than_a_constant_could(tmp_path: Path):
    """The best constant is the mean image, whose error is the variance of the images."""
    data, held_out = Digits().load("train"), Digits().load("test")
    process = DDPM(prediction="x0")
    settings = Train.model_validate({"steps": 120, "batch": 64, "warmup": 10, "lr": 2e-3})
    network = train(DiT(**SMALL), process, data, None, settings, Job(tmp_path))
    x0 = to_unit(held_out.images)
    constant = (x0 - x0.mean(dim=0)).square().mean()
    draw = torch.Generator().manual_seed(0)
    sigma, noise = (
        process.sigmas(torch.rand(len(x0), generator=draw)),
        torch.randn(x0.shape, generator=draw),
    )
    with torch.no_grad():
        trained, untrained = (
            NetworkDenoiser(each, process).loss(x0, sigma, noise, None, None).mean()
            for each in (network, fresh((1, 8, 8)))
        )
    assert trained < 0.9 * constant < constant < untrained


# In a recipe


class Perturbed(toys.Blurred):
    """Perturbed-attention guidance (arXiv 2403.17377) of every block."""

    name: ClassVar[str] = "perturbed"

    def worse(
        self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        return model(x, sigma, condition, attend=only_values)


def planned(*sets: str) -> Plan:
    registry = toys.registry()
    registry.add(Provider("dit"), [DiT, Perturbed])
    source = parse(toys.RECIPE, "r.yaml")
    source.set(sets)
    return plan(validate(source, registry))


def test_a_recipe_runs_with_it_and_its_attention_can_be_guided(tmp_path: Path):
    found = planned(
        "model={name: dit, depth: 2, width: 8, heads: 2}",
        "train={steps: 20, batch: 8, warmup: 1, lr: 2e-2}",
        "arms.perturbed={guidance: {name: perturbed, scale: 2}}",
    )
    Store(tmp_path).create()
    settings = Place(tmp_path, "cpu", threads=1, checkpoint_seconds=20)
    assert run_here(found, (), settings, Heard(), lambda: False) == Outcome()
    folders = [tmp_path / arm.sample for arm in found.arms.values()]
    samples = {next(folder.glob("samples-000-*")).read_bytes() for folder in folders}
    assert len(samples) == len(folders) == 4


def test_a_recipe_is_refused_if_its_images_do_not_divide_into_patches():
    with pytest.raises(RecipeError) as caught:
        planned("model={name: dit, patch: 3}")
    assert "sides are multiples of 3, and these are 4x4" in str(caught.value)


@pytest.mark.parametrize("sides", [(8, 6), (6, 8)])
def test_both_sides_have_to_divide_into_patches(sides):
    with pytest.raises(
        ValueError, match=f"sides are multiples of 4, and these are {sides[0]}x{sides[1]}"
    ):
        DiT(patch=4).build((1, *sides), None)


def test_a_network_without_conditions_takes_none():
    with pytest.raises(ValueError, match="built without conditions"):
        fresh()(*batch(), torch.tensor([0, 1, 2, 3]))


def test_a_size_stands_for_its_numbers():
    large = DiT(size="L")
    assert (large.depth, large.width, large.heads) == (24, 1024, 16)
    assert DiT.model_validate(large.model_dump()) == large
    assert DiT(size="L", width=1024) == large


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"width": 64, "heads": 5}, "width 64 is not a multiple of heads 5"),
        ({"width": 18, "heads": 3}, "width 18 is not a multiple of 4"),
        ({"size": "B", "depth": 6}, "size B has depth 12, not 6: leave out `size` or `depth`"),
        ({"size": "H"}, "'S', 'B', 'L' or 'XL'"),
        ({"patch": 0}, "greater than or equal to 1"),
    ],
)
def test_impossible_architectures_are_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        DiT(**fields)
