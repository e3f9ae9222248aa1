"""The weights in files that users bring: their names without those of wrappers, whether they are
finite, and what fw noted of their supervision when it stored them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fw.core.errors import MissingFile
from fw.registry.supervision import UNKNOWN, Supervision, parsed

INNER = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What torch.compile, FSDP and activation checkpointing put into names where they wrap a module."""

OUTER = "module"
"""What DataParallel and DistributedDataParallel put in front of all names."""

SUPERVISION = "fw.supervision"
"""The key in the metadata of safetensors."""


def noted(supervision: Supervision) -> dict[str, str]:
    """The metadata of a file of weights that were trained with this."""
    return {SUPERVISION: str(supervision)}


def supervision_in(path: Path) -> Supervision:
    """What the file says that its weights were trained with; unknown if it says nothing, or is not
    there."""
    try:
        with safe_open(path, "pt") as file:
            return parsed((file.metadata() or {})[SUPERVISION])
    except (OSError, SafetensorError, LookupError, ValueError):
        return UNKNOWN


def unwrapped(names: Iterable[str], expected: Collection[str] = ()) -> dict[str, str]:
    """Each name, and the one that it had before its module was wrapped.

    `expected` are the network's own names; a name that cannot become one of them stays as it is.
    Where they are not given, an outer `module.` is taken off only if all names have it.
    """
    if expected:
        plain = {name: unwrapped_to(name, expected) for name in names}
    else:
        parts = {name: [part for part in name.split(".") if part not in INNER] for name in names}
        while parts and all(len(each) > 1 and each[0] == OUTER for each in parts.values()):
            parts = {name: each[1:] for name, each in parts.items()}
        plain = {name: ".".join(each) for name, each in parts.items()}
    return plain if len(set(plain.values())) == len(plain) else {name: name for name in plain}


def unwrapped_to(name: str, expected: Collection[str]) -> str:
    parts = name.split(".")
    while (shorter := ".".join(parts)) not in expected:
        wrapper = next((part for part in parts if part in (*INNER, OUTER)), None)
        if wrapper is None:
            return name
        parts.remove(wrapper)
    return shorter


def report_wrappers(names: Mapping[str, str], path: Path) -> None:
    """Say on stderr which wrappers were taken off, if any were."""
    removed = {part for old, new in names.items() if old != new for part in old.split(".")}
    if wrappers := [f"`{part}.`" for part in (OUTER, *INNER) if part in removed]:
        say_once(
            f"{path}: names of weights are read without {' and '.join(wrappers)}, which wrapped "
            "the module"
        )


@functools.cache
def say_once(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def misfitting(network: nn.Module, shapes: Mapping[str, Sequence[int]]) -> str | None:
    """Why weights of these shapes are not a network's: the first that it lacks, has alone, or has
    in another shape; None if they are."""
    own = {name: tuple(each.shape) for name, each in network.state_dict().items()}
    given = {name: tuple(shape) for name, shape in shapes.items()}
    for name in [*own, *given]:
        if name not in given:
            return f"has no weights '{name}', and this network does"
        if name not in own:
            return f"has weights '{name}', and this network does not"
        if own[name] != given[name]:
            return f"has '{name}' in the shape {given[name]}, and this network in {own[name]}"
    return None


def check_finite(
    network: nn.Module, tensors: Mapping[str, Tensor], path: Path, whose: str = ""
) -> None:
    """MissingFile, its message beginning with `whose`, if a weight of the network is not finite in
    this file.

    In a buffer only NaN is a fault, since a mask may hold infinity.
    """
    weights = dict(network.named_parameters())
    for name, tensor in tensors.items():
        wrong = ~tensor.isfinite() if name in weights else tensor.isnan()
        if wrong.any():
            what = "NaN" if tensor.isnan().any() else "infinite"
            raise MissingFile(
                f"{whose}{path} has {int(wrong.sum()):,} of {tensor.numel():,} numbers in '{name}' "
                f"that are {what}: "
                "bring weights from before the training diverged or half precision overflowed"
            )
