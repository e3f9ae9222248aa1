"""MLflow itself: imported quietly, with timeouts of seconds instead of minutes, and with errors in
one sentence."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from fw.core.errors import FwError, Unreachable
from fw.core.messages.secrets import hide, redact
from fw.plugins.trackers.mlflow_uris import REMEDY, WEB, database_of, is_folder

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Retry a server that is gone for a minute at most: the whole is tried again later.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""MLflow's environment variables, unless the user has set others."""


WATCH = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"


def switched_on() -> bool:
    """Whether MLflow is to show what the machine does; FwError for a word that it does not take.
    Read here, because MLflow takes seconds to import, and a thread of its own does that."""
    word = os.environ.get(WATCH, "false").lower()
    if word not in ("true", "false", "1", "0"):
        raise FwError(f"{WATCH}={word}: it is true or false")
    return word in ("true", "1")


def import_mlflow() -> ModuleType:
    """MLflow, without its telemetry and its messages on first use.

    Its log is off: it may hold passwords and tracebacks, and whatever matters in it is also raised.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return mlflow


@contextmanager
def clear_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow and its libraries raise into an FwError of one sentence, without secrets."""
    import_mlflow()
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    known = (
        MlflowException,
        CommandError,
        SQLAlchemyError,
        sqlite3.Error,
        OSError,
        ValueError,
        ImportError,
    )
    try:
        yield
    except RequestException as error:
        raise Unreachable(
            f"no MLflow server answers at '{hide(uri)}' ({type(error).__name__})"
        ) from error
    except known as error:
        if away(error, uri):
            raise Unreachable(f"no MLflow server answers at '{hide(uri)}'") from error
        reason = re.split(r"(?<=[.!?])\s|\n", str(error).strip() or type(error).__name__)[0]
        if is_folder(uri):
            reason = REMEDY
        raise FwError(f"MLflow at '{hide(uri)}' does not work: {redact(reason)}") from error


def away(error: Exception, uri: str) -> bool:
    """Whether a server, of MLflow or of its database, did not answer. MLflow says so in words."""
    from sqlalchemy.exc import OperationalError

    if uri.lower().startswith(WEB):
        return "API request to" in str(error) and "failed with exception" in str(error)
    return isinstance(error, OperationalError) and database_of(uri) is None
