"""Folders as diffusers' save_pretrained writes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fw.core.errors import MissingFile
from fw.registry import Component

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


def from_folder(component: Component, architecture: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """diffusers' network of this class, in float32, and what it says of missing and unexpected keys.

    Nothing is downloaded. MissingFile, in the name of the component, if the folder cannot be loaded.
    """
    import diffusers

    try:
        with quiet():
            return getattr(diffusers, architecture).from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                torch_dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # a damaged file or other shapes: a dozen classes
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise MissingFile(f"{component.kind} {component.name}: {folder} cannot be loaded: {reason}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without diffusers' remarks on settings that it wrote itself."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
