"""Are samples copies? Those that lie closest to a training image, beside that image, and held-out
images beside theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from fw.core.plan.graph import ArmPlan
from fw.core.report.page.marks import Mark
from fw.core.report.page.material import Material
from fw.core.report.page.pictures import Picture, sheet
from fw.core.stages.encode import FEATURES
from fw.core.stages.evaluate import Evaluate
from fw.core.stages.features import SampleFeatures, features_name
from fw.core.stages.sample import shards

ARMS = 24
FIRST = 100
"""Images of each arm that are compared."""

CLOSEST = 12
"""Of these, the ones that are put on the page."""

BLOCK = 4096
"""Training images that are compared at once."""

EXACT = "donot_use_mm_for_euclid_dist"
"""How torch computes distances from differences, so that copies are at 0."""

LARGEST = 64
CELL = 42


@dataclass(frozen=True)
class Row:
    """Images above the training images that they lie closest to, and the median distance of all
    that were compared in units of that of held-out images."""

    name: str
    mark: Mark | None
    picture: Picture
    median: str


@dataclass(frozen=True)
class Nearest:
    rows: Sequence[Row]
    space: str
    first: int
    """How many samples of an arm were compared."""
    left_out: int
    cell: int = CELL


def nearest(material: Material) -> Nearest | None:
    """The section in one space for all arms; None if something of it is gone."""
    space = chosen(material)
    if space is None:
        return None
    path = material.file(space.space.id, FEATURES)
    train, held_out = (material.images(split) for split in ("train", "test"))
    if path is None or train is None or held_out is None:
        return None
    with safe_open(path, "pt") as file:
        real = file.get_tensor("test")[:FIRST]
    parts: list[tuple[str, Mark | None, Tensor, Tensor]] = []
    for name, arm in list(material.finished.items())[:ARMS]:
        made = compared(material, arm, space)
        if made is not None:
            parts.append((name, material.marks[name], *made))
    if not parts:
        return None
    parts.append(("real held-out images", None, held_out.images[:FIRST], real))
    distances, numbers = found(torch.cat([features for *_, features in parts]), path)
    sizes = [len(features) for *_, features in parts]
    each = list(zip(distances.split(sizes), numbers.split(sizes), strict=True))
    usual = each[-1][0].median()
    rows = [
        Row(name, mark, pairs(images, train.images, *near), ratio(near[0], usual))
        for (name, mark, images, _), near in zip(parts, each, strict=True)
    ]
    left_out = max(0, len(material.finished) - ARMS)
    return Nearest(rows, space.encoder.name, max(sizes[:-1]), left_out)


def chosen(material: Material) -> SampleFeatures | None:
    """The features of the first arm in a space without labels, if it is scored in one: what looks
    alike is nearer there."""
    stages = [
        stage.features
        for arm in material.finished.values()
        for stage in arm.judged
        if isinstance(stage, Evaluate)
    ]
    blind = [stage for stage in stages if not stage.encoder.uses_labels]
    return next(iter(blind or stages), None)


def compared(
    material: Material, arm: ArmPlan, space: SampleFeatures
) -> tuple[Tensor, Tensor] | None:
    """An arm's first samples, and their features (n, D) in the space."""
    stage = next(
        (
            judge.features
            for judge in arm.judged
            if isinstance(judge, Evaluate) and judge.space.id == space.space.id
        ),
        None,
    )
    images = material.samples(arm.drawn)
    if stage is None or images is None:
        return None
    path = material.file(stage.id, features_name(*next(shards(arm.drawn.samples))))
    if path is None:
        return None
    return images[:FIRST], load_file(path)["features"][:FIRST]


def found(features: Tensor, real: Path) -> tuple[Tensor, Tensor]:
    """The distance of each feature (n, D) to the nearest training image and the number of that, by
    the file of the real images' features."""
    least = torch.full((len(features),), torch.inf)
    number = torch.zeros(len(features), dtype=torch.long)
    with safe_open(real, "pt") as file:
        rows = file.get_slice("train")
        for start in range(0, rows.get_shape()[0], BLOCK):
            apart = torch.cdist(features, rows[start : start + BLOCK], compute_mode=EXACT)
            distance, place = apart.min(dim=1)
            nearer = distance < least
            least[nearer], number[nearer] = distance[nearer], place[nearer] + start
    return least, number


def pairs(images: Tensor, train: Tensor, distances: Tensor, numbers: Tensor) -> Picture:
    closest = distances.argsort(stable=True)[:CLOSEST]
    both = torch.cat([images[closest], train[numbers[closest]]])
    return sheet(both, len(closest), LARGEST)


def ratio(distances: Tensor, usual: Tensor) -> str:
    return f"{float(distances.median() / usual):.2f}" if usual > 0 else ""
