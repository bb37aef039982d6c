"""Response lines."""

from __future__ import annotations

from collections.abc import Iterable

from mailpod.limits import pop3 as limits

END = b".\r\n"


def ok(text: str = "") -> bytes:
    """`+OK text` (RFC 1939 §3)."""
    return _line(f"+OK {text}" if text else "+OK")


def err(text: str, code: str = "") -> bytes:
    """`-ERR [CODE] text` (RFC 2449 §8)."""
    return _line(f"-ERR [{code}] {text}" if code else f"-ERR {text}")


def challenge(encoded: bytes) -> bytes:
    """`+ base64` (RFC 5034 §4)."""
    return b"+ " + encoded + b"\r\n"


def listing(head: str, lines: Iterable[str]) -> bytes:
    """A multi-line response of few lines, none of which begins with a dot."""
    return ok(head) + "".join(f"{line}\r\n" for line in lines).encode("ascii") + END


def _line(text: str) -> bytes:
    # Texts are ours, but names from outside stand in some: one line, ASCII, bounded.
    line = text.encode("ascii", "replace")[: limits.RESPONSE_BYTES_MAX - 2]
    return line.translate(_ONE_LINE) + b"\r\n"


_ONE_LINE = bytes(byte if 32 <= byte < 127 else 63 for byte in range(256))
