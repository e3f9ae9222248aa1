"""Log a run to a file of JSON lines in its own folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from fw.core.errors import FwError
from fw.core.kinds import RunDescription, TrackedRun, Tracker
from fw.registry import hookimpl

FW_API = 2


class Example(Tracker):
    """Appends JSON lines to a file in the run's folder: arm, what, key, step and value of each
    entry."""

    name: ClassVar[str] = "example"

    file: str = Field("events.jsonl", pattern=r"^\w[\w.-]*\.jsonl$", description="the file's name")

    def open(self, run: RunDescription) -> TrackedRun:
        lines = Lines(run.folder / self.file)
        for arm in run.arms:
            for key, value in arm.params.items():
                lines.add(arm.name, "param", key, value)
        return lines


class Lines:
    """See `fw.core.kinds.TrackedRun`. A resumed run logs everything again; what the file has
    already is not added."""

    def __init__(self, path: Path):
        self.path = path
        self.logged: dict[tuple[Any, ...], Any] = {}
        text = path.read_text("utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a crash may have cut the last line off
        if whole != text:
            path.write_text(whole, encoding="utf-8")
        for event in map(json.loads, whole.splitlines()):
            self.logged[event["arm"], event["what"], event["key"], event["step"]] = event["value"]

    def series(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
        for record in records:
            for key, value in record.items():
                if key != "step":
                    self.add(arm, "series", key, value, int(record["step"]))

    def scores(self, arm: str | None, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self.add(arm, "score", key, value)

    def files(self, arm: str | None, paths: Sequence[Path]) -> None:
        for path in paths:
            self.add(arm, "file", path.name, str(path))

    def model(self, arm: str, weights: Path, scores: Mapping[str, float]) -> None:
        self.add(arm, "model", weights.name, str(weights))

    def note(self, markdown: str) -> None:
        self.add(None, "note", "result", markdown)

    def end_arm(self, arm: str, status: str) -> None:
        self.add(arm, "status", "status", status)

    def end(self, status: str) -> None:
        self.add(None, "status", "status", status)

    @property
    def handle(self) -> Mapping[str, Any]:
        return {"file": str(self.path)}

    @property
    def hint(self) -> str:
        return str(self.path)

    def add(
        self, arm: str | None, what: str, key: str, value: float | str, step: int | None = None
    ) -> None:
        """Append a line, unless the last line of the same entry has the same value."""
        if self.logged.get((arm, what, key, step)) == value:
            return
        event = {"arm": arm, "what": what, "key": key, "step": step, "value": value}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
        except OSError as error:
            raise FwError(f"cannot write to {self.path}: {error.strerror}") from error
        self.logged[arm, what, key, step] = value


@hookimpl
def fw_components() -> list[type[Tracker]]:
    return [Example]
