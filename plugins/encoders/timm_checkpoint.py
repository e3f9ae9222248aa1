"""A vision transformer in timm's format: a state dict of a model that timm knows by name, or a
folder of the hub."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fw.core.errors import MissingFile
from fw.core.files.weights import check_finite, report_wrappers, unwrapped
from fw.plugins.encoders.checkpoint import Checkpoint, Tower, reason
from fw.plugins.encoders.timm_tags import supervision_of
from fw.plugins.shared.saved import names
from fw.registry import NOTHING, Supervision

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class TimmCheckpoint(Checkpoint):
    """`name` is timm's; `config` and `arguments` are those of a folder's config.json, by default
    timm's own. `tag` is what timm calls the weights; without one, nobody says what they are."""

    name: str
    weights: Path
    config: dict[str, Any] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    tag: str = ""

    @property
    def files(self) -> list[Path]:
        return [self.weights]

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "architecture": self.name.partition(".")[0],
            "arguments": self.arguments,
            "preprocessing": self.preprocessing(None),
        }

    @property
    def supervision(self) -> Supervision:
        """That of the tag, which a model keeps when it is trained further. One with a classifier,
        where the tag's has none, may have learned its labels."""
        known = supervision_of(f"{self.name.partition('.')[0]}.{self.tag}")
        classes = (self.config or {}).get("num_classes") or self.arguments.get("num_classes")
        if known == NOTHING and classes:
            remark = f"{self.weights.parent} was saved with a classifier of {classes} classes"
            return Supervision("unknown", remark=remark)
        return known

    @property
    def patch(self) -> int:
        return self.arguments.get("patch_size") or patch_in(self.name)

    def check(self) -> None:
        if (mode := self.preprocessing(None)["crop_mode"]) not in ("center", "squash"):
            raise MissingFile(
                f"{self.weights} wants its images cropped in the way '{mode}', which fw does not "
                "know"
            )

    def preprocessing(self, resolution: int | None) -> dict[str, Any]:
        """input_size, interpolation, mean, std, crop_pct and crop_mode."""
        from timm.data import resolve_data_config

        own = timm_config(self.name)
        config = self.config or (own.to_dict() if own else {})
        size = resolution or self.arguments.get("img_size")
        sides = [size, size] if isinstance(size, int) else size
        return resolve_data_config(
            {"input_size": (3, *sides)} if sides else {}, pretrained_cfg=config
        )

    def source(self) -> dict[str, Any]:
        """The source of weights for timm, so that it looks nowhere else: the file, or its tensors
        if their names have a wrapper. timm takes wrappers off the beginning of names only."""
        from timm.models import load_state_dict

        if not (
            wrapped := {
                old: new for old, new in unwrapped(names(self.weights)).items() if old != new
            }
        ):
            return {"file": str(self.weights)}
        report_wrappers(wrapped, self.weights)
        tensors = load_state_dict(str(self.weights))
        plain = unwrapped(tensors)
        return {"state_dict": {plain[name]: tensor for name, tensor in tensors.items()}}

    def load(self, embedding: str, resolution: int | None) -> Tower:
        import timm

        sized = {} if resolution is None else {"img_size": resolution}
        try:
            network = timm.create_model(
                self.name,
                pretrained=True,
                pretrained_cfg=self.config,
                pretrained_cfg_overlay=self.source(),
                **{**self.arguments, "global_pool": "token", **sized},
            )
        except Exception as error:  # a damaged or a wrong file makes timm raise nearly anything
            raise MissingFile(
                f"{self.weights} does not hold weights of timm's {self.name}, if that is meant: "
                f"{reason(error)}"
            ) from error
        check_finite(network, network.state_dict(), self.weights)
        if embedding == "projected" and not isinstance(network.head, nn.Linear):
            raise MissingFile(
                f"{self.weights} has no projection to the joint space: take `embedding: pooled`"
            )
        return TimmTower(network, embedding, self.preprocessing(resolution))


def timm_config(name: str) -> Any:
    """timm's settings of a model and its weights, or None if timm has no such model or tag."""
    from timm.models import get_pretrained_cfg

    try:
        return get_pretrained_cfg(name)
    except RuntimeError:
        return None


def patch_in(name: str) -> int:
    """The patch size that timm writes into a model's name."""
    match = re.search(r"patch(\d+)", name)
    return int(match[1]) if match else 1


class TimmTower(Tower):
    """timm's evaluation transform on the images' device: 8-bit resize, centre crop, mean and
    standard deviation."""

    def __init__(self, network: nn.Module, embedding: str, config: dict[str, Any]):
        from timm.data.transforms import str_to_interp_mode

        super().__init__(network, embedding)
        self.side = list(config["input_size"][1:])
        larger = [math.floor(side / config["crop_pct"]) for side in self.side]
        self.larger = (
            larger if config["crop_mode"] == "squash" else [min(larger)]
        )  # one number is the shorter side
        self.interpolation = str_to_interp_mode(config["interpolation"])
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(config["mean"])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config["std"])[:, None, None], persistent=False)

    def prepare(self, images: Tensor) -> Tensor:
        from torchvision.transforms.v2.functional import center_crop, resize

        enlarged = resize(images, self.larger, self.interpolation, antialias=True)
        return (center_crop(enlarged, self.side) / 255 - self.mean) / self.std

    def embed(self, pixels: Tensor) -> Tensor:
        network: Any = self.network
        tokens = network.forward_features(pixels)  # (B, prefix + patches, D), normalised
        if self.embedding in ("projected", "pooled"):
            return network.forward_head(tokens, pre_logits=self.embedding == "pooled")
        return self.pooled(tokens, network.num_prefix_tokens)
