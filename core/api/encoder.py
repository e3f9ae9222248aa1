"""The fitted encoder whose features an arm's conditions are made of, for torch code."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from fw.core.diffusion.generate import reading_size
from fw.core.errors import FwError
from fw.core.kinds.boundaries import finite_features
from fw.core.stages.encode import Encode


class FeatureEncoder(nn.Module):
    """uint8 images (N, C, H, W) in 0..255 -> float32 features (N, D), batch by batch, without
    gradients. `.to("cuda")` moves it, as any module."""

    def __init__(self, stage: Encode, network: nn.Module):
        super().__init__()
        self.network = network.requires_grad_(False)
        self.component = stage.encoder
        """As the recipe names it."""
        self.shape = stage.dataset.shape
        """(C, H, W) of the images."""
        self._stage = stage

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.shape:
            raise FwError(
                f"images: they are {images.dtype} {tuple(images.shape)}, and the encoder takes "
                f"uint8 (N, *{self.shape})"
            )
        device = self.device
        batches = images.split(reading_size(self.shape, device))
        features = (self._stage.read_few(self.network, batch, device) for batch in batches)
        return torch.cat([finite_features(self.component, each.clone()) for each in features])

    @property
    def device(self) -> torch.device:
        tensors = itertools.chain(self.network.parameters(), self.network.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))
