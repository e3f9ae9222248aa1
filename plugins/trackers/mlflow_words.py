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

DESCRIBED = "fw.described"
"""The experiment's tag with a digest of the description that fw wrote: another one is somebody's
own."""

CUT = "\n\n... The whole is in `report.md` among the artifacts."

MEANINGS = {
    "fw.user": "mlflow.user",
    "fw.commit": "mlflow.source.git.commit",
}
"""Tags of fw that MLflow's pages show under names of their own."""


def run_name(run: RunDescription) -> str:
    """`self_guidance seed 0`; what else tells runs apart is in their params."""
    seed = run.tags.get("fw.seed")
    return run.recipe if seed is None else f"{run.recipe} seed {seed}"


def run_tags(run: RunDescription) -> dict[str, str]:
    """A run's tags, also by the names that MLflow's pages know."""
    known = {name: run.tags[tag] for tag, name in MEANINGS.items() if tag in run.tags}
    source = {"mlflow.source.name": f"fw run {run.recipe}", "mlflow.source.type": "LOCAL"}
    return {**run.tags, **known, **source}


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


def described(parents: Sequence[Run], tags: Mapping[str, str]) -> dict[str, str]:
    """An experiment's tags with its description: the newest run's verdict first, where the page
    shows one line, and a line for each other run of fw. Nothing if somebody wrote another."""
    present = tags.get(NOTE, "")
    notes = {run.info.run_id: run.data.tags.get(NOTE, "") for run in parents}
    if present and digest_of(present) != tags.get(DESCRIBED) and present not in notes.values():
        return {}
    text = ""
    for run in sorted(parents, key=lambda run: -run.info.start_time):
        place = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        first = run.data.tags.get("fw.verdict") or notes[run.info.run_id].partition("\n")[0]
        line = f"[{run.info.run_name}]({place}): {first}"
        if len(text) + len(line) + 4 > LENGTH:
            break
        text += f"\n\n{line}" if text else line
    return {} if text == present else {NOTE: text, DESCRIBED: digest_of(text)}


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
