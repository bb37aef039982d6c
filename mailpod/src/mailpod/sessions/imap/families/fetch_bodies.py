"""The message bytes of a FETCH: whole messages read ahead, ranges of large ones, in order, at the speed of the client.

No message is in memory twice, a large one not even once: its literal is sent range by range. A fault before a literal is announced is an
answer; in the middle of one it can only be the end of the connection, for nothing may be put in place of the missing bytes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import structlog

from mailpod.errors import MailError, Refused
from mailpod.limits import imap_session as limits
from mailpod.message.sections import find_part
from mailpod.message.summary import Summary
from mailpod.protocol.imap import responses
from mailpod.protocol.imap.fetch_items import BinarySection, BinarySize, BodySection
from mailpod.sessions.imap.answers import DECODE_LIMIT
from mailpod.sessions.imap.families.sections import Extent, chooses_fields, chosen_fields, cut, decoded, extent
from mailpod.sessions.imap.state import ImapState
from mailpod.sessions.imap.turns import next_turn
from mailpod.store.facade import FolderView
from mailpod.store.types import Rows

log = structlog.get_logger(__name__)

BodyItem: TypeAlias = BodySection | BinarySection | BinarySize


class LiteralBrokenError(ConnectionError):
    """The rest of an announced literal can't be had: the connection has to end."""


async def send_bodies(
    state: ImapState,
    view: FolderView,
    rows: Rows,
    prefixes: Sequence[bytes],
    summaries: Sequence[Summary] | None,
    items: Sequence[BodyItem],
) -> Rows:
    """Send `* n FETCH (… BODY[] {…}` for `rows`, `prefixes[i]` being what stands before the bodies. Returns the rows that were sent.

    A message whose body is gone for good is left out; every other fault raises.
    """
    sender = _Sender(state, view, items)
    sent: list[int] = []
    sizes = view.sizes()[rows].tolist()
    index = 0
    while index < len(rows):
        stop = index
        while stop < len(rows) and sizes[stop] <= limits.FETCH_WHOLE_BYTES_MAX:
            stop += 1
        if stop - index > 1:
            at = index
            async for row, raw in view.read_many(rows[index:stop]):
                while int(rows[at]) != row:
                    at += 1  # left out: reclaimed
                await sender.whole(prefixes[at], None if summaries is None else summaries[at], raw)
                sent.append(row)
                at += 1
            index = stop
            continue
        row = int(rows[index])
        if await sender.ranges(row, sizes[index], prefixes[index], None if summaries is None else summaries[index]):
            sent.append(row)
        index += 1
    await sender.flush()
    return np.array(sent, np.int64)


class _Sender:
    """Gathers small pieces into writes of a good size."""

    def __init__(self, state: ImapState, view: FolderView, items: Sequence[BodyItem]) -> None:
        self._state = state
        self._view = view
        self._items = items
        self._only_whole = len(items) == 1 and _is_whole(items[0])
        self._label = items[0].label
        self._out: list[bytes] = []
        self._out_bytes = 0

    async def flush(self) -> None:
        """Write what was gathered, and wait until the client has read enough."""
        if self._out:
            self._state.wire.writelines(self._out)
            self._out = []
            self._out_bytes = 0
        wire = self._state.wire
        if wire.congested:
            await wire.drained()
        else:
            await next_turn()

    async def _put(self, *pieces: bytes) -> None:
        self._out += pieces
        self._out_bytes += sum(map(len, pieces))
        if self._out_bytes >= limits.WRITE_BYTES_MAX:
            await self.flush()

    # --- a message that is in memory ---

    async def whole(self, prefix: bytes, summary: Summary | None, raw: bytes) -> None:
        """One message of which all bytes are there."""
        if self._only_whole:
            await self._put(b"%b%b%b {%d}\r\n" % (prefix, _gap(prefix), self._label, len(raw)), raw, b")\r\n")
            return
        pieces = [prefix]
        gap = _gap(prefix)
        for item in self._items:
            pieces.append(gap + item.label)
            gap = b" "
            if isinstance(item, BodySection):
                pieces += _section(item, summary, raw)
            else:
                assert summary is not None
                pieces.append(b" " + await self._binary(item, summary, raw, 0))
        await self._put(*pieces, b")\r\n")

    async def _binary(self, item: BinarySection | BinarySize, summary: Summary, raw: bytes, origin: int) -> bytes:
        """The value of BINARY or BINARY.SIZE; `raw` are the message's bytes from `origin` on."""
        found = _binary_extent(item, summary, origin + len(raw))
        if found is None:
            return b"0" if isinstance(item, BinarySize) else b"NIL"
        where, encoding = found
        data = raw[where.start - origin : where.end - origin]
        if len(data) >= limits.DECODE_OFFLOAD_BYTES_MIN:
            data = await self._state.services.offload(decoded, data, encoding)
        else:
            data = decoded(data, encoding)
        if isinstance(item, BinarySize):
            return b"%d" % len(data)
        data = cut(data, item.offset, item.length)
        return (b"~" if b"\0" in data else b"") + responses.literal(data)

    # --- a message that is read as far as needed ---

    async def ranges(self, row: int, size: int, prefix: bytes, summary: Summary | None) -> bool:
        """One message, each section read by itself; whether its body was still there."""
        try:
            pieces = await self._first(row, size, prefix, summary)
        except Refused as error:
            if error.reason.name != "expunged":
                raise
            return False
        for piece in pieces:
            if isinstance(piece, bytes):
                await self._put(piece)
            else:
                await self._stream(row, piece)
        await self._put(b")\r\n")
        return True

    async def _first(self, row: int, size: int, prefix: bytes, summary: Summary | None) -> list[bytes | Extent]:
        """The answer's pieces: small sections as bytes, the rest of large ones as extents yet to be sent.

        Every section's beginning is read here, so that a message that is gone or does not verify is noticed before anything is said.
        """
        if len(self._items) > 1 and size <= limits.FETCH_PART_BYTES:
            raw = await self._view.read(row, 0, size)
            sections = [await self._in_memory(item, summary, raw) for item in self._items]
            return [prefix, *[piece for section in _gapped(prefix, sections) for piece in section]]
        sections = [[item.label, *await self._section(row, size, item, summary)] for item in self._items]
        return [prefix, *[piece for section in _gapped(prefix, sections) for piece in section]]

    async def _in_memory(self, item: BodyItem, summary: Summary | None, raw: bytes) -> list[bytes | Extent]:
        if isinstance(item, BodySection):
            return [item.label, *_section(item, summary, raw)]
        assert summary is not None
        return [item.label, b" " + await self._binary(item, summary, raw, 0)]

    async def _section(self, row: int, size: int, item: BodyItem, summary: Summary | None) -> list[bytes | Extent]:
        if not isinstance(item, BodySection):
            assert summary is not None
            found = _binary_extent(item, summary, size)
            if found is not None and found[0].size > limits.SECTION_DECODE_BYTES_MAX:
                raise Refused(DECODE_LIMIT)
            start, end = (0, 0) if found is None else found[0]
            raw = await self._view.read(row, start, end - start)
            return [b" " + await self._binary(item, summary, raw, start)]
        where = extent(item, summary, size)
        if where is None:
            return [b" NIL"]
        if chooses_fields(item):
            return [_literal(chosen_fields(item, await self._view.read(row, where.start, where.size)))]
        where = where.partial(item.offset, item.length)
        first = await self._view.read(row, where.start, min(where.size, limits.FETCH_PART_BYTES))
        rest = Extent(where.start + len(first), where.end)
        pieces: list[bytes | Extent] = [b" {%d}\r\n" % where.size, first]
        return [*pieces, rest] if rest.size else pieces

    async def _stream(self, row: int, where: Extent) -> None:
        """The rest of an announced literal, a few ranges ahead of the client."""
        async for data in _ranges(self._view, row, where):
            await self._put(data)


def _is_whole(item: BodyItem) -> bool:
    return isinstance(item, BodySection) and item.part == "" and item.text.value == "" and item.offset is None


def _gap(prefix: bytes) -> bytes:
    """A space where an item stands before."""
    return b"" if prefix.endswith(b" FETCH (") else b" "


def _gapped(prefix: bytes, sections: Sequence[list[bytes | Extent]]) -> Iterator[list[bytes | Extent]]:
    gap = _gap(prefix)
    for section in sections:
        yield [gap, *section] if gap else section
        gap = b" "


def _section(item: BodySection, summary: Summary | None, raw: bytes) -> tuple[bytes, ...]:
    """A section's value out of the whole message."""
    where = extent(item, summary, len(raw))
    if where is None:
        return (b" NIL",)
    if chooses_fields(item):
        return (_literal(chosen_fields(item, raw[where.start : where.end])),)
    start, end = where.partial(item.offset, item.length)
    return (b" {%d}\r\n" % (end - start), raw[start:end])


def _literal(data: bytes) -> bytes:
    return b" {%d}\r\n%b" % (len(data), data)


def _binary_extent(item: BinarySection | BinarySize, summary: Summary, size: int) -> tuple[Extent, str] | None:
    """Where a part's encoded content is, and its encoding; BINARY[] is the message as it is (RFC 3516 §4.2)."""
    if item.part == "":
        return Extent(0, size), ""
    part = find_part(summary.parts, item.part)
    if part is None:
        return None
    return Extent(part.body_start, part.body_end), part.encoding


async def _ranges(view: FolderView, row: int, where: Extent) -> AsyncIterator[bytes]:
    """The bytes of an extent in order, `FETCH_RANGES_AHEAD` reads in flight."""
    starts = iter(range(where.start, where.end, limits.FETCH_PART_BYTES))
    flying: deque[asyncio.Task[bytes]] = deque()

    def launch() -> None:
        if (start := next(starts, None)) is not None:
            length = min(limits.FETCH_PART_BYTES, where.end - start)
            flying.append(asyncio.create_task(_exactly(view, row, start, length)))

    try:
        for _ in range(limits.FETCH_RANGES_AHEAD):
            launch()
        while flying:
            data = await flying.popleft()
            launch()
            yield data
    finally:
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)


async def _exactly(view: FolderView, row: int, start: int, length: int) -> bytes:
    try:
        data = await view.read(row, start, length)
    except MailError as error:
        log.error("imap-literal-broken", reason=error.reason.name, detail=error.detail)
        raise LiteralBrokenError from error
    if len(data) != length:
        log.error("imap-literal-broken", reason="short-read")
        raise LiteralBrokenError
    return data
