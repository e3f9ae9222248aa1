"""The contracts of datasets, encoders, annotators, metrics and trackers: built-ins keep them,
planted faults do not.

It takes half a minute: encoders are trained several times, MLflow makes a database, and lightly and
faiss are imported.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import faulty_data
import pytest
import torch
import toys
from faulty_data import FAULTS, HONEST, OVER
from variants import assert_named

from fw.core.testing import check
from fw.plugins.annotators.kmeans import KMeans
from fw.plugins.annotators.labels import Labels
from fw.plugins.annotators.random import Random
from fw.plugins.datasets.digits import Digits
from fw.plugins.datasets.shapes import Shapes
from fw.plugins.encoders.classifier import Classifier
from fw.plugins.encoders.dino import Dino
from fw.plugins.encoders.pca import PCA
from fw.plugins.encoders.pixels import Pixels
from fw.plugins.metrics.authpct import AuthPct
from fw.plugins.metrics.cmmd import CMMD
from fw.plugins.metrics.fd import FD
from fw.plugins.metrics.fd_dinov2 import FDDINOv2
from fw.plugins.metrics.fid import FID
from fw.plugins.metrics.fld import FLD
from fw.plugins.metrics.inception_score import InceptionScore
from fw.plugins.metrics.kid import KID
from fw.plugins.metrics.memorisation import Memorisation
from fw.plugins.metrics.mind import MIND
from fw.plugins.metrics.prdc import PRDC
from fw.plugins.trackers.mlflow import MLflow
from fw.registry import Component

BUILT_IN = [
    *(Digits(), Digits(held_out=0.5), Shapes(count=300, held_out_count=20, size=12)),
    *(
        Classifier(steps=4, batch=16),
        Dino(steps=4, batch=8, width=16, hidden=16),
        PCA(),
        PCA(dims=100),
        Pixels(),
    ),
    *(KMeans(), KMeans(clusters=100, spherical=True, normalise=False), Labels(), Random()),
    *(
        FD(),
        FD(space=PCA()),
        FID(),
        KID(),
        KID(subset_size=20),
        Memorisation(),
        PRDC(),
        PRDC(nearest_k=30),
        MIND(directions=20),
        CMMD(),
        AuthPct(),
        FLD(),
        FDDINOv2(),
        InceptionScore(),
    ),
    MLflow(),
]
TOYS = [
    toys.Dots(),
    toys.Dots(labelled=False),
    toys.Mean(),
    toys.Taught(),
    toys.Halves(),
    toys.Coin(),
    toys.Truth(),
]


@pytest.fixture(autouse=True)
def what_faults_leave_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Generators that a faulty component moves are put back, its threads end, and its files lie
    in a folder to go."""
    monkeypatch.chdir(tmp_path)
    before = random.getstate()
    OVER.clear()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(before)
    OVER.set()


@pytest.mark.parametrize(
    "component", BUILT_IN + TOYS + HONEST, ids=lambda one: f"{one.kind}-{one.name}"
)
def test_the_honest_pass(component: Component) -> None:
    check(component)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault: str) -> None:
    faulty = getattr(faulty_data, fault)
    assert_named(faulty(), *FAULTS[fault])
