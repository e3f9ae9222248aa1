"""The contract of an encoder, and what this one does."""

from fw.core.job import Job
from fw.core.kinds import Dataset
from fw.core.templates.encoder import Example
from fw.core.testing import check


def test_it_keeps_the_contract() -> None:
    check(Example(dims=4, steps=20))


def test_fitting_teaches_it_to_reconstruct(tiny_dataset: Dataset, tmp_job: Job) -> None:
    encoder = Example(dims=4)
    train, test = (tiny_dataset.load(split).without_labels() for split in ("train", "test"))
    network = encoder.build(train.shape, classes=0)
    before = encoder.quality(network, test)["error"]
    encoder.fit(network, train, tmp_job)
    assert encoder.quality(network, test)["error"] < before / 2
