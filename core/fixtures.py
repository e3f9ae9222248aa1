"""Fixtures for pytest, there wherever fw is installed: a tiny dataset, a tiny denoiser, a store
and a job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fw.core.diffusion.denoiser import NetworkDenoiser
    from fw.core.job import Job
    from fw.core.kinds import Dataset
    from fw.core.store.store import Store


@pytest.fixture
def tiny_dataset() -> Dataset:
    """60 images (1, 8, 8) of stripes in three directions, with labels, in each split."""
    from fw.core.testing.tiny import TinyDataset

    return TinyDataset()


@pytest.fixture
def tiny_denoiser() -> NetworkDenoiser:
    """An untrained D(x; sigma, c) for images (1, 8, 8): 3 classes and null, attention layer
    `middle`, logits."""
    from fw.core.testing.tiny import denoiser

    return denoiser()


@pytest.fixture
def tmp_store(tmp_path: Path) -> Store:
    """An empty store in a temporary folder."""
    from fw.core.store.store import Store

    store = Store(tmp_path / "store")
    store.create()
    return store


@pytest.fixture
def tmp_job(tmp_path: Path) -> Job:
    """A job with seed 0 on the CPU, in a temporary folder."""
    from fw.core.job import Job

    folder = tmp_path / "job"
    folder.mkdir()
    return Job(folder)
