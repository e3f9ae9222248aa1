"""Hugging Face datasets on this machine: saved folders, parquet files and the hub's cache, and
never the network."""

import io
import os
import shutil
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from fw.core.errors import FwError, MissingFile
from fw.core.testing import check
from fw.plugins.datasets import listing
from fw.plugins.datasets.hub import Hub
from fw.plugins.datasets.image_folder import ImageFolder

datasets = pytest.importorskip("datasets")

SIDE = 8
TRAIN, TEST = 12, 5
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def as_png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def made(count=TRAIN, first=0, image=None, label=None, **columns):
    """A dataset with an image and a label in every row; `image` and `label` are the types of the
    columns."""
    features = {
        "image": image or datasets.Image(),
        "label": label or datasets.ClassLabel(names=["a", "b", "c"]),
    }
    images = columns.get("images", [as_png(pixels(first + number)) for number in range(count)])
    labels = columns.get("labels", [number % 3 for number in range(count)])
    return datasets.Dataset.from_dict(
        {"image": images, "label": labels}, features=datasets.Features(features)
    )


def both(**columns):
    return datasets.DatasetDict(train=made(**columns), test=made(TEST, first=TRAIN))


def saved(folder, data):
    """As `save_to_disk` writes it."""
    data.save_to_disk(str(folder))
    return folder


def parquet(folder, data, shards=1):
    """As repositories on the hub hold it."""
    (folder / "data").mkdir(parents=True)
    for split, table in data.items():
        for shard in range(shards):
            name = f"{split}-{shard:05d}-of-{shards:05d}.parquet"
            table.shard(shards, shard, contiguous=True).to_parquet(str(folder / "data" / name))
    return folder


def in_the_cache(cache, name, data):
    """As `hf download` leaves it."""
    repository = cache / f"datasets--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    parquet(repository / "snapshots" / COMMIT, data)
    return name


def hub(path, tmp_path, **fields):
    labels = {"label": "label", "label_count": 3}
    return Hub(path=str(path), cache=tmp_path / "cache", **{"size": SIDE, **labels, **fields})


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A cache of the hub of its own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def expected(count, first=0):
    """Images (N, 3, H, W) and labels (N,)."""
    images = np.stack([pixels(first + number) for number in range(count)]).transpose(0, 3, 1, 2)
    return torch.from_numpy(images.copy()), torch.arange(count) % 3


def same(data, images, labels):
    assert data.labels is not None
    return data.images.equal(images) and data.labels.equal(labels)


def webdataset(folder, data, shards=1):
    """As webdataset packs it: tars in which the files of an example share a name."""
    folder.mkdir()
    for split, table in data.items():
        for shard in range(shards):
            with tarfile.open(folder / f"{split}-{shard:04d}.tar", "w") as tar:
                rows = table.cast_column("image", datasets.Image(decode=False))
                for number, row in enumerate(rows.shard(shards, shard, contiguous=True)):
                    for ending, content in (
                        ("png", row["image"]["bytes"]),
                        ("cls", str(row["label"]).encode()),
                    ):
                        entry = tarfile.TarInfo(f"{shard:04d}-{number:06d}.{ending}")
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))
    return folder


@pytest.mark.parametrize("write", [saved, parquet])
def test_it_keeps_to_the_contract_of_datasets(tmp_path, write):
    path = write(tmp_path / "data", both())
    check(hub(path, tmp_path))
    check(hub(path, tmp_path, label=None, label_count=0, channels=1, size=(4, 6), held_out=0.4))


def test_saved_folders_parquet_files_and_the_hubs_cache_give_the_same_images_and_labels(
    tmp_path, hub_cache
):
    places = [
        saved(tmp_path / "saved", both()),
        parquet(tmp_path / "parquet", both()),
        parquet(tmp_path / "shards", both(), shards=3),
        in_the_cache(hub_cache, "someone/images", both()),
    ]
    for place in places:
        dataset = hub(place, tmp_path)
        dataset.preflight()
        assert same(dataset.load("train"), *expected(TRAIN))
        assert same(dataset.load("test"), *expected(TEST, first=TRAIN))


def test_shards_of_webdataset_give_the_same_images_and_labels(tmp_path):
    tars = webdataset(tmp_path / "tars", both(), shards=3)
    found = hub(tars, tmp_path, image="png", label="cls")
    found.preflight()
    assert same(found.load("train"), *expected(TRAIN))
    assert same(found.load("test"), *expected(TEST, first=TRAIN))


def test_a_column_of_files_bytes_will_do_and_so_will_whole_numbers_as_labels(tmp_path):
    binary = made(image=datasets.Value("binary"), label=datasets.Value("int32"))
    path = parquet(tmp_path / "data", {"train": binary, "test": made(TEST)})
    assert same(hub(path, tmp_path).load("train"), *expected(TRAIN))


def test_a_folder_of_image_files_gives_what_image_folder_gives(tmp_path):
    for split, first in (("train", 0), ("test", TRAIN)):
        for number in range(TEST):
            path = tmp_path / "data" / split / "abc"[number % 3] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(as_png(pixels(first + number)))
    found = hub(tmp_path / "data", tmp_path).load("train")
    wanted = ImageFolder(
        root=tmp_path / "data", cache=tmp_path / "cache", size=SIDE, class_folders=3
    ).load("train")
    assert same(found, wanted.images, wanted.labels)


def test_one_split_is_divided_without_loss_and_the_same_way_each_time(tmp_path):
    path = saved(tmp_path / "data", made(60))
    dataset = hub(path, tmp_path, held_out=0.3)
    train, test = (dataset.load(split).images.flatten(1).numpy() for split in ("train", "test"))
    assert 5 < len(test) < 35
    everything = expected(60)[0].flatten(1).numpy()
    assert sorted(map(bytes, [*train, *test])) == sorted(map(bytes, everything))
    more = (
        hub(saved(tmp_path / "more", made(70)), tmp_path, held_out=0.3)
        .load("test")
        .images.flatten(1)
        .numpy()
    )
    assert list(map(bytes, more[: len(test)])) == list(map(bytes, test))


def test_rows_that_cannot_be_decoded_are_left_out_with_their_labels_and_told(tmp_path, capsys):
    files = [as_png(pixels(number)) for number in range(TRAIN)]
    files[4], files[7] = b"not an image", None
    path = parquet(tmp_path / "data", both(images=files))
    capsys.readouterr()
    images, labels = expected(TRAIN)
    kept = [number for number in range(TRAIN) if number not in (4, 7)]
    assert same(hub(path, tmp_path).load("train"), images[kept], labels[kept])
    said = "2 of 12 files could not be decoded: row 4 of train, row 7 of train\n"
    assert capsys.readouterr().err == said


def test_the_key_is_that_of_the_content_wherever_it_lies(tmp_path, hub_cache):
    here = parquet(tmp_path / "here", both())
    identity = hub(here, tmp_path).identity()
    shutil.copytree(here, tmp_path / "there")
    assert hub(tmp_path / "there", tmp_path).identity() == identity
    assert hub(in_the_cache(hub_cache, "someone/images", both()), tmp_path).identity() == identity
    assert hub(parquet(tmp_path / "other", both(), shards=2), tmp_path).identity() != identity
    shutil.rmtree(here)
    assert hub(here, tmp_path).identity()["content"] is None
    assert hub(here, tmp_path, content=identity["content"]).identity() == identity


def test_other_files_than_the_recipe_asks_for_are_refused(tmp_path):
    path = saved(tmp_path / "data", both())
    content = hub(path, tmp_path).identity()["content"]
    hub(path, tmp_path, content=content).preflight()
    with pytest.raises(
        MissingFile, match=f"their fingerprint is {content}, and `content` is 0000000000000000"
    ):
        hub(path, tmp_path, content="0" * 16).load("train")


def test_the_second_load_reads_only_what_was_decoded(tmp_path, monkeypatch):
    dataset = hub(parquet(tmp_path / "data", both()), tmp_path)
    first = dataset.load("train")
    monkeypatch.setattr(
        "fw.plugins.datasets.rows.Rows.read", lambda *_: pytest.fail("it reads the rows again")
    )
    monkeypatch.setattr(listing, "read_through", lambda *_: pytest.fail("it reads the files again"))
    assert same(dataset.load("train"), first.images, first.labels)


def test_parquet_files_are_not_copied_into_the_cache_of_datasets(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache of datasets")
    hub(parquet(tmp_path / "data", both()), tmp_path).load("train")
    assert not list(tmp_path.rglob("cache of datasets/**/*.arrow"))


def test_what_is_not_on_this_machine_is_not_fetched_and_the_message_says_how_to(
    tmp_path, hub_cache
):
    for revision, told in ((None, ""), ("v1", " --revision v1")):
        dataset = hub("someone/nothing", tmp_path, revision=revision)
        assert dataset.identity()["content"] is None
        for use in (dataset.preflight, lambda dataset=dataset: dataset.load("train")):
            with pytest.raises(MissingFile) as caught:
                use()
            assert f"`hf download --repo-type dataset someone/nothing{told}`" in str(caught.value)
            assert "\n" not in str(caught.value)


def test_the_hub_is_not_asked_even_where_its_library_may_ask(tmp_path, hub_cache, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    dataset = hub("someone/nothing", tmp_path)
    assert dataset.identity()["content"] is None
    with pytest.raises(MissingFile, match="`fw fetch RECIPE` brings it"):
        dataset.preflight()  # conftest would notice a connection


def test_a_fetching_that_was_cut_off_is_noticed(tmp_path):
    path = parquet(tmp_path / "data", both(), shards=3)
    (path / "data/train-00001-of-00003.parquet").unlink()
    with pytest.raises(MissingFile, match=r"has 2 of the 3 files data/train-\*; fetch the rest"):
        hub(path, tmp_path).preflight()


def test_a_damaged_parquet_file_is_an_error_in_one_sentence(tmp_path):
    path = parquet(tmp_path / "data", both())
    file = path / "data/train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(MissingFile, match="cannot read") as caught:
        hub(path, tmp_path).load("train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "./nowhere"}, "expects a dataset in ./nowhere, which is no folder"),
        ({"test": "validation"}, r"no split 'validation' \(it has train, test\)"),
        (
            {"image": "img"},
            r"no column 'img' in split 'train' \(it has image, label\); set `image`",
        ),
        ({"label": "fine"}, "no column 'fine' .* set `label`"),
        ({"image": "label"}, "column 'label' holds .*, not images"),
        ({"label_count": 10}, "column 'label' has 3 classes, and `label_count` is 10"),
        ({"label": "image"}, "column 'image' holds .*, not whole numbers"),
        ({"config": "other"}, "cannot read .*other"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence_before_the_run(tmp_path, fields, message):
    path = parquet(tmp_path / "data", both())
    with pytest.raises(FwError, match=message) as caught:
        hub(**{"path": path, "tmp_path": tmp_path, **fields}).preflight()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [-1, 3, None])
def test_a_label_that_is_no_class_is_an_error_that_names_the_row(tmp_path, wrong):
    labels = [0, 1, wrong, *[2] * (TRAIN - 3)]
    rows = made(label=datasets.Value("int64"), labels=labels)
    path = parquet(tmp_path / "data", {"train": rows, "test": made(TEST)})
    with pytest.raises(
        FwError, match=f"row 2 of split 'train' has {wrong} in 'label', not one of 0 to 2"
    ):
        hub(path, tmp_path).load("train")


@pytest.mark.parametrize(
    "fields",
    [
        {"label": None},
        {"label_count": 0},
        {"test": "train"},
        {"size": 0},
        {"path": ""},
        {"content": "x"},
    ],
)
def test_fields_that_make_no_sense_are_refused(tmp_path, fields):
    with pytest.raises(ValueError, match="validation error"):
        Hub(**{"path": "a", "label": "label", "label_count": 3, "size": SIDE, **fields})


def test_a_split_that_is_a_copy_of_the_other_is_refused(tmp_path):
    path = parquet(tmp_path / "data", both())
    shutil.copy(
        path / "data/train-00000-of-00001.parquet", path / "data/test-00000-of-00001.parquet"
    )
    with pytest.raises(MissingFile, match="the splits 'train' and 'test' share a file") as caught:
        hub(path, tmp_path).preflight()
    assert "\n" not in str(caught.value)


def test_a_split_under_another_name_is_refused(tmp_path):
    path = parquet(tmp_path / "data", both())
    (path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - {split: train, path: data/train-*}\n  - {split: validation, path: data/train-*}\n---\n"
    )
    with pytest.raises(MissingFile, match="the splits 'train' and 'validation' share a file"):
        hub(path, tmp_path, test="validation").preflight()


def test_a_saved_split_that_is_a_copy_is_refused(tmp_path):
    path = saved(tmp_path / "data", datasets.DatasetDict(train=made(), test=made()))
    with pytest.raises(MissingFile, match="the splits 'train' and 'test' share a file"):
        hub(path, tmp_path).preflight()


def test_rows_that_are_in_both_splits_can_be_dropped_from_training(tmp_path):
    path = parquet(
        tmp_path / "data", datasets.DatasetDict(train=made(), test=made(TEST, first=TRAIN - 2))
    )
    images, labels = expected(TRAIN)
    assert same(hub(path, tmp_path).load("train"), images, labels)
    dropping = hub(path, tmp_path, drop_repeats=True)
    assert same(dropping.load("train"), images[:-2], labels[:-2])
    assert dropping.remarks() == [
        "2 images of the train split are left out because they are also held out"
    ]
    assert len(dropping.load("test")) == TEST


def test_the_names_of_labels_are_those_of_the_data_set(tmp_path):
    assert hub(parquet(tmp_path / "named", both()), tmp_path).class_names == ["a", "b", "c"]
    plain = made(label=datasets.Value("int32"))
    assert (
        hub(parquet(tmp_path / "plain", {"train": plain, "test": made(TEST)}), tmp_path).class_names
        == []
    )
    assert hub(tmp_path / "nowhere", tmp_path).class_names == []


def test_a_pipe_in_the_folder_is_refused_because_datasets_would_wait_for_it(tmp_path):
    path = parquet(tmp_path / "data", both())
    os.mkfifo(path / "data/train-extra.parquet")
    for use in (lambda: hub(path, tmp_path).preflight(), lambda: hub(path, tmp_path).load("train")):
        with pytest.raises(
            MissingFile, match=r"no regular file: data/train-extra\.parquet \(a pipe\)"
        ):
            use()


def test_a_file_that_two_names_share_keeps_both_in_the_fingerprint(tmp_path):
    """As in the hub's cache, where files of equal content are links to one."""
    here, there = (parquet(tmp_path / name, both()) for name in ("here", "there"))
    shutil.copy(here / "data/test-00000-of-00001.parquet", here / "data/more.parquet")
    os.link(there / "data/test-00000-of-00001.parquet", there / "data/more.parquet")
    assert hub(here, tmp_path).identity() == hub(there, tmp_path).identity()


def test_without_the_package_datasets_it_says_what_to_install(tmp_path, monkeypatch):
    path = saved(tmp_path / "data", both())
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(FwError, match=r"needs the package datasets .*: pip install 'fw\[hub\]'$"):
        hub(path, tmp_path).preflight()
    assert hub(path, tmp_path).shape == (3, SIDE, SIDE)
    assert hub(path, tmp_path).identity()["content"]
