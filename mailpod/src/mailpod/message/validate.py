"""What is checked of a message's bytes at the end of DATA, BDAT or APPEND, before anything is stored."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mailpod.errors import Reason
from mailpod.limits import message as limits
from mailpod.message.headers import body_offset, fields
from mailpod.message.scan import scan


def _reason(name: str, code: int, enhanced: str, text: str) -> Reason:
    return Reason(name, code, enhanced, "NO", "", "", text)


# RFC 5321 §2.3.8: CR and LF only together. Anything else lets two servers see two messages where one was sent (SMTP smuggling).
BARE_LINE_BREAK = _reason("bare-line-break", 550, "5.6.0", "Bare CR or LF in the message: lines end with CRLF")
NUL_BYTE = _reason("nul-byte", 550, "5.6.0", "NUL byte in the message")  # RFC 5322 §4: obsolete; C programs cut text there
LINE_TOO_LONG = _reason("line-too-long", 550, "5.6.0", "Line is too long")
HEADER_TOO_LARGE = _reason("header-too-large", 552, "5.3.4", "Header section is too large")
TOO_MANY_FIELDS = _reason("too-many-header-fields", 552, "5.3.4", "Too many header fields")
MIME_TOO_DEEP = _reason("mime-too-deep", 554, "5.6.0", "MIME parts are nested too deeply")
MIME_TOO_MANY_PARTS = _reason("mime-too-many-parts", 554, "5.6.0", "Too many MIME parts")
MIME_TOO_COSTLY = _reason("mime-too-costly", 554, "5.6.0", "MIME structure costs too much to read")

_BY_TRUNCATION = {"depth": MIME_TOO_DEEP, "parts": MIME_TOO_MANY_PARTS, "headers": HEADER_TOO_LARGE, "work": MIME_TOO_COSTLY}


_BLOCK_BYTES = 1 << 20


class Form(NamedTuple):
    """What the bytes are made of."""

    bare_breaks: bool  # CR without LF or LF without CR
    nul: bool
    eight_bit: bool
    longest_line: int  # bytes, line end not counted
    lines: int  # line feeds
    dashes: int  # lines that begin with "--": more than a MIME message has parts
    blanks: int  # empty lines: no more headers than that, less one


def inspect(raw: bytes) -> Form:
    """One pass with numpy (75 KB: some 40 µs), in blocks, so that a message of line ends alone costs no more memory than others."""
    octets = np.frombuffer(raw, np.uint8)
    size = len(raw)
    bare, nul, eight_bit, dashes = False, b"\0" in raw, not raw.isascii(), int(raw.startswith(b"--"))
    returns = lines = longest = blanks = 0
    last = -1  # where the line feed before is
    for begin in range(0, size, _BLOCK_BYTES):
        block = octets[begin : begin + _BLOCK_BYTES]
        returns += int(np.count_nonzero(block == 13))
        feeds = np.flatnonzero(block == 10)
        if not feeds.size:
            continue
        feeds += begin
        lines += feeds.size
        first = int(feeds[0])
        bare = bare or first == 0 or not bool((octets[feeds - 1] == 13).all())
        gaps = np.diff(feeds)
        longest = max(longest, first - last - 2, int(gaps.max()) - 2 if gaps.size else 0)
        blanks += int(np.count_nonzero(gaps <= 2)) + int(first - last <= 2)
        last = int(feeds[-1])
        starts = feeds if last < size - 2 else feeds[: np.searchsorted(feeds, size - 2)]
        dashes += int(np.count_nonzero((octets[starts + 1] == 45) & (octets[starts + 2] == 45)))
    return Form(bare or returns != lines, nul, eight_bit, max(longest, size - 1 - last), lines, dashes, blanks)


def validate(raw: bytes, *, binary: bool = False) -> Reason | None:
    """Why a message is refused; None when it is not. `binary`: sent as BINARYMIME (RFC 3030), so only its header has lines.

    8-bit text is taken whether or not it was announced: it is stored byte for byte.
    """
    head_end = body_offset(raw)
    if head_end > limits.HEADER_BYTES_MAX:
        return HEADER_TOO_LARGE
    form = inspect(raw)
    lines = inspect(raw[:head_end]) if binary else form
    if lines.bare_breaks:
        return BARE_LINE_BREAK
    if lines.nul:
        return NUL_BYTE
    if lines.longest_line > limits.LINE_BYTES_MAX:
        return LINE_TOO_LONG
    if form.lines > limits.HEADER_FIELDS_MAX and sum(1 for _ in fields(raw, 0, head_end)) > limits.HEADER_FIELDS_MAX:
        return TOO_MANY_FIELDS
    return _check_mime(raw, form, binary=binary)


def _check_mime(raw: bytes, form: Form, *, binary: bool) -> Reason | None:
    """Depth and parts, looked at only where the lines leave room for more than is allowed.

    Each part has a line that begins with "--", and each level of nesting has one or, inside message/rfc822, an empty line.
    """
    if not binary and form.dashes < limits.MIME_PARTS_MAX - 1 and form.dashes + form.blanks < limits.MIME_DEPTH_MAX:
        return None
    return _BY_TRUNCATION.get(scan(raw).truncated)


def hops(raw: bytes) -> int:
    """How many Received fields the header has (RFC 5321 §6.3)."""
    return sum(1 for field in fields(raw) if field.name == b"received")
