"""The contract of an autoencoder: latents of the promised shape, each image's own, and images
back from them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from fw.core.diffusion.latents import new_network
from fw.core.kinds import Autoencoder, Code
from fw.core.kinds.boundaries import checked_code, checked_decoded
from fw.core.learning.state import state_of
from fw.core.randomness import generator
from fw.core.testing import tiny, usual
from fw.core.testing.compare import same
from fw.core.testing.contract import Clause
from fw.core.testing.forall import forall
from fw.core.testing.global_state import ambient
from fw.core.testing.once import once
from fw.core.testing.tiny import as_in_a_run
from fw.core.testing.usual import Batch, OnDevice, Use
from fw.core.testing.without_files import without_files

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


def latent_shape_speaks(autoencoder: Autoencoder) -> None:
    """latent_shape() refuses shapes by ValueError and by nothing else, and takes images of a
    common shape"""

    def body(channels: int, height: int, width: int) -> None:
        with contextlib.suppress(ValueError):
            latent = autoencoder.latent_shape((channels, height, width))
            whole = (
                isinstance(latent, tuple)
                and len(latent) == 3
                and all(type(n) is int and n > 0 for n in latent)
            )
            assert whole, f"that of {(channels, height, width)} is {latent!r}, not (C, h, w)"

    for shape in (*SHAPES, *ODD):
        body(*shape)
    forall(
        body,
        channels=st.integers(1, 4),
        height=st.integers(1, 64),
        width=st.integers(1, 64),
        examples=25,
    )
    smallest(autoencoder)


def known_without_files(autoencoder: Autoencoder) -> None:
    """latent_shape() is the same where its files are not there"""
    shape = smallest(autoencoder)
    without = without_files(autoencoder, "build").latent_shape(shape)
    expected = autoencoder.latent_shape(shape)
    assert without == expected, f"it is {without} without them, and {expected} with them"


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
    for what, (first, second, *_) in (
        ("latents of two images", latents),
        ("images of two latents", images),
    ):
        assert not torch.equal(first, second), f"{what} are the same"


@usual.same_in_any_batch
def batch_does_not_matter(autoencoder: Autoencoder) -> Iterator[Batch]:
    """Each image's latents are its own, whatever else is in the batch, and so is what is decoded"""
    images = probe(autoencoder)
    latents = encoded(autoencoder, images).mean

    def made(rows: list[int]) -> dict[str, Tensor]:
        code = encoded(autoencoder, images[rows])
        std = {} if code.std is None else {"stds": code.std}
        return {"latents": code.mean, **std, "decoded": decoded(autoencoder, latents[rows])}

    yield Batch(PROBE, made)


@usual.pure
def pure(autoencoder: Autoencoder) -> Iterator[Use]:
    """encode() and decode() draw nothing at random, and leave the network and their inputs alone"""
    images = probe(autoencoder)
    latents = encoded(autoencoder, images.clone()).mean
    network = {"the network": lambda: state_of(built(autoencoder))}
    yield Use(
        lambda: encoded(autoencoder, images), {"the images": images, **network}, user="encode()"
    )
    yield Use(
        lambda: decoded(autoencoder, latents), {"the latents": latents, **network}, user="decode()"
    )


def always_the_same_network(autoencoder: Autoencoder) -> None:
    """build() gives the same network again: encode() and decode() of two are the same to the
    last bit"""
    images = probe(autoencoder)
    results = []
    for seed in (1, 2):
        with ambient(seed):
            network = autoencoder.build(smallest(autoencoder)).eval()
        with torch.inference_mode():
            latents = autoencoder.encode(network, images).mean
            results.append((latents, autoencoder.decode(network, latents)))
    assert same(*results), (
        "two networks differ: it is trained already, so nothing of it may be random"
    )


@usual.same_on_a_gpu
def same_on_a_gpu(autoencoder: Autoencoder) -> Iterator[OnDevice]:
    """On a GPU, where there is one, it makes of images what it makes of them on the CPU"""
    images = probe(autoencoder)
    latents = encoded(autoencoder, images).mean

    @torch.inference_mode()
    def made(device: str) -> dict[str, Tensor]:
        network = new_network(autoencoder, smallest(autoencoder)).to(device)
        mean = autoencoder.encode(network, images.to(device)).mean
        return {"latents": mean, "decoded": autoencoder.decode(network, latents.to(device))}

    yield OnDevice(made)


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
    return usual.first_taken(SHAPES, autoencoder.latent_shape, "as images", ValueError)


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
