"""What callers want of an account, evaluated into operations against the newest state.

A request may be evaluated several times (another pod's entry came first); only the last evaluation counts. Evaluation is synchronous. It
raises `Refused` before it does anything, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from mailpod.errors import ACCOUNT_CLOSED, OVER_QUOTA, Refused
from mailpod.limits import store as limits
from mailpod.store import columns, names, uidset
from mailpod.store import operations as ops
from mailpod.store.builder import AccountBuilder
from mailpod.store.entry import Frame
from mailpod.store.prepared import Prepared
from mailpod.store.reasons import (
    BIG_BELOW_WATERMARK,
    LIMIT,
    NO_SUCH_FOLDER,
)
from mailpod.store.state import NOTHING_APPLIED, AccountState, Folder
from mailpod.store.types import (
    DEFAULT_FOLDERS,
    FIRST_KEYWORD_BIT,
    KEYWORDS_MAX,
    SYSTEM_FLAGS,
    Appended,
    Copied,
    Expunged,
    FlagsStored,
    Uids,
)

_SYSTEM_BITS = {name.lower(): bit for bit, name in enumerate(SYSTEM_FLAGS)}
ALL_BITS = 0xFFFFFFFFFFFFFFFF


class Batch:
    """An entry of an account in the making: its builder, its frames, its time."""

    __slots__ = ("bodies", "body_bytes", "builder", "now", "summaries")

    def __init__(self, builder: AccountBuilder, now: float) -> None:
        self.builder = builder
        self.now = max(int(now), 0)  # seconds since 1970, this pod's clock
        self.summaries: list[Frame] = []
        self.bodies: list[Frame] = []
        self.body_bytes = 0

    @property
    def state(self) -> AccountState:
        """With what this batch has done so far."""
        return self.builder.state

    @property
    def saved(self) -> int:
        """The save date of what arrives now (RFC 8514), as wide as its column."""
        return min(self.now, 0xFFFFFFFF)


class Request:
    """Base of all. `incarnation` is that of the account that the caller opened."""

    exclusive = False  # alone in its entry
    weight = 256  # bytes that it adds to an entry, about
    messages = 0  # bodies that it adds

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation

    def check_incarnation(self, state: AccountState) -> None:
        """Nothing that was meant for one owner reaches the next. Raises `Refused`."""
        if state.closed or state.incarnation != self.incarnation:
            raise Refused(ACCOUNT_CLOSED, f"incarnation {self.incarnation} has ended")

    def evaluate(self, batch: Batch) -> object:
        """Do it to the batch's builder and return the outcome."""
        raise AssertionError("a request evaluates itself")

    def folder(self, state: AccountState, folder_id: int) -> Folder:
        """The folder of that id. Raises `Refused`."""
        folder = state.folders.get(folder_id)
        if folder is None:
            raise Refused(NO_SUCH_FOLDER, f"folder {folder_id}")
        return folder


class Create(Request):
    """Make the account, for the first time or again; does nothing when it is there."""

    exclusive = True

    def __init__(self) -> None:
        super().__init__(0)

    def evaluate(self, batch: Batch) -> int:
        """The incarnation."""
        state = batch.state
        if not state.closed:
            return state.incarnation
        # A clock only makes the first value look usual; what never repeats is what is kept in the state.
        validity = max(state.next_uidvalidity, min(batch.now, limits.UIDVALIDITY_MAX // 2), 1)
        batch.builder.do(
            ops.Created(
                tuple(
                    ops.FolderSpec(state.next_folder + number, name, use, validity + number)
                    for number, (name, use) in enumerate(DEFAULT_FOLDERS)
                )
            )
        )
        return batch.builder.seq


def flag_mask(state: AccountState, flags: Sequence[str]) -> tuple[int, list[ops.KeywordAdded]]:
    """The bits of `flags`, and the keywords that must be added for them. Raises `Refused` (limit)."""
    mask = 0
    added: list[ops.KeywordAdded] = []
    known: dict[str, int] | None = None
    for flag in flags:
        bit = _SYSTEM_BITS.get(flag.lower())
        if bit is None:
            if flag.startswith("\\"):
                continue  # \Recent and unknown system flags cannot be stored (RFC 9051 §2.3.2)
            if known is None:
                known = {name.lower(): FIRST_KEYWORD_BIT + number for number, name in enumerate(state.keywords)}
            bit = known.get(flag.lower())
            if bit is None:
                bit = FIRST_KEYWORD_BIT + len(known)
                if len(known) >= KEYWORDS_MAX or not 0 < len(flag.encode()) <= limits.KEYWORD_BYTES_MAX:
                    raise Refused(LIMIT, "keywords")
                known[flag.lower()] = bit
                added.append(ops.KeywordAdded(bit, flag))
        mask |= 1 << bit
    return mask, added


class NewPart(NamedTuple):
    """One message of an append."""

    prepared: Prepared
    flags: tuple[str, ...]
    date: int | None
    big: str  # id of its object, when its body has one


class Append(Request):
    """Messages into a folder, all or none."""

    def __init__(self, incarnation: int, folder_id: int, parts: Sequence[NewPart], quota_bytes: int | None = None) -> None:
        super().__init__(incarnation)
        self.folder_id = folder_id
        self.parts = parts
        self.quota_bytes = quota_bytes
        self.messages = len(parts)
        self.weight = 256 + sum(96 + len(part.prepared.summary_frame.data) + len(part.prepared.body_frame.data) for part in parts)

    def evaluate(self, batch: Batch) -> Appended | None:
        """Where they are."""
        self.check_incarnation(batch.state)
        self.check_quota(batch.state)
        return self.put(batch, self.folder(batch.state, self.folder_id))

    def check_quota(self, state: AccountState) -> None:
        """Full is full; the last one may overshoot, so that a limit smaller than a message is no trap. Raises `Refused`."""
        if self.quota_bytes is not None and state.bytes + sum(len(part.prepared.raw) for part in self.parts[:-1]) >= self.quota_bytes:
            raise Refused(OVER_QUOTA, f"{state.bytes} of {self.quota_bytes} bytes")

    def check_big_watermark(self, state: AccountState) -> None:
        """A reclaim may have listed an upload that nobody referred to yet: upload anew. Raises `Refused`."""
        for part in self.parts:
            if part.big and part.big <= state.big_watermark:
                raise Refused(BIG_BELOW_WATERMARK)

    def put(self, batch: Batch, folder: Folder) -> Appended:
        """The append itself, everything checked but watermark and limits."""
        state, builder = batch.state, batch.builder
        self.check_big_watermark(state)
        count = len(self.parts)
        uid, email = folder.uidnext, state.next_email
        if uid + count - 1 > limits.UID_MAX or email + count - 1 > limits.EMAIL_ID_MAX:
            raise Refused(LIMIT, "message numbers are used up")
        masks, keywords = self._masks(state)
        rows, bigs = [], []
        for number, part in enumerate(self.parts):
            prepared = part.prepared
            size = len(prepared.raw)
            length = 0 if part.big else 16 + len(prepared.body_frame.data)
            rows.append(
                ops.Row(
                    masks[number],
                    batch.now if part.date is None else part.date,
                    size,
                    columns.BIG if part.big else batch.body_bytes,  # from where the bodies begin; `finish` makes it absolute
                    length,
                    len(batch.bodies),
                )
            )
            if part.big:
                bigs.append(ops.BigBody(email + number, part.big, size, tuple(len(piece) for piece in prepared.pieces)))
            batch.summaries.append(prepared.summary_frame)
            batch.bodies.append(prepared.body_frame)
            batch.body_bytes += 16 + len(prepared.body_frame.data)
        for keyword in keywords:
            builder.do(keyword)
        builder.do(ops.Appended(folder.id, uid, email, batch.saved, tuple(rows), tuple(bigs)))
        return Appended(folder.uidvalidity, tuple(range(uid, uid + count)), builder.seq)

    def _masks(self, state: AccountState) -> tuple[list[int], list[ops.KeywordAdded]]:
        flags: dict[str, None] = {}
        for part in self.parts:
            flags.update(dict.fromkeys(part.flags))
        if not flags:
            return [0] * len(self.parts), []
        _, keywords = flag_mask(state, tuple(flags))
        if not keywords:
            return [flag_mask(state, part.flags)[0] for part in self.parts], []
        later = state.copy()
        later.keywords = (*state.keywords, *(keyword.name for keyword in keywords))
        return [flag_mask(later, part.flags)[0] for part in self.parts], keywords


class TransitKey(NamedTuple):
    """Names one delivery: recipient number `recipient` of message `message` of entry `seq` of transit log `log`."""

    log: int
    seq: int
    message: int
    recipient: int


class Deliver(Append):
    """One recipient's copy out of a transit log, exactly once."""

    def __init__(self, incarnation: int, folder: str, part: NewPart, key: TransitKey, watermark: int) -> None:
        super().__init__(incarnation, 0, (part,))
        self.folder_name = folder
        self.key = key
        self.watermark = watermark  # in the transit log, read before: all at or below it is done

    def already_applied(self, state: AccountState) -> bool:
        """The applied record and the watermark say whether this delivery is in the account already."""
        record = state.transit.get(self.key.log, NOTHING_APPLIED)
        return self.key.seq <= record.watermark or self.key[1:] in record.applied

    def evaluate(self, batch: Batch) -> Appended | None:
        """Where it is; None when it was there already."""
        state = batch.state
        self.check_incarnation(state)
        if self.already_applied(state):
            return None
        folder = state.folder_named(self.folder_name) or state.folder_named(names.INBOX)
        if folder is None:
            raise Refused(NO_SUCH_FOLDER, "INBOX")
        placed = self.put(batch, folder)
        record = state.transit.get(self.key.log, NOTHING_APPLIED)
        batch.builder.do(ops.Applied(*self.key))
        if record.watermark < self.watermark < self.key.seq:
            batch.builder.do(ops.WatermarkMoved(self.key.log, self.watermark))
        return placed


class StoreFlags(Request):
    """RFC 9051 §6.4.6, RFC 7162 §3.1.3."""

    def __init__(
        self,
        incarnation: int,
        folder_id: int,
        uids: Uids,
        mode: Literal["add", "remove", "replace"],
        flags: Sequence[str],
        unchanged_since: int | None,
    ) -> None:
        super().__init__(incarnation)
        self.folder_id = folder_id
        self.uids = uids
        self.mode = mode
        self.flags = tuple(flags)
        self.unchanged_since = unchanged_since
        self.weight = 256 + 4 * len(uids)

    def evaluate(self, batch: Batch) -> FlagsStored:
        """Which changed, which were kept by UNCHANGEDSINCE."""
        state, builder = batch.state, batch.builder
        self.check_incarnation(state)
        folder = self.folder(state, self.folder_id)
        flags = self.flags if self.mode != "remove" else self._known(state)
        mask, keywords = flag_mask(state, flags)
        clear = {"add": 0, "remove": mask, "replace": ALL_BITS}[self.mode]
        add = 0 if self.mode == "remove" else mask
        changed, failed = self._select(folder, clear, add)
        if not len(changed):
            return FlagsStored(changed, failed, folder.highestmodseq)
        for keyword in keywords:
            builder.do(keyword)
        builder.do(ops.FlagsChanged(folder.id, uidset.pack(changed), clear, add))
        return FlagsStored(changed, failed, builder.seq)

    def _known(self, state: AccountState) -> tuple[str, ...]:
        """Flags to remove: a keyword that the account does not have needs no bit."""
        known = {name.lower() for name in state.keywords}
        return tuple(flag for flag in self.flags if flag.lower() in known or flag.lower() in _SYSTEM_BITS)

    def _select(self, folder: Folder, clear: int, add: int) -> tuple[Uids, Uids]:
        changed, failed = [], []
        keep, bits = np.uint64(~clear & ALL_BITS), np.uint64(add)
        for number in columns.touched(folder.chunks, self.uids):
            chunk = folder.chunks[number]
            rows = columns.positions(chunk, self.uids)
            if self.unchanged_since is not None and len(rows):
                late = chunk.modseq[rows] > np.uint64(max(self.unchanged_since, 0))
                if late.any():
                    failed.append(chunk.uid[rows[late]])
                    rows = rows[~late]
            flags = chunk.flags[rows]
            differ = ((flags & keep) | bits) != flags
            if differ.all():
                changed.append(chunk.uid[rows])
            elif differ.any():
                changed.append(chunk.uid[rows[differ]])
        return _join(changed), _join(failed)


def _join(parts: list[Uids]) -> Uids:
    if not parts:
        return uidset.NONE
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class Copy(Request):
    """RFC 9051 §6.4.7 COPY, §6.4.8 MOVE."""

    def __init__(self, incarnation: int, folder_id: int, uids: Uids, target_id: int, *, move: bool) -> None:
        super().__init__(incarnation)
        self.folder_id = folder_id
        self.uids = uids
        self.target_id = target_id
        self.move = move
        self.weight = 256 + 4 * len(uids)

    def evaluate(self, batch: Batch) -> Copied:
        """Old and new UIDs."""
        state, builder = batch.state, batch.builder
        self.check_incarnation(state)
        source = self.folder(state, self.folder_id)
        target = self.folder(state, self.target_id)
        uids = columns.present(source.chunks, self.uids)
        if not len(uids):
            return Copied(target.uidvalidity, uids, uids, target.highestmodseq)
        first = target.uidnext
        if first + len(uids) - 1 > limits.UID_MAX:
            raise Refused(LIMIT, "UIDs are used up")
        if self.move:
            remember_less(batch, source, len(uids))
        builder.do(ops.CopiedOver(source.id, uidset.pack(uids), target.id, first, batch.saved, self.move))
        return Copied(target.uidvalidity, uids, np.arange(first, first + len(uids), dtype=np.uint32), builder.seq)


class Expunge(Request):
    """RFC 9051 §6.4.3, §6.4.9."""

    def __init__(self, incarnation: int, folder_id: int, uids: Uids | None, *, deleted_only: bool) -> None:
        super().__init__(incarnation)
        self.folder_id = folder_id
        self.uids = uids
        self.deleted_only = deleted_only
        self.weight = 256 + (4 * len(uids) if uids is not None else 4096)

    def evaluate(self, batch: Batch) -> Expunged:
        """The UIDs that went."""
        state, builder = batch.state, batch.builder
        self.check_incarnation(state)
        folder = self.folder(state, self.folder_id)
        uids = self._select(folder)
        if not len(uids):
            return Expunged(uids, folder.highestmodseq)
        remember_less(batch, folder, len(uids))
        builder.do(ops.Removed(folder.id, uidset.pack(uids)))
        return Expunged(uids, builder.seq)

    def _select(self, folder: Folder) -> Uids:
        deleted = np.uint64(1 << 3)
        parts = []
        affected = range(len(folder.chunks)) if self.uids is None else columns.touched(folder.chunks, self.uids)
        for number in affected:
            chunk = folder.chunks[number]
            rows = np.arange(chunk.count) if self.uids is None else columns.positions(chunk, self.uids)
            if self.deleted_only:
                rows = rows[(chunk.flags[rows] & deleted) != 0]
            if len(rows):
                parts.append(chunk.uid[rows])
        return _join(parts)


def remember_less(batch: Batch, folder: Folder, more: int) -> None:
    """Before an expunge: when the folder's memory of expunges is full, forget the older half."""
    records = folder.vanished
    if len(records) < limits.VANISHED_RECORDS_MAX and folder.vanished_uids + more <= limits.VANISHED_UIDS_MAX:
        return
    if records:
        batch.builder.do(ops.VanishedForgotten(folder.id, records[len(records) // 2].modseq))
