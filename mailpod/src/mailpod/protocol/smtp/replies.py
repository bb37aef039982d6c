"""Writing replies (RFC 5321 §4.2) with enhanced status codes (RFC 2034)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from mailpod.errors import Reason

# RFC 5321 §4.5.3.1.5: a reply line has at most 512 octets, code and CRLF included.
_TEXT_BYTES_MAX: Final = 480
_PRINTABLE: Final = bytes(byte if 0x20 <= byte < 0x7F else 0x3F for byte in range(256))


class Reply(NamedTuple):
    """One reply of one line. `enhanced` is "" only where RFC 2034 §4 has none: greeting, HELO/EHLO, and 3xx."""

    code: int
    enhanced: str
    text: str


class Fixed(NamedTuple):
    """A reply that is always the same, written once."""

    code: int
    line: bytes


def fixed(code: int, enhanced: str, text: str) -> Fixed:
    """Make one."""
    return Fixed(code, encode(Reply(code, enhanced, text)))


def encode(reply: Reply) -> bytes:
    """The reply's line. Characters that could end a line or confuse a client become "?"."""
    return b"%d %s\r\n" % (reply.code, _text(reply.enhanced, reply.text))


def encode_lines(code: int, enhanced: str, lines: Sequence[str]) -> bytes:
    """A reply of one or more lines, each with the code (RFC 5321 §4.2.1) and the enhanced code (RFC 2034 §4)."""
    assert lines
    first = b"".join(b"%d-%s\r\n" % (code, _text(enhanced, line)) for line in lines[:-1])
    return first + b"%d %s\r\n" % (code, _text(enhanced, lines[-1]))


@lru_cache(maxsize=256)
def encode_reason(reason: Reason) -> bytes:
    """A refusal's line."""
    return encode(Reply(reason.smtp_code, reason.smtp_enhanced, reason.text))


def _text(enhanced: str, text: str) -> bytes:
    line = f"{enhanced} {text}" if enhanced else text
    return line.encode("ascii", "replace").translate(_PRINTABLE)[:_TEXT_BYTES_MAX]
