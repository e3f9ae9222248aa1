"""Logs to MLflow: one run per recipe, one nested run per arm, and a saved view of the arms side
by side."""

from __future__ import annotations

import functools
import math
import re
import shlex
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote, urlsplit

from pydantic import Field, field_validator

from fw.core.kinds import RunDescription, TrackedRun, Tracker
from fw.core.messages.secrets import hide, learn, redact
from fw.plugins.trackers.mlflow_database import connect, find_experiment, write_lock
from fw.plugins.trackers.mlflow_fetch import fetch, named
from fw.plugins.trackers.mlflow_library import clear_errors, switched_on
from fw.plugins.trackers.mlflow_model import save
from fw.plugins.trackers.mlflow_names import check, fitting
from fw.plugins.trackers.mlflow_record import TAG, Record, digest, of_files, of_values
from fw.plugins.trackers.mlflow_registry import register
from fw.plugins.trackers.mlflow_server import HOST, PORT, serve, view_url
from fw.plugins.trackers.mlflow_uris import (
    DATABASE,
    HERE,
    WEB,
    chosen,
    database_of,
    settled,
    sqlite_uri,
    uri_of_handle,
)
from fw.plugins.trackers.mlflow_view import colours, save_view, saved_pictures
from fw.plugins.trackers.mlflow_words import (
    NOTE,
    dataset_input,
    described,
    run_name,
    run_tags,
    with_picture,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, LoggedModel, Run

BATCH = 1000
"""Metrics in one call: MLflow's limit."""
PARAM_LENGTH, TAG_LENGTH = 6000, 8000
STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class MLflow(Tracker):
    """Logs to MLflow, by default to `mlflow.db` in the runs folder; look at it with `fw ui`."""

    name: ClassVar[str] = "mlflow"

    uri: str | None = Field(
        None,
        description="tracking URI; null is MLFLOW_TRACKING_URI, else mlflow.db in the runs folder. "
        "No place for a password: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
        "MLFLOW_TRACKING_TOKEN, are",
    )
    experiment: str | None = Field(None, min_length=1, description="null is the recipe's name")

    @field_validator("uri")
    @classmethod
    def _remembered(cls, uri: str | None) -> str | None:
        """Its password is known from here on, and hidden wherever it turns up."""
        if uri is not None:
            learn(uri)
        return uri

    def check_keys(self, keys: Collection[str]) -> None:
        check(keys)

    @property
    def watching(self) -> bool:
        """MLflow's own switch, which is off unless the environment says otherwise. FwError for a
        word that MLflow would not take."""
        return switched_on()

    def settled(self, root: Path) -> MLflow:
        return self.model_copy(update={"uri": settled(self.uri, root)})

    def open(self, run: RunDescription) -> TrackedRun:
        """Open the run, or open it again. Unreachable when no server answers, FwError when MLflow
        refuses the URI."""
        uri = chosen(self.uri, run.root)
        with clear_errors(uri):
            client = connect(uri)
            with write_lock(uri):
                experiment = find_experiment(client, uri, self.experiment or run.recipe, run.root)
                return open_run(client, uri, experiment, run)

    def close(self, handle: Mapping[str, Any], root: Path, status: str) -> None:
        """End a handle's runs that are still RUNNING. FwError when MLflow cannot be reached."""
        uri = uri_of_handle(handle, root) if "parent_run_id" in handle else chosen(self.uri, root)
        database = database_of(uri)
        if not handle or (database is not None and not database.exists()):
            return
        with clear_errors(uri):
            client = connect(uri)
            with write_lock(uri):
                for id_ in runs_of(client, handle, self.experiment):
                    run = active_run(client, id_)
                    if run is not None and run.info.status == "RUNNING":
                        client.set_terminated(id_, STATUS[status])

    def register(self, handle: Mapping[str, Any], root: Path, arm: str, name: str) -> str:
        uri = uri_of_handle(handle, root)
        with clear_errors(uri):
            client = connect(uri)
            with write_lock(uri):
                return register(client, uri, handle["children"].get(arm, ""), arm, name)

    def fetch(self, name: str, root: Path) -> Path | None:
        if (known := named(name)) is None:
            return None
        return fetch(known.uri or chosen(self.uri, root), known.id)

    def serve(self, root: Path, port: int, browse: bool = False) -> int:
        return serve(root, port, browse=browse)


def open_run(
    client: MlflowClient, uri: str, experiment: Experiment, run: RunDescription
) -> MLflowRun:
    """Find or create the parent and its children, and set them RUNNING. Arms whose record is
    complete stay as they are until something new is logged to them."""
    id_ = experiment.experiment_id
    folder = str(run.folder.absolute())
    common = {"fw.recipe": run.recipe, "fw.key": run.key, "fw.folder": folder, **run_tags(run)}
    parent = previous_parent(client, id_, run)
    if parent is None:
        parent = create(client, id_, run_name(run), {**common, "fw.role": "recipe"})
    runs: dict[str | None, Logged] = {None: parent}
    children = arms_of(client, id_, parent.id, run)
    colour = colours(run)
    for arm in sorted(run.arms, key=lambda arm: arm.parent is not None):
        tags = {
            **common,
            "fw.role": "arm" if arm.parent is None else "training",
            "fw.arm": arm.name,
            "mlflow.parentRunId": runs[arm.parent].id,
            "mlflow.runColor": colour[arm.parent or arm.name],
        }
        runs[arm.name] = children.get(arm.name) or create(client, id_, arm.name, tags)
        log_params(client, runs[arm.name].run, arm.params)
        log_dataset(client, runs[arm.name].run, run.tags, arm.params)
    for logged in runs.values():
        if not logged.ended:
            client.update_run(logged.id, status="RUNNING")
        if (
            logged.run.data.tags.get("fw.folder") != folder
        ):  # the folder was moved; the key still identifies the run
            client.set_tag(logged.id, "fw.folder", folder)
    sweep_models(client, uri, id_, run, [logged.id for logged in runs.values()])
    view = f"fw-{run.key}"
    pictures = saved_pictures(experiment.tags, view)
    save_view(client, id_, view, run, pictures)
    return MLflowRun(client, uri, id_, view, run, runs, pictures)


def with_record(child: Logged) -> Logged:
    """A run as it was found, with what it is known to hold if it has ended well."""
    tag = child.run.data.tags.get(TAG, "")
    if child.run.info.status != STATUS["finished"] or not tag:
        return child
    return Logged(child.run, ended=True, record=Record(tag))


def runs_of(client: MlflowClient, handle: Mapping[str, Any], experiment: str | None) -> list[str]:
    """The ids of a run and its arms; of all runs with its key if it died without a handle."""
    if "parent_run_id" in handle:
        return [handle["parent_run_id"], *handle["children"].values()]
    stored = client.get_experiment_by_name(experiment or handle["recipe"])
    if stored is None:
        return []
    query = f"tags.`fw.recipe` = '{handle['recipe']}' and tags.`fw.key` = '{handle['key']}'"
    return [
        run.info.run_id
        for run in client.search_runs([stored.experiment_id], query, max_results=1000)
    ]


def previous_parent(client: MlflowClient, experiment: str, run: RunDescription) -> Logged | None:
    """The parent that the handle names, if it is this run's; else one with its key, preferably of
    this folder."""
    known = active_run(client, str((run.previous or {}).get("parent_run_id", "")))
    tags = {"fw.role": "recipe", "fw.recipe": run.recipe, "fw.key": run.key}
    if (
        known is not None
        and known.info.experiment_id == experiment
        and tags.items() <= known.data.tags.items()
    ):
        return Logged(known)
    same = client.search_runs(
        [experiment], " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
    )
    folder = str(run.folder.absolute())
    return next(
        map(Logged, sorted(same, key=lambda each: each.data.tags.get("fw.folder") != folder)), None
    )


def active_run(client: MlflowClient, id_: str) -> Run | None:
    """The run with this id; None if there is none, or if it was deleted."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(id_) if id_ else None
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return run if run is not None and run.info.lifecycle_stage == "active" else None


def arms_of(
    client: MlflowClient, experiment: str, parent: str, run: RunDescription
) -> dict[str | None, Logged]:
    """The runs of a run's arms, and of their trainings below them."""
    found = {
        child.run.data.tags.get("fw.arm"): child
        for child in children_of(client, experiment, parent)
    }
    for arm in {arm.parent for arm in run.arms} & found.keys():
        for child in children_of(client, experiment, found[arm].id):
            found[child.run.data.tags.get("fw.arm")] = child
    return {arm: with_record(child) for arm, child in found.items()}


def children_of(client: MlflowClient, experiment: str, parent: str) -> list[Logged]:
    children = client.search_runs(
        [experiment], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=1000
    )
    return [Logged(child) for child in children]


def models_of(client: MlflowClient, experiment: str, run: RunDescription) -> list[LoggedModel]:
    """The models of a run's arms in MLflow, in any state."""
    return list(
        client.search_logged_models([experiment], f"tags.`fw.key` = '{run.key}'", max_results=1000)
    )


def sweep_models(
    client: MlflowClient, uri: str, experiment: str, run: RunDescription, runs: Collection[str]
) -> None:
    """Remove what killed uploads left. None is going on: one process at a time writes a run."""
    for model in models_of(client, experiment, run):
        if model.status.name == "PENDING" and model.source_run_id in runs:
            client.delete_logged_model(model.model_id)
            database = database_of(uri)
            folder = Path(unquote(urlsplit(model.artifact_location).path)).parent
            if (
                database is not None
                and model.model_id == folder.name
                and database.parent in folder.parents
            ):
                shutil.rmtree(folder, ignore_errors=True)


def create(client: MlflowClient, experiment: str, name: str, tags: Mapping[str, str]) -> Logged:
    short = {fitting(key): shortened(redact(value), TAG_LENGTH) for key, value in tags.items()}
    return Logged(client.create_run(experiment, tags=short, run_name=name))


def log_params(client: MlflowClient, run: Run, params: Mapping[str, str]) -> None:
    """Log what is not there yet; MLflow's params cannot be changed."""
    from mlflow.entities import Param

    lacking = {key: value for key, value in params.items() if fitting(key) not in run.data.params}
    new = [Param(key, value) for key, value in short_params(lacking).items()]
    for start in range(0, len(new), 100):
        client.log_batch(run.info.run_id, params=new[start : start + 100])


def log_dataset(
    client: MlflowClient, run: Run, tags: Mapping[str, str], params: Mapping[str, str]
) -> None:
    """Log what an arm is trained on, once."""
    if run.inputs is None or not run.inputs.dataset_inputs:
        client.log_inputs(run.info.run_id, [dataset_input(tags, params)])


def short_params(params: Mapping[str, str]) -> dict[str, str]:
    return {fitting(key): shortened(redact(value), PARAM_LENGTH) for key, value in params.items()}


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 4] + " ..."


def safely(call: Callable[..., None]) -> Callable[..., None]:
    """A call of an open run, with errors in one sentence, and in turn with other processes.

    Where another client of the same server wrote the same thing at once, it is repeated: every call
    may be.
    """

    @functools.wraps(call)
    def called(run: MLflowRun, *args: Any) -> None:
        from mlflow.exceptions import MlflowException

        with clear_errors(run.uri), write_lock(run.uri):
            try:
                call(run, *args)
            except MlflowException as error:
                if not re.search(
                    "unique constraint|duplicate|integrityerror", str(error), re.IGNORECASE
                ):
                    raise
                call(run, *args)

    return called


@dataclass
class Logged:
    """One run in MLflow, as it was when it was opened."""

    run: Run
    ended: bool = False
    seconds: float | None = None
    """What the arm cost, once it is known."""
    record: Record = field(default_factory=Record)

    @property
    def id(self) -> str:
        return self.run.info.run_id


def end_of(logged: Logged) -> int | None:
    """When an arm ended, in milliseconds, so that its duration is what it cost: arms run side by
    side and share stages. None is now."""
    cost = logged.seconds
    return None if cost is None else logged.run.info.start_time + round(1000 * cost)


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
    figures: list[str] = field(default_factory=list)
    """The pictures of the run as a whole."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Names that MLflow does not take, and their substitutes."""
    not_finite: dict[tuple[str | None, str], float] = field(default_factory=dict)
    """Values that MLflow's pages cannot draw, by arm and name."""

    def series(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
        if self._holds(arm, *of_values("series", records)):
            self._note_drawn(arm, records)
        else:
            self._series(arm, records)

    @safely
    def _series(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
        from mlflow.entities import Metric

        self._open_again(arm)
        logged, now = self.runs[arm], int(1000 * time.time())
        last = {metric.key: metric.step for metric in self._latest(logged)}
        new: dict[tuple[str, int], Metric] = {}
        for record in sorted(records, key=lambda record: record["step"]):
            step = int(record["step"])
            values = {key: value for key, value in record.items() if key != "step"}
            for key, value in self._drawn(arm, values).items():
                if step > last.get(key, -1):
                    at = 1000 * step if key.startswith("system/") else now
                    new[key, step] = Metric(key, value, at, step)
        metrics = list(new.values())
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(logged.id, metrics=metrics[start : start + BATCH])
        self._remark(arm)

    def scores(self, arm: str | None, values: Mapping[str, float]) -> None:
        self.runs[arm].seconds = values.get("cost/seconds", self.runs[arm].seconds)
        if self._holds(arm, *of_values("scores", [values])):
            self._note_drawn(arm, [values])
        elif values:
            self._scores(arm, values)

    @safely
    def _scores(self, arm: str | None, values: Mapping[str, float]) -> None:
        self._open_again(arm)
        self._log_scores(arm, values)

    def _log_scores(self, arm: str | None, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        logged, now = self.runs[arm], int(1000 * time.time())
        known = {metric.key: metric.value for metric in self._latest(logged)}
        new = [
            (key, value)
            for key, value in self._drawn(arm, values).items()
            if known.get(key) != value
        ]
        for start in range(0, len(new), BATCH):
            batch = [Metric(key, value, now, 0) for key, value in new[start : start + BATCH]]
            self.client.log_batch(logged.id, metrics=batch)
        self._remark(arm)

    def files(self, arm: str | None, paths: Sequence[Path]) -> None:
        """Log to the run's root folder: the compare page shows only its files side by side."""
        if arm is None:
            self.figures += [path.name for path in paths if path.suffix == ".png"]
        if self._holds(arm, *of_files(paths)):
            self._show(self._picture(path) for path in paths if path.suffix == ".png")
        else:
            self._files(arm, paths)

    @safely
    def _files(self, arm: str | None, paths: Sequence[Path]) -> None:
        self._open_again(arm)
        logged = self.runs[arm]
        for path in paths:
            self.client.log_artifact(logged.id, str(path))
            if arm is not None and path.suffix == ".png":
                self._chart(logged, path)
                if path.stem == "grid":
                    text = with_picture("Samples:", logged.id, path.name)
                    self.client.set_tag(logged.id, NOTE, text)

    def wants_model(self, arm: str) -> bool:
        return "fw.package" not in self.runs[arm].run.data.tags

    def model(self, arm: str, weights: Path, scores: Mapping[str, float]) -> None:
        self._model(arm, scores, "fw.model", lambda model: weights)

    def package(self, arm: str, folder: Path, scores: Mapping[str, float]) -> None:
        """Log a packed arm as a model that MLflow loads."""
        run = self.runs[arm].id
        self._model(arm, scores, "fw.package", lambda model: save(folder, model, run))

    @safely
    def _model(
        self,
        arm: str,
        scores: Mapping[str, float],
        tag: str,
        made: Callable[[str], Path],
    ) -> None:
        """Log what is made for a model's id, a file or a folder, unless the arm has its tag."""
        from mlflow.entities import LoggedModelOutput

        logged = self.runs[arm]
        if tag in logged.run.data.tags:
            return
        self._open_again(arm)
        run = self.client.get_run(logged.id)
        if tag in run.data.tags:
            return
        uploaded = [
            model.model_id
            for model in models_of(self.client, self.experiment, self.description)
            if model.status.name == "READY"
            and model.source_run_id == logged.id
            and model.tags.get("fw.tag", "fw.model") == tag
        ]
        model = uploaded[0] if uploaded else self._upload(arm, tag, made)
        if model not in [
            output.model_id for output in (run.outputs.model_outputs if run.outputs else [])
        ]:
            self.client.log_outputs(logged.id, [LoggedModelOutput(model, step=0)])
        self._score(arm, model, scores)
        self.client.set_tag(logged.id, tag, model)

    def words(self, arm: str | None, values: Mapping[str, str]) -> None:
        if not self._holds(arm, f"words {sorted(values)}", digest(["words", dict(values)])):
            self._words(arm, values)

    @safely
    def _words(self, arm: str | None, values: Mapping[str, str]) -> None:
        self._open_again(arm)
        for key, value in values.items():
            tag = fitting(f"fw.{key}")
            self.client.set_tag(self.runs[arm].id, tag, shortened(redact(value), TAG_LENGTH))

    @safely
    def note(self, markdown: str) -> None:
        remarks = "".join(f"\n\n{remark}" for remark in self._remarks())
        run = self.runs[None].id
        figure = next((name for name in self.figures if name == "arms.png"), None)
        text = with_picture(redact(markdown), run, figure, remarks)
        self.client.set_tag(run, NOTE, text)
        self._describe_experiment()

    def _describe_experiment(self) -> None:
        """List the runs of fw in the experiment's description, unless somebody wrote another."""
        parents = self.client.search_runs(
            [self.experiment], "tags.`fw.role` = 'recipe'", max_results=100
        )
        tags = self.client.get_experiment(self.experiment).tags
        for key, value in described(parents, tags).items():
            self.client.set_experiment_tag(self.experiment, key, value)

    def end_arm(self, arm: str, status: str) -> None:
        if not (self.runs[arm].ended and status == "finished"):
            self._end_arm(arm, status)

    @safely
    def _end_arm(self, arm: str, status: str) -> None:
        logged = self.runs[arm]
        if status == "finished":
            self.client.set_tag(logged.id, TAG, logged.record.tag)
        self.client.set_terminated(logged.id, STATUS[status], end_of(logged))
        logged.ended = True

    @safely
    def end(self, status: str) -> None:
        """End the run, and with it the arms that have not ended."""
        for arm, logged in self.runs.items():
            if arm is None or not logged.ended:
                self.client.set_terminated(logged.id, STATUS[status])
                logged.ended = True

    @property
    def handle(self) -> dict[str, Any]:
        return {
            "tracking_uri": HERE if self._here else hide(self.uri),
            "experiment_id": self.experiment,
            "parent_run_id": self.runs[None].id,
            "children": {arm: logged.id for arm, logged in self.runs.items() if arm is not None},
        }

    @property
    def hint(self) -> str:
        if self.uri.lower().startswith(WEB):
            return view_url(hide(self.uri).rstrip("/"), self.experiment, self.view)
        command = f"mlflow server --backend-store-uri {shlex.quote(hide(self.uri))} --port {PORT}"
        if self._here:
            command = f"fw ui --out {shlex.quote(str(self.description.root.absolute()))}"
        return f"{command}, then {view_url(f'http://{HOST}:{PORT}', self.experiment, self.view)}"

    @property
    def _here(self) -> bool:
        """Whether it is logged to the database in the runs folder itself."""
        return self.uri == sqlite_uri(self.description.root.absolute() / DATABASE)

    def _holds(self, arm: str | None, topic: str, contents: str) -> bool:
        """Whether this was logged to the arm before it was opened, so that nothing is to be
        done."""
        record = self.runs[arm].record
        record.add(topic, contents)
        return record.holds(contents)

    def _open_again(self, arm: str | None) -> None:
        """An arm that has ended goes on: until it ends, its tag would not tell the truth."""
        logged = self.runs[arm]
        if arm is not None and logged.ended:
            self.client.set_tag(logged.id, TAG, "")
            self.client.update_run(logged.id, status="RUNNING")
            logged.ended = False

    def _note_drawn(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
        """Note for the remarks what is in values that were logged before."""
        for record in records:
            self._drawn(arm, {key: value for key, value in record.items() if key != "step"})

    def _latest(self, logged: Logged) -> Sequence[Any]:
        """The last point of every metric as MLflow has it now: another process may have logged
        meanwhile."""
        return self.client.get_run(logged.id).data._metric_objs

    def _drawn(self, arm: str | None, values: Mapping[str, float]) -> dict[str, float]:
        """The values that MLflow can draw, by names that it takes; other values and names are noted
        for the remarks."""
        drawn = {}
        for key, value in values.items():
            name = fitting(key)
            if name != key:
                self.renamed[key] = name
            if math.isfinite(value):
                drawn[name] = float(value)
                self.not_finite.pop((arm, key), None)
            else:
                self.not_finite[arm, key] = float(value)
        return drawn

    def _remark(self, arm: str | None) -> None:
        """Say beside an arm's metrics which of them are not finite."""
        tags = self.runs[arm].run.data.tags
        text = ", ".join(
            f"{key} = {value}" for (owner, key), value in self.not_finite.items() if owner == arm
        )
        if tags.get("fw.not_finite", "") != text:
            self.client.set_tag(self.runs[arm].id, "fw.not_finite", shortened(text, TAG_LENGTH))
            tags["fw.not_finite"] = text

    def _remarks(self) -> Iterator[str]:
        """For readers of the page: values that are not drawn, and names that were changed."""
        values = ", ".join(
            f"{arm or 'run'}: {key} = {value}" for (arm, key), value in self.not_finite.items()
        )
        names = ", ".join(f"`{key}` is `{name}`" for key, name in self.renamed.items())
        if values:
            yield shortened(f"Not finite, so not drawn: {values}.", TAG_LENGTH // 4)
        if names:
            yield shortened(
                f"Renamed, because MLflow does not take all characters: {names}.", TAG_LENGTH // 4
            )

    def _chart(self, logged: Logged, path: Path) -> None:
        """Show an arm's picture beside the headline's chart too, once: MLflow would add it again
        on every call."""
        from PIL import Image

        key = self._picture(path)
        known = [Path(file.path).name for file in self.client.list_artifacts(logged.id, "images")]
        if not any(re.split("[+%]", name)[0] == key.replace("/", "~") for name in known):
            with Image.open(path) as image:
                self.client.log_image(
                    logged.id, image.convert("RGB"), key=key, step=0, synchronous=True
                )
        self._show([key])

    def _picture(self, path: Path) -> str:
        """What a picture is called in charts."""
        prefix = self.description.headline.rpartition("/")[0]
        return re.sub(r"[^\w./ -]+", "_", f"{prefix}/{path.stem}" if prefix else path.stem)

    def _show(self, keys: Iterable[str]) -> None:
        """Have the pictures of these names in the view."""
        if new := [key for key in dict.fromkeys(keys) if key not in self.pictures]:
            self.pictures += new
            save_view(self.client, self.experiment, self.view, self.description, self.pictures)

    def _upload(self, arm: str, tag: str, made: Callable[[str], Path]) -> str:
        params = {a.name: a.params for a in self.description.arms}[arm]
        model = self.client.create_logged_model(
            self.experiment,
            name=re.sub(r"[/:.%\"']+", "_", arm),
            source_run_id=self.runs[arm].id,
            tags={"fw.arm": arm, "fw.key": self.description.key, "fw.tag": tag},
            params=short_params(params),
            model_type="diffusion",
        ).model_id
        made_for = made(model)
        if made_for.is_dir():
            self.client.log_model_artifacts(model, str(made_for))
            card = (made_for / "README.md").read_text(encoding="utf-8")
            self.client.set_logged_model_tags(model, {NOTE: shortened(redact(card), TAG_LENGTH)})
        else:
            self.client.log_model_artifact(model, str(made_for))
        self.client.finalize_logged_model(model, "READY")
        return model

    def _score(self, arm: str, model: str, scores: Mapping[str, float]) -> None:
        """Score the model. MLflow adds the scores to the run too; with the run's own times they
        stay one point."""
        from mlflow.entities import Metric

        self._log_scores(arm, scores)
        metrics = []
        for key in self._drawn(arm, scores):
            point = self.client.get_metric_history(self.runs[arm].id, key)[-1]
            metrics.append(Metric(key, point.value, point.timestamp, point.step, model_id=model))
        self.client.log_batch(self.runs[arm].id, metrics=metrics)
