"""The conditions of an arm, read back from the stages that made them."""

from __future__ import annotations

from dataclasses import replace

import torch
from safetensors.torch import load_file

from fw.core.stages.annotate import ANNOTATION
from fw.core.stages.base import Products, Stage
from fw.core.stages.prior import BANK, FitPrior
from fw.core.types import Annotation, ImageSet


def load_annotation(
    annotate: Stage | None, prior: FitPrior | None, products: Products
) -> Annotation | None:
    """One condition per training image, with the prior's bank if there is a prior; None without
    conditions.

    `annotate` is the stage that made them: an Annotate, or the training of an online annotator.
    """
    if annotate is None:
        return None
    annotation = Annotation.load(products(annotate) / ANNOTATION)
    return (
        annotation
        if prior is None
        else replace(annotation, bank=load_file(products(prior) / BANK)["bank"])
    )


def are_labels(annotation: Annotation, data: ImageSet) -> bool:
    """Whether the classes of an annotation are the true labels, as far as they are known."""
    if (
        data.labels is None
        or annotation.spec.form != "class"
        or annotation.spec.size != data.classes
    ):
        return False
    known = annotation.known
    return torch.equal(annotation.conditions[known], data.labels[known])
