"""Snapshots of a log: derived, so a bad one is passed over; opening a log from them; which ones are kept.

Form: header (magic, version, seq, commit id of entry seq, landing time, length, CRC32C), then what the state machine dumps.
A snapshot counts only with its own entry: `log/<seq>` must be there with the commit id that it carries, for a snapshot beyond the
head would fake a gap.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Final, Generic, NamedTuple

import structlog
from crc32c import crc32c

from mailpod.errors import Corrupt, MailError, ObjectNotFound, Refused, StoreUnavailable
from mailpod.limits import store as limits
from mailpod.ports import Listed
from mailpod.store import entry as entries
from mailpod.store.log import Entry, Log
from mailpod.store.machine import S

_log = structlog.get_logger(__name__)

MAGIC: Final = b"PRMS"
VERSION: Final = 1
_HEADER: Final = struct.Struct("<4sHHQ16sdIQI")
HEADER_BYTES: Final = _HEADER.size + 4


class Loaded(NamedTuple, Generic[S]):
    """A snapshot as read, verified."""

    state: S
    time: float
    written: float  # Last-Modified of the object
    extra: bytes  # what the log's owner keeps beside the state


class Header(NamedTuple):
    """A snapshot's header."""

    commit: bytes
    time: float
    extra: int  # bytes, before the state
    length: int  # bytes, of both
    crc: int


def encode(seq: int, commit: bytes, time: float, parts: list[bytes], extra: bytes = b"") -> list[bytes]:
    """A snapshot object, in parts."""
    parts = [extra, *parts]
    crc = 0
    for part in parts:
        crc = crc32c(part, crc)
    header = _HEADER.pack(MAGIC, VERSION, 0, seq, commit, time, len(extra), sum(len(part) for part in parts), crc)
    return [header, crc32c(header).to_bytes(4, "little"), *parts]


def decode_header(data: bytes, seq: int) -> Header:
    """Raises `Corrupt`."""
    if len(data) < HEADER_BYTES:
        raise Corrupt(f"snapshot {seq}: short")
    magic, version, _, found, commit, time, extra, length, crc = _HEADER.unpack_from(data)
    if magic != MAGIC or crc32c(data[: _HEADER.size]) != int.from_bytes(data[_HEADER.size : HEADER_BYTES], "little"):
        raise Corrupt(f"snapshot {seq}: header checksum")
    if version != VERSION or found != seq:
        raise Corrupt(f"snapshot {seq}: version {version}, seq {found}")
    if extra > length:
        raise Corrupt(f"snapshot {seq}: lengths")
    return Header(commit, time, extra, length, crc)


class Snapshots(Generic[S]):
    """Reads and writes one log's snapshots."""

    def __init__(
        self,
        log: Log[S],
        make_extra: Callable[[], Awaitable[bytes]] | None = None,
        take_extra: Callable[[bytes], None] | None = None,
    ) -> None:
        self.log = log
        self._make_extra = make_extra
        self._take_extra = take_extra
        self.written = 0  # by this pod, since it opened the log
        self._writing: asyncio.Task[None] | None = None

    # Opening.

    async def open(self) -> None:
        """Bring the log to its newest state, from the newest usable snapshot."""
        log = self.log
        base = await self.newest()
        if base is not None:
            log.begin_at(base.state, base.time)
            if self._take_extra is not None:
                self._take_extra(base.extra)
        start = log.state.seq
        await log.catch_up()
        if log.state.seq - start >= limits.SNAPSHOT_ENTRIES_MAX:
            self.write_soon()  # whoever should have written one did not live to do it

    async def newest(self, below: int | None = None) -> Loaded[S] | None:
        """The newest usable snapshot, of a seq smaller than `below`; None when there is none (start from entry 1)."""
        log = self.log
        after = "" if below is None else log.keys.snapshot(below)
        for _ in range(limits.SNAPSHOTS_TRIED_MAX):
            rows = await log.env.objects.list(log.keys.snapshots(), start_after=after, limit=1)
            if not rows:
                return None
            after = rows[0].key
            loaded = await self.load_key(after)
            if loaded is not None:
                return loaded
        return None

    async def before(self, moment: float) -> Loaded[S] | None:
        """The newest usable snapshot of a state that was in force at or before `moment`."""
        log = self.log
        for row in await log.env.objects.list(log.keys.snapshots()):
            try:
                head = await log.env.objects.get(row.key, 0, HEADER_BYTES)
                time = decode_header(head.data, log.keys.snapshot_seq(row.key)).time
            except (Corrupt, ObjectNotFound, ValueError):
                continue
            if time <= moment and (loaded := await self.load_key(row.key)) is not None:
                return loaded
        return None

    async def load_key(self, key: str) -> Loaded[S] | None:
        """A snapshot with its own entry; None when it does not serve."""
        try:
            seq = self.log.keys.snapshot_seq(key)
            vouched, loaded = await asyncio.gather(self.log.read_entry(seq), self.read(seq))
        except (Corrupt, ObjectNotFound, ValueError) as error:
            _log.warning("store.snapshot.passed-over", log=self.log.name, key=key, detail=str(error))
            return None
        if not self.entry_vouches(vouched, loaded.state.commit):
            _log.warning("store.snapshot.passed-over", log=self.log.name, key=key, detail="its entry does not vouch for it")
            return None
        return loaded

    def entry_vouches(self, entry: Entry | None, commit: bytes) -> bool:
        """Whether the snapshot's own entry is there, is the one that it was made of, and was not stripped since."""
        return entry is not None and entry.header.commit == commit and not entry.header.flags & entries.STRIPPED

    async def read(self, seq: int) -> Loaded[S]:
        """A snapshot, verified in itself. Raises `Corrupt`, `ObjectNotFound`."""
        stored = await self.log.env.objects.get(self.log.keys.snapshot(seq))
        header = decode_header(stored.data, seq)
        body = memoryview(stored.data)[HEADER_BYTES:]
        if len(body) != header.length:
            raise Corrupt(f"snapshot {seq}: length")
        if len(body) < limits.PREPARE_OFFLOAD_BYTES_MIN:
            state = self._load(body, header, seq)
        else:
            state = await self.log.env.offload(self._load, body, header, seq)
        return Loaded(state, header.time, stored.last_modified, bytes(body[: header.extra]))

    def _load(self, body: memoryview, header: Header, seq: int) -> S:
        if crc32c(body) != header.crc:
            raise Corrupt(f"snapshot {seq}: checksum")
        return self.log.machine.load(body[header.extra :], seq, header.commit)

    # Writing.

    def after_commit(self, state: S) -> None:
        """An own commit: whoever commits the entry at which a snapshot is due writes it."""
        if state.tail_entries == 0:
            self.write_soon()

    def write_soon(self) -> None:
        """Write one in the background, unless one is being written."""
        if self._writing is None or self._writing.done():
            self._writing = self.log.env.spawn(self._write_quietly(), f"snapshot {self.log.name}")

    async def _write_quietly(self) -> None:
        try:
            await self.write()
        except (StoreUnavailable, Refused) as error:
            _log.info("store.snapshot.skipped", log=self.log.name, detail=error.detail)
        except MailError as error:
            _log.error("store.snapshot.failed", log=self.log.name, detail=error.detail)

    async def write(self) -> Loaded[S]:
        """Write a snapshot of the newest state, read it back and verify it; now and then remove those that may go.

        Raises `StoreUnavailable`.
        """
        log = self.log
        extra = await self._make_extra() if self._make_extra is not None else b""
        state, time = await log.settle_time()
        seq = state.seq
        parts = await log.env.offload(self._dump, state, time, extra)
        await log.env.objects.put(log.keys.snapshot(seq), parts)
        try:
            back = await self.read(seq)
        except (Corrupt, ObjectNotFound) as error:  # derived: overwritten, purged or damaged, it condemns nothing
            raise StoreUnavailable(f"snapshot {seq} cannot be read back: {error}") from None
        if back.state.commit != state.commit:
            raise StoreUnavailable(f"snapshot {seq}: read back differs")
        self.written += 1
        if self.written % limits.SNAPSHOT_CLEAN_EVERY == 0:
            await self.clean()
        return back

    def _dump(self, state: S, time: float, extra: bytes) -> list[bytes]:
        return encode(state.seq, state.commit, time, self.log.machine.dump(state), extra)

    # Which are kept.

    async def clean(self) -> None:
        """Delete snapshots but the two newest, one a day inside the retention window, and the newest before it."""
        log = self.log
        rows = await log.env.objects.list(log.keys.snapshots())
        doomed = self.superfluous(rows)
        if doomed:
            await log.env.objects.delete([row.key for row in doomed])

    def superfluous(self, rows: list[Listed]) -> list[Listed]:
        """Those of `rows` (newest first) that may go. Ages are measured from the newest row: by the store's clock, not ours."""
        if len(rows) <= limits.SNAPSHOTS_NEWEST_KEPT:
            return []
        newest = max(row.last_modified for row in rows)
        window = newest - self.log.env.options.retention_s
        doomed: list[Listed] = []
        days: set[int] = set()
        older_kept = False
        for number, row in enumerate(rows):
            day = int((newest - row.last_modified) // limits.SNAPSHOT_DAY_S)
            if number < limits.SNAPSHOTS_NEWEST_KEPT:
                days.add(day)
            elif row.last_modified < window:
                if older_kept:
                    doomed.append(row)
                older_kept = True
            elif day in days:
                doomed.append(row)
            else:
                days.add(day)
        return doomed
