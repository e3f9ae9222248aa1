"""`fw reproduce --again`: the recipe of a run, run anew in another folder, and the keys, bits and
scores of both compared."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from fw.core.commands.logged import logged_recipe
from fw.core.errors import FwError
from fw.core.execution.options import Options
from fw.core.files.layout import STORE
from fw.core.plan.assembly import plan as plan_all
from fw.core.plan.graph import Plan
from fw.core.report.agreement import Line, bits, key, scores
from fw.core.run.finished import FinishedRun
from fw.core.run.run import run as run_plan
from fw.core.store.store import Store


def rerun(run: FinishedRun, out: Path | None, options: Options, console: Console) -> list[Line]:
    """What was logged beside what its recipe gives anew, in the folder `out` or in one that is
    deleted afterwards. What an earlier try left in `out` is continued."""
    logged = run.results()
    if out is not None and (out / STORE).resolve() == run.store.root.resolve():
        raise FwError(f"--out {out}: the run itself lies there; name another folder, or none")
    recipe = logged_recipe(run, logged)
    scored = [name for name, arm in logged["arms"].items() if arm["metrics"]]
    if not scored:
        raise FwError(f"{run.path}: it has no scores yet; run its recipe again")
    plan = plan_all(recipe, scored)
    place: AbstractContextManager[Path | str] = (
        tempfile.TemporaryDirectory(prefix="fw-reproduce-", ignore_cleanup_errors=True)
        if out is None
        else nullcontext(out)
    )
    with place as folder:
        options = replace(options, out=Path(folder))
        made, failure = run_plan(recipe, plan, options, [], console)
        if failure is not None:
            raise failure
        return [
            *keys(logged, made, scored),
            *products(plan, run.store, Store(options.store)),
            *scores(logged, made, {}),
        ]


def keys(logged: Mapping[str, Any], made: Mapping[str, Any], arms: list[str]) -> Iterator[Line]:
    for arm in arms:
        for kind in ("train_key", "sample_key"):
            before, now = (record["arms"][arm].get(kind, "") for record in (logged, made))
            yield key(arm, kind, str(before), now)


def products(plan: Plan, before: Store, now: Store) -> Iterator[Line]:
    """Whether the stages that both stores have are the same in every bit."""
    for stage in plan.stages.values():
        if before.readable(stage.id):
            digests = before.digest(stage.id), now.digest(stage.id)
            yield bits(plan.users(stage.id), stage.title, *digests)
