"""Images as a timm model wants them: three channels, its own size, its own mean and standard
deviation."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

AT_ONCE = 32
"""Images in flight: a small ResNet at 224x224 then needs a few hundred MB."""


class Prepared(nn.Module):
    """A timm model behind its own preprocessing, apart from timm's centre crop."""

    def __init__(self, network: nn.Module):
        super().__init__()
        from timm.data import resolve_model_data_config

        config = resolve_model_data_config(network)
        self.network = network
        self.size = config["input_size"][1:]
        self.mode = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(config["mean"])[:, None, None])
        self.register_buffer("std", torch.tensor(config["std"])[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (B, 1 or 3, H, W) -> features (B, D)."""
        return torch.cat([self.network(self.prepared(few)) for few in images.split(AT_ONCE)])

    def prepared(self, images: Tensor) -> Tensor:
        resized = interpolate(images / 255, self.size, mode=self.mode, antialias=True).clamp(0, 1)
        return (resized.expand(-1, 3, -1, -1) - self.mean) / self.std  # (B, 3, h, w)
