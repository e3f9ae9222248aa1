"""MLflow's database and experiment, made safely by any number of processes at once."""

from __future__ import annotations

import re
import sqlite3
import uuid
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from fw.core.errors import FwError
from fw.plugins.trackers.mlflow_server import import_mlflow, sqlite_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment


def connect(uri: str, name: str, root: Path) -> tuple[MlflowClient, Experiment]:
    """A client and the experiment, made if need be."""
    from filelock import FileLock

    database = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
    elif uri.startswith(("http://", "https://")):
        check_server(uri)
    with FileLock(f"{database}.lock") if database else nullcontext():
        if database is not None:
            prepare(database)
        client = import_mlflow().MlflowClient(tracking_uri=uri)
        return client, find_experiment(client, uri, name, root)


def check_server(uri: str) -> None:
    """Ask once whether there is a server: MLflow itself would try for minutes."""
    import requests

    requests.get(f"{uri.rstrip('/')}/health", timeout=10)


def prepare(database: Path) -> None:
    """Make the tables, under the caller's lock, or check that the file is a database.

    MLflow's tables are broken for good when two processes make them at once or one is killed on the way: hence
    the lock, and the other name until they are complete. MLflow retries a file that is no database for minutes.
    """
    if database.exists() and database.stat().st_size > 0:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("select count(*) from sqlite_master")
        return
    fresh = database.with_name(f".{database.name}.{uuid.uuid4().hex}")
    import_mlflow().MlflowClient(tracking_uri=sqlite_uri(fresh)).search_experiments(max_results=1)
    fresh.replace(database)


def find_experiment(client: MlflowClient, uri: str, name: str, root: Path) -> Experiment:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.get_experiment(client.create_experiment(name, artifact_location(uri, name, root)))
        except MlflowException:
            experiment = client.get_experiment_by_name(name)  # another client of the same server was faster
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise FwError(f"the MLflow experiment '{name}' is deleted: restore it, or name another in the recipe")
    return experiment


def artifact_location(uri: str, name: str, root: Path) -> str | None:
    """Below the runs folder, not the working directory. A server keeps artifacts where it can show them."""
    if uri.startswith(("http://", "https://", "databricks")):
        return None
    return (root / "mlartifacts" / re.sub(r"[^\w.-]+", "_", name)).as_uri()
