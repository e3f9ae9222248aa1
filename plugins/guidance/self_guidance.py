"""Self-guided diffusion (arXiv 2210.06462): `cfg` with self-annotated conditions."""

from __future__ import annotations

from typing import ClassVar

from fw.plugins.guidance.cfg import CFG


class SelfGuidance(CFG):
    """Self-guidance (arXiv 2210.06462): the rule of `cfg`, refused unless conditions were made
    without labels.

    The paper writes (1 + w) cond - w uncond: its w is scale - 1 (w = 0 is off). Imagen's guidance
    weight s in s cond + (1 - s) uncond is fw's scale itself (s = 1 is off).
    """

    name: ClassVar[str] = "self_guidance"

    @property
    def requires(self) -> frozenset[str]:
        return super().requires | {"label_free"}
