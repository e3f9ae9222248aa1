"""What a user should know of a data set before it is trained on: what it says of itself, and
whether the held-out images are new. Found out once for a data set and remembered in the store, so
that every run says it again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fw.core.features.fingerprints import fingerprints
from fw.core.files import sealed
from fw.core.kinds import Dataset
from fw.core.kinds.boundaries import checked_images
from fw.core.machine.isolation import stock_state
from fw.core.stages.keys import digest, identity
from fw.core.types import SPLITS, ImageSet

RULE = 1
"""Raise it when other things are found out: what is remembered is found out again."""


class Findings(NamedTuple):
    """Warnings of a data set, and its classes by name, in the order of their numbers."""

    warnings: list[str]
    class_names: list[str]


def examine(dataset: Dataset, store: Path) -> Findings:
    """What is found of the data set; nothing, if it cannot be loaded: the stage that needs it says
    why."""
    memory = store / "splits" / f"{digest(identity(dataset))}.json"
    values = sealed.read(memory)
    if values is None or values.get("rule") != RULE:
        try:
            with stock_state(0, torch.device("cpu"), torch.get_num_threads()):
                values = look(dataset)
            memory.parent.mkdir(exist_ok=True)
            sealed.write(memory, values)
        except Exception:  # whatever a data set makes of its files, or a full disk
            return Findings([], [])
    return Findings([f"dataset: {text}" for text in said(dataset, values)], values["class_names"])


def look(dataset: Dataset) -> dict[str, Any]:
    """Load both splits and compare them."""
    train, test = (checked_images(dataset, dataset.load(split), split) for split in SPLITS)
    return {
        "rule": RULE,
        "repeated": repeated(train, test),
        "held_out": len(test),
        "remarks": [" ".join(str(text).split()) for text in dataset.remarks()],
        "class_names": [" ".join(str(name).split()) for name in dataset.class_names],
    }


def said(dataset: Dataset, values: dict[str, Any]) -> Iterator[str]:
    yield from values["remarks"]
    if values["repeated"]:
        remedy = (
            "; `drop_repeats: true` trains without them" if hasattr(dataset, "drop_repeats") else ""
        )
        yield (
            f"{values['repeated']:,} of {values['held_out']:,} held-out images are also in the "
            "training split (equal pixels), which flatters probes and the floor, and distances of "
            f"a model that repeats them{remedy}"
        )


def repeated(train: ImageSet, test: ImageSet) -> int:
    """How many held-out images are equal to a training image."""
    held_out = list(fingerprints(test.images))
    wanted = set(held_out)
    both = {each for each in fingerprints(train.images) if each in wanted}
    return sum(each in both for each in held_out)
