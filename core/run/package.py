"""An arm as a folder from which images can be drawn anywhere: no store, data set or run is needed.

    arm.json                       what is drawn and how, as components
    model.safetensors              the averaged weights
    sibling-0/model.safetensors    a worse network, for each entry of the guidance that asks for one
    conditions.safetensors         one condition per training image, and the prior's bank
    plugins/*.py                   the plugins in single files that the run used
    recipe.resolved.yaml, README.md    for people

Weights that a component brings from elsewhere (a folder, a hub) stay there.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import ValidationError
from torch import Tensor

from fw.core.diffusion.given import given
from fw.core.errors import FwError
from fw.core.execution.devices import checked_device
from fw.core.files.durable import write_json, write_text
from fw.core.files.layout import MODEL
from fw.core.job import Job
from fw.core.kinds import Autoencoder, Backbone, Process, Sampler, Steering
from fw.core.machine.isolation import stock_state
from fw.core.machine.precision import Precision
from fw.core.plan.graph import ArmPlan
from fw.core.recipe.model import Recipe
from fw.core.report.environment import versions
from fw.core.report.runfile import RESOLVED
from fw.core.run.card import card
from fw.core.settings import Samples, Section, Train
from fw.core.stages.base import Products, Stage
from fw.core.stages.data import ImageStage
from fw.core.stages.latents import EncodeLatents
from fw.core.stages.sample import Sample
from fw.core.stages.train import TrainDenoiser
from fw.core.store.store import Store
from fw.core.types import Annotation, ImageSet, Split
from fw.registry import LocalPlugin, UnfitPlugin, add_files, installed

CONTENTS = "arm.json"
CONDITIONS = "conditions.safetensors"
CARD = "README.md"


class Contents(Section):
    """What arm.json says."""

    recipe: str
    arm: str
    seed: int
    shape: tuple[int, int, int]
    precision: Precision
    model: Backbone
    process: Process
    sampler: Sampler
    guidance: tuple[Steering, ...] = ()
    siblings: tuple[Backbone | None, ...] = ()
    latents: Autoencoder | None = None
    requirements: tuple[str, ...] = ()
    """What has to be installed, as pip names it."""


def pack(
    recipe: Recipe,
    name: str,
    arm: ArmPlan,
    store: Store,
    run: Path,
    folder: Path,
    scores: Mapping[str, float],
) -> None:
    """Write an arm of the run in the folder `run` to a new folder; Damaged if its products are."""
    sample = arm.drawn
    contents = Contents(
        recipe=recipe.name,
        arm=name,
        seed=sample.seed or 0,
        shape=sample.shape,
        precision=sample.precision,
        model=sample.model,
        process=sample.process,
        sampler=sample.sampler,
        guidance=sample.guidance,
        siblings=tuple(None if each is None else each.model for each in sample.siblings),
        latents=sample.latents,
        requirements=tuple(requirements(sample)),
    )

    def products(stage: Stage) -> Path:
        return store.product(stage.id)

    folder.mkdir(parents=True)
    link(products(sample.weights) / MODEL, folder / MODEL)
    worse = itertools.zip_longest(sample.siblings, sample.sibling_averages)
    for place, (sibling, average) in enumerate(worse):
        if sibling is not None:
            link(products(average or sibling) / MODEL, folder / f"sibling-{place}" / MODEL)
    annotation = sample.annotation(products)
    if annotation is not None:
        annotation.save(folder / CONDITIONS)
    for file in [run / RESOLVED, *sorted(run.glob("plugins/*.py"))]:
        if file.exists():
            link(file, folder / file.relative_to(run))
    write_json(folder / CONTENTS, contents.model_dump(mode="json"))
    write_text(folder / CARD, card(recipe, name, arm, annotation, scores))


def requirements(sample: Sample) -> list[str]:
    """fw, what decides results, and the distributions of plugins that are used, as pip names
    them."""
    stages = [sample, sample.train, *(each for each in sample.siblings if each is not None)]
    components = {type(component) for stage in stages for component in stage.components}
    found = {installed().provider(component) for component in components}
    brought = {
        provider.distribution: provider.version
        for provider in found
        if provider is not None and provider.text is None and provider.version != "?"
    }
    return [f"{name}=={version}" for name, version in {**versions(), **brought}.items()]


def link(source: Path, target: Path) -> None:
    """The same file in another place, or a copy where there are no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@dataclass(frozen=True)
class Packed:
    """An arm that was read back from such a folder."""

    folder: Path
    contents: Contents

    @staticmethod
    def read(folder: Path) -> Packed:
        """FwError if this is none, or names components that are not installed."""
        load_plugins(folder)
        try:
            text = (folder / CONTENTS).read_text(encoding="utf-8")
            return Packed(folder, Contents.model_validate_json(text))
        except (OSError, ValidationError) as error:
            reason = " ".join(str(error).split())
            raise FwError(f"{folder}: it cannot be read as an arm of fw: {reason}") from None

    def draw(
        self,
        count: int,
        seed: int = 0,
        condition: int | None = None,
        device: str = "auto",
        batch: int | None = None,
    ) -> Tensor:
        """The first `count` images of a sampling seed, uint8 (count, C, H, W), as `fw sample` draws
        them. `condition` is a class, or the number of a training image whose condition is taken;
        None draws conditions as the arm does."""
        where = torch.device(checked_device(device))
        sample, folders = self.stages()
        with stock_state(self.contents.seed, where, torch.get_num_threads()):
            known = self.annotation()
            networks = sample.networks(known, folders.__getitem__, where)
            wanted = known if condition is None else given(known, condition)
            to_images = sample.decoder(where)
            return torch.cat(
                sample.drawn(networks, wanted, seed, range(count), to_images, where, batch)
            )

    def annotation(self) -> Annotation | None:
        path = self.folder / CONDITIONS
        return Annotation.load(path) if path.exists() else None

    def stages(self) -> tuple[Sample, Mapping[Stage, Path]]:
        """The stage that draws, and where the weights lie that it reads."""
        it = self.contents
        images = Unseen(it.shape)
        latents = None if it.latents is None else EncodeLatents(images, it.latents, False)

        def trained(model: Backbone | None) -> TrainDenoiser | None:
            if model is None:
                return None
            return TrainDenoiser(images, model, it.process, Train(), latents=latents)

        train, siblings = trained(it.model), tuple(map(trained, it.siblings))
        assert train is not None
        sample = Sample(
            images,
            it.model,
            it.process,
            it.sampler,
            it.guidance,
            Samples(),
            it.precision,
            train,
            latents=it.latents,
            siblings=siblings,
            arm=it.arm,
            seed=it.seed,
        )
        folders: dict[Stage, Path] = {
            sibling: self.folder / f"sibling-{place}"
            for place, sibling in enumerate(siblings)
            if sibling is not None
        }
        return sample, {**folders, train: self.folder}


@dataclass(frozen=True, eq=False)
class Unseen(ImageStage):
    """The images that an arm was trained on, which a package does not have: only their shape."""

    kind: ClassVar[str] = "images"
    files: ClassVar[tuple[str, ...]] = ()

    sizes: tuple[int, int, int]

    @property
    def label(self) -> str:
        return "elsewhere"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.sizes

    @property
    def classes(self) -> int:
        return 0

    def run(self, job: Job, products: Products) -> None:
        raise FwError("these images are not here")

    def images(self, split: Split, products: Products) -> ImageSet:
        raise FwError("these images are not here")


def load_plugins(folder: Path) -> None:
    """Add the package's own plugins to those that are installed."""
    try:
        brought = [LocalPlugin.read(path) for path in sorted(folder.glob("plugins/*.py"))]
        known = {plugin.digest for plugin in installed().files}
        if new := [plugin for plugin in brought if plugin.digest not in known]:
            add_files(installed(), new)
    except UnfitPlugin as error:
        raise FwError(f"{folder}: {error}") from None
