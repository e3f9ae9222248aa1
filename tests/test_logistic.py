"""Linear probes of many features: the same regression as scikit-learn's, with the features in
parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fw.core.errors import Interrupted
from fw.core.features import logistic, logistic_in_parts
from fw.core.features.logistic import accuracy_of, linear_probe, of_few
from fw.core.features.logistic_in_parts import Regression, regression
from fw.core.job import Job
from fw.core.machine.memory import Watch
from fw.core.types import Examples
from fw.plugins.datasets.digits import Digits
from fw.plugins.probes.linear import LinearProbe

MIB = 2**20


def digits(classes: int, split: str = "train") -> tuple[Tensor, Tensor]:
    """Features, of which one is constant, and labels that are not 0, 1, 2, ..."""
    data = Digits().load("train" if split == "train" else "test")
    assert data.labels is not None
    kept = data.labels < classes
    features = data.images.flatten(1).float()[kept]
    features[:, 0] = 0.1
    return features, 3 * data.labels[kept] + 1


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("C", [0.01, 10.0])
def test_weights_and_predictions_are_those_of_scikit_learn(
    classes: int, C: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic_in_parts, "AT_ONCE", 3000)  # some tens of parts
    features, labels = digits(classes)
    places = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:250]
    scaler, theirs = of_few(features[places], labels[places], C, 1000)
    ours = regression(features, labels, places, C, 1000)
    weights = np.concatenate([theirs.coef_, theirs.intercept_[:, None]], axis=1)
    np.testing.assert_allclose(ours.weights, weights, rtol=0, atol=1e-8)
    np.testing.assert_allclose(ours.scale, scaler.scale_)
    unseen, known = digits(classes, "test")
    doubled = unseen.double()
    assert ours.predict(doubled).equal(ours.predict(unseen))
    assert doubled.equal(unseen.double())
    assert ours.predict(unseen).tolist() == theirs.predict(scaler.transform(unseen)).tolist()
    assert accuracy_of(ours, unseen, known) > 0.8


def test_many_features_are_fitted_in_parts_to_the_same_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = (Examples(*digits(10, split), 31) for split in ("train", "test"))
    probe = LinearProbe(shares=(0.1, 1))
    scores = probe.score(train, test, Job(tmp_path))
    fitted = []

    def counted(*given: object) -> Regression:
        fitted.append(len(given[2]))  # type: ignore[arg-type]
        return regression(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(logistic, "regression", counted)
    monkeypatch.setattr(logistic, "MOST", 0)
    assert probe.score(train, test, Job(tmp_path)) == scores
    assert len(fitted) == 2 * (4 + 1)  # four strengths on a part, and the best on all


def test_it_says_how_far_it_is_and_stops_between_iterations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic, "MOST", 0)
    said: list[tuple[str, int]] = []

    class Listening:
        def progress(self, label: str, done: int, total: int) -> None:
            said.append((label, done))

        def metrics(self, records: object) -> None:
            pass

        def say(self, text: str) -> None:
            pass

    examples = Examples(*digits(10), 31)
    job = Job(tmp_path, reporter=Listening(), stopping=lambda: len(said) == 7)
    with pytest.raises(Interrupted):
        LinearProbe().score(examples, examples, job)
    assert said == [("fit C=0.01", done) for done in range(1, 8)]


def peak(count: int, folder: Path) -> int:
    """Bytes that a probe of so many images of 256 numbers takes."""
    mapped = np.memmap(folder / str(count), np.float32, mode="w+", shape=(count, 256))
    features, draw = torch.from_numpy(mapped), torch.Generator().manual_seed(0)
    for few in features.split(10_000):
        few.normal_(generator=draw)
    labels = (features[:, 0] > 0).long() + 2 * (features[:, 1] > 0).long()
    with Watch(torch.device("cpu")) as watch:
        probe = linear_probe(features, labels, iterations=3)
        assert accuracy_of(probe, features, labels) > 0.9
    assert watch.peak.anonymous is not None
    assert watch.began is not None
    return watch.peak.anonymous - watch.began


def test_memory_does_not_grow_with_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic, "MOST", 0)
    for module in (logistic, logistic_in_parts):
        monkeypatch.setattr(module, "AT_ONCE", 2**19)
    peak(1000, tmp_path)  # what libraries take once
    few, many = (peak(count, tmp_path) for count in (40_000, 240_000))
    assert many - few < 100 * MIB  # 200,000 in single precision are 195, and in double 390
