"""The averaged weights of an arm's network as one safetensors file, whose metadata say what they
are."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from safetensors.torch import load_file, save_file

from fw.core.export.whole import new_file
from fw.core.files.layout import MODEL
from fw.core.files.weights import noted
from fw.core.report.environment import versions
from fw.core.run.finished import FinishedArm


def write_weights(arm: FinishedArm, path: Path, console: Console) -> None:
    arm.check([arm.sample.weights], console)
    weights = load_file(arm.products(arm.sample.weights) / MODEL)
    with new_file(path) as temporary:
        save_file(weights, temporary, metadata(arm))


def metadata(arm: FinishedArm) -> dict[str, str]:
    """Texts, as safetensors has them: components and shapes in JSON."""
    sample = arm.sample
    annotation = sample.annotation(arm.products)
    said = {
        "recipe": arm.run.source().data["name"],
        "arm": arm.name,
        "training": str(sample.seed or 0),
        "key": sample.weights.id,
        "version": versions().get("fw", "?"),
        "model": json.dumps(sample.model.spec()),
        "process": json.dumps(sample.process.spec()),
        "shape": json.dumps(sample.train.shape),
        "condition": json.dumps(None if annotation is None else asdict(annotation.spec)),
        "latents": json.dumps(None if sample.latents is None else sample.latents.spec()),
        "resolved": arm.recipe.to_yaml(),
    }
    named = {f"fw.{key}": text for key, text in said.items()}
    return {**noted(sample.weights.supervision), **named}
