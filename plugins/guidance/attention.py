"""Guidance through attention: choosing layers, and evaluating the network with them changed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

import torch
from pydantic import Field, field_validator
from torch import Tensor

from fw.core.errors import StageFailed
from fw.core.kinds import Attend, Changed, Denoiser, Guidance

Layers = tuple[str, ...] | tuple[float, float]

MIDDLE = ("mid",)
HALFWAY = (0.4, 0.6)


class AttentionGuidance(Guidance):
    """Guidance by a network in which chosen layers mix their tokens in another way.

    `layers` are parts of layer names (`[mid]`, `[blocks.2, blocks.3]`) or two fractions of the
    depth (`[0.4, 0.6]`; all layers are `[0, 1]`). Layer i of n, in the order in which they are
    called, spans i / n to (i + 1) / n, and is chosen if it lies partly between the two. By default
    the layers with `mid` in their name are chosen, as in the papers' U-Nets; if there are none,
    those at 40 to 60 % of the depth.
    """

    layers: Layers | None = Field(
        None,
        description=(
            "parts of layer names, or two fractions of the depth; null is `mid`, else [0.4, 0.6]"
        ),
    )

    @field_validator("layers")
    @classmethod
    def _something(cls, layers: Layers | None) -> Layers | None:
        if layers is not None and not layers:
            raise ValueError(
                "an empty list chooses no layer: leave `layers` out, or name parts of layer names"
            )
        match fractions(layers):
            case [low, high] if not 0 <= low < high <= 1:
                raise ValueError(
                    f"fractions of the depth are [lo, hi] with 0 <= lo < hi <= 1, not {[low, high]}"
                )
        return layers

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"attention"})

    @property
    def on_a_grid(self) -> bool:
        """Whether the tokens of the chosen layers have to lie on a grid over the image."""
        return False

    def check_layers(
        self, called: Callable[[], Mapping[str, int]], shape: tuple[int, int, int]
    ) -> None:
        by_name = any(isinstance(part, str) for part in self.layers or ())
        if not (by_name or self.on_a_grid) or not (tokens := called()):
            return  # fractions of the depth are there in any network with attention
        try:
            for layer in self._chosen(list(tokens)):
                if self.on_a_grid:
                    token_grid(tokens[layer], torch.empty(1, *shape, device="meta"), layer)
        except StageFailed as error:
            raise ValueError(str(error)) from None

    def changes(self, called: Sequence[str]) -> list[str]:
        return self._chosen(called)

    def changed(
        self, model: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, mix: Attend
    ) -> Tensor:
        """D(x; sigma, condition) of the network in which the chosen layers mix tokens by `mix`."""
        return model(x, sigma, condition, Changed(self._chosen(model.layers(x)), mix))

    def _chosen_by_name(self, layer: str) -> bool:
        """Whether its name alone chooses a layer."""
        parts = MIDDLE if self.layers is None else self.layers
        return any(holds(layer, part) for part in parts if isinstance(part, str))

    def _chosen(self, called: Sequence[str]) -> list[str]:
        """The layers to change, out of all in the order of calls; StageFailed without any."""
        chosen = [layer for layer in called if self._chosen_by_name(layer)]
        if chosen:
            return chosen
        if not called:
            raise StageFailed(
                f"guidance {self.name}: the network has no layer that mixes tokens through `attend`"
            )
        match fractions(HALFWAY if self.layers is None else self.layers):
            case [low, high]:
                count = len(called)
                return [
                    layer
                    for i, layer in enumerate(called)
                    if i / count < high and (i + 1) / count > low
                ]
        names = " or ".join(f"'{part}'" for part in self.layers or ())
        raise StageFailed(
            f"guidance {self.name}: no attention layer has {names} in its name; the network has "
            f"{', '.join(called)}"
        )


def holds(layer: str, part: str) -> bool:
    """Whether a word of the name begins with the part. A number at its end is a whole one:
    `blocks.2` is not in `blocks.20`."""
    end = r"(?!\d)" if part[-1:].isdigit() else ""
    return re.search(rf"(?<![^._]){re.escape(part)}{end}", layer) is not None


def fractions(layers: Layers | None) -> list[float]:
    """The two fractions of the depth, if that is how layers are chosen."""
    return [part for part in layers or () if isinstance(part, float)]


def token_grid(tokens: int, x: Tensor, layer: str) -> tuple[int, int]:
    """Rows and columns of a layer's tokens, which cover images x (B, C, H, W) row by row, like
    larger pixels."""
    height, width = x.shape[2:]
    stride = math.sqrt(height * width / tokens)
    rows, columns = round(height / stride), round(width / stride)
    if rows * columns != tokens:
        raise StageFailed(
            f"the {tokens} tokens of layer {layer} make no grid over images of {height}x{width}"
        )
    return rows, columns
