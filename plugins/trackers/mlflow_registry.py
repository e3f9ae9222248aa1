"""An arm's model in MLflow's registry, once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fw.core.errors import FwError

if TYPE_CHECKING:
    from mlflow import MlflowClient


def register(client: MlflowClient, uri: str, run: str, arm: str, name: str) -> str:
    """Register the model of an arm, whose run this is, under a name; returns the version's URI.

    FwError if the arm has no model that can be loaded, or if MLflow does not take the name.
    """
    from mlflow.exceptions import MlflowException

    model = client.get_run(run).data.tags.get("fw.package") if run else None
    if model is None:
        raise FwError(
            f"arm {arm} has no model in MLflow that can be loaded: run its recipe again, or `fw "
            "sync` it"
        )
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise FwError(f"--name {name}: {error}") from None
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.source == f"models:/{model}" or version.model_id == model:
            return f"models:/{name}/{version.version}"
    with tracking(uri):
        made = client.create_model_version(
            name, f"models:/{model}", run_id=run, model_id=model, tags={"fw.arm": arm}
        )
    return f"models:/{name}/{made.version}"


@contextmanager
def tracking(uri: str) -> Iterator[None]:
    """MLflow looks up the model of a version at the process's address, not at the client's."""
    import mlflow

    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None takes it back
