"""What metrics and probes promise to score: keys that are words, and which value is better."""

from __future__ import annotations

import re

from fw.core.kinds import Metric, Probe
from fw.core.testing.elsewhere import elsewhere


def keys_are_words(scorer: Metric | Probe) -> None:
    """Its keys are words, the same on every call, each with `lower` or `higher`"""
    keys = dict(scorer.keys)
    assert keys, "there are none"
    for key, better in keys.items():
        assert re.fullmatch(r"[\w.-]+", str(key)), f"{key!r} is not a word"
        assert better in ("lower", "higher"), f"{key} is better {better!r}"
    assert dict(scorer.keys) == keys, f"{', '.join(scorer.keys)} the next time"
    assert elsewhere(pairs, scorer) == list(keys.items()), (
        "they are other ones, or in another order, elsewhere"
    )


def pairs(scorer: Metric | Probe) -> list[tuple[str, str]]:
    return list(scorer.keys.items())
