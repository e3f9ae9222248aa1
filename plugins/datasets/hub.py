"""A Hugging Face dataset on this machine (Lhoest et al., arXiv 2109.02846)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from fw.core.errors import FwError, MissingFile
from fw.core.files.cache import cache_folder
from fw.core.files.hub import HubFiles
from fw.core.types import SPLITS, Split
from fw.plugins.datasets.content import Content, check_content, content_digest
from fw.plugins.datasets.decoded import Decoded, Request, Source, decoded, without
from fw.plugins.datasets.depth import Scale
from fw.plugins.datasets.fields import Cache, Channels, Encoded, Size, image_shape
from fw.plugins.datasets.listing import Listing, fingerprint, is_held_out, listed
from fw.plugins.datasets.rows import Rows
from fw.registry import Download
from fw.registry.once import one_look

NAME_ON_THE_HUB = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


class Hub(Encoded):
    """A Hugging Face dataset of images, (N, channels, H, W): the largest box about the middle,
    shrunk with LANCZOS.

    `path` is a folder (written by `save_to_disk`, or with parquet files in it) or a name on the hub
    whose files are in the hub's cache, into which `fw fetch` brings them. The labels are the column
    `label`, of `label_count` classes. Shape and classes are fields, so that a recipe can be checked
    where the files are not. Images that cannot be decoded are left out, and every run warns of it.
    Images with more than 8 bits per channel that use fewer bits than they have are refused without
    a `range` (docs/data.md).

    The images enter the keys by their content, not by where they lie: by a fingerprint of all
    files. Planning reads every file once for it and remembers the answer. Without the files and
    without `content`, nothing can be run, and --dry-run shows keys without images. With `content`
    the keys are known everywhere, and other files are refused.
    """

    name: ClassVar[str] = "hub"
    PLACES: ClassVar[frozenset[str]] = frozenset({"path", "revision", "cache"})

    path: str = Field(
        min_length=1, description="a folder, or a name on the hub", examples=["uoft-cs/cifar10"]
    )
    config: str | None = Field(
        None, description="which of the dataset's configurations; null: its default"
    )
    revision: str | None = Field(
        None, description="branch, tag or commit on the hub; null: its main branch"
    )
    train: str = Field("train", description="the split that is trained on")
    test: str = Field("test", description="the split that is held out")
    held_out: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of `train` that is held out, by a hash of row numbers; 0: take `test`",
    )
    image: str = Field("image", description="the column of images")
    label: str | None = Field(
        None, description="the column of labels 0, 1, ...; null: the images have no labels"
    )
    label_count: int = Field(0, ge=0, description="how many classes the labels have")
    size: Size
    channels: Channels = 3
    content: Content = None
    cache: Cache = None

    @model_validator(mode="after")
    def in_itself_sound(self) -> Hub:
        if (self.label is None) != (self.label_count == 0):
            raise ValueError(
                "`label` names a column and `label_count` says how many classes it has: give both "
                "or none"
            )
        if not self.held_out and self.train == self.test:
            raise ValueError("`train` and `test` are the same split; split one with `held_out`")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        return image_shape(self.channels, self.size)

    @property
    def classes(self) -> int:
        return self.label_count

    def identity(self) -> dict[str, Any]:
        folder = None if self.content else self.folder()
        content = self.content or (self.content_of(folder) if folder else None)
        return {**super().identity(), "content": content}

    @property
    def class_names(self) -> list[str]:
        folder = self.folder() if self.label else None
        try:
            return self.rows(folder).label_names(self.train) if folder else []
        except FwError:  # preflight reports it
            return []

    @property
    def missing(self) -> str | None:
        if self.folder() is not None:
            return None
        return (
            f"{self.path} is not on this machine, so that its splits and columns could not be "
            "checked"
        )

    def preflight(self) -> None:
        rows = self.rows(self.checked_folder())
        for split in SPLITS:
            rows.check(self.split(split))
        if not self.held_out:
            rows.check_apart(self.train, self.test)

    def downloads(self) -> Iterable[Download]:
        """The repository as a whole, because all files of a folder are in its content."""
        if self.local() is None and NAME_ON_THE_HUB.fullmatch(self.path):
            yield HubFiles.in_cache(
                self.path,
                self.path,
                lambda: self.folder() is not None,
                kind="dataset",
                revision=self.revision,
            )

    def decoded(self, split: Split) -> Decoded:
        return decoded(self.request(split, self.checked_folder()), cache_folder(self.cache))

    def request(self, split: Split, folder: Path) -> Request:
        """The request to decode a split."""
        rows, source = self.rows(folder), self.split(split)
        listing = listed(folder, once=False)

        def sources() -> Iterator[Source]:
            for number, row in enumerate(rows.read(source)):
                if self.held_out == 0 or is_held_out(str(number), self.held_out) == (
                    split == "test"
                ):
                    yield row
            with one_look():
                changed = listed(folder, once=False) != listing
            if changed:
                raise MissingFile(
                    f"dataset hub: {folder}: its files changed while they were decoded; run it "
                    "again"
                )

        settings = [
            self.content_of(folder),
            self.config,
            source,
            self.held_out and [split, self.held_out],
        ]
        settings += [self.image, self.label, self.label_count]
        count = None if self.held_out else rows.count(source)
        # Planning does not read rows, so a guessed depth could not enter the key.
        request = Request(
            sources, count, self.shape, settings, Scale(self.range) if self.range else None
        )
        if split == "train" and self.drop_repeats:
            return without(request, self.request("test", folder), cache_folder(self.cache))
        return request

    def rows(self, folder: Path) -> Rows:
        return Rows(folder, self.config, self.image, self.label, self.label_count)

    def split(self, split: Split) -> str:
        """The dataset's own split that holds the rows of a split."""
        return self.test if split == "test" and not self.held_out else self.train

    def checked_folder(self) -> Path:
        """The folder with the files; MissingFile if there is none, or another than in the
        recipe."""
        folder = self.folder()
        if folder is None:
            raise MissingFile(self.how_to_fetch())
        check_files(listed(folder, once=False), folder)
        if self.content:
            check_content(f"dataset hub: {self.path}", self.content, self.content_of(folder))
        return folder

    def folder(self) -> Path | None:
        """The folder `path`, or the one in the hub's cache; None if there is neither, or it is
        there in part."""
        if (local := self.local()) is not None or not NAME_ON_THE_HUB.fullmatch(self.path):
            return local
        from huggingface_hub import snapshot_download

        try:
            snapshot = snapshot_download(
                self.path, repo_type="dataset", revision=self.revision, local_files_only=True
            )
        except Exception:  # no such name, no such revision, not whole: a dozen classes
            return None
        return Path(snapshot)

    def local(self) -> Path | None:
        """The folder `path`; None if there is none, so that it may be a name on the hub."""
        folder = Path(self.path).expanduser().absolute()
        return folder if folder.is_dir() else None

    def how_to_fetch(self) -> str:
        if not NAME_ON_THE_HUB.fullmatch(self.path):
            return f"dataset hub expects a dataset in {self.path}, which is no folder: set `path`"
        revision = f" --revision {self.revision}" if self.revision else ""
        return (
            f"dataset hub: {self.path} is neither a folder nor whole in the hub's cache: `fw fetch "
            f"RECIPE` brings it, as `hf download --repo-type dataset {self.path}{revision}` does"
        )

    def content_of(self, folder: Path) -> str:
        """16 hex digits for all files of the dataset."""
        files = listed(folder, once=False).files
        return content_digest([fingerprint(files, cache_folder(self.cache))])


SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})")


def check_files(listing: Listing, folder: Path) -> None:
    """Raise MissingFile if a split is there in part, because an interrupted download would go
    unnoticed; also if anything is no regular file, because `datasets` would wait for somebody to
    write into a pipe."""
    if listing.strange:
        raise MissingFile(
            f"dataset hub: {folder} holds what is no regular file: {', '.join(listing.strange[:5])}"
        )
    shards: dict[tuple[str, int], set[str]] = {}
    for file in listing.files:
        if shard := SHARD.match(file.name):
            shards.setdefault((shard[1], int(shard[3])), set()).add(shard[2])
    for (name, total), numbers in shards.items():
        if len(numbers) != total:
            raise MissingFile(
                f"dataset hub: {folder} has {len(numbers)} of the {total} files {name}-*; fetch "
                "the rest"
            )
