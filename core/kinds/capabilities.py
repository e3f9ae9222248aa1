"""The words of `requires` and `provides`: what components need of the rest of an arm, and what
they bring."""

from __future__ import annotations

from typing import NamedTuple


class Capability(NamedTuple):
    """What a word says of an arm, and what to give an arm that lacks it."""

    meaning: str
    remedy: str


CAPABILITIES: dict[str, Capability] = {
    "labels": Capability("the dataset has labels", "a dataset with labels"),
    "conditions": Capability(
        "the model is trained with conditions", "an annotator (this arm has none)"
    ),
    "class_conditions": Capability(
        "... which are classes", "an annotator whose conditions are classes, such as clusters"
    ),
    "vector_conditions": Capability(
        "... which are vectors", "an annotator whose conditions are vectors, such as representation"
    ),
    "tokens_conditions": Capability(
        "... which are sets of tokens", "an annotator whose conditions are tokens"
    ),
    "told": Capability(
        "... which the network is told, and does not read off the image as a joint model does",
        "a network that is told its condition (a joint model reads it off the image)",
    ),
    "null": Capability(
        '... and the network also knows "no condition"',
        "condition dropout: train.cond_drop > 0 (a joint model has none)",
    ),
    "label_free": Capability(
        "the conditions were made without any label",
        "conditions that were made without labels (an annotator and an encoder that use none)",
    ),
    "features": Capability(
        "the conditions are made of an encoder's features",
        "an encoder, and an annotator that looks at its features",
    ),
    "unconditional": Capability(
        "the network can be asked without a condition",
        "a model without conditions, or one that knows none: train.cond_drop > 0",
    ),
    "attention": Capability(
        "the network has layers that mix tokens through `attend`", "a model with attention layers"
    ),
    "logits": Capability(
        "the network also recognises the conditions: a joint model",
        "a joint model and an annotator, whose conditions it recognises",
    ),
    "steerable": Capability(
        "... and decodes the features that it recognises them from, also when these were moved",
        "a joint model whose features can be moved, such as jdm or hybvit, and an annotator",
    ),
    "taps": Capability(
        "the network names its blocks, whose activations can be read",
        "a model whose blocks can be read",
    ),
    "timesteps": Capability(
        "the process tells the network timesteps 0..T-1, as DDPM",
        "a process that tells the network timesteps 0..T-1, such as ddpm",
    ),
    "pixels": Capability(
        "what is diffused are the images themselves, in -1..1, and not latents",
        "the images themselves in -1..1, not latents (of a sampler that clamps, set `clip` to "
        "null)",
    ),
}

ABOUT_CONDITIONS = {
    "told",
    "null",
    "label_free",
    "class_conditions",
    "vector_conditions",
    "tokens_conditions",
}
"""Not worth a message of their own where there are no conditions at all."""


def remedy(capability: str) -> str:
    """What to give an arm that lacks it; the word itself, if a plugin brought it."""
    known = CAPABILITIES.get(capability)
    return capability if known is None else known.remedy
