"""A pretrained network with its own preprocessing, and its files, whose content enters the keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fw.core.errors import MissingFile
from fw.core.files import contents
from fw.registry import Supervision

AT_ONCE = 64
"""Images in flight: they are enlarged to the network's input size, 3 MB each at 518x518."""


class Tower(nn.Module, ABC):
    """A frozen network that embeds images after its own preprocessing."""

    def __init__(self, network: nn.Module, embedding: str):
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.embedding = embedding

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (B, 1 or 3, H, W) -> features (B, D)."""
        colour = images.expand(-1, 3, -1, -1)  # (B, 3, H, W)
        return torch.cat([self.embed(self.prepare(few)) for few in colour.split(AT_ONCE)])

    @abstractmethod
    def prepare(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> resized, cropped and normalised float32 (B, 3, h, w)."""

    @abstractmethod
    def embed(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> features (B, D)."""

    def pooled(self, tokens: Tensor, prefix: int) -> Tensor:
        """Tokens (B, prefix + patches, D), the class token first -> (B, D), or (B, 2 D) for
        `both`."""
        cls, patches = tokens[:, 0], tokens[:, prefix:].mean(dim=1)
        return {"cls": cls, "patches": patches}.get(
            self.embedding, torch.cat([cls, patches], dim=1)
        )


class Checkpoint(ABC):
    """Files that hold a pretrained network."""

    @property
    @abstractmethod
    def files(self) -> list[Path]:
        """All files whose content decides the features."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What else decides the features, as JSON."""

    @property
    @abstractmethod
    def supervision(self) -> Supervision:
        """What the weights were trained with, as far as the files' names and settings say."""

    @property
    @abstractmethod
    def patch(self) -> int:
        """The side of a patch."""

    @abstractmethod
    def check(self) -> None:
        """Raise FwError if something besides `files` is missing."""

    @abstractmethod
    def load(self, embedding: str, resolution: int | None) -> Tower:
        """The network for inputs of `resolution`, by default its own; MissingFile if the files do
        not fit it."""

    def content(self) -> dict[str, Any]:
        """The checkpoint's part in the keys, which is the same wherever the files lie."""
        return {"files": [sha256(file) for file in self.files], **self.facts}


def sha256(path: Path) -> str:
    """The sha256 of the file's content, in hex, or MissingFile; a file that has not changed is
    read once."""
    try:
        return contents.sha256(path)
    except OSError as error:
        raise MissingFile(f"{path} cannot be read: {error.strerror}") from None


def reason(error: Exception) -> str:
    """An exception of a library in a few words."""
    message = " ".join(str(error).split()) or type(error).__name__
    return message if len(message) <= 200 else f"{message[:200]}..."
