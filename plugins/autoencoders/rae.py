"""Representation autoencoders (Zheng et al., arXiv 2510.11690), as diffusers' AutoencoderRAE."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from fw.core.errors import FwError
from fw.core.kinds import Code
from fw.plugins.autoencoders.pretrained import Facts, Pretrained


class RAE(Pretrained):
    """The patch tokens of a frozen encoder (DINOv2, SigLIP 2 or MAE) as latents, with a trained
    decoder (arXiv 2510.11690), from a local folder of diffusers; frozen.

    The latents are wide: 16x16x768 for a 256x256 image, 0.8 MB, four times the size of its pixels.
    The paper finds that a model needs a width of at least `channels`, noise levels shifted towards
    more noise, and autoguidance rather than cfg. Images must have the one size that it decodes to.

    Grey images are repeated to three channels, and averaged back when they are decoded.
    """

    name: ClassVar[str] = "rae"
    architecture: ClassVar[str] = "AutoencoderRAE"

    channels: int = Field(
        768, ge=1, le=65536, description="width of a token, which the folder must agree with"
    )
    shrink: int = Field(
        16, ge=1, le=1024, description="side of the square that a token is decoded to, likewise"
    )

    def facts(self, config: dict[str, Any]) -> Facts:
        shrink = config.get("patch_size", 16)
        tokens = config.get("encoder_input_size", 224) // config.get("encoder_patch_size", 14)
        return Facts(
            config.get("num_channels", 3),
            config.get("encoder_hidden_size", 768),
            shrink,
            tokens * shrink,
        )

    def preflight(self) -> None:
        super().preflight()
        if find_spec("transformers") is None:
            raise FwError(
                f"autoencoder {self.name} needs the package transformers, which is not installed: "
                "pip install 'fw[pretrained]'"
            )

    def code(self, network: Any, x: Tensor) -> Code:
        return Code(network.encode((x + 1) / 2).latent)

    def images(self, network: Any, latents: Tensor) -> Tensor:
        return 2 * network.decode(latents).sample - 1
