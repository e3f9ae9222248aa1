"""A finished training goes on with more steps, to the bits of one that had them from the first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sites import fw, site, toy_recipe

from fw.core.commands.estimate import estimates
from fw.core.errors import RecipeError
from fw.core.execution.place import Place
from fw.core.execution.stage import execute
from fw.core.plan.assembly import plan
from fw.core.recipe.checks import warnings
from fw.core.recipe.loading import load
from fw.core.settings import Train
from fw.core.stages.base import Stage
from fw.core.stages.continuing import STATE
from fw.core.stages.train import TrainDenoiser
from fw.core.store.shorter import going_on, shorter
from fw.core.store.store import Store

TINY = Path(__file__).parent / "tiny.yaml"
GOES_ON = ("train.schedule=constant", "train.batch=16", "tracker=null")


class Heard:
    """Keeps what stages say."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def progress(self, stage: str, label: str, done: int, total: int) -> None:
        pass

    def metrics(self, stage: str, records: Sequence[Any]) -> None:
        pass

    def told(self, stage: str, text: str) -> None:
        self.said.append(text)


def training(
    *assignments: str, arm: str = "unconditional", keep: str = "optimizer"
) -> TrainDenoiser:
    found = plan(load(TINY, (*GOES_ON, f"train.keep={keep}", *assignments)), [arm])
    (stage,) = (each for each in found.stages.values() if isinstance(each, TrainDenoiser))
    return stage


def do(stage: Stage, store: Path) -> list[str]:
    """The stage and what it reads, done; what was said of it."""
    for _, source in stage.reads:
        do(source, store)
    heard = Heard()
    execute(stage, Place(store, "cpu", 1, 60.0), heard, lambda: False)
    return heard.said


def same(stage: Stage, one: Path, other: Path) -> bool:
    names = {file.name for file in (one / stage.id).iterdir()} - {"manifest.json", STATE}
    assert names == {file.name for file in (other / stage.id).iterdir()} - {"manifest.json", STATE}
    return all(
        (one / stage.id / name).read_bytes() == (other / stage.id / name).read_bytes()
        for name in names
    )


@pytest.mark.parametrize(
    ("arm", "before", "after"),
    [
        ("unconditional", ("train.steps=13",), ("train.steps=25",)),
        ("self_1.0", ("train.steps=13",), ("train.steps=25",)),
        # The end of the first is a snapshot of the second, and both track the averages.
        (
            "unconditional",
            ("train.steps=12", "train.snapshots=2", "train.averages=[0.1, 0.2]"),
            ("train.steps=24", "train.snapshots=4", "train.averages=[0.1, 0.2]"),
        ),
    ],
    ids=["alone", "conditions", "averages"],
)
def test_a_training_that_goes_on_ends_with_the_bits_of_one_that_did_not_stop(
    arm: str, before: tuple[str, ...], after: tuple[str, ...], tmp_path: Path
) -> None:
    short, long = training(*before, arm=arm), training(*after, arm=arm)
    went_on, at_once = tmp_path / "on", tmp_path / "once"
    do(short, went_on)
    assert any(f"goes on from the {short.train.steps} steps" in said for said in do(long, went_on))
    assert do(long, at_once) == []
    assert same(long, went_on, at_once)
    assert Store(went_on).digest(long.id) == Store(at_once).digest(long.id)


def test_one_goes_on_from_the_furthest_and_only_from_its_own_kind(tmp_path: Path) -> None:
    for assignments in (
        ("train.steps=4",),
        ("train.steps=7",),
        ("train.steps=8", "train.lr=1e-3"),
        ("train.steps=9", "seed=1"),
        ("train.steps=12",),
    ):
        do(training(*assignments), tmp_path)
    store = Store(tmp_path)
    found = shorter(training("train.steps=12"), store)
    assert found is not None
    assert (found.steps, found.id) == (7, training("train.steps=7").id)
    assert shorter(training("train.steps=4"), store) is None
    # Its snapshots after 3 and 6 of 12 steps are in none of them.
    assert shorter(training("train.steps=12", "train.snapshots=4"), store) is None


def test_an_estimate_is_of_the_steps_that_are_left(tmp_path: Path) -> None:
    store, short = Store(tmp_path), training("train.steps=4")
    do(short, tmp_path)
    found = plan(
        load(TINY, (*GOES_ON, "train.keep=optimizer", "train.steps=16")), ["unconditional"]
    )
    train = found.arms["unconditional"].train
    begun = going_on([found.stages[train]], store)
    about = estimates(found, [train], store, "cpu", begun)[train]
    assert about is not None
    assert about.seconds == pytest.approx(store.manifest(short.id)["seconds"] * 3)


def test_without_a_state_or_with_a_damaged_one_the_training_begins_at_step_0(
    tmp_path: Path,
) -> None:
    do(training("train.steps=4", keep="null"), tmp_path)
    assert not (tmp_path / training("train.steps=4").id / STATE).exists()
    (said,) = do(training("train.steps=6"), tmp_path)
    assert said.endswith("did not keep their optimizer: this training begins at step 0")

    kept = tmp_path / training("train.steps=6").id / STATE
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    (said,) = do(training("train.steps=8"), tmp_path)
    assert "damaged" in said
    assert said.endswith("this training begins at step 0")
    do(training("train.steps=8"), tmp_path / "once")
    assert same(training("train.steps=8"), tmp_path, tmp_path / "once")


def test_that_a_training_kept_its_optimizer_makes_no_other_product_of_what_reads_it(
    tmp_path: Path,
) -> None:
    kept, plain = training("train.steps=4"), training("train.steps=4", keep="null")
    assert kept.key == plain.key
    do(kept, tmp_path / "kept")
    do(plain, tmp_path / "plain")
    digests = {Store(tmp_path / each).digest(kept.id) for each in ("kept", "plain")}
    assert len(digests) == 1


def test_a_cosine_is_refused_with_the_reason() -> None:
    with pytest.raises(ValidationError, match="cosine is at its end after these 1000"):
        Train(keep="optimizer")
    with pytest.raises(RecipeError, match=r"train: keep: .* set schedule: constant"):
        load(TINY, ["train.keep=optimizer"])


def test_an_online_annotator_that_waits_for_a_share_of_all_steps_is_warned_about() -> None:
    recipe = load(TINY, [*GOES_ON, "train.keep=optimizer", "annotator={name: online, clusters: 5}"])
    said = [str(each) for each in warnings(recipe) if "train.keep" in str(each)]
    assert len(said) == 2
    assert said[0].startswith("arms.self_1.0: train.keep: annotator 'online' begins after a share")


def test_from_the_command_line_a_finished_recipe_goes_on_and_the_plan_says_so(
    tmp_path: Path,
) -> None:
    with site(tmp_path / "site"):
        recipe, out = toy_recipe(tmp_path), tmp_path / "runs"
        words = ["--out", out, "--set", "train.schedule=constant"]
        assert fw("run", recipe, *words, "--arm", "plain").code == 0
        again = fw("run", recipe, *words, "--set", "train.keep=optimizer", "--arm", "plain")
        assert "was finished without train.keep, so its optimizer is gone" in again.err
        words += ["--set", "train.keep=optimizer"]
        assert fw("run", recipe, *words).code == 0
        more = ["--set", "train.steps=6"]
        planned = fw("run", recipe, *words, *more, "--dry-run").out
        assert ", from step 4 of train-" in planned
        ran = fw("run", recipe, *words, *more)
        assert ran.code == 0
        assert "goes on from the 4 steps of train-" in ran.err
