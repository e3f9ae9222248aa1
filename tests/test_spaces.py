"""The spaces that metrics measure in: they learn what they should, and distances in them rise
when images get worse."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fw.core.errors import Interrupted, MissingFile, RecipeError
from fw.core.job import Job
from fw.core.kinds import Encoder
from fw.core.types import ImageSet, Reference
from fw.plugins.datasets.digits import Digits
from fw.plugins.encoders.classifier import Classifier
from fw.plugins.encoders.inception import FILE_NAMES, Inception
from fw.plugins.encoders.pca import PCA
from fw.plugins.metrics.fd import FD
from fw.plugins.metrics.fid import FID


def fitted(encoder: Encoder, data: ImageSet, folder: Path, seed: int = 0) -> nn.Module:
    network = fresh(encoder, data, seed)
    encoder.fit(
        network, data if encoder.uses_labels else data.without_labels(), Job(folder, seed=seed)
    )
    return network.eval()


def fresh(encoder: Encoder, data: ImageSet, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return encoder.build(data.shape, data.classes if encoder.uses_labels else 0)


def features(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return network(images)


def corners(count: int, seed: int, channels: int = 3, size: int = 16) -> ImageSet:
    """Noise with a bright patch in one of four corners: the class. The patch's colour says
    nothing."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 120, (count, channels, size, size), generator=generator)
    labels = torch.randint(4, (count,), generator=generator)
    bright = torch.randint(60, 135, (count, channels, 1, 1), generator=generator)
    half = size // 2
    for corner in range(4):
        rows, columns = (slice(half * k, half * (k + 1)) for k in divmod(corner, 2))
        images[labels == corner, :, rows, columns] += bright[labels == corner]
    return ImageSet(images.to(torch.uint8), labels, classes=4)


# classifier


@pytest.fixture(scope="module")
def train() -> ImageSet:
    return Digits().load("train")


@pytest.fixture(scope="module")
def held_out() -> ImageSet:
    return Digits().load("test")


@pytest.fixture(scope="module")
def spaces(train, tmp_path_factory) -> dict[str, nn.Module]:
    encoders: list[Encoder] = [Classifier(), PCA()]
    return {e.name: fitted(e, train, tmp_path_factory.mktemp(e.name)) for e in encoders}


def test_the_classifier_reads_held_out_digits(spaces, held_out):
    assert Classifier().quality(spaces["classifier"], held_out)["accuracy"] >= 0.97


def test_the_classifier_learns_a_planted_class_but_not_labels_that_were_shuffled(tmp_path):
    data, test = corners(400, seed=0), corners(200, seed=1)
    assert data.labels is not None
    encoder = Classifier(steps=60, batch=64)
    learned = encoder.quality(fitted(encoder, data, tmp_path), test)["accuracy"]
    shuffled = data.labels[torch.randperm(400, generator=torch.Generator().manual_seed(2))]
    (tmp_path / "control").mkdir()
    network = fitted(encoder, ImageSet(data.images, shuffled, 4), tmp_path / "control")
    assert learned >= 0.95
    assert encoder.quality(network, test)["accuracy"] < 0.5


def test_a_classifier_that_was_interrupted_ends_with_the_same_weights(tmp_path):
    data, encoder = corners(100, seed=0), Classifier(steps=9, batch=16)
    for name in ("straight", "broken"):
        (tmp_path / name).mkdir()
    straight = fitted(encoder, data, tmp_path / "straight")
    answers = iter([False] * 4 + [True])
    job = Job(tmp_path / "broken", stopping=lambda: next(answers, False))
    with pytest.raises(Interrupted):
        encoder.fit(fresh(encoder, data), data, job)
    resumed = fresh(encoder, data, seed=1)
    encoder.fit(resumed, data, job)
    for name, weight in straight.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    "shape", [(1, 4, 4), (1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 48, 64), (3, 128, 128)]
)
def test_the_classifier_takes_images_of_any_size_and_keeps_its_number_of_features(shape):
    network = Classifier(dims=24, width=8).build(shape, classes=5)
    images = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    assert features(network, images).shape == (3, 24)
    assert network.logits(images).shape == (3, 5)


def test_classifier_features_do_not_depend_on_the_other_images_of_the_batch(spaces, held_out):
    network = spaces["classifier"]
    together = features(network, held_out.images[:10])
    alone = torch.cat([features(network, image[None]) for image in held_out.images[:10]])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


# principal components


def test_pca_is_the_best_linear_projection_of_pixels(train, spaces):
    pixels = train.images.flatten(1).double() / 255
    centred = pixels - pixels.mean(0)
    variances = torch.linalg.svdvals(centred).square()[:16] / (len(train) - 1)
    projected = features(spaces["pca"], train.images).double()
    torch.testing.assert_close(projected.var(0), variances, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(projected.mean(0), torch.zeros(16).double(), rtol=0, atol=1e-4)


def test_pca_refuses_more_components_than_pixels_or_images(tmp_path):
    with pytest.raises(ValueError, match="dims is 100, but an image has 64 values"):
        PCA(dims=100).build((1, 8, 8), 0)
    few = corners(10, seed=0)
    with pytest.raises(RecipeError, match="dims is 16, but there are 10 training images"):
        fitted(PCA(), few, tmp_path)


@pytest.mark.parametrize("encoder", [Classifier(), PCA()], ids=["classifier", "pca"])
def test_a_fitted_space_is_whole_in_its_state_dict(encoder, spaces, held_out):
    again = fresh(encoder, held_out, seed=5)
    again.load_state_dict(spaces[encoder.name].state_dict())
    assert torch.equal(
        features(again.eval(), held_out.images), features(spaces[encoder.name], held_out.images)
    )


# the self-test of a space: distances rise as images get worse


def noisy(images: Tensor, sigma: float) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + 255 * sigma * noise).round().clamp(0, 255).to(torch.uint8)


def blurred(images: Tensor, sigma: float) -> Tensor:
    offsets = torch.arange(-3, 4.0)
    weights = torch.exp(-offsets.square() / (2 * sigma**2 + 1e-9))
    kernel = torch.outer(weights, weights)[None, None] / weights.sum() ** 2
    return nn.functional.conv2d(images.float(), kernel, padding=3).round().to(torch.uint8)


def distance(network: nn.Module, name: str, train: ImageSet, images: Tensor) -> float:
    known = features(network, train.images)
    metric = FD.model_validate({"space": name})
    scores = metric.compare(metric.prepare(Reference(known, known)), features(network, images))
    return scores[f"fd_{name}"]


@pytest.mark.parametrize("name", ["classifier", "pca"])
@pytest.mark.parametrize(
    ("damage", "levels"), [(noisy, (0.0, 0.1, 0.2, 0.4)), (blurred, (0.0, 0.35, 0.5, 1.0))]
)
def test_fd_rises_with_noise_and_with_blur(spaces, train, held_out, name, damage, levels):
    scores = [
        distance(spaces[name], name, train, damage(held_out.images, level)) for level in levels
    ]
    assert scores == sorted(scores)
    assert scores[-1] > 3 * scores[0]


@pytest.mark.parametrize("name", ["classifier", "pca"])
def test_fd_rises_as_classes_are_dropped_and_not_because_images_are_fewer(
    spaces, train, held_out, name
):
    assert held_out.labels is not None
    kept = [held_out.images[held_out.labels >= dropped] for dropped in (0, 1, 3, 5)]
    scores = [distance(spaces[name], name, train, images) for images in kept]
    assert scores == sorted(scores)
    rows = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))[
        : len(kept[-1])
    ]
    as_few = distance(spaces[name], name, train, held_out.images[rows])
    assert scores[-1] > 2 * as_few


# Inception


def made_inception(folder: Path) -> Path:
    """Random weights in the format of the real file."""
    from torch_fidelity import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, *args, **kwargs):
            pass

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Untrained("untrained", ["2048"], feature_extractor_weights_path=nothing)
    torch.save(network.state_dict(), folder / FILE_NAMES[0])
    return folder / FILE_NAMES[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> tuple[Path, str]:
    """Such a file, and its sha256."""
    path = made_inception(tmp_path_factory.mktemp("weights"))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def inception(checkpoint) -> Inception:
    path, digest = checkpoint
    return Inception(weights=path, sha256=digest[:8])


@pytest.fixture
def nowhere(monkeypatch, tmp_path) -> Path:
    """An environment in which no weights lie anywhere."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FW_WEIGHTS_DIR", str(tmp_path / "weights"))
    return tmp_path


def test_inception_features_are_those_of_torch_fidelity_whatever_mode_it_is_put_in(inception):
    from torch_fidelity import FeatureExtractorInceptionV3

    images = torch.randint(
        0, 256, (2, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    theirs = FeatureExtractorInceptionV3(
        "x", ["2048"], feature_extractor_weights_path=str(inception.weights)
    )
    network = inception.build((3, 20, 20), 0)
    inception.preflight()
    ours = features(network.train(), images)
    assert ours.shape == (2, 2048)
    assert ours.dtype == torch.float32
    assert ours.std(dim=0).max() > 0
    assert torch.equal(ours, features(theirs, images)[0])


def test_grey_images_enter_inception_as_colour_images(inception):
    grey = torch.randint(
        0, 256, (1, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    network = inception.build((1, 8, 8), 0)
    assert torch.equal(features(network, grey), features(network, grey.repeat(1, 3, 1, 1)))


def test_inception_refuses_images_that_are_neither_grey_nor_rgb(inception):
    with pytest.raises(ValueError, match="images have 4 channels"):
        inception.build((4, 8, 8), 0)


def test_inception_stores_no_weights_and_its_identity_knows_the_hash_but_not_the_path(inception):
    assert inception.build((3, 8, 8), 0).state_dict() == {}
    identity = inception.identity()
    assert identity["sha256"] == inception.sha256
    assert str(inception.weights) not in str(identity)
    assert identity == Inception(sha256=inception.sha256).identity()


def test_missing_weights_are_told_in_one_message_that_says_what_to_do(nowhere):
    with pytest.raises(MissingFile) as told:
        FID.model_validate({"weights": nowhere / "own.pth"}).preflight()
    message = str(told.value)
    assert "\n" not in message
    for place in (
        nowhere / "own.pth",
        nowhere / "weights",
        nowhere / "torch" / "hub" / "checkpoints",
    ):
        assert str(place) in message
    for words in (FILE_NAMES[0], "6726825d", "copy", "'classifier' or 'pca'"):
        assert words in message


@pytest.mark.parametrize("place", ["weights", "torch/hub/checkpoints"])
@pytest.mark.parametrize("file", FILE_NAMES)
def test_weights_are_found_in_the_weights_folder_and_in_torch_hubs_cache(nowhere, place, file):
    path = nowhere / place / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert Inception(sha256=hashlib.sha256(b"weights").hexdigest()).weights_file() == path


def test_a_file_with_another_hash_is_refused(checkpoint):
    path, digest = checkpoint
    with pytest.raises(MissingFile, match=f"begins with {digest[:8]}, expected 6726825d"):
        Inception(weights=path).preflight()


def test_a_file_that_is_not_a_safe_checkpoint_of_inception_is_refused(tmp_path):
    for content in ({"weight": torch.zeros(2)}, {"code": Path("x")}):
        path = tmp_path / "weights.pth"
        torch.save(content, path)
        encoder = Inception(weights=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        with pytest.raises(MissingFile, match="does not hold Inception's weights"):
            encoder.build((3, 8, 8), 0)(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_the_hash_to_expect_must_be_hexadecimal():
    with pytest.raises(ValidationError):
        Inception(sha256="not a hash")
