"""What people read on MLflow's pages: the verdict's numbers, who ran what on which images, names,
descriptions, and trainings below their arms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image
from test_mlflow_tracker import ARMS, client_of, describe, root, template

from fw.core.kinds import ArmDescription
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import load
from fw.core.run.tracking import (
    Tracking,
    arm_scores,
    logged_arms,
    own_verdict,
    training_scores,
    verdict_scores,
    verdict_words,
)
from fw.core.store.store import Store
from fw.plugins.trackers.mlflow import MLflow, MLflowRun
from fw.plugins.trackers.mlflow_view import view_state

__all__ = ["root", "template"]  # fixtures
TINY = Path(__file__).parent / "tiny.yaml"

RESULT: dict[str, Any] = {
    "baseline": "unconditional",
    "arms": {
        "unconditional": {"role": "baseline"},
        "self_1.5": {"role": "candidate"},
        "random_1.5": {},
    },
    "verdict": {
        "sentences": ["self_1.5 is better.", "The rest."],
        "comparisons": [
            {
                "arm": "self_1.5",
                "than": "random_1.5",
                "role": "control",
                "difference": -0.5,
                "interval": None,
                "p": None,
                "adjusted": None,
                "decision": "undecided",
                "spread": 0.1,
            },
            {
                "arm": "self_1.5",
                "than": "unconditional",
                "role": "baseline",
                "difference": -1.2,
                "interval": [-1.6, -0.8],
                "p": 0.003,
                "adjusted": 0.009,
                "decision": "better",
                "spread": None,
            },
        ],
    },
}


def test_the_verdict_is_numbers_and_decisions_by_arm_and_by_what_it_is_compared_with() -> None:
    assert verdict_scores(RESULT) == {
        "verdict/self_1.5/than random_1.5/difference": -0.5,
        "verdict/self_1.5/than random_1.5/spread": 0.1,
        "verdict/self_1.5/difference": -1.2,
        "verdict/self_1.5/low": -1.6,
        "verdict/self_1.5/high": -0.8,
        "verdict/self_1.5/p": 0.003,
        "verdict/self_1.5/adjusted_p": 0.009,
    }
    assert own_verdict(RESULT, "self_1.5") == {
        "verdict/difference": -1.2,
        "verdict/low": -1.6,
        "verdict/high": -0.8,
        "verdict/p": 0.003,
        "verdict/adjusted_p": 0.009,
    }
    words = verdict_words(RESULT)
    assert words["self_1.5"] == {
        "arm_role": "candidate",
        "decision": "better",
        "decision_against": "unconditional",
    }
    assert words[None] == {
        "verdict": "self_1.5 is better.",
        "verdict/self_1.5": "better",
        "verdict/self_1.5/than random_1.5": "undecided",
    }


def test_a_record_from_before_there_was_a_verdict_has_none() -> None:
    old = {"baseline": "plain", "arms": {"plain": {}}}
    assert (verdict_scores(old), verdict_words(old), own_verdict(old, "plain")) == ({}, {}, {})


def test_an_arm_that_is_trained_several_times_is_logged_as_its_trainings(tmp_path: Path) -> None:
    planned = plan(load(TINY, ["repeats=2"]))
    names = ("unconditional", "self_1.0", "self_1.5")
    assert list(logged_arms(planned)) == [f"{arm} seed {seed}" for arm in names for seed in (0, 1)]
    tracking = Tracking(planned, Store(tmp_path))
    for seed, training in planned.arms["self_1.5"].trainings.items():
        assert tracking.users(training.sample) == [f"self_1.5 seed {seed}"]
    entry: dict[str, Any] = {
        "metrics": {
            "fd": {
                "mean": 2.5,
                "std": 0.7,
                "floor": 0.1,
                "trainings": {"0": [1.0, 3.0], "1": [2.0, 4.0]},
            }
        },
        "nfe": 3,
        "seconds": 4.0,
    }
    assert training_scores(entry, 1) == {"eval/fd": 3.0, "cost/nfe": 3}
    assert arm_scores(entry)["eval/fd"] == 2.5


def opened(root: Path, **changes: Any) -> MLflowRun:
    run = MLflow().open(describe(root, **changes))
    assert isinstance(run, MLflowRun)
    return run


def test_a_run_says_who_ran_what_on_which_images_and_its_arms_last_as_long_as_they_cost(
    root: Path, tmp_path: Path
) -> None:
    tags = {"fw.seed": "3", "fw.user": "ada", "fw.commit": "0123abc", "fw.dataset": "digits 42"}
    arms = [ArmDescription(arm, {"dataset.name": "digits", "seed": "3"}) for arm in ARMS]
    run = opened(root, tags=tags, arms=arms)
    run.words("rcg", {"decision": "better"})
    run.words(None, {"verdict": "rcg is better.", "verdict/rcg": "better"})
    run.scores(None, {"verdict/rcg/difference": -1.5})
    run.scores("rcg", {"eval/fd_pca": 0.5, "cost/seconds": 12.5})
    for name in ("grid.png", "arms.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    run.files("rcg", [tmp_path / "grid.png"])
    run.files(None, [tmp_path / "arms.png"])
    run.note("rcg is better.\n\n| a table |")
    run.end_arm("rcg", "finished")
    run.end("finished")
    client = client_of(root)
    parent = client.get_run(run.handle["parent_run_id"])
    child = client.get_run(run.handle["children"]["rcg"])
    assert parent.info.run_name == "tiny seed 3"
    assert parent.data.metrics == {"verdict/rcg/difference": -1.5}
    assert parent.data.tags["fw.verdict/rcg"] == "better"
    assert parent.data.tags["mlflow.note.content"].startswith("rcg is better.\n\n| a table |")
    assert (
        f"(get-artifact?path=arms.png&run_uuid={parent.info.run_id})"
        in (parent.data.tags["mlflow.note.content"])
    )
    for each in (parent, child):
        assert each.data.tags["mlflow.user"] == "ada"
        assert each.data.tags["mlflow.source.name"] == "fw run tiny"
        assert each.data.tags["mlflow.source.git.commit"] == "0123abc"
    assert child.info.end_time - child.info.start_time == 12_500
    assert child.data.tags["fw.decision"] == "better"
    assert "path=grid.png" in child.data.tags["mlflow.note.content"]
    (used,) = child.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("digits", "42")
    assert json.loads(used.dataset.source) == {"name": "digits"}
    assert (
        len(client.get_run(opened(root, tags=tags, arms=arms).runs["rcg"].id).inputs.dataset_inputs)
        == 1
    )


def test_two_runs_of_a_recipe_share_an_experiments_description_and_leave_a_users_alone(
    root: Path,
) -> None:
    experiment = ""
    for seed in ("0", "1", "0"):
        run = opened(root, key=f"seed{seed}", tags={"fw.seed": seed}, previous=None)
        run.note(f"verdict of {seed}\n\nmore")
        run.end("finished")
        experiment = run.handle["experiment_id"]
    client = client_of(root)
    lines = client.get_experiment(experiment).tags["mlflow.note.content"].split("\n\n")
    assert [line.partition(": ")[2] for line in lines] == ["verdict of 1", "verdict of 0"]
    assert lines[0].startswith("[tiny seed 1](#/experiments/")
    client.set_experiment_tag(experiment, "mlflow.note.content", "My study.")
    run.note("another verdict")
    assert client.get_experiment(experiment).tags["mlflow.note.content"] == "My study."


def test_trainings_are_below_their_arm_and_not_in_the_view_of_the_arms(root: Path) -> None:
    arms = [
        ArmDescription("plain", {"seed": "0"}),
        *(ArmDescription(f"plain seed {seed}", {"seed": str(seed)}, "plain") for seed in (0, 1)),
    ]
    for _ in range(2):
        run = opened(root, arms=arms, baseline="plain")
        run.scores("plain seed 1", {"eval/fd_pca": 0.5})
        run.end_arm("plain seed 1", "finished")
        run.end("finished")
    client = client_of(root)
    found = client.search_runs([run.handle["experiment_id"]])
    assert len(found) == 4
    parents = {each.info.run_name: each.data.tags.get("mlflow.parentRunId") for each in found}
    ids = {each.info.run_name: each.info.run_id for each in found}
    assert parents == {
        "tiny": None,
        "plain": ids["tiny"],
        "plain seed 0": ids["plain"],
        "plain seed 1": ids["plain"],
    }
    state = view_state(run.description, [])
    shown = client.search_runs([run.handle["experiment_id"]], state["searchFilter"])
    assert [each.info.run_name for each in shown] == ["plain"]
    columns = state["selectedColumns"]
    assert columns[:3] == [f"metrics.`{key}/fd_pca`" for key in ("eval", "std", "floor")]
    assert {"metrics.`verdict/difference`", "tags.`fw.decision`"} <= set(columns)
