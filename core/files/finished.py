"""The weights of a finished run's arm, as a recipe names them: `train: {from: RUN#ARM}`.

They are found through run.json and the manifests of the store beside it. Keys depend on what is in
them and not on where they lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from fw.core.errors import MissingFile
from fw.core.files.contents import read_json, sha256
from fw.core.files.layout import MANIFEST, MODEL, RUN_FILE, STORE
from fw.core.files.weights import supervision_in
from fw.registry import ANY, Component, Neutral, Supervision
from fw.registry.supervision import parsed

FORM = "expected RUN#ARM, a run's folder and one of its arms, such as runs/mine/latest#guided"


class FinishedWeights(Component):
    """The averaged weights that an arm's images were drawn of, those of its first training. As
    text it is RUN#ARM, and what the run says of the weights is looked up when that is read. A link
    is followed then, too."""

    kind: ClassVar[str] = "train"
    name: ClassVar[str] = "from"

    run: Annotated[str, Neutral(ANY)] = Field(description="the run's folder")
    arm: Annotated[str, Neutral(ANY)] = Field(description="one of its arms")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the file of weights")
    process: Annotated[dict[str, Any], Neutral(ANY)] = Field(
        description="what they were trained under"
    )
    supervision: Annotated[str, Neutral(ANY)] = Field(
        "unknown", description="what supervised them, in the words of the file"
    )

    @model_validator(mode="before")
    @classmethod
    def _looked_up(cls, data: Any) -> Any:
        if isinstance(data, Mapping | FinishedWeights):
            return data
        named, sign, arm = str(data).rpartition("#")
        if not (sign and named and arm):
            raise ValueError(f"{FORM} (it is {data!r})")
        try:
            found = Found(Path(named), arm)
        except MissingFile as error:
            raise ValueError(str(error)) from None
        return {
            "run": str(where_it_leads(folder_of(Path(named)))),
            "arm": arm,
            "sha256": found.sha256,
            "process": found.process,
            "supervision": str(supervision_in(found.file)),
        }

    def __str__(self) -> str:
        return f"{self.run}#{self.arm}"

    @property
    def own_supervision(self) -> Supervision:
        return parsed(self.supervision)

    def preflight(self) -> None:
        self.file()

    def found(self) -> Found:
        """Where they lie; MissingFile if that says that they are gone, or are others."""
        found = Found(Path(self.run), self.arm)
        if found.sha256 != self.sha256:
            raise MissingFile(
                f"train.from: {self} has other weights by now than those that the recipe was read "
                f"with (sha256 {found.sha256[:12]}, and not {self.sha256[:12]})"
            )
        return found

    def file(self) -> Path:
        """The safetensors; MissingFile unless they are there, and are these to the last byte."""
        found = self.found()
        if sha256(found.file) != self.sha256:
            raise MissingFile(
                f"train.from: the weights of {self} are damaged in the store: run `fw verify "
                f"{found.store} --discard` and the recipe of that run again"
            )
        return found.file


def folder_of(run: Path) -> Path:
    """The folder that a user means, who may name the run.json in it."""
    return run.parent if run.is_file() else run


def where_it_leads(folder: Path) -> Path:
    """The run's own folder if this is a link to it, such as `latest`: another run later makes it
    lead elsewhere, and this one may be that run."""
    return folder.parent / folder.readlink() if folder.is_symlink() else folder


class Found:
    """What a runs folder says of an arm's weights; MissingFile where it says nothing."""

    def __init__(self, run: Path, arm: str):
        folder = folder_of(run)
        record = read_json(folder / RUN_FILE)
        if record is None:
            raise MissingFile(f"{run} is no run's folder: there is no {RUN_FILE} to read in it")
        arms = record.get("arms") or {}
        if arm not in arms:
            raise MissingFile(f"no arm '{arm}' in {run} (known: {', '.join(arms)})")
        self.store = folder.resolve().parent.parent / STORE
        try:
            drawn = self._manifest(arms[arm]["sample_key"])["payload"]
            inputs = drawn["inputs"]
            made = inputs.get("average") or inputs["train"]  # roles of stages/sample.py
            self.process: dict[str, Any] = dict(drawn["process"])
            self.sha256: str = self._manifest(made)["files"][MODEL]["sha256"]
        except (LookupError, TypeError):
            raise MissingFile(
                f"arm {arm} of {run} has no finished samples in {self.store}: run its recipe first"
            ) from None
        self.file = self.store / made / MODEL

    def _manifest(self, stage: str) -> dict[str, Any]:
        return read_json(self.store / stage / MANIFEST) or {}
