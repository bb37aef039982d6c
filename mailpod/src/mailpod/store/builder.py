"""Applies operations to a state: the one implementation for evaluation and for replay.

Whatever contradicts the state raises `Corrupt`: an operation carries its outcome, so a contradiction means that bytes or history are
wrong, and it is never served.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np

from mailpod.errors import Corrupt
from mailpod.limits import store as limits
from mailpod.store import columns, numbers, uidset
from mailpod.store import operations as ops
from mailpod.store.state import NOTHING_APPLIED, AccountState, Folder, TransitRecord, Vanished
from mailpod.store.types import FIRST_KEYWORD_BIT, KEYWORDS_MAX
from mailpod.store.uidset import Uids


class Tail(Protocol):
    """What the pace of snapshots is counted in."""

    tail_entries: int
    tail_bytes: int


def count_tail(state: Tail, operations_bytes: int, rows: int) -> None:
    """Count one more entry since the last seq at which a snapshot was due; at the next such seq `tail_entries` becomes 0.

    Counted in the state, so that all pods agree which entry is followed by a snapshot, and its committer alone writes it.
    """
    state.tail_entries += 1
    state.tail_bytes += operations_bytes
    snapshot_bytes = limits.SNAPSHOT_BASE_BYTES + rows * limits.SNAPSHOT_ROW_BYTES
    if state.tail_entries >= limits.SNAPSHOT_ENTRIES_MAX or (
        state.tail_entries >= limits.SNAPSHOT_ENTRIES_MIN and state.tail_bytes * limits.SNAPSHOT_TAIL_FRACTION >= snapshot_bytes
    ):
        state.tail_entries = 0
        state.tail_bytes = 0


class AccountBuilder:
    """A state in the making: the one before plus the operations of entry `seq`.

    `base` is where the entry's bodies begin; unknown (0) while it is being evaluated, then given to `finish`.
    """

    __slots__ = ("_new_from", "_owned", "base", "operations", "seq", "start", "state")

    def __init__(self, start: AccountState, seq: int, base: int = 0) -> None:
        self.start: Final = start
        self.seq: Final = seq
        self.base: Final = base
        self.state = start.copy()
        self.operations: list[ops.Operation] = []
        self._owned: set[int] = set()  # folders that were copied already
        self._new_from: dict[int, int] = {}  # folder → first UID that this entry gave

    def do(self, operation: ops.Operation) -> None:
        """Evaluation's way: apply and record."""
        self.apply(operation)
        self.operations.append(operation)

    def apply(self, operation: ops.Operation) -> None:
        """Apply one operation. Raises `Corrupt` when it contradicts the state."""
        _APPLY[type(operation)](self, operation)

    def finish(self, commit: bytes, operations_bytes: int, base: int | None = None) -> AccountState:
        """The state at `seq`. After it the builder is used up."""
        state = self.state
        if base:
            for folder_id, uid in self._new_from.items():
                folder = state.folders.get(folder_id)
                if folder is not None:
                    columns.rebase(folder.chunks, uid, self.seq, base)
        state.seq = self.seq
        state.commit = commit
        count_tail(state, operations_bytes, state.messages)
        return state

    # What operations share.

    def folder(self, folder_id: int) -> Folder:
        """A folder to change. Raises `Corrupt` when there is none."""
        folder = self.state.folders.get(folder_id)
        if folder is None:
            raise Corrupt(f"entry {self.seq}: folder {folder_id} is not there")
        if folder_id not in self._owned:
            folder = folder.copy()
            self.state.folders[folder_id] = folder
            self._owned.add(folder_id)
        folder.highestmodseq = self.seq
        return folder

    def _add_rows(self, folder: Folder, first_uid: int, fixed: columns.Fixed, flags: columns.Flags) -> None:
        count = len(fixed)
        if first_uid < folder.uidnext or first_uid + count - 1 > limits.UID_MAX:
            raise Corrupt(f"entry {self.seq}: UID {first_uid} is below {folder.uidnext}")
        uids = np.arange(first_uid, first_uid + count, dtype=np.uint32)
        self._new_from.setdefault(folder.id, first_uid)
        folder.chunks = columns.append(folder.chunks, uids, fixed, flags, self.seq)
        folder.count += count
        folder.uidnext = first_uid + count
        self.state.messages += count
        self.state.bytes += int(fixed["size"].sum(dtype=np.int64))

    def _take_rows(self, folder: Folder, uids: Uids) -> None:
        folder.chunks, hits, size = columns.remove(folder.chunks, uids)
        if hits != len(uids) or not hits:
            raise Corrupt(f"entry {self.seq}: expunges what is not there")
        folder.count -= hits
        self.state.messages -= hits
        self.state.bytes -= size
        if folder.vanished and folder.vanished[-1].modseq == self.seq:
            uids = np.union1d(folder.vanished[-1].uids, uids)
            folder.vanished = (*folder.vanished[:-1], Vanished(self.seq, uids))
        else:
            folder.vanished = (*folder.vanished, Vanished(self.seq, uids))
        folder.vanished_uids += hits

    def _add_big(self, bigs: tuple[ops.BigBody, ...]) -> None:
        if bigs:
            self.state.bigs = {**self.state.bigs, **{big.email: big for big in bigs}}

    def make_folder(self, spec: ops.FolderSpec) -> None:
        """Put a new folder in place."""
        state = self.state
        if spec.id < state.next_folder or spec.uidvalidity < state.next_uidvalidity or state.folder_named(spec.name) is not None:
            raise Corrupt(f"entry {self.seq}: folder {spec.id} cannot be new")
        state.folders[spec.id] = Folder(spec.id, spec.name, spec.special_use, spec.uidvalidity, self.seq)
        self._owned.add(spec.id)
        state.next_folder = spec.id + 1
        state.next_uidvalidity = spec.uidvalidity + 1

    # One method an operation.

    def do_created(self, op: ops.Created) -> None:
        """`operations.Created`."""
        state = self.state
        if not state.closed or state.folders:
            raise Corrupt(f"entry {self.seq}: the account exists already")
        state.closed = False
        state.incarnation = self.seq
        for spec in op.folders:
            self.make_folder(spec)

    def do_appended(self, op: ops.Appended) -> None:
        """`operations.Appended`."""
        state = self.state
        folder = self.folder(op.folder)
        count = len(op.rows)
        if op.email < state.next_email or not count:
            raise Corrupt(f"entry {self.seq}: EMAILID {op.email} is taken")
        fixed = np.empty(count, dtype=columns.FIXED)
        flags = np.empty(count, dtype=np.uint64)
        for number, row in enumerate(op.rows):
            off = row.off if row.off == columns.BIG else row.off + self.base
            fixed[number] = (op.email + number, row.date, op.saved, row.size, self.seq, off, row.length, row.index)
            flags[number] = row.flags
        self._add_rows(folder, op.uid, fixed, flags)
        self._add_big(op.bigs)
        state.next_email = op.email + count

    def do_flags_changed(self, op: ops.FlagsChanged) -> None:
        """`operations.FlagsChanged`."""
        folder = self.folder(op.folder)
        uids = uidset.unpack(op.uids)
        folder.chunks, hits = columns.change_flags(folder.chunks, uids, op.clear, op.add, self.seq)
        if hits != len(uids):
            raise Corrupt(f"entry {self.seq}: flags of what is not there")

    def do_copied(self, op: ops.CopiedOver) -> None:
        """`operations.CopiedOver`."""
        source = self.folder(op.folder) if op.moved else self.state.folders.get(op.folder)
        if source is None:
            raise Corrupt(f"entry {self.seq}: folder {op.folder} is not there")
        target = self.folder(op.target)
        if op.target == op.folder:
            source = target
        uids = uidset.unpack(op.uids)
        found, fixed, flags, _ = columns.gather(source.chunks, uids)
        if len(found) != len(uids) or not len(uids):
            raise Corrupt(f"entry {self.seq}: copies what is not there")
        fixed["saved"] = op.saved
        self._add_rows(target, op.uid, fixed, flags)
        if op.moved:
            self._take_rows(source, uids)

    def do_removed(self, op: ops.Removed) -> None:
        """`operations.Removed`."""
        self._take_rows(self.folder(op.folder), uidset.unpack(op.uids))

    def do_folder_created(self, op: ops.FolderCreated) -> None:
        """`operations.FolderCreated`."""
        self.make_folder(op.folder)

    def do_folder_deleted(self, op: ops.FolderDeleted) -> None:
        """`operations.FolderDeleted`."""
        folder = self.state.folders.pop(op.folder, None)
        if folder is None:
            raise Corrupt(f"entry {self.seq}: folder {op.folder} is not there")
        self._new_from.pop(op.folder, None)
        self.state.messages -= folder.count
        self.state.bytes -= folder.bytes

    def do_folder_renamed(self, op: ops.FolderRenamed) -> None:
        """`operations.FolderRenamed`."""
        if self.state.folder_named(op.name) is not None:
            raise Corrupt(f"entry {self.seq}: a folder of that name exists")
        self.folder(op.folder).name = op.name

    def do_subscribed(self, op: ops.Subscribed) -> None:
        """`operations.Subscribed`."""
        names = self.state.subscriptions
        self.state.subscriptions = names | {op.name} if op.subscribed else names - {op.name}

    def do_keyword_added(self, op: ops.KeywordAdded) -> None:
        """`operations.KeywordAdded`."""
        keywords = self.state.keywords
        if op.bit != FIRST_KEYWORD_BIT + len(keywords) or len(keywords) >= KEYWORDS_MAX:
            raise Corrupt(f"entry {self.seq}: keyword bit {op.bit}")
        self.state.keywords = (*keywords, op.name)

    def do_vanished_forgotten(self, op: ops.VanishedForgotten) -> None:
        """`operations.VanishedForgotten`."""
        highest = self.state.folders[op.folder].highestmodseq if op.folder in self.state.folders else 0
        folder = self.folder(op.folder)
        folder.highestmodseq = highest  # nothing that a client sees has changed
        self._forget_vanished(folder, op.modseq)

    @staticmethod
    def _forget_vanished(folder: Folder, modseq: int) -> None:
        folder.vanished = tuple(record for record in folder.vanished if record.modseq > modseq)
        folder.vanished_uids = sum(len(record.uids) for record in folder.vanished)
        folder.vanished_floor = max(folder.vanished_floor, modseq)

    def do_applied(self, op: ops.Applied) -> None:
        """`operations.Applied`."""
        record = self.state.transit.get(op.log, NOTHING_APPLIED)
        key = (op.seq, op.index, op.recipient)
        if self.applied_before(record, key):
            raise Corrupt(f"entry {self.seq}: transit {op.log:02x}/{op.seq} was applied before")
        self.state.transit = {**self.state.transit, op.log: TransitRecord(record.watermark, record.applied | {key})}

    @staticmethod
    def applied_before(record: TransitRecord, key: tuple[int, int, int]) -> bool:
        """Whether the account knows this delivery already."""
        return key[0] <= record.watermark or key in record.applied

    def do_watermark_moved(self, op: ops.WatermarkMoved) -> None:
        """`operations.WatermarkMoved`."""
        record = self.state.transit.get(op.log, NOTHING_APPLIED)
        if op.seq <= record.watermark:
            raise Corrupt(f"entry {self.seq}: watermark of transit {op.log:02x} goes back")
        kept = frozenset(key for key in record.applied if key[0] > op.seq)
        self.state.transit = {**self.state.transit, op.log: TransitRecord(op.seq, kept)}

    def do_reclaimed(self, op: ops.Reclaimed) -> None:
        """`operations.Reclaimed`."""
        state = self.state
        if op.floor < state.floor or op.watermark < state.big_watermark or op.floor >= self.seq:
            raise Corrupt(f"entry {self.seq}: floor {op.floor}")
        numbers.unpack(op.entries)
        state.floor = op.floor
        state.big_watermark = op.watermark
        state.executed = max(state.executed, op.executed)
        state.reclaims = (*(seq for seq in state.reclaims if seq > op.executed), self.seq)
        gone = set(op.bigs)
        if gone:
            state.bigs = {email: big for email, big in state.bigs.items() if big.id not in gone}
        for folder in list(state.folders.values()):
            if folder.vanished and folder.vanished[0].modseq <= op.floor:
                highest = folder.highestmodseq
                owned = self.folder(folder.id)
                owned.highestmodseq = highest
                self._forget_vanished(owned, op.floor)

    def do_relocated(self, op: ops.Relocated) -> None:
        """`operations.Relocated`."""
        emails = np.array([moved.email for moved in op.bodies], dtype=np.uint32)
        if len(emails) > 1 and not bool((emails[1:] > emails[:-1]).all()):
            raise Corrupt(f"entry {self.seq}: relocates out of order")
        hits: set[int] = set()
        for folder in list(self.state.folders.values()):
            chunks = list(folder.chunks)
            for number, chunk in enumerate(chunks):
                column = chunk.fixed["email"][: chunk.count]
                rows = np.flatnonzero(np.isin(column, emails))
                if not len(rows):
                    continue
                fixed = chunk.fixed.copy()
                for row in rows.tolist():
                    moved = op.bodies[int(np.searchsorted(emails, column[row]))]
                    hits.add(moved.email)
                    fixed["seq"][row] = self.seq
                    fixed["off"][row] = moved.off + self.base
                    fixed["len"][row] = moved.length
                    fixed["idx"][row] = moved.index
                chunks[number] = columns.Chunk(chunk.uid, fixed, chunk.flags, chunk.modseq, chunk.count)
            self._place(folder.id, tuple(chunks))
        if len(hits) != len(emails):
            raise Corrupt(f"entry {self.seq}: relocates what is not there")

    def _place(self, folder_id: int, chunks: columns.Chunks) -> None:
        """Other bodies' places, the same messages: no MODSEQ changes."""
        folder = self.state.folders[folder_id]
        if chunks == folder.chunks:
            return
        highest = folder.highestmodseq
        owned = self.folder(folder_id)
        owned.highestmodseq = highest
        owned.chunks = chunks
        self._new_from[folder_id] = 0

    def do_erased(self, op: ops.Erased) -> None:
        """`operations.Erased`."""
        old = self.state
        if self.operations:
            raise Corrupt(f"entry {self.seq}: an erase stands alone")
        state = AccountState()
        state.incarnation = op.incarnation
        state.next_folder = max(op.next_folder, old.next_folder)
        state.next_email = max(op.next_email, old.next_email)
        state.next_uidvalidity = max(op.next_uidvalidity, old.next_uidvalidity)
        state.big_watermark = op.big_watermark
        state.transit = {mark.log: TransitRecord(mark.seq, frozenset(applied for applied in mark.applied)) for mark in op.watermarks}
        state.floor = self.seq  # no earlier state can come back
        self.state = state
        self._new_from.clear()

    def do_inserted(self, op: ops.Inserted) -> None:
        """`operations.Inserted`."""
        folder = self.folder(op.folder)
        if len(op.fixed) % columns.FIXED.itemsize or len(op.flags) % 8:
            raise Corrupt(f"entry {self.seq}: rows")
        fixed = np.frombuffer(op.fixed, dtype=columns.FIXED).copy()
        flags = np.frombuffer(op.flags, dtype="<u8").astype(np.uint64, copy=False)
        if len(fixed) != len(flags) or not len(fixed) or bool((fixed["seq"] >= self.seq).any()):
            raise Corrupt(f"entry {self.seq}: rows")
        fixed["saved"] = op.saved
        self._add_rows(folder, op.uid, fixed, flags)
        self._add_big(op.bigs)

    def do_restored(self, op: ops.Restored) -> None:
        """`operations.Restored`."""
        if op.seq < self.state.floor or op.seq >= self.seq:
            raise Corrupt(f"entry {self.seq}: restores {op.seq}, below the floor {self.state.floor}")
        self.state.restored = self.seq

    def do_marked(self, op: ops.Marked) -> None:
        """`operations.Marked`."""
        markers = dict(self.state.markers)
        if op.value:
            markers[op.key] = op.value
        else:
            markers.pop(op.key, None)
        self.state.markers = markers


_APPLY: Final[dict[type, Callable[[AccountBuilder, Any], None]]] = {
    ops.Created: AccountBuilder.do_created,
    ops.Appended: AccountBuilder.do_appended,
    ops.FlagsChanged: AccountBuilder.do_flags_changed,
    ops.CopiedOver: AccountBuilder.do_copied,
    ops.Removed: AccountBuilder.do_removed,
    ops.FolderCreated: AccountBuilder.do_folder_created,
    ops.FolderDeleted: AccountBuilder.do_folder_deleted,
    ops.FolderRenamed: AccountBuilder.do_folder_renamed,
    ops.Subscribed: AccountBuilder.do_subscribed,
    ops.KeywordAdded: AccountBuilder.do_keyword_added,
    ops.VanishedForgotten: AccountBuilder.do_vanished_forgotten,
    ops.Applied: AccountBuilder.do_applied,
    ops.WatermarkMoved: AccountBuilder.do_watermark_moved,
    ops.Reclaimed: AccountBuilder.do_reclaimed,
    ops.Relocated: AccountBuilder.do_relocated,
    ops.Erased: AccountBuilder.do_erased,
    ops.Inserted: AccountBuilder.do_inserted,
    ops.Restored: AccountBuilder.do_restored,
    ops.Marked: AccountBuilder.do_marked,
}
