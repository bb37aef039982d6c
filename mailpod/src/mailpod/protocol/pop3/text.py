"""Message text on the wire, piece by piece: dot stuffing (RFC 1939 §3) and the part that TOP shows (§7)."""

from __future__ import annotations

import re

_DOT_AT_START = re.compile(rb"\n\.")


class DotStuffer:
    """Doubles dots at the beginning of lines; `end` closes the response.

    A line begins after any LF. Messages hold CRLF; where a bare LF was let in by APPEND, clients that take it for a line end must not
    find a lone dot behind it and believe the message over, with the rest of it as our next responses.
    """

    def __init__(self) -> None:
        self._line_start = True
        self._tail = b""  # the last two bytes seen

    def feed(self, piece: bytes) -> bytes:
        """The piece as it goes out."""
        if not piece:
            return piece
        # Looking for a dot (base64 has none) and then with a pattern is 3 to 100 times as fast as looking for the two bytes.
        stuffed = piece.replace(b"\n.", b"\n..") if b"." in piece and _DOT_AT_START.search(piece) else piece
        if self._line_start and piece[0] == 0x2E:
            stuffed = b"." + stuffed
        self._line_start = piece[-1] == 0x0A
        self._tail = (self._tail + piece[-2:])[-2:]
        return stuffed

    def end(self) -> bytes:
        """The terminator; a last line without an end is given one."""
        return b".\r\n" if self._tail in (b"", b"\r\n") else b"\r\n.\r\n"


class TopCutter:
    """Lets the header, the blank line and `lines` lines of the body pass."""

    def __init__(self, lines: int) -> None:
        self._left = lines
        self._in_header = True
        self._partial = b""  # up to two bytes of the line that is not complete yet: enough to tell whether it is blank
        self.done = False

    def feed(self, piece: bytes) -> bytes:
        """The part of `piece` to show; `done` tells whether more is wanted."""
        position = 0
        while not self.done:
            end = piece.find(b"\n", position)
            if end < 0:
                self._partial = (self._partial + piece[position : position + 2])[:2]
                break
            if self._in_header:
                head = (self._partial + piece[position : min(end, position + 2)])[:2]
                if head in (b"", b"\r"):
                    self._in_header = False
                    self.done = self._left == 0
            else:
                self._left -= 1
                self.done = self._left == 0
            self._partial = b""
            position = end + 1
        return piece[:position] if self.done else piece
