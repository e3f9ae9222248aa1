"""Which arms are compared with which: by the recipe's question, or each with the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from fw.core.recipe.model import Recipe
from fw.core.recipe.question import Question
from fw.core.recipe.sampling import baselines

Role = Literal["candidate", "baseline", "control", "ablation", "reference"]

BESIDE: Mapping[str, Role] = {
    "controls": "control",
    "ablations": "ablation",
    "reference": "reference",
}
"""By field of a question, the role of the arms that it names."""


class Comparison(NamedTuple):
    """An arm, what it is compared with, and what that says: the answer (`baseline`), or what is to
    be known beside it."""

    arm: str
    than: str
    role: Role
    stated: bool = False
    """Whether the recipe's question names both; else a baseline with another sampler may take the
    place of the baseline."""


def comparisons(recipe: Recipe) -> list[Comparison]:
    """What the verdict of a run compares; one family, whose decisions share one level.

    Without a question that is each arm with the baseline, but for controls. They cannot win,
    whatever they score.
    """
    if (question := recipe.question) is not None:
        than, stated = question.than or recipe.baseline, question.than is not None
        return [
            Comparison(question.better, than, "baseline", stated),
            *(Comparison(question.better, name, role, True) for name, role in others(question)),
        ]
    by_name = roles(recipe)
    chosen = [name for name, role in by_name.items() if role == "candidate"]
    if not chosen:  # samplers alone differ
        chosen = [name for name in baselines(recipe) if name != recipe.baseline]
    references = [name for name, role in by_name.items() if role == "reference"]
    return [
        *(Comparison(name, recipe.baseline, "baseline") for name in chosen),
        *(Comparison(name, recipe.baseline, "reference") for name in references),
    ]


def roles(recipe: Recipe) -> dict[str, Role]:
    """What each arm is in the comparison: as the question says, or by its conditions."""
    known: dict[str, Role] = {name: role(recipe, name) for name in recipe.arms}
    if (question := recipe.question) is not None:
        known |= dict(others(question))
        known |= {question.better: "candidate", question.than or recipe.baseline: "baseline"}
    return known


def role(recipe: Recipe, name: str) -> Role:
    """Baselines may differ in their samplers; true labels are a reference where the baseline has
    none."""
    if name in baselines(recipe):
        return "baseline"
    if (annotator := recipe.arm(name).annotator) is None:
        return "candidate"
    if annotator.control:
        return "control"
    baseline = recipe.arm(recipe.baseline).annotator
    without_labels = baseline is None or not baseline.uses_labels
    return "reference" if annotator.uses_labels and without_labels else "candidate"


def others(question: Question) -> list[tuple[str, Role]]:
    """Each arm that stands beside the answer, and the role that it has."""
    return [(name, BESIDE[field]) for field, name in question.named if field in BESIDE]
