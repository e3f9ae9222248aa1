"""Logs to MLflow: one run per recipe, one nested run per arm, and a saved view of the arms side by side."""

from __future__ import annotations

import math
import os
import re
import shlex
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from fw.core.errors import FwError
from fw.core.kinds import RunDescription, TrackedRun, Tracker
from fw.plugins.trackers.mlflow_database import connect
from fw.plugins.trackers.mlflow_server import DATABASE, HOST, PORT, import_mlflow, serve, sqlite_uri, view_url
from fw.plugins.trackers.mlflow_view import colours, save_view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

BATCH = 1000
"""Metrics in one call: MLflow's limit."""
PARAM_LENGTH, TAG_LENGTH = 6000, 8000
STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class MLflow(Tracker):
    """Logs to MLflow, by default to `mlflow.db` in the runs folder; look at it with `fw ui`."""

    name: ClassVar[str] = "mlflow"

    uri: str | None = Field(
        None, description="tracking URI; null is MLFLOW_TRACKING_URI, else mlflow.db in the runs folder"
    )
    experiment: str | None = Field(None, min_length=1, description="null is the recipe's name")

    def open(self, run: RunDescription) -> TrackedRun:
        """Open the run, or open it again. FwError when MLflow cannot be reached or refuses the URI."""
        root = run.root.absolute()
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(root / DATABASE)
        with told(uri):
            client, experiment = connect(uri, self.experiment or run.recipe, root)
            return open_run(client, uri, experiment, run)

    def serve(self, root: Path, port: int) -> int:
        return serve(root, port)


@contextmanager
def told(uri: str) -> Iterator[None]:
    """Tell what MLflow and what is below it raise in one sentence."""
    import_mlflow()
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except RequestException as error:
        raise FwError(f"no MLflow server answers at '{public(uri)}' ({type(error).__name__})") from error
    except (MlflowException, CommandError, SQLAlchemyError, sqlite3.Error, OSError) as error:
        reason = re.split(r"(?<=[.!?])\s|\n", str(error).strip() or type(error).__name__)[0]
        raise FwError(f"MLflow at '{public(uri)}' does not work: {reason}") from error


def public(uri: str) -> str:
    """The URI without its password."""
    return re.sub(r"(?<=://)[^/@]+@", "***@", uri)


def open_run(client: MlflowClient, uri: str, experiment: Experiment, run: RunDescription) -> MLflowRun:
    """Find or create the parent and its children, and set them all RUNNING."""
    id_ = experiment.experiment_id
    common = {"fw.recipe": run.recipe, "fw.key": run.key, "fw.folder": str(run.folder.absolute()), **run.tags}
    parent = previous_parent(client, uri, id_, run)
    if parent is None:
        parent = create(client, id_, f"{run.recipe}@{run.key}", {**common, "fw.role": "recipe"})
    runs: dict[str | None, Logged] = {None: parent}
    children = {child.run.data.tags.get("fw.arm"): child for child in children_of(client, id_, parent.id)}
    for arm, colour in zip(run.arms, colours(run), strict=True):
        tags = {
            **common,
            "fw.role": "arm",
            "fw.arm": arm.name,
            "mlflow.parentRunId": parent.id,
            "mlflow.runColor": colour,
        }
        runs[arm.name] = children.get(arm.name) or create(client, id_, arm.name, tags)
        log_params(client, runs[arm.name].run, arm.params)
    for logged in runs.values():
        client.update_run(logged.id, status="RUNNING")
    view = f"fw-{run.key}"
    save_view(client, id_, view, run)
    return MLflowRun(client, uri, id_, view, run, runs)


def previous_parent(client: MlflowClient, uri: str, experiment: str, run: RunDescription) -> Logged | None:
    """The parent that the handle names; without one, what a killed process left behind."""
    from mlflow.exceptions import MlflowException

    previous = run.previous or {}
    if previous.get("tracking_uri") == public(uri) and previous.get("experiment_id") == experiment:
        try:
            found = client.get_run(previous["parent_run_id"])
        except MlflowException:
            found = None
        if found is not None and found.info.lifecycle_stage == "active":
            return Logged(found)
    folder = str(run.folder.absolute())
    same = client.search_runs([experiment], f"tags.`fw.role` = 'recipe' and tags.`fw.key` = '{run.key}'")
    return next((Logged(found) for found in same if found.data.tags.get("fw.folder") == folder), None)


def children_of(client: MlflowClient, experiment: str, parent: str) -> list[Logged]:
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=1000)
    return [Logged(child) for child in found]


def create(client: MlflowClient, experiment: str, name: str, tags: Mapping[str, str]) -> Logged:
    short = {key: shortened(value, TAG_LENGTH) for key, value in tags.items()}
    return Logged(client.create_run(experiment, tags=short, run_name=name), fresh=True)


def log_params(client: MlflowClient, run: Run, params: Mapping[str, str]) -> None:
    """Log what is not there yet; MLflow's params cannot be changed."""
    from mlflow.entities import Param

    new = [Param(key, value) for key, value in short_params(params).items() if key not in run.data.params]
    for start in range(0, len(new), 100):
        client.log_batch(run.info.run_id, params=new[start : start + 100])


def short_params(params: Mapping[str, str]) -> dict[str, str]:
    return {key: shortened(value, PARAM_LENGTH) for key, value in params.items()}


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 4] + " ..."


@dataclass
class Logged:
    """One run in MLflow and what it is known to hold already."""

    run: Run
    fresh: bool = False
    last_steps: dict[str, int] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    ended: bool = False

    def __post_init__(self) -> None:
        self.values = dict(self.run.data.metrics)

    @property
    def id(self) -> str:
        return self.run.info.run_id

    def last_step(self, client: MlflowClient, key: str) -> int:
        """The last step of a metric in MLflow, -1 without one."""
        if key not in self.last_steps:
            history = [] if self.fresh else client.get_metric_history(self.id, key)
            self.last_steps[key] = max((metric.step for metric in history), default=-1)
        return self.last_steps[key]


@dataclass
class MLflowRun:
    """An open run; see `fw.core.kinds.TrackedRun`."""

    client: MlflowClient
    uri: str
    experiment: str
    view: str
    description: RunDescription
    runs: dict[str | None, Logged]
    pictures: list[str] = field(default_factory=list)

    def series(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
        from mlflow.entities import Metric

        logged, now, new = self.runs[arm], int(1000 * time.time()), []
        with told(self.uri):
            for record in sorted(records, key=lambda record: record["step"]):
                step = int(record["step"])
                for key, value in record.items():
                    if key != "step" and math.isfinite(value) and step > logged.last_step(self.client, key):
                        new.append(Metric(key, float(value), now, step))
            for start in range(0, len(new), BATCH):
                batch = new[start : start + BATCH]
                self.client.log_batch(logged.id, metrics=batch)
                logged.last_steps.update({metric.key: metric.step for metric in batch})

    def scores(self, arm: str | None, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        logged, now = self.runs[arm], int(1000 * time.time())
        new = {k: float(v) for k, v in values.items() if math.isfinite(v) and logged.values.get(k) != v}
        with told(self.uri):
            self.client.log_batch(logged.id, metrics=[Metric(key, new[key], now, 0) for key in new])
        logged.values.update(new)

    def files(self, arm: str | None, paths: Sequence[Path]) -> None:
        """Put them into the run's root folder: the compare page shows only what lies there side by side."""
        with told(self.uri):
            for path in paths:
                self.client.log_artifact(self.runs[arm].id, str(path))
                if arm is not None and path.suffix == ".png":
                    self._chart(self.runs[arm], path)

    def model(self, arm: str, weights: Path, scores: Mapping[str, float]) -> None:
        from mlflow.entities import LoggedModelOutput

        logged = self.runs[arm]
        if "fw.model" in logged.run.data.tags:
            return
        with told(self.uri):
            model = self._upload(arm, weights)
            self.client.log_outputs(logged.id, [LoggedModelOutput(model, step=0)])
            self._score(arm, model, scores)
            self.client.set_tag(logged.id, "fw.model", model)
        logged.run.data.tags["fw.model"] = model

    def note(self, markdown: str) -> None:
        with told(self.uri):
            text = shortened(markdown, TAG_LENGTH)
            self.client.set_tag(self.runs[None].id, "mlflow.note.content", text)
            self.client.set_experiment_tag(self.experiment, "mlflow.note.content", text)

    def end_arm(self, arm: str, status: str) -> None:
        with told(self.uri):
            self.client.set_terminated(self.runs[arm].id, STATUS[status])
        self.runs[arm].ended = True

    def end(self, status: str) -> None:
        """End the run, and with it the arms that have not ended."""
        with told(self.uri):
            for arm, logged in self.runs.items():
                if arm is None or not logged.ended:
                    self.client.set_terminated(logged.id, STATUS[status])
                    logged.ended = True

    @property
    def handle(self) -> dict[str, Any]:
        return {
            "tracking_uri": public(self.uri),
            "experiment_id": self.experiment,
            "parent_run_id": self.runs[None].id,
            "children": {arm: logged.id for arm, logged in self.runs.items() if arm is not None},
        }

    @property
    def hint(self) -> str:
        root = self.description.root.absolute()
        if self.uri.startswith(("http://", "https://")):
            return view_url(public(self.uri).rstrip("/"), self.experiment, self.view)
        command = f"mlflow server --backend-store-uri {public(self.uri)} --port {PORT}"
        if self.uri == sqlite_uri(root / DATABASE):
            command = f"fw ui --out {shlex.quote(str(root))}"
        return f"{command}, then {view_url(f'http://{HOST}:{PORT}', self.experiment, self.view)}"

    def _chart(self, logged: Logged, path: Path) -> None:
        """Show an arm's picture beside the headline's chart too, once: MLflow would add it again on every call."""
        from PIL import Image

        prefix = self.description.headline.rpartition("/")[0]
        key = re.sub(r"[^\w./ -]+", "_", f"{prefix}/{path.stem}" if prefix else path.stem)
        known = [Path(file.path).name for file in self.client.list_artifacts(logged.id, "images")]
        if not any(re.split("[+%]", name)[0] == key.replace("/", "~") for name in known):
            with Image.open(path) as image:
                self.client.log_image(logged.id, image.convert("RGB"), key=key, step=0, synchronous=True)
        if key not in self.pictures:
            self.pictures.append(key)
            save_view(self.client, self.experiment, self.view, self.description, self.pictures)

    def _upload(self, arm: str, weights: Path) -> str:
        params = {a.name: a.params for a in self.description.arms}[arm]
        model = self.client.create_logged_model(
            self.experiment,
            name=re.sub(r"[/:.%\"']+", "_", arm),
            source_run_id=self.runs[arm].id,
            tags={"fw.arm": arm, "fw.key": self.description.key},
            params=short_params(params),
        ).model_id
        self.client.log_model_artifact(model, str(weights))
        self.client.finalize_logged_model(model, "READY")
        return model

    def _score(self, arm: str, model: str, scores: Mapping[str, float]) -> None:
        """Score the model. MLflow writes that to the run too: with the time it has there, it stays one point."""
        from mlflow.entities import Metric

        self.scores(arm, scores)
        metrics = []
        for key in [key for key, value in scores.items() if math.isfinite(value)]:
            point = self.client.get_metric_history(self.runs[arm].id, key)[-1]
            metrics.append(Metric(key, point.value, point.timestamp, point.step, model_id=model))
        self.client.log_batch(self.runs[arm].id, metrics=metrics)
