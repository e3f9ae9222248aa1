"""What components hand to fw is checked once, where it crosses over; a fault is one sentence.

A wrong shape would broadcast, and a NaN would turn into black pixels. Both end the stage instead.
The contract kit (`fw.core.testing`) checks the same before a run does.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fw.core.errors import StageFailed
from fw.core.kinds import (
    Annotator,
    Autoencoder,
    Backbone,
    Code,
    Dataset,
    Guidance,
    Metric,
    Objective,
    Probe,
    Rule,
    Sampler,
    Steering,
)
from fw.core.machine.tables import all_finite
from fw.core.types import Annotation, ConditionSpec, ImageSet
from fw.registry import Component
from fw.registry.errors import shortened


def refuse(component: Component, reason: str) -> StageFailed:
    return StageFailed(f"{component.kind} {component.name}: {shortened(reason)}")


def describe(value: Any) -> str:
    """A tensor as `torch.float32 (8, 2)`, anything else by its type, as `a list`."""
    return (
        f"{value.dtype} {tuple(value.shape)}"
        if isinstance(value, Tensor)
        else f"a {type(value).__name__}"
    )


def is_tensor(value: Any, dtype: torch.dtype, shape: tuple[int | None, ...]) -> bool:
    """Whether it is a tensor of this type and shape; None stands for any size."""
    if not isinstance(value, Tensor) or value.dtype != dtype or value.dim() != len(shape):
        return False
    return all(expected in (None, size) for size, expected in zip(value.shape, shape, strict=True))


def checked_images(dataset: Dataset, data: ImageSet, split: str) -> ImageSet:
    """A split as it was loaded: uint8 (N, C, H, W) of the promised shape, labels int64 (N,) in
    0..classes-1."""
    images, labels = data.images, data.labels
    promised = dataset.shape
    if not is_tensor(images, torch.uint8, (None, *promised)) or not len(images):
        raise refuse(
            dataset,
            f"its {split} images are {describe(images)}, not torch.uint8 (N, {str(promised)[1:]}",
        )
    if labels is None and dataset.classes:
        raise refuse(
            dataset, f"its {split} split has no labels; it promised {dataset.classes} classes"
        )
    if labels is None:
        return data
    if not is_tensor(labels, torch.int64, (len(images),)):
        raise refuse(
            dataset, f"its {split} labels are {describe(labels)}, not torch.int64 ({len(images)},)"
        )
    if data.classes != dataset.classes or labels.min() < 0 or labels.max() >= data.classes:
        raise refuse(
            dataset,
            f"its {split} labels are {labels.min()} to {labels.max()} of {data.classes} classes; "
            f"it promised {dataset.classes}",
        )
    return data


def checked_network(backbone: Backbone, network: nn.Module) -> nn.Module:
    """A module that can be called as F(x, noise, condition, dropped, attend), all by position."""
    if not isinstance(network, nn.Module):
        raise refuse(backbone, f"build() returned {describe(network)}, not a torch.nn.Module")
    own_call = type(network).__call__ is not nn.Module.__call__
    called = network.__call__ if own_call else network.forward
    try:
        signature = inspect.signature(called, follow_wrapped=False)
    except (TypeError, ValueError):  # compiled code has none that could be read
        return network
    try:
        signature.bind(*CALLED_WITH)
    except TypeError:
        method = "__call__" if own_call else "forward"
        raise refuse(
            backbone,
            f"its network has {method}{signature}, and fw calls it with "
            f"({', '.join(CALLED_WITH)}), by position: write forward(x, noise, condition=None, "
            "dropped=None, attend=None), see docs/kinds/backbone.md",
        ) from None
    return network


CALLED_WITH = ("x", "noise", "condition", "dropped", "attend")
"""See `fw.core.kinds.Network`."""


def check_prediction(network: nn.Module, prediction: Tensor, x: Tensor) -> None:
    """That a network's output has the shape of its input; another one would broadcast in the
    loss."""
    if not isinstance(prediction, Tensor) or prediction.shape != x.shape:
        raise StageFailed(
            f"the network {type(network).__name__} made {describe(prediction)} of images "
            f"{describe(x)}: it has to return one tensor of their shape, see docs/kinds/backbone.md"
        )


def checked_features(encoder: Component, features: Tensor, count: int) -> Tensor:
    """Features of `count` images: float32 (count, D), finite."""
    return finite_features(encoder, formed_features(encoder, features, count))


def formed_features(encoder: Component, features: Tensor, count: int) -> Tensor:
    """Features of `count` images: float32 (count, D). A GPU is not waited for."""
    if not is_tensor(features, torch.float32, (count, None)) or not features.shape[1]:
        raise refuse(
            encoder,
            f"its features of {count} images are {describe(features)}, not torch.float32 ({count}, "
            "D)",
        )
    return features


def finite_features(encoder: Component, features: Tensor) -> Tensor:
    """Features (N, D) that are all finite."""
    if not features.isfinite().all():
        wrong = int((~features.isfinite()).any(dim=1).sum())
        raise refuse(encoder, f"its features of {wrong} of {len(features)} images are not finite")
    return features


def checked_annotation(annotator: Annotator, annotation: Annotation, count: int) -> Annotation:
    """One condition per image, of the promised form: int64 (N,) in 0..size-1, or float32 (N,
    size), finite."""
    spec = annotation.spec
    if spec.form != annotator.form:
        raise refuse(
            annotator, f"it made {spec.form} conditions and promised {annotator.form} ones"
        )
    checked_conditions(
        annotator, spec, annotation.conditions, "conditions", least=-1 if annotator.partial else 0
    )
    if annotation.bank is not None:
        checked_conditions(annotator, spec, annotation.bank, "bank")
    elif not annotation.known.all():
        raise refuse(
            annotator,
            "some images have no condition, and there is no bank of conditions to draw from",
        )
    if len(annotation.conditions) != count:
        raise refuse(
            annotator, f"it made {len(annotation.conditions)} conditions for {count} images"
        )
    return annotation


def checked_conditions(
    component: Component, spec: ConditionSpec, values: Tensor, what: str, least: int = 0
) -> Tensor:
    """At least one condition: int64 (N,) in least..size-1, or float32 (N, size) or (N, count,
    size), finite."""
    if spec.form == "class":
        if not is_tensor(values, torch.int64, (None,)):
            raise refuse(component, f"its {what} are {describe(values)}, not torch.int64 (N,)")
        if len(values) and not (values.min() >= least and values.max() < spec.size):
            raise refuse(
                component,
                f"its {what} are {values.min()} to {values.max()}, not in {least}..{spec.size - 1}",
            )
    else:
        sizes = (spec.size,) if spec.form == "vector" else (spec.count, spec.size)
        if not is_tensor(values, torch.float32, (None, *sizes)):
            raise refuse(
                component,
                f"its {what} are {describe(values)}, not torch.float32 (N, "
                f"{str(sizes)[1:].rstrip(',)')})",
            )
    if not all_finite(values):
        raise refuse(component, f"its {what} are not all finite")
    if not len(values):
        raise refuse(component, f"its {what} are empty")
    return values


def checked_code(
    autoencoder: Autoencoder, code: Code, shape: tuple[int, int, int], count: int
) -> Code:
    """The code of `count` images (C, H, W): float32 of the promised shape, finite."""
    return finite_code(autoencoder, formed_code(autoencoder, code, shape, count))


def formed_code(
    autoencoder: Autoencoder, code: Code, shape: tuple[int, int, int], count: int
) -> Code:
    """The code of `count` images (C, H, W): float32 of the promised shape. A GPU is not waited
    for."""
    promised = (count, *autoencoder.latent_shape(shape))
    for part, latents in zip(("mean", "std"), code, strict=True):
        if part == "std" and latents is None:
            continue
        if not isinstance(latents, Tensor) or not is_tensor(latents, torch.float32, promised):
            raise refuse(
                autoencoder,
                f"the {part} of {count} codes is {describe(latents)}, not torch.float32 {promised}",
            )
    return code


def finite_code(autoencoder: Autoencoder, code: Code) -> Code:
    """A code that is finite."""
    for part, latents in zip(("mean", "std"), code, strict=True):
        if latents is not None and not latents.isfinite().all():
            raise refuse(
                autoencoder, f"the {part} of {len(latents)} codes is not finite everywhere"
            )
    return code


def checked_decoded(
    autoencoder: Autoencoder, images: Tensor, shape: tuple[int, int, int], count: int
) -> Tensor:
    """Images decoded of `count` latents: float32 (count, C, H, W), finite."""
    formed_images(autoencoder, images, shape, count)
    check_decoded(autoencoder, [images.isfinite().all()], count)
    return images


def formed_images(
    autoencoder: Autoencoder, images: Tensor, shape: tuple[int, int, int], count: int
) -> Tensor:
    """Images decoded of `count` latents: float32 (count, C, H, W). A GPU is not waited for."""
    if not is_tensor(images, torch.float32, (count, *shape)):
        raise refuse(
            autoencoder,
            f"it decodes {count} latents to {describe(images)}, not to torch.float32 "
            f"{(count, *shape)}",
        )
    return images


def check_decoded(autoencoder: Autoencoder, finite: Sequence[Tensor], count: int) -> None:
    """That the images decoded of `count` latents are finite, which is said batch by batch: bool
    ()."""
    if not torch.stack(list(finite)).all():
        raise refuse(autoencoder, f"some of {count} images that it decodes are not finite")


def checked_rule(rule: Rule, result: Tensor, good: Tensor) -> Tensor:
    """A direction or a prediction, of the shape of the good prediction."""
    if not isinstance(result, Tensor) or result.shape != good.shape:
        raise refuse(rule, f"it returned {describe(result)} for predictions {describe(good)}")
    return result


def check_guidance(guidance: Sequence[Steering], condition: ConditionSpec | None) -> None:
    """That the modes can guide with these conditions."""
    for mode in guidance:
        if isinstance(mode, Guidance):
            try:
                mode.check(condition)
            except ValueError as error:
                raise refuse(mode, str(error)) from None


def checked_term(objective: Objective, term: Tensor) -> Tensor:
    """A term of the loss: one floating-point number. Whether it is finite shows when it is
    logged."""
    if not isinstance(term, Tensor) or term.shape != () or not term.is_floating_point():
        raise refuse(objective, f"its term is {describe(term)}, not one number ()")
    return term


def checked_worse(mode: Guidance, worse: Tensor, good: Tensor) -> Tensor:
    """A worse prediction, of the shape of the good one. Whether it is finite shows in the
    samples."""
    if not isinstance(worse, Tensor) or worse.shape != good.shape:
        raise refuse(mode, f"worse() returned {describe(worse)} for predictions {describe(good)}")
    return worse


def checked_samples(
    sampler: Sampler, samples: Tensor, noise: Tensor, diverged: Mapping[str, Tensor]
) -> Tensor:
    """Samples of the noise's shape, finite. `diverged` is that of
    `fw.core.diffusion.guided.Guided`."""
    if not isinstance(samples, Tensor) or samples.shape != noise.shape:
        raise refuse(sampler, f"it made {describe(samples)} of noise {describe(noise)}")
    if not samples.isfinite().all():
        wrong = int((~samples.isfinite()).flatten(1).any(dim=1).sum())
        modes = [f"guidance '{name}'" for name, first in diverged.items() if first]
        cause = (
            f"what {' and '.join(modes)} called worse was not"
            if modes
            else "the model or the sampler diverged"
        )
        raise refuse(sampler, f"{wrong} of {len(samples)} samples are not finite: {cause}")
    return samples


def checked_scores(metric: Metric, scores: Mapping[str, float]) -> Mapping[str, float]:
    """Exactly the promised keys, with numbers. Infinity is one, NaN is not."""
    if scores.keys() != metric.keys.keys():
        raise refuse(
            metric,
            f"it scored {', '.join(scores) or 'nothing'} and promised {', '.join(metric.keys)}",
        )
    for key, value in scores.items():
        if not isinstance(value, float | int) or math.isnan(value):
            raise refuse(metric, f"its {key} is {value!r}, not a number")
    return scores


def checked_floor(metric: Metric, floor: Mapping[str, float]) -> Mapping[str, float]:
    """Numbers for some of the promised keys. Infinity is one, NaN is not."""
    if not floor.keys() <= metric.keys.keys():
        raise refuse(
            metric, f"floor() has {', '.join(floor)} and it promised {', '.join(metric.keys)}"
        )
    for key, value in floor.items():
        if not isinstance(value, float | int) or math.isnan(value):
            raise refuse(metric, f"floor() has {value!r} for {key}, not a number")
    return floor


def checked_measured(metric: Metric, measured: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Tensors by names, or they cannot be stored."""
    for name, tensor in measured.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise refuse(metric, f"measure() has {type(tensor).__name__} as {name!r}, not a tensor")
    return measured


def checked_limits(
    metric: Metric, limits: Mapping[str, tuple[float, float]]
) -> Mapping[str, tuple[float, float]]:
    """Two numbers for some of the promised keys, the lower one first."""
    if not limits.keys() <= metric.keys.keys():
        raise refuse(
            metric,
            f"by_chance() knows of {', '.join(limits)} and it promised {', '.join(metric.keys)}",
        )
    for key, pair in limits.items():
        numbers = isinstance(pair, tuple) and all(isinstance(each, float | int) for each in pair)
        if not numbers or len(pair) != 2 or not pair[0] <= pair[1]:
            raise refuse(metric, f"by_chance() has {pair!r} for {key}, not (lower, higher)")
    return limits


def checked_probe_scores(probe: Probe, scores: Mapping[str, float]) -> Mapping[str, float]:
    """At least one of the promised keys and no other, with finite numbers."""
    if not scores or not scores.keys() <= probe.keys.keys():
        raise refuse(
            probe,
            f"it scored {', '.join(scores) or 'nothing'} and promised {', '.join(probe.keys)}",
        )
    for key, value in scores.items():
        if not isinstance(value, float | int) or not math.isfinite(value):
            raise refuse(probe, f"its {key} is {value!r}, not a finite number")
    return scores
