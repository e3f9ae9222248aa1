"""The loop of every training: closed forms of its steps, its log, and that it resumes exactly."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fw.core.errors import Interrupted
from fw.core.job import Job
from fw.core.learning.averages import average, ramped
from fw.core.learning.loop import Step, batch_indices, descend, down
from fw.core.testing.digest import digest

TOTAL = 7


def log(folder: Path) -> list[dict[str, float]]:
    file = folder / "log.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def trained(folder: Path, **how: Any) -> tuple[str, list[dict[str, float]]]:
    """Digest and log of a training with every setting and every kind of randomness."""
    folder.mkdir(exist_ok=True)
    job = Job(folder, seed=3, **how)
    data = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Linear(3, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1)
        network = nn.Sequential(*layers)
        averaged = copy.deepcopy(network)

    def loss(step: Step) -> Tensor:
        rows = batch_indices(len(data), 4, step.number, job.seed)
        noise = torch.randn(4, 3, generator=job.generator("x", step.number))
        x = data[rows] + torch.rand(1) + noise
        value = network(x).square().mean()
        step.log({"half": value / 2})
        return value

    def follow(step: Step) -> None:
        average(averaged, network, ramped(0.9, step.number))

    optimizer = torch.optim.AdamW(network.parameters(), lr=1.0)
    state = {"network": network, "averaged": averaged}
    descend(
        job,
        TOTAL,
        loss,
        optimizer,
        state,
        rate=lambda step: 0.1 / (step + 1),
        clip=0.5,
        follow=follow,
        log_every=2,
    )
    bits = digest([*network.state_dict().values(), *averaged.state_dict().values()])
    return bits, log(folder)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, float]]]:
    return trained(tmp_path_factory.mktemp("straight"))


@pytest.mark.parametrize("stop", range(TOTAL))
def test_stopped_at_any_step_it_ends_with_the_same_bits_and_the_same_log(
    stop: int, straight: tuple[str, list[dict[str, float]]], tmp_path: Path
) -> None:
    calls = iter(range(TOTAL + 1))
    with pytest.raises(Interrupted):
        trained(tmp_path, stopping=lambda: next(calls) == stop)
    kept = torch.load(tmp_path / "train.checkpoint", weights_only=True)
    assert kept["step"] == stop
    assert kept["state"].keys() == {"network", "averaged", "optimizer"}
    assert trained(tmp_path) == straight


def test_the_log_has_the_loss_the_norm_and_what_the_loss_said_of_some_steps_and_the_last(
    straight: tuple[str, list[dict[str, float]]],
) -> None:
    records = straight[1]
    assert [list(record) for record in records] == 4 * [["step", "loss", "grad_norm", "half"]]
    assert [record["step"] for record in records] == [0, 2, 4, 6]
    assert all(record["half"] == record["loss"] / 2 for record in records)


def slope(job: Job, steps: int, *, lr: float = 1.0, say: bool = False, **how: Any) -> Tensor:
    """Weights (2,) that begin at 0, after plain steps down a loss whose gradient is (3, 4)."""
    weights = nn.ParameterList([torch.zeros(2)])

    def loss(step: Step) -> Tensor:
        if say:
            step.log({"said": torch.tensor(float(step.number))})
        return (weights[0] * torch.tensor([3.0, 4.0])).sum()

    descend(job, steps, loss, torch.optim.SGD(weights, lr=lr), {"weights": weights}, **how)
    return weights[0].detach()


@given(rates=st.lists(st.floats(1e-3, 1), min_size=1, max_size=8))
def test_each_step_is_as_long_as_its_rate(rates: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = slope(Job(Path(folder)), len(rates), rate=rates.__getitem__)
    torch.testing.assert_close(found, -sum(rates) * torch.tensor([3.0, 4.0]))


@pytest.mark.parametrize(("clip", "share"), [(None, 1), (1e9, 1), (5.5, 1), (2.5, 0.5), (1.0, 0.2)])
def test_a_gradient_longer_than_clip_is_cut_to_it_and_its_own_length_is_logged(
    clip: float | None, share: float, tmp_path: Path
) -> None:
    found = slope(Job(tmp_path), 1, clip=clip)
    torch.testing.assert_close(found, -share * torch.tensor([3.0, 4.0]), rtol=1e-5, atol=0)
    [record] = log(tmp_path)
    assert record.get("grad_norm") == (None if clip is None else 5)


def test_the_gradient_is_cut_as_a_whole_over_all_groups_of_the_optimizer() -> None:
    one, other = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [one]}, {"params": [other]}], lr=1.0)
    for _ in range(2):  # the second gradient does not add up with the first
        _, norm = down(optimizer, 3 * one.sum() + 4 * other.sum(), clip=1.0)
        assert norm == 5
    torch.testing.assert_close(torch.cat([one, other]).detach(), -2 * torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize(
    ("how", "steps", "keys"),
    [
        ({}, [0, 10, 11], ["loss"]),
        ({"log_last": False}, [0, 10], ["loss"]),
        ({"log_every": 5, "prefix": "a/", "clip": 1.0}, [0, 5, 10, 11], ["a/loss", "a/grad_norm"]),
        ({"log_every": 1, "say": True}, list(range(12)), ["loss", "said"]),
        ({"prefix": None, "say": True}, [0, 10, 11], ["said"]),
        ({"prefix": None}, [], []),
    ],
)
def test_the_log_says_what_was_asked_for_and_no_more(
    how: dict[str, Any], steps: list[int], keys: list[str], tmp_path: Path
) -> None:
    slope(Job(tmp_path), 12, **how)
    records = log(tmp_path)
    assert [record["step"] for record in records] == steps
    assert all(list(record) == ["step", *keys] for record in records)


def test_of_two_that_log_the_same_name_the_first_stands() -> None:
    step = Step(0, logged=True)
    step.log({"one": torch.tensor(1.0)})
    step.log({"two": torch.tensor(2.0), "one": torch.tensor(3.0)})
    assert step.values == {"two": 2, "one": 1}


def test_what_follows_comes_after_the_step_and_knows_it(tmp_path: Path) -> None:
    numbers: list[int] = []
    slope(Job(tmp_path), 4, follow=lambda step: numbers.append(step.number))
    assert numbers == [0, 1, 2, 3]


def test_two_loops_of_one_job_go_on_each_from_its_own_checkpoint(tmp_path: Path) -> None:
    for _ in range(2):  # the second time there is nothing left to do
        one, other = (slope(Job(tmp_path), steps, label=str(steps)) for steps in (2, 3))
        assert torch.equal(one / 2, other / 3)
    assert {path.name for path in tmp_path.glob("*.checkpoint")} == {"2.checkpoint", "3.checkpoint"}


@given(count=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 5))
def test_batches_laid_end_to_end_show_every_image_once_per_epoch(
    count: int,
    batch: int,
    seed: int,
) -> None:
    steps = -(-2 * count // batch)
    order = torch.cat([batch_indices(count, batch, step, seed) for step in range(steps)])
    for epoch in range(2):
        assert sorted(order[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))


@given(decay=st.floats(0, 0.9999), step=st.integers(0, 10**6))
def test_the_decay_of_an_average_rises_to_what_it_is_set_to(decay: float, step: int) -> None:
    found = ramped(decay, step)
    assert ramped(decay, step + 1) >= found
    assert found <= decay
    assert found in (decay, (1 + step) / (10 + step))
