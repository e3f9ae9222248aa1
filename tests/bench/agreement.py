"""Do metrics rank the arms of a finished run alike, and of how many samples?

    PYTHONPATH=tests python -m bench.agreement runs/self_guidance/latest

It scores sets of the run's samples by many metrics, in the run's own feature spaces, without
sampling anything again. A cell has Kendall's tau between the arms' order by that metric, of sets of
n samples, and their order by the Frechet distance of all samples; then, in brackets, with its own
order of all samples. Either is a mean and a standard deviation over sets of which none shares a
sample, but for the last column, which has one set. 1 is the same order, 0 is no relation, and
training again would change all of them: it is one training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from rich.console import Console
from scipy.stats import kendalltau

from bench.table import markdown
from fw.core.errors import FwError
from fw.core.execution.options import Options
from fw.core.kinds import Metric
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import Source
from fw.core.run.finished import FinishedRun
from fw.core.run.missing import finish
from fw.core.stages.encode import load_features
from fw.core.stages.evaluate import Evaluate
from fw.core.stages.reference import load_measured
from fw.core.stages.sample import Sample
from fw.core.stages.train import TrainDenoiser
from fw.core.store.store import Store
from fw.core.types import Reference
from fw.registry import installed

METRICS: tuple[dict[str, Any], ...] = (
    *({"name": name, "space": space} for name in ("fd", "mind") for space in ("classifier", "pca")),
    {"name": "kid", "space": "classifier", "subsets": 20},
    {"name": "cmmd", "space": "classifier"},
    {"name": "fld", "space": "classifier"},
    {"name": "inception_score", "space": {"name": "classifier", "features": "logits"}},
    {"name": "prdc", "space": "classifier"},
    {"name": "memorisation", "space": "pca"},
    {"name": "authpct", "space": "pca"},
)

COUNTS = (360, 1000, 3000, 5000)

Scores = Mapping[int, Sequence[Sequence[float]]]
"""Of one key: for each number of samples, for each set of so many, the scores of the arms; a higher
one is better."""


def main(words: Sequence[str] | None = None) -> int:
    given = arguments(words)
    try:
        run = FinishedRun(given.run)
        scores = scored(judged(run), run.root, given.counts, given.sets)
        print(table(scores, given.against))
    except FwError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.agreement", description=__doc__)
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), metavar="N")
    parser.add_argument("--sets", type=int, default=8, help="sets of each size, at most [8]")
    parser.add_argument("--against", default="fd_classifier", metavar="KEY")
    return parser.parse_args(words)


def judged(run: FinishedRun) -> Recipe:
    """The run's recipe with other metrics."""
    source = run.source()
    whole = {**source.data, "metrics": list(METRICS), "probes": [], "tracker": None}
    return validate(Source(str(run.path), whole), installed())


def scored(recipe: Recipe, root: Path, counts: Sequence[int], sets: int) -> dict[str, Scores]:
    """What the metrics find of sets of each size, and of all samples of an arm at once, by key."""
    options = Options(root, "cpu", jobs=1)
    store, planned = Store(options.store), plan(recipe)
    for stage in planned.stages.values():
        made = isinstance(stage, TrainDenoiser | Sample)
        if made and store.status(stage.id).state != "done":
            raise FwError(
                f"{root}: '{stage.title}' is not there for this version of fw: run its recipe again"
            )
    before = {id: each for id, each in planned.stages.items() if not isinstance(each, Evaluate)}
    finish(recipe, Plan(before), options, Console(stderr=True))
    found: dict[str, Scores] = {}
    for metric in recipe.metrics:
        arms = [
            stage
            for arm in planned.arms.values()
            for stage in arm.judged
            if isinstance(stage, Evaluate) and stage.metric == metric
        ]
        print(f"{metric.name} in {metric.space.name} space", file=sys.stderr)
        found |= by_metric(metric, store, arms, counts, sets)
    return found


def by_metric(
    metric: Metric, store: Store, arms: Sequence[Evaluate], counts: Sequence[int], most: int
) -> dict[str, Scores]:
    first = arms[0]
    real = load_features(store.path(first.space.id))
    measured = None if first.reference is None else load_measured(store.path(first.reference.id))
    prepared = metric.prepare(Reference(real["train"], real["test"], measured=measured))
    samples = [
        torch.cat(
            [
                arm.features.of_seed(store.path(arm.features.id), seed, store.root)
                for seed in range(arm.samples.seeds)
            ]
        )
        for arm in arms
    ]
    every = len(samples[0])
    if max(counts) > every:
        raise FwError(f"an arm has {every} samples in all, and --counts asks for {max(counts)}")
    found: dict[str, dict[int, list[list[float]]]] = {key: {} for key in metric.keys}
    for count in (*counts, every):
        for rows in (part for part, _ in zip(parts(every, count), range(most), strict=False)):
            scores = [metric.compare(prepared, each[rows]) for each in samples]
            for key, better in metric.keys.items():
                sign = 1 if better == "higher" else -1
                found[key].setdefault(count, []).append([sign * each[key] for each in scores])
    return dict(found)


def parts(every: int, count: int) -> Iterator[slice]:
    return (slice(start, start + count) for start in range(0, every - count + 1, count))


def table(scores: Mapping[str, Scores], against: str) -> str:
    if against not in scores:
        raise FwError(f"--against {against}: no such key (known: {', '.join(scores)})")
    [reference] = at_most(scores[against])
    counts = list(scores[against])
    heads = ["key", *(f"n = {count:,}" for count in counts)]
    rows = []
    for key, by_count in scores.items():
        [own] = at_most(by_count)
        cells = [
            f"{over(by_count[count], reference)} ({over(by_count[count], own)})" for count in counts
        ]
        rows.append([f"`{key}`", *cells])
    return markdown(heads, rows)


def at_most(scores: Scores) -> Sequence[Sequence[float]]:
    """Those of all samples at once."""
    return scores[max(scores)]


def over(sets: Sequence[Sequence[float]], order: Sequence[float]) -> str:
    """The mean and the standard deviation of tau between the order in each set and this one."""
    taus = [tau(each, order) for each in sets]
    spread = f" ± {stdev(taus):.2f}" if len(taus) > 1 else ""
    return f"{fmean(taus):.2f}{spread}"


def tau(one: Sequence[float], other: Sequence[float]) -> float:
    """Kendall's, with ties; 0 where all arms are equal, so that there is no order."""
    if len(set(one)) == 1 or len(set(other)) == 1:
        return 0.0
    return float(kendalltau(one, other).statistic)


if __name__ == "__main__":
    sys.exit(main())
