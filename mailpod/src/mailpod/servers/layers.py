"""TLS and DEFLATE as layers over bytes: no transport, no tasks. The connection feeds them and sends what comes out.

TLS runs over memory BIOs here and not in the event loop's own TLS transport: STARTTLS becomes a change of state (with nothing
buffered where plaintext could hide), both event loops behave alike, and a connection's buffers stay at the size of one record.
"""

from __future__ import annotations

import contextlib
import ssl
import zlib
from collections.abc import Sequence

from mailpod.errors import MailError, Reason
from mailpod.limits import connection as limits

COMPRESSION_BOMB = Reason("compression-bomb", 554, "5.7.0", "BAD", "", "", "Compressed data expands too much")
COMPRESSION_BROKEN = Reason("compression-broken", 554, "5.5.0", "BAD", "", "", "Compressed data does not decompress")


def first_record_complete(data: bytes) -> bool | None:
    """Whether the first TLS record (RFC 8446 §5.1) is there; None: this is no handshake."""
    if data[0] != 0x16 or (len(data) > 1 and data[1] != 3):
        return None
    if len(data) < 5:
        return False
    length = int.from_bytes(data[3:5], "big")
    if not 0 < length <= 2**14:
        return None
    return len(data) >= 5 + length


class TlsLayer:
    """The server's side of one TLS connection."""

    __slots__ = ("_handshake_bytes", "_incoming", "_object", "_outgoing", "established")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._handshake_bytes = 0
        self.established = False

    @property
    def object(self) -> ssl.SSLObject:
        """For version, cipher and context."""
        return self._object

    def handshake(self, data: bytes | memoryview) -> bool:
        """Take bytes from the client; whether the handshake is done. Raises ssl.SSLError when it failed; `outgoing` may hold an alert."""
        self._handshake_bytes += len(data)
        if self._handshake_bytes > limits.HANDSHAKE_BYTES_MAX:
            raise ssl.SSLError("handshake too long")
        self._incoming.write(data)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.established = True
        return True

    def outgoing(self) -> bytes:
        """What the layer itself has to send: handshake messages, alerts, key updates."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def feed(self, data: bytes | memoryview) -> None:
        """Bytes from the client, at most TLS_PIECE_BYTES at a time."""
        self._incoming.write(data)

    def hungry(self) -> bool:
        """Whether reading would bring nothing without more input."""
        return not self._incoming.pending and not self._object.pending()

    def read(self) -> bytes | None:
        """Decrypted bytes; None: needs more input; empty: the client closed. Raises ssl.SSLError for what is no TLS."""
        try:
            return self._object.read(limits.TLS_PIECE_BYTES)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""

    def encrypt(self, chunks: Sequence[bytes | bytearray | memoryview]) -> list[bytes]:
        """Records for the client."""
        write, read, piece = self._object.write, self._outgoing.read, limits.TLS_PIECE_BYTES
        records = []
        for chunk in chunks:
            if len(chunk) <= piece:
                if chunk:
                    write(chunk)
                    records.append(read())
                continue
            view = memoryview(chunk).cast("B")
            for start in range(0, len(view), piece):
                write(view[start : start + piece])
                records.append(read())
        return records

    def farewell(self) -> bytes:
        """The close_notify alert (RFC 8446 §6.1), with whatever else is pending."""
        if self.established:
            with contextlib.suppress(ssl.SSLError):  # "want read": the client's own close_notify is not waited for
                self._object.unwrap()
        return self.outgoing()


class DeflateLayer:
    """Raw DEFLATE both ways (RFC 4978)."""

    __slots__ = ("_compress", "_inflate", "_inflated", "_received", "_tail")

    def __init__(self) -> None:
        self._compress = zlib.compressobj(limits.DEFLATE_LEVEL, zlib.DEFLATED, -limits.DEFLATE_WINDOW_BITS, limits.DEFLATE_MEMORY_LEVEL)
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._tail = b""
        self._received = self._inflated = 0

    def feed(self, data: bytes) -> None:
        """Compressed bytes from the client."""
        self._received += len(data)
        self._tail = self._tail + data if self._tail else data

    def hungry(self) -> bool:
        """Whether reading would bring nothing without more input."""
        return not self._tail

    def read(self) -> bytes:
        """Up to INFLATE_PIECE_BYTES of plain bytes; empty: needs more input. Raises MailError for bombs and broken data."""
        try:
            data = self._inflate.decompress(self._tail, limits.INFLATE_PIECE_BYTES)
        except zlib.error as error:
            raise MailError(COMPRESSION_BROKEN, str(error)) from None
        self._tail = self._inflate.unconsumed_tail
        if len(data) == limits.INFLATE_PIECE_BYTES and not self._tail:
            # All input is taken, but the last match may not be written out yet (a few hundred bytes): ask again without input.
            data += self._inflate.decompress(b"", limits.INFLATE_PIECE_BYTES)
        if self._inflate.eof:
            raise MailError(COMPRESSION_BROKEN, "stream ended")
        self._inflated += len(data)
        if self._inflated > limits.INFLATE_FREE_BYTES + limits.INFLATE_RATIO_MAX * self._received:
            raise MailError(COMPRESSION_BOMB)
        return data

    def compress(self, chunks: Sequence[bytes | bytearray | memoryview]) -> list[bytes]:
        """Compressed bytes, flushed so that the client can read all of `chunks`."""
        compressed = [self._compress.compress(chunk) for chunk in chunks]
        compressed.append(self._compress.flush(zlib.Z_SYNC_FLUSH))
        return [part for part in compressed if part]
