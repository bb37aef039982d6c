"""Thousands of lines at a time from columns: FETCH and EXPUNGE for whole folders.

How: a chunk of lines is a matrix of 4-byte cells, one row a line. Constant text, numbers and flag lists each fill their own cells in one
numpy operation for all rows, padded with NUL; at the end all NULs are deleted in one pass. Numbers are gathered from a table of all
four-digit groups. Values that vary in length (ENVELOPE) are laid between such pieces by strided list assignment and joined once.

Chunks are meant for one write each; between them the caller looks at `Wire.congested`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mailpod.limits.imap import RENDER_BYTES, RENDER_ROWS
from mailpod.protocol.imap.cells import ZERO_CELL, Cells, Numbers, join_cells, number_cells, text_cells
from mailpod.protocol.imap.dates import format_internaldate

_FLAGS_WIDTH_MAX: Final = 512  # bytes of one flag list beyond which a chunk is rendered in fewer rows
_COUNTED_MASKS: Final = 1 << 12  # masks below it are told apart by counting, others by sorting
_COUNTED_DAYS: Final = 1 << 16  # likewise days: some 179 years between a chunk's first day and its last
_DAY_S: Final = 86_400
_BREAK: Final = b"\x01"  # between pieces that are cut apart again: in no flag, number or date


_HOURS: Final = text_cells([b" %02d:" % hour for hour in range(24)])
_MINUTES: Final = text_cells([b"%02d:%02d" % divmod(second, 60) for second in range(3600)])


# Pieces: what fills some cells of every row


class _Piece(Protocol):
    def cells(self, start: int, stop: int) -> Cells:
        """The cells of rows start…stop: an array (rows, width), or (1, width) for all alike."""


class _Constant:
    def __init__(self, text: bytes) -> None:
        self._cells = text_cells([text])

    def cells(self, start: int, stop: int) -> Cells:
        return self._cells


class _Number:
    """A column of numbers; 0 is empty."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def cells(self, start: int, stop: int) -> Cells:
        return number_cells(self._numbers[start:stop])


class _Flags:
    """A column of flag masks as `FLAGS (…)` lists without the parentheses. `names[i]` is bit i."""

    def __init__(self, masks: NDArray[np.uint64], names: Sequence[str]) -> None:
        self._masks = masks
        self._names = [name.encode("ascii") for name in names]
        self._texts: dict[int, bytes] = {}

    def _text(self, mask: int) -> bytes:
        text = self._texts.get(mask)
        if text is None:
            text = self._texts[mask] = b" ".join([name for bit, name in enumerate(self._names) if mask >> bit & 1])
        return text

    def width(self, start: int, stop: int) -> int:
        """Bytes of the longest list among the rows."""
        return max(len(self._text(mask)) for mask in _distinct(self._masks[start:stop])[0])

    def cells(self, start: int, stop: int) -> Cells:
        distinct, which = _distinct(self._masks[start:stop])
        table = text_cells([self._text(mask) for mask in distinct])
        return table if len(distinct) == 1 else table.take(which, axis=0)


def _distinct(masks: NDArray[np.uint64]) -> tuple[list[int], NDArray[np.int64]]:
    """The different masks, and for each row which one it has."""
    if int(masks.max()) < _COUNTED_MASKS:
        small, which = _ranked(masks.astype(np.int64))
        return small.tolist(), which
    distinct, which = np.unique(masks, return_inverse=True)
    return distinct.tolist(), which


def _ranked(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What `np.unique(values, return_inverse=True)` gives, by counting: for small values that are not negative."""
    present = np.bincount(values) > 0
    return np.flatnonzero(present), (np.cumsum(present) - 1).take(values)


class _Date:
    """A column of seconds since 1970-01-01 UTC as date-time with its quotes."""

    def __init__(self, seconds: NDArray[np.int64]) -> None:
        self._seconds = seconds
        self._texts: dict[int, bytes] = {}

    def _text(self, day: int) -> bytes:
        text = self._texts.get(day)
        if text is None:
            text = self._texts[day] = b'"' + format_internaldate(day * _DAY_S)[:11]
        return text

    def cells(self, start: int, stop: int) -> Cells:
        seconds = self._seconds[start:stop]
        days = seconds // _DAY_S
        rest = (seconds - days * _DAY_S).astype(np.uint32)
        hours = rest // 3600
        first = int(days.min())
        if int(days.max()) - first < _COUNTED_DAYS:
            offsets, which = _ranked(days - first)
            distinct = offsets + first
        else:
            distinct, which = np.unique(days, return_inverse=True)
        table = text_cells([self._text(day) for day in distinct.tolist()])
        return np.hstack((table.take(which, axis=0), _HOURS.take(hours, axis=0), _MINUTES.take(rest - hours * 3600, axis=0)))


def _rows(pieces: Sequence[_Piece], start: int, stop: int) -> bytes:
    """The lines of rows start…stop."""
    return join_cells([piece.cells(start, stop) for piece in pieces], stop - start)


# Columns: what a FETCH line tells of each message


class UidColumn(NamedTuple):
    """UID"""

    uids: NDArray[np.uint32]


class FlagsColumn(NamedTuple):
    """FLAGS. `names[i]` is bit i of a mask: the system flags, then the account's keywords."""

    masks: NDArray[np.uint64]
    names: Sequence[str]


class ModseqColumn(NamedTuple):
    """MODSEQ (RFC 7162)"""

    modseqs: NDArray[np.uint64]


class SizeColumn(NamedTuple):
    """RFC822.SIZE"""

    sizes: NDArray[np.uint32]


class DateColumn(NamedTuple):
    """INTERNALDATE or SAVEDATE, seconds since 1970-01-01 UTC."""

    seconds: NDArray[np.int64]
    label: bytes = b"INTERNALDATE"


class ValueColumn(NamedTuple):
    """Values in wire form: `label SP value`, as ENVELOPE, BODYSTRUCTURE, or whole items when `label` is empty."""

    label: bytes
    values: Sequence[bytes]


class BlobValues(NamedTuple):
    """The same out of one blob: row i's value is blob[offsets[rows[i]]:offsets[rows[i]+1]]; every row in order without `rows`."""

    label: bytes
    blob: bytes
    offsets: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None


Column: TypeAlias = UidColumn | FlagsColumn | ModseqColumn | SizeColumn | DateColumn | ValueColumn | BlobValues


def render_fetch(seqs: Numbers, columns: Sequence[Column]) -> Iterator[bytes]:
    """`* seq FETCH (…)` for every message, items in the order of `columns`, each column as long as `seqs`; chunks of whole lines."""
    assert columns
    pieces: list[_Piece] = [_Constant(b"* "), _Number(seqs)]
    runs: list[list[_Piece]] = []  # what stands between the values
    values: list[ValueColumn | BlobValues] = []
    text = b" FETCH ("
    for column in columns:
        before, piece, after = _column_piece(column)
        text += before
        pieces.append(_Constant(text))
        if piece is None:
            assert isinstance(column, ValueColumn | BlobValues)
            values.append(column)
            runs.append(pieces)
            pieces = []
        else:
            pieces.append(piece)
        text = after + b" "
    pieces.append(_Constant(text[:-1] + b")\r\n"))
    if not values:
        yield from _lines(pieces, len(seqs))
    else:
        yield from _interleaved([*runs, pieces], values, len(seqs))


def _column_piece(column: Column) -> tuple[bytes, _Piece | None, bytes]:
    """What goes before a column's piece, the piece (None for values), and what goes behind."""
    match column:
        case UidColumn(uids):
            return b"UID ", _Number(uids), b""
        case FlagsColumn(masks, names):
            return b"FLAGS (", _Flags(masks, names), b")"
        case ModseqColumn(modseqs):
            return b"MODSEQ (", _Number(modseqs), b")"
        case SizeColumn(sizes):
            return b"RFC822.SIZE ", _Size(sizes), b""
        case DateColumn(seconds, label):
            return label + b" ", _Date(seconds), b' +0000"'
        case ValueColumn(label=label) | BlobValues(label=label):
            return (label + b" " if label else b""), None, b""


class _Size(_Number):
    """Numbers that may be 0."""

    def cells(self, start: int, stop: int) -> Cells:
        out = super().cells(start, stop)
        out[self._numbers[start:stop] == 0, -1] = ZERO_CELL
        return out


def _lines(pieces: Sequence[_Piece], count: int) -> Iterator[bytes]:
    start = 0
    while start < count:
        stop = _row_limit(pieces, start, min(count, start + RENDER_ROWS))
        yield _rows(pieces, start, stop)
        start = stop


def _row_limit(pieces: Iterable[_Piece], start: int, stop: int) -> int:
    """Fewer rows where somebody has very long flag lists: the matrix is as wide as the longest."""
    for piece in pieces:
        if isinstance(piece, _Flags):
            while stop - start > 1 and (width := piece.width(start, stop)) > _FLAGS_WIDTH_MAX and width * (stop - start) > RENDER_BYTES * 4:
                stop = start + (stop - start) // 2
    return stop


def _interleaved(runs: Sequence[Sequence[_Piece]], values: Sequence[ValueColumn | BlobValues], count: int) -> Iterator[bytes]:
    """Lines with values in them: run, value, run, value, …, run."""
    last = runs[-1]
    closing = _rows(last, 0, 1) if all(isinstance(piece, _Constant) for piece in last) else None
    cut = _Constant(_BREAK)
    stride = len(runs) + len(values)
    start = 0
    while start < count:
        stop = min(count, start + RENDER_ROWS // 4)
        for run in runs:
            stop = _row_limit(run, start, stop)
        taken = [_take(column, start, stop) for column in values]
        stop = start + _fitting(taken, stop - start)
        rows = stop - start
        out: list[bytes] = [b""] * (rows * stride)
        for place, run in enumerate(runs):
            if run is last and closing is not None:
                out[2 * place :: stride] = [closing] * rows
            else:
                out[2 * place :: stride] = _rows([*run, cut], start, stop).split(_BREAK)[:rows]
        for place, texts in enumerate(taken):
            out[2 * place + 1 :: stride] = texts[:rows]
        yield b"".join(out)
        start = stop


def _take(column: ValueColumn | BlobValues, start: int, stop: int) -> Sequence[bytes]:
    if isinstance(column, ValueColumn):
        return column.values[start:stop]
    blob = column.blob
    if column.rows is None:
        edges = column.offsets[start : stop + 1].tolist()
        return [blob[low:high] for low, high in pairwise(edges)]
    rows = column.rows[start:stop]
    lows, highs = column.offsets[rows].tolist(), column.offsets[rows + 1].tolist()
    return [blob[low:high] for low, high in zip(lows, highs, strict=True)]


def _fitting(taken: Sequence[Sequence[bytes]], rows: int) -> int:
    """How many rows stay within RENDER_BYTES; at least one."""
    while rows > 1 and sum(sum(map(len, texts[:rows])) for texts in taken) > RENDER_BYTES:
        rows //= 2
    return rows


# The shapes that are asked for most


def render_flags(
    seqs: Numbers,
    uids: NDArray[np.uint32] | None,
    masks: NDArray[np.uint64],
    names: Sequence[str],
    modseqs: NDArray[np.uint64] | None = None,
) -> Iterator[bytes]:
    """`* seq FETCH (UID uid FLAGS (…) MODSEQ (m))`; without UID or MODSEQ where None. For FETCH, STORE and changes by others."""
    columns: list[Column] = [] if uids is None else [UidColumn(uids)]
    columns.append(FlagsColumn(masks, names))
    if modseqs is not None:
        columns.append(ModseqColumn(modseqs))
    return render_fetch(seqs, columns)


def render_expunge(rows: NDArray[np.int64]) -> Iterator[bytes]:
    """`* n EXPUNGE` for ascending `rows` (message sequence number - 1) of the mailbox as the client knows it, first to last.

    Each line counts with those before it already gone (RFC 9051 §7.5.1).
    """
    seqs = rows + 1 - np.arange(len(rows), dtype=np.int64)
    return _lines([_Constant(b"* "), _Number(seqs), _Constant(b" EXPUNGE\r\n")], len(seqs))


def render_numbers(label: bytes, numbers: Numbers) -> Iterator[bytes]:
    """`label n n n` in pieces, without a line end: SEARCH and SORT of many."""
    yield label
    yield from _lines([_Constant(b" "), _Number(numbers)], len(numbers))
