"""Run a recipe from Python: what `fw run` does, with its options as keywords."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from fw.core.api.arm import check_counts
from fw.core.api.loaded import LoadedRun, load
from fw.core.errors import FwError
from fw.core.execution.options import Options
from fw.core.machine.stopping import shelter_resource_tracker
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import validate
from fw.core.recipe.local_plugins import add_plugins
from fw.core.recipe.shipped import located
from fw.core.recipe.source import Source, dump, parse, read
from fw.core.report import provenance
from fw.core.run.cautions import warned
from fw.core.run.record import run_folder
from fw.core.run.run import run as run_plan
from fw.registry import Component, installed
from fw.registry.once import one_look


def run(
    recipe: str | Path | Mapping[str, Any],
    *,
    set: Mapping[str, Any] | None = None,
    arms: Iterable[str] = (),
    plugins: Iterable[str | Path] = (),
    out: str | Path = "runs",
    device: str = "auto",
    jobs: int | None = None,
    ranks: int | str = 1,
    cluster: str | None = None,
    wait: bool = False,
    workers: int | None = None,
    checkpoint_seconds: float = 20.0,
    batch: int | None = None,
    max_memory: str | None = None,
    keep_dependents: bool = False,
    quiet: bool = False,
) -> LoadedRun:
    """Run a recipe, a file (or the name of one that comes with fw) or its content, and load what it
    has found; again, it continues.

    `set` changes keys of it: `{"train.steps": 200}`. `arms` are some of its arms, and `plugins` are
    plugins in single files; the other keywords are the options of `fw run`, `ranks` "auto" or "2x8"
    as there. What is done is written to stderr unless `quiet`. RecipeError, with
    every fault, if the recipe cannot be run; StageFailed if a stage fails, and Interrupted if it is
    stopped: what was finished is kept.

    Worker processes do not execute the calling script, so that it needs no `if __name__ ==
    "__main__"`.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise FwError(
            "this script is executed by a process that another library started from it: put the "
            'call of `run` under `if __name__ == "__main__":`'
        )
    check_counts({"jobs": (jobs, 1), "workers": (workers, 1), "batch": (batch, 1)})
    console = Console(stderr=True, force_jupyter=False, quiet=quiet)
    shelter_resource_tracker()
    with one_look():
        add_plugins(plugins)
        source = written(recipe)
        source.set(
            [f"{key}={json.dumps(value, default=plain)}" for key, value in (set or {}).items()]
        )
        loaded = validate(source, installed())
        planned = plan(loaded, [arms] if isinstance(arms, str) else list(arms))
        warnings = warned(loaded, planned, console)
        options = Options.of(
            str(ranks),
            max_memory,
            workers,
            out=Path(out).expanduser(),
            device=device,
            jobs=jobs,
            checkpoint_seconds=checkpoint_seconds,
            batch=batch,
            keep_dependents=keep_dependents,
            cluster=cluster,
            wait=wait,
        )
        _, failure = run_plan(loaded, planned, options, warnings, console)
        if failure is not None:
            raise failure
        return load(run_folder(loaded, provenance.files(loaded), options.root))


def written(recipe: str | Path | Mapping[str, Any]) -> Source:
    """The recipe as a file would have it; RecipeError if it is none."""
    if not isinstance(recipe, Mapping):
        return read(located(Path(recipe).expanduser()))
    source = parse(dump(json.loads(json.dumps(recipe, default=plain))), "recipe")
    return Source("recipe", source.data, dict.fromkeys(source.lines, "recipe"))


def plain(value: object) -> Any:
    """What a recipe's text has in the place of a component, a path or a number of numpy."""
    if isinstance(value, Component):
        return value.spec()
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    raise FwError(f"recipe: {value!r} is nothing that a recipe can hold")
