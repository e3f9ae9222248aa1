"""What the weights were trained with that timm names `architecture.tag`, as far as the name says.

The tags are those of timm's model cards. A tag ends with the data of the last training:
`augreg_in21k_ft_in1k` was fine-tuned with the labels of ImageNet-1k.
"""

from __future__ import annotations

import re

from fw.registry import CAPTIONS, NOTHING, UNKNOWN, Supervision, labels_of

IMAGENET = labels_of("ImageNet")

RULES: tuple[tuple[str, Supervision], ...] = (
    (r"\..*ft_in\d+k", IMAGENET),
    (r"\.(\w+_)?(dino|lvd142m|mae|fcmae|seer|in\d+k_ijepa)$", NOTHING),
    (r"(dinov3\w*\.|\.dinov3_)(lvd1689m|sat493m)$", NOTHING),
    (r"\.pali", UNKNOWN),  # SigLIP, trained further on many tasks
    (r"clip|siglip|tipsv2", CAPTIONS),
    (r"eva02\w*\.mim_", CAPTIONS),  # it learned to fill in CLIP's features
    (r"\.(\w+_)?in\w?\d+k(_\d+)?$", IMAGENET),
)
"""Patterns of names; the first that is in a name decides."""


def supervision_of(name: str) -> Supervision:
    """The supervision of timm's `architecture.tag`; unknown without a tag, or of one that says
    nothing."""
    if not name.partition(".")[2]:
        return UNKNOWN
    return next((each for pattern, each in RULES if re.search(pattern, name)), UNKNOWN)
