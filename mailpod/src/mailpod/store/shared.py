"""What all accounts of a pod share: caches, uploads of big bodies, ids."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import zstandard

from mailpod.limits import store as limits
from mailpod.store.bodies import BodyMemory
from mailpod.store.entry import EMPTY_FRAME
from mailpod.store.keys import LogKeys
from mailpod.store.options import Environment
from mailpod.store.prepared import Prepared, Summarize, cut
from mailpod.store.summaries import SummaryMemory

if TYPE_CHECKING:
    from mailpod.store.account import Account

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID_MAX: Final = (1 << 128) - 1


def ulid_text(number: int) -> str:
    """A 128-bit number in the 26 characters of a ULID; text order is number order."""
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def ulid_number(text: str) -> int:
    """The reverse; 0 for "". Raises ValueError for anything else."""
    number = 0
    for character in text:
        number = number << 5 | _CROCKFORD.index(character)
    return number


def ulid_at(seconds: float) -> str:
    """The first ULID of a moment."""
    return ulid_text(min(max(int(seconds * 1000), 0), (1 << 48) - 1) << 80)


class Ids:
    """Makes ULIDs: ascending within a pod and above any watermark, whatever the clock says."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._last = 0

    def above(self, watermark: str) -> str:
        """A new id, greater than `watermark`."""
        millis = min(max(int(self._env.clock.now() * 1000), 0), (1 << 48) - 1)
        number = millis << 80 | int.from_bytes(self._env.entropy.bytes(10), "big")
        floor = max(self._last, ulid_number(watermark))
        if number <= floor:
            number = min(floor + 1 + int.from_bytes(self._env.entropy.bytes(6), "big"), _ULID_MAX)
        self._last = number
        return ulid_text(number)


class Shared:
    """One per pod's store."""

    def __init__(self, env: Environment, summarize: Summarize) -> None:
        self.env = env
        self.summarize = summarize
        self.bodies = BodyMemory(env.options.memory_cache_bytes)
        self.summaries = SummaryMemory()
        self.ids = Ids(env)

    async def spread(self, account: Account, prepared: Sequence[Prepared]) -> list[tuple[Prepared, str]]:
        """Decide which bodies get an object of their own, and upload these: the big ones, and so many that the rest fits an entry."""
        total = sum(len(one.body_frame.data) + len(one.summary_frame.data) + 96 for one in prepared)
        own = {number for number, one in enumerate(prepared) if one.pieces}
        by_size = sorted(range(len(prepared)), key=lambda number: -len(prepared[number].body_frame.data))
        for number in by_size:
            if total <= limits.ENTRY_BYTES_MAX - 65_536:
                break
            if number not in own:
                own.add(number)
                total -= len(prepared[number].body_frame.data)
        if not own:
            return [(one, "") for one in prepared]
        gate = asyncio.Semaphore(limits.READ_RANGES_IN_FLIGHT)

        async def one_of(number: int, one: Prepared) -> tuple[Prepared, str]:
            if number not in own:
                return one, ""
            if not one.pieces:
                one = one._replace(pieces=cut(one.raw, zstandard.ZstdCompressor(level=1)), body_frame=EMPTY_FRAME)
            async with gate:
                return one, await self.upload(account.log.keys, account.incarnation, account.log.state.big_watermark, one.pieces)

        return list(await asyncio.gather(*(one_of(number, one) for number, one in enumerate(prepared))))

    async def upload(self, keys: LogKeys, incarnation: int, watermark: str, pieces: Sequence[bytes]) -> str:
        """PUT a big body under a new id, before the commit that refers to it."""
        big = self.ids.above(watermark)
        await self.env.objects.put(keys.big(incarnation, big), pieces)
        return big
