"""An open account: the façade's `Account` over its log, and the reader that all its views share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast
from weakref import ref

import numpy as np
import structlog
from numpy.typing import NDArray

from mailpod.errors import Corrupt, Refused
from mailpod.limits import store as limits
from mailpod.message.summary import Summary
from mailpod.store import columns, folder_requests, requests, uidset
from mailpod.store.account_snapshot import chunk_bytes
from mailpod.store.bodies import Bodies, BodyGoneError, Place, place_of
from mailpod.store.log import Log
from mailpod.store.prepared import Prepared, joined, prepare, prepare_elsewhere
from mailpod.store.reasons import BIG_BELOW_WATERMARK, EXPUNGED, LIMIT, NO_SUCH_FOLDER
from mailpod.store.requests import NewPart, Request
from mailpod.store.restore import view_at
from mailpod.store.segments import Segments
from mailpod.store.state import AccountState
from mailpod.store.summaries import Summaries
from mailpod.store.types import Appended, BlobColumn, Copied, Expunged, FlagsStored, NewMessage, Uids
from mailpod.store.views import AccountView, FolderView

if TYPE_CHECKING:
    from mailpod.store.mailstore import AccountLog
    from mailpod.store.shared import Shared

_log = structlog.get_logger(__name__)


class Reader:
    """Reads bodies and summaries for all views of one incarnation."""

    def __init__(self, log: Log[AccountState], segments: Segments, shared: Shared, incarnation: int) -> None:
        self._log = log
        self._bodies = Bodies(log.env, shared.bodies, log.name, log.keys, incarnation)
        self.kept = Summaries(shared.summaries, f"{log.name}/{incarnation}", log.read_entry, shared.summarize, segments)
        self.segments = segments
        self._columns: dict[tuple[int, str], tuple[NDArray[np.uint64], BlobColumn]] = {}

    def keep(self, email: int, prepared: Prepared) -> None:
        """An own append: nothing needs reading back."""
        self._bodies.keep(email, prepared.raw)
        self.kept.keep(email, prepared.summary)

    async def summaries(self, places: Sequence[Place]) -> list[Summary]:
        """Summaries of messages."""
        return await self.kept.read(places, self.body)

    async def grow_segments(self) -> None:
        """Put the summaries of what came in lately into a segment."""
        state = self._log.state
        above = self.segments.covered_to
        found: dict[int, Place] = {}
        for folder in state.folders.values():
            for chunk in folder.chunks:
                fixed = chunk.fixed[: chunk.count]
                for row in fixed[fixed["email"] > above]:
                    place = place_of(row, state.bigs)
                    found[place.email] = place
        if len(found) >= limits.SEGMENT_ROWS_MIN:
            await self.kept.grow([found[email] for email in sorted(found)], self.body)

    def remembered_column(self, folder_id: int, field: str) -> tuple[NDArray[np.uint64], BlobColumn] | None:
        """The last summary column of a folder that was computed, with its EMAILIDs."""
        return self._columns.get((folder_id, field))

    def remember_column(self, folder_id: int, field: str, emails: NDArray[np.uint64], column: BlobColumn) -> None:
        """Keep one, in place of the one before."""
        self._columns[folder_id, field] = (emails, column)

    async def body(self, place: Place, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of a body, verified. Raises `Refused` (expunged), `Corrupt`."""
        try:
            return await self._bodies.read(place, start, length)
        except BodyGoneError as gone:
            raw = await self.again(place, gone)
            return raw[start:] if length is None else raw[start : start + length]

    def bodies(self, places: Sequence[Place]) -> AsyncGenerator[tuple[int, bytes], None]:
        """Many whole bodies, read ahead."""
        return cast("AsyncGenerator[tuple[int, bytes], None]", self._bodies.read_many(places, self.again))

    async def again(self, place: Place, gone: Exception) -> bytes:
        """A body was not where the view said: look at the newest state. Expunged → gone; moved → read there; else corrupt."""
        await self._log.refresh()
        newest = find_place(self._log.state, place.email)
        if newest is None:
            raise Refused(EXPUNGED)
        try:
            return await self._bodies.read(newest)
        except BodyGoneError as still:
            self._log.raise_quarantine(Corrupt(f"EMAILID {place.email}: {still} ({gone})"))


def find_place(state: AccountState, email: int) -> Place | None:
    """Where the body of EMAILID `email` is now; None when no message has it any more."""
    for folder in state.folders.values():
        for chunk in folder.chunks:
            rows = np.flatnonzero(chunk.fixed["email"][: chunk.count] == email)
            if len(rows):
                return place_of(chunk.fixed[int(rows[0])], state.bigs)
    return None


class Account:
    """See `facade.Account`. All Accounts of one address share the log; each belongs to one incarnation."""

    def __init__(self, address: str, parts: AccountLog, shared: Shared) -> None:
        log = parts.log
        self.address = address
        self.incarnation = log.state.incarnation
        self.log = log
        self.parts = parts
        self._committer = parts.committer
        self._shared = shared
        self.reader = Reader(log, parts.segments, shared, self.incarnation)
        parts.extra.reader = ref(self.reader)
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._next_callback = 0
        self._shown_time = 0.0
        self.view = self._view_of(log.state)
        self.used_at = log.env.clock.monotonic()
        log.listen(self._moved)

    def _view_of(self, state: AccountState) -> AccountView:
        # Of an own commit the landing time is not known before somebody reads it: until then the last known one stands.
        # Never this pod's clock, for the past is asked for by the store's.
        self._shown_time = max(self._shown_time, self.log.time)
        return AccountView(state, self._shown_time, self.reader)

    def _moved(self, state: AccountState) -> None:
        if state.incarnation != self.incarnation or state.closed:
            if self._callbacks:
                asyncio.get_running_loop().call_soon(self._call_back)
            return  # the view stays what its owner last saw; every operation is refused
        self.view = self._view_of(state)
        if self._callbacks:
            asyncio.get_running_loop().call_soon(self._call_back)

    def _call_back(self) -> None:
        for callback in list(self._callbacks.values()):
            try:
                callback()
            except Exception as error:  # noqa: BLE001 - one session's fault is not the others'
                _log.error("store.callback.failed", log=self.log.name, exc_info=error)

    async def refresh(self, max_age_s: float = 0.0) -> AccountView:
        """The newest view."""
        await self.log.refresh(max_age_s)
        return self.view

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after every commit."""
        number = self._next_callback
        self._next_callback += 1
        self._callbacks[number] = callback

        def unregister() -> None:
            self._callbacks.pop(number, None)

        return unregister

    def memory_bytes(self) -> int:
        """What the account's columns take."""
        return chunk_bytes(self.log.state)

    def _ask(self, request: Request) -> Awaitable[Any]:
        self.used_at = self.log.env.clock.monotonic()
        return self._committer.submit(request)

    async def append(self, folder_id: int, messages: Sequence[NewMessage], *, quota_bytes: int | None = None) -> Appended:
        """All of `messages` in one commit. With a quota: refused (over-quota) when the account was full before the last of them."""
        if not messages or len(messages) > limits.ENTRY_MESSAGES_MAX:
            raise Refused(LIMIT, f"{len(messages)} messages at once")
        prepared = [await self.prepare(message.raw) for message in messages]
        return cast("Appended", await self.append_prepared(folder_id, messages, prepared, quota_bytes=quota_bytes))

    async def append_prepared(
        self,
        folder_id: int,
        messages: Sequence[NewMessage],
        prepared: Sequence[Prepared],
        *,
        quota_bytes: int | None = None,
        wrap: Callable[[requests.Append], Request] | None = None,
    ) -> object:
        """The same with what is prepared already; `wrap` may put the append into a larger request."""
        while True:
            ready = await self._shared.spread(self, prepared)
            parts = [NewPart(one, message.flags, message.internaldate, big) for message, (one, big) in zip(messages, ready, strict=True)]
            request = requests.Append(self.incarnation, folder_id, parts, quota_bytes)
            try:
                outcome = await self._ask(wrap(request) if wrap is not None else request)
            except Refused as error:
                if error.reason is BIG_BELOW_WATERMARK:
                    continue  # uploaded before, referred to too late: upload anew
                raise
            if isinstance(outcome, Appended):
                self._keep(folder_id, outcome, [one for one, _ in ready])
            return outcome

    def _keep(self, folder_id: int, appended: Appended, prepared: Sequence[Prepared]) -> None:
        folder = self.log.state.folders.get(folder_id)
        if folder is None or self.log.state.incarnation != self.incarnation:
            return
        found, fixed, _, _ = columns.gather(folder.chunks, np.array(appended.uids, dtype=np.uint32))
        if len(found) == len(prepared):
            for email, one in zip(fixed["email"].tolist(), prepared, strict=True):
                self.reader.keep(email, one)

    def keep_delivered(self, appended: Appended, prepared: Prepared) -> None:
        """A delivery out of transit: nothing needs reading back."""
        for folder in self.log.state.folders.values():
            if folder.uidvalidity == appended.uidvalidity:
                self._keep(folder.id, appended, [prepared])

    async def prepare(self, raw: bytes | Sequence[bytes]) -> Prepared:
        """Summary, compression, checksums: all that needs no place in the log yet."""
        data = joined(raw)
        if len(data) < limits.PREPARE_OFFLOAD_BYTES_MIN:
            return prepare(data, self._shared.summarize)
        return await self.log.env.offload(prepare_elsewhere, data, self._shared.summarize)

    async def store_flags(
        self,
        folder_id: int,
        uids: Uids,
        mode: Literal["add", "remove", "replace"],
        flags: Sequence[str],
        unchanged_since: int | None = None,
    ) -> FlagsStored:
        """Change flags."""
        request = requests.StoreFlags(self.incarnation, folder_id, ascending(uids), mode, flags, unchanged_since)
        return cast("FlagsStored", await self._ask(request))

    async def copy(self, folder_id: int, uids: Uids, target_id: int) -> Copied:
        """Copy messages."""
        return cast("Copied", await self._ask(requests.Copy(self.incarnation, folder_id, ascending(uids), target_id, move=False)))

    async def move(self, folder_id: int, uids: Uids, target_id: int) -> Copied:
        """Move messages."""
        return cast("Copied", await self._ask(requests.Copy(self.incarnation, folder_id, ascending(uids), target_id, move=True)))

    async def expunge(self, folder_id: int, uids: Uids | None = None, *, deleted_only: bool = True) -> Expunged:
        """Expunge messages."""
        wanted = None if uids is None else ascending(uids)
        return cast("Expunged", await self._ask(requests.Expunge(self.incarnation, folder_id, wanted, deleted_only=deleted_only)))

    async def create_folder(self, name: str, special_use: str = "") -> FolderView:
        """Make a folder."""
        folder_id = cast("int", await self._ask(folder_requests.CreateFolder(self.incarnation, name, special_use)))
        view = self.view.folder_by_id(folder_id)
        if view is None:  # deleted again in the same breath, by somebody else
            raise Refused(NO_SUCH_FOLDER)
        return view

    async def delete_folder(self, folder_id: int) -> None:
        """Delete a folder with its messages."""
        await self._ask(folder_requests.DeleteFolder(self.incarnation, folder_id))

    async def rename_folder(self, folder_id: int, name: str) -> None:
        """Rename a folder and all below it."""
        await self._ask(folder_requests.RenameFolder(self.incarnation, folder_id, name))

    async def set_subscribed(self, name: str, subscribed: bool) -> None:
        """RFC 9051 §6.3.7, §6.3.8."""
        await self._ask(folder_requests.Subscribe(self.incarnation, name, subscribed))

    async def ask(self, request: Request) -> Any:
        """Commit a request; for the store's own parts."""
        return await self._ask(request)

    async def at(self, moment: float) -> AccountView:
        """The account as it was."""
        return await view_at(self, moment)


def ascending(uids: Uids) -> Uids:
    """Sorted and unique, as all columns code wants them."""
    array = np.asarray(uids, dtype=np.uint32)
    if len(array) > 1 and not bool((array[1:] > array[:-1]).all()):
        return np.unique(array)
    return array if len(array) else uidset.NONE
