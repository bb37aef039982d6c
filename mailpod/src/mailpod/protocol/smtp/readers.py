"""Cutting the client's bytes into lines, DATA and BDAT content. The end of data is CRLF.CRLF and nothing else.

Each reader takes bytes in pieces of any size and says how many of them are its own; it keeps no more than its limit.
"""

from __future__ import annotations

from typing import Final, Protocol

from mailpod.errors import Reason
from mailpod.limits import smtp as limits
from mailpod.protocol.smtp import reasons

_END_OF_DATA: Final = b"\r\n.\r\n"
_TAIL_BYTES: Final = len(_END_OF_DATA) - 1


class ContentReader(Protocol):
    """What takes content from an `InputReader`."""

    def feed(self, data: bytes) -> int:
        """Take what belongs to the content from the start of `data`; returns how many bytes that were."""

    @property
    def wanted(self) -> int | None:
        """Bytes to look at most at, None: all there are."""


class InputReader:
    """The client's bytes. One line at a time: what a command means decides how the bytes behind it are read."""

    __slots__ = ("_buffer", "_skipped", "_start", "overrun")

    def __init__(self) -> None:
        self._buffer = b""
        self._start = 0
        self._skipped = 0  # bytes of a too long line thrown away so far
        self.overrun = False  # a line has exceeded even what is skipped: close

    def feed(self, data: bytes) -> None:
        """More bytes from the client. The caller takes out what is there before it feeds more than it wants to be kept."""
        self._buffer = self._buffer[self._start :] + data if self._start < len(self._buffer) else data
        self._start = 0

    @property
    def pending(self) -> int:
        """Bytes that were fed and not yet taken."""
        return len(self._buffer) - self._start

    def discard(self) -> int:
        """Throw away all that is pending (RFC 3207 §4.2: plaintext behind STARTTLS); returns how many bytes that were."""
        pending, self._buffer, self._start, self._skipped = self.pending, b"", 0, 0
        return pending

    def content(self, reader: ContentReader) -> int:
        """Let `reader` take its content from what is pending; returns how many bytes it took."""
        wanted = reader.wanted
        taken = reader.feed(self._buffer[self._start :] if wanted is None else self._buffer[self._start : self._start + wanted])
        self._start += taken
        if self._start == len(self._buffer):
            self._buffer, self._start = b"", 0
        return taken

    def line(self, limit: int) -> bytes | Reason | None:
        """The next line without its CRLF; a `Reason` for a line that is none; None: not complete yet.

        `limit` is the longest line in bytes, CRLF included.
        """
        end = self._buffer.find(b"\n", self._start)
        if end < 0:
            self._incomplete(limit)
            return None
        start, self._start = self._start, end + 1
        if self._skipped:
            self._skipped = 0
            return reasons.LINE_TOO_LONG
        if end + 1 - start > limit:
            return reasons.LINE_TOO_LONG
        # RFC 5321 §2.3.8: lines end with CRLF and with nothing else.
        if end == start or self._buffer[end - 1] != 0x0D:
            return reasons.BARE_NEWLINE
        line = self._buffer[start : end - 1]
        if b"\r" in line or b"\x00" in line:
            return reasons.CONTROL_CHARACTER
        return line

    def _incomplete(self, limit: int) -> None:
        pending = self.pending
        if self._skipped or pending > limit:
            self._skipped += pending
            self._buffer, self._start = b"", 0
            self.overrun = self._skipped > limits.LINE_SKIP_BYTES_MAX


class DataReader:
    """The content behind DATA up to CRLF.CRLF (RFC 5321 §4.1.1.4, §4.5.2).

    `limit` bounds what is kept, in bytes with the transparency dots; beyond it the rest is read and thrown away.
    """

    __slots__ = ("_chunks", "_limit", "_tail", "_trim", "done", "oversize", "seen")

    def __init__(self, limit: int) -> None:
        self._chunks: list[bytes] = []
        self._limit = limit
        self._tail = b"\r\n"  # the end of the DATA line: ".CRLF" at once is an empty message (RFC 5321 §4.1.1.4)
        self._trim = 0  # bytes at the end of the chunks that belong to the terminator
        self.seen = 0  # bytes of content read so far
        self.oversize = False
        self.done = False

    def feed(self, data: bytes) -> int:
        """Take content from the start of `data`; returns how many bytes of it were the content's and the terminator's."""
        # Chunk + the last 4 bytes: the terminator may be cut anywhere, and is never searched twice in the same bytes.
        tail = self._tail
        at = (tail + data[:_TAIL_BYTES]).find(_END_OF_DATA)
        if at >= 0:
            end = at + 2 - len(tail)  # of content, in `data`; negative: its last bytes were taken for content before
        else:
            end = data.find(_END_OF_DATA)
            if end < 0:
                self._keep(data)
                self._tail = data[-_TAIL_BYTES:] if len(data) >= _TAIL_BYTES else (tail + data)[-_TAIL_BYTES:]
                return len(data)
            end += 2
        self.done = True
        if end > 0:
            self._keep(data[:end])
        else:
            self._trim = -end
            self.seen += end
        return end + 3

    @property
    def wanted(self) -> None:
        """The end is found by looking."""
        return

    @property
    def overrun(self) -> bool:
        """So much has come beyond the limit that reading on is not worth it."""
        return self.seen > self._limit + limits.OVERSIZE_SKIP_BYTES_MAX

    def abandon(self) -> None:
        """Read on to the end of data, and keep nothing."""
        self.oversize = True
        self._chunks.clear()

    def _keep(self, data: bytes) -> None:
        self.seen += len(data)
        if self.oversize:
            return
        if self.seen > self._limit:
            self.abandon()
            return
        self._chunks.append(data)

    def take(self) -> bytes:
        """The message, transparency removed; only once it is `done` and not `oversize`."""
        assert self.done
        assert not self.oversize
        content = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        return unstuff(content[: len(content) - self._trim] if self._trim else content)


def unstuff(content: bytes) -> bytes:
    """Remove transparency (RFC 5321 §4.5.2): the first character of every line that begins with a dot."""
    if b"\r\n." in content:
        content = content.replace(b"\r\n.", b"\r\n")
    return content[1:] if content.startswith(b".") else content


class ChunkReader:
    """One BDAT chunk (RFC 3030 §2): exactly `size` bytes, kept or thrown away."""

    __slots__ = ("_chunks", "_left", "keep")

    def __init__(self, size: int, *, keep: bool) -> None:
        self._left = size
        self._chunks: list[bytes] = []
        self.keep = keep  # False: read and discarded, as RFC 3030 §2 asks for chunks that are refused

    @property
    def done(self) -> bool:
        """All bytes of the chunk have come."""
        return self._left == 0

    @property
    def wanted(self) -> int:
        """Bytes still to come."""
        return self._left

    def abandon(self) -> None:
        """Read the rest of the chunk, and keep nothing."""
        self.keep = False
        self._chunks.clear()

    def feed(self, data: bytes) -> int:
        """Take the chunk's bytes from the start of `data`; returns how many."""
        taken = min(self._left, len(data))
        if self.keep and taken:
            self._chunks.append(data if taken == len(data) else data[:taken])
        self._left -= taken
        return taken

    def take(self) -> list[bytes]:
        """The chunk's bytes, in pieces."""
        chunks, self._chunks = self._chunks, []
        return chunks
