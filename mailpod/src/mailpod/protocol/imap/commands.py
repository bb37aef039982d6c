"""What a client asked for: one frozen struct per command. Names are decoded, numbers are checked, nothing is judged.

Mailbox names are `str` as Unicode in NFC, decoded from modified UTF-7, or from UTF-8 once that is enabled (RFC 9051 §5.1); INBOX in any
case is "INBOX". `uid` is true for the UID form of a command. Flags are spelled canonically when they are system flags ("\\Seen").
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from mailpod.protocol.imap.fetch_items import FetchItem
from mailpod.protocol.imap.search_keys import SearchKey
from mailpod.protocol.imap.sequence_set import SequenceSet


class Body(msgspec.Struct, frozen=True):
    """The root of all command structs."""


# --- any state, and before login (RFC 9051 §6.1, §6.2) ---


class Capability(Body, frozen=True):
    """CAPABILITY."""


class Noop(Body, frozen=True):
    """NOOP."""


class Logout(Body, frozen=True):
    """LOGOUT."""


class Id(Body, frozen=True):
    """ID (RFC 2971). None for NIL; values are None for NIL."""

    params: tuple[tuple[str, str | None], ...] | None


class StartTls(Body, frozen=True):
    """STARTTLS. Call `Reader.discard_buffered()` before negotiating: plaintext behind it must not count."""


class Authenticate(Body, frozen=True):
    """AUTHENTICATE. Then `Reader.expect_line(AUTHENTICATE_LINE_BYTES_MAX)` for each response; decode with `sasl.decode_response`."""

    mechanism: str  # upper case
    initial: bytes | None  # decoded initial response (RFC 4959), b"" for "="; None when there is none


class Login(Body, frozen=True):
    """LOGIN. Never log it."""

    user: str
    password: str


class Compress(Body, frozen=True):
    """COMPRESS (RFC 4978)."""

    mechanism: str  # upper case


# --- authenticated (RFC 9051 §6.3) ---


class Enable(Body, frozen=True):
    """ENABLE (RFC 5161)."""

    capabilities: tuple[str, ...]  # upper case


class Qresync(NamedTuple):
    """SELECT's QRESYNC parameter (RFC 7162 §3.2.5)."""

    uidvalidity: int
    modseq: int
    known_uids: SequenceSet | None
    known_seqs: SequenceSet | None  # with matched_uids: the client's sample of numbers and their UIDs
    matched_uids: SequenceSet | None


class Select(Body, frozen=True):
    """SELECT, and EXAMINE when `read_only`."""

    mailbox: str
    read_only: bool
    condstore: bool = False
    qresync: Qresync | None = None


class Create(Body, frozen=True):
    """CREATE, with the USE parameter of RFC 6154. A separator at the end of the name is kept."""

    mailbox: str
    special_use: tuple[str, ...] = ()  # "\\Sent" …, as RFC 6154 spells them where it knows them


class Delete(Body, frozen=True):
    """DELETE."""

    mailbox: str


class Rename(Body, frozen=True):
    """RENAME."""

    mailbox: str
    new_name: str


class Subscribe(Body, frozen=True):
    """SUBSCRIBE."""

    mailbox: str


class Unsubscribe(Body, frozen=True):
    """UNSUBSCRIBE."""

    mailbox: str


class ListSelect(enum.StrEnum):
    """LIST's selection options (RFC 5258 §3.1, RFC 6154)."""

    SUBSCRIBED = "SUBSCRIBED"
    REMOTE = "REMOTE"
    RECURSIVEMATCH = "RECURSIVEMATCH"
    SPECIAL_USE = "SPECIAL-USE"


class ListReturn(enum.StrEnum):
    """LIST's return options (RFC 5258 §3.2, RFC 6154); STATUS is `List.status`."""

    SUBSCRIBED = "SUBSCRIBED"
    CHILDREN = "CHILDREN"
    SPECIAL_USE = "SPECIAL-USE"


class StatusItem(enum.StrEnum):
    """What STATUS can be asked (RFC 9051 §6.3.11, RFC 7162, RFC 8474, RFC 7889, RFC 9208)."""

    MESSAGES = "MESSAGES"
    RECENT = "RECENT"
    UIDNEXT = "UIDNEXT"
    UIDVALIDITY = "UIDVALIDITY"
    UNSEEN = "UNSEEN"
    DELETED = "DELETED"
    DELETED_STORAGE = "DELETED-STORAGE"
    SIZE = "SIZE"
    HIGHESTMODSEQ = "HIGHESTMODSEQ"
    MAILBOXID = "MAILBOXID"
    APPENDLIMIT = "APPENDLIMIT"


class List(Body, frozen=True):
    """LIST, basic or extended (RFC 9051 §6.3.9, RFC 5258, RFC 5819).

    `extended` is true when any extended syntax was used; a basic LIST with the one pattern "" asks for the separator.
    """

    reference: str
    patterns: tuple[str, ...]  # "*" and "%" are wildcards; INBOX is as the client wrote it
    select: frozenset[ListSelect] = frozenset()
    returns: frozenset[ListReturn] = frozenset()
    status: tuple[StatusItem, ...] | None = None  # RETURN (STATUS (...))
    extended: bool = False


class Lsub(Body, frozen=True):
    """LSUB (RFC 3501 §6.3.9)."""

    reference: str
    pattern: str


class Namespace(Body, frozen=True):
    """NAMESPACE (RFC 2342)."""


class Status(Body, frozen=True):
    """STATUS."""

    mailbox: str
    items: tuple[StatusItem, ...]  # without repeats, in the client's order


class AppendMessage(NamedTuple):
    """One message of an APPEND: accepted, complete, as sent."""

    data: Sequence[bytes]  # in order; hand it on, don't join
    size: int  # bytes
    flags: tuple[str, ...]
    internaldate: int | None  # seconds since 1970-01-01 UTC
    literal8: bool  # may hold NUL (RFC 3516 §4.4)
    utf8: bool  # UTF8 (~{...}) (RFC 6855 §4)


class Append(Body, frozen=True):
    """APPEND and MULTIAPPEND (RFC 3502): all or nothing. Every literal was accepted by the session before (see `events.AppendLiteral`)."""

    mailbox: str
    messages: tuple[AppendMessage, ...]


class Idle(Body, frozen=True):
    """IDLE (RFC 2177). Then `Reader.expect_line(IDLE_LINE_BYTES_MAX)`; anything but "DONE" in any case is BAD."""


class GetQuota(Body, frozen=True):
    """GETQUOTA (RFC 9208)."""

    root: str


class GetQuotaRoot(Body, frozen=True):
    """GETQUOTAROOT (RFC 9208)."""

    mailbox: str


class SetQuota(Body, frozen=True):
    """SETQUOTA (RFC 9208)."""

    root: str
    limits: tuple[tuple[str, int], ...]  # resource name in upper case, limit in its unit


# --- selected (RFC 9051 §6.4) ---


class Check(Body, frozen=True):
    """CHECK (RFC 3501 §6.4.1)."""


class Close(Body, frozen=True):
    """CLOSE."""


class Unselect(Body, frozen=True):
    """UNSELECT (RFC 3691)."""


class Expunge(Body, frozen=True):
    """EXPUNGE; UID EXPUNGE (RFC 4315) when `uids` is given."""

    uids: SequenceSet | None = None


class SearchReturn(enum.StrEnum):
    """SEARCH's result options (RFC 4731, RFC 5182)."""

    MIN = "MIN"
    MAX = "MAX"
    COUNT = "COUNT"
    ALL = "ALL"
    SAVE = "SAVE"


class Search(Body, frozen=True):
    """SEARCH. `returns` is None without RETURN (IMAP4rev1 then answers with SEARCH); `RETURN ()` is {ALL} (RFC 4731 §3.1)."""

    uid: bool
    key: SearchKey
    returns: frozenset[SearchReturn] | None = None


class SortKey(enum.StrEnum):
    """What SORT can go by (RFC 5256 §3)."""

    ARRIVAL = "ARRIVAL"
    CC = "CC"
    DATE = "DATE"
    FROM = "FROM"
    SIZE = "SIZE"
    SUBJECT = "SUBJECT"
    TO = "TO"


class SortCriterion(NamedTuple):
    """One criterion, most significant first."""

    key: SortKey
    reverse: bool


class Sort(Body, frozen=True):
    """SORT (RFC 5256)."""

    uid: bool
    criteria: tuple[SortCriterion, ...]
    key: SearchKey


class Thread(Body, frozen=True):
    """THREAD (RFC 5256)."""

    uid: bool
    algorithm: str  # upper case: "REFERENCES", "ORDEREDSUBJECT"; others are refused while parsing
    key: SearchKey


class Fetch(Body, frozen=True):
    """FETCH. Macros are expanded; without repeats. UID FETCH always has `FetchAtt.UID` in `items`, MODSEQ with CHANGEDSINCE."""

    uid: bool
    numbers: SequenceSet
    items: tuple[FetchItem, ...]
    changed_since: int | None = None  # RFC 7162 §3.1.4
    vanished: bool = False  # RFC 7162 §3.2.6: only with uid and changed_since


class StoreMode(enum.StrEnum):
    """How STORE changes flags; the values are the store façade's."""

    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"


class Store(Body, frozen=True):
    """STORE."""

    uid: bool
    numbers: SequenceSet
    mode: StoreMode
    silent: bool
    flags: tuple[str, ...]
    unchanged_since: int | None = None  # RFC 7162 §3.1.3


class Copy(Body, frozen=True):
    """COPY."""

    uid: bool
    numbers: SequenceSet
    mailbox: str


class Move(Body, frozen=True):
    """MOVE (RFC 6851)."""

    uid: bool
    numbers: SequenceSet
    mailbox: str
