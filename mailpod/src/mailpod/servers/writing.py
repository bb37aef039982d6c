"""The writing half of a connection: gathers a turn's writes, compresses, encrypts, and tells when the client is slow."""

from __future__ import annotations

import asyncio
import enum
import ssl
from collections.abc import Sequence

import structlog

from mailpod.limits import connection as limits
from mailpod.servers.layers import DeflateLayer, TlsLayer
from mailpod.servers.registry import Connections, Metrics

log = structlog.get_logger(__name__)


class Phase(enum.IntEnum):
    """Where a connection stands."""

    PROXY = 0  # waiting for a balancer's header
    HANDSHAKE = 1
    OPEN = 2
    ENDING = 3  # the client closed its half; our last answers leave
    CLOSING = 4  # closed by us; what is queued leaves
    LOST = 5


class WritingHalf(asyncio.Protocol):
    """What `Connection` is built on: everything that goes out passes here."""

    __slots__ = (
        "_deflate",
        "_metrics",
        "_out",
        "_out_bytes",
        "_peer_slow",
        "_phase",
        "_registry",
        "_tick",
        "_tls",
        "_transport",
        "_waiters",
        "protocol",
        "session_id",
    )

    def __init__(self, protocol: str, registry: Connections, metrics: Metrics) -> None:
        self.protocol = protocol
        self.session_id = ""
        self._registry = registry
        self._metrics = metrics
        self._transport: asyncio.Transport | None = None
        self._phase = Phase.OPEN
        self._tick = registry.tick  # the sweep of the client's last sign of life
        self._tls: TlsLayer | None = None
        self._deflate: DeflateLayer | None = None
        self._peer_slow = False
        self._out: list[bytes | bytearray | memoryview] = []
        self._out_bytes = 0
        self._waiters: list[asyncio.Future[None]] | None = None

    def pause_writing(self) -> None:
        """The transport's queue is full."""
        self._peer_slow = True

    def resume_writing(self) -> None:
        """It has room again: the client does read, however slowly."""
        self._peer_slow = False
        self._tick = self._registry.tick
        self._wake(None)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes; all writes of one loop turn leave as one, except bulk data, which leaves in pieces."""
        if self._phase >= Phase.CLOSING:
            return
        if not self._out:
            self._registry.flush_soon(self.flush)
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes >= limits.WRITE_GATHER_BYTES:
            self.flush()

    def writelines(self, chunks: Sequence[bytes]) -> None:
        """Queue several at once."""
        if self._phase >= Phase.CLOSING or not chunks:
            return
        if not self._out:
            self._registry.flush_soon(self.flush)
        self._out.extend(chunks)
        self._out_bytes += sum(map(len, chunks))
        if self._out_bytes >= limits.WRITE_GATHER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand what is queued to the transport."""
        out, self._out, self._out_bytes = self._out, [], 0
        transport = self._transport
        if not out or transport is None or transport.is_closing():
            return
        if self._deflate is not None:
            out = list(self._deflate.compress(out))
        if self._tls is not None and self._tls.established:
            if len(out) > 1 and len(out[0]) < limits.TLS_PIECE_BYTES:
                out = [b"".join(out)]  # many small lines: few records
            try:
                out = list(self._tls.encrypt(out))
            except ssl.SSLError as error:
                log.info("tls-write-failed", session=self.session_id, protocol=self.protocol, reason=error.reason or str(error))
                self._metrics.error("tls-error")
                self.abort()
                return
        transport.write(out[0] if len(out) == 1 else b"".join(out))
        if self._peer_slow and transport.get_write_buffer_size() > limits.WRITE_QUEUE_BYTES_MAX:
            self._metrics.error("write-queue")
            self.abort()

    def _send_raw(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    @property
    def congested(self) -> bool:
        """The client reads slower than we write."""
        return self._peer_slow

    async def drained(self) -> None:
        """Return when not congested; raises ConnectionResetError when the connection is gone."""
        while True:
            if self._phase >= Phase.CLOSING:
                raise ConnectionResetError("connection closed")
            if not self._peer_slow:
                return
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            await waiter

    def _wake(self, error: Exception | None) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)

    def abort(self) -> None:
        """Cut the connection now, whatever is queued."""
        if self._transport is not None:
            self._transport.abort()
