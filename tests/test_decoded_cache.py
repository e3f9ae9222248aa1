"""What is remembered of images between processes is not believed without its checksum."""

import ast
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fw.core.errors import MissingFile
from fw.core.files import sealed
from fw.core.files.unfinished import checksum
from fw.plugins.datasets import decoded, listing
from fw.plugins.datasets.image_folder import ImageFolder

SIDE = 8


def fill(root, train=5, test=3):
    for split, count in (("train", train), ("test", test)):
        (root / split).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(1000 * len(split) + number).integers(
                0, 256, (SIDE, SIDE, 3), dtype=np.uint8
            )
            Image.fromarray(pixels).save(root / split / f"{number}.png")
    return root


def folder_of(tmp_path, **fields):
    return ImageFolder(root=tmp_path / "data", cache=tmp_path / "cache", **{"size": SIDE, **fields})


def flip(file, place, bit=0):
    """Another bit in a file whose size and times stay, as on a disk that fails."""
    before = file.stat()
    changed = bytearray(file.read_bytes())
    changed[place] ^= 1 << bit
    file.write_bytes(changed)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def another_process(monkeypatch):
    """What a process knows when it begins: nothing was compared yet."""

    def begin():
        monkeypatch.setattr(decoded, "VOUCHED_FOR", set())

    return begin


@pytest.mark.parametrize("name", ["images.u8", "labels.i64", "facts.json"])
def test_a_flipped_bit_in_what_was_decoded_is_noticed_and_told_in_one_line(
    tmp_path, name, another_process, capsys
):
    fill(tmp_path / "data")
    before = folder_of(tmp_path).load("train").images.clone()
    [file] = (tmp_path / "cache").rglob(name)
    clean = file.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(clean), 8):
        another_process()
        flip(file, place)
        capsys.readouterr()
        data = folder_of(tmp_path).load("train")
        assert data.images.equal(before)
        assert file.read_bytes() == clean
        [line] = capsys.readouterr().err.splitlines()
        assert "decoding again" in line


def test_a_process_compares_the_images_once(tmp_path, another_process, monkeypatch):
    fill(tmp_path / "data")
    folder_of(tmp_path).load("train")
    another_process()
    read = []

    def counted(path):
        read.append(path.name)
        return checksum(path)

    monkeypatch.setattr(decoded, "checksum", counted)
    for _ in range(3):
        folder_of(tmp_path).load("train")
    assert read.count("images.u8") == 1


def test_images_that_were_decoded_before_there_were_checksums_are_decoded_again(
    tmp_path, another_process
):
    fill(tmp_path / "data")
    before = folder_of(tmp_path).load("train").images.clone()
    [facts] = (tmp_path / "cache").rglob("facts.json")
    facts.write_text(json.dumps({"count": 5, "failed": {}}))
    flip(facts.with_name("images.u8"), 7)
    another_process()
    assert folder_of(tmp_path).load("train").images.equal(before)
    assert "sha256" in json.loads(facts.read_text())


def test_a_flipped_bit_in_a_remembered_fingerprint_changes_no_key(tmp_path):
    fill(tmp_path / "data")
    before = folder_of(tmp_path).identity()
    for memory in (tmp_path / "cache/fingerprints").iterdir():
        text = memory.read_text()
        for place in (text.index('"fingerprint": "') + 20, text.index("rule"), 0):
            flip(memory, place)
            assert folder_of(tmp_path).identity() == before
            assert memory.read_text() == text


def test_a_fingerprint_without_a_checksum_is_not_believed(tmp_path):
    fill(tmp_path / "data")
    before = folder_of(tmp_path).identity()
    for memory in (tmp_path / "cache/fingerprints").iterdir():
        memory.write_text("0" * 64)
    assert folder_of(tmp_path).identity() == before


def test_a_source_that_rots_after_its_fingerprint_was_taken_is_noticed_when_it_is_decoded(tmp_path):
    fill(tmp_path / "data")
    data = folder_of(tmp_path)
    before = data.identity()
    path = tmp_path / "data/train/3.png"
    [file] = [file for file in data.files()["train"] if file.path == str(path)]
    memory = listing.memory_of(data.files()["train"], tmp_path / "cache")
    flip(path, path.stat().st_size // 2)
    now = listing.memory_of(data.files()["train"], tmp_path / "cache")
    memory.rename(now)  # as if the time of change, which nothing can set back, were the same
    assert file.path == str(path)
    assert data.identity() == before
    with pytest.raises(MissingFile, match="others than when their fingerprint was taken"):
        data.load("train")
    assert data.identity() != before


def test_what_is_sealed_is_read_by_another_process(tmp_path):
    values = {"count": 3, "names": {"ü\udc80.png": "x\n"}, "range": [0.1, 1e300]}
    sealed.write(tmp_path / "a.json", values)
    assert sealed.read(tmp_path / "a.json") == values
    imports = "import sys; from pathlib import Path; from fw.core.files import sealed"
    code = f"{imports}; print(sealed.read(Path(sys.argv[1])))"
    there = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ast.literal_eval(there.stdout) == values
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '{"count": 3}', '{"count": 3, "seal": null}']
)
def test_what_has_no_seal_is_nothing(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert sealed.read(tmp_path / "a.json") is None
    assert sealed.read(tmp_path / "b.json") is None
