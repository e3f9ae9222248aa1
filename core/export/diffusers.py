"""An arm's network as a folder that diffusers reads, with a card that makes D(x; sigma) of it.

The code of the card is executed before the folder gets its name: what it computes has to be what
the arm does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn

from fw.core.api.arm import LoadedArm
from fw.core.api.denoiser import Denoiser
from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.errors import FwError
from fw.core.export.card import code_of, written
from fw.core.export.whole import new_folder
from fw.core.files.durable import write_json, write_text
from fw.core.kinds import InDiffusers, Portable

CARD = "README.md"
INPUTS = "inputs.safetensors"
SCHEDULER = "scheduler_config.json"

TOLERANCE = 1e-5
"""By how much D may differ, in units of images in -1..1 or of latents."""

TRIED = 4
"""Images and noise levels that the card's code is tried on."""


def write_diffusers(arm: LoadedArm, path: Path, console: Console) -> None:
    """FwError if its network is none of diffusers'."""
    denoiser = arm.denoiser
    form = in_diffusers(denoiser.network, arm)
    process = denoiser.process
    if process.in_torch is None:
        raise FwError(
            f"--as diffusers: process '{process.name}' does not say its coefficients as code "
            "(`in_torch`), which the card needs; --to model.safetensors exports the weights"
        )
    with new_folder(path) as temporary:
        model = cast(Any, form.model)
        if model.config.get("sample_size") is None:  # pipelines ask the network for it
            model.register_to_config(sample_size=denoiser.shape[1:])
        model.save_pretrained(temporary)
        if form.inputs:
            save_file(dict(form.inputs), temporary / INPUTS)
        if process.scheduler is not None:
            write_json(temporary / SCHEDULER, dict(process.scheduler))
        code = code_of(form, process, INPUTS)
        write_text(temporary / CARD, written(arm.finished, denoiser, form, code))
        check(code, temporary, denoiser)


def in_diffusers(network: nn.Module, arm: LoadedArm) -> InDiffusers:
    if not hasattr(network, "in_diffusers"):
        raise FwError(
            f"--as diffusers: backbone '{arm.sections.model.name}' is no network of diffusers; "
            "--to model.safetensors exports its weights"
        )
    try:
        return cast(Portable, network).in_diffusers()
    except ValueError as error:
        raise FwError(f"--as diffusers: backbone '{arm.sections.model.name}': {error}") from None


def check(code: str, folder: Path, denoiser: Denoiser) -> None:
    """FwError unless the card's D is the arm's, in single precision."""
    single = NetworkDenoiser(denoiser.network, denoiser.process)
    right = Denoiser(
        single, denoiser.shape, denoiser.annotation, denoiser.class_names, denoiser.knows_null
    )
    namespace: dict[str, Any] = {}
    exec(code.replace('folder = "."', f"folder = {str(folder)!r}"), namespace)
    generator = torch.Generator().manual_seed(0)
    low, high = denoiser.sigma_min, denoiser.sigma_max
    sigma = torch.logspace(0, 1, TRIED, base=high / low) * low
    x = sigma[:, None, None, None] * torch.randn(TRIED, *denoiser.shape, generator=generator)
    for condition in conditions(denoiser):
        with torch.no_grad():
            expected = right(x, sigma, condition)
            made = namespace["D"](x, sigma, condition)
        off = float((made - expected).abs().max())
        if not off <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise FwError(
                f"--as diffusers: diffusers' model gives another D than the arm's (by {off:.2g}); "
                "is its backbone's `in_diffusers` right?"
            )


def conditions(denoiser: Denoiser) -> list[Tensor | None]:
    """The first conditions of the training images, and the null, as far as there are any."""
    found: list[Tensor | None] = [None] if denoiser.knows_null else []
    if denoiser.annotation is not None:
        known = denoiser.annotation.conditions[denoiser.annotation.known]
        found.append(known[:TRIED])
    return found
