"""A bucket in memory: create-only PUT, read-after-write, consistent LIST. `last_modified` comes from the given clock."""

from __future__ import annotations

import bisect
import builtins
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from mailpod.errors import ObjectNotFound
from mailpod.ports import Clock, Listed, PutOutcome, Stored


class Held(NamedTuple):
    data: bytes
    last_modified: float


class MemoryObjects:
    """`ports.ObjectStore`. `requests` counts by kind; `objects` may be looked into and tampered with by tests."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.objects: dict[str, Held] = {}
        self.requests: Counter[str] = Counter()
        self._keys: builtins.list[str] = []

    def _store(self, key: str, data: bytes | Sequence[bytes]) -> None:
        if key not in self.objects:
            bisect.insort(self._keys, key)
        self.objects[key] = Held(data if isinstance(data, bytes) else b"".join(data), self.clock.now())

    async def create(self, key: str, data: bytes | Sequence[bytes]) -> PutOutcome:
        self.requests["create"] += 1
        if key in self.objects:
            return PutOutcome.EXISTS
        self._store(key, data)
        return PutOutcome.CREATED

    async def put(self, key: str, data: bytes | Sequence[bytes]) -> None:
        self.requests["put"] += 1
        self._store(key, data)

    async def get(self, key: str, start: int = 0, length: int | None = None) -> Stored:
        self.requests["get"] += 1
        held = self.objects.get(key)
        if held is None:
            raise ObjectNotFound(key)
        end = len(held.data) if length is None else start + length
        return Stored(held.data[start:end], len(held.data), held.last_modified)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> list[Listed]:
        self.requests["list"] += 1
        first = max(bisect.bisect_left(self._keys, prefix), bisect.bisect_right(self._keys, start_after))
        rows: list[Listed] = []
        for key in self._keys[first:]:
            if not key.startswith(prefix) or (limit is not None and len(rows) >= limit):
                break
            held = self.objects[key]
            rows.append(Listed(key, len(held.data), held.last_modified))
        return rows

    async def delete(self, keys: Sequence[str]) -> None:
        self.requests["delete"] += 1
        for key in keys:
            if self.objects.pop(key, None) is not None:
                self._keys.remove(key)

    def keys(self, part: str = "") -> builtins.list[str]:
        return [key for key in self._keys if part in key]
