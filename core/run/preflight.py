"""What can be known to fail before anything is computed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from fw.core.errors import FwError
from fw.core.execution.place import Place
from fw.core.machine.memory import in_words
from fw.core.plan.graph import Plan
from fw.core.stages.base import Stage


def preflight(plan: Plan, finished: Collection[str], place: Place) -> None:
    """Let every component that still has work look for its files; FwError says all that is
    missing, which batches have too few images for so many ranks, and which stages take more memory
    than they may by arithmetic alone."""
    missing = [stage for stage in plan.stages.values() if stage.id not in finished]
    distinct = {repr(component): component for stage in missing for component in stage.components}
    problems = [
        f"--ranks {place.ranks}: {stage.title} divides batches of {stage.splits} images, so at "
        f"most {stage.splits} ranks can do it"
        for stage in missing
        if stage.splits is not None and stage.splits < place.ranks
    ]
    for component in distinct.values():
        try:
            component.preflight()
        except FwError as error:
            problems.append(str(error))
    if place.max_memory is not None and place.device == "cpu":
        problems += cramped(missing, place.max_memory, place.batch)
    if problems:
        raise FwError("\n".join(dict.fromkeys(problems)))


def cramped(missing: Iterable[Stage], most: int, batch: int | None) -> Iterator[str]:
    """The stages that take more than so many bytes by arithmetic alone."""
    for stage in missing:
        if (least := stage.least_memory(batch)) > most:
            yield (
                f"{stage.title}: it takes at least {in_words(least)} of memory, and --max-memory "
                f"is {in_words(most)}: {stage.lighter}"
            )
