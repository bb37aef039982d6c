"""One client connection of IMAP or POP3: PROXY header, TLS, compression, flow control. The session above sees a `Wire`.

There is no task, timer or stream per connection: bytes come by callback, timeouts by the registry's sweep.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

import structlog

from mailpod.errors import MailError
from mailpod.limits import connection as limits
from mailpod.servers import proxy
from mailpod.servers.layers import DeflateLayer, TlsLayer, first_record_complete
from mailpod.servers.registry import Connections, Endpoint, Metrics
from mailpod.servers.tls import tls_info
from mailpod.servers.writing import Phase, WritingHalf
from mailpod.sessions.wire import Peer, Session, TlsInfo

log = structlog.get_logger(__name__)


# How long a phase may last; OPEN is the session's own business.
_PHASE_S = {
    Phase.PROXY: limits.PROXY_HEADER_S,
    Phase.HANDSHAKE: limits.HANDSHAKE_S,
    Phase.ENDING: limits.EOF_LINGER_S,
    Phase.CLOSING: limits.CLOSE_LINGER_S,
}


def connection_factory(connections: Connections, endpoint: Endpoint) -> Callable[[], Connection]:
    """What `loop.create_server` calls for each connection. The server itself is opened without TLS: it is a layer in here."""
    metrics = connections.metrics(endpoint.protocol)
    return lambda: Connection(connections, endpoint, metrics)


class Connection(WritingHalf):
    """Adapts one transport to one session; implements `sessions.wire.Wire`."""

    __slots__ = (
        "_address_key",
        "_endpoint",
        "_eof_seen",
        "_phase_tick",
        "_pumping",
        "_raw",
        "_reading_paused",
        "_tls_waiter",
        "peer",
        "session",
        "tls",
    )

    def __init__(self, registry: Connections, endpoint: Endpoint, metrics: Metrics) -> None:
        super().__init__(endpoint.protocol, registry, metrics)
        self.peer = Peer("", 0)
        self.tls: TlsInfo | None = None
        self.session: Session | None = None
        self._endpoint = endpoint
        self._address_key: str | None = None
        self._phase_tick = registry.tick  # the sweep of the phase's begin
        self._raw = b""  # received and not looked at yet
        self._pumping = False
        self._eof_seen = False
        self._reading_paused = False
        self._tls_waiter: asyncio.Future[TlsInfo] | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted: wait for a PROXY header from those who have to send one, else begin."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(limits.WRITE_HIGH_BYTES, limits.WRITE_LOW_BYTES)
        self.peer = proxy.peer_of(transport)
        if not self.peer.address:  # gone already
            transport.abort()
        elif not self._registry.register(self):
            self._turn_away("too-many-connections")
        elif self.peer.address in self._registry.trusted:
            self._enter(Phase.PROXY)
        else:
            self._admit()

    def data_received(self, data: bytes) -> None:
        """Bytes from the socket."""
        self._tick = self._registry.tick
        self._raw = self._raw + data if self._raw else data
        if not self._pumping:
            self._pump()

    def eof_received(self) -> bool:
        """The client sent its last byte. It may still read: commands that it sent are answered, then the session closes."""
        if self._phase is not Phase.OPEN or self.session is None:
            return False
        self._eof_seen = True
        self._pump_now()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone, by whatever cause. Called once."""
        self._enter(Phase.LOST)
        self._registry.forget(self)
        if self._address_key is not None:
            self._registry.release(self._address_key)
            self._address_key = None
        self._raw, self._out, self._out_bytes = b"", [], 0
        self._give_up("connection lost")
        session, self.session = self.session, None
        if session is not None:
            self._metrics.open.dec()
            try:
                session.connection_lost()
            except Exception:  # one session's fault must not reach the event loop
                log.exception("session-fault", session=self.session_id, protocol=self.protocol)
        self._transport = None
        self._tls = self._deflate = None

    # The way in.

    def _admit(self) -> None:
        """The client's address is known."""
        self._address_key = self._registry.admit(self.peer.address)
        if self._address_key is None:
            self._turn_away("too-many-from-address")
        elif self._endpoint.implicit_tls:
            self._enter(Phase.HANDSHAKE)
        else:
            self._begin()

    def _begin(self) -> None:
        self._enter(Phase.OPEN)
        self.session_id = self._registry.entropy.bytes(6).hex()
        self._metrics.started.inc()
        self._metrics.open.inc()
        self.session = self._endpoint.make_session(self)
        self.session.begin()

    def _turn_away(self, reason: str) -> None:
        self._metrics.error(reason)
        log.info("connection-refused", reason=reason, protocol=self.protocol, peer=self.peer.address)
        if not self._endpoint.implicit_tls:
            self.write(self._endpoint.busy_line)
        self.close()

    def _pump(self) -> None:
        """Take received bytes up through the layers, until there are none or the session asks for a pause."""
        self._pumping = True
        delivered = 0
        try:
            while True:
                if self._phase is Phase.OPEN:
                    count = self._step_open()
                    if count < 0:
                        if self._eof_seen and not self._reading_paused:
                            self._eof()
                        return
                    delivered += count
                    if delivered >= limits.TURN_BYTES_MAX:
                        self._pump_later()  # others want their turn
                        return
                elif self._phase is Phase.HANDSHAKE:
                    if not self._step_handshake():
                        return
                elif self._phase is Phase.PROXY:
                    if not self._step_proxy():
                        return
                else:
                    self._raw = b""
                    return
        except ssl.SSLError as error:
            self._fault("tls-error", error.reason or str(error))
        except MailError as error:
            self._fault(error.reason.name, error.detail)
        except Exception:  # one session's fault must not reach the event loop
            log.exception("session-fault", session=self.session_id, protocol=self.protocol)
            self._fault("internal", "")
        finally:
            self._pumping = False

    def _pump_later(self) -> None:
        asyncio.get_running_loop().call_soon(self._pump_now)

    def _pump_now(self) -> None:
        if not self._pumping:
            self._pump()

    def _step_proxy(self) -> bool:
        result = proxy.parse(self._raw)
        if isinstance(result, proxy.NeedMore):
            return False
        if isinstance(result, proxy.BadHeader):
            self._fault("proxy-header", result.why)
            return False
        self._raw = self._raw[result.consumed :]
        if result.peer is not None:
            self.peer = result.peer
        self._admit()
        return True

    def _step_handshake(self) -> bool:
        """Whether the handshake is done and more can be done in this turn."""
        if not self._raw:
            return False
        tls = self._tls
        if tls is None:
            # A handshake under way costs tens of KiB: none is begun for half a hello, or for what is no TLS.
            complete = first_record_complete(self._raw)
            if complete is False:
                return False
            if complete is None:
                self._tls_failed("no ClientHello")
                return False
            tls = self._tls = TlsLayer(self._registry.tls.context())
        data = self._take_piece()
        try:
            done = tls.handshake(data)
        except ssl.SSLError as error:
            self._send_raw(tls.outgoing())  # the alert says why
            self._tls_failed(error.reason or str(error))
            return False
        self._send_raw(tls.outgoing())
        if not done:
            return True  # the rest of `_raw`, if any
        self.tls = tls_info(tls.object)
        self._metrics.tls(self.tls.version, "ok")
        waiter, self._tls_waiter = self._tls_waiter, None
        if waiter is None:
            self._begin()
            return True
        # STARTTLS: the session must wake up and forget its plaintext state before it sees a byte from inside TLS. Both are scheduled
        # in this order, so the session's task runs first.
        self._enter(Phase.OPEN)
        if self._reading_paused and self._transport is not None:
            self._transport.pause_reading()
        if not waiter.done():
            waiter.set_result(self.tls)
        self._pump_later()
        return False

    def _tls_failed(self, reason: str) -> None:
        self._metrics.tls("", "failed")
        log.info("tls-failed", protocol=self.protocol, peer=self.peer.address, reason=reason)
        self.close()

    def _step_open(self) -> int:
        """Hand one piece to the session; its length, or -1 when there is nothing to do now."""
        if self._reading_paused or self.session is None:
            return -1
        deflate = self._deflate
        if deflate is not None and not deflate.hungry():
            return self._deliver(deflate.read())
        if self._tls is not None:
            data = self._decrypted(self._tls)
            if data is None:
                return -1
        elif self._raw:
            data, self._raw = self._raw, b""
        else:
            return -1
        if deflate is not None:
            deflate.feed(data)
            return 0
        return self._deliver(data)

    def _deliver(self, data: bytes) -> int:
        assert self.session is not None
        if data:
            self.session.data_received(data)
        return len(data)

    def _decrypted(self, tls: TlsLayer) -> bytes | None:
        while True:
            if tls.hungry():
                if not self._raw:
                    return None
                tls.feed(self._take_piece())
            data = tls.read()
            self._send_raw(tls.outgoing())  # e.g. the answer to a key update
            if data is None:
                if not self._raw:
                    return None
                tls.feed(self._take_piece())
                continue
            if not data:  # close_notify: like an end of file
                self._raw = b""
                self._eof()
                return None
            return data

    def _take_piece(self) -> bytes:
        raw, piece = self._raw, limits.TLS_PIECE_BYTES
        if len(raw) <= piece:
            self._raw = b""
            return raw
        self._raw = raw[piece:]
        return raw[:piece]

    def _eof(self) -> None:
        if self._phase is not Phase.OPEN or self.session is None:
            return
        self._enter(Phase.ENDING)
        self.session.eof_received()

    def _fault(self, reason: str, detail: str) -> None:
        """The connection can't go on."""
        if self._phase < Phase.CLOSING:
            self._metrics.error(reason)
            log.info(
                "connection-fault", session=self.session_id, protocol=self.protocol, peer=self.peer.address, reason=reason, detail=detail
            )
            self.close()

    # Wire: reading.

    def pause_reading(self) -> None:
        """Bytes stay in the kernel (and a few here) until `resume_reading`."""
        if not self._reading_paused:
            self._reading_paused = True
            if self._phase is Phase.OPEN and self._transport is not None and not self._transport.is_closing():
                self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on; what is held here comes in the loop's next turn."""
        if self._reading_paused:
            self._reading_paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()
            if self._phase is Phase.OPEN:
                self._pump_later()

    # Wire: layers.

    async def start_tls(self) -> TlsInfo:
        """Flush, drop plaintext that came behind the command (RFC 3207 §4.2, RFC 9051 §6.2.1, RFC 2595 §4), negotiate.

        Raises ConnectionResetError when it fails; the connection is closed then.
        """
        assert self.tls is None, "sessions refuse a second STARTTLS"
        if self._phase is not Phase.OPEN or self._transport is None:
            raise ConnectionResetError("connection closed")
        self.flush()
        self._raw = b""
        self._enter(Phase.HANDSHAKE)
        waiter: asyncio.Future[TlsInfo] = asyncio.get_running_loop().create_future()
        self._tls_waiter = waiter
        if self._reading_paused:
            self._transport.resume_reading()
        return await waiter

    def start_compression(self) -> None:
        """RFC 4978 §3: what was written so far leaves uncompressed, all later bytes are raw DEFLATE."""
        assert self._deflate is None, "sessions refuse a second COMPRESS"
        self.flush()
        self._deflate = DeflateLayer()

    # The way out.

    def close(self) -> None:
        """Flush and close."""
        if self._phase >= Phase.CLOSING:
            return
        self.flush()
        self._enter(Phase.CLOSING)
        self._give_up("connection closed")
        if self._transport is not None:
            if self._tls is not None:
                self._send_raw(self._tls.farewell())
            self._transport.close()

    def _give_up(self, why: str) -> None:
        """Whoever waits for room or for TLS waits in vain."""
        self._wake(ConnectionResetError(why))
        waiter, self._tls_waiter = self._tls_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(ConnectionResetError(why))

    def _enter(self, phase: Phase) -> None:
        self._registry.handshakes += (phase is Phase.HANDSHAKE) - (self._phase is Phase.HANDSHAKE)
        self._phase = phase
        self._phase_tick = self._registry.tick

    def sweep(self, tick: int) -> None:
        """Called every SWEEP_S: whether something has taken too long. A tick may begin just after the event, hence the +1."""
        phase_limit_s = _PHASE_S.get(self._phase)
        if self._phase is Phase.HANDSHAKE and self._registry.handshakes > limits.HANDSHAKES_PRESSED:
            phase_limit_s = limits.HANDSHAKE_PRESSED_S
        if phase_limit_s is not None:
            since = max(self._phase_tick, self._tick) if self._phase is Phase.ENDING else self._phase_tick
            if (tick - since - 1) * limits.SWEEP_S >= phase_limit_s:
                self._metrics.error(f"timeout-{self._phase.name.lower()}")
                self.abort()
            return
        session = self.session
        if session is None or self._phase is not Phase.OPEN:
            return
        silent_s = (tick - self._tick - 1) * limits.SWEEP_S
        if self._peer_slow:
            # The client has not taken a byte since: it is not coming back. Nothing more can be said to it.
            if silent_s >= limits.STALLED_WRITE_S:
                self._metrics.error("timeout-write")
                self.abort()
        elif silent_s >= session.idle_timeout_s:
            self._tick = tick  # once
            session.timed_out()
