"""What the rest of the code sees of the store. Everything else in `mailpod.store` is its own business.

An `Account` is a log's live state, shared by all sessions of the pod. Its `view` is immutable: hold on to it for as long as a stable
picture is needed (POP3: the whole session; IMAP: until the next moment at which EXPUNGE may be told), then compare with a newer one by
MODSEQ. All methods are cancel-safe: a cancelled call may still have committed, and never leaves the account half changed.

Errors, besides those named: `StoreUnavailable`, `InDoubt`, `Corrupt`, and `Refused` with ACCOUNT_CLOSED when the account was erased
(or erased and made again) since it was opened.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mailpod.message.summary import Summary
from mailpod.store.types import (
    Appended,
    BlobColumn,
    Copied,
    Expunged,
    FlagsStored,
    NewMessage,
    Rows,
    TransitMessage,
    Uids,
    Usage,
)

SummaryField = Literal["envelope", "subject", "base_subject", "from_text", "to_text", "cc_text", "bcc_text", "message_id"]


class FolderView(Protocol):
    """One folder at one moment: immutable. Columns have one entry a message, in UID order; row = sequence number - 1."""

    id: int  # within the account; never reused. MAILBOXID is made from it (RFC 8474)
    name: str  # full path, SEPARATOR between levels, NFC; "INBOX" is spelled so
    uidvalidity: int
    uidnext: int
    highestmodseq: int
    special_use: str  # "\\Drafts" … or ""
    count: int  # messages

    def uids(self) -> Uids:
        """UIDs, ascending."""

    def modseqs(self) -> NDArray[np.uint64]:
        """MODSEQ of each message (RFC 7162)."""

    def flags(self) -> NDArray[np.uint64]:
        """Flag masks; see `types.SYSTEM_FLAGS` and `AccountView.keywords`."""

    def internaldates(self) -> NDArray[np.int64]:
        """INTERNALDATE, seconds since 1970-01-01 UTC."""

    def savedates(self) -> NDArray[np.int64]:
        """SAVEDATE (RFC 8514), seconds since 1970-01-01 UTC."""

    def sizes(self) -> NDArray[np.uint32]:
        """RFC822.SIZE, bytes."""

    def email_ids(self) -> NDArray[np.uint64]:
        """RFC 8474 EMAILID as a number: the same for copies, never reused in the account."""

    def rows_of(self, uids: Uids) -> Rows:
        """Rows of those of `uids` that are in the folder, ascending; others are left out."""

    def vanished_since(self, modseq: int) -> Uids | None:
        """UIDs expunged after `modseq`, ascending; None when that is further back than is remembered (then compare UIDs)."""

    async def summaries(self, rows: Rows) -> list[Summary]:
        """The summaries of `rows`, in their order."""

    async def summary_column(self, field: SummaryField) -> BlobColumn:
        """One field of every message of the folder, UTF-8; text fields casefolded. Kept in memory while it is warm."""

    async def read(self, row: int, start: int = 0, length: int | None = None) -> bytes:
        """Bytes [start, start+length) of a message, verified; shorter at its end.

        Raises `Refused` (reason "expunged") when the message was expunged and its body has been reclaimed since.
        """

    def read_many(self, rows: Rows) -> AsyncIterator[tuple[int, bytes]]:
        """Whole messages of `rows` as (row, bytes), in their order, read ahead in few large ranges with bounded memory.

        A body that has been reclaimed since is left out.
        """


class AccountView(Protocol):
    """The whole account at one moment: immutable."""

    seq: int  # of the last entry it includes; every MODSEQ is such a seq
    time: float  # the entry's landing time, seconds since 1970-01-01 UTC, monotone over seq
    keywords: tuple[str, ...]  # bit FIRST_KEYWORD_BIT+i of a flag mask
    usage: Usage
    subscriptions: frozenset[str]  # folder names, whether or not they exist

    def folders(self) -> Sequence[FolderView]:
        """All folders, INBOX first, then by name."""

    def folder(self, name: str) -> FolderView | None:
        """By name; INBOX in any case."""

    def folder_by_id(self, folder_id: int) -> FolderView | None:
        """By id."""


class Account(Protocol):
    """An open account. Folders are named by id in every operation, so that a rename in between does no harm."""

    address: str
    incarnation: int

    @property
    def view(self) -> AccountView:
        """The newest that this pod knows; replaced, never changed."""

    async def refresh(self, max_age_s: float = 0.0) -> AccountView:
        """Make sure that `view` was the newest at some moment less than `max_age_s` ago (0: asks the store now)."""

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` once on the loop after `view` was replaced, for every commit; returns the function that unregisters."""

    async def append(self, folder_id: int, messages: Sequence[NewMessage], *, quota_bytes: int | None = None) -> Appended:
        """All of `messages` in one commit, or none. Raises `Refused`: "no-such-folder", "limit", "over-quota".

        With `quota_bytes` the quota is checked at the commit, against the newest state: refused when the account was full before
        the last of `messages`, so that at most one message overshoots, from however many sessions and pods.
        """

    async def store_flags(
        self,
        folder_id: int,
        uids: Uids,
        mode: Literal["add", "remove", "replace"],
        flags: Sequence[str],
        unchanged_since: int | None = None,
    ) -> FlagsStored:
        """Change flags of those of `uids` that exist. Raises `Refused`: "no-such-folder", "limit" (too many keywords)."""

    async def copy(self, folder_id: int, uids: Uids, target_id: int) -> Copied:
        """Copy those of `uids` that exist, flags and internal dates kept. Raises `Refused`: "no-such-folder"."""

    async def move(self, folder_id: int, uids: Uids, target_id: int) -> Copied:
        """The same, and expunge them from the source in the same commit."""

    async def expunge(self, folder_id: int, uids: Uids | None = None, *, deleted_only: bool = True) -> Expunged:
        """Remove messages with \\Deleted (or all of `uids` when not `deleted_only`); None: the whole folder's."""

    async def create_folder(self, name: str, special_use: str = "") -> FolderView:
        """Also makes missing parents. Raises `Refused`: "folder-exists", "bad-folder-name", "limit", "special-use-taken"."""

    async def delete_folder(self, folder_id: int) -> None:
        """Raises `Refused`: "no-such-folder", "folder-has-children", "inbox" (INBOX can't be deleted)."""

    async def rename_folder(self, folder_id: int, name: str) -> None:
        """With all below it; INBOX: its messages move to a new folder of that name (RFC 9051 §6.3.6). Raises as create."""

    async def set_subscribed(self, name: str, subscribed: bool) -> None:
        """RFC 9051 §6.3.7, §6.3.8; the folder need not exist. Raises `Refused`: "bad-folder-name", "limit"."""

    async def at(self, moment: float) -> AccountView:
        """The account as a reader saw it at `moment` (seconds since 1970-01-01 UTC). Raises `Refused`: "beyond-retention"."""


class MailStore(Protocol):
    """One pod's way to all accounts of the fleet."""

    async def open(self, address: str) -> Account:
        """The account, made with DEFAULT_FOLDERS when there is none. Shared: opening twice gives the same object."""

    async def accept(self, message: TransitMessage) -> str:
        """Make a message with several recipients durable; returns its queue id. Each gets it exactly once, soon."""

    def transit_idle(self) -> bool:
        """Whether every transit log that this pod holds is empty."""

    async def drain(self) -> None:
        """Finish what is queued, work off transit, stop background work. After it nothing of this pod is left half done."""
