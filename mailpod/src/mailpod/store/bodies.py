"""Reads bodies: from memory, from the local cache, from the bucket in few large ranges. Every body is verified before it is handed out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple

import zstandard
from crc32c import crc32c

from mailpod.errors import Corrupt, ObjectNotFound, Refused
from mailpod.limits import store as limits
from mailpod.store.columns import BIG
from mailpod.store.entry import open_frame
from mailpod.store.keys import LogKeys
from mailpod.store.lru import ByteLru
from mailpod.store.operations import BigBody
from mailpod.store.options import Environment
from mailpod.store.reasons import EXPUNGED
from mailpod.telemetry import CACHE

_HIT = CACHE.labels("body", "hit")
_DISK = CACHE.labels("body", "disk")
_MISS = CACHE.labels("body", "miss")


class Place(NamedTuple):
    """Where a body is."""

    email: int
    seq: int
    off: int
    length: int
    number: int  # of the message in the entry
    size: int
    big: BigBody | None


class BodyGoneError(Exception):
    """A range came back short, wrong or 404: the reader looks at the entry and its view again."""


class BodyMemory:
    """Bodies in memory, of all logs of a pod."""

    def __init__(self, bytes_max: int) -> None:
        self._items: ByteLru[tuple[str, int, int], bytes] = ByteLru(bytes_max, len)

    def get(self, log: str, incarnation: int, email: int) -> bytes | None:
        """The body of EMAILID `email`."""
        return self._items.get((f"{log}/{incarnation}", 0, email))

    def put(self, log: str, incarnation: int, email: int, raw: bytes) -> None:
        """Keep a verified body."""
        if len(raw) <= limits.BODY_CACHE_ITEM_BYTES_MAX:
            self._items.put((f"{log}/{incarnation}", 0, email), raw)


class Bodies:
    """The bodies of one account's incarnation."""

    def __init__(self, env: Environment, memory: BodyMemory, name: str, keys: LogKeys, incarnation: int) -> None:
        self._env = env
        self._memory = memory
        self._name = name
        self._keys = keys
        self._incarnation = incarnation

    def keep(self, email: int, raw: bytes) -> None:
        """An own append: its body needs no reading back."""
        self._memory.put(self._name, self._incarnation, email, raw)

    async def cached(self, place: Place) -> bytes | None:
        """From memory or the local cache, verified."""
        raw = self._memory.get(self._name, self._incarnation, place.email)
        if raw is not None:
            _HIT.inc()
            return raw
        disk = self._env.options.cache
        if disk is not None and place.size <= limits.BODY_CACHE_ITEM_BYTES_MAX:
            value = await disk.get(self._cache_key(place.email))
            if value is not None and len(value) == place.size + 4:
                raw = value[4:]
                if value[:4] == crc32c(raw).to_bytes(4, "little"):
                    _DISK.inc()
                    self._memory.put(self._name, self._incarnation, place.email, raw)
                    return raw
        _MISS.inc()
        return None

    def _cache_key(self, email: int) -> str:
        return f"{self._name}/{self._incarnation:x}/{email:x}"

    def _cache(self, place: Place, raw: bytes) -> None:
        self._memory.put(self._name, self._incarnation, place.email, raw)
        disk = self._env.options.cache
        if disk is not None and len(raw) <= limits.BODY_CACHE_ITEM_BYTES_MAX:
            disk.put(self._cache_key(place.email), crc32c(raw).to_bytes(4, "little") + raw)

    async def read(self, place: Place, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of one body. Raises `BodyGoneError`, `StoreUnavailable`."""
        if place.big is not None:
            return await self._read_big(place.big, start, place.size if length is None else length)
        raw = await self.cached(place)
        if raw is None:
            raw = await self._fetch(place)
        if start == 0 and (length is None or length >= len(raw)):
            return raw
        return raw[start:] if length is None else raw[start : start + length]

    async def _fetch(self, place: Place) -> bytes:
        try:
            stored = await self._env.objects.get(self._keys.entry(place.seq), place.off, place.length)
        except ObjectNotFound:
            raise BodyGoneError(f"entry {place.seq}: 404") from None
        raw = await self._open(stored.data, place)
        self._cache(place, raw)
        return raw

    async def _open(self, stored: bytes | memoryview, place: Place) -> bytes:
        try:
            if place.size >= limits.PREPARE_OFFLOAD_BYTES_MIN:
                raw = await self._env.offload(_open_elsewhere, stored, place.seq, 2 * place.number + 1)
            else:
                raw = open_frame(stored, place.seq, 2 * place.number + 1)
        except Corrupt as error:
            raise BodyGoneError(error.detail) from None
        if len(raw) != place.size:
            raise BodyGoneError(f"entry {place.seq} message {place.number}: length")
        return raw

    async def _read_big(self, big: BigBody, start: int, length: int) -> bytes:
        """The pieces that hold the range."""
        end = min(start + length, big.size)
        if start >= end:
            return b""
        first, last = start // limits.BIG_PIECE_BYTES, (end - 1) // limits.BIG_PIECE_BYTES
        pieces = []
        offset = sum(big.pieces[:first])
        number = first
        while number <= last:
            count, stored_bytes = 1, big.pieces[number]
            while number + count <= last and stored_bytes < limits.BIG_BODY_BYTES_MIN:
                stored_bytes += big.pieces[number + count]
                count += 1
            try:
                stored = await self._env.objects.get(self._keys.big(self._incarnation, big.id), offset, stored_bytes)
            except ObjectNotFound:
                raise BodyGoneError(f"big {big.id}: 404") from None
            try:
                pieces.append(await self._env.offload(_open_pieces, stored.data, big.pieces[number : number + count], number))
            except Corrupt as error:
                raise BodyGoneError(f"big {big.id}: {error.detail}") from None
            number += count
            offset += stored_bytes
        raw = b"".join(pieces)
        skip = start - first * limits.BIG_PIECE_BYTES
        raw = raw[skip : skip + end - start]
        if len(raw) != end - start:
            raise BodyGoneError(f"big {big.id}: length")
        return raw

    async def read_many(
        self, places: Sequence[Place], again: Callable[[Place, Exception], Awaitable[bytes]]
    ) -> AsyncIterator[tuple[int, bytes]]:
        """All bodies as (number in `places`, bytes), in order; `again` decides about one that was not where it should be.

        Neighbours in an entry are joined into one range; several ranges are in flight, bounded in number and bytes. One for which
        `again` raises `Refused` (expunged) is left out.
        """
        plan = _plan(places)
        running: list[tuple[_Range, asyncio.Task[list[bytes | BodyGoneError]]]] = []
        in_flight = 0
        following = 0
        try:
            while running or following < len(plan):
                while following < len(plan) and _may_start(running, in_flight, plan[following]):
                    step = plan[following]
                    running.append((step, asyncio.get_running_loop().create_task(self._read_range(step))))
                    in_flight += step.bytes
                    following += 1
                step, task = running.pop(0)
                results = await task
                in_flight -= step.bytes
                for place, number, result in zip(step.places, step.numbers, results, strict=True):
                    try:
                        yield number, await again(place, result) if isinstance(result, BodyGoneError) else result
                    except Refused as error:
                        if error.reason is not EXPUNGED:
                            raise
        finally:
            for _, task in running:
                task.cancel()
            if running:
                await asyncio.gather(*(task for _, task in running), return_exceptions=True)

    async def _read_range(self, step: _Range) -> list[bytes | BodyGoneError]:
        """The bodies of one planned range; a body that is cached is not read."""
        out: list[bytes | BodyGoneError | None] = []
        for place in step.places:
            if place.big is not None:
                try:
                    out.append(await self.read(place))
                except BodyGoneError as gone:
                    out.append(gone)
            else:
                out.append(await self.cached(place))
        missing = [number for number, found in enumerate(out) if found is None]
        if missing:
            wanted = [step.places[number] for number in missing]
            for number, result in zip(missing, await self._fetch_joined(wanted), strict=True):
                out[number] = result
        return [found for found in out if found is not None]

    async def _fetch_joined(self, places: list[Place]) -> list[bytes | BodyGoneError]:
        start = min(place.off for place in places)
        end = max(place.off + place.length for place in places)
        try:
            stored = await self._env.objects.get(self._keys.entry(places[0].seq), start, end - start)
        except ObjectNotFound:
            return [BodyGoneError("404") for _ in places]
        data = memoryview(stored.data)
        out: list[bytes | BodyGoneError] = []
        for place in places:
            try:
                raw = await self._open(data[place.off - start : place.off - start + place.length], place)
            except BodyGoneError as gone:
                out.append(gone)
            else:
                self._cache(place, raw)
                out.append(raw)
        return out


class _Range(NamedTuple):
    """Bodies that are read together."""

    places: list[Place]
    numbers: list[int]
    bytes: int


def _plan(places: Sequence[Place]) -> list[_Range]:
    """Neighbours in one entry become one range of about READ_JOIN_BYTES; order is kept."""
    plan: list[_Range] = []
    for number, place in enumerate(places):
        if plan and place.big is None:
            last = plan[-1]
            before = last.places[-1]
            gap = place.off - before.off - before.length
            if (
                before.big is None
                and before.seq == place.seq
                and 0 <= gap <= limits.READ_JOIN_GAP_BYTES
                and last.bytes + gap + place.length <= limits.READ_JOIN_BYTES
            ):
                last.places.append(place)
                last.numbers.append(number)
                plan[-1] = last._replace(bytes=last.bytes + gap + place.length)
                continue
        plan.append(_Range([place], [number], place.length if place.big is None else place.size))
    return plan


def _may_start(running: list[tuple[_Range, asyncio.Task[list[bytes | BodyGoneError]]]], in_flight: int, step: _Range) -> bool:
    if not running:
        return True
    small = step.bytes <= limits.READ_SMALL_RANGE_BYTES
    most = limits.READ_SMALL_RANGES_IN_FLIGHT if small else limits.READ_RANGES_IN_FLIGHT
    return len(running) < most and in_flight + step.bytes <= limits.READ_AHEAD_BYTES_MAX


def _open_elsewhere(stored: bytes | memoryview, seq: int, index: int) -> bytes:
    return open_frame(stored, seq, index, zstandard.ZstdDecompressor())


def _open_pieces(stored: bytes, lengths: Sequence[int], first: int) -> bytes:
    """Several pieces of a big body. Raises `Corrupt`."""
    decompressor = zstandard.ZstdDecompressor()
    view = memoryview(stored)
    out = []
    offset = 0
    for number, length in enumerate(lengths):
        out.append(open_frame(view[offset : offset + length], 0, first + number, decompressor, limits.BIG_PIECE_BYTES))
        offset += length
    return b"".join(out)


def place_of(fixed: object, bigs: dict[int, BigBody]) -> Place:
    """The place that a row of `columns.FIXED` tells. Raises `Corrupt` when a body of its own is not known."""
    email, _date, _saved, size, seq, off, length, index = fixed.item()  # type: ignore[attr-defined]  # a numpy void
    big = None
    if off == BIG:
        big = bigs.get(email)
        if big is None:
            raise Corrupt(f"EMAILID {email}: its object is not known")
    return Place(email, seq, off, length, index, size, big)
