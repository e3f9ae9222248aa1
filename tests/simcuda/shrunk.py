"""The shipped recipes at a very small scale: two steps of tiny networks on a few images.

What is alike after that, in one recipe or in several, is one stage: they share a store. What needs
files from elsewhere, or long to draw, gets made-up ones: an image folder, and random weights of an
autoencoder.
Scores in the space of Inception are taken in another; what Inception computes on a device, the
contract of encoders says.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

RECIPES = sorted(
    entry.name.removesuffix(".yaml")
    for entry in files("fw.recipes").iterdir()
    if entry.name.endswith(".yaml")
)

LARGEST = {
    "steps": 2,
    "warmup": 0,
    "batch": 8,
    "clusters": 3,
    "known": 0.5,
    "head_dim": 8,
    "queue": 16,
    "depth": 3,
    "heads": 2,
    "layers": 1,
    "patch": 2,
    "hidden": 16,
    "bottleneck": 8,
    "prototypes": 8,
    "local_views": 1,
    "labelled": 4,
    "draws": 1,
    "dims": 4,
    "count": 8,
    "snapshots": 2,
    "seeds": 1,
    "timesteps": 1000,
}
"""By field: what it is at most."""

SIZED = {"unet": "channels", "jdm": "channels", "ddpmpp": "multipliers"}
"""By network: the list that has an entry for each of its levels."""

UNSAID = {
    "dino": {"batch": 8},
    "rdm": {"batch": 8, "sampling_steps": 10, "count": 50},
    "diffusion_selected": {"steps": 2},
}
"""By component: fields of which recipes say nothing."""

CLASSIFIER = {"name": "classifier", "steps": 2, "batch": 8}


def shrunk(name: str, folder: Path) -> dict[str, Any]:
    """The recipe of this name, with made-up files in the folder."""
    text = (files("fw.recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    recipe = small(yaml.safe_load(text))
    recipe["tracker"] = None
    # Every metric and probe is in several recipes, and one of each kind is done in each.
    turn = RECIPES.index(name)
    for section in ("metrics", "probes"):
        if section in recipe:
            recipe[section] = [recipe[section][turn % len(recipe[section])]]
    if recipe["dataset"]["name"] != "digits":
        recipe["dataset"] = {"name": "image_folder", "root": str(pictures(folder)), "size": 16}
        recipe["dataset"]["class_folders"] = 3
    if "latents" in recipe:
        recipe["latents"]["weights"] = str(autoencoder(folder))
        recipe["latents"]["shrink"] = 2
    return recipe


def small(value: Any, field: str = "") -> Any:
    """A part of a recipe, its numbers cut."""
    if isinstance(value, list):
        return [small(each, field) for each in value]
    if not isinstance(value, dict):
        return alone(value, field)
    value = {key: small(each, key) for key, each in value.items()}
    name = value.get("name")
    if name in SIZED:
        value[SIZED[name]] = [1, 1] if name == "ddpmpp" else [8, 8]
        value |= {"groups": 4} if name != "ddpmpp" else {}
        value |= {"attention": [1]} if "attention" in value else {}
    if name == "dit":
        value = {"name": "dit", "depth": 2, "width": 16, "heads": 2, "patch": 2}
    value = UNSAID.get(name, {}) | value
    if "width" in value:
        value["width"] = 16
    if "scale" in value:
        value["scale"] = 1.5
    if name == "fid":
        value["name"] = "fd"
    if name == "fid" or value.get("space") == "inception":
        value["space"] = {"name": "pca", "dims": 4}
    if name == "diffusion_classifier":
        value |= {"samples": [2, 4], "keep": [2, 1]}
    if name == "kid":
        value["subset_size"] = 8
    return value


def alone(value: Any, field: str) -> Any:
    """A number or a word."""
    if value == "pca" and field == "space":
        return {"name": "pca", "dims": 4}
    if value == "classifier" and field == "space":
        return CLASSIFIER
    if value == "prdc" and field == "metrics":
        return {"name": "prdc", "space": CLASSIFIER}
    most = LARGEST.get(field)
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return min(value, most) if numeric and most is not None else value


def pictures(folder: Path) -> Path:
    """An image folder of 16x16 pixels with three classes."""
    root = folder / "pictures"
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in range(3):
            here = root / split / str(label)
            here.mkdir(parents=True, exist_ok=True)
            for number in range(8):
                pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(here / f"{number}.png")
    return root


def autoencoder(folder: Path) -> Path:
    """Random weights of an autoencoder that halves sides, in the format of the hub."""
    from test_latents import made_kl

    where = folder / "autoencoder"
    return where if where.exists() else made_kl(where)
