"""Encoders with published weights: local files, which enter the keys by their content."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import nn

from fw.core.errors import MissingFile
from fw.core.files.contents import genuine
from fw.core.files.hub import Choice, HubFiles
from fw.core.kinds import Encoder
from fw.core.machine.precision import ABOUT, Precision
from fw.plugins.encoders import timm_checkpoint, transformers_checkpoint
from fw.plugins.encoders.checkpoint import Checkpoint
from fw.plugins.encoders.timm_checkpoint import TimmCheckpoint, patch_in, timm_config
from fw.plugins.encoders.timm_tags import supervision_of
from fw.plugins.encoders.transformers_checkpoint import TransformersCheckpoint
from fw.plugins.shared.saved import named_weights, saved
from fw.plugins.shared.stated import Stated, supervision
from fw.registry import UNKNOWN, Download, Neutral, Supervision


class Pretrained(Encoder):
    """A frozen network whose weights are files. A subclass has a field `embedding`.

    The files enter the keys by their content, not by where they lie. Without them nothing can be
    run, and --dry-run shows keys without files.
    """

    default: ClassVar[str]
    """timm's name of the default model."""
    architectures: ClassVar[str]
    """A pattern that matches the beginning of timm's names of such models."""
    model_types: ClassVar[tuple[str, ...]]
    """transformers' names of such models."""

    model: str | None = Field(
        None,
        min_length=1,
        description=(
            "timm's name, or a repository of the hub (with a /), in the hub's cache; null: the "
            "default"
        ),
    )
    weights: Path | None = Field(
        None,
        description=(
            "a file (timm's state dict) or a folder (timm's or transformers'); null: the hub's "
            "cache"
        ),
    )
    resolution: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="side of the network's input in pixels; null: the model's own",
    )

    precision: Annotated[Precision, Neutral("fp32")] = Field("fp32", description=ABOUT)
    supervision: Stated = None

    @property
    def computes_in(self) -> Precision:
        return self.precision

    @property
    def own_supervision(self) -> Supervision:
        return supervision(self.in_files(), self.supervision)

    def in_files(self) -> Supervision:
        """What the files say; if they are not there, timm's name of the weights does."""
        try:
            return self.checkpoint().supervision
        except MissingFile:
            named = timm_name(self.model or self.default)
            return UNKNOWN if self.weights else supervision_of(named)

    def preflight(self) -> None:
        self.sound()

    def downloads(self) -> Iterable[Download]:
        """What is named and lies in the hub's cache; `weights` are the user's own."""
        model = self.model or self.default
        if self.weights is not None:
            return
        if "/" in model:
            yield HubFiles.in_cache(model, model, self.is_sound, choice=files_of_model)
        elif (repository := self.in_timm(model)) is not None:
            yield HubFiles.in_cache(
                model, repository[0], self.is_sound, choice=first(repository[1])
            )

    def is_sound(self) -> bool:
        try:
            self.sound()
        except MissingFile:
            return False
        return True

    def identity(self) -> dict[str, Any]:
        fields = {
            key: value
            for key, value in super().identity().items()
            if key not in ("weights", "model")
        }
        try:
            return {**fields, "content": self.checkpoint().content()}
        except MissingFile:
            return {**fields, "model": self.model, "content": None}

    def check(self, shape: tuple[int, int, int]) -> None:
        if shape[0] not in (1, 3):
            raise ValueError(
                f"encoder {self.name}: images have {shape[0]} channels, it takes 1 (grey) or 3 "
                "(RGB)"
            )
        if self.weights is None or self.model is not None:
            self.check_model(self.model or self.default)

    def check_model(self, model: str) -> None:
        if "/" in model:
            return
        if not re.match(self.architectures, model) or not timm_config(model):
            raise ValueError(
                f"encoder {self.name}: {model} is none of its models in timm, such as "
                f"{self.default}"
            )
        if fine_tuned(model):
            raise ValueError(
                f"encoder {self.name}: {model} was trained further with the labels of ImageNet"
            )
        self.check_resolution(patch_in(model))

    def check_resolution(self, patch: int) -> None:
        if self.resolution is not None and self.resolution % patch:
            raise ValueError(
                f"encoder {self.name}: resolution {self.resolution} is no multiple of the patch, "
                f"{patch}"
            )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        self.check(shape)
        return self.sound().load(self.spec()["embedding"], self.resolution)

    def sound(self) -> Checkpoint:
        """The checkpoint, or FwError: it is not there, not of this encoder, or not for this
        resolution."""
        checkpoint = self.checkpoint()
        checkpoint.check()
        for file in checkpoint.files:
            genuine(file, f"encoder {self.name}: ")
        try:
            self.check_resolution(checkpoint.patch)
        except ValueError as error:
            raise MissingFile(f"{error} (of {checkpoint.files[0]})") from None
        return checkpoint

    def checkpoint(self) -> Checkpoint:
        """The checkpoint at `weights`, or in the hub's cache; MissingFile if there is none."""
        if self.weights is None:
            return self.in_the_cache(self.model or self.default)
        place = self.weights.expanduser()
        if place.is_dir():
            if self.model is not None:
                raise MissingFile(
                    f"encoder {self.name}: {place} is a folder, whose config.json says what it "
                    "holds: leave out `model`"
                )
            return self.in_folder(place)
        if not place.is_file():
            raise MissingFile(
                f"encoder {self.name}: `weights` is {place}, and there is neither a state dict in "
                "timm's format nor a folder with config.json and model.safetensors; mend the path"
            )
        return TimmCheckpoint(self.model or self.default, place)

    def in_the_cache(self, model: str) -> Checkpoint:
        if "/" in model:
            return self.in_folder(self.cached(model, ["config.json"]).parent)
        if (known := self.in_timm(model)) is None:
            raise MissingFile(
                f"encoder {self.name}: timm has no weights of {model}; give a file of them as "
                "`weights`"
            )
        return TimmCheckpoint(model, self.cached(*known), tag=timm_name(model).partition(".")[2])

    def in_timm(self, model: str) -> tuple[str, list[str]] | None:
        """The repository of the weights that timm names so, and the names that their file may
        have, the first first; None if timm has none."""
        config = timm_config(model)
        if not config or not config.hf_hub_id:
            return None
        own = config.hf_hub_filename
        return config.hf_hub_id, [own] if own else list(timm_checkpoint.WEIGHTS)

    def cached(self, repository: str, names: list[str]) -> Path:
        """The first of these files of the repository in the hub's cache, without the network."""
        from huggingface_hub import constants, try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            cached = [try_to_load_from_cache(repository, name) for name in names]
        except HFValidationError:
            cached = []
        for file in cached:
            if isinstance(file, str):
                return Path(file)
        raise MissingFile(
            f"encoder {self.name}: {names[0]} of {repository} is not in the hub's cache "
            f"{constants.HF_HUB_CACHE}: `fw fetch RECIPE` brings it; or run `hf download "
            f"{repository} --local-dir FOLDER` where there is a network, bring the folder here and "
            "set `weights: FOLDER`, without `model`"
        )

    def in_folder(self, folder: Path) -> Checkpoint:
        config = self.settings(folder)
        if "model_type" in config:
            return self.from_transformers(folder, config)
        if "architecture" in config:
            return self.from_timm(folder, config)
        raise MissingFile(
            f"encoder {self.name}: {folder / 'config.json'} has neither timm's `architecture` nor "
            "transformers' `model_type`, so it is of neither"
        )

    def settings(self, folder: Path) -> dict[str, Any]:
        path = genuine(self.present(folder, ("config.json",)), f"encoder {self.name}: ")
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise MissingFile(f"encoder {self.name}: {path} is not JSON ({error})") from None
        return config if isinstance(config, dict) else {}

    def from_transformers(self, folder: Path, config: dict[str, Any]) -> Checkpoint:
        if config["model_type"] not in self.model_types:
            raise MissingFile(
                f"encoder {self.name}: {folder} holds a model of the type "
                f"'{config['model_type']}', and this encoder takes {' or '.join(self.model_types)}"
            )
        weights = saved(folder, transformers_checkpoint.WEIGHTS)
        if weights is None:
            raise self.lacking(folder, transformers_checkpoint.WEIGHTS)
        return TransformersCheckpoint(
            folder, config, weights, self.present(folder, transformers_checkpoint.PROCESSOR)
        )

    def from_timm(self, folder: Path, config: dict[str, Any]) -> Checkpoint:
        name, pretrained_cfg = config["architecture"], config.get("pretrained_cfg", {})
        full = f"{name}.{pretrained_cfg['tag']}" if pretrained_cfg.get("tag") else name
        if not re.match(self.architectures, full) or not timm_config(name) or fine_tuned(full):
            raise MissingFile(
                f"encoder {self.name}: {folder} holds timm's {full}, which is none of its models "
                f"like {self.default}"
            )
        weights = self.present(folder, timm_checkpoint.WEIGHTS)
        arguments, tag = config.get("model_args", {}), pretrained_cfg.get("tag") or ""
        return TimmCheckpoint(name, weights, pretrained_cfg, arguments, tag)

    def present(self, folder: Path, names: tuple[str, ...]) -> Path:
        """The first of these files that is in the folder, or MissingFile."""
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise self.lacking(folder, names)

    def lacking(self, folder: Path, names: tuple[str, ...]) -> MissingFile:
        remedy = (
            "`fw fetch RECIPE` brings it"
            if self.weights is None
            else "download the whole repository, with `hf download NAME --local-dir FOLDER`"
        )
        return MissingFile(
            f"encoder {self.name}: there is no {' or '.join(names)} in {folder}: {remedy}"
        )


def timm_name(model: str) -> str:
    """timm's name of a model with the tag of its weights, its usual one where none is named."""
    architecture, _, tag = model.partition(".")
    config = None if tag else timm_config(model)
    return f"{architecture}.{config.tag or ''}" if config else model


def fine_tuned(model: str) -> bool:
    """Whether timm's tag says that the weights were fine-tuned with ImageNet's labels."""
    return "_ft_in" in model.partition(".")[2]


def first(names: Sequence[str]) -> Choice:
    """The first of these names that a repository has."""
    return lambda there: [name for name in names if name in there][:1]


def files_of_model(there: Sequence[str]) -> list[str]:
    """The files of a repository of timm or transformers that are read: settings and one set of
    weights, by the rule of `saved`."""
    settings = (transformers_checkpoint.CONFIG, *transformers_checkpoint.PROCESSOR)
    weights = named_weights(there, transformers_checkpoint.WEIGHTS)
    return [*(name for name in settings if name in there), *weights] if weights else []
