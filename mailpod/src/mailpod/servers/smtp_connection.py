"""One SMTP connection: aiosmtpd at the edge, the session of `sessions.smtp` behind it.

aiosmtpd gives the connection: protocol class, session object, flow control, life cycle. Commands, content, replies and policy are ours.
What made it slow is left out: no introspection for each connection (a template's attributes are copied), no reader with a timer for each
command and a drain for each reply; bytes are pushed into the session, all replies to one read leave as one write, one sweep watches all.
TLS is the layer over memory buffers that IMAP and POP3 use as well: it takes what a PROXY header left over, and has a timeout.
"""

from __future__ import annotations

import asyncio
import collections
import enum
import logging
import ssl
from collections.abc import Awaitable, Sequence
from typing import Any, Final, Protocol, cast

import structlog
from aiosmtpd.smtp import SMTP

from mailpod.errors import Reason
from mailpod.limits import connection as connection_limits
from mailpod.limits import smtp as limits
from mailpod.protocol.smtp import encode_reason
from mailpod.servers import proxy
from mailpod.servers.layers import TlsLayer
from mailpod.servers.smtp_registry import Kind, SmtpConnections
from mailpod.servers.tls import TlsProvider, tls_info
from mailpod.sessions.services import Services
from mailpod.sessions.smtp import SmtpSession, SmtpShared, reasons
from mailpod.sessions.wire import Peer, TlsInfo

_log: Final = structlog.get_logger(__name__)
# aiosmtpd logs every connection, and lines of clients at debug; our own log says what there is to say, without secrets.
logging.getLogger("mail.log").setLevel(logging.WARNING)


class SmtpHost(Protocol):
    """What a connection needs of its server."""

    services: Services
    shared: SmtpShared
    connections: SmtpConnections
    tls: TlsProvider | None
    trusted: proxy.TrustedPeers


class _Phase(enum.IntEnum):
    PROXY = 0  # waiting for a balancer's header
    HELD = 1  # what comes is kept until it is clear what it is
    HANDSHAKE = 2
    OPEN = 3


class _NoTimer:
    """What aiosmtpd cancels where it had a timer: the registry sweeps instead."""

    def cancel(self) -> None:
        """Nothing to cancel."""


_NO_TIMER: Final = _NoTimer()


class SmtpConnection(SMTP):
    """One client connection, and the `Wire` of its session."""

    transport: asyncio.Transport | None  # narrower than aiosmtpd says: all of ours are

    def __init__(self, host: SmtpHost, kind: Kind, template: dict[str, Any]) -> None:
        # Not super().__init__, which looks through itself and its handler for methods each time (0.7 ms). `template` holds the attributes
        # of an instance that was made by it once; here stands what belongs to one connection.
        self.__dict__.update(template)
        self._closed = self.loop.create_future()
        self._drain_waiters: collections.deque[asyncio.Future[None]] = collections.deque()
        self._host = host
        self._kind = kind
        self.protocol = kind.rules.protocol
        self.session_id = ""
        self.peer = Peer("", 0)
        self.tls: TlsInfo | None = None
        self.mail: SmtpSession | None = None
        self._phase = _Phase.HELD
        self._raw = b""  # received and not looked at yet; only before the session begins, and with TLS
        self._layer: TlsLayer | None = None
        self._turn: asyncio.Future[None] | None = None  # done when PROXY header or handshake are
        self._address_key: str | None = None
        self._waits_since: float | None = None  # for the client to take what we write
        self._ends_since: float | None = None
        self._lost = False

    # --- aiosmtpd's life cycle ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted. aiosmtpd makes its objects and a task of `_handle_client`."""
        # uvloop's transports are no subclasses of asyncio's.
        transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(limits.PENDING_OUTPUT_BYTES_MAX)
        self.peer = proxy.peer_of(transport)
        super().connection_made(transport)

    def _reset_timeout(self, duration: float | None = None) -> None:
        self._timeout_handle = cast("asyncio.TimerHandle", _NO_TIMER)

    async def _handle_client(self) -> None:
        """What runs between accepting and the greeting; from there on the session is driven by `data_received`."""
        refusal = self._host.connections.register(self)
        if refusal is not None:
            self._turn_away(refusal)
            return
        try:
            if self.peer.address in self._host.trusted:
                await self._wait_for(_Phase.PROXY, proxy.HEADER_TIMEOUT_S)
            self._address_key = self._host.connections.admit(self.peer.address)
            if self._address_key is None:
                self._turn_away(reasons.BUSY_PEER)
                return
            if self._kind.rules.implicit_tls:
                await self._negotiate()
        except ConnectionError:
            return
        self._begin()

    async def _wait_for(self, phase: _Phase, timeout_s: float) -> None:
        """Until the phase is over. Raises ConnectionResetError when it failed or took too long; the connection is closed then."""
        self._turn = self.loop.create_future()
        self._phase = phase
        self._pump()
        try:
            async with asyncio.timeout(timeout_s):
                await self._turn
        except TimeoutError:
            self._fault(f"timeout-{phase.name.lower()}", "")
            raise ConnectionResetError("timeout") from None

    def _begin(self) -> None:
        if self._lost or self.transport is None:
            return
        self.session_id = self._host.services.entropy.bytes(8).hex()
        self._kind.metrics.started.inc()
        self._kind.metrics.open.inc()
        starttls = self._host.tls is not None and not self._kind.rules.implicit_tls
        self.mail = SmtpSession(self, self._host.shared, self._kind.rules, starttls=starttls)
        self._phase = _Phase.OPEN
        self.mail.begin()
        self._pump()

    def _turn_away(self, reason: Reason) -> None:
        self._kind.metrics.error(reason.name)
        _log.info("connection-refused", reason=reason.name, detail="", protocol=self.protocol, peer=self.peer.address)
        if not self._kind.rules.implicit_tls:
            self.write(encode_reason(reason))
        self.close()

    def _fault(self, reason: str, detail: str) -> None:
        """The connection cannot go on, and there is nothing that could be said to the client."""
        self._kind.metrics.error(reason)
        _log.info("connection-refused", reason=reason, detail=detail, protocol=self.protocol, peer=self.peer.address)
        turn, self._turn = self._turn, None
        if turn is not None and not turn.done():
            turn.set_exception(ConnectionResetError(reason))
        self.close()

    def eof_received(self) -> bool:
        """The client sends no more. Unlike in aiosmtpd what runs is not cancelled: a client that half-closes reads its answers."""
        if self.mail is None or self._phase is not _Phase.OPEN:
            return False
        self.mail.eof_received()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Gone, by whatever cause."""
        self._lost = True
        self._host.connections.forget(self)
        if self._address_key is not None:
            self._host.connections.release(self._address_key)
        turn, self._turn = self._turn, None
        if turn is not None and not turn.done():
            turn.cancel()
        mail, self.mail = self.mail, None
        if mail is not None:
            self._kind.metrics.open.dec()
            try:
                mail.connection_lost()
            except Exception:  # noqa: BLE001 -- one session's fault must not reach the event loop
                _log.exception("session-fault", session=self.session_id, protocol=self.protocol)
        self._raw, self._layer = b"", None
        super().connection_lost(error)

    def pause_writing(self) -> None:
        """The client takes less than we write."""
        super().pause_writing()
        self._waits_since = self._host.services.clock.monotonic()

    def resume_writing(self) -> None:
        """It has taken it."""
        super().resume_writing()
        self._waits_since = None

    # --- The way in ----------------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._layer is None and self._phase is _Phase.OPEN:
            if self.mail is not None:
                self._deliver(self.mail, data)
            return
        self._raw += data
        self._pump()

    def _pump(self) -> None:
        """Take what has been received through the layer of the moment."""
        try:
            if self._phase is _Phase.PROXY:
                self._read_proxy()
            elif self._phase is _Phase.HANDSHAKE and self._layer is not None:
                self._shake_hands(self._layer)
            elif self._phase is _Phase.OPEN and self._layer is not None:
                self._decrypt(self._layer)
            elif self._phase is _Phase.OPEN and self._raw and self.mail is not None:
                data, self._raw = self._raw, b""
                self._deliver(self.mail, data)
        except ssl.SSLError as error:
            if self._phase is _Phase.HANDSHAKE and self._layer is not None:
                self._kind.metrics.tls("", "failed")
                self._send(self._layer.outgoing())  # the alert says why
            self._fault("tls-error", error.reason or type(error).__name__)

    def _deliver(self, mail: SmtpSession, data: bytes) -> None:
        try:
            mail.data_received(data)
        except Exception:  # noqa: BLE001 -- one session's fault must not reach the event loop
            _log.exception("session-fault", session=self.session_id, protocol=self.protocol)
            self._kind.metrics.error("internal")
            self.abort()

    def _read_proxy(self) -> None:
        result = proxy.parse(self._raw)
        if isinstance(result, proxy.NeedMore):
            return
        self._phase = _Phase.HELD
        if isinstance(result, proxy.BadHeader):
            self._fault("proxy-header", result.why)
            return
        self._raw = self._raw[result.consumed :]
        if result.peer is not None:
            self.peer = result.peer
        self._done()

    def _shake_hands(self, layer: TlsLayer) -> None:
        while self._raw:
            finished = layer.handshake(self._take_piece())
            self._send(layer.outgoing())
            if finished:
                # What is behind it stays here until the session has woken up.
                self._phase = _Phase.HELD
                self._done()
                return

    def _done(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None and not turn.done():
            turn.set_result(None)

    def _decrypt(self, layer: TlsLayer) -> None:
        while self.mail is not None:
            if layer.hungry():
                if not self._raw:
                    return
                layer.feed(self._take_piece())
            data = layer.read()
            self._send(layer.outgoing())  # e.g. the answer to a key update
            if data:
                self._deliver(self.mail, data)
            elif data is None:
                if not self._raw:
                    return
                layer.feed(self._take_piece())
            else:  # close_notify: like an end of file
                self._raw = b""
                self.mail.eof_received()
                return

    def _take_piece(self) -> bytes:
        size = connection_limits.TLS_PIECE_BYTES
        piece, self._raw = self._raw[:size], self._raw[size:]
        return piece

    # --- Wire ----------------------------------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        if data and self.transport is not None:
            self.transport.write(data)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; sessions gather all replies to one read themselves."""
        if self.transport is None or self._ends_since is not None:
            return
        if self._layer is not None:
            self._send(b"".join(self._layer.encrypt((data,))))
        else:
            self.transport.write(data)

    def writelines(self, chunks: Sequence[bytes]) -> None:
        """Send several."""
        self.write(b"".join(chunks))

    @property
    def congested(self) -> bool:
        """The client reads slower than we write."""
        return bool(self._paused)  # type: ignore[attr-defined]  # asyncio's FlowControlMixin, not in its stubs

    def drained(self) -> Awaitable[None]:
        """Ready when not congested; raises ConnectionResetError when the connection is gone."""
        return cast("Awaitable[None]", self._drain_helper())  # type: ignore[attr-defined]  # as above

    def pause_reading(self) -> None:
        """Take no more from the client."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    async def start_tls(self) -> TlsInfo:
        """Drop plaintext that came behind STARTTLS (RFC 3207 §4.2), negotiate.

        Raises ConnectionResetError when it fails; the connection is closed then.
        """
        self._raw = b""
        info = await self._negotiate()
        self._phase = _Phase.OPEN
        self.loop.call_soon(self._pump)  # the session's task ends before it sees a byte from inside TLS
        return info

    async def _negotiate(self) -> TlsInfo:
        tls = self._host.tls
        if self.transport is None or tls is None:
            self.close()
            raise ConnectionResetError("connection closed, or no TLS configured")
        self._layer = layer = TlsLayer(tls.context())
        await self._wait_for(_Phase.HANDSHAKE, limits.TLS_HANDSHAKE_TIMEOUT_S)
        self.tls = tls_info(layer.object)
        self._kind.metrics.tls(self.tls.version, "ok")
        return self.tls

    def start_compression(self) -> None:
        """SMTP has none."""
        raise AssertionError("no SMTP session asks for compression")

    def close(self) -> None:
        """Flush and close."""
        if self.transport is not None and self._ends_since is None:
            self._ends_since = self._host.services.clock.monotonic()
            if self._layer is not None:
                self._send(self._layer.farewell())
            self.transport.close()

    # --- Registry ------------------------------------------------------------------------------------------------------------------

    def sweep(self, now: float, *, pressed: bool) -> None:
        """Look whether something has taken too long. What comes before the greeting has its own timeouts."""
        if self._ends_since is not None:
            if now - self._ends_since > limits.CLOSE_LINGER_S:
                self.abort()
        elif self._waits_since is not None and now - self._waits_since > limits.WRITE_TIMEOUT_S:
            self._kind.metrics.error("timeout-write")
            self.abort()
        elif self.mail is not None:
            self.mail.sweep(now, pressed=pressed)

    def shut_down(self) -> None:
        """End as soon as nothing is under way."""
        if self.mail is not None:
            self.mail.shut_down()
        else:
            self.close()

    def abort(self) -> None:
        """Cut the connection now."""
        if self.transport is not None:
            self.transport.abort()
