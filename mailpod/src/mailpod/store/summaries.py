"""Summaries of messages: from memory, from segments, from the head of the entry that brought them, else computed anew from the body."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from mailpod.errors import Corrupt, StoreUnavailable
from mailpod.limits import store as limits
from mailpod.message.summary import Summary
from mailpod.store import entry as entries
from mailpod.store.bodies import Place
from mailpod.store.log import Entry
from mailpod.store.lru import ByteLru
from mailpod.store.prepared import Summarize
from mailpod.store.segments import Segments
from mailpod.telemetry import CACHE

ReadBody = Callable[[Place], Awaitable[bytes]]
_HIT = CACHE.labels("summary", "hit")
_MISS = CACHE.labels("summary", "miss")
_DECODER = msgspec.msgpack.Decoder(Summary)
_ENCODER = msgspec.msgpack.Encoder()


def decode(data: bytes) -> Summary | None:
    """A stored summary; None when this version cannot read it (it is computed anew then)."""
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, ValueError):
        return None


class SummaryMemory:
    """Summaries in memory, encoded, of all accounts of a pod."""

    def __init__(self) -> None:
        self._items: ByteLru[tuple[str, int], bytes] = ByteLru(limits.SUMMARY_CACHE_BYTES, len)

    def get(self, account: str, email: int) -> bytes | None:
        """The msgpack of a summary."""
        return self._items.get((account, email))

    def put(self, account: str, email: int, data: bytes) -> None:
        """Keep one."""
        self._items.put((account, email), data)


class Summaries:
    """The summaries of one account's incarnation."""

    def __init__(
        self,
        memory: SummaryMemory,
        account: str,
        read_entry: Callable[[int], Awaitable[Entry | None]],
        summarize: Summarize,
        segments: Segments,
    ) -> None:
        self._memory = memory
        self._account = account
        self._read_entry = read_entry
        self._summarize = summarize
        self._segments = segments

    def keep(self, email: int, data: bytes) -> None:
        """An own append."""
        self._memory.put(self._account, email, data)

    async def read(self, places: Sequence[Place], read_body: ReadBody) -> list[Summary]:
        """The summaries of `places`, in their order."""
        found: dict[int, Summary] = {}
        missing: list[Place] = []
        for place in places:
            if place.email in found:
                continue
            data = self._memory.get(self._account, place.email)
            summary = decode(data) if data is not None else None
            if summary is None:
                missing.append(place)
            else:
                found[place.email] = summary
        _HIT.inc(len(places) - len(missing))
        if missing:
            _MISS.inc(len(missing))
            for email, data in (await self._segments.read(place.email for place in missing)).items():
                summary = decode(data)
                if summary is not None:
                    found[email] = summary
                    self._memory.put(self._account, email, data)
            await self._from_entries([place for place in missing if place.email not in found], found, read_body)
        return [found[place.email] for place in places]

    async def grow(self, places: Sequence[Place], read_body: ReadBody) -> None:
        """Write the summaries of `places`, which no segment has, into segments; `places` ascend by EMAILID."""
        rows: list[tuple[int, bytes]] = []
        for start in range(0, len(places), limits.SEGMENT_ROWS_MAX):
            some = places[start : start + limits.SEGMENT_ROWS_MAX]
            summaries = await self.read(some, read_body)
            rows += [(place.email, _ENCODER.encode(summary)) for place, summary in zip(some, summaries, strict=True)]
        await self._segments.add(rows)

    def _found(self, found: dict[int, Summary], email: int, summary: Summary) -> None:
        found[email] = summary
        self._memory.put(self._account, email, _ENCODER.encode(summary))

    async def _from_entries(self, missing: list[Place], found: dict[int, Summary], read_body: ReadBody) -> None:
        by_entry: dict[int, list[Place]] = {}
        for place in missing:
            by_entry.setdefault(place.seq, []).append(place)
        steps = list(by_entry.items())
        for start in range(0, len(steps), limits.READ_SMALL_RANGES_IN_FLIGHT):
            some = steps[start : start + limits.READ_SMALL_RANGES_IN_FLIGHT]
            if len(some) == 1:
                results = [await self._of_entry(*some[0], read_body)]
            else:
                results = await asyncio.gather(*(self._of_entry(seq, places, read_body) for seq, places in some))
            for result in results:
                for email, summary in result:
                    self._found(found, email, summary)

    async def _of_entry(self, seq: int, places: list[Place], read_body: ReadBody) -> list[tuple[int, Summary]]:
        """Summaries of messages of one entry: its frames, or the bodies when these are not to be had."""
        frames = await self._frames(seq)
        out = []
        for place in places:
            summary = decode(frames[place.number]) if place.number in frames else None
            if summary is None:
                # Derived from the body alone, so it can always be made again.
                summary = self._summarize(await read_body(place))
            out.append((place.email, summary))
        return out

    async def _frames(self, seq: int) -> dict[int, bytes]:
        try:
            entry = await self._read_entry(seq)
        except (Corrupt, StoreUnavailable):
            return {}
        if entry is None or not entry.header.frames:
            return {}
        lengths = entries.read_table(entry.header, entry.data)
        offset = entry.header.head_bytes
        view = memoryview(entry.data)
        out: dict[int, bytes] = {}
        for index, length in enumerate(lengths[: len(lengths) // 2]):
            if offset + length > len(view):
                break
            try:
                out[index] = entries.open_frame(view[offset : offset + length], seq, 2 * index, raw_max=limits.SUMMARY_BYTES_MAX)
            except Corrupt:
                break
            offset += length
        return out
