"""A folder of image files of any size and format as a dataset; they are decoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from fw.core.errors import MissingFile
from fw.core.kinds import Dataset
from fw.core.types import ImageSet, Split
from fw.plugins.datasets.decoded import Source, decoded
from fw.plugins.datasets.fields import Cache, Channels, Size, image_shape
from fw.plugins.datasets.listing import File, cache_folder, fingerprint, is_held_out, listed
from fw.plugins.datasets.picture import ENDINGS


class ImageFolder(Dataset):
    """A folder of image files, (N, channels, H, W): the largest box about the middle, shrunk with Pillow's LANCZOS.

    `root` holds `train` and `test`, or all images if a share is `held_out`; sub-folders are searched. With
    `class_folders`, the first level of sub-folders are classes, numbered in the order of their names. Shape and classes
    are fields, so that a recipe can be checked where the files are not.

    The images enter the keys by their content, not by where they lie: a fingerprint of names and bytes, for which
    planning reads every file once and remembers the answer. Where the files are not there and `content` is not given,
    nothing can be run, and the keys that --dry-run shows are those of no images. With `content` the keys are known
    everywhere, and other files are refused.

    Files that cannot be decoded are left out and told once. Animations give their first frame, transparency lies on
    white, EXIF's orientation is applied and colour profiles are not.
    """

    name: ClassVar[str] = "image_folder"

    root: Path = Field(description="the folder", examples=["data/flowers"])
    size: Size
    channels: Channels = 3
    class_folders: int = Field(0, ge=0, description="how many sub-folders are classes; 0: the images have no labels")
    train: str = Field("train", description="the sub-folder that is trained on")
    test: str = Field("test", description="the sub-folder that is held out")
    held_out: float = Field(
        0.0, ge=0, lt=1, description="share of `root` that is held out, by a hash of names; 0: there are sub-folders"
    )
    content: str | None = Field(
        None, pattern="^[0-9a-f]{16}$", description="the fingerprint that the images must have; null: any"
    )
    cache: Cache = None

    @model_validator(mode="after")
    def two_splits(self) -> ImageFolder:
        if not self.held_out and self.train == self.test:
            raise ValueError("`train` and `test` are the same sub-folder; split one folder with `held_out`")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        return image_shape(self.channels, self.size)

    @property
    def classes(self) -> int:
        return self.class_folders

    def identity(self) -> dict[str, Any]:
        only_places = {"root", "cache", "train", "test"}
        told = {key: value for key, value in super().identity().items() if key not in only_places}
        there = all(folder.is_dir() for folder in self.folders().values())
        content = self.content or (self.content_of(self.files()) if there else None)
        return {**told, "size": list(self.shape[1:]), "content": content}

    def preflight(self) -> None:
        self.checked_files()

    def load(self, split: Split) -> ImageSet:
        splits = self.checked_files()
        files = splits[split]
        number = {name: label for label, name in enumerate(class_names(splits["train"]))} if self.classes else {}
        cache = cache_folder(self.cache)
        content = fingerprint(files, cache)

        def sources() -> Iterator[Source]:
            for file in files:
                yield Source(file.name, Path(file.path), number[class_of(file)] if number else 0)
            if self.files()[split] != files:
                raise MissingFile(f"{self.root}: its files changed while they were decoded; run it again")

        images, labels = decoded(sources, len(files), self.shape, [content, list(number)], cache)
        return ImageSet(images, labels, self.classes) if self.classes else ImageSet(images)

    def checked_files(self) -> dict[Split, list[File]]:
        """The files of both splits, or MissingFile: a folder is not there, is empty, or is not what the recipe says."""
        for folder in self.folders().values():
            if not folder.is_dir():
                raise MissingFile(
                    f"dataset image_folder expects images in {folder}, which is no folder: set `root`, `train` and "
                    "`test`, or split one folder with `held_out`"
                )
        splits = self.files()
        for split, files in splits.items():
            if not files:
                raise MissingFile(
                    f"dataset image_folder finds no images for its {split} split in {self.folders()[split]}"
                )
        if self.classes:
            self.check_classes(splits)
        if self.content and self.content != (found := self.content_of(splits)):
            raise MissingFile(
                f"dataset image_folder: {self.root} holds other images than the recipe asks for: their fingerprint is "
                f"{found}, and `content` is {self.content}"
            )
        return splits

    def check_classes(self, splits: dict[Split, list[File]]) -> None:
        for split, files in splits.items():
            stray = next((file.name for file in files if "/" not in file.name), None)
            if stray:
                raise MissingFile(
                    f"dataset image_folder: {stray} in {self.folders()[split]} is in no class's sub-folder; move it, "
                    "or set `class_folders` to 0"
                )
        classes = class_names(splits["train"])
        if len(classes) != self.classes:
            raise MissingFile(
                f"dataset image_folder: {self.folders()['train']} has {len(classes)} sub-folders with images "
                f"({in_short(classes)}), and `class_folders` is {self.classes}"
            )
        if unknown := sorted(set(class_names(splits["test"])) - set(classes)):
            raise MissingFile(
                f"dataset image_folder: the test split has classes that the train split has not: {in_short(unknown)}"
            )

    def folders(self) -> dict[Split, Path]:
        root = self.root.expanduser().absolute()
        if self.held_out:
            return {"train": root, "test": root}
        return {"train": root / self.train, "test": root / self.test}

    def files(self) -> dict[Split, list[File]]:
        folders = self.folders()
        if not self.held_out:
            return {split: listed(folder, ENDINGS) for split, folder in folders.items()}
        splits: dict[Split, list[File]] = {"train": [], "test": []}
        for file in listed(folders["train"], ENDINGS):
            splits["test" if is_held_out(file.name, self.held_out) else "train"].append(file)
        return splits

    def content_of(self, splits: dict[Split, list[File]]) -> str:
        """16 hex digits for the images of both splits."""
        parts = [fingerprint(files, cache_folder(self.cache)) for files in splits.values()]
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def class_of(file: File) -> str:
    return file.name.partition("/")[0]


def class_names(files: list[File]) -> list[str]:
    return sorted({class_of(file) for file in files})


def in_short(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
