"""Tensors that are made piece by piece and need not fit into memory: large ones lie in a file
without a name, which is mapped and gone with the process; and safetensors files put together from
others."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

HELD = 2**26
"""Bytes that are held in memory; a file is made for more."""

COPIED = 2**22
"""Bytes that are copied from file to file at once."""


def stacked(pieces: Iterable[Tensor], folder: Path) -> Tensor:
    """The pieces (n, ...), laid end to end: one tensor (N, ...) on the CPU. A large one is mapped
    from a file on the disk of this folder."""
    held: list[Tensor] = []
    remaining, size = iter(pieces), 0
    for piece in remaining:
        held.append(piece)
        size += piece.nbytes
        if size > HELD:
            return _on_disk(held, remaining, folder)
    return torch.cat(held).contiguous()


def _on_disk(held: list[Tensor], remaining: Iterable[Tensor], folder: Path) -> Tensor:
    first, count = held[0], 0
    with tempfile.TemporaryFile(dir=folder) as file:
        for pieces in (held, remaining):
            for piece in pieces:
                file.write(piece.cpu().contiguous().numpy().data)
                count += len(piece)
            held.clear()
        file.flush()
        shape = (count, *first.shape[1:])
        # A private map: writing into it is safe, and changes a copy of the pages in memory.
        numbers = np.memmap(file, mode="c", dtype=first.cpu().numpy().dtype, shape=shape)
    return torch.from_numpy(numbers)


def scratch(shape: Sequence[int], like: Tensor, folder: Path) -> Tensor:
    """Numbers of any value to be written into, of the type and device of `like`; large ones on the
    CPU lie in a file on the disk of this folder."""
    size = math.prod(shape) * like.element_size()
    if size <= HELD or like.device.type != "cpu":
        return like.new_empty(tuple(shape))
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(size)
        numbers = np.memmap(file, mode="r+", dtype=like[:0].numpy().dtype, shape=tuple(shape))
    return torch.from_numpy(numbers)


def join(pieces: Mapping[str, Sequence[Path]], path: Path) -> None:
    """Write the file that `save_file` would write of tensors (N, ...) whose rows lie in other
    files, each of one tensor (n, ...) alone. Nothing is held in memory."""
    header, start = {}, 0
    for name in sorted(pieces):
        shapes, dtypes = zip(*map(form, pieces[name]), strict=True)
        if len({(dtype, *shape[1:]) for shape, dtype in zip(shapes, dtypes, strict=True)}) > 1:
            raise ValueError(f"pieces of {name} are of different forms: {shapes}, {dtypes}")
        stop = start + sum(each.stat().st_size - body(each) for each in pieces[name])
        shape = [sum(shape[0] for shape in shapes), *shapes[0][1:]]
        header[name] = {"dtype": dtypes[0], "shape": shape, "data_offsets": [start, stop]}
        start = stop
    words = json.dumps(header, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    with path.open("wb") as whole:
        whole.write(len(words).to_bytes(8, "little") + words)
        for name in sorted(pieces):
            for each in pieces[name]:
                with each.open("rb") as piece:
                    piece.seek(body(each))
                    shutil.copyfileobj(piece, whole, COPIED)


def form(path: Path) -> tuple[list[int], str]:
    """Shape and dtype of the only tensor in a safetensors file."""
    with safe_open(path, "pt") as file:
        [name] = file.keys()
        tensor = file.get_slice(name)
        return tensor.get_shape(), tensor.get_dtype()


def body(path: Path) -> int:
    """Where the numbers of a safetensors file begin."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")
