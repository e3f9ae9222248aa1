"""Where MLflow's data lies: runs folders with any name, copied and moved, and names that MLflow
does not take."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_metric, _validate_param
from test_mlflow_tracker import (
    ARMS,
    client_of,
    describe,
    history_lengths,
    log_all,
    parent_and_children,
    root,
    statuses,
    template,
)

from fw.core.errors import FwError
from fw.core.recipe.checks import faults
from fw.core.recipe.loading import load
from fw.plugins.metrics.fd import FD
from fw.plugins.trackers.mlflow import MLflow
from fw.plugins.trackers.mlflow_names import fits, fitting, folder_name
from fw.plugins.trackers.mlflow_uris import database_of, sqlite_uri

__all__ = ["root", "template"]  # fixtures
TINY = Path(__file__).parent / "tiny.yaml"
BAD_NAMES = ("..", ".", "/", "...", ".hidden", "a\nb", "../../up", "a" * 300, "語" * 200)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def logged(root: Path, tmp_path: Path) -> dict:
    run = MLflow().open(describe(root))
    log_all(run, tmp_path / "made")
    return dict(run.handle)


def test_a_copied_runs_folder_is_the_same_run_and_the_original_is_not_touched(root, tmp_path):
    handle = logged(root, tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    before, lengths = contents(root), history_lengths(root)
    assert logged(copy, tmp_path) == handle
    again = MLflow().open(describe(copy, previous=handle))
    (tmp_path / "new.txt").write_text("new")
    again.files("rcg", [tmp_path / "new.txt"])
    again.end("finished")
    assert contents(root) == before
    assert len(list(copy.glob("mlartifacts/tiny/*/artifacts/new.txt"))) == 1
    assert history_lengths(copy) == lengths
    parent, children = parent_and_children(copy)
    for run in (parent, *children.values()):
        assert run.data.tags["fw.folder"].startswith(f"{copy}/")
    client = client_of(copy)
    models = client.search_logged_models([handle["experiment_id"]])
    places = [run.info.artifact_uri for run in (parent, *children.values())]
    assert all(
        place.startswith(copy.as_uri())
        for place in places + [model.artifact_location for model in models]
    )
    logged(root, tmp_path)  # and the original goes on by itself
    assert list(copy.glob("mlartifacts/tiny/*/artifacts/new.txt"))
    assert not list(root.glob("mlartifacts/tiny/*/artifacts/new.txt"))


def test_a_moved_runs_folder_goes_on_where_it_is_also_with_the_handle_of_an_older_version(
    root, tmp_path
):
    handle = logged(root, tmp_path)
    old = {**handle, "tracking_uri": f"sqlite:///{root}/mlflow.db"}
    moved = root.rename(tmp_path / "moved%20here")
    run = MLflow().open(describe(moved, previous=old))
    assert dict(run.handle) == handle
    run.files(None, [tmp_path / "made" / "grid.png"])
    run.end("killed")
    MLflow().close(old, moved, "failed")
    ended = statuses(moved)
    assert ended.pop("") == "KILLED"
    assert set(ended.values()) == {"FINISHED"}  # the arms were complete before
    assert not root.exists()


def test_artifacts_of_another_spelling_of_the_same_folder_stay_as_they_are(root, tmp_path):
    logged(root, tmp_path)
    link = tmp_path / "link"
    link.symlink_to(root)
    before = parent_and_children(root)[0].info.artifact_uri
    logged(link, tmp_path)
    assert parent_and_children(root)[0].info.artifact_uri == before


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%20b", "a%3Fb", "ü ñ 語", 'it\'s "q" & $HOME;'])
def test_any_name_of_a_runs_folder_keeps_the_database_in_it(template, tmp_path, name):
    folder = tmp_path / "out" / name
    folder.mkdir(parents=True)
    shutil.copy(template, folder / "mlflow.db")
    uri = sqlite_uri(folder / "mlflow.db")
    assert database_of(uri) == folder / "mlflow.db"
    run = MLflow().open(describe(folder))
    log_all(run, tmp_path / "made")
    assert [path.name for path in folder.parent.iterdir()] == [name]
    assert len(list(folder.glob("mlartifacts/tiny/*/artifacts/grid.png"))) == len(ARMS)
    assert len(client_of(folder).list_artifacts(run.handle["children"]["rcg"])) == 2
    named = MLflow(uri=uri).open(describe(folder))
    assert named.handle == run.handle


@pytest.mark.parametrize("name", BAD_NAMES)
def test_an_experiment_of_any_name_keeps_its_artifacts_in_a_folder_of_its_own(root, tmp_path, name):
    text = tmp_path / "note.txt"
    text.write_text("note")
    run = MLflow(experiment=name).open(describe(root))
    run.files(None, [text])
    (found,) = root.rglob("note.txt")
    assert found.parents[3] == root / "mlartifacts"
    assert not found.parents[2].name.startswith(".")
    assert len(os.fsencode(found.parents[2].name)) < 200


def test_folders_of_usual_experiments_are_called_as_ever():
    assert [folder_name(each) for each in ("tiny", "my study/2", "v1.2-x")] == [
        "tiny",
        "my_study_2",
        "v1.2-x",
    ]


def taken(name: str) -> bool:
    """Whether MLflow takes it as the name of a metric and of a param."""
    try:
        _validate_metric(name, 1.0, 0, 0)
        _validate_param(name, "1")
    except MlflowException:
        return False
    return True


@given(st.text(min_size=1, max_size=300) | st.text("ab/.@: \n", min_size=1, max_size=9))
@example("recall@5")
@example("a//b")
@example("..a")
@example("a/../b")
@example("x" * 251)
@example("a\n")
@example("@")
def test_every_name_is_taken_by_mlflow_or_is_made_one_that_is(name):
    if fits(name):
        assert taken(name)
        assert fitting(name) == name
    assert taken(fitting(name))
    assert fits(fitting(name))


def test_names_that_become_alike_stay_apart():
    assert len({fitting(name) for name in ("recall@5", "recall#5", "recall_5", "recall@@5")}) == 4


def test_one_name_that_mlflow_does_not_take_does_not_empty_the_rest(root):
    run = MLflow().open(describe(root))
    run.scores(
        "rcg", {"eval/fd": 0.5, "recall@5": 0.25, "eval/kid": float("inf"), "eval/x": float("nan")}
    )
    run.series("rcg", [{"step": 0, "loss@start": 3.0, "train/loss": 2.0}])
    run.note("verdict")
    run.end("finished")
    parent, children = parent_and_children(root)
    assert children["rcg"].data.metrics == {
        "eval/fd": 0.5,
        fitting("recall@5"): 0.25,
        fitting("loss@start"): 3.0,
        "train/loss": 2.0,
    }
    assert children["rcg"].data.tags["fw.not_finite"] == "eval/kid = inf, eval/x = nan"
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("verdict")
    assert all(
        word in note for word in ("rcg: eval/kid = inf", f"`recall@5` is `{fitting('recall@5')}`")
    )


def test_params_and_tags_may_have_any_name(root):
    arms = [
        describe(root).arms[0]._replace(params={"dataset.folders.a@b": "1", "": "2", "fine": "3"})
    ]
    run = MLflow().open(describe(root, arms=arms, tags={"fw.plugin.a@b": "x"}))
    run.end("finished")
    _, children = parent_and_children(root)
    assert children[ARMS[0]].data.params["fine"] == "3"
    assert len(children[ARMS[0]].data.params) == 3


def test_a_score_that_the_tracker_cannot_name_is_refused_when_the_recipe_is_validated(monkeypatch):
    recipe = load(TINY)
    assert list(faults(recipe)) == []
    monkeypatch.setattr(FD, "keys", property(lambda self: {"recall@5": "higher"}))
    (fault,) = faults(recipe)
    assert fault.location == ("metrics", 0)
    assert "'eval/recall@5'" in fault.reason
    assert list(faults(recipe.model_copy(update={"tracker": None}))) == []


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns", "./mlruns"])
def test_a_folder_as_a_tracking_uri_is_told_what_to_name_instead(tmp_path, monkeypatch, uri):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FwError, match=r"sqlite:///.*migrate-filestore"):
        MLflow(uri=uri).open(describe(tmp_path))
