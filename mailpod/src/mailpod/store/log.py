"""One log as a pod knows it: reading entries, catching up, freshness. Generic over its state machine. Committing is `committer`'s.

There is one line of states, from the newest one on; `publish` is the only place where the head moves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, NamedTuple, NoReturn
from weakref import WeakMethod

import structlog

from mailpod.errors import Corrupt, MailError, ObjectNotFound, StoreUnavailable
from mailpod.limits import store as limits
from mailpod.ports import Stored
from mailpod.store import entry as entries
from mailpod.store.entry import Header
from mailpod.store.machine import Machine, S
from mailpod.store.options import Environment
from mailpod.telemetry import QUARANTINED

_log = structlog.get_logger(__name__)


class Entry(NamedTuple):
    """An entry as read: its head is verified; `data` may go on into the frames."""

    header: Header
    operations: bytes  # msgpack; empty when stripped
    landing: float  # seconds since 1970-01-01 UTC, by the store's clock
    size: int  # bytes that the object has now
    data: bytes

    @property
    def bodies_at(self) -> int:
        """Where the bodies begin (began, when emptied)."""
        header = self.header
        if not header.frames:
            return header.head_bytes
        lengths = entries.read_table(header, self.data)
        return header.head_bytes + sum(lengths[: header.frames // 2])


def landing_time(header: Header, stored: Stored) -> float:
    """When the entry landed: Last-Modified, or what the one who overwrote it wrote down."""
    return header.landing if header.flags & (entries.EMPTIED | entries.STRIPPED) else stored.last_modified


class Log(Generic[S]):
    """The live state of one log."""

    def __init__(self, env: Environment, name: str, machine: Machine[S]) -> None:
        self.env = env
        self.name = name
        self.keys = env.keys.log(name)
        self.machine = machine
        self.state: S = machine.empty()
        self.time = 0.0  # landing time of entry `time_seq`, monotone over seq
        self.time_seq = 0
        self.changed_at = 0.0  # this pod's monotonic clock when the head last moved here
        self.quarantine: MailError | None = None
        self.base_seq = 0  # seq of the snapshot from which this line of states began
        self._landings: dict[int, float] = {}  # of entries after time_seq, where known
        self._sizes: dict[int, int] = {}  # of own entries after time_seq whose landing is not known
        self._fresh_at = float("-inf")  # monotonic time before which the proof of the newest state was asked for
        self._probing: asyncio.Task[None] | None = None
        self._next_probe: asyncio.Task[None] | None = None
        self._listeners: list[WeakMethod[Callable[[S], None]]] = []

    def listen(self, listener: Callable[[S], None]) -> None:
        """Call a bound method with each new state, for as long as its object lives: listening keeps nothing alive."""
        self._listeners.append(WeakMethod(listener))

    # Reading entries.

    async def read_entry(self, seq: int) -> Entry | None:
        """Entry `seq`, None when the store says 404. What does not verify is read once more before `Corrupt` is raised."""
        for attempt in (1, 2):
            try:
                stored = await self.env.objects.get(self.keys.entry(seq), 0, limits.ENTRY_HEAD_READ_BYTES)
                return await self.decode_entry(seq, stored)
            except ObjectNotFound:
                return None
            except Corrupt:
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    async def decode_entry(self, seq: int, stored: Stored) -> Entry:
        """Check what a GET from the object's start brought; gets the rest of the head when it was longer."""
        header = entries.read_header(stored.data, seq)
        data = stored.data
        if len(data) < header.head_bytes:
            rest = await self.env.objects.get(self.keys.entry(seq), len(data), header.head_bytes - len(data))
            data += rest.data
        operations = b"" if header.flags & entries.STRIPPED else entries.read_operations(header, data)
        return Entry(header, operations, landing_time(header, stored), stored.size, data)

    # Catching up.

    async def catch_up(self) -> None:
        """Apply all entries that follow, until the store says 404 to head+1: then the view was the newest at that moment."""
        self.check_quarantine()
        asked = self.env.clock.monotonic()
        width = 1
        gaps = 0
        while True:
            first = self.state.seq + 1
            if width == 1:
                found = [await self._read(first)]
            else:
                found = list(await asyncio.gather(*(self._read(first + number) for number in range(width))))
            progress = self._apply_found(found)
            if progress and (last := found[progress - 1]) is not None and last.header.flags & entries.STRIPPED:
                await self._jump(last.header.erased_by)
                continue
            if progress < len(found):
                if not any(entry is not None for entry in found[progress:]):
                    # Asked after the caller called, and all before it is in the state.
                    self._fresh_at = max(self._fresh_at, asked)
                    return
                if not progress:
                    gaps += 1
                    if gaps > limits.GAP_RETRIES:
                        self.raise_quarantine(Corrupt(f"entry {first} is absent below a later one"))
                    await self.env.backoff(gaps)
                continue
            gaps = 0
            width = min(width * 4, limits.CATCH_UP_WIDTH_MAX)

    async def _read(self, seq: int) -> Entry | None:
        try:
            return await self.read_entry(seq)
        except Corrupt as error:
            self.raise_quarantine(error)

    def _apply_found(self, found: list[Entry | None]) -> int:
        """Apply from the first on, up to a 404 or a stripped entry; how many were looked at."""
        for number, entry in enumerate(found):
            if entry is None:
                return number
            if entry.header.flags & entries.STRIPPED:
                return number + 1
            self.apply_entry(entry)
        return len(found)

    def apply_entry(self, entry: Entry) -> None:
        """Replay one entry onto the head; one that is there already does nothing."""
        if entry.header.seq != self.state.seq + 1:
            assert entry.header.seq <= self.state.seq, "entries are applied in order"
            return
        try:
            state = replay(self.machine, self.state, entry)
        except Corrupt as error:
            self.raise_quarantine(error)
        self._note_landing(entry.header.seq, entry.landing)
        self.publish(state)

    async def _jump(self, seq: int) -> None:
        """What lies before was purged after an erase: go on at the erase, which stands for itself."""
        entry = await self._read(seq)
        if entry is None:
            self.raise_quarantine(Corrupt(f"erase {seq} is absent, though entries were stripped for it"))
        if self.state.seq >= seq:
            return
        if entry.header.flags & entries.STRIPPED:
            await self._jump(entry.header.erased_by)
            return
        try:
            state = start_at(self.machine, entry)
        except Corrupt as error:
            self.raise_quarantine(error)
        self._landings.clear()
        self._sizes.clear()
        self.time, self.time_seq = max(self.time, entry.landing), seq
        self.publish(state)

    def publish(self, state: S) -> None:
        """The head moves: `state` is the newest that this pod knows."""
        self.state = state
        self.changed_at = self.env.clock.monotonic()
        for reference in list(self._listeners):
            listener = reference()
            if listener is None:
                self._listeners.remove(reference)
            else:
                listener(state)

    def begin_at(self, state: S, time: float) -> None:
        """Start from a snapshot (or from nothing)."""
        self.state = state
        self.time, self.time_seq = time, state.seq
        self.base_seq = state.seq
        self.changed_at = self.env.clock.monotonic()

    # Landing times.

    def _note_landing(self, seq: int, landing: float) -> None:
        if seq == self.time_seq + 1:
            self.time = max(self.time, landing)
            self.time_seq = seq
        else:
            self._landings[seq] = landing

    def note_own(self, seq: int, size: int) -> None:
        """An own commit was created: its landing time is not known before somebody asks."""
        self._sizes[seq] = size

    async def settle_time(self) -> tuple[S, float]:
        """The newest state and the landing time of its entry, exactly (monotone over seq)."""
        state = self.state
        while self.time_seq < state.seq:
            first = self.time_seq + 1
            if first in self._landings:
                self._note_landing(first, self._landings.pop(first))
                continue
            rows = await self.env.objects.list(
                self.keys.entries(), start_after=self.keys.entry(self.time_seq), limit=state.seq - self.time_seq
            )
            listed = {self.keys.entry_seq(row.key): row for row in rows}
            for seq in range(first, state.seq + 1):
                row = listed.get(seq)
                if seq in self._landings or seq <= self.time_seq:
                    continue
                if row is not None and self._sizes.get(seq) == row.size:
                    self._landings[seq] = row.last_modified
                    continue
                # Somebody overwrote it meanwhile (or the row is not ours to trust): the entry itself knows.
                entry = await self.read_entry(seq)
                if entry is None:
                    raise StoreUnavailable(f"entry {seq} does not answer")
                self._landings[seq] = entry.landing
            for seq in range(first, state.seq + 1):
                self._sizes.pop(seq, None)
        for seq in [seq for seq in self._landings if seq <= self.time_seq]:
            del self._landings[seq]
        return state, self.time

    # Freshness.

    async def refresh(self, max_age_s: float = 0.0) -> None:
        """Make sure that the state was the newest at some moment less than `max_age_s` ago. Callers at one time share one GET.

        A GET that was asked before the caller called proves nothing to it: it takes part in the next one.
        """
        self.check_quarantine()
        if max_age_s > 0 and self.env.clock.monotonic() - self._fresh_at < max_age_s:
            return
        running = self._probing
        if running is None or running.done():
            self._probing = probe = self.env.spawn(self._probe(None), f"refresh {self.name}")
        elif self._next_probe is None:
            self._next_probe = probe = self.env.spawn(self._probe(running), f"refresh {self.name}")
        else:
            probe = self._next_probe
        await asyncio.shield(probe)

    async def _probe(self, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await asyncio.wait((after,))
            self._probing, self._next_probe = self._next_probe, None
        await self.catch_up()

    def proven_fresh(self, asked: float) -> None:
        """A commit that was asked for at `asked` was created: nobody else's came between."""
        self._fresh_at = max(self._fresh_at, asked)

    # Quarantine.

    def check_quarantine(self) -> None:
        """Raises what quarantined the log."""
        if self.quarantine is not None:
            raise self.quarantine

    def raise_quarantine(self, error: Corrupt) -> NoReturn:
        """Serve nothing of this log any more: never skip, never guess."""
        if self.quarantine is None:
            self.quarantine = error
            self.changed_at = self.env.clock.monotonic()
            self.env.quarantined[self.name] = (self.changed_at, error)
            QUARANTINED.set(len(self.env.quarantined))
            _log.error("store.quarantined", log=self.name, head=self.state.seq, detail=error.detail)
        raise error


def replay(machine: Machine[S], state: S, entry: Entry) -> S:
    """The state after one more entry. Raises `Corrupt`."""
    header = entry.header
    if header.previous != state.commit:
        raise Corrupt(f"entry {header.seq}: does not follow entry {state.seq}")
    if header.flags & entries.STRIPPED:
        raise Corrupt(f"entry {header.seq}: stripped")
    return _apply(machine, state, entry)


def start_at(machine: Machine[S], entry: Entry) -> S:
    """The state at an entry that stands for itself. Raises `Corrupt`."""
    if not machine.starts(machine.decode(entry.operations)):
        raise Corrupt(f"entry {entry.header.seq}: entries before it were stripped, and it is no erase")
    return _apply(machine, machine.empty(), entry)


def _apply(machine: Machine[S], state: S, entry: Entry) -> S:
    header = entry.header
    builder = machine.begin(state, header.seq, entry.bodies_at)
    for operation in machine.decode(entry.operations):
        builder.apply(operation)
    return builder.finish(header.commit, header.operations_stored)
