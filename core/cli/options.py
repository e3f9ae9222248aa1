"""The options of `fw run`, `fw sweep` and `fw work` as what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fw.core.execution.options import Options


def options_of(ranks: str, max_memory: str | None, workers: int | None, **others: Any) -> Options:
    """How to run, of the words that the user gave; the others are as `Options` has them."""
    from fw.core.execution.devices import known_nodes, known_ranks
    from fw.core.execution.options import Options
    from fw.core.machine.memory import size_of

    return Options(
        ranks=known_ranks(ranks),
        nodes=known_nodes(ranks),
        max_memory=None if max_memory is None else size_of(max_memory),
        threads=workers,
        **others,
    )
