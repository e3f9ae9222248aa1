"""Data that does not fit: what is mapped, streamed and made in parts has the same bits, and the
memory of a run does not grow with the number of images."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import Made, products
from PIL import Image
from safetensors.torch import load_file, save_file
from saying import says
from teams import together
from torch import Tensor

from fw.core.diffusion import latents as latents_module
from fw.core.diffusion.latents import Latents
from fw.core.errors import FwError, Interrupted, StageFailed
from fw.core.execution.place import Place
from fw.core.execution.work import work
from fw.core.features import points
from fw.core.files import stacked as files
from fw.core.files.stacked import join, stacked
from fw.core.job import Job, Silent
from fw.core.kinds import Annotator
from fw.core.machine.leases import in_turn
from fw.core.machine.memory import Watch, anonymous, in_words, size_of
from fw.core.machine.tables import Table
from fw.core.machine.team import Team
from fw.core.stages import encode as encode_stage
from fw.core.stages.base import Products, Stage
from fw.core.stages.encode import FEATURES, Encode
from fw.core.stages.latents import EncodeLatents
from fw.core.templates.autoencoder import Example
from fw.core.testing.stopping import Stop
from fw.core.types import Observations
from fw.plugins.annotators.knn import KNN
from fw.plugins.annotators.retrieval import Retrieval
from fw.plugins.annotators.sinkhorn import Sinkhorn
from fw.plugins.datasets import shapes as shapes_module
from fw.plugins.datasets.digits import Digits
from fw.plugins.datasets.shapes import Shapes
from fw.plugins.encoders.pca import PCA
from fw.plugins.metrics import frechet

MIB = 2**20


LATENTS = EncodeLatents(Digits(), Example(), flip=True)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# Tensors in pieces


def test_rows_of_pieces_are_those_of_the_whole() -> None:
    whole = randn(40, 3, 2)
    numbers = torch.tensor([39, 0, 7, 7, 12, 13])
    for sizes in ([40], [1, 39], [7, 6, 20, 7]):
        rows = Table(whole.split(sizes))
        assert (len(rows), rows.shape, rows.nbytes) == (40, (3, 2), whole.nbytes)
        assert torch.equal(rows.take(numbers), whole[numbers])


def test_what_is_too_large_to_hold_is_stacked_in_a_file_that_leaves_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = randn(100, 50)
    held = stacked(whole.split(7), tmp_path)
    monkeypatch.setattr(files, "HELD", 1000)
    mapped = stacked(iter(whole.split(7)), tmp_path)
    assert torch.equal(held, whole)
    assert torch.equal(mapped, whole)
    assert not list(tmp_path.iterdir())
    mapped += 1  # a private map: safe to write to


def test_files_that_are_joined_are_byte_for_byte_what_would_have_been_saved(tmp_path: Path) -> None:
    tensors = {"train": randn(103, 7), "test": randn(21, 7), "a": torch.arange(6).view(3, 2)}
    save_file(tensors, tmp_path / "whole")
    pieces: dict[str, list[Path]] = {}
    for name, tensor in tensors.items():
        for number, piece in enumerate(tensor.split(20)):
            path = tmp_path / f"{name}-{number}"
            save_file({"piece": piece.contiguous()}, path)
            pieces.setdefault(name, []).append(path)
    join(pieces, tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize(("count", "dims"), [(1000, 130), (333, 16), (40, 700)])
def test_a_mean_in_parts_has_the_bits_of_one_at_once(
    count: int, dims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = randn(count, dims) * 3 + 1
    monkeypatch.setattr(frechet, "MEANS", 20 * count)
    assert torch.equal(frechet.mean_of(features), features.mean(dim=0, dtype=torch.float64))


def test_directions_in_parts_have_the_bits_of_those_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = randn(1000, 30)
    features[3], features[700] = 0, 1e25
    monkeypatch.setattr("fw.core.machine.tables.AT_ONCE", 1000)
    monkeypatch.setattr(files, "HELD", 10_000)
    assert torch.equal(points.all_directions(features, tmp_path), points.directions(features))


@pytest.mark.parametrize(
    "annotator",
    [KNN(k=3), Retrieval(k=3, top_m=0.5), Sinkhorn(clusters=4, rounds=3, iterations=5)],
    ids=lambda annotator: annotator.name,
)
def test_conditions_and_scores_in_files_have_the_bits_of_those_in_memory(
    annotator: Annotator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Observations(300, randn(300, 20))
    held = annotator.annotate(data, Job(tmp_path, 0))
    monkeypatch.setattr(files, "HELD", 1000)
    monkeypatch.setattr("fw.plugins.annotators.neighbours.AT_ONCE", 1000)
    mapped, before = [], np.memmap.__new__

    def counted(*args: Any, **more: Any) -> Any:
        mapped.append(more["shape"])
        return before(*args, **more)

    monkeypatch.setattr(np.memmap, "__new__", counted)
    large = annotator.annotate(data, Job(tmp_path, 0))
    assert torch.equal(large.conditions, held.conditions)
    if held.bank is not None:
        assert large.bank is not None
        assert torch.equal(large.bank, held.bank)
    bulky = {"knn": (300, 4, 20), "retrieval": (300, 3, 20), "sinkhorn": (300, 4)}
    assert mapped.count(bulky[annotator.name]) == (1 if annotator.name == "knn" else 2)
    assert list(tmp_path.iterdir()) == []


def test_many_shapes_are_drawn_into_a_mapped_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = Shapes(size=8, count=600, held_out_count=10)
    held = shapes.load("train")
    monkeypatch.setenv("FW_CACHE_DIR", str(tmp_path / "new"))
    monkeypatch.setattr(shapes_module, "HELD", 1000)
    monkeypatch.setattr(files, "HELD", 1000)
    mapped = shapes.load("train")
    assert mapped.labels is not None
    assert held.labels is not None
    assert torch.equal(mapped.images, held.images)
    assert torch.equal(mapped.labels, held.labels)
    assert (tmp_path / "new").is_dir()


def test_latents_are_mapped_and_not_read(tmp_path: Path) -> None:
    """Files with holes: 512 MiB that no disk and no memory has."""
    shape = (1024, 4, 64, 64)
    for number in range(8):
        path = tmp_path / f"latents-{number * 1024:07d}.safetensors"
        sparse(path, {"mean": shape})
    before = anonymous() or 0
    latents = Latents.load(tmp_path)
    taken = latents.take(torch.tensor([0, 5000, 8191]), None, lambda shape: torch.zeros(shape))
    assert (len(latents), latents.shape, taken.abs().sum()) == (8192, (4, 64, 64), 0)
    assert (anonymous() or 0) - before < 64 * MIB


def sparse(path: Path, shapes: Mapping[str, Sequence[int]]) -> None:
    """A safetensors file of zeros that takes no room."""
    header, stop = {}, 0
    for name, shape in shapes.items():
        start, stop = stop, stop + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    with path.open("wb") as file:
        file.write(len(words).to_bytes(8, "little") + words)
        file.truncate(file.tell() + stop)


# Work that goes on behind its last part


def test_an_encoding_that_was_stopped_goes_on_behind_the_files_that_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_stage, "IN_A_FILE", 300)  # one batch of 250
    stage = Encode(Digits(), PCA(dims=4), seed=0)

    def encoded(folder: Path, **job: Any) -> bytes:
        folder.mkdir(exist_ok=True)
        stage.run(Job(folder, **job), products)
        return (folder / FEATURES).read_bytes()

    whole = encoded(tmp_path / "whole")
    with pytest.raises(Interrupted):
        encoded(tmp_path / "job", stopping=Stop(at=3))
    before = written(tmp_path / "job", "piece-*.safetensors")
    assert 0 < len(before) < 5
    read: list[int] = []
    monkeypatch.setattr(Encode, "read_few", counted(Encode.read_few, read))
    assert encoded(tmp_path / "job") == whole
    assert sum(read) == 1797 - 250 * len(before)
    assert not written(tmp_path / "job", "piece-*")


def counted(read_few: Any, read: list[int]) -> Any:
    def reading(self: Encode, network: Any, images: Tensor, device: Any) -> Tensor:
        read.append(len(images))
        features: Tensor = read_few(self, network, images, device)
        return features

    return reading


def written(folder: Path, pattern: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob(pattern)}


@pytest.mark.parametrize("stage", [Encode(Digits(), PCA(dims=4), seed=0), LATENTS])
def test_a_team_shares_the_files_and_makes_the_bits_of_one_process(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_small()
    (tmp_path / "alone").mkdir()
    stage.run(Job(tmp_path / "alone"), products)
    torch.save(stage, tmp_path / "stage")
    together(2, tmp_path, made_by_a_team)
    names = {path.name for path in (tmp_path / "alone").iterdir()}
    assert len(names) > 3
    assert {path.name for path in (tmp_path / "team").iterdir()} == names
    for name in names:
        alone, team = (tmp_path / folder / name for folder in ("alone", "team"))
        assert alone.read_bytes() == team.read_bytes(), name


def made_by_a_team(team: Team, folder: Path) -> None:
    cut_small()
    stage = torch.load(folder / "stage", weights_only=False)
    (folder / "team").mkdir(exist_ok=True)
    stage.run(Job(folder / "team", team=team), products)


def cut_small() -> None:
    """As if the digits were many."""
    encode_stage.IN_A_FILE = latents_module.SHARD = 250


DECODING = """
import os, signal, sys
from pathlib import Path
from fw.plugins.datasets import decoded, parts
from fw.plugins.datasets.image_folder import ImageFolder

folder, killed_after, attempt, done = Path(sys.argv[1]), int(sys.argv[2]), decoded.attempt, []
parts.SOURCES, decoded.AT_ONCE, decoded.cores = 10, 10, lambda: 1

def logged(source, shape, scale):
    done.append(source.name)
    if len(done) > killed_after:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt(source, shape, scale)

decoded.attempt = logged
images = ImageFolder(root=folder / "data", cache=folder / sys.argv[3], size=8).load("train").images
print(len(done), images.sum().item(), images[-1].sum().item())
"""


def decoding(folder: Path, killed_after: int, cache: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", DECODING, str(folder), str(killed_after), cache]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_decoding_that_was_killed_goes_on_behind_its_last_part(tmp_path: Path) -> None:
    pictures(tmp_path / "data/train", 45, side=8)
    pictures(tmp_path / "data/test", 2, side=8)
    whole = decoding(tmp_path, 1000, "whole").stdout.split()
    killed = decoding(tmp_path, 25, "cache")
    assert killed.returncode == -signal.SIGKILL
    [part] = (tmp_path / "cache").rglob("part-000001.json")
    [images] = (tmp_path / "cache").rglob("images.u8")
    with images.open("ab") as file:
        file.write(b"what was not vouched for")
    rotten = images.read_bytes()
    images.write_bytes(rotten[: 12 * 3 * 64] + b"\xff\x00" + rotten[12 * 3 * 64 + 2 :])
    part.touch()
    again = decoding(tmp_path, 1000, "cache").stdout.split()
    assert whole[0] == "45"
    assert again == ["35", *whole[1:]]  # the first part is whole, the second is damaged
    assert not list((tmp_path / "cache").rglob("part-*"))


def pictures(folder: Path, count: int, side: int, different: int = 100) -> None:
    """Image files of noise, `different` ones again and again."""
    draws = np.random.default_rng(0)
    folder.mkdir(parents=True)
    source = folder / "picture.png"
    encoded = []
    for _ in range(min(count, different)):
        Image.fromarray(draws.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(source)
        encoded.append(source.read_bytes())
    source.unlink()
    for number in range(count):
        (folder / f"{number:06d}.png").write_bytes(encoded[number % len(encoded)])


# Memory


def test_the_peak_is_that_of_pages_without_a_file(tmp_path: Path) -> None:
    sparse(tmp_path / "zeros", {"zeros": (256 * MIB // 4,)})
    with Watch(torch.device("cpu")) as memory:
        read = load_file(tmp_path / "zeros")["zeros"].sum()
    assert read == 0
    assert (memory.peak.anonymous or 0) - (memory.began or 0) < 64 * MIB
    with Watch(torch.device("cpu")) as memory:
        held = torch.ones(64 * MIB // 4)
        while (memory.peak.anonymous or 0) - (memory.began or 0) < 64 * MIB:
            held += 1
        del held


class Hungry(Made):
    """A stage that takes a MiB at each step."""

    lighter = "take fewer bytes"

    def run(self, job: Job, products: Products) -> None:
        held = [torch.ones(MIB // 4) for _ in job.track(range(4000), "eat")]
        raise AssertionError(f"nobody stopped it at {len(held)}")


def test_a_stage_that_takes_more_than_max_memory_is_stopped_and_says_what_to_turn(
    tmp_path: Path,
) -> None:
    bound = (anonymous() or 0) + 64 * MIB
    assert says(fed(tmp_path, bound), f"it takes ... --max-memory is {in_words(bound)}: take fewer")


def test_what_began_with_more_than_max_memory_is_told_so(tmp_path: Path) -> None:
    assert says(fed(tmp_path, MIB), "it takes ... --max-memory is 1 MiB ... it began with")


def fed(folder: Path, bound: int) -> str:
    """Why such a stage fails that may take so much."""
    place = Place(folder, "cpu", 1, 20.0, max_memory=bound)
    hungry = partial(work, Hungry(), folder, place, lambda name: folder, Silent(), lambda: False)
    with in_turn(folder / "lease") as lease, pytest.raises(StageFailed) as caught:
        hungry(lease.right)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"), [("8G", 8 * 2**30), ("1.5 GiB", 3 * 2**29), ("512mb", 2**29), ("7", 7)]
)
def test_sizes_of_memory_are_read(text: str, size: int) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "much", "0G", "-1G", "1P"])
def test_what_is_no_size_of_memory_is_refused(text: str) -> None:
    with pytest.raises(FwError, match="no size of memory"):
        size_of(text)


POOLED = '''
from typing import ClassVar
from torch import Tensor, nn
from fw.core.kinds import Encoder
from fw.registry import hookimpl

FW_API = 2

class Pooled(Encoder):
    """Mean colours of 36 places."""
    name: ClassVar[str] = "pooled"
    def build(self, shape, classes):
        return Means()

class Means(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float() / 255, 6).flatten(1)

@hookimpl
def fw_components():
    return [Pooled]
'''

RECIPE = """
fw: 1
name: large
seed: 0
dataset: {{name: image_folder, root: {root}, size: 96, cache: {cache}}}
encoder: pooled
annotator: {{name: kmeans, clusters: 5}}
model: {{name: unet, channels: [8, 8], groups: 4}}
process: {{name: flow}}
train: {{steps: 4, batch: 4, warmup: 1}}
sampler: {{name: ddim, steps: 2}}
samples: {{count: 8, seeds: 1}}
metrics: [{{name: fd, space: pooled}}]
baseline: plain
arms:
  plain: {{}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with a plugin, for images that a test makes beside it."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "pooled.py").write_text(POOLED, encoding="utf-8")
    root, cache = folder / "images", folder / "cache"
    text = RECIPE.format(root=root, cache=cache)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    pictures(root / "test", 20, side=16)
    return folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`fw run` in a process of its own, in which free memory is given back at once."""
    code = "from fw.core.cli import main; main()"
    command = [sys.executable, "-c", code, "run", str(folder / "recipe.yaml"), *words]
    settings = ["--plugin", str(folder / "pooled.py"), "--jobs", "1", "--device", "cpu"]
    thrifty = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    environment = {**os.environ, **thrifty}
    return subprocess.run(
        [*command, *settings], env=environment, capture_output=True, text=True, check=False
    )


def peaks(out: Path) -> dict[str, int]:
    """The most memory that a stage of each kind took."""
    most: dict[str, int] = {}
    for path in (out / "store").glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        kind = manifest["stage"].partition("-")[0]
        most[kind] = max(most.get(kind, 0), manifest["memory"]["anonymous"])
    return most


@pytest.mark.timeout(1200)  # half a minute on a machine of one's own
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux's")
def test_four_times_the_images_take_no_more_memory(recipe: Path) -> None:
    """27 KiB an image: 3,000 more are 79 MiB more of pixels."""
    taken = []
    for count in (1000, 4000):
        folder = recipe / "images/train"
        for path in folder.glob("*") if folder.exists() else ():
            path.unlink()
        if folder.exists():
            folder.rmdir()
        pictures(folder, count, side=16)
        done = run(recipe, "--out", str(recipe / f"of-{count}"))
        assert done.returncode == 0, done.stderr
        taken.append(peaks(recipe / f"of-{count}"))
    few, many = taken
    assert few.keys() == many.keys() >= {"encode", "annotate", "train", "sample", "evaluate"}
    more = {kind: (many[kind] - few[kind]) / MIB for kind in few}
    assert max(more.values()) < 30, more
    report = (recipe / "of-1000/large/latest/report.md").read_text()
    assert "Peak memory" in report
    assert "train" in report
