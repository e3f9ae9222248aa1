"""Job.steps resumes bit for bit wherever it was cut off, its log tells each step once, and
nothing leaks from it."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fw.core.errors import Interrupted, StageFailed
from fw.core.files import unfinished
from fw.core.job import Job, Stateful
from fw.core.randomness import generator, seed_from

TOTAL = 9


class Cut(Exception):
    """Stands for a crash: nothing runs after it."""


class Heard:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.records: list[Mapping[str, float]] = []
        self.told: list[str] = []

    def progress(self, label: str, done: int, total: int) -> None:
        self.steps.append(done)

    def metrics(self, records: Sequence[Mapping[str, float]]) -> None:
        self.records += records

    def say(self, text: str) -> None:
        self.told.append(text)


def fit(
    job: Job,
    at: Callable[[int], None] = lambda step: None,
    total: int = TOTAL,
    label: str = "train",
) -> bytes:
    """The weights of a tiny model trained with every kind of randomness; `at` is called in the
    middle of each step."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    state: dict[str, Stateful] = {
        "network": network,
        "optimizer": optimizer,
        "scheduler": scheduler,
    }
    for step in job.steps(total, state, label):
        x = torch.randn(4, 3, generator=job.generator("x", step)) + torch.rand(1)
        loss = network(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        at(step)
        optimizer.step()
        scheduler.step()
        job.log(step, {f"{label}/loss": loss, "lr": optimizer.param_groups[0]["lr"]})
    return b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())


def log(folder: Path) -> list[dict[str, float]]:
    file = folder / "log.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[dict[str, float]]]:
    """The weights and the log of a training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight")
    return fit(Job(folder, seed=3)), log(folder)


def stop_at(job: Job, step: int) -> None:
    """Ask politely."""
    asked: list[int] = []
    job.stopping = lambda: bool(asked)
    with pytest.raises(Interrupted):
        fit(job, lambda now: asked.append(now) if now == step else None)


def crash_at(job: Job, step: int) -> None:
    """In the middle of a step."""

    def crash(now: int) -> None:
        if now == step:
            raise Cut

    with pytest.raises(Cut):
        fit(job, crash)


def crash_before_checkpoint(job: Job, step: int) -> None:
    """After the log was written, before the checkpoint was."""
    save, seen = torch.save, []

    def crash(payload: dict[str, Any], path: Path) -> None:
        seen.append(payload["step"])
        if payload["step"] > step:
            raise Cut
        save(payload, path)

    with mock.patch.object(torch, "save", crash), pytest.raises(Cut):
        fit(job)


def crash_while_writing(job: Job, step: int) -> None:
    """With half a checkpoint and half a line of the log on disk."""
    crash_before_checkpoint(job, step)
    (job.folder / "train.writing").write_bytes(b"half")
    with (job.folder / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "tra')


Straight = tuple[bytes, list[dict[str, float]]]
PARTS = ("train.checkpoint", "train.checkpoint.sha256", "log.jsonl")

cuts = st.tuples(
    st.sampled_from([stop_at, crash_at, crash_before_checkpoint, crash_while_writing]),
    st.integers(0, TOTAL - 2),
    st.sampled_from([0.0, 1e-9, 1e9]),
)


@settings(max_examples=60)
@given(st.lists(cuts, max_size=3))
def test_wherever_it_was_cut_off_training_ends_with_the_same_bits_and_the_same_log(
    straight: tuple[bytes, list[dict[str, float]]],
    tmp_path_factory: pytest.TempPathFactory,
    cuts: list,
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    for cut, step, checkpoint_seconds in sorted(cuts, key=lambda each: each[1]):
        checkpoint = folder / "train.checkpoint"
        done = torch.load(checkpoint, weights_only=True)["step"] if checkpoint.exists() else 0
        if done < TOTAL - 1:
            cut(Job(folder, seed=3, checkpoint_seconds=checkpoint_seconds), max(step, done))
    weights = fit(Job(folder, seed=3))
    assert weights == straight[0]
    assert log(folder) == straight[1]
    assert fit(Job(folder, seed=3)) == weights
    assert log(folder) == straight[1]


def test_other_seeds_and_labels_train_otherwise(
    straight: tuple[bytes, list[dict[str, float]]], tmp_path: Path
) -> None:
    found = {
        fit(Job(tmp_path, seed=4, checkpoint_seconds=0)),
        fit(Job(tmp_path, seed=3), label="other"),
        straight[0],
    }
    assert len(found) == 3


def test_being_stopped_saves_the_steps_that_were_done(tmp_path: Path) -> None:
    stop_at(Job(tmp_path), 4)
    assert torch.load(tmp_path / "train.checkpoint", weights_only=True)["step"] == 5
    assert [record["step"] for record in log(tmp_path)] == [0, 1, 2, 3, 4]
    heard = Heard()
    fit(Job(tmp_path, reporter=heard))
    assert heard.steps == [6, 7, 8, 9]


def test_being_stopped_before_the_first_step_is_no_harm(
    straight: tuple[bytes, list[dict[str, float]]], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        fit(Job(tmp_path, seed=3, stopping=lambda: True))
    assert fit(Job(tmp_path, seed=3)) == straight[0]


def test_a_finished_training_does_no_step_again(tmp_path: Path) -> None:
    heard = Heard()
    fit(Job(tmp_path))
    fit(Job(tmp_path, reporter=heard, stopping=lambda: True))
    assert heard.steps == heard.records == []


def test_checkpoints_hold_nothing_that_needs_unpickling(tmp_path: Path) -> None:
    fit(Job(tmp_path))
    payload = torch.load(tmp_path / "train.checkpoint", weights_only=True)
    assert payload["step"] == TOTAL
    assert payload["state"].keys() == {"network", "optimizer", "scheduler"}
    assert [path.name for path in tmp_path.glob("*.writing")] == []


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), name=st.sampled_from(PARTS))
def test_whatever_bit_flips_in_stopped_work_the_end_is_the_same_and_damage_is_said(
    tmp_path_factory: pytest.TempPathFactory, straight: Straight, where: float, bit: int, name: str
) -> None:
    folder, heard = tmp_path_factory.mktemp("flip"), Heard()
    stop_at(Job(folder, seed=3, checkpoint_seconds=0), 5)
    content = bytearray((folder / name).read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    (folder / name).write_bytes(content)
    job = Job(folder, seed=3, reporter=heard)
    assert fit(job) == straight[0]
    job.finish()
    assert log(folder) == straight[1]
    assert heard.told in (
        [],
        ["train.checkpoint was damaged since it was written, and is made again"],
    )
    assert bool(heard.told) == (len(heard.steps) == TOTAL) or name == "log.jsonl"


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_checkpoint_that_nothing_vouches_for_is_not_continued_from(
    tmp_path: Path, straight: Straight, content: bytes
) -> None:
    (tmp_path / "train.checkpoint").write_bytes(content)
    assert fit(Job(tmp_path, seed=3)) == straight[0]


@pytest.mark.parametrize("moment", ["voucher", "checkpoint"])
def test_a_crash_between_a_checkpoint_and_its_checksum_leaves_one_that_can_be_continued(
    tmp_path: Path, straight: Straight, moment: str
) -> None:
    rename, ending = (
        Path.replace,
        {"voucher": unfinished.VOUCHER, "checkpoint": ".checkpoint"}[moment],
    )
    crashes = iter([False, True])

    def crash(self: Path, target: Path) -> Path:
        if target.suffix == ending and next(crashes):
            raise Cut
        return rename(self, target)

    with mock.patch.object(Path, "replace", crash), pytest.raises(Cut):
        fit(Job(tmp_path, seed=3, checkpoint_seconds=0))
    heard = Heard()
    assert fit(Job(tmp_path, seed=3, reporter=heard)) == straight[0]
    assert heard.told == []
    assert heard.steps == list(range(2, TOTAL + 1))


def test_time_that_is_spent_on_telling_is_no_time_of_the_job(tmp_path: Path) -> None:
    clock = iter(range(0, 10**9, 1000))
    told = Heard()
    with mock.patch("time.monotonic", side_effect=clock):
        job = Job(tmp_path, reporter=told)
        before = job.seconds
        job.say("slowly")
        assert (
            job.seconds - before == 2000
        )  # three looks at the clock, of which two were for telling


def test_a_checkpoint_of_another_network_is_one_sentence_that_names_it(tmp_path: Path) -> None:
    fit(Job(tmp_path))
    with pytest.raises(
        StageFailed, match=r"train\.checkpoint cannot be continued from \("
    ) as caught:
        list(Job(tmp_path).steps(99, {"network": nn.Linear(2, 2)}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), torch.tensor(float("-inf"))])
def test_a_value_that_is_not_finite_ends_the_stage_and_says_which_and_when(
    tmp_path: Path, bad: float | Tensor
) -> None:
    def diverge(job: Job) -> None:
        for step in job.steps(TOTAL, {}):
            job.log(step, {"loss": bad if step == 3 else 1.0})

    with pytest.raises(
        StageFailed, match=r"^loss became (nan|inf|-inf) at step 3: lower the learning rate\?$"
    ):
        diverge(Job(tmp_path, checkpoint_seconds=0))
    assert [record["step"] for record in log(tmp_path)] == [0, 1, 2]
    assert torch.load(tmp_path / "train.checkpoint", weights_only=True)["step"] == 3


def test_every_logged_value_is_told_once_and_tensors_become_numbers(tmp_path: Path) -> None:
    heard = Heard()
    job = Job(tmp_path, reporter=heard, checkpoint_seconds=0)
    for step in job.steps(3, {}):
        job.log(step, {"a": torch.tensor(step / 2, requires_grad=True), "b": 1})
    assert (
        heard.records
        == log(tmp_path)
        == [{"step": step, "a": step / 2, "b": 1.0} for step in range(3)]
    )


def test_two_loops_in_one_job_keep_each_others_log_and_resume_each_where_it_was(
    tmp_path: Path,
) -> None:
    def both(folder: Path, cut: tuple[str, int] | None = None) -> tuple[bytes, bytes]:
        job = Job(folder, checkpoint_seconds=0)

        def crash(label: str) -> Callable[[int], None]:
            def at(step: int) -> None:
                if (label, step) == cut:
                    raise Cut

            return at

        return fit(job, crash("first"), label="first"), fit(job, crash("second"), label="second")

    straight, folder = tmp_path / "straight", tmp_path / "cut"
    straight.mkdir()
    folder.mkdir()
    whole, expected = both(straight), log(straight)
    assert Counter(key for record in expected for key in record) == {
        "step": 2 * TOTAL,
        "lr": 2 * TOTAL,
        "first/loss": TOTAL,
        "second/loss": TOTAL,
    }
    for cut in (("first", 2), ("first", 6), ("second", 0), ("second", 5)):
        with pytest.raises(Cut):
            both(folder, cut)
    assert both(folder) == whole
    assert log(folder) == expected


def test_what_is_logged_outside_the_loop_is_written_at_the_end(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.log(0, {"distortion": 2.0})
    job.flush()
    job.flush()
    assert log(tmp_path) == [{"step": 0, "distortion": 2.0}]


def go_through(job: Job) -> None:
    for _ in job.steps(TOTAL, {}):
        torch.rand(3)


def leave_early(job: Job) -> None:
    for step in job.steps(TOTAL, {}):
        torch.rand(3)
        if step == 2:
            return


def raise_within(job: Job) -> None:
    for _ in job.steps(TOTAL, {}):
        torch.rand(3)
        raise Cut


def be_stopped(job: Job) -> None:
    job.stopping = lambda: True
    go_through(job)


@pytest.mark.parametrize("loop", [go_through, leave_early, raise_within, be_stopped])
def test_the_global_generator_is_as_it_was_however_the_loop_ends(
    loop: Callable[[Job], None], tmp_path: Path
) -> None:
    before = torch.random.get_rng_state()
    with contextlib.suppress(Cut, Interrupted):
        loop(Job(tmp_path))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_global_generator_is_a_function_of_seed_label_and_step(tmp_path: Path) -> None:
    def draws(seed: int, label: str) -> list[float]:
        folder = tmp_path / f"{seed}{label}{torch.rand(1).item()}"
        folder.mkdir()
        return [torch.rand(1).item() for _ in Job(folder, seed).steps(4, {}, label)]

    assert draws(1, "a") == draws(1, "a")
    assert len({*draws(1, "a"), *draws(2, "a"), *draws(1, "b")}) == 12


def test_seconds_add_up_over_tries_and_loops(tmp_path: Path) -> None:
    """As the last checkpoint has them; rewritten here, because tests do not wait."""
    for label, seconds in (("first", 1000.0), ("second", 1500.0)):
        list(Job(tmp_path).steps(1, {}, label))
        payload = torch.load(tmp_path / f"{label}.checkpoint", weights_only=True)
        assert payload["seconds"] > 0
        unfinished.keep(
            tmp_path / f"{label}.checkpoint", partial(torch.save, {**payload, "seconds": seconds})
        )
    job = Job(tmp_path)
    assert job.seconds < 1000
    list(job.steps(2, {}, "first"))
    assert 1000 < job.seconds < 1500
    list(job.steps(2, {}, "second"))
    assert 1500 < job.seconds < 2500
    assert torch.load(tmp_path / "second.checkpoint", weights_only=True)["seconds"] > 1500


def test_track_goes_through_all_items_and_stops_between_two_when_asked(tmp_path: Path) -> None:
    heard = Heard()
    assert list(Job(tmp_path, reporter=heard).track("abc", "letters")) == ["a", "b", "c"]
    assert heard.steps == [1, 2, 3]
    items = Job(tmp_path, stopping=iter([False, False, True]).__next__).track("abc", "letters")
    assert [next(items), next(items)] == ["a", "b"]
    with pytest.raises(Interrupted):
        next(items)


texts = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=5)
words = st.lists(st.integers() | texts, min_size=1)


@given(words, words)
def test_a_seed_is_a_function_of_its_words_within_63_bits(some: list, others: list) -> None:
    assert 0 <= seed_from(*some) < 2**63
    assert (seed_from(*some) == seed_from(*others)) == (
        list(map(str, some)) == list(map(str, others))
    )
    assert torch.equal(
        torch.rand(2, generator=generator(*some)), torch.rand(2, generator=generator(*some))
    )


def test_a_jobs_generators_are_its_seed_and_the_words(tmp_path: Path) -> None:
    draws = [
        torch.rand(1, generator=Job(tmp_path, seed).generator(*words)).item()
        for seed in (0, 1)
        for words in (("noise", 1), ("noise", 2), ("x", 1))
    ]
    assert len(set(draws)) == 6
    assert draws[0] == torch.rand(1, generator=generator(0, "noise", 1)).item()
