"""Samples on the way of a training: the same noise after each snapshot, from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fw.core.plan.graph import ArmPlan
from fw.core.report.page.marks import Mark
from fw.core.report.page.material import Material
from fw.core.report.page.pictures import Picture, sheet
from fw.core.report.snapshots import spread

ARMS = 12

ROWS, ACROSS = 8, 8
"""Snapshots of an arm, and samples of each."""

LARGEST = 64
CELL = 40


@dataclass(frozen=True)
class Way:
    name: str
    mark: Mark
    steps: Sequence[int]
    picture: Picture


@dataclass(frozen=True)
class Steps:
    arms: Sequence[Way]
    left_out: int
    cell: int = CELL


def steps(material: Material) -> Steps | None:
    """None where no training kept snapshots."""
    arms = {name: arm for name, arm in material.finished.items() if arm.snapshots}
    made = [way(material, name, arms[name]) for name in list(arms)[:ARMS]]
    ways = [each for each in made if each is not None]
    return Steps(ways, max(0, len(arms) - ARMS)) if ways else None


def way(material: Material, name: str, arm: ArmPlan) -> Way | None:
    drawn = {each.step: material.samples(each.drawn) for each in spread(arm.snapshots, ROWS)}
    there = {step: images[:ACROSS] for step, images in drawn.items() if images is not None}
    if not there:
        return None
    across = min(map(len, there.values()))
    images = torch.cat([images[:across] for images in there.values()])
    return Way(name, material.marks[name], list(there), sheet(images, across, LARGEST))
