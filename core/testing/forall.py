"""hypothesis, run from inside a clause: few examples, the same ones every time, and the smallest
that fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import HypothesisWarning
from hypothesis.strategies import SearchStrategy

EXAMPLES = 12


def forall(
    body: Callable[..., None], examples: int = EXAMPLES, **strategies: SearchStrategy[Any]
) -> None:
    """Call `body` with drawn keyword arguments; what it raises for the smallest failing example
    goes out.

    Bounds that hypothesis does not know are its warnings, not ours: what they exclude is refused by
    the component.
    """
    wrapped = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
    )(given(**strategies)(body))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisWarning)
        wrapped()
