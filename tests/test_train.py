"""Training is a function of (seed, step): its batches, its learning rate, its averaged weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.job import Job, Stateful
from fw.core.learning.averages import average
from fw.core.learning.batches import Batch
from fw.core.learning.loop import Step
from fw.core.learning.parts.part import Part, Training
from fw.core.learning.train import learning_rate, train
from fw.core.settings import Train
from fw.core.testing.digest import digest
from fw.core.types import Annotation, ConditionSpec, ImageSet
from fw.plugins.backbones.unet import UNet
from fw.plugins.processes.ddpm import DDPM

TINY = UNet(channels=(8, 16), groups=4)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_a_twentieth_of_it() -> None:
    settings = Train(steps=1000, warmup=100, lr=0.5)
    rates = [learning_rate(step, settings) for step in range(1000)]
    assert rates[:101] == sorted(rates[:101])
    assert max(rates) == rates[100] == pytest.approx(0.5)
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] == pytest.approx(0.05 * 0.5, rel=1e-3)


def test_averaging_is_a_weighted_mean_of_parameters_and_a_copy_of_buffers() -> None:
    averaged, network = (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2))
    pairs = zip(averaged.parameters(), network.parameters(), strict=True)
    expected = [0.9 * kept.detach() + 0.1 * fresh.detach() for kept, fresh in pairs]
    network(torch.randn(8, 3))
    average(averaged, network, 0.9)
    for parameter, value in zip(averaged.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)
    for kept, fresh in zip(averaged.buffers(), network.buffers(), strict=True):
        assert torch.equal(kept, fresh)


def two_classes(count: int = 64) -> tuple[ImageSet, Annotation]:
    """Black and white images, and which is which."""
    labels = torch.arange(count) % 2
    images = (labels * 255).to(torch.uint8)[:, None, None, None].expand(count, 1, 8, 8).contiguous()
    return ImageSet(images), Annotation(ConditionSpec("class", 2), labels)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_conditional_model_learns_what_its_condition_means(
    tmp_path: Path, precision: str
) -> None:
    data, annotation = two_classes()
    settings = Train.model_validate(
        {"steps": 150, "batch": 32, "warmup": 10, "ema": 0.9, "precision": precision}
    )
    process = DDPM()
    averaged = train(TINY, process, data, annotation, settings, Job(tmp_path))
    assert {parameter.dtype for parameter in averaged.parameters()} == {torch.float32}
    noise = 5 * torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        means = [
            NetworkDenoiser(averaged, process)(noise, 5.0, torch.full((32,), c)).mean().item()
            for c in (0, 1)
        ]
    assert means[0] < -0.5 < 0.5 < means[1]


def test_without_condition_dropout_the_null_condition_is_never_trained(tmp_path: Path) -> None:
    data, annotation = two_classes()
    for drop, trained in ((0.0, False), (0.5, True)):
        folder = tmp_path / str(drop)
        folder.mkdir()
        settings = Train(steps=5, batch=16, warmup=0, ema=0.0, cond_drop=drop)
        first = train(
            TINY,
            DDPM(),
            data,
            annotation,
            Train(steps=1, batch=16, warmup=0, lr=1e-12),
            Job(folder),
        )
        (folder / "train.checkpoint").unlink()
        last = train(TINY, DDPM(), data, annotation, settings, Job(folder))
        assert (
            torch.equal(first.state_dict()["embed.null"], last.state_dict()["embed.null"])
            is not trained
        )


class Watcher(Part):
    """Draws images of class 1 alone, learns a number and its average, and writes down the rest."""

    def __init__(self) -> None:
        self.number = nn.Parameter(torch.ones(()))
        self.averaged = 1.0
        self.calls: list[str] = []
        self.batches: list[Batch] = []

    def join(self, training: Training) -> None:
        self.calls.append("join")

    @property
    def state(self) -> Mapping[str, Stateful]:
        return {"watcher": nn.ParameterList([self.number])}

    def parameters(self) -> list[nn.Parameter]:
        return [self.number]

    @property
    def blocks(self) -> list[str]:
        return ["mid"]

    def rows(self, rows: Tensor) -> Tensor:
        return rows[rows % 2 == 1]

    def begin(self, batch: Batch, step: Step) -> None:
        assert not batch.activations
        self.calls.append("begin")

    def add(self, loss: Tensor, batch: Batch, step: Step) -> Tensor:
        self.calls.append("add")
        self.batches.append(batch)
        step.log({"train/number": self.number.clone(), "train/loss_before": loss})
        return loss + self.number.square()

    def follow(self, decay: float, step: Step) -> None:
        self.calls.append("follow")
        self.averaged = decay * self.averaged + (1 - decay) * self.number.item()


def test_a_part_has_its_say_at_every_step_and_is_checkpointed_learned_and_logged(
    tmp_path: Path,
) -> None:
    data, annotation = two_classes()
    watcher, settings = Watcher(), Train(steps=3, batch=8, warmup=0, lr=0.1)
    train(TINY, DDPM(), data, annotation, settings, Job(tmp_path), [watcher])
    assert watcher.calls == ["join", *3 * ["begin", "add", "follow"]]
    assert all((batch.chosen % 2 == 1).all() for batch in watcher.batches)
    assert all(batch.activations.keys() == {"mid"} for batch in watcher.batches)
    assert watcher.number.item() < watcher.averaged < 1
    kept = torch.load(tmp_path / "train.checkpoint", weights_only=True)["state"]
    assert kept["watcher"]["0"] == watcher.number
    first, last = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert first["train/number"] == 1 > last["train/number"]
    for record in (first, last):
        added = record["train/loss"] - record["train/loss_before"]
        assert added == pytest.approx(record["train/number"] ** 2, abs=1e-6)


def test_a_part_that_does_nothing_changes_no_bit(tmp_path: Path) -> None:
    data, annotation = two_classes()
    settings, found = Train(steps=3, batch=8, warmup=0), []
    for parts in ((), (Part(),)):
        folder = tmp_path / str(len(parts))
        folder.mkdir()
        network = train(TINY, DDPM(), data, annotation, settings, Job(folder), parts)
        found.append((folder / "log.jsonl").read_text())
        found.append(digest(list(network.state_dict().values())))
    assert found[:2] == found[2:]


def test_mirroring_is_left_to_right_and_only_if_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def remember(self, x0, *rest):
        seen.append(x0)
        return original(self, x0, *rest)

    original = NetworkDenoiser.loss
    monkeypatch.setattr(NetworkDenoiser, "loss", remember)
    slope = torch.arange(0, 256, 32, dtype=torch.uint8).expand(16, 1, 8, 8).contiguous()
    for flip, sides in ((False, {-1.0}), (True, {-1.0, 1.0})):
        folder = tmp_path / str(flip)
        folder.mkdir()
        seen.clear()
        train(
            TINY,
            DDPM(),
            ImageSet(slope),
            None,
            Train(steps=2, batch=16, warmup=0, flip=flip),
            Job(folder),
        )
        found = {
            side
            for batch in seen
            for side in (batch[:, 0, 0, 0] - batch[:, 0, 0, -1]).sign().tolist()
        }
        assert found == sides
        assert all(torch.equal(batch[..., 0, :], batch[..., -1, :]) for batch in seen)
