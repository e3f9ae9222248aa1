"""The key of a stage: the sha256 of the canonical JSON of everything that decides its product.

Each field of a stage says how it enters:

    encoder: Encoder                             as `encoder`, by the component's identity
    latents: Autoencoder | None = part(None, absent=None)     not at all while it is None
    encode: Encode | None = read(None)           as the input `encode`, by its id; None is no input
    targets: tuple[Encode | None, ...] = read((), "target")   as inputs `target 0`, `target 1`, ...
    arm: str = unkeyed("")                       never: it only helps to tell stages apart
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from pydantic import BaseModel

from fw.registry.component import identified

NEVER = object()
"""A default for "none given": no field is equal to it."""


def part(default: Any = NEVER, *, name: str | None = None, absent: Any = NEVER) -> Any:
    """A field that enters the key as `name`, by default its own name, unless its value is
    `absent`."""
    options = {} if default is NEVER else {"default": default}
    return field(metadata={"name": name, "absent": absent}, **options)


def read(default: Any = NEVER, role: str | None = None) -> Any:
    """A field that holds a stage, or a tuple of stages; it enters the key among the inputs."""
    options = {} if default is NEVER else {"default": default}
    return field(metadata={"role": role, "input": True}, **options)


def unkeyed(default: Any) -> Any:
    """A field that is not in the key, because the product does not depend on it."""
    return field(default=default, metadata={"unkeyed": True})


def identity(value: Any) -> Any:
    """A field's value as it enters the key, as JSON."""
    if isinstance(value, BaseModel):
        return identified(value, value.model_dump(mode="json"))
    if isinstance(value, tuple):
        return [identity(entry) for entry in value]
    return value


def digest(payload: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the sha256 of canonical JSON: sorted keys, no spaces; .inf is
    `Infinity`."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
