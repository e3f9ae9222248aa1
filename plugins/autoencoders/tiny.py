"""The tiny autoencoder TAESD, distilled from that of Stable Diffusion, as diffusers'
AutoencoderTiny."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from fw.core.kinds import Code
from fw.plugins.autoencoders.pretrained import Facts, Pretrained


class Tiny(Pretrained):
    """TAESD and its kin, some 2M weights distilled from larger autoencoders, from a local folder of
    diffusers; frozen.

    It reconstructs worse than the autoencoder that it was distilled from, but a hundred times
    faster. Its latents have about unit variance as they are; the folder's shift_factor and
    scaling_factor are applied all the same.

    Grey images are repeated to three channels, and averaged back when they are decoded.
    """

    name: ClassVar[str] = "tiny"
    architecture: ClassVar[str] = "AutoencoderTiny"

    def facts(self, config: dict[str, Any]) -> Facts:
        shrink = 2 ** (len(config.get("num_encoder_blocks", [1, 3, 3, 3])) - 1)
        return Facts(config.get("in_channels", 3), config.get("latent_channels", 4), shrink)

    def code(self, network: Any, x: Tensor) -> Code:
        return Code(
            (network.encode(x).latents - network.config.shift_factor)
            * network.config.scaling_factor
        )

    def images(self, network: Any, latents: Tensor) -> Tensor:
        return network.decode(
            latents / network.config.scaling_factor + network.config.shift_factor
        ).sample
