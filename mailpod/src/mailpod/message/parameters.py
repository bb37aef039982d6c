"""Structured MIME fields: `value; name=value; …` with RFC 2231 continuations, charsets and percent-encoding."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from mailpod.limits import message as limits
from mailpod.message.words import decode_8bit, decode_charset, decode_words

Parameters = tuple[tuple[bytes, bytes], ...]  # names in lower case, in order; an extended one's name ends in "*"

_TYPE = re.compile(rb"""[\s;]*+([^\s/;()<>@,:\\"\[\]?=]++)\s*+/\s*+([^\s/;()<>@,:\\"\[\]?=]++)""")
_TOKEN = re.compile(rb"""[\s;]*+([^\s;()"=]++)""")
# Quoted values may lack their end; unquoted ones may hold spaces, brackets and slashes (RFC 2045 §5.1 forbids it, senders do it).
_PARAMETER = re.compile(
    rb"""
    ;\s*+ ([^\s;="()]++) \s*+ = \s*+
    (?: "([^"\\]*+(?:\\.[^"\\]*+)*+)"? | ([^\s;"]*+(?:[ \t]++[^\s;"(=]++(?!\s*+=))*+) )
    """,
    re.VERBOSE | re.DOTALL,
)
_SIGN = re.compile(rb'\\.|["()]', re.DOTALL)
_UNESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_CONTINUATION = re.compile(rb"([^*]+)\*(\d{1,4})(\*?)\Z")


class ContentType(NamedTuple):
    """A Content-Type field (RFC 2045 §5.1)."""

    type: bytes  # lower case
    subtype: bytes  # lower case
    parameters: Parameters


class Disposition(NamedTuple):
    """A Content-Disposition field (RFC 2183)."""

    kind: bytes  # lower case
    parameters: Parameters


def parse_content_type(value: bytes) -> ContentType | None:
    """None when the value has no `type/subtype`."""
    value = _without_comments(value)
    match = _TYPE.match(value)
    if match is None:
        return None
    return ContentType(match[1].lower(), match[2].lower(), parse_parameters(value, match.end()))


def parse_disposition(value: bytes) -> Disposition | None:
    """None when the value has no kind."""
    value = _without_comments(value)
    match = _TOKEN.match(value)
    if match is None:
        return None
    return Disposition(match[1].lower(), parse_parameters(value, match.end()))


def parse_languages(value: bytes) -> tuple[bytes, ...]:
    """The tags of a Content-Language field (RFC 3282 §2)."""
    tags = (tag.strip() for tag in _without_comments(value).split(b",", limits.LANGUAGES_MAX))
    return tuple(tag for tag in tags if tag)[: limits.LANGUAGES_MAX]


def parse_parameters(value: bytes, position: int = 0) -> Parameters:
    """Parameters from `position` on (comments removed): at most `limits.PARAMETERS_MAX`, continuations joined (RFC 2231 §3)."""
    if value.find(b";", position) < 0:
        return ()
    found: list[tuple[bytes, bytes]] = []
    split = False
    for match in _PARAMETER.finditer(value, position):
        name = match[1].lower()
        quoted = match[2]
        if quoted is not None:
            text = _UNESCAPE.sub(rb"\1", quoted) if b"\\" in quoted else quoted
        else:
            text = match[3]
        split = split or b"*" in name
        found.append((name, text[: limits.PARAMETER_BYTES_MAX]))
        if len(found) == limits.PARAMETERS_MAX:
            break
    return _join(found) if split else tuple(found)


def _join(found: list[tuple[bytes, bytes]]) -> Parameters:
    """Continuations (`name*0*`, `name*1`, …) as one: `name*` with charset and percent signs, or plain `name` when no piece has them."""
    joined: list[tuple[bytes, bytes]] = []
    pieces: dict[bytes, dict[int, tuple[bytes, bool]]] = {}
    for name, text in found:
        match = _CONTINUATION.match(name)
        if match is None:
            joined.append((name, text))
            continue
        if match[1] not in pieces:
            pieces[match[1]] = {}
            joined.append((match[1] + b"*0", b""))  # its place in the order
        pieces[match[1]].setdefault(int(match[2]), (text, bool(match[3])))
    return tuple(
        _assemble(name[:-2], pieces[name[:-2]]) if name[:-2] in pieces and name[-2:] == b"*0" else (name, text) for name, text in joined
    )


def _assemble(name: bytes, pieces: dict[int, tuple[bytes, bool]]) -> tuple[bytes, bytes]:
    texts: list[tuple[bytes, bool]] = []
    while (piece := pieces.get(len(texts))) is not None:  # RFC 2231 §3: numbered from 0; what follows a gap is lost
        texts.append(piece)
    extended = any(flag for _, flag in texts)
    if not extended:
        return name, b"".join(text for text, _ in texts)[: limits.PARAMETER_BYTES_MAX]
    value = b"".join(text if flag else quote_from_bytes(text, safe="").encode("ascii") for text, flag in texts)
    if texts and not texts[0][1]:
        value = b"''" + value  # the first piece named no charset
    return name + b"*", value[: limits.PARAMETER_BYTES_MAX]


def parameter(parameters: Parameters, name: bytes) -> bytes | None:
    """The value of a parameter as raw bytes; an extended one's charset is dropped and its percent signs are decoded."""
    plain = None
    for key, text in parameters:
        if key == name + b"*":
            return unquote_to_bytes(text.split(b"'", 2)[-1])
        if key == name and plain is None:
            plain = text
    return plain


def parameter_text(parameters: Parameters, name: bytes) -> str:
    """The value as text (RFC 2231 §4); plain ones may hold encoded words or 8-bit characters in the wild. "" when missing."""
    plain = ""
    for key, text in parameters:
        if key == name + b"*":
            charset, quote, rest = text.partition(b"'")
            if not quote:
                return decode_8bit(unquote_to_bytes(text))
            return decode_charset(unquote_to_bytes(rest.partition(b"'")[2]), charset.decode("latin-1"))
        if key == name and not plain:
            plain = decode_words(text)
    return plain


def _without_comments(value: bytes) -> bytes:
    """Comments (RFC 5322 §3.2.2) removed where they stand after white space or a separator; `report(1).pdf` is no comment."""
    if b"(" not in value:
        return value
    kept: list[bytes] = []
    depth = position = 0
    quoted = False
    for match in _SIGN.finditer(value):
        at = match.start()
        sign = match[0]
        if sign == b'"' and depth == 0:
            quoted = not quoted
        elif sign == b"(" and not quoted and (depth or at == 0 or value[at - 1] in b' \t\r\n;"'):
            if depth == 0:
                kept.append(value[position:at])
            depth += 1
        elif sign == b")" and not quoted and depth:
            depth -= 1
            if depth == 0:
                position = at + 1
    if depth == 0:
        kept.append(value[position:])
    return b" ".join(kept)
