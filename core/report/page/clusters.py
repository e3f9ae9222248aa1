"""Galleries of classes: real images of a class beside samples that were drawn for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fw.core.diffusion.generate import conditions
from fw.core.plan.graph import ArmPlan
from fw.core.report.page.marks import Mark
from fw.core.report.page.material import Material
from fw.core.report.page.pictures import Picture, sheet
from fw.core.stages.annotate import ANNOTATION
from fw.core.stages.conditions import load_annotation
from fw.core.stages.prior import BANK
from fw.core.types import Annotation

GALLERIES = 6
ARMS = 6
"""Arms of one gallery."""

CLASSES = 10
"""Classes of one gallery: the largest, the smallest, and some of all sizes between."""

REAL, DRAWN = 8, 6
"""Images of a class: real ones, and samples of each arm."""

LARGEST = 64
CELL = 34


@dataclass(frozen=True)
class Class:
    name: str
    size: int
    real: Picture
    drawn: Sequence[Picture | None]
    """By arm; None where no sample was drawn for the class."""


@dataclass(frozen=True)
class Gallery:
    title: str
    arms: Sequence[tuple[str, Mark]]
    classes: Sequence[Class]
    count: int
    left_out: int


@dataclass(frozen=True)
class Clusters:
    galleries: Sequence[Gallery]
    left_out: int
    cell: int = CELL


def clusters(material: Material) -> Clusters | None:
    """A gallery for each annotation that arms are conditioned on."""
    users: dict[str, list[str]] = {}
    for name, arm in material.finished.items():
        if arm.annotate is not None and arm.arm.has_classes and arm.arm.takes_conditions:
            users.setdefault(arm.annotate, []).append(name)
    made = [gallery(material, users[stage]) for stage in list(users)[:GALLERIES]]
    galleries = [each for each in made if each is not None]
    return Clusters(galleries, max(0, len(users) - GALLERIES)) if galleries else None


def gallery(material: Material, arms: Sequence[str]) -> Gallery | None:
    """The gallery of arms that share an annotation; None if something of it is gone."""
    first = material.finished[arms[0]]
    annotation, real = annotation_of(material, first), material.images("train")
    if annotation is None or real is None or len(real) != len(annotation.conditions):
        return None
    groups = annotation.conditions
    sizes = groups[annotation.known].bincount(minlength=annotation.spec.size)
    chosen = spread(sizes)
    drawn = {name: by_class(material, name, chosen) for name in arms[:ARMS]}
    names = material.result.get("classes") or ()
    classes = [
        Class(
            name=names[each] if first.arm.classes_are_labels and each < len(names) else str(each),
            size=int(sizes[each]),
            real=sheet(real.images[(groups == each).nonzero()[:REAL, 0]], REAL, LARGEST),
            drawn=[found.get(each) for found in drawn.values()],
        )
        for each in chosen
    ]
    shown = [(name, material.marks[name]) for name in drawn]
    return Gallery(source(first), shown, classes, annotation.spec.size, len(arms) - len(drawn))


def source(arm: ArmPlan) -> str:
    """What made an arm's classes, of what."""
    assert arm.arm.annotator is not None
    encoder = arm.arm.conditioner
    return " of ".join([arm.arm.annotator.name, *([] if encoder is None else [encoder.name])])


def annotation_of(material: Material, arm: ArmPlan) -> Annotation | None:
    """An arm's classes, with the bank of its prior; None if they are gone."""
    annotate, prior = arm.drawn.annotate, arm.drawn.prior
    if annotate is None or material.file(annotate.id, ANNOTATION) is None:
        return None
    if prior is not None and material.file(prior.id, BANK) is None:
        return None
    return load_annotation(annotate, prior, material.folder)


def spread(sizes: Tensor) -> list[int]:
    """Some of the classes that have images, by size, evenly spread from the largest to the
    smallest."""
    order = [each for each in sizes.argsort(descending=True, stable=True).tolist() if sizes[each]]
    if len(order) <= CLASSES:
        return order
    places = torch.linspace(0, len(order) - 1, CLASSES).round().long()
    return [order[place] for place in places]


def by_class(material: Material, name: str, classes: Sequence[int]) -> Mapping[int, Picture]:
    """The first samples of an arm that were drawn for each of these classes, if any were."""
    arm = material.finished[name]
    images, annotation = material.samples(arm.drawn), annotation_of(material, arm)
    if images is None or annotation is None:
        return {}
    wanted = conditions(annotation, arm.drawn.seed or 0, 0, range(len(images)))
    assert wanted is not None
    return {
        each: sheet(images[(wanted == each).nonzero()[:DRAWN, 0]], DRAWN, LARGEST)
        for each in classes
        if (wanted == each).any()
    }
