"""A runs folder that was moved or copied: the absolute paths in its database are updated."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fw.plugins.trackers.mlflow_names import folder_name

ARTIFACTS = "mlartifacts"
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns that hold the place of artifacts; not every version of MLflow has them all."""


def settle(database: Path) -> None:
    """Make every experiment of fw keep its artifacts beside its database, in one transaction.

    Under the caller's lock. Only this database is written. Artifacts that were not copied with it
    are missing on MLflow's page, and what is logged next is written here.
    """
    here = (database.parent / ARTIFACTS).as_uri()
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        gone = list(elsewhere(connection, database.parent))
        if not gone:
            return
        with connection:
            for old in gone:
                for table, column in places(connection):
                    at = f"{old}/"
                    connection.execute(
                        f"update {table} set {column} = ? || substr({column}, ?) where "
                        f"substr({column}, 1, ?) = ?",
                        (f"{here}/", len(at) + 1, len(at), at),
                    )


def elsewhere(connection: sqlite3.Connection, root: Path) -> Iterator[str]:
    """URIs of folders of artifacts in other places that fw's experiments name:
    `.../mlartifacts/NAME`."""
    if ("experiments", "artifact_location") not in places(
        connection
    ):  # a database without MLflow's tables
        return
    experiments = connection.execute("select name, artifact_location from experiments").fetchall()
    folders = set()
    for name, location in experiments:
        folder, _, tail = str(location).rpartition("/")
        ours = {
            folder_name(name),
            re.sub(r"[^\w.-]+", "_", name),
        }  # the second is from older versions
        if (
            location
            and location.startswith("file:")
            and folder.endswith(f"/{ARTIFACTS}")
            and unquote(tail) in ours
        ):
            folders.add(folder)
    for folder in sorted(folders):
        if not same_folder(Path(unquote(urlsplit(folder).path)).parent, root):
            yield folder


def same_folder(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same folder; a missing one is never the same."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def places(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Those of PLACES that this database has."""
    for table, column in PLACES:
        if column in [row[1] for row in connection.execute(f"pragma table_info({table})")]:
            yield table, column
