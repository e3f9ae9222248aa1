"""What a tracker is told of a run, as data: a class for each call of `TrackedRun`.

The work makes calls and does not wait for them; a journal keeps them (core/run/journal.py), and a
thread or `fw sync` makes them (core/run/telling.py). Paths are relative to the runs folder where
they lie in it, so that a journal goes where its folder goes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import TypeAdapter, ValidationError

from fw.core.errors import FwError
from fw.core.kinds import ArmDescription, RunDescription, TrackedRun

PATIENCE = 60.0
"""Seconds that the end of a run waits for one call, on the slowest of machines."""

BYTES_PER_SECOND = 1e6
"""The slowest upload of weights that the end of a run waits for."""


class Sources(Protocol):
    """What calls refer to."""

    @property
    def root(self) -> Path:
        """The runs folder."""

    def size(self, arm: str) -> int:
        """Bytes of an arm's weights, about."""

    def give(self, arm: str, tracked: TrackedRun, scores: Mapping[str, float]) -> None:
        """Hand an arm's model to a tracker that lacks it."""


@dataclass(frozen=True)
class Call:
    """One call; a later one of the same topic says all that an earlier one did."""

    word: ClassVar[str]

    @property
    def topic(self) -> Hashable:
        return self.word, str(self.facts())

    def tell(self, tracked: TrackedRun, sources: Sources) -> None:
        raise NotImplementedError

    def patience(self, sources: Sources) -> float:
        return PATIENCE

    def facts(self) -> dict[str, Any]:
        """The call as JSON."""
        return {"call": self.word, **asdict(self)}


@dataclass(frozen=True)
class Opened(Call):
    """What describes the run, and the tracker that it is meant for, as a recipe would name it."""

    word: ClassVar[str] = "open"

    tracker: Mapping[str, Any]
    recipe: str
    key: str
    baseline: str
    headline: str
    arms: Sequence[Sequence[Any]]
    tags: Mapping[str, str]
    better: str = "lower"

    @property
    def topic(self) -> Hashable:
        return self.word

    def description(self, folder: Path, previous: Mapping[str, Any] | None) -> RunDescription:
        """The run as a tracker opens it, in the folder that it lies in now."""
        return RunDescription(
            recipe=self.recipe,
            key=self.key,
            folder=folder,
            root=folder.parents[1],
            baseline=self.baseline,
            headline=self.headline,
            arms=[ArmDescription(*arm) for arm in self.arms],
            tags=self.tags,
            previous=previous,
            better=self.better,
        )

    def tell(self, tracked: TrackedRun, sources: Sources) -> None:
        pass


@dataclass(frozen=True)
class Series(Call):
    word: ClassVar[str] = "series"

    arm: str | None
    records: Sequence[Mapping[str, float]]

    def tell(self, tracked: TrackedRun, sources: Sources) -> None:
        tracked.series(self.arm, self.records)


@dataclass(frozen=True)
class Scores(Call):
    word: ClassVar[str] = "scores"

    arm: str | None
    values: Mapping[str, float]

    @property
    def topic(self) -> Hashable:
        return self.word, self.arm, tuple(self.values)

    def tell(self, tracked: TrackedRun, sources: Sources) -> None:
        tracked.scores(self.arm, self.values)


@dataclass(frozen=True)
class Words(Call):
    """Short texts, for a tracker that shows such."""

    word: ClassVar[str] = "words"

    arm: str | None
    values: Mapping[str, str]

    @property
    def topic(self) -> Hashable:
        return self.word, self.arm, tuple(self.values)

    def tell(self, tracked: TrackedRun, sources: Sources) -> None:
        words: Callable[[str | None, Mapping[str, str]], None] | None
        if (words := getattr(tracked, "words", None)) is not None:
            words(self.arm, self.values)


@dataclass(frozen=True)
class Files(Call):
    """Files to look at; those that are gone by now are left out."""

    word: ClassVar[str] = "files"

    arm: str | None
    paths: Sequence[str]

    def tell(self, tracked: TrackedRun, sources: Sources) -> None:
        paths = [path for path in (sources.root / each for each in self.paths) if path.exists()]
        if paths:
            tracked.files(self.arm, paths)


@dataclass(frozen=True)
class Model(Call):
    word: ClassVar[str] = "model"

    arm: str
    scores: Mapping[str, float]

    @property
    def topic(self) -> Hashable:
        return self.word, self.arm

    def tell(self, tracked: TrackedRun, sources: Sources) -> None:
        sources.give(self.arm, tracked, self.scores)

    def patience(self, sources: Sources) -> float:
        return PATIENCE + sources.size(self.arm) / BYTES_PER_SECOND


@dataclass(frozen=True)
class Note(Call):
    word: ClassVar[str] = "note"

    markdown: str

    @property
    def topic(self) -> Hashable:
        return self.word

    def tell(self, tracked: TrackedRun, sources: Sources) -> None:
        tracked.note(self.markdown)


@dataclass(frozen=True)
class EndArm(Call):
    word: ClassVar[str] = "end_arm"

    arm: str
    status: str

    @property
    def topic(self) -> Hashable:
        return self.word, self.arm

    def tell(self, tracked: TrackedRun, sources: Sources) -> None:
        tracked.end_arm(self.arm, self.status)


@dataclass(frozen=True)
class End(Call):
    word: ClassVar[str] = "end"

    status: str

    @property
    def topic(self) -> Hashable:
        return self.word

    def tell(self, tracked: TrackedRun, sources: Sources) -> None:
        tracked.end(self.status)


CALLS = {
    call.word: call for call in (Opened, Series, Scores, Words, Files, Model, Note, EndArm, End)
}


def call_of(facts: Any) -> Call:
    """A call from its JSON; FwError if it is none."""
    try:
        rest, kind = {**facts}, CALLS[facts["call"]]
        del rest["call"]
        form(kind).validate_python(rest)
        return kind(**rest)  # whole numbers stay whole
    except (LookupError, TypeError, ValidationError):
        raise FwError(f"no call of a tracker: {str(facts)[:80]}") from None


@cache
def form(call: type[Call]) -> TypeAdapter[Call]:
    """What checks the fields of a call."""
    return TypeAdapter(call)


def portable(path: Path, root: Path) -> str:
    """A path as a journal keeps it: relative to the runs folder where it lies in that."""
    whole = path.absolute()
    return (whole.relative_to(root) if whole.is_relative_to(root) else whole).as_posix()
