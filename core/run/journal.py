"""What a run has to say to its tracker, on disk in the run's folder: a line for each call, only
ever added to.

It outlives the process, the server and the move of the folder. A last line says that all above it
has arrived; what comes next begins a new journal. A line that a crash cut off is dropped.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

from fw.core.errors import FwError
from fw.core.messages.secrets import redacted
from fw.core.run.calls import Call, Opened, call_of

JOURNAL = "journal.jsonl"
ARRIVED = "arrived"


class Journal:
    """The journal of a run's folder. Whoever has the folder's turn writes it."""

    def __init__(self, folder: Path):
        self.path = folder / JOURNAL

    def begin(self) -> None:
        """Make way for new calls: a journal that has arrived goes, a line that was cut off too."""
        text = self._text()
        whole = text[: text.rfind(b"\n") + 1]
        if complete(whole):
            self.path.unlink(missing_ok=True)
        elif whole != text:
            with self.path.open("r+b") as file:
                file.truncate(len(whole))

    def add(self, call: Call) -> None:
        self._append(json.dumps(redacted(call.facts())))

    def arrived(self) -> None:
        """Note that all calls so far have arrived."""
        self._append(json.dumps({"call": ARRIVED}))

    def pending(self) -> list[Call]:
        """The calls that may not have arrived, the last of each topic; FwError if it is damaged.

        The first is the run's description, with the arms of all that were opened meanwhile.
        """
        text = self._text()
        whole = text[: text.rfind(b"\n") + 1]
        if complete(whole):
            return []
        try:
            calls = [call_of(json.loads(line)) for line in whole.splitlines()]
        except (ValueError, FwError) as error:
            raise FwError(f"{self.path}: it is damaged ({error}); run its recipe again") from None
        return condensed(calls)

    def kept(self) -> list[Call]:
        """The same for a run that says it all anew: a damaged journal makes way for it."""
        try:
            return self.pending()
        except FwError:
            self.path.unlink()
            return []

    def _text(self) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return self.path.read_bytes()
        return b""

    def _append(self, line: str) -> None:
        with self.path.open("ab") as file:
            file.write(f"{line}\n".encode())


def complete(text: bytes) -> bool:
    """Whether everything in a journal of whole lines has arrived."""
    return not text or json.dumps({"call": ARRIVED}).encode() in text.splitlines()[-1:]


def condensed(calls: Sequence[Call]) -> list[Call]:
    """The last call of each topic, in the order of these, behind one description of the run."""
    last: dict[Hashable, Call] = {}
    arms: dict[str, Sequence[object]] = {}
    for call in calls:
        if isinstance(call, Opened):
            arms |= {str(arm[0]): arm for arm in call.arms}
            call = replace(call, arms=list(arms.values()))
        last.pop(call.topic, None)
        last[call.topic] = call
    ordered = list(last.values())
    return sorted(ordered, key=lambda call: not isinstance(call, Opened))
