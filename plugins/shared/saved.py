"""Weights in a folder that save_pretrained of diffusers or transformers wrote: which are read.

A folder may hold the same weights several times. One rule says which are read: those without a
variant such as `fp16` before those with one, the first of the standard names before the others,
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
        """All files that are read, the index first; MissingFile if that is not an index."""
        return [self.first, *self.shards()]

    def shards(self) -> list[Path]:
        """The files that an index names, by name; none if there is no index."""
        return [self.first.parent / name for name in sorted(set(self.places().values()))]

    def places(self) -> dict[str, str]:
        """The file of each tensor, from an index; MissingFile if it is not one."""
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
                f"{whose}{self.first} names {len(missing)} files that are not there: "
                f"{', '.join(missing[:3])}"
                f"{', ...' if len(missing) > 3 else ''}; copy the whole folder"
            )
        for file in shards:
            genuine(file, whose)

    def check_loaded(self, network: nn.Module, whose: str = "") -> None:
        """MissingFile if a weight that was loaded from these files is not finite."""
        places, folder = self.places(), self.first.parent
        for name, tensor in network.state_dict().items():
            if tensor.is_meta:  # diffusers' mark for what the files lack; the caller reports that
                continue
            file = (
                folder / places[name] if name in places else self.first
            )  # the index, for a renamed tensor
            check_finite(network, {name: tensor}, file, whose)

    @contextmanager
    def standard_folder(self, *beside: str) -> Iterator[Path]:
        """A temporary folder that holds these weights alone, under their standard names, and the
        files `beside` them.

        All are links, unless tensors have to be renamed.
        """
        folder = self.first.parent
        with tempfile.TemporaryDirectory(prefix="fw-weights-") as place:
            temporary = Path(place)
            for name in beside:
                (temporary / name).symlink_to((folder / name).absolute())
            renamed = unwrapped(self.tensors())
            if any(old != new for old, new in renamed.items()):
                report_wrappers(renamed, self.first)
                tensors = {
                    renamed[name]: tensor.clone()  # what shares memory cannot be saved
                    for file in self.tensor_files()
                    for name, tensor in tensors_in(file).items()
                }
                save_file(
                    tensors, temporary / f"{Path(self.name).stem}.safetensors", {"format": "pt"}
                )
            else:
                standard_name = f"{self.name}{INDEX}" if self.first.suffix == ".json" else self.name
                (temporary / standard_name).symlink_to(self.first.absolute())
                for file in self.shards():
                    (temporary / file.name).symlink_to(file.absolute())
            yield temporary

    def tensor_files(self) -> list[Path]:
        return self.shards() or [self.first]

    def tensors(self) -> list[str]:
        """The names of all tensors."""
        return list(self.places()) or names(self.first)


def saved(folder: Path, standard_names: Sequence[str]) -> Saved | None:
    """The weights of a folder that are read, by one of their standard names; None if it has none.

    MissingFile if there are several variants and nothing else.
    """
    for name in standard_names:
        for first in (folder / name, folder / f"{name}{INDEX}"):
            if first.is_file():
                return Saved(first, name)
    for name in standard_names:
        first_files = variants(folder, name)
        if len(first_files) > 1:
            raise MissingFile(
                f"{folder} holds several variants of {name} ({', '.join(first_files)}) and none "
                "without a variant: leave one"
            )
        for first in first_files.values():
            return Saved(first, name)
    return None


def named_weights(there: Sequence[str], standard_names: Sequence[str]) -> list[str]:
    """Of the names of files, those of the weights that `saved` would read, without variants; none
    if there are none."""
    for name in standard_names:
        stem, ending = Path(name).stem, Path(name).suffix
        if name in there:
            return [name]
        if f"{name}{INDEX}" in there:
            shard = re.compile(rf"{re.escape(stem)}-\d+-of-\d+{re.escape(ending)}")
            return [f"{name}{INDEX}", *(each for each in there if shard.fullmatch(each))]
    return []


def variants(folder: Path, name: str) -> dict[str, Path]:
    """The variants of a file and the first file of each: its one file, or else its index.

    The variant fp16 of `a.b` is `a.fp16.b` or `a.b.index.fp16.json`, formerly
    `a.fp16.b.index.json`.
    """
    stem, kind = (re.escape(part) for part in (Path(name).stem, Path(name).suffix))
    forms = (
        rf"{stem}\.([\w-]+){kind}",
        rf"{stem}{kind}\.index\.([\w-]+)\.json",
        rf"{stem}\.([\w-]+){kind}\.index\.json",
    )
    first_files: dict[str, Path] = {}
    for form in forms:
        for file in sorted(folder.glob("*")) if folder.is_dir() else ():
            match = re.fullmatch(form, file.name)
            if match and file.is_file() and not re.search(r"-\d+-of-\d+$", match[1]):
                first_files.setdefault(match[1], file)
    return dict(sorted(first_files.items()))


def names(path: Path) -> list[str]:
    """The names of the tensors in a file; none if it cannot be read: its loader gives the reason.

    In a checkpoint that holds a state dict, such as `{"model": {...}}`, they are the inner names.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return list(file.keys())
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        inner = [entry for entry in content.values() if isinstance(entry, dict)]
        return [name for entry in inner or [content] for name in entry if isinstance(name, str)]
    except Exception:  # a damaged file makes them raise nearly anything
        return []


def tensors_in(path: Path) -> Any:
    """The content of a file of weights, on the CPU: tensors by name, if torch.save was given those.

    No code from the file is run. A damaged file makes torch.load raise nearly anything.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
