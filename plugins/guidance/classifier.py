"""Classifier guidance (Dhariwal and Nichol, arXiv 2105.05233, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fw.core.kinds import Backbone, Denoiser, Guidance, Joint, Sibling

if TYPE_CHECKING:
    from fw.core.settings import Train


class ClassifierGuidance(Guidance):
    """Classifier guidance (arXiv 2105.05233): towards where a network recognises the condition in
    the noisy image.

    worse = good - sigma^2 grad log p(c | x). The paper's gradient scale s is scale - 1. Where the
    denoiser does not read the condition, as in a joint model, scale 2 is Bayes's rule: the
    prediction is E[x0 | x, c].

    The arm's own model recognises the condition if it is a joint one. Otherwise `model` names a
    joint model for this alone: it is trained on the same noisy images and conditions as the arm's,
    in a stage of its own, which arms share. One more evaluation, of the logits; with the backward
    pass it takes about as long as two.
    """

    name: ClassVar[str] = "classifier"

    model: Joint | None = Field(
        None, description="joint model that recognises; null is the arm's own"
    )

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"conditions"} if self.model is not None else {"conditions", "logits"})

    def sibling(self, model: Backbone, train: Train) -> Sibling | None:
        return None if self.model is None or self.model == model else Sibling(self.model, train)

    def worse(
        self, model: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        assert condition is not None
        with torch.inference_mode(False), torch.enable_grad():
            noisy = x.clone().requires_grad_()
            likelihoods = model.logits(noisy, sigma).log_softmax(dim=1)  # (B, K)
            chosen = likelihoods.gather(1, condition.clone()[:, None])  # (B, 1)
            [uphill] = torch.autograd.grad(chosen.sum(), noisy)  # (B, C, H, W)
        return good - sigma**2 * uphill
