"""Lines of a SASL exchange in IMAP (RFC 9051 §6.2.2, RFC 4959)."""

from __future__ import annotations

import binascii


class Cancelled(Exception):
    """The client sent "*": answer BAD (RFC 9051 §6.2.2)."""


def decode_response(line: bytes) -> bytes:
    """The bytes of a client's response line; an empty line is an empty response. Raises `Cancelled`, and ValueError for bad base64."""
    if line == b"*":
        raise Cancelled
    return decode_base64(line)


def decode_initial(text: bytes) -> bytes:
    """An initial response: "=" is an empty one (RFC 4959 §3). Raises ValueError."""
    if text == b"=":
        return b""
    if not text:
        raise ValueError("an empty initial response is written =")
    return decode_base64(text)


def decode_base64(text: bytes) -> bytes:
    """Strict base64 (RFC 4648 §4). Raises ValueError."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise ValueError("not base64") from None


def challenge(data: bytes) -> bytes:
    """`+ base64`; `+ ` alone for an empty challenge."""
    return b"+ " + binascii.b2a_base64(data, newline=False) + b"\r\n"
