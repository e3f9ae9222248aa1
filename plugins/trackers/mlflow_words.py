"""What people read on MLflow's pages: names, descriptions with figures, who ran what, and on which
images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from fw.core.kinds import RunDescription

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run

NOTE = "mlflow.note.content"
LENGTH = 8000
"""The longest description: MLflow's limit for a tag."""

HEADING = "Runs of this recipe, the newest first:"
"""How the description of an experiment begins, unless somebody wrote another."""

CUT = "\n\n... The whole is in `report.md` among the artifacts."

MEANINGS = {
    "fw.user": "mlflow.user",
    "fw.command": "mlflow.source.name",
    "fw.commit": "mlflow.source.git.commit",
}
"""Tags of fw that MLflow's pages show under names of their own."""


def run_name(run: RunDescription) -> str:
    """`self_guidance seed 0`; what else tells runs apart is in their params."""
    seed = run.tags.get("fw.seed")
    return run.recipe if seed is None else f"{run.recipe} seed {seed}"


def run_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """A run's tags, also by the names that MLflow's pages know."""
    known = {name: tags[tag] for tag, name in MEANINGS.items() if tag in tags}
    return {**tags, **known, "mlflow.source.type": "LOCAL"}


def dataset_input(tags: Mapping[str, str], params: Mapping[str, str]) -> DatasetInput:
    """The data set that an arm is trained on: its name, a digest of what decides its images, and
    its fields."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    fields = {
        key.removeprefix("dataset."): value
        for key, value in params.items()
        if key.startswith("dataset.")
    }
    source = json.dumps(fields, sort_keys=True)
    name, _, digest = tags.get("fw.dataset", "").partition(" ")
    digest = digest or hashlib.sha256(source.encode()).hexdigest()
    return DatasetInput(
        Dataset(
            name=name or fields.get("name", "images"),
            digest=digest[:16],
            source_type="fw",
            source=source[:LENGTH],
        ),
        [InputTag("mlflow.data.context", "training")],
    )


def with_picture(text: str, run: str, picture: str | None, remarks: str = "") -> str:
    """A description of at most so many characters, with a picture among the run's artifacts."""
    shown = "" if picture is None else f"\n\n{image(run, picture)}"
    room = LENGTH - len(remarks) - len(shown)
    whole = text if len(text) <= room else text[: room - len(CUT)] + CUT
    return whole + remarks + shown


def image(run: str, name: str) -> str:
    """A picture among a run's artifacts, as MLflow's server gives it."""
    return f"![{name}](get-artifact?path={quote(name)}&run_uuid={run})"


def described(parents: Sequence[Run], present: str) -> str | None:
    """An experiment's description: a line for each run of fw. None if somebody wrote another."""
    notes = [run.data.tags.get(NOTE, "") for run in parents]
    if present and not present.startswith(HEADING) and present not in notes:
        return None
    lines = [HEADING, ""]
    for run, note in sorted(
        zip(parents, notes, strict=True), key=lambda each: -each[0].info.start_time
    ):
        place = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        first = run.data.tags.get("fw.verdict") or note.partition("\n")[0]
        line = f"* [{run.info.run_name}]({place}): {first}"
        if sum(map(len, lines)) + len(lines) + len(line) > LENGTH:
            break
        lines.append(line)
    return "\n".join(lines)
