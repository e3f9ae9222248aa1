"""`fw clusters`: one arm's annotator at several numbers of clusters K, to choose K without labels.

Nothing is trained but the encoder, and every stage is one that `fw run` would find again. The upper
bound on K is that of arXiv 2403.00570: the largest K of which at least 96 % of the clusters are
used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text
from safetensors.torch import load_file
from torch import Tensor

from fw.core.errors import FwError
from fw.core.execution.options import Options
from fw.core.features.points import different
from fw.core.kinds import Annotator
from fw.core.messages.console import say
from fw.core.messages.escaping import visible
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.arm import Arm
from fw.core.recipe.model import Override, Recipe
from fw.core.run.missing import finish
from fw.core.stages.annotate import Annotate
from fw.core.stages.base import Stage
from fw.core.store.store import Store
from fw.core.types import Annotation

LADDER = (10, 20, 50, 100, 200, 500, 1000)
"""The numbers of clusters that are tried unless others are named, as far as there are twice as
many images."""

USED = 0.96
"""The share of clusters that have to be used (arXiv 2403.00570)."""

BELOW = (1.5, 5.0)
"""The bound divided by the best K by Frechet distance, on three data sets (arXiv 2403.00570)."""

FOR_READING = ("nmi", "ari")

DIGITS = 18
"""A number of clusters with more is a slip of the finger."""


def survey(
    recipe: Recipe, arm: str | None, counts: Sequence[int], options: Options, console: Console
) -> dict[str, Any]:
    """What `fw clusters` answers, as JSON: for each K what the annotator makes of the arm's
    features."""
    arm = arm or sweepable(recipe)
    annotator = annotator_of(recipe, arm)
    store = Store(options.store)
    as_written = swept(recipe, arm, [annotator])
    encode = next(iter(as_written.stages))
    finish(recipe, Plan({encode: as_written.stages[encode]}), options, console, every_byte=True)
    features = load_file(store.product(encode) / "features.safetensors")["train"]  # (N, D)
    most = min(len(features) // 2, different(features, max(LADDER)))
    chosen = sorted(set(counts)) or [count for count in LADDER if count <= most]
    if chosen and chosen[-1] > len(features):
        raise FwError(
            f"-k {chosen[-1]}: {chosen[-1]} clusters need as many images, and there are "
            f"{len(features)}"
        )
    if not chosen:
        raise FwError(
            f"-k: name numbers of clusters that fit; there are only {len(features)} images"
        )
    wanted = swept(recipe, arm, [with_clusters(annotator, count) for count in chosen])
    finish(recipe, wanted, options, console, every_byte=True)
    rows = [measured(store, stage, features) for stage in wanted.stages if stage != encode]
    enough = [row["clusters"] for row in rows if row["used"] >= USED]
    return {
        "recipe": recipe.name,
        "arm": arm,
        "annotator": annotator.spec(),
        "images": len(features),
        "spread": spread(features, torch.zeros(len(features), dtype=torch.int64), 1),
        "rows": rows,
        "upper_bound": max(enough, default=None),
        "bound_is_largest_tried": bool(enough) and max(enough) == rows[-1]["clusters"],
    }


def sweepable(recipe: Recipe) -> str:
    """The first arm whose annotator clusters features."""
    for name in recipe.arms:
        if clusters_features(recipe.arm(name)):
            return name
    raise FwError(
        f"recipe '{recipe.name}': no arm's annotator clusters features (such as kmeans, with its "
        "`clusters`)"
    )


def annotator_of(recipe: Recipe, name: str) -> Annotator:
    """The arm's annotator, if it clusters features."""
    if name not in recipe.arms:
        raise FwError(
            f"--arm {name}: no such arm in recipe '{recipe.name}' (known: {', '.join(recipe.arms)})"
        )
    arm = recipe.arm(name)
    if arm.annotator is None or not clusters_features(arm):
        has = (
            f"annotator '{arm.annotator.name}', which does not cluster features"
            if arm.annotator
            else "no annotator"
        )
        raise FwError(f"--arm {name}: it has {has}; name another arm")
    return arm.annotator


def clusters_features(arm: Arm) -> bool:
    annotator = arm.annotator
    return (
        annotator is not None
        and arm.conditioner is not None
        and annotator.form == "class"
        and "clusters" in type(annotator).model_fields
    )


def numbers(text: str) -> list[int]:
    """The numbers in `10,20,50`."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and len(word) <= DIGITS for word in words):
        raise FwError(
            f"-k {text}: numbers of clusters with commas between them, such as -k 10,20,50"
        )
    return [int(word) for word in words]


def with_clusters(annotator: Annotator, count: int) -> Annotator:
    try:
        return annotator.model_validate({**dict(annotator), "clusters": count})
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise FwError(
            f"-k {count}: annotator '{annotator.name}': {reason[0].lower()}{reason[1:]}"
        ) from None


def swept(recipe: Recipe, name: str, annotators: Sequence[Annotator]) -> Plan:
    """The encode stage of the arm, and its annotate stages with each of the annotators, in this
    order."""
    override = recipe.arms[name]
    given = {section: getattr(override, section) for section in override.model_fields_set}
    arms = {
        f"arm{number}": Override(**{**given, "annotator": each})
        for number, each in enumerate(annotators)
    }
    whole = plan(recipe.model_copy(update={"arms": arms}))
    chosen = Plan()
    for arm in whole.arms.values():
        for stage in (arm.encode, arm.annotate):
            assert stage is not None  # the annotator clusters features
            chosen.stages[stage] = counted(whole.stages[stage])
    return chosen


def counted(stage: Stage) -> Stage:
    """The stage with K in its title, so that messages about several are told apart."""
    clusters = getattr(stage.annotator, "clusters", None) if isinstance(stage, Annotate) else None
    return replace(stage, note=f"{clusters} clusters") if clusters else stage


def measured(store: Store, stage: str, features: Tensor) -> dict[str, Any]:
    """One K: what its annotate stage found out, and how far images are from the means of their
    clusters."""
    annotation = Annotation.load(store.product(stage) / "annotation.safetensors")
    quality = store.read(stage, "quality.json")
    ids, clusters = annotation.conditions, annotation.spec.size
    return {
        "clusters": clusters,
        "used": quality["used"],
        "balance": quality["balance"],
        "smallest": int(ids.bincount(minlength=clusters).min()),
        "spread": spread(features, ids, clusters),
        "with_labels": {key: quality[key] for key in FOR_READING if key in quality},
    }


def spread(features: Tensor, ids: Tensor, clusters: int) -> float:
    """The mean distance of features (N, D) to the mean of their cluster, ids (N,)."""
    sizes = ids.bincount(minlength=clusters).clamp(min=1)  # (K,)
    means = (
        features.new_zeros(clusters, features.shape[1]).index_add_(0, ids, features)
        / sizes[:, None]
    )  # (K, D)
    return float((features - means[ids]).norm(dim=1).mean())


def show(answer: Mapping[str, Any], console: Console) -> None:
    """The answer as a table, the bound in words, and what the labels are good for here."""
    labelled = [
        key for key in FOR_READING if any(key in row["with_labels"] for row in answer["rows"])
    ]
    title = visible(f"{answer['recipe']}, arm {answer['arm']}: {answer['annotator']['name']}")
    table = Table(title=Text(title), title_justify="left")
    for column in (
        "clusters",
        "used",
        "balance",
        "smallest",
        "spread",
        *(f"({key})" for key in labelled),
    ):
        table.add_column(Text(column), justify="right", no_wrap=True)
    for row in answer["rows"]:
        scores = (row["used"], row["balance"])
        table.add_row(
            str(row["clusters"]),
            *(f"{score:.3f}" for score in scores),
            str(row["smallest"]),
            f"{row['spread']:.3f}",
            *(f"{row['with_labels'][key]:.3f}" for key in labelled),
        )
    console.print(table)
    say(
        console,
        "spread: mean distance of the encoder's features to the mean of their cluster; "
        f"{answer['spread']:.3f} if all {answer['images']} images were one cluster.",
    )
    say(console, bound(answer))
    if labelled:
        say(console, f"({', '.join(labelled)}): for reading only. Choosing K by it uses labels.")


def bound(answer: Mapping[str, Any]) -> str:
    """The rule of arXiv 2403.00570 in words."""
    most = answer["upper_bound"]
    if most is None:
        least = answer["rows"][0]["clusters"]
        return (
            f"Upper bound: below {least}; no K that was tried has {USED:.0%} of its clusters used."
        )
    share = f"{USED:.0%} of its clusters used"
    if answer["bound_is_largest_tried"]:
        return (
            f"Upper bound: not found; even {most} has at least {share}. Try more, and see "
            "`smallest`: k-means and balanced assignments fill almost any number of clusters."
        )
    low, high = (max(1, round(most / factor)) for factor in reversed(BELOW))
    return (
        f"Upper bound: {most}, the largest K with {share} (arXiv 2403.00570). There, the best K by "
        f"Frechet distance was {BELOW[0]:g} to {BELOW[1]:g} times smaller; here: {low} to {high}."
    )
