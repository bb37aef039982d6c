"""Which bytes of a message an IMAP section names (RFC 9051 §6.4.5)."""

from __future__ import annotations

from collections.abc import Sequence

from mailpod.message.summary import Part


def find_part(parts: Sequence[Part], path: str) -> Part | None:
    """The part that a client calls `path`: "1.2", or "" for the message itself. "1" of a message without parts is the message."""
    root = parts[0]
    if path == "":
        return root
    if path == "1" and root.kind != "multipart":
        return root
    for part in parts:
        if part.path == path:
            return part
    return None


def inner_root(parts: Sequence[Part], part: Part) -> Part | None:
    """The root of the message inside a message/rfc822 or message/global part; None for others."""
    if part.kind != "message":
        return None
    for index, candidate in enumerate(parts):
        if candidate is part:
            return parts[index + 1] if index + 1 < len(parts) else None
    return None


def section_range(parts: Sequence[Part], path: str, text: str = "") -> tuple[int, int] | None:
    """Start and end (exclusive) in bytes of section `path` and `text` ("", "HEADER", "TEXT", "MIME"); None when there is no such.

    For HEADER.FIELDS ask for "HEADER" and hand the bytes to `headers.select`. Header ranges include the empty line.
    """
    part = find_part(parts, path)
    if part is None:
        return None
    if path == "":
        if text == "HEADER":
            return 0, part.body_start
        if text == "TEXT":
            return part.body_start, part.body_end
        return (0, part.body_end) if text == "" else None
    if text == "MIME":
        return part.header_start, part.body_start
    if text == "":
        return part.body_start, part.body_end
    inner = inner_root(parts, part)  # HEADER and TEXT exist only in embedded messages
    if inner is None:
        return None
    if text == "HEADER":
        return inner.header_start, inner.body_start
    return (inner.body_start, inner.body_end) if text == "TEXT" else None
