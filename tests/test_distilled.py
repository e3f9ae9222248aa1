"""Encoders distilled from a diffusion teacher: what they learn of it, in which noise, and that
labels are kept out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.pixels import to_unit
from fw.core.errors import FwError, Interrupted, MissingFile
from fw.core.job import Job
from fw.core.learning.state import state_of
from fw.core.settings import Train
from fw.core.stages.encode import Encode
from fw.core.stages.keys import digest
from fw.core.testing import check, tiny
from fw.core.testing.stopping import Stop
from fw.core.types import ImageSet
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.datasets.digits import Digits
from fw.plugins.encoders.distilled import Distilled, Lesson, Teacher, levels_of
from fw.plugins.encoders.dreamteacher import Dream, DreamTeacher, Regressor, powers
from fw.plugins.encoders.pyramids import Pyramid
from fw.plugins.encoders.repfusion import Imitation, RepFusion, vectors
from fw.plugins.encoders.repfusion_policy import Chosen, RepFusionPolicy
from fw.plugins.encoders.trunks import ImageEncoder
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.processes.edm import EDM

SMALL = UNet(channels=(4, 8), groups=2)
TINY: dict[str, Any] = {"model": SMALL, "train": Train(steps=6, batch=16, warmup=1), "steps": 6}

ENCODERS: dict[str, Distilled] = {
    "repfusion": RepFusion(**TINY, sigma=(0.05, 0.5)),
    "repfusion_policy": RepFusionPolicy(**TINY),
    "dreamteacher": DreamTeacher(**TINY),
    "dreamteacher_dit": DreamTeacher(
        **{**TINY, "model": DiT(depth=4, width=16, heads=2), "process": EDM()}, sigma=(0.1, 0.5)
    ),
}
LABEL_FREE = ["repfusion", "dreamteacher"]


@pytest.mark.parametrize("name", ENCODERS)
def test_they_keep_the_contract(name: str) -> None:
    check(ENCODERS[name])


@pytest.mark.parametrize("student", ["resnet18", "vit_tiny"])
def test_all_backbones_can_be_students(student: str) -> None:
    images = tiny.images(3).images
    for encoder in (RepFusion(**TINY, student=student), DreamTeacher(**TINY, student=student)):
        network = encoder.build((1, 8, 8), 0)
        lesson = encoder.lesson(network, teacher(), (1, 8, 8), 0)
        terms = lesson(images, None, 0.0, torch.Generator().manual_seed(0))
        sum(terms.values(), torch.zeros(())).backward()
        untouched = [name for name, weight in network.named_parameters() if weight.grad is None]
        assert not untouched
        assert network.eval()(images).shape == (3, {"resnet18": 512, "vit_tiny": 192}[student])


# The teacher


def teacher(seed: int = 0, blocks: tuple[str, ...] = ("up.0", "up.1")) -> Teacher:
    torch.manual_seed(seed)
    return Teacher(SMALL.build((1, 8, 8), None), DDPM(), blocks)


def test_a_teacher_is_shown_images_in_noise_of_the_level_that_it_is_told() -> None:
    """The released code tells it a level and shows it clean images."""
    images, made = tiny.images(3).images, teacher()
    sigma, noise = torch.tensor([0.05, 0.5, 2.0]), torch.randn(3, 1, 8, 8)
    found = made(images, sigma, noise)
    model = NetworkDenoiser(made.model.network, DDPM())
    for place in range(3):
        level = sigma[place : place + 1]
        x = to_unit(images[place : place + 1]) + level * noise[place]
        by_hand = model.features(x, level, ("up.0", "up.1"))
        for ours, theirs in zip(found, by_hand.values(), strict=True):
            torch.testing.assert_close(ours[place : place + 1], theirs, rtol=1e-4, atol=1e-5)
    generator = torch.Generator().manual_seed(1)
    noises = [vectors(made.in_fresh_noise(images, sigma, generator)) for _ in range(2)]
    assert not torch.equal(*noises)
    assert not torch.allclose(noises[0], vectors(made(images, sigma, torch.zeros(3, 1, 8, 8))))


def test_noise_levels_are_drawn_equally_often() -> None:
    found = levels_of((0.1, 0.2, 0.4), 6000, torch.Generator().manual_seed(0))
    assert found.unique().tolist() == pytest.approx([0.1, 0.2, 0.4])
    assert all(1800 < (found == level).sum() < 2200 for level in found.unique())


def test_a_teacher_does_not_learn_and_is_not_kept() -> None:
    for name in ENCODERS:
        encoder = ENCODERS[name]
        made = teacher(blocks=("mid",)) if "dit" not in name else teacher()
        student = encoder.build((1, 8, 8), 3)
        lesson = encoder.lesson(student, made, (1, 8, 8), 3)
        assert not any(weight.requires_grad for weight in made.model.network.parameters())
        inside = {id(weight) for weight in lesson.parameters()}
        assert not inside & {id(weight) for weight in made.model.network.parameters()}
        assert inside >= {id(weight) for weight in student.parameters()}


def test_usual_blocks_are_the_decoders_or_spread_over_a_transformer() -> None:
    encoder = DreamTeacher(**TINY)
    for model, blocks in (
        (UNet(channels=(4, 8, 8), groups=2), ("up.0", "up.1", "up.2")),
        (DiT(depth=12, width=16, heads=2), ("blocks.2", "blocks.5", "blocks.8", "blocks.11")),
        (DiT(depth=2, width=16, heads=2), ("blocks.0", "blocks.1")),
    ):
        assert encoder.default_blocks(model.build((1, 8, 8), None)) == blocks


def test_stored_weights_are_the_teacher_and_enter_the_key_by_their_content(tmp_path: Path) -> None:
    made, data = teacher(), tiny.images(40)
    save_file(state_of(made.model.network), tmp_path / "model.safetensors")
    encoder = RepFusion(**TINY, weights=tmp_path / "model.safetensors", blocks=("up.1",))
    with tiny.job() as job:
        loaded = encoder.teacher(data, job)
    assert loaded.blocks == ("up.1",)
    weights = zip(loaded.model.network.parameters(), made.model.network.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in weights)
    longer = RepFusion(
        **{**TINY, "train": Train(steps=9)}, weights=encoder.weights, blocks=("up.1",)
    )
    assert digest(encoder.identity()) == digest(longer.identity())
    assert digest(encoder.identity()) != digest(RepFusion(**TINY, blocks=("up.1",)).identity())
    with pytest.raises(MissingFile):
        RepFusion(weights=tmp_path / "none.safetensors").preflight()


def test_what_cannot_be_read_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="sigma 1e-09 is not among the noise levels of training"):
        RepFusion(sigma=(1e-9,))
    with pytest.raises(ValueError, match="names no blocks"):
        DreamTeacher(model=tiny.TinyBackbone())
    with pytest.raises(ValueError, match="square images"):
        RepFusion(student="vit_tiny").check((1, 8, 12))
    told = r"the model has no block 'up\.7' \(it has down\.0, down\.1, mid, up\.0, up\.1\)"
    with tiny.job() as job, pytest.raises(FwError, match=told):
        DreamTeacher(**TINY, blocks=("up.7",)).teacher(tiny.images(4), job)


# What is learned

DIGITS = Digits()
LEARNED: dict[str, Any] = {
    "model": UNet(channels=(8, 16), groups=4),
    "train": Train(steps=60, batch=32, warmup=5, lr=3e-3),
    "steps": 200,
    "batch": 64,
    "width": 16,
    "lr": 5e-3,
}


def held_out_loss(lesson: Lesson, images: Tensor) -> float:
    """In the statistics of these images, and without a trace."""
    with torch.no_grad():
        terms = deepcopy(lesson).train()(images, None, 0.0, torch.Generator().manual_seed(0))
    return float(sum(terms.values(), torch.zeros(())))


def explained(features: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> float:
    """R^2 on held-out images of a ridge regression that was fitted on training images."""
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score

    train, test = ((each - features[0].mean(0)) / (features[0].std(0) + 1e-6) for each in features)
    fitted = Ridge(1.0).fit(train.double().numpy(), targets[0].double().numpy())
    return float(r2_score(targets[1].double().numpy(), fitted.predict(test.double().numpy())))


@pytest.mark.parametrize("name", LABEL_FREE)
def test_a_student_predicts_held_out_features_of_its_teacher_better_than_a_random_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = {"repfusion": RepFusion, "dreamteacher": DreamTeacher}[name](**LEARNED)
    train, test = DIGITS.load("train"), DIGITS.load("test")
    lessons: list[tuple[Lesson, float]] = []
    lesson_of = type(encoder).lesson

    def seen(self: Any, *given: Any) -> Lesson:
        made = lesson_of(self, *given)
        lessons.append((made, held_out_loss(made, test.images)))
        return made

    monkeypatch.setattr(type(encoder), "lesson", seen)
    job = Job(tmp_path)
    network = Encode(DIGITS, encoder).new_network(job)
    encoder.fit(network, train, job)
    [(lesson, before)] = lessons
    assert held_out_loss(lesson, test.images) < 0.6 * before

    known: Any = lesson
    with torch.no_grad():
        noise = torch.randn(len(train), *DIGITS.shape, generator=torch.Generator().manual_seed(5))
        targets = [
            vectors(known.teacher(data.images, torch.full((len(data),), 0.05), noise[: len(data)]))
            for data in (train, test)
        ]
        found = {}
        for which, student in {
            "distilled": network,
            "random": Encode(DIGITS, encoder).new_network(job),
        }.items():
            student.train()(
                train.images
            )  # the statistics of the batch norm, which are no part of what is learned
            features = [student.eval()(data.images) for data in (train, test)]
            found[which] = explained((features[0], features[1]), (targets[0], targets[1]))
    assert found["distilled"] > found["random"] + 0.1, found


@pytest.mark.parametrize("name", LABEL_FREE)
def test_labels_are_not_looked_at(name: str) -> None:
    encoder, data = ENCODERS[name], tiny.images(60)
    assert not encoder.uses_labels
    assert encoder.requires == frozenset()
    assert data.labels is not None
    found = []
    for each in (data, replace(data, labels=data.labels.flip(0)), data.without_labels()):
        with tiny.job() as job:
            network = Encode(tiny.TinyDataset(), encoder).new_network(job)
            encoder.fit(network, each, job)
            found.append(state_of(network))
    assert all(torch.equal(found[0][key], other[key]) for other in found[1:] for key in found[0])


@pytest.mark.parametrize("name", ENCODERS)
def test_a_student_that_is_stopped_continues_to_the_same_bits(name: str, tmp_path: Path) -> None:
    encoder, data = ENCODERS[name], tiny.images(40)
    stages, states = [tmp_path / "whole", tmp_path / "stopped"], []
    for folder in stages:
        folder.mkdir()
        if folder.name == "stopped":
            with suppress(Interrupted):
                encoder.fit(fresh(encoder), data, Job(folder, stopping=Stop(at=6 + 4)))
            assert (folder / "distil.checkpoint").exists()
            assert torch.load(folder / "distil.checkpoint")["step"] < 6
        network = fresh(encoder)
        encoder.fit(network, data, Job(folder))
        states.append(state_of(network))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def fresh(encoder: Distilled) -> nn.Module:
    torch.manual_seed(0)
    return encoder.build((1, 8, 8), 3 if encoder.uses_labels else 0)


# RepFusion


class Planted(Teacher):
    """Its features tell the label at one noise level, and are noise at all others."""

    def __init__(self, labels: Tensor, level: float):
        self.labels, self.level, self.seen = labels, level, list[float]()

    def __call__(self, images: Tensor, sigma: Tensor, noise: Tensor) -> list[Tensor]:
        self.seen += sigma.tolist()
        tells = torch.isclose(sigma, torch.tensor(self.level))[:, None]
        said = torch.where(
            tells, 3 * torch.eye(3)[self.labels[: len(images)]], noise.flatten(1)[:, :3]
        )
        return [said[:, :, None, None].expand(-1, -1, 2, 2)]

    def sample(self, shape: Sequence[int]) -> list[Tensor]:
        return [torch.zeros(1, 3, 2, 2)]


def rehearse(lesson: Lesson, data: ImageSet, steps: int) -> list[dict[str, Tensor]]:
    generator, found = torch.Generator().manual_seed(0), []
    optimizer = torch.optim.AdamW(lesson.parameters(), lr=5e-3)
    for step in range(steps):
        terms = lesson(data.images, data.labels, step / steps, generator)
        optimizer.zero_grad()
        sum(terms.values(), torch.zeros(())).backward()
        optimizer.step()
        found.append({name: term.detach() for name, term in terms.items()})
    return found


def test_the_policy_finds_the_noise_level_at_which_features_tell_the_labels() -> None:
    data = tiny.images(96)
    assert data.labels is not None
    encoder = RepFusionPolicy(sigma=(0.05, 0.2, 0.5, 1.0), width=16)
    torch.manual_seed(0)
    student, planted = encoder.build((1, 8, 8), 3), Planted(data.labels, level=0.5)
    lesson = encoder.lesson(student, planted, (1, 8, 8), 3)
    assert isinstance(lesson, Chosen)
    terms = rehearse(lesson, data, 120)
    chances = lesson.policy(to_unit(data.images)).softmax(dim=1).mean(dim=0)
    assert chances[2] > 0.8, chances
    assert terms[-1]["judge"] < 0.5 * terms[0]["judge"]
    assert terms[-1]["entropy"] == 0
    assert planted.seen.count(0.5) > 0.5 * len(planted.seen)
    assert -0.5 < lesson.policy.usual < 0  # the judge is nearly sure


def test_rewards_are_compared_with_their_running_mean() -> None:
    lesson = RepFusionPolicy().lesson(
        RepFusionPolicy().build((1, 8, 8), 3), teacher(), (1, 8, 8), 3
    )
    assert isinstance(lesson, Chosen)
    policy = lesson.policy
    assert float(policy.usual) == pytest.approx(-1.0986, abs=1e-4)
    assert policy.gain(torch.tensor([-0.0986, -2.0986])).tolist() == pytest.approx(
        [1.0, -1.0], abs=1e-4
    )
    policy.gain(torch.tensor([0.0]))
    assert float(policy.usual) == pytest.approx(0.9 * -1.0986, abs=1e-4)


def test_the_policy_uses_labels_and_says_so() -> None:
    assert RepFusionPolicy.uses_labels
    assert RepFusionPolicy().requires == {"labels"}


def test_the_imitation_is_the_squared_error_of_projected_features() -> None:
    images = tiny.images(5).images
    student = RepFusion(width=8).build((1, 8, 8), 0)
    lesson = Imitation(student, teacher(), (1, 8, 8), (0.05,))
    assert isinstance(student, ImageEncoder)
    target = torch.randn(5, lesson.size)
    student.eval()
    by_hand = (
        (student(images) @ lesson.project.weight.T + lesson.project.bias - target).square().mean()
    )
    torch.testing.assert_close(lesson.imitation(images, target), by_hand)


def test_the_teachers_features_have_mean_0_and_variance_1_over_the_batch() -> None:
    """Else differences between images, a hundredth of the features, would be lost in the noise
    of the training."""
    images, made = tiny.images(60).images, teacher()
    lesson = Imitation(RepFusion(width=8).build((1, 8, 8), 0), made, (1, 8, 8), (0.05,))
    found = lesson.target(images, *levels_and_generator(60))
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(12), atol=1e-4, rtol=0)
    raw = vectors(made.in_fresh_noise(images, *levels_and_generator(60)))
    wanted = (raw - raw.mean(dim=0)) / (raw.var(dim=0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


# DreamTeacher


def test_teacher_maps_are_normalised_over_channels_and_positions() -> None:
    student = Pyramid("conv", (1, 8, 8), 8)
    lesson = Dream(student, teacher(), (1, 8, 8), (0.05,), 10.0)
    maps, tokens = 3 + 5 * torch.randn(2, 4, 6, 6), torch.randn(2, 17, 4)
    found = lesson.maps([maps, tokens])
    assert [each.shape[1:] for each in found] == [(4, 6, 6), (4, 4, 4)]
    for each in found:
        assert torch.allclose(each.mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-5)
        assert torch.allclose(each.var(dim=(1, 2, 3), correction=0), torch.ones(2), atol=1e-3)
    relative = powers(found[0])
    assert relative.std() > 0.01  # which it would not be with a norm over channels alone
    assert torch.allclose(relative.norm(dim=1), torch.ones(2))


def test_attention_transfer_is_the_distance_of_maps_of_power() -> None:
    a = torch.zeros(1, 2, 1, 2)
    a[0, :, 0, 0] = torch.tensor([3.0, 4.0])  # 25 at one position, 0 at the other
    b = torch.zeros(1, 5, 1, 2)
    b[0, 0] = 2.0  # 4 at both
    assert powers(a).tolist() == [[1.0, 0.0]]
    assert powers(b)[0].tolist() == pytest.approx([0.5**0.5] * 2)


def test_the_loss_is_made_of_both_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    images, student = tiny.images(4).images, Pyramid("conv", (1, 8, 8), 8)
    lesson = Dream(student, teacher(), (1, 8, 8), (0.05,), 10.0)
    lesson.eval()
    perfect: list[Tensor] = []
    monkeypatch.setattr(Regressor, "forward", lambda self, maps, targets: perfect or targets)
    with torch.no_grad():
        nothing = lesson(images, None, 0.0, torch.Generator().manual_seed(0))
        assert {name: float(term) for name, term in nothing.items()} == {
            "imitation": 0,
            "attention": 0,
        }
        made = lesson.maps(lesson.teacher.in_fresh_noise(images, *levels_and_generator(4)))
        perfect += [torch.ones_like(each) for each in made]
        terms = lesson(images, None, 0.0, torch.Generator().manual_seed(0))
    by_hand = torch.stack([(1 - each).square().mean() for each in made]).mean()
    torch.testing.assert_close(terms["imitation"], by_hand)
    ones = [each.shape[2] * each.shape[3] for each in made]
    distances = [
        (powers(each) - count**-0.5).norm(dim=1).mean()
        for each, count in zip(made, ones, strict=True)
    ]
    torch.testing.assert_close(terms["attention"], 10 * torch.stack(distances).mean())


def levels_and_generator(count: int) -> tuple[Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(0)
    return levels_of((0.05,), count, generator), generator


def test_a_fine_map_is_predicted_with_what_the_coarse_ones_know() -> None:
    """Only the coarsest map of the student differs, and the prediction of the finest does, too."""
    torch.manual_seed(0)
    regressor = Regressor([3, 5], [4, 6])
    fine, coarse, targets = (
        torch.randn(2, 3, 8, 8),
        torch.randn(2, 5, 4, 4),
        [torch.zeros(2, 4, 8, 8), torch.zeros(2, 6, 2, 2)],
    )
    first, second = (regressor([fine, each], targets) for each in (coarse, coarse + 1))
    assert [each.shape for each in first] == [each.shape for each in targets]
    assert not torch.allclose(first[0], second[0])


def test_features_are_the_means_of_the_coarsest_map() -> None:
    images = tiny.images(4).images
    for name, sizes in {
        "conv": [8, 4, 4],
        "resnet18": [8, 4, 2, 1],
        "vit_tiny": [8, 8, 8, 8],
    }.items():
        student = Pyramid(name, (1, 8, 8), 8).eval()
        with torch.no_grad():
            maps = student.maps(images)
            assert [each.shape[2] for each in maps] == sizes
            torch.testing.assert_close(student(images), maps[-1].mean(dim=(2, 3)))
        assert student.widths == [each.shape[1] for each in maps]


def test_a_fit_logs_its_terms(tmp_path: Path) -> None:
    for name, terms in {
        "repfusion_policy": {"imitation", "judge", "policy", "entropy"},
        "dreamteacher": {"imitation", "attention"},
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        job = Job(folder)
        ENCODERS[name].fit(fresh(ENCODERS[name]), tiny.images(40), job)
        job.flush()
        logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert {key for record in logged for key in record} >= {f"distil/{term}" for term in terms}
