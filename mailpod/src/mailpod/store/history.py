"""Replays a log a second time, apart from the live state: for reclaiming, for the past, for verifying."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic

from mailpod.errors import Corrupt, StoreUnavailable
from mailpod.limits import store as limits
from mailpod.store import entry as entries
from mailpod.store.log import Entry, Log, replay, start_at
from mailpod.store.machine import S


class Replay(Generic[S]):
    """A line of states of its own, entry by entry, with exact landing times."""

    def __init__(self, log: Log[S], state: S, time: float) -> None:
        self._log = log
        self.state = state
        self.time = time  # of entry state.seq, monotone

    async def entries(self, until: int | None = None) -> AsyncIterator[Entry]:
        """Read the entries that follow, up to `until` or to the head; give each to `step` to move on."""
        log = self._log
        width = limits.CATCH_UP_WIDTH_MAX if until is not None else 1
        following = self.state.seq + 1
        while until is None or following <= until:
            last = following + width - 1 if until is None else min(following + width - 1, until)
            wanted = range(following, last + 1)
            found = list(await asyncio.gather(*(log.read_entry(seq) for seq in wanted)))
            for entry in found:
                if entry is None:
                    if until is not None:
                        raise StoreUnavailable(f"entry {following} does not answer")
                    return
                if entry.header.flags & entries.STRIPPED:
                    entry = await self._erase(entry)
                    yield entry
                    following = entry.header.seq + 1
                    break
                yield entry
                following += 1
            width = min(width * 2, limits.CATCH_UP_WIDTH_MAX)

    async def _erase(self, entry: Entry) -> Entry:
        """What was stripped is told by the erase."""
        found: Entry | None = entry
        while found is not None and found.header.flags & entries.STRIPPED:
            found = await self._log.read_entry(found.header.erased_by)
        if found is None:
            raise Corrupt(f"the erase that stripped entry {entry.header.seq} is absent")
        return found

    def step(self, entry: Entry) -> S:
        """The state after the entry. Raises `Corrupt`."""
        if entry.header.seq == self.state.seq + 1 and entry.header.previous == self.state.commit:
            self.state = replay(self._log.machine, self.state, entry)
        elif entry.header.seq > self.state.seq + 1 or self.state.seq == 0:
            self.state = start_at(self._log.machine, entry)
        else:
            raise Corrupt(f"entry {entry.header.seq}: does not follow entry {self.state.seq}")
        self.time = max(self.time, entry.landing)
        return self.state
