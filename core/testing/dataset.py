"""The contract of a dataset: the same images on every call, in every process, of the shape that
it promises."""

from __future__ import annotations

from torch import Tensor

from fw.core.kinds import Dataset
from fw.core.kinds.boundaries import checked_images
from fw.core.testing.contract import Clause
from fw.core.testing.digest import digest
from fw.core.testing.elsewhere import elsewhere
from fw.core.testing.global_state import ambient, repeated
from fw.core.testing.tiny import as_in_a_run
from fw.core.testing.without_files import without_files
from fw.core.types import ImageSet, Split

SPLITS: tuple[Split, ...] = ("train", "test")


def known_without_loading(dataset: Dataset) -> None:
    """Shape and classes are known without loading, and where its files are not there"""
    bare = without_files(dataset, "load")
    shape, classes = bare.shape, bare.classes
    sizes = (
        isinstance(shape, tuple)
        and len(shape) == 3
        and all(isinstance(n, int) and n > 0 for n in shape)
    )
    assert sizes, f"shape is {shape!r}, not (C, H, W)"
    assert isinstance(classes, int), f"classes is {classes!r}, not a number from 0 on"
    assert classes >= 0, f"classes is {classes!r}, not a number from 0 on"
    assert (shape, classes) == (dataset.shape, dataset.classes), (
        f"{shape} and {classes} are not what they are with them"
    )


def splits_as_promised(dataset: Dataset) -> None:
    """Both splits are uint8 images of its shape, with labels exactly where it promises classes"""
    for split in SPLITS:
        data = loaded(dataset, split)
        with as_in_a_run():
            checked_images(dataset, data, split)
        for what, tensor in (("images", data.images), ("labels", data.labels)):
            assert tensor is None or tensor.device.type == "cpu", (
                f"its {split} {what} are on {tensor.device}"
            )


def labels_where_provided(dataset: Dataset) -> None:
    """It provides `labels` exactly if it has classes"""
    provided = "labels" in dataset.provides
    assert provided == (dataset.classes > 0), (
        f"it provides {set(dataset.provides)} with {dataset.classes} classes"
    )


def counted_as_loaded(dataset: Dataset) -> None:
    """If it gives a number of images beforehand, it loads as many"""
    for split in SPLITS:
        stated = dataset.how_many(split)
        count = len(loaded(dataset, split))
        assert stated in (None, count), (
            f"it gives {stated} as the number of {split} images and loads {count}"
        )


def classes_named(dataset: Dataset) -> None:
    """Its classes have one name each, or none has"""
    for which in (dataset, without_files(dataset, "load")):
        names = list(which.class_names)
        assert all(isinstance(name, str) for name in names), f"class_names is {names!r}, not texts"
        assert len(names) in (0, which.classes), f"{len(names)} names for {which.classes} classes"
        assert len(set(names)) == len(names), "two classes have the same name"


def always_the_same(dataset: Dataset) -> None:
    """load() gives the same images and labels again, whatever was loaded before, and in another
    process"""
    here = repeated(lambda: [tensors(dataset.load(split)) for split in SPLITS])
    for split, there in zip(SPLITS, elsewhere(loaded_backwards, dataset), strict=True):
        same = there == digest(here[SPLITS.index(split)])
        assert same, (
            f"the {split} split is another one there, where `test` is loaded first and strings "
            "hash otherwise"
        )


def held_out_is_new(dataset: Dataset) -> None:
    """The test split holds images that the train split does not"""
    trained, held_out = (distinct(loaded(dataset, split).images) for split in SPLITS)
    assert held_out - trained, (
        f"all {len(held_out)} distinct test images are among the train images"
    )


def nothing_shared(dataset: Dataset) -> None:
    """Writing into what was loaded cannot change what is loaded next: they share no memory"""
    for split in SPLITS:
        first, second = loaded(dataset, split), loaded(dataset, split)
        for what, *pair in zip(("images", "labels"), tensors(first), tensors(second), strict=True):
            places = [tensor.untyped_storage().data_ptr() for tensor in pair if tensor is not None]
            assert len(set(places)) == len(places), (
                f"the {split} {what} of two calls are the same memory: hand out a clone"
            )


CLAUSES: tuple[Clause, ...] = (
    known_without_loading,
    splits_as_promised,
    labels_where_provided,
    counted_as_loaded,
    classes_named,
    always_the_same,
    held_out_is_new,
    nothing_shared,
)


def loaded(dataset: Dataset, split: Split) -> ImageSet:
    """A split, always from the same state of the global generators; they are checked by another
    clause."""
    with ambient(0):
        return dataset.load(split)


def tensors(data: ImageSet) -> tuple[Tensor, Tensor | None]:
    return data.images, data.labels


def loaded_backwards(dataset: Dataset) -> list[str]:
    """The digest of each split, the last one loaded first."""
    digests = {split: digest(tensors(loaded(dataset, split))) for split in reversed(SPLITS)}
    return [digests[split] for split in SPLITS]


def distinct(images: Tensor) -> set[bytes]:
    return {row.tobytes() for row in images.flatten(1).numpy()}
