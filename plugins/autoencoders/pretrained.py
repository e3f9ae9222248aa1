"""diffusers' autoencoders: their folder, its part in the keys, one or three colours."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pydantic import Field
from torch import Tensor, nn

from fw.core.diffusion.pixels import to_unit
from fw.core.errors import FwError, MissingFile
from fw.core.files.contents import read_json
from fw.core.kinds import Autoencoder, Code
from fw.plugins.shared.diffusers_folder import (
    CONFIG,
    WEIGHTS,
    Source,
    by_fetch,
    checked_settings,
    content,
    files_of_network,
    from_folder,
    from_hub,
)
from fw.plugins.shared.stated import Stated, supervision
from fw.registry import Download, Supervision

LPIPS = (
    "published autoencoders are trained with LPIPS, whose network learned the labels of ImageNet"
)

Shape = tuple[int, int, int]


class Facts(NamedTuple):
    """What a folder's settings say: colours of the images, channels of the latents, the factor by
    which sides shrink, and the side that images must have, if only one fits."""

    colours: int
    channels: int
    shrink: int
    side: int | None = None


class Pretrained(Autoencoder):
    """A frozen autoencoder whose weights are in a folder.

    The folder enters the keys by its content, not by where it lies. Without it nothing can be run,
    and --dry-run shows keys without weights.
    """

    architecture: ClassVar[str]
    """The class of diffusers."""

    weights: Path = Field(
        description=f"a folder as diffusers' save_pretrained writes it, with {CONFIG} and "
        f"{WEIGHTS}, or shards or a variant of it",
        examples=["weights/autoencoder"],
    )
    channels: int = Field(
        4, ge=1, le=65536, description="channels of the latents, which the folder must agree with"
    )
    shrink: int = Field(
        8, ge=1, le=1024, description="by how much height and width shrink, likewise"
    )

    source: Source = None
    supervision: Stated = None

    @property
    def own_supervision(self) -> Supervision:
        """Autoencoders get no labels, but the perceptual loss of all published ones holds them."""
        return supervision(Supervision("unknown", remark=LPIPS), self.supervision)

    @abstractmethod
    def facts(self, config: dict[str, Any]) -> Facts:
        """The facts that the settings in config.json state."""

    @abstractmethod
    def code(self, network: Any, x: Tensor) -> Code:
        """Images (B, C, H, W) in -1..1 to latents, with diffusers' network."""

    @abstractmethod
    def images(self, network: Any, latents: Tensor) -> Tensor:
        """Latents to images (B, C, H, W) in -1..1."""

    def encode(self, network: nn.Module, images: Tensor) -> Code:
        assert isinstance(network, Colours)
        return self.code(network.network, network.read(images))

    def decode(self, network: nn.Module, latents: Tensor) -> Tensor:
        assert isinstance(network, Colours)
        return network.write(self.images(network.network, latents))

    def latent_shape(self, shape: Shape) -> Shape:
        colours, height, width = shape
        facts = self.known_facts()
        if reason := self.disagreement(facts):
            raise ValueError(reason)
        if colours not in (1, facts.colours):
            raise ValueError(
                f"autoencoder {self.name}: images have {colours} channels, it takes 1 or "
                f"{facts.colours}"
            )
        if height % self.shrink or width % self.shrink:
            raise ValueError(
                f"autoencoder {self.name}: images are {height}x{width}, and sides must be "
                f"multiples of {self.shrink}"
            )
        if facts.side is not None and (height, width) != (facts.side, facts.side):
            raise ValueError(
                f"autoencoder {self.name}: images are {height}x{width}, and it takes "
                f"{facts.side}x{facts.side} only"
            )
        return self.channels, height // self.shrink, width // self.shrink

    def preflight(self) -> None:
        config = checked_settings(
            self,
            self.folder(),
            "set `weights` to a folder as diffusers' save_pretrained writes it (of a whole "
            f"pipeline, the sub-folder vae), or {by_fetch(self.source)}",
        )
        if config.get("_class_name") != self.architecture:
            raise MissingFile(
                f"autoencoder {self.name}: {self.folder()} holds an "
                f"{config.get('_class_name', 'unknown model')}, and this is for {self.architecture}"
            )
        if reason := self.disagreement(self.facts(config)):
            raise MissingFile(reason)
        import diffusers

        if not hasattr(diffusers, self.architecture):
            raise FwError(
                f"autoencoder {self.name}: diffusers {diffusers.__version__} has no "
                f"{self.architecture}; update it"
            )

    def downloads(self) -> Iterable[Download]:
        folder = self.folder()
        return from_hub(self.source, folder, lambda: content(folder) is not None, files_of_network)

    def identity(self) -> dict[str, Any]:
        fields = {key: value for key, value in super().identity().items() if key != "weights"}
        return {**fields, "content": content(self.folder())}

    def build(self, shape: Shape) -> nn.Module:
        self.preflight()
        self.latent_shape(shape)
        network, loading_info = from_folder(self, self.architecture, self.folder())
        if missing := loading_info["missing_keys"]:
            raise MissingFile(
                f"autoencoder {self.name}: the weights in {self.folder()} lack {len(missing)} of "
                f"the network, such as {missing[0]}: they are not of this {CONFIG}"
            )
        return Colours(network, repeated=shape[0] != self.known_facts().colours)

    def known_facts(self) -> Facts:
        """The folder's facts if it is there, else what the fields promise, for RGB."""
        config = self.config()
        return Facts(3, self.channels, self.shrink) if config is None else self.facts(config)

    def disagreement(self, facts: Facts) -> str | None:
        if (facts.channels, facts.shrink) == (self.channels, self.shrink):
            return None
        return (
            f"autoencoder {self.name}: {self.folder()} has `channels` {facts.channels} and "
            f"`shrink` {facts.shrink}, and the recipe says {self.channels} and {self.shrink}"
        )

    def folder(self) -> Path:
        return self.weights.expanduser()

    def config(self) -> dict[str, Any] | None:
        """The settings in the folder; None if there are none."""
        return read_json(self.folder() / CONFIG)


class Colours(nn.Module):
    """An autoencoder and the colours that it takes: grey images are `repeated`, and averaged
    when decoded."""

    def __init__(self, network: nn.Module, repeated: bool):
        super().__init__()
        self.network = network
        self.repeated = repeated

    def read(self, images: Tensor) -> Tensor:
        """uint8 images (B, C, H, W) -> float in -1..1, (B, its colours, H, W)."""
        x = to_unit(images)
        return x.expand(-1, 3, -1, -1) if self.repeated else x

    def write(self, x: Tensor) -> Tensor:
        """(B, its colours, H, W) -> (B, C, H, W)."""
        return x.mean(dim=1, keepdim=True) if self.repeated else x
