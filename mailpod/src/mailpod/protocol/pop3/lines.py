"""Bytes to lines: bounded, whatever comes."""

from __future__ import annotations

import enum

from mailpod.limits import pop3 as limits


class Oversize(enum.Enum):
    """In place of a line that was longer than allowed and has been thrown away."""

    LINE = "line too long"


class LineReader:
    """Splits what a client sends. Ends of lines are CRLF; a bare LF is taken too (typed by hand, it harms nobody here)."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0  # bytes of the buffer that hold no LF
        self._skipping = False  # inside a line that is too long
        self.line_bytes_max = limits.COMMAND_BYTES_MAX  # for the next line, line end included

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._skipping:
            end = data.find(b"\n")
            if end < 0:
                return
            data = data[end:]  # the LF itself ends the line
        self._buffer += data

    def next(self) -> bytes | Oversize | None:
        """The next line without its end, or None when it isn't complete yet."""
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            if len(self._buffer) >= self.line_bytes_max:
                self._buffer.clear()
                self._searched = 0
                self._skipping = True
            return None
        oversize = self._skipping or end >= self.line_bytes_max
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        self._skipping = False
        if oversize:
            return Oversize.LINE
        return line[:-1] if line.endswith(b"\r") else line

    def clear(self) -> None:
        """Forget everything (STLS: RFC 2595 §4)."""
        self._buffer.clear()
        self._searched = 0
        self._skipping = False
