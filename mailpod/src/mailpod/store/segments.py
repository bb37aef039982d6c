"""Summary segments: the summaries of many messages in one object, so that listing a large folder cold reads few objects.

Form: groups (zstd over msgpack of EMAILIDs and encoded summaries), then a footer that says where each group is, so that one range read from
the end brings the newest groups with it. Derived: whatever is missing or wrong is read from the entries instead. Snapshots carry the
list of segments.
"""

from __future__ import annotations

import asyncio
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np
import structlog
import zstandard
from crc32c import crc32c
from numpy.typing import NDArray

from mailpod.errors import ObjectNotFound
from mailpod.limits import store as limits
from mailpod.store.log import Log
from mailpod.store.state import AccountState

_log = structlog.get_logger(__name__)

_END: Final = struct.Struct("<III4s")  # footer bytes, footer CRC32C, rows, magic
_MAGIC: Final = b"PRSM"
_TAIL_READ_BYTES: Final = 128 * 1024  # the footer and the newest groups


class _Group(msgspec.Struct, array_like=True, frozen=True):
    first: int
    last: int
    offset: int
    length: int
    crc: int


class _Content(msgspec.Struct, array_like=True):
    emails: list[int]
    summaries: list[bytes]


class Segment(msgspec.Struct, array_like=True, frozen=True):
    """One segment: which EMAILIDs it spans, how many it holds, how long its object is."""

    name: str
    first: int
    last: int
    rows: int
    size: int


class _Listing(msgspec.Struct, array_like=True):
    incarnation: int
    segments: list[Segment]


def encode(rows: Sequence[tuple[int, bytes]]) -> bytes:
    """A segment of (EMAILID, encoded summary), ascending."""
    compressor = zstandard.ZstdCompressor(level=3)
    parts: list[bytes] = []
    groups: list[_Group] = []
    offset = 0
    for start in range(0, len(rows), limits.SEGMENT_GROUP_ROWS):
        some = rows[start : start + limits.SEGMENT_GROUP_ROWS]
        data = compressor.compress(msgspec.msgpack.encode(_Content([row[0] for row in some], [row[1] for row in some])))
        groups.append(_Group(some[0][0], some[-1][0], offset, len(data), crc32c(data)))
        parts.append(data)
        offset += len(data)
    footer = msgspec.msgpack.encode(groups)
    return b"".join((*parts, footer, _END.pack(len(footer), crc32c(footer), len(rows), _MAGIC)))


def decode_footer(tail: bytes, size: int) -> list[_Group] | None:
    """The groups of a segment of `size` bytes whose end is `tail`; None when it does not verify or `tail` is too short."""
    if len(tail) < _END.size:
        return None
    length, crc, _, magic = _END.unpack_from(tail, len(tail) - _END.size)
    start = len(tail) - _END.size - length
    if magic != _MAGIC or start < 0 or crc32c(tail[start : start + length]) != crc:
        return None
    try:
        groups = msgspec.msgpack.decode(tail[start : start + length], type=list[_Group])
    except (msgspec.MsgspecError, ValueError):
        return None
    return groups if all(group.offset + group.length <= size for group in groups) else None


def decode_group(data: bytes | memoryview, group: _Group) -> dict[int, bytes]:
    """The summaries of a group; empty when it does not verify."""
    if len(data) != group.length or crc32c(data) != group.crc:
        return {}
    try:
        raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=limits.SEGMENT_GROUP_ROWS * limits.SUMMARY_BYTES_MAX)
        content = msgspec.msgpack.decode(raw, type=_Content)
    except (zstandard.ZstdError, msgspec.MsgspecError, ValueError):
        return {}
    return dict(zip(content.emails, content.summaries, strict=False))


class Segments:
    """The segments of one account, as this pod knows them."""

    def __init__(self, log: Log[AccountState]) -> None:
        self._log = log
        self._env = log.env
        self._incarnation = 0
        self.known: list[Segment] = []  # ascending, not overlapping
        self._groups: dict[str, list[_Group]] = {}

    # The list.

    def adopt(self, extra: bytes) -> None:
        """The list that a snapshot carried."""
        try:
            listing = msgspec.msgpack.decode(extra, type=_Listing)
        except (msgspec.MsgspecError, ValueError):
            return
        self._incarnation, self.known = listing.incarnation, listing.segments

    def listing(self) -> bytes:
        """The list, for a snapshot to carry."""
        return msgspec.msgpack.encode(_Listing(self._incarnation, self._current()))

    def _current(self) -> list[Segment]:
        if self._incarnation != self._log.state.incarnation:
            self._incarnation = self._log.state.incarnation
            self.known = []
            self._groups.clear()
        return self.known

    # Reading.

    async def read(self, emails: Iterable[int]) -> dict[int, bytes]:
        """Encoded summaries of those of `emails` that a segment has. Never raises for what is missing or wrong."""
        known = self._current()
        if not known:
            return {}
        firsts = [segment.first for segment in known]
        wanted: dict[int, list[int]] = {}
        for email in emails:
            number = bisect_right(firsts, email) - 1
            if number >= 0 and email <= known[number].last:
                wanted.setdefault(number, []).append(email)
        found: dict[int, bytes] = {}
        for number, some in wanted.items():
            segment = known[number]
            try:
                found.update(await self._read_segment(segment, sorted(some)))
            except ObjectNotFound:
                self._forget(segment, "is gone")
        return found

    async def _read_segment(self, segment: Segment, emails: list[int]) -> dict[int, bytes]:
        key = self._log.keys.segment(self._incarnation, segment.name)
        tail = b""
        tail_at = segment.size
        groups = self._groups.get(segment.name)
        if groups is None:
            tail_at = max(segment.size - _TAIL_READ_BYTES, 0)
            tail = (await self._env.objects.get(key, tail_at, segment.size - tail_at)).data
            groups = decode_footer(tail, segment.size)
            if groups is None:
                self._forget(segment, "does not verify")
                return {}
            self._groups[segment.name] = groups
        firsts = [group.first for group in groups]
        numbers = sorted({max(bisect_right(firsts, email) - 1, 0) for email in emails})
        gate = asyncio.Semaphore(limits.READ_RANGES_IN_FLIGHT)

        async def load(some: list[_Group]) -> dict[int, bytes]:
            start, end = some[0].offset, some[-1].offset + some[-1].length
            if start >= tail_at:
                data = tail[start - tail_at : end - tail_at]
            else:
                async with gate:
                    data = (await self._env.objects.get(key, start, end - start)).data
            view = memoryview(data)
            out: dict[int, bytes] = {}
            for group in some:
                out.update(decode_group(view[group.offset - start : group.offset - start + group.length], group))
            return out

        found: dict[int, bytes] = {}
        for part in await asyncio.gather(*(load(some) for some in _neighbours(groups, numbers))):
            found.update(part)
        return {email: found[email] for email in emails if email in found}

    def _forget(self, segment: Segment, why: str) -> None:
        _log.info("store.segment.passed-over", log=self._log.name, segment=segment.name, detail=why)
        self._drop(segment)

    def _drop(self, segment: Segment) -> None:
        self.known = [one for one in self.known if one.name != segment.name]
        self._groups.pop(segment.name, None)

    # Writing.

    @property
    def covered_to(self) -> int:
        """EMAILIDs up to this one had their turn."""
        known = self._current()
        return known[-1].last if known else 0

    def due(self) -> bool:
        """Whether enough has come in since the last segment."""
        return self._log.state.next_email - 1 - self.covered_to >= limits.SEGMENT_ROWS_MIN

    async def add(self, rows: list[tuple[int, bytes]]) -> None:
        """Write (EMAILID, encoded summary), ascending and above `covered_to`; segments before that are not much longer are joined to it."""
        while rows:
            some, rows = rows[: limits.SEGMENT_ROWS_MAX], rows[limits.SEGMENT_ROWS_MAX :]
            # Joined while the one before is not much longer: few segments, each message rewritten a few times in all.
            while (known := self._current()) and (last := known[-1]).rows <= min(2 * len(some), limits.SEGMENT_ROWS_MAX - len(some)):
                try:
                    old = await self._all(last)
                except ObjectNotFound:
                    old = {}
                self._drop(last)
                some = [*sorted(old.items()), *some]
            await self._write(some)

    async def _all(self, segment: Segment) -> dict[int, bytes]:
        groups = self._groups.get(segment.name)
        if groups is None:
            await self._read_segment(segment, [segment.last])
            groups = self._groups.get(segment.name, [])
        return await self._read_segment(segment, list(range(segment.first, segment.last + 1))) if groups else {}

    async def _write(self, rows: list[tuple[int, bytes]]) -> None:
        data = await self._env.offload(encode, rows)
        first, last = rows[0][0], rows[-1][0]
        name = f"{first:08x}-{last:08x}-{self._env.entropy.bytes(4).hex()}"
        await self._env.objects.put(self._log.keys.segment(self._incarnation, name), data)
        self.known = sorted([*self._current(), Segment(name, first, last, len(rows), len(data))], key=lambda one: one.first)

    async def tidy(self, living: NDArray[np.uint32]) -> None:
        """Write segments anew without the messages that are gone, and delete objects that no list names any more."""
        for segment in list(self._current()):
            inside = living[np.searchsorted(living, segment.first) : np.searchsorted(living, segment.last, side="right")]
            if len(inside) >= segment.rows:
                continue
            try:
                rows = await self._all(segment)
            except ObjectNotFound:
                rows = {}
            kept = {email: rows[email] for email in inside.tolist() if email in rows}
            self._drop(segment)
            if kept:
                await self._write(sorted(kept.items()))
        names = {segment.name for segment in self.known}
        rows_listed = await self._env.objects.list(self._log.keys.segments(self._incarnation))
        if rows_listed:
            newest = max(row.last_modified for row in rows_listed)
            doomed = [
                row.key
                for row in rows_listed
                if row.key.rpartition("/")[2] not in names and newest - row.last_modified > limits.SNAPSHOT_DAY_S
            ]
            await self._env.objects.delete(doomed)


def _neighbours(groups: list[_Group], numbers: list[int]) -> list[list[_Group]]:
    """Groups that follow one another are read together, up to READ_JOIN_BYTES."""
    out: list[list[_Group]] = []
    for number in numbers:
        group = groups[number]
        if out:
            last = out[-1][-1]
            if last.offset + last.length == group.offset and group.offset + group.length - out[-1][0].offset <= limits.READ_JOIN_BYTES:
                out[-1].append(group)
                continue
        out.append([group])
    return out
