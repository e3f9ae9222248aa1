"""What can be known to fail before anything is computed."""

from __future__ import annotations

from collections.abc import Collection

from fw.core.errors import FwError
from fw.core.plan.graph import Plan


def preflight(plan: Plan, finished: Collection[str], ranks: int = 1) -> None:
    """Let every component that still has work look for its files; FwError says all that is
    missing, and which batches have too few images for so many ranks."""
    missing = [stage for stage in plan.stages.values() if stage.id not in finished]
    distinct = {repr(component): component for stage in missing for component in stage.components}
    problems = [
        f"--ranks {ranks}: {stage.title} divides batches of {stage.splits} images, so at most "
        f"{stage.splits} ranks can do it"
        for stage in missing
        if stage.splits is not None and stage.splits < ranks
    ]
    for component in distinct.values():
        try:
            component.preflight()
        except FwError as error:
            problems.append(str(error))
    if problems:
        raise FwError("\n".join(dict.fromkeys(problems)))
