"""Forgetting what was expunged: deletion is decided by a commit that lists what dies, and the list alone is carried out.

The list is made from a second replay (an older snapshot and the entries since): a wrong snapshot must not destroy mail. It holds bodies
that no state from `floor` on refers to: the floor is the state that was in force `retention` ago.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from mailpod.errors import Corrupt, ObjectNotFound, Refused, StoreUnavailable
from mailpod.limits import store as limits
from mailpod.store import account_snapshot, columns, numbers
from mailpod.store import entry as entries
from mailpod.store import operations as ops
from mailpod.store import transit_state as ts
from mailpod.store.entry import Frame
from mailpod.store.history import Replay
from mailpod.store.log import Log
from mailpod.store.reasons import MOVED
from mailpod.store.requests import Batch, Request
from mailpod.store.shared import ulid_at
from mailpod.store.state import AccountState

if TYPE_CHECKING:
    from mailpod.store.account import Account
    from mailpod.store.transit import TransitLog

_logger = structlog.get_logger(__name__)

Keys = NDArray[np.uint64]  # bodies: entry << 16 | number in the entry
_NONE: Keys = np.empty(0, dtype=np.uint64)


class Reclaim(Request):
    """The list of what dies, on a state that continues the one that the second replay reproduced."""

    exclusive = True

    def __init__(self, incarnation: int, replayed: AccountState, operation: ops.Reclaimed) -> None:
        super().__init__(incarnation)
        self.replayed = replayed
        self.operation = operation

    def check_unmoved(self, state: AccountState) -> None:
        """Entries that landed since the replay may not refer to what is listed. Raises `Refused`.

        A restore can, and an append whose big body was uploaded before; everything else refers to bodies of the state before it, or to
        its own. And another reclaim's floor and watermark count: neither goes back.
        """
        fresh = {big.id for big in state.bigs.values()} - {big.id for big in self.replayed.bigs.values()}
        if (
            state.restored != self.replayed.restored
            or state.floor != self.replayed.floor
            or state.big_watermark > self.operation.watermark
            or fresh.intersection(self.operation.bigs)
        ):
            raise Refused(MOVED)

    def evaluate(self, batch: Batch) -> int:
        """The reclaim's seq."""
        self.check_incarnation(batch.state)
        self.check_unmoved(batch.state)
        batch.builder.do(self.operation)
        return batch.builder.seq


class Relocation(NamedTuple):
    """One living body to move."""

    email: int
    seq: int
    number: int  # of the message in that entry
    summary: Frame
    body: Frame


class Relocate(Request):
    """Living bodies of mostly dead entries move into this entry."""

    def __init__(self, incarnation: int, bodies: Sequence[Relocation]) -> None:
        super().__init__(incarnation)
        self.bodies = sorted(bodies)
        self.messages = len(bodies)
        self.weight = 256 + sum(96 + len(one.summary.data) + len(one.body.data) for one in bodies)

    def evaluate(self, batch: Batch) -> int:
        """How many moved: those that are still where they were."""
        state = batch.state
        self.check_incarnation(state)
        wanted = {(one.seq << 16) | one.number for one in self.bodies}
        present = set(np.intersect1d(bodies_of(state), np.array(sorted(wanted), dtype=np.uint64)).tolist())
        moved = []
        for one in self.bodies:
            if one.seq << 16 | one.number not in present:
                continue
            length = entries.FRAME_BYTES + len(one.body.data)
            moved.append(ops.Moved(one.email, batch.body_bytes, length, len(batch.bodies)))
            batch.summaries.append(one.summary)
            batch.bodies.append(one.body)
            batch.body_bytes += length
        if moved:
            batch.builder.do(ops.Relocated(tuple(moved)))
        return len(moved)


def bodies_of(state: AccountState) -> Keys:
    """All bodies that a state refers to."""
    parts = [
        chunk.fixed["seq"][: chunk.count] << np.uint64(16) | chunk.fixed["idx"][: chunk.count].astype(np.uint64)
        for folder in state.folders.values()
        for chunk in folder.chunks
    ]
    return np.unique(np.concatenate(parts)) if parts else _NONE


def bigs_of(state: AccountState) -> set[str]:
    """Ids of all bodies of their own that a state refers to."""
    found = set()
    for folder in state.folders.values():
        for chunk in folder.chunks:
            fixed = chunk.fixed[: chunk.count]
            for email in fixed["email"][fixed["off"] == columns.BIG].tolist():
                found.add(state.bigs[email].id)
    return found


class History(NamedTuple):
    """What the second replay found."""

    floor: int  # the state in force `retention` ago
    state: AccountState  # at the head that was replayed
    before: Keys  # bodies that states from the previous floor to this one refer to
    kept: Keys  # bodies that states from the floor on refer to
    kept_bigs: frozenset[str]


class Forgetting:
    """Reclaims for one account. Any pod may, at any time; several at once do no harm."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._log: Log[AccountState] = account.log
        self._env = account.log.env
        self._executed = 0  # lists at or below this seq were carried out by us

    async def run(self) -> ops.Reclaimed | None:
        """Carry out what earlier reclaims listed, move living bodies together, list what died since, carry that out. What was listed."""
        await self._log.refresh()
        await self.execute_pending()
        state = self._log.state
        if state.closed or state.incarnation != self._account.incarnation:
            return None
        back = await self._account.parts.snapshots.write()
        cutoff = self.cutoff(back.written)
        for _ in range(limits.RECLAIM_ATTEMPTS_MAX):
            history = await self.replay(cutoff)
            if not self.reproduced(history):
                self._log.raise_quarantine(Corrupt(f"two replays to entry {history.state.seq} differ"))
            listed = await self.listed(history, cutoff)
            try:
                if listed is not None:
                    await self.decide(history, listed)
                    await self.execute(listed)
            except Refused as error:
                if error.reason is MOVED:
                    await self._log.refresh()
                    continue
                raise
            await self.relocate(history)
            await self.tidy()
            return listed
        _logger.info("store.reclaim.busy", log=self._log.name)
        return None

    def cutoff(self, store_time: float) -> float:
        """Retention ago, by the earlier of the store's clock and ours: a clock that is ahead forgets nothing too early."""
        return min(store_time, self._env.clock.now()) - self._env.options.retention_s

    # The second replay.

    async def replay(self, cutoff: float) -> History:
        """From a snapshot at or below the previous floor (not the one that the live state began with), up to the live head."""
        log = self._log
        live = log.state
        snapshots = self._account.parts.snapshots
        base = await snapshots.newest(below=live.floor + 1) if live.floor else None
        if base is not None and base.state.seq == log.base_seq:
            base = await snapshots.newest(below=base.state.seq)
        line = Replay(log, base.state if base is not None else AccountState(), base.time if base is not None else 0.0)
        previous = live.floor
        floor = line.state.seq if self.forgotten(line.time, cutoff) else 0
        before = [bodies_of(line.state)] if line.state.seq == previous else []
        kept: list[Keys] = [bodies_of(line.state)]
        bigs = bigs_of(line.state)
        count = 0
        async for entry in line.entries(live.seq):
            state = line.step(entry)
            seq = state.seq
            brought = _brought(entry.header.frames // 2, seq)
            if seq <= previous or self.forgotten(line.time, cutoff):
                # At or below the floor: of these states only the last one's bodies are kept.
                floor = seq if self.forgotten(line.time, cutoff) else floor
                if seq == previous:
                    before = [bodies_of(state)]
                elif seq > previous:
                    before.append(brought)
                kept, bigs = [], set()
                last_forgotten = state
            else:
                if not kept:
                    kept, bigs = [bodies_of(last_forgotten)], bigs_of(last_forgotten)
                kept.append(brought)
                operations = log.machine.decode(entry.operations)
                bigs |= {big.id for op in operations if isinstance(op, ops.Appended | ops.Inserted) for big in op.bigs}
                if any(isinstance(op, ops.Inserted) for op in operations):
                    kept.append(bodies_of(state))
            count += 1
            if count % limits.REPLAY_YIELD_ENTRIES == 0:
                await self._env.clock.sleep(0)
        if not kept:
            kept, bigs = [bodies_of(line.state)], bigs_of(line.state)
        return History(max(floor, previous), line.state, _union(before), _union(kept), frozenset(bigs))

    def forgotten(self, time: float, cutoff: float) -> bool:
        """Whether the state that began at `time` lies before the retention window (the last such one is the floor)."""
        return time <= cutoff

    def reproduced(self, history: History) -> bool:
        """Whether the second replay came to the very state that we serve."""
        live = self._log.state
        if live.seq != history.state.seq:
            return True  # the head moved meanwhile: the commit will be refused, and we come again
        return account_snapshot.same(live, history.state)

    # The list.

    async def listed(self, history: History, cutoff: float) -> ops.Reclaimed | None:
        """What dies; None when there is nothing worth a commit."""
        state = history.state
        dead = np.setdiff1d(history.before, history.kept, assume_unique=True)
        shift = np.uint64(16)
        entries_dead = np.setdiff1d(np.unique(dead >> shift), np.unique(history.kept >> shift), assume_unique=True)
        watermark = max(ulid_at(cutoff), state.big_watermark)
        rows = await self._env.objects.list(self._log.keys.bigs(state.incarnation))
        bigs = tuple(
            sorted(big for big in (row.key.rpartition("/")[2] for row in rows) if big <= watermark and big not in history.kept_bigs)
        )
        remembered = any(folder.vanished and folder.vanished[0].modseq <= history.floor for folder in state.folders.values())
        advance = history.floor - state.floor
        if not len(entries_dead) and not bigs and not (advance > 0 and (remembered or advance >= limits.SNAPSHOT_ENTRIES_MAX)):
            return None
        if not bigs:
            watermark = state.big_watermark
        executed = max(self._executed, state.executed)
        return ops.Reclaimed(history.floor, watermark, numbers.pack(entries_dead.tolist()), bigs, executed)

    async def decide(self, history: History, listed: ops.Reclaimed) -> int:
        """Commit the list. Only then may anything be carried out. Raises `Refused` (moved-on)."""
        seq = await self._account.ask(Reclaim(self._account.incarnation, history.state, listed))
        assert isinstance(seq, int)
        return seq

    # Carrying out.

    async def execute_pending(self) -> None:
        """Carry out the lists of landed reclaims of which nobody has said that they were."""
        pending = [seq for seq in self._log.state.reclaims if seq > self._executed]
        for seq in pending:
            entry = await self._log.read_entry(seq)
            if entry is None or entry.header.flags & entries.STRIPPED:
                continue  # purged: whatever it listed is gone with the rest
            for operation in self._log.machine.decode(entry.operations):
                if isinstance(operation, ops.Reclaimed):
                    await self.execute(operation)
            self._executed = seq

    async def execute(self, listed: ops.Reclaimed) -> None:
        """Carry out one list, and nothing but the list. Idempotent, at any later time, by any pod."""
        gate = asyncio.Semaphore(limits.FORGET_IN_FLIGHT)

        async def one(seq: int) -> None:
            async with gate:
                await self.forget_entry(seq)

        await asyncio.gather(*(one(seq) for seq in numbers.unpack(listed.entries).tolist()))
        if listed.bigs:
            await self._env.objects.delete([self._log.keys.big(self._log.state.incarnation, big) for big in listed.bigs])

    async def forget_entry(self, seq: int) -> None:
        """Empty one entry: never delete it, for a number, once used, is never free again."""
        await empty_entry(self._log, seq)

    async def tidy(self) -> None:
        """Summaries of what is gone leave the segments: they are mail, too."""
        columns_ = [columns.column(folder.chunks, "email") for folder in self._log.state.folders.values()]
        living = np.unique(np.concatenate(columns_)) if columns_ else np.empty(0, dtype=np.uint32)
        await self._account.parts.segments.tidy(living)

    # Moving living bodies together.

    async def relocate(self, history: History) -> int:
        """Copy the living bodies out of entries that are mostly dead, by commits; a later reclaim lists the old ones. How many."""
        plan = self.to_relocate(history)
        moved = 0
        while plan:
            some: list[Relocation] = []
            weight = 0
            while plan and weight < limits.ENTRY_BYTES_MAX // 2 and len(some) < limits.ENTRY_MESSAGES_MAX // 2:
                email, seq, off, length, index = plan.pop()
                one = await self._pick_up(email, seq, off, length, index)
                if one is not None:
                    some.append(one)
                    weight += len(one.body.data) + len(one.summary.data) + 128
            if some:
                moved += await self._account.ask(Relocate(self._account.incarnation, some))
        return moved

    def to_relocate(self, history: History) -> list[tuple[int, int, int, int, int]]:
        """(EMAILID, entry, offset, length, index) of living bodies that are worth moving."""
        shift = np.uint64(16)
        dead = np.setdiff1d(history.before, history.kept, assume_unique=True)
        mixed = np.intersect1d(np.unique(dead >> shift), np.unique(history.kept >> shift), assume_unique=True)
        if not len(mixed):
            return []
        living: dict[int, dict[int, tuple[int, int, int, int, int]]] = {}
        for folder in self._log.state.folders.values():
            for chunk in folder.chunks:
                fixed = chunk.fixed[: chunk.count]
                for row in fixed[np.isin(fixed["seq"], mixed) & (fixed["off"] != columns.BIG)]:
                    email, _, _, _, seq, off, length, index = row.item()
                    living.setdefault(seq, {})[index] = (email, seq, off, length, index)
        dead_of: dict[int, int] = {}
        for key in dead.tolist():
            dead_of[key >> 16] = dead_of.get(key >> 16, 0) + 1
        plan: list[tuple[int, int, int, int, int]] = []
        for seq, bodies in living.items():
            size = sum(one[3] for one in bodies.values())
            if size <= limits.RELOCATE_LIVING_BYTES_MAX or dead_of.get(seq, 0) >= limits.RELOCATE_DEAD_FRACTION * (
                dead_of.get(seq, 0) + len(bodies)
            ):
                plan.extend(bodies.values())
        return plan

    async def _pick_up(self, email: int, seq: int, off: int, length: int, index: int) -> Relocation | None:
        """A body as it lies, verified; None when it is not to be had (whoever reads it will say why)."""
        try:
            entry = await self._log.read_entry(seq)
            if entry is None or entry.header.flags & (entries.EMPTIED | entries.STRIPPED):
                return None
            stored = await self._env.objects.get(self._log.keys.entry(seq), off, length)
            body = entries.check_frame(stored.data, seq, 2 * index + 1)
            lengths = entries.read_table(entry.header, entry.data)
            start = entry.header.head_bytes + sum(lengths[:index])
            piece = entry.data[start : start + lengths[index]]
            if len(piece) < lengths[index]:
                piece = (await self._env.objects.get(self._log.keys.entry(seq), start, lengths[index])).data
            return Relocation(email, seq, index, entries.check_frame(piece, seq, 2 * index), body)
        except (Corrupt, ObjectNotFound, StoreUnavailable) as error:
            _logger.info("store.relocate.skipped", log=self._log.name, entry=seq, detail=str(error))
            return None


def _brought(count: int, seq: int) -> Keys:
    """The bodies that entry `seq` brought."""
    return np.arange(count, dtype=np.uint64) + np.uint64(seq << 16)


def _union(parts: list[Keys]) -> Keys:
    return np.unique(np.concatenate(parts)) if parts else _NONE


async def empty_entry(log: Log[Any], seq: int) -> None:
    """Overwrite an entry with its head. The landing time that it had goes with it."""
    entry = await log.read_entry(seq)
    if entry is None or entry.header.flags & (entries.EMPTIED | entries.STRIPPED) or not entry.header.frames:
        return
    await log.env.objects.put(log.keys.entry(seq), entries.emptied(entry.header, entry.data, entry.landing))


async def reclaim_transit(transit: TransitLog) -> int:
    """The same for a transit log: bodies of done messages, listed by a commit on a state that a second replay reproduced. How many."""
    log = transit.log
    env = log.env
    await log.refresh()
    for seq in log.state.reclaims:
        entry = await log.read_entry(seq)
        if entry is not None:
            for operation in log.machine.decode(entry.operations):
                if isinstance(operation, ts.TransitReclaimed):
                    await _execute_transit(log, operation)
    live = log.state
    if not live.spent:
        return 0
    base = await transit.snapshots.newest(below=max(live.seq, 1))
    if base is not None and base.state.seq == log.base_seq:
        base = await transit.snapshots.newest(below=base.state.seq)
    line = Replay(log, base.state if base is not None else ts.TransitState(), base.time if base is not None else 0.0)
    async for one in line.entries(live.seq):
        line.step(one)
    if b"".join(log.machine.dump(line.state)) != b"".join(log.machine.dump(live)):
        log.raise_quarantine(Corrupt(f"two replays to entry {live.seq} differ"))
    rows = await env.objects.list(log.keys.bigs(0))
    names = {row.key.rpartition("/")[2] for row in rows}
    # Uploads that nobody referred to within a day will not be.
    watermark = max(live.big_watermark, ulid_at(env.clock.now() - limits.RECLAIM_EVERY_S))
    kept = {item.big for item in live.pending.values() if item.big}
    bigs = tuple(sorted(name for name in names if name not in kept and (name in live.spent_bigs or name <= watermark)))
    listed = ts.TransitReclaimed(numbers.pack(live.spent), bigs, watermark, max(live.reclaims, default=0))
    try:
        await transit.committer.submit(ts.ReclaimTransit(transit.nonce, listed))
    except Refused as error:
        if error.reason is MOVED:
            return 0  # mail came in between; the next one will do
        raise
    await _execute_transit(log, listed)
    return len(live.spent)


async def _execute_transit(log: Log[ts.TransitState], listed: ts.TransitReclaimed) -> None:
    for seq in numbers.unpack(listed.entries).tolist():
        await empty_entry(log, seq)
    if listed.bigs:
        await log.env.objects.delete([log.keys.big(0, big) for big in listed.bigs])
