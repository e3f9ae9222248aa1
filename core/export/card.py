"""The README of a network in diffusers' form: what it is, and how D(x; sigma) is made of it."""

from __future__ import annotations

import textwrap

from fw.core.api.denoiser import Denoiser
from fw.core.kinds import InDiffusers, Process
from fw.core.messages.escaping import markdown as escaped
from fw.core.report.environment import versions
from fw.core.run.card import conditions, facts
from fw.core.run.finished import FinishedArm

FORMULA = """\
fw trains D(x; sigma), an estimate of the clean image in x = x0 + sigma * n with n ~ N(0, 1)
(EDM, arXiv 2206.00364). It is made of the network's output F by four coefficients of the noise
level, those of process `{process}`:

    D(x; sigma) = skip * x + out * F(scale * x, noise)

x0 is {what}, (B, {shape}); sigma goes from {low:.6g} to {high:.6g} in training. The code below
needs torch and diffusers alone. When this folder was written, its D was that of fw within 1e-5.
"""


def written(arm: FinishedArm, denoiser: Denoiser, form: InDiffusers, code: str) -> str:
    """README.md, in Markdown."""
    recipe, process = arm.recipe, denoiser.process
    formula = FORMULA.format(
        process=process.name,
        what="an image in -1..1"
        if recipe.latents is None
        else f"a latent of {recipe.latents.name}",
        shape=", ".join(map(str, denoiser.shape)),
        low=denoiser.sigma_min,
        high=denoiser.sigma_max,
    )
    parts = [
        f"# {escaped(arm.name)} of {escaped(recipe.name)}",
        f"A {type(form.model).__name__} of diffusers, with the averaged weights of fw's training.",
        "\n".join(
            f"* {escaped(what)}: {escaped(words)}"
            for what, words in facts(recipe, arm.plan.arms[arm.name])
        ),
        f"Conditions: {escaped(conditions(denoiser.annotation))}. Guidance is not in the network: "
        "it is put together of several D.",
        "## D(x; sigma)",
        formula.strip(),
        f"```python\n{code}```",
        *([SCHEDULED] if process.scheduler is not None else []),
        "## Made with",
        ", ".join(f"{package} {version}" for package, version in versions().items()),
    ]
    return "\n\n".join(parts) + "\n"


SCHEDULED = """\
`scheduler_config.json` describes the process to diffusers' schedulers
(`DDPMScheduler.from_pretrained`), and to fw: a recipe trains this network further with `model:
{name: diffusers, weights: FOLDER}`."""


def code_of(form: InDiffusers, process: Process, inputs: str) -> str:
    """Python that defines D of what lies in `folder`."""
    model = type(form.model).__name__
    reads = 'inputs = load_file(f"{folder}/' + inputs + '")\n'
    assert process.in_torch is not None
    return CODE.format(
        imports="from safetensors.torch import load_file\n" if form.inputs else "",
        model=model,
        inputs=reads if form.inputs else "",
        call=textwrap.indent(form.call, "    "),
        coefficients=textwrap.indent(process.in_torch, "    "),
    )


CODE = '''\
import math

import torch
from diffusers import {model}
{imports}
folder = "."  # where this file lies
model = {model}.from_pretrained(folder).eval()
{inputs}

def F(x, noise, condition):
{call}


def coefficients(sigma):
{coefficients}
    return skip, out, scale, noise


def D(x, sigma, condition=None):
    """x (B, C, H, W) with noise of levels sigma (B,) -> (B, C, H, W)"""
    *factors, noise = coefficients(sigma)
    skip, out, scale = (factor[:, None, None, None] for factor in factors)
    return skip * x + out * F(scale * x, noise, condition)
'''
