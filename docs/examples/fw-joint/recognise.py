"""What the trained joint models of a run recognise, and whether their samples are what was asked for.

python recognise.py runs/joint/latest
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from fw.core.diffusion import Denoiser, to_unit
from fw.core.generate import conditions
from fw.core.job import Job
from fw.core.loading import load
from fw.core.plan import Plan, plan
from fw.core.randomness import generator
from fw.core.recipe import Recipe
from fw.core.stages import load_annotation, load_denoiser, load_encoder, load_samples

SIGMAS = (0.1, 0.5, 1.0, 2.0, 5.0)


def main(folder: Path) -> None:
    recipe = load(folder / "recipe.resolved.yaml")
    stages = plan(recipe)
    store = folder.resolve().parents[1] / "store"
    print("share of held-out images recognised, by noise level; share of samples that are the class asked for")
    print(f"{'arm':12}", *(f"{sigma:>6}" for sigma in SIGMAS), "  obeyed")
    for name, arm in stages.arms.items():
        if arm.arm.annotator is not None:
            shares = [*recognised(recipe, stages, name, store), obeyed(recipe, stages, name, store)]
            print(f"{name:12}", *(f"{share:6.3f}" for share in shares))


def recognised(recipe: Recipe, stages: Plan, arm: str, store: Path) -> list[float]:
    """The share of held-out images whose digit is recognised in noise; a cluster counts as its most frequent digit."""
    model, digits = trained(recipe, stages, arm, store)
    data = recipe.dataset.load("test")
    assert data.labels is not None
    x0 = to_unit(data.images)
    noise = torch.randn(x0.shape, generator=generator("recognise"))
    shares = []
    for sigma in SIGMAS:
        with torch.inference_mode():
            classes = model.logits(x0 + sigma * noise, sigma).argmax(dim=1)
        shares.append(float((digits[classes] == data.labels).float().mean()))
    return shares


def obeyed(recipe: Recipe, stages: Plan, arm: str, store: Path) -> float:
    """The share of samples in which the evaluator's classifier, trained on labels, sees the digit asked for."""
    stage = stages.stages[stages.arms[arm].sample]
    annotation = load_annotation({kind: store / key for kind, key in stage.inputs.items()})
    _, digits = trained(recipe, stages, arm, store)
    judged = (stages.stages[each] for each in stages.arms[arm].evaluate)
    judge = next(each for each in judged if each.needs["metric"].space.name == "classifier")
    network = load_encoder(judge.needs, store / judge.inputs["space"], Job(store))
    shares = []
    for seed, images in enumerate(load_samples(store / stage.id, recipe.samples)):
        asked = conditions(annotation, recipe.seed, seed, range(len(images)))
        with torch.inference_mode():
            seen = network.logits(images).argmax(dim=1)  # type: ignore[operator]
        shares.append(float((digits[asked] == seen).float().mean()))
    return sum(shares) / len(shares)


def trained(recipe: Recipe, stages: Plan, arm: str, store: Path) -> tuple[Denoiser, Tensor]:
    """The denoiser of an arm, and for each of its classes the digit that most of its training images show."""
    stage = stages.stages[stages.arms[arm].sample]
    inputs = {kind: store / key for kind, key in stage.inputs.items()}
    annotation = load_annotation(inputs)
    assert annotation is not None
    data = recipe.dataset.load("train")
    assert data.labels is not None
    counts = torch.zeros(annotation.spec.size, data.classes)
    counts.index_put_((annotation.conditions, data.labels), torch.ones(()), accumulate=True)
    return load_denoiser(stage.needs, inputs, annotation, torch.device("cpu")), counts.argmax(dim=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
