"""A conditional denoiser as a classifier: which class helps it most to denoise the image? (arXiv
2303.16203)

By Bayes' rule with equal shares of the classes, and the loss in place of the likelihood:

    p(c | x0) = softmax_c( -E_{sigma, n} |eps(x0 + sigma n; sigma, c) - n|^2 )
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fw.core.diffusion.generate import batch_size
from fw.core.errors import StageFailed
from fw.core.job import Job
from fw.core.kinds import ConditionalProbe
from fw.core.types import Examples, Told
from fw.plugins.probes.labels import accuracy
from fw.plugins.probes.matching import named_by

Counts = tuple[Annotated[int, Field(ge=1, le=100_000)], ...]


class DiffusionClassifier(ConditionalProbe):
    """Accuracy of the class that a conditional model denoises a held-out image best with (arXiv
    2303.16203); no reader.

    The error is that of the noise, eps = (x - D) / sigma, and so that of D over sigma, without
    weights, at noise levels spread evenly over those of training. All classes are tried on the same
    noise, which takes away most of what is chance in their differences. After `samples[i]` noise
    levels an image's best `keep[i]` classes stay in the race. All classes are equally likely
    beforehand. Clusters have no names: they are matched with labels as by `recognise`, by the
    conditions of the training images. The network is asked `images` x (classes x samples[0] +
    keep[0] x (samples[1] - samples[0]) + ...) times.
    """

    name: ClassVar[str] = "diffusion_classifier"

    samples: Counts = Field(
        (25, 100),
        min_length=1,
        description="noise levels that are seen when classes leave the race",
        examples=[(5, 20)],
    )
    keep: Counts = Field(
        (5, 1), min_length=1, description="classes that stay then; the last is 1", examples=[(2, 1)]
    )
    paired: bool = Field(True, description="false is the control: fresh noise for each class")
    images: int = Field(500, ge=1, description="held-out images that are classified, at random")

    @model_validator(mode="after")
    def _a_race(self) -> Self:
        if len(self.keep) != len(self.samples):
            raise ValueError(
                f"keep has {len(self.keep)} entries and samples {len(self.samples)}: they go "
                "together"
            )
        if list(self.samples) != sorted(set(self.samples)):
            raise ValueError(
                f"samples count all that were seen so far, so they rise: {list(self.samples)} do "
                "not"
            )
        if list(self.keep) != sorted(set(self.keep), reverse=True) or self.keep[-1] != 1:
            raise ValueError(f"keep falls to 1, and {list(self.keep)} does not")
        return self

    @property
    def keys(self) -> Mapping[str, str]:
        return {self._key(how): "higher" for how in ("", "_matched", "_majority")}

    def _key(self, how: str) -> str:
        seen, kept = ("-".join(map(str, counts)) for counts in (self.samples, self.keep))
        noise = "" if self.paired else "_unpaired"
        return f"diffusion_classifier{how}_n{seen}_k{kept}{noise}_i{self.images}_{self.protocol}"

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        assert test.told is not None
        marks = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in test.features]
        chosen = sorted(range(len(marks)), key=marks.__getitem__)[
            : self.images
        ]  # whatever their order is
        some = Examples(
            test.features[chosen],
            None if test.labels is None else test.labels[chosen],
            test.classes,
        )
        found = self.classify(test.told, some.features, [marks[place] for place in chosen], job)
        if test.named:
            return {self._key(""): accuracy(found, some)}
        names, one_to_one = named_by(train.features, test.told.classes, train)
        return {self._key("_matched" if one_to_one else "_majority"): accuracy(names[found], some)}

    def classify(self, model: Told, x0: Tensor, marks: list[str], job: Job) -> Tensor:
        """The classes (N,) of images (N, C, H, W); an image's noise is a function of its mark."""
        count = self.samples[-1]
        levels = model.sigmas((torch.arange(count) + 0.5) / count).tolist()
        race = Race(len(x0), model.classes)
        order, leaving = schedule(self.samples), dict(zip(self.samples, self.keep, strict=True))
        for step in job.steps(count, {"race": race}, label="classify"):
            place, drawn = order[step], 1 if self.paired else model.classes
            streams = [job.generator("classify", mark, place) for mark in marks]
            noise = torch.stack(
                [torch.randn(drawn, *x0.shape[1:], generator=each) for each in streams]
            )
            for images, classes in race.pairs(batch_size((*x0.shape[1:],), job.device)):
                clean, eps = (
                    x0[images],
                    noise[images, 0 if self.paired else classes],
                )  # (B, C, H, W)
                x = clean + levels[place] * eps
                denoised = model.denoise(
                    x.to(job.device), levels[place], classes.to(job.device)
                ).cpu()
                error = (
                    ((clean - denoised) / levels[place]).double().square().mean(dim=(1, 2, 3))
                )  # (B,)
                if not error.isfinite().all():
                    raise StageFailed(
                        f"probe {self.name}: what the model makes of some images is not finite"
                    )
                race.errors[images, classes] += error
            if step + 1 in leaving:
                race.leave(leaving[step + 1])
            job.log(step, {"classify/evaluations_per_image": race.asked / len(x0)})
        return race.best()


class Race(nn.Module):
    """The errors of N images with K classes so far, and who is still in it; a module for its
    state dict."""

    errors: Tensor
    running: Tensor
    asked: Tensor

    def __init__(self, images: int, classes: int):
        super().__init__()
        self.register_buffer("errors", torch.zeros(images, classes, dtype=torch.float64))
        self.register_buffer("running", torch.ones(images, classes, dtype=torch.bool))
        self.register_buffer("asked", torch.zeros((), dtype=torch.int64))

    def pairs(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """All images (B,) with the classes (B,) that are still tried on them, in batches."""
        found = self.running.nonzero()
        self.asked += len(found)
        return [(batch[:, 0], batch[:, 1]) for batch in found.split(size)]

    def leave(self, keep: int) -> None:
        """Keep the best of each image; who is in the race has seen as much as the others in it."""
        keep = min(keep, self.errors.shape[1])
        best = self.standing().topk(keep, dim=1, largest=False).indices  # (N, keep)
        self.running.copy_(torch.zeros_like(self.running).scatter_(1, best, True))

    def best(self) -> Tensor:
        return self.standing().argmin(dim=1)

    def standing(self) -> Tensor:
        return self.errors.masked_fill(~self.running, float("inf"))


def schedule(samples: Counts) -> list[int]:
    """The order of the levels 0..samples[-1]-1, such that those of each part of the race are
    spread evenly."""
    left, order = list(range(samples[-1])), list[int]()
    for seen in samples:
        fresh = seen - len(order)
        taken = {left[int((place + 0.5) * len(left) / fresh)] for place in range(fresh)}
        order += sorted(taken)
        left = [level for level in left if level not in taken]
    return order
