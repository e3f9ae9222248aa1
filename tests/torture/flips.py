"""Flip one bit of a stored file, keep its time, run again, and compare with an undisturbed run.

The run is of toys, so that a trial takes a fraction of a second, but through the real command and
the real store: images in a folder that are decoded into a cache, latents, trainings, samples. It
is killed at several moments first, and bits are flipped in what it left there.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from torture import launch, trap
from torture.tally import Tally, command, traceback_in
from torture.undisturbed import products, scores

KINDS = ("wrong result", "never mended", "traceback", "exit code", "stuck", "said nothing")

RECIPE = """\
fw: 1
name: flips
dataset: {name: image_folder, root: IMAGES, size: 4, channels: 1, class_folders: 2}
latents: same
encoder: {name: mean, cells: 2}
annotator: {name: halves, clusters: 2}
model: linear
process: unit
train: {steps: 4, batch: 8, warmup: 1}
sampler: {name: euler, steps: 2}
samples: {count: 6, seeds: 3}
metrics: [{name: gap, space: flat}]
baseline: plain
arms:
  plain: {annotator: null}
  guided: {}
"""

LOSSLESS = """
    import faulty_latents
    from fw.registry import hookimpl

    @hookimpl
    def fw_components():
        return [faulty_latents.Same]
"""

STATES = 8
"""Moments at the least at which the run is killed, to get at files of unfinished work; more for
more trials, because some files live for a few operations."""

FRESH = 100
"""Every so many trials are processes that were started afresh."""


@dataclass(frozen=True)
class Victim:
    """A file that can be damaged: the state that it is in, and its path there."""

    state: Path
    file: Path


@dataclass(frozen=True)
class Bench:
    """A recipe with its images and plugins, the states of its runs, and what it should make."""

    folder: Path
    recipe: Path
    environment: dict[str, str]
    products: dict[str, str]
    scores: dict[str, object]
    victims: dict[str, list[Victim]]

    def words(self, state: Path) -> list[str | Path]:
        return [
            *("run", self.recipe, "--out", state / "out", "--device", "cpu", "--jobs", "1"),
            *("--checkpoint-seconds", "0"),
        ]

    def surroundings(self, state: Path) -> dict[str, str]:
        return {**self.environment, "FW_CACHE_DIR": str(state / "cache")}


def drive(count: int, seed: int, out: Path) -> Tally:
    """Flip `count` bits, each in a state of its own, spread evenly over the kinds of files."""
    tally = Tally("flips", seed, KINDS)
    states = min(STATES + count // 25, 40)
    bench = prepared(out / "flips", states, random.Random(f"{seed} states"))
    kinds = sorted(bench.victims)
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        kind = kinds[number % len(kinds)]
        trial(draw, kind, number, bench, tally)
        tally.tried += 1
    return tally


def trial(draw: random.Random, kind: str, number: int, bench: Bench, tally: Tally) -> None:
    victim = draw.choice(bench.victims[kind])
    state = bench.folder / "trial"
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(victim.state, state, symlinks=True)
    where = flip(state / victim.file, draw)
    what = f"flip {number} ({kind}: {victim.file}, {where}, state {victim.state.name})"
    ended = run(bench, state, fresh=number % FRESH == FRESH - 1)
    tally.seen[kind] += 1
    if ended.code is None:
        tally.fault("stuck", what)
        return
    if told := traceback_in(ended.output):
        tally.fault("traceback", f"{what}: {told}")
    if ended.code not in (0, 1, 2):
        tally.fault("exit code", f"{what}: {ended.code}, {ended.output[-200:]!r}")
    if ended.code == 0:
        if not mended(bench, state):
            tally.fault("never mended", what)
        compare(bench, state, what, tally)
        return
    if not ended.output.strip():
        tally.fault("said nothing", f"{what}: exit code {ended.code}")
    if run(bench, state).code != 0:
        tally.fault("never mended", f"{what}: {ended.output[-300:]!r}")
    else:
        compare(bench, state, what, tally)


def mended(bench: Bench, state: Path) -> bool:
    """Whether the store is whole in the end. A product that no stage had to read may be damaged
    still; then `fw verify` knows of it, and the run makes it again."""
    log = bench.folder / "verify.log"
    for words in (["verify", state / "out", "--discard"], bench.words(state)):
        ended = launch.start(words, log, environment=bench.surroundings(state)).wait()
        if words[0] == "verify" and ended.code == 0:
            return True
    return ended.code == 0


def compare(bench: Bench, state: Path, what: str, tally: Tally) -> None:
    found = products(state / "out")
    changed = sorted(name for name, known in bench.products.items() if found.get(name) != known)
    if changed:
        tally.fault("wrong result", f"{what}: {', '.join(changed)[:200]}")
    elif scores(state / "out") != bench.scores:
        tally.fault("wrong result", f"{what}: run.json has other scores")


def flip(file: Path, draw: random.Random) -> str:
    """Change one bit of a file without a trace in its times; where."""
    times = file.stat()
    data = bytearray(file.read_bytes())
    at, bit = draw.randrange(len(data)), draw.randrange(8)
    data[at] ^= 1 << bit
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    return f"byte {at} of {len(data)}, bit {bit}"


def run(bench: Bench, state: Path, fresh: bool = False) -> launch.Ended:
    log = bench.folder / "trial.log"
    surroundings = bench.surroundings(state)
    return launch.start(bench.words(state), log, environment=surroundings, fresh=fresh).wait()


def prepared(folder: Path, count: int, draw: random.Random) -> Bench:
    """The recipe run to its end, and killed at several moments of it."""
    from fw.registry import installed

    folder.mkdir(parents=True)
    images(folder / "images")
    recipe = folder / "flips.yaml"
    recipe.write_text(RECIPE.replace("IMAGES", str(folder / "images")), encoding="utf-8")
    plugins = toys(folder / "site")
    sys.path.insert(0, str(plugins))
    installed.cache_clear()
    bench = Bench(folder, recipe, {"PYTHONPATH": str(plugins)}, {}, {}, defaultdict(list))
    whole = folder / "finished"
    told = trap.told(whole, folder / "ticks", {})
    surroundings = bench.surroundings(whole)
    undisturbed = launch.warm(
        bench.words(whole), folder / "whole.log", trapped=told, environment=surroundings
    )
    if undisturbed.code != 0:
        raise SystemExit(f"the undisturbed run failed:\n{undisturbed.output}")
    operations = trap.count(folder / "ticks")
    states = [whole]
    for number in range(count):
        # Evenly over the run: what only lives for a few operations is met by one or another.
        at = (number * operations + draw.randrange(operations)) // count + 1
        state, ticks = folder / f"killed-{at}", folder / f"ticks-{at}"
        told = trap.told(state, ticks, {at: "kill group"})
        surroundings = bench.surroundings(state)
        launch.start(
            bench.words(state), folder / "killed.log", trapped=told, environment=surroundings
        ).wait()
        states.append(state)
    for state in filter(Path.exists, states):
        for file in sorted(state.rglob("*")):
            kind = kind_of(file.relative_to(state)) if file.is_file() else None
            if kind is not None and file.stat().st_size and not file.is_symlink():
                bench.victims[kind].append(Victim(state, file.relative_to(state)))
    made, results = products(whole / "out"), scores(whole / "out")
    return Bench(folder, recipe, bench.environment, made, results, dict(bench.victims))


def kind_of(file: Path) -> str | None:
    """What a stored file is; None for what nobody reads back."""
    parts, name = file.parts, file.name
    if name.endswith((".lock", ".lease")):
        return None
    if parts[0] == "cache":
        return f"cache: {parts[1]}" if len(parts) > 1 else None
    if parts[1] != "store":
        return f"run folder: {name}" if name in ("run.json", "recipe.resolved.yaml") else None
    if ".partial" in parts[2]:
        known = {".checkpoint": "checkpoint", ".sha256": "checksum", ".jsonl": "log"}
        stem = name.split("-")[0]
        return f"partial: {known.get(file.suffix, stem if stem != name else 'other')}"
    return "manifest" if name == "manifest.json" else f"product: {parts[2].split('-')[0]}"


def images(folder: Path) -> None:
    """Two classes of grey 4x4 images, for training and held out."""
    from PIL import Image

    draw = random.Random("images")
    for split in ("train", "test"):
        for label in ("dark", "bright"):
            (folder / split / label).mkdir(parents=True)
            for number in range(10):
                pixels = bytes(draw.randrange(128) + 128 * (label == "bright") for _ in range(16))
                picture = Image.frombytes("L", (4, 4), pixels)
                picture.save(folder / split / label / f"{number}.png")


def toys(folder: Path) -> Path:
    """A folder for PYTHONPATH with the toys as an installed plugin, and an autoencoder."""
    from sites import TOYBOX, install

    folder.mkdir()
    install(folder, "toybox", TOYBOX)
    install(folder, "lossless", LOSSLESS)
    return folder


if __name__ == "__main__":
    sys.exit(command(drive, {"count": 1000}))
