"""A row of the table of kinds (`fw.core.kinds.TABLE`)."""

from __future__ import annotations

from dataclasses import dataclass
from string import Template

from fw.registry import Component


@dataclass(frozen=True)
class Kind:
    """All facts about a kind, or about a part of one that has a contract of its own."""

    name: str
    """As `fw new-plugin --kind` and docs/kinds call it."""
    type: type[Component]
    line: str
    """How a recipe names a component of it; `$component` stands for the name."""
    contract: tuple[str, ...] | None = None
    """The files of `fw.core.testing` whose clauses hold; None is the one of this name."""
    template: bool = True
    """Whether there is a template of it, and a page."""

    @property
    def contracts(self) -> tuple[str, ...]:
        return (self.name,) if self.contract is None else self.contract

    @property
    def section(self) -> str:
        """The key of a recipe where it is named."""
        return self.line.partition(":")[0]

    @property
    def listed(self) -> bool:
        """Whether that key holds a list and nothing else."""
        return f"{self.section}: [$" in self.line

    def recipe_line(self, component: str) -> str:
        """The line of a recipe that names a component."""
        return Template(self.line).substitute(component=component)
