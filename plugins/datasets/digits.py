"""scikit-learn's handwritten digits: 1,797 real images of 8x8 pixels that need no download."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field

from fw.core.kinds import Dataset
from fw.core.types import ImageSet, Split

IMAGES = 1797

LEVELS = 16
"""The files hold 0..16: how many pixels of a 4x4 block were inked."""

SPLIT_SEED = 0


class Digits(Dataset):
    """Handwritten digits, (N, 1, 8, 8), ten classes; comes with scikit-learn (UCI optdigits)."""

    name: ClassVar[str] = "digits"

    held_out: float = Field(
        0.2, ge=0.01, le=0.99, description="share of every class that is kept for the test split"
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 8, 8

    @property
    def classes(self) -> int:
        return 10

    def how_many(self, split: Split) -> int:
        test = math.ceil(self.held_out * IMAGES)  # as sklearn rounds
        return test if split == "test" else IMAGES - test

    def load(self, split: Split) -> ImageSet:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        train, test = train_test_split(
            range(len(digits.target)),
            test_size=self.held_out,
            stratify=digits.target,
            random_state=SPLIT_SEED,
        )
        chosen = sorted(train if split == "train" else test)
        ink = torch.from_numpy(digits.images[chosen])[:, None]  # (N, 1, 8, 8)
        labels = torch.from_numpy(digits.target[chosen]).long()
        return ImageSet((ink * 255 / LEVELS).round().to(torch.uint8), labels, self.classes)
