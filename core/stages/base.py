"""What a stage is: one unit of stored work, as a typed object that owns all that is to be said of
it.

Its key comes from its fields (stages/keys.py), its version and the stages that it reads. How it is
run (device, jobs, folders) is in no field, so it is in no key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from fw.core.job import Job
from fw.core.stages.keys import digest, identity
from fw.registry import NOTHING, Component, Supervision
from fw.registry.component import components_in
from fw.registry.supervision import strongest

Products = Callable[["Stage"], Path]
"""Gives the folder of a finished stage."""


class ReportSection(NamedTuple):
    """A part of the report for scores that compare no arms: its key in run.json, and the text above
    its table."""

    name: str
    title: str
    about: str


@dataclass(frozen=True, eq=False)
class Stage(ABC):
    """See the module's docstring. A subclass adds its fields, its facts and `run`."""

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised when the stage's code gives other results for the same components."""
    cost: ClassVar[int] = 1
    """A rough relative cost, for choosing what to start first."""
    teams: ClassVar[bool] = False
    """Whether several processes can do it together (core/machine/team.py)."""
    lighter: ClassVar[str] = "take fewer or smaller images"
    """What makes it take less memory: the end of a sentence, about settings that a user has."""
    files: ClassVar[tuple[str, ...]]
    """The files of its product, optional ones included; `*` stands for numbers."""

    seed: int | None = field(default=None, kw_only=True, metadata={"absent": None})
    """The seed of its job; None where nothing is random."""
    note: str = field(default="", kw_only=True, metadata={"unkeyed": True})
    """Ends the title, where several stages would otherwise have the same."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What is done, for people, without the kind."""

    def shared(self, device: str) -> bool:
        """Whether a team is worth its start for this stage, on such devices."""
        return self.teams

    @abstractmethod
    def run(self, job: Job, products: Products) -> None:
        """Write the product into the job's folder."""

    def least_memory(self, batch: int | None) -> int:
        """Bytes that it takes at least on a CPU, by arithmetic; 0 where that is not known. `batch`
        is how many images are sampled at once, if that is given."""
        return 0

    @property
    def section(self) -> ReportSection | None:
        """Where the report shows its `quality.json`; None if it has none to show."""
        return None

    @property
    def columns(self) -> Mapping[str, str]:
        """The scores in its `scores.json` that are one number each, with `lower` or `higher`."""
        return {}

    @property
    def title(self) -> str:
        return ", ".join(filter(None, [f"{self.kind} {self.label}", self.note]))

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.key}"

    @cached_property
    def key(self) -> str:
        return digest(self.payload)

    @cached_property
    def payload(self) -> dict[str, Any]:
        """What the key is made of."""
        return {"stage": self.kind, "version": self.version, **self._parts(), "inputs": self.inputs}

    @cached_property
    def inputs(self) -> dict[str, str]:
        """The ids of the stages that it reads, by role."""
        return {role: stage.id for role, stage in self.reads}

    @property
    def reads(self) -> Iterator[tuple[str, Stage]]:
        """The stages that it reads, by role."""
        for each in fields(self):
            value, role = getattr(self, each.name), each.metadata.get("role") or each.name
            if isinstance(value, Stage):
                yield role, value
            elif each.metadata.get("input") and isinstance(value, tuple):
                yield from (
                    (f"{role} {place}", stage)
                    for place, stage in enumerate(value)
                    if stage is not None
                )

    @property
    def splits(self) -> int | None:
        """The images of the smallest batch that a team divides among its ranks; None if it divides
        none."""
        return None

    @property
    def labels(self) -> Supervision:
        """The labels that it is given itself."""
        return NOTHING

    @cached_property
    def supervision(self) -> Supervision:
        """The strongest that any weights in its product were trained with, here or before: what is
        noted where they are stored."""
        brought = (component.own_supervision for component in self.components)
        return strongest([self.labels, *brought, *(stage.supervision for _, stage in self.reads)])

    @property
    def components(self) -> Iterator[Component]:
        """The components in its fields, however deep."""
        for each in fields(self):
            yield from components_in(getattr(self, each.name))

    def _parts(self) -> dict[str, Any]:
        parts = {}
        for each in fields(self):
            value, metadata = getattr(self, each.name), each.metadata
            if metadata.get("unkeyed") or metadata.get("input") or isinstance(value, Stage):
                continue
            if "absent" not in metadata or value != metadata["absent"]:
                parts[metadata.get("name") or each.name] = identity(value)
        return parts
