"""A folder in the format of Hugging Face's transformers: config.json, weights and the image
processor's settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fw.core.errors import FwError, MissingFile
from fw.plugins.encoders.checkpoint import Checkpoint, Tower, reason
from fw.plugins.shared.saved import Saved
from fw.registry import CAPTIONS, NOTHING, UNKNOWN, Supervision

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TRAINED_WITH = {
    **dict.fromkeys(("dinov2", "dinov2_with_registers", "dinov3_vit"), NOTHING),
    **dict.fromkeys(("clip", "clip_vision_model"), CAPTIONS),
}
"""By `model_type`."""
PROCESSOR = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class TransformersCheckpoint(Checkpoint):
    """`weights` and `processor` are in the folder; `config` is what its config.json says."""

    folder: Path
    config: dict[str, Any]
    weights: Saved
    processor: Path

    @property
    def files(self) -> list[Path]:
        return [self.folder / CONFIG, self.processor, *self.weights.files]

    @property
    def facts(self) -> dict[str, Any]:
        return {}

    @property
    def supervision(self) -> Supervision:
        """That of the type of model. One that was saved for a task, such as
        Dinov2ForImageClassification, may have been trained further."""
        architectures = self.config.get("architectures")
        saved_as = (
            str(architectures[0]) if architectures and isinstance(architectures, list) else ""
        )
        if "For" in saved_as:
            return Supervision("unknown", remark=f"{self.folder} was saved as {saved_as}")
        return TRAINED_WITH.get(self.config["model_type"], UNKNOWN)

    @property
    def patch(self) -> int:
        return self.config.get("vision_config", self.config).get("patch_size", 1)

    def check(self) -> None:
        if find_spec("transformers") is None:
            raise FwError(
                f"{self.folder} is a folder of the package transformers, which is not installed: "
                "pip install 'fw[pretrained]'"
            )
        self.weights.check()

    def load(self, embedding: str, resolution: int | None) -> Tower:
        self.check()
        from transformers import (
            AutoImageProcessor,
            AutoModel,
            CLIPVisionModel,
            CLIPVisionModelWithProjection,
        )

        classes: dict[str, Any] = {
            "projected": CLIPVisionModelWithProjection,
            "pooled": CLIPVisionModel,
        }
        offline: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        options: dict[str, Any] = {
            "output_loading_info": True,
            "ignore_mismatched_sizes": True,
        }  # reported below
        if embedding == "projected" and "projection_dim" in self.config:
            options["projection_dim"] = self.config[
                "projection_dim"
            ]  # the image tower's own part of it may differ
        try:
            with quiet(), self.weights.standard_folder(CONFIG) as standard:
                processor = AutoImageProcessor.from_pretrained(self.folder, **offline)
                network, loading_info = classes.get(embedding, AutoModel).from_pretrained(
                    standard, dtype=torch.float32, **options, **offline
                )
        except Exception as error:  # a damaged folder makes it raise nearly anything
            raise MissingFile(
                f"{self.folder} cannot be loaded by transformers: {reason(error)}"
            ) from error
        self.weights.check_loaded(network)
        if lacking := sorted(
            [*loading_info["missing_keys"], *(name for name, *_ in loading_info["mismatched_keys"])]
        ):
            raise MissingFile(
                f"{self.weights.first} lacks weights that fit the network in config.json, such as "
                f"{lacking[0]}"
                + (
                    "; if it has no projection, take `embedding: pooled`"
                    if embedding == "projected"
                    else ""
                )
            )
        return TransformersTower(network, embedding, processor, resolution)


class TransformersTower(Tower):
    """The folder's own image processor, on the images' device."""

    def __init__(self, network: nn.Module, embedding: str, processor: Any, resolution: int | None):
        super().__init__(network, embedding)
        self.processor = processor
        self.sizes = {} if resolution is None else sizes(processor, resolution)

    def prepare(self, images: Tensor) -> Tensor:
        return self.processor(
            images, return_tensors="pt", input_data_format="channels_first", **self.sizes
        ).pixel_values

    def embed(self, pixels: Tensor) -> Tensor:
        if self.embedding == "projected":
            return self.network(pixels, interpolate_pos_encoding=True).image_embeds
        if self.embedding == "pooled":
            return self.network(pixels, interpolate_pos_encoding=True).pooler_output
        tokens = self.network(
            pixels
        ).last_hidden_state  # (B, 1 + registers + patches, D), normalised
        return self.pooled(tokens, 1 + getattr(self.network.config, "num_register_tokens", 0))


def sizes(processor: Any, resolution: int) -> dict[str, dict[str, int]]:
    """The processor's sizes, enlarged or shrunk together so that its images come out at
    `resolution`."""
    size = {name: side for name, side in dict(processor.size).items() if side}
    cropped = dict(processor.crop_size) if processor.do_center_crop else size
    share = resolution / (cropped.get("height") or min(size.values()))
    scaled = {"size": {name: round(side * share) for name, side in size.items()}}
    if processor.do_center_crop:
        scaled["crop_size"] = {"height": resolution, "width": resolution}
    return scaled


@contextmanager
def quiet() -> Iterator[None]:
    """Without a progress bar, and without a table of the weights that were left out (CLIP's text
    tower)."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
