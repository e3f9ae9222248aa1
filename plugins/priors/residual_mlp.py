"""The network of a representation diffusion model: residual blocks on one vector (RCG, arXiv
2312.03701, section 3)."""

from __future__ import annotations

from torch import Tensor, nn

TIME = 256
"""Width of the embedded timestep."""


class ResidualMLP(nn.Module):
    """Noisy vectors (B, D) and timesteps (B,) to clean vectors (B, D). Untrained, it predicts 0."""

    def __init__(self, size: int, width: int, depth: int):
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps

        super().__init__()
        sinusoids = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = nn.Sequential(sinusoids, TimestepEmbedding(width, TIME))
        self.read = nn.Linear(size, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.write = normalised_linear(width, size, zero=True)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        sinusoids, embed = self.time
        time = embed(sinusoids(timesteps).to(x.dtype))  # (B, TIME)
        hidden = self.read(x)  # (B, width)
        for block in self.blocks:
            hidden = block(hidden, time)
        return self.write(hidden)  # (B, D)


class ResidualBlock(nn.Module):
    """Two normalised linear layers with the time between them, and a skip; at first the
    identity."""

    def __init__(self, width: int):
        super().__init__()
        self.first = normalised_linear(width, width)
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(TIME, width))
        self.second = normalised_linear(width, width, zero=True)

    def forward(self, hidden: Tensor, time: Tensor) -> Tensor:
        return hidden + self.second(self.first(hidden) + self.time(time))  # (B, width)


def normalised_linear(inputs: int, outputs: int, zero: bool = False) -> nn.Sequential:
    linear = nn.Linear(inputs, outputs)
    if zero:
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.LayerNorm(inputs), nn.SiLU(), linear)
