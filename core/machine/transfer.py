"""Tensors between the CPU and a GPU without making the host wait for each of them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

AT_ONCE = 2**26
"""Bytes that are left on a GPU before they are copied to the CPU together; a copy makes the host
wait for all that the GPU has still to do."""


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on this device. On its way from the CPU to a GPU it lies in pinned memory, from
    where it is copied while the host goes on."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@functools.lru_cache(maxsize=256)
def constant(values: tuple[Any, ...], device: torch.device) -> Tensor:
    """The numbers, in tuples of equal lengths, as a tensor on this device; they are sent once."""
    with torch.inference_mode(False):
        return sent(torch.tensor(values), device)


def placed(network: Network, device: torch.device) -> Network:
    """The network on this device, on a GPU with the weights of its convolutions in the order that
    is fastest there."""
    if device.type == "cuda":
        network = network.to(memory_format=torch.channels_last)
    return network.to(device)


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by name, on the CPU; a GPU is waited for once."""
    copies = {name: each.detach().to("cpu", non_blocking=True) for name, each in tensors.items()}
    for device in {each.device for each in tensors.values() if each.is_cuda}:
        torch.cuda.synchronize(device)
    return copies


def collected(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """All rows of the batches (B, ...) on the CPU: those from a GPU in few large pieces, those of
    the CPU as they are."""
    waiting: list[Tensor] = []
    size = 0
    for batch in batches:
        if batch.device.type == "cpu":
            yield batch
            continue
        waiting.append(batch)
        size += batch.nbytes
        if size >= AT_ONCE:
            yield torch.cat(waiting).cpu()
            waiting, size = [], 0
    if waiting:
        yield torch.cat(waiting).cpu()
