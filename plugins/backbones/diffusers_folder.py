"""A pretrained denoiser of diffusers in a local folder, to train further or to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from fw.core.errors import FwError, MissingFile
from fw.core.files.contents import genuine, read_json
from fw.core.kinds import Backbone
from fw.core.types import ConditionSpec
from fw.plugins.backbones.diffusers_networks import WRAPPERS, wrapped
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
from fw.registry import CAPTIONS, NOTHING, UNKNOWN, Download, Supervision, labels_of

PIPELINE, SCHEDULER = "model_index.json", "scheduler_config.json"
PARTS = ("unet", "transformer")
"""Sub-folders of a pipeline that hold its denoiser."""

DIT = "DiTTransformer2DModel"
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
UNFED = (
    "class_embed_type",
    "addition_embed_type",
    "encoder_hid_dim",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
    "class_embeddings_concat",
)
"""Settings of networks that need inputs which fw does not give."""

Shape = tuple[int, int, int]
Config = Mapping[str, Any]


class DiffusersFolder(Backbone):
    """A pretrained UNet2DModel, UNet2DConditionModel or DiTTransformer2DModel of diffusers, from a
    local folder.

    Training goes on from its weights. Its timesteps and its prediction are those of process `ddpm`,
    whose fields must agree with the pipeline's scheduler. The network's folder alone does not say
    them. The folder enters the keys by its content, not by where it lies.
    """

    name: ClassVar[str] = "diffusers"
    pretrained: ClassVar[bool] = True
    conditions: ClassVar[frozenset[str]] = frozenset({"class"})

    weights: Path = Field(
        description=f"a pipeline's folder, with {PIPELINE}, or that of its network, with {CONFIG} "
        f"and {WEIGHTS}, or shards or a variant of it",
        examples=["weights/ddpm"],
    )
    classes: Literal["new", "kept"] = Field(
        "new",
        description=(
            "new ones are learned; kept are those that the network was trained with, in their order"
        ),
    )

    source: Source = None
    supervision: Stated = None

    @property
    def own_supervision(self) -> Supervision:
        config = self.config()
        return supervision(UNKNOWN if config is None else trained_with(config), self.supervision)

    @property
    def requires(self) -> frozenset[str]:
        """The process that the scheduler's settings describe."""
        scheduler = self.scheduler()
        if scheduler is None or unfit_scheduler(scheduler):
            return frozenset({"timesteps"})
        return frozenset({described(scheduler)})

    @property
    def provides(self) -> frozenset[str]:
        """All that such networks can provide, as long as the folder is not there."""
        config = self.config()
        return (
            frozenset({"taps"})
            if config is not None and not attends(config)
            else frozenset({"attention", "taps"})
        )

    def check(self, shape: Shape) -> None:
        config = self.config()
        if config is None:
            return
        if reason := self.unfit(config):
            raise ValueError(reason)
        colours, height, width = shape
        if colours != config.get("in_channels"):
            raise ValueError(
                f"backbone {self.name}: the network takes images with {config.get('in_channels')} "
                f"channels, and these have {colours}"
            )
        if config["_class_name"] == DIT:
            side = config.get("sample_size")
            if (height, width) != (side, side):
                raise ValueError(
                    f"backbone {self.name}: the network takes images of {side}x{side} only, and "
                    f"these are {height}x{width}"
                )
            return
        smallest = 2 ** (len(config["block_out_channels"]) - 1)
        if height % smallest or width % smallest:
            raise ValueError(
                f"backbone {self.name}: the network takes images whose sides are multiples of "
                f"{smallest}, and these are {height}x{width}"
            )

    def preflight(self) -> None:
        config = checked_settings(
            self,
            self.folder(),
            "set `weights` to a folder as diffusers' save_pretrained writes it, of a pipeline or "
            f"of its network, with safetensors, or {by_fetch(self.source)}",
        )
        if (settings := self.scheduler_file()).is_file() and self.scheduler() is None:
            genuine(settings, f"backbone {self.name}: ")
            raise MissingFile(f"backbone {self.name}: {settings} is not a JSON object")
        if reason := self.unfit(config):
            raise FwError(reason)

    def downloads(self) -> Iterable[Download]:
        return from_hub(
            self.source,
            self.weights.expanduser(),
            lambda: content(self.folder()) is not None,
            files_of_pipeline,
        )

    def identity(self) -> dict[str, Any]:
        fields = {key: value for key, value in super().identity().items() if key != "weights"}
        return {**fields, "content": content(self.folder(), noted=("_class_name",))}

    def build(self, shape: Shape, condition: ConditionSpec | None) -> nn.Module:
        self.preflight()
        self.check(shape)
        config = self.config()
        assert config is not None
        kept = self.classes == "kept" and condition is not None
        own = config.get(
            "num_embeds_ada_norm" if config["_class_name"] == DIT else "num_class_embeds"
        )
        if condition is not None and kept and condition.size != own:
            raise FwError(
                f"backbone {self.name}: `classes: kept` needs the network's own {own or 0} "
                f"classes, and the arm has {condition.size}"
            )
        return wrapped(
            self.loaded(config["_class_name"]), condition.size if condition else None, kept
        ).train()

    def loaded(self, architecture: str) -> Any:
        """diffusers' network, or MissingFile if the files are damaged or do not belong together."""
        network, loading_info = from_folder(self, architecture, self.folder())
        for which, fault in (("missing", "lacks"), ("unexpected", "has too many")):
            if keys := sorted(loading_info[f"{which}_keys"]):
                raise MissingFile(
                    f"backbone {self.name}: {self.folder()} {fault} weights, {len(keys)} such as "
                    f"{keys[0]}: they are not of this {CONFIG}"
                )
        return network

    def unfit(self, config: Config) -> str | None:
        """Why fw cannot use what the folder describes, or None."""
        reason = unfit_network(config)
        scheduler = self.scheduler()
        if reason is None and scheduler is not None:
            reason = unfit_scheduler(scheduler)
        return reason and f"backbone {self.name}: {self.weights} {reason}"

    def folder(self) -> Path:
        """The network's folder: a part of the pipeline's, or `weights` itself."""
        folder = self.weights.expanduser()
        parts = [
            folder / part
            for part in PARTS
            if (folder / PIPELINE).is_file() and (folder / part).is_dir()
        ]
        return parts[0] if parts else folder

    def config(self) -> Config | None:
        """The network's settings; None if there are none."""
        return read_json(self.folder() / CONFIG)

    def scheduler(self) -> Config | None:
        """The settings of the pipeline's scheduler; None without any, or without the pipeline."""
        return read_json(self.scheduler_file())

    def scheduler_file(self) -> Path:
        folder = self.weights.expanduser()
        pipeline = folder.parent if folder.name in PARTS else folder
        beside, below = pipeline / SCHEDULER, pipeline / "scheduler" / SCHEDULER
        return below if below.is_file() else beside


def files_of_pipeline(there: Sequence[str]) -> list[str]:
    """Of the names of a repository's files, those that are read: its network and the settings of
    its scheduler."""
    for part in ("", *(f"{part}/" for part in PARTS)):
        inner = [name.removeprefix(part) for name in there if name.startswith(part)]
        if network := files_of_network(inner):
            beside = (PIPELINE, SCHEDULER, f"scheduler/{SCHEDULER}")
            return [*(name for name in beside if name in there), *(part + name for name in network)]
    return []


def unfit_network(config: Config) -> str | None:
    architecture = config.get("_class_name")
    if architecture not in WRAPPERS:
        return f"holds an {architecture or 'unknown model'}, and fw takes {', '.join(WRAPPERS)}"
    if config.get("time_embedding_type", "positional") != "positional":
        return (
            f"has time_embedding_type {config['time_embedding_type']}, and fw gives it timesteps "
            "(positional)"
        )
    for key in UNFED:
        if config.get(key):
            return f"has {key} {config[key]}, and fw has no input for that"
    if architecture == "UNet2DConditionModel" and not isinstance(
        config.get("cross_attention_dim", 1280), int
    ):
        return "has a cross_attention_dim of its own for each level, which fw does not know"
    inputs, outputs = config.get("in_channels"), config.get("out_channels")
    if outputs is not None and inputs is not None and outputs not in (inputs, 2 * inputs):
        return (
            f"makes {outputs} channels of {inputs}, and a denoiser makes as many, "
            "or twice as many with a learned variance"
        )
    return None


def unfit_scheduler(scheduler: Config) -> str | None:
    """Why process `ddpm` cannot follow the scheduler's settings, or None."""
    if scheduler.get("prediction_type", "epsilon") not in PREDICTIONS:
        return (
            f"has a scheduler with prediction_type {scheduler['prediction_type']}, which process "
            "ddpm does not know"
        )
    betas = scheduler.get("beta_schedule", "linear")
    if scheduler.get("trained_betas") is not None or betas not in ("linear", "squaredcos_cap_v2"):
        return (
            f"has a scheduler with beta_schedule {betas}, and process ddpm has linear and "
            "squaredcos_cap_v2 (cosine)"
        )
    ends = scheduler.get("beta_start", 1e-4), scheduler.get("beta_end", 0.02)
    if betas == "linear" and ends != (1e-4, 0.02):
        return (
            f"has a scheduler with betas from {ends[0]} to {ends[1]}, and process ddpm's are from "
            "0.0001 to 0.02"
        )
    return None


def trained_with(config: Config) -> Supervision:
    """What the network was given beside images: classes, texts, or nothing."""
    architecture = config.get("_class_name")
    if architecture == DIT or config.get("num_class_embeds"):
        return labels_of("the data that it was trained on")
    return {"UNet2DConditionModel": CAPTIONS, "UNet2DModel": NOTHING}.get(
        str(architecture), UNKNOWN
    )


def described(scheduler: Config) -> str:
    """The process as a recipe writes it, in the same words as `ddpm.provides`."""
    prediction = PREDICTIONS[scheduler.get("prediction_type", "epsilon")]
    schedule = "linear" if scheduler.get("beta_schedule", "linear") == "linear" else "cosine"
    steps = scheduler.get("num_train_timesteps", 1000)
    return (
        f"process: {{name: ddpm, prediction: {prediction}, schedule: {schedule}, timesteps: "
        f"{steps}}}"
    )


def attends(config: Config) -> bool:
    """Whether the network has layers of self-attention."""
    blocks = [*config.get("down_block_types", ()), *config.get("up_block_types", ())]
    if config.get("_class_name") == DIT or any("Attn" in block for block in blocks):
        return True
    middle = config.get("mid_block_type", "UNetMidBlock2D")
    return bool(middle) and (
        config.get("add_attention", True) if middle == "UNetMidBlock2D" else "Attn" in middle
    )
