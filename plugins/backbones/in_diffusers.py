"""Networks that are diffusers' at heart, as diffusers has them: for `fw export --as diffusers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

WITHOUT = "return model(x, noise, return_dict=False)[0][:, : x.shape[1]]"

LABELS = """\
null = torch.full((len(x),), {null}, device=x.device)
labels = null if condition is None else condition  # int64 (B,): classes from 0
"""

WITH_VECTORS = """\
if condition is None:
    embedded = inputs["null"].expand(len(x), -1)
else:  # float (B, D)
    embedded = torch.nn.functional.linear(condition, inputs["embed.weight"], inputs["embed.bias"])
return model(x, noise, class_labels=embedded, return_dict=False)[0]"""

WITH_TOKENS = """\
if condition is None:
    tokens = inputs["null"].expand(len(x), int(inputs["count"]), -1)
else:  # float (B, n, D)
    tokens = torch.nn.functional.linear(condition, inputs["embed.weight"], inputs["embed.bias"])
weight, bias = inputs["norm.weight"], inputs["norm.bias"]
tokens = torch.nn.functional.layer_norm(tokens, weight.shape, weight, bias)
return model(x, noise, encoder_hidden_states=tokens, return_dict=False)[0]"""

PROMPTED = """\
prompt = inputs["prompt"].expand(len(x), -1, -1)
return model(x, noise, prompt, return_dict=False)[0][:, : x.shape[1]]"""


def with_classes(null: int) -> str:
    """Classes and their null are numbers of the model's table."""
    called = "model(x, noise, class_labels=labels, return_dict=False)"
    return f"{LABELS.format(null=null)}return {called}[0][:, : x.shape[1]]"


def prompted_with_classes(null: int) -> str:
    called = "model(x, noise, prompt, class_labels=labels, return_dict=False)"
    prompt, _ = PROMPTED.split("\n")
    return f"{LABELS.format(null=null)}{prompt}\nreturn {called}[0][:, : x.shape[1]]"


def copied(network: Any, added: Mapping[str, Tensor] | None = None, **settings: Any) -> nn.Module:
    """A model of the same class and weights, and others that are `added`, with some settings
    changed: its layers of attention are diffusers' own again."""
    config = {key: value for key, value in network.config.items() if not key.startswith("_")}
    model: nn.Module = type(network)(**{**config, **settings})
    model.load_state_dict({**network.state_dict(), **(added or {})})
    return model.eval()
