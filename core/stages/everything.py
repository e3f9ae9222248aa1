"""What each stage does: read its inputs, run its components, write its product into the job's folder.

encode    features.safetensors, encoder.safetensors, quality.json
annotate  annotation.safetensors, quality.json
prior     bank.safetensors, quality.json
latents   latents-START.safetensors, quality.json
train     model.safetensors (EMA weights), log.jsonl; with an online annotator also what annotate makes
sample    samples-SEED-START.safetensors (uint8), info.json
evaluate  scores.json
probe     scores.json
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fw.core.diffusion.denoiser import Denoiser
from fw.core.diffusion.generate import batch_size, conditions, diffused_shape, generate
from fw.core.diffusion.latents import Codec, Latents
from fw.core.diffusion.pixels import to_uint8
from fw.core.features.quality import cluster_quality, difference, utilisation
from fw.core.features.reading import asked, held_out, read
from fw.core.job import Job
from fw.core.kinds import Annotator, Backbone, Dataset, Encoder, Metric, Objective, Online, Prior, Probe
from fw.core.kinds.boundaries import (
    checked_annotation,
    checked_conditions,
    checked_features,
    checked_found,
    checked_images,
    checked_network,
    checked_scores,
)
from fw.core.learning.objectives import Objectives
from fw.core.learning.online import Finder
from fw.core.learning.train import train
from fw.core.settings import Samples
from fw.core.stages.roles import sibling_role, target_role
from fw.core.types import Annotation, Examples, ImageSet, Observations, Reference, Split

Inputs = Mapping[str, Path]
Needs = Mapping[str, Any]

ANNOTATION = "annotation.safetensors"
INFO = "info.json"

NOTICED = 0.01
"""Priors that redistribute less than this share of the conditions do next to nothing."""

SHARD = 1000
"""Images in one file of samples: what a cut-off sampling loses at most."""


def encode_stage(needs: Needs, inputs: Inputs, job: Job) -> None:
    dataset: Dataset = needs["dataset"]
    encoder: Encoder = needs["encoder"]
    splits = {"train": load_split(dataset, "train"), "test": load_split(dataset, "test")}
    visible = splits["train"] if encoder.uses_labels else splits["train"].without_labels()
    network = new_encoder(encoder, dataset, job)
    encoder.fit(network, visible, job)
    network.eval()
    features = {name: encode(encoder, network, split.images, job) for name, split in splits.items()}
    save_file(features, job.folder / "features.safetensors")
    save_file(state_of(network), job.folder / "encoder.safetensors")
    write_json(job.folder / "quality.json", encoder.quality(network, splits["test"]))


def annotate_stage(needs: Needs, inputs: Inputs, job: Job) -> None:
    data = load_split(needs["dataset"], "train")
    annotator: Annotator = needs["annotator"]
    seen = Observations(
        count=len(data),
        features=load_file(inputs["encode"] / "features.safetensors")["train"] if "encode" in inputs else None,
        labels=data.labels if annotator.uses_labels else None,
        classes=data.classes if annotator.uses_labels else 0,
    )
    annotation = checked_annotation(annotator, annotator.annotate(seen, job), len(data))
    annotation.save(job.folder / ANNOTATION)
    grouped = annotation.spec.form == "class"
    known = annotation.known
    labels = data.labels[known] if data.labels is not None else None
    quality = group_quality(annotation.conditions[known], annotation.spec.size, labels) if grouped else {}
    write_json(job.folder / "quality.json", quality)


def prior_stage(needs: Needs, inputs: Inputs, job: Job) -> None:
    prior: Prior = needs["prior"]
    annotation = Annotation.load(inputs["annotate"] / ANNOTATION)
    annotation = replace(annotation, conditions=annotation.conditions[annotation.known])
    bank = checked_conditions(prior, annotation.spec, prior.bank(annotation, job), "bank")
    drawn = annotation.conditions if annotation.bank is None else annotation.bank
    if (apart := difference(bank, drawn)) is not None and apart < NOTICED:
        job.warn(
            f"prior {prior.name} draws conditions as often as they are drawn without it, but for {apart:.1%}: arms "
            "with and without it can hardly differ"
        )
    save_file({"bank": bank.contiguous()}, job.folder / "bank.safetensors")
    write_json(job.folder / "quality.json", prior.quality(bank, annotation))


def latents_stage(needs: Needs, inputs: Inputs, job: Job) -> None:
    images = load_split(needs["dataset"], "train").images
    codec = Codec(needs["latents"], needs["dataset"].shape, job.device)
    codec.encode_split(images, needs["flip"], job)
    write_json(job.folder / "quality.json", codec.quality(load_split(needs["dataset"], "test").images))


def train_stage(needs: Needs, inputs: Inputs, job: Job) -> None:
    annotator: Online | None = needs.get("annotator")
    online = None if annotator is None else Finder(annotator)
    objectives: Sequence[Objective] = needs.get("objectives", ())
    terms = Objectives(objectives, load_targets(objectives, inputs))
    averaged = train(
        needs["model"],
        needs["process"],
        load_training(needs, inputs),
        load_annotation(inputs),
        needs["train"],
        job,
        [terms] if online is None else [online, terms],
    )
    save_file(state_of(averaged), job.folder / "model.safetensors")
    if online is not None:
        data = load_split(needs["dataset"], "train")
        annotation, groups = online.annotation(len(data))
        checked_annotation(online.annotator, annotation, len(data)).save(job.folder / ANNOTATION)
        quality = group_quality(groups, len(online.prototypes), data.labels)
        write_json(job.folder / "quality.json", quality)


def sample_stage(needs: Needs, inputs: Inputs, job: Job) -> None:
    from fw.core.stages.grid import save_grid

    annotation = load_annotation(inputs)
    model = load_denoiser(needs, inputs, annotation, job.device)
    siblings = load_siblings(needs, inputs, annotation, job.device)
    networks = [model, *filter(None, siblings)]
    to_images = load_decoder(needs, job.device)
    settings: Samples = needs["samples"]
    for seed, wanted in job.track(list(shards(settings)), "sample"):
        name = shard_name(seed, wanted)
        if job.kept(name) is None or job.kept(INFO) is None:
            before = sum(network.evaluations for network in networks)
            batches = list(generate(model, siblings, needs, annotation, seed, wanted, to_images))
            evaluations = sum(network.evaluations for network in networks) - before
            nfe = {"nfe": evaluations // len(batches)}
            job.keep(INFO, methodcaller("write_text", json.dumps(nfe, indent=1), encoding="utf-8"))
            job.keep(name, partial(save_file, {"images": torch.cat(batches)}))
    save_grid(load_samples(job.folder, settings)[0][:64], job.folder / "grid.png")


def evaluate_stage(needs: Needs, inputs: Inputs, job: Job) -> None:
    metric: Metric = needs["metric"]
    features = load_file(inputs["space"] / "features.safetensors")
    annotation = load_annotation(inputs)  # only a metric that reads conditions has one among its inputs
    classes, of_held_out = judged_classes(annotation, needs["dataset"]) if annotation else (None, None)
    reference = Reference(features["train"], features["test"], classes)
    network = load_encoder(needs, inputs["space"], job)
    scores: dict[str, list[float]] = {key: [] for key in metric.keys}
    for seed, images in enumerate(load_samples(inputs["sample"], needs["samples"])):
        told = replace(reference, asked=conditions(annotation, needs.get("seed", 0), seed, range(len(images))))
        features_of_samples = encode(metric.space, network, images, job)
        for key, value in checked_scores(metric, metric.compare(told, features_of_samples)).items():
            scores[key].append(value)
    floor: Mapping[str, float] = {}
    if annotation is None or of_held_out is not None:
        floor = checked_scores(metric, metric.compare(replace(reference, asked=of_held_out), reference.held_out))
    counts = {"train": len(reference.train), "held_out": len(reference.held_out)}
    write_json(job.folder / "scores.json", {"scores": scores, "floor": floor, "real": counts})


def judged_classes(annotation: Annotation, dataset: Dataset) -> tuple[Tensor, Tensor | None]:
    """The classes of the training images (N,), of labels also those that the model is not told, and of held-out ones.

    Held-out images are in no cluster.
    """
    train = load_split(dataset, "train")
    if train.labels is None or not are_labels(annotation, train):
        return annotation.conditions, None
    return train.labels, load_split(dataset, "test").labels


def probe_stage(needs: Needs, inputs: Inputs, job: Job) -> None:
    probe: Probe = needs["probe"]
    splits = {"train": load_split(needs["dataset"], "train"), "test": load_split(needs["dataset"], "test")}
    annotation, told = load_annotation(inputs), None
    if probe.of == "encoder":
        features = load_file(inputs["encode"] / "features.safetensors")
    else:
        model = load_denoiser(needs, inputs, annotation, job.device)
        codec = Codec(needs["latents"], needs["dataset"].shape, job.device) if "latents" in needs else None
        if probe.reads == "errors":
            assert annotation is not None
            told = asked(model, annotation.spec.size)
            features = {"train": annotation.conditions, "test": held_out(splits["test"].images, codec, job)}
        else:
            features = {
                name: read(probe, model, split.images, f"read {name}", codec, job) for name, split in splits.items()
            }
    named = annotation is not None and needs.get("taught", False) and are_labels(annotation, splits["train"])
    train, test = (
        Examples(features[name], split.labels, split.classes, named, told)
        if "labels" in probe.requires
        else Examples(features[name], named=named, told=told)
        for name, split in splits.items()
    )
    scores = checked_found(probe, probe.score(train, test, job))
    counts = {"train": len(train), "held_out": len(test)}
    write_json(job.folder / "scores.json", {"scores": dict(scores), "real": counts})


STAGES: Mapping[str, Callable[[Needs, Inputs, Job], None]] = {
    "encode": encode_stage,
    "annotate": annotate_stage,
    "prior": prior_stage,
    "latents": latents_stage,
    "train": train_stage,
    "sample": sample_stage,
    "evaluate": evaluate_stage,
    "probe": probe_stage,
}


def load_split(dataset: Dataset, split: Split) -> ImageSet:
    return checked_images(dataset, dataset.load(split), split)


def load_training(needs: Needs, inputs: Inputs) -> ImageSet | Latents:
    """What a denoiser is trained on."""
    if "latents" in inputs:
        return Latents.load(inputs["latents"])
    return load_split(needs["dataset"], "train").without_labels()


def load_targets(objectives: Sequence[Objective], inputs: Inputs) -> list[Tensor | None]:
    """The features (N, F) of the training images that each objective asked for."""
    folders = [inputs.get(target_role(number)) for number in range(len(objectives))]
    return [load_file(folder / "features.safetensors")["train"] if folder else None for folder in folders]


def group_quality(groups: Tensor, count: int, labels: Tensor | None) -> dict[str, float]:
    """Scores of groups (N,) of the training images, of which there are `count`; true labels only score."""
    agreement = cluster_quality(groups, labels) if labels is not None else {}
    return utilisation(groups, count) | agreement


def are_labels(annotation: Annotation, data: ImageSet) -> bool:
    """Whether the classes of an annotation are the true labels, as far as they are known."""
    if data.labels is None or annotation.spec.form != "class" or annotation.spec.size != data.classes:
        return False
    known = annotation.known
    return torch.equal(annotation.conditions[known], data.labels[known])


def load_decoder(needs: Needs, device: torch.device) -> Callable[[Tensor], Tensor]:
    """What makes uint8 images of samples: the autoencoder of a sample stage, or rounding where there is none."""
    return Codec(needs["latents"], needs["dataset"].shape, device).decode if "latents" in needs else to_uint8


def new_encoder(encoder: Encoder, dataset: Dataset, job: Job) -> nn.Module:
    """An unfitted encoder whose initial weights depend only on the job's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        network = encoder.build(dataset.shape, dataset.classes if encoder.uses_labels else 0)
    return network.to(job.device)


def load_encoder(needs: Needs, folder: Path, job: Job) -> nn.Module:
    """The fitted encoder of a metric's space."""
    encoder: Encoder = needs["metric"].space
    network = new_encoder(encoder, needs["dataset"], job)
    network.load_state_dict(load_file(folder / "encoder.safetensors"))
    return network.eval()


@torch.inference_mode()
def encode(encoder: Encoder, network: nn.Module, images: Tensor, job: Job) -> Tensor:
    """uint8 images (N, C, H, W) to float32 features (N, D) on the CPU."""
    batches = images.split(batch_size((*images.shape[1:],), job.device))
    features = [
        checked_features(encoder, network(batch.to(job.device)), len(batch)).cpu()
        for batch in job.track(batches, "encode")
    ]
    return torch.cat(features).contiguous()


def load_annotation(inputs: Inputs) -> Annotation | None:
    """The conditions of an arm, with the bank of its prior if it has one."""
    if "annotate" not in inputs:
        return None
    annotation = Annotation.load(inputs["annotate"] / ANNOTATION)
    if "prior" not in inputs:
        return annotation
    return replace(annotation, bank=load_file(inputs["prior"] / "bank.safetensors")["bank"])


def load_denoiser(needs: Needs, inputs: Inputs, annotation: Annotation | None, device: torch.device) -> Denoiser:
    """The trained denoiser of a sample stage, with its averaged weights."""
    backbone: Backbone = needs["model"]
    network = checked_network(backbone, backbone.build(diffused_shape(needs), annotation.spec if annotation else None))
    network.load_state_dict(load_file(inputs["train"] / "model.safetensors"))
    return Denoiser(network.to(device).eval(), needs["process"], bf16=needs["precision"] == "bf16")


def load_siblings(
    needs: Needs, inputs: Inputs, annotation: Annotation | None, device: torch.device
) -> list[Denoiser | None]:
    """For each guidance mode the trained denoiser that it asked for, or None."""
    return [
        model and load_denoiser({**needs, "model": model}, {"train": inputs[sibling_role(number)]}, annotation, device)
        for number, model in enumerate(needs.get("siblings", ()))
    ]


def shards(samples: Samples) -> Iterator[tuple[int, range]]:
    """The sampling seeds and the images of one file each; the same on every device, so that any can continue."""
    for seed in range(samples.seeds):
        for start in range(0, samples.count, SHARD):
            yield seed, range(start, min(start + SHARD, samples.count))


def shard_name(seed: int, wanted: range) -> str:
    return f"samples-{seed:03d}-{wanted.start:07d}.safetensors"


def load_samples(folder: Path, samples: Samples) -> list[Tensor]:
    """The samples of each sampling seed, uint8 (count, C, H, W)."""
    by_seed: list[list[Tensor]] = [[] for _ in range(samples.seeds)]
    for seed, wanted in shards(samples):
        by_seed[seed].append(load_file(folder / shard_name(seed, wanted))["images"])
    return [torch.cat(parts) for parts in by_seed]


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")
