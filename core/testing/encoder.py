"""The contract of an encoder: fitting is a function of the job, all it learns is stored,
features are pure."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fw.core.job import Job
from fw.core.kinds import Encoder
from fw.core.kinds.boundaries import checked_features
from fw.core.learning.state import state_of
from fw.core.randomness import forked
from fw.core.testing import tiny, usual
from fw.core.testing.compare import largest, largest_difference, same
from fw.core.testing.contract import Clause
from fw.core.testing.digest import digest
from fw.core.testing.elsewhere import elsewhere
from fw.core.testing.forall import forall
from fw.core.testing.global_state import ambient, random_state, repeated
from fw.core.testing.once import once
from fw.core.testing.stopping import Stop, resumed
from fw.core.testing.tiny import as_in_a_run
from fw.core.testing.usual import Batch, Use
from fw.core.types import ImageSet
from fw.registry.errors import in_one_line

Shape = tuple[int, int, int]

SHAPES: tuple[Shape, ...] = (tiny.SHAPE, (3, 32, 32), (3, 64, 64), (1, 28, 28), (3, 224, 224))
"""Images are of the first of these that the encoder's check() does not refuse."""
TRAINING, PROBE = 200, 12
"""Numbers of the images that it is fitted to, and of others that it encodes."""
SEED = 7


def right_shape(encoder: Encoder) -> None:
    """forward() maps any number of uint8 images to as many finite features, float32 (B, D)"""
    network, images = refitted(encoder), probe(encoder).images
    sizes = set()

    def body(count: int) -> None:
        features = encoded(network, images[:count])
        with as_in_a_run():
            checked_features(encoder, features, count)
        sizes.add(features.shape[1])
        assert len(sizes) == 1, f"D depends on the number of images: {sorted(sizes)}"

    forall(body, count=st.integers(1, PROBE), examples=5)
    for device in tiny.gpus():
        with ambient(0), tiny.job(SEED, device) as job:
            network = trained(encoder, job, visible(encoder)).to(device)
        features = encoded(network, images.to(device))
        assert features.device.type == device, f"features on {device} are on {features.device}"
        with as_in_a_run():
            checked_features(encoder, features.cpu(), PROBE)
        usual.assert_numbers(encoder.quality(network, probe(encoder)), f"quality on {device}: ")


@usual.same_in_any_batch
def batch_does_not_matter(encoder: Encoder) -> Iterator[Batch]:
    """An image's features do not depend on what else is in the batch, nor on the order"""
    network, images = refitted(encoder), probe(encoder).images
    scale = largest(encoded(network, images)) or 1.0
    yield Batch(
        PROBE, lambda rows: encoded(network, images[rows]) / scale, differ=largest_difference
    )


@usual.inputs_untouched
def forward_leaves_no_trace(encoder: Encoder) -> Iterator[Use]:
    """forward() leaves the state dict and the images alone, and fit() the images and labels"""
    network, images = refitted(encoder), probe(encoder).images
    inputs = {"the state dict": lambda: state(network), "the images": images}
    yield Use(lambda: encoded(network, images), inputs, user="forward")
    assert fitted(encoder).data_kept, "fit writes into the images or labels"


def all_is_stored(encoder: Encoder) -> None:
    """All that fitting learned is in the state dict: loaded into a fresh network, it gives the
    same features"""
    was = fitted(encoder)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.safetensors"
        save_file(was.state, path)
        network = built(encoder)
        network.load_state_dict(load_file(path))
    features = encoded(network.eval(), probe(encoder).images)
    wrong = (
        int((features != was.features).any(dim=1).sum())
        if features.shape == was.features.shape
        else PROBE
    )
    assert not wrong, f"the features of {wrong} of {PROBE} images are other ones"


def build_is_a_function_of_the_seed(encoder: Encoder) -> None:
    """build() gives the same weights from the same seed, in another process too, drawing from
    torch's generator only"""
    here = repeated(lambda: state(built(encoder)))
    assert elsewhere(built_digest, encoder) == digest(here.values()), (
        "another process builds another network"
    )


def fit_is_a_function_of_the_seed(encoder: Encoder) -> None:
    """fit() gives the same for the same job, and neither moves nor reads global generators
    outside job.steps"""
    first = fitted(encoder)
    with ambient(SEED):
        before = random_state()
        with tiny.job(SEED) as job:
            again = state(trained(encoder, job, visible(encoder)))
        drawn = [what for what, value in random_state().items() if before[what] != value]
    assert not drawn, f"it draws from {', '.join(drawn)}: take job.generator(...)"
    assert_same_state(again, first.state, "a second fit with the same seed")


def fit_resumes(encoder: Encoder) -> None:
    """A fit that is stopped half-way and continued in the same folder gives the same bits"""
    first = fitted(encoder)
    if first.checks:
        continued = resumed(
            lambda job: state(trained(encoder, job, visible(encoder))), SEED, first.checks
        )
        assert_same_state(continued, first.state, "the continued fit")


def labels_are_declared(encoder: Encoder) -> None:
    """Without uses_labels, labels change nothing"""
    if encoder.uses_labels:
        return
    data = tiny.images(TRAINING, shape_for(encoder))
    assert data.labels is not None
    with ambient(0), tiny.job(SEED) as job:
        with_labels = state(trained(encoder, job, replace(data, labels=data.labels.flip(0))))
    assert_same_state(with_labels, fitted(encoder).state, "fitted with labels at hand it")


def quality_is_numbers(encoder: Encoder) -> None:
    """quality() gives finite numbers by name, and no labels are needed without uses_labels"""
    held_out = probe(encoder)
    network = refitted(encoder)
    for data in (held_out,) if encoder.uses_labels else (held_out, held_out.without_labels()):
        usual.assert_numbers(encoder.quality(network, data))


def checks_shapes(encoder: Encoder) -> None:
    """check() raises nothing but ValueError, and what it lets pass can be built and encoded"""

    def body(channels: int, height: int, width: int) -> None:
        shape = channels, height, width
        try:
            encoder.check(shape)
        except ValueError:
            return
        try:
            encoded(built(encoder, shape).eval(), tiny.images(2, shape).images)
        except Exception as error:
            raise AssertionError(
                f"check() takes images {shape}, which raise {in_one_line(error)}"
            ) from error

    side = st.sampled_from([8, 16, 32, 9, 28, 5])
    forall(body, channels=st.sampled_from([1, 3, 2]), height=side, width=side, examples=8)


def suits_images(encoder: Encoder) -> None:
    """suited() decides once for all and changes nothing that is fitted; cautions() are sentences"""
    shape = shape_for(encoder)
    decided = encoder.suited(shape)
    assert type(decided) is type(encoder), f"suited() gives a {type(decided).__name__}"
    assert decided.suited(shape) == decided, "suited() decides otherwise when it is called again"
    if decided != encoder:
        with tiny.job(SEED) as job:
            again = state(trained(decided, job, visible(decided)))
        assert_same_state(again, fitted(encoder).state, "a fit of what suited() gives")
    for images in (None, TRAINING):
        for reason in decided.cautions(shape, images):
            told = isinstance(reason, str) and reason != ""
            assert told, f"cautions() gives {reason!r}"


PREREQUISITE = right_shape

CLAUSES: tuple[Clause, ...] = (
    right_shape,
    batch_does_not_matter,
    forward_leaves_no_trace,
    all_is_stored,
    build_is_a_function_of_the_seed,
    fit_is_a_function_of_the_seed,
    fit_resumes,
    labels_are_declared,
    quality_is_numbers,
    checks_shapes,
    suits_images,
)


@dataclass(frozen=True)
class Fitted:
    """What one fit leaves: its state dict, and the probe's features from the very network that
    was fitted."""

    state: dict[str, Tensor]
    features: Tensor
    checks: int
    """How often the fit checked whether to stop."""
    data_kept: bool


@once
def fitted(encoder: Encoder) -> Fitted:
    data, original, stopping = visible(encoder), visible(encoder), Stop()
    with ambient(0), tempfile.TemporaryDirectory() as folder:
        network = trained(encoder, Job(Path(folder), seed=SEED, stopping=stopping), data)
        weights = state(network)
        features = encoded(network, probe(encoder).images)
    kept = same((data.images, data.labels), (original.images, original.labels))
    return Fitted(weights, features, stopping.times, kept)


def refitted(encoder: Encoder) -> nn.Module:
    """A fresh network with the fitted weights, in eval mode."""
    network = built(encoder)
    network.load_state_dict(fitted(encoder).state)
    return network.eval()


def trained(encoder: Encoder, job: Job, data: ImageSet) -> nn.Module:
    network = built(encoder)
    encoder.fit(network, data, job)
    return network.eval()


def built(encoder: Encoder, shape: Shape | None = None) -> nn.Module:
    """An unfitted network whose initial weights depend only on the seed."""
    with forked():
        torch.manual_seed(SEED)
        return encoder.build(
            shape or shape_for(encoder), tiny.CLASSES if encoder.uses_labels else 0
        )


def built_digest(encoder: Encoder) -> str:
    return digest(state(built(encoder)).values())


@torch.inference_mode()
def encoded(network: nn.Module, images: Tensor) -> Tensor:
    return network(images)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state_of(network).items()}


def assert_same_state(actual: dict[str, Tensor], expected: dict[str, Tensor], what: str) -> None:
    names = actual.keys() | expected.keys()
    other = sorted(name for name in names if not same(actual.get(name), expected.get(name)))
    assert not other, f"{what} ends with other values of {', '.join(other[:3])}" + (
        " ..." if len(other) > 3 else ""
    )


def shape_for(encoder: Encoder) -> Shape:
    return usual.first_taken(SHAPES, encoder.check, "as images", ValueError)


def visible(encoder: Encoder) -> ImageSet:
    """The training images, with labels if the encoder declares that it uses them."""
    data = tiny.images(TRAINING, shape_for(encoder))
    return data if encoder.uses_labels else data.without_labels()


def probe(encoder: Encoder) -> ImageSet:
    return tiny.images(PROBE, shape_for(encoder), seed=1)
