"""Folders as diffusers' save_pretrained writes them: checked, known by their content, loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from fw.core.errors import MissingFile
from fw.core.files.contents import genuine, read_json, sha256
from fw.core.files.hub import Choice, HubFiles
from fw.plugins.shared.saved import Saved, named_weights, saved
from fw.registry import ANY, Component, Download, Neutral

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"

ON_THE_HUB = re.compile(
    r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(/(?P<folder>\w[\w.-]*))?(@(?P<revision>[\w./-]+))?"
)

Source = Annotated[
    str | None,
    Field(
        pattern=f"^{ON_THE_HUB.pattern}$",
        description=(
            "where `fw fetch` gets the folder `weights`: OWNER/NAME on the hub, with /FOLDER for a "
            "part of it and @REVISION for another than the main one"
        ),
    ),
    Neutral(ANY),
]
"""A field that says what is to lie in a folder; the keys know the folder by its content."""


def by_fetch(source: str | None) -> str:
    """How `fw fetch` would help where a folder is missing."""
    brings = "`fw fetch RECIPE` brings it"
    return brings if source else f"give its repository on the hub as `source`, and {brings}"


def from_hub(
    source: str | None, folder: Path, there: Callable[[], bool], choice: Choice
) -> Iterator[Download]:
    """The download of a folder, if the recipe says where it comes from."""
    if source is not None and (named := ON_THE_HUB.fullmatch(source)):
        yield HubFiles.in_folder(
            source,
            named["repository"],
            folder.absolute(),
            there,
            choice=choice,
            folder=named["folder"] or "",
            revision=named["revision"],
        )


def files_of_network(there: Sequence[str]) -> list[str]:
    """Of the names of files, those of a network's folder that are read; none if one is lacking."""
    weights = named_weights(there, (WEIGHTS,))
    return [CONFIG, *weights] if weights and CONFIG in there else []


def weights_in(folder: Path) -> Saved | None:
    """The weights of a folder that are read; None if it has none. See `saved`."""
    return saved(folder, (WEIGHTS,))


def checked_settings(component: Component, folder: Path, remedy: str) -> dict[str, Any]:
    """The folder's settings. MissingFile, in the name of the component, if they or the weights are
    not there or not sound."""
    whose = f"{component.kind} {component.name}: "
    config = folder / CONFIG
    if config.is_file():
        genuine(config, whose)
    try:
        weights = weights_in(folder)
    except MissingFile as error:
        raise MissingFile(f"{whose}{error}") from None
    if weights is None or not config.is_file():
        lacking = WEIGHTS if config.is_file() else CONFIG
        raise MissingFile(f"{whose}there is no {lacking} in {folder}: {remedy}")
    settings = read_json(config)
    if settings is None:
        raise MissingFile(f"{whose}{config} is not a JSON object")
    weights.check(whose)
    return settings


def content(folder: Path, noted: Collection[str] = ()) -> list[str] | None:
    """What a folder adds to the keys: the sha256 of its settings and of each file of its weights.

    None if they are not all there. Notes of diffusers among the settings, such as
    `_diffusers_version`, do not count, except those in `noted`.
    """
    config = read_json(folder / CONFIG)
    try:
        weights = weights_in(folder)
        if config is None or weights is None:
            return None
        return [settings_digest(config, noted), *(sha256(file) for file in weights.files)]
    except (MissingFile, OSError):
        return None


def settings_digest(config: Mapping[str, Any], noted: Collection[str]) -> str:
    counts = {key: config[key] for key in config if key in noted or not key.startswith("_")}
    return hashlib.sha256(json.dumps(counts, sort_keys=True).encode()).hexdigest()


def from_folder(
    component: Component, architecture: str, folder: Path
) -> tuple[Any, dict[str, Any]]:
    """diffusers' network of this class, in float32, and its report on missing and unexpected keys.

    Nothing is downloaded. MissingFile, in the name of the component, if the folder cannot be loaded
    or has weights that are not finite.
    """
    import diffusers

    weights = weights_in(folder)
    assert weights is not None  # see `checked_settings`
    with weights.standard_folder(CONFIG) as standard:
        try:
            with quiet():
                network, loading_info = getattr(diffusers, architecture).from_pretrained(
                    standard,
                    local_files_only=True,
                    use_safetensors=True,
                    torch_dtype=torch.float32,
                    output_loading_info=True,
                )
        except Exception as error:  # a damaged file or other shapes: a dozen classes
            message = str(error).replace(str(standard), str(folder)).strip()
            reason = message.partition("\n")[0][:200] or type(error).__name__
            raise MissingFile(
                f"{component.kind} {component.name}: {folder} cannot be loaded: {reason}"
            ) from error
    weights.check_loaded(network, f"{component.kind} {component.name}: ")
    return network, loading_info


@contextmanager
def quiet() -> Iterator[None]:
    """Without diffusers' remarks on settings that it wrote itself."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
