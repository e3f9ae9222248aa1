"""Every guidance with every annotator, in a small recipe: which pairs run, and why others are
refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from fw.core.catalogue.example import example
from fw.core.kinds import Rule
from fw.core.recipe.checks import arm_faults
from fw.core.recipe.model import Recipe
from fw.registry import Component, Registry

RECIPE: dict[str, Any] = {
    "fw": 1,
    "name": "matrix",
    "dataset": "digits",
    "encoder": "pixels",
    "model": {"name": "unet", "channels": [8, 16], "groups": 4, "attention": [1]},
    "process": "edm",
    "train": {"steps": 2, "batch": 64, "warmup": 1},
    "sampler": {"name": "dpmpp", "steps": 2},
    "samples": {"count": 2, "seeds": 1},
    "metrics": {"name": "memorisation", "space": "pixels"},
    "baseline": "none",
    "arms": {"none": {"annotator": None}},
}

JOINT = {"name": "jdm", "channels": [8, 16], "groups": 4, "attention": [1]}
"""The model to try where the recipe's is refused."""

COMPANION = {"name": "pag", "scale": 1.5}
"""The mode to try a rule with: rules act on modes."""

NONE = "none"


class Cell(NamedTuple):
    """A pair of guidance and annotator: the arm that runs, or the reasons why it is refused."""

    arm: dict[str, Any] | None
    reasons: list[str]

    @property
    def joint(self) -> bool:
        return self.arm is not None and "model" in self.arm


def cells(registry: Registry) -> dict[tuple[str, str], Cell]:
    """All pairs, by the names of guidance and annotator; `none` stands for arms without
    conditions."""
    annotators = {NONE: None} | {
        each.name: quick_spec(each, registry) for each in registry.of_kind("annotator")
    }
    return {
        (each.name, name): cell(each, annotator, registry)
        for each in registry.of_kind("guidance")
        for name, annotator in annotators.items()
    }


def cell(guidance: type[Component], annotator: dict[str, Any] | None, registry: Registry) -> Cell:
    entry = quick_spec(guidance, registry)
    listed = [COMPANION, entry] if issubclass(guidance, Rule) else [{**entry, "scale": 1.5}]
    arm: dict[str, Any] = {"annotator": annotator, "guidance": listed}
    if not (reasons := refused(arm, registry)):
        return Cell(arm, [])
    with_joint = {**arm, "model": JOINT}
    if not (joint_reasons := refused(with_joint, registry)):
        return Cell(with_joint, [])
    new = [reason for reason in joint_reasons if reason not in reasons]
    return Cell(
        None,
        [
            *reasons,
            *(f"with one, {reason}" for reason in new if annotator and "joint" in reasons[0]),
        ],
    )


def refused(arm: dict[str, Any], registry: Registry) -> list[str]:
    recipe = recipe_of({"pair": arm}, registry)
    return [finding.reason for finding in arm_faults(recipe, "pair")]


def recipe_of(arms: dict[str, dict[str, Any]], registry: Registry) -> Recipe:
    """The small recipe with these arms."""
    data = {**RECIPE, "arms": RECIPE["arms"] | arms}
    return Recipe.model_validate(data, context={"registry": registry})


def quick_spec(component: type[Component], registry: Registry) -> dict[str, Any]:
    """A quick example, as a recipe writes it."""
    return example(component, registry, quick=True).spec()


def page(registry: Registry) -> str:
    """The Markdown page of all pairs."""
    return "\n\n".join(parts(registry)) + "\n"


def parts(registry: Registry) -> Iterator[str]:
    pairs = cells(registry)
    guidance = list(dict.fromkeys(name for name, _ in pairs))
    annotators = list(dict.fromkeys(name for _, name in pairs))
    reasons = list(
        dict.fromkeys("; ".join(each.reasons) for each in pairs.values() if each.reasons)
    )
    numbers = {reason: number for number, reason in enumerate(reasons, 1)}
    yield "# Which guidance goes with which conditions"
    yield (
        "*Made by `make reference`, which checks each pair as `fw validate` does. "
        "`tests/test_matrix.py` trains and\n"
        "samples every pair that is not refused.*"
    )
    yield (
        "Rows are what `guidance:` may name, columns what `annotator:` may. `yes` runs with a "
        "U-Net or a transformer,\n"
        "`joint` with a joint model only; a number is the reason why the pair is refused. Rules "
        "(`apg`, `rescale`)\n"
        "are tried beside `pag`. Process and sampler change nothing in it; an encoder that learned "
        "from labels counts\n"
        "as labels."
    )
    lines = [f"| | {' | '.join(annotators)} |", "|---|" + "---|" * len(annotators)]
    for row in guidance:
        symbols = [symbol(pairs[row, column], numbers) for column in annotators]
        lines.append(f"| `{row}` | {' | '.join(symbols)} |")
    yield "\n".join(lines)
    yield "\n".join(f"{number}. {reason}" for reason, number in numbers.items())


def symbol(pair: Cell, numbers: dict[str, int]) -> str:
    if pair.arm is None:
        return str(numbers["; ".join(pair.reasons)])
    return "joint" if pair.joint else "yes"
