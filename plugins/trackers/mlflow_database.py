"""MLflow's database and experiment, made safely by any number of processes at once."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fw.core.errors import FwError
from fw.plugins.trackers.mlflow_library import import_mlflow
from fw.plugins.trackers.mlflow_moved import ARTIFACTS, settle
from fw.plugins.trackers.mlflow_names import folder_name
from fw.plugins.trackers.mlflow_uris import WEB, database_of, is_folder, sqlite_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment


PATIENCE = 60
"""Seconds that a process waits for its turn; another one may take as long as a model's upload."""


def connect(uri: str) -> MlflowClient:
    """A client of a store that answers; a database file is made if there is none, and settled."""
    database = database_of(uri)
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
        with write_lock(uri):
            sweep(database)
            prepare(database)
            settle(database)
    elif uri.lower().startswith(WEB):
        check_server(uri)
    elif "://" in uri and not is_folder(uri):
        check_database(uri)
    client = import_mlflow().MlflowClient(tracking_uri=uri)
    forget_places()
    let_go(client)
    return client


def forget_places() -> None:
    """Empty MLflow's cache of the runs' artifact locations, which may have changed."""
    from mlflow.tracking._tracking_service import utils

    getattr(utils, "_artifact_repos_cache", {}).clear()


def write_lock(uri: str) -> AbstractContextManager[Any]:
    """A lock that processes take in turns to write a database file; servers look after
    themselves."""
    from filelock import FileLock

    database = database_of(uri)
    return FileLock(f"{database}.lock", timeout=PATIENCE) if database is not None else nullcontext()


def check_server(uri: str) -> None:
    """Ask once whether there is a server: MLflow itself would try for minutes."""
    import requests

    requests.get(f"{uri.rstrip('/')}/health", timeout=10)


def check_database(uri: str) -> None:
    """Connect once: MLflow itself would try for an hour."""
    from mlflow.store.db.db_types import DATABASE_ENGINES
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    if uri.startswith(tuple(DATABASE_ENGINES)) and uri.partition("://")[0].count("+") < 2:
        with create_engine(uri, poolclass=NullPool).connect():
            pass


def sweep(database: Path) -> None:
    """Remove the unfinished tables of killed processes, under the caller's lock."""
    for file in database.parent.glob(f".{database.name}.*"):
        file.unlink(missing_ok=True)


def prepare(database: Path) -> None:
    """Make the tables, under the caller's lock, or check that the file is a database.

    MLflow's tables are broken for good when two processes make them at once or one is killed on the
    way. Hence the lock, and the other name until they are complete. MLflow would retry a file that
    is no database for minutes.
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
            return client.get_experiment(
                client.create_experiment(name, artifact_location(uri, name, root))
            )
        except MlflowException:
            experiment = client.get_experiment_by_name(
                name
            )  # another client of the same server was faster
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise FwError(
            f"the MLflow experiment '{name}' is deleted: restore it, or name another in the recipe"
        )
    return experiment


def artifact_location(uri: str, name: str, root: Path) -> str | None:
    """Beside a database file, else below the runs folder, never in the working directory.

    A server keeps artifacts where it can show them.
    """
    if uri.lower().startswith((*WEB, "databricks")):
        return None
    database = database_of(uri)
    folder = database.parent if database is not None else root.absolute()
    return (folder / ARTIFACTS / folder_name(name)).as_uri()


def let_go(client: MlflowClient) -> None:
    """Roll back what Ctrl-C interrupts. SQLAlchemy alone would only close the connection, and
    SQLite keeps the file locked as long as anything holds a statement, such as the frames of the
    traceback."""
    from sqlalchemy import event

    engine = getattr(getattr(client._tracking_client, "store", None), "engine", None)
    if engine is not None and not event.contains(engine, "invalidate", roll_back):
        event.listen(engine, "invalidate", roll_back)


def roll_back(connection: Any, record: object, error: BaseException | None) -> None:
    with suppress(Exception):  # the server may be gone
        connection.rollback()
