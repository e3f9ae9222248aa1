"""Weights of a backbone from a file of safetensors or torch.save, whose code is not run."""

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
    """Load the backbone's weights, from a state dict of it or from an `encoder.safetensors` that
    a run stored."""
    expected = network.backbone.state_dict()
    plain = unwrapped_tensors(
        state_dict(path), path, expected=[*expected, *(PREFIX + name for name in expected)]
    )
    weights = {name.removeprefix(PREFIX): tensor for name, tensor in plain.items()}
    faults = [
        *(f"'{name}' is missing" for name in expected if name not in weights),
        *(f"'{name}' is not part of it" for name in weights if name not in expected),
        *(
            f"'{name}' is {list(weights[name].shape)} and not {list(tensor.shape)}"
            for name, tensor in expected.items()
            if name in weights and weights[name].shape != tensor.shape
        ),
    ]
    if faults:
        more = f", and {len(faults) - 1} more like that" if len(faults) > 1 else ""
        raise FwError(
            f"{path} does not hold weights of this backbone: {faults[0]}{more}; are its settings "
            "the same?"
        )
    check_finite(network.backbone, weights, path)
    network.backbone.load_state_dict(weights)


def state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors by name, or MissingFile."""
    existing(path)
    try:
        tensors = tensors_in(path)
    except Exception as error:  # a damaged file makes torch.load raise nearly anything
        raise MissingFile(
            f"the weights file {path} cannot be read ({type(error).__name__}): it has to be a "
            "state dict, as safetensors or as torch.save wrote it"
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(tensor, Tensor) for tensor in tensors.values()
    ):
        raise FwError(
            f"{path} is not a state dict: save the backbone's state_dict(), not the module or a "
            "checkpoint"
        )
    return tensors


def unwrapped_tensors(
    tensors: dict[str, Tensor], path: Path, expected: Collection[str]
) -> dict[str, Tensor]:
    """The tensors by the `expected` names of a network. A remark is printed if names of wrappers
    were taken off."""
    names = unwrapped(tensors, expected)
    report_wrappers(names, path)
    return {names[name]: tensor for name, tensor in tensors.items()}


def sha256(path: Path) -> str:
    """The sha256 of the file's content, in hex."""
    return contents.sha256(existing(path))


def existing(path: Path) -> Path:
    """The path, or MissingFile if nothing is there or it is not what its name says."""
    if not path.is_file():
        raise MissingFile(
            f"the weights file {path} is not there: mend the path, or leave `weights` out to train"
        )
    return contents.genuine(path, "the weights file ")
