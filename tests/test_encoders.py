"""The encoders: features do not depend on the batch, DINO learns and resumes bit for bit, views
are what they say."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

from fw.core.errors import Interrupted, StageFailed
from fw.core.features.quality import cluster_quality
from fw.core.job import Job, Silent
from fw.core.types import ImageSet, Observations
from fw.plugins.annotators.kmeans import KMeans
from fw.plugins.datasets.digits import Digits
from fw.plugins.datasets.shapes import Shapes
from fw.plugins.encoders import views
from fw.plugins.encoders.dino import Dino
from fw.plugins.encoders.pixels import Pixels

SMALL = Dino(steps=6, batch=16, width=16, hidden=16, bottleneck=8, prototypes=12)


@pytest.fixture(scope="module")
def digits():
    return Digits().load("train").without_labels()


def build(encoder, shape=(1, 8, 8)):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return encoder.build(shape, 0)


def fitted(encoder, data, job):
    network = build(encoder, data.shape)
    encoder.fit(network, data, job)
    return network.eval()


def features(network, images):
    with torch.no_grad():
        return network(images)


def test_pixels_are_the_images_themselves(digits):
    found = features(build(Pixels()), digits.images)
    assert found.shape == (len(digits), 64)
    assert found.min() == -1
    assert found.max() == 1
    original = torch.from_numpy(load_digits().images).flatten(1).float() / 8 - 1
    assert (
        torch.cdist(found[:50], original).min(dim=1).values.max() < 0.05
    )  # uint8 rounds each of 64 pixels


@settings(deadline=None, max_examples=10)
@given(split=st.integers(1, 39))
@pytest.mark.parametrize("encoder", [Pixels(), SMALL])
def test_features_do_not_depend_on_how_images_are_batched(tmp_path_factory, encoder, digits, split):
    network = fitted(encoder, digits, Job(tmp_path_factory.mktemp("job")))
    images = digits.images[:40]
    parts = torch.cat([features(network, images[:split]), features(network, images[split:])])
    torch.testing.assert_close(parts, features(network, images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "shape", "dims"),
    [
        ("conv", (1, 8, 8), 128),
        ("conv", (3, 32, 32), 128),
        ("conv", (3, 28, 36), 128),
        ("resnet18", (3, 32, 32), 512),
        ("vit_tiny", (3, 16, 16), 192),
    ],
)
def test_every_backbone_gives_float_features_of_its_dimension(backbone, shape, dims):
    network = build(Dino(backbone=backbone), shape).eval()
    found = features(network, torch.randint(256, (3, *shape), dtype=torch.uint8))
    assert found.shape == (3, dims)
    assert found.dtype == torch.float32


def test_a_vision_transformer_refuses_images_that_it_cannot_cut_into_patches():
    with pytest.raises(ValueError, match="side divides by 8, not 28x28"):
        Dino(backbone="vit_tiny").build((1, 28, 28), 0)


class Telling(Silent):
    """Writes down which steps were done."""

    def __init__(self, steps):
        self.steps = steps

    def progress(self, label, done, total):
        self.steps.append(done)


@pytest.mark.parametrize("stop_at", [1, 4])
def test_an_interrupted_dino_resumes_bit_for_bit(tmp_path, digits, stop_at):
    (tmp_path / "straight").mkdir()
    (tmp_path / "resumed").mkdir()
    straight = fitted(SMALL, digits, Job(tmp_path / "straight", seed=3))
    steps_taken: list[int] = []
    first_try = Job(tmp_path / "resumed", seed=3, stopping=lambda: len(steps_taken) >= stop_at)
    first_try.reporter = Telling(steps_taken)
    with pytest.raises(Interrupted):
        fitted(SMALL, digits, first_try)
    assert steps_taken == list(range(1, stop_at + 1))
    torch.rand(7)
    resumed = fitted(SMALL, digits, Job(tmp_path / "resumed", seed=3))
    for name, tensor in straight.state_dict().items():
        assert tensor.equal(resumed.state_dict()[name]), name
    logs = [(tmp_path / folder / "log.jsonl").read_text() for folder in ("straight", "resumed")]
    assert logs[0] == logs[1]


def test_the_state_dict_of_dino_is_all_that_its_features_need(tmp_path, digits):
    network = fitted(SMALL, digits, Job(tmp_path))
    save_file(network.state_dict(), tmp_path / "encoder.safetensors")
    other = SMALL.build(digits.shape, 0)
    other.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    assert features(other.eval(), digits.images).equal(features(network, digits.images))


def test_the_seed_of_the_job_decides_what_dino_learns(tmp_path, digits):
    found: list[torch.Tensor] = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / folder).mkdir()
        torch.manual_seed(len(found))
        found.append(
            features(fitted(SMALL, digits, Job(tmp_path / folder, seed=seed)), digits.images[:5])
        )
    assert found[0].equal(found[1])
    assert not found[0].equal(found[2])


def test_dino_brings_views_of_one_digit_together_and_finds_more_of_the_classes_than_before(
    tmp_path,
):
    data = Digits().load("train")
    assert data.labels is not None
    labels = data.labels
    encoder = Dino(steps=40)
    before, after = build(encoder).eval(), fitted(encoder, data.without_labels(), Job(tmp_path))
    g = torch.Generator().manual_seed(0)
    images = data.images[:300].float() / 255
    pair = [(views.digit_view(images, False, g) * 255).to(torch.uint8) for _ in range(2)]

    def closeness(network):
        """The distance of two views of one image, relative to that of views of any two images."""
        one, other = (torch.nn.functional.normalize(features(network, view)) for view in pair)
        distances = torch.cdist(one, other)
        return float(distances.diag().mean() / distances.mean())

    def nmi(network):
        seen = Observations(len(data), features(network, data.images))
        return cluster_quality(
            KMeans(clusters=10).annotate(seen, Job(tmp_path)).conditions, labels
        )["nmi"]

    assert closeness(after) < closeness(before)
    assert nmi(after) > nmi(before)
    losses = [
        json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < losses[0]


def test_a_dino_that_maps_all_images_to_one_point_is_reported(tmp_path, digits):
    network = build(SMALL)
    grey = ImageSet(torch.full_like(digits.images, 128))
    with pytest.raises(StageFailed, match="collapsed"):
        SMALL.fit(network, grey, Job(tmp_path))


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("view", views.VIEWS.values())
@pytest.mark.parametrize("channels", [1, 3])
def test_views_keep_the_shape_and_range_and_differ_from_image_to_image(view, local, channels):
    image = Shapes(count=1, size=16).load("train").images[:, :channels].float() / 255
    seen = view(image.expand(20, -1, -1, -1), local, torch.Generator().manual_seed(0))
    assert seen.shape == (20, channels, 16, 16)
    assert 0 <= seen.min() <= seen.max() <= 1
    assert len(seen.flatten(1).unique(dim=0)) == 20


@pytest.mark.parametrize("view", views.VIEWS.values())
def test_the_generator_alone_decides_a_view(view):
    images = Shapes(count=8, size=16).load("train").images.float() / 255
    torch.manual_seed(0)
    one = view(images, True, torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    assert view(images, True, torch.Generator().manual_seed(5)).equal(one)


def test_turning_the_hue_keeps_grey_and_three_thirds_of_a_turn_permute_the_channels():
    g = torch.Generator().manual_seed(0)
    grey = torch.rand(2, 1, 4, 4, generator=g).expand(2, 3, 4, 4)
    torch.testing.assert_close(views.turn_hue(grey, torch.tensor(1.0)), grey)
    colours = torch.rand(2, 3, 4, 4, generator=g)
    third = views.turn_hue(colours, torch.tensor(2 * torch.pi / 3))
    torch.testing.assert_close(third, colours.roll(1, dims=1))


def test_local_digit_views_are_larger_than_global_ones():
    """A dot in the middle covers more pixels the closer one looks."""
    images = torch.zeros(500, 1, 33, 33)
    images[:, :, 14:19, 14:19] = 1
    areas = {
        local: (views.digit_view(images, local, torch.Generator().manual_seed(0)) > 0.5).sum()
        for local in (True, False)
    }
    assert areas[True] > 1.3 * areas[False]
