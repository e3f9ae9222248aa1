"""The contract of an autoencoder: latents of the promised shape, each image's own, and images back from them."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from fw.core.diffusion.latents import new_network
from fw.core.kinds import Autoencoder, Code
from fw.core.kinds.boundaries import checked_code, checked_decoded
from fw.core.randomness import generator
from fw.core.stages.everything import state_of
from fw.core.testing import tiny
from fw.core.testing.contract import Clause
from fw.core.testing.forall import forall
from fw.core.testing.global_state import ambient, repeated, same
from fw.core.testing.once import once
from fw.core.testing.tiny import as_in_a_run

Shape = tuple[int, int, int]

SHAPES: tuple[Shape, ...] = (
    (1, 8, 8),
    (3, 16, 16),
    (3, 32, 32),
    (1, 28, 28),
    (3, 64, 64),
    (3, 224, 224),
    (3, 256, 256),
)
"""Images are of the first of these that latent_shape() does not refuse."""
ODD: tuple[Shape, ...] = ((1, 7, 9), (3, 20, 12), (2, 16, 16))
PROBE = 4
TOLERANCE = 1e-4


def latent_shape_speaks(autoencoder: Autoencoder) -> None:
    """latent_shape() refuses shapes by ValueError and by nothing else, and takes images of a common shape"""

    def body(channels: int, height: int, width: int) -> None:
        with contextlib.suppress(ValueError):
            found = autoencoder.latent_shape((channels, height, width))
            whole = isinstance(found, tuple) and len(found) == 3 and all(type(n) is int and n > 0 for n in found)
            assert whole, f"that of {(channels, height, width)} is {found!r}, not (C, h, w)"

    for shape in (*SHAPES, *ODD):
        body(*shape)
    forall(body, channels=st.integers(1, 4), height=st.integers(1, 64), width=st.integers(1, 64), examples=25)
    smallest(autoencoder)


def known_without_files(autoencoder: Autoencoder) -> None:
    """latent_shape() is the same where its files are not there"""
    shape = smallest(autoencoder)
    found, expected = without_files(autoencoder).latent_shape(shape), autoencoder.latent_shape(shape)
    assert found == expected, f"it is {found} without them, and {expected} with them"


def codes_as_promised(autoencoder: Autoencoder) -> None:
    """encode() maps any number of uint8 images to finite float32 latents of the promised shape"""

    def body(count: int) -> None:
        with as_in_a_run():
            code = encoded(autoencoder, probe(autoencoder)[:count])
            checked_code(autoencoder, code, smallest(autoencoder), count)
        assert code.std is None or bool((code.std >= 0).all()), "its std is negative somewhere"

    body(1)
    forall(body, count=st.integers(1, PROBE), examples=3)


def images_as_promised(autoencoder: Autoencoder) -> None:
    """decode() maps latents, also those of noise, to finite float32 images of the original shape"""
    shape = smallest(autoencoder)
    noise = torch.randn(PROBE, *autoencoder.latent_shape(shape), generator=generator(0, "latents"))
    for latents in (encoded(autoencoder, probe(autoencoder)).mean, noise):
        with as_in_a_run():
            checked_decoded(autoencoder, decoded(autoencoder, latents), shape, PROBE)


def images_differ(autoencoder: Autoencoder) -> None:
    """Different images have different latents, and these are decoded to different images"""
    latents = encoded(autoencoder, probe(autoencoder)).mean
    images = decoded(autoencoder, latents)
    for what, found in (("latents of two images", latents), ("images of two latents", images)):
        assert not torch.equal(found[0], found[1]), f"{what} are the same"


def batch_does_not_matter(autoencoder: Autoencoder) -> None:
    """Each image's latents are its own, whatever else is in the batch, and so is what is decoded"""
    images = probe(autoencoder)
    together = encoded(autoencoder, images)
    back = decoded(autoencoder, together.mean)

    def body(rows: list[int]) -> None:
        alone = encoded(autoencoder, images[rows])
        found = {"latents": (alone.mean, together.mean[rows])}
        if alone.std is not None and together.std is not None:
            found["stds"] = (alone.std, together.std[rows])
        found["decoded images"] = (decoded(autoencoder, together.mean[rows]), back[rows])
        for what, (one, other) in found.items():
            share = gap(one, other)
            assert share <= TOLERANCE, (
                f"{what} {rows} of {PROBE} differ by {share:.2g} of the largest without the others"
            )

    body([1])
    forall(body, rows=st.lists(st.integers(0, PROBE - 1), unique=True, min_size=1), examples=4)


def pure(autoencoder: Autoencoder) -> None:
    """encode() and decode() draw nothing at random, and leave the network and what they are given alone"""
    network, images = built(autoencoder), probe(autoencoder)
    before = {name: tensor.clone() for name, tensor in state_of(network).items()}
    given = images.clone()
    latents = repeated(lambda: encoded(autoencoder, images)).mean
    kept = latents.clone()
    repeated(lambda: decoded(autoencoder, latents))
    assert torch.equal(images, given), "encode() writes into the images"
    assert torch.equal(latents, kept), "decode() writes into the latents"
    after = state_of(network)
    changed = [name for name, tensor in before.items() if not same(after.get(name), tensor)]
    assert not changed, f"they change {', '.join(changed[:3])} of the network ({len(changed)} tensors in all)"


def always_the_same_network(autoencoder: Autoencoder) -> None:
    """build() gives the same network again: encode() and decode() of two are the same to the last bit"""
    images = probe(autoencoder)
    results = []
    for seed in (1, 2):
        with ambient(seed):
            network = autoencoder.build(smallest(autoencoder)).eval()
        with torch.inference_mode():
            latents = autoencoder.encode(network, images).mean
            results.append((latents, autoencoder.decode(network, latents)))
    assert same(*results), "two networks differ: it is trained already, so nothing of it may be random"


def same_on_a_gpu(autoencoder: Autoencoder) -> None:
    """On a GPU, where there is one, it makes of images what it makes of them on the CPU"""
    images = probe(autoencoder)
    latents = encoded(autoencoder, images).mean
    expected = decoded(autoencoder, latents)
    for device in tiny.devices()[1:]:
        network = new_network(autoencoder, smallest(autoencoder)).to(device)
        with torch.inference_mode():
            found = autoencoder.encode(network, images.to(device)).mean
            back = autoencoder.decode(network, latents.to(device))
        assert {found.device.type, back.device.type} == {device}, f"what it makes of tensors on {device} is elsewhere"
        share = max(gap(found.cpu(), latents), gap(back.cpu(), expected))
        assert share <= 0.02, f"they differ by {share:.2g} of the largest value"


CLAUSES: tuple[Clause, ...] = (
    latent_shape_speaks,
    known_without_files,
    codes_as_promised,
    images_as_promised,
    images_differ,
    batch_does_not_matter,
    pure,
    always_the_same_network,
    same_on_a_gpu,
)

PREREQUISITE: Callable[[Any], None] = latent_shape_speaks


def smallest(autoencoder: Autoencoder) -> Shape:
    """The first common shape of images that it takes."""
    reasons = []
    for shape in SHAPES:
        try:
            autoencoder.latent_shape(shape)
        except ValueError as error:
            reasons.append(str(error))
        else:
            return shape
    raise AssertionError(f"it takes none of {', '.join(map(str, SHAPES))}: {reasons[-1]}")


def without_files(autoencoder: Autoencoder) -> Autoencoder:
    """The autoencoder as a machine without its files has it: no path leads anywhere, and nothing can be built."""

    def build(self: Autoencoder, shape: Shape) -> nn.Module:
        raise AssertionError("build() is called for it")

    kind = type(autoencoder)
    bare: type[Autoencoder] = types.new_class(kind.__name__, (kind,), exec_body=lambda body: body.update(build=build))
    fields: dict[str, Any] = {
        name: value / "absent" if isinstance(value, PurePath) else value for name, value in autoencoder
    }
    return bare.model_construct(**fields)


@once
def built(autoencoder: Autoencoder) -> nn.Module:
    with ambient(0):
        return new_network(autoencoder, smallest(autoencoder))


@torch.inference_mode()
def encoded(autoencoder: Autoencoder, images: Tensor) -> Code:
    return autoencoder.encode(built(autoencoder), images)


@torch.inference_mode()
def decoded(autoencoder: Autoencoder, latents: Tensor) -> Tensor:
    return autoencoder.decode(built(autoencoder), latents)


def probe(autoencoder: Autoencoder) -> Tensor:
    """A few uint8 images of a shape that it takes."""
    return tiny.images(PROBE, smallest(autoencoder)).images


def gap(one: Tensor, other: Tensor) -> float:
    """The largest difference as a share of the largest value."""
    return float((one - other).abs().max()) / (float(other.abs().max()) or 1.0)
