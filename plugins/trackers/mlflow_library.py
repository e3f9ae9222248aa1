"""MLflow itself: imported quietly, patient for seconds and not for minutes, and what it raises told in a sentence."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from fw.core.errors import FwError
from fw.core.messages.secrets import hide, redact
from fw.plugins.trackers.mlflow_uris import REMEDY, is_folder

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A server that is gone is asked for a minute at most: a run logs what is missing at its end.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""What the environment says of MLflow unless the user says otherwise."""


def import_mlflow() -> ModuleType:
    """MLflow, which would otherwise report to its makers and talk on every first use.

    What it writes to its log it raises as well, and its log may hold passwords and tracebacks.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return mlflow


@contextmanager
def told(uri: str) -> Iterator[None]:
    """Tell what MLflow and what is below it raise in one sentence, without secrets."""
    import_mlflow()
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    known = (MlflowException, CommandError, SQLAlchemyError, sqlite3.Error, OSError, ValueError, ImportError)
    try:
        yield
    except RequestException as error:
        raise FwError(f"no MLflow server answers at '{hide(uri)}' ({type(error).__name__})") from error
    except known as error:
        reason = re.split(r"(?<=[.!?])\s|\n", str(error).strip() or type(error).__name__)[0]
        if is_folder(uri):
            reason = REMEDY
        raise FwError(f"MLflow at '{hide(uri)}' does not work: {redact(reason)}") from error
