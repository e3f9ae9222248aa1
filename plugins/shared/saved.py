"""Weights in a folder as save_pretrained of diffusers or transformers writes it: what is read.

A folder may hold the same weights several times. One rule says which are read: those without a
variant such as `fp16` before those with one, the name that is asked for first before the others,
and one file before shards with an index.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from fw.core.errors import MissingFile
from fw.core.files.contents import genuine
from fw.core.files.weights import check_finite, report_wrappers, unwrapped

INDEX = ".index.json"


@dataclass(frozen=True)
class Saved:
    """One set of weights: `first` is a file of tensors, or the index of several.

    `name` is what the file of tensors is called where there is only one, without a variant.
    """

    first: Path
    name: str

    @property
    def files(self) -> list[Path]:
        """All that is read, the index first; MissingFile if it is none."""
        return [self.first, *self.shards()]

    def shards(self) -> list[Path]:
        """The files that an index names, by name; none if there is no index."""
        return [self.first.parent / name for name in sorted(set(self.places().values()))]

    def places(self) -> dict[str, str]:
        """The file of each tensor, by an index; MissingFile if it is none."""
        if self.first.suffix != ".json":
            return {}
        try:
            places = json.loads(self.first.read_text(encoding="utf-8"))["weight_map"]
            strayed = [name for name in places.values() if Path(name).name != name]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise MissingFile(f"{self.first} does not say which files it is an index of") from None
        if strayed:
            raise MissingFile(f"{self.first} names {strayed[0]!r}, which is not a file beside it")
        return places

    def check(self, whose: str = "") -> None:
        """MissingFile, beginning with `whose`, if a file is absent or not what its name says."""
        genuine(self.first, whose)
        try:
            shards = self.shards()
        except MissingFile as error:
            raise MissingFile(f"{whose}{error}") from None
        if missing := [file.name for file in shards if not file.is_file()]:
            raise MissingFile(
                f"{whose}{self.first} names {len(missing)} files that are not there: {', '.join(missing[:3])}"
                f"{', ...' if len(missing) > 3 else ''}; copy the whole folder"
            )
        for file in shards:
            genuine(file, whose)

    def check_loaded(self, network: nn.Module, whose: str = "") -> None:
        """MissingFile if a weight that was loaded from these files is not finite."""
        places, folder = self.places(), self.first.parent
        for name, tensor in network.state_dict().items():
            if tensor.is_meta:  # diffusers' way to say that the files lack it, which its caller tells
                continue
            file = folder / places[name] if name in places else self.first  # the index, if it has another name for it
            check_finite(network, {name: tensor}, file, whose)

    @contextmanager
    def as_usual(self, *beside: str) -> Iterator[Path]:
        """A folder in which these weights are alone and have the usual names, with files beside them.

        They are links, unless names of tensors have to be changed.
        """
        folder = self.first.parent
        with tempfile.TemporaryDirectory(prefix="fw-weights-") as place:
            there = Path(place)
            for name in beside:
                (there / name).symlink_to((folder / name).absolute())
            renamed = unwrapped(self.tensors())
            if any(old != new for old, new in renamed.items()):
                report_wrappers(renamed, self.first)
                found = {
                    renamed[name]: tensor.clone()  # what shares memory cannot be saved
                    for file in self.tensor_files()
                    for name, tensor in tensors_in(file).items()
                }
                save_file(found, there / f"{Path(self.name).stem}.safetensors", {"format": "pt"})
            else:
                usual = f"{self.name}{INDEX}" if self.first.suffix == ".json" else self.name
                (there / usual).symlink_to(self.first.absolute())
                for file in self.shards():
                    (there / file.name).symlink_to(file.absolute())
            yield there

    def tensor_files(self) -> list[Path]:
        return self.shards() or [self.first]

    def tensors(self) -> list[str]:
        """The names of all tensors."""
        return list(self.places()) or names(self.first)


def saved(folder: Path, usual: Sequence[str]) -> Saved | None:
    """The weights that are read of a folder, with one of these usual names; None if there are none.

    MissingFile if there are several variants and nothing else.
    """
    for name in usual:
        for first in (folder / name, folder / f"{name}{INDEX}"):
            if first.is_file():
                return Saved(first, name)
    for name in usual:
        found = variants(folder, name)
        if len(found) > 1:
            raise MissingFile(
                f"{folder} holds several variants of {name} ({', '.join(found)}) and none without a variant: leave one"
            )
        for first in found.values():
            return Saved(first, name)
    return None


def variants(folder: Path, name: str) -> dict[str, Path]:
    """The variants of a file, and where each begins: its one file, or else its index.

    Of `a.b` they are called `a.fp16.b`, and `a.b.index.fp16.json`, once `a.fp16.b.index.json`.
    """
    stem, kind = (re.escape(part) for part in (Path(name).stem, Path(name).suffix))
    forms = (
        rf"{stem}\.([\w-]+){kind}",
        rf"{stem}{kind}\.index\.([\w-]+)\.json",
        rf"{stem}\.([\w-]+){kind}\.index\.json",
    )
    found: dict[str, Path] = {}
    for form in forms:
        for file in sorted(folder.glob("*")) if folder.is_dir() else ():
            match = re.fullmatch(form, file.name)
            if match and file.is_file() and not re.search(r"-\d+-of-\d+$", match[1]):
                found.setdefault(match[1], file)
    return dict(sorted(found.items()))


def names(path: Path) -> list[str]:
    """The names of the tensors in a file; none if it cannot be read, which its loader says better.

    Of a checkpoint with a state dict in it, such as `{"model": {...}}`, they are those of the inner one.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return list(file.keys())
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        inner = [each for each in found.values() if isinstance(each, dict)]
        return [name for each in inner or [found] for name in each if isinstance(name, str)]
    except Exception:  # a damaged file makes them raise nearly anything
        return []


def tensors_in(path: Path) -> Any:
    """What a file of weights holds, on the CPU: tensors by name, if torch.save was given such.

    No code from the file is run. A damaged file makes torch.load raise nearly anything.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
