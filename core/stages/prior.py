"""Fit p(c), and draw the bank of conditions for the samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from safetensors.torch import save_file

from fw.core.features.quality import difference
from fw.core.files.durable import write_json
from fw.core.job import Job
from fw.core.kinds import Prior
from fw.core.kinds.boundaries import checked_conditions
from fw.core.stages.annotate import ANNOTATION
from fw.core.stages.base import Products, ReportSection, Stage
from fw.core.stages.keys import read
from fw.core.types import Annotation

BANK = "bank.safetensors"

PRIORS = ReportSection("prior", "Priors", "How well the conditions of the samples are drawn.")

NOTICED = 0.01
"""A prior that changes less than this share of the conditions has next to no effect."""


@dataclass(frozen=True, eq=False)
class FitPrior(Stage):
    """Makes the bank, its scores, and a log where the prior is trained."""

    kind: ClassVar[str] = "prior"
    version: ClassVar[int] = 2
    lighter: ClassVar[str] = (
        "take an encoder with fewer features, or a prior with a smaller `batch` or `count`"
    )
    files: ClassVar[tuple[str, ...]] = ("bank.safetensors", "quality.json", "log.jsonl")
    cost: ClassVar[int] = 4
    teams: ClassVar[bool] = True

    prior: Prior
    annotate: Stage = read()

    @property
    def label(self) -> str:
        return self.prior.name

    @property
    def section(self) -> ReportSection:
        return PRIORS

    def run(self, job: Job, products: Products) -> None:
        annotation = Annotation.load(products(self.annotate) / ANNOTATION)
        if not (known := annotation.known).all():
            annotation = replace(annotation, conditions=annotation.conditions[known])
        bank = checked_conditions(
            self.prior, annotation.spec, self.prior.bank(annotation, job), "bank"
        )
        if not job.team.leads:
            return
        drawn = annotation.conditions if annotation.bank is None else annotation.bank
        if (apart := difference(bank, drawn)) is not None and apart < NOTICED:
            job.warn(
                f"prior {self.prior.name} changes only {apart:.1%} of the conditions that are "
                "drawn: arms with and without it can hardly differ"
            )
        save_file({"bank": bank.contiguous()}, job.folder / BANK)
        write_json(job.folder / "quality.json", self.prior.quality(bank, annotation))
