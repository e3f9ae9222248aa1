"""Any timm model as an encoder: pretrained where its weights file is given, else with random
weights."""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from fw.core.kinds import Encoder
from fw.registry import NOTHING, UNKNOWN, Supervision
from fw_timm_gmm.images import Prepared
from fw_timm_gmm.weights import checked, load


class Timm(Encoder):
    """A timm model's pooled features, from a local weights file; without one, the untrained
    control."""

    name: ClassVar[str] = "timm"

    model: str = Field(
        pattern=r"^[\w.]+$", description="timm's name of the model, such as resnet18"
    )
    weights: Path | None = Field(
        None, description="state dict, .safetensors or .pth; null is random initial weights"
    )
    sha256: str = Field(
        "", pattern="^([0-9a-f]{8,64})?$", description="how the sha256 of the weights file begins"
    )

    @property
    def own_supervision(self) -> Supervision:
        return UNKNOWN if self.weights else NOTHING

    def preflight(self) -> None:
        checked(self.weights, self.sha256)

    def identity(self) -> dict[str, Any]:
        return {key: value for key, value in super().identity().items() if key != "weights"}

    def check(self, shape: tuple[int, int, int]) -> None:
        import timm

        if shape[0] not in (1, 3) or not timm.is_model(self.model):
            raise ValueError(
                f"encoder timm: {self.model} is no model of timm's, or an image is neither grey "
                "nor RGB"
            )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        import timm

        network = timm.create_model(self.model, pretrained=False, num_classes=0)
        return Prepared(load(network, checked(self.weights, self.sha256)))
