"""Rows of data that need not fit into memory: files are mapped, and only the rows of a step go to
the device, fetched while it is at the step before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from fw.core.machine.transfer import sent

SHARE = 0.25
"""Of a GPU's free memory: data that take no more lie there whole."""

AT_ONCE = 2**22
"""Numbers that are computed with at once."""

AHEAD = 2
"""Batches that are fetched at a time: a step may draw a second one, in a stream of its own."""


class Table:
    """A tensor (N, ...) in pieces laid end to end, most often mapped files, whose rows are taken
    to a device."""

    def __init__(self, pieces: Sequence[Tensor], device: torch.device | str = "cpu"):
        self.pieces = pieces
        self.device = torch.device(device)
        self.starts = torch.tensor([0, *(len(piece) for piece in pieces)]).cumsum(0)
        self.there = all(piece.device.type == self.device.type for piece in pieces)
        """Whether the pieces are where their rows are wanted."""
        self._waiting: deque[tuple[Tensor, Future[Tensor]]] = deque(maxlen=AHEAD)
        self._thread: ThreadPoolExecutor | None = None
        self._stream: torch.cuda.Stream | None = None

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def shape(self) -> torch.Size:
        """That of one row."""
        return self.pieces[0].shape[1:]

    @property
    def nbytes(self) -> int:
        return sum(piece.nbytes for piece in self.pieces)

    def to(self, device: torch.device) -> Table:
        """The same for this device: there as a whole, if that is no more than a share of its free
        memory; else rows are fetched from where they are."""
        if device.type == self.device.type or not fits(self.nbytes, device):
            return Table(self.pieces, device)
        whole = self.pieces[0].new_empty((len(self), *self.shape), device=device)
        for start, piece in zip(self.starts.tolist(), self.pieces, strict=False):
            whole[start : start + len(piece)] = piece
        return Table([whole], device)

    def take(self, numbers: Tensor) -> Tensor:
        """The rows with these numbers (B,), on the device. Numbers on the CPU spare a GPU's
        wait."""
        if self.there:
            return gathered(self.pieces, self.starts, sent(numbers, self.pieces[0].device))
        numbers = numbers.cpu()
        for wanted, fetched in self._waiting:
            if torch.equal(wanted, numbers):
                return self._sent(fetched.result())
        return self._sent(gathered(self.pieces, self.starts, numbers, pinned=True))

    def ahead(self, numbers: Tensor) -> None:
        """Begin to fetch these rows, which the next step takes; nothing, where they are there."""
        if self.there:
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="rows")
        fetched = self._thread.submit(gathered, self.pieces, self.starts, numbers, pinned=True)
        self._waiting.append((numbers, fetched))

    def _sent(self, rows: Tensor) -> Tensor:
        """Rows in pinned memory, copied to the device beside what it has still to do."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)
        here = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            arrived = rows.to(self.device, non_blocking=True)
        here.wait_stream(self._stream)
        arrived.record_stream(here)
        return arrived


def fits(nbytes: int, device: torch.device) -> bool:
    """Whether so many bytes are no more than a share of the device's free memory."""
    return device.type != "cuda" or nbytes <= SHARE * torch.cuda.mem_get_info(device)[0]


def in_parts(rows: Tensor) -> Iterator[Tensor]:
    """Rows (N, ...), some at a time, so that what is computed of them fits into memory."""
    yield from rows.split(max(1, AT_ONCE // max(1, rows[:1].numel())))


def all_finite(rows: Tensor) -> bool:
    """Whether all numbers in rows (N, ...) are finite."""
    return all(bool(few.isfinite().all()) for few in in_parts(rows))


def near(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device, if it fits there; else where it is."""
    return tensor.to(device) if fits(tensor.nbytes, device) else tensor


def gathered(
    pieces: Sequence[Tensor], starts: Tensor, numbers: Tensor, pinned: bool = False
) -> Tensor:
    """The rows `numbers` (B,) of pieces that are laid end to end from `starts` on."""
    if len(pieces) == 1 and not pinned:
        return pieces[0][numbers]
    size = (len(numbers), *pieces[0].shape[1:])
    rows = pieces[0].new_empty(size, pin_memory=pinned)
    place = torch.bucketize(numbers, starts, right=True) - 1
    for number in place.unique().tolist():
        here = place == number
        rows[here] = pieces[number][numbers[here] - starts[number]]
    return rows
