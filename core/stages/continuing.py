"""A training that goes on where a shorter one ended: `train.keep: optimizer`.

With a constant learning rate no step depends on how many there will be. So a training of more steps
begins with those of fewer, and what these left behind is where it is after them: the same weights,
bit for bit, under the same key as without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch

from fw.core.files import unfinished
from fw.core.files.layout import MODEL
from fw.core.job import checkpoint_name
from fw.core.learning.loop import LOG_EVERY
from fw.core.learning.parts.snapshots import average_file, snapshot_file
from fw.core.learning.posthoc import PowerAverage
from fw.core.settings import Train, evenly_spaced

STATE = "training.pt"
"""The last checkpoint of a training: network, averages, optimizer, and the log."""

ON_THE_WAY = ("steps", "snapshots", "averages")
"""What a training may have of its own where it goes on from another."""


def steps_done(train: Train, own: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    """How many steps of `train`, whose key is made of `own`, the training has done whose key is
    made of `other`; 0 if that is another one, or kept less on the way."""
    if without(own) != without(other):
        return 0
    steps, snapshots = other["train"]["steps"], other["train"].get("snapshots", 0)
    if steps >= train.steps:
        return 0
    tracked = set(train.averages) <= set(other["train"].get("averages", ()))
    kept = {*evenly_spaced(snapshots, steps), *(() if train.averages else [steps])}
    needed = {step for step in train.snapshot_steps if step <= steps}
    return steps if tracked and needed <= kept else 0


def without(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What a key is made of, without what may differ."""
    train = {key: value for key, value in payload["train"].items() if key not in ON_THE_WAY}
    return {**payload, "train": train}


def go_on(train: Train, product: Path, steps: int, folder: Path) -> None:
    """Begin a training in `folder` with the product of one of so many steps."""
    for step in train.snapshot_steps:
        if step <= steps:
            for source, name in snapshot(train, step, steps):
                unfinished.keep(folder / name, partial(copyfile, product / source))
    state = torch.load(product / STATE, map_location="cpu", weights_only=True, mmap=True)
    state["log"] = "".join(evenly(state["log"].splitlines(keepends=True)))
    unfinished.keep(folder / checkpoint_name("train"), partial(torch.save, state))


def snapshot(train: Train, step: int, steps: int) -> Iterator[tuple[str, str]]:
    """The files of a snapshot in a product of so many steps, and what the longer training calls
    them."""
    yield MODEL if step == steps else snapshot_file(step), snapshot_file(step)
    for width in train.averages:
        name = average_file(PowerAverage(width, step))
        yield name, name


def evenly(log: list[str]) -> Iterator[str]:
    """The log without the last step, where that was logged only because it was the last."""
    for line in log:
        if json.loads(line)["step"] % LOG_EVERY == 0:
            yield line
