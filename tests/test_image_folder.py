"""Folders of image files: what becomes of every kind of file, and that they are decoded once,
whole and safely."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from fw.core.errors import FwError, MissingFile
from fw.core.files.cache import cache_folder
from fw.core.testing import check
from fw.plugins.datasets import decoded, progress
from fw.plugins.datasets.image_folder import ImageFolder
from fw.plugins.datasets.listing import is_held_out
from fw.plugins.datasets.picture import middle

SIDE = 8


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path, pixels, **options):
    """Write an array (H, W) or (H, W, C), or a picture of Pillow's, as an image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    picture.save(path, **options)
    return path


def fill(root, train=6, test=4, classes=("cat", "dog")):
    """A folder of noise in two splits and some classes."""
    for split, count in (("train", train), ("test", test)):
        for number in range(count):
            pixels = noise(SIDE, SIDE, 3, seed=1000 * len(split) + number)
            write(root / split / classes[number % len(classes)] / f"{number}.png", pixels)
    return root


def folder_of(tmp_path, **fields):
    return ImageFolder(root=tmp_path / "data", cache=tmp_path / "cache", **{"size": SIDE, **fields})


def decode(tmp_path, name, pixels, size=SIDE, channels=3, **options):
    """The pixels (C, H, W) that come of one file that is written like this; another image is the
    test split."""
    write(tmp_path / "data" / "test" / "other.png", np.zeros((4, 4), np.uint8))
    write(tmp_path / "data" / "train" / name, pixels, **options)
    return folder_of(tmp_path, size=size, channels=channels).load("train").images[0]


def as_torch(pixels):
    """(H, W, C) or (H, W) to (C, H, W)."""
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1).copy())


@pytest.mark.parametrize(
    "fields", [{"class_folders": 2}, {}, {"held_out": 0.4, "channels": 1, "size": (5, 7)}]
)
def test_it_keeps_to_the_contract_of_datasets(tmp_path, fields):
    fill(tmp_path / "data")
    check(folder_of(tmp_path, **fields))


@pytest.mark.parametrize(
    "name", ["a.png", "a.PNG", "a.bmp", "a.tiff", "a.ppm", "deep/in/there/a.png"]
)
def test_a_file_of_the_right_size_without_loss_keeps_every_bit(tmp_path, name):
    pixels = noise(SIDE, SIDE, 3)
    assert decode(tmp_path, name, pixels).equal(as_torch(pixels))


def test_a_lossless_webp_keeps_every_bit_and_a_jpeg_nearly(tmp_path):
    smooth = np.broadcast_to(
        np.linspace(0, 255, SIDE, dtype=np.uint8)[:, None, None], (SIDE, SIDE, 3)
    )
    assert decode(tmp_path / "1", "a.webp", smooth, lossless=True).equal(as_torch(smooth))
    found = decode(tmp_path / "2", "a.jpg", smooth, quality=95)
    assert (found.int() - as_torch(smooth).int()).abs().max() <= 6


def test_grey_becomes_three_equal_channels_and_colour_becomes_its_luma(tmp_path):
    grey, colour = noise(SIDE, SIDE), noise(SIDE, SIDE, 3)
    assert decode(tmp_path / "1", "a.png", grey).equal(as_torch(grey).expand(3, -1, -1))
    assert decode(tmp_path / "2", "a.png", grey, channels=1).equal(as_torch(grey))
    luma = torch.from_numpy(colour @ np.array([0.299, 0.587, 0.114]))
    found = decode(tmp_path / "3", "a.png", colour, channels=1)
    assert (found[0] - luma).abs().max() < 0.51


def test_a_palette_is_looked_up(tmp_path):
    palette = Image.new("P", (SIDE, SIDE))
    index = noise(SIDE, SIDE) % 4
    palette.putdata(index.flatten().tolist())
    colours = noise(4, 3, seed=1)
    palette.putpalette(colours.flatten().tolist())
    assert decode(tmp_path, "a.png", palette).equal(as_torch(colours[index]))


@pytest.mark.parametrize("alpha", [0, 100, 255])
def test_what_is_transparent_lies_on_white(tmp_path, alpha):
    pixels = np.dstack([noise(SIDE, SIDE, 3), np.full((SIDE, SIDE), alpha, np.uint8)])
    expected = as_torch(pixels[..., :3]) * (alpha / 255) + 255 * (1 - alpha / 255)
    assert (decode(tmp_path, "a.png", pixels) - expected).abs().max() <= 1


def test_a_transparent_palette_entry_is_white(tmp_path):
    pixels = Image.new("P", (SIDE, SIDE), 1)
    pixels.putpalette([10, 20, 30, 40, 50, 60])
    pixels.paste(0, (0, 0, SIDE // 2, SIDE))
    found = decode(tmp_path, "a.png", pixels, transparency=0)
    assert found[:, 0, 0].tolist() == [255] * 3
    assert found[:, 0, -1].tolist() == [40, 50, 60]


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    levels = np.linspace(0, 65535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
    for number, name in enumerate(["a.png", "a.tiff"]):
        found = decode(tmp_path / str(number), name, levels, channels=1)
        assert (found[0] - torch.from_numpy(levels / 257)).abs().max() <= 0.51


def test_cmyk_is_read_as_colour(tmp_path):
    cyan = Image.new("CMYK", (SIDE, SIDE), (255, 0, 0, 0))
    red, green, blue = decode(tmp_path, "a.jpg", cyan, quality=95).float().mean(dim=(1, 2)).tolist()
    assert red < 10
    assert min(green, blue) > 245


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "green", "blue")]
    found = decode(tmp_path, "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert found.equal(
        torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, SIDE, SIDE)
    )


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_the_orientation_in_exif_is_applied(tmp_path, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = noise(SIDE, SIDE, 3)
    found = decode(tmp_path, "a.png", pixels, exif=exif)
    assert found.equal(as_torch(np.rot90(pixels, turns)))


def test_the_middle_of_an_oblong_picture_is_kept(tmp_path):
    wide = noise(SIDE, SIDE + 6, 3)
    assert decode(tmp_path / "1", "a.png", wide).equal(as_torch(wide[:, 3:-3]))
    high = noise(SIDE + 4, 2 * SIDE, 3)
    assert decode(tmp_path / "2", "a.png", high, size=(SIDE, 2 * SIDE)).equal(as_torch(high[2:-2]))


@given(
    across=st.integers(1, 5000),
    down=st.integers(1, 5000),
    height=st.integers(1, 500),
    width=st.integers(1, 500),
)
def test_the_box_that_is_kept_has_the_wanted_aspect_touches_two_edges_and_is_in_the_middle(
    across, down, height, width
):
    left, top, right, bottom = middle((across, down), height, width)
    assert (right - left) * height == pytest.approx((bottom - top) * width)
    assert left + right == pytest.approx(across)
    assert top + bottom == pytest.approx(down)
    assert min(left, top) == pytest.approx(0, abs=1e-9)
    assert 0 <= left < right <= across
    assert 0 <= top < bottom <= down


def test_a_checkerboard_shrinks_to_grey(tmp_path):
    board = (255 * (np.indices((16 * SIDE, 16 * SIDE)).sum(axis=0) % 2)).astype(np.uint8)
    found = decode(tmp_path, "a.png", board, channels=1)
    assert (found.float() - 127.5).abs().max() < 1
    dropped = board[::15, ::15]  # what picking single pixels would make of it
    assert dropped.std() > 100


@pytest.mark.parametrize(("cycles", "kept"), [(2, True), (6, False), (21, False)])
def test_waves_that_the_small_picture_can_show_stay_and_finer_ones_vanish(tmp_path, cycles, kept):
    """Eight pixels show up to four cycles; 21 of 64 pixels would show as waves if pixels were
    left out."""
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * cycles * (np.arange(64) + 0.5) / 64)
    found = decode(
        tmp_path, "a.png", np.tile((255 * wave).round().astype(np.uint8), (64, 1)), channels=1
    )
    middle_columns = found[0, 0, 1:-1].float()  # the edge has no neighbours beyond
    assert (middle_columns.std() > 70) == kept
    assert kept or middle_columns.std() < 12


def damage(folder):
    """Four files that are no images, whatever their names say."""
    whole = write(folder / "a_truncated.jpg", noise(64, 64, 3))
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (folder / "b_empty.png").touch()
    (folder / "c_text.png").write_text("not an image")
    noise_of_a_rare_kind = Image.fromarray(noise(8, 8, 3))
    noise_of_a_rare_kind.save(
        folder / "d_rare.png", format="PCX"
    )  # which Pillow would read, as it would PostScript


def test_damaged_files_are_left_out_and_told_once(tmp_path, capsys):
    fill(tmp_path / "data", classes=("cat",))
    damage(tmp_path / "data" / "train" / "cat")
    data = folder_of(tmp_path, class_folders=1)
    assert len(data.load("train")) == len(data.load("train").images) == 6
    said = capsys.readouterr().err
    assert said.startswith(
        "4 of 10 files could not be decoded: cat/a_truncated.jpg, cat/b_empty.png, cat/c_text.png, "
    )
    assert said.count("\n") == 1
    [facts] = (tmp_path / "cache").rglob("facts.json")
    assert list(json.loads(facts.read_text())["failed"])[3] == "cat/d_rare.png"


def test_labels_stay_with_their_images_when_files_are_left_out(tmp_path):
    for label, split in ((0, "train"), (1, "train"), (2, "train"), (1, "test")):
        for number in range(3):
            write(
                tmp_path / "data" / split / f"class {label}" / f"{number}.png",
                np.full((9, 9), 80 * label, np.uint8),
            )
    damage(tmp_path / "data" / "train" / "class 1")
    for split, count in (("train", 9), ("test", 3)):
        data = folder_of(tmp_path, class_folders=3).load(split)
        assert data.labels is not None
        assert data.images[:, 0, 0, 0].tolist() == (80 * data.labels).tolist()
        assert len(data) == count


def test_truncated_files_are_left_out_even_if_another_library_lets_pillow_fill_them_up(
    tmp_path, monkeypatch
):
    fill(tmp_path / "data")
    damage(tmp_path / "data" / "train" / "cat")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert len(folder_of(tmp_path).load("train")) == 6
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_no_image_left_is_an_error_with_the_reason(tmp_path):
    fill(tmp_path / "data", train=1)
    (tmp_path / "data/train/cat/0.png").write_text("not an image")
    with pytest.raises(
        MissingFile, match=r"none of 1 images could be decoded; cat/0\.png: cannot identify"
    ):
        folder_of(tmp_path).load("train")


def test_classes_are_numbered_by_the_names_of_their_folders(tmp_path):
    for value, name in ((10, "b"), (20, "a"), (30, "B")):
        for split in ("train", "test"):
            write(tmp_path / "data" / split / name / "x.png", np.full((4, 4), value, np.uint8))
    data = folder_of(tmp_path, class_folders=3).load("train")
    assert data.images[:, 0, 0, 0].tolist() == [30, 20, 10]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2]


def test_hidden_files_and_files_of_other_kinds_are_no_images(tmp_path):
    fill(tmp_path / "data")
    for name in (".hidden.png", "._0.png", "notes.txt", ".git/x.png"):
        path = tmp_path / "data/train/cat" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("no image")
    assert len(folder_of(tmp_path, class_folders=2).load("train")) == 6


def test_a_link_to_a_folder_is_followed_and_one_that_leads_back_is_not(tmp_path):
    fill(tmp_path / "data", classes=("cat",))
    fill(tmp_path / "elsewhere", classes=("dog",))
    (tmp_path / "data/train/dog").symlink_to(tmp_path / "elsewhere/train/dog")
    (tmp_path / "data/train/cat/again").symlink_to(tmp_path / "data")
    assert len(folder_of(tmp_path).load("train")) == 12


@given(
    share=st.floats(0.05, 0.95),
    names=st.sets(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1),
)
def test_whether_a_file_is_held_out_depends_on_its_own_name_and_on_nothing_else(share, names):
    chosen = {name for name in names if is_held_out(name, share)}
    assert chosen == {name for name in sorted(names) if is_held_out(name, share)}
    assert chosen <= {name for name in names if is_held_out(name, min(1.0, share + 0.05))}


def test_the_share_that_is_held_out_is_the_one_asked_for():
    taken = sum(is_held_out(f"cat/{number:05d}.png", 0.2) for number in range(20_000))
    assert taken == pytest.approx(4_000, abs=5 * (20_000 * 0.2 * 0.8) ** 0.5)


def test_one_folder_is_split_without_loss(tmp_path):
    fill(tmp_path / "data", train=30, test=0)
    dataset = folder_of(tmp_path, held_out=0.3)
    train, test = (dataset.load(split).images.flatten(1).numpy() for split in ("train", "test"))
    write(tmp_path / "other" / "0.png", noise(SIDE, SIDE))
    everything = folder_of(tmp_path, test="../other").load("train").images.flatten(1).numpy()
    assert len(train)
    assert len(test)
    assert sorted(map(bytes, [*train, *test])) == sorted(map(bytes, everything))


def test_the_key_is_that_of_the_content_wherever_the_folder_lies(tmp_path):
    here = fill(tmp_path / "data")
    before = folder_of(tmp_path).identity()
    shutil.copytree(here, tmp_path / "copy")  # with other times
    assert (
        ImageFolder(root=tmp_path / "copy", size=SIDE, cache=tmp_path / "other cache").identity()
        == before
    )
    here.rename(tmp_path / "renamed")
    assert (
        ImageFolder(
            root=tmp_path / "renamed", size=(SIDE, SIDE), cache=tmp_path / "cache"
        ).identity()
        == before
    )
    assert folder_of(tmp_path).identity()["content"] is None
    pinned = folder_of(tmp_path, content=before["content"])  # where no files are
    assert pinned.identity() == before


@pytest.mark.parametrize("change", ["pixel", "order", "less", "more"])
def test_the_key_changes_when_the_content_does_and_the_images_follow(tmp_path, change):
    root = fill(tmp_path / "data")
    file = root / "train/cat/0.png"
    write(
        file.with_suffix(".bmp"), noise(SIDE, SIDE, 3)
    )  # whose size is the same whatever it shows
    before, images = folder_of(tmp_path).identity(), folder_of(tmp_path).load("train").images
    match change:
        case "pixel":
            write(file.with_suffix(".bmp"), noise(SIDE, SIDE, 3, seed=9))
        case "order":
            file.rename(file.with_stem("zzz"))
        case "less":
            file.unlink()
        case "more":
            write(file.with_stem("new"), noise(SIDE, SIDE, 3, seed=9))
    assert folder_of(tmp_path).identity() != before
    assert not torch.equal(folder_of(tmp_path).load("train").images, images)


def test_a_name_is_of_the_content_because_it_says_the_class_and_the_split(tmp_path):
    root = fill(tmp_path / "data")
    before = folder_of(tmp_path).identity()
    for split in ("train", "test"):
        (root / split / "dog").rename(root / split / "doe")  # in the same place of the order
    assert folder_of(tmp_path).identity() != before


def test_other_files_than_the_recipe_asks_for_are_refused(tmp_path):
    fill(tmp_path / "data")
    content = folder_of(tmp_path).identity()["content"]
    folder_of(tmp_path, content=content).preflight()
    with pytest.raises(
        MissingFile, match=f"their fingerprint is {content}, and `content` is 0000000000000000"
    ):
        folder_of(tmp_path, content="0" * 16).load("train")


def test_files_are_decoded_once_wherever_they_lie_and_again_for_other_settings(
    tmp_path, monkeypatch
):
    fill(tmp_path / "data")
    count = []
    attempt = decoded.attempt

    def counted(*given, **named):
        count.append(1)
        return attempt(*given, **named)

    monkeypatch.setattr(decoded, "attempt", counted)
    first = folder_of(tmp_path).load("train").images
    assert folder_of(tmp_path).load("train").images.equal(first)
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    assert (
        ImageFolder(root=tmp_path / "moved", size=SIDE, cache=tmp_path / "cache")
        .load("train")
        .images.equal(first)
    )
    assert len(count) == 6
    folder_of(tmp_path, size=4).load("train")
    folder_of(tmp_path, channels=1).load("train")
    assert len(count) == 18


def test_the_images_are_mapped_and_not_read(tmp_path):
    fill(tmp_path / "data")
    images = folder_of(tmp_path).load("train").images
    [file] = (tmp_path / "cache").rglob("images.u8")
    assert str(file) in open("/proc/self/maps", encoding="utf-8").read()  # noqa: PTH123, SIM115
    before = file.read_bytes()
    images.zero_()
    assert file.read_bytes() == before


def test_a_cache_that_was_cut_off_is_made_again(tmp_path):
    fill(tmp_path / "data")
    before = folder_of(tmp_path).load("train").images.clone()
    [file] = (tmp_path / "cache").rglob("images.u8")
    for name, end in (("images.u8", 10), ("facts.json", 3)):
        os.truncate(file.with_name(name), end)
        assert folder_of(tmp_path).load("train").images.equal(before)
    for memory in (tmp_path / "cache/fingerprints").iterdir():
        os.truncate(memory, 5)
    assert folder_of(tmp_path).load("train").images.equal(before)


LOADING = """
import os, signal, sys, time
from pathlib import Path
from fw.core.testing.digest import digest
from fw.plugins.datasets import decoded
from fw.plugins.datasets.image_folder import ImageFolder

folder, processes, killed_after = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
log, attempt = folder / "log.txt", decoded.attempt

def logged(source, shape, scale):
    with log.open("a") as file:
        file.write(source.name + "\\n")
    if len(log.read_text().splitlines()) >= killed_after:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return attempt(source, shape, scale)

decoded.attempt = logged
(folder / f"{os.getpid()}.ready").touch()
while len(list(folder.glob("*.ready"))) < processes:
    time.sleep(0.001)
images = ImageFolder(root=folder / "data", cache=folder / "cache", size=8).load("train").images
print(digest([images]))
"""


def loading(tmp_path, processes=1, killed_after=1000):
    """A process that loads the folder as soon as there are so many, and logs each file that it
    decodes."""
    command = [sys.executable, "-c", LOADING, str(tmp_path), str(processes), str(killed_after)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killing_it_in_the_middle_leaves_nothing_that_is_taken_for_finished(tmp_path):
    fill(tmp_path / "data", train=20)
    killed = loading(tmp_path, killed_after=4)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "cache").rglob("*.writing"))
    assert not list((tmp_path / "cache").rglob("facts.json"))
    assert len(folder_of(tmp_path).load("train")) == 20
    assert not list((tmp_path / "cache").rglob("*.writing"))


def test_of_two_processes_at_once_one_decodes_and_both_get_the_same_bits(tmp_path):
    fill(tmp_path / "data", train=20)
    answers = [
        process.communicate()[0] for process in [loading(tmp_path, processes=2) for _ in range(2)]
    ]
    assert answers[0] == answers[1] != ""
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 20


def test_files_that_change_while_they_are_decoded_are_an_error(tmp_path, monkeypatch):
    root = fill(tmp_path / "data")
    attempt = decoded.attempt

    def meddling(*given, **named):
        write(root / "train/cat/0.png", noise(9, 9, 3))
        return attempt(*given, **named)

    monkeypatch.setattr(decoded, "attempt", meddling)
    monkeypatch.setattr(decoded, "AT_ONCE", 1)
    with pytest.raises(MissingFile, match="changed while they were decoded"):
        folder_of(tmp_path).load("train")


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        (lambda root: root, {}, "expects images in .*train, which is no folder: set `root`"),
        (lambda root: fill(root, train=0) / "train", {}, "train, which is no folder"),
        (
            lambda root: write(fill(root, test=0) / "test/.x.png", noise(4, 4)),
            {},
            "no images for its test split in",
        ),
        (
            fill,
            {"class_folders": 3},
            r"has 2 sub-folders with images \(cat, dog\), and `class_folders` is 3",
        ),
        (
            lambda root: write(fill(root) / "test/x.png", noise(4, 4)),
            {"class_folders": 2},
            "x.png .* in no class",
        ),
        (
            lambda root: write(fill(root) / "test/elk/x.png", noise(4, 4)),
            {"class_folders": 2},
            "has not: elk",
        ),
        (
            lambda root: fill(root, train=2, test=0),
            {"held_out": 0.01},
            "finds no images for its test split",
        ),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence_before_the_run(tmp_path, make, fields, message):
    make(tmp_path / "data")
    with pytest.raises(MissingFile, match=message) as caught:
        folder_of(tmp_path, **fields).preflight()
    assert "\n" not in str(caught.value)


def test_a_recipe_can_be_checked_where_the_files_are_not(tmp_path):
    dataset = folder_of(tmp_path, size=(6, 9), class_folders=7)
    assert dataset.shape == (3, 6, 9)
    assert dataset.classes == 7
    assert dataset.provides == {"labels"}
    assert dataset.identity()["content"] is None
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "fields", [{"size": 0}, {"channels": 4}, {"held_out": 1.0}, {"test": "train"}, {"size": (3,)}]
)
def test_fields_that_make_no_sense_are_refused(tmp_path, fields):
    with pytest.raises(ValueError, match="validation error"):
        folder_of(tmp_path, **fields)


def test_a_cache_that_cannot_be_written_to_is_said_in_one_sentence(tmp_path):
    fill(tmp_path / "data")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(FwError, match=r"cannot write to .*cache: .*`cache` or in .FW_CACHE_DIR"):
        folder_of(tmp_path).load("train")


def test_a_disk_that_is_too_small_is_noticed_before_the_work(tmp_path, monkeypatch):
    fill(tmp_path / "data")
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(free=6 * 3 * SIDE * SIDE - 1)
    )
    with pytest.raises(FwError, match="6 decoded images take"):
        folder_of(tmp_path).load("train")


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("FW_CACHE_DIR", str(tmp_path / "there"))
    assert cache_folder(None) == tmp_path / "there"
    assert cache_folder(tmp_path / "given") == tmp_path / "given"


def test_without_a_terminal_long_work_is_told_in_lines(capsys, monkeypatch):
    monkeypatch.setattr(time, "monotonic", iter([0.0, 29.0, 40.0]).__next__)
    with progress.progress("decoding images", 300) as advance:
        advance(100)
        advance(100)
    assert capsys.readouterr().err == "decoding images: 200 of 300, 20 s left, 5/s\n"


def test_on_a_terminal_there_is_a_bar_with_rate_and_time_left(monkeypatch):
    ours, theirs = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress.progress("decoding images", 300) as advance:
            for _ in range(4):
                advance(25)
    shown = as_shown(ours)
    assert re.search(r"decoding images .*100/300.* [\d,]+/s .*\d:\d\d:\d\d", shown), shown


def as_shown(terminal):
    """All that was written to a terminal whose other end is closed."""
    parts = []
    with contextlib.suppress(OSError):  # the end, as Linux tells it
        while part := os.read(terminal, 4096):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()


def test_a_root_whose_name_no_file_system_takes_is_a_folder_that_is_not_there() -> None:
    folder = ImageFolder(root=Path("x" * 5000), size=8)
    assert folder.identity()["content"] is None
    folder.check()
    with pytest.raises(MissingFile, match="is no folder"):
        folder.preflight()


@pytest.mark.parametrize(
    ("channels", "colourful", "said"), [(3, False, 1), (3, True, 0), (1, False, 0)]
)
def test_grey_images_that_are_read_as_rgb_are_remarked_upon(tmp_path, channels, colourful, said):
    paths = sorted(fill(tmp_path / "data").rglob("*.png"))
    for number, path in enumerate(paths):
        write(path, noise(SIDE, SIDE, seed=number))
    if colourful:
        write(paths[-1], noise(SIDE, SIDE, 3))
        assert "train" in paths[-1].parts
    remarks = folder_of(tmp_path, channels=channels).remarks()
    assert len([text for text in remarks if "channels: 1" in text]) == said
