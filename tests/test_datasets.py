"""The datasets: what they hold, that they never change, and that they refuse files that are not
theirs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from fw.core.errors import MissingFile
from fw.plugins.datasets.cifar10 import Cifar10
from fw.plugins.datasets.digits import Digits
from fw.plugins.datasets.shapes import Shapes


def labels_of(data):
    assert data.labels is not None
    return data.labels


def as_sorted_rows(images):
    rows = images.flatten(1).numpy()
    return rows[np.lexsort(rows.T)]


@settings(deadline=None, max_examples=10)
@given(held_out=st.floats(0.01, 0.99))
def test_the_two_splits_of_the_digits_are_together_the_original_ones(held_out):
    splits = [Digits(held_out=held_out).load(split) for split in ("train", "test")]
    together = torch.cat([split.images for split in splits])
    original = torch.from_numpy(np.rint(load_digits().images * 255 / 16))[:, None].to(torch.uint8)
    np.testing.assert_array_equal(as_sorted_rows(together), as_sorted_rows(original))
    assert len(splits[1]) == pytest.approx(held_out * len(original), abs=1)


def test_every_digit_has_its_share_in_the_test_split():
    train, test = (Digits(held_out=0.2).load(split) for split in ("train", "test"))
    share = labels_of(test).bincount() / (labels_of(train).bincount() + labels_of(test).bincount())
    torch.testing.assert_close(share, torch.full((10,), 0.2), atol=0.01, rtol=0)
    assert train.shape == Digits().shape == (1, 8, 8)
    assert train.classes == 10


def test_the_digits_use_the_whole_range_of_uint8():
    images = Digits().load("train").images
    assert images.dtype == torch.uint8
    assert images.unique().tolist() == [round(level * 255 / 16) for level in range(17)]


@pytest.mark.parametrize("dataset", [Digits(), Shapes(count=300, held_out_count=300)])
def test_loading_twice_gives_the_same_images_whatever_the_global_seed_is(dataset):
    torch.manual_seed(1)
    first = dataset.load("test")
    torch.manual_seed(2)
    second = dataset.load("test")
    assert first.images.equal(second.images)
    assert first.labels.equal(second.labels)


@settings(deadline=None, max_examples=10)
@given(
    count=st.integers(1, 600),
    size=st.integers(8, 20),
    shapes=st.integers(1, 5),
    colours=st.integers(1, 12),
)
def test_shapes_are_as_many_and_as_large_as_asked_for(count, size, shapes, colours):
    dataset = Shapes(count=count, size=size, shapes=shapes, colours=colours)
    data = dataset.load("train")
    assert data.images.shape == (count, *dataset.shape)
    assert data.images.dtype == torch.uint8
    labels = labels_of(data)
    assert 0 <= labels.min() <= labels.max() < dataset.classes == shapes * colours


def test_an_image_of_a_shape_does_not_depend_on_how_many_there_are():
    few, many = (Shapes(count=count, size=16).load("train") for count in (300, 700))
    assert few.images.equal(many.images[:300])
    assert labels_of(few).equal(labels_of(many)[:300])


def test_no_image_of_a_shape_occurs_twice_in_or_across_the_splits_and_seeds():
    datasets = [Shapes(count=1000, held_out_count=1000, size=16, seed=seed) for seed in (0, 1)]
    images = torch.cat(
        [dataset.load(split).images for dataset in datasets for split in ("train", "test")]
    )
    assert len(images.flatten(1).unique(dim=0)) == 4000


def test_the_hue_of_a_shape_tells_its_colour():
    dataset = Shapes(count=2000, size=32, colours=4)
    data = dataset.load("train")
    pixels = data.images.permute(0, 2, 3, 1).reshape(len(data), -1, 3).float()  # (N, 1024, 3)
    strength = pixels.amax(dim=2) - pixels.amin(dim=2)
    r, g, b = pixels[
        torch.arange(len(data)), strength.argmax(dim=1)
    ].T  # the most saturated pixel of each image
    turn = torch.atan2(3**0.5 * (g - b), 2 * r - g - b) / (2 * torch.pi)
    found = (turn * dataset.colours).round().long() % dataset.colours
    agree = torch.eq(found, labels_of(data) % dataset.colours)
    assert agree.double().mean() > 0.98


def test_only_rings_are_empty_in_the_middle_and_only_discs_fill_their_circle():
    data = Shapes(count=2000, size=64, colours=2).load("train")
    mask = (
        data.images.amax(dim=1) - data.images.amin(dim=1)
    ) > 75  # (N, 64, 64); no background is so saturated
    axis = torch.arange(64.0)
    mass = mask.sum(dim=(1, 2)).clamp(min=1)
    down = ((mask.sum(dim=2) * axis).sum(dim=1) / mass).round().long()
    across = ((mask.sum(dim=1) * axis).sum(dim=1) / mass).round().long()
    middle = mask[torch.arange(len(data)), down, across]
    shape = labels_of(data) // 2
    assert not middle[shape == 4].any()
    assert middle[shape != 4].all()
    square_reach = (axis - across[:, None])[:, None, :] ** 2 + (axis - down[:, None])[
        :, :, None
    ] ** 2
    filled = mass / (
        torch.pi * (square_reach * mask).amax(dim=(1, 2))
    )  # of the circle about the middle
    assert filled[shape == 0].min() > 0.8
    assert filled[shape != 0].max() < 0.8


def test_a_missing_cifar_folder_is_explained_in_one_sentence(tmp_path):
    with pytest.raises(MissingFile) as caught:
        Cifar10(root=tmp_path).preflight()
    message = str(caught.value)
    assert str(tmp_path / "cifar-10-batches-py") in message
    assert "data_batch_1" in message
    assert "\n" not in message


def test_files_that_are_not_cifar_are_refused_before_they_are_unpickled(tmp_path):
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    witness = tmp_path / "witness"
    bomb = b"cos\nmkdir\n(V" + str(witness).encode() + b"\ntR."
    for file, _ in [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], "")]:
        (folder / file).write_bytes(bomb)
    for use in (Cifar10(root=tmp_path).preflight, lambda: Cifar10(root=tmp_path).load("train")):
        with pytest.raises(MissingFile, match="md5"):
            use()
    assert not witness.exists()


def test_where_cifar_lies_does_not_change_what_it_is(tmp_path):
    here, there = Cifar10(root=tmp_path), Cifar10(root=tmp_path / "elsewhere")
    assert here.identity() == there.identity()
    assert here.spec() != there.spec()
