"""The autoencoder of latent diffusion (Rombach et al., arXiv 2112.10752), as diffusers'
AutoencoderKL."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from fw.core.kinds import Code
from fw.core.machine.transfer import constant
from fw.plugins.autoencoders.pretrained import Facts, Pretrained


class KL(Pretrained):
    """The KL-regularised autoencoder of latent diffusion (arXiv 2112.10752), from a local folder of
    diffusers; frozen.

    Latents are brought to about unit variance with the folder's own numbers: (z - shift_factor) *
    scaling_factor, or (z - latents_mean) / latents_std * scaling_factor where it has these. Stable
    Diffusion's latents have 4 channels, and 16 in version 3.

    Grey images are repeated to three channels, and averaged back when they are decoded.
    """

    name: ClassVar[str] = "kl"
    architecture: ClassVar[str] = "AutoencoderKL"

    posterior: Literal["mean", "sample"] = Field(
        "mean",
        description=(
            "train on the posterior's mean, or on a sample of it that is drawn afresh at each step"
        ),
    )

    def facts(self, config: dict[str, Any]) -> Facts:
        shrink = 2 ** (len(config.get("block_out_channels", [64])) - 1)
        return Facts(config.get("in_channels", 3), config.get("latent_channels", 4), shrink)

    def code(self, network: Any, x: Tensor) -> Code:
        posterior = network.encode(x).latent_dist
        shift, scale = normalisation(network.config, x.device)
        std = posterior.std * scale if self.posterior == "sample" else None
        return Code((posterior.mean - shift) * scale, std)

    def images(self, network: Any, latents: Tensor) -> Tensor:
        shift, scale = normalisation(network.config, latents.device)
        return network.decode(latents / scale + shift).sample


def normalisation(config: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Shift and scale, (1, C or 1, 1, 1): the diffused latents are (z - shift) * scale."""
    mean, std = config.latents_mean, config.latents_std
    if mean is None or std is None:
        mean, std = [config.shift_factor or 0.0], [1.0]
    shift, spread = (constant(tuple(each), device).view(1, -1, 1, 1) for each in (mean, std))
    return shift, config.scaling_factor / spread
