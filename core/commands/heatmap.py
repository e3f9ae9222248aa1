"""`fw heatmap`: what each block of an arm's trained model knows at each noise level, by a linear
probe with labels.

Controls: the same network before it was trained, and the raw pixels. The best cell is chosen on a
validation split of the training images; what is reported of it is from held-out images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from fw.core.commands.target import check_target
from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.generate import batch_size
from fw.core.diffusion.latents import Codec
from fw.core.diffusion.pixels import to_unit
from fw.core.diffusion.taps import blocks_of
from fw.core.errors import FwError
from fw.core.execution.devices import checked_device
from fw.core.features.activations import LEVELS, noise_of, read, split
from fw.core.features.logistic import accuracy_of, linear_probe
from fw.core.files.strict import strict
from fw.core.job import Job
from fw.core.learning.train import initial_network
from fw.core.machine.isolation import stock_state
from fw.core.messages.console import say
from fw.core.messages.plain import writing
from fw.core.plan.assembly import plan
from fw.core.randomness import generator
from fw.core.recipe.arm import Arm
from fw.core.recipe.model import Recipe
from fw.core.report import provenance
from fw.core.report.figures import save_heat_map
from fw.core.run.board import bars
from fw.core.run.calls import End, EndArm, Files, portable
from fw.core.run.finished import FinishedRun
from fw.core.run.journal import Journal
from fw.core.run.opening import opened
from fw.core.run.owner import owner
from fw.core.run.record import Turn
from fw.core.run.sync import sync
from fw.core.run.telling import in_words
from fw.core.stages.conditions import load_annotation
from fw.core.stages.data import load_split
from fw.core.types import SPLITS, ImageSet


class Request(NamedTuple):
    """What the command was asked for. No `training` is the first one, and no `sigmas` are the usual
    ones."""

    arm: str
    sigmas: Sequence[float] = ()
    images: int = 5000
    draws: int = 4
    device: str = "auto"
    training: int | None = None


class Split(NamedTuple):
    """uint8 images (N, C, H, W), the same in the units of the diffusion (N, C, h, w), and their
    labels (N,)."""

    images: Tensor
    x0: Tensor
    labels: Tensor


def levels(text: str) -> tuple[float, ...]:
    """The numbers in `0.05,0.5`."""
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < sigma < math.inf for sigma in found):
        raise FwError(
            f"--sigmas {text}: noise levels above 0 with commas between them, such as --sigmas "
            "0.05,0.5"
        )
    return found


def target(run: FinishedRun, asked: Request, output: Path | None) -> Path:
    """The PNG to write, if it can be."""
    run.check()
    if output is None:
        which = "" if asked.training is None else f"-{asked.training}"
        return run.path / f"heatmap-{asked.arm}{which}.png"
    check_target(output)
    return output


def survey(run: FinishedRun, asked: Request, console: Console) -> dict[str, Any]:
    """What `fw heatmap` answers, as JSON: rows are blocks, columns noise levels, from the most
    noise to the least."""
    where = torch.device(checked_device(asked.device))
    arm = run.arm(asked.arm, asked.training)
    recipe, stage = arm.recipe, arm.sample.train
    sigmas = chosen_levels(arm.arm, asked)
    made_conditions, weights = stage.conditions, arm.sample.weights
    arm.check(filter(None, [stage, weights, made_conditions]), console)
    splits: dict[str, ImageSet] = {
        name: subset(load_split(recipe.dataset, name, arm.products), name, asked.images)
        for name in SPLITS
    }
    job = Job(run.path, seed=recipe.seed, device=where)
    with stock_state(recipe.seed, where, torch.get_num_threads()):
        annotation = load_annotation(made_conditions, None, arm.products)
        trained = stage.denoiser(arm.products(weights), annotation, where)
        spec = annotation.spec if annotation else None
        fresh = initial_network(stage.model, stage.shape, spec, job).eval()
        networks = {
            "trained": trained,
            "untrained": NetworkDenoiser(fresh, trained.process, bf16=trained.bf16),
        }
        blocks = list(blocks_of(trained.network))
        if not blocks:
            raise FwError(
                f"--arm {asked.arm}: backbone '{stage.model.name}' names no blocks to read"
            )
        diffused = {
            name: Split(data.images, encoded(recipe, data, where), labels_of(data))
            for name, data in splits.items()
        }
        fitted, held = split(len(splits["train"]), generator(recipe.seed, "heatmap", "validation"))
        with bars(console) as bar:
            maps = {
                name: probed(name, model, diffused, asked.draws, sigmas, blocks, fitted, held, bar)
                for name, model in networks.items()
            }
        pixels = {name: to_unit(data.images).flatten(1) for name, data in splits.items()}
        raw = scores(pixels, {name: data.labels for name, data in diffused.items()}, fitted, held)
    answer = {
        "recipe": recipe.name,
        "arm": asked.arm,
        "training": recipe.seed,
        "images": {"fitted": len(fitted), "validation": len(held), "held_out": len(splits["test"])},
        "draws": asked.draws,
        "blocks": blocks,
        "sigmas": sigmas,
        "log_snr": [2 * math.log(1 / sigma) for sigma in sigmas],
        **maps,
        "pixels": raw,
    }
    return {**answer, "best": best(answer)}


def chosen_levels(arm: Arm, asked: Request) -> list[float]:
    """The noise levels from the largest to the smallest, if the arm's model was trained at them;
    or FwError."""
    if not arm.works_without_condition:
        raise FwError(
            f"--arm {asked.arm}: its model never saw the null condition (train.cond_drop is 0)"
        )
    least, most = arm.process.sigma_range
    inside = [sigma for sigma in LEVELS if least <= sigma <= most]
    for sigma in asked.sigmas:
        if not least <= sigma <= most:
            raise FwError(
                f"--sigmas {sigma:g}: the model was trained at noise levels from {least:g} to "
                f"{most:g}"
            )
    return sorted(set(asked.sigmas or inside), reverse=True)


def subset(data: ImageSet, name: str, count: int) -> ImageSet:
    """At most `count` random images of a split, with their labels; the same ones every time."""
    if data.labels is None:
        raise FwError("a heat map needs a dataset with labels, which say what the model knows")
    rows = torch.randperm(len(data), generator=generator(0, "heatmap", name))[:count]
    return ImageSet(data.images[rows], data.labels[rows], data.classes)


def labels_of(data: ImageSet) -> Tensor:
    assert data.labels is not None
    return data.labels


def encoded(recipe: Recipe, data: ImageSet, device: torch.device) -> Tensor:
    """The images as the model sees them: in -1..1, or their latents."""
    if recipe.latents is None:
        return to_unit(data.images)
    codec = Codec(recipe.latents, data.shape, device)
    return torch.cat([codec.encode(batch).mean for batch in data.images.split(codec.size)])


def probed(
    name: str,
    model: NetworkDenoiser,
    data: Mapping[str, Split],
    draws: int,
    sigmas: Sequence[float],
    blocks: Sequence[str],
    fitted: Tensor,
    held: Tensor,
    bar: Progress,
) -> dict[str, list[list[float]]]:
    """The scores of each block (rows) at each noise level (columns)."""
    task = bar.add_task(
        f"{name}, images", total=len(sigmas) * sum(len(part.x0) for part in data.values())
    )
    found: dict[str, list[list[float]]] = {
        "validation": [[] for _ in blocks],
        "held_out": [[] for _ in blocks],
    }
    labels = {split: part.labels for split, part in data.items()}
    for sigma in sigmas:
        features = {
            split: features_of(
                model, part, draws, sigma, blocks, lambda count: bar.advance(task, count)
            )
            for split, part in data.items()
        }
        for row, block in enumerate(blocks):
            cell = scores(
                {split: part[block] for split, part in features.items()}, labels, fitted, held
            )
            for what, value in cell.items():
                found[what][row].append(value)
    return found


def features_of(
    model: NetworkDenoiser,
    data: Split,
    draws: int,
    sigma: float,
    blocks: Sequence[str],
    done: Callable[[int], None],
) -> dict[str, Tensor]:
    """By block (N, D), on the CPU; all blocks in one pass."""
    device = next(model.network.parameters()).device
    parts: dict[str, list[Tensor]] = {block: [] for block in blocks}
    shape = data.x0.shape[1], data.x0.shape[2], data.x0.shape[3]
    size = batch_size(shape, device)
    for images, x0 in zip(data.images.split(size), data.x0.split(size), strict=True):
        noise = noise_of(images, draws, shape).to(device)
        for block, vectors in read(model, x0.to(device), noise, sigma, blocks).items():
            parts[block].append(vectors.cpu())
        done(len(images))
    return {block: torch.cat(vectors) for block, vectors in parts.items()}


def scores(
    features: Mapping[str, Tensor], labels: Mapping[str, Tensor], fitted: Tensor, held: Tensor
) -> dict[str, float]:
    """Accuracy of one probe of features (N, D) by split, on the validation split and on held-out
    images."""
    train, known = features["train"], labels["train"]
    probe = linear_probe(train[fitted], known[fitted])
    return {
        "validation": accuracy_of(probe, train[held], known[held]),
        "held_out": accuracy_of(probe, features["test"], labels["test"]),
    }


def best(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The cell that does best on the validation split; of equals the one with less noise."""
    validation = answer["trained"]["validation"]
    cells = [
        (column, row)
        for column in reversed(range(len(answer["sigmas"])))
        for row in range(len(validation))
    ]
    column, row = max(cells, key=lambda cell: validation[cell[1]][cell[0]])
    return {
        "block": answer["blocks"][row],
        "sigma": answer["sigmas"][column],
        "validation": validation[row][column],
        "held_out": answer["trained"]["held_out"][row][column],
        "untrained": answer["untrained"]["held_out"][row][column],
    }


def write(answer: Mapping[str, Any], output: Path) -> list[Path]:
    """The figure, and what it shows as JSON beside it."""
    numbers = output.with_suffix(".json")
    with writing(output, "-o"):
        save_heat_map(answer, output)
        numbers.write_text(strict(answer), encoding="utf-8")
    return [output, numbers]


def verdict(answer: Mapping[str, Any]) -> str:
    cell = answer["best"]
    return (
        f"best on the validation split: {cell['block']} at sigma {cell['sigma']:g}; held out "
        f"{cell['held_out']:.1%}, "
        f"untrained {cell['untrained']:.1%}, raw pixels {answer['pixels']['held_out']:.1%}"
    )


def log(run: FinishedRun, answer: Mapping[str, Any], output: Path, console: Console) -> None:
    """Show the figure in the arm's run of the recipe's tracker, if it has one; a failure is only
    told, and `fw sync` makes up for it."""
    try:
        recipe = run.recipe()
        if recipe.tracker is None:
            return
        folder, states = run.folder.resolve(), run.record()["arms"]
        ends = {name: arm["status"] for name, arm in states.items() if arm["status"] != "pending"}
        made_by = provenance.record(plan(recipe))
        about = opened(recipe, plan(recipe, list(ends)), made_by, folder)
        paths = [
            portable(path, folder.parents[1]) for path in (output, output.with_suffix(".json"))
        ]
        journal = Journal(folder)
        with Turn(folder) as turn:
            if not turn.take():
                raise FwError(f"{owner(folder)} writes this run's record")
            turn.ended = True
            journal.begin()
            for call in (
                about,
                Files(answer["arm"], paths),
                *(EndArm(name, status) for name, status in ends.items()),
                End("failed" if "failed" in ends.values() else "finished"),
            ):
                journal.add(call)
        sync(folder, console)
    except Exception as error:
        told = in_words(error)
        say(console, f"warning: the tracker did not take the heat map: {told}", style="yellow")
