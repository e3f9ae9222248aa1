"""A weights file: that it is the one that was meant, and reading it without running what is in
it."""

import hashlib
import pickle
from pathlib import Path

from safetensors import SafetensorError
from torch import nn

from fw.core.errors import MissingFile


def checked(file: Path | None, sha256: str) -> Path | None:
    """The file, if its sha256 begins as promised; MissingFile if not, or if it is not there."""
    if file is None:
        if sha256:
            raise MissingFile(
                f"encoder timm: give the file whose sha256 begins with {sha256} as `weights`"
            )
        return None
    if not file.is_file():
        raise MissingFile(
            f"encoder timm: the weights file {file} is not there; put it there or correct `weights`"
        )
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not sha256:
        raise MissingFile(
            f"encoder timm: if {file} is the file that you mean, write `sha256: '{digest[:8]}'` as "
            "well"
        )
    if not digest.startswith(sha256):
        raise MissingFile(
            f"encoder timm: the sha256 of {file} begins with {digest[:8]}, not with {sha256}"
        )
    return file


def load(network: nn.Module, file: Path | None) -> nn.Module:
    """The network with the weights of the file, its classifier left out; MissingFile where they
    are not its own."""
    if file is None:
        return network
    from timm.models import load_state_dict

    head = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    heads = tuple(f"{name}." for name in ([head] if isinstance(head, str) else head))
    try:
        weights = load_state_dict(str(file), weights_only=True)
        network.load_state_dict(
            {name: value for name, value in weights.items() if not name.startswith(heads)}
        )
    except (
        RuntimeError,
        TypeError,
        AttributeError,
        EOFError,
        pickle.UnpicklingError,
        SafetensorError,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise MissingFile(
            f"encoder timm: {file} does not hold weights of this model ({reason})"
        ) from error
    return network
