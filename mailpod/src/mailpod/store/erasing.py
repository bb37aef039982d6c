"""Erasing an account: one commit closes it and stands for itself; a purge then takes everything else away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import structlog

from mailpod.errors import Refused
from mailpod.limits import store as limits
from mailpod.ports import Listed
from mailpod.store import entry as entries
from mailpod.store import operations as ops
from mailpod.store.log import Log
from mailpod.store.requests import Batch, Request
from mailpod.store.state import AccountState

if TYPE_CHECKING:
    from mailpod.store.mailstore import AccountLog

_logger = structlog.get_logger(__name__)


def closed_state(state: AccountState) -> ops.Erased:
    """All that outlives the account: what must never repeat, and what must never be applied again."""
    return ops.Erased(
        state.incarnation,
        state.next_folder,
        state.next_email,
        state.next_uidvalidity,
        state.big_watermark,
        tuple(ops.WatermarkState(log, record.watermark, tuple(sorted(record.applied))) for log, record in sorted(state.transit.items())),
    )


class Erase(Request):
    """Close the account; alone in its entry, for it stands for itself."""

    exclusive = True

    def evaluate(self, batch: Batch) -> int:
        """The erase's seq."""
        self.check_incarnation(batch.state)
        batch.builder.do(closed_state(batch.state))
        return batch.builder.seq


class Purged(NamedTuple):
    """What a purge took away."""

    entries: int
    objects: int


async def erase(parts: AccountLog) -> int:
    """Close the account that is there; the erase's seq. Raises `Refused` (account-closed) when there is none."""
    await parts.log.refresh()
    seq = await parts.committer.submit(Erase(parts.log.state.incarnation))
    assert isinstance(seq, int)
    return seq


class Purge:
    """Takes away what an erase closed. Idempotent; repeated while LIST shows anything, for somebody may still be writing."""

    def __init__(self, parts: AccountLog) -> None:
        self._parts = parts
        self._log: Log[AccountState] = parts.log
        self._env = parts.log.env

    async def run(self) -> Purged:
        """Strip all entries before the newest erase, delete what belonged to erased incarnations alone, and older snapshots."""
        stripped = deleted = 0
        for _ in range(limits.PURGE_ROUNDS_MAX):
            await self._log.refresh()
            erased = await self.newest_erase()
            if erased is None:
                return Purged(stripped, deleted)
            here = await self._strip(erased)
            gone = await self._delete(erased)
            stripped += here
            deleted += gone
            if not here and not gone:
                return Purged(stripped, deleted)
        _logger.warning("store.purge.unfinished", log=self._log.name)
        return Purged(stripped, deleted)

    async def newest_erase(self) -> int | None:
        """The seq of the newest erase, found backwards from the head; None when the account was never erased."""
        state = self._log.state
        if state.closed and state.seq:
            return state.seq  # nothing but a re-creation follows an erase
        if state.incarnation <= 1:
            return None
        # An incarnation after the first begins right behind the erase of the one before.
        return state.incarnation - 1

    async def _strip(self, erased: int) -> int:
        """Overwrite the entries below the erase with their headers."""
        gate = asyncio.Semaphore(limits.FORGET_IN_FLIGHT)
        count = 0
        after = ""

        async def one(seq: int) -> None:
            async with gate:
                await self.strip_entry(seq, erased)

        while True:
            rows = await self._env.objects.list(self._log.keys.entries(), start_after=after, limit=1000)
            below = [row for row in rows if self._log.keys.entry_seq(row.key) < erased]
            full = [row for row in below if row.size > entries.HEADER_BYTES]
            await asyncio.gather(*(one(self._log.keys.entry_seq(row.key)) for row in full))
            count += len(full)
            if len(below) < len(rows) or len(rows) < 1000:
                return count
            after = rows[-1].key

    async def strip_entry(self, seq: int, erased: int) -> None:
        """Leave the header alone, with the landing time and the way to the erase."""
        entry = await self._log.read_entry(seq)
        if entry is not None and not entry.header.flags & entries.STRIPPED:
            await self._env.objects.put(self._log.keys.entry(seq), entries.stripped(entry.header, entry.landing, erased))

    async def _delete(self, erased: int) -> int:
        """Snapshots below the erase, and the prefixes of incarnations that it ended."""
        rows: list[Listed] = await self._env.objects.list(self._log.keys.snapshots())
        doomed = [row.key for row in rows if self._log.keys.snapshot_seq(row.key) < erased]
        doomed += [row.key for row in await self._foreign(erased)]
        for start in range(0, len(doomed), 1000):
            await self._env.objects.delete(doomed[start : start + 1000])
        return len(doomed)

    async def _foreign(self, erased: int) -> list[Listed]:
        """Objects of incarnations before the erase: their prefixes sort before `log/`."""
        found: list[Listed] = []
        after = ""
        while True:
            rows = await self._env.objects.list(self._log.keys.root, start_after=after, limit=1000)
            for row in rows:
                name = row.key[len(self._log.keys.root) :].partition("/")[0]
                if len(name) != 16:
                    return found
                try:
                    number = int(name, 16)
                except ValueError:
                    return found
                if number < erased:
                    found.append(row)
            if len(rows) < 1000:
                return found
            after = rows[-1].key


async def erase_and_purge(parts: AccountLog) -> Purged:
    """Both; an account that is closed already is only purged."""
    try:
        await erase(parts)
    except Refused:
        await parts.log.refresh()
        if not parts.log.state.closed:
            raise
    return await Purge(parts).run()
