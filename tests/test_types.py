"""What flows between components: annotations are stored as the same bytes, and drawn from their
prior."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fw.core.randomness import Draws
from fw.core.types import Annotation, ConditionSpec, ImageSet

CLASSES = Annotation(ConditionSpec("class", 3), torch.tensor([0, 2, 2, 1]))
VECTORS = Annotation(
    ConditionSpec("vector", 2), torch.randn(4, 2), bank=torch.randn(7, 2).T.contiguous().T
)


@pytest.mark.parametrize("annotation", [CLASSES, VECTORS])
def test_an_annotation_is_loaded_as_it_was_saved(annotation: Annotation, tmp_path: Path) -> None:
    annotation.save(tmp_path / "annotation.safetensors")
    loaded = Annotation.load(tmp_path / "annotation.safetensors")
    assert loaded.spec == annotation.spec
    assert torch.equal(loaded.conditions, annotation.conditions)
    assert loaded.conditions.dtype == annotation.conditions.dtype
    assert (loaded.bank is None) == (annotation.bank is None)
    assert (
        loaded.bank is None or annotation.bank is None or torch.equal(loaded.bank, annotation.bank)
    )


@pytest.mark.parametrize("annotation", [CLASSES, VECTORS])
def test_an_annotation_is_always_saved_as_the_same_bytes(
    annotation: Annotation, tmp_path: Path
) -> None:
    saved = set()
    for _ in range(20):
        annotation.save(tmp_path / "annotation.safetensors")
        saved.add((tmp_path / "annotation.safetensors").read_bytes())
    assert len(saved) == 1


@given(st.integers(0, 2**32), st.integers(0, 20))
def test_conditions_are_drawn_from_the_bank_or_else_from_the_training_images(
    seed: int, count: int
) -> None:
    for annotation, prior in ((CLASSES, CLASSES.conditions), (VECTORS, VECTORS.bank)):
        assert prior is not None
        first, again = (annotation.draw(Draws(seed, rows=range(count))) for _ in range(2))
        assert torch.equal(first, again)
        assert first.shape == (count, *prior.shape[1:])
        assert all((drawn == prior).reshape(len(prior), -1).all(1).any() for drawn in first)


def test_draws_are_as_frequent_as_the_training_images_are() -> None:
    drawn = CLASSES.draw(Draws(0, rows=range(40_000))).bincount() / 40_000
    assert torch.allclose(
        drawn, torch.tensor([0.25, 0.25, 0.5]), atol=0.02
    )  # 8 standard deviations


def test_an_image_set_without_labels_keeps_nothing_of_them() -> None:
    labelled = ImageSet(torch.zeros(5, 3, 4, 6, dtype=torch.uint8), torch.arange(5), 5)
    blind = labelled.without_labels()
    assert (blind.labels, blind.classes, len(blind), blind.shape) == (None, 0, 5, (3, 4, 6))
