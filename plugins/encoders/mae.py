"""MAE: masked autoencoders are scalable vision learners (He et al., arXiv 2111.06377), with
lightly and timm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from fw.core.kinds.size import check_weights
from fw.core.machine.precision import autocast, lengthened
from fw.core.types import LARGEST
from fw.plugins.encoders.self_supervised import Learner, SelfSupervised
from fw.plugins.encoders.trunks import ImageEncoder
from fw.plugins.encoders.views import VIEWS, unsuited


class MAE(SelfSupervised):
    """MAE: a vision transformer sees some patches, a small decoder fills in the others (arXiv
    2111.06377).

    The features are the mean of the patch tokens of the whole image, after the last norm. They are
    good to fine-tune and poor for nearest neighbours. The defaults suit the digits; for photographs
    take patch 16, width 768, depth 12, heads 12, decoder_width 512, decoder_depth 8, mask_ratio
    0.75, lr 1.5e-4 per 256 images of a batch, weight_decay 0.05 and very many steps (800 epochs).
    """

    version: ClassVar[int] = 3
    name: ClassVar[str] = "mae"

    steps: int = Field(1200, ge=1, description="training steps; 1200 suit the digits", examples=[8])
    batch: int = Field(64, ge=2, le=1_000_000, description="images per step")
    lr: float = Field(
        3e-3, gt=0, le=LARGEST, description="AdamW's learning rate, which falls to 0 along a cosine"
    )
    patch: int = Field(4, ge=2, description="side of a patch in pixels")
    width: int = Field(
        64, ge=4, le=16384, multiple_of=4, description="dimension of the tokens and features"
    )
    depth: int = Field(2, ge=1, le=1000, description="transformer blocks of the encoder")
    heads: int = Field(8, ge=1, description="attention heads of encoder and decoder")
    decoder_width: int = Field(
        32, ge=4, le=16384, multiple_of=4, description="dimension of the decoder's tokens"
    )
    decoder_depth: int = Field(1, ge=1, le=1000, description="transformer blocks of the decoder")
    mask_ratio: float = Field(
        0.5,
        ge=1e-15,
        lt=1,
        description="share of the patches that are hidden, to the nearest number of them",
    )
    augment: Literal["none", "digits", "photos"] = Field(
        "none", description="a random view of each image, or none"
    )

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads or self.decoder_width % self.heads:
            raise ValueError(
                f"width {self.width} and decoder_width {self.decoder_width} must divide by "
                f"{self.heads} heads"
            )
        return self

    def check(self, shape: tuple[int, int, int]) -> None:
        widths = self.depth * self.width**2 + self.decoder_depth * self.decoder_width**2
        check_weights("encoder mae", 12 * widths)
        _, height, width = shape
        if height != width or height % self.patch or height < 2 * self.patch:
            raise ValueError(
                f"encoder mae: it needs squares of 2x2 or more patches of side {self.patch}, not "
                f"{height}x{width}"
            )

    def cautions(self, shape: tuple[int, int, int], images: int | None) -> Iterator[str]:
        yield from super().cautions(shape, images)
        if self.weights is None:
            yield from unsuited(self.name, self.augment, shape)

    def build(self, shape: tuple[int, int, int], classes: int) -> ImageEncoder:
        from lightly.models.modules import MaskedVisionTransformerTIMM
        from timm.models.vision_transformer import VisionTransformer

        self.check(shape)
        vit = VisionTransformer(
            img_size=shape[1],
            patch_size=self.patch,
            in_chans=shape[0],
            num_classes=0,
            global_pool="avg",
            fc_norm=False,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=self.heads,
        )
        return ImageEncoder(
            MaskedVisionTransformerTIMM(vit).vit, self.width
        )  # with MAE's initial weights

    def learner(self, network: ImageEncoder) -> Learner:
        return MaskedAutoencoder(self, network)


class MaskedAutoencoder(Learner):
    """The mean squared error on hidden patches only, whose pixels are normalised patch by patch
    (section 3), by the unbiased variance and 1e-6."""

    def __init__(self, method: MAE, network: ImageEncoder):
        from lightly.models.modules import (
            MaskedVisionTransformerDecoderTIMM,
            MaskedVisionTransformerTIMM,
        )

        super().__init__()
        self.method = method
        vit: Any = network.backbone
        self.encoder = MaskedVisionTransformerTIMM(
            vit, weight_initialization="skip", pos_embed_initialization="skip"
        )
        vit.pos_embed.requires_grad_(False)  # sines and cosines
        count = vit.patch_embed.num_patches
        self.narrow = nn.Linear(method.width, method.decoder_width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            count, method.decoder_width, method.decoder_depth, method.heads
        )
        self.pixels = nn.Linear(method.decoder_width, vit.patch_embed.proj.weight[0].numel())

    def forward(
        self, images: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        from lightly.models.utils import (
            get_at_index,
            normalize_mean_var,
            patchify,
        )

        if self.method.augment != "none":
            with autocast("fp32", images.device):
                images = VIEWS[self.method.augment](images, False, generator, self.rows)
        kept, hidden = self.masked(len(images), generator)
        visible = self.encoder.encode(2 * images - 1, idx_keep=kept)  # (B, 1 + kept, width)
        guesses = self.reconstruct(visible, kept, hidden)
        targets = normalize_mean_var(get_at_index(patchify(images, self.method.patch), hidden - 1))
        loss = mse_loss(lengthened(guesses), targets)
        return self.rows.part(loss), visible.mean(dim=1)

    def masked(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The numbers of the tokens that are kept (B, 1 + kept) and hidden (B, hidden), for
        `count` images.

        Token 0 is the class token: it is kept, and is no patch to be counted. At least one patch is
        hidden and one kept.
        """
        patches = self.encoder.sequence_length - 1
        hidden = min(max(round(self.method.mask_ratio * patches), 1), patches - 1)
        shape = self.rows.everywhere(count), patches
        draws = torch.rand(shape, generator=generator, device=generator.device)
        order = 1 + self.rows.own(draws).argsort(dim=1)
        class_token = order.new_zeros(count, 1)
        return torch.cat([class_token, order[:, hidden:]], dim=1), order[:, :hidden]

    def reconstruct(self, visible: Tensor, kept: Tensor, hidden: Tensor) -> Tensor:
        """The hidden patches (B, hidden, pixels) from the visible tokens (B, 1 + kept, width)."""
        from lightly.models.utils import get_at_index, repeat_token, set_at_index

        masked = repeat_token(self.decoder.mask_token, (len(visible), self.encoder.sequence_length))
        narrow = self.narrow(visible).to(masked.dtype)
        tokens = set_at_index(masked, kept, narrow)  # (B, 1 + patches, decoder_width)
        return self.pixels(get_at_index(self.decoder(tokens), hidden))
