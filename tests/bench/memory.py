"""`PYTHONPATH=tests python -m bench.memory`: the most memory that a run takes on 100,000 files of
images and on a quarter of them; a run from 4 GiB of latents to its scores, and from a quarter of
them; and a training on 16 GiB of mapped latents and on a quarter of them (docs/scaling.md). Needs
room on the disk of $TMPDIR: 13 KB an image, 256 KB for latents of one; those of the last training
take none, because their files have holes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from test_large_data import MIB, POOLED, RECIPE, peaks, pictures, run, sparse

from fw.core.diffusion.latents import Latents
from fw.core.job import Job
from fw.core.learning.train import train
from fw.core.machine.memory import Watch
from fw.core.settings import Train
from fw.plugins.backbones.unet import UNet
from fw.plugins.processes.flow import Flow

IMAGES, ENCODED, FILES = 100_000, 16_000, 64

WIDE = (
    POOLED.replace("    return [Pooled]", "    return [Pooled, Wide]")
    + '''

from fw.core.kinds import Autoencoder
from fw.core.kinds.autoencoder import Code


class Wide(Autoencoder):
    """Latents that are wider than the images: 4x64x64 of 3x64x64, each with a deviation."""
    name: ClassVar[str] = "wide"
    def latent_shape(self, shape):
        return 4, *shape[1:]
    def build(self, shape):
        return nn.Identity()
    def encode(self, network, images):
        mean = images[:, [0, 1, 2, 0]].float() / 127.5 - 1
        return Code(mean, mean.abs() * 0.1)
    def decode(self, network, latents):
        return latents[:, :3]
'''
)

PARTS = ("mean", "std", "mirrored.mean", "mirrored.std")
SHAPE = (1000, 4, 64, 64)
"""Of each part in a file, which has 250 MiB."""


def on_images(count: int, folder: Path, plugin: str = POOLED, text: str = RECIPE) -> str:
    """A recipe from its files to its report."""
    (folder / "pooled.py").write_text(plugin, encoding="utf-8")
    recipe = text.format(root=folder / "images", cache=folder / "cache")
    (folder / "recipe.yaml").write_text(recipe.replace("size: 96", "size: 64"), encoding="utf-8")
    pictures(folder / "images/test", 1000, side=16)
    pictures(folder / "images/train", count, side=16)
    began = time.monotonic()
    done = run(folder, "--out", str(folder / "runs"))
    if done.returncode:
        raise SystemExit(done.stderr)
    taken = {kind: round(peak / MIB) for kind, peak in sorted(peaks(folder / "runs").items())}
    return f"{count:,} images, {time.monotonic() - began:.0f} s, peaks in MiB: {taken}"


def in_latents(count: int, folder: Path) -> str:
    """The same in latents, with those of mirror images: 256 KiB an image."""
    text = RECIPE.replace("steps: 2}", "steps: 2, clip: null}").replace(
        "steps: 4,", "steps: 4, flip: true,"
    )
    text += "latents: wide\n"
    return on_images(count, folder, WIDE, text)


def on_latents(files: int, folder: Path) -> str:
    """A training of 30 steps of 64 latents."""
    for number in range(files):
        path = folder / f"latents-{number * SHAPE[0]:07d}.safetensors"
        sparse(path, dict.fromkeys(PARTS, SHAPE))
    settings = Train(steps=30, batch=64, warmup=1, flip=True)
    with Watch(torch.device("cpu")) as memory:
        latents = Latents.load(folder)
        train(UNet(channels=(8, 8), groups=4), Flow(), latents, None, settings, Job(folder))
    mapped = sum(rows.nbytes for rows in latents.parts.values()) / 2**30
    assert memory.peak.anonymous is not None
    assert memory.began is not None
    peak, before = (round(size / MIB) for size in (memory.peak.anonymous, memory.began))
    return f"{mapped:.1f} GiB of latents: peak {peak} MiB, {before} of them before it began"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["images", count]:
            with tempfile.TemporaryDirectory() as scratch:
                print(on_images(int(count), Path(scratch)))
        case ["encoded", count]:
            with tempfile.TemporaryDirectory() as scratch:
                print(in_latents(int(count), Path(scratch)))
        case ["latents", files]:
            with tempfile.TemporaryDirectory() as scratch:
                print(on_latents(int(files), Path(scratch)))
        case _:
            for what, most in (("images", IMAGES), ("encoded", ENCODED), ("latents", FILES)):
                for few in (most // 4, most):
                    command = [sys.executable, "-m", "bench.memory", what, str(few)]
                    subprocess.run(command, check=True)
