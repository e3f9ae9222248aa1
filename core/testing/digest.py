"""Tensors as one plain value, which another process can send back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def digest(tensors: Iterable[Tensor | None]) -> str:
    """The sha256 of the tensors' types, shapes and bits; None differs from an empty tensor."""
    sha256 = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            sha256.update(b"none")
        else:
            sha256.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            sha256.update(
                tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes()
            )
    return sha256.hexdigest()
