"""The held-out split is not the training split: not by spelling, links or nesting, and equal images
are counted."""

import json
import os
import shutil
import socket
from typing import ClassVar

import numpy as np
import pytest
import sites
import torch
from PIL import Image

from fw.core.errors import MissingFile
from fw.core.kinds import Dataset
from fw.core.run import splits
from fw.core.types import ImageSet
from fw.plugins.datasets.digits import Digits
from fw.plugins.datasets.image_folder import ImageFolder
from fw.plugins.datasets.shapes import Shapes
from fw.plugins.guidance.negative import Negative

SIDE = 8
RECIPE = """
fw: 1
name: pictures
dataset: {{name: image_folder, root: "{root}", size: 8, class_folders: 2, cache: "{cache}"}}
model: {{name: unet, channels: [8, 16], groups: 4}}
process: {{name: ddpm, prediction: v, schedule: cosine}}
train: {{steps: 2, batch: 4, warmup: 1}}
sampler: {{name: dpmpp, steps: 2}}
samples: {{count: 8, seeds: 3}}
metrics: [{{name: fd, space: {{name: pca, dims: 2}}}}]
baseline: plain
arms:
  plain: {{}}
"""


def write(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def fill(root, train=6, test=4):
    """Noise in two splits and two classes."""
    for first, split, count in ((0, "train", train), (100, "test", test)):
        for number in range(count):
            write(root / split / ("cat", "dog")[number % 2] / f"{number}.png", first + number)
    return root


def folder_of(tmp_path, **fields):
    return ImageFolder(root=tmp_path / "data", cache=tmp_path / "cache", **{"size": SIDE, **fields})


def refused(dataset, message):
    """It is refused when it is validated, before a run and when it is loaded; each in one
    sentence."""
    for use, kind in (
        (dataset.check, ValueError),
        (dataset.preflight, MissingFile),
        (lambda: dataset.load("test"), MissingFile),
    ):
        with pytest.raises(kind, match=message) as caught:
            use()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("train", "test"),
    [("data", "./data/"), ("a/../b", "b"), (".", "test"), ("all", "all/test"), ("x/y", "x//y")],
)
def test_two_spellings_of_a_folder_and_a_folder_within_the_other_are_refused_without_the_files(
    tmp_path, train, test
):
    with pytest.raises(ValueError, match="`train` and `test`"):
        folder_of(tmp_path, train=train, test=test)


def test_two_links_to_one_folder_are_refused(tmp_path):
    fill(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        (tmp_path / "data" / split).symlink_to(tmp_path / "elsewhere" / "train")
    refused(folder_of(tmp_path), "one holds the other")


def test_a_link_into_the_other_split_is_refused(tmp_path):
    fill(tmp_path / "data", test=0)
    (tmp_path / "data/test").symlink_to("train/cat")
    refused(folder_of(tmp_path), "one holds the other")


def test_classes_of_both_splits_that_are_links_to_one_folder_are_refused(tmp_path):
    fill(tmp_path / "elsewhere")
    for split in ("train", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for name, source in (("cat", "train/cat"), ("dog", f"{split}/dog")):
            (tmp_path / "data" / split / name).symlink_to(tmp_path / "elsewhere" / source)
    refused(
        folder_of(tmp_path, class_folders=2), "3 of 5 held-out images are links to the same files"
    )


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_file_that_is_in_both_splits_is_refused_or_dropped_from_training(tmp_path, link):
    fill(tmp_path / "data")
    link(tmp_path / "data/test/cat/0.png", tmp_path / "data/train/cat/again.png")
    refused(
        folder_of(tmp_path), r"1 of 4 held-out images .* cat/0\.png in .* and cat/again\.png in"
    )
    dropping = folder_of(tmp_path, drop_repeats=True)
    dropping.preflight()
    assert len(dropping.load("train")) == 6


def copy_into_test(tmp_path, count=3):
    """Copies of training images among the held-out ones, in another format, so that only the pixels
    are equal."""
    root = fill(tmp_path / "data")
    for number in range(count):
        with Image.open(root / f"train/{('cat', 'dog')[number % 2]}/{number}.png") as image:
            image.save(root / f"test/cat/copy{number}.bmp")
    return root


def test_equal_images_in_both_splits_are_counted_whatever_their_files_are(tmp_path):
    copy_into_test(tmp_path)
    store = tmp_path / "store"
    store.mkdir()
    [said] = splits.examine(folder_of(tmp_path), store).warnings
    assert said.startswith("dataset: 3 of 7 held-out images are also in the training split")
    assert "drop_repeats" in said


def test_what_was_found_is_remembered_unless_a_bit_of_it_is_another(tmp_path, monkeypatch):
    copy_into_test(tmp_path)
    store = tmp_path / "store"
    store.mkdir()
    data = folder_of(tmp_path, class_folders=2)
    found = splits.examine(data, store)
    assert found.class_names == ["cat", "dog"]
    [memory] = (store / "splits").iterdir()
    shutil.rmtree(tmp_path / "cache/decoded")
    with monkeypatch.context() as patch:
        patch.setattr(splits, "look", lambda dataset: pytest.fail("it is loaded again"))
        assert splits.examine(data, store) == found
    memory.write_text(memory.read_text().replace('"repeated": 3', '"repeated": 2'))
    assert splits.examine(data, store) == found


def test_repeats_are_dropped_from_training_and_never_from_the_ruler(tmp_path):
    copy_into_test(tmp_path)
    every, dropping = folder_of(tmp_path), folder_of(tmp_path, drop_repeats=True)
    assert dropping.load("test").images.equal(every.load("test").images)
    train = every.load("train").images
    held_out = {bytes(image) for image in every.load("test").images.flatten(1).numpy()}
    fresh = [image for image in train if bytes(image.flatten().numpy()) not in held_out]
    assert dropping.load("train").images.equal(torch.stack(fresh))
    assert len(fresh) == 3
    store = tmp_path / "store"
    store.mkdir()
    [said] = splits.examine(dropping, store).warnings
    assert "3 images of the train split are left out because they are also held out" in said


def test_dropping_follows_the_held_out_images(tmp_path):
    root = copy_into_test(tmp_path)
    assert len(folder_of(tmp_path, drop_repeats=True).load("train")) == 3
    (root / "test/cat/copy0.bmp").unlink()
    assert len(folder_of(tmp_path, drop_repeats=True).load("train")) == 4


def test_nothing_left_to_train_on_is_said_in_a_sentence(tmp_path):
    fill(tmp_path / "data")
    shutil.rmtree(tmp_path / "data/test")
    shutil.copytree(tmp_path / "data/train", tmp_path / "data/test")
    with pytest.raises(MissingFile, match="every image is also held out"):
        folder_of(tmp_path, drop_repeats=True).load("train")


def test_without_dropping_the_recipe_and_the_key_are_what_they_were(tmp_path):
    fill(tmp_path / "data")
    data = folder_of(tmp_path)
    new = {"range", "drop_repeats"}
    assert not new & data.spec().keys()
    assert not new & data.identity().keys()
    assert folder_of(tmp_path, drop_repeats=True).spec()["drop_repeats"] is True
    assert folder_of(tmp_path, drop_repeats=True).identity() != data.identity()


class Noise(Dataset):
    """A data set of anybody: `shared` of its ten held-out images are training images."""

    name: ClassVar[str] = "noise"
    shared: int = 0
    broken: bool = False

    @property
    def shape(self):
        return 1, 4, 4

    @property
    def classes(self):
        return 0

    def load(self, split):
        if self.broken:
            raise RuntimeError("no such disk")
        torch.set_default_dtype(torch.float64)
        images = torch.randint(
            0, 256, (30, 1, 4, 4), generator=torch.Generator().manual_seed(0)
        ).to(torch.uint8)
        return ImageSet(
            images[:20] if split == "train" else images[20 - self.shared : 30 - self.shared]
        )

    def remarks(self):
        return ["one\nremark"]


def test_every_data_set_is_asked_and_compared(tmp_path):
    one, *equal = splits.examine(Noise(shared=4), tmp_path).warnings
    assert one == "dataset: one remark"
    assert len(equal) == 1
    assert equal[0].startswith("dataset: 4 of 10 held-out images")
    assert "drop_repeats" not in equal[0]  # which it has not
    assert torch.get_default_dtype() == torch.float32
    assert splits.examine(Noise(), tmp_path).warnings == [one]


def test_a_data_set_that_cannot_be_loaded_is_left_to_the_stage_that_needs_it(tmp_path):
    assert splits.examine(Noise(broken=True), tmp_path) == ([], [])
    assert not (tmp_path / "splits").exists()


@pytest.mark.parametrize("dataset", [Digits(), Shapes(count=400, held_out_count=200, size=8)])
def test_the_data_sets_that_come_with_fw_share_no_image(tmp_path, dataset):
    assert splits.examine(dataset, tmp_path).warnings == []


def in_a_recipe(tmp_path, *sets):
    recipe = tmp_path / "pictures.yaml"
    recipe.write_text(RECIPE.format(root=tmp_path / "data", cache=tmp_path / "cache"))
    return [recipe, *(word for each in sets for word in ("--set", each))]


def test_a_run_says_it_on_stderr_in_its_file_and_in_the_report_each_time(tmp_path):
    root = copy_into_test(tmp_path)
    (root / "train/cat/broken.png").write_text("not an image")
    os.mkfifo(root / "train/dog/pipe.png")
    for _ in range(2):
        done = sites.fw(
            "run",
            *in_a_recipe(tmp_path),
            "--out",
            tmp_path / "runs",
            "--device",
            "cpu",
            "--jobs",
            "1",
        )
        assert done.code == 0, done.err
        folder = tmp_path / "runs/pictures/latest"
        for text in (
            "3 of 7 held-out images are also",
            "cat/broken.png: cannot identify",
            "dog/pipe.png (a pipe)",
        ):
            assert text in " ".join(done.err.split())
            assert any(
                text in warned
                for warned in json.loads((folder / "run.json").read_text())["warnings"]
            )
            assert text in (folder / "report.md").read_text()
        assert "0 = cat, 1 = dog" in (folder / "report.md").read_text()


def test_validating_says_which_number_is_which_class(tmp_path):
    fill(tmp_path / "data")
    done = sites.fw("validate", *in_a_recipe(tmp_path))
    assert done.code == 0, done.err
    assert "classes: 0 = cat, 1 = dog\n" in done.out


@pytest.mark.parametrize("classes", [1, 3])
def test_class_folders_that_do_not_fit_are_a_fault_when_the_files_are_there(tmp_path, classes):
    fill(tmp_path / "data")
    done = sites.fw("validate", *in_a_recipe(tmp_path, f"dataset.class_folders={classes}"))
    assert done.code == 2
    assert (
        f"dataset: dataset image_folder: {tmp_path}/data/train has 2 sub-folders with images"
        in done.err
    )
    assert f"`class_folders` is {classes}" in done.err


def test_class_folders_that_could_not_be_checked_are_a_warning(tmp_path):
    done = sites.fw("validate", *in_a_recipe(tmp_path))
    assert done.code == 0, done.err
    assert "warning: dataset: " in done.out
    assert "is no folder, so that `class_folders` could not be checked" in done.out


def negative(tmp_path, condition, annotator="labels"):
    guidance = f"{{name: negative, scale: 2.0, condition: {condition}}}"
    plain = "arms.plain={annotator: null, guidance: null}"
    return in_a_recipe(
        tmp_path, f"annotator={annotator}", f"guidance={guidance}", plain, "arms.away={}"
    )


def test_a_class_may_be_asked_for_by_name_and_is_the_recipe_with_its_number(tmp_path):
    from fw.core.recipe.loading import load

    fill(tmp_path / "data")
    by_name, by_number = (
        load(words[0], words[2::2])
        for words in (negative(tmp_path, "dog"), negative(tmp_path, "1"))
    )
    assert by_name == by_number
    assert by_name.to_yaml() == by_number.to_yaml()
    assert by_name.guidance == (Negative(condition=1, scale=2.0),)


@pytest.mark.parametrize(
    ("condition", "annotator", "message"),
    [
        ("wolf", "labels", r"no class is called 'wolf' (known: cat, dog)"),
        ("dog", "random", "a class has a name only where the conditions are labels"),
    ],
)
def test_a_name_that_is_no_class_is_a_fault(tmp_path, condition, annotator, message):
    fill(tmp_path / "data")
    done = sites.fw("validate", *negative(tmp_path, condition, annotator))
    assert done.code == 2
    assert message in done.err


def test_a_name_needs_the_files_that_say_its_number(tmp_path):
    done = sites.fw("validate", *negative(tmp_path, "dog"))
    assert done.code == 2
    assert "known: none, because the data set names none or its files are not there" in done.err


STRANGE = {
    "a pipe": os.mkfifo,
    "a socket": lambda path: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_regular_file_is_left_out_and_it_is_said(tmp_path, kind, monkeypatch):
    fill(tmp_path / "data")
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    before = folder_of(tmp_path).identity()
    STRANGE[kind](tmp_path / "data/train/cat/x.png")
    data = folder_of(tmp_path)
    assert data.identity() == before
    data.preflight()
    assert len(data.load("train")) == 6
    assert f"left out in train, no regular files: cat/x.png ({kind})" in data.remarks()


def test_a_link_to_a_pipe_is_left_out_too(tmp_path):
    fill(tmp_path / "data")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "data/train/cat/x.png").symlink_to(tmp_path / "pipe")
    assert len(folder_of(tmp_path).load("train")) == 6


def test_folders_that_link_to_each_other_hold_each_image_once(tmp_path):
    root = fill(tmp_path / "data", train=2)
    (root / "train/cat/dogs").symlink_to("../dog")
    (root / "train/dog/cats").symlink_to("../cat")
    (root / "train/a loop").symlink_to(".")
    data = folder_of(tmp_path, class_folders=2)
    assert [file.name for file in data.files()["train"]] == ["cat/0.png", "dog/1.png"]


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_file_with_two_names_in_a_split_is_one_image_by_the_name_that_is_no_link(tmp_path, link):
    root = fill(tmp_path / "data", train=2)
    before = folder_of(tmp_path).identity()
    (root / "train/cat/0.png").rename(root / "train/cat/0")
    (root / "train/cat/0").rename(root / "train/cat/0.png")
    link(root / "train/cat/0.png", root / "train/cat/zero.png")
    if link is os.symlink:
        (root / "train/cat/-.png").symlink_to(root / "train/cat/0.png")
    data = folder_of(tmp_path)
    assert data.identity() == before
    assert len(data.load("train")) == 2
    assert any("links to others" in said for said in data.remarks())


def test_the_fingerprint_of_an_ordinary_folder_is_what_it_was(tmp_path):
    """The number is that of fw before files were counted once."""
    for split, text in (("train", "a"), ("test", "b")):
        for name in ("x/1.png", "2.png"):
            path = tmp_path / "data" / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + name)
    assert folder_of(tmp_path).identity()["content"] == "6d04fe996c55f05a"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "it is a Git LFS pointer",
        ),
        (b"<!DOCTYPE html><p>Sign in</p>", "it is a web page (HTML), not the file"),
        (b"not an image", "cannot identify an image in it, of the formats AVIF, BMP, "),
        (b"\x89PNG\r\n\x1a\n", ""),
        (b"\xff\xd8\xff\xe0", ""),
        (b"II*\0\x08\0\0\0", ""),
    ],
)
def test_why_an_image_is_damaged_is_said_plainly(tmp_path, content, reason):
    fill(tmp_path / "data")
    (tmp_path / "data/train/cat/x.png").write_bytes(content)
    data = folder_of(tmp_path)
    data.load("train")
    [said] = data.remarks()
    assert (
        "1 of 7 images of the train split could not be decoded and are left out (cat/x.png: "
        f"{reason}" in said
    )
    assert " at 0x" not in said
    assert "BytesIO" not in said


def test_names_are_one_for_each_class():
    for dataset in (Shapes(shapes=3, colours=2), Shapes()):
        assert len(set(dataset.class_names)) == dataset.classes
