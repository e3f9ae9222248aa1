"""`fw fetch` against a server on this machine that serves small files in the layouts of the real
ones."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import afresh
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save
from served import COMMIT, Served, serving

from fw.core.commands.pace import Pace
from fw.plugins.autoencoders.kl import KL
from fw.plugins.backbones.diffusers_folder import DiffusersFolder

TINY = Path(__file__).parent / "tiny.yaml"
ARCHIVE = "cifar-10-python.tar.gz"
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"


@pytest.fixture(scope="module")
def process() -> Iterator[afresh.Afresh]:
    with afresh.afresh() as running:
        yield running


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as server:
        yield server


@dataclass
class Case:
    """A recipe and the machine that it is fetched to."""

    folder: Path
    served: Served
    process: afresh.Afresh
    sets: list[str] = field(default_factory=list)
    own: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    limit: int = 0

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HF_ENDPOINT": self.served.url,
            "HF_HOME": str(self.folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "TORCH_HOME": str(self.folder / "torch"),
            "FW_CACHE_DIR": str(self.folder / "cache"),
            afresh.OWN: json.dumps(self.own),
            **self.env,
        }

    def words(self, *more: str) -> list[str]:
        return ["fetch", str(TINY), *(f"--set={each}" for each in self.sets), *more]

    def fetch(self, *more: str) -> afresh.Ended:
        words = self.words(*(more or ("--yes",)))
        return self.process.run(*words, env=self.environment, limit=self.limit)

    def left(self) -> list[str]:
        """The names of all files and folders on the machine."""
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*"))


@pytest.fixture
def case(tmp_path: Path, served: Served, process: afresh.Afresh) -> Case:
    return Case(tmp_path, served, process)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def batches() -> dict[str, bytes]:
    """The files of CIFAR-10, with 20 images in each batch."""
    draws = np.random.default_rng(0)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship"]
    files = {"batches.meta": pickle.dumps({"label_names": [*names, "truck"]})}
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        data = draws.integers(0, 256, (20, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": data, "labels": [number % 10 for number in range(20)]})
    return files


def packed(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()


@pytest.fixture
def cifar(case: Case, batches: dict[str, bytes]) -> Case:
    """A recipe of CIFAR-10, which is served, under torchvision's names with sums of its own."""
    content = packed(batches)
    case.served.files[f"/{ARCHIVE}"] = content
    sums = {name: md5(data) for name, data in batches.items()}
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums.pop("batches.meta")}
    listed = [list(each) for each in sums.items()]
    case.own["cifar10"] = {
        "url": f"{case.served.url}/{ARCHIVE}",
        "tgz_md5": md5(content),
        "train_list": listed[:5],
        "test_list": listed[5:],
        "meta": meta,
    }
    case.sets += [f"dataset={{name: cifar10, root: {case.folder / 'data'}}}"]
    return case


@pytest.fixture(scope="module")
def weights() -> bytes:
    """A file that torch.save wrote, in place of Inception's."""
    content = io.BytesIO()
    draws = torch.Generator().manual_seed(0)
    torch.save({"weight": torch.randn(20_000, generator=draws)}, content)
    return content.getvalue()


@pytest.fixture
def inception(case: Case, weights: bytes) -> Case:
    digest = hashlib.sha256(weights).hexdigest()
    case.served.files[f"/{INCEPTION}"] = weights
    case.own["inception"] = {
        "SOURCE": f"{case.served.url}/{INCEPTION}",
        "PUBLISHED": digest[:8],
    }
    case.sets += [f"metrics=[{{name: kid, space: {{name: inception, sha256: '{digest}'}}}}]"]
    return case


def place(case: Case) -> Path:
    return case.folder / "torch" / "hub" / "checkpoints" / INCEPTION


def test_cifar10_is_fetched_and_unpacked_where_the_recipe_says_and_a_second_time_nothing_is_done(
    cifar: Case, batches: dict[str, bytes]
) -> None:
    before = cifar.fetch("--dry-run")
    assert before.code == 0
    size = len(cifar.served.files[f"/{ARCHIVE}"])
    folder = cifar.folder / "data" / "cifar-10-batches-py"
    assert f"missing  dataset cifar10: CIFAR-10, {size / 1000:.1f} kB, from " in before.out
    assert f"to {folder}" in before.out
    assert not cifar.left()

    ended = cifar.fetch()
    assert (ended.code, "is here now" in ended.out) == (0, True), ended.out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == batches
    assert [path.name for path in (cifar.folder / "data").iterdir()] == [folder.name]

    cifar.served.requests.clear()
    again = cifar.fetch("-y")
    assert (again.code, "nothing to fetch" in again.out) == (0, True), again.out
    assert not cifar.served.requests


def test_an_archive_that_the_user_brought_is_unpacked_and_files_that_are_there_stay(
    cifar: Case, batches: dict[str, bytes]
) -> None:
    folder = cifar.folder / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "data_batch_2").write_bytes(b"my own")
    archive = folder.parent / ARCHIVE
    archive.write_bytes(cifar.served.files[f"/{ARCHIVE}"])
    ended = cifar.fetch()
    assert not cifar.served.fetched(ARCHIVE)
    assert archive.is_file()
    assert (folder / "data_batch_2").read_bytes() == b"my own"
    assert (folder / "test_batch").read_bytes() == batches["test_batch"]
    assert ended.code == 2
    assert f"does not read {folder / 'data_batch_2'}" in ended.out
    assert "remove it and `fw fetch RECIPE` brings the original" in ended.out
    (folder / "data_batch_2").unlink()
    assert cifar.fetch().code == 0
    assert (folder / "data_batch_2").read_bytes() == batches["data_batch_2"]


def test_an_archive_that_was_fetched_and_not_unpacked_to_its_end_is_unpacked_and_removed(
    cifar: Case, batches: dict[str, bytes]
) -> None:
    """A kill meanwhile makes it no file of the user's."""
    folder = cifar.folder / "data" / "cifar-10-batches-py"
    program = f"""
import os, shutil
from pathlib import Path
from fw.core.files.download import WebArchive
shutil.unpack_archive = lambda *_, **__: os._exit(9)
WebArchive("CIFAR-10", {f"{cifar.served.url}/{ARCHIVE}"!r}, Path({str(folder)!r})).bring(print)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    cifar.served.requests.clear()
    ended = cifar.fetch()
    assert ended.code == 0, ended.out
    assert not cifar.served.fetched(ARCHIVE)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == batches
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_inception_goes_where_it_is_looked_for_first(inception: Case, weights: bytes) -> None:
    assert inception.fetch().code == 0
    assert place(inception).read_bytes() == weights
    inception.env["FW_WEIGHTS_DIR"] = str(inception.folder / "shared")
    again = inception.fetch()
    assert (again.code, "nothing to fetch" in again.out) == (0, True), again.out
    place(inception).unlink()
    assert inception.fetch().code == 0
    assert (inception.folder / "shared" / INCEPTION).read_bytes() == weights


def test_a_file_with_a_wrong_sum_is_refused_and_removed(inception: Case, weights: bytes) -> None:
    inception.served.instead[f"/{INCEPTION}"] = weights[:-1] + b"x"
    ended = inception.fetch()
    assert ended.code == 2
    last = ended.out.splitlines()[-1]
    address = f"{inception.served.url}/{INCEPTION}"
    assert last.startswith(f"{address} is not the expected file: its sha256 is "), ended.out
    assert not list(place(inception).parent.iterdir())


def test_a_file_that_is_cut_off_is_continued_in_the_same_command(
    inception: Case, weights: bytes
) -> None:
    inception.served.cut[f"/{INCEPTION}"] = [0, 30_000, 20_000]
    assert inception.fetch().code == 0
    assert place(inception).read_bytes() == weights
    ranges = [range for _, _, range in inception.served.fetched(INCEPTION)]
    assert ranges == ["", "", "bytes=30000-", "bytes=50000-"]


def test_a_server_that_breaks_off_for_good_leaves_what_has_come_for_the_next_try(
    inception: Case, weights: bytes
) -> None:
    inception.served.cut[f"/{INCEPTION}"] = [0, 30_000, 0]
    ended = inception.fetch()
    assert ended.code == 1
    assert f"was cut off at 30000 of {len(weights)} bytes; the same command continues" in ended.out
    assert not place(inception).exists()
    assert inception.fetch().code == 0
    assert inception.served.fetched(INCEPTION)[-1][2] == "bytes=30000-"
    assert place(inception).read_bytes() == weights
    assert [path.name for path in place(inception).parent.iterdir()] == [INCEPTION]


def test_a_server_that_knows_no_parts_is_asked_for_the_whole(
    inception: Case, weights: bytes
) -> None:
    inception.served.whole.add(f"/{INCEPTION}")
    inception.served.cut[f"/{INCEPTION}"] = [0, 30_000]
    assert inception.fetch().code == 0
    assert place(inception).read_bytes() == weights


def test_a_fetching_that_was_killed_is_continued(inception: Case, weights: bytes) -> None:
    inception.served.slow.add(f"/{INCEPTION}")
    partial = place(inception).with_name(INCEPTION + ".writing")
    killed(inception, lambda: partial.exists() and partial.stat().st_size > 10_000)
    assert not place(inception).exists()
    inception.served.slow.clear()
    assert inception.fetch().code == 0
    assert place(inception).read_bytes() == weights
    assert inception.served.fetched(INCEPTION)[-1][2] != ""
    assert [path.name for path in place(inception).parent.iterdir()] == [INCEPTION]


def killed(case: Case, when: Any) -> None:
    """Fetch, and kill the process when it has come so far."""
    pid = case.process.start(*case.words("--yes"), env=case.environment)
    deadline = time.monotonic() + 240
    while not when():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    assert case.process.wait().code == -signal.SIGKILL


@pytest.mark.parametrize(("status", "code"), [(404, 2), (503, 1)])
def test_what_the_server_refuses_is_a_sentence_and_the_rest_is_fetched(
    cifar: Case, inception: Case, status: int, code: int
) -> None:
    cifar.served.status[f"/{ARCHIVE}"] = status
    ended = cifar.fetch()
    assert ended.code == code
    assert f"{ARCHIVE} cannot be fetched: the server says {status}" in ended.out
    assert "Traceback" not in ended.out
    assert place(inception).is_file()


def test_a_server_that_is_down_is_a_sentence(inception: Case) -> None:
    inception.served.server.server_close()
    inception.served.server.shutdown()
    ended = inception.fetch()
    assert ended.code == 1
    assert f"{INCEPTION} cannot be reached: Connection refused" in ended.out
    assert "Traceback" not in ended.out


def test_a_file_that_may_not_grow_is_a_sentence_and_continued(
    inception: Case, weights: bytes
) -> None:
    inception.limit = 40_000
    ended = inception.fetch()
    assert (ended.code, "raise the limit" in ended.out) == (1, True), ended.out
    inception.limit = 0
    assert inception.fetch().code == 0
    assert place(inception).read_bytes() == weights


def test_more_than_the_disk_has_room_for_is_not_begun(inception: Case) -> None:
    inception.own["inception"]["SOURCE"] = f"{inception.served.url}/huge"
    inception.served.files["/huge"] = Huge()
    ended = inception.fetch()
    assert (ended.code, "free some space" in ended.out) == (1, True), ended.out
    assert len(inception.served.fetched("huge")) == 1


class Huge(bytes):
    """A file that is longer than any disk has room for."""

    def __len__(self) -> int:
        return 2**60


def test_nothing_is_fetched_without_consent(cifar: Case) -> None:
    ended = cifar.process.run(*cifar.words(), env=cifar.environment)
    assert ended.code == 2
    assert "nothing was fetched, because nobody can be asked here: add --yes" in ended.out
    assert not cifar.left()


def test_a_terminal_is_asked_and_has_a_bar_with_rate_and_time_left(
    inception: Case, weights: bytes
) -> None:
    def answered(keys: str) -> afresh.Ended:
        environment = {**inception.environment, "TERM": "xterm", "COLUMNS": "160"}
        return inception.process.on_a_terminal(*inception.words(), env=environment, keys=keys)

    refused = answered("n\n")
    assert (refused.code, "nothing was fetched" in refused.out) == (2, True), refused.out
    assert not inception.left()
    inception.served.slow.add(f"/{INCEPTION}")
    agreed = answered("y\n")
    assert agreed.code == 0, agreed.out
    assert place(inception).read_bytes() == weights
    assert re.search(r"[\d.]+/81\.6 kB.*[\d.]+ kB/s.*0:00:0\d", agreed.out), agreed.out


def test_what_cannot_be_fetched_is_listed_and_ends_with_exit_code_2(case: Case) -> None:
    folder = case.folder / "flowers"
    case.sets += [f"dataset={{name: image_folder, root: {folder}, size: 8, channels: 1}}"]
    ended = case.fetch()
    assert ended.code == 2
    assert "by hand  dataset image_folder" in ended.out
    assert not case.served.requests


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_a_recipe_that_needs_nothing_is_done_at_once(case: Case, words: tuple[str, ...]) -> None:
    ended = case.fetch(*words)
    assert (ended.code, "nothing to fetch" in ended.out) == (0, True), ended.out


@pytest.fixture(scope="module")
def dinov2() -> dict[str, bytes]:
    """A repository of transformers, with files that are not read."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=24, patch_size=8
    )
    processor = transformers.BitImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 24, "width": 24}
    )
    return {
        **pretrained(transformers.Dinov2Model(config), processor),
        "pytorch_model.bin": b"the same once more",
        "README.md": b"what it is",
    }


def pretrained(*models: Any, **options: Any) -> dict[str, bytes]:
    """The files that save_pretrained writes."""
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            model.save_pretrained(folder, **options)
        return content(Path(folder))


def content(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def encoder(case: Case, dinov2: dict[str, bytes]) -> Case:
    case.served.repositories["someone/tiny-dinov2"] = dict(dinov2)
    case.sets += ["encoder={name: dinov2, model: someone/tiny-dinov2}"]
    return case


def snapshot(case: Case, repository: str) -> Path:
    return case.folder / "hf" / "hub" / repository / "snapshots" / COMMIT


CLIPPED = "sampler={name: dpmpp, steps: 3, clip: null}"
READ = {"config.json", "model.safetensors", "preprocessor_config.json"}


def test_an_encoder_of_the_hub_goes_into_the_hubs_cache_with_the_files_that_are_read(
    encoder: Case, dinov2: dict[str, bytes]
) -> None:
    before = encoder.fetch("--dry-run")
    size = sum(len(dinov2[name]) for name in READ)
    place = encoder.folder / "hf" / "hub" / "models--someone--tiny-dinov2"
    line = f"encoder dinov2: someone/tiny-dinov2, {size / 1000:.1f} kB, from {encoder.served.url}"
    assert f"missing  {line}/someone/tiny-dinov2 to {place}" in before.out

    assert encoder.fetch().code == 0
    found = content(snapshot(encoder, place.name))
    assert found == {name: dinov2[name] for name in READ}
    encoder.served.requests.clear()
    again = encoder.fetch()
    assert (again.code, "nothing to fetch" in again.out) == (0, True), again.out
    assert not encoder.served.requests


def test_weights_that_timm_names_are_fetched_from_its_repository(case: Case) -> None:
    tensors = save({"cls_token": torch.zeros(1, 1, 384)})
    repository = {"model.safetensors": tensors, "pytorch_model.bin": b"old", "config.json": b"{}"}
    case.served.repositories["timm/vit_small_patch16_224.dino"] = repository
    case.sets += ["encoder=dinov1"]
    assert case.fetch().code == 0
    folder = snapshot(case, "models--timm--vit_small_patch16_224.dino")
    assert content(folder) == {"model.safetensors": tensors}


def test_a_file_of_the_hub_with_a_wrong_sum_is_refused_and_removed(encoder: Case) -> None:
    path = f"/someone/tiny-dinov2/resolve/{COMMIT}/model.safetensors"
    right = encoder.served.repositories["someone/tiny-dinov2"]["model.safetensors"]
    encoder.served.instead[path] = right[:-1] + b"x"
    ended = encoder.fetch()
    assert ended.code == 2
    assert "tiny-dinov2: model.safetensors came with another sum than the hub states" in ended.out
    cache = snapshot(encoder, "models--someone--tiny-dinov2")
    assert not (cache / "model.safetensors").is_symlink()
    assert len(list((cache.parents[1] / "blobs").iterdir())) == len(READ) - 1
    encoder.served.instead.clear()
    assert encoder.fetch().code == 0
    assert (cache / "model.safetensors").read_bytes() == right


def test_a_damaged_file_in_the_hubs_cache_is_fetched_again(encoder: Case) -> None:
    assert encoder.fetch().code == 0
    file = snapshot(encoder, "models--someone--tiny-dinov2") / "model.safetensors"
    right = file.read_bytes()
    file.resolve().write_bytes(right[:-100])
    assert encoder.fetch().code == 0
    assert file.read_bytes() == right


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, 2, "says 401: set HF_TOKEN"),
        (404, 2, "is not there, or is private"),
        (503, 1, "cannot be fetched: the server says 503"),
    ],
)
def test_a_repository_that_the_hub_refuses_is_a_sentence(
    encoder: Case, status: int, code: int, words: str
) -> None:
    encoder.served.status["/api/models/someone/tiny-dinov2"] = status
    encoder.env["HF_TOKEN"] = "hf_averysecrettokenindeed"
    ended = encoder.fetch()
    assert (ended.code, words in ended.out) == (code, True), ended.out
    assert "Traceback" not in ended.out
    assert "averysecret" not in ended.out


def test_the_users_own_word_that_the_hub_is_not_to_be_asked_is_honoured(encoder: Case) -> None:
    encoder.env["HF_HUB_OFFLINE"] = "1"
    ended = encoder.fetch()
    assert (ended.code, "HF_HUB_OFFLINE" in ended.out) == (2, True), ended.out
    assert not encoder.served.requests


@pytest.fixture(scope="module")
def vae() -> dict[str, bytes]:
    diffusers = pytest.importorskip("diffusers")
    network = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
    )
    return pretrained(network)


@pytest.mark.parametrize("inner", ["", "vae/"])
def test_an_autoencoder_goes_into_the_folder_that_the_recipe_names(
    case: Case, vae: dict[str, bytes], inner: str
) -> None:
    others = {"README.md": b"what it is", "unet/diffusion_pytorch_model.safetensors": b"large"}
    repository = {**others, **{inner + name: data for name, data in vae.items()}}
    case.served.repositories["someone/pipeline"] = repository
    folder = case.folder / "weights" / "vae"
    source = f"someone/pipeline/{inner}".rstrip("/")
    case.sets += [f"latents={{name: kl, weights: {folder}, shrink: 2, source: {source}}}", CLIPPED]
    ended = case.fetch()
    assert ended.code == 0, ended.out
    assert content(folder) == vae
    assert [path.name for path in folder.parent.iterdir()] == ["vae"]
    case.served.requests.clear()
    assert case.fetch().code == 0
    assert not case.served.requests


def test_an_autoencoder_without_a_source_is_brought_by_hand_and_the_message_says_how_not_to(
    case: Case,
) -> None:
    case.sets += [f"latents={{name: kl, weights: {case.folder / 'vae'}, shrink: 2}}", CLIPPED]
    ended = case.fetch()
    assert ended.code == 2
    assert "give its repository on the hub as `source`, and `fw fetch RECIPE` brings" in ended.out


def test_where_a_folder_comes_from_changes_no_key(tmp_path: Path, vae: dict[str, bytes]) -> None:
    for name, data in vae.items():
        (tmp_path / name).write_bytes(data)
    for kind, fields in ((KL, {"shrink": 2}), (DiffusersFolder, {})):
        plain = kind(weights=tmp_path, **fields).identity()
        assert kind(weights=tmp_path, source="someone/vae", **fields).identity() == plain
        assert "source" not in plain
        for wrong in ("someone", "https://huggingface.co/someone/vae", "a/b/c/d", "a/b@"):
            with pytest.raises(ValidationError, match="source"):
                kind(weights=tmp_path, source=wrong, **fields)


def test_where_there_is_no_terminal_a_line_says_the_rate_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pace = Pace(3_000_000)
    assert pace.line(1_000_000) is None  # a moment after the beginning
    monkeypatch.setattr(pace, "said", -math.inf)
    monkeypatch.setattr(pace, "began", time.monotonic() - 2)
    line = pace.line(500_000)
    assert line is not None
    assert re.fullmatch(r"1\.5 MB of 3\.0 MB, [67]\d\d\.\d kB/s, 2 s left", line), line


def test_a_pipelines_network_and_scheduler_are_fetched(case: Case) -> None:
    diffusers = pytest.importorskip("diffusers")
    network = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    pipeline = diffusers.DDPMPipeline(network, diffusers.DDPMScheduler())
    files = pretrained(pipeline)
    case.served.repositories["someone/ddpm"] = {**files, "README.md": b"what it is"}
    folder = case.folder / "ddpm"
    case.sets += [
        f"model={{name: diffusers, weights: {folder}, source: someone/ddpm@{COMMIT}}}",
        "process={name: ddpm}",
    ]
    ended = case.fetch()
    assert ended.code == 0, ended.out
    assert content(folder) == files


@pytest.fixture
def dataset(case: Case) -> Case:
    datasets = pytest.importorskip("datasets")
    draws = np.random.default_rng(0)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    files = {"README.md": b"# images"}
    for split, count in (("train", 60), ("test", 20)):
        for shard in range(2):
            rows: dict[str, list[Any]] = {"image": [], "label": []}
            for number in range(count // 2):
                image = io.BytesIO()
                Image.fromarray(draws.integers(0, 256, (8, 8), dtype=np.uint8)).save(image, "PNG")
                rows["image"].append({"bytes": image.getvalue(), "path": None})
                rows["label"].append(number % 3)
            table = io.BytesIO()
            datasets.Dataset.from_dict(rows, features=features).to_parquet(table)
            files[f"data/{split}-{shard:05d}-of-00002.parquet"] = table.getvalue()
    case.served.repositories["datasets/someone/images"] = files
    fields = "label: label, label_count: 3, size: 8, channels: 1"
    case.sets += [f"dataset={{name: hub, path: someone/images, {fields}}}"]
    return case


def test_a_data_set_of_the_hub_is_fetched_whole_and_can_be_read(dataset: Case) -> None:
    files = dataset.served.repositories["datasets/someone/images"]
    ended = dataset.fetch()
    assert ended.code == 0, ended.out
    folder = snapshot(dataset, "datasets--someone--images")
    assert content(folder) == files
    dataset.served.requests.clear()
    assert "nothing to fetch" in dataset.fetch().out
    words = ["validate", str(TINY), *(f"--set={each}" for each in dataset.sets)]
    valid = dataset.process.run(*words, env=dataset.environment)
    assert (valid.code, "fine" in valid.out) == (0, True), valid.out
    assert "not on this machine" not in valid.out
    assert not dataset.served.requests


def test_a_data_set_of_which_a_part_was_fetched_is_not_taken_for_whole(dataset: Case) -> None:
    dataset.served.repositories["datasets/someone/images"]["notes.bin"] = b"x" * 99_000
    folder = snapshot(dataset, "datasets--someone--images")
    blobs = folder.parents[1] / "blobs"
    dataset.served.slow.add(f"/datasets/someone/images/resolve/{COMMIT}/notes.bin")
    killed(dataset, lambda: len(list(folder.glob("data/*"))) == 4 and list(blobs.glob("*.incomp*")))
    (left,) = blobs.glob("*.incomplete")
    os.utime(left, (0, 0))
    words = ["run", str(TINY), *(f"--set={each}" for each in dataset.sets)]
    words += ["--out", str(dataset.folder / "runs")]
    refused = dataset.process.run(*words, env=dataset.environment)
    assert refused.code == 2
    assert "someone/images is neither a folder nor whole in the hub's cache" in refused.out
    assert "`fw fetch RECIPE` brings it" in refused.out
    dataset.served.slow.clear()
    dataset.served.requests.clear()
    ended = dataset.fetch()
    assert ended.code == 0, ended.out
    assert content(folder) == dataset.served.repositories["datasets/someone/images"]
    assert not list(blobs.glob("*.incomplete"))
    assert not dataset.served.fetched(".parquet")
