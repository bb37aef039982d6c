"""What sessions see: a folder and an account at one moment. Immutable; computed columns are kept with the folder's value."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from mailpod.message.summary import Summary
from mailpod.store import columns, uidset
from mailpod.store.bodies import Place, place_of
from mailpod.store.facade import SummaryField
from mailpod.store.names import INBOX
from mailpod.store.state import AccountState, Folder
from mailpod.store.types import BlobColumn, Rows, Uids, Usage

if TYPE_CHECKING:
    from mailpod.store.account import Reader

_TEXT_FIELDS = frozenset(("subject", "base_subject", "from_text", "to_text", "cc_text", "bcc_text", "message_id"))


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """The same array, read-only for whoever gets it."""
    view = array.view()
    view.setflags(write=False)
    return view


class FolderView:
    """See `facade.FolderView`."""

    __slots__ = ("_bigs", "_folder", "_reader", "count", "highestmodseq", "id", "name", "special_use", "uidnext", "uidvalidity")

    def __init__(self, folder: Folder, state: AccountState, reader: Reader) -> None:
        self._folder = folder
        self._bigs = state.bigs
        self._reader = reader
        self.id = folder.id
        self.name = folder.name
        self.uidvalidity = folder.uidvalidity
        self.uidnext = folder.uidnext
        self.highestmodseq = folder.highestmodseq
        self.special_use = folder.special_use
        self.count = folder.count

    def _column(self, name: str, make: Any) -> Any:
        cache = self._folder.cache
        found = cache.get(name)
        if found is None:
            found = cache[name] = frozen(make())
        return found

    def uids(self) -> Uids:
        """UIDs, ascending."""
        return cast("Uids", self._column("uid", lambda: columns.uid_column(self._folder.chunks)))

    def modseqs(self) -> NDArray[np.uint64]:
        """MODSEQs."""
        return cast("NDArray[np.uint64]", self._column("modseq", lambda: columns.modseq_column(self._folder.chunks)))

    def flags(self) -> NDArray[np.uint64]:
        """Flag masks."""
        return cast("NDArray[np.uint64]", self._column("flags", lambda: columns.flags_column(self._folder.chunks)))

    def _fixed(self, name: str, dtype: Any) -> Any:
        return self._column(name, lambda: columns.column(self._folder.chunks, name).astype(dtype, copy=False))

    def internaldates(self) -> NDArray[np.int64]:
        """Internal dates, s since 1970."""
        return cast("NDArray[np.int64]", self._fixed("date", np.int64))

    def savedates(self) -> NDArray[np.int64]:
        """Save dates, s since 1970."""
        return cast("NDArray[np.int64]", self._fixed("saved", np.int64))

    def sizes(self) -> NDArray[np.uint32]:
        """RFC822.SIZE, bytes."""
        return cast("NDArray[np.uint32]", self._fixed("size", np.uint32))

    def email_ids(self) -> NDArray[np.uint64]:
        """EMAILIDs."""
        return cast("NDArray[np.uint64]", self._fixed("email", np.uint64))

    def rows_of(self, uids: Uids) -> Rows:
        """Rows of those of `uids` that are here, ascending."""
        mine = self.uids()
        if not len(mine) or not len(uids):
            return np.empty(0, dtype=np.int64)
        wanted = np.asarray(uids, dtype=np.uint32)
        at = np.minimum(np.searchsorted(mine, wanted), len(mine) - 1)
        rows: Rows = at[mine[at] == wanted].astype(np.int64, copy=False)
        return rows

    def vanished_since(self, modseq: int) -> Uids | None:
        """UIDs expunged after `modseq`; None when not remembered."""
        if modseq < self._folder.vanished_floor:
            return None
        parts = [record.uids for record in self._folder.vanished if record.modseq > modseq]
        if not parts:
            return uidset.NONE
        return parts[0] if len(parts) == 1 else np.unique(np.concatenate(parts))

    def places(self, rows: Sequence[int] | Rows) -> list[Place]:
        """Where the bodies of `rows` are."""
        chunks = self._folder.chunks
        out = []
        if len(chunks) == 1:
            fixed = chunks[0].fixed
            for row in rows:
                if not 0 <= row < self.count:
                    raise IndexError(row)
                out.append(place_of(fixed[row], self._bigs))
            return out
        starts = np.cumsum([0, *(chunk.count for chunk in chunks)])
        for row in rows:
            if not 0 <= row < self.count:
                raise IndexError(row)
            number = int(np.searchsorted(starts, row, side="right")) - 1
            out.append(place_of(chunks[number].fixed[int(row - starts[number])], self._bigs))
        return out

    async def summaries(self, rows: Rows) -> list[Summary]:
        """Summaries of `rows`, in their order."""
        return await self._reader.summaries(self.places(rows))

    async def summary_column(self, field: SummaryField) -> BlobColumn:
        """One field of all messages."""
        key = f"summary {field}"
        found = self._folder.cache.get(key)
        if found is None:
            made = await self._extend_column(field)
            self._folder.cache[key] = made
            self._reader.remember_column(self.id, field, self.email_ids(), made)
            return made
        return cast("BlobColumn", found)

    async def _extend_column(self, field: SummaryField) -> BlobColumn:
        """From the last value that this pod computed for the folder, with what is new read and what went left out."""
        emails = self.email_ids()
        before = self._reader.remembered_column(self.id, field)
        values: list[bytes]
        if before is not None and _begins_with(emails, before[0]):
            old_emails, old = before
            fresh = range(len(old_emails), len(emails))
            values = await self._field(field, fresh)
            if not values:
                return old
            offsets = np.empty(len(emails) + 1, dtype=np.int64)
            offsets[: len(old.offsets)] = old.offsets
            np.cumsum([len(value) for value in values], out=offsets[len(old.offsets) :])
            offsets[len(old.offsets) :] += old.offsets[-1]
            return BlobColumn(b"".join((old.blob, *values)), cast("NDArray[np.int64]", frozen(offsets)))
        if before is not None:
            old_emails, old = before
            at = {int(email): number for number, email in enumerate(old_emails.tolist())}
            new_rows = [row for row, email in enumerate(emails.tolist()) if email not in at]
            fetched = dict(zip(new_rows, await self._field(field, new_rows), strict=True))
            ends = old.offsets.tolist()
            values = []
            for row, email in enumerate(emails.tolist()):
                number = at.get(email)
                values.append(fetched[row] if number is None else old.blob[ends[number] : ends[number + 1]])
        else:
            values = await self._field(field, range(len(emails)))
        offsets = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum([len(value) for value in values], out=offsets[1:])
        return BlobColumn(b"".join(values), cast("NDArray[np.int64]", frozen(offsets)))

    async def _field(self, field: SummaryField, rows: Sequence[int]) -> list[bytes]:
        out: list[bytes] = []
        for start in range(0, len(rows), 4096):
            for summary in await self._reader.summaries(self.places(rows[start : start + 4096])):
                value = getattr(summary, field)
                if field in _TEXT_FIELDS:
                    value = value.casefold().encode("utf-8", "replace")
                out.append(value)
        return out

    async def read(self, row: int, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of a message."""
        return await self._reader.body(self.places((row,))[0], start, length)

    def read_many(self, rows: Rows) -> AsyncIterator[tuple[int, bytes]]:
        """Whole messages, read ahead."""
        return self._read_many(rows)

    async def _read_many(self, rows: Rows) -> AsyncIterator[tuple[int, bytes]]:
        numbers = [int(row) for row in rows]
        reading = self._reader.bodies(self.places(numbers))
        try:
            async for number, raw in reading:
                yield numbers[number], raw
        finally:
            await reading.aclose()


def _begins_with(emails: NDArray[np.uint64], before: NDArray[np.uint64]) -> bool:
    return len(emails) >= len(before) and bool((emails[: len(before)] == before).all())


class AccountView:
    """See `facade.AccountView`."""

    __slots__ = ("_by_name", "_faces", "_folders", "_reader", "_state", "keywords", "seq", "subscriptions", "time", "usage")

    def __init__(self, state: AccountState, time: float, reader: Reader) -> None:
        self._state = state
        self._reader = reader
        self._faces: dict[int, FolderView] = {}
        self._folders: list[FolderView] | None = None
        self._by_name: dict[str, FolderView] | None = None
        self.seq = state.seq
        self.time = time
        self.keywords = state.keywords
        self.usage = Usage(state.bytes, state.messages)
        self.subscriptions = state.subscriptions

    @property
    def state(self) -> AccountState:
        """The value below; for the store's own code and its tests."""
        return self._state

    def _face(self, folder: Folder) -> FolderView:
        face = self._faces.get(folder.id)
        if face is None:
            face = self._faces[folder.id] = FolderView(folder, self._state, self._reader)
        return face

    def folders(self) -> Sequence[FolderView]:
        """INBOX first, then by name."""
        if self._folders is None:
            ordered = sorted(self._state.folders.values(), key=lambda folder: (folder.name != INBOX, folder.name))
            self._folders = [self._face(folder) for folder in ordered]
        return self._folders

    def folder(self, name: str) -> FolderView | None:
        """By name; INBOX in any case."""
        if self._by_name is None:
            self._by_name = {folder.name: folder for folder in self.folders()}
        if name[:5].upper() == INBOX and (len(name) == 5 or name[5] == "/"):
            name = INBOX + name[5:]
        return self._by_name.get(name)

    def folder_by_id(self, folder_id: int) -> FolderView | None:
        """By id."""
        folder = self._state.folders.get(folder_id)
        return self._face(folder) if folder is not None else None
