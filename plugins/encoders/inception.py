"""Inception-v3 (2015-12-05, pool3, 2048-d, TensorFlow-1 resize): the one space that may be called
FID.

Heusel et al., GANs Trained by a Two Time-Scale Update Rule, arXiv 1706.08500. Network and resize
are torch-fidelity's.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fw.core.errors import MissingFile
from fw.core.files.contents import genuine, sha256
from fw.core.files.download import WebFile
from fw.core.files.weights import check_finite
from fw.core.kinds import Encoder
from fw.registry import UNKNOWN, Download, Neutral, Supervision, labels_of

FILE_NAMES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
SOURCE = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/" + FILE_NAMES[0]
PUBLISHED = "6726825d"
"""How the sha256 of the published weights begins, which learned the labels of ImageNet."""

AT_ONCE = 64  # images of 299x299 in flight: about 1 GB


class Inception(Encoder):
    """Inception-v3 pool3 features (2048), as in FID (arXiv 1706.08500), from a local weights
    file."""

    name: ClassVar[str] = "inception"

    weights: Path | None = Field(
        None, description="weights file; null looks in $FW_WEIGHTS_DIR and torch hub's cache"
    )
    sha256: str = Field(
        PUBLISHED, pattern="^[0-9a-f]{8,64}$", description="how the weights file's sha256 begins"
    )
    features: Annotated[Literal["pool3", "logits"], Neutral("pool3")] = Field(
        "pool3", description="2048 features, or the scores of 1008 classes, without bias"
    )

    @property
    def gives_logits(self) -> bool:
        return self.features == "logits"

    @property
    def own_supervision(self) -> Supervision:
        published = self.sha256.startswith(PUBLISHED)
        return labels_of("ImageNet") if published else UNKNOWN

    def preflight(self) -> None:
        self.weights_file()

    def downloads(self) -> Iterable[Download]:
        """The published weights; nobody knows where those of another sum come from."""
        if self.sha256.startswith(PUBLISHED):
            place = next((place for place in self.places() if place.is_file()), self.places()[0])
            yield WebFile("Inception's weights", SOURCE, place.absolute(), sha256=self.sha256)

    def identity(self) -> dict[str, Any]:
        return {key: value for key, value in super().identity().items() if key != "weights"}

    def check(self, shape: tuple[int, int, int]) -> None:
        if shape[0] not in (1, 3):
            raise ValueError(
                f"encoder inception: images have {shape[0]} channels, it takes 1 (grey) or 3 (RGB)"
            )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        self.check(shape)
        return Pool3(self)

    def weights_file(self) -> Path:
        """The first weights file that is there, its hash checked, or MissingFile."""
        places = self.places()
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise MissingFile(
                f"Inception's weights are missing; looked at {', '.join(map(str, places))}: `fw "
                f"fetch RECIPE` brings them; or copy {FILE_NAMES[0]} (sha256 {self.sha256}..., "
                f"from {SOURCE}) to one of these, give its path as `weights`, or measure in the "
                "space 'classifier' or 'pca' (metric fd) instead of fid"
            )
        genuine(path, "encoder inception: ")
        digest = sha256(path)
        if not digest.startswith(self.sha256):
            raise MissingFile(
                f"{path} is not the expected Inception: its sha256 begins with {digest[:8]}, "
                f"expected {self.sha256} ({FILE_NAMES[0]}, from {SOURCE})"
            )
        return path

    def places(self) -> list[Path]:
        """Where the weights may lie, in the order of search."""
        folders = [Path(torch.hub.get_dir()) / "checkpoints"]
        if directory := os.environ.get("FW_WEIGHTS_DIR"):
            folders.insert(0, Path(directory))
        given = [self.weights] if self.weights else []
        return given + [folder / file for folder in folders for file in FILE_NAMES]


class Pool3(nn.Module):
    """Loads the network when it is first used and keeps it out of the state dict: its file is
    already on disk.

    Because it is no submodule, it also stays in eval mode whatever is done to this module.
    """

    def __init__(self, encoder: Inception):
        super().__init__()
        self.encoder = encoder
        self.loaded: list[nn.Module] = []

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (B, 1 or 3, H, W) -> features (B, 2048), or class scores (B, 1008)."""
        if not self.loaded:
            layer = "logits_unbiased" if self.encoder.gives_logits else "2048"
            self.loaded = [load(self.encoder.weights_file(), layer)]
        network = self.loaded[0].to(images.device)
        colour = images if images.shape[1] == 3 else images.repeat(1, 3, 1, 1)  # (B, 3, H, W)
        return torch.cat([network(few)[0] for few in colour.split(AT_ONCE)])


def load(path: Path, layer: str = "2048") -> nn.Module:
    """torch-fidelity's extractor of this layer with the weights of `path`.

    torch-fidelity would unpickle the file without restriction, so the file is read safely here and
    handed over as bytes that we wrote ourselves.
    """
    from torch_fidelity import FeatureExtractorInceptionV3

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        safe = io.BytesIO()
        torch.save(weights, safe)
        safe.seek(0)
        network = FeatureExtractorInceptionV3(
            "inception", [layer], feature_extractor_weights_path=safe
        )
    except (RuntimeError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MissingFile(
            f"{path} does not hold Inception's weights ({reason}): copy it again from {SOURCE}"
        ) from error
    check_finite(network, network.state_dict(), path)
    return network
