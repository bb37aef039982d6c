"""A search program as a tree (RFC 9051 §6.4.4) of at most `SEARCH_NODES_MAX` nodes, `SEARCH_DEPTH_MAX` deep, so walking it may recurse.

Keys that are only short names for others come as those: UNSEEN is `Flag("\\Seen", False)`, NEW is `And((Recent(), Flag("\\Seen", False)))`,
OLD is `Not(Recent())`, FROM is `Header("from", …)`. Texts are decoded from the command's CHARSET.
"""

from __future__ import annotations

import datetime as dt
import enum
from typing import TypeAlias

import msgspec

from mailpod.protocol.imap.sequence_set import SequenceSet


class All(msgspec.Struct, frozen=True):
    """ALL: every message."""


class And(msgspec.Struct, frozen=True):
    """All of `keys` (two or more)."""

    keys: tuple[SearchKey, ...]


class Or(msgspec.Struct, frozen=True):
    """OR."""

    left: SearchKey
    right: SearchKey


class Not(msgspec.Struct, frozen=True):
    """NOT."""

    key: SearchKey


class Flag(msgspec.Struct, frozen=True):
    """A system flag or keyword is set, or not. System flags are spelled canonically; keywords compare without case."""

    flag: str
    present: bool


class Recent(msgspec.Struct, frozen=True):
    """RECENT (RFC 3501 only)."""


class Numbers(msgspec.Struct, frozen=True):
    """A sequence set, UID <set>, or `$` (`numbers.saved`, RFC 5182)."""

    numbers: SequenceSet
    uid: bool


class Header(msgspec.Struct, frozen=True):
    """A header field contains `text`; any message that has the field when `text` is "". FROM, TO, CC, BCC, SUBJECT come as this."""

    field: str  # lower case
    text: str


class Text(msgspec.Struct, frozen=True):
    """BODY (the body contains), or TEXT when `header_too`."""

    text: str
    header_too: bool


class DateField(enum.StrEnum):
    """Which date a key is about."""

    INTERNAL = "internal"  # BEFORE, ON, SINCE
    SENT = "sent"  # SENTBEFORE, …: the Date header
    SAVED = "saved"  # SAVEDBEFORE, … (RFC 8514)


class DateRelation(enum.StrEnum):
    """How a date compares, disregarding time and timezone."""

    BEFORE = "before"
    ON = "on"
    SINCE = "since"


class Date(msgspec.Struct, frozen=True):
    """A date key."""

    field: DateField
    relation: DateRelation
    date: dt.date


class SaveDateSupported(msgspec.Struct, frozen=True):
    """SAVEDATESUPPORTED (RFC 8514): all messages of a mailbox that keeps save dates."""


class Within(msgspec.Struct, frozen=True):
    """OLDER or YOUNGER (RFC 5032) than `seconds`, by INTERNALDATE."""

    older: bool
    seconds: int


class Size(msgspec.Struct, frozen=True):
    """LARGER or SMALLER than `octets`, both strictly."""

    larger: bool
    octets: int


class Modseq(msgspec.Struct, frozen=True):
    """MODSEQ (RFC 7162 §3.1.5): at least `modseq`. Entry names are parsed and dropped: modseqs are per message here."""

    modseq: int


class EmailId(msgspec.Struct, frozen=True):
    """EMAILID (RFC 8474)."""

    email_id: str


class ThreadId(msgspec.Struct, frozen=True):
    """THREADID (RFC 8474)."""

    thread_id: str


SearchKey: TypeAlias = (
    All | And | Or | Not | Flag | Recent | Numbers | Header | Text | Date | SaveDateSupported | Within | Size | Modseq | EmailId | ThreadId
)


def uses_modseq(key: SearchKey) -> bool:
    """Whether the program has a MODSEQ key: then the answer carries the highest MODSEQ (RFC 7162 §3.1.5)."""
    stack: list[SearchKey] = [key]
    while stack:
        match stack.pop():
            case Modseq():
                return True
            case And(keys):
                stack.extend(keys)
            case Or(left, right):
                stack += (left, right)
            case Not(inner):
                stack.append(inner)
            case _:
                pass
    return False
