"""What a trial of a sampler gave (spread.py), remembered from one command to the next.

A trial takes milliseconds, but the sampler's library seconds to import. Results are believed as
long as nothing changed that they are known to hang on: the identities of sampler and process, the
text of the files that their classes and this trial are written in, and the libraries' versions.
What helpers in other files do is covered by these versions alone. Classes that are made within
functions are never remembered, since their text does not say what they close over.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fw.core.files import sealed
from fw.core.files.cache import cache_folder
from fw.registry.component import Component, identity_of

LIBRARIES = ("fw", "torch", "diffusers", "numpy")

NOT_OURS = ("builtins", "abc", "typing", "pydantic")
"""Packages whose classes components inherit from; their files are not read."""


def memory(components: Iterable[Component], trial: str, data: float) -> Path | None:
    """The file that remembers the trial that the file `trial` makes of these components; None if
    it cannot be said what their results hang on."""
    components = list(components)
    try:
        classes = {each for component in components for each in type(component).__mro__}
        decisive = {
            "components": [identity_of(component) for component in components],
            "classes": [f"{type(each).__module__}.{local(type(each))}" for each in components],
            "data": data,
            "files": sorted(digests({trial, *sources(classes)})),
            "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        }
        text = json.dumps(decisive, sort_keys=True)
    except Exception:  # components are anybody's
        return None
    return cache_folder() / "trials" / hashlib.sha256(text.encode()).hexdigest()


def read(path: Path) -> dict[str, Any] | None:
    return sealed.read(path)


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Remember this, if the folder can be written to."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        sealed.write(path, values)


def local(cls: type) -> str:
    if "<locals>" in cls.__qualname__:
        raise LookupError(f"{cls.__qualname__} is made by a function")
    return cls.__qualname__


def sources(classes: Iterable[type]) -> Iterator[str]:
    for cls in classes:
        if cls.__module__.partition(".")[0] not in NOT_OURS:
            local(cls)
            yield inspect.getfile(cls)


def digests(files: Iterable[str]) -> Iterator[str]:
    for file in files:
        yield hashlib.sha256(Path(file).read_bytes()).hexdigest()
