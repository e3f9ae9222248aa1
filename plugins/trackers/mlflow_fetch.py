"""A run's record back from MLflow, by MLflow's own names of runs."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, NamedTuple

from fw.core.errors import FwError
from fw.core.messages.secrets import learn
from fw.plugins.trackers.mlflow_database import connect
from fw.plugins.trackers.mlflow_library import clear_errors
from fw.plugins.trackers.mlflow_uris import database_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

RECORD = "run.json"


class Name(NamedTuple):
    """The id of a run, and the server that its page is on; None if the name says nothing of it."""

    id: str
    uri: str | None


def named(name: str) -> Name | None:
    """`runs:/ID`, or the address of a run's page; None if it is neither."""
    if match := re.fullmatch(r"runs:/([0-9a-f]{32})/?", name):
        return Name(match[1], None)
    if match := re.match(r"(https?://[^#]*?)/?#/experiments/\d+/runs/([0-9a-f]{32})", name):
        learn(match[1])
        return Name(match[2], match[1])
    return None


def fetch(uri: str, id_: str) -> Path:
    """The record of a run, or of the run that an arm's belongs to, in a folder of its own. FwError
    if there is none."""
    database = database_of(uri)
    if database is not None and not database.exists():
        raise FwError(
            f"runs:/{id_}: there is no database {database}; name it with --out, or set "
            "MLFLOW_TRACKING_URI"
        )
    with clear_errors(uri):
        client = connect(uri)
        whole = parent(client, id_)
        if RECORD not in {file.path for file in client.list_artifacts(whole)}:
            raise FwError(f"runs:/{id_}: it has no {RECORD}, so it is no run that fw has ended")
        return Path(client.download_artifacts(whole, RECORD, mkdtemp()))


def parent(client: MlflowClient, id_: str) -> str:
    """The run of the recipe: an arm's training lies two levels below it."""
    for _ in range(2):
        id_ = client.get_run(id_).data.tags.get("mlflow.parentRunId", id_)
    return id_
