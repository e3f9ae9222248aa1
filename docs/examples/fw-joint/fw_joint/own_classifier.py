"""Guidance by what the model itself recognises: classifier guidance (arXiv 2105.05233) without a
second network."""

from typing import ClassVar

import torch
from torch import Tensor

from fw.core.kinds import Denoiser, Guidance


class OwnClassifier(Guidance):
    """Classifier guidance (arXiv 2105.05233) by a joint model's own head: worse = good - sigma^2
    grad log p(c | x).

    The paper's gradient scale is `scale` - 1: at 2 the prediction is Bayes's, E[x0 | x, c].
    """

    name: ClassVar[str] = "own_classifier"

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"logits", "conditions"})

    def worse(
        self, model: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        assert condition is not None
        with torch.inference_mode(False), torch.enable_grad():
            noisy = x.clone().requires_grad_()
            likelihoods = model.logits(noisy, sigma).log_softmax(dim=1)  # (B, K)
            chosen = likelihoods.gather(1, condition.clone()[:, None])  # (B, 1)
            [gradient] = torch.autograd.grad(chosen.sum(), noisy)  # (B, C, H, W), uphill
        return good - sigma**2 * gradient
