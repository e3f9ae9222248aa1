"""The arms of finished runs with other samplers: does a comparison rest on its sampler?

    PYTHONPATH=tests python -m bench.samplers runs/self_guidance/seed0-... runs/self_guidance/...

It makes a recipe of every chosen arm with every sampler, and runs it as `fw run` would in the
folder of the run, so that trainings and feature spaces are shared and samples and scores are fw's
own. The report and figures of that recipe lie beside those of the run, under `NAME-samplers`. Of
several runs (those of other seeds), the table has means and standard deviations over them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from bench.table import Scores, cell, legend, markdown
from fw.core.errors import FwError
from fw.core.execution.options import Options
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe import checks
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import Source
from fw.core.run.finished import FinishedRun
from fw.core.run.run import run as run_plan
from fw.core.stages.train import TrainDenoiser
from fw.core.store.store import Store
from fw.registry import installed

ARMS = ("unconditional", "self_1.0", "self_1.5", "oracle_1.5")

SAMPLERS = (
    *("dpmpp:10", "dpmpp:20", "dpmpp:40", "ddim:50", "heun:18"),
    *("ddpm:50", "ddpm:100", "ddpm:250"),
)


class Way(NamedTuple):
    """A sampler and its number of steps; its other fields are at their defaults."""

    sampler: str
    steps: int

    @staticmethod
    def read(text: str) -> Way:
        name, colon, steps = text.partition(":")
        if not (name and colon and steps.isdecimal()):
            raise argparse.ArgumentTypeError(f"expected NAME:STEPS, such as dpmpp:20, not {text}")
        return Way(name, int(steps))

    def __str__(self) -> str:
        return f"{self.sampler} {self.steps}"

    def arm(self, name: str) -> str:
        """What an arm that is sampled in this way is called."""
        return f"{name}-{self.sampler}-{self.steps}"

    def section(self) -> dict[str, Any]:
        return {"name": self.sampler, "steps": self.steps}


def main(words: Sequence[str] | None = None) -> int:
    given = arguments(words)
    try:
        found = [
            sampled(FinishedRun(path), given.arms, given.samplers, given.jobs)
            for path in given.runs
        ]
    except FwError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(table(found, given.arms, given.samplers))
    return 0


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.samplers", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument(
        "--samplers", nargs="+", type=Way.read, default=list(map(Way.read, SAMPLERS))
    )
    parser.add_argument("--jobs", type=int, help="stages side by side [a CPU core each]")
    return parser.parse_args(words)


def sampled(
    run: FinishedRun, arms: Sequence[str], ways: Sequence[Way], jobs: int | None = None
) -> dict[str, Scores]:
    """The scores of the arms of the made recipe, by their names; FwError if a training is not
    there."""
    recipe = made(run, arms, ways)
    planned = plan(recipe)
    check_trained(run, planned)
    console = Console(stderr=True)
    warnings = list(map(str, checks.warnings(recipe)))
    options = Options(run.root, "cpu", jobs)
    result, failure = run_plan(recipe, planned, options, warnings, console)
    if failure is not None:
        raise failure
    return {name: scores(arm) for name, arm in result["arms"].items()}


def made(run: FinishedRun, arms: Sequence[str], ways: Sequence[Way]) -> Recipe:
    """The run's recipe with every arm sampled in every way."""
    source = run.source()
    data, written = source.data, source.data["arms"]
    if unknown := [name for name in arms if name not in written]:
        raise FwError(f"{run.path}: no arm {unknown[0]} (known: {', '.join(written)})")
    first = data["baseline"] if data["baseline"] in arms else arms[0]
    whole = {
        **data,
        "name": f"{data['name']}-samplers",
        "tracker": None,
        "baseline": ways[0].arm(first),
        "arms": {
            way.arm(name): {**written[name], "sampler": way.section()}
            for name in arms
            for way in ways
        },
    }
    return validate(Source(str(run.path), whole), installed())


def check_trained(run: FinishedRun, planned: Plan) -> None:
    """FwError unless every network is in the store, whole."""
    store = Store(Options(run.root).store)
    for stage in planned.stages.values():
        if isinstance(stage, TrainDenoiser) and store.status(stage.id).state != "done":
            raise FwError(
                f"{run.path}: its '{stage.title}' is not there for this version of fw: run its "
                "recipe again"
            )


def scores(arm: dict[str, Any]) -> Scores:
    """Those of an arm in run.json."""
    keys = ("fd_classifier", "fd_pca", "precision")
    if absent := [key for key in keys if key not in arm["metrics"]]:
        raise FwError(f"the table is of {', '.join(keys)}, and the recipe scores no {absent[0]}")
    return Scores(*(arm["metrics"][key]["mean"] for key in keys), nfe=arm["nfe"])


def table(found: Sequence[dict[str, Scores]], arms: Sequence[str], ways: Sequence[Way]) -> str:
    rows = [
        [str(way), *(cell([run[way.arm(name)] for run in found]) for name in arms)] for way in ways
    ]
    return f"{markdown(['sampler', *arms], rows)}\n\n{legend(len(found))}"


if __name__ == "__main__":
    sys.exit(main())
