"""What supervised the weights of a component and of those in its fields, and which one brings
them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fw.registry import Component, Supervision


class Brought(NamedTuple):
    """Weights from before fw: what supervised them, and the component that brings them, which is
    `whole` or in a field of it."""

    supervision: Supervision
    part: Component
    whole: Component

    @property
    def whose(self) -> str:
        own, around = (f"{each.kind} '{each.name}'" for each in (self.part, self.whole))
        return own if self.part is self.whole else f"{own} in {around}"

    def __str__(self) -> str:
        known = {
            "labels": f"the weights of {self.whose} have seen {self.supervision}",
            "captions": f"the weights of {self.whose} have seen captions, which may name classes",
            "unknown": f"it is not known what the weights of {self.whose} have seen",
            "nothing": f"the weights of {self.whose} have seen no labels",
        }[self.supervision.kind]
        return f"{known} ({self.supervision.remark})" if self.supervision.remark else known


def brought_by(component: Component) -> Brought:
    """The strongest of what supervised its own weights and those of the components in its fields,
    however deep."""
    parts = component.within()
    return strongest_of(Brought(part.own_supervision, part, component) for part in parts)


def strongest_of(several: Iterable[Brought]) -> Brought:
    """The strongest of at least one, the first of equal ones."""
    return max(several, key=lambda each: each.supervision.strength)
