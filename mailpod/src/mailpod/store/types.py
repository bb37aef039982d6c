"""The values that cross the store's façade. Plain data: no behaviour, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Uids = NDArray[np.uint32]  # ascending, unique
Rows = NDArray[np.int64]  # row numbers of a FolderView: message sequence number - 1

# System flags are bits 0-4 of a message's flag mask; bit 5+i is the account's keyword i (`AccountView.keywords`).
SEEN, ANSWERED, FLAGGED, DELETED, DRAFT = (np.uint64(1 << bit) for bit in range(5))
SYSTEM_FLAGS = ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft")
FIRST_KEYWORD_BIT = 5
KEYWORDS_MAX = 64 - FIRST_KEYWORD_BIT  # distinct keywords in one account; one more is NO [LIMIT]

# Folders made when an account is created: name, special use (RFC 6154).
DEFAULT_FOLDERS = (
    ("INBOX", ""),
    ("Drafts", "\\Drafts"),
    ("Sent", "\\Sent"),
    ("Junk", "\\Junk"),
    ("Trash", "\\Trash"),
    ("Archive", "\\Archive"),
)
SEPARATOR = "/"  # of the folder hierarchy


class NewMessage(NamedTuple):
    """A message to append. `raw` are its bytes, CRLF line ends, stored as they are; several buffers are joined."""

    raw: bytes | Sequence[bytes]
    flags: tuple[str, ...] = ()  # "\\Seen", "$Forwarded", …
    internaldate: int | None = None  # seconds since 1970-01-01 UTC; None: now


class Appended(NamedTuple):
    """Where appended messages are (RFC 4315 APPENDUID)."""

    uidvalidity: int
    uids: tuple[int, ...]
    modseq: int


class Copied(NamedTuple):
    """RFC 4315 COPYUID, for copy and move: uids[i] of the source became new_uids[i]."""

    uidvalidity: int  # of the destination
    uids: Uids
    new_uids: Uids
    modseq: int


class FlagsStored(NamedTuple):
    """The outcome of a flag change."""

    changed: Uids  # those whose flags differ now
    failed: Uids  # those that UNCHANGEDSINCE kept as they were (RFC 7162 §3.1.3 MODIFIED)
    modseq: int  # of the change; the folder's HIGHESTMODSEQ when nothing changed


class Expunged(NamedTuple):
    """The outcome of an expunge."""

    uids: Uids
    modseq: int


class BlobColumn(NamedTuple):
    """Many byte strings in one: item i is blob[offsets[i]:offsets[i+1]]."""

    blob: bytes
    offsets: NDArray[np.int64]  # shape (n+1,)


class Usage(NamedTuple):
    """What counts against the quota."""

    bytes: int
    messages: int


class TransitRecipient(NamedTuple):
    """One local recipient of an accepted message."""

    account: str  # address that names the account
    folder: str  # name; INBOX when it does not exist at the time
    prefix: bytes  # header lines put before the message for this recipient (Return-Path, Delivered-To)
    flags: tuple[str, ...] = ()


class TransitMessage(NamedTuple):
    """A message that has several recipients: durable once in a transit log, then applied to each account exactly once."""

    raw: bytes | Sequence[bytes]
    reverse_path: str  # "" for the null sender
    recipients: tuple[TransitRecipient, ...]
