"""The self-supervised encoders: losses equal closed forms, each learns something, resumes bit for
bit, tells collapse.

A short training is judged by nearest neighbours among five labelled images of each digit, for every
method alike.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from fw.core.errors import FwError, Interrupted, MissingFile, StageFailed
from fw.core.job import Job
from fw.core.learning.state import state_of
from fw.core.stages.keys import digest
from fw.core.testing import check
from fw.core.types import ImageSet
from fw.plugins.datasets.digits import Digits
from fw.plugins.encoders.byol import BYOL
from fw.plugins.encoders.dino import Dino, solarised
from fw.plugins.encoders.mae import MAE
from fw.plugins.encoders.moco import MoCo
from fw.plugins.encoders.self_supervised import Learner, SelfSupervised
from fw.plugins.encoders.simclr import SimCLR
from fw.plugins.encoders.swav import SwAV
from fw.plugins.encoders.trunks import ImageEncoder
from fw.plugins.encoders.weights import load_weights

FEW: dict[str, Any] = {"steps": 6, "batch": 16, "width": 16}
SMALL = [
    Dino(**FEW, hidden=16, bottleneck=8, prototypes=12, momentum=0),
    SimCLR(**FEW, hidden=16, dims=8),
    MoCo(**FEW, hidden=16, dims=8, queue=32),
    BYOL(**FEW, hidden=16, dims=8),
    SwAV(**FEW, hidden=16, dims=8, prototypes=6, freeze_prototypes=1, queue=32),
    MAE(**FEW, depth=1, heads=2, decoder_width=8),
]
JOINT = [SimCLR, MoCo, BYOL, SwAV]


def named(encoder: Any) -> str:
    return encoder.name


@pytest.fixture(scope="module")
def digits() -> tuple[ImageSet, ImageSet]:
    return Digits().load("train"), Digits().load("test")


@pytest.fixture(scope="module")
def images(digits: tuple[ImageSet, ImageSet]) -> Tensor:
    """Sixteen digits, (16, 1, 8, 8) in 0..1."""
    return digits[0].images[:16].float() / 255


@pytest.fixture(autouse=True)
def torch_draws_elsewhere() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


def built(
    encoder: SelfSupervised, seed: int = 0, shape: tuple[int, int, int] = (1, 8, 8)
) -> ImageEncoder:
    torch.manual_seed(seed)
    network = encoder.build(shape, 0)
    assert isinstance(network, ImageEncoder)
    return network.eval()


def fitted(encoder: SelfSupervised, data: ImageSet, job: Job) -> ImageEncoder:
    network = built(encoder, job.seed)
    encoder.fit(network, data.without_labels(), job)
    return network.eval()


def learner_of(encoder: SelfSupervised) -> Any:
    network = built(encoder).train()
    return encoder.learner(network)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("encoder", SMALL, ids=named)
def test_it_keeps_to_the_contract_of_encoders(encoder: SelfSupervised) -> None:
    check(encoder)


# What is learned


@pytest.mark.parametrize("method", JOINT, ids=named)
def test_nearest_neighbours_are_more_often_the_same_digit_after_a_short_training(
    method: Any, digits: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    """More often than at random weights, and than at these with the right statistics in their
    batch norms."""
    encoder = method(steps=80, batch=64, width=64)
    for seed in (0, 1, 2):
        (tmp_path / str(seed)).mkdir()
        trained = accuracy(
            fitted(encoder, digits[0], Job(tmp_path / str(seed), seed=seed)), *digits
        )
        untrained = built(encoder, seed)
        assert trained > accuracy(untrained, *digits), f"seed {seed}"
        assert trained > accuracy(calibrated(untrained, digits[0]), *digits), f"seed {seed}"


@torch.no_grad()
def calibrated(network: ImageEncoder, train: ImageSet) -> ImageEncoder:
    """The network with the running statistics of all training images, and nothing learned."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # a plain mean
    network.train()(train.images)
    return network.eval()


@torch.no_grad()
def accuracy(network: ImageEncoder, train: ImageSet, test: ImageSet, per_digit: int = 5) -> float:
    """Of a vote of the 5 nearest among the first few labelled images of each digit, weighted by
    exp(cosine / 0.07)."""
    assert train.labels is not None
    assert test.labels is not None
    rows = torch.cat([(train.labels == digit).nonzero()[:per_digit, 0] for digit in range(10)])
    similarity, nearest = (
        encoded(network, test.images) @ encoded(network, train.images[rows]).T
    ).topk(5)
    votes = torch.zeros(len(test), 10).scatter_add(
        1, train.labels[rows][nearest], (similarity / 0.07).exp()
    )
    return float((votes.argmax(1) == test.labels).float().mean())


def encoded(network: ImageEncoder, uint8: Tensor) -> Tensor:
    return normalize(network(uint8))


def test_mae_fills_in_unseen_digits_better_than_the_mean_digit_does(
    digits: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    kept: list[Learner] = []

    class Kept(MAE):
        """It hands out its decoder."""

        def learner(self, network: ImageEncoder) -> Learner:
            kept.append(super().learner(network))
            return kept[0]

    train, test = (split.images.float() / 255 for split in digits)
    fitted(Kept(steps=250), digits[0], Job(tmp_path))
    loss, _ = kept[0].eval()(test, 0, generator())
    patches = [normalised_patches(split) for split in (train, test)]
    assert loss < (patches[1] - patches[0].mean(dim=0)).square().mean()


def normalised_patches(images: Tensor) -> Tensor:
    """(B, 1, 8, 8) -> (B, 4, 16), each patch with mean 0 and standard deviation 1."""
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).reshape(len(images), 4, 16)
    return (patches - patches.mean(2, keepdim=True)) / (patches.var(2, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize("encoder", SMALL, ids=named)
def test_collapse_is_told(
    encoder: SelfSupervised, digits: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    """A weight decay that leaves nothing of the weights makes all features the same; without,
    the training is fine."""
    (tmp_path / "decays").mkdir()
    decays = encoder.model_copy(update={"lr": 1e-4, "weight_decay": 1e4})
    with pytest.raises(StageFailed, match=f"encoder {encoder.name} collapsed"):
        fitted(decays, digits[0], Job(tmp_path / "decays"))
    fitted(encoder.model_copy(update={"lr": 1e-4}), digits[0], Job(tmp_path))


# The losses


def test_the_learning_rate_warms_up_along_a_line_and_falls_to_zero_along_a_cosine() -> None:
    encoder = Dino(steps=110, warmup=10, lr=0.5)
    rates = [encoder.rate(step) for step in range(110)]
    assert rates[:10] == pytest.approx([0.5 * (step + 1) / 11 for step in range(10)])
    cosine = [0.25 * (1 + math.cos(math.pi * step / 99)) for step in range(100)]
    assert rates[10:] == pytest.approx(cosine, abs=1e-9)
    assert Dino(steps=100, lr=0.5).rate(0) == 0.5
    with pytest.raises(ValidationError, match=r"warmup \(100\) must be shorter than steps \(100\)"):
        Dino(steps=100, warmup=100)


def test_a_gradient_is_clipped_before_the_optimizer_takes_its_step(
    digits: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    """Clipped to almost nothing, AdamW takes small steps, because of its epsilon."""
    moved = {}
    for clip in (None, 1e-12):
        encoder = SimCLR(**{**FEW, "steps": 2}, hidden=16, dims=8, weight_decay=0, clip=clip)
        (tmp_path / str(clip)).mkdir()
        fresh, after = built(encoder), fitted(encoder, digits[0], Job(tmp_path / str(clip)))
        pairs = zip(fresh.parameters(), after.parameters(), strict=True)
        moved[clip] = max((one - other).abs().max().item() for one, other in pairs)
    assert moved[1e-12] < 0.1 * moved[None]


def test_the_second_global_views_of_dino_are_solarised_and_no_others(images: Tensor) -> None:
    bright = torch.tensor([-1.0, -0.2, 0.0, 0.2, 1.0]).expand(2000, 1, 1, 5)
    found = solarised(bright, 0.2, generator())
    inverted = (found == torch.tensor([-1.0, -0.2, 0.0, -0.2, -1.0])).flatten(1).all(dim=1)
    assert torch.equal(found[~inverted], bright[~inverted])
    assert inverted.float().mean().item() == pytest.approx(0.2, abs=5 * (0.16 / 2000) ** 0.5)

    seen: list[Tensor] = []
    for share in (0.0, 1.0):
        learner = learner_of(Dino(**FEW, hidden=16, bottleneck=8, local_views=0, solarise=share))
        learner.student.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        learner(images, 0, generator())
    plain, other = seen
    assert torch.equal(plain[:16], other[:16])
    assert torch.equal(other[16:], -plain[16:].abs())


@settings(deadline=None, max_examples=15)
@given(temperature=st.floats(0.05, 2), seed=st.integers(0, 99))
def test_simclr_has_the_nt_xent_loss(images: Tensor, temperature: float, seed: int) -> None:
    contrast = learner_of(SimCLR(**FEW, hidden=16, dims=8, temperature=temperature))
    loss, projected = contrast(images, 0, torch.Generator().manual_seed(seed))
    z = normalize(projected.detach().double())  # (32, 8): views i and i + 16 show the same image
    alike = z @ z.T
    terms = []
    for i in range(32):
        others = [math.exp(alike[i, k] / temperature) for k in range(32) if k != i]
        terms.append(-math.log(math.exp(alike[i, (i + 16) % 32] / temperature) / sum(others)))
    assert loss.item() == pytest.approx(sum(terms) / 32, rel=1e-4)


def test_moco_has_the_info_nce_loss_over_a_queue_of_the_latest_keys(images: Tensor) -> None:
    method = MoCo(**FEW, hidden=16, dims=8, queue=40, temperature=0.3)
    contrast = learner_of(method)
    bank = contrast.criterion.memory_bank
    seen: list[Tensor] = []
    for step in range(4):
        queue = bank.bank.clone().double()  # (40, 8)
        loss, queries = contrast(images, step, generator())
        with torch.no_grad():
            views = method.views(images, 2, generator())[16:]
            keys = normalize(contrast.key_head(contrast.key_backbone(views)).double())
        queries = normalize(queries.double())
        own = (queries * keys).sum(1) / 0.3
        among = torch.cat([own[:, None], queries @ queue.T / 0.3], dim=1)  # (16, 1 + 40)
        assert loss.item() == pytest.approx((among.logsumexp(1) - own).mean().item(), rel=1e-4)
        seen.append(keys.float())
        with torch.no_grad():
            contrast.head.layers[0].weight += 0.1
        contrast.follow(step)
    # 40 is no multiple of 16: of the third batch 8 found room, and the fourth began at the front
    # again
    wanted = torch.cat([seen[3], seen[1], seen[2][:8]])
    torch.testing.assert_close(bank.bank, wanted, atol=1e-6, rtol=1e-5)


def test_the_key_encoder_of_moco_follows_at_its_momentum() -> None:
    contrast = learner_of(MoCo(**FEW, momentum=0.75))
    weight, key_weight = contrast.head.layers[0].weight, contrast.key_head.layers[0].weight
    assert key_weight.equal(weight)
    was = weight.detach().clone()
    with torch.no_grad():
        weight += 1
    contrast.follow(0)
    torch.testing.assert_close(key_weight, was + 0.25)


def test_byol_has_the_squared_distance_of_directions_both_ways(images: Tensor) -> None:
    method = BYOL(**FEW, hidden=16, dims=8)
    bootstrap = learner_of(method)
    with torch.no_grad():
        bootstrap.target_head.layers[0].weight.mul_(torch.linspace(0, 2, 16)[:, None])
    loss, targets = bootstrap(images, 0, generator())
    views = method.views(images, 2, generator())
    predicted = bootstrap.predictor(bootstrap.head(bootstrap.backbone(views)))
    towards = bootstrap.target_head(bootstrap.target_backbone(views))
    one, other = (
        (normalize(a.double()) - normalize(b.double())).square().sum(1)
        for a, b in ((predicted[:16], towards[16:]), (predicted[16:], towards[:16]))
    )
    assert loss.item() == pytest.approx(torch.cat([one, other]).mean().item(), rel=1e-4)
    loss.backward()
    assert not targets.requires_grad
    assert all(parameter.grad is None for parameter in bootstrap.target_head.parameters())
    assert all(parameter.grad is not None for parameter in bootstrap.predictor.parameters())


def test_the_momentum_of_byol_rises_to_one_along_a_cosine() -> None:
    bootstrap = learner_of(BYOL(**{**FEW, "steps": 5}, momentum=0.6))
    weight, target = bootstrap.head.layers[0].weight, bootstrap.target_head.layers[0].weight
    moved = []
    for step in range(5):
        with torch.no_grad():
            target.copy_(weight - 1)
        bootstrap.follow(step)
        moved.append(1 - float((weight - target).detach().mean()))
    assert moved == pytest.approx(
        [0.4 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(5)], abs=1e-5
    )


@pytest.mark.parametrize("local_views", [0, 2])
def test_dino_has_the_mean_cross_entropy_over_pairs_of_different_views(
    images: Tensor, local_views: int
) -> None:
    """Of algorithm 1: the teacher's softmax is of outputs without their centre."""
    method = Dino(**FEW, hidden=16, bottleneck=8, prototypes=12, local_views=local_views)
    distilled = learner_of(method)
    centre = torch.linspace(-1, 1, 12)
    distilled.criterion.center.copy_(centre)
    loss, targets = distilled(images, 3, generator())
    draw = generator()
    wholes = method.views(images, 2, draw)
    parts = method.views(images, local_views, draw, local=True)
    guesses = distilled.head(distilled.student(torch.cat([wholes, parts]))).double()
    students = (guesses / 0.1).log_softmax(1).unflatten(0, (2 + local_views, 16))
    sharp = (targets.double() - centre) / distilled.temperature(3)
    teachers = sharp.softmax(1).unflatten(0, (2, 16))
    terms = [
        -(teachers[one] * students[other]).sum(1).mean()
        for one in range(2)
        for other in range(2 + local_views)
        if one != other
    ]
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-3)


@pytest.mark.parametrize("local_views", [0, 2])
def test_swav_predicts_balanced_assignments_of_other_views(
    digits: tuple[ImageSet, ImageSet], local_views: int
) -> None:
    """Of its own images and, from the third step on, of the two batches before them."""
    method = SwAV(
        **FEW,
        hidden=16,
        dims=8,
        prototypes=6,
        queue=32,
        local_views=local_views,
        freeze_prototypes=0,
    )
    swapped = learner_of(method)
    views = 2 + local_views
    for step, batch in enumerate(digits[0].images[:64].split(16)):
        queues = [queue.bank.clone().double() for queue in swapped.queues]  # (32, 8) each
        loss, embedded = swapped(batch.float() / 255, step, generator())
        prototypes = swapped.prototypes.heads[0].weight.double()
        scores = (embedded.double() @ prototypes.T).unflatten(0, (views, 16))  # (views, 16, 6)
        assert scores.abs().max() <= 1 + 1e-6
        terms = []
        for i in range(2):
            earlier = queues[i] @ prototypes.T if step * 16 >= 32 else scores[i, :0]
            assigned = sinkhorn(torch.cat([scores[i], earlier]), 0.05, 3)[:16]
            terms += [
                -(assigned * (scores[v] / 0.1).log_softmax(1)).sum(1).mean()
                for v in range(views)
                if v != i
            ]
        assert loss.item() == pytest.approx(float(torch.stack(terms).mean()), rel=1e-3)
        assert loss.shape == ()


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """exp(scores / epsilon) (B, K), scaled in turn so that columns sum to B / K and rows to 1."""
    kernel = (scores / epsilon).exp()
    rows = torch.ones(len(scores), 1, dtype=torch.double)
    for _ in range(iterations):
        columns = len(scores) / kernel.shape[1] / (rows * kernel).sum(0)  # (K,)
        rows = 1 / (kernel * columns).sum(1, keepdim=True)  # (B, 1)
    return rows * kernel * columns


def test_swav_assigns_as_many_images_to_every_prototype(images: Tensor) -> None:
    from lightly.loss.swav_loss import sinkhorn as of_lightly

    swapped = learner_of(SwAV(**FEW, hidden=16, dims=8, prototypes=4, sinkhorn_iterations=50))
    with torch.no_grad():
        _, embedded = swapped(images, 0, generator())
        scores = swapped.prototypes(embedded[:16], 0)
        criterion = swapped.criterion
        assigned = of_lightly(scores, criterion.sinkhorn_iterations, criterion.sinkhorn_epsilon)
    torch.testing.assert_close(assigned.sum(0), torch.full((4,), 4.0), atol=0.02, rtol=0)
    torch.testing.assert_close(assigned.sum(1), torch.ones(16))
    alone = (scores / 0.05).softmax(1).sum(0)
    assert (alone - 4).abs().max() > 1, "without Sinkhorn they are not balanced"


def test_the_prototypes_of_swav_are_directions_that_rest_at_first(
    digits: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    method = SwAV(**{**FEW, "steps": 4}, hidden=16, dims=8, prototypes=6, freeze_prototypes=2)
    swapped = learner_of(method)
    head = swapped.prototypes.heads[0]
    assert [name for name, _ in head.named_parameters()] == ["weight"]
    optimizer = torch.optim.AdamW(swapped.parameters(), lr=0.1)
    batch = digits[0].images[:16].float() / 255
    was: list[Tensor] = []
    for step in range(4):
        loss, _ = swapped(batch, step, generator())
        was.append(head.weight.detach().clone())
        torch.testing.assert_close(was[-1].norm(dim=1), torch.ones(6))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(was[0], was[2])
    assert not was[3].allclose(was[2], atol=0.01)


@pytest.mark.parametrize(
    ("side", "ratio", "hidden"),
    [
        (8, 0.3, 1),
        (8, 0.5, 2),
        (8, 0.7, 3),
        (8, 0.01, 1),
        (8, 0.99, 3),
        (32, 0.75, 48),
        (32, 0.9, 58),
    ],
)
def test_mae_hides_the_share_of_the_patches_and_never_the_class_token(
    side: int, ratio: float, hidden: int
) -> None:
    """Patches have side 4. A share that is no whole number of patches is the nearest one, and
    neither none nor all."""
    encoder = MAE(**FEW, depth=1, heads=2, decoder_width=8, mask_ratio=ratio)
    masked: Any = encoder.learner(built(encoder, shape=(1, side, side)))
    kept, chosen = masked.masked(200, generator())
    patches = (side // 4) ** 2
    assert chosen.shape == (200, hidden)
    assert (kept[:, 0] == 0).all()
    tokens = torch.cat([kept, chosen], dim=1).sort(dim=1).values
    assert tokens.equal(torch.arange(patches + 1).expand(200, -1))
    assert len(chosen.unique()) == patches


def test_mae_does_not_see_the_patches_that_it_has_to_fill_in(images: Tensor) -> None:
    masked = learner_of(MAE(**FEW, depth=1, heads=2, decoder_width=8))
    kept, hidden = masked.masked(16, generator())
    assert hidden.shape == (16, 2)
    changed = {"hidden": images.clone(), "kept": images.clone()}
    for what, tokens in (("hidden", hidden), ("kept", kept[:, 1:])):
        for image, patches in zip(changed[what], tokens - 1, strict=True):
            for patch in patches.tolist():
                square = image[:, 4 * (patch // 2) :, 4 * (patch % 2) :][:, :4, :4]
                square.copy_(square.flip(1, 2).sqrt())
    found = {}
    for what, given_images in {"neither": images, **changed}.items():
        found[what] = masked(given_images, 0, generator())
    assert found["hidden"][1].equal(found["neither"][1])
    assert not found["hidden"][0].isclose(found["neither"][0])
    assert not found["kept"][1].allclose(found["neither"][1])


def test_mae_is_scored_on_the_hidden_patches_with_normalised_pixels(images: Tensor) -> None:
    """Of a decoder that says the same of every patch, the loss is known."""
    masked = learner_of(MAE(**FEW, depth=1, heads=2, decoder_width=8))
    torch.nn.init.zeros_(masked.pixels.weight)
    said = masked.pixels.bias.detach().copy_(torch.linspace(-1, 1, 16))
    _, hidden = masked.masked(16, generator())
    errors = (said - normalised_patches(images)).square().mean(2)  # (16, 4)
    loss, _ = masked(images, 0, generator())
    assert loss.item() == pytest.approx(errors.gather(1, hidden - 1).mean().item(), rel=1e-4)


@pytest.mark.parametrize("shape", [(1, 8, 12), (1, 9, 9), (3, 4, 4), (1, 30, 30)])
def test_mae_refuses_images_that_it_cannot_cut_into_patches(shape: tuple[int, int, int]) -> None:
    with pytest.raises(
        ValueError, match=f"2x2 or more patches of side 4, not {shape[1]}x{shape[2]}"
    ):
        MAE().check(shape)
    with pytest.raises(ValueError, match="patches"):
        MAE().build(shape, 0)


def test_mae_refuses_heads_that_do_not_share_the_width_equally() -> None:
    with pytest.raises(
        ValidationError, match="width 64 and decoder_width 32 must divide by 5 heads"
    ):
        MAE(heads=5)


# Continuing


@pytest.mark.parametrize("encoder", SMALL, ids=named)
@pytest.mark.parametrize("stop_at", [1, 4])
def test_an_interrupted_training_resumes_bit_for_bit_with_all_that_it_learns_from(
    encoder: SelfSupervised, digits: tuple[ImageSet, ImageSet], tmp_path: Path, stop_at: int
) -> None:
    """Momentum networks, queues, prototypes and the optimizer, as the last checkpoint holds
    them."""
    for folder in ("straight", "resumed"):
        (tmp_path / folder).mkdir()
    fitted(encoder, digits[0], Job(tmp_path / "straight", seed=3))
    asked = iter(range(stop_at + 1))
    with pytest.raises(Interrupted):
        fitted(
            encoder,
            digits[0],
            Job(tmp_path / "resumed", seed=3, stopping=lambda: next(asked) == stop_at),
        )
    fitted(encoder, digits[0], Job(tmp_path / "resumed", seed=3))
    straight, resumed = (checkpoint(tmp_path / folder) for folder in ("straight", "resumed"))
    assert straight.keys() == resumed.keys()
    assert [name for name, tensor in straight.items() if not tensor.equal(resumed[name])] == []
    logs = [(tmp_path / folder / "log.jsonl").read_text() for folder in ("straight", "resumed")]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("encoder", "queues"), [(SMALL[2], 1), (SMALL[4], 2)], ids=["moco", "swav"]
)
def test_queues_are_in_the_checkpoint(
    encoder: SelfSupervised, queues: int, digits: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    fitted(encoder, digits[0], Job(tmp_path))
    banks = [tensor for name, tensor in checkpoint(tmp_path).items() if name.endswith(".bank")]
    assert [bank.shape for bank in banks] == [(32, 8)] * queues


def checkpoint(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by its path."""
    found: dict[str, Tensor] = {}

    def gather(value: Any, path: str) -> None:
        if isinstance(value, Tensor):
            found[path] = value
        elif isinstance(value, dict):
            for key, entry in value.items():
                gather(entry, f"{path}.{key}")

    gather(torch.load(folder / "train.checkpoint", weights_only=True)["state"], "")
    return found


# Weights from a file


@pytest.mark.parametrize("encoder", SMALL, ids=named)
@pytest.mark.parametrize("form", ["backbone.safetensors", "backbone.pt", "encoder.safetensors"])
def test_weights_are_loaded_instead_of_trained(
    encoder: SelfSupervised, form: str, digits: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    trained = fitted(encoder, digits[0], Job(tmp_path))
    path = tmp_path / form
    state = state_of(trained if form.startswith("encoder") else trained.backbone)
    torch.save(state, path) if path.suffix == ".pt" else save_file(state, path)
    (tmp_path / "loading").mkdir()
    loads = encoder.model_copy(update={"weights": path})
    loaded = fitted(loads, digits[0], Job(tmp_path / "loading", seed=9))
    assert loaded(digits[1].images).equal(trained(digits[1].images))
    assert list((tmp_path / "loading").iterdir()) == []


def test_an_encoder_with_weights_keeps_to_the_contract(tmp_path: Path) -> None:
    encoder = SMALL[1].model_copy(update={"weights": saved(SMALL[1], tmp_path / "weights.pt")})
    check(encoder)


def saved(encoder: SelfSupervised, path: Path, seed: int = 0) -> Path:
    torch.save(built(encoder, seed).backbone.state_dict(), path)
    return path


def test_the_key_depends_on_what_the_weights_are_and_not_on_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    same = [saved(SMALL[1], tmp_path / folder / "weights.pt") for folder in (".", "other")]
    another = saved(SMALL[1], tmp_path / "another.pt", seed=1)
    keys = [digest(SimCLR(weights=path).identity()) for path in (*same, another)]
    assert keys[0] == keys[1]
    assert len({*keys, digest(SimCLR().identity())}) == 3
    assert str(tmp_path) not in str(SimCLR(weights=another).identity())


def test_fields_that_came_later_are_in_no_key_at_their_defaults() -> None:
    assert digest(Dino().suited((1, 8, 8)).identity()) == "19875c4f4d61ec9b"  # of version 2
    assert all("weights" not in encoder.identity() for encoder in SMALL)


def test_missing_weights_are_told_before_the_run(tmp_path: Path) -> None:
    absent = SimCLR(weights=tmp_path / "absent.pt")
    for ask in (absent.preflight, absent.identity):
        with pytest.raises(MissingFile, match=r"absent\.pt is not there: mend the path"):
            ask()
    SimCLR(weights=saved(SMALL[1], tmp_path / "there.pt")).preflight()
    SimCLR().preflight()


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (
            lambda state: {"0.weight": state["0.weight"]},
            "'1.weight' is missing, and .* more like that; are its",
        ),
        (
            lambda state: {**state, "fc.weight": state["0.weight"]},
            "'fc.weight' is not part of it; are its settings",
        ),
        (
            lambda state: {**state, "0.weight": state["0.weight"][:2]},
            r"'0.weight' is \[2, 1, 3, 3\] and not \[4, 1,",
        ),
        (lambda state: {"model": state}, "is not a state dict: save the backbone's"),
        (lambda state: list(state.values()), "is not a state dict: save the backbone's"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, kept: Any, told: str) -> None:
    network = built(SMALL[1])
    torch.save(kept(network.backbone.state_dict()), tmp_path / "weights.pt")
    before = state_of(built(SMALL[1]))
    with pytest.raises(FwError, match=told):
        load_weights(network, tmp_path / "weights.pt")
    assert all(tensor.equal(before[name]) for name, tensor in state_of(network).items())


def test_a_whole_pickled_module_is_not_executed(tmp_path: Path) -> None:
    torch.save(built(SMALL[1]), tmp_path / "weights.pt")
    with pytest.raises(MissingFile, match="cannot be read"):
        load_weights(built(SMALL[1]), tmp_path / "weights.pt")


@settings(deadline=None, max_examples=60)
@given(place=st.integers(0, 4000), byte=st.integers(0, 255), cut=st.none() | st.integers(0, 4000))
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_damaged_file_is_loaded_or_refused_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, name: str, place: int, byte: int, cut: int | None
) -> None:
    path = tmp_path_factory.mktemp("weights") / name
    network = built(SMALL[1])
    state = state_of(network.backbone)
    torch.save(state, path) if path.suffix == ".pt" else save_file(state, path)
    content = bytearray(path.read_bytes())
    content[place] = byte
    path.write_bytes(content[:cut])
    told = refusal(network, path)
    assert told is None or (str(path) in told and "\n" not in told)


def refusal(network: ImageEncoder, path: Path) -> str | None:
    """What is said of the file, unless it is loaded."""
    try:
        load_weights(network, path)
    except FwError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_file_of_anything_else_is_refused(tmp_path: Path, name: str) -> None:
    for content in (b"", b"weights", pickle.dumps({"0.weight": 1}, protocol=2)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            FwError, match=rf"{name} (cannot be read|is empty|is not|is what torch)"
        ):
            load_weights(built(SMALL[1]), tmp_path / name)
