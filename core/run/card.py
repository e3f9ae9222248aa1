"""The model card of an arm: what it is, what it was scored, and how images are drawn from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fw.core.messages.escaping import markdown as escaped
from fw.core.plan.graph import ArmPlan
from fw.core.recipe.model import Recipe
from fw.core.report.environment import versions
from fw.core.types import Annotation

USE = """\
```python
import mlflow

model = mlflow.pyfunc.load_model(uri)
images = model.predict({"count": 64, "seed": 0, "condition": None})  # uint8 (64, C, H, W)
```

It needs fw, and the plugins below, installed as they were. The images of a seed are those of
`fw sample --seed`, and seeds 0, 1, 2, ... are those of the report. `condition` is a class, or the
number of a training image whose condition is taken; None draws conditions as the arm does. Plugins
that are single files come with the model and are executed when it is loaded.
"""


def card(
    recipe: Recipe,
    name: str,
    arm: ArmPlan,
    annotation: Annotation | None,
    scores: Mapping[str, float],
) -> str:
    """README.md, in Markdown."""
    parts = [
        f"# {escaped(name)} of {escaped(recipe.name)}",
        "\n".join(f"* {escaped(what)}: {escaped(words)}" for what, words in facts(recipe, arm)),
        f"Conditions: {escaped(conditions(annotation))}.",
        "## Use",
        USE.strip(),
        "## Scores",
        table(scores),
        "## Made with",
        ", ".join(f"{package} {version}" for package, version in versions().items()),
    ]
    return "\n\n".join(parts) + "\n"


def facts(recipe: Recipe, arm: ArmPlan) -> Iterator[tuple[str, str]]:
    sample = arm.drawn
    yield "data set", recipe.dataset.name
    yield "images", " x ".join(map(str, sample.shape))
    if recipe.latents is not None:
        yield "latents", recipe.latents.name
    yield "trained from seed", str(sample.seed or 0)
    yield "label-free", str(recipe.label_free(arm.arm))
    for section, component in arm.arm.sections:
        yield section, str(component.spec())
    yield "network evaluations per image", str(arm.nfe)


def conditions(annotation: Annotation | None) -> str:
    if annotation is None:
        return "none"
    form, size = annotation.spec.form, annotation.spec.size
    return f"{size} classes" if form == "class" else f"{form} of {size} numbers"


def table(scores: Mapping[str, float]) -> str:
    rows = [f"| {escaped(key)} | {value:.6g} |" for key, value in scores.items()]
    return "\n".join(["| score | value |", "|---|---:|", *rows])
