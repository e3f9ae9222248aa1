"""Guidance by an image's representation (RCG-G, arXiv 2312.03701, section 3)."""

from __future__ import annotations

from typing import ClassVar

from fw.plugins.guidance.self_guidance import SelfGuidance


class RCG(SelfGuidance):
    """RCG's guidance (arXiv 2312.03701): worse is the same network without its representation.

    The paper writes l_c + tau (l_c - l_u): its tau is scale - 1 (tau = 0 is off). Its MAGE ramps
    tau up over the decoding steps; for diffusion models it is constant, and here it acts in
    `interval`. Refused unless the conditions are vectors that were made without labels, such as
    those of the annotator `representation`.
    """

    name: ClassVar[str] = "rcg"

    @property
    def requires(self) -> frozenset[str]:
        return super().requires | {"vector_conditions"}
