"""Readable text out of bodies: transfer decoding, charsets, HTML to text, the preview, and what SEARCH TEXT and BODY look through."""

from __future__ import annotations

import binascii
import html
import re
from collections.abc import Sequence

from mailpod.limits import message as limits
from mailpod.message.headers import body_offset, collect, fields, unfold
from mailpod.message.parameters import parse_disposition
from mailpod.message.summary import Part
from mailpod.message.words import decode_charset, decode_words

IDENTITY_ENCODINGS = frozenset({"7bit", "8bit", "binary", ""})
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]+")
_SOFT_BREAK = re.compile(rb"[ \t]+(?=\r?\n)")
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u034f\u200b-\u200f\u2028-\u202e\u2060\ufeff]")
_HIDDEN = {"script": "</script", "style": "</style", "head": "</head", "title": "</title", "template": "</template"}
_TAG_NAME = re.compile(r"/?([A-Za-z][A-Za-z0-9]{0,15})")


def decode_transfer(data: bytes, encoding: str) -> bytes | None:
    """A body without its Content-Transfer-Encoding (RFC 2045 §6); None when the encoding is unknown (RFC 3516: UNKNOWN-CTE).

    Damaged encodings give what can be had of them. The output is never longer than the input.
    """
    if encoding in IDENTITY_ENCODINGS:
        return data
    if encoding == "base64":
        return _decode_base64(data)
    if encoding == "quoted-printable":
        return binascii.a2b_qp(_SOFT_BREAK.sub(b"", data) if b" \r\n" in data or b"\t\r\n" in data or b" \n" in data else data)
    return None


def _decode_base64(data: bytes) -> bytes:
    """RFC 2045 §6.8: characters outside the alphabet are passed over; padding in the middle ends a piece, another may follow."""
    try:
        return binascii.a2b_base64(data)
    except binascii.Error:
        pass
    data = _NOT_BASE64.sub(b"", data)
    out: list[bytes] = []
    for piece in re.split(rb"=+", data):
        piece = piece[: len(piece) - 1] if len(piece) % 4 == 1 else piece
        out.append(binascii.a2b_base64(piece + b"=" * (-len(piece) % 4)))
    return b"".join(out)


def part_text(raw: bytes, part: Part, limit: int = limits.TEXT_BYTES_MAX) -> str:
    """The text of a leaf as its charset says, from at most `limit` bytes of its body."""
    end = min(part.body_end, part.body_start + limit)
    data = raw[part.body_start : end]
    if end < part.body_end:  # cut inside: at a line's end, so that no encoded group is torn
        data = data[: data.rfind(b"\n") + 1] or data[: len(data) & ~3]
    decoded = decode_transfer(data, part.encoding)
    return decode_charset(data if decoded is None else decoded, part.charset)


def html_to_text(source: str, chars_max: int) -> str:
    """The visible text of HTML, at most about `chars_max` characters. One pass, whatever the markup is; not for display as HTML."""
    out: list[str] = []
    total = position = 0
    size = len(source)
    while position < size and total < chars_max:
        start = source.find("<", position)
        if start < 0:
            start = size
        if start > position:
            text = html.unescape(source[position : min(start, position + 2 * chars_max + 64)])
            out.append(text)
            total += len(text) if not text.isspace() else 1
        if start == size:
            break
        position = _after_tag(source, start, out)
    return "".join(out)


def _after_tag(source: str, start: int, out: list[str]) -> int:
    """Where text goes on behind the markup that begins at `start`; an element that shows nothing is passed over whole."""
    size = len(source)
    if source.startswith("<!--", start):
        end = source.find("-->", start + 4)
        return end + 3 if end >= 0 else size
    match = _TAG_NAME.match(source, start + 1)
    if match is None and source[start + 1 : start + 2] not in ("!", "?", "/"):
        out.append("<")
        return start + 1
    end = source.find(">", start) + 1
    if not end:
        return size
    if match is None:
        return end
    name = match[1].lower()
    if name not in _INLINE:
        out.append(" ")
    closing = _HIDDEN.get(name)
    if closing is None or source[start + 1] == "/" or source[end - 2] == "/":
        return end
    return _closed(source, end, closing)


def _closed(source: str, position: int, closing: str) -> int:
    """Behind the end tag `closing` (lower case, without its ">"), or at the end of all."""
    while (position := source.find("</", position)) >= 0:
        if source[position : position + len(closing)].lower() == closing:
            return source.find(">", position) + 1 or len(source)
        position += 2
    return len(source)


_INLINE = frozenset(
    {
        "a",
        "abbr",
        "b",
        "big",
        "code",
        "em",
        "font",
        "i",
        "ins",
        "mark",
        "s",
        "small",
        "span",
        "strong",
        "sub",
        "sup",
        "u",
        "wbr",
        "script",
        "style",
        "template",
    }
)


def preview(raw: bytes, parts: Sequence[Part]) -> str:
    """RFC 8970: the beginning of what the message says, white space collapsed, at most `limits.PREVIEW_CHARS_MAX` characters."""
    plain = next((part for part in parts if part.media_type == "text/plain" and _shown(raw, part)), None)
    if plain is not None and (text := _preview_of(raw, plain)):
        return text
    rich = next((part for part in parts if part.media_type == "text/html" and _shown(raw, part)), None)
    if rich is not None and (text := _preview_of(raw, rich)):
        return text
    return ""


def _shown(raw: bytes, part: Part) -> bool:
    """Not an attachment, and not empty."""
    if part.body_end == part.body_start:
        return False
    if part.path == "":
        return True
    values = collect(raw[part.header_start : part.body_start], (b"content-disposition",)).get(b"content-disposition")
    disposition = parse_disposition(values[0]) if values else None
    return disposition is None or disposition.kind != b"attachment"


def _preview_of(raw: bytes, part: Part) -> str:
    size = part.body_end - part.body_start
    limit = limits.PREVIEW_SOURCE_BYTES
    while True:
        text = part_text(raw, part, limit)
        if part.media_type == "text/html":
            text = html_to_text(text, 4 * limits.PREVIEW_CHARS_MAX)
        else:
            text = _own_words(text)
        text = " ".join(text[: 8 * limits.PREVIEW_CHARS_MAX].split())
        if not text.isprintable():
            text = " ".join(_INVISIBLE.sub("", text).split())
        if len(text) >= limits.PREVIEW_CHARS_MAX or limit >= size or limit >= limits.PREVIEW_SOURCE_BYTES_MAX:
            return text[: limits.PREVIEW_CHARS_MAX].rstrip()
        limit = limits.PREVIEW_SOURCE_BYTES_MAX


def _own_words(text: str) -> str:
    """Without quoted lines, when anything else is there."""
    if "\n>" not in text and not text.startswith(">"):
        return text
    own = "\n".join([line for line in text.split("\n") if not line.startswith(">")])
    return own if own.strip() else text


def search_text(raw: bytes, parts: Sequence[Part]) -> str:
    """What SEARCH BODY looks through (RFC 9051 §6.4.4): all text parts decoded, embedded messages' headers too, casefolded, bounded."""
    out: list[str] = []
    total = 0
    for index, part in enumerate(parts):
        text = ""
        if index and _is_message_root(parts, index):
            text = header_text(raw, part.header_start, part.body_start)
            out.append(text)
            total += len(text)
        if part.kind or not part.media_type.startswith("text/"):
            continue
        text = part_text(raw, part)
        if part.media_type == "text/html":
            text = html_to_text(text, limits.TEXT_BYTES_MAX)
        out.append(text)
        total += len(text)
        if total > limits.SEARCH_CHARS_MAX:
            break
    return "\n".join(out)[: limits.SEARCH_CHARS_MAX].casefold()


def _is_message_root(parts: Sequence[Part], index: int) -> bool:
    return parts[index - 1].kind == "message" and parts[index].header_start == parts[index - 1].body_start


def header_text(raw: bytes, start: int = 0, end: int | None = None) -> str:
    """A header section as people read it, one field a line, casefolded: what SEARCH TEXT looks through besides the body."""
    if end is None:
        end = body_offset(raw, start)
    block = raw[start : min(end, start + limits.HEADER_BYTES_MAX)]
    return "\n".join(
        f"{field.name.decode('latin-1')}: {decode_words(unfold(block[field.value_start : field.end]))}"
        for field in fields(block, 0, len(block))
    ).casefold()


def field_text(raw: bytes, name: str, end: int | None = None) -> list[str]:
    """Values of one header field, decoded and casefolded: SEARCH HEADER matches when any of them contains the string."""
    if end is None:
        end = body_offset(raw)
    key = name.lower().encode("utf-8", "replace")
    found = collect(raw[: min(end, limits.HEADER_BYTES_MAX)], (key,)).get(key, [])
    return [decode_words(value).casefold() for value in found]
