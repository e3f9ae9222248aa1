"""Joint models: one network that denoises and recognises, with both losses; its classes are read
off the image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import toys
from test_executor import Heard
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.errors import RecipeError
from fw.core.execution.executor import Outcome
from fw.core.execution.local import run_here
from fw.core.execution.place import Place
from fw.core.job import Job
from fw.core.kinds import Joint
from fw.core.learning.train import train
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.core.settings import Train
from fw.core.store.store import Store
from fw.core.types import Annotation, ConditionSpec, ImageSet
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.self_guidance import SelfGuidance
from fw.plugins.processes.edm import EDM
from fw.registry import Component, Provider

SPEC = ConditionSpec("class", 3)


class TwoHeads(nn.Module):
    """A shared layer, a head for the image and, where there are classes, one for them."""

    def __init__(self, spec: ConditionSpec | None):
        super().__init__()
        self.trunk = nn.Linear(16, 32)
        self.image = nn.Linear(32, 16)
        self.classes = nn.Linear(32, spec.size) if spec else None

    def hidden(self, x: Tensor) -> Tensor:
        return torch.tanh(self.trunk(x.flatten(1)))

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Any = None,
        dropped: Any = None,
        attend: Any = None,
    ) -> Tensor:
        return self.image(self.hidden(x)).view_as(x)

    def both(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        assert self.classes is not None
        hidden = self.hidden(x)
        return self.image(hidden).view_as(x), self.classes(hidden)

    def logits(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.both(x, noise)[1]


class Tiny(Joint):
    """The smallest joint model."""

    name: ClassVar[str] = "tiny_joint"

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        return TwoHeads(condition)


class Towards(toys.Free):
    """Classifier guidance by the model itself: worse is a step away from the class that the
    image is meant to have."""

    name: ClassVar[str] = "towards"

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"logits"})

    def worse(
        self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        assert condition is not None
        with torch.inference_mode(False), torch.enable_grad():
            noisy = x.clone().requires_grad_()
            chosen = model.logits(noisy, sigma).log_softmax(1).gather(1, condition.clone()[:, None])
            [slope] = torch.autograd.grad(chosen.sum(), noisy)
        return good - sigma**2 * slope


def network(spec: ConditionSpec | None = SPEC) -> TwoHeads:
    torch.manual_seed(0)
    return TwoHeads(spec)


def batch(count: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clean images, noise levels, noise and classes."""
    draw = torch.Generator().manual_seed(1)
    x0, noise = (torch.randn(count, 1, 4, 4, generator=draw) for _ in range(2))
    return x0, torch.rand(count, generator=draw) + 0.1, noise, torch.arange(count) % SPEC.size


# The losses


def test_the_joint_loss_is_both_losses_of_the_same_noisy_images() -> None:
    """Against the formulas: EDM eq. 8, and the cross entropy of what the trunk sees."""
    process, made = EDM(), network()
    x0, sigma, noise, classes = batch()
    denoising, recognising, recognised = NetworkDenoiser(made, process).joint_loss(
        x0, sigma, noise, classes
    )
    torch.testing.assert_close(
        denoising, NetworkDenoiser(made, process).loss(x0, sigma, noise, None, None)
    )
    spread = process.sigma_data
    level = sigma[:, None, None, None]
    seen = (x0 + level * noise) / (level**2 + spread**2).sqrt()
    expected = made.classes(torch.tanh(made.trunk(seen.flatten(1))))  # type: ignore[misc]
    torch.testing.assert_close(recognising, cross_entropy(expected, classes, reduction="none"))
    assert torch.equal(recognised, expected.argmax(1) == classes)
    assert [tuple(each.shape) for each in (denoising, recognising, recognised)] == [(6,)] * 3
    assert recognised.dtype == torch.bool


def test_both_heads_teach_the_trunk_and_each_teaches_only_itself_beside_it() -> None:
    for which, silent in ((0, "classes"), (1, "image")):
        made = network()
        NetworkDenoiser(made, EDM()).joint_loss(*batch())[which].mean().backward()
        assert made.trunk.weight.grad is not None
        assert made.trunk.weight.grad.abs().sum() > 0
        assert getattr(made, silent).weight.grad is None


def test_logits_are_those_of_the_loss_and_count_as_an_evaluation() -> None:
    made, (x0, _, noise, classes) = network(), batch()
    model = NetworkDenoiser(made, EDM())
    sigma = torch.full((6,), 0.7)
    logits = model.logits(x0 + 0.7 * noise, 0.7)
    expected = model.joint_loss(x0, sigma, noise, classes)[1]
    torch.testing.assert_close(cross_entropy(logits, classes, reduction="none"), expected)
    assert model.evaluations == 1


def test_in_bf16_the_losses_are_float32_finite_and_close() -> None:
    made = network()
    plain, fast = (NetworkDenoiser(made, EDM(), bf16=bf16) for bf16 in (False, True))
    for one, other in zip(
        plain.joint_loss(*batch())[:2], fast.joint_loss(*batch())[:2], strict=True
    ):
        assert other.dtype == torch.float32
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)
    assert fast.logits(batch()[0], 0.5).dtype == torch.float32


def test_the_condition_does_not_enter_the_prediction() -> None:
    model, (x0, *_) = NetworkDenoiser(network(), EDM()), batch()
    assert torch.equal(model(x0, 0.5, torch.arange(6) % 3), model(x0, 0.5, None))


# Training


def classes_of_brightness() -> tuple[ImageSet, Annotation]:
    labels = torch.arange(48) % 3
    images = (labels * 120).to(torch.uint8)[:, None, None, None].expand(48, 1, 4, 4).contiguous()
    return ImageSet(images), Annotation(SPEC, labels)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_lowers_both_losses_and_logs_them_with_the_accuracy(
    tmp_path: Path, precision: str
) -> None:
    data, annotation = classes_of_brightness()
    settings = Train.model_validate(
        {"steps": 200, "batch": 48, "warmup": 5, "lr": 2e-2, "precision": precision}
    )
    averaged = train(Tiny(weight=1.0), toys.Unit(), data, annotation, settings, Job(tmp_path))
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert set(records[0]) == {
        *("step", "train/loss", "train/grad_norm", "train/denoising_loss", "train/accuracy"),
        "train/recognition_gradient_ratio",
    }
    first, last = records[0], records[-1]
    assert last["train/denoising_loss"] < first["train/denoising_loss"]
    assert last["train/accuracy"] > 0.8 > first["train/accuracy"]
    model = NetworkDenoiser(averaged.eval(), toys.Unit())
    clean = data.images.float() / 127.5 - 1
    assert (model.logits(clean, 0.01).argmax(1) == annotation.conditions).float().mean() > 0.9


def test_the_loss_is_the_sum_with_the_recipes_weight(tmp_path: Path) -> None:
    data, annotation = classes_of_brightness()
    errors = []
    for weight in (1e-3, 0.5, 4.0):
        folder = tmp_path / str(weight)
        folder.mkdir()
        train(
            Tiny(weight=weight),
            toys.Unit(),
            data,
            annotation,
            Train(steps=1, batch=16, warmup=0),
            Job(folder),
        )
        [record] = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        errors.append((record["train/loss"] - record["train/denoising_loss"]) / weight)
    assert errors == pytest.approx([errors[-1]] * 3, rel=1e-3)
    assert 0.5 < errors[-1] < 2.5  # log 3 is 1.1, as good as guessing
    assert record["train/loss"] > 4


def test_the_weight_is_in_the_key_of_the_training() -> None:
    found = {
        planned(f"arms.j={{model: {{name: tiny_joint, weight: {weight}}}}}").arms["j"].train
        for weight in (1, 2)
    }
    assert len(found) == 2


# In a recipe


def planned(*sets: str) -> Plan:
    registry = toys.registry()
    components: list[type[Component]] = [Tiny, Towards, CFG, SelfGuidance]
    registry.add(Provider("joint"), components)
    source = parse(toys.RECIPE, "r.yaml")
    source.set(sets)
    return plan(validate(source, registry))


def refused(*sets: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        planned(*sets)
    return [problem.partition(": ")[2] for problem in caught.value.problems]


def executed(found: Plan, root: Path) -> Outcome:
    Store(root).create()
    return run_here(
        found, (), Place(root, "cpu", threads=1, checkpoint_seconds=20), Heard(), lambda: False
    )


def joint(rest: str) -> str:
    return "arms.j={model: tiny_joint, " + rest + "}"


def test_an_arm_learns_labels_that_it_made_itself_and_is_guided_by_them(tmp_path: Path) -> None:
    arms = ("arms.plain_joint={model: tiny_joint}", joint("guidance: {name: towards, scale: 3}"))
    found = planned(*arms)
    assert executed(found, tmp_path) == Outcome()
    own, plain = found.arms["j"], found.arms["plain_joint"]
    assert own.train == plain.train
    log = (tmp_path / own.train / "log.jsonl").read_text()
    assert "train/accuracy" in log
    samples = [
        next((tmp_path / arm.sample).glob("samples-000-*")).read_bytes() for arm in (own, plain)
    ]
    assert samples[0] != samples[1]
    evaluations = [
        json.loads((tmp_path / arm.sample / "info.json").read_text())["nfe"] for arm in (own, plain)
    ]
    assert evaluations == [2 * own.arm.sampler.nfe, plain.arm.sampler.nfe] == [own.nfe, plain.nfe]


def test_without_an_annotator_the_generator_is_trained_alone(tmp_path: Path) -> None:
    found = planned(joint("annotator: null"))
    assert executed(found, tmp_path) == Outcome()
    folder = tmp_path / found.arms["j"].train
    assert "train/accuracy" not in (folder / "log.jsonl").read_text()
    from safetensors.torch import load_file

    assert not [
        name for name in load_file(folder / "model.safetensors") if name.startswith("classes")
    ]


def test_guidance_by_a_null_condition_is_refused_because_a_joint_model_has_none() -> None:
    told = "needs condition dropout: train.cond_drop > 0 (a joint model has none)"
    assert refused(joint("guidance: {name: cfg, scale: 2}")) == [
        f"arms.j.guidance: guidance 'cfg' {told}"
    ]
    assert refused(joint("guidance: {name: self_guidance, scale: 2}")) == [
        f"arms.j.guidance: guidance 'self_guidance' {told}"
    ]


def test_guidance_by_recognition_needs_a_joint_model_and_something_that_it_recognises() -> None:
    told = "guidance 'towards' needs a joint model and an annotator, whose conditions it recognises"
    assert refused("arms.j={guidance: {name: towards, scale: 2}}") == [f"arms.j.guidance: {told}"]
    assert refused(joint("annotator: null, guidance: {name: towards, scale: 2}")) == [
        f"arms.j.guidance: {told}"
    ]


def test_a_joint_model_takes_classes_only_and_a_positive_weight() -> None:
    [told] = refused("arms.j={model: {name: tiny_joint, weight: 0}}")
    assert told == "arms.j.model.weight: input should be greater than 0 (it is 0)"
    assert Tiny().conditions == {"class"}
