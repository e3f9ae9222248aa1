"""What made the results, and the command that makes them again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fw.core.report.markdown import LABELS, acts, evaluator
from fw.core.report.page.material import Material
from fw.core.report.runfile import RESOLVED
from fw.core.report.tables import label_free


@dataclass(frozen=True)
class Record:
    command: str
    recipe: str
    plugins: Sequence[tuple[str, Mapping[str, Any]]]
    versions: Mapping[str, str]
    environment: Mapping[str, str]
    seeds: Sequence[tuple[str, str]]
    evaluators: Sequence[str]
    labels: str
    about_labels: str
    reasons: Sequence[str]
    """Why arms are not label-free, where guidance does not act in all calls, what failed."""
    warnings: Sequence[str]
    failed: Sequence[str]


def record(material: Material) -> Record:
    result = material.result
    arms = result["arms"]
    reasons = [
        f"{name}: {arm['label_free']['why']}"
        for name, arm in arms.items()
        if (arm.get("label_free") or {}).get("why")
    ]
    partly = [f"{name}: {remark}" for name, arm in arms.items() for remark in acts(arm)]
    judged = [entry for entry in result["evaluators"].values() if entry["quality"]]
    return Record(
        command=command(material),
        recipe=material.recipe.to_yaml(),
        plugins=list(result["plugins"].items()),
        versions=result["versions"],
        environment={key: in_words(value) for key, value in result["environment"].items()},
        seeds=[
            ("training", ", ".join(map(str, material.seeds))),
            ("sampling", f"0 to {result['samples']['seeds'] - 1}"),
        ],
        evaluators=list(map(evaluator, judged)),
        labels=label_free(result) or "",
        about_labels=LABELS,
        reasons=[*reasons, *partly],
        warnings=result.get("warnings", ()),
        failed=[f"{name}: {arm['error']}" for name, arm in arms.items() if "error" in arm],
    )


def command(material: Material) -> str:
    """What is typed in the folder where this page lies."""
    plugins = [f"--plugin {shlex.quote(f'plugins/{name}')}" for name in material.plugins]
    return " ".join(["fw run", RESOLVED, *plugins])


def in_words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
