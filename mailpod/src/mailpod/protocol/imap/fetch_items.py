"""What FETCH can be asked for (RFC 9051 §6.4.5 and the extensions named beside each)."""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec


class FetchAtt(enum.StrEnum):
    """Items without arguments; the value is the name in the answer."""

    UID = "UID"
    FLAGS = "FLAGS"
    INTERNALDATE = "INTERNALDATE"
    RFC822_SIZE = "RFC822.SIZE"
    ENVELOPE = "ENVELOPE"
    BODY = "BODY"  # BODYSTRUCTURE without extension data
    BODYSTRUCTURE = "BODYSTRUCTURE"
    MODSEQ = "MODSEQ"  # RFC 7162
    EMAILID = "EMAILID"  # RFC 8474
    THREADID = "THREADID"  # RFC 8474
    SAVEDATE = "SAVEDATE"  # RFC 8514


class Preview(msgspec.Struct, frozen=True):
    """PREVIEW (RFC 8970)."""

    lazy: bool


class SectionText(enum.StrEnum):
    """Which text of a part."""

    ALL = ""  # BODY[], BODY[1.2]
    HEADER = "HEADER"
    HEADER_FIELDS = "HEADER.FIELDS"
    HEADER_FIELDS_NOT = "HEADER.FIELDS.NOT"
    TEXT = "TEXT"
    MIME = "MIME"


class BodySection(msgspec.Struct, frozen=True):
    """BODY[section]<offset.length>, and RFC822, RFC822.HEADER, RFC822.TEXT, which differ in `label` only."""

    label: bytes  # in the answer, with the origin: b"BODY[1.MIME]<0>"
    part: str  # "1.2", "" for the message
    text: SectionText
    peek: bool  # False: sets \\Seen
    fields: tuple[str, ...] = ()  # of HEADER.FIELDS(.NOT), as the client wrote them
    offset: int | None = None  # with length: the part of it that was asked for
    length: int | None = None


class BinarySection(msgspec.Struct, frozen=True):
    """BINARY[part]<offset.length> (RFC 3516): the part without its transfer encoding."""

    label: bytes
    part: str
    peek: bool
    offset: int | None = None
    length: int | None = None


class BinarySize(msgspec.Struct, frozen=True):
    """BINARY.SIZE[part] (RFC 3516)."""

    label: bytes
    part: str


FetchItem: TypeAlias = FetchAtt | Preview | BodySection | BinarySection | BinarySize
