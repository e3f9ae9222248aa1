"""hypothesis, run from inside a clause: few examples, the same ones every time, and the smallest
that fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis.errors import HypothesisWarning
from hypothesis.strategies import SearchStrategy

EXAMPLES = 12


def forall(
    body: Callable[..., None],
    examples: int = EXAMPLES,
    always: Sequence[Mapping[str, Any]] = (),
    **strategies: SearchStrategy[Any],
) -> None:
    """Call `body` with drawn keyword arguments; what it raises for the smallest failing example
    goes out. Those of `always` are tried first: which others are drawn depends on the text of
    `body`, and bounds must not be left to that.

    Bounds that hypothesis does not know are its warnings, not ours: what they exclude is refused by
    the component.
    """
    tested = given(**strategies)(body)
    for arguments in always:
        tested = example(**arguments)(tested)
    wrapped = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
    )(tested)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisWarning)
        wrapped()
