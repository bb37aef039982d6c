"""BODY[section] and BINARY[part] as byte ranges of a message (RFC 9051 §6.4.5, §6.4.5.1), by the offsets that its summary keeps."""

from __future__ import annotations

from typing import NamedTuple

from mailpod.errors import Refused
from mailpod.message.headers import select
from mailpod.message.sections import section_range
from mailpod.message.summary import Summary
from mailpod.message.text import decode_transfer
from mailpod.protocol.imap.fetch_items import BodySection, SectionText
from mailpod.sessions.imap.answers import UNKNOWN_CTE


class Extent(NamedTuple):
    """Bytes [start, end) of a message."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start

    def partial(self, offset: int | None, length: int | None) -> Extent:
        """`<offset.length>` of it; beyond its end it is empty (RFC 9051 §6.4.5)."""
        if offset is None or length is None:
            return self
        start = min(self.start + offset, self.end)
        return Extent(start, min(start + length, self.end))


def extent(section: BodySection, summary: Summary | None, size: int) -> Extent | None:
    """Where a section is, before `<offset.length>` and before header fields are chosen; None when the message has no such section."""
    if section.part == "" and section.text is SectionText.ALL:
        return Extent(0, size)
    assert summary is not None
    text = SectionText.HEADER if chooses_fields(section) else section.text
    found = section_range(summary.parts, section.part, text.value)
    return None if found is None else Extent(*found)


def chooses_fields(section: BodySection) -> bool:
    """Whether the section is made from its bytes, and is not a range of them."""
    return section.text in (SectionText.HEADER_FIELDS, SectionText.HEADER_FIELDS_NOT)


def chosen_fields(section: BodySection, header: bytes) -> bytes:
    """HEADER.FIELDS and HEADER.FIELDS.NOT of a header section, `<offset.length>` applied."""
    names = [name.encode("utf-8", "surrogateescape") for name in section.fields]
    chosen = select(header, names, end=len(header), inverted=section.text is SectionText.HEADER_FIELDS_NOT)
    return cut(chosen, section.offset, section.length)


def cut(data: bytes, offset: int | None, length: int | None) -> bytes:
    """`<offset.length>` of a value that is in memory."""
    return data if offset is None or length is None else data[offset : offset + length]


def decoded(data: bytes, encoding: str) -> bytes:
    """A part's content without its transfer encoding (RFC 3516 §4.3). Raises `Refused` for an encoding that is not known."""
    content = decode_transfer(data, encoding)
    if content is None:
        raise Refused(UNKNOWN_CTE)
    return content
