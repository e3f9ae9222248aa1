"""Training is a function of (seed, step): its batches, its learning rate, its averaged weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.job import Job, Stateful
from fw.core.kinds import Backbone
from fw.core.learning.averages import average, decay
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


def test_a_constant_learning_rate_rises_to_its_peak_and_stays_there() -> None:
    settings = Train(steps=1000, warmup=99, lr=0.5, schedule="constant")
    rates = [learning_rate(step, settings) for step in range(1000)]
    assert rates[:100] == pytest.approx([0.5 * (step + 1) / 100 for step in range(100)])
    assert set(rates[100:]) == {0.5}


def test_a_half_life_is_the_number_of_images_after_which_half_is_left() -> None:
    settings = Train(batch=512, ema_halflife=500_000, ema_ramp=False)
    left = 1.0
    for step in range(1000):
        left *= decay(settings, step)
    assert left == pytest.approx(2 ** (-1000 * 512 / 500_000))


def test_a_half_life_begins_at_a_twentieth_of_the_images_so_far() -> None:
    """EDM's training (arXiv 2206.00364) has ema_halflife_kimg 500 and ema_rampup_ratio 0.05."""
    settings = Train(batch=512, ema_halflife=500_000)
    assert decay(settings, 0) == 0
    early, full = 10, 500_000 * 20 // 512
    assert decay(settings, early) == pytest.approx(2 ** (-1 / (0.05 * early)))
    assert decay(settings, full) < decay(settings, full + 1) == 2 ** (-512 / 500_000)
    assert decay(settings, full + 1) == decay(settings, 10 * full)


def test_a_decay_ramps_unless_it_is_to_be_plain() -> None:
    assert [decay(Train(ema=0.9), step) for step in (0, 1, 10**6)] == [0.1, 2 / 11, 0.9]
    assert decay(Train(ema=0.9999, ema_ramp=False), 0) == 0.9999


def test_one_average_is_asked_for_at_a_time_and_the_resolved_settings_load_again() -> None:
    halflife = Train(ema_halflife=1000)
    assert halflife.ema is None
    for settings in (Train(), halflife):
        assert Train.model_validate(settings.model_dump(mode="json")) == settings
    with pytest.raises(ValidationError, match="ema and ema_halflife both say"):
        Train(ema=0.99, ema_halflife=1000)
    with pytest.raises(ValidationError, match="ema_halflife has to say"):
        Train(ema=None)


class One(Backbone):
    """A network of one weight, 1 at first, which it predicts for every pixel."""

    name: ClassVar[str] = "one"

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        return Weight()


class Weight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, *rest: Tensor | None) -> Tensor:
        return self.weight.expand_as(x)


def one_weight(folder: Path, **settings: Any) -> float:
    """The weight after a training on black images, whose gradient is positive at first."""
    folder.mkdir()
    usual: dict[str, Any] = {"steps": 1, "batch": 8, "warmup": 0, "lr": 1e-3, "ema": 0}
    data = ImageSet(torch.zeros(8, 1, 4, 4, dtype=torch.uint8))
    process = DDPM(prediction="x0")
    network = train(One(), process, data, None, Train(**usual | settings), Job(folder))
    return network.get_parameter("weight").item()


def test_adamw_decays_weights_beside_the_gradient_and_adam_in_it(tmp_path: Path) -> None:
    """A first step of either is lr long, whatever the gradient."""
    for name, expected in (("adamw", 1 - 1e-3 - 1e-3 * 100), ("adam", 1 - 1e-3)):
        weight = one_weight(tmp_path / name, optimizer=name, weight_decay=100)
        assert weight == pytest.approx(expected, abs=1e-6)


def test_the_optimizer_has_the_betas_of_the_settings(tmp_path: Path) -> None:
    """At betas 0 every step is lr long; at the usual ones the second is not."""
    assert one_weight(tmp_path / "sign", steps=2, lr=0.1, betas=(0, 0), schedule="constant") == (
        pytest.approx(0.8, abs=1e-6)
    )
    kept = torch.load(tmp_path / "sign/train.checkpoint", weights_only=True)["state"]
    assert tuple(kept["optimizer"]["param_groups"][0]["betas"]) == (0, 0)
    for betas in ((-0.1, 0.9), (0.9, 1.0)):
        with pytest.raises(ValidationError):
            Train(betas=betas)


def test_without_clipping_gradients_are_as_with_a_bound_that_none_reaches(tmp_path: Path) -> None:
    free, wide, tight = (
        one_weight(tmp_path / str(clip), steps=5, clip=clip, betas=(0, 0.9), lr=0.1)
        for clip in (None, 1e9, 1e-9)
    )
    assert free == wide != tight


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
