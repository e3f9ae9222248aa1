"""EDM's non-leaky augmentation (arXiv 2206.00364, appendix F.2): images are transformed, and the
network is given how."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import toys
from pydantic import ValidationError
from saying import says
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.errors import RecipeError
from fw.core.job import Job
from fw.core.kinds import Backbone
from fw.core.learning.batches import Batch
from fw.core.learning.loop import Step
from fw.core.learning.parts.augmentation import SIZE, Transforms, draw_transforms
from fw.core.learning.parts.part import Part
from fw.core.learning.train import train
from fw.core.learning.warp import DOUBLING, HALVING, warped
from fw.core.recipe.checks import faults
from fw.core.recipe.loading import load, validate
from fw.core.recipe.source import parse
from fw.core.settings import Train
from fw.core.types import ConditionSpec, ImageSet
from fw.plugins.encoders.diffusion import Diffusion
from fw.plugins.guidance.autoguidance import AutoGuidance
from fw.plugins.objectives.contrastive import Contrastive
from fw.plugins.objectives.dispersive import Dispersive
from fw.plugins.objectives.repa import REPA
from fw.plugins.processes.edm import EDM
from fw.registry import Provider, Registry, installed

PARAMETERS = ["mirror_x", "mirror_y", "scale", "turn", "axis", "stretch", "shift_x", "shift_y"]
QUARTER = math.pi / 2


class Remembering(nn.Module):
    """Predicts a number, and remembers by what it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.zeros(()))
        self.calls: list[dict[str, Tensor]] = []

    def forward(
        self, x: Tensor, noise: Tensor, condition=None, dropped=None, attend=None, **more: Tensor
    ) -> Tensor:
        self.calls.append(more)
        return self.number.expand_as(x)


class Takes(Backbone):
    """Builds networks that remember."""

    name: ClassVar[str] = "takes"
    augmentation_size: ClassVar[int] = SIZE
    built: ClassVar[list[Remembering]] = []

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        self.built.append(Remembering())
        return self.built[-1]


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def alike(count: int, given: dict[str, float]) -> Transforms:
    """The same transform for every image; what is not given is off."""
    return Transforms(*(torch.full((count,), float(given.get(name, 0))) for name in PARAMETERS))


def drawn(count: int, probability: float) -> Transforms:
    return draw_transforms(count, probability, torch.Generator().manual_seed(0))


# Resampling


def test_doubling_and_halving_are_a_pair_of_a_biorthogonal_wavelet() -> None:
    """Perfect reconstruction, symmetry, and four vanishing moments each: only one pair of 7 and 9
    taps has them."""
    double, half = (torch.tensor(taps, dtype=torch.float64) for taps in (DOUBLING, HALVING))
    shifted = conv1d(pad(half, (8, 8))[None, None], pad(double, (1, 1))[None, None]).flatten()
    expected = (torch.arange(9) == 4).double()
    torch.testing.assert_close(shifted[::2], expected, rtol=0, atol=1e-11)
    for taps in (double, half):
        assert taps.tolist() == taps.flip(0).tolist()
        n = torch.arange(len(taps), dtype=torch.float64)
        moments = [((-1) ** n * n**k * taps).sum().item() for k in range(4)]
        assert moments == pytest.approx([0] * 4, abs=1e-9)


@pytest.mark.parametrize("side", [8, 9, 32])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turn_by_quarters_is_exact_and_counter_clockwise(side: int, quarters: int) -> None:
    given = images(2, 3, side, side)
    turned = alike(2, {"turn": quarters * QUARTER})(given)
    torch.testing.assert_close(turned, torch.rot90(given, quarters, (-2, -1)), rtol=0, atol=5e-5)


def test_a_shift_by_whole_pixels_is_exact_and_shows_the_mirror_image_behind_the_border() -> None:
    given = images(2, 3, 16, 24)
    moved = alike(2, {"shift_x": 1.0, "shift_y": -1.5})(given)  # 3 to the right, 3 up
    torch.testing.assert_close(moved[..., :-3, 3:], given[..., 3:, :-3], rtol=0, atol=5e-5)
    mirrored = pad(given, (3, 0, 0, 3), mode="reflect")[..., 3:, :-3]
    torch.testing.assert_close(moved, mirrored, rtol=0, atol=5e-5)


def test_beyond_one_mirror_image_there_is_nothing() -> None:
    given = images(1, 1, 8, 8)
    moved = warped(given, torch.eye(2)[None], torch.tensor([[60.0, 0.0]]))
    assert moved.abs().max() == 0


def field(x: Tensor, y: Tensor) -> Tensor:
    """A smooth image as a function of the position in halves of the side."""
    return torch.sin(3 * x + 0.4) * torch.cos(2 * y + 0.3) + 0.3 * x


def grid(side: int) -> tuple[Tensor, Tensor]:
    along = (torch.arange(side) - (side - 1) / 2) / (side / 2)
    return along[None, :].expand(side, side), along[:, None].expand(side, side)


@pytest.mark.parametrize(
    ("parameters", "back"),
    [
        ({"scale": 1.0}, [[2**-0.2, 0], [0, 2**-0.2]]),
        ({"scale": -2.0}, [[2**0.4, 0], [0, 2**0.4]]),
        ({"stretch": 1.0}, [[2**-0.2, 0], [0, 2**0.2]]),
        ({"stretch": 1.0, "axis": QUARTER}, [[2**0.2, 0], [0, 2**-0.2]]),
        (
            {"turn": math.radians(30)},
            [[3**0.5 / 2, -0.5], [0.5, 3**0.5 / 2]],
        ),
        (
            {"scale": 1.0, "turn": QUARTER, "stretch": 1.0},  # scaled, turned, then stretched
            [[0, -1], [2**-0.4, 0]],
        ),
    ],
    ids=str,
)
def test_every_pixel_shows_where_the_matrix_of_the_paper_says_it_comes_from(
    parameters: dict[str, float], back: list[list[float]]
) -> None:
    """Against the smooth image itself, evaluated at the position that `back` gives."""
    side = 64
    x, y = grid(side)
    given = field(x, y)[None, None]
    (a, b), (c, d) = back
    expected = field(a * x + b * y, c * x + d * y)
    middle = slice(16, -16)
    found = alike(1, parameters)(given)[0, 0]
    torch.testing.assert_close(found[middle, middle], expected[middle, middle], rtol=0, atol=2e-3)


# Parameters and labels


def test_images_that_are_at_most_mirrored_keep_every_bit() -> None:
    given = images(4, 3, 8, 8)
    mirrors = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    off = torch.zeros(4)
    found = Transforms(mirrors[:, 0], mirrors[:, 1], *[off] * 6)(given)
    expected = [given[0], given[1].flip(-1), given[2].flip(-2), given[3].flip(-2, -1)]
    assert torch.equal(found, torch.stack(expected))


def test_the_label_is_zero_exactly_where_the_image_is_as_it_was() -> None:
    given, transforms = images(400, 1, 8, 8), drawn(400, 0.12)
    same = (transforms(given) == given).flatten(1).all(dim=1)
    assert torch.equal(transforms.label.eq(0).all(dim=1), same)
    assert 0.1 < same.float().mean() < 0.45  # half of 0.88 ** 4 * 0.94


def test_the_label_has_the_nine_entries_of_the_papers_table() -> None:
    parameters = dict(zip(PARAMETERS, (1, 1, 0.7, 0.5, 2.0, -1.5, 0.2, -0.3), strict=True))
    expected = [
        *(1, 1, 0.7, math.cos(0.5) - 1, math.sin(0.5)),
        *(-1.5 * math.cos(2), -1.5 * math.sin(2), 0.2, -0.3),
    ]
    [label] = alike(1, parameters).label.tolist()
    assert len(label) == SIZE
    assert label == pytest.approx(expected)


@pytest.mark.parametrize("probability", [0.0, 0.12, 1.0])
def test_transforms_are_drawn_as_often_and_as_large_as_the_paper_says(probability: float) -> None:
    count = 40_000
    each = drawn(count, probability)
    noise = 5 / count**0.5  # five standard deviations of a share, at most
    assert each.mirror_x.mean().item() == pytest.approx(0.5, abs=noise)
    assert each.mirror_y.mean().item() == pytest.approx(probability / 2, abs=noise)
    normals = (each.scale, each.stretch, each.shift_x, each.shift_y)
    angles = (each.turn, each.axis)
    for values in (*normals, *angles):
        assert (values != 0).float().mean().item() == pytest.approx(probability, abs=noise)
    for values in normals:
        variance = values.square().mean().item()  # of a squared normal: 2
        assert variance == pytest.approx(probability, abs=2 * noise)
    for values in angles:
        assert values.abs().max() <= math.pi
        share = (values.square() / math.pi**2).mean().item()
        assert share == pytest.approx(probability / 3, abs=noise)
    assert torch.equal(each.shift_x != 0, each.shift_y != 0)
    assert torch.equal(each.axis != 0, each.stretch != 0)
    together = ((each.scale != 0) & (each.turn != 0)).float().mean().item()
    assert together == pytest.approx(probability**2, abs=noise)


# In a training


def test_only_the_loss_of_augmented_images_says_how_they_were_transformed() -> None:
    network, given, label = Remembering(), torch.zeros(2, 3, 8, 8), torch.ones(2, SIZE)
    model, sigma = NetworkDenoiser(network, EDM()), torch.ones(2)
    model.loss(given, sigma, given, None, None, label)
    model.loss(given, sigma, given, None, None)
    model(given, 1.0)
    assert [list(call) for call in network.calls] == [["augmentation"], [], []]
    assert network.calls[0]["augmentation"] is label


def learned(
    folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> tuple[list[Batch], Remembering]:
    """The batches of a short training as they went into the loss, and the network."""
    from fw.core.learning.parts.denoising import Denoising

    batches: list[Batch] = []
    original = Denoising.loss

    def remember(self: Denoising, batch: Batch) -> Tensor:
        batches.append(batch)
        return original(self, batch)

    folder.mkdir()
    monkeypatch.setattr(Denoising, "loss", remember)
    shades = torch.arange(0, 256, 2, dtype=torch.uint8)
    data = ImageSet(shades.reshape(2, 1, 8, 8).contiguous())
    usual: dict[str, Any] = {"steps": 3, "batch": 16, "warmup": 0}
    train(Takes(), EDM(), data, None, Train(**usual | settings), Job(folder))
    monkeypatch.undo()
    return batches, Takes.built[-2]  # the last is the one for the averages


def test_a_training_gives_the_network_the_transforms_of_its_images_and_changes_no_other_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, unaware = learned(tmp_path / "plain", monkeypatch)
    augmented, aware = learned(tmp_path / "augmented", monkeypatch, augment=0.5)
    again, _ = learned(tmp_path / "again", monkeypatch, augment=0.5)
    assert [list(call) for call in unaware.calls] == [[]] * 3
    for number, (before, after, twin) in enumerate(zip(plain, augmented, again, strict=True)):
        label, x0 = after.augmentation, after.x0
        assert label is not None
        assert torch.equal(aware.calls[number]["augmentation"], label)
        as_they_were = label.eq(0).all(dim=1)
        assert torch.equal(x0[as_they_were], before.x0[as_they_were])
        assert not (x0 == before.x0).flatten(1).all(dim=1)[~as_they_were].any()
        for name in ("chosen", "sigma", "noise", "dropped"):
            assert torch.equal(getattr(before, name), getattr(after, name))
        assert torch.equal(x0, twin.x0)
    labels = [batch.augmentation for batch in augmented if batch.augmentation is not None]
    assert not torch.equal(labels[0], labels[1])


class Looks(Part):
    """Remembers the images as a step begins and as they went through the network."""

    def __init__(self) -> None:
        self.before: list[Tensor] = []
        self.after: list[Tensor] = []

    def begin(self, batch: Batch, step: Step) -> None:
        self.before.append(batch.x0)

    def add(self, loss: Tensor, batch: Batch, step: Step) -> Tensor:
        self.after.append(batch.x0)
        return loss


def test_other_parts_begin_with_the_images_as_they_are(tmp_path: Path) -> None:
    """So an online annotator groups what is generated, and no transforms of it."""
    looks, level = Looks(), torch.arange(8, dtype=torch.uint8)
    data = ImageSet((level[:, None, None, None] * 30).expand(8, 1, 8, 8).contiguous())
    settings = Train(steps=2, batch=8, warmup=0, augment=1.0)
    train(Takes(), EDM(), data, None, settings, Job(tmp_path), [looks])
    for before, after in zip(looks.before, looks.after, strict=True):
        assert (before == before[..., :1, :1]).all()
        assert not (after == after[..., :1, :1]).all()


# What is refused


def refused(registry: Registry, *changes: tuple[str, str]) -> list[str]:
    text = toys.RECIPE.replace("warmup: 1}", "warmup: 1, augment: 0.12}")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    registry.add(Provider("takes"), [Takes])
    try:
        validate(parse(text, "r.yaml"), registry)
    except RecipeError as error:
        return str(error).splitlines()
    return []


def test_a_backbone_that_takes_no_label_is_refused_with_it_in_one_sentence() -> None:
    assert refused(toys.registry(), ("linear", "takes")) == []
    [fault] = refused(toys.registry())
    assert says(fault, "r.yaml:8: train: augment ... backbone 'linear' ... ddpmpp")


def test_an_encoder_whose_denoiser_takes_no_label_is_refused_with_it() -> None:
    """It was a TypeError of the network, in the middle of a run."""
    wanted = {"train": {"augment": 0.1}, "blocks": ["mid"]}
    with pytest.raises(ValidationError, match="backbone 'unet' takes no such condition"):
        Diffusion.model_validate(wanted, context={"registry": installed()})
    context = {"registry": installed()}
    Diffusion.model_validate({**wanted, "model": "ddpmpp"}, context=context)
    Diffusion.model_validate({**wanted, "weights": "model.safetensors"}, context=context)


def test_a_smaller_network_that_guidance_trains_has_to_take_it_too() -> None:
    registry = toys.registry()
    registry.add(Provider("autoguidance"), [AutoGuidance])
    worse = "  self_1.5: {guidance: {name: autoguidance, scale: 2, model: linear}}"
    changes = ("linear", "takes"), ("  self_1.5: {guidance: {name: selfish, scale: 1.5}}", worse)
    [fault] = refused(registry, *changes)
    assert says(fault, "r.yaml:8: train: augment ... backbone 'linear'")


@pytest.mark.parametrize(
    ("objective", "allowed"), [("repa", False), ("contrastive", False), ("dispersive", True)]
)
def test_objectives_that_compare_with_the_image_as_it_was_are_refused(
    objective: str, allowed: bool
) -> None:
    registry = toys.registry()
    registry.add(Provider("objectives"), [Contrastive, Dispersive, REPA])
    encoder = ", encoder: {name: mean, cells: 2}" if objective == "repa" else ""
    section = f"process: unit\nobjectives: {{name: {objective}{encoder}}}"
    found = refused(registry, ("linear", "takes"), ("process: unit", section))
    named = [fault for fault in found if says(fault, f"r.yaml ... augment ... '{objective}'")]
    assert len(named) == (not allowed)


def test_latents_are_not_transformed() -> None:
    recipe = load(Path(str(files("fw.recipes") / "latent_dit.yaml")))
    train = recipe.train.model_copy(update={"augment": 0.12})
    reasons = {fault.reason for fault in faults(recipe.model_copy(update={"train": train}))}
    assert any(says(reason, "augment ... latents") for reason in reasons)
