"""Files are looked at once in a command: one walk, one read of what is new, and the next command
looks again. Walks and reads are counted as Python's audit hooks report them."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from sites import Answer, fw, site, write

from fw.core.stages.keys import identity
from fw.plugins.datasets import listing
from fw.plugins.datasets.image_folder import ImageFolder
from fw.registry import Component
from fw.registry.once import look_again, one_look

SIDE = 4
SPLITS = {"train": 12, "test": 6}

RECIPE = """\
fw: 1
name: looks
dataset: {{name: image_folder, root: {root}, cache: {cache}, size: 4, channels: 1}}
encoder: {{name: mean, cells: 2}}
annotator: {{name: halves, clusters: 2}}
model: linear
process: unit
train: {{steps: 2, batch: 4, warmup: 1}}
sampler: {{name: euler, steps: 2}}
samples: {{count: 4, seeds: 1}}
metrics: [{{name: gap, space: flat}}]
baseline: plain
arms:
  plain: {{annotator: null}}
  clusters: {{}}
  longer: {{sampler: {{name: euler, steps: 3}}}}
  longest: {{sampler: {{name: euler, steps: 4}}}}
"""

events: list[tuple[str, str]] | None = None
"""What the audit hook has heard, while somebody listens; a hook cannot be taken off."""


def hook(event: str, args: tuple[Any, ...]) -> None:
    if events is not None and event in ("open", "os.scandir") and args:
        events.append((event, os.fsdecode(args[0]) if isinstance(args[0], str | bytes) else ""))


sys.addaudithook(hook)


@contextmanager
def counted(root: Path) -> Iterator[Counter[str]]:
    """How often each folder below the root is walked, and each image there is opened."""
    global events
    events = []
    counts: Counter[str] = Counter()
    try:
        yield counts
    finally:
        for _, path in events:
            if path.startswith(str(root)):
                counts[path.removeprefix(f"{root}/")] += 1
        events = None


def picture(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    Image.fromarray(pixels).save(path.with_suffix(".bmp"))  # whose size says nothing


def fill(root: Path) -> Path:
    for split, count in SPLITS.items():
        (root / split).mkdir(parents=True)
        for number in range(count):
            picture(root / split / f"{number}", 100 * len(split) + number)
    return root


def walks(counts: Counter[str]) -> dict[str, int]:
    return {split: counts[split] for split in SPLITS}


def reads(counts: Counter[str]) -> int:
    return sum(count for path, count in counts.items() if path.endswith(".bmp"))


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., Answer]]:
    """`fw WORDS` on a recipe of four arms whose images are in <tmp>/data."""
    root, cache = fill(tmp_path / "data"), tmp_path / "cache"
    recipe = write(tmp_path / "looks.yaml", RECIPE.format(root=root, cache=cache))
    with site(tmp_path / "site"):
        yield lambda word, *words: fw(
            word,
            recipe,
            *words,
            *(("--out", tmp_path / "out", "--device", "cpu") if word == "run" else ()),
        )


def ok(answer: Answer) -> Answer:
    assert answer.code == 0, answer.err
    return answer


def test_a_plan_walks_a_folder_once_and_reads_what_is_new(
    tmp_path: Path, command: Callable[..., Answer]
) -> None:
    for words in (("validate",), ("run", "--dry-run")):
        new = sum(SPLITS.values()) if words == ("validate",) else 0
        with counted(tmp_path / "data") as counts:
            ok(command(*words))
        assert walks(counts) == {"train": 1, "test": 1}
        assert reads(counts) == new
    picture(tmp_path / "data/train/5", 5)
    picture(tmp_path / "data/train/new", 6)
    with counted(tmp_path / "data") as counts:
        ok(command("run", "--dry-run"))
    assert (walks(counts), reads(counts)) == ({"train": 1, "test": 1}, 2)


def test_a_run_that_has_nothing_to_do_walks_once_and_reads_no_image(
    tmp_path: Path, command: Callable[..., Answer]
) -> None:
    ok(command("run", "--jobs", 1))
    with counted(tmp_path / "data") as counts:
        again = ok(command("run", "--jobs", 1))
    assert "start" not in again.err
    assert (walks(counts), reads(counts)) == ({"train": 1, "test": 1}, 0)


def test_the_next_command_in_the_same_process_sees_what_changed(
    tmp_path: Path, command: Callable[..., Answer]
) -> None:
    def stages() -> set[str]:
        lines = ok(command("run", "--dry-run")).out.splitlines()
        return {line.split()[2] for line in lines if line.startswith("to do ")}

    before = stages()
    assert stages() == before
    picture(tmp_path / "data/test/2", 7)
    assert not before & stages()


def test_a_folder_in_which_little_changed_has_the_fingerprint_of_one_that_is_read_whole(
    tmp_path: Path,
) -> None:
    def content(cache: str) -> str:
        return ImageFolder(
            root=tmp_path / "data", cache=tmp_path / cache, size=SIDE, channels=1, held_out=0.4
        ).identity()["content"]

    fill(tmp_path / "data")
    known = [content("known")]
    picture(tmp_path / "data/test/2", 7)
    (tmp_path / "data/train/3.bmp").unlink()
    picture(tmp_path / "data/train/new", 8)
    with counted(tmp_path / "data") as counts:
        known.append(content("known"))
    assert reads(counts) == 2
    assert known[1] == content("fresh") != known[0]
    [memory] = (tmp_path / "known/digests").iterdir()
    assert "train/3.bmp" not in memory.read_text()
    assert "train/4.bmp" in memory.read_text()


@pytest.mark.parametrize("place", [0, 70, 200, -3])
def test_remembered_digests_that_are_damaged_are_made_again(tmp_path: Path, place: int) -> None:
    fill(tmp_path / "data")
    data = ImageFolder(root=tmp_path / "data", cache=tmp_path / "cache", size=SIDE, channels=1)
    data.identity()
    picture(tmp_path / "data/train/5", 5)
    for memory in (tmp_path / "cache/digests").iterdir():
        damaged = bytearray(memory.read_bytes())
        damaged[place] ^= 1
        memory.write_bytes(damaged)
    with counted(tmp_path / "data") as counts:
        after = data.identity()
    assert reads(counts) == SPLITS["train"]
    assert after == data.model_copy(update={"cache": tmp_path / "fresh"}).identity()


def test_a_change_right_after_the_read_is_noticed_though_times_have_ticks(tmp_path: Path) -> None:
    fill(tmp_path / "data")
    data = ImageFolder(root=tmp_path / "data", cache=tmp_path / "cache", size=SIDE, channels=1)
    identities = []
    for seed in range(8):
        picture(tmp_path / "data/train/5", seed)
        identities.append(data.identity()["content"])
    assert len(set(identities)) == len(identities)


def test_what_a_file_from_the_future_holds_is_not_remembered(tmp_path: Path) -> None:
    root, cache = fill(tmp_path / "data") / "train", tmp_path / "cache"
    files = listing.listed(root).files
    ahead = time.time_ns() + 60_000_000_000
    files[3] = files[3]._replace(modified=ahead, changed=ahead)
    for _ in range(2):
        with counted(root) as counts:
            listing.known_facts(files, cache)
        assert files[3].name in counts
    assert reads(counts) == 1
    assert not (cache / "fingerprints").exists()


def test_files_are_settled_a_tick_after_their_last_change() -> None:
    fine, coarse = 7_000_000_001, 7_000_000_000
    file = listing.File("a", "/a", 1, fine, fine, (0, 0))
    assert file.settled == fine + listing.FINE_TICK
    assert file._replace(modified=coarse, changed=coarse).settled == coarse + listing.COARSE_TICK


class Counting(Component):
    """A component whose identity counts how often it is asked for."""

    kind: ClassVar[str] = "counting"
    name: ClassVar[str] = "counting"
    asked: ClassVar[list[int]] = []

    number: int = 0

    def identity(self) -> dict[str, Any]:
        self.asked.append(self.number)
        return {**super().identity(), "asked": len(self.asked)}


def test_a_component_is_asked_for_its_identity_once_in_a_look() -> None:
    one, other = Counting(number=1), Counting(number=2)
    Counting.asked.clear()
    with one_look():
        first = [identity(one) for _ in range(3)]
        assert identity((other, one)) == [identity(other), first[0]]
        assert Counting.asked == [1, 2]
        with one_look():
            assert identity(one) != first[0]
        assert identity(one) == first[0]
        look_again()
        assert identity(one) != first[0]
    assert Counting.asked == [1, 2, 1, 1]
    assert identity(one) != identity(one)
