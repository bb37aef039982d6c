"""A folder's messages in columns: a tuple of chunks, shared between views and copied on write.

A chunk's arrays have room to spare. Appending fills it in place and makes a new `Chunk` with a larger `count`: views that hold the old
one never look beyond theirs. That is right because only one line of states grows, from the newest one on: what a discarded evaluation
wrote beyond `count` is simply overwritten. Flags and MODSEQs change by copying these two arrays of the chunk.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mailpod.limits import store as limits
from mailpod.store.uidset import NONE, Uids

# What never changes about a message in a folder (save that `relocate` moves its body). 38 bytes.
FIXED: Final = np.dtype(
    [
        ("email", "<u4"),  # EMAILID: the same for copies
        ("date", "<i8"),  # internal date, s since 1970
        ("saved", "<u4"),  # save date (RFC 8514), s since 1970
        ("size", "<u4"),  # RFC822.SIZE, bytes
        ("seq", "<u8"),  # where the body is: entry
        ("off", "<u4"),  # byte offset of its frame there; BIG: an object of its own
        ("len", "<u4"),  # stored bytes of the frame, its header included
        ("idx", "<u2"),  # the message's number in the entry
    ]
)
BIG: Final = 0xFFFFFFFF  # `off` of a body that has an object of its own
Fixed = NDArray[Any]  # of dtype FIXED
Flags = NDArray[np.uint64]


class Chunk:
    """Up to CHUNK_ROWS messages. Rows 0…count-1 never change; the arrays are longer."""

    __slots__ = ("count", "fixed", "flags", "modseq", "uid")

    def __init__(self, uid: Uids, fixed: Fixed, flags: Flags, modseq: Flags, count: int) -> None:
        self.uid = uid
        self.fixed = fixed
        self.flags = flags
        self.modseq = modseq
        self.count = count

    @classmethod
    def empty(cls, capacity: int) -> Chunk:
        """A chunk with room for `capacity` rows."""
        return cls(
            np.empty(capacity, dtype=np.uint32),
            np.empty(capacity, dtype=FIXED),
            np.empty(capacity, dtype=np.uint64),
            np.empty(capacity, dtype=np.uint64),
            0,
        )

    @property
    def bytes(self) -> int:
        """Memory of the arrays."""
        return len(self.uid) * (4 + FIXED.itemsize + 16)

    def first_uid(self) -> int:
        """Of a chunk that is not empty."""
        return int(self.uid[0])

    def last_uid(self) -> int:
        """Of a chunk that is not empty."""
        return int(self.uid[self.count - 1])

    def grown(self, capacity: int) -> Chunk:
        """A copy with more room."""
        made = Chunk.empty(capacity)
        n = self.count
        made.uid[:n] = self.uid[:n]
        made.fixed[:n] = self.fixed[:n]
        made.flags[:n] = self.flags[:n]
        made.modseq[:n] = self.modseq[:n]
        made.count = n
        return made

    def kept(self, mask: NDArray[np.bool_]) -> Chunk:
        """A copy of the rows where `mask` is set."""
        n = self.count
        uid = self.uid[:n][mask]
        return Chunk(uid, self.fixed[:n][mask], self.flags[:n][mask], self.modseq[:n][mask], len(uid))


Chunks = tuple[Chunk, ...]


def positions(chunk: Chunk, uids: Uids) -> NDArray[np.intp]:
    """Rows of the chunk that hold those of `uids` that are in it, ascending."""
    n = chunk.count
    if n == 0 or len(uids) == 0:
        return np.empty(0, dtype=np.intp)
    column = chunk.uid[:n]
    low, high = np.searchsorted(uids, (column[0], column[-1]))
    wanted = uids[low : high + 1]
    found = np.searchsorted(column, wanted)
    found = np.minimum(found, n - 1)
    hits: NDArray[np.intp] = found[column[found] == wanted]
    return hits


def append(chunks: Chunks, uids: Uids, fixed: Fixed, flags: Flags, modseq: int) -> Chunks:
    """`chunks` with rows added at the end; their UIDs are above all that are there."""
    out = list(chunks)
    done = 0
    total = len(uids)
    while done < total:
        last = out[-1] if out else None
        room = len(last.uid) - last.count if last is not None else 0
        if last is None or (room == 0 and len(last.uid) >= limits.CHUNK_ROWS):
            want = total - done
            out.append(Chunk.empty(_capacity(want)))
            continue
        if room == 0:
            out[-1] = last.grown(_capacity(last.count + 1))
            continue
        take = min(room, total - done)
        start, end = last.count, last.count + take
        last.uid[start:end] = uids[done : done + take]
        last.fixed[start:end] = fixed[done : done + take]
        last.flags[start:end] = flags[done : done + take]
        last.modseq[start:end] = modseq
        out[-1] = Chunk(last.uid, last.fixed, last.flags, last.modseq, end)
        done += take
    return tuple(out)


def _capacity(rows: int) -> int:
    capacity = limits.CHUNK_ROWS_FIRST
    while capacity < rows and capacity < limits.CHUNK_ROWS:
        capacity *= 4
    return min(capacity, limits.CHUNK_ROWS)


def change_flags(chunks: Chunks, uids: Uids, clear: int, add: int, modseq: int) -> tuple[Chunks, int]:
    """Rows of `uids` get `(flags & ~clear) | add` and the new MODSEQ; also how many were found."""
    out = list(chunks)
    hits = 0
    keep = np.uint64(~clear & 0xFFFFFFFFFFFFFFFF)
    bits = np.uint64(add)
    for number in touched(chunks, uids):
        chunk = out[number]
        rows = positions(chunk, uids)
        if not len(rows):
            continue
        hits += len(rows)
        flags = chunk.flags.copy()
        modseqs = chunk.modseq.copy()
        flags[rows] = (flags[rows] & keep) | bits
        modseqs[rows] = modseq
        out[number] = Chunk(chunk.uid, chunk.fixed, flags, modseqs, chunk.count)
    return tuple(out), hits


def touched(chunks: Chunks, uids: Uids) -> range:
    """Numbers of the chunks that may hold any of `uids`."""
    if not chunks or not len(uids):
        return range(0)
    if len(chunks) == 1:
        return range(1)
    starts = [chunk.first_uid() for chunk in chunks]
    first = max(int(np.searchsorted(starts, int(uids[0]), side="right")) - 1, 0)
    last = int(np.searchsorted(starts, int(uids[-1]), side="right"))
    return range(first, max(last, first))


def present(chunks: Chunks, uids: Uids) -> Uids:
    """Those of `uids` that are there."""
    parts = []
    for number in touched(chunks, uids):
        rows = positions(chunks[number], uids)
        if len(rows):
            parts.append(chunks[number].uid[rows])
    if not parts:
        return NONE
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def gather(chunks: Chunks, uids: Uids) -> tuple[Uids, Fixed, Flags, Flags]:
    """UIDs, fixed parts, flags, MODSEQs of those of `uids` that are there (copies)."""
    found = []
    for number in touched(chunks, uids):
        chunk = chunks[number]
        rows = positions(chunk, uids)
        if len(rows):
            found.append((chunk.uid[rows], chunk.fixed[rows], chunk.flags[rows], chunk.modseq[rows]))
    if not found:
        return NONE, np.empty(0, dtype=FIXED), np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint64)
    if len(found) == 1:
        return found[0]
    return (
        np.concatenate([part[0] for part in found]),
        np.concatenate([part[1] for part in found]),
        np.concatenate([part[2] for part in found]),
        np.concatenate([part[3] for part in found]),
    )


def remove(chunks: Chunks, uids: Uids) -> tuple[Chunks, int, int]:
    """Without the rows of `uids`; how many those were and the sum of their sizes, bytes."""
    out: list[Chunk] = []
    hits = 0
    size = 0
    affected = touched(chunks, uids)
    for number, chunk in enumerate(chunks):
        if number not in affected:
            _add(out, chunk)
            continue
        rows = positions(chunk, uids)
        if not len(rows):
            _add(out, chunk)
            continue
        hits += len(rows)
        size += int(chunk.fixed["size"][rows].sum(dtype=np.int64))
        mask = np.ones(chunk.count, dtype=np.bool_)
        mask[rows] = False
        left = chunk.kept(mask)
        if left.count:
            _add(out, left)
    return tuple(out), hits, size


def _add(out: list[Chunk], chunk: Chunk) -> None:
    """Append a chunk, joined with the one before when both are small, so that chunks do not crumble."""
    if out:
        before = out[-1]
        together = before.count + chunk.count
        if together <= limits.CHUNK_ROWS // 2 and chunk.count:
            b, c = before, chunk
            out[-1] = Chunk(
                np.concatenate((b.uid[: b.count], c.uid[: c.count])),
                np.concatenate((b.fixed[: b.count], c.fixed[: c.count])),
                np.concatenate((b.flags[: b.count], c.flags[: c.count])),
                np.concatenate((b.modseq[: b.count], c.modseq[: c.count])),
                together,
            )
            return
    out.append(chunk)


def rebase(chunks: Chunks, from_uid: int, seq: int, base: int) -> None:
    """Add `base` to the offsets of rows from `from_uid` on whose body is in entry `seq`, in place: they are not published yet."""
    for chunk in reversed(chunks):
        if chunk.last_uid() < from_uid:
            return
        first = int(np.searchsorted(chunk.uid[: chunk.count], from_uid))
        fixed = chunk.fixed[first : chunk.count]
        mask = (fixed["seq"] == seq) & (fixed["off"] != BIG)
        fixed["off"][mask] += np.uint32(base)


def column(chunks: Chunks, name: str) -> NDArray[Any]:
    """A field of FIXED of all rows, contiguous."""
    if not chunks:
        return np.empty(0, dtype=FIXED[name])
    if len(chunks) == 1:
        return np.ascontiguousarray(chunks[0].fixed[name][: chunks[0].count])
    return np.concatenate([chunk.fixed[name][: chunk.count] for chunk in chunks])


def uid_column(chunks: Chunks) -> Uids:
    """All UIDs."""
    if not chunks:
        return NONE
    if len(chunks) == 1:
        return chunks[0].uid[: chunks[0].count]
    return np.concatenate([chunk.uid[: chunk.count] for chunk in chunks])


def flags_column(chunks: Chunks) -> Flags:
    """All flag masks."""
    if not chunks:
        return np.empty(0, dtype=np.uint64)
    if len(chunks) == 1:
        return chunks[0].flags[: chunks[0].count]
    return np.concatenate([chunk.flags[: chunk.count] for chunk in chunks])


def modseq_column(chunks: Chunks) -> Flags:
    """All MODSEQs."""
    if not chunks:
        return np.empty(0, dtype=np.uint64)
    if len(chunks) == 1:
        return chunks[0].modseq[: chunks[0].count]
    return np.concatenate([chunk.modseq[: chunk.count] for chunk in chunks])
