"""Sequence sets (RFC 9051 §9 sequence-set): parsed once into numpy ranges, applied to whole columns, written compactly."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mailpod.limits.imap import SET_RANGES_MAX
from mailpod.protocol.imap.cells import Numbers, join_cells, number_cells, text_cells

STAR: Final = 2**40  # "*" in `SequenceSet.ranges`: larger than any number of ten digits
NUMBER_MAX: Final = 2**32 - 1  # nz-number is 32 bits

_FEW_RANGES: Final = 64  # below it strings are faster than arrays
_COMMA_CELL: Final = text_cells([b","])
_COLON_CELL: Final = text_cells([b":"])[0, 0]
_ITEM = rb"(?:\*|[1-9][0-9]{0,9}+)"
_SET = re.compile(rb"%b(?::%b)?+(?:,%b(?::%b)?+)*+" % (_ITEM, _ITEM, _ITEM, _ITEM))

Ranges = NDArray[np.int64]  # shape (n, 2): low and high, both included; unordered


class OutOfRange(ValueError):
    """A message sequence number beyond the mailbox's size: the answer is BAD (RFC 3501 §9 seq-number, RFC 9051 §2.3.1.2)."""


class SequenceSet:
    """An immutable set of message sequence numbers or UIDs as the client sent it. `saved` means `$` (RFC 5182)."""

    __slots__ = ("_ranges", "saved")

    def __init__(self, ranges: Ranges, saved: bool = False) -> None:
        self._ranges = ranges
        self.saved = saved

    @classmethod
    def parse(cls, text: bytes) -> SequenceSet:
        """Read a whole sequence-set, or `$`. Raises ValueError for anything else and for more than `SET_RANGES_MAX` ranges."""
        if text == b"$":
            return cls(np.empty((0, 2), np.int64), saved=True)
        if text.isdigit() and len(text) < 10 and not text.startswith(b"0"):  # the usual case
            number = int(text)
            return cls(np.array(((number, number),), np.int64))
        if text.count(b",") >= SET_RANGES_MAX:
            raise ValueError("too many ranges")
        if _SET.fullmatch(text) is None:
            raise ValueError("not a sequence set")
        text = text.replace(b"*", b"%d" % STAR)
        if b":" not in text:
            column = np.fromstring(text.decode("ascii"), np.int64, sep=",")
            ranges = np.column_stack((column, column))
        else:
            pairs = b",".join([item if b":" in item else item + b":" + item for item in text.split(b",")])
            ranges = np.fromstring(pairs.replace(b":", b",").decode("ascii"), np.int64, sep=",").reshape(-1, 2)
            ranges.sort(axis=1)  # 4:2 is 2:4 (RFC 9051 §9 seq-range)
        if ((ranges > NUMBER_MAX) & (ranges != STAR)).any():
            raise ValueError("number too large")
        return cls(ranges)

    @property
    def ranges(self) -> Ranges:
        """The ranges with `STAR` for "*", low ≤ high."""
        return self._ranges

    @property
    def has_star(self) -> bool:
        """Whether "*" occurs."""
        return bool((self._ranges == STAR).any())

    def __repr__(self) -> str:
        return f"SequenceSet({self.encode().decode()!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SequenceSet) and self.saved == other.saved and bool(np.array_equal(self._ranges, other._ranges))

    def __hash__(self) -> int:
        return hash((self.saved, self._ranges.tobytes()))

    def encode(self) -> bytes:
        """As a client would write it, not merged."""
        if self.saved:
            return b"$"
        shown = [["*" if number == STAR else str(number) for number in pair] for pair in self._ranges.tolist()]
        return ",".join(low if low == high else f"{low}:{high}" for low, high in shown).encode()

    def rows_of_sequence(self, count: int) -> NDArray[np.int64]:
        """Rows (message sequence number - 1), ascending, each once, in a mailbox of `count` messages.

        "*" is the last message; in an empty mailbox it is nothing. Raises `OutOfRange` for a number beyond `count`.
        """
        ranges = self._resolved(count)
        if not len(ranges):
            return np.empty(0, np.int64)
        if int(ranges.max()) > count or int(ranges.min()) < 1:
            if count == 0 and bool((self._ranges == STAR).all()):
                return np.empty(0, np.int64)
            raise OutOfRange("no such message")
        if len(ranges) == 1:
            return np.arange(ranges[0, 0] - 1, ranges[0, 1], dtype=np.int64)
        return np.flatnonzero(_cover(ranges[:, 0] - 1, ranges[:, 1], count)).astype(np.int64, copy=False)

    def rows_of_uids(self, uids: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Rows of those of the ascending `uids` that are in the set, ascending; "*" is the last one.

        Numbers without a message are no error (RFC 9051 §6.4.9).
        """
        if not len(uids):
            return np.empty(0, np.int64)
        ranges = self._resolved(int(uids[-1]))
        lows, highs = _positions(uids, ranges)
        if len(ranges) == 1:
            return np.arange(lows[0], highs[0], dtype=np.int64)
        return np.flatnonzero(_cover(lows, highs, len(uids))).astype(np.int64, copy=False)

    def mask(self, values: NDArray[np.uint32], largest: int | None = None) -> NDArray[np.bool_]:
        """Which of the ascending `values` are in the set; "*" is `largest`, or else the last value."""
        if not len(values):
            return np.zeros(0, np.bool_)
        lows, highs = _positions(values, self._resolved(int(values[-1]) if largest is None else largest))
        return _cover(lows, highs, len(values))

    def numbers(self, limit: int) -> NDArray[np.uint32]:
        """Every number of the set, in the set's own order, as RFC 7162 §3.2.5.2 pairs them. Raises ValueError above `limit`, or for "*"."""
        if self.has_star:
            raise ValueError("* is not a number here")
        sizes = self._ranges[:, 1] - self._ranges[:, 0] + 1
        total = int(sizes.sum())
        if total > limit:
            raise ValueError("too many numbers")
        starts = np.repeat(self._ranges[:, 0] - (np.cumsum(sizes) - sizes), sizes)
        return (starts + np.arange(total, dtype=np.int64)).astype(np.uint32)

    def _resolved(self, largest: int) -> Ranges:
        """The ranges with "*" put in (RFC 9051 §9: 5:* is *:5, so it always holds the largest)."""
        ranges = np.where(self._ranges == STAR, largest, self._ranges)
        ranges.sort(axis=1)
        return ranges


def _positions(values: NDArray[np.uint32], ranges: Ranges) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each range the first position in ascending `values` at or above its low end, and the first above its high end."""
    clipped = np.clip(ranges, 0, NUMBER_MAX).astype(np.uint32)
    return values.searchsorted(clipped[:, 0], "left"), values.searchsorted(clipped[:, 1], "right")


def _cover(lows: NDArray[np.int64], highs: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """A mask of `size` entries, true in every [low, high)."""
    steps = np.bincount(lows, minlength=size + 1) - np.bincount(highs, minlength=size + 1)
    return np.cumsum(steps[:size]) > 0


def encode_numbers(numbers: Numbers) -> bytes:
    """The sequence-set of `numbers` with runs joined: b"1:3,7". Shortest when they ascend; their order is kept. Empty for none."""
    size = len(numbers)
    if size == 0:
        return b""
    if size == 1:
        return b"%d" % int(numbers[0])
    breaks = np.flatnonzero(numbers[1:] != numbers[:-1] + np.ones(1, numbers.dtype))
    lows = numbers[np.concatenate(([0], breaks + 1))]
    highs = numbers[np.concatenate((breaks, [size - 1]))]
    if len(lows) < _FEW_RANGES:
        pairs = zip(lows.tolist(), highs.tolist(), strict=True)
        return ",".join([str(low) if low == high else f"{low}:{high}" for low, high in pairs]).encode()
    single = lows == highs
    colons = np.where(single, 0, _COLON_CELL).astype(np.uint32)[:, None]
    shown = np.where(single, 0, highs).astype(np.uint64)  # 0 is written as nothing
    return join_cells([_COMMA_CELL, number_cells(lows), colons, number_cells(shown)], len(lows))[1:]
