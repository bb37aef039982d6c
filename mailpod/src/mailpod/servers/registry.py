"""All client connections of a pod: caps, the sweep for timeouts, closing by account, draining."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

import structlog
from prometheus_client import Counter, Gauge

from mailpod import telemetry
from mailpod.auth.throttle import address_key
from mailpod.errors import Reason
from mailpod.limits import connection as limits
from mailpod.ports import Clock, Entropy
from mailpod.servers.proxy import TrustedPeers
from mailpod.servers.tls import TlsProvider
from mailpod.sessions.wire import Session, Wire

log = structlog.get_logger(__name__)


class Endpoint(NamedTuple):
    """What a listener speaks."""

    protocol: str  # telemetry label: "imap", "imaps", "pop3", "pop3s"
    implicit_tls: bool
    make_session: Callable[[Wire], Session]
    busy_line: bytes = b""  # what a client is told when it may not connect; only where no TLS comes first


class Sweepable(Protocol):
    """A connection, as the registry sees it."""

    session: Session | None

    def sweep(self, tick: int) -> None:
        """Look whether something has taken too long."""

    def abort(self) -> None:
        """Cut the connection now."""


class Metrics:
    """One protocol's children, resolved once."""

    def __init__(self, protocol: str) -> None:
        self.open: Gauge = telemetry.SESSIONS.labels(protocol)
        self.started: Counter = telemetry.SESSIONS_TOTAL.labels(protocol)
        self._protocol = protocol
        self._errors: dict[str, Counter] = {}
        self._tls: dict[tuple[str, str], Counter] = {}

    def error(self, reason: str) -> None:
        """Count a session that ended by a fault. `reason` is one of few names."""
        counter = self._errors.get(reason)
        if counter is None:
            counter = self._errors[reason] = telemetry.SESSION_ERRORS.labels(self._protocol, reason)
        counter.inc()

    def tls(self, version: str, result: str) -> None:
        """Count a handshake."""
        counter = self._tls.get((version, result))
        if counter is None:
            counter = self._tls[version, result] = telemetry.TLS.labels(self._protocol, version, result)
        counter.inc()


class Connections:
    """One per pod: shared by the listeners of IMAP and POP3.

    `trusted` (whose PROXY headers are believed) may be replaced at any time; it holds for connections to come.
    """

    def __init__(self, clock: Clock, entropy: Entropy, tls: TlsProvider, trusted: TrustedPeers | None = None) -> None:
        self.clock = clock
        self.entropy = entropy
        self.tls = tls
        self.trusted = trusted if trusted is not None else TrustedPeers(())
        self.tick = 0  # counts sweeps: the coarse clock by which connections measure silence
        self.handshakes = 0  # connections in the middle of one
        self._all: set[Sweepable] = set()
        self._by_address: dict[str, int] = {}
        self._metrics: dict[str, Metrics] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._draining = False
        self._dirty: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._all)

    def start(self) -> None:
        """Begin to sweep. Needs a running loop."""
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep_forever())

    async def stop(self) -> None:
        """Cut what is still open and end the sweep."""
        for connection in list(self._all):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
            self._sweeper = None

    def metrics(self, protocol: str) -> Metrics:
        """The metrics of a protocol."""
        found = self._metrics.get(protocol)
        if found is None:
            found = self._metrics[protocol] = Metrics(protocol)
        return found

    # Caps.

    def register(self, connection: Sweepable) -> bool:
        """Count a connection in; False: too many, or draining."""
        if self._draining or len(self._all) >= limits.CONNECTIONS_MAX:
            return False
        self._all.add(connection)
        return True

    def forget(self, connection: Sweepable) -> None:
        """The connection is gone."""
        self._all.discard(connection)

    def admit(self, address: str) -> str | None:
        """Count a connection of this client in; the key to `release` it by, or None when it has too many."""
        key = address_key(address)
        count = self._by_address.get(key, 0)
        if count >= limits.PER_ADDRESS_MAX:
            return None
        self._by_address[key] = count + 1
        return key

    def release(self, key: str) -> None:
        """Count it out."""
        count = self._by_address[key] - 1
        if count:
            self._by_address[key] = count
        else:
            del self._by_address[key]

    # Writing: all connections that have something to send do so at the end of the loop's turn.

    def flush_soon(self, flush: Callable[[], None]) -> None:
        """Call `flush` when this turn's work is done."""
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self._flush_all)
        self._dirty.append(flush)

    def _flush_all(self) -> None:
        dirty, self._dirty = self._dirty, []
        for flush in dirty:
            flush()

    # Timeouts.

    async def _sweep_forever(self) -> None:
        while True:
            await self.clock.sleep(limits.SWEEP_S)
            self.tick += 1
            connections = list(self._all)
            for start in range(0, len(connections), limits.SWEEP_SLICE):
                for connection in connections[start : start + limits.SWEEP_SLICE]:
                    connection.sweep(self.tick)
                await self.clock.sleep(0)

    # Closing.

    def close_for(self, accounts: Collection[str], reason: Reason | None = None) -> int:
        """Tell sessions that are logged in to one of these accounts (addresses) to end; returns how many.

        For mailboxes that were removed or locked. Without a reason they are told what a draining pod tells.
        """
        sessions = [c.session for c in self._all if c.session is not None and c.session.account_address in accounts]
        for session in sessions:
            if reason is None:
                session.shut_down()
            else:
                session.close_for(reason)
        return len(sessions)

    async def drain(self, timeout_s: float) -> int:
        """Tell all sessions to end, wait for them, cut the rest after `timeout_s`; returns how many were cut.

        The listeners have stopped accepting before.
        """
        self._draining = True
        for index, connection in enumerate(list(self._all)):
            if connection.session is not None:
                connection.session.shut_down()
            else:
                connection.abort()
            if index % limits.SWEEP_SLICE == limits.SWEEP_SLICE - 1:
                await self.clock.sleep(0)
        deadline = self.clock.monotonic() + timeout_s
        while self._all and self.clock.monotonic() < deadline:
            await self.clock.sleep(0.05)
        rest = list(self._all)
        for connection in rest:
            connection.abort()
        if rest:
            log.warning("drain-cut", sessions=len(rest))
            await self.clock.sleep(0)
        return len(rest)
