"""Conditions that a user names for images, in place of those that an arm draws."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fw.core.errors import FwError
from fw.core.randomness import Draws
from fw.core.types import Annotation

Condition = int | str | Tensor | Sequence[int | str]
"""The number or the name of a class; for vectors and tokens the number of a training image whose
condition is taken, or the condition itself. Several are taken in turn, image by image."""


@dataclass(frozen=True)
class Given(Annotation):
    """An annotation of which image i gets the i-th condition of the bank, which begins anew at its
    end."""

    def draw(self, draws: Draws) -> Tensor:
        assert self.bank is not None
        return self.bank[torch.tensor([row % len(self.bank) for row in draws.rows])]


def given(
    annotation: Annotation | None, condition: Condition, names: Sequence[str] = ()
) -> Annotation:
    """The same with these conditions for its images; FwError if there are none of the kind.

    `names` are those of the classes, where they have any.
    """
    if annotation is None:
        raise FwError(f"condition {condition}: this arm has no conditions; leave it out")
    if isinstance(condition, Tensor) and condition.is_floating_point():
        bank = themselves(annotation, condition)
    else:
        single = isinstance(condition, str) or not isinstance(condition, Iterable)
        listed = [condition] if single else list(condition)  # type: ignore[arg-type]
        if isinstance(condition, Tensor):
            listed = condition.flatten().tolist()
        bank = by_number(annotation, [number_of(each, names) for each in listed])
    return Given(**vars(replace(annotation, bank=bank)))


def by_number(annotation: Annotation, numbers: Sequence[int]) -> Tensor:
    """The conditions of these numbers (k,): classes, or training images."""
    classes = annotation.spec.form == "class"
    count = annotation.spec.size if classes else len(annotation.conditions)
    what = "classes" if classes else "training images"
    if not numbers:
        raise FwError("condition: name at least one, or leave it out")
    for number in numbers:
        if not 0 <= number < count:
            raise FwError(f"condition {number}: this arm has {count} {what}, from 0")
    listed = torch.tensor(numbers)
    return listed if classes else annotation.conditions[listed]


def themselves(annotation: Annotation, conditions: Tensor) -> Tensor:
    """Conditions as vectors (D,) or (k, D), or as sets of tokens (n, D) or (k, n, D)."""
    known = annotation.conditions
    one = tuple(known.shape[1:])
    shape = tuple(conditions.shape)
    if annotation.spec.form == "class" or one not in (shape, shape[1:]) or 0 in shape:
        wanted = "the number of a class" if not one else f"numbers of shape {one} or (k, *{one})"
        raise FwError(f"condition: this arm takes {wanted}, and this is a tensor of shape {shape}")
    return conditions.detach().to("cpu", known.dtype).reshape(-1, *one)


def number_of(condition: object, names: Sequence[str]) -> int:
    if isinstance(condition, str):
        if condition not in names:
            known = f"known: {', '.join(names)}" if names else "its classes have numbers alone"
            raise FwError(f"condition '{condition}': this arm has no such class ({known})")
        return names.index(condition)
    try:
        if isinstance(condition, bool):
            raise TypeError
        return operator.index(condition)  # type: ignore[arg-type]  # that is what is to be found out
    except TypeError:
        raise FwError(f"condition {condition!r}: it is no whole number from 0") from None
