"""CIFAR-10 from a local folder (Krizhevsky, Learning Multiple Layers of Features from Tiny
Images, 2009)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field

from fw.core.errors import MissingFile
from fw.core.files.download import WebArchive
from fw.core.kinds import Dataset
from fw.core.types import ImageSet, Split
from fw.registry import Download


class Cifar10(Dataset):
    """CIFAR-10, (N, 3, 32, 32), ten classes, 50,000 + 10,000 images; read by torchvision, and
    downloaded by `fw fetch` alone."""

    name: ClassVar[str] = "cifar10"

    root: Path = Field(
        description="the folder that holds cifar-10-batches-py (unpacked cifar-10-python.tar.gz)",
        examples=["data"],
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, 32, 32

    @property
    def classes(self) -> int:
        return 10

    @property
    def class_names(self) -> list[str]:
        return [
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ]

    def identity(self) -> dict[str, Any]:
        return {key: value for key, value in super().identity().items() if key != "root"}

    def preflight(self) -> None:
        """Raise MissingFile unless every file is there and is the original one: they are
        pickles."""
        from torchvision.datasets import CIFAR10
        from torchvision.datasets.utils import check_md5

        folder = self.folder()
        for file, md5 in originals().items():
            if not (folder / file).is_file():
                raise MissingFile(
                    f"dataset cifar10 expects the file {file} in {folder}, where it is not: `fw "
                    f"fetch RECIPE` brings it; or put {CIFAR10.filename} into {folder.parent} and "
                    "unpack it there, or set `root` to the folder that holds cifar-10-batches-py"
                )
            if not check_md5(folder / file, md5):
                raise MissingFile(
                    f"dataset cifar10 does not read {folder / file}: its md5 is not that of the "
                    f"original file, {md5}; remove it and `fw fetch RECIPE` brings the original"
                )

    def downloads(self) -> Iterable[Download]:
        from torchvision.datasets import CIFAR10

        yield WebArchive(
            "CIFAR-10",
            CIFAR10.url,
            self.folder(),
            md5=CIFAR10.tgz_md5,
            members=tuple(originals()),
        )

    def folder(self) -> Path:
        from torchvision.datasets import CIFAR10

        return self.root.expanduser().absolute() / CIFAR10.base_folder

    def how_many(self, split: Split) -> int:
        return 50_000 if split == "train" else 10_000

    def load(self, split: Split) -> ImageSet:
        from torchvision.datasets import CIFAR10

        self.preflight()
        data = CIFAR10(self.root.expanduser(), train=split == "train", download=False)
        images = (
            torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        )  # (N, 32, 32, 3) -> (N, 3, 32, 32)
        return ImageSet(images, torch.tensor(data.targets), self.classes)


def originals() -> dict[str, str]:
    """The files of the data set, and their md5."""
    from torchvision.datasets import CIFAR10

    files = [*CIFAR10.train_list, *CIFAR10.test_list]
    return {**dict(files), CIFAR10.meta["filename"]: CIFAR10.meta["md5"]}
