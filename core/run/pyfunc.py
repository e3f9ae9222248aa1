"""A packed arm as MLflow's `python_function` models are loaded: this module's `_load_pyfunc`, and
`predict`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fw.core.errors import FwError
from fw.core.run.package import Packed


class Drawing:
    """An arm that images are drawn from."""

    def __init__(self, packed: Packed):
        self.packed = packed

    def predict(self, request: Any, params: Mapping[str, Any] | None = None) -> np.ndarray:
        """uint8 (N, C, H, W): the first `count` images of a `seed`, with one `condition` for all or
        the arm's own; of a table, those of each row, one after the other."""
        drawn = [self.packed.draw(*row).numpy() for row in rows(request)]
        return np.concatenate(drawn)


def rows(request: Any) -> list[tuple[int, int, int | None]]:
    """count, seed and condition of each row of a table, of a list or of one mapping."""
    if hasattr(request, "to_dict"):
        request = request.to_dict(orient="records")
    listed = request if isinstance(request, Sequence) else [request]
    return [
        (whole(row, "count", 64), whole(row, "seed", 0), optional(row, "condition"))
        for row in listed
    ]


def whole(row: Mapping[str, Any], key: str, default: int) -> int:
    value = optional(row, key)
    return default if value is None else value


def optional(row: Mapping[str, Any], key: str) -> int | None:
    """A whole number; None where a table has nothing, which it may write as NaN."""
    value = row.get(key)
    if value is None or (isinstance(value, float) and math.isnan(value)) or value != value:
        return None
    if int(value) != value or value < 0:
        raise FwError(f"{key}: {value} is no whole number from 0")
    return int(value)


def _load_pyfunc(folder: str) -> Drawing:
    return Drawing(Packed.read(Path(folder)))
