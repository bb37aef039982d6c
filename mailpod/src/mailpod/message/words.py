"""Encoded words and charsets: header text as people read it (RFC 2047), decoded without ever failing."""

from __future__ import annotations

import binascii
import codecs
import functools
import re

from mailpod.limits import message as limits

# RFC 2047 §2, with RFC 2231 §5's language. The text part may hold spaces in the wild; a question mark ends it.
_WORD = re.compile(r"=\?([^?\s*]{1,40})(?:\*[^?\s]{0,40})?\?([bBqQ])\?([^?\r\n]*)\?=")
_QP_ESCAPE = re.compile(rb"=([0-9A-Fa-f]{2})")
# Text codecs of Python that are no charsets of mail, and some of which cost more than linear time.
_NOT_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"})
_CLEAN = frozenset({"utf-8", "cp1252", "ascii"})
_FALLBACKS = {"x-unknown": "utf-8", "unknown-8bit": "utf-8", "default": "utf-8", "iso-8859-8-i": "iso8859_8", "iso-8859-6-i": "iso8859_6"}


@functools.lru_cache(maxsize=512)
def codec(charset: str) -> str | None:
    """Python's name of a charset's codec; None when it is unknown or no charset."""
    charset = charset.strip().strip("\"'").lower()
    if not charset or len(charset) > limits.CHARSET_NAME_BYTES_MAX or not charset.isascii() or not charset.isprintable():
        return None
    try:
        info = codecs.lookup(_FALLBACKS.get(charset, charset))
        "".encode(info.name)  # refuses codecs between bytes and bytes (zlib, hex, …)
    except (LookupError, ValueError, UnicodeError):
        return None
    if info.name.replace("-", "_") in _NOT_CHARSETS:
        return None
    if info.name in ("ascii", "iso8859-1"):
        return "cp1252" if info.name == "iso8859-1" else "ascii"  # what says Latin-1 is Windows-1252 in the wild (WHATWG Encoding §4.2)
    return info.name


def decode_charset(data: bytes, charset: str) -> str:
    """`data` as text: by its charset where that is known, else as UTF-8, else as Latin-1. Never fails."""
    name = codec(charset) if charset else None
    return decode_8bit(data) if name is None or name == "ascii" else _decode(data, name)


def decode_8bit(data: bytes) -> str:
    """Bytes of unknown charset: UTF-8 (RFC 6532) when they are, else Latin-1."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def decode_words(value: bytes) -> str:
    """Header text with its encoded words decoded (RFC 2047 §6). Broken ones, and those of unknown charsets, stay as they are."""
    text = decode_8bit(value)
    if "=?" not in text:
        return text
    out: list[str] = []
    position = 0
    pending: list[bytes] = []  # neighbours of one charset: multi-byte characters are split between them in the wild
    pending_codec = ""

    def flush() -> None:
        if pending:
            out.append(_decode(b"".join(pending), pending_codec))
            pending.clear()

    for match in _WORD.finditer(text):
        between = text[position : match.start()]
        data = _word_bytes(match[2], match[3])
        name = codec(match[1])
        if data is None or name is None:
            continue  # verbatim: stays in `between` of the next one
        if between and not (pending and between.isspace()):  # RFC 2047 §6.2: white space between two encoded words is no text
            flush()
            out.append(between)
        if name != pending_codec:
            flush()
        pending_codec = name
        pending.append(data)
        position = match.end()
    flush()
    out.append(text[position:])
    return "".join(out)


def _decode(data: bytes, name: str) -> str:
    try:
        text = data.decode(name, "replace")
    except (UnicodeError, ValueError):  # some multi-byte codecs raise in spite of "replace"
        return decode_8bit(data)
    if name in _CLEAN or text.isascii():
        return text
    # UTF-7 yields half surrogate pairs, which are no text: nothing could encode them again
    return text.encode("utf-8", "replace").decode("utf-8")


def _word_bytes(encoding: str, text: str) -> bytes | None:
    """An encoded word's bytes; None when it is not what it says."""
    if not text.isascii():
        return None
    if encoding in "bB":
        return decode_base64_word(text.encode("ascii"))
    return _QP_ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), text.encode("ascii").replace(b"_", b" "))


def decode_base64_word(text: bytes) -> bytes | None:
    """Base64 with or without its padding; None when it has other characters."""
    text = text.replace(b" ", b"").rstrip(b"=")
    if len(text) % 4 == 1:
        return None
    try:
        return binascii.a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True) if text else b""
    except binascii.Error:
        return None
