"""What an administrator does to accounts: plain functions that the command line calls. None of them makes an account that is not there,
save `import_messages`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from mailpod.errors import Corrupt, Reason, Refused
from mailpod.limits import store as limits
from mailpod.store import entry as entries
from mailpod.store import operations as ops
from mailpod.store import verify as verifying
from mailpod.store.account import Account
from mailpod.store.erasing import Purge, Purged, erase_and_purge
from mailpod.store.folder_requests import Mark
from mailpod.store.forgetting import Forgetting
from mailpod.store.keys import address_of
from mailpod.store.mailstore import AccountLog, MailStore
from mailpod.store.reasons import LIMIT
from mailpod.store.requests import Append, Request
from mailpod.store.restore import Restored
from mailpod.store.restore import restore as restore_account
from mailpod.store.types import SYSTEM_FLAGS, NewMessage, Usage
from mailpod.store.uidset import unpack

NO_SUCH_ACCOUNT = Reason("no-such-account", 550, "5.1.1", "NO", "NONEXISTENT", "SYS/PERM", "There is no such mailbox in the bucket")


async def list_accounts(store: MailStore) -> AsyncIterator[str]:
    """Addresses of all accounts that have anything in the bucket, erased ones too, in key order. One LIST an account."""
    env = store.env
    prefix = env.keys.accounts()
    after = ""
    while rows := await env.objects.list(prefix, start_after=after, limit=1):
        name = env.keys.name_of(rows[0].key)
        if name is None:
            after = rows[0].key
            continue
        yield address_of(name)
        after = env.keys.after(name)


async def open_existing(store: MailStore, address: str) -> AccountLog:
    """The account's log, brought to its newest state. Raises `Refused` (no-such-account) when the bucket has none."""
    parts = AccountLog(store.shared, address)
    await parts.snapshots.open()
    if parts.log.state.seq == 0:
        raise Refused(NO_SUCH_ACCOUNT, address)
    return parts


async def _account(store: MailStore, address: str) -> Account:
    """An open account that exists and was not erased. Raises `Refused`."""
    parts = await open_existing(store, address)
    if parts.log.state.closed:
        raise Refused(NO_SUCH_ACCOUNT, f"{address} was erased")
    return await store.open(address)


class FolderInfo(NamedTuple):
    """A folder, for people."""

    id: int
    name: str
    special_use: str
    uidvalidity: int
    uidnext: int
    highestmodseq: int
    messages: int
    bytes: int


class AccountInfo(NamedTuple):
    """An account, for people."""

    address: str
    log: str  # the log's name: its key without the bucket prefix
    head: int
    time: float  # landing time of the head, seconds since 1970-01-01 UTC
    incarnation: int
    closed: bool
    floor: int  # the oldest state that can be restored
    usage: Usage
    keywords: tuple[str, ...]
    folders: tuple[FolderInfo, ...]


async def show(store: MailStore, address: str) -> AccountInfo:
    """What there is. Raises `Refused` (no-such-account), `Corrupt`, `StoreUnavailable`."""
    parts = await open_existing(store, address)
    state, time = await parts.log.settle_time()
    folders = tuple(
        FolderInfo(one.id, one.name, one.special_use, one.uidvalidity, one.uidnext, one.highestmodseq, one.count, one.bytes)
        for one in sorted(state.folders.values(), key=lambda folder: folder.name)
    )
    return AccountInfo(
        address,
        parts.log.name,
        state.seq,
        time,
        state.incarnation,
        state.closed,
        state.floor,
        Usage(state.bytes, state.messages),
        state.keywords,
        folders,
    )


class EntryInfo(NamedTuple):
    """One entry of a log, for people."""

    seq: int
    commit: str  # hex
    time: float  # landing, seconds since 1970-01-01 UTC
    size: int  # bytes that the object has now
    messages: int  # that it brought
    state: str  # "", "emptied" or "stripped"
    operations: list[dict[str, Any]]  # the operation's name under "operation", and its fields


async def log_entries(store: MailStore, address: str, first: int = 1, last: int | None = None) -> AsyncIterator[EntryInfo]:
    """The entries from `first` to `last` (or the head), decoded. Raises `Refused`, `Corrupt`."""
    parts = AccountLog(store.shared, address)
    seq = first
    while last is None or seq <= last:
        entry = await parts.log.read_entry(seq)
        if entry is None:
            if seq == 1:
                raise Refused(NO_SUCH_ACCOUNT, address)
            return
        header = entry.header
        stripped = bool(header.flags & entries.STRIPPED)
        state = "stripped" if stripped else "emptied" if header.flags & entries.EMPTIED else ""
        operations = [] if stripped else [_describe(operation) for operation in ops.decode(entry.operations)]
        yield EntryInfo(seq, header.commit.hex(), entry.landing, entry.size, header.frames // 2, state, operations)
        seq += 1


def _describe(operation: ops.Operation) -> dict[str, Any]:
    """An operation's fields; sets of UIDs as ranges."""
    out: dict[str, Any] = {"operation": type(operation).__name__}
    for field in msgspec.structs.fields(operation):
        value = getattr(operation, field.name)
        if field.name == "uids":
            value = ranges(unpack(value))
        elif isinstance(value, bytes):
            value = f"{len(value)} bytes"
        elif isinstance(value, tuple):
            value = [msgspec.structs.asdict(one) if isinstance(one, msgspec.Struct) else one for one in value]
        elif isinstance(value, msgspec.Struct):
            value = msgspec.structs.asdict(value)
        out[field.name] = value
    return out


def ranges(uids: Any) -> str:
    """An ascending array as an IMAP sequence set."""
    if not len(uids):
        return ""
    breaks = np.flatnonzero(np.diff(uids) != 1)
    starts = [0, *(breaks + 1).tolist()]
    ends = [*breaks.tolist(), len(uids) - 1]
    return ",".join(str(uids[start]) if start == end else f"{uids[start]}:{uids[end]}" for start, end in zip(starts, ends, strict=True))


async def verify(store: MailStore, address: str, progress: Callable[[int], None] | None = None) -> verifying.Report:
    """Check everything of the account; see `verify.verify`. Raises `Refused` (no-such-account) when there is nothing."""
    parts = AccountLog(store.shared, address)
    try:
        if await parts.log.read_entry(1) is None:
            raise Refused(NO_SUCH_ACCOUNT, address)
    except Corrupt:
        pass  # that is what the report will say
    return await verifying.verify(parts, progress)


async def reclaim(store: MailStore, address: str) -> ops.Reclaimed | None:
    """Forget what was expunged before the retention window; what was listed and carried out, None when there was nothing."""
    return await Forgetting(await _account(store, address)).run()


async def erase(store: MailStore, address: str) -> Purged:
    """Close the account and take all its mail away, for good. May be repeated. Raises `Refused` (no-such-account)."""
    return await erase_and_purge(await open_existing(store, address))


async def purge(store: MailStore, address: str) -> Purged:
    """Take away what an earlier erase closed (it may have been interrupted)."""
    return await Purge(await open_existing(store, address)).run()


async def restore(store: MailStore, address: str, moment: float, into: str | None = None, *, dry_run: bool = False) -> Restored:
    """Bring back the mail of `moment`; see `restore.restore`. Raises `Refused` (no-such-account, beyond-retention, …)."""
    return await restore_account(await _account(store, address), moment, into, dry_run=dry_run)


class Exported(NamedTuple):
    """One message on its way out."""

    folder: str
    uid: int
    flags: tuple[str, ...]  # system flags and keywords
    internaldate: int  # seconds since 1970-01-01 UTC
    raw: bytes


async def export_messages(store: MailStore, address: str, moment: float | None = None) -> AsyncIterator[Exported]:
    """All messages, folder by folder, of now or of `moment`. Raises `Refused` (no-such-account, beyond-retention)."""
    account = await _account(store, address)
    view = await account.refresh() if moment is None else await account.at(moment)
    names = (*SYSTEM_FLAGS, *view.keywords)
    for folder in view.folders():
        uids, masks, dates = folder.uids(), folder.flags(), folder.internaldates()
        async for row, raw in folder.read_many(np.arange(folder.count)):
            mask = int(masks[row])
            flags = tuple(name for bit, name in enumerate(names) if mask >> bit & 1)
            yield Exported(folder.name, int(uids[row]), flags, int(dates[row]), raw)


class Import:
    """Appends messages in batches; each batch's commit also moves a marker, so that an import that was cut off goes on exactly there.

    `key` names the import (for example the file's name and size). Use: `await start()`, skip as many messages as it returns, `add` each
    following one, `finish`.
    """

    def __init__(self, store: MailStore, address: str, key: str) -> None:
        if not key or len(key) > 512:
            raise Refused(LIMIT, "an import's key has 1 to 512 characters")
        self._store = store
        self._address = address
        self._key = key
        self._account: Account | None = None
        self._done = 0
        self._folder = ""
        self._waiting: list[NewMessage] = []
        self._bytes = 0

    async def start(self) -> int:
        """Opens the account (makes it when there is none); how many messages an earlier run has imported already."""
        self._account = await self._store.open(self._address)
        await self._account.refresh()
        self._done = int(self._account.view.state.markers.get(self._key, "0"))
        return self._done

    async def add(self, folder: str, message: NewMessage) -> None:
        """One more message, into the folder of that name (made when missing)."""
        size = len(message.raw) if isinstance(message.raw, bytes) else sum(len(part) for part in message.raw)
        if self._waiting and (folder != self._folder or self._bytes + size > limits.ENTRY_BYTES_MAX // 2 or len(self._waiting) >= 1000):
            await self._flush()
        self._folder = folder
        self._waiting.append(message)
        self._bytes += size

    async def finish(self) -> int:
        """Write what is left and remove the marker; how many messages the import has, earlier runs included."""
        await self._flush()
        account = self._open()
        await account.ask(Mark(account.incarnation, self._key, ""))
        return self._done

    def _open(self) -> Account:
        assert self._account is not None, "start() comes first"
        return self._account

    async def _flush(self) -> None:
        if not self._waiting:
            return
        account = self._open()
        folder = account.view.folder(self._folder) or await account.create_folder(self._folder)
        done = self._done + len(self._waiting)

        def marked(append: Append) -> Request:
            return Mark(account.incarnation, self._key, str(done), append)

        prepared = [await account.prepare(message.raw) for message in self._waiting]
        await account.append_prepared(folder.id, self._waiting, prepared, wrap=marked)
        self._done = done
        self._waiting, self._bytes = [], 0
