"""RepFusion with its policy (arXiv 2308.10916): labels teach which noise level suits an image."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fw.core.diffusion.pixels import to_unit
from fw.core.learning.rows import ALONE, Rows
from fw.core.machine.transfer import constant
from fw.plugins.encoders.distilled import Lesson, Teacher
from fw.plugins.encoders.of_denoiser import Sigmas
from fw.plugins.encoders.repfusion import Imitation, RepFusion
from fw.plugins.encoders.trunks import ImageEncoder

HIDDEN = 128
ENTROPY = 0.1
"""Weight of the entropy of the policy at the start; it is 0 from the middle of the training on."""
MEMORY = 0.9
"""How much of the running mean of rewards is kept at each step."""


class RepFusionPolicy(RepFusion):
    """RepFusion with its policy, which chooses for each image the noise level whose features the
    student learns.

    The reward of REINFORCE is minus the cross entropy of a head on the teacher's features with the
    label, less its running mean, which the released code does not subtract. So it uses labels, and
    self-guidance is refused with it.
    """

    name: ClassVar[str] = "repfusion_policy"
    uses_labels: ClassVar[bool] = True

    sigma: Sigmas = Field(
        (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0),
        min_length=2,
        description="noise levels of which the policy chooses one for each image",
    )

    def lesson(
        self, student: nn.Module, teacher: Teacher, shape: tuple[int, int, int], classes: int
    ) -> Lesson:
        assert isinstance(student, ImageEncoder)
        return Chosen(student, teacher, shape, self.sigma, classes)


class Chosen(Imitation):
    """The imitation at the levels that the policy chose, and the losses of policy and judge."""

    def __init__(
        self,
        student: ImageEncoder,
        teacher: Teacher,
        shape: tuple[int, int, int],
        sigmas: Sigmas,
        classes: int,
    ):
        super().__init__(student, teacher, shape, sigmas)
        self.policy = Policy(shape, len(sigmas), classes)
        self.judge = nn.Sequential(
            *(nn.Linear(self.size, HIDDEN), nn.ReLU()),
            *(nn.Linear(HIDDEN, HIDDEN), nn.ReLU()),
            nn.Linear(HIDDEN, classes),
        )

    def forward(
        self, images: Tensor, labels: Tensor | None, progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        assert labels is not None
        chances = self.policy(to_unit(images)).log_softmax(dim=1)  # (B, levels)
        # What torch.multinomial does, which makes the host wait for a look at the chances.
        shape = self.rows.everywhere(len(chances)), chances.shape[1]
        race = self.rows.own(chances.new_empty(shape).exponential_(1, generator=generator))
        chosen = (chances.detach().exp() / race).argmax(dim=1, keepdim=True)  # (B, 1)
        sigma = constant(self.sigmas, images.device)[chosen[:, 0]]
        target = self.target(images, sigma, generator)
        error = cross_entropy(self.judge(target), labels, reduction="none")  # (B,)
        gain = self.policy.gain(-error.detach(), self.rows)
        entropy = -(chances.exp() * chances).sum(dim=1).mean()
        return {
            "imitation": self.imitation(images, target),
            "judge": error.mean(),
            "policy": -(chances.gather(1, chosen)[:, 0] * gain).mean(),
            "entropy": -ENTROPY * max(0.0, 1 - 2 * progress) * entropy,
        }


class Policy(nn.Module):
    """Images (B, C, H, W) in -1..1 to logits (B, levels), by a few convolutions as in LeNet;
    remembers rewards."""

    usual: Tensor
    """The running mean of rewards (); its name is in checkpoints."""

    def __init__(self, shape: tuple[int, int, int], levels: int, classes: int):
        super().__init__()
        self.choose = nn.Sequential(
            *(nn.Conv2d(shape[0], 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True)),
            *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
            nn.Linear(64, levels),
        )
        self.register_buffer(
            "usual", -torch.tensor(float(classes)).log()
        )  # of a judge that guesses

    def forward(self, x: Tensor) -> Tensor:
        return self.choose(x)

    def gain(self, reward: Tensor, rows: Rows = ALONE) -> Tensor:
        """The rewards (B,) less the running mean of those before, which is then updated."""
        gain = reward - self.usual
        self.usual.lerp_(rows.mean(reward), 1 - MEMORY)
        return gain
