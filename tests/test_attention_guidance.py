"""PAG, SEG and SAG: only the chosen layers change, as the papers say, and nothing of it stays
behind."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.guided import Guided
from fw.core.errors import StageFailed
from fw.core.kinds import Attend, Guidance, Move, Process
from fw.core.testing import check, tiny
from fw.core.types import ConditionSpec
from fw.plugins.backbones.unet import UNet
from fw.plugins.guidance.attention import token_grid
from fw.plugins.guidance.blur import blurred, gaussian
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.pag import PAG
from fw.plugins.guidance.sag import AVERAGE, SAG, attention_received
from fw.plugins.guidance.seg import SEG
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.processes.flow import Flow

few = settings(deadline=None, max_examples=20)
CLASSES = torch.tensor([0, 1, 2])
SIGMA = 0.7
MIDDLE = "mid_block.attentions.0"


def kit(dtype: torch.dtype = torch.float64) -> NetworkDenoiser:
    """The kit's network, with attention that is far from uniform."""
    model = tiny.denoiser((1, 8, 16))
    network: Any = model.network
    with torch.no_grad():
        network.mix.weight.mul_(4)
    network.to(dtype)
    return model


def unet(dtype: torch.dtype = torch.float64) -> NetworkDenoiser:
    """A U-Net with attention at 8x16 and at 4x8 pixels, which is far from uniform."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = UNet(channels=(8, 16), groups=4, attention=(0, 1), head_dim=4)
        network: Any = backbone.build((1, 8, 16), ConditionSpec("class", 3)).eval()
        with torch.no_grad():
            for name in network.attention_layers:
                network.unet.get_submodule(name).to_q.weight.normal_()
                network.unet.get_submodule(name).to_k.weight.normal_()
    return NetworkDenoiser(network.to(dtype), DDPM(prediction="v"))


def images(dtype: torch.dtype = torch.float64) -> Tensor:
    return tiny.noisy(3, SIGMA, (1, 8, 16)).to(dtype)


class Spied:
    """A model whose attention layers note what they were given and what came out."""

    def __init__(self, model: NetworkDenoiser, fail_in: str | None = None):
        self.model, self.fail_in = model, fail_in
        self.seen: dict[str, dict[str, Tensor]] = {}

    def __call__(
        self, x: Tensor, sigma: float, condition: Tensor | None = None, attend: Attend | None = None
    ) -> Tensor:
        def spy(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
            if layer == self.fail_in:
                raise RuntimeError("as planned")
            usual = scaled_dot_product_attention(query, key, value)
            mixed = attend(query, key, value, layer) if attend else usual
            self.seen[layer] = {
                "query": query,
                "key": key,
                "value": value,
                "usual": usual,
                "mixed": mixed,
            }
            return mixed

        return self.model(x, sigma, condition, spy)

    def layers(self, x: Tensor) -> tuple[str, ...]:
        return self.model.layers(x)

    def logits(self, x: Tensor, sigma: float) -> Tensor:
        raise NotImplementedError

    def steered(self, x: Tensor, sigma: float, move: Move) -> Tensor:
        raise NotImplementedError

    @property
    def changed(self) -> list[str]:
        return [
            name
            for name, seen in self.seen.items()
            if not torch.equal(seen["mixed"], seen["usual"])
        ]


class Stack(nn.Module):
    """A transformer without anything else: `count` attention layers called blocks.0, blocks.1,
    ..."""

    def __init__(self, count: int):
        super().__init__()
        self.count = count
        self.scale = nn.Parameter(torch.ones(()))

    def forward(
        self, x: Tensor, noise: Tensor, condition: object, dropped: object, attend: Attend | None
    ) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)[:, None]  # (B, 1, N, C)
        for layer in range(self.count):
            given = (tokens * self.scale, tokens, tokens * (1 + layer))
            tokens = tokens + (
                attend(*given, f"blocks.{layer}")
                if attend
                else scaled_dot_product_attention(*given)
            )
        return tokens[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])


def stack(count: int) -> NetworkDenoiser:
    return NetworkDenoiser(Stack(count).double(), tiny.TinyProcess())


def worse(
    mode: Guidance, model: NetworkDenoiser | Spied, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """The good prediction and the worse one."""
    with torch.inference_mode():
        good = model(images(dtype), SIGMA, CLASSES)
        return good, mode.worse(model, images(dtype), SIGMA, CLASSES, good)


def guided(
    modes: list[Guidance], model: NetworkDenoiser, x: Tensor, sigma: float = SIGMA
) -> Tensor:
    with torch.inference_mode():
        return Guided(model, modes, CLASSES, 0.01, 80.0)(x, sigma)


def scaled(mode: Guidance, scale: float) -> Guidance:
    return mode.model_copy(update={"scale": scale})


MODES = [PAG(), PAG(soft=0.3), SEG(), SEG(blur=0.7), SAG(), SAG(branch="unconditional")]
each_mode = pytest.mark.parametrize(
    "mode", MODES, ids=["pag", "soft pag", "seg", "seg 0.7", "sag", "sag unconditional"]
)
on_both = pytest.mark.parametrize("make", [kit, unet])


@each_mode
def test_the_contract_of_guidance_holds(mode):
    check(mode)


@each_mode
@on_both
def test_scale_one_changes_no_bit_and_another_scale_costs_what_is_stated(mode, make):
    model = make(torch.float32)
    x = images(torch.float32)
    plain = guided([], model, x)
    model.evaluations = 0
    assert torch.equal(guided([scaled(mode, 1.0)], model, x), plain)
    assert model.evaluations == 1
    assert not torch.allclose(guided([scaled(mode, 3.0)], model, x), plain, atol=1e-3)
    assert model.evaluations == 2 + mode.evaluations


@each_mode
@on_both
def test_the_prediction_is_affine_in_the_scale(mode, make):
    model = make()
    none, one, two = (guided([scaled(mode, 1 + s)], model, images()) for s in (0.0, 1.5, 3.0))
    torch.testing.assert_close(two - none, 2 * (one - none), rtol=0, atol=1e-11)


class Speaking(nn.Module):
    """What a denoiser knows at one noise level, told as eps, v, x0 or the velocity."""

    def __init__(self, model: NetworkDenoiser, predicts: str):
        super().__init__()
        self.model, self.predicts = model, predicts

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None,
        dropped: None,
        attend: Attend | None,
    ) -> Tensor:
        x = x * (1 + SIGMA if self.predicts == "velocity" else math.hypot(1, SIGMA))
        x0 = self.model(x, SIGMA, condition, attend)
        eps = (x - x0) / SIGMA
        return {
            "eps": eps,
            "x0": x0,
            "velocity": eps - x0,
            "v": (eps - SIGMA * x0) / math.hypot(1, SIGMA),
        }[self.predicts]


@each_mode
@on_both
def test_guidance_is_the_same_whatever_the_network_predicts(mode, make):
    expected = guided([scaled(mode, 2.5)], make(), images())
    processes: dict[str, Process] = {
        "eps": DDPM(prediction="eps"),
        "v": DDPM(prediction="v"),
        "x0": DDPM(prediction="x0"),
        "velocity": Flow(),
    }
    for predicts, process in processes.items():
        found = guided(
            [scaled(mode, 2.5)], NetworkDenoiser(Speaking(make(), predicts), process), images()
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


IDLE = [PAG(soft=0.0), SEG(blur=0.0), SAG(blur=0.0), SAG(blur=0.0, branch="unconditional")]


@pytest.mark.parametrize("mode", IDLE, ids=lambda mode: mode.name)
@pytest.mark.parametrize("layers", [None, ("",), (0.0, 1.0)])
@on_both
def test_a_perturbation_that_does_nothing_changes_no_bit(mode, layers, make):
    good, same = worse(
        mode.model_copy(update={"layers": layers}), make(torch.float32), torch.float32
    )
    assert torch.equal(good, same)


@pytest.mark.parametrize("branch", ["conditional", "unconditional"])
def test_uniform_attention_blurs_nothing(branch):
    model = kit()
    assert not torch.equal(*worse(SAG(branch=branch), model))
    network: Any = model.network
    with torch.no_grad():
        network.mix.weight[:8] = 0  # the rows that make queries
        network.mix.bias[:8] = 0
    assert torch.equal(*worse(SAG(branch=branch), model))


def test_with_pag_the_middle_layer_returns_its_values_and_the_others_attend_as_usual():
    spied = Spied(unet())
    worse(PAG(), spied)
    middle = spied.seen[MIDDLE]
    assert torch.equal(middle["mixed"], middle["value"])
    assert spied.changed == [MIDDLE]


@given(st.floats(0, 1))
@few
def test_soft_pag_lies_on_the_line_from_attention_to_values(soft):
    spied = Spied(kit())
    worse(PAG(soft=soft), spied)
    seen = spied.seen["middle"]
    torch.testing.assert_close(
        seen["mixed"], (1 - soft) * seen["usual"] + soft * seen["value"], rtol=0, atol=1e-12
    )


def test_pag_is_that_of_diffusers():
    """diffusers' processor takes the usual half and the perturbed half of a doubled batch."""
    from diffusers.models.attention_processor import PAGIdentitySelfAttnProcessor2_0

    class ByDiffusers(nn.Module):
        def __init__(self, part: int):
            super().__init__()
            network: Any = unet().network
            network.unet.get_submodule(MIDDLE).set_processor(PAGIdentitySelfAttnProcessor2_0())
            self.unet, self.embed, self.part = network.unet, network.embed, part

        def forward(self, x: Tensor, noise: Tensor, condition: Tensor, *_: None) -> Tensor:
            labels = self.embed(condition, None, len(x)).repeat(2, 1)
            both = self.unet(x.repeat(2, 1, 1, 1), noise.repeat(2), class_labels=labels).sample
            return both.chunk(2)[self.part]

    usual, perturbed = (NetworkDenoiser(ByDiffusers(part), DDPM(prediction="v")) for part in (0, 1))
    x = images()
    with torch.inference_mode():
        theirs, worse_of_theirs = usual(x, SIGMA, CLASSES), perturbed(x, SIGMA, CLASSES)
    expected = theirs + 3.0 * (theirs - worse_of_theirs)
    assert (worse_of_theirs - theirs).abs().max() > 0.01
    torch.testing.assert_close(guided([PAG(scale=4.0)], unet(), x), expected, rtol=0, atol=1e-9)


def filtered(values: Tensor, sigma: float, axes: tuple[int, int]) -> Tensor:
    """scipy's Gaussian filter, which calls this way to reflect `mirror`."""
    radius = [math.ceil(min(6 * sigma, values.shape[axis])) // 2 for axis in axes]
    return torch.from_numpy(
        gaussian_filter(values.numpy(), sigma, mode="mirror", radius=radius, axes=axes)
    )


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.01, 1e6))
@few
def test_the_blur_is_scipys(height, width, sigma):
    values = torch.randn(
        2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(
        blurred(values, sigma), filtered(values, sigma, (2, 3)), rtol=0, atol=1e-12
    )
    assert torch.equal(blurred(values, 0.0), values)
    assert torch.equal(blurred(values, 1e-320), values)


@pytest.mark.parametrize(
    ("size", "sigma", "width"),
    [(64, 1.0, 7), (64, 1.5, 9), (64, 2.0, 13), (8, 5.0, 9), (7, 5.0, 7), (1, 5.0, 1)],
)
def test_the_kernel_is_six_sigma_wide_made_odd_and_fits_the_image(size, sigma, width):
    peak = torch.zeros(1, 1, 4 * size + 1, 1, dtype=torch.float64)
    peak[:, :, 2 * size] = 1
    assert len(gaussian(sigma, size, peak)) == width


@pytest.mark.parametrize("blur", [0.4, 0.7, 3.0])
@pytest.mark.parametrize("layer", ["mid_block.attentions.0", "up_blocks.1.attentions.0"])
def test_seg_blurs_the_logits_of_attention_over_the_places_of_the_queries(blur, layer):
    spied = Spied(unet())
    worse(SEG(blur=blur, layers=(layer,)), spied)
    assert spied.changed == [layer]
    seen = spied.seen[layer]
    grid = {32: (4, 8), 128: (8, 16)}[seen["query"].shape[2]]
    logits = (seen["query"] @ seen["key"].mT).unflatten(2, grid)  # (B, heads, rows, columns, N)
    smooth = filtered(logits, blur, (2, 3)).flatten(2, 3) / seen["query"].shape[3] ** 0.5
    torch.testing.assert_close(
        seen["mixed"], smooth.softmax(dim=3) @ seen["value"], rtol=0, atol=1e-10
    )


@on_both
def test_with_infinite_blur_all_tokens_get_the_same_and_not_as_in_pag(make):
    spied = Spied(make())
    worse(SEG(), spied)
    [layer] = spied.changed
    seen = spied.seen[layer]
    rows = (
        seen["query"].mean(dim=2, keepdim=True) @ seen["key"].mT / seen["key"].shape[3] ** 0.5
    ).softmax(dim=3)
    torch.testing.assert_close(
        seen["mixed"], (rows @ seen["value"]).expand_as(seen["mixed"]), rtol=0, atol=1e-12
    )
    assert (seen["mixed"] - seen["value"]).abs().max() > 0.01


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 16))
@few
def test_the_grid_of_the_tokens_has_the_shape_of_the_images(rows, columns, patch):
    x = torch.empty(1, 1, rows * patch, columns * patch)
    assert token_grid(rows * columns, x, "middle") == (rows, columns)


def test_tokens_that_are_no_grid_are_refused():
    with pytest.raises(
        StageFailed, match="the 17 tokens of layer middle make no grid over images of 8x8"
    ):
        token_grid(17, torch.empty(1, 1, 8, 8), "middle")


@given(st.integers(1, 3), st.integers(1, 60), st.floats(0.01, 10), st.integers(0, 9))
@few
def test_a_token_is_attended_to_once_on_average(heads, tokens, spread, seed):
    draw = torch.Generator().manual_seed(seed)
    query, key = (spread * torch.randn(2, heads, tokens, 4, generator=draw) for _ in range(2))
    received = attention_received(query, key)
    maps = (query @ key.mT / 2).softmax(dim=3)
    torch.testing.assert_close(received, maps.mean(dim=1).sum(dim=1), rtol=0, atol=1e-4)
    torch.testing.assert_close(received.mean(dim=1), torch.ones(2), rtol=0, atol=1e-5)


def test_no_token_of_uniform_attention_gets_more_than_average_whatever_their_number():
    for tokens in range(1, 150):
        query, key = torch.zeros(1, 3, tokens, 4), torch.randn(1, 3, tokens, 4)
        assert not (attention_received(query, key) > AVERAGE).any(), tokens


def by_the_paper(
    model: NetworkDenoiser, x: Tensor, condition: Tensor | None, mode: SAG, layers: list[str]
) -> tuple[Tensor, Tensor]:
    """eps and eps_bar as SAG's paper makes them: in eps-space, from images that are scaled down
    as DDPM's are."""
    signal, noise = (
        1 / math.hypot(1, SIGMA),
        SIGMA / math.hypot(1, SIGMA),
    )  # sqrt(alpha_bar), sqrt(1 - alpha_bar)

    def eps_of(x_t: Tensor, asked: NetworkDenoiser | Spied) -> Tensor:
        with torch.inference_mode():
            return (x_t - signal * asked(x_t / signal, SIGMA, condition)) / noise

    spied, x_t = Spied(model), signal * x
    eps = eps_of(x_t, spied)
    x0 = (x_t - noise * eps) / signal
    received = []
    for layer in layers:
        seen = spied.seen[layer]
        maps = torch.softmax(seen["query"] @ seen["key"].mT / seen["key"].shape[3] ** 0.5, dim=3)
        grid = {32: (4, 8), 128: (8, 16)}[maps.shape[3]]
        received.append(interpolate(maps.mean(dim=1).sum(dim=1).unflatten(1, (1, *grid)), (8, 16)))
    mask = (torch.stack(received).mean(dim=0) > 1).double()
    assert 0.1 < mask.mean() < 0.9
    degraded = mask * filtered(x0, mode.blur, (2, 3)) + (1 - mask) * x0
    return eps, eps_of(signal * degraded + noise * eps, model)


def in_x0(eps: Tensor, x: Tensor) -> Tensor:
    return x - SIGMA * eps


@pytest.mark.parametrize("chosen", [None, ("mid", "up_blocks.1")])
@pytest.mark.parametrize("s", [0.3, 1.0])
def test_sag_is_the_papers_formula_in_eps_space(s, chosen):
    model, x, mode = unet(), images(), SAG(scale=1 + s, blur=1.3, layers=chosen)
    layers = (
        [MIDDLE]
        if chosen is None
        else [MIDDLE, "up_blocks.1.attentions.0", "up_blocks.1.attentions.1"]
    )
    eps, eps_bar = by_the_paper(model, x, CLASSES, mode, layers)
    assert (eps - eps_bar).abs().max() > 0.01
    torch.testing.assert_close(
        guided([mode], model, x), in_x0(eps + s * (eps - eps_bar), x), rtol=0, atol=1e-10
    )


def test_beside_cfg_sag_compares_unconditional_predictions():
    """eps_u + w (eps_c - eps_u) + s (eps_u - eps_bar_u), eq. 25 of the paper."""
    model, x, w, s = unet(), images(), 2.5, 0.6
    mode = SAG(scale=1 + s, branch="unconditional")
    eps_u, eps_bar_u = by_the_paper(model, x, None, mode, [MIDDLE])
    eps_c, _ = by_the_paper(model, x, CLASSES, mode, [MIDDLE])
    assert (eps_c - eps_u).abs().max() > 0.01
    expected = in_x0(eps_u + w * (eps_c - eps_u) + s * (eps_u - eps_bar_u), x)
    torch.testing.assert_close(guided([CFG(scale=w), mode], model, x), expected, rtol=0, atol=1e-10)


@each_mode
def test_nothing_stays_behind_also_when_the_network_raises(mode):
    model = unet(torch.float32)
    network: Any = model.network
    processors = [network.unet.get_submodule(name).processor for name in network.attention_layers]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(RuntimeError, match="as planned"):
        worse(mode, Spied(model, fail_in="up_blocks.1.attentions.1"), torch.float32)
    broken = Spied(model)
    good, first = worse(mode, broken, torch.float32)
    broken.fail_in = "up_blocks.1.attentions.1"
    with pytest.raises(RuntimeError, match="as planned"):
        worse(mode, broken, torch.float32)
    broken.fail_in = None
    again, second = worse(mode, broken, torch.float32)
    assert torch.equal(good, again)
    assert torch.equal(first, second)
    assert [
        network.unet.get_submodule(name).processor for name in network.attention_layers
    ] == processors
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in network.modules()
    )


@each_mode
def test_a_network_without_attention_is_an_error(mode):
    with pytest.raises(
        StageFailed, match=f"guidance {mode.name}: the network has no layer that mixes tokens"
    ):
        worse(mode, stack(0))


@each_mode
def test_names_that_fit_no_layer_are_an_error_that_tells_the_layers(mode):
    lost = mode.model_copy(update={"layers": ("midle", "encoder")})
    model = unet()
    for _ in range(2):
        with pytest.raises(
            StageFailed,
            match=r"no attention layer has 'midle' or 'encoder' in its name; .* mid_block",
        ):
            worse(lost, model)


def changed_by(layers: Any, count: int) -> list[int]:
    spied = Spied(stack(count))
    worse(PAG(layers=layers), spied)
    return [int(name.removeprefix("blocks.")) for name in spied.changed]


@pytest.mark.parametrize(
    ("count", "layers", "expected"),
    [
        (1, None, [0]),
        (2, None, [0, 1]),
        (4, None, [1, 2]),
        (5, None, [2]),
        (10, None, [4, 5]),
        (12, None, [4, 5, 6, 7]),
        (12, (0.5, 1.0), [6, 7, 8, 9, 10, 11]),
        (12, (0.0, 0.05), [0]),
        (4, (0.0, 1.0), [0, 1, 2, 3]),
        (12, ("blocks.3", "blocks.11"), [3, 11]),
        (12, ("blocks.1",), [1]),
        (12, ("block",), list(range(12))),
    ],
)
def test_layers_are_chosen_by_name_or_by_depth(count, layers, expected):
    assert changed_by(layers, count) == expected


@given(st.integers(1, 30), st.floats(0, 1), st.floats(0, 1))
@few
def test_every_stretch_of_the_depth_has_a_layer_and_stretches_that_meet_leave_none_out(
    count, one, other
):
    low, high = sorted((one, other))
    stretches = [(a, b) for a, b in ((0.0, low), (low, high), (high, 1.0)) if a < b]
    chosen = [
        PAG(layers=stretch)._chosen([str(layer) for layer in range(count)]) for stretch in stretches
    ]
    assert all(chosen)
    assert set().union(*chosen) == {str(layer) for layer in range(count)}


@pytest.mark.parametrize("layers", [None, (0.4, 0.6)])
@pytest.mark.parametrize("kind", [PAG, SEG, SAG])
def test_choosing_by_depth_costs_what_is_stated_and_is_choosing_the_same_layers_by_name(
    layers, kind
):
    model, mode = stack(4), kind(layers=layers)
    before = model.evaluations
    by_depth = worse(mode, model)[1]
    assert model.evaluations - before - 1 == kind.evaluations
    assert torch.equal(worse(kind(layers=("blocks.1", "blocks.2")), model)[1], by_depth)


@each_mode
def test_the_middle_is_the_default(mode):
    model = unet()
    assert torch.equal(
        worse(mode, model)[1], worse(mode.model_copy(update={"layers": (MIDDLE,)}), model)[1]
    )
    other = worse(mode.model_copy(update={"layers": ("down_blocks.1",)}), model)[1]
    assert not torch.allclose(worse(mode, model)[1], other, atol=1e-4)


@each_mode
def test_in_bf16_predictions_stay_float32_and_near_those_of_float32(mode):
    model = kit(torch.float32)
    good, exact = worse(mode, model, torch.float32)
    model.bf16 = True
    _, rough = worse(mode, model, torch.float32)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().mean() < 0.2 * (exact - good).abs().mean()


@each_mode
def test_in_bf16_a_network_may_give_float32_queries_keys_and_values(mode):
    model = NetworkDenoiser(Stack(2), tiny.TinyProcess(), bf16=True)
    assert worse(mode, model, torch.float32)[1].isfinite().all()


def test_what_guidance_through_attention_needs_is_said_in_capabilities():
    for mode in (PAG(), SEG(), SAG()):
        assert mode.requires == {"attention"}
    assert SAG(branch="unconditional").requires == {"attention", "conditions", "null"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": []}, "an empty list chooses no layer"),
        ({"layers": [0.6, 0.4]}, "0 <= lo < hi <= 1"),
        ({"layers": [0.5, 1.5]}, "0 <= lo < hi <= 1"),
        ({"layers": "mid"}, "valid tuple"),
        ({"soft": 1.5}, "less than or equal to 1"),
    ],
)
def test_choices_that_mean_nothing_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        PAG.model_validate(fields)
