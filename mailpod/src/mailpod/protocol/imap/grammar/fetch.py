"""FETCH and UID FETCH (RFC 9051 §6.4.5), with BINARY (RFC 3516), CONDSTORE and QRESYNC (RFC 7162), OBJECTID, PREVIEW, SAVEDATE."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from mailpod.limits import imap as limits
from mailpod.protocol.imap import commands
from mailpod.protocol.imap.fetch_items import BinarySection, BinarySize, BodySection, FetchAtt, FetchItem, Preview, SectionText
from mailpod.protocol.imap.grammar.verb import Verb
from mailpod.protocol.imap.responses import astring
from mailpod.protocol.imap.states import SELECTED
from mailpod.protocol.imap.tokenizer import NUMBER64_MAX, Cursor, ParseError

_NAME = re.compile(rb"[A-Za-z0-9.]+")
_PART = re.compile(rb"[1-9][0-9]{0,9}(?:\.[1-9][0-9]{0,9})*+")
_FIELD = re.compile(rb"[\x21-\x39\x3b-\x7e]+")  # RFC 5322 §2.2 ftext

_FAST: Final = (FetchAtt.FLAGS, FetchAtt.INTERNALDATE, FetchAtt.RFC822_SIZE)
MACROS: Final[dict[str, tuple[FetchItem, ...]]] = {  # RFC 9051 §6.4.5: alone, not in a list
    "FAST": _FAST,
    "ALL": (*_FAST, FetchAtt.ENVELOPE),
    "FULL": (*_FAST, FetchAtt.ENVELOPE, FetchAtt.BODY),
}


def _rfc822(label: bytes, text: SectionText, peek: bool) -> BodySection:
    return BodySection(label, "", text, peek)


# Items without arguments. RFC 3501 §6.4.5: RFC822 and RFC822.TEXT set \Seen, RFC822.HEADER does not.
ATOMS: Final[dict[str, FetchItem]] = {
    **{item.value: item for item in FetchAtt},
    "RFC822": _rfc822(b"RFC822", SectionText.ALL, peek=False),
    "RFC822.HEADER": _rfc822(b"RFC822.HEADER", SectionText.HEADER, peek=True),
    "RFC822.TEXT": _rfc822(b"RFC822.TEXT", SectionText.TEXT, peek=False),
}


def _part(cursor: Cursor) -> str:
    """`nz-number *("." nz-number)`; "" when none comes."""
    match = _PART.match(cursor.text, cursor.position)
    if match is None:
        return ""
    if match[0].count(b".") >= limits.SECTION_DEPTH_MAX:
        raise ParseError("Section is too deep", "LIMIT")
    cursor.position = match.end()
    return match[0].decode("ascii")


def is_header_field(name: bytes) -> bool:
    """Whether a header field can have this name."""
    return len(name) <= limits.HEADER_FIELD_BYTES_MAX and _FIELD.fullmatch(name) is not None


def _header_field(cursor: Cursor) -> str:
    name = cursor.astring()
    if not is_header_field(name):
        raise ParseError("Bad header field name")
    return name.decode("ascii")


def _section(cursor: Cursor) -> tuple[str, SectionText, tuple[str, ...]]:
    """`[section-spec] "]"` (RFC 9051 §9)."""
    part = _part(cursor)
    text = SectionText.ALL
    fields: tuple[str, ...] = ()
    if not cursor.at(b"]"):
        if part:
            cursor.expect(b".")
        match = _NAME.match(cursor.text, cursor.position)
        try:
            text = SectionText(match[0].decode("ascii").upper() if match else "?")
        except ValueError:
            raise ParseError("Bad section") from None
        assert match is not None
        cursor.position = match.end()
        if text is SectionText.MIME and not part:
            raise ParseError("MIME needs a part number")
        if text in (SectionText.HEADER_FIELDS, SectionText.HEADER_FIELDS_NOT):
            cursor.space()
            fields = tuple(cursor.parenthesized(lambda: _header_field(cursor), limits.HEADER_FIELDS_MAX))
    cursor.expect(b"]")
    return part, text, fields


def _partial(cursor: Cursor) -> tuple[int | None, int | None]:
    """`["<" number64 "." nz-number64 ">"]`."""
    if not cursor.take(b"<"):
        return None, None
    offset = cursor.number64()
    cursor.expect(b".")
    length = cursor.number(NUMBER64_MAX, 1)
    cursor.expect(b">")
    return offset, length


def _label(name: bytes, inner: bytes, offset: int | None) -> bytes:
    return name + b"[" + inner + b"]" + (b"" if offset is None else b"<%d>" % offset)


def _body(cursor: Cursor, peek: bool) -> BodySection:
    part, text, fields = _section(cursor)
    offset, length = _partial(cursor)
    inner = ".".join(filter(None, (part, text.value))).encode()
    if fields:
        inner += b" (" + b" ".join(astring(name) for name in fields) + b")"
    return BodySection(_label(b"BODY", inner, offset), part, text, peek, fields, offset, length)


def _binary(cursor: Cursor, peek: bool) -> BinarySection:
    part = _part(cursor)
    cursor.expect(b"]")
    offset, length = _partial(cursor)
    return BinarySection(_label(b"BINARY", part.encode(), offset), part, peek, offset, length)


def _binary_size(cursor: Cursor, peek: bool) -> BinarySize:
    part = _part(cursor)
    cursor.expect(b"]")
    return BinarySize(_label(b"BINARY.SIZE", part.encode(), None), part)


# Items with a section in brackets: name → (reader, peek)
SECTIONS: Final[dict[str, tuple[Callable[[Cursor, bool], FetchItem], bool]]] = {
    "BODY": (_body, False),
    "BODY.PEEK": (_body, True),
    "BINARY": (_binary, False),
    "BINARY.PEEK": (_binary, True),
    "BINARY.SIZE": (_binary_size, True),
}


def _preview(cursor: Cursor) -> Preview:
    """`PREVIEW [SP "(" LAZY ")"]` (RFC 8970 §3.2)."""
    if not cursor.at(b" (") or cursor.text[cursor.position + 2 : cursor.position + 7].upper() != b"LAZY)":
        return Preview(lazy=False)
    cursor.position += 7
    return Preview(lazy=True)


def _fetch_item(cursor: Cursor) -> FetchItem:
    match = _NAME.match(cursor.text, cursor.position)
    if match is None:
        raise ParseError("Expected a FETCH item" if not cursor.at_end() else "Missing argument: expected FETCH items")
    cursor.position = match.end()
    name = match[0].decode("ascii").upper()
    section = SECTIONS.get(name)
    if section is not None and cursor.take(b"["):
        return section[0](cursor, section[1])
    if name == "PREVIEW":
        return _preview(cursor)
    item = ATOMS.get(name)
    if item is None:
        raise ParseError("Unknown FETCH item")
    return item


def _items(cursor: Cursor) -> tuple[FetchItem, ...]:
    if cursor.at(b"("):
        return tuple(cursor.parenthesized(lambda: _fetch_item(cursor), limits.FETCH_ITEMS_MAX))
    match = _NAME.match(cursor.text, cursor.position)
    macro = MACROS.get(match[0].decode("ascii").upper()) if match else None
    if macro is None or match is None:
        return (_fetch_item(cursor),)
    cursor.position = match.end()
    return macro


class _Modifiers:
    """`SP "(" modifier … ")"` (RFC 4466 §2.4)."""

    def __init__(self) -> None:
        self.changed_since: int | None = None
        self.vanished = False

    def read(self, cursor: Cursor) -> None:
        """One modifier."""
        name = cursor.word()
        if name == "CHANGEDSINCE" and self.changed_since is None:  # RFC 7162 §3.1.4.1
            cursor.space()
            self.changed_since = cursor.number64(minimum=1)
        elif name == "VANISHED" and not self.vanished:  # RFC 7162 §3.2.6
            self.vanished = True
        else:
            raise ParseError("Unknown or repeated FETCH modifier")


def _fetch(uid: bool) -> Callable[[Cursor], commands.Fetch]:
    def parse(cursor: Cursor) -> commands.Fetch:
        cursor.space()
        numbers = cursor.sequence_set()
        cursor.space()
        items = _items(cursor)
        modifiers = _Modifiers()
        if cursor.take(b" "):
            cursor.parenthesized(lambda: modifiers.read(cursor), 2)
        if modifiers.vanished and (not uid or modifiers.changed_since is None):
            raise ParseError("VANISHED needs UID FETCH and CHANGEDSINCE")
        if uid:  # RFC 9051 §6.4.9: UID is always told
            items = (FetchAtt.UID, *items)
        if modifiers.changed_since is not None:  # RFC 7162 §3.1.4.1: MODSEQ is always told
            items = (*items, FetchAtt.MODSEQ)
        return commands.Fetch(uid, numbers, tuple(dict.fromkeys(items)), modifiers.changed_since, modifiers.vanished)

    return parse


VERBS = (
    Verb("FETCH", SELECTED, _fetch(uid=False)),
    Verb("UID FETCH", SELECTED, _fetch(uid=True)),
)
