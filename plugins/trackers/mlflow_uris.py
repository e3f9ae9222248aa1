"""MLflow's URIs: of a database file with any path, and of the store that a tracker uses."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from fw.core.errors import FwError
from fw.core.messages.secrets import HIDDEN, hide, learn

DATABASE = "mlflow.db"
HERE = f"sqlite:///{DATABASE}"
"""A handle's URI of the runs folder's own database, which may be moved with the folder."""
OWN = "runs folder"
"""The same as a tracker's `uri` in a journal, whatever the environment says when it is read."""

WEB = ("http://", "https://")
REMEDY = (
    "MLflow no longer logs to folders; name a database, such as sqlite:////folder/mlflow.db, or a "
    "server. `mlflow migrate-filestore` copies what a folder holds into a database"
)


def chosen(uri: str | None, root: Path) -> str:
    """The URI for a recipe: its own, else the environment's, else the database in the runs folder.

    Errors: FwError if it was stored without its secrets and the environment does not have them.
    """
    if uri == OWN:
        return sqlite_uri(root.absolute() / DATABASE)
    environment = os.environ.get("MLFLOW_TRACKING_URI")
    resolved = uri or environment or sqlite_uri(root.absolute() / DATABASE)
    if HIDDEN in resolved:
        resolved = completed(resolved, environment)
    learn(resolved)
    check_quoted(resolved)
    database = database_of(resolved)
    return sqlite_uri(database) if database is not None and "?" not in resolved else resolved


def settled(uri: str | None, root: Path) -> str:
    """What `chosen` chooses, as a journal keeps it: without secrets, and without the place of the
    runs folder. FwError for a folder, to which MLflow no longer logs."""
    resolved = chosen(uri, root)
    if is_folder(resolved):
        raise FwError(f"MLflow at '{hide(resolved)}' does not work: {REMEDY}")
    return OWN if resolved == sqlite_uri(root.absolute() / DATABASE) else hide(resolved)


def completed(uri: str, environment: str | None) -> str:
    """A URI that was stored without its secrets, completed with those of the environment."""
    if environment and hide(environment) == uri:
        return environment
    scheme, _, rest = uri.partition("://")
    bare = f"{scheme}://{rest.removeprefix(f'{HIDDEN}@')}"
    given = any(os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("PASSWORD", "TOKEN"))
    if given and HIDDEN not in bare:
        return bare
    raise FwError(
        f"the tracker's address '{uri}' was written without its secrets: give them in the "
        "environment, "
        "as MLFLOW_TRACKING_URI, or as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    )


def uri_of_handle(handle: Mapping[str, Any], root: Path) -> str:
    """The URI of the run that a handle names. Older handles hold the database's full path."""
    known = str(handle.get("tracking_uri") or HERE)
    database = database_of(known)
    here = root.absolute() / DATABASE
    if known == HERE or (
        database is not None and database.name == DATABASE and not database.exists()
    ):
        return chosen(sqlite_uri(here), root)
    return chosen(known, root)


def sqlite_uri(database: Path) -> str:
    """The URI of a database file: SQLAlchemy ends a path at `?`, and from 2.1 on it unquotes it.

    `sqlite+pysqlite` is the same to MLflow, except that it does not make folders with the quoted
    names.
    """
    path = str(database.absolute())
    if not re.search(r"[?#%]", path):
        return f"sqlite:///{path}"
    from sqlalchemy.engine import make_url

    quoted = f"sqlite+pysqlite:///{quote(path)}"
    return (
        quoted
        if make_url(quoted).database == path
        else f"sqlite+pysqlite:///file:{quote(path)}?uri=true"
    )


def database_of(uri: str) -> Path | None:
    """The file of an SQLite URI; None for other stores and for a database in memory."""
    if not re.match(r"sqlite(\+\w+)?:///.", uri):
        return None
    from sqlalchemy.engine import make_url

    url = make_url(uri)
    path = url.database or ":memory:"
    if path.startswith("file:") and "uri" in url.query:
        path = unquote(path.removeprefix("file:").partition("?")[0])
    return None if path == ":memory:" or path.startswith("file:") else Path(path).absolute()


def check_quoted(uri: str) -> None:
    """FwError for a password that holds a separator of a URI's parts, where it would be cut."""
    user, at, _ = uri.partition("://")[2].rpartition("@")
    password = user.partition(":")[2]
    if (
        at
        and hide(uri) != uri
        and re.search(r"[@/?#\[\]\s]" if uri.lower().startswith(WEB) else "@", password)
    ):
        raise FwError(
            f"the password in '{hide(uri)}' holds one of @ / ? # [ ]: write it percent-encoded, "
            "such as %40 for @, or give it as MLFLOW_TRACKING_PASSWORD"
        )


def is_folder(uri: str) -> bool:
    """Whether the URI names a folder, as for MLflow's former file store."""
    return uri.startswith("file:") or (
        "://" not in uri and not uri.startswith(("databricks", "uc"))
    )
