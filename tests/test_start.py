"""A training starts from the weights of a finished run's arm: `train: {from: RUN#ARM}`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from sites import fw

from fw.core.errors import MissingFile, RecipeError
from fw.core.files.finished import FinishedWeights
from fw.core.job import Job
from fw.core.learning.train import train
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.checks import warnings
from fw.core.recipe.loading import load
from fw.core.stages.data import load_split
from fw.core.stages.train import TrainDenoiser

TINY = Path(__file__).parent / "tiny.yaml"
SHORT = ("tracker=null", "train.steps=4", "samples={count: 20, seeds: 1}")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with a finished run, whose annotator had labels in one of its arms."""
    folder = tmp_path_factory.mktemp("first") / "runs"
    told = "arms.told={annotator: labels}"
    sets = [word for each in (*SHORT, told) for word in ("--set", each)]
    answer = fw("run", TINY, "--out", folder, "--arm", "unconditional", "--arm", "told", *sets)
    assert answer.code == 0, answer.err
    return folder


@pytest.fixture
def run(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, named from where a user stands."""
    shutil.copytree(out, tmp_path / "runs", symlinks=True)
    monkeypatch.chdir(tmp_path)
    return Path("runs/tiny/latest")


def planned(*assignments: str, arm: str = "unconditional") -> Plan:
    return plan(load(TINY, (*SHORT, *assignments)), [arm])


def begun(run: Path | str, **train: float) -> str:
    """An assignment: the unconditional arm starts from that of the run."""
    section = {"steps": 4, **train, "from": f"{run}#unconditional"}
    return f"arms.unconditional={json.dumps({'annotator': None, 'train': section})}"


def trained(found: Plan) -> TrainDenoiser:
    (stage,) = (each for each in found.stages.values() if isinstance(each, TrainDenoiser))
    return stage


def test_the_first_step_is_taken_from_those_weights(run: Path, tmp_path: Path) -> None:
    stage = trained(planned(begun(run, lr=1e-30, ema=0)))
    assert stage.train.start is not None
    before = load_file(stage.train.start.file())
    data = load_split(stage.dataset, "train", lambda stage: tmp_path).without_labels()
    folder = tmp_path / "job"
    folder.mkdir()
    network = train(stage.model, stage.process, data, None, stage.train, Job(folder))
    after = network.state_dict()
    assert before.keys() == after.keys()
    for name, weights in before.items():
        torch.testing.assert_close(after[name], weights)


def test_keys_follow_the_weights_and_not_their_place(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = trained(planned(begun(run)))
    assert stage.key != trained(planned()).key
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "runs", tmp_path / "elsewhere" / "runs")
    moved = trained(planned(begun("elsewhere/runs/tiny/latest")))
    assert moved.key == stage.key


def test_a_run_starts_from_another_and_can_be_read_when_that_is_gone(
    run: Path, tmp_path: Path
) -> None:
    words = [word for each in SHORT for word in ("--set", each)]
    words += ["--set", begun(run), "--set", "name=second"]
    words += ["--out", "runs", "--arm", "unconditional"]
    ran = fw("run", TINY, *words)
    assert ran.code == 0, ran.err
    second = Path("runs/second/latest")
    resolved = yaml.safe_load((second / "recipe.resolved.yaml").read_text("utf-8"))
    start = resolved["arms"]["unconditional"]["train"]["from"]
    assert start["run"] == str(run.parent / run.readlink())
    assert len(start["sha256"]) == 64
    shutil.rmtree(run.resolve())
    drawn = fw("sample", second, "--arm", "unconditional", "-n", "2", "-o", tmp_path / "grid.png")
    assert drawn.code == 0, drawn.err


def test_a_link_is_followed_when_the_recipe_is_read(run: Path) -> None:
    start = FinishedWeights.model_validate(f"{run}#unconditional")
    file = start.file()
    assert FinishedWeights.model_validate(f"{run}/run.json#unconditional") == start
    run.unlink()  # as it is with the next run, which it leads to from then on
    (run.parent / "next").mkdir()
    (run.parent / "next" / "run.json").write_text('{"arms": {"unconditional": {}}}')
    run.symlink_to("next")
    assert start.file() == file
    start.preflight()


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ("runs/tiny/latest", "expected RUN#ARM, a run's folder and one of its arms"),
        ("runs/none#unconditional", "runs/none is no run's folder: there is no run.json"),
        ("runs/tiny/latest#odd", "no arm 'odd' in runs/tiny/latest (known: unconditional, "),
        ("runs/tiny/latest#self_1.5", "has no finished samples in"),
    ],
)
def test_what_is_no_finished_arm_is_refused_in_one_sentence(
    named: str, reason: str, run: Path
) -> None:
    with pytest.raises(RecipeError) as refused:
        planned(f"train.from={named}")
    (problem,) = refused.value.problems
    assert "train.from: " in problem
    assert reason in problem


def test_weights_of_another_network_are_refused_before_the_run(run: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.from: .* in the shape .* and this network in"):
        planned(f"train.from={run}#unconditional", "model.channels=[16, 32]")
    with pytest.raises(RecipeError, match=r"has no weights '.*', and this network does"):
        planned(
            f"arms.self_1.0={{train: {{steps: 4, from: '{run}#unconditional'}}}}", arm="self_1.0"
        )


def test_weights_that_changed_since_or_are_damaged_are_not_started_from(run: Path) -> None:
    start = FinishedWeights.model_validate(f"{run}#unconditional")
    file = start.file()
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(MissingFile, match="damaged in the store: run `fw verify"):
        start.file()
    with pytest.raises(MissingFile, match="has other weights by now"):
        start.model_copy(update={"sha256": "0" * 64}).preflight()


def test_labels_that_the_weights_have_seen_are_not_forgotten(run: Path) -> None:
    one = "arms.one={annotator: labels, train: {steps: 4, from: 'runs/tiny/latest#told'}}"
    recipe = load(TINY, (*SHORT, one))
    stage = trained(planned(one, arm="one"))
    assert stage.supervision.kind == "labels"
    assert recipe.label_free(recipe.arm("one")).value == "no"
    assert recipe.label_free(recipe.arm("self_1.0")).value == "yes"
    free = load(TINY, (*SHORT, begun(run)))
    assert free.label_free(free.arm("unconditional")).value == "yes"


def test_what_makes_a_comparison_unfair_or_a_start_odd_is_said(run: Path) -> None:
    other = (
        f"arms.begun={{annotator: null, process: flow, train: {{steps: 4, from: "
        f"'{run}#unconditional'}}}}"
    )
    said = "\n".join(map(str, warnings(load(TINY, (*SHORT, other)))))
    named = f"{run.parent / run.readlink()}#unconditional"
    assert f"train.from differs from the baseline's: {named} against None" in said
    assert "was trained under process 'ddpm', and this arm is under 'flow'" in said
    said = "\n".join(map(str, warnings(load(TINY, (*SHORT, begun(run), "process.prediction=eps")))))
    assert "was trained under process 'ddpm' with prediction: v (here eps), where a" in said
    assert "trained under process" not in str(warnings(load(TINY, (*SHORT, begun(run)))))
    slow = begun(run, ema=0.99, ema_ramp=False)
    said = "\n".join(map(str, warnings(load(TINY, (*SHORT, slow)))))
    assert f"averaged weights are still 96% those of {named} after 4 steps" in said


def test_the_same_weights_are_no_difference_wherever_they_lie(run: Path) -> None:
    shutil.copytree(run.resolve(), run.parent / "copy")
    twin = begun(run.parent / "copy").replace("unconditional=", "twin=")
    recipe = load(TINY, (*SHORT, begun(run), twin))
    assert str(recipe.arm("twin").train.start) != str(recipe.arm("unconditional").train.start)
    of_twin = [each.reason for each in warnings(recipe) if each.location == ("arms", "twin")]
    assert not [reason for reason in of_twin if "differs" in reason]
