"""Weights of a backbone from a file: safetensors, or what torch.save wrote, read without running code from it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from fw.core.errors import FwError, MissingFile
from fw.core.files import contents
from fw.core.files.weights import check_finite, report_wrappers, unwrapped
from fw.plugins.encoders.trunks import ImageEncoder
from fw.plugins.shared.saved import tensors_in

PREFIX = "backbone."


def load_weights(network: ImageEncoder, path: Path) -> None:
    """Load the backbone's weights, from a state dict of it or from an `encoder.safetensors` that a run stored."""
    wanted = network.backbone.state_dict()
    plain = plainly(state_dict(path), path, wanted=[*wanted, *(PREFIX + name for name in wanted)])
    found = {name.removeprefix(PREFIX): tensor for name, tensor in plain.items()}
    faults = [
        *(f"'{name}' is missing" for name in wanted if name not in found),
        *(f"'{name}' is not part of it" for name in found if name not in wanted),
        *(
            f"'{name}' is {list(found[name].shape)} and not {list(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in found and found[name].shape != tensor.shape
        ),
    ]
    if faults:
        more = f", and {len(faults) - 1} more like that" if len(faults) > 1 else ""
        raise FwError(f"{path} does not hold weights of this backbone: {faults[0]}{more}; are its settings the same?")
    check_finite(network.backbone, found, path)
    network.backbone.load_state_dict(found)


def state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors by name, or MissingFile."""
    existing(path)
    try:
        found = tensors_in(path)
    except Exception as error:  # a damaged file makes torch.load raise nearly anything
        raise MissingFile(
            f"the weights file {path} cannot be read ({type(error).__name__}): it has to be a state dict, "
            "as safetensors or as torch.save wrote it"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise FwError(f"{path} is not a state dict: save the backbone's state_dict(), not the module or a checkpoint")
    return found


def plainly(tensors: dict[str, Tensor], path: Path, wanted: Collection[str]) -> dict[str, Tensor]:
    """The tensors by the names that the network `wanted`, without those of wrappers, which is said."""
    names = unwrapped(tensors, wanted)
    report_wrappers(names, path)
    return {names[name]: tensor for name, tensor in tensors.items()}


def sha256(path: Path) -> str:
    """The sha256 of the file's content, in hex."""
    return contents.sha256(existing(path))


def existing(path: Path) -> Path:
    """The path, or MissingFile if nothing is there or it is not what its name says."""
    if not path.is_file():
        raise MissingFile(f"the weights file {path} is not there: mend the path, or leave `weights` out to train")
    return contents.genuine(path, "the weights file ")
