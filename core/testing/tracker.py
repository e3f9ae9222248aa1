"""The contract of a tracker: every call may be repeated, and a run that is opened again is the
same run."""

from __future__ import annotations

import atexit
import contextlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fw.core.kinds import ArmDescription, RunDescription, TrackedRun, Tracker
from fw.core.testing.contract import Clause
from fw.core.testing.global_state import ambient
from fw.core.testing.once import once
from fw.registry.errors import in_one_line

ARMS = ("unconditional", "self_1.5")
STATUSES = ("finished", "failed", "killed")


def stays_in_its_folder(tracker: Tracker) -> None:
    """It writes nothing outside the run's root, and leaves no thread that keeps the process from
    ending"""
    root = runs(tracker)
    before = set(threading.enumerate())
    with ambient(0), elsewhere_on_disk() as empty:
        run = tracker.open(described(root, "stays"))
        with contextlib.suppress(Exception):  # other clauses are about that
            say_all(run, root)
            run.end("finished")
        strays = [path.name for path in [*empty.iterdir(), *root.parent.iterdir()] if path != root]
    assert not strays, f"it wrote {', '.join(sorted(strays))}"
    left = [each.name for each in threading.enumerate() if each not in before and not each.daemon]
    assert not left, f"these threads are still there after end(): {', '.join(left)}"


def calls_may_be_repeated(tracker: Tracker) -> None:
    """Every call may be made twice, for the run and for an arm, and all of them again when it is
    opened again"""
    root = runs(tracker)
    first = tracker.open(described(root, "repeated"))
    say_all(first, root)
    first.end("killed")
    second = tracker.open(described(root, "repeated", dict(first.handle)))
    say_all(second, root, "after it was opened again")
    second.end("finished")
    second.end("finished")


def any_ending(tracker: Tracker) -> None:
    """Runs and arms end as finished, failed or killed"""
    for status in STATUSES:
        run = tracker.open(described(runs(tracker), status))
        for arm in ARMS:
            run.end_arm(arm, status)
        run.end(status)


def handle_is_json(tracker: Tracker) -> None:
    """Its handle is JSON, as run.json keeps it"""
    run = tracker.open(described(runs(tracker), "handle"))
    handle = dict(run.handle)
    run.end("finished")
    try:
        read = json.loads(json.dumps(handle, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{handle!r}: {error}") from None
    assert read == handle, f"{handle!r} is read back as {read!r}"


def found_again(tracker: Tracker) -> None:
    """A run that is opened again with its handle has the same handle: it is the same run"""
    handles: list[dict[str, Any]] = []
    for _ in range(2):
        run = tracker.open(described(runs(tracker), "again", handles[-1] if handles else None))
        handles.append(dict(run.handle))
        run.end("killed")
    assert handles[0] == handles[1], f"{handles[0]} became {handles[1]}"


def closed_for_the_dead(tracker: Tracker) -> None:
    """A run whose process died can be closed, also twice, and is the same run when it is opened
    again"""
    root = runs(tracker)
    left = dict(tracker.open(described(root, "left")).handle)
    for _ in range(2):
        tracker.close(left, root, "killed")
    run = tracker.open(described(root, "left", left))
    handle = dict(run.handle)
    run.end("finished")
    assert handle == left, f"{left} became {handle}"


def hint_is_one_line(tracker: Tracker) -> None:
    """Its hint is one line that says where to look"""
    run = tracker.open(described(runs(tracker), "hint"))
    hint = run.hint
    run.end("finished")
    assert isinstance(hint, str), f"it is {hint!r}"
    assert len(hint.strip().splitlines()) == 1, f"it is {hint!r}"


CLAUSES: tuple[Clause, ...] = (
    stays_in_its_folder,
    calls_may_be_repeated,
    any_ending,
    handle_is_json,
    found_again,
    closed_for_the_dead,
    hint_is_one_line,
)


@once
def runs(tracker: Tracker) -> Path:
    """A runs folder that the clauses share, because a tracker may take seconds to set its own
    up."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    root = folder / "runs"
    root.mkdir()
    return root


@contextlib.contextmanager
def elsewhere_on_disk() -> Iterator[Path]:
    """An empty working directory."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield Path(folder)


def described(root: Path, key: str, previous: Mapping[str, Any] | None = None) -> RunDescription:
    """A run of two arms, in a folder that is there."""
    folder = root / "contract" / key
    folder.mkdir(parents=True, exist_ok=True)
    arms = [ArmDescription(arm, {"train.steps": "10", "guidance.name": arm}) for arm in ARMS]
    tags = {"fw.version": "0", "fw.seed": "0"}
    return RunDescription(
        "contract", key, folder, root, ARMS[0], "eval/fd_pca", arms, tags, previous
    )


def say_all(run: TrackedRun, root: Path, when: str = "") -> None:
    """Make every call of a run twice, except `end`; AssertionError says which one raises."""
    for name, call in calls(run, files(root)):
        for time in ("", "the second time"):
            try:
                call()
            except Exception as error:
                place = " ".join(part for part in (name, time, when) if part)
                raise AssertionError(f"{place}: {in_one_line(error)}") from error


def calls(run: TrackedRun, paths: Mapping[str, Path]) -> list[tuple[str, Callable[[], None]]]:
    losses = [{"step": step, "train/loss": 1 / (1 + step)} for step in range(0, 30, 10)]
    scores = {
        "eval/fd_pca": 0.5,
        "cost/nfe": 35.0,
        "eval/undefined": float("inf"),
        "of others@5": 0.5,
    }
    made: list[tuple[str, Callable[[], None]]] = []
    for arm in (None, *ARMS):
        made += [
            (f"series({arm!r})", partial(run.series, arm, losses)),
            (f"scores({arm!r})", partial(run.scores, arm, scores)),
            (f"files({arm!r})", partial(run.files, arm, [paths["picture"], paths["text"]])),
        ]
    for arm in ARMS:
        made += [
            (f"model({arm!r})", partial(run.model, arm, paths["weights"], scores)),
            (f"end_arm({arm!r})", partial(run.end_arm, arm, "finished")),
        ]
    return [*made, ("note()", partial(run.note, "| arm | score |\n|---|---|\n| plain | 0.5 |\n"))]


def files(root: Path) -> dict[str, Path]:
    """A picture, a text and weights, as a run has them in its folders."""
    from PIL import Image

    folder = root / "contract"
    paths = {
        "picture": folder / "grid.png",
        "text": folder / "report.md",
        "weights": folder / "model.safetensors",
    }
    if not paths["weights"].exists():
        Image.new("RGB", (8, 8)).save(paths["picture"])
        paths["text"].write_text("# Report\n", encoding="utf-8")
        save_file({"weight": torch.zeros(2, 2)}, paths["weights"])
    return paths
