"""IMAP strings in ENVELOPE and BODYSTRUCTURE (RFC 9051 §4.3): quoted where that can hold the text, else a literal, else NIL."""

from __future__ import annotations

import re

from mailpod.limits import message as limits

_NEEDS_LITERAL = re.compile(r"[\x00\r\n\x80-\xff]")
_QUOTED_BYTES_MAX = 4_096  # clients read lines into buffers; literals announce their length


def nstring(text: str | None) -> str:
    """`text` holds bytes as Latin-1 characters, and so does the result. NUL, which no IMAP string may hold, becomes U+FFFD in UTF-8."""
    if text is None:
        return "NIL"
    if len(text) > _QUOTED_BYTES_MAX or _NEEDS_LITERAL.search(text) is not None:
        text = text[: limits.NSTRING_BYTES_MAX]
        if "\0" in text:
            text = text.replace("\0", "\xef\xbf\xbd")
        return f"{{{len(text)}}}\r\n{text}"
    if '"' in text or "\\" in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def latin(value: bytes) -> str:
    """Bytes as Latin-1 characters, cut at what one string may hold."""
    return value[: limits.NSTRING_BYTES_MAX].decode("latin-1")
