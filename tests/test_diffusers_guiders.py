"""CFG and PAG agree with diffusers' guiders, which work on what the network says, where those are
right.

Their perturbed attention guidance needs a second prediction in the place of the unconditional one:
without it the perturbed pass never happens. Given the condition twice, that term is zero, and what
remains is PAG.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.guided import Guided
from fw.core.diffusion.pixels import per_image
from fw.core.types import ConditionSpec
from fw.plugins.backbones.unet import UNet
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.pag import PAG
from fw.plugins.processes.ddpm import DDPM

CLASSES = torch.tensor([0, 1, 2])
SIGMAS = [0.05, 0.7, 8.0]


@pytest.fixture(scope="module")
def model() -> NetworkDenoiser:
    """A network that predicts eps, with weights that are far from its start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(channels=(8, 16), groups=4, attention=(1,), head_dim=4).build(
            (1, 8, 8), ConditionSpec("class", 3)
        )
        for weight in network.parameters():
            nn.init.normal_(weight, std=0.2)
    return NetworkDenoiser(network.eval(), DDPM(prediction="eps"))


def by_diffusers(
    guider: Any, model: NetworkDenoiser, x: Tensor, sigma: float, conditions: tuple[Tensor, Tensor]
) -> Tensor:
    """The guided x0: the guider puts together what diffusers' own network says of x at each of
    the conditions."""
    network: Any = copy.deepcopy(model.network)
    plain: Any = AttnProcessor2_0()  # the guiders know diffusers' own alone
    for layer in network.modules():
        if isinstance(layer, Attention):
            layer.set_processor(plain)
    skip, out, scale, noise = model.process.coefficients(x.new_full((len(x),), sigma))
    guider.set_state(1, 4, noise[0])
    batches = guider.prepare_inputs({"class_labels": conditions})
    for batch in batches:
        guider.prepare_models(network.unet)
        batch.noise_pred = network.unet(
            per_image(scale) * x, noise, class_labels=batch.class_labels
        ).sample
        guider.cleanup_models(network.unet)
    return per_image(skip) * x + per_image(out) * guider(batches).pred


def images(sigma: float) -> Tensor:
    return sigma * torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("scale", [0.0, 1.5, 7.5])
@torch.inference_mode()
def test_cfg_is_that_of_diffusers(model: NetworkDenoiser, sigma: float, scale: float) -> None:
    from diffusers.guiders import ClassifierFreeGuidance

    x, embed = images(sigma), model.network.get_submodule("embed")
    theirs = by_diffusers(
        ClassifierFreeGuidance(guidance_scale=scale),
        model,
        x,
        sigma,
        (embed(CLASSES, None, 3), embed(None, None, 3)),
    )
    ours = Guided(model, [CFG(scale=scale)], CLASSES, *model.process.sigma_range)(x, sigma)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("sigma", SIGMAS)
@torch.inference_mode()
def test_pag_is_that_of_diffusers(model: NetworkDenoiser, sigma: float) -> None:
    from diffusers.guiders import PerturbedAttentionGuidance
    from diffusers.hooks import LayerSkipConfig

    middle = LayerSkipConfig(
        indices=[0],
        fqn="mid_block.attentions",
        skip_attention=False,
        skip_attention_scores=True,
        skip_ff=False,
    )
    guider = PerturbedAttentionGuidance(
        guidance_scale=2.0,
        perturbed_guidance_scale=3.0,
        perturbed_guidance_start=0.0,
        perturbed_guidance_stop=1.0,
        perturbed_guidance_config=middle,
    )
    x, condition = images(sigma), model.network.get_submodule("embed")(CLASSES, None, 3)
    theirs = by_diffusers(guider, model, x, sigma, (condition, condition))
    ours = Guided(model, [PAG(scale=4.0)], CLASSES, *model.process.sigma_range)(
        x, sigma
    )  # their s is ours less 1
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))
    assert not torch.allclose(ours, model(x, sigma, CLASSES), rtol=1e-3)


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Guiders say on every use that they are experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
