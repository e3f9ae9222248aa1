"""The rows of a Hugging Face dataset in a local folder, one after the other, with their images
still encoded.

What `save_to_disk` wrote is mapped; parquet files are streamed, so that `datasets` makes no copy of
them in its cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from fw.core.errors import FwError, MissingFile
from fw.core.files.unfinished import checksum
from fw.plugins.datasets.decoded import Source

SAVED = ("dataset_dict.json", "state.json")
"""Files that `save_to_disk` writes beside several splits and beside one."""


@dataclass
class Rows:
    """A column of images and, perhaps, one of labels 0 to `label_count` - 1, in each split of
    the dataset."""

    folder: Path
    config: str | None
    image: str
    label: str | None
    label_count: int

    def read(self, split: str) -> Iterator[Source]:
        """The rows of a split, in order."""
        self.check(split)
        datasets = import_datasets()
        table = self.splits[split].select_columns(
            [self.image, self.label] if self.label else [self.image]
        )
        if isinstance(table.features[self.image], datasets.Image):
            table = table.cast_column(self.image, datasets.Image(decode=False))
        for number, row in enumerate(readable(table, self.folder)):
            yield Source(
                f"row {number} of {split}",
                encoded(row[self.image]),
                self.label_of(row, number, split),
            )

    def check(self, split: str) -> None:
        """Raise MissingFile or FwError if the split or a column is not there, or holds something
        else."""
        if split not in self.splits:
            raise MissingFile(
                f"dataset hub: {self.folder} has no split '{split}' (it has "
                f"{', '.join(self.splits)})"
            )
        features = self.splits[split].features or {}
        for what, column in (("image", self.image), ("label", self.label)):
            if column is not None and column not in features:
                raise FwError(
                    f"dataset hub: {self.folder} has no column '{column}' in split '{split}' (it "
                    f"has {', '.join(features)}); set `{what}`"
                )
        datasets = import_datasets()
        held = features[self.image]
        if not isinstance(held, datasets.Image) and getattr(held, "dtype", None) != "binary":
            raise FwError(
                f"dataset hub: column '{self.image}' holds {held}, not images or their files' bytes"
            )
        if self.label:
            check_labels(features[self.label], self.label, self.label_count)

    def count(self, split: str) -> int | None:
        """How many rows a split has, where that is known without reading it."""
        self.check(split)
        return getattr(self.splits[split], "num_rows", None)

    def check_apart(self, train: str, test: str) -> None:
        """Raise MissingFile if two splits have a file in common, by its name, a link or its
        bytes."""
        trained, held_out = (self.files(split) for split in (train, test))
        sizes = {file.stat().st_size for file in trained}
        known: dict[str, Path] = {}
        for file in held_out:
            if file.stat().st_size in sizes:
                known = known or {checksum(each): each for each in trained}
                if same := known.get(checksum(file)):
                    raise MissingFile(
                        f"dataset hub: the splits '{train}' and '{test}' share a file ({same.name} "
                        f"is {file.name}): name another split, or split one with `held_out`"
                    )

    def files(self, split: str) -> list[Path]:
        """The files that hold a split, as far as that is known."""
        if (self.folder / SAVED[0]).exists():
            return [
                path for path in sorted((self.folder / split).glob("*.arrow")) if path.is_file()
            ]
        if (self.folder / SAVED[1]).exists():
            return []  # one split alone
        datasets = import_datasets()
        try:
            data_files = (
                datasets.load_dataset_builder(str(self.folder), name=self.config).config.data_files
                or {}
            )
        except Exception as error:  # whatever it makes of the files
            raise MissingFile(
                f"dataset hub cannot read {self.folder}: {first_line(error)}"
            ) from error
        return [path for name in data_files.get(split, ()) if (path := Path(str(name))).is_file()]

    def label_names(self, split: str) -> list[str]:
        """The names of the labels; empty where they have none."""
        self.check(split)
        return list(getattr(self.splits[split].features[self.label], "names", None) or ())

    @cached_property
    def splits(self) -> Any:
        """The dataset's splits by name; raises MissingFile."""
        datasets = import_datasets()
        try:
            if any((self.folder / name).exists() for name in SAVED):
                saved = datasets.load_from_disk(str(self.folder))
                return saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
            return datasets.load_dataset(str(self.folder), name=self.config, streaming=True)
        except Exception as error:  # whatever it makes of the files
            raise MissingFile(
                f"dataset hub cannot read {self.folder}: {first_line(error)}"
            ) from error

    def label_of(self, row: Any, number: int, split: str) -> int:
        if self.label is None:
            return 0
        label = row[self.label]
        if not isinstance(label, int) or not 0 <= label < self.label_count:
            raise FwError(
                f"dataset hub: row {number} of split '{split}' has {label!r} in '{self.label}', "
                f"not one of 0 to {self.label_count - 1}"
            )
        return label


def readable(table: Iterable[dict[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of the table; MissingFile where they cannot be read."""
    try:
        yield from table
    except Exception as error:  # pyarrow's, datasets' or the system's
        raise MissingFile(f"dataset hub cannot read {folder}: {first_line(error)}") from error


def check_labels(feature: Any, column: str, count: int) -> None:
    names = getattr(feature, "names", None)
    if names is not None and len(names) != count:
        raise FwError(
            f"dataset hub: column '{column}' has {len(names)} classes, and `label_count` is {count}"
        )
    if names is None and "int" not in str(getattr(feature, "dtype", "")):
        raise FwError(f"dataset hub: column '{column}' holds {feature}, not whole numbers")


def encoded(value: Any) -> bytes | Path:
    """The content of a cell: bytes, `{bytes, path}`, or nothing, which is then no image."""
    if isinstance(value, dict):
        value = value["bytes"] if value["bytes"] is not None else Path(value["path"])
    return b"" if value is None else value


def import_datasets() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise FwError(
            f"dataset hub needs the package datasets ({error}): pip install 'fw[hub]'"
        ) from None
    return datasets


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
