"""Checks everything that an account has in the bucket, and says what is wrong and where. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mailpod.errors import Corrupt, MailError, ObjectNotFound
from mailpod.store import account_snapshot
from mailpod.store import entry as entries
from mailpod.store.bodies import Bodies, BodyMemory, Place, place_of
from mailpod.store.history import Replay
from mailpod.store.log import Entry, Log
from mailpod.store.state import AccountState

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailpod.store.mailstore import AccountLog


class Finding(NamedTuple):
    """One thing that is wrong."""

    where: str  # object key
    what: str
    loses_mail: bool  # False for derived objects, which can be made again


class Report(NamedTuple):
    """What a verification found."""

    head: int
    entries: int
    bodies: int
    snapshots: int
    findings: list[Finding]


async def verify(parts: AccountLog, progress: Callable[[int], None] | None = None) -> Report:
    """Replay all entries from the first, check every frame, every snapshot and every body that the newest state refers to.

    `progress` is told the number of each entry. Raises `StoreUnavailable`.
    """
    check = _Check(parts)
    await check.entries(progress)
    await check.snapshots()
    await check.bodies()
    return Report(check.line.state.seq, check.count, check.bodies_count, check.snapshots_count, check.findings)


class _Check:
    def __init__(self, parts: AccountLog) -> None:
        self._parts = parts
        self._log: Log[AccountState] = parts.log
        self.line: Replay[AccountState] = Replay(parts.log, AccountState(), 0.0)
        self.findings: list[Finding] = []
        self.count = 0
        self.bodies_count = 0
        self.snapshots_count = 0
        self._wrong = False
        self._snapshots: dict[int, str] = {}

    def _found(self, where: str, error: Exception | str, *, loses_mail: bool = True) -> None:
        detail = error.detail if isinstance(error, MailError) else str(error)
        self.findings.append(Finding(where, detail, loses_mail))

    async def entries(self, progress: Callable[[int], None] | None) -> None:
        """Chain, checksums, replay; snapshots are compared on the way."""
        keys = self._log.keys
        for row in await self._log.env.objects.list(keys.snapshots()):
            try:
                self._snapshots[keys.snapshot_seq(row.key)] = row.key
            except ValueError:
                self._found(row.key, "not a snapshot's key", loses_mail=False)
        try:
            async for entry in self.line.entries():
                self.count += 1
                if progress is not None:
                    progress(entry.header.seq)
                self.line.step(entry)
                await self._frames(entry)
                if entry.header.seq in self._snapshots:
                    await self._compare(entry.header.seq)
        except MailError as error:
            self._wrong = True
            self._found(keys.entry(self.line.state.seq + 1), error)
        await self._beyond()

    async def _beyond(self) -> None:
        """Nothing may lie beyond the head: a number that is skipped is a gap."""
        keys = self._log.keys
        head = self.line.state.seq
        rows = await self._log.env.objects.list(keys.entries(), start_after=keys.entry(head + 1), limit=1)
        if rows and not self._wrong:
            self._found(keys.entry(head + 1), f"absent, though {rows[0].key} is there")

    async def _frames(self, entry: Entry) -> None:
        header = entry.header
        if not header.frames or header.flags & (entries.EMPTIED | entries.STRIPPED):
            return
        key = self._log.keys.entry(header.seq)
        stored = await self._log.env.objects.get(key)
        lengths = entries.read_table(header, stored.data)
        view = memoryview(stored.data)
        offset = header.head_bytes
        half = len(lengths) // 2
        for number, length in enumerate(lengths):
            index = 2 * number if number < half else 2 * (number - half) + 1
            try:
                entries.open_frame(view[offset : offset + length], header.seq, index)
            except Corrupt as error:
                self._found(key, error, loses_mail=number >= half)
            offset += length
        if offset != len(view):
            self._found(key, f"{len(view)} bytes instead of {offset}")

    async def _compare(self, seq: int) -> None:
        self.snapshots_count += 1
        key = self._snapshots[seq]
        try:
            loaded = await self._parts.snapshots.read(seq)
        except (Corrupt, ObjectNotFound) as error:
            self._found(key, error, loses_mail=False)
            return
        if not account_snapshot.same(loaded.state, self.line.state):
            self._found(key, "differs from the replay", loses_mail=False)

    async def snapshots(self) -> None:
        """A snapshot beyond the head would fake a gap."""
        for seq, key in self._snapshots.items():
            if seq > self.line.state.seq and not self._wrong:
                self._found(key, f"of entry {seq}, beyond the head", loses_mail=False)

    async def bodies(self) -> None:
        """All bodies that the newest state refers to."""
        if self._wrong:
            return
        state = self.line.state
        reader = Bodies(self._log.env, BodyMemory(0), self._log.name, self._log.keys, state.incarnation)
        for folder in state.folders.values():
            for chunk in folder.chunks:
                places: list[Place] = []
                for row in chunk.fixed[: chunk.count]:
                    try:
                        places.append(place_of(row, state.bigs))
                    except Corrupt as error:
                        self._found(self._log.name, error)

                async def gone(place: Place, error: Exception) -> bytes:
                    key = self._log.keys.entry(place.seq)
                    if place.big is not None:
                        key = self._log.keys.big(state.incarnation, place.big.id)
                    self._found(key, f"EMAILID {place.email}: {error}")
                    return b""

                async for _ in reader.read_many(places, gone):
                    self.bodies_count += 1
