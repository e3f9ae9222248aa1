"""A folder of image files of any size and format as a dataset; they are decoded once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from fw.core.errors import MissingFile
from fw.core.files.cache import cache_folder
from fw.core.types import SPLITS, Split
from fw.plugins.datasets.content import Content, check_content, content_digest
from fw.plugins.datasets.decoded import Decoded, Request, Source, decoded, too_dark, without
from fw.plugins.datasets.depth import UNSTATED, Scale, merged, whites
from fw.plugins.datasets.fields import Cache, Channels, Encoded, Size, image_shape
from fw.plugins.datasets.listing import (
    File,
    Listing,
    fingerprint,
    forget,
    is_held_out,
    known_facts,
    listed,
)
from fw.plugins.datasets.picture import ENDINGS
from fw.registry.once import one_look


class ImageFolder(Encoded):
    """A folder of image files, (N, channels, H, W): the largest box about the middle, shrunk with
    Pillow's LANCZOS.

    `root` holds `train` and `test`, or all images if a share is `held_out`; sub-folders are
    searched. With `class_folders`, the first level of sub-folders are classes, numbered in the
    order of their names. Shape and classes are fields, so that a recipe can be checked where the
    files are not.

    The images enter the keys by their content, not by where they lie: by a fingerprint of names and
    bytes. Planning reads every file once for it and remembers the answer. Without the files and
    without `content`, nothing can be run, and --dry-run shows keys without images. With `content`
    the keys are known everywhere, and other files are refused.

    Files that cannot be decoded, and whatever is no regular file, are left out, and every run warns
    of it. A file with several names counts once; one that is in both splits is refused. Animations
    give their first frame, transparency is put on white, EXIF's orientation is applied and colour
    profiles are not. Images with more than 8 bits per channel are scaled by one rule for all
    (docs/data.md), or by `range`.
    """

    name: ClassVar[str] = "image_folder"
    PLACES: ClassVar[frozenset[str]] = frozenset({"root", "cache", "train", "test"})

    root: Path = Field(description="the folder", examples=["data/flowers"])
    size: Size
    channels: Channels = 3
    class_folders: int = Field(
        0, ge=0, description="how many sub-folders are classes; 0: the images have no labels"
    )
    train: str = Field("train", description="the sub-folder that is trained on")
    test: str = Field("test", description="the sub-folder that is held out")
    held_out: float = Field(
        0.0,
        ge=0,
        lt=1,
        description=(
            "share of `root` that is held out, by a hash of names; 0: there are sub-folders"
        ),
    )
    content: Content = None
    cache: Cache = None

    @model_validator(mode="after")
    def two_splits(self) -> ImageFolder:
        train, test = (Path(os.path.normpath(folder)) for folder in self.folders().values())
        if not self.held_out and train == test:
            raise ValueError(
                "`train` and `test` are the same sub-folder; split one folder with `held_out`"
            )
        if not self.held_out and one_within_the_other(train, test):
            raise ValueError(
                "of `train` and `test`, one sub-folder lies in the other; split one with `held_out`"
            )
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        return image_shape(self.channels, self.size)

    @property
    def classes(self) -> int:
        return self.class_folders

    @property
    def class_names(self) -> list[str]:
        return class_names(self.files()["train"]) if self.classes and self.there else []

    @property
    def there(self) -> bool:
        """Whether the folders of both splits are there."""
        return all(is_folder(folder) for folder in self.folders().values())

    @property
    def missing(self) -> str | None:
        if self.there:
            return None
        absent = next(folder for folder in self.folders().values() if not is_folder(folder))
        what = "`class_folders`" if self.classes else "its images"
        return f"{absent} is no folder, so that {what} could not be checked"

    def identity(self) -> dict[str, Any]:
        """With the whites of images with 16 bits per channel that use fewer bits."""
        same = super().identity()
        if self.content or not self.there:
            return same
        splits = self.files()
        scaled = (
            {"whites": white_points}
            if self.range is None and (white_points := self.whites(splits))
            else {}
        )
        return {**same, "content": self.content_of(splits), **scaled}

    def check(self) -> None:
        if self.there:
            try:
                self.check_splits(self.files())
            except MissingFile as error:
                raise ValueError(str(error)) from None

    def preflight(self) -> None:
        self.checked_files()

    def remarks(self) -> list[str]:
        listings = self.listings()
        remarks = super().remarks()
        for folder, listing in listings.items():
            if listing.strange:
                remarks.append(
                    f"left out in {folder.name}, no regular files: {in_short(listing.strange)}"
                )
            if listing.again:
                remarks.append(
                    f"{listing.again:,} files in {folder.name} are links to others there and count "
                    "once"
                )
        return remarks + self.guessed()

    def guessed(self) -> list[str]:
        """A remark that the depth of the images is a guess, if it is."""
        white = self.whites(self.files()).get(UNSTATED) if self.range is None else None
        if white is None:
            return []
        return [
            f"its images of 16 bits per channel have no values above {white:,} and state no depth: "
            f"they are taken to have {white.bit_length()} bits; say `range: [0, {white}]` if that "
            "is right, else the right range"
        ]

    def decoded(self, split: Split) -> Decoded:
        return decoded(self.request(split, self.checked_files()), cache_folder(self.cache))

    def request(self, split: Split, splits: dict[Split, list[File]]) -> Request:
        """The request to decode a split."""
        files, cache = splits[split], cache_folder(self.cache)
        number = (
            {name: label for label, name in enumerate(class_names(splits["train"]))}
            if self.classes
            else {}
        )
        content = fingerprint(files, cache)

        def sources() -> Iterator[Source]:
            for file in files:
                yield Source(file.name, Path(file.path), number[class_of(file)] if number else 0)
            with one_look():
                changed = self.files()[split] != files
            if changed:
                raise MissingFile(
                    f"{self.root}: its files changed while they were decoded; run it again"
                )

        def check(actual: str) -> None:
            if actual != content:
                forget(files, cache)
                raise MissingFile(
                    f"{self.root}: its files are others than when their fingerprint was taken, and "
                    "their times of change are the same; run it again, and check the disk"
                )

        scale = Scale(self.range, {} if self.range else self.whites(splits))
        request = Request(sources, len(files), self.shape, [content, list(number)], scale, check)
        if split == "train" and self.drop_repeats:
            return without(request, self.request("test", splits), cache)
        return request

    def checked_files(self) -> dict[Split, list[File]]:
        """The files of both splits. MissingFile if a folder is not there, is empty, or is not what
        the recipe says."""
        for folder in self.folders().values():
            if not is_folder(folder):
                raise MissingFile(
                    f"dataset image_folder expects images in {folder}, which is no folder: set "
                    "`root`, `train` and `test`, or split one folder with `held_out`"
                )
        splits = self.files()
        self.check_splits(splits)
        if self.content:
            whose = f"dataset image_folder: {self.root}"
            check_content(whose, self.content, self.content_of(splits))
        if self.content and self.range is None and (needed := self.whites(splits)):
            # The key holds `content` alone, because the values may not be there to look at.
            raise MissingFile(
                f"dataset image_folder: {too_dark(max(needed.values()))}; `content` does not say it"
            )
        return splits

    def check_splits(self, splits: dict[Split, list[File]]) -> None:
        """Raise MissingFile if a split is empty, if both share images, or if the classes are not
        those of the recipe."""
        folders = self.folders()
        for split, files in splits.items():
            if not files:
                raise MissingFile(
                    f"dataset image_folder finds no images for its {split} split in "
                    f"{folders[split]}"
                )
        train, test = (folder.resolve() for folder in folders.values())
        if not self.held_out and one_within_the_other(train, test):
            raise MissingFile(
                f"dataset image_folder: {folders['train']} and {folders['test']} lead to {train} "
                f"and {test}, of which one holds the other; give `train` and `test` folders of "
                "their own, or split one with `held_out`"
            )
        trained = {file.inode: file.name for file in splits["train"] if file.inode[1]}
        both = [file for file in splits["test"] if file.inode in trained]
        if both and not self.drop_repeats:
            raise MissingFile(
                f"dataset image_folder: {len(both):,} of {len(splits['test']):,} held-out images "
                f"are links to the same files as training images, such as {both[0].name} in "
                f"{folders['test']} and {trained[both[0].inode]} in {folders['train']}; take them "
                "out of one of the splits, or set `drop_repeats`"
            )
        if self.classes:
            self.check_classes(splits)

    def check_classes(self, splits: dict[Split, list[File]]) -> None:
        for split, files in splits.items():
            stray = next((file.name for file in files if "/" not in file.name), None)
            if stray:
                raise MissingFile(
                    f"dataset image_folder: {stray} in {self.folders()[split]} is in no class's "
                    "sub-folder; move it, or set `class_folders` to 0"
                )
        classes = class_names(splits["train"])
        if len(classes) != self.classes:
            raise MissingFile(
                f"dataset image_folder: {self.folders()['train']} has {len(classes)} sub-folders "
                f"with images ({in_short(classes)}), and `class_folders` is {self.classes}"
            )
        if unknown := sorted(set(class_names(splits["test"])) - set(classes)):
            raise MissingFile(
                "dataset image_folder: the test split has classes that the train split has not: "
                f"{in_short(unknown)}"
            )

    def folders(self) -> dict[Split, Path]:
        root = self.root.expanduser().absolute()
        if self.held_out:
            return {"train": root, "test": root}
        return {"train": root / self.train, "test": root / self.test}

    def listings(self) -> dict[Path, Listing]:
        """What is in each folder."""
        return {
            folder: listed(folder, ENDINGS) for folder in dict.fromkeys(self.folders().values())
        }

    def files(self) -> dict[Split, list[File]]:
        listings = [listing.files for listing in self.listings().values()]
        if not self.held_out:
            return dict(zip(SPLITS, listings, strict=True))
        splits: dict[Split, list[File]] = {"train": [], "test": []}
        for file in listings[0]:
            splits["test" if is_held_out(file.name, self.held_out) else "train"].append(file)
        return splits

    def whites(self, splits: dict[Split, list[File]]) -> dict[str, int]:
        """What is white in images of 16 bits per channel, by one rule for both splits."""
        cache = cache_folder(self.cache)
        return whites(merged(known_facts(files, cache).largest for files in splits.values()))

    def content_of(self, splits: dict[Split, list[File]]) -> str:
        """16 hex digits for the images of both splits."""
        cache = cache_folder(self.cache)
        return content_digest(fingerprint(files, cache) for files in splits.values())


def one_within_the_other(train: Path, test: Path) -> bool:
    return train.is_relative_to(test) or test.is_relative_to(train)


def is_folder(path: Path) -> bool:
    """Whether this is a folder that can be read; `Path.is_dir` raises for a name that is too long
    or not permitted."""
    return os.path.isdir(path)  # noqa: PTH112


def class_of(file: File) -> str:
    return file.name.partition("/")[0]


def class_names(files: list[File]) -> list[str]:
    return sorted({class_of(file) for file in files})


def in_short(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
